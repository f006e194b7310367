/*
 * test_layout.c - the shared structs: hot words on lines of their own, a fingerprint that notices, words for every
 * number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/shared.h"
#include "shm/layout.h"

static void hot_words_do_not_share_a_line(void **state)
{
    static const size_t hot[] = {offsetof(struct mn_control, durable_seq), offsetof(struct mn_control, visible_seq),
                                 offsetof(struct mn_control, acked_seq),   offsetof(struct mn_control, view_gen),
                                 offsetof(struct mn_control, oldest_seq),  offsetof(struct mn_control, roles)};
    for (size_t a = 0; a < MN_ARRAY_LEN(hot); a++) {
        assert_int_equal(hot[a] % MN_LINE, 0);
        for (size_t b = 0; b < a; b++)
            assert_int_not_equal(hot[a] / MN_LINE, hot[b] / MN_LINE);
    }
    assert_int_equal(sizeof(struct mn_reader_slot), MN_LINE);
    assert_int_equal(sizeof(struct mn_role_slot) % MN_LINE, 0);
    assert_int_equal(_Alignof(struct mn_reader_slot) <= MN_LINE, 1);
}

static void the_fingerprint_is_of_all_fields(void **state)
{
    assert_int_equal(mn_layout_fingerprint(), mn_layout_fingerprint());
    assert_int_not_equal(mn_layout_fingerprint(), mn_engine_fingerprint());
    assert_int_not_equal(mn_layout_fingerprint(), 0);
    uint64_t base = mn_layout_hash(1, "struct{0 uint64_t a;}");
    assert_int_not_equal(base, mn_layout_hash(1, "struct{8 uint64_t a;}"));
    assert_int_not_equal(base, mn_layout_hash(1, "struct{0 uint32_t a;}"));
    assert_int_not_equal(base, mn_layout_hash(1, "struct{0 uint64_t b;}"));
    assert_int_not_equal(base, mn_layout_hash(2, "struct{0 uint64_t a;}"));
    assert_int_equal(mn_layout_hash(5, ""), 5);
}

static void every_number_has_a_word(void **state)
{
    for (unsigned n = 0; n < MN_ROLE_COUNT; n++)
        assert_string_not_equal(mn_role_word(n), "?");
    for (unsigned n = 0; n < MN_METRIC_COUNT; n++)
        assert_string_not_equal(mn_metric_word(n), "?");
    assert_string_equal(mn_role_word(MN_ROLE_WAL_WRITER), "wal-writer");
    assert_string_equal(mn_store_state_word(MN_STORE_DEGRADED), "degraded");
    assert_string_equal(mn_role_state_word(MN_ROLE_STOPPING), "stopping");
    assert_string_equal(mn_scheduling_word(MN_SCHEDULING_REALTIME), "fifo");
    assert_string_equal(mn_role_word(MN_ROLE_COUNT), "?");
    assert_string_equal(mn_store_state_word(UINT32_MAX), "?");
    assert_string_equal(mn_metric_word(UINT32_MAX), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hot_words_do_not_share_a_line),
        cmocka_unit_test(the_fingerprint_is_of_all_fields),
        cmocka_unit_test(every_number_has_a_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
