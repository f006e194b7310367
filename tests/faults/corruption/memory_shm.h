/*
 * memory_shm.h - shared memory without the kernel: the segments of an instance as plain memory of this process.
 *
 * A case is judged in a few hundred microseconds; to make, size, map and unlink a dozen files in /dev/shm takes longer
 * than all that the engine does. The system calls for them (shm/segment.c and its callers) are wrapped, so that the
 * engine itself, its checks of a segment included, is what it always is. What is lost: a mapping for reading can be
 * written, too. One process, one thread.
 */
#ifndef MN_TESTS_MEMORY_SHM_H
#define MN_TESTS_MEMORY_SHM_H

#include <stdint.h>

/* Files that are made in this folder from now on are memory; those that are there stay what they are. */
void shm_mount(int dir_fd);
/* All of them are gone, whoever still maps them. */
void shm_reset(void);

#endif
