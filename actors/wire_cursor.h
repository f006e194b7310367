/*
 * wire_cursor.h - where a list stands, as the opaque string that clients hand back.
 */
#ifndef MN_ACTORS_WIRE_CURSOR_H
#define MN_ACTORS_WIRE_CURSOR_H

#include "engine/read.h"

#define MN_WIRE_CURSOR_MAX 256

/* Letters, digits, - and _; returns the length (no NUL). It pins nothing and holds over restarts. */
uint32_t mn_wire_cursor_write(const struct mn_cursor *cursor, bool newest_first, char text[MN_WIRE_CURSOR_MAX]);
/* MN_BAD_REQUEST when it is not what mn_wire_cursor_write gave, or was given for the other order. */
enum mn_status mn_wire_cursor_read(struct mn_str text, bool newest_first, struct mn_cursor *cursor) MN_MUST_USE;

#endif
