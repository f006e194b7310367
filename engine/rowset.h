/*
 * rowset.h - sets of rows of a part as bits: row r is bit r % 64 of word r / 64.
 *
 * What a selection (selection.h) is made of. A set has mn_rowset_words(rows of the part) words; callers own them. Sets
 * are dense on purpose: 100,000 rows are 12 KiB, which the second-level cache holds, and joining two is a pass over
 * words. Pure functions, thread-safe; the same result on every instruction set.
 */
#ifndef MN_ENGINE_ROWSET_H
#define MN_ENGINE_ROWSET_H

#include "engine/types.h"

/* Words of a set of so many rows. */
static inline uint64_t mn_rowset_words(uint64_t rows)
{
    return (rows + 63) / 64;
}

static inline bool mn_rowset_has(const uint64_t *bits, uint32_t row)
{
    return bits[row / 64] >> (row % 64) & 1;
}

/* Adds the rows of a roaring bitmap (const roaring_bitmap_t *) that lie below 64 * words. */
void mn_rowset_add(uint64_t *bits, uint64_t words, const void *bitmap);

/* Leaves the rows that are in `other` too; that are not in `other`. */
void mn_rowset_and(uint64_t *bits, const uint64_t *other, uint64_t words);
void mn_rowset_and_not(uint64_t *bits, const uint64_t *other, uint64_t words);

/* Exactly the rows [first, end). */
void mn_rowset_fill(uint64_t *bits, uint64_t words, uint32_t first, uint32_t end);
/* Removes the rows outside [first, end). */
void mn_rowset_trim(uint64_t *bits, uint64_t words, uint32_t first, uint32_t end);

/* Removes the rows whose number is below `least`, or NaN. values: one per row; those of words without a bit are not
 * read. */
void mn_rowset_at_least(uint64_t *bits, uint64_t words, const float *values, uint32_t rows, float least);

/* Whether any row of [first, end) is in it. */
bool mn_rowset_any(const uint64_t *bits, uint64_t first, uint64_t end);
/* Bit i: whether rows[i] is in it, of `count` <= 32 rows in any order. */
uint32_t mn_rowset_has_which(const uint64_t *bits, const uint32_t *rows, uint32_t count);
/* Bit i: whether row first + i is in it, of `count` <= 32 rows; all the words that holds lie in must be there. */
static inline uint32_t mn_rowset_slice(const uint64_t *bits, uint32_t first, uint32_t count)
{
    uint64_t slice = bits[first / 64] >> first % 64;
    if (first % 64 + count > 64)
        slice |= bits[first / 64 + 1] << (64 - first % 64);
    return (uint32_t)(slice & ((UINT64_C(1) << count) - 1));
}

/* How many rows are in it. */
uint64_t mn_rowset_count(const uint64_t *bits, uint64_t words);
/* Writes the rows, rising; returns how many. There must be room for all of them. */
uint32_t mn_rowset_list(const uint64_t *bits, uint64_t words, uint32_t *rows);

#endif
