/*
 * test_epoch.c - reader slots: claims, pins, and what becomes of those whose owner is gone.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/epoch.h"
#include "shm/process.h"

#define SLOTS 8u

/* A table that children share. */
struct table {
    struct mn_control control;
    struct mn_reader_slot slots[SLOTS];
};

static struct mn_epoch make_table(void)
{
    struct table *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(t != MAP_FAILED);
    return (struct mn_epoch){.slots = t->slots, .count = SLOTS, .control = &t->control};
}

static struct mn_control *control_of(struct mn_epoch *epoch)
{
    return (struct mn_control *)(uintptr_t)epoch->control;
}

static void free_table(struct mn_epoch *epoch)
{
    munmap(control_of(epoch), sizeof(struct table));
}

static void slots_run_out_and_come_back(void **state)
{
    struct mn_epoch epoch = make_table();
    uint32_t slot[SLOTS], extra, used;
    uint64_t age;
    for (uint32_t i = 0; i < SLOTS; i++) {
        assert_int_equal(mn_epoch_claim(&epoch, &slot[i]), MN_OK);
        assert_int_equal(slot[i], i);
    }
    assert_int_equal(mn_epoch_claim(&epoch, &extra), MN_BUSY);
    mn_epoch_usage(&epoch, mn_clock_ns(), &used, &age);
    assert_int_equal(used, SLOTS);
    assert_int_equal(age, 0);
    mn_epoch_release(&epoch, slot[3]);
    assert_int_equal(mn_epoch_claim(&epoch, &extra), MN_OK);
    assert_int_equal(extra, 3);
    assert_int_equal(mn_epoch_reap(&epoch, 0), 0); /* we live */
    assert_int_equal(mn_epoch_reap(&epoch, (uint32_t)getpid()), SLOTS);
    mn_epoch_usage(&epoch, mn_clock_ns(), &used, &age);
    assert_int_equal(used, 0);
    free_table(&epoch);
}

static void a_pin_holds_the_newest_view(void **state)
{
    struct mn_epoch epoch = make_table();
    uint32_t a, b;
    assert_int_equal(mn_epoch_claim(&epoch, &a), MN_OK);
    assert_int_equal(mn_epoch_claim(&epoch, &b), MN_OK);
    assert_int_equal(mn_epoch_pin(&epoch, a), 0); /* no view yet: nothing is pinned */
    assert_true(mn_epoch_oldest(&epoch, mn_clock_ns(), 0) == UINT64_MAX);
    atomic_store(&control_of(&epoch)->view_gen, 5);
    assert_int_equal(mn_epoch_pin(&epoch, a), 5);
    atomic_store(&control_of(&epoch)->view_gen, 7);
    assert_int_equal(mn_epoch_pin(&epoch, b), 7);
    assert_int_equal(mn_epoch_oldest(&epoch, mn_clock_ns(), 0), 5);
    mn_epoch_unpin(&epoch, a);
    assert_int_equal(mn_epoch_oldest(&epoch, mn_clock_ns(), 0), 7);
    assert_int_equal(mn_epoch_pin(&epoch, a), 7);
    mn_epoch_release(&epoch, b);
    mn_epoch_release(&epoch, a);
    assert_true(mn_epoch_oldest(&epoch, mn_clock_ns(), 0) == UINT64_MAX);
    free_table(&epoch);
}

static void a_pin_that_is_too_old_does_not_count(void **state)
{
    struct mn_epoch epoch = make_table();
    uint32_t slot, used;
    uint64_t age;
    atomic_store(&control_of(&epoch)->view_gen, 3);
    assert_int_equal(mn_epoch_claim(&epoch, &slot), MN_OK);
    assert_int_equal(mn_epoch_pin(&epoch, slot), 3);
    uint64_t pinned = atomic_load(&epoch.slots[slot].pinned_ns);
    assert_int_equal(mn_epoch_oldest(&epoch, pinned + 100, 100), 3);
    assert_true(mn_epoch_oldest(&epoch, pinned + 101, 100) == UINT64_MAX);
    assert_int_equal(mn_epoch_oldest(&epoch, pinned + 101, 0), 3); /* no limit */
    assert_int_equal(mn_epoch_oldest(&epoch, pinned - 1, 100), 3); /* pinned after the clock was read */
    mn_epoch_usage(&epoch, pinned + 101, &used, &age);
    assert_int_equal(used, 1);
    assert_int_equal(age, 101);
    free_table(&epoch);
}

/* A child claims a slot, pins, writes its number, and does what it is told. */
static pid_t spawn_reader(struct mn_epoch *epoch, bool dies)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        uint32_t slot;
        if (mn_epoch_claim(epoch, &slot) != MN_OK || mn_epoch_pin(epoch, slot) == 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        if (dies)
            _exit(0);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void the_dead_are_reaped_and_the_living_are_not(void **state)
{
    struct mn_epoch epoch = make_table();
    uint32_t own;
    atomic_store(&control_of(&epoch)->view_gen, 2);
    assert_int_equal(mn_epoch_claim(&epoch, &own), MN_OK);
    pid_t living = spawn_reader(&epoch, false);
    usleep(30000); /* so that a child started in another clock tick than we did */
    pid_t dying = spawn_reader(&epoch, true);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)dying, &info, WEXITED | WNOWAIT), 0); /* a zombie is gone too */
    assert_int_equal(mn_epoch_oldest(&epoch, mn_clock_ns(), 0), 2);
    assert_int_equal(mn_epoch_reap(&epoch, 0), 1);
    assert_int_equal(mn_epoch_reap(&epoch, 0), 0);
    assert_int_equal(mn_epoch_oldest(&epoch, mn_clock_ns(), 0), 2); /* the living child's */
    assert_int_equal(waitpid(dying, NULL, 0), dying);
    assert_int_equal(mn_epoch_reap(&epoch, (uint32_t)living), 1); /* evicted whatever it does */
    assert_true(mn_epoch_oldest(&epoch, mn_clock_ns(), 0) == UINT64_MAX);
    assert_int_equal(kill(living, SIGKILL), 0);
    assert_int_equal(waitpid(living, NULL, 0), living);
    assert_int_equal(mn_epoch_reap(&epoch, (uint32_t)getpid()), 1);
    free_table(&epoch);
}

/* The pid of a dead reader may live again as another process: its start time tells. */
static void a_pid_that_is_used_again_does_not_protect(void **state)
{
    struct mn_epoch epoch = make_table();
    uint32_t slot;
    assert_int_equal(mn_epoch_claim(&epoch, &slot), MN_OK);
    assert_int_equal(atomic_load(&epoch.slots[slot].start_time), mn_process_start_time((uint32_t)getpid()));
    atomic_store(&epoch.slots[slot].start_time, 1);
    assert_int_equal(mn_epoch_reap(&epoch, 0), 1);
    free_table(&epoch);
}

/* A child of a program that has claimed is a process of its own. */
static void a_forked_child_claims_under_its_own_start_time(void **state)
{
    struct mn_epoch epoch = make_table();
    uint32_t slot;
    int status;
    assert_int_equal(mn_epoch_claim(&epoch, &slot), MN_OK);
    usleep(30000);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        uint32_t mine;
        bool right = mn_epoch_claim(&epoch, &mine) == MN_OK &&
                     atomic_load(&epoch.slots[mine].start_time) == mn_process_start_time((uint32_t)getpid()) &&
                     mn_epoch_reap(&epoch, 0) == 0;
        mn_epoch_release(&epoch, slot); /* its parent's: not given back */
        _exit(right ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(atomic_load(&epoch.slots[slot].owner) != 0);
    free_table(&epoch);
}

static void an_evicted_owner_finds_out(void **state)
{
    struct mn_epoch epoch = make_table();
    uint32_t slot, again;
    assert_int_equal(mn_epoch_claim(&epoch, &slot), MN_OK);
    uint64_t owner = atomic_load(&epoch.slots[slot].owner);
    assert_true(mn_epoch_owned(&epoch, slot, owner));
    assert_int_equal(mn_epoch_reap(&epoch, (uint32_t)getpid()), 1);
    assert_false(mn_epoch_owned(&epoch, slot, owner));
    mn_epoch_release(&epoch, slot); /* harmless */
    usleep(10);
    assert_int_equal(mn_epoch_claim(&epoch, &again), MN_OK);
    assert_int_equal(again, slot);
    assert_false(mn_epoch_owned(&epoch, slot, owner)); /* the same pid, another claim */
    free_table(&epoch);
}

/* The writer moves the view on and looks for pins all the time; a reader must never hold a view that was declared free.
 */
static void a_pinned_view_is_never_seen_as_free(void **state)
{
    struct mn_epoch epoch = make_table();
    struct shared {
        _Atomic uint64_t freed; /* views below this may be unlinked */
        _Atomic int stop, wrong;
    } *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    atomic_store(&control_of(&epoch)->view_gen, 1);
    pid_t readers[2];
    for (int i = 0; i < 2; i++) {
        readers[i] = fork();
        assert_true(readers[i] >= 0);
        if (readers[i] == 0) {
            uint32_t slot;
            if (mn_epoch_claim(&epoch, &slot) != MN_OK)
                _exit(1);
            while (!atomic_load(&shared->stop)) {
                uint64_t gen = mn_epoch_pin(&epoch, slot);
                for (int look = 0; look < 50; look++)
                    if (atomic_load(&shared->freed) > gen)
                        atomic_store(&shared->wrong, 1);
                mn_epoch_unpin(&epoch, slot);
            }
            _exit(0);
        }
    }
    for (uint64_t gen = 2; gen < 60000; gen++) {
        atomic_store(&control_of(&epoch)->view_gen, gen);
        uint64_t oldest = mn_epoch_oldest(&epoch, mn_clock_ns(), 0);
        atomic_store(&shared->freed, oldest < gen ? oldest : gen);
    }
    atomic_store(&shared->stop, 1);
    for (int i = 0; i < 2; i++) {
        int status;
        assert_int_equal(waitpid(readers[i], &status, 0), readers[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(atomic_load(&shared->wrong), 0);
    munmap(shared, sizeof *shared);
    free_table(&epoch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_run_out_and_come_back),
        cmocka_unit_test(a_pin_holds_the_newest_view),
        cmocka_unit_test(a_pin_that_is_too_old_does_not_count),
        cmocka_unit_test(the_dead_are_reaped_and_the_living_are_not),
        cmocka_unit_test(a_pid_that_is_used_again_does_not_protect),
        cmocka_unit_test(a_forked_child_claims_under_its_own_start_time),
        cmocka_unit_test(an_evicted_owner_finds_out),
        cmocka_unit_test(a_pinned_view_is_never_seen_as_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
