/*
 * test_client_scan.c - reading MessagePack headers: every form, and bytes that lie; the codes of libmneme against those
 * of the daemon.
 */
#include "clients/c/mneme.h"
#include "clients/c/scan.h"
#include "shm/status.h"

#include <msgpack.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct mn_scan over(const void *bytes, size_t size)
{
    return (struct mn_scan){bytes, (const uint8_t *)bytes + size};
}

#define OVER(bytes) over(bytes, sizeof bytes - 1)

static void integers_of_every_width(void **state)
{
    static const uint64_t values[] = {0,         127, 128, 255, 256, 65535, 65536, UINT32_MAX, (uint64_t)UINT32_MAX + 1,
                                      UINT64_MAX};
    for (size_t i = 0; i < MN_ARRAY_LEN(values); i++) {
        msgpack_sbuffer buffer;
        msgpack_packer packer;
        uint64_t value;
        msgpack_sbuffer_init(&buffer);
        msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
        msgpack_pack_uint64(&packer, values[i]);
        struct mn_scan scan = over(buffer.data, buffer.size);
        assert_true(mn_scan_u64(&scan, &value));
        assert_true(value == values[i] && scan.at == scan.end);
        msgpack_sbuffer_destroy(&buffer);
    }
    uint64_t value;
    struct mn_scan scan = OVER("\xd1\x01\x00"); /* a signed form of 256 */
    assert_true(mn_scan_u64(&scan, &value) && value == 256);
    scan = OVER("\xd0\xff");
    assert_false(mn_scan_u64(&scan, &value));
    scan = OVER("\xff");
    assert_false(mn_scan_u64(&scan, &value));
}

static void values_of_every_kind_are_skipped(void **state)
{
    static const char bytes[] = "\xdf\x00\x00\x00\x03" /* a map of three */
                                "\xa1"
                                "a\x93\xc0\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xca\x00\x00\x00\x00" /* nil, f64, f32 */
                                "\xd9\x02"
                                "bb\xdc\x00\x02\xc4\x01x\xc7\x02\x05yz" /* bin 8, ext 8 */
                                "\xa1"
                                "c\xd4\x01q"; /* fixext 1 */
    struct mn_scan scan = OVER(bytes), value;
    assert_true(mn_scan_find(scan, "bb", &value));
    assert_int_equal(*value.at, 0xdc);
    assert_false(mn_scan_find(scan, "d", &value));
    assert_true(mn_scan_skip(&scan));
    assert_ptr_equal(scan.at, scan.end);
    for (size_t n = 0; n + 1 < sizeof bytes - 1; n++) { /* cut anywhere, it is no whole value */
        scan = over(bytes, n);
        assert_false(mn_scan_skip(&scan));
    }
}

static void forged_lengths_end_the_scan(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
    } forged[] = {{"\xdd\xff\xff\xff\xff", 5},
                  {"\xdf\xff\xff\xff\xff\xc0", 6},
                  {"\xc6\xff\xff\xff\xff", 5},
                  {"\xdb\x00\x00\x00\x09x", 6},
                  {"\xc1", 1},
                  {"\x9f\xc0", 2},
                  {"", 0}};
    for (size_t i = 0; i < MN_ARRAY_LEN(forged); i++) {
        struct mn_scan scan = over(forged[i].bytes, forged[i].size);
        assert_false(mn_scan_skip(&scan));
    }
    char deep[4096]; /* nesting costs no stack */
    memset(deep, 0x91, sizeof deep);
    struct mn_scan scan = over(deep, sizeof deep);
    assert_false(mn_scan_skip(&scan));
    deep[sizeof deep - 1] = (char)0xc0;
    scan = over(deep, sizeof deep);
    assert_true(mn_scan_skip(&scan));
}

/* Each status that may leave the daemon has the same word here. */
static void codes_are_those_of_the_daemon(void **state)
{
    for (unsigned s = 0; s < MN_NOT_READY; s++) {
        const char *word = mn_status_word((enum mn_status)s);
        assert_string_equal(mneme_code_word(mneme_code_from_word(word, strlen(word))), word);
    }
    assert_int_equal(mneme_code_from_word("no such word", 12), MNEME_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_of_every_width),
        cmocka_unit_test(values_of_every_kind_are_skipped),
        cmocka_unit_test(forged_lengths_end_the_scan),
        cmocka_unit_test(codes_are_those_of_the_daemon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
