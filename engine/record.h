/*
 * record.h - the format of the log, byte by byte. Part of the store's format: numbers are never reused.
 *
 *   segment  block 0: header; batches; last block: the header again.            blocks are 4 KiB
 *   batch    4 KiB aligned: header | records, 64-byte aligned | footer | zeros up to the next block
 *   record   header | embedding, padded to 64 | space | tags | meta | content | zeros up to 64
 *   footer   header | ids that the records touch | record offsets | block checksums | its own checksum
 *
 * A batch that takes something away (a forget, a version that replaces another) has its footer in blocks of its own:
 * the ids stand there a second time, and no single block that is lost takes both. So what a damaged record took away
 * stays away, though the record cannot be read.
 *
 * CRC32C everywhere, seeded with the segment's salt ^ the offset in the segment, so that stale and misplaced bytes
 * show. Every struct is little-endian, as the machines we run on are.
 */
#ifndef MN_ENGINE_RECORD_H
#define MN_ENGINE_RECORD_H

#include "engine/shared.h"

#define MN_WAL_BLOCK    4096u
#define MN_WAL_MAGIC    UINT64_C(0x31304c41574d4e4d)
#define MN_BATCH_MAGIC  UINT64_C(0x3130484354424e4d)
#define MN_FOOTER_MAGIC UINT64_C(0x313052544f464e4d)
#define MN_RECORD_MAGIC UINT32_C(0x31434552)
#define MN_WAL_FORMAT   2
#define MN_RECORD_ALIGN 64u

/* In block 0 and again in the last block of a segment. */
struct mn_wal_header {
    uint64_t magic;
    uint32_t format;
    uint32_t dim;
    uint8_t store_uuid[16];
    uint64_t number;
    uint64_t bytes; /* of the segment file */
    uint64_t first_seq;
    uint64_t prev_number, prev_last_seq, prev_chain; /* the segment before: a missing one shows */
    uint32_t salt;
    uint32_t crc; /* of all before, seed 0 */
};
_Static_assert(sizeof(struct mn_wal_header) == 88, "on disk");

struct mn_batch_header {
    uint64_t magic;
    uint64_t first_seq, last_seq;
    uint64_t durable_seq; /* when this was written: what lies before it and is damaged was durable, so it is rot */
    uint64_t prev_chain;
    int64_t wall_ns;
    uint32_t bytes;     /* of the batch, a multiple of the block */
    uint32_t footer_at; /* offset in the batch */
    uint32_t records;
    uint32_t footer_bytes;
    uint32_t spare[15];
    uint32_t crc; /* of all before */
};
_Static_assert(sizeof(struct mn_batch_header) == 128, "on disk");

/* Followed by what the records touch (struct mn_batch_touch[touched], in their order), record offsets in the batch
 * (uint32_t[records]), block checksums (uint32_t[blocks]), and a crc of all that. */
struct mn_batch_footer {
    uint64_t magic;
    uint64_t chain; /* hash of prev_chain and the block checksums */
    uint64_t first_seq, last_seq;
    uint32_t records;
    uint32_t blocks; /* 4 KiB blocks of header and records; the last one counts up to the footer */
    uint32_t touched;
    uint32_t records_end; /* offset in the batch behind its last record */
};
_Static_assert(sizeof(struct mn_batch_footer) == 48, "on disk");

/* An id that a record puts or forgets. */
struct mn_batch_touch {
    uint64_t space_hash;
    uint64_t hi, lo; /* of the id */
    uint32_t record; /* its number in the batch */
    uint8_t kind;    /* of the id */
    uint8_t op;      /* enum mn_record_op, and the record's flags */
    uint16_t flags;
};
_Static_assert(sizeof(struct mn_batch_touch) == 32, "on disk");

enum mn_record_op {
    MN_RECORD_PUT = 1,    /* a memory: one version, whole */
    MN_RECORD_FORGET = 2, /* content: mn_id[]; mode in `flags` (enum mn_forget_mode) */
    MN_RECORD_IDEM = 3,   /* content: an idem key and its outcome (ledger.c) */
    MN_RECORD_LOST = 4    /* stands where a record was that is damaged for good; the footer tells what it touched */
};
#define MN_RECORD_ASSIGNED 1u /* flag of PUT: the engine gave the id, so the space's counter is past it */

struct mn_record {
    uint32_t magic;
    uint16_t op;
    uint16_t flags;
    uint64_t seq;
    int64_t wall_ns;
    struct mn_id id;
    uint64_t space_hash;
    int64_t at, expires;
    float confidence, scale;
    uint32_t vector_bytes; /* 0 or dim x 4 */
    uint32_t space_bytes;
    uint32_t tag_count, tags_bytes; /* each tag: uint16_t length, bytes */
    uint32_t meta_bytes;
    uint32_t content_bytes; /* with MN_CONTENT_BIN / MN_CONTENT_NONE for PUT */
    uint32_t payload_bytes; /* all behind this header, padding included */
    uint32_t payload_crc;
    uint32_t spare[3];
    uint32_t crc; /* of all before */
};
_Static_assert(sizeof(struct mn_record) == 128, "on disk");

/* Offsets of a record's fields from the record's own offset. */
struct mn_record_fields {
    uint32_t vector, space, tags, meta, content;
};
static inline struct mn_record_fields mn_record_fields(const struct mn_record *r)
{
    struct mn_record_fields f;
    f.vector = sizeof *r;
    f.space = f.vector + (uint32_t)mn_round_up(r->vector_bytes, MN_RECORD_ALIGN);
    f.tags = f.space + r->space_bytes;
    f.meta = f.tags + r->tags_bytes;
    f.content = f.meta + r->meta_bytes;
    return f;
}

/* Bytes that a record with an embedding of `dim` floats (0: none) and `rest` bytes of other payload takes. */
static inline uint64_t mn_record_bytes(uint32_t dim, uint64_t rest)
{
    return sizeof(struct mn_record) +
           mn_round_up(mn_round_up((uint64_t)dim * 4, MN_RECORD_ALIGN) + rest, MN_RECORD_ALIGN);
}

/* The arrays of a whole footer. */
static inline const struct mn_batch_touch *mn_footer_touches(const struct mn_batch_footer *footer)
{
    return (const struct mn_batch_touch *)(const void *)(footer + 1);
}
static inline const uint32_t *mn_footer_records(const struct mn_batch_footer *footer)
{
    return (const uint32_t *)(const void *)(mn_footer_touches(footer) + footer->touched);
}
static inline const uint32_t *mn_footer_block_crcs(const struct mn_batch_footer *footer)
{
    return mn_footer_records(footer) + footer->records;
}
/* All of it but its own checksum. */
static inline uint64_t mn_footer_bytes(uint32_t touched, uint32_t records, uint64_t blocks)
{
    return sizeof(struct mn_batch_footer) + (uint64_t)touched * sizeof(struct mn_batch_touch) +
           4 * ((uint64_t)records + blocks);
}
static inline struct mn_id mn_touch_id(const struct mn_batch_touch *touch)
{
    return (struct mn_id){.hi = touch->hi, .lo = touch->lo, .kind = touch->kind};
}

/* How many ids a whole record touches, and those into touches[] unless that is NULL. */
uint32_t mn_record_touches(const struct mn_record *record, uint32_t number, struct mn_batch_touch *touches);

/* Bytes of a batch of `records` records that take `bytes` and touch `touched` ids, at most: footer and padding
 * included. */
uint64_t mn_batch_bytes(uint64_t bytes, uint32_t records, uint64_t touched);

/* A batch in the making, in a buffer of the writer's. */
struct mn_batch {
    uint8_t *data;
    uint64_t bytes_max;
    uint64_t at;     /* where the next record goes; 0 = not begun */
    uint64_t offset; /* of the batch in its segment */
    uint32_t salt;
    uint32_t *record_at;
    uint32_t records, records_max;
    uint32_t touched; /* ids */
    bool takes;       /* something away: set by a forget, and by whoever adds a version that replaces another */
    uint64_t first_seq, last_seq;
};

/* Begins an empty batch that will stand at `offset` of the segment; data, bytes_max, record_at and records_max are set.
 */
void mn_batch_begin(struct mn_batch *batch, uint64_t offset, uint32_t salt);

/* What a record carries besides its header's plain fields. All lengths in `record` are filled by the call. */
struct mn_record_parts {
    const void *vector;
    uint32_t vector_bytes;
    struct mn_str space, meta, content;
    const struct mn_str *tags;
    uint32_t tag_count;
    uint32_t content_flags;
};
/* Appends a record (op, flags, seq, wall_ns, id, space_hash, at, expires, confidence, scale set) and returns its offset
 * in the segment. The caller has made sure that it fits. */
uint64_t mn_batch_add(struct mn_batch *batch, const struct mn_record *record, const struct mn_record_parts *parts);

/* Footer, checksums and padding; returns the batch's bytes. *chain: in the chain before, out the batch's own. */
uint64_t mn_batch_finish(struct mn_batch *batch, uint64_t durable_seq, int64_t wall_ns, uint64_t *chain);

/* What stands around the records of a batch. */
struct mn_batch_frame {
    uint64_t first_seq, last_seq, durable_seq, prev_chain;
    uint64_t chain; /* 0: what follows from the bytes */
    int64_t wall_ns;
    const uint32_t *record_at; /* offsets in the batch */
    uint32_t records;
    const struct mn_batch_touch *touches; /* may lie where they belong already */
    uint32_t touched;
    uint64_t records_end, footer_at, bytes; /* offsets in the batch; its length */
};
/* Writes header, footer, checksums and zeros around the records that stand in `data`; returns the chain hash. */
uint64_t mn_batch_seal(uint8_t *data, uint64_t offset, uint32_t salt, const struct mn_batch_frame *frame);

/* Checks on mapped bytes; `offset` is the place in the segment. */
bool mn_wal_header_whole(const struct mn_wal_header *header); /* whatever it says */
bool mn_wal_header_valid(const struct mn_wal_header *header, const uint8_t store_uuid[16], uint64_t number,
                         uint64_t bytes);
bool mn_batch_header_valid(const struct mn_batch_header *header, uint32_t salt, uint64_t offset,
                           uint64_t segment_bytes);
/* A footer at `at` of the segment, with `room` bytes from there on, of a batch that begins at `offset`: whole, so its
 * arrays may be trusted. */
bool mn_batch_footer_valid(const struct mn_batch_footer *footer, uint32_t salt, uint64_t offset, uint64_t at,
                           uint64_t room);
/* The chain hash that it must hold. */
uint64_t mn_batch_chain(uint64_t prev_chain, const uint32_t *block_crcs, uint32_t blocks);
/* A record at `offset`, of a stretch that ends at `end`: its header alone, so that its lengths may be trusted; then
 * what is behind it. */
bool mn_record_header_valid(const struct mn_record *record, uint32_t salt, uint64_t offset, uint64_t end);
bool mn_record_payload_valid(const struct mn_record *record, uint32_t salt, uint64_t offset);
/* Fills the checksums of a record that stands at `offset`. */
void mn_record_seal(struct mn_record *record, uint32_t salt, uint64_t offset);
void mn_wal_header_seal(struct mn_wal_header *header);

#endif
