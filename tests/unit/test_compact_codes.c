/*
 * test_compact_codes.c - the life of codes: the first codebook, merges, damage, a codebook that is outgrown, files that
 * nobody needs any more.
 */
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/ivf_file.h"
#include "engine/read.h"
#include "engine/snapshot.h"
#include "engine/tune.h"
#include "engine/verify.h"
#include "shm/process.h"
#include "tests/unit/live_store.h"

static int setup(void **state)
{
    struct live_store *s = live_store_new();
    s->policy.fanout = 64; /* no merges but those asked for */
    *state = s;
    return s ? 0 : -1;
}

static int teardown(void **state)
{
    live_store_free(*state);
    return 0;
}

/* A new column segment of `count` memories. */
static void add_segment(struct live_store *s, uint32_t space, uint32_t id, uint32_t count)
{
    live_remember(s, space, id, count);
    live_seal(s);
    assert_true(live_compact(s, false));
}

/* Care until there is nothing left to do; how many steps it took, calibrations not counted. */
static uint32_t care_all(struct live_store *s)
{
    struct mn_compact_care care;
    uint32_t steps = 0;
    while (live_care(s, &care)) {
        live_check(s);
        steps += !care.tuned;
        assert_true(steps < 100);
    }
    assert_true(care.sound);
    return steps;
}

static uint64_t codebook(struct live_store *s)
{
    struct mn_manifest m = live_manifest(s);
    uint64_t gen = m.codebook;
    mn_manifest_free(&m);
    return gen;
}

/* Every segment is on this codebook. */
static void all_on(struct live_store *s, uint64_t gen)
{
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.codebook, gen);
    for (uint32_t i = 0; i < m.segment_count; i++)
        assert_int_equal(m.segments[i].codebook, gen);
    mn_manifest_free(&m);
}

static bool ivf_there(const struct live_store *s, uint64_t segment, uint64_t gen)
{
    char path[MN_PATH_MAX];
    return file_exists(mn_ivf_path(&s->store, path, segment, gen));
}

static bool codebook_there(const struct live_store *s, uint64_t gen)
{
    char path[MN_PATH_MAX];
    return file_exists(mn_codebook_path(&s->store, path, gen));
}

static uint64_t only_segment(struct live_store *s)
{
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.segment_count, 1);
    uint64_t id = m.segments[0].id;
    mn_manifest_free(&m);
    return id;
}

static uint32_t uncoded(struct live_store *s)
{
    struct mn_snapshot snapshot;
    ok(mn_reader_pin(s->reader, 0, &snapshot));
    mn_reader_unpin(s->reader);
    return snapshot.uncoded;
}

/* ---- the first codebook ---- */

static void the_first_codebook_comes_with_rows(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_care care;
    add_segment(s, 0, 0, 200);
    assert_int_equal(codebook(s), 0);
    assert_false(live_care(s, &care));
    assert_int_equal(live_check_codes(s), 0);
    add_segment(s, 0, 200, 150); /* 350 rows: the build trains */
    assert_int_equal(codebook(s), 1);
    assert_int_equal(live_check_codes(s), 150);
    assert_true(live_care(s, &care)); /* what was there before gets codes now */
    assert_int_equal(live_check_codes(s), 350);
    assert_int_equal(care_all(s), 0);
    all_on(s, 1);
    live_store_restart(s);
    assert_int_equal(live_check_codes(s), 350);
}

/* A store from before there were codes. */
static void care_trains_what_no_build_has(void **state)
{
    struct live_store *s = *state;
    s->policy.codebook_rows_min = 0;
    add_segment(s, 0, 0, 400);
    add_segment(s, 1, 0, 200);
    assert_int_equal(codebook(s), 0);
    struct mn_compact_care care;
    assert_false(live_care(s, &care));
    s->policy.codebook_rows_min = 300;
    assert_int_equal(care_all(s), 3); /* the codebook, and two segments */
    all_on(s, 1);
    assert_int_equal(live_check_codes(s), 600);
}

static void codes_that_are_not_wanted_any_more(void **state)
{
    struct live_store *s = *state;
    add_segment(s, 0, 0, 400);
    add_segment(s, 1, 0, 200);
    struct mn_manifest m = live_manifest(s);
    uint64_t bytes = m.segments[0].bytes, first = m.segments[0].id;
    mn_manifest_free(&m);
    s->policy.codebook_rows_min = 0;
    assert_int_equal(care_all(s), 1);
    assert_int_equal(live_check_codes(s), 0);
    m = live_manifest(s);
    assert_int_equal(m.codebook, 1); /* no generation is given twice */
    for (uint32_t i = 0; i < m.segment_count; i++)
        assert_true(m.segments[i].codebook == 0 && (m.segments[i].id != first || m.segments[i].bytes < bytes));
    mn_manifest_free(&m);
    live_store_restart(s);
    assert_false(ivf_there(s, first, 1));
    s->policy.codebook_rows_min = 300;
    assert_int_equal(care_all(s), 2);
    all_on(s, 1);
    m = live_manifest(s);
    assert_int_equal(m.segments[0].bytes, bytes);
    mn_manifest_free(&m);
    assert_int_equal(live_check_codes(s), 600);
}

static void small_segments_have_no_codes(void **state)
{
    struct live_store *s = *state;
    add_segment(s, 0, 0, 400);
    add_segment(s, 1, 0, MN_IVF_ROWS_MIN - 1);
    assert_int_equal(live_check_codes(s), 400);
    assert_int_equal(care_all(s), 0);
    assert_int_equal(uncoded(s), 0);
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
    add_segment(s, 0, 0, 400);
    add_segment(s, 0, 400, 200);
    for (uint32_t id = 0; id < 600; id++)
        before[id] = cluster_of(s, 0, id);
    s->policy.fanout = 2;
    add_segment(s, 1, 0, 250);
    struct mn_manifest m = live_manifest(s);
    assert_int_equal(m.segment_count, 1);
    mn_manifest_free(&m);
    for (uint32_t id = 0; id < 600; id++)
        assert_int_equal(cluster_of(s, 0, id), before[id]);
    assert_int_equal(live_check_codes(s), 850);
}

/* ---- damage ---- */

static void lost_and_damaged_files_are_made_anew(void **state)
{
    struct live_store *s = *state;
    char path[MN_PATH_MAX];
    add_segment(s, 0, 0, 400);
    uint64_t segment = only_segment(s);
    mn_ivf_path(&s->store, path, segment, 1);
    for (int damage = 0; damage < 3; damage++) {
        live_store_stop(s);
        if (damage == 0)
            unlink(path);
        else
            file_flip(path, damage == 1 ? 100 : 20000, 4);
        live_store_start(s);
        assert_int_equal(uncoded(s), 1);
        assert_int_equal(live_check_codes(s), 0);
        live_check(s);
        struct mn_compact_care care;
        assert_true(live_care(s, &care));
        assert_false(care.sound);
        assert_int_equal(care.segment, segment);
        assert_int_equal(uncoded(s), 0);
        assert_int_equal(live_check_codes(s), 400);
        assert_int_equal(care_all(s), 0);
    }
}

/* Damage in 8-bit codes that the compactor itself has not touched: told by a doubt. */
static void doubts_are_looked_into(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_care care;
    char path[MN_PATH_MAX];
    add_segment(s, 0, 0, 400);
    mn_ivf_path(&s->store, path, only_segment(s), 1);
    care_all(s);
    ok(mn_compact_doubt(s->compactor, 0));
    assert_false(live_care(s, &care)); /* all is well */
    file_flip(path, -3000, 4);
    assert_false(live_care(s, &care)); /* nobody has told */
    ok(mn_compact_doubt(s->compactor, 0));
    ok(mn_compact_doubt(s->compactor, only_segment(s)));
    assert_true(live_care(s, &care));
    assert_false(care.sound);
    assert_int_equal(care_all(s), 0);
    struct mn_ivf_file *file; /* a process that starts */
    live_store_stop(s);
    ok(mn_ivf_open(&file, &s->store, care.segment, 1));
    for (uint32_t slot = 0; slot < 400; slot++)
        assert_true(mn_ivf_intact(mn_ivf_of(file), slot));
    mn_ivf_close(file);
    live_store_start(s);
}

static void a_lost_codebook_is_followed_by_a_new_one(void **state)
{
    struct live_store *s = *state;
    char path[MN_PATH_MAX];
    add_segment(s, 0, 0, 400);
    add_segment(s, 1, 0, 200);
    for (uint64_t gen = 1; gen <= 2; gen++) {
        live_store_stop(s);
        mn_codebook_path(&s->store, path, gen);
        if (gen == 1)
            unlink(path);
        else
            file_flip(path, 3000, 4);
        live_store_start(s);
        assert_int_equal(live_check_codes(s), 0);
        live_check(s);
        assert_int_equal(care_all(s), 3);
        all_on(s, gen + 1);
        assert_int_equal(live_check_codes(s), 600);
    }
    file_flip(mn_codebook_path(&s->store, path, 3), -2, 4); /* while it is in use: found by looking */
    ok(mn_compact_doubt(s->compactor, 0));
    assert_int_equal(care_all(s), 3);
    all_on(s, 4);
}

/* A build that meets a damaged codebook frees the log all the same. */
static void a_build_without_its_codebook(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_proposal proposal;
    char path[MN_PATH_MAX];
    add_segment(s, 0, 0, 400);
    live_store_stop(s);
    file_flip(mn_codebook_path(&s->store, path, 1), 3000, 4);
    live_store_start(s);
    live_remember(s, 1, 0, 200);
    live_seal(s);
    live_build(s, false, &proposal);
    assert_int_equal(proposal.code_failures, 1);
    assert_non_null(strstr(proposal.code_failure, "codebooks/1.col"));
    live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    live_check(s);
    assert_true(care_all(s) > 0);
    assert_int_equal(live_check_codes(s), 600);
}

static enum mn_status open_no_codes(const char *path, int flags, int *fd)
{
    if ((flags & MN_IO_CREATE) && (strstr(path, "/ivf.") || strstr(path, "/codebooks/")))
        return MN_FAIL(MN_READ_ONLY, "no room for %s", path);
    return mn_io_posix.open(path, flags, fd);
}

/* A disk that takes everything but codes. */
static void codes_never_keep_the_log_waiting(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_proposal proposal;
    struct mn_compact_care care;
    struct mn_io io = mn_io_posix;
    struct mn_store failing = s->store;
    io.open = open_no_codes;
    failing.io = &io;
    mn_compactor_close(s->compactor);
    ok(mn_compactor_open(&s->compactor, &failing, &s->instance));
    live_remember(s, 0, 0, 400);
    live_seal(s);
    live_build(s, false, &proposal); /* no codebook */
    assert_int_equal(proposal.code_failures, 1);
    live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    assert_int_equal(codebook(s), 0);
    assert_int_equal(mn_compact_care_for(s->compactor, &s->policy, NULL, NULL, &proposal, &care), MN_READ_ONLY);
    mn_compactor_close(s->compactor);
    ok(mn_compactor_open(&s->compactor, &s->store, &s->instance));
    care_all(s);
    mn_compactor_close(s->compactor);
    ok(mn_compactor_open(&s->compactor, &failing, &s->instance));
    live_remember(s, 1, 0, 200);
    live_seal(s);
    live_build(s, false, &proposal); /* a codebook, but no inverted file */
    assert_int_equal(proposal.code_failures, 1);
    assert_int_equal(proposal.rows_coded, 0);
    live_commit(s, &proposal);
    mn_compact_proposal_free(&proposal);
    assert_int_equal(live_check_codes(s), 400);
    mn_compactor_close(s->compactor);
    ok(mn_compactor_open(&s->compactor, &s->store, &s->instance));
    assert_int_equal(care_all(s), 1);
    assert_int_equal(live_check_codes(s), 600);
}

struct stop {
    uint32_t passes, at;
};

static bool stop_at(void *context)
{
    struct stop *stop = context;
    return ++stop->passes >= stop->at;
}

/* Wherever a stop comes, nothing is left but what a sweep finds. */
static void care_can_be_stopped(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_proposal proposal;
    struct mn_compact_care care;
    s->policy.codebook_rows_min = 0;
    add_segment(s, 0, 0, 1000);
    s->policy.codebook_rows_min = 300;
    for (int step = 0; step < 2; step++) {
        enum mn_status status = MN_DEADLINE;
        for (uint32_t at = 1; status == MN_DEADLINE; at++) {
            struct stop stop = {.at = at};
            status = mn_compact_care_for(s->compactor, &s->policy, stop_at, &stop, &proposal, &care);
            if (status == MN_OK && stop.passes >= at) /* the last pause was after the work */
                status = MN_DEADLINE;
            if (status == MN_OK) {
                assert_true(care.worth);
                live_commit(s, &proposal);
            }
            mn_compact_proposal_free(&proposal);
        }
        ok(status);
    }
    ok(mn_compactor_sweep(s->compactor));
    assert_int_equal(live_check_codes(s), 1000);
    assert_int_equal(care_all(s), 0);
}

/* ---- outgrown ---- */

static void four_times_the_rows_ask_for_a_new_codebook(void **state)
{
    struct live_store *s = *state;
    add_segment(s, 0, 0, 300);
    add_segment(s, 0, 300, 300);
    add_segment(s, 0, 600, 300);
    assert_int_equal(care_all(s), 0);
    all_on(s, 1);
    add_segment(s, 0, 900, 300);
    struct mn_manifest m = live_manifest(s);
    uint64_t first = m.segments[0].id;
    mn_manifest_free(&m);
    struct mn_snapshot pinned; /* a reader that takes its time */
    struct mn_reader *slow;
    ok(mn_reader_open(&slow, &s->store, &s->instance));
    ok(mn_reader_pin(slow, 0, &pinned));
    assert_int_equal(care_all(s), 5); /* the codebook, and four segments, one by one */
    all_on(s, 2);
    assert_int_equal(live_check_codes(s), 1200);
    assert_true(ivf_there(s, first, 1)); /* its view still names it */
    assert_true(codebook_there(s, 1));
    for (uint32_t p = 0; p < pinned.part_count; p++)
        if (!pinned.parts[p].tail)
            assert_int_equal(pinned.parts[p].ivf->codebook->gen, 1);
    mn_reader_unpin(slow);
    mn_reader_close(slow);
    live_tend(s);
    for (int i = 0; i < 500 && ivf_there(s, first, 1); i++) {
        live_tend(s);
        usleep(10000);
        assert_int_equal(care_all(s), 0);
    }
    assert_false(ivf_there(s, first, 1));
    assert_true(ivf_there(s, first, 2));
    assert_true(codebook_there(s, 1)); /* codes of the tail may be on it */
    live_store_restart(s);
    assert_int_equal(live_check_codes(s), 1200);
    assert_int_equal(care_all(s), 0);
}

/* Rows unlike those that the codebook knows: residuals grow. */
static void strange_rows_ask_for_a_new_codebook(void **state)
{
    struct live_store *s = *state;
    add_segment(s, 0, 0, 400);
    assert_int_equal(care_all(s), 0);
    s->next_version = LIVE_STRANGE;
    add_segment(s, 1, 0, 250);
    assert_int_equal(care_all(s), 3);
    all_on(s, 2);
}

/* Most new rows are alike: one cluster takes them all. */
static void skewed_clusters_ask_for_a_new_codebook(void **state)
{
    struct live_store *s = *state;
    add_segment(s, 0, 0, 600);
    assert_int_equal(care_all(s), 0);
    s->next_version = LIVE_ALIKE;
    add_segment(s, 1, 0, 400);
    assert_int_equal(care_all(s), 3);
    all_on(s, 2);
    assert_int_equal(care_all(s), 0); /* as skewed as before, and no more rows: the same again would help nobody */
}

/* The same few embeddings over and over: every row is its cluster's centroid, but for rounding. */
static void one_codebook_is_enough(struct live_store *s, uint32_t version)
{
    s->next_version = version;
    add_segment(s, 0, 0, 500);
    assert_int_equal(care_all(s), 0);
    add_segment(s, 1, 0, 500);
    add_segment(s, 2, 0, 200);
    assert_int_equal(care_all(s), 0);
    all_on(s, 1);
}

static void seven_embeddings_over_and_over(void **state)
{
    one_codebook_is_enough(*state, LIVE_SEVEN);
}

static void one_embedding_over_and_over(void **state)
{
    one_codebook_is_enough(*state, LIVE_ONE);
}

/* ---- calibration ---- */

static struct mn_tuning tuning(struct live_store *s)
{
    struct mn_tuning t;
    struct mn_manifest m = live_manifest(s);
    assert_memory_equal((const void *)s->instance.control->tuning, m.tuning, sizeof m.tuning);
    memcpy(&t, m.tuning, sizeof t);
    mn_manifest_free(&m);
    return t;
}

static void recall_is_calibrated_when_the_store_changes(void **state)
{
    struct live_store *s = *state;
    add_segment(s, 0, 0, 1200);
    assert_true(tuning(s).rows == 0);
    care_all(s);
    assert_true(tuning(s).rows == 1200 && tuning(s).nearness[0] > 0);
    struct mn_compact_care care;
    assert_false(live_care(s, &care));
    add_segment(s, 0, 1200, 200);
    care_all(s);
    assert_true(tuning(s).rows == 1200); /* not enough has changed */
    add_segment(s, 0, 1400, 200);
    care_all(s);
    assert_true(tuning(s).rows == 1600);
    live_store_restart(s);
    assert_true(tuning(s).rows == 1600);
    assert_false(live_care(s, &care));
    s->next_version = LIVE_STRANGE;
    add_segment(s, 1, 0, 1000);
    add_segment(s, 1, 1000, 300);
    care_all(s);
    assert_true(codebook(s) > 1);
    assert_true(tuning(s).rows == 2900);
}

/* Twice the clusters are half as large: by the rule of the old ones recall would miss its target until it is calibrated
 * anew, which may take minutes where recall is busy. */
static void a_new_codebook_takes_the_rule_along(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_care care;
    add_segment(s, 0, 0, 1100);
    care_all(s);
    struct mn_tuning before = tuning(s);
    uint64_t gen = codebook(s);
    add_segment(s, 1, 0, 1500);
    add_segment(s, 2, 0, 1500);
    add_segment(s, 0, 1100, 400);
    while (codebook(s) == gen)
        assert_true(live_care(s, &care));
    struct mn_tuning after = tuning(s);
    assert_true(before.rows > 0 && after.rows == 0);
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++)
        assert_true(before.stop[i] < INFINITY ? after.stop[i] > before.stop[i] + 0.1f : after.stop[i] == INFINITY);
    assert_true(before.stop[0] < INFINITY);
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
    add_segment(s, 0, 0, 400);
    unsigned long long id = only_segment(s);
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
    add_segment(s, 0, 0, 400);
    uint64_t before = only_segment(s);
    live_forget(s, 0, 7, MN_FORGET_PURGE);
    live_seal(s);
    assert_true(live_compact(s, true));
    live_check(s);
    assert_int_equal(live_check_codes(s), 399);
    for (int i = 0; i < 500 && ivf_there(s, before, 1); i++) {
        live_tend(s);
        usleep(10000);
    }
    assert_false(ivf_there(s, before, 1));
}

/* ---- proposals that move no rows ---- */

static void stale_care_is_refused(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_proposal proposal, received;
    struct mn_compact_care care;
    s->policy.codebook_rows_min = 0;
    add_segment(s, 0, 0, 400);
    s->policy.codebook_rows_min = 300;
    ok(mn_compact_care_for(s->compactor, &s->policy, NULL, NULL, &proposal, &care));
    assert_true(care.worth);
    assert_int_equal(proposal.map_count + proposal.output_count, 0);
    add_segment(s, 1, 0, 150); /* trains one itself */
    ok(mn_compact_proposal_write(&proposal, &s->instance, "proposal"));
    ok(mn_compact_proposal_read(&received, &s->instance, "proposal"));
    assert_int_equal(mn_writer_commit_proposal(s->writer, &received), MN_VERSION_MISMATCH);
    unlinkat(s->instance.dir_fd, "proposal", 0);
    mn_compact_proposal_free(&received);
    mn_compact_proposal_free(&proposal);
    care_all(s);
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
    add_segment(s, 0, 0, 400);
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
    add_segment(s, 0, 0, 400);
    verify(s, &found);
    assert_int_equal(found.count, 0);
    mn_ivf_path(&s->store, path, only_segment(s), 1);
    file_flip(path, -3000, 4);
    verify(s, &found);
    assert_int_equal(found.count, 1);
    assert_string_equal(found.path, path);
    unlink(path);
    verify(s, &found);
    assert_int_equal(found.count, 1);
    live_store_restart(s);
    care_all(s);
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
    add_segment(s, 0, 0, 400);
    unsigned long long id = only_segment(s);
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
        assert_int_equal(care_all(other), damaged);
        assert_int_equal(live_check_codes(other), 400);
        live_store_free(other);
    }
    ok(mn_io_remove_tree(&mn_io_posix, copy));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_codebook_comes_with_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(care_trains_what_no_build_has, setup, teardown),
        cmocka_unit_test_setup_teardown(codes_that_are_not_wanted_any_more, setup, teardown),
        cmocka_unit_test_setup_teardown(small_segments_have_no_codes, setup, teardown),
        cmocka_unit_test_setup_teardown(merges_keep_clusters, setup, teardown),
        cmocka_unit_test_setup_teardown(lost_and_damaged_files_are_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(doubts_are_looked_into, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_codebook_is_followed_by_a_new_one, setup, teardown),
        cmocka_unit_test_setup_teardown(a_build_without_its_codebook, setup, teardown),
        cmocka_unit_test_setup_teardown(codes_never_keep_the_log_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(care_can_be_stopped, setup, teardown),
        cmocka_unit_test_setup_teardown(four_times_the_rows_ask_for_a_new_codebook, setup, teardown),
        cmocka_unit_test_setup_teardown(strange_rows_ask_for_a_new_codebook, setup, teardown),
        cmocka_unit_test_setup_teardown(skewed_clusters_ask_for_a_new_codebook, setup, teardown),
        cmocka_unit_test_setup_teardown(seven_embeddings_over_and_over, setup, teardown),
        cmocka_unit_test_setup_teardown(one_embedding_over_and_over, setup, teardown),
        cmocka_unit_test_setup_teardown(recall_is_calibrated_when_the_store_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_codebook_takes_the_rule_along, setup, teardown),
        cmocka_unit_test_setup_teardown(sweep_removes_what_nobody_needs, setup, teardown),
        cmocka_unit_test_setup_teardown(purged_rows_take_their_codes_along, setup, teardown),
        cmocka_unit_test_setup_teardown(stale_care_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(marks_stay_while_a_segment_is_coded, setup, teardown),
        cmocka_unit_test_setup_teardown(verify_knows_codes, setup, teardown),
        cmocka_unit_test_setup_teardown(copies_take_codes_along, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
