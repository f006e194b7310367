/*
 * kernels.h - the arithmetic of recall, per instruction set behind one table.
 *
 * Every implementation adds in the same order (MN_KERNEL_LANES lanes, lane i takes elements i, i + 32, ...; then lanes
 * are folded in halves: i += i + 16, i += i + 8, ... ; no fused multiply-add), so that all give the same answer to the
 * last bit. 32 lanes are two AVX-512 or four AVX2 registers: enough to hide the latency of an addition.
 */
#ifndef MN_ENGINE_KERNELS_H
#define MN_ENGINE_KERNELS_H

#include "engine/types.h"

#define MN_KERNEL_LANES      32
#define MN_KERNEL_NORM_LANES 16 /* of `check`, in double */

struct mn_kernels {
    const char *name; /* "avx512", "avx2", "portable" */
    /* Inner product and squared Euclidean distance of n floats; any alignment. */
    float (*dot)(const float *a, const float *b, uint32_t n);
    float (*l2)(const float *a, const float *b, uint32_t n);
    /* False when any of n floats (little-endian, any alignment) is NaN or Inf; *norm2 = sum of squares in double. */
    bool (*check)(const void *floats, uint32_t n, double *norm2);
};

/* The best this CPU and its kernel (XCR0) support; MNEME_KERNELS=portable in the environment forces one (a name that is
 * unknown or unsupported here changes nothing). Thread-safe. */
const struct mn_kernels *mn_kernels_best(void);
/* By name, or NULL when it is unknown or this CPU lacks it. */
const struct mn_kernels *mn_kernels_named(const char *name);

/* The implementations themselves: for kernels.c, which knows what the CPU can do. */
extern const struct mn_kernels mn_kernels_portable;
#if defined(__x86_64__)
extern const struct mn_kernels mn_kernels_avx2;
extern const struct mn_kernels mn_kernels_avx512;
#endif

#endif
