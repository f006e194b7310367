/*
 * columns_read.c - reading a column segment that is open (columns_open.c): rows, strings, postings, ids.
 *
 * Nothing here takes a lock. What was checked at first touch is kept in bitmaps of relaxed atomics: two threads may
 * check the same block at once, and both find the same.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/columns_inside.h"

#define ROWS_NEAR 8 /* rows between two that are wanted: cheaper to read than to leave out */
#define ROWS_FAR  4 /* of rows in one run, how many times as many are asked for */

/* ---- bits ---- */

static inline bool bit_test(const _Atomic uint64_t *bits, uint64_t bit)
{
    return atomic_load_explicit(&bits[bit / 64], memory_order_relaxed) >> (bit % 64) & 1;
}

static inline void bit_set(_Atomic uint64_t *bits, uint64_t bit)
{
    atomic_fetch_or_explicit(&bits[bit / 64], UINT64_C(1) << (bit % 64), memory_order_relaxed);
}

static bool block_intact(const struct mn_columns *c, enum mn_column column, uint64_t block)
{
    if (bit_test(c->checked[column], block))
        return true;
    if (bit_test(c->damaged[column], block))
        return false;
    bool intact = mn_column_file_intact(&c->files[column], block);
    bit_set(intact ? c->checked[column] : c->damaged[column], block);
    if (!intact)
        atomic_store_explicit(c->any_damaged, true, memory_order_relaxed);
    return intact;
}

/* True when all blocks under bytes [at, at + bytes) are intact; *bad is the first that is not. */
static bool range_intact(const struct mn_columns *c, enum mn_column column, uint64_t at, uint64_t bytes, uint64_t *bad)
{
    if (bytes == 0)
        return true;
    for (uint64_t block = at / MN_COLUMN_BLOCK; block <= (at + bytes - 1) / MN_COLUMN_BLOCK; block++) {
        if (!block_intact(c, column, block)) {
            *bad = block;
            return false;
        }
    }
    return true;
}

/* ---- rows ---- */

void mn_columns_part(const struct mn_columns *c, struct mn_part *part)
{
    const struct mn_column_file *f = c->files;
    *part = (struct mn_part){.number = c->segment,
                             .rows = c->rows,
                             .dim = f[MN_COLUMN_EMBEDDINGS].header->dim,
                             .columns = c,
                             .ids = (const void *)f[MN_COLUMN_IDS].data,
                             .spaces = (const void *)f[MN_COLUMN_SPACES].data,
                             .born = (const void *)f[MN_COLUMN_BORN].data,
                             .at = (const void *)f[MN_COLUMN_TIMES].data,
                             .expires = (const void *)f[MN_COLUMN_EXPIRES].data,
                             .born_max = c->born_max,
                             .expires_min = c->expires_min,
                             .scale_max = c->scale_max,
                             .confidence = (const void *)f[MN_COLUMN_CONFIDENCE].data,
                             .scale = (const void *)f[MN_COLUMN_SCALE].data,
                             .vectors = (const void *)f[MN_COLUMN_EMBEDDINGS].data};
}

/* Checks the block that a vector begins in and those it may reach into. */
static __attribute__((noinline)) bool check_vector(const struct mn_columns *c, uint64_t at)
{
    uint64_t begin = at / MN_COLUMN_BLOCK * MN_COLUMN_BLOCK, bad;
    uint64_t reach = MN_COLUMN_BLOCK - 1 + c->vector_bytes, stored = c->files[MN_COLUMN_EMBEDDINGS].data_bytes;
    if (reach > stored - begin)
        reach = stored - begin;
    if (range_intact(c, MN_COLUMN_EMBEDDINGS, begin, reach, &bad)) {
        bit_set(c->vectors_checked, at / MN_COLUMN_BLOCK);
        return true;
    }
    /* A neighbour is damaged: what matters is this vector. */
    return range_intact(c, MN_COLUMN_EMBEDDINGS, at, c->vector_bytes, &bad);
}

const float *mn_columns_vector(const struct mn_columns *c, uint32_t row)
{
    uint64_t at = row * c->vector_bytes;
    if (__builtin_expect(!bit_test(c->vectors_checked, at / MN_COLUMN_BLOCK), 0) && !check_vector(c, at))
        return NULL;
    return (const float *)(const void *)(c->vectors + at);
}

void mn_columns_ahead(const struct mn_columns *c, const uint32_t *rows, uint32_t count)
{
    const struct mn_column_file *file = &c->files[MN_COLUMN_EMBEDDINGS];
    if (!atomic_load_explicit(&file->scattered, memory_order_relaxed))
        return;
    for (uint32_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && rows[end] - rows[end - 1] <= ROWS_NEAR;)
            end++;
        uint64_t last = rows[end - 1] + (end - i == count && count > 1 ? ROWS_FAR * (uint64_t)count : 1);
        mn_column_file_ahead(file, rows[i] * c->vector_bytes, (last - rows[i]) * c->vector_bytes);
    }
}

/* The bytes of an element of meta or content, and its start word. */
static enum mn_status variable_element(const struct mn_columns *c, enum mn_column column, uint32_t row,
                                       struct mn_str *bytes, uint64_t *word)
{
    const struct mn_column_file *file = &c->files[column];
    uint64_t offsets = mn_columns_starts_at(file), bad = 0;
    if (row >= c->rows || !range_intact(c, column, offsets + row * sizeof(uint64_t), 2 * sizeof(uint64_t), &bad))
        goto damaged;
    *word = mn_columns_starts(file)[row];
    uint64_t begin = MN_COLUMN_START(*word), end = MN_COLUMN_START(mn_columns_starts(file)[row + 1]);
    if (begin > end || end > offsets || end - begin > UINT32_MAX)
        goto damaged;
    if (!range_intact(c, column, begin, end - begin, &bad))
        goto damaged;
    *bytes = (struct mn_str){(const char *)file->data + begin, (uint32_t)(end - begin)};
    return MN_OK;
damaged:
    return MN_FAIL(MN_CORRUPT, "%s/%s.col: block %llu does not match its checksum", c->dir, mn_column_info[column].name,
                   (unsigned long long)bad);
}

enum mn_status mn_columns_meta(const struct mn_columns *c, uint32_t row, struct mn_str *meta)
{
    uint64_t word = 0;
    MN_TRY(variable_element(c, MN_COLUMN_META, row, meta, &word));
    return MN_OK;
}

enum mn_status mn_columns_content(const struct mn_columns *c, uint32_t row, struct mn_str *content, bool *bin)
{
    uint64_t word = 0;
    MN_TRY(variable_element(c, MN_COLUMN_CONTENT, row, content, &word));
    *bin = (word & MN_COLUMN_FLAG_BIN) != 0;
    if (word & MN_COLUMN_FLAG_NONE)
        *content = (struct mn_str){NULL, 0};
    return MN_OK;
}

uint32_t mn_columns_tags(const struct mn_columns *c, uint32_t row, const uint32_t **tags)
{
    const struct mn_column_file *file = &c->files[MN_COLUMN_TAGS];
    const uint64_t *start = mn_columns_starts(file);
    *tags = (const uint32_t *)(const void *)(file->data + start[row]);
    if (start[row] > start[row + 1] || start[row + 1] > mn_columns_starts_at(file))
        return 0;
    return (uint32_t)((start[row + 1] - start[row]) / sizeof(uint32_t));
}

/* ---- strings and postings ---- */

struct mn_str mn_columns_string(const struct mn_columns *c, uint32_t number)
{
    const struct mn_column_file *file = &c->files[MN_COLUMN_STRINGS];
    const uint64_t *start = mn_columns_starts(file);
    if (number >= c->strings || start[number] > start[number + 1] || start[number + 1] > mn_columns_starts_at(file))
        return (struct mn_str){"", 0};
    return (struct mn_str){(const char *)file->data + start[number], (uint32_t)(start[number + 1] - start[number])};
}

static int compare(struct mn_str a, struct mn_str b)
{
    int order = memcmp(a.data, b.data, a.length < b.length ? a.length : b.length);
    if (order != 0)
        return order;
    return a.length == b.length ? 0 : a.length < b.length ? -1 : 1;
}

uint32_t mn_columns_lookup(const struct mn_columns *c, struct mn_str s)
{
    uint32_t low = 0, high = c->strings;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare(mn_columns_string(c, middle), s);
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return MN_NONE;
}

uint32_t mn_columns_posting_rows(const struct mn_columns *c, enum mn_posting kind, uint32_t string)
{
    if (string >= c->strings)
        return 0;
    return c->postings ? c->postings[(size_t)kind * c->strings + string].rows : c->rows;
}

const void *mn_columns_postings(const struct mn_columns *c, enum mn_posting kind, uint32_t string)
{
    if (string >= c->strings || !c->postings)
        return NULL;
    size_t index = (size_t)kind * c->strings + string;
    const struct mn_posting_entry *entry = &c->postings[index];
    const roaring_bitmap_t *bitmap = atomic_load_explicit(&c->bitmaps[index], memory_order_acquire);
    const struct mn_column_file *file = &c->files[MN_COLUMN_POSTINGS];
    if (bitmap || entry->rows == 0 || entry->at % 32 != 0 || entry->at > file->data_bytes ||
        entry->bytes > file->data_bytes - entry->at)
        return bitmap;
    bitmap = roaring_bitmap_frozen_view((const char *)file->data + entry->at, entry->bytes);
    const roaring_bitmap_t *other = NULL;
    /* Another thread may have made the same view meanwhile: the first one stays. */
    if (bitmap && !atomic_compare_exchange_strong_explicit(&c->bitmaps[index], &other, bitmap, memory_order_acq_rel,
                                                           memory_order_acquire)) {
        roaring_bitmap_free((roaring_bitmap_t *)(uintptr_t)bitmap);
        bitmap = other;
    }
    return bitmap;
}

const struct mn_meta_index *mn_columns_meta_index(const struct mn_columns *c)
{
    return &c->meta_index;
}

/* ---- ids ---- */

/* Without the index, row by row: at = the row. */
static uint32_t find_slowly(const struct mn_columns *c, struct mn_part_find *find, uint32_t at)
{
    const struct mn_id *ids = (const void *)c->files[MN_COLUMN_IDS].data;
    const uint32_t *spaces = (const void *)c->files[MN_COLUMN_SPACES].data;
    while (at < c->rows && (spaces[at] != find->space || !mn_id_equal(&ids[at], &find->id)))
        at++;
    find->at = at;
    return at < c->rows ? at : MN_NONE;
}

static uint32_t find_from(const struct mn_columns *c, struct mn_part_find *find, uint32_t at)
{
    uint64_t bucket = find->hash & (c->buckets - 1);
    uint32_t end = c->bucket_first[bucket + 1];
    const struct mn_id *ids = (const void *)c->files[MN_COLUMN_IDS].data;
    const uint32_t *spaces = (const void *)c->files[MN_COLUMN_SPACES].data;
    for (; at < end && at < c->rows; at++) {
        uint32_t row = (uint32_t)c->bucket_entries[at];
        if (c->bucket_entries[at] >> 32 == find->hash >> 32 && row < c->rows && spaces[row] == find->space &&
            mn_id_equal(&ids[row], &find->id)) {
            find->at = at;
            return row;
        }
    }
    find->at = end;
    return MN_NONE;
}

uint32_t mn_columns_find_first(const struct mn_columns *c, struct mn_part_find *find)
{
    if (!c->bucket_first)
        return find_slowly(c, find, 0);
    return find_from(c, find, c->bucket_first[find->hash & (c->buckets - 1)]);
}

uint32_t mn_columns_find_next(const struct mn_columns *c, struct mn_part_find *find)
{
    return c->bucket_first ? find_from(c, find, find->at + 1) : find_slowly(c, find, find->at + 1);
}

/* ---- the rest ---- */

bool mn_columns_damaged(const struct mn_columns *c)
{
    return atomic_load_explicit(c->any_damaged, memory_order_relaxed);
}

void mn_columns_residency(const struct mn_columns *c, uint64_t *bytes, uint64_t *resident)
{
    const struct mn_column_file *file = &c->files[MN_COLUMN_EMBEDDINGS];
    unsigned char pages[4096];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    *bytes = file->data_bytes;
    *resident = 0;
    if (!file->base)
        return;
    for (uint64_t at = 0; at < file->file_bytes; at += sizeof pages * page) {
        uint64_t length = file->file_bytes - at < sizeof pages * page ? file->file_bytes - at : sizeof pages * page;
        if (mincore((void *)(uintptr_t)(file->base + at), length, pages) != 0)
            return;
        for (uint64_t p = 0; p < (length + page - 1) / page; p++)
            *resident += (pages[p] & 1) ? page : 0;
    }
    if (*resident > *bytes)
        *resident = *bytes;
}
