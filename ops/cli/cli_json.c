/*
 * cli_json.c - JSON to MessagePack and back (see cli_json.h for the marks).
 */
#include "ops/cli/cli_json.h"

#include "ops/cli/cli.h"
#include "ops/cli/cli_base64.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const marks[] = {"base64", "text64", "number"};

/* The number of leading `$` when a key is one or more of them and then a mark; else 0. */
static size_t mark_depth(const char *key, size_t size)
{
    size_t dollars = 0;
    while (dollars < size && key[dollars] == '$')
        dollars++;
    for (size_t i = 0; i < MN_ARRAY_LEN(marks); i++)
        if (dollars && strlen(marks[i]) == size - dollars && memcmp(marks[i], key + dollars, size - dollars) == 0)
            return dollars;
    return 0;
}

static json_t *marked(const char *mark, json_t *value)
{
    json_t *map = json_object();
    if (!map || json_object_set_new(map, mark, value) != 0) {
        json_decref(map);
        return NULL;
    }
    return map;
}

static json_t *marked_base64(const char *mark, const char *bytes, size_t size)
{
    char *text = malloc(mn_cli_base64_size(size) + 1);
    if (!text)
        return NULL;
    mn_cli_base64_encode(bytes, size, text);
    json_t *value = json_string_nocheck(text);
    free(text);
    return value ? marked(mark, value) : NULL;
}

json_t *mn_cli_json_from_bytes(const char *bytes, size_t size, bool binary)
{
    if (binary)
        return marked_base64("$base64", bytes, size);
    json_t *text = json_stringn(bytes, size); /* NULL when it is not UTF-8 */
    return text ? text : marked_base64("$text64", bytes, size);
}

static json_t *from_number(double number)
{
    if (isfinite(number))
        return json_real(number);
    return marked("$number", json_string(isnan(number) ? "nan" : number > 0 ? "inf" : "-inf"));
}

static json_t *from_integer(struct mneme_value value)
{
    int64_t small = mneme_value_i64(value, INT64_MIN);
    uint64_t large = mneme_value_u64(value, 0);
    char text[24];
    if (large <= INT64_MAX)
        return json_integer(small);
    snprintf(text, sizeof text, "%llu", (unsigned long long)large);
    return marked("$number", json_string(text));
}

static json_t *from_floats(const char *bytes, size_t size)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i + 4 <= size; i += 4) {
        float f;
        memcpy(&f, bytes + i, sizeof f);
        /* Nine digits give the same float back; as a double it would show seventeen. */
        char text[32];
        snprintf(text, sizeof text, "%.9g", (double)f);
        if (json_array_append_new(array, json_real(strtod(text, NULL))) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *from_value(struct mneme_value value, int depth);

static json_t *from_array(struct mneme_value value, int depth)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < mneme_value_length(value); i++) {
        if (json_array_append_new(array, from_value(mneme_value_at(value, i), depth)) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* A key as JSON wants it; owned. */
static char *key_text(struct mneme_value key, bool alone, int depth)
{
    size_t size;
    const char *bytes = mneme_value_bytes(key, &size);
    json_t *json = NULL;
    char *text;
    if (mneme_value_type(key) != MNEME_TYPE_STRING || !(json = json_stringn(bytes, size)) || memchr(bytes, 0, size)) {
        json_decref(json);
        json = from_value(key, depth);
        text = json ? json_dumps(json, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    } else {
        bool escape = alone && mark_depth(bytes, size) > 0;
        text = malloc(size + 2);
        if (text)
            snprintf(text, size + 2, "%s%.*s", escape ? "$" : "", (int)size, bytes);
    }
    json_decref(json);
    return text;
}

static json_t *from_map(struct mneme_value value, int depth)
{
    json_t *map = json_object();
    size_t n = mneme_value_length(value);
    for (size_t i = 0; map && i < n; i++) {
        struct mneme_value entry = mneme_value_entry(value, i);
        char *key = key_text(mneme_value_key(value, i), n == 1, depth);
        json_t *json;
        size_t size;
        const char *bytes = mneme_value_bytes(entry, &size);
        if (key && strcmp(key, "embedding") == 0 && mneme_value_type(entry) == MNEME_TYPE_BINARY)
            json = from_floats(bytes, size);
        else
            json = from_value(entry, depth);
        if (!key || json_object_set_new(map, key, json) != 0) {
            json_decref(key ? NULL : json);
            json_decref(map);
            map = NULL;
        }
        free(key);
    }
    return map;
}

static json_t *from_value(struct mneme_value value, int depth)
{
    size_t size;
    const char *bytes = mneme_value_bytes(value, &size);
    if (depth <= 0)
        return NULL;
    switch (mneme_value_type(value)) {
    case MNEME_TYPE_BOOL:
        return json_boolean(mneme_value_bool(value, false));
    case MNEME_TYPE_INTEGER:
        return from_integer(value);
    case MNEME_TYPE_FLOAT:
        return from_number(mneme_value_f64(value, 0));
    case MNEME_TYPE_STRING:
        return mn_cli_json_from_bytes(bytes, size, false);
    case MNEME_TYPE_BINARY:
        return mn_cli_json_from_bytes(bytes, size, true);
    case MNEME_TYPE_ARRAY:
        return from_array(value, depth - 1);
    case MNEME_TYPE_MAP:
        return from_map(value, depth - 1);
    default:
        return json_null();
    }
}

json_t *mn_cli_json_from_value(struct mneme_value value)
{
    return from_value(value, MN_CLI_JSON_DEPTH);
}

/* ---- the way back ---- */

/* The value of a map with the one key `$<mark>`, else NULL. */
static const json_t *unmarked(const json_t *json, const char *mark)
{
    if (!json_is_object(json) || json_object_size(json) != 1)
        return NULL;
    const json_t *value = json_object_get(json, mark);
    return value;
}

static enum mn_status decode_base64(const json_t *text, char **bytes, size_t *size)
{
    if (!json_is_string(text))
        return MN_FAIL(MN_BAD_REQUEST, "marked bytes must be a string of base64");
    size_t n = json_string_length(text);
    *bytes = malloc(n / 4 * 3 + 1);
    if (!*bytes)
        return MN_FAIL(MN_INTERNAL, "out of memory");
    if (mn_cli_base64_decode(json_string_value(text), n, *bytes, size))
        return MN_OK;
    free(*bytes);
    *bytes = NULL;
    return MN_FAIL(MN_BAD_REQUEST, "this is not base64: %.40s", json_string_value(text));
}

enum mn_status mn_cli_json_to_bytes(const json_t *json, char **bytes, size_t *size, bool *binary)
{
    const json_t *coded = unmarked(json, "$base64");
    *bytes = NULL;
    *binary = coded != NULL;
    if (!coded)
        coded = unmarked(json, "$text64");
    if (coded)
        return decode_base64(coded, bytes, size);
    if (!json_is_string(json))
        return MN_FAIL(MN_BAD_REQUEST, "this must be a string, or {\"$base64\": \"...\"} for binary");
    *size = json_string_length(json);
    *bytes = malloc(*size + 1);
    if (!*bytes)
        return MN_FAIL(MN_INTERNAL, "out of memory");
    memcpy(*bytes, json_string_value(json), *size + 1);
    return MN_OK;
}

void mn_cli_json_pack_text(msgpack_packer *packer, const char *text)
{
    size_t size = strlen(text);
    msgpack_pack_str(packer, size);
    msgpack_pack_str_body(packer, text, size);
}

static enum mn_status pack_marked_bytes(msgpack_packer *p, const json_t *json)
{
    char *bytes;
    size_t size;
    bool binary;
    MN_TRY(mn_cli_json_to_bytes(json, &bytes, &size, &binary));
    if (binary) {
        msgpack_pack_bin(p, size);
        msgpack_pack_bin_body(p, bytes, size);
    } else {
        msgpack_pack_str(p, size);
        msgpack_pack_str_body(p, bytes, size);
    }
    free(bytes);
    return MN_OK;
}

static enum mn_status pack_marked_number(msgpack_packer *p, const json_t *value)
{
    const char *text = json_string_value(value);
    char *end;
    if (text && strspn(text, "0123456789") == strlen(text) && *text)
        msgpack_pack_uint64(p, strtoull(text, NULL, 10));
    else if (text && (strcmp(text, "nan") == 0 || strcmp(text, "inf") == 0 || strcmp(text, "-inf") == 0))
        msgpack_pack_double(p, strtod(text, &end));
    else
        return MN_FAIL(MN_BAD_REQUEST, "$number takes \"nan\", \"inf\", \"-inf\" or an integer in quotes");
    return MN_OK;
}

static enum mn_status pack(msgpack_packer *p, const json_t *json, int depth);

static enum mn_status pack_map(msgpack_packer *p, const json_t *json, int depth)
{
    const char *key;
    json_t *value;
    size_t n = json_object_size(json);
    msgpack_pack_map(p, n);
    json_object_foreach((json_t *)json, key, value)
    {
        size_t size = strlen(key);
        bool escaped = n == 1 && mark_depth(key, size) > 1;
        msgpack_pack_str(p, size - escaped);
        msgpack_pack_str_body(p, key + escaped, size - escaped);
        MN_TRY(pack(p, value, depth));
    }
    return MN_OK;
}

static enum mn_status pack(msgpack_packer *p, const json_t *json, int depth)
{
    const json_t *number = unmarked(json, "$number");
    if (depth <= 0)
        return MN_FAIL(MN_BAD_REQUEST, "the JSON is nested more than %d deep", MN_CLI_JSON_DEPTH);
    if (number)
        return pack_marked_number(p, number);
    if (json_is_string(json) || unmarked(json, "$base64") || unmarked(json, "$text64"))
        return pack_marked_bytes(p, json);
    if (json_is_object(json))
        return pack_map(p, json, depth - 1);
    if (json_is_array(json)) {
        msgpack_pack_array(p, json_array_size(json));
        for (size_t i = 0; i < json_array_size(json); i++)
            MN_TRY(pack(p, json_array_get(json, i), depth - 1));
    } else if (json_is_integer(json)) {
        msgpack_pack_int64(p, json_integer_value(json));
    } else if (json_is_real(json)) {
        msgpack_pack_double(p, json_real_value(json));
    } else if (json_is_boolean(json)) {
        json_is_true(json) ? msgpack_pack_true(p) : msgpack_pack_false(p);
    } else {
        msgpack_pack_nil(p);
    }
    return MN_OK;
}

enum mn_status mn_cli_json_pack(msgpack_packer *packer, const json_t *json)
{
    return pack(packer, json, MN_CLI_JSON_DEPTH);
}

enum mn_status mn_cli_json_parse(const char *text, size_t size, const char *what, json_t **out)
{
    json_error_t error;
    *out = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    if (*out)
        return MN_OK;
    return MN_FAIL(MN_USAGE, "%s is not JSON: %s (line %d, column %d)", what, error.text, error.line, error.column);
}

enum mn_status mn_cli_json_parse_packed(const char *text, const char *what, void **bytes, size_t *size)
{
    json_t *json;
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    *bytes = NULL;
    MN_TRY(mn_cli_json_parse(text, strlen(text), what, &json));
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    enum mn_status status = mn_cli_json_pack(&packer, json);
    json_decref(json);
    *size = buffer.size;
    if (status == MN_OK)
        *bytes = memcpy(mn_cli_keep(buffer.size), buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    return status;
}

enum mn_status mn_cli_json_print(json_t *json, bool indented)
{
    if (!json)
        return MN_FAIL(MN_INTERNAL, "out of memory for the answer as JSON");
    int result = json_dumpf(json, stdout, JSON_ENCODE_ANY | (indented ? JSON_INDENT(2) : JSON_COMPACT));
    json_decref(json);
    if (result != 0 || fputc('\n', stdout) == EOF || fflush(stdout) != 0)
        return MN_FAIL_ERRNO("could not write to stdout");
    return MN_OK;
}

enum mn_status mn_cli_json_print_reply(const struct mneme_reply *reply, bool indented)
{
    json_t *json = mn_cli_json_from_value(mneme_reply_root(reply));
    json_object_del(json, "rid"); /* the library's, and of no use to anyone else */
    return mn_cli_json_print(json, indented);
}
