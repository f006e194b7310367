/*
 * snapshot.h - a consistent copy of a running store in a folder that mnemed opens like any other.
 *
 * The copy pins a view and copies (by reflink where the file system can) the column files, the ledger and the log
 * segments that go with it. The log is in it up to what was visible at the pin, whole and no further; recovery of the
 * copy does the rest. Built under <path>.mneme-copy (what an earlier attempt left there is removed) and renamed last.
 */
#ifndef MN_ENGINE_SNAPSHOT_H
#define MN_ENGINE_SNAPSHOT_H

#include "engine/reader.h"

struct mn_copy_result {
    uint64_t seq, bytes, files;
    uint64_t damaged; /* pieces of the copy that do not match their checksums, because their originals do not */
    char damage[512]; /* the first of them */
};

/* progress may be NULL; called after each file with bytes done and bytes in all. `path` must not exist (MN_EXISTS).
 * result->seq: the newest seq in the copy. What is damaged in the store is damaged in the copy: result->damaged, after
 * a look at every checksum; damaged codes do not count (they are made anew). Not while a compaction of this process is
 * being built. */
enum mn_status mn_snapshot_make(const struct mn_store *store, struct mn_instance *instance, const char *path,
                                void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                                struct mn_copy_result *result) MN_MUST_USE;

/* Offline: copies a snapshot into a new store folder `dir` (missing or empty; MN_EXISTS), and checks every checksum of
 * the copy before it gets its name: MN_CORRUPT names the first damage. mn_snapshot_salvage copies a damaged one all the
 * same, and tells in result->damaged. */
enum mn_status mn_snapshot_restore(const struct mn_io *io, const char *snapshot, const char *dir,
                                   void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                                   struct mn_copy_result *result) MN_MUST_USE;
enum mn_status mn_snapshot_salvage(const struct mn_io *io, const char *snapshot, const char *dir,
                                   void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                                   struct mn_copy_result *result) MN_MUST_USE;

#endif
