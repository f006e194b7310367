/*
 * test_stats.c - counters, gauges and histograms over pages, and the table by which the segment describes itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/stats.h"

static struct mn_stats make_stats(void)
{
    struct mn_stats stats = {.segment.bytes = mn_stats_bytes()};
    stats.segment.base = aligned_alloc(4096, mn_round_up(mn_stats_bytes(), 4096));
    memset(stats.segment.base, 0, mn_stats_bytes());
    mn_stats_layout(&stats);
    return stats;
}

static void every_statistic_has_its_own_place(void **state)
{
    struct mn_stats stats = make_stats();
    struct mn_stats_page *page = mn_stats_page(&stats, 3);
    for (int i = 0; i < MN_STAT_COUNT; i++) {
        const struct mn_stat_info *info = mn_stat_info((enum mn_stat)i);
        assert_true(strlen(info->name) > 0 && strlen(info->name) < 48);
        assert_true(strlen(info->owner) < 16 && strlen(info->unit) < 16 && strlen(info->help) > 0);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(info->name, mn_stat_info((enum mn_stat)j)->name);
        if (info->kind == MN_STAT_HISTOGRAM) {
            for (int n = 0; n <= i; n++)
                mn_stat_record(page, (enum mn_stat)i, 1);
        } else {
            mn_stat_set(page, (enum mn_stat)i, (uint64_t)i + 1);
        }
    }
    for (int i = 0; i < MN_STAT_COUNT; i++) {
        struct mn_stat_summary summary;
        if (mn_stat_info((enum mn_stat)i)->kind == MN_STAT_HISTOGRAM) {
            mn_stats_summary(&stats, (enum mn_stat)i, &summary);
            assert_int_equal(summary.count, i + 1);
            assert_int_equal(summary.sum, i + 1);
            assert_int_equal(summary.max, 1);
        } else {
            assert_int_equal(mn_stats_value(&stats, (enum mn_stat)i), i + 1);
        }
    }
    free(stats.segment.base);
}

static void pages_are_summed_and_shares_are_not(void **state)
{
    struct mn_stats stats = make_stats();
    for (uint32_t p = 0; p < MN_STATS_PAGES; p++) {
        mn_stat_add(mn_stats_page(&stats, p), MN_STAT_recall_requests, p);
        mn_stat_add(mn_stats_page(&stats, p), MN_STAT_recall_requests, 1);
        mn_stat_set(mn_stats_page(&stats, p), MN_STAT_column_resident_percent, p % 50);
        mn_stat_set(mn_stats_page(&stats, p), MN_STAT_epoch_lag, p % 9);
    }
    uint64_t sum = 0;
    for (uint32_t p = 0; p < MN_STATS_PAGES; p++)
        sum += p + 1;
    assert_int_equal(mn_stats_value(&stats, MN_STAT_recall_requests), sum);
    assert_int_equal(mn_stats_value(&stats, MN_STAT_column_resident_percent), 49);
    assert_int_equal(mn_stats_value(&stats, MN_STAT_epoch_lag), 8);
    mn_stat_add(NULL, MN_STAT_recall_requests, 1); /* a process without a page */
    mn_stat_set(NULL, MN_STAT_epoch_lag, 1);
    mn_stat_record(NULL, MN_STAT_recall_us, 1);
    free(stats.segment.base);
}

static uint64_t quantile_of_one(struct mn_stats stats, uint64_t value)
{
    struct mn_stat_summary summary;
    memset(mn_stats_page(&stats, 0), 0, (size_t)((char *)mn_stats_page(&stats, 1) - (char *)mn_stats_page(&stats, 0)));
    mn_stat_record(mn_stats_page(&stats, 0), MN_STAT_recall_us, value);
    mn_stats_summary(&stats, MN_STAT_recall_us, &summary);
    assert_int_equal(summary.count, 1);
    assert_true(summary.max == value && summary.sum == value);
    assert_true(summary.p50 == value && summary.p999 == value); /* the maximum bounds the bucket */
    uint64_t buckets[MN_HISTOGRAM_BUCKETS];
    mn_stats_buckets(&stats, MN_STAT_recall_us, buckets);
    return mn_stats_quantile(buckets, 0.5);
}

static void a_bucket_is_right_to_an_eighth_at_every_size(void **state)
{
    struct mn_stats stats = make_stats();
    uint64_t before = 0;
    for (uint32_t bit = 0; bit < 64; bit++)
        for (int step = -1; step <= 1; step++) {
            uint64_t value = (UINT64_C(1) << bit) + (uint64_t)(int64_t)step;
            if (bit == 0 && step == -1)
                value = 0;
            uint64_t top = quantile_of_one(stats, value);
            assert_true(top >= value);
            assert_true(top - value <= value / 8);
            assert_true(top >= before || value < before);
            before = top;
        }
    assert_true(quantile_of_one(stats, UINT64_MAX) == UINT64_MAX);
    for (uint64_t small = 0; small < 8; small++)
        assert_int_equal(quantile_of_one(stats, small), small);
    free(stats.segment.base);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void quantiles_of_many_are_right_to_an_eighth(void **state)
{
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    struct mn_stats stats = make_stats();
    struct mn_stat_summary summary;
    uint64_t random = 1, sum = 0, buckets[MN_HISTOGRAM_BUCKETS];
    for (int i = 0; i < COUNT; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        values[i] = random >> (24 + random % 40);
        sum += values[i];
        mn_stat_record(mn_stats_page(&stats, (uint32_t)i % MN_STATS_PAGES), MN_STAT_recall_us, values[i]);
    }
    qsort(values, COUNT, sizeof values[0], by_value);
    mn_stats_summary(&stats, MN_STAT_recall_us, &summary);
    mn_stats_buckets(&stats, MN_STAT_recall_us, buckets);
    assert_int_equal(summary.count, COUNT);
    assert_int_equal(summary.sum, sum);
    assert_int_equal(summary.max, values[COUNT - 1]);
    const struct {
        double q;
        uint64_t told;
    } cases[] = {{0.5, summary.p50}, {0.9, summary.p90}, {0.99, summary.p99}, {0.999, summary.p999}};
    for (size_t i = 0; i < MN_ARRAY_LEN(cases); i++) {
        uint64_t exact = values[(size_t)(cases[i].q * COUNT)];
        assert_true(cases[i].told >= exact && cases[i].told - exact <= exact / 8);
        uint64_t top = mn_stats_quantile(buckets, cases[i].q); /* knows no maximum */
        assert_int_equal(top < summary.max ? top : summary.max, cases[i].told);
    }
    assert_true(mn_stats_quantile(buckets, 0) <= values[0] + values[0] / 8);
    uint64_t last = mn_stats_quantile(buckets, 1);
    assert_true(last >= summary.max && last - summary.max <= summary.max / 8);
    memset(buckets, 0, sizeof buckets);
    assert_int_equal(mn_stats_quantile(buckets, 0.5), 0);
    free(stats.segment.base);
}

static void an_empty_histogram_is_zeros(void **state)
{
    struct mn_stats stats = make_stats();
    struct mn_stat_summary summary, zeros = {0};
    mn_stats_summary(&stats, MN_STAT_recall_us, &summary);
    assert_memory_equal(&summary, &zeros, sizeof summary);
    free(stats.segment.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_statistic_has_its_own_place),
        cmocka_unit_test(pages_are_summed_and_shares_are_not),
        cmocka_unit_test(a_bucket_is_right_to_an_eighth_at_every_size),
        cmocka_unit_test(quantiles_of_many_are_right_to_an_eighth),
        cmocka_unit_test(an_empty_histogram_is_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
