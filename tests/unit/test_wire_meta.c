/*
 * test_wire_meta.c - actors/wire_meta: MessagePack to compact form and back gives the same bytes; damage is told.
 */
#include "actors/wire_meta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/wire_text.h"

static msgpack_sbuffer frame;
static struct mn_arena arena;
static struct mn_reply reply;

/* There and back; the packer writes numbers in their shortest form, so shortest input comes back byte for byte. */
static void assert_same(void)
{
    struct mn_wire value;
    struct mn_str compact;
    mn_arena_reset(&arena);
    assert_int_equal(mn_wire_check(frame.data, frame.size, &value), MN_OK);
    assert_int_equal(mn_wire_meta_read(&arena, &value, "meta", &compact), MN_OK);
    mn_reply_begin(&reply, (struct mn_str){0}, 0);
    size_t head = reply.bytes;
    assert_int_equal(mn_wire_meta_pack(&reply, compact), MN_OK);
    assert_int_equal(reply.bytes - head, frame.size);
    assert_memory_equal(reply.data + head, frame.data, frame.size);
}

static void each_kind(void **state)
{
    static const char *const rows[] = {
        "{}",
        "{\"\": \"\"}",
        "{\"nil\": null, \"yes\": true, \"no\": false}",
        "{\"a\": 0, \"b\": 127, \"c\": 128, \"d\": 65536, \"e\": 4294967296, \"f\": \"raw:cfffffffffffffffff\"}",
        "{\"a\": -1, \"b\": -33, \"c\": -129, \"d\": -32769, \"e\": \"raw:d38000000000000000\"}",
        "{\"single\": \"raw:ca3f800000\", \"double\": 1.0, \"nan\": \"raw:cb7ff8000000000001\"}",
        "{\"s\": \"\\u00fc\\u2615\", \"long\": \"long:40000\", \"bin\": \"bin:\", \"blob\": \"blob:300\"}",
        "{\"list\": [1, [2.5, \"x\", null], {}], \"map\": {\"deep\": {\"er\": [[[1]]]}}}",
        "[1, 2]",
        "\"a value alone\""};
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        wire_text_pack(&frame, rows[i]);
        assert_same();
    }
}

static void pack_random(msgpack_packer *pack, int depth)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz";
    int kind = rand() % (depth ? 9 : 7), size = rand() % 40;
    switch (kind) {
    case 0:
        msgpack_pack_nil(pack);
        break;
    case 1:
        msgpack_pack_true(pack);
        break;
    case 2:
        msgpack_pack_uint64(pack, (uint64_t)rand() << (rand() % 33));
        break;
    case 3:
        msgpack_pack_int64(pack, -((int64_t)rand() << (rand() % 32)));
        break;
    case 4:
        msgpack_pack_double(pack, rand() / 3.0);
        break;
    case 5:
        msgpack_pack_str(pack, (size_t)size);
        msgpack_pack_str_body(pack, letters, (size_t)size);
        break;
    case 6:
        msgpack_pack_bin(pack, (size_t)size);
        msgpack_pack_bin_body(pack, letters, (size_t)size);
        break;
    default:
        size %= 6;
        kind == 7 ? msgpack_pack_array(pack, (size_t)size) : msgpack_pack_map(pack, (size_t)size);
        for (int i = 0; i < size; i++) {
            if (kind == 8) {
                msgpack_pack_str(pack, (size_t)i);
                msgpack_pack_str_body(pack, letters, (size_t)i);
            }
            pack_random(pack, depth - 1);
        }
    }
}

static void random_trees(void **state)
{
    srand(3);
    for (int round = 0; round < 20000; round++) {
        msgpack_packer pack;
        msgpack_sbuffer_clear(&frame);
        msgpack_packer_init(&pack, &frame, msgpack_sbuffer_write);
        pack_random(&pack, 5);
        assert_same();
    }
}

/* The worst growth: empty arrays, one byte each, become nine. */
static void the_smallest_values_fit(void **state)
{
    msgpack_packer pack;
    msgpack_sbuffer_clear(&frame);
    msgpack_packer_init(&pack, &frame, msgpack_sbuffer_write);
    msgpack_pack_array(&pack, 60000);
    for (int i = 0; i < 60000; i++)
        i % 2 ? msgpack_pack_array(&pack, 0) : msgpack_pack_map(&pack, 0);
    assert_same();
}

static void damaged_compact_bytes(void **state)
{
    static const char text[] = "{\"a\": [1, \"xyz\", {\"b\": 1.5, \"c\": [true, null, -7]}], \"d\": \"bin:1234\"}";
    struct mn_wire value;
    struct mn_str compact;
    mn_arena_reset(&arena);
    wire_text_pack(&frame, text);
    assert_int_equal(mn_wire_check(frame.data, frame.size, &value), MN_OK);
    assert_int_equal(mn_wire_meta_read(&arena, &value, "meta", &compact), MN_OK);
    srand(4);
    for (int round = 0; round < 50000; round++) {
        uint32_t length = (uint32_t)rand() % (compact.length + 1);
        char *copy = malloc(length ? length : 1);
        memcpy(copy, compact.data, length);
        if (length)
            copy[(uint32_t)rand() % length] = (char)(rand() >> 7);
        mn_reply_begin(&reply, (struct mn_str){0}, 1);
        enum mn_status status = mn_wire_meta_pack(&reply, (struct mn_str){copy, length});
        assert_true(status == MN_OK || status == MN_CORRUPT);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_kind), cmocka_unit_test(random_trees),
                                       cmocka_unit_test(the_smallest_values_fit),
                                       cmocka_unit_test(damaged_compact_bytes)};
    msgpack_sbuffer_init(&frame);
    mn_reply_init(&reply);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    msgpack_sbuffer_destroy(&frame);
    mn_reply_free(&reply);
    mn_arena_free(&arena);
    return failed;
}
