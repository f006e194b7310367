/*
 * fail_once.h - a disk that fails once, at its n-th change (write, sync, rename, mkdir); or does not say so.
 */
#ifndef MN_TESTS_UNIT_FAIL_ONCE_H
#define MN_TESTS_UNIT_FAIL_ONCE_H

#include "engine/io.h"

/* calls: changes so far; fail_at: the one that fails, with `status`; with MN_OK a write of it lands with one byte
 * changed, and nobody is told. The test sets them. bent: the file that it went to. */
extern struct fail_once {
    _Atomic uint32_t calls; /* recovery changes log segments in parallel */
    uint32_t fail_at;
    enum mn_status status;
    char bent[256];
} fail_once;

struct mn_io fail_once_io(void);

#endif
