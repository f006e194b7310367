/*
 * lint.h - what the analyzer of ops/lint cannot see across files: a function that fails does not return MN_OK. Put in front
 * of every file by ops/lint; never part of a build.
 */
#include "shm/status.h"

#undef MN_FAIL
#define MN_FAIL(code, ...) (mn_error_set((code), __FILE__, __LINE__, __VA_ARGS__), (code))
#undef MN_FAIL_ERRNO
#define MN_FAIL_ERRNO(...)                                                                                             \
    (mn_error_set_errno(__FILE__, __LINE__, __VA_ARGS__) == MN_READ_ONLY ? MN_READ_ONLY : MN_SYSTEM)
