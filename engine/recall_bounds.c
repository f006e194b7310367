/*
 * recall_bounds.c - the exact search over parts that have codes: most embeddings need not be read.
 *
 * The 8-bit codes of a row say how near it can be at best; that is proved, not likely (see `slack`). A row that cannot
 * even tie with the k-th best so far is passed over, every other is compared by its embedding, as in recall_exact.c:
 * the answer is that of comparing all, to the last bit. Codes are a quarter of the bytes, and lie cluster by cluster:
 * the nearest clusters come first, so that the k-th best is good early.
 *
 * Whether a row is visible and matches is asked of those alone that codes let through. What has no codes, and parts of
 * which a filter leaves few rows, are scanned row by row.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/probe.h"
#include "engine/recall_inside.h"
#include "engine/selection.h"

#define VIEWS      4     /* codebooks that one search goes through; parts on others are scanned row by row */
#define ROWS_MIN   512u  /* fewer rows are compared in the time that clusters take to be put in order */
#define SELECTIVE  16u   /* of a part with one row in so many selected, or fewer, codes are not worth reading */
#define PER_HIT    8u    /* so many rows for each hit wanted, or more: else most are compared anyway */
#define WAITING    256u  /* rows that wait to be compared */
#define BATCH      8u    /* rows compared before the k-th best is looked at again */
#define AHEAD      8u    /* rows whose codes are asked for before they are needed */
#define LENGTH_MAX 1e18f /* what is longer is compared: no sum of squares overflows below it */
#define QUERY_MAX  1e15f
#define SCALE_MAX  0x1p100f /* rows of a larger scale are so short that products with the query underflow */

/* The query before one codebook. */
struct view {
    struct mn_probe probe;
    float turned; /* see slack */
    float beyond; /* length of what a centroid's distance has in it beside the query: |mean| under inner product */
};

/* A cluster as the query stands to it. */
struct place {
    float order; /* clusters come in the rising order of this, then of their numbers */
    float gap, reach, size;
    uint32_t cluster;
};

struct source {
    uint32_t part;
    const struct mn_part *rows_of;
    const struct mn_ivf *ivf;
    struct view *view; /* NULL: scanned row by row */
    struct mn_selection selection;
    bool whole; /* every row matches */
    /* Kept from search to search. */
    struct mn_matcher matcher;
    struct mn_selector selector;
};

struct waiting {
    float low;
    uint32_t row;
};

struct mn_recall_bounds {
    struct source *sources; /* [source_max]: one for each part of the snapshot */
    uint32_t source_max;
    struct view views[VIEWS];
    struct place *places;
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
    for (uint32_t i = 0; i < b->source_max; i++) {
        mn_matcher_free(&b->sources[i].matcher);
        mn_selector_free(&b->sources[i].selector);
    }
    for (uint32_t i = 0; i < VIEWS; i++)
        mn_probe_free(&b->views[i].probe);
    free(b->sources);
    free(b->places);
    free(b);
}

/* ---- bounds ---- */

/*
 * The distance of engine/ivf.h between a row and the query, as they are before the rotation, is at least estimate8 -
 * doubt8 - slack. With x', q' the rotated floats, c the centroid, all >= |x' - c| + |c| + |q'| (under inner product +
 * |mean|), and u = 2^-24:
 *
 *   doubt8 holds for x' and q', and has in it rounding(width) all^2 for the sums of the estimate, that of the gap
 *     included. The same once more covers <mean, q>, the dot product that the score is made of (inner product; both are
 *     off by a share of a product of lengths in `all`), and the handful of roundings of estimate, doubt and their
 *     difference, which are u each.
 *   x' is off from the rotated scale * x - mean by u |scale * x| (under cosine; else scale is 1), u |scale * x - mean|
 *     and, by the rotation, 4 (log2 width + 3) u of that length; so is q'. With turned = (4 (log2 width + 3) + 2) u,
 * and |scale * x|, |scale * q| being 1 under cosine, both together are off by turned (all + 1) at most, and a squared
 *     distance, or a product, by 2 turned all (all + 1).
 *
 * All of that is taken twice: `all` itself is a sum of rounded floats. It is a hundredth of doubt8 in most rows. What
 * underflows is below the absolute part of doubt8.
 */
static inline float slack(const struct view *view, float all)
{
    return 2 * (mn_kernel_rounding(view->probe.codebook->width) + 2 * view->turned) * all * (all + 1);
}

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

static float limit_of(const struct mn_recall *r)
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
static inline float lowest(const struct source *s, const struct place *at, uint32_t slot)
{
    const struct mn_probe *probe = &s->view->probe;
    const struct mn_ivf *ivf = s->ivf;
    const struct mn_ivf_fine *fine = &ivf->fine[slot];
    uint32_t width = ivf->codebook->width;
    float all = fine->span + at->size;
    /* A row that could not be read when it was coded stands as far away. */
    if (!(all < LENGTH_MAX) || !(fine->add < MN_IVF_FAR) || !mn_ivf_intact(ivf, slot))
        return -INFINITY;
    int32_t dot = probe->kernels->dot8(ivf->codes8 + (size_t)slot * width, probe->codes, width);
    float doubt = mn_ivf_doubt8(fine, &probe->fine, ivf->codebook->metric, at->reach, at->size);
    float low = mn_ivf_estimate8(fine, &probe->fine, dot, at->gap) - doubt - slack(s->view, all);
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

static bool may_return(const struct mn_recall *r, const struct source *s, uint32_t excluded, uint32_t row)
{
    return mn_part_visible(s->rows_of, row, r->snapshot->seq, r->snapshot->now) &&
           (s->selection.kind != MN_SELECTION_TEST || mn_matcher_row(&s->matcher, row)) &&
           !mn_recall_excluded(r, s->rows_of, row, excluded);
}

/* Into place among `count` rows that rise: so they are asked for where they lie on a disk. */
static void put_rising(uint32_t *rows, uint32_t count, uint32_t row)
{
    for (; count > 0 && rows[count - 1] > row; count--)
        rows[count] = rows[count - 1];
    rows[count] = row;
}

/* The nearest first: what they make of the k-th best spares the others. */
static void compare_all(struct mn_recall_bounds *b, const struct source *s)
{
    struct mn_recall *r = b->recall;
    uint32_t rows[BATCH], count = 0, excluded = mn_recall_excluded_space(r, s->rows_of), i = 0;
    qsort(b->waiting, b->waiting_count, sizeof *b->waiting, compare_waiting);
    for (; i < b->waiting_count && !(b->waiting[i].low > b->limit); i++) {
        if (!may_return(r, s, excluded, b->waiting[i].row))
            continue;
        put_rising(rows, count++, b->waiting[i].row);
        if (count == BATCH) {
            mn_recall_compare(r, s->part, rows, count);
            b->limit = limit_of(r);
            count = 0;
        }
    }
    mn_recall_compare(r, s->part, rows, count);
    b->limit = limit_of(r);
    r->search->scanned += b->waiting_count - i;
    r->search->spared += b->waiting_count - i;
    b->waiting_count = 0;
}

static void wait_for(struct mn_recall_bounds *b, const struct source *s, float low, uint32_t row)
{
    b->waiting[b->waiting_count++] = (struct waiting){low, row};
    if (b->waiting_count == WAITING)
        compare_all(b, s);
}

/* ---- walking clusters ---- */

/* Of up to 32 slots those whose rows are selected. */
static uint32_t selected_slots(const struct source *s, uint32_t first, uint32_t count)
{
    uint32_t selected = 0;
    if (s->whole)
        return UINT32_MAX >> (MN_IVF_LANES - count);
    for (uint32_t i = 0; i < count; i++)
        selected |= (uint32_t)mn_selection_holds(&s->selection, mn_ivf_row(s->ivf, first + i)) << i;
    return selected;
}

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
    const struct source *source;
    const struct place *at;
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
    const struct source *s = walk->source;
    struct mn_search *search = b->recall->search;
    uint32_t count = walk->end - first < MN_IVF_LANES ? walk->end - first : MN_IVF_LANES;
    uint32_t selected = selected_slots(s, first, count);
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
static void walk_cluster(struct mn_recall_bounds *b, const struct source *s, const struct place *at,
                         const struct place *next)
{
    const struct mn_ivf *ivf = s->ivf;
    struct walk walk = {s, at, ivf->first_slot[at->cluster], ivf->first_slot[at->cluster + 1], 0, 0};
    if (next) {
        walk.next = ivf->first_slot[next->cluster];
        walk.next_end = ivf->first_slot[next->cluster + 1];
    }
    for (uint32_t slot = walk.first; slot < walk.end; slot += MN_IVF_LANES)
        walk_slots(b, &walk, slot);
    compare_all(b, s);
}

/* Gaps come from the centroids as they are: those of mn_probe_gap are estimates. reach and size are rounded up. */
static struct place place_of(const struct view *view, const float *centroid, float norm2)
{
    const struct mn_probe *probe = &view->probe;
    uint32_t width = probe->codebook->width;
    float up = 1 + 2 * mn_kernel_rounding(width);
    struct place place = {.gap = probe->origin};
    if (centroid && probe->codebook->metric == MN_METRIC_IP)
        place.gap = probe->base - probe->kernels->dot(probe->rotated, centroid, width);
    else if (centroid)
        place.gap = probe->kernels->l2(probe->rotated, centroid, width);
    place.reach = mn_probe_reach(probe, place.gap) * up;
    place.size = (probe->norm + sqrtf(norm2) + view->beyond) * up;
    return place;
}

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return (x->cluster > y->cluster) - (x->cluster < y->cluster);
}

static void sort_clusters(struct mn_recall_bounds *b, const struct view *view)
{
    const struct mn_codebook *codebook = view->probe.codebook;
    for (uint32_t c = 0; c < codebook->clusters; c++) {
        struct place *place = &b->places[c];
        *place = place_of(view, codebook->centroids + (size_t)c * codebook->width, codebook->norms[c]);
        place->cluster = c;
        /* A wide cluster reaches nearer than its centroid says. NaN has no order. */
        place->order = place->gap + (codebook->metric == MN_METRIC_IP ? 0 : 0.5f * codebook->energies[c]);
        place->order = isnan(place->order) ? INFINITY : place->order;
    }
    qsort(b->places, codebook->clusters, sizeof *b->places, compare_places);
}

static void walk_clusters(struct mn_recall_bounds *b, const struct view *view, uint32_t parts)
{
    uint32_t clustered = 0;
    for (uint32_t i = 0; i < parts; i++)
        clustered += b->sources[i].view == view && !mn_ivf_flat(b->sources[i].ivf);
    if (clustered == 0)
        return;
    sort_clusters(b, view);
    uint32_t clusters = view->probe.codebook->clusters;
    for (uint32_t c = 0; c < clusters; c++)
        for (uint32_t i = 0; i < parts; i++)
            if (b->sources[i].view == view && !mn_ivf_flat(b->sources[i].ivf))
                walk_cluster(b, &b->sources[i], &b->places[c], c + 1 < clusters ? &b->places[c + 1] : NULL);
}

static void walk_flat(struct mn_recall_bounds *b, const struct source *s)
{
    struct place origin = place_of(s->view, NULL, 0);
    walk_cluster(b, s, &origin, NULL);
}

/* ---- the plan ---- */

static struct view *view_for(struct mn_recall_bounds *b, const struct mn_codebook *codebook)
{
    for (uint32_t i = 0; i < VIEWS; i++) {
        if (!b->views[i].probe.codebook || b->views[i].probe.codebook == codebook) {
            b->views[i].probe.codebook = codebook;
            return &b->views[i];
        }
    }
    return NULL;
}

/* Rows below the first `rows` that a search may return; fewer than it is worth to read codes for: 0. */
static enum mn_status select_rows(const struct mn_recall *r, struct source *s, uint32_t rows, uint32_t *selected)
{
    *selected = rows;
    s->whole = mn_matcher_open(&r->search->matcher);
    s->selection = (struct mn_selection){.kind = MN_SELECTION_ALL, .end = rows, .count = rows};
    if (s->whole)
        return MN_OK;
    *selected = 0;
    MN_TRY(mn_matcher_begin(&s->matcher, &r->query->scope));
    if (!mn_matcher_part(&s->matcher, s->rows_of, 0, rows))
        return MN_OK;
    MN_TRY(mn_selector_select(&s->selector, &s->matcher, &s->selection));
    if (s->selection.kind != MN_SELECTION_NONE && s->selection.kind != MN_SELECTION_LIST &&
        s->selection.count > rows / SELECTIVE)
        *selected = s->selection.count;
    return MN_OK;
}

/* Under cosine: a row so short that the sum of its products with the query is off by more than a share of its length.
 * (The writer refuses rows that are too long.) */
static bool has_short_row(const struct mn_part *p, uint32_t rows)
{
    bool found = !p->tail && p->scale_max > SCALE_MAX;
    for (uint32_t i = 0; p->tail && i < rows; i++)
        found |= mn_part_scale(p, i) > SCALE_MAX;
    return found;
}

/* Codes are bytes, one for each coordinate of the rotated space: of short embeddings they are no less to read. */
static bool worth_it(const struct mn_part *p)
{
    return p->ivf && p->ivf->rows > 0 && 4 * p->dim > 2 * p->ivf->codebook->width &&
           !(p->ivf->codebook->metric == MN_METRIC_COSINE && has_short_row(p, p->ivf->rows));
}

/* Every part becomes a source. *rows: selected in those with a view. */
static enum mn_status find_sources(struct mn_recall_bounds *b, uint64_t *rows)
{
    const struct mn_snapshot *snapshot = b->recall->snapshot;
    *rows = 0;
    for (uint32_t i = 0; i < VIEWS; i++)
        b->views[i].probe.codebook = NULL;
    for (uint32_t i = 0; i < snapshot->part_count; i++) {
        struct source *s = &b->sources[i];
        uint32_t selected = 0;
        s->part = i;
        s->rows_of = &snapshot->parts[i];
        s->ivf = s->rows_of->ivf;
        s->view = NULL;
        if (worth_it(s->rows_of))
            MN_TRY(select_rows(b->recall, s, s->ivf->rows, &selected));
        if (selected > 0)
            s->view = view_for(b, s->ivf->codebook);
        *rows += s->view ? selected : 0;
    }
    return MN_OK;
}

static uint32_t log2_of(uint32_t width)
{
    return 31 - (uint32_t)__builtin_clz(width);
}

/* *fits: false when the query is too long for sums of its squares. */
static enum mn_status begin_view(struct mn_recall_bounds *b, struct view *view, bool *fits)
{
    const struct mn_recall *r = b->recall;
    const struct mn_search *search = r->search;
    const struct mn_codebook *codebook = view->probe.codebook;
    if (codebook->clusters > b->place_max) {
        struct place *places = realloc(b->places, codebook->clusters * sizeof *places);
        if (!places)
            return MN_FAIL(MN_INTERNAL, "out of memory for %u clusters", codebook->clusters);
        b->places = places;
        b->place_max = codebook->clusters;
    }
    MN_TRY(mn_probe_reserve(&view->probe, codebook));
    mn_probe_begin(&view->probe, search->kernels, search->embedding, (float)r->query_scale);
    view->turned = (float)(4 * (log2_of(codebook->width) + 3) + 2) * 0x1p-24f;
    view->beyond = 0;
    if (codebook->metric == MN_METRIC_IP)
        view->beyond = sqrtf(search->kernels->dot(codebook->mean, codebook->mean, codebook->dim));
    *fits = *fits && view->probe.norm < QUERY_MAX;
    return MN_OK;
}

static enum mn_status open_scratch(struct mn_search *search, uint32_t parts)
{
    struct mn_recall_bounds *b = search->bounds;
    if (!b && !(b = search->bounds = calloc(1, sizeof *b)))
        return MN_FAIL(MN_INTERNAL, "out of memory for a search");
    if (parts <= b->source_max)
        return MN_OK;
    struct source *sources = realloc(b->sources, parts * sizeof *sources);
    if (!sources)
        return MN_FAIL(MN_INTERNAL, "out of memory for a search of %u parts", parts);
    memset(sources + b->source_max, 0, (parts - b->source_max) * sizeof *sources);
    b->sources = sources;
    b->source_max = parts;
    return MN_OK;
}

/* ---- the search ---- */

static void search_all(struct mn_recall_bounds *b)
{
    struct mn_recall *r = b->recall;
    uint32_t parts = r->snapshot->part_count;
    for (uint32_t i = 0; i < parts; i++)
        mn_recall_scan(r, i, b->sources[i].view ? b->sources[i].ivf->rows : 0, r->snapshot->parts[i].rows);
    b->limit = limit_of(r);
    b->waiting_count = 0;
    for (uint32_t i = 0; i < VIEWS && b->views[i].probe.codebook; i++)
        walk_clusters(b, &b->views[i], parts);
    for (uint32_t i = 0; i < parts; i++)
        if (b->sources[i].view && mn_ivf_flat(b->sources[i].ivf))
            walk_flat(b, &b->sources[i]);
}

enum mn_status mn_recall_by_bounds(struct mn_recall *r, bool *done)
{
    uint64_t rows;
    bool fits = true;
    *done = false;
    MN_TRY(open_scratch(r->search, r->snapshot->part_count));
    struct mn_recall_bounds *b = r->search->bounds;
    b->recall = r;
    MN_TRY(find_sources(b, &rows));
    if (rows < ROWS_MIN || rows / PER_HIT < r->query->k)
        return MN_OK;
    for (uint32_t i = 0; i < VIEWS && b->views[i].probe.codebook; i++)
        MN_TRY(begin_view(b, &b->views[i], &fits));
    *done = fits;
    if (fits)
        search_all(b);
    return MN_OK;
}
