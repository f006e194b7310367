/*
 * cli_args.h - a command line, parsed against a table of options that also prints the help.
 *
 * Options may stand anywhere; `--name=value`, `--name value`, `-x value` and `-xvalue` are the same; `--` ends them; a
 * lone `-` is a word. An option that is given twice keeps both values: text() answers the last, next() walks through
 * all. Asking for an option that is in no table is a bug and asserts.
 */
#ifndef MNEME_OPS_CLI_CLI_ARGS_H
#define MNEME_OPS_CLI_CLI_ARGS_H

#include "shm/status.h"

#include <stdio.h>

struct mn_cli_option {
    const char *name;  /* without dashes; NULL ends a table */
    char letter;       /* 0: none */
    const char *value; /* what the value is called in the help; NULL: a flag */
    const char *help;
};

enum { MN_CLI_ARGS_TABLES = 2 };

struct mn_cli_given {
    const struct mn_cli_option *option;
    const char *value;
};

/* All pointers are into argv and the tables; only the two arrays are owned. */
struct mn_cli_args {
    const struct mn_cli_option *tables[MN_CLI_ARGS_TABLES];
    struct mn_cli_given *given;
    size_t given_count;
    const char **words; /* what is no option */
    size_t word_count;
};

/* Parses argv[0..argc) (without the program's name). With `stop_at_word` everything from the first word on is taken as
 * words. MN_USAGE names what is wrong. Release with mn_cli_args_free, also after a failure. */
MN_MUST_USE enum mn_status mn_cli_args_parse(struct mn_cli_args *args, int argc, char *const *argv,
                                             const struct mn_cli_option *table, const struct mn_cli_option *more,
                                             bool stop_at_word);
void mn_cli_args_free(struct mn_cli_args *args);

/* For an answer to a typo: true when `name` resembles the `size` bytes of `typed`, and more so than the names before
 * it. *best is SIZE_MAX before the first. */
bool mn_cli_args_resembles(const char *typed, size_t size, const char *name, size_t *best);

bool mn_cli_args_has(const struct mn_cli_args *args, const char *name);
/* The last value given, or NULL. */
const char *mn_cli_args_text(const struct mn_cli_args *args, const char *name);
/* The next value of an option that may be repeated; NULL at the end. *cursor starts at 0. */
const char *mn_cli_args_next(const struct mn_cli_args *args, const char *name, size_t *cursor);
size_t mn_cli_args_count(const struct mn_cli_args *args, const char *name);

/* Each reads the last value into *out and leaves *out alone when the option is not given. MN_USAGE when it does not
 * parse or lies outside [min, max]. Durations are in nanoseconds; times as in cli_time.h. */
MN_MUST_USE enum mn_status mn_cli_args_u64(const struct mn_cli_args *args, const char *name, uint64_t min, uint64_t max,
                                           uint64_t *out);
MN_MUST_USE enum mn_status mn_cli_args_f64(const struct mn_cli_args *args, const char *name, double min, double max,
                                           double *out);
MN_MUST_USE enum mn_status mn_cli_args_duration(const struct mn_cli_args *args, const char *name, int64_t *out_ns);
MN_MUST_USE enum mn_status mn_cli_args_time(const struct mn_cli_args *args, const char *name, int64_t *out_ns);

/* MN_USAGE unless there are between min and max words; `what` says which. */
MN_MUST_USE enum mn_status mn_cli_args_words(const struct mn_cli_args *args, size_t min, size_t max, const char *what);

/* Prints a table's options, aligned and wrapped. */
void mn_cli_args_help(FILE *out, const struct mn_cli_option *table);

#endif
