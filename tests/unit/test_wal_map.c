/*
 * test_wal_map.c - a log segment is mapped while the writer begins it.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "engine/wal.h"

#define SEGMENT_BYTES 65536u
#define TURNS         20000

static struct {
    int fd;
    uint8_t zeros[2 * MN_WAL_BLOCK], headers[2 * MN_WAL_BLOCK];
    _Atomic bool stop;
} file;

static void write_headers(const uint8_t *blocks)
{
    assert_int_equal(pwrite(file.fd, blocks, MN_WAL_BLOCK, 0), MN_WAL_BLOCK);
    assert_int_equal(pwrite(file.fd, blocks + MN_WAL_BLOCK, MN_WAL_BLOCK, SEGMENT_BYTES - MN_WAL_BLOCK), MN_WAL_BLOCK);
}

/* Unused, begun, and unused again, as fast as it can. */
static void *begin_again_and_again(void *unused)
{
    while (!atomic_load(&file.stop)) {
        write_headers(file.headers);
        usleep(20);
        write_headers(file.zeros);
        usleep(20);
    }
    return unused;
}

/* Whoever maps a segment at the moment that it is begun finds it unused or begun, not damaged. */
static void a_segment_that_is_begun_meanwhile_is_not_damaged(void **state)
{
    struct fixture *f = fixture_prepare();
    char path[MN_PATH_MAX];
    pthread_t thread;
    struct mn_wal wal, none = {0};
    file.fd = open(mn_store_wal_path(&f->store, path, 1), O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(file.fd >= 0);
    assert_int_equal(ftruncate(file.fd, SEGMENT_BYTES), 0);
    ok(mn_wal_begin(&wal, &f->store, 1, &none));
    mn_wal_end(&wal);
    assert_int_equal(pread(file.fd, file.headers, MN_WAL_BLOCK, 0), MN_WAL_BLOCK);
    assert_int_equal(pread(file.fd, file.headers + MN_WAL_BLOCK, MN_WAL_BLOCK, SEGMENT_BYTES - MN_WAL_BLOCK),
                     MN_WAL_BLOCK);
    assert_int_equal(pthread_create(&thread, NULL, begin_again_and_again, NULL), 0);
    uint32_t begun = 0, unused = 0;
    for (int i = 0; i < TURNS || begun == 0 || unused == 0; i++) {
        struct mn_wal_segment segment;
        ok(mn_wal_map(&segment, &f->store, 1));
        *(segment.unused ? &unused : &begun) += 1;
        mn_wal_unmap(&segment);
    }
    atomic_store(&file.stop, true);
    pthread_join(thread, NULL);
    close(file.fd);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_segment_that_is_begun_meanwhile_is_not_damaged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
