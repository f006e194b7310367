/*
 * supervisor_policy.c - back-off, the state of the whole, stalls, last words: decisions without side effects.
 */
#include "actors/supervisor_policy.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

uint64_t mn_backoff_died(struct mn_backoff *backoff, bool was_ready, uint64_t min_ns, uint64_t max_ns)
{
    if (was_ready) {
        backoff->early_deaths = 0;
        return 0;
    }
    uint64_t pause = min_ns;
    for (uint32_t i = 0; i < backoff->early_deaths && pause < max_ns; i++)
        pause = pause > max_ns / 2 ? max_ns : pause * 2;
    if (backoff->early_deaths < UINT32_MAX)
        backoff->early_deaths++;
    return pause < max_ns ? pause : max_ns;
}

void mn_backoff_ready(struct mn_backoff *backoff)
{
    backoff->early_deaths = 0;
}

bool mn_backoff_keeps_dying(const struct mn_backoff *backoff)
{
    return backoff->early_deaths >= MN_EARLY_DEATHS_DEGRADED;
}

enum mn_store_state mn_supervisor_state(const struct mn_supervisor_facts *facts)
{
    if (facts->stopping)
        return MN_STORE_STOPPING;
    if (facts->reasons & MN_DEGRADED_ROLE)
        return MN_STORE_DEGRADED;
    if (!facts->recovery_begun)
        return MN_STORE_STARTING;
    if (!facts->writer_ready || !facts->complete_once)
        return MN_STORE_RECOVERING;
    return facts->reasons != 0 ? MN_STORE_DEGRADED : MN_STORE_READY;
}

bool mn_supervisor_stalled(uint64_t now_ns, uint64_t last_look_ns, uint64_t heartbeat_ns, uint64_t stall_ns)
{
    if (now_ns - last_look_ns >= stall_ns / 2)
        return false;
    return now_ns > heartbeat_ns && now_ns - heartbeat_ns > stall_ns;
}

void mn_supervisor_how(int code, int status, char *text, size_t size)
{
    if (code == CLD_EXITED)
        snprintf(text, size, "exit status %d", status);
    else
        snprintf(text, size, "signal %d (%s)", status, strsignal(status));
}

void mn_supervisor_words(const char *slot, size_t slot_size, char *text, size_t size)
{
    size_t n = 0;
    for (; n < slot_size && n + 1 < size && slot[n]; n++)
        text[n] = slot[n] >= ' ' && slot[n] < 127 ? slot[n] : '?';
    if (n > 0 && slot[n - 1] == '\n')
        n--; /* a bug's words end in a newline */
    text[n] = 0;
}
