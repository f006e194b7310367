/*
 * grow.c - a store that grows from few rows to many while it is asked, and what that costs (see README.md in
 * tests/bench).
 *
 *     grow --dir DIR --mnemed PATH [--rows 1000000] [--first 100000] [--queries 500] [--set key=value] BASE QUERIES DIM
 *
 * All of mnemed runs on the first core: writer, compactor, tail coder and worker share it. An attached thread on the
 * last core asks one query after the other, all the time. First the store holds `first` rows and is measured quiet;
 * then the others are written, compaction running as it does by itself; then the index is awaited, and it is measured
 * quiet again.
 */
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/c/mneme.h"
#include "tests/bench/peers/peers.h"

enum { BUSY_MAX = 2000000, ROUNDS = 5 };

static const double targets[] = {.95, .99};

struct asker {
    pthread_t thread;
    struct mneme_attached *attached;
    const struct peer_data *data;
    double *took_us;
    size_t count;
    _Atomic bool stop;
};

/* -1: anywhere. */
static void stay_on(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < sysconf(_SC_NPROCESSORS_ONLN); i++)
        if (core < 0 || i == core)
            CPU_SET(i, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        peer_die("cannot run on processor %d", core);
}

static int last_core(void)
{
    return (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
}

/* One query, its time in us; found (may be NULL): how many of the right rows it brought. */
static double ask(struct mneme_attached *a, const struct peer_data *d, uint64_t q, double target, uint32_t *found)
{
    static const char *const no_fields[] = {NULL};
    struct mneme_query query = {
        .embeddings = d->query + q * d->stride, .k = PEER_K, .target = &target, .fields = no_fields};
    struct mneme_answer answer;
    uint32_t ids[PEER_K];
    uint64_t begun = peer_now_ns();
    if (mneme_attached_recall(a, &query, &answer) != MNEME_OK)
        peer_die("recall: %s", mneme_attached_error(a));
    double us = (double)(peer_now_ns() - begun) / 1e3;
    for (size_t i = 0; i < answer.results[0].count; i++)
        ids[i] = (uint32_t)answer.results[0].hit[i].memory.id.number - 1;
    if (found)
        *found = peer_data_found(d, q, ids, (uint32_t)answer.results[0].count);
    return us;
}

/* ---- asking all the time ---- */

static void *ask_on(void *context)
{
    struct asker *a = context;
    stay_on(last_core());
    for (uint64_t q = 0; !atomic_load(&a->stop); q = (q + 1) % a->data->queries) {
        double us = ask(a->attached, a->data, q, .95, NULL);
        if (a->count < BUSY_MAX)
            a->took_us[a->count++] = us;
    }
    return NULL;
}

static void begin_asking(struct asker *a)
{
    a->count = 0;
    atomic_store(&a->stop, false);
    if (pthread_create(&a->thread, NULL, ask_on, a) != 0)
        peer_die("no thread");
}

static void end_asking(struct asker *a, const char *when)
{
    atomic_store(&a->stop, true);
    pthread_join(a->thread, NULL);
    double p50 = peer_quantile(a->took_us, a->count, .5), p99 = peer_quantile(a->took_us, a->count, .99);
    printf("  recalls meanwhile (%s, target .95): %zu, p50 %.1f us, p99 %.1f us\n", when, a->count, p50, p99);
}

/* ---- quiet ---- */

struct quiet {
    double p50, p99, recall;
};

static struct quiet measure(struct mneme_attached *a, const struct peer_data *d, double target)
{
    uint64_t timed = d->queries - PEER_SPARE, right = 0;
    double *took = malloc(timed * sizeof *took), p50[ROUNDS], p99[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        for (uint64_t q = timed; q < d->queries; q++)
            ask(a, d, q, target, NULL);
        for (uint64_t q = 0; q < timed; q++) {
            uint32_t found;
            took[q] = ask(a, d, q, target, &found);
            right += round == 0 ? found : 0;
        }
        p50[round] = peer_quantile(took, timed, .5);
        p99[round] = peer_quantile(took, timed, .99);
    }
    free(took);
    return (struct quiet){peer_quantile(p50, ROUNDS, .5), peer_quantile(p99, ROUNDS, .5),
                          (double)right / (double)(timed * PEER_K)};
}

static void measure_all(struct mneme_attached *a, const struct peer_data *d, struct quiet *out)
{
    double load = 0;
    if (getloadavg(&load, 1) != 1)
        load = -1;
    stay_on(last_core());
    for (size_t t = 0; t < sizeof targets / sizeof *targets; t++) {
        out[t] = measure(a, d, targets[t]);
        printf(
            "  %8llu rows, quiet, target %.2f: recall@10 %.4f, p50 %.1f us, p99 %.1f us (medians of %d; load %.2f)\n",
            (unsigned long long)d->rows, targets[t], out[t].recall, out[t].p50, out[t].p99, ROUNDS, load);
    }
    stay_on(-1);
    fflush(stdout);
}

/* ---- the story ---- */

static double seconds_since(uint64_t begun_ns)
{
    return (double)(peer_now_ns() - begun_ns) / 1e9;
}

/* Writes rows [from, to) and waits for the index, asking all the time. */
static void grow(struct asker *a, uint64_t from, uint64_t to)
{
    uint64_t begun = peer_now_ns();
    begin_asking(a);
    peer_mneme_load(from, to);
    double load_s = seconds_since(begun);
    end_asking(a, "while rows are written");
    begun = peer_now_ns();
    begin_asking(a);
    bool indexed = peer_mneme_build();
    double build_s = seconds_since(begun);
    end_asking(a, "while the index is made");
    printf("  %llu rows more: written in %.1f s, then %s after %.1f s: %.1f s in all, on one core\n",
           (unsigned long long)(to - from), load_s, indexed ? "indexed" : "NOT indexed", build_s, load_s + build_s);
    fflush(stdout);
}

static void run(const struct peer_data *all, uint64_t first, const char *dir)
{
    char path[512];
    struct peer_data few = *all;
    struct quiet small[2], large[2];
    struct asker asker = {.data = all, .took_us = malloc(BUSY_MAX * sizeof(double))};
    snprintf(path, sizeof path, "%s/truth.few", dir);
    few.rows = first;
    few.worst = calloc(few.queries, sizeof *few.worst);
    if (!few.worst || !asker.took_us)
        peer_die("out of memory");
    peer_data_truth(&few, path);
    peer_mneme_start(all, dir);
    char store[256];
    snprintf(store, sizeof store, "%s/store", dir);
    if (mneme_attach(&asker.attached, store, 0) != MNEME_OK)
        peer_die("attach: %s", mneme_open_error());
    grow(&asker, 0, first);
    measure_all(asker.attached, &few, small);
    grow(&asker, first, all->rows);
    measure_all(asker.attached, all, large);
    for (size_t t = 0; t < sizeof targets / sizeof *targets; t++)
        printf("  growth at %.2f: %.0f times the rows, p50 x %.2f, p99 x %.2f\n", targets[t],
               (double)all->rows / (double)first, large[t].p50 / small[t].p50, large[t].p99 / small[t].p99);
    mneme_detach(asker.attached);
    peer_mneme_stop();
    free(asker.took_us);
    free(few.worst);
}

static const struct option options[] = {
    {"dir", 1, 0, 'd'},     {"mnemed", 1, 0, 'm'}, {"rows", 1, 0, 'n'},       {"first", 1, 0, 'f'},
    {"queries", 1, 0, 'q'}, {"set", 1, 0, 's'},    {"index-wait", 1, 0, 'w'}, {0}};

int main(int argc, char **argv)
{
    struct peer_mneme_options *o = &peer_mneme_options;
    uint64_t rows = 1000000, first = 100000, queries = 500;
    const char *dir = NULL;
    struct peer_data data;
    char path[512];
    int letter;
    *o = (struct peer_mneme_options){.core = 0, .compact = true, .index_wait_s = 450};
    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (letter == 'd')
            dir = optarg;
        else if (letter == 'm')
            o->mnemed = optarg;
        else if (letter == 'n')
            rows = strtoull(optarg, NULL, 10);
        else if (letter == 'f')
            first = strtoull(optarg, NULL, 10);
        else if (letter == 'q')
            queries = strtoull(optarg, NULL, 10);
        else if (letter == 'w')
            o->index_wait_s = strtod(optarg, NULL);
        else if (letter == 's' && o->set_count < PEER_MANY)
            o->sets[o->set_count++] = optarg;
        else
            peer_die("see tests/bench/README.md");
    }
    if (argc - optind != 3 || !dir || !o->mnemed)
        peer_die("usage: grow --dir DIR --mnemed PATH [options] BASE QUERIES DIM");
    peer_data_open(&data, argv[optind], argv[optind + 1], (uint32_t)strtoul(argv[optind + 2], NULL, 10), rows, queries);
    if (first < PEER_K || first >= data.rows)
        peer_die("--first lies below the number of rows, %llu", (unsigned long long)data.rows);
    snprintf(path, sizeof path, "%s/truth", dir);
    peer_data_truth(&data, path);
    printf("%s x %u: from %llu to %llu rows; mnemed on core 0, recalls attached on core %d\n", data.name, data.dim,
           (unsigned long long)first, (unsigned long long)data.rows, last_core());
    run(&data, first, dir);
    peer_data_close(&data);
    return 0;
}
