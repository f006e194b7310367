/*
 * gate_inside.h - what the files of the gate share, and nobody else:
 *     gate.c          opening, binding, the thread
 *     gate_zap.c      may this connection be made
 *     gate_allow.c    may this request be carried out
 *     gate_count.c    how many connections there are
 */
#ifndef MN_ACTORS_GATE_INSIDE_H
#define MN_ACTORS_GATE_INSIDE_H

#include <pthread.h>
#include <sys/types.h>

#include "actors/gate.h"
#include "actors/tcp.h"
#include "config/clients.h"

#define MN_GATE_DOORS_MAX 8 /* sockets of one process */

/* A domain of ZAP says which door is knocked at: "ipc/write", "tcp/stats.pub". */
#define MN_GATE_IPC "ipc/"
#define MN_GATE_TCP "tcp/"

/* Connections of a process by descriptor. Of the thread alone. */
struct mn_gate_count {
    struct mn_gate_connection *connections; /* by descriptor */
    uint32_t room;                          /* descriptors there can be */
    uint32_t highest;
    uint32_t held[MN_GATE_DOORS_MAX];
    uint32_t most; /* of a door */
    uint64_t young_ns;
};

struct mn_gate {
    void *zmq, *zap;
    const struct mn_store *store;
    const struct mn_settings *settings;
    struct mn_stats_page *stats;
    bool plain;              /* security.allow_plain_tcp */
    struct mn_tcp_keys keys; /* secret[0] 0: none */
    gid_t group;             /* of security.group; (gid_t)-1: none */
    void *monitors[MN_GATE_DOORS_MAX];
    char names[MN_GATE_DOORS_MAX][32];
    _Atomic bool drop_wanted[MN_GATE_DOORS_MAX];
    _Atomic uint32_t door_count; /* monitors that the thread may use */
    struct mn_gate_count count;
    pthread_t thread;
    bool running;
    _Atomic bool stopping;
    int wake_fd;
    pthread_mutex_t mutex;
    struct mn_clients clients; /* under the mutex */
};

/* gate_zap.c: answers one question. */
void mn_gate_zap_answer(struct mn_gate *gate);

/* gate_count.c */
/* Raises the limit of open files as far as it may, and makes room for as many connections as that allows. */
enum mn_status mn_gate_count_open(struct mn_gate_count *count, const struct mn_settings *settings) MN_MUST_USE;
void mn_gate_count_close(struct mn_gate_count *count);
/* Takes what a door's monitor tells; drops connections that are too many. */
void mn_gate_count_listen(struct mn_gate *gate, uint32_t door);

#endif
