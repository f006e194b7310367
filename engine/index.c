/*
 * index.c - sharded open addressing with backward-shift deletion (Knuth, TAOCP 3, 6.4, algorithm R), and forwarding.
 */
#include "engine/index.h"

#include <stdlib.h>

#define SHARDS     1024u
#define SHARD_MIN  16u
#define SUPPRESSED (1u << 31)

struct entry {
    uint64_t hash; /* 0 = empty */
    uint32_t part;
    uint32_t row; /* | SUPPRESSED */
};

struct shard {
    struct entry *entries;
    uint32_t mask, count; /* mask + 1 entries; a power of two; mask 0 = none yet */
};

struct part_slot {
    const struct mn_part *part; /* NULL once forwarded */
    uint64_t *to;
    uint32_t *outputs;
};

struct mn_index {
    struct shard shards[SHARDS];
    struct part_slot *parts;
    uint32_t part_count, part_max;
    uint64_t entries;
    uint32_t forwards;   /* parts that are forwarded and not yet released */
    uint32_t sweep_at;   /* next shard */
    uint32_t sweep_left; /* shards until every entry has been seen since the last forward */
};

enum mn_status mn_index_new(struct mn_index **index)
{
    *index = calloc(1, sizeof **index);
    return *index ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory for the index");
}

static void release_forward(struct part_slot *slot)
{
    free(slot->to);
    free(slot->outputs);
    slot->to = NULL;
    slot->outputs = NULL;
}

void mn_index_free(struct mn_index *index)
{
    if (!index)
        return;
    for (uint32_t i = 0; i < SHARDS; i++)
        free(index->shards[i].entries);
    for (uint32_t i = 0; i < index->part_count; i++)
        release_forward(&index->parts[i]);
    free(index->parts);
    free(index);
}

enum mn_status mn_index_part(struct mn_index *index, const struct mn_part *part, uint32_t *number)
{
    if (index->part_count == index->part_max) {
        uint32_t max = index->part_max ? index->part_max * 2 : 64;
        struct part_slot *parts = realloc(index->parts, max * sizeof *parts);
        if (!parts)
            return MN_FAIL(MN_INTERNAL, "no memory for the index's parts");
        index->parts = parts;
        index->part_max = max;
    }
    *number = index->part_count;
    index->parts[index->part_count++] = (struct part_slot){.part = part};
    return MN_OK;
}

void mn_index_forward(struct mn_index *index, uint32_t number, uint64_t *to, uint32_t *outputs)
{
    struct part_slot *slot = &index->parts[number];
    slot->part = NULL;
    slot->to = to;
    slot->outputs = outputs;
    index->forwards++;
    index->sweep_left = SHARDS;
}

/* Follows forwards; false when the row was dropped. */
static bool follow(const struct mn_index *index, struct entry *e)
{
    while (!index->parts[e->part].part) {
        const struct part_slot *slot = &index->parts[e->part];
        if (!slot->to)
            return false;
        uint64_t to = slot->to[e->row & ~SUPPRESSED];
        if (to == UINT64_MAX)
            return false;
        e->part = slot->outputs[to >> 32];
        e->row = (uint32_t)to | (e->row & SUPPRESSED);
    }
    return true;
}

static struct shard *shard_of(struct mn_index *index, uint64_t hash)
{
    return &index->shards[hash >> 54];
}

static void delete_at(struct mn_index *index, struct shard *shard, uint32_t hole)
{
    for (uint32_t i = (hole + 1) & shard->mask; shard->entries[i].hash != 0; i = (i + 1) & shard->mask) {
        uint32_t home = (uint32_t)shard->entries[i].hash & shard->mask;
        /* An entry may fill the hole when its home is not between hole (exclusive) and itself, going round. */
        if (((i - home) & shard->mask) < ((i - hole) & shard->mask))
            continue;
        shard->entries[hole] = shard->entries[i];
        hole = i;
    }
    shard->entries[hole].hash = 0;
    shard->count--;
    index->entries--;
}

/* space NULL: any that has this hash. */
static bool same_id(const struct mn_index *index, const struct entry *e, const struct mn_str *space,
                    const struct mn_id *id)
{
    const struct mn_part *part = index->parts[e->part].part;
    uint32_t row = e->row & ~SUPPRESSED;
    return mn_id_equal(mn_part_id(part, row), id) &&
           (!space || mn_str_equal(mn_part_string(part, mn_part_space(part, row)), *space));
}

static struct entry *find(struct mn_index *index, const struct mn_str *space, const struct mn_id *id, uint64_t hash)
{
    struct shard *shard = shard_of(index, hash);
    if (!shard->entries)
        return NULL;
    for (uint32_t i = (uint32_t)hash & shard->mask; shard->entries[i].hash != 0;) {
        struct entry *e = &shard->entries[i];
        if (e->hash == hash && !follow(index, e)) {
            delete_at(index, shard, i); /* compaction dropped the row; what moved into its place is looked at next */
            continue;
        }
        if (e->hash == hash && same_id(index, e, space, id))
            return e;
        i = (i + 1) & shard->mask;
    }
    return NULL;
}

static bool place_of(const struct entry *e, struct mn_place *place)
{
    if (e)
        *place = (struct mn_place){e->part, e->row & ~SUPPRESSED, (e->row & SUPPRESSED) != 0};
    return e != NULL;
}

bool mn_index_find(struct mn_index *index, struct mn_str space, const struct mn_id *id, uint64_t hash,
                   struct mn_place *place)
{
    return place_of(find(index, &space, id, hash), place);
}

bool mn_index_find_hash(struct mn_index *index, const struct mn_id *id, uint64_t hash, struct mn_place *place)
{
    return place_of(find(index, NULL, id, hash), place);
}

static void insert(struct shard *shard, struct entry e)
{
    uint32_t i = (uint32_t)e.hash & shard->mask;
    while (shard->entries[i].hash != 0)
        i = (i + 1) & shard->mask;
    shard->entries[i] = e;
    shard->count++;
}

static enum mn_status grow_to(struct shard *shard, uint32_t size)
{
    struct shard bigger = {.entries = calloc(size, sizeof *bigger.entries), .mask = size - 1};
    if (!bigger.entries)
        return MN_FAIL(MN_INTERNAL, "no memory for the index");
    for (uint32_t i = 0; shard->entries && i <= shard->mask; i++)
        if (shard->entries[i].hash != 0)
            insert(&bigger, shard->entries[i]);
    free(shard->entries);
    *shard = bigger;
    return MN_OK;
}

static bool is_full(const struct shard *shard, uint64_t count)
{
    return !shard->entries || count * 3 > ((uint64_t)shard->mask + 1) * 2; /* at most two thirds: probes stay short */
}

enum mn_status mn_index_reserve(struct mn_index *index, uint64_t entries)
{
    uint64_t share = entries / SHARDS, wanted = share + share / 16; /* hashes spread evenly, but not exactly so */
    uint32_t size = SHARD_MIN;
    while (size < UINT32_C(1) << 30 && wanted * 3 > (uint64_t)size * 2)
        size *= 2;
    for (uint32_t i = 0; i < SHARDS; i++)
        if (is_full(&index->shards[i], wanted))
            MN_TRY(grow_to(&index->shards[i], size));
    return MN_OK;
}

void mn_index_prefetch(const struct mn_index *index, uint64_t hash)
{
    const struct shard *shard = &index->shards[hash >> 54];
    __builtin_prefetch(shard->entries + ((uint32_t)hash & shard->mask)); /* of an empty shard NULL: harmless */
}

static struct entry entry_of(uint64_t hash, struct mn_place place)
{
    return (struct entry){hash, place.part, place.row | (place.suppressed ? SUPPRESSED : 0)};
}

enum mn_status mn_index_add(struct mn_index *index, uint64_t hash, struct mn_place place)
{
    struct shard *shard = shard_of(index, hash);
    if (is_full(shard, (uint64_t)shard->count + 1))
        MN_TRY(grow_to(shard, shard->entries ? (shard->mask + 1) * 2 : SHARD_MIN));
    insert(shard, entry_of(hash, place));
    index->entries++;
    return MN_OK;
}

enum mn_status mn_index_put(struct mn_index *index, struct mn_str space, const struct mn_id *id, uint64_t hash,
                            struct mn_place place)
{
    struct entry *e = find(index, &space, id, hash);
    if (!e)
        return mn_index_add(index, hash, place);
    *e = entry_of(hash, place);
    return MN_OK;
}

void mn_index_remove(struct mn_index *index, struct mn_str space, const struct mn_id *id, uint64_t hash)
{
    const struct entry *e = find(index, &space, id, hash);
    if (e) {
        struct shard *shard = shard_of(index, hash);
        delete_at(index, shard, (uint32_t)(e - shard->entries));
    }
}

uint64_t mn_index_entries(const struct mn_index *index)
{
    return index->entries;
}

static void sweep_shard(struct mn_index *index, struct shard *shard)
{
    for (uint32_t i = 0; shard->entries && i <= shard->mask;) {
        if (shard->entries[i].hash != 0 && !follow(index, &shard->entries[i]))
            delete_at(index, shard, i);
        else
            i++;
    }
}

uint32_t mn_index_sweep(struct mn_index *index, uint32_t shards)
{
    if (index->forwards == 0)
        return 0;
    uint32_t done = 0;
    for (; done < shards && index->sweep_left > 0; done++, index->sweep_left--) {
        sweep_shard(index, &index->shards[index->sweep_at]);
        index->sweep_at = (index->sweep_at + 1) % SHARDS;
    }
    if (index->sweep_left == 0) {
        for (uint32_t i = 0; i < index->part_count; i++)
            if (!index->parts[i].part)
                release_forward(&index->parts[i]);
        index->forwards = 0;
    }
    return done + 1;
}
