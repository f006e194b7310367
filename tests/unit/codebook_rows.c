/*
 * codebook_rows.c - see codebook_rows.h.
 */
#include "tests/unit/codebook_rows.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct book_place book_place(uint32_t dim, enum mn_metric metric)
{
    struct book_place p;
    snprintf(p.dir, sizeof p.dir, "/dev/shm/mn-codebook-XXXXXX");
    assert_non_null(mkdtemp(p.dir));
    ok(mn_store_create(&p.store, &mn_io_posix, p.dir, dim, metric));
    return p;
}

void book_place_remove(struct book_place *p)
{
    ok(mn_io_remove_tree(&mn_io_posix, p->dir));
}

float *book_floats(size_t count)
{
    float *floats = aligned_alloc(64, mn_round_up((count ? count : 1) * sizeof *floats, 64));
    assert_non_null(floats);
    memset(floats, 0, count * sizeof *floats);
    return floats;
}

float book_uniform(uint64_t *state)
{
    return (float)(int32_t)(uint32_t)mn_kmeans_random(state) * 0x1p-31f;
}

static bool give_row(void *context, uint64_t i, float *out)
{
    struct book_rows *r = context;
    assert_true(i < r->count && (r->calls == 0 || i > r->last || i == 0)); /* in rising order, from the first again */
    r->last = i;
    r->calls++;
    if (r->skip && i % r->skip == 0)
        return false;
    memcpy(out, r->at + i * r->dim, r->dim * sizeof *out);
    return true;
}

struct mn_codebook_sample book_sample(struct book_rows *r)
{
    r->calls = 0;
    return (struct mn_codebook_sample){.rows = r->count, .row = give_row, .context = r};
}

struct book_rows book_mixture(uint32_t count, uint32_t dim, uint64_t seed)
{
    enum { TOPICS = 12, THEMES = 90 };
    float *topics = book_floats(TOPICS * dim), *themes = book_floats(THEMES * dim);
    struct book_rows r = {.at = book_floats((size_t)count * dim), .count = count, .dim = dim};
    for (uint32_t i = 0; i < TOPICS * dim; i++)
        topics[i] = book_uniform(&seed);
    for (uint32_t t = 0; t < THEMES; t++)
        for (uint32_t d = 0; d < dim; d++)
            themes[t * dim + d] = topics[t % TOPICS * dim + d] + 0.7f * book_uniform(&seed);
    for (uint32_t i = 0; i < count; i++) {
        const float *theme = themes + mn_kmeans_random(&seed) % THEMES * dim;
        for (uint32_t d = 0; d < dim; d++)
            r.at[(size_t)i * dim + d] = 3 + theme[d] + 0.6f * book_uniform(&seed);
    }
    free(topics);
    free(themes);
    return r;
}

enum mn_status book_train(const struct mn_store *store, uint64_t gen, uint32_t clusters, struct book_rows *r,
                          uint64_t seed)
{
    struct mn_codebook_sample sample = book_sample(r);
    return mn_codebook_train(store, gen, clusters, 12345, &sample, seed, NULL, NULL);
}

const struct mn_codebook *book_open(const struct mn_store *store, uint64_t gen)
{
    const struct mn_codebook *codebook;
    ok(mn_codebook_open(&codebook, store, gen));
    return codebook;
}

float *book_rotated(const struct mn_codebook *codebook, const struct book_rows *r)
{
    float *out = book_floats((size_t)r->count * codebook->width);
    for (uint32_t i = 0; i < r->count; i++)
        mn_codebook_rotate(codebook, mn_kernels_best(), r->at + (size_t)i * r->dim, 1,
                           out + (size_t)i * codebook->width);
    return out;
}

uint8_t *book_slurp(const char *path, size_t *bytes)
{
    void *data;
    ok(mn_io_slurp(&mn_io_posix, path, 64u << 20, &data, bytes));
    return data;
}

void book_expect_sound(const struct mn_codebook *codebook)
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
