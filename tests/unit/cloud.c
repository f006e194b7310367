/*
 * cloud.c - see cloud.h.
 */
#include "tests/unit/cloud.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define NOW       1000
#define PARTS_MAX 8
#define OTHERS    3 /* queries in a batch */

static const char *const sets[CLOUD_SETS] = {"portable", "avx2", "avx512"};

uint32_t cloud_below(struct cloud *c, uint32_t n)
{
    c->random = c->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((c->random >> 33) % n);
}

/* About normal: mean 0, variance 1. */
static float normal(struct cloud *c)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)cloud_below(c, 1u << 24) * 0x1p-24f;
    return sum - 6;
}

static void *need(size_t bytes)
{
    void *p = aligned_alloc(MN_LINE, mn_round_up(bytes + 1, MN_LINE));
    assert_non_null(p);
    return memset(p, 0, bytes);
}

void cloud_fill(struct cloud *c, float *x)
{
    const float *center = c->centers + cloud_below(c, CLOUD_CENTERS) * c->dim;
    for (uint32_t i = 0; i < c->dim; i++)
        x[i] = center[i] + 0.3f * normal(c);
}

static void make_memory(struct cloud *c, uint32_t i)
{
    static const char *const tags[] = {"half", "tenth", "rare"};
    struct fake_memory *m = &c->memories[i];
    *m = (struct fake_memory){.space = i % 2 ? "default" : "other",
                              .id = fake_id(i / 2 + 1),
                              .born = 1 + cloud_below(c, CLOUD_SEQ + 2),
                              .died = cloud_below(c, 4) ? MN_ALIVE : mn_died_make(3 + cloud_below(c, CLOUD_SEQ), false),
                              .at = cloud_below(c, 40),
                              .expires = cloud_below(c, 6) ? MN_NEVER : NOW - 20 + cloud_below(c, 40),
                              .confidence = (float)cloud_below(c, 11) / 10,
                              .vector = c->vectors + (size_t)i * c->dim};
    if (cloud_below(c, 2) == 0)
        m->tags[m->tag_count++] = tags[0];
    if (cloud_below(c, 10) == 0)
        m->tags[m->tag_count++] = tags[1];
    if (cloud_below(c, 100) == 0)
        m->tags[m->tag_count++] = tags[2];
    c->list[i] = m;
}

struct cloud *cloud_new(enum mn_metric metric, uint32_t dim, uint32_t rows)
{
    struct cloud *c = need(sizeof *c);
    *c = (struct cloud){.metric = metric, .dim = dim, .rows = rows, .random = dim * 31 + metric};
    c->vectors = need((size_t)rows * dim * sizeof *c->vectors);
    c->centers = need((size_t)CLOUD_CENTERS * dim * sizeof *c->centers);
    c->embedding = need(dim * sizeof *c->embedding);
    c->memories = need(rows * sizeof *c->memories);
    c->list = need(rows * sizeof *c->list);
    c->parts = fake_parts_new(dim, metric);
    assert_int_equal(mn_search_init(&c->plain, metric, dim), MN_OK);
    for (size_t i = 0; i < MN_ARRAY_LEN(sets); i++) {
        assert_int_equal(mn_search_init(&c->coded[i], metric, dim), MN_OK);
        c->coded[i].kernels = mn_kernels_named(sets[i]);
        assert_int_equal(mn_batch_open(&c->batch[i], metric, dim), MN_OK);
        mn_batch_use(c->batch[i], c->coded[i].kernels);
    }
    for (uint32_t i = 0; i < CLOUD_CENTERS * dim; i++)
        c->centers[i] = normal(c) + 0.5f;
    for (uint32_t i = 0; i < rows; i++) {
        float *x = c->vectors + (size_t)i * dim;
        cloud_fill(c, x);
        if (i > 0 && i % 4 == 0)
            memcpy(x, c->vectors + (size_t)cloud_below(c, i) * dim, dim * sizeof *x);
        make_memory(c, i);
    }
    return c;
}

void cloud_free(struct cloud *c)
{
    mn_search_free(&c->plain);
    for (size_t i = 0; i < MN_ARRAY_LEN(sets); i++) {
        mn_search_free(&c->coded[i]);
        mn_batch_free(c->batch[i]);
    }
    fake_parts_free(c->parts);
    free(c->vectors);
    free(c->centers);
    free(c->embedding);
    free(c->memories);
    free(c->list);
    free(c);
}

void cloud_make_parts(struct cloud *c)
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

/* The snapshot, and the same without codes. */
static void snapshots(struct cloud *c, uint64_t seq, struct mn_snapshot *coded, struct mn_snapshot *plain,
                      struct mn_part parts[PARTS_MAX])
{
    *coded = *plain = fake_parts_snapshot(c->parts, seq, NOW);
    assert_true(coded->part_count <= PARTS_MAX);
    memcpy(parts, coded->parts, coded->part_count * sizeof *parts);
    for (uint32_t i = 0; i < coded->part_count; i++)
        parts[i].ivf = NULL;
    plain->parts = parts;
}

/* Through codes where there are any, or row by row. */
static void ask_batch(struct cloud *c, const struct mn_snapshot *plain, const struct mn_snapshot *snapshot,
                      const struct mn_query *query, const float *embeddings, size_t stride, uint32_t count)
{
    for (size_t set = 0; set < MN_ARRAY_LEN(sets); set++) {
        for (uint32_t first = 0, done; c->coded[set].kernels && first < count; first += done) {
            assert_int_equal(mn_recall_batch(c->batch[set], snapshot, query, embeddings + first * stride, stride,
                                             count - first, &done),
                             MN_OK);
            assert_in_range(done, 1, count - first);
            for (uint32_t i = 0; i < done; i++) {
                struct mn_query one = *query;
                one.embedding = embeddings + (first + i) * stride;
                assert_int_equal(mn_recall_search(&c->plain, plain, &one), MN_OK);
                assert_same(mn_batch_result(c->batch[set], i), &c->plain);
            }
        }
    }
}

void cloud_ask_together(struct cloud *c, const struct mn_query *query, uint64_t seq, const float *embeddings,
                        size_t stride, uint32_t count)
{
    struct mn_part parts[PARTS_MAX];
    struct mn_snapshot coded, plain;
    snapshots(c, seq, &coded, &plain, parts);
    ask_batch(c, &plain, &coded, query, embeddings, stride, count);
    ask_batch(c, &plain, &plain, query, embeddings, stride, count);
}

static void ask_alone(struct cloud *c, const struct mn_query *query, uint64_t seq)
{
    struct mn_part parts[PARTS_MAX];
    struct mn_snapshot coded, plain;
    snapshots(c, seq, &coded, &plain, parts);
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

void cloud_ask(struct cloud *c, const struct mn_query *query, uint64_t seq)
{
    size_t stride = mn_round_up(c->dim, MN_LINE / sizeof(float));
    float *embeddings = need(OTHERS * stride * sizeof *embeddings);
    for (uint32_t i = 0; i < OTHERS; i++)
        for (uint32_t j = 0; j < c->dim; j++)
            embeddings[i * stride + j] = query->embedding[j] * (i == 0 ? 1 : 0.5f + 0.05f * normal(c));
    cloud_ask_together(c, query, seq, embeddings, stride, OTHERS);
    free(embeddings);
    ask_alone(c, query, seq);
}

struct mn_query cloud_question(struct cloud *c, uint32_t k)
{
    if (c->asked++ % 3 == 0)
        memcpy(c->embedding, c->vectors + (size_t)cloud_below(c, c->rows) * c->dim, c->dim * sizeof *c->embedding);
    else
        cloud_fill(c, c->embedding);
    return (struct mn_query){
        .scope = {.all_spaces = true, .after = INT64_MIN}, .embedding = c->embedding, .k = k, .exact = true};
}

void cloud_assert_spared(const struct cloud *c, double share)
{
    if ((double)c->spared < share * (double)c->scanned)
        fail_msg("%llu of %llu rows were spared", (unsigned long long)c->spared, (unsigned long long)c->scanned);
}
