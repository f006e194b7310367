/*
 * supervisor_children.c - the life of a child as its parent sees it: start, ready, stall, end.
 *
 * A child is this same program, executed again with its role on the command line (a ZeroMQ context does not survive a
 * fork). It is known by its pidfd, so that a reused pid is never signalled. It inherits two descriptors of ours:
 * stderr, and the read end of a pipe whose end of file tells it that the supervisor is gone.
 */
#include "actors/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/actor.h"
#include "shm/numa.h"
#include "shm/process.h"

#define CHILD_PIPE_FD 3

const char *mn_child_name(const struct mn_child *child, char name[MN_CHILD_NAME_MAX])
{
    if (child->role == MN_ROLE_RECALL)
        snprintf(name, MN_CHILD_NAME_MAX, "recall worker %u", child->index);
    else
        snprintf(name, MN_CHILD_NAME_MAX, "%s", mn_role_word(child->role));
    return name;
}

static void lay_out_child(struct mn_supervisor *s, enum mn_role role, uint32_t slot, uint32_t index, uint32_t node)
{
    MN_ASSERT(s->child_count < MN_CHILDREN_MAX && slot < MN_ROLE_SLOTS);
    s->children[s->child_count++] = (struct mn_child){.role = role,
                                                      .index = index,
                                                      .node = node,
                                                      .slot = slot,
                                                      .shared = &s->instance.control->roles[slot],
                                                      .pidfd = -1};
}

void mn_children_lay_out(struct mn_supervisor *s)
{
    const struct mn_numa_nodes *nodes = mn_numa_nodes();
    uint32_t workers = s->settings.recall_workers ? (uint32_t)s->settings.recall_workers : nodes->count;
    if (workers > MN_ROLE_SLOTS - MN_SLOT_RECALL)
        workers = MN_ROLE_SLOTS - MN_SLOT_RECALL;
    s->child_count = 0;
    lay_out_child(s, MN_ROLE_RECOVERY, MN_SLOT_RECOVERY, 0, 0);
    lay_out_child(s, MN_ROLE_WAL_WRITER, MN_SLOT_WAL_WRITER, 0, 0);
    lay_out_child(s, MN_ROLE_COMPACTOR, MN_SLOT_COMPACTOR, 0, 0);
    for (uint32_t i = 0; i < workers; i++)
        lay_out_child(s, MN_ROLE_RECALL, MN_SLOT_RECALL + i, i, nodes->node[i % nodes->count].number);
}

struct mn_child *mn_children_find(struct mn_supervisor *s, enum mn_role role)
{
    for (uint32_t i = 0; i < s->child_count; i++)
        if (s->children[i].role == role)
            return &s->children[i];
    return NULL;
}

/* The slot as the new life finds it. Everything but the pid, which stands for "runs" and comes last. */
static void prepare_slot(struct mn_child *child)
{
    struct mn_role_slot *slot = child->shared;
    memset(slot->last_words, 0, sizeof slot->last_words);
    atomic_store(&slot->index, child->index);
    atomic_store(&slot->node, child->node);
    atomic_store(&slot->state, MN_ROLE_STARTING);
    atomic_store(&slot->progress, 0);
    atomic_store(&slot->heartbeat_ns, mn_clock_ns());
    atomic_store(&slot->role, (uint32_t)child->role + 1);
    if (child->born_before)
        atomic_fetch_add(&slot->restarts, 1);
}

/* posix_spawn with the pipe at CHILD_PIPE_FD and a process group of its own: Ctrl-C on a terminal reaches the
 * supervisor alone, which then stops the children in order. */
static int spawn(struct mn_supervisor *s, pid_t *pid, char *const argv[])
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (error) {
        posix_spawn_file_actions_destroy(&actions);
        return error;
    }
    error = posix_spawn_file_actions_adddup2(&actions, s->pipe_fds[0], CHILD_PIPE_FD);
    if (!error)
        error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    if (!error)
        error = posix_spawn(pid, "/proc/self/exe", &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

enum mn_status mn_child_start(struct mn_supervisor *s, struct mn_child *child)
{
    char role[32], slot[16], index[16], node[16], fd[16];
    snprintf(role, sizeof role, "--role=%s", mn_role_word(child->role));
    snprintf(slot, sizeof slot, "%u", child->slot);
    snprintf(index, sizeof index, "%u", child->index);
    snprintf(node, sizeof node, "%u", child->node);
    snprintf(fd, sizeof fd, "%d", CHILD_PIPE_FD);
    char *const argv[] = {"mnemed",         role,     "--dir", s->store.dir, "--instance",
                          s->instance.path, "--slot", slot,    "--index",    index,
                          "--node",         node,     "--fd",  fd,           NULL};
    prepare_slot(child);
    int error = spawn(s, &child->pid, argv);
    if (error) {
        child->pid = 0;
        errno = error;
        return MN_FAIL_ERRNO("cannot start the %s", mn_role_word(child->role));
    }
    child->pidfd = pidfd_open(child->pid, 0); /* not reaped yet: the pid is still the child's */
    if (child->pidfd < 0) {
        enum mn_status status = MN_FAIL_ERRNO("pidfd_open");
        kill(child->pid, SIGKILL);
        waitpid(child->pid, NULL, 0);
        child->pid = 0;
        return status;
    }
    if (child->born_before)
        mn_stat_add(s->stats, MN_STAT_restarts, 1);
    child->ready = child->stop_sent = child->stall_told = false;
    child->born_before = true;
    atomic_store(&child->shared->start_time, mn_process_start_time((uint32_t)child->pid));
    atomic_store(&child->shared->pid, (uint32_t)child->pid);
    return MN_OK;
}

bool mn_child_ready(struct mn_supervisor *s, struct mn_child *child)
{
    if (child->pid == 0)
        return false;
    if (!child->ready && atomic_load_explicit(&child->shared->state, memory_order_acquire) == MN_ROLE_READY) {
        child->ready = true;
        mn_backoff_ready(&child->backoff);
    }
    return child->ready;
}

void mn_child_signal(struct mn_child *child, int signal)
{
    char name[MN_CHILD_NAME_MAX];
    if (child->pid != 0 && pidfd_send_signal(child->pidfd, signal, NULL, 0) != 0 && errno != ESRCH)
        mn_log(NULL, "cannot signal the %s: %s", mn_child_name(child, name), strerror(errno));
}

bool mn_child_stalled(const struct mn_supervisor *s, const struct mn_child *child, uint64_t now_ns)
{
    return child->pid != 0 &&
           mn_supervisor_stalled(now_ns, s->last_look_ns,
                                 atomic_load_explicit(&child->shared->heartbeat_ns, memory_order_relaxed),
                                 s->settings.supervisor_stall);
}

/* What is left of a child: its words go to the log and into the ring that info shows. */
static void remember_death(struct mn_supervisor *s, const struct mn_child *child, const siginfo_t *info)
{
    char name[MN_CHILD_NAME_MAX];
    struct mn_death *death = &s->deaths[s->death_count++ % MN_DEATHS_KEPT];
    *death = (struct mn_death){.role = child->role, .index = child->index, .pid = child->pid, .at = mn_wall_ns()};
    mn_supervisor_how(info->si_code, info->si_status, death->how, sizeof death->how);
    mn_supervisor_words(child->shared->last_words, sizeof child->shared->last_words, death->words, sizeof death->words);
    mn_log(NULL, "the %s (pid %d) has ended: %s%s%s", mn_child_name(child, name), (int)child->pid, death->how,
           death->words[0] ? "; its last words: " : "", death->words);
}

bool mn_child_bury(struct mn_supervisor *s, struct mn_child *child, bool *clean)
{
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
        return false;
    *clean = info.si_code == CLD_EXITED && info.si_status == 0;
    char name[MN_CHILD_NAME_MAX];
    bool was_ready = mn_child_ready(s, child);
    if (!*clean || !(child->stop_sent || child->role == MN_ROLE_RECOVERY))
        remember_death(s, child, &info);
    /* No pid, then no slots: a reader slot of a process that is gone may be cleared by nobody else. */
    atomic_store(&child->shared->pid, 0);
    atomic_store(&child->shared->start_time, 0);
    mn_stat_add(s->stats, MN_STAT_readers_reaped, mn_epoch_reap(&s->instance.epoch, (uint32_t)child->pid));
    close(child->pidfd);
    child->pidfd = -1;
    child->pid = 0;
    child->ready = false;
    uint64_t pause = 0;
    if (*clean && child->role == MN_ROLE_RECOVERY) {
        child->born_before = false; /* it has done its work: the next one is no restart */
        mn_backoff_ready(&child->backoff);
    } else {
        pause = mn_backoff_died(&child->backoff, was_ready, s->settings.supervisor_backoff_min,
                                s->settings.supervisor_backoff_max);
    }
    child->start_at_ns = mn_clock_ns() + pause;
    if (pause > 0 && !s->stopping)
        mn_log(NULL, "the %s died before it was ready: starting it again in %llu ms", mn_child_name(child, name),
               (unsigned long long)(pause / 1000000));
    return true;
}
