/*
 * crc.h - CRC32C (Castagnoli): ISA-L's hardware loop where it is, a table elsewhere.
 */
#ifndef MN_ENGINE_CRC_H
#define MN_ENGINE_CRC_H

#include <stddef.h>
#include <stdint.h>

/* crc(a+b) = mn_crc32c(mn_crc32c(seed, a), b). Seed 0 for a plain checksum; the log seeds with salt ^ offset, so that a
 * stale or misplaced block does not pass. */
uint32_t mn_crc32c(uint32_t seed, const void *data, size_t bytes);

#endif
