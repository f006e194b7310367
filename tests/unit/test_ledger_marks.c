/*
 * test_ledger_marks.c - engine/ledger_marks: what is kept of the ids that a log touched, thinned and read back.
 */
#include "engine/ledger_marks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/request.h"

static void add(struct mn_ledger_marks *marks, uint64_t seq, uint64_t id, uint32_t mode, const char *space)
{
    struct mn_ledger_mark mark = {seq, {.lo = id}, mode, {space, (uint32_t)strlen(space)}};
    assert_int_equal(mn_ledger_marks_add(marks, &mark), MN_OK);
}

static void expect(const struct mn_ledger_marks *marks, uint64_t *at, uint64_t seq, uint64_t id, const char *space)
{
    struct mn_ledger_mark mark;
    assert_true(mn_ledger_marks_next(marks, at, &mark));
    assert_int_equal(mark.seq, seq);
    assert_int_equal(mark.id.lo, id);
    assert_int_equal(mark.space.length, strlen(space));
    assert_memory_equal(mark.space.data, space, strlen(space));
}

static void the_first_and_the_last_of_each_kind_stay(void **state)
{
    struct mn_ledger_marks marks = {0};
    struct mn_ledger_mark mark;
    uint64_t at = 0;
    assert_int_equal(mn_ledger_marks_thin(&marks), MN_OK);
    for (uint64_t seq = 10; seq < 1000; seq += 10)
        add(&marks, seq, 1, seq % 30 == 0 ? MN_FORGET_SUPPRESS : MN_FORGET_DELETE, "b");
    add(&marks, 500, 1, MN_FORGET_PURGE, "a");
    add(&marks, 505, 1, MN_FORGET_DELETE, "a");
    add(&marks, 510, 2, MN_FORGET_DELETE, "a");
    add(&marks, 520, 1, MN_FORGET_PURGE, "b");
    assert_int_equal(mn_ledger_marks_thin(&marks), MN_OK);
    expect(&marks, &at, 500, 1, "a");
    expect(&marks, &at, 505, 1, "a");
    expect(&marks, &at, 510, 2, "a");
    expect(&marks, &at, 10, 1, "b");
    expect(&marks, &at, 520, 1, "b");
    expect(&marks, &at, 980, 1, "b");
    expect(&marks, &at, 990, 1, "b");
    assert_false(mn_ledger_marks_next(&marks, &at, &mark));
    mn_ledger_marks_free(&marks);
}

static void what_is_not_whole_is_refused(void **state)
{
    struct mn_ledger_marks marks = {0}, copy = {0};
    uint64_t at = 0;
    add(&marks, 7, 8, MN_FORGET_DELETE, "some space");
    for (uint64_t bytes = 1; bytes < marks.bytes; bytes++) {
        uint8_t *cut = malloc(bytes); /* so that whoever reads behind it is caught */
        assert_non_null(cut);
        memcpy(cut, marks.data, bytes);
        assert_int_equal(mn_ledger_marks_load(&copy, cut, bytes), MN_CORRUPT);
        free(cut);
    }
    assert_int_equal(mn_ledger_marks_load(&copy, marks.data, marks.bytes), MN_OK);
    expect(&copy, &at, 7, 8, "some space");
    marks.data[36] = 0xff; /* the length of the name */
    assert_int_equal(mn_ledger_marks_load(&copy, marks.data, marks.bytes), MN_CORRUPT);
    assert_int_equal(mn_ledger_marks_load(&copy, NULL, 0), MN_OK);
    assert_int_equal(copy.bytes, 0);
    mn_ledger_marks_free(&copy);
    mn_ledger_marks_free(&marks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_and_the_last_of_each_kind_stay),
        cmocka_unit_test(what_is_not_whole_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
