/*
 * test_wire_reply.c - actors/wire_reply: the form of replies, errors that quote anything, replies too large.
 */
#include "actors/wire_reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "actors/wire_read.h"

static struct mn_reply reply;

static void read_back(const char *const *names, uint32_t count, struct mn_wire *values, uint32_t members)
{
    struct mn_wire map;
    assert_int_equal(mn_wire_check(reply.data, reply.bytes, &map), MN_OK);
    assert_int_equal(map.type, MN_WIRE_MAP);
    assert_int_equal(map.count, members);
    assert_int_equal(mn_wire_fields(&map, "the reply", names, count, false, values), MN_OK);
}

static void a_reply(void **state)
{
    static const char *const names[] = {"ok", "rid", "seq", "id"};
    struct mn_wire v[4];
    struct mn_id id = {.hi = UINT64_C(0x123e4567e89b12d3), .lo = UINT64_C(0xa456426614174000), .kind = MN_ID_UUID};
    mn_reply_begin(&reply, (struct mn_str){"\x92\x01\x02", 3}, 2);
    mn_reply_uint(&reply, "seq", 77);
    mn_reply_key(&reply, "id");
    mn_reply_pack_id(&reply, &id);
    assert_int_equal(mn_reply_end(&reply, ""), MN_OK);
    read_back(names, 4, v, 4);
    assert_true(v[0].type == MN_WIRE_BOOL && v[0].boolean);
    assert_true(v[1].type == MN_WIRE_ARRAY && v[1].count == 2);
    assert_int_equal(v[2].u64, 77);
    assert_true(mn_wire_is(v[3].s, "123e4567-e89b-12d3-a456-426614174000"));
}

static void an_error(void **state)
{
    static const char *const names[] = {"ok", "code", "error", "retry", "rid"};
    struct mn_wire v[5];
    mn_reply_error(&reply, (struct mn_str){0}, MN_BUSY, "quotes \xff\xfe and all");
    read_back(names, 5, v, 4);
    assert_true(v[0].type == MN_WIRE_BOOL && !v[0].boolean);
    assert_true(mn_wire_is(v[1].s, "busy"));
    assert_true(mn_wire_is(v[2].s, "quotes ?? and all"));
    assert_true(v[3].boolean);
    assert_int_equal(v[4].type, MN_WIRE_ABSENT);
    mn_reply_error(&reply, (struct mn_str){"\x05", 1}, MN_SYSTEM, "");
    read_back(names, 5, v, 5);
    assert_true(mn_wire_is(v[1].s, "internal"));
    assert_true(v[2].s.length > 0 && v[4].u64 == 5);
    mn_reply_error(&reply, (struct mn_str){0}, MN_NOT_READY, "x");
    read_back(names, 5, v, 4);
    assert_true(mn_wire_is(v[1].s, "unavailable"));
}

static void too_large(void **state)
{
    static char block[1 << 20];
    mn_reply_begin(&reply, (struct mn_str){0}, 20);
    for (int i = 0; i < 15; i++)
        mn_reply_pack_bin(&reply, block, sizeof block);
    assert_int_equal(mn_reply_end(&reply, "less"), MN_OK);
    mn_reply_pack_bin(&reply, block, sizeof block);
    assert_true(mn_reply_over(&reply));
    assert_int_equal(mn_reply_end(&reply, "ask for less"), MN_TOO_LARGE);
    assert_non_null(strstr(mn_error_text(), "ask for less"));
    mn_reply_begin(&reply, (struct mn_str){0}, 0);
    assert_false(mn_reply_over(&reply));
    assert_true(reply.room <= 1 << 20);
}

static void taken(void **state)
{
    size_t bytes;
    mn_reply_begin(&reply, (struct mn_str){0}, 0);
    char *data = mn_reply_take(&reply, &bytes);
    assert_true(bytes > 0 && data && !reply.data && reply.bytes == 0);
    free(data);
    mn_reply_begin(&reply, (struct mn_str){0}, 0);
    assert_int_equal(reply.bytes, bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_reply), cmocka_unit_test(an_error),
                                       cmocka_unit_test(too_large), cmocka_unit_test(taken)};
    mn_reply_init(&reply);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mn_reply_free(&reply);
    return failed;
}
