/*
 * meta_paths.h - which paths of keys the meta of rows has and where their values lie: a walk through one row at a time,
 * and a table of the paths met so far. Used by meta_index_write.c; what a path is, meta_index.h says.
 */
#ifndef MN_ENGINE_META_PATHS_H
#define MN_ENGINE_META_PATHS_H

#include "engine/meta_index.h"

struct mn_meta_path {
    uint64_t hash;
    uint64_t name_at; /* in names */
    uint32_t name_bytes;
    uint32_t last_row; /* + 1; 0: none yet */
};

/* A value of a row: the number of its path, and its place: class above, offset in the row's meta below. */
struct mn_meta_found {
    uint32_t path, place;
};
#define MN_META_PLACE_BITS 29

static inline enum mn_meta_class mn_meta_place_class(uint32_t place)
{
    return (enum mn_meta_class)(place >> MN_META_PLACE_BITS);
}
static inline uint32_t mn_meta_place_offset(uint32_t place)
{
    return place & ((1u << MN_META_PLACE_BITS) - 1);
}

struct mn_meta_paths {
    struct mn_meta_path *paths; /* [MN_META_INDEX_FOUND_MAX] */
    uint32_t count;
    uint32_t *slots; /* hash table: path + 1 */
    char *names;
    uint64_t names_bytes, names_max;
    bool left_out; /* there were more paths */

    struct mn_meta_found found[MN_META_INDEX_VALUES]; /* in the row walked last */
    uint32_t found_count;

    /* while it is walked */
    uint32_t row, value_count;
    const char *meta;
    char name[MN_META_INDEX_NAME_MAX + 1];
};

/* Of {0}. To be freed also when it fails (MN_SYSTEM: no memory). */
enum mn_status mn_meta_paths_init(struct mn_meta_paths *paths) MN_MUST_USE;
void mn_meta_paths_free(struct mn_meta_paths *paths);

/* Finds the values of a row, any but the one walked before. *wild: it cannot be indexed; what was found of it does not
 * count then. MN_SYSTEM: no memory. */
enum mn_status mn_meta_paths_walk(struct mn_meta_paths *paths, uint32_t row, struct mn_str meta,
                                  bool *wild) MN_MUST_USE;
/* Rows are walked once more: the paths keep their numbers. */
void mn_meta_paths_again(struct mn_meta_paths *paths);

#endif
