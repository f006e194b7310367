/*
 * test_tail.c - tail chunks: rows that show when they are published, the dictionary, limits, and chunks that are not
 * what they should be; liveness files.
 */
#include "tests/unit/store_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/tail.h"

#define WAL_BYTES 65536u

static struct fixture *with_instance(void)
{
    struct fixture *f = fixture_prepare();
    fixture_open_instance(f);
    return f;
}

static struct mn_tail_row row_of(struct mn_tail *tail, const char *space, uint64_t id)
{
    struct mn_id key = number_id(id);
    struct mn_tail_row row = {.id = key, .born = id, .hash = mn_id_hash(mn_str_hash(text_str(space)), &key)};
    ok(mn_tail_intern(tail, text_str(space), &row.space));
    return row;
}

static uint32_t count_found(const struct mn_part *part, const char *space, uint64_t id)
{
    struct mn_part_find find = {.id = number_id(id), .space = mn_part_lookup(part, text_str(space))};
    uint32_t count = 0, before = MN_NONE;
    find.hash = mn_id_hash(mn_str_hash(text_str(space)), &find.id);
    for (uint32_t row = mn_part_find_first(part, &find); row != MN_NONE; row = mn_part_find_next(part, &find)) {
        assert_true(row < before); /* newest first */
        before = row;
        count++;
    }
    return count;
}

static void rows_show_when_they_are_published(void **state)
{
    struct fixture *f = with_instance();
    struct mn_tail tail, seen;
    struct mn_part part;
    uint32_t row;
    ok(mn_tail_create(&tail, &f->instance, FIXTURE_DIM, WAL_BYTES, 3, 9));
    ok(mn_tail_map(&seen, &f->instance, 3, 9, false));
    for (uint64_t id = 0; id < 100; id++) {
        struct mn_tail_row values = row_of(&tail, id % 2 ? "odd" : "even", id % 10);
        ok(mn_tail_fill(&tail, &values, NULL, 0, &row));
        assert_int_equal(row, id);
        if (id % 7 == 0)
            mn_tail_publish(&tail, tail.filled, id);
        mn_tail_part(&seen, NULL, 0, FIXTURE_DIM, &part);
        assert_int_equal(part.rows, id / 7 * 7 + 1);
    }
    assert_int_equal(atomic_load(&seen.header->last_seq), 98);
    for (uint64_t id = 0; id < 10; id++) {
        assert_int_equal(count_found(&part, id % 2 ? "odd" : "even", id),
                         id < 9 ? 10 : 9); /* row 99 is not published */
        assert_int_equal(count_found(&part, id % 2 ? "even" : "odd", id), 0);
        assert_int_equal(count_found(&part, "neither", id), 0);
    }
    mn_tail_unmap(&seen);
    mn_tail_unmap(&tail);
    fixture_free(f);
}

/* As long as all rows lie in one space the chunk says in which: also those that are filled and not published. */
static void the_only_space_is_told(void **state)
{
    static const char *const spaces[] = {"one", "one", "two", "one"};
    struct fixture *f = with_instance();
    struct mn_tail tail;
    struct mn_part part;
    uint32_t row;
    ok(mn_tail_create(&tail, &f->instance, FIXTURE_DIM, WAL_BYTES, 3, 9));
    for (uint32_t i = 0; i < MN_ARRAY_LEN(spaces); i++) {
        struct mn_tail_row values = row_of(&tail, spaces[i], i);
        ok(mn_tail_fill(&tail, &values, NULL, 0, &row));
        mn_tail_part(&tail, NULL, 0, FIXTURE_DIM, &part);
        assert_int_equal(mn_part_only_space(&part), i < 2 ? mn_part_lookup(&part, text_str("one")) : MN_NONE);
    }
    mn_tail_unmap(&tail);
    fixture_free(f);
}

static void strings_are_entered_once(void **state)
{
    struct fixture *f = with_instance();
    struct mn_tail tail;
    struct mn_part part;
    char text[32];
    uint32_t numbers[3000];
    ok(mn_tail_create(&tail, &f->instance, FIXTURE_DIM, WAL_BYTES, 1, 1));
    mn_tail_part(&tail, NULL, 0, FIXTURE_DIM, &part);
    for (int pass = 0; pass < 2; pass++) {
        uint64_t left = mn_tail_arena_left(&tail);
        for (uint32_t i = 0; i < 3000; i++) {
            uint32_t number;
            snprintf(text, sizeof text, "%.*s%u", (int)(i % 9), "xxxxxxxxx", i);
            ok(mn_tail_intern(&tail, text_str(text), &number));
            assert_int_not_equal(number, 0);
            if (pass == 1)
                assert_int_equal(number, numbers[i]);
            numbers[i] = number;
            assert_true(mn_str_equal(mn_part_string(&part, number), text_str(text)));
            assert_int_equal(mn_part_lookup(&part, text_str(text)), number);
        }
        assert_int_equal(mn_tail_arena_left(&tail) == left, pass == 1);
    }
    uint32_t empty;
    ok(mn_tail_intern(&tail, text_str(""), &empty));
    assert_int_equal(mn_part_lookup(&part, text_str("")), empty);
    assert_int_equal(mn_part_lookup(&part, text_str("never")), MN_NONE);
    assert_int_equal(mn_part_string(&part, 0).length, 0);
    assert_int_equal(mn_part_string(&part, UINT32_MAX).length, 0);
    mn_tail_unmap(&tail);
    fixture_free(f);
}

static void a_full_chunk_says_so(void **state)
{
    struct fixture *f = with_instance();
    struct mn_tail tail;
    uint32_t row, number, tags[1] = {0};
    ok(mn_tail_create(&tail, &f->instance, FIXTURE_DIM, WAL_BYTES, 1, 1));
    struct mn_tail_row values = row_of(&tail, "s", 1);
    for (uint32_t i = 0; i < tail.header->rows_max; i++)
        ok(mn_tail_fill(&tail, &values, NULL, 0, &row));
    fails(MN_TOO_LARGE, mn_tail_fill(&tail, &values, NULL, 0, &row));
    tail.arena_used = tail.header->arena_max - 24;
    ok(mn_tail_intern(&tail, text_str("12345678"), &number));
    assert_int_equal(mn_tail_arena_left(&tail), 0);
    fails(MN_TOO_LARGE, mn_tail_intern(&tail, text_str("x"), &number));
    tail.filled--;
    fails(MN_TOO_LARGE, mn_tail_fill(&tail, &values, tags, 1, &row));
    ok(mn_tail_intern(&tail, text_str("12345678"), &number)); /* what is there needs no room */
    mn_tail_unmap(&tail);
    fixture_free(f);
}

/* A record whose lengths lie, as only damage that passes a checksum could make it. */
static void a_record_that_lies_is_refused(void **state)
{
    struct fixture *f = with_instance();
    struct mn_tail tail;
    uint32_t row;
    uint64_t memory[100] = {0};
    struct mn_record *r = (struct mn_record *)(void *)memory;
    ok(mn_tail_create(&tail, &f->instance, FIXTURE_DIM, WAL_BYTES, 1, 1));
    *r = (struct mn_record){.tag_count = MN_TAGS_MAX + 1};
    fails(MN_CORRUPT, mn_tail_add_record(&tail, r, 0, &row));
    *r = (struct mn_record){.tag_count = 2, .tags_bytes = 3};
    fails(MN_CORRUPT, mn_tail_add_record(&tail, r, 0, &row)); /* ends inside the second length */
    ((uint8_t *)(r + 1))[0] = 200;
    *r = (struct mn_record){.tag_count = 1, .tags_bytes = 100};
    fails(MN_CORRUPT, mn_tail_add_record(&tail, r, 0, &row)); /* longer than the tags */
    *r = (struct mn_record){.tag_count = 0};
    ok(mn_tail_add_record(&tail, r, 0, &row));
    mn_tail_unmap(&tail);
    fixture_free(f);
}

/* Every word of the header in turn. */
static void a_chunk_that_is_laid_out_otherwise_is_refused(void **state)
{
    struct fixture *f = with_instance();
    struct mn_tail tail, seen;
    ok(mn_tail_create(&tail, &f->instance, FIXTURE_DIM, WAL_BYTES, 4, 2));
    fails(MN_SYSTEM, mn_tail_create(&seen, &f->instance, FIXTURE_DIM, WAL_BYTES, 4, 2)); /* never reused in place */
    fails(MN_NOT_FOUND, mn_tail_map(&seen, &f->instance, 4, 3, false));
    fails(MN_NOT_FOUND, mn_tail_map(&seen, &f->instance, 5, 2, false));
    uint64_t *words = (uint64_t *)(void *)tail.header;
    for (size_t word = 128 / 8; word < 184 / 8; word++) {
        uint64_t old = words[word];
        words[word] = UINT64_MAX / 3;
        fails(MN_CORRUPT, mn_tail_map(&seen, &f->instance, 4, 2, false));
        assert_null(seen.segment.base);
        words[word] = old;
    }
    ok(mn_tail_map(&seen, &f->instance, 4, 2, false));
    mn_tail_unmap(&seen);
    mn_tail_unmap(&tail);
    fixture_free(f);
}

static void liveness_files(void **state)
{
    struct fixture *f = with_instance();
    struct mn_segment made = {0}, seen = {0};
    uint64_t died[5] = {MN_ALIVE, mn_died_make(3, false), mn_died_make(4, true), MN_ALIVE, 0};
    ok(mn_live_create(&made, &f->instance, 2, 7, 5, died));
    ok(mn_live_map(&seen, &f->instance, 2, 7, 5, false));
    const struct mn_live *live = seen.base;
    for (int i = 0; i < 5; i++)
        assert_true(atomic_load(&live->died[i]) == died[i]);
    assert_int_equal(atomic_load(&live->dead), 3);
    mn_segment_unmap(&seen);
    fails(MN_CORRUPT, mn_live_map(&seen, &f->instance, 2, 7, 4, false));
    fails(MN_CORRUPT, mn_live_map(&seen, &f->instance, 2, 7, 6, false));
    fails(MN_NOT_FOUND, mn_live_map(&seen, &f->instance, 2, 8, 5, false));
    struct mn_live *mine = made.base;
    mine->segment = 8;
    fails(MN_CORRUPT, mn_live_map(&seen, &f->instance, 2, 7, 5, false));
    mn_segment_unmap(&made);
    ok(mn_live_create(&made, &f->instance, 3, 7, 5, NULL));
    assert_true(atomic_load(&((struct mn_live *)made.base)->died[4]) == MN_ALIVE);
    assert_int_equal(atomic_load(&((struct mn_live *)made.base)->dead), 0);
    mn_segment_unmap(&made);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_show_when_they_are_published),
        cmocka_unit_test(the_only_space_is_told),
        cmocka_unit_test(strings_are_entered_once),
        cmocka_unit_test(a_full_chunk_says_so),
        cmocka_unit_test(a_record_that_lies_is_refused),
        cmocka_unit_test(a_chunk_that_is_laid_out_otherwise_is_refused),
        cmocka_unit_test(liveness_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
