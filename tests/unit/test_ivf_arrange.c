/*
 * test_ivf_arrange.c - engine/ivf_arrange: which clusters share blocks, and what a directory is believed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/codebook.h"

#define CLUSTERS 200u
#define SUPERS   10u
#define WIDTH    64u
#define ROWS_MAX (CLUSTERS * 100)

/* A codebook of nothing but centroids, and a directory on it. */
struct directory {
    struct mn_codebook codebook;
    struct mn_ivf ivf;
    _Alignas(64) float centroids[CLUSTERS][WIDTH];
    float distances[CLUSTERS];
    uint32_t child[SUPERS + 1], first_slot[CLUSTERS + 1], first_block[CLUSTERS + 1], rest[CLUSTERS], scratch[CLUSTERS];
    uint32_t homes[CLUSTERS * MN_IVF_LANES], slots[ROWS_MAX], order[ROWS_MAX];
    uint64_t random;
};

static struct directory d;

static uint32_t below(uint32_t n)
{
    d.random = d.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(d.random >> 33) % n;
}

/* Of clusters whose first slots stand there. */
static void make_of(uint32_t clusters, uint32_t supers)
{
    d.codebook = (struct mn_codebook){
        .width = WIDTH, .clusters = clusters, .supers = supers, .child = d.child, .centroids = &d.centroids[0][0]};
    for (uint32_t s = 0; s <= supers; s++)
        d.child[s] = s * clusters / supers;
    for (uint32_t c = 0; c < clusters; c++)
        for (uint32_t i = 0; i < WIDTH; i++)
            d.centroids[c][i] = (float)below(1000);
    uint32_t rows = d.first_slot[clusters];
    for (uint32_t slot = 0; slot < rows; slot++) {
        d.order[slot] = rows - 1 - slot;
        d.slots[rows - 1 - slot] = slot;
    }
    uint32_t blocks =
        mn_ivf_arrange(&d.codebook, mn_kernels_best(), d.first_slot, d.first_block, d.rest, d.scratch, d.distances);
    mn_ivf_fill_homes(clusters, d.first_slot, d.first_block, d.rest, blocks, d.homes);
    d.ivf = (struct mn_ivf){.codebook = &d.codebook,
                            .clusters = clusters,
                            .rows = rows,
                            .first_slot = d.first_slot,
                            .first_block = d.first_block,
                            .rest = d.rest,
                            .homes = d.homes,
                            .block_count = blocks,
                            .slots = d.slots,
                            .order = d.order};
}

/* All of them, of up to `most` rows. */
static void make(uint32_t most)
{
    for (uint32_t c = 0; c < CLUSTERS; c++)
        d.first_slot[c + 1] = d.first_slot[c] + below(most + 1);
    make_of(CLUSTERS, SUPERS);
}

/* Some of them, of 1 to 5,000 rows in all; many may be empty, and a few large. */
static void make_any(void)
{
    uint32_t clusters = 2 + below(CLUSTERS - 1), rows = 1 + below(5000), few = 1 + below(clusters);
    uint32_t sizes[CLUSTERS] = {0};
    for (uint32_t row = 0; row < rows; row++)
        sizes[below(2) ? below(clusters) : clusters - 1 - below(few)]++;
    for (uint32_t c = 0; c < clusters; c++)
        d.first_slot[c + 1] = d.first_slot[c] + sizes[c];
    make_of(clusters, 1 + below(clusters < SUPERS ? clusters : SUPERS));
}

static void check_lanes(void)
{
    assert_true(mn_ivf_holds(&d.ivf));
    uint8_t *used = calloc(d.ivf.block_count + 1, MN_IVF_LANES);
    assert_non_null(used);
    for (uint32_t c = 0; c < d.ivf.clusters; c++) {
        for (uint32_t slot = d.first_slot[c]; slot < d.first_slot[c + 1]; slot++) {
            uint32_t lane = mn_ivf_lane(&d.ivf, c, slot);
            assert_true(lane < d.ivf.block_count * MN_IVF_LANES);
            assert_int_equal(used[lane]++, 0);
        }
    }
    free(used);
}

static void every_slot_has_a_lane_of_its_own(void **state)
{
    static const uint32_t sizes[] = {0, 1, 5, 31, 33, 99};
    for (size_t n = 0; n < MN_ARRAY_LEN(sizes); n++) {
        make(sizes[n]);
        check_lanes();
    }
}

static void clusters_of_any_shape_hold(void **state)
{
    for (uint32_t n = 0; n < 500; n++) {
        make_any();
        check_lanes();
    }
}

/* Homes of one block are children of one super-centroid, and few lanes are left over. */
static void neighbours_share(void **state)
{
    make(99);
    uint32_t shared = d.ivf.block_count - d.first_block[CLUSTERS], empty = 0;
    for (uint32_t b = 0; b < shared; b++) {
        const uint32_t *homes = d.homes + b * MN_IVF_LANES;
        for (uint32_t lane = 0; lane < MN_IVF_LANES; lane++) {
            empty += homes[lane] == MN_NONE;
            if (homes[lane] != MN_NONE)
                assert_int_equal(homes[lane] / (CLUSTERS / SUPERS), homes[0] / (CLUSTERS / SUPERS));
        }
    }
    assert_true(empty < shared * MN_IVF_LANES / 5);
}

static void a_directory_with_a_wrong_word_is_not_believed(void **state)
{
    make(40);
    uint32_t shared = d.ivf.block_count - d.first_block[CLUSTERS];
    uint32_t *lists[] = {d.first_slot, d.first_block, d.rest, d.homes, d.slots, d.order};
    uint32_t counts[] = {CLUSTERS + 1, CLUSTERS + 1, CLUSTERS, shared * MN_IVF_LANES, d.ivf.rows, d.ivf.rows};
    static const uint32_t off[] = {1, 32, UINT32_MAX, 1u << 31};
    for (size_t n = 0; n < MN_ARRAY_LEN(lists); n++) {
        for (uint32_t i = 0; i < counts[n]; i++) {
            uint32_t was = lists[n][i];
            lists[n][i] += off[i % MN_ARRAY_LEN(off)];
            assert_false(mn_ivf_holds(&d.ivf));
            lists[n][i] = was;
        }
    }
    assert_true(mn_ivf_holds(&d.ivf));
    d.ivf.rows--;
    assert_false(mn_ivf_holds(&d.ivf));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slot_has_a_lane_of_its_own),
        cmocka_unit_test(clusters_of_any_shape_hold),
        cmocka_unit_test(neighbours_share),
        cmocka_unit_test(a_directory_with_a_wrong_word_is_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
