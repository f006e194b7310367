/*
 * probe.h - a query before one codebook: in the forms that codes are compared with, and which clusters to look into,
 * in which order, and when to stop.
 *
 * Clusters are taken in the order of |q - c|^2 + energy / 2 (energy: mean |x - c|^2 of the cluster; a wide cluster
 * reaches nearer than its centroid says), under inner product of -<c, q> - 2.5 |q| sqrt(energy / dim), then of their
 * numbers. The 1-bit codes of the centroids sort all clusters roughly; 8-bit codes refine those that may come next,
 * some at a time. Where those cannot tell well how far a cluster is, because the query lies close to it, the centroid
 * itself does.
 */
#ifndef MN_ENGINE_PROBE_H
#define MN_ENGINE_PROBE_H

#include "engine/codebook.h"
#include "engine/tune.h"

struct mn_probe_place {
    float gap;
    uint32_t cluster;
};

/* Begins as zeros; what is allocated grows to what the largest codebook needs and is reused from query to query. */
struct mn_probe {
    const struct mn_codebook *codebook; /* the current query's; NULL: not in use */
    const struct mn_kernels *kernels;
    struct mn_scan_query scan;
    struct mn_fine_query fine;
    float origin;  /* gap of the origin: of a flat inverted file */
    float base;    /* what the gap of any cluster has in it: 0, or -<mean, q> under inner product */
    float norm;    /* |q| in the rotated space: reach under inner product */
    float stretch; /* by how much a cluster of energy 1 comes earlier under inner product */
    double doubt;  /* variance of a gap that is an estimate */
    float blur;    /* what that makes of a reach's square */
    uint32_t taken;
    bool sorted;      /* mn_probe_sort was called */
    uint64_t *wanted; /* mn_rowset_words(clusters): those that are taken, when not `all` are */
    bool all;
    uint32_t wanted_count;

    uint64_t *heap; /* refined, not taken; the next one on top: see key_of in probe.c */
    uint32_t heap_count, refined, goal;
    float *estimates; /* [clusters]: order by 1-bit codes */
    float refined_to; /* those with an estimate below it are refined */
    float *sample;    /* every so many-th estimate, in any order */
    uint32_t sampled;
    uint32_t *chosen; /* [clusters]: scratch */
    float *gaps;      /* [clusters]: what mn_probe_gap has worked out, NaN where not */
    double *logs;     /* [clusters + 1]: log(i + 2) */

    float *rotated;
    uint8_t *table;
    int8_t *codes;
    uint32_t width_max, clusters_max;
};

/* Makes room for queries before this codebook, and makes it the current one. MN_INTERNAL when memory ends. */
enum mn_status mn_probe_reserve(struct mn_probe *probe, const struct mn_codebook *codebook) MN_MUST_USE;
void mn_probe_free(struct mn_probe *probe);

/* Takes a query: dim floats times scale. Gaps and reaches of a flat inverted file are known then. */
void mn_probe_begin(struct mn_probe *probe, const struct mn_kernels *kernels, const float *embedding, float scale);

/* Leaves out all clusters but those of `wanted`, which the caller fills: between mn_probe_begin and mn_probe_sort. */
void mn_probe_want_some(struct mn_probe *probe);
/* Sorts the clusters roughly: before mn_probe_take or mn_probe_gap, once a query. */
void mn_probe_sort(struct mn_probe *probe);
/* Takes the next cluster; false when there are no more. */
bool mn_probe_take(struct mn_probe *probe, struct mn_probe_place *place);
/* The cluster that will most likely be taken next; MN_NONE: there is none yet. */
static inline uint32_t mn_probe_next(const struct mn_probe *probe)
{
    return probe->heap_count > 0 ? (uint32_t)probe->heap[0] : MN_NONE;
}
/* The gap of any cluster, taken or not; whether it was worked out already. */
float mn_probe_gap(struct mn_probe *probe, uint32_t cluster);
/* The variance of a gap that mn_probe_gap gave; 0: it was measured. */
double mn_probe_doubt(const struct mn_probe *probe, float gap);
static inline bool mn_probe_knows(const struct mn_probe *probe, uint32_t cluster)
{
    return probe->gaps[cluster] == probe->gaps[cluster];
}

/* reach of engine/ivf.h for a gap; and with a little for the rounding of the query's table. */
float mn_probe_reach(const struct mn_probe *probe, float gap);
float mn_probe_reach_blurred(const struct mn_probe *probe, float gap);

/* The number that rule->stop is compared with before a cluster that is the rank-th (from 0; what is above their number
 * counts as that) is looked into. limit: the distance of the k-th best so far. */
double mn_probe_strain(const struct mn_probe *probe, double nearness, uint32_t rank, const struct mn_probe_place *place,
                       float limit);

#endif
