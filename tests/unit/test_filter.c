/*
 * test_filter.c - engine/filter: each condition by itself, and thousands of random scopes against the model, over tails
 * and column segments, forwards and backwards, by every source.
 */
#include "engine/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/meta.h"
#include "tests/unit/fake_world.h"

/* ---- one row ---- */

static uint8_t meta_bytes[64];

/* A tail of one memory: space "s", id 7, at 100, confidence 0.5, tags red and green, meta {"n": 3}. */
static struct fake_parts *one_row(void)
{
    static const float vector[2] = {1, 2};
    static struct fake_memory memory;
    static const struct fake_memory *const rows[] = {&memory};
    struct mn_meta_writer w = {.data = meta_bytes, .bytes_max = sizeof meta_bytes};
    mn_meta_map_begin(&w, 1);
    mn_meta_key(&w, fake_str("n"));
    mn_meta_int(&w, 3);
    mn_meta_end(&w);
    memory = (struct fake_memory){.space = "s",
                                  .id = fake_id(7),
                                  .born = 1,
                                  .died = MN_ALIVE,
                                  .at = 100,
                                  .expires = MN_NEVER,
                                  .confidence = 0.5f,
                                  .vector = vector,
                                  .tags = {"red", "green"},
                                  .tag_count = 2,
                                  .meta = {(const char *)meta_bytes, w.bytes}};
    struct fake_parts *parts = fake_parts_new(2, MN_METRIC_COSINE);
    fake_parts_tail(parts, rows, 1);
    return parts;
}

/* What a matcher says of the row, and of its part. */
struct verdict {
    bool matches, open;
};

static struct verdict judge(const struct mn_scope *scope)
{
    struct fake_parts *parts = one_row();
    struct mn_snapshot snapshot = fake_parts_snapshot(parts, 1, 0);
    struct mn_matcher m = {0};
    uint32_t rows[4];
    struct verdict verdict = {false, false};
    assert_int_equal(mn_matcher_begin(&m, scope), MN_OK);
    if (mn_matcher_part(&m, &snapshot.parts[0], 0, UINT32_MAX)) {
        verdict.open = mn_matcher_open(&m);
        verdict.matches = mn_matcher_next(&m, 1, 0, rows, 4) == 1;
    }
    mn_matcher_free(&m);
    fake_parts_free(parts);
    return verdict;
}

static bool row_matches(const struct mn_scope *scope)
{
    return judge(scope).matches;
}

static struct mn_scope everything(void)
{
    return (struct mn_scope){.all_spaces = true, .after = INT64_MIN};
}

static void spaces_and_times_bound(void **state)
{
    struct mn_scope scope = everything();
    assert_true(row_matches(&scope));
    struct mn_str names[] = {fake_str("t"), fake_str("s"), fake_str("s")};
    scope.all_spaces = false;
    scope.spaces = names;
    assert_false(row_matches(&scope));
    scope.space_count = 1;
    assert_false(row_matches(&scope));
    scope.space_count = 3;
    assert_true(row_matches(&scope));
    scope.after = 100;
    assert_true(row_matches(&scope));
    scope.after = 101;
    assert_false(row_matches(&scope));
    scope.after = INT64_MIN;
    scope.has_before = true;
    scope.before = 101;
    assert_true(row_matches(&scope));
    scope.before = 100;
    assert_false(row_matches(&scope));
    scope.before = INT64_MIN;
    assert_false(row_matches(&scope));
    scope.before = INT64_MAX;
    scope.min_confidence = 0.5f;
    assert_true(row_matches(&scope));
    scope.min_confidence = 0.51f;
    assert_false(row_matches(&scope));
}

static bool part_is_open(const struct mn_scope *scope)
{
    return judge(scope).open;
}

static void the_only_space_of_a_tail_leaves_no_row_out(void **state)
{
    struct mn_str names[] = {fake_str("s"), fake_str("red")}; /* red is a tag in that part, and no space */
    struct mn_scope scope = everything();
    assert_true(part_is_open(&scope));
    scope.all_spaces = false;
    scope.spaces = names;
    scope.space_count = 2;
    assert_true(part_is_open(&scope));
    scope.after = 100;
    assert_false(part_is_open(&scope));
    scope.after = INT64_MIN;
    scope.min_confidence = 0.1f;
    assert_false(part_is_open(&scope));
    scope.min_confidence = 0;
    scope.spaces = names + 1;
    scope.space_count = 1;
    assert_false(part_is_open(&scope));
    assert_false(row_matches(&scope));
}

static void tags_and_ids_bound(void **state)
{
    struct mn_str red_blue[] = {fake_str("red"), fake_str("blue")}, blue = fake_str("blue"), green = fake_str("green");
    struct mn_scope any = everything(), all = everything(), none = everything(), ids = everything();
    any.filter.has_tags_any = true;
    assert_false(row_matches(&any));
    any.filter.tags_any = red_blue;
    any.filter.tags_any_count = 2;
    assert_true(row_matches(&any));
    any.filter.tags_any = &blue;
    any.filter.tags_any_count = 1;
    assert_false(row_matches(&any));
    all.filter.tags_all = red_blue;
    all.filter.tags_all_count = 1;
    assert_true(row_matches(&all));
    all.filter.tags_all_count = 2;
    assert_false(row_matches(&all));
    none.filter.tags_none = &blue;
    none.filter.tags_none_count = 1;
    assert_true(row_matches(&none));
    none.filter.tags_none = &green;
    assert_false(row_matches(&none));
    struct mn_id id[] = {fake_id(9), fake_id(7), fake_id(7)};
    ids.filter.has_ids = true;
    assert_false(row_matches(&ids));
    ids.filter.ids = id;
    ids.filter.id_count = 1;
    assert_false(row_matches(&ids));
    ids.filter.id_count = 3;
    assert_true(row_matches(&ids));
}

static bool where_matches(const char *key, enum mn_where_op op, bool exists, uint32_t count, int64_t first,
                          int64_t second)
{
    uint8_t bytes[2][16];
    struct mn_str values[2];
    for (int i = 0; i < 2; i++) {
        struct mn_meta_writer w = {.data = bytes[i], .bytes_max = sizeof bytes[i]};
        mn_meta_int(&w, i == 0 ? first : second);
        values[i] = (struct mn_str){(const char *)bytes[i], w.bytes};
    }
    struct mn_where where = {.key = fake_str(key), .op = op, .values = values, .value_count = count, .exists = exists};
    struct mn_scope scope = everything();
    scope.filter.where = &where;
    scope.filter.where_count = 1;
    return row_matches(&scope);
}

static void meta_conditions_hold_as_the_protocol_says(void **state)
{
    assert_true(where_matches("n", MN_WHERE_EQ, false, 1, 3, 0));
    assert_false(where_matches("n", MN_WHERE_EQ, false, 1, 4, 0));
    assert_false(where_matches("n", MN_WHERE_NE, false, 1, 3, 0));
    assert_true(where_matches("n", MN_WHERE_NE, false, 1, 4, 0));
    assert_true(where_matches("n", MN_WHERE_IN, false, 2, 4, 3));
    assert_false(where_matches("n", MN_WHERE_IN, false, 2, 4, 5));
    assert_false(where_matches("n", MN_WHERE_IN, false, 0, 0, 0));
    assert_true(where_matches("n", MN_WHERE_GT, false, 1, 2, 0));
    assert_false(where_matches("n", MN_WHERE_GT, false, 1, 3, 0));
    assert_true(where_matches("n", MN_WHERE_GTE, false, 1, 3, 0));
    assert_true(where_matches("n", MN_WHERE_LT, false, 1, 4, 0));
    assert_false(where_matches("n", MN_WHERE_LT, false, 1, 3, 0));
    assert_true(where_matches("n", MN_WHERE_LTE, false, 1, 3, 0));
    assert_true(where_matches("n", MN_WHERE_EXISTS, true, 0, 0, 0));
    assert_false(where_matches("n", MN_WHERE_EXISTS, false, 0, 0, 0));
}

static void a_missing_key_matches_only_ne_and_not_exists(void **state)
{
    for (int op = MN_WHERE_EQ; op <= MN_WHERE_LTE; op++)
        assert_int_equal(where_matches("m", (enum mn_where_op)op, false, 1, 3, 0), op == MN_WHERE_NE);
    assert_true(where_matches("m", MN_WHERE_EXISTS, false, 0, 0, 0));
    assert_false(where_matches("m", MN_WHERE_EXISTS, true, 0, 0, 0));
}

/* ---- many rows ---- */

struct seen {
    uint32_t sources[4]; /* how often each was taken */
    uint32_t rows;
};

/* Every row of the part that the model wants comes exactly once, in order if order is promised. */
static void walk_part(struct fake_world *w, struct mn_matcher *m, const struct mn_snapshot *snapshot, uint32_t part,
                      const struct mn_scope *scope, struct seen *seen)
{
    static uint8_t came[FAKE_ROWS_MAX];
    const struct mn_part *p = &snapshot->parts[part];
    uint32_t first = fake_below(w, 3) == 0 ? fake_below(w, p->rows + 1) : 0;
    uint32_t end = fake_below(w, 3) == 0 ? fake_below(w, p->rows + 1) : p->rows;
    uint32_t rows[64], n, max = 1 + fake_below(w, 64), last = MN_NONE;
    memset(came, 0, sizeof came);
    if (mn_matcher_part(m, p, first, end)) {
        seen->sources[m->source]++;
        while ((n = mn_matcher_next(m, snapshot->seq, snapshot->now, rows, max)) > 0) {
            for (uint32_t i = 0; i < n; i++) {
                assert_true(rows[i] < p->rows && came[rows[i]] == 0);
                assert_true(!m->sorted || last == MN_NONE || (m->backwards ? rows[i] < last : rows[i] > last));
                last = rows[i];
                came[last] = 1;
                seen->rows++;
            }
        }
        assert_int_equal(mn_matcher_next(m, snapshot->seq, snapshot->now, rows, max), 0);
    }
    for (uint32_t row = 0; row < p->rows; row++) {
        uint32_t i = fake_index(w, part, row);
        bool wanted =
            row >= first && row < end && fake_visible(w, i, snapshot->seq, snapshot->now) && fake_matches(w, i, scope);
        if (wanted != (came[row] == 1))
            fail_msg("part %u row %u should%s match (source %d)", part, row, wanted ? "" : " not", (int)m->source);
    }
}

static void random_scopes_match_as_the_model_says(bool columns)
{
    struct mn_matcher m = {0};
    struct seen seen = {0};
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct fake_world *w = fake_world_new(seed, MN_METRIC_COSINE, 40 + 60 * (uint32_t)seed, columns);
        for (int turn = 0; turn < 250; turn++) {
            struct fake_scope scope;
            struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq - fake_below(w, 30), w->now);
            fake_scope_make(w, &scope);
            assert_int_equal(mn_matcher_begin(&m, &scope.scope), MN_OK);
            m.backwards = turn % 2 == 0;
            for (uint32_t part = 0; part < snapshot.part_count; part++)
                walk_part(w, &m, &snapshot, part, &scope.scope, &seen);
        }
        fake_world_free(w);
    }
    mn_matcher_free(&m);
    assert_true(seen.rows > 10000);
    assert_true(seen.sources[MN_SOURCE_RANGE] > 100 && seen.sources[MN_SOURCE_IDS] > 100);
    assert_true(!columns || (seen.sources[MN_SOURCE_POSTINGS] > 100 && seen.sources[MN_SOURCE_META] > 100));
}

static void tails_match_as_the_model_says(void **state)
{
    random_scopes_match_as_the_model_says(false);
}

static void columns_match_as_the_model_says(void **state)
{
    random_scopes_match_as_the_model_says(true);
}

static void bounds_of_time_may_be_narrowed_on_the_way(void **state)
{
    struct mn_matcher m = {0};
    struct mn_scope scope = everything();
    struct fake_world *w = fake_world_new(99, MN_METRIC_COSINE, 500, true);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    for (uint32_t part = 0; part < snapshot.part_count; part++) {
        uint32_t rows[16], n, taken = 0;
        assert_int_equal(mn_matcher_begin(&m, &scope), MN_OK);
        if (!mn_matcher_part(&m, &snapshot.parts[part], 0, UINT32_MAX))
            continue;
        while ((n = mn_matcher_next(&m, snapshot.seq, snapshot.now, rows, 16)) > 0) {
            for (uint32_t i = 0; taken > 0 && i < n; i++)
                assert_true(mn_part_at(&snapshot.parts[part], rows[i]) <= 20);
            m.until = 20;
            taken += n;
        }
    }
    mn_matcher_free(&m);
    fake_world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spaces_and_times_bound),
        cmocka_unit_test(the_only_space_of_a_tail_leaves_no_row_out),
        cmocka_unit_test(tags_and_ids_bound),
        cmocka_unit_test(meta_conditions_hold_as_the_protocol_says),
        cmocka_unit_test(a_missing_key_matches_only_ne_and_not_exists),
        cmocka_unit_test(tails_match_as_the_model_says),
        cmocka_unit_test(columns_match_as_the_model_says),
        cmocka_unit_test(bounds_of_time_may_be_narrowed_on_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
