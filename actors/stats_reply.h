/*
 * stats_reply.h - every statistic in the three forms that are asked for.
 */
#ifndef MN_ACTORS_STATS_REPLY_H
#define MN_ACTORS_STATS_REPLY_H

#include "actors/wire_reply.h"
#include "shm/stats.h"

/* Packs the map {name: value | {count, sum, max, p50, p90, p99, p999}}. */
void mn_stats_pack(const struct mn_stats *stats, struct mn_reply *reply);
/* The same as JSON text, and as Prometheus' text format; malloc'd, NULL without memory. */
char *mn_stats_json(const struct mn_stats *stats);
char *mn_stats_prometheus(const struct mn_stats *stats);

#endif
