/*
 * cli_lines.h - the lines of a file, one by one; bounded, whatever the file holds.
 */
#ifndef MNEME_OPS_CLI_CLI_LINES_H
#define MNEME_OPS_CLI_CLI_LINES_H

#include "shm/status.h"

#include <stddef.h>
#include <stdio.h>

enum { MN_CLI_LINES_LONGEST = 24 << 20 }; /* bytes of a line, about */

struct mn_cli_lines {
    FILE *in;
    char *buffer;
    size_t at, size, room;
    uint64_t line;  /* number of the last line returned, from 1 */
    uint64_t bytes; /* consumed so far */
    bool ended;
};

void mn_cli_lines_open(struct mn_cli_lines *lines, FILE *in);
/* The next line that is not blank, without its newline, valid until the next call; *line is NULL at the end.
 * MN_TOO_LARGE: it is longer than MN_CLI_LINES_LONGEST. */
MN_MUST_USE enum mn_status mn_cli_lines_next(struct mn_cli_lines *lines, const char **line, size_t *size);
void mn_cli_lines_close(struct mn_cli_lines *lines);

#endif
