/*
 * snapshot.h - a consistent copy of a running store in a folder that mnemed opens like any other.
 *
 * The copy pins a view, hard-copies (reflink where the file system can) the column files, the ledger and the log segments
 * that the view lists, cuts nothing: the log up to durable_seq at the pin is in it whole, and recovery of the copy does
 * the rest. Built under <path>.tmp and renamed last.
 */
#ifndef MN_ENGINE_SNAPSHOT_H
#define MN_ENGINE_SNAPSHOT_H

#include "engine/reader.h"

struct mn_copy_result {
    uint64_t seq, bytes, files;
};

/* progress may be NULL; called with bytes done and bytes in all. `path` must not exist (MN_EXISTS). */
enum mn_status mn_snapshot_make(const struct mn_store *store, struct mn_instance *instance, const char *path,
                                void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                                struct mn_copy_result *result) MN_MUST_USE;

/* Offline: copies a snapshot into a new store folder `dir`, checking every checksum on the way. */
enum mn_status mn_snapshot_restore(const struct mn_io *io, const char *snapshot, const char *dir,
                                   void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                                   struct mn_copy_result *result) MN_MUST_USE;

#endif
