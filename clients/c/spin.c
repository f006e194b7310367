/*
 * spin.c - stretches of calls that sleep and of calls that look, and which of them was quicker (see spin.h).
 */
#include "clients/c/spin.h"

#include <sched.h>
#include <stdlib.h>

enum {
    LIMIT_US = 1000,
    CROWDED_NS = 20000, /* between two looks: somebody else had the processor, and may want it again */
    IN_VAIN_MAX = 2,    /* of a stretch; more: those who make the reply lack a processor */
    PAUSE_FIRST = 1,    /* stretches */
    PAUSE_MAX = 256,    /* so that what a try costs does not show in a p99 */
};

static bool one_processor(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) < 2;
}

void mn_spin_init(struct mn_spin *spin, int limit_us)
{
    *spin = (struct mn_spin){.left = PAUSE_FIRST, .pause = PAUSE_FIRST};
    if (limit_us >= 0 && !one_processor())
        spin->limit_ns = 1000u * (uint64_t)(limit_us ? limit_us : LIMIT_US);
}

bool mn_spin_looks(const struct mn_spin *spin)
{
    return spin->limit_ns > 0 && spin->looking;
}

/* Who has not seen a reply after twice the usual time is in the way of it, or asked for more than usual. */
static uint64_t limit_of(const struct mn_spin *spin)
{
    return 2 * spin->slept_ns < spin->limit_ns ? 2 * spin->slept_ns : spin->limit_ns;
}

bool mn_spin_again(struct mn_spin *spin, uint64_t first_ns, uint64_t last_ns, uint64_t now_ns)
{
    if (now_ns - last_ns > CROWDED_NS)
        return false;
    if (now_ns - first_ns > limit_of(spin)) {
        spin->in_vain++;
        return false;
    }
    sched_yield();
    return true;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* A way that costs processor time is worth it for an eighth. */
static void end_looking(struct mn_spin *spin, uint64_t median)
{
    bool worth = spin->in_vain <= IN_VAIN_MAX && median < spin->slept_ns - spin->slept_ns / 8;
    if (worth) {
        spin->pause = PAUSE_FIRST;
        if (--spin->left > 0)
            return;
    } else {
        spin->pause = spin->pause < PAUSE_MAX ? spin->pause * 2 : PAUSE_MAX;
    }
    spin->looking = false;
    spin->left = worth ? 1 : spin->pause;
}

static void end_sleeping(struct mn_spin *spin, uint64_t median)
{
    spin->slept_ns = median;
    if (--spin->left > 0)
        return;
    spin->looking = true;
    spin->left = PAUSE_MAX;
}

void mn_spin_took(struct mn_spin *spin, uint64_t ns)
{
    spin->took_ns[spin->calls++] = ns;
    if (spin->calls < MN_SPIN_STRETCH && spin->in_vain <= IN_VAIN_MAX)
        return;
    qsort(spin->took_ns, spin->calls, sizeof spin->took_ns[0], compare);
    uint64_t median = spin->took_ns[spin->calls / 2];
    if (spin->looking)
        end_looking(spin, median);
    else
        end_sleeping(spin, median);
    spin->calls = spin->in_vain = 0;
}
