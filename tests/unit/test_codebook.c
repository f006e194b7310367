/*
 * test_codebook.c - engine/codebook*: a codebook follows from its sample, comes back from its file as it was written,
 * keeps distances, finds the nearest centroid nearly always.
 */
#include "tests/unit/codebook_rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static double distance2(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum;
}

/* ---- the plain one ---- */

static void plain_follows_from_the_uuid(void **state)
{
    (void)state;
    struct book_place a = book_place(100, MN_METRIC_L2), b = book_place(100, MN_METRIC_L2);
    const struct mn_codebook *one = book_open(&a.store, 0), *again = book_open(&a.store, 0);
    const struct mn_codebook *other = book_open(&b.store, 0);
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
    other = book_open(&b.store, 0);
    assert_memory_equal(other->signs, signs, bytes);
    mn_codebook_close(other);
    free(signs);
    mn_codebook_close(NULL);
    book_place_remove(&a);
    book_place_remove(&b);
}

/* ---- rotation ---- */

static void expect_rotation(const struct mn_codebook *codebook, const struct mn_kernels *kernels)
{
    enum { N = 8 };
    uint32_t dim = codebook->dim, width = codebook->width;
    uint64_t seed = dim;
    float *rows = book_floats(N * dim), *out = book_floats(N * width), *same = book_floats(width);
    for (uint32_t i = 0; i < N * dim; i++)
        rows[i] = book_uniform(&seed);
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
        struct book_place p = book_place(dims[d], MN_METRIC_L2);
        const struct mn_codebook *codebook = book_open(&p.store, 0);
        for (size_t k = 0; k < MN_ARRAY_LEN(kernels); k++)
            if (mn_kernels_named(kernels[k]))
                expect_rotation(codebook, mn_kernels_named(kernels[k]));
        mn_codebook_close(codebook);
        book_place_remove(&p);
    }
}

/* Coordinates become alike: a row with all its length in one of them has it everywhere. */
static void rotation_spreads(void **state)
{
    (void)state;
    struct book_place p = book_place(768, MN_METRIC_L2);
    const struct mn_codebook *codebook = book_open(&p.store, 0);
    float *x = book_floats(768), *out = book_floats(768);
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
    book_place_remove(&p);
}

/* <x,q> = <x',Rq> + <mean,q> under inner product; |x - q| = |x' - q'| under L2. */
static void queries_meet_rows(void **state)
{
    (void)state;
    static const enum mn_metric metrics[] = {MN_METRIC_IP, MN_METRIC_L2, MN_METRIC_COSINE};
    for (size_t m = 0; m < MN_ARRAY_LEN(metrics); m++) {
        struct book_place p = book_place(40, metrics[m]);
        struct book_rows r = book_mixture(400, 40, 3);
        ok(book_train(&p.store, 1, 32, &r, 1));
        const struct mn_codebook *codebook = book_open(&p.store, 1);
        float *x = book_floats(64), *q = book_floats(64);
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
        book_place_remove(&p);
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
    struct book_place p = book_place(40, MN_METRIC_L2);
    struct book_rows r = book_mixture(3000, 40, 5);
    char path[MN_PATH_MAX];
    struct stat st;
    ok(book_train(&p.store, 7, 50, &r, 1));
    assert_int_equal(r.calls, r.count);
    const struct mn_codebook *codebook = book_open(&p.store, 7), *again = book_open(&p.store, 7), *plain;
    assert_ptr_equal(codebook, again);
    assert_int_equal(codebook->gen, 7);
    assert_int_equal(codebook->dim, 40);
    assert_int_equal(codebook->width, 64);
    assert_int_equal(codebook->metric, MN_METRIC_L2);
    assert_int_equal(codebook->clusters, 50);
    assert_int_equal(codebook->trained_rows, 12345);
    book_expect_sound(codebook);
    expect_codes(codebook);
    plain = book_open(&p.store, 0);
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
    book_place_remove(&p);
}

static void same_seed_same_file(void **state)
{
    (void)state;
    struct book_place p = book_place(40, MN_METRIC_COSINE);
    struct book_rows r = book_mixture(2000, 40, 5);
    char path[MN_PATH_MAX];
    size_t bytes[3];
    uint8_t *file[3];
    for (uint32_t i = 0; i < 3; i++) { /* the later ones over what the earlier left */
        float *moved = book_floats((size_t)r.count * 40 + i);
        memcpy(moved + i, r.at, (size_t)r.count * 40 * sizeof *moved);
        struct book_rows copy = {.at = moved + i, .count = r.count, .dim = 40};
        ok(book_train(&p.store, 3, 40, &copy, i < 2 ? 11 : 12));
        file[i] = book_slurp(mn_codebook_path(&p.store, path, 3), &bytes[i]);
        free(moved);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(file[0], file[1], bytes[0]);
    assert_int_equal(bytes[0], bytes[2]);
    assert_memory_not_equal(file[0], file[2], bytes[0]);
    for (uint32_t i = 0; i < 3; i++)
        free(file[i]);
    free(r.at);
    book_place_remove(&p);
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
    ok(mn_kmeans_nearest(&km, rows, n, centroids, biases, k, nearest, NULL));
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
        ok(mn_kmeans_nearest(&km, rows, n, centroids, biases, k, nearest, NULL));
        ok(mn_kmeans_update(&km, rows, nearest, n, &round, NULL));
        if (r < 14)
            ok(mn_kmeans_reseed(&km, rows, nearest, n, &round));
    }
    free(nearest);
    free(sizes);
    free(biases);
}

static void as_good_as_plain_lloyd(void **state)
{
    (void)state;
    struct book_place p = book_place(96, MN_METRIC_L2);
    struct book_rows r = book_mixture(10000, 96, 8);
    ok(book_train(&p.store, 1, 160, &r, 1));
    const struct mn_codebook *codebook = book_open(&p.store, 1);
    uint32_t width = codebook->width, largest, plain_largest;
    float *rows = book_rotated(codebook, &r), *plain = book_floats((size_t)160 * width);
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
    book_place_remove(&p);
}

/* ---- assignment ---- */

static void assigns_to_the_nearest(void **state)
{
    (void)state;
    struct book_place p = book_place(96, MN_METRIC_L2);
    struct book_rows r = book_mixture(12000, 96, 8);
    ok(book_train(&p.store, 1, 320, &r, 1));
    const struct mn_codebook *codebook = book_open(&p.store, 1);
    assert_true(codebook->supers > 8); /* so that the children of some are not looked at */
    uint32_t width = codebook->width, right = 0;
    float *rows = book_rotated(codebook, &r), *distances = calloc(r.count, sizeof *distances);
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
    book_place_remove(&p);
}

/* Rows too wide to be gathered, few super-centroids, all of them looked at. */
static void assigns_wide_rows(void **state)
{
    (void)state;
    enum { DIM = 40000, N = 70 };
    struct book_place p = book_place(DIM, MN_METRIC_L2);
    struct book_rows r = book_mixture(N, DIM, 2);
    ok(book_train(&p.store, 1, 24, &r, 1));
    const struct mn_codebook *codebook = book_open(&p.store, 1);
    float *rows = book_rotated(codebook, &r), distances[N];
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
    book_place_remove(&p);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
