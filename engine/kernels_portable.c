/*
 * kernels_portable.c - the kernels for any CPU: vectors of four floats, which every 64-bit machine has.
 *
 * Also the definition that the other implementations are tested against, bit for bit.
 */
#include "engine/kernels_inside.h"

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

/* ---- codes ---- */

/* Sums and maxima in lanes: every vector that is summed here is a multiple of 32 long. */
struct lanes {
    float lane[MN_KERNEL_LANES];
};

static float sum_lanes(struct lanes *s)
{
    for (unsigned half = MN_KERNEL_LANES / 2; half > 0; half /= 2) {
        for (unsigned i = 0; i < half; i++)
            s->lane[i] += s->lane[i + half];
    }
    return s->lane[0];
}

/* To the nearest integer, ties to even, for |x| < 2^22: the addition leaves no bits behind the point. */
static inline int32_t nearest(float x)
{
    float shifted = x + 0x1.8p23f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return bits - 0x4b400000;
}

static float largest(const float *x, uint32_t n)
{
    struct lanes max = {{0}};
    for (uint32_t i = 0; i < n; i += MN_KERNEL_LANES) {
        for (unsigned j = 0; j < MN_KERNEL_LANES; j++) {
            float size = fabsf(x[i + j]);
            max.lane[j] = size > max.lane[j] ? size : max.lane[j];
        }
    }
    for (unsigned j = 1; j < MN_KERNEL_LANES; j++)
        max.lane[0] = max.lane[j] > max.lane[0] ? max.lane[j] : max.lane[0];
    return max.lane[0];
}

/* x[i] *= factor, negated where the bit is set. */
static void multiply_signed(float *x, uint32_t n, const uint32_t *signs, float factor)
{
    float factors[2] = {factor, -factor};
    for (uint32_t i = 0; i < n; i++)
        x[i] *= factors[signs[i / 32] >> i % 32 & 1];
}

static void hadamard(float *y, uint32_t n)
{
    for (uint32_t h = 1; h < n; h *= 2) {
        for (uint32_t i = 0; i < n; i += 2 * h) {
            for (uint32_t j = i; j < i + h; j++) {
                float a = y[j], b = y[j + h];
                y[j] = a + b;
                y[j + h] = a - b;
            }
        }
    }
}

static void rotate(float *x, uint32_t width, const uint32_t *signs)
{
    uint32_t power = mn_kernel_power(width), half = width / 2;
    for (unsigned round = 0; round < 4; round++, signs += width / 32) {
        uint32_t begin = round % 2 == 0 ? 0 : width - power, others = round % 2 == 0 ? power : 0;
        float inside, outside;
        mn_kernel_factors(width, power, round, &inside, &outside);
        multiply_signed(x + begin, power, signs + begin / 32, inside);
        multiply_signed(x + others, width - power, signs + others / 32, outside);
        hadamard(x + begin, power);
        for (uint32_t i = 0; power < width && i < half; i++) {
            float a = x[i], b = x[i + half];
            x[i] = a + b;
            x[i + half] = a - b;
        }
    }
}

/* What bit i being set (index 1) or clear (0) adds to an entry of the table. */
static inline float part(float q, unsigned set)
{
    return set ? (q > 0 ? q : 0) : (q < 0 ? -q : 0);
}

static inline float entry(const float *q, unsigned bits)
{
    return (part(q[0], bits & 1) + part(q[1], bits >> 1 & 1)) + (part(q[2], bits >> 2 & 1) + part(q[3], bits >> 3 & 1));
}

static void make_table(const float *q, uint32_t width, uint8_t *table, struct mn_scan_query *query)
{
    float range = 0;
    for (uint32_t i = 0; i < width; i += 4) {
        float size = (fabsf(q[i]) + fabsf(q[i + 1])) + (fabsf(q[i + 2]) + fabsf(q[i + 3]));
        range = size > range ? size : range;
    }
    struct mn_kernel_grid grid = mn_kernel_grid(range, 31);
    uint32_t total = 0;
    for (uint32_t i = 0; i < width; i += 4) {
        for (unsigned b = 0; b < 16; b++) {
            table[4 * i + b] = (uint8_t)nearest(entry(q + i, b) * grid.units);
            total += table[4 * i + b];
        }
    }
    *query = (struct mn_scan_query){width, table, grid.step, mn_kernel_bias(grid.step, total)};
}

static void make_fine(const float *q, uint32_t width, int8_t *codes, struct mn_fine_query *query)
{
    float max = largest(q, width);
    struct mn_kernel_grid grid = mn_kernel_grid(max, 127);
    struct lanes lost = {{0}};
    int32_t sum = 0;
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        for (unsigned j = 0; j < MN_KERNEL_LANES; j++) {
            int32_t code = nearest(q[i + j] * grid.units);
            float rest = q[i + j] - grid.step * (float)code;
            codes[i + j] = (int8_t)code;
            sum += code;
            lost.lane[j] += rest * rest;
        }
    }
    float above = mn_kernel_lost(sum_lanes(&lost), max, width);
    *query = (struct mn_fine_query){width, codes, grid.step, sum, above};
}

static uint32_t scan_block(const struct mn_scan_query *query, const uint8_t *block, float gap, float reach, float limit,
                           float low[32])
{
    static const uint8_t lane_of[16] = {0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15};
    uint32_t sums[32] = {0}, below = 0, width = query->width;
    for (uint32_t i = 0; i < 4 * width; i += 16) {
        for (unsigned j = 0; j < 16; j++) {
            sums[j] += query->table[i + (block[i + j] & 15)];
            sums[j + 16] += query->table[i + (block[i + j] >> 4)];
        }
    }
    const float *add = (const float *)(const void *)(block + 4 * (size_t)width), *slope = add + 32, *error = add + 64;
    for (unsigned j = 0; j < 32; j++) {
        unsigned i = lane_of[j & 15] + (j & 16);
        float product = slope[i] * (query->step * (float)sums[j] + query->bias);
        low[i] = ((add[i] + gap) + product) - error[i] * reach;
        below |= (uint32_t)(low[i] < limit) << i;
    }
    return below;
}

static int32_t dot8(const uint8_t *codes, const int8_t *query, uint32_t width)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < width; i++)
        sum += (int32_t)codes[i] * (int32_t)query[i];
    return sum;
}

static inline float center(const float *c, uint32_t i)
{
    return c ? c[i] : 0;
}

static void encode_signs(const float *x, const float *c, uint32_t width, uint8_t *bits, struct mn_code_sums *sums)
{
    struct lanes norm2 = {{0}}, norm1 = {{0}}, centers = {{0}};
    float max = 0;
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        uint32_t word = 0;
        for (unsigned j = 0; j < MN_KERNEL_LANES; j++) {
            float from = center(c, i + j), r = x[i + j] - from, size = fabsf(r);
            norm2.lane[j] += r * r;
            norm1.lane[j] += size;
            centers.lane[j] += r > 0 ? 0.5f * from : -0.5f * from;
            max = size > max ? size : max;
            word |= (uint32_t)(r > 0) << j;
        }
        for (unsigned j = 0; j < 4; j++)
            bits[i / 8 + j] = (uint8_t)(word >> 8 * j);
    }
    *sums = (struct mn_code_sums){sum_lanes(&norm2), sum_lanes(&norm1), max, sum_lanes(&centers), 0, 0, 0, 0};
}

static void encode(const float *x, const float *c, uint32_t width, uint8_t *codes8, uint8_t *bits,
                   struct mn_code_sums *sums)
{
    encode_signs(x, c, width, bits, sums);
    struct lanes fine = {{0}}, centers = {{0}}, lost = {{0}};
    float units = mn_kernel_grid(sums->max, 127.99f).units;
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        for (unsigned j = 0; j < MN_KERNEL_LANES; j++) {
            float from = center(c, i + j), r = x[i + j] - from;
            int32_t code = (int32_t)(r * units + 128);
            float y = (float)code - 127.5f;
            codes8[i + j] = (uint8_t)code;
            fine.lane[j] += r * y;
            centers.lane[j] += y * from;
        }
    }
    sums->fine = sum_lanes(&fine);
    sums->fine_center = sum_lanes(&centers);
    sums->scale = sums->fine > 0 ? sums->norm2 / sums->fine : 0;
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        for (unsigned j = 0; j < MN_KERNEL_LANES; j++) {
            float d = (x[i + j] - center(c, i + j)) - sums->scale * ((float)codes8[i + j] - 127.5f);
            lost.lane[j] += d * d;
        }
    }
    sums->lost2 = sum_lanes(&lost);
}

/* Two rows of each side at a time: four products for four loads. */
static void products(const float *a, uint32_t na, const float *b, uint32_t nb, uint32_t width, float *out,
                     uint32_t out_stride)
{
    for (uint32_t j = 0; j < nb; j += 2) {
        const float *b0 = b + (size_t)j * width, *b1 = j + 1 < nb ? b0 + width : b0;
        for (uint32_t i = 0; i < na; i += 2) {
            const float *a0 = a + (size_t)i * width, *a1 = i + 1 < na ? a0 + width : a0;
            vec sum[4] = {{0}};
            for (uint32_t k = 0; k < width; k += WIDTH) {
                vec x0 = load(a0 + k), x1 = load(a1 + k), y0 = load(b0 + k), y1 = load(b1 + k);
                sum[0] += x0 * y0;
                sum[1] += x0 * y1;
                sum[2] += x1 * y0;
                sum[3] += x1 * y1;
            }
            for (unsigned k = 0; k < 4; k++) {
                uint32_t row = i + k / 2, column = j + k % 2;
                if (row < na && column < nb)
                    out[(size_t)row * out_stride + column] = (sum[k][0] + sum[k][2]) + (sum[k][1] + sum[k][3]);
            }
        }
    }
}

const struct mn_kernels mn_kernels_portable = {.name = "portable",
                                               .dot = dot,
                                               .l2 = l2,
                                               .check = check,
                                               .rotate = rotate,
                                               .make_table = make_table,
                                               .make_fine = make_fine,
                                               .scan_block = scan_block,
                                               .dot8 = dot8,
                                               .encode = encode,
                                               .products = products};
