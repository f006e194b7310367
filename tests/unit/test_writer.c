/*
 * test_writer.c - opening and closing: what the writer takes over, and what it refuses to begin on.
 */
#include "tests/unit/store_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void it_waits_for_recovery_and_for_the_lock(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_writer *second = NULL;
    fixture_open_instance(f);
    fails(MN_NOT_READY, mn_writer_open(&second, &f->store, &f->instance, &f->settings, NULL));
    ok(fixture_recover(f));
    fixture_open_writer(f);
    fails(MN_BUSY, mn_writer_open(&second, &f->store, &f->instance, &f->settings, NULL));
    assert_null(second);
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 1);
    mn_writer_close(NULL);
    fixture_free(f);
}

/* A writer that opens and closes leaves no trace in the log. */
static void opening_begins_no_segment(void **state)
{
    struct fixture *f = fixture_new();
    for (int i = 0; i < 5; i++)
        fixture_restart(f);
    assert_int_equal(f->report.log_segments, 0);
    assert_true(fixture_files(f, "wal", ".wal") <= 2);
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    for (int i = 0; i < 5; i++)
        fixture_restart(f);
    assert_int_equal(f->report.log_segments, 1);
    assert_int_equal(fixture_count(f), 1);
    fixture_free(f);
}

/* In one instance the same view may be taken over again, as after a crash of the role alone. */
static void a_view_is_taken_over_again_after_recovery(void **state)
{
    struct fixture *f = fixture_new();
    for (uint64_t life = 1; life <= 10; life++) {
        fixture_put(f, "s", life, life, "x");
        fixture_put(f, "s", 100, life, "again");
        if (life > 2)
            assert_int_equal(fixture_forget(f, "s", life - 2, MN_FORGET_DELETE), 1);
        fixture_commit(f);
        fixture_crash(f);
        ok(fixture_recover(f));
        fixture_open_writer(f);
        assert_int_equal(fixture_count(f), life > 1 ? 3 : 2);
        assert_true(fixture_holds(f, "s", 100, life, "again"));
    }
    fixture_free(f);
}

static void a_damaged_handover_is_refused(void **state)
{
    struct fixture *f = fixture_prepare();
    char path[256];
    struct mn_writer *writer = NULL;
    fixture_open_instance(f);
    ok(fixture_recover(f));
    snprintf(path, sizeof path, "%s/ledger.%llu", f->instance.path,
             (unsigned long long)atomic_load(&f->instance.control->instance_gen));
    assert_int_equal(truncate(path, 3), 0);
    fails(MN_CORRUPT, mn_writer_open(&writer, &f->store, &f->instance, &f->settings, NULL));
    assert_int_equal(unlink(path), 0);
    fails(MN_NOT_FOUND, mn_writer_open(&writer, &f->store, &f->instance, &f->settings, NULL));
    ok(fixture_recover(f)); /* the lock was let go, and a new recovery hands over again */
    fixture_open_writer(f);
    fixture_free(f);
}

static void a_purge_in_the_log_waits_across_a_death(void **state)
{
    struct fixture *f = fixture_new();
    uint64_t files;
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    assert_false(mn_writer_purge_waits(f->writer));
    fixture_forget(f, "s", 1, MN_FORGET_PURGE);
    assert_true(mn_writer_purge_waits(f->writer));
    fixture_commit(f);
    fixture_restart(f);
    assert_true(mn_writer_purge_waits(f->writer));
    assert_int_equal(mn_writer_purged_seq(f->writer, &files), 0);
    fixture_free(f);
}

/* Log segments of another size than the setting says stay readable. */
static void the_segment_size_may_change_between_lives(void **state)
{
    struct fixture *f = fixture_new();
    for (uint64_t life = 1; life <= 6; life++) {
        fixture_put(f, "s", life, life, "x");
        fixture_commit(f);
        f->settings.wal_segment_bytes = life % 2 ? 4u << 20 : 1u << 20;
        fixture_restart(f);
        assert_int_equal(fixture_count(f), life);
        assert_false(f->report.lost);
    }
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_waits_for_recovery_and_for_the_lock),
        cmocka_unit_test(opening_begins_no_segment),
        cmocka_unit_test(a_view_is_taken_over_again_after_recovery),
        cmocka_unit_test(a_damaged_handover_is_refused),
        cmocka_unit_test(a_purge_in_the_log_waits_across_a_death),
        cmocka_unit_test(the_segment_size_may_change_between_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
