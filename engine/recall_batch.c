/*
 * recall_batch.c - exact searches of several queries at once (see recall_batch.h).
 *
 * What codes prove of a row is as in recall_bounds.c. But clusters come in the order of memory, and what is read of a
 * tile of rows, all queries are compared with before the next is read. So the nearest rows of a query may come late;
 * each is therefore looked for through codes first, approximately: k rows that are there tell a score that every row of
 * the answer has, at least. That becomes the query's min_score.
 */
#include "engine/recall_batch.h"

#include <stdlib.h>

#include "engine/recall_bounds_inside.h"
#include "shm/process.h"

#define SEED_TARGET 0.8 /* of the approximate searches: the k-th best is near enough then */
#define TOGETHER    16u /* queries multiplied with a tile at a time */

struct mn_batch {
    struct mn_search search[MN_BATCH_QUERIES], seeker;
    struct mn_query query[MN_BATCH_QUERIES];
    struct mn_recall recall[MN_BATCH_QUERIES];
    float limit[MN_BATCH_QUERIES]; /* what lies farther cannot enter, nor tie */
    uint32_t count;
    struct mn_bounds_plan plan;
    /* Of each view of the plan: what it is for each query; `rotated` and `codes` of the probes point here. */
    struct mn_bounds_view views[MN_BOUNDS_VIEWS][MN_BATCH_QUERIES];
    float *rotated[MN_BOUNDS_VIEWS];
    int8_t *codes[MN_BOUNDS_VIEWS];
    uint32_t width_max[MN_BOUNDS_VIEWS];
    struct mn_bounds_place places[MN_BATCH_QUERIES]; /* of the cluster that is gone through */
    int32_t dots[(TOGETHER + 1) * MN_IVF_LANES];     /* of a tile; one row more than is filled */
};

enum mn_status mn_batch_open(struct mn_batch **out, enum mn_metric metric, uint32_t dim)
{
    struct mn_batch *b = calloc(1, sizeof *b);
    enum mn_status status = b ? mn_search_init(&b->seeker, metric, dim) : MN_FAIL(MN_INTERNAL, "out of memory");
    for (uint32_t i = 0; status == MN_OK && i < MN_BATCH_QUERIES; i++)
        status = mn_search_init(&b->search[i], metric, dim);
    *out = status == MN_OK ? b : NULL;
    if (status != MN_OK)
        mn_batch_free(b);
    return status;
}

void mn_batch_free(struct mn_batch *b)
{
    if (!b)
        return;
    for (uint32_t i = 0; i < MN_BATCH_QUERIES; i++)
        mn_search_free(&b->search[i]);
    mn_search_free(&b->seeker);
    mn_bounds_plan_free(&b->plan);
    for (uint32_t i = 0; i < MN_BOUNDS_VIEWS; i++) {
        free(b->rotated[i]);
        free(b->codes[i]);
    }
    free(b);
}

void mn_batch_use(struct mn_batch *b, const struct mn_kernels *kernels)
{
    b->seeker.kernels = kernels;
    for (uint32_t i = 0; i < MN_BATCH_QUERIES; i++)
        b->search[i].kernels = kernels;
}

const struct mn_search *mn_batch_result(const struct mn_batch *b, uint32_t i)
{
    return &b->search[i];
}

/* ---- the queries ---- */

static enum mn_status reserve_view(struct mn_batch *b, uint32_t v)
{
    uint32_t width = b->plan.views[v].probe.codebook->width;
    if (width <= b->width_max[v])
        return MN_OK;
    free(b->rotated[v]);
    free(b->codes[v]);
    b->rotated[v] = aligned_alloc(MN_LINE, (size_t)MN_BATCH_QUERIES * width * sizeof *b->rotated[v]);
    b->codes[v] = aligned_alloc(MN_LINE, (size_t)MN_BATCH_QUERIES * width * sizeof *b->codes[v]);
    b->width_max[v] = b->rotated[v] && b->codes[v] ? width : 0;
    return b->width_max[v] > 0 ? MN_OK : MN_FAIL(MN_INTERNAL, "out of memory for %u queries", MN_BATCH_QUERIES);
}

/* Each query before a codebook. The plan's own view is the scratch; what bounds need of it is kept. */
static enum mn_status begin_view(struct mn_batch *b, uint32_t v, bool *fits)
{
    struct mn_bounds_view *scratch = &b->plan.views[v];
    size_t width = scratch->probe.codebook->width;
    MN_TRY(reserve_view(b, v));
    for (uint32_t i = 0; i < b->count; i++) {
        struct mn_probe *probe = &b->views[v][i].probe;
        MN_TRY(mn_bounds_begin_view(scratch, &b->recall[i], fits));
        b->views[v][i] = *scratch;
        probe->rotated = b->rotated[v] + i * width;
        probe->codes = b->codes[v] + i * width;
        memcpy(probe->rotated, scratch->probe.rotated, width * sizeof *probe->rotated);
        memcpy(probe->codes, scratch->probe.codes, width * sizeof *probe->codes);
    }
    return MN_OK;
}

static enum mn_status begin_views(struct mn_batch *b, bool *fits)
{
    for (uint32_t v = 0; v < MN_BOUNDS_VIEWS && b->plan.views[v].probe.codebook; v++)
        MN_TRY(begin_view(b, v, fits));
    return MN_OK;
}

/* The score that k rows have at least. */
static enum mn_status seek(struct mn_batch *b, uint32_t i)
{
    struct mn_query *query = &b->query[i], near = *query;
    near.exact = false;
    near.target = SEED_TARGET;
    MN_TRY(mn_recall_search(&b->seeker, b->recall[i].snapshot, &near));
    if (b->seeker.hit_count < query->k)
        return MN_OK;
    query->has_min_score = true;
    query->min_score = b->seeker.hits[query->k - 1].score;
    return MN_OK;
}

/* ---- tiles ---- */

/* Up to 32 rows of a cluster, what codes say of them side by side. Lanes behind the last hold anything. */
struct tile {
    uint32_t count, unknown; /* unknown: those whose codes cannot be used, as bits */
    uint32_t slots[MN_IVF_LANES];
    const uint8_t *codes[MN_IVF_LANES];
    float add[MN_IVF_LANES], slope[MN_IVF_LANES], error[MN_IVF_LANES], span[MN_IVF_LANES];
};

static void fill_tile(struct tile *tile, const struct mn_ivf *ivf, uint32_t first, uint32_t selected)
{
    uint32_t width = ivf->codebook->width, lane = 0;
    tile->unknown = 0;
    for (; selected; selected &= selected - 1, lane++) {
        uint32_t slot = first + (uint32_t)__builtin_ctz(selected);
        const struct mn_ivf_fine *fine = &ivf->fine[slot];
        tile->unknown |= (uint32_t)!mn_bounds_known(ivf, slot) << lane;
        tile->slots[lane] = slot;
        tile->codes[lane] = ivf->codes8 + (size_t)slot * width;
        tile->add[lane] = fine->add;
        tile->slope[lane] = fine->slope;
        tile->error[lane] = fine->error;
        tile->span[lane] = fine->span;
    }
    tile->count = lane;
}

/* Rows that may be among the hits, as bits. All lanes are worked out: so the compiler takes several at a time. */
static uint32_t near_rows(const struct tile *tile, const struct mn_bounds_view *view, const struct mn_bounds_place *at,
                          const int32_t *dots, float limit)
{
    float low[MN_IVF_LANES];
    uint32_t near = tile->unknown;
    for (uint32_t i = 0; i < MN_IVF_LANES; i++) {
        struct mn_ivf_fine fine = {tile->add[i], tile->slope[i], tile->error[i], tile->span[i]};
        low[i] = mn_bounds_lowest(view, at, &fine, dots[i]);
    }
    for (uint32_t i = 0; i < MN_IVF_LANES; i++)
        near |= (uint32_t) !(low[i] > limit) << i;
    return near & (UINT32_MAX >> (MN_IVF_LANES - tile->count));
}

static void compare_rows(struct mn_batch *b, uint32_t i, const struct mn_bounds_source *s, const struct tile *tile,
                         uint32_t near)
{
    struct mn_recall *r = &b->recall[i];
    uint32_t rows[MN_IVF_LANES], count = 0, excluded = mn_recall_excluded_space(r, s->rows_of);
    for (; near; near &= near - 1) {
        uint32_t row = mn_ivf_row(s->ivf, tile->slots[__builtin_ctz(near)]);
        if (mn_bounds_may_return(r, s, excluded, row))
            rows[count++] = row;
    }
    mn_recall_compare(r, s->part, rows, count);
    b->limit[i] = mn_bounds_limit(r);
}

static void compare_tile(struct mn_batch *b, uint32_t v, const struct mn_bounds_source *s, const struct tile *tile,
                         uint32_t first, uint32_t end)
{
    const struct mn_bounds_view *views = b->views[v];
    const struct mn_kernels *kernels = views->probe.kernels;
    const int8_t *queries[TOGETHER];
    for (uint32_t i = first; i < end; i++)
        queries[i - first] = views[i].probe.codes;
    kernels->dots8(queries, end - first, tile->codes, tile->count, s->ivf->codebook->width, b->dots);
    for (uint32_t i = first; i < end; i++) {
        const int32_t *dots = b->dots + (size_t)(i - first) * tile->count;
        uint32_t near = near_rows(tile, &views[i], &b->places[i], dots, b->limit[i]);
        uint32_t far = tile->count - (uint32_t)__builtin_popcount(near);
        b->search[i].scanned += far;
        b->search[i].spared += far;
        if (near)
            compare_rows(b, i, s, tile, near);
    }
}

/* ---- the walk ---- */

/* A share of the codes of the 32 slots from `slot` on, into the second level's cache. */
static void ask_for_codes(const struct mn_ivf *ivf, uint32_t slot, uint32_t share, uint32_t shares)
{
    size_t width = ivf->codebook->width;
    uint32_t first = slot + MN_IVF_LANES * share / shares, end = slot + MN_IVF_LANES * (share + 1) / shares;
    if (end > ivf->rows)
        return;
    for (size_t at = first * width; at < end * width; at += MN_LINE)
        __builtin_prefetch(ivf->codes8 + at, 0, 2);
}

/* Slots of one cluster, or of a flat source; b->places say how the queries stand to them. */
static void walk_slots(struct mn_batch *b, uint32_t v, const struct mn_bounds_source *s, uint32_t first, uint32_t end)
{
    uint32_t shares = (b->count + TOGETHER - 1) / TOGETHER;
    struct tile tile = {0};
    for (uint32_t slot = first; slot < end; slot += MN_IVF_LANES) {
        uint32_t count = end - slot < MN_IVF_LANES ? end - slot : MN_IVF_LANES;
        fill_tile(&tile, s->ivf, slot, mn_bounds_selected(s, slot, count));
        for (uint32_t i = 0; tile.count > 0 && i < b->count; i += TOGETHER) {
            if (s->whole)
                ask_for_codes(s->ivf, slot + count, i / TOGETHER, shares);
            compare_tile(b, v, s, &tile, i, b->count - i < TOGETHER ? b->count : i + TOGETHER);
        }
    }
}

static void place_cluster(struct mn_batch *b, uint32_t v, uint32_t cluster)
{
    const struct mn_bounds_view *views = b->views[v];
    const struct mn_kernels *kernels = views->probe.kernels;
    const struct mn_codebook *codebook = views->probe.codebook;
    const float *centroid = codebook->centroids + (size_t)cluster * codebook->width, *queries[MN_BATCH_QUERIES];
    float sums[MN_BATCH_QUERIES];
    bool product = codebook->metric == MN_METRIC_IP;
    for (uint32_t i = 0; i < b->count; i++)
        queries[i] = views[i].probe.rotated;
    (product ? kernels->dots : kernels->l2s)(queries, b->count, &centroid, 1, codebook->width, sums);
    for (uint32_t i = 0; i < b->count; i++)
        b->places[i] =
            mn_bounds_place(&views[i], product ? views[i].probe.base - sums[i] : sums[i], codebook->norms[cluster]);
}

static void walk_cluster(struct mn_batch *b, uint32_t v, uint32_t cluster, uint32_t parts)
{
    bool placed = false;
    for (uint32_t p = 0; p < parts; p++) {
        const struct mn_bounds_source *s = &b->plan.sources[p];
        if (s->view != &b->plan.views[v] || mn_ivf_flat(s->ivf))
            continue;
        uint32_t first = s->ivf->first_slot[cluster], end = s->ivf->first_slot[cluster + 1];
        if (first < end && !placed)
            place_cluster(b, v, cluster);
        placed |= first < end;
        walk_slots(b, v, s, first, end);
    }
}

static void walk_flat(struct mn_batch *b, uint32_t v, const struct mn_bounds_source *s)
{
    for (uint32_t i = 0; i < b->count; i++)
        b->places[i] = mn_bounds_place(&b->views[v][i], b->views[v][i].probe.origin, 0);
    walk_slots(b, v, s, 0, s->ivf->rows);
}

static void walk_view(struct mn_batch *b, uint32_t v, uint32_t parts)
{
    for (uint32_t c = 0; c < b->plan.views[v].probe.codebook->clusters; c++)
        walk_cluster(b, v, c, parts);
    for (uint32_t p = 0; p < parts; p++)
        if (b->plan.sources[p].view == &b->plan.views[v] && mn_ivf_flat(b->plan.sources[p].ivf))
            walk_flat(b, v, &b->plan.sources[p]);
}

/* ---- the search ---- */

/* by_bounds false: every row that matches is compared. */
static void search_parts(struct mn_batch *b, bool by_bounds)
{
    const struct mn_snapshot *snapshot = b->recall->snapshot;
    for (uint32_t p = 0; p < snapshot->part_count; p++) {
        const struct mn_bounds_source *s = &b->plan.sources[p];
        mn_recall_scan_all(b->recall, b->count, p, by_bounds && s->view ? s->ivf->rows : 0, snapshot->parts[p].rows);
    }
    for (uint32_t i = 0; i < b->count; i++)
        b->limit[i] = mn_bounds_limit(&b->recall[i]);
    for (uint32_t v = 0; by_bounds && v < MN_BOUNDS_VIEWS && b->plan.views[v].probe.codebook; v++)
        walk_view(b, v, snapshot->part_count);
}

static enum mn_status search_together(struct mn_batch *b, uint64_t begin)
{
    bool by_bounds;
    MN_TRY(mn_matcher_begin(&b->search->matcher, &b->query->scope));
    MN_TRY(mn_bounds_plan(&b->plan, b->recall, &by_bounds));
    if (by_bounds)
        MN_TRY(begin_views(b, &by_bounds));
    for (uint32_t i = 0; by_bounds && i < b->count; i++)
        MN_TRY(seek(b, i));
    uint64_t sought = mn_clock_ns();
    search_parts(b, by_bounds);
    uint64_t end = mn_clock_ns();
    for (uint32_t i = 0; i < b->count; i++) {
        mn_recall_sort(&b->recall[i]);
        b->search[i].coarse_ns = (sought - begin) / b->count;
        b->search[i].scan_ns = (end - sought) / b->count;
    }
    return MN_OK;
}

/* Approximate searches are done together where they would be exact anyway. */
static uint32_t together(const struct mn_snapshot *snapshot, const struct mn_query *query, uint32_t count)
{
    bool exact = query->exact || query->target > MN_TUNE_APPROXIMATE_MAX || !mn_recall_has_codes(snapshot);
    uint32_t most = query->k > 0 ? MN_BATCH_HITS / query->k : 0;
    most = most < MN_BATCH_QUERIES ? most : MN_BATCH_QUERIES;
    return !exact || most < 1 ? 1 : count < most ? count : most;
}

enum mn_status mn_recall_batch(struct mn_batch *b, const struct mn_snapshot *snapshot, const struct mn_query *query,
                               const float *embeddings, size_t stride, uint32_t count, uint32_t *done)
{
    uint64_t begin = mn_clock_ns();
    *done = b->count = together(snapshot, query, count);
    for (uint32_t i = 0; i < b->count; i++) {
        b->query[i] = *query;
        b->query[i].embedding = embeddings + i * stride;
        b->recall[i] = (struct mn_recall){.search = &b->search[i], .snapshot = snapshot, .query = &b->query[i]};
        if (b->count > 1)
            MN_TRY(mn_recall_begin(&b->recall[i]));
    }
    return b->count > 1 ? search_together(b, begin) : mn_recall_search(b->search, snapshot, b->query);
}
