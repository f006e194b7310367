/*
 * data.c - rows, queries and the truth about them (see peers.h).
 *
 * The truth is brute force over exactly the rows in use: in float for all of them, then in double for the best few of
 * each query. It is what takes longest after the builds, so it is kept.
 */
#include "tests/bench/peers/peers.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEEP = 32, QUERIES_AT_ONCE = 4, ROWS_AT_ONCE = 256 };
#define TIE 2e-7f /* two float sums of the same products differ by so much */

typedef float lanes __attribute__((vector_size(64)));

static const void *map_file(const char *path, size_t *bytes)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        peer_die("cannot open %s", path);
    *bytes = (size_t)st.st_size;
    void *at = mmap(NULL, *bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        peer_die("cannot map %s", path);
    close(fd);
    return at;
}

static bool is_half(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && strcmp(path + n - 4, ".f16") == 0;
}

static void unit_row(const void *base, bool half, uint32_t dim, uint64_t i, float *out)
{
    double norm2 = 0;
    for (uint32_t j = 0; j < dim; j++) {
        out[j] = half ? (float)((const _Float16 *)base)[i * dim + j] : ((const float *)base)[i * dim + j];
        norm2 += (double)out[j] * out[j];
    }
    float scale = norm2 > 0 ? (float)(1 / sqrt(norm2)) : 0;
    for (uint32_t j = 0; j < dim; j++)
        out[j] *= scale;
}

void peer_data_row(const struct peer_data *data, uint64_t i, float *out)
{
    unit_row(data->base, data->half, data->dim, i, out);
}

static uint64_t rows_of(const char *path, size_t bytes, uint32_t dim, bool half)
{
    size_t row = dim * (half ? 2u : 4u);
    if (bytes == 0 || bytes % row)
        peer_die("%s is no whole number of rows of %zu bytes", path, row);
    return bytes / row;
}

void peer_data_open(struct peer_data *d, const char *base, const char *queries_path, uint32_t dim, uint64_t rows,
                    uint64_t queries)
{
    size_t bytes, query_bytes;
    const char *slash = strrchr(base, '/');
    *d = (struct peer_data){.dim = dim, .stride = (dim + 15) / 16 * 16, .half = is_half(base), .name = base};
    if (slash)
        d->name = slash + 1;
    d->base = map_file(base, &bytes);
    uint64_t there = rows_of(base, bytes, dim, d->half);
    d->rows = rows && rows < there ? rows : there;
    const void *query = map_file(queries_path, &query_bytes);
    there = rows_of(queries_path, query_bytes, dim, is_half(queries_path));
    d->queries = queries && queries + PEER_SPARE < there ? queries + PEER_SPARE : there;
    if (d->queries <= PEER_SPARE || d->rows < PEER_K)
        peer_die("%s: at least %d queries and %d rows", queries_path, PEER_SPARE + 1, PEER_K);
    size_t size = d->queries * d->stride * sizeof(float);
    d->query = aligned_alloc(64, size);
    d->worst = calloc(d->queries, sizeof *d->worst);
    if (!d->query || !d->worst)
        peer_die("out of memory for %llu queries", (unsigned long long)d->queries);
    memset(d->query, 0, size);
    for (uint64_t q = 0; q < d->queries; q++)
        unit_row(query, is_half(queries_path), dim, q, d->query + q * d->stride);
    munmap((void *)(uintptr_t)query, query_bytes);
}

void peer_data_close(struct peer_data *d)
{
    munmap((void *)(uintptr_t)d->base, d->rows * d->dim * (d->half ? 2u : 4u));
    free(d->query);
    free(d->worst);
}

/* ---- the truth ---- */

struct near {
    float similarity;
    uint32_t row;
};

/* A list of the best KEEP, best first. */
static void offer(struct near *list, float similarity, uint32_t row)
{
    if (similarity <= list[KEEP - 1].similarity)
        return;
    uint32_t i = KEEP - 1;
    for (; i > 0 && list[i - 1].similarity < similarity; i--)
        list[i] = list[i - 1];
    list[i] = (struct near){similarity, row};
}

/* Four queries against one row: each load of the row serves all. */
static void dot_four(const float *queries, uint32_t stride, const float *row, float out[QUERIES_AT_ONCE])
{
    lanes sum[QUERIES_AT_ONCE] = {0};
    for (uint32_t j = 0; j < stride; j += 16) {
        lanes x = *(const lanes *)(const void *)(row + j);
        for (uint32_t q = 0; q < QUERIES_AT_ONCE; q++)
            sum[q] += x * *(const lanes *)(const void *)(queries + (size_t)q * stride + j);
    }
    for (uint32_t q = 0; q < QUERIES_AT_ONCE; q++) {
        out[q] = 0;
        for (uint32_t i = 0; i < 16; i++)
            out[q] += sum[q][i];
    }
}

static void compare_rows(const struct peer_data *d, const float *rows, uint64_t first, uint32_t count,
                         struct near *lists)
{
    float out[QUERIES_AT_ONCE];
    for (uint64_t q = 0; q < d->queries; q += QUERIES_AT_ONCE) {
        uint64_t at = q + QUERIES_AT_ONCE <= d->queries ? q : d->queries - QUERIES_AT_ONCE; /* the last overlap */
        for (uint32_t r = 0; r < count; r++) {
            dot_four(d->query + at * d->stride, d->stride, rows + (size_t)r * d->stride, out);
            for (uint64_t i = q - at; i < QUERIES_AT_ONCE; i++)
                offer(lists + (at + i) * KEEP, out[i], (uint32_t)first + r);
        }
    }
}

static double exact_similarity(const float *a, const float *b, uint32_t dim)
{
    double sum = 0;
    for (uint32_t j = 0; j < dim; j++)
        sum += (double)a[j] * b[j];
    return sum;
}

/* The k-th similarity in double, over the best of the float pass. */
static float kth_similarity(const struct peer_data *d, uint64_t q, const struct near *list, float *row)
{
    double best[KEEP];
    uint32_t count = 0;
    for (uint32_t i = 0; i < KEEP && list[i].similarity > -2; i++) {
        peer_data_row(d, list[i].row, row);
        double s = exact_similarity(row, d->query + q * d->stride, d->dim);
        uint32_t at = count++;
        for (; at > 0 && best[at - 1] < s; at--)
            best[at] = best[at - 1];
        best[at] = s;
    }
    return (float)best[PEER_K - 1];
}

static void brute_force(struct peer_data *d)
{
    struct near *lists = malloc(d->queries * KEEP * sizeof *lists);
    float *rows = aligned_alloc(64, (size_t)ROWS_AT_ONCE * d->stride * sizeof *rows);
    if (!lists || !rows)
        peer_die("out of memory for the truth");
    memset(rows, 0, (size_t)ROWS_AT_ONCE * d->stride * sizeof *rows);
    for (uint64_t i = 0; i < d->queries * KEEP; i++)
        lists[i] = (struct near){-3, 0};
    for (uint64_t first = 0; first < d->rows; first += ROWS_AT_ONCE) {
        uint32_t count = d->rows - first < ROWS_AT_ONCE ? (uint32_t)(d->rows - first) : ROWS_AT_ONCE;
        for (uint32_t r = 0; r < count; r++)
            peer_data_row(d, first + r, rows + (size_t)r * d->stride);
        compare_rows(d, rows, first, count, lists);
    }
    for (uint64_t q = 0; q < d->queries; q++)
        d->worst[q] = kth_similarity(d, q, lists + q * KEEP, rows);
    free(lists);
    free(rows);
}

/* What the truth was made from: FNV-1a over the shape, the queries, and a few rows. */
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static uint64_t hash_data(const struct peer_data *d)
{
    uint64_t shape[] = {d->dim, d->rows, d->queries}, hash = UINT64_C(0xcbf29ce484222325);
    size_t row = d->dim * (d->half ? 2u : 4u), step = d->rows / 97 + 1;
    hash = hash_bytes(hash, shape, sizeof shape);
    hash = hash_bytes(hash, d->query, d->queries * d->stride * sizeof *d->query);
    for (uint64_t i = 0; i < d->rows; i += step)
        hash = hash_bytes(hash, (const char *)d->base + i * row, row);
    return hash;
}

void peer_data_truth(struct peer_data *d, const char *path)
{
    uint64_t wanted = hash_data(d), there = 0;
    FILE *file = fopen(path, "rbe");
    bool good = file && fread(&there, sizeof there, 1, file) == 1 && there == wanted &&
                fread(d->worst, sizeof *d->worst, d->queries, file) == d->queries;
    if (file)
        fclose(file);
    if (good)
        return;
    uint64_t begun = peer_now_ns();
    brute_force(d);
    peer_say("truth by brute force: %.1f s", (double)(peer_now_ns() - begun) / 1e9);
    file = fopen(path, "wbe");
    good = file && fwrite(&wanted, sizeof wanted, 1, file) == 1 &&
           fwrite(d->worst, sizeof *d->worst, d->queries, file) == d->queries;
    if ((file && fclose(file) != 0) || !good)
        peer_die("cannot write %s", path);
}

uint32_t peer_data_found(const struct peer_data *d, uint64_t q, const uint32_t *ids, uint32_t count)
{
    float row[65536];
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool twice = false;
        for (uint32_t j = 0; j < i; j++)
            twice = twice || ids[j] == ids[i];
        if (twice || ids[i] >= d->rows)
            peer_die("an answer holds a row twice, or one that is not there");
        peer_data_row(d, ids[i], row);
        found += (float)exact_similarity(row, d->query + q * d->stride, d->dim) >= d->worst[q] - TIE;
    }
    return found < PEER_K ? found : PEER_K;
}
