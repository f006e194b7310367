/*
 * test_client_spin.c - when a recall looks for its reply before it sleeps: told with times that are made up.
 */
#include "clients/c/spin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* More than one processor, whatever this machine has. */
static struct mn_spin fresh(void)
{
    struct mn_spin spin;
    mn_spin_init(&spin, 0);
    spin.limit_ns = 300000;
    return spin;
}

/* A stretch in which calls that sleep take `slept` and those that look take `looked`; which of them it was. */
static bool stretch(struct mn_spin *spin, uint64_t slept, uint64_t looked)
{
    bool looks = mn_spin_looks(spin);
    for (int i = 0; i < MN_SPIN_STRETCH; i++) {
        assert_true(mn_spin_looks(spin) == looks);
        mn_spin_took(spin, looks ? looked : slept);
    }
    return looks;
}

static int stretches_until(struct mn_spin *spin, bool looks, uint64_t slept, uint64_t looked)
{
    int count = 0;
    while (mn_spin_looks(spin) != looks && count < 10000) {
        stretch(spin, slept, looked);
        count++;
    }
    return count;
}

static void a_clear_gain_is_kept_and_checked_now_and_then(void **state)
{
    struct mn_spin spin = fresh();
    assert_int_equal(stretches_until(&spin, true, 200000, 120000), 1);
    for (int again = 0; again < 3; again++) {
        assert_int_equal(stretches_until(&spin, false, 200000, 120000), 256);
        assert_int_equal(stretches_until(&spin, true, 200000, 120000), 1);
    }
}

static void what_gains_little_is_tried_ever_more_rarely(void **state)
{
    struct mn_spin spin = fresh();
    int expected = 1;
    for (int tries = 0; tries < 12; tries++) {
        assert_int_equal(stretches_until(&spin, true, 200000, 190000), expected);
        assert_int_equal(stretches_until(&spin, false, 200000, 190000), 1);
        expected = expected < 256 ? expected * 2 : 256;
    }
}

static void a_gain_that_goes_ends_the_looking_with_its_stretch(void **state)
{
    struct mn_spin spin = fresh();
    stretches_until(&spin, true, 200000, 120000);
    assert_true(stretch(&spin, 200000, 120000));
    assert_true(stretch(&spin, 200000, 260000));
    assert_false(mn_spin_looks(&spin));
    assert_int_equal(stretches_until(&spin, true, 200000, 120000), 2);
}

static void looks_in_vain_end_it_at_once(void **state)
{
    struct mn_spin spin = fresh();
    stretches_until(&spin, true, 200000, 120000);
    for (int i = 0; i < 3; i++) {
        assert_true(mn_spin_looks(&spin));
        assert_true(mn_spin_again(&spin, 1000, 2000, 3000));
        assert_false(mn_spin_again(&spin, 1000, 301000, 302000));
        mn_spin_took(&spin, 120000);
    }
    assert_false(mn_spin_looks(&spin));
    assert_int_equal(stretches_until(&spin, true, 200000, 120000), 2);
}

static void a_look_ends_at_twice_the_usual_time(void **state)
{
    struct mn_spin spin = fresh();
    spin.limit_ns = 1000000;
    stretches_until(&spin, true, 200000, 120000);
    assert_true(mn_spin_again(&spin, 1000, 400000, 401000));
    assert_false(mn_spin_again(&spin, 1000, 400000, 401001));
    assert_int_equal(spin.in_vain, 1);
}

static void a_processor_that_others_want_is_left_to_them(void **state)
{
    struct mn_spin spin = fresh();
    spin.slept_ns = 200000;
    assert_true(mn_spin_again(&spin, 1000, 2000, 22000));
    assert_false(mn_spin_again(&spin, 1000, 2000, 22001));
    assert_int_equal(spin.in_vain, 0);
}

static void never_is_never(void **state)
{
    struct mn_spin spin;
    mn_spin_init(&spin, -1);
    for (int i = 0; i < 100; i++) {
        assert_false(mn_spin_looks(&spin));
        mn_spin_took(&spin, 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clear_gain_is_kept_and_checked_now_and_then),
        cmocka_unit_test(what_gains_little_is_tried_ever_more_rarely),
        cmocka_unit_test(a_gain_that_goes_ends_the_looking_with_its_stretch),
        cmocka_unit_test(looks_in_vain_end_it_at_once),
        cmocka_unit_test(a_look_ends_at_twice_the_usual_time),
        cmocka_unit_test(a_processor_that_others_want_is_left_to_them),
        cmocka_unit_test(never_is_never),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
