/*
 * wal_mend.c - flipped bits undone, and a damaged log segment written anew with everything where it was.
 */
#include "engine/wal_mend.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/crc.h"
#include "engine/fault.h"

#define PIECE_BYTES (1u << 20)

/* ---- flipped bits ---- */

/* Makes `data` match its checksum by flipping one bit of it, if that can be. */
static bool undo_flip(uint8_t *data, uint64_t bytes, uint32_t seed, uint32_t expected, uint32_t *bits)
{
    uint64_t bit;
    uint32_t difference = mn_crc32c(seed, data, bytes) ^ expected;
    if (difference == 0)
        return true;
    if (!mn_crc32c_flipped(difference, bytes, &bit))
        return false;
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    ++*bits;
    return true;
}

/* The same for a footer, whose checksum stands behind it and may have been hit itself. */
static bool undo_footer_flip(uint8_t *footer, uint64_t bytes, uint32_t seed, uint32_t *bits)
{
    uint32_t stored, found = mn_crc32c(seed, footer, bytes);
    memcpy(&stored, footer + bytes, sizeof stored);
    if (__builtin_popcount(stored ^ found) != 1)
        return undo_flip(footer, bytes, seed, stored, bits);
    memcpy(footer + bytes, &found, sizeof found);
    ++*bits;
    return true;
}

static bool records_whole(const uint8_t *batch, const struct mn_batch_footer *footer, uint32_t salt, uint64_t offset)
{
    const uint32_t *at = mn_footer_records(footer);
    for (uint32_t i = 0; i < footer->records; i++) {
        const struct mn_record *r = (const void *)(batch + at[i]);
        if (at[i] % MN_RECORD_ALIGN != 0 || at[i] + sizeof *r > footer->records_end ||
            !mn_record_header_valid(r, salt, offset + at[i], offset + footer->records_end) ||
            !mn_record_payload_valid(r, salt, offset + at[i]))
            return false;
    }
    return true;
}

bool mn_wal_mend_bits(const struct mn_wal_segment *segment, const struct mn_wal_damage *d, uint8_t *copy,
                      uint32_t *bits)
{
    const uint8_t *base = segment->base + d->offset;
    uint32_t salt = segment->header.salt;
    *bits = 0;
    if (!d->header && !d->footer)
        return false;
    // cppcheck-suppress nullPointerArithmeticRedundantCheck ; without a header there is a footer
    uint64_t footer_at = d->header ? d->header->footer_at : (uint64_t)((const uint8_t *)d->footer - base);
    uint64_t room = d->header ? d->header->footer_bytes : d->bytes - footer_at;
    memcpy(copy, base, d->bytes);
    struct mn_batch_footer *footer = (struct mn_batch_footer *)(void *)(copy + footer_at);
    if (!d->footer && !undo_footer_flip((uint8_t *)footer, room - 4, salt ^ (uint32_t)(d->offset + footer_at), bits))
        return false;
    if (!mn_batch_footer_valid(footer, salt, d->offset, d->offset + footer_at, room))
        return false;
    const uint32_t *crcs = mn_footer_block_crcs(footer);
    for (uint32_t i = 0; i < footer->blocks; i++) {
        uint64_t at = (uint64_t)i * MN_WAL_BLOCK, left = footer_at - at;
        if (!undo_flip(copy + at, left < MN_WAL_BLOCK ? left : MN_WAL_BLOCK, salt ^ (uint32_t)(d->offset + at), crcs[i],
                       bits))
            return false;
    }
    const struct mn_batch_header *h = (const void *)copy;
    uint64_t used = footer_at + mn_footer_bytes(footer->touched, footer->records, footer->blocks) + 4;
    if (!mn_batch_header_valid(h, salt, d->offset, d->offset + d->bytes) || h->footer_at != footer_at ||
        h->bytes != d->bytes || h->footer_at + h->footer_bytes != used || !records_whole(copy, footer, salt, d->offset))
        return false;
    memset(copy + used, 0, d->bytes - used);
    return true;
}

/* ---- a batch written anew ---- */

/* A batch in the making where a damaged one lies: its records and what they touch. */
struct rebuilt {
    const struct mn_wal_damage *damage;
    uint8_t *batch;
    uint32_t salt;
    uint64_t footer_at; /* 0: wherever there is room behind the records */
    uint32_t *record_at;
    struct mn_batch_touch *touches;
    struct mn_batch_frame frame;
};

/* The record at `at` when its header is whole. */
static const struct mn_record *headed_record(const struct rebuilt *b, uint64_t at, uint64_t end)
{
    const struct mn_record *r = (const void *)(b->batch + at);
    uint64_t offset = b->damage->offset;
    bool whole = at % MN_RECORD_ALIGN == 0 && at + sizeof *r <= end &&
                 mn_record_header_valid(r, b->salt, offset + at, offset + end);
    return whole ? r : NULL;
}

static bool is_whole(const struct rebuilt *b, const struct mn_record *r, uint64_t at)
{
    return r && mn_record_payload_valid(r, b->salt, b->damage->offset + at);
}

/* Says that what stood in [at, end) is lost; `seq`: its own, or one that it may have had. */
static void put_lost(struct rebuilt *b, uint64_t at, uint64_t end, uint64_t seq)
{
    struct mn_record *r = (struct mn_record *)(void *)(b->batch + at);
    memset(r, 0, end - at);
    *r = (struct mn_record){.magic = MN_RECORD_MAGIC, .op = MN_RECORD_LOST, .seq = seq};
    r->content_bytes = r->payload_bytes = (uint32_t)(end - at - sizeof *r);
    mn_record_seal(r, b->salt, b->damage->offset + at);
}

/* With a whole footer all is known but the bytes of what is lost. */
static bool rebuild_listed(struct rebuilt *b)
{
    const struct mn_batch_footer *footer = b->damage->footer;
    const uint32_t *at = mn_footer_records(footer);
    uint64_t seq = footer->first_seq;
    memcpy(b->record_at, at, footer->records * sizeof *at);
    memcpy(b->touches, mn_footer_touches(footer), footer->touched * sizeof *b->touches);
    for (uint32_t i = 0; i < footer->records; i++) {
        uint64_t end = i + 1 < footer->records ? at[i + 1] : footer->records_end;
        const struct mn_record *r = headed_record(b, at[i], footer->records_end);
        seq = r ? r->seq : seq;
        if (is_whole(b, r, at[i]))
            continue;
        if (at[i] % MN_RECORD_ALIGN != 0 || end > footer->records_end || end < at[i] + sizeof *r)
            return false;
        put_lost(b, at[i], end, seq);
    }
    b->frame.records = footer->records;
    b->frame.touched = footer->touched;
    b->frame.records_end = footer->records_end;
    b->frame.footer_at = b->footer_at;
    return true;
}

static uint64_t footer_room(const struct rebuilt *b, uint32_t more_records, uint64_t footer_at)
{
    uint64_t blocks = (footer_at + MN_WAL_BLOCK - 1) / MN_WAL_BLOCK;
    return mn_footer_bytes(b->frame.touched, b->frame.records + more_records, blocks) + 4;
}

static void keep_record(struct rebuilt *b, const struct mn_record *r, uint64_t at)
{
    b->frame.touched += mn_record_touches(r, b->frame.records, b->touches + b->frame.touched);
    b->record_at[b->frame.records++] = (uint32_t)at;
}

/* Notes [at, end) as lost when a record can have stood there; `r`: its header, when that is whole. */
static void lose(struct rebuilt *b, uint64_t at, uint64_t end, const struct mn_record *r, uint64_t seq)
{
    if (end < at + sizeof *r)
        return;
    if (r && r->op == MN_RECORD_PUT)
        b->frame.touched += mn_record_touches(r, b->frame.records, b->touches + b->frame.touched);
    put_lost(b, at, end, seq);
    b->record_at[b->frame.records++] = (uint32_t)at;
}

/* Without a footer records are where they are found, and something is lost in each gap between them. */
static bool rebuild_found(struct rebuilt *b)
{
    uint64_t end = b->footer_at ? b->footer_at : b->damage->bytes, used = sizeof(struct mn_batch_header), at = used;
    uint64_t seq = b->damage->first_seq;
    while (at + sizeof(struct mn_record) <= end) {
        const struct mn_record *r = headed_record(b, at, end);
        if (!r) {
            at += MN_RECORD_ALIGN;
            continue;
        }
        uint64_t behind = at + sizeof *r + r->payload_bytes;
        lose(b, used, at, NULL, seq);
        seq = r->seq;
        if (is_whole(b, r, at))
            keep_record(b, r, at);
        else
            lose(b, at, behind, r, seq);
        used = at = behind;
    }
    uint64_t footer_at =
        b->footer_at ? b->footer_at : (b->damage->bytes - footer_room(b, 1, end)) / MN_RECORD_ALIGN * MN_RECORD_ALIGN;
    if (footer_at < used || footer_at + footer_room(b, 1, footer_at) > mn_round_up(b->damage->bytes, MN_WAL_BLOCK))
        return false;
    bool complete = b->damage->header && b->frame.records == b->damage->header->records;
    if (!complete && footer_at >= used + sizeof(struct mn_record)) {
        lose(b, used, footer_at, NULL, seq);
        used = footer_at;
    }
    b->frame.records_end = used;
    b->frame.footer_at = footer_at;
    b->frame.last_seq = b->frame.last_seq ? b->frame.last_seq : seq;
    return b->frame.records > 0;
}

/* False: the stretch stays as it is. */
static bool rebuild(const struct mn_wal_segment *segment, const struct mn_wal_damage *d, uint8_t *bytes)
{
    uint64_t end = segment->header.bytes - MN_WAL_BLOCK;
    const struct mn_batch_header *next = (const void *)(bytes + d->offset + d->bytes);
    bool followed =
        d->offset + d->bytes < end && mn_batch_header_valid(next, segment->header.salt, d->offset + d->bytes, end);
    struct rebuilt b = {.damage = d, .batch = bytes + d->offset, .salt = segment->header.salt};
    b.footer_at = d->header   ? d->header->footer_at
                  : d->footer ? (uint64_t)((const uint8_t *)d->footer - segment->base) - d->offset
                              : 0;
    b.record_at = malloc((d->bytes / sizeof(struct mn_record) + 2) * sizeof *b.record_at);
    b.touches = malloc((d->bytes / sizeof(struct mn_id) + 2) * sizeof *b.touches);
    b.frame = (struct mn_batch_frame){.first_seq = d->first_seq,
                                      .last_seq = d->last_seq,
                                      .durable_seq = d->header ? d->header->durable_seq : d->first_seq - 1,
                                      .prev_chain = d->header ? d->header->prev_chain : 0,
                                      .chain = d->footer  ? d->footer->chain
                                               : followed ? next->prev_chain
                                                          : 0,
                                      .wall_ns = d->header ? d->header->wall_ns : 0,
                                      .record_at = b.record_at,
                                      .touches = b.touches,
                                      .bytes = d->bytes};
    bool done = b.record_at && b.touches && (d->footer ? rebuild_listed(&b) : rebuild_found(&b));
    if (done)
        mn_batch_seal(b.batch, d->offset, b.salt, &b.frame);
    free(b.record_at);
    free(b.touches);
    return done;
}

/* ---- a segment written anew ---- */

/* Each batch says what came before it; where that was written anew without its old chain, it says so anew. */
static void chain_batches(const struct mn_wal_header *header, uint8_t *bytes)
{
    uint64_t end = header->bytes - MN_WAL_BLOCK, step;
    uint64_t chain = 0;
    bool known = false;
    for (uint64_t at = MN_WAL_BLOCK; at < end; at += step) {
        struct mn_batch_header *h = (struct mn_batch_header *)(void *)(bytes + at);
        step = MN_WAL_BLOCK;
        bool whole = mn_batch_header_valid(h, header->salt, at, end);
        struct mn_batch_footer *footer = (struct mn_batch_footer *)(void *)(bytes + at + (whole ? h->footer_at : 0));
        whole = whole && mn_batch_footer_valid(footer, header->salt, at, at + h->footer_at, h->footer_bytes);
        if (whole && known && h->prev_chain != chain) {
            struct mn_batch_frame frame = {.first_seq = h->first_seq,
                                           .last_seq = h->last_seq,
                                           .durable_seq = h->durable_seq,
                                           .prev_chain = chain,
                                           .chain = footer->chain,
                                           .wall_ns = h->wall_ns,
                                           .record_at = mn_footer_records(footer),
                                           .records = footer->records,
                                           .touches = mn_footer_touches(footer),
                                           .touched = footer->touched,
                                           .records_end = footer->records_end,
                                           .footer_at = h->footer_at,
                                           .bytes = h->bytes};
            mn_batch_seal(bytes + at, at, header->salt, &frame);
        }
        known = whole;
        if (whole) {
            chain = footer->chain;
            step = h->bytes;
        }
    }
}

static void mend_stretch(const struct mn_wal_segment *segment, const struct mn_wal_damage *damage, uint8_t *bytes)
{
    struct mn_wal_damage d = *damage;
    uint32_t bits;
    uint8_t *at = bytes + d.offset;
    if (d.bytes == 0) { /* the end of a file that was cut: a block says what it held */
        d.bytes = MN_WAL_BLOCK;
        d.records_end = d.offset + d.bytes;
        if (d.offset + d.bytes <= segment->header.bytes - MN_WAL_BLOCK && mn_wal_zero(at, d.bytes))
            rebuild(segment, &d, bytes);
        return;
    }
    uint8_t *as_it_is = malloc(d.bytes);
    if (as_it_is)
        memcpy(as_it_is, at, d.bytes);
    if (as_it_is && !mn_wal_mend_bits(segment, &d, at, &bits)) {
        memcpy(at, as_it_is, d.bytes);
        if (!rebuild(segment, &d, bytes))
            memcpy(at, as_it_is, d.bytes); /* and it is told of at each recovery */
    }
    free(as_it_is);
}

/* Where nothing is known to have stood, what the disk could not read is as it was prepared. */
static void clear_unread(const struct mn_wal_segment *segment, uint8_t *bytes, uint64_t here)
{
    struct mn_wal_segment made = *segment;
    made.base = bytes;
    made.bytes = here;
    for (uint64_t at = 0; segment->unread > 0 && at + MN_WAL_BLOCK <= here; at += MN_WAL_BLOCK)
        if (mn_wal_unread(&made, at, MN_WAL_BLOCK) > 0)
            memset(bytes + at, 0, MN_WAL_BLOCK);
}

static enum mn_status write_pieces(const struct mn_io *io, int fd, const uint8_t *bytes, uint64_t length)
{
    MN_TRY(io->reserve(fd, length));
    for (uint64_t at = 0; at < length; at += PIECE_BYTES) {
        uint64_t piece = length - at < PIECE_BYTES ? length - at : PIECE_BYTES;
        if (!mn_wal_zero(bytes + at, piece)) /* what is reserved is zero */
            MN_TRY(io->write(fd, bytes + at, piece, at));
    }
    return io->datasync(fd);
}

static enum mn_status replace_segment(const struct mn_wal_segment *segment, const uint8_t *bytes)
{
    const struct mn_io *io = segment->store->io;
    char path[MN_PATH_MAX], temporary[MN_PATH_MAX + 8], folder[MN_PATH_MAX];
    int fd;
    mn_store_wal_path(segment->store, path, segment->number);
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    enum mn_status status = io->unlink(temporary); /* of a try that was cut short */
    if (status != MN_OK && status != MN_NOT_FOUND)
        return status;
    MN_TRY(io->open(temporary, MN_IO_WRITE | MN_IO_CREATE, &fd));
    status = write_pieces(io, fd, bytes, segment->header.bytes);
    io->close(fd);
    if (status == MN_OK) {
        MN_FAULT_POINT(recovery_mended);
        status = io->rename(temporary, path);
    }
    if (status != MN_OK) {
        enum mn_status removed = io->unlink(temporary); /* gives the space of a failed try back */
        return removed == MN_OK ? status : mn_error_pass(status, __FILE__, __LINE__);
    }
    MN_FAULT_POINT(recovery_mended_renamed);
    return io->sync_dir(mn_store_path(segment->store, folder, "wal"));
}

enum mn_status mn_wal_mend(const struct mn_wal_segment *segment, const struct mn_wal_damage *damages, uint32_t count)
{
    const struct mn_wal_header *header = &segment->header;
    uint64_t here = segment->bytes < header->bytes ? segment->bytes : header->bytes;
    uint8_t *bytes = aligned_alloc(MN_WAL_BLOCK, mn_round_up(header->bytes, MN_WAL_BLOCK));
    if (!bytes)
        return MN_FAIL(MN_INTERNAL, "no memory to mend a log segment");
    memcpy(bytes, segment->base, here);
    memset(bytes + here, 0, header->bytes - here);
    uint8_t *last = bytes + (header->bytes / MN_WAL_BLOCK - 1) * MN_WAL_BLOCK;
    memset(bytes, 0, MN_WAL_BLOCK);
    memset(last, 0, (size_t)(bytes + header->bytes - last));
    memcpy(bytes, header, sizeof *header);
    memcpy(last, header, sizeof *header);
    for (uint32_t i = count; i-- > 0;) /* from behind: a batch learns its chain from the one that follows */
        if (damages[i].salvaged)
            mend_stretch(segment, &damages[i], bytes);
    chain_batches(header, bytes);
    clear_unread(segment, bytes, here);
    enum mn_status status = replace_segment(segment, bytes);
    free(bytes);
    return status;
}
