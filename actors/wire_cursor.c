/*
 * wire_cursor.c - cursors of lists (see wire_cursor.h).
 *
 * The bytes: order, kind of id, length of the space name, at, id (hi, lo), name, and four bytes of hash over all that:
 * a cursor from elsewhere is told from one of ours, which is help against mistakes, not a secret. Written as base64url.
 */
#include "actors/wire_cursor.h"

#define HEAD_BYTES  27 /* three single bytes, at, hi, lo */
#define CHECK_BYTES 4
#define BYTES_MAX   (HEAD_BYTES + MN_SPACE_BYTES_MAX + CHECK_BYTES)

_Static_assert((BYTES_MAX * 4 + 2) / 3 < MN_WIRE_CURSOR_MAX, "a cursor fits its buffer");

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static uint32_t to_text(const uint8_t *data, uint32_t bytes, char *text)
{
    uint32_t length = 0, bits = 0;
    uint32_t held = 0; /* bits not yet written, the lowest `bits` of it */
    for (uint32_t i = 0; i < bytes; i++) {
        held = held << 8 | data[i];
        for (bits += 8; bits >= 6; bits -= 6)
            text[length++] = digits[held >> (bits - 6) & 63];
    }
    if (bits)
        text[length++] = digits[held << (6 - bits) & 63];
    return length;
}

/* Bytes written, or 0 when a character is none of ours. */
static uint32_t from_text(struct mn_str text, uint8_t *data)
{
    uint32_t bytes = 0, bits = 0, held = 0;
    for (uint32_t i = 0; i < text.length; i++) {
        const char *digit = text.data[i] ? strchr(digits, text.data[i]) : NULL;
        if (!digit)
            return 0;
        held = held << 6 | (uint32_t)(digit - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            data[bytes++] = (uint8_t)(held >> bits);
        }
    }
    return bytes;
}

static uint32_t check_of(const uint8_t *data, uint32_t bytes)
{
    return (uint32_t)mn_str_hash((struct mn_str){(const char *)data, bytes});
}

uint32_t mn_wire_cursor_write(const struct mn_cursor *cursor, bool newest_first, char text[MN_WIRE_CURSOR_MAX])
{
    uint8_t data[BYTES_MAX] = {newest_first, (uint8_t)cursor->id.kind, (uint8_t)cursor->space_length};
    uint32_t bytes = HEAD_BYTES + cursor->space_length;
    memcpy(data + 3, &cursor->at, 8);
    memcpy(data + 11, &cursor->id.hi, 8);
    memcpy(data + 19, &cursor->id.lo, 8);
    memcpy(data + HEAD_BYTES, cursor->space, cursor->space_length);
    uint32_t check = check_of(data, bytes);
    memcpy(data + bytes, &check, CHECK_BYTES);
    return to_text(data, bytes + CHECK_BYTES, text);
}

static bool is_sound(const uint8_t *data, uint32_t bytes)
{
    uint32_t check;
    if (bytes < HEAD_BYTES + CHECK_BYTES || data[1] > MN_ID_UUID || data[2] > MN_SPACE_BYTES_MAX)
        return false;
    if (bytes != HEAD_BYTES + CHECK_BYTES + (uint32_t)data[2])
        return false;
    memcpy(&check, data + bytes - CHECK_BYTES, CHECK_BYTES);
    return check == check_of(data, bytes - CHECK_BYTES);
}

enum mn_status mn_wire_cursor_read(struct mn_str text, bool newest_first, struct mn_cursor *cursor)
{
    uint8_t data[MN_WIRE_CURSOR_MAX];
    if (text.length >= MN_WIRE_CURSOR_MAX || !is_sound(data, from_text(text, data)))
        return MN_FAIL(MN_BAD_REQUEST, "cursor is not one that a list has given; leave it out to begin at the front");
    if (data[0] != newest_first)
        return MN_FAIL(MN_BAD_REQUEST, "cursor belongs to a list in the other order; keep order as it was");
    *cursor = (struct mn_cursor){.set = true, .id = {.kind = data[1]}, .space_length = data[2]};
    memcpy(&cursor->at, data + 3, 8);
    memcpy(&cursor->id.hi, data + 11, 8);
    memcpy(&cursor->id.lo, data + 19, 8);
    memcpy(cursor->space, data + HEAD_BYTES, cursor->space_length);
    return MN_OK;
}
