/*
 * test_tail_coder.c - the coder of tail chunks: codes are those that mn_ivf_encode gives, readers see none above the
 * published count, and nothing that it meets (a death half-way, foreign files, a full /dev/shm, a newer codebook, a
 * recovery) costs more than codes.
 */
#include "tests/unit/store_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/reader.h"
#include "engine/recall.h"
#include "engine/tail.h"
#include "engine/tail_coder.h"
#include "engine/tail_codes.h"
#include "engine/view.h"

#define WIDTH 64u

/* ---- a /dev/shm that is full when the test says so ---- */

/* Each thread has its own: the keeper, which prepares log segments in a thread of the fixture's writer, has room. */
static _Thread_local bool shm_full;
static _Thread_local uint32_t reservations;

/* Takes the place of the C library's in this program. */
int posix_fallocate(int fd, off_t offset, off_t length)
{
    reservations++;
    if (shm_full)
        return ENOSPC;
    return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

/* ---- helpers ---- */

struct coding {
    struct fixture *f;
    struct mn_tail_coder *coder;
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    uint64_t now;
};

static struct mn_stats_page *page_of(struct fixture *f)
{
    return mn_stats_page(&f->instance.stats, 1);
}

static uint64_t statistic(struct fixture *f, enum mn_stat stat)
{
    return mn_stats_value(&f->instance.stats, stat);
}

static struct coding coding_new(void)
{
    struct coding t = {.f = fixture_prepare(), .now = 1};
    t.f->settings.wal_segment_bytes = 4u << 20;
    fixture_start(t.f);
    ok(mn_tail_coder_open(&t.coder, &t.f->store, &t.f->instance, page_of(t.f)));
    ok(mn_reader_open(&t.reader, &t.f->store, &t.f->instance));
    shm_full = false;
    return t;
}

static void coding_free(struct coding *t)
{
    mn_reader_close(t->reader);
    mn_tail_coder_close(t->coder);
    fixture_free(t->f);
}

static void another_coder(struct coding *t)
{
    mn_tail_coder_close(t->coder);
    ok(mn_tail_coder_open(&t->coder, &t->f->store, &t->f->instance, page_of(t->f)));
}

/* Turns until there is nothing to do. */
static void code_all(struct coding *t)
{
    uint32_t worked = 1;
    for (int turns = 0; worked > 0; turns++) {
        assert_true(turns < 2000);
        ok(mn_tail_coder_turn(t->coder, t->now, &worked));
    }
}

static void put(struct coding *t, uint64_t first, uint64_t count)
{
    for (uint64_t id = first; id < first + count; id++)
        fixture_put(t->f, "s", id, id, "x");
    fixture_commit(t->f);
}

static void seal(struct coding *t)
{
    uint64_t seq;
    ok(mn_writer_seal(t->f->writer, &seq));
}

/* The newest part of a new pin. */
static const struct mn_part *pin(struct coding *t)
{
    mn_reader_unpin(t->reader);
    ok(mn_reader_pin(t->reader, 0, &t->snapshot));
    assert_true(t->snapshot.part_count > 0);
    return &t->snapshot.parts[0];
}

static struct mn_codes_list files_of(struct fixture *f)
{
    struct mn_codes_list list = {0};
    ok(mn_codes_list_make(&list, &f->store, &f->instance));
    return list;
}

static uint32_t count_files(struct fixture *f)
{
    struct mn_codes_list list = files_of(f);
    free(list.names);
    return list.count;
}

/* The only one. */
static struct mn_codes_name only_file(struct fixture *f)
{
    struct mn_codes_list list = files_of(f);
    assert_int_equal(list.count, 1);
    struct mn_codes_name name = list.names[0];
    free(list.names);
    return name;
}

/* The codes of one row, made here. */
struct expected {
    _Alignas(64) uint8_t block[4 * WIDTH + sizeof(struct mn_ivf_lanes)];
    _Alignas(64) uint8_t codes8[WIDTH];
    struct mn_ivf_fine fine;
};

static void expect_row(const struct fixture *f, const struct mn_part *part, uint32_t row, uint32_t lane,
                       const float *centroid, struct expected *e)
{
    _Alignas(64) float x[WIDTH];
    const struct mn_kernels *kernels = mn_kernels_best();
    mn_codebook_rotate(part->ivf->codebook, kernels, mn_part_vector(part, row), mn_part_scale(part, row), x);
    mn_ivf_encode(kernels, f->store.metric, WIDTH, x, centroid, e->block, lane, e->codes8, &e->fine);
}

/* Every block and slot of what is flat. */
static void check_flat_of(const struct fixture *f, const struct mn_part *part, const struct mn_ivf *ivf)
{
    struct expected e;
    assert_int_equal(ivf->codebook->width, WIDTH);
    assert_true(mn_ivf_flat(ivf));
    for (uint32_t row = ivf->first; row < ivf->rows; row++) {
        uint32_t lane = (row - ivf->first) % 32, block = (row - ivf->first) / 32;
        if (lane == 0)
            mn_ivf_clear_block(e.block, WIDTH);
        expect_row(f, part, row, lane, NULL, &e);
        assert_memory_equal(ivf->codes8 + (size_t)row * WIDTH, e.codes8, WIDTH);
        assert_memory_equal(&ivf->fine[row], &e.fine, sizeof e.fine);
        if (lane == 31 || row + 1 == ivf->rows)
            assert_memory_equal(ivf->blocks + (size_t)block * mn_ivf_block_bytes(WIDTH), e.block,
                                mn_ivf_block_bytes(WIDTH));
    }
}

static void check_flat(const struct fixture *f, const struct mn_part *part)
{
    assert_int_equal(part->ivf->first, 0);
    check_flat_of(f, part, part->ivf);
}

/* ---- flat ---- */

static void a_growing_chunk_is_coded_block_by_block(void **state)
{
    struct coding t = coding_new();
    put(&t, 1, 31);
    code_all(&t);
    assert_int_equal(count_files(t.f), 0); /* not worth a file */
    assert_null(pin(&t)->ivf);
    for (uint64_t id = 32; id < 3000; id += 97) {
        put(&t, id, 97);
        const struct mn_part *part = pin(&t);
        uint32_t before = part->ivf ? part->ivf->rows : 0;
        code_all(&t);
        assert_int_equal(part->ivf ? part->ivf->rows : 0, before); /* a pin does not change */
        part = pin(&t);
        assert_int_equal(part->rows, id + 96);
        assert_int_equal(part->ivf->rows, part->rows / 32 * 32);
        assert_int_equal(statistic(t.f, MN_STAT_tail_coded_rows), part->ivf->rows);
    }
    check_flat(t.f, pin(&t));
    only_file(t.f);
    struct mn_stat_summary lag;
    mn_stats_summary(&t.f->instance.stats, MN_STAT_tail_code_lag, &lag);
    assert_true(lag.count > 20 && lag.max >= 97 && lag.max < 200);
    assert_int_equal(statistic(t.f, MN_STAT_tail_code_failures), 0);
    coding_free(&t);
}

static void a_sealed_chunk_is_coded_to_its_last_row(void **state)
{
    struct coding t = coding_new();
    put(&t, 1, 100);
    code_all(&t);
    assert_int_equal(pin(&t)->ivf->rows, 96);
    seal(&t);
    code_all(&t);
    assert_int_equal(pin(&t)->ivf->rows, 100);
    check_flat(t.f, pin(&t));
    put(&t, 101, 40);
    code_all(&t);
    const struct mn_part *part = pin(&t);
    assert_int_equal(t.snapshot.part_count, 2);
    assert_int_equal(part[0].ivf->rows, 32);
    assert_int_equal(part[1].ivf->rows, 100);
    check_flat(t.f, &part[0]);
    check_flat(t.f, &part[1]);
    coding_free(&t);
}

/* A reader that pinned before there were codes finds them at its next pin, and keeps what it has when files go. */
static void files_go_with_their_chunk(void **state)
{
    struct coding t = coding_new();
    struct mn_view_list empty = {0};
    put(&t, 1, 100);
    assert_null(pin(&t)->ivf);
    code_all(&t);
    const struct mn_part *part = pin(&t);
    assert_int_equal(part->ivf->rows, 96);
    empty.gen = atomic_load(&t.f->instance.control->view_gen) + 1;
    ok(mn_view_publish(&t.f->instance, &empty));
    code_all(&t);
    assert_int_equal(count_files(t.f), 0);
    assert_int_equal(statistic(t.f, MN_STAT_tail_coded_rows), 0);
    check_flat(t.f, part); /* mapped is mapped */
    coding_free(&t);
}

static void recovery_makes_other_chunks(void **state)
{
    struct coding t = coding_new();
    put(&t, 1, 100);
    code_all(&t);
    struct mn_codes_name before = only_file(t.f);
    fixture_crash(t.f);
    ok(fixture_recover(t.f));
    fixture_open_writer(t.f);
    assert_null(pin(&t)->ivf);
    code_all(&t);
    struct mn_codes_name after = only_file(t.f);
    assert_true(after.instance_gen > before.instance_gen && after.serial > before.serial);
    const struct mn_part *part = pin(&t);
    for (uint32_t i = 0; i < t.snapshot.part_count; i++)
        if (part[i].rows == 100) {
            assert_int_equal(part[i].ivf->rows, 100); /* recovery seals what it finds */
            check_flat(t.f, &part[i]);
        }
    coding_free(&t);
}

/* ---- deaths and strangers ---- */

static void another_coder_goes_on(void **state)
{
    struct coding t = coding_new();
    put(&t, 1, 100);
    code_all(&t);
    struct mn_codes_name name = only_file(t.f);
    struct mn_tail_codes half;
    ok(mn_tail_codes_map(&half, &t.f->store, &t.f->instance, &name, true));
    /* What it was at when it died. */
    memset((uint8_t *)half.segment.base + half.header->blocks_at + 3 * mn_ivf_block_bytes(WIDTH), 0xa5, 3000);
    mn_tail_codes_unmap(&half);
    another_coder(&t);
    put(&t, 101, 100);
    code_all(&t);
    struct mn_codes_name now = only_file(t.f);
    assert_memory_equal(&now, &name, sizeof name);
    assert_int_equal(pin(&t)->ivf->rows, 192);
    check_flat(t.f, pin(&t));
    seal(&t);
    code_all(&t);
    another_coder(&t); /* the last block is not complete, and nothing comes any more */
    code_all(&t);
    assert_int_equal(pin(&t)->ivf->rows, 200);
    check_flat(t.f, pin(&t));
    coding_free(&t);
}

/* A damaged word costs the file: another is made, under another name, and the reader takes that. */
static void a_file_that_is_not_whole_is_made_afresh(void **state)
{
    static const uint64_t words[] = {0, 16, 128, 136, 144, 152, 160, 192, 256};
    struct coding t = coding_new();
    put(&t, 1, 100);
    code_all(&t);
    for (size_t i = 0; i < MN_ARRAY_LEN(words); i++) {
        struct mn_codes_name before = only_file(t.f);
        struct mn_tail_codes codes;
        ok(mn_tail_codes_map(&codes, &t.f->store, &t.f->instance, &before, true));
        *(uint32_t *)(void *)((uint8_t *)codes.segment.base + words[i]) += 33;
        mn_tail_codes_unmap(&codes);
        another_coder(&t);
        code_all(&t);
        struct mn_codes_name after = only_file(t.f);
        assert_true(after.serial > before.serial);
        assert_int_equal(pin(&t)->ivf->rows, 96);
        check_flat(t.f, pin(&t));
    }
    coding_free(&t);
}

static void leftovers_are_removed(void **state)
{
    static const char *const names[] = {"codes.1.1.1000", "codes.9.9.9", "codes.1.77.5"};
    struct coding t = coding_new();
    put(&t, 1, 100);
    for (size_t i = 0; i < MN_ARRAY_LEN(names); i++) {
        int fd = openat(t.f->instance.dir_fd, names[i], O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, 100000), 0);
        close(fd);
    }
    assert_null(pin(&t)->ivf);
    code_all(&t);
    assert_true(only_file(t.f).serial > 1000);
    assert_int_equal(pin(&t)->ivf->rows, 96);
    coding_free(&t);
}

/* Without a coder, and with files that are none. */
static void a_reader_does_without(void **state)
{
    struct coding t = coding_new();
    put(&t, 1, 100);
    code_all(&t);
    struct mn_codes_name name = only_file(t.f);
    struct mn_tail_codes codes;
    ok(mn_tail_codes_map(&codes, &t.f->store, &t.f->instance, &name, true));
    atomic_store(&codes.header->rows, 128); /* more than there are */
    assert_null(pin(&t)->ivf);
    atomic_store(&codes.header->rows, 96);
    assert_int_equal(pin(&t)->ivf->rows, 96);
    codes.header->header.fingerprint++;
    atomic_fetch_add(&t.f->instance.control->codes_gen, 1);
    assert_int_equal(pin(&t)->ivf->rows, 96); /* what is mapped was checked when it was mapped */
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
    put(&t, 1, 100);
    shm_full = true;
    fails(MN_READ_ONLY, mn_tail_coder_turn(t.coder, t.now, &worked));
    assert_int_equal(count_files(t.f), 0);
    assert_null(pin(&t)->ivf);
    shm_full = false;
    t.now += MN_TAIL_CODER_RETRY_NS - 1;
    code_all(&t);
    assert_int_equal(count_files(t.f), 0); /* not again so soon */
    t.now += 1;
    code_all(&t);
    assert_int_equal(pin(&t)->ivf->rows, 96);
    /* In the middle of a file: what is published stays. */
    put(&t, 101, 1500);
    shm_full = true;
    fails(MN_READ_ONLY, mn_tail_coder_turn(t.coder, t.now, &worked));
    assert_int_equal(pin(&t)->rows, 1600);
    assert_int_equal(pin(&t)->ivf->rows, 1024); /* as far as pages were reserved */
    check_flat(t.f, pin(&t));
    assert_int_equal(statistic(t.f, MN_STAT_tail_code_failures), 2);
    shm_full = false;
    t.now += MN_TAIL_CODER_RETRY_NS;
    code_all(&t);
    assert_int_equal(pin(&t)->ivf->rows, 1600);
    check_flat(t.f, pin(&t));
    coding_free(&t);
}

static void a_coder_that_is_off_leaves_no_codes(void **state)
{
    struct coding t = coding_new();
    put(&t, 1, 100);
    code_all(&t);
    assert_int_equal(pin(&t)->ivf->rows, 96);
    mn_tail_coder_switch(t.coder, false);
    code_all(&t);
    assert_int_equal(count_files(t.f), 0);
    assert_null(pin(&t)->ivf);
    put(&t, 101, 100);
    code_all(&t);
    assert_null(pin(&t)->ivf);
    mn_tail_coder_switch(t.coder, true);
    code_all(&t);
    assert_int_equal(pin(&t)->ivf->rows, 192);
    check_flat(t.f, pin(&t));
    another_coder(&t); /* off from its birth: what an earlier one left goes too */
    mn_tail_coder_switch(t.coder, false);
    code_all(&t);
    assert_int_equal(count_files(t.f), 0);
    assert_null(pin(&t)->ivf);
    coding_free(&t);
}

/* Pages are reserved for many rows at once, not for each block. */
static void reservations_are_few(void **state)
{
    struct coding t = coding_new();
    put(&t, 1, 4000);
    reservations = 0;
    code_all(&t);
    assert_int_equal(pin(&t)->ivf->rows, 4000);
    assert_true(reservations > 3 && reservations < 20);
    coding_free(&t);
}

/* ---- trained codebooks ---- */

static bool sample_row(void *context, uint64_t i, float *out)
{
    memcpy(out, fixture_vector(i * 37), FIXTURE_DIM * sizeof(float));
    return true;
}

static bool never(void *context)
{
    return false;
}

/* A view of the same chunks, with a column that has codes of this codebook. */
static void show_codebook(struct coding *t, uint64_t gen)
{
    struct mn_codebook_sample sample = {.rows = 2000, .row = sample_row};
    struct mn_view_list old;
    struct mn_view_columns column = {.segment = 900, .codebook = gen};
    ok(mn_codebook_train(&t->f->store, gen, 32, 2000, &sample, gen, never, NULL));
    ok(mn_view_map(&old, &t->f->instance, atomic_load(&t->f->instance.control->view_gen)));
    struct mn_view_list view = old;
    view.gen = old.gen + 1;
    view.columns = 1;
    view.column = &column;
    ok(mn_view_publish(&t->f->instance, &view));
    mn_view_unmap(&old);
}

/* As a reader does: the fixture's view names a column segment that is not there. */
static const struct mn_ivf *map_codes(struct coding *t, struct mn_tail_codes *codes)
{
    struct mn_codes_name name = only_file(t->f);
    ok(mn_tail_codes_map(codes, &t->f->store, &t->f->instance, &name, false));
    return mn_tail_codes_look(codes);
}

static void a_newer_codebook_makes_codes_anew(void **state)
{
    struct coding t = coding_new();
    struct mn_tail_codes codes;
    put(&t, 1, 2000);
    code_all(&t);
    struct mn_codes_name plain = only_file(t.f);
    struct mn_part part = *pin(&t);
    check_flat(t.f, &part);
    show_codebook(&t, 1);
    uint32_t worked;
    ok(mn_tail_coder_turn(t.coder, t.now, &worked)); /* half of them: the old ones serve */
    struct mn_codes_list list = files_of(t.f);
    assert_int_equal(list.count, 2);
    struct mn_codes_name best = *mn_codes_list_find(&list, plain.instance_gen, plain.wal_number);
    free(list.names);
    fails(MN_NOT_READY, mn_tail_codes_map(&codes, &t.f->store, &t.f->instance, &best, false));
    code_all(&t);
    part.ivf = map_codes(&t, &codes);
    assert_int_equal(part.ivf->rows, 1984);
    assert_int_equal(part.ivf->codebook->gen, 1);
    assert_int_equal(codes.name.serial, best.serial);
    assert_true(atomic_load(&t.f->instance.control->codes_gen) == best.serial);
    check_flat(t.f, &part);
    mn_tail_codes_unmap(&codes);
    coding_free(&t);
}

/* Every row in the cluster that is nearest, in order of rows, with the codes that it must have. */
static void check_clustered(const struct fixture *f, const struct mn_part *part)
{
    const struct mn_ivf *ivf = part->ivf;
    const struct mn_codebook *codebook = ivf->codebook;
    uint32_t block_bytes = mn_ivf_block_bytes(WIDTH);
    struct expected *blocks = aligned_alloc(64, ivf->block_count * sizeof *blocks);
    assert_non_null(blocks);
    assert_true(mn_ivf_holds(ivf)); /* every row once */
    for (uint32_t b = 0; b < ivf->block_count; b++)
        mn_ivf_clear_block(blocks[b].block, WIDTH);
    for (uint32_t c = 0; c < ivf->clusters; c++) {
        for (uint32_t slot = ivf->first_slot[c]; slot < ivf->first_slot[c + 1]; slot++) {
            uint32_t row = mn_ivf_row(ivf, slot), lane = mn_ivf_lane(ivf, c, slot), nearest;
            struct expected *e = &blocks[lane / 32];
            _Alignas(64) float x[WIDTH];
            assert_true(slot == ivf->first_slot[c] || row > mn_ivf_row(ivf, slot - 1));
            expect_row(f, part, row, lane % 32, codebook->centroids + (size_t)c * WIDTH, e);
            assert_memory_equal(ivf->codes8 + (size_t)slot * WIDTH, e->codes8, WIDTH);
            assert_memory_equal(&ivf->fine[slot], &e->fine, sizeof e->fine);
            mn_codebook_rotate(codebook, mn_kernels_best(), mn_part_vector(part, row), mn_part_scale(part, row), x);
            mn_codebook_assign(codebook, mn_kernels_best(), x, 1, &nearest, NULL);
            assert_int_equal(nearest, c);
        }
    }
    for (uint32_t b = 0; b < ivf->block_count; b++)
        assert_memory_equal(ivf->blocks + (size_t)b * block_bytes, blocks[b].block, block_bytes);
    free(blocks);
}

static void a_sealed_chunk_is_coded_by_cluster_after_a_while(void **state)
{
    struct coding t = coding_new();
    struct mn_tail_codes codes;
    put(&t, 1, MN_TAIL_CODER_CLUSTER_MIN);
    struct mn_part part = *pin(&t);
    assert_int_equal(part.rows, MN_TAIL_CODER_CLUSTER_MIN);
    code_all(&t);
    seal(&t);
    show_codebook(&t, 1);
    code_all(&t);
    part.ivf = map_codes(&t, &codes); /* the plain ones: they are about to be replaced, one way or the other */
    assert_int_equal(part.ivf->codebook->gen, 0);
    mn_tail_codes_unmap(&codes);
    t.now += MN_TAIL_CODER_SETTLED_NS;
    code_all(&t);
    part.ivf = map_codes(&t, &codes);
    assert_int_equal(part.ivf->clusters, part.ivf->codebook->clusters);
    assert_int_equal(part.ivf->rows, MN_TAIL_CODER_CLUSTER_MIN);
    check_clustered(t.f, &part);
    assert_int_equal(statistic(t.f, MN_STAT_tail_clustered_rows), MN_TAIL_CODER_CLUSTER_MIN);
    mn_tail_codes_unmap(&codes);
    struct mn_codes_name name = only_file(t.f);
    another_coder(&t);
    code_all(&t);
    assert_int_equal(only_file(t.f).serial, name.serial); /* adopted */
    /* A newer codebook: by cluster once more, after the same while. */
    show_codebook(&t, 2);
    code_all(&t);
    t.now += MN_TAIL_CODER_SETTLED_NS;
    code_all(&t);
    part.ivf = map_codes(&t, &codes);
    assert_int_equal(part.ivf->codebook->gen, 2);
    check_clustered(t.f, &part);
    mn_tail_codes_unmap(&codes);
    coding_free(&t);
}

/* Each of some rows, or one as near, is its own nearest, wherever it lies: by cluster, fresh, or without codes; and no
 * row is found that is out of the time that was asked for. */
static void find_in(const struct fixture *f, struct mn_part *part)
{
    struct mn_snapshot snapshot = {.seq = UINT64_C(1) << 40, .part_count = 1, .parts = part};
    struct mn_search search;
    ok(mn_search_init(&search, f->store.metric, FIXTURE_DIM));
    part->rows = atomic_load(&part->chunk->rows);
    for (uint32_t row = 0; row < part->rows; row += row + 100 < part->rows ? 41 : 1) {
        struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN},
                                 .embedding = mn_part_vector(part, row),
                                 .k = 20,
                                 .target = 0.9};
        ok(mn_recall_search(&search, &snapshot, &query));
        assert_int_equal(search.hit_count, 20);
        assert_true(search.hits[0].similarity > 1 - 1e-6);
        for (uint32_t i = 0; i < search.hit_count; i++) /* no row is in two files at once */
            for (uint32_t j = 0; j < i; j++)
                assert_int_not_equal(search.hits[i].row, search.hits[j].row);
        query.scope.after = mn_part_at(part, row) - 300; /* times rise with the rows */
        ok(mn_recall_search(&search, &snapshot, &query));
        assert_int_equal(search.hit_count, 20);
        assert_true(search.hits[0].similarity > 1 - 1e-6);
        for (uint32_t i = 0; i < search.hit_count; i++)
            assert_true(search.hits[i].row + 300 >= row);
    }
    mn_search_free(&search);
}

/* By cluster when there are enough of them, at first, and then again and again; what came since is flat. */
static void a_growing_chunk_is_laid_out_anew_as_it_grows(void **state)
{
    struct coding t = coding_new();
    struct mn_tail_codes codes;
    uint32_t layouts = 0, before = 0;
    put(&t, 1, 1);
    struct mn_part part = *pin(&t);
    mn_reader_unpin(t.reader);
    show_codebook(&t, 1);
    for (uint64_t id = 2; id < 2 * MN_TAIL_CODER_CLUSTER_MIN + 1500; id += 331) {
        put(&t, id, 331);
        code_all(&t);
        if (id + 331 < 33)
            continue;
        part.ivf = map_codes(&t, &codes);
        uint32_t rows = (uint32_t)id + 330, clustered = mn_ivf_flat(part.ivf) ? 0 : part.ivf->rows;
        assert_true(rows - mn_ivf_coded(part.ivf) < 32);
        assert_true(rows - clustered < MN_TAIL_CODER_CLUSTER_MIN + 32);
        assert_int_equal(statistic(t.f, MN_STAT_tail_clustered_rows), clustered);
        assert_int_equal(statistic(t.f, MN_STAT_tail_coded_rows), mn_ivf_coded(part.ivf));
        if (clustered != before) {
            layouts++;
            check_clustered(t.f, &part);
            find_in(t.f, &part);
            another_coder(&t); /* adopts what there is */
        }
        if (clustered > 0 && part.ivf->fresh)
            check_flat_of(t.f, &part, part.ivf->fresh);
        before = clustered;
        mn_tail_codes_unmap(&codes);
    }
    assert_int_equal(layouts, 2);
    part.ivf = map_codes(&t, &codes);
    assert_non_null(part.ivf->fresh);
    find_in(t.f, &part);
    check_clustered(t.f, &part);
    check_flat_of(t.f, &part, part.ivf->fresh);
    mn_tail_codes_unmap(&codes);
    t.now += MN_TAIL_CODER_SETTLED_NS; /* no more come: all of it */
    code_all(&t);
    part.ivf = map_codes(&t, &codes);
    assert_null(part.ivf->fresh);
    assert_true(part.rows - part.ivf->rows < 32);
    check_clustered(t.f, &part);
    mn_tail_codes_unmap(&codes);
    put(&t, 9000, MN_TAIL_CODER_REST_MIN / 2); /* not worth it */
    code_all(&t);
    t.now += MN_TAIL_CODER_SETTLED_NS;
    code_all(&t);
    part.ivf = map_codes(&t, &codes);
    assert_non_null(part.ivf->fresh);
    mn_tail_codes_unmap(&codes);
    coding_free(&t);
}

/* The view, the codebook and the room may all change while a file is half made. */
static void half_made_clusters_are_given_up(void **state)
{
    for (int steps = 1; steps < 140; steps += 23) {
        struct coding t = coding_new();
        struct mn_tail_codes codes;
        uint32_t worked;
        put(&t, 1, MN_TAIL_CODER_CLUSTER_MIN + 5);
        struct mn_part part = *pin(&t);
        code_all(&t);
        seal(&t);
        show_codebook(&t, 1);
        code_all(&t);
        t.now += MN_TAIL_CODER_SETTLED_NS;
        for (int i = 0; i < steps; i++)
            ok(mn_tail_coder_turn(t.coder, t.now, &worked));
        if (steps % 2)
            show_codebook(&t, 2);
        else
            another_coder(&t);
        code_all(&t);
        t.now += MN_TAIL_CODER_SETTLED_NS;
        code_all(&t);
        part.ivf = map_codes(&t, &codes);
        assert_int_equal(part.ivf->codebook->gen, steps % 2 ? 2 : 1);
        check_clustered(t.f, &part);
        mn_tail_codes_unmap(&codes);
        coding_free(&t);
    }
}

static void no_room_for_clusters_leaves_the_flat_ones(void **state)
{
    struct coding t = coding_new();
    struct mn_tail_codes codes;
    uint32_t worked = 1;
    enum mn_status status = MN_OK;
    put(&t, 1, MN_TAIL_CODER_CLUSTER_MIN);
    struct mn_part part = *pin(&t);
    code_all(&t);
    seal(&t);
    show_codebook(&t, 1);
    code_all(&t);
    shm_full = true;
    t.now += MN_TAIL_CODER_SETTLED_NS;
    for (int turns = 0; status == MN_OK; turns++) {
        assert_true(turns < 1000);
        status = mn_tail_coder_turn(t.coder, t.now, &worked);
    }
    assert_int_equal(status, MN_READ_ONLY);
    part.ivf = map_codes(&t, &codes);
    check_flat(t.f, &part);
    mn_tail_codes_unmap(&codes);
    shm_full = false;
    t.now += MN_TAIL_CODER_RETRY_NS;
    code_all(&t);
    part.ivf = map_codes(&t, &codes);
    check_clustered(t.f, &part);
    mn_tail_codes_unmap(&codes);
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
                const uint8_t *block = ivf->blocks + (size_t)(row / 32) * mn_ivf_block_bytes(WIDTH);
                whole = whole && mn_ivf_lanes(block, WIDTH)->error[row % 32] > 0 && ivf->fine[row].error > 0;
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
    put(&t, 1, 1);
    pin(&t);
    mn_reader_unpin(t.reader);
    assert_int_equal(pthread_create(&coder, NULL, keep_coding, &turmoil), 0);
    assert_int_equal(pthread_create(&reader, NULL, keep_looking, &turmoil), 0);
    for (uint64_t id = 2; id < 12000; id += 10) {
        put(&t, id, 10);
        if (id % 3000 < 10)
            seal(&t);
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
        cmocka_unit_test(a_newer_codebook_makes_codes_anew),
        cmocka_unit_test(a_sealed_chunk_is_coded_by_cluster_after_a_while),
        cmocka_unit_test(a_growing_chunk_is_laid_out_anew_as_it_grows),
        cmocka_unit_test(half_made_clusters_are_given_up),
        cmocka_unit_test(no_room_for_clusters_leaves_the_flat_ones),
        cmocka_unit_test(readers_see_whole_blocks_while_everything_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
