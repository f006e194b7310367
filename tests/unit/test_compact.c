/*
 * test_compact.c - compaction with a real writer: nothing is lost or changed by it, and what must go is gone.
 */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/columns.h"
#include "engine/snapshot.h"
#include "shm/process.h"
#include "tests/unit/fail_once.h"
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
    struct stat st;
    return stat(mn_store_path(&s->store, path, name), &st) == 0;
}

static uint32_t entries(const char *path, const char *prefix)
{
    uint32_t count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static uint32_t folders(const struct live_store *s)
{
    char path[MN_PATH_MAX];
    return entries(mn_store_path(&s->store, path, "columns"), "");
}

/* Retired files go through a thread that has other things to do as well. */
static void wait_for_folders(struct live_store *s, uint32_t count)
{
    for (int i = 0; i < 2000 && folders(s) != count; i++) {
        usleep(10000);
        live_tend(s);
    }
    assert_int_equal(folders(s), count);
}

static void await_gone(struct live_store *s, const char *bytes, uint32_t length)
{
    for (int i = 0; i < 6000 && live_grep(s->dir, bytes, length); i++) {
        usleep(10000);
        live_tend(s);
    }
    assert_false(live_grep(s->dir, bytes, length));
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
        assert_int_equal(entries(dir, "died."), m.segments[i].died_seq > 0 ? 2 : 1);
    }
    assert_int_equal(entries(s->dir, "ledger."), 1);
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
    live_ok(mn_reader_pin(s->reader, before, &snapshot));
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
    wait_for_folders(s, folders(s));
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
        await_gone(s, content[v], length[v]);
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
    assert_int_equal(folders(s), 3);
    assert_int_equal(entries(s->instance.path, "live."), 2);
    live_ok(mn_compactor_sweep(s->compactor));
    assert_int_equal(folders(s), 1);
    assert_int_equal(entries(s->instance.path, "live."), 1);
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
    live_ok(mn_reader_pin(s->reader, 0, &snapshot));
    live_forget(s, 0, 1, MN_FORGET_DELETE);
    live_tend(s);
    live_seal(s);
    live_compact(s, true);
    assert_int_equal(folders(s), 2);
    live_ok(mn_compactor_sweep(s->compactor));
    assert_int_equal(folders(s), 2);
    mn_reader_unpin(s->reader);
    live_tend(s);
    wait_for_folders(s, 1);
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
    live_ok(mn_compact_plan_make(s->compactor, &s->policy, true, &plan));
    assert_int_equal(mn_compact_build(s->compactor, &plan, &s->policy, stop_at_once, &calls, &proposal), MN_DEADLINE);
    assert_int_equal(calls, 1);
    mn_compact_plan_free(&plan);
    assert_int_equal(folders(s), 0);
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
    live_ok(mn_compact_plan_make(s->compactor, &s->policy, true, &plan));
    live_ok(mn_compact_build(s->compactor, &plan, &s->policy, NULL, NULL, &late));
    live_build(s, true, &proposal);
    live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    assert_int_equal(mn_writer_commit_proposal(s->writer, &late), MN_VERSION_MISMATCH);
    mn_compact_proposal_free(&late);
    assert_int_equal(mn_compact_build(s->compactor, &plan, &s->policy, NULL, NULL, &proposal), MN_BUSY);
    mn_compact_plan_free(&plan);
    live_check(s);
}

static void damage(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
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
    damage(mn_store_column_path(&s->store, path, m.segments[0].id, "content"), 300);
    uint64_t bad = m.segments[0].id;
    mn_manifest_free(&m);
    live_forget(s, 0, 1, MN_FORGET_DELETE);
    live_tend(s);
    live_remember(s, 1, 0, 200);
    live_seal(s);
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    live_ok(mn_compact_plan_make(s->compactor, &s->policy, true, &plan));
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
    damage(mn_store_column_path(&s->store, path, bad, "parity"), 300);
    damage(mn_store_column_path(&s->store, path, bad, "ids"), 300);
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
    damage(path, 300);
    memcpy(s->model[0], still, sizeof still);
    live_store_restart(s);
    live_check(s);
    live_store_restart(s);
    live_check(s);
    assert_int_equal(mn_writer_purge_unsearched(s->writer), 0);
    live_forget(s, 0, 2, MN_FORGET_RESTORE);
    fold(s, 300); /* carries the purge out, */
    await_gone(s, purged, length);
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
    damage(path, 300);
    live_store_restart(s);
    live_ok(mn_selection_start(s->writer, &scope, MN_FORGET_DELETE, &selection));
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
    damage(path, 20);
    damage(path, (off_t)s->settings.wal_segment_bytes - 4096 + 20);
    s->damaged = true;
    live_store_start(s);
    for (uint32_t id = 0; id < 200; id++)
        s->model[0][id].state = LIVE_NEVER;
    live_check(s);
    live_forget(s, 0, 4, MN_FORGET_PURGE);
    fold(s, 0);
    await_gone(s, purged, length);
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
    live_ok(mn_compactor_sweep(s->compactor));
    assert_int_equal(access(path, F_OK), 0);
    struct mn_copy_result result;
    snprintf(copy, sizeof copy, "%s-copy", s->dir);
    live_ok(mn_snapshot_make(&s->store, &s->instance, copy, NULL, NULL, &result));
    live_ok(mn_io_remove_tree(&mn_io_posix, copy));
    /* Mended, it is there again. */
    damage(path, 300);
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
    live_ok(mn_io_slurp(&mn_io_posix, mn_store_wal_path(&s->store, path, 1), 1u << 30, &log, &bytes));
    char *at = memmem(log, bytes, content, length);
    assert_non_null(at);
    off_t offset = at - (char *)log + 5;
    free(log);
    damage(path, offset);
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    live_ok(mn_compact_plan_make(s->compactor, &s->policy, true, &plan));
    assert_int_equal(mn_compact_build(s->compactor, &plan, &s->policy, NULL, NULL, &proposal), MN_CORRUPT);
    mn_compact_plan_free(&plan);
    assert_int_equal(folders(s), 0);
    damage(path, offset);
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
    live_ok(mn_compact_proposal_write(&proposal, &s->instance, "proposal"));
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/proposal", s->instance.path);
    assert_int_equal(stat(path, &st), 0);
    for (off_t at = 128; at < st.st_size; at += at % 5 + 1) {
        damage(path, at);
        assert_int_equal(mn_compact_proposal_read(&received, &s->instance, "proposal"), MN_CORRUPT);
        damage(path, at);
    }
    live_ok(mn_compact_proposal_read(&received, &s->instance, "proposal"));
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
    live_ok(mn_compactor_open(&compactor, &store, &s->instance));
    live_ok(mn_compact_plan_make(compactor, &s->policy, false, &plan));
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
            assert_int_equal(folders(s), 1);
            assert_int_equal(entries(s->instance.path, "live."), 1);
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
    live_ok(mn_compactor_open(&compactor, &store, &s->instance));
    live_ok(mn_compact_plan_make(compactor, &s->policy, true, &plan));
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
        live_ok(mn_compactor_sweep(compactor));
        assert_int_equal(folders(s), 0);
    }
    assert_true(refused > 50);
    mn_compact_plan_free(&plan);
    mn_compactor_close(compactor);
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
    live_ok(mn_writer_remember(s->writer, &request, &first));
    uint64_t id = first.ids[0].lo, seq = first.seq;
    live_ok(mn_writer_append(s->writer));
    live_ok(mn_writer_sync(s->writer));
    mn_writer_publish(s->writer);
    mn_writer_acked(s->writer);
    live_seal(s);
    assert_true(live_compact(s, true));
    live_store_restart(s);
    live_ok(mn_writer_remember(s->writer, &request, &again));
    assert_true(again.replayed);
    assert_int_equal(again.seq, seq);
    assert_int_equal(again.ids[0].lo, id);
    request.write.idem = (struct mn_str){NULL, 0};
    live_ok(mn_writer_remember(s->writer, &request, &again));
    assert_int_equal(again.ids[0].lo, id + 1);
}

/* ---- killed between any two steps ---- */

#ifdef MN_FAULTS
/* Another process compacts the store in `dir`, and is killed at `point` (its n-th pass, as "name:n"). */
static void compact_and_die(const char *program, const char *dir, const char *point)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv("MNEME_FAULT", point, 1);
        execl(program, program, "--compact", dir, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s: the process ended with status %x, and not by being killed there", point, (unsigned)status);
}

static void killed_at_any_step(void **state)
{
    static const char *const points[] = {"columns_written",     "columns_synced",         "columns_renamed",
                                         "columns_renamed:2",   "manifest_before_append", "manifest_after_append",
                                         "manifest_after_sync", "publish_before_view",    "publish_after_view",
                                         "limbo_before_unlink", "limbo_before_unlink:3"};
    struct live_store *s = *state;
    s->policy.segment_rows_max = 400; /* two outputs, now and then */
    live_remember(s, 0, 0, 600);
    live_seal(s);
    live_compact(s, true);
    for (uint32_t p = 0; p < MN_ARRAY_LEN(points); p++) {
        for (uint32_t id = p; id < 600; id += 17)
            live_forget(s, 0, id, id % 2 ? MN_FORGET_DELETE : MN_FORGET_SUPPRESS);
        live_remember(s, 1, p * 50, 300);
        live_remember(s, 0, p * 30, 40);
        live_store_stop(s);
        compact_and_die("/proc/self/exe", s->dir, points[p]);
        mn_instance_sweep(s->store.uuid);
        live_store_start(s);
        live_check(s);
        live_store_restart(s);
        live_check(s);
    }
    live_seal(s);
    live_tend(s);
    live_compact(s, true);
    live_check(s);
    struct mn_manifest m = live_manifest(s);
    live_ok(mn_compactor_sweep(s->compactor));
    wait_for_folders(s, m.segment_count);
    mn_manifest_free(&m);
}

/* The other process. */
static int compact_store(const char *dir)
{
    struct live_store *s = live_store_open(dir);
    s->policy.segment_rows_max = 400;
    live_seal(s);
    live_tend(s);
    live_compact(s, true);
    usleep(300000); /* the thread that unlinks */
    live_tend(s);
    return 0;
}
#endif

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
#ifdef MN_FAULTS
    if (argc == 3 && strcmp(argv[1], "--compact") == 0)
        return compact_store(argv[2]);
#endif
    (void)argc;
    (void)argv;
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
        test(damaged_segments_stay),
        test(lost_segments_hold_nothing_up),
        test(what_cannot_be_opened_is_marked),
        test(filters_see_no_lost_segment),
        test(a_lost_log_segment_goes_with_the_others),
        test(damaged_log_is_not_laundered),
        test(broken_proposals_are_refused),
        test(failing_disk),
        test(an_output_that_fails_its_check),
        test(ledger_outlives_the_log),
#ifdef MN_FAULTS
        test(killed_at_any_step),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
