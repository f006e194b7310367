/*
 * client.h - what the files of libmneme share: the client, its lanes (sockets) and the requests in flight. Private.
 */
#ifndef MNEME_CLIENTS_C_CLIENT_H
#define MNEME_CLIENTS_C_CLIENT_H

#include "clients/c/mneme.h"
#include "clients/c/spin.h"

#include <zmq.h>

#define MN_CLIENT_MS 1000000ull /* a millisecond, of nanoseconds */

enum {
    MN_CLIENT_RECALL_MAX = 64,                  /* recall workers a client knows */
    MN_CLIENT_LANES = 3 + MN_CLIENT_RECALL_MAX, /* control, write, stats, recall.n */
    MN_CLIENT_FIRST_RECALL = 3,
    MN_CLIENT_ERROR_SIZE = 512,
    MN_CLIENT_IDEM_SIZE = 65,    /* the protocol's 64 bytes and NUL */
    MN_CLIENT_RECONNECT_MS = 20, /* how soon a broken connection is tried again, and a lost request sent again */
};

/* One endpoint. The sockets are made at first use and again after a loss. */
struct mn_lane {
    char *endpoint;            /* NULL until discovered */
    void *socket;              /* DEALER, NULL while closed */
    void *monitor;             /* PAIR that hears when the socket's connection breaks */
    int socket_fd, monitor_fd; /* where ZeroMQ shows, once, that there is news */
};

enum mn_pending_state { MN_PENDING_FREE, MN_PENDING_WAITING, MN_PENDING_OUT, MN_PENDING_DONE };

/* One submitted request. WAITING: to be sent at send_at_ns. OUT: sent, counts as lost at lost_ns. All times monotonic.
 */
struct mn_pending {
    enum mn_pending_state state;
    enum mneme_service service;
    unsigned lane;
    bool resendable; /* the store may see it twice without harm */
    bool ever_lost;  /* a copy was sent whose reply never came */
    unsigned tries;
    uint64_t ticket;
    uint64_t send_at_ns;
    uint64_t sent_ns;
    uint64_t lost_ns;
    uint64_t give_up_ns;
    uint64_t resend_ns; /* silence that counts as loss; 0: only a broken connection does */
    int timeout_ms;
    uint8_t *frame;
    size_t size;
    enum mneme_code code; /* of the last reply, then of the outcome */
    char error[MN_CLIENT_ERROR_SIZE];
    struct mneme_reply *reply;
};

struct mneme {
    void *context;
    bool owns_context;
    char *server_key, *public_key, *secret_key;
    int timeout_ms, default_timeout_ms, slow_timeout_ms, resend_ms;
    struct mn_lane lanes[MN_CLIENT_LANES];
    unsigned recall_count;
    unsigned recall_next; /* the worker that serves this client; moves on when it is lost */
    uint64_t next_ticket;
    uint64_t idem_prefix;
    uint64_t random_state;
    struct mn_spin spin; /* of recalls that are waited for one by one */
    unsigned in_flight;
    struct mn_pending pending[MNEME_IN_FLIGHT_MAX];
    uint32_t dim;
    char uuid[37];
    char metric[16];
    char last_idem[MN_CLIENT_IDEM_SIZE];
    char error[MN_CLIENT_ERROR_SIZE];
};

/* Records a sentence in the client and returns `code`. */
enum mneme_code mn_client_fail(struct mneme *client, enum mneme_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* What mneme_open_error will say to this thread. */
void mn_client_note_open_error(const char *text);

/* A number at random: spreads retries apart, keeps names apart, nothing more. */
uint64_t mn_client_draw(struct mneme *client);

/* lane.c. Opening is harmless when it is open; false with errno when it fails. */
bool mn_lane_open(struct mneme *client, struct mn_lane *lane);
void mn_lane_close(struct mn_lane *lane);
/* Reads the monitor empty; true when the connection broke, or could not be made. */
bool mn_lane_heard_break(struct mn_lane *lane);
/* Whether a reply is there that the descriptor may not show: a send may have taken the news of it in. */
bool mn_lane_has_reply(struct mn_lane *lane);

/* exchange.c: closes every socket and drops every request. */
void mn_exchange_close(struct mneme *client);
/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t mn_exchange_now(void);

/* reply.c: takes over `message` (also on failure); NULL when out of memory. */
struct mneme_reply *mn_reply_from_message(zmq_msg_t *message);

#endif
