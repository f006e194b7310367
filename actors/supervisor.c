/*
 * supervisor.c - the parent's loop: what should run runs, what has died is mourned and started again, a stop is in
 * order.
 *
 * Which child should run follows from three facts alone: has the log been recovered since the writer last ran, have
 * readers anything to serve, are we stopping. Nothing here blocks but the poll; nothing a child or a client does can
 * stop it.
 */
#include "actors/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <zmq.h>

#include "actors/actor.h"
#include "actors/control.h"
#include "actors/gate.h"
#include "shm/process.h"

#define STARTING_LOOK_NS 10000000u   /* while a child starts: readiness is a word in shared memory, nothing wakes us */
#define TICK_MAX_NS      1000000000u /* dead readers are reaped this often */
#define KILLED_WAIT_NS   5000000000u

/* ---- settings ---- */

enum mn_status mn_supervisor_settings(const struct mn_supervisor_options *options, struct mn_settings *settings)
{
    mn_settings_default(settings);
    if (options->config)
        MN_TRY(mn_settings_read_file(settings, options->config));
    for (uint32_t i = 0; i < options->set_count; i++)
        MN_TRY(mn_settings_set(settings, options->sets[i]));
    return mn_settings_check(settings);
}

/* The keys whose values differ, with ", " between them. */
static void list_changes(const struct mn_settings *before, const struct mn_settings *after, char *text, size_t size)
{
    size_t used = 0;
    const struct mn_settings_row *row;
    text[0] = 0;
    for (size_t i = 0; (row = mn_settings_row(i)) != NULL; i++) {
        char a[MN_SETTINGS_VALUE_MAX], b[MN_SETTINGS_VALUE_MAX];
        mn_settings_value(before, row, a, sizeof a);
        mn_settings_value(after, row, b, sizeof b);
        if (strcmp(a, b) != 0 && used < size)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", row->key);
    }
}

enum mn_status mn_supervisor_reload(struct mn_supervisor *s, char *changed, size_t changed_size, char *restart,
                                    size_t restart_size)
{
    char path[MN_PATH_MAX];
    struct mn_settings wanted, next = s->settings;
    MN_TRY(mn_supervisor_settings(s->options, &wanted));
    mn_settings_reload(&next, &wanted, restart, restart_size);
    MN_TRY(mn_settings_check(&next));
    MN_TRY(mn_gate_reload(s->gate));
    MN_TRY(mn_settings_write_file(&next, mn_supervisor_settings_path(s, path)));
    list_changes(&s->settings, &next, changed, changed_size);
    s->settings = next;
    for (uint32_t i = 0; i < s->child_count; i++)
        mn_child_signal(&s->children[i], SIGHUP);
    mn_log(NULL, "settings reloaded; changed: %s; need a restart: %s", changed[0] ? changed : "none",
           restart[0] ? restart : "none");
    return MN_OK;
}

/* ---- state ---- */

enum mn_store_state mn_supervisor_now(struct mn_supervisor *s)
{
    struct mn_control *control = s->instance.control;
    uint32_t reasons = atomic_load(&control->reasons) & ~(uint32_t)MN_DEGRADED_READ_ONLY;
    struct mn_supervisor_facts facts = {
        .recovery_begun = s->recovery_begun,
        .complete_once = s->complete_once,
        .writer_ready = mn_child_ready(s, mn_children_find(s, MN_ROLE_WAL_WRITER)),
        .stopping = s->stopping,
        .reasons = reasons | (atomic_load(&control->read_only) ? MN_DEGRADED_READ_ONLY : 0),
    };
    enum mn_store_state state = mn_supervisor_state(&facts);
    if (atomic_exchange(&control->state, state) != state)
        mn_log(NULL, "%s", mn_store_state_word(state));
    return state;
}

/* Looks at who is ready, and keeps the bit of roles that keep dying. True while some child is still starting. */
static bool look_at_readiness(struct mn_supervisor *s)
{
    bool starting = false, complete = true, keeps_dying = false;
    for (uint32_t i = 0; i < s->child_count; i++) {
        struct mn_child *child = &s->children[i];
        bool ready = mn_child_ready(s, child);
        keeps_dying = keeps_dying || mn_backoff_keeps_dying(&child->backoff);
        if (child->role != MN_ROLE_RECOVERY) {
            complete = complete && ready;
            starting = starting || (child->pid != 0 && !ready);
        }
    }
    s->complete_once = s->complete_once || complete;
    if (keeps_dying)
        atomic_fetch_or(&s->instance.control->reasons, (uint32_t)MN_DEGRADED_ROLE);
    else
        atomic_fetch_and(&s->instance.control->reasons, ~(uint32_t)MN_DEGRADED_ROLE);
    mn_supervisor_now(s);
    return starting;
}

/* ---- children ---- */

static bool wanted(struct mn_supervisor *s, const struct mn_child *child)
{
    if (s->stopping)
        return false;
    if (child->role == MN_ROLE_RECOVERY)
        return !s->recovered && mn_children_find(s, MN_ROLE_WAL_WRITER)->pid == 0;
    return child->role == MN_ROLE_WAL_WRITER ? s->recovered : s->recovered_once;
}

static void start_wanted(struct mn_supervisor *s, uint64_t now)
{
    for (uint32_t i = 0; i < s->child_count; i++) {
        struct mn_child *child = &s->children[i];
        if (child->pid != 0 || !wanted(s, child) || now < child->start_at_ns)
            continue;
        if (mn_child_start(s, child) != MN_OK) {
            mn_log(NULL, "%s", mn_error_trail());
            child->start_at_ns = now + mn_backoff_died(&child->backoff, false, s->settings.supervisor_backoff_min,
                                                       s->settings.supervisor_backoff_max);
            continue;
        }
        s->recovery_begun = s->recovery_begun || child->role == MN_ROLE_RECOVERY;
    }
}

static void after_death(struct mn_supervisor *s, const struct mn_child *child, bool clean)
{
    switch (child->role) {
    case MN_ROLE_RECOVERY:
        s->recovered = s->recovered || clean;
        s->recovered_once = s->recovered_once || clean;
        break;
    case MN_ROLE_WAL_WRITER:
        s->recovered = false; /* what it left half done, if anything, is recovery's to judge */
        break;
    case MN_ROLE_COMPACTOR:
        mn_control_compactor_gone(s->sockets);
        break;
    default:
        break;
    }
}

static uint32_t bury_dead(struct mn_supervisor *s)
{
    uint32_t alive = 0;
    for (uint32_t i = 0; i < s->child_count; i++) {
        struct mn_child *child = &s->children[i];
        bool clean;
        if (child->pid == 0)
            continue;
        if (mn_child_bury(s, child, &clean))
            after_death(s, child, clean);
        else
            alive++;
    }
    return alive;
}

static void kill_stalled(struct mn_supervisor *s, uint64_t now)
{
    for (uint32_t i = 0; i < s->child_count; i++) {
        struct mn_child *child = &s->children[i];
        char name[MN_CHILD_NAME_MAX];
        if (!mn_child_stalled(s, child, now))
            continue;
        if (!child->stall_told)
            mn_log(NULL, "the %s (pid %d) has shown no heartbeat for supervisor.stall: killing it",
                   mn_child_name(child, name), (int)child->pid);
        child->stall_told = true;
        mn_child_signal(child, SIGKILL);
    }
}

static void signal_all(struct mn_supervisor *s, int signal)
{
    for (uint32_t i = 0; i < s->child_count; i++)
        mn_child_signal(&s->children[i], signal);
}

/* ---- the end ---- */

void mn_supervisor_stop(struct mn_supervisor *s)
{
    if (s->stopping)
        return;
    s->stopping = true;
    s->kill_at_ns = mn_clock_ns() + s->settings.drain_timeout;
    mn_supervisor_now(s);
}

static void ask_to_stop(struct mn_child *child)
{
    if (child->pid == 0 || child->stop_sent)
        return;
    child->stop_sent = true;
    mn_child_signal(child, SIGTERM);
}

/* The writer drains first, while readers and compactor are still there to help it; then the others. A recovery is cut
 * short: it acknowledges nothing and begins anew at the next start. */
static void drive_stop(struct mn_supervisor *s, uint64_t now)
{
    struct mn_child *writer = mn_children_find(s, MN_ROLE_WAL_WRITER);
    struct mn_child *recovery = mn_children_find(s, MN_ROLE_RECOVERY);
    if (!s->killing && now >= s->kill_at_ns) {
        mn_log(NULL, "drain.timeout has passed: killing what still runs");
        s->killing = true;
    }
    if (s->killing) {
        signal_all(s, SIGKILL);
        return;
    }
    if (recovery->pid != 0 && !recovery->stop_sent) {
        recovery->stop_sent = true;
        mn_child_signal(recovery, SIGKILL);
    }
    ask_to_stop(writer);
    for (uint32_t i = 0; i < s->child_count && writer->pid == 0; i++)
        ask_to_stop(&s->children[i]);
}

/* ---- signals, ticks, the poll ---- */

static void read_signals(struct mn_supervisor *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == sizeof info) {
        char changed[1024], restart[1024];
        if (info.ssi_signo != SIGHUP) {
            s->killing = s->stopping;
            mn_log(NULL, s->killing ? "%s again: stopping at once" : "%s: stopping", strsignal((int)info.ssi_signo));
            mn_supervisor_stop(s);
        } else if (mn_supervisor_reload(s, changed, sizeof changed, restart, sizeof restart) != MN_OK) {
            mn_log(NULL, "settings stay as they were: %s", mn_error_text());
        }
    }
}

static uint64_t tick_period(const struct mn_supervisor *s)
{
    uint64_t period = s->settings.supervisor_heartbeat;
    if (period > s->settings.supervisor_stall / 4)
        period = s->settings.supervisor_stall / 4;
    return period < TICK_MAX_NS ? period : TICK_MAX_NS;
}

static void tick(struct mn_supervisor *s, uint64_t now)
{
    uint32_t used;
    uint64_t oldest_pin_ns;
    atomic_store(&s->instance.control->roles[MN_SLOT_SUPERVISOR].heartbeat_ns, now);
    mn_stat_add(s->stats, MN_STAT_readers_reaped, mn_epoch_reap(&s->instance.epoch, 0));
    mn_epoch_usage(&s->instance.epoch, now, &used, &oldest_pin_ns);
    mn_stat_set(s->stats, MN_STAT_reader_slots_used, used);
    mn_stat_set(s->stats, MN_STAT_reader_oldest_pin_ns, oldest_pin_ns);
    mn_stat_set(s->stats, MN_STAT_uptime_s, (now - s->started_ns) / 1000000000u);
    if (!s->stopping)
        kill_stalled(s, now);
    s->last_look_ns = now;
    s->next_tick_ns = now + tick_period(s);
}

/* How long the poll may sleep, in ms, rounded up so that it does not wake just before the time. */
static long sleep_ms(struct mn_supervisor *s, bool starting, uint64_t now)
{
    uint64_t next = s->next_tick_ns, control = mn_control_next_ns(s->sockets);
    next = control < next ? control : next;
    if (starting && now + STARTING_LOOK_NS < next)
        next = now + STARTING_LOOK_NS;
    if (s->stopping && s->kill_at_ns < next)
        next = s->kill_at_ns;
    for (uint32_t i = 0; i < s->child_count; i++) {
        const struct mn_child *child = &s->children[i];
        if (child->pid == 0 && wanted(s, child) && child->start_at_ns < next)
            next = child->start_at_ns;
    }
    return next <= now ? 0 : (long)((next - now + 999999) / 1000000);
}

static enum mn_status wait_for_news(struct mn_supervisor *s, long timeout_ms)
{
    zmq_pollitem_t items[MN_CONTROL_ITEMS + 1 + MN_CHILDREN_MAX];
    int count = MN_CONTROL_ITEMS;
    mn_control_items(s->sockets, items);
    items[count++] = (zmq_pollitem_t){.fd = s->signal_fd, .events = ZMQ_POLLIN};
    for (uint32_t i = 0; i < s->child_count; i++)
        if (s->children[i].pid != 0)
            items[count++] = (zmq_pollitem_t){.fd = s->children[i].pidfd, .events = ZMQ_POLLIN};
    if (zmq_poll(items, count, timeout_ms) < 0 && errno != EINTR)
        return MN_FAIL(MN_SYSTEM, "zmq_poll: %s", zmq_strerror(errno));
    return MN_OK;
}

static enum mn_status supervise(struct mn_supervisor *s)
{
    for (;;) {
        uint32_t alive = bury_dead(s);
        uint64_t now = mn_clock_ns();
        read_signals(s);
        if (now >= s->next_tick_ns)
            tick(s, now);
        start_wanted(s, now);
        bool starting = look_at_readiness(s);
        uint32_t worked = mn_control_turn(s->sockets);
        if (s->stopping && alive == 0)
            return MN_OK;
        if (s->stopping)
            drive_stop(s, now);
        MN_TRY(wait_for_news(s, worked > 0 ? 0 : sleep_ms(s, starting, now)));
    }
}

/* ---- the whole ---- */

static enum mn_status start(struct mn_supervisor *s)
{
    MN_TRY(mn_supervisor_settings(s->options, &s->settings));
    signal(SIGTTOU, SIG_IGN); /* children log to a terminal from process groups of their own */
    MN_TRY(mn_actor_take_signals(&s->signal_fd));
    MN_TRY(mn_supervisor_open(s));
    s->zmq = zmq_ctx_new();
    if (!s->zmq)
        return MN_FAIL_ERRNO("zmq_ctx_new");
    MN_TRY(mn_gate_open(&s->gate, s->zmq, &s->store, &s->settings, s->stats));
    return mn_control_open(&s->sockets, s);
}

/* After a failure of the loop itself: nobody is left behind. */
static void kill_children(struct mn_supervisor *s)
{
    uint64_t end = mn_clock_ns() + KILLED_WAIT_NS;
    s->stopping = true;
    signal_all(s, SIGKILL);
    while (bury_dead(s) > 0 && mn_clock_ns() < end)
        usleep(10000);
}

int mn_supervisor_run(const struct mn_supervisor_options *options)
{
    static struct mn_supervisor supervisor;
    struct mn_supervisor *s = &supervisor;
    *s = (struct mn_supervisor){.options = options,
                                .instance = {.dir_fd = -1},
                                .lock_fd = -1,
                                .signal_fd = -1,
                                .pipe_fds = {-1, -1},
                                .started_ns = mn_clock_ns(),
                                .last_look_ns = mn_clock_ns(),
                                .started_at = mn_wall_ns()};
    enum mn_status status = start(s);
    if (status != MN_OK) {
        fprintf(stderr, "mnemed: %s\n", mn_error_text());
    } else {
        mn_log(NULL, "serving %s (dim %u, %s)", s->store.dir, s->store.dim, mn_metric_word(s->store.metric));
        status = supervise(s);
        if (status != MN_OK)
            mn_log(NULL, "%s", mn_error_trail());
        kill_children(s);
    }
    mn_control_close(s->sockets);
    mn_gate_close(s->gate);
    if (s->zmq)
        zmq_ctx_term(s->zmq);
    mn_supervisor_close(s);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    return status == MN_OK ? EXIT_SUCCESS : status == MN_USAGE ? 2 : EXIT_FAILURE;
}
