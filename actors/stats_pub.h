/*
 * stats_pub.h - the published statistics: `stats` and JSON, each stats.interval, to whoever subscribes to stats.pub.
 *
 * A subscriber that does not read loses some; nobody waits for it, and what waits for it is a few messages.
 */
#ifndef MN_ACTORS_STATS_PUB_H
#define MN_ACTORS_STATS_PUB_H

#include "actors/gate.h"

struct mn_stats_pub {
    void *socket;
    struct mn_gate *gate;
    uint64_t subscriptions, most;
};

/* Makes the socket and binds it. Closed also after a failure. */
enum mn_status mn_stats_pub_open(struct mn_stats_pub *pub, void *zmq, struct mn_gate *gate,
                                 const struct mn_settings *settings) MN_MUST_USE;
/* Harmless on a closed one. */
void mn_stats_pub_close(struct mn_stats_pub *pub);
/* Sends once, without waiting; counts who has subscribed meanwhile and drops all when there are too many. */
void mn_stats_pub_send(struct mn_stats_pub *pub, const struct mn_stats *stats);

#endif
