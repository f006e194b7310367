/*
 * fail_once.c - the kernel's disk, but for one change.
 */
#include "tests/unit/fail_once.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct fail_once fail_once;

static enum mn_status change(void)
{
    if (++fail_once.calls != fail_once.fail_at || fail_once.status == MN_OK)
        return MN_OK;
    return MN_FAIL(fail_once.status, "the disk was told to fail");
}

static enum mn_status bent_write(int fd, const void *data, size_t bytes, uint64_t offset)
{
    char link[64];
    uint8_t *bent = malloc(bytes + 1);
    if (!bent)
        return MN_FAIL(MN_INTERNAL, "no memory to bend a write");
    memcpy(bent, data, bytes);
    bent[bytes / 2] ^= 0x10;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, fail_once.bent, sizeof fail_once.bent - 1);
    fail_once.bent[length > 0 ? length : 0] = 0;
    enum mn_status status = mn_io_posix.write(fd, bent, bytes, offset);
    free(bent);
    return status;
}

static enum mn_status failing_write(int fd, const void *data, size_t bytes, uint64_t offset)
{
    if (fail_once.calls + 1 == fail_once.fail_at && fail_once.status == MN_OK) {
        fail_once.calls++;
        return bent_write(fd, data, bytes, offset);
    }
    enum mn_status status = change();
    if (status != MN_OK && bytes > 1) /* half of it lands */
        (void)!mn_io_posix.write(fd, data, bytes / 2, offset);
    return status == MN_OK ? mn_io_posix.write(fd, data, bytes, offset) : status;
}

static enum mn_status failing_datasync(int fd)
{
    enum mn_status status = change();
    return status == MN_OK ? mn_io_posix.datasync(fd) : status;
}

static enum mn_status failing_rename(const char *from, const char *to)
{
    enum mn_status status = change();
    return status == MN_OK ? mn_io_posix.rename(from, to) : status;
}

static enum mn_status failing_mkdir(const char *path)
{
    enum mn_status status = change();
    return status == MN_OK ? mn_io_posix.mkdir(path) : status;
}

static enum mn_status failing_sync_dir(const char *path)
{
    enum mn_status status = change();
    return status == MN_OK ? mn_io_posix.sync_dir(path) : status;
}

struct mn_io fail_once_io(void)
{
    struct mn_io io = mn_io_posix;
    io.write = failing_write;
    io.datasync = failing_datasync;
    io.rename = failing_rename;
    io.mkdir = failing_mkdir;
    io.sync_dir = failing_sync_dir;
    return io;
}
