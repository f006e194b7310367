/*
 * test_parts.c - what happens to an id, step by step, and the marks that its old version needs; parts that come and go.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/parts.h"
#include "engine/view.h"

#define WAL_BYTES 65536u

struct life {
    struct fixture *f;
    struct mn_parts parts;
    uint32_t number; /* of the chunk */
    uint64_t seq;
    struct mn_id id;
    uint64_t hash;
};

static struct life *life_new(void)
{
    struct life *l = calloc(1, sizeof *l);
    struct mn_tail tail;
    char path[MN_PATH_MAX];
    l->f = fixture_prepare();
    fixture_open_instance(l->f);
    ok(mn_parts_init(&l->parts, &l->f->store, &l->f->instance));
    int fd = open(mn_store_wal_path(&l->f->store, path, 1), O_RDWR | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, WAL_BYTES), 0);
    close(fd);
    ok(mn_tail_create(&tail, &l->f->instance, FIXTURE_DIM, WAL_BYTES, 1, 1));
    ok(mn_parts_add_chunk(&l->parts, &tail, &l->number));
    assert_null(tail.header); /* it was moved */
    l->id = number_id(7);
    l->hash = mn_id_hash(mn_str_hash(text_str("s")), &l->id);
    return l;
}

static void life_free(struct life *l)
{
    mn_parts_free(&l->parts);
    fixture_free(l->f);
    free(l);
}

static uint32_t put(struct life *l, struct mn_mark *mark, bool *marked)
{
    struct mn_own_part *own = l->parts.own[l->number];
    struct mn_tail_row values = {.id = l->id, .hash = l->hash, .born = ++l->seq};
    struct mn_place place = {.part = l->number};
    atomic_init(&values.died, MN_ALIVE);
    ok(mn_tail_intern(&own->tail, text_str("s"), &values.space));
    ok(mn_tail_fill(&own->tail, &values, NULL, 0, &place.row));
    mn_tail_publish(&own->tail, own->tail.filled, l->seq);
    own->part.rows = own->tail.filled;
    ok(mn_parts_put(&l->parts, text_str("s"), &l->id, l->hash, place, l->seq, mark, marked));
    if (*marked)
        mn_parts_mark(&l->parts, mark);
    return place.row;
}

static uint64_t died(struct life *l, uint32_t row)
{
    return mn_part_died(&l->parts.own[l->number]->part, row);
}

static void a_life_of_one_id(void **state)
{
    struct life *l = life_new();
    struct mn_mark mark;
    bool marked;
    uint32_t a = put(l, &mark, &marked);
    assert_false(marked);
    uint32_t b = put(l, &mark, &marked); /* replaced */
    assert_true(marked && mark.row == a && mark.kind == MN_MARK_DEAD && mark.seq == 2);
    assert_true(died(l, a) == mn_died_make(2, false));

    ok(mn_parts_suppress(&l->parts, text_str("s"), &l->id, l->hash, ++l->seq, &mark, &marked));
    assert_true(marked && mark.row == b && mark.kind == MN_MARK_SUPPRESSED);
    mn_parts_mark(&l->parts, &mark);
    assert_true(died(l, b) == mn_died_make(3, true));
    ok(mn_parts_suppress(&l->parts, text_str("s"), &l->id, l->hash, ++l->seq, &mark, &marked));
    assert_false(marked); /* it is already */

    uint32_t c = put(l, &mark, &marked); /* the suppressed one is given up, and keeps the seq it was hidden at */
    assert_true(marked && mark.row == b && mark.kind == MN_MARK_GIVEN_UP);
    assert_true(died(l, b) == mn_died_make(3, false));

    assert_false(mn_parts_remove(&l->parts, text_str("t"), &l->id, l->hash, 9, &mark)); /* another space */
    assert_true(mn_parts_remove(&l->parts, text_str("s"), &l->id, l->hash, ++l->seq, &mark));
    assert_true(mark.row == c && mark.kind == MN_MARK_DEAD);
    mn_parts_mark(&l->parts, &mark);
    assert_false(mn_parts_remove(&l->parts, text_str("s"), &l->id, l->hash, ++l->seq, &mark));
    ok(mn_parts_suppress(&l->parts, text_str("s"), &l->id, l->hash, ++l->seq, &mark, &marked));
    assert_false(marked);
    assert_int_equal(mn_index_entries(l->parts.index), 0);

    uint32_t d = put(l, &mark, &marked);
    assert_false(marked);
    ok(mn_parts_suppress(&l->parts, text_str("s"), &l->id, l->hash, ++l->seq, &mark, &marked));
    mn_parts_mark(&l->parts, &mark);
    assert_true(
        mn_parts_remove(&l->parts, text_str("s"), &l->id, l->hash, ++l->seq, &mark)); /* a delete of a suppressed one */
    assert_true(mark.row == d && mark.kind == MN_MARK_GIVEN_UP);
    mn_parts_mark(&l->parts, &mark);
    assert_false(mn_died_suppressed(died(l, d)));
    life_free(l);
}

/* What is entered from a part that is there: the living and the suppressed. */
static void an_index_is_built_from_liveness(void **state)
{
    struct life *l = life_new();
    struct mn_mark mark;
    struct mn_place place;
    bool marked;
    for (int i = 0; i < 3; i++)
        put(l, &mark, &marked);
    ok(mn_parts_suppress(&l->parts, text_str("s"), &l->id, l->hash, ++l->seq, &mark, &marked));
    mn_parts_mark(&l->parts, &mark);
    mn_index_free(l->parts.index);
    ok(mn_index_new(&l->parts.index));
    uint32_t number;
    ok(mn_index_part(l->parts.index, &l->parts.own[0]->part, &number));
    ok(mn_parts_index(&l->parts, 0));
    assert_int_equal(mn_index_entries(l->parts.index), 1);
    assert_true(mn_index_find(l->parts.index, text_str("s"), &l->id, l->hash, &place));
    assert_true(place.row == 2 && place.suppressed);
    life_free(l);
}

static void parts_come_and_go(void **state)
{
    struct life *l = life_new();
    struct mn_tail tail;
    uint32_t number = 0;
    struct mn_manifest manifest = {.log_seq = 4};
    struct mn_view_list view;
    assert_int_equal(mn_parts_find(&l->parts, true, 1), 0);
    assert_int_equal(mn_parts_find(&l->parts, true, 2), MN_NONE);
    assert_int_equal(mn_parts_find(&l->parts, false, 1), MN_NONE);
    ok(mn_tail_create(&tail, &l->f->instance, FIXTURE_DIM, WAL_BYTES, 1, 2));
    fails(MN_NOT_FOUND, mn_parts_add_chunk(&l->parts, &tail, &number)); /* its log segment is not there */
    assert_int_equal(mn_parts_find(&l->parts, true, 2), MN_NONE);
    fails(MN_NOT_FOUND, mn_parts_add_columns(&l->parts, 5, 10, 1, &number));
    assert_int_equal(mn_parts_find(&l->parts, false, 5), MN_NONE);
    ok(mn_parts_publish(&l->parts, &manifest, 1));
    ok(mn_view_map(&view, &l->f->instance, 1));
    assert_int_equal(view.chunks, 1);
    assert_int_equal(view.chunk[0].wal_number, 1);
    assert_int_equal(view.log_seq, 4);
    mn_view_unmap(&view);
    mn_parts_retire(&l->parts, l->number);
    assert_int_equal(mn_parts_find(&l->parts, true, 1), MN_NONE);
    ok(mn_parts_publish(&l->parts, &manifest, 2));
    ok(mn_view_map(&view, &l->f->instance, 2));
    assert_int_equal(view.chunks, 0);
    mn_view_unmap(&view);
    life_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_life_of_one_id),
        cmocka_unit_test(an_index_is_built_from_liveness),
        cmocka_unit_test(parts_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
