/*
 * wal.h - log segments: appending to the active one, preparing the next, scanning what is there.
 */
#ifndef MN_ENGINE_WAL_H
#define MN_ENGINE_WAL_H

#include "engine/columns.h"
#include "engine/record.h"
#include "engine/store.h"

/* ---- scanning ---- */

/* A mapped log segment. */
struct mn_wal_segment {
    const struct mn_store *store;
    uint64_t number, bytes;
    const uint8_t *base;
    struct mn_wal_header header; /* of whichever copy is whole */
    bool unused;                 /* zeros where both headers should be: prepared, never begun */
    bool cut;                    /* shorter than its header says: what is left of it is scanned */
    uint64_t long_by;            /* longer than it was made: what is behind that is no part of it */
    uint64_t unread;             /* blocks that the disk could not read: see mn_wal_reread */
    bool own;                    /* base is memory of our own, no mapping */
    uint64_t durable_seq;        /* known to have been durable, by whoever scans; 0 = only its own bytes say */
};

/* Maps segment `number` and finds its header; where the disk cannot read that block, as mn_wal_reread does. MN_CORRUPT
 * when both copies of the header are damaged (the mapping then stays, header.salt unknown) or the file is too short to
 * have one (base is NULL then). MN_VERSION_MISMATCH when it is whole and of another format. */
enum mn_status mn_wal_map(struct mn_wal_segment *segment, const struct mn_store *store, uint64_t number) MN_MUST_USE;
void mn_wal_unmap(struct mn_wal_segment *segment);
/* After a fault in the mapping (engine/guard.h): puts memory in its place that is read block by block, a few times when
 * that fails, and finds the header anew. A block that the disk cannot read has other bytes then, which match no
 * checksum and are not zero: to whoever scans it is a block that was written and has changed since. With both headers
 * unread nothing else is read. MN_CORRUPT as above, MN_SYSTEM when the file has another length by now. */
enum mn_status mn_wal_reread(struct mn_wal_segment *segment) MN_MUST_USE;
/* How many blocks of a stretch the disk could not read. */
uint64_t mn_wal_unread(const struct mn_wal_segment *segment, uint64_t offset, uint64_t bytes);

/* A stretch of a segment that is not what it should be. */
struct mn_wal_damage {
    uint64_t offset, bytes;
    uint64_t after_seq;           /* the last whole seq before it */
    uint64_t first_seq, last_seq; /* what it holds, or held; last 0 = not known */
    uint64_t later_durable; /* the largest durable_seq that a whole batch behind it names, in this segment; 0 = none */
    bool complete;          /* it was written to its end: what does not match has changed since */
    bool salvaged;          /* it was durable, so what is whole in it is visited; else it counts as never written */
    bool intact;            /* nothing in it is lost: only what surrounds the records, or what a footer tells again */
    bool mended;            /* flipped bits explain it, and mn_wal_mend undoes them */
    const struct mn_batch_header *header; /* of the batch that it is, when whole */
    const struct mn_batch_footer *footer; /* the same */
    uint64_t records_end;                 /* in the segment: behind the records of that batch, at most */
    const char *what;
};

/* A record that is not whole. */
struct mn_wal_lost {
    const struct mn_record *header;       /* NULL: damaged too */
    const struct mn_batch_touch *touches; /* the ids that it touched, as far as they are known */
    uint32_t touched;
    uint64_t seq; /* its own; with a damaged header the first that it may have had */
};

struct mn_wal_visitor {
    void *context;
    /* Each whole record in order. */
    enum mn_status (*record)(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                             uint64_t offset);
    /* In the same order. May be NULL. `lost` is good for the call alone. */
    enum mn_status (*lost)(void *context, const struct mn_wal_segment *segment, const struct mn_wal_lost *lost);
    /* May be NULL. */
    enum mn_status (*damage)(void *context, const struct mn_wal_segment *segment, const struct mn_wal_damage *damage);
    /* May be NULL: all are wanted. A batch with a whole footer that is not is passed over, its blocks unread and
     * unchecked. The footer tells which ids its records touch, and how. */
    bool (*wants)(void *context, const struct mn_batch_footer *footer);
};

struct mn_wal_extent {
    uint64_t batches, last_seq, last_durable, end; /* end: offset behind the last whole batch */
    uint64_t chain;
    int64_t last_wall_ns;
};

/* Walks a segment's batches and checks every block. Resynchronises behind damage at the next whole batch header. Bytes
 * behind the end must be zero; if not, that is damage too. A batch that is not whole counts as never written (a torn
 * end), unless a later one, its own bytes or segment->durable_seq say that it was durable. */
enum mn_status mn_wal_scan(const struct mn_wal_segment *segment, const struct mn_wal_visitor *visitor,
                           struct mn_wal_extent *extent) MN_MUST_USE;

/* True when all bytes are. */
bool mn_wal_zero(const uint8_t *p, uint64_t bytes);

/* True when a copy of the segment's header is damaged; `told` (may be NULL) is called for each. A copy that never
 * landed because the power went before the first sync is none. */
bool mn_wal_headers_damaged(const struct mn_wal_segment *segment, const struct mn_wal_extent *extent,
                            void (*told)(void *context, const char *what), void *context);

/* For `mneme verify`: every checksum of a segment. What lies above durable_seq is still being written and is not
 * judged. Blocks that the disk cannot read are damage, and the rest is looked through. */
enum mn_status mn_wal_verify(const struct mn_store *store, uint64_t number, uint64_t durable_seq, uint64_t *bytes,
                             mn_damage_fn damaged, void *context) MN_MUST_USE;
/* The last seq that is to be found in a segment, 0 in one that was never begun. MN_CORRUPT as mn_wal_map. */
enum mn_status mn_wal_last_seq(const struct mn_store *store, uint64_t number, uint64_t *seq) MN_MUST_USE;

/* Numbers of the segment files in <dir>/wal, ascending, malloc'd. */
enum mn_status mn_wal_list(const struct mn_store *store, uint64_t **numbers, uint32_t *count) MN_MUST_USE;

/* ---- appending ---- */

struct mn_wal {
    const struct mn_store *store; /* NULL = none is active */
    int fd;
    uint64_t number, bytes;
    uint64_t offset; /* where the next batch goes */
    uint32_t salt;
    uint64_t chain, last_seq, durable_seq;
    struct mn_wal_copy *copy; /* the second copy of the log; NULL = it is kept once */
};

/* Begins a prepared (zero) segment, and its twin when the log is kept twice (prev->copy): writes both headers; the
 * first sync makes them durable. prev: the segment before, or a zeroed struct. */
enum mn_status mn_wal_begin(struct mn_wal *wal, const struct mn_store *store, uint64_t number,
                            const struct mn_wal *prev) MN_MUST_USE;
void mn_wal_end(struct mn_wal *wal);
/* Bytes that a batch may still have. */
uint64_t mn_wal_room(const struct mn_wal *wal);
/* Finishes and writes the batch, and has the disk begin with it; then makes it durable, in the copy too as long as that
 * can be written. Neither is ever tried again after a failure. batch->data must stay as it is until the sync, or
 * mn_wal_end. */
enum mn_status mn_wal_append(struct mn_wal *wal, struct mn_batch *batch, int64_t wall_ns) MN_MUST_USE;
enum mn_status mn_wal_sync(struct mn_wal *wal) MN_MUST_USE;

/* ---- preparing, removing, and the high-water mark ---- */

struct mn_wal_copy;

/* A thread that keeps one zero-filled, synced segment ready, up to `ahead` while they are taken fast, offered
 * with their twins when the log is kept twice (copy may be NULL and must outlive the keeper), and writes the
 * acknowledged seq to wal/MARK each 100 ms when it has moved, so that a loss after a power cut shows. It watches the
 * free space, and removes retired files: all that would make a commit wait for the disk. */
struct mn_wal_keeper;
enum mn_status mn_wal_keeper_start(struct mn_wal_keeper **keeper, const struct mn_store *store,
                                   struct mn_wal_copy *copy, uint64_t segment_bytes, uint32_t ahead,
                                   uint64_t reserve_bytes, uint64_t next_number,
                                   const _Atomic uint64_t *acked_seq) MN_MUST_USE;
void mn_wal_keeper_stop(struct mn_wal_keeper *keeper);
/* The number of the next prepared segment. Waits up to wait_ms for one. MN_READ_ONLY while the disk is full, MN_BUSY
 * when none got ready in time. */
enum mn_status mn_wal_keeper_take(struct mn_wal_keeper *keeper, uint32_t wait_ms, uint64_t *number) MN_MUST_USE;
/* The number that was taken last, not begun, is the next again. */
void mn_wal_keeper_give_back(struct mn_wal_keeper *keeper, uint64_t number);
uint32_t mn_wal_keeper_ready(struct mn_wal_keeper *keeper);
/* Has the thread remove a file or a folder (absolute path); nothing there is not an error. What cannot be removed is
 * tried again each second; after a stop the next writer finds it. */
enum mn_status mn_wal_keeper_remove(struct mn_wal_keeper *keeper, const char *path) MN_MUST_USE;
/* Removals asked for and not done. */
uint32_t mn_wal_keeper_removals(struct mn_wal_keeper *keeper);
/* Takes a new reserve (a reload). */
void mn_wal_keeper_reserve(struct mn_wal_keeper *keeper, uint64_t reserve_bytes);
/* True while free space is below the reserve or preparing fails. */
bool mn_wal_keeper_full(struct mn_wal_keeper *keeper);

/* While no writer lives: gives up prepared log segments until the disk has `bytes` free, or there are none left. They
 * pay for the way out of a full disk: a start, the notes and copies of a quarantine, a segment that is healed. */
void mn_wal_make_room(const struct mn_store *store, uint64_t bytes);

/* The newest mark on disk, 0 when there is none. *damaged: wal/MARK is there, and is not the two whole sectors that it
 * is made of; the mark is the newest that is left in it, then. */
uint64_t mn_wal_mark_read(const struct mn_store *store, bool *damaged);
/* Makes wal/MARK anew: both sectors say `seq`. */
enum mn_status mn_wal_mark_write(const struct mn_store *store, uint64_t seq) MN_MUST_USE;

#endif
