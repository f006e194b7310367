/*
 * test_columns_file.c - files that do not all stay in memory: told to be read page by page, asked for ahead, and let go
 * of, they hold what they held, at their edges too.
 */
#include "tests/unit/store_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/columns_file.h"

#define BYTES (5u * MN_COLUMN_BLOCK + 1234u)

static void make(struct fixture *f, char *path, struct mn_column_file *file)
{
    struct mn_column_sink sink;
    snprintf(path, MN_PATH_MAX, "%s/some.col", f->dir);
    ok(mn_column_sink_open(&sink, &f->store, 7, MN_COLUMN_META, path));
    for (uint32_t at = 0; at < BYTES; at += sizeof at)
        ok(mn_column_sink_append(&sink, &at, BYTES - at < sizeof at ? BYTES - at : sizeof at));
    ok(mn_column_sink_end(&sink, 1, 0));
    mn_column_sink_close(&sink);
    ok(mn_column_file_map(file, &f->store, 7, MN_COLUMN_META, path));
}

static void it_holds_what_it_held(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_column_file file;
    char path[MN_PATH_MAX];
    make(f, path, &file);
    mn_column_file_ahead(&file, 0, UINT64_MAX); /* not scattered: nothing */
    const uint64_t from[] = {MN_COLUMN_BLOCK + 100, 0};
    for (size_t i = 0; i < MN_ARRAY_LEN(from); i++) {
        mn_column_file_scatter(&file, from[i]);
        assert_true(atomic_load(&file.scattered));
        const uint64_t places[] = {0, 1, 4095, MN_COLUMN_BLOCK - 1, BYTES - 1, BYTES, BYTES + 1, UINT64_MAX - 5};
        for (size_t p = 0; p < MN_ARRAY_LEN(places); p++) {
            mn_column_file_ahead(&file, places[p], 1);
            mn_column_file_ahead(&file, places[p], UINT64_MAX - places[p]);
        }
        for (uint64_t block = 0; block < file.blocks; block++)
            assert_true(mn_column_file_intact(&file, block));
        for (uint32_t at = 0; at + sizeof at <= BYTES; at += sizeof at)
            assert_memory_equal(file.data + at, &at, sizeof at);
    }
    mn_column_file_unmap(&file);
    mn_column_file_scatter(&file, 0); /* not mapped: nothing */
    assert_false(atomic_load(&file.scattered));
    fixture_free(f);
}

static struct {
    const uint8_t *base;
    uint64_t bytes;
    uint32_t calls;
} gone;

static void note(const void *base, uint64_t bytes)
{
    gone.base = base;
    gone.bytes = bytes;
    gone.calls++;
    mn_io_posix.let_go(base, bytes);
}

static void expect_gone(const struct mn_column_file *file, uint64_t first, uint64_t end)
{
    assert_true(gone.base == file->base + first && gone.bytes == end - first);
    assert_true(mn_column_file_check(file, "it") == MN_OK);
}

static void whole_pages_are_let_go_and_come_back(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_io io = mn_io_posix;
    struct mn_column_file file;
    char path[MN_PATH_MAX];
    make(f, path, &file);
    uint64_t data = (uint64_t)(file.data - file.base);
    io.let_go = note;
    file.io = &io;
    gone.calls = 0;
    mn_column_file_let_go(&file, 0, BYTES);
    expect_gone(&file, mn_round_up(data, 4096), (data + BYTES) / 4096 * 4096);
    mn_column_file_let_go(&file, 8192 - data, 3 * 8192 - data); /* to the byte */
    expect_gone(&file, 8192, 3 * 8192);
    mn_column_file_let_go(&file, 8193 - data, 3 * 8192 - data - 1);
    expect_gone(&file, 3 * 4096, 5 * 4096);
    assert_int_equal(gone.calls, 3);
    mn_column_file_let_go(&file, 8193 - data, 16383 - data); /* no whole page */
    file.image = f;                                          /* bytes of our own: they would not come back */
    mn_column_file_let_go(&file, 0, BYTES);
    file.image = NULL;
    io.let_go = NULL;
    mn_column_file_let_go(&file, 0, BYTES);
    io.let_go = note;
    mn_column_file_unmap(&file);
    mn_column_file_let_go(&file, 0, BYTES);
    assert_int_equal(gone.calls, 3);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_holds_what_it_held),
                                       cmocka_unit_test(whole_pages_are_let_go_and_come_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
