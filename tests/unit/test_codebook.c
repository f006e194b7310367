/*
 * test_codebook.c - engine/codebook*: a codebook follows from its sample, comes back from its file as it was written,
 * keeps distances, finds the nearest centroid nearly always; no damage goes unseen and no sample is too odd.
 */
#include "engine/codebook_file.h"

#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/kmeans.h"
#include "tests/unit/fail_once.h"

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != MN_OK)                                                                                           \
            fail_msg("%s: %s", #call, mn_error_trail());                                                               \
    } while (0)

/* ---- stores ---- */

struct place {
    struct mn_store store;
    char dir[64];
};

static struct place new_place(uint32_t dim, enum mn_metric metric)
{
    struct place p;
    snprintf(p.dir, sizeof p.dir, "/dev/shm/mn-codebook-XXXXXX");
    assert_non_null(mkdtemp(p.dir));
    assert_ok(mn_store_create(&p.store, &mn_io_posix, p.dir, dim, metric));
    return p;
}

static void remove_place(struct place *p)
{
    assert_ok(mn_io_remove_tree(&mn_io_posix, p->dir));
}

static float *new_floats(size_t count)
{
    float *floats = aligned_alloc(64, mn_round_up((count ? count : 1) * sizeof *floats, 64));
    assert_non_null(floats);
    memset(floats, 0, count * sizeof *floats);
    return floats;
}

static float uniform(uint64_t *state)
{
    return (float)(int32_t)(uint32_t)mn_kmeans_random(state) * 0x1p-31f;
}

/* ---- samples ---- */

/* Rows in memory; `skip`: one in so many cannot be read. */
struct rows {
    float *at;
    uint32_t count, dim, skip;
    uint64_t last, calls;
};

static bool give_row(void *context, uint64_t i, float *out)
{
    struct rows *r = context;
    assert_true(i < r->count && (r->calls == 0 || i > r->last)); /* in rising order */
    r->last = i;
    r->calls++;
    if (r->skip && i % r->skip == 0)
        return false;
    memcpy(out, r->at + i * r->dim, r->dim * sizeof *out);
    return true;
}

static struct mn_codebook_sample sample_of(struct rows *r)
{
    r->calls = 0;
    return (struct mn_codebook_sample){.rows = r->count, .row = give_row, .context = r};
}

/* Rows like embeddings: around centres that are themselves around a few, beside a mean that all have. */
static struct rows mixture(uint32_t count, uint32_t dim, uint64_t seed)
{
    enum { TOPICS = 12, THEMES = 90 };
    float *topics = new_floats(TOPICS * dim), *themes = new_floats(THEMES * dim);
    struct rows r = {.at = new_floats((size_t)count * dim), .count = count, .dim = dim};
    for (uint32_t i = 0; i < TOPICS * dim; i++)
        topics[i] = uniform(&seed);
    for (uint32_t t = 0; t < THEMES; t++)
        for (uint32_t d = 0; d < dim; d++)
            themes[t * dim + d] = topics[t % TOPICS * dim + d] + 0.7f * uniform(&seed);
    for (uint32_t i = 0; i < count; i++) {
        const float *theme = themes + mn_kmeans_random(&seed) % THEMES * dim;
        for (uint32_t d = 0; d < dim; d++)
            r.at[(size_t)i * dim + d] = 3 + theme[d] + 0.6f * uniform(&seed);
    }
    free(topics);
    free(themes);
    return r;
}

static enum mn_status train(const struct mn_store *store, uint64_t gen, uint32_t clusters, struct rows *r,
                            uint64_t seed)
{
    struct mn_codebook_sample sample = sample_of(r);
    return mn_codebook_train(store, gen, clusters, 12345, &sample, seed, NULL, NULL);
}

static const struct mn_codebook *open_book(const struct mn_store *store, uint64_t gen)
{
    const struct mn_codebook *codebook;
    assert_ok(mn_codebook_open(&codebook, store, gen));
    return codebook;
}

/* All rows in the codebook's space. */
static float *rotated(const struct mn_codebook *codebook, const struct rows *r)
{
    float *out = new_floats((size_t)r->count * codebook->width);
    for (uint32_t i = 0; i < r->count; i++)
        mn_codebook_rotate(codebook, mn_kernels_best(), r->at + (size_t)i * r->dim, 1,
                           out + (size_t)i * codebook->width);
    return out;
}

static double distance2(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum;
}

static uint8_t *slurp(const char *path, size_t *bytes)
{
    void *data;
    assert_ok(mn_io_slurp(&mn_io_posix, path, 64u << 20, &data, bytes));
    return data;
}

/* ---- the plain one ---- */

static void plain_follows_from_the_uuid(void **state)
{
    (void)state;
    struct place a = new_place(100, MN_METRIC_L2), b = new_place(100, MN_METRIC_L2);
    const struct mn_codebook *one = open_book(&a.store, 0), *again = open_book(&a.store, 0);
    const struct mn_codebook *other = open_book(&b.store, 0);
    assert_ptr_equal(one, again);
    assert_ptr_not_equal(one, other);
    assert_int_equal(one->gen, 0);
    assert_int_equal(one->dim, 100);
    assert_int_equal(one->width, 128);
    assert_int_equal(one->clusters, 0);
    size_t bytes = MN_CODEBOOK_SIGNS(128) * sizeof(uint32_t);
    assert_memory_not_equal(one->signs, other->signs, bytes);
    for (uint32_t d = 0; d < one->width; d++)
        assert_true(one->mean[d] == 0);
    /* Another folder with the same uuid: a copy of the store. */
    uint32_t negated = 0, *signs = malloc(bytes);
    memcpy(signs, one->signs, bytes);
    for (size_t w = 0; w < bytes / sizeof *signs; w++)
        negated += (uint32_t)__builtin_popcount(signs[w]);
    assert_true(negated > 200 && negated < 312); /* of 512 */
    mn_codebook_close(one);
    mn_codebook_close(again);
    mn_codebook_close(other);
    memcpy(b.store.uuid, a.store.uuid, sizeof b.store.uuid);
    other = open_book(&b.store, 0);
    assert_memory_equal(other->signs, signs, bytes);
    mn_codebook_close(other);
    free(signs);
    mn_codebook_close(NULL);
    remove_place(&a);
    remove_place(&b);
}

/* ---- rotation ---- */

static void expect_rotation(const struct mn_codebook *codebook, const struct mn_kernels *kernels)
{
    enum { N = 8 };
    uint32_t dim = codebook->dim, width = codebook->width;
    uint64_t seed = dim;
    float *rows = new_floats(N * dim), *out = new_floats(N * width), *same = new_floats(width);
    for (uint32_t i = 0; i < N * dim; i++)
        rows[i] = uniform(&seed);
    for (uint32_t i = 0; i < N; i++) {
        mn_codebook_rotate(codebook, kernels, rows + i * dim, 1, out + i * width);
        mn_codebook_rotate(codebook, mn_kernels_named("portable"), rows + i * dim, 1, same);
        assert_memory_equal(out + i * width, same, width * sizeof(float));
    }
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = 0; j < i; j++) {
            double before = distance2(rows + i * dim, rows + j * dim, dim);
            double after = distance2(out + i * width, out + j * width, width);
            assert_true(fabs(after - before) <= 1e-5 * (before + 1e-3));
        }
    for (uint32_t i = 0; i < N * dim; i++)
        rows[i] *= 2;
    mn_codebook_rotate(codebook, kernels, rows, 0.5f, same); /* scale */
    assert_memory_equal(out, same, width * sizeof(float));
    free(rows);
    free(out);
    free(same);
}

static void rotation_keeps_distances(void **state)
{
    (void)state;
    static const uint32_t dims[] = {1, 3, 64, 100, 384, 768, 1000, 1536, 4096};
    static const char *const kernels[] = {"avx512", "avx2", "portable"};
    for (size_t d = 0; d < MN_ARRAY_LEN(dims); d++) {
        struct place p = new_place(dims[d], MN_METRIC_L2);
        const struct mn_codebook *codebook = open_book(&p.store, 0);
        for (size_t k = 0; k < MN_ARRAY_LEN(kernels); k++)
            if (mn_kernels_named(kernels[k]))
                expect_rotation(codebook, mn_kernels_named(kernels[k]));
        mn_codebook_close(codebook);
        remove_place(&p);
    }
}

/* Coordinates become alike: a row with all its length in one of them has it everywhere. */
static void rotation_spreads(void **state)
{
    (void)state;
    struct place p = new_place(768, MN_METRIC_L2);
    const struct mn_codebook *codebook = open_book(&p.store, 0);
    float *x = new_floats(768), *out = new_floats(768);
    for (uint32_t i = 0; i < 768; i += 97) {
        memset(x, 0, 768 * sizeof *x);
        x[i] = 1;
        mn_codebook_rotate(codebook, mn_kernels_best(), x, 1, out);
        float largest = 0;
        for (uint32_t d = 0; d < 768; d++)
            largest = fmaxf(largest, fabsf(out[d]));
        assert_true(largest < 0.5f); /* without a rotation it is 1, evenly spread 0.036 */
    }
    free(x);
    free(out);
    mn_codebook_close(codebook);
    remove_place(&p);
}

/* <x,q> = <x',Rq> + <mean,q> under inner product; |x - q| = |x' - q'| under L2. */
static void queries_meet_rows(void **state)
{
    (void)state;
    static const enum mn_metric metrics[] = {MN_METRIC_IP, MN_METRIC_L2, MN_METRIC_COSINE};
    for (size_t m = 0; m < MN_ARRAY_LEN(metrics); m++) {
        struct place p = new_place(40, metrics[m]);
        struct rows r = mixture(400, 40, 3);
        assert_ok(train(&p.store, 1, 32, &r, 1));
        const struct mn_codebook *codebook = open_book(&p.store, 1);
        float *x = new_floats(64), *q = new_floats(64);
        assert_true(codebook->mean[0] > 1 && codebook->mean[40] == 0);
        for (uint32_t i = 0; i + 1 < r.count; i++) {
            const float *row = r.at + i * 40, *query = row + 40;
            double product = 0, constant = 0;
            mn_codebook_rotate(codebook, mn_kernels_best(), row, 1, x);
            mn_codebook_rotate_query(codebook, mn_kernels_best(), query, 1, q);
            for (uint32_t d = 0; d < 40; d++) {
                product += (double)row[d] * (double)query[d];
                constant += (double)codebook->mean[d] * (double)query[d];
            }
            double want = metrics[m] == MN_METRIC_IP ? product - constant : distance2(row, query, 40), got = 0;
            for (uint32_t d = 0; d < 64; d++)
                got += (double)x[d] * (double)q[d];
            if (metrics[m] != MN_METRIC_IP)
                got = distance2(x, q, 64);
            assert_true(fabs(want - got) < 1e-3);
        }
        free(x);
        free(q);
        free(r.at);
        mn_codebook_close(codebook);
        remove_place(&p);
    }
}

/* ---- training ---- */

static void sizes_that_suit(void **state)
{
    (void)state;
    assert_int_equal(mn_codebook_clusters(0), 0);
    assert_int_equal(mn_codebook_clusters(MN_CODEBOOK_ROWS_MIN - 1), 0);
    assert_true(mn_codebook_clusters(MN_CODEBOOK_ROWS_MIN) >= 32);
    assert_true(mn_codebook_clusters(100000) >= 1024 && mn_codebook_clusters(100000) <= 1280);
    assert_true(mn_codebook_clusters(1000000) >= 3900 && mn_codebook_clusters(1000000) <= 4096);
    assert_int_equal(mn_codebook_clusters(UINT64_MAX), MN_CODEBOOK_CLUSTERS_MAX);
    uint32_t before = 0;
    for (uint64_t rows = MN_CODEBOOK_ROWS_MIN; rows < UINT64_C(1) << 40; rows += rows / 7) {
        uint32_t clusters = mn_codebook_clusters(rows);
        assert_true(clusters % 32 == 0 && clusters >= before && clusters <= rows / 16);
        assert_true(mn_codebook_sample_rows(clusters) >= 64 * (uint64_t)clusters);
        before = clusters;
    }
}

/* What any trained codebook must be. */
static void expect_sound(const struct mn_codebook *codebook)
{
    uint32_t width = codebook->width, clusters = codebook->clusters;
    assert_true(clusters >= 2 && codebook->supers >= 1);
    assert_int_equal(codebook->child[0], 0);
    assert_int_equal(codebook->child[codebook->supers], clusters);
    assert_true(codebook->energy >= 0 && isfinite(codebook->energy));
    const void *arrays[] = {codebook->mean,   codebook->signs,     codebook->super,   codebook->super_norms,
                            codebook->child,  codebook->centroids, codebook->norms,   codebook->blocks,
                            codebook->codes8, codebook->fine,      codebook->energies};
    for (size_t a = 0; a < MN_ARRAY_LEN(arrays); a++)
        assert_int_equal((uintptr_t)arrays[a] % 64, 0);
    for (size_t i = 0; i < (size_t)clusters * width; i++)
        assert_true(isfinite(codebook->centroids[i]));
    for (uint32_t c = 0; c < clusters; c++) {
        double norm2 = 0;
        for (uint32_t d = 0; d < width; d++)
            norm2 += (double)codebook->centroids[(size_t)c * width + d] * codebook->centroids[(size_t)c * width + d];
        norm2 = fmin(norm2, (double)FLT_MAX);
        assert_true(fabs(codebook->norms[c] - norm2) <= 1e-4 * norm2 + 1e-30);
        assert_true(codebook->energies[c] >= 0 && isfinite(codebook->energies[c]));
    }
}

/* The centroids' codes are what coding them gives, and lanes beyond the last are far. */
static void expect_codes(const struct mn_codebook *codebook)
{
    uint32_t width = codebook->width, bytes = mn_ivf_block_bytes(width);
    uint8_t *block = aligned_alloc(64, mn_round_up(bytes, 64)), *codes8 = aligned_alloc(64, width);
    for (uint32_t first = 0; first < codebook->clusters; first += MN_IVF_LANES) {
        const uint8_t *stored = codebook->blocks + (size_t)(first / MN_IVF_LANES) * bytes;
        mn_ivf_clear_block(block, width);
        for (uint32_t lane = 0; lane < MN_IVF_LANES && first + lane < codebook->clusters; lane++) {
            struct mn_ivf_fine fine;
            uint32_t c = first + lane;
            mn_ivf_encode(mn_kernels_named("portable"), codebook->metric, width,
                          codebook->centroids + (size_t)c * width, NULL, block, lane, codes8, &fine);
            assert_memory_equal(codes8, codebook->codes8 + (size_t)c * width, width);
            assert_memory_equal(&fine, &codebook->fine[c], sizeof fine);
        }
        assert_memory_equal(block, stored, bytes);
    }
    assert_true(codebook->clusters % MN_IVF_LANES != 0); /* the test means to have lanes without a centroid */
    free(block);
    free(codes8);
}

static void comes_back_from_its_file(void **state)
{
    (void)state;
    struct place p = new_place(40, MN_METRIC_L2);
    struct rows r = mixture(3000, 40, 5);
    char path[MN_PATH_MAX];
    struct stat st;
    assert_ok(train(&p.store, 7, 50, &r, 1));
    assert_int_equal(r.calls, r.count);
    const struct mn_codebook *codebook = open_book(&p.store, 7), *again = open_book(&p.store, 7), *plain;
    assert_ptr_equal(codebook, again);
    assert_int_equal(codebook->gen, 7);
    assert_int_equal(codebook->dim, 40);
    assert_int_equal(codebook->width, 64);
    assert_int_equal(codebook->metric, MN_METRIC_L2);
    assert_int_equal(codebook->clusters, 50);
    assert_int_equal(codebook->trained_rows, 12345);
    expect_sound(codebook);
    expect_codes(codebook);
    plain = open_book(&p.store, 0);
    assert_memory_equal(codebook->signs, plain->signs, MN_CODEBOOK_SIGNS(64) * sizeof(uint32_t));
    for (uint32_t d = 0; d < 40; d++) {
        double sum = 0;
        for (uint32_t i = 0; i < r.count; i++)
            sum += (double)r.at[i * 40 + d];
        assert_true(fabs(codebook->mean[d] - sum / r.count) < 1e-5);
    }
    mn_codebook_close(plain);
    mn_codebook_close(again);
    assert_int_equal(codebook->clusters, 50); /* still there for the other user */
    mn_codebook_close(codebook);
    snprintf(path, sizeof path, "%s/codebooks/7.col.tmp", p.dir);
    assert_int_equal(stat(path, &st), -1);
    assert_int_equal(mn_codebook_open(&codebook, &p.store, 8), MN_NOT_FOUND);
    assert_null(codebook);
    free(r.at);
    remove_place(&p);
}

static void same_seed_same_file(void **state)
{
    (void)state;
    struct place p = new_place(40, MN_METRIC_COSINE);
    struct rows r = mixture(2000, 40, 5);
    char path[MN_PATH_MAX];
    size_t bytes[3];
    uint8_t *file[3];
    for (uint32_t i = 0; i < 3; i++) { /* the later ones over what the earlier left */
        float *moved = new_floats((size_t)r.count * 40 + i);
        memcpy(moved + i, r.at, (size_t)r.count * 40 * sizeof *moved);
        struct rows copy = {.at = moved + i, .count = r.count, .dim = 40};
        assert_ok(train(&p.store, 3, 40, &copy, i < 2 ? 11 : 12));
        file[i] = slurp(mn_codebook_path(&p.store, path, 3), &bytes[i]);
        free(moved);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(file[0], file[1], bytes[0]);
    assert_int_equal(bytes[0], bytes[2]);
    assert_memory_not_equal(file[0], file[2], bytes[0]);
    for (uint32_t i = 0; i < 3; i++)
        free(file[i]);
    free(r.at);
    remove_place(&p);
}

/* Mean distance and largest size of a clustering; `plain` centroids or the codebook's. */
static double energy_of(const float *rows, uint32_t n, const float *centroids, uint32_t k, uint32_t width,
                        uint32_t *largest)
{
    uint32_t *sizes = calloc(k, sizeof *sizes), *nearest = calloc(n, sizeof *nearest);
    float *biases = calloc(k, sizeof *biases);
    struct mn_kmeans km = {.kernels = mn_kernels_best(), .width = width};
    double sum = 0;
    for (uint32_t c = 0; c < k; c++)
        biases[c] = km.kernels->dot(centroids + (size_t)c * width, centroids + (size_t)c * width, width);
    assert_ok(mn_kmeans_nearest(&km, rows, n, centroids, biases, k, nearest, NULL));
    for (uint32_t i = 0; i < n; i++) {
        sum += distance2(rows + (size_t)i * width, centroids + (size_t)nearest[i] * width, width);
        sizes[nearest[i]]++;
    }
    *largest = 0;
    for (uint32_t c = 0; c < k; c++)
        *largest = sizes[c] > *largest ? sizes[c] : *largest;
    free(sizes);
    free(nearest);
    free(biases);
    return sum / n;
}

/* Lloyd's algorithm over all rows and centroids: what two levels are measured against. */
static void lloyd(const float *rows, uint32_t n, float *centroids, uint32_t k, uint32_t width)
{
    uint32_t *nearest = calloc(n, sizeof *nearest), *sizes = calloc(k, sizeof *sizes);
    float *biases = calloc(k, sizeof *biases);
    struct mn_kmeans km = {.kernels = mn_kernels_best(), .width = width, .random = 4};
    struct mn_kmeans_round round = {centroids, sizes, k, NULL};
    for (uint32_t c = 0; c < k; c++)
        memcpy(centroids + (size_t)c * width, rows + (size_t)(c * (n / k)) * width, width * sizeof(float));
    for (uint32_t r = 0; r < 15; r++) {
        for (uint32_t c = 0; c < k; c++)
            biases[c] = km.kernels->dot(centroids + (size_t)c * width, centroids + (size_t)c * width, width);
        assert_ok(mn_kmeans_nearest(&km, rows, n, centroids, biases, k, nearest, NULL));
        assert_ok(mn_kmeans_update(&km, rows, nearest, n, &round, NULL));
        if (r < 14)
            assert_ok(mn_kmeans_reseed(&km, rows, nearest, n, &round));
    }
    free(nearest);
    free(sizes);
    free(biases);
}

static void as_good_as_plain_lloyd(void **state)
{
    (void)state;
    struct place p = new_place(96, MN_METRIC_L2);
    struct rows r = mixture(10000, 96, 8);
    assert_ok(train(&p.store, 1, 160, &r, 1));
    const struct mn_codebook *codebook = open_book(&p.store, 1);
    uint32_t width = codebook->width, largest, plain_largest;
    float *rows = rotated(codebook, &r), *plain = new_floats((size_t)160 * width);
    lloyd(rows, r.count, plain, 160, width);
    double energy = energy_of(rows, r.count, codebook->centroids, codebook->clusters, width, &largest);
    double wanted = energy_of(rows, r.count, plain, 160, width, &plain_largest);
    assert_true(energy < 1.03 * wanted);
    assert_true(largest <= MN_KMEANS_SKEW * r.count / codebook->clusters);
    assert_true(fabs(codebook->energy / energy - 1) < 0.02);
    double mean = 0;
    uint32_t *assigned = calloc(r.count, sizeof *assigned);
    mn_codebook_assign(codebook, mn_kernels_best(), rows, r.count, assigned, NULL);
    for (uint32_t i = 0; i < r.count; i++)
        mean += codebook->energies[assigned[i]] / r.count;
    assert_true(fabs(mean / energy - 1) < 0.05);
    free(assigned);
    free(rows);
    free(plain);
    free(r.at);
    mn_codebook_close(codebook);
    remove_place(&p);
}

/* ---- assignment ---- */

static void assigns_to_the_nearest(void **state)
{
    (void)state;
    struct place p = new_place(96, MN_METRIC_L2);
    struct rows r = mixture(12000, 96, 8);
    assert_ok(train(&p.store, 1, 320, &r, 1));
    const struct mn_codebook *codebook = open_book(&p.store, 1);
    assert_true(codebook->supers > 8); /* so that the children of some are not looked at */
    uint32_t width = codebook->width, right = 0;
    float *rows = rotated(codebook, &r), *distances = calloc(r.count, sizeof *distances);
    uint32_t *out = calloc(r.count, sizeof *out);
    double got = 0, best = 0;
    mn_codebook_assign(codebook, mn_kernels_best(), rows, r.count, out, distances);
    for (uint32_t i = 0; i < r.count; i++) {
        const float *x = rows + (size_t)i * width;
        double least = INFINITY, mine;
        for (uint32_t c = 0; c < codebook->clusters; c++)
            least = fmin(least, distance2(x, codebook->centroids + (size_t)c * width, width));
        assert_true(out[i] < codebook->clusters);
        mine = distance2(x, codebook->centroids + (size_t)out[i] * width, width);
        assert_true(fabs(mine - distances[i]) < 1e-3);
        right += mine <= least + 1e-4;
        got += mine;
        best += least;
    }
    assert_true(right > r.count / 100 * 97);
    assert_true(got < 1.005 * best);
    /* However rows are parted into calls, and whatever the kernels: the same but for near ties. */
    static const uint32_t parts[] = {1, 7, 255, 256, 257, 1000};
    static const char *const names[] = {"avx512", "avx2", "portable"};
    for (size_t c = 0; c < MN_ARRAY_LEN(parts) * MN_ARRAY_LEN(names); c++) {
        const struct mn_kernels *kernels = mn_kernels_named(names[c / MN_ARRAY_LEN(parts)]);
        uint32_t part = parts[c % MN_ARRAY_LEN(parts)], one[1000];
        float d2[1000];
        for (uint32_t at = 0; kernels && at < 2000; at += part) {
            mn_codebook_assign(codebook, kernels, rows + (size_t)at * width, part, one, d2);
            for (uint32_t i = 0; i < part; i++)
                assert_true(one[i] == out[at + i] || fabsf(d2[i] - distances[at + i]) < 1e-3f);
        }
    }
    mn_codebook_assign(codebook, mn_kernels_best(), rows, 0, NULL, NULL);
    free(rows);
    free(distances);
    free(out);
    free(r.at);
    mn_codebook_close(codebook);
    remove_place(&p);
}

/* Rows too wide to be gathered, few super-centroids, all of them looked at. */
static void assigns_wide_rows(void **state)
{
    (void)state;
    enum { DIM = 40000, N = 70 };
    struct place p = new_place(DIM, MN_METRIC_L2);
    struct rows r = mixture(N, DIM, 2);
    assert_ok(train(&p.store, 1, 24, &r, 1));
    const struct mn_codebook *codebook = open_book(&p.store, 1);
    float *rows = rotated(codebook, &r), distances[N];
    uint32_t out[N];
    mn_codebook_assign(codebook, mn_kernels_best(), rows, N, out, distances);
    for (uint32_t i = 0; i < N; i++) {
        double least = INFINITY;
        for (uint32_t c = 0; c < codebook->clusters; c++)
            least = fmin(least, distance2(rows + (size_t)i * codebook->width,
                                          codebook->centroids + (size_t)c * codebook->width, codebook->width));
        assert_true(fabs(distances[i] - least) < 1e-5 * DIM);
    }
    free(rows);
    free(r.at);
    mn_codebook_close(codebook);
    remove_place(&p);
}

/* ---- odd samples ---- */

static uint64_t next_gen = 100;

/* Trains, opens, checks, assigns the rows themselves. Returns the number of clusters. */
static uint32_t expect_trained(struct place *p, struct rows *r, uint32_t clusters, const char *what)
{
    uint64_t gen = next_gen++;
    if (train(&p->store, gen, clusters, r, 1) != MN_OK)
        fail_msg("%s: %s", what, mn_error_trail());
    const struct mn_codebook *codebook = open_book(&p->store, gen);
    expect_sound(codebook);
    float *rows = rotated(codebook, r), *distances = calloc(r->count, sizeof *distances);
    uint32_t *out = calloc(r->count, sizeof *out), found = codebook->clusters;
    mn_codebook_assign(codebook, mn_kernels_best(), rows, r->count, out, distances);
    for (uint32_t i = 0; i < r->count; i++)
        if (out[i] >= codebook->clusters || !(distances[i] >= 0))
            fail_msg("%s: row %u is in cluster %u at %g", what, i, out[i], (double)distances[i]);
    free(rows);
    free(distances);
    free(out);
    mn_codebook_close(codebook);
    return found;
}

static void odd_samples(void **state)
{
    (void)state;
    enum { DIM = 20, N = 600 };
    struct place p = new_place(DIM, MN_METRIC_L2);
    struct rows r = mixture(N, DIM, 4), zeros = {.at = new_floats(N * DIM), .count = N, .dim = DIM};
    struct rows one = {.at = r.at, .count = 1, .dim = DIM}, few = {.at = r.at, .count = 9, .dim = DIM};
    assert_int_equal(expect_trained(&p, &one, 32, "one row"), 2);
    assert_int_equal(expect_trained(&p, &few, 32, "fewer rows than clusters"), 9);
    assert_int_equal(expect_trained(&p, &few, 1, "one cluster"), 2);
    assert_int_equal(expect_trained(&p, &few, 2, "two clusters"), 2);
    assert_int_equal(expect_trained(&p, &zeros, 32, "zeros"), 2);
    for (uint32_t i = 0; i < N * DIM; i++)
        zeros.at[i] = 0.3f;
    assert_int_equal(expect_trained(&p, &zeros, 32, "all the same"), 2);
    for (uint32_t i = 0; i < N; i += 2)
        zeros.at[i * DIM] = -0.3f;
    assert_true(expect_trained(&p, &zeros, 32, "two different ones") <= 4);
    for (uint32_t i = 0; i < N; i++) /* nine in ten are the same */
        if (i % 10)
            memcpy(r.at + (size_t)i * DIM, r.at, DIM * sizeof *r.at);
    assert_true(expect_trained(&p, &r, 32, "duplicates") > 16);
    free(r.at);
    free(zeros.at);
    remove_place(&p);
}

/* What mn_kmeans sees is brought to a common unit: huge and tiny rows are clustered as well as others. */
static void huge_and_tiny_rows(void **state)
{
    (void)state;
    static const float units[] = {0x1p60f, 0x1p-60f};
    struct place p = new_place(64, MN_METRIC_IP);
    struct rows r = mixture(3000, 64, 4);
    assert_ok(train(&p.store, 1, 40, &r, 1));
    const struct mn_codebook *codebook = open_book(&p.store, 1);
    for (size_t u = 0; u < MN_ARRAY_LEN(units); u++) {
        struct rows scaled = {.at = new_floats((size_t)r.count * 64), .count = r.count, .dim = 64};
        for (size_t i = 0; i < (size_t)r.count * 64; i++)
            scaled.at[i] = r.at[i] * units[u];
        assert_ok(train(&p.store, 2 + u, 40, &scaled, 1));
        const struct mn_codebook *other = open_book(&p.store, 2 + u);
        expect_sound(other);
        for (size_t i = 0; i < (size_t)40 * 64; i++)
            assert_true(other->centroids[i] == codebook->centroids[i] * units[u]);
        mn_codebook_close(other);
        free(scaled.at);
    }
    /* As long as admission lets rows be. */
    for (size_t i = 0; i < (size_t)r.count * 64; i++)
        r.at[i] *= 5e17f;
    expect_trained(&p, &r, 40, "the longest rows");
    free(r.at);
    mn_codebook_close(codebook);
    remove_place(&p);
}

static void unreadable_rows(void **state)
{
    (void)state;
    enum { DIM = 20, N = 600 };
    struct place p = new_place(DIM, MN_METRIC_L2);
    struct rows r = mixture(N, DIM, 4);
    const struct mn_codebook *codebook;
    r.skip = 3;
    r.at[7 * DIM + 3] = NAN; /* damage that no checksum has seen */
    r.at[8 * DIM + 3] = INFINITY;
    assert_ok(train(&p.store, 1, 32, &r, 1));
    codebook = open_book(&p.store, 1);
    expect_sound(codebook);
    mn_codebook_close(codebook);
    r.skip = 1;
    assert_int_equal(train(&p.store, 2, 32, &r, 1), MN_NOT_FOUND);
    r.count = 0;
    assert_int_equal(train(&p.store, 2, 32, &r, 1), MN_NOT_FOUND);
    assert_int_equal(mn_codebook_open(&codebook, &p.store, 2), MN_NOT_FOUND);
    free(r.at);
    remove_place(&p);
}

/* A sample that would take more memory than it may is thinned out, evenly. */
struct endless {
    uint64_t calls, last, gap;
};

static bool give_any(void *context, uint64_t i, float *out)
{
    struct endless *e = context;
    uint64_t gap = e->calls ? i - e->last : 0, seed = i;
    e->gap = gap > e->gap ? gap : e->gap;
    e->last = i;
    e->calls++;
    memset(out, 0, MN_DIM_MAX * sizeof *out);
    out[i % MN_DIM_MAX] = uniform(&seed);
    return true;
}

static bool stop_at_once(void *context)
{
    const struct endless *e = context;
    return e->calls == MN_CODEBOOK_SAMPLE_BYTES / (MN_DIM_MAX * sizeof(float));
}

static void large_samples_are_thinned(void **state)
{
    (void)state;
    struct place p = new_place(MN_DIM_MAX, MN_METRIC_L2);
    struct endless e = {0, 0, 0};
    struct mn_codebook_sample sample = {.rows = 1000000, .row = give_any, .context = &e};
    uint64_t most = MN_CODEBOOK_SAMPLE_BYTES / (MN_DIM_MAX * sizeof(float));
    assert_int_equal(mn_codebook_train(&p.store, 1, 32, 1, &sample, 1, stop_at_once, &e), MN_DEADLINE);
    assert_int_equal(e.calls, most);
    assert_true(e.last >= 1000000 - 1000000 / most - 1);
    assert_true(e.gap <= 1000000 / most + 1);
    remove_place(&p);
}

/* ---- stopping, disks ---- */

struct pauses {
    uint32_t calls, stop_at;
};

static bool pause_counted(void *context)
{
    struct pauses *p = context;
    return ++p->calls == p->stop_at;
}

static void stops_when_told(void **state)
{
    (void)state;
    struct place p = new_place(96, MN_METRIC_L2);
    struct rows r = mixture(3000, 96, 5);
    struct pauses pauses = {0, 0};
    const struct mn_codebook *codebook;
    struct mn_codebook_sample sample = sample_of(&r);
    assert_ok(mn_codebook_train(&p.store, 1, 64, 1, &sample, 1, pause_counted, &pauses));
    uint32_t all = pauses.calls;
    assert_true(all > 20);
    for (uint32_t stop = 1; stop <= all; stop++) {
        pauses = (struct pauses){0, stop};
        sample = sample_of(&r);
        assert_int_equal(mn_codebook_train(&p.store, 2, 64, 1, &sample, 1, pause_counted, &pauses), MN_DEADLINE);
        assert_int_equal(pauses.calls, stop);
        assert_int_equal(mn_codebook_open(&codebook, &p.store, 2), MN_NOT_FOUND);
    }
    free(r.at);
    remove_place(&p);
}

static void folder_is_made(void **state)
{
    (void)state;
    struct place p = new_place(20, MN_METRIC_L2);
    struct rows r = mixture(300, 20, 5);
    char path[MN_PATH_MAX];
    struct stat st;
    mn_store_path(&p.store, path, "codebooks");
    assert_int_equal(stat(path, &st), 0); /* by mn_store_create */
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(rmdir(path), 0);
    assert_ok(train(&p.store, 1, 16, &r, 1));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    mn_codebook_close(open_book(&p.store, 1));
    free(r.at);
    remove_place(&p);
}

/* The disk fails at one change, whichever: an error, and the next attempt is not hindered. */
static void disk_fails_once(void **state)
{
    (void)state;
    struct rows r = mixture(300, 20, 5);
    struct place p = new_place(20, MN_METRIC_L2);
    struct mn_io io = fail_once_io();
    struct mn_store failing = p.store;
    char folder[MN_PATH_MAX];
    uint32_t failures = 0;
    bool failed = true;
    mn_store_path(&p.store, folder, "codebooks");
    failing.io = &io;
    for (uint32_t at = 1; failed; at++) {
        assert_ok(mn_io_remove_tree(&mn_io_posix, folder)); /* it is made again: a change as well */
        fail_once = (struct fail_once){.calls = 0, .fail_at = at, .status = MN_READ_ONLY};
        enum mn_status status = train(&failing, 1, 16, &r, 1);
        failed = fail_once.calls >= at;
        failures += failed;
        assert_int_equal(status, failed ? MN_READ_ONLY : MN_OK);
        fail_once.fail_at = 0;
        assert_ok(train(&p.store, 1, 16, &r, 1));
        mn_codebook_close(open_book(&p.store, 1));
    }
    assert_true(failures >= 8); /* mkdir, sync, four writes, sync, rename, sync */
    free(r.at);
    remove_place(&p);
}

/* ---- damage ---- */

static void put_file(const char *path, const uint8_t *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

/* Opens as a process would for which it is the first time. */
static void expect_corrupt(const struct mn_store *store, const char *path, const char *what, size_t at)
{
    const struct mn_codebook *codebook;
    enum mn_status status = mn_codebook_open(&codebook, store, 1);
    if (status != MN_CORRUPT)
        fail_msg("%s %zu: %s", what, at, mn_status_word(status));
    assert_null(codebook);
    assert_non_null(strstr(mn_error_text(), path));
}

static void damage_is_seen(void **state)
{
    (void)state;
    struct place p = new_place(20, MN_METRIC_L2);
    struct rows r = mixture(300, 20, 5);
    char path[MN_PATH_MAX];
    size_t bytes;
    assert_ok(train(&p.store, 1, 16, &r, 1));
    uint8_t *file = slurp(mn_codebook_path(&p.store, path, 1), &bytes);
    for (size_t at = 0; at < bytes; at += at < 1024 ? 1 : 61) {
        file[at] ^= (uint8_t)(1u << at % 8);
        put_file(path, file, bytes);
        expect_corrupt(&p.store, path, "flipped at", at);
        file[at] ^= (uint8_t)(1u << at % 8);
    }
    for (size_t cut = 0; cut < bytes; cut += cut < 512 ? 1 : 97) {
        put_file(path, file, cut);
        expect_corrupt(&p.store, path, "cut to", cut);
    }
    put_file(path, file, bytes);
    mn_codebook_close(open_book(&p.store, 1)); /* nothing of it sticks */
    char other[MN_PATH_MAX];
    put_file(mn_codebook_path(&p.store, other, 2), file, bytes);
    const struct mn_codebook *codebook;
    assert_int_equal(mn_codebook_open(&codebook, &p.store, 2), MN_CORRUPT); /* misplaced */
    assert_non_null(strstr(mn_error_text(), other));
    free(file);
    free(r.at);
    remove_place(&p);
}

/* Sound checksums around a body that lies. */
static void lies_are_seen(void **state)
{
    (void)state;
    struct place p = new_place(20, MN_METRIC_L2);
    struct rows r = mixture(300, 20, 5);
    char path[MN_PATH_MAX];
    size_t bytes;
    assert_ok(train(&p.store, 1, 16, &r, 1));
    uint8_t *file = slurp(mn_codebook_path(&p.store, path, 1), &bytes);
    const struct mn_column_header *header = (const void *)file;
    uint64_t length = header->data_bytes, rows = header->rows;
    uint8_t *data = malloc(length);
    const struct mn_codebook_body *body = (const void *)(file + sizeof *header);
    uint64_t child_at = body->child_at;
    for (uint64_t at = 0; at < sizeof *body + 8; at += 4) {
        if (at == offsetof(struct mn_codebook_body, trained_rows) ||
            at == offsetof(struct mn_codebook_body, trained_rows) + 4)
            continue; /* any number is as good as another there: its two halves */
        uint64_t lie = at < sizeof *body ? at : child_at + (at - sizeof *body);
        memcpy(data, file + sizeof *header, length);
        data[lie + 3] ^= 0x80; /* a sign, or far too much */
        struct mn_column_sink sink;
        unlink(path);
        assert_ok(mn_column_sink_open(&sink, &p.store, 1, MN_COLUMN_CODEBOOK, path));
        assert_ok(mn_column_sink_append(&sink, data, length));
        assert_ok(mn_column_sink_end(&sink, rows, 0));
        mn_column_sink_close(&sink);
        expect_corrupt(&p.store, path, "a lie at", lie);
    }
    for (uint64_t shorter = 0; shorter < 256; shorter += 64) {
        struct mn_column_sink sink;
        unlink(path);
        assert_ok(mn_column_sink_open(&sink, &p.store, 1, MN_COLUMN_CODEBOOK, path));
        assert_ok(mn_column_sink_append(&sink, file + sizeof *header, shorter));
        assert_ok(mn_column_sink_end(&sink, rows, 0));
        mn_column_sink_close(&sink);
        expect_corrupt(&p.store, path, "shortened to", shorter);
    }
    free(data);
    free(file);
    free(r.at);
    remove_place(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_follows_from_the_uuid),
        cmocka_unit_test(rotation_keeps_distances),
        cmocka_unit_test(rotation_spreads),
        cmocka_unit_test(queries_meet_rows),
        cmocka_unit_test(sizes_that_suit),
        cmocka_unit_test(comes_back_from_its_file),
        cmocka_unit_test(same_seed_same_file),
        cmocka_unit_test(as_good_as_plain_lloyd),
        cmocka_unit_test(assigns_to_the_nearest),
        cmocka_unit_test(assigns_wide_rows),
        cmocka_unit_test(odd_samples),
        cmocka_unit_test(huge_and_tiny_rows),
        cmocka_unit_test(unreadable_rows),
        cmocka_unit_test(large_samples_are_thinned),
        cmocka_unit_test(stops_when_told),
        cmocka_unit_test(folder_is_made),
        cmocka_unit_test(disk_fails_once),
        cmocka_unit_test(damage_is_seen),
        cmocka_unit_test(lies_are_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
