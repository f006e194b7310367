/*
 * tail_coder.h - makes the codes of tail chunks (engine/tail_codes.h): the one writer of their files.
 *
 * It runs in a thread of the compactor, follows the view and polls the published rows of its chunks; the writer of the
 * log knows nothing of it. Rows that come are coded flat, block by block. When there are some thousand of them they are
 * coded by cluster, too, together with those that are already: so a search probes few blocks of a chunk, and all of
 * them only of the rows that came last. A codebook that is newer than a chunk's codes has them made anew. What a coder
 * that died has published goes on being filled; what it has not is made afresh.
 *
 * Memory is reserved before it is written, so a full /dev/shm ends a turn with MN_READ_ONLY and not the process: coding
 * stops where it stands and is tried again after a while. Rows without codes are found all the same.
 */
#ifndef MN_ENGINE_TAIL_CODER_H
#define MN_ENGINE_TAIL_CODER_H

#include "engine/store.h"
#include "shm/instance.h"

#define MN_TAIL_CODER_RETRY_NS    5000000000u
#define MN_TAIL_CODER_SETTLED_NS  200000000u /* a chunk in which nothing has changed for so long rests */
#define MN_TAIL_CODER_CLUSTER_MIN 2048u      /* rows; fewer are scanned flat nearly as fast */
#define MN_TAIL_CODER_REST_MIN    256u       /* flat rows of a chunk that rests; fewer are not worth laying it out */
#define MN_TAIL_CODER_FRESH_SHARE 8u         /* of a chunk, so much may be flat: to lay it out anew costs by its rows */

struct mn_tail_coder;

/* One at a time in an instance; one thread. stats: the compactor's page, or NULL. */
enum mn_status mn_tail_coder_open(struct mn_tail_coder **coder, const struct mn_store *store,
                                  struct mn_instance *instance, struct mn_stats_page *stats) MN_MUST_USE;
/* What was made stays where it is: for readers, and for the next coder. */
void mn_tail_coder_close(struct mn_tail_coder *coder);

/* Off: the next turn removes all codes of the tail, and turns make none, until it is on again. On at first. */
void mn_tail_coder_switch(struct mn_tail_coder *coder, bool on);

/* One turn of a few milliseconds. *worked: rows coded; 0 = there was nothing to do. now_ns: CLOCK_MONOTONIC. A failure
 * is counted, and changes nothing that readers see; the next turn may be called as always. */
enum mn_status mn_tail_coder_turn(struct mn_tail_coder *coder, uint64_t now_ns, uint32_t *worked) MN_MUST_USE;

#endif
