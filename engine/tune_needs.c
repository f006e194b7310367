/*
 * tune_needs.c - see tune_needs.h.
 */
#include "engine/tune_needs.h"

#include <math.h>
#include <stdlib.h>

const float mn_tune_nearnesses[MN_TUNE_NEARNESSES] = {2, 2.75f, 4};

enum mn_status mn_tune_needs_init(struct mn_tune_needs *needs, uint32_t queries, uint32_t k)
{
    *needs = (struct mn_tune_needs){.k = k, .max = queries};
    needs->first = calloc(queries + 1u, sizeof *needs->first);
    bool all = needs->first != NULL;
    for (uint32_t n = 0; n < MN_TUNE_NEARNESSES; n++) {
        needs->needs[n] = calloc((size_t)queries * k, sizeof(float));
        needs->sorted[n] = calloc((size_t)queries * k, sizeof(float));
        all = all && needs->needs[n] && needs->sorted[n];
    }
    return all ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory to calibrate with %u queries", queries);
}

void mn_tune_needs_free(struct mn_tune_needs *needs)
{
    for (uint32_t n = 0; n < MN_TUNE_NEARNESSES; n++) {
        free(needs->needs[n]);
        free(needs->sorted[n]);
    }
    free(needs->first);
    free(needs->peaks);
    *needs = (struct mn_tune_needs){0};
}

/* ---- from traces ---- */

/* A little more than it is: what is compared with it is a double. */
static float strain_at(const struct mn_recall_step *step, uint32_t nearness)
{
    return nextafterf(step->rank + mn_tune_nearnesses[nearness] * step->over, INFINITY);
}

static uint32_t run_end(const struct mn_recall_trace *trace, uint32_t run)
{
    return run + 1 < trace->run_count ? trace->runs[run + 1].first : trace->count;
}

static void find_peaks(struct mn_tune_needs *needs, const struct mn_recall_trace *trace, uint32_t nearness)
{
    for (uint32_t run = 0; run < trace->run_count; run++) {
        float peak = -INFINITY;
        for (uint32_t i = trace->runs[run].first; i < run_end(trace, run); i++)
            needs->peaks[i] = peak = fmaxf(peak, strain_at(&trace->steps[i], nearness));
    }
}

enum mn_status mn_tune_needs_add(struct mn_tune_needs *needs, const struct mn_search *search,
                                 const struct mn_snapshot *snapshot)
{
    const struct mn_recall_trace *trace = search->trace;
    uint32_t at = needs->first[needs->queries];
    MN_ASSERT(needs->queries < needs->max && search->hit_count <= needs->k);
    if (trace->count > needs->peaks_max) {
        free(needs->peaks);
        needs->peaks = calloc(trace->max, sizeof *needs->peaks);
        needs->peaks_max = needs->peaks ? trace->max : 0;
    }
    if (trace->lost || (trace->count > 0 && !needs->peaks))
        return MN_FAIL(MN_INTERNAL, "no memory for the way of a search of %u steps", trace->count);
    for (uint32_t n = 0; n < MN_TUNE_NEARNESSES; n++) {
        find_peaks(needs, trace, n);
        for (uint32_t h = 0; h < search->hit_count; h++) {
            const struct mn_ivf *ivf = snapshot->parts[search->hits[h].part].ivf;
            uint32_t run, step = ivf ? mn_recall_trace_find(trace, ivf, search->hits[h].row, &run) : MN_NONE;
            needs->needs[n][at + h] = step == MN_NONE ? -INFINITY : needs->peaks[step];
        }
    }
    needs->first[++needs->queries] = at + search->hit_count;
    return MN_OK;
}

uint64_t mn_tune_needs_cost(const struct mn_recall_trace *trace, uint32_t nearness, float stop)
{
    uint64_t cost = 0;
    for (uint32_t run = 0; run < trace->run_count; run++) {
        uint32_t i = trace->runs[run].first, end = run_end(trace, run);
        while (i + 1 < end && !(strain_at(&trace->steps[i], nearness) > stop))
            i++;
        cost += i < end ? trace->steps[i].cost : 0;
    }
    return cost;
}

/* ---- what they tell ---- */

double mn_tune_mean_of(const struct mn_tune_mean *mean, double *error)
{
    double n = mean->count, of = n > 0 ? mean->sum / n : 0;
    *error = n > 1 ? sqrt(fmax(mean->squares / n - of * of, 0) / (n - 1)) : 0;
    return of;
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void mn_tune_needs_sort(struct mn_tune_needs *needs)
{
    uint32_t all = needs->first[needs->queries];
    for (uint32_t n = 0; n < MN_TUNE_NEARNESSES; n++) {
        memcpy(needs->sorted[n], needs->needs[n], all * sizeof(float));
        qsort(needs->sorted[n], all, sizeof(float), compare_floats);
    }
}

float mn_tune_needs_stop(const struct mn_tune_needs *needs, uint32_t nearness, double recall)
{
    uint32_t all = needs->first[needs->queries];
    uint64_t found = (uint64_t)ceil(fmin(fmax(recall, 0), 1) * all);
    if (all == 0 || found == 0)
        return 0;
    return fmaxf(needs->sorted[nearness][found - 1], 0);
}

double mn_tune_needs_recall(const struct mn_tune_needs *needs, uint32_t nearness, float stop, uint32_t queries,
                            double *error)
{
    struct mn_tune_mean shares = {0};
    for (uint32_t i = 0; i < needs->queries && i < queries; i++) {
        uint32_t found = 0, wanted = needs->first[i + 1] - needs->first[i];
        if (wanted == 0)
            continue;
        for (uint32_t h = needs->first[i]; h < needs->first[i + 1]; h++)
            found += needs->needs[nearness][h] <= stop;
        mn_tune_mean_add(&shares, (double)found / wanted);
    }
    double mean = mn_tune_mean_of(&shares, error);
    return shares.count > 0 ? mean : 1;
}
