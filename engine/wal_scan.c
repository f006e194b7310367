/*
 * wal_scan.c - reading a log segment back: every header, every checksum, and what to make of bytes that do not fit.
 *
 * A bad header, a zero length or a zero sector is not "the end": the scan looks on, block by block, for the next whole batch header.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/crc.h"
#include "engine/wal.h"

static bool all_zero(const uint8_t *p, uint64_t bytes)
{
    /* A region is zero when it begins with a zero word and each byte equals the one eight before. */
    if (bytes == 0)
        return true;
    uint64_t head = bytes < 8 ? bytes : 8;
    for (uint64_t i = 0; i < head; i++)
        if (p[i] != 0)
            return false;
    return bytes <= 8 || memcmp(p, p + 8, bytes - 8) == 0;
}

enum mn_status mn_wal_map(struct mn_wal_segment *segment, const struct mn_store *store, uint64_t number)
{
    char path[MN_PATH_MAX];
    int fd;
    const void *base = NULL;
    *segment = (struct mn_wal_segment){.store = store, .number = number};
    MN_TRY(store->io->open(mn_store_wal_path(store, path, number), MN_IO_READ, &fd));
    enum mn_status status = store->io->size(fd, &segment->bytes);
    if (status == MN_OK && (segment->bytes < 4 * MN_WAL_BLOCK || segment->bytes % MN_WAL_BLOCK != 0))
        status = MN_FAIL(MN_CORRUPT, "%s has %" PRIu64 " bytes, not a length that a log segment has", path,
                         segment->bytes);
    if (status == MN_OK)
        status = store->io->map(fd, segment->bytes, &base);
    store->io->close(fd);
    MN_TRY(status);
    segment->base = base;
    const struct mn_wal_header *first = base;
    const struct mn_wal_header *last = (const void *)(segment->base + segment->bytes - MN_WAL_BLOCK);
    if (mn_wal_header_valid(first, store->uuid, number, segment->bytes))
        segment->header = *first;
    else if (mn_wal_header_valid(last, store->uuid, number, segment->bytes))
        segment->header = *last;
    else if (all_zero(segment->base, MN_WAL_BLOCK) && all_zero((const uint8_t *)last, MN_WAL_BLOCK))
        segment->unused = true;
    else
        return MN_FAIL(MN_CORRUPT, "%s: both copies of its header are damaged, or it is of another store", path);
    return MN_OK;
}

void mn_wal_unmap(struct mn_wal_segment *segment)
{
    if (segment->base)
        segment->store->io->unmap(segment->base, segment->bytes);
    segment->base = NULL;
}

/* A scan in progress. */
struct scan {
    const struct mn_wal_segment *segment;
    const struct mn_wal_visitor *visitor;
    struct mn_wal_extent *extent;
    bool chain_known; /* the batch before was whole */
};

static const struct mn_batch_header *batch_at(const struct scan *s, uint64_t offset)
{
    return (const struct mn_batch_header *)(const void *)(s->segment->base + offset);
}

/* Space for batches ends before the second header. */
static uint64_t limit(const struct scan *s)
{
    return s->segment->bytes - MN_WAL_BLOCK;
}

/* The next offset at or behind `from` that holds a whole batch header, or limit(). */
static uint64_t resynchronise(const struct scan *s, uint64_t from)
{
    for (uint64_t at = from; at < limit(s); at += MN_WAL_BLOCK)
        if (mn_batch_header_valid(batch_at(s, at), s->segment->header.salt, at, limit(s)))
            return at;
    return limit(s);
}

/* Judges a stretch (rules 1 and 2 of "torn tail or rot": a later batch knew it durable, or it was written to its end) and
 * reports it; returns whether it was durable. */
static enum mn_status report(struct scan *s, uint64_t offset, uint64_t bytes, bool complete, const char *what,
                             bool *durable)
{
    struct mn_wal_damage damage = {.offset = offset,
                                   .bytes = bytes,
                                   .after_seq = s->extent->last_seq,
                                   .complete = complete,
                                   .what = what};
    for (uint64_t at = resynchronise(s, offset + bytes); at < limit(s);) {
        const struct mn_batch_header *later = batch_at(s, at);
        if (later->durable_seq > damage.later_durable)
            damage.later_durable = later->durable_seq;
        at = resynchronise(s, at + later->bytes);
    }
    damage.salvaged = *durable = complete || damage.later_durable > damage.after_seq;
    return s->visitor->damage ? s->visitor->damage(s->visitor->context, s->segment, &damage) : MN_OK;
}

/* True when any 512-byte sector of a bad block still has the zeros it was prepared with: its write may not have ended. */
static bool has_zero_sector(const uint8_t *block, uint64_t bytes)
{
    for (uint64_t at = 0; at + 512 <= bytes; at += 512)
        if (all_zero(block + at, 512))
            return true;
    return false;
}

struct block_check {
    uint32_t bad;
    bool torn; /* a bad block has a zero sector */
};

static struct block_check check_blocks(const struct scan *s, const struct mn_batch_header *h, uint64_t offset)
{
    struct block_check check = {0};
    const uint8_t *base = (const uint8_t *)h;
    const struct mn_batch_footer *footer = (const void *)(base + h->footer_at);
    const uint32_t *crcs = (const uint32_t *)(const void *)(footer + 1) + h->records;
    for (uint32_t i = 0; i < footer->blocks; i++) {
        uint64_t at = (uint64_t)i * MN_WAL_BLOCK;
        uint64_t length = h->footer_at - at < MN_WAL_BLOCK ? h->footer_at - at : MN_WAL_BLOCK;
        if (crcs[i] == mn_crc32c(s->segment->header.salt ^ (uint32_t)(offset + at), base + at, length))
            continue;
        check.bad++;
        check.torn |= has_zero_sector(base + at, length);
    }
    return check;
}

/* Visits the records of a batch one after the other. `trusted`: payloads need no check. */
static enum mn_status visit_records(struct scan *s, const struct mn_batch_header *h, uint64_t offset, bool trusted)
{
    const struct mn_wal_visitor *v = s->visitor;
    uint32_t salt = s->segment->header.salt;
    uint64_t end = offset + h->footer_at;
    for (uint64_t at = offset + sizeof *h; at + sizeof(struct mn_record) <= end;) {
        const struct mn_record *r = (const struct mn_record *)(const void *)(s->segment->base + at);
        if (!mn_record_header_valid(r, salt, at, end)) {
            at += MN_RECORD_ALIGN; /* damaged: the next record begins at some later multiple */
            continue;
        }
        if (trusted || mn_record_payload_valid(r, salt, at))
            MN_TRY(v->record(v->context, s->segment, r, at));
        else if (v->bad_record)
            MN_TRY(v->bad_record(v->context, s->segment, r, at));
        at += sizeof *r + r->payload_bytes;
    }
    return MN_OK;
}

static void extend(struct scan *s, const struct mn_batch_header *h)
{
    struct mn_wal_extent *e = s->extent;
    e->batches++;
    if (h->last_seq > e->last_seq)
        e->last_seq = h->last_seq;
    if (h->durable_seq > e->last_durable)
        e->last_durable = h->durable_seq;
    e->last_wall_ns = h->wall_ns;
}

/* One batch with a whole header. */
static enum mn_status scan_batch(struct scan *s, const struct mn_batch_header *h, uint64_t offset)
{
    const uint8_t *base = (const uint8_t *)h;
    bool footer_whole = mn_batch_footer_valid(h, s->segment->header.salt, offset);
    const struct mn_batch_footer *footer = (const void *)(base + h->footer_at);
    uint64_t padding_at = (uint64_t)h->footer_at + h->footer_bytes;
    struct block_check blocks = footer_whole ? check_blocks(s, h, offset) : (struct block_check){0};
    bool padding_whole = all_zero(base + padding_at, h->bytes - padding_at);
    bool chain_whole = !s->chain_known || h->prev_chain == s->extent->chain;
    bool whole = footer_whole && blocks.bad == 0, durable = true;
    if (!whole || !padding_whole || !chain_whole)
        MN_TRY(report(s, offset, h->bytes, footer_whole && !blocks.torn,
                      !footer_whole  ? "the footer of a batch is damaged"
                      : blocks.bad   ? "a block of a batch does not match its checksum"
                      : !chain_whole ? "a batch does not follow the one before it"
                                     : "bytes behind a batch are not zero",
                      &durable));
    s->extent->end = offset + h->bytes;
    s->chain_known = whole;
    if (whole)
        s->extent->chain = footer->chain;
    if (!whole && !durable)
        return MN_OK; /* a torn end: never acknowledged, so wholly absent */
    MN_TRY(visit_records(s, h, offset, whole));
    extend(s, h);
    return MN_OK;
}

enum mn_status mn_wal_scan(const struct mn_wal_segment *segment, const struct mn_wal_visitor *visitor,
                           struct mn_wal_extent *extent)
{
    struct scan s = {.segment = segment, .visitor = visitor, .extent = extent};
    *extent = (struct mn_wal_extent){.end = MN_WAL_BLOCK, .chain = segment->header.prev_chain};
    extent->last_seq = segment->header.first_seq ? segment->header.first_seq - 1 : 0;
    if (segment->unused)
        return MN_OK;
    for (uint64_t at = MN_WAL_BLOCK; at < limit(&s);) {
        const struct mn_batch_header *h = batch_at(&s, at);
        if (mn_batch_header_valid(h, segment->header.salt, at, limit(&s))) {
            uint64_t bytes = h->bytes;
            MN_TRY(scan_batch(&s, h, at));
            at += bytes;
            continue;
        }
        uint64_t next = resynchronise(&s, at + MN_WAL_BLOCK);
        if (next == limit(&s) && all_zero(segment->base + at, next - at))
            break; /* the end, as prepared */
        bool durable;
        MN_TRY(report(&s, at, next - at, false,
                      next == limit(&s) ? "bytes behind the last batch are neither a batch nor zero"
                                        : "the header of a batch is damaged",
                      &durable));
        s.chain_known = false;
        at = next;
    }
    return MN_OK;
}

struct verification {
    mn_damage_fn damaged;
    void *context;
    uint64_t durable_seq;
    const char *path;
};

static enum mn_status pass_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    return MN_OK;
}

static enum mn_status tell_damage(void *context, const struct mn_wal_segment *segment, const struct mn_wal_damage *damage)
{
    struct verification *v = context;
    char what[160];
    if (damage->after_seq >= v->durable_seq)
        return MN_OK; /* the end of the active segment: being written */
    snprintf(what, sizeof what, "%s (offset %" PRIu64 ", %" PRIu64 " bytes)", damage->what, damage->offset, damage->bytes);
    v->damaged(v->context, v->path, what);
    return MN_OK;
}

enum mn_status mn_wal_verify(const struct mn_store *store, uint64_t number, uint64_t durable_seq, uint64_t *bytes,
                             mn_damage_fn damaged, void *context)
{
    char path[MN_PATH_MAX];
    struct mn_wal_segment segment;
    struct mn_wal_extent extent;
    mn_store_wal_path(store, path, number);
    enum mn_status status = mn_wal_map(&segment, store, number);
    *bytes += segment.bytes;
    if (status == MN_CORRUPT) {
        damaged(context, path, mn_error_text());
        mn_wal_unmap(&segment);
        return MN_OK;
    }
    MN_TRY(status);
    struct verification v = {damaged, context, durable_seq, path};
    struct mn_wal_visitor visitor = {.context = &v, .record = pass_record, .damage = tell_damage};
    status = mn_wal_scan(&segment, &visitor, &extent);
    const struct mn_wal_header *copies[] = {(const void *)segment.base,
                                            (const void *)(segment.base + segment.bytes - MN_WAL_BLOCK)};
    for (int i = 0; i < 2 && !segment.unused; i++)
        if (!mn_wal_header_valid(copies[i], store->uuid, number, segment.bytes) ||
            !all_zero((const uint8_t *)(copies[i] + 1), MN_WAL_BLOCK - sizeof *copies[i]))
            damaged(context, path, i == 0 ? "the first header block is damaged" : "the last header block is damaged");
    if (segment.unused && !all_zero(segment.base, segment.bytes))
        damaged(context, path, "a prepared log segment is not zero");
    mn_wal_unmap(&segment);
    return status;
}

struct number_list {
    uint64_t *numbers;
    uint32_t count, max;
};

static enum mn_status add_number(void *context, const char *name)
{
    struct number_list *list = context;
    char *end;
    unsigned long long number = strtoull(name, &end, 10);
    if (end == name || strcmp(end, ".wal") != 0)
        return MN_OK; /* MARK, LOCK, a half-prepared file */
    if (list->count == list->max) {
        uint32_t max = list->max ? list->max * 2 : 64;
        uint64_t *numbers = realloc(list->numbers, max * sizeof *numbers);
        if (!numbers)
            return MN_FAIL(MN_INTERNAL, "no memory for a list of log segments");
        list->numbers = numbers;
        list->max = max;
    }
    list->numbers[list->count++] = number;
    return MN_OK;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

enum mn_status mn_wal_list(const struct mn_store *store, uint64_t **numbers, uint32_t *count)
{
    char path[MN_PATH_MAX];
    struct number_list list = {0};
    enum mn_status status = store->io->list(mn_store_path(store, path, "wal"), add_number, &list);
    if (status != MN_OK) {
        free(list.numbers);
        return status;
    }
    if (list.count > 1)
        qsort(list.numbers, list.count, sizeof *list.numbers, compare_numbers);
    *numbers = list.numbers;
    *count = list.count;
    return MN_OK;
}
