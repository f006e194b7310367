/*
 * part.c - the questions of part.h that take more than a load: answered here for tail chunks, passed on for columns.
 *
 * A chunk lies in shared memory that the writer fills while we read. Rows below part->rows, and what they refer to, are
 * complete; a bucket may already lead to a row or a string that is newer, so each link is loaded with acquire and
 * checked against the chunk's limits. A link always leads to an older row or string; walks stop at one that does not.
 */
#include "engine/part.h"

#include "engine/columns.h"

/* Whether `bytes` at `offset` lie within `size`. */
static bool within(uint64_t offset, uint64_t bytes, uint64_t size)
{
    return offset <= size && bytes <= size - offset;
}

static const _Atomic uint32_t *buckets_of(const struct mn_part *p, uint64_t offset)
{
    return (const _Atomic uint32_t *)(const void *)((const uint8_t *)p->chunk + offset);
}

/* ---- the dictionary ---- */

static struct mn_str tail_string(const struct mn_part *p, uint32_t number)
{
    uint64_t at = (uint64_t)number * 8, size = p->chunk->arena_max;
    if (number == 0 || !within(at, sizeof(struct mn_tail_string), size))
        return (struct mn_str){NULL, 0};
    const struct mn_tail_string *s = (const void *)(p->arena + at);
    if (!within(at + sizeof *s, s->length, size))
        return (struct mn_str){NULL, 0};
    return (struct mn_str){(const char *)(s + 1), s->length};
}

static uint32_t tail_lookup(const struct mn_part *p, struct mn_str s)
{
    uint64_t hash = mn_str_hash(s), size = p->chunk->arena_max;
    const _Atomic uint32_t *link = buckets_of(p, p->chunk->string_buckets_at) + (hash & (p->chunk->buckets - 1));
    uint64_t steps = size / sizeof(struct mn_tail_string);
    for (; steps > 0; steps--) {
        uint32_t number = atomic_load_explicit(link, memory_order_acquire);
        if (number == 0 || !within((uint64_t)number * 8, sizeof(struct mn_tail_string), size))
            break;
        const struct mn_tail_string *entry = (const void *)(p->arena + (uint64_t)number * 8);
        if (entry->hash == hash && mn_str_equal(tail_string(p, number), s))
            return number;
        link = &entry->next;
    }
    return MN_NONE;
}

uint32_t mn_part_lookup(const struct mn_part *p, struct mn_str s)
{
    return p->tail ? tail_lookup(p, s) : mn_columns_lookup(p->columns, s);
}

struct mn_str mn_part_string(const struct mn_part *p, uint32_t number)
{
    return p->tail ? tail_string(p, number) : mn_columns_string(p->columns, number);
}

int mn_part_compare_spaces(const struct mn_part *a, uint32_t row_a, const struct mn_part *b, uint32_t row_b)
{
    if (a == b && mn_part_space(a, row_a) == mn_part_space(b, row_b))
        return 0;
    return mn_str_compare(mn_part_string(a, mn_part_space(a, row_a)), mn_part_string(b, mn_part_space(b, row_b)));
}

/* ---- what a row carries ---- */

static enum mn_status tail_meta(const struct mn_part *p, uint32_t row, struct mn_str *meta)
{
    const struct mn_tail_row *r = &p->tail_rows[row];
    *meta = (struct mn_str){NULL, 0};
    if (r->meta_bytes == 0)
        return MN_OK;
    if (!within(r->meta_at, r->meta_bytes, p->wal_bytes))
        return MN_FAIL(MN_CORRUPT, "the meta of row %u of tail chunk %llu lies outside its log segment", row,
                       (unsigned long long)p->number);
    *meta = (struct mn_str){(const char *)p->wal + r->meta_at, r->meta_bytes};
    return MN_OK;
}

static enum mn_status tail_content(const struct mn_part *p, uint32_t row, struct mn_str *content, bool *bin)
{
    const struct mn_tail_row *r = &p->tail_rows[row];
    *content = (struct mn_str){NULL, 0};
    *bin = (r->content_bytes & MN_CONTENT_BIN) != 0;
    if ((r->content_bytes & MN_CONTENT_NONE) != 0)
        return MN_OK;
    uint32_t bytes = MN_CONTENT_LENGTH(r->content_bytes);
    if (!within(r->content_at, bytes, p->wal_bytes))
        return MN_FAIL(MN_CORRUPT, "the content of row %u of tail chunk %llu lies outside its log segment", row,
                       (unsigned long long)p->number);
    *content = (struct mn_str){(const char *)p->wal + r->content_at, bytes};
    return MN_OK;
}

static uint32_t tail_tags(const struct mn_part *p, uint32_t row, const uint32_t **tags)
{
    const struct mn_tail_row *r = &p->tail_rows[row];
    bool inside =
        within((uint64_t)r->tags_at * sizeof **tags, (uint64_t)r->tags_count * sizeof **tags, p->chunk->arena_max);
    *tags = (const uint32_t *)(const void *)p->arena + (inside ? r->tags_at : 0);
    return inside ? r->tags_count : 0;
}

enum mn_status mn_part_meta(const struct mn_part *p, uint32_t row, struct mn_str *meta)
{
    return p->tail ? tail_meta(p, row, meta) : mn_columns_meta(p->columns, row, meta);
}

enum mn_status mn_part_content(const struct mn_part *p, uint32_t row, struct mn_str *content, bool *bin)
{
    return p->tail ? tail_content(p, row, content, bin) : mn_columns_content(p->columns, row, content, bin);
}

uint32_t mn_part_tags(const struct mn_part *p, uint32_t row, const uint32_t **tags)
{
    return p->tail ? tail_tags(p, row, tags) : mn_columns_tags(p->columns, row, tags);
}

/* ---- rows of an id ---- */

/* From `row` down its bucket to the next published row of the id; `limit` bounds where a link may lead. */
static uint32_t tail_walk(const struct mn_part *p, struct mn_part_find *find, uint32_t row, uint32_t limit)
{
    while (row < limit) {
        const struct mn_tail_row *r = &p->tail_rows[row];
        if (row < p->rows && r->hash == find->hash && r->space == find->space && mn_id_equal(&r->id, &find->id)) {
            find->at = row;
            return row;
        }
        limit = row;
        row = atomic_load_explicit(&r->next, memory_order_acquire);
    }
    find->at = MN_NONE;
    return MN_NONE;
}

static uint32_t tail_find_first(const struct mn_part *p, struct mn_part_find *find)
{
    const _Atomic uint32_t *bucket = buckets_of(p, p->chunk->id_buckets_at) + (find->hash & (p->chunk->buckets - 1));
    uint32_t row_plus_1 = atomic_load_explicit(bucket, memory_order_acquire);
    return tail_walk(p, find, row_plus_1 - 1, p->chunk->rows_max); /* empty: 0 - 1 is above any limit */
}

static uint32_t tail_find_next(const struct mn_part *p, struct mn_part_find *find)
{
    if (find->at == MN_NONE)
        return MN_NONE;
    uint32_t next = atomic_load_explicit(&p->tail_rows[find->at].next, memory_order_acquire);
    return tail_walk(p, find, next, find->at);
}

uint32_t mn_part_find_first(const struct mn_part *p, struct mn_part_find *find)
{
    return p->tail ? tail_find_first(p, find) : mn_columns_find_first(p->columns, find);
}

uint32_t mn_part_find_next(const struct mn_part *p, struct mn_part_find *find)
{
    return p->tail ? tail_find_next(p, find) : mn_columns_find_next(p->columns, find);
}

/* ---- order of time ---- */

uint32_t mn_part_lower_bound(const struct mn_part *p, int64_t at)
{
    uint32_t low = 0, high = p->rows;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (p->at[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
