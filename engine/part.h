/*
 * part.h - a run of rows as a reader sees it: one tail chunk or one column segment, behind the same few questions.
 *
 * Recall, reads, the writer's index and compaction all walk parts; none of them cares where a row lives. The accessors
 * are inline and branch once on `tail`. A part is valid while the snapshot that lists it is pinned. Everything is
 * mapped read-only; strings, embeddings and meta are used in place.
 */
#ifndef MN_ENGINE_PART_H
#define MN_ENGINE_PART_H

#include "engine/shared.h"
#include "engine/types.h"

struct mn_columns; /* engine/columns.h: an open column segment */
struct mn_ivf;     /* engine/ivf.h: rows as codes, grouped by cluster */

struct mn_part {
    bool tail;
    uint64_t number; /* log segment (tail) or column segment id */
    uint32_t rows;   /* published when the snapshot was taken; rows are filled for good below this */
    uint32_t dim;
    const struct mn_ivf *ivf; /* codes of the rows below ivf->rows, or NULL: they are compared as they are */
    /* tail */
    const struct mn_tail_header *chunk;
    const struct mn_tail_row *tail_rows;
    const uint8_t *arena;
    const uint8_t *wal; /* the mapped log segment */
    uint64_t wal_bytes;
    /* columns: element i belongs to row i */
    const struct mn_columns *columns;
    const struct mn_id *ids;
    const uint32_t *spaces; /* string numbers */
    const uint64_t *born;
    const _Atomic uint64_t *died; /* in the liveness file */
    const _Atomic uint64_t *dead; /* how many of those are not MN_ALIVE; NULL: not known */
    uint64_t born_max;            /* newest and soonest of all rows: with them and no dead row nobody need be asked */
    int64_t expires_min;          /* (columns only) */
    float scale_max;              /* largest of all rows (columns only) */
    const int64_t *at;
    const int64_t *expires;
    const float *confidence;
    const float *scale;
    const float *vectors; /* rows x dim */
};

static inline const struct mn_id *mn_part_id(const struct mn_part *p, uint32_t row)
{
    return p->tail ? &p->tail_rows[row].id : &p->ids[row];
}
static inline uint32_t mn_part_space(const struct mn_part *p, uint32_t row)
{
    return p->tail ? p->tail_rows[row].space : p->spaces[row];
}
/* The space of all its rows, as far as the part can tell at once; MN_NONE: they may lie in several. */
static inline uint32_t mn_part_only_space(const struct mn_part *p)
{
    return p->tail ? atomic_load_explicit(&p->chunk->space, memory_order_relaxed) : MN_NONE;
}
static inline uint64_t mn_part_born(const struct mn_part *p, uint32_t row)
{
    return p->tail ? p->tail_rows[row].born : p->born[row];
}
static inline uint64_t mn_part_died(const struct mn_part *p, uint32_t row)
{
    return atomic_load_explicit(p->tail ? &p->tail_rows[row].died : &p->died[row], memory_order_relaxed);
}
static inline int64_t mn_part_at(const struct mn_part *p, uint32_t row)
{
    return p->tail ? p->tail_rows[row].at : p->at[row];
}
static inline int64_t mn_part_expires(const struct mn_part *p, uint32_t row)
{
    return p->tail ? p->tail_rows[row].expires : p->expires[row];
}
static inline float mn_part_confidence(const struct mn_part *p, uint32_t row)
{
    return p->tail ? p->tail_rows[row].confidence : p->confidence[row];
}
/* 1/|x| under cosine, else 1. */
static inline float mn_part_scale(const struct mn_part *p, uint32_t row)
{
    return p->tail ? p->tail_rows[row].scale : p->scale[row];
}
/* Visible at seq and not expired at `now` (ns since the epoch). */
static inline bool mn_part_visible(const struct mn_part *p, uint32_t row, uint64_t seq, int64_t now)
{
    return mn_part_born(p, row) <= seq && seq < mn_died_seq(mn_part_died(p, row)) && mn_part_expires(p, row) > now;
}

/* The embedding: dim floats, 64-byte aligned in the tail, 4-byte aligned in columns. NULL when the block it lies in
 * failed its checksum (columns; checked at the first touch by each process, engine/columns.h) or it would lie outside
 * the log segment (tail). */
const float *mn_columns_vector(const struct mn_columns *columns, uint32_t row);
static inline const float *mn_part_vector(const struct mn_part *p, uint32_t row)
{
    if (!p->tail)
        return mn_columns_vector(p->columns, row);
    uint64_t at = p->tail_rows[row].vector_at;
    return at + (uint64_t)p->dim * sizeof(float) <= p->wal_bytes ? (const float *)(const void *)(p->wal + at) : NULL;
}

/* Says which embeddings will be wanted: worth it only when they do not all stay in memory. rows: in rising order, or
 * in several runs of such. */
void mn_columns_ahead(const struct mn_columns *columns, const uint32_t *rows, uint32_t count);
static inline void mn_part_ahead(const struct mn_part *p, const uint32_t *rows, uint32_t count)
{
    if (!p->tail)
        mn_columns_ahead(p->columns, rows, count);
}

/* Compact meta (engine/meta.h; length 0 = none) and content. content.data is NULL when none was given; *bin tells
 * msgpack bin from str. MN_CORRUPT when a checksum fails. */
enum mn_status mn_part_meta(const struct mn_part *p, uint32_t row, struct mn_str *meta) MN_MUST_USE;
enum mn_status mn_part_content(const struct mn_part *p, uint32_t row, struct mn_str *content, bool *bin) MN_MUST_USE;

/* The row's tags as string numbers of this part; returns how many. */
uint32_t mn_part_tags(const struct mn_part *p, uint32_t row, const uint32_t **tags);

/* The part's dictionary of space names and tags: a string's number or MN_NONE, and back. */
uint32_t mn_part_lookup(const struct mn_part *p, struct mn_str s);
struct mn_str mn_part_string(const struct mn_part *p, uint32_t number);

/* Order of the space names of two rows, by bytes: <0, 0, >0. */
int mn_part_compare_spaces(const struct mn_part *a, uint32_t row_a, const struct mn_part *b, uint32_t row_b);

/* Walks the rows (all versions, dead ones too) of an id: for (row = mn_part_find_first(...); row != MN_NONE; row =
 * next). hash = mn_id_hash(mn_str_hash(space name), id); space = the part's number of that name. Rows at or above
 * p->rows are left out. */
struct mn_part_find {
    uint64_t hash;
    struct mn_id id;
    uint32_t space;
    uint32_t at; /* where the walk stands */
};
uint32_t mn_part_find_first(const struct mn_part *p, struct mn_part_find *find);
uint32_t mn_part_find_next(const struct mn_part *p, struct mn_part_find *find);

/* Rows of a column segment lie in the order of (at, id). The first one whose `at` is at or after the given; part->rows
 * when there is none. */
uint32_t mn_part_lower_bound(const struct mn_part *p, int64_t at);

#endif
