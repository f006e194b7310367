/*
 * io.h - every file operation of the engine goes through this table of functions.
 *
 * One implementation talks to the kernel (mn_io_posix); a test may put another in its place that drops, tears or fails
 * writes. Paths are absolute or relative to the working directory. All functions retry EINTR and finish short writes
 * themselves; on failure they return MN_SYSTEM, MN_READ_ONLY (no space, read-only file system) or MN_NOT_FOUND, with a
 * sentence that names the path.
 */
#ifndef MN_ENGINE_IO_H
#define MN_ENGINE_IO_H

#include <sys/uio.h>

#include "engine/types.h"

enum mn_io_open {
    MN_IO_READ = 0,
    MN_IO_WRITE = 1,
    MN_IO_CREATE = 2, /* with WRITE: must not exist */
    MN_IO_DIRECT = 4  /* past the page cache where the file system can: blocks and memory aligned to 4 KiB */
};

struct mn_io {
    enum mn_status (*open)(const char *path, int flags, int *fd);
    void (*close)(int fd);
    enum mn_status (*size)(int fd, uint64_t *bytes);
    /* All, or MN_CORRUPT: "is shorter"; what there is of it is in `data` then. */
    enum mn_status (*read)(int fd, void *data, size_t bytes, uint64_t offset);
    enum mn_status (*write)(int fd, const void *data, size_t bytes, uint64_t offset);
    /* Writes a range back now and waits for it. Promises nothing (only datasync does); it keeps long work from filling
     * the disk's queue, which the log's next sync would have to wait for. */
    enum mn_status (*flush)(int fd, uint64_t offset, uint64_t bytes);
    /* Has a range written back from now on, and does not wait for it: the next datasync finds less to do. Promises
     * nothing either, and fails like a write. */
    enum mn_status (*start)(int fd, uint64_t offset, uint64_t bytes);
    /* Lets go of cached pages of a range that nobody uses: what is read next comes from the disk. A wish, no more; may
     * be NULL. */
    void (*uncache)(int fd, uint64_t offset, uint64_t bytes);
    enum mn_status (*datasync)(int fd);                /* fdatasync; never retried by anybody after a failure */
    enum mn_status (*reserve)(int fd, uint64_t bytes); /* fallocate from 0 */
    enum mn_status (*map)(int fd, uint64_t bytes, const void **base); /* shared, read-only */
    void (*unmap)(const void *base, uint64_t bytes);
    /* Whole pages of a mapping that will hardly be read again: this process need not keep them, and gets them anew when
     * it reads them all the same. A wish, no more; may be NULL. */
    void (*let_go)(const void *base, uint64_t bytes);
    enum mn_status (*rename)(const char *from, const char *to);
    /* A second name `to` of the file `from`, in the same file system. MN_OK too when it is that already, MN_EXISTS when
     * it is another file. May be NULL. */
    enum mn_status (*link)(const char *from, const char *to);
    enum mn_status (*unlink)(const char *path);
    enum mn_status (*mkdir)(const char *path);
    enum mn_status (*rmdir)(const char *path);
    enum mn_status (*sync_dir)(const char *path);
    /* Calls `visit` for each entry but . and ..; stops at the first failure. */
    enum mn_status (*list)(const char *path, enum mn_status (*visit)(void *context, const char *name), void *context);
    /* Makes `to` (which must not exist) a copy of `from`, sharing its extents where the file system can; synced;
     * *bytes: its length. */
    enum mn_status (*copy)(const char *from, const char *to, uint64_t *bytes);
    enum mn_status (*free_bytes)(const char *path, uint64_t *bytes);
};

extern const struct mn_io mn_io_posix;

/* Small whole files: written to `path`.tmp, synced, renamed, folder synced; and read whole into malloc'd memory
 * (NUL-terminated one past `bytes`), MN_TOO_LARGE above `bytes_max`. */
enum mn_status mn_io_replace(const struct mn_io *io, const char *path, const void *data, size_t bytes) MN_MUST_USE;
enum mn_status mn_io_slurp(const struct mn_io *io, const char *path, size_t bytes_max, void **data,
                           size_t *bytes) MN_MUST_USE;
/* The same, of what the disk has, where that can be read past the page cache: after a sync that failed the cache shows
 * what was written all the same. */
enum mn_status mn_io_slurp_disk(const struct mn_io *io, const char *path, size_t bytes_max, void **data,
                                size_t *bytes) MN_MUST_USE;
/* Bytes of a file; 0 when there is none, or it cannot be read. */
uint64_t mn_io_file_bytes(const struct mn_io *io, const char *path);
/* Makes the name of `path` in its folder durable. */
enum mn_status mn_io_sync_name(const struct mn_io *io, const char *path) MN_MUST_USE;
/* Removes a folder of plain files (and folders below it) and syncs its parent. Nothing there is not an error. */
enum mn_status mn_io_remove_tree(const struct mn_io *io, const char *path) MN_MUST_USE;

#endif
