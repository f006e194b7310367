/*
 * columns_derive.h - the columns that follow from the others (columns_derive.c). Used by the columns_*.c files only.
 */
#ifndef MN_ENGINE_COLUMNS_DERIVE_H
#define MN_ENGINE_COLUMNS_DERIVE_H

#include "engine/columns.h"
#include "engine/columns_file.h"

/* What they are made from. The files of spaces, tags, meta and confidence are whole and lie in `dir`. */
struct mn_columns_facts {
    const struct mn_store *store;
    uint64_t segment;
    const char *dir;
    uint32_t rows, string_count;
    const uint64_t *hashes;                  /* [rows]: of ids */
    const uint64_t *tags_start, *meta_start; /* [rows + 1] */
    const uint64_t *counts[2];               /* [string_count]: rows per posting kind */
    struct mn_column_sink *sinks;            /* [MN_COLUMN_COUNT]: that of the column is open; ended then */
};

/* Each writes and ends one column: rows by the hash of their id; rows of each space and tag; rows by the values of
 * their meta. */
enum mn_status mn_columns_write_idhash(const struct mn_columns_facts *facts) MN_MUST_USE;
enum mn_status mn_columns_write_postings(const struct mn_columns_facts *facts) MN_MUST_USE;
enum mn_status mn_columns_write_meta_index(const struct mn_columns_facts *facts) MN_MUST_USE;

#endif
