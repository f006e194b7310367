/*
 * kernels_avx2_codes.c - making codes with 256-bit registers: the rotation, those of a query, those of a row. Same
 * order of additions as kernels_portable.c; fused instructions only where a factor of 1 makes them round as a sum does.
 */
#include "engine/kernels_avx2_inside.h"

#if defined(__x86_64__)

/* ---- the rotation ---- */

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

AVX2 void mn_kernels_avx2_rotate(float *x, uint32_t width, const uint32_t *signs)
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

/* ---- a query ---- */

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

AVX2 void mn_kernels_avx2_make_table(const float *q, uint32_t width, uint8_t *table, struct mn_scan_query *query)
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

AVX2 void mn_kernels_avx2_make_fine(const float *q, uint32_t width, int8_t *codes, struct mn_fine_query *query)
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

/* ---- a row ---- */

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

AVX2 void mn_kernels_avx2_encode(const float *x, const float *c, uint32_t width, uint8_t *codes8, uint8_t *bits,
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
#else
typedef int mn_no_avx2_codes_here;
#endif
