/*
 * numa.c - nodes and scheduling classes, as far as the machine and its rights allow.
 */
#include "shm/numa.h"

#include <numa.h>
#include <numaif.h>
#include <sched.h>

uint32_t mn_numa_nodes(void)
{
    if (numa_available() < 0)
        return 1;
    uint32_t nodes = 0;
    struct bitmask *cpus = numa_allocate_cpumask();
    for (int node = 0; node <= numa_max_node(); node++)
        nodes += numa_node_to_cpus(node, cpus) == 0 && numa_bitmask_weight(cpus) > 0;
    numa_free_cpumask(cpus);
    return nodes > 0 ? nodes : 1;
}

enum mn_status mn_numa_bind(uint32_t node)
{
    if (mn_numa_nodes() == 1)
        return MN_OK;
    if (numa_run_on_node((int)node) != 0)
        return MN_FAIL_ERRNO("cannot run on NUMA node %u", node);
    numa_set_preferred((int)node);
    return MN_OK;
}

enum mn_status mn_numa_place(void *address, uint64_t bytes, uint32_t node)
{
    if (mn_numa_nodes() == 1)
        return MN_OK;
    struct bitmask *nodes = numa_allocate_nodemask();
    numa_bitmask_setbit(nodes, node);
    bool placed = mbind(address, bytes, MPOL_PREFERRED, nodes->maskp, nodes->size + 1, 0) == 0;
    enum mn_status status = placed ? MN_OK : MN_FAIL_ERRNO("cannot place memory on NUMA node %u", node);
    numa_free_nodemask(nodes);
    return status;
}

enum mn_scheduling mn_numa_schedule(enum mn_scheduling wanted)
{
    struct sched_param parameters = {.sched_priority = wanted == MN_SCHEDULING_REALTIME ? 1 : 0};
    int policy = wanted == MN_SCHEDULING_REALTIME ? SCHED_FIFO
                 : wanted == MN_SCHEDULING_BATCH  ? SCHED_BATCH
                                                  : SCHED_OTHER;
    return sched_setscheduler(0, policy, &parameters) == 0 ? wanted : MN_SCHEDULING_NORMAL;
}
