/*
 * recall.c - the door to a search: what was asked is checked and brought into form, then answered through codes
 * (recall_codes.c) where there are any and the question allows it, else exactly: of every row, but for those that codes
 * prove to be out of reach (recall_bounds.c), the embedding is compared (recall_exact.c).
 */
#include "engine/recall.h"

#include <math.h>
#include <stdlib.h>

#include "engine/recall_inside.h"
#include "shm/process.h"

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
    mn_recall_codes_free(search->codes);
    mn_recall_bounds_free(search->bounds);
    mn_matcher_free(&search->matcher);
    *search = (struct mn_search){0};
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

/* Copies the embedding; under cosine times the power of two that brings its length near 1: that is exact, and no
 * product of large floats overflows on the way to a number in -1..1. */
static enum mn_status take_embedding(struct mn_recall *r)
{
    struct mn_search *search = r->search;
    size_t bytes = (size_t)search->dim * sizeof(float);
    double norm2;
    if (!search->kernels->check(r->query->embedding, search->dim, &norm2))
        return MN_FAIL(MN_BAD_VALUE, "the embedding holds NaN or Inf; all floats must be finite");
    memcpy(search->embedding, r->query->embedding, bytes);
    r->query_scale = 1;
    if (search->metric != MN_METRIC_COSINE)
        return mn_kernel_check_norm(search->metric, norm2);
    if (!(norm2 > 0))
        return MN_FAIL(MN_BAD_VALUE, "the embedding is zero; cosine needs a direction");
    int exponent;
    r->query_scale = 1 / frexp(sqrt(norm2), &exponent);
    double power = ldexp(1, -exponent);
    for (uint32_t i = 0; i < search->dim; i++)
        search->embedding[i] = (float)((double)search->embedding[i] * power);
    return MN_OK;
}

static enum mn_status search_parts(struct mn_recall *r, uint64_t begin)
{
    bool done = r->query->k == 0;
    if (!done && !r->query->exact)
        MN_TRY(mn_recall_through_codes(r, &done));
    if (done)
        return MN_OK;
    MN_TRY(mn_recall_by_bounds(r, &done));
    for (uint32_t i = 0; !done && i < r->snapshot->part_count; i++)
        mn_recall_scan(r, i, 0, r->snapshot->parts[i].rows);
    r->search->scan_ns = mn_clock_ns() - begin;
    return MN_OK;
}

enum mn_status mn_recall_begin(struct mn_recall *r)
{
    struct mn_search *search = r->search;
    if (r->query->rank.on && search->metric != MN_METRIC_COSINE)
        return MN_FAIL(MN_BAD_REQUEST, "rank needs the metric cosine; this store's is %s",
                       mn_metric_word(search->metric));
    search->exact = true;
    search->scanned = search->steps = search->spared = search->damaged = 0;
    search->coarse_ns = search->scan_ns = search->rerank_ns = 0;
    MN_TRY(reserve_hits(search, r->query->k));
    return take_embedding(r);
}

enum mn_status mn_recall_search(struct mn_search *search, const struct mn_snapshot *snapshot,
                                const struct mn_query *query)
{
    uint64_t begin = mn_clock_ns();
    struct mn_recall r = {.search = search, .snapshot = snapshot, .query = query};
    MN_TRY(mn_recall_begin(&r));
    MN_TRY(mn_matcher_begin(&search->matcher, &query->scope));
    MN_TRY(search_parts(&r, begin));
    mn_recall_sort(&r);
    return MN_OK;
}
