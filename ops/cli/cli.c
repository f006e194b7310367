/*
 * cli.c - what every command uses: memory, statuses, and the way to the store (see cli.h).
 */
#include "ops/cli/cli.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* So long a store may take to be there: `mnemed &` on one line, `mneme` on the next. */
#define START_MS 1000

/* What is kept hangs on one list, so that a leak checker tells it from what was lost. */
struct kept {
    struct kept *next;
    max_align_t memory[];
};

static struct kept *all_kept;

void *mn_cli_keep(size_t bytes)
{
    struct kept *kept = calloc(1, sizeof *kept + bytes);
    if (!kept) {
        fprintf(stderr, "mneme: out of memory\n");
        exit(1);
    }
    kept->next = all_kept;
    all_kept = kept;
    return kept->memory;
}

enum mn_status mn_cli_fail(enum mn_status status, const char *fmt, ...)
{
    char sentence[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, args);
    va_end(args);
    mn_error_set(status, __FILE__, __LINE__, "%s", sentence);
    return status;
}

enum mn_status mn_cli_status(enum mneme_code code, const char *sentence)
{
    const char *word = mneme_code_word(code);
    enum mn_status status = MN_INTERNAL;
    for (unsigned s = 0; s < MN_STATUS_COUNT; s++)
        if (strcmp(mn_status_word((enum mn_status)s), word) == 0)
            status = (enum mn_status)s;
    return mn_cli_fail(status, "%s", sentence);
}

enum mn_status mn_cli_need_dir(const struct mn_cli *cli)
{
    if (!cli->dir)
        return MN_FAIL(MN_USAGE, "which store? Give its folder with --dir DIR, or set MNEME_DIR");
    return MN_OK;
}

enum mn_status mn_cli_open(const struct mn_cli *cli, const char *dir, int wait_ms, struct mneme **client)
{
    struct mneme_options options = {
        .timeout_ms = cli->timeout_ms, .slow_timeout_ms = cli->timeout_ms, .wait_ms = wait_ms};
    enum mneme_code code = mneme_open(client, dir, &options);
    return code == MNEME_OK ? MN_OK : mn_cli_status(code, mneme_open_error());
}

enum mn_status mn_cli_connect(struct mn_cli *cli)
{
    int wait_ms = cli->timeout_ms > 0 && cli->timeout_ms < START_MS ? cli->timeout_ms : START_MS;
    if (cli->client)
        return MN_OK;
    MN_TRY(mn_cli_need_dir(cli));
    return mn_cli_open(cli, cli->dir, wait_ms, &cli->client);
}
