/*
 * docgen.h - the documents that mneme-docgen prints, one function each. Each writes its whole document to `out`.
 */
#ifndef MN_OPS_DOCGEN_H
#define MN_OPS_DOCGEN_H

#include <stdio.h>

/* Prints `text` as a cell of a Markdown table: bars are escaped. */
void docgen_cell(FILE *out, const char *text);
/* Prints `count` lines. */
void docgen_lines(FILE *out, const char *const *lines, size_t count);

/* config/CONFIG.md and config/mneme.conf.example, from config/settings.def. */
void docgen_config(FILE *out);
void docgen_example(FILE *out);

/* shm/STATS.md, from shm/stats.def. */
void docgen_stats(FILE *out);

/* shm/LAYOUT.md, from the field lists of the shared structs. */
void docgen_layout(FILE *out);

/* The Python client's error codes and operations, from the status table and the wire's operation table. */
void docgen_python_errors(FILE *out);
void docgen_python_operations(FILE *out);

#endif
