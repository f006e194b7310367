/*
 * cli_filter.h - which memories: spaces, tags, meta conditions, times. The options are shared by recall, list, count,
 * forget and export.
 */
#ifndef MNEME_OPS_CLI_CLI_FILTER_H
#define MNEME_OPS_CLI_CLI_FILTER_H

#include "ops/cli/cli.h"

/* Rows for an option table. */
#define MN_CLI_FILTER_SPACES                                                                                           \
    {"space", 's', "NAME", "look in this space; may be repeated (default: the space \"default\")"},                    \
    {                                                                                                                  \
        "all-spaces", 0, NULL, "look in every space"                                                                   \
    }
#define MN_CLI_FILTER_CONDITIONS                                                                                       \
    {"tag", 't', "TAG", "only memories with this tag; repeated: with all of them"},                                    \
        {"any-tag", 0, "TAG", "only memories with one of the tags given so"},                                          \
        {"not-tag", 0, "TAG", "only memories without this tag"},                                                       \
        {"where", 'w', "CONDITION", "a condition on meta, see above; repeated: all must hold"},                        \
    {                                                                                                                  \
        "id", 0, "ID", "only these memories; may be repeated"                                                          \
    }
#define MN_CLI_FILTER_TIMES                                                                                            \
    {"after", 0, "TIME", "not before this time: RFC 3339, -1h for an hour ago, or nanoseconds"},                       \
    {                                                                                                                  \
        "before", 0, "TIME", "before this time"                                                                        \
    }

/* For the `details` of commands that take conditions. */
#define MN_CLI_FILTER_HELP                                                                                             \
    "Conditions on meta (--where) are written KEY OP VALUE, with = != > >= < <=, `KEY in [1, 2]`, `KEY exists` or\n"   \
    "`KEY missing`. KEY may be a dotted path. VALUE is JSON where it reads as JSON (3, true, \"3\") and else plain "   \
    "text.\n"

/* Parses `user.age >= 18`; key and value are kept (mn_cli_keep). MN_USAGE with a sentence. */
MN_MUST_USE enum mn_status mn_cli_filter_condition(const char *text, struct mneme_condition *condition);

/* Fills `where` from the options of the three groups that the table of `args` has; says in *any whether a condition was
 * given. What it points to lives as long as the process and args. */
struct mn_cli_filter {
    struct mneme_where where;
    struct mneme_filter filter;
    int64_t after, before;
    bool any;
};
MN_MUST_USE enum mn_status mn_cli_filter_spaces(const struct mn_cli_args *args, struct mn_cli_filter *out);
MN_MUST_USE enum mn_status mn_cli_filter_conditions(const struct mn_cli_args *args, struct mn_cli_filter *out);
MN_MUST_USE enum mn_status mn_cli_filter_times(const struct mn_cli_args *args, struct mn_cli_filter *out);

/* All values of a repeated option; NULL and 0 when not given. */
const char *const *mn_cli_filter_texts(const struct mn_cli_args *args, const char *name, size_t *count);
/* All values of a repeated option, or the words, as ids. */
MN_MUST_USE enum mn_status mn_cli_filter_ids(const char *const *texts, size_t count, struct mneme_id **ids);

/* --fields, split at its commas; NULL when not given. */
const char *const *mn_cli_filter_fields(const struct mn_cli_args *args, size_t *count);

#endif
