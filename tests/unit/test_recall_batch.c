/*
 * test_recall_batch.c - engine/recall_batch: queries searched together get the answers they would get alone.
 *
 * What a batch is asked beside other queries is tried in test_recall_bounds.c, too (cloud.h); here are batches of many
 * sizes, and those that are not searched together.
 */
#include "engine/recall_batch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/cloud.h"

/* `count` queries, `stride` floats each: rows, what lies near some, and each fifth the one before once more. */
static float *make_queries(struct cloud *c, size_t stride, uint32_t count)
{
    float *queries = calloc(count * stride, sizeof *queries);
    assert_non_null(queries);
    for (uint32_t i = 0; i < count; i++) {
        if (i % 5 != 4)
            cloud_question(c, 1);
        memcpy(queries + i * stride, c->embedding, c->dim * sizeof *queries);
    }
    return queries;
}

static void ask(struct cloud *c, uint32_t k, uint32_t count)
{
    size_t stride = c->dim + count % 3;
    float *queries = make_queries(c, stride, count);
    struct mn_query query = cloud_question(c, k);
    cloud_ask_together(c, &query, CLOUD_SEQ - count % 3, queries, stride, count);
    free(queries);
}

static void every_metric_dimension_and_size(void **state)
{
    static const uint32_t dims[] = {1, 3, 100, 768}, counts[] = {1, 2, 15, 16, 17, 63, 64, 65, 130};
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        for (size_t d = 0; d < MN_ARRAY_LEN(dims); d++) {
            struct cloud *c = cloud_new((enum mn_metric)metric, dims[d], 1301);
            cloud_make_parts(c);
            for (size_t i = d; i < MN_ARRAY_LEN(counts); i += 4)
                ask(c, 1 + (uint32_t)i * 3, counts[i]);
            cloud_free(c);
        }
    }
}

/* Then fewer are searched together, down to one; and no more rows come back than there are. */
static void many_hits(void **state)
{
    static const uint32_t ks[] = {150, 1200, 5000, 33000, 70000};
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 64, 1300);
    cloud_make_parts(c);
    for (size_t i = 0; i < MN_ARRAY_LEN(ks); i++)
        ask(c, ks[i], 20);
    cloud_free(c);
}

static void no_hits(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 64, 1300);
    cloud_make_parts(c);
    ask(c, 0, 3);
    cloud_free(c);
}

static void a_store_without_rows(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_L2, 16, 4);
    ask(c, 5, 9);
    cloud_free(c);
}

/* Most embeddings are not read. */
static void rows_are_spared(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 768, 2000);
    struct mn_snapshot snapshot;
    struct mn_query query;
    uint64_t scanned = 0, spared = 0;
    uint32_t done;
    cloud_make_parts(c);
    float *queries = make_queries(c, c->dim, 20);
    query = cloud_question(c, 10);
    snapshot = fake_parts_snapshot(c->parts, CLOUD_SEQ, 0);
    assert_int_equal(mn_recall_batch(c->batch[0], &snapshot, &query, queries, c->dim, 20, &done), MN_OK);
    assert_int_equal(done, 20);
    for (uint32_t i = 0; i < done; i++) {
        const struct mn_search *result = mn_batch_result(c->batch[0], i);
        assert_true(result->exact);
        scanned += result->scanned;
        spared += result->spared;
    }
    assert_true(spared > scanned / 2);
    free(queries);
    cloud_free(c);
}

/* As the approximate search of each alone says, and so much is told. */
static void approximate_queries_are_searched_alone(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 64, 3000);
    cloud_make_parts(c);
    float *queries = make_queries(c, c->dim, 40);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, CLOUD_SEQ, 0);
    struct mn_query query = cloud_question(c, 10);
    query.exact = false;
    query.target = 0.9;
    for (uint32_t i = 0, done; i < 40; i += done) {
        const struct mn_search *result;
        assert_int_equal(mn_recall_batch(c->batch[0], &snapshot, &query, queries + i * c->dim, c->dim, 40 - i, &done),
                         MN_OK);
        assert_int_equal(done, 1);
        result = mn_batch_result(c->batch[0], 0);
        query.embedding = queries + i * c->dim;
        assert_int_equal(mn_recall_search(&c->coded[0], &snapshot, &query), MN_OK);
        assert_false(result->exact);
        assert_int_equal(result->scanned, c->coded[0].scanned);
        assert_int_equal(result->hit_count, c->coded[0].hit_count);
        for (uint32_t j = 0; j < result->hit_count; j++)
            assert_true(result->hits[j].part == c->coded[0].hits[j].part &&
                        result->hits[j].row == c->coded[0].hits[j].row &&
                        result->hits[j].score == c->coded[0].hits[j].score);
    }
    free(queries);
    cloud_free(c);
}

static void one_bad_query_fails_the_batch(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 64, 1300);
    uint32_t done;
    cloud_make_parts(c);
    float *queries = make_queries(c, c->dim, 9);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, CLOUD_SEQ, 0);
    struct mn_query query = cloud_question(c, 10);
    queries[8 * c->dim + 3] = NAN;
    assert_int_equal(mn_recall_batch(c->batch[0], &snapshot, &query, queries, c->dim, 9, &done), MN_BAD_VALUE);
    memset(queries + 8 * c->dim, 0, c->dim * sizeof *queries);
    assert_int_equal(mn_recall_batch(c->batch[0], &snapshot, &query, queries, c->dim, 9, &done), MN_BAD_VALUE);
    free(queries);
    cloud_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_metric_dimension_and_size),
        cmocka_unit_test(many_hits),
        cmocka_unit_test(no_hits),
        cmocka_unit_test(a_store_without_rows),
        cmocka_unit_test(rows_are_spared),
        cmocka_unit_test(approximate_queries_are_searched_alone),
        cmocka_unit_test(one_bad_query_fails_the_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
