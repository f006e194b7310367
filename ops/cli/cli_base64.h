/*
 * cli_base64.h - base64 (RFC 4648, with padding), for bytes that must travel through JSON. Pure.
 */
#ifndef MNEME_OPS_CLI_CLI_BASE64_H
#define MNEME_OPS_CLI_CLI_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Characters that `bytes` take, without a NUL. */
static inline size_t mn_cli_base64_size(size_t bytes)
{
    return (bytes + 2) / 3 * 4;
}

/* Writes mn_cli_base64_size(size) characters and a NUL to `out`. */
void mn_cli_base64_encode(const void *bytes, size_t size, char *out);
/* Decodes `size` characters to `out`, which has room for size / 4 * 3 bytes; *out_size says how many there are. False
 * when the text is not strict base64 (blanks, missing padding and stray last bits are errors). */
bool mn_cli_base64_decode(const char *text, size_t size, void *out, size_t *out_size);

#endif
