/*
 * supervisor_policy.h - what the supervisor decides, apart from how it does it: pure functions, tried by unit tests.
 */
#ifndef MN_ACTORS_SUPERVISOR_POLICY_H
#define MN_ACTORS_SUPERVISOR_POLICY_H

#include "shm/layout.h"
#include "shm/status.h"

/* Deaths before ready from which a role counts as one that keeps dying. */
#define MN_EARLY_DEATHS_DEGRADED 3

/* How often in a row a role has died before it reported ready. */
struct mn_backoff {
    uint32_t early_deaths;
};

/* Notes a death; returns the pause (ns) before the next start: 0 after a life that got ready, else min doubled with
 * every further early death, at most max. */
uint64_t mn_backoff_died(struct mn_backoff *backoff, bool was_ready, uint64_t min_ns, uint64_t max_ns);
/* It got ready: earlier deaths count no more. */
void mn_backoff_ready(struct mn_backoff *backoff);
/* MN_EARLY_DEATHS_DEGRADED or more in a row. */
bool mn_backoff_keeps_dying(const struct mn_backoff *backoff);

/* What the state of the whole follows from. */
struct mn_supervisor_facts {
    bool recovery_begun; /* a recovery was started in this life of the supervisor */
    bool complete_once;  /* all roles have been ready */
    bool writer_ready;
    bool stopping;
    uint32_t reasons; /* bits of enum mn_degraded */
};

/* stopping, then degraded by a role that keeps dying, then recovering (no writer serves, or the first start is not
 * over), then degraded by anything else, then ready. */
enum mn_store_state mn_supervisor_state(const struct mn_supervisor_facts *facts);

/* True when a heartbeat is too old. last_look_ns: when the supervisor looked before; if that is half of `stall` ago or
 * more, the supervisor itself was away (a suspended machine), and old heartbeats prove nothing. */
bool mn_supervisor_stalled(uint64_t now_ns, uint64_t last_look_ns, uint64_t heartbeat_ns, uint64_t stall_ns);

/* How a dead child ended, from waitid's si_code and si_status: "exit status 1", "signal 9 (Killed)". */
void mn_supervisor_how(int code, int status, char *text, size_t size);

/* Copies last words out of shared memory that the dead may have scribbled on: printable, one line, NUL-terminated. */
void mn_supervisor_words(const char *slot, size_t slot_size, char *text, size_t size);

#endif
