/*
 * test_index.c - the writer's index against a plain array: many ids, deletes that shift, parts that are forwarded with
 * drops, again before the last forward was swept, and growth.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/index.h"

/* ---- parts made of rows in plain memory ---- */

#define STRING_AT 16u /* in the arena; its number is 2 */

struct bare_part {
    struct mn_part part;
    struct mn_tail_header header;
    struct mn_tail_row *rows;
    uint64_t arena[8];
    uint32_t number; /* the index's */
};

static const struct mn_str space = {"sp", 2};
static const struct mn_str other_space = {"xx", 2};

static struct bare_part *part_new(struct mn_index *index, uint32_t rows_max)
{
    struct bare_part *p = calloc(1, sizeof *p);
    struct mn_tail_string *s = (struct mn_tail_string *)(void *)((uint8_t *)p->arena + STRING_AT);
    p->rows = calloc(rows_max + 1, sizeof *p->rows);
    s->length = space.length;
    memcpy(s + 1, space.data, space.length);
    p->header.arena_max = sizeof p->arena;
    p->part =
        (struct mn_part){.tail = true, .chunk = &p->header, .tail_rows = p->rows, .arena = (const uint8_t *)p->arena};
    assert_int_equal(mn_index_part(index, &p->part, &p->number), MN_OK);
    return p;
}

static void part_free(struct bare_part *p)
{
    free(p->rows);
    free(p);
}

static uint32_t add_row(struct bare_part *p, uint64_t id)
{
    uint32_t row = p->part.rows++;
    p->rows[row].id = (struct mn_id){.lo = id};
    p->rows[row].space = STRING_AT / 8;
    return row;
}

/* ---- the model ---- */

#define IDS   4000u
#define PARTS 200u

struct world {
    struct mn_index *index;
    struct bare_part *parts[PARTS];
    uint32_t part_count, first_alive; /* parts below are forwarded */
    struct {
        bool there, suppressed;
        uint32_t part, row;
    } model[IDS];
    uint64_t random, entries;
};

static uint32_t draw(struct world *w, uint32_t below)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->random >> 33) % below;
}

static uint64_t hash_of(uint64_t id)
{
    struct mn_id key = {.lo = id};
    return mn_id_hash(mn_str_hash(space), &key);
}

static void check(struct world *w, uint32_t id)
{
    struct mn_id key = {.lo = id};
    struct mn_place place;
    assert_int_equal(mn_index_find(w->index, space, &key, hash_of(id), &place), w->model[id].there);
    if (w->model[id].there) {
        assert_int_equal(place.part, w->model[id].part);
        assert_int_equal(place.row, w->model[id].row);
        assert_int_equal(place.suppressed, w->model[id].suppressed);
    }
    assert_false(mn_index_find(w->index, other_space, &key, hash_of(id), &place));
    assert_int_equal(mn_index_find_hash(w->index, &key, hash_of(id), &place), w->model[id].there);
    if (w->model[id].there)
        assert_int_equal(place.row, w->model[id].row);
}

static void put(struct world *w, uint32_t id)
{
    struct mn_id key = {.lo = id};
    struct bare_part *p = w->parts[w->part_count - 1];
    struct mn_place place = {p->number, add_row(p, id), draw(w, 5) == 0};
    assert_int_equal(mn_index_put(w->index, space, &key, hash_of(id), place), MN_OK);
    w->model[id].there = true;
    w->model[id].suppressed = place.suppressed;
    w->model[id].part = place.part;
    w->model[id].row = place.row;
}

static void remove_id(struct world *w, uint32_t id)
{
    struct mn_id key = {.lo = id};
    mn_index_remove(w->index, space, &key, hash_of(id));
    w->model[id].there = false;
}

/* Parts [first, last) become one or two new ones; a tenth of the living rows are dropped, dead ones too. */
static void compact(struct world *w, uint32_t first, uint32_t last)
{
    struct bare_part *out[2];
    uint32_t outputs = 1 + draw(w, 2);
    uint32_t numbers[2];
    for (uint32_t o = 0; o < outputs; o++) {
        out[o] = w->parts[w->part_count++] = part_new(w->index, 2 * IDS);
        numbers[o] = out[o]->number;
    }
    for (uint32_t p = first; p < last; p++) {
        struct bare_part *from = w->parts[p];
        bool vanished = from->part.rows == 0 || draw(w, 20) == 0; /* no map at all */
        uint64_t *to = malloc((from->part.rows + 1) * sizeof *to);
        for (uint32_t row = 0; row < from->part.rows; row++) {
            uint64_t id = from->rows[row].id.lo;
            bool alive = w->model[id].there && w->model[id].part == from->number && w->model[id].row == row;
            to[row] = UINT64_MAX;
            if (alive && !vanished && draw(w, 10) != 0) {
                uint32_t o = draw(w, outputs);
                uint32_t new_row = add_row(out[o], id);
                to[row] = (uint64_t)o << 32 | new_row;
                w->model[id].part = numbers[o];
                w->model[id].row = new_row;
            } else if (alive) {
                w->model[id].there = false;
            }
        }
        uint32_t *copy = malloc(sizeof numbers);
        memcpy(copy, numbers, sizeof numbers);
        if (vanished) {
            free(to);
            free(copy);
            mn_index_forward(w->index, from->number, NULL, NULL);
        } else {
            mn_index_forward(w->index, from->number, to, copy);
        }
        memset(from->rows, 0xdd, from->part.rows * sizeof *from->rows); /* nobody may look there again */
    }
    w->first_alive = last;
    w->parts[w->part_count++] = part_new(w->index, 4 * IDS);
}

static uint64_t model_entries(const struct world *w)
{
    uint64_t count = 0;
    for (uint32_t id = 0; id < IDS; id++)
        count += w->model[id].there;
    return count;
}

static void random_lives(void **state)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct world *w = calloc(1, sizeof *w);
        w->random = seed;
        assert_int_equal(mn_index_new(&w->index), MN_OK);
        w->parts[w->part_count++] = part_new(w->index, 4 * IDS);
        for (int round = 0; round < 40; round++) {
            for (int step = 0; step < 2500; step++) {
                uint32_t id = draw(w, IDS), what = draw(w, 10);
                if (what < 5)
                    put(w, id);
                else if (what < 8)
                    remove_id(w, id);
                else
                    check(w, id);
            }
            if (w->part_count + 4 < PARTS)
                compact(w, w->first_alive, w->first_alive + 1 + draw(w, w->part_count - w->first_alive));
            for (uint32_t sweeps = draw(w, 60); sweeps > 0; sweeps--)
                mn_index_sweep(w->index, 1 + draw(w, 64));
        }
        while (mn_index_sweep(w->index, 100) > 0)
            continue;
        assert_int_equal(mn_index_entries(w->index), model_entries(w));
        for (uint32_t id = 0; id < IDS; id++)
            check(w, id);
        assert_int_equal(mn_index_sweep(w->index, 100), 0);
        mn_index_free(w->index);
        for (uint32_t p = 0; p < w->part_count; p++)
            part_free(w->parts[p]);
        free(w);
    }
}

/* With room made ahead for `reserved` of them. */
static void many_ids(uint64_t reserved)
{
    enum { COUNT = 200000 };
    struct mn_index *index;
    struct mn_place place;
    assert_int_equal(mn_index_new(&index), MN_OK);
    assert_int_equal(mn_index_reserve(index, reserved), MN_OK);
    struct bare_part *p = part_new(index, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        mn_index_prefetch(index, hash_of(i + 16));
        assert_int_equal(mn_index_add(index, hash_of(i), (struct mn_place){p->number, add_row(p, i), false}), MN_OK);
        if (i == COUNT / 2)
            assert_int_equal(mn_index_reserve(index, reserved + 1), MN_OK);
    }
    assert_int_equal(mn_index_entries(index), COUNT);
    for (uint32_t i = 0; i < COUNT; i += 2) {
        struct mn_id id = {.lo = i};
        mn_index_remove(index, space, &id, hash_of(i));
        mn_index_remove(index, space, &id, hash_of(i)); /* not there: harmless */
    }
    assert_int_equal(mn_index_entries(index), COUNT / 2);
    for (uint32_t i = 0; i < COUNT + 1000; i++) {
        struct mn_id id = {.lo = i};
        assert_int_equal(mn_index_find(index, space, &id, hash_of(i), &place), i < COUNT && i % 2 == 1);
    }
    mn_index_free(index);
    part_free(p);
}

static void two_hundred_thousand_ids(void **state)
{
    many_ids(0);
    many_ids(1);
    many_ids(50000);
    many_ids(1000000);
}

/* Different ids under one hash, as a collision would make them, beside ids that share its shard and home. */
static void one_hash_for_many_ids(void **state)
{
    struct mn_index *index;
    struct mn_place place;
    assert_int_equal(mn_index_new(&index), MN_OK);
    struct bare_part *p = part_new(index, 100);
    for (uint64_t i = 0; i < 20; i++) {
        struct mn_id id = {.lo = i};
        place = (struct mn_place){p->number, add_row(p, i), false};
        assert_int_equal(mn_index_put(index, space, &id, i % 2 ? UINT64_MAX : UINT64_MAX - 1, place), MN_OK);
    }
    assert_int_equal(mn_index_entries(index), 20);
    for (uint64_t i = 0; i < 20; i += 3) {
        struct mn_id id = {.lo = i};
        mn_index_remove(index, space, &id, i % 2 ? UINT64_MAX : UINT64_MAX - 1);
    }
    for (uint64_t i = 0; i < 20; i++) {
        struct mn_id id = {.lo = i};
        bool there = mn_index_find(index, space, &id, i % 2 ? UINT64_MAX : UINT64_MAX - 1, &place);
        assert_int_equal(there, i % 3 != 0);
        if (there)
            assert_int_equal(place.row, i);
        struct mn_id uuid = {.lo = i, .kind = MN_ID_UUID};
        assert_false(mn_index_find(index, space, &uuid, UINT64_MAX, &place));
    }
    mn_index_free(index);
    part_free(p);
    mn_index_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_lives),
        cmocka_unit_test(two_hundred_thousand_ids),
        cmocka_unit_test(one_hash_for_many_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
