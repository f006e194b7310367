/*
 * codebook_training.h - a training under way: what the sample (codebook_sample.c), the search for centroids
 * (codebook_train.c) and the file (codebook_write.c) share, and nobody else sees.
 */
#ifndef MN_ENGINE_CODEBOOK_TRAINING_H
#define MN_ENGINE_CODEBOOK_TRAINING_H

#include <string.h>

#include "engine/codebook_file.h"
#include "engine/kmeans.h"

struct mn_training {
    struct mn_kmeans km;
    const struct mn_kernels *kernels;
    const struct mn_codebook_sample *sample;
    uint32_t dim, width;
    float *rows; /* [n][width]: what lies in memory of the sample, rotated */
    uint32_t n;
    bool whole;   /* that is all of it */
    uint64_t at;  /* the next row of the sample to go through (whole: of `rows`) */
    float *chunk; /* [chunk_rows][width]: rows that are read again; NULL when whole */
    uint32_t chunk_rows;
    float unit;      /* rows are multiples of this power of two: squares of huge and of tiny ones stay in range */
    float *mean;     /* [width] */
    uint32_t *signs; /* [4][width / 32] */
    float *spare;    /* [width]: scratch of whoever moves rows */
    uint32_t *nearest, *order;    /* [n, k or chunk_rows, what is most] */
    struct mn_kmeans_round round; /* the centroids */
    float *sums;                  /* [k][width]: those of the next round in the making */
    double *squares;              /* [k]: sum of |x|^2 of the rows of each */
    uint32_t supers;
    float *super;       /* [supers][width] */
    float *super_norms; /* [supers] */
    uint32_t *child;    /* [supers + 1] */
    float *norms;       /* [k] */
    float *energies;    /* [k] */
};

static inline float *mn_training_row(const struct mn_training *t, float *rows, uint32_t i)
{
    return rows + (size_t)i * t->width;
}

/* Aligned to 64 bytes, or to a huge page and in such where they are to be had; NULL: no memory. */
float *mn_training_floats(uint64_t count);

/* Reads of the sample what may lie in memory, finds the mean, and brings the rows into the codebook's space. */
enum mn_status mn_training_read(struct mn_training *t) MN_MUST_USE;
/* Goes through all rows of the sample: the next of them, `most` or fewer, in the codebook's space; *count is 0 after
 * the last. From memory, or read again. t->at = 0 begins. */
enum mn_status mn_training_next(struct mn_training *t, uint32_t most, const float **rows, uint32_t *count) MN_MUST_USE;

/* Multiplies the centroids back to where the rows came from, and writes the file. */
enum mn_status mn_training_write(struct mn_training *t, const struct mn_store *store, uint64_t gen, uint64_t store_rows,
                                 float energy) MN_MUST_USE;

#endif
