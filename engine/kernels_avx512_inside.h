/*
 * kernels_avx512_inside.h - what the files of the kernels with 512-bit registers share.
 */
#ifndef MN_ENGINE_KERNELS_AVX512_INSIDE_H
#define MN_ENGINE_KERNELS_AVX512_INSIDE_H

#include "engine/kernels_inside.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))

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

/* ---- kernels_avx512_codes.c: rotate, make_table, make_fine and encode of kernels.h ---- */

void mn_kernels_avx512_rotate(float *x, uint32_t width, const uint32_t *signs);
void mn_kernels_avx512_make_table(const float *q, uint32_t width, uint8_t *table, struct mn_scan_query *query);
void mn_kernels_avx512_make_fine(const float *q, uint32_t width, int8_t *codes, struct mn_fine_query *query);
void mn_kernels_avx512_encode(const float *x, const float *c, uint32_t width, uint8_t *codes8, uint8_t *bits,
                              struct mn_code_sums *sums);

/* ---- kernels_avx512_several.c: dots, l2s and dots8 of kernels.h ---- */

void mn_kernels_avx512_dots(const float *const *q, uint32_t nq, const float *const *r, uint32_t nr, uint32_t n,
                            float *out);
void mn_kernels_avx512_l2s(const float *const *q, uint32_t nq, const float *const *r, uint32_t nr, uint32_t n,
                           float *out);
void mn_kernels_avx512_dots8(const int8_t *const *q, uint32_t nq, const uint8_t *const *r, uint32_t nr, uint32_t width,
                             int32_t *out);

#endif
#endif
