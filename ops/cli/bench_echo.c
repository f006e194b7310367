/*
 * bench_echo.c - the way over ZeroMQ alone: a ROUTER that answers frames of the sizes of a recall and does nothing
 * else.
 *
 * What a recall takes at the client, less this, less its time in the worker, is what the worker and the client library
 * add to the sockets.
 */
#include "ops/cli/bench.h"
#include "ops/cli/cli_time.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { REQUEST_EXTRA = 100, REPLY_BASE = 60, REPLY_HIT = 36, WAIT_MS = 20, REPLY_MS = 5000, QUERIES = 5000 };

struct echo {
    char endpoint[64];
    size_t request_bytes, reply_bytes;
};

static bool stopping(const struct mn_bench_shared *shared)
{
    return atomic_load_explicit(&shared->phase, memory_order_relaxed) == MN_BENCH_STOP;
}

static void serve_all(void *socket, const struct echo *e, const void *answer)
{
    zmq_msg_t peer, body;
    for (;;) {
        zmq_msg_init(&peer);
        zmq_msg_init(&body);
        if (zmq_msg_recv(&peer, socket, ZMQ_DONTWAIT) < 0)
            return;
        zmq_msg_recv(&body, socket, ZMQ_DONTWAIT);
        zmq_msg_close(&body);
        if (zmq_msg_send(&peer, socket, ZMQ_SNDMORE) < 0)
            zmq_msg_close(&peer);
        else
            zmq_send(socket, answer, e->reply_bytes, 0);
    }
}

static enum mn_status serve(struct mn_bench_shared *shared, struct mn_bench_client *me, size_t index, const void *work)
{
    const struct echo *e = work;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_ROUTER), *answer = calloc(1, e->reply_bytes);
    enum mn_status status = MN_OK;
    if (!socket || !answer || zmq_bind(socket, e->endpoint) != 0)
        status = MN_FAIL(MN_SYSTEM, "cannot bind %s: %s", e->endpoint, zmq_strerror(errno));
    atomic_store(&me->ready, 1);
    while (status == MN_OK && !stopping(shared)) {
        zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, WAIT_MS) > 0)
            serve_all(socket, e, answer);
    }
    free(answer);
    if (socket)
        zmq_close(socket);
    zmq_ctx_term(context);
    return status;
}

static enum mn_status ask_echo(struct mn_bench_shared *shared, struct mn_bench_client *me, void *socket,
                               const struct echo *e, const void *request, void *reply)
{
    uint64_t began = mn_cli_time_monotonic();
    if (zmq_send(socket, request, e->request_bytes, 0) < 0 || zmq_recv(socket, reply, e->reply_bytes, 0) < 0)
        return MN_FAIL(MN_SYSTEM, "the echo: %s", zmq_strerror(errno));
    if (atomic_load_explicit(&shared->phase, memory_order_relaxed) == MN_BENCH_MEASURE) {
        mn_cli_hist_add(&me->latency_ns, mn_cli_time_monotonic() - began);
        atomic_fetch_add_explicit(&me->measured, 1, memory_order_relaxed);
    }
    return MN_OK;
}

static enum mn_status ask(struct mn_bench_shared *shared, struct mn_bench_client *me, size_t index, const void *work)
{
    const struct echo *e = work;
    int linger = 0, wait_ms = REPLY_MS;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    void *request = calloc(1, e->request_bytes), *reply = calloc(1, e->reply_bytes);
    enum mn_status status = MN_OK;
    if (!socket || !request || !reply || zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms) != 0 || zmq_connect(socket, e->endpoint) != 0)
        status = MN_FAIL(MN_SYSTEM, "cannot connect to %s: %s", e->endpoint, zmq_strerror(errno));
    atomic_store(&me->ready, 1);
    while (status == MN_OK && atomic_load(&shared->phase) == MN_BENCH_PREPARE)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    while (status == MN_OK && !stopping(shared))
        status = ask_echo(shared, me, socket, e, request, reply);
    free(request);
    free(reply);
    if (socket)
        zmq_close(socket);
    zmq_ctx_term(context);
    return status;
}

static enum mn_status measure(struct mn_bench_load *load, const struct echo *e, double *p50_us, json_t *report)
{
    MN_TRY(mn_bench_load_init(load));
    MN_TRY(mn_bench_load_fork(load, serve, e));
    MN_TRY(mn_bench_load_wait_ready(load));
    MN_TRY(mn_bench_load_fork(load, ask, e));
    MN_TRY(mn_bench_load_wait_ready(load));
    MN_TRY(mn_bench_load_run(load, MN_BENCH_WARM, 0.2));
    while (atomic_load(&load->shared->clients[1].measured) < QUERIES)
        MN_TRY(mn_bench_load_run(load, MN_BENCH_MEASURE, 0.01));
    MN_TRY(mn_bench_load_stop(load));
    struct mn_cli_hist *hist = mn_bench_load_latency(load, 1, 2, false);
    if (!hist)
        return MN_FAIL(MN_INTERNAL, "out of memory");
    mn_bench_put_quantiles(report, "echo_us", hist, 1e3);
    *p50_us = (double)mn_cli_hist_quantile(hist, .5) / 1e3;
    free(hist);
    return MN_OK;
}

enum mn_status mn_bench_echo(const struct mn_bench_cluster *cluster, uint64_t k, double *p50_us, json_t *report)
{
    struct mn_bench_load load = {0};
    struct echo e = {.request_bytes = cluster->dim * sizeof(float) + REQUEST_EXTRA,
                     .reply_bytes = REPLY_BASE + (size_t)k * REPLY_HIT};
    snprintf(e.endpoint, sizeof e.endpoint, "ipc:///tmp/mneme-bench-echo.%d", (int)getpid());
    enum mn_status status = measure(&load, &e, p50_us, report);
    mn_bench_load_end(&load);
    unlink(e.endpoint + sizeof "ipc://" - 1);
    return status;
}
