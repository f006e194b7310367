/*
 * lanes.h - the cases of a plan, spread over processes: one that crashes or hangs is a named case, and the rest goes
 * on.
 */
#ifndef MN_TESTS_LANES_H
#define MN_TESTS_LANES_H

#include "tests/faults/corruption/judge.h"

struct tally {
    uint64_t tried, told, missing, refused; /* cases; those that verify told of, in which something was missing, ... */
    uint64_t undetected, lost, risen, unknown, wrong, unsteady, crashes;
};

struct lanes_result {
    struct tally tallies[DAMAGE_FILES][DAMAGE_KINDS];
    uint64_t finished; /* cases, those that changed nothing included */
    uint64_t ns;
};

/* Runs all cases of the plan on `lanes` processes, each with its locks in a folder of its own below `dir`; each case
 * may take `limit_s` seconds. SIGINT and SIGTERM end it early, with what was done so far. At most `shown` bad ones of
 * each lane are named on stdout. */
void lanes_run(const struct damage_plan *plan, const char *dir, uint32_t lanes, uint32_t limit_s, uint32_t shown,
               struct lanes_result *result);

/* True when a verdict is as it should be; `text` says why not. */
bool lanes_good(const struct damage *damage, const struct verdict *verdict, struct tally *tally, char text[800]);

#endif
