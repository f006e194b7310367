/*
 * reply.c - a reply as it came, and views into it. Decoding happens at the first look and costs nothing to those who
 * never do.
 */
#include "clients/c/client.h"

#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

struct mneme_reply {
    zmq_msg_t message;
    bool decoded;
    msgpack_zone zone;
    msgpack_object root;
};

static const struct mneme_value absent = {NULL};

struct mneme_reply *mn_reply_from_message(zmq_msg_t *message)
{
    struct mneme_reply *reply = calloc(1, sizeof *reply);
    if (reply) {
        zmq_msg_init(&reply->message);
        zmq_msg_move(&reply->message, message);
    }
    zmq_msg_close(message);
    return reply;
}

void mneme_reply_free(struct mneme_reply *reply)
{
    if (!reply)
        return;
    if (reply->decoded)
        msgpack_zone_destroy(&reply->zone);
    zmq_msg_close(&reply->message);
    free(reply);
}

const void *mneme_reply_bytes(const struct mneme_reply *reply, size_t *size)
{
    struct mneme_reply *r = (struct mneme_reply *)reply; /* zmq_msg_data takes no const, and changes nothing */
    *size = zmq_msg_size(&r->message);
    return zmq_msg_data(&r->message);
}

/* Strings and binaries stay in the message; the zone holds only the structure. What does not decode reads as nil. */
static void decode(struct mneme_reply *reply)
{
    size_t offset = 0;
    reply->root.type = MSGPACK_OBJECT_NIL;
    if (!msgpack_zone_init(&reply->zone, 4096))
        return;
    reply->decoded = true;
    if (msgpack_unpack(zmq_msg_data(&reply->message), zmq_msg_size(&reply->message), &offset, &reply->zone,
                       &reply->root) < 0)
        reply->root.type = MSGPACK_OBJECT_NIL;
}

struct mneme_value mneme_reply_root(const struct mneme_reply *reply)
{
    struct mneme_reply *r = (struct mneme_reply *)reply; /* the decoded form is a cache */
    if (!r)
        return absent;
    if (!r->decoded)
        decode(r);
    return (struct mneme_value){&r->root};
}

struct mneme_value mneme_reply_get(const struct mneme_reply *reply, const char *key)
{
    return mneme_value_get(mneme_reply_root(reply), key);
}

/* ---- views ---- */

static const msgpack_object *object_of(struct mneme_value value)
{
    return value.at;
}

enum mneme_type mneme_value_type(struct mneme_value value)
{
    const msgpack_object *o = object_of(value);
    if (!o)
        return MNEME_TYPE_ABSENT;
    switch (o->type) {
    case MSGPACK_OBJECT_NIL:
        return MNEME_TYPE_NIL;
    case MSGPACK_OBJECT_BOOLEAN:
        return MNEME_TYPE_BOOL;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return MNEME_TYPE_INTEGER;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return MNEME_TYPE_FLOAT;
    case MSGPACK_OBJECT_STR:
        return MNEME_TYPE_STRING;
    case MSGPACK_OBJECT_BIN:
        return MNEME_TYPE_BINARY;
    case MSGPACK_OBJECT_ARRAY:
        return MNEME_TYPE_ARRAY;
    case MSGPACK_OBJECT_MAP:
        return MNEME_TYPE_MAP;
    default:
        return MNEME_TYPE_OTHER;
    }
}

struct mneme_value mneme_value_get(struct mneme_value map, const char *key)
{
    const msgpack_object *o = object_of(map);
    size_t n = strlen(key);
    if (!o || o->type != MSGPACK_OBJECT_MAP)
        return absent;
    for (uint32_t i = 0; i < o->via.map.size; i++) {
        const msgpack_object *k = &o->via.map.ptr[i].key;
        if (k->type == MSGPACK_OBJECT_STR && k->via.str.size == n && memcmp(k->via.str.ptr, key, n) == 0)
            return (struct mneme_value){&o->via.map.ptr[i].val};
    }
    return absent;
}

struct mneme_value mneme_value_at(struct mneme_value array, size_t index)
{
    const msgpack_object *o = object_of(array);
    if (!o || o->type != MSGPACK_OBJECT_ARRAY || index >= o->via.array.size)
        return absent;
    return (struct mneme_value){&o->via.array.ptr[index]};
}

static const msgpack_object_kv *map_entry(struct mneme_value map, size_t index)
{
    const msgpack_object *o = object_of(map);
    return o && o->type == MSGPACK_OBJECT_MAP && index < o->via.map.size ? &o->via.map.ptr[index] : NULL;
}

struct mneme_value mneme_value_key(struct mneme_value map, size_t index)
{
    const msgpack_object_kv *kv = map_entry(map, index);
    return kv ? (struct mneme_value){&kv->key} : absent;
}

struct mneme_value mneme_value_entry(struct mneme_value map, size_t index)
{
    const msgpack_object_kv *kv = map_entry(map, index);
    return kv ? (struct mneme_value){&kv->val} : absent;
}

size_t mneme_value_length(struct mneme_value value)
{
    const msgpack_object *o = object_of(value);
    if (!o)
        return 0;
    switch (o->type) {
    case MSGPACK_OBJECT_STR:
        return o->via.str.size;
    case MSGPACK_OBJECT_BIN:
        return o->via.bin.size;
    case MSGPACK_OBJECT_ARRAY:
        return o->via.array.size;
    case MSGPACK_OBJECT_MAP:
        return o->via.map.size;
    default:
        return 0;
    }
}

uint64_t mneme_value_u64(struct mneme_value value, uint64_t otherwise)
{
    const msgpack_object *o = object_of(value);
    return o && o->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? o->via.u64 : otherwise;
}

int64_t mneme_value_i64(struct mneme_value value, int64_t otherwise)
{
    const msgpack_object *o = object_of(value);
    if (o && o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 <= INT64_MAX)
        return (int64_t)o->via.u64;
    return o && o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER ? o->via.i64 : otherwise;
}

double mneme_value_f64(struct mneme_value value, double otherwise)
{
    const msgpack_object *o = object_of(value);
    if (!o)
        return otherwise;
    switch (o->type) {
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return o->via.f64;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        return (double)o->via.u64;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return (double)o->via.i64;
    default:
        return otherwise;
    }
}

bool mneme_value_bool(struct mneme_value value, bool otherwise)
{
    const msgpack_object *o = object_of(value);
    return o && o->type == MSGPACK_OBJECT_BOOLEAN ? o->via.boolean : otherwise;
}

const char *mneme_value_bytes(struct mneme_value value, size_t *size)
{
    const msgpack_object *o = object_of(value);
    const char *bytes = NULL;
    size_t n = 0;
    if (o && o->type == MSGPACK_OBJECT_STR) {
        bytes = o->via.str.ptr;
        n = o->via.str.size;
    } else if (o && o->type == MSGPACK_OBJECT_BIN) {
        bytes = o->via.bin.ptr;
        n = o->via.bin.size;
    }
    if (size)
        *size = n;
    return bytes;
}

bool mneme_value_is(struct mneme_value value, const char *text)
{
    const msgpack_object *o = object_of(value);
    return o && o->type == MSGPACK_OBJECT_STR && o->via.str.size == strlen(text) &&
           memcmp(o->via.str.ptr, text, o->via.str.size) == 0;
}

bool mneme_value_id(struct mneme_value value, struct mneme_id *id)
{
    const msgpack_object *o = object_of(value);
    memset(id, 0, sizeof *id);
    if (o && o->type == MSGPACK_OBJECT_POSITIVE_INTEGER) {
        id->number = o->via.u64;
        return true;
    }
    if (!o || o->type != MSGPACK_OBJECT_STR || o->via.str.size != sizeof id->uuid - 1)
        return false;
    memcpy(id->uuid, o->via.str.ptr, sizeof id->uuid - 1);
    return true;
}

enum mneme_code mneme_value_raw(struct mneme_value value, void **bytes, size_t *size)
{
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    *bytes = NULL;
    *size = 0;
    if (!value.at)
        return MNEME_NOT_FOUND;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    if (msgpack_pack_object(&packer, *object_of(value)) != 0) {
        msgpack_sbuffer_destroy(&buffer);
        return MNEME_NO_MEMORY;
    }
    *size = buffer.size;
    *bytes = msgpack_sbuffer_release(&buffer);
    return MNEME_OK;
}

bool mneme_value_found(struct mneme_value value, struct mneme_found *found)
{
    memset(found, 0, sizeof *found);
    if (!mneme_value_id(mneme_value_get(value, "id"), &found->id))
        return false;
    struct mneme_value content = mneme_value_get(value, "content");
    struct mneme_value score = mneme_value_get(value, "score");
    found->version = mneme_value_u64(mneme_value_get(value, "version"), 0);
    found->has_score = score.at != NULL;
    found->score = mneme_value_f64(score, 0);
    found->similarity = mneme_value_f64(mneme_value_get(value, "similarity"), 0);
    found->space = mneme_value_bytes(mneme_value_get(value, "space"), &found->space_size);
    found->content = mneme_value_bytes(content, &found->content_size);
    found->content_is_binary = mneme_value_type(content) == MNEME_TYPE_BINARY;
    found->confidence = mneme_value_f64(mneme_value_get(value, "confidence"), NAN);
    found->at = mneme_value_i64(mneme_value_get(value, "at"), INT64_MIN);
    found->expires = mneme_value_i64(mneme_value_get(value, "expires"), INT64_MIN);
    found->meta = mneme_value_get(value, "meta");
    found->tags = mneme_value_get(value, "tags");
    found->damaged = mneme_value_get(value, "damaged");
    found->embedding = mneme_value_bytes(mneme_value_get(value, "embedding"), &found->embedding_size);
    return true;
}
