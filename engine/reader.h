/*
 * reader.h - a reader's way to a consistent snapshot: pin an epoch, map what its view lists, read.
 *
 * One reader per thread (slot and mappings are its own). Pinning when the view has not changed since the last pin costs
 * two stores and a few loads; a changed view maps what is new and unmaps what went. Nothing here locks or waits for a
 * writer.
 */
#ifndef MN_ENGINE_READER_H
#define MN_ENGINE_READER_H

#include "engine/part.h"
#include "engine/store.h"
#include "shm/instance.h"

struct mn_snapshot {
    uint64_t gen;     /* the pinned view */
    uint64_t seq;     /* versions with born <= seq < died are visible */
    int64_t now;      /* wall clock at the pin, ns: what has expired is hidden */
    uint32_t missing; /* column segments of the store that are too damaged to open: their memories are not here */
    uint32_t uncoded; /* of those that are here, whose inverted file is missing or damaged: they are scanned exactly */
    const _Atomic uint32_t *tuning; /* mn_control.tuning, or NULL: untuned (engine/tune.h) */
    uint32_t part_count;
    struct mn_part *parts; /* newest first: tail chunks, then column segments */
};

struct mn_reader;

/* Claims a slot and opens nothing yet. `instance` must outlive the reader. MN_BUSY when no slot is free. */
enum mn_status mn_reader_open(struct mn_reader **reader, const struct mn_store *store,
                              struct mn_instance *instance) MN_MUST_USE;
void mn_reader_close(struct mn_reader *reader);

/* Pins the newest view. as_of: 0 = now, else the seq to read at: MN_UNAVAILABLE when it is above what is visible or
 * below oldest_seq. MN_NOT_READY before the first view. A column segment that is damaged beyond use is left out and
 * counted in snapshot->missing: the rest stays available. MN_CORRUPT when a file in shared memory is damaged. The
 * snapshot lives until mn_reader_unpin; one pin at a time. */
enum mn_status mn_reader_pin(struct mn_reader *reader, uint64_t as_of, struct mn_snapshot *snapshot) MN_MUST_USE;
void mn_reader_unpin(struct mn_reader *reader);

/* After mn_guarded has ended a call that used the snapshot: lets go of the pin, and of the file that `fault` lies in. A
 * column segment is missing from the next snapshots of this process, unless it can be opened and checked anew; an
 * inverted file is done without. */
void mn_reader_blame(struct mn_reader *reader, const void *fault);

#endif
