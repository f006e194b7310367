/*
 * columns_inside.h - an open column segment, as columns_open.c makes it and columns_read.c reads it; and columns that
 * are made again in memory. Nobody else sees it.
 */
#ifndef MN_ENGINE_COLUMNS_INSIDE_H
#define MN_ENGINE_COLUMNS_INSIDE_H

#include <roaring/roaring.h>

#include "engine/columns.h"
#include "engine/columns_file.h"
#include "engine/columns_parity.h"
#include "engine/meta_index.h"

struct mn_columns {
    /* Asked for at each embedding. A bit per block of the embeddings: set when that block and the ones which a vector
     * that begins in it may reach into are intact. */
    const uint8_t *vectors;
    uint64_t vector_bytes;
    _Atomic uint64_t *vectors_checked;

    uint64_t segment;
    uint32_t rows, strings;
    uint64_t born_max;
    int64_t expires_min;
    float scale_max;
    struct mn_column_file files[MN_COLUMN_COUNT];
    _Atomic uint64_t *checked[MN_COLUMN_COUNT]; /* a bit per block; of columns that are checked at first touch */
    _Atomic uint64_t *damaged[MN_COLUMN_COUNT];
    _Atomic bool *any_damaged;    /* reading is const, but for what it finds out */
    const uint32_t *bucket_first; /* idhash; NULL: it is lost, ids are looked for row by row */
    const uint64_t *bucket_entries;
    uint64_t buckets;
    const struct mn_posting_entry *postings;    /* [2][strings]; NULL: they are lost, rows are looked at themselves */
    _Atomic(const roaring_bitmap_t *) *bitmaps; /* [2][strings]: views made so far */
    struct mn_meta_index meta_index;

    /* What was found when it was opened. */
    uint32_t mended;   /* a bit per column: its file is damaged; it was made again in memory, or is done without */
    char trouble[256]; /* the first of that, in words */

    /* The registry's. */
    struct mn_columns *next;
    uint32_t users;
    bool small_checked;  /* the columns that are checked whole */
    _Atomic bool failed; /* not to be handed out any more */
    char dir[MN_PATH_MAX];
};

/* The starts of a column of variable elements, and where they begin in the data: the elements' bytes end before. */
static inline const uint64_t *mn_columns_starts(const struct mn_column_file *file)
{
    return (const uint64_t *)(const void *)(file->data + file->data_bytes) - file->header->rows - 1;
}
static inline uint64_t mn_columns_starts_at(const struct mn_column_file *file)
{
    return file->data_bytes - (file->header->rows + 1) * sizeof(uint64_t);
}

/* ---- columns_make.c ---- */

/* Header, data and table of a small column, in memory. The file is what was mapped, or {0}; it is replaced when that
 * succeeds. MN_CORRUPT: parity is damaged too. */
enum mn_status mn_columns_make_small(struct mn_column_file *file, const struct mn_columns_parity *parity,
                                     enum mn_column column) MN_MUST_USE;
/* The same of header and table of a large column; its data as it lies there, however little of it. */
enum mn_status mn_columns_make_frame(struct mn_column_file *file, const struct mn_columns_parity *parity,
                                     uint64_t segment, enum mn_column column) MN_MUST_USE;

#endif
