/*
 * test_recovery.c - from whatever the disk holds back to a store: random lives against a plain model over many deaths,
 * and the damages of the log one by one.
 *
 * The model keeps three things an id: its state, the number its bytes follow from, its version. After each death the
 * store must show exactly the model, and a second recovery must show the same.
 */
#include "tests/unit/store_fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/fault.h"
#include "engine/quarantine.h"
#include "engine/read.h"
#include "engine/verify.h"
#include "engine/wal.h"
#include "shm/process.h"
#include "tests/unit/fail_once.h"

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

/* What a number stands for: a content of its own, none for some. */
static const char *content_of(uint64_t number, char text[64])
{
    snprintf(text, 64, "content %llu", (unsigned long long)number);
    return number % 5 == 0 ? NULL : text;
}

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
        memories[i] = fixture_memory(first + given++, number, content_of(number, texts[i]));
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
    struct mn_str content, wanted = text_str(content_of(number, text));
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
                assert_true(fixture_holds(f, spaces[space], id, number, content_of(number, text)));
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

/* ---- damage ---- */

/* A store whose disk does not wait for anything: damage does not ask what was synced. */
static enum mn_status no_sync(int fd)
{
    return MN_OK;
}

static enum mn_status no_flush(int fd, uint64_t offset, uint64_t bytes)
{
    return MN_OK;
}

static enum mn_status no_folder_sync(const char *path)
{
    return MN_OK;
}

static struct fixture *quick_store(void)
{
    static struct mn_io quick;
    struct fixture *f = fixture_prepare();
    quick = mn_io_posix;
    quick.datasync = no_sync;
    quick.flush = no_flush;
    quick.sync_dir = no_folder_sync;
    f->store.io = &quick;
    fixture_start(f);
    return f;
}

/* Three segments of 20 one-memory batches each, ids 1..60; then down. */
static struct fixture *three_segments(void)
{
    struct fixture *f = quick_store();
    char text[64];
    uint64_t sealed;
    for (uint64_t id = 1; id <= 60; id++) {
        fixture_put(f, "s", id, id, content_of(id, text));
        fixture_commit(f);
        if (id % 20 == 0)
            ok(mn_writer_seal(f->writer, &sealed));
    }
    fixture_power_cut(f);
    return f;
}

/* How many of ids first..last are there, whole; none may be different. */
static uint32_t there(struct fixture *f, uint64_t first, uint64_t last)
{
    uint32_t count = 0;
    char text[64];
    for (uint64_t id = first; id <= last; id++) {
        bool holds = fixture_holds(f, "s", id, id, content_of(id, text));
        assert_true(holds || fixture_absent(f, "s", id));
        count += holds;
    }
    return count;
}

/* Two bits of a byte: what one bit did is undone, this is not. */
static void damage_byte(struct fixture *f, const char *name, uint64_t offset)
{
    fixture_flip(f, name, offset, 0x42);
}

/* Recovers a damaged store three times, with a write in between; all must show `count` of the 60, and the same verdict,
 * but only the first one finds the damage. */
static void check_damaged(struct fixture *f, uint32_t count, bool lost, uint64_t quarantined)
{
    for (int round = 0; round < 3; round++) {
        fixture_start(f);
        assert_int_equal(there(f, 1, 60), count);
        assert_int_equal(f->report.lost, lost);
        assert_int_equal(f->report.quarantined, round == 0 ? quarantined : 0);
        uint32_t reasons = atomic_load(&f->instance.control->reasons);
        assert_int_equal((reasons & MN_DEGRADED_LOST) != 0, lost);
        assert_int_equal((reasons & MN_DEGRADED_QUARANTINE) != 0, quarantined > 0);
        assert_int_equal(fixture_files(f, "quarantine", ".json"), quarantined);
        uint64_t seq = fixture_put(f, "s", 1000, 1000, "after");
        assert_int_equal(seq, 61 + round); /* no seq is given twice */
        fixture_commit(f);
        assert_true(fixture_holds(f, "s", 1000, 1000, "after"));
        fixture_power_cut(f);
    }
}

static void a_damaged_record_in_the_middle_is_quarantined(void **state)
{
    struct fixture *f = three_segments();
    /* Batch 5 of segment 2: its record's payload begins 256 bytes into its block. */
    damage_byte(f, "wal/00000002.wal", 5 * 4096 + 300);
    check_damaged(f, 59, true, 1);
    size_t bytes;
    char *note = (char *)fixture_slurp(f, "quarantine/wal-00000002-20480.json", &bytes);
    assert_non_null(strstr(note, "\"first_seq\": 25"));
    assert_non_null(strstr(note, "/25\""));
    free(note);
    uint8_t *copy = fixture_slurp(f, "quarantine/wal-00000002-20480.bin", &bytes);
    assert_int_equal(bytes, 4096);
    free(copy);
    fixture_free(f);
}

/* Whatever bit of a batch it was: the memory is there bit for bit, the file is whole again, and a note tells of it. */
static void what_one_bit_did_is_undone(void **state)
{
    for (uint64_t bit = 0; bit < 600 * 8; bit += 211) {
        struct fixture *f = three_segments();
        size_t bytes, after;
        uint8_t *before = fixture_slurp(f, "wal/00000003.wal", &bytes);
        fixture_flip(f, "wal/00000003.wal", 20 * 4096 + bit / 8, (uint8_t)(1 << bit % 8)); /* the last batch */
        fixture_start(f);
        assert_int_equal(there(f, 1, 60), 60);
        assert_false(f->report.lost);
        bool padding = !fixture_exists(f, "quarantine/wal-00000003-81920.json");
        assert_int_equal(f->report.quarantined, padding ? 0 : 1);
        fixture_power_cut(f);
        uint8_t *now = fixture_slurp(f, "wal/00000003.wal", &after);
        assert_int_equal(after, bytes);
        assert_memory_equal(now, before, bytes);
        char *note = (char *)fixture_slurp(f, "quarantine/wal-00000003-81920.json", &after);
        assert_non_null(strstr(note, "mended"));
        free(note);
        free(now);
        free(before);
        fixture_free(f);
    }
}

static void a_damaged_header_of_a_batch_costs_nothing(void **state)
{
    for (int batch = 1; batch <= 20; batch++) {
        struct fixture *f = three_segments();
        fixture_flip(f, "wal/00000002.wal", (uint64_t)batch * 4096 + 20, 1);
        check_damaged(f, 60, false, 1);
        fixture_free(f);
    }
}

static void the_last_batch_of_all_with_a_damaged_footer_costs_nothing(void **state)
{
    struct fixture *f = three_segments();
    uint64_t footer_at = 128 + mn_record_bytes(FIXTURE_DIM, 1); /* id 60 has no content, space "s" */
    fixture_flip(f, "wal/00000003.wal", 20 * 4096 + footer_at + 9, 4);
    check_damaged(f, 60, false, 1);
    fixture_free(f);
}

static void the_last_batch_zeroed_is_lost_and_told(void **state)
{
    struct fixture *f = three_segments();
    uint8_t zeros[4096] = {0};
    fixture_scribble(f, "wal/00000003.wal", 20 * 4096, zeros, sizeof zeros);
    fixture_start(f);
    assert_int_equal(there(f, 1, 60), 59);
    assert_true(f->report.lost);
    assert_int_equal(f->report.last_seq, 60);
    assert_true(atomic_load(&f->instance.control->reasons) & MN_DEGRADED_LOST);
    fixture_free(f);
}

static void both_headers_lost_costs_that_segment_alone(void **state)
{
    struct fixture *f = three_segments();
    damage_byte(f, "wal/00000002.wal", 10);
    check_damaged(f, 60, false, 1);
    fixture_free(f);
    f = three_segments();
    damage_byte(f, "wal/00000002.wal", 10);
    damage_byte(f, "wal/00000002.wal", (1u << 20) - 4096 + 10);
    fixture_start(f);
    assert_int_equal(there(f, 1, 20), 20);
    assert_int_equal(there(f, 21, 40), 0);
    assert_int_equal(there(f, 41, 60), 20);
    assert_true(f->report.lost);
    assert_int_equal(f->report.quarantined, 1);
    fixture_free(f);
}

static void a_missing_segment_is_told(void **state)
{
    for (int segment = 1; segment <= 3; segment++) {
        struct fixture *f = three_segments();
        char path[MN_PATH_MAX];
        assert_int_equal(unlink(mn_store_wal_path(&f->store, path, (uint64_t)segment)), 0);
        fixture_start(f);
        assert_int_equal(there(f, 1, 60), 40);
        assert_true(f->report.lost);
        assert_int_equal(f->report.last_seq, 60);
        assert_int_equal(f->report.quarantined, 1); /* of the last one nothing but the mark speaks */
        assert_int_equal(fixture_put(f, "s", 1000, 1000, "after"), 61);
        fixture_commit(f);
        fixture_restart(f);
        assert_int_equal(there(f, 1, 60), 40);
        assert_true(fixture_holds(f, "s", 1000, 1000, "after"));
        fixture_free(f);
    }
}

static void segments_that_are_short_foreign_or_swapped(void **state)
{
    static const int64_t lengths[] = {0, 1, 100, 4096, 5000, 8192, 40960, (1 << 20) - 4096, (1 << 20) - 1};
    char path[MN_PATH_MAX], other[MN_PATH_MAX], third[MN_PATH_MAX];
    for (size_t i = 0; i < MN_ARRAY_LEN(lengths); i++) {
        struct fixture *f = three_segments();
        assert_int_equal(truncate(mn_store_wal_path(&f->store, path, 2), lengths[i]), 0);
        fixture_start(f);
        uint32_t kept = lengths[i] < 8192 ? 0 : lengths[i] / 4096 > 21 ? 20 : (uint32_t)(lengths[i] / 4096) - 1;
        assert_int_equal(there(f, 21, 40), kept);
        assert_int_equal(there(f, 1, 20) + there(f, 41, 60), 40);
        assert_int_equal(f->report.lost, kept < 20);
        fixture_restart(f);
        assert_int_equal(there(f, 21, 40), kept);
        fixture_free(f);
    }
    struct fixture *f = three_segments();
    mn_store_wal_path(&f->store, path, 1);
    mn_store_wal_path(&f->store, other, 2);
    mn_store_wal_path(&f->store, third, 77);
    assert_int_equal(rename(path, third) | rename(other, path) | rename(third, other), 0);
    fixture_start(f);
    assert_int_equal(there(f, 1, 40), 0);
    assert_int_equal(there(f, 41, 60), 20);
    assert_true(f->report.lost);
    fixture_free(f);
}

/* The mark on disk or in shared memory says more than the log holds. */
static void a_log_that_ends_before_the_mark_has_lost_something(void **state)
{
    struct fixture *f = three_segments();
    fixture_open_instance(f);
    atomic_store(&f->instance.control->acked_seq, 100);
    ok(fixture_recover(f));
    assert_true(f->report.lost);
    assert_int_equal(f->report.last_seq, 100);
    fixture_power_cut(f);
    fixture_start(f); /* the mark on disk still says 60 */
    assert_false(f->report.lost);
    fixture_free(f);
}

/* A word that something has written over would end the store's seqs at once. */
static void an_acknowledged_seq_beyond_all_measure_is_not_believed(void **state)
{
    struct fixture *f = three_segments();
    fixture_open_instance(f);
    atomic_store(&f->instance.control->acked_seq, UINT64_C(1) << 50);
    ok(fixture_recover(f));
    assert_false(f->report.lost);
    assert_int_equal(f->report.last_seq, 60);
    fixture_free(f);
}

/* A torn end that nobody was promised is dropped in silence, and its seq is used again. */
static void a_torn_end_is_dropped_in_silence(void **state)
{
    struct fixture *f = three_segments();
    fixture_start(f);
    for (uint64_t id = 1; id <= 60; id++) /* one large batch, of which a part lands */
        fixture_put(f, "torn", id, id, "never acknowledged");
    ok(mn_writer_append(f->writer));
    fixture_power_cut(f);
    uint8_t zeros[8192] = {0};
    fixture_scribble(f, "wal/00000004.wal", 4096 + 8192, zeros, sizeof zeros);
    fixture_start(f);
    assert_false(f->report.lost);
    assert_int_equal(f->report.quarantined, 0);
    assert_true(f->report.torn_bytes > 0);
    assert_int_equal(f->report.last_seq, 60);
    assert_int_equal(fixture_count(f), 60);
    assert_int_equal(fixture_put(f, "s", 61, 61, "x"), 61);
    fixture_commit(f);
    fixture_restart(f);
    assert_int_equal(fixture_count(f), 61);
    assert_false(f->report.lost);
    fixture_free(f);
}

/* A new version whose payload is damaged must not let the old one rise. */
static void a_damaged_replacement_hides_what_it_replaced(void **state)
{
    struct fixture *f = fixture_new();
    fixture_put(f, "s", 1, 1, "old");
    fixture_put(f, "s", 2, 2, "other");
    fixture_commit(f); /* block 1 */
    fixture_put(f, "s", 1, 3, "new");
    fixture_commit(f); /* block 2 */
    fixture_put(f, "s", 3, 4, "later");
    fixture_commit(f);
    fixture_power_cut(f);
    damage_byte(f, "wal/00000001.wal", 2 * 4096 + 128 + 128 + 5);
    for (int round = 0; round < 2; round++) {
        fixture_start(f);
        assert_true(f->report.lost);
        assert_true(fixture_absent(f, "s", 1));
        assert_true(fixture_holds(f, "s", 2, 2, "other"));
        assert_true(fixture_holds(f, "s", 3, 4, "later"));
        fixture_power_cut(f);
    }
    fixture_start(f);
    fixture_put(f, "s", 1, 5, "newest");
    fixture_commit(f);
    fixture_restart(f);
    assert_true(fixture_holds(f, "s", 1, 5, "newest"));
    fixture_free(f);
}

/* ---- what was taken away stays away ---- */

enum { ZEROED, FILLED, STALE, FLIPPED, DAMAGES };

/* Id 1 is replaced, 2 and 12 are deleted (12 by a forget of many), 3 is suppressed, 4 revised, 5 superseded, 6 purged;
 * then life goes on. */
static struct fixture *taken_away(void)
{
    struct fixture *f = quick_store();
    struct mn_outcome outcome;
    for (uint64_t id = 1; id <= 40; id++)
        fixture_put(f, "s", id, id, "old");
    fixture_commit(f);
    fixture_put(f, "s", 1, 101, "new");
    fixture_commit(f);
    fixture_forget(f, "s", 2, MN_FORGET_DELETE);
    fixture_commit(f);
    fixture_forget(f, "s", 3, MN_FORGET_SUPPRESS);
    fixture_commit(f);
    struct mn_revise revise = {.write = fixture_write(f, "s"), .id = number_id(4), .set_confidence = true};
    ok(mn_writer_revise(f->writer, &revise, &outcome));
    fixture_commit(f);
    struct mn_id superseded = number_id(5);
    struct mn_memory m = fixture_memory(50, 50, "supersedes 5");
    m.supersedes = &superseded;
    m.supersede_count = 1;
    struct mn_remember remember = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
    ok(mn_writer_remember(f->writer, &remember, &outcome));
    fixture_commit(f);
    fixture_forget(f, "s", 6, MN_FORGET_PURGE);
    fixture_commit(f);
    struct mn_id many[10];
    for (uint64_t i = 0; i < 10; i++)
        many[i] = number_id(11 + i);
    struct mn_forget forget = {.write = fixture_write(f, "s"), .ids = many, .id_count = 10, .mode = MN_FORGET_DELETE};
    ok(mn_writer_forget(f->writer, &forget, &outcome));
    fixture_commit(f);
    fixture_put(f, "s", 60, 60, "later");
    fixture_commit(f);
    fixture_power_cut(f);
    return f;
}

static void damage_block(struct fixture *f, uint64_t block, int how)
{
    uint8_t bytes[4096];
    size_t length;
    uint8_t *log = fixture_slurp(f, "wal/00000001.wal", &length);
    memset(bytes, how == FILLED ? 0xff : 0, sizeof bytes);
    if (how == STALE)
        memcpy(bytes, log + (block + 1) * sizeof bytes, sizeof bytes);
    if (how == FLIPPED) {
        memcpy(bytes, log + block * sizeof bytes, sizeof bytes);
        bytes[130] ^= 4; /* two bits, so that nobody can tell where: the first record's header */
        bytes[145] ^= 1;
    }
    free(log);
    fixture_scribble(f, "wal/00000001.wal", block * sizeof bytes, bytes, sizeof bytes);
}

static bool risen(struct fixture *f, uint64_t id)
{
    return fixture_holds(f, "s", id, id, "old");
}

static void nothing_rises_whichever_block_is_lost(void **state)
{
    uint64_t blocks = 0;
    for (int how = 0; how < DAMAGES; how++)
        for (uint64_t block = 1; block == 1 || block <= blocks; block++) {
            struct fixture *f = taken_away();
            if (blocks == 0) {
                size_t length;
                uint8_t *log = fixture_slurp(f, "wal/00000001.wal", &length);
                for (blocks = length / 4096 - 2; mn_wal_zero(log + blocks * 4096, 4096);)
                    blocks--;
                assert_true(blocks > 15);
                free(log);
            }
            damage_block(f, block, how);
            for (int round = 0; round < 2; round++) {
                fixture_start(f);
                assert_false(risen(f, 1));
                for (uint64_t id = 2; id <= 6; id++) /* 4 was revised: the same content, a later version */
                    assert_true(id == 4 || fixture_absent(f, "s", id));
                for (uint64_t id = 11; id <= 20; id++)
                    assert_true(fixture_absent(f, "s", id));
                assert_int_equal(fixture_forget(f, "s", 6, MN_FORGET_RESTORE), 0);
                assert_true(atomic_load(&f->instance.control->reasons) & MN_DEGRADED_QUARANTINE);
                fixture_power_cut(f);
            }
            fixture_free(f);
        }
}

static void a_log_of_another_format_is_refused_and_left_alone(void **state)
{
    struct fixture *f = three_segments();
    size_t bytes;
    uint8_t *log = fixture_slurp(f, "wal/00000002.wal", &bytes);
    struct mn_wal_header *first = (void *)log, *last = (void *)(log + bytes - MN_WAL_BLOCK);
    first->format = MN_WAL_FORMAT - 1;
    mn_wal_header_seal(first);
    *last = *first;
    fixture_scribble(f, "wal/00000002.wal", 0, log, bytes);
    fixture_open_instance(f);
    fails(MN_VERSION_MISMATCH, fixture_recover(f));
    assert_non_null(strstr(mn_error_text(), "format 1"));
    assert_int_equal(fixture_files(f, "quarantine", ""), 0);
    uint8_t *after = fixture_slurp(f, "wal/00000002.wal", &bytes);
    assert_memory_equal(after, log, bytes);
    free(after);
    free(log);
    fixture_free(f);
}

/* ---- a disk that cannot be read ---- */

static char unreadable[MN_PATH_MAX]; /* the file whose pages go away once it is mapped */

static enum mn_status map_unreadable(int fd, uint64_t bytes, const void **base)
{
    struct stat mapped, wanted;
    enum mn_status status = mn_io_posix.map(fd, bytes, base);
    if (status == MN_OK && fstat(fd, &mapped) == 0 && stat(unreadable, &wanted) == 0 && mapped.st_ino == wanted.st_ino)
        assert_int_equal(truncate(unreadable, 16 * 4096), 0);
    return status;
}

/* A file that somebody cuts meanwhile fails this recovery with a sentence, changes nothing, and loses nothing. */
static void a_log_that_is_cut_while_it_is_read_is_no_loss(void **state)
{
    struct fixture *f = three_segments();
    const struct mn_io *quick = f->store.io;
    struct mn_io io = *quick;
    size_t bytes;
    uint8_t *log = fixture_slurp(f, "wal/00000002.wal", &bytes);
    io.map = map_unreadable;
    mn_store_path(&f->store, unreadable, "wal/00000002.wal");
    f->store.io = &io;
    for (int round = 0; round < 2; round++) {
        fixture_open_instance(f);
        fails(MN_SYSTEM, fixture_recover(f));
        assert_non_null(strstr(mn_error_text(), "log segment 2"));
        assert_int_equal(fixture_files(f, "quarantine", ""), 0);
        fixture_power_cut(f);
        assert_int_equal(truncate(unreadable, (off_t)bytes), 0);
        fixture_scribble(f, "wal/00000002.wal", 0, log, bytes);
    }
    unreadable[0] = 0;
    f->store.io = quick;
    check_damaged(f, 60, false, 0);
    free(log);
    fixture_free(f);
}

/* ---- twice, and cut short ---- */

struct file_list {
    char names[200][96];
    uint64_t bytes[200];
    uint32_t count;
};

static void list_files(const struct fixture *f, const char *folder, struct file_list *list)
{
    char path[MN_PATH_MAX];
    DIR *dir = opendir(mn_store_path(&f->store, path, folder));
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char name[80];
        struct stat st;
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "LOCK") == 0)
            continue;
        snprintf(name, sizeof name, "%.30s%s%.40s", folder, folder[0] ? "/" : "", entry->d_name);
        assert_int_equal(stat(mn_store_path(&f->store, path, name), &st), 0);
        if (S_ISDIR(st.st_mode)) {
            list_files(f, name, list);
        } else if (st.st_size > 0) {
            assert_true(list->count < MN_ARRAY_LEN(list->names));
            snprintf(list->names[list->count], sizeof list->names[0], "%s", name);
            list->bytes[list->count++] = (uint64_t)st.st_size;
        }
    }
    closedir(dir);
}

static void count_finding(void *context, const char *path, const char *what)
{
    print_error("%s: %s\n", path, what);
    ++*(uint32_t *)context;
}

/* A file's bytes, as a number; folders and what recovery does not write are left out. */
static uint64_t hash_of_folders(struct fixture *f)
{
    static const char *const folders[] = {"wal", "quarantine"};
    uint64_t hash = 0;
    for (size_t i = 0; i < MN_ARRAY_LEN(folders); i++) {
        struct file_list *list = calloc(1, sizeof *list);
        list_files(f, folders[i], list);
        for (uint32_t n = 0; n < list->count; n++) {
            size_t bytes;
            uint8_t *data = fixture_slurp(f, list->names[n], &bytes);
            if (!strstr(list->names[n], "MARK"))
                hash += mn_str_hash((struct mn_str){(const char *)data, (uint32_t)bytes}) ^
                        mn_str_hash(text_str(list->names[n]));
            free(data);
        }
        free(list);
    }
    return hash;
}

/* Several kinds of damage at once. */
static struct fixture *damaged_store(void)
{
    struct fixture *f = taken_away();
    damage_block(f, 3, ZEROED);
    damage_block(f, 6, FLIPPED);
    fixture_flip(f, "wal/00000001.wal", 9 * 4096 + 200, 4);
    damage_block(f, 12, FILLED);
    fixture_flip(f, "wal/00000001.wal", 20, 4); /* the segment's first header */
    return f;
}

static void recovering_twice_gives_the_same_bytes(void **state)
{
    struct fixture *f = damaged_store();
    fixture_open_instance(f);
    ok(fixture_recover(f));
    uint64_t first = hash_of_folders(f), quarantined = f->report.quarantined, count = fixture_count(f);
    assert_true(quarantined >= 4 && f->report.lost);
    for (int round = 0; round < 3; round++) {
        if (round == 1) {
            fixture_power_cut(f);
            fixture_open_instance(f);
        }
        ok(fixture_recover(f));
        assert_int_equal(f->report.quarantined, 0); /* nothing new */
        assert_true(f->report.lost);                /* and still told */
        assert_true(hash_of_folders(f) == first);
        assert_int_equal(fixture_count(f), count);
    }
    struct mn_verify_result result;
    uint32_t damaged = 0;
    ok(mn_verify(&f->store, UINT64_MAX, count_finding, NULL, &damaged, &result));
    assert_int_equal(damaged, 0);
    fixture_free(f);
}

/* Recovery fails at any of its steps, and comes to the same end the next time. */
static void a_recovery_cut_short_anywhere_comes_to_the_same_end(void **state)
{
    struct fixture *f = damaged_store();
    size_t bytes;
    char path[MN_PATH_MAX];
    uint8_t *damaged = fixture_slurp(f, "wal/00000001.wal", &bytes);
    fixture_open_instance(f);
    ok(fixture_recover(f));
    uint64_t wanted = hash_of_folders(f), count = fixture_count(f);
    const struct mn_io *quick = f->store.io;
    bool failed = true;
    for (uint32_t n = 1; failed; n++) {
        struct mn_io io = fail_once_io();
        fixture_power_cut(f);
        fixture_scribble(f, "wal/00000001.wal", 0, damaged, bytes);
        ok(mn_io_remove_tree(&mn_io_posix, mn_store_path(&f->store, path, "quarantine")));
        ok(mn_io_posix.mkdir(path));
        fixture_open_instance(f);
        fail_once = (struct fail_once){.fail_at = n, .status = MN_SYSTEM};
        f->store.io = &io;
        failed = fixture_recover(f) != MN_OK;
        assert_true(failed || n > 10);
        f->store.io = quick;
        if (n % 2) {
            fixture_power_cut(f);
            fixture_open_instance(f);
        }
        ok(fixture_recover(f));
        assert_true(hash_of_folders(f) == wanted);
        assert_int_equal(fixture_count(f), count);
    }
    free(damaged);
    fixture_free(f);
}

/* ---- one flipped bit anywhere ---- */

/* Of ids 1..80: multiples of 7 are deleted, others there. Returns how many are missing or unreadable. */
static uint32_t look_at_all(struct fixture *f, uint32_t *risen)
{
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint32_t missing = 0;
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_reader_pin(reader, 0, &snapshot));
    for (uint64_t id = 1; id <= 80; id++) {
        struct mn_id key = number_id(id);
        struct mn_row_ref ref = mn_read_find(&snapshot, text_str("s"), &key);
        struct mn_str content = {0}, wanted;
        char text[64];
        bool bin;
        if (id % 7 == 0) {
            *risen += ref.part != MN_NONE;
            continue;
        }
        if (ref.part == MN_NONE) {
            missing++;
            continue;
        }
        const struct mn_part *part = &snapshot.parts[ref.part];
        const float *vector = mn_part_vector(part, ref.row);
        enum mn_status status = mn_part_content(part, ref.row, &content, &bin);
        wanted = text_str(content_of(id, text));
        if (!vector || status == MN_CORRUPT) {
            missing++; /* told by its block's checksum */
            continue;
        }
        ok(status);
        assert_memory_equal(vector, fixture_vector(id), FIXTURE_DIM * sizeof(float)); /* never wrong bytes */
        assert_true(mn_str_equal(content, wanted));
        assert_int_equal(mn_part_at(part, ref.row), id);
    }
    if (missing > 0 && snapshot.missing > 0)
        missing = UINT32_MAX; /* a whole segment, and told of */
    mn_reader_close(reader);
    return missing;
}

static struct fixture *store_of_all_kinds(void)
{
    static const struct mn_compact_policy policy = {
        .min_rows = 1, .min_log_segments = 1, .fanout = 4, .dead_percent = 25, .segment_rows_max = 1000};
    struct fixture *f = fixture_new();
    struct mn_compactor *compactor;
    struct mn_compact_plan plan;
    struct mn_compact_proposal proposal;
    char text[64];
    uint64_t sealed;
    ok(mn_compactor_open(&compactor, &f->store, &f->instance));
    for (uint64_t id = 1; id <= 80; id++) {
        fixture_put(f, "s", id, id, content_of(id, text));
        if (id % 4 == 0)
            fixture_commit(f);
        if (id % 14 == 0)
            fixture_forget(f, "s", id - 7, MN_FORGET_DELETE);
        if (id != 50)
            continue;
        fixture_commit(f);
        ok(mn_writer_seal(f->writer, &sealed));
        atomic_store(&f->instance.control->history_seq, sealed);
        ok(mn_compact_plan_make(compactor, &policy, true, &plan));
        ok(mn_compact_build(compactor, &plan, &policy, NULL, NULL, &proposal));
        ok(mn_writer_commit_proposal(f->writer, &proposal));
        mn_compact_proposal_free(&proposal);
        mn_compact_plan_free(&plan);
    }
    for (uint64_t id = 7; id <= 80; id += 7)
        fixture_forget(f, "s", id, MN_FORGET_DELETE);
    fixture_commit(f);
    mn_compactor_close(compactor);
    fixture_power_cut(f);
    return f;
}

static void check_one_flip(struct fixture *f, const char *name, uint64_t offset, uint8_t mask)
{
    struct mn_store as_was = f->store;
    size_t bytes;
    uint8_t *before = fixture_slurp(f, name, &bytes);
    fixture_flip(f, name, offset, mask);
    enum mn_status status = mn_store_open(&f->store, &mn_io_posix, f->dir);
    ok(status); /* nothing keeps the rest from being served */
    f->store = as_was;
    fixture_open_instance(f);
    ok(fixture_recover(f));
    uint32_t risen = 0, missing = look_at_all(f, &risen);
    uint32_t reasons = atomic_load(&f->instance.control->reasons);
    bool in_block = missing > 0 && strncmp(name, "columns/", 8) == 0; /* found by whoever touches it */
    if ((missing > 0 || risen > 0) && reasons == 0 && !in_block)
        print_error("%s at %llu: %u missing, %u risen, and nothing said\n", name, (unsigned long long)offset, missing,
                    risen);
    assert_true((missing == 0 && risen == 0) || reasons != 0 || in_block);
    assert_true(risen == 0 || (reasons & MN_DEGRADED_LOST));
    fixture_power_cut(f);
    char path[MN_PATH_MAX];
    if (strncmp(name, "ledger.", 7) != 0)
        fixture_scribble(f, name, offset, &before[offset], 1); /* a ledger was made anew */
    free(before);
    ok(mn_io_remove_tree(&mn_io_posix, mn_store_path(&f->store, path, "quarantine")));
    ok(mn_io_posix.mkdir(path));
}

static void a_flipped_bit_anywhere_gives_no_wrong_bytes_and_is_told(void **state)
{
    struct fixture *f = store_of_all_kinds();
    struct file_list *list = calloc(1, sizeof *list);
    list_files(f, "", list);
    assert_true(list->count > 15);
    for (uint32_t round = 0; round < 600; round++) {
        uint32_t n = round % list->count;
        bool log = strstr(list->names[n], ".wal") != NULL; /* most of which is zeros behind its end */
        uint64_t below = log && round % 5 != 0 ? 16 * 4096 : list->bytes[n];
        check_one_flip(f, list->names[n],
                       fixture_random(f, (uint32_t)(below < list->bytes[n] ? below : list->bytes[n])),
                       (uint8_t)(1 << fixture_random(f, 8)));
    }
    fixture_start(f); /* and undamaged it is all there */
    uint32_t risen = 0;
    assert_int_equal(look_at_all(f, &risen), 0);
    assert_int_equal(risen, 0);
    assert_int_equal(atomic_load(&f->instance.control->reasons), 0);
    free(list);
    fixture_free(f);
}

/* Ids that were assigned are not assigned again, though what knew of them is gone. */
static void a_lost_ledger_is_made_anew(void **state)
{
    for (int how = 0; how < 2; how++) {
        struct fixture *f = store_of_all_kinds();
        char name[64], path[MN_PATH_MAX];
        struct mn_manifest manifest;
        ok(mn_manifest_read(&manifest, &f->store, NULL));
        snprintf(name, sizeof name, "ledger.%llu", (unsigned long long)manifest.ledger_seq);
        mn_manifest_free(&manifest);
        if (how == 0)
            fixture_flip(f, name, 9, 1);
        else
            assert_int_equal(unlink(mn_store_path(&f->store, path, name)), 0);
        for (int round = 0; round < 2; round++) {
            uint32_t risen = 0;
            fixture_start(f);
            assert_int_equal(f->report.lost, round == 0);
            assert_int_equal(f->report.quarantined, round == 0);
            assert_int_equal(fixture_files(f, "quarantine", ".json"), 1);
            assert_int_equal(fixture_files(f, "quarantine", ".bin"), how == 0);
            assert_int_equal(look_at_all(f, &risen) + risen, 0);
            assert_true(fixture_exists(f, name));
            struct mn_memory m = fixture_memory(0, 1, "x");
            struct mn_remember request = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
            struct mn_outcome outcome;
            ok(mn_writer_remember(f->writer, &request, &outcome));
            assert_int_equal(outcome.ids[0].lo, 81 + round);
            fixture_commit(f);
            fixture_power_cut(f);
        }
        fixture_free(f);
    }
}

static void a_damaged_manifest_or_store_is_refused_with_a_sentence(void **state)
{
    struct fixture *f = three_segments();
    char path[MN_PATH_MAX];
    FILE *file = fopen(mn_store_path(&f->store, path, "MANIFEST"), "w");
    assert_non_null(file);
    fputs("this is no manifest, whatever it was before, and it is long enough for one", file);
    fclose(file);
    fixture_open_instance(f);
    fails(MN_CORRUPT, fixture_recover(f));
    assert_int_equal(atomic_load(&f->instance.control->view_gen), 0);
    assert_int_equal(unlink(path), 0);
    ok(fixture_recover(f));
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_store_recovers_to_nothing),
        cmocka_unit_test(it_waits_for_nobody_and_disturbs_no_writer),
        cmocka_unit_test(an_unfinished_view_is_not_in_the_way),
        cmocka_unit_test(a_reader_is_served_across_a_recovery),
        cmocka_unit_test(a_damaged_record_in_the_middle_is_quarantined),
        cmocka_unit_test(what_one_bit_did_is_undone),
        cmocka_unit_test(a_damaged_header_of_a_batch_costs_nothing),
        cmocka_unit_test(the_last_batch_of_all_with_a_damaged_footer_costs_nothing),
        cmocka_unit_test(the_last_batch_zeroed_is_lost_and_told),
        cmocka_unit_test(both_headers_lost_costs_that_segment_alone),
        cmocka_unit_test(a_missing_segment_is_told),
        cmocka_unit_test(segments_that_are_short_foreign_or_swapped),
        cmocka_unit_test(a_log_that_ends_before_the_mark_has_lost_something),
        cmocka_unit_test(an_acknowledged_seq_beyond_all_measure_is_not_believed),
        cmocka_unit_test(a_torn_end_is_dropped_in_silence),
        cmocka_unit_test(a_damaged_replacement_hides_what_it_replaced),
        cmocka_unit_test(nothing_rises_whichever_block_is_lost),
        cmocka_unit_test(a_log_that_is_cut_while_it_is_read_is_no_loss),
        cmocka_unit_test(a_log_of_another_format_is_refused_and_left_alone),
        cmocka_unit_test(recovering_twice_gives_the_same_bytes),
        cmocka_unit_test(a_recovery_cut_short_anywhere_comes_to_the_same_end),
        cmocka_unit_test(a_damaged_manifest_or_store_is_refused_with_a_sentence),
        cmocka_unit_test(a_lost_ledger_is_made_anew),
        cmocka_unit_test(a_flipped_bit_anywhere_gives_no_wrong_bytes_and_is_told),
        cmocka_unit_test(a_random_life_without_compaction),
        cmocka_unit_test(a_random_life_with_compactions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
