/*
 * crc.h - CRC32C (Castagnoli): ISA-L's hardware loop where it is, a table elsewhere.
 */
#ifndef MN_ENGINE_CRC_H
#define MN_ENGINE_CRC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* crc(a+b) = mn_crc32c(mn_crc32c(seed, a), b). Seed 0 for a plain checksum; the log seeds with salt ^ offset, so that a
 * stale or misplaced block does not pass. */
uint32_t mn_crc32c(uint32_t seed, const void *data, size_t bytes);

/* One flipped bit shows where it is: `difference` is the checksum of `bytes` bytes ^ the one that they should have, not
 * 0; *bit is then the number of the bit that explains it. False when no single one does. Takes some ns a byte. */
bool mn_crc32c_flipped(uint32_t difference, uint64_t bytes, uint64_t *bit);

#endif
