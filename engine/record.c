/*
 * record.c - encoding a batch of records, and the checks that every reader of the log makes.
 */
#include "engine/record.h"

#include "engine/crc.h"

static uint32_t seed_of(uint32_t salt, uint64_t offset)
{
    return salt ^ (uint32_t)offset;
}

uint64_t mn_batch_bytes(uint64_t bytes, uint32_t records)
{
    uint64_t footer_at = sizeof(struct mn_batch_header) + bytes;
    uint64_t blocks = (footer_at + MN_WAL_BLOCK - 1) / MN_WAL_BLOCK;
    uint64_t footer = sizeof(struct mn_batch_footer) + 4 * ((uint64_t)records + blocks + 1);
    return mn_round_up(footer_at + footer, MN_WAL_BLOCK);
}

void mn_batch_begin(struct mn_batch *batch, uint64_t offset, uint32_t salt)
{
    batch->offset = offset;
    batch->salt = salt;
    batch->at = sizeof(struct mn_batch_header);
    batch->records = 0;
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
    r->payload_crc = mn_crc32c(seed_of(batch->salt, offset), r + 1, r->payload_bytes);
    r->crc = mn_crc32c(seed_of(batch->salt, offset), r, offsetof(struct mn_record, crc));
    if (batch->records == 0)
        batch->first_seq = r->seq;
    batch->last_seq = r->seq;
    batch->record_at[batch->records++] = (uint32_t)batch->at;
    batch->at += (uint64_t)(to - base);
    return offset;
}

/* Checksums of the blocks of [0, bytes) into crcs; returns their number. */
static uint32_t block_crcs(const uint8_t *data, uint64_t bytes, uint32_t salt, uint64_t offset, uint32_t *crcs)
{
    uint32_t n = 0;
    for (uint64_t at = 0; at < bytes; at += MN_WAL_BLOCK, n++) {
        uint64_t length = bytes - at < MN_WAL_BLOCK ? bytes - at : MN_WAL_BLOCK;
        uint32_t crc = mn_crc32c(seed_of(salt, offset + at), data + at, length);
        memcpy(&crcs[n], &crc, sizeof crc);
    }
    return n;
}

uint64_t mn_batch_chain(uint64_t prev_chain, const uint32_t *crcs, uint32_t blocks)
{
    struct mn_str bytes = {(const char *)crcs, blocks * 4};
    struct mn_id link = {.hi = mn_str_hash(bytes), .lo = prev_chain};
    return mn_id_hash(MN_FOOTER_MAGIC,
                      &link); /* not prev_chain: the hash folds it with link.lo, and the two would cancel out */
}

uint64_t mn_batch_finish(struct mn_batch *batch, uint64_t durable_seq, int64_t wall_ns, uint64_t *chain)
{
    uint64_t footer_at = batch->at;
    struct mn_batch_footer *footer = (struct mn_batch_footer *)(void *)(batch->data + footer_at);
    uint32_t *offsets = (uint32_t *)(void *)(footer + 1);
    uint64_t bytes = mn_batch_bytes(footer_at - sizeof(struct mn_batch_header), batch->records);
    uint32_t blocks = (uint32_t)((footer_at + MN_WAL_BLOCK - 1) / MN_WAL_BLOCK);
    uint32_t *end = offsets + batch->records + blocks;
    struct mn_batch_header *header = (struct mn_batch_header *)(void *)batch->data;
    *header = (struct mn_batch_header){
        .magic = MN_BATCH_MAGIC,
        .first_seq = batch->first_seq,
        .last_seq = batch->last_seq,
        .durable_seq = durable_seq,
        .prev_chain = *chain,
        .wall_ns = wall_ns,
        .bytes = (uint32_t)bytes,
        .footer_at = (uint32_t)footer_at,
        .records = batch->records,
        .footer_bytes = (uint32_t)((uint8_t *)(end + 1) - (uint8_t *)footer),
    };
    header->crc = mn_crc32c(seed_of(batch->salt, batch->offset), header, offsetof(struct mn_batch_header, crc));
    memcpy(offsets, batch->record_at, (size_t)batch->records * 4);
    block_crcs(batch->data, footer_at, batch->salt, batch->offset, offsets + batch->records);
    *chain = mn_batch_chain(*chain, offsets + batch->records, blocks);
    *footer = (struct mn_batch_footer){MN_FOOTER_MAGIC, *chain, batch->records, blocks};
    *end = mn_crc32c(seed_of(batch->salt, batch->offset + footer_at), footer,
                     (size_t)((uint8_t *)end - (uint8_t *)footer));
    uint8_t *used = (uint8_t *)(end + 1);
    memset(used, 0, (size_t)(batch->data + bytes - used));
    return bytes;
}

void mn_wal_header_seal(struct mn_wal_header *header)
{
    header->crc = mn_crc32c(0, header, offsetof(struct mn_wal_header, crc));
}

bool mn_wal_header_valid(const struct mn_wal_header *h, const uint8_t store_uuid[16], uint64_t number, uint64_t bytes)
{
    return h->magic == MN_WAL_MAGIC && h->crc == mn_crc32c(0, h, offsetof(struct mn_wal_header, crc)) &&
           h->format == MN_WAL_FORMAT && memcmp(h->store_uuid, store_uuid, 16) == 0 && h->number == number &&
           h->bytes == bytes;
}

bool mn_batch_header_valid(const struct mn_batch_header *h, uint32_t salt, uint64_t offset, uint64_t segment_bytes)
{
    if (h->magic != MN_BATCH_MAGIC ||
        h->crc != mn_crc32c(seed_of(salt, offset), h, offsetof(struct mn_batch_header, crc)))
        return false;
    return h->bytes % MN_WAL_BLOCK == 0 && h->bytes <= segment_bytes - offset && h->footer_at >= sizeof *h &&
           h->footer_at <= h->bytes && h->footer_bytes <= h->bytes - h->footer_at &&
           h->footer_bytes >= sizeof(struct mn_batch_footer) + 8 && h->first_seq <= h->last_seq && h->records > 0;
}

bool mn_batch_footer_valid(const struct mn_batch_header *h, uint32_t salt, uint64_t offset)
{
    const struct mn_batch_footer *footer =
        (const struct mn_batch_footer *)(const void *)((const uint8_t *)h + h->footer_at);
    uint64_t blocks = ((uint64_t)h->footer_at + MN_WAL_BLOCK - 1) / MN_WAL_BLOCK;
    uint64_t bytes = sizeof *footer + 4 * ((uint64_t)h->records + blocks + 1);
    if (footer->magic != MN_FOOTER_MAGIC || footer->records != h->records || footer->blocks != blocks ||
        bytes != h->footer_bytes)
        return false;
    uint32_t crc;
    memcpy(&crc, (const uint8_t *)footer + bytes - 4, 4);
    return crc == mn_crc32c(seed_of(salt, offset + h->footer_at), footer, bytes - 4);
}

bool mn_record_header_valid(const struct mn_record *r, uint32_t salt, uint64_t offset, uint64_t end)
{
    if (end < offset + sizeof *r || r->magic != MN_RECORD_MAGIC ||
        r->crc != mn_crc32c(seed_of(salt, offset), r, offsetof(struct mn_record, crc)))
        return false;
    uint64_t fields = mn_round_up(r->vector_bytes, MN_RECORD_ALIGN) + r->space_bytes + (uint64_t)r->tags_bytes +
                      r->meta_bytes + MN_CONTENT_LENGTH(r->content_bytes);
    return mn_round_up(fields, MN_RECORD_ALIGN) == r->payload_bytes && r->payload_bytes <= end - offset - sizeof *r;
}

bool mn_record_payload_valid(const struct mn_record *r, uint32_t salt, uint64_t offset)
{
    return r->payload_crc == mn_crc32c(seed_of(salt, offset), r + 1, r->payload_bytes);
}
