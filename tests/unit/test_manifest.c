/*
 * test_manifest.c - MANIFEST: the newest edit survives flips, cuts and torn appends, and disks that fail; a state is
 * never made up.
 */
#include "tests/unit/manifest_store.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/fail_once.h"

static void empty_at_first(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest m;
    struct mn_manifest_report report = {{{1, 1, 1, true, true, true}}};
    unlink(f->path);
    unlink(f->copy);
    ok(mn_manifest_read(&m, &f->store, &report));
    assert_int_equal(m.edit, 0);
    assert_int_equal(m.segment_count, 0);
    manifest_expect_report(&report, 0, 0);
    mn_manifest_free(&m);
}

static void newest_edit_is_read(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest_report report;
    manifest_fresh(f, 0, 0);
    for (uint64_t edit = 0; edit < 20; edit++) {
        manifest_append(f, edit, (uint32_t)(edit * 3 % 7));
        manifest_expect_read(f, &report, edit + 1, (uint32_t)(edit * 3 % 7));
        manifest_expect_report(&report, 0, 0);
    }
}

static void stale_edit_is_refused(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest m;
    manifest_fresh(f, 3, 2);
    manifest_state_make(&m, 2, 2);
    assert_int_equal(mn_manifest_append(&m, &f->store), MN_VERSION_MISMATCH);
    assert_int_equal(m.edit, 2);
    mn_manifest_free(&m);
    manifest_expect_read(f, NULL, 3, 2);
}

static void file_rolls(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest_report report;
    struct stat st;
    uint64_t largest = 0, rolls = 0, before = 0;
    manifest_fresh(f, 0, 0);
    for (uint64_t edit = 0; edit < 60; edit++) {
        manifest_append(f, edit, 500);
        assert_int_equal(stat(f->path, &st), 0);
        largest = (uint64_t)st.st_size > largest ? (uint64_t)st.st_size : largest;
        rolls += (uint64_t)st.st_size < before;
        before = (uint64_t)st.st_size;
    }
    assert_true(largest <= MN_MANIFEST_ROLL);
    assert_true(rolls >= 1);
    manifest_expect_read(f, &report, 60, 500);
    manifest_expect_report(&report, 0, 0);
}

/* One flipped bit anywhere: the newest edit is still read, and the damage is reported. */
static void any_flip_is_survived(void **state)
{
    struct manifest_store *f = *state;
    uint8_t *data;
    manifest_fresh(f, 3, 2);
    size_t bytes = manifest_slurp(f, &data);
    for (size_t bit = 0; bit < bytes * 8; bit++) {
        struct mn_manifest m;
        struct mn_manifest_report report;
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        manifest_put(f, data, bytes);
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ok(mn_manifest_read(&m, &f->store, &report));
        manifest_state_expect(&m, 3, 2);
        if (manifest_copy_sound(&report.copies[0]) || manifest_copy_sound(&report.copies[1]))
            fail_msg("flipped bit %zu is not reported", bit);
        mn_manifest_free(&m);
    }
    free(data);
}

/* The first copy as it was in the middle of an append, and the second as it was before. */
static void expect_torn(const struct mn_manifest_report *report, uint64_t torn_bytes, bool late)
{
    assert_int_equal(report->copies[0].torn_bytes, torn_bytes);
    assert_int_equal(report->copies[0].damaged_edits + report->copies[1].damaged_edits, 0);
    assert_false(report->copies[0].behind);
    assert_int_equal(report->copies[1].late, late);
}

/* An append cut anywhere: the state is the one before or the one after. What is appended next is read back. */
static void torn_append(void **state)
{
    struct manifest_store *f = *state;
    uint8_t *data;
    struct stat st;
    manifest_fresh(f, 2, 3);
    assert_int_equal(stat(f->path, &st), 0);
    manifest_append(f, 2, 5);
    size_t bytes = manifest_slurp(f, &data), before = (size_t)st.st_size, single = before + (bytes - before) / 2;
    for (size_t cut = before; cut <= bytes; cut += cut + 40 < bytes ? 13 : 1) {
        struct mn_manifest m;
        struct mn_manifest_report report;
        manifest_put_file(f->path, data, cut);
        manifest_put_file(f->copy, data, before);
        ok(mn_manifest_read(&m, &f->store, &report));
        manifest_state_expect(&m, cut >= single ? 3 : 2, cut >= single ? 5 : 3);
        expect_torn(&report, cut == bytes ? 0 : cut >= single ? cut - single : cut - before, cut >= single);
        uint64_t edit = m.edit;
        mn_manifest_free(&m);
        manifest_append(f, edit, 1);
        manifest_expect_read(f, &report, edit + 1, 1);
        manifest_expect_report(&report, 0, 0);
    }
    free(data);
}

/* The file grew, but none or some of the sectors landed. */
static void torn_with_zero_sectors(void **state)
{
    struct manifest_store *f = *state;
    uint8_t *data;
    struct stat st;
    manifest_fresh(f, 2, 60);
    assert_int_equal(stat(f->path, &st), 0);
    manifest_append(f, 2, 60);
    size_t bytes = manifest_slurp(f, &data), before = (size_t)st.st_size;
    for (size_t sector = before / 512; sector <= bytes / 512; sector++) {
        struct mn_manifest m;
        struct mn_manifest_report report;
        uint8_t *torn = malloc(bytes);
        memcpy(torn, data, bytes);
        size_t begin = sector * 512 > before ? sector * 512 : before;
        memset(torn + begin, 0, bytes - begin);
        manifest_put_file(f->path, torn, bytes);
        manifest_put_file(f->copy, data, before);
        free(torn);
        ok(mn_manifest_read(&m, &f->store, &report));
        bool whole = begin >= before + (bytes - before) / 2;
        manifest_state_expect(&m, whole ? 3 : 2, 60);
        assert_true(report.copies[0].torn_bytes > 0);
        expect_torn(&report, report.copies[0].torn_bytes, whole);
        mn_manifest_free(&m);
    }
    free(data);
}

static void no_valid_edit_is_corrupt(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest m;
    uint8_t *data;
    manifest_fresh(f, 1, 1);
    size_t bytes = manifest_slurp(f, &data);
    struct mn_store stranger = f->store;
    stranger.uuid[0] ^= 1;
    assert_int_equal(mn_manifest_read(&m, &stranger, NULL), MN_CORRUPT);
    memset(data, 0, bytes);
    manifest_put(f, data, bytes);
    assert_int_equal(mn_manifest_read(&m, &f->store, NULL), MN_CORRUPT);
    manifest_put(f, data, 0);
    assert_int_equal(mn_manifest_read(&m, &f->store, NULL), MN_CORRUPT);
    free(data);
}

/* A missing edit in the middle shows in the chain. */
static void lost_edit_is_reported(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest_report report;
    uint8_t *data;
    manifest_fresh(f, 4, 2);
    size_t bytes = manifest_slurp(f, &data), edit = bytes / 4;
    memmove(data + edit, data + 2 * edit, bytes - 2 * edit);
    manifest_put(f, data, bytes - edit);
    manifest_expect_read(f, &report, 4, 2);
    manifest_expect_report(&report, 0, 1);
    free(data);
}

/* ---- a disk that fails once, at its n-th change ---- */

/* An append that failed is there or is not; the one after it is. */
static void failing_disk(void **state)
{
    struct manifest_store *f = *state;
    struct mn_io io = fail_once_io();
    struct mn_store store = f->store;
    store.io = &io;
    for (uint32_t edits = 0; edits < 3; edits++) {
        enum mn_status status = MN_SYSTEM;
        for (uint32_t n = 1; status != MN_OK; n++) {
            struct mn_manifest m;
            manifest_fresh(f, edits, 3);
            manifest_state_make(&m, edits + 1, 5);
            m.edit = edits;
            fail_once.calls = 0;
            fail_once.fail_at = n;
            fail_once.status = MN_SYSTEM;
            status = mn_manifest_append(&m, &store);
            assert_true(status == MN_OK || status == MN_SYSTEM);
            assert_int_equal(m.edit, status == MN_OK ? edits + 1 : edits);
            mn_manifest_free(&m);
            ok(mn_manifest_read(&m, &f->store, NULL));
            uint64_t edit = m.edit;
            assert_true(edit == edits + 1 || (status != MN_OK && edit == edits));
            if (edit > 0)
                manifest_state_expect(&m, edit, edit == edits + 1 ? 5 : 3);
            mn_manifest_free(&m);
            manifest_append(f, edit, 2);
            manifest_expect_read(f, NULL, edit + 1, 2);
        }
        assert_true(fail_once.fail_at > 2);
    }
}

/* ---- a sync that fails: from then on the cache shows what the disk does not have ---- */

static struct {
    const char *path; /* the file */
    uint8_t *disk;    /* what the disk has of it */
    size_t bytes;
    int writing, past_cache;
} unsynced;

static enum mn_status open_unsynced(const char *path, int flags, int *fd)
{
    enum mn_status status = mn_io_posix.open(path, flags, fd);
    bool it = status == MN_OK && strcmp(path, unsynced.path) == 0;
    if (it && flags & MN_IO_WRITE)
        unsynced.writing = *fd;
    if (it && flags & MN_IO_DIRECT)
        unsynced.past_cache = *fd;
    return status;
}

static void close_unsynced(int fd)
{
    if (fd == unsynced.writing)
        unsynced.writing = -1;
    if (fd == unsynced.past_cache)
        unsynced.past_cache = -1;
    mn_io_posix.close(fd);
}

static enum mn_status sync_unsynced(int fd)
{
    return fd == unsynced.writing ? MN_FAIL(MN_SYSTEM, "the sync failed") : MN_OK;
}

static enum mn_status read_unsynced(int fd, void *data, size_t bytes, uint64_t offset)
{
    enum mn_status status = mn_io_posix.read(fd, data, bytes, offset);
    for (size_t i = 0; fd == unsynced.past_cache && i < bytes; i++)
        ((uint8_t *)data)[i] = offset + i < unsynced.bytes ? unsynced.disk[offset + i] : 0;
    return status;
}

/* Nobody acts upon an edit whose sync failed, and none is written behind it. */
static void an_edit_whose_sync_failed_is_none(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest m;
    struct mn_manifest_report report;
    struct mn_io io = manifest_quick_io;
    struct mn_store store = f->store;
    io.open = open_unsynced;
    io.close = close_unsynced;
    io.datasync = sync_unsynced;
    io.read = read_unsynced;
    store.io = &io;
    for (uint32_t segments = 1; segments < 200; segments = segments * 2 + 1) {
        manifest_fresh(f, 2, segments);
        unsynced.path = f->path;
        unsynced.writing = unsynced.past_cache = -1;
        unsynced.bytes = manifest_slurp(f, &unsynced.disk);
        manifest_state_make(&m, 3, 2);
        m.edit = 2;
        assert_int_equal(mn_manifest_append(&m, &store), MN_SYSTEM);
        mn_manifest_free(&m);
        ok(mn_manifest_read(&m, &store, NULL));
        manifest_state_expect(&m, 2, segments);
        mn_manifest_free(&m);
        manifest_state_make(&m, 3, 4);
        m.edit = 2;
        ok(mn_manifest_append(&m, &store)); /* the file is replaced, so its sync does not fail */
        mn_manifest_free(&m);
        manifest_expect_read(f, &report, 3, 4);
        manifest_expect_report(&report, 0, 0);
        free(unsynced.disk);
    }
}

static enum mn_status sync_no_folder(const char *path)
{
    return MN_FAIL(MN_SYSTEM, "cannot sync %s", path);
}

/* Nor upon one in a file whose name may go. */
static void an_edit_without_a_name_for_good_is_none(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest m;
    struct mn_io io = manifest_quick_io;
    struct mn_store store = f->store;
    manifest_fresh(f, 2, 3);
    io.sync_dir = sync_no_folder;
    store.io = &io;
    assert_int_equal(mn_manifest_read(&m, &store, NULL), MN_SYSTEM);
    mn_manifest_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_at_first),
        cmocka_unit_test(newest_edit_is_read),
        cmocka_unit_test(stale_edit_is_refused),
        cmocka_unit_test(file_rolls),
        cmocka_unit_test(any_flip_is_survived),
        cmocka_unit_test(torn_append),
        cmocka_unit_test(torn_with_zero_sectors),
        cmocka_unit_test(no_valid_edit_is_corrupt),
        cmocka_unit_test(failing_disk),
        cmocka_unit_test(an_edit_whose_sync_failed_is_none),
        cmocka_unit_test(an_edit_without_a_name_for_good_is_none),
        cmocka_unit_test(lost_edit_is_reported),
    };
    return cmocka_run_group_tests(tests, manifest_setup, manifest_teardown);
}
