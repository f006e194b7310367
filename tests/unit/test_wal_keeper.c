/*
 * test_wal_keeper.c - the writer's helper thread: segments ahead, the mark, removals, and a disk that is full.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/wal.h"

#define SEGMENT_BYTES (256u << 10)

static _Atomic uint64_t acked;
static _Atomic bool disk_is_full;
static _Atomic bool stuck; /* a file that cannot be unlinked */

static enum mn_status reserve_if_room(int fd, uint64_t bytes)
{
    return disk_is_full ? MN_FAIL(MN_READ_ONLY, "no space") : mn_io_posix.reserve(fd, bytes);
}

static struct mn_wal_keeper *start(struct fixture *f, uint32_t ahead, uint64_t next)
{
    struct mn_wal_keeper *keeper;
    ok(mn_wal_keeper_start(&keeper, &f->store, NULL, SEGMENT_BYTES, ahead, 0, next, &acked));
    return keeper;
}

static void check_zero(struct fixture *f, uint64_t number)
{
    struct mn_wal_segment segment;
    ok(mn_wal_map(&segment, &f->store, number));
    assert_true(segment.unused);
    assert_int_equal(segment.bytes, SEGMENT_BYTES);
    for (uint64_t i = 0; i < segment.bytes; i++)
        assert_int_equal(segment.base[i], 0);
    mn_wal_unmap(&segment);
}

static void segments_come_in_order_and_zeroed(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_wal_keeper *keeper = start(f, 2, 5);
    for (uint64_t wanted = 5; wanted < 15; wanted++) {
        uint64_t number;
        ok(mn_wal_keeper_take(keeper, 60000, &number));
        assert_int_equal(number, wanted);
        check_zero(f, number);
    }
    await(mn_wal_keeper_ready(keeper) >= 1);
    mn_wal_keeper_stop(keeper);
    mn_wal_keeper_stop(NULL);
    assert_int_equal(fixture_files(f, "wal", ".tmp"), 0);
    fixture_free(f);
}

/* A keeper comes, has segment 1, and goes; the file it has there. */
static ino_t first_segment(struct fixture *f)
{
    uint64_t number;
    char path[MN_PATH_MAX];
    struct stat st;
    struct mn_wal_keeper *keeper = start(f, 1, 1);
    ok(mn_wal_keeper_take(keeper, 60000, &number));
    assert_int_equal(number, 1);
    mn_wal_keeper_stop(keeper);
    assert_int_equal(stat(mn_store_wal_path(&f->store, path, 1), &st), 0);
    return st.st_ino;
}

/* What an earlier process prepared is taken, but only if it is as it should be. */
static void a_prepared_segment_is_taken_when_it_is_all_zero(void **state)
{
    struct fixture *f = fixture_prepare();
    char path[MN_PATH_MAX];
    ino_t before = first_segment(f);
    assert_int_equal(first_segment(f), before);
    fixture_flip(f, "wal/00000001.wal", 100000, 1); /* a batch that landed without its segment's header */
    first_segment(f);
    check_zero(f, 1);
    assert_int_equal(truncate(mn_store_wal_path(&f->store, path, 1), SEGMENT_BYTES / 2), 0); /* another segment_bytes */
    first_segment(f);
    check_zero(f, 1);
    fixture_free(f);
}

/* The second page of what is mapped lies behind the end of a file, as one that the disk cannot read seems to. */
static enum mn_status map_bad(int fd, uint64_t bytes, const void **base)
{
    MN_TRY(mn_io_posix.map(fd, bytes, base));
    int empty = memfd_create("bad page", MFD_CLOEXEC);
    assert_true(empty >= 0);
    uint8_t *page = (uint8_t *)(uintptr_t)*base + MN_WAL_BLOCK;
    assert_ptr_equal(mmap(page, MN_WAL_BLOCK, PROT_READ, MAP_SHARED | MAP_FIXED, empty, 0), page);
    close(empty);
    return MN_OK;
}

static void a_prepared_segment_that_cannot_be_read_is_made_anew(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_io bad = mn_io_posix;
    bad.map = map_bad;
    ino_t before = first_segment(f);
    f->store.io = &bad;
    assert_int_not_equal(first_segment(f), before);
    f->store.io = &mn_io_posix;
    check_zero(f, 1);
    fixture_free(f);
}

static _Atomic uint32_t folder_syncs, folder_syncs_to_fail;

static enum mn_status sync_wal_folder(const char *path)
{
    size_t length = strlen(path);
    if (length < 4 || strcmp(path + length - 4, "/wal") != 0)
        return mn_io_posix.sync_dir(path);
    if (folder_syncs_to_fail > 0) {
        folder_syncs_to_fail--;
        return MN_FAIL(MN_SYSTEM, "the folder could not be synced");
    }
    folder_syncs++;
    return mn_io_posix.sync_dir(path);
}

/* The name of a segment is durable before anything is written to it, whichever try gave it that name. */
static void a_segment_is_taken_only_when_its_name_is_synced(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_io io = mn_io_posix;
    uint64_t number = 0;
    ok(mn_wal_mark_write(&f->store, 0));
    io.sync_dir = sync_wal_folder;
    f->store.io = &io;
    folder_syncs = 0;
    folder_syncs_to_fail = 1;
    struct mn_wal_keeper *keeper = start(f, 1, 1);
    await(mn_wal_keeper_take(keeper, 100, &number) == MN_OK); /* the try that failed is told, and made again */
    assert_int_equal(number, 1);
    assert_int_equal(folder_syncs_to_fail, 0);
    assert_true(folder_syncs > 0);
    mn_wal_keeper_stop(keeper);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

static void the_mark_follows_what_was_acknowledged(void **state)
{
    struct fixture *f = fixture_prepare();
    bool damaged;
    assert_int_equal(mn_wal_mark_read(&f->store, &damaged), 0);
    assert_false(damaged);
    acked = 0;
    struct mn_wal_keeper *keeper = start(f, 1, 1);
    for (uint64_t seq = 10; seq <= 30; seq += 10) {
        acked = seq;
        await(mn_wal_mark_read(&f->store, &damaged) == seq);
        assert_false(damaged);
    }
    acked = 31;
    mn_wal_keeper_stop(keeper); /* at the end at once */
    assert_int_equal(mn_wal_mark_read(&f->store, &damaged), 31);

    /* Any damage to one slot leaves the other; never a larger seq. */
    size_t bytes;
    uint8_t *mark = fixture_slurp(f, "wal/MARK", &bytes);
    assert_int_equal(bytes, 1024);
    for (size_t at = 0; at < bytes; at++) {
        fixture_flip(f, "wal/MARK", at, 0x40);
        uint64_t seq = mn_wal_mark_read(&f->store, &damaged);
        assert_true(damaged);
        assert_true(seq == 31 || seq == 30);
        fixture_flip(f, "wal/MARK", at, 0x40);
    }
    free(mark);
    char path[MN_PATH_MAX];
    for (int length = 0; length < 1024; length += 37) {
        mn_store_path(&f->store, path, "wal/MARK");
        assert_int_equal(truncate(path, 1024 - length), 0);
        assert_true(mn_wal_mark_read(&f->store, &damaged) <= 31);
        assert_int_equal(damaged, length > 0);
    }
    assert_int_equal(truncate(path, 5000), 0);
    assert_true(mn_wal_mark_read(&f->store, &damaged) <= 31);
    assert_true(damaged);

    /* A keeper makes it whole again, and the mark does not go back. */
    ok(mn_wal_mark_write(&f->store, 40));
    assert_int_equal(truncate(path, 600), 0);
    acked = 0;
    mn_wal_keeper_stop(start(f, 1, 1));
    assert_int_equal(mn_wal_mark_read(&f->store, &damaged), 40);
    assert_false(damaged);
    fixture_free(f);
}

static void files_and_folders_are_removed(void **state)
{
    struct fixture *f = fixture_prepare();
    char path[MN_PATH_MAX];
    struct mn_wal_keeper *keeper = start(f, 1, 1);
    ok(mn_io_posix.mkdir(mn_store_path(&f->store, path, "columns/7")));
    ok(mn_io_replace(&mn_io_posix, mn_store_path(&f->store, path, "columns/7/a.col"), "x", 1));
    ok(mn_io_replace(&mn_io_posix, mn_store_path(&f->store, path, "columns/file"), "x", 1));
    ok(mn_wal_keeper_remove(keeper, mn_store_path(&f->store, path, "columns/7")));
    ok(mn_wal_keeper_remove(keeper, mn_store_path(&f->store, path, "columns/file")));
    for (int i = 0; i < 200; i++) /* nothing there is fine */
        ok(mn_wal_keeper_remove(keeper, mn_store_path(&f->store, path, "columns/nothing")));
    await(mn_wal_keeper_removals(keeper) == 0);
    assert_false(fixture_exists(f, "columns/7"));
    assert_false(fixture_exists(f, "columns/file"));
    mn_wal_keeper_stop(keeper);
    keeper = start(f, 1, 1);
    for (int i = 0; i < 100; i++)
        ok(mn_wal_keeper_remove(keeper, path));
    mn_wal_keeper_stop(keeper); /* with removals that were not done */
    fixture_free(f);
}

static enum mn_status unlink_unless_stuck(const char *path)
{
    return stuck && strstr(path, "columns/7/b.col") ? MN_FAIL(MN_SYSTEM, "io error") : mn_io_posix.unlink(path);
}

static void what_cannot_be_removed_is_tried_again(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_io io = mn_io_posix;
    char path[MN_PATH_MAX];
    io.unlink = unlink_unless_stuck;
    f->store.io = &io;
    stuck = true;
    struct mn_wal_keeper *keeper = start(f, 1, 1);
    ok(mn_io_posix.mkdir(mn_store_path(&f->store, path, "columns/7")));
    ok(mn_io_replace(&mn_io_posix, mn_store_path(&f->store, path, "columns/7/b.col"), "x", 1));
    ok(mn_io_replace(&mn_io_posix, mn_store_path(&f->store, path, "columns/file"), "x", 1));
    ok(mn_wal_keeper_remove(keeper, mn_store_path(&f->store, path, "columns/7")));
    ok(mn_wal_keeper_remove(keeper, mn_store_path(&f->store, path, "columns/file")));
    await(mn_wal_keeper_removals(keeper) == 1);
    assert_false(fixture_exists(f, "columns/file")); /* others do not wait for it */
    usleep(100000);
    assert_int_equal(mn_wal_keeper_removals(keeper), 1);
    assert_true(fixture_exists(f, "columns/7/b.col"));
    stuck = false;
    await(mn_wal_keeper_removals(keeper) == 0);
    assert_false(fixture_exists(f, "columns/7"));
    mn_wal_keeper_stop(keeper);
    fixture_free(f);
}

static void a_full_disk_is_told_and_forgotten_when_there_is_room(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_io io = mn_io_posix;
    uint64_t number;
    io.reserve = reserve_if_room;
    f->store.io = &io;
    disk_is_full = true;
    struct mn_wal_keeper *keeper = start(f, 1, 1);
    assert_int_equal(mn_wal_keeper_take(keeper, 60000, &number), MN_READ_ONLY);
    /* It tries again by itself now and then; in between the space is given back. */
    await(mn_wal_keeper_full(keeper) && fixture_files(f, "wal", ".tmp") == 0);
    disk_is_full = false;
    await(mn_wal_keeper_take(keeper, 10, &number) == MN_OK);
    assert_int_equal(number, 1);
    mn_wal_keeper_reserve(keeper, UINT64_MAX);
    await(mn_wal_keeper_full(keeper));
    mn_wal_keeper_reserve(keeper, 0);
    await(!mn_wal_keeper_full(keeper));
    mn_wal_keeper_stop(keeper);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_come_in_order_and_zeroed),
        cmocka_unit_test(a_prepared_segment_is_taken_when_it_is_all_zero),
        cmocka_unit_test(a_prepared_segment_that_cannot_be_read_is_made_anew),
        cmocka_unit_test(a_segment_is_taken_only_when_its_name_is_synced),
        cmocka_unit_test(the_mark_follows_what_was_acknowledged),
        cmocka_unit_test(files_and_folders_are_removed),
        cmocka_unit_test(what_cannot_be_removed_is_tried_again),
        cmocka_unit_test(a_full_disk_is_told_and_forgotten_when_there_is_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
