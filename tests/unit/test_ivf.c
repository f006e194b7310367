/*
 * test_ivf.c - engine/ivf: codes lie where ivf.h says and are the same everywhere; what they say of distances is near,
 * on average right, and never further off than the bound. Distances are taken in double.
 */
#include "engine/ivf.h"
#include "tests/unit/random_bits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define WIDTH_MAX 4096u
#define BLOCK_MAX (4 * WIDTH_MAX + sizeof(struct mn_ivf_lanes))

static const uint32_t widths[] = {64, 128, 384, 768, 1024, 1536, 4096};
static const enum mn_metric metrics[] = {MN_METRIC_COSINE, MN_METRIC_L2, MN_METRIC_IP};

/* A cluster of 32 rows about a centroid, and a query. */
struct scene {
    _Alignas(64) float rows[32][WIDTH_MAX], center[WIDTH_MAX], query[WIDTH_MAX];
    _Alignas(64) uint8_t block[BLOCK_MAX], codes8[32][WIDTH_MAX], table[4 * WIDTH_MAX];
    _Alignas(64) int8_t fine_codes[WIDTH_MAX];
    struct mn_ivf_fine fine[32];
    struct mn_scan_query scan;
    struct mn_fine_query fine_query;
    float gap, reach, size;
};
static struct scene scene, other;

/* Nearly normal, of variance 1. */
static float normal_float(void)
{
    float sum = 0;
    for (unsigned i = 0; i < 12; i++)
        sum += (float)random_bits() * 0x1p-32f;
    return sum - 6;
}

/* What rows are like: `spread` about the centroid, all of size `scale`. */
enum kind { USUAL, TIGHT, WIDE, HUGE_ONES, SMALL, SPIKES, STEPS, KINDS };

static float residual(enum kind kind, uint32_t i, unsigned lane)
{
    switch (kind) {
    case TIGHT:
        return normal_float() * 1e-4f;
    case WIDE:
        return normal_float() * 100;
    case HUGE_ONES:
        return normal_float() * 1e12f;
    case SMALL:
        return normal_float() * 1e-13f;
    case SPIKES:
        return i % 64 == lane ? 5.0f : normal_float() * 1e-3f;
    case STEPS:
        return (i / 7 + lane) % 3 == 0 ? 0.25f : -0.125f;
    default:
        return normal_float();
    }
}

static void make_scene(struct scene *s, uint32_t width, enum kind kind, bool centered)
{
    float scale = kind == HUGE_ONES ? 1e12f : kind == SMALL ? 1e-13f : 1.0f;
    for (uint32_t i = 0; i < width; i++) {
        s->center[i] = centered ? normal_float() * scale * 2 : 0;
        s->query[i] = s->center[i] + normal_float() * scale;
        for (unsigned lane = 0; lane < 32; lane++)
            s->rows[lane][i] = s->center[i] + residual(kind, i, lane);
    }
}

static void encode_scene(struct scene *s, const struct mn_kernels *k, enum mn_metric metric, uint32_t width)
{
    mn_ivf_clear_block(s->block, width);
    for (unsigned lane = 0; lane < 32; lane++)
        mn_ivf_encode(k, metric, width, s->rows[lane], s->center, s->block, lane, s->codes8[lane], &s->fine[lane]);
}

/* gap, reach and size as a search has them. */
static void ask_scene(struct scene *s, const struct mn_kernels *k, enum mn_metric metric, uint32_t width)
{
    float q2 = k->dot(s->query, s->query, width), c2 = k->dot(s->center, s->center, width);
    k->make_table(s->query, width, s->table, &s->scan);
    k->make_fine(s->query, width, s->fine_codes, &s->fine_query);
    s->gap = metric == MN_METRIC_IP ? -k->dot(s->query, s->center, width) : k->l2(s->query, s->center, width);
    s->reach = metric == MN_METRIC_IP ? sqrtf(q2) : sqrtf(s->gap);
    s->size = sqrtf(q2) + sqrtf(c2);
}

static double distance(const struct scene *s, enum mn_metric metric, unsigned lane, uint32_t width)
{
    double sum = 0;
    for (uint32_t i = 0; i < width; i++) {
        double x = (double)s->rows[lane][i], q = (double)s->query[i];
        sum += metric == MN_METRIC_IP ? -x * q : (x - q) * (x - q);
    }
    return sum;
}

static float estimate8(const struct scene *s, const struct mn_kernels *k, unsigned lane, uint32_t width)
{
    int32_t dot = k->dot8(s->codes8[lane], s->fine_codes, width);
    return mn_ivf_estimate8(&s->fine[lane], &s->fine_query, dot, s->gap);
}

/* ---- where codes lie ---- */

static unsigned nibble(const uint8_t *block, uint32_t group, unsigned lane)
{
    static const uint8_t order[16] = {0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15};
    unsigned byte = 0;
    while (order[byte] != lane % 16)
        byte++;
    return block[16 * group + byte] >> (lane < 16 ? 0 : 4) & 15;
}

static void codes_lie_where_the_header_says(void **state)
{
    const struct mn_kernels *k = mn_kernels_best();
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        uint32_t width = widths[w];
        make_scene(&scene, width, USUAL, true);
        encode_scene(&scene, k, MN_METRIC_L2, width);
        for (unsigned lane = 0; lane < 32; lane++) {
            float max = 0;
            for (uint32_t i = 0; i < width; i++)
                max = fmaxf(max, fabsf(scene.rows[lane][i] - scene.center[i]));
            for (uint32_t i = 0; i < width; i++) {
                float r = scene.rows[lane][i] - scene.center[i];
                assert_int_equal(nibble(scene.block, i / 4, lane) >> i % 4 & 1, r > 0);
                assert_int_equal(scene.codes8[lane][i], (int)floorf(r * (127.99f / max) + 128));
            }
        }
    }
}

static void lanes_that_are_not_coded_stay_far(void **state)
{
    const struct mn_kernels *k = mn_kernels_best();
    const struct mn_ivf_lanes *lanes = mn_ivf_lanes(scene.block, 128);
    _Alignas(64) float low[32];
    memset(&scene, 0xff, sizeof scene);
    make_scene(&scene, 128, USUAL, true);
    ask_scene(&scene, k, MN_METRIC_L2, 128);
    mn_ivf_clear_block(scene.block, 128);
    mn_ivf_encode(k, MN_METRIC_L2, 128, scene.rows[9], scene.center, scene.block, 9, scene.codes8[9], &scene.fine[9]);
    for (unsigned lane = 0; lane < 32; lane++) {
        if (lane != 9)
            assert_true(lanes->add[lane] == MN_IVF_FAR && lanes->slope[lane] == 0 && lanes->error[lane] == 0);
        for (uint32_t g = 0; lane != 9 && g < 32; g++)
            assert_int_equal(nibble(scene.block, g, lane), 0);
    }
    assert_int_equal(k->scan_block(&scene.scan, scene.block, scene.gap, scene.reach, 1e29f, low), 1u << 9);
}

static void codes_are_the_same_on_every_instruction_set(void **state)
{
    static const char *const names[] = {"avx512", "avx2"};
    const struct mn_kernels *portable = mn_kernels_named("portable");
    for (size_t n = 0; n < MN_ARRAY_LEN(names) * MN_ARRAY_LEN(widths) * KINDS; n++) {
        const struct mn_kernels *k = mn_kernels_named(names[n % 2]);
        uint32_t width = widths[n / 2 % MN_ARRAY_LEN(widths)];
        enum mn_metric metric = metrics[n % 3];
        if (!k)
            continue;
        make_scene(&scene, width, (enum kind)(n % KINDS), n % 5 != 0);
        other = scene;
        encode_scene(&scene, portable, metric, width);
        encode_scene(&other, k, metric, width);
        assert_memory_equal(scene.block, other.block, mn_ivf_block_bytes(width));
        assert_memory_equal(scene.codes8, other.codes8, sizeof scene.codes8);
        assert_memory_equal(scene.fine, other.fine, sizeof scene.fine);
    }
}

/* ---- what codes say ---- */

/* fine.error and fine.span against the norms that they are to bound; scale is in the slope. */
static void assert_norms(const struct scene *s, unsigned lane, uint32_t width, double scale)
{
    double error = 0, span = 0;
    for (uint32_t i = 0; i < width; i++) {
        double r = (double)s->rows[lane][i] - (double)s->center[i], y = scale * (s->codes8[lane][i] - 127.5);
        error += (r - y) * (r - y);
        span += y * y;
    }
    assert_true((double)s->fine[lane].error >= sqrt(error));
    assert_true((double)s->fine[lane].span >= sqrt(span));
}

static void the_norms_of_a_code_are_rounded_up(void **state)
{
    static const float sizes[] = {1, 0.3f, 1e-7f, 1e-17f, 1e-20f, 1e-22f, 1e-23f, 1e-28f, 1e-35f, 1e-41f};
    for (size_t i = 0; i < MN_ARRAY_LEN(sizes) * 4; i++) {
        enum mn_metric metric = i % 3 == 0 ? MN_METRIC_IP : MN_METRIC_L2;
        make_scene(&scene, 384, USUAL, i % 2 == 0);
        /* Random residuals, and such as an 8-bit code gives back but for rounding. */
        for (unsigned j = 0; j < 384; j++) {
            for (unsigned lane = 0; lane < 32; lane++) {
                float r = i % 4 < 2 ? normal_float() : (lane * 384 + j) % 5 == 0 ? -1.0f : 1.0f;
                scene.rows[lane][j] = scene.center[j] + r * sizes[i / 4];
            }
        }
        encode_scene(&scene, mn_kernels_best(), metric, 384);
        for (unsigned lane = 0; lane < 32; lane++)
            assert_norms(&scene, lane, 384, (double)scene.fine[lane].slope * (metric == MN_METRIC_IP ? -1 : -0.5));
    }
}

static void assert_bounds(enum mn_metric metric, uint32_t width, enum kind kind)
{
    const struct mn_kernels *k = mn_kernels_best();
    encode_scene(&scene, k, metric, width);
    ask_scene(&scene, k, metric, width);
    for (unsigned lane = 0; lane < 32; lane++) {
        double off = fabs((double)estimate8(&scene, k, lane, width) - distance(&scene, metric, lane, width));
        const struct mn_ivf_fine *fine = &scene.fine[lane];
        float doubt = mn_ivf_doubt8(fine, &scene.fine_query, metric, scene.reach, scene.size);
        if (!(off <= (double)doubt))
            fail_msg("width %u, kind %d, metric %d: off by %g, said %g", width, (int)kind, (int)metric, off,
                     (double)doubt);
        /* A bound that says nothing would hold too. Rows far smaller than the centroid drown in its rounding. */
        if (kind != TIGHT && kind != SPIKES)
            assert_true(doubt <= 0.02f * fine->span * (scene.reach + scene.size) + 1e-3f * scene.size * scene.size);
    }
}

static void the_bound_of_8_bits_holds(void **state)
{
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        for (enum kind kind = USUAL; kind < KINDS; kind++) {
            for (size_t m = 0; m < MN_ARRAY_LEN(metrics); m++) {
                make_scene(&scene, widths[w], kind, m != 1 || kind % 2 == 0);
                assert_bounds(metrics[m], widths[w], kind);
            }
        }
    }
}

static void the_bound_holds_for_odd_queries(void **state)
{
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        for (size_t m = 0; m < MN_ARRAY_LEN(metrics); m++) {
            uint32_t width = widths[w];
            make_scene(&scene, width, USUAL, true);
            memset(scene.query, 0, width * sizeof *scene.query);
            assert_bounds(metrics[m], width, USUAL);
            scene.query[width - 1] = 1000;
            assert_bounds(metrics[m], width, USUAL);
            for (uint32_t i = 0; i < width; i++)
                scene.query[i] = 2;
            assert_bounds(metrics[m], width, USUAL);
            memcpy(scene.query, scene.rows[3], width * sizeof *scene.query);
            assert_bounds(metrics[m], width, USUAL);
            memcpy(scene.query, scene.center, width * sizeof *scene.query);
            assert_bounds(metrics[m], width, USUAL);
        }
    }
}

struct tally {
    double off, off2, covered, count;
};

/* How far 1-bit estimates are off, in units of what `error` says of a standard deviation. */
static void tally_bits(struct tally *t, enum mn_metric metric, uint32_t width)
{
    const struct mn_kernels *k = mn_kernels_best();
    const struct mn_ivf_lanes *lanes = mn_ivf_lanes(scene.block, width);
    _Alignas(64) float estimate[32], low[32];
    encode_scene(&scene, k, metric, width);
    ask_scene(&scene, k, metric, width);
    k->scan_block(&scene.scan, scene.block, scene.gap, 0, INFINITY, estimate);
    k->scan_block(&scene.scan, scene.block, scene.gap, 1.9f * scene.reach, INFINITY, low);
    for (unsigned lane = 0; lane < 32; lane++) {
        double exact = distance(&scene, metric, lane, width);
        double off = ((double)estimate[lane] - exact) / (double)(lanes->error[lane] * scene.reach);
        t->off += off;
        t->off2 += off * off;
        t->covered += (double)low[lane] <= exact;
        t->count++;
    }
}

static void estimates_of_1_bit_are_right_on_average(void **state)
{
    for (size_t w = 0; w < MN_ARRAY_LEN(widths); w++) {
        for (size_t m = 0; m < MN_ARRAY_LEN(metrics); m++) {
            struct tally t = {0};
            for (unsigned n = 0; n < 40; n++) {
                make_scene(&scene, widths[w], USUAL, true);
                tally_bits(&t, metrics[m], widths[w]);
            }
            /* 1,280 rows but only 40 queries, whose tables are rounded each in its own way. */
            assert_true(fabs(t.off / t.count) < 0.1);
            assert_true(t.off2 / t.count > 0.7 && t.off2 / t.count < 1.3);
            assert_true(t.covered / t.count > 0.95);
        }
    }
}

/* ---- odd rows ---- */

static void a_row_on_its_centroid_is_as_far_as_that(void **state)
{
    const struct mn_kernels *k = mn_kernels_best();
    const struct mn_ivf_lanes *lanes = mn_ivf_lanes(scene.block, 768);
    for (size_t m = 0; m < MN_ARRAY_LEN(metrics); m++) {
        make_scene(&scene, 768, USUAL, true);
        memcpy(scene.rows[3], scene.center, 768 * sizeof(float));
        encode_scene(&scene, k, metrics[m], 768);
        ask_scene(&scene, k, metrics[m], 768);
        assert_true(lanes->add[3] == 0 && lanes->slope[3] == 0 && lanes->error[3] == 0);
        assert_true(estimate8(&scene, k, 3, 768) == scene.gap);
        assert_true(scene.fine[3].error < 1e-15f && scene.fine[3].span < 1e-15f);
    }
}

static void without_a_centroid_it_is_the_origin(void **state)
{
    const struct mn_kernels *k = mn_kernels_best();
    for (size_t m = 0; m < MN_ARRAY_LEN(metrics); m++) {
        make_scene(&scene, 384, USUAL, false);
        encode_scene(&scene, k, metrics[m], 384);
        mn_ivf_clear_block(other.block, 384);
        for (unsigned lane = 0; lane < 32; lane++)
            mn_ivf_encode(k, metrics[m], 384, scene.rows[lane], NULL, other.block, lane, other.codes8[lane],
                          &other.fine[lane]);
        assert_memory_equal(scene.block, other.block, mn_ivf_block_bytes(384));
        assert_memory_equal(scene.codes8[7], other.codes8[7], 384);
        assert_memory_equal(scene.fine, other.fine, sizeof scene.fine);
    }
}

static void a_row_too_long_for_floats_is_always_near(void **state)
{
    const struct mn_kernels *k = mn_kernels_best();
    const struct mn_ivf_lanes *lanes = mn_ivf_lanes(scene.block, 768);
    _Alignas(64) float low[32];
    for (size_t m = 0; m < MN_ARRAY_LEN(metrics); m++) {
        make_scene(&scene, 768, USUAL, true);
        for (unsigned i = 0; i < 768; i++)
            scene.rows[5][i] = i % 2 ? 3e18f : -3e18f;
        encode_scene(&scene, k, metrics[m], 768);
        ask_scene(&scene, k, metrics[m], 768);
        assert_true(lanes->add[5] == MN_IVF_NEAR && lanes->slope[5] == 0 && lanes->error[5] == 0);
        assert_int_equal(k->scan_block(&scene.scan, scene.block, scene.gap, scene.reach, -1e30f, low), 1u << 5);
        float estimate = estimate8(&scene, k, 5, 768);
        float doubt = mn_ivf_doubt8(&scene.fine[5], &scene.fine_query, metrics[m], scene.reach, scene.size);
        assert_true(estimate < -1e38f && estimate - doubt == -INFINITY && estimate + doubt == INFINITY);
    }
}

/* Values whose squares are nothing in floats. */
static void a_residual_that_vanishes_in_its_squares_stays_in_the_bound(void **state)
{
    static const float sizes[] = {1e-19f, 1e-20f, 1e-23f, 1e-30f, 1e-38f, 1e-42f};
    for (size_t i = 0; i < MN_ARRAY_LEN(sizes); i++) {
        for (size_t m = 0; m < MN_ARRAY_LEN(metrics); m++) {
            make_scene(&scene, 384, USUAL, true);
            for (unsigned j = 0; j < 384; j++) {
                scene.center[j] = i % 2 ? 0 : sizes[i];
                for (unsigned lane = 0; lane < 32; lane++)
                    scene.rows[lane][j] = scene.center[j] + normal_float() * sizes[i];
            }
            assert_bounds(metrics[m], 384, TIGHT);
            for (unsigned j = 0; j < 384; j++)
                scene.query[j] = normal_float() * sizes[i];
            assert_bounds(metrics[m], 384, TIGHT);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_lie_where_the_header_says),
        cmocka_unit_test(lanes_that_are_not_coded_stay_far),
        cmocka_unit_test(codes_are_the_same_on_every_instruction_set),
        cmocka_unit_test(the_norms_of_a_code_are_rounded_up),
        cmocka_unit_test(the_bound_of_8_bits_holds),
        cmocka_unit_test(the_bound_holds_for_odd_queries),
        cmocka_unit_test(estimates_of_1_bit_are_right_on_average),
        cmocka_unit_test(a_row_on_its_centroid_is_as_far_as_that),
        cmocka_unit_test(without_a_centroid_it_is_the_origin),
        cmocka_unit_test(a_row_too_long_for_floats_is_always_near),
        cmocka_unit_test(a_residual_that_vanishes_in_its_squares_stays_in_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
