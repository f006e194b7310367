/*
 * test_compactor_load.c - when a machine is idle, and when recalls suffer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "actors/compactor_load.h"

#define SECOND UINT64_C(1000000000)

static struct mn_settings settings_of(uint64_t idle_recalls, uint64_t idle_p99)
{
    struct mn_settings s;
    mn_settings_default(&s);
    s.compact_idle_recalls = idle_recalls;
    s.compact_idle_p99 = idle_p99;
    return s;
}

static void nothing_known_is_idle(void **state)
{
    struct mn_load load = {0};
    struct mn_settings s = settings_of(200, MN_MILLISECONDS(2));
    assert_true(mn_load_idle(&load, &s));
    assert_false(mn_load_suffers(&load, &s));
}

static void a_rate_is_of_the_last_full_window(void **state)
{
    struct mn_load load = {0};
    struct mn_settings s = settings_of(200, MN_MILLISECONDS(2));
    uint64_t buckets[MN_HISTOGRAM_BUCKETS] = {0};
    mn_load_note(&load, 5000, buckets, 10 * SECOND);
    assert_int_equal(load.rate, 0);
    mn_load_note(&load, 5100, buckets, 10 * SECOND + MN_LOAD_WINDOW_NS - 1);
    assert_int_equal(load.rate, 0);
    mn_load_note(&load, 5500, buckets, 11 * SECOND);
    assert_int_equal(load.rate, 500);
    assert_false(mn_load_idle(&load, &s));
    mn_load_note(&load, 5600, buckets, 12 * SECOND);
    assert_int_equal(load.rate, 100);
    assert_true(mn_load_idle(&load, &s));
}

static void slow_recalls_of_long_ago_do_not_count(void **state)
{
    struct mn_load load = {0};
    struct mn_settings s = settings_of(200, MN_MILLISECONDS(2));
    uint64_t buckets[MN_HISTOGRAM_BUCKETS] = {0};
    buckets[120] = 1000; /* far above 2 ms, before the first look */
    mn_load_note(&load, 1000, buckets, SECOND);
    assert_false(mn_load_suffers(&load, &s));
    buckets[120] += 10;
    mn_load_note(&load, 1010, buckets, 2 * SECOND);
    assert_true(mn_load_suffers(&load, &s));
    assert_false(mn_load_idle(&load, &s));
    buckets[7] += 10; /* 7 us */
    mn_load_note(&load, 1020, buckets, 3 * SECOND);
    assert_int_equal(load.p99_us, 7);
    assert_false(mn_load_suffers(&load, &s));
    mn_load_note(&load, 1020, buckets, 4 * SECOND);
    assert_int_equal(load.p99_us, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_known_is_idle),
        cmocka_unit_test(a_rate_is_of_the_last_full_window),
        cmocka_unit_test(slow_recalls_of_long_ago_do_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
