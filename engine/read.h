/*
 * read.h - reads that are not searches: by id, in time order, counted; and a hit's neighbours in time.
 *
 * The order of time is (at, id, space name): of all visible memories of a snapshot no two are equal in it.
 */
#ifndef MN_ENGINE_READ_H
#define MN_ENGINE_READ_H

#include "engine/filter.h"
#include "engine/reader.h"
#include "engine/timeline.h"

/* The visible version of an id in a space, or part = MN_NONE. */
struct mn_row_ref mn_read_find(const struct mn_snapshot *snapshot, struct mn_str space, const struct mn_id *id);

/* Where a list stands: the last memory that was returned. */
struct mn_cursor {
    bool set;
    int64_t at;
    struct mn_id id;
    char space[MN_SPACE_BYTES_MAX];
    uint32_t space_length;
};

/* The cursor that stands at a row. */
void mn_cursor_at(struct mn_cursor *cursor, const struct mn_snapshot *snapshot, struct mn_row_ref row);

/* Result space and scratch of one thread, begins as zeros; grows to the largest limit asked. */
struct mn_reading {
    struct mn_matcher matcher;
    struct mn_timeline timeline;
    struct mn_row_ref *rows;
    uint32_t row_count, row_max;
};
void mn_reading_free(struct mn_reading *reading);

/* Up to `limit` visible matches after `cursor`, newest or oldest first, into reading->rows. *more: others follow. */
enum mn_status mn_read_list(struct mn_reading *reading, const struct mn_snapshot *snapshot,
                            const struct mn_scope *scope, bool newest_first, const struct mn_cursor *cursor,
                            uint32_t limit, bool *more) MN_MUST_USE;

enum mn_status mn_read_count(struct mn_reading *reading, const struct mn_snapshot *snapshot,
                             const struct mn_scope *scope, uint64_t *count) MN_MUST_USE;

/* Up to n visible memories of the row's space just before it in time order, and n just after, each in time order
 * (oldest first), into reading->rows: first `*before_count`, then `*after_count`. Of many questions about one snapshot
 * the first few look through the tail; then it is sorted, once. */
enum mn_status mn_read_context(struct mn_reading *reading, const struct mn_snapshot *snapshot, struct mn_row_ref row,
                               uint32_t n, uint32_t *before_count, uint32_t *after_count) MN_MUST_USE;

/* Calls `visit` for each space with a visible memory, sorted by name (bytes); stops at its first failure. Allocates and
 * frees what it needs. */
enum mn_status mn_read_spaces(const struct mn_snapshot *snapshot,
                              enum mn_status (*visit)(void *context, struct mn_str space, uint64_t count),
                              void *context) MN_MUST_USE;

#endif
