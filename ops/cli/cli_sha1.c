/*
 * cli_sha1.c - SHA-1 (FIPS 180-4) and version 5 UUIDs (RFC 4122, 4.3).
 */
#include "ops/cli/cli_sha1.h"

#include <stdio.h>
#include <string.h>

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

static void round_of(uint32_t s[5], unsigned i, uint32_t word)
{
    uint32_t mix, constant;
    if (i < 20) {
        mix = (s[1] & s[2]) | (~s[1] & s[3]);
        constant = 0x5a827999;
    } else if (i < 40 || i >= 60) {
        mix = s[1] ^ s[2] ^ s[3];
        constant = i < 40 ? 0x6ed9eba1 : 0xca62c1d6;
    } else {
        mix = (s[1] & s[2]) | (s[1] & s[3]) | (s[2] & s[3]);
        constant = 0x8f1bbcdc;
    }
    uint32_t next = rotate(s[0], 5) + mix + s[4] + constant + word;
    s[4] = s[3];
    s[3] = s[2];
    s[2] = rotate(s[1], 30);
    s[1] = s[0];
    s[0] = next;
}

static void absorb(uint32_t state[5], const uint8_t *block)
{
    uint32_t w[80], s[5];
    for (unsigned i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (unsigned i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    memcpy(s, state, sizeof s);
    for (unsigned i = 0; i < 80; i++)
        round_of(s, i, w[i]);
    for (unsigned i = 0; i < 5; i++)
        state[i] += s[i];
}

void mn_cli_sha1_begin(struct mn_cli_sha1 *sha)
{
    static const uint32_t start[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    memcpy(sha->state, start, sizeof start);
    sha->bytes = 0;
}

void mn_cli_sha1_add(struct mn_cli_sha1 *sha, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    while (size > 0) {
        size_t held = sha->bytes % 64;
        size_t n = size < 64 - held ? size : 64 - held;
        if (n == 64) {
            absorb(sha->state, at);
        } else {
            memcpy(sha->block + held, at, n);
            if (held + n == 64)
                absorb(sha->state, sha->block);
        }
        sha->bytes += n;
        at += n;
        size -= n;
    }
}

void mn_cli_sha1_end(struct mn_cli_sha1 *sha, uint8_t digest[20])
{
    static const uint8_t padding[64] = {0x80};
    uint8_t length[8];
    uint64_t bits = sha->bytes * 8;
    for (unsigned i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    mn_cli_sha1_add(sha, padding, 1 + (119 - sha->bytes % 64) % 64);
    mn_cli_sha1_add(sha, length, sizeof length);
    for (unsigned i = 0; i < 20; i++)
        digest[i] = (uint8_t)(sha->state[i / 4] >> (24 - 8 * (i % 4)));
}

void mn_cli_sha1_uuid(struct mn_cli_sha1 *sha, char *out)
{
    uint8_t d[20];
    mn_cli_sha1_end(sha, d);
    d[6] = (uint8_t)((d[6] & 0x0f) | 0x50);
    d[8] = (uint8_t)((d[8] & 0x3f) | 0x80);
    snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", d[0], d[1], d[2], d[3],
             d[4], d[5], d[6], d[7], d[8], d[9], d[10], d[11], d[12], d[13], d[14], d[15]);
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool mn_cli_sha1_parse_uuid(const char *text, uint8_t bytes[16])
{
    unsigned at = 0;
    for (unsigned i = 0; i < 36; i++) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (text[i] != '-')
                return false;
            continue;
        }
        int d = nibble(text[i]);
        if (d < 0)
            return false;
        bytes[at / 2] = (uint8_t)(at % 2 ? bytes[at / 2] | d : d << 4);
        at++;
    }
    return text[36] == 0;
}
