/*
 * bench_batch.c - what it is worth to search for several queries at once: queries a second of exact recall, one by one
 * and in batches, on one core.
 *
 *     bench_batch BASE.f32 QUERIES.f32 DIM [rows = all, 4096 and more] [queries = 1000]
 *
 * Rows and queries are raw little-endian floats. The rows lie in one column segment, with codes as after a compaction,
 * and once more without. One by one, in batches of 4, 16, 64 and all: each way is asked ROUNDS times, in turns, and the
 * median is shown, by processor time. Every answer must be the same whichever way it came; exit status 1 when one is
 * not.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/codebook.h"
#include "engine/recall_batch.h"
#include "tests/unit/fake_parts.h"

#define K      10
#define ROUNDS 3

struct bench {
    uint32_t dim, rows, queries;
    size_t stride;
    float *base, *query; /* query: `stride` floats each */
    struct fake_memory *memories;
    const struct fake_memory **list;
    struct fake_parts *parts;
    struct mn_search search;
    struct mn_batch *batch;
    struct mn_hit *hits; /* [queries][K]: of the first way */
    uint64_t wrong;
};

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench_batch: %s: %s\n", what, mn_error_trail());
        exit(1);
    }
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *need(size_t bytes)
{
    void *p = aligned_alloc(MN_LINE, mn_round_up(bytes + 1, MN_LINE));
    must(p != NULL, "memory");
    return memset(p, 0, bytes);
}

/* Up to `most` rows of a file, each at its place; returns how many there are. */
static uint32_t read_rows(const char *path, uint32_t dim, float *rows, size_t stride, uint32_t most)
{
    FILE *file = fopen(path, "rb");
    uint32_t got = 0;
    must(file != NULL, path);
    while (got < most && fread(rows + got * stride, sizeof *rows, dim, file) == dim)
        got++;
    fclose(file);
    return got;
}

static void make(struct bench *b, const char *base, const char *queries)
{
    b->stride = mn_round_up(b->dim, MN_LINE / sizeof(float));
    b->base = need((size_t)b->rows * b->dim * sizeof *b->base);
    b->query = need((size_t)b->queries * b->stride * sizeof *b->query);
    b->rows = read_rows(base, b->dim, b->base, b->dim, b->rows);
    b->queries = read_rows(queries, b->dim, b->query, b->stride, b->queries);
    must(b->rows > 0 && b->queries > 0, "no rows, or no queries");
    b->memories = need(b->rows * sizeof *b->memories);
    b->list = need(b->rows * sizeof *b->list);
    b->hits = need((size_t)b->queries * K * sizeof *b->hits);
    for (uint32_t i = 0; i < b->rows; i++) {
        b->memories[i] = (struct fake_memory){.space = "default",
                                              .id = fake_id(i),
                                              .born = 1,
                                              .died = MN_ALIVE,
                                              .at = i,
                                              .expires = MN_NEVER,
                                              .confidence = 1,
                                              .vector = b->base + (size_t)i * b->dim};
        b->list[i] = &b->memories[i];
    }
    b->parts = fake_parts_new(b->dim, MN_METRIC_COSINE);
    fake_parts_columns(b->parts, b->list, b->rows);
    must(mn_search_init(&b->search, MN_METRIC_COSINE, b->dim) == MN_OK, "a search");
    must(mn_batch_open(&b->batch, MN_METRIC_COSINE, b->dim) == MN_OK, "a batch");
}

/* Keeps the answer to query `q`, or compares it with the one that is kept. */
static void check(struct bench *b, bool first, uint32_t q, const struct mn_search *search)
{
    struct mn_hit *kept = b->hits + (size_t)q * K;
    must(search->hit_count == K, "an answer is not complete");
    if (first)
        memcpy(kept, search->hits, K * sizeof *kept);
    for (uint32_t i = 0; i < K; i++)
        b->wrong += search->hits[i].row != kept[i].row || search->hits[i].score != kept[i].score;
}

/* All queries, `size` in a batch (1: none); returns how many a second. */
static double ask_all(struct bench *b, const struct mn_snapshot *snapshot, uint32_t size, bool first)
{
    struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN}, .k = K, .exact = true};
    double begin = now_s();
    for (uint32_t q = 0, done = 1; q < b->queries; q += done) {
        uint32_t left = b->queries - q;
        const float *embeddings = b->query + q * b->stride;
        query.embedding = embeddings;
        if (size == 1)
            must(mn_recall_search(&b->search, snapshot, &query) == MN_OK, "a search");
        else
            must(mn_recall_batch(b->batch, snapshot, &query, embeddings, b->stride, left < size ? left : size, &done) ==
                     MN_OK,
                 "a batch");
        for (uint32_t i = 0; i < done; i++)
            check(b, first, q + i, size == 1 ? &b->search : mn_batch_result(b->batch, i));
    }
    return b->queries / (now_s() - begin);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(struct bench *b, const char *what)
{
    struct mn_snapshot snapshot = fake_parts_snapshot(b->parts, 1, 0);
    const uint32_t sizes[] = {1, 4, 16, 64, b->queries};
    double rates[MN_ARRAY_LEN(sizes)][ROUNDS];
    for (uint32_t round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < MN_ARRAY_LEN(sizes); i++)
            rates[i][round] = ask_all(b, &snapshot, sizes[i], round + i == 0);
    printf("%-14s", what);
    for (size_t i = 0; i < MN_ARRAY_LEN(sizes); i++) {
        qsort(rates[i], ROUNDS, sizeof rates[i][0], compare_doubles);
        printf(" %9.0f", rates[i][ROUNDS / 2]);
    }
    printf("   all/1: %.1f\n", rates[MN_ARRAY_LEN(sizes) - 1][ROUNDS / 2] / rates[0][ROUNDS / 2]);
    fflush(stdout);
}

static int usage(void)
{
    fprintf(stderr, "usage: bench_batch BASE.f32 QUERIES.f32 DIM [rows, %u and more] [queries = 1000]\n",
            MN_CODEBOOK_ROWS_MIN);
    return 2;
}

int main(int argc, char **argv)
{
    struct bench b = {.dim = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0, .rows = UINT32_MAX, .queries = 1000};
    if (b.dim < 1 || b.dim > MN_DIM_MAX)
        return usage();
    b.rows = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 1000000;
    b.queries = argc > 5 ? (uint32_t)strtoul(argv[5], NULL, 10) : b.queries;
    make(&b, argv[1], argv[2]);
    if (b.rows < MN_CODEBOOK_ROWS_MIN)
        return usage();
    printf("%u rows x %u, %u queries, k %d, exact; queries a second\n%-14s %9s %9s %9s %9s %9s\n", b.rows, b.dim,
           b.queries, K, "", "one by one", "4", "16", "64", "all");
    measure(&b, "embeddings");
    fake_parts_code_file(b.parts, 0, fake_parts_codebook(b.parts, 1, mn_codebook_clusters(b.rows)), 0);
    measure(&b, "codes");
    printf("%llu hits differ\n", (unsigned long long)b.wrong);
    mn_batch_free(b.batch);
    mn_search_free(&b.search);
    fake_parts_free(b.parts);
    free(b.base);
    free(b.query);
    free(b.memories);
    free(b.list);
    free(b.hits);
    return b.wrong > 0;
}
