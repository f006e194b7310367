/*
 * parts.h - the parts of the store as their owner sees them: with liveness that it may write, and an index over them.
 *
 * Owner is the WAL writer, or recovery while no writer lives. What happens to an id (a new version, a delete, a
 * suppress, a restore) is decided here once, so that replaying the log gives exactly what the writer did.
 */
#ifndef MN_ENGINE_PARTS_H
#define MN_ENGINE_PARTS_H

#include "engine/columns.h"
#include "engine/index.h"
#include "engine/manifest.h"
#include "engine/tail.h"

struct mn_own_part {
    struct mn_part part;
    uint64_t gen; /* instance_gen of a chunk, live_gen of columns */
    struct mn_tail tail;
    const void *wal;
    uint64_t wal_bytes;
    struct mn_columns *columns;
    struct mn_segment live;
    bool retired; /* in no view any more; its mappings are gone */
};

struct mn_parts {
    struct mn_store store;
    struct mn_instance *instance;
    struct mn_index *index;
    struct mn_own_part **own; /* by the index's part number */
    uint32_t count, max;
};

enum mn_status mn_parts_init(struct mn_parts *parts, const struct mn_store *store,
                             struct mn_instance *instance) MN_MUST_USE;
void mn_parts_free(struct mn_parts *parts);

/* Adds a chunk (tail is moved into the part; the log segment is mapped) or a column segment with an existing liveness
 * file. */
enum mn_status mn_parts_add_chunk(struct mn_parts *parts, struct mn_tail *tail, uint32_t *number) MN_MUST_USE;
enum mn_status mn_parts_add_columns(struct mn_parts *parts, uint64_t segment, uint64_t rows, uint64_t live_gen,
                                    uint32_t *number) MN_MUST_USE;
/* Drops a part's mappings; its number stays taken. */
void mn_parts_retire(struct mn_parts *parts, uint32_t number);
/* The number of the part (not retired), or MN_NONE. */
uint32_t mn_parts_find(const struct mn_parts *parts, bool tail, uint64_t number);

/* Enters every row of a part that is alive or suppressed into the index. */
enum mn_status mn_parts_index(struct mn_parts *parts, uint32_t number) MN_MUST_USE;

/* For whoever enters the rows of a part in order: has the index's place for a row a little ahead fetched. */
void mn_parts_prefetch(const struct mn_parts *parts, uint32_t number, uint32_t row);

/* A change of a died word that waits for its batch to be durable. */
enum mn_mark_kind {
    MN_MARK_DEAD,       /* died = seq */
    MN_MARK_SUPPRESSED, /* died = seq, and it can be restored */
    MN_MARK_GIVEN_UP    /* was suppressed; not restorable any more */
};
struct mn_mark {
    uint32_t part, row;
    uint64_t seq;
    enum mn_mark_kind kind;
};
void mn_parts_mark(struct mn_parts *parts, const struct mn_mark *mark);

/* The steps of an id's life, on the index; each gives the mark that its old version needs. False: nothing to mark.
 *   put       a new version at `place`; what was there before is superseded
 *   remove    delete or purge; also of a suppressed one (mark->kind tells)
 *   suppress  hides what is visible */
enum mn_status mn_parts_put(struct mn_parts *parts, struct mn_str space, const struct mn_id *id, uint64_t hash,
                            struct mn_place place, uint64_t seq, struct mn_mark *mark, bool *marked) MN_MUST_USE;
bool mn_parts_remove(struct mn_parts *parts, struct mn_str space, const struct mn_id *id, uint64_t hash, uint64_t seq,
                     struct mn_mark *mark);
enum mn_status mn_parts_suppress(struct mn_parts *parts, struct mn_str space, const struct mn_id *id, uint64_t hash,
                                 uint64_t seq, struct mn_mark *mark, bool *marked) MN_MUST_USE;

/* Publishes view `gen`: all parts that are not retired, columns in the manifest's order, chunks by number. */
enum mn_status mn_parts_publish(const struct mn_parts *parts, const struct mn_manifest *manifest,
                                uint64_t gen) MN_MUST_USE;

#endif
