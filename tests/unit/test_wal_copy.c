/*
 * test_wal_copy.c - writing the log twice: equal twins, a copy that fails in every way while the writer goes on, and
 * folders of others.
 */
#include "tests/unit/copied_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/wal.h"
#include "shm/process.h"

/* ---- writing ---- */

static void each_batch_is_in_both(void **state)
{
    struct fixture *f = copied_log_prepare();
    char text[512];
    fixture_start(f);
    assert_false(copied_log_degraded(f));
    copied_log_put(f, 1, 60);
    copied_log_seal(f);
    copied_log_put(f, 60, 90);
    assert_int_equal(copied_log_check_twins(f), 2);
    assert_false(mn_writer_news(f->writer, text, sizeof text));
    assert_int_equal(copied_log_damages(f), 0);
    struct stat st;
    assert_int_equal(stat(copied_log_dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    for (int round = 0; round < 3; round++) {
        fixture_restart(f);
        assert_false(copied_log_degraded(f));
        assert_int_equal(f->report.healed + f->report.quarantined, 0);
        copied_log_put(f, 90 + (uint64_t)round * 10, 100 + (uint64_t)round * 10);
        copied_log_check_twins(f);
    }
    copied_log_check(f, 1, 120);
    copied_log_end(f);
}

/* The store says from its start on that its copy is not there: nothing can be made of it before the disk reserves room.
 */
static void start_without(struct fixture *f, void (*start)(struct fixture *f), const char *why)
{
    char text[512];
    copied_log_hanging = COPY_RESERVES;
    copied_log_disk = COPY_HANGS;
    start(f);
    assert_true(copied_log_degraded(f));
    assert_true(mn_writer_news(f->writer, text, sizeof text));
    assert_non_null(strstr(text, why));
    copied_log_disk = COPY_WELL;
    copied_log_hanging = COPY_ALL_CALLS;
}

/* Turned on late, a new folder, a folder that is lost between two starts: made anew, and said. */
static void a_missing_copy_is_made_anew(void **state)
{
    struct fixture *f = copied_log_prepare();
    char text[512], moved[sizeof copied_log_dir];
    f->settings.store_copies = 1;
    fixture_start(f);
    copied_log_put(f, 1, 40);
    f->settings.store_copies = 2;
    start_without(f, fixture_restart, "missing or empty");
    copied_log_await_current(f);
    assert_true(mn_writer_news(f->writer, text, sizeof text));
    assert_non_null(strstr(text, "kept twice again"));
    copied_log_put(f, 40, 50);
    copied_log_check_twins(f);
    fixture_power_cut(f);
    ok(mn_io_remove_tree(&mn_io_posix, copied_log_dir));
    start_without(f, fixture_start, "missing or empty");
    copied_log_put(f, 50, 60);
    copied_log_await_current(f);
    assert_int_equal(copied_log_check_twins(f), 3);
    fixture_power_cut(f); /* moved by its owner */
    memcpy(moved, copied_log_dir, sizeof moved);
    strcat(copied_log_dir, "2");
    assert_int_equal(rename(moved, copied_log_dir), 0);
    snprintf(f->settings.store_copy_dir, sizeof f->settings.store_copy_dir, "%s/", copied_log_dir);
    fixture_start(f);
    copied_log_await_current(f);
    copied_log_check_twins(f);
    fixture_restart(f);
    assert_false(copied_log_degraded(f));
    copied_log_check(f, 1, 60);
    copied_log_end(f);
}

/* Whatever fails there: the write is acknowledged with the store degraded, and the copy comes back by itself. */
static void a_copy_that_fails_is_left_and_taken_up_again(void **state)
{
    for (int how = COPY_NO_OPEN; how <= COPY_NO_ROOM; how++) {
        struct fixture *f = copied_log_prepare();
        fixture_start(f);
        copied_log_put(f, 1, 20);
        assert_false(copied_log_degraded(f));
        copied_log_disk = how;
        for (int tries = 0; !copied_log_degraded(f) && tries < 600; tries++) {
            uint64_t id = 20 + (uint64_t)tries % 9;
            fixture_put(f, "s", id, id, "content of a memory");
            ok(mn_writer_append(f->writer));
            ok(mn_writer_sync(f->writer));
            assert_true(how == COPY_NO_OPEN || how == COPY_NO_ROOM ||
                        copied_log_degraded(f)); /* before the acknowledgement */
            mn_writer_publish(f->writer);
            mn_writer_acked(f->writer);
            if (how == COPY_NO_OPEN || how == COPY_NO_ROOM) {
                copied_log_seal(f); /* such a disk shows when something is opened or made */
                usleep(100000);
            }
        }
        assert_true(copied_log_degraded(f));
        char text[512];
        assert_true(mn_writer_news(f->writer, text, sizeof text));
        copied_log_put(f, 29, 40);
        copied_log_check(f, 29, 40);
        usleep(1500000);                                            /* tries in vain */
        assert_false(mn_writer_news(f->writer, text, sizeof text)); /* told once */
        assert_true(copied_log_degraded(f));
        copied_log_disk = COPY_WELL;
        copied_log_await_current(f);
        copied_log_check_twins(f);
        copied_log_put(f, 40, 50);
        assert_false(copied_log_degraded(f));
        copied_log_check_twins(f);
        assert_int_equal(copied_log_damages(f), 0);
        fixture_restart(f);
        assert_false(copied_log_degraded(f));
        assert_int_equal(f->report.healed, 0);
        copied_log_check(f, 29, 50);
        copied_log_end(f);
    }
}

static void a_disk_that_hangs_is_left_and_taken_up_again(void **state)
{
    struct fixture *f = copied_log_prepare();
    char text[512];
    f->settings.store_copy_wait = 50000000;
    fixture_start(f);
    copied_log_put(f, 1, 20);
    copied_log_await_current(f); /* so short a wait passes on a busy machine, too */
    copied_log_disk = COPY_HANGS;
    fixture_put(f, "s", 20, 20, "content of a memory");
    ok(mn_writer_append(f->writer));
    ok(mn_writer_sync(f->writer));
    assert_true(copied_log_degraded(f)); /* before the acknowledgement */
    mn_writer_publish(f->writer);
    mn_writer_acked(f->writer);
    assert_true(mn_writer_news(f->writer, text, sizeof text));
    assert_non_null(strstr(text, "store.copy_wait"));
    copied_log_put(f, 21, 40); /* at their own pace */
    copied_log_seal(f);
    copied_log_check(f, 1, 40);
    copied_log_disk = COPY_WELL;
    copied_log_put(f, 40, 50);
    copied_log_await_current(f);
    copied_log_check_twins(f);
    copied_log_put(f, 50, 60);
    copied_log_await_current(f);
    copied_log_check_twins(f);
    assert_int_equal(copied_log_damages(f), 0);
    fixture_restart(f);
    assert_int_equal(f->report.healed, 0);
    copied_log_check(f, 1, 60);
    copied_log_end(f);
}

/* A disk that begins to hang in whatever a new segment needs of it: writes go on, the store says that they are kept
 * once, and the copy comes back by itself. */
static void a_disk_that_hangs_at_a_rotation_is_left_too(void **state)
{
    static const enum copied_log_call calls[] = {COPY_OPENS, COPY_RESERVES, COPY_RENAMES, COPY_UNLINKS};
    for (size_t call = 0; call < MN_ARRAY_LEN(calls); call++) {
        struct fixture *f = copied_log_prepare();
        char text[512];
        uint64_t id = 1;
        f->settings.store_copy_wait = 50000000;
        fixture_start(f);
        for (int round = 0; round < 3; round++, id += 3) {
            copied_log_put(f, id, id + 3);
            copied_log_seal(f);
        }
        copied_log_hanging = calls[call];
        copied_log_disk = COPY_HANGS;
        for (int round = 0; round < 100 && !copied_log_degraded(f); round++, id += 3) {
            copied_log_put(f, id, id + 3);
            copied_log_seal(f);
            mn_writer_tend(f->writer, mn_wall_ns());
        }
        assert_true(copied_log_degraded(f));
        assert_true(mn_writer_news(f->writer, text, sizeof text));
        for (int round = 0; round < 5; round++, id += 3) {
            copied_log_put(f, id, id + 3);
            copied_log_seal(f);
        }
        copied_log_check(f, 1, id);
        copied_log_disk = COPY_WELL;
        copied_log_put(f, id, id + 3);
        copied_log_await_current(f);
        copied_log_put(f, id + 3, id + 6);
        copied_log_await_current(f);
        copied_log_check_twins(f);
        assert_int_equal(copied_log_damages(f), 0);
        fixture_restart(f);
        assert_int_equal(f->report.healed, 0);
        copied_log_check(f, 1, id + 6);
        copied_log_end(f);
    }
}

static void a_copy_that_is_deleted_under_the_writer_is_noticed(void **state)
{
    struct fixture *f = copied_log_prepare();
    fixture_start(f);
    copied_log_put(f, 1, 20);
    ok(mn_io_remove_tree(&mn_io_posix, copied_log_dir));
    for (int i = 0; i < 1000 && !copied_log_degraded(f); i++)
        usleep(10000);
    assert_true(copied_log_degraded(f));
    copied_log_put(f, 20, 30);
    copied_log_await_current(f);
    assert_int_equal(copied_log_check_twins(f), 1);
    copied_log_put(f, 30, 40);
    copied_log_check_twins(f);
    copied_log_check(f, 1, 40);
    copied_log_end(f);
}

/* The writer dies while the copy is behind: the next one knows. */
static void a_copy_that_is_behind_is_not_trusted(void **state)
{
    struct fixture *f = copied_log_prepare();
    fixture_start(f);
    copied_log_put(f, 1, 20);
    copied_log_disk = COPY_NO_WRITE;
    copied_log_put(f, 20, 30);
    assert_true(copied_log_degraded(f));
    fixture_crash(f);
    copied_log_disk = COPY_NO_OPEN; /* so that recovery cannot set it right either */
    ok(fixture_recover(f));
    start_without(f, fixture_open_writer, "not up to date");
    copied_log_await_current(f);
    copied_log_check_twins(f);
    fixture_restart(f);
    assert_int_equal(f->report.healed, 0);
    copied_log_check(f, 1, 30);
    copied_log_end(f);
}

/* ---- folders ---- */

static void folders_of_others_are_refused(void **state)
{
    struct fixture *f = copied_log_prepare(), *other = fixture_prepare();
    struct mn_settings *s = &f->settings;
    char path[256];
    other->settings.store_copies = 2;
    snprintf(other->settings.store_copy_dir, sizeof other->settings.store_copy_dir, "%s", copied_log_dir);
    fixture_start(other);
    fixture_put(other, "s", 1, 1, "x");
    fixture_commit(other);
    fails(MN_EXISTS, mn_copy_folder_check(&f->store, s));
    assert_non_null(strstr(mn_error_text(), "another store"));
    fixture_power_cut(other);
    fails(MN_EXISTS, mn_copy_folder_check(&f->store, s));
    ok(mn_io_remove_tree(&mn_io_posix, copied_log_dir));
    assert_int_equal(mkdir(copied_log_dir, 0700), 0);
    snprintf(path, sizeof path, "%s/letters", copied_log_dir);
    ok(mn_io_replace(&mn_io_posix, path, "x", 1));
    fails(MN_EXISTS, mn_copy_folder_check(&f->store, s));
    assert_int_equal(unlink(path), 0);
    ok(mn_copy_folder_check(&f->store, s)); /* empty */
    snprintf(s->store_copy_dir, sizeof s->store_copy_dir, "relative");
    fails(MN_USAGE, mn_copy_folder_check(&f->store, s));
    snprintf(s->store_copy_dir, sizeof s->store_copy_dir, "%s/copy", f->dir);
    fails(MN_USAGE, mn_copy_folder_check(&f->store, s));
    s->store_copy_dir[0] = 0;
    fails(MN_USAGE, mn_copy_folder_check(&f->store, s));
    s->store_copies = 1;
    ok(mn_copy_folder_check(&f->store, s));
    snprintf(s->store_copy_dir, sizeof s->store_copy_dir, "/nowhere/at/all");
    s->store_copies = 2;
    ok(mn_copy_folder_check(&f->store, s)); /* not reached: the writer tells of it */
    fixture_start(f);
    assert_true(copied_log_degraded(f));
    copied_log_put(f, 1, 5);
    snprintf(s->store_copy_dir, sizeof s->store_copy_dir, "%s", copied_log_dir);
    fixture_free(other);
    copied_log_end(f);
}

/* Another folder of the same store, a snapshot that was started say, does not take over what the first has written. */
static void another_folder_of_the_same_store_is_refused(void **state)
{
    struct fixture *f = copied_log_prepare();
    struct mn_store twin;
    char dir[sizeof f->dir + 8], command[300];
    fixture_start(f);
    copied_log_put(f, 1, 10);
    snprintf(dir, sizeof dir, "%s.two", f->dir);
    snprintf(command, sizeof command, "cp -r %s %s && rm %s/COPY", f->dir, dir, dir);
    assert_int_equal(system(command), 0);
    ok(mn_store_open(&twin, &mn_io_posix, dir));
    fails(MN_EXISTS, mn_copy_folder_check(&twin, &f->settings));
    ok(mn_io_remove_tree(&mn_io_posix, dir));
    /* The note lost, or a folder of both marks damaged: the writer of the right folder goes on. */
    fixture_power_cut(f);
    fixture_flip(f, "COPY", 30, 4);
    ok(mn_copy_folder_check(&f->store, &f->settings));
    fixture_start(f);
    copied_log_await_current(f);
    fixture_restart(f);
    assert_false(copied_log_degraded(f));
    copied_log_end(f);
}

static void back_to_one_copy(void **state)
{
    struct fixture *f = copied_log_prepare();
    char path[MN_PATH_MAX];
    fixture_start(f);
    copied_log_put(f, 1, 20);
    f->settings.store_copies = 1;
    fixture_restart(f);
    assert_false(copied_log_degraded(f));
    assert_false(fixture_exists(f, "COPY"));
    snprintf(path, sizeof path, "%s/wal", copied_log_dir);
    assert_int_not_equal(access(path, F_OK), 0);
    copied_log_put(f, 20, 30);
    f->settings.store_copies = 2;
    fixture_restart(f);
    copied_log_await_current(f);
    copied_log_check_twins(f);
    copied_log_check(f, 1, 30);
    copied_log_end(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_batch_is_in_both),
        cmocka_unit_test(a_missing_copy_is_made_anew),
        cmocka_unit_test(a_copy_that_fails_is_left_and_taken_up_again),
        cmocka_unit_test(a_disk_that_hangs_is_left_and_taken_up_again),
        cmocka_unit_test(a_disk_that_hangs_at_a_rotation_is_left_too),
        cmocka_unit_test(a_copy_that_is_deleted_under_the_writer_is_noticed),
        cmocka_unit_test(a_copy_that_is_behind_is_not_trusted),
        cmocka_unit_test(folders_of_others_are_refused),
        cmocka_unit_test(another_folder_of_the_same_store_is_refused),
        cmocka_unit_test(back_to_one_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
