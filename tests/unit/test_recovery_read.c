/*
 * test_recovery_read.c - a log with blocks that the disk cannot read: every other memory is there, what is missing is
 * told, the file is kept, and writes go on; but where a forget may be lost with its ids, nothing is touched.
 *
 * The disk here is the kernel's, and blocks of files that are chosen by the test are bad for good, as on a real one:
 * read fails, and a page of a mapping raises SIGBUS. What is written anew stands in good blocks.
 */
#include "tests/unit/store_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/wal.h"

#define BLOCK 4096u

/* ---- a disk with bad blocks ---- */

static struct {
    ino_t file;
    uint64_t from, to; /* blocks */
} bad[8];
static uint32_t bad_count;

static ino_t file_of(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static bool is_bad(ino_t file, uint64_t block)
{
    for (uint32_t i = 0; i < bad_count; i++)
        if (bad[i].file == file && block >= bad[i].from && block < bad[i].to)
            return true;
    return false;
}

static enum mn_status read_bad(int fd, void *data, size_t bytes, uint64_t offset)
{
    ino_t file = file_of(fd);
    for (uint64_t block = offset / BLOCK; block * BLOCK < offset + bytes; block++)
        if (is_bad(file, block))
            return MN_FAIL(MN_SYSTEM, "cannot read %zu bytes at %llu: Input/output error", bytes,
                           (unsigned long long)offset);
    return mn_io_posix.read(fd, data, bytes, offset);
}

/* A page of a mapping behind the end of its file raises SIGBUS. */
static enum mn_status map_bad(int fd, uint64_t bytes, const void **base)
{
    int empty = memfd_create("bad", MFD_CLOEXEC);
    ino_t file = file_of(fd);
    enum mn_status status = mn_io_posix.map(fd, bytes, base);
    for (uint64_t block = 0; status == MN_OK && block * BLOCK < bytes; block++) {
        uint8_t *page = (uint8_t *)(uintptr_t)*base + block * BLOCK;
        if (is_bad(file, block))
            assert_ptr_equal(mmap(page, BLOCK, PROT_READ, MAP_SHARED | MAP_FIXED, empty, 0), page);
    }
    close(empty);
    return status;
}

static struct mn_io bad_io;

static void make_bad(const struct fixture *f, const char *name, uint64_t from, uint64_t to)
{
    char path[MN_PATH_MAX];
    struct stat st;
    assert_int_equal(stat(mn_store_path(&f->store, path, name), &st), 0);
    bad[bad_count].file = st.st_ino;
    bad[bad_count].from = from;
    bad[bad_count++].to = to;
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
    bad_count = 0;
    bad_io = mn_io_posix;
    bad_io.read = read_bad;
    bad_io.map = map_bad;
    for (uint64_t id = 1; id <= IDS; id++) {
        uint64_t number = (id - 1) % (SMALL + LARGE) + 1;
        fixture_put(f, "s", id, id, content_of(id, text));
        if (number <= SMALL || number == SMALL + LARGE)
            fixture_commit(f);
        if (number == SMALL + LARGE)
            ok(mn_writer_seal(f->writer, &sealed));
    }
    fixture_power_cut(f);
    f->store.io = &bad_io;
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

static void count_damage(void *context, const char *path, const char *what)
{
    ++*(uint32_t *)context;
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
    struct stat kept;
    char path[MN_PATH_MAX];
    make_bad(f, "wal/00000001.wal", 5, 6);
    check_lives(f, 1);
    assert_true(noted(f, "quarantine/wal-00000001-20480.json", "1 blocks of it cannot be read"));
    assert_true(noted(f, "quarantine/wal-00000001-20480.json", "\"first_seq\": 5, \"last_seq\": 5"));
    assert_true(noted(f, "quarantine/wal-00000001-unread.json", "\"file\": \"wal-00000001-unread.wal\""));
    assert_int_equal(stat(mn_store_path(&f->store, path, "quarantine/wal-00000001-unread.wal"), &kept), 0);
    assert_int_equal(kept.st_ino, bad[0].file); /* the very file, with what a better disk may read in it */
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
    snprintf(note, sizeof note, "quarantine/wal-00000002-%u.json", (SMALL + 1) * BLOCK);
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
    for (uint64_t block = 0; block < 1048576 / BLOCK; block += block < SMALL + 12 ? 1 : 37) {
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
    bad_count = 0; /* it was a cable */
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
    make_bad(f, "wal/00000001.wal", 0, 1048576 / BLOCK);
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
    make_bad(f, "wal/00000001.wal", 0, 1048576 / BLOCK);
    make_bad(f, "wal/00000002.wal", 0, 1048576 / BLOCK);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
