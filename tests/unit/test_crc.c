/*
 * test_crc.c - CRC32C against its definition, bit by bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/crc.h"

static uint32_t by_definition(uint32_t seed, const uint8_t *data, size_t bytes)
{
    uint32_t crc = ~seed;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void known_values(void **state)
{
    uint8_t bytes[32];
    assert_int_equal(mn_crc32c(0, "123456789", 9), 0xe3069283u);
    memset(bytes, 0, 32); /* RFC 3720, B.4 */
    assert_int_equal(mn_crc32c(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, 32);
    assert_int_equal(mn_crc32c(0, bytes, 32), 0x62a8ab43u);
    assert_int_equal(mn_crc32c(0, bytes, 0), 0);
    assert_int_equal(mn_crc32c(5, bytes, 0), 5);
}

static void every_length_seed_and_alignment(void **state)
{
    static uint8_t data[9000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 131 + i / 251);
    for (size_t at = 0; at < 9; at++)
        for (size_t length = 0; length < 300; length++)
            assert_int_equal(mn_crc32c((uint32_t)(at * 77), data + at, length),
                             by_definition((uint32_t)(at * 77), data + at, length));
    for (size_t cut = 0; cut <= 8192; cut += 97) /* in two pieces */
        assert_int_equal(mn_crc32c(mn_crc32c(9, data, cut), data + cut, 8192 - cut), by_definition(9, data, 8192));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(every_length_seed_and_alignment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
