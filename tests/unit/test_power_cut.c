/*
 * test_power_cut.c - the power goes at any write, sync or rename, of the writer, the compactor, recovery itself; what
 * was not synced is lost in part. What was acknowledged must be there, the batch in flight whole or absent, and nobody
 * may call it damage.
 */
#include "tests/unit/store_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/read.h"
#include "engine/verify.h"
#include "shm/process.h"
#include "tests/unit/lossy_disk.h"

#define IDS 80u

struct model {
    struct {
        uint64_t number; /* 0: not there */
        bool suppressed;
    } ids[IDS];
    uint64_t next_assigned;
};

struct world {
    struct fixture *f;
    struct mn_compactor *compactor;
    char trash[64];
    struct model acked, now; /* now: with what is admitted and not yet known to be durable */
    bool in_flight;          /* append was called: it may be there or not */
    uint64_t next_number;
    uint32_t cuts, commits, compactions, cared, recoveries_cut;
};

/* ---- model against store ---- */

static bool matches(struct fixture *f, const struct model *m)
{
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint64_t visible = 0, wanted = 0;
    bool same = true;
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    assert_int_equal(snapshot.uncoded, 0); /* the manifest names no inverted file that is not durable */
    for (uint32_t id = 1; id < IDS; id++) {
        struct mn_id key = number_id(id);
        struct mn_row_ref ref = mn_read_find(&snapshot, text_str("s"), &key);
        bool there = m->ids[id].number != 0 && !m->ids[id].suppressed;
        wanted += there;
        same &= there == (ref.part != MN_NONE);
        if (there && ref.part != MN_NONE) {
            const struct mn_part *part = &snapshot.parts[ref.part];
            const float *v = mn_part_vector(part, ref.row);
            same &= mn_part_at(part, ref.row) == (int64_t)m->ids[id].number && v &&
                    memcmp(v, fixture_vector(m->ids[id].number), FIXTURE_DIM * sizeof *v) == 0;
        }
    }
    for (uint32_t p = 0; p < snapshot.part_count; p++)
        for (uint32_t row = 0; row < snapshot.parts[p].rows; row++)
            visible += mn_part_visible(&snapshot.parts[p], row, snapshot.seq, snapshot.now);
    mn_reader_close(reader);
    return same && visible == wanted;
}

/* ---- life ---- */

static bool commit(struct world *w)
{
    if (!mn_writer_pending(w->f->writer))
        return true;
    w->in_flight = true;
    if (mn_writer_append(w->f->writer) != MN_OK || mn_writer_sync(w->f->writer) != MN_OK) {
        assert_true(lossy_disk_dead());
        return false;
    }
    mn_writer_publish(w->f->writer);
    mn_writer_acked(w->f->writer);
    w->in_flight = false;
    w->acked = w->now;
    w->commits++;
    return true;
}

/* False: the power is gone. A full batch is committed first. */
static bool admitted(struct world *w, enum mn_status status, bool *again)
{
    *again = status == MN_NOT_READY;
    if (*again)
        return commit(w);
    if (status != MN_OK) {
        /* A rotation met the cut, or waits for the keeper, which did. */
        assert_true(lossy_disk_dead());
        return false;
    }
    return true;
}

static bool put(struct world *w)
{
    struct fixture *f = w->f;
    struct mn_memory memories[5];
    struct mn_outcome outcome;
    uint32_t count = 1 + fixture_random(f, 5), first = 1 + fixture_random(f, IDS - 6);
    char *big = malloc(20000);
    memset(big, 'x', 20000);
    for (uint32_t i = 0; i < count; i++) {
        memories[i] = fixture_memory(first + i, ++w->next_number, NULL);
        memories[i].content = (struct mn_str){big, fixture_random(f, 3) ? 10 : fixture_random(f, 20000)};
    }
    struct mn_remember request = {.write = fixture_write(f, "s"), .memories = memories, .count = count};
    bool again = true, alive = true;
    while (alive && again)
        alive = admitted(w, mn_writer_remember(f->writer, &request, &outcome), &again);
    free(big);
    for (uint32_t i = 0; alive && i < count; i++) {
        w->now.ids[first + i].number = (uint64_t)memories[i].at;
        w->now.ids[first + i].suppressed = false;
    }
    return alive;
}

static bool forget(struct world *w)
{
    struct fixture *f = w->f;
    struct mn_id ids[6];
    struct mn_outcome outcome;
    uint32_t count = 1 + fixture_random(f, 6), first = 1 + fixture_random(f, IDS - 7);
    enum mn_forget_mode mode = (enum mn_forget_mode)(MN_FORGET_DELETE + fixture_random(f, 4));
    for (uint32_t i = 0; i < count; i++)
        ids[i] = number_id(first + i);
    struct mn_forget request = {.write = fixture_write(f, "s"), .ids = ids, .id_count = count, .mode = mode};
    bool again = true, alive = true;
    while (alive && again)
        alive = admitted(w, mn_writer_forget(f->writer, &request, &outcome), &again);
    for (uint32_t i = first; alive && i < first + count; i++) {
        if (mode == MN_FORGET_DELETE || mode == MN_FORGET_PURGE)
            w->now.ids[i].number = 0;
        else if (w->now.ids[i].number != 0)
            w->now.ids[i].suppressed = mode == MN_FORGET_SUPPRESS;
    }
    return alive;
}

/* An id that the engine gives must never have been given before. */
static bool assign(struct world *w)
{
    struct fixture *f = w->f;
    struct mn_outcome outcome;
    struct mn_memory m = fixture_memory(0, 7, "x");
    m.expires = 1; /* so that it does not show */
    struct mn_remember request = {.write = fixture_write(f, "assigned"), .memories = &m, .count = 1};
    bool again = true, alive = true;
    while (alive && again)
        alive = admitted(w, mn_writer_remember(f->writer, &request, &outcome), &again);
    if (alive) {
        assert_true(outcome.ids[0].lo > w->now.next_assigned);
        w->now.next_assigned = outcome.ids[0].lo;
    }
    return alive;
}

static const struct mn_compact_policy policy = {.min_rows = 50,
                                                .min_log_segments = 2,
                                                .fanout = 3,
                                                .dead_percent = 25,
                                                .segment_rows_max = 500,
                                                .codebook_rows_min = 20,
                                                .ivf_rows_min = 10};

static bool compact(struct world *w)
{
    struct fixture *f = w->f;
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    uint64_t sealed;
    if (!commit(w))
        return false;
    ok(mn_writer_seal(f->writer, &sealed));
    atomic_store(&f->instance.control->history_seq, sealed);
    enum mn_status status = mn_compact_plan_make(w->compactor, &policy, fixture_random(f, 2), &plan);
    if (status == MN_OK && plan.worth) {
        status = mn_compact_build(w->compactor, &plan, &policy, NULL, NULL, &proposal);
        if (status == MN_OK) {
            if (fixture_random(f, 2) && (!put(w) || !commit(w)))
                status = MN_SYSTEM;
            if (status == MN_OK && commit(w))
                status = mn_writer_commit_proposal(f->writer, &proposal);
            w->compactions += status == MN_OK;
            mn_compact_proposal_free(&proposal);
        }
    }
    mn_compact_plan_free(&plan);
    if (status != MN_OK && !lossy_disk_dead())
        print_error("%s\n", mn_error_trail());
    assert_true(status == MN_OK || lossy_disk_dead());
    return status == MN_OK;
}

/* What a compaction has left to do for codes. */
static bool care(struct world *w)
{
    struct mn_compact_proposal proposal;
    struct mn_compact_care result;
    if (!commit(w))
        return false;
    enum mn_status status = mn_compact_care_for(w->compactor, &policy, NULL, NULL, &proposal, &result);
    if (status == MN_OK && result.worth)
        status = mn_writer_commit_proposal(w->f->writer, &proposal);
    w->cared += status == MN_OK && result.worth;
    mn_compact_proposal_free(&proposal);
    if (status != MN_OK && !lossy_disk_dead())
        print_error("%s\n", mn_error_trail());
    assert_true(status == MN_OK || lossy_disk_dead());
    return status == MN_OK;
}

static void live(struct world *w)
{
    for (int step = 0; step < 120 && !lossy_disk_dead(); step++) {
        uint32_t what = fixture_random(w->f, 100);
        bool alive = what < 50   ? put(w)
                     : what < 65 ? forget(w)
                     : what < 70 ? assign(w)
                     : what < 92 ? commit(w)
                     : what < 94 ? compact(w)
                     : what < 96 ? care(w)
                                 : true;
        if (!alive)
            return;
        if (what >= 96)
            mn_writer_tend(w->f->writer, mn_wall_ns());
    }
}

/* ---- death and return ---- */

static void cut(struct world *w)
{
    mn_compactor_close(w->compactor);
    w->compactor = NULL;
    fixture_power_cut(w->f);
    lossy_disk_cut();
    w->cuts++;
}

/* Starts until it succeeds: the power may go again on the way. */
static void come_back(struct world *w)
{
    struct fixture *f = w->f;
    for (bool started = false; !started;) {
        if (fixture_random(f, 3) == 0)
            lossy_disk_fuse(fixture_random(f, 40));
        fixture_open_instance(f);
        enum mn_status status = fixture_recover(f);
        if (status == MN_OK) {
            assert_false(f->report.lost);
            assert_int_equal(f->report.quarantined, 0);
            status = mn_writer_open(&f->writer, &f->store, &f->instance, &f->settings, NULL);
        }
        if (status == MN_OK)
            status = mn_compactor_open(&w->compactor, &f->store, &f->instance);
        if (status == MN_OK)
            status = mn_compactor_sweep(w->compactor);
        started = status == MN_OK;
        if (!started && !lossy_disk_dead())
            print_error("%s\n", mn_error_trail());
        assert_true(started || lossy_disk_dead());
        w->recoveries_cut += !started;
        if (!started)
            cut(w);
    }
    lossy_disk_fuse(UINT64_MAX);
}

/* An edit that the cut has torn is told until the next one replaces the file. */
static void count_damage(void *context, const char *path, const char *what)
{
    if (strstr(what, "unfinished edit"))
        return;
    print_error("%s: %s\n", path, what);
    ++*(uint32_t *)context;
}

static void check(struct world *w)
{
    bool as_acked = matches(w->f, &w->acked), as_now = w->in_flight && matches(w->f, &w->now);
    assert_true(as_acked || as_now);
    if (as_acked)
        w->now = w->acked;
    else
        w->acked = w->now;
    w->in_flight = false;
}

/* How often codes were made beside a compaction. */
static uint32_t many_cuts(uint64_t seed, uint32_t rounds)
{
    struct world *w = calloc(1, sizeof *w);
    snprintf(w->trash, sizeof w->trash, "/tmp/mn-trash-XXXXXX");
    assert_non_null(mkdtemp(w->trash));
    w->f = fixture_prepare();
    w->f->random = seed * 7919;
    w->f->store.io = lossy_disk_open(w->trash, seed);
    come_back(w);
    for (uint32_t round = 0; round < rounds; round++) {
        lossy_disk_fuse(1 + fixture_random(w->f, fixture_random(w->f, 4) ? 60 : 600));
        live(w);
        cut(w);
        come_back(w);
        check(w);
    }
    uint32_t damaged = 0;
    struct mn_verify_result result;
    cut(w); /* with all at rest: every checksum of what all that has left */
    come_back(w);
    check(w);
    ok(mn_verify(&w->f->store, atomic_load(&w->f->instance.control->durable_seq), count_damage, NULL, &damaged,
                 &result));
    assert_int_equal(damaged, 0);
    assert_true(w->cuts >= rounds && w->commits > rounds && w->compactions > 0);
    uint32_t cared = w->cared;
    lossy_disk_close();
    cut(w);
    w->f->store.io = &mn_io_posix;
    lossy_disk_close();
    ok(mn_io_remove_tree(&mn_io_posix, w->trash));
    fixture_free(w->f);
    free(w);
    return cared;
}

static void nothing_acknowledged_is_ever_lost(void **state)
{
    uint32_t cared = 0;
    for (uint64_t seed = 1; seed <= 6; seed++)
        cared += many_cuts(seed, 40);
    assert_true(cared > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_acknowledged_is_ever_lost)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
