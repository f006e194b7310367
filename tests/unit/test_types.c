/*
 * test_types.c - strings, ids, their order and hashes, liveness words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/types.h"

static struct mn_str str(const char *text)
{
    return (struct mn_str){text, (uint32_t)strlen(text)};
}

static int sign(int n)
{
    return (n > 0) - (n < 0);
}

static void strings_are_ordered_by_bytes(void **state)
{
    static const char *const ordered[] = {"", "\x01", "A", "Aa", "B", "a", "aa", "ab", "b", "\x7f", "\xc3\xa4", "\xff"};
    for (size_t a = 0; a < MN_ARRAY_LEN(ordered); a++)
        for (size_t b = 0; b < MN_ARRAY_LEN(ordered); b++) {
            assert_int_equal(sign(mn_str_compare(str(ordered[a]), str(ordered[b]))), (a > b) - (a < b));
            assert_int_equal(mn_str_equal(str(ordered[a]), str(ordered[b])), a == b);
        }
    struct mn_str nothing = {NULL, 0};
    assert_true(mn_str_equal(nothing, str("")));
    assert_int_equal(mn_str_compare(nothing, str("")), 0);
    assert_true(mn_str_compare(nothing, str("a")) < 0);
}

static void integers_stand_before_uuids(void **state)
{
    static const struct mn_id ordered[] = {{.lo = 0},
                                           {.lo = 1},
                                           {.lo = INT64_MAX},
                                           {.kind = MN_ID_UUID},
                                           {.lo = 1, .kind = MN_ID_UUID},
                                           {.lo = UINT64_MAX, .kind = MN_ID_UUID},
                                           {.hi = 1, .kind = MN_ID_UUID},
                                           {.hi = UINT64_MAX, .lo = UINT64_MAX, .kind = MN_ID_UUID}};
    for (size_t a = 0; a < MN_ARRAY_LEN(ordered); a++)
        for (size_t b = 0; b < MN_ARRAY_LEN(ordered); b++) {
            assert_int_equal(mn_id_compare(&ordered[a], &ordered[b]), (a > b) - (a < b));
            assert_int_equal(mn_id_equal(&ordered[a], &ordered[b]), a == b);
            assert_int_equal(mn_id_hash(5, &ordered[a]) == mn_id_hash(5, &ordered[b]), a == b);
        }
}

static void ids_as_text(void **state)
{
    char text[MN_ID_TEXT_MAX];
    struct mn_id id = {.lo = 0};
    assert_int_equal(mn_id_text(&id, text), 1);
    assert_string_equal(text, "0");
    id.lo = INT64_MAX;
    assert_int_equal(mn_id_text(&id, text), 19);
    assert_string_equal(text, "9223372036854775807");
    id = (struct mn_id){.hi = UINT64_C(0x0123456789abcdef), .lo = UINT64_C(0xfedcba9876543210), .kind = MN_ID_UUID};
    assert_int_equal(mn_id_text(&id, text), 36);
    assert_string_equal(text, "01234567-89ab-cdef-fedc-ba9876543210");
}

/* On disk and in shared memory: they may not change for the life of a store. */
static void hashes_are_what_they_were(void **state)
{
    struct mn_id one = {.lo = 1}, uuid = {.hi = 2, .lo = 3, .kind = MN_ID_UUID};
    assert_true(mn_str_hash(str("")) == UINT64_C(0x1137509a84ab7784));
    assert_true(mn_str_hash(str("default")) == UINT64_C(0xc77832b7c114e558));
    assert_true(mn_str_hash(str("a longer name of a space")) == UINT64_C(0xea95be02dd310b88));
    assert_true(mn_id_hash(mn_str_hash(str("default")), &one) == UINT64_C(0x5fceed969b21173f));
    assert_true(mn_id_hash(mn_str_hash(str("default")), &uuid) == UINT64_C(0x6728ca811f0ebea8));
    assert_true(mn_id_hash(UINT64_C(1), &one) != 0);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void hashes_spread(void **state)
{
    enum { COUNT = 200000 };
    uint64_t *hashes = malloc(COUNT * sizeof *hashes);
    static uint32_t low[1024], high[1024];
    uint64_t space = mn_str_hash(str("default"));
    for (uint32_t i = 0; i < COUNT; i++) {
        struct mn_id id = {.lo = i};
        hashes[i] = mn_id_hash(space, &id);
        low[hashes[i] & 1023]++;
        high[hashes[i] >> 54]++;
    }
    for (int i = 0; i < 1024; i++) {
        assert_in_range(low[i], COUNT / 1024 / 2, COUNT / 1024 * 2);
        assert_in_range(high[i], COUNT / 1024 / 2, COUNT / 1024 * 2);
    }
    qsort(hashes, COUNT, sizeof *hashes, by_value);
    for (uint32_t i = 1; i < COUNT; i++)
        assert_true(hashes[i] != hashes[i - 1]);
    free(hashes);
    char text[33] = {0};
    for (uint32_t length = 0; length <= 32; length++) /* zeros of different lengths differ */
        for (uint32_t other = 0; other < length; other++)
            assert_true(mn_str_hash((struct mn_str){text, length}) != mn_str_hash((struct mn_str){text, other}));
}

static void liveness_words(void **state)
{
    assert_int_equal(mn_died_seq(mn_died_make(7, false)), 7);
    assert_int_equal(mn_died_seq(mn_died_make(7, true)), 7);
    assert_false(mn_died_suppressed(mn_died_make(7, false)));
    assert_true(mn_died_suppressed(mn_died_make(7, true)));
    assert_false(mn_died_suppressed(MN_ALIVE));
    assert_true(mn_died_seq(MN_ALIVE) > UINT64_C(1) << 62);
    assert_true(mn_died_make(8, false) > mn_died_make(7, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_ordered_by_bytes),
        cmocka_unit_test(integers_stand_before_uuids),
        cmocka_unit_test(ids_as_text),
        cmocka_unit_test(hashes_are_what_they_were),
        cmocka_unit_test(hashes_spread),
        cmocka_unit_test(liveness_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
