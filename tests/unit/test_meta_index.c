/*
 * test_meta_index.c - engine/meta_index and engine/meta_order: conditions answered by the index against every row asked
 * for itself, over meta that is as odd as it may be; and damage.
 */
#include "engine/meta_index.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/columns.h"
#include "engine/columns_file.h"
#include "engine/filter.h"
#include "engine/rowset.h"
#include "tests/unit/fake_parts.h"

#define META_BYTES 2048u

static uint64_t state = 1;

static uint32_t below(uint32_t n)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33) % n;
}

/* ---- odd values ---- */

static void put_integer(struct mn_meta_writer *w)
{
    static const int64_t odd[] = {0,
                                  1,
                                  -1,
                                  INT64_MAX,
                                  INT64_MIN,
                                  INT64_C(1) << 53,
                                  (INT64_C(1) << 53) + 1,
                                  (INT64_C(1) << 53) + 2,
                                  -(INT64_C(1) << 53) - 1,
                                  (INT64_C(1) << 62) + 511,
                                  (INT64_C(1) << 62) + 513};
    if (below(8) == 0)
        mn_meta_uint(w, UINT64_MAX - below(3000));
    else if (below(3) == 0)
        mn_meta_int(w, odd[below(MN_ARRAY_LEN(odd))]);
    else
        mn_meta_int(w, (int64_t)below(20) - 10);
}

static void put_float(struct mn_meta_writer *w)
{
    static const double odd[] = {0.0,
                                 -0.0,
                                 NAN,
                                 INFINITY,
                                 -INFINITY,
                                 5e-324,
                                 0x1p53,
                                 0x1p64,
                                 -0x1p63,
                                 0x1p62,
                                 1e300,
                                 0x1p53 + 2.0,
                                 18446744073709549568.0};
    if (below(4) == 0)
        mn_meta_f32(w, (float)below(40) / 2 - 10);
    else if (below(2) == 0)
        mn_meta_f64(w, odd[below(MN_ARRAY_LEN(odd))]);
    else
        mn_meta_f64(w, (double)below(40) / 2 - 10);
}

/* Strings that share beginnings, end in NULs, and are cut. */
static void put_string(struct mn_meta_writer *w)
{
    static const uint32_t lengths[] = {0, 1, 6, 7, 8, 9, 13, 14, 15, 28, 251, 252, 253, 260};
    char bytes[300];
    uint32_t length = lengths[below(below(4) == 0 ? MN_ARRAY_LEN(lengths) : 9)];
    memset(bytes, 'x', sizeof bytes);
    if (length > 0 && below(2) == 0)
        bytes[below(length)] = "\0ay\xff"[below(4)];
    if (length > 0 && below(3) == 0)
        bytes[length - 1] = "\0ay\xff"[below(4)];
    if (below(4) == 0)
        mn_meta_bin(w, (struct mn_str){bytes, length});
    else
        mn_meta_str(w, (struct mn_str){bytes, length});
}

static void put_value(struct mn_meta_writer *w, uint32_t depth);

static void put_map(struct mn_meta_writer *w, uint32_t depth)
{
    static const char *const keys[] = {"a", "b", "c", "a.b", "b.c", "", ".", "a.b.c", "n", "n"};
    uint32_t count = below(5);
    mn_meta_map_begin(w, count);
    for (uint32_t i = 0; i < count; i++) {
        mn_meta_key(w, fake_str(keys[below(MN_ARRAY_LEN(keys))])); /* sometimes one twice */
        put_value(w, depth + 1);
    }
    mn_meta_end(w);
}

static void put_value(struct mn_meta_writer *w, uint32_t depth)
{
    switch (below(depth < 4 ? 12 : 9)) {
    case 0:
        mn_meta_nil(w);
        return;
    case 1:
        mn_meta_bool(w, below(2));
        return;
    case 2:
    case 3:
    case 4:
        put_integer(w);
        return;
    case 5:
    case 6:
        put_float(w);
        return;
    case 7:
    case 8:
        put_string(w);
        return;
    case 9:
        mn_meta_array_begin(w, 1);
        mn_meta_uint(w, below(3));
        mn_meta_end(w);
        return;
    default:
        put_map(w, depth);
    }
}

static struct mn_str make_value(uint8_t *bytes, uint32_t max)
{
    struct mn_meta_writer w = {.data = bytes, .bytes_max = max};
    put_value(&w, 3);
    assert_false(w.failed);
    return (struct mn_str){(const char *)bytes, w.bytes};
}

/* ---- order ---- */

static void the_order_is_that_of_the_filter(void **unused)
{
    uint32_t same = 0, ordered = 0;
    for (int turn = 0; turn < 300000; turn++) {
        uint8_t bytes[2][META_BYTES];
        struct mn_str a = make_value(bytes[0], META_BYTES), b = make_value(bytes[1], META_BYTES), in_a = a, in_b = b;
        struct mn_meta_value x, y;
        assert_true(mn_meta_next(&in_a, &x) && mn_meta_next(&in_b, &y));
        enum mn_meta_class class = mn_meta_class_of(&x);
        if (class != mn_meta_class_of(&y)) {
            assert_false(mn_meta_equal(a, b));
            assert_int_equal(mn_meta_compare(a, b), MN_META_UNORDERED);
            continue;
        }
        int order = mn_meta_order(&x, &y), wanted = mn_meta_compare(a, b);
        if (order == 0 && mn_meta_unsure(&x))
            continue;
        same += order == 0;
        assert_int_equal(order == 0, mn_meta_equal(a, b));
        if (wanted == MN_META_UNORDERED)
            continue;
        ordered++;
        assert_int_equal(order, wanted);
    }
    assert_true(same > 3000 && ordered > 50000);
}

/* ---- segments ---- */

struct segment {
    uint32_t rows;
    struct fake_memory *memories;
    const struct fake_memory **list;
    uint8_t (*meta)[META_BYTES];
    struct fake_parts *parts;
    struct mn_part part;
    const struct mn_meta_index *index;
    uint64_t *bits;
    uint32_t *listed;
};

typedef void (*make_meta_fn)(struct mn_meta_writer *w, uint32_t row);

static struct segment *segment_new(uint32_t rows, make_meta_fn make_meta)
{
    static const float vector[2] = {1, 2};
    struct segment *s = calloc(1, sizeof *s);
    s->rows = rows;
    s->memories = calloc(rows, sizeof *s->memories);
    s->list = calloc(rows, sizeof *s->list);
    s->meta = calloc(rows, sizeof *s->meta);
    s->bits = calloc(mn_rowset_words(rows), sizeof *s->bits);
    s->listed = calloc(8 * (size_t)rows, sizeof *s->listed);
    assert_true(s->memories && s->list && s->meta && s->bits && s->listed);
    for (uint32_t i = 0; i < rows; i++) {
        struct mn_meta_writer w = {.data = s->meta[i], .bytes_max = META_BYTES};
        make_meta(&w, i);
        assert_false(w.failed);
        s->memories[i] = (struct fake_memory){.space = "default",
                                              .id = fake_id(i + 1),
                                              .born = 1,
                                              .died = MN_ALIVE,
                                              .at = i,
                                              .expires = MN_NEVER,
                                              .confidence = (float)below(5) / 4,
                                              .vector = vector,
                                              .meta = {(const char *)w.data, w.bytes}};
        s->list[i] = &s->memories[i];
    }
    s->parts = fake_parts_new(2, MN_METRIC_COSINE);
    fake_parts_columns(s->parts, s->list, rows);
    s->part = fake_parts_snapshot(s->parts, 1, 0).parts[0];
    s->index = mn_columns_meta_index(s->part.columns);
    return s;
}

static void segment_free(struct segment *s)
{
    fake_parts_free(s->parts);
    free(s->memories);
    free((void *)s->list);
    free(s->meta);
    free(s->bits);
    free(s->listed);
    free(s);
}

static void expect_list(struct segment *s, const struct mn_meta_bound *bound)
{
    uint32_t first = below(2) ? 0 : below(s->rows), end = below(2) ? s->rows : below(s->rows + 1);
    uint32_t n = mn_meta_index_list(s->index, bound, first, end, s->listed);
    assert_true(n <= bound->most);
    for (uint32_t i = 0; i < n; i++) {
        assert_true(s->listed[i] >= first && s->listed[i] < end && mn_rowset_has(s->bits, s->listed[i]));
        assert_true(!bound->rising || i == 0 || s->listed[i] > s->listed[i - 1]);
    }
    uint64_t *other = calloc(mn_rowset_words(s->rows), sizeof *other);
    for (uint32_t i = 0; i < n; i++)
        other[s->listed[i] / 64] |= UINT64_C(1) << (s->listed[i] % 64);
    mn_rowset_trim(s->bits, mn_rowset_words(s->rows), first, end);
    assert_memory_equal(other, s->bits, mn_rowset_words(s->rows) * sizeof *other);
    free(other);
}

/* Whether the index answers the condition; if so, as each row does. */
static bool expect_answer(struct segment *s, const struct mn_where *where)
{
    struct mn_meta_bound bound;
    uint64_t matches = 0;
    if (!mn_meta_index_bound(s->index, where, &bound))
        return false;
    memset(s->bits, 0xff, mn_rowset_words(s->rows) * sizeof *s->bits);
    mn_meta_index_set(s->index, &bound, s->bits);
    for (uint32_t row = 0; row < s->rows; row++) {
        bool wanted = mn_where_matches(where, s->memories[row].meta);
        matches += wanted;
        if (mn_rowset_has(s->bits, row) != wanted)
            fail_msg("row %u should%s match %.*s, operator %d", row, wanted ? "" : " not", (int)where->key.length,
                     where->key.data, (int)where->op);
    }
    assert_true(matches <= bound.most);
    assert_int_equal(mn_rowset_count(s->bits, mn_rowset_words(s->rows)), matches);
    if (!bound.negated)
        expect_list(s, &bound);
    return true;
}

struct condition {
    struct mn_where where;
    struct mn_str values[4];
    uint8_t bytes[4][META_BYTES];
};

static void make_condition(struct condition *c, const char *const *keys, uint32_t key_count)
{
    c->where = (struct mn_where){.key = fake_str(keys[below(key_count)]),
                                 .op = (enum mn_where_op)below(MN_WHERE_EXISTS + 1),
                                 .values = c->values,
                                 .exists = below(2)};
    c->where.value_count = c->where.op == MN_WHERE_IN ? below(5) : below(20) > 0;
    for (uint32_t i = 0; i < c->where.value_count; i++) {
        c->values[i] = make_value(c->bytes[i], META_BYTES);
        if (i > 0 && below(4) == 0)
            c->values[i] = c->values[0];
    }
}

/* One row in so many has odd meta; what a wild row is like, it may be. */
static uint32_t odd_one_in;

static void make_odd_meta(struct mn_meta_writer *w, uint32_t row)
{
    if (below(10) == 0)
        return;
    if (below(odd_one_in) == 0) {
        put_map(w, 0);
        return;
    }
    mn_meta_map_begin(w, 3);
    mn_meta_key(w, fake_str("n"));
    put_value(w, 4);
    mn_meta_key(w, fake_str("a"));
    mn_meta_map_begin(w, 1);
    mn_meta_key(w, fake_str("b"));
    put_value(w, 4);
    mn_meta_end(w);
    mn_meta_key(w, fake_str("c"));
    mn_meta_uint(w, 7);
    mn_meta_end(w);
}

static void conditions_hold_as_each_row_says(void **unused)
{
    static const char *const keys[] = {"a", "b", "c", "n", "a.b", "a.b.c", "b.c", "", ".", "a.", "a.b.", "nowhere"};
    static struct condition c;
    uint32_t answered = 0, wild = 0;
    for (uint32_t turn = 0; turn < 30; turn++) {
        odd_one_in = turn % 3 ? 200 : 20000;
        struct segment *s = segment_new(1 + below(turn == 0 ? 1 : 3000), make_odd_meta);
        wild += s->index->wild_count > 0;
        for (int i = 0; i < 150; i++) {
            make_condition(&c, keys, MN_ARRAY_LEN(keys));
            answered += expect_answer(s, &c.where);
        }
        segment_free(s);
    }
    assert_true(answered > 3000 && wild > 5);
}

/* All paths at once: each map is odd, no path twice. */
static void make_tree(struct mn_meta_writer *w, uint32_t row)
{
    mn_meta_map_begin(w, 4);
    mn_meta_key(w, fake_str("a"));
    put_value(w, 1);
    mn_meta_key(w, fake_str("x.y"));
    put_value(w, 4);
    mn_meta_key(w, fake_str(""));
    put_value(w, 4);
    mn_meta_key(w, fake_str("b"));
    mn_meta_map_begin(w, 2);
    mn_meta_key(w, fake_str("c.d"));
    put_value(w, 4);
    mn_meta_key(w, fake_str(""));
    put_value(w, 4);
    mn_meta_end(w);
    mn_meta_end(w);
}

static void paths_are_those_of_the_filter(void **unused)
{
    static const char *const keys[] = {"a", "a.b", "a.c", "a.b.c", "x.y", "x", "", "b.c.d", "b.", "b.c", "a..", "b"};
    static struct condition c;
    uint32_t answered = 0;
    for (int turn = 0; turn < 20; turn++) {
        struct segment *s = segment_new(30, make_tree); /* small: one wild row is too many */
        for (int i = 0; i < 200; i++) {
            make_condition(&c, keys, MN_ARRAY_LEN(keys));
            answered += expect_answer(s, &c.where);
        }
        segment_free(s);
    }
    assert_true(answered > 500);
}

/* ---- long lanes: marks ---- */

static void make_numbers(struct mn_meta_writer *w, uint32_t row)
{
    char word[32];
    mn_meta_map_begin(w, 4);
    mn_meta_key(w, fake_str("wide"));
    mn_meta_uint(w, below(1000000));
    mn_meta_key(w, fake_str("few"));
    mn_meta_uint(w, below(10) ? 1 : below(3));
    mn_meta_key(w, fake_str("word"));
    snprintf(word, sizeof word, "common beginning %u", below(500));
    mn_meta_str(w, fake_str(word));
    mn_meta_key(w, fake_str("same"));
    mn_meta_bool(w, true);
    mn_meta_end(w);
}

static void long_runs_are_sets(void **unused)
{
    static const char *const keys[] = {"wide", "few", "word", "same", "none"};
    struct segment *s = segment_new(40000, make_numbers);
    for (int turn = 0; turn < 400; turn++) {
        uint8_t bytes[3][64];
        struct mn_str values[3];
        char word[32];
        for (int i = 0; i < 3; i++) {
            struct mn_meta_writer w = {.data = bytes[i], .bytes_max = sizeof bytes[i]};
            snprintf(word, sizeof word, "common beginning %u", below(510));
            if (turn % 4 == 2)
                mn_meta_str(&w, fake_str(word));
            else if (turn % 4 == 3)
                mn_meta_bool(&w, below(2));
            else
                mn_meta_f64(&w, turn % 4 ? below(4) : below(1100000));
            values[i] = (struct mn_str){(const char *)bytes[i], w.bytes};
        }
        struct mn_where where = {.key = fake_str(keys[below(20) ? (uint32_t)turn % 4 : below(5)]),
                                 .op = (enum mn_where_op)below(MN_WHERE_EXISTS + 1),
                                 .values = values,
                                 .exists = below(2)};
        where.value_count = where.op == MN_WHERE_IN ? 3 : 1;
        assert_true(expect_answer(s, &where));
    }
    segment_free(s);
}

static void confidence_has_a_lane(void **unused)
{
    struct segment *s = segment_new(5000, make_numbers);
    for (int turn = 0; turn < 30; turn++) {
        struct mn_meta_bound bound;
        float least = turn == 0 ? 1.01f : (float)below(20) / 16;
        assert_true(mn_meta_index_confidence(s->index, least, &bound));
        mn_meta_index_set(s->index, &bound, s->bits);
        uint64_t matches = 0;
        for (uint32_t row = 0; row < s->rows; row++) {
            matches += s->part.confidence[row] >= least;
            assert_int_equal(mn_rowset_has(s->bits, row), s->part.confidence[row] >= least);
        }
        assert_int_equal(bound.most, matches);
        expect_list(s, &bound);
    }
    segment_free(s);
}

/* ---- limits ---- */

static void make_many_paths(struct mn_meta_writer *w, uint32_t row)
{
    char key[16];
    mn_meta_map_begin(w, 20);
    for (uint32_t i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "key %u", i < 2 ? i : 20 * row + i);
        mn_meta_key(w, fake_str(key));
        mn_meta_uint(w, i);
    }
    mn_meta_end(w);
}

static void rare_paths_are_left_out_and_said_to_be(void **unused)
{
    struct segment *s = segment_new(1000, make_many_paths);
    struct mn_where where = {.key = fake_str("key 0"), .op = MN_WHERE_EXISTS, .exists = true};
    assert_int_equal(s->index->lane_count, MN_META_INDEX_LANES);
    assert_false(s->index->complete);
    assert_true(expect_answer(s, &where));
    where.key = fake_str("nowhere");
    assert_false(expect_answer(s, &where));
    segment_free(s);
}

static void make_wild(struct mn_meta_writer *w, uint32_t row)
{
    char key[16];
    uint32_t members = row % 100 == 0 ? MN_META_INDEX_VALUES + 1 : 1;
    mn_meta_map_begin(w, members);
    for (uint32_t i = 0; i < members && row % 100 == 0; i++) {
        snprintf(key, sizeof key, "%u", i);
        mn_meta_key(w, fake_str(key));
        mn_meta_nil(w);
    }
    if (members == 1) {
        mn_meta_key(w, fake_str("0"));
        mn_meta_uint(w, row);
    }
    mn_meta_end(w);
}

static void rows_with_too_many_values_are_asked(void **unused)
{
    struct segment *s = segment_new(1000, make_wild);
    struct mn_where where = {.key = fake_str("0"), .op = MN_WHERE_EXISTS, .exists = true};
    assert_int_equal(s->index->wild_count, 10);
    assert_true(expect_answer(s, &where));
    where.exists = false;
    assert_true(expect_answer(s, &where));
    where.exists = true;
    where.key = fake_str("17");
    assert_true(expect_answer(s, &where));
    segment_free(s);
}

static void long_names_are_not_indexed(void **unused)
{
    char name[MN_META_INDEX_NAME_MAX + 2];
    struct segment *s = segment_new(50, make_numbers);
    struct mn_where where = {.key = {name, MN_META_INDEX_NAME_MAX}, .op = MN_WHERE_EXISTS};
    memset(name, 'k', sizeof name);
    assert_true(expect_answer(s, &where));
    where.key.length++;
    assert_false(expect_answer(s, &where));
    segment_free(s);
}

/* ---- damage ---- */

static void a_file_that_lies_is_refused(void **unused)
{
    struct segment *s = segment_new(2000, make_numbers);
    const struct mn_meta_index *index = s->index;
    const struct mn_meta_lane *lane = &index->lanes[0];
    uint64_t bytes = (uint64_t)((const uint8_t *)(index->lanes + index->lane_count) - index->data) +
                     sizeof(struct mn_meta_index_foot);
    bytes = mn_round_up(bytes, 8);
    uint8_t *copy = aligned_alloc(64, mn_round_up(bytes, 64));
    struct mn_column_header header = {.rows = s->rows};
    struct mn_column_file file = {.header = &header, .data = copy, .data_bytes = bytes};
    struct mn_meta_index opened;
    memcpy(copy, index->data, bytes);
    assert_true(mn_meta_index_open(&opened, s->part.columns, &file));
    assert_int_equal(opened.lane_count, index->lane_count);
    struct mn_meta_lane *mine = (struct mn_meta_lane *)(void *)(copy + ((const uint8_t *)lane - index->data));
    uint32_t refused = 0, words = sizeof *mine / 4;
    for (uint32_t word = 0; word < words; word++) {
        uint32_t *at = (uint32_t *)(void *)mine + word, was = *at;
        *at = 0x7fffffff;
        refused += !mn_meta_index_open(&opened, s->part.columns, &file);
        *at = was;
    }
    assert_true(refused >= words - 2);
    file.data_bytes = 16;
    assert_false(mn_meta_index_open(&opened, s->part.columns, &file));
    free(copy);
    segment_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_is_that_of_the_filter),
        cmocka_unit_test(conditions_hold_as_each_row_says),
        cmocka_unit_test(paths_are_those_of_the_filter),
        cmocka_unit_test(long_runs_are_sets),
        cmocka_unit_test(confidence_has_a_lane),
        cmocka_unit_test(rare_paths_are_left_out_and_said_to_be),
        cmocka_unit_test(rows_with_too_many_values_are_asked),
        cmocka_unit_test(long_names_are_not_indexed),
        cmocka_unit_test(a_file_that_lies_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
