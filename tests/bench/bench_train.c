/*
 * bench_train.c - how long a codebook takes to train and rows to be assigned, and how good it is: the mean squared
 * distance from a row to its centroid, how uneven the clusters are, and how often the two-step search for the nearest
 * centroid finds it.
 *
 *     bench_train [rows = 100000] [dim = 768] [clusters = 0: what suits the rows] [FILE | -] [lloyd = 0] [memory = 512]
 *
 * FILE holds floats, row by row; without one, rows are made up: themes around topics. Rows count as directions
 * (cosine). lloyd: so many rounds of the plain algorithm over the same sample, for comparison; that takes long.
 * memory: MiB of the sample that may lie there. One thread.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/codebook.h"
#include "engine/kmeans.h"

#define TRUTH_ROWS 8192u /* rows whose nearest centroid is looked for among all */

struct bench {
    uint64_t rows, sample_rows;
    uint32_t dim, clusters, lloyd, memory;
    const float *vectors;
    float *scales;
    double sampled_at, writing_at; /* seconds: when the last row was asked for, and the first change to the disk */
};

static struct bench bench;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *need(uint64_t bytes)
{
    void *p = aligned_alloc(64, mn_round_up(bytes ? bytes : 1, 64));
    if (!p) {
        fprintf(stderr, "bench_train: out of memory\n");
        exit(1);
    }
    return p;
}

static void must(enum mn_status status)
{
    if (status == MN_OK)
        return;
    fprintf(stderr, "bench_train: %s\n", mn_error_trail());
    exit(1);
}

/* ---- rows ---- */

static float uniform(uint64_t *state)
{
    return (float)(int32_t)(uint32_t)mn_kmeans_random(state) * 0x1p-31f;
}

static float *made_up(uint64_t rows, uint32_t dim)
{
    uint32_t topics = 64, themes = 4096;
    uint64_t seed = 1;
    float *centres = need((uint64_t)(topics + themes) * dim * sizeof(float)), *topic = centres;
    float *theme = centres + (size_t)topics * dim, *out = need(rows * dim * sizeof(float));
    for (size_t i = 0; i < (size_t)topics * dim; i++)
        topic[i] = uniform(&seed);
    for (size_t i = 0; i < (size_t)themes * dim; i++)
        theme[i] = topic[i / dim % topics * dim + i % dim] + 0.8f * uniform(&seed);
    for (uint64_t r = 0; r < rows; r++) {
        uint64_t of = mn_kmeans_random(&seed) % themes * (mn_kmeans_random(&seed) % themes) / themes; /* skewed */
        for (uint32_t d = 0; d < dim; d++)
            out[r * dim + d] = 0.5f + theme[of * dim + d] + 0.9f * uniform(&seed);
    }
    free(centres);
    return out;
}

static const float *from_file(const char *path, uint64_t rows, uint32_t dim)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) != 0 || (uint64_t)st.st_size < rows * dim * sizeof(float)) {
        fprintf(stderr, "bench_train: %s does not hold %llu rows of %u floats\n", path, (unsigned long long)rows, dim);
        exit(1);
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) {
        perror("bench_train: mmap");
        exit(1);
    }
    return p;
}

static void find_scales(void)
{
    const struct mn_kernels *kernels = mn_kernels_best();
    bench.scales = need(bench.rows * sizeof *bench.scales);
    for (uint64_t r = 0; r < bench.rows; r++) {
        double norm2 = 0;
        if (!kernels->check(bench.vectors + r * bench.dim, bench.dim, &norm2) || !(norm2 > 0))
            norm2 = 1;
        bench.scales[r] = (float)(1 / sqrt(norm2));
    }
}

/* ---- training ---- */

static bool give_row(void *context, uint64_t i, float *out)
{
    (void)context;
    uint64_t r = (uint64_t)((unsigned __int128)i * bench.rows / bench.sample_rows);
    for (uint32_t d = 0; d < bench.dim; d++)
        out[d] = bench.vectors[r * bench.dim + d] * bench.scales[r];
    bench.sampled_at = seconds();
    return true;
}

static enum mn_status timed_mkdir(const char *path)
{
    bench.writing_at = seconds();
    return mn_io_posix.mkdir(path);
}

static const struct mn_codebook *train(const struct mn_store *store)
{
    const struct mn_codebook *codebook;
    struct mn_codebook_sample sample = {
        .rows = bench.sample_rows, .row = give_row, .bytes = (uint64_t)bench.memory << 20};
    double begin = seconds();
    must(mn_codebook_train(store, 1, bench.clusters, bench.rows, &sample, 1, NULL, NULL));
    double end = seconds();
    must(mn_codebook_open(&codebook, store, 1));
    printf("train   %6.2f s   (sample of %llu rows %.2f, clusters %.2f, codes and file %.2f), open %.3f\n", end - begin,
           (unsigned long long)bench.sample_rows, bench.sampled_at - begin, bench.writing_at - bench.sampled_at,
           end - bench.writing_at, seconds() - end);
    printf("        %u clusters under %u, mean |x-c|^2 of the sample %.5f\n", codebook->clusters, codebook->supers,
           (double)codebook->energy);
    return codebook;
}

/* ---- what it is worth ---- */

static void print_quality(const char *name, const float *rows, const float *centroids, uint32_t clusters,
                          uint32_t width, const uint32_t *assigned)
{
    uint32_t *sizes = calloc(clusters, sizeof *sizes), largest = 0;
    double energy = 0, squares = 0;
    if (!sizes)
        exit(1);
    for (uint64_t r = 0; r < bench.rows; r++) {
        energy += (double)mn_kernels_best()->l2(rows + r * width, centroids + (size_t)assigned[r] * width, width);
        sizes[assigned[r]]++;
    }
    for (uint32_t c = 0; c < clusters; c++) {
        squares += (double)sizes[c] * sizes[c];
        largest = sizes[c] > largest ? sizes[c] : largest;
    }
    double rows_all = (double)bench.rows;
    printf("%-7s mean |x-c|^2 %.5f, size: sum of squares %.3f, largest %.2f times the mean\n", name, energy / rows_all,
           squares * clusters / (rows_all * rows_all), largest * (double)clusters / rows_all);
    free(sizes);
}

static float *rotate_all(const struct mn_codebook *codebook)
{
    float *out = need(bench.rows * codebook->width * sizeof(float));
    double begin = seconds();
    for (uint64_t r = 0; r < bench.rows; r++)
        mn_codebook_rotate(codebook, mn_kernels_best(), bench.vectors + r * bench.dim, bench.scales[r],
                           out + r * codebook->width);
    double time = seconds() - begin;
    printf("rotate  %6.2f s   %.2f us a row\n", time, time / (double)bench.rows * 1e6);
    return out;
}

static void assign_all(const struct mn_codebook *codebook, const float *rows, uint32_t *assigned)
{
    double begin = seconds();
    for (uint64_t r = 0; r < bench.rows; r += 1024) {
        uint32_t some = bench.rows - r < 1024 ? (uint32_t)(bench.rows - r) : 1024;
        mn_codebook_assign(codebook, mn_kernels_best(), rows + r * codebook->width, some, assigned + r, NULL);
    }
    double time = seconds() - begin;
    printf("assign  %6.2f s   %.2f us a row\n", time, time / (double)bench.rows * 1e6);
}

/* Every centroid against rows from all over. */
static void print_truth(const struct mn_codebook *codebook, const float *rows, const uint32_t *assigned)
{
    uint32_t count = bench.rows < TRUTH_ROWS ? (uint32_t)bench.rows : TRUTH_ROWS, width = codebook->width, right = 0;
    float *some = need((uint64_t)count * width * sizeof(float));
    uint32_t *nearest = need(count * sizeof *nearest);
    struct mn_kmeans km = {.kernels = mn_kernels_best(), .width = width};
    double got = 0, best = 0;
    for (uint32_t i = 0; i < count; i++)
        memcpy(some + (size_t)i * width, rows + i * bench.rows / count * width, width * sizeof(float));
    double begin = seconds();
    must(mn_kmeans_nearest(&km, some, count, codebook->centroids, codebook->norms, codebook->clusters, nearest, NULL));
    double time = seconds() - begin;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t mine = assigned[i * bench.rows / count];
        const float *x = some + (size_t)i * width;
        right += mine == nearest[i];
        got += (double)km.kernels->l2(x, codebook->centroids + (size_t)mine * width, width);
        best += (double)km.kernels->l2(x, codebook->centroids + (size_t)nearest[i] * width, width);
    }
    printf("        the nearest of all for %.2f %% of the rows, distances %.3f %% above it (all: %.2f us a row)\n",
           100.0 * right / count, 100 * (got / best - 1), time / count * 1e6);
    free(some);
    free(nearest);
}

/* The plain algorithm from as many rows of the sample. */
static void compare_with_lloyd(const struct mn_codebook *codebook, const float *rows)
{
    uint32_t width = codebook->width, k = codebook->clusters, n = (uint32_t)bench.sample_rows;
    float *sample = need((uint64_t)n * width * sizeof(float)), *centroids = need((uint64_t)k * width * sizeof(float));
    float *biases = need(k * sizeof *biases);
    uint32_t *nearest = need(bench.rows * sizeof *nearest), *sizes = need(k * sizeof *sizes);
    struct mn_kmeans km = {.kernels = mn_kernels_best(), .width = width, .random = 1};
    struct mn_kmeans_round round = {centroids, sizes, k, NULL};
    for (uint32_t i = 0; i < n; i++)
        memcpy(sample + (size_t)i * width, rows + i * bench.rows / n * width, width * sizeof(float));
    for (uint32_t c = 0; c < k; c++)
        memcpy(centroids + (size_t)c * width, sample + (size_t)((uint64_t)c * n / k) * width, width * sizeof(float));
    double begin = seconds();
    for (uint32_t r = 0; r <= bench.lloyd; r++) {
        for (uint32_t c = 0; c < k; c++)
            biases[c] = km.kernels->dot(centroids + (size_t)c * width, centroids + (size_t)c * width, width);
        if (r == bench.lloyd)
            break;
        must(mn_kmeans_nearest(&km, sample, n, centroids, biases, k, nearest, NULL));
        must(mn_kmeans_update(&km, sample, nearest, n, &round, NULL));
    }
    printf("lloyd   %6.2f s   %u rounds\n", seconds() - begin, bench.lloyd);
    must(mn_kmeans_nearest(&km, rows, (uint32_t)bench.rows, centroids, biases, k, nearest, NULL));
    print_quality("", rows, centroids, k, width, nearest);
    free(sample);
    free(centroids);
    free(biases);
    free(nearest);
    free(sizes);
}

static void run(const struct mn_store *store)
{
    const struct mn_codebook *codebook = train(store);
    float *rows = rotate_all(codebook);
    uint32_t *assigned = need(bench.rows * sizeof *assigned);
    assign_all(codebook, rows, assigned);
    print_quality("", rows, codebook->centroids, codebook->clusters, codebook->width, assigned);
    print_truth(codebook, rows, assigned);
    if (bench.lloyd > 0)
        compare_with_lloyd(codebook, rows);
    free(rows);
    free(assigned);
    mn_codebook_close(codebook);
}

int main(int argc, char **argv)
{
    const char *path = argc > 4 ? argv[4] : "-";
    bench.rows = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
    bench.dim = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 768;
    bench.clusters = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
    bench.lloyd = argc > 5 ? (uint32_t)strtoul(argv[5], NULL, 10) : 0;
    bench.memory = argc > 6 ? (uint32_t)strtoul(argv[6], NULL, 10) : 0;
    if (bench.clusters == 0)
        bench.clusters = mn_codebook_clusters(bench.rows);
    if (bench.rows > UINT32_MAX || bench.dim < 1 || bench.dim > MN_DIM_MAX || bench.clusters < 1 ||
        bench.clusters > MN_CODEBOOK_CLUSTERS_MAX || bench.clusters > bench.rows) {
        fprintf(stderr,
                "usage: bench_train [rows = 100000, %u and more] [dim = 768] [clusters = 0] [FILE | -] "
                "[lloyd = 0] [memory = 512]\n",
                MN_CODEBOOK_ROWS_MIN);
        return 2;
    }
    char dir[] = "/tmp/mn-bench-train-XXXXXX";
    struct mn_io io = mn_io_posix;
    struct mn_store store;
    io.mkdir = timed_mkdir;
    bench.vectors = strcmp(path, "-") != 0 ? from_file(path, bench.rows, bench.dim) : made_up(bench.rows, bench.dim);
    find_scales();
    bench.sample_rows = mn_codebook_sample_rows(bench.clusters);
    if (bench.sample_rows > bench.rows)
        bench.sample_rows = bench.rows;
    if (!mkdtemp(dir)) {
        perror("bench_train: mkdtemp");
        return 1;
    }
    must(mn_store_create(&store, &io, dir, bench.dim, MN_METRIC_COSINE));
    printf("%llu rows of %u floats, kernels %s\n", (unsigned long long)bench.rows, bench.dim, mn_kernels_best()->name);
    run(&store);
    must(mn_io_remove_tree(&mn_io_posix, dir));
    return 0;
}
