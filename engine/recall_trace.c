/*
 * recall_trace.c - see recall_trace.h.
 */
#include "engine/recall_trace.h"

#include <stdlib.h>

#define ROOM_FIRST 1024u

void mn_recall_trace_free(struct mn_recall_trace *trace)
{
    free(trace->steps);
    free(trace->rests);
    *trace = (struct mn_recall_trace){0};
}

void mn_recall_trace_begin(struct mn_recall_trace *trace)
{
    trace->count = trace->rest_count = trace->run_count = 0;
    trace->lost = false;
}

/* Room for one more element; NULL, and the trace is lost, when memory ends. */
static void *grow(struct mn_recall_trace *trace, void *elements, size_t size, uint32_t count, uint32_t *max)
{
    if (count < *max)
        return elements;
    uint32_t room = *max > 0 ? 2 * *max : ROOM_FIRST;
    void *grown = realloc(elements, room * size);
    if (grown)
        *max = room;
    else
        trace->lost = true;
    return grown;
}

void mn_recall_trace_run(struct mn_recall_trace *trace, const struct mn_codebook *codebook, uint64_t cost)
{
    if (trace->run_count == MN_RECALL_TRACE_RUNS) {
        trace->lost = true;
        return;
    }
    trace->runs[trace->run_count].codebook = codebook;
    trace->runs[trace->run_count].first = trace->count;
    trace->runs[trace->run_count++].cost = cost;
}

void mn_recall_trace_step(struct mn_recall_trace *trace, uint32_t cluster, double rank, double over, uint64_t cost)
{
    if (trace->run_count == 0)
        return;
    struct mn_recall_step *steps = grow(trace, trace->steps, sizeof *steps, trace->count, &trace->max);
    if (!steps)
        return;
    trace->steps = steps;
    steps[trace->count++] = (struct mn_recall_step){(float)rank, (float)over, cluster,
                                                    (uint32_t)(cost - trace->runs[trace->run_count - 1].cost)};
}

void mn_recall_trace_rest(struct mn_recall_trace *trace, const struct mn_ivf *ivf, uint32_t cluster)
{
    if (trace->count == 0)
        return;
    struct mn_recall_rest *rests = grow(trace, trace->rests, sizeof *rests, trace->rest_count, &trace->rest_max);
    if (!rests)
        return;
    trace->rests = rests;
    rests[trace->rest_count++] = (struct mn_recall_rest){ivf, cluster, trace->count - 1};
}

uint32_t mn_recall_trace_find(const struct mn_recall_trace *trace, const struct mn_ivf *ivf, uint32_t row,
                              uint32_t *run)
{
    *run = 0;
    if (mn_ivf_flat(ivf) || row >= ivf->rows)
        return MN_NONE;
    while (*run < trace->run_count && trace->runs[*run].codebook != ivf->codebook)
        ++*run;
    if (*run == trace->run_count)
        return MN_NONE;
    uint32_t slot = mn_ivf_slot(ivf, row), cluster = mn_ivf_cluster(ivf, slot);
    if (slot >= mn_ivf_rest_slot(ivf, cluster)) {
        for (uint32_t i = 0; i < trace->rest_count; i++)
            if (trace->rests[i].ivf == ivf && trace->rests[i].cluster == cluster)
                return trace->rests[i].step;
    }
    uint32_t end = *run + 1 < trace->run_count ? trace->runs[*run + 1].first : trace->count;
    for (uint32_t i = trace->runs[*run].first; i < end; i++)
        if (trace->steps[i].cluster == cluster)
            return i;
    return MN_NONE;
}
