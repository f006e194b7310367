/*
 * kernels.h - the arithmetic of recall, per instruction set behind one table.
 *
 * Every implementation of what an answer depends on adds in the same order (MN_KERNEL_LANES lanes, lane i takes elements i, i + 32, ...; then lanes
 * are folded in halves: i += i + 16, i += i + 8, ... ; no fused multiply-add), so that all give the same answer to the
 * last bit. 32 lanes are two AVX-512 or four AVX2 registers: enough to hide the latency of an addition.
 */
#ifndef MN_ENGINE_KERNELS_H
#define MN_ENGINE_KERNELS_H

#include "engine/types.h"

#define MN_KERNEL_LANES      32
#define MN_KERNEL_NORM_LANES 16 /* of `check`, in double */

/* A query as the 1-bit codes of one codebook see it (engine/ivf.h). width is a multiple of 64. */
struct mn_scan_query {
    uint32_t width;
    const uint8_t *table; /* [width / 4][16], 64-byte aligned: entry b of group t is the sum of q[4t + i] over the set
                             bits i of b, less the smallest such sum, in steps of `step`, rounded: 0..31 (5 bits, so that
                             eight entries add up in a byte) */
    float step;           /* value of one unit; 0 for a zero query */
    float bias;           /* <bits, q> - sum(q)/2 is about step * (sum of entries) + bias */
};

/* A query as the 8-bit codes see it. */
struct mn_fine_query {
    const int8_t *codes; /* [width], 64-byte aligned: q[i] / step, rounded, -127..127 */
    float step;          /* 0 for a zero query */
    int32_t sum;         /* of codes */
    float lost;          /* |q - step * codes|, rounded up */
};

struct mn_kernels {
    const char *name; /* "avx512", "avx2", "portable" */
    /* Inner product and squared Euclidean distance of n floats; any alignment. */
    float (*dot)(const float *a, const float *b, uint32_t n);
    float (*l2)(const float *a, const float *b, uint32_t n);
    /* False when any of n floats (little-endian, any alignment) is NaN or Inf; *norm2 = sum of squares in double. */
    bool (*check)(const void *floats, uint32_t n, double *norm2);

    /* ---- codes (engine/ivf.h); width is a multiple of 64; the same bits on every instruction set ---- */

    /* The rotation of engine/codebook.h, in place, on `width` floats, 64-byte aligned. signs: [4][width / 32]. */
    void (*rotate)(float *x, uint32_t width, const uint32_t *signs);
    /* Fills query->step and bias, and table[width / 4][16]. q: 64-byte aligned. */
    void (*make_table)(const float *q, uint32_t width, uint8_t *table, struct mn_scan_query *query);
    /* Fills query->step, sum and lost, and codes[width]. */
    void (*make_fine)(const float *q, uint32_t width, int8_t *codes, struct mn_fine_query *query);
    /* One block of 32 rows: low[i] = (add + gap + slope * (step * entries + bias)) - error * reach, in this order of
     * roundings, for every lane; returns the lanes with low < limit, bit i for lane i. reach has epsilon in it. low:
     * 64-byte aligned. */
    uint32_t (*scan_block)(const struct mn_scan_query *query, const uint8_t *block, float gap, float reach, float limit,
                           float low[32]);
    /* Sum of codes[i] * query[i], exact. Both 64-byte aligned, width of them. */
    int32_t (*dot8)(const uint8_t *codes, const int8_t *query, uint32_t width);
    /* Residual r = x - c (c NULL: x) as codes8[width] of ivf.h and its 1-bit nibbles, bits[width / 8] (bit i: r[i] > 0);
     * sums[0..5] = |r|^2, |r|_1, <bits - 1/2, c>, max|r|, <r, y8>, <y8, c>, in 32 lanes as above. */
    void (*encode)(const float *x, const float *c, uint32_t width, uint8_t *codes8, uint8_t *bits, float sums[6]);

    /* ---- training and assignment: fused and reordered as is fastest; not the same bits everywhere ---- */

    /* out[i * out_stride + j] = <a_i, b_j>, for na rows of a and nb rows of b, each width floats, 64-byte aligned.
     * Register-blocked. */
    void (*products)(const float *a, uint32_t na, const float *b, uint32_t nb, uint32_t width, float *out,
                     uint32_t out_stride);
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
