/*
 * test_instance.c - the folder of a running cluster: made, opened, refused when it is not whole, swept when its owner
 * is gone.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/instance.h"
#include "shm/process.h"

static struct mn_instance_shape shape_of(uint8_t tag)
{
    struct mn_instance_shape shape = {.dim = 16, .metric = MN_METRIC_L2, .reader_slots = 5};
    memset(shape.store_uuid, tag, sizeof shape.store_uuid);
    shape.store_uuid[1] = (uint8_t)getpid(); /* sweeps of tests that run beside this one must not meet */
    shape.store_uuid[2] = (uint8_t)(getpid() >> 8);
    return shape;
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static void what_is_made_can_be_opened(void **state)
{
    struct mn_instance_shape shape = shape_of(1);
    struct mn_instance made, role, client;
    assert_int_equal(mn_instance_create(&made, &shape), MN_OK);
    struct stat st;
    assert_int_equal(stat(made.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(mn_instance_open(&role, made.path, true), MN_OK);
    assert_int_equal(mn_instance_open(&client, made.path, false), MN_OK);
    assert_int_equal(client.control->dim, 16);
    assert_int_equal(client.control->metric, MN_METRIC_L2);
    assert_int_equal(client.epoch.count, 5);
    assert_memory_equal(client.identity.instance, made.identity.instance, 16);
    assert_memory_equal(client.control->store_uuid, shape.store_uuid, 16);

    uint32_t slot;
    assert_int_equal(mn_epoch_claim(&client.epoch, &slot), MN_OK); /* the reader table is writable for all */
    assert_true(atomic_load(&made.epoch.slots[slot].owner) != 0);
    mn_epoch_release(&client.epoch, slot);
    atomic_store(&role.control->visible_seq, 9);
    assert_int_equal(atomic_load(&client.control->visible_seq), 9);
    mn_stat_add(mn_stats_page(&role.stats, 2), MN_STAT_wal_syncs, 3);
    assert_int_equal(mn_stats_value(&client.stats, MN_STAT_wal_syncs), 3);

    char path[128];
    memcpy(path, made.path, sizeof path);
    mn_instance_close(&client);
    mn_instance_close(&role);
    mn_instance_close(&made);
    assert_int_equal(mn_instance_remove(path), MN_OK);
    assert_false(exists(path));
    assert_int_equal(mn_instance_remove(path), MN_OK); /* nothing there is fine */
    assert_int_equal(mn_instance_open(&client, path, false), MN_NOT_FOUND);
    char longer[300];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_int_equal(mn_instance_open(&client, longer, false), MN_BAD_REQUEST);
}

static void a_folder_that_is_not_whole_is_refused(void **state)
{
    static const char *const files[] = {"control", "readers", "stats"};
    struct mn_instance_shape shape = shape_of(2);
    struct mn_instance made, other;
    for (size_t i = 0; i < MN_ARRAY_LEN(files); i++) {
        char path[256];
        assert_int_equal(mn_instance_create(&made, &shape), MN_OK);
        snprintf(path, sizeof path, "%s/%s", made.path, files[i]);
        assert_int_equal(truncate(path, 4096 + 64), 0);
        assert_int_not_equal(mn_instance_open(&other, made.path, false), MN_OK);
        assert_int_equal(other.dir_fd, -1);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mn_instance_open(&other, made.path, false), MN_NOT_FOUND);
        snprintf(path, sizeof path, "%s", made.path);
        mn_instance_close(&made);
        assert_int_equal(mn_instance_remove(path), MN_OK);
    }
}

/* A segment of another instance in this folder. */
static void a_mixed_folder_is_refused(void **state)
{
    struct mn_instance_shape shape = shape_of(3);
    struct mn_instance a, b, seen;
    char from[256], to[256];
    assert_int_equal(mn_instance_create(&a, &shape), MN_OK);
    assert_int_equal(mn_instance_create(&b, &shape), MN_OK);
    snprintf(from, sizeof from, "%s/readers", a.path);
    snprintf(to, sizeof to, "%s/readers", b.path);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(mn_instance_open(&seen, b.path, true), MN_CORRUPT);
    snprintf(from, sizeof from, "%s", a.path);
    snprintf(to, sizeof to, "%s", b.path);
    mn_instance_close(&a);
    mn_instance_close(&b);
    assert_int_equal(mn_instance_remove(from), MN_OK);
    assert_int_equal(mn_instance_remove(to), MN_OK);
}

static void set_supervisor(struct mn_instance *instance, uint32_t pid)
{
    atomic_store(&instance->control->roles[0].pid, pid);
    atomic_store(&instance->control->roles[0].start_time, mn_process_start_time(pid));
}

static void only_orphans_of_this_store_are_swept(void **state)
{
    struct mn_instance_shape ours = shape_of(4), theirs = shape_of(5);
    struct mn_instance dead, living, foreign;
    char paths[3][128];
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        for (;;)
            pause();
    }
    assert_int_equal(mn_instance_create(&dead, &ours), MN_OK);
    assert_int_equal(mn_instance_create(&living, &ours), MN_OK);
    assert_int_equal(mn_instance_create(&foreign, &theirs), MN_OK);
    set_supervisor(&dead, (uint32_t)child);
    set_supervisor(&foreign, (uint32_t)child);
    set_supervisor(&living, (uint32_t)getpid());
    mn_instance_sweep(ours.store_uuid);
    assert_true(exists(dead.path));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    mn_instance_sweep(ours.store_uuid);
    assert_false(exists(dead.path));
    assert_true(exists(living.path));
    assert_true(exists(foreign.path));
    memcpy(paths[0], living.path, 128);
    memcpy(paths[1], foreign.path, 128);
    mn_instance_close(&dead);
    mn_instance_close(&living);
    mn_instance_close(&foreign);
    assert_int_equal(mn_instance_remove(paths[0]), MN_OK);
    assert_int_equal(mn_instance_remove(paths[1]), MN_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_made_can_be_opened),
        cmocka_unit_test(a_folder_that_is_not_whole_is_refused),
        cmocka_unit_test(a_mixed_folder_is_refused),
        cmocka_unit_test(only_orphans_of_this_store_are_swept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
