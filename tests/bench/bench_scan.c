/*
 * bench_scan.c - how fast the exact search goes through memory, per instruction set, against the floor: reading the
 * same bytes and doing nothing with them.
 *
 *     bench_scan [rows = 50000] [dim = 768]
 *
 * One thread. Each line is the best of several runs: the machine is rarely alone. "eighth" searches the columns with a
 * condition that one row in eight fulfils, here and there. "cached" searches a part small enough for the second-level
 * cache over and over: the arithmetic alone. Rows and bytes are those compared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/recall.h"
#include "tests/unit/fake_parts.h"

#define RUNS 9

struct store {
    uint32_t rows, dim;
    float *vectors;
    struct fake_memory *memories;
    const struct fake_memory **list;
};

static void *need(size_t bytes)
{
    void *p = aligned_alloc(4096, mn_round_up(bytes, 4096));
    if (!p) {
        fprintf(stderr, "bench_scan: out of memory\n");
        exit(1);
    }
    return p;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void make_store(struct store *s, uint32_t rows, uint32_t dim)
{
    uint64_t random = 1;
    *s = (struct store){.rows = rows, .dim = dim};
    s->vectors = need((size_t)rows * dim * sizeof *s->vectors);
    s->memories = need(rows * sizeof *s->memories);
    s->list = need(rows * sizeof *s->list);
    for (size_t i = 0; i < (size_t)rows * dim; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        s->vectors[i] = (float)(int32_t)(random >> 32) * 0x1p-31f;
    }
    for (uint32_t i = 0; i < rows; i++) {
        s->memories[i] = (struct fake_memory){.space = "default",
                                              .id = fake_id(i + 1),
                                              .born = 1,
                                              .died = MN_ALIVE,
                                              .at = i,
                                              .expires = MN_NEVER,
                                              .confidence = (i * 2654435761u) >> 29 == 0 ? 1.0f : 0.0f,
                                              .vector = s->vectors + (size_t)i * dim};
        s->list[i] = &s->memories[i];
    }
}

static void free_store(struct store *s)
{
    free(s->vectors);
    free(s->memories);
    free(s->list);
}

static void report(const char *what, const char *kernels, uint64_t rows, uint32_t dim, double seconds)
{
    double bytes = (double)rows * dim * sizeof(float);
    printf("%-10s %-9s %9llu rows  %9.1f us  %8.1f ns/row  %6.2f GB/s\n", what, kernels, (unsigned long long)rows,
           seconds * 1e6, seconds * 1e9 / (double)rows, bytes / seconds / 1e9);
}

static void search(const char *what, struct fake_parts *parts, const struct store *s, const struct mn_kernels *kernels,
                   float min_confidence, int repeat)
{
    struct mn_search search;
    struct mn_snapshot snapshot = fake_parts_snapshot(parts, 1, 0);
    struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN, .min_confidence = min_confidence},
                             .embedding = s->vectors + (size_t)s->rows / 2 * s->dim,
                             .k = 10};
    double best = 1e9;
    bool ok = mn_search_init(&search, MN_METRIC_COSINE, s->dim) == MN_OK;
    search.kernels = kernels;
    for (int run = 0; ok && run < RUNS; run++) {
        double begin = now_s();
        for (int i = 0; ok && i < repeat; i++)
            ok = mn_recall_search(&search, &snapshot, &query) == MN_OK;
        double seconds = (now_s() - begin) / repeat;
        best = seconds < best ? seconds : best;
    }
    if (ok)
        report(what, kernels->name, search.scanned, s->dim, best);
    else
        printf("%-10s %-9s failed: %s\n", what, kernels->name, mn_error_trail());
    mn_search_free(&search);
}

/* The floor: the same bytes through eight independent sums; and a copy of half of them onto the other half. */
static void floor_lines(const struct store *s)
{
    size_t words = (size_t)s->rows * s->dim / 2, bytes = words * 8;
    double best_read = 1e9, best_copy = 1e9;
    volatile uint64_t sink = 0;
    uint64_t *memory = need(bytes);
    memcpy(memory, s->vectors, bytes);
    for (int run = 0; run < RUNS; run++) {
        uint64_t sums[8] = {0};
        double begin = now_s();
        for (size_t i = 0; i + 8 <= words; i += 8) {
            for (int j = 0; j < 8; j++)
                sums[j] += memory[i + (size_t)j];
        }
        for (int j = 0; j < 8; j++)
            sink += sums[j];
        double middle = now_s();
        memcpy(memory, (const char *)memory + bytes / 2, bytes / 2);
        sink += memory[words / 4];
        double end = now_s();
        best_read = middle - begin < best_read ? middle - begin : best_read;
        best_copy = end - middle < best_copy ? end - middle : best_copy;
    }
    (void)sink; /* written so that the loops are not optimised away */
    report("read", "-", s->rows, s->dim, best_read);
    report("copy", "-", s->rows, s->dim, best_copy); /* reads half and writes half: as many bytes on the bus */
    free(memory);
}

static void searches(const char *what, const struct store *s, bool columns, float min_confidence, int repeat)
{
    static const char *const names[] = {"avx512", "avx2", "portable"};
    struct fake_parts *parts = fake_parts_new(s->dim, MN_METRIC_COSINE);
    if (columns)
        fake_parts_columns(parts, s->list, s->rows);
    else
        fake_parts_tail(parts, s->list, s->rows);
    for (size_t i = 0; i < MN_ARRAY_LEN(names); i++) {
        const struct mn_kernels *kernels = mn_kernels_named(names[i]);
        if (kernels)
            search(what, parts, s, kernels, min_confidence, repeat);
    }
    fake_parts_free(parts);
}

int main(int argc, char **argv)
{
    uint32_t rows = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 50000;
    uint32_t dim = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 768;
    if (rows < 1000 || rows > 1000000 || dim < 1 || dim > MN_DIM_MAX) {
        fprintf(stderr, "usage: bench_scan [rows = 50000, 1000..1000000] [dim = 768, 1..%u]\n", MN_DIM_MAX);
        return 2;
    }
    struct store s, small;
    make_store(&s, rows, dim);
    floor_lines(&s);
    searches("tail", &s, false, 0, 1);
    searches("columns", &s, true, 0, 1);
    searches("eighth", &s, true, 1, 1);
    free_store(&s);
    make_store(&small, 64 * 768 / dim + 8, dim);
    searches("cached", &small, false, 0, 2000);
    free_store(&small);
    return 0;
}
