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
#include "engine/fault.h"
#include "engine/wal_mend.h"

#define SECTOR 512u /* what a disk writes as a whole */

bool mn_wal_zero(const uint8_t *p, uint64_t bytes)
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
    return s->segment->cut ? s->segment->bytes / MN_WAL_BLOCK * MN_WAL_BLOCK : s->segment->header.bytes - MN_WAL_BLOCK;
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
    uint64_t records_end;                 /* behind its records, at most */
    const struct mn_batch_header *header; /* NULL: not whole */
    const struct mn_batch_footer *footer;
    bool complete, intact;
    const char *what;
};

/* Nothing but flipped bits: the whole batch was there once. */
static bool is_mendable(const struct scan *s, const struct mn_wal_damage *damage)
{
    uint32_t bits;
    uint8_t *copy = damage->bytes > 0 ? malloc(damage->bytes) : NULL;
    bool mendable = copy && mn_wal_mend_bits(s->segment, damage, copy, &bits);
    free(copy);
    return mendable;
}

/* Judges a stretch (rules 1 to 3 of "torn tail or rot": a later batch knew it durable, it was written to its end, or
 * the caller knows it) and reports it; returns whether it was durable. */
static enum mn_status report(struct scan *s, const struct stretch *stretch, bool *durable)
{
    struct mn_wal_damage damage = {.offset = stretch->offset,
                                   .bytes = stretch->bytes,
                                   .after_seq = s->extent->last_seq,
                                   .first_seq = s->extent->last_seq + 1,
                                   .complete = stretch->complete,
                                   .intact = stretch->intact,
                                   .header = stretch->header,
                                   .footer = stretch->footer,
                                   .records_end = stretch->records_end,
                                   .what = stretch->what};
    uint64_t next_first = 0;
    for (uint64_t at = resynchronise(s, stretch->offset + stretch->bytes); at < limit(s);) {
        const struct mn_batch_header *later = batch_at(s, at);
        if (next_first == 0)
            next_first = later->first_seq;
        if (later->durable_seq > damage.later_durable)
            damage.later_durable = later->durable_seq;
        at = resynchronise(s, at + later->bytes);
    }
    damage.last_seq = next_first ? next_first - 1 : s->segment->durable_seq;
    if (damage.last_seq < damage.first_seq)
        damage.last_seq = 0;
    if (stretch->header || stretch->footer) {
        damage.first_seq = stretch->header ? stretch->header->first_seq : stretch->footer->first_seq;
        damage.last_seq = stretch->header ? stretch->header->last_seq : stretch->footer->last_seq;
    }
    uint64_t known = s->segment->durable_seq > damage.later_durable ? s->segment->durable_seq : damage.later_durable;
    damage.mended = is_mendable(s, &damage);
    damage.intact |= damage.mended;
    damage.salvaged = *durable = stretch->complete || damage.mended || known > damage.after_seq;
    return s->visitor->damage ? s->visitor->damage(s->visitor->context, s->segment, &damage) : MN_OK;
}

/* True when any 512-byte sector of [at, end) still has the zeros it was prepared with: its write may not have ended.
 * The first and the last may lie in it in part. */
static bool has_zero_sector(const uint8_t *base, uint64_t at, uint64_t end)
{
    for (uint64_t next; at < end; at = next) {
        next = (at / SECTOR + 1) * SECTOR;
        if (mn_wal_zero(base + at, (next < end ? next : end) - at))
            return true;
    }
    return false;
}

struct block_check {
    uint32_t bad;
    bool torn; /* a bad block has a zero sector */
};

static struct block_check check_blocks(const struct scan *s, const struct stretch *stretch)
{
    struct block_check check = {0};
    const struct mn_batch_footer *footer = stretch->footer;
    const uint32_t *crcs = mn_footer_block_crcs(footer);
    const uint8_t *base = s->segment->base;
    uint64_t footer_at = (uint64_t)((const uint8_t *)footer - base);
    for (uint32_t i = 0; i < footer->blocks; i++) {
        uint64_t at = stretch->offset + (uint64_t)i * MN_WAL_BLOCK, end = at + MN_WAL_BLOCK;
        end = end < footer_at ? end : footer_at;
        if (MN_BUG(no_crc_in_recovery) ||
            crcs[i] == mn_crc32c(s->segment->header.salt ^ (uint32_t)at, base + at, end - at))
            continue;
        check.bad++;
        /* To the end of the records, but the footer's own checksum speaks for the sector that it begins in. */
        end = end < stretch->records_end ? end : stretch->records_end;
        uint64_t footer_sector = footer_at / SECTOR * SECTOR;
        check.torn |= has_zero_sector(base, at, end < footer_sector ? end : footer_sector);
    }
    return check;
}

/* ---- records ---- */

/* The record at `at`, when its header is whole. */
static const struct mn_record *record_at(const struct scan *s, uint64_t at, uint64_t end)
{
    const struct mn_record *r = (const struct mn_record *)(const void *)(s->segment->base + at);
    bool whole = at % MN_RECORD_ALIGN == 0 && at + sizeof *r <= end &&
                 mn_record_header_valid(r, s->segment->header.salt, at, end);
    return whole ? r : NULL;
}

/* The record at *at or the next one behind it that has a whole header, NULL at the end; *at moves behind it. */
static const struct mn_record *next_record(const struct scan *s, uint64_t *at, uint64_t end)
{
    for (; *at + sizeof(struct mn_record) <= end; *at += MN_RECORD_ALIGN) {
        const struct mn_record *r = record_at(s, *at, end);
        if (!r)
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

static bool is_whole(const struct scan *s, const struct mn_record *r)
{
    return r && r->op != MN_RECORD_LOST && mn_record_payload_valid(r, s->segment->header.salt, offset_of(s, r));
}

/* Walks the records that a whole footer lists. */
struct listed {
    const struct mn_record *record; /* NULL: its header is damaged */
    const struct mn_batch_touch *touches;
    uint32_t touched, number;
};
static bool next_listed(const struct scan *s, const struct stretch *stretch, struct listed *l)
{
    const struct mn_batch_footer *footer = stretch->footer;
    const struct mn_batch_touch *all = mn_footer_touches(footer);
    l->touches = l->touches ? l->touches + l->touched : all;
    if (l->number == footer->records)
        return false;
    l->record = record_at(s, stretch->offset + mn_footer_records(footer)[l->number], stretch->records_end);
    for (l->touched = 0; l->touches + l->touched < all + footer->touched && l->touches[l->touched].record == l->number;)
        l->touched++;
    l->number++;
    return true;
}

/* What a forget took away is known as well as from its record. */
static bool tells_all(const struct listed *l)
{
    for (uint32_t i = 0; i < l->touched; i++)
        if (l->touches[i].op != MN_RECORD_FORGET)
            return false;
    return l->touched > 0;
}

/* True when nothing that the stretch's records said is lost. */
static bool records_whole(const struct scan *s, const struct stretch *stretch)
{
    uint64_t at = stretch->offset + sizeof(struct mn_batch_header);
    uint32_t count = 0;
    for (struct listed l = {0}; stretch->footer && next_listed(s, stretch, &l);)
        if (!is_whole(s, l.record) && !tells_all(&l))
            return false;
    if (stretch->footer || !stretch->header)
        return stretch->footer != NULL;
    for (uint64_t expected = at; count < stretch->header->records; expected = at, count++) {
        const struct mn_record *r = next_record(s, &at, stretch->records_end);
        if (!r || offset_of(s, r) != expected || !is_whole(s, r))
            return false;
    }
    return mn_wal_zero(s->segment->base + at, stretch->records_end - at);
}

/* True when the records that a whole footer lists stand one behind the other, from the batch's header to where they
 * end. A header that says something impossible under its own right checksum passes that of its block: bytes that are
 * followed by their checksum leave it as it is. */
static bool records_framed(const struct scan *s, const struct stretch *stretch)
{
    uint64_t at = stretch->offset + sizeof(struct mn_batch_header);
    for (struct listed l = {0}; next_listed(s, stretch, &l);) {
        if (!l.record || offset_of(s, l.record) != at)
            return false;
        at += sizeof *l.record + l.record->payload_bytes;
    }
    return at == stretch->records_end;
}

static enum mn_status visit_lost(struct scan *s, const struct mn_record *r, const struct mn_batch_touch *touches,
                                 uint32_t touched, uint64_t seq)
{
    struct mn_wal_lost lost = {.header = r, .touches = touches, .touched = touched, .seq = r ? r->seq : seq};
    return s->visitor->lost ? s->visitor->lost(s->visitor->context, s->segment, &lost) : MN_OK;
}

static void note_seq(struct scan *s, uint64_t seq)
{
    if (seq > s->extent->last_seq)
        s->extent->last_seq = seq;
}

/* Visits the records that the footer lists. `trusted`: payloads need no check. */
static enum mn_status visit_listed(struct scan *s, const struct stretch *stretch, bool trusted)
{
    const struct mn_wal_visitor *v = s->visitor;
    uint64_t seq = stretch->footer->first_seq;
    for (struct listed l = {0}; next_listed(s, stretch, &l);) {
        const struct mn_record *r = l.record;
        if (r && trusted ? r->op != MN_RECORD_LOST : is_whole(s, r))
            MN_TRY(v->record(v->context, s->segment, r, offset_of(s, r)));
        else
            MN_TRY(visit_lost(s, r, l.touches, l.touched, seq));
        if (r)
            note_seq(s, seq = r->seq);
    }
    note_seq(s, stretch->footer->last_seq);
    return MN_OK;
}

/* Visits what looks like a record. Of one with a damaged payload the header still tells which id it put. */
static enum mn_status visit_found(struct scan *s, const struct stretch *stretch)
{
    const struct mn_wal_visitor *v = s->visitor;
    const struct mn_record *r;
    for (uint64_t at = stretch->offset + sizeof(struct mn_batch_header);
         (r = next_record(s, &at, stretch->records_end)) != NULL;) {
        struct mn_batch_touch touch;
        if (is_whole(s, r))
            MN_TRY(v->record(v->context, s->segment, r, offset_of(s, r)));
        else
            MN_TRY(visit_lost(s, r, &touch, r->op == MN_RECORD_PUT ? mn_record_touches(r, 0, &touch) : 0, r->seq));
        note_seq(s, r->seq);
    }
    if (stretch->header)
        note_seq(s, stretch->header->last_seq);
    return MN_OK;
}

/* What a batch says of itself. */
static void note_batch(struct scan *s, const struct stretch *stretch)
{
    const struct mn_batch_header *h = stretch->header;
    s->extent->batches++;
    s->extent->end = stretch->offset + stretch->bytes;
    if (h && h->durable_seq > s->extent->last_durable)
        s->extent->last_durable = h->durable_seq;
    if (h)
        s->extent->last_wall_ns = h->wall_ns;
}

static enum mn_status visit(struct scan *s, const struct stretch *stretch, bool trusted)
{
    note_batch(s, stretch);
    return stretch->footer ? visit_listed(s, stretch, trusted) : visit_found(s, stretch);
}

/* ---- batches ---- */

/* One batch with a whole header. */
static enum mn_status scan_batch(struct scan *s, const struct mn_batch_header *h, uint64_t offset)
{
    const uint8_t *base = (const uint8_t *)h;
    const struct mn_batch_footer *footer = (const void *)(base + h->footer_at);
    uint64_t footer_end = (uint64_t)h->footer_at + h->footer_bytes;
    struct stretch stretch = {.offset = offset, .bytes = h->bytes, .records_end = offset + h->footer_at, .header = h};
    if (mn_batch_footer_valid(footer, s->segment->header.salt, offset, offset + h->footer_at, h->footer_bytes)) {
        stretch.footer = footer;
        stretch.records_end = offset + footer->records_end;
    }
    if (stretch.footer && s->visitor->wants && !s->visitor->wants(s->visitor->context, footer)) {
        s->chain_known = false;
        note_batch(s, &stretch);
        note_seq(s, footer->last_seq);
        return MN_OK;
    }
    struct block_check blocks = stretch.footer ? check_blocks(s, &stretch) : (struct block_check){0};
    bool padding_whole = mn_wal_zero(base + footer_end, h->bytes - footer_end);
    bool chain_whole = !s->chain_known || h->prev_chain == s->extent->chain;
    bool framed = !stretch.footer || blocks.bad > 0 || (footer->records == h->records && records_framed(s, &stretch));
    bool whole = stretch.footer && blocks.bad == 0 && framed, durable = true;
    if (!whole || !padding_whole || !chain_whole) {
        stretch.intact = whole || records_whole(s, &stretch);
        stretch.complete = stretch.footer ? !blocks.torn
                                          : stretch.intact && !has_zero_sector(s->segment->base, offset + h->footer_at,
                                                                               offset + footer_end);
        stretch.what = !stretch.footer ? "the footer of a batch is damaged"
                       : blocks.bad    ? "a block of a batch does not match its checksum"
                       : !framed       ? "a record of a batch does not end where the next one begins"
                       : !chain_whole  ? "a batch does not follow the one before it"
                                       : "bytes behind a batch are not zero";
        MN_TRY(report(s, &stretch, &durable));
    }
    s->extent->end = offset + h->bytes;
    s->chain_known = whole;
    if (whole)
        s->extent->chain = footer->chain;
    return whole || durable ? visit(s, &stretch, whole) : MN_OK; /* a torn end: never acknowledged, so wholly absent */
}

/* A whole footer of the batch whose header stood at stretch->offset: says where that batch ends. */
static void find_footer(const struct scan *s, struct stretch *stretch)
{
    uint64_t end = stretch->offset + stretch->bytes;
    for (uint64_t at = stretch->offset + sizeof(struct mn_batch_header); at < end; at += MN_RECORD_ALIGN) {
        const struct mn_batch_footer *footer = (const void *)(s->segment->base + at);
        if (!mn_batch_footer_valid(footer, s->segment->header.salt, stretch->offset, at, end - at))
            continue;
        uint64_t bytes = mn_footer_bytes(footer->touched, footer->records, footer->blocks) + 4;
        stretch->footer = footer;
        stretch->records_end = stretch->offset + footer->records_end;
        stretch->bytes = mn_round_up(at + bytes, MN_WAL_BLOCK) - stretch->offset;
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
    stretch.intact = records_whole(s, &stretch);
    if (stretch.footer)
        stretch.what = "the header of a batch is damaged";
    /* A sector lands as a whole: a header that did not would be zero. */
    stretch.complete = stretch.intact && !mn_wal_zero(s->segment->base + offset, SECTOR);
    MN_TRY(report(s, &stretch, &durable));
    s->chain_known = false;
    *next = offset + stretch.bytes;
    return durable ? visit(s, &stretch, false) : MN_OK;
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
        if (mn_wal_zero(segment->base + at, limit(&s) - at))
            break; /* the end, as prepared */
        MN_TRY(scan_headless(&s, at, &at));
    }
    bool durable;
    struct stretch missing = {.offset = limit(&s), .what = "the file is shorter than it was made"};
    return segment->cut ? report(&s, &missing, &durable) : MN_OK;
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
