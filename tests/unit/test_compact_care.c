/*
 * test_compact_care.c - looking after codes: damage, a codebook that is outgrown, calibration.
 */
#include <math.h>
#include <unistd.h>

#include "engine/ivf_file.h"
#include "engine/tune.h"
#include "tests/unit/live_codes.h"

static bool codebook_there(const struct live_store *s, uint64_t gen)
{
    char path[MN_PATH_MAX];
    return file_exists(mn_codebook_path(&s->store, path, gen));
}

/* ---- damage ---- */

static void lost_and_damaged_files_are_made_anew(void **state)
{
    struct live_store *s = *state;
    char path[MN_PATH_MAX];
    live_add_segment(s, 0, 0, 400);
    uint64_t segment = live_only_segment(s);
    mn_ivf_path(&s->store, path, segment, 1);
    for (int damage = 0; damage < 3; damage++) {
        live_store_stop(s);
        if (damage == 0)
            unlink(path);
        else
            file_flip(path, damage == 1 ? 100 : 20000, 4);
        live_store_start(s);
        assert_int_equal(live_uncoded(s), 1);
        assert_int_equal(live_check_codes(s), 0);
        live_check(s);
        struct mn_compact_care care;
        assert_true(live_care(s, &care));
        assert_false(care.sound);
        assert_int_equal(care.segment, segment);
        assert_int_equal(live_uncoded(s), 0);
        assert_int_equal(live_check_codes(s), 400);
        assert_int_equal(live_care_all(s), 0);
    }
}

/* Damage in 8-bit codes that the compactor itself has not touched: told by a doubt. */
static void doubts_are_looked_into(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_care care;
    char path[MN_PATH_MAX];
    live_add_segment(s, 0, 0, 400);
    mn_ivf_path(&s->store, path, live_only_segment(s), 1);
    live_care_all(s);
    ok(mn_compact_doubt(s->compactor, 0));
    assert_false(live_care(s, &care)); /* all is well */
    file_flip(path, -3000, 4);
    assert_false(live_care(s, &care)); /* nobody has told */
    ok(mn_compact_doubt(s->compactor, 0));
    ok(mn_compact_doubt(s->compactor, live_only_segment(s)));
    assert_true(live_care(s, &care));
    assert_false(care.sound);
    assert_int_equal(live_care_all(s), 0);
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
    live_add_segment(s, 0, 0, 400);
    live_add_segment(s, 1, 0, 200);
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
        assert_int_equal(live_care_all(s), 3);
        live_all_on(s, gen + 1);
        assert_int_equal(live_check_codes(s), 600);
    }
    file_flip(mn_codebook_path(&s->store, path, 3), -2, 4); /* while it is in use: found by looking */
    ok(mn_compact_doubt(s->compactor, 0));
    assert_int_equal(live_care_all(s), 3);
    live_all_on(s, 4);
}

/* A build that meets a damaged codebook frees the log all the same. */
static void a_build_without_its_codebook(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_proposal proposal;
    char path[MN_PATH_MAX];
    live_add_segment(s, 0, 0, 400);
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
    assert_true(live_care_all(s) > 0);
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
    assert_int_equal(live_codebook(s), 0);
    assert_int_equal(mn_compact_care_for(s->compactor, &s->policy, NULL, NULL, &proposal, &care), MN_READ_ONLY);
    mn_compactor_close(s->compactor);
    ok(mn_compactor_open(&s->compactor, &s->store, &s->instance));
    live_care_all(s);
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
    assert_int_equal(live_care_all(s), 1);
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
    live_add_segment(s, 0, 0, 1000);
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
    assert_int_equal(live_care_all(s), 0);
}

/* ---- outgrown ---- */

static void four_times_the_rows_ask_for_a_new_codebook(void **state)
{
    struct live_store *s = *state;
    live_add_segment(s, 0, 0, 300);
    live_add_segment(s, 0, 300, 300);
    live_add_segment(s, 0, 600, 300);
    assert_int_equal(live_care_all(s), 0);
    live_all_on(s, 1);
    live_add_segment(s, 0, 900, 300);
    struct mn_manifest m = live_manifest(s);
    uint64_t first = m.segments[0].id;
    mn_manifest_free(&m);
    struct mn_snapshot pinned; /* a reader that takes its time */
    struct mn_reader *slow;
    ok(mn_reader_open(&slow, &s->store, &s->instance));
    ok(mn_reader_pin(slow, 0, &pinned));
    assert_int_equal(live_care_all(s), 5); /* the codebook, and four segments, one by one */
    live_all_on(s, 2);
    assert_int_equal(live_check_codes(s), 1200);
    assert_true(live_ivf_there(s, first, 1)); /* its view still names it */
    assert_true(codebook_there(s, 1));
    for (uint32_t p = 0; p < pinned.part_count; p++)
        if (!pinned.parts[p].tail)
            assert_int_equal(pinned.parts[p].ivf->codebook->gen, 1);
    mn_reader_unpin(slow);
    mn_reader_close(slow);
    live_tend(s);
    for (int i = 0; i < 500 && live_ivf_there(s, first, 1); i++) {
        live_tend(s);
        usleep(10000);
        assert_int_equal(live_care_all(s), 0);
    }
    assert_false(live_ivf_there(s, first, 1));
    assert_true(live_ivf_there(s, first, 2));
    assert_true(codebook_there(s, 1)); /* codes of the tail may be on it */
    live_store_restart(s);
    assert_int_equal(live_check_codes(s), 1200);
    assert_int_equal(live_care_all(s), 0);
}

/* Rows unlike those that the codebook knows: residuals grow. */
static void strange_rows_ask_for_a_new_codebook(void **state)
{
    struct live_store *s = *state;
    live_add_segment(s, 0, 0, 400);
    assert_int_equal(live_care_all(s), 0);
    s->next_version = LIVE_STRANGE;
    live_add_segment(s, 1, 0, 250);
    assert_int_equal(live_care_all(s), 3);
    live_all_on(s, 2);
}

/* Most new rows are alike: one cluster takes them all. */
static void skewed_clusters_ask_for_a_new_codebook(void **state)
{
    struct live_store *s = *state;
    live_add_segment(s, 0, 0, 600);
    assert_int_equal(live_care_all(s), 0);
    s->next_version = LIVE_ALIKE;
    live_add_segment(s, 1, 0, 400);
    assert_int_equal(live_care_all(s), 3);
    live_all_on(s, 2);
    assert_int_equal(live_care_all(s), 0); /* as skewed as before, and no more rows: the same again would help nobody */
}

/* The same few embeddings over and over: every row is its cluster's centroid, but for rounding. */
static void one_codebook_is_enough(struct live_store *s, uint32_t version)
{
    s->next_version = version;
    live_add_segment(s, 0, 0, 500);
    assert_int_equal(live_care_all(s), 0);
    live_add_segment(s, 1, 0, 500);
    live_add_segment(s, 2, 0, 200);
    assert_int_equal(live_care_all(s), 0);
    live_all_on(s, 1);
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
    live_add_segment(s, 0, 0, 1200);
    assert_true(tuning(s).rows == 0);
    live_care_all(s);
    assert_true(tuning(s).rows == 1200 && tuning(s).nearness[0] > 0);
    struct mn_compact_care care;
    assert_false(live_care(s, &care));
    live_add_segment(s, 0, 1200, 200);
    live_care_all(s);
    assert_true(tuning(s).rows == 1200); /* not enough has changed */
    live_add_segment(s, 0, 1400, 200);
    live_care_all(s);
    assert_true(tuning(s).rows == 1600);
    live_store_restart(s);
    assert_true(tuning(s).rows == 1600);
    assert_false(live_care(s, &care));
    s->next_version = LIVE_STRANGE;
    live_add_segment(s, 1, 0, 1000);
    live_add_segment(s, 1, 1000, 300);
    live_care_all(s);
    assert_true(live_codebook(s) > 1);
    assert_true(tuning(s).rows == 2900);
}

/* As many rows as before, but others. */
static void recall_is_calibrated_when_rows_are_replaced(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_care care;
    live_add_segment(s, 0, 0, 1200);
    live_care_all(s);
    for (uint32_t turn = 0; turn < 3; turn++) {
        for (uint32_t tenth = 0; tenth < 2; tenth++) {
            assert_false(live_care(s, &care)); /* a tenth of them is not enough */
            live_add_segment(s, 0, tenth * 130, 130);
            while (live_compact(s, true))
                ;
        }
        assert_true(live_care(s, &care));
        assert_true(care.tuned && tuning(s).rows == 1200);
    }
    live_care_all(s);
    assert_true(live_codebook(s) == 1);
}

/* Another version's numbers mean something else: they are not gone by, and made anew. */
static void what_another_version_calibrated_is_made_anew(void **state)
{
    struct live_store *s = *state;
    live_add_segment(s, 0, 0, 1200);
    live_care_all(s);
    struct mn_tuning made = tuning(s), other = made;
    other.form = 0.5f;
    struct mn_manifest m = live_manifest(s);
    live_store_stop(s);
    memcpy(m.tuning, &other, sizeof other);
    ok(mn_manifest_append(&m, &s->store));
    mn_manifest_free(&m);
    live_store_start(s);
    assert_true(tuning(s).rows == 1200 && tuning(s).form == 0.5f);
    assert_true(mn_tune_read(s->instance.control->tuning).rows == 0);
    live_care_all(s);
    assert_true(mn_tuned(&made) && tuning(s).form == made.form && tuning(s).rows == 1200);
}

/* Twice the clusters are half as large: by the rule of the old ones recall would miss its target until it is calibrated
 * anew, which may take minutes where recall is busy. */
static void a_new_codebook_takes_the_rule_along(void **state)
{
    struct live_store *s = *state;
    struct mn_compact_care care;
    live_add_segment(s, 0, 0, 1100);
    live_care_all(s);
    struct mn_tuning before = tuning(s);
    uint64_t gen = live_codebook(s);
    live_add_segment(s, 1, 0, 1500);
    live_add_segment(s, 2, 0, 1500);
    live_add_segment(s, 0, 1100, 400);
    while (live_codebook(s) == gen)
        assert_true(live_care(s, &care));
    struct mn_tuning after = tuning(s);
    assert_true(before.rows > 0 && after.rows == 0);
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++)
        assert_true(before.stop[i] < INFINITY ? after.stop[i] > before.stop[i] + 0.1f : after.stop[i] == INFINITY);
    assert_true(before.stop[0] < INFINITY);
}

#define test(name) cmocka_unit_test_setup_teardown(name, live_codes_setup, live_codes_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(lost_and_damaged_files_are_made_anew),
        test(doubts_are_looked_into),
        test(a_lost_codebook_is_followed_by_a_new_one),
        test(a_build_without_its_codebook),
        test(codes_never_keep_the_log_waiting),
        test(care_can_be_stopped),
        test(four_times_the_rows_ask_for_a_new_codebook),
        test(strange_rows_ask_for_a_new_codebook),
        test(skewed_clusters_ask_for_a_new_codebook),
        test(seven_embeddings_over_and_over),
        test(one_embedding_over_and_over),
        test(recall_is_calibrated_when_the_store_changes),
        test(recall_is_calibrated_when_rows_are_replaced),
        test(what_another_version_calibrated_is_made_anew),
        test(a_new_codebook_takes_the_rule_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
