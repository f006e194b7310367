/*
 * compactor_codes.h - the compactor's second thread: it keeps the codes of the tail up to date (engine/tail_coder.h).
 *
 * New rows must be coded within milliseconds, whatever compaction is under way: hence a thread of its own. It shares
 * nothing with the role's main thread but the statistics page and the log.
 */
#ifndef MN_ACTORS_COMPACTOR_CODES_H
#define MN_ACTORS_COMPACTOR_CODES_H

#include "actors/actor.h"

struct mn_compactor_codes;

/* Starts the thread. Without it (no memory, no thread) recall compares the rows of the tail as they are: that is logged
 * and not a failure; *codes is then NULL. `actor` must outlive it. */
void mn_compactor_codes_start(struct mn_compactor_codes **codes, struct mn_actor *actor);
/* Whether there are to be codes (index.rows_min is not 0). Costs nothing when nothing changes. NULL does nothing. */
void mn_compactor_codes_switch(struct mn_compactor_codes *codes, bool on);
/* Ends it; waits for its turn to end, some milliseconds. NULL does nothing. */
void mn_compactor_codes_stop(struct mn_compactor_codes *codes);

#endif
