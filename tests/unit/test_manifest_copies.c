/*
 * test_manifest_copies.c - the two copies of MANIFEST: one is enough, whatever becomes of the other, and the other is
 * made whole again.
 */
#include "tests/unit/manifest_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* What looks unfinished where nothing was being written was whole once. */
static void an_end_that_no_append_leaves(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest m;
    struct mn_manifest_report report;
    uint8_t *data;
    manifest_fresh(f, 4, 3);
    size_t bytes = manifest_slurp(f, &data), edit = bytes / 4;
    const size_t first[] = {bytes - 1, bytes - edit / 2 + 1, bytes - edit + 1};
    for (size_t i = 0; i < MN_ARRAY_LEN(first); i++) {
        manifest_put(f, data, bytes);
        manifest_put_file(f->path, data, first[i]); /* the second copy has what is cut off here */
        ok(mn_manifest_read(&m, &f->store, &report));
        mn_manifest_free(&m);
        assert_true(report.copies[0].damaged_edits > 0);
    }
    /* Nor does any flip in the last frame look like one, though it may make the frame longer than the file. */
    for (size_t bit = (bytes - edit / 2) * 8; bit < bytes * 8; bit++) {
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        manifest_put_file(f->copy, data, bytes);
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ok(mn_manifest_read(&m, &f->store, &report));
        mn_manifest_free(&m);
        assert_true(report.copies[1].damaged_edits > 0);
    }
    uint8_t *longer = calloc(1, bytes + 1);
    memcpy(longer, data, bytes);
    manifest_put(f, data, bytes);
    manifest_put_file(f->copy, longer, bytes + 1);
    ok(mn_manifest_read(&m, &f->store, &report));
    mn_manifest_free(&m);
    assert_true(report.copies[1].damaged_edits > 0);
    free(longer);
    free(data);
}

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
    manifest_put_file(path, changed,
                      harm == HARM_EMPTY ? 0
                      : harm == HARM_CUT ? bytes / 2
                      : harm == HARM_OLD ? bytes / 5 * 2
                                         : bytes);
    if (harm == HARM_GONE)
        unlink(path);
    free(changed);
}

static uint32_t notes(const struct manifest_store *f)
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
    struct manifest_store *f = *state;
    struct mn_manifest_report report;
    uint8_t *data;
    manifest_fresh(f, 5, 3);
    size_t bytes = manifest_slurp(f, &data);
    notes(f);
    for (uint32_t copy = 0; copy < MN_MANIFEST_COPIES; copy++) {
        for (enum harm harm = 0; harm < HARM_COUNT; harm++) {
            manifest_put(f, data, bytes);
            harm_file(copy == 0 ? f->path : f->copy, harm, data, bytes);
            manifest_expect_read(f, &report, 5, 3);
            assert_false(manifest_copy_sound(&report.copies[copy]));
            assert_true(manifest_copy_sound(&report.copies[1 - copy]));
            mn_manifest_mend(&f->store);
            assert_int_equal(notes(f), 1);
            manifest_expect_read(f, &report, 5, 3);
            manifest_expect_report(&report, 0, 0);
        }
    }
    free(data);
}

/* An append without a mend in between: the copy that was harmed is made anew by it. */
static void an_append_mends_too(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest_report report;
    uint8_t *data;
    manifest_fresh(f, 5, 3);
    size_t bytes = manifest_slurp(f, &data);
    for (enum harm harm = 0; harm < 2 * HARM_COUNT; harm++) {
        manifest_put(f, data, bytes);
        harm_file(harm < HARM_COUNT ? f->path : f->copy, harm % HARM_COUNT, data, bytes);
        manifest_append(f, 5, 4);
        manifest_expect_read(f, &report, 6, 4);
        manifest_expect_report(&report, 0, 0);
    }
    free(data);
}

/* The writer died between the two, or in the second: that is no damage, and leaves no note. */
static void a_crash_between_the_copies(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest_report report;
    uint8_t *data;
    struct stat st;
    for (uint64_t edits = 0; edits < 5; edits += 4) {
        manifest_fresh(f, edits, 3);
        size_t before = stat(f->copy, &st) == 0 ? (size_t)st.st_size : 0;
        manifest_append(f, edits, 3);
        size_t bytes = manifest_slurp(f, &data);
        for (size_t cut = before; cut < bytes; cut += 31) {
            manifest_put(f, data, bytes);
            if (cut == 0)
                unlink(f->copy); /* the first edit makes the file, whole or not at all */
            else if (edits > 0)
                manifest_put_file(f->copy, data, cut);
            manifest_expect_read(f, &report, edits + 1, 3);
            mn_manifest_mend(&f->store);
            assert_int_equal(notes(f), 0);
            manifest_expect_read(f, &report, edits + 1, 3);
            manifest_expect_report(&report, 0, 0);
        }
        free(data);
    }
}

/* ---- one copy that cannot be written ---- */

/* Whichever it is, and whatever stands there: the manifest is alone until both are whole. */
static void a_copy_that_cannot_be_made_is_made_later(void **state)
{
    struct manifest_store *f = *state;
    struct mn_manifest_report report;
    char in_the_way[MN_PATH_MAX + 8];
    uint8_t *data;
    manifest_fresh(f, 5, 3);
    size_t bytes = manifest_slurp(f, &data);
    for (enum harm harm = 0; harm < 2 * HARM_COUNT; harm++) {
        struct mn_manifest m;
        const char *path = harm < HARM_COUNT ? f->path : f->copy;
        manifest_put(f, data, bytes);
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
        manifest_expect_report(&report, 0, 0);
        mn_manifest_free(&m);
    }
    assert_int_equal(notes(f), 0);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_copy_is_enough),
        cmocka_unit_test(an_end_that_no_append_leaves),
        cmocka_unit_test(an_append_mends_too),
        cmocka_unit_test(a_crash_between_the_copies),
        cmocka_unit_test(a_copy_that_cannot_be_made_is_made_later),
    };
    return cmocka_run_group_tests(tests, manifest_setup, manifest_teardown);
}
