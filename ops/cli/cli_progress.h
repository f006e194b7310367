/*
 * cli_progress.h - a progress line on stderr: share, amount, rate, time to go. Silent where stderr is no terminal.
 */
#ifndef MNEME_OPS_CLI_CLI_PROGRESS_H
#define MNEME_OPS_CLI_CLI_PROGRESS_H

#include "ops/cli/cli.h"

struct mn_cli_progress {
    bool on;
    const char *what; /* "import" */
    const char *unit; /* "memories" */
    uint64_t total;   /* of `position`; 0 when unknown */
    uint64_t began_ns, shown_ns;
};

void mn_cli_progress_begin(struct mn_cli_progress *progress, const struct mn_cli *cli, const char *what,
                           const char *unit, uint64_t total);
/* `position` of `total` is reached, `done` units are through. Draws at most ten times a second. */
void mn_cli_progress_show(struct mn_cli_progress *progress, uint64_t position, uint64_t done);
/* Wipes the line. Call it before anything else is printed to stderr. */
void mn_cli_progress_end(struct mn_cli_progress *progress);

#endif
