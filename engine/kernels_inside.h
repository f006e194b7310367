/*
 * kernels_inside.h - what the implementations of the kernels share: single numbers, always in the same operations.
 */
#ifndef MN_ENGINE_KERNELS_INSIDE_H
#define MN_ENGINE_KERNELS_INSIDE_H

#include "engine/kernels.h"

#include <math.h>

/* How numbers up to `largest` become `levels` steps. Nothing (0 units) of what is tiny. */
struct mn_kernel_grid {
    float units, step; /* what to multiply by; what one unit is worth */
};
static inline struct mn_kernel_grid mn_kernel_grid(float largest, float levels)
{
    if (largest < MN_KERNEL_TINY)
        return (struct mn_kernel_grid){0, 0};
    return (struct mn_kernel_grid){levels / largest, largest / levels};
}

/* Of mn_scan_query: `total` is the sum of all entries of the table, 16 a group. */
static inline float mn_kernel_bias(float step, uint32_t total)
{
    return -step * ((float)total * 0.0625f);
}

/* Of mn_fine_query, rounded up. squares: the sum in lanes of `width` squares of q[i] - step * codes[i]. Each may be off
 * by the rounding of a product that is not above `largest`, and each square may have lost 2^-150. */
static inline float mn_kernel_lost(float squares, float largest, uint32_t width)
{
    float root = sqrtf((float)width);
    return sqrtf(squares) * (1 + mn_kernel_rounding(width)) + root * 0x1p-74f + largest * root * 0x1p-23f;
}

/* P of the rotation. */
static inline uint32_t mn_kernel_power(uint32_t width)
{
    return UINT32_C(1) << (31 - (unsigned)__builtin_clz(width));
}

/* The factor of a round in the P coordinates of the transform, and that of the others. */
static inline void mn_kernel_factors(uint32_t width, uint32_t power, unsigned round, float *inside, float *outside)
{
    *outside = round == 0 && power < width ? 0.25f : 1.0f;
    *inside = *outside / sqrtf((float)power);
}

/* Bytes behind the 1-bit codes of a block: struct mn_ivf_lanes. */
#define MN_KERNEL_FACTORS 384u

/* The same for every lane of a block. */
static inline void mn_kernel_spread(float value, float lanes[32])
{
    for (unsigned i = 0; i < 32; i++)
        lanes[i] = value;
}

/* Several queries and rows, pair by pair: `one` of each. A row that was just read is in the first level's cache. */
#define MN_KERNEL_PAIRS(name, one, query, row, result)                                                                 \
    static void name(const query *const *q, uint32_t nq, const row *const *r, uint32_t nr, uint32_t n, result *out)    \
    {                                                                                                                  \
        for (uint32_t j = 0; j < nr; j++)                                                                              \
            for (uint32_t i = 0; i < nq; i++)                                                                          \
                out[(size_t)i * nr + j] = one(q[i], r[j], n);                                                          \
    }

/* How many rows of a `products` keeps in the second-level cache while it goes through b: a multiple of 4. */
static inline uint32_t mn_kernel_tile(uint32_t width)
{
    uint32_t rows = (UINT32_C(1) << 16) / width;
    return rows < 8 ? 8 : rows / 4 * 4;
}

/* Four of n rows. Those behind the last are the last once more; what they give is not stored. */
static inline void mn_kernel_rows4(const float *p, uint32_t n, uint32_t width, const float *rows[4])
{
    for (unsigned i = 0; i < 4; i++)
        rows[i] = p + (size_t)(i < n ? i : n - 1) * width;
}

#endif
