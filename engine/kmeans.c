/*
 * kmeans.c - balanced k-means; see the header for what is special about it.
 */
#include "engine/kmeans.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

/* Rows and centroids of a tile: together they stay in a second-level cache of 512 KiB at 768 floats. */
#define TILE_ROWS      32u
#define TILE_CENTROIDS 64u

/* How much of the mean energy a cluster of twice the mean size is made dearer by in a round. */
#define PRICE_STEP 0.02f
/* How far the two halves of a split cluster are apart, of the distance to a row of it. */
#define SPLIT 0.1f
/* A row this near to the mean of its cluster, squared and of the row's length, differs from it by rounding. */
#define SAME 1e-8f

uint64_t mn_kmeans_random(uint64_t *state)
{
    /* Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014 */
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint32_t random_below(struct mn_kmeans *km, uint32_t n)
{
    return (uint32_t)((mn_kmeans_random(&km->random) >> 32) * n >> 32);
}

enum mn_status mn_kmeans_breathe(struct mn_kmeans *km, uint64_t multiplications)
{
    km->work += multiplications;
    if (km->work < MN_KMEANS_BREATH)
        return MN_OK;
    km->work = 0;
    if (km->pause && km->pause(km->context))
        return MN_FAIL(MN_DEADLINE, "the training of a codebook was told to stop");
    return MN_OK;
}

static inline const float *row_at(const struct mn_kmeans *km, const float *rows, uint32_t i)
{
    return rows + (size_t)i * km->width;
}

/* ---- nearest ---- */

/* Four candidates side by side: one in each lane, with its number. */
typedef float lanes __attribute__((vector_size(16)));
typedef int32_t numbers __attribute__((vector_size(16)));

static inline lanes load(const float *p)
{
    lanes v;
    memcpy(&v, p, sizeof v);
    return v;
}

void mn_kmeans_least(const float *products, const float *biases, uint32_t count, uint32_t first, uint32_t *nearest,
                     float *least)
{
    lanes best = {INFINITY, INFINITY, INFINITY, INFINITY};
    numbers at = {0, 0, 0, 0}, now = {0, 1, 2, 3};
    uint32_t j = 0;
    for (; count - j >= 4; j += 4) {
        lanes sum = load(biases + j) - 2 * load(products + j);
        numbers less = sum < best;
        best = (lanes)((less & (numbers)sum) | (~less & (numbers)best));
        at = (less & now) | (~less & at);
        now += 4;
    }
    for (uint32_t lane = 0; lane < 4; lane++) {
        uint32_t number = first + (uint32_t)at[lane];
        if (best[lane] < *least || (best[lane] == *least && number < *nearest)) {
            *least = best[lane];
            *nearest = number;
        }
    }
    for (; j < count; j++) {
        float sum = biases[j] - 2 * products[j];
        if (sum < *least) {
            *least = sum;
            *nearest = first + j;
        }
    }
}

static void nearest_of_tile(const struct mn_kmeans *km, const float *rows, uint32_t count, const float *centroids,
                            const float *biases, uint32_t k, uint32_t *nearest, float *out)
{
    float products[TILE_ROWS * TILE_CENTROIDS], least[TILE_ROWS];
    for (uint32_t i = 0; i < count; i++) {
        nearest[i] = 0;
        least[i] = INFINITY;
    }
    for (uint32_t first = 0; first < k; first += TILE_CENTROIDS) {
        uint32_t some = k - first < TILE_CENTROIDS ? k - first : TILE_CENTROIDS;
        km->kernels->products(rows, count, row_at(km, centroids, first), some, km->width, products, TILE_CENTROIDS);
        for (uint32_t i = 0; i < count; i++)
            mn_kmeans_least(products + i * TILE_CENTROIDS, biases + first, some, first, &nearest[i], &least[i]);
    }
    if (out)
        memcpy(out, least, count * sizeof *out);
}

enum mn_status mn_kmeans_nearest(struct mn_kmeans *km, const float *rows, uint32_t n, const float *centroids,
                                 const float *biases, uint32_t k, uint32_t *nearest, float *least)
{
    for (uint32_t first = 0; first < n; first += TILE_ROWS) {
        uint32_t count = n - first < TILE_ROWS ? n - first : TILE_ROWS;
        nearest_of_tile(km, row_at(km, rows, first), count, centroids, biases, k, nearest + first,
                        least ? least + first : NULL);
        MN_TRY(mn_kmeans_breathe(km, (uint64_t)count * k * km->width));
    }
    return MN_OK;
}

/* ---- rounds ---- */

/* Going through a row in memory takes about as long as so many multiplications of each of its floats. */
#define PASS 16

enum mn_status mn_kmeans_sum(struct mn_kmeans *km, const float *rows, const uint32_t *nearest, uint32_t n,
                             struct mn_kmeans_round *round)
{
    uint32_t width = km->width;
    for (uint32_t i = 0; i < n; i++) {
        float *sum = round->centroids + (size_t)nearest[i] * width;
        const float *x = row_at(km, rows, i);
        if (round->sizes[nearest[i]]++ == 0)
            memset(sum, 0, width * sizeof *sum);
        for (uint32_t d = 0; d < width; d++)
            sum[d] += x[d];
        MN_TRY(mn_kmeans_breathe(km, (uint64_t)PASS * width));
    }
    return MN_OK;
}

double mn_kmeans_divide(const struct mn_kmeans *km, struct mn_kmeans_round *round)
{
    double spread = 0;
    for (uint32_t j = 0; j < round->k; j++) {
        float *mean = round->centroids + (size_t)j * km->width, share = 1 / (float)round->sizes[j];
        for (uint32_t d = 0; d < km->width && round->sizes[j] > 0; d++)
            mean[d] *= share;
        spread += round->sizes[j] * (double)km->kernels->dot(mean, mean, km->width);
    }
    return spread;
}

enum mn_status mn_kmeans_update(struct mn_kmeans *km, const float *rows, const uint32_t *nearest, uint32_t n,
                                struct mn_kmeans_round *round, double *spread)
{
    memset(round->sizes, 0, round->k * sizeof *round->sizes);
    MN_TRY(mn_kmeans_sum(km, rows, nearest, n, round));
    double sum = mn_kmeans_divide(km, round);
    if (spread)
        *spread = sum;
    return MN_OK;
}

/* Marks the size of a cluster that one call of mn_kmeans_reseed is done with. */
#define DONE 0x80000000u

/* The smallest and the largest of the clusters that are not done with; false when there are no two. */
static bool extremes(const struct mn_kmeans_round *round, uint32_t *small, uint32_t *large)
{
    uint32_t seen = 0;
    for (uint32_t j = 0; j < round->k; j++) {
        if (round->sizes[j] & DONE)
            continue;
        if (seen == 0 || round->sizes[j] < round->sizes[*small])
            *small = j;
        if (seen == 0 || round->sizes[j] > round->sizes[*large])
            *large = j;
        seen++;
    }
    return seen > 1 && *small != *large;
}

/* A row of a cluster, the first from a random place on; n when there is none. */
static uint32_t member(struct mn_kmeans *km, const uint32_t *nearest, uint32_t n, uint32_t cluster)
{
    uint32_t begin = random_below(km, n);
    for (uint32_t step = 0, i = begin; step < n; step++, i = i + 1 < n ? i + 1 : 0)
        if (nearest[i] == cluster)
            return i;
    return n;
}

/* Sets centroid `to` beside centroid `from`, apart in the direction of a row x of it. False: there is no such
 * direction, the cluster is one row many times. */
static bool split(const struct mn_kmeans *km, struct mn_kmeans_round *round, uint32_t from, uint32_t to, const float *x)
{
    float *a = round->centroids + (size_t)from * km->width, *b = round->centroids + (size_t)to * km->width;
    if (!(km->kernels->l2(a, x, km->width) > SAME * km->kernels->dot(x, x, km->width)))
        return false;
    for (uint32_t d = 0; d < km->width; d++) {
        float step = SPLIT * (x[d] - a[d]);
        b[d] = a[d] + step;
        a[d] -= step;
    }
    if (round->prices)
        round->prices[to] = round->prices[from];
    return true;
}

/* Whether the smallest cluster should be given up for one half of the largest. */
static bool unbalanced(uint32_t small, uint32_t large, uint32_t mean)
{
    if (small == 0)
        return large > 1;
    return large > MN_KMEANS_SKEW * (mean + 1) || (small < mean / 8 && large > 2 * mean);
}

enum mn_status mn_kmeans_reseed(struct mn_kmeans *km, const float *rows, const uint32_t *nearest, uint32_t n,
                                struct mn_kmeans_round *round)
{
    MN_ASSERT(round->k > 0);
    enum mn_status status = MN_OK;
    uint64_t all = 0;
    for (uint32_t j = 0; j < round->k; j++)
        all += round->sizes[j];
    uint32_t to = 0, from = 0, mean = (uint32_t)(all / round->k);
    while (status == MN_OK && extremes(round, &to, &from) && unbalanced(round->sizes[to], round->sizes[from], mean)) {
        uint32_t row = member(km, nearest, n, from), half = round->sizes[from] / 2;
        if (row < n && split(km, round, from, to, row_at(km, rows, row))) {
            round->sizes[to] = half | DONE;
            round->sizes[from] -= half;
        } else {
            round->sizes[from] |= DONE; /* the same row many times, or none of it is among these */
        }
        status = mn_kmeans_breathe(km, (uint64_t)PASS * (round->k + n / round->k + km->width));
    }
    for (uint32_t j = 0; j < round->k; j++)
        round->sizes[j] &= ~DONE;
    return status;
}

/* Prices after a round: dearer above the mean size, cheaper below. */
static void set_prices(const struct mn_kmeans_round *round, uint32_t n, double energy)
{
    double mean = (double)n / round->k;
    for (uint32_t j = 0; j < round->k; j++) {
        double excess = round->sizes[j] / mean - 1;
        round->prices[j] += PRICE_STEP * (float)(energy * (excess < 3 ? excess : 3));
    }
}

static void set_biases(const struct mn_kmeans *km, const struct mn_kmeans_round *round, float *biases)
{
    for (uint32_t j = 0; j < round->k; j++) {
        const float *c = round->centroids + (size_t)j * km->width;
        biases[j] = km->kernels->dot(c, c, km->width) + round->prices[j];
    }
}

/* Rows from all over, one of each k-th part of them. */
static void begin_somewhere(struct mn_kmeans *km, const float *rows, uint32_t n, uint32_t k, float *centroids)
{
    for (uint32_t j = 0; j < k; j++) {
        uint32_t first = (uint32_t)((uint64_t)j * n / k), end = (uint32_t)((uint64_t)(j + 1) * n / k);
        memcpy(centroids + (size_t)j * km->width, row_at(km, rows, first + random_below(km, end - first)),
               km->width * sizeof *centroids);
    }
}

static enum mn_status norms_sum(struct mn_kmeans *km, const float *rows, uint32_t n, double *sum)
{
    *sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        *sum += (double)km->kernels->dot(row_at(km, rows, i), row_at(km, rows, i), km->width);
        MN_TRY(mn_kmeans_breathe(km, (uint64_t)PASS * km->width));
    }
    return MN_OK;
}

enum mn_status mn_kmeans_run(struct mn_kmeans *km, const float *rows, uint32_t n, uint32_t k, uint32_t rounds,
                             float *centroids, uint32_t *nearest)
{
    enum mn_status status = MN_OK;
    double norms, spread;
    struct mn_kmeans_round round = {centroids, calloc(k, sizeof(uint32_t)), k, calloc(k, sizeof(float))};
    float *biases = calloc(k, sizeof *biases);
    if (!round.sizes || !round.prices || !biases) {
        status = MN_FAIL(MN_SYSTEM, "no memory for %u clusters", k);
        goto out;
    }
    MN_TRY_OUT(norms_sum(km, rows, n, &norms));
    begin_somewhere(km, rows, n, k, centroids);
    for (uint32_t r = 0; r < rounds; r++) {
        if (r > 0)
            MN_TRY_OUT(mn_kmeans_reseed(km, rows, nearest, n, &round));
        set_biases(km, &round, biases);
        MN_TRY_OUT(mn_kmeans_nearest(km, rows, n, centroids, biases, k, nearest, NULL));
        MN_TRY_OUT(mn_kmeans_update(km, rows, nearest, n, &round, &spread));
        set_prices(&round, n, norms > spread ? (norms - spread) / n : 0);
    }
out:
    free(round.sizes);
    free(round.prices);
    free(biases);
    return status;
}
