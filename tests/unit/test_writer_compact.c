/*
 * test_writer_compact.c - the writer's side of a compaction: what it commits, what it refuses, what a failing manifest
 * leaves, and purges to their end.
 */
#include "tests/unit/store_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/process.h"

static const struct mn_compact_policy policy = {
    .min_rows = 1, .min_log_segments = 1, .fanout = 8, .dead_percent = 25, .segment_rows_max = 100000};

struct work {
    struct fixture *f;
    struct mn_compactor *compactor;
};

static struct work begin(struct fixture *f)
{
    struct work w = {.f = f};
    ok(mn_compactor_open(&w.compactor, &f->store, &f->instance));
    return w;
}

static void end(struct work *w)
{
    mn_compactor_close(w->compactor);
    fixture_free(w->f);
}

static void build(struct work *w, struct mn_compact_proposal *proposal)
{
    struct mn_compact_plan plan;
    uint64_t sealed;
    ok(mn_writer_seal(w->f->writer, &sealed));
    atomic_store(&w->f->instance.control->history_seq, sealed);
    ok(mn_compact_plan_make(w->compactor, &policy, true, &plan));
    assert_true(plan.worth);
    ok(mn_compact_build(w->compactor, &plan, &policy, NULL, NULL, proposal));
    mn_compact_plan_free(&plan);
}

static void compact(struct work *w)
{
    struct mn_compact_proposal proposal;
    build(w, &proposal);
    ok(mn_writer_commit_proposal(w->f->writer, &proposal));
    mn_compact_proposal_free(&proposal);
}

static void tend_for(struct fixture *f, int turns)
{
    for (int i = 0; i < turns; i++) {
        usleep(20000);
        mn_writer_tend(f->writer, mn_wall_ns());
    }
}

static void put_many(struct fixture *f, uint64_t first, uint64_t last)
{
    char text[64];
    for (uint64_t id = first; id <= last; id++) {
        snprintf(text, sizeof text, "content %llu", (unsigned long long)id);
        fixture_put(f, "s", id, id, text);
    }
    fixture_commit(f);
}

static void check_many(struct fixture *f, uint64_t first, uint64_t last)
{
    char text[64];
    for (uint64_t id = first; id <= last; id++) {
        snprintf(text, sizeof text, "content %llu", (unsigned long long)id);
        assert_true(fixture_holds(f, "s", id, id, text));
    }
}

/* ---- commits ---- */

static void rows_move_and_the_index_follows(void **state)
{
    struct work w = begin(fixture_new());
    struct fixture *f = w.f;
    put_many(f, 1, 50);
    compact(&w);
    check_many(f, 1, 50);
    assert_int_equal(atomic_load(&f->instance.control->tail_rows), 0);
    assert_int_equal(fixture_forget(f, "s", 7, MN_FORGET_DELETE), 1); /* found where it is now */
    fixture_put(f, "s", 8, 88, "new");
    assert_int_equal(fixture_forget(f, "s", 9, MN_FORGET_SUPPRESS), 1);
    fixture_commit(f);
    assert_int_equal(fixture_forget(f, "s", 9, MN_FORGET_RESTORE), 1); /* read back from columns */
    fixture_commit(f);
    put_many(f, 51, 60);
    compact(&w);
    tend_for(f, 3);
    assert_int_equal(fixture_forget(f, "s", 55, MN_FORGET_DELETE), 1);
    put_many(f, 55, 55);
    compact(&w);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(fixture_count(f), 59);
        assert_true(fixture_absent(f, "s", 7));
        assert_true(fixture_holds(f, "s", 8, 88, "new"));
        check_many(f, 9, 60);
        mn_compactor_close(w.compactor);
        fixture_restart(f);
        ok(mn_compactor_open(&w.compactor, &f->store, &f->instance));
    }
    end(&w);
}

static void what_happens_during_the_build_is_carried_over(void **state)
{
    struct work w = begin(fixture_new());
    struct fixture *f = w.f;
    struct mn_compact_proposal proposal;
    put_many(f, 1, 20);
    assert_int_equal(fixture_forget(f, "s", 6, MN_FORGET_SUPPRESS), 1);
    fixture_commit(f);
    build(&w, &proposal);
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_DELETE), 1);
    assert_int_equal(fixture_forget(f, "s", 2, MN_FORGET_SUPPRESS), 1);
    fixture_put(f, "s", 3, 33, "new");
    assert_int_equal(fixture_forget(f, "s", 4, MN_FORGET_SUPPRESS), 1);
    fixture_commit(f);
    assert_int_equal(fixture_forget(f, "s", 4, MN_FORGET_RESTORE), 1);
    assert_int_equal(fixture_forget(f, "s", 6, MN_FORGET_DELETE), 1); /* was suppressed when it was copied */
    fixture_commit(f);
    ok(mn_writer_commit_proposal(f->writer, &proposal));
    mn_compact_proposal_free(&proposal);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(fixture_count(f), 17);
        assert_true(fixture_absent(f, "s", 1));
        assert_true(fixture_absent(f, "s", 2));
        assert_true(fixture_holds(f, "s", 3, 33, "new"));
        check_many(f, 4, 5);
        assert_int_equal(fixture_forget(f, "s", 6, MN_FORGET_RESTORE), 0);
        mn_compactor_close(w.compactor);
        fixture_restart(f);
        ok(mn_compactor_open(&w.compactor, &f->store, &f->instance));
    }
    assert_int_equal(fixture_forget(f, "s", 2, MN_FORGET_RESTORE), 1);
    fixture_commit(f);
    check_many(f, 2, 2);
    end(&w);
}

static void assigned_ids_and_keys_outlive_their_log(void **state)
{
    struct work w = begin(fixture_new());
    struct fixture *f = w.f;
    struct mn_outcome outcome;
    struct mn_memory m = fixture_memory(0, 1, "x");
    struct mn_remember request = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
    request.write.idem = text_str("key");
    ok(mn_writer_remember(f->writer, &request, &outcome));
    assert_int_equal(outcome.ids[0].lo, 1);
    fixture_commit(f);
    assert_int_equal(fixture_forget(f, "s", 1, MN_FORGET_DELETE), 1);
    fixture_commit(f);
    compact(&w);
    await_tended(f, !fixture_exists(f, "wal/00000001.wal"));
    mn_compactor_close(w.compactor);
    fixture_restart(f);
    ok(mn_compactor_open(&w.compactor, &f->store, &f->instance));
    ok(mn_writer_remember(f->writer, &request, &outcome));
    assert_true(outcome.replayed);
    assert_int_equal(outcome.ids[0].lo, 1);
    request.write.idem.length = 0;
    ok(mn_writer_remember(f->writer, &request, &outcome));
    assert_int_equal(outcome.ids[0].lo, 2);
    end(&w);
}

/* ---- refusals ---- */

static void a_proposal_for_another_manifest_changes_nothing(void **state)
{
    struct work w = begin(fixture_new());
    struct fixture *f = w.f;
    struct mn_compact_proposal first, second;
    struct mn_compact_plan plan;
    put_many(f, 1, 10);
    build(&w, &first);
    put_many(f, 11, 20);
    uint64_t sealed;
    ok(mn_writer_seal(f->writer, &sealed));
    ok(mn_compact_plan_make(w.compactor, &policy, true, &plan));
    ok(mn_writer_commit_proposal(f->writer, &first));
    enum mn_status status = mn_compact_build(w.compactor, &plan, &policy, NULL, NULL, &second);
    if (status == MN_OK) {
        second.base_edit = 0; /* as if it had been made before */
        fails(MN_VERSION_MISMATCH, mn_writer_commit_proposal(f->writer, &second));
        mn_compact_proposal_free(&second);
    }
    mn_compact_plan_free(&plan);
    fails(MN_VERSION_MISMATCH, mn_writer_commit_proposal(f->writer, &first)); /* twice */
    mn_compact_proposal_free(&first);
    assert_int_equal(fixture_count(f), 20);
    put_many(f, 21, 30);
    compact(&w);
    check_many(f, 1, 30);
    end(&w);
}

/* A proposal that was damaged or made up on its way. */
static void a_proposal_that_would_lose_rows_is_refused(void **state)
{
    struct work w = begin(fixture_new());
    struct fixture *f = w.f;
    struct mn_compact_proposal p;
    put_many(f, 1, 10);
    build(&w, &p);
    assert_int_equal(p.map_count, 1);
    p.maps[0].rows--;
    fails(MN_CORRUPT, mn_writer_commit_proposal(f->writer, &p)); /* says nothing of one row */
    p.maps[0].rows++;
    p.map_count = 0;
    fails(MN_CORRUPT, mn_writer_commit_proposal(f->writer, &p)); /* says nothing of any */
    p.map_count = 1;
    p.maps[0].number += 7;
    fails(MN_CORRUPT, mn_writer_commit_proposal(f->writer, &p)); /* of a part that is not there */
    p.maps[0].number -= 7;
    put_many(f, 11, 12);
    p.next.wal_first += 5;
    fails(MN_CORRUPT, mn_writer_commit_proposal(f->writer, &p)); /* takes the active segment */
    p.next.wal_first -= 5;
    p.outputs[0] += 100;
    assert_int_not_equal(mn_writer_commit_proposal(f->writer, &p), MN_OK); /* its columns are not there */
    p.outputs[0] -= 100;
    p.live_gen += 100;
    assert_int_not_equal(mn_writer_commit_proposal(f->writer, &p), MN_OK); /* nor their liveness */
    p.live_gen -= 100;
    assert_int_equal(fixture_count(f), 12);
    ok(mn_writer_commit_proposal(f->writer, &p));
    mn_compact_proposal_free(&p);
    check_many(f, 1, 12);
    end(&w);
}

/* ---- a disk that fails at the manifest ---- */

static _Atomic enum { HEALTHY, NO_SPACE, NO_SYNC } disk;
static _Atomic bool of_manifest[1024]; /* by file descriptor */

static enum mn_status open_seen(const char *path, int flags, int *fd)
{
    enum mn_status status = mn_io_posix.open(path, flags, fd);
    if (status == MN_OK)
        of_manifest[*fd] = strstr(path, "/MANIFEST") && (flags & MN_IO_WRITE);
    return status;
}

static enum mn_status write_manifest(int fd, const void *data, size_t bytes, uint64_t offset)
{
    if (disk != NO_SPACE || !of_manifest[fd])
        return mn_io_posix.write(fd, data, bytes, offset);
    enum mn_status ignored = mn_io_posix.write(fd, data, bytes / 4, offset); /* a piece of it lands */
    (void)ignored;
    return MN_FAIL(MN_READ_ONLY, "no space");
}

static enum mn_status sync_manifest(int fd)
{
    return disk == NO_SYNC && of_manifest[fd] ? MN_FAIL(MN_SYSTEM, "io error") : mn_io_posix.datasync(fd);
}

static void a_manifest_that_cannot_be_written_stops_nothing(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_io io = mn_io_posix;
    struct mn_compact_proposal p;
    io.open = open_seen;
    io.write = write_manifest;
    io.datasync = sync_manifest;
    f->store.io = &io;
    disk = HEALTHY;
    fixture_start(f);
    struct work w = begin(f);
    for (uint64_t id = 1; id <= 41; id += 20) { /* the first edit makes the file, the others are written on it */
        put_many(f, id, id + 9);
        build(&w, &p);
        disk = NO_SPACE;
        fails(MN_READ_ONLY, mn_writer_commit_proposal(f->writer, &p));
        assert_string_equal(mn_error_text(), "no space"); /* whatever the writer looks at after that */
        disk = HEALTHY;
        put_many(f, id + 10, id + 19);
        check_many(f, 1, id + 19);
        ok(mn_writer_commit_proposal(f->writer, &p)); /* the same may be tried again */
        mn_compact_proposal_free(&p);
        check_many(f, 1, id + 19);
    }
    mn_compactor_close(w.compactor);
    fixture_restart(f);
    assert_false(f->report.lost);
    check_many(f, 1, 60);
    ok(mn_compactor_open(&w.compactor, &f->store, &f->instance));
    mn_compactor_close(w.compactor);
    fixture_power_cut(f);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

/* Tends until the store says what it should of the manifest's copy, or it takes too long. */
static bool tend_until_alone(struct fixture *f, bool alone)
{
    for (int i = 0; i < 6000; i++) {
        usleep(20000);
        mn_writer_tend(f->writer, mn_wall_ns());
        if (((atomic_load(&f->instance.control->reasons) & MN_DEGRADED_MANIFEST) != 0) == alone)
            return true;
    }
    return false;
}

/* The copy cannot be written, at the first edit or at a later one: the store says so, and the writer makes it as soon
 * as it can. */
static void a_copy_of_the_manifest_is_made_when_it_can_be(void **state)
{
    struct work w = begin(fixture_new());
    struct fixture *f = w.f;
    char copy[MN_PATH_MAX], in_the_way[MN_PATH_MAX + 8];
    mn_store_path(&f->store, copy, "MANIFEST.copy");
    snprintf(in_the_way, sizeof in_the_way, "%s.tmp", copy);
    for (uint64_t edit = 1; edit <= 3; edit++) {
        unlink(copy);
        assert_int_equal(mkdir(in_the_way, 0700), 0);
        put_many(f, edit * 10, edit * 10 + 9);
        compact(&w);
        assert_true(tend_until_alone(f, true));
        tend_for(f, 10);
        assert_false(fixture_exists(f, "MANIFEST.copy"));
        assert_int_equal(rmdir(in_the_way), 0);
        assert_true(tend_until_alone(f, false));
        size_t bytes, copied;
        uint8_t *manifest = fixture_slurp(f, "MANIFEST", &bytes), *twin = fixture_slurp(f, "MANIFEST.copy", &copied);
        assert_int_equal(bytes, copied);
        assert_memory_equal(manifest, twin, bytes);
        free(manifest);
        free(twin);
    }
    assert_int_equal(fixture_files(f, "quarantine", ".json"), 0); /* nothing was damaged */
    check_many(f, 10, 39);
    end(&w);
}

static void a_manifest_that_cannot_be_synced_ends_the_writer(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_io io = mn_io_posix;
    struct mn_compact_proposal p;
    struct mn_outcome outcome;
    io.open = open_seen;
    io.write = write_manifest;
    io.datasync = sync_manifest;
    f->store.io = &io;
    disk = HEALTHY;
    fixture_start(f);
    struct work w = begin(f);
    put_many(f, 1, 10);
    compact(&w);
    put_many(f, 11, 20);
    build(&w, &p);
    disk = NO_SYNC;
    fails(MN_SYSTEM, mn_writer_commit_proposal(f->writer, &p));
    disk = HEALTHY;
    mn_compact_proposal_free(&p);
    struct mn_memory m = fixture_memory(99, 99, "x"); /* whether the edit is there to stay, nobody knows */
    struct mn_remember request = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
    fails(MN_INTERNAL, mn_writer_remember(f->writer, &request, &outcome));
    fails(MN_INTERNAL, mn_writer_append(f->writer));
    mn_compactor_close(w.compactor);
    fixture_crash(f);
    ok(fixture_recover(f));
    fixture_open_writer(f);
    check_many(f, 1, 20);
    w = begin(f);
    put_many(f, 21, 30);
    compact(&w);
    check_many(f, 1, 30);
    mn_compactor_close(w.compactor);
    fixture_power_cut(f);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

/* ---- purges ---- */

/* True when any file below the folder holds the bytes. */
static bool anywhere(const char *folder, const char *bytes)
{
    bool found = false;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; !found && (entry = readdir(dir)) != NULL;) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || lstat(path, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode)) {
            found = anywhere(path, bytes);
        } else if (st.st_size > 0) {
            void *data;
            size_t size;
            ok(mn_io_slurp(&mn_io_posix, path, 1u << 30, &data, &size));
            found = memmem(data, size, bytes, strlen(bytes)) != NULL;
            free(data);
        }
    }
    closedir(dir);
    return found;
}

static void a_purge_is_done_when_no_file_holds_the_bytes(void **state)
{
    struct work w = begin(fixture_new());
    struct fixture *f = w.f;
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint64_t files;
    put_many(f, 1, 10);
    fixture_put(f, "s", 5, 500, "secret, the first version");
    fixture_commit(f);
    compact(&w); /* one version is in columns */
    fixture_put(f, "s", 5, 501, "secret, the second version");
    fixture_commit(f);
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    assert_int_equal(fixture_forget(f, "s", 5, MN_FORGET_PURGE), 1);
    fixture_commit(f);
    uint64_t purge = atomic_load(&f->instance.control->durable_seq);
    assert_true(mn_writer_purge_waits(f->writer));
    assert_true(fixture_absent(f, "s", 5)); /* at once */
    assert_true(anywhere(f->dir, "secret"));
    compact(&w);
    assert_false(mn_writer_purge_waits(f->writer));
    tend_for(f, 10);
    assert_true(mn_writer_purged_seq(f->writer, &files) < purge); /* a reader still holds the old files */
    mn_reader_close(reader);
    await_tended(f, mn_writer_purged_seq(f->writer, &files) >= purge);
    assert_true(files > 0);
    assert_false(anywhere(f->dir, "secret"));
    assert_true(anywhere(f->dir, "content 4"));
    fixture_put(f, "s", 5, 5, "content 5"); /* the id may be used again */
    fixture_commit(f);
    check_many(f, 1, 10);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_move_and_the_index_follows),
        cmocka_unit_test(what_happens_during_the_build_is_carried_over),
        cmocka_unit_test(assigned_ids_and_keys_outlive_their_log),
        cmocka_unit_test(a_proposal_for_another_manifest_changes_nothing),
        cmocka_unit_test(a_proposal_that_would_lose_rows_is_refused),
        cmocka_unit_test(a_manifest_that_cannot_be_written_stops_nothing),
        cmocka_unit_test(a_copy_of_the_manifest_is_made_when_it_can_be),
        cmocka_unit_test(a_manifest_that_cannot_be_synced_ends_the_writer),
        cmocka_unit_test(a_purge_is_done_when_no_file_holds_the_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
