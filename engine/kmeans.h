/*
 * kmeans.h - clustering of rows that lie in memory: balanced k-means, the workhorse of the training of codebooks.
 *
 * Plain Lloyd rounds with two additions. A cluster has a price that is added to the distance to its centroid; it rises
 * while the cluster is larger than the mean and falls while it is smaller, so that sizes come closer to each other at
 * little cost in distance (the search pays for the size of a cluster as often as it probes it, which is the more often
 * the larger it is). And centroids that no row belongs to, or few, are moved into large clusters: left to themselves
 * they stay where they are, since in many dimensions the mean of many rows is nearer to every row than that of few.
 *
 * Rows are `width` floats each, one behind the other, 64-byte aligned; width is a multiple of 64. Everything follows
 * from the rows and the state of `random`: no time, no address, no order of threads is in it.
 */
#ifndef MN_ENGINE_KMEANS_H
#define MN_ENGINE_KMEANS_H

#include "engine/kernels.h"

#define MN_KMEANS_SKEW 4

struct mn_kmeans {
    const struct mn_kernels *kernels;
    uint32_t width;
    bool (*pause)(void *context); /* may be NULL; called about every MN_KMEANS_BREATH multiplications; true: give up */
    void *context;
    uint64_t random; /* state of mn_kmeans_random */
    uint64_t work;   /* multiplications since the last pause */
};

/* 1 ms with AVX-512, 20 ms without any vectors. */
#define MN_KMEANS_BREATH (UINT64_C(1) << 26)

/* The next number of a sequence (splitmix64). */
uint64_t mn_kmeans_random(uint64_t *state);

/* Notes work; MN_DEADLINE when `pause` says to give up. */
enum mn_status mn_kmeans_breathe(struct mn_kmeans *km, uint64_t multiplications) MN_MUST_USE;

/* The least of biases[j] - 2 products[j] for j < count, if it is less than *least: into *least, and first + j into
 * *nearest. Of equals the first. */
void mn_kmeans_least(const float *products, const float *biases, uint32_t count, uint32_t first, uint32_t *nearest,
                     float *least);

/* nearest[i] = the j < k with the least |x_i - c_j|^2 + price[j] (the lowest of equals), for n rows; biases[j] =
 * |c_j|^2 + price[j]. least (may be NULL): that sum less |x_i|^2. */
enum mn_status mn_kmeans_nearest(struct mn_kmeans *km, const float *rows, uint32_t n, const float *centroids,
                                 const float *biases, uint32_t k, uint32_t *nearest, float *least) MN_MUST_USE;

/* What is known of a clustering between two rounds. */
struct mn_kmeans_round {
    float *centroids; /* [k][width] */
    uint32_t *sizes;  /* [k]: rows */
    uint32_t k;
    float *prices; /* [k], or NULL: none */
};
/* Adds rows to the sums in the making, which lie where the centroids will: rows of a cluster of size 0 begin its sum.
 */
enum mn_status mn_kmeans_sum(struct mn_kmeans *km, const float *rows, const uint32_t *nearest, uint32_t n,
                             struct mn_kmeans_round *round) MN_MUST_USE;
/* Makes means of the sums; returns the sum of size * |mean|^2. */
double mn_kmeans_divide(const struct mn_kmeans *km, struct mn_kmeans_round *round);
/* Both: makes the centroids the means of their rows; those without rows stay where they are. *spread (may be NULL): the
 * sum of size * |mean|^2, which with the sum of |x|^2 tells the sum of |x - mean|^2. */
enum mn_status mn_kmeans_update(struct mn_kmeans *km, const float *rows, const uint32_t *nearest, uint32_t n,
                                struct mn_kmeans_round *round, double *spread) MN_MUST_USE;
/* Gives centroids without rows, and small ones while there are large ones, one half of the largest cluster each:
 * those below an eighth of the mean beside one above twice the mean, or any beside one above MN_KMEANS_SKEW times.
 * Sizes are adapted to what is expected. The rows may be a few of those that the sizes are of: a cluster that has none
 * among them stays whole. */
enum mn_status mn_kmeans_reseed(struct mn_kmeans *km, const float *rows, const uint32_t *nearest, uint32_t n,
                                struct mn_kmeans_round *round) MN_MUST_USE;

/* Finds k <= n centroids for n rows in so many rounds, into centroids[k][width]; nearest[n] is the last round's.
 * MN_SYSTEM when memory ends. */
enum mn_status mn_kmeans_run(struct mn_kmeans *km, const float *rows, uint32_t n, uint32_t k, uint32_t rounds,
                             float *centroids, uint32_t *nearest) MN_MUST_USE;

#endif
