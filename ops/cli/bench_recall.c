/*
 * bench_recall.c - `mneme bench recall`: latency and truth of recalls over a loaded store.
 */
#include "ops/cli/bench.h"
#include "ops/cli/cli_id.h"
#include "ops/cli/cli_time.h"

#include <stdlib.h>
#include <time.h>

static struct mneme_query query_of(const struct mn_bench_asker *work, uint64_t q, uint32_t dim,
                                   const char *const *space, bool exact)
{
    static const char *const no_fields[] = {NULL}; /* ids and scores only: what is measured is the search */
    return (struct mneme_query){.where = {.spaces = space, .space_count = 1},
                                .embeddings = work->queries + q % work->count * dim,
                                .k = (uint32_t)work->k,
                                .target = work->target > 0 ? &work->target : NULL,
                                .exact = exact,
                                .fields = no_fields};
}

static enum mn_status ask_one(struct mn_bench_shared *shared, struct mn_bench_client *me, struct mneme *client,
                              const struct mneme_query *query)
{
    struct mneme_reply *reply;
    uint64_t began = mn_cli_time_monotonic();
    MN_CLI_TRY(client, mneme_recall(client, query, &reply));
    uint64_t took = mn_cli_time_monotonic() - began;
    atomic_fetch_add_explicit(&me->acked, 1, memory_order_relaxed);
    if (atomic_load_explicit(&shared->phase, memory_order_relaxed) == MN_BENCH_MEASURE) {
        atomic_fetch_add_explicit(&me->measured, 1, memory_order_relaxed);
        mn_cli_hist_add(&me->latency_ns, took);
        mn_cli_hist_add(&me->worker_us, mneme_value_u64(mneme_reply_get(reply, "us"), 0));
    }
    mneme_reply_free(reply);
    return MN_OK;
}

enum mn_status mn_bench_ask(struct mn_bench_shared *shared, struct mn_bench_client *me, size_t index, const void *work)
{
    const struct mn_bench_asker *w = work;
    const char *space = w->cluster->space;
    struct mneme *client;
    enum mn_status status = MN_OK;
    uint64_t next = index * 7919; /* clients begin at different queries */
    MN_TRY(mn_bench_cluster_open(w->cluster, &client));
    atomic_store(&me->ready, 1);
    while (atomic_load(&shared->phase) == MN_BENCH_PREPARE)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    while (status == MN_OK && atomic_load_explicit(&shared->phase, memory_order_relaxed) != MN_BENCH_STOP) {
        struct mneme_query query = query_of(w, next++, w->cluster->dim, &space, w->exact);
        status = ask_one(shared, me, client, &query);
    }
    mneme_close(client);
    return status;
}

/* ---- truth ---- */

static size_t shared_ids(struct mneme_value a, struct mneme_value b)
{
    size_t same = 0;
    for (size_t i = 0; i < mneme_value_length(a); i++) {
        struct mneme_id x, y;
        if (!mneme_value_id(mneme_value_get(mneme_value_at(a, i), "id"), &x))
            continue;
        for (size_t k = 0; k < mneme_value_length(b); k++)
            if (mneme_value_id(mneme_value_get(mneme_value_at(b, k), "id"), &y) && mn_cli_id_equal(&x, &y)) {
                same++;
                break;
            }
    }
    return same;
}

struct truth {
    uint64_t found, wanted, short_answers;
    double scanned, exact_scanned;
};

static enum mn_status check_one(struct mneme *client, const struct mn_bench_asker *w, uint64_t q, struct truth *t)
{
    const char *space = w->cluster->space;
    struct mneme_reply *guess = NULL, *exact = NULL;
    struct mneme_query query = query_of(w, q, w->cluster->dim, &space, w->exact);
    MN_CLI_TRY(client, mneme_recall(client, &query, &guess));
    query.exact = true;
    query.target = NULL;
    enum mneme_code code = mneme_recall(client, &query, &exact);
    enum mn_status status = code == MNEME_OK ? MN_OK : mn_cli_status(code, mneme_error(client));
    if (status == MN_OK) {
        struct mneme_value hits = mneme_reply_get(guess, "hits"), truth = mneme_reply_get(exact, "hits");
        t->found += shared_ids(truth, hits);
        t->wanted += mneme_value_length(truth);
        t->short_answers += mneme_value_length(hits) < mneme_value_length(truth);
        t->scanned += mneme_value_f64(mneme_reply_get(guess, "scanned"), 0);
        t->exact_scanned += mneme_value_f64(mneme_reply_get(exact, "scanned"), 0);
    }
    mneme_reply_free(guess);
    mneme_reply_free(exact);
    return status;
}

static enum mn_status check_truth(const struct mn_bench_asker *w, uint64_t count, json_t *report)
{
    struct mneme *client;
    struct truth t = {0};
    enum mn_status status = MN_OK;
    count = count < w->count ? count : w->count;
    if (count == 0)
        return MN_OK;
    MN_TRY(mn_bench_cluster_open(w->cluster, &client));
    mneme_set_timeout(client, 60000); /* exact search of a large store takes its time */
    for (uint64_t q = 0; status == MN_OK && q < count && !mn_bench_interrupted; q++)
        status = check_one(client, w, q, &t);
    mneme_close(client);
    if (status != MN_OK)
        return status;
    mn_bench_put_f64(report, "recall_at_k", t.wanted ? (double)t.found / (double)t.wanted : 0);
    mn_bench_put_u64(report, "checked_queries", count);
    mn_bench_put_u64(report, "short_answers", t.short_answers);
    mn_bench_put_f64(report, "scanned_per_query", t.scanned / (double)count);
    mn_bench_put_f64(report, "exact_scanned_per_query", t.exact_scanned / (double)count);
    return MN_OK;
}

/* ---- the measurement ---- */

/* Lets the askers run until together they have answered `count` queries. */
static enum mn_status run_until(struct mn_bench_load *load, uint64_t count)
{
    uint64_t answered = 0;
    while (answered < count) {
        MN_TRY(mn_bench_load_run(load, MN_BENCH_MEASURE, 0.01));
        answered = 0;
        for (size_t i = 0; i < load->count; i++)
            answered += atomic_load(&load->shared->clients[i].measured);
    }
    return MN_OK;
}

/* What a recall takes beyond the sockets alone and the work. */
static enum mn_status put_beyond(const struct mn_bench_asker *asker, json_t *report)
{
    double echo_us, client_us = mn_bench_quantile_of(report, "client_ms", "p50") * 1e3;
    MN_TRY(mn_bench_echo(asker->cluster, asker->k, &echo_us, report));
    mn_bench_put_f64(report, "beyond_echo_and_worker_us",
                     client_us - echo_us - mn_bench_quantile_of(report, "worker_us", "p50"));
    return MN_OK;
}

void mn_bench_put_recalls(json_t *report, const struct mn_bench_load *load, size_t from, size_t to, double seconds)
{
    uint64_t answered = 0;
    for (size_t i = from; i < to; i++)
        answered += atomic_load(&load->shared->clients[i].measured);
    mn_bench_put_u64(report, "queries", answered);
    mn_bench_put_f64(report, "queries_per_s", (double)answered / seconds);
    mn_bench_put_latency(report, "client_ms", load, from, to);
    struct mn_cli_hist *worker = mn_bench_load_latency(load, from, to, true);
    if (worker)
        mn_bench_put_quantiles(report, "worker_us", worker, 1);
    free(worker);
}

static enum mn_status measure_load(const struct mn_bench_asker *asker, struct mn_bench_load *load,
                                   const struct mn_bench_options *o, json_t *report)
{
    uint64_t cpu = 0;
    struct mn_bench_counters before, after;
    for (uint64_t i = 0; i < o->clients; i++)
        MN_TRY(mn_bench_load_fork(load, mn_bench_ask, asker));
    MN_TRY(mn_bench_load_wait_ready(load));
    MN_TRY(mn_bench_load_run(load, MN_BENCH_WARM, 0.5));
    MN_TRY(mn_bench_counters_read(asker->cluster, &before));
    uint64_t began = mn_cli_time_monotonic();
    MN_TRY(run_until(load, o->queries));
    double seconds = (double)(mn_cli_time_monotonic() - began) / 1e9;
    MN_TRY(mn_bench_counters_read(asker->cluster, &after));
    MN_TRY(mn_bench_load_stop(load));
    for (size_t i = 0; i < load->count; i++)
        cpu += load->shared->clients[i].cpu_ns;
    mn_bench_put_recalls(report, load, 0, load->count, seconds);
    mn_bench_put_f64(report, "clients_cpu_s", (double)cpu / 1e9);
    mn_bench_put_f64(report, "cluster_cpu_s", after.cpu_s - before.cpu_s);
    if (o->echo)
        MN_TRY(put_beyond(asker, report));
    return check_truth(asker, o->check, report);
}

static enum mn_status measure(const struct mn_bench_asker *asker, const struct mn_bench_options *o, json_t *report)
{
    struct mn_bench_load load = {0};
    enum mn_status status = mn_bench_load_init(&load);
    if (status == MN_OK)
        status = measure_load(asker, &load, o, report);
    mn_bench_load_end(&load);
    return status;
}

/* One target, or each of the list: `target_0.95` then holds what otherwise stands alone. */
static enum mn_status measure_targets(struct mn_bench_asker *asker, const struct mn_bench_options *o, json_t *report)
{
    const char *text = o->targets;
    char *end;
    mn_bench_put_u64(report, "clients", o->clients);
    mn_bench_put_u64(report, "k", o->k);
    if (!text)
        return measure(asker, o, report);
    do {
        char name[48];
        asker->target = strtod(text, &end);
        if (end == text || (*end && *end != ',') || !(asker->target > 0 && asker->target <= 1))
            return MN_FAIL(MN_USAGE, "--targets takes numbers above 0 and up to 1, with commas between them");
        snprintf(name, sizeof name, "target_%.*s", (int)(end - text < 32 ? end - text : 32), text);
        json_t *one = json_object();
        json_object_set_new(report, name, one);
        MN_TRY(measure(asker, o, one));
        text = end + 1;
    } while (*end == ',');
    return MN_OK;
}

/* Everything in columns has codes, and recall is calibrated for about so many rows; or there are too few for that. */
static bool is_indexed(struct mneme *client)
{
    struct mneme_reply *info;
    if (mneme_info(client, &info) != MNEME_OK)
        return false;
    struct mneme_value index = mneme_reply_get(info, "index");
    uint64_t rows = mneme_value_u64(mneme_value_get(index, "column_rows"), 0);
    uint64_t rows_min = mneme_value_u64(mneme_value_get(index, "rows_min"), 0);
    bool wanted = rows_min > 0 && rows >= rows_min;
    bool indexed = mneme_value_u64(mneme_value_get(index, "coded_rows"), 0) >= rows &&
                   mneme_value_u64(mneme_value_get(index, "calibrated_rows"), 0) >= rows - rows / 4;
    mneme_reply_free(info);
    return rows > 0 && (indexed || !wanted);
}

enum mn_status mn_bench_await_index(const struct mn_bench_cluster *cluster, double seconds, json_t *report)
{
    struct mneme *client;
    uint64_t began = mn_cli_time_monotonic(), until = began + (uint64_t)(seconds * 1e9);
    MN_TRY(mn_bench_cluster_open(cluster, &client));
    bool indexed = is_indexed(client);
    while (!indexed && mn_cli_time_monotonic() < until && !mn_bench_interrupted) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        indexed = is_indexed(client);
    }
    mneme_close(client);
    json_object_set_new(report, "indexed", json_boolean(indexed));
    mn_bench_put_f64(report, "index_s", (double)(mn_cli_time_monotonic() - began) / 1e9);
    return MN_OK;
}

enum mn_status mn_bench_recall(struct mn_cli *cli, const struct mn_cli_args *args, const struct mn_bench_options *o,
                               json_t *report)
{
    struct mn_bench_cluster cluster = {0};
    struct mn_bench_data data = {0};
    float *queries = NULL;
    enum mn_status status = MN_OK;
    MN_TRY_OUT(mn_bench_cluster_begin(&cluster, cli, args, NULL));
    mn_bench_put_setting(report, &cluster);
    MN_TRY_OUT(mn_bench_data_open(&data, o, cluster.dim));
    uint64_t began = mn_cli_time_monotonic();
    MN_TRY_OUT(mn_bench_data_load(&data, &cluster, !o->tail_only));
    mn_bench_put_u64(report, "rows", data.rows);
    mn_bench_put_f64(report, "load_s", (double)(mn_cli_time_monotonic() - began) / 1e9);
    if (!o->tail_only)
        MN_TRY_OUT(mn_bench_await_index(&cluster, o->settle, report));
    queries = mn_bench_data_queries(&data);
    if (!queries) {
        status = MN_INTERNAL;
        goto out;
    }
    struct mn_bench_asker asker = {.cluster = &cluster,
                                   .queries = queries,
                                   .count = data.queries,
                                   .k = o->k,
                                   .target = o->target,
                                   .exact = o->exact};
    MN_TRY_OUT(measure_targets(&asker, o, report));
out:
    free(queries);
    mn_bench_data_close(&data);
    mn_bench_cluster_end(&cluster);
    return status;
}
