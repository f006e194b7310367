/*
 * columns_derive.c - the columns that follow from the others: ids by hash, postings, the index of meta.
 *
 * They are written at the end of a segment's birth, from the files that were just written, and again when one of them
 * was lost. The postings are made some strings at a time, so that memory is bounded.
 */
#include "engine/columns_derive.h"

#include <stdio.h>
#include <stdlib.h>

#include <roaring/roaring.h>

#include "engine/meta_index.h"

/* Rows listed at once while postings are made: 64 MiB of row numbers. */
#define POSTINGS_ROWS_AT_ONCE (16u << 20)

static void column_path(const struct mn_columns_facts *w, enum mn_column column, char path[MN_PATH_MAX])
{
    snprintf(path, MN_PATH_MAX, "%.*s/%s.col", MN_PATH_MAX - 32, w->dir, mn_column_info[column].name);
}

/* idhash.col: uint32_t first[buckets + 1], then per bucket its entries (upper half of the hash << 32 | row). A counting
 * sort: a thousand versions of one id cost no more than a thousand ids. */
enum mn_status mn_columns_write_idhash(const struct mn_columns_facts *w)
{
    uint64_t buckets = 16;
    while (buckets < w->rows)
        buckets *= 2;
    struct mn_column_sink *sink = &w->sinks[MN_COLUMN_IDHASH];
    uint32_t *first = calloc(buckets + 2, sizeof *first);
    uint64_t *entries = calloc(w->rows, sizeof *entries);
    enum mn_status status = MN_OK;
    if (!first || !entries) {
        status = MN_FAIL(MN_SYSTEM, "no memory for the id index of %u rows", w->rows);
        goto out;
    }
    for (uint32_t r = 0; r < w->rows; r++)
        first[(w->hashes[r] & (buckets - 1)) + 2]++;
    for (uint64_t b = 2; b < buckets + 2; b++)
        first[b] += first[b - 1];
    for (uint32_t r = 0; r < w->rows; r++)
        entries[first[(w->hashes[r] & (buckets - 1)) + 1]++] = (w->hashes[r] >> 32) << 32 | r;
    MN_TRY_OUT(mn_column_sink_append(sink, first, (buckets + 1) * sizeof *first));
    MN_TRY_OUT(mn_column_sink_align(sink, 8));
    MN_TRY_OUT(mn_column_sink_append(sink, entries, w->rows * sizeof *entries));
    MN_TRY_OUT(mn_column_sink_end(sink, w->rows, buckets));
out:
    free(first);
    free(entries);
    return status;
}

/* ---- postings ---- */

struct postings {
    const struct mn_columns_facts *writer;
    struct mn_column_file spaces, tags; /* as just written */
    struct mn_posting_entry *directory; /* [2][string_count] */
    uint32_t *rows;                     /* of the strings at hand, string by string */
    uint64_t *ends;                     /* [strings at hand]: where the rows of each end so far */
};

static enum mn_status append_bitmap(const struct mn_columns_facts *w, const uint32_t *rows, uint64_t count,
                                    struct mn_posting_entry *entry)
{
    struct mn_column_sink *sink = &w->sinks[MN_COLUMN_POSTINGS];
    roaring_bitmap_t *bitmap = roaring_bitmap_of_ptr(count, rows);
    if (!bitmap)
        return MN_FAIL(MN_SYSTEM, "no memory for a bitmap of %llu rows", (unsigned long long)count);
    roaring_bitmap_run_optimize(bitmap);
    size_t bytes = roaring_bitmap_frozen_size_in_bytes(bitmap);
    char *frozen = aligned_alloc(32, mn_round_up(bytes, 32));
    enum mn_status status = MN_OK;
    if (!frozen) {
        status = MN_FAIL(MN_SYSTEM, "no memory for a bitmap of %zu bytes", bytes);
        goto out;
    }
    roaring_bitmap_frozen_serialize(bitmap, frozen);
    MN_TRY_OUT(mn_column_sink_align(sink, 32));
    *entry = (struct mn_posting_entry){mn_column_sink_at(sink), (uint32_t)bytes, (uint32_t)count};
    MN_TRY_OUT(mn_column_sink_append(sink, frozen, bytes));
out:
    free(frozen);
    roaring_bitmap_free(bitmap);
    return status;
}

static inline void list_row(struct postings *p, uint32_t number, uint32_t begin, uint32_t end, uint32_t row)
{
    if (number >= begin && number < end)
        p->rows[p->ends[number - begin]++] = row;
}

/* Fills p->rows with the rows of the strings begin..end. */
static void list_rows(struct postings *p, enum mn_posting kind, uint32_t begin, uint32_t end)
{
    const struct mn_columns_facts *w = p->writer;
    uint64_t at = 0;
    for (uint32_t s = begin; s < end; s++) {
        p->ends[s - begin] = at;
        at += w->counts[kind][s];
    }
    if (kind == MN_POSTING_SPACE) {
        const uint32_t *spaces = (const uint32_t *)(const void *)p->spaces.data;
        for (uint32_t r = 0; r < w->rows; r++)
            list_row(p, spaces[r], begin, end, r);
        return;
    }
    const uint32_t *tags = (const uint32_t *)(const void *)p->tags.data;
    for (uint32_t r = 0; r < w->rows; r++)
        for (uint64_t t = w->tags_start[r] / 4; t < w->tags_start[r + 1] / 4; t++)
            list_row(p, tags[t], begin, end, r);
}

static enum mn_status write_bitmaps(struct postings *p, enum mn_posting kind, uint32_t begin, uint32_t end)
{
    const struct mn_columns_facts *w = p->writer;
    list_rows(p, kind, begin, end);
    uint64_t at = 0;
    for (uint32_t s = begin; s < end; s++) {
        uint64_t count = w->counts[kind][s];
        if (count > 0)
            MN_TRY(append_bitmap(w, p->rows + at, count, &p->directory[kind * (size_t)w->string_count + s]));
        at += count;
    }
    return MN_OK;
}

/* The strings in runs that fit the memory set aside. */
static enum mn_status write_kind(struct postings *p, enum mn_posting kind)
{
    const struct mn_columns_facts *w = p->writer;
    for (uint32_t begin = 0, end; begin < w->string_count; begin = end) {
        uint64_t rows = w->counts[kind][begin];
        for (end = begin + 1; end < w->string_count; end++) {
            if (rows + w->counts[kind][end] > POSTINGS_ROWS_AT_ONCE)
                break;
            rows += w->counts[kind][end];
        }
        p->rows = malloc((rows ? rows : 1) * sizeof *p->rows);
        p->ends = malloc((end - begin) * sizeof *p->ends);
        enum mn_status status = MN_OK;
        if (p->rows && p->ends)
            status = write_bitmaps(p, kind, begin, end);
        else
            status = MN_FAIL(MN_SYSTEM, "no memory for the postings of %llu rows", (unsigned long long)rows);
        free(p->rows);
        free(p->ends);
        MN_TRY(status);
    }
    return MN_OK;
}

enum mn_status mn_columns_write_postings(const struct mn_columns_facts *w)
{
    struct postings p = {.writer = w};
    char path[MN_PATH_MAX];
    size_t lists = 2 * (size_t)w->string_count;
    enum mn_status status = MN_OK;
    p.directory = calloc(lists ? lists : 1, sizeof *p.directory);
    if (!p.directory)
        return MN_FAIL(MN_SYSTEM, "no memory for the postings of %u strings", w->string_count);
    column_path(w, MN_COLUMN_SPACES, path);
    MN_TRY_OUT(mn_column_file_map(&p.spaces, w->store, w->segment, MN_COLUMN_SPACES, path));
    column_path(w, MN_COLUMN_TAGS, path);
    MN_TRY_OUT(mn_column_file_map(&p.tags, w->store, w->segment, MN_COLUMN_TAGS, path));
    MN_TRY_OUT(write_kind(&p, MN_POSTING_SPACE));
    MN_TRY_OUT(write_kind(&p, MN_POSTING_TAG));
    struct mn_column_sink *sink = &w->sinks[MN_COLUMN_POSTINGS];
    MN_TRY_OUT(mn_column_sink_align(sink, 32));
    MN_TRY_OUT(mn_column_sink_append(sink, p.directory, lists * sizeof *p.directory));
    MN_TRY_OUT(mn_column_sink_end(sink, lists, 0));
out:
    if (p.spaces.base)
        mn_column_file_unmap(&p.spaces);
    if (p.tags.base)
        mn_column_file_unmap(&p.tags);
    free(p.directory);
    return status;
}

enum mn_status mn_columns_write_meta_index(const struct mn_columns_facts *w)
{
    struct mn_column_file meta = {0}, confidence = {0};
    char path[MN_PATH_MAX];
    enum mn_status status = MN_OK;
    column_path(w, MN_COLUMN_META, path);
    MN_TRY_OUT(mn_column_file_map(&meta, w->store, w->segment, MN_COLUMN_META, path));
    column_path(w, MN_COLUMN_CONFIDENCE, path);
    MN_TRY_OUT(mn_column_file_map(&confidence, w->store, w->segment, MN_COLUMN_CONFIDENCE, path));
    MN_TRY_OUT(mn_meta_index_write(&w->sinks[MN_COLUMN_METAINDEX], w->rows, meta.data, w->meta_start,
                                   (const float *)(const void *)confidence.data));
out:
    if (meta.base)
        mn_column_file_unmap(&meta);
    if (confidence.base)
        mn_column_file_unmap(&confidence);
    return status;
}
