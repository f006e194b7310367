/*
 * test_numa.c - nodes and scheduling classes, as far as this machine has them.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/numa.h"

static void there_is_a_node_and_one_can_be_bound_to(void **state)
{
    uint32_t nodes = mn_numa_nodes();
    assert_true(nodes >= 1 && nodes <= 1024);
    assert_int_equal(mn_numa_nodes(), nodes);
    assert_int_equal(mn_numa_bind(0), MN_OK);
}

/* What was got is what holds; asked in a child, so that the test's own class stays. */
static void the_class_that_was_got_is_told(void **state)
{
    static const struct {
        enum mn_scheduling wanted;
        int policy;
    } cases[] = {
        {MN_SCHEDULING_BATCH, SCHED_BATCH}, {MN_SCHEDULING_REALTIME, SCHED_FIFO}, {MN_SCHEDULING_NORMAL, SCHED_OTHER}};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_is_a_node_and_one_can_be_bound_to),
        cmocka_unit_test(the_class_that_was_got_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
