/*
 * compactor_codes.c - the thread that codes the tail: turn after turn, with pauses that follow the writes.
 *
 * The counters in shared memory are polled; nobody has to wake it. While rows come it looks once a millisecond, else
 * ever less often. What is not coded yet is found all the same, so a pause costs a recall microseconds, never a row.
 *
 * Its priority is the usual one, not the compactor's low one: to compare a row without codes costs each recall a tenth
 * of what it costs to code it once and for all, so on a busy machine a coder that waits makes it busier.
 */
#include "actors/compactor_codes.h"

#include <stdlib.h>
#include <time.h>

#include "engine/tail_coder.h"
#include "shm/numa.h"
#include "shm/process.h"

#define PAUSE_MIN_NS  1000000u
#define PAUSE_MAX_NS  20000000u
#define PAUSE_FAIL_NS 100000000u

struct mn_compactor_codes {
    struct mn_actor *actor;
    struct mn_tail_coder *coder;
    pthread_t thread;
    _Atomic bool off, stop;
};

/* Told once, when it begins: the statistic counts the rest. */
static void tell(const struct mn_compactor_codes *t, enum mn_status status, bool *failing)
{
    if (status != MN_OK && !*failing)
        mn_log(t->actor, "the tail is not coded, and recall is slower: %s", mn_error_trail());
    *failing = status != MN_OK;
}

static void *run(void *context)
{
    struct mn_compactor_codes *t = context;
    uint64_t pause_ns = PAUSE_MIN_NS;
    bool failing = false;
    mn_numa_schedule(MN_SCHEDULING_BATCH); /* it takes its share, and interrupts nobody */
    while (!atomic_load_explicit(&t->stop, memory_order_relaxed)) {
        uint32_t worked = 0;
        mn_tail_coder_switch(t->coder, !atomic_load_explicit(&t->off, memory_order_relaxed));
        enum mn_status status = mn_tail_coder_turn(t->coder, mn_clock_ns(), &worked);
        tell(t, status, &failing);
        if (worked > 0 && status == MN_OK) {
            pause_ns = PAUSE_MIN_NS; /* of the first turn that finds nothing */
            continue;
        }
        nanosleep(&(struct timespec){.tv_nsec = (long)(status == MN_OK ? pause_ns : PAUSE_FAIL_NS)}, NULL);
        pause_ns += pause_ns / 4;
        pause_ns = pause_ns < PAUSE_MAX_NS ? pause_ns : PAUSE_MAX_NS;
    }
    return NULL;
}

void mn_compactor_codes_start(struct mn_compactor_codes **codes, struct mn_actor *actor)
{
    struct mn_compactor_codes *t = calloc(1, sizeof *t);
    *codes = NULL;
    if (t && mn_tail_coder_open(&t->coder, &actor->store, &actor->instance, actor->stats) == MN_OK) {
        t->actor = actor;
        mn_compactor_codes_switch(t, actor->settings.index_rows_min > 0);
        if (pthread_create(&t->thread, NULL, run, t) == 0) {
            *codes = t;
            return;
        }
        mn_tail_coder_close(t->coder);
    }
    free(t);
    mn_log(actor, "no thread for the codes of the tail: recall compares its rows as they are");
}

void mn_compactor_codes_switch(struct mn_compactor_codes *t, bool on)
{
    if (t)
        atomic_store_explicit(&t->off, !on, memory_order_relaxed);
}

void mn_compactor_codes_stop(struct mn_compactor_codes *t)
{
    if (!t)
        return;
    atomic_store_explicit(&t->stop, true, memory_order_relaxed);
    pthread_join(t->thread, NULL);
    mn_tail_coder_close(t->coder);
    free(t);
}
