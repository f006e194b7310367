/*
 * test_wal.c - the active log segment: begin, append, sync, and a disk that fails at any of it.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/wal.h"

#define SEGMENT_BYTES 65536u

enum { HEALTHY, NO_WRITE, NO_SYNC };
static _Atomic int disk; /* the keeper's thread asks it, too */

static enum mn_status write_or_not(int fd, const void *data, size_t bytes, uint64_t offset)
{
    return disk == NO_WRITE ? MN_FAIL(MN_SYSTEM, "io error") : mn_io_posix.write(fd, data, bytes, offset);
}

static enum mn_status sync_or_not(int fd)
{
    return disk == NO_SYNC ? MN_FAIL(MN_SYSTEM, "io error") : mn_io_posix.datasync(fd);
}

static void make_segment(struct fixture *f, uint64_t number)
{
    char path[MN_PATH_MAX];
    int fd = open(mn_store_wal_path(&f->store, path, number), O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, SEGMENT_BYTES), 0);
    close(fd);
}

static void add(struct mn_wal *wal, uint64_t seq, enum mn_status wanted)
{
    static uint8_t data[SEGMENT_BYTES];
    uint32_t record_at[4];
    struct mn_batch batch = {.data = data, .bytes_max = sizeof data, .record_at = record_at, .records_max = 4};
    struct mn_record record = {.op = MN_RECORD_PUT, .seq = seq};
    struct mn_record_parts parts = {.space = text_str("s")};
    mn_batch_begin(&batch, wal->offset, wal->salt);
    mn_batch_add(&batch, &record, &parts);
    assert_int_equal(mn_wal_append(wal, &batch, 1), wanted);
}

static enum mn_status count_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                   uint64_t offset)
{
    ++*(uint32_t *)context;
    return MN_OK;
}

static void segments_are_chained(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_wal first, second, none = {0};
    struct mn_wal_segment segment;
    struct mn_wal_extent extent;
    fails(MN_NOT_FOUND, mn_wal_begin(&first, &f->store, 1, &none));
    make_segment(f, 1);
    ok(mn_wal_begin(&first, &f->store, 1, &none));
    uint64_t room = mn_wal_room(&first);
    assert_int_equal(room, SEGMENT_BYTES - 2 * MN_WAL_BLOCK);
    add(&first, 1, MN_OK);
    assert_int_equal(first.durable_seq, 0);
    assert_int_equal(first.last_seq, 1);
    ok(mn_wal_sync(&first));
    assert_int_equal(first.durable_seq, 1);
    assert_int_equal(mn_wal_room(&first), room - MN_WAL_BLOCK);
    while (mn_wal_room(&first) > 0) { /* to the last block */
        add(&first, first.last_seq + 1, MN_OK);
        ok(mn_wal_sync(&first));
    }
    make_segment(f, 2);
    ok(mn_wal_begin(&second, &f->store, 2, &first));
    assert_int_not_equal(second.salt, first.salt);
    ok(mn_wal_map(&segment, &f->store, 2));
    assert_int_equal(segment.header.prev_number, 1);
    assert_int_equal(segment.header.prev_last_seq, 14);
    assert_int_equal(segment.header.first_seq, 15);
    assert_true(segment.header.prev_chain == first.chain);
    mn_wal_unmap(&segment);
    ok(mn_wal_map(&segment, &f->store, 1));
    uint32_t records = 0;
    ok(mn_wal_scan(&segment, &(struct mn_wal_visitor){.context = &records, .record = count_record}, &extent));
    assert_int_equal(records, 14);
    assert_true(extent.chain == first.chain);
    mn_wal_unmap(&segment);
    mn_wal_end(&first);
    mn_wal_end(&second);
    mn_wal_end(&second); /* harmless */
    fixture_free(f);
}

static void a_failing_disk_makes_nothing_durable(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_io io = mn_io_posix;
    struct mn_wal wal, none = {0};
    io.write = write_or_not;
    io.datasync = sync_or_not;
    f->store.io = &io;
    make_segment(f, 1);
    disk = NO_WRITE;
    fails(MN_SYSTEM, mn_wal_begin(&wal, &f->store, 1, &none));
    disk = HEALTHY;
    ok(mn_wal_begin(&wal, &f->store, 1, &none));
    add(&wal, 1, MN_OK);
    disk = NO_SYNC;
    fails(MN_SYSTEM, mn_wal_sync(&wal));
    assert_int_equal(wal.durable_seq, 0);
    disk = NO_WRITE;
    uint64_t offset = wal.offset;
    add(&wal, 2, MN_SYSTEM);
    assert_int_equal(wal.offset, offset);
    assert_int_equal(wal.last_seq, 1);
    disk = HEALTHY;
    mn_wal_end(&wal);
    f->store.io = &mn_io_posix;
    fixture_free(f);
}

/* The writer on such a disk: what failed is not published, and nothing is written after it. */
static void the_writer_stops_at_the_first_failure(void **state)
{
    for (int how = NO_WRITE; how <= NO_SYNC; how++) {
        struct fixture *f = fixture_prepare();
        struct mn_io io = mn_io_posix;
        io.write = write_or_not;
        io.datasync = sync_or_not;
        f->store.io = &io;
        disk = HEALTHY;
        fixture_start(f);
        fixture_put(f, "s", 1, 1, "one");
        fixture_commit(f);
        fixture_put(f, "s", 2, 2, "two");
        disk = how;
        enum mn_status status = mn_writer_append(f->writer);
        if (how == NO_SYNC) {
            ok(status);
            status = mn_writer_sync(f->writer);
        }
        assert_int_equal(status, MN_SYSTEM);
        disk = HEALTHY; /* success now would be a lie */
        assert_int_not_equal(mn_writer_append(f->writer), MN_OK);
        struct mn_memory m = fixture_memory(3, 3, "three");
        struct mn_remember request = {.write = fixture_write(f, "s"), .memories = &m, .count = 1};
        struct mn_outcome outcome;
        fails(MN_INTERNAL, mn_writer_remember(f->writer, &request, &outcome));
        assert_int_equal(fixture_count(f), 1);
        fixture_crash(f);
        ok(fixture_recover(f));
        fixture_open_writer(f);
        assert_false(f->report.lost);
        assert_true(fixture_holds(f, "s", 1, 1, "one"));
        assert_true(fixture_absent(f, "s", 2) || fixture_holds(f, "s", 2, 2, "two")); /* whole or absent */
        assert_true(fixture_absent(f, "s", 3));
        fixture_power_cut(f);
        f->store.io = &mn_io_posix;
        fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_are_chained),
        cmocka_unit_test(a_failing_disk_makes_nothing_durable),
        cmocka_unit_test(the_writer_stops_at_the_first_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
