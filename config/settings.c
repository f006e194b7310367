/*
 * settings.c - the table of settings, one value at a time, and the checks across them. Files are in settings_file.c.
 */
#include "config/settings.h"

#include "config/value.h"

#include <string.h>

/* The default goes to `number` or to `text`, as the type says. */
#define DEFAULT_BOOL(value)     .number = (value)
#define DEFAULT_UINT(value)     .number = (value)
#define DEFAULT_BYTES(value)    .number = (value)
#define DEFAULT_DURATION(value) .number = (value)
#define DEFAULT_STRING(value)   .text = (value)
#define DEFAULT_LIST(value)     .text = (value)

enum { RESTART, RELOAD };

static const struct mn_settings_row rows[] = {
#define SETTING(section, name, kind, value, low, high, counts, when, sentence)                                         \
    {.key = #section "." #name,                                                                                        \
     .type = MN_SETTINGS_##kind,                                                                                       \
     DEFAULT_##kind(value),                                                                                            \
     .min = (low),                                                                                                     \
     .max = (high),                                                                                                    \
     .unit = (counts),                                                                                                 \
     .reloadable = (when) == RELOAD,                                                                                   \
     .help = (sentence),                                                                                               \
     .offset = offsetof(struct mn_settings, section##_##name)},
#include "config/settings.def"
#undef SETTING
};

static void *field(struct mn_settings *settings, const struct mn_settings_row *row)
{
    return (char *)settings + row->offset;
}

static const void *field_const(const struct mn_settings *settings, const struct mn_settings_row *row)
{
    return (const char *)settings + row->offset;
}

static size_t field_size(const struct mn_settings_row *row)
{
    switch (row->type) {
    case MN_SETTINGS_BOOL:
        return sizeof(bool);
    case MN_SETTINGS_UINT:
    case MN_SETTINGS_BYTES:
    case MN_SETTINGS_DURATION:
        return sizeof(uint64_t);
    case MN_SETTINGS_STRING:
        return MN_SETTINGS_STRING_MAX;
    case MN_SETTINGS_LIST:
        return MN_SETTINGS_LIST_MAX;
    }
    return 0;
}

const struct mn_settings_row *mn_settings_row(size_t index)
{
    return index < MN_ARRAY_LEN(rows) ? &rows[index] : NULL;
}

const struct mn_settings_row *mn_settings_find(const char *key)
{
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].key, key) == 0)
            return &rows[i];
    }
    return NULL;
}

void mn_settings_default(struct mn_settings *settings)
{
    memset(settings, 0, sizeof *settings);
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        const struct mn_settings_row *row = &rows[i];
        if (row->type == MN_SETTINGS_BOOL)
            *(bool *)field(settings, row) = row->number != 0;
        else if (row->text)
            strncpy(field(settings, row), row->text, field_size(row) - 1);
        else
            *(uint64_t *)field(settings, row) = row->number;
    }
}

/* ---- Unknown keys: the nearest known one ---- */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein's distance, one row of the matrix at a time; `b` is one of our own keys, so it fits. */
static size_t edit_distance(const char *a, const char *b)
{
    enum { KEY_MAX = 64 };
    size_t line[KEY_MAX];
    size_t width = smaller(strlen(b), KEY_MAX - 1);
    for (size_t j = 0; j <= width; j++)
        line[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = line[0];
        line[0] = i + 1;
        for (size_t j = 0; j < width; j++) {
            size_t above = line[j + 1];
            size_t replaced = diagonal + (a[i] != b[j]);
            line[j + 1] = smaller(replaced, smaller(above, line[j]) + 1);
            diagonal = above;
        }
    }
    return line[width];
}

/* The key that was probably meant: a name without its section counts as exact. NULL when nothing is near. */
static const char *nearest_key(const char *key)
{
    const char *best = NULL;
    size_t best_distance = smaller(strlen(key), 64) / 3 + 2;
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        const char *name = strchr(rows[i].key, '.') + 1;
        size_t distance = strcmp(name, key) == 0 ? 0 : edit_distance(key, rows[i].key);
        if (distance < best_distance) {
            best = rows[i].key;
            best_distance = distance;
        }
    }
    return best;
}

static enum mn_status unknown_key(const char *key)
{
    const char *near = nearest_key(key);
    if (near)
        return MN_FAIL(MN_USAGE, "there is no setting '%.64s': did you mean '%s'?", key, near);
    return MN_FAIL(MN_USAGE, "there is no setting '%.64s': `mneme config` lists them all", key);
}

/* ---- One value ---- */

static enum mn_status set_number(struct mn_settings *settings, const struct mn_settings_row *row, const char *value)
{
    uint64_t number;
    bool duration = row->type == MN_SETTINGS_DURATION;
    if (!(duration ? mn_value_parse_duration(value, &number) : mn_value_parse_uint(value, &number))) {
        return MN_FAIL(MN_USAGE, "%s = '%.64s' is not a %s: write a whole number%s", row->key, value,
                       mn_settings_type_word(row),
                       duration ? " and ns, us, ms, s, min, h or d" : ", or one with K, M, G, KiB, MiB or GiB");
    }
    if (number < row->min || number > row->max) {
        char range[64];
        mn_settings_range(row, range, sizeof range);
        return MN_FAIL(MN_USAGE, "%s = %.64s is out of range: %s", row->key, value, range);
    }
    *(uint64_t *)field(settings, row) = number;
    return MN_OK;
}

/* What would not survive the way through a file (a comment begins with " ;", a line ends) is refused. */
static enum mn_status set_text(struct mn_settings *settings, const struct mn_settings_row *row, const char *value)
{
    if (strlen(value) >= field_size(row))
        return MN_FAIL(MN_USAGE, "%s is %zu bytes long: at most %zu", row->key, strlen(value), field_size(row) - 1);
    for (const char *c = value; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == ';')
            return MN_FAIL(MN_USAGE, "%s holds a semicolon or a control character: use neither", row->key);
    }
    memset(field(settings, row), 0, field_size(row));
    memcpy(field(settings, row), value, strlen(value));
    return MN_OK;
}

enum mn_status mn_settings_set_value(struct mn_settings *settings, const char *key, const char *value)
{
    const struct mn_settings_row *row = mn_settings_find(key);
    if (!row)
        return unknown_key(key);
    switch (row->type) {
    case MN_SETTINGS_BOOL:
        if (!mn_value_parse_bool(value, field(settings, row)))
            return MN_FAIL(MN_USAGE, "%s = '%.64s' is neither yes nor no", row->key, value);
        return MN_OK;
    case MN_SETTINGS_UINT:
    case MN_SETTINGS_BYTES:
    case MN_SETTINGS_DURATION:
        return set_number(settings, row, value);
    case MN_SETTINGS_STRING:
    case MN_SETTINGS_LIST:
        return set_text(settings, row, value);
    }
    return MN_FAIL(MN_INTERNAL, "%s has no known type", row->key);
}

/* Copies [from, to) without the blanks around it; false when it does not fit. */
static bool copy_trimmed(const char *from, const char *to, char *out, size_t size)
{
    while (from < to && (*from == ' ' || *from == '\t'))
        from++;
    while (to > from && (to[-1] == ' ' || to[-1] == '\t'))
        to--;
    if ((size_t)(to - from) >= size)
        return false;
    memcpy(out, from, (size_t)(to - from));
    out[to - from] = '\0';
    return true;
}

enum mn_status mn_settings_set(struct mn_settings *settings, const char *assignment)
{
    char key[64], value[MN_SETTINGS_VALUE_MAX];
    const char *equals = strchr(assignment, '=');
    if (!equals)
        return MN_FAIL(MN_USAGE, "'%.64s' sets nothing: write key=value, such as wal.prepared=2", assignment);
    if (!copy_trimmed(assignment, equals, key, sizeof key))
        return MN_FAIL(MN_USAGE, "there is no setting '%.64s...': no key is that long", assignment);
    if (!copy_trimmed(equals + 1, equals + strlen(equals), value, sizeof value))
        return MN_FAIL(MN_USAGE, "%s: a value has at most %d bytes", key, MN_SETTINGS_VALUE_MAX - 1);
    return mn_settings_set_value(settings, key, value);
}

/* ---- Across values ---- */

static enum mn_status check_order(const struct mn_settings *settings, const char *small_key, const char *large_key)
{
    const struct mn_settings_row *small = mn_settings_find(small_key);
    const struct mn_settings_row *large = mn_settings_find(large_key);
    MN_ASSERT(small && large);
    if (*(const uint64_t *)field_const(settings, small) <= *(const uint64_t *)field_const(settings, large))
        return MN_OK;
    char a[32], b[32];
    mn_settings_value(settings, small, a, sizeof a);
    mn_settings_value(settings, large, b, sizeof b);
    return MN_FAIL(MN_USAGE, "%s = %s is above %s = %s: it must not be", small_key, a, large_key, b);
}

enum mn_status mn_settings_check(const struct mn_settings *settings)
{
    if (settings->wal_segment_bytes % 4096 != 0) {
        return MN_FAIL(MN_USAGE, "wal.segment_bytes = %llu is not a multiple of 4KiB: write 64MiB, for example",
                       (unsigned long long)settings->wal_segment_bytes);
    }
    if (settings->supervisor_stall < 3 * settings->supervisor_heartbeat) {
        return MN_FAIL(MN_USAGE, "supervisor.stall is below three times supervisor.heartbeat: a role that is merely "
                                 "busy would be killed");
    }
    MN_TRY(check_order(settings, "tail.high_rows", "tail.rows_max"));
    MN_TRY(check_order(settings, "write.batch_bytes", "wal.segment_bytes"));
    MN_TRY(check_order(settings, "supervisor.backoff_min", "supervisor.backoff_max"));
    return MN_OK;
}

/* ---- Printing ---- */

static void print_number(const struct mn_settings_row *row, uint64_t number, char *out, size_t size)
{
    if (row->type == MN_SETTINGS_BYTES)
        mn_value_print_bytes(number, out, size);
    else if (row->type == MN_SETTINGS_DURATION)
        mn_value_print_duration(number, out, size);
    else
        mn_value_print_uint(number, out, size);
}

void mn_settings_value(const struct mn_settings *settings, const struct mn_settings_row *row, char *out, size_t size)
{
    const void *at = field_const(settings, row);
    if (row->type == MN_SETTINGS_BOOL)
        snprintf(out, size, "%s", *(const bool *)at ? "yes" : "no");
    else if (row->text)
        snprintf(out, size, "%s", (const char *)at);
    else
        print_number(row, *(const uint64_t *)at, out, size);
}

void mn_settings_default_value(const struct mn_settings_row *row, char *out, size_t size)
{
    struct mn_settings defaults;
    mn_settings_default(&defaults);
    mn_settings_value(&defaults, row, out, size);
}

void mn_settings_range(const struct mn_settings_row *row, char *out, size_t size)
{
    char low[32], high[32];
    snprintf(out, size, "%s", "");
    if (row->type == MN_SETTINGS_BOOL || row->text)
        return;
    print_number(row, row->min, low, sizeof low);
    print_number(row, row->max, high, sizeof high);
    snprintf(out, size, "%s to %s%s%s", low, high, *row->unit ? " " : "", row->unit);
}

const char *mn_settings_type_word(const struct mn_settings_row *row)
{
    static const char *const words[] = {
        [MN_SETTINGS_BOOL] = "yes or no",    [MN_SETTINGS_UINT] = "number", [MN_SETTINGS_BYTES] = "size",
        [MN_SETTINGS_DURATION] = "duration", [MN_SETTINGS_STRING] = "text", [MN_SETTINGS_LIST] = "list of paths",
    };
    return words[row->type];
}

/* ---- Reload, lists ---- */

static void append_key(char *list, size_t size, const char *key)
{
    size_t used = strlen(list);
    snprintf(list + used, size - used, "%s%s", used ? ", " : "", key);
}

size_t mn_settings_reload(struct mn_settings *current, const struct mn_settings *wanted, char *restart, size_t size)
{
    size_t changed = 0;
    snprintf(restart, size, "%s", "");
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        const struct mn_settings_row *row = &rows[i];
        if (memcmp(field(current, row), field_const(wanted, row), field_size(row)) == 0)
            continue;
        if (!row->reloadable) {
            append_key(restart, size, row->key);
            continue;
        }
        memcpy(field(current, row), field_const(wanted, row), field_size(row));
        changed++;
    }
    return changed;
}

bool mn_settings_list_next(const char **cursor, char *out, size_t size)
{
    const char *from = *cursor + strspn(*cursor, ":");
    size_t length = strcspn(from, ":");
    if (length == 0 || length >= size)
        return false;
    memcpy(out, from, length);
    out[length] = '\0';
    *cursor = from + length;
    return true;
}
