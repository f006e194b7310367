/*
 * bench.h - the four measurements, and what they have in common: options, statistics before and after, and the report.
 *
 * A measurement fills one JSON object. --json prints it; otherwise it is shown as a table of its leaves. Names carry
 * their units.
 */
#ifndef MNEME_OPS_CLI_BENCH_H
#define MNEME_OPS_CLI_BENCH_H

#include "ops/cli/bench_load.h"

#include <jansson.h>

/* The options of `mneme bench`, with their defaults put in by mn_bench_options. */
struct mn_bench_options {
    uint64_t batch, clients, in_flight, content, rows, queries, k, check, recall_clients, seconds_max;
    double seconds, warmup, rate, gib, target, spread, settle;
    bool probe, tail_only, exact, cold, crash, echo, floor;
    const char *vectors, *query_vectors, *targets;
};

/* One measurement: begins a cluster, fills `report`, ends the cluster. */
typedef enum mn_status mn_bench_run(struct mn_cli *cli, const struct mn_cli_args *args,
                                    const struct mn_bench_options *options, json_t *report);
enum mn_status mn_bench_ingest(struct mn_cli *cli, const struct mn_cli_args *args, const struct mn_bench_options *o,
                               json_t *report);
enum mn_status mn_bench_recall(struct mn_cli *cli, const struct mn_cli_args *args, const struct mn_bench_options *o,
                               json_t *report);
enum mn_status mn_bench_mixed(struct mn_cli *cli, const struct mn_cli_args *args, const struct mn_bench_options *o,
                              json_t *report);
enum mn_status mn_bench_recovery(struct mn_cli *cli, const struct mn_cli_args *args, const struct mn_bench_options *o,
                                 json_t *report);

/* The counters a measurement looks at, before and after. */
struct mn_bench_counters {
    uint64_t wal_syncs, wal_bytes, write_memories, write_busy, compact_runs;
    double cpu_s;
    uint64_t ns;
    uint64_t client_cpu_ns;
};
/* Asks the stats socket of a cluster; opens and closes a client. */
MN_MUST_USE enum mn_status mn_bench_counters_read(const struct mn_bench_cluster *cluster,
                                                  struct mn_bench_counters *counters);

/* Adds name: value to the report; false results (out of memory) show when the report is printed. */
void mn_bench_put_f64(json_t *report, const char *name, double value);
void mn_bench_put_u64(json_t *report, const char *name, uint64_t value);
void mn_bench_put_text(json_t *report, const char *name, const char *text);
/* name: {p50, p90, p99, p99.9, max}, each divided by `divisor`. */
void mn_bench_put_quantiles(json_t *report, const char *name, const struct mn_cli_hist *hist, double divisor);
/* The same of clients [from, to). */
void mn_bench_put_latency(json_t *report, const char *name, const struct mn_bench_load *load, size_t from, size_t to);
/* One of these numbers, as it was put; NaN when it is not there. */
double mn_bench_quantile_of(const json_t *report, const char *name, const char *quantile);
/* What was measured where: the machine, the cluster, the version. */
void mn_bench_put_setting(json_t *report, const struct mn_bench_cluster *cluster);

/* bench_data.c: the rows and queries of recall measurements. */
struct mn_bench_data {
    uint32_t dim;
    uint64_t rows, queries;
    size_t centers;
    float *center; /* centers × dim; NULL when rows come from a file */
    float spread;
    const char *path, *query_path;
};
MN_MUST_USE enum mn_status mn_bench_data_open(struct mn_bench_data *data, const struct mn_bench_options *o,
                                              uint32_t dim);
/* Loads rows 1.. as memories with the row's number as id, through a client of its own; then compacts unless told not
 * to. */
MN_MUST_USE enum mn_status mn_bench_data_load(const struct mn_bench_data *data, const struct mn_bench_cluster *cluster,
                                              bool consolidate);
/* All queries, queries × dim floats, on the heap. NULL with an error when they cannot be made or read. */
float *mn_bench_data_queries(const struct mn_bench_data *data);
/* `count` rows of the same kind beyond those that were loaded, on the heap; where a file ends, from its beginning on.
 * NULL with an error as above. */
float *mn_bench_data_more(const struct mn_bench_data *data, uint64_t count);
void mn_bench_data_close(struct mn_bench_data *data);

/* bench_echo.c: the sockets alone, with frames as of a recall of k memories: `echo_us` in the report, and its median.
 * The caller holds no ZeroMQ context. */
MN_MUST_USE enum mn_status mn_bench_echo(const struct mn_bench_cluster *cluster, uint64_t k, double *p50_us,
                                         json_t *report);

/* bench_floor.c: bytes/s of a bare loop that writes as many bytes and syncs them, for so long, in the folder of an own
 * cluster (which should not run meanwhile). */
MN_MUST_USE enum mn_status mn_bench_floor(const struct mn_bench_cluster *cluster, double bytes_per_commit,
                                          double wanted_s, double *bytes_per_s);

/* bench_recall.c: a client that asks one query after the other; `work` is a struct mn_bench_asker. */
struct mn_bench_asker {
    const struct mn_bench_cluster *cluster;
    const float *queries;
    uint64_t count, k;
    double target;
    bool exact;
};
enum mn_status mn_bench_ask(struct mn_bench_shared *shared, struct mn_bench_client *me, size_t index, const void *work);
/* Waits, for so long at most, until all rows in columns have codes and recall is calibrated: `indexed` and `index_s` in
 * the report. */
MN_MUST_USE enum mn_status mn_bench_await_index(const struct mn_bench_cluster *cluster, double seconds, json_t *report);
/* What the askers [from, to) have asked in so many seconds: queries, queries_per_s, client_ms, worker_us. */
void mn_bench_put_recalls(json_t *report, const struct mn_bench_load *load, size_t from, size_t to, double seconds);

#endif
