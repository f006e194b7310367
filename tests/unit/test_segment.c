/*
 * test_segment.c - shared memory files: made whole or not at all, and refused when they are not what they should be.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/segment.h"

struct folder {
    char path[64];
    int fd;
    struct mn_segment_identity identity;
};

static int open_folder(void **state)
{
    struct folder *f = calloc(1, sizeof *f);
    snprintf(f->path, sizeof f->path, "/tmp/mn-segment-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    f->fd = open(f->path, O_RDONLY | O_DIRECTORY);
    f->identity =
        (struct mn_segment_identity){.magic = 77, .fingerprint = 88, .boot_id = "boot", .instance = "instance"};
    *state = f;
    return 0;
}

static int close_folder(void **state)
{
    struct folder *f = *state;
    unlinkat(f->fd, "a", 0);
    unlinkat(f->fd, "b", 0);
    close(f->fd);
    rmdir(f->path);
    free(f);
    return 0;
}

static void a_segment_is_zero_and_found_when_published(void **state)
{
    struct folder *f = *state;
    struct mn_segment made, seen;
    struct stat st;
    assert_int_equal(mn_segment_map(&seen, f->fd, "a", false, &f->identity), MN_NOT_FOUND);
    assert_int_equal(mn_segment_create(&made, f->fd, "a", 10000, &f->identity, 0640), MN_OK);
    assert_int_equal(made.bytes, 10000);
    assert_int_equal(fstatat(f->fd, "a", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    for (size_t i = sizeof(struct mn_segment_header); i < 10000; i++)
        assert_int_equal(((uint8_t *)made.base)[i], 0);
    assert_int_equal(mn_segment_map(&seen, f->fd, "a", false, &f->identity), MN_NOT_READY);
    assert_null(seen.base);
    ((uint8_t *)made.base)[9999] = 42;
    mn_segment_publish(&made);
    assert_int_equal(mn_segment_map(&seen, f->fd, "a", false, &f->identity), MN_OK);
    assert_int_equal(((uint8_t *)seen.base)[9999], 42);
    assert_int_equal(seen.bytes, 10000);
    mn_segment_unmap(&seen);
    mn_segment_unmap(&seen); /* harmless */
    assert_int_equal(mn_segment_map(&seen, f->fd, "a", true, &f->identity), MN_OK);
    ((uint8_t *)seen.base)[9998] = 43;
    assert_int_equal(((uint8_t *)made.base)[9998], 43);
    mn_segment_unmap(&seen);
    mn_segment_unmap(&made);
}

static void an_existing_file_is_never_taken(void **state)
{
    struct folder *f = *state;
    struct mn_segment a, b;
    assert_int_equal(mn_segment_create(&a, f->fd, "a", 4096, &f->identity, 0600), MN_OK);
    assert_int_equal(mn_segment_create(&b, f->fd, "a", 4096, &f->identity, 0600), MN_SYSTEM);
    assert_null(b.base);
    struct stat st;
    assert_int_equal(fstatat(f->fd, "a", &st, 0), 0); /* and not removed either */
    mn_segment_unmap(&a);
    assert_int_equal(symlinkat("a", f->fd, "b"), 0);
    assert_int_not_equal(mn_segment_map(&b, f->fd, "b", true, &f->identity), MN_OK); /* no links are followed */
}

static void what_does_not_fit_is_not_made(void **state)
{
    struct folder *f = *state;
    struct mn_segment a;
    struct stat st;
    assert_int_not_equal(mn_segment_create(&a, f->fd, "a", UINT64_C(1) << 62, &f->identity, 0600), MN_OK);
    assert_int_not_equal(fstatat(f->fd, "a", &st, 0), 0);
    assert_int_equal(mn_segment_create(&a, f->fd, "a", 4096, &f->identity, 0600), MN_OK);
    mn_segment_unmap(&a);
}

static enum mn_status map_changed(struct folder *f, size_t offset, uint8_t byte)
{
    struct mn_segment writer, reader;
    int fd = openat(f->fd, "a", O_RDWR);
    uint8_t old;
    assert_int_equal(pread(fd, &old, 1, (off_t)offset), 1);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    enum mn_status status = mn_segment_map(&reader, f->fd, "a", false, &f->identity);
    if (status != MN_OK)
        assert_null(reader.base);
    mn_segment_unmap(&reader);
    assert_int_equal(pwrite(fd, &old, 1, (off_t)offset), 1);
    close(fd);
    assert_int_equal(mn_segment_map(&writer, f->fd, "a", true, &f->identity), MN_OK);
    mn_segment_unmap(&writer);
    return status;
}

static void every_foreign_header_is_refused(void **state)
{
    struct folder *f = *state;
    struct mn_segment a;
    assert_int_equal(mn_segment_create(&a, f->fd, "a", 8192, &f->identity, 0600), MN_OK);
    mn_segment_publish(&a);
    mn_segment_unmap(&a);
    for (size_t at = 0; at < 64; at++) /* all of the header but the spare bytes behind `ready` */
        assert_int_equal(map_changed(f, at, 0xa5), MN_CORRUPT);
    assert_int_equal(map_changed(f, 64, 0), MN_NOT_READY);
    assert_int_equal(map_changed(f, 64, 2), MN_NOT_READY);

    struct mn_segment_identity other = f->identity;
    other.instance[0] ^= 1;
    assert_int_equal(mn_segment_map(&a, f->fd, "a", false, &other), MN_CORRUPT);
    memset(other.instance, 0, sizeof other.instance); /* any */
    assert_int_equal(mn_segment_map(&a, f->fd, "a", false, &other), MN_OK);
    mn_segment_unmap(&a);
    other.magic++;
    assert_int_equal(mn_segment_map(&a, f->fd, "a", false, &other), MN_CORRUPT);
    other = f->identity;
    other.fingerprint++;
    assert_int_equal(mn_segment_map(&a, f->fd, "a", false, &other), MN_CORRUPT);
    other = f->identity;
    other.boot_id[15]++;
    assert_int_equal(mn_segment_map(&a, f->fd, "a", false, &other), MN_CORRUPT);
}

static void every_other_length_is_refused(void **state)
{
    struct folder *f = *state;
    struct mn_segment a;
    char path[128];
    assert_int_equal(mn_segment_create(&a, f->fd, "a", 8192, &f->identity, 0600), MN_OK);
    mn_segment_publish(&a);
    mn_segment_unmap(&a);
    snprintf(path, sizeof path, "%s/a", f->path);
    static const struct {
        off_t bytes;
        enum mn_status status;
    } cases[] = {{8193, MN_CORRUPT},  {8191, MN_CORRUPT}, {4096, MN_CORRUPT}, {128, MN_CORRUPT},
                 {127, MN_NOT_READY}, {1, MN_NOT_READY},  {0, MN_NOT_READY}};
    for (size_t i = 0; i < MN_ARRAY_LEN(cases); i++) {
        assert_int_equal(truncate(path, cases[i].bytes), 0);
        assert_int_equal(mn_segment_map(&a, f->fd, "a", false, &f->identity), cases[i].status);
        assert_null(a.base);
    }
}

#define in_folder(test) cmocka_unit_test_setup_teardown(test, open_folder, close_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(a_segment_is_zero_and_found_when_published),
        in_folder(an_existing_file_is_never_taken),
        in_folder(what_does_not_fit_is_not_made),
        in_folder(every_foreign_header_is_refused),
        in_folder(every_other_length_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
