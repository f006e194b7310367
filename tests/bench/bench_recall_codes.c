/*
 * bench_recall_codes.c - recall through codes, in process, over real rows: how good, how fast, and where the time goes.
 *
 *     bench_recall_codes STORE BASE.f32 QUERIES.f32 DIM [rows=N] [queries=N] [parts=N] [clusters=N] [k=10] [huge=1]
 *                        [kernels=NAME] [rounds=N] [targets=.90,.95,.99] [stop=S nearness=C epsilon=E] [curve=1]
 *
 * BASE and QUERIES are raw floats, row by row. STORE is a folder that keeps the column segments, the codebook, the
 * inverted files and the exact answers from run to run; it is made when it is missing. Each line is one target: recall,
 * then time over all queries, each asked once (of `rounds` rounds, the one with the least median is shown; rounds other
 * than the first find caches as the queries before left them, too), then the same of each query's least time of all
 * rounds: that is what a machine shows that has nothing else to do. huge=1 copies codes to memory in huge pages.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "engine/ivf_file.h"
#include "engine/recall.h"

#define PARTS_MAX 32
#define TRUTH     100 /* exact answers that are kept of each query */

struct options {
    const char *store, *base, *queries;
    uint32_t dim, rows, query_count, parts, clusters, k, rounds;
    bool huge, tune, all;
    const char *kernels, *targets;
    struct mn_tune_rule rule;
};

struct bench {
    struct options o;
    const struct mn_kernels *kernels;
    struct mn_store store;
    float *base, *queries;
    uint32_t *truth; /* [queries][TRUTH]: rows of the base, best first */
    uint32_t first[PARTS_MAX + 1];
    struct mn_columns *columns[PARTS_MAX];
    struct mn_ivf_file *files[PARTS_MAX];
    struct mn_ivf huge[PARTS_MAX];
    struct mn_codebook huge_codebook;
    struct mn_part parts[PARTS_MAX];
    struct mn_tuning tuning;
    _Atomic uint64_t none;
    _Atomic uint32_t tuning_words[MN_TUNING_WORDS];
};

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench_recall_codes: %s: %s\n", what, mn_error_trail());
        exit(1);
    }
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *need(size_t bytes, bool huge)
{
    size_t rounded = mn_round_up(bytes + 1, 2 << 20);
    void *p = aligned_alloc(2 << 20, rounded);
    must(p != NULL, "memory");
    if (huge)
        madvise(p, rounded, MADV_HUGEPAGE);
    return p;
}

static float *load(const char *path, uint32_t dim, uint32_t *rows)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    must(f && fstat(fileno(f), &st) == 0, path);
    uint32_t there = (uint32_t)((uint64_t)st.st_size / (dim * sizeof(float)));
    *rows = *rows > 0 && *rows < there ? *rows : there;
    float *data = need((size_t)*rows * dim * sizeof *data, false);
    must(fread(data, dim * sizeof *data, *rows, f) == *rows, path);
    fclose(f);
    return data;
}

static double norm_of(const float *x, uint32_t dim)
{
    double sum = 0;
    for (uint32_t i = 0; i < dim; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* ---- exact answers ---- */

static void insert(uint32_t *rows, float *scores, uint32_t row, float score)
{
    uint32_t at = TRUTH - 1;
    for (; at > 0 && score > scores[at - 1]; at--) {
        rows[at] = rows[at - 1];
        scores[at] = scores[at - 1];
    }
    rows[at] = row;
    scores[at] = score;
}

static void find_truth(struct bench *b)
{
    uint32_t dim = b->o.dim, width = (uint32_t)mn_round_up(dim, 64), nq = b->o.query_count, step = 256;
    float *q = need((size_t)nq * width * sizeof *q, true), *x = need((size_t)step * width * sizeof *x, true);
    float *products = need((size_t)nq * step * sizeof *products, true),
          *scores = need(nq * TRUTH * sizeof *scores, true);
    memset(q, 0, (size_t)nq * width * sizeof *q);
    memset(x, 0, (size_t)step * width * sizeof *x);
    for (uint32_t i = 0; i < nq * TRUTH; i++)
        scores[i] = -INFINITY;
    for (uint32_t i = 0; i < nq; i++)
        memcpy(q + (size_t)i * width, b->queries + (size_t)i * dim, dim * sizeof *q);
    for (uint32_t first = 0; first < b->o.rows; first += step) {
        uint32_t n = b->o.rows - first < step ? b->o.rows - first : step;
        for (uint32_t i = 0; i < n; i++) {
            const float *from = b->base + (size_t)(first + i) * dim;
            float scale = (float)(1 / norm_of(from, dim));
            for (uint32_t j = 0; j < dim; j++)
                x[(size_t)i * width + j] = from[j] * scale;
        }
        b->kernels->products(q, nq, x, n, width, products, step);
        for (uint32_t i = 0; i < nq; i++)
            for (uint32_t j = 0; j < n; j++)
                if (products[(size_t)i * step + j] > scores[i * TRUTH + TRUTH - 1])
                    insert(b->truth + (size_t)i * TRUTH, scores + (size_t)i * TRUTH, first + j,
                           products[(size_t)i * step + j]);
    }
    free(q);
    free(x);
    free(products);
    free(scores);
}

static void need_truth(struct bench *b)
{
    char path[MN_PATH_MAX];
    size_t count = (size_t)b->o.query_count * TRUTH;
    snprintf(path, sizeof path, "%s.truth.%u.%u", b->o.store, b->o.rows, b->o.query_count);
    b->truth = need(count * sizeof *b->truth, false);
    FILE *f = fopen(path, "rb");
    bool known = f && fread(b->truth, sizeof *b->truth, count, f) == count;
    if (f)
        fclose(f);
    if (known)
        return;
    double begin = now_s();
    find_truth(b);
    printf("exact answers: %.1f s\n", now_s() - begin);
    f = fopen(path, "wb");
    must(f && fwrite(b->truth, sizeof *b->truth, count, f) == count, path);
    fclose(f);
}

/* ---- the store ---- */

static void write_part(struct bench *b, uint32_t part)
{
    struct mn_columns_writer *writer;
    struct mn_str name = {"default", 7};
    uint64_t bytes;
    uint32_t first = b->first[part], rows = b->first[part + 1] - first;
    must(mn_columns_create(&writer, &b->store, part + 1, rows, &name, 1) == MN_OK, "columns");
    for (uint32_t i = 0; i < rows; i++) {
        const float *vector = b->base + (size_t)(first + i) * b->o.dim;
        struct mn_columns_row row = {.id = {.lo = first + i + 1},
                                     .born = 1,
                                     .died = MN_ALIVE,
                                     .at = first + i,
                                     .expires = MN_NEVER,
                                     .confidence = 1,
                                     .scale = (float)(1 / norm_of(vector, b->o.dim)),
                                     .vector = vector};
        must(mn_columns_append(writer, &row) == MN_OK, "a row");
    }
    must(mn_columns_finish(writer, &bytes) == MN_OK, "columns");
}

static bool sample_row(void *context, uint64_t i, float *out)
{
    struct bench *b = context;
    uint64_t samples = mn_codebook_sample_rows(b->o.clusters), rows = b->o.rows;
    uint64_t row = samples < rows ? i * rows / samples : i;
    const float *x = b->base + row * b->o.dim;
    float scale = (float)(1 / norm_of(x, b->o.dim));
    for (uint32_t j = 0; j < b->o.dim; j++)
        out[j] = x[j] * scale;
    return true;
}

static bool never(void *context)
{
    (void)context;
    return false;
}

static void build(struct bench *b)
{
    double begin = now_s();
    mkdir(b->o.store, 0700);
    must(mn_store_create(&b->store, &mn_io_posix, b->o.store, b->o.dim, MN_METRIC_COSINE) == MN_OK, "a store");
    for (uint32_t i = 0; i < b->o.parts; i++)
        write_part(b, i);
    double written = now_s();
    uint64_t samples = mn_codebook_sample_rows(b->o.clusters);
    struct mn_codebook_sample sample = {
        .rows = samples < b->o.rows ? samples : b->o.rows, .row = sample_row, .context = b};
    must(mn_codebook_train(&b->store, 1, b->o.clusters, b->o.rows, &sample, 1, never, NULL) == MN_OK, "training");
    double trained = now_s(), energy_sum = 0;
    const struct mn_codebook *codebook;
    must(mn_codebook_open(&codebook, &b->store, 1) == MN_OK, "the codebook");
    for (uint32_t i = 0; i < b->o.parts; i++) {
        struct mn_columns *columns;
        struct mn_part part;
        uint64_t bytes;
        float energy;
        must(mn_columns_open(&columns, &b->store, i + 1, MN_COLUMNS_CHECK) == MN_OK, "columns");
        mn_columns_part(columns, &part);
        must(mn_ivf_write(&b->store, i + 1, &part, codebook, NULL, never, NULL, &bytes, &energy) == MN_OK, "codes");
        energy_sum += (double)energy * part.rows;
        mn_columns_close(columns);
    }
    printf("built: columns %.1f s, codebook of %u clusters %.1f s, codes %.1f s; energy %.4f\n", written - begin,
           codebook->clusters, trained - written, now_s() - trained, energy_sum / b->o.rows);
    mn_codebook_close(codebook);
}

static const void *huge_copy(const void *data, size_t bytes)
{
    void *copy = need(bytes, true);
    return memcpy(copy, data, bytes);
}

static void to_huge(struct bench *b, uint32_t part)
{
    struct mn_ivf *ivf = &b->huge[part];
    *ivf = *mn_ivf_of(b->files[part]);
    const struct mn_codebook *from = ivf->codebook;
    uint32_t width = from->width, block = mn_ivf_block_bytes(width);
    if (part == 0) {
        b->huge_codebook = *from;
        b->huge_codebook.blocks = huge_copy(from->blocks, (size_t)mn_round_up(from->clusters, 32) / 32 * block);
        b->huge_codebook.codes8 = huge_copy(from->codes8, (size_t)from->clusters * width);
        b->huge_codebook.fine = huge_copy(from->fine, from->clusters * sizeof *from->fine);
    }
    ivf->codebook = &b->huge_codebook;
    ivf->blocks = huge_copy(ivf->blocks, (size_t)ivf->block_count * block);
    ivf->codes8 = huge_copy(ivf->codes8, (size_t)ivf->rows * width);
    ivf->fine = huge_copy(ivf->fine, ivf->rows * sizeof *ivf->fine);
    ivf->slots = huge_copy(ivf->slots, ivf->rows * sizeof *ivf->slots);
    ivf->order = huge_copy(ivf->order, ivf->rows * sizeof *ivf->order);
    ivf->check = NULL;
}

static void open_store(struct bench *b)
{
    uint64_t blocks = 0, sum = 0;
    must(mn_store_open(&b->store, &mn_io_posix, b->o.store) == MN_OK, "the store");
    for (uint32_t i = 0; i < b->o.parts; i++) {
        struct mn_part *part = &b->parts[i];
        must(mn_columns_open(&b->columns[i], &b->store, i + 1, MN_COLUMNS_CHECK) == MN_OK, "columns");
        mn_columns_part(b->columns[i], part);
        must(part->rows == b->first[i + 1] - b->first[i], "the store has other rows");
        uint64_t *died = need(part->rows * sizeof *died, false);
        memset(died, 0xff, part->rows * sizeof *died);
        part->died = (const _Atomic uint64_t *)died;
        part->dead = &b->none;
        must(mn_ivf_open(&b->files[i], &b->store, i + 1, 1) == MN_OK, "codes");
        part->ivf = mn_ivf_of(b->files[i]);
        blocks += part->ivf->block_count;
        for (uint32_t slot = 0; slot < part->ivf->rows; slot++)
            sum += mn_ivf_intact(part->ivf, slot);
        for (uint32_t row = 0; row < part->rows; row++)
            sum += mn_part_vector(part, row) != NULL;
        if (b->o.huge) {
            to_huge(b, i);
            part->ivf = &b->huge[i];
        }
    }
    must(sum == 2 * (uint64_t)b->o.rows, "something is damaged");
    printf("%u rows x %u, %u parts, %u clusters, %llu blocks (%.2f rows a block)\n", b->o.rows, b->o.dim, b->o.parts,
           b->parts[0].ivf->clusters, (unsigned long long)blocks, (double)b->o.rows / (double)blocks);
}

/* ---- measuring ---- */

struct round {
    double *us;
    double *least; /* [queries]: the least of all rounds; 0: none yet */
    double recall, scanned, steps, coarse, scan, rerank;
};

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static uint32_t good_hits(const struct bench *b, const struct mn_search *search, uint32_t query)
{
    uint32_t good = 0;
    for (uint32_t i = 0; i < search->hit_count; i++) {
        uint32_t row = b->first[search->hits[i].part] + search->hits[i].row;
        for (uint32_t j = 0; j < b->o.k; j++)
            good += b->truth[(size_t)query * TRUTH + j] == row;
    }
    return good;
}

static void ask_all(const struct bench *b, struct mn_search *search, double target, struct round *round)
{
    struct mn_snapshot snapshot = {
        .gen = 1, .seq = 1, .part_count = b->o.parts, .parts = (struct mn_part *)b->parts, .tuning = b->tuning_words};
    uint64_t good = 0;
    round->steps = round->scanned = round->coarse = round->scan = round->rerank = 0;
    for (uint32_t i = 0; i < b->o.query_count; i++) {
        struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN},
                                 .embedding = b->queries + (size_t)i * b->o.dim,
                                 .k = b->o.k,
                                 .target = target};
        double begin = now_s();
        must(mn_recall_search(search, &snapshot, &query) == MN_OK, "a search");
        round->us[i] = (now_s() - begin) * 1e6;
        if (round->least[i] == 0 || round->us[i] < round->least[i])
            round->least[i] = round->us[i];
        round->steps += (double)search->steps / b->o.query_count;
        good += good_hits(b, search, i);
        round->scanned += (double)search->scanned / b->o.query_count;
        round->coarse += (double)search->coarse_ns / 1e3 / b->o.query_count;
        round->scan += (double)search->scan_ns / 1e3 / b->o.query_count;
        round->rerank += (double)search->rerank_ns / 1e3 / b->o.query_count;
    }
    round->recall = (double)good / ((double)b->o.query_count * b->o.k);
    qsort(round->us, b->o.query_count, sizeof *round->us, compare_doubles);
}

static void show(const char *what, const struct bench *b, const struct round *r)
{
    uint32_t n = b->o.query_count;
    printf("%-8s recall %.4f  p50 %6.1f  p90 %6.1f  p99 %6.1f  p99.9 %6.1f us  rows %6.0f steps %4.0f | coarse %5.1f "
           "scan %5.1f f32 %5.1f\n",
           what, r->recall, r->us[n / 2], r->us[n * 9 / 10], r->us[n * 99 / 100], r->us[(uint32_t)(n * 0.999)],
           r->scanned, r->steps, r->coarse, r->scan, r->rerank);
    fflush(stdout);
}

static void show_least(const struct bench *b, double *us)
{
    uint32_t n = b->o.query_count;
    qsort(us, n, sizeof *us, compare_doubles);
    printf("   least of each query: p50 %6.1f  p90 %6.1f  p99 %6.1f  p99.9 %6.1f us\n", us[n / 2], us[n * 9 / 10],
           us[n * 99 / 100], us[(uint32_t)(n * 0.999)]);
    fflush(stdout);
}

static void measure(const struct bench *b, struct mn_search *search, const char *what, double target)
{
    double *least = need(b->o.query_count * sizeof *least, false);
    memset(least, 0, b->o.query_count * sizeof *least);
    struct round best = {.us = need(b->o.query_count * sizeof(double), false), .least = least};
    struct round round = {.us = need(b->o.query_count * sizeof(double), false), .least = least};
    for (uint32_t i = 0; i < b->o.rounds; i++) {
        ask_all(b, search, target, &round);
        if (b->o.all && b->o.rounds > 1)
            show(what, b, &round);
        if (i == 0 || round.us[b->o.query_count / 2] < best.us[b->o.query_count / 2]) {
            struct round swapped = best;
            best = round;
            round = swapped;
        }
    }
    show(what, b, &best);
    show_least(b, least);
    free(least);
    free(best.us);
    free(round.us);
}

static void measure_targets(const struct bench *b, struct mn_search *search)
{
    char what[32];
    const char *text = b->o.targets;
    while (*text) {
        char *end;
        double target = strtod(text, &end);
        snprintf(what, sizeof what, "%.3f", target);
        measure(b, search, what, target);
        text = *end == ',' ? end + 1 : end;
        if (end == text)
            break;
    }
}

static bool option(const char *arg, const char *name, const char **value)
{
    size_t n = strlen(name);
    if (strncmp(arg, name, n) != 0 || arg[n] != '=')
        return false;
    *value = arg + n + 1;
    return true;
}

static void parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){.parts = 1, .k = 10, .rounds = 5, .targets = ".90,.95,.99"};
    if (argc < 5) {
        fprintf(stderr, "usage: bench_recall_codes STORE BASE.f32 QUERIES.f32 DIM [name=value...]\n");
        exit(2);
    }
    o->store = argv[1];
    o->base = argv[2];
    o->queries = argv[3];
    o->dim = (uint32_t)strtoul(argv[4], NULL, 10);
    for (int i = 5; i < argc; i++) {
        const char *v;
        if (option(argv[i], "rows", &v))
            o->rows = (uint32_t)strtoul(v, NULL, 10);
        else if (option(argv[i], "queries", &v))
            o->query_count = (uint32_t)strtoul(v, NULL, 10);
        else if (option(argv[i], "parts", &v))
            o->parts = (uint32_t)strtoul(v, NULL, 10);
        else if (option(argv[i], "clusters", &v))
            o->clusters = (uint32_t)strtoul(v, NULL, 10);
        else if (option(argv[i], "k", &v))
            o->k = (uint32_t)strtoul(v, NULL, 10);
        else if (option(argv[i], "rounds", &v))
            o->rounds = (uint32_t)strtoul(v, NULL, 10);
        else if (option(argv[i], "huge", &v))
            o->huge = *v == '1';
        else if (option(argv[i], "tune", &v))
            o->tune = *v == '1';
        else if (option(argv[i], "all", &v))
            o->all = *v == '1';
        else if (option(argv[i], "kernels", &v))
            o->kernels = v;
        else if (option(argv[i], "targets", &v))
            o->targets = v;
        else if (option(argv[i], "stop", &v))
            o->rule.stop = strtof(v, NULL);
        else if (option(argv[i], "nearness", &v))
            o->rule.nearness = strtof(v, NULL);
        else if (option(argv[i], "epsilon", &v))
            o->rule.epsilon = strtof(v, NULL);
        else
            must(false, argv[i]);
    }
    must(o->parts >= 1 && o->parts <= PARTS_MAX && o->k <= TRUTH && o->rounds > 0, "options");
}

static void calibrate(struct bench *b)
{
    struct mn_snapshot snapshot = {.gen = 1, .seq = 1, .part_count = b->o.parts, .parts = b->parts};
    struct mn_tune_point points[MN_TUNE_TARGETS];
    double begin = now_s();
    must(mn_tune_calibrate(&snapshot, MN_METRIC_COSINE, b->o.dim, 1000, 1, never, NULL, &b->tuning, points) == MN_OK,
         "calibration");
    printf("calibrated in %.2f s\n", now_s() - begin);
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++) {
        struct mn_tune_rule rule = mn_tune_rule_for(&b->tuning, points[i].target, b->o.k);
        printf("  %.3f: nearness %.2f stop %.3f epsilon %.2f -> %.4f, p50 %.1f p99 %.1f us, %.0f rows\n",
               points[i].target, (double)rule.nearness, (double)rule.stop, (double)rule.epsilon, points[i].recall,
               points[i].p50_us, points[i].p99_us, points[i].scanned);
    }
    for (uint32_t i = 0; i < MN_TUNING_WORDS; i++)
        b->tuning_words[i] = ((const uint32_t *)(const void *)&b->tuning)[i];
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct stat st;
    char path[MN_PATH_MAX];
    struct mn_search search;
    parse(&b.o, argc, argv);
    b.kernels = b.o.kernels ? mn_kernels_named(b.o.kernels) : mn_kernels_best();
    must(b.kernels != NULL, "no such kernels");
    b.base = load(b.o.base, b.o.dim, &b.o.rows);
    b.queries = load(b.o.queries, b.o.dim, &b.o.query_count);
    b.o.clusters = b.o.clusters ? b.o.clusters : mn_codebook_clusters(b.o.rows);
    for (uint32_t i = 0; i <= b.o.parts; i++)
        b.first[i] = (uint32_t)((uint64_t)b.o.rows * i / b.o.parts);
    snprintf(path, sizeof path, "%s/STORE", b.o.store);
    if (stat(path, &st) != 0)
        build(&b);
    need_truth(&b);
    free(b.base);
    open_store(&b);
    must(mn_search_init(&search, MN_METRIC_COSINE, b.o.dim) == MN_OK, "a search");
    search.kernels = b.kernels;
    if (b.o.tune)
        calibrate(&b);
    if (b.o.rule.stop > 0) {
        search.rule = &b.o.rule;
        measure(&b, &search, "rule", 0);
    } else {
        measure_targets(&b, &search);
    }
    mn_search_free(&search);
    return 0;
}
