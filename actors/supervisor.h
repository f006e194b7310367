/*
 * supervisor.h - the parent of a cluster: owns the data folder, the shared memory and the children.
 *
 * mn_supervisor_run is the whole of it; the rest is what its source files share:
 *   supervisor.c           the loop: signals, ticks, what should run now
 *   supervisor_start.c     before the first child: folder, lock, orphans of an earlier supervisor, instance, access
 *   supervisor_children.c  starting, watching, killing and mourning children
 *   supervisor_policy.c    decisions without side effects
 *   control.c              the control and stats sockets (control.h)
 */
#ifndef MN_ACTORS_SUPERVISOR_H
#define MN_ACTORS_SUPERVISOR_H

#include <sys/types.h>

#include "actors/actor.h"
#include "actors/supervisor_policy.h"
#include "config/settings.h"
#include "engine/store.h"
#include "shm/instance.h"

struct mn_control_sockets;
struct mn_gate;

#define MN_CHILDREN_MAX (MN_ROLE_SLOTS - 1)
#define MN_DEATHS_KEPT  16
#define MN_DIM_DEFAULT  768

struct mn_supervisor_options {
    const char *dir;    /* as given; made absolute */
    uint32_t dim;       /* 0 = not given */
    int metric;         /* enum mn_metric, -1 = not given */
    const char *config; /* NULL = none */
    const char *const *sets;
    uint32_t set_count;
};

struct mn_child {
    enum mn_role role;
    uint32_t index, node, slot;
    struct mn_role_slot *shared;
    pid_t pid; /* 0 = not running */
    int pidfd;
    bool born_before; /* the next start is a restart */
    bool ready;       /* has reported ready in this life */
    bool stop_sent;
    bool stall_told; /* a process that hangs in the kernel dies when it returns: told once */
    struct mn_backoff backoff;
    uint64_t start_at_ns; /* not before */
};

/* A child's end, kept for info. */
struct mn_death {
    enum mn_role role;
    uint32_t index;
    pid_t pid;
    int64_t at; /* wall clock, ns */
    char how[64];
    char words[MN_LAST_WORDS_MAX];
};

struct mn_supervisor {
    const struct mn_supervisor_options *options;
    struct mn_store store;
    struct mn_settings settings;
    struct mn_instance instance;
    uint64_t acked_seq; /* of the instance before, in this boot; 0 = not known */
    struct mn_stats_page *stats;
    void *zmq;
    struct mn_gate *gate;
    struct mn_control_sockets *sockets;
    int lock_fd, signal_fd;
    int pipe_fds[2]; /* children inherit [0]; nobody writes: its end tells them that the supervisor is gone */
    struct mn_child children[MN_CHILDREN_MAX];
    uint32_t child_count;
    struct mn_death deaths[MN_DEATHS_KEPT]; /* a ring */
    uint64_t death_count;
    uint64_t started_ns, last_look_ns, next_tick_ns;
    int64_t started_at;  /* wall clock, ns */
    uint64_t kill_at_ns; /* when stopping: the end of patience */
    bool recovery_begun; /* in this life */
    bool recovered;      /* since the writer last ran: it may start */
    bool recovered_once; /* readers have something to serve */
    bool complete_once;  /* all roles have been ready together */
    bool stopping, killing;
};

/* Supervises until the end; returns the exit status of mnemed (0, 1, 2), a failure told in one line on stderr. */
int mn_supervisor_run(const struct mn_supervisor_options *options);

/* Defaults, the file, the --set options, all checked. */
enum mn_status mn_supervisor_settings(const struct mn_supervisor_options *options,
                                      struct mn_settings *settings) MN_MUST_USE;
/* Takes reloadable settings from file and options and tells the children. changed, restart: keys with ", " between
 * them. */
enum mn_status mn_supervisor_reload(struct mn_supervisor *s, char *changed, size_t changed_size, char *restart,
                                    size_t restart_size) MN_MUST_USE;
/* Begins the end: the writer first, then the others. Again: no effect. */
void mn_supervisor_stop(struct mn_supervisor *s);
/* What the cluster is now; also stored in the control segment. */
enum mn_store_state mn_supervisor_now(struct mn_supervisor *s);

/* supervisor_start.c */
/* Everything before the first child: the folder is locked, a store is in it, no process of an earlier supervisor is
 * left, the instance is there and noted. Settings are set. MN_BAD_REQUEST or MN_BAD_DIM when the command line, the
 * settings and the folder do not agree; MN_BUSY when another supervisor has it. Closed also after a failure. */
enum mn_status mn_supervisor_open(struct mn_supervisor *s) MN_MUST_USE;
/* Once no child is left. */
void mn_supervisor_close(struct mn_supervisor *s);
/* The file that the children read their settings from, into `path` (MN_PATH_MAX), which is returned. */
char *mn_supervisor_settings_path(const struct mn_supervisor *s, char *path);

/* supervisor_children.c */
/* Which children there are to be, by the settings and the NUMA nodes; starts none. */
void mn_children_lay_out(struct mn_supervisor *s);
#define MN_CHILD_NAME_MAX 32
const char *mn_child_name(const struct mn_child *child, char name[MN_CHILD_NAME_MAX]); /* for sentences */
/* The first of a role; NULL: there is none. */
struct mn_child *mn_children_find(struct mn_supervisor *s, enum mn_role role);
/* A failure counts as a death before ready: the child is started again after a pause. */
enum mn_status mn_child_start(struct mn_supervisor *s, struct mn_child *child) MN_MUST_USE;
/* Notices readiness; true when it is ready (now or earlier in this life). */
bool mn_child_ready(struct mn_supervisor *s, struct mn_child *child);
/* Collects a child that has ended: last words, reader slots, back-off. False while it still runs. *clean: exit status
 * 0. */
bool mn_child_bury(struct mn_supervisor *s, struct mn_child *child, bool *clean);
/* Harmless to one that does not run, or has ended and is not buried yet. */
void mn_child_signal(struct mn_child *child, int signal);
/* mn_supervisor_stalled of a child that runs. now_ns: CLOCK_MONOTONIC. */
bool mn_child_stalled(const struct mn_supervisor *s, const struct mn_child *child, uint64_t now_ns);

#endif
