/*
 * bench_exact.c - is exact recall exact? Thousands of queries over real rows against brute force, in every instruction
 * set.
 *
 *     bench_exact BASE.f32 DIM [rows = all, 4096 and more] [QUERIES.f32] [queries = 10000]
 *
 * Rows are raw little-endian floats; they lie in one column segment with codes, as after a compaction, which the exact
 * search uses to rule rows out. Queries come from the file; what is missing to the number asked for are rows of
 * the base, every second one slightly disturbed, and copies of rows are in the base, so that ties occur. Brute force is
 * a plain loop in double precision. For each query:
 *   - every instruction set must give the same ids and, to the last bit, the same scores;
 *   - the order must be (score descending, later time, id), and a row that brute force ranks above the last hit by more
 *     than BOUND must be among the hits.
 * Prints what was compared and the largest difference between a score and its double-precision value. Exit status 1
 * when anything differs.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/codebook.h"
#include "engine/recall.h"
#include "tests/unit/fake_parts.h"

#define K      10
#define COPIES 1000 /* rows that are there twice */
#define BOUND  2e-6 /* float sums of up to some thousand products against double ones, in cosine */
#define SHOWN  5    /* differences that are told one by one */

struct data {
    uint32_t dim, rows, distinct, queries;
    float *base, *query;
    double *scale; /* 1/|row| */
    struct fake_memory *memories;
    const struct fake_memory **list;
};

struct tally {
    uint64_t queries, ties, wrong;
    double worst;
};

static void *need(size_t bytes)
{
    void *p = aligned_alloc(64, mn_round_up(bytes, 64));
    if (!p) {
        fprintf(stderr, "bench_exact: out of memory\n");
        exit(1);
    }
    return p;
}

/* Floats of a file: at most `most` rows, from row 0. Returns the rows read. */
static uint32_t read_rows(const char *path, uint32_t dim, float *rows, uint32_t most)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    size_t got = fread(rows, dim * sizeof *rows, most, file);
    fclose(file);
    return (uint32_t)got;
}

static uint32_t rows_in(const char *path, uint32_t dim)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    long bytes = ftell(file);
    fclose(file);
    return (uint32_t)((uint64_t)bytes / (dim * sizeof(float)));
}

static uint32_t random_below(uint32_t below)
{
    static uint64_t state = 1;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((state >> 33) % below);
}

static void make_queries(struct data *d, const char *path)
{
    d->query = need((size_t)d->queries * d->dim * sizeof *d->query);
    uint32_t have = path ? read_rows(path, d->dim, d->query, d->queries) : 0;
    for (uint32_t q = have; q < d->queries; q++) {
        float *to = d->query + (size_t)q * d->dim;
        memcpy(to, d->base + (size_t)random_below(d->distinct) * d->dim, d->dim * sizeof *to);
        for (uint32_t i = 0; q % 2 && i < d->dim; i++)
            to[i] *= 1 + ((float)random_below(2001) - 1000) * 2e-4f;
    }
}

static void make_data(struct data *d, const char *base, uint32_t rows, const char *queries)
{
    d->distinct = rows;
    d->rows = rows + COPIES;
    d->base = need((size_t)d->rows * d->dim * sizeof *d->base);
    d->scale = need(d->rows * sizeof *d->scale);
    d->memories = need(d->rows * sizeof *d->memories);
    d->list = need(d->rows * sizeof *d->list);
    d->distinct = read_rows(base, d->dim, d->base, rows);
    d->rows = d->distinct + COPIES;
    for (uint32_t i = d->distinct; i < d->rows; i++)
        memcpy(d->base + (size_t)i * d->dim, d->base + (size_t)random_below(d->distinct) * d->dim,
               d->dim * sizeof *d->base);
    for (uint32_t i = 0; i < d->rows; i++) {
        const float *row = d->base + (size_t)i * d->dim;
        double norm2 = 0;
        for (uint32_t j = 0; j < d->dim; j++)
            norm2 += (double)row[j] * (double)row[j];
        d->scale[i] = 1 / sqrt(norm2);
        d->memories[i] = (struct fake_memory){.space = "default",
                                              .id = fake_id(i),
                                              .born = 1,
                                              .died = MN_ALIVE,
                                              .at = (int64_t)random_below(1000),
                                              .expires = MN_NEVER,
                                              .confidence = 1,
                                              .vector = row};
        d->list[i] = &d->memories[i];
    }
    make_queries(d, queries);
}

/* Cosines of a query with all rows, in double. */
static void brute_force(const struct data *d, const float *query, double *cosine)
{
    double norm2 = 0;
    for (uint32_t j = 0; j < d->dim; j++)
        norm2 += (double)query[j] * (double)query[j];
    for (uint32_t i = 0; i < d->rows; i++) {
        const float *row = d->base + (size_t)i * d->dim;
        double sum[8] = {0};
        uint32_t j = 0;
        for (; j + 8 <= d->dim; j += 8)
            for (uint32_t l = 0; l < 8; l++)
                sum[l] += (double)query[j + l] * (double)row[j + l];
        for (; j < d->dim; j++)
            sum[0] += (double)query[j] * (double)row[j];
        double dot = 0;
        for (uint32_t l = 0; l < 8; l++)
            dot += sum[l];
        cosine[i] = dot * d->scale[i] / sqrt(norm2);
    }
}

static const char *judge(const struct data *d, const struct fake_parts *parts, const struct mn_search *search,
                         const double *cosine, struct tally *tally)
{
    uint32_t rows[K];
    if (search->hit_count != K)
        return "fewer hits than asked for";
    for (uint32_t h = 0; h < K; h++) {
        const struct mn_hit *hit = &search->hits[h];
        const struct fake_memory *m = fake_parts_memory(parts, hit->part, hit->row);
        rows[h] = (uint32_t)m->id.lo;
        double off = fabs(hit->score - cosine[rows[h]]);
        tally->worst = off > tally->worst ? off : tally->worst;
        if (h == 0)
            continue;
        const struct mn_hit *before = hit - 1;
        tally->ties += before->score == hit->score;
        if (before->score < hit->score || (before->score == hit->score && before->at < hit->at) ||
            (before->score == hit->score && before->at == hit->at && rows[h - 1] > rows[h]))
            return "hits out of order";
    }
    double last = cosine[rows[K - 1]];
    for (uint32_t i = 0; i < d->rows; i++) {
        bool listed = false;
        for (uint32_t h = 0; h < K; h++)
            listed |= rows[h] == i;
        if (!listed && cosine[i] > last + BOUND)
            return "a better row is missing";
    }
    return tally->worst > BOUND ? "a score is off" : NULL;
}

static bool same_answer(const struct mn_search *a, const struct mn_search *b)
{
    if (a->hit_count != b->hit_count)
        return false;
    for (uint32_t h = 0; h < a->hit_count; h++)
        if (a->hits[h].part != b->hits[h].part || a->hits[h].row != b->hits[h].row ||
            memcmp(&a->hits[h].score, &b->hits[h].score, sizeof a->hits[h].score) != 0)
            return false;
    return true;
}

static const char *const isas[] = {"avx512", "avx2", "portable"};

static void compare(const struct data *d, struct fake_parts *parts, struct tally *tally)
{
    struct mn_snapshot snapshot = fake_parts_snapshot(parts, 1, 0);
    struct mn_search searches[MN_ARRAY_LEN(isas)];
    double *cosine = need(d->rows * sizeof *cosine);
    uint32_t count = 0;
    for (size_t i = 0; i < MN_ARRAY_LEN(isas); i++) {
        const struct mn_kernels *kernels = mn_kernels_named(isas[i]);
        if (!kernels || mn_search_init(&searches[count], MN_METRIC_COSINE, d->dim) != MN_OK)
            continue;
        searches[count++].kernels = kernels;
    }
    for (uint32_t q = 0; q < d->queries; q++, tally->queries++) {
        struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN},
                                 .embedding = d->query + (size_t)q * d->dim,
                                 .k = K,
                                 .exact = true};
        const char *wrong = NULL;
        for (uint32_t i = 0; i < count && !wrong; i++) {
            if (mn_recall_search(&searches[i], &snapshot, &query) != MN_OK)
                wrong = mn_error_text();
            else if (i > 0 && !same_answer(&searches[0], &searches[i]))
                wrong = "the instruction sets differ";
        }
        brute_force(d, query.embedding, cosine);
        wrong = wrong ? wrong : judge(d, parts, &searches[0], cosine, tally);
        if (wrong && tally->wrong++ < SHOWN)
            printf("query %u: %s\n", q, wrong);
        if (q % 500 == 499)
            fprintf(stderr, "\r%u of %u queries", q + 1, d->queries);
    }
    fprintf(stderr, "\r%30s\r", "");
    printf("%u instruction sets:", count);
    for (uint32_t i = 0; i < count; i++) {
        printf(" %s", searches[i].kernels->name);
        mn_search_free(&searches[i]);
    }
    printf("\n");
    free(cosine);
}

static int usage(void)
{
    fprintf(stderr, "usage: bench_exact BASE.f32 DIM [rows, %u and more] [QUERIES.f32] [queries = 10000]\n",
            MN_CODEBOOK_ROWS_MIN);
    return 2;
}

int main(int argc, char **argv)
{
    struct data d = {.dim = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0};
    if (d.dim < 1 || d.dim > MN_DIM_MAX)
        return usage();
    uint32_t rows = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0, all = rows_in(argv[1], d.dim);
    d.queries = argc > 5 ? (uint32_t)strtoul(argv[5], NULL, 10) : 10000;
    rows = rows > 0 && rows < all ? rows : all;
    if (rows < MN_CODEBOOK_ROWS_MIN)
        return usage();
    make_data(&d, argv[1], rows, argc > 4 ? argv[4] : NULL);
    struct fake_parts *parts = fake_parts_new(d.dim, MN_METRIC_COSINE);
    fake_parts_columns(parts, d.list, d.rows);
    fake_parts_code_file(parts, 0, fake_parts_codebook(parts, 1, mn_codebook_clusters(d.rows)), 0);
    struct tally tally = {0};
    compare(&d, parts, &tally);
    printf("%u rows x %u, %llu queries, k %d: %llu wrong, %llu ties between hits, largest difference to double %.2g\n",
           d.rows, d.dim, (unsigned long long)tally.queries, K, (unsigned long long)tally.wrong,
           (unsigned long long)tally.ties, tally.worst);
    fake_parts_free(parts);
    free(d.base);
    free(d.query);
    free(d.scale);
    free(d.memories);
    free(d.list);
    return tally.wrong > 0;
}
