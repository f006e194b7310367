/*
 * test_stats_reply.c - the statistics in their three forms.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "actors/stats_reply.h"
#include "actors/wire_read.h"
#include "shm/instance.h"

static struct mn_instance instance;

static int set_up(void **state)
{
    struct mn_instance_shape shape = {.dim = 8, .reader_slots = 16};
    if (mn_instance_create(&instance, &shape) != MN_OK)
        return -1;
    struct mn_stats_page *page = mn_stats_page(&instance.stats, 2);
    mn_stat_add(page, MN_STAT_write_requests, 41);
    mn_stat_add(page, MN_STAT_write_requests, 1);
    mn_stat_set(page, MN_STAT_tail_rows, 7);
    for (uint64_t us = 1; us <= 100; us++)
        mn_stat_record(page, MN_STAT_recall_us, us);
    return 0;
}

static int tear_down(void **state)
{
    char path[sizeof instance.path];
    memcpy(path, instance.path, sizeof path);
    mn_instance_close(&instance);
    return mn_instance_remove(path) != MN_OK;
}

static void as_a_map(void **state)
{
    struct mn_reply reply;
    struct mn_wire map, fields[3];
    static const char *const names[] = {"write_requests", "tail_rows", "recall_us"};
    static const char *const rows[] = {"count", "sum", "max", "p50", "p90", "p99", "p999"};
    struct mn_wire values[7];
    mn_reply_init(&reply);
    mn_stats_pack(&instance.stats, &reply);
    assert_int_equal(mn_reply_end(&reply, ""), MN_OK);
    assert_int_equal(mn_wire_check(reply.data, reply.bytes, &map), MN_OK);
    assert_int_equal(map.count, MN_STAT_COUNT);
    assert_int_equal(mn_wire_fields(&map, "stats", names, 3, false, fields), MN_OK);
    assert_int_equal(fields[0].u64, 42);
    assert_int_equal(fields[1].u64, 7);
    assert_int_equal(fields[2].type, MN_WIRE_MAP);
    assert_int_equal(fields[2].count, 7);
    assert_int_equal(mn_wire_fields(&fields[2], "recall_us", rows, 7, true, values), MN_OK);
    assert_int_equal(values[0].u64, 100);
    assert_int_equal(values[1].u64, 5050);
    assert_int_equal(values[2].u64, 100);
    assert_in_range(values[3].u64, 50, 57);
    assert_in_range(values[5].u64, 99, 100);
    mn_reply_free(&reply);
}

static void as_json(void **state)
{
    char *text = mn_stats_json(&instance.stats);
    assert_non_null(text);
    assert_int_equal(text[0], '{');
    assert_non_null(strstr(text, "\"write_requests\":42"));
    assert_non_null(strstr(text, "\"recall_us\":{\"count\":100,\"sum\":5050,\"max\":100,"));
    free(text);
}

static void as_prometheus(void **state)
{
    char *text = mn_stats_prometheus(&instance.stats);
    assert_non_null(text);
    assert_non_null(strstr(text, "# TYPE mneme_write_requests_total counter\nmneme_write_requests_total 42\n"));
    assert_non_null(strstr(text, "# TYPE mneme_tail_rows gauge\nmneme_tail_rows 7\n"));
    assert_non_null(strstr(text, "# TYPE mneme_recall_us summary\nmneme_recall_us{quantile=\"0.5\"} "));
    assert_non_null(strstr(text, "mneme_recall_us_sum 5050\nmneme_recall_us_count 100\n"));
    assert_int_equal(text[strlen(text) - 1], '\n');
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_a_map),
        cmocka_unit_test(as_json),
        cmocka_unit_test(as_prometheus),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
