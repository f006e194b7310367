/*
 * bad_blocks.h - the kernel's disk, with blocks that it cannot read.
 *
 * Blocks of files that are chosen by the test are bad, as on a real disk: read fails, and a page of a mapping raises
 * SIGBUS. What is written anew stands in good blocks.
 */
#ifndef MN_TESTS_UNIT_BAD_BLOCKS_H
#define MN_TESTS_UNIT_BAD_BLOCKS_H

#include "engine/io.h"

#define BAD_BLOCK 4096u

extern struct mn_io bad_blocks_io; /* good for use behind a bad_blocks_heal */

/* Blocks from..to-1 of a file are bad from now on; of one that is mapped already, reads alone. */
void bad_blocks_make(const char *path, uint64_t from, uint64_t to);
/* So many reads of bad blocks fail from now on, and none behind them. 0: all fail. */
void bad_blocks_fail(uint32_t reads);
/* All are good. */
void bad_blocks_heal(void);

#endif
