/*
 * test_writer_admit.c - remember and revise at the writer's door: what is refused and why, ids, idem keys, and requests
 * that meet in one batch.
 */
#include "tests/unit/store_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/meta.h"

static enum mn_status remember(struct fixture *f, const struct mn_memory *memories, uint32_t count, const char *idem,
                               struct mn_outcome *outcome)
{
    struct mn_remember request = {.write = fixture_write(f, "s"), .memories = memories, .count = count};
    request.write.idem = text_str(idem);
    request.write.request_hash = 7;
    return mn_writer_remember(f->writer, &request, outcome);
}

/* ---- what is refused ---- */

static void limits_are_enforced_and_nothing_is_written(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    char *big = calloc(1, MN_CONTENT_BYTES_MAX + 1);
    struct mn_str tags[MN_TAGS_MAX + 1];
    for (uint32_t i = 0; i <= MN_TAGS_MAX; i++)
        tags[i] = (struct mn_str){big, MN_TAG_BYTES_MAX};

    struct mn_memory m = fixture_memory(1, 1, "x");
    fails(MN_BAD_REQUEST, remember(f, &m, 0, NULL, &outcome));
    m.content = (struct mn_str){big, MN_CONTENT_BYTES_MAX + 1};
    fails(MN_TOO_LARGE, remember(f, &m, 1, NULL, &outcome));
    m = fixture_memory(1, 1, "x");
    m.meta = (struct mn_str){big, MN_META_COMPACT_MAX + 1};
    fails(MN_TOO_LARGE, remember(f, &m, 1, NULL, &outcome));
    m = fixture_memory(1, 1, "x");
    m.tags = tags;
    m.tag_count = MN_TAGS_MAX + 1;
    fails(MN_TOO_LARGE, remember(f, &m, 1, NULL, &outcome));
    m.tag_count = 1;
    tags[0].length = MN_TAG_BYTES_MAX + 1;
    fails(MN_TOO_LARGE, remember(f, &m, 1, NULL, &outcome));

    const float confidences[] = {-0.001f, 1.001f, NAN, INFINITY};
    for (size_t i = 0; i < MN_ARRAY_LEN(confidences); i++) {
        m = fixture_memory(1, 1, "x");
        m.confidence = confidences[i];
        fails(MN_BAD_VALUE, remember(f, &m, 1, NULL, &outcome));
    }
    const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    for (size_t i = 0; i < MN_ARRAY_LEN(bad); i++) {
        float vector[FIXTURE_DIM] = {1, 2, bad[i], 3e38f};
        m = fixture_memory(1, 1, "x");
        m.embedding = vector;
        fails(MN_BAD_VALUE, remember(f, &m, 1, NULL, &outcome));
    }

    struct mn_remember request = {.write = fixture_write(f, ""), .memories = &m, .count = 1};
    m = fixture_memory(1, 1, "x");
    fails(MN_BAD_REQUEST, mn_writer_remember(f->writer, &request, &outcome));
    request.write.space = (struct mn_str){big, MN_SPACE_BYTES_MAX + 1};
    fails(MN_BAD_REQUEST, mn_writer_remember(f->writer, &request, &outcome));
    request.write = fixture_write(f, "s");
    request.write.idem = (struct mn_str){big, MN_IDEM_BYTES_MAX + 1};
    fails(MN_BAD_REQUEST, mn_writer_remember(f->writer, &request, &outcome));

    assert_false(mn_writer_pending(f->writer));
    assert_int_equal(fixture_count(f), 0);
    assert_int_equal(fixture_put(f, "s", 1, 1, "x"), 1); /* no seq was used up */
    free(big);
    fixture_free(f);
}

static void the_largest_of_everything_is_taken(void **state)
{
    struct fixture *f = fixture_prepare();
    f->settings.wal_segment_bytes = 4u << 20;
    fixture_start(f);
    struct mn_outcome outcome;
    char *big = malloc(MN_CONTENT_BYTES_MAX);
    memset(big, 'b', MN_CONTENT_BYTES_MAX);
    struct mn_str tags[MN_TAGS_MAX];
    char names[MN_TAGS_MAX][MN_TAG_BYTES_MAX];
    for (uint32_t i = 0; i < MN_TAGS_MAX; i++) {
        memset(names[i], 'a' + (int)(i % 26), MN_TAG_BYTES_MAX);
        names[i][0] = (char)i;
        tags[i] = (struct mn_str){names[i], MN_TAG_BYTES_MAX};
    }
    struct mn_memory m = fixture_memory(1, 1, NULL);
    m.content = (struct mn_str){big, MN_CONTENT_BYTES_MAX};
    m.meta = (struct mn_str){big, MN_META_COMPACT_MAX};
    m.tags = tags;
    m.tag_count = MN_TAGS_MAX;
    ok(remember(f, &m, 1, "0123456789012345678901234567890123456789012345678901234567890123", &outcome));
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 1);
    fixture_restart(f);
    assert_int_equal(fixture_count(f), 1);
    ok(remember(f, &m, 1, "0123456789012345678901234567890123456789012345678901234567890123", &outcome));
    assert_true(outcome.replayed);
    free(big);
    fixture_free(f);
}

static void cosine_refuses_what_has_no_direction(void **state)
{
    struct fixture *f = fixture_prepare();
    f->store.metric = MN_METRIC_COSINE;
    fixture_start(f);
    struct mn_outcome outcome;
    float vector[FIXTURE_DIM] = {0};
    struct mn_memory m = fixture_memory(1, 1, "x");
    m.embedding = vector;
    fails(MN_BAD_VALUE, remember(f, &m, 1, NULL, &outcome));
    vector[0] = 1e-30f; /* its square is no normal float, its norm is */
    enum mn_status tiny = remember(f, &m, 1, NULL, &outcome);
    assert_true(tiny == MN_OK || tiny == MN_BAD_VALUE);
    vector[0] = 1e-45f;
    fails(MN_BAD_VALUE, remember(f, &m, 1, NULL, &outcome));
    vector[0] = 1e-3f;
    ok(remember(f, &m, 1, NULL, &outcome));
    fixture_free(f);
}

/* ---- conditions ---- */

static void if_absent_and_if_version_look_at_what_is_visible(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    struct mn_memory m = fixture_memory(1, 2, "new");
    uint64_t version = fixture_put(f, "s", 1, 1, "old");

    m.if_absent = true;
    fails(MN_EXISTS, remember(f, &m, 1, NULL, &outcome)); /* in the same batch */
    fixture_commit(f);
    fails(MN_EXISTS, remember(f, &m, 1, NULL, &outcome));
    m.if_absent = false;
    m.has_if_version = true;
    m.if_version = version + 1;
    fails(MN_VERSION_MISMATCH, remember(f, &m, 1, NULL, &outcome));
    m.if_version = version;
    ok(remember(f, &m, 1, NULL, &outcome));
    fails(MN_VERSION_MISMATCH, remember(f, &m, 1, NULL, &outcome)); /* it has just been replaced */
    m.id = number_id(99);
    fails(MN_VERSION_MISMATCH, remember(f, &m, 1, NULL, &outcome));
    m.has_id = false;
    fails(MN_VERSION_MISMATCH, remember(f, &m, 1, NULL, &outcome));

    /* Suppressed, deleted and expired ones count as absent. */
    m = fixture_memory(1, 3, "again");
    m.if_absent = true;
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_SUPPRESS), 1);
    ok(remember(f, &m, 1, NULL, &outcome));
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_RESTORE), 0); /* it was given up */
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_DELETE), 1);
    m.expires = 10;
    ok(remember(f, &m, 1, NULL, &outcome));
    m.expires = MN_NEVER;
    ok(remember(f, &m, 1, NULL, &outcome));
    fixture_commit(f);
    assert_true(fixture_holds(f, "s", 1, 3, "again"));
    fixture_free(f);
}

static void a_refused_request_changes_nothing(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    fixture_put(f, "s", 5, 5, "five");
    fixture_commit(f);
    struct mn_memory two[2] = {fixture_memory(6, 6, "six"), fixture_memory(5, 7, "not five")};
    two[1].if_absent = true;
    fails(MN_EXISTS, remember(f, two, 2, "key", &outcome));
    two[1] = two[0];
    fails(MN_BAD_REQUEST, remember(f, two, 2, "key", &outcome)); /* an id twice */
    struct mn_id self = number_id(6);
    two[1] = fixture_memory(7, 7, "seven");
    two[1].supersedes = &self;
    two[1].supersede_count = 1;
    fails(MN_BAD_REQUEST, remember(f, two, 2, "key", &outcome)); /* written and superseded */
    assert_false(mn_writer_pending(f->writer));
    assert_true(fixture_absent(f, "s", 6));
    two[1] = fixture_memory(7, 7, "seven");
    ok(remember(f, two, 2, "key", &outcome));
    assert_false(outcome.replayed);
    assert_int_equal(outcome.seq, 2);
    fixture_free(f);
}

/* ---- ids ---- */

static void assigned_ids_skip_those_that_are_used(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    fixture_put(f, "s", 2, 2, "two");
    struct mn_memory m[5] = {fixture_memory(0, 10, "a"), fixture_memory(0, 11, "b"), fixture_memory(5, 12, "c"),
                             fixture_memory(0, 13, "d"), fixture_memory(0, 14, "e")};
    m[2].id = number_id(4); /* given in the same request */
    ok(remember(f, m, 5, "k", &outcome));
    const uint64_t wanted[] = {1, 3, 4, 5, 6};
    assert_int_equal(outcome.id_count, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(outcome.ids[i].lo, wanted[i]);
    fixture_commit(f);
    for (int i = 0; i < 5; i++)
        assert_int_equal(fixture_forget(f, "s", wanted[i], MN_FORGET_DELETE), 1);
    fixture_commit(f);
    for (int round = 0; round < 2; round++) {
        ok(remember(f, m, 5, "k", &outcome));
        assert_true(outcome.replayed);
        for (int i = 0; i < 5; i++)
            assert_int_equal(outcome.ids[i].lo, wanted[i]);
        fixture_restart(f);
    }
    m[0].if_absent = true;
    ok(remember(f, m, 1, NULL, &outcome));
    assert_int_equal(outcome.ids[0].lo, 7); /* never one that was given out before */
    struct mn_remember other = {.write = fixture_write(f, "other"), .memories = m, .count = 1};
    ok(mn_writer_remember(f->writer, &other, &outcome));
    assert_int_equal(outcome.ids[0].lo, 1);
    fixture_free(f);
}

static void uuids_and_integers_do_not_mix(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    struct mn_memory m = fixture_memory(1, 1, "uuid");
    m.id = uuid_id(0, 1);
    ok(remember(f, &m, 1, NULL, &outcome));
    fixture_put(f, "s", 1, 2, "integer");
    m = fixture_memory(0, 3, "next");
    ok(remember(f, &m, 1, NULL, &outcome));
    assert_int_equal(outcome.ids[0].lo, 2);
    assert_int_equal(outcome.ids[0].kind, MN_ID_INTEGER);
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 3);
    fixture_free(f);
}

/* ---- idem keys ---- */

static void a_key_answers_once_and_belongs_to_one_request(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome first, again;
    struct mn_memory m = fixture_memory(0, 1, "x");
    f->now = INT64_C(1000000000000);
    ok(remember(f, &m, 1, "key", &first));
    ok(remember(f, &m, 1, "key", &again)); /* before it is durable */
    assert_true(again.replayed);
    assert_int_equal(again.seq, first.seq);
    fixture_commit(f);
    struct mn_remember other = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
    other.write.idem = text_str("key");
    other.write.request_hash = 8;
    fails(MN_BAD_REQUEST, mn_writer_remember(f->writer, &other, &again));
    bool found;
    fails(MN_BAD_REQUEST, mn_writer_replay(f->writer, &other.write, &again, &found));

    f->now += (int64_t)f->settings.write_idem_window; /* just inside the window */
    ok(remember(f, &m, 1, "key", &again));
    assert_true(again.replayed);
    f->now += 1;
    ok(remember(f, &m, 1, "key", &again));
    assert_false(again.replayed);
    assert_int_equal(again.ids[0].lo, 2);
    fixture_commit(f);
    fixture_restart(f); /* both entries stand in the log: the newer one answers */
    ok(remember(f, &m, 1, "key", &again));
    assert_true(again.replayed);
    assert_int_equal(again.ids[0].lo, 2);
    fixture_free(f);
}

static void too_many_keys_are_busy_until_they_expire(void **state)
{
    struct fixture *f = fixture_prepare();
    f->settings.write_idem_max = 3;
    fixture_start(f);
    struct mn_outcome outcome;
    struct mn_memory m = fixture_memory(1, 1, "x");
    char key[8];
    f->now = INT64_C(1000000000000);
    for (int i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "k%d", i);
        ok(remember(f, &m, 1, key, &outcome));
    }
    fails(MN_BUSY, remember(f, &m, 1, "k3", &outcome));
    ok(remember(f, &m, 1, "k0", &outcome)); /* a retry is still answered */
    assert_true(outcome.replayed);
    ok(remember(f, &m, 1, NULL, &outcome));
    fixture_commit(f);
    f->now += (int64_t)f->settings.write_idem_window + 1;
    mn_writer_tend(f->writer, f->now);
    ok(remember(f, &m, 1, "k3", &outcome));
    fixture_free(f);
}

/* ---- requests that meet ---- */

static void revise_within_the_batch_that_wrote_it(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    struct mn_revise revise = {.write = fixture_write(f, "s"), .id = number_id(1), .set_confidence = true};
    revise.set.confidence = 0.5f;
    fixture_put(f, "s", 1, 42, "kept");
    enum mn_status status = mn_writer_revise(f->writer, &revise, &outcome);
    if (status == MN_NOT_READY) { /* what it builds on is not in the log yet */
        fixture_commit(f);
        status = mn_writer_revise(f->writer, &revise, &outcome);
    }
    ok(status);
    fixture_commit(f);
    assert_true(fixture_holds(f, "s", 1, 42, "kept"));
    fixture_restart(f);
    assert_true(fixture_holds(f, "s", 1, 42, "kept"));
    fixture_free(f);
}

static void restore_within_the_batch_that_suppressed_it(void **state)
{
    struct fixture *f = fixture_new();
    fixture_put(f, "s", 1, 42, "kept");
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_SUPPRESS), 1);
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_RESTORE), 1);
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_SUPPRESS), 1);
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_RESTORE), 1);
    fixture_commit(f);
    assert_true(fixture_holds(f, "s", 1, 42, "kept"));
    assert_int_equal(fixture_count(f), 1);
    fixture_restart(f);
    assert_true(fixture_holds(f, "s", 1, 42, "kept"));
    fixture_free(f);
}

static void revise_sets_what_it_names_and_keeps_the_rest(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    struct mn_str tags[2] = {text_str("red"), text_str("green")};
    struct mn_memory m = fixture_memory(1, 9, "content");
    m.tags = tags;
    m.tag_count = 2;
    m.meta = text_str("\x01meta");
    m.confidence = 0.25f;
    m.expires = INT64_MAX - 1;
    ok(remember(f, &m, 1, NULL, &outcome));
    fixture_commit(f);
    struct mn_revise revise = {.write = fixture_write(f, "s"), .id = number_id(2)};
    fails(MN_NOT_FOUND, mn_writer_revise(f->writer, &revise, &outcome));
    revise.id = number_id(1);
    revise.has_if_version = true;
    revise.if_version = 7;
    fails(MN_VERSION_MISMATCH, mn_writer_revise(f->writer, &revise, &outcome));
    revise.if_version = 1;
    revise.set_content = true; /* to nothing */
    revise.set.confidence = 9; /* not set, so not looked at */
    ok(mn_writer_revise(f->writer, &revise, &outcome));
    fixture_commit(f);
    assert_true(fixture_holds(f, "s", 1, 9, NULL));
    revise.has_if_version = false;
    revise.set_confidence = true;
    fails(MN_BAD_VALUE, mn_writer_revise(f->writer, &revise, &outcome));
    revise.set_confidence = false;
    revise.set.content = text_str("");
    revise.set.content.data = "";
    ok(mn_writer_revise(f->writer, &revise, &outcome));
    fixture_commit(f);
    fixture_restart(f);
    assert_true(fixture_holds(f, "s", 1, 9, ""));

    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    const struct mn_part *part = &snapshot.parts[0];
    uint32_t row = part->rows - 1;
    const uint32_t *numbers;
    struct mn_str meta;
    assert_int_equal(mn_part_tags(part, row, &numbers), 2);
    assert_true(mn_str_equal(mn_part_string(part, numbers[0]), tags[0]));
    assert_true(mn_str_equal(mn_part_string(part, numbers[1]), tags[1]));
    ok(mn_part_meta(part, row, &meta));
    assert_true(mn_str_equal(meta, m.meta));
    assert_true(mn_part_confidence(part, row) == 0.25f);
    assert_true(mn_part_expires(part, row) == INT64_MAX - 1);
    mn_reader_close(reader);
    fixture_free(f);
}

static void supersedes_delete_in_the_same_change(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    for (uint64_t id = 1; id <= 3; id++)
        fixture_put(f, "s", id, id, "old");
    assert_int_equal(fixture_forget(f, "s", 3, MN_FORGET_SUPPRESS), 1);
    struct mn_id old[] = {number_id(1), number_id(1), number_id(3), number_id(77)};
    struct mn_memory m = fixture_memory(4, 4, "new");
    m.supersedes = old;
    m.supersede_count = 4;
    ok(remember(f, &m, 1, NULL, &outcome));
    fixture_commit(f);
    for (int round = 0; round < 2; round++) {
        assert_true(fixture_absent(f, "s", 1));
        assert_true(fixture_holds(f, "s", 2, 2, "old"));
        assert_true(fixture_holds(f, "s", 4, 4, "new"));
        assert_int_equal(fixture_forget(f, "s", 3, MN_FORGET_RESTORE), 0);
        fixture_restart(f);
    }
    fixture_free(f);
}

static void the_tail_holds_no_more_rows_than_it_may(void **state)
{
    struct fixture *f = fixture_prepare();
    f->settings.tail_rows_max = 4;
    fixture_start(f);
    struct mn_outcome outcome;
    for (uint64_t id = 1; id <= 3; id++)
        fixture_put(f, "s", id, id, "x");
    struct mn_memory two[2] = {fixture_memory(4, 4, "x"), fixture_memory(5, 5, "x")};
    fails(MN_BUSY, remember(f, two, 2, NULL, &outcome));
    ok(remember(f, two, 1, NULL, &outcome));
    fails(MN_BUSY, remember(f, two, 1, NULL, &outcome));
    fixture_commit(f);
    struct mn_revise revise = {.write = fixture_write(f, "s"), .id = number_id(1), .set_confidence = true};
    fails(MN_BUSY, mn_writer_revise(f->writer, &revise, &outcome));
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_SUPPRESS), 1); /* takes no row */
    struct mn_forget restore = {
        .write = fixture_write(f, "s"), .ids = &two[0].id, .id_count = 1, .mode = MN_FORGET_RESTORE};
    struct mn_id one = number_id(1);
    restore.ids = &one;
    fails(MN_BUSY, mn_writer_forget(f->writer, &restore, &outcome));
    fixture_commit(f);
    fixture_restart(f);
    fails(MN_BUSY, remember(f, two, 1, NULL, &outcome));
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_enforced_and_nothing_is_written),
        cmocka_unit_test(the_largest_of_everything_is_taken),
        cmocka_unit_test(cosine_refuses_what_has_no_direction),
        cmocka_unit_test(if_absent_and_if_version_look_at_what_is_visible),
        cmocka_unit_test(a_refused_request_changes_nothing),
        cmocka_unit_test(assigned_ids_skip_those_that_are_used),
        cmocka_unit_test(uuids_and_integers_do_not_mix),
        cmocka_unit_test(a_key_answers_once_and_belongs_to_one_request),
        cmocka_unit_test(too_many_keys_are_busy_until_they_expire),
        cmocka_unit_test(revise_within_the_batch_that_wrote_it),
        cmocka_unit_test(restore_within_the_batch_that_suppressed_it),
        cmocka_unit_test(revise_sets_what_it_names_and_keeps_the_rest),
        cmocka_unit_test(supersedes_delete_in_the_same_change),
        cmocka_unit_test(the_tail_holds_no_more_rows_than_it_may),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
