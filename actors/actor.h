/*
 * actor.h - the only main loop. A role is a struct of callbacks and reads as its story.
 *
 * The loop owns: signals (signalfd: SIGTERM drains, SIGHUP reloads), the supervisor's pipe (EOF: the supervisor is
 * gone), the heartbeat, the stats page, polling, and the end: a failed start or turn is logged once with its trail, its
 * sentence left as last words, exit status 1. Everything here is called from the role's main thread; mn_log from any.
 */
#ifndef MN_ACTORS_ACTOR_H
#define MN_ACTORS_ACTOR_H

#include <pthread.h>

#include "config/settings.h"
#include "engine/store.h"
#include "shm/instance.h"

struct mn_gate;

#define MN_ACTOR_SOCKETS_MAX 16
#define MN_ACTOR_FDS_MAX     4

/* Role slots by number: fixed for the single ones, recall workers behind them. */
enum { MN_SLOT_SUPERVISOR, MN_SLOT_RECOVERY, MN_SLOT_WAL_WRITER, MN_SLOT_COMPACTOR, MN_SLOT_RECALL };

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
    struct mn_gate *gate;
    /* SIGTERM came or the supervisor is gone: finish what was admitted, then say so with mn_actor_done. */
    bool draining;
    bool done;
    /* what the loop polls besides signals and the pipe */
    void *sockets[MN_ACTOR_SOCKETS_MAX];
    int socket_fds[MN_ACTOR_SOCKETS_MAX]; /* where ZeroMQ shows that a socket has news */
    uint32_t socket_count;
    int fds[MN_ACTOR_FDS_MAX];
    uint32_t fd_count;
    int idle_ms; /* longest sleep of the poll; the role may change it each turn (a pending deadline) */
    /* the loop's own */
    const struct mn_role_ops *ops;
    int signal_fd, pipe_fd;
    bool reload_wanted;
    uint64_t orphaned_ns; /* when the supervisor was found gone; 0 = it is there */
    pthread_t pulse;
    int pulse_fd; /* eventfd that ends the pulse thread; -1 = none runs */
    bool pulse_abandon;
};

struct mn_role_ops {
    enum mn_role role;
    /* A turn takes as long as the request of a client does: the pulse goes on all the time, so that a stall is a
     * process that does not run (stopped, swapped out), not one that works. */
    bool long_turns;
    /* Makes *state, binds sockets, adds them with mn_actor_poll. The role counts as ready when it returns. It may take
     * as long as it must: meanwhile a thread of the loop keeps the heartbeat. */
    enum mn_status (*start)(struct mn_actor *actor, void **state);
    /* One turn of bounded work; *worked: how much it did. 0 lets the loop sleep until a socket is readable or idle_ms
     * passed. */
    enum mn_status (*turn)(struct mn_actor *actor, void *state, uint32_t *worked);
    /* Frees; also after a start that failed (state is then NULL or half made). */
    void (*stop)(struct mn_actor *actor, void *state);
    /* actor->settings has new values (reloadable ones only). May be NULL. */
    void (*reload)(struct mn_actor *actor, void *state);
};

struct mn_actor_arguments {
    const char *dir;           /* data folder, absolute */
    const char *instance_path; /* /dev/shm/mneme-... */
    uint32_t slot;             /* of control.roles and of the stats pages */
    uint32_t index, node;
    int pipe_fd; /* read end of the supervisor's pipe */
};

/* For a process of the cluster: SIGTERM, SIGINT and SIGHUP come through *fd (a signalfd) from now on, in this thread
 * and those that it starts; a broken pipe and a file that may not grow are errors of the call. */
enum mn_status mn_actor_take_signals(int *fd) MN_MUST_USE;

/* Runs a role to its end in this process; returns the exit status (0 clean). Arguments come from the supervisor's
 * command line. */
int mn_actor_run(const struct mn_role_ops *ops, const struct mn_actor_arguments *arguments);

/* A ZeroMQ socket whose news end the sleep of the loop; MN_ACTOR_SOCKETS_MAX at most. It must outlive the loop. */
void mn_actor_poll(struct mn_actor *actor, void *socket);
/* A plain descriptor to poll for reading (an eventfd of the role's own threads). */
void mn_actor_poll_fd(struct mn_actor *actor, int fd);
/* Ends the loop after this turn, with status 0. */
void mn_actor_done(struct mn_actor *actor);

/* For work that is longer than a turn and can call back: shows the heartbeat, looks at signals and the pipe without
 * waiting. True when the role should end. */
bool mn_actor_breathe(struct mn_actor *actor);

/* Around a call that blocks for long and cannot call back: between the two a thread shows the heartbeat. abandon: the
 * call changes nothing, so SIGTERM ends the process in the middle of it, status 0. */
void mn_actor_pulse_begin(struct mn_actor *actor, bool abandon);
void mn_actor_pulse_end(struct mn_actor *actor);

/* One line on stderr: time, role (actor NULL: supervisor), pid, text. Never with format strings from outside. */
void mn_log(const struct mn_actor *actor, const char *fmt, ...) MN_PRINTF(2, 3);

/* Endpoints: ipc://<dir>/run/<name>, into `endpoint` (256 bytes). */
#define MN_ENDPOINT_MAX 256
char *mn_actor_endpoint(const struct mn_store *store, char *endpoint, const char *name);

extern const struct mn_role_ops mn_recovery_role, mn_wal_writer_role, mn_recall_role, mn_compactor_role;

#endif
