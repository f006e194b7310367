/*
 * test_io.c - files through the table of functions, small whole files, and folders that go.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/io.h"

static const struct mn_io *io = &mn_io_posix;

struct place {
    char dir[64], path[128], other[128];
};

static int open_place(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    snprintf(p->dir, sizeof p->dir, "/tmp/mn-io-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof p->path, "%s/file", p->dir);
    snprintf(p->other, sizeof p->other, "%s/other", p->dir);
    *state = p;
    return 0;
}

static int close_place(void **state)
{
    struct place *p = *state;
    ok(mn_io_remove_tree(io, p->dir));
    free(p);
    return 0;
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static void a_file_from_making_to_removing(void **state)
{
    struct place *p = *state;
    int fd, second;
    uint64_t bytes;
    char text[16] = {0};
    const void *map;
    fails(MN_NOT_FOUND, io->open(p->path, MN_IO_READ, &fd));
    fails(MN_NOT_FOUND, io->open(p->path, MN_IO_WRITE, &fd));
    ok(io->open(p->path, MN_IO_WRITE | MN_IO_CREATE, &fd));
    fails(MN_SYSTEM, io->open(p->path, MN_IO_WRITE | MN_IO_CREATE, &second));
    ok(io->write(fd, "hello", 5, 10));
    ok(io->size(fd, &bytes));
    assert_int_equal(bytes, 15);
    ok(io->read(fd, text, 7, 8));
    assert_memory_equal(text, "\0\0hello", 7);
    fails(MN_CORRUPT, io->read(fd, text, 7, 9)); /* one byte too far */
    ok(io->reserve(fd, 100000));
    ok(io->size(fd, &bytes));
    assert_int_equal(bytes, 100000);
    ok(io->datasync(fd));
    ok(io->map(fd, 100000, &map));
    assert_memory_equal((const char *)map + 10, "hello", 5);
    io->unmap(map, 100000);
    io->close(fd);
    io->close(-1);
    ok(io->copy(p->path, p->other, &bytes));
    assert_int_equal(bytes, 100000);
    assert_int_not_equal(io->copy(p->path, p->other, &bytes), MN_OK); /* must not exist */
    ok(io->rename(p->other, p->path));
    assert_false(exists(p->other));
    ok(io->unlink(p->path));
    fails(MN_NOT_FOUND, io->unlink(p->path));
    assert_int_not_equal(io->rename(p->path, p->other), MN_OK);
    ok(io->free_bytes(p->dir, &bytes));
    assert_true(bytes > 0);
    assert_int_not_equal(io->free_bytes(p->path, &bytes), MN_OK);
}

static enum mn_status count_name(void *context, const char *name)
{
    uint32_t *count = context;
    return ++*count == 3 ? MN_FAIL(MN_BUSY, "enough") : MN_OK;
}

static void folders_are_made_listed_and_removed(void **state)
{
    struct place *p = *state;
    uint32_t count = 0;
    char path[256];
    ok(io->mkdir(p->path));
    fails(MN_EXISTS, io->mkdir(p->path));
    ok(io->list(p->path, count_name, &count));
    assert_int_equal(count, 0);
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s/%d", p->path, i);
        ok(mn_io_replace(io, path, "x", 1));
    }
    fails(MN_BUSY, io->list(p->path, count_name, &count)); /* stops at the first failure */
    assert_int_equal(count, 3);
    fails(MN_NOT_FOUND, io->list(p->other, count_name, &count));
    assert_int_not_equal(io->rmdir(p->path), MN_OK);
    ok(io->sync_dir(p->path));
    snprintf(path, sizeof path, "%s/inner", p->path);
    ok(io->mkdir(path));
    snprintf(path, sizeof path, "%s/inner/file", p->path);
    ok(mn_io_replace(io, path, "x", 1));
    ok(mn_io_remove_tree(io, p->path));
    assert_false(exists(p->path));
    ok(mn_io_remove_tree(io, p->path));
}

/* A link in a folder is removed, not what it leads to. */
static void removing_follows_no_links(void **state)
{
    struct place *p = *state;
    char path[256], link[256];
    ok(io->mkdir(p->path));
    ok(io->mkdir(p->other));
    snprintf(path, sizeof path, "%s/kept", p->other);
    ok(mn_io_replace(io, path, "x", 1));
    snprintf(link, sizeof link, "%s/link", p->path);
    assert_int_equal(symlink(p->other, link), 0);
    ok(mn_io_remove_tree(io, p->path));
    assert_true(exists(path));
}

static void a_replaced_file_is_whole(void **state)
{
    struct place *p = *state;
    void *data;
    size_t bytes;
    char temporary[256];
    snprintf(temporary, sizeof temporary, "%s.tmp", p->path);
    ok(mn_io_replace(io, p->path, "first", 5));
    int fd = open(temporary, O_CREAT | O_WRONLY, 0600); /* of a try that died */
    assert_int_equal(write(fd, "half of something longer", 24), 24);
    close(fd);
    ok(mn_io_replace(io, p->path, "second!", 7));
    assert_false(exists(temporary));
    ok(mn_io_slurp(io, p->path, 7, &data, &bytes));
    assert_int_equal(bytes, 7);
    assert_string_equal(data, "second!"); /* NUL-terminated */
    free(data);
    fails(MN_TOO_LARGE, mn_io_slurp(io, p->path, 6, &data, &bytes));
    ok(mn_io_replace(io, p->path, "", 0));
    ok(mn_io_slurp(io, p->path, 0, &data, &bytes));
    assert_int_equal(bytes, 0);
    assert_string_equal(data, "");
    free(data);
    fails(MN_NOT_FOUND, mn_io_slurp(io, p->other, 100, &data, &bytes));
    char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    fails(MN_BAD_REQUEST, mn_io_replace(io, longest, "x", 1));
}

/* ---- a disk that fails at each step in turn ---- */

static int calls_left;

static bool fails_now(void)
{
    return calls_left-- == 0;
}

static enum mn_status bad_open(const char *path, int flags, int *fd)
{
    *fd = -1;
    return fails_now() ? MN_FAIL(MN_READ_ONLY, "no space") : io->open(path, flags, fd);
}

static enum mn_status bad_write(int fd, const void *data, size_t bytes, uint64_t offset)
{
    return fails_now() ? MN_FAIL(MN_READ_ONLY, "no space") : io->write(fd, data, bytes, offset);
}

static enum mn_status bad_datasync(int fd)
{
    return fails_now() ? MN_FAIL(MN_SYSTEM, "io error") : io->datasync(fd);
}

static enum mn_status bad_rename(const char *from, const char *to)
{
    return fails_now() ? MN_FAIL(MN_SYSTEM, "io error") : io->rename(from, to);
}

static enum mn_status bad_sync_dir(const char *path)
{
    return fails_now() ? MN_FAIL(MN_SYSTEM, "io error") : io->sync_dir(path);
}

static void a_replace_that_fails_leaves_the_old_or_the_new(void **state)
{
    struct place *p = *state;
    struct mn_io bad = mn_io_posix;
    bad.open = bad_open;
    bad.write = bad_write;
    bad.datasync = bad_datasync;
    bad.rename = bad_rename;
    bad.sync_dir = bad_sync_dir;
    for (int step = 0; step <= 5; step++) {
        void *data;
        size_t bytes;
        ok(mn_io_replace(io, p->path, "old", 3));
        calls_left = step;
        enum mn_status status = mn_io_replace(&bad, p->path, "new", 3);
        assert_int_equal(status == MN_OK, step == 5);
        ok(mn_io_slurp(io, p->path, 10, &data, &bytes));
        assert_string_equal(data, step < 4 ? "old" : "new");
        free(data);
        ok(mn_io_replace(io, p->path, "old", 3)); /* and the next try is not in its own way */
    }
}

/* Whatever its length; nothing is said of what lies behind its end. */
static void a_file_is_read_past_the_cache(void **state)
{
    static const size_t lengths[] = {0, 1, 511, 512, 513, 4095, 4096, 4097, 9000, 12288};
    struct place *p = *state;
    char bytes[12288];
    void *data;
    size_t length;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 7 % 251 + 1);
    for (size_t l = 0; l < MN_ARRAY_LEN(lengths); l++) {
        ok(mn_io_replace(io, p->path, bytes, lengths[l]));
        ok(mn_io_slurp_disk(io, p->path, sizeof bytes, &data, &length));
        assert_int_equal(length, lengths[l]);
        assert_memory_equal(data, bytes, length);
        assert_int_equal(((char *)data)[length], 0);
        free(data);
    }
    fails(MN_TOO_LARGE, mn_io_slurp_disk(io, p->path, sizeof bytes - 1, &data, &length));
    fails(MN_NOT_FOUND, mn_io_slurp_disk(io, p->other, sizeof bytes, &data, &length));
}

#define in_place(test) cmocka_unit_test_setup_teardown(test, open_place, close_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_place(a_file_from_making_to_removing),
        in_place(folders_are_made_listed_and_removed),
        in_place(removing_follows_no_links),
        in_place(a_replaced_file_is_whole),
        in_place(a_replace_that_fails_leaves_the_old_or_the_new),
        in_place(a_file_is_read_past_the_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
