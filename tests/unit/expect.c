/*
 * expect.c - what tests of every kind expect (see expect.h).
 */
#include "tests/unit/expect.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

void expect_failed(const char *call, const char *file, int line)
{
    print_error("%s: %s\n", call, mn_error_trail());
    _fail(file, line);
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

uint64_t file_length(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

void file_flip(const char *path, off_t at, uint8_t mask)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    if (at < 0)
        at += (off_t)file_length(path);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= mask;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

void count_damage(void *context, const char *path, const char *what)
{
    assert_true(path[0] != 0 && what[0] != 0);
    ++*(uint32_t *)context;
}
