/*
 * cmd_bench.c - `mneme bench`: options, and the report of a measurement.
 */
#include "config/version.h"
#include "ops/cli/bench.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_time.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static const struct mn_cli_option options[] = {
    {"dim", 0, "N", "length of embeddings (default: 768)"},
    {"metric", 0, "METRIC", "cosine, ip or l2 (default: cosine)"},
    {"batch", 'b', "N", "ingest, mixed, recovery: memories in a request (default: 64)"},
    {"clients", 'c', "N", "client processes: writers, or for recall askers (default: 2; recall 1)"},
    {"in-flight", 0, "N", "requests each writer has on its way (default: 1; recovery 4)"},
    {"content", 0, "BYTES", "content of each memory (default: 100)"},
    {"seconds", 0, "S", "ingest, mixed: length of the measurement (default: 10)"},
    {"warmup", 0, "S", "ingest, mixed: before it (default: 2)"},
    {"rate", 0, "N", "mixed: memories/s, all writers together (default: 2000)"},
    {"rows", 0, "N", "recall, mixed: memories to load first (default: 20000)"},
    {"vectors", 0, "FILE", "recall, mixed: load these rows (.f32 or .f16) instead of random clusters"},
    {"query-vectors", 0, "FILE", "recall, mixed: ask these instead of rows that were moved a little"},
    {"spread", 0, "X", "recall, mixed: how far rows lie from their cluster's centre, in its units (default: 0.5)"},
    {"queries", 0, "N", "recall: how many to ask (default: 5000)"},
    {"k", 'k', "N", "recall, mixed: hits of a query (default: 10)"},
    {"target", 0, "0..1", "recall, mixed: wanted recall@k (default: the store's)"},
    {"targets", 0, "LIST", "recall: several such, with commas between them: each is measured on the same rows"},
    {"exact", 0, NULL, "recall: exact search only"},
    {"echo", 0, NULL, "recall: also the sockets alone, and what the way takes beyond them and the work"},
    {"check", 0, "N", "recall: queries that are compared with exact search (default: 200)"},
    {"settle", 0, "S", "recall, mixed: how long to wait for the index after the compaction (default: 30)"},
    {"tail-only", 0, NULL, "recall, mixed: do not compact after loading"},
    {"recall-clients", 0, "N", "mixed: processes that recall (default: 1)"},
    {"probe", 0, NULL, "mixed: another process looks for every acknowledged memory at once; none may be missing"},
    {"gib", 0, "N", "recovery: log to write before the kill (default: 1)"},
    {"floor", 0, NULL, "ingest: afterwards also a bare loop of pwritev and fdatasync of the same bytes"},
    {"crash", 0, NULL, "recovery: kill everything once more in the middle of the first recovery"},
    {"cold", 0, NULL, "recovery: drop the page cache before the start (as root)"},
    {"set", 0, "KEY=VALUE", "a setting of the cluster; may be repeated"},
    {"mnemed", 0, "PATH", "the daemon (default: beside this program, or in PATH)"},
    {"tmp", 0, "DIR", "where the store is made; what is measured is this disk (default: $TMPDIR or /var/tmp)"},
    {"keep", 0, NULL, "leave the store there"},
    {0},
};

static const struct {
    const char *name;
    mn_bench_run *run;
} benches[] = {{"ingest", mn_bench_ingest},
               {"recall", mn_bench_recall},
               {"mixed", mn_bench_mixed},
               {"recovery", mn_bench_recovery}};

/* ---- the report ---- */

void mn_bench_put_f64(json_t *report, const char *name, double value)
{
    json_object_set_new(report, name, isfinite(value) ? json_real(value) : json_null());
}

void mn_bench_put_u64(json_t *report, const char *name, uint64_t value)
{
    json_object_set_new(report, name, json_integer((json_int_t)value));
}

void mn_bench_put_text(json_t *report, const char *name, const char *text)
{
    json_object_set_new(report, name, json_string(text));
}

void mn_bench_put_quantiles(json_t *report, const char *name, const struct mn_cli_hist *hist, double divisor)
{
    static const struct {
        const char *name;
        double share;
    } quantiles[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p99.9", .999}, {"max", 1}};
    json_t *all = json_object();
    for (size_t i = 0; i < MN_ARRAY_LEN(quantiles); i++)
        mn_bench_put_f64(all, quantiles[i].name, (double)mn_cli_hist_quantile(hist, quantiles[i].share) / divisor);
    json_object_set_new(report, name, all);
}

void mn_bench_put_latency(json_t *report, const char *name, const struct mn_bench_load *load, size_t from, size_t to)
{
    struct mn_cli_hist *hist = mn_bench_load_latency(load, from, to, false);
    if (hist)
        mn_bench_put_quantiles(report, name, hist, 1e6);
    free(hist);
}

double mn_bench_quantile_of(const json_t *report, const char *name, const char *quantile)
{
    const json_t *value = json_object_get(json_object_get(report, name), quantile);
    return value ? json_number_value(value) : NAN;
}

void mn_bench_put_setting(json_t *report, const struct mn_bench_cluster *cluster)
{
    struct utsname os;
    char at[MN_CLI_TIME_SIZE];
    json_t *sets = json_array();
    for (size_t i = 0; i < cluster->set_count; i++)
        json_array_append_new(sets, json_string(cluster->sets[i]));
    mn_bench_put_text(report, "version", mn_version_build());
    mn_bench_put_text(report, "at", mn_cli_time_print(mn_cli_time_now() / 1000000000 * 1000000000, at));
    mn_bench_put_u64(report, "processors", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    mn_bench_put_text(report, "kernel", uname(&os) == 0 ? os.release : "unknown");
    mn_bench_put_text(report, "file_system", mn_bench_cluster_file_system(cluster->own ? cluster->root : cluster->dir));
    mn_bench_put_f64(report, "load_average", mn_bench_cluster_load());
    mn_bench_put_u64(report, "dim", cluster->dim);
    json_object_set_new(report, "settings", sets);
}

/* Leaves as `name.part  value`; arrays as JSON. */
static void print_leaves(const struct mn_cli *cli, const char *prefix, const json_t *report)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)report, key, value)
    {
        char name[128], count[32];
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", key);
        if (json_is_object(value)) {
            print_leaves(cli, name, value);
        } else if (json_is_real(value)) {
            double v = json_real_value(value);
            printf("  %-34s %s%.*f%s\n", name, mn_cli_out_bold(cli), fabs(v) >= 1000 ? 0 : 3, v, mn_cli_out_plain(cli));
        } else if (json_is_integer(value)) {
            printf("  %-34s %s\n", name, mn_cli_out_count((uint64_t)json_integer_value(value), count));
        } else {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
            printf("  %-34s %s\n", name, text ? text : "");
            free(text);
        }
    }
}

/* ---- counters ---- */

static uint64_t counter(struct mneme_value stats, const char *name)
{
    return mneme_value_u64(mneme_value_get(stats, name), 0);
}

enum mn_status mn_bench_counters_read(const struct mn_bench_cluster *cluster, struct mn_bench_counters *c)
{
    struct mneme *client;
    struct mneme_reply *reply = NULL;
    pid_t pids[MN_BENCH_PIDS];
    size_t count;
    memset(c, 0, sizeof *c);
    MN_TRY(mn_bench_cluster_open(cluster, &client));
    enum mneme_code code = mneme_stats(client, "map", &reply);
    enum mn_status status = code == MNEME_OK ? MN_OK : mn_cli_status(code, mneme_error(client));
    if (status == MN_OK) {
        struct mneme_value stats = mneme_reply_get(reply, "stats");
        c->ns = mn_cli_time_monotonic();
        c->wal_syncs = counter(stats, "wal_syncs");
        c->wal_bytes = counter(stats, "wal_bytes");
        c->write_memories = counter(stats, "write_memories");
        c->write_busy = counter(stats, "write_busy");
        c->compact_runs = counter(stats, "compact_runs");
        status = mn_bench_cluster_pids(cluster, client, pids, &count);
        c->cpu_s = mn_bench_cluster_cpu(pids, count);
    }
    mneme_reply_free(reply);
    mneme_close(client);
    return status;
}

/* ---- the command ---- */

static enum mn_status read_options(const struct mn_cli_args *args, const char *bench, struct mn_bench_options *o)
{
    bool recall = strcmp(bench, "recall") == 0, recovery = strcmp(bench, "recovery") == 0;
    *o = (struct mn_bench_options){.batch = 64,
                                   .clients = recall ? 1 : 2,
                                   .in_flight = recovery ? 4 : 1,
                                   .content = 100,
                                   .rows = 20000,
                                   .queries = 5000,
                                   .k = 10,
                                   .check = 200,
                                   .recall_clients = 1,
                                   .seconds = 10,
                                   .warmup = 2,
                                   .rate = 2000,
                                   .gib = 1,
                                   .target = -1,
                                   .spread = 0.5,
                                   .settle = 30};
    MN_TRY(mn_cli_args_u64(args, "batch", 1, 4096, &o->batch));
    MN_TRY(mn_cli_args_u64(args, "clients", 1, MN_BENCH_CLIENTS / 2, &o->clients));
    MN_TRY(mn_cli_args_u64(args, "in-flight", 1, MN_BENCH_FLIGHT, &o->in_flight));
    MN_TRY(mn_cli_args_u64(args, "content", 0, 1 << 20, &o->content));
    MN_TRY(mn_cli_args_u64(args, "rows", 1, 100000000, &o->rows));
    MN_TRY(mn_cli_args_u64(args, "queries", 1, 10000000, &o->queries));
    MN_TRY(mn_cli_args_u64(args, "k", 1, 10000, &o->k));
    MN_TRY(mn_cli_args_u64(args, "check", 0, 1000000, &o->check));
    MN_TRY(mn_cli_args_u64(args, "recall-clients", 0, MN_BENCH_CLIENTS / 2 - 1, &o->recall_clients));
    MN_TRY(mn_cli_args_f64(args, "seconds", 0.1, 86400, &o->seconds));
    MN_TRY(mn_cli_args_f64(args, "warmup", 0, 3600, &o->warmup));
    MN_TRY(mn_cli_args_f64(args, "rate", 1, 1e9, &o->rate));
    MN_TRY(mn_cli_args_f64(args, "gib", 0.001, 4096, &o->gib));
    MN_TRY(mn_cli_args_f64(args, "target", 0.01, 1, &o->target));
    MN_TRY(mn_cli_args_f64(args, "spread", 0, 100, &o->spread));
    MN_TRY(mn_cli_args_f64(args, "settle", 0, 86400, &o->settle));
    o->probe = mn_cli_args_has(args, "probe");
    o->tail_only = mn_cli_args_has(args, "tail-only");
    o->exact = mn_cli_args_has(args, "exact");
    o->echo = mn_cli_args_has(args, "echo");
    o->targets = mn_cli_args_text(args, "targets");
    o->floor = mn_cli_args_has(args, "floor");
    o->crash = mn_cli_args_has(args, "crash");
    o->cold = mn_cli_args_has(args, "cold");
    o->vectors = mn_cli_args_text(args, "vectors");
    o->query_vectors = mn_cli_args_text(args, "query-vectors");
    return MN_OK;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mn_bench_options o;
    mn_bench_run *bench = NULL;
    MN_TRY(mn_cli_args_words(args, 1, 1, "what to measure (ingest, recall, mixed or recovery)"));
    for (size_t i = 0; i < MN_ARRAY_LEN(benches); i++)
        if (strcmp(benches[i].name, args->words[0]) == 0)
            bench = benches[i].run;
    if (!bench)
        return MN_FAIL(MN_USAGE, "`%s` cannot be measured: ingest, recall, mixed and recovery can", args->words[0]);
    MN_TRY(read_options(args, args->words[0], &o));
    json_t *report = json_object();
    mn_bench_put_text(report, "bench", args->words[0]);
    enum mn_status status = bench(cli, args, &o, report);
    if (status == MN_OK && cli->json)
        return mn_cli_json_print(report, cli->out_is_terminal);
    if (status == MN_OK)
        print_leaves(cli, "", report);
    json_decref(report);
    return status;
}

const struct mn_cli_command mn_cmd_bench = {
    .usage = "ingest | recall | mixed | recovery  [options]",
    .options = options,
    .details = "Starts a cluster of its own in a temporary folder, measures it, and removes every trace. An explicit "
               "--dir measures that\n"
               "running cluster instead, in a space of its own which is forgotten at the end. (MNEME_DIR is not used "
               "here.)\n\n"
               "  ingest    writers send batches as fast as they are acknowledged: memories/s, MB/s, latency, syncs\n"
               "  recall    loads rows, asks queries: latency at the client and in the worker, queries/s, recall@k "
               "against exact search\n"
               "  mixed     recalls beside writers at a fixed rate, and how many times slower than alone; with "
               "--probe every\n"
               "            acknowledged memory must be found at once\n"
               "  recovery  writes log, kills every process with SIGKILL, starts again: seconds to `ready`, and "
               "whether every\n"
               "            acknowledged memory is there, bit for bit\n\n"
               "Clients are processes. Latencies are milliseconds, from the send (or, at a fixed rate, from when the "
               "send was due)\n"
               "to the reply.\n",
    .examples = "  mneme bench ingest --batch 64 --clients 2 --seconds 10 --floor\n"
                "  mneme bench recall --rows 100000 --queries 10000 --target 0.95\n"
                "  mneme bench recall --rows 100000 --targets 0.9,0.95,0.99 --echo\n"
                "  mneme bench recall --vectors text768.f16 --query-vectors text768.q.f16\n"
                "  mneme bench mixed --rows 100000 --rate 10000 --seconds 30\n"
                "  mneme bench mixed --rate 5000 --probe --json\n"
                "  mneme bench recovery --gib 1\n",
    .run = run,
};
