/*
 * bench_ingest.c - `mneme bench ingest`: how many memories a second become durable, and how long each waits for that.
 */
#include "ops/cli/bench.h"
#include "ops/cli/bench_write.h"

#include "ops/cli/cli_time.h"

#define FLOOR_S 3.0

static uint64_t sum_measured(const struct mn_bench_load *load)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < load->count; i++)
        sum += atomic_load(&load->shared->clients[i].measured);
    return sum;
}

static void report_load(json_t *report, const struct mn_bench_load *load)
{
    uint64_t requests = 0, busy = 0, cpu = 0;
    for (size_t i = 0; i < load->count; i++) {
        requests += atomic_load(&load->shared->clients[i].requests);
        busy += atomic_load(&load->shared->clients[i].busy);
        cpu += load->shared->clients[i].cpu_ns;
    }
    mn_bench_put_latency(report, "ack_ms", load, 0, load->count);
    mn_bench_put_u64(report, "requests", requests);
    mn_bench_put_u64(report, "busy", busy);
    mn_bench_put_f64(report, "clients_cpu_s", (double)cpu / 1e9);
}

static void report_counters(json_t *report, const struct mn_bench_counters *before,
                            const struct mn_bench_counters *after)
{
    double syncs = (double)(after->wal_syncs - before->wal_syncs);
    double written = (double)(after->write_memories - before->write_memories);
    mn_bench_put_f64(report, "syncs", syncs);
    mn_bench_put_f64(report, "syncs_per_memory", written > 0 ? syncs / written : 0);
    mn_bench_put_f64(report, "percent_fewer_syncs_than_memories", written > 0 ? 100 * (1 - syncs / written) : 0);
    mn_bench_put_f64(report, "log_bytes_per_memory",
                     written > 0 ? (double)(after->wal_bytes - before->wal_bytes) / written : 0);
    mn_bench_put_f64(report, "cluster_cpu_s", after->cpu_s - before->cpu_s);
}

/* The same bytes in commits of the same size, with nothing around them. */
static enum mn_status report_floor(struct mn_bench_cluster *cluster, const struct mn_bench_counters *before,
                                   const struct mn_bench_counters *after, double seconds, json_t *report)
{
    double bytes = (double)(after->wal_bytes - before->wal_bytes), floor;
    double memories = (double)(after->write_memories - before->write_memories);
    if (after->wal_syncs == before->wal_syncs || memories <= 0)
        return MN_FAIL(MN_UNAVAILABLE, "nothing was written: there is no floor to compare with");
    MN_TRY(mn_bench_cluster_kill(cluster));
    MN_TRY(mn_bench_floor(cluster, bytes / (double)(after->wal_syncs - before->wal_syncs), FLOOR_S, &floor));
    mn_bench_put_f64(report, "bytes_per_commit", bytes / (double)(after->wal_syncs - before->wal_syncs));
    mn_bench_put_f64(report, "bare_loop_memories_per_s", floor * memories / bytes);
    mn_bench_put_f64(report, "share_of_bare_loop", bytes / seconds / floor);
    return MN_OK;
}

static enum mn_status measure(struct mn_bench_cluster *cluster, struct mn_bench_load *load,
                              const struct mn_bench_options *o, json_t *report)
{
    struct mn_bench_counters before, after;
    struct mn_bench_writer writer = {
        .cluster = cluster, .batch = o->batch, .in_flight = o->in_flight, .content = o->content};
    for (uint64_t i = 0; i < o->clients; i++)
        MN_TRY(mn_bench_load_fork(load, mn_bench_write, &writer));
    MN_TRY(mn_bench_load_wait_ready(load));
    MN_TRY(mn_bench_load_run(load, MN_BENCH_WARM, o->warmup));
    MN_TRY(mn_bench_counters_read(cluster, &before));
    uint64_t began = mn_cli_time_monotonic();
    MN_TRY(mn_bench_load_run(load, MN_BENCH_MEASURE, o->seconds));
    uint64_t memories = sum_measured(load);
    double seconds = (double)(mn_cli_time_monotonic() - began) / 1e9;
    MN_TRY(mn_bench_counters_read(cluster, &after));
    MN_TRY(mn_bench_load_stop(load));
    double bytes = (double)memories * ((double)cluster->dim * sizeof(float) + (double)o->content);
    mn_bench_put_u64(report, "clients", o->clients);
    mn_bench_put_u64(report, "batch", o->batch);
    mn_bench_put_u64(report, "in_flight", o->in_flight);
    mn_bench_put_f64(report, "seconds", seconds);
    mn_bench_put_u64(report, "memories", memories);
    mn_bench_put_f64(report, "memories_per_s", (double)memories / seconds);
    mn_bench_put_f64(report, "MB_per_s", bytes / seconds / 1e6);
    report_load(report, load);
    report_counters(report, &before, &after);
    return o->floor ? report_floor(cluster, &before, &after, (double)(after.ns - before.ns) / 1e9, report) : MN_OK;
}

enum mn_status mn_bench_ingest(struct mn_cli *cli, const struct mn_cli_args *args, const struct mn_bench_options *o,
                               json_t *report)
{
    struct mn_bench_cluster cluster;
    struct mn_bench_load load = {0};
    if (o->floor && cli->dir_given)
        return MN_FAIL(MN_USAGE, "--floor measures the disk of a cluster of its own: it takes no --dir");
    enum mn_status status = mn_bench_cluster_begin(&cluster, cli, args, NULL);
    if (status == MN_OK) {
        mn_bench_put_setting(report, &cluster);
        status = mn_bench_load_init(&load);
    }
    if (status == MN_OK)
        status = measure(&cluster, &load, o, report);
    mn_bench_load_end(&load);
    mn_bench_cluster_end(&cluster);
    return status;
}
