/*
 * test_process.c - clocks, start times, boot id and UUIDs.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/process.h"

static void memory_is_what_there_is_at_most(void **state)
{
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    assert_true(mn_memory_bytes() > (1u << 20));
    assert_true(mn_memory_bytes() <= machine);
}

static void clocks_run(void **state)
{
    uint64_t a = mn_clock_ns();
    int64_t wall = mn_wall_ns();
    usleep(2000);
    assert_true(mn_clock_ns() - a >= 2000000);
    assert_true(wall > INT64_C(1600000000000000000));
}

static void a_process_is_known_by_pid_and_start(void **state)
{
    uint32_t self = (uint32_t)getpid();
    uint64_t start = mn_process_start_time(self);
    assert_true(start > 0);
    assert_int_equal(mn_process_start_time(self), start);
    assert_true(mn_process_alive(self, start));
    assert_false(mn_process_alive(self, start + 1));
    assert_false(mn_process_alive(self, 0));
    assert_false(mn_process_alive(0, 0));
    assert_int_equal(mn_process_start_time(0), 0);
    assert_int_equal(mn_process_start_time(UINT32_MAX), 0);
}

/* The name of a program may hold what /proc/<pid>/stat uses to separate. */
static void odd_names_do_not_confuse(void **state)
{
    static const char *const names[] = {"a b c d e f g", ") Z 1 2 3", "(((", "))))", "x) R 1 1 1"};
    char old[16];
    uint64_t start = mn_process_start_time((uint32_t)getpid());
    prctl(PR_GET_NAME, old);
    for (size_t i = 0; i < MN_ARRAY_LEN(names); i++) {
        prctl(PR_SET_NAME, names[i]);
        assert_int_equal(mn_process_start_time((uint32_t)getpid()), start);
    }
    prctl(PR_SET_NAME, old);
}

static void a_zombie_is_gone(void **state)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        for (;;)
            pause();
    }
    uint64_t start = mn_process_start_time((uint32_t)pid);
    assert_true(mn_process_alive((uint32_t)pid, start));
    assert_int_equal(kill(pid, SIGKILL), 0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_false(mn_process_alive((uint32_t)pid, start));
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(mn_process_alive((uint32_t)pid, start));
}

static void uuids_read_back(void **state)
{
    uint8_t a[16], b[16], boot[16], boot_again[16];
    char text[37];
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(mn_uuid_make(a), MN_OK);
        mn_uuid_text(a, text);
        assert_int_equal(strlen(text), 36);
        assert_int_equal(text[14], '4');
        assert_true(strchr("89ab", text[19]) != NULL);
        assert_true(mn_uuid_parse(text, 36, b));
        assert_memory_equal(a, b, 16);
    }
    assert_true(mn_uuid_parse("ABCDEFab-0123-4567-89AB-cdefCDEF0011", 36, a));
    mn_uuid_text(a, text);
    assert_string_equal(text, "abcdefab-0123-4567-89ab-cdefcdef0011");
    assert_int_equal(mn_boot_id(boot), MN_OK);
    assert_int_equal(mn_boot_id(boot_again), MN_OK);
    assert_memory_equal(boot, boot_again, 16);
}

static void what_is_no_uuid_is_refused(void **state)
{
    static const char good[] = "abcdefab-0123-4567-89ab-cdefcdef0011";
    uint8_t uuid[16];
    assert_false(mn_uuid_parse(good, 35, uuid));
    assert_false(mn_uuid_parse(good, 37, uuid));
    assert_false(mn_uuid_parse(good, 0, uuid));
    for (int i = 0; i < 36; i++)
        for (int c = 0; c < 256; c++) {
            char text[37];
            memcpy(text, good, sizeof text);
            text[i] = (char)c;
            bool hyphen = good[i] == '-';
            bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
            assert_int_equal(mn_uuid_parse(text, 36, uuid), hyphen ? c == '-' : hex);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks_run),
        cmocka_unit_test(a_process_is_known_by_pid_and_start),
        cmocka_unit_test(memory_is_what_there_is_at_most),
        cmocka_unit_test(odd_names_do_not_confuse),
        cmocka_unit_test(a_zombie_is_gone),
        cmocka_unit_test(uuids_read_back),
        cmocka_unit_test(what_is_no_uuid_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
