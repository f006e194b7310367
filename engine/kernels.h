/*
 * kernels.h - the arithmetic of recall, per instruction set behind one table.
 *
 * Every implementation of what an answer depends on gives the same answer to the last bit: the operations named below,
 * each rounded once to float, never fused; and sums in one order: MN_KERNEL_LANES lanes, lane i takes elements i,
 * i + 32, ...; then lanes are folded in halves: i += i + 16, i += i + 8, ... 32 lanes are two AVX-512 or four AVX2
 * registers: enough to hide the latency of an addition. "Rounded" to an integer is to nearest, ties to even.
 */
#ifndef MN_ENGINE_KERNELS_H
#define MN_ENGINE_KERNELS_H

#include "engine/types.h"

#define MN_KERNEL_LANES      32
#define MN_KERNEL_NORM_LANES 16 /* of `check`, in double */

/* What is smaller than this in the largest coordinate counts as zero: its reciprocal must stay finite. */
#define MN_KERNEL_TINY 0x1p-100f

/* The longest embedding of a store and of a query under ip and l2, its norm squared: no score of two such is beyond a
 * float. */
#define MN_KERNEL_NORM2_MAX 0x1p125
/* MN_BAD_VALUE for a longer one; what metric it is, is for the sentence. */
enum mn_status mn_kernel_check_norm(enum mn_metric metric, double norm2) MN_MUST_USE;

/* By what share at most a sum of `width` squares in lanes is off; of products: share of the product of their norms. */
static inline float mn_kernel_rounding(uint32_t width)
{
    uint32_t additions = width / MN_KERNEL_LANES + 32;
    return (float)additions * 0x1p-23f;
}

/* A query as the 1-bit codes of one codebook see it (engine/ivf.h). width is a multiple of 64. */
struct mn_scan_query {
    uint32_t width;
    const uint8_t *table; /* [width / 4][16], 64-byte aligned: entry b of group t is the sum of q[4t + i] over the set
                             bits i of b, less the smallest such sum, in steps of `step`, rounded: 0..31 (5 bits, so
                             that eight entries add up in a byte) */
    float step;           /* value of one unit; 0 for a zero query */
    float bias; /* <bits, q> - sum(q)/2 is about step * (sum of entries) + bias. It is -step times the mean sum
                   of entries, so that what rounding the entries costs is 0 on average over all codes */
};

/* A query as the 8-bit codes see it. */
struct mn_fine_query {
    uint32_t width;
    const int8_t *codes; /* [width], 64-byte aligned: q[i] / step, rounded, -127..127 */
    float step;          /* 0 for a zero query */
    int32_t sum;         /* of codes */
    float lost;          /* |q - step * codes|, rounded up: never less than the true value */
};

/* What `encode` adds up of a residual r, with y = bits - 1/2 and y8 = codes8 - 127.5. */
struct mn_code_sums {
    float norm2, norm1, max; /* |r|^2, sum of |r[i]|, largest |r[i]| */
    float center;            /* <y, c> */
    float fine, fine_center; /* <r, y8>, <y8, c> */
    float scale;             /* norm2 / fine, 0 when that is not positive: scale * y8 is about r */
    float lost2;             /* |r - scale * y8|^2 */
};

struct mn_kernels {
    const char *name; /* "avx512", "avx2", "portable" */
    /* Inner product and squared Euclidean distance of n floats; any alignment. */
    float (*dot)(const float *a, const float *b, uint32_t n);
    float (*l2)(const float *a, const float *b, uint32_t n);
    /* The same of several queries and rows: out[i * nr + j] = dot(q[i], r[j]). Several at a time, so that what is
     * loaded is used more than once. */
    void (*dots)(const float *const *q, uint32_t nq, const float *const *r, uint32_t nr, uint32_t n, float *out);
    void (*l2s)(const float *const *q, uint32_t nq, const float *const *r, uint32_t nr, uint32_t n, float *out);
    /* False when any of n floats (little-endian, any alignment) is NaN or Inf; *norm2 = sum of squares in double. */
    bool (*check)(const void *floats, uint32_t n, double *norm2);

    /* ---- codes (engine/ivf.h); width is a multiple of 64; the same bits on every instruction set ---- */

    /* The rotation of codebook.h, in place, on `width` floats, 64-byte aligned. signs: [4][width / 32], bit i % 32
     * of word i / 32 negates x[i]. With P = 2^floor(log2 width), for round = 0..3:
     *   x[i] *= f, or -f where the sign bit is set: f is 1/sqrt(P) in the first (odd rounds: last) P coordinates and 1
     *     elsewhere; a quarter of that in round 0 unless width = P (below);
     *   in those P coordinates, y, for h = 1, 2, 4 .. P/2: wherever i & h = 0,
     *     (y[i], y[i + h]) = (y[i] + y[i + h], y[i] - y[i + h]);
     *   unless width = P, with h = width/2: (x[i], x[i + h]) = (x[i] + x[i + h], x[i] - x[i + h]). The 1/sqrt 2 that
     *     makes a butterfly orthonormal makes 1/4 of four: exact, and taken at the beginning.
     * Distances change by 4 (log2 P + 3) 2^-24 of the length of x at most. No step exceeds 2 |x|. */
    void (*rotate)(float *x, uint32_t width, const uint32_t *signs);
    /* Fills query->width, table, step and bias, and table[width / 4][16]. q: 64-byte aligned. With c(i, bit) = max(q,
     * 0) for a set bit and max(-q, 0) for another, an entry is (c0 + c1) + (c2 + c3), times 31 / largest, rounded. */
    void (*make_table)(const float *q, uint32_t width, uint8_t *table, struct mn_scan_query *query);
    /* Fills all of *query, and codes[width]: q[i] * (127 / largest |q[i]|), rounded. */
    void (*make_fine)(const float *q, uint32_t width, int8_t *codes, struct mn_fine_query *query);
    /* One block of 32 rows: low[i] = ((add + gap) + slope * (step * entries + bias)) - error * reach for every lane;
     * returns the lanes with low < limit, bit i for lane i. reach has epsilon in it. Lanes without a row are far
     * (MN_IVF_FAR), not absent: a limit above that returns them. low: 64-byte aligned. */
    uint32_t (*scan_block)(const struct mn_scan_query *query, const uint8_t *block, float gap, float reach, float limit,
                           float low[32]);
    /* The same with a gap and a reach of each lane (64-byte aligned), and meanwhile the block at `ahead` (one that will
     * be scanned soon; NULL: none) comes into the second level's cache. Asked for line by line between the additions
     * that costs next to nothing; in one go before the scan, a fifth of it. */
    uint32_t (*scan_ahead)(const struct mn_scan_query *query, const uint8_t *block, const uint8_t *ahead,
                           const float gaps[32], const float reaches[32], float limit, float low[32]);
    /* Sum of codes[i] * query[i], exact. Both 64-byte aligned, width of them (65536 of any values fit an int32_t). */
    int32_t (*dot8)(const uint8_t *codes, const int8_t *query, uint32_t width);
    /* The same of several: out[i * nr + j] = dot8(r[j], q[i]). */
    void (*dots8)(const int8_t *const *q, uint32_t nq, const uint8_t *const *r, uint32_t nr, uint32_t width,
                  int32_t *out);
    /* Residual r = x - c (c NULL: x) as codes8[width], r[i] * (127.99 / max) + 128 cut off to an integer, and as its
     * signs, bits[width / 8] (bit i % 8 of byte i / 8: r[i] > 0). All 64-byte aligned; codes8 too. */
    void (*encode)(const float *x, const float *c, uint32_t width, uint8_t *codes8, uint8_t *bits,
                   struct mn_code_sums *sums);

    /* ---- training and assignment: fused and reordered as is fastest; not the same bits everywhere ---- */

    /* out[i * out_stride + j] = <a_i, b_j>, for na rows of a and nb rows of b, each width floats, 64-byte aligned.
     * Register-blocked, and blocked for the caches. */
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
