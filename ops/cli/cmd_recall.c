/*
 * cmd_recall.c - `mneme recall`: the nearest memories, as a table or as JSON.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_filter.h"
#include "ops/cli/cli_id.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_time.h"
#include "ops/cli/cli_vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 400 };

static const struct mn_cli_option options[] = {
    {"embedding", 'e', "VECTOR",
     "'[0.1, ...]', @file.json, @file.f32, @file.f16, or - for JSON on stdin; a file of several embeddings is one "
     "batch"},
    {"like", 'l', "ID", "as the embedding of this memory, which is left out of the hits"},
    {"k", 'k', "N", "how many hits (default: 10)"},
    MN_CLI_FILTER_SPACES,
    MN_CLI_FILTER_CONDITIONS,
    MN_CLI_FILTER_TIMES,
    {"min-confidence", 0, "0..1", "only memories at least this sure"},
    {"min-score", 0, "SCORE", "only hits with at least this score"},
    {"half-life", 0, "DURATION", "rank: a memory of this age counts half (7d, 12h)"},
    {"confidence-weight", 0, "0..1", "rank: how much confidence counts (default: 0)"},
    {"floor", 0, "0..1", "rank: what an old memory keeps of its score at least (default: 0)"},
    {"now", 0, "TIME", "rank: ages are counted from here (default: the time of the request)"},
    {"context", 'C', "N", "with each hit, N memories before and after it in time"},
    {"exact", 0, NULL, "search every memory: the true nearest"},
    {"target", 0, "0..1", "wanted share of the true nearest (default: 0.95)"},
    {"as-of", 0, "SEQ", "the state at this seq"},
    {"min-seq", 0, "SEQ", "wait until this seq is visible"},
    {"fields", 'f', "A,B", "what to return of content, meta, tags, at, confidence, expires, embedding"},
    {0},
};

struct numbers {
    uint64_t k, context, as_of, min_seq;
    double min_confidence, min_score, target, half_life_s, confidence_weight, floor;
    int64_t now, half_life_ns;
};

static enum mn_status read_numbers(const struct mn_cli_args *args, struct numbers *n)
{
    memset(n, 0, sizeof *n);
    n->k = 10;
    MN_TRY(mn_cli_args_u64(args, "k", 1, 10000, &n->k));
    MN_TRY(mn_cli_args_u64(args, "context", 0, 10000, &n->context));
    MN_TRY(mn_cli_args_u64(args, "as-of", 0, UINT64_MAX, &n->as_of));
    MN_TRY(mn_cli_args_u64(args, "min-seq", 0, UINT64_MAX, &n->min_seq));
    MN_TRY(mn_cli_args_f64(args, "min-confidence", 0, 1, &n->min_confidence));
    MN_TRY(mn_cli_args_f64(args, "min-score", -INFINITY, INFINITY, &n->min_score));
    MN_TRY(mn_cli_args_f64(args, "target", 0, 1, &n->target));
    MN_TRY(mn_cli_args_f64(args, "confidence-weight", 0, 1, &n->confidence_weight));
    MN_TRY(mn_cli_args_f64(args, "floor", 0, 1, &n->floor));
    MN_TRY(mn_cli_args_time(args, "now", &n->now));
    MN_TRY(mn_cli_args_duration(args, "half-life", &n->half_life_ns));
    n->half_life_s = (double)n->half_life_ns / 1e9;
    return MN_OK;
}

/* ---- output ---- */

static void add_row(struct mn_cli_out_table *t, const struct mneme_found *f, bool spaces, const char *mark)
{
    char id[MN_CLI_ID_SIZE], at[MN_CLI_TIME_SIZE] = "";
    char *summary = mn_cli_out_summary(f);
    if (f->has_score)
        mn_cli_out_cell(t, "%.4f", f->score);
    else
        mn_cli_out_cell(t, "%s", mark);
    mn_cli_out_cell(t, "%s", mn_cli_id_print(&f->id, id));
    if (spaces)
        mn_cli_out_text(t, f->space, f->space_size, TEXT_MAX);
    mn_cli_out_cell(t, "%s", f->at == INT64_MIN ? "" : mn_cli_time_print_short(f->at, at));
    if (isnan(f->confidence))
        mn_cli_out_cell(t, "%s", "");
    else
        mn_cli_out_cell(t, "%.2f", f->confidence);
    mn_cli_out_text(t, summary, summary ? strlen(summary) : 0, TEXT_MAX);
    free(summary);
}

static void add_rows(struct mn_cli_out_table *t, struct mneme_value memories, bool spaces, const char *mark)
{
    struct mneme_found found;
    for (size_t i = 0; i < mneme_value_length(memories); i++) {
        struct mneme_value hit = mneme_value_at(memories, i);
        if (!mneme_value_found(hit, &found))
            continue;
        add_rows(t, mneme_value_get(hit, "before"), spaces, "before");
        add_row(t, &found, spaces, mark);
        add_rows(t, mneme_value_get(hit, "after"), spaces, "after");
    }
}

static void print_hits(const struct mn_cli *cli, struct mneme_value hits, bool spaces)
{
    struct mn_cli_out_table t;
    if (spaces)
        mn_cli_out_begin(&t, cli, "-score|id|space|at|-conf|content");
    else
        mn_cli_out_begin(&t, cli, "-score|id|at|-conf|content");
    add_rows(&t, hits, spaces, "");
    mn_cli_out_end(&t);
}

static enum mn_status print_reply(const struct mn_cli *cli, const struct mneme_reply *reply, bool spaces)
{
    char scanned[32];
    if (cli->json)
        return mn_cli_json_print_reply(reply, cli->out_is_terminal);
    struct mneme_value results = mneme_reply_get(reply, "results");
    if (mneme_value_type(results) != MNEME_TYPE_ARRAY)
        print_hits(cli, mneme_reply_get(reply, "hits"), spaces);
    for (size_t i = 0; i < mneme_value_length(results); i++) {
        printf("%squery %zu%s\n", mn_cli_out_bold(cli), i + 1, mn_cli_out_plain(cli));
        print_hits(cli, mneme_value_at(results, i), spaces);
    }
    printf("%s%s, %s scanned, %llu us, seq %llu%s\n", mn_cli_out_dim(cli),
           mneme_value_bool(mneme_reply_get(reply, "exact"), false) ? "exact" : "approximate",
           mn_cli_out_count(mneme_value_u64(mneme_reply_get(reply, "scanned"), 0), scanned),
           (unsigned long long)mneme_value_u64(mneme_reply_get(reply, "us"), 0),
           (unsigned long long)mneme_value_u64(mneme_reply_get(reply, "seq"), 0), mn_cli_out_plain(cli));
    return MN_OK;
}

/* ---- the command ---- */

#define WHEN(name, value) (mn_cli_args_has(args, name) ? (value) : NULL)

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mn_cli_filter filter = {0};
    struct numbers n;
    struct mneme_id like;
    float *embeddings = NULL;
    struct mneme_reply *reply;
    const char *vector = mn_cli_args_text(args, "embedding"), *like_text = mn_cli_args_text(args, "like");
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    if (!vector == !like_text)
        return MN_FAIL(MN_USAGE, "give one of --embedding and --like");
    MN_TRY(mn_cli_filter_spaces(args, &filter));
    MN_TRY(mn_cli_filter_conditions(args, &filter));
    MN_TRY(mn_cli_filter_times(args, &filter));
    MN_TRY(read_numbers(args, &n));
    if (like_text)
        MN_TRY(mn_cli_id_parse(like_text, &like));
    struct mneme_query q = {.where = filter.where, .like = like_text ? &like : NULL, .k = (uint32_t)n.k};
    MN_TRY(mn_cli_connect(cli));
    if (vector)
        MN_TRY(mn_cli_vector_read(vector, mneme_dim(cli->client), &embeddings, &q.count));
    struct mneme_rank rank = {.half_life_s = WHEN("half-life", &n.half_life_s),
                              .now = WHEN("now", &n.now),
                              .confidence_weight = WHEN("confidence-weight", &n.confidence_weight),
                              .floor = WHEN("floor", &n.floor)};
    q.embeddings = embeddings;
    q.where.min_confidence = WHEN("min-confidence", &n.min_confidence);
    q.min_score = WHEN("min-score", &n.min_score);
    q.target = WHEN("target", &n.target);
    q.exact = mn_cli_args_has(args, "exact");
    q.rank = rank.half_life_s || rank.confidence_weight || rank.floor ? &rank : NULL;
    q.context = (uint32_t)n.context;
    q.as_of = WHEN("as-of", &n.as_of);
    q.min_seq = WHEN("min-seq", &n.min_seq);
    q.fields = mn_cli_filter_fields(args, &q.field_count);
    MN_CLI_TRY(cli->client, mneme_recall(cli->client, &q, &reply));
    enum mn_status status = print_reply(cli, reply, q.where.all || q.where.space_count > 1);
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_recall = {
    .usage = "(--embedding VECTOR | --like ID) [-k N] [conditions] [ranking]",
    .options = options,
    .details = "Prints the nearest memories, best first. Conditions are part of the search: if k memories match, k "
               "come back.\n"
               "Without ranking options the score is the similarity; with them it is similarity × confidence × "
               "recency, and --json shows\n"
               "the parts of each score.\n\n" MN_CLI_FILTER_HELP,
    .examples =
        "  mneme recall -e @query.f32 -k 5\n"
        "  mneme recall --like 7 --tag taste --where 'person=ada' --after -30d\n"
        "  mneme recall -e @query.json --half-life 7d --confidence-weight 0.5   # what is recent and sure comes first\n"
        "  mneme recall -e @query.json --context 2                              # and what happened around it\n"
        "  mneme recall -e @queries.f32 --all-spaces --exact --json             # a batch\n",
    .run = run,
};
