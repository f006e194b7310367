/*
 * test_numa.c - nodes and scheduling classes, as far as this machine has them.
 */
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/numa.h"

static void there_is_a_node_and_one_can_be_bound_to(void **state)
{
    const struct mn_numa_nodes *nodes = mn_numa_nodes();
    bool memory = false;
    assert_in_range(nodes->count, 1, MN_NUMA_MAX);
    assert_ptr_equal(mn_numa_nodes(), nodes);
    assert_true(mn_numa_here() <= mn_numa_last());
    for (uint32_t i = 0; i < nodes->count; i++) {
        assert_true(nodes->node[i].number <= mn_numa_last());
        assert_true(i == 0 || nodes->node[i].number > nodes->node[i - 1].number);
        memory |= nodes->node[i].memory;
    }
    assert_true(memory);
    assert_int_equal(mn_numa_bind(nodes->node[0].number), MN_OK);
    assert_int_equal(mn_numa_here(), nodes->node[0].number);
}

/* Whoever was given one CPU keeps to it. */
static void a_bound_process_stays_on_the_cpus_it_was_given(void **state)
{
    cpu_set_t all, one;
    int cpu = 0, status;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char self[PATH_MAX] = "", word[16] = "within";
        sched_setaffinity(0, sizeof one, &one);
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
        if (n > 0)
            execl(self, self, word, NULL); /* libnuma looks when it is loaded */
        _exit(2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* In the process that was given one CPU. */
static int bind_within(void)
{
    cpu_set_t before, after;
    const struct mn_numa_nodes *nodes = mn_numa_nodes();
    sched_getaffinity(0, sizeof before, &before);
    bool fine = nodes->count == 1 && mn_numa_bind(nodes->node[0].number) == MN_OK &&
                sched_getaffinity(0, sizeof after, &after) == 0 && CPU_COUNT(&after) == 1 && CPU_EQUAL(&before, &after);
    return fine && mn_numa_here() == nodes->node[0].number ? 0 : 1;
}

/* A node that is not there, or none of whose CPUs may be used: nothing changes. */
static void a_node_without_a_cpu_is_refused(void **state)
{
    cpu_set_t before, after;
    sched_getaffinity(0, sizeof before, &before);
    enum mn_status status = mn_numa_bind(mn_numa_last() + 1);
    assert_true(status == MN_NOT_FOUND || mn_numa_last() == 0); /* one node: there is nothing to bind */
    sched_getaffinity(0, sizeof after, &after);
    assert_true(CPU_EQUAL(&before, &after));
}

/* What was got is what holds; asked in a child, so that the test's own class stays. */
static void the_class_that_was_got_is_told(void **state)
{
    static const struct {
        enum mn_scheduling wanted;
        int policy;
    } cases[] = {{MN_SCHEDULING_BATCH, SCHED_BATCH},
                 {MN_SCHEDULING_REALTIME, SCHED_FIFO},
                 {MN_SCHEDULING_NORMAL, SCHED_OTHER},
                 {MN_SCHEDULING_PROMPT, SCHED_OTHER}};
    for (size_t i = 0; i < MN_ARRAY_LEN(cases); i++) {
        int status;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            enum mn_scheduling got = mn_numa_schedule(cases[i].wanted);
            int policy = sched_getscheduler(0);
            _exit(got == cases[i].wanted ? policy != cases[i].policy
                                         : got != MN_SCHEDULING_NORMAL || policy != SCHED_OTHER);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
}

int main(int count, char **words)
{
    if (count == 2 && strcmp(words[1], "within") == 0)
        return bind_within();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_is_a_node_and_one_can_be_bound_to),
        cmocka_unit_test(a_bound_process_stays_on_the_cpus_it_was_given),
        cmocka_unit_test(a_node_without_a_cpu_is_refused),
        cmocka_unit_test(the_class_that_was_got_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
