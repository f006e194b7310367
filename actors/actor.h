/*
 * actor.h - the only main loop. A role is a struct of callbacks and reads as its story.
 *
 * The loop owns: signals (signalfd: SIGTERM, SIGINT), the supervisor's pipe (EOF: the supervisor is gone, exit), the heartbeat,
 * the stats page, polling, and the end: a failed turn is logged once with its trail, its sentence left as last words, exit 1.
 */
#ifndef MN_ACTORS_ACTOR_H
#define MN_ACTORS_ACTOR_H

#include "config/settings.h"
#include "engine/store.h"
#include "shm/instance.h"

#define MN_ACTOR_SOCKETS_MAX 16

/* Everything a role is given. Plain fields: roles read them. */
struct mn_actor {
    enum mn_role role;
    uint32_t index, node;
    struct mn_store store;
    struct mn_settings settings;
    struct mn_instance instance;
    struct mn_role_slot *slot;
    struct mn_stats_page *stats;
    void *zmq; /* context; made after exec */
    bool draining; /* SIGTERM came: finish what was admitted, then say so with mn_actor_done */
    bool done;
    /* what the loop polls besides signals and the pipe */
    void *sockets[MN_ACTOR_SOCKETS_MAX];
    uint32_t socket_count;
    int idle_ms; /* longest sleep of the poll; the role may change it each turn (a pending deadline) */
};

struct mn_role_ops {
    enum mn_role role;
    /* Makes *state, binds sockets, adds them with mn_actor_poll. */
    enum mn_status (*start)(struct mn_actor *actor, void **state);
    /* One turn of bounded work; *worked: how much it did. 0 lets the loop sleep until a socket is readable or idle_ms passed. */
    enum mn_status (*turn)(struct mn_actor *actor, void *state, uint32_t *worked);
    void (*stop)(struct mn_actor *actor, void *state);
};

/* Runs a role to its end in this process; returns the exit status (0 clean). Arguments come from the supervisor's command line. */
int mn_actor_run(const struct mn_role_ops *ops, const char *dir, const char *instance_path, uint32_t slot, uint32_t index,
                 uint32_t node);

void mn_actor_poll(struct mn_actor *actor, void *socket);
void mn_actor_done(struct mn_actor *actor);

/* One line on stderr: time, role, text. Never with format strings from outside. */
void mn_log(const struct mn_actor *actor, const char *fmt, ...) MN_PRINTF(2, 3);

/* Endpoints: ipc://<dir>/run/<name>, into `endpoint` (256 bytes). */
char *mn_actor_endpoint(const struct mn_store *store, char *endpoint, const char *name);

extern const struct mn_role_ops mn_recovery_role, mn_wal_writer_role, mn_recall_role, mn_compactor_role;

#endif
