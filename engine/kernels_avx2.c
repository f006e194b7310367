/*
 * kernels_avx2.c - the kernels with 256-bit registers: floats and codes compared (codes are made in
 * kernels_avx2_codes.c). Same order of additions as kernels_portable.c. Fused instructions only in `products`.
 */
#include "engine/kernels_avx2_inside.h"

#if defined(__x86_64__)

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
                                           .rotate = mn_kernels_avx2_rotate,
                                           .make_table = mn_kernels_avx2_make_table,
                                           .make_fine = mn_kernels_avx2_make_fine,
                                           .scan_block = scan_block,
                                           .scan_ahead = scan_ahead,
                                           .dot8 = dot8,
                                           .dots8 = dots8,
                                           .encode = mn_kernels_avx2_encode,
                                           .products = products};
#else
typedef int mn_no_avx2_here;
#endif
