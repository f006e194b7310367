/*
 * bench_mixed.c - `mneme bench mixed`: recalls while writes come in at a steady rate, and the same alone before and
 * after; and a prober that takes the promise at its word: what is acknowledged is visible, at that moment, from another
 * process.
 */
#include "ops/cli/bench.h"
#include "ops/cli/bench_write.h"
#include "ops/cli/cli_time.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WRITE_ROWS = 32768 }; /* so many are written before one comes again, a little changed */

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

/* Everything that was written lies in columns, and is indexed. */
static enum mn_status settle(const struct mn_bench_cluster *cluster, const struct mn_bench_options *o, json_t *report)
{
    struct mneme *client;
    enum mn_status status = MN_OK;
    if (o->tail_only)
        return MN_OK;
    MN_TRY(mn_bench_cluster_open(cluster, &client));
    enum mneme_code code = mneme_consolidate(client, true, NULL);
    if (code != MNEME_OK)
        status = mn_cli_status(code, mneme_error(client));
    mneme_close(client);
    return status == MN_OK ? mn_bench_await_index(cluster, o->settle, report) : status;
}

/* The same askers with nothing beside them: what the rest is measured by. */
static enum mn_status measure_alone(const struct mn_bench_asker *asker, const struct mn_bench_options *o,
                                    const char *name, json_t *report)
{
    struct mn_bench_load load;
    json_t *alone = json_object();
    enum mn_status status = MN_OK;
    json_object_set_new(report, name, alone);
    MN_TRY(settle(asker->cluster, o, alone));
    MN_TRY(mn_bench_load_init(&load));
    for (size_t i = 0; i < o->recall_clients; i++)
        MN_TRY_OUT(mn_bench_load_fork(&load, mn_bench_ask, asker));
    MN_TRY_OUT(mn_bench_load_wait_ready(&load));
    MN_TRY_OUT(mn_bench_load_run(&load, MN_BENCH_WARM, o->warmup));
    MN_TRY_OUT(mn_bench_load_run(&load, MN_BENCH_MEASURE, o->seconds));
    MN_TRY_OUT(mn_bench_load_stop(&load));
    mn_bench_put_recalls(alone, &load, 0, load.count, o->seconds);
out:
    mn_bench_load_end(&load);
    return status;
}

/* How many times slower than alone. The store grows meanwhile: alone is the mean of before and after. */
static void put_slower(json_t *report, const char *name, const char *key)
{
    static const char *const quantiles[] = {"p50", "p99"};
    const json_t *before = json_object_get(report, "alone_before"), *after = json_object_get(report, "alone_after");
    const json_t *beside = json_object_get(report, "beside_writers");
    json_t *times = json_object();
    for (size_t i = 0; i < MN_ARRAY_LEN(quantiles); i++) {
        double alone =
            mn_bench_quantile_of(before, name, quantiles[i]) + mn_bench_quantile_of(after, name, quantiles[i]);
        mn_bench_put_f64(times, quantiles[i], 2 * mn_bench_quantile_of(beside, name, quantiles[i]) / alone);
    }
    json_object_set_new(report, key, times);
}

static enum mn_status start(struct mn_bench_load *load, const struct mn_bench_options *o,
                            const struct mn_bench_writer *writer, const struct mn_bench_asker *asker,
                            const struct prober *prober)
{
    for (size_t i = 0; i < o->clients; i++)
        MN_TRY(mn_bench_load_fork(load, mn_bench_write, writer));
    for (size_t i = 0; i < o->recall_clients; i++)
        MN_TRY(mn_bench_load_fork(load, mn_bench_ask, asker));
    if (o->probe)
        MN_TRY(mn_bench_load_fork(load, run_prober, prober));
    return mn_bench_load_wait_ready(load);
}

static enum mn_status measure_beside(const struct mn_bench_writer *writer, const struct mn_bench_asker *asker,
                                     struct mn_bench_load *load, const struct mn_bench_options *o, json_t *report)
{
    size_t writers = o->clients, askers = o->recall_clients;
    struct prober prober = {.cluster = writer->cluster, .writers = writers, .vector = asker->queries};
    struct mn_bench_counters before, after;
    json_t *beside = json_object();
    json_object_set_new(report, "beside_writers", beside);
    MN_TRY(start(load, o, writer, asker, &prober));
    MN_TRY(mn_bench_load_run(load, MN_BENCH_WARM, o->warmup));
    MN_TRY(mn_bench_counters_read(writer->cluster, &before));
    uint64_t began = mn_cli_time_monotonic();
    MN_TRY(mn_bench_load_run(load, MN_BENCH_MEASURE, o->seconds));
    double seconds = (double)(mn_cli_time_monotonic() - began) / 1e9;
    uint64_t memories = sum(load, 0, writers);
    MN_TRY(mn_bench_load_stop(load));
    MN_TRY(mn_bench_counters_read(writer->cluster, &after));
    mn_bench_put_f64(report, "memories_per_s", (double)memories / seconds);
    mn_bench_put_latency(report, "ack_ms", load, 0, writers);
    mn_bench_put_u64(report, "compactions", after.compact_runs - before.compact_runs);
    mn_bench_put_recalls(beside, load, writers, writers + askers, seconds);
    if (o->probe)
        report_probes(report, load, writers, writers + askers);
    return MN_OK;
}

static enum mn_status measure(const struct mn_bench_writer *writer, const struct mn_bench_asker *asker,
                              struct mn_bench_load *load, const struct mn_bench_options *o, json_t *report)
{
    mn_bench_put_u64(report, "writers", o->clients);
    mn_bench_put_u64(report, "batch", o->batch);
    mn_bench_put_u64(report, "recall_clients", o->recall_clients);
    mn_bench_put_f64(report, "seconds", o->seconds);
    mn_bench_put_f64(report, "wanted_memories_per_s", o->rate);
    if (o->recall_clients == 0)
        return measure_beside(writer, asker, load, o, report);
    MN_TRY(measure_alone(asker, o, "alone_before", report));
    MN_TRY(measure_beside(writer, asker, load, o, report));
    MN_TRY(measure_alone(asker, o, "alone_after", report));
    put_slower(report, "client_ms", "times_slower_client");
    put_slower(report, "worker_us", "times_slower_worker");
    return MN_OK;
}

enum mn_status mn_bench_mixed(struct mn_cli *cli, const struct mn_cli_args *args, const struct mn_bench_options *o,
                              json_t *report)
{
    struct mn_bench_cluster cluster;
    struct mn_bench_load load = {0};
    struct mn_bench_data data = {0};
    float *queries = NULL, *rows = NULL;
    enum mn_status status = MN_OK;
    MN_TRY_OUT(mn_bench_cluster_begin(&cluster, cli, args, NULL));
    mn_bench_put_setting(report, &cluster);
    MN_TRY_OUT(mn_bench_data_open(&data, o, cluster.dim));
    MN_TRY_OUT(mn_bench_data_load(&data, &cluster, !o->tail_only));
    mn_bench_put_u64(report, "rows", data.rows);
    queries = mn_bench_data_queries(&data);
    rows = mn_bench_data_more(&data, WRITE_ROWS);
    status = queries && rows ? MN_OK : MN_INTERNAL;
    MN_TRY_OUT(status);
    struct mn_bench_writer writer = {.cluster = &cluster,
                                     .batch = o->batch,
                                     .in_flight = o->in_flight,
                                     .content = o->content,
                                     .rate = o->rate / (double)o->clients,
                                     .rows = rows,
                                     .row_count = WRITE_ROWS,
                                     .ring = o->probe};
    struct mn_bench_asker asker = {
        .cluster = &cluster, .queries = queries, .count = data.queries, .k = o->k, .target = o->target};
    MN_TRY_OUT(mn_bench_load_init(&load));
    MN_TRY_OUT(measure(&writer, &asker, &load, o, report));
    if (o->probe && atomic_load(&load.shared->clients[o->clients + o->recall_clients].failed))
        status = MN_FAIL(MN_CORRUPT, "%" PRIu64 " acknowledged memories were not found at once",
                         (uint64_t)atomic_load(&load.shared->clients[o->clients + o->recall_clients].failed));
out:
    free(queries);
    free(rows);
    mn_bench_data_close(&data);
    mn_bench_load_end(&load);
    mn_bench_cluster_end(&cluster);
    return status;
}
