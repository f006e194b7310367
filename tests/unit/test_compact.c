/*
 * test_compact.c - compaction with a real writer: nothing is lost or changed by it, and what must go is gone.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/process.h"
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

static bool exists(const struct live_store *s, const char *name)
{
    char path[MN_PATH_MAX];
    return file_exists(mn_store_path(&s->store, path, name));
}

static void nothing_to_do(void **state)
{
    struct live_store *s = *state;
    assert_false(live_compact(s, false));
    assert_false(live_compact(s, true));
    live_remember(s, 0, 1, 5);
    assert_false(live_compact(s, true)); /* not sealed */
    live_seal(s);
    assert_false(live_compact(s, false)); /* too little */
    live_check(s);
}

static void log_becomes_columns(void **state)
{
    struct live_store *s = *state;
    live_remember(s, 0, 0, 300);
    live_remember(s, 1, 0, 100);
    live_remember(s, 2, 500, 40);
    live_seal(s);
    live_remember(s, 0, 400, 10);
    live_check(s);
    assert_true(live_compact(s, false));
    live_check(s);
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.segment_count, 1);
    assert_int_equal(m.segments[0].rows, 440);
    assert_true(m.segments[0].at_min <= m.segments[0].at_max);
    assert_true(m.log_seq >= 440);
    assert_int_equal(m.ledger_seq, m.log_seq);
    mn_manifest_free(&m);
    live_store_restart(s);
    live_check(s);
    live_seal(s);
    live_remember(s, 1, 0, 50); /* replaces rows that are in columns */
    live_check(s);
    live_store_restart(s);
    live_check(s);
}

/* Everything that can happen to a memory, before, during and after compactions, with restarts between. */
static void random_lives(void **state)
{
    struct live_store *s = *state;
    static const enum mn_forget_mode modes[] = {MN_FORGET_DELETE, MN_FORGET_SUPPRESS, MN_FORGET_RESTORE,
                                                MN_FORGET_PURGE};
    struct mn_compact_proposal proposal = {0};
    bool building = false;
    for (int step = 0; step < 2000; step++) {
        uint32_t space = live_random(s, LIVE_SPACES), id = live_random(s, 200), what = live_random(s, 1000);
        if (what < 600)
            live_remember(s, space, id, 1 + live_random(s, 3));
        else if (what < 960)
            live_forget(s, space, id, modes[live_random(s, MN_ARRAY_LEN(modes))]);
        else if (what < 970)
            live_remember_expired(s, space, id);
        else if (what < 980)
            live_tend(s);
        else if (what < 985 && !building)
            live_store_restart(s);
        else if (what < 992) {
            live_seal(s);
            live_compact(s, live_random(s, 2) == 0);
            if (building) /* it was made from an older manifest, unless nothing was worth while */
                mn_compact_proposal_free(&proposal);
            building = false;
        } else if (!building) {
            live_seal(s);
            live_build(s, true, &proposal);
            building = true;
        } else {
            live_commit(s, &proposal);
            mn_compact_proposal_free(&proposal);
            building = false;
        }
        if (step % 100 == 0)
            live_check(s);
    }
    if (building)
        mn_compact_proposal_free(&proposal);
    live_check(s);
    live_store_restart(s);
    live_check(s);
    live_seal(s);
    live_tend(s);
    live_compact(s, true);
    live_check(s);
    live_store_restart(s);
    live_check(s);
}

static void marks_during_a_build_are_kept(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_proposal proposal;
    live_remember(s, 0, 0, 500);
    live_seal(s);
    live_compact(s, true);
    live_remember(s, 0, 500, 500);
    live_seal(s);
    live_build(s, true, &proposal);
    for (uint32_t id = 0; id < 1000; id += 10) {
        live_forget(s, 0, id, MN_FORGET_DELETE);
        live_forget(s, 0, id + 1, MN_FORGET_SUPPRESS);
        live_remember(s, 0, id + 2, 1);
    }
    live_check(s);
    live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    live_check(s);
    live_store_restart(s);
    live_check(s);
    for (uint32_t id = 0; id < 1000; id += 20)
        live_forget(s, 0, id + 1, MN_FORGET_RESTORE);
    live_check(s);
}

/* Forgets whose log goes away, of rows in a segment that stays: they are in died.<seq>.col. */
static void liveness_of_what_stays(void **state)
{
    struct live_store *s = *state;
    live_remember(s, 0, 0, 1000);
    live_seal(s);
    live_compact(s, true);
    for (int round = 0; round < 3; round++) {
        for (uint32_t id = (uint32_t)round; id < 100; id += 7) {
            live_forget(s, 0, id, MN_FORGET_DELETE);
            live_forget(s, 0, id + 200, MN_FORGET_SUPPRESS);
        }
        live_remember(s, 1, (uint32_t)round * 200, 150);
        live_seal(s);
        s->policy.dead_percent = 100;
        s->policy.fanout = 64;
        assert_true(live_compact(s, false));
        struct mn_manifest m = live_manifest(s);
        assert_int_equal(m.segment_count, 2 + round);
        uint32_t with_died = 0;
        for (uint32_t i = 0; i < m.segment_count; i++)
            with_died += m.segments[i].rows == 1000 && m.segments[i].died_seq > 0;
        assert_int_equal(with_died, 1);
        mn_manifest_free(&m);
        live_check(s);
        live_store_restart(s);
        live_check(s);
    }
    struct mn_manifest m = live_manifest(s);
    for (uint32_t i = 0; i < m.segment_count; i++) {
        char dir[MN_PATH_MAX];
        mn_store_columns_dir(&s->store, dir, m.segments[i].id);
        assert_int_equal(live_entries(dir, "died."), m.segments[i].died_seq > 0 ? 2 : 1);
    }
    assert_int_equal(live_entries(s->dir, "ledger."), 1);
    mn_manifest_free(&m);
}

static void dead_rows_are_left_out(void **state)
{
    struct live_store *s = *state;
    live_remember(s, 0, 0, 1000);
    live_seal(s);
    live_compact(s, true);
    for (uint32_t id = 0; id < 300; id++)
        live_forget(s, 0, id, MN_FORGET_DELETE);
    for (uint32_t id = 300; id < 400; id++)
        live_forget(s, 0, id, MN_FORGET_SUPPRESS);
    live_seal(s);
    live_tend(s);
    assert_true(live_compact(s, true));
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.segment_count, 1);
    assert_int_equal(m.segments[0].rows, 700);
    assert_true(m.oldest_seq > 0);
    mn_manifest_free(&m);
    live_check(s);
    for (uint32_t id = 300; id < 400; id++)
        live_forget(s, 0, id, MN_FORGET_RESTORE);
    live_check(s);
    live_store_restart(s);
    live_check(s);
}

/* History keeps versions that died: reads as of an older seq still see them. */
static void history_is_kept(void **state)
{
    struct live_store *s = *state;
    s->settings.history_window = (uint64_t)3600 * 1000000000u;
    mn_writer_reload(s->writer, &s->settings);
    live_remember(s, 0, 0, 300);
    uint64_t before = atomic_load(&s->instance.control->visible_seq);
    for (uint32_t id = 0; id < 300; id++)
        live_forget(s, 0, id, MN_FORGET_DELETE);
    live_seal(s);
    live_tend(s);
    assert_true(live_compact(s, true));
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.segment_count, 1);
    assert_int_equal(m.segments[0].rows, 300);
    mn_manifest_free(&m);
    live_check(s);
    struct mn_snapshot snapshot;
    ok(mn_reader_pin(s->reader, before, &snapshot));
    uint32_t visible = 0;
    for (uint32_t p = 0; p < snapshot.part_count; p++)
        for (uint32_t row = 0; row < snapshot.parts[p].rows; row++)
            visible += mn_part_visible(&snapshot.parts[p], row, snapshot.seq, snapshot.now);
    assert_int_equal(visible, 300);
    mn_reader_unpin(s->reader);
}

static void expired_rows_are_left_out(void **state)
{
    struct live_store *s = *state;
    live_remember(s, 0, 0, 120);
    for (uint32_t id = 200; id < 250; id++)
        live_remember_expired(s, 0, id);
    live_seal(s);
    assert_true(live_compact(s, false));
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.segments[0].rows, 120);
    mn_manifest_free(&m);
    live_check(s);
}

/* Each build makes a segment of the smallest class; they merge by fanout, and few are left. */
static void merges_keep_segments_few(void **state)
{
    struct live_store *s = *state;
    uint32_t most = 0;
    s->policy.fanout = 3;
    for (uint32_t round = 0; round < 18; round++) {
        live_remember(s, round % LIVE_SPACES, round * 100, 100);
        live_seal(s);
        assert_true(live_compact(s, false));
        struct mn_manifest m = live_manifest(s);
        most = m.segment_count > most ? m.segment_count : most;
        mn_manifest_free(&m);
    }
    assert_true(most <= 5);
    live_check(s);
    live_tend(s);
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(live_folders(s), m.segment_count);
    mn_manifest_free(&m);
    live_store_restart(s);
    live_check(s);
}

static void large_outputs_are_cut(void **state)
{
    struct live_store *s = *state;
    s->policy.segment_rows_max = 128;
    live_remember(s, 0, 0, 1000);
    live_seal(s);
    assert_true(live_compact(s, true));
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.segment_count, 8);
    for (uint32_t i = 0; i < m.segment_count; i++) {
        assert_int_equal(m.segments[i].rows, 125);
        assert_true(i == 0 || m.segments[i - 1].at_max <= m.segments[i].at_min);
    }
    mn_manifest_free(&m);
    live_check(s);
    live_store_restart(s);
    live_check(s);
}

/* A purge takes every version out of every file, whatever the plan says. */
static void purged_bytes_are_gone(void **state)
{
    struct live_store *s = *state;
    char content[3][256];
    uint32_t length[3];
    live_remember(s, 1, 7, 1);
    length[0] = live_content(1, 7, s->model[1][7].version, content[0]);
    live_remember(s, 0, 0, 400);
    live_seal(s);
    live_compact(s, true); /* in columns */
    live_remember(s, 1, 7, 1);
    length[1] = live_content(1, 7, s->model[1][7].version, content[1]);
    live_seal(s);
    live_remember(s, 1, 7, 1);
    length[2] = live_content(1, 7, s->model[1][7].version, content[2]);
    for (int v = 0; v < 3; v++)
        assert_true(live_grep(s->dir, content[v], length[v]));
    live_forget(s, 1, 7, MN_FORGET_PURGE);
    live_seal(s);
    assert_true(live_compact(s, true));
    live_check(s);
    for (int v = 0; v < 3; v++)
        assert_false(live_grep(s->dir, content[v], length[v]));
    live_remember(s, 1, 7, 1); /* a new life */
    live_seal(s);
    live_compact(s, true);
    live_check(s);
    live_store_restart(s);
    live_check(s);
}

static void put_file(const struct live_store *s, const char *name, const char *text)
{
    char path[MN_PATH_MAX];
    FILE *file = fopen(mn_store_path(&s->store, path, name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void purges_reach_quarantine(void **state)
{
    struct live_store *s = *state;
    char note[256];
    live_remember(s, 1, 0, 20);
    snprintf(note, sizeof note, "{\"file\": \"a.bin\", \"first_seq\": 1, \"last_seq\": 2, \"ids\": [\"%016llx/3\"]}",
             (unsigned long long)mn_str_hash((struct mn_str){"notes", 5}));
    put_file(s, "quarantine/a.json", note);
    put_file(s, "quarantine/a.bin", "a");
    put_file(s, "quarantine/b.json", "{\"file\": \"b.bin\", \"first_seq\": 1, \"last_seq\": 0, \"ids\": []}");
    put_file(s, "quarantine/b.bin", "b");
    put_file(s, "quarantine/b.wal", "a log segment that could not be read");
    snprintf(note, sizeof note, "{\"file\": \"c.bin\", \"first_seq\": 1, \"last_seq\": 2, \"ids\": [\"%016llx/4\"]}",
             (unsigned long long)mn_str_hash((struct mn_str){"notes", 5}));
    put_file(s, "quarantine/c.json", note);
    put_file(s, "quarantine/c.bin", "c");
    put_file(s, "quarantine/d.json", "{\"file\": \"d.bin\", \"first_seq\": 999999, \"last_seq\": 0, \"ids\": []}");
    put_file(s, "quarantine/d.bin", "d");
    put_file(s, "quarantine/e.json", "{\"file\": \"columns/9\", \"reason\": \"\", \"ids\": []}");
    live_forget(s, 1, 3, MN_FORGET_PURGE);
    live_seal(s);
    assert_true(live_compact(s, true));
    assert_false(exists(s, "quarantine/a.json") || exists(s, "quarantine/a.bin"));
    assert_false(exists(s, "quarantine/b.json") || exists(s, "quarantine/b.bin") || exists(s, "quarantine/b.wal"));
    assert_true(exists(s, "quarantine/c.json") && exists(s, "quarantine/c.bin"));
    assert_true(exists(s, "quarantine/d.json") && exists(s, "quarantine/d.bin"));
    assert_true(exists(s, "quarantine/e.json"));
}

static void sweep_removes_what_is_left_over(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_proposal proposal;
    live_remember(s, 0, 0, 200);
    live_seal(s);
    live_compact(s, true);
    live_remember(s, 0, 300, 200);
    live_seal(s);
    live_build(s, true, &proposal); /* and never published */
    mn_compact_proposal_free(&proposal);
    char path[MN_PATH_MAX];
    assert_int_equal(mkdir(mn_store_path(&s->store, path, "columns/77.tmp"), 0700), 0);
    put_file(s, "columns/77.tmp/ids.col", "half");
    assert_int_equal(live_folders(s), 3);
    assert_int_equal(live_entries(s->instance.path, "live."), 2);
    ok(mn_compactor_sweep(s->compactor));
    assert_int_equal(live_folders(s), 1);
    assert_int_equal(live_entries(s->instance.path, "live."), 1);
    live_check(s);
    live_compact(s, true);
    live_check(s);
}

/* What a reader has pinned is not swept. */
static void sweep_spares_what_is_pinned(void **state)
{
    struct live_store *s = *state;
    struct mn_snapshot snapshot;
    live_remember(s, 0, 0, 200);
    live_seal(s);
    live_compact(s, true);
    ok(mn_reader_pin(s->reader, 0, &snapshot));
    live_forget(s, 0, 1, MN_FORGET_DELETE);
    live_tend(s);
    live_seal(s);
    live_compact(s, true);
    assert_int_equal(live_folders(s), 2);
    ok(mn_compactor_sweep(s->compactor));
    assert_int_equal(live_folders(s), 2);
    mn_reader_unpin(s->reader);
    live_tend(s);
    assert_int_equal(live_folders(s), 1);
    live_check(s);
}

static bool stop_at_once(void *context)
{
    (*(int *)context)++;
    return true;
}

static void a_build_can_be_stopped(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    int calls = 0;
    for (uint32_t round = 0; round < 4; round++)
        live_remember(s, 0, 0, 2000); /* a few thousand versions */
    live_seal(s);
    ok(mn_compact_plan_make(s->compactor, &s->policy, true, &plan));
    assert_int_equal(mn_compact_build(s->compactor, &plan, &s->policy, stop_at_once, &calls, &proposal), MN_DEADLINE);
    assert_int_equal(calls, 1);
    mn_compact_plan_free(&plan);
    assert_int_equal(live_folders(s), 0);
    assert_true(live_compact(s, true));
    live_check(s);
}

static void stale_plans_and_proposals(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal, late;
    live_remember(s, 0, 0, 200);
    live_seal(s);
    live_compact(s, true);
    live_remember(s, 0, 100, 200);
    live_forget(s, 0, 50, MN_FORGET_DELETE);
    live_tend(s);
    live_seal(s);
    ok(mn_compact_plan_make(s->compactor, &s->policy, true, &plan));
    ok(mn_compact_build(s->compactor, &plan, &s->policy, NULL, NULL, &late));
    live_build(s, true, &proposal);
    live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    assert_int_equal(mn_writer_commit_proposal(s->writer, &late), MN_VERSION_MISMATCH);
    mn_compact_proposal_free(&late);
    assert_int_equal(mn_compact_build(s->compactor, &plan, &s->policy, NULL, NULL, &proposal), MN_BUSY);
    mn_compact_plan_free(&plan);
    live_check(s);
}

/* idem keys and id counters live on when their log is gone. */
static void ledger_outlives_the_log(void **state)
{
    struct live_store *s = *state;
    float vector[LIVE_DIM] = {1};
    struct mn_memory memory = {.embedding = vector, .confidence = 1, .expires = MN_NEVER};
    struct mn_remember request = {
        .write = {.space = {"agents", 6}, .idem = {"key-1", 5}, .request_hash = 99, .now = mn_wall_ns()}, &memory, 1};
    struct mn_outcome first, again;
    ok(mn_writer_remember(s->writer, &request, &first));
    uint64_t id = first.ids[0].lo, seq = first.seq;
    ok(mn_writer_append(s->writer));
    ok(mn_writer_sync(s->writer));
    mn_writer_publish(s->writer);
    mn_writer_acked(s->writer);
    live_seal(s);
    assert_true(live_compact(s, true));
    live_store_restart(s);
    ok(mn_writer_remember(s->writer, &request, &again));
    assert_true(again.replayed);
    assert_int_equal(again.seq, seq);
    assert_int_equal(again.ids[0].lo, id);
    request.write.idem = (struct mn_str){NULL, 0};
    ok(mn_writer_remember(s->writer, &request, &again));
    assert_int_equal(again.ids[0].lo, id + 1);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(nothing_to_do),
        test(log_becomes_columns),
        test(random_lives),
        test(marks_during_a_build_are_kept),
        test(liveness_of_what_stays),
        test(dead_rows_are_left_out),
        test(history_is_kept),
        test(expired_rows_are_left_out),
        test(merges_keep_segments_few),
        test(large_outputs_are_cut),
        test(purged_bytes_are_gone),
        test(purges_reach_quarantine),
        test(sweep_removes_what_is_left_over),
        test(sweep_spares_what_is_pinned),
        test(a_build_can_be_stopped),
        test(stale_plans_and_proposals),
        test(ledger_outlives_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
