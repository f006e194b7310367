/*
 * ivf.c - rows into codes: the factors of the 1-bit and the 8-bit estimators, and where a row's bits lie in its block.
 *
 * The sums come from the kernels and are the same on every instruction set; what is made of them here is plain double
 * arithmetic, so that codes do not depend on the machine either.
 */
#include "engine/ivf.h"

#include <float.h>
#include <math.h>

#define SHORT_TIMES 0x1p70f

_Static_assert(sizeof(struct mn_ivf_lanes) == 384, "kernels->scan_block reads add, slope and error behind the nibbles");

/* Where lane l (of its half) stands in a table: byte 2l for the lower eight, between them the upper eight. */
static inline uint32_t byte_of(uint32_t lane)
{
    uint32_t l = lane & 15;
    return l < 8 ? 2 * l : 2 * (l - 8) + 1;
}

static void put_nibbles(uint8_t *block, uint32_t width, uint32_t lane, const uint8_t *bits)
{
    unsigned shift = lane < 16 ? 0 : 4;
    uint8_t *at = block + byte_of(lane);
    for (uint32_t i = 0; i < width / 8; i++, at += 32) {
        at[0] |= (uint8_t)((bits[i] & 15) << shift);
        at[16] |= (uint8_t)(bits[i] >> 4 << shift);
    }
}

/* A norm from its square in floats: never less than the true one (see make_fine). */
static double norm_above(float squares, uint32_t width)
{
    return sqrt((double)squares) * (1 + (double)mn_kernel_rounding(width)) + sqrt(width) * 0x1p-74;
}

static float float_above(double x)
{
    return (float)(x * (1 + 0x1p-22));
}

static void make_lane(struct mn_ivf_lanes *lanes, uint32_t lane, uint32_t width, const struct mn_code_sums *s,
                      bool distances)
{
    double l2 = s->norm2, p = 0.5 * s->norm1, twice = distances ? 2 : 1;
    double o = p / (sqrt(l2) * 0.5 * sqrt(width)), odd = (1 - o * o) / (o * o * (width - 1));
    lanes->slope[lane] = (float)(-twice * l2 / p);
    lanes->error[lane] = (float)(twice * sqrt(l2) * sqrt(odd > 0 ? odd : 0));
    lanes->add[lane] = distances ? (float)(l2 + 2 * l2 * s->center / p) : 0;
}

static void make_fine(struct mn_ivf_fine *fine, uint32_t width, const struct mn_code_sums *s, bool distances)
{
    double length = norm_above(s->norm2, width), error = norm_above(s->lost2, width);
    error += (length + error) * 0x1p-22; /* what rounding x - c and scale * y8 costs */
    fine->slope = distances ? -2 * s->scale : -s->scale;
    fine->error = float_above(error);
    fine->span = float_above(length + error);
    fine->add = distances ? (float)((double)s->norm2 + 2 * (double)s->scale * s->fine_center) : 0;
}

/* Squares overflow, or nearly: estimates would be NaN. */
static bool too_long(const struct mn_code_sums *s, const struct mn_ivf_lanes *lanes, uint32_t lane,
                     const struct mn_ivf_fine *fine)
{
    return !(s->norm2 < FLT_MAX / 16) || !isfinite(lanes->add[lane]) || !isfinite(fine->add) || !isfinite(s->lost2);
}

/* Squares vanish, or nearly. Distances of such rows do, too, but products with a query need not. */
static bool too_short(const struct mn_code_sums *s, bool distances)
{
    return !distances && s->norm1 > 0 && !(s->norm2 > FLT_MIN * 0x1p40f);
}

/* Codes what is so small as if it were larger, by a power of two; factors of products are as much larger then. */
static void encode_short(const struct mn_kernels *kernels, uint32_t width, const float *x, const float *centroid,
                         uint8_t *codes8, uint8_t *bits, struct mn_code_sums *sums)
{
    _Alignas(64) float larger[MN_DIM_MAX];
    for (uint32_t i = 0; i < width; i++)
        larger[i] = (centroid ? x[i] - centroid[i] : x[i]) * SHORT_TIMES;
    kernels->encode(larger, NULL, width, codes8, bits, sums);
}

static void scale_factors(struct mn_ivf_lanes *lanes, uint32_t lane, struct mn_ivf_fine *fine, float scale)
{
    lanes->slope[lane] *= scale;
    lanes->error[lane] *= scale;
    fine->slope *= scale;
    fine->error *= scale;
    fine->span *= scale;
}

void mn_ivf_encode(const struct mn_kernels *kernels, enum mn_metric metric, uint32_t width, const float *x,
                   const float *centroid, uint8_t *block, uint32_t lane, uint8_t *codes8, struct mn_ivf_fine *fine)
{
    _Alignas(64) uint8_t bits[MN_DIM_MAX / 8];
    struct mn_ivf_lanes *lanes = (struct mn_ivf_lanes *)(void *)(block + 4 * (size_t)width);
    struct mn_code_sums sums;
    bool distances = metric != MN_METRIC_IP;
    kernels->encode(x, centroid, width, codes8, bits, &sums);
    bool is_short = too_short(&sums, distances);
    if (is_short)
        encode_short(kernels, width, x, centroid, codes8, bits, &sums);
    put_nibbles(block, width, lane, bits);
    if (sums.norm2 > 0) {
        make_lane(lanes, lane, width, &sums, distances);
    } else {
        lanes->add[lane] = lanes->slope[lane] = lanes->error[lane] = 0;
        sums.scale = 0;
        sums.lost2 = 0;
    }
    make_fine(fine, width, &sums, distances);
    if (is_short)
        scale_factors(lanes, lane, fine, 1 / SHORT_TIMES);
    if (too_long(&sums, lanes, lane, fine)) {
        lanes->add[lane] = fine->add = MN_IVF_NEAR;
        lanes->slope[lane] = lanes->error[lane] = fine->slope = fine->error = 0;
        fine->span = -MN_IVF_NEAR; /* its square is infinite */
    }
}

void mn_ivf_copy_lane(uint32_t width, const uint8_t *from_block, uint32_t from, uint8_t *block, uint32_t lane)
{
    const struct mn_ivf_lanes *lanes_from = mn_ivf_lanes(from_block, width);
    struct mn_ivf_lanes *lanes = (struct mn_ivf_lanes *)(void *)(block + 4 * (size_t)width);
    unsigned down = from < 16 ? 0 : 4, up = lane < 16 ? 0 : 4;
    const uint8_t *nibbles = from_block + byte_of(from);
    uint8_t *at = block + byte_of(lane);
    for (uint32_t i = 0; i < width / 4; i++)
        at[16 * (size_t)i] |= (uint8_t)((nibbles[16 * (size_t)i] >> down & 15) << up);
    lanes->add[lane] = lanes_from->add[from];
    lanes->slope[lane] = lanes_from->slope[from];
    lanes->error[lane] = lanes_from->error[from];
}

void mn_ivf_clear_block(uint8_t *block, uint32_t width)
{
    struct mn_ivf_lanes *lanes = (struct mn_ivf_lanes *)(void *)(block + 4 * (size_t)width);
    memset(block, 0, mn_ivf_block_bytes(width));
    for (unsigned i = 0; i < MN_IVF_LANES; i++)
        lanes->add[i] = MN_IVF_FAR;
}
