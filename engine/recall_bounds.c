/*
 * recall_bounds.c - the exact search over parts that have codes: most embeddings need not be read.
 *
 * The 8-bit codes of a row say how near it can be at best; that is proved, not likely (see mn_bounds_slack). A row that
 * cannot even tie with the k-th best so far is passed over, every other is compared by its embedding, as in
 * recall_exact.c: the answer is that of comparing all, to the last bit. Codes are a quarter of the bytes, and lie
 * cluster by cluster: the nearest clusters come first, so that the k-th best is good early.
 *
 * Whether a row is visible and matches is asked of those alone that codes let through. Which parts are gone through by
 * codes is said in recall_bounds_plan.c.
 */
#include <stdlib.h>

#include "engine/recall_bounds_inside.h"

#define WAITING 256u /* rows that wait to be compared */
#define BATCH   8u   /* rows compared before the k-th best is looked at again */
#define AHEAD   8u   /* rows whose codes are asked for before they are needed */

struct waiting {
    float low;
    uint32_t row;
};

struct mn_recall_bounds {
    struct mn_bounds_plan plan;
    struct mn_bounds_place *places;
    uint32_t place_max;
    struct waiting waiting[WAITING];
    uint32_t waiting_count;
    /* The current search's. */
    struct mn_recall *recall;
    float limit; /* what lies farther cannot enter, nor tie */
};

void mn_recall_bounds_free(struct mn_recall_bounds *b)
{
    if (!b)
        return;
    mn_bounds_plan_free(&b->plan);
    free(b->places);
    free(b);
}

/* ---- bounds ---- */

/* The distance above which a row's score is below `score`, for certain. Under cosine, with lengths 1 but for the
 * rounding of both scales, distance = 2 - 2 similarity to within 2^-21; the kernels' sums are off by `rounding`. */
static double distance_of(const struct mn_search *search, double score)
{
    double rounding = (double)mn_kernel_rounding(search->dim);
    switch (search->metric) {
    case MN_METRIC_COSINE:
        return 2 - 2 * score + 2 * rounding + 0x1p-20;
    case MN_METRIC_L2:
        return -score + 2 * rounding * fabs(score) + search->dim * 0x1p-140;
    default:
        return -score;
    }
}

/* Scores have a floor at which rows tie that are not alike: -1 under cosine, 0 under rank. */
static double floor_of(const struct mn_recall *r)
{
    if (r->query->rank.on)
        return 0;
    return r->search->metric == MN_METRIC_COSINE ? -1 : -HUGE_VAL;
}

float mn_bounds_limit(const struct mn_recall *r)
{
    const struct mn_search *search = r->search;
    double worst = -HUGE_VAL;
    if (r->query->has_min_score)
        worst = r->query->min_score;
    if (search->hit_count == r->query->k)
        worst = fmax(worst, search->hits[0].score);
    if (!(worst > floor_of(r)))
        return INFINITY;
    return nextafterf((float)distance_of(search, worst), INFINITY);
}

/* No row of that slot is nearer; -INFINITY when its codes cannot tell. */
static inline float lowest(const struct mn_bounds_source *s, const struct mn_bounds_place *at, uint32_t slot)
{
    const struct mn_probe *probe = &s->view->probe;
    const struct mn_ivf *ivf = s->ivf;
    uint32_t width = ivf->codebook->width;
    if (!mn_bounds_known(ivf, slot))
        return -INFINITY;
    int32_t dot = probe->kernels->dot8(ivf->codes8 + (size_t)slot * width, probe->codes, width);
    float low = mn_bounds_lowest(s->view, at, &ivf->fine[slot], dot);
    return isnan(low) ? -INFINITY : low;
}

/* ---- comparing what codes let through ---- */

static int compare_waiting(const void *a, const void *b)
{
    const struct waiting *x = a, *y = b;
    if (x->low != y->low)
        return x->low < y->low ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* Into place among `count` rows that rise: so they are asked for where they lie on a disk. */
static void put_rising(uint32_t *rows, uint32_t count, uint32_t row)
{
    for (; count > 0 && rows[count - 1] > row; count--)
        rows[count] = rows[count - 1];
    rows[count] = row;
}

/* The nearest first: what they make of the k-th best spares the others. */
static void compare_all(struct mn_recall_bounds *b, const struct mn_bounds_source *s)
{
    struct mn_recall *r = b->recall;
    uint32_t rows[BATCH], count = 0, excluded = mn_recall_excluded_space(r, s->rows_of), i = 0;
    qsort(b->waiting, b->waiting_count, sizeof *b->waiting, compare_waiting);
    for (; i < b->waiting_count && !(b->waiting[i].low > b->limit); i++) {
        if (!mn_bounds_may_return(r, s, excluded, b->waiting[i].row))
            continue;
        put_rising(rows, count++, b->waiting[i].row);
        if (count == BATCH) {
            mn_recall_compare(r, s->part, rows, count);
            b->limit = mn_bounds_limit(r);
            count = 0;
        }
    }
    mn_recall_compare(r, s->part, rows, count);
    b->limit = mn_bounds_limit(r);
    r->search->scanned += b->waiting_count - i;
    r->search->spared += b->waiting_count - i;
    b->waiting_count = 0;
}

static void wait_for(struct mn_recall_bounds *b, const struct mn_bounds_source *s, float low, uint32_t row)
{
    b->waiting[b->waiting_count++] = (struct waiting){low, row};
    if (b->waiting_count == WAITING)
        compare_all(b, s);
}

/* ---- walking clusters ---- */

/* Into the second level's cache: the first has too few places for what is on its way. */
static inline void ask_for_codes(const struct mn_ivf *ivf, uint32_t slot)
{
    uint32_t width = ivf->codebook->width;
    const uint8_t *codes = ivf->codes8 + (size_t)slot * width;
    for (uint32_t i = 0; i < width; i += MN_LINE)
        __builtin_prefetch(codes + i, 0, 2);
}

/* A cluster of a source, slot by slot, and where the walk goes on after it. */
struct walk {
    const struct mn_bounds_source *source;
    const struct mn_bounds_place *at;
    uint32_t first, end, next, next_end;
};

/* What comes AHEAD slots behind. */
static inline void ask_ahead(const struct walk *walk, uint32_t slot)
{
    slot += AHEAD;
    if (slot >= walk->end)
        slot = slot - walk->end < walk->next_end - walk->next ? walk->next + (slot - walk->end) : MN_NONE;
    if (slot != MN_NONE)
        ask_for_codes(walk->source->ivf, slot);
}

/* Up to 32 slots. Of some rows among many, codes are asked for as soon as it is known of which. */
static void walk_slots(struct mn_recall_bounds *b, const struct walk *walk, uint32_t first)
{
    const struct mn_bounds_source *s = walk->source;
    struct mn_search *search = b->recall->search;
    uint32_t count = walk->end - first < MN_IVF_LANES ? walk->end - first : MN_IVF_LANES;
    uint32_t selected = mn_bounds_selected(s, first, count);
    for (uint32_t left = s->whole ? 0 : selected; left; left &= left - 1)
        ask_for_codes(s->ivf, first + (uint32_t)__builtin_ctz(left));
    for (uint32_t left = selected; left; left &= left - 1) {
        uint32_t slot = first + (uint32_t)__builtin_ctz(left);
        if (s->whole)
            ask_ahead(walk, slot);
        float low = lowest(s, walk->at, slot);
        if (low > b->limit) {
            search->scanned++;
            search->spared++;
        } else {
            wait_for(b, s, low, mn_ivf_row(s->ivf, slot));
        }
    }
}

/* next: the cluster behind it, or NULL. */
static void walk_cluster(struct mn_recall_bounds *b, const struct mn_bounds_source *s, const struct mn_bounds_place *at,
                         const struct mn_bounds_place *next)
{
    const struct mn_ivf *ivf = s->ivf;
    struct walk walk = {s, at, ivf->first_slot[at->cluster], ivf->first_slot[at->cluster + 1], 0, 0};
    if (next) {
        walk.next = ivf->first_slot[next->cluster];
        walk.next_end = ivf->first_slot[next->cluster + 1];
    }
    if (s->whole) {
        mn_ivf_ahead(ivf, walk.first, walk.end - walk.first);
        mn_ivf_ahead(ivf, walk.next, walk.next_end - walk.next);
    }
    for (uint32_t slot = walk.first; slot < walk.end; slot += MN_IVF_LANES)
        walk_slots(b, &walk, slot);
    compare_all(b, s);
}

struct mn_bounds_place mn_bounds_place(const struct mn_bounds_view *view, float gap, float norm2)
{
    float up = 1 + 2 * mn_kernel_rounding(view->probe.codebook->width);
    struct mn_bounds_place place = {.gap = gap};
    place.reach = mn_probe_reach(&view->probe, gap) * up;
    place.size = (view->probe.norm + sqrtf(norm2) + view->beyond) * up;
    return place;
}

/* Gaps come from the centroids as they are: those of mn_probe_gap are estimates. */
static float gap_of(const struct mn_bounds_view *view, const float *centroid)
{
    const struct mn_probe *probe = &view->probe;
    uint32_t width = probe->codebook->width;
    if (probe->codebook->metric == MN_METRIC_IP)
        return probe->base - probe->kernels->dot(probe->rotated, centroid, width);
    return probe->kernels->l2(probe->rotated, centroid, width);
}

static int compare_places(const void *a, const void *b)
{
    const struct mn_bounds_place *x = a, *y = b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return (x->cluster > y->cluster) - (x->cluster < y->cluster);
}

static void sort_clusters(struct mn_recall_bounds *b, const struct mn_bounds_view *view)
{
    const struct mn_codebook *codebook = view->probe.codebook;
    for (uint32_t c = 0; c < codebook->clusters; c++) {
        struct mn_bounds_place *place = &b->places[c];
        *place =
            mn_bounds_place(view, gap_of(view, codebook->centroids + (size_t)c * codebook->width), codebook->norms[c]);
        place->cluster = c;
        /* A wide cluster reaches nearer than its centroid says. NaN has no order. */
        place->order = place->gap + (codebook->metric == MN_METRIC_IP ? 0 : 0.5f * codebook->energies[c]);
        place->order = isnan(place->order) ? INFINITY : place->order;
    }
    qsort(b->places, codebook->clusters, sizeof *b->places, compare_places);
}

static void walk_clusters(struct mn_recall_bounds *b, const struct mn_bounds_view *view, uint32_t parts)
{
    uint32_t clustered = 0;
    for (uint32_t i = 0; i < parts; i++)
        clustered += b->plan.sources[i].view == view && !mn_ivf_flat(b->plan.sources[i].ivf);
    if (clustered == 0)
        return;
    sort_clusters(b, view);
    uint32_t clusters = view->probe.codebook->clusters;
    for (uint32_t c = 0; c < clusters; c++)
        for (uint32_t i = 0; i < parts; i++)
            if (b->plan.sources[i].view == view && !mn_ivf_flat(b->plan.sources[i].ivf))
                walk_cluster(b, &b->plan.sources[i], &b->places[c], c + 1 < clusters ? &b->places[c + 1] : NULL);
}

static void walk_flat(struct mn_recall_bounds *b, const struct mn_bounds_source *s)
{
    struct mn_bounds_place origin = mn_bounds_place(s->view, s->view->probe.origin, 0);
    walk_cluster(b, s, &origin, NULL);
}

/* ---- the search ---- */

static enum mn_status reserve_places(struct mn_recall_bounds *b, uint32_t clusters)
{
    if (clusters <= b->place_max)
        return MN_OK;
    struct mn_bounds_place *places = realloc(b->places, clusters * sizeof *places);
    if (!places)
        return MN_FAIL(MN_INTERNAL, "out of memory for %u clusters", clusters);
    b->places = places;
    b->place_max = clusters;
    return MN_OK;
}

static enum mn_status open_scratch(struct mn_search *search)
{
    if (!search->bounds)
        search->bounds = calloc(1, sizeof *search->bounds);
    return search->bounds ? MN_OK : MN_FAIL(MN_INTERNAL, "out of memory for a search");
}

static void search_all(struct mn_recall_bounds *b)
{
    struct mn_recall *r = b->recall;
    uint32_t parts = r->snapshot->part_count;
    for (uint32_t i = 0; i < parts; i++)
        mn_recall_scan(r, i, b->plan.sources[i].view ? b->plan.sources[i].ivf->rows : 0, r->snapshot->parts[i].rows);
    b->limit = mn_bounds_limit(r);
    b->waiting_count = 0;
    for (uint32_t i = 0; i < MN_BOUNDS_VIEWS && b->plan.views[i].probe.codebook; i++)
        walk_clusters(b, &b->plan.views[i], parts);
    for (uint32_t i = 0; i < parts; i++)
        if (b->plan.sources[i].view && mn_ivf_flat(b->plan.sources[i].ivf))
            walk_flat(b, &b->plan.sources[i]);
}

enum mn_status mn_recall_by_bounds(struct mn_recall *r, bool *done)
{
    bool fits = true;
    MN_TRY(open_scratch(r->search));
    struct mn_recall_bounds *b = r->search->bounds;
    b->recall = r;
    MN_TRY(mn_bounds_plan(&b->plan, r, done));
    if (!*done)
        return MN_OK;
    for (uint32_t i = 0; i < MN_BOUNDS_VIEWS && b->plan.views[i].probe.codebook; i++) {
        MN_TRY(reserve_places(b, b->plan.views[i].probe.codebook->clusters));
        MN_TRY(mn_bounds_begin_view(&b->plan.views[i], r, &fits));
    }
    *done = fits;
    if (fits)
        search_all(b);
    return MN_OK;
}
