/*
 * test_recovery.c - from whatever the disk holds back to a store: random lives against a plain model over many deaths.
 *
 * The model keeps three things an id: its state, the number its bytes follow from, its version. After each death the
 * store must show exactly the model, and a second recovery must show the same.
 */
#include "tests/unit/sixty.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/read.h"
#include "engine/wal.h"
#include "shm/process.h"

/* ---- a random life ---- */

#define SPACES 3u
#define IDS    120u

enum state { NEVER, VISIBLE, SUPPRESSED, GONE, EXPIRED };

struct model {
    struct fixture *f;
    struct mn_compactor *compactor;
    struct {
        enum state state;
        uint64_t number, version;
    } ids[SPACES][IDS];
    uint64_t next_number;
    uint64_t next_assigned[SPACES];
};

static const char *const spaces[SPACES] = {"a", "default", "a/b"};

/* Admits, and commits first when what is wanted builds on the batch or does not fit in it. */
static struct mn_outcome admit_remember(struct fixture *f, const struct mn_remember *request)
{
    struct mn_outcome outcome;
    enum mn_status status = mn_writer_remember(f->writer, request, &outcome);
    if (status == MN_NOT_READY) {
        fixture_commit(f);
        status = mn_writer_remember(f->writer, request, &outcome);
    }
    ok(status);
    return outcome;
}

static void put_some(struct model *m)
{
    struct fixture *f = m->f;
    uint32_t space = fixture_random(f, SPACES), count = 1 + fixture_random(f, 6), given = 0;
    struct mn_memory memories[6];
    struct mn_id superseded[1];
    char texts[6][64];
    uint32_t first = 1 + fixture_random(f, IDS - 7);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t number = ++m->next_number;
        bool expired = fixture_random(f, 12) == 0;
        memories[i] = fixture_memory(first + given++, number, sixty_content(number, texts[i]));
        if (expired)
            memories[i].expires = 1;
        m->ids[space][first + given - 1].state = expired ? EXPIRED : VISIBLE;
        m->ids[space][first + given - 1].number = number;
    }
    uint32_t victim = 1 + fixture_random(f, IDS - 1);
    if (fixture_random(f, 4) == 0 && (victim < first || victim >= first + count)) {
        superseded[0] = number_id(victim);
        memories[0].supersedes = superseded;
        memories[0].supersede_count = 1;
        if (m->ids[space][victim].state != NEVER)
            m->ids[space][victim].state = GONE;
    }
    struct mn_remember request = {.write = fixture_write(f, spaces[space]), .memories = memories, .count = count};
    struct mn_outcome outcome = admit_remember(f, &request);
    for (uint32_t i = 0; i < count; i++)
        m->ids[space][first + i].version = outcome.seq;
}

static void revise_one(struct model *m)
{
    struct fixture *f = m->f;
    uint32_t space = fixture_random(f, SPACES), id = 1 + fixture_random(f, IDS - 1);
    struct mn_revise request = {.write = fixture_write(f, spaces[space]), .id = number_id(id), .set_confidence = true};
    struct mn_outcome outcome;
    request.set.confidence = 0.5f;
    enum mn_status status = mn_writer_revise(f->writer, &request, &outcome);
    if (status == MN_NOT_READY) {
        fixture_commit(f);
        status = mn_writer_revise(f->writer, &request, &outcome);
    }
    assert_int_equal(status, m->ids[space][id].state == VISIBLE ? MN_OK : MN_NOT_FOUND);
    if (status == MN_OK)
        m->ids[space][id].version = outcome.seq;
}

static void forget_some(struct model *m)
{
    struct fixture *f = m->f;
    uint32_t space = fixture_random(f, SPACES), count = 1 + fixture_random(f, 8), took = 0;
    enum mn_forget_mode mode = (enum mn_forget_mode)(MN_FORGET_DELETE + fixture_random(f, 4));
    struct mn_id ids[8];
    uint32_t first = 1 + fixture_random(f, IDS - 9);
    for (uint32_t i = 0; i < count; i++)
        ids[i] = number_id(first + i);
    struct mn_forget request = {.write = fixture_write(f, spaces[space]), .ids = ids, .id_count = count, .mode = mode};
    struct mn_outcome outcome;
    enum mn_status status = mn_writer_forget(f->writer, &request, &outcome);
    if (status == MN_NOT_READY) {
        fixture_commit(f);
        status = mn_writer_forget(f->writer, &request, &outcome);
    }
    ok(status);
    for (uint32_t i = first; i < first + count; i++) {
        enum state *s = &m->ids[space][i].state;
        if (mode == MN_FORGET_SUPPRESS && *s == VISIBLE) {
            *s = SUPPRESSED;
            took++;
        } else if (mode == MN_FORGET_RESTORE && *s == SUPPRESSED) {
            *s = VISIBLE;
            m->ids[space][i].version = outcome.seq;
            took++;
        } else if ((mode == MN_FORGET_DELETE || mode == MN_FORGET_PURGE) && (*s == VISIBLE || *s == SUPPRESSED)) {
            *s = GONE;
            took++;
        } else if (*s == EXPIRED && mode != MN_FORGET_RESTORE) {
            took++; /* removed or hidden all the same, unless compaction was faster */
            *s = mode == MN_FORGET_SUPPRESS ? EXPIRED : GONE;
        }
    }
    assert_true(outcome.count <= took);
}

static void compact(struct model *m, bool force)
{
    struct mn_compact_policy policy = {.min_rows = 100,
                                       .min_log_segments = 2,
                                       .fanout = 3,
                                       .dead_percent = 25,
                                       .segment_rows_max = 400,
                                       .idem_window_ns = INT64_C(600000000000)};
    struct fixture *f = m->f;
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    uint64_t sealed;
    fixture_commit(f);
    ok(mn_writer_seal(f->writer, &sealed));
    atomic_store(&f->instance.control->history_seq, sealed);
    ok(mn_compact_plan_make(m->compactor, &policy, force, &plan));
    if (plan.worth) {
        ok(mn_compact_build(m->compactor, &plan, &policy, NULL, NULL, &proposal));
        for (uint32_t n = fixture_random(f, 6); n > 0; n--) { /* life goes on while it is built */
            put_some(m);
            forget_some(m);
        }
        fixture_commit(f);
        if (fixture_random(f, 4) != 0)
            ok(mn_writer_commit_proposal(f->writer, &proposal));
        mn_compact_proposal_free(&proposal);
    }
    mn_compact_plan_free(&plan);
}

/* ---- model against store ---- */

static void check_id(struct model *m, const struct mn_snapshot *snapshot, uint32_t space, uint32_t id)
{
    struct mn_id key = number_id(id);
    struct mn_row_ref ref = mn_read_find(snapshot, text_str(spaces[space]), &key);
    char text[64];
    if (m->ids[space][id].state != VISIBLE) {
        if (ref.part != MN_NONE)
            print_error("%s/%u is there, state %d\n", spaces[space], id, (int)m->ids[space][id].state);
        assert_int_equal(ref.part, MN_NONE);
        return;
    }
    if (ref.part == MN_NONE)
        print_error("%s/%u is not there\n", spaces[space], id);
    assert_int_not_equal(ref.part, MN_NONE);
    const struct mn_part *part = &snapshot->parts[ref.part];
    uint64_t number = m->ids[space][id].number;
    struct mn_str content, wanted = text_str(sixty_content(number, text));
    bool bin;
    assert_int_equal(mn_part_born(part, ref.row), m->ids[space][id].version);
    assert_int_equal(mn_part_at(part, ref.row), number);
    assert_memory_equal(mn_part_vector(part, ref.row), fixture_vector(number), FIXTURE_DIM * sizeof(float));
    ok(mn_part_content(part, ref.row, &content, &bin));
    assert_true((content.data == NULL) == (wanted.data == NULL) && mn_str_equal(content, wanted));
}

static void check_model(struct model *m)
{
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint64_t visible[SPACES] = {0};
    ok(mn_reader_open(&reader, &m->f->store, &m->f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    for (uint32_t space = 0; space < SPACES; space++)
        for (uint32_t id = 1; id < IDS; id++) {
            check_id(m, &snapshot, space, id);
            visible[space] += m->ids[space][id].state == VISIBLE;
        }
    for (uint32_t space = 0; space < SPACES; space++) {
        struct mn_reading reading = {0};
        struct mn_str name = text_str(spaces[space]);
        struct mn_scope scope = {.spaces = &name, .space_count = 1, .after = INT64_MIN};
        uint64_t count;
        bool more;
        ok(mn_read_count(&reading, &snapshot, &scope, &count));
        assert_int_equal(count, visible[space]);
        ok(mn_read_list(&reading, &snapshot, &scope, true, NULL, 1000, &more));
        assert_int_equal(reading.row_count, visible[space]);
        assert_false(more);
        mn_reading_free(&reading);
    }
    mn_reader_close(reader);
}

/* Suppressed ones must be restorable, bit for bit; others must not. The model is as before afterwards. */
static void check_suppressed(struct model *m)
{
    struct fixture *f = m->f;
    for (uint32_t space = 0; space < SPACES; space++)
        for (uint32_t id = 1; id < IDS; id++) {
            uint32_t restored = fixture_forget(f, spaces[space], id, MN_FORGET_RESTORE);
            assert_int_equal(restored, m->ids[space][id].state == SUPPRESSED);
            if (restored) {
                char text[64];
                uint64_t number = m->ids[space][id].number;
                fixture_commit(f);
                assert_true(fixture_holds(f, spaces[space], id, number, sixty_content(number, text)));
                assert_int_equal(fixture_forget(f, spaces[space], id, MN_FORGET_SUPPRESS), 1);
            }
        }
    fixture_commit(f);
}

static void die_and_return(struct model *m)
{
    struct fixture *f = m->f;
    uint32_t how = fixture_random(f, 3);
    mn_compactor_close(m->compactor);
    if (how == 0) {
        fixture_restart(f);
    } else {
        fixture_crash(f);
        if (how == 1)
            ok(fixture_recover(f)); /* a recovery that nobody waited for */
        ok(fixture_recover(f));
        fixture_open_writer(f);
    }
    assert_false(f->report.lost);
    assert_int_equal(f->report.quarantined, 0);
    ok(mn_compactor_open(&m->compactor, &f->store, &f->instance));
    ok(mn_compactor_sweep(m->compactor));
}

static void live(uint64_t seed, uint32_t steps, bool compacting)
{
    struct model *m = calloc(1, sizeof *m);
    m->f = fixture_prepare();
    m->f->random = seed;
    m->f->settings.write_batch_bytes = 32768;
    fixture_start(m->f);
    ok(mn_compactor_open(&m->compactor, &m->f->store, &m->f->instance));
    for (uint32_t step = 0; step < steps; step++) {
        uint32_t what = fixture_random(m->f, 100);
        if (what < 45)
            put_some(m);
        else if (what < 60)
            revise_one(m);
        else if (what < 80)
            forget_some(m);
        else if (what < 94)
            fixture_commit(m->f);
        else if (what < 96 && compacting)
            compact(m, fixture_random(m->f, 3) == 0);
        else if (what < 97) {
            fixture_commit(m->f);
            check_model(m);
            for (int i = 0; i < 5; i++)
                mn_writer_tend(m->f->writer, mn_wall_ns());
        } else if (what < 98) {
            fixture_commit(m->f);
            die_and_return(m);
            check_model(m);
        }
    }
    fixture_commit(m->f);
    check_suppressed(m);
    die_and_return(m);
    die_and_return(m);
    for (uint32_t space = 0; space < SPACES; space++)
        for (uint32_t id = 1; id < IDS; id++) /* restoring gave them new versions */
            if (m->ids[space][id].state == SUPPRESSED)
                m->ids[space][id].version = 0;
    check_model(m);
    check_suppressed(m);
    mn_compactor_close(m->compactor);
    fixture_free(m->f);
    free(m);
}

static void a_random_life_without_compaction(void **state)
{
    for (uint64_t seed = 1; seed <= 3; seed++)
        live(seed * 7919, 1500, false);
}

static void a_random_life_with_compactions(void **state)
{
    for (uint64_t seed = 1; seed <= 5; seed++)
        live(seed * 104729, 1500, true);
}

/* ---- starting ---- */

static void an_empty_store_recovers_to_nothing(void **state)
{
    struct fixture *f = fixture_prepare();
    fixture_open_instance(f);
    for (int i = 0; i < 3; i++) {
        ok(fixture_recover(f));
        assert_int_equal(f->report.last_seq, 0);
        assert_int_equal(f->report.rows, 0);
        assert_false(f->report.lost);
        assert_int_equal(atomic_load(&f->instance.control->view_gen), i + 1);
        assert_int_equal(atomic_load(&f->instance.control->instance_gen), i + 1);
    }
    fixture_free(f);
}

static void it_waits_for_nobody_and_disturbs_no_writer(void **state)
{
    struct fixture *f = fixture_new();
    fails(MN_BUSY, fixture_recover(f)); /* a writer lives */
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    assert_int_equal(fixture_count(f), 1);
    fixture_free(f);
}

/* A writer that died while it made a view leaves a file under the name that comes next. */
static void an_unfinished_view_is_not_in_the_way(void **state)
{
    struct fixture *f = fixture_new();
    char path[256];
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    fixture_crash(f);
    snprintf(path, sizeof path, "%s/view.%llu", f->instance.path,
             (unsigned long long)atomic_load(&f->instance.control->view_gen) + 1);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    ok(fixture_recover(f));
    fixture_open_writer(f);
    assert_int_equal(fixture_count(f), 1);
    fixture_free(f);
}

/* Readers keep the old view until the new one is there. */
static void a_reader_is_served_across_a_recovery(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    fixture_crash(f);
    struct mn_id key = number_id(1);
    assert_int_equal(mn_read_find(&snapshot, text_str("s"), &key).row, 0);
    ok(fixture_recover(f));
    assert_int_equal(mn_read_find(&snapshot, text_str("s"), &key).row, 0);
    mn_reader_unpin(reader);
    fixture_open_writer(f);
    ok(mn_reader_pin(reader, 0, &snapshot));
    assert_int_equal(mn_read_find(&snapshot, text_str("s"), &key).row, 0);
    mn_reader_close(reader);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_store_recovers_to_nothing),
        cmocka_unit_test(it_waits_for_nobody_and_disturbs_no_writer),
        cmocka_unit_test(an_unfinished_view_is_not_in_the_way),
        cmocka_unit_test(a_reader_is_served_across_a_recovery),
        cmocka_unit_test(a_random_life_without_compaction),
        cmocka_unit_test(a_random_life_with_compactions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
