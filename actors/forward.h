/*
 * forward.h - requests that the supervisor hands to the compactor, and whom to tell when it answers.
 *
 * The client's rid is kept here; the request goes on under a number of ours, and the reply comes back under it.
 */
#ifndef MN_ACTORS_FORWARD_H
#define MN_ACTORS_FORWARD_H

#include "actors/link.h"
#include "actors/router.h"
#include "actors/wire_read.h"
#include "actors/wire_reply.h"

#define MN_FORWARD_MAX 32 /* requests under way; more are busy */

struct mn_pending {
    uint64_t number;      /* rid on the line; 0 = free */
    uint64_t deadline_ns; /* UINT64_MAX = none */
    struct mn_peer peer;
    char *rid; /* the client's, msgpack bytes, owned; NULL = none */
    uint32_t rid_bytes;
};

struct mn_forward {
    struct mn_link link;
    struct mn_router *router; /* the control socket: where replies go */
    struct mn_reply *reply;   /* scratch */
    struct mn_pending pending[MN_FORWARD_MAX];
};

/* Opens the line. `router` and `reply` must outlive it. */
enum mn_status mn_forward_open(struct mn_forward *forward, void *zmq, const struct mn_store *store,
                               struct mn_router *router, struct mn_reply *reply) MN_MUST_USE;
/* Refuses what is pending, then closes. */
void mn_forward_close(struct mn_forward *forward);

/* Hands a request on. snapshot: path is where to; consolidate: wait. MN_BUSY when MN_FORWARD_MAX are under way. */
enum mn_status mn_forward_send(struct mn_forward *forward, const struct mn_peer *peer, const struct mn_request *request,
                               const char *path, bool wait) MN_MUST_USE;
/* Relays what has been answered; refuses what is past its deadline. Returns how many. */
uint32_t mn_forward_turn(struct mn_forward *forward, uint64_t now_ns);
/* The earliest deadline, or UINT64_MAX. */
uint64_t mn_forward_next_ns(const struct mn_forward *forward);
/* The compactor has died: all pending requests are answered `unavailable`, and the line is cut. */
void mn_forward_refuse_all(struct mn_forward *forward);

#endif
