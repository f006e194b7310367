/*
 * kernels_avx2.c - the kernels with 256-bit registers. Same order of additions as kernels_portable.c.
 */
#include "engine/kernels_portable.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

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

AVX2 static inline __m256 dot8(__m256 sum, const float *a, const float *b)
{
    return _mm256_add_ps(sum, _mm256_mul_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(b)));
}

AVX2 static inline __m256 l28(__m256 sum, const float *a, const float *b)
{
    __m256 d = _mm256_sub_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(b));
    return _mm256_add_ps(sum, _mm256_mul_ps(d, d));
}

#define DEFINE(name, add8)                                                                                             \
    AVX2 static inline struct sums name##_add(struct sums s, const float *a, const float *b)                           \
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
            s = name##_add(s, a + i, b + i);                                                                           \
        if (i < n) {                                                                                                   \
            float rest_a[MN_KERNEL_LANES] = {0}, rest_b[MN_KERNEL_LANES] = {0};                                        \
            memcpy(rest_a, a + i, (n - i) * sizeof *a);                                                                \
            memcpy(rest_b, b + i, (n - i) * sizeof *b);                                                                \
            s = name##_add(s, rest_a, rest_b);                                                                         \
        }                                                                                                              \
        return fold(s);                                                                                                \
    }
DEFINE(dot, dot8)
DEFINE(l2, l28)

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

const struct mn_kernels mn_kernels_avx2 = {.name = "avx2",
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
typedef int mn_no_avx2_here;
#endif
