/*
 * test_tail_coder_clusters.c - tail chunks on a trained codebook: rows lie in the clusters that are nearest, are laid
 * out anew as a chunk grows, and where that fails the flat codes stay.
 */
#include "tests/unit/coding.h"

#include <stdlib.h>

#include "engine/recall.h"
#include "engine/view.h"

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
    struct mn_codes_name name = coding_only_file(t->f);
    ok(mn_tail_codes_map(codes, &t->f->store, &t->f->instance, &name, false));
    return mn_tail_codes_look(codes);
}

static void a_newer_codebook_makes_codes_anew(void **state)
{
    struct coding t = coding_new();
    struct mn_tail_codes codes;
    coding_put(&t, 1, 2000);
    coding_code_all(&t);
    struct mn_codes_name plain = coding_only_file(t.f);
    struct mn_part part = *coding_pin(&t);
    coding_check_flat(t.f, &part);
    show_codebook(&t, 1);
    uint32_t worked;
    ok(mn_tail_coder_turn(t.coder, t.now, &worked)); /* half of them: the old ones serve */
    struct mn_codes_list list = coding_files(t.f);
    assert_int_equal(list.count, 2);
    struct mn_codes_name best = *mn_codes_list_find(&list, plain.instance_gen, plain.wal_number);
    free(list.names);
    fails(MN_NOT_READY, mn_tail_codes_map(&codes, &t.f->store, &t.f->instance, &best, false));
    coding_code_all(&t);
    part.ivf = map_codes(&t, &codes);
    assert_int_equal(part.ivf->rows, 1984);
    assert_int_equal(part.ivf->codebook->gen, 1);
    assert_int_equal(codes.name.serial, best.serial);
    assert_true(atomic_load(&t.f->instance.control->codes_gen) == best.serial);
    coding_check_flat(t.f, &part);
    mn_tail_codes_unmap(&codes);
    coding_free(&t);
}

/* Every row in the cluster that is nearest, in order of rows, with the codes that it must have. */
static void check_clustered(const struct fixture *f, const struct mn_part *part)
{
    const struct mn_ivf *ivf = part->ivf;
    const struct mn_codebook *codebook = ivf->codebook;
    uint32_t block_bytes = mn_ivf_block_bytes(CODING_WIDTH);
    struct coding_expected *blocks = aligned_alloc(64, ivf->block_count * sizeof *blocks);
    assert_non_null(blocks);
    assert_true(mn_ivf_holds(ivf)); /* every row once */
    for (uint32_t b = 0; b < ivf->block_count; b++)
        mn_ivf_clear_block(blocks[b].block, CODING_WIDTH);
    for (uint32_t c = 0; c < ivf->clusters; c++) {
        for (uint32_t slot = ivf->first_slot[c]; slot < ivf->first_slot[c + 1]; slot++) {
            uint32_t row = mn_ivf_row(ivf, slot), lane = mn_ivf_lane(ivf, c, slot), nearest;
            struct coding_expected *e = &blocks[lane / 32];
            _Alignas(64) float x[CODING_WIDTH];
            assert_true(slot == ivf->first_slot[c] || row > mn_ivf_row(ivf, slot - 1));
            coding_expect_row(f, part, row, lane % 32, codebook->centroids + (size_t)c * CODING_WIDTH, e);
            assert_memory_equal(ivf->codes8 + (size_t)slot * CODING_WIDTH, e->codes8, CODING_WIDTH);
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
    coding_put(&t, 1, MN_TAIL_CODER_CLUSTER_MIN);
    struct mn_part part = *coding_pin(&t);
    assert_int_equal(part.rows, MN_TAIL_CODER_CLUSTER_MIN);
    coding_code_all(&t);
    coding_seal(&t);
    show_codebook(&t, 1);
    coding_code_all(&t);
    part.ivf = map_codes(&t, &codes); /* the plain ones: they are about to be replaced, one way or the other */
    assert_int_equal(part.ivf->codebook->gen, 0);
    mn_tail_codes_unmap(&codes);
    t.now += MN_TAIL_CODER_SETTLED_NS;
    coding_code_all(&t);
    part.ivf = map_codes(&t, &codes);
    assert_int_equal(part.ivf->clusters, part.ivf->codebook->clusters);
    assert_int_equal(part.ivf->rows, MN_TAIL_CODER_CLUSTER_MIN);
    check_clustered(t.f, &part);
    assert_int_equal(coding_statistic(t.f, MN_STAT_tail_clustered_rows), MN_TAIL_CODER_CLUSTER_MIN);
    mn_tail_codes_unmap(&codes);
    struct mn_codes_name name = coding_only_file(t.f);
    coding_another_coder(&t);
    coding_code_all(&t);
    assert_int_equal(coding_only_file(t.f).serial, name.serial); /* adopted */
    /* A newer codebook: by cluster once more, after the same while. */
    show_codebook(&t, 2);
    coding_code_all(&t);
    t.now += MN_TAIL_CODER_SETTLED_NS;
    coding_code_all(&t);
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
    coding_put(&t, 1, 1);
    struct mn_part part = *coding_pin(&t);
    mn_reader_unpin(t.reader);
    show_codebook(&t, 1);
    for (uint64_t id = 2; id < 2 * MN_TAIL_CODER_CLUSTER_MIN + 1500; id += 331) {
        coding_put(&t, id, 331);
        coding_code_all(&t);
        if (id + 331 < 33)
            continue;
        part.ivf = map_codes(&t, &codes);
        uint32_t rows = (uint32_t)id + 330, clustered = mn_ivf_flat(part.ivf) ? 0 : part.ivf->rows;
        assert_true(rows - mn_ivf_coded(part.ivf) < 32);
        assert_true(rows - clustered < MN_TAIL_CODER_CLUSTER_MIN + 32);
        assert_int_equal(coding_statistic(t.f, MN_STAT_tail_clustered_rows), clustered);
        assert_int_equal(coding_statistic(t.f, MN_STAT_tail_coded_rows), mn_ivf_coded(part.ivf));
        if (clustered != before) {
            layouts++;
            check_clustered(t.f, &part);
            find_in(t.f, &part);
            coding_another_coder(&t); /* adopts what there is */
        }
        if (clustered > 0 && part.ivf->fresh)
            coding_check_flat_of(t.f, &part, part.ivf->fresh);
        before = clustered;
        mn_tail_codes_unmap(&codes);
    }
    assert_int_equal(layouts, 2);
    part.ivf = map_codes(&t, &codes);
    assert_non_null(part.ivf->fresh);
    find_in(t.f, &part);
    check_clustered(t.f, &part);
    coding_check_flat_of(t.f, &part, part.ivf->fresh);
    mn_tail_codes_unmap(&codes);
    t.now += MN_TAIL_CODER_SETTLED_NS; /* no more come: all of it */
    coding_code_all(&t);
    part.ivf = map_codes(&t, &codes);
    assert_null(part.ivf->fresh);
    assert_true(part.rows - part.ivf->rows < 32);
    check_clustered(t.f, &part);
    mn_tail_codes_unmap(&codes);
    coding_put(&t, 9000, MN_TAIL_CODER_REST_MIN / 2); /* not worth it */
    coding_code_all(&t);
    t.now += MN_TAIL_CODER_SETTLED_NS;
    coding_code_all(&t);
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
        coding_put(&t, 1, MN_TAIL_CODER_CLUSTER_MIN + 5);
        struct mn_part part = *coding_pin(&t);
        coding_code_all(&t);
        coding_seal(&t);
        show_codebook(&t, 1);
        coding_code_all(&t);
        t.now += MN_TAIL_CODER_SETTLED_NS;
        for (int i = 0; i < steps; i++)
            ok(mn_tail_coder_turn(t.coder, t.now, &worked));
        if (steps % 2)
            show_codebook(&t, 2);
        else
            coding_another_coder(&t);
        coding_code_all(&t);
        t.now += MN_TAIL_CODER_SETTLED_NS;
        coding_code_all(&t);
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
    coding_put(&t, 1, MN_TAIL_CODER_CLUSTER_MIN);
    struct mn_part part = *coding_pin(&t);
    coding_code_all(&t);
    coding_seal(&t);
    show_codebook(&t, 1);
    coding_code_all(&t);
    coding_shm_full = true;
    t.now += MN_TAIL_CODER_SETTLED_NS;
    for (int turns = 0; status == MN_OK; turns++) {
        assert_true(turns < 1000);
        status = mn_tail_coder_turn(t.coder, t.now, &worked);
    }
    assert_int_equal(status, MN_READ_ONLY);
    part.ivf = map_codes(&t, &codes);
    coding_check_flat(t.f, &part);
    mn_tail_codes_unmap(&codes);
    coding_shm_full = false;
    t.now += MN_TAIL_CODER_RETRY_NS;
    coding_code_all(&t);
    part.ivf = map_codes(&t, &codes);
    check_clustered(t.f, &part);
    mn_tail_codes_unmap(&codes);
    coding_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_newer_codebook_makes_codes_anew),
        cmocka_unit_test(a_sealed_chunk_is_coded_by_cluster_after_a_while),
        cmocka_unit_test(a_growing_chunk_is_laid_out_anew_as_it_grows),
        cmocka_unit_test(half_made_clusters_are_given_up),
        cmocka_unit_test(no_room_for_clusters_leaves_the_flat_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
