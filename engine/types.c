/*
 * types.c - hashes of strings and ids, and ids as text.
 */
#include "engine/types.h"

#include <stdio.h>

#include "shm/process.h"

/* Mixes 128 bits of product into 64 (the folded multiply of wyhash and its kin). */
static uint64_t mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#define HASH_A UINT64_C(0x9e3779b97f4a7c15)
#define HASH_B UINT64_C(0xd6e8feb86659fd93)

uint64_t mn_str_hash(struct mn_str s)
{
    uint64_t hash = mix(s.length ^ HASH_A, HASH_B);
    uint32_t i = 0;
    for (; i + 8 <= s.length; i += 8) {
        uint64_t word;
        memcpy(&word, s.data + i, 8);
        hash = mix(hash ^ word, HASH_A);
    }
    uint64_t rest = 0;
    if (i < s.length)
        memcpy(&rest, s.data + i, s.length - i);
    hash = mix(hash ^ rest, HASH_B);
    return hash ? hash : 1;
}

uint64_t mn_id_hash(uint64_t space_hash, const struct mn_id *id)
{
    uint64_t hash = mix(space_hash ^ id->lo, HASH_A ^ id->kind);
    hash = mix(hash ^ id->hi, HASH_B);
    return hash ? hash : 1;
}

size_t mn_id_text(const struct mn_id *id, char text[MN_ID_TEXT_MAX])
{
    if (id->kind == MN_ID_INTEGER)
        return (size_t)snprintf(text, MN_ID_TEXT_MAX, "%llu", (unsigned long long)id->lo);
    uint8_t uuid[16];
    for (int i = 0; i < 8; i++) {
        uuid[i] = (uint8_t)(id->hi >> (56 - 8 * i));
        uuid[8 + i] = (uint8_t)(id->lo >> (56 - 8 * i));
    }
    mn_uuid_text(uuid, text);
    return 36;
}
