/*
 * filter.h - a scope made ready for one part: names become the part's string numbers, so that testing a row is integers.
 */
#ifndef MN_ENGINE_FILTER_H
#define MN_ENGINE_FILTER_H

#include "engine/part.h"
#include "engine/query.h"

/* Scratch of a compiled scope; reused from part to part, grows to what the largest scope needs, freed once. */
struct mn_matcher {
    const struct mn_scope *scope;
    const struct mn_part *part;
    bool empty; /* nothing in this part can match: skip it */
    uint64_t *storage;
    size_t storage_bytes;
    uint32_t *spaces, *tags_any, *tags_all, *tags_none; /* sorted string numbers of the part */
    uint32_t space_count, tags_any_count, tags_all_count, tags_none_count;
};

/* Compiles `scope` for `part`. MN_INTERNAL when memory ends. */
enum mn_status mn_matcher_set(struct mn_matcher *matcher, const struct mn_scope *scope,
                              const struct mn_part *part) MN_MUST_USE;

/* Cheap columns first (space, time, confidence, tags, ids), meta last. Visibility is the caller's. MN_CORRUPT meta does not match. */
bool mn_matcher_row(const struct mn_matcher *matcher, uint32_t row);
void mn_matcher_free(struct mn_matcher *matcher);

#endif
