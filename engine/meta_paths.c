/*
 * meta_paths.c - walking the meta of rows for their paths of keys (see meta_paths.h).
 */
#include "engine/meta_paths.h"

#include <stdlib.h>

#define SLOTS (4 * MN_META_INDEX_FOUND_MAX)

static struct mn_str name_of(const struct mn_meta_paths *t, const struct mn_meta_path *path)
{
    return (struct mn_str){t->names + path->name_at, path->name_bytes};
}

static enum mn_status add_path(struct mn_meta_paths *t, struct mn_str name, uint64_t hash, uint32_t slot)
{
    if (t->names_bytes + name.length > t->names_max) {
        uint64_t max = 2 * t->names_max + 4096;
        char *names = realloc(t->names, max);
        if (!names)
            return MN_FAIL(MN_SYSTEM, "no memory for the names of %u paths of meta", t->count);
        t->names = names;
        t->names_max = max;
    }
    struct mn_meta_path *path = &t->paths[t->count];
    *path = (struct mn_meta_path){.hash = hash, .name_at = t->names_bytes, .name_bytes = name.length};
    if (name.length > 0)
        memcpy(t->names + t->names_bytes, name.data, name.length);
    t->names_bytes += name.length;
    t->slots[slot] = ++t->count;
    return MN_OK;
}

/* The path's number, or MN_NONE when it is one too many. A path seen for the first time is added. */
static enum mn_status find_path(struct mn_meta_paths *t, struct mn_str name, uint32_t *number)
{
    uint64_t hash = mn_str_hash(name);
    uint32_t slot = (uint32_t)hash % SLOTS;
    for (; t->slots[slot]; slot = (slot + 1) % SLOTS) {
        struct mn_meta_path *path = &t->paths[t->slots[slot] - 1];
        if (path->hash == hash && mn_str_equal(name_of(t, path), name)) {
            *number = t->slots[slot] - 1;
            return MN_OK;
        }
    }
    *number = MN_NONE;
    if (t->count == MN_META_INDEX_FOUND_MAX) {
        t->left_out = true;
        return MN_OK;
    }
    MN_TRY(add_path(t, name, hash, slot));
    *number = t->count - 1;
    return MN_OK;
}

/* Notes the value of t->name[0 .. length). *wild: the row cannot be indexed. */
static enum mn_status note(struct mn_meta_paths *t, uint32_t length, const struct mn_meta_value *value, const char *at,
                           bool *wild)
{
    uint32_t number;
    uint64_t offset = (uint64_t)(at - t->meta);
    if (++t->value_count > MN_META_INDEX_VALUES || offset >> MN_META_PLACE_BITS != 0) {
        *wild = true;
        return MN_OK;
    }
    MN_TRY(find_path(t, (struct mn_str){t->name, length}, &number));
    if (number == MN_NONE)
        return MN_OK;
    struct mn_meta_path *path = &t->paths[number];
    if (path->last_row == t->row + 1) {
        *wild = true; /* named twice: which one counts is for mn_meta_find to say */
        return MN_OK;
    }
    path->last_row = t->row + 1;
    t->found[t->found_count++] =
        (struct mn_meta_found){number, (uint32_t)mn_meta_class_of(value) << MN_META_PLACE_BITS | (uint32_t)offset};
    return MN_OK;
}

/* The members of a map whose own name takes `prefix` bytes, its dot included. */
static enum mn_status walk_map(struct mn_meta_paths *t, const struct mn_meta_value *map, uint32_t prefix,
                               uint32_t depth, bool *wild)
{
    struct mn_str in = map->s, key;
    *wild = *wild || depth > MN_META_DEPTH_MAX;
    for (uint32_t i = 0; i < map->count && !*wild; i++) {
        struct mn_meta_value value;
        if (!mn_meta_next_key(&in, &key) || key.length > UINT32_MAX - MN_META_INDEX_NAME_MAX) {
            *wild = true;
            break;
        }
        const char *at = in.data;
        uint32_t length = prefix + key.length;
        if (!mn_meta_next(&in, &value)) {
            *wild = true;
            break;
        }
        if (value.type == MN_META_ARRAY || value.type == MN_META_MAP) {
            in.data += value.s.length;
            in.length -= value.s.length;
        }
        if (length > MN_META_INDEX_NAME_MAX)
            continue; /* and what lies in it has longer ones */
        if (key.length > 0)
            memcpy(t->name + prefix, key.data, key.length);
        MN_TRY(note(t, length, &value, at, wild));
        bool dotted = key.length > 0 && memchr(key.data, '.', key.length);
        if (value.type == MN_META_MAP && !dotted && length < MN_META_INDEX_NAME_MAX && !*wild) {
            t->name[length] = '.';
            MN_TRY(walk_map(t, &value, length + 1, depth + 1, wild));
        }
    }
    return MN_OK;
}

enum mn_status mn_meta_paths_walk(struct mn_meta_paths *t, uint32_t row, struct mn_str meta, bool *wild)
{
    struct mn_meta_value value;
    t->row = row;
    t->meta = meta.data;
    t->found_count = t->value_count = 0;
    *wild = false;
    if (meta.length == 0)
        return MN_OK;
    *wild = !mn_meta_next(&meta, &value);
    if (*wild || value.type != MN_META_MAP)
        return MN_OK;
    return walk_map(t, &value, 0, 1, wild);
}

void mn_meta_paths_again(struct mn_meta_paths *t)
{
    for (uint32_t i = 0; i < t->count; i++)
        t->paths[i].last_row = 0;
}

enum mn_status mn_meta_paths_init(struct mn_meta_paths *t)
{
    t->paths = calloc(MN_META_INDEX_FOUND_MAX, sizeof *t->paths);
    t->slots = calloc(SLOTS, sizeof *t->slots);
    return t->paths && t->slots ? MN_OK : MN_FAIL(MN_SYSTEM, "no memory for the paths of meta");
}

void mn_meta_paths_free(struct mn_meta_paths *t)
{
    free(t->paths);
    free(t->slots);
    free(t->names);
}
