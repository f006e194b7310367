/*
 * tail.c - filling, publishing and mapping tail chunks; liveness files.
 */
#include "engine/tail.h"

#include <stdio.h>
#include <unistd.h>

#include "engine/record.h"

/* A request may intern at most this many bytes of strings and tag lists, so a chunk's arena has at least so much. */
#define ARENA_BYTES_MIN (64u << 20)
#define BUCKETS_MIN     1024u
#define PIECE_BYTES     (256u << 10) /* pages are taken in pieces of this */

static struct mn_segment_identity identity_of(const struct mn_instance *instance, uint64_t magic)
{
    struct mn_segment_identity identity = instance->identity;
    identity.magic = magic;
    identity.fingerprint = mn_engine_fingerprint();
    return identity;
}

void mn_tail_name(char name[64], uint64_t instance_gen, uint64_t wal_number)
{
    snprintf(name, 64, "tail.%llu.%llu", (unsigned long long)instance_gen, (unsigned long long)wal_number);
}

/* Where everything lies in a chunk for log segments of this size. */
static struct mn_tail_header plan_chunk(uint32_t dim, uint64_t wal_bytes, uint64_t wal_number, uint64_t *bytes)
{
    struct mn_tail_header h = {.wal_number = wal_number};
    h.rows_max = (uint32_t)(wal_bytes / mn_record_bytes(dim, 0)) + 1;
    h.buckets = BUCKETS_MIN;
    while (h.buckets < h.rows_max)
        h.buckets *= 2;
    h.rows_at = sizeof(struct mn_tail_header);
    h.id_buckets_at = h.rows_at + (uint64_t)h.rows_max * sizeof(struct mn_tail_row);
    h.string_buckets_at = h.id_buckets_at + (uint64_t)h.buckets * sizeof(uint32_t);
    h.arena_at = mn_round_up(h.string_buckets_at + (uint64_t)h.buckets * sizeof(uint32_t), MN_LINE);
    h.arena_max = wal_bytes > ARENA_BYTES_MIN ? wal_bytes : ARENA_BYTES_MIN;
    *bytes = mn_round_up(h.arena_at + h.arena_max, 4096);
    return h;
}

static void adopt(struct mn_tail *tail, const struct mn_instance *instance, uint64_t instance_gen)
{
    uint8_t *base = tail->segment.base;
    tail->header = tail->segment.base;
    tail->rows = (struct mn_tail_row *)(void *)(base + tail->header->rows_at);
    tail->id_buckets = (_Atomic uint32_t *)(void *)(base + tail->header->id_buckets_at);
    tail->string_buckets = (_Atomic uint32_t *)(void *)(base + tail->header->string_buckets_at);
    tail->arena = base + tail->header->arena_at;
    tail->arena_used = sizeof(struct mn_tail_string); /* string number 0 is never given out */
    tail->filled = atomic_load(&tail->header->rows);
    tail->instance_gen = instance_gen;
    tail->dir_fd = instance->dir_fd;
}

enum mn_status mn_tail_create(struct mn_tail *tail, struct mn_instance *instance, uint32_t dim, uint64_t wal_bytes,
                              uint64_t instance_gen, uint64_t wal_number)
{
    char name[64];
    uint64_t bytes;
    struct mn_tail_header plan = plan_chunk(dim, wal_bytes, wal_number, &bytes);
    struct mn_segment_identity identity = identity_of(instance, MN_MAGIC_TAIL);
    mn_tail_name(name, instance_gen, wal_number);
    *tail = (struct mn_tail){0};
    MN_TRY(mn_segment_create_sparse(&tail->segment, instance->dir_fd, name, bytes, plan.rows_at, &identity, 0600));
    plan.header = *tail->segment.header;
    memcpy(tail->segment.base, &plan, sizeof plan);
    adopt(tail, instance, instance_gen);
    enum mn_status status =
        mn_segment_reserve(instance->dir_fd, name, plan.id_buckets_at, plan.arena_at - plan.id_buckets_at);
    if (status == MN_OK)
        status = mn_tail_reserve(tail, 1, 1);
    if (status != MN_OK) {
        mn_tail_unmap(tail);
        mn_tail_remove(instance, instance_gen, wal_number);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    mn_segment_publish(&tail->segment);
    return MN_OK;
}

void mn_tail_remove(struct mn_instance *instance, uint64_t instance_gen, uint64_t wal_number)
{
    char name[64];
    mn_tail_name(name, instance_gen, wal_number);
    unlinkat(instance->dir_fd, name, 0);
}

enum mn_status mn_tail_map(struct mn_tail *tail, struct mn_instance *instance, uint64_t instance_gen,
                           uint64_t wal_number, bool writable)
{
    char name[64];
    struct mn_segment_identity identity = identity_of(instance, MN_MAGIC_TAIL);
    mn_tail_name(name, instance_gen, wal_number);
    *tail = (struct mn_tail){0};
    MN_TRY(mn_segment_map(&tail->segment, instance->dir_fd, name, writable, &identity));
    const struct mn_tail_header *h = tail->segment.base;
    uint64_t bytes = tail->segment.bytes;
    if (bytes < sizeof *h || h->wal_number != wal_number || h->rows_at != sizeof *h ||
        h->id_buckets_at != h->rows_at + (uint64_t)h->rows_max * sizeof(struct mn_tail_row) ||
        (h->buckets & (h->buckets - 1)) != 0 || h->arena_at > bytes || h->arena_max > bytes - h->arena_at ||
        h->string_buckets_at != h->id_buckets_at + (uint64_t)h->buckets * sizeof(uint32_t) ||
        h->string_buckets_at + (uint64_t)h->buckets * sizeof(uint32_t) > h->arena_at) {
        mn_segment_unmap(&tail->segment);
        return MN_FAIL(MN_CORRUPT, "tail chunk %s is not laid out as it should be", name);
    }
    adopt(tail, instance, instance_gen);
    return MN_OK;
}

void mn_tail_unmap(struct mn_tail *tail)
{
    mn_segment_unmap(&tail->segment);
    *tail = (struct mn_tail){0};
}

uint64_t mn_tail_arena_left(const struct mn_tail *tail)
{
    return tail->header->arena_max - tail->arena_used;
}

static enum mn_status reserve(const struct mn_tail *tail, uint64_t offset, uint64_t bytes)
{
    char name[64];
    mn_tail_name(name, tail->instance_gen, tail->header->wal_number);
    return mn_segment_reserve(tail->dir_fd, name, offset, bytes);
}

enum mn_status mn_tail_reserve(struct mn_tail *tail, uint32_t rows, uint64_t arena)
{
    const struct mn_tail_header *h = tail->header;
    uint64_t rows_end = (uint64_t)tail->filled + rows, arena_end = tail->arena_used + arena;
    if (rows_end > tail->rows_reserved) {
        rows_end += PIECE_BYTES / sizeof(struct mn_tail_row);
        rows_end = rows_end < h->rows_max ? rows_end : h->rows_max;
        uint64_t from = tail->rows_reserved;
        MN_TRY(reserve(tail, h->rows_at + from * sizeof(struct mn_tail_row),
                       (rows_end - from) * sizeof(struct mn_tail_row)));
        tail->rows_reserved = (uint32_t)rows_end;
    }
    if (arena_end > tail->arena_reserved) {
        arena_end += PIECE_BYTES;
        arena_end = arena_end < h->arena_max ? arena_end : h->arena_max;
        MN_TRY(reserve(tail, h->arena_at + tail->arena_reserved, arena_end - tail->arena_reserved));
        tail->arena_reserved = arena_end;
    }
    return MN_OK;
}

static enum mn_status take_arena(struct mn_tail *tail, uint64_t bytes, uint64_t *at)
{
    if (mn_tail_arena_left(tail) < bytes)
        return MN_FAIL(MN_TOO_LARGE, "the dictionary of a tail chunk is full (%llu bytes)",
                       (unsigned long long)tail->header->arena_max);
    MN_TRY(mn_tail_reserve(tail, 0, bytes));
    *at = tail->arena_used;
    tail->arena_used += mn_round_up(bytes, 8);
    return MN_OK;
}

enum mn_status mn_tail_intern(struct mn_tail *tail, struct mn_str s, uint32_t *number)
{
    uint64_t hash = mn_str_hash(s);
    _Atomic uint32_t *bucket = &tail->string_buckets[hash & (tail->header->buckets - 1)];
    uint32_t head = atomic_load_explicit(bucket, memory_order_relaxed);
    for (uint32_t n = head; n != 0;) {
        struct mn_tail_string *entry = (struct mn_tail_string *)(void *)(tail->arena + (uint64_t)n * 8);
        if (entry->hash == hash && entry->length == s.length && memcmp(entry + 1, s.data, s.length) == 0) {
            *number = n;
            return MN_OK;
        }
        n = atomic_load_explicit(&entry->next, memory_order_relaxed);
    }
    uint64_t at = 0;
    MN_TRY(take_arena(tail, sizeof(struct mn_tail_string) + s.length, &at));
    struct mn_tail_string *entry = (struct mn_tail_string *)(void *)(tail->arena + at);
    entry->hash = hash;
    entry->length = s.length;
    if (s.length > 0)
        memcpy(entry + 1, s.data, s.length);
    atomic_store_explicit(&entry->next, head, memory_order_relaxed);
    *number = (uint32_t)(at / 8);
    /* Release: whoever finds the string through its bucket sees it whole. */
    atomic_store_explicit(bucket, *number, memory_order_release);
    return MN_OK;
}

enum mn_status mn_tail_fill(struct mn_tail *tail, const struct mn_tail_row *values, const uint32_t *tags,
                            uint32_t tag_count, uint32_t *row)
{
    uint64_t tags_at = 0;
    if (tail->filled >= tail->header->rows_max)
        return MN_FAIL(MN_TOO_LARGE, "a tail chunk is full (%u rows)", tail->header->rows_max);
    MN_TRY(mn_tail_reserve(tail, 1, 0));
    if (tag_count > 0)
        MN_TRY(take_arena(tail, (uint64_t)tag_count * sizeof *tags, &tags_at));
    uint32_t n = tail->filled++;
    struct mn_tail_row *r = &tail->rows[n];
    /* Published along with the row: whoever sees a row of another space sees this, too. */
    if (n == 0 || atomic_load_explicit(&tail->header->space, memory_order_relaxed) != values->space)
        atomic_store_explicit(&tail->header->space, n == 0 ? values->space : MN_NONE, memory_order_relaxed);
    memcpy(r, values, sizeof *r);
    r->tags_at = (uint32_t)(tags_at / sizeof *tags);
    r->tags_count = tag_count;
    if (tag_count > 0)
        memcpy(tail->arena + tags_at, tags, (size_t)tag_count * sizeof *tags);
    _Atomic uint32_t *bucket = &tail->id_buckets[values->hash & (tail->header->buckets - 1)];
    uint32_t head = atomic_load_explicit(bucket, memory_order_relaxed);
    atomic_store_explicit(&r->next, head == 0 ? MN_NONE : head - 1, memory_order_relaxed);
    /* Release: the row is whole before a bucket names it. It stays unseen until `rows` passes it. */
    atomic_store_explicit(bucket, n + 1, memory_order_release);
    *row = n;
    return MN_OK;
}

static enum mn_status intern_tags(struct mn_tail *tail, const uint8_t *at, uint32_t bytes, uint32_t count,
                                  uint32_t *tags)
{
    for (uint32_t i = 0; i < count; i++) {
        uint16_t length;
        if (bytes < sizeof length)
            return MN_FAIL(MN_CORRUPT, "the tags of a record end early");
        memcpy(&length, at, sizeof length);
        at += sizeof length;
        bytes -= (uint32_t)sizeof length;
        if (length > bytes)
            return MN_FAIL(MN_CORRUPT, "a tag of a record is longer than the record");
        MN_TRY(mn_tail_intern(tail, (struct mn_str){(const char *)at, length}, &tags[i]));
        at += length;
        bytes -= length;
    }
    return MN_OK;
}

enum mn_status mn_tail_add_record(struct mn_tail *tail, const struct mn_record *record, uint64_t offset, uint32_t *row)
{
    struct mn_record_fields f = mn_record_fields(record);
    const uint8_t *base = (const uint8_t *)record;
    uint32_t tags[MN_TAGS_MAX];
    struct mn_tail_row values = {
        .id = record->id,
        .born = record->seq,
        .at = record->at,
        .expires = record->expires,
        .confidence = record->confidence,
        .scale = record->scale,
        .vector_at = (uint32_t)offset + f.vector,
        .content_at = (uint32_t)offset + f.content,
        .content_bytes = record->content_bytes,
        .meta_at = (uint32_t)offset + f.meta,
        .meta_bytes = record->meta_bytes,
        .record_at = (uint32_t)offset,
        .hash = mn_id_hash(record->space_hash, &record->id),
    };
    atomic_init(&values.died, MN_ALIVE);
    if (record->tag_count > MN_TAGS_MAX)
        return MN_FAIL(MN_CORRUPT, "a record says that it has %u tags", record->tag_count);
    struct mn_str space = {(const char *)base + f.space, record->space_bytes};
    MN_TRY(mn_tail_intern(tail, space, &values.space));
    MN_TRY(intern_tags(tail, base + f.tags, record->tags_bytes, record->tag_count, tags));
    return mn_tail_fill(tail, &values, tags, record->tag_count, row);
}

void mn_tail_publish(struct mn_tail *tail, uint32_t rows, uint64_t last_seq)
{
    atomic_store_explicit(&tail->header->last_seq, last_seq, memory_order_relaxed);
    /* Release: pairs with the reader's acquire of `rows`; every row below it is filled for good. */
    atomic_store_explicit(&tail->header->rows, rows, memory_order_release);
}

void mn_tail_part(const struct mn_tail *tail, const uint8_t *wal, uint64_t wal_bytes, uint32_t dim,
                  struct mn_part *part)
{
    *part = (struct mn_part){
        .tail = true,
        .number = tail->header->wal_number,
        .rows = atomic_load_explicit(&tail->header->rows, memory_order_acquire),
        .dim = dim,
        .chunk = tail->header,
        .tail_rows = tail->rows,
        .arena = tail->arena,
        .wal = wal,
        .wal_bytes = wal_bytes,
    };
}

static void live_name(char name[64], uint64_t gen, uint64_t segment)
{
    snprintf(name, 64, "live.%llu.%llu", (unsigned long long)gen, (unsigned long long)segment);
}

enum mn_status mn_live_create(struct mn_segment *segment, struct mn_instance *instance, uint64_t gen,
                              uint64_t column_segment, uint64_t rows, const uint64_t *died)
{
    char name[64];
    struct mn_segment_identity identity = identity_of(instance, MN_MAGIC_LIVE);
    live_name(name, gen, column_segment);
    MN_TRY(mn_segment_create(segment, instance->dir_fd, name, sizeof(struct mn_live) + rows * sizeof(uint64_t),
                             &identity, 0600));
    struct mn_live *live = segment->base;
    uint64_t dead = 0;
    live->segment = column_segment;
    live->rows = rows;
    for (uint64_t i = 0; i < rows; i++) {
        uint64_t word = died ? died[i] : MN_ALIVE;
        atomic_store_explicit(&live->died[i], word, memory_order_relaxed);
        dead += word != MN_ALIVE;
    }
    atomic_store(&live->dead, dead);
    mn_segment_publish(segment);
    return MN_OK;
}

enum mn_status mn_live_map(struct mn_segment *segment, struct mn_instance *instance, uint64_t gen,
                           uint64_t column_segment, uint64_t rows, bool writable)
{
    char name[64];
    struct mn_segment_identity identity = identity_of(instance, MN_MAGIC_LIVE);
    live_name(name, gen, column_segment);
    MN_TRY(mn_segment_map(segment, instance->dir_fd, name, writable, &identity));
    const struct mn_live *live = segment->base;
    if (segment->bytes != sizeof *live + rows * sizeof(uint64_t) || live->segment != column_segment ||
        live->rows != rows) {
        mn_segment_unmap(segment);
        return MN_FAIL(MN_CORRUPT, "liveness file %s is not of the segment it should be", name);
    }
    return MN_OK;
}
