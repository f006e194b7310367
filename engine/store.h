/*
 * store.h - the data folder: its identity (STORE), its lock, the names of everything in it.
 *
 * STORE is kept twice, as STORE and STORE.copy: either of them tells what the store is, and recovery makes the other
 * anew.
 */
#ifndef MN_ENGINE_STORE_H
#define MN_ENGINE_STORE_H

#include "engine/io.h"

#define MN_FORMAT_VERSION 1
#define MN_PATH_MAX       4096

/* What everything in the engine that touches files is given. Plain data, copied freely. */
struct mn_store {
    const struct mn_io *io;
    char dir[MN_PATH_MAX / 2]; /* absolute */
    uint8_t uuid[16];
    uint32_t dim;
    enum mn_metric metric;
};

#define MN_STORE_COPIES 2u
extern const char *const mn_store_names[MN_STORE_COPIES];

/* Reads <dir>/STORE or its copy: MN_NOT_FOUND when there is neither, MN_CORRUPT when no checksum holds, a value is
 * wrong, or the two speak of different stores and the log belongs to none of them, or to both. */
enum mn_status mn_store_open(struct mn_store *store, const struct mn_io *io, const char *dir) MN_MUST_USE;

/* Calls `damaged` for each copy of STORE that is missing or does not say what `store` says. */
void mn_store_check(const struct mn_store *store, void (*damaged)(void *context, const char *path, const char *what),
                    void *context);

/* For recovery: makes such a copy anew, with a note in quarantine. What cannot be written stays as it is. */
void mn_store_mend(const struct mn_store *store);

/* Writes both copies into an existing folder. */
enum mn_status mn_store_write(const struct mn_store *store) MN_MUST_USE;

/* Makes the folders (0700) and a STORE with a new uuid. dim 1..MN_DIM_MAX. Refuses a folder that holds foreign files.
 */
enum mn_status mn_store_create(struct mn_store *store, const struct mn_io *io, const char *dir, uint32_t dim,
                               enum mn_metric metric) MN_MUST_USE;

/* An OFD write lock on a file (made when missing): held as long as *fd is open. MN_BUSY when another process has it. */
enum mn_status mn_store_lock(const char *path, int *fd) MN_MUST_USE;

/* Paths into `path` (MN_PATH_MAX bytes), which is returned. */
char *mn_store_path(const struct mn_store *store, char *path, const char *name);        /* <dir>/name */
char *mn_store_wal_path(const struct mn_store *store, char *path, uint64_t number);     /* <dir>/wal/00000001.wal */
char *mn_store_columns_dir(const struct mn_store *store, char *path, uint64_t segment); /* <dir>/columns/<id> */
char *mn_store_column_path(const struct mn_store *store, char *path, uint64_t segment, const char *column);

#endif
