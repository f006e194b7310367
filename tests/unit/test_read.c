/*
 * test_read.c - engine/read: finds, pages, counts, neighbours and spaces of random stores against loops over
 * everything.
 */
#include "engine/read.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/fake_world.h"

static const struct fake_world *sorted_world;

/* The order of time: (at, id, space). */
static int compare_time(const void *a, const void *b)
{
    const struct fake_memory *m = &sorted_world->memories[*(const uint32_t *)a];
    const struct fake_memory *n = &sorted_world->memories[*(const uint32_t *)b];
    if (m->at != n->at)
        return m->at < n->at ? -1 : 1;
    int order = mn_id_compare(&m->id, &n->id);
    return order != 0 ? order : strcmp(m->space, n->space);
}

/* Every visible match in the order of time, by index. */
static uint32_t model(struct fake_world *w, const struct mn_scope *scope, uint64_t seq, bool newest_first,
                      uint32_t *found)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        if (fake_visible(w, i, seq, w->now) && fake_matches(w, i, scope))
            found[n++] = i;
    }
    sorted_world = w;
    qsort(found, n, sizeof *found, compare_time);
    for (uint32_t i = 0; newest_first && i < n / 2; i++) {
        uint32_t other = found[i];
        found[i] = found[n - 1 - i];
        found[n - 1 - i] = other;
    }
    return n;
}

static uint32_t index_of(const struct fake_world *w, struct mn_row_ref ref)
{
    return fake_index(w, ref.part, ref.row);
}

/* Pages of `limit` from front to end give the model's list, each memory once. */
static void page_through(struct fake_world *w, struct mn_reading *reading, const struct mn_snapshot *snapshot,
                         const struct mn_scope *scope, bool newest_first, uint32_t limit)
{
    static uint32_t want[FAKE_ROWS_MAX];
    uint32_t count = model(w, scope, snapshot->seq, newest_first, want), at = 0;
    struct mn_cursor cursor = {0};
    bool more = true;
    while (more) {
        assert_int_equal(mn_read_list(reading, snapshot, scope, newest_first, &cursor, limit, &more), MN_OK);
        assert_int_equal(reading->row_count, count - at < limit ? count - at : limit);
        assert_int_equal(more, count - at > limit);
        for (uint32_t i = 0; i < reading->row_count; i++)
            assert_int_equal(index_of(w, reading->rows[i]), want[at++]);
        if (more)
            mn_cursor_at(&cursor, snapshot, reading->rows[reading->row_count - 1]);
    }
    assert_int_equal(at, count);
}

static void pages_are_what_the_model_says(bool columns)
{
    struct mn_reading reading = {0};
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct fake_world *w = fake_world_new(seed * 7, MN_METRIC_IP, 200 * (uint32_t)seed, columns);
        for (int turn = 0; turn < 80; turn++) {
            struct fake_scope scope;
            struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq - fake_below(w, 30), w->now);
            fake_scope_make(w, &scope);
            uint32_t limit = fake_below(w, 10) == 0 ? 1 + fake_below(w, 3000) : 1 + fake_below(w, 60);
            page_through(w, &reading, &snapshot, &scope.scope, turn % 2 == 0, limit);
        }
        fake_world_free(w);
    }
    mn_reading_free(&reading);
}

static void pages_over_tails(void **state)
{
    pages_are_what_the_model_says(false);
}

static void pages_over_columns(void **state)
{
    pages_are_what_the_model_says(true);
}

static void a_page_of_nothing_tells_whether_there_is_more(void **state)
{
    struct fake_world *w = fake_world_new(3, MN_METRIC_IP, 50, true);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now), empty = {0};
    struct mn_scope scope = {.all_spaces = true, .after = INT64_MIN};
    struct mn_reading reading = {0};
    bool more;
    assert_int_equal(mn_read_list(&reading, &snapshot, &scope, true, NULL, 0, &more), MN_OK);
    assert_true(more && reading.row_count == 0);
    assert_int_equal(mn_read_list(&reading, &empty, &scope, true, NULL, 10, &more), MN_OK);
    assert_true(!more && reading.row_count == 0);
    mn_reading_free(&reading);
    fake_world_free(w);
}

/* Memories that share one time, as a bulk import leaves them, are paged without a skip. */
static void equal_times_are_paged_by_id_and_space(void **state)
{
    struct fake_world *w = fake_world_new(4, MN_METRIC_IP, 900, false);
    struct mn_scope scope = {.all_spaces = true, .after = INT64_MIN};
    struct mn_reading reading = {0};
    const struct fake_memory *rows[FAKE_ROWS_MAX];
    fake_parts_free(w->parts);
    for (uint32_t i = 0; i < w->count; i++) {
        w->memories[i].at = i % 3 == 0 ? 7 : 8;
        rows[i] = &w->memories[i];
    }
    w->parts = fake_parts_new(FAKE_DIM, MN_METRIC_IP);
    fake_parts_tail(w->parts, rows + 600, 300);
    fake_parts_columns(w->parts, rows + 300, 300);
    fake_parts_columns(w->parts, rows, 300);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    for (uint32_t limit = 1; limit <= 5; limit++) {
        page_through(w, &reading, &snapshot, &scope, true, limit);
        page_through(w, &reading, &snapshot, &scope, false, limit);
    }
    mn_reading_free(&reading);
    fake_world_free(w);
}

static void counts_are_what_the_model_says(void **state)
{
    static uint32_t want[FAKE_ROWS_MAX];
    struct mn_reading reading = {0};
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct fake_world *w = fake_world_new(seed * 13, MN_METRIC_IP, 300 * (uint32_t)seed, seed % 2 == 0);
        for (int turn = 0; turn < 200; turn++) {
            struct fake_scope scope;
            uint64_t count;
            struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq - fake_below(w, 30), w->now);
            fake_scope_make(w, &scope);
            assert_int_equal(mn_read_count(&reading, &snapshot, &scope.scope, &count), MN_OK);
            assert_int_equal(count, model(w, &scope.scope, snapshot.seq, false, want));
        }
        fake_world_free(w);
    }
    mn_reading_free(&reading);
}

static void ids_are_found_in_their_visible_version(void **state)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct fake_world *w = fake_world_new(seed * 19, MN_METRIC_IP, 600, seed % 2 == 0);
        for (int turn = 0; turn < 1500; turn++) {
            struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq - fake_below(w, 200), w->now);
            const struct fake_memory *m = &w->memories[fake_below(w, w->count)];
            uint32_t want = MN_NONE;
            for (uint32_t i = 0; i < w->count; i++) {
                if (fake_visible(w, i, snapshot.seq, w->now) && mn_id_equal(&w->memories[i].id, &m->id) &&
                    strcmp(w->memories[i].space, m->space) == 0)
                    want = i;
            }
            struct mn_row_ref found = mn_read_find(&snapshot, fake_str(m->space), &m->id);
            assert_int_equal(found.part == MN_NONE, want == MN_NONE);
            if (want != MN_NONE)
                assert_int_equal(index_of(w, found), want);
            assert_int_equal(mn_read_find(&snapshot, fake_str("nowhere"), &m->id).part, MN_NONE);
        }
        fake_world_free(w);
    }
}

/* Where a row stands in the list of its space, and that list. */
static uint32_t neighbours(struct fake_world *w, uint32_t index, uint64_t seq, uint32_t *list, uint32_t *place)
{
    struct mn_str space = fake_str(w->memories[index].space);
    struct mn_scope scope = {.spaces = &space, .space_count = 1, .after = INT64_MIN};
    uint32_t count = model(w, &scope, seq, false, list);
    for (*place = 0; *place < count && list[*place] != index;)
        (*place)++;
    assert_true(*place < count);
    return count;
}

static void context_is_the_neighbours_in_time(void **state)
{
    static uint32_t list[FAKE_ROWS_MAX];
    struct mn_reading reading = {0};
    struct fake_world *w = fake_world_new(23, MN_METRIC_IP, 1000, true);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    for (int turn = 0; turn < 2000; turn++) {
        /* Long enough with one snapshot for the tail to be sorted, then another. */
        if (fake_below(w, 12) == 0)
            snapshot.seq = w->seq - fake_below(w, 100);
        uint32_t part = fake_below(w, snapshot.part_count), row = fake_below(w, snapshot.parts[part].rows);
        uint32_t index = fake_index(w, part, row), n = fake_below(w, 7), before, after, place;
        if (!fake_visible(w, index, snapshot.seq, w->now))
            continue;
        uint32_t count = neighbours(w, index, snapshot.seq, list, &place);
        assert_int_equal(mn_read_context(&reading, &snapshot, (struct mn_row_ref){part, row}, n, &before, &after),
                         MN_OK);
        assert_int_equal(before, place < n ? place : n);
        assert_int_equal(after, count - place - 1 < n ? count - place - 1 : n);
        assert_int_equal(reading.row_count, before + after);
        for (uint32_t i = 0; i < before; i++)
            assert_int_equal(index_of(w, reading.rows[i]), list[place - before + i]);
        for (uint32_t i = 0; i < after; i++)
            assert_int_equal(index_of(w, reading.rows[before + i]), list[place + 1 + i]);
    }
    mn_reading_free(&reading);
    fake_world_free(w);
}

struct visited {
    const struct fake_world *world;
    char last[64];
    uint64_t seq, total;
    uint32_t spaces, stop_at;
};

static enum mn_status visit_space(void *context, struct mn_str space, uint64_t count)
{
    struct visited *v = context;
    uint64_t want = 0;
    char name[64] = {0};
    memcpy(name, space.data, space.length);
    assert_true(v->spaces == 0 || strcmp(v->last, name) < 0);
    for (uint32_t i = 0; i < v->world->count; i++)
        want += fake_visible(v->world, i, v->seq, v->world->now) && strcmp(v->world->memories[i].space, name) == 0;
    assert_int_equal(count, want);
    memcpy(v->last, name, sizeof name);
    v->total += count;
    return ++v->spaces == v->stop_at ? MN_FAIL(MN_BUSY, "enough") : MN_OK;
}

static void spaces_are_counted_and_sorted(void **state)
{
    static uint32_t list[FAKE_ROWS_MAX];
    struct mn_scope scope = {.all_spaces = true, .after = INT64_MIN};
    struct fake_world *w = fake_world_new(29, MN_METRIC_IP, 1000, true);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    struct visited v = {.world = w, .seq = w->seq};
    assert_int_equal(mn_read_spaces(&snapshot, visit_space, &v), MN_OK);
    assert_int_equal(v.total, model(w, &scope, w->seq, false, list));
    assert_int_equal(v.spaces, 6);
    struct visited stopped = {.world = w, .seq = w->seq, .stop_at = 2};
    assert_int_equal(mn_read_spaces(&snapshot, visit_space, &stopped), MN_BUSY);
    assert_int_equal(stopped.spaces, 2);
    fake_world_free(w);
}

/* More names than the scratch of a part remembers and than the table begins with. */
static void many_spaces_are_counted_too(void **state)
{
    static char names[FAKE_ROWS_MAX][12];
    const struct fake_memory *rows[FAKE_ROWS_MAX];
    struct fake_world *w = fake_world_new(31, MN_METRIC_IP, 2000, false);
    fake_parts_free(w->parts);
    w->parts = fake_parts_new(FAKE_DIM, MN_METRIC_IP);
    for (uint32_t i = 0; i < w->count; i++) {
        snprintf(names[i], sizeof names[i], "s%u", i * 7 % 1901);
        w->memories[i].space = names[i];
        w->memories[i].died = MN_ALIVE;
        w->memories[i].expires = MN_NEVER;
        w->memories[i].id = fake_id(i);
        rows[i] = &w->memories[i];
    }
    fake_parts_tail(w->parts, rows + 900, 1100);
    fake_parts_columns(w->parts, rows, 900);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    struct visited v = {.world = w, .seq = w->seq};
    assert_int_equal(mn_read_spaces(&snapshot, visit_space, &v), MN_OK);
    assert_int_equal(v.total, 2000);
    assert_int_equal(v.spaces, 1901);
    fake_world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_over_tails),
        cmocka_unit_test(pages_over_columns),
        cmocka_unit_test(a_page_of_nothing_tells_whether_there_is_more),
        cmocka_unit_test(equal_times_are_paged_by_id_and_space),
        cmocka_unit_test(counts_are_what_the_model_says),
        cmocka_unit_test(ids_are_found_in_their_visible_version),
        cmocka_unit_test(context_is_the_neighbours_in_time),
        cmocka_unit_test(spaces_are_counted_and_sorted),
        cmocka_unit_test(many_spaces_are_counted_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
