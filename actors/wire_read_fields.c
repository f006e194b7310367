/*
 * wire_read_fields.c - the keys of a map, its single fields, and text, each with the sentence for what is wrong (see
 * wire_read.h).
 */
#include <endian.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "actors/wire_read.h"
#include "shm/process.h"

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
