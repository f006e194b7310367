/*
 * wal_prepare.h - log segments are made ahead of their use: zero-filled, synced, under their name for good.
 *
 * The slow part of a log is the first touch of new disk blocks, so a thread does it before a commit needs it: the
 * keeper for the log (wal_keeper.c), the mender for its second copy (wal_copy_mend.c).
 */
#ifndef MN_ENGINE_WAL_PREPARE_H
#define MN_ENGINE_WAL_PREPARE_H

#include "engine/store.h"

/* Called before each piece is written, which is written back at once: the log's syncs share the disk, and wait for
 * whatever is queued before them. A pace may do other things, and pause. Returns whether there is haste: the pieces are
 * larger then. false in *go_on gives up. */
typedef bool (*mn_wal_pace_fn)(void *context, bool *go_on);

/* Has a segment of that length, all zero, lie in <in>/wal under its number for good: makes it under a temporary name,
 * or takes one that is there as it is. A segment that somebody has begun must not be asked for. On failure nothing is
 * left that was not there; MN_UNAVAILABLE when the pace gave up. */
enum mn_status mn_wal_prepare(const struct mn_store *in, uint64_t number, uint64_t bytes, mn_wal_pace_fn pace,
                              void *context) MN_MUST_USE;

#endif
