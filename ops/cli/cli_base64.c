/*
 * cli_base64.c - base64 (RFC 4648).
 */
#include "ops/cli/cli_base64.h"

#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void mn_cli_base64_encode(const void *bytes, size_t size, char *out)
{
    const uint8_t *b = bytes;
    for (size_t i = 0; i < size; i += 3) {
        size_t have = size - i < 3 ? size - i : 3;
        uint32_t group = (uint32_t)b[i] << 16 | (have > 1 ? (uint32_t)b[i + 1] << 8 : 0) | (have > 2 ? b[i + 2] : 0);
        for (size_t c = 0; c < 4; c++)
            *out++ = c <= have ? alphabet[group >> (18 - 6 * c) & 63] : '=';
    }
    *out = 0;
}

/* The value of a digit, or -1. */
static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Four characters to up to three bytes; `padding` of them are '='. */
static bool decode_group(const char *text, size_t padding, uint8_t *out)
{
    uint32_t group = 0;
    for (size_t c = 0; c < 4; c++) {
        int d = c < 4 - padding ? digit(text[c]) : 0;
        if (d < 0)
            return false;
        group = group << 6 | (uint32_t)d;
    }
    if (padding && group & ((1u << 8 * padding) - 1))
        return false;
    for (size_t i = 0; i < 3 - padding; i++)
        out[i] = (uint8_t)(group >> (16 - 8 * i));
    return true;
}

bool mn_cli_base64_decode(const char *text, size_t size, void *out, size_t *out_size)
{
    uint8_t *to = out;
    size_t padding = 0;
    if (size % 4)
        return false;
    while (padding < 2 && padding < size && text[size - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < size; i += 4, to += 3)
        if (!decode_group(text + i, i + 4 == size ? padding : 0, to))
            return false;
    *out_size = size / 4 * 3 - padding;
    return true;
}
