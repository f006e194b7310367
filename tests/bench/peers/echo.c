/*
 * echo.c - the sockets without Mneme: a ROUTER on an ipc path that answers frames of the same sizes (see peers.h).
 *
 * zmq-echo does nothing else. zmq-busy is asked to work first, for as long as the worker worked on the same query, and
 * to read as much memory: processors that sleep longer between two messages wake later, and caches are cold by then, so
 * what it takes beyond the echo and that work is what the sockets and this machine make of a pause.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <zmq.h>

#include "tests/bench/peers/peers.h"

enum { REQUEST_EXTRA = 100, ANSWER_MAX = 1 << 20, PAGE = 4096, WORK_BYTES = 1 << 20, ARENA_BYTES = 64 << 20 };

/* The head of a request. */
struct order {
    uint32_t bytes, work_ns;
};

struct echo {
    pid_t pid;
    char endpoint[256];
    void *context, *socket;
    size_t request_bytes;
    char *request, *reply;
};

/* ---- the server, a child ---- */

/* A page now and a page then, until all is read, and on until the time is over. */
static void work(const char *arena, uint32_t ns)
{
    static size_t at;
    static volatile uint64_t sink;
    uint64_t until = peer_now_ns() + ns, sum = 0;
    for (size_t done = 0; ns > 0 && peer_now_ns() < until; done += PAGE) {
        for (size_t i = 0; done < WORK_BYTES && i < PAGE; i += 64)
            sum += (uint64_t)arena[(at + i) % ARENA_BYTES];
        at = (at + PAGE) % ARENA_BYTES;
    }
    sink = sum;
    (void)sink;
}

/* As a worker's loop: waits in zmq_poll, takes all that came. */
static _Noreturn void serve(const char *endpoint)
{
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_ROUTER);
    static char answer[ANSWER_MAX];
    char *arena = malloc(ARENA_BYTES);
    if (!socket || !arena || zmq_bind(socket, endpoint) != 0)
        _exit(1);
    memset(arena, 1, ARENA_BYTES);
    for (;;) {
        zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
        zmq_msg_t peer, body;
        if (zmq_poll(&item, 1, -1) < 0 && errno != EINTR)
            _exit(1);
        for (;;) {
            struct order order = {0};
            zmq_msg_init(&peer);
            zmq_msg_init(&body);
            if (zmq_msg_recv(&peer, socket, ZMQ_DONTWAIT) < 0)
                break;
            if (zmq_msg_recv(&body, socket, 0) >= (int)sizeof order)
                memcpy(&order, zmq_msg_data(&body), sizeof order);
            zmq_msg_close(&body);
            work(arena, order.work_ns);
            zmq_msg_send(&peer, socket, ZMQ_SNDMORE);
            zmq_send(socket, answer, order.bytes < ANSWER_MAX ? order.bytes : ANSWER_MAX, 0);
        }
    }
}

/* ---- the client ---- */

static void echo_begin(struct peer *self, const struct peer_data *data, const char *dir)
{
    struct echo *e = calloc(1, sizeof *e);
    snprintf(e->endpoint, sizeof e->endpoint, "ipc://%s/%s", dir, self->name);
    e->pid = fork();
    if (e->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(e->endpoint);
    }
    e->context = zmq_ctx_new();
    e->socket = zmq_socket(e->context, ZMQ_DEALER);
    int linger = 0;
    zmq_setsockopt(e->socket, ZMQ_LINGER, &linger, sizeof linger);
    if (e->pid < 0 || zmq_connect(e->socket, e->endpoint) != 0)
        peer_die("cannot start the echo server");
    e->request_bytes = data->dim * sizeof(float) + REQUEST_EXTRA;
    e->request = calloc(1, e->request_bytes);
    e->reply = malloc(ANSWER_MAX);
    self->state = e;
}

static void plain_begin(struct peer *self, const struct peer_data *data, const char *dir)
{
    echo_begin(self, data, dir);
    snprintf(self->note, sizeof self->note, "ROUTER and DEALER on ipc, frames of the same sizes, nothing else");
}

static void busy_begin(struct peer *self, const struct peer_data *data, const char *dir)
{
    echo_begin(self, data, dir);
    snprintf(self->note, sizeof self->note, "the same, after as long a work as the worker's on the query");
}

static void echo_end(struct peer *self)
{
    struct echo *e = self->state;
    zmq_close(e->socket);
    zmq_ctx_term(e->context);
    kill(e->pid, SIGKILL);
    waitpid(e->pid, NULL, 0);
    unlink(e->endpoint + sizeof "ipc://" - 1);
    free(e->request);
    free(e->reply);
    free(e);
}

static void echo_tune(struct peer *self, double knob)
{
}

static uint32_t ask(struct echo *e, double work_us, uint64_t *scanned)
{
    struct order order = {.bytes = (uint32_t)peer_zeromq_reply_bytes, .work_ns = (uint32_t)(work_us * 1e3)};
    memcpy(e->request, &order, sizeof order);
    if (zmq_send(e->socket, e->request, e->request_bytes, 0) < 0 || zmq_recv(e->socket, e->reply, ANSWER_MAX, 0) < 0)
        peer_die("the echo server is gone: %s", zmq_strerror(errno));
    *scanned = 0;
    return 0;
}

static uint32_t plain_ask(struct peer *self, const float *query, uint32_t *ids, uint64_t *scanned)
{
    return ask(self->state, 0, scanned);
}

static uint32_t busy_ask(struct peer *self, const float *query, uint32_t *ids, uint64_t *scanned)
{
    return ask(self->state, peer_zeromq_worker_us, scanned);
}

static void echo_cost(struct peer *self, struct peer_cost *cost)
{
    *cost = (struct peer_cost){0};
}

const struct peer peer_echo = {
    .name = "zmq-echo", .open = plain_begin, .close = echo_end, .tune = echo_tune, .ask = plain_ask, .cost = echo_cost};
const struct peer peer_busy = {
    .name = "zmq-busy", .open = busy_begin, .close = echo_end, .tune = echo_tune, .ask = busy_ask, .cost = echo_cost};
