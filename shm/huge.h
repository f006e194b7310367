/*
 * huge.h - mappings of shared memory that can have huge pages.
 */
#ifndef MN_SHM_HUGE_H
#define MN_SHM_HUGE_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/status.h"

#define MN_HUGE_BYTES (UINT64_C(2) << 20) /* a huge page */

/* Maps all of a file. One that can hold huge pages lies at a multiple of their size, which the system would give to
 * none but mappings that it makes of huge pages by itself. */
enum mn_status mn_huge_map(int fd, uint64_t bytes, bool writable, const char *name, void **base) MN_MUST_USE;
/* Moves pages that are there into huge ones: those between the offsets `from` and `end` of such a mapping, as far as
 * they make some. Where that fails plain pages stay. */
void mn_huge_collapse(void *base, uint64_t from, uint64_t end);

#endif
