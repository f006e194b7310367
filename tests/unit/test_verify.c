/*
 * test_verify.c - verify finds every damage, and calls nothing damaged that is whole.
 */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/verify.h"
#include "engine/wal.h"
#include "tests/unit/live_store.h"

struct found {
    uint32_t count;
    char path[MN_PATH_MAX], what[512];
    uint64_t done, total;
};

static void note(void *context, const char *path, const char *what)
{
    struct found *found = context;
    if (found->count++ == 0) {
        snprintf(found->path, sizeof found->path, "%s", path);
        snprintf(found->what, sizeof found->what, "%s", what);
    }
}

static void watch(void *context, uint64_t done, uint64_t total)
{
    struct found *found = context;
    assert_true(done >= found->done && done <= total);
    found->done = done;
    found->total = total;
}

static struct found verify(struct live_store *s, uint64_t durable_seq)
{
    struct found found = {0};
    struct mn_verify_result result;
    ok(mn_verify(&s->store, durable_seq, note, watch, &found, &result));
    assert_int_equal(result.damaged, found.count);
    assert_int_equal(found.done, found.total);
    return found;
}

static uint64_t durable(const struct live_store *s)
{
    return atomic_load(&s->instance.control->durable_seq);
}

static int setup(void **state)
{
    struct live_store *s = live_store_new();
    live_remember(s, 0, 0, 200);
    live_remember(s, 1, 0, 50);
    live_seal(s);
    live_compact(s, true);
    for (uint32_t id = 0; id < 20; id++)
        live_forget(s, 0, id, MN_FORGET_SUPPRESS);
    live_remember(s, 2, 0, 150);
    live_seal(s);
    s->policy.dead_percent = 100;
    live_compact(s, false);
    live_remember(s, 0, 300, 40);
    live_forget(s, 0, 301, MN_FORGET_DELETE);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    live_store_free(*state);
    return 0;
}

static void a_whole_store(void **state)
{
    struct live_store *s = *state;
    struct mn_verify_result result;
    struct found found = verify(s, durable(s));
    if (found.count > 0)
        fail_msg("%s: %s", found.path, found.what);
    live_store_restart(s);
    found = verify(s, UINT64_MAX);
    if (found.count > 0)
        fail_msg("%s: %s", found.path, found.what);
    ok(mn_verify(&s->store, UINT64_MAX, note, NULL, &found, &result));
    assert_true(result.files > 30);
    assert_true(result.bytes > 1u << 20);
}

/* Flips a bit at up to `most` places of a file; each must be found. */
static void flip_file(struct live_store *s, const char *path, uint32_t most)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    uint32_t places = st.st_size <= (off_t)most ? (uint32_t)st.st_size : most;
    for (uint32_t place = 0; place < places; place++) {
        off_t at = (off_t)place;
        if (st.st_size > (off_t)most)
            at = place < most / 2 ? (off_t)live_random(s, (uint32_t)st.st_size) : st.st_size * place / most;
        uint8_t mask = (uint8_t)(1u << live_random(s, 8));
        file_flip(path, at, mask);
        struct found found = verify(s, UINT64_MAX);
        file_flip(path, at, mask);
        if (found.count == 0)
            fail_msg("bit %02x of byte %ld of %s is flipped and not found", mask, (long)at, path);
    }
}

static void flip_folder(struct live_store *s, const char *dir, uint32_t most)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        char path[MN_PATH_MAX];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "LOCK") == 0 || lstat(path, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode))
            flip_folder(s, path, most);
        else if (S_ISREG(st.st_mode) && st.st_size > 0)
            flip_file(s, path, most);
    }
    closedir(d);
}

/* Until the log segments that nothing needs any more are gone. */
static void await_retired(struct live_store *s)
{
    struct mn_manifest m = live_manifest(s);
    uint64_t *numbers = NULL, oldest = 0;
    uint32_t count;
    for (int i = 0; i < 5000 && oldest < m.wal_first; i++) {
        live_tend(s);
        free(numbers);
        ok(mn_wal_list(&s->store, &numbers, &count));
        oldest = count ? numbers[0] : UINT64_MAX;
        usleep(1000);
    }
    assert_true(oldest >= m.wal_first);
    free(numbers);
    mn_manifest_free(&m);
}

/* In every kind of file of the store: STORE, MANIFEST, ledger, log, mark, columns. Nobody runs: a log keeper would
 * write its mark over a flip, and make a prepared segment anew. */
static void every_flip_is_found(void **state)
{
    struct live_store *s = *state;
    live_store_restart(s);
    await_retired(s);
    live_store_stop(s);
    flip_folder(s, s->dir, 24);
    live_store_start(s);
}

static void gone_and_cut_files(void **state)
{
    struct live_store *s = *state;
    struct mn_manifest m = live_manifest(s);
    char path[MN_PATH_MAX], aside[MN_PATH_MAX + 8], ledger[64], died[64];
    snprintf(ledger, sizeof ledger, "ledger.%llu", (unsigned long long)m.ledger_seq);
    const struct mn_manifest_segment *first = NULL;
    for (uint32_t i = 0; i < m.segment_count; i++)
        first = m.segments[i].died_seq > 0 ? &m.segments[i] : first;
    assert_non_null(first);
    snprintf(died, sizeof died, "died.%llu", (unsigned long long)first->died_seq);
    for (int what = 0; what < 5; what++) {
        struct stat st;
        if (what == 0)
            mn_store_path(&s->store, path, ledger);
        else if (what == 1)
            mn_store_column_path(&s->store, path, first->id, died);
        else if (what == 2)
            mn_store_column_path(&s->store, path, first->id, "tags");
        else if (what == 3)
            mn_store_path(&s->store, path, "STORE");
        else
            mn_store_columns_dir(&s->store, path, first->id);
        snprintf(aside, sizeof aside, "%s.aside", path);
        assert_int_equal(rename(path, aside), 0);
        struct found found = verify(s, durable(s));
        assert_int_equal(rename(aside, path), 0);
        assert_true(found.count > 0);
        assert_int_equal(stat(path, &st), 0);
        if (!S_ISREG(st.st_mode))
            continue;
        int fd = open(path, O_RDWR);
        char last;
        assert_int_equal(pread(fd, &last, 1, st.st_size - 1), 1);
        assert_int_equal(ftruncate(fd, st.st_size - 1), 0);
        found = verify(s, durable(s));
        assert_true(found.count > 0);
        assert_int_equal(pwrite(fd, &last, 1, st.st_size - 1), 1);
        close(fd);
    }
    mn_manifest_free(&m);
    assert_int_equal(verify(s, durable(s)).count, 0);
}

/* A log segment that a later one names. */
static void a_missing_log_segment(void **state)
{
    struct live_store *s = *state;
    live_seal(s);
    live_remember(s, 0, 400, 10);
    live_seal(s);
    live_remember(s, 0, 500, 10);
    struct mn_manifest m = live_manifest(s);
    char path[MN_PATH_MAX], aside[MN_PATH_MAX + 8];
    for (uint64_t number = m.wal_first; number < m.wal_first + 2; number++) {
        mn_store_wal_path(&s->store, path, number);
        snprintf(aside, sizeof aside, "%s.aside", path);
        assert_int_equal(rename(path, aside), 0);
        struct found found = verify(s, durable(s));
        assert_int_equal(found.count, 1);
        assert_string_equal(found.path, path);
        assert_int_equal(rename(aside, path), 0);
    }
    mn_manifest_free(&m);
    assert_int_equal(verify(s, durable(s)).count, 0);
}

/* Nothing is left of the last batch of a log segment: the next one tells that there was one. Found by
 * tests/faults/corruption. */
static void a_lost_end_of_a_sealed_log_segment(void **state)
{
    struct live_store *s = *state;
    char path[MN_PATH_MAX];
    struct stat st;
    static const uint8_t zeros[MN_WAL_BLOCK];
    uint8_t block[MN_WAL_BLOCK];
    live_seal(s);
    live_remember(s, 0, 400, 10);
    live_remember(s, 0, 500, 1);
    struct mn_manifest m = live_manifest(s);
    mn_store_wal_path(&s->store, path, m.wal_first + 1);
    mn_manifest_free(&m);
    live_seal(s);
    live_remember(s, 0, 410, 10);
    assert_int_equal(verify(s, durable(s)).count, 0);
    int fd = open(path, O_RDWR);
    assert_int_equal(fstat(fd, &st), 0);
    off_t at = st.st_size - MN_WAL_BLOCK; /* the header's second copy */
    do
        assert_int_equal(pread(fd, block, sizeof block, at -= MN_WAL_BLOCK), sizeof block);
    while (mn_wal_zero(block, sizeof block));
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, at), sizeof zeros);
    struct found found = verify(s, durable(s));
    assert_int_equal(found.count, 1);
    assert_string_equal(found.path, path);
    assert_int_equal(pwrite(fd, block, sizeof block, at), sizeof block);
    assert_int_equal(verify(s, durable(s)).count, 0);
    close(fd);
}

/* What is not the store any more is nobody's damage. */
static void retired_files_are_passed_over(void **state)
{
    struct live_store *s = *state;
    struct mn_snapshot snapshot;
    ok(mn_reader_pin(s->reader, 0, &snapshot)); /* keeps the old files there */
    struct mn_manifest before = live_manifest(s);
    live_seal(s);
    s->policy.fanout = 2;
    live_compact(s, true);
    struct mn_manifest now = live_manifest(s);
    uint32_t damaged = 0;
    for (uint32_t i = 0; i < before.segment_count; i++) {
        bool named = false;
        for (uint32_t j = 0; j < now.segment_count; j++)
            named |= now.segments[j].id == before.segments[i].id;
        char path[MN_PATH_MAX];
        if (!named) {
            file_flip(mn_store_column_path(&s->store, path, before.segments[i].id, "ids"), 300, 1);
            damaged++;
        }
    }
    assert_true(damaged > 0);
    assert_int_equal(verify(s, durable(s)).count, 0);
    mn_reader_unpin(s->reader);
    mn_manifest_free(&before);
    mn_manifest_free(&now);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_whole_store),
        test(every_flip_is_found),
        test(gone_and_cut_files),
        test(a_missing_log_segment),
        test(a_lost_end_of_a_sealed_log_segment),
        test(retired_files_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
