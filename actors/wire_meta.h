/*
 * wire_meta.h - meta between its two forms: MessagePack on the wire, compact (engine/meta.h) in the store.
 *
 * The way there and back gives the same values: integers, 32 and 64 bit floats, str and bin stay what they were.
 * Extension types have no compact form and are refused.
 */
#ifndef MN_ACTORS_WIRE_META_H
#define MN_ACTORS_WIRE_META_H

#include "actors/arena.h"
#include "actors/wire_read.h"
#include "actors/wire_reply.h"

/* Any value into the arena. MN_BAD_REQUEST for an extension type, a key that is no string, or text that is not UTF-8.
 */
enum mn_status mn_wire_meta_read(struct mn_arena *arena, const struct mn_wire *value, const char *name,
                                 struct mn_str *compact) MN_MUST_USE;

/* The other way. MN_CORRUPT when the bytes are not compact meta. */
enum mn_status mn_wire_meta_pack(struct mn_reply *reply, struct mn_str compact) MN_MUST_USE;

#endif
