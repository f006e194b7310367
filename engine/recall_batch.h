/*
 * recall_batch.h - several queries of one scope at once.
 *
 * An exact search reads much and computes little: several together read it once. Approximate searches go to different
 * places, each in its own order, and are done one by one.
 */
#ifndef MN_ENGINE_RECALL_BATCH_H
#define MN_ENGINE_RECALL_BATCH_H

#include "engine/recall.h"

#define MN_BATCH_QUERIES 64u    /* searched together at most, */
#define MN_BATCH_HITS    65536u /* and no more than have so many hits in all */

/* Scratch and results of one thread's batches. It grows with the searches that are under way together, not with the
 * batch. */
struct mn_batch;

/* MN_INTERNAL when memory ends. */
enum mn_status mn_batch_open(struct mn_batch **batch, enum mn_metric metric, uint32_t dim) MN_MUST_USE;
void mn_batch_free(struct mn_batch *batch);
/* Another instruction set than the best, for all its searches: for tests. */
void mn_batch_use(struct mn_batch *batch, const struct mn_kernels *kernels);

/* Searches for the first *done (1 or more) of `count` embeddings, each `stride` floats after the one before;
 * whatever else is asked, `query` says it (its own embedding is not looked at). The hits of each are those of
 * mn_recall_search, to the last bit; `scanned` may count other dead rows. Fails as that does, when one of them would.
 */
enum mn_status mn_recall_batch(struct mn_batch *batch, const struct mn_snapshot *snapshot, const struct mn_query *query,
                               const float *embeddings, size_t stride, uint32_t count, uint32_t *done) MN_MUST_USE;
/* What came of the i-th of those: good until the next call. */
const struct mn_search *mn_batch_result(const struct mn_batch *batch, uint32_t i);

#endif
