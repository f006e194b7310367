/*
 * peers.c - Mneme beside its peers: one table for one set of rows (see README.md in tests/bench).
 *
 *     peers [options] BASE QUERIES DIM
 *
 * One thread on one core asks every engine the same queries, one after the other, each timed once a round; rounds of
 * the engines take turns, and the table shows medians of the rounds with their spread. The effort of a sweeping engine
 * (hnswlib, usearch) is the least that reaches the target on these very queries: better tuning than any user has.
 */
#include "tests/bench/peers/peers.h"

#include <getopt.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS_MAX = 31, EFFORT_MAX = 8192 };

struct point {
    double p50[ROUNDS_MAX], p99[ROUNDS_MAX], p999[ROUNDS_MAX], worker[ROUNDS_MAX];
    double target, knob, recall, scanned;
    bool reached;
};

struct bench {
    struct peer_data data;
    struct peer peers[PEER_MANY];
    struct peer_cost costs[PEER_MANY];
    size_t peer_count;
    double targets[PEER_MANY];
    size_t target_count;
    struct point points[PEER_MANY][PEER_MANY]; /* of an engine, at a target */
    uint32_t rounds;
    int core;
    double *took, *worker;
    const char *dir, *json;
    bool build_only, header;
};

/* ---- one core ---- */

static void pin(const struct bench *b, bool alone)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < sysconf(_SC_NPROCESSORS_ONLN); i++)
        if (!alone || i == b->core)
            CPU_SET(i, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        peer_die("cannot run on processor %d", b->core);
}

/* Nothing but sockets: no rows come back. */
static bool is_bare(const struct peer *p)
{
    return p->open == peer_echo.open || p->open == peer_busy.open;
}

/* Over sockets a second process does the work: the kernel places both. */
static bool works_alone(const struct peer *p)
{
    return p->open != peer_zeromq.open && !is_bare(p);
}

/* ---- measuring ---- */

static double median(const double *values, uint32_t count)
{
    double copy[ROUNDS_MAX];
    memcpy(copy, values, count * sizeof *copy);
    return peer_quantile(copy, count, .5);
}

/* All timed queries once. Ids are judged after the clock has stopped, outside of the timed part. What the worker needed
 * for each stays in b->worker until the next engine that has one: zmq-busy follows mneme-zmq. */
static void run_round(struct bench *b, struct peer *p, struct point *at, uint32_t round)
{
    uint64_t timed = b->data.queries - PEER_SPARE, found = 0, scanned = 0, sum = 0;
    uint32_t ids[PEER_K];
    bool judged = !is_bare(p);
    p->tune(p, at->knob);
    pin(b, works_alone(p));
    for (uint64_t q = timed; q < b->data.queries; q++) {
        peer_zeromq_worker_us = b->worker[q % timed];
        p->ask(p, b->data.query + q * b->data.stride, ids, &scanned);
    }
    for (uint64_t q = 0; q < timed; q++) {
        peer_zeromq_worker_us = b->worker[q];
        uint64_t begun = peer_now_ns();
        uint32_t count = p->ask(p, b->data.query + q * b->data.stride, ids, &scanned);
        b->took[q] = (double)(peer_now_ns() - begun) / 1e3;
        b->worker[q] = peer_zeromq_worker_us;
        sum += scanned;
        if (judged && round == 0)
            found += peer_data_found(&b->data, q, ids, count);
    }
    pin(b, false);
    at->p50[round] = peer_quantile(b->took, timed, .5);
    at->p99[round] = peer_quantile(b->took, timed, .99);
    at->p999[round] = peer_quantile(b->took, timed, .999);
    at->worker[round] = peer_quantile(b->worker, timed, .5);
    at->scanned = (double)sum / (double)timed;
    if (round == 0)
        at->recall = (double)found / (double)(timed * PEER_K);
}

static double recall_at(struct bench *b, struct peer *p, double knob)
{
    uint64_t timed = b->data.queries - PEER_SPARE, found = 0, scanned;
    uint32_t ids[PEER_K];
    p->tune(p, knob);
    for (uint64_t q = 0; q < timed; q++) {
        uint32_t count = p->ask(p, b->data.query + q * b->data.stride, ids, &scanned);
        found += peer_data_found(&b->data, q, ids, count);
    }
    return (double)found / (double)(timed * PEER_K);
}

/* The least effort that reaches the target. */
static void find_effort(struct bench *b, struct peer *p, struct point *at)
{
    int low = PEER_K - 1, high = PEER_K; /* low misses it */
    while (high <= EFFORT_MAX && recall_at(b, p, high) < at->target) {
        low = high;
        high *= 2;
    }
    at->reached = high <= EFFORT_MAX;
    while (at->reached && high - low > 1) {
        int middle = (low + high) / 2;
        if (recall_at(b, p, middle) < at->target)
            low = middle;
        else
            high = middle;
    }
    at->knob = high;
    peer_say("%s: %s for %.3f", p->name, at->reached ? "found the effort" : "no effort reaches", at->target);
}

static void prepare(struct bench *b)
{
    for (size_t i = 0; i < b->peer_count; i++)
        for (size_t t = 0; t < b->target_count; t++) {
            struct point *at = &b->points[i][t];
            at->target = at->knob = b->targets[t];
            at->reached = true;
            if (b->peers[i].sweeps)
                find_effort(b, &b->peers[i], at);
        }
}

static void measure(struct bench *b)
{
    for (uint32_t round = 0; round < b->rounds; round++)
        for (size_t t = 0; t < b->target_count; t++)
            for (size_t i = 0; i < b->peer_count; i++)
                if (b->points[i][t].reached)
                    run_round(b, &b->peers[i], &b->points[i][t], round);
}

/* ---- the table ---- */

static void put_time(const double *rounds, uint32_t count)
{
    double low = rounds[0], high = rounds[0];
    char text[64];
    for (uint32_t i = 1; i < count; i++) {
        low = fmin(low, rounds[i]);
        high = fmax(high, rounds[i]);
    }
    int digits = median(rounds, count) < 100;
    snprintf(text, sizeof text, "%.*f (%.0f-%.0f)", digits, median(rounds, count), low, high);
    printf(" %18s", text);
}

static void put_bytes(double bytes, uint64_t rows)
{
    if (bytes > 0)
        printf(" %8.0f", bytes / (double)rows);
    else
        printf(" %8s", "-");
}

static void print_point(const struct bench *b, size_t i, size_t t)
{
    const struct peer *p = &b->peers[i];
    const struct peer_cost *cost = &b->costs[i];
    const struct point *at = &b->points[i][t];
    printf("%8llu %5u %6.3f  %-10s", (unsigned long long)b->data.rows, b->data.dim, at->target, p->name);
    if (!at->reached) {
        printf(" not reached\n");
        return;
    }
    printf(is_bare(p) ? "      -" : "  %.4f", at->recall);
    put_time(at->p50, b->rounds);
    put_time(at->p99, b->rounds);
    put_time(at->p999, b->rounds);
    printf(" %9.0f", at->scanned);
    put_bytes(cost->resident, b->data.rows);
    put_bytes(cost->resident - cost->resident_vector, b->data.rows);
    put_bytes(cost->disk, b->data.rows);
    printf(" %7.1f %7.1f", cost->load_s, cost->build_s);
    printf(p->sweeps ? "  ef %.0f\n" : "\n", at->knob);
}

/* Latency of a swept engine at another recall: log latency is near linear in log (1 - recall). */
static double latency_at(const struct bench *b, size_t i, double recall, bool p99)
{
    double x[PEER_MANY], y[PEER_MANY], miss = log(fmax(1 - recall, 1e-4));
    size_t n = 0;
    for (size_t t = 0; t < b->target_count; t++) {
        const struct point *at = &b->points[i][t];
        if (!at->reached)
            continue;
        x[n] = log(fmax(1 - at->recall, 1e-4));
        y[n++] = log(median(p99 ? at->p99 : at->p50, b->rounds));
    }
    if (n == 0)
        return NAN;
    size_t j = 1;
    while (j + 1 < n && x[j] > miss)
        j++;
    if (n == 1 || x[j] == x[j - 1])
        return exp(y[0]);
    return exp(y[j - 1] + (y[j] - y[j - 1]) * (miss - x[j - 1]) / (x[j] - x[j - 1]));
}

static bool any_sweeps(const struct bench *b)
{
    bool any = false;
    for (size_t i = 0; i < b->peer_count; i++)
        any = any || b->peers[i].sweeps;
    return any;
}

static void print_factors(const struct bench *b)
{
    for (size_t m = 0; m < b->peer_count; m++) {
        if (b->peers[m].open != peer_mneme.open || !any_sweeps(b))
            continue;
        printf("\nMneme in process against the others at the recall that Mneme showed (how many times faster):\n");
        for (size_t t = 0; t < b->target_count; t++)
            for (size_t i = 0; i < b->peer_count; i++) {
                const struct point *at = &b->points[m][t];
                if (!b->peers[i].sweeps)
                    continue;
                double p50 = latency_at(b, i, at->recall, false), p99 = latency_at(b, i, at->recall, true);
                printf("  target %.3f  recall %.4f  %-8s p50 %7.1f us: x %.2f   p99 %7.1f us: x %.2f", at->target,
                       at->recall, b->peers[i].name, p50, p50 / median(at->p50, b->rounds), p99,
                       p99 / median(at->p99, b->rounds));
                printf("   build x %.1f\n", b->costs[i].build_s / b->costs[m].build_s);
            }
    }
}

/* What the way over ZeroMQ costs beyond the sockets and the work, and what it costs a client that sleeps and a server
 * that needs the same time and does nothing with it. */
static void print_sockets(const struct bench *b)
{
    size_t zeromq = PEER_MANY, echo = PEER_MANY, busy = PEER_MANY;
    for (size_t i = 0; i < b->peer_count; i++) {
        zeromq = b->peers[i].open == peer_zeromq.open ? i : zeromq;
        echo = b->peers[i].open == peer_echo.open ? i : echo;
        busy = b->peers[i].open == peer_busy.open ? i : busy;
    }
    if (zeromq == PEER_MANY || echo == PEER_MANY)
        return;
    printf("\nOver ZeroMQ (p50, us): the client, the echo, the worker's own time, and what is left:\n");
    for (size_t t = 0; t < b->target_count; t++) {
        double client = median(b->points[zeromq][t].p50, b->rounds);
        double bare = median(b->points[echo][t].p50, b->rounds);
        double worker = median(b->points[zeromq][t].worker, b->rounds);
        printf("  target %.3f  client %.1f  echo %.1f  worker %.0f  rest %.1f", b->targets[t], client, bare, worker,
               client - bare - worker);
        if (busy != PEER_MANY)
            printf("  rest of zmq-busy %.1f", median(b->points[busy][t].p50, b->rounds) - bare - worker);
        printf("\n");
    }
}

static void print_table(const struct bench *b)
{
    double load[3] = {0};
    if (getloadavg(load, 3) < 0)
        load[0] = -1;
    if (b->header) {
        printf(
            "k 10, cosine, one thread on core %d; medians of %u rounds (least-most); %llu queries, each timed once a "
            "round\n",
            b->core, b->rounds, (unsigned long long)(b->data.queries - PEER_SPARE));
        for (size_t i = 0; i < b->peer_count; i++)
            printf("%s: %s\n", b->peers[i].name, b->peers[i].note);
    }
    printf("%s; load average %.2f %.2f %.2f\n", b->data.name, load[0], load[1], load[2]);
    printf("%8s %5s %6s  %-10s  %6s %18s %18s %18s %9s %8s %8s %8s %7s %7s\n", "rows", "dim", "target", "engine",
           "recall", "p50 us", "p99 us", "p99.9 us", "scanned", "B res", "w/o f32", "B disk", "load s", "build s");
    for (size_t t = 0; t < b->target_count; t++)
        for (size_t i = 0; i < b->peer_count; i++)
            print_point(b, i, t);
    print_factors(b);
    print_sockets(b);
}

static void write_json(const struct bench *b)
{
    FILE *file = fopen(b->json, "ae");
    if (!file)
        peer_die("cannot write %s", b->json);
    for (size_t i = 0; i < b->peer_count; i++)
        for (size_t t = 0; t < b->target_count; t++) {
            const struct point *at = &b->points[i][t];
            const struct peer_cost *cost = &b->costs[i];
            if (!at->reached)
                continue;
            fprintf(file,
                    "{\"data\": \"%s\", \"rows\": %llu, \"dim\": %u, \"engine\": \"%s\", \"target\": %g, "
                    "\"recall\": %.5f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"scanned\": %.1f, "
                    "\"resident\": %.1f, \"resident_without_f32\": %.1f, \"disk\": %.1f, \"load_s\": %.3f, "
                    "\"build_s\": %.3f, \"worker_us\": %.1f}\n",
                    b->data.name, (unsigned long long)b->data.rows, b->data.dim, b->peers[i].name, at->target,
                    at->recall, median(at->p50, b->rounds), median(at->p99, b->rounds), median(at->p999, b->rounds),
                    at->scanned, cost->resident / (double)b->data.rows,
                    (cost->resident - cost->resident_vector) / (double)b->data.rows, cost->disk / (double)b->data.rows,
                    cost->load_s, cost->build_s,
                    b->peers[i].open == peer_zeromq.open ? median(at->worker, b->rounds) : 0);
        }
    fclose(file);
}

/* ---- the program ---- */

static const struct peer *const known[] = {&peer_echo, &peer_mneme,   &peer_zeromq,
                                           &peer_busy, &peer_hnswlib, &peer_usearch};

/* In the order of `known`, in which they are measured too. */
static void choose_engines(struct bench *b, const char *names)
{
    char list[256];
    snprintf(list, sizeof list, ",%s,", names);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char name[64];
        snprintf(name, sizeof name, ",%s,", known[i]->name);
        if (strstr(list, name))
            b->peers[b->peer_count++] = *known[i];
    }
    if (b->peer_count == 0)
        peer_die("--engines: some of zmq-echo,mneme,mneme-zmq,zmq-busy,hnswlib,usearch");
}

static void choose_targets(struct bench *b, const char *text)
{
    char *end;
    b->target_count = 0;
    do {
        double target = strtod(text, &end);
        if (end == text || !(target > 0 && target < 1) || b->target_count == PEER_MANY)
            peer_die("--targets: rising numbers between 0 and 1, with commas between them");
        b->targets[b->target_count++] = target;
        text = end + 1;
    } while (*end == ',');
}

static const struct option options[] = {{"dir", 1, 0, 'd'},        {"rows", 1, 0, 'n'},
                                        {"queries", 1, 0, 'q'},    {"rounds", 1, 0, 'r'},
                                        {"targets", 1, 0, 't'},    {"core", 1, 0, 'c'},
                                        {"engines", 1, 0, 'e'},    {"mnemed", 1, 0, 'm'},
                                        {"set", 1, 0, 's'},        {"json", 1, 0, 'j'},
                                        {"build-only", 0, 0, 'b'}, {"no-header", 0, 0, 'H'},
                                        {"index-wait", 1, 0, 'w'}, {0}};

struct wanted {
    uint64_t rows, queries;
    const char *engines;
};

static void read_option(struct bench *b, struct wanted *w, int letter)
{
    struct peer_mneme_options *o = &peer_mneme_options;
    switch (letter) {
    case 'd':
        b->dir = optarg;
        break;
    case 'n':
        w->rows = strtoull(optarg, NULL, 10);
        break;
    case 'q':
        w->queries = strtoull(optarg, NULL, 10);
        break;
    case 'r':
        b->rounds = (uint32_t)strtoul(optarg, NULL, 10);
        break;
    case 't':
        choose_targets(b, optarg);
        break;
    case 'c':
        b->core = (int)strtol(optarg, NULL, 10);
        break;
    case 'e':
        w->engines = optarg;
        break;
    case 'm':
        o->mnemed = optarg;
        break;
    case 'j':
        b->json = optarg;
        break;
    case 'b':
        b->build_only = true;
        break;
    case 'H':
        b->header = false;
        break;
    case 'w':
        o->index_wait_s = strtod(optarg, NULL);
        break;
    case 's':
        if (o->set_count == PEER_MANY)
            peer_die("at most %d --set", PEER_MANY);
        o->sets[o->set_count++] = optarg;
        break;
    default:
        peer_die("usage: peers [options] BASE QUERIES DIM; see tests/bench/README.md");
    }
}

int main(int argc, char **argv)
{
    static struct bench bench = {.rounds = 5, .header = true};
    struct bench *b = &bench;
    struct wanted w = {.engines = "zmq-echo,mneme,mneme-zmq,zmq-busy,hnswlib,usearch"};
    char path[512];
    int letter;
    b->core = (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
    peer_mneme_options.index_wait_s = 300;
    choose_targets(b, ".90,.95,.99");
    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1)
        read_option(b, &w, letter);
    if (argc - optind != 3 || !b->dir || b->rounds < 1 || b->rounds > ROUNDS_MAX)
        peer_die("usage: peers --dir DIR [options] BASE QUERIES DIM; see tests/bench/README.md");
    choose_engines(b, w.engines);
    peer_data_open(&b->data, argv[optind], argv[optind + 1], (uint32_t)strtoul(argv[optind + 2], NULL, 10), w.rows,
                   w.queries);
    b->took = malloc(b->data.queries * sizeof *b->took);
    b->worker = calloc(b->data.queries, sizeof *b->worker);
    for (size_t i = 0; i < b->peer_count; i++)
        b->peers[i].open(&b->peers[i], &b->data, b->dir);
    snprintf(path, sizeof path, "%s/truth", b->dir);
    peer_data_truth(&b->data, path);
    if (!b->build_only) {
        prepare(b);
        measure(b);
        for (size_t i = 0; i < b->peer_count; i++)
            b->peers[i].cost(&b->peers[i], &b->costs[i]);
        print_table(b);
        if (b->json)
            write_json(b);
    }
    for (size_t i = b->peer_count; i-- > 0;)
        b->peers[i].close(&b->peers[i]);
    peer_data_close(&b->data);
    free(b->took);
    free(b->worker);
    return 0;
}
