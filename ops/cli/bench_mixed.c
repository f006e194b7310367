/*
 * bench_mixed.c - `mneme bench mixed`: recalls while writes come in at a steady rate, and a prober that takes the
 * promise at its word: what is acknowledged is visible, at that moment, from another process.
 */
#include "ops/cli/bench.h"
#include "ops/cli/cli_time.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The work of the prober: the writers' rings, and any vector to ask with. */
struct prober {
    const struct mn_bench_cluster *cluster;
    size_t writers;
    const float *vector;
};

/* `get` must answer both ids, and a recall that is filtered to the last id must find it: two ways of looking, one
 * moment. */
static enum mn_status probe(struct mn_bench_client *me, struct mneme *client, const struct prober *work,
                            struct mn_bench_acked acked)
{
    static const char *const no_fields[] = {NULL};
    const char *space = work->cluster->space;
    struct mneme_id ids[2] = {{.number = acked.first}, {.number = acked.last}};
    struct mneme_filter filter = {.ids = &ids[1], .id_count = 1};
    struct mneme_query query = {.where = {.spaces = &space, .space_count = 1, .filter = &filter},
                                .embeddings = work->vector,
                                .k = 1,
                                .fields = no_fields};
    struct mneme_reply *reply;
    uint64_t began = mn_cli_time_monotonic();
    MN_CLI_TRY(client, mneme_get(client, space, ids, 2, no_fields, 0, NULL, &reply));
    struct mneme_value memories = mneme_reply_get(reply, "memories");
    for (size_t i = 0; i < 2; i++)
        if (mneme_value_type(mneme_value_at(memories, i)) != MNEME_TYPE_MAP)
            atomic_fetch_add(&me->failed, 1);
    mneme_reply_free(reply);
    MN_CLI_TRY(client, mneme_recall(client, &query, &reply));
    if (mneme_value_length(mneme_reply_get(reply, "hits")) != 1)
        atomic_fetch_add(&me->failed, 1);
    mneme_reply_free(reply);
    mn_cli_hist_add(&me->latency_ns, mn_cli_time_monotonic() - began);
    atomic_fetch_add(&me->measured, 1);
    return MN_OK;
}

/* The next acknowledged request of a writer, if there is one. The acquire pairs with the writer's release of its head.
 */
static bool take_acked(struct mn_bench_client *writer, struct mn_bench_acked *acked)
{
    uint64_t tail = atomic_load_explicit(&writer->ring_tail, memory_order_relaxed);
    if (tail == atomic_load_explicit(&writer->ring_head, memory_order_acquire))
        return false;
    *acked = writer->ring[tail % MN_BENCH_RING];
    atomic_store_explicit(&writer->ring_tail, tail + 1, memory_order_release);
    return true;
}

static enum mn_status run_prober(struct mn_bench_shared *shared, struct mn_bench_client *me, size_t index,
                                 const void *work)
{
    const struct prober *p = work;
    struct mneme *client;
    enum mn_status status = MN_OK;
    MN_TRY(mn_bench_cluster_open(p->cluster, &client));
    atomic_store(&me->ready, 1);
    while (status == MN_OK && atomic_load(&shared->phase) != MN_BENCH_STOP) {
        struct mn_bench_acked acked;
        bool any = false;
        for (size_t i = 0; status == MN_OK && i < p->writers; i++)
            if (take_acked(&shared->clients[i], &acked)) {
                status = probe(me, client, p, acked);
                any = true;
            }
        if (!any)
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    mneme_close(client);
    return status;
}

/* ---- the measurement ---- */

static uint64_t sum(const struct mn_bench_load *load, size_t from, size_t to)
{
    uint64_t total = 0;
    for (size_t i = from; i < to; i++)
        total += atomic_load(&load->shared->clients[i].measured);
    return total;
}

static void report_probes(json_t *report, const struct mn_bench_load *load, size_t writers, size_t prober)
{
    const struct mn_bench_client *p = &load->shared->clients[prober];
    uint64_t skipped = 0;
    for (size_t i = 0; i < writers; i++)
        skipped += atomic_load(&load->shared->clients[i].ring_skipped);
    mn_bench_put_u64(report, "probes", atomic_load(&p->measured));
    mn_bench_put_u64(report, "probe_misses", atomic_load(&p->failed));
    mn_bench_put_u64(report, "acks_not_probed", skipped);
    mn_bench_put_latency(report, "probe_ms", load, prober, prober + 1);
}

static enum mn_status measure(const struct mn_bench_cluster *cluster, struct mn_bench_load *load,
                              const struct mn_bench_options *o, const float *queries, uint64_t query_count,
                              json_t *report)
{
    size_t writers = o->clients, askers = o->recall_clients;
    struct mn_bench_writer writer = {.cluster = cluster,
                                     .batch = o->batch,
                                     .in_flight = o->in_flight,
                                     .content = o->content,
                                     .rate = o->rate / (double)writers,
                                     .ring = o->probe};
    struct mn_bench_asker asker = {
        .cluster = cluster, .queries = queries, .count = query_count, .k = o->k, .target = o->target};
    struct prober prober = {.cluster = cluster, .writers = writers, .vector = queries};
    for (size_t i = 0; i < writers; i++)
        MN_TRY(mn_bench_load_fork(load, mn_bench_load_write, &writer));
    for (size_t i = 0; i < askers; i++)
        MN_TRY(mn_bench_load_fork(load, mn_bench_ask, &asker));
    if (o->probe)
        MN_TRY(mn_bench_load_fork(load, run_prober, &prober));
    MN_TRY(mn_bench_load_wait_ready(load));
    MN_TRY(mn_bench_load_run(load, MN_BENCH_WARM, o->warmup));
    uint64_t began = mn_cli_time_monotonic();
    MN_TRY(mn_bench_load_run(load, MN_BENCH_MEASURE, o->seconds));
    double seconds = (double)(mn_cli_time_monotonic() - began) / 1e9;
    uint64_t memories = sum(load, 0, writers), recalls = sum(load, writers, writers + askers);
    MN_TRY(mn_bench_load_stop(load));
    mn_bench_put_u64(report, "writers", writers);
    mn_bench_put_u64(report, "batch", o->batch);
    mn_bench_put_f64(report, "seconds", seconds);
    mn_bench_put_f64(report, "wanted_memories_per_s", o->rate);
    mn_bench_put_f64(report, "memories_per_s", (double)memories / seconds);
    mn_bench_put_latency(report, "ack_ms", load, 0, writers);
    mn_bench_put_u64(report, "recall_clients", askers);
    mn_bench_put_f64(report, "recalls_per_s", (double)recalls / seconds);
    mn_bench_put_latency(report, "recall_ms", load, writers, writers + askers);
    if (o->probe)
        report_probes(report, load, writers, writers + askers);
    return MN_OK;
}

enum mn_status mn_bench_mixed(struct mn_cli *cli, const struct mn_cli_args *args, const struct mn_bench_options *o,
                              json_t *report)
{
    struct mn_bench_cluster cluster;
    struct mn_bench_load load = {0};
    struct mn_bench_data data = {0};
    float *queries = NULL;
    enum mn_status status = MN_OK;
    MN_TRY_OUT(mn_bench_cluster_begin(&cluster, cli, args, NULL));
    mn_bench_put_setting(report, &cluster);
    MN_TRY_OUT(mn_bench_data_open(&data, o, cluster.dim));
    MN_TRY_OUT(mn_bench_data_load(&data, &cluster, !o->tail_only));
    mn_bench_put_u64(report, "rows", data.rows);
    queries = mn_bench_data_queries(&data);
    if (!queries) {
        status = MN_INTERNAL;
        goto out;
    }
    MN_TRY_OUT(mn_bench_load_init(&load));
    MN_TRY_OUT(measure(&cluster, &load, o, queries, data.queries, report));
    if (o->probe && atomic_load(&load.shared->clients[o->clients + o->recall_clients].failed))
        status = MN_FAIL(MN_CORRUPT, "%" PRIu64 " acknowledged memories were not found at once",
                         (uint64_t)atomic_load(&load.shared->clients[o->clients + o->recall_clients].failed));
out:
    free(queries);
    mn_bench_data_close(&data);
    mn_bench_load_end(&load);
    mn_bench_cluster_end(&cluster);
    return status;
}
