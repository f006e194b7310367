/*
 * numa.h - which nodes there are, and how a role takes its place: CPUs, memory, scheduling class.
 */
#ifndef MN_SHM_NUMA_H
#define MN_SHM_NUMA_H

#include "shm/layout.h"
#include "shm/status.h"

/* Nodes that have CPUs (>= 1, also where libnuma finds no NUMA). */
uint32_t mn_numa_nodes(void);

/* Binds the calling process to the CPUs of the node and prefers its memory. Does nothing on a machine with one node. */
enum mn_status mn_numa_bind(uint32_t node) MN_MUST_USE;

/* Prefers the memory of the node for a mapping whose pages are not there yet (of a file in shared memory: for whoever
 * enters them). Does nothing on a machine with one node. */
enum mn_status mn_numa_place(void *address, uint64_t bytes, uint32_t node) MN_MUST_USE;

/* Asks for a scheduling class for the calling process; returns the one it got (MN_SCHEDULING_NORMAL where it is not
 * allowed). */
enum mn_scheduling mn_numa_schedule(enum mn_scheduling wanted);

#endif
