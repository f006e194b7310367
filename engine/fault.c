/*
 * fault.c - kill points: named in MN_FAULT_TABLE, armed by the environment in test builds.
 */
#include "engine/fault.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <unistd.h>

#define X(name, next) #name,
static const char *const names[] = {MN_FAULT_TABLE(X)};
#undef X

const char *mn_fault_name(enum mn_fault fault)
{
    return (unsigned)fault < MN_FAULT_COUNT ? names[fault] : "?";
}

#ifdef MN_FAULTS
/* Passes left before the armed point kills; < 0: nothing is armed. */
static _Atomic long passes_left = -1;
static _Atomic int armed = -1; /* enum mn_fault, or MN_FAULT_COUNT: nothing */

static void arm(void)
{
    int found = MN_FAULT_COUNT;
    const char *spec = getenv("MNEME_FAULT");
    size_t length = spec ? strcspn(spec, ":") : 0;
    for (int i = 0; spec && i < MN_FAULT_COUNT; i++)
        if (strlen(names[i]) == length && strncmp(names[i], spec, length) == 0)
            found = i;
    atomic_store(&passes_left, spec && spec[length] == ':' ? strtol(spec + length + 1, NULL, 10) : 1);
    atomic_store(&armed, found);
}

void mn_fault_pass(enum mn_fault fault)
{
    if (atomic_load(&armed) < 0)
        arm();
    if ((int)fault == atomic_load(&armed) && atomic_fetch_sub(&passes_left, 1) == 1)
        kill(getpid(), SIGKILL);
}
#endif
