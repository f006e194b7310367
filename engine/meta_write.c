/*
 * meta_write.c - writing the compact form of meta, as meta.c documents it.
 */
#include "engine/meta.h"

#define CONTAINER_HEAD 9 /* type, count, length */

static uint8_t *reserve(struct mn_meta_writer *w, uint64_t bytes)
{
    if (w->failed || bytes > w->bytes_max - w->bytes) {
        w->failed = true;
        return NULL;
    }
    uint8_t *at = w->data + w->bytes;
    w->bytes += (uint32_t)bytes;
    return at;
}

static void put(struct mn_meta_writer *w, const void *data, uint32_t bytes)
{
    uint8_t *at = reserve(w, bytes);
    if (at && bytes > 0)
        memcpy(at, data, bytes);
}

static void put_byte(struct mn_meta_writer *w, uint8_t byte)
{
    put(w, &byte, 1);
}

static void put_varint(struct mn_meta_writer *w, uint64_t n)
{
    for (; n >= 0x80; n >>= 7)
        put_byte(w, (uint8_t)(n | 0x80));
    put_byte(w, (uint8_t)n);
}

static void store_le(uint8_t *at, uint64_t n, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(n >> (8 * i));
}

static void put_le(struct mn_meta_writer *w, uint64_t n, unsigned bytes)
{
    uint8_t *at = reserve(w, bytes);
    if (at)
        store_le(at, n, bytes);
}

static void put_bytes(struct mn_meta_writer *w, struct mn_str s)
{
    put_varint(w, s.length);
    put(w, s.data, s.length);
}

void mn_meta_nil(struct mn_meta_writer *w)
{
    put_byte(w, MN_META_NIL);
}

void mn_meta_bool(struct mn_meta_writer *w, bool value)
{
    put_byte(w, MN_META_BOOL);
    put_byte(w, value ? 1 : 0);
}

void mn_meta_uint(struct mn_meta_writer *w, uint64_t value)
{
    put_byte(w, MN_META_UINT);
    put_varint(w, value);
}

void mn_meta_int(struct mn_meta_writer *w, int64_t value)
{
    if (value >= 0) {
        mn_meta_uint(w, (uint64_t)value);
        return;
    }
    put_byte(w, MN_META_INT);
    put_varint(w, (uint64_t)(-1 - value));
}

void mn_meta_f32(struct mn_meta_writer *w, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_byte(w, MN_META_F32);
    put_le(w, bits, sizeof bits);
}

void mn_meta_f64(struct mn_meta_writer *w, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_byte(w, MN_META_F64);
    put_le(w, bits, sizeof bits);
}

void mn_meta_str(struct mn_meta_writer *w, struct mn_str s)
{
    put_byte(w, MN_META_STR);
    put_bytes(w, s);
}

void mn_meta_bin(struct mn_meta_writer *w, struct mn_str s)
{
    put_byte(w, MN_META_BIN);
    put_bytes(w, s);
}

static void begin(struct mn_meta_writer *w, enum mn_meta_type type, uint32_t count)
{
    if (w->depth == MN_META_DEPTH_MAX)
        w->failed = true;
    uint32_t at = w->bytes;
    put_byte(w, (uint8_t)type);
    put_le(w, count, 4);
    put_le(w, 0, 4); /* the length: mn_meta_end knows it */
    if (!w->failed)
        w->open[w->depth++] = at;
}

void mn_meta_array_begin(struct mn_meta_writer *w, uint32_t count)
{
    begin(w, MN_META_ARRAY, count);
}

void mn_meta_map_begin(struct mn_meta_writer *w, uint32_t count)
{
    begin(w, MN_META_MAP, count);
}

void mn_meta_key(struct mn_meta_writer *w, struct mn_str key)
{
    put_bytes(w, key);
}

void mn_meta_end(struct mn_meta_writer *w)
{
    if (w->failed || w->depth == 0) {
        w->failed = true;
        return;
    }
    uint32_t at = w->open[--w->depth];
    store_le(w->data + at + 5, w->bytes - at - CONTAINER_HEAD, 4);
}
