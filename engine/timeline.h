/*
 * timeline.h - the visible rows of the tail chunks in order of space and time, for whoever asks for many neighbours at
 * once.
 *
 * Column segments lie in the order of time, tail chunks in that of arrival: the neighbours of one row there cost a look
 * at every row. The context of a few hits is found that way; for more, this order is made once per snapshot.
 */
#ifndef MN_ENGINE_TIMELINE_H
#define MN_ENGINE_TIMELINE_H

#include "engine/reader.h"

struct mn_row_ref {
    uint32_t part, row; /* part = MN_NONE: not there */
};

struct mn_timeline_row {
    uint64_t space; /* mn_str_hash of its name: rows of two spaces may share it, and are told apart when read */
    int64_t at;
    struct mn_row_ref ref;
};

/* Begins as zeros; grows to the largest tail seen. One thread at a time. */
struct mn_timeline {
    uint64_t gen, seq; /* the snapshot it was asked about last */
    int64_t now;
    uint32_t asked; /* how often, for that snapshot */
    bool made;      /* the rows are that snapshot's */
    struct mn_timeline_row *rows;
    uint32_t row_count, row_max;
};
void mn_timeline_free(struct mn_timeline *timeline);

/* Notes one more question about a snapshot. *made: it pays, and the order is there. */
enum mn_status mn_timeline_ask(struct mn_timeline *timeline, const struct mn_snapshot *snapshot,
                               bool *made) MN_MUST_USE;

/* Up to n rows of the tail in the space of `row`, just before it (from the nearest to the farthest) or just after it,
 * in the order (at, id). Returns how many. The order must have been made. */
uint32_t mn_timeline_before(const struct mn_timeline *timeline, const struct mn_snapshot *snapshot,
                            struct mn_row_ref row, uint32_t n, struct mn_row_ref *found);
uint32_t mn_timeline_after(const struct mn_timeline *timeline, const struct mn_snapshot *snapshot,
                           struct mn_row_ref row, uint32_t n, struct mn_row_ref *found);

#endif
