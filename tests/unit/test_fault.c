/*
 * test_fault.c - kill points: their names, and that an armed one kills at the pass that was asked for and no other.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/fault.h"

static void every_point_has_a_name_of_its_own(void **state)
{
    for (unsigned a = 0; a < MN_FAULT_COUNT; a++)
        for (unsigned b = 0; b < a; b++)
            assert_string_not_equal(mn_fault_name((enum mn_fault)a), mn_fault_name((enum mn_fault)b));
    assert_string_equal(mn_fault_name(MN_FAULT_wal_after_sync), "wal_after_sync");
    assert_string_equal(mn_fault_name(MN_FAULT_COUNT), "?");
}

/* A child passes two points by turns; returns how many turns it lived, or 10. */
static int turns_until_death(const char *fault)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int turns[2];
        setenv("MNEME_FAULT", fault, 1);
        if (pipe(turns) != 0)
            _exit(99);
        pid_t inner = fork();
        if (inner == 0) {
            for (int i = 0; i < 10; i++) {
                if (write(turns[1], "x", 1) != 1)
                    _exit(1);
                MN_FAULT_POINT(wal_before_write);
                MN_FAULT_POINT(wal_after_write);
            }
            _exit(0);
        }
        close(turns[1]);
        char bytes[16];
        int count = 0;
        for (ssize_t n; (n = read(turns[0], bytes, sizeof bytes)) > 0;)
            count += (int)n;
        waitpid(inner, &status, 0);
        bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        _exit(killed ? count : count + 10);
    }
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

static void an_armed_point_kills_at_its_pass(void **state)
{
#ifdef MN_FAULTS
    assert_int_equal(turns_until_death("wal_before_write"), 1);
    assert_int_equal(turns_until_death("wal_after_write:3"), 3);
    assert_int_equal(turns_until_death("wal_after_write:10"), 10);
#endif
    assert_int_equal(turns_until_death("wal_after_write:11"), 20);
    assert_int_equal(turns_until_death("wal_after"), 20);
    assert_int_equal(turns_until_death("wal_after_write2"), 20);
    assert_int_equal(turns_until_death(""), 20);
    assert_int_equal(turns_until_death(":1"), 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_point_has_a_name_of_its_own),
        cmocka_unit_test(an_armed_point_kills_at_its_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
