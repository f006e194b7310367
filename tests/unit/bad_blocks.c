/*
 * bad_blocks.c - reads of chosen blocks fail; in a mapping they are pages behind the end of a file.
 */
#include "tests/unit/bad_blocks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    ino_t file;
    uint64_t from, to; /* blocks */
} bad[8];
static uint32_t bad_count;
static uint32_t most;           /* reads that fail; 0: all */
static _Atomic uint32_t failed; /* that have: recovery reads segments in parallel */

static ino_t file_of(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static bool is_bad(ino_t file, uint64_t block)
{
    for (uint32_t i = 0; i < bad_count && (most == 0 || failed < most); i++)
        if (bad[i].file == file && block >= bad[i].from && block < bad[i].to)
            return true;
    return false;
}

static enum mn_status read_bad(int fd, void *data, size_t bytes, uint64_t offset)
{
    ino_t file = file_of(fd);
    for (uint64_t block = offset / BAD_BLOCK; block * BAD_BLOCK < offset + bytes; block++)
        if (is_bad(file, block)) {
            failed++;
            return MN_FAIL(MN_SYSTEM, "cannot read %zu bytes at %llu: Input/output error", bytes,
                           (unsigned long long)offset);
        }
    return mn_io_posix.read(fd, data, bytes, offset);
}

/* A page of a mapping behind the end of its file raises SIGBUS. */
static enum mn_status map_bad(int fd, uint64_t bytes, const void **base)
{
    int empty = memfd_create("bad", MFD_CLOEXEC);
    ino_t file = file_of(fd);
    enum mn_status status = mn_io_posix.map(fd, bytes, base);
    for (uint64_t block = 0; status == MN_OK && block * BAD_BLOCK < bytes; block++) {
        uint8_t *page = (uint8_t *)(uintptr_t)*base + block * BAD_BLOCK;
        if (is_bad(file, block))
            assert_ptr_equal(mmap(page, BAD_BLOCK, PROT_READ, MAP_SHARED | MAP_FIXED, empty, 0), page);
    }
    close(empty);
    return status;
}

struct mn_io bad_blocks_io;

void bad_blocks_heal(void)
{
    bad_blocks_io = mn_io_posix;
    bad_blocks_io.read = read_bad;
    bad_blocks_io.map = map_bad;
    bad_count = most = 0;
    failed = 0;
}

void bad_blocks_make(const char *path, uint64_t from, uint64_t to)
{
    struct stat st;
    assert_true(bad_count < MN_ARRAY_LEN(bad));
    assert_int_equal(stat(path, &st), 0);
    bad[bad_count].file = st.st_ino;
    bad[bad_count].from = from;
    bad[bad_count++].to = to;
}

void bad_blocks_fail(uint32_t reads)
{
    most = reads;
    failed = 0;
}
