/*
 * codebook_train.c - from a sample of a store to centroids.
 *
 * What lies in memory of the sample is parted among about sqrt(K) super-centroids, and each part among its share of the
 * K centroids: two small searches instead of a large one. What the borders of the parts have spoilt, and what few rows
 * could not tell, is mended by rounds of Lloyd's algorithm on all of the sample, with the same two-step search for the
 * nearest centroid that the store will assign its rows with (mn_codebook_assign); before each of them the centroids are
 * grouped anew by their own super-centroids, since these are what that search goes by.
 *
 * Work takes seconds, so everything long goes through mn_kmeans_breathe.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "engine/codebook_training.h"

#define SAMPLE_PER_CLUSTER 64u  /* rows that a centroid is the mean of, about */
#define ROWS_PER_CLUSTER   32u  /* a cluster smaller than a block of lanes is a waste of them */
#define SUPER_SAMPLE       256u /* rows per super-centroid that these are found with */
#define SUPER_ROUNDS       8u
#define PART_ROUNDS        8u
#define MEND_ROUNDS        4u
#define ASSIGN_ROWS        1024u /* that are assigned, and then added while they are in cache */
#define ENERGY_WEIGHT      8     /* rows that the energy of all counts as in that of a cluster */

uint32_t mn_codebook_clusters(uint64_t store_rows)
{
    if (store_rows < MN_CODEBOOK_ROWS_MIN)
        return 0;
    double want = 4 * sqrt((double)store_rows), most = (double)store_rows / ROWS_PER_CLUSTER;
    if (want > most)
        want = most;
    if (want > MN_CODEBOOK_CLUSTERS_MAX)
        want = MN_CODEBOOK_CLUSTERS_MAX;
    return (uint32_t)(want / MN_IVF_LANES + 0.5) * MN_IVF_LANES;
}

uint64_t mn_codebook_sample_rows(uint32_t clusters)
{
    return (uint64_t)clusters * SAMPLE_PER_CLUSTER;
}

static enum mn_status allocate_clusters(struct mn_training *t, uint32_t clusters)
{
    t->round.k = clusters < t->n ? clusters : t->n;
    t->supers = (uint32_t)(sqrt((double)t->round.k) + 0.5);
    if (t->supers > MN_CODEBOOK_SUPERS_MAX)
        t->supers = MN_CODEBOOK_SUPERS_MAX;
    uint32_t k = t->round.k > 2 ? t->round.k : 2;
    t->round.centroids = mn_training_floats((uint64_t)k * t->width);
    t->round.sizes = calloc(k, sizeof *t->round.sizes);
    t->sums = mn_training_floats((uint64_t)k * t->width);
    t->squares = calloc(k, sizeof *t->squares);
    t->norms = calloc(k, sizeof *t->norms);
    t->energies = calloc(k, sizeof *t->energies);
    t->super = mn_training_floats((uint64_t)t->supers * t->width);
    t->super_norms = calloc(t->supers, sizeof *t->super_norms);
    t->child = calloc(t->supers + 1u, sizeof *t->child);
    uint32_t most = t->n > k ? t->n : k; /* centroids are clustered and sorted as well as rows */
    most = most > t->chunk_rows ? most : t->chunk_rows;
    // NOLINTNEXTLINE(clang-analyzer-optin.portability.UnixAPI): k is 2 at least
    t->nearest = calloc(most, sizeof *t->nearest);
    t->order = calloc(most, sizeof *t->order);
    bool all = t->round.centroids && t->round.sizes && t->sums && t->squares && t->norms && t->energies && t->super &&
               t->super_norms && t->child && t->nearest && t->order;
    return all ? MN_OK : MN_FAIL(MN_SYSTEM, "no memory to train a codebook of %u clusters", clusters);
}

/* Its rows may be most of the memory: whoever writes the file does without them. */
static void release_rows(struct mn_training *t)
{
    free(t->rows);
    free(t->chunk);
    free(t->sums);
    t->rows = t->chunk = t->sums = NULL;
}

static void release(struct mn_training *t)
{
    release_rows(t);
    free(t->mean);
    free(t->signs);
    free(t->spare);
    free(t->nearest);
    free(t->order);
    free(t->round.centroids);
    free(t->round.sizes);
    free(t->squares);
    free(t->super);
    free(t->super_norms);
    free(t->child);
    free(t->norms);
    free(t->energies);
}

static void swap_rows(struct mn_training *t, uint32_t i, uint32_t j)
{
    if (i == j)
        return;
    memcpy(t->spare, mn_training_row(t, t->rows, i), t->width * sizeof(float));
    memcpy(mn_training_row(t, t->rows, i), mn_training_row(t, t->rows, j), t->width * sizeof(float));
    memcpy(mn_training_row(t, t->rows, j), t->spare, t->width * sizeof(float));
}

/* ---- the two levels ---- */

/* Sorts `count` rows at `rows` by their cluster below `clusters`, keeping the order inside of it; first[clusters + 1]:
 * where each begins. In place, along the cycles of the permutation. */
static enum mn_status sort(struct mn_training *t, float *rows, uint32_t *cluster, uint32_t count, uint32_t clusters,
                           uint32_t *first)
{
    size_t bytes = t->width * sizeof(float);
    memset(first, 0, (clusters + 1u) * sizeof *first);
    for (uint32_t i = 0; i < count; i++)
        first[cluster[i] + 1]++;
    for (uint32_t c = 0; c < clusters; c++)
        first[c + 1] += first[c];
    for (uint32_t i = 0; i < count; i++)
        t->order[i] = first[cluster[i]]++;
    memmove(first + 1, first, clusters * sizeof *first);
    first[0] = 0;
    for (uint32_t i = 0; i < count; i++) {
        while (t->order[i] != i) { /* puts row i where it belongs and takes what was there */
            uint32_t to = t->order[i];
            memcpy(t->spare, mn_training_row(t, rows, to), bytes);
            memcpy(mn_training_row(t, rows, to), mn_training_row(t, rows, i), bytes);
            memcpy(mn_training_row(t, rows, i), t->spare, bytes);
            t->order[i] = t->order[to];
            t->order[to] = to;
            MN_TRY(mn_kmeans_breathe(&t->km, (uint64_t)64 * t->width));
        }
    }
    return MN_OK;
}

static enum mn_status nearest_supers(struct mn_training *t, const float *rows, uint32_t count)
{
    for (uint32_t s = 0; s < t->supers; s++)
        t->super_norms[s] = t->kernels->dot(mn_training_row(t, t->super, s), mn_training_row(t, t->super, s), t->width);
    return mn_kmeans_nearest(&t->km, rows, count, t->super, t->super_norms, t->supers, t->nearest, NULL);
}

/* Parts the sample: rows sorted by super-centroid, child[s] the first row of each. */
static enum mn_status part_sample(struct mn_training *t)
{
    uint32_t some = t->supers * SUPER_SAMPLE < t->n ? t->supers * SUPER_SAMPLE : t->n;
    for (uint32_t i = 0; i < some; i++) {
        swap_rows(t, i, i + (uint32_t)((mn_kmeans_random(&t->km.random) >> 32) * (t->n - i) >> 32));
        MN_TRY(mn_kmeans_breathe(&t->km, (uint64_t)64 * t->width));
    }
    MN_TRY(mn_kmeans_run(&t->km, t->rows, some, t->supers, SUPER_ROUNDS, t->super, t->nearest));
    MN_TRY(nearest_supers(t, t->rows, t->n));
    return sort(t, t->rows, t->nearest, t->n, t->supers, t->child);
}

/* Gives each part its share of the centroids, and finds them. */
static enum mn_status cluster_parts(struct mn_training *t)
{
    for (uint32_t s = 0; s < t->supers; s++) {
        uint64_t k = t->round.k;
        uint32_t from = (uint32_t)(k * t->child[s] / t->n), to = (uint32_t)(k * t->child[s + 1] / t->n);
        if (to > from)
            MN_TRY(mn_kmeans_run(&t->km, mn_training_row(t, t->rows, t->child[s]), t->child[s + 1] - t->child[s],
                                 to - from, PART_ROUNDS, mn_training_row(t, t->round.centroids, from), t->nearest));
    }
    return MN_OK;
}

/* ---- mending ---- */

/* Groups the centroids by super-centroids of their own: sorted, with child, super and the norms of both. */
static enum mn_status group_centroids(struct mn_training *t)
{
    float *centroids = t->round.centroids;
    uint32_t k = t->round.k;
    t->supers = t->supers < k ? t->supers : k;
    MN_TRY(mn_kmeans_run(&t->km, centroids, k, t->supers, SUPER_ROUNDS, t->super, t->nearest));
    MN_TRY(nearest_supers(t, centroids, k));
    MN_TRY(sort(t, centroids, t->nearest, k, t->supers, t->child));
    for (uint32_t c = 0; c < k; c++)
        t->norms[c] = fminf(
            t->kernels->dot(mn_training_row(t, centroids, c), mn_training_row(t, centroids, c), t->width), FLT_MAX);
    return MN_OK;
}

static struct mn_codebook view_of(const struct mn_training *t)
{
    return (struct mn_codebook){.dim = t->dim,
                                .width = t->width,
                                .clusters = t->round.k,
                                .supers = t->supers,
                                .super = t->super,
                                .super_norms = t->super_norms,
                                .child = t->child,
                                .centroids = t->round.centroids,
                                .norms = t->norms};
}

/* Assigns rows to their nearest centroids. */
static enum mn_status assign(struct mn_training *t, const float *rows, uint32_t count, uint32_t *nearest)
{
    struct mn_codebook view = view_of(t);
    uint64_t cost = (uint64_t)t->width * (t->supers + t->round.k / (t->supers / 16 + 1)); /* of a row, about */
    uint32_t most = cost * 256 < 2 * MN_KMEANS_BREATH ? 256 : (uint32_t)(2 * MN_KMEANS_BREATH / cost) + 1;
    for (uint32_t at = 0, some; at < count; at += some) {
        some = count - at < most ? count - at : most;
        mn_codebook_assign(&view, t->kernels, rows + (size_t)at * t->width, some, nearest + at, NULL);
        MN_TRY(mn_kmeans_breathe(&t->km, some * cost));
    }
    return MN_OK;
}

/* Assigns all rows of the sample: adds them to t->sums, t->squares and the sizes. `nearest` is left as that of the rows
 * in memory. */
static enum mn_status assign_sample(struct mn_training *t)
{
    struct mn_kmeans_round next = {.centroids = t->sums, .sizes = t->round.sizes, .k = t->round.k};
    const float *rows;
    uint32_t count;
    memset(next.sizes, 0, next.k * sizeof *next.sizes);
    memset(t->squares, 0, next.k * sizeof *t->squares);
    t->at = 0;
    for (;;) {
        uint32_t *nearest = t->whole ? t->nearest + t->at : t->nearest;
        MN_TRY(mn_training_next(t, ASSIGN_ROWS, &rows, &count));
        if (count == 0)
            break;
        MN_TRY(assign(t, rows, count, nearest));
        MN_TRY(mn_kmeans_sum(&t->km, rows, nearest, count, &next));
        for (uint32_t i = 0; i < count; i++) {
            const float *x = rows + (size_t)i * t->width;
            t->squares[nearest[i]] += (double)t->kernels->dot(x, x, t->width);
        }
    }
    return t->whole ? MN_OK : assign(t, t->rows, t->n, t->nearest);
}

/* Makes the sums the centroids; those without rows stay where they are. */
static void move_centroids(struct mn_training *t)
{
    float *before = t->round.centroids;
    for (uint32_t c = 0; c < t->round.k; c++)
        if (t->round.sizes[c] == 0)
            memcpy(mn_training_row(t, t->sums, c), mn_training_row(t, before, c), t->width * sizeof(float));
    t->round.centroids = t->sums;
    t->sums = before;
    (void)mn_kmeans_divide(&t->km, &t->round);
}

static enum mn_status mend(struct mn_training *t)
{
    for (uint32_t r = 0; r < MEND_ROUNDS; r++) {
        MN_TRY(group_centroids(t));
        MN_TRY(assign_sample(t));
        move_centroids(t);
        if (r + 1 < MEND_ROUNDS)
            MN_TRY(mn_kmeans_reseed(&t->km, t->rows, t->nearest, t->n, &t->round));
    }
    return MN_OK;
}

/* Leaves out centroids without rows. One that is left alone is given a twin: an inverted file with one cluster is a
 * flat one, whose centroid is the origin. */
static void drop_empty(struct mn_training *t)
{
    uint32_t kept = 0;
    for (uint32_t c = 0; c < t->round.k; c++) {
        if (t->round.sizes[c] == 0)
            continue;
        if (kept != c)
            memcpy(mn_training_row(t, t->round.centroids, kept), mn_training_row(t, t->round.centroids, c),
                   t->width * sizeof(float));
        t->energies[kept++] = t->energies[c];
    }
    if (kept == 1) {
        memcpy(mn_training_row(t, t->round.centroids, 1), t->round.centroids, t->width * sizeof(float));
        t->energies[1] = t->energies[0];
        kept = 2;
    }
    t->round.k = kept;
}

static float energy_in_floats(const struct mn_training *t, double energy)
{
    energy *= (double)t->unit * (double)t->unit;
    return energy < 0 ? 0 : energy < (double)FLT_MAX ? (float)energy : FLT_MAX;
}

/* Mean |x - c|^2 of all rows and, in energies, of each cluster: the sum of |x|^2 less size * |c|^2, where c is the mean
 * of the rows. */
static float measure_energies(struct mn_training *t)
{
    double sum = 0, rows = 0;
    for (uint32_t c = 0; c < t->round.k; c++) {
        const float *mean = mn_training_row(t, t->round.centroids, c);
        t->squares[c] -= t->round.sizes[c] * (double)t->kernels->dot(mean, mean, t->width);
        sum += t->squares[c];
        rows += t->round.sizes[c];
    }
    for (uint32_t c = 0; c < t->round.k; c++)
        t->energies[c] =
            energy_in_floats(t, (t->squares[c] + sum / rows * ENERGY_WEIGHT) / (t->round.sizes[c] + ENERGY_WEIGHT));
    return energy_in_floats(t, sum / rows);
}

/* Brings what is known of each centroid into the order that group_centroids has given them. */
static enum mn_status order_energies(struct mn_training *t)
{
    float *sorted = calloc(t->round.k, sizeof *sorted);
    uint32_t *next = calloc(t->supers, sizeof *next);
    enum mn_status status = MN_OK;
    if (!sorted || !next) {
        status = MN_FAIL(MN_SYSTEM, "no memory to train a codebook");
        goto out;
    }
    for (uint32_t c = 0; c < t->round.k; c++) {
        uint32_t super = t->nearest[c];
        sorted[t->child[super] + next[super]++] = t->energies[c];
    }
    memcpy(t->energies, sorted, t->round.k * sizeof *sorted);
out:
    free(sorted);
    free(next);
    return status;
}

static enum mn_status find_centroids(struct mn_training *t, float *energy)
{
    MN_TRY(part_sample(t));
    MN_TRY(cluster_parts(t));
    MN_TRY(mend(t));
    *energy = measure_energies(t);
    drop_empty(t);
    MN_TRY(group_centroids(t));
    return order_energies(t);
}

static enum mn_status train(struct mn_training *t, const struct mn_store *store, uint64_t gen, uint32_t clusters,
                            uint64_t store_rows)
{
    float energy = 0;
    MN_TRY(mn_training_read(t));
    MN_TRY(allocate_clusters(t, clusters));
    MN_TRY(find_centroids(t, &energy));
    release_rows(t);
    return mn_training_write(t, store, gen, store_rows, energy);
}

enum mn_status mn_codebook_train(const struct mn_store *store, uint64_t gen, uint32_t clusters, uint64_t store_rows,
                                 const struct mn_codebook_sample *sample, uint64_t seed, bool (*pause)(void *context),
                                 void *context)
{
    MN_ASSERT(gen > 0 && clusters > 0 && clusters <= MN_CODEBOOK_CLUSTERS_MAX);
    uint32_t width = MN_CODEBOOK_WIDTH(store->dim);
    const struct mn_kernels *kernels = mn_kernels_best();
    struct mn_training t = {
        .km = {.kernels = kernels, .width = width, .pause = pause, .context = context, .random = seed},
        .kernels = kernels,
        .sample = sample,
        .dim = store->dim,
        .width = width,
        .unit = 1};
    t.mean = calloc(width, sizeof *t.mean);
    t.signs = calloc(MN_CODEBOOK_SIGNS(width), sizeof *t.signs);
    t.spare = mn_training_floats(width);
    enum mn_status status = MN_FAIL(MN_SYSTEM, "no memory to train a codebook");
    if (t.mean && t.signs && t.spare) {
        mn_codebook_signs(store, width, t.signs);
        status = train(&t, store, gen, clusters, store_rows);
    }
    release(&t);
    return status;
}
