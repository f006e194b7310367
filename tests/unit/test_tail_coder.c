/*
 * test_tail_coder.c - the coder of tail chunks: codes are those that mn_ivf_encode gives, readers see none above the
 * published count, and nothing that it meets (a death half-way, foreign files, a full /dev/shm, a recovery) costs more
 * than codes.
 */
#include "tests/unit/coding.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "engine/recall.h"
#include "engine/tail.h"
#include "engine/view.h"

/* ---- flat ---- */

static void a_growing_chunk_is_coded_block_by_block(void **state)
{
    struct coding t = coding_new();
    coding_put(&t, 1, 31);
    coding_code_all(&t);
    assert_int_equal(coding_count_files(t.f), 0); /* not worth a file */
    assert_null(coding_pin(&t)->ivf);
    for (uint64_t id = 32; id < 3000; id += 97) {
        coding_put(&t, id, 97);
        const struct mn_part *part = coding_pin(&t);
        uint32_t before = part->ivf ? part->ivf->rows : 0;
        coding_code_all(&t);
        assert_int_equal(part->ivf ? part->ivf->rows : 0, before); /* a pin does not change */
        part = coding_pin(&t);
        assert_int_equal(part->rows, id + 96);
        assert_int_equal(part->ivf->rows, part->rows / 32 * 32);
        assert_int_equal(coding_statistic(t.f, MN_STAT_tail_coded_rows), part->ivf->rows);
    }
    coding_check_flat(t.f, coding_pin(&t));
    coding_only_file(t.f);
    struct mn_stat_summary lag;
    mn_stats_summary(&t.f->instance.stats, MN_STAT_tail_code_lag, &lag);
    assert_true(lag.count > 20 && lag.max >= 97 && lag.max < 200);
    assert_int_equal(coding_statistic(t.f, MN_STAT_tail_code_failures), 0);
    coding_free(&t);
}

static void a_sealed_chunk_is_coded_to_its_last_row(void **state)
{
    struct coding t = coding_new();
    coding_put(&t, 1, 100);
    coding_code_all(&t);
    assert_int_equal(coding_pin(&t)->ivf->rows, 96);
    coding_seal(&t);
    coding_code_all(&t);
    assert_int_equal(coding_pin(&t)->ivf->rows, 100);
    coding_check_flat(t.f, coding_pin(&t));
    coding_put(&t, 101, 40);
    coding_code_all(&t);
    const struct mn_part *part = coding_pin(&t);
    assert_int_equal(t.snapshot.part_count, 2);
    assert_int_equal(part[0].ivf->rows, 32);
    assert_int_equal(part[1].ivf->rows, 100);
    coding_check_flat(t.f, &part[0]);
    coding_check_flat(t.f, &part[1]);
    coding_free(&t);
}

/* A reader that pinned before there were codes finds them at its next pin, and keeps what it has when files go. */
static void files_go_with_their_chunk(void **state)
{
    struct coding t = coding_new();
    struct mn_view_list empty = {0};
    coding_put(&t, 1, 100);
    assert_null(coding_pin(&t)->ivf);
    coding_code_all(&t);
    const struct mn_part *part = coding_pin(&t);
    assert_int_equal(part->ivf->rows, 96);
    empty.gen = atomic_load(&t.f->instance.control->view_gen) + 1;
    ok(mn_view_publish(&t.f->instance, &empty));
    coding_code_all(&t);
    assert_int_equal(coding_count_files(t.f), 0);
    assert_int_equal(coding_statistic(t.f, MN_STAT_tail_coded_rows), 0);
    coding_check_flat(t.f, part); /* mapped is mapped */
    coding_free(&t);
}

static void recovery_makes_other_chunks(void **state)
{
    struct coding t = coding_new();
    coding_put(&t, 1, 100);
    coding_code_all(&t);
    struct mn_codes_name before = coding_only_file(t.f);
    fixture_crash(t.f);
    ok(fixture_recover(t.f));
    fixture_open_writer(t.f);
    assert_null(coding_pin(&t)->ivf);
    coding_code_all(&t);
    struct mn_codes_name after = coding_only_file(t.f);
    assert_true(after.instance_gen > before.instance_gen && after.serial > before.serial);
    const struct mn_part *part = coding_pin(&t);
    for (uint32_t i = 0; i < t.snapshot.part_count; i++)
        if (part[i].rows == 100) {
            assert_int_equal(part[i].ivf->rows, 100); /* recovery seals what it finds */
            coding_check_flat(t.f, &part[i]);
        }
    coding_free(&t);
}

/* ---- deaths and strangers ---- */

static void another_coder_goes_on(void **state)
{
    struct coding t = coding_new();
    coding_put(&t, 1, 100);
    coding_code_all(&t);
    struct mn_codes_name name = coding_only_file(t.f);
    struct mn_tail_codes half;
    ok(mn_tail_codes_map(&half, &t.f->store, &t.f->instance, &name, true));
    /* What it was at when it died. */
    memset((uint8_t *)half.segment.base + half.header->blocks_at + 3 * mn_ivf_block_bytes(CODING_WIDTH), 0xa5, 3000);
    mn_tail_codes_unmap(&half);
    coding_another_coder(&t);
    coding_put(&t, 101, 100);
    coding_code_all(&t);
    struct mn_codes_name now = coding_only_file(t.f);
    assert_memory_equal(&now, &name, sizeof name);
    assert_int_equal(coding_pin(&t)->ivf->rows, 192);
    coding_check_flat(t.f, coding_pin(&t));
    coding_seal(&t);
    coding_code_all(&t);
    coding_another_coder(&t); /* the last block is not complete, and nothing comes any more */
    coding_code_all(&t);
    assert_int_equal(coding_pin(&t)->ivf->rows, 200);
    coding_check_flat(t.f, coding_pin(&t));
    coding_free(&t);
}

/* A damaged word costs the file: another is made, under another name, and the reader takes that. */
static void a_file_that_is_not_whole_is_made_afresh(void **state)
{
    static const uint64_t words[] = {0, 16, 128, 136, 144, 152, 160, 192, 256};
    struct coding t = coding_new();
    coding_put(&t, 1, 100);
    coding_code_all(&t);
    for (size_t i = 0; i < MN_ARRAY_LEN(words); i++) {
        struct mn_codes_name before = coding_only_file(t.f);
        struct mn_tail_codes codes;
        ok(mn_tail_codes_map(&codes, &t.f->store, &t.f->instance, &before, true));
        *(uint32_t *)(void *)((uint8_t *)codes.segment.base + words[i]) += 33;
        mn_tail_codes_unmap(&codes);
        coding_another_coder(&t);
        coding_code_all(&t);
        struct mn_codes_name after = coding_only_file(t.f);
        assert_true(after.serial > before.serial);
        assert_int_equal(coding_pin(&t)->ivf->rows, 96);
        coding_check_flat(t.f, coding_pin(&t));
    }
    coding_free(&t);
}

static void leftovers_are_removed(void **state)
{
    static const char *const names[] = {"codes.1.1.1000", "codes.9.9.9", "codes.1.77.5"};
    struct coding t = coding_new();
    coding_put(&t, 1, 100);
    for (size_t i = 0; i < MN_ARRAY_LEN(names); i++) {
        int fd = openat(t.f->instance.dir_fd, names[i], O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, 100000), 0);
        close(fd);
    }
    assert_null(coding_pin(&t)->ivf);
    coding_code_all(&t);
    assert_true(coding_only_file(t.f).serial > 1000);
    assert_int_equal(coding_pin(&t)->ivf->rows, 96);
    coding_free(&t);
}

/* Without a coder, and with files that are none. */
static void a_reader_does_without(void **state)
{
    struct coding t = coding_new();
    coding_put(&t, 1, 100);
    coding_code_all(&t);
    struct mn_codes_name name = coding_only_file(t.f);
    struct mn_tail_codes codes;
    ok(mn_tail_codes_map(&codes, &t.f->store, &t.f->instance, &name, true));
    atomic_store(&codes.header->rows, 128); /* more than there are */
    assert_null(coding_pin(&t)->ivf);
    atomic_store(&codes.header->rows, 96);
    assert_int_equal(coding_pin(&t)->ivf->rows, 96);
    codes.header->header.fingerprint++;
    atomic_fetch_add(&t.f->instance.control->codes_gen, 1);
    assert_int_equal(coding_pin(&t)->ivf->rows, 96); /* what is mapped was checked when it was mapped */
    struct mn_reader *other;
    struct mn_snapshot snapshot;
    ok(mn_reader_open(&other, &t.f->store, &t.f->instance));
    ok(mn_reader_pin(other, 0, &snapshot));
    assert_null(snapshot.parts[0].ivf);
    assert_int_equal(snapshot.parts[0].rows, 100);
    mn_reader_close(other);
    mn_tail_codes_unmap(&codes);
    coding_free(&t);
}

static void a_full_shm_stops_coding_and_nothing_else(void **state)
{
    struct coding t = coding_new();
    uint32_t worked;
    coding_put(&t, 1, 100);
    coding_shm_full = true;
    fails(MN_READ_ONLY, mn_tail_coder_turn(t.coder, t.now, &worked));
    assert_int_equal(coding_count_files(t.f), 0);
    assert_null(coding_pin(&t)->ivf);
    coding_shm_full = false;
    t.now += MN_TAIL_CODER_RETRY_NS - 1;
    coding_code_all(&t);
    assert_int_equal(coding_count_files(t.f), 0); /* not again so soon */
    t.now += 1;
    coding_code_all(&t);
    assert_int_equal(coding_pin(&t)->ivf->rows, 96);
    /* In the middle of a file: what is published stays. */
    coding_put(&t, 101, 1500);
    coding_shm_full = true;
    fails(MN_READ_ONLY, mn_tail_coder_turn(t.coder, t.now, &worked));
    assert_int_equal(coding_pin(&t)->rows, 1600);
    assert_int_equal(coding_pin(&t)->ivf->rows, 1024); /* as far as pages were reserved */
    coding_check_flat(t.f, coding_pin(&t));
    assert_int_equal(coding_statistic(t.f, MN_STAT_tail_code_failures), 2);
    coding_shm_full = false;
    t.now += MN_TAIL_CODER_RETRY_NS;
    coding_code_all(&t);
    assert_int_equal(coding_pin(&t)->ivf->rows, 1600);
    coding_check_flat(t.f, coding_pin(&t));
    coding_free(&t);
}

static void a_coder_that_is_off_leaves_no_codes(void **state)
{
    struct coding t = coding_new();
    coding_put(&t, 1, 100);
    coding_code_all(&t);
    assert_int_equal(coding_pin(&t)->ivf->rows, 96);
    mn_tail_coder_switch(t.coder, false);
    coding_code_all(&t);
    assert_int_equal(coding_count_files(t.f), 0);
    assert_null(coding_pin(&t)->ivf);
    coding_put(&t, 101, 100);
    coding_code_all(&t);
    assert_null(coding_pin(&t)->ivf);
    mn_tail_coder_switch(t.coder, true);
    coding_code_all(&t);
    assert_int_equal(coding_pin(&t)->ivf->rows, 192);
    coding_check_flat(t.f, coding_pin(&t));
    coding_another_coder(&t); /* off from its birth: what an earlier one left goes too */
    mn_tail_coder_switch(t.coder, false);
    coding_code_all(&t);
    assert_int_equal(coding_count_files(t.f), 0);
    assert_null(coding_pin(&t)->ivf);
    coding_free(&t);
}

/* Pages are reserved for many rows at once, not for each block. */
static void reservations_are_few(void **state)
{
    struct coding t = coding_new();
    coding_put(&t, 1, 4000);
    coding_reservations = 0;
    coding_code_all(&t);
    assert_int_equal(coding_pin(&t)->ivf->rows, 4000);
    assert_true(coding_reservations > 3 && coding_reservations < 20);
    coding_free(&t);
}

/* ---- all at once ---- */

struct turmoil {
    struct coding *t;
    _Atomic bool stop;
    _Atomic uint32_t wrong, looks;
};

static void *keep_coding(void *context)
{
    struct turmoil *t = context;
    uint32_t worked;
    while (!atomic_load(&t->stop))
        if (mn_tail_coder_turn(t->t->coder, t->t->now, &worked) != MN_OK)
            atomic_fetch_add(&t->wrong, 1);
    return NULL;
}

/* Published means whole: the lanes of every block name their rows, and the 8-bit codes are there. */
static void *keep_looking(void *context)
{
    struct turmoil *t = context;
    struct mn_snapshot s;
    while (!atomic_load(&t->stop)) {
        if (mn_reader_pin(t->t->reader, 0, &s) != MN_OK) {
            atomic_fetch_add(&t->wrong, 1);
            return NULL;
        }
        for (uint32_t p = 0; p < s.part_count; p++) {
            const struct mn_ivf *ivf = s.parts[p].ivf;
            if (!ivf)
                continue;
            bool whole = ivf->rows <= s.parts[p].rows;
            for (uint32_t row = 0; row < ivf->rows; row++) {
                const uint8_t *block = ivf->blocks + (size_t)(row / 32) * mn_ivf_block_bytes(CODING_WIDTH);
                whole = whole && mn_ivf_lanes(block, CODING_WIDTH)->error[row % 32] > 0 && ivf->fine[row].error > 0;
            }
            atomic_fetch_add(&t->wrong, !whole);
            atomic_fetch_add(&t->looks, 1);
        }
        mn_reader_unpin(t->t->reader);
    }
    return NULL;
}

static void readers_see_whole_blocks_while_everything_moves(void **state)
{
    struct coding t = coding_new();
    struct turmoil turmoil = {.t = &t};
    pthread_t coder, reader;
    coding_put(&t, 1, 1);
    coding_pin(&t);
    mn_reader_unpin(t.reader);
    assert_int_equal(pthread_create(&coder, NULL, keep_coding, &turmoil), 0);
    assert_int_equal(pthread_create(&reader, NULL, keep_looking, &turmoil), 0);
    for (uint64_t id = 2; id < 12000; id += 10) {
        coding_put(&t, id, 10);
        if (id % 3000 < 10)
            coding_seal(&t);
    }
    while (atomic_load(&turmoil.looks) <= 10 && atomic_load(&turmoil.wrong) == 0)
        sched_yield(); /* on a busy machine the reader comes late */
    atomic_store(&turmoil.stop, true);
    assert_int_equal(pthread_join(coder, NULL), 0);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_int_equal(atomic_load(&turmoil.wrong), 0);
    coding_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_growing_chunk_is_coded_block_by_block),
        cmocka_unit_test(a_sealed_chunk_is_coded_to_its_last_row),
        cmocka_unit_test(files_go_with_their_chunk),
        cmocka_unit_test(recovery_makes_other_chunks),
        cmocka_unit_test(another_coder_goes_on),
        cmocka_unit_test(a_file_that_is_not_whole_is_made_afresh),
        cmocka_unit_test(leftovers_are_removed),
        cmocka_unit_test(a_reader_does_without),
        cmocka_unit_test(a_full_shm_stops_coding_and_nothing_else),
        cmocka_unit_test(a_coder_that_is_off_leaves_no_codes),
        cmocka_unit_test(reservations_are_few),
        cmocka_unit_test(readers_see_whole_blocks_while_everything_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
