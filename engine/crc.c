/*
 * crc.c - CRC32C by ISA-L, or by eight tables where ISA-L is not there.
 */
#include "engine/crc.h"

/* A bit changes the checksum by what is left of it when all bits behind it have been shifted through; so shift one bit
 * through until it leaves that. */
bool mn_crc32c_flipped(uint32_t difference, uint64_t bytes, uint64_t *bit)
{
    uint32_t left = 1;
    for (uint64_t behind = 1; behind <= 8 * bytes; behind++) {
        left = left >> 1 ^ (left & 1 ? 0x82f63b78u : 0);
        if (left != difference)
            continue;
        *bit = 8 * bytes - behind;
        return true;
    }
    return false;
}

#ifdef MN_HAVE_ISAL
#include <isa-l/crc.h>

uint32_t mn_crc32c(uint32_t seed, const void *data, size_t bytes)
{
    /* ISA-L takes an int length and leaves the inversions to its caller. The buffer is only read. */
    const unsigned char *p = data;
    uint32_t crc = ~seed;
    while (bytes > 0) {
        size_t piece = bytes < (1u << 30) ? bytes : 1u << 30;
        crc = crc32_iscsi((unsigned char *)(uintptr_t)p, (int)piece, crc);
        p += piece;
        bytes -= piece;
    }
    return ~crc;
}
#else
#include <stdatomic.h>

/* "Slicing by 8": table[k][b] is the crc of byte b followed by k zero bytes (Kounavis and Berry, 2005). */
static uint32_t table[8][256];

static void fill_table(void)
{
    static _Atomic int filled;
    if (atomic_load_explicit(&filled, memory_order_acquire))
        return;
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
        table[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++)
            table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 255];
    atomic_store_explicit(&filled, 1, memory_order_release);
}

uint32_t mn_crc32c(uint32_t seed, const void *data, size_t bytes)
{
    fill_table();
    const uint8_t *p = data;
    uint32_t crc = ~seed;
    for (; bytes >= 8; bytes -= 8, p += 8) {
        crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        crc = table[7][crc & 255] ^ table[6][crc >> 8 & 255] ^ table[5][crc >> 16 & 255] ^ table[4][crc >> 24] ^
              table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    }
    for (; bytes > 0; bytes--)
        crc = crc >> 8 ^ table[0][(crc ^ *p++) & 255];
    return ~crc;
}
#endif
