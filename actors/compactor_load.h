/*
 * compactor_load.h - how busy recall is, from its statistics: what the compactor gives way to.
 */
#ifndef MN_ACTORS_COMPACTOR_LOAD_H
#define MN_ACTORS_COMPACTOR_LOAD_H

#include "config/settings.h"
#include "shm/stats.h"

/* Rates are of the last full window, so that one slow recall does not stop a compaction for ever. */
#define MN_LOAD_WINDOW_NS 250000000u

struct mn_load {
    uint64_t began_ns; /* of the window; 0 = none yet */
    uint64_t requests;
    uint64_t buckets[MN_HISTOGRAM_BUCKETS];
    uint64_t rate;   /* recalls per second in the last full window */
    uint64_t p99_us; /* of those; 0 = none */
};

/* Looks at the statistics; ends the window when it is over. */
void mn_load_look(struct mn_load *load, const struct mn_stats *stats, uint64_t now_ns);
/* The same from numbers. */
void mn_load_note(struct mn_load *load, uint64_t requests, const uint64_t buckets[MN_HISTOGRAM_BUCKETS],
                  uint64_t now_ns);

/* Few recalls, and none of them slow: start something. */
bool mn_load_idle(const struct mn_load *load, const struct mn_settings *settings);
/* Recalls are slower than they should be: step back. */
bool mn_load_suffers(const struct mn_load *load, const struct mn_settings *settings);

#endif
