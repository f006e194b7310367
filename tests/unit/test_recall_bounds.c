/*
 * test_recall_bounds.c - engine/recall_bounds: the exact search that reads codes against the one that reads none.
 *
 * Both are asked the same of the same rows (cloud.h); the answers must be the same to the last bit, whatever the codes
 * are like.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/cloud.h"

static void every_metric_and_dimension(void **state)
{
    static const uint32_t dims[] = {1, 3, 48, 100, 768};
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        for (size_t d = 0; d < MN_ARRAY_LEN(dims); d++) {
            struct cloud *c = cloud_new((enum mn_metric)metric, dims[d], 1600);
            cloud_make_parts(c);
            for (uint32_t turn = 0; turn < 40; turn++) {
                struct mn_query query = cloud_question(c, 1 + turn % 20);
                cloud_ask(c, &query, CLOUD_SEQ - turn % 3);
            }
            cloud_assert_spared(c, dims[d] < 48 ? 0 : 0.5);
            cloud_free(c);
        }
    }
}

static void any_number_of_hits(void **state)
{
    static const uint32_t ks[] = {1, 2, 10, 60, 150, 200, 500, 1599, 1600, 2500};
    struct cloud *c = cloud_new(MN_METRIC_L2, 64, 1600);
    cloud_make_parts(c);
    for (size_t i = 0; i < 3 * MN_ARRAY_LEN(ks); i++) {
        struct mn_query query = cloud_question(c, ks[i % MN_ARRAY_LEN(ks)]);
        cloud_ask(c, &query, CLOUD_SEQ);
    }
    cloud_assert_spared(c, 0.2);
    cloud_free(c);
}

/* One row, over and over, and others a rounding away from it: what ties must be compared. */
static void ties_are_compared(void **state)
{
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        struct cloud *c = cloud_new((enum mn_metric)metric, 96, 1600);
        for (uint32_t i = 0; i < c->rows; i += 2) {
            float *x = c->vectors + (size_t)i * c->dim;
            memcpy(x, c->vectors + c->dim, c->dim * sizeof *x);
            if (i % 3 == 0)
                x[i % c->dim] = nextafterf(x[i % c->dim], i % 4 ? 10.0f : -10.0f);
            if (i % 5 == 0)
                for (uint32_t j = 0; metric == MN_METRIC_COSINE && j < c->dim; j++)
                    x[j] *= 3;
        }
        cloud_make_parts(c);
        for (uint32_t turn = 0; turn < 40; turn++) {
            struct mn_query query = cloud_question(c, 1 + turn);
            if (turn % 2)
                memcpy(c->embedding, c->vectors + c->dim, c->dim * sizeof *c->embedding);
            cloud_ask(c, &query, CLOUD_SEQ);
        }
        cloud_assert_spared(c, 0.2);
        cloud_free(c);
    }
}

static void filters_of_any_selectivity(void **state)
{
    static const char *const tags[] = {"half", "tenth", "rare", "half"};
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 64, 3000);
    cloud_make_parts(c);
    for (uint32_t turn = 0; turn < 300; turn++) {
        struct mn_query query = cloud_question(c, 1 + turn % 12);
        struct mn_str tag = fake_str(tags[turn % 4]), space = fake_str("other");
        struct mn_filter *filter = &query.scope.filter;
        query.scope.all_spaces = turn % 5 != 1;
        query.scope.spaces = &space;
        query.scope.space_count = 1;
        filter->tags_all = filter->tags_none = &tag;
        filter->tags_all_count = turn % 3 == 0;
        filter->tags_none_count = turn % 7 == 0;
        query.scope.after = turn % 6 == 0 ? 5 : INT64_MIN;
        query.scope.has_before = turn % 4 == 0;
        query.scope.before = 30 - turn % 24;
        query.scope.min_confidence = turn % 8 == 0 ? 0.35f : 0;
        query.has_exclude = turn % 2;
        query.exclude = fake_id(1 + cloud_below(c, 1500));
        query.exclude_space = space;
        cloud_ask(c, &query, 1 + turn % (CLOUD_SEQ + 1));
    }
    cloud_assert_spared(c, 0.2);
    cloud_free(c);
}

static void rank_and_least_scores(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 80, 2000);
    cloud_make_parts(c);
    for (uint32_t turn = 0; turn < 160; turn++) {
        struct mn_query query = cloud_question(c, 1 + turn % 25);
        query.rank = (struct mn_rank){.on = turn % 2,
                                      .half_life_s = turn % 4 == 0 ? 0 : 4e-9 * (turn % 5),
                                      .now = 35,
                                      .confidence_weight = turn % 3 * 0.5,
                                      .floor = turn % 5 * 0.25};
        query.has_min_score = turn % 3 == 0;
        query.min_score = 0.1 * (turn % 12) - 0.2;
        for (uint32_t i = 0; turn % 8 == 7 && i < c->dim; i++) /* far from all: scores below 0 */
            c->embedding[i] = -c->embedding[i] - 1;
        cloud_ask(c, &query, CLOUD_SEQ);
    }
    cloud_assert_spared(c, 0.2);
    cloud_free(c);
}

static void least_scores_of_other_metrics(void **state)
{
    for (int metric = MN_METRIC_IP; metric <= MN_METRIC_L2; metric++) {
        struct cloud *c = cloud_new((enum mn_metric)metric, 64, 1600);
        cloud_make_parts(c);
        for (uint32_t turn = 0; turn < 60; turn++) {
            struct mn_query query = cloud_question(c, 20);
            cloud_ask(c, &query, CLOUD_SEQ);
            query.has_min_score = true;
            if (c->plain.hit_count > 0) /* just that of a row: it is in */
                query.min_score = c->plain.hits[turn % c->plain.hit_count].score;
            cloud_ask(c, &query, CLOUD_SEQ);
            query.min_score = turn % 2 ? 0 : 1e30;
            cloud_ask(c, &query, CLOUD_SEQ);
        }
        cloud_assert_spared(c, 0.3);
        cloud_free(c);
    }
}

/* Large and small ones, far from the origin, and numbers that floats can hardly hold. */
static void lengths_of_any_size(void **state)
{
    static const float sizes[] = {1e-42f, 1e-34f, 1e-30f, 1e-20f, 1e-5f, 1, 1e6f, 1e12f, 1e18f, 1e22f};
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        for (size_t s = 0; s < MN_ARRAY_LEN(sizes); s++) {
            struct cloud *c = cloud_new((enum mn_metric)metric, 64, 1300);
            bool some = s % 2; /* every row is of that size, or one in fifty */
            if (metric == MN_METRIC_COSINE && (sizes[s] < 1e-35f || sizes[s] > 1e17f)) {
                cloud_free(c); /* the writer takes no such rows */
                continue;
            }
            for (uint32_t i = 0; i < c->rows; i += some ? 50 : 1)
                for (uint32_t j = 0; j < c->dim; j++)
                    c->vectors[(size_t)i * c->dim + j] *= sizes[s];
            cloud_make_parts(c);
            for (uint32_t turn = 0; turn < 12; turn++) {
                struct mn_query query = cloud_question(c, 1 + turn);
                if (turn % 4 == 3)
                    cloud_fill(c, c->embedding);
                for (uint32_t j = 0; turn % 8 == 7 && j < c->dim; j++)
                    c->embedding[j] *= sizes[s];
                double norm2;
                assert_true(mn_kernels_best()->check(c->embedding, c->dim, &norm2));
                for (uint32_t j = 0; norm2 > MN_KERNEL_NORM2_MAX && j < c->dim; j++) /* so long that it is refused */
                    c->embedding[j] *= 1e-8f;
                cloud_ask(c, &query, CLOUD_SEQ);
            }
            cloud_free(c);
        }
    }
}

static void a_common_mean_far_away(void **state)
{
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        struct cloud *c = cloud_new((enum mn_metric)metric, 64, 1600);
        for (uint32_t i = 0; i < c->rows * c->dim; i++)
            c->vectors[i] = c->vectors[i] * 0.01f + (float)(i % c->dim);
        for (uint32_t i = 0; i < CLOUD_CENTERS * c->dim; i++)
            c->centers[i] = c->centers[i] * 0.01f + (float)(i % c->dim);
        cloud_make_parts(c);
        for (uint32_t turn = 0; turn < 30; turn++) {
            struct mn_query query = cloud_question(c, 10);
            cloud_ask(c, &query, CLOUD_SEQ);
        }
        cloud_free(c);
    }
}

/* Some blocks of codes, and all: then no row is spared. */
static void damaged_codes_are_not_believed(void **state)
{
    static const uint32_t damage[] = {2, 500};
    for (size_t d = 0; d < MN_ARRAY_LEN(damage); d++) {
        struct cloud *c = cloud_new(MN_METRIC_COSINE, 256, 2000);
        fake_parts_columns(c->parts, c->list, c->rows);
        fake_parts_code_file(c->parts, 0, fake_parts_codebook(c->parts, 1, 20), damage[d]);
        for (uint32_t turn = 0; turn < 40; turn++) {
            struct mn_query query = cloud_question(c, 10);
            cloud_ask(c, &query, CLOUD_SEQ);
        }
        assert_int_equal(c->spared > 0, d == 0);
        cloud_free(c);
    }
}

/* What could not be read when it was coded is compared when it can be. */
static void rows_coded_as_far_away_are_compared(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_L2, 64, 1600);
    cloud_make_parts(c);
    for (uint32_t i = 0; i < 4; i++) {
        const struct mn_ivf *ivf = fake_parts_snapshot(c->parts, CLOUD_SEQ, 0).parts[i].ivf;
        struct mn_ivf_fine *fine = (struct mn_ivf_fine *)(uintptr_t)ivf->fine;
        for (uint32_t slot = 0; slot < ivf->rows; slot += 3) {
            memset((uint8_t *)(uintptr_t)ivf->codes8 + (size_t)slot * ivf->codebook->width, 128, ivf->codebook->width);
            fine[slot] = (struct mn_ivf_fine){.add = MN_IVF_FAR};
        }
    }
    for (uint32_t turn = 0; turn < 30; turn++) {
        struct mn_query query = cloud_question(c, 10);
        cloud_ask(c, &query, CLOUD_SEQ);
    }
    cloud_assert_spared(c, 0.3);
    cloud_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_metric_and_dimension),
        cmocka_unit_test(any_number_of_hits),
        cmocka_unit_test(ties_are_compared),
        cmocka_unit_test(filters_of_any_selectivity),
        cmocka_unit_test(rank_and_least_scores),
        cmocka_unit_test(least_scores_of_other_metrics),
        cmocka_unit_test(lengths_of_any_size),
        cmocka_unit_test(a_common_mean_far_away),
        cmocka_unit_test(damaged_codes_are_not_believed),
        cmocka_unit_test(rows_coded_as_far_away_are_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
