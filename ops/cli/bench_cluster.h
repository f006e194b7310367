/*
 * bench_cluster.h - a cluster of the bench's own: started, waited for, killed, stopped, and its traces removed.
 *
 * Also what is asked of the machine around it: processor time of processes, load, the kind of file system. Every
 * cluster that is begun must be ended with mn_bench_cluster_end, on every path; a SIGINT sets mn_bench_interrupted,
 * which all waits look at.
 */
#ifndef MNEME_OPS_CLI_BENCH_CLUSTER_H
#define MNEME_OPS_CLI_BENCH_CLUSTER_H

#include "ops/cli/cli.h"

#include <signal.h>
#include <sys/types.h>

extern volatile sig_atomic_t mn_bench_interrupted;

enum { MN_BENCH_SETS = 64, MN_BENCH_PIDS = 128 };

struct mn_bench_cluster {
    const struct mn_cli *cli;
    bool own;           /* started here; otherwise --dir names a running one */
    const char *mnemed; /* the program */
    const char *metric;
    uint32_t dim;
    const char *sets[MN_BENCH_SETS + 1];
    size_t set_count;
    char root[64]; /* the temporary folder; the store is root/store, what mnemed says goes to root/log */
    char dir[128];
    char space[40];
    pid_t pid;
    bool keep; /* leave the folder there */
};

/* Reads --mnemed, --tmp, --dim, --metric, --set and --keep; with an explicit --dir takes that running cluster, else
 * makes a folder and starts one in it, and waits until it is ready. The caller must hold no ZeroMQ context (a fork
 * follows). */
MN_MUST_USE enum mn_status mn_bench_cluster_begin(struct mn_bench_cluster *cluster, const struct mn_cli *cli,
                                                  const struct mn_cli_args *args, const char *extra_set);
/* Stops an own cluster (SIGTERM, then SIGKILL) and removes its folder; in a foreign one forgets the bench's space. */
void mn_bench_cluster_end(struct mn_bench_cluster *cluster);

/* For an own cluster: start it again on the same folder, wait for `ready`, kill every process of it with SIGKILL and
 * wait for their end. */
MN_MUST_USE enum mn_status mn_bench_cluster_start(struct mn_bench_cluster *cluster);
MN_MUST_USE enum mn_status mn_bench_cluster_wait_ready(struct mn_bench_cluster *cluster);
MN_MUST_USE enum mn_status mn_bench_cluster_kill(struct mn_bench_cluster *cluster);

/* A client of it; close it before the next fork. */
MN_MUST_USE enum mn_status mn_bench_cluster_open(const struct mn_bench_cluster *cluster, struct mneme **client);

/* The pids of all live roles; how many. */
MN_MUST_USE enum mn_status mn_bench_cluster_pids(const struct mn_bench_cluster *cluster, struct mneme *client,
                                                 pid_t *pids, size_t *count);
/* Processor seconds that these processes have used, those that are gone counting nothing. */
double mn_bench_cluster_cpu(const pid_t *pids, size_t count);
/* One minute's load. */
double mn_bench_cluster_load(void);
/* "ext4", "tmpfs", ... of the folder. */
const char *mn_bench_cluster_file_system(const char *path);

#endif
