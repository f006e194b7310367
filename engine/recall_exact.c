/*
 * recall_exact.c - comparing embeddings with the query, and the k best so far.
 *
 * A part is walked in runs of rows that match; while one embedding is compared, the next ones are on their way from
 * memory. The k best so far are a heap with the worst on top: what cannot beat it costs one comparison.
 */
#include <math.h>

#include "engine/recall_inside.h"

#define RUN   64 /* rows matched before they are compared */
#define AHEAD 2  /* embeddings asked for before they are needed */
#define SOME  4  /* searches that compare a run together */

/* ---- the k best ---- */

bool mn_recall_before(const struct mn_snapshot *snapshot, uint32_t part_a, uint32_t row_a, uint32_t part_b,
                      uint32_t row_b)
{
    const struct mn_part *a = &snapshot->parts[part_a], *b = &snapshot->parts[part_b];
    int64_t at_a = mn_part_at(a, row_a), at_b = mn_part_at(b, row_b);
    if (at_a != at_b)
        return at_a > at_b;
    int order = mn_id_compare(mn_part_id(a, row_a), mn_part_id(b, row_b));
    return order != 0 ? order < 0 : mn_part_compare_spaces(a, row_a, b, row_b) < 0;
}

static bool better(const struct mn_recall *r, const struct mn_hit *a, const struct mn_hit *b)
{
    return a->score != b->score ? a->score > b->score : mn_recall_before(r->snapshot, a->part, a->row, b->part, b->row);
}

/* Puts `hit` where place `i` of the heap of `count` is free, or below it. */
static void sift_down(const struct mn_recall *r, uint32_t count, uint32_t i, struct mn_hit hit)
{
    struct mn_hit *heap = r->search->hits;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= count)
            break;
        if (child + 1 < count && better(r, &heap[child], &heap[child + 1]))
            child++;
        if (!better(r, &hit, &heap[child]))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = hit;
}

static void sift_up(const struct mn_recall *r, uint32_t i, struct mn_hit hit)
{
    struct mn_hit *heap = r->search->hits;
    while (i > 0 && better(r, &heap[(i - 1) / 2], &hit)) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = hit;
}

void mn_recall_sort(struct mn_recall *r)
{
    struct mn_hit *heap = r->search->hits;
    for (uint32_t count = r->search->hit_count; count > 1; count--) {
        struct mn_hit worst = heap[0];
        sift_down(r, count - 1, 0, heap[count - 1]);
        heap[count - 1] = worst;
    }
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

double mn_recall_rank(const struct mn_rank *rank, double similarity, int64_t at, float confidence, double *decay)
{
    double weight = rank->confidence_weight;
    *decay = decay_of(rank, at);
    return fmax(similarity, 0) * (1 - weight + weight * (double)confidence) * *decay;
}

/* No factor of rank is above 1, so the similarity bounds the score: most rows need no more than that. */
static bool out_of_reach(const struct mn_recall *r, double similarity)
{
    const struct mn_search *search = r->search;
    double bound = r->query->rank.on ? fmax(similarity, 0) : similarity;
    if (r->query->has_min_score && bound < r->query->min_score)
        return true;
    return search->hit_count == r->query->k && bound < search->hits[0].score;
}

static void offer(struct mn_recall *r, uint32_t part, uint32_t row, double similarity)
{
    if (out_of_reach(r, similarity))
        return;
    struct mn_search *search = r->search;
    const struct mn_part *p = &r->snapshot->parts[part];
    struct mn_hit hit = {.score = similarity,
                         .similarity = similarity,
                         .decay = 1,
                         .confidence = mn_part_confidence(p, row),
                         .part = part,
                         .row = row,
                         .at = mn_part_at(p, row)};
    if (r->query->rank.on)
        hit.score = mn_recall_rank(&r->query->rank, similarity, hit.at, hit.confidence, &hit.decay);
    if (r->query->has_min_score && hit.score < r->query->min_score)
        return;
    if (search->hit_count < r->query->k)
        sift_up(r, search->hit_count++, hit);
    else if (better(r, &hit, &search->hits[0]))
        sift_down(r, search->hit_count, 0, hit);
}

/* ---- comparing ---- */

/* In double from the kernel's sum (l2 or dot) on: nothing overflows here. NaN (Inf - Inf in the sum) is the worst there
 * is. */
static double similarity_of(const struct mn_recall *r, const struct mn_part *p, uint32_t row, float sum)
{
    double similarity = (double)sum;
    if (r->search->metric == MN_METRIC_L2)
        return -similarity;
    if (r->search->metric == MN_METRIC_IP)
        return isnan(similarity) ? -HUGE_VAL : similarity;
    similarity *= r->query_scale * (double)mn_part_scale(p, row);
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

static float sum_of(const struct mn_search *search, const float *vector)
{
    const struct mn_kernels *k = search->kernels;
    return (search->metric == MN_METRIC_L2 ? k->l2 : k->dot)(search->embedding, vector, search->dim);
}

static void compare_run(struct mn_recall *r, uint32_t part, const uint32_t *rows, uint32_t count)
{
    const struct mn_part *p = &r->snapshot->parts[part];
    const float *vectors[RUN];
    mn_part_ahead(p, rows, count);
    for (uint32_t i = 0; i < count; i++)
        vectors[i] = mn_part_vector(p, rows[i]);
    for (uint32_t i = 0; i < AHEAD && i < count; i++)
        prefetch(vectors, i, p->dim);
    for (uint32_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            prefetch(vectors, i + AHEAD, p->dim);
        if (!vectors[i]) {
            r->search->damaged++;
            continue;
        }
        r->search->scanned++;
        offer(r, part, rows[i], similarity_of(r, p, rows[i], sum_of(r->search, vectors[i])));
    }
}

void mn_recall_compare(struct mn_recall *r, uint32_t part, const uint32_t *rows, uint32_t count)
{
    for (uint32_t i = 0; i < count; i += RUN)
        compare_run(r, part, rows + i, count - i < RUN ? count - i : RUN);
}

/* The next run of rows that a search may return; 0 when there are no more. */
static uint32_t next_run(struct mn_recall *r, const struct mn_part *p, uint32_t excluded, uint32_t rows[RUN])
{
    uint32_t kept = 0, count;
    while (kept == 0 &&
           (count = mn_matcher_next(&r->search->matcher, r->snapshot->seq, r->snapshot->now, rows, RUN)) > 0)
        for (uint32_t i = 0; i < count; i++)
            if (!mn_recall_excluded(r, p, rows[i], excluded))
                rows[kept++] = rows[i];
    return kept;
}

void mn_recall_scan(struct mn_recall *r, uint32_t part, uint32_t first, uint32_t end)
{
    const struct mn_part *p = &r->snapshot->parts[part];
    if (first >= end || !mn_matcher_part(&r->search->matcher, p, first, end))
        return;
    uint32_t excluded = mn_recall_excluded_space(r, p), rows[RUN], count;
    while ((count = next_run(r, p, excluded, rows)) > 0)
        compare_run(r, part, rows, count);
}

/* ---- comparing with several queries ---- */

static void compare_some(struct mn_recall *some, uint32_t searches, uint32_t part, const uint32_t *rows,
                         const float *const *vectors, uint32_t count)
{
    const struct mn_search *first = some->search;
    const struct mn_part *p = &some->snapshot->parts[part];
    const float *queries[SOME];
    float sums[SOME * RUN];
    for (uint32_t i = 0; i < searches; i++)
        queries[i] = some[i].search->embedding;
    (first->metric == MN_METRIC_L2 ? first->kernels->l2s : first->kernels->dots)(queries, searches, vectors, count,
                                                                                 first->dim, sums);
    for (uint32_t i = 0; i < searches; i++) {
        some[i].search->scanned += count;
        for (uint32_t j = 0; j < count; j++)
            offer(&some[i], part, rows[j], similarity_of(&some[i], p, rows[j], sums[i * count + j]));
    }
}

/* rows: is overwritten. */
static void compare_run_with_all(struct mn_recall *all, uint32_t searches, uint32_t part, uint32_t *rows,
                                 uint32_t count)
{
    const struct mn_part *p = &all->snapshot->parts[part];
    const float *vectors[RUN];
    uint32_t kept = 0;
    mn_part_ahead(p, rows, count);
    for (uint32_t i = 0; i < count; i++) {
        rows[kept] = rows[i];
        vectors[kept] = mn_part_vector(p, rows[i]);
        kept += vectors[kept] != NULL;
    }
    for (uint32_t i = 0; i < searches; i++)
        all[i].search->damaged += count - kept;
    for (uint32_t i = 0; i < searches; i += SOME)
        compare_some(all + i, searches - i < SOME ? searches - i : SOME, part, rows, vectors, kept);
}

void mn_recall_scan_all(struct mn_recall *all, uint32_t count, uint32_t part, uint32_t first, uint32_t end)
{
    const struct mn_part *p = &all->snapshot->parts[part];
    if (first >= end || !mn_matcher_part(&all->search->matcher, p, first, end))
        return;
    uint32_t excluded = mn_recall_excluded_space(all, p), rows[RUN], run;
    while ((run = next_run(all, p, excluded, rows)) > 0)
        compare_run_with_all(all, count, part, rows, run);
}
