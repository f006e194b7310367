/*
 * meta_order.c - see meta_order.h.
 */
#include "engine/meta_order.h"

#include <math.h>

/* From here on not every integer is a double. */
#define EXACT_BELOW 0x1p53

enum mn_meta_class mn_meta_class_of(const struct mn_meta_value *value)
{
    switch (value->type) {
    case MN_META_F32:
    case MN_META_F64:
        return isnan(value->f64) ? MN_META_CLASS_OTHER : MN_META_CLASS_NUMBER;
    case MN_META_INT:
    case MN_META_UINT:
        return MN_META_CLASS_NUMBER;
    case MN_META_STR:
        return MN_META_CLASS_STR;
    case MN_META_BIN:
        return MN_META_CLASS_BIN;
    case MN_META_BOOL:
        return MN_META_CLASS_BOOL;
    case MN_META_NIL:
        return MN_META_CLASS_NIL;
    default:
        return MN_META_CLASS_OTHER;
    }
}

/* ---- numbers ---- */

static double nearest_double(const struct mn_meta_value *value)
{
    if (value->type == MN_META_INT)
        return (double)value->i64;
    if (value->type == MN_META_UINT)
        return (double)value->u64;
    return value->f64 == 0 ? 0 : value->f64; /* one zero */
}

/* Doubles in their order as integers: the sign bit set of what is not negative, all bits turned of what is. */
static uint64_t order_of_double(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

static double double_of_order(uint64_t order)
{
    uint64_t bits = order >> 63 ? order & ~(UINT64_C(1) << 63) : ~order;
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

/* What an integer has beyond its nearest double: at most half a step, 1024; never negative here. */
static uint64_t rest_of_number(const struct mn_meta_value *value)
{
    const uint64_t zero = UINT64_C(1) << 32;
    if (value->type != MN_META_INT && value->type != MN_META_UINT)
        return zero;
    __int128 exact = value->type == MN_META_INT ? (__int128)value->i64 : (__int128)value->u64;
    return zero + (uint64_t)(int64_t)(exact - (__int128)nearest_double(value));
}

/* ---- strings ---- */

/* Seven bytes, high to low, zeros where there are none, and how many there are; 8: more follow. */
static uint64_t piece_of_bytes(struct mn_str s, uint32_t depth)
{
    uint64_t at = (uint64_t)depth * MN_META_PIECE_BYTES, piece = 0;
    uint64_t left = at < s.length ? s.length - at : 0;
    for (uint32_t i = 0; i < MN_META_PIECE_BYTES; i++)
        piece = piece << 8 | (i < left ? (uint8_t)s.data[at + i] : 0);
    return piece << 8 | (left > MN_META_PIECE_BYTES ? MN_META_PIECE_BYTES + 1 : left);
}

/* ---- pieces ---- */

uint64_t mn_meta_piece(const struct mn_meta_value *value, uint32_t depth)
{
    switch (mn_meta_class_of(value)) {
    case MN_META_CLASS_NUMBER:
        return depth == 0 ? order_of_double(nearest_double(value)) : rest_of_number(value);
    case MN_META_CLASS_STR:
    case MN_META_CLASS_BIN:
        return piece_of_bytes(value->s, depth);
    case MN_META_CLASS_BOOL:
        return value->boolean;
    default:
        return 0;
    }
}

bool mn_meta_piece_last(enum mn_meta_class class, uint64_t piece, uint32_t depth)
{
    if (class == MN_META_CLASS_NUMBER)
        return depth > 0 || fabs(double_of_order(piece)) < EXACT_BELOW;
    if (class == MN_META_CLASS_STR || class == MN_META_CLASS_BIN)
        return (piece & 0xff) <= MN_META_PIECE_BYTES || depth + 1 == MN_META_PIECES;
    return true;
}

bool mn_meta_unsure(const struct mn_meta_value *value)
{
    enum mn_meta_class class = mn_meta_class_of(value);
    if (class == MN_META_CLASS_STR || class == MN_META_CLASS_BIN)
        return value->s.length > MN_META_CUT_BYTES;
    return class == MN_META_CLASS_OTHER;
}

int mn_meta_order(const struct mn_meta_value *a, const struct mn_meta_value *b)
{
    enum mn_meta_class class = mn_meta_class_of(a);
    for (uint32_t depth = 0;; depth++) {
        uint64_t x = mn_meta_piece(a, depth), y = mn_meta_piece(b, depth);
        if (x != y)
            return x < y ? -1 : 1;
        if (mn_meta_piece_last(class, x, depth))
            return 0;
    }
}
