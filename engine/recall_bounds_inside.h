/*
 * recall_bounds_inside.h - what the files of the exact searches that spare embeddings share, and nobody else sees:
 *
 *   recall_bounds.c       what codes prove of a row, and one query's search
 *   recall_bounds_plan.c  which parts, and which rows of them, are gone through by codes
 *   recall_batch.c        the search of several queries at once
 */
#ifndef MN_ENGINE_RECALL_BOUNDS_INSIDE_H
#define MN_ENGINE_RECALL_BOUNDS_INSIDE_H

#include <math.h>

#include "engine/probe.h"
#include "engine/recall_inside.h"
#include "engine/selection.h"

#define MN_BOUNDS_VIEWS      4     /* codebooks that one search goes through; parts on others are scanned row by row */
#define MN_BOUNDS_LENGTH_MAX 1e18f /* what is longer is compared: no sum of squares overflows below it */

/* A query before one codebook. */
struct mn_bounds_view {
    struct mn_probe probe;
    float turned; /* see mn_bounds_slack */
    float beyond; /* length of what a centroid's distance has in it beside the query: |mean| under inner product */
};

/* A cluster as a query stands to it. */
struct mn_bounds_place {
    float order; /* clusters come in the rising order of this, then of their numbers */
    float gap, reach, size;
    uint32_t cluster;
};

struct mn_bounds_source {
    uint32_t part;
    const struct mn_part *rows_of;
    const struct mn_ivf *ivf;
    struct mn_bounds_view *view; /* of the plan; NULL: scanned row by row */
    struct mn_selection selection;
    bool whole; /* every row matches */
    /* Kept from search to search. */
    struct mn_matcher matcher;
    struct mn_selector selector;
};

/* What a search goes through; it speaks of the scope, not of the query. Begins as zeros; kept from search to search. */
struct mn_bounds_plan {
    struct mn_bounds_source *sources; /* [source_max]: one for each part of the snapshot */
    uint32_t source_max;
    struct mn_bounds_view views[MN_BOUNDS_VIEWS]; /* those in use come first; of others probe.codebook is NULL */
};

/* ---- recall_bounds_plan.c ---- */

/* Every part becomes a source. *worth: whether codes are worth to be read for k hits; search->matcher has begun. */
enum mn_status mn_bounds_plan(struct mn_bounds_plan *plan, const struct mn_recall *r, bool *worth) MN_MUST_USE;
void mn_bounds_plan_free(struct mn_bounds_plan *plan);
/* Brings the query of `r` before the codebook of a view. *fits: set to false when it is too long for sums of its
 * squares. */
enum mn_status mn_bounds_begin_view(struct mn_bounds_view *view, const struct mn_recall *r, bool *fits) MN_MUST_USE;
/* Of up to 32 slots those whose rows are selected. */
uint32_t mn_bounds_selected(const struct mn_bounds_source *s, uint32_t first, uint32_t count);
/* Whether a row of a selected slot is one that the search may return. */
static inline bool mn_bounds_may_return(const struct mn_recall *r, const struct mn_bounds_source *s, uint32_t excluded,
                                        uint32_t row)
{
    return mn_part_visible(s->rows_of, row, r->snapshot->seq, r->snapshot->now) &&
           (s->selection.kind != MN_SELECTION_TEST || mn_matcher_row(&s->matcher, row)) &&
           !mn_recall_excluded(r, s->rows_of, row, excluded);
}

/* ---- recall_bounds.c ---- */

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
 *     and |scale * x|, |scale * q| being 1 under cosine, both together are off by turned (all + 1) at most, and a
 *     squared distance, or a product, by 2 turned all (all + 1).
 *
 * All of that is taken twice: `all` itself is a sum of rounded floats. It is a hundredth of doubt8 in most rows. What
 * underflows is below the absolute part of doubt8.
 */
static inline float mn_bounds_slack(const struct mn_bounds_view *view, float all)
{
    return 2 * (mn_kernel_rounding(view->probe.codebook->width) + 2 * view->turned) * all * (all + 1);
}

/* What lies farther cannot enter the hits of `r`, nor tie with them. */
float mn_bounds_limit(const struct mn_recall *r);
/* The place of a cluster. gap: of engine/ivf.h, from the centroid as it is; norm2: |centroid|^2. reach and size are
 * rounded up. */
struct mn_bounds_place mn_bounds_place(const struct mn_bounds_view *view, float gap, float norm2);
/* Whether the codes of a slot tell anything of its row. One that could not be read when it was coded stands far away.
 */
static inline bool mn_bounds_known(const struct mn_ivf *ivf, uint32_t slot)
{
    return ivf->fine[slot].add < MN_IVF_FAR && mn_ivf_intact(ivf, slot);
}
/* No row is nearer than that, if its codes can be used: `fine` is the row's; dot: kernels->dot8 of its codes and the
 * query's. -INFINITY or NaN where they cannot tell. */
static inline float mn_bounds_lowest(const struct mn_bounds_view *view, const struct mn_bounds_place *at,
                                     const struct mn_ivf_fine *fine, int32_t dot)
{
    const struct mn_fine_query *query = &view->probe.fine;
    float all = fine->span + at->size;
    float doubt = mn_ivf_doubt8(fine, query, view->probe.codebook->metric, at->reach, at->size);
    float low = mn_ivf_estimate8(fine, query, dot, at->gap) - doubt - mn_bounds_slack(view, all);
    return all < MN_BOUNDS_LENGTH_MAX ? low : -INFINITY;
}

#endif
