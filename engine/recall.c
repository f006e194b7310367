/*
 * recall.c - the exact search: every visible row that matches is compared with the query.
 *
 * A part is walked in runs of rows that match; while one embedding is compared, the next ones are on their way from
 * memory. The k best so far are a heap with the worst on top: what cannot beat it costs one comparison.
 */
#include "engine/recall.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#define RUN   64 /* rows matched before they are compared */
#define AHEAD 2  /* embeddings asked for before they are needed */

struct scan {
    struct mn_search *search;
    const struct mn_snapshot *snapshot;
    const struct mn_query *query;
    double query_scale; /* cosine: 1 / |search->embedding| */
    uint32_t part;
    uint32_t excluded_space; /* the number in this part, or MN_NONE */
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

enum mn_status mn_search_init(struct mn_search *search, enum mn_metric metric, uint32_t dim)
{
    *search = (struct mn_search){.kernels = mn_kernels_best(), .metric = metric, .dim = dim};
    search->embedding = aligned_alloc(MN_LINE, mn_round_up((uint64_t)dim * sizeof(float), MN_LINE));
    if (!search->embedding)
        return MN_FAIL(MN_INTERNAL, "out of memory for an embedding of %u floats", dim);
    return MN_OK;
}

void mn_search_free(struct mn_search *search)
{
    free(search->embedding);
    free(search->hits);
    mn_matcher_free(&search->matcher);
    *search = (struct mn_search){0};
}

/* ---- the k best ---- */

static bool better(const struct scan *s, const struct mn_hit *a, const struct mn_hit *b)
{
    if (a->score != b->score)
        return a->score > b->score;
    if (a->at != b->at)
        return a->at > b->at;
    const struct mn_part *pa = &s->snapshot->parts[a->part], *pb = &s->snapshot->parts[b->part];
    int order = mn_id_compare(mn_part_id(pa, a->row), mn_part_id(pb, b->row));
    return order != 0 ? order < 0 : mn_part_compare_spaces(pa, a->row, pb, b->row) < 0;
}

/* Puts `hit` where place `i` of the heap of `count` is free, or below it. */
static void sift_down(const struct scan *s, uint32_t count, uint32_t i, struct mn_hit hit)
{
    struct mn_hit *heap = s->search->hits;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= count)
            break;
        if (child + 1 < count && better(s, &heap[child], &heap[child + 1]))
            child++;
        if (!better(s, &hit, &heap[child]))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = hit;
}

static void sift_up(const struct scan *s, uint32_t i, struct mn_hit hit)
{
    struct mn_hit *heap = s->search->hits;
    while (i > 0 && better(s, &heap[(i - 1) / 2], &hit)) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = hit;
}

/* The heap, worst on top, becomes the list, best first. */
static void sort_hits(const struct scan *s)
{
    struct mn_hit *heap = s->search->hits;
    for (uint32_t count = s->search->hit_count; count > 1; count--) {
        struct mn_hit worst = heap[0];
        sift_down(s, count - 1, 0, heap[count - 1]);
        heap[count - 1] = worst;
    }
}

static enum mn_status reserve_hits(struct mn_search *search, uint32_t k)
{
    search->hit_count = 0;
    if (k <= search->hit_max)
        return MN_OK;
    struct mn_hit *hits = realloc(search->hits, k * sizeof *hits);
    if (!hits)
        return MN_FAIL(MN_INTERNAL, "out of memory for %u hits", k);
    search->hits = hits;
    search->hit_max = k;
    return MN_OK;
}

/* ---- scores ---- */

/* 2^(-age / half_life), towards the floor. */
static double decay_of(const struct mn_rank *rank, int64_t at)
{
    if (!(rank->half_life_s > 0) || at >= rank->now)
        return 1;
    double age_s = (double)((uint64_t)rank->now - (uint64_t)at) / 1e9;
    return rank->floor + (1 - rank->floor) * exp2(-age_s / rank->half_life_s);
}

static void rank_hit(const struct mn_rank *rank, struct mn_hit *hit)
{
    double weight = rank->confidence_weight;
    hit->decay = decay_of(rank, hit->at);
    hit->score = fmax(hit->similarity, 0) * (1 - weight + weight * (double)hit->confidence) * hit->decay;
}

/* No factor of rank is above 1, so the similarity bounds the score: most rows need no more than that. */
static bool out_of_reach(const struct scan *s, double similarity)
{
    const struct mn_search *search = s->search;
    double bound = s->query->rank.on ? fmax(similarity, 0) : similarity;
    if (s->query->has_min_score && bound < s->query->min_score)
        return true;
    return search->hit_count == s->query->k && bound < search->hits[0].score;
}

static void offer(struct scan *s, const struct mn_part *p, uint32_t row, double similarity)
{
    if (out_of_reach(s, similarity))
        return;
    struct mn_search *search = s->search;
    struct mn_hit hit = {.score = similarity,
                         .similarity = similarity,
                         .decay = 1,
                         .confidence = mn_part_confidence(p, row),
                         .part = s->part,
                         .row = row,
                         .at = mn_part_at(p, row)};
    if (s->query->rank.on)
        rank_hit(&s->query->rank, &hit);
    if (s->query->has_min_score && hit.score < s->query->min_score)
        return;
    if (search->hit_count < s->query->k)
        sift_up(s, search->hit_count++, hit);
    else if (better(s, &hit, &search->hits[0]))
        sift_down(s, search->hit_count, 0, hit);
}

/* ---- comparing ---- */

/* In double from the kernel's sum on: nothing overflows here. NaN (Inf - Inf in the sum) is the worst there is. */
static double similarity_of(const struct scan *s, const struct mn_part *p, uint32_t row, const float *vector)
{
    const struct mn_search *search = s->search;
    if (search->metric == MN_METRIC_L2)
        return -(double)search->kernels->l2(search->embedding, vector, search->dim);
    double similarity = (double)search->kernels->dot(search->embedding, vector, search->dim);
    if (search->metric == MN_METRIC_IP)
        return isnan(similarity) ? -HUGE_VAL : similarity;
    similarity *= s->query_scale * (double)mn_part_scale(p, row);
    return similarity > 1 ? 1 : similarity >= -1 ? similarity : -1;
}

/* Asks for a whole embedding, unless it lies just behind the one before: the hardware sees those coming. */
static void prefetch(const float *const *vectors, uint32_t i, uint32_t dim)
{
    const float *vector = vectors[i];
    if (!vector || (i > 0 && vectors[i - 1] && vector == vectors[i - 1] + dim))
        return;
    for (uint32_t j = 0; j < dim; j += MN_LINE / sizeof *vector)
        __builtin_prefetch(vector + j);
}

static bool excluded(const struct scan *s, const struct mn_part *p, uint32_t row)
{
    return s->excluded_space != MN_NONE && mn_part_space(p, row) == s->excluded_space &&
           mn_id_equal(mn_part_id(p, row), &s->query->exclude);
}

static void compare_run(struct scan *s, const struct mn_part *p, const uint32_t *rows, uint32_t count)
{
    const float *vectors[RUN];
    for (uint32_t i = 0; i < count; i++)
        vectors[i] = mn_part_vector(p, rows[i]);
    for (uint32_t i = 0; i < AHEAD && i < count; i++)
        prefetch(vectors, i, p->dim);
    for (uint32_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            prefetch(vectors, i + AHEAD, p->dim);
        if (excluded(s, p, rows[i]))
            continue;
        if (!vectors[i]) {
            s->search->damaged++;
            continue;
        }
        s->search->scanned++;
        offer(s, p, rows[i], similarity_of(s, p, rows[i], vectors[i]));
    }
}

static void scan_part(struct scan *s, const struct mn_part *p)
{
    struct mn_matcher *matcher = &s->search->matcher;
    if (!mn_matcher_part(matcher, p, 0, p->rows))
        return;
    s->excluded_space = s->query->has_exclude ? mn_part_lookup(p, s->query->exclude_space) : MN_NONE;
    uint32_t rows[RUN], count;
    while ((count = mn_matcher_next(matcher, s->snapshot->seq, s->snapshot->now, rows, RUN)) > 0)
        compare_run(s, p, rows, count);
}

/* ---- the search ---- */

/* Copies the embedding; under cosine times the power of two that brings its length near 1: that is exact, and no
 * product of large floats overflows on the way to a number in -1..1. */
static enum mn_status take_embedding(struct scan *s)
{
    struct mn_search *search = s->search;
    size_t bytes = (size_t)search->dim * sizeof(float);
    double norm2;
    if (!search->kernels->check(s->query->embedding, search->dim, &norm2))
        return MN_FAIL(MN_BAD_VALUE, "the embedding holds NaN or Inf; all floats must be finite");
    memcpy(search->embedding, s->query->embedding, bytes);
    s->query_scale = 1;
    if (search->metric != MN_METRIC_COSINE)
        return MN_OK;
    if (!(norm2 > 0))
        return MN_FAIL(MN_BAD_VALUE, "the embedding is zero; cosine needs a direction");
    int exponent;
    s->query_scale = 1 / frexp(sqrt(norm2), &exponent);
    double power = ldexp(1, -exponent);
    for (uint32_t i = 0; i < search->dim; i++)
        search->embedding[i] = (float)((double)search->embedding[i] * power);
    return MN_OK;
}

enum mn_status mn_recall_search(struct mn_search *search, const struct mn_snapshot *snapshot,
                                const struct mn_query *query)
{
    uint64_t begin = now_ns();
    struct scan s = {.search = search, .snapshot = snapshot, .query = query};
    if (query->rank.on && search->metric != MN_METRIC_COSINE)
        return MN_FAIL(MN_BAD_REQUEST, "rank needs the metric cosine; this store's is %s",
                       mn_metric_word(search->metric));
    search->exact = true;
    search->scanned = search->damaged = 0;
    search->coarse_ns = search->scan_ns = search->rerank_ns = 0;
    MN_TRY(reserve_hits(search, query->k));
    MN_TRY(take_embedding(&s));
    MN_TRY(mn_matcher_begin(&search->matcher, &query->scope));
    for (s.part = 0; query->k > 0 && s.part < snapshot->part_count; s.part++)
        scan_part(&s, &snapshot->parts[s.part]);
    sort_hits(&s);
    search->scan_ns = now_ns() - begin;
    return MN_OK;
}
