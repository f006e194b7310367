/*
 * cli_vector.c - reading embeddings.
 */
#include "ops/cli/cli_vector.h"

#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 256 << 20 };

float mn_cli_vector_from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    if (exponent == 0) { /* zero and the subnormals: fraction × 2^-24 */
        float small = (float)fraction * 0x1p-24f;
        return sign ? -small : small;
    }
    uint32_t bits = sign | (exponent == 31 ? 0xffu : exponent + 112) << 23 | fraction << 13;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

void mn_cli_vector_decode(const void *raw, enum mn_cli_vector_element element, size_t count, float *out)
{
    const uint8_t *bytes = raw;
    if (element == MN_CLI_VECTOR_F32) {
        memcpy(out, raw, count * sizeof *out);
        return;
    }
    for (size_t i = 0; i < count; i++)
        out[i] = mn_cli_vector_from_half((uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8));
}

enum mn_status mn_cli_vector_element_of(const char *path, enum mn_cli_vector_element *element)
{
    const char *dot = strrchr(path, '.');
    if (dot && strcmp(dot, ".f32") == 0)
        *element = MN_CLI_VECTOR_F32;
    else if (dot && strcmp(dot, ".f16") == 0)
        *element = MN_CLI_VECTOR_F16;
    else
        return MN_FAIL(MN_USAGE, "the name of a file of raw vectors ends in .f32 or .f16, unlike %s", path);
    return MN_OK;
}

enum mn_status mn_cli_vector_from_json(const json_t *json, uint32_t dim, float *out)
{
    size_t n = json_array_size(json);
    if (!json_is_array(json))
        return MN_FAIL(MN_BAD_REQUEST, "an embedding is an array of numbers");
    if (n != dim)
        return MN_FAIL(MN_BAD_DIM, "the embedding has %zu numbers, the store takes %u", n, dim);
    for (size_t i = 0; i < n; i++) {
        const json_t *number = json_array_get(json, i);
        if (!json_is_number(number))
            return MN_FAIL(MN_BAD_REQUEST, "element %zu of the embedding is not a number", i);
        out[i] = (float)json_number_value(number);
        if (!isfinite(out[i]))
            return MN_FAIL(MN_BAD_VALUE, "element %zu of the embedding is too large for a 32-bit float", i);
    }
    return MN_OK;
}

/* ---- files ---- */

static enum mn_status read_stream(FILE *in, const char *name, size_t limit, char **bytes, size_t *size)
{
    size_t room = 1 << 16, n = 0;
    char *buffer = malloc(room + 1);
    while (buffer) {
        n += fread(buffer + n, 1, room - n, in);
        if (n < room)
            break;
        if (n >= limit) {
            free(buffer);
            return MN_FAIL(MN_USAGE, "%s is larger than %zu bytes", name, limit);
        }
        char *larger = realloc(buffer, 2 * room + 1);
        if (!larger)
            free(buffer);
        buffer = larger;
        room *= 2;
    }
    if (!buffer)
        return MN_FAIL(MN_INTERNAL, "out of memory for %s", name);
    if (ferror(in)) {
        free(buffer);
        return MN_FAIL_ERRNO("could not read %s", name);
    }
    buffer[n] = 0;
    *bytes = buffer;
    *size = n;
    return MN_OK;
}

enum mn_status mn_cli_vector_read_file(const char *path, size_t limit, char **bytes, size_t *size)
{
    if (!path)
        return read_stream(stdin, "stdin", limit, bytes, size);
    FILE *in = fopen(path, "rbe");
    if (!in)
        return MN_FAIL_ERRNO("could not open %s", path);
    enum mn_status status = read_stream(in, path, limit, bytes, size);
    fclose(in);
    return status;
}

/* ---- the argument ---- */

static enum mn_status rows_from_json(const char *text, size_t size, const char *what, uint32_t dim, float **out,
                                     size_t *rows)
{
    json_t *json;
    enum mn_status status = MN_OK;
    MN_TRY(mn_cli_json_parse(text, size, what, &json));
    bool many = json_is_array(json_array_get(json, 0));
    *rows = many ? json_array_size(json) : 1;
    *out = mn_cli_keep(*rows * dim * sizeof **out);
    for (size_t i = 0; status == MN_OK && i < *rows; i++)
        status = mn_cli_vector_from_json(many ? json_array_get(json, i) : json, dim, *out + i * dim);
    json_decref(json);
    return status;
}

static enum mn_status rows_from_raw(const char *path, const char *bytes, size_t size, uint32_t dim, float **out,
                                    size_t *rows)
{
    enum mn_cli_vector_element element = MN_CLI_VECTOR_F32;
    MN_TRY(mn_cli_vector_element_of(path, &element));
    size_t row = dim * mn_cli_vector_width(element);
    if (size == 0 || size % row)
        return MN_FAIL(MN_BAD_DIM, "%s has %zu bytes, which is no whole number of embeddings of %zu bytes", path, size,
                       row);
    *rows = size / row;
    *out = mn_cli_keep(*rows * dim * sizeof **out);
    mn_cli_vector_decode(bytes, element, *rows * dim, *out);
    return MN_OK;
}

/* `1,0,0.5`: an array whose brackets were left out. */
static enum mn_status rows_from_bare(const char *argument, uint32_t dim, float **out, size_t *rows)
{
    char *text;
    int n = asprintf(&text, "[%s]", argument);
    if (n < 0)
        return MN_FAIL(MN_INTERNAL, "out of memory");
    enum mn_status status = rows_from_json(text, (size_t)n, "--embedding", dim, out, rows);
    free(text);
    return status;
}

enum mn_status mn_cli_vector_read(const char *argument, uint32_t dim, float **out, size_t *rows)
{
    char *bytes;
    size_t size;
    *out = NULL;
    bool from_stdin = strcmp(argument, "-") == 0;
    if (argument[0] == '[')
        return rows_from_json(argument, strlen(argument), "--embedding", dim, out, rows);
    if (!from_stdin && strchr("+-.0123456789", argument[0]))
        return rows_from_bare(argument, dim, out, rows);
    if (!from_stdin && argument[0] != '@')
        return MN_FAIL(MN_USAGE,
                       "--embedding takes an array like [0.1, 0.2], @file.json, @file.f32, @file.f16, or - for stdin, "
                       "not `%.40s`",
                       argument);
    const char *path = from_stdin ? NULL : argument + 1;
    const char *name = from_stdin ? "stdin" : path;
    const char *dot = path ? strrchr(path, '.') : NULL;
    MN_TRY(mn_cli_vector_read_file(path, FILE_MAX, &bytes, &size));
    enum mn_status status = dot && (strcmp(dot, ".f32") == 0 || strcmp(dot, ".f16") == 0)
                                ? rows_from_raw(path, bytes, size, dim, out, rows)
                                : rows_from_json(bytes, size, name, dim, out, rows);
    free(bytes);
    return status;
}
