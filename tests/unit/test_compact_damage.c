/*
 * test_compact_damage.c - compaction over what is damaged, cannot be opened, or cannot be written: nothing goes with it
 * that was whole, nothing rises, and nothing wrong gets a fresh checksum.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/columns.h"
#include "engine/snapshot.h"
#include "tests/unit/fail_once.h"
#include "tests/unit/live_files.h"
#include "tests/unit/live_store.h"

static int setup(void **state)
{
    *state = live_store_new();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    live_store_free(*state);
    return 0;
}

/* A segment that cannot be read fails one build and is then left where it is; the others go on. */
static void damaged_segments_stay(void **state)
{
    struct live_store *s = *state;
    live_remember(s, 0, 0, 200);
    live_seal(s);
    live_compact(s, true);
    struct mn_manifest m = live_manifest(s);
    char path[MN_PATH_MAX];
    file_flip(mn_store_column_path(&s->store, path, m.segments[0].id, "content"), 300, 1);
    uint64_t bad = m.segments[0].id;
    mn_manifest_free(&m);
    live_forget(s, 0, 1, MN_FORGET_DELETE);
    live_tend(s);
    live_remember(s, 1, 0, 200);
    live_seal(s);
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    ok(mn_compact_plan_make(s->compactor, &s->policy, true, &plan));
    assert_int_equal(plan.segment_count, 1);
    assert_int_equal(mn_compact_build(s->compactor, &plan, &s->policy, NULL, NULL, &proposal), MN_CORRUPT);
    assert_non_null(strstr(mn_error_text(), "content.col"));
    mn_compact_plan_free(&plan);
    assert_true(live_compact(s, true));
    m = live_manifest(s);
    assert_int_equal(m.segment_count, 2);
    assert_true(m.segments[0].id == bad || m.segments[1].id == bad);
    mn_manifest_free(&m);
    /* A purge of something in it forces it out all the same: what cannot be read is given up and told. */
    live_forget(s, 0, 2, MN_FORGET_PURGE);
    live_seal(s);
    live_build(s, true, &proposal);
    assert_int_equal(proposal.rows_lost > 0, 1);
    live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    m = live_manifest(s);
    for (uint32_t i = 0; i < m.segment_count; i++)
        assert_int_not_equal(m.segments[i].id, bad);
    mn_manifest_free(&m);
}

/* A column segment, the first of two, that nothing can open until its ids.col is flipped back (path). */
static uint64_t lose_a_segment(struct live_store *s, char path[MN_PATH_MAX])
{
    live_remember(s, 0, 0, 200);
    live_seal(s);
    live_compact(s, true);
    live_remember(s, 1, 0, 200);
    live_seal(s);
    s->policy.fanout = 64;
    live_compact(s, true);
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.segment_count, 2);
    uint64_t bad = m.segments[0].id < m.segments[1].id ? m.segments[0].id : m.segments[1].id;
    mn_manifest_free(&m);
    file_flip(mn_store_column_path(&s->store, path, bad, "parity"), 300, 1);
    file_flip(mn_store_column_path(&s->store, path, bad, "ids"), 300, 1);
    s->damaged = true;
    live_store_restart(s);
    return bad;
}

/* The log up to now goes into columns, and a hundred new memories with it. */
static void fold(struct live_store *s, uint32_t id)
{
    live_remember(s, 2, id, 100);
    live_seal(s);
    assert_true(live_compact(s, true));
}

/* What is forgotten, suppressed, replaced and purged while its segment cannot be opened stays so when it can. */
static void what_cannot_be_opened_is_marked(void **state)
{
    struct live_store *s = *state;
    char path[MN_PATH_MAX], purged[256];
    lose_a_segment(s, path);
    uint32_t length = live_content(0, 4, s->model[0][4].version, purged);
    live_forget(s, 0, 1, MN_FORGET_DELETE);
    live_forget(s, 0, 2, MN_FORGET_SUPPRESS);
    live_remember(s, 0, 3, 1);
    live_forget(s, 0, 4, MN_FORGET_PURGE);
    live_forget(s, 0, 6, MN_FORGET_SUPPRESS);
    live_remember(s, 0, 7, 1);
    fold(s, 0);
    live_forget(s, 0, 6, MN_FORGET_DELETE);
    live_forget(s, 0, 7, MN_FORGET_DELETE);
    struct live_memory still[200];
    memcpy(still, s->model[0], sizeof still);
    for (uint32_t id = 0; id < 200; id++)
        if (id != 3)
            s->model[0][id].state = LIVE_NEVER; /* not to be had */
    fold(s, 100);
    live_check(s);
    live_store_restart(s);
    live_check(s);
    assert_int_not_equal(mn_writer_purge_unsearched(s->writer), 0);
    fold(s, 200);
    assert_true(live_grep(s->dir, purged, length)); /* it cannot be got at */
    file_flip(path, 300, 1);
    memcpy(s->model[0], still, sizeof still);
    live_store_restart(s);
    live_check(s);
    live_store_restart(s);
    live_check(s);
    assert_int_equal(mn_writer_purge_unsearched(s->writer), 0);
    live_forget(s, 0, 2, MN_FORGET_RESTORE);
    fold(s, 300); /* carries the purge out, */
    assert_false(live_grep(s->dir, purged, length));
    assert_true(mn_writer_pending(s->writer)); /* which the writer has said again, not knowing that */
    live_check(s);
    fold(s, 400);
    live_store_restart(s);
    live_check(s);
    live_tend(s);
    assert_false(mn_writer_pending(s->writer)); /* once */
}

/* A forget by filter cannot say that it has found everything. */
static void filters_see_no_lost_segment(void **state)
{
    struct live_store *s = *state;
    char path[MN_PATH_MAX];
    struct mn_selection *selection;
    struct mn_str space = {"notes", 5};
    struct mn_scope scope = {.spaces = &space, .space_count = 1, .after = INT64_MIN};
    lose_a_segment(s, path);
    assert_int_equal(mn_selection_start(s->writer, &scope, MN_FORGET_DELETE, &selection), MN_CORRUPT);
    file_flip(path, 300, 1);
    live_store_restart(s);
    ok(mn_selection_start(s->writer, &scope, MN_FORGET_DELETE, &selection));
    mn_selection_free(selection);
}

/* A purge is not done while a log segment lies there that nobody can read any more. */
static void a_lost_log_segment_goes_with_the_others(void **state)
{
    struct live_store *s = *state;
    char path[MN_PATH_MAX], purged[256];
    live_remember(s, 0, 0, 100);
    uint32_t length = live_content(0, 4, s->model[0][4].version, purged);
    live_seal(s);
    live_remember(s, 1, 0, 100);
    live_store_stop(s);
    mn_store_wal_path(&s->store, path, 1);
    file_flip(path, 20, 1);
    file_flip(path, (off_t)s->settings.wal_segment_bytes - 4096 + 20, 1);
    s->damaged = true;
    live_store_start(s);
    for (uint32_t id = 0; id < 200; id++)
        s->model[0][id].state = LIVE_NEVER;
    live_check(s);
    live_forget(s, 0, 4, MN_FORGET_PURGE);
    fold(s, 0);
    assert_false(live_grep(s->dir, purged, length));
}

/* A segment that cannot even be opened is left alone, and everything else goes on: writes, compactions, snapshots. */
static void lost_segments_hold_nothing_up(void **state)
{
    struct live_store *s = *state;
    char path[MN_PATH_MAX], copy[128];
    uint64_t bad = lose_a_segment(s, path);
    for (uint32_t id = 0; id < 200; id++)
        s->model[0][id].state = LIVE_NEVER; /* not to be had */
    live_check(s);
    live_forget(s, 1, 5, MN_FORGET_PURGE);
    live_remember(s, 2, 0, 200);
    live_seal(s);
    struct mn_compact_proposal proposal;
    live_build(s, true, &proposal);
    assert_int_equal(proposal.unsearched, bad);
    live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    live_check(s);
    struct mn_manifest m = live_manifest(s);
    bool named = false;
    for (uint32_t i = 0; i < m.segment_count; i++)
        named |= m.segments[i].id == bad;
    assert_true(named);
    mn_manifest_free(&m);
    ok(mn_compactor_sweep(s->compactor));
    assert_int_equal(access(path, F_OK), 0);
    struct mn_copy_result result;
    snprintf(copy, sizeof copy, "%s-copy", s->dir);
    ok(mn_snapshot_make(&s->store, &s->instance, copy, NULL, NULL, &result));
    ok(mn_io_remove_tree(&mn_io_posix, copy));
    /* Mended, it is there again. */
    file_flip(path, 300, 1);
    live_store_restart(s);
    for (uint32_t id = 0; id < 200; id++)
        s->model[0][id].state = LIVE_VISIBLE;
    live_check(s);
}

/* Rot in the log between recovery and compaction is not copied under a fresh checksum. */
static void damaged_log_is_not_laundered(void **state)
{
    struct live_store *s = *state;
    char content[256], path[MN_PATH_MAX];
    live_remember(s, 0, 0, 200);
    live_seal(s);
    uint32_t length = live_content(0, 77, s->model[0][77].version, content);
    void *log;
    size_t bytes;
    ok(mn_io_slurp(&mn_io_posix, mn_store_wal_path(&s->store, path, 1), 1u << 30, &log, &bytes));
    char *at = memmem(log, bytes, content, length);
    assert_non_null(at);
    off_t offset = at - (char *)log + 5;
    free(log);
    file_flip(path, offset, 1);
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    ok(mn_compact_plan_make(s->compactor, &s->policy, true, &plan));
    assert_int_equal(mn_compact_build(s->compactor, &plan, &s->policy, NULL, NULL, &proposal), MN_CORRUPT);
    mn_compact_plan_free(&plan);
    assert_int_equal(live_folders(s), 0);
    file_flip(path, offset, 1);
    assert_true(live_compact(s, true));
    live_check(s);
}

static void broken_proposals_are_refused(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_proposal proposal, received;
    live_remember(s, 0, 0, 60);
    live_seal(s);
    live_build(s, true, &proposal);
    ok(mn_compact_proposal_write(&proposal, &s->instance, "proposal"));
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/proposal", s->instance.path);
    assert_int_equal(stat(path, &st), 0);
    for (off_t at = 128; at < st.st_size; at += at % 5 + 1) {
        file_flip(path, at, 1);
        assert_int_equal(mn_compact_proposal_read(&received, &s->instance, "proposal"), MN_CORRUPT);
        file_flip(path, at, 1);
    }
    ok(mn_compact_proposal_read(&received, &s->instance, "proposal"));
    assert_int_equal(received.map_count, proposal.map_count);
    assert_memory_equal(received.maps[0].to, proposal.maps[0].to, proposal.maps[0].rows * sizeof(uint64_t));
    mn_compact_proposal_free(&received);
    assert_int_equal(truncate(path, st.st_size - 8), 0);
    assert_int_equal(mn_compact_proposal_read(&received, &s->instance, "proposal"), MN_CORRUPT);
    unlink(path);
    assert_int_equal(mn_compact_proposal_read(&received, &s->instance, "proposal"), MN_NOT_FOUND);
    live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    live_check(s);
}

/* ---- a disk that fails once, at its n-th change ---- */

/* Whatever fails, the build says so, leaves nothing behind, and the next one succeeds. */
static void failing_disk(void **state)
{
    struct live_store *s = *state;
    struct mn_io io = fail_once_io();
    struct mn_store store = s->store;
    struct mn_compactor *compactor;
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    store.io = &io;
    live_remember(s, 0, 0, 300);
    live_seal(s);
    live_compact(s, true);
    live_forget(s, 0, 1, MN_FORGET_DELETE);
    live_remember(s, 1, 0, 300);
    live_seal(s);
    s->policy.dead_percent = 100;
    ok(mn_compactor_open(&compactor, &store, &s->instance));
    ok(mn_compact_plan_make(compactor, &s->policy, false, &plan));
    enum mn_status status = MN_SYSTEM;
    for (uint32_t n = 1; status != MN_OK; n += 1 + n / 8) {
        fail_once.calls = 0;
        fail_once.fail_at = n;
        fail_once.status = n % 2 ? MN_SYSTEM : MN_READ_ONLY;
        status = mn_compact_build(compactor, &plan, &s->policy, NULL, NULL, &proposal);
        assert_true(status == MN_OK || status == fail_once.status);
        if (status != MN_OK) {
            assert_non_null(strstr(mn_error_text(), "told to fail"));
            assert_int_equal(proposal.output_count, 0);
            assert_int_equal(live_folders(s), 1);
            assert_int_equal(live_entries(s->instance.path, "live."), 1);
        }
    }
    assert_true(fail_once.fail_at > 50);
    live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    mn_compact_plan_free(&plan);
    mn_compactor_close(compactor);
    live_check(s);
    live_store_restart(s);
    live_check(s);
}

/* What is made of the rest: it is found damaged and made again. */
static bool is_derived(const char *path)
{
    return strstr(path, "/codebooks/") || strstr(path, "/ivf.") || strstr(path, "/parity.col");
}

static enum mn_status no_sync(int fd)
{
    return MN_OK;
}

static enum mn_status no_folder_sync(const char *path)
{
    return MN_OK;
}

/* A write that lands otherwise than it was asked for, anywhere in what a compaction makes: nothing of it is proposed.
 */
static void an_output_that_fails_its_check(void **state)
{
    struct live_store *s = *state;
    struct mn_io io = fail_once_io();
    struct mn_store store = s->store;
    struct mn_compactor *compactor;
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    uint32_t refused = 0;
    io.datasync = no_sync; /* only writes count here, and hundreds of syncs would take their time */
    io.sync_dir = no_folder_sync;
    store.io = &io;
    live_remember(s, 0, 0, 300);
    live_seal(s);
    ok(mn_compactor_open(&compactor, &store, &s->instance));
    ok(mn_compact_plan_make(compactor, &s->policy, true, &plan));
    fail_once = (struct fail_once){.calls = UINT32_MAX, .status = MN_OK};
    while (fail_once.calls >= fail_once.fail_at) {
        fail_once.fail_at++;
        fail_once.calls = 0;
        fail_once.bent[0] = 0;
        enum mn_status status = mn_compact_build(compactor, &plan, &s->policy, NULL, NULL, &proposal);
        bool bent = fail_once.bent[0] && !is_derived(fail_once.bent);
        assert_true(status == MN_CORRUPT || (status == MN_OK && !bent));
        refused += bent;
        mn_compact_proposal_free(&proposal);
        ok(mn_compactor_sweep(compactor));
        assert_int_equal(live_folders(s), 0);
    }
    assert_true(refused > 50);
    mn_compact_plan_free(&plan);
    mn_compactor_close(compactor);
    live_check(s);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(damaged_segments_stay),          test(what_cannot_be_opened_is_marked),
        test(filters_see_no_lost_segment),    test(a_lost_log_segment_goes_with_the_others),
        test(lost_segments_hold_nothing_up),  test(damaged_log_is_not_laundered),
        test(broken_proposals_are_refused),   test(failing_disk),
        test(an_output_that_fails_its_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
