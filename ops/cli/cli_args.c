/*
 * cli_args.c - parsing a command line against its table (see cli_args.h).
 */
#include "ops/cli/cli_args.h"

#include "ops/cli/cli_time.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMN = 28, HELP_WIDTH = 120, NAME_MAX_BYTES = 32 };

static const struct mn_cli_option *find_name(const struct mn_cli_args *args, const char *name, size_t size)
{
    for (int t = 0; t < MN_CLI_ARGS_TABLES; t++)
        for (const struct mn_cli_option *o = args->tables[t]; o && o->name; o++)
            if (strlen(o->name) == size && memcmp(o->name, name, size) == 0)
                return o;
    return NULL;
}

static const struct mn_cli_option *find_letter(const struct mn_cli_args *args, char letter)
{
    for (int t = 0; t < MN_CLI_ARGS_TABLES; t++)
        for (const struct mn_cli_option *o = args->tables[t]; o && o->name; o++)
            if (o->letter == letter)
                return o;
    return NULL;
}

/* ---- typos ---- */

/* How many letters to add, drop, change or swap with their neighbour make `b` of `a`. */
static size_t edits(const char *a, size_t n, const char *b, size_t m)
{
    size_t rows[3][NAME_MAX_BYTES + 1], *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= m; j++)
        last[j] = j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t changed = last[j - 1] + (a[i - 1] != b[j - 1]);
            size_t moved = (last[j] < now[j - 1] ? last[j] : now[j - 1]) + 1;
            now[j] = changed < moved ? changed : moved;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
        size_t *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[m];
}

bool mn_cli_args_resembles(const char *typed, size_t size, const char *name, size_t *best)
{
    size_t length = strlen(name);
    if (size > NAME_MAX_BYTES || length > NAME_MAX_BYTES)
        return false;
    bool begins = size > 1 && size < length && memcmp(typed, name, size) == 0;
    size_t far = begins ? 1 : edits(typed, size, name, length);
    if (far > 1 + size / 4 || far >= size || far >= *best)
        return false;
    *best = far;
    return true;
}

static const char *resembling(const struct mn_cli_args *args, const char *typed, size_t size)
{
    size_t best = SIZE_MAX;
    const char *found = NULL;
    for (int t = 0; t < MN_CLI_ARGS_TABLES; t++)
        for (const struct mn_cli_option *o = args->tables[t]; o && o->name; o++)
            if (mn_cli_args_resembles(typed, size, o->name, &best))
                found = o->name;
    return found;
}

/* ---- parsing ---- */

static void add(struct mn_cli_args *args, const struct mn_cli_option *option, const char *value)
{
    args->given[args->given_count++] = (struct mn_cli_given){option, value};
}

/* `text` is behind the dashes; consumes argv[*i + 1] when the value stands there. */
static enum mn_status parse_long(struct mn_cli_args *args, const char *text, int argc, char *const *argv, int *i)
{
    const char *equals = strchr(text, '=');
    size_t size = equals ? (size_t)(equals - text) : strlen(text);
    const struct mn_cli_option *o = find_name(args, text, size);
    if (!o) {
        const char *other = resembling(args, text, size);
        return MN_FAIL(MN_USAGE, "there is no option --%.*s%s%s%s", (int)size, text, other ? "; did you mean --" : "",
                       other ? other : "", other ? "?" : "");
    }
    if (!o->value && equals)
        return MN_FAIL(MN_USAGE, "--%s takes no value", o->name);
    if (o->value && !equals && *i + 1 >= argc)
        return MN_FAIL(MN_USAGE, "--%s needs a value: --%s %s", o->name, o->name, o->value);
    add(args, o, !o->value ? "" : equals ? equals + 1 : argv[++*i]);
    return MN_OK;
}

static enum mn_status parse_short(struct mn_cli_args *args, const char *text, int argc, char *const *argv, int *i)
{
    const struct mn_cli_option *o = find_letter(args, text[0]);
    if (!o)
        return MN_FAIL(MN_USAGE, "there is no option -%s", text);
    if (!o->value && text[1])
        return MN_FAIL(MN_USAGE, "-%c takes no value", o->letter);
    if (o->value && !text[1] && *i + 1 >= argc)
        return MN_FAIL(MN_USAGE, "-%c needs a value: -%c %s", o->letter, o->letter, o->value);
    add(args, o, !o->value ? "" : text[1] ? text + 1 : argv[++*i]);
    return MN_OK;
}

enum mn_status mn_cli_args_parse(struct mn_cli_args *args, int argc, char *const *argv,
                                 const struct mn_cli_option *table, const struct mn_cli_option *more, bool stop_at_word)
{
    bool only_words = false;
    memset(args, 0, sizeof *args);
    args->tables[0] = table;
    args->tables[1] = more;
    args->given = calloc((size_t)argc + 1, sizeof *args->given);
    args->words = calloc((size_t)argc + 1, sizeof *args->words);
    if (!args->given || !args->words)
        return MN_FAIL(MN_INTERNAL, "out of memory");
    for (int i = 0; i < argc; i++) {
        const char *text = argv[i];
        if (only_words || text[0] != '-' || !text[1]) {
            args->words[args->word_count++] = text;
            only_words = only_words || stop_at_word;
        } else if (strcmp(text, "--") == 0) {
            only_words = true;
        } else if (text[1] == '-') {
            MN_TRY(parse_long(args, text + 2, argc, argv, &i));
        } else {
            MN_TRY(parse_short(args, text + 1, argc, argv, &i));
        }
    }
    return MN_OK;
}

void mn_cli_args_free(struct mn_cli_args *args)
{
    free(args->given);
    free(args->words);
    memset(args, 0, sizeof *args);
}

/* ---- asking ---- */

const char *mn_cli_args_next(const struct mn_cli_args *args, const char *name, size_t *cursor)
{
    const struct mn_cli_option *o = find_name(args, name, strlen(name));
    MN_ASSERT(o != NULL);
    while (*cursor < args->given_count) {
        const struct mn_cli_given *given = &args->given[(*cursor)++];
        if (given->option == o)
            return given->value;
    }
    return NULL;
}

const char *mn_cli_args_text(const struct mn_cli_args *args, const char *name)
{
    size_t cursor = 0;
    const char *last = NULL, *value;
    while ((value = mn_cli_args_next(args, name, &cursor)))
        last = value;
    return last;
}

bool mn_cli_args_has(const struct mn_cli_args *args, const char *name)
{
    return mn_cli_args_text(args, name) != NULL;
}

size_t mn_cli_args_count(const struct mn_cli_args *args, const char *name)
{
    size_t cursor = 0, count = 0;
    while (mn_cli_args_next(args, name, &cursor))
        count++;
    return count;
}

enum mn_status mn_cli_args_u64(const struct mn_cli_args *args, const char *name, uint64_t min, uint64_t max,
                               uint64_t *out)
{
    const char *text = mn_cli_args_text(args, name);
    char *end;
    if (!text)
        return MN_OK;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value < min || value > max)
        return MN_FAIL(MN_USAGE, "--%s takes a whole number from %llu to %llu, not `%s`", name, (unsigned long long)min,
                       (unsigned long long)max, text);
    *out = value;
    return MN_OK;
}

enum mn_status mn_cli_args_f64(const struct mn_cli_args *args, const char *name, double min, double max, double *out)
{
    const char *text = mn_cli_args_text(args, name);
    char *end;
    if (!text)
        return MN_OK;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= min && value <= max))
        return MN_FAIL(MN_USAGE, "--%s takes a number from %g to %g, not `%s`", name, min, max, text);
    *out = value;
    return MN_OK;
}

enum mn_status mn_cli_args_duration(const struct mn_cli_args *args, const char *name, int64_t *out_ns)
{
    const char *text = mn_cli_args_text(args, name);
    if (text && !mn_cli_time_duration(text, out_ns))
        return MN_FAIL(MN_USAGE, "--%s takes a duration such as 90s, 15min, 1.5h or 7d, not `%s`", name, text);
    return MN_OK;
}

enum mn_status mn_cli_args_time(const struct mn_cli_args *args, const char *name, int64_t *out_ns)
{
    const char *text = mn_cli_args_text(args, name);
    if (text && !mn_cli_time_parse(text, mn_cli_time_now(), out_ns))
        return MN_FAIL(
            MN_USAGE,
            "--%s takes a time such as 2026-03-01T12:00:00Z, -1h (an hour ago), now, or nanoseconds since 1970, "
            "not `%s`",
            name, text);
    return MN_OK;
}

enum mn_status mn_cli_args_words(const struct mn_cli_args *args, size_t min, size_t max, const char *what)
{
    if (args->word_count < min)
        return MN_FAIL(MN_USAGE, "%s is missing", what);
    if (args->word_count > max)
        return MN_FAIL(MN_USAGE, "`%s` is too much: %s", args->words[max],
                       max ? what : "this command takes options only");
    return MN_OK;
}

/* ---- help ---- */

static void print_wrapped(FILE *out, const char *text, int column)
{
    int at = column;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (at > column && at + 1 + (int)word > HELP_WIDTH) {
            fprintf(out, "\n%*s", column, "");
            at = column;
        }
        at += fprintf(out, "%s%.*s", at > column ? " " : "", (int)word, text);
        text += word;
        while (*text == ' ')
            text++;
    }
    fputc('\n', out);
}

void mn_cli_args_help(FILE *out, const struct mn_cli_option *table)
{
    for (const struct mn_cli_option *o = table; o && o->name; o++) {
        int n = o->letter ? fprintf(out, "  -%c, --%s", o->letter, o->name) : fprintf(out, "  --%s", o->name);
        if (o->value)
            n += fprintf(out, " %s", o->value);
        if (n >= HELP_COLUMN)
            n = fprintf(out, "\n") - 1;
        fprintf(out, "%*s", HELP_COLUMN - n, "");
        print_wrapped(out, o->help, HELP_COLUMN);
    }
}
