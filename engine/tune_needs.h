/*
 * tune_needs.h - what each right answer needs of the rule: the least `stop` under which a search finds it.
 *
 * One search through all clusters tells it, for every nearness at once (recall_trace.h). The recall of a rule is then
 * the share of needs that are not above its stop, and the stop that a recall needs is a quantile.
 */
#ifndef MN_ENGINE_TUNE_NEEDS_H
#define MN_ENGINE_TUNE_NEEDS_H

#include "engine/recall.h"
#include "engine/recall_trace.h"

#define MN_TUNE_NEARNESSES 3u
extern const float mn_tune_nearnesses[MN_TUNE_NEARNESSES]; /* rising */

/* The mean of what queries showed. Begins as zeros. */
struct mn_tune_mean {
    double sum, squares;
    uint32_t count;
};

static inline void mn_tune_mean_add(struct mn_tune_mean *mean, double value)
{
    mean->sum += value;
    mean->squares += value * value;
    mean->count++;
}

/* 0 of none. error: its standard error, as an estimate of that over any queries. */
double mn_tune_mean_of(const struct mn_tune_mean *mean, double *error);

/* Of `queries` queries for the k best. Begins as zeros. */
struct mn_tune_needs {
    uint32_t k, queries, max;
    uint32_t *first;                   /* [queries + 1]: needs[n][first[i]..first[i + 1]) are those of query i */
    float *needs[MN_TUNE_NEARNESSES];  /* -INFINITY: found by any rule */
    float *sorted[MN_TUNE_NEARNESSES]; /* all of them, once mn_tune_needs_sort was called */
    float *peaks;                      /* scratch: of a run, up to each step, the highest strain */
    uint32_t peaks_max;
};

/* Makes room. To be freed also when it fails. */
enum mn_status mn_tune_needs_init(struct mn_tune_needs *needs, uint32_t queries, uint32_t k) MN_MUST_USE;
void mn_tune_needs_free(struct mn_tune_needs *needs);
/* Takes what a search through all clusters for needs->k has found, and its trace. */
enum mn_status mn_tune_needs_add(struct mn_tune_needs *needs, const struct mn_search *search,
                                 const struct mn_snapshot *snapshot) MN_MUST_USE;
/* After the last of them: before mn_tune_needs_stop. */
void mn_tune_needs_sort(struct mn_tune_needs *needs);

/* The least stop (at least 0) with that recall over all queries. */
float mn_tune_needs_stop(const struct mn_tune_needs *needs, uint32_t nearness, double recall);
/* The recall at a stop over the first `queries`; and its standard error, as an estimate of that over any queries. */
double mn_tune_needs_recall(const struct mn_tune_needs *needs, uint32_t nearness, float stop, uint32_t queries,
                            double *error);

/* What the search that was traced would have cost under a rule, in steps. */
uint64_t mn_tune_needs_cost(const struct mn_recall_trace *trace, uint32_t nearness, float stop);

#endif
