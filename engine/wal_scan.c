/*
 * wal_scan.c - reading a log segment back: every header, every checksum, and what to make of bytes that do not fit.
 *
 * A bad header, a zero length or a zero sector is not "the end": the scan looks on, block by block, for the next whole
 * batch header.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/crc.h"
#include "engine/wal.h"

#define SECTOR 512u /* what a disk writes as a whole */

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

static enum mn_status find_header(struct mn_wal_segment *segment)
{
    const uint8_t *uuid = segment->store->uuid;
    uint64_t blocks = segment->bytes / MN_WAL_BLOCK;
    const struct mn_wal_header *first = (const void *)segment->base;
    const struct mn_wal_header *last = (const void *)(segment->base + (blocks - 1) * MN_WAL_BLOCK);
    if (mn_wal_header_valid(first, uuid, segment->number, segment->bytes)) {
        segment->header = *first;
    } else if (mn_wal_header_valid(last, uuid, segment->number, segment->bytes)) {
        segment->header = *last;
    } else if (all_zero((const uint8_t *)first, MN_WAL_BLOCK) && all_zero((const uint8_t *)last, MN_WAL_BLOCK)) {
        segment->unused = true;
    } else if (mn_wal_header_valid(first, uuid, segment->number, first->bytes) && first->bytes > segment->bytes) {
        segment->header = *first;
        segment->cut = true;
    } else {
        return MN_FAIL(MN_CORRUPT,
                       "log segment %" PRIu64 ": both copies of its header are damaged, or it is of another store",
                       segment->number);
    }
    return MN_OK;
}

enum mn_status mn_wal_map(struct mn_wal_segment *segment, const struct mn_store *store, uint64_t number)
{
    char path[MN_PATH_MAX];
    int fd;
    const void *base = NULL;
    *segment = (struct mn_wal_segment){.store = store, .number = number};
    MN_TRY(store->io->open(mn_store_wal_path(store, path, number), MN_IO_READ, &fd));
    enum mn_status status = store->io->size(fd, &segment->bytes);
    if (status == MN_OK && segment->bytes < 2 * MN_WAL_BLOCK)
        status =
            MN_FAIL(MN_CORRUPT, "%s has %" PRIu64 " bytes, not a length that a log segment has", path, segment->bytes);
    if (status == MN_OK)
        status = store->io->map(fd, segment->bytes, &base);
    store->io->close(fd);
    MN_TRY(status);
    segment->base = base;
    return find_header(segment);
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

/* Space for batches ends before the second header, if the file still has one. */
static uint64_t limit(const struct scan *s)
{
    return s->segment->cut ? s->segment->bytes / MN_WAL_BLOCK * MN_WAL_BLOCK : s->segment->bytes - MN_WAL_BLOCK;
}

/* The next offset at or behind `from` that holds a whole batch header, or limit(). */
static uint64_t resynchronise(const struct scan *s, uint64_t from)
{
    for (uint64_t at = from; at < limit(s); at += MN_WAL_BLOCK)
        if (mn_batch_header_valid(batch_at(s, at), s->segment->header.salt, at, limit(s)))
            return at;
    return limit(s);
}

/* A run of blocks that is, or was, one batch. */
struct stretch {
    uint64_t offset, bytes;
    uint64_t records_end; /* offset behind its records */
    uint32_t records;     /* how many there should be; 0 = not known */
    bool headed, complete;
    const char *what;
};

/* Judges a stretch (rules 1 and 2 of "torn tail or rot": a later batch knew it durable, or it was written to its end)
 * and reports it; returns whether it was durable. */
static enum mn_status report(struct scan *s, const struct stretch *stretch, bool intact, bool *durable)
{
    struct mn_wal_damage damage = {.offset = stretch->offset,
                                   .bytes = stretch->bytes,
                                   .after_seq = s->extent->last_seq,
                                   .complete = stretch->complete,
                                   .intact = intact,
                                   .headed = stretch->headed,
                                   .what = stretch->what};
    for (uint64_t at = resynchronise(s, stretch->offset + stretch->bytes); at < limit(s);) {
        const struct mn_batch_header *later = batch_at(s, at);
        if (later->durable_seq > damage.later_durable)
            damage.later_durable = later->durable_seq;
        at = resynchronise(s, at + later->bytes);
    }
    damage.salvaged = *durable = stretch->complete || damage.later_durable > damage.after_seq;
    return s->visitor->damage ? s->visitor->damage(s->visitor->context, s->segment, &damage) : MN_OK;
}

/* True when any 512-byte sector of a bad block still has the zeros it was prepared with: its write may not have ended.
 */
static bool has_zero_sector(const uint8_t *block, uint64_t bytes)
{
    for (uint64_t at = 0; at + SECTOR <= bytes; at += SECTOR)
        if (all_zero(block + at, SECTOR))
            return true;
    return false;
}

/* The same for the footer, which may begin and end in the middle of a sector. */
static bool footer_torn(const uint8_t *batch, const struct mn_batch_header *h)
{
    uint64_t end = (uint64_t)h->footer_at + h->footer_bytes;
    for (uint64_t at = h->footer_at, next; at < end; at = next) {
        next = (at / SECTOR + 1) * SECTOR;
        if (all_zero(batch + at, (next < end ? next : end) - at))
            return true;
    }
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

/* The record at *at or the next one behind it that has a whole header, NULL at the end; *at moves behind it. */
static const struct mn_record *next_record(const struct scan *s, uint64_t *at, uint64_t end)
{
    for (; *at + sizeof(struct mn_record) <= end; *at += MN_RECORD_ALIGN) {
        const struct mn_record *r = (const struct mn_record *)(const void *)(s->segment->base + *at);
        if (!mn_record_header_valid(r, s->segment->header.salt, *at, end))
            continue; /* damaged: the next record begins at some later multiple */
        *at += sizeof *r + r->payload_bytes;
        return r;
    }
    return NULL;
}

static uint64_t offset_of(const struct scan *s, const struct mn_record *r)
{
    return (uint64_t)((const uint8_t *)r - s->segment->base);
}

/* True when each byte of the stretch's records is as it was written. */
static bool records_whole(const struct scan *s, const struct stretch *stretch)
{
    uint64_t at = stretch->offset + sizeof(struct mn_batch_header);
    uint32_t count = 0;
    while (at < stretch->records_end) {
        uint64_t expected = at;
        const struct mn_record *r = next_record(s, &at, stretch->records_end);
        if (!r || offset_of(s, r) != expected || !mn_record_payload_valid(r, s->segment->header.salt, expected))
            return false;
        count++;
    }
    return count == stretch->records;
}

/* Visits the records of a stretch one after the other. `trusted`: payloads need no check. */
static enum mn_status visit_records(struct scan *s, const struct stretch *stretch, bool trusted)
{
    const struct mn_wal_visitor *v = s->visitor;
    const struct mn_record *r;
    for (uint64_t at = stretch->offset + sizeof(struct mn_batch_header);
         (r = next_record(s, &at, stretch->records_end)) != NULL;) {
        uint64_t offset = offset_of(s, r);
        if (trusted || mn_record_payload_valid(r, s->segment->header.salt, offset))
            MN_TRY(v->record(v->context, s->segment, r, offset));
        else if (v->bad_record)
            MN_TRY(v->bad_record(v->context, s->segment, r, offset));
        if (r->seq > s->extent->last_seq)
            s->extent->last_seq = r->seq;
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
    struct stretch stretch = {.offset = offset,
                              .bytes = h->bytes,
                              .records_end = offset + h->footer_at,
                              .records = h->records,
                              .headed = true};
    bool footer_whole = mn_batch_footer_valid(h, s->segment->header.salt, offset);
    const struct mn_batch_footer *footer = (const void *)(base + h->footer_at);
    uint64_t padding_at = (uint64_t)h->footer_at + h->footer_bytes;
    struct block_check blocks = footer_whole ? check_blocks(s, h, offset) : (struct block_check){0};
    bool padding_whole = all_zero(base + padding_at, h->bytes - padding_at);
    bool chain_whole = !s->chain_known || h->prev_chain == s->extent->chain;
    bool whole = footer_whole && blocks.bad == 0, durable = true;
    if (!whole || !padding_whole || !chain_whole) {
        bool intact = whole || records_whole(s, &stretch);
        stretch.complete = footer_whole ? !blocks.torn : intact && !footer_torn(base, h);
        stretch.what = !footer_whole  ? "the footer of a batch is damaged"
                       : blocks.bad   ? "a block of a batch does not match its checksum"
                       : !chain_whole ? "a batch does not follow the one before it"
                                      : "bytes behind a batch are not zero";
        MN_TRY(report(s, &stretch, intact, &durable));
    }
    s->extent->end = offset + h->bytes;
    s->chain_known = whole;
    if (whole)
        s->extent->chain = footer->chain;
    if (!whole && !durable)
        return MN_OK; /* a torn end: never acknowledged, so wholly absent */
    MN_TRY(visit_records(s, &stretch, whole));
    extend(s, h);
    return MN_OK;
}

/* A whole footer of the batch whose header stood at stretch->offset: says where that batch ends. */
static void find_footer(const struct scan *s, struct stretch *stretch)
{
    uint64_t end = stretch->offset + stretch->bytes;
    for (uint64_t at = stretch->offset + sizeof(struct mn_batch_header);
         at + sizeof(struct mn_batch_footer) + 12 <= end; at += MN_RECORD_ALIGN) {
        const struct mn_batch_footer *footer = (const void *)(s->segment->base + at);
        uint64_t bytes = sizeof *footer + 4 * ((uint64_t)footer->records + footer->blocks);
        uint32_t crc;
        if (footer->magic != MN_FOOTER_MAGIC || bytes + sizeof crc > end - at)
            continue;
        memcpy(&crc, (const uint8_t *)footer + bytes, sizeof crc);
        if (crc != mn_crc32c(s->segment->header.salt ^ (uint32_t)at, footer, bytes) ||
            footer->blocks != (at - stretch->offset + MN_WAL_BLOCK - 1) / MN_WAL_BLOCK)
            continue;
        stretch->records_end = at;
        stretch->records = footer->records;
        stretch->bytes = mn_round_up(at + bytes + sizeof crc, MN_WAL_BLOCK) - stretch->offset;
        return;
    }
}

/* Bytes where a batch should begin that are neither its header nor zero. *next: behind what they are taken for. */
static enum mn_status scan_headless(struct scan *s, uint64_t offset, uint64_t *next)
{
    uint64_t end = resynchronise(s, offset + MN_WAL_BLOCK);
    struct stretch stretch = {.offset = offset,
                              .bytes = end - offset,
                              .records_end = end,
                              .what = end == limit(s) ? "bytes behind the last batch are neither a batch nor zero"
                                                      : "the header of a batch is damaged"};
    bool durable;
    find_footer(s, &stretch);
    bool intact = stretch.records > 0 && records_whole(s, &stretch);
    if (stretch.records > 0)
        stretch.what = "the header of a batch is damaged";
    /* A sector lands as a whole: a header that did not would be zero. */
    stretch.complete = intact && !all_zero(s->segment->base + offset, SECTOR);
    MN_TRY(report(s, &stretch, intact, &durable));
    s->chain_known = false;
    *next = offset + stretch.bytes;
    if (!durable)
        return MN_OK;
    s->extent->end = *next;
    s->extent->batches++;
    return visit_records(s, &stretch, false);
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
        if (all_zero(segment->base + at, limit(&s) - at))
            break; /* the end, as prepared */
        MN_TRY(scan_headless(&s, at, &at));
    }
    bool durable;
    struct stretch missing = {.offset = limit(&s), .what = "the file is shorter than it was made"};
    return segment->cut ? report(&s, &missing, false, &durable) : MN_OK;
}

struct verification {
    mn_damage_fn damaged;
    void *context;
    uint64_t durable_seq;
    const char *path;
};

/* Where the log goes on behind segment `number`, as the next one that was begun says: *seq is the newest before it.
 * False: nowhere. */
static enum mn_status find_successor(const struct mn_store *store, uint64_t number, uint64_t *seq, bool *found)
{
    uint64_t *numbers;
    uint32_t count;
    *found = false;
    MN_TRY(mn_wal_list(store, &numbers, &count));
    for (uint32_t i = 0; i < count && !*found; i++) {
        struct mn_wal_segment next;
        if (numbers[i] <= number)
            continue;
        *found = mn_wal_map(&next, store, numbers[i]) == MN_OK && !next.unused;
        *seq = *found ? next.header.prev_last_seq : 0;
        mn_wal_unmap(&next);
    }
    free(numbers);
    return MN_OK;
}

static enum mn_status pass_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    return MN_OK;
}

/* Bytes that a write which did not end may have left: the beginning of a batch, or sectors of one whose first did not
 * land. A lone byte among zeros is neither. */
static bool may_be_torn(const struct mn_wal_segment *segment, const struct mn_wal_damage *damage)
{
    const uint8_t *p = segment->base + damage->offset;
    uint64_t at = 0, end = damage->bytes;
    if (damage->headed)
        return true;
    if (!all_zero(p, SECTOR))
        return false;
    while (at < end && p[at] == 0)
        at++;
    return at + 1 < end && !all_zero(p + at + 1, end - at - 1);
}

static enum mn_status tell_damage(void *context, const struct mn_wal_segment *segment,
                                  const struct mn_wal_damage *damage)
{
    struct verification *v = context;
    char what[160];
    if (damage->after_seq >= v->durable_seq)
        return MN_OK; /* the end of the active segment: being written */
    if (damage->bytes == 0)
        return MN_OK; /* a cut file, told of below */
    if (!damage->salvaged && may_be_torn(segment, damage)) {
        uint64_t seq;
        bool found;
        MN_TRY(find_successor(segment->store, segment->number, &seq, &found));
        if (found && seq <= damage->after_seq)
            return MN_OK; /* a torn end that recovery went on behind: it was never acknowledged */
    }
    snprintf(what, sizeof what, "%s (offset %" PRIu64 ", %" PRIu64 " bytes)", damage->what, damage->offset,
             damage->bytes);
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
    if (segment.cut)
        damaged(context, path, "the file is shorter than it was made");
    for (int i = 0; i < 2 && !segment.unused && !segment.cut; i++) {
        if (extent.batches <= 1 && all_zero((const uint8_t *)copies[i], MN_WAL_BLOCK))
            continue; /* the power went before the first sync: this copy never landed, and the other one serves */
        if (!mn_wal_header_valid(copies[i], store->uuid, number, segment.bytes) ||
            !all_zero((const uint8_t *)(copies[i] + 1), MN_WAL_BLOCK - sizeof *copies[i]))
            damaged(context, path, i == 0 ? "the first header block is damaged" : "the last header block is damaged");
    }
    struct mn_wal_damage all = {
        .bytes = segment.bytes}; /* a first batch may have landed without the headers: the keeper makes it anew */
    if (segment.unused && !all_zero(segment.base, segment.bytes) && !may_be_torn(&segment, &all))
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
