/*
 * gate.c - the gate of a process: its thread, and the way a socket is bound behind it. See gate.h.
 *
 * ZeroMQ keeps a socket's options as they are at each bind, so one socket serves ipc without keys and TCP with them: a
 * recall over ipc pays nothing for the other door.
 */
#include "actors/gate_inside.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <zmq.h>

#include "actors/actor.h"

#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93 /* there since libzmq 4.3, but not in the header of every build */
#endif

#define KEEPALIVE_S 60 /* of silence, before TCP asks whether the other machine is still there */

/* ---- the thread ---- */

static void *stand(void *context)
{
    struct mn_gate *gate = context;
    while (!atomic_load(&gate->stopping)) {
        zmq_pollitem_t items[2 + MN_GATE_DOORS_MAX] = {{.fd = gate->wake_fd, .events = ZMQ_POLLIN},
                                                       {.socket = gate->zap, .events = ZMQ_POLLIN}};
        uint32_t doors = atomic_load(&gate->door_count);
        eventfd_t ignored;
        for (uint32_t i = 0; i < doors; i++)
            items[2 + i] = (zmq_pollitem_t){.socket = gate->monitors[i], .events = ZMQ_POLLIN};
        if (zmq_poll(items, (int)(2 + doors), -1) < 0 && errno != EINTR)
            break;
        if (items[0].revents)
            eventfd_read(gate->wake_fd, &ignored);
        for (uint32_t i = 0; i < doors; i++)
            mn_gate_count_listen(gate, i);
        if (items[1].revents)
            mn_gate_zap_answer(gate);
    }
    return NULL;
}

/* Not as the thread that makes it: the writer's goes before everything else on the machine, and strangers can make this
 * one work. */
static enum mn_status start_thread(struct mn_gate *gate)
{
    pthread_attr_t plain;
    struct sched_param none = {0};
    pthread_attr_init(&plain);
    pthread_attr_setinheritsched(&plain, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&plain, SCHED_OTHER);
    pthread_attr_setschedparam(&plain, &none);
    gate->running = pthread_create(&gate->thread, &plain, stand, gate) == 0;
    pthread_attr_destroy(&plain);
    return gate->running ? MN_OK : MN_FAIL(MN_SYSTEM, "cannot start the thread that looks at new connections");
}

/* ---- open and close ---- */

static enum mn_status read_secrets(struct mn_gate *gate)
{
    const struct group *group = gate->settings->security_group[0] ? getgrnam(gate->settings->security_group) : NULL;
    gate->group = group ? group->gr_gid : (gid_t)-1;
    if (!mn_tcp_on(gate->settings) || gate->plain)
        return MN_OK;
    MN_TRY(mn_tcp_keys_read(&gate->keys, gate->store->dir));
    return mn_gate_reload(gate);
}

static enum mn_status open_zap(struct mn_gate *gate)
{
    int linger = 0;
    gate->zap = zmq_socket(gate->zmq, ZMQ_REP);
    if (!gate->zap || zmq_setsockopt(gate->zap, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_bind(gate->zap, "inproc://zeromq.zap.01") != 0)
        return MN_FAIL(MN_SYSTEM, "cannot answer for new connections (ZAP): %s", zmq_strerror(errno));
    return MN_OK;
}

enum mn_status mn_gate_open(struct mn_gate **out, void *zmq, const struct mn_store *store,
                            const struct mn_settings *settings, struct mn_stats_page *stats)
{
    struct mn_gate *gate = calloc(1, sizeof *gate);
    *out = gate;
    if (!gate)
        return MN_FAIL(MN_INTERNAL, "no memory for the gate");
    gate->zmq = zmq;
    gate->store = store;
    gate->settings = settings;
    gate->stats = stats;
    gate->plain = settings->security_allow_plain_tcp;
    pthread_mutex_init(&gate->mutex, NULL);
    gate->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (gate->wake_fd < 0)
        return MN_FAIL_ERRNO("eventfd");
    MN_TRY(mn_gate_count_open(&gate->count, settings));
    MN_TRY(read_secrets(gate));
    MN_TRY(open_zap(gate));
    return start_thread(gate);
}

void mn_gate_close(struct mn_gate *gate)
{
    if (!gate)
        return;
    if (gate->running) {
        atomic_store(&gate->stopping, true);
        eventfd_write(gate->wake_fd, 1);
        pthread_join(gate->thread, NULL);
    }
    for (uint32_t i = 0; i < atomic_load(&gate->door_count); i++)
        zmq_close(gate->monitors[i]);
    if (gate->zap)
        zmq_close(gate->zap);
    if (gate->wake_fd >= 0)
        close(gate->wake_fd);
    mn_gate_count_close(&gate->count);
    mn_clients_free(&gate->clients);
    pthread_mutex_destroy(&gate->mutex);
    free(gate);
}

enum mn_status mn_gate_reload(struct mn_gate *gate)
{
    char path[MN_PATH_MAX];
    struct mn_clients fresh, old;
    if (!gate->keys.secret[0])
        return MN_OK; /* there is no list without keys */
    MN_TRY(mn_clients_read(&fresh, mn_tcp_clients_path(gate->settings, gate->store->dir, path)));
    pthread_mutex_lock(&gate->mutex);
    old = gate->clients;
    gate->clients = fresh;
    pthread_mutex_unlock(&gate->mutex);
    mn_clients_free(&old);
    mn_gate_drop_all(gate, "stats.pub");
    return MN_OK;
}

/* ---- binding ---- */

static enum mn_status set(void *socket, int option, const void *value, size_t bytes)
{
    if (zmq_setsockopt(socket, option, value, bytes) != 0)
        return MN_FAIL(MN_SYSTEM, "ZeroMQ socket option %d: %s", option, zmq_strerror(errno));
    return MN_OK;
}

static enum mn_status set_int(void *socket, int option, int value)
{
    return set(socket, option, &value, sizeof value);
}

/* Every connection of the binds that follow is asked about, and none is made where there is nobody to ask. */
static enum mn_status ask_for(const struct mn_gate *gate, void *socket, const char *transport, const char *name)
{
    char domain[64];
    int bytes = snprintf(domain, sizeof domain, "%s%s", transport, name);
    MN_TRY(set(socket, ZMQ_ZAP_DOMAIN, domain, (size_t)bytes));
    MN_TRY(set_int(socket, ZMQ_ZAP_ENFORCE_DOMAIN, 1));
    return set_int(socket, ZMQ_HANDSHAKE_IVL, (int)(gate->settings->limit_handshake / 1000000));
}

/* The gate hears of every connection of this socket. The monitor is connected here and the thread's from then on; it
 * may queue without end: ZeroMQ's own thread would wait for room. */
static enum mn_status watch(struct mn_gate *gate, void *socket, const char *door_name)
{
    char name[64];
    uint32_t door = atomic_load(&gate->door_count);
    MN_ASSERT(door < MN_GATE_DOORS_MAX);
    snprintf(name, sizeof name, "inproc://gate.%p", socket);
    void *monitor = zmq_socket(gate->zmq, ZMQ_PAIR);
    if (!monitor)
        return MN_FAIL(MN_SYSTEM, "zmq_socket: %s", zmq_strerror(errno));
    gate->monitors[door] = monitor;
    snprintf(gate->names[door], sizeof gate->names[door], "%s", door_name);
    if (set_int(monitor, ZMQ_LINGER, 0) != MN_OK || set_int(monitor, ZMQ_RCVHWM, 0) != MN_OK ||
        zmq_socket_monitor(socket, name, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED) != 0 ||
        zmq_connect(monitor, name) != 0) {
        zmq_close(monitor);
        return MN_FAIL(MN_SYSTEM, "cannot watch the connections of a socket: %s", zmq_strerror(errno));
    }
    atomic_store(&gate->door_count, door + 1);
    eventfd_write(gate->wake_fd, 1);
    return MN_OK;
}

static enum mn_status bind_to(void *socket, const char *endpoint)
{
    return zmq_bind(socket, endpoint) == 0 ? MN_OK
                                           : MN_FAIL(MN_SYSTEM, "cannot bind %s: %s", endpoint, zmq_strerror(errno));
}

static enum mn_status open_ipc(struct mn_gate *gate, void *socket, const char *name)
{
    char endpoint[MN_ENDPOINT_MAX];
    MN_TRY(ask_for(gate, socket, MN_GATE_IPC, name));
    return bind_to(socket, mn_actor_endpoint(gate->store, endpoint, name));
}

static enum mn_status open_tcp(struct mn_gate *gate, void *socket, const char *name)
{
    char endpoint[MN_TCP_ENDPOINT_MAX];
    MN_TRY(ask_for(gate, socket, MN_GATE_TCP, name));
    MN_TRY(set_int(socket, ZMQ_IPV6, strchr(gate->settings->tcp_bind, ':') != NULL));
    MN_TRY(set_int(socket, ZMQ_TCP_KEEPALIVE, 1));
    MN_TRY(set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_S));
    if (gate->keys.secret[0]) {
        MN_TRY(set_int(socket, ZMQ_CURVE_SERVER, 1));
        MN_TRY(set(socket, ZMQ_CURVE_SECRETKEY, gate->keys.secret, sizeof gate->keys.secret));
    }
    return bind_to(socket, mn_tcp_bind_endpoint(gate->settings, name, endpoint));
}

enum mn_status mn_gate_bind(struct mn_gate *gate, void *socket, const char *name, bool public)
{
    MN_TRY(watch(gate, socket, name));
    MN_TRY(open_ipc(gate, socket, name));
    return public && mn_tcp_on(gate->settings) ? open_tcp(gate, socket, name) : MN_OK;
}

enum mn_status mn_gate_serve(struct mn_gate *gate, struct mn_router *router, const char *name, bool public, int sends)
{
    char endpoint[MN_ENDPOINT_MAX];
    struct mn_router_limits limits = {.sends = sends,
                                      .receives = (int)gate->settings->limit_requests,
                                      .peer_bytes = gate->settings->limit_reply_bytes,
                                      .all_bytes = gate->settings->limit_replies_bytes};
    MN_TRY(mn_router_make(router, gate->zmq, &limits));
    enum mn_status status = mn_router_guard(router, mn_actor_endpoint(gate->store, endpoint, name));
    if (status == MN_OK)
        status = mn_gate_bind(gate, router->socket, name, public);
    if (status != MN_OK)
        mn_router_close(router);
    return status;
}

void mn_gate_drop_all(struct mn_gate *gate, const char *name)
{
    for (uint32_t i = 0; i < atomic_load(&gate->door_count); i++)
        if (strcmp(gate->names[i], name) == 0)
            atomic_store(&gate->drop_wanted[i], true);
    eventfd_write(gate->wake_fd, 1);
}
