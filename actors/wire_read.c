/*
 * wire_read.c - a request's bytes, made safe once and then read in place (see wire_read.h).
 *
 * MessagePack is small enough to be read where it lies: a head of 1 to 9 bytes says what follows. `head` is the one
 * place that knows those heads; the check runs it against the end of the frame, and everything after the check runs it
 * without. Decoding into a tree of objects first (as msgpack-c does) would cost a hostile frame of 24 million nils half
 * a GiB.
 */
#include "actors/wire_read.h"

static uint64_t read_be(const uint8_t *p, unsigned width)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < width; i++)
        n = n << 8 | p[i];
    return n;
}

static int64_t sign_extend(uint64_t n, unsigned width)
{
    unsigned unused = 64 - 8 * width;
    return (int64_t)(n << unused) >> unused;
}

/* Bytes of a length, a count or a number that follow each first byte from 0xc0 to 0xdf; ext types have one more for the
 * type. */
static const uint8_t widths[32] = {
    0, 0, 0, 0,    /* nil, never used, false, true */
    1, 2, 4,       /* bin */
    1, 2, 4,       /* ext */
    4, 8,          /* float */
    1, 2, 4, 8,    /* uint */
    1, 2, 4, 8,    /* int */
    0, 0, 0, 0, 0, /* fixext */
    1, 2, 4,       /* str */
    2, 4,          /* array */
    2, 4,          /* map */
};

static void set_bytes(struct mn_wire *v, enum mn_wire_type type, const uint8_t *data, uint64_t length)
{
    v->type = type;
    v->s = (struct mn_str){(const char *)data, (uint32_t)length};
}

static void set_integer(struct mn_wire *v, int64_t n)
{
    v->type = n < 0 ? MN_WIRE_INT : MN_WIRE_UINT;
    v->i64 = n;
    v->u64 = (uint64_t)n;
}

static void set_float(struct mn_wire *v, uint64_t bits, bool single)
{
    v->type = MN_WIRE_FLOAT;
    v->single = single;
    if (single) {
        float f;
        uint32_t low = (uint32_t)bits;
        memcpy(&f, &low, sizeof f);
        v->f64 = f;
    } else {
        memcpy(&v->f64, &bits, sizeof v->f64);
    }
}

/* Those whose first byte says all but a number: 0xc0..0xdf. `p` is behind the head; n is what stood in it. */
static bool set_coded(struct mn_wire *v, uint8_t code, uint64_t n, const uint8_t *p)
{
    switch (code) {
    case 0xc0:
        v->type = MN_WIRE_NIL;
        return true;
    case 0xc2:
    case 0xc3:
        v->type = MN_WIRE_BOOL;
        v->boolean = code == 0xc3;
        return true;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        set_bytes(v, MN_WIRE_BIN, p, n);
        return true;
    case 0xc7:
    case 0xc8:
    case 0xc9:
        set_bytes(v, MN_WIRE_EXT, p, n);
        return true;
    case 0xca:
    case 0xcb:
        set_float(v, n, code == 0xca);
        return true;
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        v->type = MN_WIRE_UINT;
        v->u64 = n;
        return true;
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        set_integer(v, sign_extend(n, 1u << (code - 0xd0)));
        return true;
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        set_bytes(v, MN_WIRE_EXT, p, 1u << (code - 0xd4));
        return true;
    case 0xd9:
    case 0xda:
    case 0xdb:
        set_bytes(v, MN_WIRE_STR, p, n);
        return true;
    case 0xdc:
    case 0xdd:
    case 0xde:
    case 0xdf:
        v->type = code < 0xde ? MN_WIRE_ARRAY : MN_WIRE_MAP;
        v->count = (uint32_t)n;
        return true;
    default:
        return false; /* 0xc1 */
    }
}

static bool is_ext(uint8_t code)
{
    return (code >= 0xc7 && code <= 0xc9) || (code >= 0xd4 && code <= 0xd8);
}

/* Reads the value at `p`: the first byte behind its head (behind all of a scalar), or NULL when it does not end before
 * `end` or is no MessagePack. With end NULL the bytes are known to be good. */
static inline const uint8_t *head(const uint8_t *p, const uint8_t *end, struct mn_wire *v)
{
    v->at = p;
    v->type = MN_WIRE_ABSENT;
    if (end && p >= end)
        return NULL;
    uint8_t code = *p++; // NOLINT(clang-analyzer-core.NullDereference): a place in a frame, which is never NULL
    if (code < 0x80 || code >= 0xe0) {
        set_integer(v, (int8_t)code);
    } else if (code < 0xa0) {
        v->type = code < 0x90 ? MN_WIRE_MAP : MN_WIRE_ARRAY;
        v->count = code & 0x0f;
    } else if (code < 0xc0) {
        set_bytes(v, MN_WIRE_STR, p, code & 0x1f);
    } else {
        unsigned width = widths[code - 0xc0], extra = is_ext(code) ? 1 : 0;
        if (end && (size_t)(end - p) < width + extra)
            return NULL;
        uint64_t n = read_be(p, width);
        p += width + extra;
        if (!set_coded(v, code, n, p))
            return NULL;
    }
    v->inside = p;
    if (v->type != MN_WIRE_STR && v->type != MN_WIRE_BIN && v->type != MN_WIRE_EXT)
        return p;
    if (end && (size_t)(end - p) < v->s.length)
        return NULL;
    return p + v->s.length;
}

void mn_wire_next(const uint8_t **at, struct mn_wire *value)
{
    *at = head(*at, NULL, value);
}

const uint8_t *mn_wire_skip(const uint8_t *at)
{
    uint64_t left = 1;
    while (left) {
        struct mn_wire v;
        at = head(at, NULL, &v);
        left--;
        if (v.type == MN_WIRE_ARRAY)
            left += v.count;
        else if (v.type == MN_WIRE_MAP)
            left += 2 * (uint64_t)v.count;
    }
    return at;
}

/* Members that a container declares; each needs a byte at least. */
static uint64_t members_of(const struct mn_wire *v)
{
    return v->type == MN_WIRE_MAP ? 2 * (uint64_t)v->count : v->type == MN_WIRE_ARRAY ? v->count : 0;
}

enum mn_status mn_wire_check(const void *data, size_t bytes, struct mn_wire *value)
{
    const uint8_t *at = data, *end = at + bytes;
    uint64_t left[MN_WIRE_DEPTH_MAX + 1] = {1}; /* values still to come at each depth */
    unsigned depth = 0;
    uint32_t values = 0;
    bool first = true;
    if (bytes == 0)
        return MN_FAIL(MN_BAD_REQUEST, "the request is empty; it must be a MessagePack map");
    while (depth || left[0]) {
        if (left[depth] == 0) {
            depth--;
            continue;
        }
        left[depth]--;
        if (values++ == MN_WIRE_VALUES_MAX)
            return MN_FAIL(MN_TOO_LARGE, "the request holds more than %d values", MN_WIRE_VALUES_MAX);
        struct mn_wire v;
        const uint8_t *from = at;
        at = head(at, end, &v);
        if (!at || members_of(&v) > (size_t)(end - at))
            return MN_FAIL(MN_BAD_REQUEST, "the request is no MessagePack, or ends early: see its byte %zu of %zu",
                           (size_t)(from - (const uint8_t *)data), bytes);
        if (first)
            *value = v;
        first = false;
        if (members_of(&v) == 0)
            continue;
        if (depth == MN_WIRE_DEPTH_MAX)
            return MN_FAIL(MN_BAD_REQUEST, "the request nests deeper than %d", MN_WIRE_DEPTH_MAX);
        left[++depth] = members_of(&v);
    }
    if (at != end)
        return MN_FAIL(MN_BAD_REQUEST, "%zu bytes follow the request's map; a frame holds one map", (size_t)(end - at));
    return MN_OK;
}
