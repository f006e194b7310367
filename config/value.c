/*
 * value.c - numbers with suffixes, to and from text (see value.h).
 */
#include "config/value.h"

#include "config/settings.h"

#include <inttypes.h>
#include <string.h>

struct suffix {
    const char *word;
    uint64_t factor;
};

/* From large to small: printing takes the first that divides the value. */
static const struct suffix sizes[] = {
    {"GiB", MN_GIB(1)}, {"MiB", MN_MIB(1)}, {"KiB", MN_KIB(1)}, {"G", 1000000000}, {"M", 1000000}, {"K", 1000},
};
static const struct suffix durations[] = {
    {"d", MN_DAYS(1)},
    {"h", MN_HOURS(1)},
    {"min", MN_MINUTES(1)},
    {"s", MN_SECONDS(1)},
    {"ms", MN_MILLISECONDS(1)},
    {"us", MN_MICROSECONDS(1)},
    {"ns", 1},
};

bool mn_value_parse_bool(const char *text, bool *out)
{
    bool yes = strcmp(text, "yes") == 0;
    if (!yes && strcmp(text, "no") != 0)
        return false;
    *out = yes;
    return true;
}

/* Reads digits; returns what follows them, blanks skipped, or NULL when there is no number or it is too large. */
static const char *read_digits(const char *text, uint64_t *out)
{
    if (*text < '0' || *text > '9')
        return NULL;
    uint64_t n = 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (__builtin_mul_overflow(n, (uint64_t)10, &n) || __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
            return NULL;
    }
    *out = n;
    return text + strspn(text, " \t");
}

static bool scale(uint64_t n, const char *word, const struct suffix *table, size_t count, uint64_t *out)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(word, table[i].word) == 0)
            return !__builtin_mul_overflow(n, table[i].factor, out);
    }
    return false;
}

bool mn_value_parse_uint(const char *text, uint64_t *out)
{
    uint64_t n, scaled;
    const char *rest = read_digits(text, &n);
    if (!rest)
        return false;
    if (*rest == '\0')
        scaled = n;
    else if (!scale(n, rest, sizes, MN_ARRAY_LEN(sizes), &scaled))
        return false;
    *out = scaled;
    return true;
}

bool mn_value_parse_duration(const char *text, uint64_t *out)
{
    uint64_t n, scaled;
    const char *rest = read_digits(text, &n);
    if (!rest)
        return false;
    if (*rest == '\0' && n == 0)
        scaled = 0; /* zero is zero in every unit; any other bare number would be a guess */
    else if (!scale(n, rest, durations, MN_ARRAY_LEN(durations), &scaled))
        return false;
    *out = scaled;
    return true;
}

void mn_value_print_uint(uint64_t value, char *out, size_t size)
{
    snprintf(out, size, "%" PRIu64, value);
}

static void print_scaled(uint64_t value, const struct suffix *table, size_t count, char *out, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        if (value != 0 && value % table[i].factor == 0) {
            snprintf(out, size, "%" PRIu64 "%s", value / table[i].factor, table[i].word);
            return;
        }
    }
    mn_value_print_uint(value, out, size);
}

void mn_value_print_bytes(uint64_t value, char *out, size_t size)
{
    enum { BINARY = 3 }; /* GiB, MiB, KiB: thousands would print the same size in two ways */
    print_scaled(value, sizes, BINARY, out, size);
}

void mn_value_print_duration(uint64_t value_ns, char *out, size_t size)
{
    print_scaled(value_ns, durations, MN_ARRAY_LEN(durations), out, size);
}
