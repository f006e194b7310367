/*
 * test_shared.c - the engine's shared structs: their fingerprint, and the words that readers and the writer meet in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/shared.h"

static void the_fingerprint_goes_on_from_that_of_shm(void **state)
{
    assert_int_equal(mn_engine_fingerprint(), mn_engine_fingerprint());
    assert_int_not_equal(mn_engine_fingerprint(), mn_layout_fingerprint());
}

static void published_words_stand_on_lines_of_their_own(void **state)
{
    assert_int_equal(offsetof(struct mn_tail_header, rows) % MN_LINE, 0);
    assert_true(offsetof(struct mn_tail_header, rows) / MN_LINE > offsetof(struct mn_tail_header, arena_max) / MN_LINE);
    assert_int_equal(offsetof(struct mn_live, died) % MN_LINE, 0);
    assert_int_equal(sizeof(struct mn_tail_row) % MN_LINE, 0);
    assert_int_equal(sizeof(struct mn_view) % sizeof(uint64_t), 0);
}

static void a_content_length_is_free_of_its_flags(void **state)
{
    uint32_t bytes = MN_CONTENT_BYTES_MAX | MN_CONTENT_BIN | MN_CONTENT_NONE;
    assert_int_equal(MN_CONTENT_LENGTH(bytes), MN_CONTENT_BYTES_MAX);
    assert_int_equal(MN_CONTENT_LENGTH(MN_CONTENT_NONE), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fingerprint_goes_on_from_that_of_shm),
        cmocka_unit_test(published_words_stand_on_lines_of_their_own),
        cmocka_unit_test(a_content_length_is_free_of_its_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
