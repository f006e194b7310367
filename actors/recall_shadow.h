/*
 * recall_shadow.h - what the search really finds: one approximate recall in `recall.shadow_every` is answered again,
 * exactly, after its reply has left.
 *
 * The fast lane keeps the memories of the answer that is due; a thread of the slow lane searches again as of the same
 * seq and compares. Nobody waits for it: when the slow lane has anything else to do, the shadow is dropped.
 */
#ifndef MN_ACTORS_RECALL_SHADOW_H
#define MN_ACTORS_RECALL_SHADOW_H

#include "actors/wire_decode.h"
#include "engine/recall.h"

#define MN_SHADOW_K_MAX 256 /* recalls of more memories are not shadowed */

struct mn_shadow_memory {
    struct mn_id id;
    uint64_t space; /* hash of its name */
};

/* What a recall answered, and of when. On the heap, in one piece. */
struct mn_shadow_answer {
    uint64_t seq;
    int64_t now; /* wall clock at which the request was decoded, ns */
    uint32_t count;
    struct mn_shadow_memory memories[];
};

/* The fast lane's side; begins as zeros. */
struct mn_recall_shadow {
    uint64_t every;  /* 0: never */
    uint64_t passed; /* recalls since the last one that was due */
    struct mn_shadow_answer *due;
};

/* Counts a recall that was answered, and keeps what it found when it is due. The snapshot is pinned. Batches, exact
 * ones and those of a past moment do not count. */
void mn_recall_shadow_note(struct mn_recall_shadow *shadow, const struct mn_recall_request *asked, int64_t now,
                           const struct mn_snapshot *snapshot, const struct mn_search *search);
/* The answer that is due, the caller's to free; NULL when there is none. */
struct mn_shadow_answer *mn_recall_shadow_take(struct mn_recall_shadow *shadow);

/* How long no other answer is checked after a check that took took_ns. Where embeddings are more than memory holds
 * (`scattered`, see mn_columns_scattered) each reads most of them, and pushes out what recalls need. */
uint64_t mn_recall_shadow_rest(uint64_t took_ns, bool scattered);

/* How many of the hits of an exact search the answer holds. The snapshot is pinned. */
uint32_t mn_recall_shadow_found(const struct mn_shadow_answer *answer, const struct mn_snapshot *snapshot,
                                const struct mn_search *search);

#endif
