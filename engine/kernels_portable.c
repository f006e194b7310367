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

/* ---- codes: widths are multiples of 64, nothing is left over ---- */

typedef int32_t ivec __attribute__((vector_size(4 * WIDTH)));

static inline void store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

static inline vec all(float x)
{
    return (vec){x, x, x, x};
}

static inline vec size_of(vec x)
{
    return (vec)((ivec)x & 0x7fffffff);
}

/* `yes` where the mask is -1, `no` where it is 0. */
static inline vec choose(ivec mask, vec yes, vec no)
{
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

static inline vec larger(vec a, vec b)
{
    return choose(a > b, a, b);
}

static inline float largest_of(vec x)
{
    float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
}

/* To the nearest integers, ties to even, for |x| < 2^22: the addition leaves no bits behind the point. */
static inline ivec nearest(vec x)
{
    return (ivec)(x + 0x1.8p23f) - 0x4b400000;
}

/* The lowest byte of each. */
static inline void store_bytes(void *p, ivec v)
{
    uint8_t bytes[WIDTH];
    for (unsigned i = 0; i < WIDTH; i++)
        bytes[i] = (uint8_t)v[i];
    memcpy(p, bytes, sizeof bytes);
}

/* x[i] *= factor, negated where the bit is set. */
static void multiply_signed(float *x, uint32_t n, const uint32_t *signs, float factor)
{
    const ivec lane = {1, 2, 4, 8};
    for (uint32_t i = 0; i < n; i += WIDTH) {
        ivec set = ((int32_t)(signs[i / 32] >> i % 32 & 15) & lane) != 0;
        store(x + i, load(x + i) * (vec)((ivec)all(factor) ^ (set & INT32_MIN)));
    }
}

/* Stages 1 and 2 of the Hadamard transform, inside a vector. Times 1 or -1 is exact. */
static inline vec hadamard4(vec x)
{
    x = x * (vec){1, -1, 1, -1} + __builtin_shufflevector(x, x, 1, 0, 3, 2);
    return x * (vec){1, 1, -1, -1} + __builtin_shufflevector(x, x, 2, 3, 0, 1);
}

/* Stage h, a multiple of 4, of n floats. */
static void stage(float *y, uint32_t n, uint32_t h)
{
    for (uint32_t i = 0; i < n; i += 2 * h) {
        for (uint32_t j = i; j < i + h; j += WIDTH) {
            vec a = load(y + j), b = load(y + j + h);
            store(y + j, a + b);
            store(y + j + h, a - b);
        }
    }
}

static void rotate(float *x, uint32_t width, const uint32_t *signs)
{
    uint32_t power = mn_kernel_power(width);
    for (unsigned round = 0; round < 4; round++, signs += width / 32) {
        uint32_t begin = round % 2 == 0 ? 0 : width - power, others = round % 2 == 0 ? power : 0;
        float inside, outside, *y = x + begin;
        mn_kernel_factors(width, power, round, &inside, &outside);
        multiply_signed(y, power, signs + begin / 32, inside);
        multiply_signed(x + others, width - power, signs + others / 32, outside);
        for (uint32_t i = 0; i < power; i += WIDTH)
            store(y + i, hadamard4(load(y + i)));
        for (uint32_t h = WIDTH; h < power; h *= 2)
            stage(y, power, h);
        if (power < width)
            stage(x, width, width / 2);
    }
}

static float largest_range(const float *q, uint32_t width)
{
    float range = 0;
    for (uint32_t i = 0; i < width; i += WIDTH) {
        vec size = size_of(load(q + i));
        float sum = (size[0] + size[1]) + (size[2] + size[3]);
        range = sum > range ? sum : range;
    }
    return range;
}

/* The table of four coordinates; returns the sum of its entries. Of two coordinates there are four sums: `low` for bits
 * 0 and 1, `high` for 2 and 3. */
static inline uint32_t make_entries(vec q, float units, uint8_t table[16])
{
    vec zero = {0}, set = choose(q > zero, q, zero), clear = choose(q < zero, -q, zero);
    vec low = (vec){clear[0], set[0], clear[0], set[0]} + (vec){clear[1], clear[1], set[1], set[1]};
    vec high = (vec){clear[2], set[2], clear[2], set[2]} + (vec){clear[3], clear[3], set[3], set[3]};
    ivec total = {0};
    for (unsigned k = 0; k < 4; k++) {
        ivec entries = nearest((low + all(high[k])) * units);
        store_bytes(table + 4 * k, entries);
        total += entries;
    }
    return (uint32_t)(total[0] + total[1] + total[2] + total[3]);
}

static void make_table(const float *q, uint32_t width, uint8_t *table, struct mn_scan_query *query)
{
    struct mn_kernel_grid grid = mn_kernel_grid(largest_range(q, width), 31);
    uint32_t total = 0;
    for (uint32_t i = 0; i < width; i += WIDTH)
        total += make_entries(load(q + i), grid.units, table + 4 * (size_t)i);
    *query = (struct mn_scan_query){width, table, grid.step, mn_kernel_bias(grid.step, total)};
}

static float largest(const float *x, uint32_t n)
{
    vec max = {0};
    for (uint32_t i = 0; i < n; i += WIDTH)
        max = larger(size_of(load(x + i)), max);
    return largest_of(max);
}

static void make_fine(const float *q, uint32_t width, int8_t *codes, struct mn_fine_query *query)
{
    float max = largest(q, width);
    struct mn_kernel_grid grid = mn_kernel_grid(max, 127);
    vec lost[BLOCKS] = {{0}};
    ivec sum = {0};
    for (uint32_t i = 0; i < width; i += WIDTH) {
        ivec code = nearest(load(q + i) * grid.units);
        vec rest = load(q + i) - grid.step * __builtin_convertvector(code, vec);
        store_bytes(codes + i, code);
        sum += code;
        lost[i / WIDTH % BLOCKS] += rest * rest;
    }
    float above = mn_kernel_lost(fold(lost), max, width);
    *query = (struct mn_fine_query){width, codes, grid.step, sum[0] + sum[1] + sum[2] + sum[3], above};
}

/* A byte of a table after the other, so that the two sums of its rows stay in registers. */
static uint32_t scan_ahead(const struct mn_scan_query *query, const uint8_t *block, const uint8_t *ahead,
                           const float gaps[32], const float reaches[32], float limit, float low[32])
{
    static const uint8_t lane_of[16] = {0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15};
    size_t bytes = 4 * (size_t)query->width;
    int32_t sums[32];
    uint32_t below = 0;
    for (size_t i = 0; ahead && i < bytes + MN_KERNEL_FACTORS; i += 64)
        __builtin_prefetch(ahead + i, 0, 2);
    for (size_t j = 0; j < 16; j++) {
        int32_t first = 0, second = 0;
        for (size_t i = 0; i < bytes; i += 16) {
            unsigned code = block[i + j];
            first += query->table[i + (code & 15)];
            second += query->table[i + (code >> 4)];
        }
        sums[lane_of[j]] = first;
        sums[lane_of[j] + 16] = second;
    }
    const float *add = (const float *)(const void *)(block + bytes), *slope = add + 32, *error = add + 64;
    for (unsigned i = 0; i < 32; i++) {
        float product = slope[i] * (query->step * (float)sums[i] + query->bias);
        low[i] = ((add[i] + gaps[i]) + product) - error[i] * reaches[i];
        below |= (uint32_t)(low[i] < limit) << i;
    }
    return below;
}

static uint32_t scan_block(const struct mn_scan_query *query, const uint8_t *block, float gap, float reach, float limit,
                           float low[32])
{
    float gaps[32], reaches[32];
    mn_kernel_spread(gap, gaps);
    mn_kernel_spread(reach, reaches);
    return scan_ahead(query, block, NULL, gaps, reaches, limit, low);
}

static int32_t dot8(const uint8_t *codes, const int8_t *query, uint32_t width)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < width; i++)
        sum += (int32_t)codes[i] * (int32_t)query[i];
    return sum;
}

static inline vec center(const float *c, uint32_t i)
{
    return c ? load(c + i) : (vec){0};
}

static void encode_signs(const float *x, const float *c, uint32_t width, uint8_t *bits, struct mn_code_sums *sums)
{
    vec norm2[BLOCKS] = {{0}}, norm1[BLOCKS] = {{0}}, centers[BLOCKS] = {{0}}, max = {0}, half = all(0.5f);
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        ivec word = {0}, lane = {1, 2, 4, 8};
        for (unsigned j = 0; j < BLOCKS; j++, lane <<= WIDTH) {
            vec from = center(c, i + j * WIDTH), r = load(x + i + j * WIDTH) - from, size = size_of(r);
            ivec positive = r > 0;
            norm2[j] += r * r;
            norm1[j] += size;
            centers[j] += choose(positive, half, -half) * from;
            max = larger(size, max);
            word |= positive & lane;
        }
        uint32_t all_bits = (uint32_t)(word[0] | word[1] | word[2] | word[3]);
        for (unsigned j = 0; j < 4; j++)
            bits[i / 8 + j] = (uint8_t)(all_bits >> 8 * j);
    }
    *sums = (struct mn_code_sums){fold(norm2), fold(norm1), largest_of(max), fold(centers), 0, 0, 0, 0};
}

static void encode_codes(const float *x, const float *c, uint32_t width, uint8_t *codes, struct mn_code_sums *sums)
{
    vec fine[BLOCKS] = {{0}}, centers[BLOCKS] = {{0}};
    float units = mn_kernel_grid(sums->max, 127.99f).units;
    for (uint32_t i = 0; i < width; i += WIDTH) {
        vec from = center(c, i), r = load(x + i) - from;
        ivec code = __builtin_convertvector(r * units + 128, ivec); /* cuts off */
        vec y = __builtin_convertvector(code, vec) - 127.5f;
        store_bytes(codes + i, code);
        fine[i / WIDTH % BLOCKS] += r * y;
        centers[i / WIDTH % BLOCKS] += y * from;
    }
    sums->fine = fold(fine);
    sums->fine_center = fold(centers);
    sums->scale = sums->fine > 0 ? sums->norm2 / sums->fine : 0;
}

static void encode(const float *x, const float *c, uint32_t width, uint8_t *codes8, uint8_t *bits,
                   struct mn_code_sums *sums)
{
    vec lost[BLOCKS] = {{0}};
    encode_signs(x, c, width, bits, sums);
    encode_codes(x, c, width, codes8, sums);
    for (uint32_t i = 0; i < width; i += WIDTH) {
        vec y = (vec){codes8[i], codes8[i + 1], codes8[i + 2], codes8[i + 3]} - 127.5f;
        vec d = (load(x + i) - center(c, i)) - sums->scale * y;
        lost[i / WIDTH % BLOCKS] += d * d;
    }
    sums->lost2 = fold(lost);
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

/* ---- several at once ---- */

static int32_t dot8_swapped(const int8_t *query, const uint8_t *codes, uint32_t width)
{
    return dot8(codes, query, width);
}
MN_KERNEL_PAIRS(dots, dot, float, float, float)
MN_KERNEL_PAIRS(l2s, l2, float, float, float)
MN_KERNEL_PAIRS(dots8, dot8_swapped, int8_t, uint8_t, int32_t)

const struct mn_kernels mn_kernels_portable = {.name = "portable",
                                               .dot = dot,
                                               .l2 = l2,
                                               .dots = dots,
                                               .l2s = l2s,
                                               .check = check,
                                               .rotate = rotate,
                                               .make_table = make_table,
                                               .make_fine = make_fine,
                                               .scan_block = scan_block,
                                               .scan_ahead = scan_ahead,
                                               .dot8 = dot8,
                                               .dots8 = dots8,
                                               .encode = encode,
                                               .products = products};
