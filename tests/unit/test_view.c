/*
 * test_view.c - view files: published whole, mapped as they were listed, refused when they are not what they should be.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/view.h"

static void a_view_is_what_was_listed(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_view_columns columns[3] = {{1, 10, 1, 0}, {2, 20, 1, 0}, {5, 50, 2, 0}};
    struct mn_view_chunk chunks[2] = {{7, 2}, {8, 2}};
    struct mn_view_list list = {.gen = 1, .log_seq = 99, .columns = 3, .chunks = 2, .column = columns, .chunk = chunks},
                        seen;
    fixture_open_instance(f);
    fails(MN_NOT_FOUND, mn_view_map(&seen, &f->instance, 1));
    ok(mn_view_publish(&f->instance, &list));
    assert_int_equal(atomic_load(&f->instance.control->view_gen), 1);
    ok(mn_view_map(&seen, &f->instance, 1));
    assert_int_equal(seen.gen, 1);
    assert_int_equal(seen.log_seq, 99);
    assert_int_equal(seen.columns, 3);
    assert_int_equal(seen.chunks, 2);
    assert_memory_equal(seen.column, columns, sizeof columns);
    assert_memory_equal(seen.chunk, chunks, sizeof chunks);
    mn_view_unmap(&seen);
    mn_view_unmap(&seen);
    list = (struct mn_view_list){.gen = 2};
    ok(mn_view_publish(&f->instance, &list)); /* of nothing */
    ok(mn_view_map(&seen, &f->instance, 2));
    assert_int_equal(seen.columns + seen.chunks, 0);
    mn_view_unmap(&seen);
    ok(mn_view_map(&seen, &f->instance, 1)); /* the older one stays until it is removed */
    mn_view_unmap(&seen);
    fixture_free(f);
}

static void a_file_in_the_way_was_never_published(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_view_list list = {.gen = 1}, seen;
    fixture_open_instance(f);
    int fd = openat(f->instance.dir_fd, "view.1", O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    fails(MN_NOT_READY, mn_view_map(&seen, &f->instance, 1));
    ok(mn_view_publish(&f->instance, &list));
    ok(mn_view_map(&seen, &f->instance, 1));
    mn_view_unmap(&seen);
    fixture_free(f);
}

static void a_view_of_the_wrong_shape_is_refused(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_view_columns columns[2] = {{1, 10, 1, 0}, {2, 20, 1, 0}};
    struct mn_view_list list = {.gen = 3, .columns = 2, .column = columns}, seen;
    fixture_open_instance(f);
    ok(mn_view_publish(&f->instance, &list));
    int fd = openat(f->instance.dir_fd, "view.3", O_RDWR);
    static const struct {
        off_t at;
        uint32_t value;
    } lies[] = {{offsetof(struct mn_view, columns), 3},
                {offsetof(struct mn_view, columns), UINT32_MAX},
                {offsetof(struct mn_view, chunks), 1},
                {offsetof(struct mn_view, chunks), UINT32_MAX},
                {offsetof(struct mn_view, gen), 4}};
    for (size_t i = 0; i < MN_ARRAY_LEN(lies); i++) {
        uint32_t old;
        assert_int_equal(pread(fd, &old, 4, lies[i].at), 4);
        assert_int_equal(pwrite(fd, &lies[i].value, 4, lies[i].at), 4);
        fails(MN_CORRUPT, mn_view_map(&seen, &f->instance, 3));
        assert_null(seen.segment.base);
        assert_int_equal(pwrite(fd, &old, 4, lies[i].at), 4);
    }
    close(fd);
    assert_int_equal(renameat(f->instance.dir_fd, "view.3", f->instance.dir_fd, "view.2"), 0);
    fails(MN_CORRUPT, mn_view_map(&seen, &f->instance, 2));
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_view_is_what_was_listed),
        cmocka_unit_test(a_file_in_the_way_was_never_published),
        cmocka_unit_test(a_view_of_the_wrong_shape_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
