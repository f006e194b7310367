/*
 * numa.h - which nodes there are, and how a role takes its place: CPUs, memory, scheduling class.
 *
 * Nodes go by the kernel's numbers, which need not follow each other; a node may have CPUs and no memory, or memory and
 * no CPUs. Only those with CPUs count here, and only CPUs that this process was allowed when it began (taskset, a
 * container's cpuset): nobody leaves what its owner has given it.
 */
#ifndef MN_SHM_NUMA_H
#define MN_SHM_NUMA_H

#include <stdbool.h>

#include "shm/layout.h"
#include "shm/status.h"

#define MN_NUMA_MAX 64 /* nodes that are used; what runs on others reads the memory of these */

struct mn_numa_node {
    uint32_t number; /* the kernel's */
    bool memory;     /* it has some that this process may take */
};

struct mn_numa_nodes {
    uint32_t count; /* >= 1, also where there is no NUMA: node 0 then, with memory */
    struct mn_numa_node node[MN_NUMA_MAX];
};

/* Found out at the first call; stays so while the process lives. Any thread. */
const struct mn_numa_nodes *mn_numa_nodes(void);
/* The highest number that a node of this machine has, used by this process or not. */
uint32_t mn_numa_last(void);
/* The node of the CPU that the calling thread runs on at this moment. */
uint32_t mn_numa_here(void);

/* Binds the calling thread, and those that it starts, to the node's CPUs among those it was allowed, and prefers the
 * node's memory. MN_NOT_FOUND: there is no such CPU (any more); nothing is changed. Does nothing on a machine
 * with one node. */
enum mn_status mn_numa_bind(uint32_t node) MN_MUST_USE;

/* Prefers the memory of the node for a mapping whose pages are not there yet (of a file in shared memory: for whoever
 * enters them). Does nothing on a machine with one node. */
enum mn_status mn_numa_place(void *address, uint64_t bytes, uint32_t node) MN_MUST_USE;

/* Asks for a scheduling class for the calling thread and those that it starts; returns the one it got
 * (MN_SCHEDULING_NORMAL where it is not allowed). */
enum mn_scheduling mn_numa_schedule(enum mn_scheduling wanted);

#endif
