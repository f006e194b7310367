/*
 * cli_out.h - text for people: tables, colours, sizes, and content that cannot play tricks on a terminal.
 */
#ifndef MNEME_OPS_CLI_CLI_OUT_H
#define MNEME_OPS_CLI_CLI_OUT_H

#include "ops/cli/cli.h"

#include <stdio.h>

/* Columns of a table; a `-` before the title aligns to the right. */
enum { MN_CLI_OUT_COLUMNS = 12 };
struct mn_cli_out_table {
    const struct mn_cli *cli;
    size_t columns;
    char text[256]; /* of the titles */
    const char *titles[MN_CLI_OUT_COLUMNS];
    char **cells; /* rows × columns */
    size_t rows, room;
};

/* Begins a table; `titles` are separated by bars: "id|-score|content". */
void mn_cli_out_begin(struct mn_cli_out_table *table, const struct mn_cli *cli, const char *titles);
/* Adds the next cell; cells fill rows from left to right. */
void mn_cli_out_cell(struct mn_cli_out_table *table, const char *fmt, ...) MN_PRINTF(2, 3);
/* Adds bytes that came from a store: escaped, see mn_cli_out_escaped. */
void mn_cli_out_text(struct mn_cli_out_table *table, const char *bytes, size_t size, size_t most);
/* Prints the table and frees it. The last column is cut to the width of the terminal; nothing else is ever cut. */
void mn_cli_out_end(struct mn_cli_out_table *table);

/* Bytes that came from a store as text on one line, cut at `most` bytes: control characters become visible, so that a
 * content cannot move the cursor or recolour the screen. NULL is the empty text. Kept. */
char *mn_cli_out_escaped(const char *bytes, size_t size, size_t most);

/* A name and a value, aligned with its like. */
void mn_cli_out_field(const struct mn_cli *cli, const char *name, const char *fmt, ...) MN_PRINTF(3, 4);

/* "" unless colours are on. */
const char *mn_cli_out_bold(const struct mn_cli *cli);
const char *mn_cli_out_dim(const struct mn_cli *cli);
const char *mn_cli_out_red(const struct mn_cli *cli);
const char *mn_cli_out_green(const struct mn_cli *cli);
const char *mn_cli_out_plain(const struct mn_cli *cli);

/* `12 345 678`, and `1.2 MiB`; answer `out`, of 32 bytes. */
const char *mn_cli_out_count(uint64_t n, char *out);
const char *mn_cli_out_bytes(double bytes, char *out);

/* One element of hits or memories as a short line's worth of text: what content and meta say. Owned: free it. */
char *mn_cli_out_summary(const struct mneme_found *found);

#endif
