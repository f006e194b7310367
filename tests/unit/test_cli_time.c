/*
 * test_cli_time.c - times and durations as people write them, there and back.
 */
#include "ops/cli/cli_time.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define S  1000000000ll
#define AT 1772366400ll /* 2026-03-01T12:00:00Z */

static int64_t parsed(const char *text)
{
    int64_t ns = -1;
    if (!mn_cli_time_parse(text, 1000 * S, &ns))
        fail_msg("`%s` did not parse", text);
    return ns;
}

static void calendar_times(void **state)
{
    assert_int_equal(parsed("2026-03-01T12:00:00Z"), AT * S);
    assert_int_equal(parsed("2026-03-01 12:00"), AT * S);
    assert_int_equal(parsed("2026-03-01t14:00:00+02:00"), AT * S);
    assert_int_equal(parsed("2026-03-01T09:30:00-02:30"), AT * S);
    assert_int_equal(parsed("2026-03-01T12:00:00.25Z"), AT * S + S / 4);
    assert_int_equal(parsed("2026-03-01T12:00:00.123456789Z"), AT * S + 123456789);
    assert_int_equal(parsed("2026-03-01"), (AT - 12 * 3600) * S);
    assert_int_equal(parsed("1970-01-01"), 0);
    assert_int_equal(parsed("1969-12-31T23:59:59Z"), -S);
    assert_int_equal(parsed("2000-02-29"), 951782400ll * S);
    assert_int_equal(parsed("1900-03-01"), -2203891200ll * S);
}

static void relative_and_bare_times(void **state)
{
    assert_int_equal(parsed("now"), 1000 * S);
    assert_int_equal(parsed("-90s"), 910 * S);
    assert_int_equal(parsed("+1h30min"), 6400 * S);
    assert_int_equal(parsed("-1.5m"), 910 * S);
    assert_int_equal(parsed("1772366400000000000"), AT * S);
    assert_int_equal(parsed("-5"), -5);
    assert_int_equal(parsed("0"), 0);
}

static void what_is_no_time(void **state)
{
    static const char *const bad[] = {"",
                                      "yesterday",
                                      "2026-13-01",
                                      "2026-02-29",
                                      "2026-03-01T25:00",
                                      "2026-03-01T12:00:00+2",
                                      "2026-03-01T12:00:00Zx",
                                      "-1",
                                      "9223372036854775808",
                                      "-1x",
                                      "2026-3-1",
                                      "2026-03-01T12:00:00.",
                                      "9999-01-01",
                                      "+-1h"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t ns = 42;
        bool good = mn_cli_time_parse(bad[i], 0, &ns);
        if (strcmp(bad[i], "-1") == 0)
            assert_true(good && ns == -1); /* a bare number of nanoseconds */
        else if (good || ns != 42)
            fail_msg("`%s` parsed as %lld", bad[i], (long long)ns);
    }
}

static void durations(void **state)
{
    int64_t ns = 0;
    assert_true(mn_cli_time_duration("7d", &ns) && ns == 7 * 86400 * S);
    assert_true(mn_cli_time_duration("1w2d3h4min5s6ms7us8ns", &ns));
    assert_int_equal(ns, (9 * 86400 + 3 * 3600 + 4 * 60 + 5) * S + 6007008);
    assert_true(mn_cli_time_duration("0.5ms", &ns) && ns == 500000);
    assert_false(mn_cli_time_duration("", &ns));
    assert_false(mn_cli_time_duration("7", &ns));
    assert_false(mn_cli_time_duration("d", &ns));
    assert_false(mn_cli_time_duration("1..5s", &ns));
    assert_false(mn_cli_time_duration("999999999999w", &ns));
}

static void printed_times_parse_back(void **state)
{
    static const int64_t times[] = {
        0, 1, -1, AT * S, AT * S + 120000000, INT64_C(-2203891200000000001), 4102444799999999999};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        char text[MN_CLI_TIME_SIZE];
        assert_int_equal(parsed(mn_cli_time_print(times[i], text)), times[i]);
    }
    char text[MN_CLI_TIME_SIZE];
    assert_string_equal(mn_cli_time_print(AT * S + 120000000, text), "2026-03-01T12:00:00.12Z");
    assert_string_equal(mn_cli_time_print_short(AT * S + 123456789, text), "2026-03-01T12:00:00.123Z");
    assert_string_equal(mn_cli_time_print_length(1500, text), "1.5 us");
    assert_string_equal(mn_cli_time_print_length(90061ull * S, text), "25 h 01 min");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calendar_times), cmocka_unit_test(relative_and_bare_times),  cmocka_unit_test(what_is_no_time),
        cmocka_unit_test(durations),      cmocka_unit_test(printed_times_parse_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
