/*
 * epoch.c - claiming, pinning and reaping reader slots.
 */
#include "shm/epoch.h"

#include <unistd.h>

#include "shm/process.h"

static uint32_t slot_pid(uint64_t owner)
{
    return (uint32_t)(owner >> 32);
}

/* Looked up at each claim: a forked child, which would inherit what its parent has kept, started later. */
static uint64_t own_start_time(void)
{
    return mn_process_start_time((uint32_t)getpid());
}

enum mn_status mn_epoch_claim(struct mn_epoch *epoch, uint32_t *slot)
{
    /* The generation tells two claims of one slot by one pid apart; it only has to differ, not to be unique. */
    uint64_t owner = (uint64_t)(uint32_t)getpid() << 32 | (uint32_t)(mn_clock_ns() >> 10);
    for (uint32_t i = 0; i < epoch->count; i++) {
        struct mn_reader_slot *s = &epoch->slots[i];
        uint64_t free_slot = 0;
        if (!atomic_compare_exchange_strong(&s->owner, &free_slot, owner))
            continue;
        atomic_store(&s->epoch, 0);
        atomic_store(&s->start_time, own_start_time());
        *slot = i;
        return MN_OK;
    }
    return MN_FAIL(MN_BUSY, "all %u reader slots are taken; raise reader.slots or close readers", epoch->count);
}

void mn_epoch_release(struct mn_epoch *epoch, uint32_t slot)
{
    struct mn_reader_slot *s = &epoch->slots[slot];
    if (slot_pid(atomic_load(&s->owner)) != (uint32_t)getpid())
        return; /* evicted meanwhile, perhaps claimed by somebody else */
    atomic_store(&s->epoch, 0);
    atomic_store(&s->start_time, 0);
    atomic_store(&s->owner, 0);
}

uint64_t mn_epoch_pin(struct mn_epoch *epoch, uint32_t slot)
{
    struct mn_reader_slot *s = &epoch->slots[slot];
    atomic_store_explicit(&s->pinned_ns, mn_clock_ns(), memory_order_relaxed);
    uint64_t gen = atomic_load_explicit(&epoch->control->view_gen, memory_order_acquire);
    for (;;) {
        /* seq_cst store, then the load again: either the writer's scan of the slots sees this pin, or we see its new
         * view. */
        atomic_store_explicit(&s->epoch, gen, memory_order_seq_cst);
        uint64_t now = atomic_load_explicit(&epoch->control->view_gen, memory_order_seq_cst);
        if (now == gen)
            return gen;
        gen = now;
    }
}

void mn_epoch_unpin(struct mn_epoch *epoch, uint32_t slot)
{
    /* Release: all reads of the pinned files are done before the writer can see that they may go. */
    atomic_store_explicit(&epoch->slots[slot].epoch, 0, memory_order_release);
}

bool mn_epoch_owned(const struct mn_epoch *epoch, uint32_t slot, uint64_t owner)
{
    return atomic_load(&epoch->slots[slot].owner) == owner;
}

uint64_t mn_epoch_oldest(const struct mn_epoch *epoch, uint64_t now_ns, uint64_t max_age_ns)
{
    uint64_t oldest = UINT64_MAX;
    for (uint32_t i = 0; i < epoch->count; i++) {
        const struct mn_reader_slot *s = &epoch->slots[i];
        uint64_t pinned = atomic_load_explicit(&s->epoch, memory_order_seq_cst);
        if (pinned == 0 || pinned >= oldest)
            continue;
        uint64_t since = atomic_load_explicit(&s->pinned_ns, memory_order_relaxed);
        if (max_age_ns != 0 && now_ns > since && now_ns - since > max_age_ns)
            continue;
        oldest = pinned;
    }
    return oldest;
}

uint32_t mn_epoch_reap(struct mn_epoch *epoch, uint32_t pid)
{
    uint32_t reaped = 0;
    for (uint32_t i = 0; i < epoch->count; i++) {
        struct mn_reader_slot *s = &epoch->slots[i];
        uint64_t owner = atomic_load(&s->owner);
        if (owner == 0)
            continue;
        uint32_t holder = slot_pid(owner);
        uint64_t start = atomic_load(&s->start_time);
        bool gone = start != 0 ? !mn_process_alive(holder, start) : mn_process_start_time(holder) == 0;
        if (!gone && (pid == 0 || holder != pid))
            continue;
        atomic_store(&s->epoch, 0);
        atomic_store(&s->start_time, 0);
        /* Compare-and-swap: the owner may just have let go, and somebody else have claimed. */
        reaped += atomic_compare_exchange_strong(&s->owner, &owner, 0);
    }
    return reaped;
}

void mn_epoch_usage(const struct mn_epoch *epoch, uint64_t now_ns, uint32_t *used, uint64_t *oldest_pin_ns)
{
    *used = 0;
    *oldest_pin_ns = 0;
    for (uint32_t i = 0; i < epoch->count; i++) {
        const struct mn_reader_slot *s = &epoch->slots[i];
        *used += atomic_load(&s->owner) != 0;
        uint64_t since = atomic_load_explicit(&s->pinned_ns, memory_order_relaxed);
        if (atomic_load(&s->epoch) != 0 && now_ns > since && now_ns - since > *oldest_pin_ns)
            *oldest_pin_ns = now_ns - since;
    }
}
