/*
 * recall.h - the search: the top k of a snapshot under a query.
 */
#ifndef MN_ENGINE_RECALL_H
#define MN_ENGINE_RECALL_H

#include "engine/filter.h"
#include "engine/reader.h"

struct mn_hit {
    double score;      /* what hits are ordered by, descending */
    double similarity; /* cosine, inner product, or negative squared L2 */
    double decay;      /* with rank */
    float confidence;
    uint32_t part, row; /* where it is in the snapshot */
    int64_t at;
};

/* Scratch and result of one thread's searches; allocated once, grows only with k. */
struct mn_search {
    const struct mn_kernels *kernels;
    enum mn_metric metric;
    uint32_t dim;
    struct mn_matcher matcher;
    struct mn_hit *hits; /* sorted: score descending, then later at, then id, then space name */
    uint32_t hit_count, hit_max;
    bool exact;       /* of the last search */
    uint64_t scanned; /* rows whose embeddings were compared */
    uint64_t damaged; /* rows skipped because their block failed its checksum */
    uint64_t coarse_ns, scan_ns, rerank_ns;
};

enum mn_status mn_search_init(struct mn_search *search, enum mn_metric metric, uint32_t dim) MN_MUST_USE;
void mn_search_free(struct mn_search *search);

/* The k best visible memories that match (min(k, matches) of them). One thread at a time per `search`. */
enum mn_status mn_recall_search(struct mn_search *search, const struct mn_snapshot *snapshot,
                                const struct mn_query *query) MN_MUST_USE;

#endif
