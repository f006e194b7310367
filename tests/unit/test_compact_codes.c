/*
 * test_compact_codes.c - the life of codes: the first codebook, merges, files that nobody needs any more, copies.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/ivf_file.h"
#include "engine/read.h"
#include "engine/snapshot.h"
#include "engine/verify.h"
#include "tests/unit/live_codes.h"

/* ---- the first codebook ---- */

static void the_first_codebook_comes_with_rows(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_care care;
    live_add_segment(s, 0, 0, 200);
    assert_int_equal(live_codebook(s), 0);
    assert_false(live_care(s, &care));
    assert_int_equal(live_check_codes(s), 0);
    live_add_segment(s, 0, 200, 150); /* 350 rows: the build trains */
    assert_int_equal(live_codebook(s), 1);
    assert_int_equal(live_check_codes(s), 150);
    assert_true(live_care(s, &care)); /* what was there before gets codes now */
    assert_int_equal(live_check_codes(s), 350);
    assert_int_equal(live_care_all(s), 0);
    live_all_on(s, 1);
    live_store_restart(s);
    assert_int_equal(live_check_codes(s), 350);
}

/* A store from before there were codes. */
static void care_trains_what_no_build_has(void **state)
{
    struct live_store *s = *state;
    s->policy.codebook_rows_min = 0;
    live_add_segment(s, 0, 0, 400);
    live_add_segment(s, 1, 0, 200);
    assert_int_equal(live_codebook(s), 0);
    struct mn_compact_care care;
    assert_false(live_care(s, &care));
    s->policy.codebook_rows_min = 300;
    assert_int_equal(live_care_all(s), 3); /* the codebook, and two segments */
    live_all_on(s, 1);
    assert_int_equal(live_check_codes(s), 600);
}

static void codes_that_are_not_wanted_any_more(void **state)
{
    struct live_store *s = *state;
    live_add_segment(s, 0, 0, 400);
    live_add_segment(s, 1, 0, 200);
    struct mn_manifest m = live_manifest(s);
    uint64_t bytes = m.segments[0].bytes, first = m.segments[0].id;
    mn_manifest_free(&m);
    s->policy.codebook_rows_min = 0;
    assert_int_equal(live_care_all(s), 1);
    assert_int_equal(live_check_codes(s), 0);
    m = live_manifest(s);
    assert_int_equal(m.codebook, 1); /* no generation is given twice */
    for (uint32_t i = 0; i < m.segment_count; i++)
        assert_true(m.segments[i].codebook == 0 && (m.segments[i].id != first || m.segments[i].bytes < bytes));
    mn_manifest_free(&m);
    live_store_restart(s);
    assert_false(live_ivf_there(s, first, 1));
    s->policy.codebook_rows_min = 300;
    assert_int_equal(live_care_all(s), 2);
    live_all_on(s, 1);
    m = live_manifest(s);
    assert_int_equal(m.segments[0].bytes, bytes);
    mn_manifest_free(&m);
    assert_int_equal(live_check_codes(s), 600);
}

static void small_segments_have_no_codes(void **state)
{
    struct live_store *s = *state;
    live_add_segment(s, 0, 0, 400);
    live_add_segment(s, 1, 0, MN_IVF_ROWS_MIN - 1);
    assert_int_equal(live_check_codes(s), 400);
    assert_int_equal(live_care_all(s), 0);
    assert_int_equal(live_uncoded(s), 0);
}

/* ---- merges ---- */

static uint32_t cluster_of(struct live_store *s, uint32_t space, uint32_t id)
{
    static const char *const names[LIVE_SPACES] = {"agents", "notes", "agents/inner"};
    struct mn_snapshot snapshot;
    struct mn_id key = {.lo = id};
    ok(mn_reader_pin(s->reader, 0, &snapshot));
    struct mn_row_ref ref =
        mn_read_find(&snapshot, (struct mn_str){names[space], (uint32_t)strlen(names[space])}, &key);
    const struct mn_part *part = &snapshot.parts[ref.part];
    uint32_t *clusters = calloc(part->rows, sizeof *clusters);
    mn_ivf_clusters(part->ivf, clusters);
    uint32_t cluster = clusters[ref.row];
    free(clusters);
    mn_reader_unpin(s->reader);
    return cluster;
}

static void merges_keep_clusters(void **state)
{
    struct live_store *s = *state;
    uint32_t before[600];
    live_add_segment(s, 0, 0, 400);
    live_add_segment(s, 0, 400, 200);
    for (uint32_t id = 0; id < 600; id++)
        before[id] = cluster_of(s, 0, id);
    s->policy.fanout = 2;
    live_add_segment(s, 1, 0, 250);
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.segment_count, 1);
    mn_manifest_free(&m);
    for (uint32_t id = 0; id < 600; id++)
        assert_int_equal(cluster_of(s, 0, id), before[id]);
    assert_int_equal(live_check_codes(s), 850);
}

/* ---- what is left over ---- */

static void put_file(const struct live_store *s, const char *name)
{
    char path[MN_PATH_MAX];
    int fd = open(mn_store_path(&s->store, path, name), O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static bool file_there(const struct live_store *s, const char *name)
{
    char path[MN_PATH_MAX];
    return file_exists(mn_store_path(&s->store, path, name));
}

static void sweep_removes_what_nobody_needs(void **state)
{
    struct live_store *s = *state;
    char name[4][64];
    live_add_segment(s, 0, 0, 400);
    unsigned long long id = live_only_segment(s);
    snprintf(name[0], sizeof name[0], "columns/%llu/ivf.7.col", id);
    snprintf(name[1], sizeof name[1], "columns/%llu/ivf.1.col.tmp", id);
    snprintf(name[2], sizeof name[2], "columns/%llu/ivf.x.col", id);
    for (int n = 0; n < 3; n++)
        put_file(s, name[n]);
    put_file(s, "codebooks/2.col.tmp");
    put_file(s, "codebooks/5.col");
    put_file(s, "codebooks/notes");
    ok(mn_compactor_sweep(s->compactor));
    assert_false(file_there(s, name[0]) || file_there(s, name[1]));
    assert_false(file_there(s, "codebooks/2.col.tmp") || file_there(s, "codebooks/5.col"));
    assert_true(file_there(s, name[2]) && file_there(s, "codebooks/notes")); /* not ours */
    assert_int_equal(live_check_codes(s), 400);
}

static void purged_rows_take_their_codes_along(void **state)
{
    struct live_store *s = *state;
    live_add_segment(s, 0, 0, 400);
    uint64_t before = live_only_segment(s);
    live_forget(s, 0, 7, MN_FORGET_PURGE);
    live_seal(s);
    assert_true(live_compact(s, true));
    live_check(s);
    assert_int_equal(live_check_codes(s), 399);
    for (int i = 0; i < 500 && live_ivf_there(s, before, 1); i++) {
        live_tend(s);
        usleep(10000);
    }
    assert_false(live_ivf_there(s, before, 1));
}

/* ---- proposals that move no rows ---- */

static void stale_care_is_refused(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_proposal proposal, received;
    struct mn_compact_care care;
    s->policy.codebook_rows_min = 0;
    live_add_segment(s, 0, 0, 400);
    s->policy.codebook_rows_min = 300;
    ok(mn_compact_care_for(s->compactor, &s->policy, NULL, NULL, &proposal, &care));
    assert_true(care.worth);
    assert_int_equal(proposal.map_count + proposal.output_count, 0);
    live_add_segment(s, 1, 0, 150); /* trains one itself */
    ok(mn_compact_proposal_write(&proposal, &s->instance, "proposal"));
    ok(mn_compact_proposal_read(&received, &s->instance, "proposal"));
    assert_int_equal(mn_writer_commit_proposal(s->writer, &received), MN_VERSION_MISMATCH);
    unlinkat(s->instance.dir_fd, "proposal", 0);
    mn_compact_proposal_free(&received);
    mn_compact_proposal_free(&proposal);
    live_care_all(s);
    live_check(s);
    assert_int_equal(live_check_codes(s), 550);
}

/* Marks that come while a segment is coded are in its liveness, which stays where it is. */
static void marks_stay_while_a_segment_is_coded(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_proposal proposal;
    struct mn_compact_care care;
    s->policy.codebook_rows_min = 0;
    live_add_segment(s, 0, 0, 400);
    s->policy.codebook_rows_min = 300;
    for (uint32_t step = 0; step < 2; step++) {
        ok(mn_compact_care_for(s->compactor, &s->policy, NULL, NULL, &proposal, &care));
        for (uint32_t id = step; id < 400; id += 9)
            live_forget(s, 0, id, id % 2 ? MN_FORGET_DELETE : MN_FORGET_SUPPRESS);
        live_commit(s, &proposal);
        mn_compact_proposal_free(&proposal);
        live_check(s);
    }
    assert_int_equal(live_check_codes(s), 400);
    live_store_restart(s);
    live_check(s);
}

/* ---- copies ---- */

struct found {
    uint32_t count;
    char path[256];
};

static void note_damage(void *context, const char *path, const char *what)
{
    struct found *found = context;
    (void)what;
    found->count++;
    snprintf(found->path, sizeof found->path, "%s", path);
}

static void verify(struct live_store *s, struct found *found)
{
    struct mn_verify_result result;
    *found = (struct found){0};
    ok(mn_verify(&s->store, atomic_load(&s->instance.control->durable_seq), note_damage, NULL, found, &result));
}

static void verify_knows_codes(void **state)
{
    struct live_store *s = *state;
    struct found found;
    char path[MN_PATH_MAX];
    live_add_segment(s, 0, 0, 400);
    verify(s, &found);
    assert_int_equal(found.count, 0);
    mn_ivf_path(&s->store, path, live_only_segment(s), 1);
    file_flip(path, -3000, 4);
    verify(s, &found);
    assert_int_equal(found.count, 1);
    assert_string_equal(found.path, path);
    unlink(path);
    verify(s, &found);
    assert_int_equal(found.count, 1);
    live_store_restart(s);
    live_care_all(s);
    verify(s, &found);
    assert_int_equal(found.count, 0);
    file_flip(mn_codebook_path(&s->store, path, 1), 5000, 4);
    verify(s, &found);
    assert_int_equal(found.count, 1);
    assert_string_equal(found.path, path);
    put_file(s, "codebooks/9.col"); /* nobody's */
    file_flip(path, 5000, 4);
    verify(s, &found);
    assert_int_equal(found.count, 0);
}

static void copies_take_codes_along(void **state)
{
    struct live_store *s = *state;
    struct mn_copy_result result;
    char copy[128], restored[128], path[MN_PATH_MAX], name[96];
    live_add_segment(s, 0, 0, 400);
    unsigned long long id = live_only_segment(s);
    snprintf(name, sizeof name, "columns/%llu/ivf.6.col", id); /* not the manifest's */
    put_file(s, name);
    put_file(s, "codebooks/6.col");
    snprintf(copy, sizeof copy, "%s-copy", s->dir);
    snprintf(restored, sizeof restored, "%s-restored", s->dir);
    ok(mn_snapshot_make(&s->store, &s->instance, copy, NULL, NULL, &result));
    snprintf(path, sizeof path, "%s/%s", copy, name);
    assert_false(file_exists(path));
    snprintf(path, sizeof path, "%s/codebooks/6.col", copy);
    assert_false(file_exists(path));
    for (int damaged = 0; damaged < 2; damaged++) {
        snprintf(path, sizeof path, "%s/columns/%llu/ivf.1.col", copy, id);
        if (damaged)
            file_flip(path, 300, 4);
        ok(mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = copy, .dir = restored}, &result));
        struct live_store *other = live_store_open(restored);
        memcpy(other->model, s->model, sizeof s->model);
        live_check(other);
        assert_int_equal(live_check_codes(other), damaged ? 0 : 400);
        assert_int_equal(live_care_all(other), damaged);
        assert_int_equal(live_check_codes(other), 400);
        live_store_free(other);
    }
    ok(mn_io_remove_tree(&mn_io_posix, copy));
}

#define test(name) cmocka_unit_test_setup_teardown(name, live_codes_setup, live_codes_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(the_first_codebook_comes_with_rows),
        test(care_trains_what_no_build_has),
        test(codes_that_are_not_wanted_any_more),
        test(small_segments_have_no_codes),
        test(merges_keep_clusters),
        test(sweep_removes_what_nobody_needs),
        test(purged_rows_take_their_codes_along),
        test(stale_care_is_refused),
        test(marks_stay_while_a_segment_is_coded),
        test(verify_knows_codes),
        test(copies_take_codes_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
