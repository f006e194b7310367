/*
 * manifest_store.c - a store with nothing but a manifest (see manifest_store.h).
 */
#include "tests/unit/manifest_store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct mn_io manifest_quick_io;

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

int manifest_setup(void **state)
{
    struct manifest_store *f = calloc(1, sizeof *f);
    manifest_quick_io = mn_io_posix;
    manifest_quick_io.datasync = no_sync;
    manifest_quick_io.sync_dir = no_folder_sync;
    snprintf(f->dir, sizeof f->dir, "/dev/shm/mn-manifest-XXXXXX");
    if (!mkdtemp(f->dir) || mn_store_create(&f->store, &manifest_quick_io, f->dir, 4, MN_METRIC_COSINE) != MN_OK)
        return -1;
    mn_store_path(&f->store, f->path, mn_manifest_names[0]);
    mn_store_path(&f->store, f->copy, mn_manifest_names[1]);
    *state = f;
    return 0;
}

int manifest_teardown(void **state)
{
    struct manifest_store *f = *state;
    int failed = mn_io_remove_tree(&mn_io_posix, f->dir) != MN_OK;
    free(f);
    return failed;
}

void manifest_state_make(struct mn_manifest *m, uint64_t edit, uint32_t segments)
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

void manifest_state_expect(const struct mn_manifest *m, uint64_t edit, uint32_t segments)
{
    struct mn_manifest want;
    manifest_state_make(&want, edit, segments);
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

void manifest_expect_read(struct manifest_store *f, struct mn_manifest_report *report, uint64_t edit, uint32_t segments)
{
    struct mn_manifest m;
    ok(mn_manifest_read(&m, &f->store, report));
    manifest_state_expect(&m, edit, segments);
    mn_manifest_free(&m);
}

void manifest_append(struct manifest_store *f, uint64_t edit, uint32_t segments)
{
    struct mn_manifest m;
    manifest_state_make(&m, edit + 1, segments);
    m.edit = edit;
    ok(mn_manifest_append(&m, &f->store));
    assert_int_equal(m.edit, edit + 1);
    mn_manifest_free(&m);
}

void manifest_fresh(struct manifest_store *f, uint64_t edits, uint32_t segments)
{
    unlink(f->path);
    unlink(f->copy);
    for (uint64_t edit = 0; edit < edits; edit++)
        manifest_append(f, edit, segments);
}

size_t manifest_slurp(struct manifest_store *f, uint8_t **data)
{
    size_t bytes;
    ok(mn_io_slurp(&mn_io_posix, f->path, 1u << 30, (void **)data, &bytes));
    return bytes;
}

void manifest_put_file(const char *path, const uint8_t *data, size_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(pwrite(fd, data, bytes, 0), (ssize_t)bytes);
    close(fd);
}

void manifest_put(struct manifest_store *f, const uint8_t *data, size_t bytes)
{
    manifest_put_file(f->path, data, bytes);
    manifest_put_file(f->copy, data, bytes);
}

void manifest_expect_report(const struct mn_manifest_report *report, uint64_t torn_bytes, uint32_t damaged_edits)
{
    for (uint32_t i = 0; i < MN_MANIFEST_COPIES; i++) {
        assert_int_equal(report->copies[i].torn_bytes, torn_bytes);
        assert_int_equal(report->copies[i].damaged_edits, damaged_edits);
        assert_false(report->copies[i].missing || report->copies[i].behind);
    }
}

bool manifest_copy_sound(const struct mn_manifest_copy *copy)
{
    return copy->torn_bytes == 0 && copy->damaged_edits == 0 && !copy->missing && !copy->behind;
}
