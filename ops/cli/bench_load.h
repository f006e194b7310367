/*
 * bench_load.h - the processes that put load on a cluster, and what they share with the bench.
 *
 * Each client is a process of its own (a ZeroMQ context does not survive a fork, and clients must not share a lock).
 * They run in step with a phase word in shared memory: ready → warm-up → measuring → stop. Counters belong to one
 * client each.
 */
#ifndef MNEME_OPS_CLI_BENCH_LOAD_H
#define MNEME_OPS_CLI_BENCH_LOAD_H

#include "ops/cli/bench_cluster.h"
#include "ops/cli/cli_hist.h"

#include <stdatomic.h>

enum mn_bench_phase { MN_BENCH_PREPARE, MN_BENCH_WARM, MN_BENCH_MEASURE, MN_BENCH_STOP };
enum { MN_BENCH_CLIENTS = 64, MN_BENCH_RING = 4096, MN_BENCH_FLIGHT = 64 };

/* A request that was acknowledged: the first and last id it wrote, for a prober in another process. */
struct mn_bench_acked {
    uint64_t first, last;
};

/* One client's part of the shared memory; the client writes it, the bench and the prober read. */
struct mn_bench_client {
    _Atomic uint32_t ready, ended;
    _Atomic uint64_t acked;          /* memories or queries, in all phases */
    _Atomic uint64_t requests, busy; /* while measuring */
    _Atomic uint64_t measured;       /* memories or queries, while measuring */
    _Atomic uint64_t failed;
    uint64_t hash; /* of all that was acknowledged, see mn_bench_load_hash */
    uint64_t cpu_ns;
    struct mn_cli_hist latency_ns; /* from send to reply, while measuring */
    struct mn_cli_hist worker_us;  /* what replies say */
    _Atomic uint64_t ring_head, ring_tail, ring_skipped;
    struct mn_bench_acked ring[MN_BENCH_RING];
    char error[256];
};

struct mn_bench_shared {
    _Atomic uint32_t phase;
    struct mn_bench_client clients[MN_BENCH_CLIENTS];
};

struct mn_bench_load {
    struct mn_bench_shared *shared;
    pid_t pids[MN_BENCH_CLIENTS];
    size_t count;
};

/* The body of a client: runs in its own process until the phase is STOP and its requests are answered. */
typedef enum mn_status mn_bench_body(struct mn_bench_shared *shared, struct mn_bench_client *me, size_t index,
                                     const void *work);

MN_MUST_USE enum mn_status mn_bench_load_init(struct mn_bench_load *load);
/* Forks a client that runs `body`. The caller holds no ZeroMQ context. */
MN_MUST_USE enum mn_status mn_bench_load_fork(struct mn_bench_load *load, mn_bench_body *body, const void *work);
/* Waits until every client is ready, or one has failed. */
MN_MUST_USE enum mn_status mn_bench_load_wait_ready(struct mn_bench_load *load);
/* Lets the phase last so long; cut short by a failure or an interrupt, which is the result. */
MN_MUST_USE enum mn_status mn_bench_load_run(struct mn_bench_load *load, enum mn_bench_phase phase, double seconds);
/* Sets STOP and waits for the clients' ends; kills those that do not come. The first client's error is the result. */
MN_MUST_USE enum mn_status mn_bench_load_stop(struct mn_bench_load *load);
/* Stops whatever still runs, and releases. */
void mn_bench_load_end(struct mn_bench_load *load);
/* A failure of a client that has ended. */
MN_MUST_USE enum mn_status mn_bench_load_check(struct mn_bench_load *load);

/* Sums over clients [from, to) into one histogram (heap: free it); NULL when out of memory. */
struct mn_cli_hist *mn_bench_load_latency(const struct mn_bench_load *load, size_t from, size_t to, bool worker);

void mn_bench_load_pause(long us);

/* A hash of one memory; sums of it do not depend on the order. */
uint64_t mn_bench_load_hash(uint64_t id, const void *embedding, size_t embedding_size, const void *content,
                            size_t content_size);

/* Random numbers that every process makes alike from a seed: splitmix64, and a standard normal deviate (Box-Muller). */
uint64_t mn_bench_load_random(uint64_t *state);
float mn_bench_load_normal(uint64_t *state);

#endif
