/*
 * gate_count.c - how many connections each socket of the process has, and which go when there are too many. See gate.h.
 *
 * ZeroMQ accepts whatever comes until the process has no descriptors left, and then even the log could open no file.
 * Its monitor tells of each connection by its descriptor, so one that is too much is shut down from here; ZeroMQ sees
 * it end and closes it. Of a full house those go first that have only just come, the oldest of them before the others:
 * a crowd that never finishes its handshake pushes out itself, and who has been here for long stays.
 */
#include "actors/gate_inside.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <zmq.h>

#include "actors/actor.h"
#include "shm/process.h"

#define FILES_WANTED 65536u
#define FILES_OURS   512u /* log, columns, shared memory, descriptors of libraries */
#define EVENTS_MAX   256u /* in one go: new connections wait for their answer meanwhile */
#define DOORS_USUAL  4u   /* sockets that strangers can reach, in one process */

struct mn_gate_connection {
    uint64_t since_ns; /* 0: none */
    uint8_t door;
    bool dropped;
};

/* As many files as the system lets us, up to what ZeroMQ and we can use. */
static uint32_t raise_files(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return 1024;
    rlim_t wanted = files.rlim_max < FILES_WANTED ? files.rlim_max : FILES_WANTED;
    if (files.rlim_cur < wanted) {
        files.rlim_cur = wanted;
        if (setrlimit(RLIMIT_NOFILE, &files) != 0 && getrlimit(RLIMIT_NOFILE, &files) != 0)
            return 1024;
    }
    return files.rlim_cur < FILES_WANTED ? (uint32_t)files.rlim_cur : FILES_WANTED;
}

enum mn_status mn_gate_count_open(struct mn_gate_count *count, const struct mn_settings *settings)
{
    uint32_t files = raise_files();
    uint32_t fit = files > FILES_OURS + DOORS_USUAL ? (files - FILES_OURS) / DOORS_USUAL : 1;
    count->most = settings->limit_connections < fit ? (uint32_t)settings->limit_connections : fit;
    if (count->most < settings->limit_connections)
        mn_log(NULL, "limit.connections = %llu does not fit %u open files (RLIMIT_NOFILE): it is %u here",
               (unsigned long long)settings->limit_connections, files, fit);
    count->young_ns = settings->limit_handshake;
    count->room = files;
    count->connections = calloc(files, sizeof *count->connections);
    return count->connections ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory to count connections");
}

void mn_gate_count_close(struct mn_gate_count *count)
{
    free(count->connections);
}

static void forget(struct mn_gate_count *count, struct mn_gate_connection *c)
{
    if (c->since_ns != 0 && !c->dropped)
        count->held[c->door]--;
    *c = (struct mn_gate_connection){0};
}

/* The descriptor may be another connection's by now, if this one has ended in this moment: that one comes again. */
static void drop(struct mn_gate *gate, uint32_t fd)
{
    struct mn_gate_connection *c = &gate->count.connections[fd];
    c->dropped = true;
    gate->count.held[c->door]--;
    shutdown((int)fd, SHUT_RDWR);
    mn_stat_add(gate->stats, MN_STAT_peers_dropped, 1);
}

static uint32_t choose(const struct mn_gate_count *count, uint32_t came, uint32_t door, uint64_t now)
{
    uint32_t chosen = came;
    for (uint32_t fd = 0; fd <= count->highest; fd++) {
        const struct mn_gate_connection *c = &count->connections[fd];
        bool young = c->since_ns != 0 && now - c->since_ns < count->young_ns;
        if (young && c->door == door && !c->dropped && c->since_ns < count->connections[chosen].since_ns)
            chosen = fd;
    }
    return chosen;
}

static void note_accepted(struct mn_gate *gate, uint32_t fd, uint32_t door)
{
    struct mn_gate_count *count = &gate->count;
    uint64_t now = mn_clock_ns();
    if (fd >= count->room)
        return;
    forget(count, &count->connections[fd]);
    count->connections[fd] = (struct mn_gate_connection){.since_ns = now, .door = (uint8_t)door};
    count->highest = fd > count->highest ? fd : count->highest;
    if (++count->held[door] > count->most)
        drop(gate, choose(count, fd, door, now));
}

/* An event is two frames: its kind and a number, here a descriptor, then the endpoint. */
static bool next_event(void *monitor, uint16_t *kind, uint32_t *fd)
{
    uint8_t head[6];
    int bytes = zmq_recv(monitor, head, sizeof head, ZMQ_DONTWAIT);
    if (bytes != sizeof head)
        return false;
    memcpy(kind, head, sizeof *kind);
    memcpy(fd, head + sizeof *kind, sizeof *fd);
    while (zmq_recv(monitor, NULL, 0, ZMQ_DONTWAIT) < 0 && errno == EINTR)
        ;
    return true;
}

void mn_gate_count_listen(struct mn_gate *gate, uint32_t door)
{
    struct mn_gate_count *count = &gate->count;
    uint32_t fd, all = 0;
    uint16_t kind;
    for (uint32_t i = 0; i < EVENTS_MAX && next_event(gate->monitors[door], &kind, &fd); i++) {
        if (kind == ZMQ_EVENT_ACCEPTED)
            note_accepted(gate, fd, door);
        else if (fd < count->room && count->connections[fd].door == door)
            forget(count, &count->connections[fd]);
    }
    bool wanted = atomic_exchange(&gate->drop_wanted[door], false);
    for (fd = 0; wanted && fd <= count->highest; fd++)
        if (count->connections[fd].since_ns != 0 && count->connections[fd].door == door &&
            !count->connections[fd].dropped)
            drop(gate, fd);
    for (uint32_t i = 0; i < MN_GATE_DOORS_MAX; i++)
        all += count->held[i];
    mn_stat_set(gate->stats, MN_STAT_peers_connected, all);
}
