/*
 * test_recall_bounds.c - engine/recall_bounds: the exact search that reads codes against the one that reads none.
 *
 * Both are asked the same of the same rows; the answers must be the same to the last bit, in every instruction set,
 * whatever the codes are like. Rows lie in clusters, a quarter of them twice or more often, so that ties are common.
 */
#include "engine/recall.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/fake_parts.h"

#define CENTERS 30
#define SEQ     10
#define NOW     1000

static const char *const sets[] = {"portable", "avx2", "avx512"};

struct cloud {
    enum mn_metric metric;
    uint32_t dim, rows;
    uint64_t random;
    float *vectors, *centers, *embedding;
    struct fake_memory *memories;
    const struct fake_memory **list;
    struct fake_parts *parts;
    struct mn_search plain, coded[MN_ARRAY_LEN(sets)]; /* kernels NULL: not on this CPU */
    uint64_t spared, scanned, asked;
};

static uint32_t below(struct cloud *c, uint32_t n)
{
    c->random = c->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((c->random >> 33) % n);
}

/* About normal: mean 0, variance 1. */
static float normal(struct cloud *c)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)below(c, 1u << 24) * 0x1p-24f;
    return sum - 6;
}

static void *need(size_t bytes)
{
    void *p = aligned_alloc(MN_LINE, mn_round_up(bytes + 1, MN_LINE));
    assert_non_null(p);
    return memset(p, 0, bytes);
}

static void fill_near(struct cloud *c, float *x)
{
    const float *center = c->centers + below(c, CENTERS) * c->dim;
    for (uint32_t i = 0; i < c->dim; i++)
        x[i] = center[i] + 0.3f * normal(c);
}

/* Versions born and dead at any seq, expired or not; few different times, ids in two spaces: ties go to the end. */
static void make_memory(struct cloud *c, uint32_t i)
{
    static const char *const tags[] = {"half", "tenth", "rare"};
    struct fake_memory *m = &c->memories[i];
    *m = (struct fake_memory){.space = i % 2 ? "default" : "other",
                              .id = fake_id(i / 2 + 1),
                              .born = 1 + below(c, SEQ + 2),
                              .died = below(c, 4) ? MN_ALIVE : mn_died_make(3 + below(c, SEQ), false),
                              .at = below(c, 40),
                              .expires = below(c, 6) ? MN_NEVER : NOW - 20 + below(c, 40),
                              .confidence = (float)below(c, 11) / 10,
                              .vector = c->vectors + (size_t)i * c->dim};
    if (below(c, 2) == 0)
        m->tags[m->tag_count++] = tags[0];
    if (below(c, 10) == 0)
        m->tags[m->tag_count++] = tags[1];
    if (below(c, 100) == 0)
        m->tags[m->tag_count++] = tags[2];
    c->list[i] = m;
}

static struct cloud *cloud_new(enum mn_metric metric, uint32_t dim, uint32_t rows)
{
    struct cloud *c = need(sizeof *c);
    *c = (struct cloud){.metric = metric, .dim = dim, .rows = rows, .random = dim * 31 + metric};
    c->vectors = need((size_t)rows * dim * sizeof *c->vectors);
    c->centers = need((size_t)CENTERS * dim * sizeof *c->centers);
    c->embedding = need(dim * sizeof *c->embedding);
    c->memories = need(rows * sizeof *c->memories);
    c->list = need(rows * sizeof *c->list);
    c->parts = fake_parts_new(dim, metric);
    assert_int_equal(mn_search_init(&c->plain, metric, dim), MN_OK);
    for (size_t i = 0; i < MN_ARRAY_LEN(sets); i++) {
        assert_int_equal(mn_search_init(&c->coded[i], metric, dim), MN_OK);
        c->coded[i].kernels = mn_kernels_named(sets[i]);
    }
    for (uint32_t i = 0; i < CENTERS * dim; i++)
        c->centers[i] = normal(c) + 0.5f;
    for (uint32_t i = 0; i < rows; i++) {
        float *x = c->vectors + (size_t)i * dim;
        fill_near(c, x);
        if (i > 0 && i % 4 == 0)
            memcpy(x, c->vectors + (size_t)below(c, i) * dim, dim * sizeof *x);
        make_memory(c, i);
    }
    return c;
}

static void cloud_free(struct cloud *c)
{
    mn_search_free(&c->plain);
    for (size_t i = 0; i < MN_ARRAY_LEN(sets); i++)
        mn_search_free(&c->coded[i]);
    fake_parts_free(c->parts);
    free(c->vectors);
    free(c->centers);
    free(c->embedding);
    free(c->memories);
    free(c->list);
    free(c);
}

/* Columns on two codebooks, a sealed tail chunk by cluster, and a growing one: flat, its newest rows not coded. */
static void make_parts(struct cloud *c)
{
    uint32_t fifth = c->rows / 5, at[] = {0, 2 * fifth, 3 * fifth, 4 * fifth, c->rows};
    fake_parts_tail(c->parts, c->list + at[3], at[4] - at[3]);
    fake_parts_tail(c->parts, c->list + at[2], at[3] - at[2]);
    fake_parts_columns(c->parts, c->list + at[1], at[2] - at[1]);
    fake_parts_columns(c->parts, c->list + at[0], at[1] - at[0]);
    const struct mn_codebook *plain = fake_parts_codebook(c->parts, 0, 0), *old = fake_parts_codebook(c->parts, 1, 9),
                             *young = fake_parts_codebook(c->parts, 2, 24);
    fake_parts_code(c->parts, 0, (at[4] - at[3]) / 32 * 32, plain, true);
    fake_parts_code(c->parts, 1, at[3] - at[2], young, false);
    fake_parts_code(c->parts, 2, at[2] - at[1], old, false);
    fake_parts_code(c->parts, 3, at[1] - at[0], young, false);
}

/* ---- asking ---- */

static void assert_same(const struct mn_search *got, const struct mn_search *wanted)
{
    if (got->hit_count != wanted->hit_count)
        fail_msg("%u hits, not %u", got->hit_count, wanted->hit_count);
    for (uint32_t i = 0; i < got->hit_count; i++) {
        const struct mn_hit *a = &got->hits[i], *b = &wanted->hits[i];
        if (a->part != b->part || a->row != b->row || a->score != b->score || a->similarity != b->similarity ||
            a->decay != b->decay || a->confidence != b->confidence || a->at != b->at)
            fail_msg("hit %u is row %u of part %u with %a, not %u of %u with %a", i, a->row, a->part, a->score, b->row,
                     b->part, b->score);
    }
    assert_true(got->exact);
    assert_int_equal(got->damaged, wanted->damaged);
}

static void ask(struct cloud *c, const struct mn_query *query, uint64_t seq)
{
    struct mn_part parts[8];
    struct mn_snapshot coded = fake_parts_snapshot(c->parts, seq, NOW), plain = coded;
    assert_true(coded.part_count <= MN_ARRAY_LEN(parts));
    memcpy(parts, coded.parts, coded.part_count * sizeof *parts);
    for (uint32_t i = 0; i < coded.part_count; i++)
        parts[i].ivf = NULL;
    plain.parts = parts;
    assert_int_equal(mn_recall_search(&c->plain, &plain, query), MN_OK);
    assert_int_equal(c->plain.spared, 0);
    for (size_t i = 0; i < MN_ARRAY_LEN(sets); i++) {
        if (!c->coded[i].kernels)
            continue;
        assert_int_equal(mn_recall_search(&c->coded[i], &coded, query), MN_OK);
        assert_same(&c->coded[i], &c->plain);
        c->spared += c->coded[i].spared;
        c->scanned += c->coded[i].scanned;
    }
}

static struct mn_query question(struct cloud *c, uint32_t k)
{
    if (c->asked++ % 3 == 0)
        memcpy(c->embedding, c->vectors + (size_t)below(c, c->rows) * c->dim, c->dim * sizeof *c->embedding);
    else
        fill_near(c, c->embedding);
    return (struct mn_query){
        .scope = {.all_spaces = true, .after = INT64_MIN}, .embedding = c->embedding, .k = k, .exact = true};
}

/* Of what was scanned, so much must not have needed its embedding: else nothing was tested. */
static void assert_spared(const struct cloud *c, double share)
{
    if ((double)c->spared < share * (double)c->scanned)
        fail_msg("%llu of %llu rows were spared", (unsigned long long)c->spared, (unsigned long long)c->scanned);
}

/* ---- tests ---- */

static void every_metric_and_dimension(void **state)
{
    static const uint32_t dims[] = {1, 3, 48, 100, 768};
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        for (size_t d = 0; d < MN_ARRAY_LEN(dims); d++) {
            struct cloud *c = cloud_new((enum mn_metric)metric, dims[d], 1600);
            make_parts(c);
            for (uint32_t turn = 0; turn < 40; turn++) {
                struct mn_query query = question(c, 1 + turn % 20);
                ask(c, &query, SEQ - turn % 3);
            }
            assert_spared(c, dims[d] < 48 ? 0 : 0.5);
            cloud_free(c);
        }
    }
}

static void any_number_of_hits(void **state)
{
    static const uint32_t ks[] = {1, 2, 10, 60, 150, 200, 500, 1599, 1600, 2500};
    struct cloud *c = cloud_new(MN_METRIC_L2, 64, 1600);
    make_parts(c);
    for (size_t i = 0; i < 3 * MN_ARRAY_LEN(ks); i++) {
        struct mn_query query = question(c, ks[i % MN_ARRAY_LEN(ks)]);
        ask(c, &query, SEQ);
    }
    assert_spared(c, 0.2);
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
        make_parts(c);
        for (uint32_t turn = 0; turn < 40; turn++) {
            struct mn_query query = question(c, 1 + turn);
            if (turn % 2)
                memcpy(c->embedding, c->vectors + c->dim, c->dim * sizeof *c->embedding);
            ask(c, &query, SEQ);
        }
        assert_spared(c, 0.2);
        cloud_free(c);
    }
}

static void filters_of_any_selectivity(void **state)
{
    static const char *const tags[] = {"half", "tenth", "rare", "half"};
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 64, 3000);
    make_parts(c);
    for (uint32_t turn = 0; turn < 300; turn++) {
        struct mn_query query = question(c, 1 + turn % 12);
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
        query.exclude = fake_id(1 + below(c, 1500));
        query.exclude_space = space;
        ask(c, &query, 1 + turn % (SEQ + 1));
    }
    assert_spared(c, 0.2);
    cloud_free(c);
}

static void rank_and_least_scores(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 80, 2000);
    make_parts(c);
    for (uint32_t turn = 0; turn < 160; turn++) {
        struct mn_query query = question(c, 1 + turn % 25);
        query.rank = (struct mn_rank){.on = turn % 2,
                                      .half_life_s = turn % 4 == 0 ? 0 : 4e-9 * (turn % 5),
                                      .now = 35,
                                      .confidence_weight = turn % 3 * 0.5,
                                      .floor = turn % 5 * 0.25};
        query.has_min_score = turn % 3 == 0;
        query.min_score = 0.1 * (turn % 12) - 0.2;
        for (uint32_t i = 0; turn % 8 == 7 && i < c->dim; i++) /* far from all: scores below 0 */
            c->embedding[i] = -c->embedding[i] - 1;
        ask(c, &query, SEQ);
    }
    assert_spared(c, 0.2);
    cloud_free(c);
}

static void least_scores_of_other_metrics(void **state)
{
    for (int metric = MN_METRIC_IP; metric <= MN_METRIC_L2; metric++) {
        struct cloud *c = cloud_new((enum mn_metric)metric, 64, 1600);
        make_parts(c);
        for (uint32_t turn = 0; turn < 60; turn++) {
            struct mn_query query = question(c, 20);
            ask(c, &query, SEQ);
            query.has_min_score = true;
            if (c->plain.hit_count > 0) /* just that of a row: it is in */
                query.min_score = c->plain.hits[turn % c->plain.hit_count].score;
            ask(c, &query, SEQ);
            query.min_score = turn % 2 ? 0 : 1e30;
            ask(c, &query, SEQ);
        }
        assert_spared(c, 0.3);
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
            make_parts(c);
            for (uint32_t turn = 0; turn < 12; turn++) {
                struct mn_query query = question(c, 1 + turn);
                if (turn % 4 == 3)
                    fill_near(c, c->embedding);
                for (uint32_t j = 0; turn % 8 == 7 && j < c->dim; j++)
                    c->embedding[j] *= sizes[s];
                double norm2;
                assert_true(mn_kernels_best()->check(c->embedding, c->dim, &norm2));
                for (uint32_t j = 0; norm2 > MN_KERNEL_NORM2_MAX && j < c->dim; j++) /* so long that it is refused */
                    c->embedding[j] *= 1e-8f;
                ask(c, &query, SEQ);
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
        for (uint32_t i = 0; i < CENTERS * c->dim; i++)
            c->centers[i] = c->centers[i] * 0.01f + (float)(i % c->dim);
        make_parts(c);
        for (uint32_t turn = 0; turn < 30; turn++) {
            struct mn_query query = question(c, 10);
            ask(c, &query, SEQ);
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
            struct mn_query query = question(c, 10);
            ask(c, &query, SEQ);
        }
        assert_int_equal(c->spared > 0, d == 0);
        cloud_free(c);
    }
}

/* What could not be read when it was coded is compared when it can be. */
static void rows_coded_as_far_away_are_compared(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_L2, 64, 1600);
    make_parts(c);
    for (uint32_t i = 0; i < 4; i++) {
        const struct mn_ivf *ivf = fake_parts_snapshot(c->parts, SEQ, NOW).parts[i].ivf;
        struct mn_ivf_fine *fine = (struct mn_ivf_fine *)(uintptr_t)ivf->fine;
        for (uint32_t slot = 0; slot < ivf->rows; slot += 3) {
            memset((uint8_t *)(uintptr_t)ivf->codes8 + (size_t)slot * ivf->codebook->width, 128, ivf->codebook->width);
            fine[slot] = (struct mn_ivf_fine){.add = MN_IVF_FAR};
        }
    }
    for (uint32_t turn = 0; turn < 30; turn++) {
        struct mn_query query = question(c, 10);
        ask(c, &query, SEQ);
    }
    assert_spared(c, 0.3);
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
