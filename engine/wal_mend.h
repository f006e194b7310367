/*
 * wal_mend.h - what can be undone of the damage in a log segment, and a whole segment in place of a damaged one.
 *
 * One flipped bit in a block, or in a footer, is found by its checksum, and everything else vouches for it. What is
 * lost for good gets a record that says so (MN_RECORD_LOST), under the offset that it had; the footer keeps the ids
 * that it touched. Every whole record keeps its offset, so rows that point into the segment stay right. Afterwards all
 * readers of the log see whole batches, and a second recovery finds nothing to do.
 */
#ifndef MN_ENGINE_WAL_MEND_H
#define MN_ENGINE_WAL_MEND_H

#include "engine/wal.h"

/* Copies the batch that `damage` is (damage->bytes bytes) and undoes flipped bits in the copy: *bits of them, at most
 * one in each block. True when it is a whole batch then, every checksum of it. Of `damage` offset, bytes, header and
 * footer are used; with neither of the two it is false. */
bool mn_wal_mend_bits(const struct mn_wal_segment *segment, const struct mn_wal_damage *damage, uint8_t *copy,
                      uint32_t *bits);

/* Puts a whole file in the place of a segment with `damages` (those that are salvaged are mended): written beside it,
 * synced, renamed over it, the folder synced. Whoever has the old file mapped keeps it. MN_READ_ONLY: no space. */
enum mn_status mn_wal_mend(const struct mn_wal_segment *segment, const struct mn_wal_damage *damages,
                           uint32_t count) MN_MUST_USE;

#endif
