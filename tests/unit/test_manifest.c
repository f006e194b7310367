/*
 * test_manifest.c - MANIFEST: the newest edit survives flips, cuts and torn appends; a state is never made up; and one
 * of its two copies is enough.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/manifest.h"
#include "tests/unit/expect.h"
#include "tests/unit/fail_once.h"

struct fixture {
    struct mn_store store;
    char dir[128], path[MN_PATH_MAX], copy[MN_PATH_MAX];
};

/* The kernel's files without waiting for the disk: what is tried here is bytes. */
static struct mn_io quick;

static enum mn_status no_sync(int fd)
{
    (void)fd;
    return MN_OK;
}

static enum mn_status no_folder_sync(const char *path)
{
    (void)path;
    return MN_OK;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    quick = mn_io_posix;
    quick.datasync = no_sync;
    quick.sync_dir = no_folder_sync;
    snprintf(f->dir, sizeof f->dir, "/dev/shm/mn-manifest-XXXXXX");
    if (!mkdtemp(f->dir) || mn_store_create(&f->store, &quick, f->dir, 4, MN_METRIC_COSINE) != MN_OK)
        return -1;
    mn_store_path(&f->store, f->path, mn_manifest_names[0]);
    mn_store_path(&f->store, f->copy, mn_manifest_names[1]);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int failed = mn_io_remove_tree(&mn_io_posix, f->dir) != MN_OK;
    free(f);
    return failed;
}

/* The state after `edit` edits: every number follows from it. */
static void make_state(struct mn_manifest *m, uint64_t edit, uint32_t segments)
{
    *m = (struct mn_manifest){.edit = edit,
                              .next_segment = 10 * edit + 1,
                              .wal_first = 10 * edit + 2,
                              .log_seq = 10 * edit + 3,
                              .oldest_seq = 10 * edit + 4,
                              .ledger_seq = 10 * edit + 5,
                              .codebook = 10 * edit + 6,
                              .segment_count = segments,
                              .segments = calloc(segments + 1, sizeof(struct mn_manifest_segment))};
    for (uint32_t s = 0; s < segments; s++)
        m->segments[s] = (struct mn_manifest_segment){edit + s, s + 1, s * 2, s * 3, -(int64_t)s, (int64_t)edit, s % 3};
    for (uint32_t t = 0; t < MN_TUNING_WORDS; t++)
        m->tuning[t] = (uint32_t)edit * 100 + t;
}

static void expect_state(const struct mn_manifest *m, uint64_t edit, uint32_t segments)
{
    struct mn_manifest want;
    make_state(&want, edit, segments);
    assert_int_equal(m->edit, edit);
    assert_int_equal(m->next_segment, want.next_segment);
    assert_int_equal(m->wal_first, want.wal_first);
    assert_int_equal(m->log_seq, want.log_seq);
    assert_int_equal(m->oldest_seq, want.oldest_seq);
    assert_int_equal(m->ledger_seq, want.ledger_seq);
    assert_int_equal(m->codebook, want.codebook);
    assert_memory_equal(m->tuning, want.tuning, sizeof want.tuning);
    assert_int_equal(m->segment_count, segments);
    assert_memory_equal(m->segments, want.segments, segments * sizeof *want.segments);
    mn_manifest_free(&want);
}

/* The newest edit is that state. */
static void expect_read(struct fixture *f, struct mn_manifest_report *report, uint64_t edit, uint32_t segments)
{
    struct mn_manifest m;
    ok(mn_manifest_read(&m, &f->store, report));
    expect_state(&m, edit, segments);
    mn_manifest_free(&m);
}

/* Appends the state of edit + 1. */
static void append_state(struct fixture *f, uint64_t edit, uint32_t segments)
{
    struct mn_manifest m;
    make_state(&m, edit + 1, segments);
    m.edit = edit;
    ok(mn_manifest_append(&m, &f->store));
    assert_int_equal(m.edit, edit + 1);
    mn_manifest_free(&m);
}

static void fresh(struct fixture *f, uint64_t edits, uint32_t segments)
{
    unlink(f->path);
    unlink(f->copy);
    for (uint64_t edit = 0; edit < edits; edit++)
        append_state(f, edit, segments);
}

static size_t slurp(struct fixture *f, uint8_t **data)
{
    size_t bytes;
    ok(mn_io_slurp(&mn_io_posix, f->path, 1u << 30, (void **)data, &bytes));
    return bytes;
}

static void put_file(const char *path, const uint8_t *data, size_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(pwrite(fd, data, bytes, 0), (ssize_t)bytes);
    close(fd);
}

/* Both copies. */
static void put(struct fixture *f, const uint8_t *data, size_t bytes)
{
    put_file(f->path, data, bytes);
    put_file(f->copy, data, bytes);
}

static void expect_report(const struct mn_manifest_report *report, uint64_t torn_bytes, uint32_t damaged_edits)
{
    for (uint32_t i = 0; i < MN_MANIFEST_COPIES; i++) {
        assert_int_equal(report->copies[i].torn_bytes, torn_bytes);
        assert_int_equal(report->copies[i].damaged_edits, damaged_edits);
        assert_false(report->copies[i].missing || report->copies[i].behind);
    }
}

static bool sound(const struct mn_manifest_copy *copy)
{
    return copy->torn_bytes == 0 && copy->damaged_edits == 0 && !copy->missing && !copy->behind;
}

static void empty_at_first(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest m;
    struct mn_manifest_report report = {{{1, 1, 1, true, true, true}}};
    unlink(f->path);
    unlink(f->copy);
    ok(mn_manifest_read(&m, &f->store, &report));
    assert_int_equal(m.edit, 0);
    assert_int_equal(m.segment_count, 0);
    expect_report(&report, 0, 0);
    mn_manifest_free(&m);
}

static void newest_edit_is_read(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest_report report;
    fresh(f, 0, 0);
    for (uint64_t edit = 0; edit < 20; edit++) {
        append_state(f, edit, (uint32_t)(edit * 3 % 7));
        expect_read(f, &report, edit + 1, (uint32_t)(edit * 3 % 7));
        expect_report(&report, 0, 0);
    }
}

static void stale_edit_is_refused(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest m;
    fresh(f, 3, 2);
    make_state(&m, 2, 2);
    assert_int_equal(mn_manifest_append(&m, &f->store), MN_VERSION_MISMATCH);
    assert_int_equal(m.edit, 2);
    mn_manifest_free(&m);
    expect_read(f, NULL, 3, 2);
}

static void file_rolls(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest_report report;
    struct stat st;
    uint64_t largest = 0, rolls = 0, before = 0;
    fresh(f, 0, 0);
    for (uint64_t edit = 0; edit < 60; edit++) {
        append_state(f, edit, 500);
        assert_int_equal(stat(f->path, &st), 0);
        largest = (uint64_t)st.st_size > largest ? (uint64_t)st.st_size : largest;
        rolls += (uint64_t)st.st_size < before;
        before = (uint64_t)st.st_size;
    }
    assert_true(largest <= MN_MANIFEST_ROLL);
    assert_true(rolls >= 1);
    expect_read(f, &report, 60, 500);
    expect_report(&report, 0, 0);
}

/* One flipped bit anywhere: the newest edit is still read, and the damage is reported. */
static void any_flip_is_survived(void **state)
{
    struct fixture *f = *state;
    uint8_t *data;
    fresh(f, 3, 2);
    size_t bytes = slurp(f, &data);
    for (size_t bit = 0; bit < bytes * 8; bit++) {
        struct mn_manifest m;
        struct mn_manifest_report report;
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        put(f, data, bytes);
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ok(mn_manifest_read(&m, &f->store, &report));
        expect_state(&m, 3, 2);
        if (sound(&report.copies[0]) || sound(&report.copies[1]))
            fail_msg("flipped bit %zu is not reported", bit);
        mn_manifest_free(&m);
    }
    free(data);
}

/* The first copy as it was in the middle of an append, and the second as it was before. */
static void expect_torn(const struct mn_manifest_report *report, uint64_t torn_bytes, bool late)
{
    assert_int_equal(report->copies[0].torn_bytes, torn_bytes);
    assert_int_equal(report->copies[0].damaged_edits + report->copies[1].damaged_edits, 0);
    assert_false(report->copies[0].behind);
    assert_int_equal(report->copies[1].late, late);
}

/* An append cut anywhere: the state is the one before or the one after. What is appended next is read back. */
static void torn_append(void **state)
{
    struct fixture *f = *state;
    uint8_t *data;
    struct stat st;
    fresh(f, 2, 3);
    assert_int_equal(stat(f->path, &st), 0);
    append_state(f, 2, 5);
    size_t bytes = slurp(f, &data), before = (size_t)st.st_size, single = before + (bytes - before) / 2;
    for (size_t cut = before; cut <= bytes; cut += cut + 40 < bytes ? 13 : 1) {
        struct mn_manifest m;
        struct mn_manifest_report report;
        put_file(f->path, data, cut);
        put_file(f->copy, data, before);
        ok(mn_manifest_read(&m, &f->store, &report));
        expect_state(&m, cut >= single ? 3 : 2, cut >= single ? 5 : 3);
        expect_torn(&report, cut == bytes ? 0 : cut >= single ? cut - single : cut - before, cut >= single);
        uint64_t edit = m.edit;
        mn_manifest_free(&m);
        append_state(f, edit, 1);
        expect_read(f, &report, edit + 1, 1);
        expect_report(&report, 0, 0);
    }
    free(data);
}

/* The file grew, but none or some of the sectors landed. */
static void torn_with_zero_sectors(void **state)
{
    struct fixture *f = *state;
    uint8_t *data;
    struct stat st;
    fresh(f, 2, 60);
    assert_int_equal(stat(f->path, &st), 0);
    append_state(f, 2, 60);
    size_t bytes = slurp(f, &data), before = (size_t)st.st_size;
    for (size_t sector = before / 512; sector <= bytes / 512; sector++) {
        struct mn_manifest m;
        struct mn_manifest_report report;
        uint8_t *torn = malloc(bytes);
        memcpy(torn, data, bytes);
        size_t begin = sector * 512 > before ? sector * 512 : before;
        memset(torn + begin, 0, bytes - begin);
        put_file(f->path, torn, bytes);
        put_file(f->copy, data, before);
        free(torn);
        ok(mn_manifest_read(&m, &f->store, &report));
        bool whole = begin >= before + (bytes - before) / 2;
        expect_state(&m, whole ? 3 : 2, 60);
        assert_true(report.copies[0].torn_bytes > 0);
        expect_torn(&report, report.copies[0].torn_bytes, whole);
        mn_manifest_free(&m);
    }
    free(data);
}

/* What looks unfinished where nothing was being written was whole once. */
static void an_end_that_no_append_leaves(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest m;
    struct mn_manifest_report report;
    uint8_t *data;
    fresh(f, 4, 3);
    size_t bytes = slurp(f, &data), edit = bytes / 4;
    const size_t first[] = {bytes - 1, bytes - edit / 2 + 1, bytes - edit + 1};
    for (size_t i = 0; i < MN_ARRAY_LEN(first); i++) {
        put(f, data, bytes);
        put_file(f->path, data, first[i]); /* the second copy has what is cut off here */
        ok(mn_manifest_read(&m, &f->store, &report));
        mn_manifest_free(&m);
        assert_true(report.copies[0].damaged_edits > 0);
    }
    /* Nor does any flip in the last frame look like one, though it may make the frame longer than the file. */
    for (size_t bit = (bytes - edit / 2) * 8; bit < bytes * 8; bit++) {
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        put_file(f->copy, data, bytes);
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ok(mn_manifest_read(&m, &f->store, &report));
        mn_manifest_free(&m);
        assert_true(report.copies[1].damaged_edits > 0);
    }
    uint8_t *longer = calloc(1, bytes + 1);
    memcpy(longer, data, bytes);
    put(f, data, bytes);
    put_file(f->copy, longer, bytes + 1);
    ok(mn_manifest_read(&m, &f->store, &report));
    mn_manifest_free(&m);
    assert_true(report.copies[1].damaged_edits > 0);
    free(longer);
    free(data);
}

static void no_valid_edit_is_corrupt(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest m;
    uint8_t *data;
    fresh(f, 1, 1);
    size_t bytes = slurp(f, &data);
    struct mn_store stranger = f->store;
    stranger.uuid[0] ^= 1;
    assert_int_equal(mn_manifest_read(&m, &stranger, NULL), MN_CORRUPT);
    memset(data, 0, bytes);
    put(f, data, bytes);
    assert_int_equal(mn_manifest_read(&m, &f->store, NULL), MN_CORRUPT);
    put(f, data, 0);
    assert_int_equal(mn_manifest_read(&m, &f->store, NULL), MN_CORRUPT);
    free(data);
}

/* A missing edit in the middle shows in the chain. */
static void lost_edit_is_reported(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest_report report;
    uint8_t *data;
    fresh(f, 4, 2);
    size_t bytes = slurp(f, &data), edit = bytes / 4;
    memmove(data + edit, data + 2 * edit, bytes - 2 * edit);
    put(f, data, bytes - edit);
    expect_read(f, &report, 4, 2);
    expect_report(&report, 0, 1);
    free(data);
}

/* ---- two copies ---- */

enum harm { HARM_GONE, HARM_EMPTY, HARM_ZEROS, HARM_CUT, HARM_FLIP, HARM_OLD, HARM_COUNT };

static void harm_file(const char *path, enum harm harm, const uint8_t *data, size_t bytes)
{
    uint8_t *changed = malloc(bytes);
    memcpy(changed, data, bytes);
    if (harm == HARM_ZEROS)
        memset(changed, 0, bytes);
    if (harm == HARM_FLIP)
        changed[bytes - 20] ^= 1;
    /* Half of five edits is in the middle of the third; two fifths end with the second. */
    put_file(path, changed,
             harm == HARM_EMPTY ? 0
             : harm == HARM_CUT ? bytes / 2
             : harm == HARM_OLD ? bytes / 5 * 2
                                : bytes);
    if (harm == HARM_GONE)
        unlink(path);
    free(changed);
}

static uint32_t notes(const struct fixture *f)
{
    char path[MN_PATH_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < MN_MANIFEST_COPIES; i++) {
        snprintf(path, sizeof path, "%s/quarantine/healed-%s-00000005-0.json", f->dir, mn_manifest_names[i]);
        count += unlink(path) == 0;
    }
    return count;
}

/* Whatever becomes of one of them: the newest edit is read, the other one is told of, mended, and noted. */
static void one_copy_is_enough(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest_report report;
    uint8_t *data;
    fresh(f, 5, 3);
    size_t bytes = slurp(f, &data);
    notes(f);
    for (uint32_t copy = 0; copy < MN_MANIFEST_COPIES; copy++) {
        for (enum harm harm = 0; harm < HARM_COUNT; harm++) {
            put(f, data, bytes);
            harm_file(copy == 0 ? f->path : f->copy, harm, data, bytes);
            expect_read(f, &report, 5, 3);
            assert_false(sound(&report.copies[copy]));
            assert_true(sound(&report.copies[1 - copy]));
            mn_manifest_mend(&f->store);
            assert_int_equal(notes(f), 1);
            expect_read(f, &report, 5, 3);
            expect_report(&report, 0, 0);
        }
    }
    free(data);
}

/* An append without a mend in between: the copy that was harmed is made anew by it. */
static void an_append_mends_too(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest_report report;
    uint8_t *data;
    fresh(f, 5, 3);
    size_t bytes = slurp(f, &data);
    for (enum harm harm = 0; harm < 2 * HARM_COUNT; harm++) {
        put(f, data, bytes);
        harm_file(harm < HARM_COUNT ? f->path : f->copy, harm % HARM_COUNT, data, bytes);
        append_state(f, 5, 4);
        expect_read(f, &report, 6, 4);
        expect_report(&report, 0, 0);
    }
    free(data);
}

/* The writer died between the two, or in the second: that is no damage, and leaves no note. */
static void a_crash_between_the_copies(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest_report report;
    uint8_t *data;
    struct stat st;
    for (uint64_t edits = 0; edits < 5; edits += 4) {
        fresh(f, edits, 3);
        size_t before = stat(f->copy, &st) == 0 ? (size_t)st.st_size : 0;
        append_state(f, edits, 3);
        size_t bytes = slurp(f, &data);
        for (size_t cut = before; cut < bytes; cut += 31) {
            put(f, data, bytes);
            if (cut == 0)
                unlink(f->copy); /* the first edit makes the file, whole or not at all */
            else if (edits > 0)
                put_file(f->copy, data, cut);
            expect_read(f, &report, edits + 1, 3);
            mn_manifest_mend(&f->store);
            assert_int_equal(notes(f), 0);
            expect_read(f, &report, edits + 1, 3);
            expect_report(&report, 0, 0);
        }
        free(data);
    }
}

/* ---- one copy that cannot be written ---- */

/* Whichever it is, and whatever stands there: the manifest is alone until both are whole. */
static void a_copy_that_cannot_be_made_is_made_later(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest_report report;
    char in_the_way[MN_PATH_MAX + 8];
    uint8_t *data;
    fresh(f, 5, 3);
    size_t bytes = slurp(f, &data);
    for (enum harm harm = 0; harm < 2 * HARM_COUNT; harm++) {
        struct mn_manifest m;
        const char *path = harm < HARM_COUNT ? f->path : f->copy;
        put(f, data, bytes);
        ok(mn_manifest_read(&m, &f->store, NULL));
        assert_false(m.alone);
        mn_manifest_free(&m);
        harm_file(path, harm % HARM_COUNT, data, bytes);
        ok(mn_manifest_read(&m, &f->store, NULL));
        assert_true(m.alone);
        snprintf(in_the_way, sizeof in_the_way, "%s.tmp", path);
        assert_int_equal(mkdir(in_the_way, 0700), 0);
        assert_int_not_equal(mn_manifest_rejoin(&m, &f->store), MN_OK);
        assert_true(m.alone);
        enum mn_status status = mn_manifest_append(&m, &f->store);
        assert_int_equal(status == MN_OK, path == f->copy); /* the first one is what counts */
        assert_true(m.alone);
        assert_int_equal(rmdir(in_the_way), 0);
        ok(mn_manifest_rejoin(&m, &f->store));
        assert_false(m.alone);
        mn_manifest_free(&m);
        ok(mn_manifest_read(&m, &f->store, &report));
        assert_int_equal(m.edit, path == f->copy ? 6 : 5);
        assert_false(m.alone);
        expect_report(&report, 0, 0);
        mn_manifest_free(&m);
    }
    assert_int_equal(notes(f), 0);
    free(data);
}

/* ---- a disk that fails once, at its n-th change ---- */

/* An append that failed is there or is not; the one after it is. */
static void failing_disk(void **state)
{
    struct fixture *f = *state;
    struct mn_io io = fail_once_io();
    struct mn_store store = f->store;
    store.io = &io;
    for (uint32_t edits = 0; edits < 3; edits++) {
        enum mn_status status = MN_SYSTEM;
        for (uint32_t n = 1; status != MN_OK; n++) {
            struct mn_manifest m;
            fresh(f, edits, 3);
            make_state(&m, edits + 1, 5);
            m.edit = edits;
            fail_once.calls = 0;
            fail_once.fail_at = n;
            fail_once.status = MN_SYSTEM;
            status = mn_manifest_append(&m, &store);
            assert_true(status == MN_OK || status == MN_SYSTEM);
            assert_int_equal(m.edit, status == MN_OK ? edits + 1 : edits);
            mn_manifest_free(&m);
            ok(mn_manifest_read(&m, &f->store, NULL));
            uint64_t edit = m.edit;
            assert_true(edit == edits + 1 || (status != MN_OK && edit == edits));
            if (edit > 0)
                expect_state(&m, edit, edit == edits + 1 ? 5 : 3);
            mn_manifest_free(&m);
            append_state(f, edit, 2);
            expect_read(f, NULL, edit + 1, 2);
        }
        assert_true(fail_once.fail_at > 2);
    }
}

/* ---- a sync that fails: from then on the cache shows what the disk does not have ---- */

static struct {
    const char *path; /* the file */
    uint8_t *disk;    /* what the disk has of it */
    size_t bytes;
    int writing, past_cache;
} unsynced;

static enum mn_status open_unsynced(const char *path, int flags, int *fd)
{
    enum mn_status status = mn_io_posix.open(path, flags, fd);
    bool it = status == MN_OK && strcmp(path, unsynced.path) == 0;
    if (it && flags & MN_IO_WRITE)
        unsynced.writing = *fd;
    if (it && flags & MN_IO_DIRECT)
        unsynced.past_cache = *fd;
    return status;
}

static void close_unsynced(int fd)
{
    if (fd == unsynced.writing)
        unsynced.writing = -1;
    if (fd == unsynced.past_cache)
        unsynced.past_cache = -1;
    mn_io_posix.close(fd);
}

static enum mn_status sync_unsynced(int fd)
{
    return fd == unsynced.writing ? MN_FAIL(MN_SYSTEM, "the sync failed") : MN_OK;
}

static enum mn_status read_unsynced(int fd, void *data, size_t bytes, uint64_t offset)
{
    enum mn_status status = mn_io_posix.read(fd, data, bytes, offset);
    for (size_t i = 0; fd == unsynced.past_cache && i < bytes; i++)
        ((uint8_t *)data)[i] = offset + i < unsynced.bytes ? unsynced.disk[offset + i] : 0;
    return status;
}

/* Nobody acts upon an edit whose sync failed, and none is written behind it. */
static void an_edit_whose_sync_failed_is_none(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest m;
    struct mn_manifest_report report;
    struct mn_io io = quick;
    struct mn_store store = f->store;
    io.open = open_unsynced;
    io.close = close_unsynced;
    io.datasync = sync_unsynced;
    io.read = read_unsynced;
    store.io = &io;
    for (uint32_t segments = 1; segments < 200; segments = segments * 2 + 1) {
        fresh(f, 2, segments);
        unsynced.path = f->path;
        unsynced.writing = unsynced.past_cache = -1;
        unsynced.bytes = slurp(f, &unsynced.disk);
        make_state(&m, 3, 2);
        m.edit = 2;
        assert_int_equal(mn_manifest_append(&m, &store), MN_SYSTEM);
        mn_manifest_free(&m);
        ok(mn_manifest_read(&m, &store, NULL));
        expect_state(&m, 2, segments);
        mn_manifest_free(&m);
        make_state(&m, 3, 4);
        m.edit = 2;
        ok(mn_manifest_append(&m, &store)); /* the file is replaced, so its sync does not fail */
        mn_manifest_free(&m);
        expect_read(f, &report, 3, 4);
        expect_report(&report, 0, 0);
        free(unsynced.disk);
    }
}

static enum mn_status sync_no_folder(const char *path)
{
    return MN_FAIL(MN_SYSTEM, "cannot sync %s", path);
}

/* Nor upon one in a file whose name may go. */
static void an_edit_without_a_name_for_good_is_none(void **state)
{
    struct fixture *f = *state;
    struct mn_manifest m;
    struct mn_io io = quick;
    struct mn_store store = f->store;
    fresh(f, 2, 3);
    io.sync_dir = sync_no_folder;
    store.io = &io;
    assert_int_equal(mn_manifest_read(&m, &store, NULL), MN_SYSTEM);
    mn_manifest_free(&m);
}

static void encode_and_decode(void **state)
{
    (void)state;
    struct mn_manifest m, back;
    void *data;
    size_t bytes;
    make_state(&m, 9, 33);
    ok(mn_manifest_encode(&m, &data, &bytes));
    ok(mn_manifest_decode(&back, data, bytes));
    expect_state(&back, 9, 33);
    mn_manifest_free(&back);
    for (size_t cut = 0; cut < bytes; cut += 7)
        assert_int_equal(mn_manifest_decode(&back, data, cut), MN_CORRUPT);
    for (size_t at = 0; at < bytes; at++) {
        ((uint8_t *)data)[at] ^= 0x10;
        assert_int_equal(mn_manifest_decode(&back, data, bytes), MN_CORRUPT);
        ((uint8_t *)data)[at] ^= 0x10;
    }
    ok(mn_manifest_copy(&back, &m));
    expect_state(&back, 9, 33);
    mn_manifest_free(&back);
    mn_manifest_free(&m);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_at_first),
        cmocka_unit_test(newest_edit_is_read),
        cmocka_unit_test(stale_edit_is_refused),
        cmocka_unit_test(file_rolls),
        cmocka_unit_test(any_flip_is_survived),
        cmocka_unit_test(torn_append),
        cmocka_unit_test(torn_with_zero_sectors),
        cmocka_unit_test(no_valid_edit_is_corrupt),
        cmocka_unit_test(failing_disk),
        cmocka_unit_test(an_edit_whose_sync_failed_is_none),
        cmocka_unit_test(an_edit_without_a_name_for_good_is_none),
        cmocka_unit_test(lost_edit_is_reported),
        cmocka_unit_test(encode_and_decode),
        cmocka_unit_test(one_copy_is_enough),
        cmocka_unit_test(an_end_that_no_append_leaves),
        cmocka_unit_test(an_append_mends_too),
        cmocka_unit_test(a_crash_between_the_copies),
        cmocka_unit_test(a_copy_that_cannot_be_made_is_made_later),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
