/*
 * wire_meta.c - meta between MessagePack and its compact form (see wire_meta.h).
 */
#include "actors/wire_meta.h"

#include "engine/meta.h"

static enum mn_status text(struct mn_str s, const char *name)
{
    if (!mn_wire_utf8(s.data, s.length))
        return MN_FAIL(MN_BAD_REQUEST, "%s holds a string that is not UTF-8; bytes that are no text must come as bin",
                       name);
    return MN_OK;
}

static enum mn_status write_scalar(struct mn_meta_writer *w, const struct mn_wire *v, const char *name)
{
    switch (v->type) {
    case MN_WIRE_NIL:
        mn_meta_nil(w);
        return MN_OK;
    case MN_WIRE_BOOL:
        mn_meta_bool(w, v->boolean);
        return MN_OK;
    case MN_WIRE_UINT:
        mn_meta_uint(w, v->u64);
        return MN_OK;
    case MN_WIRE_INT:
        mn_meta_int(w, v->i64);
        return MN_OK;
    case MN_WIRE_FLOAT:
        if (v->single)
            mn_meta_f32(w, (float)v->f64);
        else
            mn_meta_f64(w, v->f64);
        return MN_OK;
    case MN_WIRE_STR:
        mn_meta_str(w, v->s);
        return text(v->s, name);
    case MN_WIRE_BIN:
        mn_meta_bin(w, v->s);
        return MN_OK;
    default:
        return MN_FAIL(MN_BAD_REQUEST,
                       "%s holds an extension type; it may hold nil, bool, numbers, str, bin, arrays and maps", name);
    }
}

static enum mn_status write_key(struct mn_meta_writer *w, const uint8_t **at, const char *name)
{
    struct mn_wire key;
    mn_wire_next(at, &key);
    if (key.type != MN_WIRE_STR)
        return MN_FAIL(MN_BAD_REQUEST, "%s holds a key that is no string; all keys must be strings", name);
    mn_meta_key(w, key.s);
    return text(key.s, name);
}

/* Recurses as deep as a checked frame nests: MN_WIRE_DEPTH_MAX. */
static enum mn_status write_value(struct mn_meta_writer *w, const uint8_t **at, const char *name)
{
    struct mn_wire v;
    mn_wire_next(at, &v);
    if (v.type != MN_WIRE_ARRAY && v.type != MN_WIRE_MAP)
        return write_scalar(w, &v, name);
    if (v.type == MN_WIRE_ARRAY)
        mn_meta_array_begin(w, v.count);
    else
        mn_meta_map_begin(w, v.count);
    for (uint32_t i = 0; i < v.count; i++) {
        if (v.type == MN_WIRE_MAP)
            MN_TRY(write_key(w, at, name));
        MN_TRY(write_value(w, at, name));
    }
    mn_meta_end(w);
    return MN_OK;
}

enum mn_status mn_wire_meta_read(struct mn_arena *arena, const struct mn_wire *value, const char *name,
                                 struct mn_str *compact)
{
    const uint8_t *at = value->at;
    size_t room = (size_t)(mn_wire_skip(at) - at) * MN_META_GROWTH;
    if (room > UINT32_MAX)
        return MN_FAIL(MN_TOO_LARGE, "%s is too large", name);
    struct mn_meta_writer w = {.bytes_max = (uint32_t)room};
    MN_ARENA_ARRAY(arena, w.data, room);
    MN_TRY(write_value(&w, &at, name));
    if (w.failed)
        return MN_FAIL(MN_BAD_REQUEST, "%s nests deeper than %d", name, MN_META_DEPTH_MAX);
    mn_arena_trim(arena, w.data + w.bytes);
    *compact = (struct mn_str){(const char *)w.data, w.bytes};
    return MN_OK;
}

/* ---- the other way */

static enum mn_status pack_value(struct mn_reply *reply, struct mn_str *in, unsigned depth);

static enum mn_status pack_members(struct mn_reply *reply, struct mn_str *in, const struct mn_meta_value *v,
                                   unsigned depth)
{
    struct mn_str key;
    if (depth == MN_META_DEPTH_MAX)
        return MN_FAIL(MN_CORRUPT, "meta nests deeper than %d", MN_META_DEPTH_MAX);
    if (v->type == MN_META_ARRAY)
        msgpack_pack_array(&reply->pack, v->count);
    else
        msgpack_pack_map(&reply->pack, v->count);
    for (uint32_t i = 0; i < v->count; i++) {
        if (v->type == MN_META_MAP) {
            if (!mn_meta_next_key(in, &key))
                return MN_FAIL(MN_CORRUPT, "meta ends within a key");
            mn_reply_pack_str(reply, key);
        }
        MN_TRY(pack_value(reply, in, depth + 1));
    }
    return MN_OK;
}

static enum mn_status pack_value(struct mn_reply *reply, struct mn_str *in, unsigned depth)
{
    struct mn_meta_value v;
    if (!mn_meta_next(in, &v))
        return MN_FAIL(MN_CORRUPT, "meta is damaged");
    switch (v.type) {
    case MN_META_NIL:
        msgpack_pack_nil(&reply->pack);
        break;
    case MN_META_BOOL:
        v.boolean ? msgpack_pack_true(&reply->pack) : msgpack_pack_false(&reply->pack);
        break;
    case MN_META_INT:
        msgpack_pack_int64(&reply->pack, v.i64);
        break;
    case MN_META_UINT:
        msgpack_pack_uint64(&reply->pack, v.u64);
        break;
    case MN_META_F32:
        msgpack_pack_float(&reply->pack, (float)v.f64);
        break;
    case MN_META_F64:
        msgpack_pack_double(&reply->pack, v.f64);
        break;
    case MN_META_STR:
        mn_reply_pack_str(reply, v.s);
        break;
    case MN_META_BIN:
        mn_reply_pack_bin(reply, v.s.data, v.s.length);
        break;
    case MN_META_ARRAY:
    case MN_META_MAP:
        return pack_members(reply, in, &v, depth);
    }
    return MN_OK;
}

enum mn_status mn_wire_meta_pack(struct mn_reply *reply, struct mn_str compact)
{
    return pack_value(reply, &compact, 0);
}
