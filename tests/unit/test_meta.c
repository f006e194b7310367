/*
 * test_meta.c - engine/meta: there and back, keys and paths, comparison by exact value, hostile bytes.
 */
#include "engine/meta.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct mn_str str(const char *text)
{
    return (struct mn_str){text, (uint32_t)strlen(text)};
}

/* One-value documents in rotating buffers, so that a test can hold a few at once. */
static struct mn_meta_writer *begin(void)
{
    static uint8_t bytes[8][512];
    static struct mn_meta_writer writers[8];
    static unsigned turn;
    unsigned i = turn++ % 8;
    writers[i] = (struct mn_meta_writer){.data = bytes[i], .bytes_max = sizeof bytes[i]};
    return &writers[i];
}

static struct mn_str done(const struct mn_meta_writer *w)
{
    assert_false(w->failed);
    assert_int_equal(w->depth, 0);
    return (struct mn_str){(const char *)w->data, w->bytes};
}

static struct mn_str of_int(int64_t value)
{
    struct mn_meta_writer *w = begin();
    mn_meta_int(w, value);
    return done(w);
}

static struct mn_str of_uint(uint64_t value)
{
    struct mn_meta_writer *w = begin();
    mn_meta_uint(w, value);
    return done(w);
}

static struct mn_str of_f64(double value)
{
    struct mn_meta_writer *w = begin();
    mn_meta_f64(w, value);
    return done(w);
}

static struct mn_str of_f32(float value)
{
    struct mn_meta_writer *w = begin();
    mn_meta_f32(w, value);
    return done(w);
}

static struct mn_str of_str(const char *text)
{
    struct mn_meta_writer *w = begin();
    mn_meta_str(w, str(text));
    return done(w);
}

static struct mn_str of_bool(bool value)
{
    struct mn_meta_writer *w = begin();
    mn_meta_bool(w, value);
    return done(w);
}

static struct mn_str of_nil(void)
{
    struct mn_meta_writer *w = begin();
    mn_meta_nil(w);
    return done(w);
}

static struct mn_meta_value head(struct mn_str in)
{
    struct mn_meta_value value;
    assert_true(mn_meta_next(&in, &value));
    return value;
}

static void scalars_come_back(void **state)
{
    static const int64_t ints[] = {-1, -2, -64, -65, -128, -129, -32769, INT32_MIN, INT64_MIN + 1, INT64_MIN};
    static const uint64_t uints[] = {0, 1, 127, 128, 16383, 16384, UINT32_MAX, INT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < MN_ARRAY_LEN(ints); i++) {
        struct mn_meta_value v = head(of_int(ints[i]));
        assert_true(v.type == MN_META_INT && v.i64 == ints[i]);
    }
    for (size_t i = 0; i < MN_ARRAY_LEN(uints); i++) {
        struct mn_meta_value v = head(of_uint(uints[i]));
        assert_true(v.type == MN_META_UINT && v.u64 == uints[i]);
    }
    assert_true(head(of_int(5)).type == MN_META_UINT && head(of_int(5)).u64 == 5);
    assert_true(head(of_f64(-0x1.23p-900)).f64 == -0x1.23p-900);
    assert_true(head(of_f32(0.1f)).f64 == (double)0.1f && head(of_f32(0.1f)).type == MN_META_F32);
    assert_true(isnan(head(of_f64(NAN)).f64));
    assert_true(head(of_bool(true)).boolean && !head(of_bool(false)).boolean);
    assert_int_equal(head(of_nil()).type, MN_META_NIL);
    assert_true(mn_str_equal(head(of_str("na\xc3\xafve")).s, str("na\xc3\xafve")));
    assert_int_equal(head(of_str("")).s.length, 0);
}

/* {"tags": [1, nil, "x"], "": {"deep": bin}, "last": true} */
static struct mn_str document(void)
{
    struct mn_meta_writer *w = begin();
    mn_meta_map_begin(w, 3);
    mn_meta_key(w, str("tags"));
    mn_meta_array_begin(w, 3);
    mn_meta_uint(w, 1);
    mn_meta_nil(w);
    mn_meta_str(w, str("x"));
    mn_meta_end(w);
    mn_meta_key(w, str(""));
    mn_meta_map_begin(w, 1);
    mn_meta_key(w, str("deep"));
    mn_meta_bin(w, (struct mn_str){"\0\1\2", 3});
    mn_meta_end(w);
    mn_meta_key(w, str("last"));
    mn_meta_bool(w, true);
    mn_meta_end(w);
    return done(w);
}

static void next(struct mn_str *in, enum mn_meta_type type, struct mn_meta_value *value)
{
    assert_true(mn_meta_next(in, value));
    assert_int_equal(value->type, type);
}

static void key_is(struct mn_str *in, const char *name)
{
    struct mn_str key;
    assert_true(mn_meta_next_key(in, &key));
    assert_true(mn_str_equal(key, str(name)));
}

static void a_document_is_walked_in_order(void **state)
{
    struct mn_str in = document();
    struct mn_meta_value v;
    next(&in, MN_META_MAP, &v);
    assert_int_equal(v.count, 3);
    assert_int_equal(v.s.length, in.length);
    key_is(&in, "tags");
    next(&in, MN_META_ARRAY, &v);
    assert_int_equal(v.count, 3);
    next(&in, MN_META_UINT, &v);
    next(&in, MN_META_NIL, &v);
    next(&in, MN_META_STR, &v);
    key_is(&in, "");
    next(&in, MN_META_MAP, &v);
    key_is(&in, "deep");
    next(&in, MN_META_BIN, &v);
    assert_memory_equal(v.s.data, "\0\1\2", 3);
    key_is(&in, "last");
    next(&in, MN_META_BOOL, &v);
    assert_int_equal(in.length, 0);
    assert_false(mn_meta_next(&in, &v));
}

static void writers_refuse_what_does_not_fit(void **state)
{
    uint8_t bytes[8];
    for (uint32_t max = 0; max < 7; max++) {
        struct mn_meta_writer w = {.data = bytes, .bytes_max = max};
        mn_meta_str(&w, str("12345"));
        assert_true(w.failed && w.bytes <= max);
        mn_meta_nil(&w);
        assert_true(w.failed);
    }
    struct mn_meta_writer fits = {.data = bytes, .bytes_max = 7};
    mn_meta_str(&fits, str("12345"));
    assert_true(!fits.failed && fits.bytes == 7);
    mn_meta_end(&fits);
    assert_true(fits.failed);
}

static void writers_refuse_to_nest_deeper(void **state)
{
    struct mn_meta_writer *w = begin();
    for (int i = 0; i < MN_META_DEPTH_MAX; i++)
        mn_meta_array_begin(w, 1);
    assert_false(w->failed);
    struct mn_meta_writer deeper = *w;
    mn_meta_array_begin(&deeper, 0);
    assert_true(deeper.failed);
    mn_meta_nil(w);
    for (int i = 0; i < MN_META_DEPTH_MAX; i++)
        mn_meta_end(w);
    struct mn_str nested = done(w);
    assert_true(mn_meta_equal(nested, nested));
}

/* {"a": {"b": 1, "b.c": 2}, "a.b": 3, "a.x": {"y": 4}, "n": 5, "m": {"": 6}, "a.b": 7} */
static struct mn_str paths(void)
{
    struct mn_meta_writer *w = begin();
    mn_meta_map_begin(w, 6);
    mn_meta_key(w, str("a"));
    mn_meta_map_begin(w, 2);
    mn_meta_key(w, str("b"));
    mn_meta_int(w, 1);
    mn_meta_key(w, str("b.c"));
    mn_meta_int(w, 2);
    mn_meta_end(w);
    mn_meta_key(w, str("a.b"));
    mn_meta_int(w, 3);
    mn_meta_key(w, str("a.x"));
    mn_meta_map_begin(w, 1);
    mn_meta_key(w, str("y"));
    mn_meta_int(w, 4);
    mn_meta_end(w);
    mn_meta_key(w, str("n"));
    mn_meta_int(w, 5);
    mn_meta_key(w, str("m"));
    mn_meta_map_begin(w, 1);
    mn_meta_key(w, str(""));
    mn_meta_int(w, 6);
    mn_meta_end(w);
    mn_meta_key(w, str("a.b"));
    mn_meta_int(w, 7);
    mn_meta_end(w);
    return done(w);
}

static int64_t number_at(struct mn_str map, const char *key)
{
    struct mn_str found;
    if (!mn_meta_find(map, str(key), &found))
        return -1;
    struct mn_meta_value v = head(found);
    return v.type == MN_META_UINT ? (int64_t)v.u64 : 100 + (int64_t)v.type;
}

static void keys_are_literal_first_then_paths(void **state)
{
    struct mn_str map = paths();
    assert_int_equal(number_at(map, "a.b"), 3);
    assert_int_equal(number_at(map, "a.b.c"), 2);
    assert_int_equal(number_at(map, "n"), 5);
    assert_int_equal(number_at(map, "m."), 6);
    assert_int_equal(number_at(map, "a"), 100 + MN_META_MAP);
    assert_int_equal(number_at(map, "a.x"), 100 + MN_META_MAP);
    assert_int_equal(number_at(map, "a.x.y"), -1); /* the first dot divides: "x.y" is not in a */
    assert_int_equal(number_at(map, "n.o"), -1);
    assert_int_equal(number_at(map, "missing"), -1);
    assert_int_equal(number_at(map, ""), -1);
    assert_int_equal(number_at(map, "."), -1);
    assert_int_equal(number_at(map, ".a"), -1);
    assert_int_equal(number_at(of_int(1), "a"), -1);
    assert_int_equal(number_at((struct mn_str){NULL, 0}, "a"), -1);
}

static void ordered(struct mn_str low, struct mn_str high)
{
    assert_int_equal(mn_meta_compare(low, high), -1);
    assert_int_equal(mn_meta_compare(high, low), 1);
    assert_false(mn_meta_equal(low, high));
    assert_false(mn_meta_equal(high, low));
}

static void same(struct mn_str a, struct mn_str b)
{
    assert_int_equal(mn_meta_compare(a, b), 0);
    assert_int_equal(mn_meta_compare(b, a), 0);
    assert_true(mn_meta_equal(a, b) && mn_meta_equal(b, a));
}

static void unordered(struct mn_str a, struct mn_str b)
{
    assert_int_equal(mn_meta_compare(a, b), MN_META_UNORDERED);
    assert_int_equal(mn_meta_compare(b, a), MN_META_UNORDERED);
}

static void numbers_compare_by_exact_value(void **state)
{
    same(of_int(3), of_f64(3));
    same(of_f32(0.5f), of_f64(0.5));
    same(of_f64(-0.0), of_int(0));
    ordered(of_f64(0.1), of_f32(0.1f));
    same(of_uint(UINT64_C(1) << 53), of_f64(0x1p53));
    ordered(of_f64(0x1p53), of_uint((UINT64_C(1) << 53) + 1));
    ordered(of_int(-(INT64_C(1) << 53) - 1), of_f64(-0x1p53));
    ordered(of_uint(INT64_MAX), of_f64(0x1p63));
    same(of_uint(UINT64_C(1) << 63), of_f64(0x1p63));
    ordered(of_uint(UINT64_MAX), of_f64(0x1p64));
    same(of_int(INT64_MIN), of_f64(-0x1p63));
    ordered(of_f64(-0x1.0000000000001p63), of_int(INT64_MIN));
    ordered(of_int(INT64_MIN), of_uint(UINT64_MAX));
    ordered(of_int(-1), of_uint(0));
    ordered(of_int(-1), of_f64(-0.5));
    ordered(of_f64(-1.5), of_int(-1));
    ordered(of_int(2), of_f64(2.5));
    ordered(of_f64(-INFINITY), of_int(INT64_MIN));
    ordered(of_uint(UINT64_MAX), of_f64(INFINITY));
    unordered(of_f64(NAN), of_int(0));
    unordered(of_f64(NAN), of_f64(NAN));
    assert_false(mn_meta_equal(of_f64(NAN), of_f64(NAN)));
}

static void other_kinds_compare_within_themselves(void **state)
{
    ordered(of_str("a"), of_str("b"));
    ordered(of_str("a"), of_str("aa"));
    ordered(of_str(""), of_str("a"));
    ordered(of_str("z"), of_str("\xc3\xa9"));
    same(of_str("abc"), of_str("abc"));
    unordered(of_str("1"), of_int(1));
    unordered(of_bool(true), of_bool(false));
    unordered(of_nil(), of_nil());
    assert_true(mn_meta_equal(of_bool(true), of_bool(true)));
    assert_false(mn_meta_equal(of_bool(true), of_bool(false)));
    assert_false(mn_meta_equal(of_bool(true), of_int(1)));
    assert_true(mn_meta_equal(of_nil(), of_nil()));
    assert_false(mn_meta_equal(of_nil(), of_int(0)));
    struct mn_meta_writer *w = begin();
    mn_meta_bin(w, str("abc"));
    unordered(done(w), of_str("abc"));
    assert_false(mn_meta_equal(done(w), of_str("abc")));
}

/* {"k0": 0, ...} with `count` members from `first` on, and the value of k1 changed. */
static struct mn_str letters(uint32_t count, uint32_t first, int64_t one)
{
    struct mn_meta_writer *w = begin();
    mn_meta_map_begin(w, count);
    for (uint32_t i = 0; i < count; i++) {
        char key[16];
        uint32_t n = (i + first) % count;
        snprintf(key, sizeof key, "k%u", n);
        mn_meta_key(w, str(key));
        if (n == 1)
            mn_meta_int(w, one);
        else
            mn_meta_f64(w, n);
    }
    mn_meta_end(w);
    return done(w);
}

static void maps_are_equal_in_any_order(void **state)
{
    for (uint32_t first = 0; first < 5; first++) {
        assert_true(mn_meta_equal(letters(5, 0, 1), letters(5, first, 1)));
        assert_false(mn_meta_equal(letters(5, 0, 1), letters(5, first, 2)));
    }
    assert_false(mn_meta_equal(letters(5, 0, 1), letters(4, 0, 1)));
    assert_true(mn_meta_equal(letters(0, 0, 1), letters(0, 0, 1)));
    assert_true(mn_meta_equal(document(), document()));
    assert_false(mn_meta_equal(document(), paths()));
    unordered(document(), document());
}

static void a_key_named_twice_does_not_stand_for_two(void **state)
{
    struct mn_str maps[2];
    for (int i = 0; i < 2; i++) {
        struct mn_meta_writer *w = begin();
        mn_meta_map_begin(w, 2);
        mn_meta_key(w, str("x"));
        mn_meta_int(w, 1);
        mn_meta_key(w, str(i == 0 ? "x" : "y"));
        mn_meta_int(w, 1);
        mn_meta_end(w);
        maps[i] = done(w);
    }
    assert_false(mn_meta_equal(maps[0], maps[1]));
    assert_false(mn_meta_equal(maps[1], maps[0]));
    assert_true(mn_meta_equal(maps[0], maps[0]));
}

/* Whatever the bytes, every function returns, and what it finds lies within them. */
static void probe(const uint8_t *bytes, uint32_t length)
{
    static const char *const keys[] = {"a.b.c", "tags", "", "last", "k1"};
    uint8_t *copy = malloc(length > 0 ? length : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, length);
    struct mn_str map = {(const char *)copy, length}, found, in = map;
    for (size_t i = 0; i < MN_ARRAY_LEN(keys); i++) {
        if (mn_meta_find(map, str(keys[i]), &found)) {
            assert_true(found.data >= map.data && found.data + found.length <= map.data + map.length);
            (void)mn_meta_equal(found, map);
            (void)mn_meta_compare(map, found);
        }
    }
    (void)mn_meta_equal(map, map);
    struct mn_meta_value v;
    while (mn_meta_next(&in, &v))
        continue;
    free(copy);
}

static void damaged_bytes_do_no_harm(void **state)
{
    struct mn_str documents[] = {document(), paths(), letters(6, 2, 9)};
    uint32_t random = 1;
    for (int turn = 0; turn < 60000; turn++) {
        uint8_t bytes[512];
        struct mn_str d = documents[turn % 3];
        memcpy(bytes, d.data, d.length);
        uint32_t length = d.length;
        for (uint32_t flips = 0; flips <= (uint32_t)turn % 4; flips++) {
            random = random * 1664525 + 1013904223;
            bytes[(random >> 8) % d.length] = (uint8_t)(random >> 24);
        }
        if (turn % 5 == 0)
            length = (random >> 7) % (d.length + 1);
        probe(bytes, length);
    }
}

/* Arrays in arrays, deeper than a writer makes them: equal to nothing, and no stack runs out. */
static void bytes_that_nest_too_deep_equal_nothing(void **state)
{
    enum { LEVELS = 7000, HEAD = 9 };
    uint8_t *bytes = calloc(LEVELS, HEAD);
    assert_non_null(bytes);
    for (uint32_t i = 0; i < LEVELS; i++) {
        uint8_t *at = bytes + i * HEAD;
        uint32_t rest = (LEVELS - 1 - i) * HEAD, count = i + 1 < LEVELS ? 1 : 0;
        at[0] = MN_META_ARRAY;
        for (int b = 0; b < 4; b++) {
            at[1 + b] = (uint8_t)(count >> (8 * b));
            at[5 + b] = (uint8_t)(rest >> (8 * b));
        }
    }
    struct mn_str deep = {(const char *)bytes, LEVELS * HEAD};
    struct mn_str shallow = {deep.data + (LEVELS - MN_META_DEPTH_MAX) * HEAD, MN_META_DEPTH_MAX * HEAD};
    assert_true(mn_meta_equal(shallow, shallow));
    assert_false(mn_meta_equal(deep, deep));
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_come_back),
        cmocka_unit_test(a_document_is_walked_in_order),
        cmocka_unit_test(writers_refuse_what_does_not_fit),
        cmocka_unit_test(writers_refuse_to_nest_deeper),
        cmocka_unit_test(keys_are_literal_first_then_paths),
        cmocka_unit_test(numbers_compare_by_exact_value),
        cmocka_unit_test(other_kinds_compare_within_themselves),
        cmocka_unit_test(maps_are_equal_in_any_order),
        cmocka_unit_test(a_key_named_twice_does_not_stand_for_two),
        cmocka_unit_test(damaged_bytes_do_no_harm),
        cmocka_unit_test(bytes_that_nest_too_deep_equal_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
