/*
 * numa.c - nodes and scheduling classes, as far as the machine and its rights allow.
 *
 * libnuma reads once, when it is loaded, which CPUs and which memory the process may use (numa_all_cpus_ptr,
 * numa_all_nodes_ptr); what we bind later does not change that.
 */
#include "shm/numa.h"

#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct mn_numa_nodes found;
static bool several; /* nodes: else there is nothing to choose */
static uint32_t last;
static pthread_once_t found_once = PTHREAD_ONCE_INIT;

/* The CPUs of a node that this process may use; how many. */
static unsigned usable_cpus(uint32_t node, struct bitmask *cpus)
{
    numa_bitmask_clearall(cpus);
    if (!numa_bitmask_isbitset(numa_nodes_ptr, node) || numa_node_to_cpus((int)node, cpus) != 0)
        return 0;
    for (unsigned cpu = 0; cpu < cpus->size; cpu++)
        if (!numa_bitmask_isbitset(numa_all_cpus_ptr, cpu))
            numa_bitmask_clearbit(cpus, cpu);
    return numa_bitmask_weight(cpus);
}

static bool has_memory(uint32_t node)
{
    return numa_bitmask_isbitset(numa_all_nodes_ptr, node) && numa_node_size64((int)node, NULL) > 0;
}

static void find(void)
{
    bool any_memory = false;
    if (numa_available() >= 0) {
        last = (uint32_t)numa_max_node();
        several = last > 0;
        struct bitmask *cpus = numa_allocate_cpumask();
        for (uint32_t node = 0; node <= last && found.count < MN_NUMA_MAX; node++) {
            if (usable_cpus(node, cpus) == 0)
                continue;
            bool memory = has_memory(node);
            found.node[found.count++] = (struct mn_numa_node){node, memory};
            any_memory |= memory;
        }
        numa_free_cpumask(cpus);
    }
    if (found.count == 0)
        found.count = 1;
    if (!any_memory)
        found.node[0].memory = true; /* it comes from somewhere */
}

const struct mn_numa_nodes *mn_numa_nodes(void)
{
    pthread_once(&found_once, find);
    return &found;
}

uint32_t mn_numa_last(void)
{
    mn_numa_nodes();
    return last;
}

uint32_t mn_numa_here(void)
{
    unsigned node;
    mn_numa_nodes();
    return !several || getcpu(NULL, &node) != 0 ? 0 : node;
}

enum mn_status mn_numa_bind(uint32_t node)
{
    mn_numa_nodes();
    if (!several)
        return MN_OK;
    struct bitmask *cpus = numa_allocate_cpumask();
    enum mn_status status = MN_OK;
    if (usable_cpus(node, cpus) == 0)
        status = MN_FAIL(MN_NOT_FOUND, "NUMA node %u has no CPU that this process may use", node);
    else if (numa_sched_setaffinity(0, cpus) != 0)
        status = MN_FAIL_ERRNO("cannot run on NUMA node %u", node);
    else if (has_memory(node))
        numa_set_preferred((int)node);
    numa_free_cpumask(cpus);
    return status;
}

enum mn_status mn_numa_place(void *address, uint64_t bytes, uint32_t node)
{
    mn_numa_nodes();
    if (!several)
        return MN_OK;
    struct bitmask *nodes = numa_allocate_nodemask();
    numa_bitmask_setbit(nodes, node);
    bool placed = mbind(address, bytes, MPOL_PREFERRED, nodes->maskp, nodes->size + 1, 0) == 0;
    enum mn_status status = placed ? MN_OK : MN_FAIL_ERRNO("cannot place memory on NUMA node %u", node);
    numa_free_nodemask(nodes);
    return status;
}

/* struct sched_attr as the kernel first had it: its header and the C library's <sched.h> cannot both be included. */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period; /* ns */
};

/* The ordinary class in slices longer than a recall and shorter than what others get: who asks for short ones comes on
 * sooner (EEVDF: Stoica and Abdel-Wahab, 1995; Linux takes the wish since 6.12, and does not mind it before). */
static bool schedule_promptly(void)
{
    struct attributes attributes = {
        .size = sizeof attributes, .policy = SCHED_OTHER, .nice = getpriority(PRIO_PROCESS, 0), .runtime = 600000};
    return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0;
}

enum mn_scheduling mn_numa_schedule(enum mn_scheduling wanted)
{
    struct sched_param parameters = {.sched_priority = wanted == MN_SCHEDULING_REALTIME ? 1 : 0};
    int policy = wanted == MN_SCHEDULING_REALTIME ? SCHED_FIFO
                 : wanted == MN_SCHEDULING_BATCH  ? SCHED_BATCH
                                                  : SCHED_OTHER;
    bool got = wanted == MN_SCHEDULING_PROMPT ? schedule_promptly() : sched_setscheduler(0, policy, &parameters) == 0;
    return got ? wanted : MN_SCHEDULING_NORMAL;
}
