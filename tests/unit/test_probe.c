/*
 * test_probe.c - engine/probe: which clusters a query looks into, in which order, and the rule that ends it.
 */
#include "engine/probe.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/fake_parts.h"

#define ROWS 3000
#define DIM  40

struct set {
    struct fake_parts *parts;
    const struct mn_codebook *codebook;
    struct fake_memory memories[ROWS];
    const struct fake_memory *list[ROWS];
    float vectors[ROWS][DIM];
    uint64_t random;
};

static float uniform(struct set *s)
{
    s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(int32_t)(s->random >> 32) * 0x1p-31f;
}

static struct set *set_new(enum mn_metric metric, uint32_t clusters)
{
    struct set *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->parts = fake_parts_new(DIM, metric);
    for (uint32_t i = 0; i < ROWS; i++) {
        for (uint32_t j = 0; j < DIM; j++)
            s->vectors[i][j] = uniform(s) + (float)(i % 17 == j) * 3;
        s->memories[i] = (struct fake_memory){.space = "default",
                                              .id = fake_id(i),
                                              .born = 1,
                                              .died = MN_ALIVE,
                                              .at = i,
                                              .expires = MN_NEVER,
                                              .vector = s->vectors[i]};
        s->list[i] = &s->memories[i];
    }
    fake_parts_tail(s->parts, s->list, ROWS);
    s->codebook = fake_parts_codebook(s->parts, 1, clusters);
    return s;
}

static void set_free(struct set *s)
{
    fake_parts_free(s->parts);
    free(s);
}

/* |q - c|^2, or -<c, q> - <mean, q>. */
static double true_gap(const struct set *s, const struct mn_probe *probe, const float *query, uint32_t cluster)
{
    const struct mn_codebook *codebook = s->codebook;
    const float *c = codebook->centroids + (size_t)cluster * codebook->width;
    double square = 0, product = 0;
    for (uint32_t i = 0; i < codebook->width; i++) {
        double d = (double)probe->rotated[i] - (double)c[i];
        square += d * d;
        product += (double)probe->rotated[i] * (double)c[i];
    }
    for (uint32_t i = 0; i < DIM; i++)
        product += (double)codebook->mean[i] * (double)query[i];
    return codebook->metric == MN_METRIC_IP ? -product : square;
}

static float length_of(const float x[DIM])
{
    float square = 0;
    for (uint32_t i = 0; i < DIM; i++)
        square += x[i] * x[i];
    return sqrtf(square);
}

static void all_clusters_come_once_and_in_order(void **state)
{
    for (int metric = 0; metric < MN_METRIC_COUNT; metric++) {
        struct set *s = set_new((enum mn_metric)metric, 200);
        struct mn_probe probe = {0};
        assert_int_equal(mn_probe_reserve(&probe, s->codebook), MN_OK);
        for (uint32_t turn = 0; turn < 20; turn++) {
            float query[DIM];
            bool seen[256] = {false};
            struct mn_probe_place place;
            uint32_t taken = 0, late = 0, foretold = 0, next;
            float last = -INFINITY;
            for (uint32_t i = 0; i < DIM; i++)
                query[i] = uniform(s) + (float)(turn % 17 == i) * 3;
            mn_probe_begin(&probe, mn_kernels_best(), query, 1);
            mn_probe_sort(&probe);
            assert_int_equal(mn_probe_next(&probe), MN_NONE);
            while (next = mn_probe_next(&probe), mn_probe_take(&probe, &place)) {
                assert_true(place.cluster < s->codebook->clusters && !seen[place.cluster]);
                foretold += next == place.cluster;
                seen[place.cluster] = true;
                assert_true(fabs((double)place.gap - true_gap(s, &probe, query, place.cluster)) < 0.3);
                assert_true(place.gap == mn_probe_gap(&probe, place.cluster));
                float energy = s->codebook->energies[place.cluster], norm = length_of(query);
                float wide = metric == MN_METRIC_IP ? -2.5f * norm * sqrtf(energy / DIM) : 0.5f * energy;
                float order = place.gap + wide;
                late += order < last; /* found out too late to be in order: seldom */
                last = order > last ? order : last;
                taken++;
            }
            assert_int_equal(taken, s->codebook->clusters);
            assert_true(late < taken / 4);
            assert_true(foretold > taken * 3 / 4 && mn_probe_next(&probe) == MN_NONE);
        }
        mn_probe_free(&probe);
        set_free(s);
    }
}

/* Those that nobody wants never come; each of the others does. */
static void some_clusters_can_be_left_out(void **state)
{
    struct set *s = set_new(MN_METRIC_L2, 300);
    struct mn_probe probe = {0};
    struct mn_probe_place place;
    static uint32_t all[300];
    assert_int_equal(mn_probe_reserve(&probe, s->codebook), MN_OK);
    for (uint32_t one_in = 1; one_in < 400; one_in = one_in * 3 + 1) {
        uint32_t count = 0, expected = 0, taken = 0;
        mn_probe_begin(&probe, mn_kernels_best(), s->vectors[one_in], 1);
        mn_probe_sort(&probe);
        while (mn_probe_take(&probe, &place))
            all[count++] = place.cluster;
        assert_int_equal(count, s->codebook->clusters);
        mn_probe_begin(&probe, mn_kernels_best(), s->vectors[one_in], 1);
        mn_probe_want_some(&probe);
        for (uint32_t c = 0; c < count; c += one_in)
            probe.wanted[c / 64] |= UINT64_C(1) << c % 64;
        for (uint32_t i = 0; i < count; i++)
            expected += all[i] % one_in == 0;
        mn_probe_sort(&probe);
        for (; mn_probe_take(&probe, &place); taken++)
            assert_true(taken < expected && place.cluster % one_in == 0);
        assert_int_equal(taken, expected);
    }
    mn_probe_free(&probe);
    set_free(s);
}

static void strain_rises_with_rank_and_distance(void **state)
{
    struct set *s = set_new(MN_METRIC_L2, 64);
    struct mn_probe probe = {0};
    assert_int_equal(mn_probe_reserve(&probe, s->codebook), MN_OK);
    mn_probe_begin(&probe, mn_kernels_best(), s->vectors[5], 1);
    struct mn_probe_place near = {.gap = 40, .cluster = 3}, far = {.gap = 90, .cluster = 3};
    assert_true(mn_probe_strain(&probe, 5, 0, &near, 3) < mn_probe_strain(&probe, 5, 1, &near, 3));
    assert_true(mn_probe_strain(&probe, 5, 4, &near, 3) < mn_probe_strain(&probe, 5, 4, &far, 3));
    assert_true(mn_probe_strain(&probe, 5, 4, &near, 3) > mn_probe_strain(&probe, 5, 4, &near, 3.5f));
    /* A gap of nothing: the query is a centroid. */
    near.gap = 0;
    assert_true(mn_probe_strain(&probe, 5, 4, &near, 1e-3f) == HUGE_VAL);
    assert_true(mn_probe_strain(&probe, 5, 4, &near, 1e9f) == -HUGE_VAL);
    mn_probe_free(&probe);
    set_free(s);
}

static void one_scratch_serves_codebooks_of_any_size(void **state)
{
    struct set *s = set_new(MN_METRIC_COSINE, 33);
    const struct mn_codebook *large = fake_parts_codebook(s->parts, 2, 300),
                             *plain = fake_parts_codebook(s->parts, 0, 0);
    const struct mn_codebook *order[] = {s->codebook, large, plain, s->codebook, large};
    struct mn_probe probe = {0};
    for (size_t i = 0; i < MN_ARRAY_LEN(order); i++) {
        struct mn_probe_place place;
        uint32_t taken = 0;
        assert_int_equal(mn_probe_reserve(&probe, order[i]), MN_OK);
        assert_ptr_equal(probe.codebook, order[i]);
        mn_probe_begin(&probe, mn_kernels_best(), s->vectors[7], 0.2f);
        if (order[i] == plain)
            continue;
        mn_probe_sort(&probe);
        while (mn_probe_take(&probe, &place))
            taken++;
        assert_int_equal(taken, order[i]->clusters);
    }
    mn_probe_free(&probe);
    set_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_clusters_come_once_and_in_order),
        cmocka_unit_test(some_clusters_can_be_left_out),
        cmocka_unit_test(strain_rises_with_rank_and_distance),
        cmocka_unit_test(one_scratch_serves_codebooks_of_any_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
