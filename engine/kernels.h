/*
 * kernels.h - the arithmetic of recall, per instruction set behind one table.
 *
 * Every implementation adds in the same order (16 lanes, lane i takes elements i, i+16, ...; then a fixed tree over the
 * lanes; no fused multiply-add), so that all give the same answer to the last bit.
 */
#ifndef MN_ENGINE_KERNELS_H
#define MN_ENGINE_KERNELS_H

#include "engine/types.h"

struct mn_kernels {
    const char *name; /* "avx512", "avx2", "portable" */
    /* Inner product and squared Euclidean distance of n floats; any alignment. */
    float (*dot)(const float *a, const float *b, uint32_t n);
    float (*l2)(const float *a, const float *b, uint32_t n);
    /* False when any of n floats (little-endian, any alignment) is NaN or Inf; *norm2 = sum of squares in double. */
    bool (*check)(const void *floats, uint32_t n, double *norm2);
};

/* The best this CPU and its kernel (XCR0) support; MNEME_KERNELS=portable in the environment forces one. Thread-safe. */
const struct mn_kernels *mn_kernels_best(void);
/* By name, or NULL when it is unknown or this CPU lacks it. */
const struct mn_kernels *mn_kernels_named(const char *name);

#endif
