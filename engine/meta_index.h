/*
 * meta_index.h - the index of a segment's meta (metaindex.col): for each path of keys its rows in the order of their
 * values, so that a condition is a run of them, found by two binary searches. The column of confidence has one too.
 *
 * Which paths a memory has is as mn_meta_find (meta.h) sees it: {"a": {"b": 1}, "c.d": 2} has a, a.b and c.d. Each has
 * a lane: the rows that have a value there, by (class, value, row) (meta_order.h); rows of equal values are a group.
 *
 *   file   lanes' arrays, each 64-byte aligned | wild rows | names | struct mn_meta_lane[lanes], by name |
 *          struct mn_meta_index_foot, the last bytes of the data
 *   lane   uint64_t keys[groups]: the first piece of each group's value
 *          uint32_t starts[groups + 1]: where in `order` each begins
 *          uint32_t order[count]: row numbers; left out when there is one group of all the rows
 *          uint64_t marks[marks][words of a set of rows]: mark i is the set of order[0 .. (i + 1) * stride)
 *
 * Values are not kept: those whose first piece says too little are compared with that of a row of the group, in the
 * meta column. A mark spares most of the work of making a long run a set.
 *
 * What is left out never makes an answer wrong. Rows with more than MN_META_INDEX_VALUES values, or that name a path
 * twice, are in no lane but in the list of wild rows, which are asked one by one; paths longer than
 * MN_META_INDEX_NAME_MAX, and the rarest ones beyond the limits below, have no lane, and then `complete` says so.
 *
 * Size: 4 bytes a value for the order, 2 for the marks, 12 for each different value of a path. Writing takes 32 bytes
 * of memory for each value of the paths sorted at once (MN_META_INDEX_AT_ONCE, or the values of one path when they are
 * more), and walks the meta once for each such load: a segment of 4 M rows and 8 paths, 128 MiB and 8 walks.
 */
#ifndef MN_ENGINE_META_INDEX_H
#define MN_ENGINE_META_INDEX_H

#include "engine/meta_order.h"
#include "engine/query.h"

struct mn_columns;
struct mn_column_file;
struct mn_column_sink;

#define MN_META_INDEX_NAME_MAX  255u       /* bytes of a path */
#define MN_META_INDEX_VALUES    256u       /* values of a row */
#define MN_META_INDEX_LANES     256u       /* paths of a segment */
#define MN_META_INDEX_PER_ROW   32u        /* values in all lanes, per row of the segment */
#define MN_META_INDEX_FOUND_MAX 4096u      /* paths counted before the commonest are chosen */
#define MN_META_INDEX_WILD      64u        /* more than one row in so many wild: no index */
#define MN_META_INDEX_AT_ONCE   (4u << 20) /* values sorted at once */
#define MN_META_INDEX_MARKS     16u        /* of a lane with all rows */
#define MN_META_INDEX_STRIDE    1024u      /* at least, between two marks */

struct mn_meta_lane {
    uint64_t name_at;
    uint64_t keys_at, starts_at, order_at, marks_at; /* byte offsets in the data; order_at 0: row i at place i */
    uint32_t name_bytes;
    uint32_t count, groups;
    uint32_t stride, marks;
    uint32_t class_begin[MN_META_CLASSES + 1]; /* groups */
};
_Static_assert(sizeof(struct mn_meta_lane) == 88, "a lane in metaindex.col");

struct mn_meta_index_foot {
    uint64_t lanes_at, wild_at;
    uint32_t lanes, wild;
    uint32_t complete;   /* 1: a path without a lane has no values */
    uint32_t confidence; /* 1: lane 0 is the confidence; it has no name */
};
_Static_assert(sizeof(struct mn_meta_index_foot) == 32, "the end of metaindex.col");

/* ---- writing ---- */

/* Writes and ends the column: the meta of row r is data[start[r], start[r + 1]). confidence: of each row. */
enum mn_status mn_meta_index_write(struct mn_column_sink *sink, uint32_t rows, const uint8_t *data,
                                   const uint64_t *start, const float *confidence) MN_MUST_USE;

/* ---- reading ---- */

/* An index over its mapped file. All functions are thread-safe. */
struct mn_meta_index {
    const struct mn_columns *columns; /* whose meta is looked at where a key does not tell */
    const uint8_t *data;
    uint32_t rows, lane_count, wild_count;
    const struct mn_meta_lane *lanes;      /* of paths */
    const struct mn_meta_lane *confidence; /* NULL: none */
    const uint32_t *wild;
    bool complete;
};

/* Checks the file's shape. False: damaged. */
bool mn_meta_index_open(struct mn_meta_index *index, const struct mn_columns *columns,
                        const struct mn_column_file *file);

/* Places of a lane: of [begin, end) those in [sure, sure_end) match, the others may. */
struct mn_meta_run {
    uint32_t begin, end, sure, sure_end;
};

/* What the index knows of a condition. The rows that match are those of the runs, or all others when `negated`. */
struct mn_meta_bound {
    const struct mn_where *where;
    const struct mn_meta_lane *lane; /* NULL: no row has a value there */
    bool negated;
    struct mn_meta_run first; /* the run of the first value; of several, the others are found again when needed */
    uint64_t most;            /* rows that match: at most; of equal values in IN each counts */
    uint64_t unsure;          /* rows to be asked one by one */
    uint64_t steps;           /* single rows touched when a set is made */
    bool rising;              /* the runs are one group, or whole: rows come in their order */
};

/* False when the index cannot answer: the path has no lane, or the meta that it must look at is damaged. */
bool mn_meta_index_bound(const struct mn_meta_index *index, const struct mn_where *where, struct mn_meta_bound *bound);
/* The same of confidence >= least (most and first only). */
bool mn_meta_index_confidence(const struct mn_meta_index *index, float least, struct mn_meta_bound *bound);

/* Makes bits[mn_rowset_words(rows)] exactly the rows of the segment that match. */
void mn_meta_index_set(const struct mn_meta_index *index, const struct mn_meta_bound *bound, uint64_t *bits);

/* Writes the rows of [first, end) that match, in any order, a row perhaps more than once; returns how many. Of a bound
 * that is not negated; bound->most elements must have room. */
uint32_t mn_meta_index_list(const struct mn_meta_index *index, const struct mn_meta_bound *bound, uint32_t first,
                            uint32_t end, uint32_t *rows);

/* The run of a condition's value number `i` (0 for EXISTS); false as above. An empty one has begin == end. */
bool mn_meta_index_run(const struct mn_meta_index *index, const struct mn_meta_bound *bound, uint32_t i,
                       struct mn_meta_run *run);
/* The row at a place of a lane; MN_NONE when the index lies. */
static inline uint32_t mn_meta_index_row(const struct mn_meta_index *index, const struct mn_meta_lane *lane,
                                         uint32_t place)
{
    if (lane->order_at == 0)
        return place;
    uint32_t row = ((const uint32_t *)(const void *)(index->data + lane->order_at))[place];
    return row < index->rows ? row : MN_NONE;
}

#endif
