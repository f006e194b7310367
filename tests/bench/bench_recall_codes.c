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

#include "tests/bench/kept_store.h"

#define TRUTH 100 /* exact answers that are kept of each query */

struct options {
    const char *base, *queries;
    uint32_t query_count, k, rounds;
    bool huge, tune, all;
    const char *kernels, *targets;
    struct mn_tune_rule rule;
};

struct bench {
    struct options o;
    const struct mn_kernels *kernels;
    struct kept_store kept;
    float *base, *queries;
    uint32_t *truth; /* [queries][TRUTH]: rows of the base, best first */
    struct mn_ivf huge[KEPT_PARTS_MAX];
    struct mn_codebook huge_codebook;
    struct mn_tuning tuning;
};

static void *need_huge(size_t bytes)
{
    size_t rounded = mn_round_up(bytes + 1, 2 << 20);
    void *p = aligned_alloc(2 << 20, rounded);
    kept_must(p != NULL, "memory");
    madvise(p, rounded, MADV_HUGEPAGE);
    return p;
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
    uint32_t dim = b->kept.dim, width = (uint32_t)mn_round_up(dim, 64), nq = b->o.query_count, step = 256;
    float *q = need_huge((size_t)nq * width * sizeof *q), *x = need_huge((size_t)step * width * sizeof *x);
    float *products = need_huge((size_t)nq * step * sizeof *products), *scores = need_huge(nq * TRUTH * sizeof *scores);
    memset(q, 0, (size_t)nq * width * sizeof *q);
    memset(x, 0, (size_t)step * width * sizeof *x);
    for (uint32_t i = 0; i < nq * TRUTH; i++)
        scores[i] = -INFINITY;
    for (uint32_t i = 0; i < nq; i++)
        memcpy(q + (size_t)i * width, b->queries + (size_t)i * dim, dim * sizeof *q);
    for (uint32_t first = 0; first < b->kept.rows; first += step) {
        uint32_t n = b->kept.rows - first < step ? b->kept.rows - first : step;
        for (uint32_t i = 0; i < n; i++) {
            const float *from = b->base + (size_t)(first + i) * dim;
            float scale = (float)(1 / kept_norm(from, dim));
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
    snprintf(path, sizeof path, "%s.truth.%u.%u", b->kept.folder, b->kept.rows, b->o.query_count);
    b->truth = kept_need(count * sizeof *b->truth);
    FILE *f = fopen(path, "rb");
    bool known = f && fread(b->truth, sizeof *b->truth, count, f) == count;
    if (f)
        fclose(f);
    if (known)
        return;
    double begin = kept_now_us();
    find_truth(b);
    printf("exact answers: %.1f s\n", (kept_now_us() - begin) / 1e6);
    f = fopen(path, "wb");
    kept_must(f && fwrite(b->truth, sizeof *b->truth, count, f) == count, path);
    fclose(f);
}

/* ---- the store ---- */

static void write_rows(void *context, struct mn_columns_writer *writer, uint32_t first, uint32_t rows)
{
    struct bench *b = context;
    for (uint32_t i = first; i < first + rows; i++) {
        const float *vector = b->base + (size_t)i * b->kept.dim;
        struct mn_columns_row row = {.id = {.lo = i + 1},
                                     .born = 1,
                                     .died = MN_ALIVE,
                                     .at = i,
                                     .expires = MN_NEVER,
                                     .confidence = 1,
                                     .scale = (float)(1 / kept_norm(vector, b->kept.dim)),
                                     .vector = vector};
        kept_must(mn_columns_append(writer, &row) == MN_OK, "a row");
    }
}

static const void *huge_copy(const void *data, size_t bytes)
{
    void *copy = need_huge(bytes);
    return memcpy(copy, data, bytes);
}

static void to_huge(struct bench *b, uint32_t part)
{
    struct mn_ivf *ivf = &b->huge[part];
    *ivf = *b->kept.parts[part].ivf;
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
    b->kept.parts[part].ivf = ivf;
}

static void open_store(struct bench *b)
{
    struct mn_str name = {"default", 7};
    uint64_t blocks = 0;
    kept_store_need(&b->kept, &(struct kept_rows){
                                  .base = b->base, .names = &name, .name_count = 1, .write = write_rows, .context = b});
    kept_store_open(&b->kept);
    for (uint32_t i = 0; i < b->kept.part_count; i++) {
        blocks += b->kept.parts[i].ivf->block_count;
        if (b->o.huge)
            to_huge(b, i);
    }
    printf("%u rows x %u, %u parts, %u clusters, %llu blocks (%.2f rows a block)\n", b->kept.rows, b->kept.dim,
           b->kept.part_count, b->kept.parts[0].ivf->clusters, (unsigned long long)blocks,
           (double)b->kept.rows / (double)blocks);
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
        uint32_t row = kept_store_first(&b->kept, search->hits[i].part) + search->hits[i].row;
        for (uint32_t j = 0; j < b->o.k; j++)
            good += b->truth[(size_t)query * TRUTH + j] == row;
    }
    return good;
}

static void ask_all(const struct bench *b, struct mn_search *search, double target, struct round *round)
{
    struct mn_snapshot snapshot = kept_store_snapshot(&b->kept);
    uint64_t good = 0;
    round->steps = round->scanned = round->coarse = round->scan = round->rerank = 0;
    for (uint32_t i = 0; i < b->o.query_count; i++) {
        struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN},
                                 .embedding = b->queries + (size_t)i * b->kept.dim,
                                 .k = b->o.k,
                                 .target = target};
        double begin = kept_now_us();
        kept_must(mn_recall_search(search, &snapshot, &query) == MN_OK, "a search");
        round->us[i] = kept_now_us() - begin;
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
    double *least = kept_need(b->o.query_count * sizeof *least);
    memset(least, 0, b->o.query_count * sizeof *least);
    struct round best = {.us = kept_need(b->o.query_count * sizeof(double)), .least = least};
    struct round round = {.us = kept_need(b->o.query_count * sizeof(double)), .least = least};
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

static void parse(struct options *o, struct kept_store *kept, int argc, char **argv)
{
    *kept = (struct kept_store){.part_count = 1};
    *o = (struct options){.k = 10, .rounds = 5, .targets = ".90,.95,.99"};
    if (argc < 5) {
        fprintf(stderr, "usage: bench_recall_codes STORE BASE.f32 QUERIES.f32 DIM [name=value...]\n");
        exit(2);
    }
    kept->folder = argv[1];
    o->base = argv[2];
    o->queries = argv[3];
    kept->dim = (uint32_t)strtoul(argv[4], NULL, 10);
    for (int i = 5; i < argc; i++) {
        const char *v;
        if (kept_option(argv[i], "rows", &v))
            kept->rows = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "queries", &v))
            o->query_count = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "parts", &v))
            kept->part_count = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "clusters", &v))
            kept->clusters = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "k", &v))
            o->k = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "rounds", &v))
            o->rounds = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "huge", &v))
            o->huge = *v == '1';
        else if (kept_option(argv[i], "tune", &v))
            o->tune = *v == '1';
        else if (kept_option(argv[i], "all", &v))
            o->all = *v == '1';
        else if (kept_option(argv[i], "kernels", &v))
            o->kernels = v;
        else if (kept_option(argv[i], "targets", &v))
            o->targets = v;
        else if (kept_option(argv[i], "stop", &v))
            o->rule.stop = strtof(v, NULL);
        else if (kept_option(argv[i], "nearness", &v))
            o->rule.nearness = strtof(v, NULL);
        else if (kept_option(argv[i], "epsilon", &v))
            o->rule.epsilon = strtof(v, NULL);
        else
            kept_must(false, argv[i]);
    }
    kept_must(kept->part_count >= 1 && kept->part_count <= KEPT_PARTS_MAX && o->k <= TRUTH && o->rounds > 0, "options");
}

static void calibrate(struct bench *b)
{
    struct mn_tune_point points[MN_TUNE_TARGETS];
    double begin = kept_now_us();
    b->tuning = kept_store_calibrate(&b->kept, points);
    printf("calibrated in %.2f s\n", (kept_now_us() - begin) / 1e6);
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++) {
        struct mn_tune_rule rule = mn_tune_rule_for(&b->tuning, points[i].target, b->o.k);
        printf("  %.3f: nearness %.2f stop %.3f epsilon %.2f -> %.4f, p50 %.1f p99 %.1f us, %.0f rows\n",
               points[i].target, (double)rule.nearness, (double)rule.stop, (double)rule.epsilon, points[i].recall,
               points[i].p50_us, points[i].p99_us, points[i].scanned);
    }
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct mn_search search;
    parse(&b.o, &b.kept, argc, argv);
    b.kernels = b.o.kernels ? mn_kernels_named(b.o.kernels) : mn_kernels_best();
    kept_must(b.kernels != NULL, "no such kernels");
    b.base = kept_load(b.o.base, b.kept.dim, &b.kept.rows);
    b.queries = kept_load(b.o.queries, b.kept.dim, &b.o.query_count);
    need_truth(&b);
    open_store(&b);
    free(b.base);
    kept_must(mn_search_init(&search, MN_METRIC_COSINE, b.kept.dim) == MN_OK, "a search");
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
