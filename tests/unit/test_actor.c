/*
 * test_actor.c - the loop of a child, played in processes of its own: ready, drain, reload, orphaned, failed, long
 * calls.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "actors/actor.h"
#include "shm/process.h"

#define SLOT       MN_SLOT_COMPACTOR
#define PATIENCE_S 60

static char dir[64];
static struct mn_store store;
static struct mn_instance instance;
static int pipe_fds[2];

/* ---- a role that does what the test wants; set before the fork ---- */

static struct {
    bool fail_start, fail_turn, ignore_drain, break_down;
    bool slow_start; /* until it may go on */
    bool abandon;    /* one endless call, that may be abandoned */
    bool breathe;    /* one endless call, that breathes */
} play;
static _Atomic bool *may_start; /* shared with the children */

static enum mn_status start(struct mn_actor *actor, void **state)
{
    *state = actor;
    while (play.slow_start && !atomic_load(may_start))
        usleep(1000);
    return play.fail_start ? MN_FAIL(MN_SYSTEM, "the role cannot start") : MN_OK;
}

static enum mn_status turn(struct mn_actor *actor, void *state, uint32_t *worked)
{
    mn_stat_add(actor->stats, MN_STAT_compact_runs, 1);
    MN_ASSERT(!play.break_down);
    if (play.fail_turn)
        return MN_FAIL(MN_CORRUPT, "the role meets damage");
    if (play.abandon) {
        mn_actor_pulse_begin(actor, true);
        for (;;)
            usleep(1000);
    }
    while (play.breathe && !mn_actor_breathe(actor))
        usleep(1000);
    if (actor->draining && !play.ignore_drain)
        mn_actor_done(actor);
    return MN_OK;
}

static void reload(struct mn_actor *actor, void *state)
{
    mn_stat_set(actor->stats, MN_STAT_compact_debt_rows, actor->settings.compact_min_rows);
}

static void stop(struct mn_actor *actor, void *state)
{
    assert_ptr_equal(state, actor);
    mn_stat_set(actor->stats, MN_STAT_column_segments, 77);
}

static const struct mn_role_ops ops = {
    .role = MN_ROLE_COMPACTOR, .start = start, .turn = turn, .stop = stop, .reload = reload};

/* ---- the parent's side ---- */

static struct mn_role_slot *slot(void)
{
    return &instance.control->roles[SLOT];
}

static struct mn_stats_page *page(void)
{
    return mn_stats_page(&instance.stats, SLOT);
}

static void write_settings(uint64_t min_rows)
{
    char path[MN_PATH_MAX];
    struct mn_settings settings;
    mn_settings_default(&settings);
    settings.supervisor_heartbeat = MN_MILLISECONDS(10);
    settings.compact_min_rows = min_rows;
    assert_int_equal(mn_settings_write_file(&settings, mn_store_path(&store, path, "run/settings")), MN_OK);
}

static int set_up(void **state)
{
    struct mn_instance_shape shape = {.dim = 4, .reader_slots = 16};
    may_start = mmap(NULL, sizeof *may_start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (may_start == MAP_FAILED)
        return -1;
    strcpy(dir, "/tmp/mn-actor-XXXXXX");
    if (!mkdtemp(dir) || mn_store_create(&store, &mn_io_posix, dir, 4, MN_METRIC_COSINE) != MN_OK)
        return -1;
    memcpy(shape.store_uuid, store.uuid, sizeof shape.store_uuid);
    return mn_instance_create(&instance, &shape) != MN_OK;
}

static int tear_down(void **state)
{
    char path[sizeof instance.path];
    memcpy(path, instance.path, sizeof path);
    munmap((void *)may_start, sizeof *may_start);
    mn_instance_close(&instance);
    bool removed = mn_instance_remove(path) == MN_OK;
    return mn_io_remove_tree(&mn_io_posix, dir) != MN_OK || !removed;
}

static pid_t begin(void)
{
    write_settings(1000);
    memset(slot()->last_words, 0, sizeof slot()->last_words);
    atomic_store(&slot()->state, MN_ROLE_STARTING);
    mn_stat_set(page(), MN_STAT_compact_runs, 0);
    mn_stat_set(page(), MN_STAT_column_segments, 0);
    assert_int_equal(pipe(pipe_fds), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) {
        close(pipe_fds[0]);
        return pid;
    }
    close(pipe_fds[1]);
    alarm(3 * PATIENCE_S);
    struct mn_actor_arguments arguments = {
        .dir = dir, .instance_path = instance.path, .slot = SLOT, .pipe_fd = pipe_fds[0]};
    _exit(mn_actor_run(&ops, &arguments));
}

static bool is_ready(void)
{
    return atomic_load(&slot()->state) == MN_ROLE_READY;
}

static bool has_turned(void)
{
    return mn_stats_value(&instance.stats, MN_STAT_compact_runs) > 0;
}

static bool has_reloaded(void)
{
    return mn_stats_value(&instance.stats, MN_STAT_compact_debt_rows) == 4321;
}

static void await(bool (*condition)(void))
{
    uint64_t end = mn_clock_ns() + PATIENCE_S * UINT64_C(1000000000);
    while (!condition() && mn_clock_ns() < end)
        usleep(1000);
    assert_true(condition());
}

/* Several times: it goes on by itself. */
static void await_heartbeats(void)
{
    uint64_t end = mn_clock_ns() + PATIENCE_S * UINT64_C(1000000000);
    for (int beats = 0; beats < 4; beats++) {
        uint64_t before = atomic_load(&slot()->heartbeat_ns);
        while (atomic_load(&slot()->heartbeat_ns) == before && mn_clock_ns() < end)
            usleep(1000);
        assert_true(atomic_load(&slot()->heartbeat_ns) > before);
    }
}

/* Its wait status; the pipe's write end is closed only now unless the test has done so. */
static int end(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (pipe_fds[1] >= 0)
        close(pipe_fds[1]);
    memset(&play, 0, sizeof play);
    return status;
}

/* ---- tests ---- */

static void it_gets_ready_beats_and_drains(void **state)
{
    pid_t pid = begin();
    await(is_ready);
    await_heartbeats();
    kill(pid, SIGTERM);
    assert_int_equal(end(pid), 0);
    assert_int_equal(atomic_load(&slot()->state), MN_ROLE_STOPPING);
    assert_int_equal(mn_stats_value(&instance.stats, MN_STAT_column_segments), 77); /* stop was called */
    assert_string_equal(slot()->last_words, "");
}

static void a_long_start_keeps_the_heartbeat(void **state)
{
    play.slow_start = true;
    pid_t pid = begin();
    await_heartbeats();
    assert_false(is_ready());
    atomic_store(may_start, true);
    await(is_ready);
    kill(pid, SIGTERM);
    assert_int_equal(end(pid), 0);
}

static void a_failed_start_leaves_words(void **state)
{
    play.fail_start = true;
    int status = end(begin());
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_string_equal(slot()->last_words, "the role cannot start");
    assert_false(is_ready());
}

static void a_failed_turn_leaves_words(void **state)
{
    play.fail_turn = true;
    int status = end(begin());
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_string_equal(slot()->last_words, "the role meets damage");
    assert_int_equal(mn_stats_value(&instance.stats, MN_STAT_column_segments), 77);
}

static void a_bug_leaves_words(void **state)
{
    play.break_down = true;
    int status = end(begin());
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(slot()->last_words, "break_down"));
}

static void it_takes_reloadable_settings(void **state)
{
    pid_t pid = begin();
    await(is_ready);
    write_settings(4321);
    kill(pid, SIGHUP);
    await(has_reloaded);
    kill(pid, SIGTERM);
    assert_int_equal(end(pid), 0);
}

static void it_ends_when_the_supervisor_is_gone(void **state)
{
    pid_t pid = begin();
    await(is_ready);
    close(pipe_fds[1]);
    pipe_fds[1] = -1;
    assert_int_equal(end(pid), 0);
}

static void an_orphan_that_does_not_drain_ends_too(void **state)
{
    play.ignore_drain = true;
    pid_t pid = begin();
    await(is_ready);
    close(pipe_fds[1]);
    pipe_fds[1] = -1;
    int status = end(pid);
    assert_true(WIFEXITED(status)); /* by itself, not by the alarm */
    assert_int_equal(WEXITSTATUS(status), 1);
}

static void work_that_breathes_hears_the_signal(void **state)
{
    play.breathe = true;
    pid_t pid = begin();
    await(has_turned);
    kill(pid, SIGTERM);
    assert_int_equal(end(pid), 0);
}

static void a_call_that_changes_nothing_is_abandoned(void **state)
{
    play.abandon = true;
    pid_t pid = begin();
    await(has_turned);
    kill(pid, SIGHUP); /* is no reason */
    await_heartbeats();
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    kill(pid, SIGTERM);
    assert_int_equal(end(pid), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_gets_ready_beats_and_drains),
        cmocka_unit_test(a_long_start_keeps_the_heartbeat),
        cmocka_unit_test(a_failed_start_leaves_words),
        cmocka_unit_test(a_failed_turn_leaves_words),
        cmocka_unit_test(a_bug_leaves_words),
        cmocka_unit_test(it_takes_reloadable_settings),
        cmocka_unit_test(it_ends_when_the_supervisor_is_gone),
        cmocka_unit_test(an_orphan_that_does_not_drain_ends_too),
        cmocka_unit_test(work_that_breathes_hears_the_signal),
        cmocka_unit_test(a_call_that_changes_nothing_is_abandoned),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
