/*
 * filter.h - which rows of a part a scope speaks of: names become the part's string numbers, so that testing a row is
 * integers; and the cheapest way to the rows is taken: a range of time, the postings of a string, the hash of an id, a
 * lane of the index of meta, else a scan.
 *
 *     MN_TRY(mn_matcher_begin(&m, scope));
 *     for each part:
 *         if (mn_matcher_part(&m, part, 0, part->rows))
 *             while ((n = mn_matcher_next(&m, snapshot->seq, snapshot->now, rows, MN_ARRAY_LEN(rows))) > 0)
 *                 ...
 */
#ifndef MN_ENGINE_FILTER_H
#define MN_ENGINE_FILTER_H

#include "engine/columns.h"
#include "engine/meta_index.h"
#include "engine/part.h"
#include "engine/query.h"

enum mn_source { MN_SOURCE_RANGE, MN_SOURCE_IDS, MN_SOURCE_POSTINGS, MN_SOURCE_META };

/* String numbers of a part: sorted, each once. */
struct mn_numbers {
    uint32_t *data;
    uint32_t count;
};

/* A scope at work on one part; begins as zeros. One thread at a time. Its storage is reused from scope to scope and
 * grows to what the largest one needs. */
struct mn_matcher {
    /* For the caller to set between mn_matcher_begin and the next mn_matcher_part. The bounds of time may also be
     * narrowed while a part is walked: what lies outside is left out from then on. */
    bool backwards;      /* rows from the highest number down */
    int64_t from, until; /* at, both inclusive; begin sets them from the scope */

    const struct mn_part *part;
    bool sorted; /* rows come in the order of (at, id), or the reverse when backwards */

    /* the scope */
    const struct mn_scope *scope;
    bool any_wanted;   /* tags_any is a condition */
    bool any_in_space; /* nothing but space and time is a condition */
    bool any_row;      /* nothing but time is one, or none of the others leaves a row of the part out */
    struct mn_id *ids; /* sorted, each once */
    uint32_t id_count;
    void *storage;
    size_t storage_bytes;

    /* the scope in the part's numbers */
    struct mn_numbers spaces, tags_any, tags_all, tags_none;

    /* where the walk stands */
    enum mn_source source;
    uint32_t first, last;     /* the rows asked for: [first, last) */
    uint32_t next, end;       /* those still to come (of the current bitmap, with postings; places of a lane) */
    enum mn_posting kind;     /* postings: of spaces or of tags */
    struct mn_numbers drive;  /* postings: the strings whose bitmaps are walked one after the other */
    uint32_t at, space_at;    /* postings: bitmap; ids: id, and space; meta: wild row */
    struct mn_meta_bound run; /* meta */
};

/* Takes a scope; it must live until the walk ends. MN_INTERNAL when memory ends. */
enum mn_status mn_matcher_begin(struct mn_matcher *matcher, const struct mn_scope *scope) MN_MUST_USE;

/* Begins the walk over rows [first, end) of a part. False when none of them can match. */
bool mn_matcher_part(struct mn_matcher *matcher, const struct mn_part *part, uint32_t first, uint32_t end);

/* The next up to `max` rows that are visible at `seq` and `now` and match; 0 when there are no more. */
uint32_t mn_matcher_next(struct mn_matcher *matcher, uint64_t seq, int64_t now, uint32_t *rows, uint32_t max);

/* One condition on meta in its compact form (length 0: none was given). */
bool mn_where_matches(const struct mn_where *where, struct mn_str meta);

/* True when the scope leaves no row out: nothing is a condition, time neither. */
static inline bool mn_matcher_open(const struct mn_matcher *m)
{
    return m->any_row && m->from == INT64_MIN && m->until == INT64_MAX;
}

/* Whether a row of the current part matches, visible or not. Cheap columns first (time, space, confidence, ids, tags),
 * meta last. A row whose meta is damaged does not match a condition on meta. */
bool mn_matcher_row(const struct mn_matcher *matcher, uint32_t row);

void mn_matcher_free(struct mn_matcher *matcher);

#endif
