/*
 * test_writer_commit.c - room in the log, rotation, sealing, and what is visible and durable after which step.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/record.h"

static enum mn_status remember_big(struct fixture *f, uint64_t id, uint32_t content_bytes, struct mn_outcome *outcome)
{
    char *big = malloc(content_bytes + 1);
    memset(big, 'x', content_bytes);
    struct mn_memory m = fixture_memory(id, id, NULL);
    m.content = (struct mn_str){big, content_bytes};
    struct mn_remember request = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
    enum mn_status status = mn_writer_remember(f->writer, &request, outcome);
    free(big);
    return status;
}

static void nothing_is_visible_before_publish(void **state)
{
    struct fixture *f = fixture_new();
    assert_false(mn_writer_pending(f->writer));
    ok(mn_writer_append(f->writer)); /* with nothing admitted the steps do nothing */
    ok(mn_writer_sync(f->writer));
    mn_writer_publish(f->writer);
    fixture_put(f, "s", 1, 1, "one");
    fixture_put(f, "s", 2, 2, "two");
    assert_true(mn_writer_pending(f->writer));
    assert_int_equal(mn_writer_batch_memories(f->writer), 2);
    assert_true(mn_writer_batch_bytes(f->writer) > 0);
    assert_int_equal(fixture_count(f), 0);
    ok(mn_writer_append(f->writer));
    assert_int_equal(fixture_count(f), 0);
    ok(mn_writer_sync(f->writer));
    assert_int_equal(fixture_count(f), 0);
    mn_writer_publish(f->writer);
    assert_int_equal(fixture_count(f), 2);
    assert_int_equal(atomic_load(&f->instance.control->durable_seq), 2);
    assert_int_equal(atomic_load(&f->instance.control->visible_seq), 2);
    assert_int_equal(atomic_load(&f->instance.control->acked_seq), 0);
    mn_writer_acked(f->writer);
    assert_int_equal(atomic_load(&f->instance.control->acked_seq), 2);
    assert_false(mn_writer_pending(f->writer));
    fixture_free(f);
}

static enum mn_status revise_confidence(struct fixture *f, uint64_t id)
{
    struct mn_outcome outcome;
    struct mn_revise request = {.write = fixture_write(f, "s"), .id = number_id(id), .set_confidence = true};
    request.set.confidence = 0.5f;
    return mn_writer_revise(f->writer, &request, &outcome);
}

/* Admits 1 and 2, and while they are on their way to the disk another 2, and 3. */
static struct fixture *new_with_two_batches(void)
{
    struct fixture *f = fixture_new();
    fixture_put(f, "s", 1, 1, "one");
    fixture_put(f, "s", 2, 2, "two");
    ok(mn_writer_append(f->writer));
    assert_int_equal(mn_writer_batch_memories(f->writer), 0);
    assert_int_equal(mn_writer_batch_bytes(f->writer), 0);
    fixture_put(f, "s", 2, 22, "another two");
    fixture_put(f, "s", 3, 3, "three");
    assert_int_equal(mn_writer_batch_memories(f->writer), 2);
    return f;
}

static void what_comes_while_a_batch_is_written_is_the_next_one(void **state)
{
    struct fixture *f = new_with_two_batches();
    assert_int_equal(revise_confidence(f, 1), MN_NOT_READY);
    ok(mn_writer_sync(f->writer));
    mn_writer_publish(f->writer);
    mn_writer_acked(f->writer);
    assert_int_equal(fixture_count(f), 2);
    assert_true(fixture_holds(f, "s", 2, 2, "two"));
    assert_int_equal(atomic_load(&f->instance.control->durable_seq), 2);
    assert_int_equal(atomic_load(&f->instance.control->visible_seq), 2);
    assert_int_equal(atomic_load(&f->instance.control->acked_seq), 2);
    assert_int_equal(atomic_load(&f->instance.control->tail_rows), 2);
    assert_true(mn_writer_pending(f->writer));
    fixture_commit(f);
    assert_false(mn_writer_pending(f->writer));
    assert_int_equal(fixture_count(f), 3);
    assert_true(fixture_holds(f, "s", 2, 22, "another two"));
    assert_int_equal(atomic_load(&f->instance.control->acked_seq), 4);
    fixture_restart(f);
    assert_int_equal(fixture_count(f), 3);
    assert_true(fixture_holds(f, "s", 2, 22, "another two"));
    assert_false(f->report.lost);
    fixture_free(f);
}

static void the_next_batch_is_gone_when_the_writer_is(void **state)
{
    struct fixture *f = new_with_two_batches();
    ok(mn_writer_sync(f->writer));
    fixture_restart(f);
    assert_int_equal(fixture_count(f), 2);
    assert_true(fixture_holds(f, "s", 2, 2, "two"));
    assert_int_equal(fixture_put(f, "s", 3, 3, "three"), 3);
    fixture_free(f);
}

static void a_segment_is_not_left_while_it_is_written(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    fixture_put(f, "s", 1, 1, "one");
    ok(mn_writer_append(f->writer));
    assert_int_equal(remember_big(f, 2, (1u << 20) - 4 * MN_WAL_BLOCK, &outcome), MN_NOT_READY);
    ok(mn_writer_sync(f->writer));
    mn_writer_publish(f->writer);
    ok(remember_big(f, 2, (1u << 20) - 4 * MN_WAL_BLOCK, &outcome));
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 2);
    fixture_free(f);
}

static void what_was_not_appended_is_gone_and_its_seq_free(void **state)
{
    struct fixture *f = fixture_new();
    fixture_put(f, "s", 1, 1, "one");
    fixture_commit(f);
    fixture_put(f, "s", 2, 2, "never");
    fixture_restart(f);
    assert_int_equal(fixture_count(f), 1);
    assert_true(fixture_absent(f, "s", 2));
    assert_false(f->report.lost);
    assert_int_equal(fixture_put(f, "s", 3, 3, "three"), 2);
    fixture_commit(f);
    fixture_restart(f);
    assert_int_equal(fixture_count(f), 2);
    fixture_free(f);
}

static void seqs_have_an_end_and_do_not_wrap(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    fixture_put(f, "s", 1, 1, "one");
    fixture_commit(f);
    fixture_crash(f);
    ok(fixture_recover(f));
    atomic_store(&f->instance.control->durable_seq, MN_SEQ_MAX - 1);
    fixture_open_writer(f);
    assert_int_equal(remember_big(f, 2, 10, &outcome), MN_OK);
    assert_int_equal(outcome.seq, MN_SEQ_MAX);
    fixture_commit(f);
    assert_int_equal(remember_big(f, 3, 10, &outcome), MN_READ_ONLY);
    fixture_free(f);
}

static void a_full_batch_says_so(void **state)
{
    struct fixture *f = fixture_prepare();
    f->settings.write_batch_bytes = 16384;
    fixture_start(f);
    struct mn_outcome outcome;
    ok(remember_big(f, 1, 60000, &outcome)); /* larger than a batch should be, and alone in it */
    assert_int_equal(remember_big(f, 2, 10, &outcome), MN_NOT_READY);
    fixture_commit(f);
    ok(remember_big(f, 2, 6000, &outcome));
    ok(remember_big(f, 3, 6000, &outcome));
    assert_int_equal(remember_big(f, 4, 6000, &outcome), MN_NOT_READY);
    fixture_commit(f);
    assert_int_equal(outcome.seq, 3);
    assert_int_equal(fixture_count(f), 3);
    fixture_free(f);
}

static void segments_are_rotated_and_seqs_go_on(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    for (uint64_t id = 1; id <= 40; id++) {
        enum mn_status status = remember_big(f, id, 100000, &outcome);
        if (status == MN_NOT_READY) {
            fixture_commit(f);
            status = remember_big(f, id, 100000, &outcome);
        }
        ok(status);
        assert_int_equal(outcome.seq, id);
        if (id % 3 == 0)
            fixture_commit(f);
    }
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 40);
    assert_true(fixture_files(f, "wal", ".wal") >= 4); /* 4 MB in segments of 1 MiB */
    fixture_restart(f);
    assert_int_equal(fixture_count(f), 40);
    assert_int_equal(f->report.last_seq, 40);
    assert_false(f->report.lost);
    fixture_free(f);
}

static void a_request_larger_than_a_segment_is_too_large(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    fixture_put(f, "s", 1, 1, "one");
    enum mn_status status = remember_big(f, 2, 1u << 20, &outcome);
    if (status == MN_NOT_READY) {
        fixture_commit(f);
        status = remember_big(f, 2, 1u << 20, &outcome);
    }
    assert_int_equal(status, MN_TOO_LARGE);
    ok(remember_big(f, 3, (1u << 20) - 4 * MN_WAL_BLOCK, &outcome)); /* just below */
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 2);
    uint32_t segments = fixture_files(f, "wal", ".wal");
    for (int i = 0; i < 20; i++)
        assert_int_equal(remember_big(f, 2, 1u << 20, &outcome), MN_TOO_LARGE);
    assert_true(fixture_files(f, "wal", ".wal") <= segments + 1);
    fixture_free(f);
}

/* Thousands of tags on tiny embeddings: the dictionary of a chunk is the limit, not the bytes of the log. */
static void a_restore_of_more_tags_than_a_chunk_holds_is_refused(void **state)
{
    struct fixture *f = fixture_prepare();
    f->settings.wal_segment_bytes = 16u << 20;
    fixture_start(f);
    struct mn_str tags[MN_TAGS_MAX];
    char names[MN_TAGS_MAX][2];
    for (uint32_t i = 0; i < MN_TAGS_MAX; i++) {
        names[i][0] = (char)('!' + i);
        tags[i] = (struct mn_str){names[i], 1};
    }
    enum { COUNT = 30000 };
    struct mn_id *ids = malloc(COUNT * sizeof *ids);
    struct mn_memory m = fixture_memory(1, 1, NULL);
    struct mn_outcome outcome;
    m.tags = tags;
    m.tag_count = MN_TAGS_MAX;
    struct mn_remember request = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
    for (uint32_t i = 0; i < COUNT; i++) {
        ids[i] = m.id = number_id(i + 1);
        enum mn_status status = mn_writer_remember(f->writer, &request, &outcome);
        if (status == MN_NOT_READY) {
            fixture_commit(f);
            status = mn_writer_remember(f->writer, &request, &outcome);
        }
        ok(status);
    }
    fixture_commit(f);
    struct mn_forget forget = {
        .write = fixture_write(f, "s"), .ids = ids, .id_count = COUNT, .mode = MN_FORGET_SUPPRESS};
    ok(mn_writer_forget(f->writer, &forget, &outcome));
    assert_int_equal(outcome.count, COUNT);
    fixture_commit(f);
    forget.mode = MN_FORGET_RESTORE;
    fails(MN_TOO_LARGE, mn_writer_forget(f->writer, &forget, &outcome));
    fails(MN_TOO_LARGE, mn_writer_forget(f->writer, &forget, &outcome));
    forget.id_count = 5000;
    ok(mn_writer_forget(f->writer, &forget, &outcome));
    assert_int_equal(outcome.count, 5000);
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 5000);
    free(ids);
    fixture_free(f);
}

static void sealing_ends_the_segment_and_only_one_that_holds_something(void **state)
{
    struct fixture *f = fixture_new();
    uint64_t sealed;
    ok(mn_writer_seal(f->writer, &sealed));
    assert_int_equal(sealed, 0);
    for (int i = 0; i < 3; i++) {
        fixture_put(f, "s", 1, (uint64_t)i, "x");
        fixture_commit(f);
        ok(mn_writer_seal(f->writer, &sealed));
        assert_int_equal(sealed, i + 1);
        ok(mn_writer_seal(f->writer, &sealed));
        assert_int_equal(sealed, i + 1);
    }
    fixture_put(f, "s", 2, 9, "y");
    fixture_commit(f);
    fixture_restart(f);
    assert_int_equal(f->report.last_seq, 4);
    assert_int_equal(f->report.log_segments, 4);
    assert_false(f->report.lost);
    assert_true(fixture_holds(f, "s", 1, 2, "x"));
    fixture_free(f);
}

/* A view that cannot be made must not leave a segment that takes writes nobody sees. */
static void a_rotation_that_fails_changes_nothing(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    char path[256];
    uint64_t view = atomic_load(&f->instance.control->view_gen);
    snprintf(path, sizeof path, "%s/view.%llu", f->instance.path, (unsigned long long)view + 1);
    assert_int_equal(mkdir(path, 0700), 0);
    for (int i = 0; i < 3; i++)
        assert_int_not_equal(remember_big(f, 1, 100, &outcome), MN_OK);
    assert_false(mn_writer_pending(f->writer));
    assert_int_equal(rmdir(path), 0);
    ok(remember_big(f, 1, 600000, &outcome));
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 1);

    view = atomic_load(&f->instance.control->view_gen);
    snprintf(path, sizeof path, "%s/view.%llu", f->instance.path, (unsigned long long)view + 1);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_not_equal(remember_big(f, 2, 600000, &outcome), MN_OK); /* needs the next segment */
    ok(remember_big(f, 3, 100, &outcome));                             /* the active one goes on */
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 2);
    assert_int_equal(rmdir(path), 0);
    ok(remember_big(f, 2, 600000, &outcome));
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 3);
    fixture_restart(f);
    assert_int_equal(fixture_count(f), 3);
    assert_false(f->report.lost);
    assert_int_equal(f->report.quarantined, 0);
    fixture_free(f);
}

static void below_the_reserve_writes_are_refused_and_resume(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    ok(remember_big(f, 1, 100, &outcome));
    fixture_commit(f);
    struct mn_settings settings = f->settings;
    settings.disk_reserve = UINT64_MAX;
    mn_writer_reload(f->writer, &settings);
    enum mn_status status = MN_OK;
    await((status = remember_big(f, 2, 100, &outcome)) != MN_OK);
    assert_int_equal(status, MN_READ_ONLY);
    if (mn_writer_pending(f->writer))
        fixture_commit(f);
    usleep(110000);
    mn_writer_tend(f->writer, 0);
    assert_int_equal(atomic_load(&f->instance.control->read_only), 1);
    assert_true(atomic_load(&f->instance.control->reasons) & MN_DEGRADED_READ_ONLY);
    mn_writer_reload(f->writer, &f->settings);
    await(remember_big(f, 3, 100, &outcome) == MN_OK);
    usleep(110000);
    mn_writer_tend(f->writer, 0);
    assert_int_equal(atomic_load(&f->instance.control->read_only), 0);
    assert_false(atomic_load(&f->instance.control->reasons) & MN_DEGRADED_READ_ONLY);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_visible_before_publish),
        cmocka_unit_test(what_comes_while_a_batch_is_written_is_the_next_one),
        cmocka_unit_test(the_next_batch_is_gone_when_the_writer_is),
        cmocka_unit_test(a_segment_is_not_left_while_it_is_written),
        cmocka_unit_test(what_was_not_appended_is_gone_and_its_seq_free),
        cmocka_unit_test(seqs_have_an_end_and_do_not_wrap),
        cmocka_unit_test(a_full_batch_says_so),
        cmocka_unit_test(segments_are_rotated_and_seqs_go_on),
        cmocka_unit_test(a_request_larger_than_a_segment_is_too_large),
        cmocka_unit_test(a_restore_of_more_tags_than_a_chunk_holds_is_refused),
        cmocka_unit_test(sealing_ends_the_segment_and_only_one_that_holds_something),
        cmocka_unit_test(a_rotation_that_fails_changes_nothing),
        cmocka_unit_test(below_the_reserve_writes_are_refused_and_resume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
