/*
 * meta.c - the compact form of meta: reading, finding, comparing (writing: meta_write.c).
 *
 * A value is a type byte (enum mn_meta_type) and
 *
 *   NIL        nothing
 *   BOOL       one byte, 0 or 1
 *   UINT       varint: the value
 *   INT        varint: -1 - value (so the bytes of a small negative number are few)
 *   F32, F64   4 or 8 bytes, little-endian
 *   STR, BIN   varint: length; the bytes
 *   ARRAY      4 bytes: count; 4 bytes: length of all members; the members
 *   MAP        the same; a member is a key (varint: length; the bytes) and a value
 *
 * A varint is little-endian base 128, at most ten bytes. The 4-byte numbers are little-endian; the length lets a reader
 * step over an array or a map without walking it.
 */
#include "engine/meta.h"

#include <math.h>

/* ---- reading ---- */

static bool take(struct mn_str *in, uint32_t bytes, struct mn_str *out)
{
    if (bytes > in->length)
        return false;
    *out = (struct mn_str){in->data, bytes};
    in->data += bytes;
    in->length -= bytes;
    return true;
}

static bool take_le(struct mn_str *in, unsigned bytes, uint64_t *n)
{
    struct mn_str s;
    if (!take(in, bytes, &s))
        return false;
    *n = 0;
    for (unsigned i = 0; i < bytes; i++)
        *n |= (uint64_t)(uint8_t)s.data[i] << (8 * i);
    return true;
}

static bool take_varint(struct mn_str *in, uint64_t *n)
{
    *n = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (in->length == 0)
            return false;
        uint8_t byte = (uint8_t)*in->data;
        in->data++;
        in->length--;
        if (shift == 63 && byte > 1)
            return false;
        *n |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool take_bytes(struct mn_str *in, struct mn_str *out)
{
    uint64_t length;
    return take_varint(in, &length) && length <= in->length && take(in, (uint32_t)length, out);
}

static bool take_int(struct mn_str *in, int64_t *value)
{
    uint64_t n;
    if (!take_varint(in, &n) || n > INT64_MAX)
        return false;
    *value = -1 - (int64_t)n;
    return true;
}

static bool take_f32(struct mn_str *in, double *value)
{
    uint64_t n;
    if (!take_le(in, 4, &n))
        return false;
    uint32_t bits = (uint32_t)n;
    float f;
    memcpy(&f, &bits, sizeof f);
    *value = (double)f;
    return true;
}

static bool take_f64(struct mn_str *in, double *value)
{
    uint64_t bits;
    if (!take_le(in, 8, &bits))
        return false;
    memcpy(value, &bits, sizeof bits);
    return true;
}

/* The head of an array or a map; a member has at least `member_min` bytes, so that a count cannot lie by much. */
static bool take_container(struct mn_str *in, uint32_t member_min, struct mn_meta_value *value)
{
    uint64_t count, bytes;
    if (!take_le(in, 4, &count) || !take_le(in, 4, &bytes) || bytes > in->length || count > bytes / member_min)
        return false;
    value->count = (uint32_t)count;
    value->s = (struct mn_str){in->data, (uint32_t)bytes};
    return true;
}

bool mn_meta_next(struct mn_str *in, struct mn_meta_value *value)
{
    uint64_t n;
    if (!take_le(in, 1, &n))
        return false;
    *value = (struct mn_meta_value){.type = (enum mn_meta_type)n};
    switch (n) {
    case MN_META_NIL:
        return true;
    case MN_META_BOOL:
        if (!take_le(in, 1, &n) || n > 1)
            return false;
        value->boolean = n == 1;
        return true;
    case MN_META_INT:
        return take_int(in, &value->i64);
    case MN_META_UINT:
        return take_varint(in, &value->u64);
    case MN_META_F32:
        return take_f32(in, &value->f64);
    case MN_META_F64:
        return take_f64(in, &value->f64);
    case MN_META_STR:
    case MN_META_BIN:
        return take_bytes(in, &value->s);
    case MN_META_ARRAY:
        return take_container(in, 1, value);
    case MN_META_MAP:
        return take_container(in, 2, value);
    default:
        return false;
    }
}

bool mn_meta_next_key(struct mn_str *in, struct mn_str *key)
{
    return take_bytes(in, key);
}

/* As mn_meta_next, but of an array or a map the members are stepped over too. */
static bool take_value(struct mn_str *in, struct mn_meta_value *value)
{
    struct mn_str members;
    if (!mn_meta_next(in, value))
        return false;
    bool container = value->type == MN_META_ARRAY || value->type == MN_META_MAP;
    return !container || take(in, value->s.length, &members);
}

/* ---- finding ---- */

/* Where a value lies: its compact bytes, and what its head says. */
struct place {
    struct mn_str bytes;
    struct mn_meta_value value;
};

static bool take_member(struct mn_str *in, struct mn_str *key, struct place *place)
{
    if (!take_bytes(in, key))
        return false;
    place->bytes.data = in->data;
    if (!take_value(in, &place->value))
        return false;
    place->bytes.length = (uint32_t)(in->data - place->bytes.data);
    return true;
}

/* One map in one pass: the member named by the whole key into *literal, else the one named by `first` into *step. */
static bool look_up(const struct mn_meta_value *map, struct mn_str key, struct mn_str first, struct place *literal,
                    struct place *step, bool *stepped)
{
    struct mn_str in = map->s;
    *stepped = false;
    for (uint32_t i = 0; i < map->count; i++) {
        struct mn_str name;
        struct place member;
        if (!take_member(&in, &name, &member))
            return false;
        if (mn_str_equal(name, key)) {
            *literal = member;
            return true;
        }
        if (!*stepped && first.length < key.length && mn_str_equal(name, first)) {
            *step = member;
            *stepped = true;
        }
    }
    return false;
}

bool mn_meta_find(struct mn_str map, struct mn_str key, struct mn_str *found)
{
    struct place here, literal, step;
    if (!mn_meta_next(&map, &here.value))
        return false;
    while (here.value.type == MN_META_MAP) {
        const char *dot = key.length > 0 ? memchr(key.data, '.', key.length) : NULL;
        struct mn_str first = {key.data, dot ? (uint32_t)(dot - key.data) : key.length};
        bool stepped;
        if (look_up(&here.value, key, first, &literal, &step, &stepped)) {
            *found = literal.bytes;
            return true;
        }
        if (!dot || !stepped)
            return false;
        key = (struct mn_str){dot + 1, key.length - first.length - 1};
        here = step;
    }
    return false;
}

/* ---- comparing ---- */

static bool is_integer(const struct mn_meta_value *v)
{
    return v->type == MN_META_INT || v->type == MN_META_UINT;
}

static bool is_float(const struct mn_meta_value *v)
{
    return v->type == MN_META_F32 || v->type == MN_META_F64;
}

static __int128 integer_of(const struct mn_meta_value *v)
{
    return v->type == MN_META_INT ? (__int128)v->i64 : (__int128)v->u64;
}

static int compare_integer_float(__int128 i, double f)
{
    if (isnan(f))
        return MN_META_UNORDERED;
    if (f >= 0x1p64)
        return -1;
    if (f < -0x1p63)
        return 1;
    double whole = trunc(f);
    __int128 w = (__int128)whole; /* exact: it lies within 65 bits */
    if (i != w)
        return i < w ? -1 : 1;
    return f > whole ? -1 : f < whole ? 1 : 0;
}

static int compare_floats(double a, double b)
{
    return a < b ? -1 : a > b ? 1 : a == b ? 0 : MN_META_UNORDERED;
}

static int compare_numbers(const struct mn_meta_value *a, const struct mn_meta_value *b)
{
    if (is_float(a) && is_float(b))
        return compare_floats(a->f64, b->f64);
    if (is_float(b))
        return compare_integer_float(integer_of(a), b->f64);
    if (is_float(a)) {
        int order = compare_integer_float(integer_of(b), a->f64);
        return order == MN_META_UNORDERED ? order : -order;
    }
    __int128 x = integer_of(a), y = integer_of(b);
    return x < y ? -1 : x > y ? 1 : 0;
}

static int sign(int order)
{
    return (order > 0) - (order < 0);
}

static int compare_values(const struct mn_meta_value *a, const struct mn_meta_value *b)
{
    if ((is_integer(a) || is_float(a)) && (is_integer(b) || is_float(b)))
        return compare_numbers(a, b);
    if (a->type == b->type && (a->type == MN_META_STR || a->type == MN_META_BIN))
        return sign(mn_str_compare(a->s, b->s));
    return MN_META_UNORDERED;
}

static bool values_equal(const struct mn_meta_value *a, const struct mn_meta_value *b, unsigned depth);

static bool arrays_equal(const struct mn_meta_value *a, const struct mn_meta_value *b, unsigned depth)
{
    if (a->count != b->count)
        return false;
    struct mn_str in_a = a->s, in_b = b->s;
    for (uint32_t i = 0; i < a->count; i++) {
        struct mn_meta_value x, y;
        if (!take_value(&in_a, &x) || !take_value(&in_b, &y) || !values_equal(&x, &y, depth))
            return false;
    }
    return true;
}

/* The first member of that name in `map`, searched from `*in` on and then from the front: members in the same order on
 * both sides, the common case, are found at once. `*in` then stands behind it. */
static bool find_from(const struct mn_meta_value *map, struct mn_str *in, struct mn_str name, struct place *found)
{
    for (uint32_t i = 0; i < map->count; i++) {
        struct mn_str key;
        if (in->length == 0)
            *in = map->s;
        if (!take_member(in, &key, found))
            return false;
        if (mn_str_equal(key, name))
            return true;
    }
    return false;
}

static bool maps_equal(const struct mn_meta_value *a, const struct mn_meta_value *b, unsigned depth)
{
    if (a->count != b->count)
        return false;
    struct mn_str name, in_a = a->s, in_b = b->s;
    struct place x, y;
    for (uint32_t i = 0; i < a->count; i++) {
        if (!take_member(&in_a, &name, &x) || !find_from(b, &in_b, name, &y) ||
            !values_equal(&x.value, &y.value, depth))
            return false;
    }
    /* A map may name a key twice: then the above does not say that each key of `b` is in `a`. */
    in_a = a->s;
    in_b = b->s;
    for (uint32_t i = 0; i < b->count; i++) {
        if (!take_member(&in_b, &name, &y) || !find_from(a, &in_a, name, &x))
            return false;
    }
    return true;
}

static bool values_equal(const struct mn_meta_value *a, const struct mn_meta_value *b, unsigned depth)
{
    if (a->type != b->type || is_integer(a) || is_float(a))
        return compare_values(a, b) == 0;
    switch (a->type) {
    case MN_META_NIL:
        return true;
    case MN_META_BOOL:
        return a->boolean == b->boolean;
    case MN_META_ARRAY:
        return depth < MN_META_DEPTH_MAX && arrays_equal(a, b, depth + 1);
    case MN_META_MAP:
        return depth < MN_META_DEPTH_MAX && maps_equal(a, b, depth + 1);
    default:
        return mn_str_equal(a->s, b->s);
    }
}

bool mn_meta_equal(struct mn_str a, struct mn_str b)
{
    struct mn_meta_value x, y;
    return mn_meta_next(&a, &x) && mn_meta_next(&b, &y) && values_equal(&x, &y, 0);
}

int mn_meta_compare(struct mn_str a, struct mn_str b)
{
    struct mn_meta_value x, y;
    if (!mn_meta_next(&a, &x) || !mn_meta_next(&b, &y))
        return MN_META_UNORDERED;
    return compare_values(&x, &y);
}
