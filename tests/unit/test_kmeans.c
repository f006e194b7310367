/*
 * test_kmeans.c - engine/kmeans: the nearest is the nearest, clusters are found and of a size, and no input is too odd.
 */
#include "engine/kmeans.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define WIDTH 64u

static const char *const kernel_names[] = {"avx512", "avx2", "portable"};

struct pauses {
    uint32_t calls, stop_at; /* 0: never */
};

static bool pause_counted(void *context)
{
    struct pauses *p = context;
    return ++p->calls == p->stop_at;
}

static struct mn_kmeans new_kmeans(uint64_t seed)
{
    return (struct mn_kmeans){.kernels = mn_kernels_best(), .width = WIDTH, .random = seed};
}

static float uniform(uint64_t *state)
{
    return (float)(int32_t)(uint32_t)mn_kmeans_random(state) * 0x1p-31f;
}

static float *new_rows(uint32_t n)
{
    float *rows = aligned_alloc(64, mn_round_up((n ? n : 1) * WIDTH * sizeof(float), 64));
    assert_non_null(rows);
    memset(rows, 0, n * WIDTH * sizeof(float));
    return rows;
}

static float *random_rows(uint32_t n, uint64_t seed)
{
    float *rows = new_rows(n);
    for (uint32_t i = 0; i < n * WIDTH; i++)
        rows[i] = uniform(&seed);
    return rows;
}

/* Rows around `blobs` centres that are far from each other; blob b has b + 1 shares of them. */
static float *blob_rows(uint32_t n, uint32_t blobs, uint64_t seed, uint32_t *blob_of)
{
    float *rows = random_rows(n, seed);
    float *centres = random_rows(blobs, seed + 1);
    uint32_t shares = blobs * (blobs + 1) / 2;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t share = (uint32_t)(mn_kmeans_random(&seed) % shares), b = 0;
        for (uint32_t left = share; left > b; b++)
            left -= b + 1;
        blob_of[i] = b;
        for (uint32_t d = 0; d < WIDTH; d++)
            rows[i * WIDTH + d] = 20 * centres[b * WIDTH + d] + rows[i * WIDTH + d];
    }
    free(centres);
    return rows;
}

static double distance2(const float *a, const float *b)
{
    double sum = 0;
    for (uint32_t d = 0; d < WIDTH; d++)
        sum += ((double)a[d] - (double)b[d]) * ((double)a[d] - (double)b[d]);
    return sum;
}

static double energy_of(const float *rows, uint32_t n, const float *centroids, uint32_t k)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        double least = INFINITY;
        for (uint32_t j = 0; j < k; j++)
            least = fmin(least, distance2(rows + i * WIDTH, centroids + j * WIDTH));
        sum += least;
    }
    return sum / n;
}

/* ---- nearest ---- */

static void least_is_the_first_of_the_least(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (uint32_t round = 0; round < 2000; round++) {
        float products[70], biases[70], least = round % 3 ? INFINITY : -1.5f;
        uint32_t count = round % 71, nearest = 7, want = 7;
        float wanted = least;
        for (uint32_t j = 0; j < count; j++) {
            products[j] = (float)(mn_kmeans_random(&seed) % 4); /* many ties */
            biases[j] = (float)(mn_kmeans_random(&seed) % 4);
            if (mn_kmeans_random(&seed) % 16 == 0)
                products[j] = mn_kmeans_random(&seed) % 2 ? NAN : INFINITY;
            if (mn_kmeans_random(&seed) % 16 == 0)
                biases[j] = INFINITY;
            float sum = biases[j] - 2 * products[j];
            if (sum < wanted) {
                wanted = sum;
                want = 100 + j;
            }
        }
        mn_kmeans_least(products, biases, count, 100, &nearest, &least);
        assert_int_equal(nearest, want);
        assert_memory_equal(&least, &wanted, sizeof least);
    }
}

static void nearest_is_nearest(void **state)
{
    (void)state;
    static const uint32_t rows_of[] = {1, 31, 32, 33, 200}, ks[] = {1, 2, 3, 5, 63, 64, 65, 130};
    for (size_t kernel = 0; kernel < MN_ARRAY_LEN(kernel_names); kernel++) {
        struct mn_kmeans km = new_kmeans(1);
        km.kernels = mn_kernels_named(kernel_names[kernel]);
        for (size_t c = 0; km.kernels && c < MN_ARRAY_LEN(rows_of) * MN_ARRAY_LEN(ks); c++) {
            uint32_t n = rows_of[c / MN_ARRAY_LEN(ks)], k = ks[c % MN_ARRAY_LEN(ks)], nearest[200];
            float *rows = random_rows(n, c), *centroids = random_rows(k, c + 1000), biases[130], least[200];
            for (uint32_t j = 0; j < k; j++)
                biases[j] = km.kernels->dot(centroids + j * WIDTH, centroids + j * WIDTH, WIDTH);
            assert_int_equal(mn_kmeans_nearest(&km, rows, n, centroids, biases, k, nearest, least), MN_OK);
            for (uint32_t i = 0; i < n; i++) {
                double want = energy_of(rows + i * WIDTH, 1, centroids, k);
                double norm2 = (double)km.kernels->dot(rows + i * WIDTH, rows + i * WIDTH, WIDTH);
                assert_true(nearest[i] < k);
                assert_true(fabs((double)least[i] + norm2 - want) < 1e-4);
                assert_true(distance2(rows + i * WIDTH, centroids + nearest[i] * WIDTH) < want + 1e-4);
            }
            free(rows);
            free(centroids);
        }
    }
}

/* ---- clusters ---- */

static void blobs_are_found(void **state)
{
    (void)state;
    enum { N = 4000, BLOBS = 8, K = 32 };
    uint32_t *blob_of = calloc(N, sizeof *blob_of), *nearest = calloc(N, sizeof *nearest);
    float *rows = blob_rows(N, BLOBS, 5, blob_of), *centroids = new_rows(K);
    struct mn_kmeans km = new_kmeans(9);
    assert_int_equal(mn_kmeans_run(&km, rows, N, K, 10, centroids, nearest), MN_OK);
    uint32_t blob_at[K], sizes[K] = {0}, first_of_blob = 0;
    memset(blob_at, 0xff, sizeof blob_at);
    for (uint32_t i = 0; i < N; i++) {
        assert_true(nearest[i] < K);
        if (sizes[nearest[i]]++ == 0)
            blob_at[nearest[i]] = blob_of[i];
        assert_int_equal(blob_at[nearest[i]], blob_of[i]); /* no cluster has rows of two blobs */
    }
    for (uint32_t j = 0; j < K; j++) {
        assert_true(sizes[j] <= MN_KMEANS_SKEW * (N / K));
        first_of_blob += sizes[j] > 0;
    }
    assert_true(first_of_blob > K * 3 / 4);
    /* Rows are WIDTH uniform numbers from -1 to 1 around their blob. */
    assert_true(energy_of(rows, N, centroids, K) < WIDTH / 3.0);
    free(rows);
    free(centroids);
    free(blob_of);
    free(nearest);
}

/* Dearer where it is crowded: sizes are closer to each other than those of Lloyd's rounds alone. */
static void sizes_are_balanced(void **state)
{
    (void)state;
    enum { N = 8000, K = 16, ROUNDS = 20 };
    float *rows = random_rows(N, 17), *centroids = new_rows(K), *plain = new_rows(K), biases[K];
    uint32_t *nearest = calloc(N, sizeof *nearest), sizes[K];
    for (uint32_t i = 0; i < N; i++) { /* rows thin out along one line */
        uint64_t seed = i;
        float along = -logf(0.5f + 0.4999f * uniform(&seed));
        for (uint32_t d = 0; d < WIDTH; d++)
            rows[i * WIDTH + d] = 0.05f * rows[i * WIDTH + d] + along;
    }
    double worst[2] = {0, 0}, energy[2];
    struct mn_kmeans km = new_kmeans(9);
    struct mn_kmeans_round round = {plain, sizes, K, NULL};
    assert_int_equal(mn_kmeans_run(&km, rows, N, K, ROUNDS, centroids, nearest), MN_OK);
    energy[0] = energy_of(rows, N, centroids, K);
    memset(sizes, 0, sizeof sizes);
    for (uint32_t i = 0; i < N; i++)
        sizes[nearest[i]]++;
    for (uint32_t j = 0; j < K; j++)
        worst[0] = fmax(worst[0], sizes[j]);
    for (uint32_t j = 0; j < K; j++)
        memcpy(plain + j * WIDTH, rows + j * (N / K) * WIDTH, WIDTH * sizeof(float));
    for (uint32_t r = 0; r < ROUNDS; r++) {
        for (uint32_t j = 0; j < K; j++)
            biases[j] = km.kernels->dot(plain + j * WIDTH, plain + j * WIDTH, WIDTH);
        assert_int_equal(mn_kmeans_nearest(&km, rows, N, plain, biases, K, nearest, NULL), MN_OK);
        assert_int_equal(mn_kmeans_update(&km, rows, nearest, N, &round, NULL), MN_OK);
    }
    energy[1] = energy_of(rows, N, plain, K);
    for (uint32_t j = 0; j < K; j++)
        worst[1] = fmax(worst[1], sizes[j]);
    assert_true(worst[0] < worst[1]);
    assert_true(worst[0] < 2.0 * N / K);
    assert_true(energy[0] < 1.5 * energy[1]);
    free(rows);
    free(centroids);
    free(plain);
    free(nearest);
}

static void update_makes_means(void **state)
{
    (void)state;
    enum { N = 10, K = 3 };
    float *rows = random_rows(N, 4), *centroids = random_rows(K, 5), unused[WIDTH];
    uint32_t nearest[N] = {0, 2, 0, 2, 2, 0, 0, 0, 2, 0}, sizes[K];
    struct mn_kmeans km = new_kmeans(1);
    struct mn_kmeans_round round = {centroids, sizes, K, NULL};
    double spread = 0, want = 0;
    memcpy(unused, centroids + WIDTH, sizeof unused);
    assert_int_equal(mn_kmeans_update(&km, rows, nearest, N, &round, &spread), MN_OK);
    assert_int_equal(sizes[0], 6);
    assert_int_equal(sizes[1], 0);
    assert_int_equal(sizes[2], 4);
    assert_memory_equal(unused, centroids + WIDTH, sizeof unused); /* nobody's: stays */
    for (uint32_t d = 0; d < WIDTH; d++) {
        float zero = 0, two = 0;
        for (uint32_t i = 0; i < N; i++)
            *(nearest[i] == 0 ? &zero : &two) += rows[i * WIDTH + d];
        assert_true(fabsf(centroids[d] - zero / 6) < 1e-6f && fabsf(centroids[2 * WIDTH + d] - two / 4) < 1e-6f);
        want += 6.0 * (double)(zero / 6 * (zero / 6)) + 4.0 * (double)(two / 4 * (two / 4));
    }
    assert_true(fabs(spread - want) < 1e-3);
    free(rows);
    free(centroids);
}

/* A centroid without rows, and one with few beside a crowded one, take half of the largest cluster. */
static void reseeding_splits_the_largest(void **state)
{
    (void)state;
    enum { N = 100, K = 8 };
    float *rows = random_rows(N, 6), *centroids = new_rows(K);
    uint32_t nearest[N], sizes[K];
    for (uint32_t i = 0; i < N; i++)
        nearest[i] = i < 80 ? 5 : i < 81 ? 1 : 2 + i % 3;
    struct mn_kmeans km = new_kmeans(1);
    struct mn_kmeans_round round = {centroids, sizes, K, NULL};
    assert_int_equal(mn_kmeans_update(&km, rows, nearest, N, &round, NULL), MN_OK);
    float small[WIDTH], far[WIDTH];
    memcpy(small, centroids + WIDTH, sizeof small);
    memcpy(far, centroids + 2 * WIDTH, sizeof far);
    double gap = distance2(far, centroids + 5 * WIDTH);
    assert_int_equal(mn_kmeans_reseed(&km, rows, nearest, N, &round), MN_OK);
    static const uint32_t moved[] = {0, 6, 7};
    for (size_t m = 0; m < MN_ARRAY_LEN(moved); m++) {
        const float *c = centroids + moved[m] * WIDTH;
        assert_true(distance2(c, centroids + 5 * WIDTH) > 0);
        assert_true(distance2(c, centroids + 5 * WIDTH) < gap); /* beside the one that was split */
    }
    assert_memory_equal(far, centroids + 2 * WIDTH, sizeof far);
    assert_memory_equal(small, centroids + WIDTH, sizeof small); /* after three splits nothing is crowded */
    free(rows);
    free(centroids);
}

/* ---- the same again ---- */

static void same_seed_same_centroids(void **state)
{
    (void)state;
    enum { N = 1000, K = 20 };
    float *rows = random_rows(N, 8), *copy = new_rows(N + 1), *first = new_rows(K), *second = new_rows(K);
    uint32_t nearest[N], again[N];
    struct pauses pauses = {0, 0};
    memcpy(copy + WIDTH, rows, N * WIDTH * sizeof(float)); /* another address */
    struct mn_kmeans a = new_kmeans(77), b = new_kmeans(77), c = new_kmeans(78);
    b.pause = pause_counted;
    b.context = &pauses;
    assert_int_equal(mn_kmeans_run(&a, rows, N, K, 6, first, nearest), MN_OK);
    assert_int_equal(mn_kmeans_run(&b, copy + WIDTH, N, K, 6, second, again), MN_OK);
    assert_memory_equal(first, second, K * WIDTH * sizeof(float));
    assert_memory_equal(nearest, again, sizeof nearest);
    assert_int_equal(mn_kmeans_run(&c, rows, N, K, 6, second, again), MN_OK);
    assert_memory_not_equal(first, second, K * WIDTH * sizeof(float));
    free(rows);
    free(copy);
    free(first);
    free(second);
}

static void pauses_and_stops(void **state)
{
    (void)state;
    enum { N = 20000, K = 64, ROUNDS = 8 };
    float *rows = random_rows(N, 8), *centroids = new_rows(K);
    uint32_t *nearest = calloc(N, sizeof *nearest);
    struct pauses pauses = {0, 0};
    struct mn_kmeans km = new_kmeans(1);
    km.pause = pause_counted;
    km.context = &pauses;
    assert_int_equal(mn_kmeans_run(&km, rows, N, K, ROUNDS, centroids, nearest), MN_OK);
    assert_true(pauses.calls >= (uint64_t)N * K * WIDTH * ROUNDS / MN_KMEANS_BREATH);
    uint32_t all = pauses.calls;
    for (uint32_t stop = 1; stop <= all; stop++) {
        pauses = (struct pauses){0, stop};
        km.random = 1;
        km.work = 0;
        assert_int_equal(mn_kmeans_run(&km, rows, N, K, ROUNDS, centroids, nearest), MN_DEADLINE);
        assert_int_equal(pauses.calls, stop);
    }
    free(rows);
    free(centroids);
    free(nearest);
}

/* ---- odd rows ---- */

static void expect_sound(const float *rows, uint32_t n, uint32_t k, const char *what)
{
    float *centroids = new_rows(k);
    uint32_t *nearest = calloc(n, sizeof *nearest);
    struct mn_kmeans km = new_kmeans(3);
    if (mn_kmeans_run(&km, rows, n, k, 6, centroids, nearest) != MN_OK)
        fail_msg("%s: %s", what, mn_error_trail());
    for (uint32_t i = 0; i < n; i++)
        assert_true(nearest[i] < k);
    for (uint32_t i = 0; i < k * WIDTH; i++)
        if (!isfinite(centroids[i]))
            fail_msg("%s: a centroid is not finite", what);
    free(centroids);
    free(nearest);
}

static void odd_rows(void **state)
{
    (void)state;
    enum { N = 300 };
    float *rows = random_rows(N, 2), *zeros = new_rows(N);
    expect_sound(rows, 1, 1, "one row");
    expect_sound(rows, N, 1, "one cluster");
    expect_sound(rows, N, N, "a cluster a row");
    expect_sound(zeros, N, 8, "zeros");
    for (uint32_t i = 1; i < N; i++) /* nine in ten are the same */
        if (i % 10)
            memcpy(rows + i * WIDTH, rows, WIDTH * sizeof(float));
    expect_sound(rows, N, 32, "duplicates");
    for (uint32_t i = 0; i < N * WIDTH; i++)
        rows[i] *= 1e17f;
    expect_sound(rows, N, 32, "squares near the end of floats");
    for (uint32_t i = 0; i < N * WIDTH; i++)
        rows[i] *= 100;
    expect_sound(rows, N, 32, "squares beyond floats");
    free(rows);
    free(zeros);
}

/* Rows that differ get centroids of their own even when nearly all rows are the same. */
static void few_among_duplicates(void **state)
{
    (void)state;
    enum { N = 400, K = 8 };
    float *rows = new_rows(N), *few = random_rows(4, 12), *centroids = new_rows(K);
    uint32_t nearest[N];
    for (uint32_t i = 0; i < N; i++)
        memcpy(rows + i * WIDTH, few + (i % 100 < 3 ? i % 100 + 1 : 0) * WIDTH, WIDTH * sizeof(float));
    struct mn_kmeans km = new_kmeans(3);
    assert_int_equal(mn_kmeans_run(&km, rows, N, K, 10, centroids, nearest), MN_OK);
    assert_true(energy_of(rows, N, centroids, K) < 1e-6 * WIDTH);
    free(rows);
    free(few);
    free(centroids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(least_is_the_first_of_the_least),
        cmocka_unit_test(nearest_is_nearest),
        cmocka_unit_test(blobs_are_found),
        cmocka_unit_test(sizes_are_balanced),
        cmocka_unit_test(update_makes_means),
        cmocka_unit_test(reseeding_splits_the_largest),
        cmocka_unit_test(same_seed_same_centroids),
        cmocka_unit_test(pauses_and_stops),
        cmocka_unit_test(odd_rows),
        cmocka_unit_test(few_among_duplicates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
