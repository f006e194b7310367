/*
 * codebook_train.c - from a sample of a store to codebooks/<gen>.col.
 *
 * The sample lies in memory, rotated. It is parted among about sqrt(K) super-centroids, and each part among its share
 * of the K centroids: two small searches instead of a large one. What the borders of the parts have spoilt is mended by
 * rounds of Lloyd's algorithm on all of it, with the same two-step search for the nearest centroid that the store will
 * assign its rows with (mn_codebook_assign); before each of them the centroids are grouped anew by their own
 * super-centroids, since these are what that search goes by.
 *
 * Work takes seconds, so everything long goes through mn_kmeans_breathe.
 */
#include "engine/codebook_file.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/fault.h"
#include "engine/kmeans.h"

#define SAMPLE_PER_CLUSTER 64u  /* rows that a centroid is the mean of, about */
#define ROWS_PER_CLUSTER   32u  /* a cluster smaller than a block of lanes is a waste of them */
#define SUPER_SAMPLE       256u /* rows per super-centroid that these are found with */
#define SUPER_ROUNDS       8u
#define PART_ROUNDS        8u
#define MEND_ROUNDS        4u
#define ENERGY_WEIGHT      8   /* rows that the energy of all counts as in that of a cluster */
#define READS_PER_BREATH   64u /* rows of the sample: each may have to come from the disk */

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

struct training {
    struct mn_kmeans km;
    const struct mn_kernels *kernels;
    uint32_t dim, width;
    float *rows; /* [n][width] */
    uint32_t n;
    float unit;        /* rows are multiples of this power of two: squares of huge and of tiny ones stay in range */
    float *mean;       /* [width] */
    uint32_t *signs;   /* [4][width / 32] */
    uint32_t *nearest; /* [n or k] */
    uint32_t *order;   /* [n or k]: scratch of `sort` */
    float *spare;      /* [width]: scratch of `sort` */
    struct mn_kmeans_round round; /* the centroids */
    uint32_t supers;
    float *super;       /* [supers][width] */
    float *super_norms; /* [supers] */
    uint32_t *child;    /* [supers + 1] */
    float *norms;       /* [k] */
    float *energies;    /* [k] */
};

/* Huge pages where they are to be had: giving back half a gigabyte of small ones takes longer than a pause may. */
static void *floats(uint64_t count)
{
    uint64_t bytes = count * sizeof(float), huge = UINT64_C(2) << 20;
    void *memory = aligned_alloc(bytes < huge ? 64 : huge, mn_round_up(bytes, bytes < huge ? 64 : huge));
    if (memory && bytes >= huge)
        madvise(memory, mn_round_up(bytes, huge), MADV_HUGEPAGE);
    return memory;
}

static inline float *row_at(const struct training *t, float *rows, uint32_t i)
{
    return rows + (size_t)i * t->width;
}

static enum mn_status allocate_clusters(struct training *t, uint32_t clusters)
{
    t->round.k = clusters < t->n ? clusters : t->n;
    t->supers = (uint32_t)(sqrt((double)t->round.k) + 0.5);
    if (t->supers > MN_CODEBOOK_SUPERS_MAX)
        t->supers = MN_CODEBOOK_SUPERS_MAX;
    uint32_t k = t->round.k > 2 ? t->round.k : 2;
    t->round.centroids = floats((uint64_t)k * t->width);
    t->round.sizes = calloc(k, sizeof *t->round.sizes);
    t->norms = calloc(k, sizeof *t->norms);
    t->energies = calloc(k, sizeof *t->energies);
    t->super = floats((uint64_t)t->supers * t->width);
    t->super_norms = calloc(t->supers, sizeof *t->super_norms);
    t->child = calloc(t->supers + 1u, sizeof *t->child);
    uint32_t most = t->n > k ? t->n : k; /* centroids are clustered and sorted as well as rows */
    // NOLINTNEXTLINE(clang-analyzer-optin.portability.UnixAPI): k is 2 at least
    t->nearest = calloc(most, sizeof *t->nearest);
    t->order = calloc(most, sizeof *t->order);
    bool all = t->round.centroids && t->round.sizes && t->norms && t->energies && t->super && t->super_norms &&
               t->child && t->nearest && t->order;
    return all ? MN_OK : MN_FAIL(MN_SYSTEM, "no memory to train a codebook of %u clusters", clusters);
}

static void release(struct training *t)
{
    free(t->rows);
    free(t->mean);
    free(t->signs);
    free(t->nearest);
    free(t->order);
    free(t->spare);
    free(t->round.centroids);
    free(t->round.sizes);
    free(t->super);
    free(t->super_norms);
    free(t->child);
    free(t->norms);
    free(t->energies);
}

/* ---- the sample ---- */

/* Takes every row, or of too many an even share. */
static enum mn_status read_sample(struct training *t, const struct mn_codebook_sample *sample)
{
    uint64_t most = MN_CODEBOOK_SAMPLE_BYTES / (t->width * sizeof(float));
    if (most > sample->rows)
        most = sample->rows;
    t->rows = floats((most + 1) * t->width);
    if (!t->rows)
        return MN_FAIL(MN_SYSTEM, "no memory for a sample of %llu rows", (unsigned long long)most);
    for (uint64_t taken = 0; taken < most; taken++) {
        uint64_t i = (uint64_t)((unsigned __int128)taken * sample->rows / most);
        float *x = row_at(t, t->rows, t->n);
        double norm2;
        if (sample->row(sample->context, i, x) && t->kernels->check(x, t->dim, &norm2))
            t->n++;
        MN_TRY(mn_kmeans_breathe(&t->km, MN_KMEANS_BREATH / READS_PER_BREATH));
    }
    return t->n > 0 ? MN_OK : MN_FAIL(MN_NOT_FOUND, "there is no row to train a codebook on");
}

static enum mn_status find_mean(struct training *t)
{
    double *sum = calloc(t->width, sizeof *sum);
    if (!sum)
        return MN_FAIL(MN_SYSTEM, "no memory to train a codebook");
    enum mn_status status = MN_OK;
    for (uint32_t i = 0; i < t->n; i++) {
        const float *x = row_at(t, t->rows, i);
        for (uint32_t d = 0; d < t->dim; d++)
            sum[d] += (double)x[d];
        MN_TRY_OUT(mn_kmeans_breathe(&t->km, (uint64_t)16 * t->width));
    }
    for (uint32_t d = 0; d < t->dim; d++)
        t->mean[d] = (float)(sum[d] / t->n);
out:
    free(sum);
    return status;
}

/* Takes the mean away, rotates, and brings the longest row to a length of about 1, if it is far from it. */
static enum mn_status rotate_sample(struct training *t)
{
    struct mn_codebook space = {.dim = t->dim, .width = t->width, .mean = t->mean, .signs = t->signs};
    double longest2 = 0, norm2;
    for (uint32_t i = 0; i < t->n; i++) {
        float *x = row_at(t, t->rows, i);
        mn_codebook_rotate(&space, t->kernels, x, 1, x);
        t->kernels->check(x, t->width, &norm2);
        longest2 = norm2 > longest2 ? norm2 : longest2;
        MN_TRY(mn_kmeans_breathe(&t->km, (uint64_t)64 * t->width));
    }
    int exponent = longest2 > 0 ? ilogb(sqrt(longest2)) : 0;
    t->unit = exponent > 20 || exponent < -20 ? ldexpf(1, exponent) : 1;
    for (uint32_t i = 0; t->unit != 1 && i < t->n; i++) {
        float *x = row_at(t, t->rows, i);
        for (uint32_t d = 0; d < t->width; d++)
            x[d] /= t->unit;
        MN_TRY(mn_kmeans_breathe(&t->km, (uint64_t)16 * t->width));
    }
    return MN_OK;
}

static void swap_rows(struct training *t, uint32_t i, uint32_t j)
{
    if (i == j)
        return;
    memcpy(t->spare, row_at(t, t->rows, i), t->width * sizeof(float));
    memcpy(row_at(t, t->rows, i), row_at(t, t->rows, j), t->width * sizeof(float));
    memcpy(row_at(t, t->rows, j), t->spare, t->width * sizeof(float));
}

/* ---- the two levels ---- */

/* Sorts `count` rows at `rows` by their cluster below `clusters`, keeping the order inside of it; first[clusters + 1]:
 * where each begins. In place, along the cycles of the permutation. */
static enum mn_status sort(struct training *t, float *rows, uint32_t *cluster, uint32_t count, uint32_t clusters,
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
            memcpy(t->spare, row_at(t, rows, to), bytes);
            memcpy(row_at(t, rows, to), row_at(t, rows, i), bytes);
            memcpy(row_at(t, rows, i), t->spare, bytes);
            t->order[i] = t->order[to];
            t->order[to] = to;
            MN_TRY(mn_kmeans_breathe(&t->km, (uint64_t)64 * t->width));
        }
    }
    return MN_OK;
}

static enum mn_status nearest_supers(struct training *t, const float *rows, uint32_t count)
{
    for (uint32_t s = 0; s < t->supers; s++)
        t->super_norms[s] = t->kernels->dot(row_at(t, t->super, s), row_at(t, t->super, s), t->width);
    return mn_kmeans_nearest(&t->km, rows, count, t->super, t->super_norms, t->supers, t->nearest, NULL);
}

/* Parts the sample: rows sorted by super-centroid, child[s] the first row of each. */
static enum mn_status part_sample(struct training *t)
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
static enum mn_status cluster_parts(struct training *t)
{
    for (uint32_t s = 0; s < t->supers; s++) {
        uint64_t k = t->round.k;
        uint32_t from = (uint32_t)(k * t->child[s] / t->n), to = (uint32_t)(k * t->child[s + 1] / t->n);
        if (to > from)
            MN_TRY(mn_kmeans_run(&t->km, row_at(t, t->rows, t->child[s]), t->child[s + 1] - t->child[s], to - from,
                                 PART_ROUNDS, row_at(t, t->round.centroids, from), t->nearest));
    }
    return MN_OK;
}

/* ---- mending ---- */

/* Groups the centroids by super-centroids of their own: sorted, with child, super and the norms of both. */
static enum mn_status group_centroids(struct training *t)
{
    float *centroids = t->round.centroids;
    uint32_t k = t->round.k;
    t->supers = t->supers < k ? t->supers : k;
    MN_TRY(mn_kmeans_run(&t->km, centroids, k, t->supers, SUPER_ROUNDS, t->super, t->nearest));
    MN_TRY(nearest_supers(t, centroids, k));
    MN_TRY(sort(t, centroids, t->nearest, k, t->supers, t->child));
    for (uint32_t c = 0; c < k; c++)
        t->norms[c] = fminf(t->kernels->dot(row_at(t, centroids, c), row_at(t, centroids, c), t->width), FLT_MAX);
    return MN_OK;
}

static struct mn_codebook view_of(const struct training *t)
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

static enum mn_status assign_sample(struct training *t)
{
    struct mn_codebook view = view_of(t);
    uint64_t cost = (uint64_t)t->width * (t->supers + t->round.k / (t->supers / 16 + 1)); /* of a row, about */
    uint32_t chunk = cost * 256 < 2 * MN_KMEANS_BREATH ? 256 : (uint32_t)(2 * MN_KMEANS_BREATH / cost) + 1;
    for (uint32_t at = 0; at < t->n; at += chunk) {
        uint32_t some = t->n - at < chunk ? t->n - at : chunk;
        mn_codebook_assign(&view, t->kernels, row_at(t, t->rows, at), some, t->nearest + at, NULL);
        MN_TRY(mn_kmeans_breathe(&t->km, some * cost));
    }
    return MN_OK;
}

static enum mn_status mend(struct training *t)
{
    for (uint32_t r = 0; r < MEND_ROUNDS; r++) {
        MN_TRY(group_centroids(t));
        MN_TRY(assign_sample(t));
        MN_TRY(mn_kmeans_update(&t->km, t->rows, t->nearest, t->n, &t->round, NULL));
        if (r + 1 < MEND_ROUNDS)
            MN_TRY(mn_kmeans_reseed(&t->km, t->rows, t->nearest, t->n, &t->round));
    }
    return MN_OK;
}

/* Leaves out centroids without rows. One that is left alone is given a twin: an inverted file with one cluster is a
 * flat one, whose centroid is the origin. */
static void drop_empty(struct training *t)
{
    uint32_t kept = 0;
    for (uint32_t c = 0; c < t->round.k; c++) {
        if (t->round.sizes[c] == 0)
            continue;
        if (kept != c)
            memcpy(row_at(t, t->round.centroids, kept), row_at(t, t->round.centroids, c), t->width * sizeof(float));
        t->energies[kept++] = t->energies[c];
    }
    if (kept == 1) {
        memcpy(row_at(t, t->round.centroids, 1), t->round.centroids, t->width * sizeof(float));
        t->energies[1] = t->energies[0];
        kept = 2;
    }
    t->round.k = kept;
}

static float energy_in_floats(const struct training *t, double energy)
{
    energy *= (double)t->unit * (double)t->unit;
    return energy < 0 ? 0 : energy < (double)FLT_MAX ? (float)energy : FLT_MAX;
}

/* Mean |x - c|^2 of all rows and, in energies, of each cluster: the sum of |x|^2 less size * |c|^2, where c is the mean
 * of the rows. */
static enum mn_status measure_energies(struct training *t, double *norms, float *energy)
{
    double sum = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        const float *x = row_at(t, t->rows, i);
        norms[t->nearest[i]] += (double)t->kernels->dot(x, x, t->width);
        MN_TRY(mn_kmeans_breathe(&t->km, (uint64_t)16 * t->width));
    }
    for (uint32_t c = 0; c < t->round.k; c++) {
        const float *mean = row_at(t, t->round.centroids, c);
        norms[c] -= t->round.sizes[c] * (double)t->kernels->dot(mean, mean, t->width);
        sum += norms[c];
    }
    *energy = energy_in_floats(t, sum / t->n);
    for (uint32_t c = 0; c < t->round.k; c++)
        t->energies[c] =
            energy_in_floats(t, (norms[c] + sum / t->n * ENERGY_WEIGHT) / (t->round.sizes[c] + ENERGY_WEIGHT));
    return MN_OK;
}

/* Brings what is known of each centroid into the order that group_centroids has given them. */
static enum mn_status order_energies(struct training *t)
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

static enum mn_status find_centroids(struct training *t, float *energy)
{
    MN_TRY(part_sample(t));
    MN_TRY(cluster_parts(t));
    MN_TRY(mend(t));
    double *norms = calloc(t->round.k, sizeof *norms);
    enum mn_status status =
        norms ? measure_energies(t, norms, energy) : MN_FAIL(MN_SYSTEM, "no memory to train a codebook");
    free(norms);
    MN_TRY(status);
    drop_empty(t);
    MN_TRY(group_centroids(t));
    return order_energies(t);
}

/* ---- the file ---- */

/* Multiplies the centroids back to where the rows came from. */
static void restore_unit(struct training *t)
{
    for (size_t i = 0; i < (size_t)t->round.k * t->width; i++)
        t->round.centroids[i] *= t->unit;
    for (size_t i = 0; i < (size_t)t->supers * t->width; i++)
        t->super[i] *= t->unit;
    double square = (double)t->unit * (double)t->unit;
    for (uint32_t c = 0; c < t->round.k; c++)
        t->norms[c] = (float)fmin((double)t->norms[c] * square, (double)FLT_MAX);
    for (uint32_t s = 0; s < t->supers; s++)
        t->super_norms[s] = (float)fmin((double)t->super_norms[s] * square, (double)FLT_MAX);
}

static enum mn_status encode_centroids(struct training *t, const struct mn_codebook_body *body, char *image)
{
    uint32_t width = t->width;
    uint8_t *blocks = (uint8_t *)image + body->blocks_at, *codes8 = (uint8_t *)image + body->codes8_at;
    struct mn_ivf_fine *fine = (void *)(image + body->fine_at);
    for (uint32_t c = 0; c < body->clusters; c++) {
        uint8_t *block = blocks + (size_t)(c / MN_IVF_LANES) * mn_ivf_block_bytes(width);
        if (c % MN_IVF_LANES == 0)
            mn_ivf_clear_block(block, width);
        mn_ivf_encode(t->kernels, (enum mn_metric)body->metric, width, row_at(t, t->round.centroids, c), NULL, block,
                      c % MN_IVF_LANES, codes8 + (size_t)c * width, &fine[c]);
        MN_TRY(mn_kmeans_breathe(&t->km, (uint64_t)256 * width));
    }
    return MN_OK;
}

/* The data of the file, malloc'd. */
static enum mn_status make_image(struct training *t, const struct mn_codebook_body *body, char **made)
{
    char *image = floats(body->bytes / sizeof(float));
    if (!image)
        return MN_FAIL(MN_SYSTEM, "no memory for a codebook of %u clusters", body->clusters);
    memset(image, 0, body->bytes);
    size_t row = t->width * sizeof(float);
    memcpy(image, body, sizeof *body);
    memcpy(image + body->mean_at, t->mean, row);
    memcpy(image + body->signs_at, t->signs, MN_CODEBOOK_SIGNS(t->width) * sizeof(uint32_t));
    memcpy(image + body->super_at, t->super, t->supers * row);
    memcpy(image + body->super_norms_at, t->super_norms, t->supers * sizeof(float));
    memcpy(image + body->child_at, t->child, (t->supers + 1u) * sizeof(uint32_t));
    memcpy(image + body->centroids_at, t->round.centroids, t->round.k * row);
    memcpy(image + body->norms_at, t->norms, t->round.k * sizeof(float));
    memcpy(image + body->energies_at, t->energies, t->round.k * sizeof(float));
    enum mn_status status = mn_kmeans_breathe(&t->km, MN_KMEANS_BREATH);
    if (status == MN_OK)
        status = encode_centroids(t, body, image);
    if (status == MN_OK)
        *made = image;
    else
        free(image);
    return status;
}

static enum mn_status write_synced(const struct mn_store *store, uint64_t gen, const char *path, const char *image,
                                   const struct mn_codebook_body *body)
{
    struct mn_column_sink sink;
    enum mn_status status = store->io->unlink(path); /* an earlier attempt's */
    if (status != MN_OK && status != MN_NOT_FOUND)
        return mn_error_pass(status, __FILE__, __LINE__);
    MN_TRY(mn_column_sink_open(&sink, store, gen, MN_COLUMN_CODEBOOK, path));
    MN_TRY_OUT(mn_column_sink_append(&sink, image, body->bytes));
    MN_TRY_OUT(mn_column_sink_end(&sink, body->clusters, 0));
    MN_TRY_OUT(mn_column_sink_sync(&sink));
out:
    mn_column_sink_close(&sink);
    if (status != MN_OK)
        (void)store->io->unlink(path); /* a full disk has no room for half a file */
    return status;
}

static enum mn_status write_file(const struct mn_store *store, uint64_t gen, const char *image,
                                 const struct mn_codebook_body *body)
{
    char path[MN_PATH_MAX], temporary[MN_PATH_MAX + 8], folder[MN_PATH_MAX];
    mn_store_path(store, folder, "codebooks");
    enum mn_status status = store->io->mkdir(folder);
    if (status == MN_OK)
        MN_TRY(store->io->sync_dir(store->dir));
    else if (status != MN_EXISTS)
        return mn_error_pass(status, __FILE__, __LINE__);
    snprintf(temporary, sizeof temporary, "%s.tmp", mn_codebook_path(store, path, gen));
    status = write_synced(store, gen, temporary, image, body);
    MN_FAULT_POINT(codebook_written);
    if (status == MN_OK)
        status = store->io->rename(temporary, path);
    if (status != MN_OK)
        return mn_error_pass(status, __FILE__, __LINE__);
    MN_FAULT_POINT(codebook_renamed);
    return store->io->sync_dir(folder);
}

static enum mn_status train(struct training *t, const struct mn_store *store, uint64_t gen, uint32_t clusters,
                            uint64_t store_rows, const struct mn_codebook_sample *sample)
{
    char *image = NULL;
    struct mn_codebook_body body = {.width = t->width, .metric = (uint32_t)store->metric, .trained_rows = store_rows};
    MN_TRY(read_sample(t, sample));
    MN_TRY(find_mean(t));
    MN_TRY(rotate_sample(t));
    MN_TRY(allocate_clusters(t, clusters));
    MN_TRY(find_centroids(t, &body.energy));
    free(t->rows);
    t->rows = NULL;
    restore_unit(t);
    body.clusters = t->round.k;
    body.supers = t->supers;
    mn_codebook_lay_out(&body);
    MN_TRY(make_image(t, &body, &image));
    enum mn_status status = write_file(store, gen, image, &body);
    free(image);
    return status;
}

enum mn_status mn_codebook_train(const struct mn_store *store, uint64_t gen, uint32_t clusters, uint64_t store_rows,
                                 const struct mn_codebook_sample *sample, uint64_t seed, bool (*pause)(void *context),
                                 void *context)
{
    MN_ASSERT(gen > 0 && clusters > 0 && clusters <= MN_CODEBOOK_CLUSTERS_MAX);
    uint32_t width = MN_CODEBOOK_WIDTH(store->dim);
    const struct mn_kernels *kernels = mn_kernels_best();
    struct training t = {.km = {.kernels = kernels, .width = width, .pause = pause, .context = context, .random = seed},
                         .kernels = kernels,
                         .dim = store->dim,
                         .width = width,
                         .unit = 1};
    t.mean = calloc(width, sizeof *t.mean);
    t.signs = calloc(MN_CODEBOOK_SIGNS(width), sizeof *t.signs);
    t.spare = floats(width);
    enum mn_status status = MN_FAIL(MN_SYSTEM, "no memory to train a codebook");
    if (t.mean && t.signs && t.spare) {
        mn_codebook_signs(store, width, t.signs);
        status = train(&t, store, gen, clusters, store_rows, sample);
    }
    release(&t);
    return status;
}
