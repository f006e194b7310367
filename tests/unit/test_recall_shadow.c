/*
 * test_recall_shadow.c - which recalls are shadowed, and how the two answers are compared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "actors/recall_shadow.h"
#include "tests/unit/fake_parts.h"

#define ROWS 4

static const float vector[2] = {1, 0};

/* Rows 0 and 1: ids 1 and 2 of one space; rows 2 and 3: the same ids of another. */
struct world {
    struct fake_memory memories[ROWS];
    struct fake_parts *parts;
    struct mn_snapshot snapshot;
    struct mn_hit hits[ROWS];
    struct mn_search search;
    struct mn_recall_shadow shadow;
};

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    const struct fake_memory *list[ROWS];
    for (uint32_t i = 0; i < ROWS; i++) {
        w->memories[i] = (struct fake_memory){.space = i < 2 ? "a" : "b",
                                              .id = fake_id(1 + i % 2),
                                              .born = 1,
                                              .died = MN_ALIVE,
                                              .expires = MN_NEVER,
                                              .confidence = 1,
                                              .vector = vector};
        list[i] = &w->memories[i];
        w->hits[i] = (struct mn_hit){.part = 0, .row = i};
    }
    w->parts = fake_parts_new(2, MN_METRIC_COSINE);
    fake_parts_tail(w->parts, list, ROWS);
    w->snapshot = fake_parts_snapshot(w->parts, 7, 0);
    w->search = (struct mn_search){.hits = w->hits, .hit_count = ROWS};
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    free(w->shadow.due);
    fake_parts_free(w->parts);
    free(w);
    return 0;
}

static bool noted(struct world *w, struct mn_recall_request asked)
{
    mn_recall_shadow_note(&w->shadow, &asked, 99, &w->snapshot, &w->search);
    struct mn_shadow_answer *answer = mn_recall_shadow_take(&w->shadow);
    free(answer);
    return answer != NULL;
}

static struct mn_recall_request plain(void)
{
    return (struct mn_recall_request){.query = {.k = 10}, .count = 1};
}

static void each_third_is_due(void **state)
{
    struct world *w = *state;
    w->shadow.every = 3;
    for (int i = 1; i <= 9; i++)
        assert_int_equal(noted(w, plain()), i % 3 == 0);
}

static void zero_is_never(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 5; i++)
        assert_false(noted(w, plain()));
}

static void others_do_not_count(void **state)
{
    struct world *w = *state;
    w->shadow.every = 1;
    struct mn_recall_request batch = plain(), exact = plain(), past = plain(), many = plain(), most = plain();
    batch.batch = true;
    exact.query.exact = true;
    past.moment.has_as_of = true;
    many.query.k = MN_SHADOW_K_MAX + 1;
    most.query.k = MN_SHADOW_K_MAX;
    assert_false(noted(w, batch) || noted(w, exact) || noted(w, past) || noted(w, many));
    assert_true(noted(w, most));
}

static void what_is_kept(void **state)
{
    struct world *w = *state;
    struct mn_recall_request asked = plain();
    w->shadow.every = 1;
    w->search.hit_count = 2;
    mn_recall_shadow_note(&w->shadow, &asked, 99, &w->snapshot, &w->search);
    mn_recall_shadow_note(&w->shadow, &asked, 100, &w->snapshot, &w->search); /* nobody took the first */
    struct mn_shadow_answer *answer = mn_recall_shadow_take(&w->shadow);
    assert_non_null(answer);
    assert_null(mn_recall_shadow_take(&w->shadow));
    assert_int_equal(answer->seq, 7);
    assert_int_equal(answer->now, 100);
    assert_int_equal(answer->count, 2);
    free(answer);
}

static void answers_are_compared_by_id_and_space(void **state)
{
    struct world *w = *state;
    struct mn_recall_request asked = plain();
    w->shadow.every = 1;
    w->search.hit_count = 2; /* ids 1 and 2 of the first space */
    mn_recall_shadow_note(&w->shadow, &asked, 0, &w->snapshot, &w->search);
    struct mn_shadow_answer *answer = mn_recall_shadow_take(&w->shadow);
    assert_int_equal(mn_recall_shadow_found(answer, &w->snapshot, &w->search), 2);
    w->search.hit_count = ROWS; /* those of the other space were not found */
    assert_int_equal(mn_recall_shadow_found(answer, &w->snapshot, &w->search), 2);
    w->search.hits = w->hits + 1;
    w->search.hit_count = 2;
    assert_int_equal(mn_recall_shadow_found(answer, &w->snapshot, &w->search), 1);
    w->search.hit_count = 0;
    assert_int_equal(mn_recall_shadow_found(answer, &w->snapshot, &w->search), 0);
    free(answer);
}

static void an_empty_answer(void **state)
{
    struct world *w = *state;
    struct mn_recall_request asked = plain();
    w->shadow.every = 1;
    w->search.hit_count = 0;
    mn_recall_shadow_note(&w->shadow, &asked, 0, &w->snapshot, &w->search);
    struct mn_shadow_answer *answer = mn_recall_shadow_take(&w->shadow);
    w->search.hit_count = ROWS;
    assert_int_equal(mn_recall_shadow_found(answer, &w->snapshot, &w->search), 0);
    free(answer);
}

static void checks_rest_where_they_cost(void **state)
{
    (void)state;
    assert_int_equal(mn_recall_shadow_rest(1000, false), 0);
    assert_true(mn_recall_shadow_rest(1000, true) >= 10 * 1000);
    assert_int_equal(mn_recall_shadow_rest(0, true), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_third_is_due, set_up, tear_down),
        cmocka_unit_test_setup_teardown(zero_is_never, set_up, tear_down),
        cmocka_unit_test_setup_teardown(others_do_not_count, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_are_compared_by_id_and_space, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_empty_answer, set_up, tear_down),
        cmocka_unit_test(checks_rest_where_they_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
