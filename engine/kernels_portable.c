/*
 * kernels_portable.c - the kernels for any CPU: vectors of four floats, which every 64-bit machine has.
 *
 * Also the definition that the other implementations are tested against, bit for bit.
 */
#include "engine/kernels.h"

#define WIDTH  4
#define BLOCKS (MN_KERNEL_LANES / WIDTH)

typedef float vec __attribute__((vector_size(4 * WIDTH)));

static inline vec load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Folds the lanes in halves. */
static float fold(vec sum[BLOCKS])
{
    for (unsigned half = BLOCKS / 2; half > 0; half /= 2) {
        for (unsigned i = 0; i < half; i++)
            sum[i] += sum[i + half];
    }
    vec s = sum[0];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

static inline void add_dot(vec sum[BLOCKS], const float *a, const float *b)
{
    for (unsigned i = 0; i < BLOCKS; i++)
        sum[i] += load(a + i * WIDTH) * load(b + i * WIDTH);
}

static inline void add_l2(vec sum[BLOCKS], const float *a, const float *b)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        vec d = load(a + i * WIDTH) - load(b + i * WIDTH);
        sum[i] += d * d;
    }
}

/* The last n % 32 floats go through `add` with zeros behind them. A lane that adds +0 keeps its bits: it starts at +0
 * and no sum of ours is -0. */
#define DEFINE(name, add)                                                                                              \
    static float name(const float *a, const float *b, uint32_t n)                                                      \
    {                                                                                                                  \
        vec sum[BLOCKS] = {{0}};                                                                                       \
        uint32_t i = 0;                                                                                                \
        for (; n - i >= MN_KERNEL_LANES; i += MN_KERNEL_LANES)                                                         \
            add(sum, a + i, b + i);                                                                                    \
        if (i < n) {                                                                                                   \
            float rest_a[MN_KERNEL_LANES] = {0}, rest_b[MN_KERNEL_LANES] = {0};                                        \
            memcpy(rest_a, a + i, (n - i) * sizeof *a);                                                                \
            memcpy(rest_b, b + i, (n - i) * sizeof *b);                                                                \
            add(sum, rest_a, rest_b);                                                                                  \
        }                                                                                                              \
        return fold(sum);                                                                                              \
    }
DEFINE(dot, add_dot)
DEFINE(l2, add_l2)

static bool check(const void *floats, uint32_t n, double *norm2)
{
    const char *bytes = floats;
    double sum[MN_KERNEL_NORM_LANES] = {0};
    bool finite = true;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        float x;
        memcpy(&bits, bytes + (size_t)i * sizeof bits, sizeof bits);
        memcpy(&x, &bits, sizeof x);
        finite &= (bits & 0x7f800000u) != 0x7f800000u;
        sum[i % MN_KERNEL_NORM_LANES] += (double)x * (double)x;
    }
    for (unsigned half = MN_KERNEL_NORM_LANES / 2; half > 0; half /= 2) {
        for (unsigned i = 0; i < half; i++)
            sum[i] += sum[i + half];
    }
    *norm2 = sum[0];
    return finite;
}

const struct mn_kernels mn_kernels_portable = {.name = "portable", .dot = dot, .l2 = l2, .check = check};
