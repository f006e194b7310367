/*
 * recall_trace.h - what the rule of a search saw on its way, step by step, kept for calibration.
 *
 * A step is a cluster with blocks to scan. From a search that goes through all of them follows what any rule would have
 * found: it ends before the first step whose strain is above `stop`, and of its rows those are found that lie in steps
 * before that. The clusters of each codebook come one after the other; the rule ends each of these runs by itself.
 */
#ifndef MN_ENGINE_RECALL_TRACE_H
#define MN_ENGINE_RECALL_TRACE_H

#include "engine/ivf.h"

#define MN_RECALL_TRACE_RUNS 4u

/* strain = rank + nearness * over; see tune.h. Both -INFINITY while there is no limit: no rule ends there. */
struct mn_recall_step {
    float rank, over;
    uint32_t cluster, cost; /* cost: clusters taken and blocks scanned before it, in this run */
};

/* The rest of a cluster, scanned in a step; often in that of another cluster. */
struct mn_recall_rest {
    const struct mn_ivf *ivf;
    uint32_t cluster, step;
};

/* Begins as zeros. */
struct mn_recall_trace {
    struct mn_recall_step *steps;
    uint32_t count, max;
    struct mn_recall_rest *rests;
    uint32_t rest_count, rest_max;
    struct {
        const struct mn_codebook *codebook;
        uint32_t first; /* step */
        uint64_t cost;  /* search->steps before it */
    } runs[MN_RECALL_TRACE_RUNS];
    uint32_t run_count;
    bool lost; /* there was no memory for a step, or too many runs: it tells nothing */
};

void mn_recall_trace_free(struct mn_recall_trace *trace);
/* Forgets the last search. */
void mn_recall_trace_begin(struct mn_recall_trace *trace);

/* What a search tells. cost: its steps so far. */
void mn_recall_trace_run(struct mn_recall_trace *trace, const struct mn_codebook *codebook, uint64_t cost);
void mn_recall_trace_step(struct mn_recall_trace *trace, uint32_t cluster, double rank, double over, uint64_t cost);
void mn_recall_trace_rest(struct mn_recall_trace *trace, const struct mn_ivf *ivf, uint32_t cluster);

/* The step that found a row of this file, and its run; MN_NONE: it was found whatever the rule says. */
uint32_t mn_recall_trace_find(const struct mn_recall_trace *trace, const struct mn_ivf *ivf, uint32_t row,
                              uint32_t *run);

#endif
