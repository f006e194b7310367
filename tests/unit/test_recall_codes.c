/*
 * test_recall_codes.c - engine/recall_codes: the search through codes against the exact search of the same snapshot.
 *
 * What must hold whatever is looked at: min(k, matches) hits, each of them a match, each score that of the exact search
 * to the last bit, in order. With a rule that looks into every cluster nearly all hits must be those of the exact
 * search; what 8 bits cannot tell apart may differ.
 */
#include "engine/recall.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/fake_world.h"

static const struct mn_tune_rule everywhere = {.stop = 1e30f, .epsilon = 6, .nearness = 6};

/* ---- rows in clusters ---- */

#define CENTERS 40

struct cloud {
    enum mn_metric metric;
    uint32_t dim, rows;
    uint64_t random;
    float *vectors, *centers;
    struct fake_memory *memories;
    const struct fake_memory **list;
    struct fake_parts *parts;
    const struct mn_codebook *codebook, *plain;
    struct mn_search codes, exact; /* one goes through codes */
};

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

/* About normal: mean 0, variance 1. */
static float normal(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)next_random(state) * 0x1p-31f;
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
    const float *center = c->centers + next_random(&c->random) % CENTERS * c->dim;
    for (uint32_t i = 0; i < c->dim; i++)
        x[i] = center[i] + 0.7f * normal(&c->random);
}

static void make_rows(struct cloud *c)
{
    for (uint32_t i = 0; i < CENTERS * c->dim; i++)
        c->centers[i] = normal(&c->random) + 0.5f;
    for (uint32_t i = 0; i < c->rows; i++) {
        float *x = c->vectors + (size_t)i * c->dim;
        fill_near(c, x);
        c->memories[i] = (struct fake_memory){.space = i % 3 ? "default" : "third",
                                              .id = fake_id(i + 1),
                                              .born = 1,
                                              .died = MN_ALIVE,
                                              .at = i,
                                              .expires = MN_NEVER,
                                              .confidence = (float)(i % 11) / 10,
                                              .vector = x};
        c->list[i] = &c->memories[i];
    }
}

static struct cloud *cloud_new(enum mn_metric metric, uint32_t dim, uint32_t rows)
{
    struct cloud *c = need(sizeof *c);
    *c = (struct cloud){.metric = metric, .dim = dim, .rows = rows, .random = dim * 31 + metric};
    c->vectors = need((size_t)rows * dim * sizeof *c->vectors);
    c->centers = need((size_t)CENTERS * dim * sizeof *c->centers);
    c->memories = need(rows * sizeof *c->memories);
    c->list = need(rows * sizeof *c->list);
    c->parts = fake_parts_new(dim, metric);
    assert_int_equal(mn_search_init(&c->codes, metric, dim), MN_OK);
    assert_int_equal(mn_search_init(&c->exact, metric, dim), MN_OK);
    c->codes.rule = &everywhere;
    make_rows(c);
    return c;
}

/* A part of columns by cluster, a tail chunk that is coded by cluster, and one that is growing: flat, its newest rows
 * not coded. */
static void make_parts(struct cloud *c)
{
    uint32_t tail = c->rows / 5, sealed = c->rows / 5, columns = c->rows - tail - sealed;
    fake_parts_tail(c->parts, c->list + columns + sealed, tail);
    fake_parts_tail(c->parts, c->list + columns, sealed);
    fake_parts_columns(c->parts, c->list, columns);
    c->codebook = fake_parts_codebook(c->parts, 1, 24);
    c->plain = fake_parts_codebook(c->parts, 0, 0);
    fake_parts_code(c->parts, 0, tail / 32 * 32, c->plain, true);
    fake_parts_code(c->parts, 1, sealed, c->codebook, false);
    fake_parts_code(c->parts, 2, columns, c->codebook, false);
}

static void cloud_free(struct cloud *c)
{
    mn_search_free(&c->codes);
    mn_search_free(&c->exact);
    fake_parts_free(c->parts);
    free(c->vectors);
    free(c->centers);
    free(c->memories);
    free(c->list);
    free(c);
}

/* ---- comparing answers ---- */

static bool same_row(const struct mn_hit *a, const struct mn_hit *b)
{
    return a->part == b->part && a->row == b->row;
}

/* `all` is the exact answer with every match in it. Returns how many of the first k have the scores they should, or
 * nearly: `slack` is a share of the difference between the best and the worst of all. */
static uint32_t assert_sound(const struct mn_search *got, const struct mn_search *all, uint32_t k, double slack)
{
    uint32_t expected = all->hit_count < k ? all->hit_count : k, good = 0;
    double least = 0;
    if (expected > 0)
        least = all->hits[expected - 1].score - slack * (all->hits[0].score - all->hits[all->hit_count - 1].score);
    if (got->hit_count != expected)
        fail_msg("%u hits, not %u", got->hit_count, expected);
    for (uint32_t i = 0, j = 0; i < expected; i++) {
        /* Both are in the same order: what is missing was passed over. */
        while (j < all->hit_count && !same_row(&got->hits[i], &all->hits[j]))
            j++;
        if (j == all->hit_count)
            fail_msg("hit %u is no match, out of order, or there twice", i);
        assert_true(got->hits[i].score == all->hits[j].score);
        assert_true(got->hits[i].similarity == all->hits[j].similarity && got->hits[i].decay == all->hits[j].decay);
        good += got->hits[i].score >= least;
        j++;
    }
    return good;
}

struct tally {
    uint64_t good, wanted;
    double slack;
};

static void ask_both(struct mn_search *codes, struct mn_search *exact, const struct mn_snapshot *snapshot,
                     const struct mn_query *query, struct tally *tally)
{
    struct mn_query all = *query;
    all.exact = true;
    all.k = FAKE_ROWS_MAX * 2;
    assert_int_equal(mn_recall_search(exact, snapshot, &all), MN_OK);
    assert_int_equal(mn_recall_search(codes, snapshot, query), MN_OK);
    tally->good += assert_sound(codes, exact, query->k, tally->slack);
    tally->wanted += codes->hit_count;
}

static void assert_tally(const struct tally *tally, double least)
{
    if ((double)tally->good < least * (double)tally->wanted)
        fail_msg("%llu of %llu hits are those of the exact search", (unsigned long long)tally->good,
                 (unsigned long long)tally->wanted);
}

static struct mn_query query_near(struct cloud *c, float *embedding, uint32_t k)
{
    fill_near(c, embedding);
    return (struct mn_query){.scope = {.all_spaces = true, .after = INT64_MIN}, .embedding = embedding, .k = k};
}

/* ---- tests ---- */

static void every_metric_and_dimension(void **state)
{
    static const uint32_t dims[] = {1, 3, 100, 768};
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        for (size_t d = 0; d < MN_ARRAY_LEN(dims); d++) {
            struct cloud *c = cloud_new((enum mn_metric)metric, dims[d], 1500);
            float *embedding = need(dims[d] * sizeof *embedding);
            /* In few dimensions hundreds of rows are nearer to each other than 8 bits can tell. */
            double slack = dims[d] < 4 ? 0.02 : 0;
            struct tally all = {0, 0, slack}, untuned = {0, 0, slack};
            make_parts(c);
            struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
            for (uint32_t turn = 0; turn < 60; turn++) {
                struct mn_query query = query_near(c, embedding, 1 + turn % 20);
                c->codes.rule = &everywhere;
                ask_both(&c->codes, &c->exact, &snapshot, &query, &all);
                assert_false(c->codes.exact);
                assert_int_equal(c->codes.damaged, 0);
                c->codes.rule = NULL;
                query.target = 0.95;
                ask_both(&c->codes, &c->exact, &snapshot, &query, &untuned);
            }
            assert_tally(&all, 0.99);
            assert_tally(&untuned, 0.9);
            free(embedding);
            cloud_free(c);
        }
    }
}

static void any_number_of_hits(void **state)
{
    static const uint32_t ks[] = {1, 2, 10, 100, 499, 500, 700, 1499, 1500, 2500};
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 24, 1500);
    float embedding[24];
    struct tally tally = {0, 0, 0};
    make_parts(c);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    for (size_t i = 0; i < MN_ARRAY_LEN(ks); i++) {
        struct mn_query query = query_near(c, embedding, ks[i]);
        ask_both(&c->codes, &c->exact, &snapshot, &query, &tally);
        assert_int_equal(c->codes.exact, ks[i] > 750);
    }
    assert_tally(&tally, 0.995);
    cloud_free(c);
}

/* As many as the candidates have room for: 8-bit codes of equal rows differ where their centroids do, so of more it is
 * chance which ones are compared. */
static void equal_rows_come_latest_first(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 32, 1500);
    for (uint32_t i = 0; i < c->rows; i += 300)
        memcpy(c->vectors + (size_t)i * c->dim, c->vectors, c->dim * sizeof(float));
    make_parts(c);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    for (uint32_t k = 1; k <= 5; k++) {
        struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN}, .embedding = c->vectors, .k = k};
        assert_int_equal(mn_recall_search(&c->codes, &snapshot, &query), MN_OK);
        assert_false(c->codes.exact);
        assert_int_equal(c->codes.hit_count, k);
        for (uint32_t i = 0; i < k; i++) { /* rows 1200, 900, ... whatever part they lie in */
            const struct mn_hit *hit = &c->codes.hits[i];
            assert_int_equal(fake_parts_memory(c->parts, hit->part, hit->row)->at, 1200 - 300 * i);
        }
    }
    cloud_free(c);
}

/* Codes of rows this close together say the same of them but for their error: of twenty crowds one is told apart by its
 * embeddings, and where all rows are one crowd no code is of use. */
static void rows_much_alike_are_told_apart(void **state)
{
    for (int round = 0; round < 4; round++) {
        uint32_t crowds = round % 2 ? 1 : 20;
        struct cloud *c = cloud_new(round & 2 ? MN_METRIC_COSINE : MN_METRIC_L2, 64, 5000);
        struct tally tally = {0, 0, 0};
        for (uint32_t i = 0; i < c->rows * c->dim; i++)
            c->vectors[i] = c->centers[i / c->dim % crowds * c->dim + i % c->dim] + 1e-3f * normal(&c->random);
        fake_parts_tail(c->parts, c->list, c->rows);
        c->codebook = fake_parts_codebook(c->parts, 0, 0);
        fake_parts_code(c->parts, 0, c->rows, c->codebook, true);
        struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
        c->codes.rule = &everywhere;
        for (uint32_t row = 0; row < c->rows; row += 250) {
            struct mn_query query = {
                .scope = {.all_spaces = true, .after = INT64_MIN}, .embedding = c->memories[row].vector, .k = 10};
            ask_both(&c->codes, &c->exact, &snapshot, &query, &tally);
            assert_int_equal(c->codes.exact, crowds == 1);
        }
        assert_tally(&tally, 0.99);
        cloud_free(c);
    }
}

/* Of rows this short the squares vanish in floats, their products with a query do not. */
static void short_rows_have_products(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_IP, 64, 1500);
    struct tally tally = {0, 0, 0};
    float embedding[64];
    for (uint32_t i = 0; i < c->rows * c->dim; i++)
        c->vectors[i] *= 1e-25f;
    make_parts(c);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    c->codes.rule = &everywhere;
    for (uint32_t turn = 0; turn < 20; turn++) {
        struct mn_query query = query_near(c, embedding, 10);
        ask_both(&c->codes, &c->exact, &snapshot, &query, &tally);
    }
    assert_tally(&tally, 0.9);
    cloud_free(c);
}

/* A tail chunk whose codes by cluster end somewhere in it: flat ones follow, and then rows without any. Each row is the
 * nearest to itself, and none comes twice. */
static void flat_codes_begin_where_those_by_cluster_end(void **state)
{
    const uint32_t rows = 1500, first = 640, end = 1472;
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        struct cloud *c = cloud_new((enum mn_metric)metric, 100, rows),
                     *twin = cloud_new((enum mn_metric)metric, 100, rows);
        struct tally tally = {0, 0, 0};
        fake_parts_tail(c->parts, c->list, rows);
        fake_parts_tail(twin->parts, twin->list, rows);
        c->codebook = fake_parts_codebook(c->parts, 1, 24);
        fake_parts_code(c->parts, 0, first, c->codebook, false);
        fake_parts_code(twin->parts, 0, end, c->codebook, true);
        struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
        struct mn_part part = snapshot.parts[0];
        struct mn_ivf fresh = *fake_parts_snapshot(twin->parts, 1, 0).parts[0].ivf, clustered = *part.ivf;
        fresh.first = first;
        fresh.blocks += first / MN_IVF_LANES * (size_t)mn_ivf_block_bytes(c->codebook->width);
        clustered.fresh = &fresh;
        part.ivf = &clustered;
        snapshot.parts = &part;
        for (uint32_t row = 0; row < rows; row += 7) {
            struct mn_query query = {
                .scope = {.all_spaces = true, .after = INT64_MIN}, .embedding = c->memories[row].vector, .k = 10};
            ask_both(&c->codes, &c->exact, &snapshot, &query, &tally);
            assert_false(c->codes.exact);
            if (metric != MN_METRIC_IP) /* where the longest rows are the nearest */
                assert_int_equal(c->codes.hits[0].row, row);
        }
        assert_tally(&tally, 0.99);
        cloud_free(twin);
        cloud_free(c);
    }
}

/* The memory that is left out is the nearest of all, and counts where candidates are first weighed: a search that
 * waited for one more would open clusters that others do not (calibration asks like this, and speaks for all). */
static void leaving_the_memory_itself_out_opens_no_more_clusters(void **state)
{
    const struct mn_tune_rule at_once = {.stop = 0.5f, .epsilon = 3, .nearness = 2};
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 3, 6000);
    uint64_t steps[2] = {0, 0};
    fake_parts_columns(c->parts, c->list, c->rows);
    c->codebook = fake_parts_codebook(c->parts, 1, 300);
    fake_parts_code(c->parts, 0, c->rows, c->codebook, false);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    c->codes.rule = &at_once;
    for (uint32_t i = 0; i < 400; i++) {
        struct fake_memory *self = &c->memories[i * 13];
        struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN},
                                 .embedding = self->vector,
                                 .k = 10,
                                 .exclude = self->id,
                                 .exclude_space = fake_str(self->space)};
        for (int out = 0; out < 2; out++) {
            query.has_exclude = out;
            assert_int_equal(mn_recall_search(&c->codes, &snapshot, &query), MN_OK);
            assert_int_equal(c->codes.hit_count, 10);
            steps[out] += c->codes.steps;
        }
    }
    assert_true((double)steps[1] < 1.05 * (double)steps[0]);
    cloud_free(c);
}

/* Asks in all spaces, or by name in those that the rows are in. */
static void ask_scoped(struct cloud *c, const struct mn_snapshot *snapshot, struct mn_query query, bool scoped)
{
    const struct mn_str spaces[] = {fake_str("default"), fake_str("other")};
    query.scope.all_spaces = !scoped;
    query.scope.spaces = spaces;
    query.scope.space_count = 2;
    assert_int_equal(mn_recall_search(&c->codes, snapshot, &query), MN_OK);
    assert_false(c->codes.exact);
}

/* The newest rows as a tail chunk, the others as columns, all by cluster. */
static void code_tail_and_columns(struct cloud *c, uint32_t tail, uint32_t clusters)
{
    uint32_t columns = c->rows - tail;
    fake_parts_tail(c->parts, c->list + columns, tail);
    fake_parts_columns(c->parts, c->list, columns);
    c->codebook = fake_parts_codebook(c->parts, 1, clusters);
    fake_parts_code(c->parts, 0, tail, c->codebook, false);
    fake_parts_code(c->parts, 1, columns, c->codebook, false);
}

/* A scope that every row is in, of which the tail's are tested one by one, is none: it opens as many clusters. */
static void a_scope_that_holds_everything_opens_as_many_clusters(void **state)
{
    const struct mn_tune_rule some = {.stop = 3.5f, .epsilon = 3, .nearness = 0.5f};
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 24, 6000);
    uint32_t tail = 1200;
    uint64_t steps[2] = {0, 0};
    float embedding[24];
    for (uint32_t i = 0; i < c->rows; i++)
        c->memories[i].space = i % 2 ? "default" : "other";
    code_tail_and_columns(c, tail, 200);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    c->codes.rule = &some;
    for (uint32_t turn = 0; turn < 200; turn++) {
        struct mn_query query = query_near(c, embedding, 10);
        for (int scoped = 0; scoped < 2; scoped++) {
            ask_scoped(c, &snapshot, query, scoped);
            steps[scoped] += c->codes.steps;
        }
    }
    assert_true((double)steps[1] > 0.9 * (double)steps[0] && (double)steps[1] < 1.1 * (double)steps[0]);
    cloud_free(c);
}

/* Where that is known beforehand, as of a tail of one space, the search is the same to the last step: as it was
 * calibrated. */
static void a_scope_that_leaves_nothing_out_is_no_filter(void **state)
{
    const struct mn_tune_rule some = {.stop = 3.5f, .epsilon = 3, .nearness = 2};
    struct cloud *c = cloud_new(MN_METRIC_L2, 24, 3000);
    float embedding[24];
    for (uint32_t i = 0; i < c->rows; i++)
        c->memories[i].space = "default";
    code_tail_and_columns(c, 1000, 100);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    c->codes.rule = &some;
    for (uint32_t turn = 0; turn < 50; turn++) {
        uint64_t scanned[2], steps[2];
        struct mn_query query = query_near(c, embedding, 10);
        for (int scoped = 0; scoped < 2; scoped++) {
            ask_scoped(c, &snapshot, query, scoped);
            scanned[scoped] = c->codes.scanned;
            steps[scoped] = c->codes.steps;
        }
        assert_int_equal(scanned[0], scanned[1]);
        assert_int_equal(steps[0], steps[1]);
    }
    cloud_free(c);
}

static void few_rows_are_compared_exactly(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_L2, 16, 1500);
    float embedding[16];
    make_parts(c);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    struct tally tally = {0, 0, 0};
    static const int64_t firsts[] = {0, 700, 1100, 1350, 1499};
    static const int64_t lengths[] = {0, 1, 60, 150};
    for (size_t i = 0; i < MN_ARRAY_LEN(firsts) * MN_ARRAY_LEN(lengths); i++) {
        struct mn_query query = query_near(c, embedding, 10);
        query.scope.after = firsts[i / MN_ARRAY_LEN(lengths)];
        query.scope.has_before = true;
        query.scope.before = query.scope.after + lengths[i % MN_ARRAY_LEN(lengths)];
        ask_both(&c->codes, &c->exact, &snapshot, &query, &tally);
        assert_int_equal(tally.good, tally.wanted);
    }
    cloud_free(c);
}

/* Time ranges of any width, as sets, lists and ranges of rows. */
static void filters_of_any_selectivity(void **state)
{
    static const uint32_t shares[] = {2, 3, 7, 20, 60, 300};
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 64, 2000);
    float embedding[64];
    char tags[MN_ARRAY_LEN(shares)][8];
    struct tally tally = {0, 0, 0};
    for (size_t s = 0; s < MN_ARRAY_LEN(shares); s++)
        snprintf(tags[s], sizeof tags[s], "t%u", shares[s]);
    for (uint32_t i = 0; i < c->rows; i++)
        for (size_t s = 0; s < MN_ARRAY_LEN(shares); s++)
            if (i * UINT64_C(2654435761) >> 7 & 1 ? i % shares[s] == 0 : (i + 1) % shares[s] == 0)
                c->memories[i].tags[c->memories[i].tag_count++] = tags[s];
    make_parts(c);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    for (uint32_t turn = 0; turn < 200; turn++) {
        struct mn_query query = query_near(c, embedding, 10);
        struct mn_str wanted = fake_str(tags[turn % MN_ARRAY_LEN(shares)]), space = fake_str("third");
        query.scope.filter.tags_all = &wanted;
        query.scope.filter.tags_all_count = turn % 7 != 6;
        query.scope.after = turn % 5 == 0 ? 300 : INT64_MIN;
        query.scope.has_before = turn % 4 == 0;
        query.scope.before = 1700;
        query.scope.min_confidence = turn % 3 == 0 ? 0.45f : 0;
        query.scope.all_spaces = turn % 11 != 0;
        query.scope.spaces = &space;
        query.scope.space_count = 1;
        c->codes.rule = turn % 2 ? &everywhere : NULL;
        query.target = 0.99;
        ask_both(&c->codes, &c->exact, &snapshot, &query, &tally);
    }
    assert_tally(&tally, 0.98);
    cloud_free(c);
}

static void rank_prunes_nothing_that_belongs_in(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 48, 2000);
    float embedding[48];
    struct tally tally = {0, 0, 0};
    make_parts(c);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    for (uint32_t turn = 0; turn < 80; turn++) {
        struct mn_query query = query_near(c, embedding, 1 + turn % 15);
        query.rank = (struct mn_rank){.on = true,
                                      .half_life_s = turn % 4 == 0 ? 0 : 4e-7 * (turn % 5),
                                      .now = 2000,
                                      .confidence_weight = turn % 3 * 0.5,
                                      .floor = turn % 2 * 0.3};
        query.has_min_score = turn % 8 == 7;
        query.min_score = 0.3;
        ask_both(&c->codes, &c->exact, &snapshot, &query, &tally);
    }
    assert_tally(&tally, 0.98);
    cloud_free(c);
}

static void min_score_leaves_out_the_rest(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 40, 1500);
    float embedding[40];
    struct tally tally = {0, 0, 0};
    make_parts(c);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    for (uint32_t turn = 0; turn < 60; turn++) {
        struct mn_query query = query_near(c, embedding, 50);
        query.has_min_score = true;
        query.min_score = 0.01 * (double)(turn * 2);
        struct mn_query all = query;
        all.exact = true;
        assert_int_equal(mn_recall_search(&c->exact, &snapshot, &all), MN_OK);
        assert_int_equal(mn_recall_search(&c->codes, &snapshot, &query), MN_OK);
        assert_true(c->codes.hit_count <= c->exact.hit_count);
        for (uint32_t i = 0; i < c->codes.hit_count; i++)
            assert_true(c->codes.hits[i].score >= query.min_score);
        tally.good += c->codes.hit_count;
        tally.wanted += c->exact.hit_count;
    }
    assert_true(tally.wanted > 100);
    assert_tally(&tally, 0.98);
    cloud_free(c);
}

static void damaged_codes_are_compared_by_their_embeddings(void **state)
{
    struct cloud *c = cloud_new(MN_METRIC_COSINE, 256, 2000);
    float embedding[256];
    struct tally tally = {0, 0, 0};
    fake_parts_columns(c->parts, c->list, c->rows);
    c->codebook = fake_parts_codebook(c->parts, 1, 20);
    fake_parts_code_file(c->parts, 0, c->codebook, 5);
    struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
    for (uint32_t turn = 0; turn < 50; turn++) {
        struct mn_query query = query_near(c, embedding, 10);
        ask_both(&c->codes, &c->exact, &snapshot, &query, &tally);
        assert_int_equal(c->codes.damaged, 0);
    }
    assert_tally(&tally, 0.999);
    cloud_free(c);
}

static void numbers_too_large_for_codes_are_still_found(void **state)
{
    for (int metric = MN_METRIC_IP; metric <= MN_METRIC_L2; metric++) {
        struct cloud *c = cloud_new((enum mn_metric)metric, 16, 1500);
        float embedding[16];
        struct tally tally = {0, 0, 0};
        for (uint32_t i = 0; i < c->rows; i += 50) /* their squares are too large for a float */
            for (uint32_t j = 0; j < c->dim; j++)
                c->vectors[(size_t)i * c->dim + j] *= 1e25f;
        make_parts(c);
        struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
        for (uint32_t turn = 0; turn < 40; turn++) {
            struct mn_query query = query_near(c, embedding, 10);
            if (turn % 10 == 9)
                for (uint32_t j = 0; j < c->dim; j++)
                    embedding[j] *= 1e17f;
            ask_both(&c->codes, &c->exact, &snapshot, &query, &tally);
        }
        cloud_free(c);
    }
}

static void every_instruction_set_answers_alike(void **state)
{
    static const char *const names[] = {"avx2", "avx512"};
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        struct cloud *c = cloud_new((enum mn_metric)metric, 100, 1500);
        float embedding[100];
        make_parts(c);
        struct mn_snapshot snapshot = fake_parts_snapshot(c->parts, 1, 0);
        c->exact.kernels = mn_kernels_named("portable");
        c->exact.rule = c->codes.rule = NULL;
        for (uint32_t turn = 0; turn < 90; turn++) {
            struct mn_query query = query_near(c, embedding, 10);
            query.target = 0.5 + 0.05 * (turn % 10);
            const struct mn_kernels *kernels = mn_kernels_named(names[turn % 2]);
            if (!kernels)
                continue;
            c->codes.kernels = kernels;
            assert_int_equal(mn_recall_search(&c->codes, &snapshot, &query), MN_OK);
            assert_int_equal(mn_recall_search(&c->exact, &snapshot, &query), MN_OK);
            assert_int_equal(c->codes.hit_count, c->exact.hit_count);
            assert_int_equal(c->codes.scanned, c->exact.scanned);
            for (uint32_t i = 0; i < c->codes.hit_count; i++) {
                const struct mn_hit *a = &c->codes.hits[i], *b = &c->exact.hits[i];
                assert_true(same_row(a, b) && a->score == b->score && a->similarity == b->similarity);
            }
        }
        cloud_free(c);
    }
}

/* ---- random worlds: versions, deaths, expiry, spaces, tags, meta, moments of the past ---- */

static void code_at_random(struct fake_world *w, const struct mn_codebook *const *codebooks)
{
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    for (uint32_t i = 0; i < snapshot.part_count; i++) {
        const struct mn_part *p = &snapshot.parts[i];
        const struct mn_codebook *codebook = codebooks[fake_below(w, 3)];
        bool flat = codebook->clusters == 0 || (p->tail && fake_below(w, 2) == 0);
        uint32_t rows = flat ? p->rows / 32 * 32 : p->rows;
        fake_parts_code(w->parts, i, fake_below(w, 5) == 0 ? 0 : rows, codebook, flat);
    }
}

static void make_question(struct fake_world *w, enum mn_metric metric, const struct fake_scope *scope, float *embedding,
                          struct mn_query *query)
{
    bool open = fake_below(w, 3) == 0;
    *query = (struct mn_query){.scope = open ? (struct mn_scope){.all_spaces = true, .after = INT64_MIN} : scope->scope,
                               .embedding = embedding,
                               .k = 1 + fake_below(w, 40)};
    for (uint32_t i = 0; i < FAKE_DIM; i++)
        embedding[i] = fake_float(w);
    query->has_exclude = fake_below(w, 5) == 0;
    query->exclude = fake_id(1 + fake_below(w, 20));
    query->exclude_space = fake_str("agents/a");
    query->rank = (struct mn_rank){.on = metric == MN_METRIC_COSINE && fake_below(w, 3) == 0,
                                   .half_life_s = (double)fake_below(w, 4) * 2e-8,
                                   .now = (int64_t)fake_below(w, 200) - 50,
                                   .confidence_weight = (double)fake_below(w, 5) / 4,
                                   .floor = (double)fake_below(w, 3) / 2};
}

static void random_worlds(enum mn_metric metric)
{
    struct mn_search codes, exact;
    struct tally tally = {0, 0, 0};
    uint64_t approximate = 0;
    assert_int_equal(mn_search_init(&codes, metric, FAKE_DIM), MN_OK);
    assert_int_equal(mn_search_init(&exact, metric, FAKE_DIM), MN_OK);
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct fake_world *w = fake_world_new(seed * 77 + metric, metric, 600 + 200 * (uint32_t)seed, seed % 4 != 0);
        const struct mn_codebook *codebooks[3];
        for (uint32_t i = 0; i < 3; i++)
            codebooks[i] = fake_parts_codebook(w->parts, i, 10 + 8 * i);
        for (int turn = 0; turn < 200; turn++) {
            float embedding[FAKE_DIM];
            struct fake_scope scope;
            struct mn_query query;
            if (turn % 20 == 0)
                code_at_random(w, codebooks);
            struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq - fake_below(w, 30), w->now);
            fake_scope_make(w, &scope);
            make_question(w, metric, &scope, embedding, &query);
            codes.rule = turn % 3 ? &everywhere : NULL;
            query.target = 0.99;
            ask_both(&codes, &exact, &snapshot, &query, &tally);
            approximate += !codes.exact;
        }
        fake_world_free(w);
    }
    assert_true(approximate > 100);
    assert_tally(&tally, 0.97);
    mn_search_free(&codes);
    mn_search_free(&exact);
}

static void random_cosine_worlds(void **state)
{
    random_worlds(MN_METRIC_COSINE);
}

static void random_ip_worlds(void **state)
{
    random_worlds(MN_METRIC_IP);
}

static void random_l2_worlds(void **state)
{
    random_worlds(MN_METRIC_L2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_metric_and_dimension),
        cmocka_unit_test(any_number_of_hits),
        cmocka_unit_test(equal_rows_come_latest_first),
        cmocka_unit_test(rows_much_alike_are_told_apart),
        cmocka_unit_test(short_rows_have_products),
        cmocka_unit_test(flat_codes_begin_where_those_by_cluster_end),
        cmocka_unit_test(leaving_the_memory_itself_out_opens_no_more_clusters),
        cmocka_unit_test(a_scope_that_holds_everything_opens_as_many_clusters),
        cmocka_unit_test(a_scope_that_leaves_nothing_out_is_no_filter),
        cmocka_unit_test(few_rows_are_compared_exactly),
        cmocka_unit_test(filters_of_any_selectivity),
        cmocka_unit_test(rank_prunes_nothing_that_belongs_in),
        cmocka_unit_test(min_score_leaves_out_the_rest),
        cmocka_unit_test(damaged_codes_are_compared_by_their_embeddings),
        cmocka_unit_test(numbers_too_large_for_codes_are_still_found),
        cmocka_unit_test(every_instruction_set_answers_alike),
        cmocka_unit_test(random_cosine_worlds),
        cmocka_unit_test(random_ip_worlds),
        cmocka_unit_test(random_l2_worlds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
