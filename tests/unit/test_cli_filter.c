/*
 * test_cli_filter.c - conditions on meta, from text to key, comparison and packed value; ids.
 */
#include "ops/cli/cli_filter.h"
#include "ops/cli/cli_id.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* `value` is the MessagePack of the expected value. */
static void assert_condition(const char *text, const char *key, enum mneme_comparison comparison, const char *value,
                             size_t size)
{
    struct mneme_condition c;
    if (mn_cli_filter_condition(text, &c) != MN_OK)
        fail_msg("`%s`: %s", text, mn_error_text());
    assert_string_equal(c.key, key);
    assert_int_equal(c.comparison, comparison);
    assert_int_equal(c.value_size, size);
    assert_memory_equal(c.value, value, size);
}

#define IS(text, key, comparison, value) assert_condition(text, key, comparison, value, sizeof value - 1)

static void comparisons(void **state)
{
    IS("age>=18", "age", MNEME_GTE, "\x12");
    IS("age <= -1", "age", MNEME_LTE, "\xff");
    IS("age>18", "age", MNEME_GT, "\x12");
    IS("a.b.c < 1.5", "a.b.c", MNEME_LT, "\xcb\x3f\xf8\0\0\0\0\0\0");
    IS("who=ada", "who", MNEME_EQ,
       "\xa3"
       "ada");
    IS("who == ada l.", "who", MNEME_EQ,
       "\xa6"
       "ada l.");
    IS("who != \"3\"", "who", MNEME_NE,
       "\xa1"
       "3");
    IS("ok=true", "ok", MNEME_EQ, "\xc3");
    IS("gone=null", "gone", MNEME_EQ, "\xc0");
    IS("text=a=b", "text", MNEME_EQ,
       "\xa3"
       "a=b");
}

static void words(void **state)
{
    IS("kind in [\"a\", 2]", "kind", MNEME_IN,
       "\x92\xa1"
       "a\x02");
    IS("kind in[1]", "kind", MNEME_IN, "\x91\x01");
    IS("kind exists", "kind", MNEME_EXISTS_IS, "\xc3");
    IS(" a.b  missing ", "a.b", MNEME_EXISTS_IS, "\xc2");
    IS("exists=1", "exists", MNEME_EQ, "\x01");
    IS("in=1", "in", MNEME_EQ, "\x01");
}

static void what_is_no_condition(void **state)
{
    static const char *const bad[] = {"", "age", "=3", "age=", "kind in a", "kind in [1", "age !"};
    for (size_t i = 0; i < MN_ARRAY_LEN(bad); i++) {
        struct mneme_condition c;
        if (mn_cli_filter_condition(bad[i], &c) != MN_USAGE)
            fail_msg("`%s` is no condition", bad[i]);
    }
}

static void ids(void **state)
{
    struct mneme_id id, other;
    char text[MN_CLI_ID_SIZE];
    assert_int_equal(mn_cli_id_parse("9223372036854775807", &id), MN_OK);
    assert_true(id.number == INT64_MAX && !id.uuid[0]);
    assert_string_equal(mn_cli_id_print(&id, text), "9223372036854775807");
    assert_int_equal(mn_cli_id_parse("550E8400-e29b-41d4-A716-446655440000", &other), MN_OK);
    assert_string_equal(mn_cli_id_print(&other, text), "550e8400-e29b-41d4-a716-446655440000");
    assert_false(mn_cli_id_equal(&id, &other));
    assert_true(mn_cli_id_equal(&other, &other));
    static const char *const bad[] = {"",
                                      "-1",
                                      "9223372036854775808",
                                      "12345678901234567890",
                                      "1.5",
                                      "x",
                                      "550e8400-e29b-41d4-a716-44665544000",
                                      "550e8400-e29b-41d4-a716-44665544000g"};
    for (size_t i = 0; i < MN_ARRAY_LEN(bad); i++)
        assert_int_equal(mn_cli_id_parse(bad[i], &id), MN_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparisons),
        cmocka_unit_test(words),
        cmocka_unit_test(what_is_no_condition),
        cmocka_unit_test(ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
