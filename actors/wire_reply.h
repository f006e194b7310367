/*
 * wire_reply.h - replies: one buffer per thread, filled anew for each, in the one form that all replies have.
 *
 *     mn_reply_begin(r, request.rid, 2);          {ok: true, rid, and two more
 *     mn_reply_uint(r, "seq", seq);
 *     mn_reply_key(r, "ids"); msgpack_pack_array(&r->pack, n); ...
 *     mn_router_reply(router, peer, r->data, r->bytes);
 *
 * A reply that would pass MN_REPLY_BYTES_MAX stops growing and says so (mn_reply_over); the caller then answers
 * too_large.
 */
#ifndef MN_ACTORS_WIRE_REPLY_H
#define MN_ACTORS_WIRE_REPLY_H

#include <msgpack.h>

#include "engine/types.h"

struct mn_reply {
    msgpack_packer pack; /* for values that have no helper here */
    char *data;
    size_t bytes, room;
    bool over;   /* larger than a reply may be */
    bool failed; /* no memory */
};

/* An empty reply; its buffer grows with the first. Not to be moved afterwards: the packer points to it. */
void mn_reply_init(struct mn_reply *reply);
void mn_reply_free(struct mn_reply *reply);
/* Gives the buffer away, to be freed by the caller; the reply is empty then. */
char *mn_reply_take(struct mn_reply *reply, size_t *bytes);

/* Starts {ok: true, rid?, ...} with room for `members` more. rid: msgpack bytes as they came, or length 0. */
void mn_reply_begin(struct mn_reply *reply, struct mn_str rid, uint32_t members);
/* The whole of {ok: false, rid?, code, error, retry}. `text` may hold anything; what is not UTF-8 is replaced. */
void mn_reply_error(struct mn_reply *reply, struct mn_str rid, enum mn_status status, const char *text);

/* True when what was packed does not fit a reply (or memory): see mn_reply_end. */
bool mn_reply_over(const struct mn_reply *reply);
/* MN_OK, MN_TOO_LARGE with a sentence that ends in `hint` ("ask for fewer"), or MN_INTERNAL. */
enum mn_status mn_reply_end(const struct mn_reply *reply, const char *hint) MN_MUST_USE;

/* A key, before a value that is packed by itself. */
void mn_reply_key(struct mn_reply *reply, const char *key);
/* Key and value. */
void mn_reply_uint(struct mn_reply *reply, const char *key, uint64_t value);
void mn_reply_int(struct mn_reply *reply, const char *key, int64_t value);
void mn_reply_double(struct mn_reply *reply, const char *key, double value);
void mn_reply_bool(struct mn_reply *reply, const char *key, bool value);
void mn_reply_text(struct mn_reply *reply, const char *key, const char *text);
void mn_reply_str(struct mn_reply *reply, const char *key, struct mn_str s);

/* Values alone. */
void mn_reply_pack_str(struct mn_reply *reply, struct mn_str s);
void mn_reply_pack_bin(struct mn_reply *reply, const void *data, size_t bytes);
void mn_reply_pack_id(struct mn_reply *reply, const struct mn_id *id);

#endif
