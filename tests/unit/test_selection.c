/*
 * test_selection.c - engine/selection: what it says of each row is what the matcher says, for random scopes over random
 * parts, small and large; and each kind of selection comes where it should.
 */
#include "engine/selection.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/meta.h"
#include "tests/unit/fake_world.h"

static uint32_t kinds[MN_SELECTION_TEST + 1];

/* What a selection says of a row. */
static bool selected(const struct mn_selection *s, const struct mn_matcher *m, uint32_t row, uint32_t *at)
{
    if (row < s->first || row >= s->end)
        return false;
    switch (s->kind) {
    case MN_SELECTION_NONE:
        return false;
    case MN_SELECTION_ALL:
        return true;
    case MN_SELECTION_LIST:
        while (*at < s->count && s->rows[*at] < row)
            ++*at;
        return *at < s->count && s->rows[*at] == row;
    case MN_SELECTION_BITS:
        return s->bits[row / 64] >> (row % 64) & 1;
    default:
        return mn_matcher_row(m, row);
    }
}

/* Rows that the selection says match. What a list or a set holds outside the range is an error. */
static uint32_t expect_shape(const struct mn_selection *s, const struct mn_part *p)
{
    uint32_t count = 0;
    if (s->kind == MN_SELECTION_LIST) {
        assert_in_range(s->count, 1, MN_SELECTION_LIST_MAX);
        for (uint32_t i = 0; i < s->count; i++)
            assert_true(s->rows[i] >= s->first && s->rows[i] < s->end && (i == 0 || s->rows[i] > s->rows[i - 1]));
    }
    for (uint32_t row = 0; s->kind == MN_SELECTION_BITS && row < (p->rows + 63) / 64 * 64; row++) {
        bool in = s->bits[row / 64] >> (row % 64) & 1;
        assert_true(!in || (row >= s->first && row < s->end));
        count += in;
    }
    if (s->kind == MN_SELECTION_BITS)
        assert_int_equal(count, s->count);
    if (s->kind == MN_SELECTION_ALL)
        assert_int_equal(s->count, s->end - s->first);
    return s->count;
}

/* ---- small parts, against the model ---- */

static void compare_with_model(struct fake_world *w, struct mn_selector *selector, struct mn_matcher *m, uint32_t part,
                               const struct mn_snapshot *snapshot, const struct mn_scope *scope)
{
    const struct mn_part *p = &snapshot->parts[part];
    struct mn_selection s;
    uint32_t at = 0;
    bool stands = mn_matcher_part(m, p, 0, p->rows);
    if (stands) {
        assert_int_equal(mn_selector_select(selector, m, &s), MN_OK);
        kinds[s.kind]++;
        expect_shape(&s, p);
    }
    for (uint32_t row = 0; row < p->rows; row++) {
        bool wanted = fake_matches(w, fake_index(w, part, row), scope);
        if (wanted != (stands && selected(&s, m, row, &at)))
            fail_msg("part %u row %u should%s match (kind %d)", part, row, wanted ? "" : " not", (int)s.kind);
    }
}

static void random_scopes_select_as_the_model_says(void **state)
{
    struct mn_selector selector = {0};
    struct mn_matcher m = {0};
    memset(kinds, 0, sizeof kinds);
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct fake_world *w = fake_world_new(seed, MN_METRIC_COSINE, 40 + 60 * (uint32_t)seed, true);
        for (int turn = 0; turn < 300; turn++) {
            struct fake_scope scope;
            struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
            fake_scope_make(w, &scope);
            assert_int_equal(mn_matcher_begin(&m, &scope.scope), MN_OK);
            for (uint32_t part = 0; part < snapshot.part_count; part++)
                compare_with_model(w, &selector, &m, part, &snapshot, &scope.scope);
        }
        fake_world_free(w);
    }
    mn_matcher_free(&m);
    mn_selector_free(&selector);
    assert_true(kinds[MN_SELECTION_NONE] > 100 && kinds[MN_SELECTION_ALL] > 100);
    assert_true(kinds[MN_SELECTION_LIST] > 100 && kinds[MN_SELECTION_TEST] > 100);
}

/* ---- a large part, against the matcher ---- */

#define LARGE_ROWS 150001u

struct large {
    struct fake_memory *memories;
    const struct fake_memory **list;
    uint8_t (*meta)[40];
    struct fake_parts *parts;
    struct mn_part part;
    uint64_t random;
};

static uint32_t below(struct large *l, uint32_t n)
{
    l->random = l->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(l->random >> 33) % n;
}

/* Tag tN is on one row in N, here and there; "old" on the first half in time; spaces likewise. */
static void make_large_row(struct large *l, uint32_t i)
{
    static const float vector[2] = {1, 2};
    static const char *const spread[] = {"t2", "t10", "t100", "t1000"};
    uint32_t one_in = 2;
    struct fake_memory *m = &l->memories[i];
    *m = (struct fake_memory){.space = below(l, 3)    ? "common"
                                       : below(l, 40) ? "some"
                                                      : "rare",
                              .id = fake_id(i / 2 + 1), /* two versions each */
                              .born = i + 1,
                              .died = MN_ALIVE,
                              .at = (int64_t)i * 10,
                              .expires = MN_NEVER,
                              .confidence = (float)below(l, 1001) / 1000,
                              .vector = vector};
    for (uint32_t t = 0; t < MN_ARRAY_LEN(spread); t++, one_in = one_in == 2 ? 10 : one_in * 10) {
        if (below(l, one_in) == 0)
            m->tags[m->tag_count++] = spread[t];
    }
    if (i < LARGE_ROWS / 2)
        m->tags[m->tag_count++] = "old";
    struct mn_meta_writer out = {.data = l->meta[i], .bytes_max = sizeof l->meta[i]};
    mn_meta_map_begin(&out, 1);
    mn_meta_key(&out, fake_str("n"));
    mn_meta_uint(&out, below(l, 1000));
    mn_meta_end(&out);
    m->meta = (struct mn_str){(const char *)out.data, out.bytes};
    l->list[i] = m;
}

static struct large *large_new(void)
{
    struct large *l = calloc(1, sizeof *l);
    l->memories = calloc(LARGE_ROWS, sizeof *l->memories);
    l->list = calloc(LARGE_ROWS, sizeof *l->list);
    l->meta = calloc(LARGE_ROWS, sizeof *l->meta);
    assert_true(l->memories && l->list && l->meta);
    for (uint32_t i = 0; i < LARGE_ROWS; i++)
        make_large_row(l, i);
    l->parts = fake_parts_new(2, MN_METRIC_COSINE);
    fake_parts_columns(l->parts, l->list, LARGE_ROWS);
    l->part = fake_parts_snapshot(l->parts, 1, 0).parts[0];
    return l;
}

static void large_free(struct large *l)
{
    fake_parts_free(l->parts);
    free(l->memories);
    free((void *)l->list);
    free(l->meta);
    free(l);
}

static int setup_large(void **state)
{
    *state = large_new();
    return 0;
}

static int teardown_large(void **state)
{
    large_free(*state);
    return 0;
}

static enum mn_selection_kind compare_with_matcher(struct large *l, struct mn_selector *selector,
                                                   const struct mn_scope *scope, uint32_t *count)
{
    struct mn_matcher m = {0};
    struct mn_selection s = {.kind = MN_SELECTION_NONE};
    uint32_t at = 0, matching = 0;
    assert_int_equal(mn_matcher_begin(&m, scope), MN_OK);
    if (mn_matcher_part(&m, &l->part, 0, UINT32_MAX)) {
        assert_int_equal(mn_selector_select(selector, &m, &s), MN_OK);
        expect_shape(&s, &l->part);
        for (uint32_t row = 0; row < l->part.rows; row++) {
            bool wanted = mn_matcher_row(&m, row);
            if (s.kind != MN_SELECTION_TEST && wanted != selected(&s, &m, row, &at))
                fail_msg("row %u should%s match (kind %d)", row, wanted ? "" : " not", (int)s.kind);
            matching += wanted;
        }
        if (s.kind != MN_SELECTION_TEST)
            assert_int_equal(matching, s.count);
    }
    mn_matcher_free(&m);
    kinds[s.kind]++;
    if (count)
        *count = s.count;
    return s.kind;
}

struct large_scope {
    struct mn_scope scope;
    struct mn_str spaces[2], any[2], all[2], none[2];
    struct mn_id ids[50];
    struct mn_where where;
    struct mn_str value;
    uint8_t value_bytes[16];
};

static void make_large_scope(struct large *l, struct large_scope *out)
{
    static const char *const names[] = {"common", "some", "rare", "nowhere"};
    static const char *const tags[] = {"t2", "t10", "t100", "t1000", "old"};
    struct mn_filter *filter = &out->scope.filter;
    *out = (struct large_scope){.scope = {.all_spaces = below(l, 2) == 0, .after = INT64_MIN}};
    for (uint32_t i = 0; i < 2; i++) {
        out->spaces[i] = fake_str(names[below(l, MN_ARRAY_LEN(names))]);
        out->any[i] = fake_str(tags[below(l, MN_ARRAY_LEN(tags))]);
        out->all[i] = fake_str(tags[below(l, MN_ARRAY_LEN(tags))]);
        out->none[i] = fake_str(tags[below(l, MN_ARRAY_LEN(tags))]);
    }
    out->scope.spaces = out->spaces;
    out->scope.space_count = out->scope.all_spaces ? 0 : 1 + below(l, 2);
    filter->tags_any = out->any;
    filter->tags_all = out->all;
    filter->tags_none = out->none;
    filter->tags_any_count = below(l, 2) * (1 + below(l, 2));
    filter->has_tags_any = filter->tags_any_count > 0;
    filter->tags_all_count = below(l, 2) * (1 + below(l, 2));
    filter->tags_none_count = below(l, 2) * (1 + below(l, 2));
    if (below(l, 2)) {
        out->scope.after = (int64_t)below(l, LARGE_ROWS) * 10;
        out->scope.has_before = true;
        out->scope.before = out->scope.after + (int64_t)below(l, below(l, 2) ? LARGE_ROWS : 300) * 10;
    }
    if (below(l, 3) == 0)
        out->scope.min_confidence = (float)below(l, 1002) / 1000;
    if (below(l, 10) == 0) {
        filter->has_ids = true;
        filter->ids = out->ids;
        filter->id_count = 1 + below(l, MN_ARRAY_LEN(out->ids));
        for (uint32_t i = 0; i < filter->id_count; i++)
            out->ids[i] = fake_id(below(l, LARGE_ROWS));
    }
    if (below(l, 4) == 0) {
        struct mn_meta_writer w = {.data = out->value_bytes, .bytes_max = sizeof out->value_bytes};
        mn_meta_uint(&w, below(l, 1100));
        out->value = (struct mn_str){(const char *)out->value_bytes, w.bytes};
        out->where = (struct mn_where){.key = fake_str("n"),
                                       .op = (enum mn_where_op)below(l, MN_WHERE_EXISTS + 1),
                                       .values = &out->value,
                                       .value_count = 1,
                                       .exists = below(l, 2)};
        filter->where = &out->where;
        filter->where_count = 1;
    }
}

static void large_parts_select_as_the_matcher_says(void **state)
{
    struct large *l = *state;
    struct mn_selector selector = {0};
    memset(kinds, 0, sizeof kinds);
    for (int turn = 0; turn < 400; turn++) {
        struct large_scope scope;
        make_large_scope(l, &scope);
        compare_with_matcher(l, &selector, &scope.scope, NULL);
    }
    mn_selector_free(&selector);
    assert_true(kinds[MN_SELECTION_NONE] > 10 && kinds[MN_SELECTION_LIST] > 10 && kinds[MN_SELECTION_BITS] > 10);
}

static void kinds_come_where_they_should(void **state)
{
    struct large *l = *state;
    struct mn_selector selector = {0};
    struct mn_scope scope = {.all_spaces = true, .after = INT64_MIN};
    struct mn_str tag = fake_str("t10"), space = fake_str("common");
    uint32_t count;
    assert_int_equal(compare_with_matcher(l, &selector, &scope, &count), MN_SELECTION_ALL);
    assert_int_equal(count, LARGE_ROWS);
    scope.after = 100000;
    scope.has_before = true;
    scope.before = 300000;
    assert_int_equal(compare_with_matcher(l, &selector, &scope, &count), MN_SELECTION_ALL);
    assert_int_equal(count, 20000);
    scope.filter.tags_all = &tag;
    scope.filter.tags_all_count = 1;
    assert_int_equal(compare_with_matcher(l, &selector, &scope, &count), MN_SELECTION_LIST);
    scope.after = INT64_MIN;
    scope.has_before = false;
    assert_int_equal(compare_with_matcher(l, &selector, &scope, &count), MN_SELECTION_BITS);
    scope.all_spaces = false;
    scope.spaces = &space;
    scope.space_count = 1;
    assert_int_equal(compare_with_matcher(l, &selector, &scope, &count), MN_SELECTION_BITS);
    tag = fake_str("t1000");
    assert_int_equal(compare_with_matcher(l, &selector, &scope, &count), MN_SELECTION_LIST);
    assert_in_range(count, 50, 200);
    tag = fake_str("t2");
    space = fake_str("nowhere");
    assert_int_equal(compare_with_matcher(l, &selector, &scope, &count), MN_SELECTION_NONE);
    mn_selector_free(&selector);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_scopes_select_as_the_model_says),
        cmocka_unit_test_setup_teardown(large_parts_select_as_the_matcher_says, setup_large, teardown_large),
        cmocka_unit_test_setup_teardown(kinds_come_where_they_should, setup_large, teardown_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
