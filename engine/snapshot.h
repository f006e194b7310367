/*
 * snapshot.h - a consistent copy of a running store in a folder that mnemed opens like any other.
 *
 * The copy pins a view and copies (by reflink where the file system can) the column files, the ledger and the log
 * segments that go with it. The log is in it up to what was visible at the pin, whole and no further; recovery of the
 * copy does the rest. Built under <path>.mneme-copy (what an earlier attempt left there is removed) and renamed last.
 */
#ifndef MN_ENGINE_SNAPSHOT_H
#define MN_ENGINE_SNAPSHOT_H

#include "engine/columns.h"
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

struct mn_restore {
    const struct mn_io *io;
    const char *snapshot;
    const char *dir;      /* of the new store: missing or empty (MN_EXISTS) */
    bool damaged_too;     /* a damaged snapshot is copied all the same */
    mn_damage_fn damaged; /* may be NULL; called for each damaged piece of the snapshot before anything is made */
    void (*progress)(void *context, uint64_t done, uint64_t total); /* may be NULL; of all bytes to read or write */
    void *context;
};

/* Offline: copies a snapshot into a new store folder. Every checksum of the snapshot is looked at first: MN_CORRUPT
 * names the first damage, and nothing is made. The copy is looked at too before it gets its name: MN_CORRUPT when more
 * of it is damaged than of the snapshot. Of a file that is kept twice one whole copy will do, and codes do not count;
 * where neither is whole it is MN_CORRUPT, damaged_too or not. result->damaged: pieces of the snapshot. */
enum mn_status mn_snapshot_restore(const struct mn_restore *restore, struct mn_copy_result *result) MN_MUST_USE;

#endif
