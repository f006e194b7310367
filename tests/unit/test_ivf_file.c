/*
 * test_ivf_file.c - inverted files: every row in it once and rightly coded, and damage of every kind found before it
 * can do harm.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/columns_file.h"
#include "engine/ivf_file.h"
#include "tests/unit/fail_once.h"
#include "tests/unit/live_store.h"

#define ROWS 1500u

/* A store with one segment of ROWS rows, coded. */
struct coded {
    struct live_store *live;
    uint64_t segment, codebook;
    char path[MN_PATH_MAX];
};

static int setup(void **state)
{
    struct coded *c = calloc(1, sizeof *c);
    c->live = live_store_new();
    live_remember(c->live, 0, 0, ROWS);
    live_seal(c->live);
    live_compact(c->live, true);
    struct mn_manifest manifest = live_manifest(c->live);
    assert_int_equal(manifest.segment_count, 1);
    c->segment = manifest.segments[0].id;
    c->codebook = manifest.segments[0].codebook;
    assert_int_equal(c->codebook, manifest.codebook);
    mn_manifest_free(&manifest);
    mn_ivf_path(&c->live->store, c->path, c->segment, c->codebook);
    *state = c;
    return 0;
}

static int teardown(void **state)
{
    struct coded *c = *state;
    live_store_free(c->live);
    free(c);
    return 0;
}

/* ---- as it should be ---- */

static void every_row_once_and_rightly(void **state)
{
    struct coded *c = *state;
    struct mn_manifest manifest = live_manifest(c->live);
    uint64_t bytes = 0;
    assert_int_equal(live_check_codes(c->live), ROWS);
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++) {
        char path[MN_PATH_MAX];
        bytes += file_length(mn_store_column_path(&c->live->store, path, c->segment, mn_column_info[column].name));
    }
    char path[MN_PATH_MAX];
    bytes += file_length(mn_store_column_path(&c->live->store, path, c->segment, "parity"));
    assert_int_equal(manifest.segments[0].bytes, bytes + file_length(c->path));
    mn_manifest_free(&manifest);
    live_check(c->live);
    live_store_restart(c->live);
    assert_int_equal(live_check_codes(c->live), ROWS);
}

static void one_mapping_for_all_users(void **state)
{
    struct coded *c = *state;
    struct mn_ivf_file *a, *b;
    ok(mn_ivf_open(&a, &c->live->store, c->segment, c->codebook));
    ok(mn_ivf_open(&b, &c->live->store, c->segment, c->codebook));
    assert_ptr_equal(a, b);
    assert_false(mn_ivf_damaged(a));
    mn_ivf_close(a);
    assert_int_equal(mn_ivf_of(b)->rows, ROWS);
    mn_ivf_close(b);
    mn_ivf_close(NULL);
}

/* Opens the columns of the segment, and its codebook. */
struct opened {
    struct mn_columns *columns;
    struct mn_part part;
    const struct mn_codebook *codebook;
};

static struct opened open_part(const struct coded *c)
{
    struct opened o;
    ok(mn_columns_open(&o.columns, &c->live->store, c->segment, MN_COLUMNS_CHECK));
    mn_columns_part(o.columns, &o.part);
    ok(mn_codebook_open(&o.codebook, &c->live->store, c->codebook));
    return o;
}

static void close_part(struct opened *o)
{
    mn_codebook_close(o->codebook);
    mn_columns_close(o->columns);
}

static void known_clusters_are_kept(void **state)
{
    struct coded *c = *state;
    struct opened o = open_part(c);
    uint32_t *assigned = malloc(ROWS * sizeof *assigned), *again = malloc(ROWS * sizeof *again);
    struct mn_ivf_file *file;
    uint64_t bytes;
    float energy, nearest;
    ok(mn_ivf_write(&c->live->store, c->segment, &o.part, o.codebook, NULL, NULL, NULL, &bytes, &nearest));
    live_store_stop(c->live); /* nobody shares the older mapping */
    for (uint32_t row = 0; row < ROWS; row++)
        assigned[row] = row % 7 == 0 ? MN_NONE : row % o.codebook->clusters;
    ok(mn_ivf_write(&c->live->store, c->segment, &o.part, o.codebook, assigned, NULL, NULL, &bytes, &energy));
    assert_true(energy > nearest);
    assert_int_equal(bytes, file_length(c->path));
    ok(mn_ivf_open(&file, &c->live->store, c->segment, c->codebook));
    memset(again, 0xff, ROWS * sizeof *again);
    mn_ivf_clusters(mn_ivf_of(file), again);
    for (uint32_t row = 0; row < ROWS; row++)
        assert_true(again[row] == assigned[row] || (row % 7 == 0 && again[row] < o.codebook->clusters));
    mn_ivf_close(file);
    free(assigned);
    free(again);
    close_part(&o);
}

static void rows_that_cannot_be_read_are_far(void **state)
{
    struct coded *c = *state;
    char path[MN_PATH_MAX];
    uint64_t bytes;
    float energy;
    live_store_stop(c->live);
    mn_store_column_path(&c->live->store, path, c->segment, "embeddings");
    file_flip(path, sizeof(struct mn_column_header) + 10, 0x10); /* the first of two blocks */
    struct opened o = open_part(c);
    uint32_t far = 0;
    ok(mn_ivf_write(&c->live->store, c->segment, &o.part, o.codebook, NULL, NULL, NULL, &bytes, &energy));
    struct mn_ivf_file *file;
    ok(mn_ivf_open(&file, &c->live->store, c->segment, c->codebook));
    const struct mn_ivf *ivf = mn_ivf_of(file);
    for (uint32_t n = 0; n < ivf->clusters; n++) {
        for (uint32_t slot = ivf->first_slot[n]; slot < ivf->first_slot[n + 1]; slot++) {
            uint32_t lane = mn_ivf_lane(ivf, n, slot), width = o.codebook->width;
            const struct mn_ivf_lanes *lanes =
                mn_ivf_lanes(ivf->blocks + (size_t)(lane / MN_IVF_LANES) * mn_ivf_block_bytes(width), width);
            bool readable = mn_part_vector(&o.part, mn_ivf_row(ivf, slot)) != NULL;
            assert_true(readable == (lanes->add[lane % MN_IVF_LANES] < MN_IVF_FAR / 2));
            far += !readable;
        }
    }
    assert_int_equal(far, MN_COLUMN_BLOCK / (LIVE_DIM * sizeof(float)));
    mn_ivf_close(file);
    close_part(&o);
}

static bool stop_at_once(void *context)
{
    return ++*(uint32_t *)context >= 3;
}

static void a_stop_leaves_nothing(void **state)
{
    struct coded *c = *state;
    struct opened o = open_part(c);
    uint32_t pauses = 0;
    uint64_t bytes;
    float energy;
    char made[MN_PATH_MAX + 8];
    unlink(c->path);
    assert_int_equal(
        mn_ivf_write(&c->live->store, c->segment, &o.part, o.codebook, NULL, stop_at_once, &pauses, &bytes, &energy),
        MN_DEADLINE);
    assert_int_equal(pauses, 3);
    pauses = 0;
    uint32_t *assigned = calloc(ROWS, sizeof *assigned);
    assert_int_equal(mn_ivf_write(&c->live->store, c->segment, &o.part, o.codebook, assigned, stop_at_once, &pauses,
                                  &bytes, &energy),
                     MN_DEADLINE); /* half-way through the codes */
    free(assigned);
    snprintf(made, sizeof made, "%s.tmp", c->path);
    assert_int_not_equal(access(made, F_OK), 0);
    assert_int_not_equal(access(c->path, F_OK), 0);
    close_part(&o);
}

/* Whichever step fails: the file that was there is whole, or the new one is. */
static void a_failing_disk(void **state)
{
    struct coded *c = *state;
    struct opened o = open_part(c);
    struct mn_store store = c->live->store;
    struct mn_io io = fail_once_io();
    uint64_t bytes;
    float energy;
    enum mn_status status = MN_SYSTEM;
    store.io = &io;
    uint32_t failures = 0;
    for (uint32_t at = 1; status != MN_OK; at++) {
        fail_once = (struct fail_once){.fail_at = at, .status = MN_SYSTEM};
        status = mn_ivf_write(&store, c->segment, &o.part, o.codebook, NULL, NULL, NULL, &bytes, &energy);
        failures += status != MN_OK;
        struct mn_ivf_file *file;
        live_store_restart(c->live);
        assert_int_equal(live_check_codes(c->live), ROWS);
        ok(mn_ivf_open(&file, &c->live->store, c->segment, c->codebook));
        mn_ivf_close(file);
    }
    assert_true(failures >= 5);
    close_part(&o);
}

static enum mn_status no_room(const char *path, uint64_t *bytes)
{
    (void)path;
    *bytes = 1000;
    return MN_OK;
}

static void a_full_disk_is_not_filled(void **state)
{
    struct coded *c = *state;
    struct opened o = open_part(c);
    struct mn_store store = c->live->store;
    struct mn_io io = mn_io_posix;
    uint64_t bytes;
    float energy;
    io.free_bytes = no_room;
    store.io = &io;
    assert_int_equal(mn_ivf_write(&store, c->segment, &o.part, o.codebook, NULL, NULL, NULL, &bytes, &energy),
                     MN_READ_ONLY);
    assert_int_equal(live_check_codes(c->live), ROWS);
    close_part(&o);
}

/* ---- damage ---- */

/* A process that starts finds the file as it is now: the segment answers, without codes. */
static void check_refused(struct coded *c)
{
    struct mn_ivf_file *file;
    struct mn_snapshot snapshot;
    enum mn_status status = mn_ivf_open(&file, &c->live->store, c->segment, c->codebook);
    assert_true(status == MN_CORRUPT || status == MN_NOT_FOUND);
    assert_null(file);
    live_store_start(c->live);
    ok(mn_reader_pin(c->live->reader, 0, &snapshot));
    assert_int_equal(snapshot.uncoded, 1);
    assert_int_equal(snapshot.missing, 0);
    mn_reader_unpin(c->live->reader);
    assert_int_equal(live_check_codes(c->live), 0);
    live_store_stop(c->live);
}

static void damage_before_the_8_bit_codes_refuses_the_file(void **state)
{
    struct coded *c = *state;
    uint64_t length = file_length(c->path);
    struct mn_ivf_body body;
    struct mn_ivf_file *file;
    live_store_stop(c->live);
    FILE *raw = fopen(c->path, "rb");
    assert_non_null(raw);
    fseek(raw, sizeof(struct mn_column_header), SEEK_SET);
    assert_int_equal(fread(&body, sizeof body, 1, raw), 1);
    fclose(raw);
    for (uint64_t at = 0; at < sizeof(struct mn_column_header); at++) { /* each byte of the header */
        file_flip(c->path, at, 0x10);
        assert_int_equal(mn_ivf_open(&file, &c->live->store, c->segment, c->codebook), MN_CORRUPT);
        file_flip(c->path, at, 0x10);
    }
    for (uint64_t at = sizeof(struct mn_column_header); at < body.codes8_at; at += at < 600 ? 1 : 977) {
        file_flip(c->path, at, 0x10);
        assert_int_equal(mn_ivf_open(&file, &c->live->store, c->segment, c->codebook), MN_CORRUPT);
        file_flip(c->path, at, 0x10);
    }
    file_flip(c->path, length - 1, 0x10); /* the table of checksums */
    check_refused(c);
    file_flip(c->path, length - 1, 0x10);
    ok(mn_ivf_open(&file, &c->live->store, c->segment, c->codebook));
    mn_ivf_close(file);
    file_flip(c->path, body.first_slot_at + sizeof(struct mn_column_header), 0x10);
    check_refused(c);
}

static void a_file_that_is_cut_or_gone(void **state)
{
    struct coded *c = *state;
    uint64_t length = file_length(c->path);
    const uint64_t cuts[] = {length - 1, length - 70000, 300, 100, 0};
    live_store_stop(c->live);
    for (size_t i = 0; i < MN_ARRAY_LEN(cuts); i++) {
        assert_int_equal(truncate(c->path, (off_t)cuts[i]), 0);
        check_refused(c);
    }
    unlink(c->path);
    check_refused(c);
}

static void a_codebook_that_is_gone(void **state)
{
    struct coded *c = *state;
    char path[MN_PATH_MAX];
    live_store_stop(c->live);
    unlink(mn_codebook_path(&c->live->store, path, c->codebook));
    check_refused(c);
}

static void a_file_of_another_segment_or_codebook(void **state)
{
    struct coded *c = *state;
    char path[MN_PATH_MAX];
    struct mn_ivf_file *file;
    live_store_stop(c->live);
    mn_ivf_path(&c->live->store, path, c->segment, c->codebook + 1);
    uint64_t bytes;
    ok(mn_io_posix.copy(c->path, path, &bytes));
    assert_int_equal(mn_ivf_open(&file, &c->live->store, c->segment, c->codebook + 1), MN_CORRUPT);
}

/* 8-bit codes are checked when they are touched; what is found tells everybody who opens the file anew. */
static void damage_of_8_bit_codes_shows_at_first_touch(void **state)
{
    struct coded *c = *state;
    struct mn_ivf_file *file, *other;
    uint32_t bad = 0;
    live_store_stop(c->live);
    struct mn_column_file raw;
    ok(mn_column_file_map(&raw, &c->live->store, c->segment, MN_COLUMN_IVF, c->path));
    uint64_t at = ((const struct mn_ivf_body *)(const void *)raw.data)->codes8_at;
    mn_column_file_unmap(&raw);
    file_flip(c->path, sizeof(struct mn_column_header) + at + 5, 0x10);
    ok(mn_ivf_open(&file, &c->live->store, c->segment, c->codebook));
    const struct mn_ivf *ivf = mn_ivf_of(file);
    assert_true(mn_ivf_intact(ivf, ROWS - 1));
    assert_false(mn_ivf_damaged(file));
    for (uint32_t slot = 0; slot < ROWS; slot++)
        bad += !mn_ivf_intact(ivf, slot);
    assert_int_equal(bad, MN_COLUMN_BLOCK / ivf->codebook->width);
    assert_true(mn_ivf_damaged(file));
    file_flip(c->path, sizeof(struct mn_column_header) + at + 5, 0x10);
    ok(mn_ivf_open(&other, &c->live->store, c->segment, c->codebook));
    assert_ptr_not_equal(other, file);
    assert_true(mn_ivf_intact(mn_ivf_of(other), 0));
    mn_ivf_close(file);
    mn_ivf_close(other);
}

/* A reader lets go of codes in which damage was found, and takes what lies there then. */
static void a_reader_mends_itself(void **state)
{
    struct coded *c = *state;
    struct mn_snapshot snapshot;
    struct opened o = open_part(c);
    uint64_t bytes;
    float energy;
    struct mn_column_file raw;
    ok(mn_column_file_map(&raw, &c->live->store, c->segment, MN_COLUMN_IVF, c->path));
    uint64_t at = ((const struct mn_ivf_body *)(const void *)raw.data)->codes8_at;
    mn_column_file_unmap(&raw);
    file_flip(c->path, sizeof(struct mn_column_header) + at + 5, 0x10);
    for (int round = 0; round < 2; round++) { /* found, and found again in what it was opened anew */
        ok(mn_reader_pin(c->live->reader, 0, &snapshot));
        assert_int_equal(snapshot.uncoded, 0);
        assert_false(mn_ivf_intact(snapshot.parts[0].ivf, 0));
        mn_reader_unpin(c->live->reader);
    }
    ok(mn_reader_pin(c->live->reader, 0, &snapshot));
    assert_int_equal(snapshot.uncoded, 1);
    assert_null(snapshot.parts[0].ivf);
    mn_reader_unpin(c->live->reader);
    ok(mn_ivf_write(&c->live->store, c->segment, &o.part, o.codebook, NULL, NULL, NULL, &bytes, &energy));
    close_part(&o);
    live_remember(c->live, 1, 0, 10);
    live_seal(c->live); /* a new view */
    live_remember(c->live, 1, 10, 10);
    assert_int_equal(live_check_codes(c->live), ROWS);
    ok(mn_reader_pin(c->live->reader, 0, &snapshot));
    assert_int_equal(snapshot.uncoded, 0);
    mn_reader_unpin(c->live->reader);
    live_check(c->live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_row_once_and_rightly, setup, teardown),
        cmocka_unit_test_setup_teardown(one_mapping_for_all_users, setup, teardown),
        cmocka_unit_test_setup_teardown(known_clusters_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_that_cannot_be_read_are_far, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failing_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_is_not_filled, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_before_the_8_bit_codes_refuses_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_cut_or_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(a_codebook_that_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_of_another_segment_or_codebook, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_of_8_bit_codes_shows_at_first_touch, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reader_mends_itself, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
