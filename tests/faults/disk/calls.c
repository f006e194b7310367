/*
 * calls.c - the system calls through which the engine reaches its disk, with what a disk may answer.
 *
 * Each is asked in turn: is it on the disk at all, does the trouble strike it, is it interrupted or cut short, does the
 * process die here; then it is noted, and made.
 */
#include "tests/faults/disk/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/faults/disk/disk.h"

#define FDS_MAX 4096

static struct {
    struct disk_trouble trouble;
    uint64_t struck;
    uint32_t nag, lie;
    char path[FDS_MAX][DISK_PATH_MAX]; /* of descriptors on the disk; "" for all others */
    bool past_cache[FDS_MAX];
} calls;

int __wrap_open(const char *path, int flags, ...);
int __wrap_openat(int folder, const char *path, int flags, ...);
int __wrap_close(int fd);
int __wrap_fcntl(int fd, int command, ...);
ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
int __wrap_posix_fallocate(int fd, off_t offset, off_t bytes);
int __wrap_sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_rmdir(const char *path);
int __wrap_ioctl(int fd, unsigned long request, ...);
ssize_t __wrap_copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t bytes, unsigned flags);
ssize_t __wrap_sendfile(int to, int from, off_t *from_at, size_t bytes);

void disk_trouble(struct disk_trouble trouble)
{
    calls.trouble = trouble;
    calls.struck = 0;
}

uint64_t disk_struck(void)
{
    return calls.struck;
}

void disk_nag(uint32_t percent)
{
    calls.nag = percent;
}

void disk_lie(uint32_t percent)
{
    calls.lie = percent;
}

/* True, with errno set, when this call fails. */
static bool strikes(enum disk_call call)
{
    struct disk_trouble *t = &calls.trouble;
    disk_counts.calls++;
    if (!(t->calls & call) || t->count == 0)
        return false;
    if (t->after > 0) {
        t->after--;
        return false;
    }
    t->count--;
    calls.struck++;
    disk_counts.failed++;
    errno = t->error;
    return true;
}

static bool interrupted(void)
{
    if (calls.nag == 0 || disk_draw(100) >= calls.nag)
        return false;
    disk_counts.interrupted++;
    errno = EINTR;
    return true;
}

/* How many of `bytes` this call does: fewer by whole units. */
static size_t shortened(size_t bytes, size_t unit)
{
    if (calls.nag == 0 || bytes <= unit || disk_draw(100) >= calls.nag)
        return bytes;
    disk_counts.shortened++;
    return unit * (1 + disk_draw((uint32_t)((bytes - 1) / unit)));
}

static int dead(void)
{
    errno = EIO;
    return -1;
}

static const char *path_of(int fd)
{
    return fd >= 0 && fd < FDS_MAX && calls.path[fd][0] ? calls.path[fd] : NULL;
}

static void name_fd(int fd, const char *path)
{
    if (fd >= 0 && fd < FDS_MAX)
        snprintf(calls.path[fd], sizeof calls.path[fd], "%s", path);
    if (fd >= 0 && fd < FDS_MAX)
        calls.past_cache[fd] = false;
}

/* ---- descriptors ---- */

static int open_on_disk(const char *path, int flags, mode_t mode)
{
    struct stat st;
    bool makes = (flags & O_CREAT) && lstat(path, &st) != 0;
    if (strikes(makes ? DISK_MAKE : DISK_OPEN) || interrupted())
        return -1;
    if (makes && disk_burns())
        return dead();
    if (makes)
        disk_note_name(DISK_MADE_FILE, path, "");
    int fd = __real_open(path, flags, mode);
    if (makes && fd < 0)
        disk_forget_name();
    name_fd(fd, path);
    return fd;
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (disk_covers(path))
        return open_on_disk(path, flags, mode);
    int fd = __real_open(path, flags, mode);
    name_fd(fd, "");
    return fd;
}

int __wrap_openat(int folder, const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    int fd = __real_openat(folder, path, flags, mode);
    name_fd(fd, "");
    return fd;
}

int __wrap_close(int fd)
{
    name_fd(fd, "");
    return __real_close(fd);
}

/* The real files stand in shared memory, which has no O_DIRECT. */
int __wrap_fcntl(int fd, int command, ...)
{
    va_list more;
    va_start(more, command);
    void *argument = va_arg(more, void *);
    va_end(more);
    if (!path_of(fd) || command != F_SETFL)
        return __real_fcntl(fd, command, argument);
    calls.past_cache[fd] = (intptr_t)argument & O_DIRECT;
    return 0;
}

/* ---- bytes ---- */

ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset)
{
    if (!path_of(fd))
        return __real_pread(fd, data, bytes, offset);
    if (strikes(DISK_READ) || interrupted())
        return -1;
    ssize_t n = __real_pread(fd, data, shortened(bytes, calls.past_cache[fd] ? DISK_SECTOR : 1), offset);
    if (n > 0 && calls.past_cache[fd])
        disk_read_past_cache(fd, data, (uint64_t)offset, (uint64_t)n);
    return n;
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    if (!path_of(fd))
        return __real_pwrite(fd, data, bytes, offset);
    if (strikes(DISK_WRITE)) {
        int error = errno;
        size_t landed = disk_draw(2) && !disk_dead() ? disk_draw((uint32_t)(bytes / DISK_SECTOR + 1)) * DISK_SECTOR : 0;
        if (landed > 0) { /* some of it is there all the same */
            disk_note_write(fd, (uint64_t)offset, landed);
            __real_pwrite(fd, data, landed, offset);
        }
        errno = error;
        return -1;
    }
    if (interrupted())
        return -1;
    bool was_dead = disk_dead(), dies = disk_burns();
    if (was_dead)
        return dead();
    bytes = shortened(bytes, DISK_SECTOR);
    disk_note_write(fd, (uint64_t)offset, bytes);
    ssize_t n = __real_pwrite(fd, data, bytes, offset);
    return dies ? dead() : n; /* the last write may still land */
}

int __wrap_posix_fallocate(int fd, off_t offset, off_t bytes)
{
    if (!path_of(fd))
        return __real_posix_fallocate(fd, offset, bytes);
    if (strikes(DISK_RESERVE) || interrupted())
        return errno;
    if (disk_burns())
        return EIO;
    disk_note_length(fd);
    return __real_posix_fallocate(fd, offset, bytes);
}

int __wrap_sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags)
{
    if (!path_of(fd))
        return __real_sync_file_range(fd, offset, bytes, flags);
    return disk_dead() ? dead() : 0; /* on its way, and no more */
}

static bool lies(const char *path)
{
    size_t length = strlen(path);
    bool mark = length > 5 && strcmp(path + length - 5, "/MARK") == 0;
    if (calls.lie == 0 || mark || disk_draw(100) >= calls.lie)
        return false;
    disk_counts.lies++;
    return true;
}

static int sync_on_disk(int fd, const char *path)
{
    struct stat st;
    bool folder = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    if (strikes(folder ? DISK_SYNC_FOLDER : DISK_SYNC)) {
        int error = errno;
        if (!folder)
            disk_note_failed_sync(fd);
        errno = error;
        return -1;
    }
    if (disk_burns())
        return dead();
    if (folder)
        disk_note_folder_sync(path, lies(path));
    else
        disk_note_sync(fd, lies(path));
    return 0;
}

int __wrap_fdatasync(int fd)
{
    const char *path = path_of(fd);
    return path ? sync_on_disk(fd, path) : __real_fdatasync(fd);
}

int __wrap_fsync(int fd)
{
    const char *path = path_of(fd);
    return path ? sync_on_disk(fd, path) : __real_fsync(fd);
}

/* ---- copies ---- */

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list more;
    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    if (!path_of(fd) || request != FICLONE)
        return __real_ioctl(fd, request, argument);
    errno = EOPNOTSUPP; /* a disk without shared extents: all bytes are written */
    return -1;
}

/* True when a copy of up to *bytes to the place where `to` stands may be made; noted, with what it may write. */
static bool may_copy(int to, size_t *bytes)
{
    if (strikes(DISK_COPY) || interrupted())
        return false;
    if (disk_burns()) {
        dead();
        return false;
    }
    *bytes = shortened(*bytes, DISK_SECTOR);
    disk_note_write(to, (uint64_t)lseek(to, 0, SEEK_CUR), *bytes);
    return true;
}

ssize_t __wrap_copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t bytes, unsigned flags)
{
    if (path_of(to) && !may_copy(to, &bytes))
        return -1;
    return __real_copy_file_range(from, from_at, to, to_at, bytes, flags);
}

ssize_t __wrap_sendfile(int to, int from, off_t *from_at, size_t bytes)
{
    if (path_of(to) && !may_copy(to, &bytes))
        return -1;
    return __real_sendfile(to, from, from_at, bytes);
}

/* ---- names ---- */

int __wrap_rename(const char *from, const char *to)
{
    if (!disk_covers(to))
        return __real_rename(from, to);
    if (strikes(DISK_RENAME))
        return -1;
    if (disk_burns())
        return dead();
    disk_note_name(DISK_RENAMED, to, from);
    int result = __real_rename(from, to);
    if (result != 0)
        disk_forget_name();
    return result;
}

int __wrap_unlink(const char *path)
{
    struct stat st;
    if (!disk_covers(path) || lstat(path, &st) != 0)
        return __real_unlink(path);
    if (strikes(DISK_REMOVE))
        return -1;
    if (disk_burns())
        return dead();
    disk_note_name(DISK_REMOVED_FILE, path, "");
    int result = __real_unlink(path);
    int error = errno;
    if (result != 0)
        disk_forget_name();
    errno = error;
    return result;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    if (!disk_covers(path))
        return __real_mkdir(path, mode);
    if (strikes(DISK_MAKE))
        return -1;
    if (disk_burns())
        return dead();
    int result = __real_mkdir(path, mode);
    if (result == 0)
        disk_note_name(DISK_MADE_FOLDER, path, "");
    return result;
}

int __wrap_rmdir(const char *path)
{
    if (!disk_covers(path))
        return __real_rmdir(path);
    if (strikes(DISK_REMOVE))
        return -1;
    if (disk_burns())
        return dead();
    int result = __real_rmdir(path);
    if (result == 0)
        disk_note_name(DISK_REMOVED_FOLDER, path, "");
    return result;
}
