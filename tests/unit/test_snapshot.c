/*
 * test_snapshot.c - a copy of a running store is a store; a damaged one is not restored.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/snapshot.h"
#include "tests/unit/live_store.h"

struct fixture {
    struct live_store *live;
    char copy[128], restored[128];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->live = live_store_new();
    snprintf(f->copy, sizeof f->copy, "%s-copy", f->live->dir);
    snprintf(f->restored, sizeof f->restored, "%s-restored", f->live->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ok(mn_io_remove_tree(&mn_io_posix, f->copy));
    ok(mn_io_remove_tree(&mn_io_posix, f->restored));
    live_store_free(f->live);
    free(f);
    return 0;
}

/* Columns with later liveness, sealed log, active log, and every state a memory can be in. */
static void fill(struct live_store *s)
{
    live_remember(s, 0, 0, 300);
    live_remember(s, 1, 0, 200);
    live_seal(s);
    live_compact(s, true);
    for (uint32_t id = 0; id < 50; id++) {
        live_forget(s, 0, id, MN_FORGET_DELETE);
        live_forget(s, 0, id + 50, MN_FORGET_SUPPRESS);
    }
    live_remember(s, 2, 0, 300);
    live_seal(s);
    s->policy.dead_percent = 100;
    live_compact(s, false);
    live_remember(s, 0, 100, 30);
    live_seal(s);
    live_remember(s, 0, 120, 30);
    live_forget(s, 1, 5, MN_FORGET_DELETE);
    live_forget(s, 1, 6, MN_FORGET_SUPPRESS);
}

/* Opens a folder as a store and compares it with the model of `like` as it is now, then goes on living in it. */
static void expect_store(const char *dir, const struct live_memory model[LIVE_SPACES][LIVE_IDS], uint32_t next_version)
{
    struct live_store *s = live_store_open(dir);
    memcpy(s->model, model, sizeof s->model);
    s->next_version = next_version;
    live_check(s);
    live_forget(s, 0, 60, MN_FORGET_RESTORE);
    live_remember(s, 0, 10, 20);
    live_check(s);
    live_seal(s);
    live_compact(s, true);
    live_check(s);
    live_store_restart(s);
    live_check(s);
    live_store_free(s);
}

static void a_copy_is_a_store(void **state)
{
    struct fixture *f = *state;
    struct mn_copy_result result;
    fill(f->live);
    uint64_t seq = atomic_load(&f->live->instance.control->visible_seq);
    ok(mn_snapshot_make(&f->live->store, &f->live->instance, f->copy, NULL, NULL, &result));
    assert_int_equal(result.seq, seq);
    assert_true(result.files > 30);
    assert_true(result.bytes > 2u << 20);
    expect_store(f->copy, f->live->model, f->live->next_version);
    live_check(f->live);
}

static void a_store_without_columns(void **state)
{
    struct fixture *f = *state;
    struct mn_copy_result result;
    ok(mn_snapshot_make(&f->live->store, &f->live->instance, f->copy, NULL, NULL, &result));
    expect_store(f->copy, f->live->model, 0);
    live_remember(f->live, 0, 0, 5);
    ok(mn_snapshot_make(&f->live->store, &f->live->instance, f->copy, NULL, NULL, &result));
    expect_store(f->copy, f->live->model, f->live->next_version);
}

struct busy {
    struct live_store *live;
    uint32_t calls;
    uint64_t done, total;
};

/* Writes go on while files are copied. */
static void write_meanwhile(void *context, uint64_t done, uint64_t total)
{
    struct busy *busy = context;
    struct live_store *s = busy->live;
    assert_true(done >= busy->done && done <= total);
    busy->done = done;
    busy->total = total;
    uint32_t id = 200 + busy->calls++ * 3 % 90;
    live_remember(s, 0, id, 3);
    live_forget(s, 2, id, MN_FORGET_DELETE);
    if (busy->calls % 3 == 0)
        live_seal(s);
    live_tend(s);
}

static void writes_go_on(void **state)
{
    struct fixture *f = *state;
    struct live_store *s = f->live;
    struct mn_copy_result result;
    struct busy busy = {.live = s};
    static struct live_memory model[LIVE_SPACES][LIVE_IDS];
    fill(s);
    memcpy(model, s->model, sizeof model);
    ok(mn_snapshot_make(&s->store, &s->instance, f->copy, write_meanwhile, &busy, &result));
    assert_true(busy.calls > 30);
    assert_int_equal(busy.done, busy.total);
    assert_int_equal(result.bytes, busy.done);
    expect_store(f->copy, (const struct live_memory(*)[LIVE_IDS])model, s->next_version);
    live_check(s);
}

static void paths_that_are_taken(void **state)
{
    struct fixture *f = *state;
    struct mn_copy_result result;
    char half[160];
    live_remember(f->live, 0, 0, 20);
    assert_int_equal(mkdir(f->copy, 0700), 0);
    assert_int_equal(mn_snapshot_make(&f->live->store, &f->live->instance, f->copy, NULL, NULL, &result), MN_EXISTS);
    assert_int_equal(rmdir(f->copy), 0);
    /* What a process that died left is no obstacle. */
    snprintf(half, sizeof half, "%s.mneme-copy", f->copy);
    assert_int_equal(mkdir(half, 0700), 0);
    ok(mn_snapshot_make(&f->live->store, &f->live->instance, f->copy, NULL, NULL, &result));
    assert_false(file_exists(half));
    assert_int_equal(mn_snapshot_make(&f->live->store, &f->live->instance, f->copy, NULL, NULL, &result), MN_EXISTS);
    assert_int_equal(
        mn_snapshot_make(&f->live->store, &f->live->instance, "/tmp/mn-no-such-folder/copy", NULL, NULL, &result),
        MN_SYSTEM);
}

static void restoring(void **state)
{
    struct fixture *f = *state;
    struct live_store *s = f->live;
    struct mn_copy_result made, result;
    char half[160], file[160];
    fill(s);
    ok(mn_snapshot_make(&s->store, &s->instance, f->copy, NULL, NULL, &made));
    assert_int_equal(made.damaged, 0);
    ok(mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = f->copy, .dir = f->restored}, &result));
    assert_int_equal(result.seq, made.seq);
    assert_int_equal(result.files, made.files + 1); /* wal/MARK is written, not copied, by the first */
    assert_int_equal(
        mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = f->copy, .dir = f->restored}, &result),
        MN_EXISTS);
    ok(mn_io_remove_tree(&mn_io_posix, f->restored));
    assert_int_equal(mkdir(f->restored, 0700), 0); /* an empty folder will do */
    ok(mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = f->copy, .dir = f->restored}, &result));
    snprintf(half, sizeof half, "%s.mneme-copy", f->restored);
    assert_false(file_exists(half));
    expect_store(f->restored, s->model, s->next_version);
    assert_int_equal(mkdir(f->restored, 0700), 0);
    snprintf(file, sizeof file, "%s/mine", f->restored);
    fclose(fopen(file, "w"));
    assert_int_equal(
        mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = f->copy, .dir = f->restored}, &result),
        MN_EXISTS);
    assert_true(file_exists(file));
    assert_int_equal(
        mn_snapshot_restore(
            &(struct mn_restore){.io = &mn_io_posix, .snapshot = "/tmp/mn-no-such-folder", .dir = f->restored},
            &result),
        MN_NOT_FOUND);
}

static void damaged_snapshots_are_refused(void **state)
{
    struct fixture *f = *state;
    struct live_store *s = f->live;
    struct mn_copy_result result;
    fill(s);
    ok(mn_snapshot_make(&s->store, &s->instance, f->copy, NULL, NULL, &result));
    struct mn_store copy;
    ok(mn_store_open(&copy, &mn_io_posix, f->copy));
    struct mn_manifest m;
    ok(mn_manifest_read(&m, &copy, NULL));
    char path[MN_PATH_MAX], half[160];
    uint64_t first = m.wal_first, segment = m.segments[0].id;
    mn_manifest_free(&m);
    snprintf(half, sizeof half, "%s.mneme-copy", f->restored);
    for (int what = 0; what < 3; what++) {
        off_t at = 400;
        if (what == 0)
            mn_store_wal_path(&copy, path, first), at = 4096 + 700;
        else if (what == 1)
            mn_store_column_path(&copy, path, segment, "embeddings");
        else
            mn_store_path(&copy, path, "wal/MARK"), at = 600;
        file_flip(path, at, 1);
        assert_int_equal(
            mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = f->copy, .dir = f->restored},
                                &result),
            MN_CORRUPT);
        assert_non_null(strstr(mn_error_text(), strrchr(path, '/') + 1));
        assert_false(file_exists(f->restored) || file_exists(half));
        file_flip(path, at, 1);
    }
    ok(mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = f->copy, .dir = f->restored}, &result));
}

/* Of what is kept twice one copy will do; the restored store has both. */
static void one_copy_of_the_small_files_is_enough(void **state)
{
    static const char *const names[][2] = {{"STORE", "STORE.copy"}, {"MANIFEST", "MANIFEST.copy"}};
    struct fixture *f = *state;
    struct live_store *s = f->live;
    struct mn_copy_result result;
    char path[160];
    fill(s);
    ok(mn_snapshot_make(&s->store, &s->instance, f->copy, NULL, NULL, &result));
    for (int kind = 0; kind < 2; kind++) {
        for (int c = 0; c < 2; c++) {
            snprintf(path, sizeof path, "%s/%s", f->copy, names[kind][c]);
            assert_int_equal(truncate(path, 30), 0);
            if (c == 1) /* the other one is gone already */
                break;
            ok(mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = f->copy, .dir = f->restored},
                                   &result));
            expect_store(f->restored, s->model, s->next_version);
        }
        assert_int_equal(
            mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = f->copy, .dir = f->restored},
                                &result),
            MN_CORRUPT);
        assert_non_null(strstr(mn_error_text(), names[kind][0]));
        ok(mn_io_remove_tree(&mn_io_posix, f->copy));
        ok(mn_snapshot_make(&s->store, &s->instance, f->copy, NULL, NULL, &result));
    }
}

/* What is damaged is not copied as if it were not; and what is whole is worth a copy. */
static void damaged_stores_have_damaged_snapshots(void **state)
{
    struct fixture *f = *state;
    struct live_store *s = f->live;
    struct mn_copy_result result;
    struct mn_manifest m;
    char path[MN_PATH_MAX];
    fill(s);
    ok(mn_manifest_read(&m, &s->store, NULL));
    mn_store_column_path(&s->store, path, m.segments[0].id, "embeddings");
    mn_manifest_free(&m);
    file_flip(path, 400, 1);
    ok(mn_snapshot_make(&s->store, &s->instance, f->copy, NULL, NULL, &result));
    assert_int_equal(result.damaged, 1);
    assert_non_null(strstr(result.damage, "embeddings.col"));
    assert_int_equal(
        mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = f->copy, .dir = f->restored}, &result),
        MN_CORRUPT);
    assert_false(file_exists(f->restored));
    ok(mn_snapshot_restore(
        &(struct mn_restore){.io = &mn_io_posix, .snapshot = f->copy, .dir = f->restored, .damaged_too = true},
        &result));
    assert_int_equal(result.damaged, 1);
    assert_true(file_exists(f->restored));
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_copy_is_a_store),
        test(a_store_without_columns),
        test(writes_go_on),
        test(paths_that_are_taken),
        test(restoring),
        test(damaged_snapshots_are_refused),
        test(one_copy_of_the_small_files_is_enough),
        test(damaged_stores_have_damaged_snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
