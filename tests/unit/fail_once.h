/*
 * fail_once.h - a disk that fails once, at its n-th change (write, sync, rename, mkdir).
 */
#ifndef MN_TESTS_UNIT_FAIL_ONCE_H
#define MN_TESTS_UNIT_FAIL_ONCE_H

#include "engine/io.h"

/* calls: changes so far; fail_at: the one that fails, with `status`. The test sets them. */
extern struct fail_once {
    uint32_t calls, fail_at;
    enum mn_status status;
} fail_once;

struct mn_io fail_once_io(void);

#endif
