/*
 * settings.h - the settings of a cluster: a plain struct, filled from defaults, a file and the command line.
 *
 * settings.def declares them; this header expands the rows to fields (`wal.segment_bytes` is `s.wal_segment_bytes`).
 * The supervisor reads the file and the --set options once, checks the whole, and writes the effective settings to a
 * file that its children read; a reload takes over the fields that may change while the cluster runs.
 *
 * struct mn_settings holds no pointers: copy it, compare it, keep it on the stack (5 KiB). None of these functions is
 * synchronised; a struct belongs to one thread. Every failure is MN_USAGE with one sentence that names the key, the
 * value and what would be right, except where a file cannot be read or written (MN_SYSTEM).
 */
#ifndef MN_CONFIG_SETTINGS_H
#define MN_CONFIG_SETTINGS_H

#include "shm/status.h"

#include <stdio.h>

#define MN_KIB(n) ((uint64_t)(n) << 10)
#define MN_MIB(n) ((uint64_t)(n) << 20)
#define MN_GIB(n) ((uint64_t)(n) << 30)

/* Durations are kept in nanoseconds. */
#define MN_MICROSECONDS(n) ((uint64_t)(n)*1000)
#define MN_MILLISECONDS(n) (MN_MICROSECONDS(n) * 1000)
#define MN_SECONDS(n)      (MN_MILLISECONDS(n) * 1000)
#define MN_MINUTES(n)      (MN_SECONDS(n) * 60)
#define MN_HOURS(n)        (MN_MINUTES(n) * 60)
#define MN_DAYS(n)         (MN_HOURS(n) * 24)

/* Bytes of a STRING and of a LIST, the closing NUL included; of a printed value; of a line in a settings file. */
#define MN_SETTINGS_STRING_MAX 256
#define MN_SETTINGS_LIST_MAX   4096
#define MN_SETTINGS_VALUE_MAX  MN_SETTINGS_LIST_MAX
#define MN_SETTINGS_LINE_MAX   4400

enum mn_settings_type {
    MN_SETTINGS_BOOL,     /* bool */
    MN_SETTINGS_UINT,     /* uint64_t, counts of `unit` */
    MN_SETTINGS_BYTES,    /* uint64_t */
    MN_SETTINGS_DURATION, /* uint64_t, nanoseconds */
    MN_SETTINGS_STRING,   /* char[MN_SETTINGS_STRING_MAX] */
    MN_SETTINGS_LIST,     /* char[MN_SETTINGS_LIST_MAX], parts separated by colons: mn_settings_list_next */
};

#define MN_SETTINGS_FIELD_BOOL(name)     bool name;
#define MN_SETTINGS_FIELD_UINT(name)     uint64_t name;
#define MN_SETTINGS_FIELD_BYTES(name)    uint64_t name;
#define MN_SETTINGS_FIELD_DURATION(name) uint64_t name;
#define MN_SETTINGS_FIELD_STRING(name)   char name[MN_SETTINGS_STRING_MAX];
#define MN_SETTINGS_FIELD_LIST(name)     char name[MN_SETTINGS_LIST_MAX];

struct mn_settings {
#define SETTING(section, name, type, ...) MN_SETTINGS_FIELD_##type(section##_##name)
#include "config/settings.def"
#undef SETTING
};

/* One row of settings.def, for those who list settings. Static, never freed. */
struct mn_settings_row {
    const char *key; /* "wal.segment_bytes" */
    enum mn_settings_type type;
    uint64_t number;  /* the default of BOOL, UINT, BYTES, DURATION */
    const char *text; /* the default of STRING and LIST, else NULL */
    uint64_t min, max;
    const char *unit; /* what a UINT counts: "rows", else "" */
    bool reloadable;
    const char *help;
    size_t offset; /* of the field in struct mn_settings */
};

/* The rows in the order of settings.def; NULL past the last. */
const struct mn_settings_row *mn_settings_row(size_t index);
/* The row of a key, or NULL. */
const struct mn_settings_row *mn_settings_find(const char *key);

/* Fills in the default of every setting. */
void mn_settings_default(struct mn_settings *settings);

/* Sets one: `assignment` is "key=value", as on the command line. On failure `settings` is as it was. */
MN_MUST_USE enum mn_status mn_settings_set(struct mn_settings *settings, const char *assignment);
/* The same in two parts. */
MN_MUST_USE enum mn_status mn_settings_set_value(struct mn_settings *settings, const char *key, const char *value);

/* Checks what single values cannot show: multiples, and pairs that must be in order. Call it when all are set. */
MN_MUST_USE enum mn_status mn_settings_check(const struct mn_settings *settings);

/* Sets what the INI file at `path` names (`[wal]` and `prepared = 2`, or `wal.prepared = 2` before the first section)
 * and leaves the rest alone. The sentence of a failure begins with "path:line: "; `settings` is then as it was. */
MN_MUST_USE enum mn_status mn_settings_read_file(struct mn_settings *settings, const char *path);

/* Writes all settings to `path`, replacing it in one step, so that a reader sees the old file or the new one. Mode
 * 0640. mn_settings_read_file reads it back to an equal struct. */
MN_MUST_USE enum mn_status mn_settings_write_file(const struct mn_settings *settings, const char *path);

/* Prints all settings as an INI file to `out`; with `only_changed`, those that differ from the default. */
void mn_settings_print(const struct mn_settings *settings, FILE *out, bool only_changed);

/* The value of one setting as a person writes it ("64MiB", "10min", "yes"), NUL-terminated, cut at `size`. */
void mn_settings_value(const struct mn_settings *settings, const struct mn_settings_row *row, char *out, size_t size);
/* Its default and its range ("1MiB to 1GiB"; empty where the type says it all), in the same form. */
void mn_settings_default_value(const struct mn_settings_row *row, char *out, size_t size);
void mn_settings_range(const struct mn_settings_row *row, char *out, size_t size);
/* What a value of this row is called ("size", "duration", ...), for documents. */
const char *mn_settings_type_word(const struct mn_settings_row *row);

/* Takes the reloadable settings of `wanted` over into `current` and returns how many changed. Those that differ and
 * need a restart stay as they are; their keys go to `restart` ("wal.prepared, recall.threads"; empty when there are
 * none). */
size_t mn_settings_reload(struct mn_settings *current, const struct mn_settings *wanted, char *restart, size_t size);

/* Walks a LIST: copies the next part to `out` and moves `*cursor`, which starts at the field. Empty parts are skipped;
 * false at the end, or when a part does not fit `size` (MN_SETTINGS_LIST_MAX always fits). */
bool mn_settings_list_next(const char **cursor, char *out, size_t size);

#endif
