/*
 * expect.h - what tests of every kind expect: calls that succeed or fail with a word on why; and files that they
 * damage.
 */
#ifndef MN_TESTS_EXPECT_H
#define MN_TESTS_EXPECT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "shm/status.h"

/* A call that must succeed: the trail of its error is shown. */
#define ok(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != MN_OK)                                                                                           \
            expect_failed(#call, __FILE__, __LINE__);                                                                  \
    } while (0)
/* A call that must fail with a status, and with a sentence. */
#define fails(status, call)                                                                                            \
    do {                                                                                                               \
        assert_int_equal((call), (status));                                                                            \
        assert_true(mn_error_text()[0] != 0);                                                                          \
    } while (0)
void expect_failed(const char *call, const char *file, int line);

bool file_exists(const char *path);
uint64_t file_length(const char *path);
/* Changes the bits of `mask` in one byte; `at` below 0 counts from the end. */
void file_flip(const char *path, off_t at, uint8_t mask);

/* An mn_damage_fn: counts in the uint32_t at `context`. */
void count_damage(void *context, const char *path, const char *what);

#endif
