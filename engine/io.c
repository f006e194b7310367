/*
 * io.c - the I/O table that talks to the kernel, and small whole files on top of any table.
 */
#include "engine/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "engine/fault.h"
#include "engine/guard.h"

#define BLOCK  4096u /* what reads past the page cache are aligned to */
#define SECTOR 512u  /* the least that a disk reads */

static int open_whole(const char *path, int mode)
{
    int fd;
    do
        fd = open(path, mode | O_CLOEXEC, 0640);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static enum mn_status posix_open(const char *path, int flags, int *fd)
{
    int mode = (flags & MN_IO_WRITE ? O_RDWR : O_RDONLY) | (flags & MN_IO_CREATE ? O_CREAT | O_EXCL : 0);
    *fd = open_whole(path, mode);
    if (*fd < 0 && errno == ENOENT)
        return MN_FAIL(MN_NOT_FOUND, "there is no file %s", path);
    if (*fd >= 0 && flags & MN_IO_DIRECT)
        fcntl(*fd, F_SETFL, O_DIRECT); /* what cannot do that goes through the cache */
    return *fd < 0 ? MN_FAIL_ERRNO("cannot open %s", path) : MN_OK;
}

static void posix_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

static enum mn_status posix_size(int fd, uint64_t *bytes)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return MN_FAIL_ERRNO("fstat");
    *bytes = (uint64_t)st.st_size;
    return MN_OK;
}

/* A read past the page cache ends inside a sector only where the file ends; what would ask on from there is refused for
 * not being aligned. */
static bool at_end(int fd, uint64_t at)
{
    return at % SECTOR != 0 && (fcntl(fd, F_GETFL) & O_DIRECT);
}

static enum mn_status posix_read(int fd, void *data, size_t bytes, uint64_t offset)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(fd, (char *)data + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return MN_FAIL_ERRNO("cannot read %zu bytes at %llu", bytes, (unsigned long long)offset);
        done += n > 0 ? (size_t)n : 0;
        if (n == 0 || (done < bytes && at_end(fd, offset + done)))
            return MN_FAIL(MN_CORRUPT, "the file is shorter than %llu bytes", (unsigned long long)(offset + bytes));
    }
    return MN_OK;
}

static enum mn_status posix_write(int fd, const void *data, size_t bytes, uint64_t offset)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(fd, (const char *)data + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return MN_FAIL_ERRNO("cannot write %zu bytes at %llu", bytes, (unsigned long long)offset);
        done += (size_t)n;
    }
    return MN_OK;
}

static enum mn_status write_back(int fd, uint64_t offset, uint64_t bytes, unsigned flags)
{
    if (sync_file_range(fd, (off_t)offset, (off_t)bytes, flags) != 0 && errno != EINTR && errno != ENOSYS)
        return MN_FAIL_ERRNO("cannot write %llu bytes back", (unsigned long long)bytes);
    return MN_OK;
}

static enum mn_status posix_flush(int fd, uint64_t offset, uint64_t bytes)
{
    return write_back(fd, offset, bytes,
                      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
}

static enum mn_status posix_start(int fd, uint64_t offset, uint64_t bytes)
{
    return write_back(fd, offset, bytes, SYNC_FILE_RANGE_WRITE);
}

static void posix_uncache(int fd, uint64_t offset, uint64_t bytes)
{
    posix_fadvise(fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
}

static enum mn_status posix_datasync(int fd)
{
    /* Not retried: after a failure the kernel may have dropped the dirty pages and would report success. */
    return fdatasync(fd) == 0 ? MN_OK : MN_FAIL_ERRNO("fdatasync");
}

static enum mn_status posix_reserve(int fd, uint64_t bytes)
{
    int error;
    do
        error = posix_fallocate(fd, 0, (off_t)bytes);
    while (error == EINTR);
    errno = error;
    return error == 0 ? MN_OK : MN_FAIL_ERRNO("cannot reserve %llu bytes on the disk", (unsigned long long)bytes);
}

static enum mn_status posix_map(int fd, uint64_t bytes, const void **base)
{
    void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return MN_FAIL_ERRNO("cannot map %llu bytes", (unsigned long long)bytes);
    mn_guard_note(p, bytes, fd);
    *base = p;
    return MN_OK;
}

static void posix_unmap(const void *base, uint64_t bytes)
{
    mn_guard_forget(base);
    munmap((void *)(uintptr_t)base, bytes);
}

static void posix_let_go(const void *base, uint64_t bytes)
{
    madvise((void *)(uintptr_t)base, bytes, MADV_DONTNEED); /* mappings are shared and read-only: nothing is lost */
}

static enum mn_status posix_rename(const char *from, const char *to)
{
    return rename(from, to) == 0 ? MN_OK : MN_FAIL_ERRNO("cannot rename %s to %s", from, to);
}

static enum mn_status posix_link(const char *from, const char *to)
{
    struct stat a, b;
    if (link(from, to) == 0)
        return MN_OK;
    if (errno != EEXIST)
        return MN_FAIL_ERRNO("cannot link %s to %s", from, to);
    if (stat(from, &a) == 0 && stat(to, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return MN_OK;
    return MN_FAIL(MN_EXISTS, "%s exists already", to);
}

static enum mn_status posix_unlink(const char *path)
{
    if (unlink(path) == 0)
        return MN_OK;
    return errno == ENOENT ? MN_FAIL(MN_NOT_FOUND, "there is no file %s", path)
                           : MN_FAIL_ERRNO("cannot remove %s", path);
}

/* In a folder that is shared with a group (set-group-ID and open to it, by security.group) what is made is shared too.
 */
static enum mn_status share_folder(const char *path)
{
    char parent[4096];
    struct stat made, above;
    const char *slash = strrchr(path, '/');
    int n = snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    if (n <= 0 || stat(path, &made) != 0 || !(made.st_mode & S_ISGID) || stat(parent, &above) != 0 ||
        (above.st_mode & 0050) != 0050)
        return MN_OK;
    return chmod(path, (made.st_mode & 07777) | 0050) == 0 ? MN_OK : MN_FAIL_ERRNO("cannot share folder %s", path);
}

static enum mn_status posix_mkdir(const char *path)
{
    if (mkdir(path, 0700) == 0)
        return share_folder(path);
    return errno == EEXIST ? MN_FAIL(MN_EXISTS, "%s exists already", path)
                           : MN_FAIL_ERRNO("cannot make folder %s", path);
}

static enum mn_status posix_rmdir(const char *path)
{
    return rmdir(path) == 0 ? MN_OK : MN_FAIL_ERRNO("cannot remove folder %s", path);
}

static enum mn_status posix_sync_dir(const char *path)
{
    int fd = open_whole(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot open folder %s", path);
    enum mn_status status = fsync(fd) == 0 ? MN_OK : MN_FAIL_ERRNO("cannot sync folder %s", path);
    close(fd);
    return status;
}

static enum mn_status posix_list(const char *path, enum mn_status (*visit)(void *context, const char *name),
                                 void *context)
{
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? MN_FAIL(MN_NOT_FOUND, "there is no folder %s", path)
                               : MN_FAIL_ERRNO("cannot open folder %s", path);
    enum mn_status status = MN_OK;
    for (struct dirent *entry; status == MN_OK && (entry = readdir(dir)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            status = visit(context, entry->d_name);
    closedir(dir);
    return status;
}

/* Shares extents where the file system can; else the kernel copies, else we do. */
static enum mn_status copy_bytes(int from, int to, uint64_t bytes)
{
    if (bytes == 0 || ioctl(to, FICLONE, from) == 0)
        return MN_OK;
    bool ranges = true;
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n =
            ranges ? copy_file_range(from, NULL, to, NULL, bytes - done, 0) : sendfile(to, from, NULL, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && ranges && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)) {
            ranges = false;
            continue;
        }
        if (n < 0)
            return MN_FAIL_ERRNO("cannot copy %llu bytes", (unsigned long long)bytes);
        if (n == 0)
            return MN_FAIL(MN_CORRUPT, "a file became shorter while it was copied");
        done += (uint64_t)n;
    }
    return MN_OK;
}

static enum mn_status posix_copy(const char *from, const char *to, uint64_t *bytes)
{
    int in = -1, out = -1;
    enum mn_status status = MN_OK;
    MN_TRY_OUT(posix_open(from, MN_IO_READ, &in));
    MN_TRY_OUT(posix_open(to, MN_IO_WRITE | MN_IO_CREATE, &out));
    MN_TRY_OUT(posix_size(in, bytes));
    MN_TRY_OUT(copy_bytes(in, out, *bytes));
    MN_TRY_OUT(posix_datasync(out));
out:
    posix_close(in);
    posix_close(out);
    return status;
}

static enum mn_status posix_free_bytes(const char *path, uint64_t *bytes)
{
    struct statvfs vfs;
    if (statvfs(path, &vfs) != 0)
        return MN_FAIL_ERRNO("cannot ask for the free space at %s", path);
    *bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return MN_OK;
}

const struct mn_io mn_io_posix = {
    .open = posix_open,
    .close = posix_close,
    .size = posix_size,
    .read = posix_read,
    .write = posix_write,
    .flush = posix_flush,
    .start = posix_start,
    .uncache = posix_uncache,
    .datasync = posix_datasync,
    .reserve = posix_reserve,
    .map = posix_map,
    .unmap = posix_unmap,
    .let_go = posix_let_go,
    .rename = posix_rename,
    .link = posix_link,
    .unlink = posix_unlink,
    .mkdir = posix_mkdir,
    .rmdir = posix_rmdir,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .copy = posix_copy,
    .free_bytes = posix_free_bytes,
};

/* The folder that holds `path`, into `parent`. */
static void parent_of(const char *path, char *parent, size_t size)
{
    snprintf(parent, size, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash && slash != parent)
        *slash = 0;
    else
        snprintf(parent, size, slash ? "/" : ".");
}

enum mn_status mn_io_sync_name(const struct mn_io *io, const char *path)
{
    char parent[4096];
    parent_of(path, parent, sizeof parent);
    return io->sync_dir(parent);
}

enum mn_status mn_io_replace(const struct mn_io *io, const char *path, const void *data, size_t bytes)
{
    char temporary[4096];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp", path) >= sizeof temporary)
        return MN_FAIL(MN_BAD_REQUEST, "path too long: %s", path);
    int fd = -1;
    enum mn_status status = io->unlink(temporary); /* left by a crash, perhaps */
    if (status != MN_OK && status != MN_NOT_FOUND)
        return status;
    MN_TRY_OUT(io->open(temporary, MN_IO_WRITE | MN_IO_CREATE, &fd));
    MN_TRY_OUT(io->write(fd, data, bytes, 0));
    MN_FAULT_POINT(replace_written);
    if (!MN_BUG(rename_before_sync))
        MN_TRY_OUT(io->datasync(fd));
    MN_FAULT_POINT(replace_synced);
    MN_TRY_OUT(io->rename(temporary, path));
    MN_FAULT_POINT(replace_renamed);
    MN_TRY_OUT(mn_io_sync_name(io, path));
out:
    io->close(fd);
    return status;
}

/* Whole blocks are asked for, and the last may be there in part. */
static enum mn_status read_blocks(const struct mn_io *io, int fd, char *data, uint64_t bytes)
{
    uint64_t whole = bytes / BLOCK * BLOCK;
    if (whole > 0)
        MN_TRY(io->read(fd, data, whole, 0));
    enum mn_status status = bytes > whole ? io->read(fd, data + whole, BLOCK, whole) : MN_OK;
    return status == MN_CORRUPT ? MN_OK : status;
}

static enum mn_status slurp(const struct mn_io *io, const char *path, int flags, size_t bytes_max, void **data,
                            size_t *bytes)
{
    int fd;
    uint64_t size = 0;
    char *copy = NULL;
    MN_TRY(io->open(path, MN_IO_READ | flags, &fd));
    enum mn_status status = MN_OK;
    MN_TRY_OUT(io->size(fd, &size));
    if (size > bytes_max) {
        status = MN_FAIL(MN_TOO_LARGE, "%s has %llu bytes, more than the %zu it may have", path,
                         (unsigned long long)size, bytes_max);
        goto out;
    }
    copy = flags & MN_IO_DIRECT ? aligned_alloc(BLOCK, mn_round_up(size + 1, BLOCK)) : malloc(size + 1);
    if (!copy) {
        status = MN_FAIL(MN_INTERNAL, "no memory for %s", path);
        goto out;
    }
    MN_TRY_OUT(flags & MN_IO_DIRECT ? read_blocks(io, fd, copy, size) : io->read(fd, copy, size, 0));
    copy[size] = 0;
    *data = copy;
    *bytes = size;
    copy = NULL;
out:
    free(copy);
    io->close(fd);
    return status;
}

enum mn_status mn_io_slurp(const struct mn_io *io, const char *path, size_t bytes_max, void **data, size_t *bytes)
{
    return slurp(io, path, 0, bytes_max, data, bytes);
}

enum mn_status mn_io_slurp_disk(const struct mn_io *io, const char *path, size_t bytes_max, void **data, size_t *bytes)
{
    return slurp(io, path, MN_IO_DIRECT, bytes_max, data, bytes);
}

struct removal {
    const struct mn_io *io;
    const char *path;
};

static enum mn_status remove_entry(void *context, const char *name)
{
    const struct removal *removal = context;
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", removal->path, name) >= sizeof path)
        return MN_FAIL(MN_BAD_REQUEST, "path too long: %s/%s", removal->path, name);
    if (removal->io->unlink(path) == MN_OK)
        return MN_OK;
    return mn_io_remove_tree(removal->io, path);
}

enum mn_status mn_io_remove_tree(const struct mn_io *io, const char *path)
{
    struct removal removal = {io, path};
    enum mn_status status = io->list(path, remove_entry, &removal);
    if (status == MN_NOT_FOUND)
        return MN_OK;
    MN_TRY(status);
    status = io->rmdir(path);
    if (status == MN_NOT_FOUND)
        return MN_OK; /* writer and compactor may both remove what is left over */
    MN_TRY(status);
    return mn_io_sync_name(io, path);
}

uint64_t mn_io_file_bytes(const struct mn_io *io, const char *path)
{
    uint64_t bytes = 0;
    int fd;
    if (io->open(path, MN_IO_READ, &fd) != MN_OK)
        return 0;
    if (io->size(fd, &bytes) != MN_OK)
        bytes = 0;
    io->close(fd);
    return bytes;
}
