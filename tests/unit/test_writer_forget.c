/*
 * test_writer_forget.c - the four modes of forget and their counts, conditions, keys; selections while versions change.
 */
#include "tests/unit/store_fixture.h"

#include <stdlib.h>

static enum mn_status forget(struct fixture *f, const struct mn_id *ids, uint32_t count, enum mn_forget_mode mode,
                             struct mn_outcome *outcome)
{
    struct mn_forget request = {.write = fixture_write(f, "s"), .ids = ids, .id_count = count, .mode = mode};
    return mn_writer_forget(f->writer, &request, outcome);
}

static void counts_are_of_what_took_effect(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    struct mn_id ids[] = {number_id(1), number_id(2), number_id(2), number_id(3), number_id(99)};
    for (uint64_t id = 1; id <= 5; id++)
        fixture_put(f, "s", id, id, "x");
    fixture_put(f, "other", 1, 1, "x");
    fixture_commit(f);
    static const struct {
        enum mn_forget_mode mode;
        uint32_t count;
        uint64_t visible;
    } steps[] = {{MN_FORGET_RESTORE, 0, 6}, {MN_FORGET_SUPPRESS, 3, 3}, {MN_FORGET_SUPPRESS, 0, 3},
                 {MN_FORGET_RESTORE, 3, 6}, {MN_FORGET_RESTORE, 0, 6},  {MN_FORGET_DELETE, 3, 3},
                 {MN_FORGET_DELETE, 0, 3},  {MN_FORGET_SUPPRESS, 0, 3}, {MN_FORGET_RESTORE, 0, 3},
                 {MN_FORGET_PURGE, 0, 3}};
    for (size_t i = 0; i < MN_ARRAY_LEN(steps); i++) {
        ok(forget(f, ids, 5, steps[i].mode, &outcome));
        assert_int_equal(outcome.count, steps[i].count);
        fixture_commit(f);
        assert_int_equal(fixture_count(f), steps[i].visible);
    }
    assert_true(fixture_holds(f, "other", 1, 1, "x"));
    fixture_restart(f);
    assert_int_equal(fixture_count(f), 3);
    fixture_free(f);
}

static void what_changes_nothing_takes_no_seq(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    struct mn_id none = number_id(5);
    fixture_put(f, "s", 1, 1, "x");
    ok(forget(f, &none, 1, MN_FORGET_DELETE, &outcome));
    assert_int_equal(outcome.count, 0);
    assert_int_equal(outcome.seq, 1);
    ok(forget(f, NULL, 0, MN_FORGET_PURGE, &outcome));
    assert_int_equal(outcome.seq, 1);
    assert_false(mn_writer_purge_waits(f->writer));
    assert_int_equal(fixture_put(f, "s", 2, 2, "y"), 2);
    fixture_commit(f);
    ok(forget(f, &none, 1, MN_FORGET_DELETE, &outcome));
    assert_false(mn_writer_pending(f->writer));
    fixture_free(f);
}

static void a_suppressed_one_can_be_deleted_or_replaced(void **state)
{
    struct fixture *f = fixture_new();
    for (uint64_t id = 1; id <= 3; id++)
        fixture_put(f, "s", id, id, "x");
    fixture_commit(f);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(fixture_forget(f, "s", id, MN_FORGET_SUPPRESS), 1);
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_DELETE), 1);
    fixture_put(f, "s", 2, 20, "y");
    fixture_commit(f);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_RESTORE), 0);
        assert_int_equal(fixture_forget(f, "s", 2, MN_FORGET_RESTORE), 0);
        fixture_restart(f);
    }
    assert_true(fixture_holds(f, "s", 2, 20, "y"));
    assert_int_equal(fixture_forget(f, "s", 3, MN_FORGET_RESTORE), 1);
    fixture_commit(f);
    assert_true(fixture_holds(f, "s", 3, 3, "x"));
    fixture_free(f);
}

/* Expired while it was suppressed: absent, so there is nothing to restore. */
static void an_expired_one_does_not_come_back(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    struct mn_memory m = fixture_memory(1, 1, "x");
    f->now = 1000;
    m.expires = 2000;
    struct mn_remember request = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
    ok(mn_writer_remember(f->writer, &request, &outcome));
    fixture_commit(f);
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_SUPPRESS), 1);
    f->now = 1999;
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_RESTORE), 1);
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_SUPPRESS), 1);
    f->now = 2000;
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_RESTORE), 0);
    fixture_free(f);
}

static void conditions_hold_for_all_ids(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    struct mn_id ids[] = {number_id(1), number_id(2)};
    struct mn_forget request = {.write = fixture_write(f, "s"),
                                .ids = ids,
                                .id_count = 2,
                                .mode = MN_FORGET_DELETE,
                                .has_if_version = true,
                                .if_version = 1};
    fixture_put(f, "s", 1, 1, "x");
    fixture_put(f, "s", 2, 2, "x");
    fixture_commit(f);
    fails(MN_VERSION_MISMATCH, mn_writer_forget(f->writer, &request, &outcome));
    assert_false(mn_writer_pending(f->writer));
    request.id_count = 1;
    ok(mn_writer_forget(f->writer, &request, &outcome));
    fails(MN_VERSION_MISMATCH, mn_writer_forget(f->writer, &request, &outcome)); /* it is not there any more */
    fixture_free(f);
}

static void a_key_answers_a_forget_once(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome first, again;
    struct mn_id ids[] = {number_id(1), number_id(2)};
    struct mn_forget request = {.write = fixture_write(f, "s"), .ids = ids, .id_count = 2, .mode = MN_FORGET_DELETE};
    request.write.idem = text_str("k");
    request.write.request_hash = 3;
    fixture_put(f, "s", 1, 1, "x");
    ok(mn_writer_forget(f->writer, &request, &first));
    assert_int_equal(first.count, 1);
    fixture_put(f, "s", 1, 1, "again");
    fixture_commit(f);
    for (int round = 0; round < 2; round++) {
        ok(mn_writer_forget(f->writer, &request, &again));
        assert_true(again.replayed);
        assert_int_equal(again.seq, first.seq);
        assert_int_equal(again.count, 1);
        assert_true(fixture_holds(f, "s", 1, 1, "again"));
        fixture_restart(f);
    }
    request.write.idem = text_str("k2"); /* nothing is there for this one, but its key is kept */
    ids[0] = ids[1];
    ok(mn_writer_forget(f->writer, &request, &first));
    assert_int_equal(first.count, 0);
    fixture_commit(f);
    fixture_restart(f);
    ok(mn_writer_forget(f->writer, &request, &again));
    assert_true(again.replayed);
    assert_int_equal(again.seq, first.seq);
    fixture_free(f);
}

/* ---- selections ---- */

static struct mn_scope scope_of(const struct mn_str *space, int64_t after)
{
    return (struct mn_scope){.spaces = space, .space_count = 1, .after = after};
}

static uint32_t run_selection(struct fixture *f, struct mn_selection *selection, uint32_t rows)
{
    uint32_t turns = 0;
    for (bool done = false; !done; turns++)
        ok(mn_selection_turn(selection, rows, &done));
    return turns;
}

static void a_selection_forgets_what_matched(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_selection *selection;
    struct mn_outcome outcome;
    struct mn_str space = text_str("s");
    struct mn_scope scope = scope_of(&space, 50);
    struct mn_forget request = {.write = fixture_write(f, "s"), .mode = MN_FORGET_DELETE};
    for (uint64_t id = 1; id <= 100; id++) {
        fixture_put(f, "s", id, id, "x");
        fixture_put(f, "t", id, id, "x");
    }
    fixture_commit(f);
    ok(mn_selection_start(f->writer, &scope, MN_FORGET_DELETE, &selection));
    assert_true(run_selection(f, selection, 7) > 10);
    ok(mn_writer_forget_selected(f->writer, selection, &request, &outcome));
    assert_int_equal(outcome.count, 51);
    mn_selection_free(selection);
    mn_selection_free(NULL);
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 149);
    fixture_restart(f);
    assert_int_equal(fixture_count(f), 149);
    fixture_free(f);
}

/* Between the look and the forget life goes on: what got a new version was never looked at, and stays. */
static void versions_that_change_under_a_selection_stay(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_selection *selection;
    struct mn_outcome outcome;
    struct mn_str space = text_str("s");
    struct mn_scope scope = scope_of(&space, INT64_MIN);
    struct mn_forget request = {.write = fixture_write(f, "s"), .mode = MN_FORGET_DELETE};
    bool done;
    for (uint64_t id = 1; id <= 20; id++)
        fixture_put(f, "s", id, id, "x");
    fixture_commit(f);
    ok(mn_selection_start(f->writer, &scope, MN_FORGET_DELETE, &selection));
    ok(mn_selection_turn(selection, 10, &done));
    assert_false(done);
    fixture_put(f, "s", 3, 300, "new");            /* replaced */
    fixture_put(f, "s", 15, 1500, "new");          /* replaced before it was looked at */
    fixture_put(f, "s", 21, 21, "later");          /* came later */
    fixture_forget(f, "s", 4, MN_FORGET_DELETE);   /* gone already */
    fixture_forget(f, "s", 5, MN_FORGET_SUPPRESS); /* hidden meanwhile, the same version */
    fixture_commit(f);
    run_selection(f, selection, 10);
    ok(mn_writer_forget_selected(f->writer, selection, &request, &outcome));
    assert_int_equal(outcome.count, 17);
    mn_selection_free(selection);
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 3);
    assert_true(fixture_holds(f, "s", 3, 300, "new"));
    assert_true(fixture_holds(f, "s", 15, 1500, "new"));
    assert_int_equal(fixture_forget(f, "s", 5, MN_FORGET_RESTORE), 0);
    fixture_free(f);
}

static void modes_select_what_they_can_change(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_selection *selection;
    struct mn_outcome outcome;
    struct mn_str space = text_str("s");
    struct mn_scope scope = scope_of(&space, INT64_MIN);
    for (uint64_t id = 1; id <= 10; id++)
        fixture_put(f, "s", id, id, "x");
    for (uint64_t id = 1; id <= 4; id++)
        fixture_forget(f, "s", id, MN_FORGET_SUPPRESS);
    fixture_forget(f, "s", 5, MN_FORGET_DELETE);
    fixture_commit(f);
    static const struct {
        enum mn_forget_mode mode;
        uint32_t count;
        uint64_t visible;
    } steps[] = {{MN_FORGET_SUPPRESS, 5, 0}, {MN_FORGET_SUPPRESS, 0, 0}, {MN_FORGET_RESTORE, 9, 9},
                 {MN_FORGET_RESTORE, 0, 9},  {MN_FORGET_SUPPRESS, 9, 0}, {MN_FORGET_DELETE, 9, 0},
                 {MN_FORGET_RESTORE, 0, 0}};
    for (size_t i = 0; i < MN_ARRAY_LEN(steps); i++) {
        struct mn_forget request = {.write = fixture_write(f, "s"), .mode = steps[i].mode};
        ok(mn_selection_start(f->writer, &scope, steps[i].mode, &selection));
        run_selection(f, selection, 3);
        ok(mn_writer_forget_selected(f->writer, selection, &request, &outcome));
        mn_selection_free(selection);
        assert_int_equal(outcome.count, steps[i].count);
        fixture_commit(f);
        assert_int_equal(fixture_count(f), steps[i].visible);
    }
    fixture_free(f);
}

static void only_so_many_selections_at_once(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_selection *selections[MN_SELECTIONS_MAX], *extra;
    struct mn_scope scope = {.all_spaces = true, .after = INT64_MIN};
    for (uint32_t i = 0; i < MN_SELECTIONS_MAX; i++)
        ok(mn_selection_start(f->writer, &scope, MN_FORGET_DELETE, &selections[i]));
    fails(MN_BUSY, mn_selection_start(f->writer, &scope, MN_FORGET_DELETE, &extra));
    mn_selection_free(selections[0]);
    ok(mn_selection_start(f->writer, &scope, MN_FORGET_DELETE, &selections[0]));
    for (uint32_t i = 0; i < MN_SELECTIONS_MAX; i++)
        mn_selection_free(selections[i]);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_of_what_took_effect),
        cmocka_unit_test(what_changes_nothing_takes_no_seq),
        cmocka_unit_test(a_suppressed_one_can_be_deleted_or_replaced),
        cmocka_unit_test(an_expired_one_does_not_come_back),
        cmocka_unit_test(conditions_hold_for_all_ids),
        cmocka_unit_test(a_key_answers_a_forget_once),
        cmocka_unit_test(a_selection_forgets_what_matched),
        cmocka_unit_test(versions_that_change_under_a_selection_stay),
        cmocka_unit_test(modes_select_what_they_can_change),
        cmocka_unit_test(only_so_many_selections_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
