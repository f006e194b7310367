/*
 * recall_inside.h - what the ways of a search share: the exact one (recall_exact.c), that through codes
 * (recall_codes.c), the exact one that spares most embeddings (recall_bounds.c), that of several queries
 * (recall_batch.c), and the door to all (recall.c).
 */
#ifndef MN_ENGINE_RECALL_INSIDE_H
#define MN_ENGINE_RECALL_INSIDE_H

#include "engine/recall.h"

/* One search under way. */
struct mn_recall {
    struct mn_search *search;
    const struct mn_snapshot *snapshot;
    const struct mn_query *query;
    double query_scale; /* cosine: 1 / |search->embedding| */
};

/* The number, in a part, of the space of the memory to leave out; MN_NONE when there is none. */
static inline uint32_t mn_recall_excluded_space(const struct mn_recall *r, const struct mn_part *p)
{
    return r->query->has_exclude ? mn_part_lookup(p, r->query->exclude_space) : MN_NONE;
}
static inline bool mn_recall_excluded(const struct mn_recall *r, const struct mn_part *p, uint32_t row, uint32_t space)
{
    return space != MN_NONE && mn_part_space(p, row) == space && mn_id_equal(mn_part_id(p, row), &r->query->exclude);
}

/* ---- recall.c ---- */

/* Checks the query and brings it into form, before anything is compared; the scope is left to search->matcher. */
enum mn_status mn_recall_begin(struct mn_recall *r) MN_MUST_USE;

/* ---- recall_exact.c ---- */

/* The score under rank: never above the similarity, but for one below 0, which counts as 0. *decay: 0..1. */
double mn_recall_rank(const struct mn_rank *rank, double similarity, int64_t at, float confidence, double *decay);

/* The order of two rows of equal score: later, then id, then space name. */
bool mn_recall_before(const struct mn_snapshot *snapshot, uint32_t part_a, uint32_t row_a, uint32_t part_b,
                      uint32_t row_b);

/* Compares rows of a part with the query, whatever the scope says of them, and keeps the best k of all that were
 * compared in search->hits: a heap, worst on top, until mn_recall_sort. */
void mn_recall_compare(struct mn_recall *r, uint32_t part, const uint32_t *rows, uint32_t count);
/* Compares all rows of [first, end) that are visible and match; search->matcher has begun. */
void mn_recall_scan(struct mn_recall *r, uint32_t part, uint32_t first, uint32_t end);
/* The same for `count` searches that differ in their embeddings only: each row is read once for all. The matcher of the
 * first has begun. */
void mn_recall_scan_all(struct mn_recall *all, uint32_t count, uint32_t part, uint32_t first, uint32_t end);
void mn_recall_sort(struct mn_recall *r);

/* ---- recall_codes.c ---- */

/* Searches through codes; false when that is not worth it or not possible: then nothing was compared yet. */
enum mn_status mn_recall_through_codes(struct mn_recall *r, bool *done) MN_MUST_USE;
/* Whether that can be so for a query of any form: false when no more rows have codes than are compared at once. */
bool mn_recall_has_codes(const struct mn_snapshot *snapshot);
void mn_recall_codes_free(struct mn_recall_codes *codes);

/* ---- recall_bounds.c ---- */

/* Searches exactly, by the bounds that codes prove; false when that is not worth it or not possible: then nothing was
 * compared yet. */
enum mn_status mn_recall_by_bounds(struct mn_recall *r, bool *done) MN_MUST_USE;
void mn_recall_bounds_free(struct mn_recall_bounds *bounds);

#endif
