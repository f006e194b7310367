/*
 * test_compact_killed.c - a process that compacts is killed between any two steps of it: nothing is lost or changed,
 * and nothing is left over. Only where kill points are compiled in.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/instance.h"
#include "tests/unit/live_files.h"
#include "tests/unit/live_store.h"

#ifdef MN_FAULTS
/* Another process compacts the store in `dir`, and is killed at `point` (its n-th pass, as "name:n"). */
static void compact_and_die(const char *program, const char *dir, const char *point)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv("MNEME_FAULT", point, 1);
        execl(program, program, "--compact", dir, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s: the process ended with status %x, and not by being killed there", point, (unsigned)status);
}

static void killed_at_any_step(void **state)
{
    static const char *const points[] = {"columns_written",     "columns_synced",         "columns_renamed",
                                         "columns_renamed:2",   "manifest_before_append", "manifest_after_append",
                                         "manifest_after_sync", "publish_before_view",    "publish_after_view",
                                         "limbo_before_unlink", "limbo_before_unlink:3"};
    struct live_store *s = live_store_new();
    s->policy.segment_rows_max = 400; /* two outputs, now and then */
    live_remember(s, 0, 0, 600);
    live_seal(s);
    live_compact(s, true);
    for (uint32_t p = 0; p < MN_ARRAY_LEN(points); p++) {
        for (uint32_t id = p; id < 600; id += 17)
            live_forget(s, 0, id, id % 2 ? MN_FORGET_DELETE : MN_FORGET_SUPPRESS);
        live_remember(s, 1, p * 50, 300);
        live_remember(s, 0, p * 30, 40);
        live_store_stop(s);
        compact_and_die("/proc/self/exe", s->dir, points[p]);
        mn_instance_sweep(s->store.uuid);
        live_store_start(s);
        live_check(s);
        live_store_restart(s);
        live_check(s);
    }
    live_seal(s);
    live_tend(s);
    live_compact(s, true);
    live_check(s);
    struct mn_manifest m = live_manifest(s);
    ok(mn_compactor_sweep(s->compactor));
    live_tend(s);
    assert_int_equal(live_folders(s), m.segment_count);
    mn_manifest_free(&m);
    live_store_free(s);
}

/* The other process. */
static int compact_store(const char *dir)
{
    struct live_store *s = live_store_open(dir);
    s->policy.segment_rows_max = 400;
    live_seal(s);
    live_tend(s);
    live_compact(s, true);
    usleep(300000); /* the thread that unlinks */
    live_tend(s);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--compact") == 0)
        return compact_store(argv[2]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(killed_at_any_step)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
static void killed_at_any_step(void **state)
{
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(killed_at_any_step)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
