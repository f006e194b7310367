/*
 * test_wire_read.c - actors/wire_read: what the check lets through, single fields, operations, text.
 */
#include "actors/wire_read.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/wire_text.h"

/* Copied to a buffer of just that size, so that a sanitizer sees a read behind the end. */
static enum mn_status check(const void *bytes, size_t size, struct mn_wire *value)
{
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, bytes, size);
    enum mn_status status = mn_wire_check(copy, size, value);
    free(copy);
    return status;
}

static void frames_that_are_none(void **state)
{
    static const struct {
        const char *what, *bytes;
        size_t size;
    } rows[] = {
#define ROW(what, bytes) {what, bytes, sizeof(bytes) - 1}
        ROW("nothing", ""),
        ROW("never used byte", "\xc1"),
        ROW("two objects", "\x80\x80"),
        ROW("a byte behind", "\x01\x00"),
        ROW("str cut", "\xa4pin"),
        ROW("str8 without length", "\xd9"),
        ROW("str16 with half a length", "\xda\x00"),
        ROW("str32 of 2^32-1", "\xdb\xff\xff\xff\xff"),
        ROW("bin32 of 2^32-1", "\xc6\xff\xff\xff\xff"),
        ROW("ext32 of 2^32-1", "\xc9\xff\xff\xff\xff\x01"),
        ROW("ext8 without its type", "\xc7\x00"),
        ROW("fixext16 cut", "\xd8\x01zzz"),
        ROW("array32 of 2^32-1", "\xdd\xff\xff\xff\xff\xc0"),
        ROW("map32 of 2^31", "\xdf\x80\x00\x00\x00\xc0\xc0"),
        ROW("map with a key alone", "\x81\xa1k"),
        ROW("array cut", "\x92\xc0"),
        ROW("uint64 cut", "\xcf\0\0\0\0\0\0\0"),
        ROW("double cut", "\xcb\0\0\0"),
        ROW("never used byte inside", "\x91\xc1"),
        ROW("17 deep", "\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0"),
#undef ROW
    };
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        struct mn_wire value;
        enum mn_status status = check(rows[i].bytes, rows[i].size, &value);
        if (status != MN_BAD_REQUEST)
            fail_msg("%s: %s", rows[i].what, mn_status_word(status));
    }
}

static void frames_that_are_good(void **state)
{
    static const char *const rows[] = {"null",
                                       "true",
                                       "0",
                                       "127",
                                       "128",
                                       "65536",
                                       "4294967296",
                                       "-1",
                                       "-32",
                                       "-33",
                                       "-129",
                                       "-40000",
                                       "-3000000000",
                                       "1.5",
                                       "\"\"",
                                       "\"text\"",
                                       "\"long:31\"",
                                       "\"long:32\"",
                                       "\"long:256\"",
                                       "\"long:65536\"",
                                       "\"blob:0\"",
                                       "\"blob:300\"",
                                       "\"blob:65536\"",
                                       "\"ext:5\"",
                                       "[]",
                                       "{}",
                                       "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]",
                                       "{\"a\": {\"b\": [1, {\"c\": null}]}}",
                                       "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"};
    msgpack_sbuffer buffer;
    msgpack_sbuffer_init(&buffer);
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        struct mn_wire value;
        wire_text_pack(&buffer, rows[i]);
        assert_int_equal(check(buffer.data, buffer.size, &value), MN_OK);
        assert_ptr_equal(mn_wire_skip((const uint8_t *)buffer.data), (const uint8_t *)buffer.data + buffer.size);
        for (size_t cut = 0; cut < buffer.size && cut < 64; cut++)
            assert_int_equal(check(buffer.data, cut, &value), MN_BAD_REQUEST);
    }
    msgpack_sbuffer_destroy(&buffer);
}

static void scalars(void **state)
{
    static const struct {
        const char *bytes;
        enum mn_wire_type type;
        int64_t number;
    } rows[] = {{"\x00", MN_WIRE_UINT, 0},
                {"\x7f", MN_WIRE_UINT, 127},
                {"\xff", MN_WIRE_INT, -1},
                {"\xe0", MN_WIRE_INT, -32},
                {"\xcc\xff", MN_WIRE_UINT, 255},
                {"\xcd\xff\xfe", MN_WIRE_UINT, 0xfffe},
                {"\xce\xff\xff\xff\xff", MN_WIRE_UINT, 0xffffffff},
                {"\xd0\x80", MN_WIRE_INT, -128},
                {"\xd0\x05", MN_WIRE_UINT, 5},
                {"\xd1\x80\x00", MN_WIRE_INT, -32768},
                {"\xd2\xff\xff\xff\xfe", MN_WIRE_INT, -2},
                {"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", MN_WIRE_INT, INT64_MIN},
                {"\xd3\x00\x00\x00\x00\x00\x00\x00\x07", MN_WIRE_UINT, 7}};
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        struct mn_wire value;
        const uint8_t *at = (const uint8_t *)rows[i].bytes;
        mn_wire_next(&at, &value);
        assert_int_equal(value.type, rows[i].type);
        assert_int_equal(value.type == MN_WIRE_INT ? value.i64 : (int64_t)value.u64, rows[i].number);
    }
    struct mn_wire value;
    const uint8_t *at = (const uint8_t *)"\xca\x3f\xc0\x00\x00";
    mn_wire_next(&at, &value);
    assert_true(value.type == MN_WIRE_FLOAT && value.single && value.f64 == 1.5);
    at = (const uint8_t *)"\xcb\xbf\xf8\x00\x00\x00\x00\x00\x00";
    mn_wire_next(&at, &value);
    assert_true(value.type == MN_WIRE_FLOAT && !value.single && value.f64 == -1.5);
}

/* ---- requests */

static msgpack_sbuffer frame;

static enum mn_status open_request(struct mn_request *request, const char *text, unsigned service)
{
    wire_text_pack(&frame, text);
    return mn_wire_open(request, frame.data, frame.size, service);
}

static void requests(void **state)
{
    static const struct {
        const char *text;
        enum mn_status status;
        const char *says;
    } rows[] = {
        {"{\"op\": \"recall\"}", MN_OK, ""},
        {"{\"op\": \"get\", \"deadline_ms\": 7, \"unheard\": [1]}", MN_OK, ""},
        {"{\"op\": \"remember\"}", MN_BAD_OP, "write socket"},
        {"{\"op\": \"info\"}", MN_BAD_OP, "control socket"},
        {"{\"op\": \"seal\"}", MN_BAD_OP, "no operation"},
        {"{\"op\": \"frobnicate\"}", MN_BAD_OP, "recall, get, list, count, spaces"},
        {"{}", MN_BAD_REQUEST, "op is missing"},
        {"{\"op\": 7}", MN_BAD_REQUEST, "op is the integer 7"},
        {"{\"op\": \"\"}", MN_BAD_REQUEST, "op is a string of 0 bytes"},
        {"[]", MN_BAD_REQUEST, "the request is an array"},
        {"{\"op\": \"get\", \"deadline_ms\": -1}", MN_BAD_REQUEST, "deadline_ms is the integer -1"},
        {"{\"op\": \"get\", \"deadline_ms\": 1.5}", MN_BAD_REQUEST, "deadline_ms is the number 1.5"},
        {"{\"op\": \"get\", \"rid\": \"long:70000\"}", MN_TOO_LARGE, "rid has"},
    };
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        struct mn_request request;
        enum mn_status status = open_request(&request, rows[i].text, MN_SERVICE_RECALL);
        if (status != rows[i].status || (status != MN_OK && !strstr(mn_error_text(), rows[i].says)))
            fail_msg("%s: %s, %s", rows[i].text, mn_status_word(status), mn_error_text());
    }
}

static void rids_are_found_even_in_bad_requests(void **state)
{
    struct mn_request request;
    assert_int_equal(open_request(&request, "{\"rid\": [1, \"x\"], \"op\": 1}", MN_SERVICE_RECALL), MN_BAD_REQUEST);
    assert_int_equal(request.rid.length, 4);
    assert_memory_equal(request.rid.data, "\x92\x01\xa1x", 4);
    assert_int_equal(mn_wire_open(&request, "\xc1", 1, MN_SERVICE_RECALL), MN_BAD_REQUEST);
    assert_int_equal(request.rid.length, 0);
}

static void deadlines_never_wrap(void **state)
{
    static const struct {
        bool has;
        uint64_t ms, received_ns, until_ns;
    } rows[] = {
        {false, 0, 5, UINT64_MAX},
        {true, 0, 5, 5},
        {true, 7, 5, 7000005},
        {true, UINT64_MAX, 0, UINT64_MAX},
        {true, UINT64_MAX / 1000000, 0, UINT64_MAX / 1000000 * 1000000},
        {true, UINT64_MAX / 1000000, 999999, UINT64_MAX},
    };
    for (size_t i = 0; i < MN_ARRAY_LEN(rows); i++) {
        struct mn_request request = {.has_deadline = rows[i].has, .deadline_ms = rows[i].ms};
        assert_true(mn_wire_until(&request, rows[i].received_ns) == rows[i].until_ns);
    }
}

static void keys(void **state)
{
    static const char *const names[] = {"a", "b"};
    struct mn_wire map, values[2];
    wire_text_pack(&frame, "{\"a\": 1, \"c\": [1, 2]}");
    assert_int_equal(mn_wire_check(frame.data, frame.size, &map), MN_OK);
    assert_int_equal(mn_wire_fields(&map, "it", names, 2, false, values), MN_OK);
    assert_int_equal(values[0].u64, 1);
    assert_int_equal(values[1].type, MN_WIRE_ABSENT);
    assert_int_equal(mn_wire_fields(&map, "it", names, 2, true, values), MN_BAD_REQUEST);
    assert_string_equal(mn_error_text(), "it has no key \"c\"; it may have a, b");
    assert_int_equal(mn_wire_check("\x82\xa1\x61\x01\xa1\x61\x02", 7, &map), MN_OK);
    assert_int_equal(mn_wire_fields(&map, "it", names, 2, false, values), MN_BAD_REQUEST);
    assert_non_null(strstr(mn_error_text(), "twice"));
    assert_int_equal(mn_wire_check("\x81\x01\x01", 3, &map), MN_OK);
    assert_int_equal(mn_wire_fields(&map, "it", names, 2, false, values), MN_BAD_REQUEST);
}

/* ---- single values */

static struct mn_wire value_of(const char *text)
{
    struct mn_wire value;
    wire_text_pack(&frame, text);
    assert_int_equal(mn_wire_check(frame.data, frame.size, &value), MN_OK);
    return value;
}

static void ids(void **state)
{
    struct mn_id id = {0};
    char text[MN_ID_TEXT_MAX];
    struct mn_wire v = value_of("9223372036854775807");
    assert_int_equal(mn_wire_id(&v, "id", &id), MN_OK);
    assert_int_equal(id.lo, INT64_MAX);
    v = value_of("\"123E4567-e89b-12d3-a456-426614174000\"");
    assert_int_equal(mn_wire_id(&v, "id", &id), MN_OK);
    mn_id_text(&id, text);
    assert_string_equal(text, "123e4567-e89b-12d3-a456-426614174000");
    static const char *const bad[] = {"-1",
                                      "1.0",
                                      "true",
                                      "null",
                                      "\"x\"",
                                      "\"\"",
                                      "[]",
                                      "\"raw:cf8000000000000000\"",
                                      "\"bin:123e4567-e89b-12d3-a456-426614174000\""};
    for (size_t i = 0; i < MN_ARRAY_LEN(bad); i++) {
        v = value_of(bad[i]);
        assert_int_equal(mn_wire_id(&v, "id", &id), MN_BAD_REQUEST);
        assert_non_null(strstr(mn_error_text(), "2^63 - 1"));
    }
}

static void numbers_and_times(void **state)
{
    double number = 0;
    int64_t time = 0;
    struct mn_wire v = value_of("-5");
    assert_int_equal(mn_wire_number(&v, "n", &number), MN_OK);
    assert_true(number == -5);
    v = value_of("\"nan\"");
    assert_int_equal(mn_wire_number(&v, "n", &number), MN_BAD_VALUE);
    v = value_of("\"x\"");
    assert_int_equal(mn_wire_number(&v, "n", &number), MN_BAD_REQUEST);
    v = value_of("\"raw:d38000000000000000\"");
    assert_int_equal(mn_wire_time(&v, "at", &time), MN_OK);
    assert_true(time == INT64_MIN);
    v = value_of("\"raw:cf8000000000000000\"");
    assert_int_equal(mn_wire_time(&v, "at", &time), MN_BAD_REQUEST);
    v = value_of("1.0");
    assert_int_equal(mn_wire_time(&v, "at", &time), MN_BAD_REQUEST);
    v.type = MN_WIRE_ABSENT;
    time = 77;
    assert_int_equal(mn_wire_time(&v, "at", &time), MN_OK);
    assert_int_equal(time, 77);
}

static void text(void **state)
{
    static const char *const good[] = {"",
                                       "plain ascii that is longer than eight",
                                       "\xc3\xbc",
                                       "\xe2\x98\x95",
                                       "\xf0\x9f\x92\xbe",
                                       "\xf4\x8f\xbf\xbf",
                                       "12345678\xc3\xbc"};
    static const char *const bad[] = {
        "\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xc3", "\xe2\x98", "\xff",     "12345678\xc3", "\xc3("};
    for (size_t i = 0; i < MN_ARRAY_LEN(good); i++)
        assert_true(mn_wire_utf8(good[i], strlen(good[i])));
    for (size_t i = 0; i < MN_ARRAY_LEN(bad); i++)
        assert_false(mn_wire_utf8(bad[i], strlen(bad[i])));
    char shown[MN_WIRE_SHOWN_MAX];
    struct mn_str s = {"a\n\xff"
                       "b",
                       4};
    assert_string_equal(mn_wire_shown(s, shown), "a??b");
    struct mn_str longer = {"0123456789012345678901234567890123456789more", 44};
    assert_string_equal(mn_wire_shown(longer, shown), "0123456789012345678901234567890123456789...");
}

static void operations_have_words(void **state)
{
    assert_string_equal(mn_op_word(MN_OP_REMEMBER), "remember");
    assert_string_equal(mn_op_word(MN_OP_COUNT), "count");
    assert_int_equal(mn_op_service(MN_OP_SEAL), MN_SERVICE_WRITER);
    assert_string_equal(mn_op_word(MN_OPS), "?");
}

static void random_bytes(void **state)
{
    srand(1);
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[48];
        size_t size = (size_t)rand() % sizeof bytes;
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)(rand() >> 7);
        uint8_t *copy = malloc(size ? size : 1);
        memcpy(copy, bytes, size);
        struct mn_wire value;
        if (mn_wire_check(copy, size, &value) == MN_OK)
            assert_ptr_equal(mn_wire_skip(copy), copy + size);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(frames_that_are_none),
                                       cmocka_unit_test(frames_that_are_good),
                                       cmocka_unit_test(scalars),
                                       cmocka_unit_test(requests),
                                       cmocka_unit_test(rids_are_found_even_in_bad_requests),
                                       cmocka_unit_test(deadlines_never_wrap),
                                       cmocka_unit_test(keys),
                                       cmocka_unit_test(ids),
                                       cmocka_unit_test(numbers_and_times),
                                       cmocka_unit_test(text),
                                       cmocka_unit_test(operations_have_words),
                                       cmocka_unit_test(random_bytes)};
    msgpack_sbuffer_init(&frame);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    msgpack_sbuffer_destroy(&frame);
    return failed;
}
