/*
 * recall.h - the search: the top k of a snapshot under a query.
 *
 * Parts that have codes (part->ivf) are searched through them: the nearest clusters, as many as the recall that is
 * asked for needs (engine/tune.h), by 1-bit codes, then by 8-bit codes, and the best of them by their embeddings.
 * Whatever has no codes is compared exactly. An exact search reads codes, too, where they prove that a row is out of
 * reach. The scores of hits are those of the exact search to the last bit.
 */
#ifndef MN_ENGINE_RECALL_H
#define MN_ENGINE_RECALL_H

#include "engine/filter.h"
#include "engine/kernels.h"
#include "engine/reader.h"
#include "engine/tune.h"

struct mn_recall_codes;
struct mn_recall_bounds;
struct mn_recall_trace;

struct mn_hit {
    double score;      /* what hits are ordered by, descending */
    double similarity; /* cosine, inner product, or negative squared L2; with rank too as it is, not clamped at 0 */
    double decay;      /* with rank: 0..1, without: 1 */
    float confidence;
    uint32_t part, row; /* where it is in the snapshot */
    int64_t at;
};

/* Scratch and result of one thread's searches; grows only with k and with the lists of a filter. */
struct mn_search {
    const struct mn_kernels *kernels; /* the best of this CPU; a test may put another in its place */
    enum mn_metric metric;
    uint32_t dim;
    float *embedding; /* the query as it is compared: dim floats, 64-byte aligned */
    struct mn_matcher matcher;
    struct mn_hit *hits; /* sorted: score descending, then later at, then id, then space name */
    uint32_t hit_count, hit_max;
    struct mn_recall_codes *codes;   /* scratch of searches through codes */
    struct mn_recall_bounds *bounds; /* scratch of exact searches of parts that have codes */
    const struct mn_tune_rule *rule; /* what an approximate search goes by; NULL: the query's target and the snapshot's
                                        tuning say it */
    struct mn_recall_trace *trace;   /* what is told of the way of an approximate search; NULL: nothing */
    bool exact;                      /* of the last search: every visible row that matches was compared */
    uint64_t scanned;                /* rows whose codes or embeddings were compared */
    uint64_t steps;                  /* clusters taken and blocks of 1-bit codes scanned: what a search costs */
    uint64_t spared;                 /* of an exact search: those of them that codes proved to be out of reach */
    uint64_t damaged;                /* rows skipped because their block failed its checksum */
    uint64_t coarse_ns, scan_ns, rerank_ns;
};

enum mn_status mn_search_init(struct mn_search *search, enum mn_metric metric, uint32_t dim) MN_MUST_USE;
void mn_search_free(struct mn_search *search);

/* The k best visible memories that match (min(k, matches) of them; through codes the best of those that were looked
 * at). One thread at a time per `search`. MN_BAD_VALUE when the embedding holds NaN or Inf, or is zero under cosine;
 * or beyond MN_KERNEL_NORM2_MAX under ip and l2; MN_BAD_REQUEST for rank under another metric. */
enum mn_status mn_recall_search(struct mn_search *search, const struct mn_snapshot *snapshot,
                                const struct mn_query *query) MN_MUST_USE;

#endif
