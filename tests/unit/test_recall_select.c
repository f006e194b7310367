/*
 * test_recall_select.c - engine/recall_select and engine/recall_late: what a filter makes of the rule by which a search
 * through clusters ends.
 *
 * A rule is calibrated without one; under it the hits of the exact search must still be found.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/recall.h"
#include "tests/unit/fake_world.h"

#define DIM      24
#define ROWS     8000
#define CENTERS  300
#define CLUSTERS 200
#define QUERIES  250
#define SIDE     (-0.4f) /* rows that lie there are too many for a list, */
#define FAR      (-1.2f) /* and far from here */

/* Rows around centers: one in ten of them is tagged "tenth", by chance, and all around some centers "side", which lie
 * to one side of the others. */
struct crowd {
    uint64_t random;
    float centers[CENTERS][DIM], vectors[ROWS][DIM];
    struct fake_memory memories[ROWS];
    const struct fake_memory *list[ROWS];
    struct fake_parts *parts;
    struct mn_search search;
    uint32_t k; /* of recall_of */
};

static uint64_t next_random(struct crowd *c)
{
    c->random = c->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return c->random >> 33;
}

/* About normal: mean 0, variance 1. */
static float normal(struct crowd *c)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)next_random(c) * 0x1p-31f;
    return sum - 6;
}

/* Returns where the center lies, from side to side. */
static float fill_near(struct crowd *c, float x[DIM])
{
    const float *center = c->centers[next_random(c) % CENTERS];
    for (uint32_t i = 0; i < DIM; i++)
        x[i] = center[i] + 0.7f * normal(c);
    return center[0];
}

static void make_parts(struct crowd *c, enum mn_metric metric)
{
    if (c->parts)
        fake_parts_free(c->parts);
    c->parts = fake_parts_new(DIM, metric);
    fake_parts_columns(c->parts, c->list, ROWS);
    fake_parts_code(c->parts, 0, ROWS, fake_parts_codebook(c->parts, 1, CLUSTERS), false);
}

/* lengths: how much the lengths of rows differ; their logarithms are about normal. */
static struct crowd *crowd_new(enum mn_metric metric, float lengths)
{
    struct crowd *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->random = 7;
    for (uint32_t i = 0; i < CENTERS; i++)
        for (uint32_t j = 0; j < DIM; j++)
            c->centers[i][j] = normal(c);
    for (uint32_t i = 0; i < ROWS; i++) {
        struct fake_memory *memory = &c->memories[i];
        float side = fill_near(c, c->vectors[i]), length = lengths > 0 ? expf(lengths * normal(c)) : 1;
        for (uint32_t j = 0; j < DIM; j++)
            c->vectors[i][j] *= length;
        *memory = (struct fake_memory){.space = "default",
                                       .id = fake_id(i + 1),
                                       .born = 1,
                                       .died = MN_ALIVE,
                                       .at = i,
                                       .expires = MN_NEVER,
                                       .vector = c->vectors[i]};
        if (next_random(c) % 10 == 0)
            memory->tags[memory->tag_count++] = "tenth";
        if (side > SIDE)
            memory->tags[memory->tag_count++] = "side";
        c->list[i] = memory;
    }
    c->k = 10;
    make_parts(c, metric);
    assert_int_equal(mn_search_init(&c->search, metric, DIM), MN_OK);
    return c;
}

static void crowd_free(struct crowd *c)
{
    mn_search_free(&c->search);
    fake_parts_free(c->parts);
    free(c);
}

/* The share of the exact search's hits that a search by the rule finds among the rows with a tag, or NULL: all. Queries
 * lie around centers up to `most`. */
static double recall_of(struct crowd *c, const struct mn_tune_rule *rule, const char *tag, float most)
{
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    struct mn_str wanted = tag ? fake_str(tag) : (struct mn_str){NULL, 0};
    uint32_t good = 0, all = 0;
    c->random = 99;
    for (uint32_t i = 0; i < QUERIES; i++) {
        float embedding[DIM];
        double least;
        while (fill_near(c, embedding) > most)
            continue;
        struct mn_query query = {
            .scope = {.all_spaces = true, .after = INT64_MIN}, .embedding = embedding, .k = c->k, .exact = true};
        query.scope.filter.tags_all = &wanted;
        query.scope.filter.tags_all_count = tag != NULL;
        assert_int_equal(mn_recall_search(&c->search, &snapshot, &query), MN_OK);
        assert_int_equal(c->search.hit_count, c->k);
        least = c->search.hits[c->k - 1].score;
        c->search.rule = rule;
        query.exact = false;
        assert_int_equal(mn_recall_search(&c->search, &snapshot, &query), MN_OK);
        assert_int_equal(c->search.hit_count, c->k);
        assert_false(c->search.exact);
        for (uint32_t h = 0; h < c->k; h++)
            good += c->search.hits[h].score >= least;
        all += c->k;
        c->search.rule = NULL;
    }
    return (double)good / all;
}

/* With hardly any nearness a search goes by how many clusters it has opened, and the k-th best among fewer rows lies in
 * more of them. */
static void matches_are_found_where_they_are_thin_too(void **state)
{
    static const struct mn_tune_rule some = {.stop = 2.4f, .epsilon = 3, .nearness = 1, .deeper = 0.575f};
    struct crowd *c = crowd_new(MN_METRIC_COSINE, 0);
    double all = recall_of(c, &some, NULL, INFINITY), tenth = recall_of(c, &some, "tenth", INFINITY);
    if (all < 0.9 || all > 0.97 || tenth < 0.77)
        fail_msg("recall is %.3f, of a tenth %.3f", all, tenth);
    crowd_free(c);
}

/* What calibration has learnt without filters holds under one. */
static void a_calibrated_target_is_kept_where_matches_are_thin(void **state)
{
    struct crowd *c = crowd_new(MN_METRIC_COSINE, 0);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    struct mn_tuning tuning;
    assert_int_equal(mn_tune_calibrate(&snapshot, MN_METRIC_COSINE, DIM, 400, 1, NULL, NULL, &tuning, NULL), MN_OK);
    struct mn_tune_rule rule = mn_tune_rule_for(&tuning, 0.9, 10);
    double all = recall_of(c, &rule, NULL, INFINITY), tenth = recall_of(c, &rule, "tenth", INFINITY);
    if (all < 0.88 || tenth < 0.88)
        fail_msg("recall is %.3f, of a tenth %.3f; deeper %.3f", all, tenth, (double)rule.deeper);
    crowd_free(c);
}

/* Where clusters near the query hold no match, the search goes to those that do. */
static void matches_are_found_far_from_the_query(void **state)
{
    static const struct mn_tune_rule some = {.stop = 3.5f, .epsilon = 3, .nearness = 1, .deeper = 0.575f};
    struct crowd *c = crowd_new(MN_METRIC_COSINE, 0);
    double far = recall_of(c, &some, "side", FAR);
    if (far < 0.88)
        fail_msg("recall is %.3f", far);
    crowd_free(c);
}

/* The longest rows lie in wide clusters, wherever their centroids point. */
static void long_rows_are_found_far_from_the_query(void **state)
{
    static const struct mn_tune_rule some = {.stop = 3.5f, .epsilon = 3, .nearness = 2, .deeper = 0.575f};
    struct crowd *c = crowd_new(MN_METRIC_IP, 1.7f);
    double far = recall_of(c, &some, "side", FAR);
    if (far < 0.92)
        fail_msg("recall is %.3f", far);
    crowd_free(c);
}

/* A rule that ends too early for matches that lie to one side is not the last word while what is found comes late. */
static void what_comes_late_keeps_a_search_going(void **state)
{
    static const struct mn_tune_rule alone = {.stop = 1.5f, .epsilon = 3, .nearness = 1, .deeper = 0.575f},
                                     watched = {
                                         .stop = 1.5f, .epsilon = 3, .nearness = 1, .deeper = 0.575f, .misses = 0.05f};
    struct crowd *c = crowd_new(MN_METRIC_COSINE, 0);
    c->k = 50; /* of few, several come late by chance */
    double early = recall_of(c, &alone, "side", FAR), late = recall_of(c, &watched, "side", FAR);
    if (early > 0.6 || late < 0.65)
        fail_msg("recall is %.3f, watched %.3f", early, late);
    crowd_free(c);
}

/* So it is where all around the query was forgotten. */
static void what_lives_is_found_behind_many_dead(void **state)
{
    static const struct mn_tune_rule alone = {.stop = 2.2f, .epsilon = 3, .nearness = 1},
                                     watched = {.stop = 2.2f, .epsilon = 3, .nearness = 1, .misses = 0.05f};
    struct crowd *c = crowd_new(MN_METRIC_COSINE, 0);
    for (uint32_t i = 0; i < ROWS; i++)
        if (c->memories[i].tag_count == 0 || strcmp(c->memories[i].tags[c->memories[i].tag_count - 1], "side") != 0)
            c->memories[i].died = mn_died_make(1, false);
    make_parts(c, MN_METRIC_COSINE);
    double early = recall_of(c, &alone, NULL, FAR), late = recall_of(c, &watched, NULL, FAR);
    if (early > 0.72 || late < 0.8)
        fail_msg("recall is %.3f, watched %.3f", early, late);
    crowd_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_are_found_where_they_are_thin_too),
        cmocka_unit_test(a_calibrated_target_is_kept_where_matches_are_thin),
        cmocka_unit_test(matches_are_found_far_from_the_query),
        cmocka_unit_test(long_rows_are_found_far_from_the_query),
        cmocka_unit_test(what_comes_late_keeps_a_search_going),
        cmocka_unit_test(what_lives_is_found_behind_many_dead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
