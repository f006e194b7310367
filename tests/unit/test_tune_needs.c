/*
 * test_tune_needs.c - engine/tune_needs and engine/recall_trace: what a traced search says of other rules is what
 * searches by those rules do.
 */
#include "engine/tune_needs.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/fake_parts.h"

#define ROWS  5000u
#define ASKED 60u
#define DIM   12u

/* A store of three parts: two of columns with codes on one codebook, and a tail of which half is coded. */
struct set {
    struct fake_parts *parts;
    struct fake_memory *memories;
    const struct fake_memory **list;
    float *vectors; /* [ROWS + ASKED][DIM] */
    uint64_t random;
};

static float uniform(struct set *s)
{
    s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(s->random >> 33) * 0x1p-30f - 1;
}

static void set_new(struct set *s, enum mn_metric metric)
{
    *s = (struct set){.parts = fake_parts_new(DIM, metric),
                      .memories = calloc(ROWS, sizeof *s->memories),
                      .list = calloc(ROWS, sizeof *s->list),
                      .vectors = calloc((size_t)(ROWS + ASKED) * DIM, sizeof *s->vectors),
                      .random = 11};
    assert_true(s->memories && s->list && s->vectors);
    for (uint32_t i = 0; i < (ROWS + ASKED) * DIM; i++)
        s->vectors[i] = uniform(s) + uniform(s) + uniform(s);
    for (uint32_t i = 0; i < ROWS; i++) {
        s->memories[i] = (struct fake_memory){.space = "default",
                                              .id = fake_id(i),
                                              .born = 1,
                                              .died = MN_ALIVE,
                                              .at = i,
                                              .expires = MN_NEVER,
                                              .vector = s->vectors + (size_t)i * DIM};
        s->list[i] = &s->memories[i];
    }
    fake_parts_tail(s->parts, s->list, 1000);
    fake_parts_columns(s->parts, s->list + 1000, 1500);
    fake_parts_columns(s->parts, s->list + 2500, 2500);
    const struct mn_codebook *codebook = fake_parts_codebook(s->parts, 1, 96);
    fake_parts_code(s->parts, 0, 500, codebook, false);
    fake_parts_code(s->parts, 1, 1500, codebook, false);
    fake_parts_code(s->parts, 2, 2500, codebook, false);
}

static void set_free(struct set *s)
{
    fake_parts_free(s->parts);
    free(s->memories);
    free(s->list);
    free(s->vectors);
}

static void search(struct set *s, struct mn_search *search, const struct mn_snapshot *snapshot, uint32_t query,
                   uint32_t k)
{
    struct mn_query asked = {.scope = {.all_spaces = true, .after = INT64_MIN},
                             .embedding = s->vectors + (size_t)(ROWS + query) * DIM,
                             .k = k};
    assert_int_equal(mn_recall_search(search, snapshot, &asked), MN_OK);
}

/* The searches by the rule: what they find of what a search through all finds, and what they cost. */
static void compare(struct set *s, const struct mn_snapshot *snapshot, const struct mn_tune_needs *needs,
                    struct mn_search *through, uint32_t nearness, float stop, double *least, uint64_t foretold)
{
    struct mn_tune_rule rule = {.stop = stop, .epsilon = 6, .nearness = mn_tune_nearnesses[nearness]};
    uint64_t found = 0, steps = 0;
    double error;
    through->rule = &rule;
    through->trace = NULL;
    for (uint32_t i = 0; i < ASKED; i++) {
        search(s, through, snapshot, i, needs->k);
        steps += through->steps;
        for (uint32_t h = 0; h < through->hit_count; h++)
            found += through->hits[h].score >= least[i];
    }
    double recall = mn_tune_needs_recall(needs, nearness, stop, ASKED, &error);
    assert_true(fabs((double)found - recall * ASKED * needs->k) < 0.005 * ASKED * needs->k + 2);
    assert_true(recall == 1 || error > 0);
    /* A search takes some clusters ahead. */
    assert_true(foretold <= steps && steps < foretold + foretold / 4 + ASKED * 24);
}

static void a_trace_foretells_what_rules_find_and_cost(void **state)
{
    static const uint32_t depths[] = {1, 10, 100};
    for (uint32_t d = 0; d < 3 * MN_METRIC_COUNT; d++) {
        struct set s;
        struct mn_search through;
        struct mn_tune_needs needs;
        struct mn_recall_trace trace = {0};
        struct mn_tune_rule all = {.stop = 1e30f, .epsilon = 6, .nearness = 1};
        double least[ASKED], recalls[] = {0.6, 0.9, 0.97, 1};
        uint64_t costs[MN_TUNE_NEARNESSES][MN_ARRAY_LEN(recalls)] = {{0}};
        set_new(&s, (enum mn_metric)(d / 3));
        struct mn_snapshot snapshot = fake_parts_snapshot(s.parts, 1, 0);
        assert_int_equal(mn_search_init(&through, (enum mn_metric)(d / 3), DIM), MN_OK);
        assert_int_equal(mn_tune_needs_init(&needs, ASKED, depths[d % 3]), MN_OK);
        for (uint32_t round = 0; round < 2; round++) { /* first the needs, then what they cost */
            for (uint32_t i = 0; i < ASKED; i++) {
                through.rule = &all;
                through.trace = &trace;
                mn_recall_trace_begin(&trace);
                search(&s, &through, &snapshot, i, needs.k);
                assert_true(trace.count > 20 && trace.run_count == 1 && !trace.lost);
                least[i] = through.hits[through.hit_count - 1].score;
                if (round == 0)
                    assert_int_equal(mn_tune_needs_add(&needs, &through, &snapshot), MN_OK);
                for (uint32_t n = 0; round == 1 && n < MN_TUNE_NEARNESSES; n++)
                    for (size_t r = 0; r < MN_ARRAY_LEN(recalls); r++)
                        costs[n][r] += mn_tune_needs_cost(&trace, n, mn_tune_needs_stop(&needs, n, recalls[r]));
            }
            mn_tune_needs_sort(&needs);
        }
        for (uint32_t n = 0; n < MN_TUNE_NEARNESSES; n++) {
            for (size_t r = 0; r < MN_ARRAY_LEN(recalls); r++) {
                float stop = mn_tune_needs_stop(&needs, n, recalls[r]);
                double error;
                assert_true(mn_tune_needs_recall(&needs, n, stop, ASKED, &error) >= recalls[r] - 1e-9);
                compare(&s, &snapshot, &needs, &through, n, stop, least, costs[n][r]);
            }
        }
        mn_recall_trace_free(&trace);
        mn_tune_needs_free(&needs);
        mn_search_free(&through);
        set_free(&s);
    }
}

static void nothing_was_asked(void **state)
{
    struct mn_tune_needs needs;
    double error;
    assert_int_equal(mn_tune_needs_init(&needs, 4, 10), MN_OK);
    mn_tune_needs_sort(&needs);
    assert_true(mn_tune_needs_stop(&needs, 0, 0.9) == 0);
    assert_true(mn_tune_needs_recall(&needs, 0, 1, 4, &error) == 1 && error == 0);
    mn_tune_needs_free(&needs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trace_foretells_what_rules_find_and_cost),
        cmocka_unit_test(nothing_was_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
