/*
 * cli_vector.h - embeddings from a command line or a file: JSON arrays, raw f32 and raw f16, little-endian.
 */
#ifndef MNEME_OPS_CLI_CLI_VECTOR_H
#define MNEME_OPS_CLI_CLI_VECTOR_H

#include "shm/status.h"

#include <jansson.h>

enum mn_cli_vector_element { MN_CLI_VECTOR_F32, MN_CLI_VECTOR_F16 };

static inline size_t mn_cli_vector_width(enum mn_cli_vector_element element)
{
    return element == MN_CLI_VECTOR_F16 ? 2 : 4;
}

/* IEEE 754 binary16, exact. */
float mn_cli_vector_from_half(uint16_t half);
/* `count` little-endian elements to floats; `raw` may be unaligned. */
void mn_cli_vector_decode(const void *raw, enum mn_cli_vector_element element, size_t count, float *out);
/* By the file's name: .f16 or .f32. MN_USAGE otherwise. */
MN_MUST_USE enum mn_status mn_cli_vector_element_of(const char *path, enum mn_cli_vector_element *element);

/* An array of `dim` finite numbers. MN_BAD_REQUEST, MN_BAD_DIM or MN_BAD_VALUE with a sentence. */
MN_MUST_USE enum mn_status mn_cli_vector_from_json(const json_t *json, uint32_t dim, float *out);

/* The argument of --embedding: `[0.1, ...]` or `0.1,...`, `@file.json`, `@file.f32`, `@file.f16`, or `-` for JSON on
 * stdin. JSON may be one array or an array of arrays. `*rows` × `dim` floats, kept (mn_cli_keep). */
MN_MUST_USE enum mn_status mn_cli_vector_read(const char *argument, uint32_t dim, float **out, size_t *rows);

/* Reads a whole file (or stdin for NULL) of at most `limit` bytes; NUL behind it. Owned: free it. */
MN_MUST_USE enum mn_status mn_cli_vector_read_file(const char *path, size_t limit, char **bytes, size_t *size);

#endif
