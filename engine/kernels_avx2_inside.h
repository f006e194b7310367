/*
 * kernels_avx2_inside.h - what the files of the kernels with 256-bit registers share.
 */
#ifndef MN_ENGINE_KERNELS_AVX2_INSIDE_H
#define MN_ENGINE_KERNELS_AVX2_INSIDE_H

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

AVX2 static inline int32_t sum_of_32(__m256i x)
{
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

/* ---- kernels_avx2_codes.c: rotate, make_table, make_fine and encode of kernels.h ---- */

void mn_kernels_avx2_rotate(float *x, uint32_t width, const uint32_t *signs);
void mn_kernels_avx2_make_table(const float *q, uint32_t width, uint8_t *table, struct mn_scan_query *query);
void mn_kernels_avx2_make_fine(const float *q, uint32_t width, int8_t *codes, struct mn_fine_query *query);
void mn_kernels_avx2_encode(const float *x, const float *c, uint32_t width, uint8_t *codes8, uint8_t *bits,
                            struct mn_code_sums *sums);

#endif
#endif
