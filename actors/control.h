/*
 * control.h - the supervisor's sockets: control, stats, the published statistics, and its line to the compactor.
 *
 * Nothing here waits: requests that the compactor must answer (consolidate, snapshot, verify) are noted, forwarded, and
 * relayed when its reply comes, or refused when their deadline passes or the compactor dies.
 */
#ifndef MN_ACTORS_CONTROL_H
#define MN_ACTORS_CONTROL_H

#include <zmq.h>

#include "actors/supervisor.h"

struct mn_control_sockets;

/* Binds control, stats and stats.pub under run/. */
enum mn_status mn_control_open(struct mn_control_sockets **sockets, struct mn_supervisor *s) MN_MUST_USE;
/* Refuses what is still pending, gives replies a moment to leave, frees. NULL is allowed. */
void mn_control_close(struct mn_control_sockets *sockets);

/* What to poll. */
#define MN_CONTROL_ITEMS 3
void mn_control_items(const struct mn_control_sockets *sockets, zmq_pollitem_t items[MN_CONTROL_ITEMS]);

/* Answers what came, relays, publishes statistics when they are due; bounded. Returns how much it did. */
uint32_t mn_control_turn(struct mn_control_sockets *sockets);
/* CLOCK_MONOTONIC of the next deadline or publication. */
uint64_t mn_control_next_ns(const struct mn_control_sockets *sockets);
/* The compactor has ended: what it was asked will not be answered. */
void mn_control_compactor_gone(struct mn_control_sockets *sockets);

#endif
