/*
 * test_recovery_damage.c - the damages of a log, one by one: each costs what it must and nothing else, and is told
 * once.
 */
#include "tests/unit/sixty.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/wal.h"

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
        assert_int_equal(sixty_there(f, 1, 60), count);
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
    struct fixture *f = sixty_memories();
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
        struct fixture *f = sixty_memories();
        size_t bytes, after;
        uint8_t *before = fixture_slurp(f, "wal/00000003.wal", &bytes);
        fixture_flip(f, "wal/00000003.wal", 20 * 4096 + bit / 8, (uint8_t)(1 << bit % 8)); /* the last batch */
        fixture_start(f);
        assert_int_equal(sixty_there(f, 1, 60), 60);
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
        struct fixture *f = sixty_memories();
        fixture_flip(f, "wal/00000002.wal", (uint64_t)batch * 4096 + 20, 1);
        check_damaged(f, 60, false, 1);
        fixture_free(f);
    }
}

static void the_last_batch_of_all_with_a_damaged_footer_costs_nothing(void **state)
{
    struct fixture *f = sixty_memories();
    uint64_t footer_at = 128 + mn_record_bytes(FIXTURE_DIM, 1); /* id 60 has no content, space "s" */
    fixture_flip(f, "wal/00000003.wal", 20 * 4096 + footer_at + 9, 4);
    check_damaged(f, 60, false, 1);
    fixture_free(f);
}

static void the_last_batch_zeroed_is_lost_and_told(void **state)
{
    struct fixture *f = sixty_memories();
    uint8_t zeros[4096] = {0};
    fixture_scribble(f, "wal/00000003.wal", 20 * 4096, zeros, sizeof zeros);
    fixture_start(f);
    assert_int_equal(sixty_there(f, 1, 60), 59);
    assert_true(f->report.lost);
    assert_int_equal(f->report.last_seq, 60);
    assert_true(atomic_load(&f->instance.control->reasons) & MN_DEGRADED_LOST);
    fixture_free(f);
}

static void both_headers_lost_costs_that_segment_alone(void **state)
{
    struct fixture *f = sixty_memories();
    damage_byte(f, "wal/00000002.wal", 10);
    check_damaged(f, 60, false, 1);
    fixture_free(f);
    f = sixty_memories();
    damage_byte(f, "wal/00000002.wal", 10);
    damage_byte(f, "wal/00000002.wal", (1u << 20) - 4096 + 10);
    fixture_start(f);
    assert_int_equal(sixty_there(f, 1, 20), 20);
    assert_int_equal(sixty_there(f, 21, 40), 0);
    assert_int_equal(sixty_there(f, 41, 60), 20);
    assert_true(f->report.lost);
    assert_int_equal(f->report.quarantined, 1);
    fixture_free(f);
}

static void a_missing_segment_is_told(void **state)
{
    for (int segment = 1; segment <= 3; segment++) {
        struct fixture *f = sixty_memories();
        char path[MN_PATH_MAX];
        assert_int_equal(unlink(mn_store_wal_path(&f->store, path, (uint64_t)segment)), 0);
        fixture_start(f);
        assert_int_equal(sixty_there(f, 1, 60), 40);
        assert_true(f->report.lost);
        assert_int_equal(f->report.last_seq, 60);
        assert_int_equal(f->report.quarantined, 1); /* of the last one nothing but the mark speaks */
        assert_int_equal(fixture_put(f, "s", 1000, 1000, "after"), 61);
        fixture_commit(f);
        fixture_restart(f);
        assert_int_equal(sixty_there(f, 1, 60), 40);
        assert_true(fixture_holds(f, "s", 1000, 1000, "after"));
        fixture_free(f);
    }
}

static void segments_that_are_short_foreign_or_swapped(void **state)
{
    static const int64_t lengths[] = {0, 1, 100, 4096, 5000, 8192, 40960, (1 << 20) - 4096, (1 << 20) - 1};
    char path[MN_PATH_MAX], other[MN_PATH_MAX], third[MN_PATH_MAX];
    for (size_t i = 0; i < MN_ARRAY_LEN(lengths); i++) {
        struct fixture *f = sixty_memories();
        assert_int_equal(truncate(mn_store_wal_path(&f->store, path, 2), lengths[i]), 0);
        fixture_start(f);
        uint32_t kept = lengths[i] < 8192 ? 0 : lengths[i] / 4096 > 21 ? 20 : (uint32_t)(lengths[i] / 4096) - 1;
        assert_int_equal(sixty_there(f, 21, 40), kept);
        assert_int_equal(sixty_there(f, 1, 20) + sixty_there(f, 41, 60), 40);
        assert_int_equal(f->report.lost, kept < 20);
        fixture_restart(f);
        assert_int_equal(sixty_there(f, 21, 40), kept);
        fixture_free(f);
    }
    struct fixture *f = sixty_memories();
    mn_store_wal_path(&f->store, path, 1);
    mn_store_wal_path(&f->store, other, 2);
    mn_store_wal_path(&f->store, third, 77);
    assert_int_equal(rename(path, third) | rename(other, path) | rename(third, other), 0);
    fixture_start(f);
    assert_int_equal(sixty_there(f, 1, 40), 0);
    assert_int_equal(sixty_there(f, 41, 60), 20);
    assert_true(f->report.lost);
    fixture_free(f);
}

/* The mark on disk or in shared memory says more than the log holds. */
static void a_log_that_ends_before_the_mark_has_lost_something(void **state)
{
    struct fixture *f = sixty_memories();
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
    struct fixture *f = sixty_memories();
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
    struct fixture *f = sixty_memories();
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

static void a_log_of_another_format_is_refused_and_left_alone(void **state)
{
    struct fixture *f = sixty_memories();
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
    struct fixture *f = sixty_memories();
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
        cmocka_unit_test(a_log_that_is_cut_while_it_is_read_is_no_loss),
        cmocka_unit_test(a_log_of_another_format_is_refused_and_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
