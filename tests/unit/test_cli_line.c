/*
 * test_cli_line.c - JSON Lines: a line to a memory, what is wrong with a bad one, and JSON to MessagePack and back.
 */
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum mn_status pack(const char *line, const float *vector, struct mn_cli_line *facts, msgpack_sbuffer *out)
{
    msgpack_sbuffer_init(out);
    return mn_cli_line_pack(line, line ? strlen(line) : 0, 2, vector, facts, out);
}

/* The value under a key in the packed memory. */
static msgpack_object find(const msgpack_unpacked *memory, const char *key)
{
    assert_int_equal(memory->data.type, MSGPACK_OBJECT_MAP);
    for (uint32_t i = 0; i < memory->data.via.map.size; i++) {
        const msgpack_object *k = &memory->data.via.map.ptr[i].key;
        if (k->via.str.size == strlen(key) && memcmp(k->via.str.ptr, key, k->via.str.size) == 0)
            return memory->data.via.map.ptr[i].val;
    }
    fail_msg("the memory has no `%s`", key);
    return (msgpack_object){0};
}

static void unpack(msgpack_unpacked *memory, const msgpack_sbuffer *bytes)
{
    size_t at = 0;
    msgpack_unpacked_init(memory);
    assert_int_equal(msgpack_unpack_next(memory, bytes->data, bytes->size, &at), MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(at, bytes->size);
}

static void a_whole_line(void **state)
{
    static const char line[] =
        "{\"id\": 7, \"space\": \"s\", \"embedding\": [1, -0.5], \"content\": {\"$base64\": \"AAH/\"}, \"tags\": "
        "[\"a\"],"
        " \"meta\": {\"n\": 1}, \"at\": \"1970-01-01T00:00:01Z\", \"expires\": 5, \"confidence\": 0.5, \"version\": 3,"
        " \"supersedes\": [1, \"550e8400-e29b-41d4-a716-446655440000\"], \"if_absent\": true}";
    struct mn_cli_line facts;
    msgpack_sbuffer out;
    msgpack_unpacked m;
    static const float expected[] = {1, -0.5f};
    assert_int_equal(pack(line, NULL, &facts, &out), MN_OK);
    assert_true(facts.has_id && facts.id.number == 7);
    assert_string_equal(facts.space, "s");
    unpack(&m, &out);
    assert_int_equal(m.data.via.map.size, 10);
    assert_int_equal(find(&m, "id").via.u64, 7);
    assert_int_equal(find(&m, "embedding").type, MSGPACK_OBJECT_BIN);
    assert_memory_equal(find(&m, "embedding").via.bin.ptr, expected, sizeof expected);
    assert_int_equal(find(&m, "content").type, MSGPACK_OBJECT_BIN);
    assert_memory_equal(find(&m, "content").via.bin.ptr, "\0\1\377", 3);
    assert_int_equal(find(&m, "at").via.u64, 1000000000);
    assert_int_equal(find(&m, "expires").via.u64, 5);
    assert_int_equal(find(&m, "supersedes").via.array.size, 2);
    assert_true(find(&m, "if_absent").via.boolean);
    msgpack_unpacked_destroy(&m);
    msgpack_sbuffer_destroy(&out);
}

static void ids_and_vectors_from_outside(void **state)
{
    static const float vector[] = {3, 4};
    struct mneme_id id = {.uuid = "550e8400-e29b-41d4-a716-446655440000"};
    struct mn_cli_line facts;
    msgpack_sbuffer out;
    msgpack_unpacked m;
    assert_int_equal(pack(NULL, vector, &facts, &out), MN_OK);
    assert_false(facts.has_id);
    mn_cli_line_add_id(&out, 0, &id);
    unpack(&m, &out);
    assert_int_equal(m.data.via.map.size, 2);
    assert_memory_equal(find(&m, "embedding").via.bin.ptr, vector, sizeof vector);
    assert_int_equal(find(&m, "id").via.str.size, 36);
    msgpack_unpacked_destroy(&m);
    msgpack_sbuffer_destroy(&out);
    assert_int_equal(pack("{\"embedding\": {\"$f32\": \"AACAPwAAAMA=\"}}", NULL, &facts, &out), MN_OK);
    unpack(&m, &out);
    static const float coded[] = {1, -2};
    assert_int_equal(m.data.via.map.size, 1);
    assert_memory_equal(find(&m, "embedding").via.bin.ptr, coded, sizeof coded);
    msgpack_unpacked_destroy(&m);
    msgpack_sbuffer_destroy(&out);
}

/* However the array is written, and whatever stands around it, the numbers are the same. */
static void embeddings_in_odd_places(void **state)
{
    static const float expected[] = {1.5f, -2e-3f};
    static const char *const lines[] = {
        "{\"embedding\":[1.5,-2e-3]}",
        " {\"embedding\" : [ 1.5 ,\t-0.002 ] , \"content\" : \"]}\"}",
        "{\"content\": \"\\\"embedding\\\": [3, 4]\", \"embedding\": [1.5E0, -0.2e-2]}",
        "{\"meta\": {\"embedding\": [3, 4], \"s\": \"}\"}, \"tags\": [\"]\", \"{\"], \"embedding\": [15e-1, -2E-3]}",
        "{\"\\u0065mbedding\": [1.5, -0.002]}", /* left to the library */
        "{\"at\": 3, \"embedding\": [1.50, -0.0020], \"confidence\": 0.5}",
    };
    for (size_t i = 0; i < MN_ARRAY_LEN(lines); i++) {
        struct mn_cli_line facts;
        msgpack_sbuffer out;
        msgpack_unpacked m;
        if (pack(lines[i], NULL, &facts, &out) != MN_OK)
            fail_msg("%s: %s", lines[i], mn_error_text());
        unpack(&m, &out);
        assert_memory_equal(find(&m, "embedding").via.bin.ptr, expected, sizeof expected);
        msgpack_unpacked_destroy(&m);
        msgpack_sbuffer_destroy(&out);
    }
}

static void bad_lines_say_why(void **state)
{
    static const float vector[] = {3, 4};
    static const struct {
        const char *line, *why;
        bool with_vector;
    } bad[] = {
        {"{\"embedding\": [1]}", "has 1 numbers", false},
        {"{\"embedding\": [1, \"x\"]}", "element 1", false},
        {"{\"embedding\": [1, 0x2]}", "not JSON", false},
        {"{\"embedding\": [1, 2}", "not JSON", false},
        {"{\"embedding\": [1, 2], \"embedding\": [1, 2]}", "duplicate", false},
        {"{\"embedding\": [1, 2, 3]}", "has 3 numbers", false},
        {"{\"embedding\": [1, 2] \"tags\": []}", "not JSON", false},
        {"{\"embedding\": [1, 1e39]}", "too large", false},
        {"{\"embedding\": {\"$f32\": \"AACAPw==\"}}", "has 1 numbers", false},
        {"{\"content\": \"x\"}", "no `embedding`", false},
        {"{\"embedding\": [1, 2]}", "file of vectors", true},
        {"{\"contnet\": \"x\"}", "no `contnet`", true},
        {"{\"id\": -1}", "an id is", true},
        {"{\"id\": \"7\"}", "an id is", true},
        {"{\"tags\": [1]}", "array of strings", true},
        {"{\"meta\": []}", "wrong type", true},
        {"{\"content\": 7}", "must be a string", true},
        {"{\"content\": {\"$base64\": \"!\"}}", "not base64", true},
        {"{\"at\": 1.5}", "`at` is", true},
        {"{\"confidence\": \"1\"}", "wrong type", true},
        {"{\"space\": \"\"}", "`space` is", true},
        {"{\"at\": 1, \"at\": 2}", "duplicate", true},
        {"[]", "object", true},
        {"{", "not JSON", true},
    };
    for (size_t i = 0; i < MN_ARRAY_LEN(bad); i++) {
        struct mn_cli_line facts;
        msgpack_sbuffer out;
        enum mn_status status = pack(bad[i].line, bad[i].with_vector ? vector : NULL, &facts, &out);
        if (status == MN_OK || !strstr(mn_error_text(), bad[i].why))
            fail_msg("%s: expected \"%s\" in \"%s\"", bad[i].line, bad[i].why, mn_error_text());
        assert_int_equal(out.size, 0);
        msgpack_sbuffer_destroy(&out);
    }
}

/* ---- JSON to MessagePack: what JSON cannot say is marked ---- */

static void assert_packs_to(const char *json, const char *bytes, size_t size)
{
    void *packed;
    size_t packed_size;
    if (mn_cli_json_parse_packed(json, "the test's JSON", &packed, &packed_size) != MN_OK)
        fail_msg("%s: %s", json, mn_error_text());
    assert_int_equal(packed_size, size);
    assert_memory_equal(packed, bytes, size);
}

#define PACKS(json, bytes) assert_packs_to(json, bytes, sizeof bytes - 1)

static void marks(void **state)
{
    PACKS("{\"$base64\": \"AAH/\"}", "\xc4\x03\x00\x01\xff");
    PACKS("{\"$text64\": \"/w==\"}", "\xa1\xff");
    PACKS("{\"$number\": \"18446744073709551615\"}", "\xcf\xff\xff\xff\xff\xff\xff\xff\xff");
    PACKS("{\"$$base64\": \"AAH/\"}", "\x81\xa7$base64\xa4"
                                      "AAH/");
    PACKS("{\"$$$number\": 1}", "\x81\xa8$$number\x01");
    PACKS("{\"$base64\": \"AAH/\", \"b\": 1}", "\x82\xa7$base64\xa4"
                                               "AAH/\xa1"
                                               "b\x01");
    PACKS("\"a\\u0000b\"", "\xa3"
                           "a\0b");
    PACKS("[1.0, null, false]", "\x93\xcb\x3f\xf0\0\0\0\0\0\0\xc0\xc2");
}

static void broken_marks_and_deep_nests(void **state)
{
    char deep[200];
    void *packed;
    size_t size;
    memset(deep, '[', 80);
    memset(deep + 80, ']', 80);
    deep[160] = 0;
    assert_int_equal(mn_cli_json_parse_packed(deep, "it", &packed, &size), MN_BAD_REQUEST);
    assert_null(packed);
    assert_int_equal(mn_cli_json_parse_packed("{\"$number\": \"seven\"}", "it", &packed, &size), MN_BAD_REQUEST);
    assert_int_equal(mn_cli_json_parse_packed("{\"$base64\": 7}", "it", &packed, &size), MN_BAD_REQUEST);
    assert_int_equal(mn_cli_json_parse_packed("{\"a\": 1, \"a\": 2}", "it", &packed, &size), MN_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_line),
        cmocka_unit_test(ids_and_vectors_from_outside),
        cmocka_unit_test(embeddings_in_odd_places),
        cmocka_unit_test(bad_lines_say_why),
        cmocka_unit_test(marks),
        cmocka_unit_test(broken_marks_and_deep_nests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
