/*
 * test_tail_codes.c - files with codes of tail chunks as a reader finds them: names, what is not laid out as it should
 * be, and rows that show when they are published.
 */
#include "tests/unit/store_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/tail_codes.h"

#define GEN    3u
#define NUMBER 9u

static struct fixture *with_instance(void)
{
    struct fixture *f = fixture_prepare();
    fixture_open_instance(f);
    return f;
}

static void touch(struct fixture *f, const char *name)
{
    int fd = openat(f->instance.dir_fd, name, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void make(struct fixture *f, struct mn_tail_codes *codes, uint64_t serial, uint32_t rows_max)
{
    const struct mn_codebook *plain;
    struct mn_codes_name name = {GEN, NUMBER, serial};
    struct mn_codes_room room = {.rows_max = rows_max};
    ok(mn_codebook_open(&plain, &f->store, 0));
    ok(mn_tail_codes_create(codes, &f->instance, &name, plain, &room));
}

static void names_are_read_back(void **state)
{
    static const char *const foreign[] = {"codes",           "codes.1.2",    "codes.1.2.3.4",
                                          "codes.1.2.3.tmp", "codes.01.2.3", "codes.1.2.-3",
                                          "codes.1.2.3 ",    "tail.1.2",     "xcodes.1.2.3"};
    struct mn_codes_name name = {1, UINT64_MAX, 77}, read;
    char text[96];
    mn_codes_name_text(text, &name);
    assert_true(mn_codes_name_parse(text, &read));
    assert_memory_equal(&name, &read, sizeof name);
    for (size_t i = 0; i < MN_ARRAY_LEN(foreign); i++)
        assert_false(mn_codes_name_parse(foreign[i], &read));
}

static void the_highest_serial_is_the_better_file(void **state)
{
    struct fixture *f = with_instance();
    struct mn_codes_list list = {0};
    static const char *const files[] = {"codes.1.2.9",  "codes.1.2.10", "codes.1.2.8", "codes.1.3.40",
                                        "codes.2.2.50", "tail.1.2",     "codes.1.2.x"};
    ok(mn_codes_list_make(&list, &f->store, &f->instance));
    assert_int_equal(list.count, 0);
    for (size_t i = 0; i < MN_ARRAY_LEN(files); i++)
        touch(f, files[i]);
    for (int again = 0; again < 2; again++) {
        ok(mn_codes_list_make(&list, &f->store, &f->instance));
        assert_int_equal(list.count, 5);
        assert_int_equal(mn_codes_list_find(&list, 1, 2)->serial, 10);
        assert_int_equal(mn_codes_list_find(&list, 1, 3)->serial, 40);
        assert_null(mn_codes_list_find(&list, 2, 3));
    }
    for (int i = 0; i < 200; i++) {
        char text[96];
        struct mn_codes_name name = {7, 7, (uint64_t)i};
        mn_codes_name_text(text, &name);
        touch(f, text);
    }
    ok(mn_codes_list_make(&list, &f->store, &f->instance));
    assert_int_equal(list.count, 205);
    assert_int_equal(mn_codes_list_find(&list, 7, 7)->serial, 199);
    free(list.names);
    fixture_free(f);
}

static void rows_show_when_they_are_published(void **state)
{
    struct fixture *f = with_instance();
    struct mn_tail_codes made, seen;
    struct mn_codes_name name = {GEN, NUMBER, 5};
    make(f, &made, 5, 100);
    fails(MN_NOT_READY, mn_tail_codes_map(&seen, &f->store, &f->instance, &name, false));
    mn_segment_publish(&made.segment);
    ok(mn_tail_codes_map(&seen, &f->store, &f->instance, &name, false));
    assert_null(mn_tail_codes_look(&seen));
    atomic_store(&made.header->rows, 64);
    const struct mn_ivf *ivf = mn_tail_codes_look(&seen);
    assert_non_null(ivf);
    assert_true(mn_ivf_flat(ivf));
    assert_int_equal(ivf->rows, 64);
    assert_int_equal(ivf->first_block[0], 0);
    assert_int_equal(ivf->first_block[1], 2);
    assert_int_equal(ivf->first_slot[1], 64);
    assert_null(ivf->slots);
    assert_null(ivf->order);
    assert_int_equal(ivf->rest[0], MN_NONE);
    assert_null(ivf->check);
    assert_int_equal(ivf->codebook->gen, 0);
    assert_true(ivf->blocks == (const uint8_t *)seen.segment.base + seen.header->flat_at);
    assert_int_equal((uintptr_t)ivf->blocks % 4096, 0);
    atomic_store(&made.header->rows, 100);
    assert_int_equal(ivf->rows, 64); /* as of the last look */
    assert_int_equal(mn_tail_codes_look(&seen)->rows, 100);
    assert_int_equal(ivf->first_block[1], 3);
    assert_int_equal(ivf->rest[0], 96);
    assert_int_equal(ivf->block_count, 4);
    atomic_store(&made.header->rows, 101); /* cannot be */
    assert_null(mn_tail_codes_look(&seen));
    mn_tail_codes_unmap(&seen);
    mn_tail_codes_unmap(&made);
    fixture_free(f);
}

static void a_name_is_given_once(void **state)
{
    struct fixture *f = with_instance();
    struct mn_tail_codes made, again;
    const struct mn_codebook *plain;
    struct mn_codes_name name = {GEN, NUMBER, 5};
    struct mn_codes_room room = {.rows_max = 100};
    make(f, &made, 5, 100);
    ok(mn_codebook_open(&plain, &f->store, 0));
    fails(MN_SYSTEM, mn_tail_codes_create(&again, &f->instance, &name, plain, &room));
    assert_null(again.header);
    mn_tail_codes_unmap(&made);
    fixture_free(f);
}

/* Every word of the header in turn. */
static void a_file_that_is_laid_out_otherwise_is_refused(void **state)
{
    struct fixture *f = with_instance();
    struct mn_tail_codes made, seen;
    struct mn_codes_name name = {GEN, NUMBER, 5};
    struct mn_store wider = f->store;
    make(f, &made, 5, 100);
    mn_segment_publish(&made.segment);
    uint64_t *words = (uint64_t *)(void *)made.header;
    for (size_t word = 0; word < 256 / 8; word++) {
        uint64_t old = words[word];
        if (word == 16 - 8 || (word > 8 && word < 16))
            continue;                                          /* `ready`, and what lies behind it */
        words[word] = old + (word == 18 ? 1 : UINT64_MAX / 3); /* codebook 1 is not there */
        assert_int_not_equal(mn_tail_codes_map(&seen, &f->store, &f->instance, &name, false), MN_OK);
        assert_null(seen.header);
        words[word] = old;
    }
    wider.dim += 64;
    fails(MN_CORRUPT, mn_tail_codes_map(&seen, &wider, &f->instance, &name, false));
    assert_int_equal(ftruncate(openat(f->instance.dir_fd, "codes.3.9.6", O_CREAT | O_RDWR, 0600), 128), 0);
    name.serial = 6;
    fails(MN_NOT_READY, mn_tail_codes_map(&seen, &f->store, &f->instance, &name, false));
    name.serial = 7;
    fails(MN_NOT_FOUND, mn_tail_codes_map(&seen, &f->store, &f->instance, &name, false));
    name.serial = 5;
    ok(mn_tail_codes_map(&seen, &f->store, &f->instance, &name, false));
    mn_tail_codes_unmap(&seen);
    mn_tail_codes_unmap(&made);
    fixture_free(f);
}

/* ---- by cluster ---- */

static bool sample_row(void *context, uint64_t i, float *out)
{
    memcpy(out, fixture_vector(i * 37), FIXTURE_DIM * sizeof(float));
    return true;
}

static bool never(void *context)
{
    return false;
}

/* 100 rows, spread over the clusters of a trained codebook in turn. None fills a block; each has a shared one alone.
 * Behind them there is room for 60. */
static void make_clustered(struct fixture *f, struct mn_tail_codes *made, uint32_t *filled)
{
    const struct mn_codebook *codebook;
    struct mn_codebook_sample sample = {.rows = 500, .row = sample_row};
    struct mn_codes_name name = {GEN, NUMBER, 5};
    ok(mn_codebook_train(&f->store, 1, 32, 500, &sample, 7, never, NULL));
    ok(mn_codebook_open(&codebook, &f->store, 1));
    uint32_t clusters = codebook->clusters, blocks = clusters < 100 ? clusters : 100, slot = 0;
    assert_true(clusters >= 4); /* so that no cluster has more rows than a block */
    struct mn_codes_room room = {.rows_max = 160, .clustered = 100, .blocks = blocks, .shared = blocks};
    ok(mn_tail_codes_create(made, &f->instance, &name, codebook, &room));
    uint8_t *base = made->segment.base;
    uint32_t *first_block = (uint32_t *)(void *)(base + made->header->first_block_at); /* zeros */
    uint32_t *first_slot = (uint32_t *)(void *)(base + made->header->first_slot_at);
    uint32_t *rest = (uint32_t *)(void *)(base + made->header->rest_at);
    uint32_t *slots = (uint32_t *)(void *)(base + made->header->slots_at);
    uint32_t *order = (uint32_t *)(void *)(base + made->header->order_at);
    for (uint32_t c = 0; c < clusters; c++) {
        first_slot[c] = slot;
        rest[c] = c < blocks ? 32 * c : MN_NONE;
        for (uint32_t row = c; row < 100; row += clusters) {
            order[slot] = row;
            slots[row] = slot++;
        }
    }
    first_slot[clusters] = *filled = slot;
    mn_ivf_fill_homes(clusters, first_slot, first_block, rest, blocks,
                      (uint32_t *)(void *)(base + made->header->homes_at));
    atomic_store(&made->header->rows, 100);
    mn_segment_publish(&made->segment);
}

static void a_directory_that_is_not_whole_is_refused(void **state)
{
    struct fixture *f = with_instance();
    struct mn_tail_codes made, seen;
    struct mn_codes_name name = {GEN, NUMBER, 5};
    uint32_t filled;
    make_clustered(f, &made, &filled);
    assert_int_equal(filled, 100);
    ok(mn_tail_codes_map(&seen, &f->store, &f->instance, &name, false));
    const struct mn_ivf *ivf = mn_tail_codes_look(&seen);
    assert_int_equal(ivf->rows, 100);
    assert_int_equal(ivf->clusters, made.header->clusters);
    assert_int_equal(ivf->first_slot[ivf->clusters], 100);
    mn_tail_codes_unmap(&seen);
    const struct mn_codes *h = made.header;
    uint64_t lists[] = {h->first_block_at, h->first_slot_at, h->rest_at, h->homes_at, h->slots_at, h->order_at};
    uint32_t counts[] = {h->clusters + 1, h->clusters + 1, h->clusters, h->shared * 32, 100, 100};
    for (size_t list = 0; list < MN_ARRAY_LEN(lists); list++)
        for (uint32_t i = 0; i < counts[list]; i++) {
            uint32_t *word = (uint32_t *)(void *)((uint8_t *)made.segment.base + lists[list]) + i, old = *word;
            *word = old + 100;
            fails(MN_CORRUPT, mn_tail_codes_map(&seen, &f->store, &f->instance, &name, false));
            *word = old;
        }
    atomic_store(&made.header->rows, 99); /* those by cluster are complete from the beginning */
    fails(MN_CORRUPT, mn_tail_codes_map(&seen, &f->store, &f->instance, &name, false));
    mn_tail_codes_unmap(&made);
    fixture_free(f);
}

/* Behind those by cluster. */
static void fresh_rows_show_when_they_are_published(void **state)
{
    struct fixture *f = with_instance();
    struct mn_tail_codes made, seen;
    struct mn_codes_name name = {GEN, NUMBER, 5};
    uint32_t filled;
    make_clustered(f, &made, &filled);
    ok(mn_tail_codes_map(&seen, &f->store, &f->instance, &name, false));
    const struct mn_ivf *ivf = mn_tail_codes_look(&seen);
    assert_null(ivf->fresh);
    assert_int_equal(mn_ivf_coded(ivf), 100);
    atomic_store(&made.header->rows, 132);
    ivf = mn_tail_codes_look(&seen);
    assert_int_equal(ivf->rows, 100);
    assert_int_equal(mn_ivf_coded(ivf), 132);
    const struct mn_ivf *fresh = ivf->fresh;
    assert_true(mn_ivf_flat(fresh) && !fresh->fresh);
    assert_int_equal(fresh->first, 100);
    assert_int_equal(fresh->rows, 132);
    assert_int_equal(fresh->first_slot[0], 100);
    assert_int_equal(fresh->first_slot[1], 132);
    assert_int_equal(fresh->first_block[1], 1);
    assert_int_equal(fresh->block_count, 1);
    assert_true(fresh->blocks == (const uint8_t *)seen.segment.base + seen.header->flat_at);
    assert_true(fresh->codes8 == ivf->codes8 && fresh->fine == ivf->fine);
    atomic_store(&made.header->rows, 161); /* cannot be */
    assert_null(mn_tail_codes_look(&seen));
    atomic_store(&made.header->rows, 99);
    assert_null(mn_tail_codes_look(&seen));
    mn_tail_codes_unmap(&seen);
    mn_tail_codes_unmap(&made);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_read_back),
        cmocka_unit_test(the_highest_serial_is_the_better_file),
        cmocka_unit_test(rows_show_when_they_are_published),
        cmocka_unit_test(a_name_is_given_once),
        cmocka_unit_test(a_file_that_is_laid_out_otherwise_is_refused),
        cmocka_unit_test(a_directory_that_is_not_whole_is_refused),
        cmocka_unit_test(fresh_rows_show_when_they_are_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
