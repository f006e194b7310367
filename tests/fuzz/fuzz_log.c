/*
 * fuzz_log.c - any bytes as a log segment: scanning returns, reads nothing outside of it, and what it hands out as a
 * whole record can be put into a tail chunk's row without reading outside the record.
 *
 * Checksums would keep a fuzzer at the gate. The first byte says how they are passed. Even: the input is a recipe,
 * batches of records with arbitrary fields, sealed as the writer seals them, and then bytes of the finished segment
 * overwritten. Odd: it is the batches themselves, and every header, record and footer in them gets a right checksum
 * whatever it says; each batch of the corpus was written by a real writer (tests/fuzz/seeds).
 */
#include "engine/crc.h"
#include "engine/wal.h"

#include <stdlib.h>

#define SEGMENT_BYTES (64u << 10)
#define RECORDS_MAX   8u
#define DIM           4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct recipe {
    const uint8_t *at;
    size_t left;
};

static uint32_t take(struct recipe *r, uint32_t bytes)
{
    uint32_t value = 0;
    uint32_t n = r->left < bytes ? (uint32_t)r->left : bytes;
    if (n > 0)
        memcpy(&value, r->at, n);
    r->at += n;
    r->left -= n;
    return value;
}

static struct mn_str take_text(struct recipe *r)
{
    uint32_t length = take(r, 1);
    length = length < r->left ? length : (uint32_t)r->left;
    struct mn_str text = {(const char *)r->at, length};
    r->at += length;
    r->left -= length;
    return text;
}

static void add_record(struct recipe *r, struct mn_batch *batch, uint64_t seq)
{
    float vector[DIM] = {(float)take(r, 1), 1, 2, 3};
    struct mn_str tags[2] = {take_text(r), take_text(r)};
    struct mn_record record = {.op = (uint16_t)(1 + take(r, 1) % 4), .seq = seq, .id = {.lo = take(r, 2)}};
    struct mn_record_parts parts = {.vector = vector,
                                    .vector_bytes = take(r, 1) % 4 == 0 ? 0 : sizeof vector,
                                    .space = take_text(r),
                                    .meta = take_text(r),
                                    .content = take_text(r),
                                    .tags = tags,
                                    .tag_count = take(r, 1) % 3,
                                    .content_flags = take(r, 1) % 2 ? MN_CONTENT_BIN : 0};
    mn_batch_add(batch, &record, &parts);
}

/* Batches behind the header; returns where they end. */
static uint64_t write_batches(struct recipe *r, uint8_t *segment, uint32_t salt)
{
    uint64_t offset = MN_WAL_BLOCK, chain = 0, seq = 1;
    static uint32_t record_at[RECORDS_MAX];
    while (r->left > 32 && offset + (24u << 10) < SEGMENT_BYTES) {
        struct mn_batch batch = {
            .data = segment + offset, .bytes_max = 24u << 10, .record_at = record_at, .records_max = RECORDS_MAX};
        mn_batch_begin(&batch, offset, salt);
        for (uint32_t n = 1 + take(r, 1) % RECORDS_MAX; n > 0 && batch.at < (12u << 10); n--)
            add_record(r, &batch, seq++);
        offset += mn_batch_finish(&batch, seq, 1, &chain);
    }
    return offset;
}

/* Overwrites what the recipe says. */
static void overwrite(struct recipe *r, uint8_t *segment, uint64_t end)
{
    for (uint32_t n = take(r, 1) % 8; n > 0; n--) {
        uint64_t at = take(r, 2) % end;
        segment[at] ^= (uint8_t)take(r, 1);
    }
}

/* ---- batches as they are ---- */

static void seal_batch_header(uint8_t *segment, uint64_t at, uint32_t salt)
{
    struct mn_batch_header *header = (struct mn_batch_header *)(void *)(segment + at);
    header->crc = mn_crc32c(salt ^ (uint32_t)at, header, offsetof(struct mn_batch_header, crc));
}

/* Its arrays may lie anywhere: only what is inside of the segment is sealed. */
static void seal_footer(uint8_t *segment, uint64_t at, uint64_t batch, uint32_t salt)
{
    struct mn_batch_footer *footer = (struct mn_batch_footer *)(void *)(segment + at);
    const struct mn_batch_header *header = (const struct mn_batch_header *)(const void *)(segment + batch);
    uint64_t bytes = mn_footer_bytes(footer->touched, footer->records, footer->blocks);
    if (bytes > SEGMENT_BYTES - at - sizeof(uint32_t))
        return;
    uint32_t *crcs = (uint32_t *)(uintptr_t)mn_footer_block_crcs(footer);
    for (uint64_t i = 0, from = batch; i < footer->blocks && from < at; i++, from += MN_WAL_BLOCK)
        crcs[i] = mn_crc32c(salt ^ (uint32_t)from, segment + from, at - from < MN_WAL_BLOCK ? at - from : MN_WAL_BLOCK);
    footer->chain = mn_batch_chain(header->prev_chain, crcs, footer->blocks);
    uint32_t crc = mn_crc32c(salt ^ (uint32_t)at, footer, bytes);
    memcpy(segment + at + bytes, &crc, sizeof crc);
}

static void seal_record(uint8_t *segment, uint64_t at, uint32_t salt)
{
    struct mn_record *record = (struct mn_record *)(void *)(segment + at);
    uint32_t payload = record->payload_bytes, most = SEGMENT_BYTES - (uint32_t)at - (uint32_t)sizeof *record;
    if (payload <= most) {
        mn_record_seal(record, salt, at);
        return;
    }
    record->crc = mn_crc32c(salt ^ (uint32_t)at, record, offsetof(struct mn_record, crc));
}

/* Batches begin at blocks, records and footers at multiples of 64: what has the mark of one is taken for it. */
static void write_image(struct recipe *r, uint8_t *segment, uint32_t salt)
{
    uint64_t room = SEGMENT_BYTES - 2 * MN_WAL_BLOCK, bytes = r->left < room ? r->left : room, batch = MN_WAL_BLOCK;
    memcpy(segment + MN_WAL_BLOCK, r->at, bytes);
    for (uint64_t at = MN_WAL_BLOCK; at + sizeof(struct mn_record) <= MN_WAL_BLOCK + bytes; at += MN_RECORD_ALIGN) {
        uint64_t magic;
        memcpy(&magic, segment + at, sizeof magic);
        if (magic == MN_BATCH_MAGIC && at % MN_WAL_BLOCK == 0)
            seal_batch_header(segment, batch = at, salt);
        else if (magic == MN_FOOTER_MAGIC)
            seal_footer(segment, at, batch, salt);
        else if ((uint32_t)magic == MN_RECORD_MAGIC)
            seal_record(segment, at, salt);
    }
}

/* ---- looking at it ---- */

static enum mn_status visit_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                   uint64_t offset)
{
    uint64_t *sum = context;
    const uint8_t *bytes = (const uint8_t *)record;
    MN_ASSERT(offset + sizeof *record + record->payload_bytes <= segment->bytes);
    for (uint32_t i = 0; i < sizeof *record + record->payload_bytes; i++)
        *sum += bytes[i];
    struct mn_record_fields f = mn_record_fields(record);
    MN_ASSERT(f.content + MN_CONTENT_LENGTH(record->content_bytes) <= sizeof *record + record->payload_bytes);
    return MN_OK;
}

static enum mn_status visit_lost(void *context, const struct mn_wal_segment *segment, const struct mn_wal_lost *lost)
{
    uint64_t *sum = context;
    *sum += lost->seq + (lost->header ? lost->header->seq : 0);
    for (uint32_t i = 0; i < lost->touched; i++)
        *sum += lost->touches[i].lo;
    return MN_OK;
}

static enum mn_status visit_damage(void *context, const struct mn_wal_segment *segment,
                                   const struct mn_wal_damage *damage)
{
    uint64_t *sum = context;
    MN_ASSERT(damage->offset <= segment->bytes && damage->what);
    *sum += damage->bytes;
    return MN_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct recipe r = {data, size};
    static struct mn_store store = {.dim = DIM};
    uint8_t *bytes = aligned_alloc(MN_WAL_BLOCK, SEGMENT_BYTES); /* of its own: the sanitizer sees each step outside */
    if (!bytes)
        return 0;
    memset(bytes, 0, SEGMENT_BYTES);
    bool image = take(&r, 1) % 2 != 0;
    uint32_t salt = take(&r, 4);
    struct mn_wal_segment segment = {.store = &store,
                                     .number = 1,
                                     .bytes = SEGMENT_BYTES,
                                     .base = bytes,
                                     .header = {.salt = salt, .dim = DIM, .bytes = SEGMENT_BYTES, .number = 1}};
    uint64_t sum = 0;
    if (image)
        write_image(&r, bytes, salt);
    else
        overwrite(&r, bytes, write_batches(&r, bytes, salt));
    struct mn_wal_extent extent;
    struct mn_wal_visitor visitor = {
        .context = &sum, .record = visit_record, .lost = visit_lost, .damage = visit_damage};
    if (mn_wal_scan(&segment, &visitor, &extent) == MN_OK)
        MN_ASSERT(extent.end <= SEGMENT_BYTES);
    free(bytes);
    return 0;
}
