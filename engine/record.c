/*
 * record.c - encoding a batch of records, and the checks that every reader of the log makes.
 */
#include "engine/record.h"

#include "engine/crc.h"

static uint32_t seed_of(uint32_t salt, uint64_t offset)
{
    return salt ^ (uint32_t)offset;
}

static uint64_t blocks_of(uint64_t bytes)
{
    return (bytes + MN_WAL_BLOCK - 1) / MN_WAL_BLOCK;
}

uint64_t mn_batch_bytes(uint64_t bytes, uint32_t records, uint64_t touched)
{
    uint64_t footer_at = mn_round_up(sizeof(struct mn_batch_header) + bytes, MN_WAL_BLOCK);
    uint64_t footer = mn_footer_bytes(0, records, blocks_of(footer_at)) + touched * sizeof(struct mn_batch_touch) + 4;
    return footer_at + mn_round_up(footer, MN_WAL_BLOCK);
}

void mn_batch_begin(struct mn_batch *batch, uint64_t offset, uint32_t salt)
{
    batch->offset = offset;
    batch->salt = salt;
    batch->at = sizeof(struct mn_batch_header);
    batch->records = batch->touched = 0;
    batch->takes = false;
    batch->first_seq = batch->last_seq = 0;
}

static uint8_t *put_bytes(uint8_t *to, const void *from, uint32_t bytes)
{
    if (bytes > 0)
        memcpy(to, from, bytes);
    return to + bytes;
}

static uint8_t *pad_to(uint8_t *to, const uint8_t *base)
{
    uint64_t used = (uint64_t)(to - base), padded = mn_round_up(used, MN_RECORD_ALIGN);
    memset(to, 0, padded - used);
    return to + (padded - used);
}

uint32_t mn_record_touches(const struct mn_record *r, uint32_t number, struct mn_batch_touch *touches)
{
    struct mn_batch_touch touch = {
        .space_hash = r->space_hash, .record = number, .op = (uint8_t)r->op, .flags = r->flags};
    if (r->op != MN_RECORD_PUT && r->op != MN_RECORD_FORGET)
        return 0;
    const uint8_t *ids = (const uint8_t *)r + mn_record_fields(r).content;
    uint32_t count = r->op == MN_RECORD_PUT ? 1 : MN_CONTENT_LENGTH(r->content_bytes) / (uint32_t)sizeof(struct mn_id);
    for (uint32_t i = 0; touches && i < count; i++) {
        struct mn_id id = r->id;
        if (r->op == MN_RECORD_FORGET)
            memcpy(&id, ids + i * sizeof id, sizeof id);
        touches[i] = touch;
        touches[i].hi = id.hi;
        touches[i].lo = id.lo;
        touches[i].kind = (uint8_t)id.kind;
    }
    return count;
}

void mn_record_seal(struct mn_record *r, uint32_t salt, uint64_t offset)
{
    r->payload_crc = mn_crc32c(seed_of(salt, offset), r + 1, r->payload_bytes);
    r->crc = mn_crc32c(seed_of(salt, offset), r, offsetof(struct mn_record, crc));
}

uint64_t mn_batch_add(struct mn_batch *batch, const struct mn_record *record, const struct mn_record_parts *parts)
{
    uint64_t offset = batch->offset + batch->at;
    uint8_t *base = batch->data + batch->at;
    struct mn_record *r = (struct mn_record *)(void *)base;
    *r = *record;
    uint8_t *to = put_bytes((uint8_t *)(r + 1), parts->vector, parts->vector_bytes);
    to = pad_to(to, base);
    to = put_bytes(to, parts->space.data, parts->space.length);
    uint8_t *tags = to;
    for (uint32_t i = 0; i < parts->tag_count; i++) {
        uint16_t length = (uint16_t)parts->tags[i].length;
        to = put_bytes(to, &length, sizeof length);
        to = put_bytes(to, parts->tags[i].data, length);
    }
    r->tags_bytes = (uint32_t)(to - tags);
    to = put_bytes(to, parts->meta.data, parts->meta.length);
    to = put_bytes(to, parts->content.data, parts->content.length);
    to = pad_to(to, base);
    r->magic = MN_RECORD_MAGIC;
    r->vector_bytes = parts->vector_bytes;
    r->space_bytes = parts->space.length;
    r->tag_count = parts->tag_count;
    r->meta_bytes = parts->meta.length;
    r->content_bytes = parts->content.length | parts->content_flags;
    r->payload_bytes = (uint32_t)(to - base - (ptrdiff_t)sizeof *r);
    mn_record_seal(r, batch->salt, offset);
    batch->touched += mn_record_touches(r, 0, NULL);
    batch->takes |= r->op == MN_RECORD_FORGET;
    if (batch->records == 0)
        batch->first_seq = r->seq;
    batch->last_seq = r->seq;
    batch->record_at[batch->records++] = (uint32_t)batch->at;
    batch->at += (uint64_t)(to - base);
    return offset;
}

/* Checksums of the blocks of [0, bytes) into crcs. */
static void block_crcs(const uint8_t *data, uint64_t bytes, uint32_t salt, uint64_t offset, uint32_t *crcs)
{
    for (uint64_t at = 0; at < bytes; at += MN_WAL_BLOCK) {
        uint64_t length = bytes - at < MN_WAL_BLOCK ? bytes - at : MN_WAL_BLOCK;
        *crcs++ = mn_crc32c(seed_of(salt, offset + at), data + at, length);
    }
}

uint64_t mn_batch_chain(uint64_t prev_chain, const uint32_t *crcs, uint32_t blocks)
{
    struct mn_str bytes = {(const char *)crcs, blocks * 4};
    struct mn_id link = {.hi = mn_str_hash(bytes), .lo = prev_chain};
    return mn_id_hash(MN_FOOTER_MAGIC,
                      &link); /* not prev_chain: the hash folds it with link.lo, and the two would cancel out */
}

uint64_t mn_batch_seal(uint8_t *data, uint64_t offset, uint32_t salt, const struct mn_batch_frame *f)
{
    struct mn_batch_header *header = (struct mn_batch_header *)(void *)data;
    struct mn_batch_footer *footer = (struct mn_batch_footer *)(void *)(data + f->footer_at);
    uint32_t blocks = (uint32_t)blocks_of(f->footer_at);
    uint64_t footer_bytes = mn_footer_bytes(f->touched, f->records, blocks);
    *header = (struct mn_batch_header){.magic = MN_BATCH_MAGIC,
                                       .first_seq = f->first_seq,
                                       .last_seq = f->last_seq,
                                       .durable_seq = f->durable_seq,
                                       .prev_chain = f->prev_chain,
                                       .wall_ns = f->wall_ns,
                                       .bytes = (uint32_t)f->bytes,
                                       .footer_at = (uint32_t)f->footer_at,
                                       .records = f->records,
                                       .footer_bytes = (uint32_t)footer_bytes + 4};
    header->crc = mn_crc32c(seed_of(salt, offset), header, offsetof(struct mn_batch_header, crc));
    memset(data + f->records_end, 0, f->footer_at - f->records_end);
    if (f->touched > 0)
        memmove(footer + 1, f->touches, f->touched * sizeof *f->touches);
    footer->touched = f->touched;
    footer->records = f->records;
    uint32_t *offsets = (uint32_t *)(uintptr_t)mn_footer_records(footer), *crcs = offsets + f->records;
    memcpy(offsets, f->record_at, (size_t)f->records * 4);
    block_crcs(data, f->footer_at, salt, offset, crcs);
    uint64_t chain = f->chain ? f->chain : mn_batch_chain(f->prev_chain, crcs, blocks);
    *footer = (struct mn_batch_footer){.magic = MN_FOOTER_MAGIC,
                                       .chain = chain,
                                       .first_seq = f->first_seq,
                                       .last_seq = f->last_seq,
                                       .records = f->records,
                                       .blocks = blocks,
                                       .touched = f->touched,
                                       .records_end = (uint32_t)f->records_end};
    crcs[blocks] = mn_crc32c(seed_of(salt, offset + f->footer_at), footer, footer_bytes);
    uint64_t used = f->footer_at + footer_bytes + 4;
    memset(data + used, 0, f->bytes - used);
    return chain;
}

uint64_t mn_batch_finish(struct mn_batch *batch, uint64_t durable_seq, int64_t wall_ns, uint64_t *chain)
{
    struct mn_batch_frame frame = {.first_seq = batch->first_seq,
                                   .last_seq = batch->last_seq,
                                   .durable_seq = durable_seq,
                                   .prev_chain = *chain,
                                   .wall_ns = wall_ns,
                                   .record_at = batch->record_at,
                                   .records = batch->records,
                                   .touched = batch->touched,
                                   .records_end = batch->at};
    frame.footer_at = batch->takes ? mn_round_up(batch->at, MN_WAL_BLOCK) : batch->at;
    uint64_t footer_bytes = mn_footer_bytes(batch->touched, batch->records, blocks_of(frame.footer_at)) + 4;
    frame.bytes = mn_round_up(frame.footer_at + footer_bytes, MN_WAL_BLOCK);
    struct mn_batch_touch *touches =
        (struct mn_batch_touch *)(void *)(batch->data + frame.footer_at + sizeof(struct mn_batch_footer));
    frame.touches = touches;
    for (uint32_t i = 0; i < batch->records; i++)
        touches += mn_record_touches((const void *)(batch->data + batch->record_at[i]), i, touches);
    *chain = mn_batch_seal(batch->data, batch->offset, batch->salt, &frame);
    return frame.bytes;
}

void mn_wal_header_seal(struct mn_wal_header *header)
{
    header->crc = mn_crc32c(0, header, offsetof(struct mn_wal_header, crc));
}

bool mn_wal_header_whole(const struct mn_wal_header *h)
{
    return h->magic == MN_WAL_MAGIC && h->crc == mn_crc32c(0, h, offsetof(struct mn_wal_header, crc));
}

bool mn_wal_header_valid(const struct mn_wal_header *h, const uint8_t store_uuid[16], uint64_t number, uint64_t bytes)
{
    return mn_wal_header_whole(h) && h->format == MN_WAL_FORMAT && memcmp(h->store_uuid, store_uuid, 16) == 0 &&
           h->number == number && h->bytes == bytes;
}

bool mn_batch_header_valid(const struct mn_batch_header *h, uint32_t salt, uint64_t offset, uint64_t segment_bytes)
{
    if (h->magic != MN_BATCH_MAGIC ||
        h->crc != mn_crc32c(seed_of(salt, offset), h, offsetof(struct mn_batch_header, crc)))
        return false;
    return h->bytes % MN_WAL_BLOCK == 0 && h->bytes <= segment_bytes - offset && h->footer_at >= sizeof *h &&
           h->footer_at % MN_RECORD_ALIGN == 0 && h->footer_at <= h->bytes &&
           h->footer_bytes <= h->bytes - h->footer_at && h->footer_bytes >= sizeof(struct mn_batch_footer) + 12 &&
           h->first_seq <= h->last_seq && h->records > 0;
}

bool mn_batch_footer_valid(const struct mn_batch_footer *footer, uint32_t salt, uint64_t offset, uint64_t at,
                           uint64_t room)
{
    uint32_t crc;
    if (room < sizeof *footer + sizeof crc || footer->magic != MN_FOOTER_MAGIC)
        return false;
    uint64_t bytes = mn_footer_bytes(footer->touched, footer->records, footer->blocks);
    if (bytes > room - sizeof crc || footer->blocks != blocks_of(at - offset) || footer->records_end > at - offset ||
        footer->records_end < sizeof(struct mn_batch_header))
        return false;
    memcpy(&crc, (const uint8_t *)footer + bytes, sizeof crc);
    return crc == mn_crc32c(seed_of(salt, at), footer, bytes);
}

bool mn_record_header_valid(const struct mn_record *r, uint32_t salt, uint64_t offset, uint64_t end)
{
    if (end < offset + sizeof *r || r->magic != MN_RECORD_MAGIC ||
        r->crc != mn_crc32c(seed_of(salt, offset), r, offsetof(struct mn_record, crc)))
        return false;
    uint64_t fields = mn_round_up(r->vector_bytes, MN_RECORD_ALIGN) + r->space_bytes + (uint64_t)r->tags_bytes +
                      r->meta_bytes + MN_CONTENT_LENGTH(r->content_bytes);
    return mn_round_up(fields, MN_RECORD_ALIGN) == r->payload_bytes && r->payload_bytes <= end - offset - sizeof *r &&
           r->tag_count <= r->tags_bytes / sizeof(uint16_t);
}

bool mn_record_payload_valid(const struct mn_record *r, uint32_t salt, uint64_t offset)
{
    return r->payload_crc == mn_crc32c(seed_of(salt, offset), r + 1, r->payload_bytes);
}
