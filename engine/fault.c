/*
 * fault.c - kill points and bugs: named in their tables, armed by the environment in test builds.
 */
#include "engine/fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define X(name, next) #name,
static const char *const names[] = {MN_FAULT_TABLE(X)};
#undef X

const char *mn_fault_name(enum mn_fault fault)
{
    return (unsigned)fault < MN_FAULT_COUNT ? names[fault] : "?";
}

#define X(name, promise) {#name, promise},
static const struct {
    const char *name, *promise;
} bugs[] = {MN_BUG_TABLE(X)};
#undef X

const char *mn_bug_name(enum mn_bug bug)
{
    return (unsigned)bug < MN_BUG_COUNT ? bugs[bug].name : "?";
}

const char *mn_bug_promise(enum mn_bug bug)
{
    return (unsigned)bug < MN_BUG_COUNT ? bugs[bug].promise : "?";
}

#ifdef MN_FAULTS
static struct {
    int bug;          /* enum mn_bug; MN_BUG_COUNT: none */
    int fault;        /* enum mn_fault; MN_FAULT_COUNT: nothing */
    const char *once; /* the path in MNEME_FAULT_ONCE, or NULL */
} armed;
static _Atomic long passes_left;
static pthread_once_t arming = PTHREAD_ONCE_INIT;

static void arm(void)
{
    const char *spec = getenv("MNEME_FAULT");
    size_t length = spec ? strcspn(spec, ":") : 0;
    armed.fault = MN_FAULT_COUNT;
    armed.once = getenv("MNEME_FAULT_ONCE");
    for (int i = 0; spec && i < MN_FAULT_COUNT; i++)
        if (strlen(names[i]) == length && strncmp(names[i], spec, length) == 0)
            armed.fault = i;
    const char *bug = getenv("MNEME_BUG");
    armed.bug = MN_BUG_COUNT;
    for (int i = 0; bug && i < MN_BUG_COUNT; i++)
        if (strcmp(bugs[i].name, bug) == 0)
            armed.bug = i;
    atomic_store(&passes_left, spec && spec[length] == ':' ? strtol(spec + length + 1, NULL, 10) : 1);
}

void mn_fault_pass(enum mn_fault fault)
{
    pthread_once(&arming, arm);
    if ((int)fault != armed.fault || (armed.once && access(armed.once, F_OK) != 0))
        return;
    if (atomic_fetch_sub(&passes_left, 1) == 1 && (!armed.once || unlink(armed.once) == 0))
        kill(getpid(), SIGKILL);
}

bool mn_bug_armed(enum mn_bug bug)
{
    pthread_once(&arming, arm);
    return (int)bug == armed.bug;
}
#endif
