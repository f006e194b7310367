/*
 * test_store.c - the data folder's identity, its lock, and what is refused.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void a_store_is_made_and_opened(void **state)
{
    static const enum mn_metric metrics[] = {MN_METRIC_COSINE, MN_METRIC_IP, MN_METRIC_L2};
    for (size_t i = 0; i < MN_ARRAY_LEN(metrics); i++) {
        struct mn_store made, seen;
        char dir[64] = "/tmp/mn-store-XXXXXX", path[MN_PATH_MAX];
        assert_non_null(mkdtemp(dir));
        fails(MN_NOT_FOUND, mn_store_open(&seen, &mn_io_posix, dir));
        ok(mn_store_create(&made, &mn_io_posix, dir, 1536, metrics[i]));
        ok(mn_store_open(&seen, &mn_io_posix, dir));
        assert_memory_equal(made.uuid, seen.uuid, 16);
        assert_int_equal(seen.dim, 1536);
        assert_int_equal(seen.metric, metrics[i]);
        assert_string_equal(seen.dir, dir);
        struct stat st;
        assert_int_equal(stat(mn_store_path(&seen, path, "wal"), &st), 0);
        assert_int_equal(st.st_mode & 07777, S_ISDIR(st.st_mode) ? 0700 : 0);
        fails(MN_EXISTS, mn_store_create(&made, &mn_io_posix, dir, 1536, metrics[i])); /* there is a STORE */
        ok(mn_io_remove_tree(&mn_io_posix, dir));
    }
}

static void what_cannot_be_a_store_is_refused(void **state)
{
    struct mn_store store;
    char dir[64] = "/tmp/mn-store-XXXXXX", path[MN_PATH_MAX], longest[3000];
    assert_non_null(mkdtemp(dir));
    fails(MN_USAGE, mn_store_create(&store, &mn_io_posix, dir, 0, MN_METRIC_IP));
    fails(MN_USAGE, mn_store_create(&store, &mn_io_posix, dir, MN_DIM_MAX + 1, MN_METRIC_IP));
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    fails(MN_USAGE, mn_store_create(&store, &mn_io_posix, longest, 8, MN_METRIC_IP));
    snprintf(path, sizeof path, "%s/somebody's.txt", dir);
    ok(mn_io_replace(&mn_io_posix, path, "x", 1));
    fails(MN_EXISTS, mn_store_create(&store, &mn_io_posix, dir, 8, MN_METRIC_IP));
    ok(mn_io_posix.unlink(path));
    snprintf(path, sizeof path, "%s/wal", dir);
    ok(mn_io_posix.mkdir(path)); /* of a try that died half-way */
    ok(mn_store_create(&store, &mn_io_posix, dir, 8, MN_METRIC_IP));
    ok(mn_io_remove_tree(&mn_io_posix, dir));
    assert_int_not_equal(mn_store_create(&store, &mn_io_posix, "/nowhere/at/all", 8, MN_METRIC_IP), MN_OK);
}

static void remove_copy(const struct fixture *f, const char *name)
{
    char path[MN_PATH_MAX];
    ok(mn_io_posix.unlink(mn_store_path(&f->store, path, name)));
}

static void every_flipped_bit_and_every_cut_is_refused(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_store store;
    char path[MN_PATH_MAX];
    size_t bytes;
    uint8_t *text = fixture_slurp(f, "STORE", &bytes);
    remove_copy(f, "STORE.copy");
    for (size_t bit = 0; bit < bytes * 8; bit++) {
        fixture_flip(f, "STORE", bit / 8, (uint8_t)(1 << bit % 8));
        fails(MN_CORRUPT, mn_store_open(&store, &mn_io_posix, f->dir));
        fixture_flip(f, "STORE", bit / 8, (uint8_t)(1 << bit % 8));
    }
    mn_store_path(&f->store, path, "STORE");
    for (size_t length = 0; length < bytes; length++) {
        ok(mn_io_replace(&mn_io_posix, path, text, length));
        fails(MN_CORRUPT, mn_store_open(&store, &mn_io_posix, f->dir));
    }
    uint8_t *longer = malloc(10000);
    memset(longer, '\n', 10000);
    memcpy(longer, text, bytes);
    ok(mn_io_replace(&mn_io_posix, path, longer, bytes + 1));
    fails(MN_CORRUPT, mn_store_open(&store, &mn_io_posix, f->dir));
    ok(mn_io_replace(&mn_io_posix, path, longer, 10000));
    fails(MN_CORRUPT, mn_store_open(&store, &mn_io_posix, f->dir));
    free(longer);
    free(text);
    fixture_free(f);
}

static void count_trouble(void *context, const char *path, const char *what)
{
    (void)path;
    (void)what;
    ++*(uint32_t *)context;
}

static uint32_t troubles(const struct mn_store *store)
{
    uint32_t count = 0;
    mn_store_check(store, count_trouble, &count);
    return count;
}

/* Whichever copy is damaged or gone, the other one tells, and it is made anew. */
static void one_copy_is_enough(void **state)
{
    static const char *const names[] = {"STORE", "STORE.copy"};
    struct fixture *f = fixture_new();
    struct mn_store store;
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    assert_int_equal(troubles(&f->store), 0);
    for (uint32_t harm = 0; harm < 4; harm++) {
        if (harm < 2)
            fixture_flip(f, names[harm], 30, 1);
        else
            remove_copy(f, names[harm - 2]);
        ok(mn_store_open(&store, &mn_io_posix, f->dir));
        assert_memory_equal(store.uuid, f->store.uuid, sizeof store.uuid);
        assert_int_equal(troubles(&store), 1);
        mn_store_mend(&store);
        assert_int_equal(troubles(&store), 0);
        assert_int_equal(fixture_files(f, "quarantine", ".json"), harm == 0 ? 1 : 2);
    }
    remove_copy(f, names[0]);
    remove_copy(f, names[1]);
    fails(MN_NOT_FOUND, mn_store_open(&store, &mn_io_posix, f->dir));
    fixture_free(f);
}

/* A new store whose making was cut short between the two. */
static void a_new_store_may_lack_its_copy(void **state)
{
    struct fixture *f = fixture_prepare();
    remove_copy(f, "STORE.copy");
    ok(mn_store_open(&f->store, &mn_io_posix, f->dir));
    mn_store_mend(&f->store);
    assert_int_equal(troubles(&f->store), 0);
    assert_int_equal(fixture_files(f, "quarantine", ""), 0);
    fixture_free(f);
}

/* Another store's file in place of a copy: the log says which of the two is right. */
static void a_copy_of_another_store(void **state)
{
    static const char *const names[] = {"STORE", "STORE.copy"};
    struct fixture *f = fixture_new(), *other = fixture_prepare();
    struct mn_store store;
    char path[MN_PATH_MAX];
    size_t bytes;
    uint8_t *text = fixture_slurp(other, "STORE", &bytes);
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    for (uint32_t copy = 0; copy < 2; copy++) {
        ok(mn_io_replace(&mn_io_posix, mn_store_path(&f->store, path, names[copy]), text, bytes));
        ok(mn_store_open(&store, &mn_io_posix, f->dir));
        assert_memory_equal(store.uuid, f->store.uuid, sizeof store.uuid);
        assert_int_equal(troubles(&store), 1);
        mn_store_mend(&store);
        assert_int_equal(troubles(&store), 0);
    }
    free(text);
    uint8_t *mine = fixture_slurp(f, "STORE", &bytes); /* and where nothing tells them apart */
    ok(mn_io_replace(&mn_io_posix, mn_store_path(&other->store, path, names[1]), mine, bytes));
    fails(MN_CORRUPT, mn_store_open(&store, &mn_io_posix, other->dir));
    free(mine);
    fixture_free(other);
    fixture_free(f);
}

static void a_lock_has_one_holder(void **state)
{
    struct fixture *f = fixture_prepare();
    char path[MN_PATH_MAX];
    int first, second, status;
    mn_store_path(&f->store, path, "LOCK");
    ok(mn_store_lock(path, &first));
    fails(MN_BUSY, mn_store_lock(path, &second));
    assert_int_equal(second, -1);
    int other = open(path, O_RDONLY); /* closing another descriptor of the file lets nothing go */
    close(other);
    fails(MN_BUSY, mn_store_lock(path, &second));
    close(first);
    ok(mn_store_lock(path, &first));
    close(first);
    pid_t pid = fork(); /* and the end of a process lets go */
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(mn_store_lock(path, &first) == MN_OK ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    ok(mn_store_lock(path, &first));
    close(first);
    assert_int_not_equal(mn_store_lock("/nowhere/at/all", &first), MN_OK);
    fixture_free(f);
}

static void paths(void **state)
{
    struct mn_store store = {.dir = "/data"};
    char path[MN_PATH_MAX];
    assert_string_equal(mn_store_path(&store, path, "MANIFEST"), "/data/MANIFEST");
    assert_string_equal(mn_store_wal_path(&store, path, 7), "/data/wal/00000007.wal");
    assert_string_equal(mn_store_wal_path(&store, path, UINT64_C(12345678901)), "/data/wal/12345678901.wal");
    assert_string_equal(mn_store_columns_dir(&store, path, 3), "/data/columns/3");
    assert_string_equal(mn_store_column_path(&store, path, 3, "died.9"), "/data/columns/3/died.9.col");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_store_is_made_and_opened),
        cmocka_unit_test(what_cannot_be_a_store_is_refused),
        cmocka_unit_test(every_flipped_bit_and_every_cut_is_refused),
        cmocka_unit_test(one_copy_is_enough),
        cmocka_unit_test(a_new_store_may_lack_its_copy),
        cmocka_unit_test(a_copy_of_another_store),
        cmocka_unit_test(a_lock_has_one_holder),
        cmocka_unit_test(paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
