/*
 * test_writer_tend.c - housekeeping: limbo and pinned readers, history, expiring keys, what earlier processes left.
 */
#include "tests/unit/store_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/process.h"

static uint32_t shared_files(struct fixture *f, const char *prefix)
{
    uint32_t count = 0;
    DIR *dir = opendir(f->instance.path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(dir);
    return count;
}

/* The keeper's thread removes files at its own pace. */
static void tend_until(struct fixture *f, const char *prefix, uint32_t wanted)
{
    await_tended(f, shared_files(f, prefix) == wanted);
}

static void rotate(struct fixture *f, uint64_t id)
{
    uint64_t sealed;
    fixture_put(f, "s", id, id, "x");
    fixture_commit(f);
    ok(mn_writer_seal(f->writer, &sealed));
}

static void old_views_go_when_nobody_pins_them(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    rotate(f, 1);
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    for (uint64_t id = 2; id <= 6; id++)
        rotate(f, id);
    for (int i = 0; i < 8; i++) {
        usleep(30000);
        mn_writer_tend(f->writer, mn_wall_ns());
    }
    char path[256];
    snprintf(path, sizeof path, "%s/view.%llu", f->instance.path, (unsigned long long)snapshot.gen);
    assert_int_equal(access(path, F_OK), 0); /* it is pinned */
    mn_reader_unpin(reader);
    tend_until(f, "view.", 1);
    ok(mn_reader_pin(reader, 0, &snapshot));
    assert_int_equal(snapshot.part_count, 6);
    mn_reader_close(reader);
    fixture_free(f);
}

/* A reader that was stopped too long does not keep files for ever. */
static void a_pin_that_is_too_old_keeps_nothing(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    rotate(f, 1);
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    rotate(f, 2);
    rotate(f, 3);
    f->settings.reader_max_age = 1000000;
    mn_writer_reload(f->writer, &f->settings);
    usleep(2000);
    tend_until(f, "view.", 1);
    mn_reader_close(reader);
    fixture_free(f);
}

/* Files of the dead: older tails, views, liveness and ledgers; not what the newest view names. */
static void what_earlier_processes_left_is_swept(void **state)
{
    struct fixture *f = fixture_new();
    static const char *const leftovers[] = {"tail.999.1", "live.999.3", "ledger.999", "view.0", "tail.1.77"};
    for (int death = 0; death < 3; death++) {
        rotate(f, 1 + (uint64_t)death);
        fixture_crash(f);
        ok(fixture_recover(f));
        ok(fixture_recover(f));
        for (size_t i = 0; i < MN_ARRAY_LEN(leftovers); i++) {
            int fd = openat(f->instance.dir_fd, leftovers[i], O_CREAT | O_WRONLY, 0600);
            assert_true(fd >= 0);
            close(fd);
        }
        fixture_open_writer(f);
    }
    tend_until(f, "view.", 1);
    tend_until(f, "tail.", 3);
    tend_until(f, "live.", 0);
    tend_until(f, "ledger.", 0);
    assert_int_equal(shared_files(f, "control") + shared_files(f, "readers") + shared_files(f, "stats"), 3);
    assert_int_equal(fixture_count(f), 3);
    fixture_free(f);
}

static void history_follows_the_window(void **state)
{
    struct fixture *f = fixture_prepare();
    f->settings.history_window = UINT64_C(1000000000000);
    fixture_start(f);
    int64_t now = INT64_C(5000000000000);
    const _Atomic uint64_t *history = &f->instance.control->history_seq;
    uint64_t seen = 0;
    for (uint64_t seq = 1; seq <= 40; seq++) { /* one seq each 100 s; the window is 1000 s */
        fixture_put(f, "s", seq, seq, "x");
        fixture_commit(f);
        usleep(101000);
        mn_writer_tend(f->writer, now);
        assert_true(atomic_load(history) >= seen);
        seen = atomic_load(history);
        assert_int_equal(seen, seq > 10 ? seq - 10 : 0);
        now += INT64_C(100000000000);
    }
    fixture_free(f);
}

static void without_a_window_history_is_now(void **state)
{
    struct fixture *f = fixture_new();
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    mn_writer_tend(f->writer, mn_wall_ns());
    assert_int_equal(atomic_load(&f->instance.control->history_seq), 1);
    fixture_free(f);
}

static void gauges_say_what_there_is(void **state)
{
    struct fixture *f = fixture_new();
    for (uint64_t id = 1; id <= 3; id++)
        rotate(f, id);
    fixture_forget(f, "s", 2, MN_FORGET_DELETE);
    fixture_commit(f);
    assert_int_equal(mn_stats_value(&f->instance.stats, MN_STAT_tail_rows), 3); /* told at the acknowledgement */
    usleep(110000);
    mn_writer_tend(f->writer, mn_wall_ns());
    assert_int_equal(mn_stats_value(&f->instance.stats, MN_STAT_index_entries), 2);
    assert_int_equal(mn_stats_value(&f->instance.stats, MN_STAT_wal_segments), 4);
    assert_int_equal(mn_stats_value(&f->instance.stats, MN_STAT_write_memories), 3);
    assert_int_equal(mn_stats_value(&f->instance.stats, MN_STAT_write_forgets), 1);
    assert_int_equal(mn_stats_value(&f->instance.stats, MN_STAT_wal_syncs), 4);
    assert_int_equal(mn_stats_value(&f->instance.stats, MN_STAT_purges_pending), 0);
    fixture_free(f);
}

static void a_purge_is_told_of_in_the_same_turn(void **state)
{
    struct fixture *f = fixture_new();
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    mn_writer_tend(f->writer, mn_wall_ns()); /* the other gauges rest for a while from here */
    fixture_forget(f, "s", 1, MN_FORGET_PURGE);
    fixture_commit(f);
    mn_writer_tend(f->writer, mn_wall_ns());
    assert_int_equal(mn_stats_value(&f->instance.stats, MN_STAT_purges_pending), 1);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_views_go_when_nobody_pins_them),   cmocka_unit_test(a_pin_that_is_too_old_keeps_nothing),
        cmocka_unit_test(what_earlier_processes_left_is_swept), cmocka_unit_test(history_follows_the_window),
        cmocka_unit_test(without_a_window_history_is_now),      cmocka_unit_test(gauges_say_what_there_is),
        cmocka_unit_test(a_purge_is_told_of_in_the_same_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
