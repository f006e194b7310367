/*
 * kernels_avx512_several.c - several queries against several rows, with 512-bit registers: what one loads all use. The
 * sums are those of `dot`, `l2` and `dot8`, addition by addition.
 */
#include "engine/kernels_avx512_inside.h"

#if defined(__x86_64__)

/* Four queries and two rows at a time: sixteen sums, and of eight loads sixteen additions. */
#define QUERIES 4
#define ROWS    2

/* n of `count` pointers from place `at` on. Those behind the last are the last once more; what they give is dropped.
 */
#define DEFINE_SOME(type)                                                                                              \
    static inline void some_##type(const type *const *p, uint32_t count, uint32_t at, unsigned n, const type **some)   \
    {                                                                                                                  \
        for (unsigned i = 0; i < n; i++)                                                                               \
            some[i] = p[at + i < count ? at + i : count - 1];                                                          \
    }
DEFINE_SOME(float)

/* What is left of the coordinates: its masked lanes add 0, as in `dot`. */
#define DEFINE_SEVERAL(name, add16)                                                                                    \
    AVX512 static inline __attribute__((always_inline)) void name##_step(                                              \
        struct sums s[QUERIES][ROWS], const float *const *q, const float *const *r, uint32_t k, __mmask16 first,       \
        __mmask16 second)                                                                                              \
    {                                                                                                                  \
        __m512 a[ROWS], b[ROWS];                                                                                       \
        _Pragma("GCC unroll 2") for (unsigned j = 0; j < ROWS; j++)                                                    \
        {                                                                                                              \
            a[j] = _mm512_maskz_loadu_ps(first, r[j] + k);                                                             \
            b[j] = _mm512_maskz_loadu_ps(second, r[j] + k + 16);                                                       \
        }                                                                                                              \
        _Pragma("GCC unroll 4") for (unsigned i = 0; i < QUERIES; i++)                                                 \
        {                                                                                                              \
            __m512 x = _mm512_maskz_loadu_ps(first, q[i] + k), y = _mm512_maskz_loadu_ps(second, q[i] + k + 16);       \
            _Pragma("GCC unroll 2") for (unsigned j = 0; j < ROWS; j++)                                                \
            {                                                                                                          \
                s[i][j].a = add16(s[i][j].a, x, a[j]);                                                                 \
                s[i][j].b = add16(s[i][j].b, y, b[j]);                                                                 \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    AVX512 static inline void name##_block(const float *const *q, const float *const *r, uint32_t n,                   \
                                           float out[QUERIES][ROWS])                                                   \
    {                                                                                                                  \
        struct sums s[QUERIES][ROWS];                                                                                  \
        uint32_t k = 0;                                                                                                \
        _Pragma("GCC unroll 8") for (unsigned i = 0; i < QUERIES * ROWS; i++) s[i / ROWS][i % ROWS] =                  \
            (struct sums){_mm512_setzero_ps(), _mm512_setzero_ps()};                                                   \
        for (; n - k >= MN_KERNEL_LANES; k += MN_KERNEL_LANES)                                                         \
            name##_step(s, q, r, k, 0xffff, 0xffff);                                                                   \
        if (n > k)                                                                                                     \
            name##_step(s, q, r, k, FIRST(n - k < 16 ? n - k : 16), n - k > 16 ? FIRST(n - k - 16) : 0);               \
        _Pragma("GCC unroll 8") for (unsigned i = 0; i < QUERIES * ROWS; i++) out[i / ROWS][i % ROWS] =                \
            fold(s[i / ROWS][i % ROWS]);                                                                               \
    }                                                                                                                  \
    AVX512 void mn_kernels_avx512_##name(const float *const *q, uint32_t nq, const float *const *r, uint32_t nr,       \
                                         uint32_t n, float *out)                                                       \
    {                                                                                                                  \
        const float *x[QUERIES], *y[ROWS];                                                                             \
        float results[QUERIES][ROWS];                                                                                  \
        for (uint32_t i = 0; i < nq; i += QUERIES) {                                                                   \
            some_float(q, nq, i, QUERIES, x);                                                                          \
            for (uint32_t j = 0; j < nr; j += ROWS) {                                                                  \
                some_float(r, nr, j, ROWS, y);                                                                         \
                name##_block(x, y, n, results);                                                                        \
                for (uint32_t a = 0; a < QUERIES && i + a < nq; a++)                                                   \
                    memcpy(out + (size_t)(i + a) * nr + j, results[a], (nr - j < ROWS ? nr - j : ROWS) * sizeof *out); \
            }                                                                                                          \
        }                                                                                                              \
    }
DEFINE_SEVERAL(dots, dot16)
DEFINE_SEVERAL(l2s, l216)

DEFINE_SOME(int8_t)
DEFINE_SOME(uint8_t)

/* Four sums of lanes: 4 columns, of which each 128 bits have a quarter. */
AVX512 static inline __m512i columns4i(const __m512i v[4])
{
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

AVX512 static inline __m512i halves(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* Four queries and four rows: 128 bits for each query. */
AVX512 static inline __m512i dots8_block(const int8_t *const q[4], const uint8_t *const r[4], uint32_t width)
{
    __m512i sum[4][4], zero = _mm512_setzero_si512();
#pragma GCC unroll 16
    for (unsigned i = 0; i < 16; i++)
        sum[i / 4][i % 4] = zero;
    for (uint32_t k = 0; k < width; k += 64) {
        __m512i y[4];
#pragma GCC unroll 4
        for (unsigned j = 0; j < 4; j++)
            y[j] = _mm512_load_si512(r[j] + k);
#pragma GCC unroll 4
        for (unsigned i = 0; i < 4; i++) {
            __m512i x = _mm512_load_si512(q[i] + k);
#pragma GCC unroll 4
            for (unsigned j = 0; j < 4; j++)
                sum[i][j] = _mm512_dpbusd_epi32(sum[i][j], y[j], x);
        }
    }
    __m512i upper2 = halves(columns4i(sum[0]), columns4i(sum[1])),
            lower2 = halves(columns4i(sum[2]), columns4i(sum[3]));
    return halves(upper2, lower2);
}

AVX512 void mn_kernels_avx512_dots8(const int8_t *const *q, uint32_t nq, const uint8_t *const *r, uint32_t nr,
                                    uint32_t width, int32_t *out)
{
    const int8_t *x[4];
    const uint8_t *y[4];
    _Alignas(64) int32_t results[16];
    for (uint32_t i = 0; i < nq; i += 4) {
        some_int8_t(q, nq, i, 4, x);
        for (uint32_t j = 0; j < nr; j += 4) {
            some_uint8_t(r, nr, j, 4, y);
            _mm512_store_si512(results, dots8_block(x, y, width));
            for (uint32_t a = 0; a < 4 && i + a < nq; a++)
                memcpy(out + (size_t)(i + a) * nr + j, results + 4 * a, (nr - j < 4 ? nr - j : 4) * sizeof *out);
        }
    }
}
#else
typedef int mn_no_avx512_several_here;
#endif
