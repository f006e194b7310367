/*
 * test_part.c - engine/part: a tail chunk and a column segment answer the same questions alike, and a damaged chunk
 * leads nowhere.
 */
#include "engine/part.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/fake_world.h"

static void assert_row(const struct fake_world *w, const struct mn_part *p, uint32_t part, uint32_t row)
{
    const struct fake_memory *m = fake_parts_memory(w->parts, part, row);
    struct mn_str meta, content;
    const uint32_t *tags;
    bool bin;
    assert_true(mn_id_equal(mn_part_id(p, row), &m->id));
    assert_true(mn_str_equal(mn_part_string(p, mn_part_space(p, row)), fake_str(m->space)));
    assert_true(mn_part_born(p, row) == m->born && mn_part_died(p, row) == m->died);
    assert_true(mn_part_at(p, row) == m->at && mn_part_expires(p, row) == m->expires);
    assert_true(mn_part_confidence(p, row) == m->confidence);
    assert_memory_equal(mn_part_vector(p, row), m->vector, FAKE_DIM * sizeof(float));
    assert_int_equal(mn_part_meta(p, row, &meta), MN_OK);
    assert_true(mn_str_equal(meta, m->meta));
    assert_int_equal(mn_part_content(p, row, &content, &bin), MN_OK);
    assert_true((content.data == NULL) == (m->content.data == NULL) && mn_str_equal(content, m->content));
    assert_true(!content.data || bin == m->content_bin);
    assert_int_equal(mn_part_tags(p, row, &tags), m->tag_count);
    for (uint32_t i = 0; i < m->tag_count; i++) {
        bool there = false;
        for (uint32_t j = 0; j < m->tag_count; j++)
            there = there || mn_str_equal(mn_part_string(p, tags[j]), fake_str(m->tags[i]));
        assert_true(there);
    }
}

static void every_row_comes_back(void **state)
{
    struct fake_world *w = fake_world_new(41, MN_METRIC_L2, 600, true);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    for (uint32_t part = 0; part < snapshot.part_count; part++) {
        for (uint32_t row = 0; row < snapshot.parts[part].rows; row++)
            assert_row(w, &snapshot.parts[part], part, row);
    }
    fake_world_free(w);
}

static void contents_come_back_with_their_kind(void **state)
{
    static const float vector[1] = {1};
    struct fake_memory memories[4] = {0};
    const struct fake_memory *rows[4];
    for (uint32_t i = 0; i < 4; i++) {
        memories[i] =
            (struct fake_memory){.space = "s", .id = fake_id(i), .born = 1, .died = MN_ALIVE, .vector = vector};
        rows[i] = &memories[i];
    }
    memories[1].content = fake_str("text");
    memories[2].content = (struct mn_str){"\0\1", 2};
    memories[2].content_bin = true;
    memories[3].content = fake_str("");
    struct fake_parts *parts = fake_parts_new(1, MN_METRIC_IP);
    fake_parts_tail(parts, rows, 4);
    fake_parts_columns(parts, rows, 4);
    struct mn_snapshot snapshot = fake_parts_snapshot(parts, 1, 0);
    for (uint32_t part = 0; part < 2; part++) {
        struct mn_str content;
        bool bin;
        for (uint32_t row = 0; row < 4; row++) {
            assert_int_equal(mn_part_content(&snapshot.parts[part], row, &content, &bin), MN_OK);
            assert_int_equal(content.data != NULL, row != 0);
            assert_true(mn_str_equal(content, memories[row].content));
            assert_true(row == 0 || bin == memories[row].content_bin);
        }
    }
    fake_parts_free(parts);
}

/* All versions of an id, and nothing else, whatever the chain holds. */
static void ids_lead_to_all_their_rows(void **state)
{
    struct fake_world *w = fake_world_new(43, MN_METRIC_L2, 900, true);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    for (uint32_t part = 0; part < snapshot.part_count; part++) {
        const struct mn_part *p = &snapshot.parts[part];
        for (uint32_t row = 0; row < p->rows; row++) {
            const struct fake_memory *m = fake_parts_memory(w->parts, part, row);
            struct mn_part_find find = {.id = m->id, .space = mn_part_lookup(p, fake_str(m->space))};
            find.hash = mn_id_hash(mn_str_hash(fake_str(m->space)), &m->id);
            uint32_t want = 0, got = 0, here = 0;
            for (uint32_t i = 0; i < p->rows; i++) {
                const struct fake_memory *other = fake_parts_memory(w->parts, part, i);
                want += mn_id_equal(&other->id, &m->id) && strcmp(other->space, m->space) == 0;
            }
            for (uint32_t i = mn_part_find_first(p, &find); i != MN_NONE; i = mn_part_find_next(p, &find)) {
                here += i == row;
                got++;
            }
            assert_true(got == want && here == 1);
            assert_int_equal(mn_part_find_next(p, &find), MN_NONE);
        }
    }
    fake_world_free(w);
}

static void rows_above_the_snapshot_are_not_found(void **state)
{
    struct fake_world *w = fake_world_new(44, MN_METRIC_L2, 300, false);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    struct mn_part p = snapshot.parts[snapshot.part_count - 1];
    uint32_t rows = p.rows;
    for (p.rows = 0; p.rows < rows; p.rows += 7) {
        for (uint32_t row = 0; row < rows; row += 3) {
            const struct fake_memory *m = fake_parts_memory(w->parts, snapshot.part_count - 1, row);
            struct mn_part_find find = {.id = m->id, .space = mn_part_lookup(&p, fake_str(m->space))};
            find.hash = mn_id_hash(mn_str_hash(fake_str(m->space)), &m->id);
            uint32_t found = 0;
            for (uint32_t i = mn_part_find_first(&p, &find); i != MN_NONE; i = mn_part_find_next(&p, &find))
                found += i < p.rows ? 1 : 1000;
            assert_true(found < 1000 && (row >= p.rows || found > 0));
        }
    }
    fake_world_free(w);
}

static void names_are_looked_up_both_ways(void **state)
{
    struct fake_world *w = fake_world_new(45, MN_METRIC_L2, 300, true);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    for (uint32_t part = 0; part < snapshot.part_count; part++) {
        const struct mn_part *p = &snapshot.parts[part];
        assert_int_equal(mn_part_lookup(p, fake_str("unheard of")), MN_NONE);
        assert_int_equal(mn_part_lookup(p, fake_str("")), MN_NONE);
        assert_int_equal(mn_part_string(p, MN_NONE).length, 0);
        for (uint32_t row = 0; row < p->rows; row++) {
            uint32_t number = mn_part_space(p, row);
            assert_int_equal(mn_part_lookup(p, mn_part_string(p, number)), number);
        }
    }
    fake_world_free(w);
}

/* A chunk of one row whose offsets and links are turned to where nothing is. */
static void a_damaged_chunk_leads_nowhere(void **state)
{
    static const float vector[1] = {1};
    struct fake_memory memory = {.space = "s",
                                 .id = fake_id(1),
                                 .born = 1,
                                 .died = MN_ALIVE,
                                 .vector = vector,
                                 .tags = {"t"},
                                 .tag_count = 1,
                                 .meta = {"x", 1},
                                 .content = {"y", 1}};
    const struct fake_memory *rows[] = {&memory};
    struct fake_parts *parts = fake_parts_new(1, MN_METRIC_IP);
    fake_parts_tail(parts, rows, 1);
    struct mn_part p = fake_parts_snapshot(parts, 1, 0).parts[0];
    struct mn_tail_row row;
    memcpy(&row, p.tail_rows, sizeof row);
    p.tail_rows = &row;
    row.meta_at = row.content_at = row.vector_at = UINT32_MAX - 7;
    row.tags_count = UINT32_MAX;
    struct mn_str out;
    const uint32_t *tags;
    bool bin;
    assert_int_equal(mn_part_meta(&p, 0, &out), MN_CORRUPT);
    assert_int_equal(mn_part_content(&p, 0, &out, &bin), MN_CORRUPT);
    assert_int_equal(mn_part_tags(&p, 0, &tags), 0);
    assert_null(mn_part_vector(&p, 0));
    assert_null(mn_part_string(&p, 0).data);
    assert_null(mn_part_string(&p, UINT32_MAX).data);
    struct mn_part_find find = {.hash = row.hash, .id = fake_id(2), .space = row.space};
    atomic_store(&row.next, 0); /* a link to itself */
    assert_int_equal(mn_part_find_first(&p, &find), MN_NONE);
    fake_parts_free(parts);
}

static void times_are_found_in_order(void **state)
{
    struct fake_world *w = fake_world_new(46, MN_METRIC_L2, 500, true);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    for (uint32_t part = 0; part < snapshot.part_count; part++) {
        const struct mn_part *p = &snapshot.parts[part];
        for (int64_t at = -60; !p->tail && at < 160; at++) {
            uint32_t want = 0;
            while (want < p->rows && p->at[want] < at)
                want++;
            assert_int_equal(mn_part_lower_bound(p, at), want);
        }
    }
    fake_world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_comes_back),          cmocka_unit_test(contents_come_back_with_their_kind),
        cmocka_unit_test(ids_lead_to_all_their_rows),    cmocka_unit_test(rows_above_the_snapshot_are_not_found),
        cmocka_unit_test(names_are_looked_up_both_ways), cmocka_unit_test(a_damaged_chunk_leads_nowhere),
        cmocka_unit_test(times_are_found_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
