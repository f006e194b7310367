/*
 * wire_encode.h - memories and hits of a pinned snapshot into a reply.
 *
 * Everything is packed straight from the mapped columns and the log, so the snapshot must stay pinned until these
 * return. A memory carries id, version and the fields that were asked for; content, meta and expires are left out where
 * it has none. What cannot be read is left out and named in `damaged`, so that one bad block does not take the others'
 * answer with it; a memory asked for by its id is MN_CORRUPT then. A reply that grows too large shows in mn_reply_over;
 * packing stops early then.
 */
#ifndef MN_ACTORS_WIRE_ENCODE_H
#define MN_ACTORS_WIRE_ENCODE_H

#include "actors/wire_decode.h"
#include "actors/wire_reply.h"
#include "engine/recall.h"

/* One memory; ref.part MN_NONE: nil. */
enum mn_status mn_encode_memory(struct mn_reply *reply, const struct mn_snapshot *snapshot, struct mn_row_ref ref,
                                const struct mn_want *want) MN_MUST_USE;
/* An array of memories; adds to *damaged how many of them something is left out of. */
enum mn_status mn_encode_memories(struct mn_reply *reply, const struct mn_snapshot *snapshot,
                                  const struct mn_row_ref *refs, uint32_t count, const struct mn_want *want,
                                  uint64_t *damaged) MN_MUST_USE;

/* The hits of a search as an array, with parts (rank) and neighbours in time (context > 0; `reading` is its scratch).
 */
struct mn_encode_hits {
    const struct mn_snapshot *snapshot;
    const struct mn_want *want;
    const struct mn_query *query;
    uint32_t context;
    struct mn_reading *reading;
    uint64_t damaged; /* memories, so far, that something is left out of */
};
enum mn_status mn_encode_hits(struct mn_reply *reply, struct mn_encode_hits *how, const struct mn_hit *hits,
                              uint32_t count) MN_MUST_USE;

#endif
