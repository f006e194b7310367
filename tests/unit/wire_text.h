/*
 * wire_text.h - MessagePack written as JSON, for tests of the wire: strings stand for what JSON has no word for.
 *
 *     "bin:abc"      three bytes           "f32:1,2,0.5"  a bin of floats      "ext:1"   an extension type
 *     "long:70000"   a str of that length  "blob:70000"   a bin                "raw:c1"  bytes as they are, in hex
 *     "nan" "inf"    such a float          anything else is a str
 */
#ifndef MN_TESTS_UNIT_WIRE_TEXT_H
#define MN_TESTS_UNIT_WIRE_TEXT_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <msgpack.h>

static inline const char *wire_text_after(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

static inline void wire_text_floats(msgpack_packer *pack, const char *list)
{
    float floats[64];
    uint32_t count = 0;
    for (char *end; *list; list = *end ? end + 1 : end)
        floats[count++] = strtof(list, &end);
    msgpack_pack_bin(pack, count * sizeof *floats);
    msgpack_pack_bin_body(pack, floats, count * sizeof *floats);
}

static inline void wire_text_long(msgpack_packer *pack, size_t length, bool bin)
{
    char *bytes = malloc(length + 1);
    memset(bytes, 'x', length + 1);
    if (bin) {
        msgpack_pack_bin(pack, length);
        msgpack_pack_bin_body(pack, bytes, length);
    } else {
        msgpack_pack_str(pack, length);
        msgpack_pack_str_body(pack, bytes, length);
    }
    free(bytes);
}

static inline void wire_text_raw(msgpack_packer *pack, const char *hex)
{
    for (; hex[0] && hex[1]; hex += 2) {
        char two[3] = {hex[0], hex[1], 0}, byte = (char)strtoul(two, NULL, 16);
        pack->callback(pack->data, &byte, 1);
    }
}

static inline void wire_text_str(msgpack_packer *pack, const char *text, size_t length)
{
    const char *rest;
    if ((rest = wire_text_after(text, "bin:"))) {
        msgpack_pack_bin(pack, strlen(rest));
        msgpack_pack_bin_body(pack, rest, strlen(rest));
    } else if ((rest = wire_text_after(text, "f32:"))) {
        wire_text_floats(pack, rest);
    } else if ((rest = wire_text_after(text, "ext:"))) {
        msgpack_pack_ext(pack, 1, (int8_t)atoi(rest));
        msgpack_pack_ext_body(pack, "x", 1);
    } else if ((rest = wire_text_after(text, "long:"))) {
        wire_text_long(pack, strtoul(rest, NULL, 10), false);
    } else if ((rest = wire_text_after(text, "blob:"))) {
        wire_text_long(pack, strtoul(rest, NULL, 10), true);
    } else if ((rest = wire_text_after(text, "raw:"))) {
        wire_text_raw(pack, rest);
    } else if (strcmp(text, "nan") == 0 || strcmp(text, "inf") == 0) {
        msgpack_pack_double(pack, text[0] == 'n' ? (double)NAN : (double)INFINITY);
    } else {
        msgpack_pack_str(pack, length);
        msgpack_pack_str_body(pack, text, length);
    }
}

static inline void wire_text_value(msgpack_packer *pack, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: {
        const char *key;
        json_t *member;
        msgpack_pack_map(pack, json_object_size(v));
        json_object_foreach((json_t *)(uintptr_t)v, key, member)
        {
            msgpack_pack_str(pack, strlen(key));
            msgpack_pack_str_body(pack, key, strlen(key));
            wire_text_value(pack, member);
        }
        break;
    }
    case JSON_ARRAY:
        msgpack_pack_array(pack, json_array_size(v));
        for (size_t i = 0; i < json_array_size(v); i++)
            wire_text_value(pack, json_array_get(v, i));
        break;
    case JSON_STRING:
        wire_text_str(pack, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        msgpack_pack_int64(pack, json_integer_value(v));
        break;
    case JSON_REAL:
        msgpack_pack_double(pack, json_real_value(v));
        break;
    case JSON_TRUE:
        msgpack_pack_true(pack);
        break;
    case JSON_FALSE:
        msgpack_pack_false(pack);
        break;
    case JSON_NULL:
        msgpack_pack_nil(pack);
        break;
    }
}

/* Packs `text` into `buffer` (initialised; emptied first); aborts on text that is no JSON. */
static inline void wire_text_pack(msgpack_sbuffer *buffer, const char *text)
{
    json_error_t error;
    msgpack_packer pack;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &error);
    if (!value) {
        fprintf(stderr, "%s: %s\n", error.text, text);
        abort();
    }
    msgpack_sbuffer_clear(buffer);
    msgpack_packer_init(&pack, buffer, msgpack_sbuffer_write);
    wire_text_value(&pack, value);
    json_decref(value);
}

#endif
