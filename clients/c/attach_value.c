/*
 * attach_value.c - metadata between MessagePack, in which a program gives and sees it, and the compact form in which
 * the store keeps it (engine/meta.h).
 */
#include "clients/c/attach.h"

#include "actors/wire.h"
#include "engine/meta.h"

/* ---- into the compact form ---- */

static struct mn_str text_of(const msgpack_object *o)
{
    return (struct mn_str){o->via.str.ptr, o->via.str.size};
}

static enum mn_status write_scalar(struct mn_meta_writer *w, const msgpack_object *o)
{
    switch (o->type) {
    case MSGPACK_OBJECT_NIL:
        mn_meta_nil(w);
        return MN_OK;
    case MSGPACK_OBJECT_BOOLEAN:
        mn_meta_bool(w, o->via.boolean);
        return MN_OK;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        mn_meta_uint(w, o->via.u64);
        return MN_OK;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        mn_meta_int(w, o->via.i64);
        return MN_OK;
    case MSGPACK_OBJECT_FLOAT32:
        mn_meta_f32(w, (float)o->via.f64);
        return MN_OK;
    case MSGPACK_OBJECT_FLOAT64:
        mn_meta_f64(w, o->via.f64);
        return MN_OK;
    case MSGPACK_OBJECT_STR:
        mn_meta_str(w, text_of(o));
        return MN_OK;
    case MSGPACK_OBJECT_BIN:
        mn_meta_bin(w, (struct mn_str){o->via.bin.ptr, o->via.bin.size});
        return MN_OK;
    default:
        return MN_FAIL(MN_BAD_REQUEST,
                       "a value in filter.meta holds an extension type; it may hold nil, bool, numbers, "
                       "str, bin, arrays and maps");
    }
}

/* Recurses as deep as the writer lets values nest, and no deeper. */
static enum mn_status write_value(struct mn_meta_writer *w, const msgpack_object *o)
{
    // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): a decoded array of some length has its members
    bool map = o->type == MSGPACK_OBJECT_MAP;
    if (!map && o->type != MSGPACK_OBJECT_ARRAY)
        return write_scalar(w, o);
    uint32_t count = map ? o->via.map.size : o->via.array.size;
    if (map)
        mn_meta_map_begin(w, count);
    else
        mn_meta_array_begin(w, count);
    for (uint32_t i = 0; i < count && !w->failed; i++) {
        const msgpack_object *key = map ? &o->via.map.ptr[i].key : NULL;
        if (key && key->type != MSGPACK_OBJECT_STR)
            return MN_FAIL(MN_BAD_REQUEST, "a value in filter.meta holds a key that is no string");
        if (key)
            mn_meta_key(w, text_of(key));
        MN_TRY(write_value(w, map ? &o->via.map.ptr[i].val : &o->via.array.ptr[i]));
    }
    mn_meta_end(w);
    return MN_OK;
}

/* Bytes that the value takes as MessagePack at most; what nests too deep counts as nothing and fails later. */
static size_t weight(const msgpack_object *o, unsigned depth)
{
    size_t bytes = 9;
    if (depth > MN_META_DEPTH_MAX)
        return 0;
    if (o->type == MSGPACK_OBJECT_STR)
        bytes += o->via.str.size;
    if (o->type == MSGPACK_OBJECT_BIN)
        bytes += o->via.bin.size;
    for (uint32_t i = 0; o->type == MSGPACK_OBJECT_ARRAY && i < o->via.array.size; i++)
        bytes += weight(&o->via.array.ptr[i], depth + 1);
    for (uint32_t i = 0; o->type == MSGPACK_OBJECT_MAP && i < o->via.map.size; i++)
        bytes += weight(&o->via.map.ptr[i].key, depth + 1) + weight(&o->via.map.ptr[i].val, depth + 1);
    return bytes;
}

enum mn_status mn_attach_compact(struct mneme_attached *a, const msgpack_object *value, struct mn_str *compact)
{
    size_t room = 2 * weight(value, 0);
    if (room > MN_META_COMPACT_MAX)
        return MN_FAIL(MN_TOO_LARGE, "a value in filter.meta is too large; %u bytes are the most", MN_META_BYTES_MAX);
    struct mn_meta_writer w = {.bytes_max = (uint32_t)room};
    MN_POOL_ARRAY(a, w.data, room);
    MN_TRY(write_value(&w, value));
    if (w.failed)
        return MN_FAIL(MN_BAD_REQUEST, "a value in filter.meta nests deeper than %d", MN_META_DEPTH_MAX);
    *compact = (struct mn_str){(const char *)w.data, w.bytes};
    return MN_OK;
}

enum mn_status mn_attach_decode(struct mneme_attached *a, const void *bytes, size_t size, msgpack_object *value)
{
    size_t offset = 0;
    if (!bytes || size > MN_FRAME_BYTES_MAX ||
        msgpack_unpack(bytes, size, &offset, &a->pool, value) != MSGPACK_UNPACK_SUCCESS || offset != size)
        return MN_FAIL(MN_BAD_REQUEST, "a value of a condition is not one MessagePack value");
    return MN_OK;
}

/* ---- out of the compact form ---- */

static enum mn_status read_value(struct mneme_attached *a, struct mn_str *in, unsigned depth, msgpack_object *o);

static enum mn_status read_array(struct mneme_attached *a, struct mn_str *in, uint32_t count, unsigned depth,
                                 msgpack_object *o)
{
    o->type = MSGPACK_OBJECT_ARRAY;
    MN_POOL_ARRAY(a, o->via.array.ptr, count);
    o->via.array.size = count;
    for (uint32_t i = 0; i < count; i++)
        MN_TRY(read_value(a, in, depth + 1, &o->via.array.ptr[i]));
    return MN_OK;
}

static enum mn_status read_map(struct mneme_attached *a, struct mn_str *in, uint32_t count, unsigned depth,
                               msgpack_object *o)
{
    o->type = MSGPACK_OBJECT_MAP;
    MN_POOL_ARRAY(a, o->via.map.ptr, count);
    o->via.map.size = count;
    for (uint32_t i = 0; i < count; i++) {
        struct mn_str key;
        if (!mn_meta_next_key(in, &key))
            return MN_FAIL(MN_CORRUPT, "meta ends within a key");
        o->via.map.ptr[i].key = (msgpack_object){.type = MSGPACK_OBJECT_STR, .via.str = {key.length, key.data}};
        MN_TRY(read_value(a, in, depth + 1, &o->via.map.ptr[i].val));
    }
    return MN_OK;
}

static enum mn_status read_members(struct mneme_attached *a, struct mn_str *in, const struct mn_meta_value *v,
                                   unsigned depth, msgpack_object *o)
{
    if (depth == MN_META_DEPTH_MAX)
        return MN_FAIL(MN_CORRUPT, "meta nests deeper than %d", MN_META_DEPTH_MAX);
    if (v->count > v->s.length)
        return MN_FAIL(MN_CORRUPT, "meta has %u members in %u bytes", v->count, v->s.length);
    return v->type == MN_META_MAP ? read_map(a, in, v->count, depth, o) : read_array(a, in, v->count, depth, o);
}

static enum mn_status read_value(struct mneme_attached *a, struct mn_str *in, unsigned depth, msgpack_object *o)
{
    struct mn_meta_value v;
    if (!mn_meta_next(in, &v))
        return MN_FAIL(MN_CORRUPT, "meta is damaged");
    switch (v.type) {
    case MN_META_NIL:
        o->type = MSGPACK_OBJECT_NIL;
        break;
    case MN_META_BOOL:
        *o = (msgpack_object){.type = MSGPACK_OBJECT_BOOLEAN, .via.boolean = v.boolean};
        break;
    case MN_META_INT:
        *o = (msgpack_object){.type = MSGPACK_OBJECT_NEGATIVE_INTEGER, .via.i64 = v.i64};
        break;
    case MN_META_UINT:
        *o = (msgpack_object){.type = MSGPACK_OBJECT_POSITIVE_INTEGER, .via.u64 = v.u64};
        break;
    case MN_META_F32:
    case MN_META_F64:
        *o = (msgpack_object){.type = v.type == MN_META_F32 ? MSGPACK_OBJECT_FLOAT32 : MSGPACK_OBJECT_FLOAT64,
                              .via.f64 = v.f64};
        break;
    case MN_META_STR:
        *o = (msgpack_object){.type = MSGPACK_OBJECT_STR, .via.str = {v.s.length, v.s.data}};
        break;
    case MN_META_BIN:
        *o = (msgpack_object){.type = MSGPACK_OBJECT_BIN, .via.bin = {v.s.length, v.s.data}};
        break;
    case MN_META_ARRAY:
    case MN_META_MAP:
        return read_members(a, in, &v, depth, o);
    }
    return MN_OK;
}

enum mn_status mn_attach_value(struct mneme_attached *a, struct mn_str compact, struct mneme_value *value)
{
    msgpack_object *o;
    MN_POOL_ARRAY(a, o, 1);
    MN_TRY(read_value(a, &compact, 0, o));
    value->at = o;
    return MN_OK;
}
