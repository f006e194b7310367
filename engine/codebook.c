/*
 * codebook.c - codebooks as a process uses them: the files mapped and checked, the plain one made, rows put into their
 * space and assigned to clusters.
 *
 * Opening takes a mutex (a process has one or two codebooks open); what it returns is read-only and needs none.
 */
#include "engine/codebook_file.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/guard.h"
#include "engine/kmeans.h"

/* An open codebook, and what the registry knows it by. */
struct entry {
    struct mn_codebook codebook; /* first: users hold a pointer to it */
    struct mn_column_file file;  /* base NULL: the plain one */
    void *memory;                /* of the plain one: mean, then signs */
    struct entry *next;
    uint32_t users;
    uint8_t uuid[16];
    char dir[MN_PATH_MAX / 2];
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry *registry;

char *mn_codebook_path(const struct mn_store *store, char *path, uint64_t gen)
{
    snprintf(path, MN_PATH_MAX, "%s/codebooks/%llu.col", store->dir, (unsigned long long)gen);
    return path;
}

void mn_codebook_signs(const struct mn_store *store, uint32_t width, uint32_t *signs)
{
    uint64_t half[2];
    memcpy(half, store->uuid, sizeof half);
    uint64_t state = half[0];
    state = mn_kmeans_random(&state) ^ half[1];
    for (uint32_t i = 0; i < MN_CODEBOOK_SIGNS(width); i++)
        signs[i] = (uint32_t)(mn_kmeans_random(&state) >> 32);
}

/* ---- opening ---- */

static bool plain_init(struct entry *entry, const struct mn_store *store)
{
    uint32_t width = MN_CODEBOOK_WIDTH(store->dim);
    size_t mean_bytes = width * sizeof(float), bytes = mean_bytes + MN_CODEBOOK_SIGNS(width) * sizeof(uint32_t);
    char *memory = aligned_alloc(64, mn_round_up(bytes, 64));
    if (!memory)
        return false;
    memset(memory, 0, mean_bytes);
    uint32_t *signs = (uint32_t *)(void *)(memory + mean_bytes);
    mn_codebook_signs(store, width, signs);
    entry->memory = memory;
    entry->codebook = (struct mn_codebook){.dim = store->dim,
                                           .width = width,
                                           .metric = store->metric,
                                           .mean = (const float *)(const void *)memory,
                                           .signs = signs};
    return true;
}

/* The arrays of a body follow from its three sizes; a file that says otherwise was not written by us. */
static bool body_fits(const struct mn_codebook_body *body, const struct mn_store *store, uint64_t bytes)
{
    struct mn_codebook_body want = *body;
    if (body->width != MN_CODEBOOK_WIDTH(store->dim) || body->metric != (uint32_t)store->metric)
        return false;
    if (body->clusters < 2 || body->clusters > MN_CODEBOOK_CLUSTERS_MAX || body->supers < 1 ||
        body->supers > MN_CODEBOOK_SUPERS_MAX || body->supers > body->clusters)
        return false;
    mn_codebook_lay_out(&want);
    // NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): one is a copy of the other, floats and all
    return memcmp(&want, body, sizeof want) == 0 && body->bytes == bytes && body->energy >= 0;
}

static bool children_fit(const struct mn_codebook *codebook)
{
    bool fit = codebook->child[0] == 0 && codebook->child[codebook->supers] == codebook->clusters;
    for (uint32_t s = 0; s < codebook->supers; s++)
        fit &= codebook->child[s] <= codebook->child[s + 1];
    return fit;
}

/* How well the codes of centroids do. */
static void measure_codes(struct mn_codebook *codebook)
{
    for (uint32_t c = 0; c < codebook->clusters; c++) {
        double error = (double)codebook->fine[c].error, span = (double)codebook->fine[c].span;
        codebook->error2 += error * error / codebook->clusters;
        codebook->span2 += span * span / codebook->clusters;
    }
}

static enum mn_status use_file(struct entry *entry, const struct mn_store *store, uint64_t gen, const char *path)
{
    const struct mn_column_file *file = &entry->file;
    MN_TRY(mn_column_file_check(file, path));
    struct mn_codebook_body body;
    if (file->data_bytes < sizeof body)
        return MN_FAIL(MN_CORRUPT, "%s is too short for a codebook", path);
    memcpy(&body, file->data, sizeof body);
    if (!body_fits(&body, store, file->data_bytes))
        return MN_FAIL(MN_CORRUPT, "%s does not hold a codebook of this store", path);
    mn_codebook_point(&entry->codebook, &body, file->data);
    entry->codebook.gen = gen;
    entry->codebook.dim = store->dim;
    if (!children_fit(&entry->codebook))
        return MN_FAIL(MN_CORRUPT, "%s has centroids that belong to no super-centroid", path);
    mn_column_file_let_go(file, body.super_at, body.blocks_at); /* recalls go by the codes of centroids, mostly */
    measure_codes(&entry->codebook);
    return MN_OK;
}

struct opening {
    struct entry *entry;
    const struct mn_store *store;
    uint64_t gen;
    const char *path;
};

static enum mn_status use_it(void *context)
{
    const struct opening *o = context;
    return use_file(o->entry, o->store, o->gen, o->path);
}

static void forget(struct entry *entry)
{
    mn_column_file_unmap(&entry->file);
    free(entry->memory);
    free(entry);
}

static enum mn_status make_entry(struct entry **made, const struct mn_store *store, uint64_t gen)
{
    char path[MN_PATH_MAX];
    struct entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return MN_FAIL(MN_SYSTEM, "no memory for a codebook");
    entry->users = 1;
    memcpy(entry->uuid, store->uuid, sizeof entry->uuid);
    memcpy(entry->dir, store->dir, sizeof entry->dir);
    enum mn_status status = MN_OK;
    if (gen == 0) {
        if (!plain_init(entry, store))
            status = MN_FAIL(MN_SYSTEM, "no memory for a codebook");
        goto out;
    }
    mn_codebook_path(store, path, gen);
    MN_TRY_OUT(mn_column_file_map(&entry->file, store, gen, MN_COLUMN_CODEBOOK, path));
    MN_TRY_OUT(mn_guarded(use_it, &(struct opening){entry, store, gen, path}, NULL));
out:
    if (status != MN_OK)
        forget(entry);
    else
        *made = entry;
    return status;
}

static struct entry *find_entry(const struct mn_store *store, uint64_t gen)
{
    for (struct entry *e = registry; e; e = e->next)
        if (e->codebook.gen == gen && e->codebook.dim == store->dim && e->codebook.metric == store->metric &&
            memcmp(e->uuid, store->uuid, sizeof e->uuid) == 0 && strcmp(e->dir, store->dir) == 0)
            return e;
    return NULL;
}

static enum mn_status open_locked(const struct mn_codebook **codebook, const struct mn_store *store, uint64_t gen)
{
    struct entry *entry = find_entry(store, gen);
    if (entry) {
        entry->users++;
    } else {
        MN_TRY(make_entry(&entry, store, gen));
        entry->next = registry;
        registry = entry;
    }
    *codebook = &entry->codebook;
    return MN_OK;
}

enum mn_status mn_codebook_open(const struct mn_codebook **codebook, const struct mn_store *store, uint64_t gen)
{
    *codebook = NULL;
    pthread_mutex_lock(&registry_lock);
    enum mn_status status = open_locked(codebook, store, gen);
    pthread_mutex_unlock(&registry_lock);
    return status;
}

void mn_codebook_close(const struct mn_codebook *codebook)
{
    if (!codebook)
        return;
    pthread_mutex_lock(&registry_lock);
    struct entry **link = &registry;
    while (*link && &(*link)->codebook != codebook)
        link = &(*link)->next;
    MN_ASSERT(*link);
    struct entry *entry = *link;
    if (--entry->users == 0) {
        *link = entry->next;
        forget(entry);
    }
    pthread_mutex_unlock(&registry_lock);
}

/* ---- the body of the file ---- */

/* name, elements, bytes of an element: the order in the file. */
#define ARRAYS(X)                                                                                                      \
    X(mean, width, sizeof(float))                                                                                      \
    X(signs, MN_CODEBOOK_SIGNS(width), sizeof(uint32_t))                                                               \
    X(super, supers *width, sizeof(float))                                                                             \
    X(super_norms, supers, sizeof(float))                                                                              \
    X(child, supers + 1, sizeof(uint32_t))                                                                             \
    X(centroids, clusters *width, sizeof(float))                                                                       \
    X(norms, clusters, sizeof(float))                                                                                  \
    X(blocks, MN_CODEBOOK_BLOCKS(clusters), mn_ivf_block_bytes((uint32_t)width))                                       \
    X(codes8, clusters *width, 1)                                                                                      \
    X(fine, clusters, sizeof(struct mn_ivf_fine))                                                                      \
    X(energies, clusters, sizeof(float))

void mn_codebook_lay_out(struct mn_codebook_body *body)
{
    uint64_t at = mn_round_up(sizeof *body, 64), width = body->width, clusters = body->clusters, supers = body->supers;
#define X(name, elements, element_bytes)                                                                               \
    body->name##_at = at;                                                                                              \
    at = mn_round_up(at + (elements) * (element_bytes), 64);
    ARRAYS(X)
#undef X
    body->bytes = at;
    body->magic = MN_CODEBOOK_MAGIC;
    body->zero = 0;
}

void mn_codebook_point(struct mn_codebook *codebook, const struct mn_codebook_body *body, const void *base)
{
    const char *bytes = base;
    *codebook = (struct mn_codebook){.width = body->width,
                                     .metric = (enum mn_metric)body->metric,
                                     .clusters = body->clusters,
                                     .supers = body->supers,
                                     .energy = body->energy,
                                     .trained_rows = body->trained_rows};
#define X(name, elements, element_bytes) codebook->name = (const void *)(bytes + body->name##_at);
    ARRAYS(X)
#undef X
}

/* ---- rotation ---- */

void mn_codebook_rotate(const struct mn_codebook *codebook, const struct mn_kernels *kernels, const float *x,
                        float scale, float *out)
{
    const float *mean = codebook->mean;
    uint32_t dim = codebook->dim, width = codebook->width;
    for (uint32_t i = 0; i < dim; i++)
        out[i] = x[i] * scale - mean[i];
    memset(out + dim, 0, (width - dim) * sizeof *out);
    kernels->rotate(out, width, codebook->signs);
}

void mn_codebook_rotate_query(const struct mn_codebook *codebook, const struct mn_kernels *kernels, const float *x,
                              float scale, float *out)
{
    if (codebook->metric != MN_METRIC_IP) {
        mn_codebook_rotate(codebook, kernels, x, scale, out);
        return;
    }
    for (uint32_t i = 0; i < codebook->dim; i++)
        out[i] = x[i] * scale;
    memset(out + codebook->dim, 0, (codebook->width - codebook->dim) * sizeof *out);
    kernels->rotate(out, codebook->width, codebook->signs);
}
