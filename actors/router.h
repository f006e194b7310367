/*
 * router.h - a ROUTER socket as the roles use it: requests in, replies out, nobody who does not read can hurt.
 *
 * ZMQ_ROUTER_MANDATORY, DONTWAIT, high-water marks, ZMQ_MAXMSGSIZE and LINGER are set before bind. An ipc path is
 * guarded by a lock file beside it (libzmq would steal a path that another process serves).
 */
#ifndef MN_ACTORS_ROUTER_H
#define MN_ACTORS_ROUTER_H

#include <zmq.h>

#include "actors/wire.h"
#include "engine/types.h"

#define MN_PEER_MARK_MAX 16
#define MN_PEER_ID_MAX   256 /* bytes of a ROUTER identity (ZeroMQ: at most 255) */
#define MN_USER_MAX      41  /* a key in Z85 and NUL */

/* Users that are no key: a process of this host, and whoever comes over TCP where that has no keys. */
#define MN_USER_LOCAL "local"
#define MN_USER_PLAIN "plain"

/* Replies above MN_LOAN_BYTES are counted until ZeroMQ has let go of them. A peer that does not read is so no burden on
 * the memory of the others. */
#define MN_LOAN_BYTES (4u << 10)

/* How much may wait. */
struct mn_router_limits {
    int sends;           /* replies for one peer */
    int receives;        /* requests of one peer, each of at most MN_FRAME_BYTES_MAX */
    uint64_t peer_bytes; /* of replies above MN_LOAN_BYTES for one peer */
    uint64_t all_bytes;  /* and for all peers together */
};

struct mn_loans;

struct mn_router {
    void *socket;
    int lock_fd;
    uint64_t lost; /* replies dropped: peer gone, or its queue full */
    struct mn_router_limits limits;
    struct mn_loans *loans;
};

/* A socket with all its options, to be bound. */
enum mn_status mn_router_make(struct mn_router *router, void *zmq, const struct mn_router_limits *limits) MN_MUST_USE;
/* Takes <path>.lock of an ipc endpoint, before it is bound; nothing for another. */
enum mn_status mn_router_guard(struct mn_router *router, const char *endpoint) MN_MUST_USE;
/* All of it, for a socket that nobody has to guard: who connects is served. */
enum mn_status mn_router_bind(struct mn_router *router, void *zmq, const char *endpoint,
                              const struct mn_router_limits *limits) MN_MUST_USE;
void mn_router_close(struct mn_router *router);

/* Whom to answer, and in which form it asked. Small, copied freely. */
struct mn_peer {
    uint8_t id[MN_PEER_ID_MAX];
    uint8_t id_bytes;
    bool delimiter;                 /* an empty frame came first: echo it */
    uint8_t mark[MN_PEER_MARK_MAX]; /* a REQ socket with ZMQ_REQ_CORRELATE numbers its requests before the empty frame:
                                       echoed */
    uint8_t mark_bytes;
    char user[MN_USER_MAX]; /* as the gate has it (gate.h); empty: it was not asked */
};
bool mn_peer_is_local(const struct mn_peer *peer);

/* A request as it came, to be answered later. Its frame is owned. */
struct mn_held {
    struct mn_peer peer;
    zmq_msg_t body;
    size_t bytes; /* of the frame */
    uint64_t received_ns;
    bool malformed;
};
/* Moves a frame and what belongs to it; `to` holds nothing before, `from` an empty frame afterwards. */
void mn_held_move(struct mn_held *to, struct mn_held *from);

/* Takes one request without waiting; the caller closes `body` (zmq_msg_close). MN_NOT_FOUND when there is none. A
 * request of the wrong number of frames comes with *malformed set (its body is whatever frame came). */
enum mn_status mn_router_receive(struct mn_router *router, struct mn_peer *peer, zmq_msg_t *body,
                                 bool *malformed) MN_MUST_USE;

/* The failure that a malformed request is answered with. */
enum mn_status mn_router_malformed(void) MN_MUST_USE;

/* Hands a reply over without waiting; `data` may be reused at once. A peer that is gone, or does not read, loses it
 * (router->lost). */
void mn_router_reply(struct mn_router *router, const struct mn_peer *peer, const void *data, size_t bytes);

#endif
