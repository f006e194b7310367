/*
 * kernels_avx512.c - the kernels with 512-bit registers: floats and codes compared (codes are made in
 * kernels_avx512_codes.c). Same order of additions as kernels_portable.c.
 *
 * A multiplication and an addition, never the fused instruction, which rounds once where the others round twice; but
 * for `products`.
 */
#include "engine/kernels_avx512_inside.h"

#if defined(__x86_64__)
/* Masked lanes read nothing and add 0. */
#define DEFINE(name, add16)                                                                                            \
    AVX512 static float name(const float *a, const float *b, uint32_t n)                                               \
    {                                                                                                                  \
        struct sums s = {_mm512_setzero_ps(), _mm512_setzero_ps()};                                                    \
        for (; n >= MN_KERNEL_LANES; n -= MN_KERNEL_LANES, a += MN_KERNEL_LANES, b += MN_KERNEL_LANES) {               \
            s.a = add16(s.a, _mm512_loadu_ps(a), _mm512_loadu_ps(b));                                                  \
            s.b = add16(s.b, _mm512_loadu_ps(a + 16), _mm512_loadu_ps(b + 16));                                        \
        }                                                                                                              \
        if (n > 0) {                                                                                                   \
            __mmask16 first = FIRST(n < 16 ? n : 16), second = n > 16 ? FIRST(n - 16) : 0;                             \
            s.a = add16(s.a, _mm512_maskz_loadu_ps(first, a), _mm512_maskz_loadu_ps(first, b));                        \
            s.b = add16(s.b, _mm512_maskz_loadu_ps(second, a + 16), _mm512_maskz_loadu_ps(second, b + 16));            \
        }                                                                                                              \
        return fold(s);                                                                                                \
    }
DEFINE(dot, dot16)
DEFINE(l2, l216)

AVX512 static bool check(const void *floats, uint32_t n, double *norm2)
{
    const float *p = floats;
    __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
    __m512i exponent = _mm512_set1_epi32(0x7f800000);
    __mmask16 bad = 0;
    for (uint32_t done = 0; done < n; done += 16) {
        __mmask16 mask = FIRST(n - done < 16 ? n - done : 16);
        __m512 x = _mm512_maskz_loadu_ps(mask, p + done);
        bad |= _mm512_cmpeq_epi32_mask(_mm512_and_epi32(_mm512_castps_si512(x), exponent), exponent);
        __m512d x0 = _mm512_cvtps_pd(_mm512_castps512_ps256(x)), x1 = _mm512_cvtps_pd(upper(x));
        low = _mm512_add_pd(low, _mm512_mul_pd(x0, x0));
        high = _mm512_add_pd(high, _mm512_mul_pd(x1, x1));
    }
    __m512d eight = _mm512_add_pd(low, high);
    __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    *norm2 = _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
    return bad == 0;
}

/* ---- codes ---- */

/* Sums of entries of four tables each, 16 bits a row: eight rows of every fourth table in each 128 bits. Odd bytes are
 * summed alone, even bytes with the odd ones above them, which are taken away at the end. */
struct counts {
    __m512i even_low, odd_low, even_high, odd_high;
};

/* `count` (8 at most: 8 * 31 fits a byte) times four tables. ahead: NULL, or lines to ask for. */
AVX512 static inline __attribute__((always_inline)) void
count_rows(struct counts *c, const uint8_t *codes, const uint8_t *table, const uint8_t *ahead, unsigned count)
{
    __m512i mask = _mm512_set1_epi8(15), low = _mm512_setzero_si512(), high = low;
#pragma GCC unroll 8
    for (unsigned i = 0; i < count; i++) {
        __m512i code = _mm512_load_si512(codes + 64 * i), entries = _mm512_load_si512(table + 64 * i);
        if (ahead)
            __builtin_prefetch(ahead + 64 * i, 0, 2);
        low = _mm512_add_epi8(low, _mm512_shuffle_epi8(entries, _mm512_and_si512(code, mask)));
        high = _mm512_add_epi8(high, _mm512_shuffle_epi8(entries, _mm512_and_si512(_mm512_srli_epi16(code, 4), mask)));
    }
    c->even_low = _mm512_add_epi16(c->even_low, low);
    c->odd_low = _mm512_add_epi16(c->odd_low, _mm512_srli_epi16(low, 8));
    c->even_high = _mm512_add_epi16(c->even_high, high);
    c->odd_high = _mm512_add_epi16(c->odd_high, _mm512_srli_epi16(high, 8));
}

/* Adds the four 128-bit quarters of each, and puts the rows in order: 32 numbers of 16 bits. */
AVX512 static inline __m512i rows_in_order(struct counts c)
{
    __m512i a = _mm512_sub_epi16(c.even_low, _mm512_slli_epi16(c.odd_low, 8)), b = c.odd_low;
    __m512i d = _mm512_sub_epi16(c.even_high, _mm512_slli_epi16(c.odd_high, 8)), e = c.odd_high;
    __m512i low = _mm512_add_epi16(_mm512_mask_blend_epi64(0xf0, a, b), _mm512_shuffle_i64x2(a, b, 0x4e));
    __m512i high = _mm512_add_epi16(_mm512_mask_blend_epi64(0xf0, d, e), _mm512_shuffle_i64x2(d, e, 0x4e));
    return _mm512_add_epi16(_mm512_shuffle_i64x2(low, high, 0x88), _mm512_shuffle_i64x2(low, high, 0xdd));
}

/* Tables until 16 bits might overflow: 2048 * 31. */
#define CHUNK_BYTES (UINT32_C(2048) * 16)

AVX512 static inline __m512i count_chunk(const uint8_t *codes, const uint8_t *table, const uint8_t *ahead,
                                         uint32_t bytes)
{
    __m512i zero = _mm512_setzero_si512();
    struct counts c = {zero, zero, zero, zero};
    uint32_t i = 0;
    for (; bytes - i >= 512; i += 512)
        count_rows(&c, codes + i, table + i, ahead ? ahead + i : NULL, 8);
    if (i < bytes)
        count_rows(&c, codes + i, table + i, ahead ? ahead + i : NULL, 4); /* a width is a multiple of 64: 256 bytes */
    return rows_in_order(c);
}

/* The lower bounds of 16 lanes; sums are theirs. */
AVX512 static inline __mmask16 bound16(const struct mn_scan_query *query, const float *factors, __m512i sums,
                                       const float *gaps, const float *reaches, float limit, float *low)
{
    __m512 add = _mm512_load_ps(factors), slope = _mm512_load_ps(factors + 32), error = _mm512_load_ps(factors + 64);
    __m512 x = _mm512_mul_ps(_mm512_set1_ps(query->step), _mm512_cvtepi32_ps(sums));
    x = _mm512_mul_ps(slope, _mm512_add_ps(x, _mm512_set1_ps(query->bias)));
    x = _mm512_add_ps(_mm512_add_ps(add, _mm512_load_ps(gaps)), x);
    x = _mm512_sub_ps(x, _mm512_mul_ps(error, _mm512_load_ps(reaches)));
    _mm512_store_ps(low, x);
    return _mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_LT_OQ);
}

AVX512 static inline __attribute__((always_inline)) uint32_t scan(const struct mn_scan_query *query,
                                                                  const uint8_t *block, const uint8_t *ahead,
                                                                  const float *gaps, const float *reaches, float limit,
                                                                  float *low)
{
    uint32_t bytes = 4 * query->width;
    const float *factors = (const float *)(const void *)(block + bytes);
    __m512i first = _mm512_setzero_si512(), second = first;
    for (uint32_t i = 0; i < bytes; i += CHUNK_BYTES) {
        uint32_t n = bytes - i < CHUNK_BYTES ? bytes - i : CHUNK_BYTES;
        __m512i sums = count_chunk(block + i, query->table + i, ahead ? ahead + i : NULL, n);
        first = _mm512_add_epi32(first, _mm512_cvtepu16_epi32(_mm512_castsi512_si256(sums)));
        second = _mm512_add_epi32(second, _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(sums, 1)));
    }
    for (uint32_t i = bytes; ahead && i < bytes + MN_KERNEL_FACTORS; i += 64)
        __builtin_prefetch(ahead + i, 0, 2);
    __mmask16 below = bound16(query, factors, first, gaps, reaches, limit, low);
    return below | (uint32_t)bound16(query, factors + 16, second, gaps + 16, reaches + 16, limit, low + 16) << 16;
}

AVX512 static uint32_t scan_block(const struct mn_scan_query *query, const uint8_t *block, float gap, float reach,
                                  float limit, float low[32])
{
    _Alignas(64) float gaps[32], reaches[32];
    mn_kernel_spread(gap, gaps);
    mn_kernel_spread(reach, reaches);
    return scan(query, block, NULL, gaps, reaches, limit, low);
}

AVX512 static uint32_t scan_ahead(const struct mn_scan_query *query, const uint8_t *block, const uint8_t *ahead,
                                  const float gaps[32], const float reaches[32], float limit, float low[32])
{
    return scan(query, block, ahead, gaps, reaches, limit, low);
}

AVX512 static inline __m512i dot64(__m512i sum, const uint8_t *codes, const int8_t *query)
{
    return _mm512_dpbusd_epi32(sum, _mm512_load_si512(codes), _mm512_load_si512(query));
}

AVX512 static int32_t dot8(const uint8_t *codes, const int8_t *query, uint32_t width)
{
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    uint32_t i = 0;
    for (; width - i >= 256; i += 256) {
        a = dot64(a, codes + i, query + i);
        b = dot64(b, codes + i + 64, query + i + 64);
        c = dot64(c, codes + i + 128, query + i + 128);
        d = dot64(d, codes + i + 192, query + i + 192);
    }
    for (; i < width; i += 64)
        a = dot64(a, codes + i, query + i);
    return _mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d)));
}

/* ---- products ---- */

/* Four sums of lanes: 4 columns, of which each 128 bits have a quarter. */
AVX512 static inline __m512 columns4(const __m512 v[4])
{
    __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    __m512d p = _mm512_castps_pd(a), q = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)), _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)));
}

/* Four times four products: 128 bits for each row of a. */
AVX512 static inline __m512 products16(const float *const a[4], const float *const b[4], uint32_t width)
{
    __m512 sum[4][4], zero = _mm512_setzero_ps();
#pragma GCC unroll 16
    for (unsigned i = 0; i < 16; i++)
        sum[i / 4][i % 4] = zero;
    for (uint32_t k = 0; k < width; k += 16) {
        __m512 y[4];
#pragma GCC unroll 4
        for (unsigned j = 0; j < 4; j++)
            y[j] = _mm512_load_ps(b[j] + k);
#pragma GCC unroll 4
        for (unsigned i = 0; i < 4; i++) {
            __m512 x = _mm512_load_ps(a[i] + k);
#pragma GCC unroll 4
            for (unsigned j = 0; j < 4; j++)
                sum[i][j] = _mm512_fmadd_ps(x, y[j], sum[i][j]);
        }
    }
    __m512 r0 = columns4(sum[0]), r1 = columns4(sum[1]), r2 = columns4(sum[2]), r3 = columns4(sum[3]);
    __m512 upper2 = _mm512_add_ps(_mm512_shuffle_f32x4(r0, r1, 0x88), _mm512_shuffle_f32x4(r0, r1, 0xdd));
    __m512 lower2 = _mm512_add_ps(_mm512_shuffle_f32x4(r2, r3, 0x88), _mm512_shuffle_f32x4(r2, r3, 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(upper2, lower2, 0x88), _mm512_shuffle_f32x4(upper2, lower2, 0xdd));
}

AVX512 static void products(const float *a, uint32_t na, const float *b, uint32_t nb, uint32_t width, float *out,
                            uint32_t out_stride)
{
    uint32_t tile = mn_kernel_tile(width);
    const float *x[4], *y[4];
    _Alignas(64) float results[16];
    for (uint32_t begin = 0; begin < na; begin += tile) {
        uint32_t end = na - begin < tile ? na : begin + tile;
        for (uint32_t j = 0; j < nb; j += 4) {
            mn_kernel_rows4(b + (size_t)j * width, nb - j, width, y);
            size_t columns = nb - j < 4 ? nb - j : 4;
            for (uint32_t i = begin; i < end; i += 4) {
                mn_kernel_rows4(a + (size_t)i * width, end - i, width, x);
                _mm512_store_ps(results, products16(x, y, width));
                for (uint32_t k = 0; k < 4 && i + k < end; k++)
                    memcpy(out + (size_t)(i + k) * out_stride + j, results + 4 * k, columns * sizeof *out);
            }
        }
    }
}

const struct mn_kernels mn_kernels_avx512 = {.name = "avx512",
                                             .dot = dot,
                                             .l2 = l2,
                                             .dots = mn_kernels_avx512_dots,
                                             .l2s = mn_kernels_avx512_l2s,
                                             .check = check,
                                             .rotate = mn_kernels_avx512_rotate,
                                             .make_table = mn_kernels_avx512_make_table,
                                             .make_fine = mn_kernels_avx512_make_fine,
                                             .scan_block = scan_block,
                                             .scan_ahead = scan_ahead,
                                             .dot8 = dot8,
                                             .dots8 = mn_kernels_avx512_dots8,
                                             .encode = mn_kernels_avx512_encode,
                                             .products = products};
#else
typedef int mn_no_avx512_here;
#endif
