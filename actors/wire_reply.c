/*
 * wire_reply.c - replies into one reusable buffer (see wire_reply.h).
 *
 * The packer's errors are sticky in the reply (over, failed), so that those who pack need not look at each value.
 */
#include "actors/wire_reply.h"

#include <stdlib.h>

#include "actors/wire_read.h"

#define ROOM_FIRST 8192u
#define ROOM_KEPT  (1u << 20) /* a buffer that one huge reply blew up is not kept */

static bool make_room(struct mn_reply *reply, size_t bytes)
{
    if (bytes > MN_REPLY_BYTES_MAX - reply->bytes) {
        reply->over = true;
        return false;
    }
    size_t room = reply->room ? reply->room : ROOM_FIRST;
    while (room < reply->bytes + bytes)
        room *= 2;
    if (room == reply->room)
        return true;
    char *data = realloc(reply->data, room);
    if (!data) {
        reply->failed = true;
        return false;
    }
    reply->data = data;
    reply->room = room;
    return true;
}

/* msgpack_packer_write */
static int append(void *context, const char *data, size_t bytes)
{
    struct mn_reply *reply = context;
    if (reply->over || reply->failed || !make_room(reply, bytes))
        return -1;
    if (bytes)
        memcpy(reply->data + reply->bytes, data, bytes);
    reply->bytes += bytes;
    return 0;
}

void mn_reply_init(struct mn_reply *reply)
{
    *reply = (struct mn_reply){0};
    msgpack_packer_init(&reply->pack, reply, append);
}

void mn_reply_free(struct mn_reply *reply)
{
    free(reply->data);
    mn_reply_init(reply);
}

char *mn_reply_take(struct mn_reply *reply, size_t *bytes)
{
    char *data = reply->data;
    *bytes = reply->bytes;
    mn_reply_init(reply);
    return data;
}

static void clear(struct mn_reply *reply)
{
    if (reply->room > ROOM_KEPT) {
        free(reply->data);
        reply->data = NULL;
        reply->room = 0;
    }
    reply->bytes = 0;
    reply->over = reply->failed = false;
    msgpack_packer_init(&reply->pack, reply, append);
}

/* The head that all replies share. */
static void begin(struct mn_reply *reply, struct mn_str rid, bool ok, uint32_t members)
{
    clear(reply);
    msgpack_pack_map(&reply->pack, members + 1u + (rid.length ? 1u : 0u));
    mn_reply_bool(reply, "ok", ok);
    if (rid.length) {
        mn_reply_key(reply, "rid");
        append(reply, rid.data, rid.length);
    }
}

void mn_reply_begin(struct mn_reply *reply, struct mn_str rid, uint32_t members)
{
    begin(reply, rid, true, members);
}

/* A sentence that quotes foreign bytes must still be a msgpack string. */
static void pack_sentence(struct mn_reply *reply, const char *text)
{
    char clean[512];
    size_t length = strnlen(text, sizeof clean);
    memcpy(clean, text, length);
    if (!mn_wire_utf8(clean, length)) {
        for (size_t i = 0; i < length; i++)
            clean[i] = (clean[i] & 0x80) ? '?' : clean[i];
    }
    mn_reply_pack_str(reply, (struct mn_str){clean, (uint32_t)length});
}

void mn_reply_error(struct mn_reply *reply, struct mn_str rid, enum mn_status status, const char *text)
{
    if (status == MN_OK || status >= MN_NOT_READY)
        status = status == MN_NOT_READY ? MN_UNAVAILABLE : MN_INTERNAL;
    begin(reply, rid, false, 3);
    mn_reply_text(reply, "code", mn_status_word(status));
    mn_reply_key(reply, "error");
    pack_sentence(reply, *text ? text : mn_status_word(status));
    mn_reply_bool(reply, "retry", mn_status_retry(status));
}

bool mn_reply_over(const struct mn_reply *reply)
{
    return reply->over || reply->failed;
}

enum mn_status mn_reply_end(const struct mn_reply *reply, const char *hint)
{
    if (reply->failed)
        return MN_FAIL(MN_INTERNAL, "no memory for the reply");
    if (reply->over)
        return MN_FAIL(MN_TOO_LARGE, "the reply would be larger than %u MiB: %s", MN_REPLY_BYTES_MAX >> 20, hint);
    return MN_OK;
}

void mn_reply_key(struct mn_reply *reply, const char *key)
{
    mn_reply_pack_str(reply, (struct mn_str){key, (uint32_t)strlen(key)});
}

void mn_reply_uint(struct mn_reply *reply, const char *key, uint64_t value)
{
    mn_reply_key(reply, key);
    msgpack_pack_uint64(&reply->pack, value);
}

void mn_reply_int(struct mn_reply *reply, const char *key, int64_t value)
{
    mn_reply_key(reply, key);
    msgpack_pack_int64(&reply->pack, value);
}

void mn_reply_double(struct mn_reply *reply, const char *key, double value)
{
    mn_reply_key(reply, key);
    msgpack_pack_double(&reply->pack, value);
}

void mn_reply_bool(struct mn_reply *reply, const char *key, bool value)
{
    mn_reply_key(reply, key);
    if (value)
        msgpack_pack_true(&reply->pack);
    else
        msgpack_pack_false(&reply->pack);
}

void mn_reply_text(struct mn_reply *reply, const char *key, const char *text)
{
    mn_reply_key(reply, key);
    mn_reply_key(reply, text);
}

void mn_reply_str(struct mn_reply *reply, const char *key, struct mn_str s)
{
    mn_reply_key(reply, key);
    mn_reply_pack_str(reply, s);
}

void mn_reply_pack_str(struct mn_reply *reply, struct mn_str s)
{
    msgpack_pack_str(&reply->pack, s.length);
    msgpack_pack_str_body(&reply->pack, s.data, s.length);
}

void mn_reply_pack_bin(struct mn_reply *reply, const void *data, size_t bytes)
{
    msgpack_pack_bin(&reply->pack, bytes);
    msgpack_pack_bin_body(&reply->pack, data, bytes);
}

void mn_reply_pack_id(struct mn_reply *reply, const struct mn_id *id)
{
    if (id->kind == MN_ID_INTEGER) {
        msgpack_pack_uint64(&reply->pack, id->lo);
        return;
    }
    char text[MN_ID_TEXT_MAX];
    size_t length = mn_id_text(id, text);
    mn_reply_pack_str(reply, (struct mn_str){text, (uint32_t)length});
}
