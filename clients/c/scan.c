/*
 * scan.c - reading MessagePack headers (see scan.h). The format: github.com/msgpack/msgpack, spec.md.
 */
#include "clients/c/scan.h"

#include <string.h>

static bool take(struct mn_scan *scan, size_t n, const uint8_t **bytes)
{
    if ((size_t)(scan->end - scan->at) < n)
        return false;
    *bytes = scan->at;
    scan->at += n;
    return true;
}

/* A big-endian unsigned integer of `width` bytes. */
static bool take_uint(struct mn_scan *scan, size_t width, uint64_t *value)
{
    const uint8_t *b;
    if (!take(scan, width, &b))
        return false;
    *value = 0;
    for (size_t i = 0; i < width; i++)
        *value = *value << 8 | b[i];
    return true;
}

static bool take_tag(struct mn_scan *scan, uint8_t *tag)
{
    const uint8_t *b;
    if (!take(scan, 1, &b))
        return false;
    *tag = *b;
    return true;
}

/* The headers of maps, arrays and strings share a shape: a small form with the count in the tag, then wider ones. */
static bool container(struct mn_scan *scan, uint8_t fix, uint8_t mask, uint8_t tag16, uint32_t *count)
{
    uint8_t tag;
    uint64_t n;
    if (!take_tag(scan, &tag))
        return false;
    if ((tag & ~mask) == fix) {
        *count = tag & mask;
        return true;
    }
    if (tag != tag16 && tag != tag16 + 1)
        return false;
    if (!take_uint(scan, tag == tag16 ? 2 : 4, &n))
        return false;
    *count = (uint32_t)n;
    return true;
}

bool mn_scan_map(struct mn_scan *scan, uint32_t *entries)
{
    return container(scan, 0x80, 0x0f, 0xde, entries);
}

bool mn_scan_array(struct mn_scan *scan, uint32_t *elements)
{
    return container(scan, 0x90, 0x0f, 0xdc, elements);
}

bool mn_scan_string(struct mn_scan *scan, const char **text, size_t *size)
{
    uint8_t tag;
    uint64_t n;
    const uint8_t *bytes;
    if (!take_tag(scan, &tag))
        return false;
    if ((tag & 0xe0) == 0xa0)
        n = tag & 0x1f;
    else if (tag < 0xd9 || tag > 0xdb || !take_uint(scan, (size_t)1 << (tag - 0xd9), &n))
        return false;
    if (!take(scan, n, &bytes))
        return false;
    *text = (const char *)bytes;
    *size = n;
    return true;
}

bool mn_scan_u64(struct mn_scan *scan, uint64_t *value)
{
    uint8_t tag;
    if (!take_tag(scan, &tag))
        return false;
    if (tag < 0x80) {
        *value = tag;
        return true;
    }
    if (tag >= 0xcc && tag <= 0xcf)
        return take_uint(scan, (size_t)1 << (tag - 0xcc), value);
    if (tag < 0xd0 || tag > 0xd3)
        return false;
    size_t width = (size_t)1 << (tag - 0xd0);
    if (!take_uint(scan, width, value))
        return false;
    return !(*value >> (8 * width - 1)); /* signed forms count when they are not negative */
}

bool mn_scan_bool(struct mn_scan *scan, bool *value)
{
    uint8_t tag;
    if (!take_tag(scan, &tag) || (tag != 0xc2 && tag != 0xc3))
        return false;
    *value = tag == 0xc3;
    return true;
}

/* What follows the tags from 0xc0 on: a fixed number of bytes, or a length field of so many bytes (and for ext a type
 * byte). */
struct shape {
    uint8_t fixed;
    uint8_t length_width;
    uint8_t children; /* per unit of the length: 0 means bytes, 1 array elements, 2 map entries */
    bool valid;
};

static const struct shape shapes[32] = {
    [0xc0 - 0xc0] = {0, 0, 0, true}, [0xc2 - 0xc0] = {0, 0, 0, true}, [0xc3 - 0xc0] = {0, 0, 0, true},
    [0xc4 - 0xc0] = {0, 1, 0, true}, [0xc5 - 0xc0] = {0, 2, 0, true}, [0xc6 - 0xc0] = {0, 4, 0, true},
    [0xc7 - 0xc0] = {1, 1, 0, true}, [0xc8 - 0xc0] = {1, 2, 0, true}, [0xc9 - 0xc0] = {1, 4, 0, true},
    [0xca - 0xc0] = {4, 0, 0, true}, [0xcb - 0xc0] = {8, 0, 0, true}, [0xcc - 0xc0] = {1, 0, 0, true},
    [0xcd - 0xc0] = {2, 0, 0, true}, [0xce - 0xc0] = {4, 0, 0, true}, [0xcf - 0xc0] = {8, 0, 0, true},
    [0xd0 - 0xc0] = {1, 0, 0, true}, [0xd1 - 0xc0] = {2, 0, 0, true}, [0xd2 - 0xc0] = {4, 0, 0, true},
    [0xd3 - 0xc0] = {8, 0, 0, true}, [0xd4 - 0xc0] = {2, 0, 0, true}, [0xd5 - 0xc0] = {3, 0, 0, true},
    [0xd6 - 0xc0] = {5, 0, 0, true}, [0xd7 - 0xc0] = {9, 0, 0, true}, [0xd8 - 0xc0] = {17, 0, 0, true},
    [0xd9 - 0xc0] = {0, 1, 0, true}, [0xda - 0xc0] = {0, 2, 0, true}, [0xdb - 0xc0] = {0, 4, 0, true},
    [0xdc - 0xc0] = {0, 2, 1, true}, [0xdd - 0xc0] = {0, 4, 1, true}, [0xde - 0xc0] = {0, 2, 2, true},
    [0xdf - 0xc0] = {0, 4, 2, true},
};

/* Passes over one header and its own bytes; *children values belonging to it follow. */
static bool skip_head(struct mn_scan *scan, uint64_t *children)
{
    uint8_t tag;
    uint64_t length = 0;
    const uint8_t *bytes;
    *children = 0;
    if (!take_tag(scan, &tag))
        return false;
    if (tag < 0x80 || tag >= 0xe0)
        return true;
    if (tag < 0x90)
        *children = 2 * (uint64_t)(tag & 0x0f);
    else if (tag < 0xa0)
        *children = tag & 0x0f;
    if (tag < 0xa0)
        return true;
    if (tag < 0xc0)
        return take(scan, tag & 0x1f, &bytes);
    const struct shape *shape = &shapes[tag - 0xc0];
    if (!shape->valid || (shape->length_width && !take_uint(scan, shape->length_width, &length)))
        return false;
    *children = length * shape->children;
    return take(scan, shape->fixed + (shape->children ? 0 : length), &bytes);
}

bool mn_scan_skip(struct mn_scan *scan)
{
    uint64_t left = 1, children;
    while (left > 0) {
        if (!skip_head(scan, &children))
            return false;
        left += children - 1;
        if (left > (uint64_t)(scan->end - scan->at)) /* a value takes a byte at least: a forged count ends here */
            return false;
    }
    return true;
}

bool mn_scan_is(struct mn_scan scan, const char *text)
{
    const char *found;
    size_t size;
    return mn_scan_string(&scan, &found, &size) && size == strlen(text) && memcmp(found, text, size) == 0;
}

bool mn_scan_find(struct mn_scan scan, const char *key, struct mn_scan *value)
{
    uint32_t entries;
    if (!mn_scan_map(&scan, &entries))
        return false;
    for (uint32_t i = 0; i < entries; i++) {
        bool found = mn_scan_is(scan, key);
        if (!mn_scan_skip(&scan))
            return false;
        if (found) {
            *value = scan;
            return true;
        }
        if (!mn_scan_skip(&scan))
            return false;
    }
    return false;
}
