/*
 * test_columns_repair.c - a damaged segment is made what it was, byte for byte, whatever small piece of it was hit.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/columns_file.h"
#include "engine/columns_repair.h"
#include "tests/unit/expect.h"

#define DIM  16u
#define ROWS 3000u

static const char *const files[] = {
    "ids",     "spaces",  "born",   "times",    "expires", "confidence", "scale",  "embeddings", "tags",        "meta",
    "content", "strings", "idhash", "postings", "died",    "metaindex",  "parity", "died.77",    "died-copy.77"};

struct fixture {
    struct mn_store store;
    char dir[128];
    struct mn_manifest_segment segment;
    _Atomic uint64_t died[ROWS];
    uint8_t *bytes[MN_ARRAY_LEN(files)];
    size_t length[MN_ARRAY_LEN(files)];
};

static void write_segment(struct fixture *f)
{
    struct mn_str strings[] = {{"alpha", 5}, {"beta", 4}, {"gamma", 5}};
    struct mn_columns_writer *writer;
    float vector[DIM];
    uint64_t bytes;
    ok(mn_columns_create(&writer, &f->store, 5, ROWS, strings, 3));
    for (uint32_t n = 0; n < ROWS; n++) {
        char content[300];
        uint32_t tags[] = {n % 3, (n + 1) % 3};
        for (uint32_t d = 0; d < DIM; d++)
            vector[d] = (float)(n * DIM + d);
        memset(content, 'a' + (int)(n % 26), sizeof content);
        struct mn_columns_row row = {.id = {.lo = n},
                                     .space = n % 2,
                                     .born = n + 1,
                                     .died = MN_ALIVE,
                                     .at = n,
                                     .expires = MN_NEVER,
                                     .confidence = (float)n / ROWS,
                                     .scale = 1,
                                     .vector = vector,
                                     .tags = tags,
                                     .tag_count = n % 3,
                                     .meta = {content, 0},
                                     .content = {content, n % 300}};
        ok(mn_columns_append(writer, &row));
        f->died[n] = MN_ALIVE;
    }
    ok(mn_columns_finish(writer, &bytes));
    ok(mn_columns_write_died(&f->store, 5, 77, ROWS, f->died));
    f->segment = (struct mn_manifest_segment){.id = 5, .rows = ROWS, .died_seq = 77};
}

static char *path_of(struct fixture *f, size_t file, char *path)
{
    return mn_store_column_path(&f->store, path, 5, files[file]);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/mn-repair-XXXXXX");
    if (!mkdtemp(f->dir) || mn_store_create(&f->store, &mn_io_posix, f->dir, DIM, MN_METRIC_IP) != MN_OK)
        return -1;
    write_segment(f);
    for (size_t i = 0; i < MN_ARRAY_LEN(files); i++) {
        char path[MN_PATH_MAX];
        void *data;
        ok(mn_io_slurp(&mn_io_posix, path_of(f, i, path), 64 << 20, &data, &f->length[i]));
        f->bytes[i] = data;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int failed = mn_io_remove_tree(&mn_io_posix, f->dir) != MN_OK;
    for (size_t i = 0; i < MN_ARRAY_LEN(files); i++)
        free(f->bytes[i]);
    free(f);
    return failed;
}

static void scribble(struct fixture *f, size_t file, uint64_t at, uint64_t bytes)
{
    char path[MN_PATH_MAX];
    int fd = open(path_of(f, file, path), O_RDWR);
    assert_true(fd >= 0);
    for (uint64_t i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)(f->bytes[file][at + i] ^ 0x55);
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)(at + i)), 1);
    }
    close(fd);
}

static void count(void *context, const char *path, const char *what)
{
    (void)path;
    (void)what;
    ++*(uint32_t *)context;
}

/* As the scrubber does it, in small slices; what it found. */
static uint32_t scrub(struct fixture *f)
{
    struct mn_columns_scrub walk = {.segment = 5};
    uint64_t read = 0;
    uint32_t found = 0;
    for (bool done = false; !done;)
        ok(mn_columns_scrub(&walk, &f->store, &f->segment, 100000, &read, count, &found, &done));
    assert_int_equal(walk.damage, found);
    return found;
}

static void mend(struct fixture *f, uint32_t written, uint32_t lost)
{
    struct mn_columns_mended mended;
    ok(mn_columns_mend(&f->store, &f->segment, f->died, NULL, NULL, &mended));
    assert_int_equal(mended.lost, lost);
    assert_int_equal(mended.files, written);
}

static void expect_whole(struct fixture *f)
{
    for (size_t i = 0; i < MN_ARRAY_LEN(files); i++) {
        char path[MN_PATH_MAX];
        void *data;
        size_t bytes;
        ok(mn_io_slurp(&mn_io_posix, path_of(f, i, path), 64 << 20, &data, &bytes));
        if (bytes != f->length[i] || memcmp(data, f->bytes[i], bytes) != 0)
            fail_msg("%s.col is not what it was", files[i]);
        free(data);
    }
}

static void whole_segments_are_left_alone(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(scrub(f), 0);
    mend(f, 0, 0);
    expect_whole(f);
}

static void any_hit_is_mended(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < MN_ARRAY_LEN(files); i++) {
        uint64_t places[] = {16, 255, f->length[i] * 3 / 4, f->length[i] / 2, f->length[i] - 6, f->length[i] - 2};
        for (size_t p = 0; p < MN_ARRAY_LEN(places); p++) {
            scribble(f, i, places[p], 1);
            if (scrub(f) == 0)
                fail_msg("%s.col: a change at %llu was not found", files[i], (unsigned long long)places[p]);
            mend(f, 1, 0);
            assert_int_equal(scrub(f), 0);
            expect_whole(f);
        }
        uint64_t most = f->length[i] - 300 < 4096 ? f->length[i] - 300 : 4096;
        scribble(f, i, 256, most);
        assert_true(scrub(f) > 0);
        mend(f, 1, 0);
        expect_whole(f);
    }
}

static void small_files_may_be_cut_or_gone(void **state)
{
    struct fixture *f = *state;
    char path[MN_PATH_MAX];
    for (size_t i = 0; i < MN_ARRAY_LEN(files); i++) {
        if (strcmp(files[i], "embeddings") == 0 || strcmp(files[i], "content") == 0)
            continue; /* of several blocks in a stripe */
        assert_int_equal(truncate(path_of(f, i, path), (off_t)f->length[i] / 2), 0);
        assert_true(scrub(f) > 0);
        mend(f, 1, 0);
        expect_whole(f);
        assert_int_equal(unlink(path_of(f, i, path)), 0);
        assert_true(scrub(f) > 0);
        mend(f, 1, 0);
        expect_whole(f);
    }
}

static size_t number_of(const char *name)
{
    for (size_t i = 0; i < MN_ARRAY_LEN(files); i++)
        if (strcmp(files[i], name) == 0)
            return i;
    fail_msg("no file %s", name);
    return 0;
}

static void drop(struct fixture *f, const char *name)
{
    char path[MN_PATH_MAX];
    assert_int_equal(unlink(path_of(f, number_of(name), path)), 0);
}

/* Without parity what follows from the others is made from them, and the parity anew. */
static void indexes_follow_from_the_rest(void **state)
{
    struct fixture *f = *state;
    drop(f, "parity");
    drop(f, "idhash");
    drop(f, "postings");
    drop(f, "metaindex");
    mend(f, 4, 0);
    expect_whole(f);
    assert_int_equal(scrub(f), 0);
}

/* Two damaged blocks of a stripe are beyond it: said, and everything else left as it is. */
static void what_is_lost_is_told(void **state)
{
    struct fixture *f = *state;
    drop(f, "parity");
    scribble(f, number_of("content"), 70000, 3);
    mend(f, 0, 1);
    mend(f, 0, 1);
    assert_true(scrub(f) == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whole_segments_are_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(any_hit_is_mended, setup, teardown),
        cmocka_unit_test_setup_teardown(small_files_may_be_cut_or_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(indexes_follow_from_the_rest, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_lost_is_told, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
