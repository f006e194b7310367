/*
 * test_ledger.c - idem keys and id counters: age, replacement, growth, the file and every flipped bit of it, and
 * folding the log.
 */
#include "tests/unit/store_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/ledger.h"

static struct mn_idem_entry entry_of(uint32_t number, int64_t wall_ns)
{
    struct mn_idem_entry e = {.request_hash = number * 31u, .seq = number, .wall_ns = wall_ns, .count = number % 5};
    e.key_bytes = (uint32_t)snprintf(e.key, sizeof e.key, "key-%u", number);
    return e;
}

static struct mn_str key_of(const struct mn_idem_entry *e)
{
    return (struct mn_str){e->key, e->key_bytes};
}

static void put(struct mn_ledger *ledger, uint32_t number, int64_t wall_ns)
{
    struct mn_idem_entry e = entry_of(number, wall_ns);
    struct mn_id_run runs[3];
    e.run_count = number % 4;
    e.runs = runs;
    for (uint32_t r = 0; r < e.run_count; r++)
        runs[r] = (struct mn_id_run){.first = number + r, .at = r, .count = number % 3};
    ok(mn_ledger_put(ledger, &e));
}

static void check(const struct mn_ledger *ledger, uint32_t number, bool there)
{
    struct mn_idem_entry e = entry_of(number, 0);
    const struct mn_idem_entry *found = mn_ledger_find(ledger, key_of(&e));
    assert_int_equal(found != NULL, there);
    if (!found)
        return;
    assert_int_equal(found->request_hash, e.request_hash);
    assert_int_equal(found->seq, number);
    assert_int_equal(found->count, number % 5);
    assert_int_equal(found->run_count, number % 4);
    for (uint32_t r = 0; r < found->run_count; r++) {
        assert_int_equal(found->runs[r].first, number + r);
        assert_int_equal(found->runs[r].at, r);
        assert_int_equal(found->runs[r].count, number % 3);
    }
}

static void keys_are_found_until_they_expire(void **state)
{
    struct mn_ledger *ledger;
    ok(mn_ledger_new(&ledger));
    assert_null(mn_ledger_find(ledger, text_str("nothing")));
    for (uint32_t i = 0; i < 1000; i++)
        put(ledger, i, (int64_t)i);
    mn_ledger_expire(ledger, 0, 100);
    assert_int_equal(mn_ledger_entries(ledger), 1000);
    mn_ledger_expire(ledger, 500, 100); /* no more than so many at once */
    assert_int_equal(mn_ledger_entries(ledger), 900);
    mn_ledger_expire(ledger, 500, UINT32_MAX);
    assert_int_equal(mn_ledger_entries(ledger), 500);
    for (uint32_t i = 0; i < 1000; i++)
        check(ledger, i, i >= 500);
    mn_ledger_expire(ledger, INT64_MAX, UINT32_MAX);
    assert_int_equal(mn_ledger_entries(ledger), 0);
    mn_ledger_expire(ledger, INT64_MAX, UINT32_MAX);
    put(ledger, 3, 5);
    check(ledger, 3, true);
    mn_ledger_free(ledger);
    mn_ledger_free(NULL);
}

static void the_newer_of_two_answers(void **state)
{
    struct mn_ledger *ledger;
    ok(mn_ledger_new(&ledger));
    struct mn_idem_entry e = entry_of(1, 10);
    ok(mn_ledger_put(ledger, &e));
    for (uint32_t i = 100; i < 5000; i++) /* through growth of ring and table */
        put(ledger, i, 15);
    e.seq = 77;
    e.wall_ns = 20;
    ok(mn_ledger_put(ledger, &e));
    for (uint32_t i = 5000; i < 9000; i++)
        put(ledger, i, 25);
    assert_int_equal(mn_ledger_find(ledger, key_of(&e))->seq, 77);
    mn_ledger_expire(ledger, 11, UINT32_MAX); /* the older goes */
    assert_int_equal(mn_ledger_find(ledger, key_of(&e))->seq, 77);
    mn_ledger_expire(ledger, 21, UINT32_MAX);
    assert_null(mn_ledger_find(ledger, key_of(&e)));
    mn_ledger_free(ledger);
}

/* A window of 20,000 keys slides over 200,000: slots of expired keys must not fill the table. */
static void a_window_slides_over_many_keys(void **state)
{
    struct mn_ledger *ledger;
    ok(mn_ledger_new(&ledger));
    for (uint32_t i = 0; i < 200000; i++) {
        put(ledger, i, i);
        if (i >= 20000)
            mn_ledger_expire(ledger, i - 20000, 2);
        if (i % 1999 == 0) {
            check(ledger, i, true);
            check(ledger, i - i / 3, i < 20000 || i - i / 3 >= i - 20000);
            if (i > 30000)
                check(ledger, i - 25000, false);
        }
    }
    assert_in_range(mn_ledger_entries(ledger), 20000, 20002);
    mn_ledger_free(ledger);
}

static struct mn_str space_name(uint32_t number, char text[32])
{
    int n = snprintf(text, 32, "space %u", number);
    return (struct mn_str){text, (uint32_t)n};
}

static void counters_of_many_spaces_only_grow(void **state)
{
    struct mn_ledger *ledger;
    char text[32];
    ok(mn_ledger_new(&ledger));
    for (uint32_t i = 0; i < 10000; i++) {
        assert_int_equal(mn_ledger_next_id(ledger, space_name(i, text)), 1);
        ok(mn_ledger_raise_id(ledger, space_name(i, text), i));
    }
    for (uint32_t i = 0; i < 10000; i++) {
        ok(mn_ledger_raise_id(ledger, space_name(i, text), i / 2));
        assert_int_equal(mn_ledger_next_id(ledger, space_name(i, text)), i > 1 ? i : 1);
    }
    ok(mn_ledger_raise_id(ledger, space_name(5, text), UINT64_C(1) << 63));
    assert_true(mn_ledger_next_id(ledger, space_name(5, text)) == UINT64_C(1) << 63);
    mn_ledger_free(ledger);
}

/* ---- the file ---- */

static struct mn_ledger *sample(uint32_t keys)
{
    struct mn_ledger *ledger;
    char text[32];
    ok(mn_ledger_new(&ledger));
    for (uint32_t i = 0; i < keys; i++)
        put(ledger, i, (int64_t)i);
    for (uint32_t i = 0; i < keys / 10 + 2; i++)
        ok(mn_ledger_raise_id(ledger, space_name(i, text), i + 7));
    return ledger;
}

static void what_is_saved_is_loaded(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_ledger *ledger = sample(5000), *copy;
    char text[32];
    ok(mn_ledger_save(ledger, &f->store, 42, 1000));
    ok(mn_ledger_new(&copy));
    fails(MN_NOT_FOUND, mn_ledger_load(copy, &f->store, 41));
    ok(mn_ledger_load(copy, &f->store, 42));
    assert_int_equal(mn_ledger_entries(copy), 4000);
    for (uint32_t i = 0; i < 5000; i++)
        check(copy, i, i >= 1000);
    for (uint32_t i = 0; i < 502; i++)
        assert_int_equal(mn_ledger_next_id(copy, space_name(i, text)), i + 7);
    assert_int_equal(mn_ledger_next_id(copy, space_name(502, text)), 1);
    mn_ledger_free(copy);
    mn_ledger_free(ledger);

    ok(mn_ledger_new(&ledger)); /* an empty one */
    ok(mn_ledger_save(ledger, &f->store, 43, INT64_MIN));
    ok(mn_ledger_load(ledger, &f->store, 43));
    assert_int_equal(mn_ledger_entries(ledger), 0);
    mn_ledger_free(ledger);
    fixture_free(f);
}

static void every_flipped_bit_and_every_cut_is_refused(void **state)
{
    struct fixture *f = fixture_prepare();
    struct mn_ledger *ledger = sample(15), *copy;
    char path[MN_PATH_MAX];
    size_t bytes;
    mn_store_path(&f->store, path, "ledger.1");
    ok(mn_ledger_write(ledger, &mn_io_posix, path, INT64_MIN));
    free(fixture_slurp(f, "ledger.1", &bytes));
    for (size_t bit = 0; bit < bytes * 8; bit += 1 + (bit >= 3000)) { /* all of the front, half of the rest */
        fixture_flip(f, "ledger.1", bit / 8, (uint8_t)(1 << bit % 8));
        ok(mn_ledger_new(&copy));
        fails(MN_CORRUPT, mn_ledger_read(copy, &mn_io_posix, path));
        mn_ledger_free(copy);
        fixture_flip(f, "ledger.1", bit / 8, (uint8_t)(1 << bit % 8));
    }
    ok(mn_ledger_new(&copy));
    ok(mn_ledger_read(copy, &mn_io_posix, path));
    mn_ledger_free(copy);
    while (bytes-- > 0) {
        assert_int_equal(truncate(path, (off_t)bytes), 0);
        ok(mn_ledger_new(&copy));
        fails(MN_CORRUPT, mn_ledger_read(copy, &mn_io_posix, path));
        mn_ledger_free(copy);
    }
    mn_ledger_free(ledger);
    fixture_free(f);
}

/* ---- the log ---- */

static void the_log_folds_into_what_the_writer_knew(void **state)
{
    struct fixture *f = fixture_new();
    struct mn_outcome outcome;
    struct mn_ledger *ledger;
    f->now = 1000;
    for (uint32_t i = 0; i < 30; i++) {
        struct mn_memory m[3] = {fixture_memory(0, i, "x"), fixture_memory(1000 + i, i, "y"),
                                 fixture_memory(0, i, "z")};
        struct mn_remember request = {.write = fixture_write(f, i % 2 ? "a" : "b"), .memories = m, .count = 3};
        struct mn_idem_entry e = entry_of(i, 0);
        request.write.idem = key_of(&e);
        request.write.request_hash = e.request_hash;
        enum mn_status status = mn_writer_remember(f->writer, &request, &outcome);
        if (status == MN_NOT_READY) {
            fixture_commit(f);
            status = mn_writer_remember(f->writer, &request, &outcome);
        }
        ok(status);
    }
    fixture_commit(f);
    ok(mn_ledger_new(&ledger));
    ok(mn_ledger_fold(ledger, &f->store, 1, 11, 20));
    assert_int_equal(mn_ledger_entries(ledger), 10);
    assert_int_equal(mn_ledger_next_id(ledger, text_str("a")), 21); /* ten requests of two in each by seq 20 */
    ok(mn_ledger_fold(ledger, &f->store, 1, 21, UINT64_MAX));
    assert_int_equal(mn_ledger_entries(ledger), 20);
    assert_int_equal(mn_ledger_next_id(ledger, text_str("a")), 31);
    assert_int_equal(mn_ledger_next_id(ledger, text_str("b")), 31);
    struct mn_idem_entry e = entry_of(15, 0);
    const struct mn_idem_entry *found = mn_ledger_find(ledger, key_of(&e));
    assert_non_null(found);
    assert_int_equal(found->seq, 16);
    assert_int_equal(found->wall_ns, 1000);
    assert_int_equal(found->run_count, 2);
    assert_int_equal(found->runs[1].at, 2);
    fails(MN_NOT_FOUND, mn_ledger_fold(ledger, &f->store, 99, 0, UINT64_MAX));
    mn_ledger_free(ledger);
    fixture_free(f);
}

struct purged {
    uint32_t count;
    uint64_t seqs[8], ids[8];
};

static enum mn_status note_purge(void *context, uint64_t seq, struct mn_str space, const struct mn_id *id)
{
    struct purged *purged = context;
    assert_true(mn_str_equal(space, text_str("s")));
    purged->seqs[purged->count] = seq;
    purged->ids[purged->count++] = id->lo;
    return purged->count == 8 ? MN_FAIL(MN_BUSY, "enough") : MN_OK;
}

static void purges_are_listed_and_nothing_else(void **state)
{
    struct fixture *f = fixture_new();
    struct purged purged = {0};
    for (uint64_t id = 1; id <= 5; id++)
        fixture_put(f, "s", id, id, "x");
    fixture_forget(f, "s", 1, MN_FORGET_DELETE);
    fixture_forget(f, "s", 2, MN_FORGET_PURGE);
    fixture_forget(f, "s", 3, MN_FORGET_SUPPRESS);
    fixture_forget(f, "s", 99, MN_FORGET_PURGE); /* unknown: all versions that ever were must go */
    fixture_commit(f);
    ok(mn_ledger_purges(&f->store, 1, note_purge, &purged));
    assert_int_equal(purged.count, 2);
    assert_int_equal(purged.ids[0], 2);
    assert_int_equal(purged.seqs[0], 7);
    assert_int_equal(purged.ids[1], 99);
    purged.count = 7;
    fails(MN_BUSY, mn_ledger_purges(&f->store, 1, note_purge, &purged));
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_found_until_they_expire),
        cmocka_unit_test(the_newer_of_two_answers),
        cmocka_unit_test(a_window_slides_over_many_keys),
        cmocka_unit_test(counters_of_many_spaces_only_grow),
        cmocka_unit_test(what_is_saved_is_loaded),
        cmocka_unit_test(every_flipped_bit_and_every_cut_is_refused),
        cmocka_unit_test(the_log_folds_into_what_the_writer_knew),
        cmocka_unit_test(purges_are_listed_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
