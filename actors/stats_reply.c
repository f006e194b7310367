/*
 * stats_reply.c - the statistics as a map, as JSON, as Prometheus text: one table (shm/stats.def), three printers.
 */
#include "actors/stats_reply.h"

#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

/* Rows of a summary: its name in maps, its place, its quantile in Prometheus (NULL: not one). */
static const struct {
    const char *name;
    size_t offset;
    const char *quantile;
} rows[] = {
    {"count", offsetof(struct mn_stat_summary, count), NULL},  {"sum", offsetof(struct mn_stat_summary, sum), NULL},
    {"max", offsetof(struct mn_stat_summary, max), NULL},      {"p50", offsetof(struct mn_stat_summary, p50), "0.5"},
    {"p90", offsetof(struct mn_stat_summary, p90), "0.9"},     {"p99", offsetof(struct mn_stat_summary, p99), "0.99"},
    {"p999", offsetof(struct mn_stat_summary, p999), "0.999"},
};

static uint64_t row_value(const struct mn_stat_summary *summary, size_t row)
{
    uint64_t value;
    memcpy(&value, (const char *)summary + rows[row].offset, sizeof value);
    return value;
}

void mn_stats_pack(const struct mn_stats *stats, struct mn_reply *reply)
{
    msgpack_pack_map(&reply->pack, MN_STAT_COUNT);
    for (unsigned i = 0; i < MN_STAT_COUNT; i++) {
        enum mn_stat stat = (enum mn_stat)i;
        const struct mn_stat_info *info = mn_stat_info(stat);
        if (info->kind != MN_STAT_HISTOGRAM) {
            mn_reply_uint(reply, info->name, mn_stats_value(stats, stat));
            continue;
        }
        struct mn_stat_summary summary;
        mn_stats_summary(stats, stat, &summary);
        mn_reply_key(reply, info->name);
        msgpack_pack_map(&reply->pack, MN_ARRAY_LEN(rows));
        for (size_t row = 0; row < MN_ARRAY_LEN(rows); row++)
            mn_reply_uint(reply, rows[row].name, row_value(&summary, row));
    }
}

static json_t *summary_json(const struct mn_stat_summary *summary)
{
    json_t *map = json_object();
    for (size_t row = 0; row < MN_ARRAY_LEN(rows); row++)
        json_object_set_new(map, rows[row].name, json_integer((json_int_t)row_value(summary, row)));
    return map;
}

char *mn_stats_json(const struct mn_stats *stats)
{
    json_t *all = json_object();
    for (unsigned i = 0; i < MN_STAT_COUNT; i++) {
        enum mn_stat stat = (enum mn_stat)i;
        const struct mn_stat_info *info = mn_stat_info(stat);
        struct mn_stat_summary summary;
        if (info->kind == MN_STAT_HISTOGRAM) {
            mn_stats_summary(stats, stat, &summary);
            json_object_set_new(all, info->name, summary_json(&summary));
        } else {
            json_object_set_new(all, info->name, json_integer((json_int_t)mn_stats_value(stats, stat)));
        }
    }
    char *text = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    return text;
}

/* Help and type; the name that samples carry is written to `sample` (counters end in _total, as Prometheus asks). */
static void print_head(FILE *out, const struct mn_stat_info *info, char *sample, size_t size)
{
    static const char *const types[] = {
        [MN_STAT_COUNTER] = "counter", [MN_STAT_GAUGE] = "gauge", [MN_STAT_HISTOGRAM] = "summary"};
    snprintf(sample, size, "mneme_%s%s", info->name, info->kind == MN_STAT_COUNTER ? "_total" : "");
    fprintf(out, "# HELP %s %s (%s)\n# TYPE %s %s\n", sample, info->help, info->unit, sample, types[info->kind]);
}

static void print_summary(FILE *out, const char *name, const struct mn_stat_summary *summary)
{
    for (size_t row = 0; row < MN_ARRAY_LEN(rows); row++)
        if (rows[row].quantile)
            fprintf(out, "%s{quantile=\"%s\"} %llu\n", name, rows[row].quantile,
                    (unsigned long long)row_value(summary, row));
    fprintf(out, "%s_sum %llu\n%s_count %llu\n", name, (unsigned long long)summary->sum, name,
            (unsigned long long)summary->count);
    /* A summary has no maximum of its own in this format. */
    fprintf(out, "# TYPE %s_max gauge\n%s_max %llu\n", name, name, (unsigned long long)summary->max);
}

char *mn_stats_prometheus(const struct mn_stats *stats)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    for (unsigned i = 0; i < MN_STAT_COUNT; i++) {
        enum mn_stat stat = (enum mn_stat)i;
        char sample[128];
        print_head(out, mn_stat_info(stat), sample, sizeof sample);
        if (mn_stat_info(stat)->kind == MN_STAT_HISTOGRAM) {
            struct mn_stat_summary summary;
            mn_stats_summary(stats, stat, &summary);
            print_summary(out, sample, &summary);
        } else {
            fprintf(out, "%s %llu\n", sample, (unsigned long long)mn_stats_value(stats, stat));
        }
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
