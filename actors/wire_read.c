/*
 * wire_read.c - a request's bytes, made safe once and then read in place (see wire_read.h).
 *
 * MessagePack is small enough to be read where it lies: a head of 1 to 9 bytes says what follows. `head` is the one
 * place that knows those heads; the check runs it against the end of the frame, and everything after the check runs it
 * without. Decoding into a tree of objects first (as msgpack-c does) would cost a hostile frame of 24 million nils half
 * a GiB.
 */
#include "actors/wire_read.h"

#include <endian.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "shm/process.h"

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

/* ---- operations */

static const struct {
    const char *word;
    unsigned service;
} ops[MN_OPS] = {
#define X(name, word, service, ...) [name] = {word, service},
    MN_OP_TABLE(X) MN_INTERNAL_OP_TABLE(X)
#undef X
};

static const char *const service_words[] = {
    [MN_SERVICE_CONTROL] = "control", [MN_SERVICE_WRITE] = "write", [MN_SERVICE_RECALL] = "recall",
    [MN_SERVICE_STATS] = "stats",     [MN_SERVICE_WRITER] = NULL,   [MN_SERVICE_COMPACTOR] = NULL,
};

const char *mn_op_word(enum mn_op op)
{
    return (unsigned)op < MN_OPS ? ops[op].word : "?";
}

unsigned mn_op_service(enum mn_op op)
{
    return ops[op].service;
}

/* "remember, revise, forget" */
static void list_ops(unsigned service, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < MN_OPS; i++) {
        if (ops[i].service == service && used < size)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", ops[i].word);
    }
}

static enum mn_status find_op(struct mn_request *request, struct mn_str word, unsigned service)
{
    char shown[MN_WIRE_SHOWN_MAX], known[128];
    for (unsigned i = 0; i < MN_OPS; i++) {
        if (!mn_wire_is(word, ops[i].word))
            continue;
        request->op = (enum mn_op)i;
        if (ops[i].service == service)
            return MN_OK;
        if (service_words[ops[i].service])
            return MN_FAIL(MN_BAD_OP, "%s is answered on the %s socket, not on this one; info names the endpoints",
                           ops[i].word, service_words[ops[i].service]);
    }
    list_ops(service, known, sizeof known);
    return MN_FAIL(MN_BAD_OP, "there is no operation \"%s\" here; this socket answers %s", mn_wire_shown(word, shown),
                   known);
}

enum mn_status mn_wire_open(struct mn_request *request, const void *data, size_t bytes, unsigned service)
{
    static const char *const names[] = {"rid", "op", "deadline_ms"};
    struct mn_wire fields[3];
    *request = (struct mn_request){.op = MN_OPS};
    MN_TRY(mn_wire_check(data, bytes, &request->body));
    if (request->body.type != MN_WIRE_MAP)
        return mn_wire_wrong(&request->body, "the request", "a map with string keys");
    enum mn_status status = mn_wire_fields(&request->body, "the request", names, 3, false, fields);
    if (fields[0].type != MN_WIRE_ABSENT)
        request->rid =
            (struct mn_str){(const char *)fields[0].at, (uint32_t)(mn_wire_skip(fields[0].at) - fields[0].at)};
    MN_TRY(status);
    if (request->rid.length > MN_WIRE_RID_MAX) {
        uint32_t length = request->rid.length;
        request->rid.length = 0;
        return MN_FAIL(MN_TOO_LARGE, "rid has %u bytes; %u is the most", length, MN_WIRE_RID_MAX);
    }
    struct mn_str word = {0};
    MN_TRY(mn_wire_need(&fields[1], "op"));
    MN_TRY(mn_wire_str(&fields[1], "op", 1, UINT32_MAX, &word));
    MN_TRY(find_op(request, word, service));
    request->has_deadline = fields[2].type != MN_WIRE_ABSENT;
    return mn_wire_uint(&fields[2], "deadline_ms", 0, UINT64_MAX, &request->deadline_ms);
}

uint64_t mn_wire_until(const struct mn_request *request, uint64_t received_ns)
{
    if (!request->has_deadline || request->deadline_ms > (UINT64_MAX - received_ns) / 1000000)
        return UINT64_MAX;
    return received_ns + request->deadline_ms * 1000000;
}

/* ---- maps */

static uint32_t find_name(struct mn_str key, const char *const *names, uint32_t count)
{
    uint32_t i = 0;
    while (i < count && !mn_wire_is(key, names[i]))
        i++;
    return i;
}

static enum mn_status unknown_key(const char *what, struct mn_str key, const char *const *names, uint32_t count)
{
    char shown[MN_WIRE_SHOWN_MAX], known[256];
    size_t used = 0;
    known[0] = '\0';
    for (uint32_t i = 0; i < count && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", names[i]);
    return MN_FAIL(MN_BAD_REQUEST, "%s has no key \"%s\"; it may have %s", what, mn_wire_shown(key, shown), known);
}

enum mn_status mn_wire_fields(const struct mn_wire *map, const char *what, const char *const *names, uint32_t count,
                              bool strict, struct mn_wire *values)
{
    const uint8_t *at = map->inside;
    for (uint32_t i = 0; i < count; i++)
        values[i] = (struct mn_wire){.type = MN_WIRE_ABSENT};
    for (uint32_t pair = 0; pair < map->count; pair++) {
        struct mn_wire key;
        mn_wire_next(&at, &key);
        if (key.type != MN_WIRE_STR)
            return MN_FAIL(MN_BAD_REQUEST, "a key of %s is no string; all keys must be strings", what);
        uint32_t i = find_name(key.s, names, count);
        if (i == count && strict)
            return unknown_key(what, key.s, names, count);
        if (i < count && values[i].type != MN_WIRE_ABSENT)
            return MN_FAIL(MN_BAD_REQUEST, "%s has the key %s twice", what, names[i]);
        const uint8_t *from = at;
        if (i < count)
            mn_wire_next(&from, &values[i]);
        at = mn_wire_skip(at);
    }
    return MN_OK;
}

enum mn_status mn_wire_field(const struct mn_request *request, const char *name, struct mn_wire *value)
{
    return mn_wire_fields(&request->body, "the request", &name, 1, false, value);
}

/* ---- single fields */

enum mn_status mn_wire_need(const struct mn_wire *v, const char *name)
{
    if (v->type == MN_WIRE_ABSENT)
        return MN_FAIL(MN_BAD_REQUEST, "%s is missing", name);
    return MN_OK;
}

static void describe(const struct mn_wire *v, char *text, size_t size)
{
    switch (v->type) {
    case MN_WIRE_ABSENT:
        snprintf(text, size, "missing");
        break;
    case MN_WIRE_NIL:
        snprintf(text, size, "nil");
        break;
    case MN_WIRE_BOOL:
        snprintf(text, size, "%s", v->boolean ? "true" : "false");
        break;
    case MN_WIRE_UINT:
        snprintf(text, size, "the integer %llu", (unsigned long long)v->u64);
        break;
    case MN_WIRE_INT:
        snprintf(text, size, "the integer %lld", (long long)v->i64);
        break;
    case MN_WIRE_FLOAT:
        snprintf(text, size, "the number %g", v->f64);
        break;
    case MN_WIRE_STR:
        snprintf(text, size, "a string of %u bytes", v->s.length);
        break;
    case MN_WIRE_BIN:
        snprintf(text, size, "a bin of %u bytes", v->s.length);
        break;
    case MN_WIRE_ARRAY:
        snprintf(text, size, "an array of %u", v->count);
        break;
    case MN_WIRE_MAP:
        snprintf(text, size, "a map of %u", v->count);
        break;
    case MN_WIRE_EXT:
        snprintf(text, size, "an extension type");
        break;
    }
}

enum mn_status mn_wire_wrong(const struct mn_wire *v, const char *name, const char *wanted)
{
    char came[64];
    describe(v, came, sizeof came);
    return MN_FAIL(MN_BAD_REQUEST, "%s is %s; it must be %s", name, came, wanted);
}

enum mn_status mn_wire_within(enum mn_status status, const char *fmt, ...)
{
    char place[128], sentence[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(place, sizeof place, fmt, args);
    va_end(args);
    snprintf(sentence, sizeof sentence, "%s", mn_error_text());
    return MN_FAIL(status, "%s: %s", place, sentence);
}

enum mn_status mn_wire_bool(const struct mn_wire *v, const char *name, bool *out)
{
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    if (v->type != MN_WIRE_BOOL)
        return mn_wire_wrong(v, name, "true or false");
    *out = v->boolean;
    return MN_OK;
}

enum mn_status mn_wire_uint(const struct mn_wire *v, const char *name, uint64_t min, uint64_t max, uint64_t *out)
{
    char wanted[80];
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    if (v->type == MN_WIRE_UINT && v->u64 >= min && v->u64 <= max) {
        *out = v->u64;
        return MN_OK;
    }
    snprintf(wanted, sizeof wanted, "an integer from %llu to %llu", (unsigned long long)min, (unsigned long long)max);
    return mn_wire_wrong(v, name, wanted);
}

enum mn_status mn_wire_time(const struct mn_wire *v, const char *name, int64_t *out)
{
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    if (v->type == MN_WIRE_INT)
        *out = v->i64;
    else if (v->type == MN_WIRE_UINT && v->u64 <= INT64_MAX)
        *out = (int64_t)v->u64;
    else
        return mn_wire_wrong(v, name, "an integer of 64 bits: nanoseconds since the Unix epoch");
    return MN_OK;
}

enum mn_status mn_wire_number(const struct mn_wire *v, const char *name, double *out)
{
    switch (v->type) {
    case MN_WIRE_ABSENT:
        return MN_OK;
    case MN_WIRE_UINT:
        *out = (double)v->u64;
        return MN_OK;
    case MN_WIRE_INT:
        *out = (double)v->i64;
        return MN_OK;
    case MN_WIRE_FLOAT:
        if (!isfinite(v->f64))
            return MN_FAIL(MN_BAD_VALUE, "%s is NaN or infinite; it must be a number", name);
        *out = v->f64;
        return MN_OK;
    default:
        return mn_wire_wrong(v, name, "a number");
    }
}

enum mn_status mn_wire_str(const struct mn_wire *v, const char *name, uint32_t min, uint32_t max, struct mn_str *out)
{
    char wanted[80];
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    if (v->type != MN_WIRE_STR || v->s.length < min || v->s.length > max) {
        if (max == UINT32_MAX)
            snprintf(wanted, sizeof wanted, "a string of at least %u bytes", min);
        else
            snprintf(wanted, sizeof wanted, "a string of %u to %u bytes", min, max);
        return mn_wire_wrong(v, name, wanted);
    }
    if (!mn_wire_utf8(v->s.data, v->s.length))
        return MN_FAIL(MN_BAD_REQUEST, "%s is not UTF-8; bytes that are no text must come as bin", name);
    *out = v->s;
    return MN_OK;
}

static uint64_t read_be64(const uint8_t *p)
{
    uint64_t n;
    memcpy(&n, p, sizeof n);
    return be64toh(n);
}

enum mn_status mn_wire_id(const struct mn_wire *v, const char *name, struct mn_id *out)
{
    uint8_t uuid[16];
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    if (v->type == MN_WIRE_UINT && v->u64 <= INT64_MAX)
        *out = (struct mn_id){.lo = v->u64, .kind = MN_ID_INTEGER};
    else if (v->type == MN_WIRE_STR && mn_uuid_parse(v->s.data, v->s.length, uuid))
        *out = (struct mn_id){.hi = read_be64(uuid), .lo = read_be64(uuid + 8), .kind = MN_ID_UUID};
    else
        return mn_wire_wrong(v, name, "an id: an integer from 0 to 2^63 - 1, or a UUID string of 36 characters");
    return MN_OK;
}

enum mn_status mn_wire_array(const struct mn_wire *v, const char *name, uint32_t max)
{
    if (v->type != MN_WIRE_ARRAY)
        return mn_wire_wrong(v, name, "an array");
    if (v->count > max)
        return MN_FAIL(MN_TOO_LARGE, "%s has %u entries; %u is the most", name, v->count, max);
    return MN_OK;
}

enum mn_status mn_wire_map(const struct mn_wire *v, const char *name)
{
    return v->type == MN_WIRE_MAP ? MN_OK : mn_wire_wrong(v, name, "a map");
}

/* ---- text */

bool mn_wire_is(struct mn_str s, const char *word)
{
    return strlen(word) == s.length && memcmp(s.data, word, s.length) == 0;
}

/* Bytes of the UTF-8 sequence at `p`, or 0: no overlong forms, no surrogates, nothing above U+10FFFF. */
static size_t sequence(const uint8_t *p, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (length <= 1)
        return length;
    if (length > left)
        return 0;
    uint32_t code = p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    return code < least[length] || surrogate || code > 0x10ffff ? 0 : length;
}

bool mn_wire_utf8(const char *data, size_t bytes)
{
    const uint8_t *p = (const uint8_t *)data, *end = p + bytes;
    while (p < end) {
        uint64_t eight;
        if (end - p >= 8 && (memcpy(&eight, p, 8), (eight & UINT64_C(0x8080808080808080)) == 0)) {
            p += 8;
            continue;
        }
        size_t length = sequence(p, (size_t)(end - p));
        if (!length)
            return false;
        p += length;
    }
    return true;
}

const char *mn_wire_shown(struct mn_str s, char text[MN_WIRE_SHOWN_MAX])
{
    uint32_t shown = s.length < 40 ? s.length : 40;
    for (uint32_t i = 0; i < shown; i++)
        text[i] = s.data[i] >= ' ' && s.data[i] <= '~' ? s.data[i] : '?';
    snprintf(text + shown, MN_WIRE_SHOWN_MAX - shown, "%s", s.length > shown ? "..." : "");
    return text;
}
