/*
 * router.c - a ROUTER socket as the roles use it (see router.h).
 *
 * Nothing here is fatal but a failed bind: a peer that is gone, does not read or sends nonsense costs its own replies.
 */
#include "actors/router.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/store.h"

#define LINGER_MS 1000

static enum mn_status set(void *socket, int option, const void *value, size_t bytes)
{
    if (zmq_setsockopt(socket, option, value, bytes) != 0)
        return MN_FAIL(MN_SYSTEM, "ZeroMQ socket option %d: %s", option, zmq_strerror(errno));
    return MN_OK;
}

static enum mn_status configure(void *socket, const struct mn_router_limits *limits)
{
    int mandatory = 1, linger = LINGER_MS;
    int64_t frame_max = MN_FRAME_BYTES_MAX;
    MN_TRY(set(socket, ZMQ_ROUTER_MANDATORY, &mandatory, sizeof mandatory));
    MN_TRY(set(socket, ZMQ_SNDHWM, &limits->sends, sizeof limits->sends));
    MN_TRY(set(socket, ZMQ_RCVHWM, &limits->receives, sizeof limits->receives));
    MN_TRY(set(socket, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max));
    return set(socket, ZMQ_LINGER, &linger, sizeof linger);
}

/* Two processes never serve one path so. Other transports refuse a second bind by themselves. */
enum mn_status mn_router_guard(struct mn_router *router, const char *endpoint)
{
    static const char scheme[] = "ipc://";
    char path[512];
    if (strncmp(endpoint, scheme, sizeof scheme - 1) != 0)
        return MN_OK;
    int length = snprintf(path, sizeof path, "%s.lock", endpoint + sizeof scheme - 1);
    if (length < 0 || (size_t)length >= sizeof path)
        return MN_FAIL(MN_SYSTEM, "the endpoint %s is too long a path", endpoint);
    return mn_store_lock(path, &router->lock_fd);
}

/* ---- large replies: counted while ZeroMQ holds them ---- */

#define LOAN_ACCOUNTS 1024u /* by hash of the peer's id; two peers may share one */

struct mn_loans {
    _Atomic uint64_t total, peers[LOAN_ACCOUNTS];
    _Atomic uint64_t holders; /* the router, and each loan: the last one frees it (replies outlive their socket) */
};

struct loan {
    struct mn_loans *loans;
    _Atomic uint64_t *account;
    size_t bytes;
    uint8_t data[];
};

static void let_go(struct mn_loans *loans)
{
    if (loans && atomic_fetch_sub(&loans->holders, 1) == 1)
        free(loans);
}

static enum mn_status make(struct mn_router *router, void *zmq)
{
    router->loans = calloc(1, sizeof *router->loans);
    if (!router->loans)
        return MN_FAIL(MN_INTERNAL, "no memory for a socket");
    atomic_store(&router->loans->holders, 1);
    router->socket = zmq_socket(zmq, ZMQ_ROUTER);
    if (!router->socket)
        return MN_FAIL(MN_SYSTEM, "zmq_socket: %s", zmq_strerror(errno));
    return configure(router->socket, &router->limits);
}

enum mn_status mn_router_make(struct mn_router *router, void *zmq, const struct mn_router_limits *limits)
{
    *router = (struct mn_router){.lock_fd = -1, .limits = *limits};
    enum mn_status status = make(router, zmq);
    if (status != MN_OK)
        mn_router_close(router);
    return status;
}

enum mn_status mn_router_bind(struct mn_router *router, void *zmq, const char *endpoint,
                              const struct mn_router_limits *limits)
{
    MN_TRY(mn_router_make(router, zmq, limits));
    enum mn_status status = mn_router_guard(router, endpoint);
    if (status == MN_OK && zmq_bind(router->socket, endpoint) != 0)
        status = MN_FAIL(MN_SYSTEM, "cannot bind %s: %s", endpoint, zmq_strerror(errno));
    if (status != MN_OK)
        mn_router_close(router);
    return status;
}

void mn_router_close(struct mn_router *router)
{
    if (router->socket) {
        zmq_socket_monitor(router->socket, NULL,
                           0); /* one that is closed under its monitor may leave a message behind */
        zmq_close(router->socket);
    }
    if (router->lock_fd >= 0)
        close(router->lock_fd);
    let_go(router->loans);
    *router = (struct mn_router){.lock_fd = -1, .lost = router->lost};
}

/* The rest of a message that has more frames than a request may have; the last one stays in `body`. */
static void drop_rest(void *socket, zmq_msg_t *body)
{
    while (zmq_msg_more(body)) {
        if (zmq_msg_recv(body, socket, ZMQ_DONTWAIT) < 0)
            return;
    }
}

bool mn_peer_is_local(const struct mn_peer *peer)
{
    return strcmp(peer->user, MN_USER_LOCAL) == 0;
}

/* A connection that the gate was not asked about has no user. */
static void take_user(struct mn_peer *peer, zmq_msg_t *body)
{
    const char *user = zmq_msg_gets(body, "User-Id");
    snprintf(peer->user, sizeof peer->user, "%s", user ? user : "");
}

/* A short frame with others behind it: the number that a REQ socket gave its request. */
static bool take_mark(struct mn_peer *peer, zmq_msg_t *body)
{
    size_t bytes = zmq_msg_size(body);
    if (bytes == 0 || bytes > MN_PEER_MARK_MAX || !zmq_msg_more(body))
        return false;
    memcpy(peer->mark, zmq_msg_data(body), bytes);
    peer->mark_bytes = (uint8_t)bytes;
    return true;
}

enum mn_status mn_router_receive(struct mn_router *router, struct mn_peer *peer, zmq_msg_t *body, bool *malformed)
{
    *malformed = false;
    zmq_msg_init(body);
    int bytes = zmq_msg_recv(body, router->socket, ZMQ_DONTWAIT);
    if (bytes < 0 || (size_t)bytes >= MN_PEER_ID_MAX || !zmq_msg_more(body)) {
        zmq_msg_close(body);
        return MN_NOT_FOUND; /* an empty queue is no failure: no sentence, no trail */
    }
    peer->id_bytes = (uint8_t)bytes;
    memcpy(peer->id, zmq_msg_data(body), (size_t)bytes);
    peer->delimiter = false;
    peer->mark_bytes = 0;
    peer->user[0] = '\0';
    if (zmq_msg_recv(body, router->socket, ZMQ_DONTWAIT) < 0)
        goto broken;
    take_user(peer, body);
    if (take_mark(peer, body) && (zmq_msg_recv(body, router->socket, ZMQ_DONTWAIT) < 0 || zmq_msg_size(body) != 0))
        goto broken;
    if (zmq_msg_size(body) == 0 && zmq_msg_more(body)) {
        peer->delimiter = true;
        if (zmq_msg_recv(body, router->socket, ZMQ_DONTWAIT) < 0)
            goto broken;
    }
    *malformed = zmq_msg_more(body) != 0;
    drop_rest(router->socket, body);
    return MN_OK;
broken:
    *malformed = true;
    peer->mark_bytes = 0;
    drop_rest(router->socket, body);
    return MN_OK;
}

enum mn_status mn_router_malformed(void)
{
    return MN_FAIL(MN_BAD_REQUEST,
                   "the request has several frames; it must be one frame, behind an empty one or alone");
}

void mn_held_move(struct mn_held *to, struct mn_held *from)
{
    to->peer = from->peer;
    to->bytes = from->bytes;
    to->received_ns = from->received_ns;
    to->malformed = from->malformed;
    zmq_msg_init(&to->body);
    zmq_msg_move(&to->body, &from->body);
}

/* A frame of a reply. The first one finds out whether the peer can take it. */
static bool send_frame(struct mn_router *router, const void *data, size_t bytes, int flags)
{
    int sent;
    do {
        sent = zmq_send(router->socket, data, bytes, flags | ZMQ_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

/* ---- replies */

/* Called by ZeroMQ, on a thread of its own, when the reply is written or given up. */
static void repay(void *data, void *hint)
{
    struct loan *loan = hint;
    atomic_fetch_sub(&loan->loans->total, loan->bytes);
    atomic_fetch_sub(loan->account, loan->bytes);
    let_go(loan->loans);
    free(loan);
}

static struct loan *lend(struct mn_router *router, const struct mn_peer *peer, const void *data, size_t bytes)
{
    struct mn_loans *loans = router->loans;
    _Atomic uint64_t *account =
        &loans->peers[mn_str_hash((struct mn_str){(const char *)peer->id, peer->id_bytes}) % LOAN_ACCOUNTS];
    if (atomic_load(&loans->total) + bytes > router->limits.all_bytes ||
        atomic_load(account) + bytes > router->limits.peer_bytes)
        return NULL;
    struct loan *loan = malloc(sizeof *loan + bytes);
    if (!loan)
        return NULL;
    *loan = (struct loan){loans, account, bytes};
    memcpy(loan->data, data, bytes);
    atomic_fetch_add(&loans->total, bytes);
    atomic_fetch_add(account, bytes);
    atomic_fetch_add(&loans->holders, 1);
    return loan;
}

static bool send_loan(struct mn_router *router, struct loan *loan)
{
    zmq_msg_t message;
    if (zmq_msg_init_data(&message, loan->data, loan->bytes, repay, loan) != 0) {
        repay(loan->data, loan);
        return false;
    }
    if (zmq_msg_send(&message, router->socket, ZMQ_DONTWAIT) >= 0)
        return true;
    zmq_msg_close(&message); /* repays */
    return false;
}

static bool send_envelope(struct mn_router *router, const struct mn_peer *peer)
{
    if (!send_frame(router, peer->id, peer->id_bytes, ZMQ_SNDMORE))
        return false;
    if (peer->mark_bytes && !send_frame(router, peer->mark, peer->mark_bytes, ZMQ_SNDMORE))
        return false;
    return !peer->delimiter || send_frame(router, "", 0, ZMQ_SNDMORE);
}

void mn_router_reply(struct mn_router *router, const struct mn_peer *peer, const void *data, size_t bytes)
{
    bool large = bytes > MN_LOAN_BYTES;
    struct loan *loan = large ? lend(router, peer, data, bytes) : NULL;
    bool sent = (!large || loan) && send_envelope(router, peer);
    if (sent)
        sent = loan ? send_loan(router, loan) : send_frame(router, data, bytes, 0);
    else if (loan)
        repay(loan->data, loan);
    if (!sent)
        router->lost++;
}
