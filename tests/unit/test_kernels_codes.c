/*
 * test_kernels_codes.c - engine/kernels, the arithmetic of codes: the portable kernels do what kernels.h says, as far
 * as double can tell, and every other implementation gives the same bits.
 */
#include "engine/kernels.h"
#include "tests/unit/random_bits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define WIDTH_MAX 65536u

static const char *const others[] = {"avx512", "avx2"};
/* Below, at and above a power of two; with and without a rest at every width of register; more than 16 bits count. */
static const uint32_t widths[] = {64,  128,  192,  256,  320,  384,  448,  512,
                                  768, 1024, 1152, 1536, 4096, 8192, 8448, 24640};

/* What a vector is like. */
enum kind { RANDOM, ZERO, HUGE_ONES, SMALL, DENORMAL, CONSTANT, NEGATIVE, ONE_HOT, WILD, KINDS };

/* Room for vectors, codes and tables of the largest width. */
struct room {
    _Alignas(64) float a[WIDTH_MAX], b[WIDTH_MAX], c[WIDTH_MAX];
    _Alignas(64) uint8_t table[4 * WIDTH_MAX], other_table[4 * WIDTH_MAX], codes[WIDTH_MAX], other_codes[WIDTH_MAX];
    _Alignas(64) uint8_t block[4 * WIDTH_MAX + 512], bits[WIDTH_MAX / 8], other_bits[WIDTH_MAX / 8];
    _Alignas(64) int8_t fine[WIDTH_MAX], other_fine[WIDTH_MAX];
    uint32_t signs[4 * WIDTH_MAX / 32];
};
static struct room room;

static float value(enum kind kind, uint32_t i)
{
    switch (kind) {
    case ZERO:
        return random_bits() % 2 ? 0.0f : -0.0f;
    case HUGE_ONES:
        return random_float() * 1e16f;
    case SMALL:
        return random_float() * 1e-22f;
    case DENORMAL:
        return random_float() * 1e-41f;
    case CONSTANT:
        return 0.75f;
    case NEGATIVE:
        return -3.0f;
    case ONE_HOT:
        return i == 37 ? 1.0f : 0.0f;
    case WILD:
        return ldexpf(random_float(), (int)(random_bits() % 40) - 20);
    default:
        return random_float();
    }
}

static void fill(float *x, uint32_t width, enum kind kind)
{
    for (uint32_t i = 0; i < width; i++)
        x[i] = value(kind, i);
}

static void fill_bytes(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = (uint8_t)random_bits();
}

static const struct mn_kernels *portable(void)
{
    return mn_kernels_named("portable");
}

/* ---- the same bits ---- */

/* Runs `check` with every implementation but the portable one, on every width and kind of vector. */
static void each(void (*check)(const struct mn_kernels *k, uint32_t width, enum kind kind))
{
    for (size_t i = 0; i < MN_ARRAY_LEN(others); i++) {
        const struct mn_kernels *k = mn_kernels_named(others[i]);
        for (size_t w = 0; k && w < MN_ARRAY_LEN(widths); w++) {
            for (enum kind kind = RANDOM; kind < KINDS; kind++)
                check(k, widths[w], kind);
        }
    }
}

static void assert_equal_bytes(const struct mn_kernels *k, const char *what, uint32_t width, enum kind kind,
                               const void *got, const void *want, size_t n)
{
    if (memcmp(got, want, n) != 0)
        fail_msg("%s: %s differs at width %u, kind %d", k->name, what, width, (int)kind);
}

static void same_rotation(const struct mn_kernels *k, uint32_t width, enum kind kind)
{
    fill(room.a, width, kind);
    memcpy(room.b, room.a, width * sizeof *room.a);
    fill_bytes(room.signs, width / 32 * 4 * sizeof *room.signs);
    portable()->rotate(room.a, width, room.signs);
    k->rotate(room.b, width, room.signs);
    assert_equal_bytes(k, "rotate", width, kind, room.b, room.a, width * sizeof *room.a);
}

static void same_tables(const struct mn_kernels *k, uint32_t width, enum kind kind)
{
    struct mn_scan_query want, got;
    fill(room.a, width, kind);
    portable()->make_table(room.a, width, room.table, &want);
    k->make_table(room.a, width, room.other_table, &got);
    assert_equal_bytes(k, "table", width, kind, room.other_table, room.table, 4 * (size_t)width);
    assert_equal_bytes(k, "step", width, kind, &got.step, &want.step, sizeof got.step);
    assert_equal_bytes(k, "bias", width, kind, &got.bias, &want.bias, sizeof got.bias);
    assert_true(got.width == width && got.table == room.other_table);
}

static void same_fine_queries(const struct mn_kernels *k, uint32_t width, enum kind kind)
{
    struct mn_fine_query want, got;
    fill(room.a, width, kind);
    portable()->make_fine(room.a, width, room.fine, &want);
    k->make_fine(room.a, width, room.other_fine, &got);
    assert_equal_bytes(k, "fine codes", width, kind, room.other_fine, room.fine, width);
    assert_equal_bytes(k, "fine step", width, kind, &got.step, &want.step, sizeof got.step);
    assert_equal_bytes(k, "lost", width, kind, &got.lost, &want.lost, sizeof got.lost);
    assert_int_equal(got.sum, want.sum);
    assert_true(got.width == width && got.codes == room.other_fine);
}

static void same_scans(const struct mn_kernels *k, uint32_t width, enum kind kind)
{
    _Alignas(64) float want[32], got[32], gaps[32], reaches[32];
    struct mn_scan_query query;
    for (unsigned i = 0; i < 32; i++) {
        gaps[i] = 1.25f;
        reaches[i] = 0.4f;
    }
    fill(room.a, width, kind);
    portable()->make_table(room.a, width, room.table, &query);
    fill_bytes(room.block, 4 * (size_t)width);
    float *factors = (float *)(void *)(room.block + 4 * (size_t)width);
    fill(factors, 96, kind == HUGE_ONES ? RANDOM : kind);
    factors[5] = 1e30f;
    uint32_t want_mask = portable()->scan_block(&query, room.block, 1.25f, 0.4f, 1.3f, want);
    uint32_t got_mask = k->scan_block(&query, room.block, 1.25f, 0.4f, 1.3f, got);
    assert_equal_bytes(k, "scan_block", width, kind, got, want, sizeof want);
    assert_int_equal(got_mask, want_mask);
    assert_int_equal(k->scan_block(&query, room.block, 1.25f, 0.4f, INFINITY, got), UINT32_MAX);
    memset(got, 0, sizeof got);
    assert_int_equal(k->scan_ahead(&query, room.block, room.codes, gaps, reaches, 1.3f, got), want_mask);
    assert_equal_bytes(k, "scan_ahead", width, kind, got, want, sizeof want);
    want_mask = portable()->scan_ahead(&query, room.block, NULL, gaps, reaches, want[7], want);
    assert_int_equal(k->scan_block(&query, room.block, 1.25f, 0.4f, want[7], got), want_mask);
    assert_int_equal(want_mask >> 7 & 1, 0); /* below, not at */
    for (unsigned i = 0; i < 32; i++) {      /* each lane its own */
        gaps[i] = 0.25f * (float)i - 3;
        reaches[i] = 0.125f * (float)(i % 7);
    }
    want_mask = portable()->scan_ahead(&query, room.block, NULL, gaps, reaches, 1.3f, want);
    assert_int_equal(k->scan_ahead(&query, room.block, room.codes, gaps, reaches, 1.3f, got), want_mask);
    assert_equal_bytes(k, "scan_ahead by lane", width, kind, got, want, sizeof want);
    portable()->scan_block(&query, room.block, gaps[9], reaches[9], 1.3f, want);
    assert_memory_equal(&got[9], &want[9], sizeof got[9]);
    want_mask = portable()->scan_block(&query, room.block, 1.25f, 0.4f, 1.3f, want);
    assert_int_equal(k->scan_block(&query, room.block, 1.25f, 0.4f, -INFINITY, got), 0);
}

static void same_codes(const struct mn_kernels *k, uint32_t width, enum kind kind)
{
    for (enum kind center = RANDOM; center <= KINDS; center++) {
        struct mn_code_sums want, got;
        const float *c = center == KINDS ? NULL : room.b;
        fill(room.a, width, kind);
        fill(room.b, width, center % KINDS);
        portable()->encode(room.a, c, width, room.codes, room.bits, &want);
        k->encode(room.a, c, width, room.other_codes, room.other_bits, &got);
        assert_equal_bytes(k, "codes", width, kind, room.other_codes, room.codes, width);
        assert_equal_bytes(k, "bits", width, kind, room.other_bits, room.bits, width / 8);
        assert_equal_bytes(k, "sums", width, kind, &got, &want, sizeof want);
    }
}

static void every_rotation_gives_the_same_bits(void **state)
{
    each(same_rotation);
}

static void every_table_has_the_same_bits(void **state)
{
    each(same_tables);
}

static void every_fine_query_has_the_same_bits(void **state)
{
    each(same_fine_queries);
}

static void every_scan_gives_the_same_bits(void **state)
{
    each(same_scans);
}

static void every_code_has_the_same_bits(void **state)
{
    each(same_codes);
}

/* ---- what kernels.h says ---- */

static double norm(const double *x, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

/* The rotation as codebook.h has it, every factor where it belongs. */
static void rotate_in_double(double *x, uint32_t width, const uint32_t *signs)
{
    uint32_t power = 64;
    while (2 * power <= width)
        power *= 2;
    for (unsigned round = 0; round < 4; round++) {
        double *y = x + (round % 2 ? width - power : 0);
        for (uint32_t i = 0; i < width; i++)
            x[i] = signs[round * width / 32 + i / 32] >> i % 32 & 1 ? -x[i] : x[i];
        for (uint32_t h = 1; h < power; h *= 2) {
            for (uint32_t i = 0; i < power; i++) {
                double a = y[i], b = y[i | h];
                if ((i & h) == 0) {
                    y[i] = (a + b) / sqrt(2);
                    y[i | h] = (a - b) / sqrt(2);
                }
            }
        }
        for (uint32_t i = 0; power < width && i < width / 2; i++) {
            double a = x[i], b = x[i + width / 2];
            x[i] = (a + b) / sqrt(2);
            x[i + width / 2] = (a - b) / sqrt(2);
        }
    }
}

static void the_rotation_is_what_codebook_h_says(void **state)
{
    static double exact[WIDTH_MAX];
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        for (enum kind kind = RANDOM; kind < KINDS; kind++) {
            uint32_t width = widths[w];
            fill(room.a, width, kind);
            fill_bytes(room.signs, width / 32 * 4 * sizeof *room.signs);
            for (uint32_t i = 0; i < width; i++)
                exact[i] = (double)room.a[i];
            double length = norm(exact, width);
            rotate_in_double(exact, width, room.signs);
            assert_true(fabs(norm(exact, width) - length) <= 1e-12 * length);
            portable()->rotate(room.a, width, room.signs);
            for (uint32_t i = 0; i < width; i++)
                exact[i] -= (double)room.a[i];
            assert_true(norm(exact, width) <= 4 * (log2(width) + 3) * 0x1p-24 * length + width * 0x1p-148);
        }
    }
}

static void a_rotation_makes_coordinates_alike(void **state)
{
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        uint32_t width = widths[w];
        fill(room.a, width, ONE_HOT);
        fill_bytes(room.signs, width / 32 * 4 * sizeof *room.signs);
        portable()->rotate(room.a, width, room.signs);
        float most = 0;
        for (uint32_t i = 0; i < width; i++)
            most = fmaxf(most, fabsf(room.a[i]));
        assert_true(most * sqrtf((float)width) < 7);
    }
}

static void nothing_overflows_on_the_way(void **state)
{
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        uint32_t width = widths[w];
        for (uint32_t i = 0; i < width; i++)
            room.a[i] = 3e38f / sqrtf((float)width);
        memset(room.signs, 0, width / 32 * 4 * sizeof *room.signs); /* all that there is gathers in one coordinate */
        portable()->rotate(room.a, width, room.signs);
        for (uint32_t i = 0; i < width; i++)
            assert_true(isfinite(room.a[i]));
    }
}

static double exact_entry(const float *q, unsigned bits)
{
    double sum = 0, least = 0;
    for (unsigned i = 0; i < 4; i++) {
        sum += bits >> i & 1 ? (double)q[i] : 0;
        least += q[i] < 0 ? (double)q[i] : 0;
    }
    return sum - least;
}

static void a_table_holds_the_sums_of_four(void **state)
{
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        for (enum kind kind = RANDOM; kind < KINDS; kind++) {
            struct mn_scan_query query;
            uint32_t width = widths[w], most = 0;
            double total = 0;
            fill(room.a, width, kind);
            portable()->make_table(room.a, width, room.table, &query);
            for (uint32_t i = 0; i < 4 * width; i++) {
                double entry = exact_entry(room.a + i / 16 * 4, i % 16), off = query.step * room.table[i] - entry;
                assert_true(query.step > 0 ? fabs(off) <= 0.5001 * (double)query.step : entry < 0x1p-99);
                most = room.table[i] > most ? room.table[i] : most;
                total += room.table[i];
            }
            assert_int_equal(most, query.step > 0 ? 31 : 0);
            assert_true(fabs((double)query.bias + query.step * total / 16) <= 1e-7 * query.step * total);
        }
    }
}

static void a_fine_query_says_what_it_loses(void **state)
{
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        for (enum kind kind = RANDOM; kind < KINDS; kind++) {
            struct mn_fine_query query;
            uint32_t width = widths[w];
            double lost = 0, length = 0;
            int32_t sum = 0;
            fill(room.a, width, kind);
            portable()->make_fine(room.a, width, room.fine, &query);
            for (uint32_t i = 0; i < width; i++) {
                double off = (double)room.a[i] - (double)query.step * room.fine[i];
                assert_true(query.step > 0 ? fabs(off) <= 0.5001 * (double)query.step : room.fine[i] == 0);
                assert_true(room.fine[i] >= -127);
                lost += off * off;
                length += (double)room.a[i] * (double)room.a[i];
                sum += room.fine[i];
            }
            assert_int_equal(query.sum, sum);
            assert_true((double)query.lost >= sqrt(lost));
            assert_true((double)query.lost <= 1.001 * sqrt(lost) + 1e-4 * sqrt(length) + 1e-20);
        }
    }
}

/* Row `lane` of a block: what ivf.h says about where its bits are. */
static unsigned nibble(const uint8_t *block, uint32_t group, unsigned lane)
{
    static const uint8_t order[16] = {0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15};
    unsigned byte = 0;
    while (order[byte] != lane % 16)
        byte++;
    return block[16 * group + byte] >> (lane < 16 ? 0 : 4) & 15;
}

static void assert_scan(const struct mn_kernels *k, const struct mn_scan_query *query, float gap, float reach)
{
    const float *factors = (const float *)(const void *)(room.block + 4 * (size_t)query->width);
    _Alignas(64) float low[32];
    uint32_t mask = k->scan_block(query, room.block, gap, reach, 1.0f, low);
    for (unsigned lane = 0; lane < 32; lane++) {
        double entries = 0, add = (double)factors[lane], slope = (double)factors[lane + 32];
        for (uint32_t g = 0; g < query->width / 4; g++)
            entries += query->table[16 * g + nibble(room.block, g, lane)];
        double ip = (double)query->step * entries + (double)query->bias;
        double want = add + (double)gap + slope * ip - (double)factors[lane + 64] * (double)reach;
        double size = fabs(add) + fabs((double)gap) + fabs(slope) * (entries * (double)query->step) +
                      fabs((double)factors[lane + 64] * (double)reach);
        if (!(fabs((double)low[lane] - want) <= 1e-6 * size))
            fail_msg("%s: width %u lane %u is %g, not %g", k->name, query->width, lane, (double)low[lane], want);
        assert_int_equal(mask >> lane & 1, low[lane] < 1.0f);
    }
}

static void a_scan_adds_up_the_entries_of_each_row(void **state)
{
    static const char *const names[] = {"portable", "avx2", "avx512"};
    struct mn_scan_query query;
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        uint32_t width = widths[w];
        fill(room.a, width, RANDOM);
        fill_bytes(room.block, 4 * (size_t)width);
        fill((float *)(void *)(room.block + 4 * (size_t)width), 96, RANDOM);
        for (size_t i = 0; i < MN_ARRAY_LEN(names); i++) {
            const struct mn_kernels *k = mn_kernels_named(names[i]);
            if (k) {
                k->make_table(room.a, width, room.table, &query);
                assert_scan(k, &query, 0.5f, 0.25f);
            }
        }
    }
}

static void the_largest_entries_do_not_overflow(void **state)
{
    static const char *const names[] = {"portable", "avx2", "avx512"};
    static const uint32_t wide[] = {64, 768, 8192, 8256, 16384, 16448, 65472, 65536};
    memset(room.table, 31, sizeof room.table);
    for (size_t w = 0; w < MN_ARRAY_LEN(wide); w++) {
        struct mn_scan_query query = {wide[w], room.table, 1, 0};
        fill_bytes(room.block, 4 * (size_t)wide[w]);
        float *factors = (float *)(void *)(room.block + 4 * (size_t)wide[w]);
        for (unsigned i = 0; i < 96; i++)
            factors[i] = i / 32 == 1;
        for (size_t i = 0; i < MN_ARRAY_LEN(names); i++) {
            const struct mn_kernels *k = mn_kernels_named(names[i]);
            _Alignas(64) float low[32];
            if (!k)
                continue;
            uint32_t sum = wide[w] / 4 * 31;
            k->scan_block(&query, room.block, 0, 0, 1, low);
            for (unsigned lane = 0; lane < 32; lane++)
                assert_true(low[lane] == (float)sum);
        }
    }
}

static void assert_dot8(uint32_t width)
{
    static const char *const names[] = {"portable", "avx2", "avx512"};
    int64_t sum = 0;
    for (uint32_t i = 0; i < width; i++)
        sum += (int64_t)room.codes[i] * room.fine[i];
    for (size_t i = 0; i < MN_ARRAY_LEN(names); i++) {
        const struct mn_kernels *k = mn_kernels_named(names[i]);
        if (k)
            assert_int_equal(k->dot8(room.codes, room.fine, width), sum);
    }
}

static void a_product_of_codes_is_exact(void **state)
{
    static const int extremes[][2] = {{255, 127}, {255, -127}, {0, -127}, {0, 127}, {128, -127}, {127, 127}, {1, -1}};
    for (uint32_t width = 64; width <= WIDTH_MAX; width = width < 2048 ? width + 64 : width * 2) {
        for (uint32_t i = 0; i < width; i++) {
            room.codes[i] = (uint8_t)random_bits();
            room.fine[i] = (int8_t)(random_bits() % 255) - 127;
        }
        assert_dot8(width);
        for (size_t e = 0; e < MN_ARRAY_LEN(extremes); e++) {
            memset(room.codes, extremes[e][0], width);
            memset(room.fine, extremes[e][1], width);
            assert_dot8(width);
        }
    }
}

static void assert_near(double got, double want, double size)
{
    if (!(fabs(got - want) <= 1e-5 * size + 1e-37))
        fail_msg("%g is not %g", got, want);
}

static void assert_code_sums(const struct mn_code_sums *s, uint32_t width)
{
    double norm2 = 0, norm1 = 0, center = 0, fine = 0, fine_center = 0, lost2 = 0, sizes = 0;
    for (uint32_t i = 0; i < width; i++) {
        float r = room.a[i] - room.b[i];
        double x = (double)r, c = (double)room.b[i], y = room.codes[i] - 127.5;
        assert_int_equal(room.bits[i / 8] >> i % 8 & 1, r > 0);
        assert_true(fabs(x * 127.99 - y * (double)s->max) <= 0.5001 * (double)s->max);
        norm2 += x * x;
        norm1 += fabs(x);
        center += r > 0 ? 0.5 * c : -0.5 * c;
        fine += x * y;
        fine_center += y * c;
        lost2 += (x - (double)s->scale * y) * (x - (double)s->scale * y);
        sizes += fabs(c);
    }
    assert_near((double)s->norm2, norm2, norm2);
    assert_near((double)s->norm1, norm1, norm1);
    assert_near((double)s->center, center, sizes);
    assert_near((double)s->fine, fine, fine);
    assert_near((double)s->fine_center, fine_center, 128 * sizes);
    assert_near((double)s->scale, norm2 / fine, norm2 / fine);
    assert_near((double)s->lost2, lost2, lost2 + 1e-9 * norm2);
}

static void a_code_and_its_sums_are_those_of_the_residual(void **state)
{
    static const enum kind kinds[] = {RANDOM, CONSTANT, NEGATIVE, ONE_HOT, WILD};
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        for (size_t i = 0; i < MN_ARRAY_LEN(kinds); i++) {
            struct mn_code_sums sums;
            fill(room.a, widths[w], kinds[i]);
            fill(room.b, widths[w], RANDOM);
            portable()->encode(room.a, room.b, widths[w], room.codes, room.bits, &sums);
            assert_code_sums(&sums, widths[w]);
        }
    }
}

static void a_zero_residual_is_the_middle_code(void **state)
{
    struct mn_code_sums sums;
    fill(room.a, 768, RANDOM);
    memcpy(room.b, room.a, 768 * sizeof *room.a);
    portable()->encode(room.a, room.b, 768, room.codes, room.bits, &sums);
    for (unsigned i = 0; i < 768; i++)
        assert_true(room.codes[i] == 128 && room.bits[i / 8] == 0);
    assert_true(sums.norm2 == 0 && sums.norm1 == 0 && sums.max == 0 && sums.scale == 0);
}

static void assert_products(const struct mn_kernels *k, uint32_t na, uint32_t nb, uint32_t width)
{
    static float out[70][16];
    for (unsigned i = 0; i < 70 * 16; i++)
        out[i / 16][i % 16] = -77;
    k->products(room.a, na, room.b, nb, width, &out[0][0], 16);
    for (uint32_t i = 0; i < 70; i++) {
        for (uint32_t j = 0; j < 16; j++) {
            double sum = 0, size = 0;
            for (uint32_t d = 0; i < na && j < nb && d < width; d++) {
                double p = (double)room.a[i * width + d] * (double)room.b[j * width + d];
                sum += p;
                size += fabs(p);
            }
            if (i < na && j < nb)
                assert_true(fabs((double)out[i][j] - sum) <= 1e-6 * size);
            else
                assert_true(out[i][j] == -77); /* nothing beside the rectangle is touched */
        }
    }
}

static void products_are_near_and_stay_in_their_rectangle(void **state)
{
    static const char *const names[] = {"portable", "avx2", "avx512"};
    fill(room.a, WIDTH_MAX, RANDOM);
    fill(room.b, WIDTH_MAX, RANDOM);
    for (size_t i = 0; i < MN_ARRAY_LEN(names); i++) {
        const struct mn_kernels *k = mn_kernels_named(names[i]);
        for (uint32_t n = 1; k && n <= 81; n++)
            assert_products(k, (n - 1) / 9 + 1, (n - 1) % 9 + 1, n % 2 ? 64 : 192);
        if (k) {
            assert_products(k, 69, 13, 768);
            assert_products(k, 5, 3, 8192); /* several tiles */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rotation_gives_the_same_bits),
        cmocka_unit_test(every_table_has_the_same_bits),
        cmocka_unit_test(every_fine_query_has_the_same_bits),
        cmocka_unit_test(every_scan_gives_the_same_bits),
        cmocka_unit_test(every_code_has_the_same_bits),
        cmocka_unit_test(the_rotation_is_what_codebook_h_says),
        cmocka_unit_test(a_rotation_makes_coordinates_alike),
        cmocka_unit_test(nothing_overflows_on_the_way),
        cmocka_unit_test(a_table_holds_the_sums_of_four),
        cmocka_unit_test(a_fine_query_says_what_it_loses),
        cmocka_unit_test(a_scan_adds_up_the_entries_of_each_row),
        cmocka_unit_test(the_largest_entries_do_not_overflow),
        cmocka_unit_test(a_product_of_codes_is_exact),
        cmocka_unit_test(a_code_and_its_sums_are_those_of_the_residual),
        cmocka_unit_test(a_zero_residual_is_the_middle_code),
        cmocka_unit_test(products_are_near_and_stay_in_their_rectangle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
