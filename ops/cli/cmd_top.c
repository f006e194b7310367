/*
 * cmd_top.c - `mneme top`: the cluster at a glance, once a second.
 *
 * Two replies of the stats socket make a view: rates are differences between them. The view is composed as lines of
 * text, which curses draws over the last one or, with --once, stdout takes as they are.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_time.h"

#include <curses.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HISTORY = 60, LINES_MAX = 64, LINE_SIZE = 512 };

static const struct mn_cli_option options[] = {
    {"interval", 'n', "DURATION", "time between two looks (default: 1s)"},
    {"once", '1', NULL, "print one view and end; so it is where stdout is no terminal"},
    {0},
};

struct history {
    double values[HISTORY];
    size_t count; /* ever added */
};

struct top {
    struct mn_cli *cli;
    uint64_t interval_ns;
    struct mneme_reply *info, *now, *before; /* of control and of stats */
    uint64_t now_ns, before_ns;
    struct history writes, recalls;
    char lines[LINES_MAX][LINE_SIZE];
    bool heading[LINES_MAX];
    size_t line_count;
};

/* ---- numbers ---- */

static struct mneme_value stat_of(const struct mneme_reply *reply, const char *name)
{
    return mneme_value_get(mneme_reply_get(reply, "stats"), name);
}

static uint64_t value_of(const struct top *t, const char *name)
{
    return mneme_value_u64(stat_of(t->now, name), 0);
}

/* By how much a counter, or one part of a histogram, grew. A restarted role may begin anew: that reads as nothing. */
static double growth(const struct top *t, const char *name, const char *part)
{
    struct mneme_value now = stat_of(t->now, name), before = stat_of(t->before, name);
    if (part) {
        now = mneme_value_get(now, part);
        before = mneme_value_get(before, part);
    }
    double grown = mneme_value_f64(now, 0) - mneme_value_f64(before, 0);
    return t->before && grown > 0 ? grown : 0;
}

static double rate(const struct top *t, const char *name)
{
    double seconds = (double)(t->now_ns - t->before_ns) / 1e9;
    return t->before && seconds > 0 ? growth(t, name, NULL) / seconds : 0;
}

static const char *quantile(const struct top *t, const char *name, const char *part, uint64_t unit_ns, char *out)
{
    return mn_cli_time_print_length(mneme_value_u64(mneme_value_get(stat_of(t->now, name), part), 0) * unit_ns, out);
}

/* The mean of what came in since the last look. */
static const char *recent_mean(const struct top *t, const char *name, uint64_t unit_ns, char *out)
{
    double count = growth(t, name, "count");
    if (count <= 0)
        return "-";
    return mn_cli_time_print_length((uint64_t)(growth(t, name, "sum") / count) * unit_ns, out);
}

static void remember_rate(struct history *h, double value)
{
    h->values[h->count++ % HISTORY] = value;
}

/* The last values as bars, scaled to the largest of them. */
static const char *sparkline(const struct history *h, char *out)
{
    static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    size_t n = h->count < HISTORY ? h->count : HISTORY;
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, h->values[i]);
    out[0] = 0;
    for (size_t i = h->count - n; i < h->count; i++) {
        double share = most > 0 ? h->values[i % HISTORY] / most : 0;
        strcat(out, bars[(size_t)(share * 7.0 + 0.5)]);
    }
    return out;
}

/* ---- the view ---- */

static void put(struct top *t, bool heading, const char *fmt, ...) MN_PRINTF(3, 4);

static void put(struct top *t, bool heading, const char *fmt, ...)
{
    va_list args;
    if (t->line_count == LINES_MAX)
        return;
    va_start(args, fmt);
    vsnprintf(t->lines[t->line_count], LINE_SIZE, fmt, args);
    va_end(args);
    t->heading[t->line_count++] = heading;
}

static int text_of(struct mneme_value value, const char **text)
{
    size_t size;
    *text = mneme_value_bytes(value, &size);
    if (!*text)
        *text = "";
    return (int)(size < 60 ? size : 60);
}

static void compose_head(struct top *t)
{
    const char *state;
    char up[MN_CLI_TIME_SIZE];
    int n = text_of(mneme_reply_get(t->info, "state"), &state);
    put(t, true, "mneme  %s  %.*s  up %s  seq %" PRIu64, t->cli->dir, n, state,
        mn_cli_time_print_length(value_of(t, "uptime_s") * 1000000000ull, up),
        mneme_value_u64(mneme_reply_get(t->info, "seq"), 0));
    put(t, false, "%s", "");
}

static void compose_writes(struct top *t)
{
    char n[32], bytes[32], a[MN_CLI_TIME_SIZE], b[MN_CLI_TIME_SIZE], c[MN_CLI_TIME_SIZE], line[HISTORY * 4 + 1];
    double memories = rate(t, "write_memories"), syncs = rate(t, "wal_syncs");
    put(t, true, "writes   %12s memories/s   %s", mn_cli_out_count((uint64_t)memories, n), sparkline(&t->writes, line));
    put(t, false, "  ack      now %-10s p50 %-10s p99 %-10s (since the start)", recent_mean(t, "write_ack_ns", 1, a),
        quantile(t, "write_ack_ns", "p50", 1, b), quantile(t, "write_ack_ns", "p99", 1, c));
    put(t, false, "  log      %s/s   %.0f syncs/s   %.1f memories a sync",
        mn_cli_out_bytes(rate(t, "wal_bytes"), bytes), syncs, syncs > 0 ? memories / syncs : 0);
    put(t, false, "  sync     now %-10s p50 %-10s p99 %s", recent_mean(t, "write_sync_ns", 1, a),
        quantile(t, "write_sync_ns", "p50", 1, b), quantile(t, "write_sync_ns", "p99", 1, c));
    put(t, false, "  refused  %.0f busy/s   %.0f errors/s", rate(t, "write_busy"), rate(t, "write_errors"));
    put(t, false, "%s", "");
}

/* What recalls were seen to find, of those that were answered again exactly. */
static void compose_observed(struct top *t)
{
    struct mneme_value observed = stat_of(t->now, "recall_observed");
    double count = mneme_value_f64(mneme_value_get(observed, "count"), 0);
    if (count > 0)
        put(t, false, "  found    %.2f%% of the right memories, seen in %.0f recalls (since the start)",
            mneme_value_f64(mneme_value_get(observed, "sum"), 0) / count / 10, count);
}

static void compose_recalls(struct top *t)
{
    char n[32], a[MN_CLI_TIME_SIZE], b[MN_CLI_TIME_SIZE], c[MN_CLI_TIME_SIZE], line[HISTORY * 4 + 1], scanned[32];
    double queries = rate(t, "recall_queries");
    double per_query = queries > 0 ? rate(t, "recall_scanned") / queries : 0;
    put(t, true, "recalls  %12s queries/s    %s", mn_cli_out_count((uint64_t)queries, n), sparkline(&t->recalls, line));
    put(t, false, "  worker   now %-10s p50 %-10s p99 %-10s (since the start)", recent_mean(t, "recall_us", 1000, a),
        quantile(t, "recall_us", "p50", 1000, b), quantile(t, "recall_us", "p99", 1000, c));
    put(t, false, "  scanned  %s rows a query   %.0f reads/s   %.0f errors/s",
        mn_cli_out_count((uint64_t)per_query, scanned), rate(t, "recall_reads"), rate(t, "recall_errors"));
    compose_observed(t);
    put(t, false, "%s", "");
}

static void compose_storage(struct top *t)
{
    char a[32], b[32], c[32];
    put(t, true, "%s", "storage");
    put(t, false, "  tail     %s rows   compaction debt %s rows   epoch lag %" PRIu64,
        mn_cli_out_count(value_of(t, "tail_rows"), a), mn_cli_out_count(value_of(t, "compact_debt_rows"), b),
        value_of(t, "epoch_lag"));
    put(t, false, "  columns  %s rows in %" PRIu64 " segments, %s (%" PRIu64 "%% in memory)",
        mn_cli_out_count(value_of(t, "column_rows"), a), value_of(t, "column_segments"),
        mn_cli_out_bytes((double)value_of(t, "column_bytes"), b), value_of(t, "column_resident_percent"));
    put(t, false, "  codes    codebook %" PRIu64 ", %s rows of columns and %s of the tail", value_of(t, "codebook_gen"),
        mn_cli_out_count(value_of(t, "ivf_rows"), a), mn_cli_out_count(value_of(t, "tail_coded_rows"), b));
    put(t, false, "  log      %" PRIu64 " segments   %s retired files   %" PRIu64 " reader slots",
        value_of(t, "wal_segments"), mn_cli_out_count(value_of(t, "limbo_files"), c), value_of(t, "reader_slots_used"));
    put(t, false, "%s", "");
}

static void compose_roles(struct top *t)
{
    struct mneme_value roles = mneme_reply_get(t->info, "roles");
    put(t, true, "%-12s %5s %8s %9s  %s", "role", "node", "pid", "restarts", "state");
    for (size_t i = 0; i < mneme_value_length(roles); i++) {
        struct mneme_value role = mneme_value_at(roles, i);
        const char *name, *state;
        int name_size = text_of(mneme_value_get(role, "role"), &name),
            state_size = text_of(mneme_value_get(role, "state"), &state);
        put(t, false, "%-12.*s %5" PRId64 " %8" PRId64 " %9" PRId64 "  %.*s", name_size, name,
            mneme_value_i64(mneme_value_get(role, "node"), 0), mneme_value_i64(mneme_value_get(role, "pid"), 0),
            mneme_value_i64(mneme_value_get(role, "restarts"), 0), state_size, state);
    }
}

static void compose(struct top *t)
{
    t->line_count = 0;
    compose_head(t);
    compose_writes(t);
    compose_recalls(t);
    compose_storage(t);
    compose_roles(t);
}

/* ---- looking ---- */

static enum mn_status look(struct top *t)
{
    struct mneme_reply *info, *stats;
    MN_TRY(mn_cli_connect(t->cli));
    MN_CLI_TRY(t->cli->client, mneme_info(t->cli->client, &info));
    mneme_reply_free(t->info);
    t->info = info;
    MN_CLI_TRY(t->cli->client, mneme_stats(t->cli->client, "map", &stats));
    mneme_reply_free(t->before);
    t->before = t->now;
    t->before_ns = t->now_ns;
    t->now = stats;
    t->now_ns = mn_cli_time_monotonic();
    if (t->before) {
        remember_rate(&t->writes, rate(t, "write_memories"));
        remember_rate(&t->recalls, rate(t, "recall_queries"));
    }
    return MN_OK;
}

static void sleep_ns(uint64_t ns)
{
    nanosleep(&(struct timespec){.tv_sec = (time_t)(ns / 1000000000ull), .tv_nsec = (long)(ns % 1000000000ull)}, NULL);
}

static enum mn_status run_once(struct top *t)
{
    MN_TRY(look(t));
    sleep_ns(t->interval_ns);
    MN_TRY(look(t));
    if (t->cli->json)
        return mn_cli_json_print(
            json_pack("{s:o, s:o, s:f, s:f}", "info", mn_cli_json_from_value(mneme_reply_root(t->info)), "stats",
                      mn_cli_json_from_value(mneme_reply_get(t->now, "stats")), "write_memories_per_s",
                      rate(t, "write_memories"), "recall_queries_per_s", rate(t, "recall_queries")),
            t->cli->out_is_terminal);
    compose(t);
    for (size_t i = 0; i < t->line_count; i++)
        printf("%s%s%s\n", t->heading[i] ? mn_cli_out_bold(t->cli) : "", t->lines[i],
               t->heading[i] ? mn_cli_out_plain(t->cli) : "");
    return MN_OK;
}

/* ---- the screen ---- */

static void draw(const struct top *t, const char *trouble)
{
    erase();
    for (size_t i = 0; i < t->line_count && (int)i < LINES - 1; i++) {
        attrset(t->heading[i] ? A_BOLD : A_NORMAL);
        mvaddnstr((int)i, 0, t->lines[i], -1);
    }
    attrset(A_REVERSE);
    mvprintw(LINES - 1, 0, trouble ? " %.200s " : " %s ", trouble ? trouble : "q quits");
    attrset(A_NORMAL);
    refresh();
}

/* Waits for the next look; true when the person wants to leave. */
static bool wait_for_key(const struct top *t)
{
    uint64_t until = mn_cli_time_monotonic() + t->interval_ns, now;
    while ((now = mn_cli_time_monotonic()) < until) {
        timeout((int)((until - now) / 1000000) + 1);
        int key = getch();
        if (key == 'q' || key == 'Q' || key == 27)
            return true;
        if (key == KEY_RESIZE)
            draw(t, NULL);
    }
    return false;
}

static enum mn_status run_screen(struct top *t)
{
    if (!initscr())
        return MN_FAIL(MN_SYSTEM, "could not set the terminal up (is TERM right?): --once needs none");
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, TRUE);
    bool leave = false;
    while (!leave) {
        enum mn_status status = look(t);
        if (status == MN_OK)
            compose(t);
        draw(t, status == MN_OK ? NULL : mn_error_text());
        leave = wait_for_key(t);
    }
    endwin();
    return MN_OK;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    static struct top t; /* 40 KiB: kept off the stack */
    int64_t interval = 1000000000;
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_args_duration(args, "interval", &interval));
    if (interval < 10000000)
        return MN_FAIL(MN_USAGE, "--interval takes at least 10ms");
    t = (struct top){.cli = cli, .interval_ns = (uint64_t)interval};
    bool once = mn_cli_args_has(args, "once") || cli->json || !cli->out_is_terminal;
    MN_TRY(mn_cli_connect(cli)); /* before the screen is taken: a wrong folder is a plain error */
    if (cli->timeout_ms == 0)
        mneme_set_timeout(cli->client, 2000);
    enum mn_status status = once ? run_once(&t) : run_screen(&t);
    mneme_reply_free(t.info);
    mneme_reply_free(t.now);
    mneme_reply_free(t.before);
    return status;
}

const struct mn_cli_command mn_cmd_top = {
    .usage = "[--interval DURATION] [--once]",
    .options = options,
    .details = "Shows what the cluster does: rates since the last look, latencies since the start, storage, and the "
               "processes. `now` is\n"
               "the mean since the last look. `q` quits.\n",
    .examples = "  mneme top\n"
                "  mneme top --once --interval 5s\n",
    .run = run,
};
