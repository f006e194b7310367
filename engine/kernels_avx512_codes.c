/*
 * kernels_avx512_codes.c - making codes with 512-bit registers: the rotation, those of a query, those of a row. Same
 * order of additions as kernels_portable.c; fused instructions only where a factor of 1 makes them round as a sum does.
 */
#include "engine/kernels_avx512_inside.h"

#if defined(__x86_64__)

/* ---- the rotation ---- */

/* Sixteen floats times `factor`, negated in the lanes of `signs`. */
AVX512 static inline __m512 times_signed(const float *x, uint32_t signs, __m512 factor, __m512 negative)
{
    return _mm512_mul_ps(_mm512_load_ps(x), _mm512_mask_blend_ps((__mmask16)signs, factor, negative));
}

/* A stage of the Hadamard transform inside a register: in the lanes of the second of a pair, `other` - x, else other +
 * x. Times 1 or -1 is exact, so the fused instruction rounds as the sum does. */
AVX512 static inline __m512 pair(__m512 x, __m512 other, __mmask16 second)
{
    return _mm512_fmadd_ps(x, _mm512_mask_blend_ps(second, _mm512_set1_ps(1), _mm512_set1_ps(-1)), other);
}

AVX512 static inline __m512 hadamard16(__m512 x)
{
    x = pair(x, _mm512_permute_ps(x, 0xb1), 0xaaaa);
    x = pair(x, _mm512_permute_ps(x, 0x4e), 0xcccc);
    x = pair(x, _mm512_shuffle_f32x4(x, x, 0xb1), 0xf0f0);
    return pair(x, _mm512_shuffle_f32x4(x, x, 0x4e), 0xff00);
}

AVX512 static inline void butterfly(__m512 *a, __m512 *b)
{
    __m512 sum = _mm512_add_ps(*a, *b);
    *b = _mm512_sub_ps(*a, *b);
    *a = sum;
}

/* The first stages, on 16 * count neighbours that stay in registers; signs and factors on the way in. */
AVX512 static inline __attribute__((always_inline)) void first_stages(float *y, const uint32_t *signs, float factor,
                                                                      unsigned count)
{
    __m512 v[16], positive = _mm512_set1_ps(factor), negative = _mm512_set1_ps(-factor);
#pragma GCC unroll 16
    for (unsigned i = 0; i < count; i++)
        v[i] = hadamard16(times_signed(y + 16 * i, signs[i / 2] >> 16 * (i % 2), positive, negative));
#pragma GCC unroll 4
    for (unsigned h = 1; h < count; h *= 2) {
#pragma GCC unroll 16
        for (unsigned i = 0; i < count; i++) {
            if ((i & h) == 0)
                butterfly(&v[i], &v[i + h]);
        }
    }
#pragma GCC unroll 16
    for (unsigned i = 0; i < count; i++)
        _mm512_store_ps(y + 16 * i, v[i]);
}

/* Stage h of n floats, n a multiple of 2h, h of 16. */
AVX512 static void stage(float *y, uint32_t n, uint32_t h)
{
    for (uint32_t i = 0; i < n; i += 2 * h) {
        for (uint32_t j = i; j < i + h; j += 16) {
            __m512 a = _mm512_load_ps(y + j), b = _mm512_load_ps(y + j + h);
            butterfly(&a, &b);
            _mm512_store_ps(y + j, a);
            _mm512_store_ps(y + j + h, b);
        }
    }
}

/* Stages h and 2h. */
AVX512 static void two_stages(float *y, uint32_t n, uint32_t h)
{
    for (uint32_t i = 0; i < n; i += 4 * h) {
        for (uint32_t j = i; j < i + h; j += 16) {
            __m512 v[4];
#pragma GCC unroll 4
            for (unsigned k = 0; k < 4; k++)
                v[k] = _mm512_load_ps(y + j + k * h);
            butterfly(&v[0], &v[1]);
            butterfly(&v[2], &v[3]);
            butterfly(&v[0], &v[2]);
            butterfly(&v[1], &v[3]);
#pragma GCC unroll 4
            for (unsigned k = 0; k < 4; k++)
                _mm512_store_ps(y + j + k * h, v[k]);
        }
    }
}

AVX512 static void hadamard(float *y, uint32_t n, const uint32_t *signs, float factor)
{
    uint32_t h = n < 256 ? n : 256;
    for (uint32_t i = 0; i < n; i += h) {
        if (h == 256)
            first_stages(y + i, signs + i / 32, factor, 16);
        else if (h == 128)
            first_stages(y + i, signs + i / 32, factor, 8);
        else
            first_stages(y + i, signs + i / 32, factor, 4);
    }
    for (; 4 * h <= n; h *= 4)
        two_stages(y, n, h);
    if (h < n)
        stage(y, n, h);
}

AVX512 void mn_kernels_avx512_rotate(float *x, uint32_t width, const uint32_t *signs)
{
    uint32_t power = mn_kernel_power(width);
    for (unsigned round = 0; round < 4; round++, signs += width / 32) {
        uint32_t begin = round % 2 == 0 ? 0 : width - power, others = round % 2 == 0 ? power : 0;
        float inside, outside;
        mn_kernel_factors(width, power, round, &inside, &outside);
        hadamard(x + begin, power, signs + begin / 32, inside);
        for (uint32_t i = others; i < others + (width - power); i += 16) {
            __m512 v = times_signed(x + i, signs[i / 32] >> i % 32, _mm512_set1_ps(outside), _mm512_set1_ps(-outside));
            _mm512_store_ps(x + i, v);
        }
        if (power < width)
            stage(x, width, width / 2);
    }
}

/* ---- a query ---- */

AVX512 static inline __m512 size16(__m512 x)
{
    return _mm512_abs_ps(x);
}

/* The largest sum of the sizes of four neighbours. */
AVX512 static float largest_range(const float *q, uint32_t width)
{
    __m512 most = _mm512_setzero_ps();
    for (uint32_t i = 0; i < width; i += 16) {
        __m512 x = size16(_mm512_load_ps(q + i));
        x = _mm512_add_ps(x, _mm512_permute_ps(x, 0xb1));
        most = _mm512_max_ps(most, _mm512_add_ps(x, _mm512_permute_ps(x, 0x4e)));
    }
    return _mm512_reduce_max_ps(most);
}

/* Entries 4k..4k+3 of four groups, as integers: `low` has the four sums of their first two parts, `high` of the last.
 */
#define ENTRIES(k) _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_add_ps(low, _mm512_permute_ps(high, (k)*0x55)), units))

/* Four groups of four to four tables. */
AVX512 static inline __m512i tables(__m512 q, __m512 units)
{
    __m512 zero = _mm512_setzero_ps();
    __m512 set = _mm512_max_ps(q, zero), clear = _mm512_max_ps(_mm512_sub_ps(zero, q), zero);
    __m512 a = _mm512_unpacklo_ps(clear, set), b = _mm512_unpackhi_ps(clear, set);
    __m512 low = _mm512_add_ps(_mm512_permute_ps(a, 0x44), _mm512_permute_ps(a, 0xfa));
    __m512 high = _mm512_add_ps(_mm512_permute_ps(b, 0x44), _mm512_permute_ps(b, 0xfa));
    return _mm512_packus_epi16(_mm512_packs_epi32(ENTRIES(0), ENTRIES(1)), _mm512_packs_epi32(ENTRIES(2), ENTRIES(3)));
}

AVX512 void mn_kernels_avx512_make_table(const float *q, uint32_t width, uint8_t *table, struct mn_scan_query *query)
{
    struct mn_kernel_grid grid = mn_kernel_grid(largest_range(q, width), 31);
    __m512 units = _mm512_set1_ps(grid.units);
    __m512i total = _mm512_setzero_si512();
    for (uint32_t i = 0; i < width; i += 16) {
        __m512i four = tables(_mm512_load_ps(q + i), units);
        total = _mm512_add_epi64(total, _mm512_sad_epu8(four, _mm512_setzero_si512()));
        _mm512_store_si512(table + 4 * (size_t)i, four);
    }
    float bias = mn_kernel_bias(grid.step, (uint32_t)_mm512_reduce_add_epi64(total));
    *query = (struct mn_scan_query){width, table, grid.step, bias};
}

AVX512 static float largest(const float *x, uint32_t n)
{
    __m512 most = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16)
        most = _mm512_max_ps(most, size16(_mm512_load_ps(x + i)));
    return _mm512_reduce_max_ps(most);
}

/* Sixteen codes to `codes` and `sum`; what they lose to `lost`. */
AVX512 static inline void fine16(const float *q, struct mn_kernel_grid grid, int8_t *codes, __m512i *sum, __m512 *lost)
{
    __m512 x = _mm512_load_ps(q);
    __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(grid.units)));
    __m512 rest = _mm512_sub_ps(x, _mm512_mul_ps(_mm512_set1_ps(grid.step), _mm512_cvtepi32_ps(code)));
    _mm_store_si128((__m128i *)(void *)codes, _mm512_cvtepi32_epi8(code));
    *sum = _mm512_add_epi32(*sum, code);
    *lost = _mm512_add_ps(*lost, _mm512_mul_ps(rest, rest));
}

AVX512 void mn_kernels_avx512_make_fine(const float *q, uint32_t width, int8_t *codes, struct mn_fine_query *query)
{
    float most = largest(q, width);
    struct mn_kernel_grid grid = mn_kernel_grid(most, 127);
    struct sums lost = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        fine16(q + i, grid, codes + i, &sum, &lost.a);
        fine16(q + i + 16, grid, codes + i + 16, &sum, &lost.b);
    }
    float above = mn_kernel_lost(fold(lost), most, width);
    *query = (struct mn_fine_query){width, codes, grid.step, _mm512_reduce_add_epi32(sum), above};
}

/* ---- a row ---- */

/* Sixteen coordinates of the centroid, and of the residual. */
AVX512 static inline __m512 center16(const float *c, uint32_t i)
{
    return c ? _mm512_load_ps(c + i) : _mm512_setzero_ps();
}

AVX512 static inline __m512 residual16(const float *x, const float *c, uint32_t i)
{
    return _mm512_sub_ps(_mm512_load_ps(x + i), center16(c, i));
}

struct signs16 {
    __m512 norm2, norm1, center, max;
};

AVX512 static inline __mmask16 signs16(struct signs16 *s, const float *x, const float *c, uint32_t i)
{
    __m512 from = center16(c, i), r = residual16(x, c, i), size = size16(r);
    __mmask16 positive = _mm512_cmp_ps_mask(r, _mm512_setzero_ps(), _CMP_GT_OQ);
    __m512 y = _mm512_mask_blend_ps(positive, _mm512_set1_ps(-0.5f), _mm512_set1_ps(0.5f));
    s->norm2 = _mm512_add_ps(s->norm2, _mm512_mul_ps(r, r));
    s->norm1 = _mm512_add_ps(s->norm1, size);
    s->center = _mm512_add_ps(s->center, _mm512_mul_ps(y, from));
    s->max = _mm512_max_ps(s->max, size);
    return positive;
}

AVX512 static inline void encode_signs(const float *x, const float *c, uint32_t width, uint8_t *bits,
                                       struct mn_code_sums *sums)
{
    __m512 zero = _mm512_setzero_ps();
    struct signs16 a = {zero, zero, zero, zero}, b = a;
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        uint32_t word = signs16(&a, x, c, i);
        word |= (uint32_t)signs16(&b, x, c, i + 16) << 16;
        memcpy(bits + i / 8, &word, sizeof word);
    }
    sums->norm2 = fold((struct sums){a.norm2, b.norm2});
    sums->norm1 = fold((struct sums){a.norm1, b.norm1});
    sums->center = fold((struct sums){a.center, b.center});
    sums->max = _mm512_reduce_max_ps(_mm512_max_ps(a.max, b.max));
}

AVX512 static inline void codes16(const float *x, const float *c, uint32_t i, float units, uint8_t *codes, __m512 *fine,
                                  __m512 *center)
{
    __m512 from = center16(c, i), r = residual16(x, c, i);
    __m512 level = _mm512_add_ps(_mm512_mul_ps(r, _mm512_set1_ps(units)), _mm512_set1_ps(128));
    __m512i code = _mm512_cvttps_epi32(level);
    __m512 y = _mm512_sub_ps(_mm512_cvtepi32_ps(code), _mm512_set1_ps(127.5f));
    _mm_store_si128((__m128i *)(void *)(codes + i), _mm512_cvtepi32_epi8(code));
    *fine = _mm512_add_ps(*fine, _mm512_mul_ps(r, y));
    *center = _mm512_add_ps(*center, _mm512_mul_ps(y, from));
}

AVX512 static inline __m512 lost16(__m512 sum, const float *x, const float *c, uint32_t i, float scale,
                                   const uint8_t *codes)
{
    __m512i code = _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)(const void *)(codes + i)));
    __m512 y = _mm512_sub_ps(_mm512_cvtepi32_ps(code), _mm512_set1_ps(127.5f));
    __m512 d = _mm512_sub_ps(residual16(x, c, i), _mm512_mul_ps(_mm512_set1_ps(scale), y));
    return _mm512_add_ps(sum, _mm512_mul_ps(d, d));
}

AVX512 void mn_kernels_avx512_encode(const float *x, const float *c, uint32_t width, uint8_t *codes8, uint8_t *bits,
                                     struct mn_code_sums *sums)
{
    __m512 zero = _mm512_setzero_ps();
    struct sums fine = {zero, zero}, center = fine, lost = fine;
    encode_signs(x, c, width, bits, sums);
    float units = mn_kernel_grid(sums->max, 127.99f).units;
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        codes16(x, c, i, units, codes8, &fine.a, &center.a);
        codes16(x, c, i + 16, units, codes8, &fine.b, &center.b);
    }
    sums->fine = fold(fine);
    sums->fine_center = fold(center);
    sums->scale = sums->fine > 0 ? sums->norm2 / sums->fine : 0;
    for (uint32_t i = 0; i < width; i += MN_KERNEL_LANES) {
        lost.a = lost16(lost.a, x, c, i, sums->scale, codes8);
        lost.b = lost16(lost.b, x, c, i + 16, sums->scale, codes8);
    }
    sums->lost2 = fold(lost);
}
#else
typedef int mn_no_avx512_codes_here;
#endif
