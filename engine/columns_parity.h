/*
 * columns_parity.h - parity.col: what a column segment is mended with when some of its bytes have changed.
 *
 * The blocks of all columns of a segment, in the order of MN_COLUMN_TABLE, are dealt out in turn to as many stripes as
 * a sixteenth of them; parity.col holds the exclusive or of the blocks of each stripe, and a copy of every column's
 * header and block checksums. So a damaged block is made again from the others of its stripe, and so is a small file
 * that was cut or is missing, as long as no two damaged blocks are of one stripe: neighbours never are. What was made
 * is held against its checksum.
 *
 *   data   stripes | struct mn_column_header[MN_COLUMN_COUNT] | uint32_t checksum[blocks of all columns]
 *   extra  stripes << 32 | bytes of each: 64 KiB, or the longest block when there is one stripe
 *
 * It costs a sixteenth of the disk and no time of a reader. A segment without one (it is damaged, or older) is served
 * as it is.
 */
#ifndef MN_ENGINE_COLUMNS_PARITY_H
#define MN_ENGINE_COLUMNS_PARITY_H

#include "engine/columns_file.h"

#define MN_PARITY_SHARE 16u /* blocks of a stripe, at most */

/* Writes the parity of the files of a segment in `dir`, which are whole, as `name` there; synced; *bytes: its length.
 */
enum mn_status mn_columns_parity_write(const struct mn_store *store, uint64_t segment, const char *dir,
                                       const char *name, uint64_t *bytes) MN_MUST_USE;
#define MN_PARITY_NAME "parity.col"

/* What a segment's files hold, damaged or not, beside its parity. */
struct mn_columns_parity {
    const struct mn_store *store;
    struct mn_column_file file;
    const struct mn_column_header *headers; /* [MN_COLUMN_COUNT], as written */
    const uint32_t *checksums;
    uint64_t stripes, stripe_bytes;
    uint64_t first[MN_COLUMN_COUNT + 1]; /* number of each column's first block */
    struct mn_parity_raw {
        const uint8_t *base; /* NULL: nothing to read */
        uint64_t bytes;
        uint32_t seed;
    } raw[MN_COLUMN_COUNT];
};

/* MN_NOT_FOUND when the segment has no parity, MN_CORRUPT when it is damaged itself. `store` must outlive it. */
enum mn_status mn_columns_parity_open(struct mn_columns_parity *parity, const struct mn_store *store,
                                      uint64_t segment) MN_MUST_USE;
void mn_columns_parity_close(struct mn_columns_parity *parity);

/* A block of a column as it was written, into out[MN_COLUMN_BLOCK]; *bytes: its length; *mended (may be NULL): the file
 * holds something else. MN_CORRUPT when it cannot be told any more. */
enum mn_status mn_columns_parity_block(const struct mn_columns_parity *parity, enum mn_column column, uint64_t block,
                                       uint8_t *out, uint32_t *bytes, bool *mended) MN_MUST_USE;

/* Blocks of a column. */
static inline uint64_t mn_columns_parity_blocks(const struct mn_columns_parity *parity, enum mn_column column)
{
    return parity->first[column + 1] - parity->first[column];
}
static inline const uint32_t *mn_columns_parity_checksums(const struct mn_columns_parity *parity, enum mn_column column)
{
    return parity->checksums + parity->first[column];
}

#endif
