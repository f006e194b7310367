/*
 * random_bits.h - numbers at random, the same in every run: a linear congruential generator (Knuth's MMIX).
 */
#ifndef MN_TESTS_UNIT_RANDOM_BITS_H
#define MN_TESTS_UNIT_RANDOM_BITS_H

#include <stdint.h>

static uint64_t random_state = 1;

static inline uint32_t random_bits(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 32);
}

/* -1 to 1, evenly. */
static inline float random_float(void)
{
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

#endif
