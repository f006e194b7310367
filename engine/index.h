/*
 * index.h - the writer's index: (space, id) -> where its newest version is, in memory, private to one process.
 *
 * 1,024 shards of open addressing, each grown on its own, so that no insert ever moves more than one small shard.
 * Entries hold the 64-bit hash; equality of ids is decided by the row itself, through the parts that the owner keeps
 * (mn_index_part). After a compaction a part gets a forward map: entries follow it when they are met, and
 * mn_index_sweep rewrites the rest bit by bit.
 */
#ifndef MN_ENGINE_INDEX_H
#define MN_ENGINE_INDEX_H

#include "engine/part.h"

struct mn_place {
    uint32_t part, row; /* part: index into the parts that were registered */
    bool suppressed;    /* hidden by a suppress: can be restored */
};

struct mn_index;

enum mn_status mn_index_new(struct mn_index **index) MN_MUST_USE;
void mn_index_free(struct mn_index *index);

/* Registers a part; entries name it by the number that comes back. The pointed-to part must live, at that address,
 * until it is forwarded or the index is freed. */
enum mn_status mn_index_part(struct mn_index *index, const struct mn_part *part, uint32_t *number) MN_MUST_USE;

/* From now on rows of `number` are at to[row] = output << 32 | row of parts outputs[output], or nowhere (UINT64_MAX).
 * Both arrays are taken over and freed when no entry can need them. */
void mn_index_forward(struct mn_index *index, uint32_t number, uint64_t *to, uint32_t *outputs);

/* Where the newest version of an id is. False: no version that is alive or suppressed. */
bool mn_index_find(struct mn_index *index, struct mn_str space, const struct mn_id *id, uint64_t hash,
                   struct mn_place *place);
/* The same where only the hash of the space's name is known (it is in `hash`). */
bool mn_index_find_hash(struct mn_index *index, const struct mn_id *id, uint64_t hash, struct mn_place *place);
/* Adds or moves. The row must be filled: later finds compare with it. */
enum mn_status mn_index_put(struct mn_index *index, struct mn_str space, const struct mn_id *id, uint64_t hash,
                            struct mn_place place) MN_MUST_USE;
void mn_index_remove(struct mn_index *index, struct mn_str space, const struct mn_id *id, uint64_t hash);

/* Adds an entry that is known not to be there (a rebuild from parts). */
enum mn_status mn_index_add(struct mn_index *index, uint64_t hash, struct mn_place place) MN_MUST_USE;

/* Room for so many entries in all, so that adding them moves none. A hint: what does not fit grows as ever. */
enum mn_status mn_index_reserve(struct mn_index *index, uint64_t entries) MN_MUST_USE;
/* Has the place of an id that will be asked for soon fetched from memory. */
void mn_index_prefetch(const struct mn_index *index, uint64_t hash);

uint64_t mn_index_entries(const struct mn_index *index);
/* Rewrites forwarded entries of up to `shards` shards; returns how many it looked at, 0 when nothing is forwarded. */
uint32_t mn_index_sweep(struct mn_index *index, uint32_t shards);

#endif
