/*
 * test_timeline.c - engine/timeline: made only when it pays, and in the order of time within each space.
 */
#include "engine/timeline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/fake_world.h"

static bool ask(struct mn_timeline *timeline, const struct mn_snapshot *snapshot)
{
    bool made;
    assert_int_equal(mn_timeline_ask(timeline, snapshot, &made), MN_OK);
    return made;
}

static void it_is_made_after_a_few_questions_and_once(void **state)
{
    struct fake_world *w = fake_world_new(51, MN_METRIC_IP, 400, true);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    struct mn_timeline timeline = {0};
    unsigned scanned = 0;
    while (!ask(&timeline, &snapshot))
        scanned++;
    assert_true(scanned > 0 && scanned < 10);
    assert_true(ask(&timeline, &snapshot));
    snapshot.seq--;
    assert_false(ask(&timeline, &snapshot));
    mn_timeline_free(&timeline);
    fake_world_free(w);
}

static int order_of(const struct fake_memory *a, const struct fake_memory *b)
{
    if (a->at != b->at)
        return a->at < b->at ? -1 : 1;
    return mn_id_compare(&a->id, &b->id);
}

/* How many visible rows of the tail lie before (side -1) or after (1) a memory in its space. */
static uint32_t count_neighbours(const struct fake_world *w, const struct mn_snapshot *snapshot,
                                 const struct fake_memory *m, int side)
{
    uint32_t count = 0;
    for (uint32_t part = 0; part < snapshot->part_count; part++) {
        for (uint32_t row = 0; snapshot->parts[part].tail && row < snapshot->parts[part].rows; row++) {
            const struct fake_memory *other = fake_parts_memory(w->parts, part, row);
            count += fake_visible(w, fake_index(w, part, row), snapshot->seq, snapshot->now) &&
                     strcmp(other->space, m->space) == 0 && order_of(other, m) == side;
        }
    }
    return count;
}

/* All neighbours on one side: the right number, of the space, each farther than the one before. */
static void check_side(const struct fake_world *w, const struct mn_snapshot *snapshot,
                       const struct mn_timeline *timeline, struct mn_row_ref ref, int side)
{
    static struct mn_row_ref found[FAKE_ROWS_MAX];
    const struct fake_memory *m = fake_parts_memory(w->parts, ref.part, ref.row), *last = m;
    uint32_t n = side < 0 ? mn_timeline_before(timeline, snapshot, ref, FAKE_ROWS_MAX, found)
                          : mn_timeline_after(timeline, snapshot, ref, FAKE_ROWS_MAX, found);
    assert_int_equal(n, count_neighbours(w, snapshot, m, side));
    for (uint32_t i = 0; i < n; i++) {
        const struct fake_memory *other = fake_parts_memory(w->parts, found[i].part, found[i].row);
        assert_string_equal(other->space, m->space);
        assert_int_equal(order_of(other, last), side);
        last = other;
    }
}

static void neighbours_lie_in_order(void **state)
{
    struct fake_world *w = fake_world_new(52, MN_METRIC_IP, 700, true);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    struct mn_timeline timeline = {0};
    while (!ask(&timeline, &snapshot))
        continue;
    for (uint32_t part = 0; part < snapshot.part_count; part++) {
        for (uint32_t row = 0; row < snapshot.parts[part].rows; row++) {
            if (!fake_visible(w, fake_index(w, part, row), snapshot.seq, snapshot.now))
                continue;
            check_side(w, &snapshot, &timeline, (struct mn_row_ref){part, row}, -1);
            check_side(w, &snapshot, &timeline, (struct mn_row_ref){part, row}, 1);
        }
    }
    mn_timeline_free(&timeline);
    fake_world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_made_after_a_few_questions_and_once),
        cmocka_unit_test(neighbours_lie_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
