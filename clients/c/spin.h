/*
 * spin.h - whether a recall looks for its reply for a moment before it sleeps. Private.
 *
 * A thread that sleeps gives its processor up; to be woken there again costs as much as a short recall, and while it
 * sleeps the threads of ZeroMQ and of the worker are woken on idle processors, each at that price. Where nobody else
 * wants the processor, looking instead spares most of that. Where somebody does, it takes the processor from those who
 * have the reply to make. Neither is known beforehand, so both ways are measured: calls go in short stretches, and the
 * way whose stretches are clearly quicker is the way of those that follow.
 */
#ifndef MNEME_CLIENTS_C_SPIN_H
#define MNEME_CLIENTS_C_SPIN_H

#include <stdbool.h>
#include <stdint.h>

enum { MN_SPIN_STRETCH = 16 }; /* calls */

struct mn_spin {
    uint64_t limit_ns; /* the longest look of one call, beside twice slept_ns; 0: all sleep at once */
    bool looking;      /* the way of this stretch */
    uint32_t calls;    /* of this stretch, so far */
    uint32_t in_vain;  /* of them, looked to the limit and saw no reply */
    uint32_t left;     /* stretches until the other way is tried */
    uint32_t pause;    /* the same, from the beginning: longer each time that looking was not worth it */
    uint64_t slept_ns; /* median of the last stretch that slept */
    uint64_t took_ns[MN_SPIN_STRETCH];
};

/* limit_us 0: as long as is good; negative, or where this process has one processor only: no look at all. */
void mn_spin_init(struct mn_spin *spin, int limit_us);
/* Whether the next call looks. */
bool mn_spin_looks(const struct mn_spin *spin);
/* Between two looks, with the clock (ns) at the first look, the last and now: gives the processor to whoever waits for
 * it, and says whether to look again. */
bool mn_spin_again(struct mn_spin *spin, uint64_t first_ns, uint64_t last_ns, uint64_t now_ns);
/* What a call took, from its request to its reply. */
void mn_spin_took(struct mn_spin *spin, uint64_t ns);

#endif
