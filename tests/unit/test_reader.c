/*
 * test_reader.c - pins: what they see, what they keep, as-of, and readers that lost their slot or whose files are gone.
 */
#include "tests/unit/store_fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/read.h"
#include "engine/view.h"
#include "shm/process.h"

static uint64_t visible(const struct mn_snapshot *s)
{
    uint64_t count = 0;
    for (uint32_t p = 0; p < s->part_count; p++)
        for (uint32_t row = 0; row < s->parts[p].rows; row++)
            count += mn_part_visible(&s->parts[p], row, s->seq, s->now);
    return count;
}

static void before_the_first_view_there_is_nothing_to_pin(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    fixture_open_instance(f);
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    fails(MN_NOT_READY, mn_reader_pin(reader, 0, &snapshot));
    mn_reader_unpin(reader); /* harmless */
    ok(fixture_recover(f));
    ok(mn_reader_pin(reader, 0, &snapshot));
    assert_int_equal(snapshot.part_count, 0);
    assert_int_equal(snapshot.seq, 0);
    mn_reader_close(reader);
    mn_reader_close(NULL);
    fixture_free(f);
}

static void slots_run_out(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_reader *readers[16], *extra;
    for (int i = 0; i < 16; i++)
        ok(mn_reader_open(&readers[i], &f->store, &f->instance));
    fails(MN_BUSY, mn_reader_open(&extra, &f->store, &f->instance));
    mn_reader_close(readers[7]);
    ok(mn_reader_open(&readers[7], &f->store, &f->instance));
    for (int i = 0; i < 16; i++)
        mn_reader_close(readers[i]);
    fixture_free(f);
}

static void a_snapshot_does_not_change_while_it_is_pinned(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint64_t sealed;
    for (uint64_t id = 1; id <= 5; id++)
        fixture_put(f, "s", id, id, "x");
    fixture_commit(f);
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    assert_int_equal(visible(&snapshot), 5);
    for (uint64_t id = 3; id <= 9; id++) {
        fixture_put(f, "s", id, id, "y");
        fixture_forget(f, "s", 1, MN_FORGET_DELETE);
        fixture_commit(f);
        ok(mn_writer_seal(f->writer, &sealed));
        assert_int_equal(visible(&snapshot), 5);
        assert_int_equal(snapshot.seq, 5);
    }
    mn_reader_unpin(reader);
    ok(mn_reader_pin(reader, 0, &snapshot));
    assert_int_equal(visible(&snapshot), 8);
    mn_reader_close(reader);
    fixture_free(f);
}

static void a_reader_looks_back(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    for (uint64_t id = 1; id <= 10; id++)
        fixture_put(f, "s", id, id, "x");
    for (uint64_t id = 1; id <= 5; id++)
        fixture_forget(f, "s", id, MN_FORGET_DELETE);
    fixture_commit(f);
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    for (uint64_t seq = 1; seq <= 15; seq++) {
        ok(mn_reader_pin(reader, seq, &snapshot));
        assert_int_equal(snapshot.seq, seq);
        assert_int_equal(visible(&snapshot), seq <= 10 ? seq : 20 - seq);
        mn_reader_unpin(reader);
    }
    fails(MN_UNAVAILABLE, mn_reader_pin(reader, 16, &snapshot));
    atomic_store(&f->instance.control->oldest_seq, 7);
    fails(MN_UNAVAILABLE, mn_reader_pin(reader, 6, &snapshot));
    ok(mn_reader_pin(reader, 7, &snapshot));
    mn_reader_close(reader);
    /* A refused pin pins nothing. */
    assert_true(mn_epoch_oldest(&f->instance.epoch, mn_clock_ns(), 0) == UINT64_MAX);
    fixture_free(f);
}

static void expired_ones_are_not_visible(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    struct mn_memory m[2] = {fixture_memory(1, 1, "x"), fixture_memory(2, 2, "y")};
    m[0].expires = mn_wall_ns() + 30000000;
    m[1].expires = mn_wall_ns() - 1;
    struct mn_remember request = {.write = fixture_write(f, "s"), .memories = m, .count = 2};
    ok(mn_writer_remember(f->writer, &request, &outcome));
    fixture_commit(f);
    uint64_t first = fixture_count(f);
    assert_true(first <= 1);
    usleep(40000);
    assert_int_equal(fixture_count(f), 0);
    fixture_free(f);
}

static void an_evicted_reader_claims_again(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint32_t used;
    uint64_t age;
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    assert_int_equal(mn_epoch_reap(&f->instance.epoch, (uint32_t)getpid()), 1);
    assert_int_equal(visible(&snapshot), 1); /* what is mapped stays mapped */
    mn_reader_unpin(reader);
    ok(mn_reader_pin(reader, 0, &snapshot));
    mn_epoch_usage(&f->instance.epoch, mn_clock_ns(), &used, &age);
    assert_int_equal(used, 1);
    assert_true(mn_epoch_oldest(&f->instance.epoch, mn_clock_ns(), 0) == snapshot.gen);
    mn_reader_close(reader);
    mn_epoch_usage(&f->instance.epoch, mn_clock_ns(), &used, &age);
    assert_int_equal(used, 0);
    fixture_free(f);
}

/* Whatever it still believes to hold: its old slot is another's by now, and so is the pin in it. */
static void an_evicted_reader_leaves_the_next_one_alone(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_reader *evicted, *others[16];
    struct mn_snapshot snapshot;
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    for (int pinned = 0; pinned < 2; pinned++) {
        ok(mn_reader_open(&evicted, &f->store, &f->instance));
        if (pinned)
            ok(mn_reader_pin(evicted, 0, &snapshot));
        assert_int_equal(mn_epoch_reap(&f->instance.epoch, (uint32_t)getpid()), 1);
        for (int i = 0; i < 16; i++) {
            ok(mn_reader_open(&others[i], &f->store, &f->instance));
            if (i == 0)
                ok(mn_reader_pin(others[0], 0, &snapshot));
        }
        if (pinned)
            mn_reader_unpin(evicted);
        else
            fails(MN_BUSY, mn_reader_pin(evicted, 0, &snapshot));
        mn_reader_close(evicted);
        assert_true(mn_epoch_oldest(&f->instance.epoch, mn_clock_ns(), 0) == snapshot.gen);
        for (int i = 0; i < 16; i++)
            mn_reader_close(others[i]);
    }
    fixture_free(f);
}

/* A view that names files which are not there: the pin fails, what was mapped before stays whole, the next view is
 * taken. */
static void a_view_that_cannot_be_mapped_leaves_the_reader_whole(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    fixture_put(f, "s", 1, 1, "x");
    fixture_commit(f);
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    mn_reader_unpin(reader);
    uint64_t gen = atomic_load(&f->instance.control->view_gen);
    struct mn_view_list good;
    ok(mn_view_map(&good, &f->instance, gen));
    struct mn_view_chunk chunks[3] = {good.chunk[0], good.chunk[0], good.chunk[0]};
    struct mn_view_columns columns[1] = {{77, 5, 1, 0}};
    chunks[0].wal_number = 900;
    chunks[2].wal_number = 901;
    struct mn_view_list bad = {.gen = gen + 1, .chunks = 3, .chunk = chunks, .columns = 1, .column = columns};
    ok(mn_view_publish(&f->instance, &bad));
    assert_int_not_equal(mn_reader_pin(reader, 0, &snapshot), MN_OK);
    assert_int_not_equal(mn_reader_pin(reader, 0, &snapshot), MN_OK);
    assert_true(mn_epoch_oldest(&f->instance.epoch, mn_clock_ns(), 0) == UINT64_MAX);
    struct mn_view_list again = {.gen = gen + 2, .chunks = 1, .chunk = good.chunk};
    ok(mn_view_publish(&f->instance, &again));
    ok(mn_reader_pin(reader, 0, &snapshot));
    assert_int_equal(visible(&snapshot), 1);
    mn_reader_close(reader);
    mn_view_unmap(&good);
    fixture_free(f);
}

/* ---- all at once, as threads of one process ---- */

#define PAIRS 40u

/* The writer changes ids in pairs, both in one request; a compactor moves them; readers must never see half a change.
 */
struct turmoil {
    struct fixture *f;
    _Atomic int stop;
    _Atomic uint32_t halves, looks;
};

static void check_pairs(struct turmoil *t, const struct mn_snapshot *snapshot)
{
    for (uint32_t pair = 0; pair < PAIRS; pair++) {
        const struct mn_id ids[2] = {number_id(2 * pair + 2), number_id(2 * pair + 3)};
        struct mn_row_ref a = mn_read_find(snapshot, text_str("s"), &ids[0]);
        struct mn_row_ref b = mn_read_find(snapshot, text_str("s"), &ids[1]);
        bool both = a.part != MN_NONE && b.part != MN_NONE;
        if (!both) {
            t->halves += a.part != b.part;
            continue;
        }
        const struct mn_part *x = &snapshot->parts[a.part], *y = &snapshot->parts[b.part];
        const float *v = mn_part_vector(x, a.row), *w = mn_part_vector(y, b.row);
        t->halves += mn_part_at(x, a.row) != mn_part_at(y, b.row) || mn_part_born(x, a.row) != mn_part_born(y, b.row) ||
                     !v || !w || memcmp(v, w, FIXTURE_DIM * sizeof *v) != 0;
    }
}

static void *keep_reading(void *context)
{
    struct turmoil *t = context;
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    if (mn_reader_open(&reader, &t->f->store, &t->f->instance) != MN_OK)
        return NULL;
    while (!t->stop) {
        if (mn_reader_pin(reader, 0, &snapshot) != MN_OK) {
            t->halves++;
            break;
        }
        check_pairs(t, &snapshot);
        check_pairs(t, &snapshot); /* the same again while it is pinned */
        mn_reader_unpin(reader);
        t->looks++;
    }
    mn_reader_close(reader);
    return NULL;
}

static void change_a_pair(struct fixture *f, uint64_t number)
{
    uint32_t pair = fixture_random(f, PAIRS), mode = fixture_random(f, 6);
    struct mn_id ids[2] = {number_id(2 * pair + 2), number_id(2 * pair + 3)};
    struct mn_outcome outcome;
    struct mn_memory m[2] = {fixture_memory(ids[0].lo, number, "x"), fixture_memory(ids[1].lo, number, "y")};
    struct mn_remember remember = {.write = fixture_write(f, "s"), .memories = m, .count = 2};
    struct mn_forget forget = {
        .write = fixture_write(f, "s"), .ids = ids, .id_count = 2, .mode = (enum mn_forget_mode)mode};
    bool puts = mode < MN_FORGET_DELETE || mode > MN_FORGET_RESTORE;
    enum mn_status status;
    do {
        status =
            puts ? mn_writer_remember(f->writer, &remember, &outcome) : mn_writer_forget(f->writer, &forget, &outcome);
        if (status == MN_NOT_READY)
            fixture_commit(f);
    } while (status == MN_NOT_READY);
    ok(status);
}

static void compact_now(struct fixture *f, struct mn_compactor *compactor)
{
    static const struct mn_compact_policy policy = {
        .min_rows = 1, .min_log_segments = 1, .fanout = 4, .dead_percent = 25, .segment_rows_max = 100000};
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    uint64_t sealed;
    ok(mn_writer_seal(f->writer, &sealed));
    atomic_store(&f->instance.control->history_seq, sealed);
    ok(mn_compact_plan_make(compactor, &policy, true, &plan));
    if (plan.worth) {
        ok(mn_compact_build(compactor, &plan, &policy, NULL, NULL, &proposal));
        change_a_pair(f, 1000000 + sealed);
        fixture_commit(f);
        ok(mn_writer_commit_proposal(f->writer, &proposal));
        mn_compact_proposal_free(&proposal);
    }
    mn_compact_plan_free(&plan);
}

static void readers_see_whole_changes_while_everything_moves(void **state)
{
    struct turmoil t = {.f = fixture_new()};
    struct mn_compactor *compactor;
    pthread_t readers[3];
    ok(mn_compactor_open(&compactor, &t.f->store, &t.f->instance));
    for (size_t i = 0; i < MN_ARRAY_LEN(readers); i++)
        assert_int_equal(pthread_create(&readers[i], NULL, keep_reading, &t), 0);
    for (uint64_t number = 1; number <= 3000; number++) {
        change_a_pair(t.f, number);
        if (number % 3 == 0)
            fixture_commit(t.f);
        if (number % 200 == 0) {
            fixture_commit(t.f);
            compact_now(t.f, compactor);
        }
        mn_writer_tend(t.f->writer, mn_wall_ns());
    }
    fixture_commit(t.f);
    await(t.looks > 20); /* on a busy machine readers come late */
    t.stop = 1;
    for (size_t i = 0; i < MN_ARRAY_LEN(readers); i++)
        assert_int_equal(pthread_join(readers[i], NULL), 0);
    assert_int_equal(t.halves, 0);
    mn_compactor_close(compactor);
    fixture_free(t.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_the_first_view_there_is_nothing_to_pin),
        cmocka_unit_test(slots_run_out),
        cmocka_unit_test(a_snapshot_does_not_change_while_it_is_pinned),
        cmocka_unit_test(a_reader_looks_back),
        cmocka_unit_test(expired_ones_are_not_visible),
        cmocka_unit_test(an_evicted_reader_claims_again),
        cmocka_unit_test(an_evicted_reader_leaves_the_next_one_alone),
        cmocka_unit_test(a_view_that_cannot_be_mapped_leaves_the_reader_whole),
        cmocka_unit_test(readers_see_whole_changes_while_everything_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
