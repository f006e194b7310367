/*
 * cmd_stat.c - `mneme stat`: every statistic of the cluster, as a table, as JSON or for Prometheus.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_time.h"
#include "shm/stats.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

static const struct mn_cli_option options[] = {
    {"prometheus", 'p', NULL, "the text that Prometheus scrapes"},
    {"help-text", 'v', NULL, "with what each statistic means"},
    {"zero", 'z', NULL, "also those that are zero"},
    {0},
};

/* The declaration of a statistic, when this program knows it. */
static const struct mn_stat_info *info_of(const char *name)
{
    for (unsigned i = 0; i < MN_STAT_COUNT; i++)
        if (strcmp(mn_stat_info((enum mn_stat)i)->name, name) == 0)
            return mn_stat_info((enum mn_stat)i);
    return NULL;
}

static const char *print_number(const struct mn_stat_info *info, uint64_t value, char *out)
{
    if (info && strcmp(info->unit, "ns") == 0)
        return mn_cli_time_print_length(value, out);
    if (info && strcmp(info->unit, "us") == 0)
        return mn_cli_time_print_length(value * 1000, out);
    if (info && strcmp(info->unit, "bytes") == 0)
        return mn_cli_out_bytes((double)value, out);
    return mn_cli_out_count(value, out);
}

static void add_counter(struct mn_cli_out_table *t, const struct mn_stat_info *info, const char *name, uint64_t value)
{
    char text[MN_CLI_TIME_SIZE];
    mn_cli_out_cell(t, "%s", name);
    mn_cli_out_cell(t, "%s", print_number(info, value, text));
    for (int i = 0; i < 4; i++)
        mn_cli_out_cell(t, "%s", "");
}

static void add_histogram(struct mn_cli_out_table *t, const struct mn_stat_info *info, const char *name,
                          struct mneme_value value)
{
    static const char *const parts[] = {"p50", "p99", "p999", "max"};
    char text[MN_CLI_TIME_SIZE];
    mn_cli_out_cell(t, "%s", name);
    mn_cli_out_cell(t, "%s", mn_cli_out_count(mneme_value_u64(mneme_value_get(value, "count"), 0), text));
    for (size_t i = 0; i < MN_ARRAY_LEN(parts); i++)
        mn_cli_out_cell(t, "%s", print_number(info, mneme_value_u64(mneme_value_get(value, parts[i]), 0), text));
}

static bool is_zero(struct mneme_value value)
{
    if (mneme_value_type(value) == MNEME_TYPE_MAP)
        return mneme_value_u64(mneme_value_get(value, "count"), 0) == 0;
    return mneme_value_f64(value, 0) == 0;
}

static enum mn_status print_table(const struct mn_cli *cli, const struct mn_cli_args *args, struct mneme_value stats,
                                  const char *pattern)
{
    struct mn_cli_out_table t;
    bool help = mn_cli_args_has(args, "help-text"), zero = mn_cli_args_has(args, "zero") || *pattern != '*';
    size_t shown = 0;
    mn_cli_out_begin(
        &t, cli, help ? "statistic|-value|-p50|-p99|-p99.9|-max|meaning" : "statistic|-value|-p50|-p99|-p99.9|-max");
    for (size_t i = 0; i < mneme_value_length(stats); i++) {
        struct mneme_value value = mneme_value_entry(stats, i);
        size_t size;
        const char *bytes = mneme_value_bytes(mneme_value_key(stats, i), &size);
        char name[64] = "";
        if (!bytes || size >= sizeof name)
            continue;
        memcpy(name, bytes, size);
        if (fnmatch(pattern, name, 0) != 0 || (!zero && is_zero(value)))
            continue;
        const struct mn_stat_info *info = info_of(name);
        shown++;
        if (mneme_value_type(value) == MNEME_TYPE_MAP)
            add_histogram(&t, info, name, value);
        else
            add_counter(&t, info, name, mneme_value_u64(value, 0));
        if (help)
            mn_cli_out_cell(&t, "%s", info ? info->help : "");
    }
    if (shown == 0 && strcmp(pattern, "*") != 0)
        return MN_FAIL(MN_NOT_FOUND, "no statistic matches `%s`; `mneme stat --zero` lists them all", pattern);
    mn_cli_out_end(&t);
    return MN_OK;
}

/* The reply as JSON, reduced to the names that match. */
static enum mn_status print_json(const struct mn_cli *cli, struct mneme_value stats, const char *pattern)
{
    const char *name;
    json_t *value;
    void *next;
    json_t *json = mn_cli_json_from_value(stats);
    json_object_foreach_safe(json, next, name, value)
    {
        if (fnmatch(pattern, name, 0) != 0)
            json_object_del(json, name);
    }
    return mn_cli_json_print(json, cli->out_is_terminal);
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mneme_reply *reply;
    bool prometheus = mn_cli_args_has(args, "prometheus");
    MN_TRY(mn_cli_args_words(args, 0, 1, "one pattern of names, in quotes"));
    if (prometheus && (cli->json || args->word_count))
        return MN_FAIL(MN_USAGE, "--prometheus goes with neither --json nor a pattern");
    const char *pattern = args->word_count ? args->words[0] : "*";
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_stats(cli->client, prometheus ? "prometheus" : "map", &reply));
    enum mn_status status = MN_OK;
    size_t size;
    const char *text = mneme_value_bytes(mneme_reply_get(reply, "text"), &size);
    if (prometheus && (!text || fwrite(text, 1, size, stdout) != size))
        status = MN_FAIL(MN_SYSTEM, "could not write to stdout");
    else if (!prometheus && cli->json)
        status = print_json(cli, mneme_reply_get(reply, "stats"), pattern);
    else if (!prometheus)
        status = print_table(cli, args, mneme_reply_get(reply, "stats"), pattern);
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_stat = {
    .usage = "[PATTERN] [--prometheus]",
    .options = options,
    .details = "Prints the statistics of all processes, those that are not zero unless a pattern or --zero asks for "
               "more. Histograms\n"
               "show how many values they hold, and their quantiles.\n",
    .examples = "  mneme stat\n"
                "  mneme stat 'write_*' --help-text\n"
                "  mneme stat wal_syncs --json\n"
                "  mneme stat --prometheus\n",
    .run = run,
};
