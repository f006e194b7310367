/*
 * test_tune.c - engine/tune: rules between calibrated targets and without calibration; and that a calibration keeps its
 * targets on questions it has not seen.
 */
#include "engine/tune.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/recall.h"
#include "tests/unit/fake_parts.h"

static void the_rule_lies_between_its_neighbours(void **state)
{
    struct mn_tuning tuning = {.form = MN_TUNE_FORM, .deeper = {0.5f, 0.5f, 0.5f}};
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++) {
        tuning.nearness[i / MN_TUNE_TOGETHER] = 7;
        assert_true(i == 0 || mn_tune_targets[i] > mn_tune_targets[i - 1]);
        tuning.stop[i] = 4 + (float)i;
        tuning.epsilon[i] = 1 + 0.1f * (float)i;
    }
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++) {
        struct mn_tune_rule rule = mn_tune_rule_for(&tuning, mn_tune_targets[i], MN_TUNE_TOP);
        assert_true(fabsf(rule.stop - tuning.stop[i]) < 1e-4f && fabsf(rule.epsilon - tuning.epsilon[i]) < 1e-4f);
        assert_true(rule.nearness == 7 && rule.deeper == 0.5f);
    }
    tuning.nearness[1] = 2;
    tuning.nearness[2] = 4;
    assert_true(mn_tune_rule_for(&tuning, mn_tune_targets[3], MN_TUNE_TOP).nearness == 7);
    assert_true(mn_tune_rule_for(&tuning, mn_tune_targets[4], MN_TUNE_TOP).nearness == 2);
    assert_true(mn_tune_rule_for(&tuning, mn_tune_targets[7], MN_TUNE_TOP).nearness == 2);
    assert_true(fabsf(mn_tune_rule_for(&tuning, (mn_tune_targets[7] + mn_tune_targets[8]) / 2, MN_TUNE_TOP).nearness -
                      3) < 1e-4f);
    struct mn_tune_rule rule = mn_tune_rule_for(&tuning, (mn_tune_targets[2] + mn_tune_targets[3]) / 2, MN_TUNE_TOP);
    assert_true(fabsf(rule.stop - 6.5f) < 1e-4f);
    assert_true(mn_tune_rule_for(&tuning, 0.1, MN_TUNE_TOP).stop == tuning.stop[0]);
    assert_true(fabsf(mn_tune_rule_for(&tuning, 0.9985, MN_TUNE_TOP).stop - tuning.stop[MN_TUNE_TARGETS - 1]) < 1e-4f);
    assert_true(mn_tune_rule_for(&tuning, 1, MN_TUNE_TOP).stop == INFINITY);
    tuning.stop[MN_TUNE_TARGETS - 1] = INFINITY; /* codes cannot */
    assert_true(mn_tune_rule_for(&tuning, mn_tune_targets[MN_TUNE_TARGETS - 1], MN_TUNE_TOP).stop == INFINITY);
    assert_true(mn_tune_rule_for(&tuning, mn_tune_targets[MN_TUNE_TARGETS - 2] + 1e-4, MN_TUNE_TOP).stop == INFINITY);
    assert_true(mn_tune_rule_for(&tuning, mn_tune_targets[MN_TUNE_TARGETS - 2], MN_TUNE_TOP).stop == tuning.stop[10]);
    assert_true(mn_tune_rule_for(&tuning, 0, MN_TUNE_TOP).stop == mn_tune_rule_for(&tuning, 0.95, MN_TUNE_TOP).stop);
}

static void more_than_ten_are_looked_for_deeper(void **state)
{
    struct mn_tuning tuning = {.form = MN_TUNE_FORM, .nearness = {2, 2, 2}, .deeper = {0.8f, 0.6f, 0.4f}};
    float last = 0;
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++)
        tuning.stop[i] = 4 + (float)i;
    assert_true(mn_tune_rule_for(&tuning, 0.95, 1).stop == mn_tune_rule_for(&tuning, 0.95, MN_TUNE_TOP).stop);
    assert_true(fabsf(mn_tune_rule_for(&tuning, 0.95, 100).stop - tuning.stop[MN_TUNE_DEFAULT] - 0.6f) < 1e-4f);
    for (uint32_t k = MN_TUNE_TOP; k <= 10000; k *= 3) {
        struct mn_tune_rule rule = mn_tune_rule_for(&tuning, 0.95, k);
        assert_true(rule.stop > last && rule.deeper == 0.6f);
        last = rule.stop;
    }
    tuning.stop[MN_TUNE_TARGETS - 1] = INFINITY; /* codes cannot */
    assert_true(mn_tune_rule_for(&tuning, 0.995, 100).stop == INFINITY);
}

static void an_untuned_store_is_on_the_safe_side(void **state)
{
    struct mn_tuning tuning = {0};
    float last = 0;
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++) {
        struct mn_tune_rule rule = mn_tune_rule_for(&tuning, mn_tune_targets[i], MN_TUNE_TOP);
        assert_true(rule.stop > last && rule.stop < 100 && rule.epsilon >= 1.9f && rule.nearness > 0);
        last = rule.stop;
    }
}

static void a_rule_is_carried_over_to_another_codebook(void **state)
{
    struct mn_tuning first = {.form = MN_TUNE_FORM, .nearness = {3, 3, 3}, .rows = 1000}, tuning;
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++)
        first.stop[i] = 2 + 0.5f * (float)i;
    tuning = first;
    mn_tune_carry_over(&tuning, 100, 200);
    assert_true(tuning.rows == 0 && mn_tuned(&tuning));
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++)
        assert_true(tuning.stop[i] > first.stop[i] + logf(2) + 0.1f && tuning.stop[i] < first.stop[i] + logf(2) + 0.5f);
    struct mn_tuning again = tuning;
    mn_tune_carry_over(&again, 200, 400); /* what the rest is a guess by is added once */
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++)
        assert_true(fabsf(again.stop[i] - tuning.stop[i] - logf(2)) < 1e-4f);
    again = tuning;
    mn_tune_carry_over(&again, 200, 100); /* never less than was asked for */
    assert_memory_equal(&again, &tuning, sizeof again);
    mn_tune_carry_over(&tuning, 0, 100);
    assert_true(!mn_tuned(&tuning) && tuning.stop[0] == 0);
    mn_tune_carry_over(&tuning, 100, 200); /* untuned stays untuned */
    assert_true(!mn_tuned(&tuning) && tuning.stop[0] == 0);
}

static void some_rows_are_for_calibration_only(void **state)
{
    uint32_t left_out = 0;
    for (uint32_t i = 0; i < 8000; i++) {
        struct mn_id id = fake_id(i);
        left_out += mn_codebook_leaves_out(&id);
    }
    assert_true(left_out > 800 && left_out < 1200);
}

/* ---- calibration ---- */

#define ROWS    6000
#define ASKED   300
#define DIM     48
#define CENTERS 300

struct set {
    struct fake_parts *parts;
    struct fake_memory *memories;
    const struct fake_memory **list;
    float *vectors; /* [ROWS + ASKED][DIM] */
    uint64_t random;
};

static float normal(struct set *s)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        sum += (float)(s->random >> 33) * 0x1p-31f;
    }
    return sum - 6;
}

static void set_new(struct set *s, enum mn_metric metric)
{
    static float centers[CENTERS][DIM];
    *s = (struct set){.parts = fake_parts_new(DIM, metric),
                      .memories = calloc(ROWS, sizeof *s->memories),
                      .list = calloc(ROWS, sizeof *s->list),
                      .vectors = calloc((ROWS + ASKED) * DIM, sizeof *s->vectors),
                      .random = 5};
    assert_true(s->memories && s->list && s->vectors);
    for (uint32_t i = 0; i < CENTERS * DIM; i++)
        centers[i / DIM][i % DIM] = normal(s);
    for (uint32_t i = 0; i < (ROWS + ASKED) * DIM; i++)
        s->vectors[i] = centers[i / DIM * 7919 % CENTERS][i % DIM] + 0.9f * normal(s);
    for (uint32_t i = 0; i < ROWS; i++) {
        s->memories[i] = (struct fake_memory){.space = "default",
                                              .id = fake_id(i),
                                              .born = 1,
                                              .died = i % 50 ? MN_ALIVE : mn_died_make(1, false),
                                              .at = i,
                                              .expires = MN_NEVER,
                                              .vector = s->vectors + (size_t)i * DIM};
        s->list[i] = &s->memories[i];
    }
    fake_parts_tail(s->parts, s->list, ROWS / 2);
    fake_parts_columns(s->parts, s->list + ROWS / 2, ROWS / 2);
}

static void set_free(struct set *s)
{
    fake_parts_free(s->parts);
    free(s->memories);
    free(s->list);
    free(s->vectors);
}

static double measured_recall(struct set *s, struct mn_snapshot *snapshot, enum mn_metric metric, double target,
                              uint32_t k)
{
    struct mn_search codes, exact;
    uint32_t good = 0;
    assert_int_equal(mn_search_init(&codes, metric, DIM), MN_OK);
    assert_int_equal(mn_search_init(&exact, metric, DIM), MN_OK);
    for (uint32_t i = 0; i < ASKED; i++) {
        struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN},
                                 .embedding = s->vectors + (size_t)(ROWS + i) * DIM,
                                 .k = k,
                                 .target = target};
        assert_int_equal(mn_recall_search(&codes, snapshot, &query), MN_OK);
        assert_false(codes.exact);
        query.exact = true;
        assert_int_equal(mn_recall_search(&exact, snapshot, &query), MN_OK);
        for (uint32_t h = 0; h < codes.hit_count; h++)
            good += codes.hits[h].score >= exact.hits[exact.hit_count - 1].score;
    }
    mn_search_free(&codes);
    mn_search_free(&exact);
    return (double)good / ((double)k * ASKED);
}

static bool never(void *context)
{
    return false;
}

static bool at_once(void *context)
{
    return true;
}

static void a_calibration_keeps_its_targets(void **state)
{
    static const double targets[] = {0.8, 0.9, 0.95, 0.98};
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        struct set s;
        struct mn_tuning tuning, again;
        struct mn_tune_point points[MN_TUNE_TARGETS];
        _Atomic uint32_t words[MN_TUNING_WORDS];
        set_new(&s, (enum mn_metric)metric);
        const struct mn_codebook *codebook = fake_parts_codebook(s.parts, 1, 96);
        struct mn_snapshot snapshot = fake_parts_snapshot(s.parts, 1, 0);
        assert_int_equal(mn_tune_calibrate(&snapshot, (enum mn_metric)metric, DIM, 400, 1, never, NULL, &tuning, NULL),
                         MN_OK);
        assert_true(!mn_tuned(&tuning) && tuning.stop[5] == 0); /* nothing to calibrate yet */
        for (uint32_t i = 0; i < 2; i++)
            fake_parts_code(s.parts, i, ROWS / 2, codebook, false);
        snapshot = fake_parts_snapshot(s.parts, 1, 0);
        assert_int_equal(
            mn_tune_calibrate(&snapshot, (enum mn_metric)metric, DIM, 400, 1, at_once, NULL, &tuning, NULL),
            MN_DEADLINE);
        assert_true(!mn_tuned(&tuning));
        assert_int_equal(
            mn_tune_calibrate(&snapshot, (enum mn_metric)metric, DIM, 400, 1, never, NULL, &tuning, points), MN_OK);
        assert_int_equal(mn_tune_calibrate(&snapshot, (enum mn_metric)metric, DIM, 400, 1, NULL, NULL, &again, NULL),
                         MN_OK);
        assert_memory_equal(&tuning, &again, sizeof tuning);
        assert_true(mn_tuned(&tuning) && tuning.rows == ROWS);
        for (uint32_t g = 0; g < MN_TUNE_GROUPS; g++)
            assert_true(tuning.deeper[g] >= 0 && tuning.deeper[g] <= MN_TUNE_DEEPER_MAX);
        for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++)
            assert_true(points[i].target == mn_tune_targets[i] && points[i].recall > points[i].target - 0.03 &&
                        points[i].scanned > 0 && points[i].p50_us > 0 && points[i].p99_us >= points[i].p50_us);
        for (uint32_t i = 0; i < MN_TUNING_WORDS; i++)
            words[i] = ((const uint32_t *)(const void *)&tuning)[i];
        snapshot.tuning = words;
        for (size_t i = 0; i < MN_ARRAY_LEN(targets); i++) {
            /* For 10 what is needed for 100 may be more than enough, in small clusters. */
            for (uint32_t k = 1; k <= 100; k *= 10) {
                double recall = measured_recall(&s, &snapshot, (enum mn_metric)metric, targets[i], k);
                double least = k == 10 ? targets[i] - 0.03 : targets[i] - 0.5 * (1 - targets[i]) - 0.04;
                if (recall < least || (k == 10 && targets[i] < 0.95 && recall > targets[i] + 0.9 * (1 - targets[i])))
                    fail_msg("metric %d: asked for %.3f of the %u best, got %.3f", metric, targets[i], k, recall);
            }
        }
        set_free(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rule_lies_between_its_neighbours),
        cmocka_unit_test(more_than_ten_are_looked_for_deeper),
        cmocka_unit_test(an_untuned_store_is_on_the_safe_side),
        cmocka_unit_test(a_rule_is_carried_over_to_another_codebook),
        cmocka_unit_test(some_rows_are_for_calibration_only),
        cmocka_unit_test(a_calibration_keeps_its_targets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
