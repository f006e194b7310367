/*
 * made_up_nodes.h - the NUMA nodes of a made-up machine: defines what shm/numa.h declares, so that the linker has no
 * need of the true ones. For one source file of a test program; as it is, the machine has one node.
 */
#ifndef MN_TESTS_MADE_UP_NODES_H
#define MN_TESTS_MADE_UP_NODES_H

#include "shm/numa.h"

static struct mn_numa_nodes machine = {.count = 1, .node = {{0, true}}};
static uint32_t last;                    /* the highest number of a node */
static uint32_t here;                    /* where everybody runs */
static uint32_t placed[8], placed_count; /* the nodes that memory was asked of */

const struct mn_numa_nodes *mn_numa_nodes(void)
{
    return &machine;
}

uint32_t mn_numa_last(void)
{
    return last;
}

uint32_t mn_numa_here(void)
{
    return here;
}

enum mn_status mn_numa_bind(uint32_t node)
{
    return MN_OK;
}

enum mn_status mn_numa_place(void *address, uint64_t bytes, uint32_t node)
{
    placed[placed_count++ % MN_ARRAY_LEN(placed)] = node;
    return MN_OK;
}

enum mn_scheduling mn_numa_schedule(enum mn_scheduling wanted)
{
    return MN_SCHEDULING_NORMAL;
}

#endif
