/*
 * test_reader.c - pins: what they see, what they keep, as-of, and readers that lost their slot or whose files are gone.
 */
#include "tests/unit/store_fixture.h"

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

/* A view that names files which are not there: the pin fails, what was mapped before stays whole, the next view is taken. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_the_first_view_there_is_nothing_to_pin),
        cmocka_unit_test(slots_run_out),
        cmocka_unit_test(a_snapshot_does_not_change_while_it_is_pinned),
        cmocka_unit_test(a_reader_looks_back),
        cmocka_unit_test(expired_ones_are_not_visible),
        cmocka_unit_test(an_evicted_reader_claims_again),
        cmocka_unit_test(a_view_that_cannot_be_mapped_leaves_the_reader_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
