/*
 * kernels_avx512.c - the kernels with 512-bit registers. Same order of additions as kernels_portable.c.
 *
 * A multiplication and an addition, never the fused instruction: it rounds once where the others round twice.
 */
#include "engine/kernels_portable.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f")))

/* The first n lanes, n at most 16. */
#define FIRST(n) ((__mmask16)((1u << (n)) - 1))

struct sums {
    __m512 a, b;
};

/* AVX-512F has no extract of 8 floats: the same bits as 4 doubles. */
AVX512 static inline __m256 upper(__m512 x)
{
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1));
}

/* 32 lanes to one, in halves. */
AVX512 static inline float fold(struct sums s)
{
    __m512 sixteen = _mm512_add_ps(s.a, s.b);
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), upper(sixteen));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

AVX512 static inline __m512 dot16(__m512 sum, __m512 a, __m512 b)
{
    return _mm512_add_ps(sum, _mm512_mul_ps(a, b));
}

AVX512 static inline __m512 l216(__m512 sum, __m512 a, __m512 b)
{
    __m512 d = _mm512_sub_ps(a, b);
    return _mm512_add_ps(sum, _mm512_mul_ps(d, d));
}

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

const struct mn_kernels mn_kernels_avx512 = {.name = "avx512",
                                             .dot = dot,
                                             .l2 = l2,
                                             .check = check,
                                             .rotate = mn_portable_rotate,
                                             .make_table = mn_portable_make_table,
                                             .make_fine = mn_portable_make_fine,
                                             .scan_block = mn_portable_scan_block,
                                             .dot8 = mn_portable_dot8,
                                             .encode = mn_portable_encode,
                                             .products = mn_portable_products};
#else
typedef int mn_no_avx512_here;
#endif
