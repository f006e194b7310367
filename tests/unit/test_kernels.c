/*
 * test_kernels.c - engine/kernels: every implementation gives the same bits as the definition, and the definition is
 * close to what double says.
 */
#include "engine/kernels.h"
#include "tests/unit/random_bits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define FLOATS_MAX 4096
#define PAIRS_MAX  9

static const char *const names[] = {"avx512", "avx2", "portable"};
static const uint32_t dims[] = {1,  2,  3,  7,  15,  16,  17,  31,  32,  33,   47,   48,   49,   63,
                                64, 65, 95, 97, 100, 127, 384, 768, 769, 1000, 1536, 2047, 4095, 4096};

/* Any finite float, denormals and signed zeros among them; exponents small enough that sums do not overflow. */
static float wild_float(void)
{
    uint32_t bits = random_bits();
    if ((bits & 0x7f800000u) > 0x5a000000u)
        bits &= 0x80ffffffu;
    if (random_bits() % 16 == 0)
        bits &= 0x80000000u;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The definition in kernels.h, word by word. */
static float defined(const float *a, const float *b, uint32_t n, bool l2)
{
    float lane[MN_KERNEL_LANES] = {0};
    for (uint32_t i = 0; i < n; i++) {
        volatile float d = l2 ? a[i] - b[i] : 0;
        volatile float product = l2 ? d * d : a[i] * b[i];
        lane[i % MN_KERNEL_LANES] += product;
    }
    for (unsigned half = MN_KERNEL_LANES / 2; half > 0; half /= 2) {
        for (unsigned i = 0; i < half; i++)
            lane[i] += lane[i + half];
    }
    return lane[0];
}

static double defined_norm2(const float *a, uint32_t n)
{
    double lane[MN_KERNEL_NORM_LANES] = {0};
    for (uint32_t i = 0; i < n; i++)
        lane[i % MN_KERNEL_NORM_LANES] += (double)a[i] * (double)a[i];
    for (unsigned half = MN_KERNEL_NORM_LANES / 2; half > 0; half /= 2) {
        for (unsigned i = 0; i < half; i++)
            lane[i] += lane[i + half];
    }
    return lane[0];
}

static void assert_same_bits(const struct mn_kernels *k, const float *a, const float *b, uint32_t n)
{
    float dot = k->dot(a, b, n), l2 = k->l2(a, b, n), want_dot = defined(a, b, n, false),
          want_l2 = defined(a, b, n, true);
    double norm2, want_norm2 = defined_norm2(a, n);
    if (memcmp(&dot, &want_dot, sizeof dot) != 0)
        fail_msg("%s: dot of %u floats is %a, not %a", k->name, n, (double)dot, (double)want_dot);
    if (memcmp(&l2, &want_l2, sizeof l2) != 0)
        fail_msg("%s: l2 of %u floats is %a, not %a", k->name, n, (double)l2, (double)want_l2);
    assert_true(k->check(a, n, &norm2));
    if (memcmp(&norm2, &want_norm2, sizeof norm2) != 0)
        fail_msg("%s: norm2 of %u floats is %a, not %a", k->name, n, norm2, want_norm2);
}

static void each_agrees_with_the_definition(void **state)
{
    float *memory = malloc((2 * FLOATS_MAX + 32) * sizeof *memory);
    assert_non_null(memory);
    for (size_t which = 0; which < MN_ARRAY_LEN(names); which++) {
        const struct mn_kernels *k = mn_kernels_named(names[which]);
        for (size_t i = 0; k && i < MN_ARRAY_LEN(dims) * 6; i++) {
            uint32_t n = dims[i / 6];
            float *a = memory + i % 5, *b = memory + FLOATS_MAX + 16 + i % 3;
            for (uint32_t j = 0; j < n; j++) {
                a[j] = i % 2 ? random_float() : wild_float();
                b[j] = i % 2 ? random_float() : wild_float();
            }
            assert_same_bits(k, a, b, n);
        }
    }
    free(memory);
}

static void the_definition_is_close_to_double(void **state)
{
    static float a[FLOATS_MAX], b[FLOATS_MAX];
    const struct mn_kernels *k = mn_kernels_best();
    for (size_t i = 0; i < MN_ARRAY_LEN(dims); i++) {
        double dot = 0, l2 = 0, size = 0;
        for (uint32_t j = 0; j < dims[i]; j++) {
            a[j] = random_float();
            b[j] = random_float();
            double x = (double)a[j], y = (double)b[j];
            dot += x * y;
            l2 += (x - y) * (x - y);
            size += fabs(x * y);
        }
        assert_true(fabs((double)k->dot(a, b, dims[i]) - dot) <= 1e-6 * size);
        assert_true(fabs((double)k->l2(a, b, dims[i]) - l2) <= 1e-6 * l2);
    }
}

static void nothing_is_read_behind_the_end(void **state)
{
    for (size_t which = 0; which < MN_ARRAY_LEN(names); which++) {
        const struct mn_kernels *k = mn_kernels_named(names[which]);
        for (uint32_t n = 1; k && n < 70; n++) {
            /* Blocks of exactly n floats: the address sanitizer sees a read too many; NaN behind the end shows
             * otherwise. */
            float *a = malloc(n * sizeof *a), framed[72];
            assert_non_null(a);
            for (uint32_t i = 0; i < MN_ARRAY_LEN(framed); i++)
                framed[i] = NAN;
            for (uint32_t i = 0; i < n; i++)
                a[i] = framed[i] = 1;
            double norm2;
            assert_true(k->dot(a, framed, n) == (float)n);
            assert_true(k->l2(a, framed, n) == 0);
            assert_true(k->check(framed, n, &norm2) && k->check(a, n, &norm2) && norm2 == (double)n);
            free(a);
        }
    }
}

static void what_is_not_finite_is_found_anywhere(void **state)
{
    static const uint32_t bad[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff};
    uint8_t bytes[100 * 4 + 1];
    for (size_t which = 0; which < MN_ARRAY_LEN(names); which++) {
        const struct mn_kernels *k = mn_kernels_named(names[which]);
        for (uint32_t n = 1; k && n <= 100; n += 3) {
            for (uint32_t at = 0; at < n; at++) {
                double norm2;
                float largest = 0x1.fffffep127f;
                for (uint32_t i = 0; i < n; i++)
                    memcpy(bytes + 1 + 4 * i, &largest, 4);
                assert_true(k->check(bytes + 1, n, &norm2));
                memcpy(bytes + 1 + 4 * at, &bad[at % MN_ARRAY_LEN(bad)], 4);
                assert_false(k->check(bytes + 1, n, &norm2));
            }
        }
    }
}

/* Queries and rows that lie anywhere, each in a block of its own; out is framed. */
static void assert_same_pairs(const struct mn_kernels *k, uint32_t nq, uint32_t nr, uint32_t n)
{
    float *q[PAIRS_MAX], *r[PAIRS_MAX], out[PAIRS_MAX * PAIRS_MAX + 1];
    for (uint32_t i = 0; i < PAIRS_MAX; i++) {
        q[i] = malloc(n * sizeof(float));
        r[i] = malloc(n * sizeof(float));
        assert_true(q[i] && r[i]);
        for (uint32_t j = 0; j < n; j++) {
            q[i][j] = n % 2 ? random_float() : wild_float();
            r[i][j] = n % 2 ? random_float() : wild_float();
        }
    }
    for (int l2 = 0; l2 <= 1; l2++) {
        out[nq * nr] = 7;
        (l2 ? k->l2s : k->dots)((const float *const *)q, nq, (const float *const *)r, nr, n, out);
        for (uint32_t i = 0; i < nq * nr; i++) {
            float wanted = (l2 ? k->l2 : k->dot)(q[i / nr], r[i % nr], n);
            assert_memory_equal(&out[i], &wanted, sizeof wanted);
        }
        assert_true(out[nq * nr] == 7);
    }
    for (uint32_t i = 0; i < PAIRS_MAX; i++) {
        free(q[i]);
        free(r[i]);
    }
}

static void assert_same_code_pairs(const struct mn_kernels *k, uint32_t nq, uint32_t nr, uint32_t width)
{
    static _Alignas(64) int8_t queries[PAIRS_MAX][1024];
    static _Alignas(64) uint8_t rows[PAIRS_MAX][1024];
    const int8_t *q[PAIRS_MAX];
    const uint8_t *r[PAIRS_MAX];
    int32_t out[PAIRS_MAX * PAIRS_MAX + 1];
    for (uint32_t i = 0; i < PAIRS_MAX; i++) {
        q[i] = queries[i];
        r[i] = rows[i];
        for (uint32_t j = 0; j < width; j++) {
            queries[i][j] = (int8_t)((int)(random_bits() % 255) - 127);
            rows[i][j] = (uint8_t)random_bits();
        }
    }
    out[nq * nr] = 7;
    k->dots8(q, nq, r, nr, width, out);
    for (uint32_t i = 0; i < nq * nr; i++)
        assert_int_equal(out[i], k->dot8(r[i % nr], q[i / nr], width));
    assert_int_equal(out[nq * nr], 7);
}

static void several_at_once_are_each_by_itself(void **state)
{
    for (size_t which = 0; which < MN_ARRAY_LEN(names); which++) {
        const struct mn_kernels *k = mn_kernels_named(names[which]);
        for (uint32_t pairs = 0; k && pairs < PAIRS_MAX * PAIRS_MAX; pairs++) {
            uint32_t nq = 1 + pairs / PAIRS_MAX, nr = 1 + pairs % PAIRS_MAX;
            assert_same_pairs(k, nq, nr, dims[pairs % MN_ARRAY_LEN(dims)]);
            assert_same_code_pairs(k, nq, nr, 64 + 64 * (pairs % 16));
        }
    }
}

static void names_are_known(void **state)
{
    assert_non_null(mn_kernels_named("portable"));
    assert_null(mn_kernels_named("abacus"));
    assert_ptr_equal(mn_kernels_best(), mn_kernels_best());
    assert_ptr_equal(mn_kernels_named(mn_kernels_best()->name), mn_kernels_best());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_agrees_with_the_definition),    cmocka_unit_test(the_definition_is_close_to_double),
        cmocka_unit_test(nothing_is_read_behind_the_end),     cmocka_unit_test(what_is_not_finite_is_found_anywhere),
        cmocka_unit_test(several_at_once_are_each_by_itself), cmocka_unit_test(names_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
