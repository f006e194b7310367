/*
 * copied_log.c - a store whose log is kept twice (see copied_log.h).
 */
#include "tests/unit/copied_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/verify.h"
#include "engine/wal.h"

#define PATIENCE_MS 120000

_Atomic enum copied_log_state copied_log_disk;
_Atomic enum copied_log_call copied_log_hanging;
char copied_log_dir[80];
static _Atomic bool in_copy[1024]; /* by file descriptor */

static bool below_copy(const char *path)
{
    return strncmp(path, copied_log_dir, strlen(copied_log_dir)) == 0;
}

static void hang(enum copied_log_call call, bool in_it)
{
    while (in_it && copied_log_disk == COPY_HANGS &&
           (copied_log_hanging == call || copied_log_hanging == COPY_ALL_CALLS))
        usleep(1000);
}

static enum mn_status copy_open(const char *path, int flags, int *fd)
{
    hang(COPY_OPENS, below_copy(path));
    if (copied_log_disk == COPY_NO_OPEN && below_copy(path))
        return MN_FAIL(MN_SYSTEM, "cannot open %s: Input/output error", path);
    enum mn_status status = mn_io_posix.open(path, flags, fd);
    if (status == MN_OK)
        in_copy[*fd] = below_copy(path);
    return status;
}

static enum mn_status copy_write(int fd, const void *data, size_t bytes, uint64_t offset)
{
    hang(COPY_WRITES, in_copy[fd]);
    return copied_log_disk == COPY_NO_WRITE && in_copy[fd] ? MN_FAIL(MN_SYSTEM, "cannot write: Input/output error")
                                                           : mn_io_posix.write(fd, data, bytes, offset);
}

static enum mn_status copy_sync(int fd)
{
    return copied_log_disk == COPY_NO_SYNC && in_copy[fd] ? MN_FAIL(MN_SYSTEM, "fdatasync: Input/output error")
                                                          : mn_io_posix.datasync(fd);
}

static enum mn_status copy_reserve(int fd, uint64_t bytes)
{
    hang(COPY_RESERVES, in_copy[fd]);
    bool full = (copied_log_disk == COPY_NO_ROOM || copied_log_disk == COPY_NO_WRITE) && in_copy[fd];
    return full ? MN_FAIL(MN_READ_ONLY, "no space left on device") : mn_io_posix.reserve(fd, bytes);
}

static enum mn_status copy_rename(const char *from, const char *to)
{
    hang(COPY_RENAMES, below_copy(to));
    return mn_io_posix.rename(from, to);
}

static enum mn_status copy_unlink(const char *path)
{
    hang(COPY_UNLINKS, below_copy(path));
    return mn_io_posix.unlink(path);
}

struct fixture *copied_log_prepare(void)
{
    static struct mn_io io;
    struct fixture *f = fixture_prepare();
    io = mn_io_posix;
    io.open = copy_open;
    io.write = copy_write;
    io.datasync = copy_sync;
    io.reserve = copy_reserve;
    io.rename = copy_rename;
    io.unlink = copy_unlink;
    f->store.io = &io;
    copied_log_disk = COPY_WELL;
    copied_log_hanging = COPY_ALL_CALLS;
    snprintf(copied_log_dir, sizeof copied_log_dir, "%s.copy", f->dir);
    f->settings.store_copies = 2;
    f->settings.store_copy_wait = MN_SECONDS(60); /* a disk that others keep busy is not one that hangs */
    snprintf(f->settings.store_copy_dir, sizeof f->settings.store_copy_dir, "%s", copied_log_dir);
    return f;
}

void copied_log_end(struct fixture *f)
{
    fixture_power_cut(f);
    f->store.io = &mn_io_posix;
    ok(mn_io_remove_tree(&mn_io_posix, copied_log_dir));
    fixture_free(f);
}

bool copied_log_degraded(const struct fixture *f)
{
    return atomic_load(&f->instance.control->reasons) & MN_DEGRADED_COPY;
}

void copied_log_await_current(struct fixture *f)
{
    char text[512];
    for (int ms = 0; copied_log_degraded(f) && ms < PATIENCE_MS; ms += 10) {
        mn_writer_tend(f->writer, mn_wall_ns());
        usleep(10000);
    }
    if (copied_log_degraded(f) && mn_writer_news(f->writer, text, sizeof text))
        print_error("%s\n", text);
    assert_false(copied_log_degraded(f));
}

uint8_t *copied_log_slurp(const char *dir, uint64_t number, size_t *bytes)
{
    char path[MN_PATH_MAX];
    void *data;
    snprintf(path, sizeof path, "%s/wal/%08llu.wal", dir, (unsigned long long)number);
    if (mn_io_slurp(&mn_io_posix, path, 1u << 30, &data, bytes) != MN_OK)
        return NULL;
    return data;
}

uint32_t copied_log_check_twins(struct fixture *f)
{
    uint64_t *numbers;
    uint32_t count, begun = 0;
    ok(mn_wal_list(&f->store, &numbers, &count));
    for (uint32_t i = 0; i < count; i++) {
        size_t ours, theirs = 0;
        uint8_t *a = copied_log_slurp(f->dir, numbers[i], &ours),
                *b = copied_log_slurp(copied_log_dir, numbers[i], &theirs);
        assert_non_null(a);
        bool unused = a[0] == 0 && memcmp(a, a + 1, ours - 1) == 0;
        if (!unused) {
            begun++;
            assert_non_null(b);
            assert_int_equal(ours, theirs);
            assert_memory_equal(a, b, ours);
        }
        free(a);
        free(b);
    }
    free(numbers);
    return begun;
}

void copied_log_put(struct fixture *f, uint64_t first, uint64_t end_)
{
    for (uint64_t id = first; id < end_; id++) {
        fixture_put(f, "s", id, id, "content of a memory");
        if (id % 3 == 0)
            fixture_commit(f);
    }
    fixture_commit(f);
}

void copied_log_check(struct fixture *f, uint64_t first, uint64_t end_)
{
    for (uint64_t id = first; id < end_; id++)
        assert_true(fixture_holds(f, "s", id, id, "content of a memory"));
}

void copied_log_seal(struct fixture *f)
{
    uint64_t sealed;
    ok(mn_writer_seal(f->writer, &sealed));
}

uint32_t copied_log_damages(struct fixture *f)
{
    uint32_t damaged = 0;
    struct mn_verify_result result;
    ok(mn_verify(&f->store, atomic_load(&f->instance.control->durable_seq), count_damage, NULL, &damaged, &result));
    return damaged;
}
