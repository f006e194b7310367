/*
 * codebook_rows.h - stores, samples and codebooks for the tests of engine/codebook*.
 */
#ifndef MN_TESTS_CODEBOOK_ROWS_H
#define MN_TESTS_CODEBOOK_ROWS_H

#include "engine/codebook_file.h"
#include "engine/kmeans.h"
#include "tests/unit/expect.h"

struct book_place {
    struct mn_store store;
    char dir[64];
};

/* Rows in memory; `skip`: one in so many cannot be read. */
struct book_rows {
    float *at;
    uint32_t count, dim, skip;
    uint64_t last, calls;
};

/* A new store in a temporary folder, and its end. */
struct book_place book_place(uint32_t dim, enum mn_metric metric);
void book_place_remove(struct book_place *p);
/* Zeros, 64-byte aligned; the caller frees. */
float *book_floats(size_t count);
/* From -1 to 1. */
float book_uniform(uint64_t *state);
/* Gives the rows in rising order, each once. */
struct mn_codebook_sample book_sample(struct book_rows *r);
/* Rows like embeddings: around centres that are themselves around a few, beside a mean that all have. */
struct book_rows book_mixture(uint32_t count, uint32_t dim, uint64_t seed);
enum mn_status book_train(const struct mn_store *store, uint64_t gen, uint32_t clusters, struct book_rows *r,
                          uint64_t seed);
const struct mn_codebook *book_open(const struct mn_store *store, uint64_t gen);
/* All rows in the codebook's space. */
float *book_rotated(const struct mn_codebook *codebook, const struct book_rows *r);
uint8_t *book_slurp(const char *path, size_t *bytes);
/* What any trained codebook must be. */
void book_expect_sound(const struct mn_codebook *codebook);

#endif
