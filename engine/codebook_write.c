/*
 * codebook_write.c - what a training has found, as codebooks/<gen>.col.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/codebook_training.h"
#include "engine/fault.h"

/* Multiplies the centroids back to where the rows came from. */
static void restore_unit(struct mn_training *t)
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

static enum mn_status encode_centroids(struct mn_training *t, const struct mn_codebook_body *body, char *image)
{
    uint32_t width = t->width;
    uint8_t *blocks = (uint8_t *)image + body->blocks_at, *codes8 = (uint8_t *)image + body->codes8_at;
    struct mn_ivf_fine *fine = (void *)(image + body->fine_at);
    for (uint32_t c = 0; c < body->clusters; c++) {
        uint8_t *block = blocks + (size_t)(c / MN_IVF_LANES) * mn_ivf_block_bytes(width);
        if (c % MN_IVF_LANES == 0)
            mn_ivf_clear_block(block, width);
        mn_ivf_encode(t->kernels, (enum mn_metric)body->metric, width, mn_training_row(t, t->round.centroids, c), NULL,
                      block, c % MN_IVF_LANES, codes8 + (size_t)c * width, &fine[c]);
        MN_TRY(mn_kmeans_breathe(&t->km, (uint64_t)256 * width));
    }
    return MN_OK;
}

/* The data of the file, malloc'd. */
static enum mn_status make_image(struct mn_training *t, const struct mn_codebook_body *body, char **made)
{
    char *image = (char *)mn_training_floats(body->bytes / sizeof(float));
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

enum mn_status mn_training_write(struct mn_training *t, const struct mn_store *store, uint64_t gen, uint64_t store_rows,
                                 float energy)
{
    struct mn_codebook_body body = {.width = t->width,
                                    .clusters = t->round.k,
                                    .supers = t->supers,
                                    .metric = (uint32_t)store->metric,
                                    .energy = energy,
                                    .trained_rows = store_rows};
    char *image = NULL;
    restore_unit(t);
    mn_codebook_lay_out(&body);
    MN_TRY(make_image(t, &body, &image));
    enum mn_status status = write_file(store, gen, image, &body);
    free(image);
    return status;
}
