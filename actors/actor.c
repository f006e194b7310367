/*
 * actor.c - the main loop of every child process. See actor.h.
 *
 * A child ends in one of four ways: its role says it is done (0), a start or a turn failed (1, with last words), the
 * supervisor is gone (it drains for a moment, then 1), or it is killed.
 */
#include "actors/actor.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <zmq.h>

#include "actors/gate.h"
#include "shm/numa.h"
#include "shm/process.h"

#define IDLE_MS         1000
#define COMPACTOR_NICE  10
#define ORPHAN_DRAIN_NS 1500000000u /* less than the 2 s that a new supervisor waits */
#define LOOK_NS         1000000u /* a busy loop looks at signals and the pipe this often: each look is a system call */

void mn_log(const struct mn_actor *actor, const char *fmt, ...)
{
    char line[2048], role[32] = "supervisor";
    struct timespec now;
    struct tm utc;
    if (actor && actor->role == MN_ROLE_RECALL)
        snprintf(role, sizeof role, "recall.%u", actor->index);
    else if (actor)
        snprintf(role, sizeof role, "%s", mn_role_word(actor->role));
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %s[%d] ", now.tv_nsec / 1000000, role, (int)getpid());
    va_list args;
    va_start(args, fmt);
    int text = vsnprintf(line + n, sizeof line - n, fmt, args);
    va_end(args);
    if (text > 0)
        n += (size_t)text;
    if (n > sizeof line - 1)
        n = sizeof line - 1;
    line[n++] = '\n';
    /* One write, so that the lines of several processes do not mix. Nobody to tell when it fails. */
    if (write(STDERR_FILENO, line, n) < 0)
        return;
}

char *mn_actor_endpoint(const struct mn_store *store, char *endpoint, const char *name)
{
    int n = snprintf(endpoint, MN_ENDPOINT_MAX, "ipc://%s/run/%s", store->dir, name);
    MN_ASSERT(n > 0 && n < MN_ENDPOINT_MAX); /* the supervisor checks the length of the folder's path at its start */
    return endpoint;
}

void mn_actor_poll(struct mn_actor *actor, void *socket)
{
    size_t size = sizeof actor->socket_fds[0];
    MN_ASSERT(actor->socket_count < MN_ACTOR_SOCKETS_MAX);
    int got = zmq_getsockopt(socket, ZMQ_FD, &actor->socket_fds[actor->socket_count], &size);
    MN_ASSERT(got == 0); /* fails for what is no open socket only */
    actor->sockets[actor->socket_count++] = socket;
}

void mn_actor_poll_fd(struct mn_actor *actor, int fd)
{
    MN_ASSERT(actor->fd_count < MN_ACTOR_FDS_MAX);
    actor->fds[actor->fd_count++] = fd;
}

void mn_actor_done(struct mn_actor *actor)
{
    actor->done = true;
}

static void show_life(struct mn_actor *actor, uint64_t now)
{
    atomic_store_explicit(&actor->slot->heartbeat_ns, now, memory_order_relaxed);
}

static void beat(struct mn_actor *actor)
{
    show_life(actor, mn_clock_ns());
}

static int heartbeat_ms(const struct mn_actor *actor)
{
    uint64_t ms = actor->settings.supervisor_heartbeat / 1000000;
    return ms < 1 ? 1 : (int)ms;
}

static void drain(struct mn_actor *actor)
{
    actor->draining = true;
    atomic_store(&actor->slot->state, MN_ROLE_STOPPING);
}

static void read_signals(struct mn_actor *actor)
{
    struct signalfd_siginfo info;
    while (read(actor->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP)
            actor->reload_wanted = true;
        else
            drain(actor);
    }
}

/* Nothing is ever written to the pipe: readable means that its last writer, the supervisor, is gone. */
static void meet_orphanhood(struct mn_actor *actor)
{
    if (actor->orphaned_ns != 0)
        return;
    actor->orphaned_ns = mn_clock_ns();
    mn_log(actor, "the supervisor is gone: stopping");
    drain(actor);
}

static void look_at_signals_and_pipe(struct mn_actor *actor)
{
    struct pollfd fds[] = {{.fd = actor->signal_fd, .events = POLLIN}, {.fd = actor->pipe_fd, .events = POLLIN}};
    if (poll(fds, 2, 0) <= 0)
        return;
    if (fds[0].revents)
        read_signals(actor);
    if (fds[1].revents)
        meet_orphanhood(actor);
}

bool mn_actor_breathe(struct mn_actor *actor)
{
    beat(actor);
    look_at_signals_and_pipe(actor);
    return actor->draining;
}

/* ---- the pulse: a heartbeat while the main thread is inside one long call ---- */

static bool stop_pending(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 && (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

static void *pulse(void *context)
{
    struct mn_actor *actor = context;
    struct pollfd fds[] = {{.fd = actor->pulse_fd, .events = POLLIN},
                           {.fd = actor->pipe_fd, .events = POLLIN},
                           {.fd = actor->pulse_abandon ? actor->signal_fd : -1, .events = POLLIN}};
    for (;;) {
        beat(actor);
        if (poll(fds, 3, heartbeat_ms(actor)) < 0 && errno != EINTR)
            return NULL;
        if (fds[0].revents)
            return NULL;
        if (fds[1].revents)
            _exit(EXIT_FAILURE); /* orphaned; whatever runs is safe to be killed */
        if (actor->pulse_abandon && stop_pending())
            _exit(EXIT_SUCCESS);
        if (fds[2].revents)
            fds[2].fd = -1; /* a reload, which the main thread reads later: from now on look once a beat, do not spin */
    }
}

void mn_actor_pulse_begin(struct mn_actor *actor, bool abandon)
{
    MN_ASSERT(actor->pulse_fd < 0);
    actor->pulse_abandon = abandon;
    actor->pulse_fd = eventfd(0, EFD_CLOEXEC);
    if (actor->pulse_fd < 0 || pthread_create(&actor->pulse, NULL, pulse, actor) != 0) {
        mn_log(actor, "no thread for the heartbeat: a long call may look like a stall");
        if (actor->pulse_fd >= 0)
            close(actor->pulse_fd);
        actor->pulse_fd = -1;
    }
}

void mn_actor_pulse_end(struct mn_actor *actor)
{
    if (actor->pulse_fd < 0)
        return;
    eventfd_write(actor->pulse_fd, 1);
    pthread_join(actor->pulse, NULL);
    close(actor->pulse_fd);
    actor->pulse_fd = -1;
}

/* ---- the loop ---- */

/* ZeroMQ shows news on a socket's descriptor once. What it has taken in since must be asked for before a sleep. */
static bool any_readable(const struct mn_actor *actor)
{
    for (uint32_t i = 0; i < actor->socket_count; i++) {
        int events = 0;
        size_t size = sizeof events;
        if (zmq_getsockopt(actor->sockets[i], ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN))
            return true;
    }
    return false;
}

/* One poll over plain descriptors: zmq_poll would look at all of them twice, and ask each socket twice. */
static enum mn_status wait_for_work(struct mn_actor *actor)
{
    /* The pipe of a supervisor that is gone stays readable for ever: poll passes over -1. */
    struct pollfd fds[2 + MN_ACTOR_SOCKETS_MAX + MN_ACTOR_FDS_MAX] = {
        {.fd = actor->signal_fd, .events = POLLIN}, {.fd = actor->orphaned_ns ? -1 : actor->pipe_fd, .events = POLLIN}};
    nfds_t count = 2;
    if (any_readable(actor))
        return MN_OK;
    for (uint32_t i = 0; i < actor->socket_count; i++)
        fds[count++] = (struct pollfd){.fd = actor->socket_fds[i], .events = POLLIN};
    for (uint32_t i = 0; i < actor->fd_count; i++)
        fds[count++] = (struct pollfd){.fd = actor->fds[i], .events = POLLIN};
    int timeout = actor->idle_ms < heartbeat_ms(actor) ? actor->idle_ms : heartbeat_ms(actor);
    if (poll(fds, count, timeout < 0 ? 0 : timeout) < 0 && errno != EINTR)
        return MN_FAIL_ERRNO("poll");
    if (fds[0].revents)
        read_signals(actor);
    if (fds[1].revents)
        meet_orphanhood(actor);
    return MN_OK;
}

static char *settings_path(const struct mn_store *store, char *path)
{
    return mn_store_path(store, path, "run/settings");
}

static void reload(struct mn_actor *actor, void *state)
{
    char path[MN_PATH_MAX], restart[1024];
    struct mn_settings wanted;
    actor->reload_wanted = false;
    mn_settings_default(&wanted);
    if (mn_settings_read_file(&wanted, settings_path(&actor->store, path)) != MN_OK) {
        mn_log(actor, "settings stay as they were: %s", mn_error_text());
        return;
    }
    if (mn_gate_reload(actor->gate) != MN_OK)
        mn_log(actor, "the list of clients stays as it was: %s", mn_error_text());
    if (mn_settings_reload(&actor->settings, &wanted, restart, sizeof restart) > 0 && actor->ops->reload)
        actor->ops->reload(actor, state);
}

static enum mn_status run_turns(struct mn_actor *actor, void *state)
{
    uint64_t looked_ns = 0;
    while (!actor->done) {
        uint32_t worked = 0;
        uint64_t now = mn_clock_ns();
        show_life(actor, now);
        if (actor->reload_wanted)
            reload(actor, state);
        MN_TRY(actor->ops->turn(actor, state, &worked));
        if (actor->orphaned_ns != 0 && mn_clock_ns() - actor->orphaned_ns > ORPHAN_DRAIN_NS)
            return MN_FAIL(MN_UNAVAILABLE, "the supervisor is gone, and draining took too long");
        if (actor->done)
            break;
        if (worked == 0) {
            MN_TRY(wait_for_work(actor)); /* looks at them too */
        } else if (now - looked_ns >= LOOK_NS) {
            look_at_signals_and_pipe(actor);
            looked_ns = now;
        }
    }
    return MN_OK;
}

/* ---- becoming a role ---- */

enum mn_status mn_actor_take_signals(int *fd)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of the write */
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return MN_FAIL_ERRNO("sigprocmask");
    *fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return *fd >= 0 ? MN_OK : MN_FAIL_ERRNO("signalfd");
}

static enum mn_status take_signals(struct mn_actor *actor)
{
    MN_TRY(mn_actor_take_signals(&actor->signal_fd));
    /* The pipe tells of the supervisor's end as well, but only to a loop that polls. */
    return prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 ? MN_OK : MN_FAIL_ERRNO("prctl(PR_SET_PDEATHSIG)");
}

/* The writer goes before everything else where that is allowed, a recall worker as soon as it has something to do, the
 * compactor behind everything else: not before it has started, since the thread that codes the tail is to have its
 * share (a thread that is behind cannot come back). */
static void take_scheduling(struct mn_actor *actor)
{
    enum mn_scheduling got = MN_SCHEDULING_NORMAL;
    if (actor->role == MN_ROLE_RECALL) {
        got = mn_numa_schedule(MN_SCHEDULING_PROMPT);
    } else if (actor->role == MN_ROLE_WAL_WRITER && actor->settings.priority_realtime) {
        got = mn_numa_schedule(MN_SCHEDULING_REALTIME);
    } else if (actor->role == MN_ROLE_COMPACTOR) {
        got = mn_numa_schedule(MN_SCHEDULING_BATCH);
        if (setpriority(PRIO_PROCESS, 0, COMPACTOR_NICE) != 0)
            mn_log(actor, "cannot lower the compactor's priority: %s", strerror(errno));
    }
    atomic_store(&actor->slot->scheduler, got);
}

/* The thread of a recall worker that answers ordinary recalls goes before everything else as well, as long as CPUs are
 * left for all of it; not the threads it has started, for exact searches and for its sockets. */
static void answer_first(struct mn_actor *actor)
{
    cpu_set_t allowed;
    int workers = (int)actor->settings.recall_workers, cpus = 1;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        cpus = CPU_COUNT(&allowed);
    if (actor->settings.priority_realtime && cpus > (workers > 0 ? workers : 1) &&
        mn_numa_schedule(MN_SCHEDULING_REALTIME) == MN_SCHEDULING_REALTIME)
        atomic_store(&actor->slot->scheduler, MN_SCHEDULING_REALTIME);
}

static enum mn_status set_up(struct mn_actor *actor, const struct mn_actor_arguments *arguments)
{
    char path[MN_PATH_MAX];
    MN_TRY(take_signals(actor));
    MN_TRY(mn_store_open(&actor->store, &mn_io_posix, arguments->dir));
    if (arguments->slot >= MN_ROLE_SLOTS)
        return MN_FAIL(MN_USAGE, "slot %u is out of range: 0 to %d", arguments->slot, MN_ROLE_SLOTS - 1);
    MN_TRY(mn_instance_open(&actor->instance, arguments->instance_path, true));
    actor->slot = &actor->instance.control->roles[arguments->slot];
    actor->stats = mn_stats_page(&actor->instance.stats, arguments->slot);
    mn_last_words_slot(actor->slot->last_words, sizeof actor->slot->last_words);
    mn_settings_default(&actor->settings);
    MN_TRY(mn_settings_read_file(&actor->settings, settings_path(&actor->store, path)));
    if (actor->role != MN_ROLE_COMPACTOR)
        take_scheduling(actor);
    if (actor->role == MN_ROLE_RECALL && mn_numa_bind(actor->node) != MN_OK)
        mn_log(actor, "runs on any CPU: %s", mn_error_text()); /* the node's may have been taken away meanwhile */
    actor->zmq = zmq_ctx_new();
    if (!actor->zmq)
        return MN_FAIL_ERRNO("zmq_ctx_new");
    return mn_gate_open(&actor->gate, actor->zmq, &actor->store, &actor->settings, actor->stats);
}

static enum mn_status play(struct mn_actor *actor, void **state)
{
    mn_actor_pulse_begin(actor, false);
    enum mn_status status = actor->ops->start(actor, state);
    if (!actor->ops->long_turns)
        mn_actor_pulse_end(actor);
    MN_TRY(status);
    if (actor->role == MN_ROLE_COMPACTOR)
        take_scheduling(actor);
    if (actor->role == MN_ROLE_RECALL)
        answer_first(actor);
    atomic_store_explicit(&actor->slot->state, MN_ROLE_READY, memory_order_release);
    return run_turns(actor, *state);
}

static void tear_down(struct mn_actor *actor)
{
    mn_actor_pulse_end(actor);
    mn_gate_close(actor->gate);
    if (actor->zmq)
        zmq_ctx_term(actor->zmq);
    if (actor->instance.control)
        mn_instance_close(&actor->instance);
    if (actor->signal_fd >= 0)
        close(actor->signal_fd);
}

int mn_actor_run(const struct mn_role_ops *ops, const struct mn_actor_arguments *arguments)
{
    static struct mn_actor actor; /* static: last words point into what it maps until the very end */
    void *state = NULL;
    actor = (struct mn_actor){.role = ops->role,
                              .ops = ops,
                              .index = arguments->index,
                              .node = arguments->node,
                              .instance = {.dir_fd = -1},
                              .idle_ms = IDLE_MS,
                              .signal_fd = -1,
                              .pipe_fd = arguments->pipe_fd,
                              .pulse_fd = -1};
    enum mn_status status = set_up(&actor, arguments);
    bool playing = status == MN_OK;
    if (playing)
        status = play(&actor, &state);
    if (status != MN_OK) {
        mn_log(&actor, "stops: %s", mn_error_trail());
        mn_last_words(mn_error_text());
    }
    if (playing)
        ops->stop(&actor, state);
    mn_last_words_slot(NULL, 0);
    tear_down(&actor);
    return status == MN_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
