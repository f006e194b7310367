/*
 * kernels_avx2.c - the kernels with 256-bit registers. Same order of additions as kernels_portable.c.
 *
 * Fused instructions only in `products`, and where a factor of 1 makes them round as a sum does.
 */
#include "engine/kernels_inside.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))

struct sums {
    __m256 a, b, c, d;
};

/* 32 lanes to one, in halves. */
AVX2 static inline float fold(struct sums s)
{
    __m256 eight = _mm256_add_ps(_mm256_add_ps(s.a, s.c), _mm256_add_ps(s.b, s.d));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

AVX2 static inline __m256 add_dot(__m256 sum, const float *a, const float *b)
{
    return _mm256_add_ps(sum, _mm256_mul_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(b)));
}

AVX2 static inline __m256 add_l2(__m256 sum, const float *a, const float *b)
{
    __m256 d = _mm256_sub_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(b));
    return _mm256_add_ps(sum, _mm256_mul_ps(d, d));
}

#define DEFINE(name, add8)                                                                                             \
    AVX2 static inline struct sums name##_all(struct sums s, const float *a, const float *b)                           \
    {                                                                                                                  \
        return (struct sums){add8(s.a, a, b), add8(s.b, a + 8, b + 8), add8(s.c, a + 16, b + 16),                      \
                             add8(s.d, a + 24, b + 24)};                                                               \
    }                                                                                                                  \
    AVX2 static float name(const float *a, const float *b, uint32_t n)                                                 \
    {                                                                                                                  \
        __m256 zero = _mm256_setzero_ps();                                                                             \
        struct sums s = {zero, zero, zero, zero};                                                                      \
        uint32_t i = 0;                                                                                                \
        for (; n - i >= MN_KERNEL_LANES; i += MN_KERNEL_LANES)                                                         \
            s = name##_all(s, a + i, b + i);                                                                           \
        if (i < n) {                                                                                                   \
            float rest_a[MN_KERNEL_LANES] = {0}, rest_b[MN_KERNEL_LANES] = {0};                                        \
            memcpy(rest_a, a + i, (n - i) * sizeof *a);                                                                \
            memcpy(rest_b, b + i, (n - i) * sizeof *b);                                                                \
            s = name##_all(s, rest_a, rest_b);                                                                         \
        }                                                                                                              \
        return fold(s);                                                                                                \
    }
DEFINE(dot, add_dot)
DEFINE(l2, add_l2)

/* Adds the squares of 8 floats to 8 of the 16 lanes. */
AVX2 static inline void square8(__m256d sum[2], __m256 x)
{
    __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
    __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
    sum[0] = _mm256_add_pd(sum[0], _mm256_mul_pd(low, low));
    sum[1] = _mm256_add_pd(sum[1], _mm256_mul_pd(high, high));
}

/* All ones in each lane that holds a NaN or Inf. */
AVX2 static inline __m256i not_finite(__m256 x)
{
    __m256i exponent = _mm256_set1_epi32(0x7f800000);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(x), exponent), exponent);
}

AVX2 static bool check(const void *floats, uint32_t n, double *norm2)
{
    const float *p = floats;
    __m256d sum[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
    __m256i bad = _mm256_setzero_si256();
    uint32_t done = 0;
    while (done < n) {
        float rest[MN_KERNEL_NORM_LANES] = {0};
        const float *from = p + done;
        if (n - done < MN_KERNEL_NORM_LANES)
            from = memcpy(rest, from, (n - done) * sizeof *p);
        __m256 x = _mm256_loadu_ps(from), y = _mm256_loadu_ps(from + 8);
        bad = _mm256_or_si256(bad, _mm256_or_si256(not_finite(x), not_finite(y)));
        square8(sum, x);
        square8(sum + 2, y);
        done += n - done < MN_KERNEL_NORM_LANES ? n - done : MN_KERNEL_NORM_LANES;
    }
    __m256d four = _mm256_add_pd(_mm256_add_pd(sum[0], sum[2]), _mm256_add_pd(sum[1], sum[3]));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    *norm2 = _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
    return _mm256_testz_si256(bad, bad) != 0;
}

/* ---- codes ---- */

AVX2 static inline __m256 size8(__m256 x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

AVX2 static inline float largest8(__m256 x)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* Eight floats times `factor`, negated where the lowest bits of `signs` are set. */
AVX2 static inline __m256 times_signed(const float *x, uint32_t signs, __m256 factor)
{
    __m256i shifts = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
    __m256 bits = _mm256_castsi256_ps(_mm256_sllv_epi32(_mm256_set1_epi32((int32_t)signs), shifts));
    return _mm256_mul_ps(_mm256_load_ps(x), _mm256_xor_ps(factor, _mm256_and_ps(bits, _mm256_set1_ps(-0.0f))));
}

/* The stages of the Hadamard transform inside a register: other + x, and in the lanes of the second of a pair other -
 * x. Times 1 or -1 is exact, so the fused instruction rounds as the sum does. */
AVX2 static inline __m256 hadamard8(__m256 x)
{
    x = _mm256_fmadd_ps(x, _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1), _mm256_permute_ps(x, 0xb1));
    x = _mm256_fmadd_ps(x, _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1), _mm256_permute_ps(x, 0x4e));
    return _mm256_fmadd_ps(x, _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1), _mm256_permute2f128_ps(x, x, 1));
}

AVX2 static inline void butterfly(__m256 *a, __m256 *b)
{
    __m256 sum = _mm256_add_ps(*a, *b);
    *b = _mm256_sub_ps(*a, *b);
    *a = sum;
}

/* The first stages, on 64 neighbours that stay in registers; signs and factor on the way in. */
AVX2 static void first_stages(float *y, const uint32_t *signs, __m256 factor)
{
    __m256 v[8];
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++)
        v[i] = hadamard8(times_signed(y + 8 * i, signs[i / 4] >> 8 * (i % 4), factor));
#pragma GCC unroll 3
    for (unsigned h = 1; h < 8; h *= 2) {
#pragma GCC unroll 8
        for (unsigned i = 0; i < 8; i++) {
            if ((i & h) == 0)
                butterfly(&v[i], &v[i + h]);
        }
    }
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++)
        _mm256_store_ps(y + 8 * i, v[i]);
}

/* Stage h of n floats, n a multiple of 2h, h of 8. */
AVX2 static void stage(float *y, uint32_t n, uint32_t h)
{
    for (uint32_t i = 0; i < n; i += 2 * h) {
        for (uint32_t j = i; j < i + h; j += 8) {
            __m256 a = _mm256_load_ps(y + j), b = _mm256_load_ps(y + j + h);
            butterfly(&a, &b);
            _mm256_store_ps(y + j, a);
            _mm256_store_ps(y + j + h, b);
        }
    }
}

/* Stages h, 2h and 4h. */
AVX2 static void three_stages(float *y, uint32_t n, uint32_t h)
{
    for (uint32_t i = 0; i < n; i += 8 * h) {
        for (uint32_t j = i; j < i + h; j += 8) {
            __m256 v[8];
#pragma GCC unroll 8
            for (unsigned k = 0; k < 8; k++)
                v[k] = _mm256_load_ps(y + j + k * h);
#pragma GCC unroll 3
            for (unsigned s = 1; s < 8; s *= 2) {
#pragma GCC unroll 8
                for (unsigned k = 0; k < 8; k++) {
                    if ((k & s) == 0)
                        butterfly(&v[k], &v[k + s]);
                }
            }
#pragma GCC unroll 8
            for (unsigned k = 0; k < 8; k++)
                _mm256_store_ps(y + j + k * h, v[k]);
        }
    }
}

AVX2 static void hadamard(float *y, uint32_t n, const uint32_t *signs, float factor)
{
    uint32_t h = 64;
    for (uint32_t i = 0; i < n; i += h)
        first_stages(y + i, signs + i / 32, _mm256_set1_ps(factor));
    for (; 8 * h <= n; h *= 8)
        three_stages(y, n, h);
    for (; h < n; h *= 2)
        stage(y, n, h);
}

AVX2 static void rotate(float *x, uint32_t width, const uint32_t *signs)
{
    uint32_t power = mn_kernel_power(width);
    for (unsigned round = 0; round < 4; round++, signs += width / 32) {
        uint32_t begin = round % 2 == 0 ? 0 : width - power, others = round % 2 == 0 ? power : 0;
        float inside, outside;
        mn_kernel_factors(width, power, round, &inside, &outside);
        hadamard(x + begin, power, signs + begin / 32, inside);
        for (uint32_t i = others; i < others + (width - power); i += 8)
            _mm256_store_ps(x + i, times_signed(x + i, signs[i / 32] >> i % 32, _mm256_set1_ps(outside)));
        if (power < width)
            stage(x, width, width / 2);
    }
}

/* The largest sum of the sizes of four neighbours. */
AVX2 static float largest_range(const float *q, uint32_t width)
{
    __m256 most = _mm256_setzero_ps();
    for (uint32_t i = 0; i < width; i += 8) {
        __m256 x = size8(_mm256_load_ps(q + i));
        x = _mm256_add_ps(x, _mm256_permute_ps(x, 0xb1));
        most = _mm256_max_ps(most, _mm256_add_ps(x, _mm256_permute_ps(x, 0x4e)));
    }
    return largest8(most);
}

/* Entries 4k..4k+3 of two groups, as integers: `low` has the four sums of their first two parts, `high` of the last. */
#define ENTRIES(k) _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_add_ps(low, _mm256_permute_ps(high, (k)*0x55)), units))

/* Two groups of four to two tables. */
AVX2 static inline __m256i tables(__m256 q, __m256 units)
{
    __m256 zero = _mm256_setzero_ps();
    __m256 set = _mm256_max_ps(q, zero), clear = _mm256_max_ps(_mm256_sub_ps(zero, q), zero);
    __m256 a = _mm256_unpacklo_ps(clear, set), b = _mm256_unpackhi_ps(clear, set);
    __m256 low = _mm256_add_ps(_mm256_permute_ps(a, 0x44), _mm256_permute_ps(a, 0xfa));
    __m256 high = _mm256_add_ps(_mm256_permute_ps(b, 0x44), _mm256_permute_ps(b, 0xfa));
    return _mm256_packus_epi16(_mm256_packs_epi32(ENTRIES(0), ENTRIES(1)), _mm256_packs_epi32(ENTRIES(2), ENTRIES(3)));
}

AVX2 static inline uint32_t sum_of_64(__m256i x)
{
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    return (uint32_t)_mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
}

AVX2 static void make_table(const float *q, uint32_t width, uint8_t *table, struct mn_scan_query *query)
{
    struct mn_kernel_grid grid = mn_kernel_grid(largest_range(q, width), 31);
    __m256i total = _mm256_setzero_si256();
    for (uint32_t i = 0; i < width; i += 8) {
        __m256i two = tables(_mm256_load_ps(q + i), _mm256_set1_ps(grid.units));
        total = _mm256_add_epi64(total, _mm256_sad_epu8(two, _mm256_setzero_si256()));
        _mm256_store_si256((__m256i *)(void *)(table + 4 * (size_t)i), two);
    }
    *query = (struct mn_scan_query){width, table, grid.step, mn_kernel_bias(grid.step, sum_of_64(total))};
}

AVX2 static float largest(const float *x, uint32_t n)
{
    __m256 most = _mm256_setzero_ps();
    for (uint32_t i = 0; i < n; i += 8)
        most = _mm256_max_ps(most, size8(_mm256_load_ps(x + i)));
    return largest8(most);
}

/* Four times eight integers as bytes in their order. */
AVX2 static inline __m256i bytes_in_order(__m256i words01, __m256i words23, bool is_signed)
{
    __m256i bytes = is_signed ? _mm256_packs_epi16(words01, words23) : _mm256_packus_epi16(words01, words23);
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

AVX2 static inline __m256i fine8(const float *q, struct mn_kernel_grid grid, __m256 *lost)
{
    __m256 x = _mm256_load_ps(q);
    __m256i code = _mm256_cvtps_epi32(_mm256_mul_ps(x, _mm256_set1_ps(grid.units)));
    __m256 rest = _mm256_sub_ps(x, _mm256_mul_ps(_mm256_set1_ps(grid.step), _mm256_cvtepi32_ps(code)));
    *lost = _mm256_add_ps(*lost, _mm256_mul_ps(rest, rest));
    return code;
}

AVX2 static inline int32_t sum_of_32(__m256i x)
{
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

AVX2 static void make_fine(const float *q, uint32_t width, int8_t *codes, struct mn_fine_query *query)
{
    float most = largest(q, width);
    struct mn_kernel_grid grid = mn_kernel_grid(most, 127);
    __m256 zero = _mm256_setzero_ps();
    struct sums lost = {zero, zero, zero, zero};
    __m256i sum = _mm256_setzero_si256();
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        __m256i a = fine8(q + i, grid, &lost.a), b = fine8(q + i + 8, grid, &lost.b);
        __m256i c = fine8(q + i + 16, grid, &lost.c), d = fine8(q + i + 24, grid, &lost.d);
        __m256i bytes = bytes_in_order(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d), true);
        _mm256_store_si256((__m256i *)(void *)(codes + i), bytes);
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)));
    }
    float above = mn_kernel_lost(fold(lost), most, width);
    *query = (struct mn_fine_query){width, codes, grid.step, sum_of_32(sum), above};
}

/* Sums of entries of two tables each, 16 bits a row: eight rows of every other table in each 128 bits. Odd bytes are
 * summed alone, even bytes with the odd ones above them, which are taken away at the end. */
struct counts {
    __m256i even_low, odd_low, even_high, odd_high;
};

static inline const __m256i *at256(const void *p)
{
    return p;
}

/* Sixteen tables (of 64 coordinates): eight sums of 31 at most fit a byte. ahead: NULL, or four lines to ask for. */
AVX2 static inline __attribute__((always_inline)) void count_rows(struct counts *c, const uint8_t *codes,
                                                                  const uint8_t *table, const uint8_t *ahead)
{
    __m256i mask = _mm256_set1_epi8(15), low = _mm256_setzero_si256(), high = low;
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++) {
        __m256i code = _mm256_load_si256(at256(codes + 32 * i)), entries = _mm256_load_si256(at256(table + 32 * i));
        if (ahead && i % 2 == 0)
            __builtin_prefetch(ahead + 32 * i, 0, 2);
        __m256i upper = _mm256_and_si256(_mm256_srli_epi16(code, 4), mask);
        low = _mm256_add_epi8(low, _mm256_shuffle_epi8(entries, _mm256_and_si256(code, mask)));
        high = _mm256_add_epi8(high, _mm256_shuffle_epi8(entries, upper));
    }
    c->even_low = _mm256_add_epi16(c->even_low, low);
    c->odd_low = _mm256_add_epi16(c->odd_low, _mm256_srli_epi16(low, 8));
    c->even_high = _mm256_add_epi16(c->even_high, high);
    c->odd_high = _mm256_add_epi16(c->odd_high, _mm256_srli_epi16(high, 8));
}

/* Adds the halves, and puts 16 rows in order. */
AVX2 static inline __m256i rows_in_order(__m256i even, __m256i odd)
{
    even = _mm256_sub_epi16(even, _mm256_slli_epi16(odd, 8));
    return _mm256_add_epi16(_mm256_permute2x128_si256(even, odd, 0x20), _mm256_permute2x128_si256(even, odd, 0x31));
}

AVX2 static inline void add_rows(__m256i sums[2], __m256i rows)
{
    sums[0] = _mm256_add_epi32(sums[0], _mm256_cvtepu16_epi32(_mm256_castsi256_si128(rows)));
    sums[1] = _mm256_add_epi32(sums[1], _mm256_cvtepu16_epi32(_mm256_extracti128_si256(rows, 1)));
}

/* Tables until 16 bits might overflow: 2048 * 31. */
#define CHUNK_BYTES (UINT32_C(2048) * 16)

AVX2 static inline void count_chunk(__m256i sums[4], const uint8_t *codes, const uint8_t *table, const uint8_t *ahead,
                                    uint32_t bytes)
{
    __m256i zero = _mm256_setzero_si256();
    struct counts c = {zero, zero, zero, zero};
    for (uint32_t i = 0; i < bytes; i += 256)
        count_rows(&c, codes + i, table + i, ahead ? ahead + i : NULL);
    add_rows(sums, rows_in_order(c.even_low, c.odd_low));
    add_rows(sums + 2, rows_in_order(c.even_high, c.odd_high));
}

/* The lower bounds of 8 lanes; sums are theirs. */
AVX2 static inline uint32_t bound8(const struct mn_scan_query *query, const float *factors, __m256i sums,
                                   const float *gaps, const float *reaches, float limit, float *low)
{
    __m256 add = _mm256_load_ps(factors), slope = _mm256_load_ps(factors + 32), error = _mm256_load_ps(factors + 64);
    __m256 x = _mm256_mul_ps(_mm256_set1_ps(query->step), _mm256_cvtepi32_ps(sums));
    x = _mm256_mul_ps(slope, _mm256_add_ps(x, _mm256_set1_ps(query->bias)));
    x = _mm256_add_ps(_mm256_add_ps(add, _mm256_load_ps(gaps)), x);
    x = _mm256_sub_ps(x, _mm256_mul_ps(error, _mm256_load_ps(reaches)));
    _mm256_store_ps(low, x);
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_LT_OQ));
}

AVX2 static inline __attribute__((always_inline)) uint32_t scan(const struct mn_scan_query *query, const uint8_t *block,
                                                                const uint8_t *ahead, const float *gaps,
                                                                const float *reaches, float limit, float *low)
{
    uint32_t bytes = 4 * query->width, below = 0;
    const float *factors = (const float *)(const void *)(block + bytes);
    __m256i zero = _mm256_setzero_si256(), sums[4] = {zero, zero, zero, zero};
    for (uint32_t i = 0; i < bytes; i += CHUNK_BYTES) {
        uint32_t n = bytes - i < CHUNK_BYTES ? bytes - i : CHUNK_BYTES;
        count_chunk(sums, block + i, query->table + i, ahead ? ahead + i : NULL, n);
    }
    for (uint32_t i = bytes; ahead && i < bytes + MN_KERNEL_FACTORS; i += 64)
        __builtin_prefetch(ahead + i, 0, 2);
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++)
        below |= bound8(query, factors + 8 * i, sums[i], gaps + 8 * i, reaches + 8 * i, limit, low + 8 * i) << 8 * i;
    return below;
}

AVX2 static uint32_t scan_block(const struct mn_scan_query *query, const uint8_t *block, float gap, float reach,
                                float limit, float low[32])
{
    _Alignas(64) float gaps[32], reaches[32];
    mn_kernel_spread(gap, gaps);
    mn_kernel_spread(reach, reaches);
    return scan(query, block, NULL, gaps, reaches, limit, low);
}

AVX2 static uint32_t scan_ahead(const struct mn_scan_query *query, const uint8_t *block, const uint8_t *ahead,
                                const float gaps[32], const float reaches[32], float limit, float low[32])
{
    return scan(query, block, ahead, gaps, reaches, limit, low);
}

/* maddubs adds two products of an unsigned and a signed byte in 16 bits and saturates: 255 * 127 twice is too much. So
 * codes - 128 instead, the sign moved to the query (-127..127: it has a negative), 128 * 127 twice at most; and 128
 * times the query, of the same size. */
AVX2 static inline __m256i dot32(__m256i sum, const uint8_t *codes, const int8_t *query)
{
    __m256i middle = _mm256_set1_epi8(-128), ones = _mm256_set1_epi16(1), q = _mm256_load_si256(at256(query));
    __m256i c = _mm256_xor_si256(_mm256_load_si256(at256(codes)), middle);
    __m256i around = _mm256_maddubs_epi16(_mm256_abs_epi8(c), _mm256_sign_epi8(q, c));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(around, ones));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(middle, q), ones));
}

AVX2 static int32_t dot8(const uint8_t *codes, const int8_t *query, uint32_t width)
{
    __m256i a = _mm256_setzero_si256(), b = a;
    for (uint32_t i = 0; i < width; i += 64) {
        a = dot32(a, codes + i, query + i);
        b = dot32(b, codes + i + 32, query + i + 32);
    }
    return sum_of_32(_mm256_add_epi32(a, b));
}

/* Eight coordinates of the centroid, and of the residual. */
AVX2 static inline __m256 center8(const float *c, uint32_t i)
{
    return c ? _mm256_load_ps(c + i) : _mm256_setzero_ps();
}

AVX2 static inline __m256 residual8(const float *x, const float *c, uint32_t i)
{
    return _mm256_sub_ps(_mm256_load_ps(x + i), center8(c, i));
}

AVX2 static inline uint32_t signs8(const float *x, const float *c, uint32_t i, __m256 *norm2, __m256 *norm1,
                                   __m256 *center, __m256 *max)
{
    __m256 from = center8(c, i), r = residual8(x, c, i), size = size8(r);
    __m256 positive = _mm256_cmp_ps(r, _mm256_setzero_ps(), _CMP_GT_OQ);
    __m256 y = _mm256_blendv_ps(_mm256_set1_ps(-0.5f), _mm256_set1_ps(0.5f), positive);
    *norm2 = _mm256_add_ps(*norm2, _mm256_mul_ps(r, r));
    *norm1 = _mm256_add_ps(*norm1, size);
    *center = _mm256_add_ps(*center, _mm256_mul_ps(y, from));
    *max = _mm256_max_ps(*max, size);
    return (uint32_t)_mm256_movemask_ps(positive);
}

AVX2 static inline void encode_signs(const float *x, const float *c, uint32_t width, uint8_t *bits,
                                     struct mn_code_sums *sums)
{
    __m256 zero = _mm256_setzero_ps(), max = zero;
    struct sums norm2 = {zero, zero, zero, zero}, norm1 = norm2, center = norm2;
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        uint32_t word = signs8(x, c, i, &norm2.a, &norm1.a, &center.a, &max);
        word |= signs8(x, c, i + 8, &norm2.b, &norm1.b, &center.b, &max) << 8;
        word |= signs8(x, c, i + 16, &norm2.c, &norm1.c, &center.c, &max) << 16;
        word |= signs8(x, c, i + 24, &norm2.d, &norm1.d, &center.d, &max) << 24;
        memcpy(bits + i / 8, &word, sizeof word);
    }
    sums->norm2 = fold(norm2);
    sums->norm1 = fold(norm1);
    sums->center = fold(center);
    sums->max = largest8(max);
}

AVX2 static inline __m256i codes8_of(const float *x, const float *c, uint32_t i, float units, __m256 *fine,
                                     __m256 *center)
{
    __m256 from = center8(c, i), r = residual8(x, c, i);
    __m256 level = _mm256_add_ps(_mm256_mul_ps(r, _mm256_set1_ps(units)), _mm256_set1_ps(128));
    __m256i code = _mm256_cvttps_epi32(level);
    __m256 y = _mm256_sub_ps(_mm256_cvtepi32_ps(code), _mm256_set1_ps(127.5f));
    *fine = _mm256_add_ps(*fine, _mm256_mul_ps(r, y));
    *center = _mm256_add_ps(*center, _mm256_mul_ps(y, from));
    return code;
}

AVX2 static inline void encode_codes(const float *x, const float *c, uint32_t width, uint8_t *codes,
                                     struct mn_code_sums *sums)
{
    __m256 zero = _mm256_setzero_ps();
    struct sums fine = {zero, zero, zero, zero}, center = fine;
    float units = mn_kernel_grid(sums->max, 127.99f).units;
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        __m256i u0 = codes8_of(x, c, i, units, &fine.a, &center.a);
        __m256i u1 = codes8_of(x, c, i + 8, units, &fine.b, &center.b);
        __m256i u2 = codes8_of(x, c, i + 16, units, &fine.c, &center.c);
        __m256i u3 = codes8_of(x, c, i + 24, units, &fine.d, &center.d);
        __m256i bytes = bytes_in_order(_mm256_packs_epi32(u0, u1), _mm256_packs_epi32(u2, u3), false);
        _mm256_store_si256((__m256i *)(void *)(codes + i), bytes);
    }
    sums->fine = fold(fine);
    sums->fine_center = fold(center);
    sums->scale = sums->fine > 0 ? sums->norm2 / sums->fine : 0;
}

AVX2 static inline __m256 lost8(__m256 sum, const float *x, const float *c, uint32_t i, float scale,
                                const uint8_t *codes)
{
    __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(codes + i)));
    __m256 y = _mm256_sub_ps(_mm256_cvtepi32_ps(code), _mm256_set1_ps(127.5f));
    __m256 d = _mm256_sub_ps(residual8(x, c, i), _mm256_mul_ps(_mm256_set1_ps(scale), y));
    return _mm256_add_ps(sum, _mm256_mul_ps(d, d));
}

AVX2 static void encode(const float *x, const float *c, uint32_t width, uint8_t *codes8, uint8_t *bits,
                        struct mn_code_sums *sums)
{
    __m256 zero = _mm256_setzero_ps();
    struct sums lost = {zero, zero, zero, zero};
    encode_signs(x, c, width, bits, sums);
    encode_codes(x, c, width, codes8, sums);
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        lost.a = lost8(lost.a, x, c, i, sums->scale, codes8);
        lost.b = lost8(lost.b, x, c, i + 8, sums->scale, codes8);
        lost.c = lost8(lost.c, x, c, i + 16, sums->scale, codes8);
        lost.d = lost8(lost.d, x, c, i + 24, sums->scale, codes8);
    }
    sums->lost2 = fold(lost);
}

/* ---- products ---- */

/* Two rows times two columns: four sums of lanes to four numbers. */
AVX2 static inline __m128 sums4(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}

/* Four rows times two columns. */
AVX2 static inline void products8(const float *const a[4], const float *b0, const float *b1, uint32_t width,
                                  float out[8])
{
    __m256 sum[8], zero = _mm256_setzero_ps();
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++)
        sum[i] = zero;
    for (uint32_t k = 0; k < width; k += 8) {
        __m256 y0 = _mm256_load_ps(b0 + k), y1 = _mm256_load_ps(b1 + k);
#pragma GCC unroll 4
        for (unsigned i = 0; i < 4; i++) {
            __m256 x = _mm256_load_ps(a[i] + k);
            sum[2 * i] = _mm256_fmadd_ps(x, y0, sum[2 * i]);
            sum[2 * i + 1] = _mm256_fmadd_ps(x, y1, sum[2 * i + 1]);
        }
    }
    _mm_store_ps(out, sums4(sum[0], sum[1], sum[2], sum[3]));
    _mm_store_ps(out + 4, sums4(sum[4], sum[5], sum[6], sum[7]));
}

AVX2 static void products(const float *a, uint32_t na, const float *b, uint32_t nb, uint32_t width, float *out,
                          uint32_t out_stride)
{
    uint32_t tile = mn_kernel_tile(width);
    const float *x[4];
    _Alignas(32) float results[8];
    for (uint32_t begin = 0; begin < na; begin += tile) {
        uint32_t end = na - begin < tile ? na : begin + tile;
        for (uint32_t j = 0; j < nb; j += 2) {
            const float *y = b + (size_t)j * width;
            size_t columns = nb - j < 2 ? 1 : 2;
            for (uint32_t i = begin; i < end; i += 4) {
                mn_kernel_rows4(a + (size_t)i * width, end - i, width, x);
                products8(x, y, y + (columns - 1) * width, width, results);
                for (uint32_t k = 0; k < 4 && i + k < end; k++)
                    memcpy(out + (size_t)(i + k) * out_stride + j, results + 2 * k, columns * sizeof *out);
            }
        }
    }
}

/* ---- several at once ---- */

AVX2 static int32_t dot8_swapped(const int8_t *query, const uint8_t *codes, uint32_t width)
{
    return dot8(codes, query, width);
}
MN_KERNEL_PAIRS(dots, dot, float, float, float)
MN_KERNEL_PAIRS(l2s, l2, float, float, float)
MN_KERNEL_PAIRS(dots8, dot8_swapped, int8_t, uint8_t, int32_t)

const struct mn_kernels mn_kernels_avx2 = {.name = "avx2",
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
#else
typedef int mn_no_avx2_here;
#endif
