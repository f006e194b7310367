/*
 * test_recovery_read.c - a log with blocks that the disk cannot read: every other memory is there, what is missing is
 * told, the file is kept, and writes go on; but where a forget may be lost with its ids, nothing is touched.
 */
#include "tests/unit/bad_blocks.h"
#include "tests/unit/store_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "engine/verify.h"
#include "engine/wal.h"

static void make_bad(const struct fixture *f, const char *name, uint64_t from, uint64_t to)
{
    char path[MN_PATH_MAX];
    bad_blocks_make(mn_store_path(&f->store, path, name), from, to);
}

/* ---- a store ---- */

#define SMALL 20u /* memories with a batch, and so a block, of their own: one to a segment's batch 1.. */
#define LARGE 30u /* in one batch of many blocks behind them */
#define IDS   (2 * (SMALL + LARGE))

static const char *content_of(uint64_t id, char text[600])
{
    memset(text, (int)('a' + id % 26), 599);
    text[id <= SMALL || (id > SMALL + LARGE && id <= 2 * SMALL + LARGE) ? 20 : 599] = 0;
    return text;
}

/* Two log segments, each with batches 1 to SMALL in the blocks of their numbers, and a large one behind. Down. */
static struct fixture *two_segments(void)
{
    struct fixture *f = fixture_new();
    char text[600];
    uint64_t sealed;
    bad_blocks_heal();
    for (uint64_t id = 1; id <= IDS; id++) {
        uint64_t number = (id - 1) % (SMALL + LARGE) + 1;
        fixture_put(f, "s", id, id, content_of(id, text));
        if (number <= SMALL || number == SMALL + LARGE)
            fixture_commit(f);
        if (number == SMALL + LARGE)
            ok(mn_writer_seal(f->writer, &sealed));
    }
    fixture_power_cut(f);
    f->store.io = &bad_blocks_io;
    return f;
}

/* How many ids are there, whole; none may be different. */
static uint32_t there(struct fixture *f)
{
    uint32_t count = 0;
    char text[600];
    for (uint64_t id = 1; id <= IDS; id++) {
        bool holds = fixture_holds(f, "s", id, id, content_of(id, text));
        assert_true(holds || fixture_absent(f, "s", id));
        count += holds;
    }
    return count;
}

/* Starts, with all but `missing` there, and lives on; the next start finds the same, and nothing more to tell. */
static void check_lives(struct fixture *f, uint32_t missing)
{
    for (int round = 0; round < 2; round++) {
        fixture_start(f);
        assert_int_equal(there(f), IDS - missing);
        assert_int_equal(f->report.lost, missing > 0);
        if (round == 0)
            assert_true(f->report.quarantined > 0 && f->report.unread > 0);
        assert_true(atomic_load(&f->instance.control->reasons) & MN_DEGRADED_QUARANTINE);
        fixture_put(f, "s", 1000, 1000 + (uint64_t)round, "after");
        fixture_commit(f);
        assert_true(fixture_holds(f, "s", 1000, 1000 + (uint64_t)round, "after"));
        fixture_power_cut(f);
    }
}

static bool noted(const struct fixture *f, const char *note, const char *what)
{
    size_t bytes;
    char *text = (char *)fixture_slurp(f, note, &bytes);
    bool found = strstr(text, what) != NULL;
    free(text);
    return found;
}

/* ---- tests ---- */

static void a_block_that_cannot_be_read_costs_what_is_in_it(void **state)
{
    struct fixture *f = two_segments();
    struct stat was, kept;
    char path[MN_PATH_MAX];
    make_bad(f, "wal/00000001.wal", 5, 6);
    assert_int_equal(stat(mn_store_path(&f->store, path, "wal/00000001.wal"), &was), 0);
    check_lives(f, 1);
    assert_true(noted(f, "quarantine/wal-00000001-20480.json", "1 blocks of it cannot be read"));
    assert_true(noted(f, "quarantine/wal-00000001-20480.json", "\"first_seq\": 5, \"last_seq\": 5"));
    assert_true(noted(f, "quarantine/wal-00000001-unread.json", "\"file\": \"wal-00000001-unread.wal\""));
    assert_int_equal(stat(mn_store_path(&f->store, path, "quarantine/wal-00000001-unread.wal"), &kept), 0);
    assert_int_equal(kept.st_ino, was.st_ino); /* the very file, with what a better disk may read in it */
    assert_int_equal(fixture_files(f, "quarantine", ".json"), 2);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

/* The footer stands in another block, and tells the ids of records that nothing else is left of. */
static void the_ids_of_what_is_lost_come_from_the_footer(void **state)
{
    struct fixture *f = two_segments();
    char note[64];
    make_bad(f, "wal/00000002.wal", SMALL + 2, SMALL + 3);
    fixture_start(f);
    uint32_t found = there(f);
    assert_in_range(found, IDS - 10, IDS - 4);
    snprintf(note, sizeof note, "quarantine/wal-00000002-%u.json", (SMALL + 1) * BAD_BLOCK);
    for (uint64_t id = 2 * SMALL + LARGE + 1; id <= IDS; id++) {
        char text[32];
        snprintf(text, sizeof text, "/%llu\"", (unsigned long long)id);
        assert_true(noted(f, note, text));
    }
    fixture_power_cut(f);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

/* Whichever block it is: nothing but what lay in it is missing, and what is missing is told. */
static void any_block_may_be_the_one(void **state)
{
    for (uint64_t block = 0; block < 1048576 / BAD_BLOCK; block += block < SMALL + 12 ? 1 : 37) {
        struct fixture *f = two_segments();
        make_bad(f, "wal/00000002.wal", block, block + 1);
        fixture_start(f);
        uint32_t found = there(f);
        assert_in_range(found, IDS - LARGE, IDS);
        assert_int_equal(f->report.lost, found < IDS);
        assert_true(block == 0 || found == IDS || f->report.unread == 1);
        fixture_put(f, "s", 1000, 1000, "after");
        fixture_commit(f);
        fixture_power_cut(f);
        fixture_start(f);
        assert_int_equal(there(f), found);
        assert_int_equal(f->report.quarantined, 0);
        assert_true(fixture_holds(f, "s", 1000, 1000, "after"));
        fixture_power_cut(f);
        f->store.io = &mn_io_posix;
        fixture_free(f);
    }
}

/* What cannot be judged is refused, and nothing is lost when the disk is well. */
static void check_refused(struct fixture *f)
{
    for (int round = 0; round < 2; round++) {
        fixture_open_instance(f);
        fails(MN_SYSTEM, fixture_recover(f));
        assert_non_null(strstr(mn_error_text(), "nothing was changed"));
        assert_int_equal(fixture_files(f, "quarantine", ""), 0);
        fixture_power_cut(f);
    }
    bad_blocks_heal(); /* it was a cable */
    fixture_start(f);
    assert_int_equal(there(f), IDS);
    assert_false(f->report.lost);
    fixture_power_cut(f);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

/* No header and so no salt: none of it can be told. */
static void a_segment_of_which_nothing_can_be_read_is_refused(void **state)
{
    struct fixture *f = two_segments();
    make_bad(f, "wal/00000001.wal", 0, 1048576 / BAD_BLOCK);
    check_refused(f);
}

/* Batches with all they have, and so perhaps a forget and the footer that tells its ids. */
static void whole_batches_that_cannot_be_read_are_refused(void **state)
{
    struct fixture *f = two_segments();
    make_bad(f, "wal/00000001.wal", 5, 8);
    check_refused(f);
}

static void a_disk_that_reads_nothing_is_refused(void **state)
{
    struct fixture *f = two_segments();
    make_bad(f, "wal/00000001.wal", 0, 1048576 / BAD_BLOCK);
    make_bad(f, "wal/00000002.wal", 0, 1048576 / BAD_BLOCK);
    check_refused(f);
}

/* Blocks that it cannot read in a file that was made anew after the last time: both are kept. */
static void it_happens_twice_to_one_segment(void **state)
{
    struct fixture *f = two_segments();
    make_bad(f, "wal/00000001.wal", 5, 6);
    fixture_start(f);
    fixture_power_cut(f);
    make_bad(f, "wal/00000001.wal", 7, 8);
    fixture_start(f);
    assert_int_equal(there(f), IDS - 2);
    assert_true(fixture_exists(f, "quarantine/wal-00000001-unread.wal"));
    assert_true(fixture_exists(f, "quarantine/wal-00000001-unread-2.wal"));
    fixture_power_cut(f);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

/* Behind the end nothing is known to have stood: nothing is lost, and verify finds nothing wrong with the new file. */
static void what_lies_behind_the_end_costs_nothing(void **state)
{
    struct fixture *f = two_segments();
    uint32_t damaged = 0;
    uint64_t bytes = 0;
    make_bad(f, "wal/00000002.wal", 200, 203);
    check_lives(f, 0);
    ok(mn_wal_verify(&f->store, 2, UINT64_MAX, &bytes, count_damage, &damaged));
    assert_int_equal(damaged, 0);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

/* A disk that fails a few times and then reads: nothing is missing, and nothing to tell. */
static void a_block_that_is_read_in_the_end_costs_nothing(void **state)
{
    static const uint64_t blocks[] = {0, 5, SMALL + 3};
    for (size_t i = 0; i < MN_ARRAY_LEN(blocks); i++) {
        struct fixture *f = two_segments();
        make_bad(f, "wal/00000001.wal", blocks[i], blocks[i] + 1);
        bad_blocks_fail(4);
        fixture_start(f);
        assert_int_equal(there(f), IDS);
        assert_false(f->report.lost);
        assert_int_equal(f->report.quarantined + f->report.unread, 0);
        assert_int_equal(fixture_files(f, "quarantine", ""), 0);
        fixture_power_cut(f);
        f->store.io = &mn_io_posix;
        fixture_free(f);
    }
}

/* ---- verify ---- */

struct found {
    uint32_t first, second, others; /* of the two segments, and of anything else */
    bool unread;
    char what[256]; /* of the last */
};

static void sort_damage(void *context, const char *path, const char *what)
{
    struct found *found = context;
    bool first = strstr(path, "wal/00000001.wal") != NULL, second = strstr(path, "wal/00000002.wal") != NULL;
    *(first ? &found->first : second ? &found->second : &found->others) += 1;
    found->unread |= strstr(what, "the disk cannot read") != NULL;
    snprintf(found->what, sizeof found->what, "%s: %s", path, what);
}

/* What cannot be read is told like any damage, once, and everything else is looked through as ever. */
static void verify_tells_what_cannot_be_read(void **state)
{
    static const struct {
        uint64_t from, to;
    } bad[] = {{5, 6}, {0, 1}, {255, 256}, {SMALL + 2, SMALL + 5}, {200, 201}, {0, 256}};
    struct mn_verify_result whole, result;
    for (size_t i = 0; i < MN_ARRAY_LEN(bad); i++) {
        struct fixture *f = two_segments();
        struct found found = {0};
        ok(mn_verify(&f->store, UINT64_MAX, sort_damage, NULL, &found, &whole));
        assert_int_equal(whole.damaged, 0);
        make_bad(f, "wal/00000001.wal", bad[i].from, bad[i].to);
        fixture_flip(f, "wal/00000002.wal", 5 * BAD_BLOCK + 100, 1);
        ok(mn_verify(&f->store, UINT64_MAX, sort_damage, NULL, &found, &result));
        assert_true(found.unread && found.first > 0);
        assert_int_equal(found.second, 1);
        assert_int_equal(found.others, 0);
        assert_int_equal(result.damaged, found.first + found.second);
        assert_int_equal(result.bytes, whole.bytes);
        assert_int_equal(result.files, whole.files);
        f->store.io = &mn_io_posix;
        fixture_free(f);
    }
}

/* Nor is the last one, which tells where the log ends, taken for shorter than it is. */
static void verify_looks_for_the_end_past_what_cannot_be_read(void **state)
{
    struct fixture *f = two_segments();
    struct found found = {0};
    struct mn_verify_result result;
    make_bad(f, "wal/00000002.wal", 5, 6);
    ok(mn_verify(&f->store, UINT64_MAX, sort_damage, NULL, &found, &result));
    assert_int_equal(found.first + found.others, 0);
    assert_int_equal(found.second, 2);
    assert_null(strstr(found.what, "was acknowledged"));
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_that_cannot_be_read_costs_what_is_in_it),
        cmocka_unit_test(the_ids_of_what_is_lost_come_from_the_footer),
        cmocka_unit_test(any_block_may_be_the_one),
        cmocka_unit_test(a_segment_of_which_nothing_can_be_read_is_refused),
        cmocka_unit_test(whole_batches_that_cannot_be_read_are_refused),
        cmocka_unit_test(a_disk_that_reads_nothing_is_refused),
        cmocka_unit_test(it_happens_twice_to_one_segment),
        cmocka_unit_test(what_lies_behind_the_end_costs_nothing),
        cmocka_unit_test(a_block_that_is_read_in_the_end_costs_nothing),
        cmocka_unit_test(verify_tells_what_cannot_be_read),
        cmocka_unit_test(verify_looks_for_the_end_past_what_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
