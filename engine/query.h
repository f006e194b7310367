/*
 * query.h - what a reader may ask: spaces, filters, ranking. Filled by whoever decodes a request; owns nothing.
 */
#ifndef MN_ENGINE_QUERY_H
#define MN_ENGINE_QUERY_H

#include "engine/types.h"

enum mn_where_op {
    MN_WHERE_EQ,
    MN_WHERE_NE,
    MN_WHERE_IN,
    MN_WHERE_GT,
    MN_WHERE_GTE,
    MN_WHERE_LT,
    MN_WHERE_LTE,
    MN_WHERE_EXISTS
};

/* One condition on meta. Values are in the compact form of engine/meta.h. Numbers compare by value whatever their type;
 * a missing key matches only NE and EXISTS false; values of different kinds are unequal and unordered. */
struct mn_where {
    struct mn_str key; /* a key of the map, else a dotted path */
    enum mn_where_op op;
    const struct mn_str *values; /* one, but for IN */
    uint32_t value_count;
    bool exists; /* for MN_WHERE_EXISTS */
};

/* All conditions must hold. Absent lists have count 0 and are not conditions, except: has_ids or has_tags_any with
 * count 0 match nothing. */
struct mn_filter {
    const struct mn_str *tags_any, *tags_all, *tags_none;
    uint32_t tags_any_count, tags_all_count, tags_none_count;
    bool has_tags_any;
    const struct mn_id *ids;
    uint32_t id_count;
    bool has_ids;
    const struct mn_where *where;
    uint32_t where_count;
};

/* True without a condition: everything matches. */
static inline bool mn_filter_is_open(const struct mn_filter *f)
{
    return !f->has_tags_any && !f->has_ids && f->tags_all_count + f->tags_none_count + f->where_count == 0;
}

/* Which memories a request speaks of. */
struct mn_scope {
    bool all_spaces;
    const struct mn_str *spaces;
    uint32_t space_count;
    struct mn_filter filter;
    int64_t after;  /* at >= after; INT64_MIN = no bound */
    int64_t before; /* at < before; has_before */
    bool has_before;
    float min_confidence; /* 0 = no bound */
};

struct mn_rank {
    bool on;
    double half_life_s; /* <= 0: no decay */
    int64_t now;        /* ns */
    double confidence_weight, floor;
};

struct mn_query {
    struct mn_scope scope;
    const float *embedding; /* dim floats, 64-byte aligned */
    uint32_t k;
    bool exact;
    double target; /* wanted recall@k of an approximate search */
    bool has_min_score;
    double min_score;
    struct mn_rank rank;
    bool has_exclude; /* `like` leaves the memory itself out */
    struct mn_id exclude;
    struct mn_str exclude_space;
};

#endif
