/*
 * test_supervisor_policy.c - back-off, the state of the whole, stalls, last words.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "actors/supervisor_policy.h"

#define MS UINT64_C(1000000)

static void backoff_doubles_up_to_its_cap(void **state)
{
    struct mn_backoff b = {0};
    const uint64_t wanted[] = {100, 200, 400, 800, 1000, 1000, 1000};
    for (size_t i = 0; i < MN_ARRAY_LEN(wanted); i++)
        assert_int_equal(mn_backoff_died(&b, false, 100 * MS, 1000 * MS), wanted[i] * MS);
}

static void backoff_never_overflows(void **state)
{
    struct mn_backoff b = {0};
    for (int i = 0; i < 200; i++)
        assert_true(mn_backoff_died(&b, false, 1, UINT64_MAX) > 0);
    assert_int_equal(mn_backoff_died(&b, false, 1, UINT64_MAX), UINT64_MAX);
    assert_int_equal(mn_backoff_died(&b, false, 500, 100), 100);
}

static void a_life_that_got_ready_costs_no_pause(void **state)
{
    struct mn_backoff b = {0};
    for (int i = 0; i < 10; i++)
        assert_int_equal(mn_backoff_died(&b, true, 100 * MS, 1000 * MS), 0);
    assert_int_equal(mn_backoff_died(&b, false, 100 * MS, 1000 * MS), 100 * MS);
    assert_int_equal(mn_backoff_died(&b, false, 100 * MS, 1000 * MS), 200 * MS);
    assert_int_equal(mn_backoff_died(&b, true, 100 * MS, 1000 * MS), 0);
    assert_int_equal(mn_backoff_died(&b, false, 100 * MS, 1000 * MS), 100 * MS);
}

static void three_early_deaths_are_told_until_it_is_ready(void **state)
{
    struct mn_backoff b = {0};
    for (int i = 0; i < MN_EARLY_DEATHS_DEGRADED; i++) {
        assert_false(mn_backoff_keeps_dying(&b));
        mn_backoff_died(&b, false, 1, 2);
    }
    assert_true(mn_backoff_keeps_dying(&b));
    mn_backoff_ready(&b);
    assert_false(mn_backoff_keeps_dying(&b));
}

static void the_state_follows_from_facts(void **state)
{
    struct mn_supervisor_facts f = {0};
    assert_int_equal(mn_supervisor_state(&f), MN_STORE_STARTING);
    f.recovery_begun = true;
    assert_int_equal(mn_supervisor_state(&f), MN_STORE_RECOVERING);
    f.writer_ready = true;
    assert_int_equal(mn_supervisor_state(&f), MN_STORE_RECOVERING);
    f.complete_once = true;
    assert_int_equal(mn_supervisor_state(&f), MN_STORE_READY);
    f.reasons = MN_DEGRADED_QUARANTINE;
    assert_int_equal(mn_supervisor_state(&f), MN_STORE_DEGRADED);
    f.writer_ready = false;
    assert_int_equal(mn_supervisor_state(&f), MN_STORE_RECOVERING);
    f.reasons = MN_DEGRADED_ROLE;
    assert_int_equal(mn_supervisor_state(&f), MN_STORE_DEGRADED);
    f.stopping = true;
    assert_int_equal(mn_supervisor_state(&f), MN_STORE_STOPPING);
}

static void an_old_heartbeat_is_a_stall(void **state)
{
    uint64_t now = 100000 * MS, stall = 10000 * MS;
    assert_false(mn_supervisor_stalled(now, now - 1000 * MS, now - 9999 * MS, stall));
    assert_true(mn_supervisor_stalled(now, now - 1000 * MS, now - 10001 * MS, stall));
    assert_false(mn_supervisor_stalled(now, now - 1000 * MS, now + 5 * MS, stall));
}

static void nobody_is_blamed_when_the_supervisor_was_away(void **state)
{
    uint64_t now = 100000 * MS, stall = 10000 * MS;
    assert_false(mn_supervisor_stalled(now, now - 60000 * MS, now - 60000 * MS, stall));
    assert_false(mn_supervisor_stalled(now, now - stall / 2, now - 60000 * MS, stall));
}

static void an_end_is_told_in_words(void **state)
{
    char text[64];
    mn_supervisor_how(CLD_EXITED, 1, text, sizeof text);
    assert_string_equal(text, "exit status 1");
    mn_supervisor_how(CLD_KILLED, SIGKILL, text, sizeof text);
    assert_string_equal(text, "signal 9 (Killed)");
    mn_supervisor_how(CLD_DUMPED, SIGABRT, text, sizeof text);
    assert_string_equal(text, "signal 6 (Aborted)");
}

static void last_words_are_made_safe(void **state)
{
    char text[32];
    mn_supervisor_words("bug: x\n", 8, text, sizeof text);
    assert_string_equal(text, "bug: x");
    mn_supervisor_words("a\033[2J\377b", 7, text, sizeof text);
    assert_string_equal(text, "a?[2J?b");
    mn_supervisor_words("no end here", 5, text, sizeof text);
    assert_string_equal(text, "no en");
    mn_supervisor_words("longer than there is room for", 29, text, 7);
    assert_string_equal(text, "longer");
    mn_supervisor_words("", 1, text, sizeof text);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backoff_doubles_up_to_its_cap),
        cmocka_unit_test(backoff_never_overflows),
        cmocka_unit_test(a_life_that_got_ready_costs_no_pause),
        cmocka_unit_test(three_early_deaths_are_told_until_it_is_ready),
        cmocka_unit_test(the_state_follows_from_facts),
        cmocka_unit_test(an_old_heartbeat_is_a_stall),
        cmocka_unit_test(nobody_is_blamed_when_the_supervisor_was_away),
        cmocka_unit_test(an_end_is_told_in_words),
        cmocka_unit_test(last_words_are_made_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
