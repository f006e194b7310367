/*
 * cli.h - what the commands of `mneme` share: the invocation, the shape of a command, and the way to the store.
 *
 * A command is a row in commands.def and a `struct mn_cli_command` in its own file. main.c parses the line against the
 * command's options, calls `run`, and turns its status into output and exit status: 0 done, 1 the operation failed,
 * 2 the command line is wrong. A command prints results to stdout and nothing else; sentences about failures are
 * main.c's.
 */
#ifndef MNEME_OPS_CLI_CLI_H
#define MNEME_OPS_CLI_CLI_H

#include "clients/c/mneme.h"
#include "ops/cli/cli_args.h"
#include "shm/status.h"

/* One invocation. */
struct mn_cli {
    const char *program; /* argv[0], to find mnemed beside it */
    const char *dir;     /* --dir or $MNEME_DIR; NULL when neither is there */
    bool dir_given;      /* by --dir, not by the environment */
    bool json;           /* one JSON document instead of text for people */
    bool out_is_terminal;
    bool err_is_terminal;
    bool colour;          /* stdout is a terminal that may be coloured */
    bool reported;        /* the command has told of its failure itself */
    int timeout_ms;       /* 0: the library's */
    struct mneme *client; /* after mn_cli_connect */
};

struct mn_cli_command {
    const char *usage;                   /* behind `mneme [--dir DIR] NAME` */
    const struct mn_cli_option *options; /* ends with a row without a name */
    const char *details;                 /* paragraphs for --help: what it does, what to know */
    const char *examples;                /* lines, one example each */
    enum mn_status (*run)(struct mn_cli *cli, const struct mn_cli_args *args);
};

#define X(group, name, symbol, brief) extern const struct mn_cli_command mn_cmd_##symbol;
#include "ops/cli/commands.def"
#undef X

/* Opens cli->client on cli->dir, once; a store that is only being started is waited for. MN_USAGE when no folder is
 * given. */
MN_MUST_USE enum mn_status mn_cli_connect(struct mn_cli *cli);
/* The same for any folder, with a client of the caller's own. */
MN_MUST_USE enum mn_status mn_cli_open(const struct mn_cli *cli, const char *dir, int wait_ms, struct mneme **client);
/* MN_USAGE with advice when there is no folder. */
MN_MUST_USE enum mn_status mn_cli_need_dir(const struct mn_cli *cli);

/* The status of a client's code, with `sentence` as this thread's error. */
enum mn_status mn_cli_status(enum mneme_code code, const char *sentence);

/* Returns `status`, which is not MN_OK, with a sentence as this thread's error: MN_FAIL for a status that was handed
 * on. */
enum mn_status mn_cli_fail(enum mn_status status, const char *fmt, ...) MN_PRINTF(2, 3);

/* Passes a failed call of `client` on. */
#define MN_CLI_TRY(client, call)                                                                                       \
    do {                                                                                                               \
        enum mneme_code mn_cli_code_ = (call);                                                                         \
        if (mn_cli_code_ != MNEME_OK)                                                                                  \
            return mn_cli_status(mn_cli_code_, mneme_error(client));                                                   \
    } while (0)

/* Zeroed memory that lives as long as the process: what a command line needs is small and bounded by the line.
 * Ends the process with a sentence when there is none. */
void *mn_cli_keep(size_t bytes);

#endif
