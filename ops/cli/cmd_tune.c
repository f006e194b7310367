/*
 * cmd_tune.c - `mneme tune`: how a running store keeps its recall targets, and what they cost.
 *
 * The command attaches to the store as a reader. Rows of the store, each left out of its own answer, are the queries;
 * the exact answer is the truth. The compactor calibrates by itself: nothing is changed here.
 */
#include "engine/codebook.h"
#include "engine/recall.h"
#include "engine/tune.h"
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_time.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TARGETS_MAX = 32 };

static const struct mn_cli_option options[] = {
    {"targets", 't', "LIST", "wanted recalls, with commas between them (default: those that are calibrated)"},
    {"queries", 0, "N", "rows of the store to ask for (default: 200)"},
    {"k", 'k', "N", "hits of a query (default: 10)"},
    {0},
};

struct tune {
    struct mn_store store;
    struct mn_instance instance;
    struct mn_reader *reader;
    struct mn_search exact, search;
    struct mn_snapshot snapshot; /* pinned for one query at a time: a long pin would hold back files */
    struct mn_tuning tuning;
    uint64_t codebook, clusters, rows, coded, tail_rows, tail_coded;
    uint64_t wanted_queries, k, queries;
    double targets[TARGETS_MAX];
    size_t target_count;
    struct mn_tune_point points[TARGETS_MAX];
    double *took_us; /* [target][query] */
};

/* ---- the store ---- */

static enum mn_status open_instance(struct tune *t)
{
    char path[MN_PATH_MAX], name[sizeof t->instance.path + 2] = "";
    void *text;
    size_t bytes;
    enum mn_status status =
        mn_io_slurp(&mn_io_posix, mn_store_path(&t->store, path, "run/instance"), sizeof name - 1, &text, &bytes);
    if (status == MN_NOT_FOUND)
        return MN_FAIL(MN_UNAVAILABLE, "no store is served at %s", t->store.dir);
    MN_TRY(status);
    memcpy(name, text, bytes);
    free(text);
    name[strcspn(name, "\n")] = 0;
    status = mn_instance_open(&t->instance, name, false);
    return status == MN_NOT_FOUND ? MN_FAIL(MN_UNAVAILABLE, "no store is served at %s", t->store.dir) : status;
}

static enum mn_status open_store(struct tune *t, const struct mn_cli *cli)
{
    MN_TRY(mn_cli_need_dir(cli));
    char *dir = realpath(cli->dir, NULL);
    enum mn_status status = dir ? mn_store_open(&t->store, &mn_io_posix, dir) : MN_FAIL_ERRNO("%s", cli->dir);
    free(dir);
    MN_TRY(status);
    MN_TRY(open_instance(t));
    MN_TRY(mn_reader_open(&t->reader, &t->store, &t->instance));
    MN_TRY(mn_search_init(&t->exact, t->store.metric, t->store.dim));
    return mn_search_init(&t->search, t->store.metric, t->store.dim);
}

static void close_store(struct tune *t)
{
    mn_search_free(&t->exact);
    mn_search_free(&t->search);
    if (t->reader)
        mn_reader_close(t->reader);
    if (t->instance.control)
        mn_instance_close(&t->instance);
    free(t->took_us);
}

static enum mn_status pin(struct tune *t)
{
    enum mn_status status = mn_reader_pin(t->reader, 0, &t->snapshot);
    return status == MN_NOT_READY ? MN_FAIL(MN_UNAVAILABLE, "the store is still starting") : status;
}

static enum mn_status look_around(struct tune *t)
{
    MN_TRY(pin(t));
    t->tuning = mn_tune_read(t->snapshot.tuning);
    for (uint32_t i = 0; i < t->snapshot.part_count; i++) {
        const struct mn_part *part = &t->snapshot.parts[i];
        uint32_t coded = part->ivf ? mn_ivf_coded(part->ivf) : 0;
        t->rows += part->tail ? 0 : part->rows;
        t->coded += part->tail ? 0 : coded;
        t->tail_rows += part->tail ? part->rows : 0;
        t->tail_coded += part->tail ? coded : 0;
        if (part->ivf && part->ivf->codebook->gen >= t->codebook) {
            t->codebook = part->ivf->codebook->gen;
            t->clusters = part->ivf->codebook->clusters;
        }
    }
    mn_reader_unpin(t->reader);
    return MN_OK;
}

/* ---- measuring ---- */

/* The n-th of the rows of all parts: its embedding, NULL where it is not to be seen or lost. */
static const float *place_of(const struct tune *t, uint64_t n, uint32_t *part, uint32_t *row)
{
    for (*part = 0; *part < t->snapshot.part_count; (*part)++) {
        const struct mn_part *p = &t->snapshot.parts[*part];
        *row = (uint32_t)n;
        if (n < p->rows)
            return mn_part_visible(p, *row, t->snapshot.seq, t->snapshot.now) ? mn_part_vector(p, *row) : NULL;
        n -= p->rows;
    }
    return NULL;
}

static struct mn_query query_for(const struct tune *t, uint32_t part, uint32_t row, const float *vector)
{
    const struct mn_part *p = &t->snapshot.parts[part];
    return (struct mn_query){.scope = {.all_spaces = true, .after = INT64_MIN},
                             .embedding = vector,
                             .k = (uint32_t)t->k,
                             .has_exclude = true,
                             .exclude = *mn_part_id(p, row),
                             .exclude_space = mn_part_string(p, mn_part_space(p, row))};
}

static uint32_t common(const struct mn_search *a, const struct mn_search *b)
{
    uint32_t same = 0;
    for (uint32_t i = 0; i < a->hit_count; i++)
        for (uint32_t j = 0; j < b->hit_count; j++)
            same += a->hits[i].part == b->hits[j].part && a->hits[i].row == b->hits[j].row;
    return same;
}

/* One row asked for at every target. `embedding` is what the search may not keep: a copy, aligned. */
static enum mn_status ask(struct tune *t, struct mn_query *query, float *embedding)
{
    memcpy(embedding, query->embedding, t->store.dim * sizeof *embedding);
    query->embedding = embedding;
    query->exact = true;
    MN_TRY(mn_recall_search(&t->exact, &t->snapshot, query));
    query->exact = false;
    for (size_t i = 0; i < t->target_count; i++) {
        struct mn_tune_point *point = &t->points[i];
        query->target = t->targets[i];
        uint64_t began = mn_cli_time_monotonic();
        MN_TRY(mn_recall_search(&t->search, &t->snapshot, query));
        t->took_us[i * t->wanted_queries + t->queries] = (double)(mn_cli_time_monotonic() - began) / 1e3;
        double hits = t->exact.hit_count ? (double)common(&t->exact, &t->search) / t->exact.hit_count : 1;
        point->recall += hits;
        point->scanned += (double)t->search.scanned;
    }
    t->queries++;
    return MN_OK;
}

/* Rows are taken in steps of the golden ratio: evenly, and the same ones in a store that has not changed. */
static enum mn_status ask_all(struct tune *t, float *embedding)
{
    uint64_t rows = t->rows + t->tail_rows;
    double at = 0.5;
    for (uint64_t tries = 0; rows > 0 && t->queries < t->wanted_queries && tries < 4 * t->wanted_queries; tries++) {
        uint32_t part, row;
        at = fmod(at + 0.6180339887498949, 1.0);
        MN_TRY(pin(t));
        enum mn_status status = MN_OK;
        const float *vector = place_of(t, (uint64_t)(at * (double)rows), &part, &row);
        if (vector) {
            struct mn_query query = query_for(t, part, row, vector);
            status = ask(t, &query, embedding);
        }
        mn_reader_unpin(t->reader);
        MN_TRY(status);
    }
    return MN_OK;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *sorted, uint64_t count, double share)
{
    uint64_t at = (uint64_t)ceil(share * (double)count);
    return count == 0 ? 0 : sorted[at > 0 ? at - 1 : 0];
}

static enum mn_status measure(struct tune *t)
{
    size_t bytes = mn_round_up(t->store.dim * sizeof(float), 64);
    float *embedding = aligned_alloc(64, bytes);
    t->took_us = calloc(t->target_count * t->wanted_queries, sizeof *t->took_us);
    enum mn_status status = embedding && t->took_us ? MN_OK : MN_FAIL(MN_INTERNAL, "out of memory");
    if (status == MN_OK)
        status = ask_all(t, embedding);
    free(embedding);
    for (size_t i = 0; status == MN_OK && i < t->target_count; i++) {
        struct mn_tune_point *point = &t->points[i];
        double *took = t->took_us + i * t->wanted_queries;
        qsort(took, t->queries, sizeof *took, compare);
        point->p50_us = quantile(took, t->queries, .5);
        point->p99_us = quantile(took, t->queries, .99);
        point->recall /= t->queries ? (double)t->queries : 1;
        point->scanned /= t->queries ? (double)t->queries : 1;
    }
    return status;
}

/* ---- showing ---- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static enum mn_status print_json(const struct mn_cli *cli, const struct tune *t)
{
    json_t *points = json_array();
    for (size_t i = 0; i < t->target_count; i++) {
        const struct mn_tune_point *point = &t->points[i];
        struct mn_tune_rule rule = mn_tune_rule_for(&t->tuning, t->targets[i], t->k);
        json_array_append_new(points, json_pack("{s:f, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:f}", "target",
                                                t->targets[i], "stop", number((double)rule.stop), "epsilon",
                                                number((double)rule.epsilon), "nearness", (double)rule.nearness,
                                                "deeper", (double)rule.deeper, "recall", point->recall, "p50_us",
                                                point->p50_us, "p99_us", point->p99_us, "scanned", point->scanned));
    }
    return mn_cli_json_print(json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "codebook",
                                       (json_int_t)t->codebook, "clusters", (json_int_t)t->clusters, "rows",
                                       (json_int_t)t->rows, "coded_rows", (json_int_t)t->coded, "tail_rows",
                                       (json_int_t)t->tail_rows, "tail_coded_rows", (json_int_t)t->tail_coded,
                                       "calibrated_rows", (json_int_t)t->tuning.rows, "k", (json_int_t)t->k, "queries",
                                       (json_int_t)t->queries, "points", points),
                             cli->out_is_terminal);
}

static void print_points(const struct mn_cli *cli, const struct tune *t)
{
    struct mn_cli_out_table table;
    mn_cli_out_begin(&table, cli, "-target|-stop|-epsilon|-recall|-p50 us|-p99 us|-rows scanned");
    for (size_t i = 0; i < t->target_count; i++) {
        const struct mn_tune_point *point = &t->points[i];
        struct mn_tune_rule rule = mn_tune_rule_for(&t->tuning, t->targets[i], t->k);
        mn_cli_out_cell(&table, "%.3f", t->targets[i]);
        if (isfinite(rule.stop))
            mn_cli_out_cell(&table, "%.3f", (double)rule.stop);
        else
            mn_cli_out_cell(&table, "exact");
        mn_cli_out_cell(&table, "%.2f", (double)rule.epsilon);
        if (t->queries > 0) { /* of an empty store there is nothing to tell */
            mn_cli_out_cell(&table, "%.4f", point->recall);
            mn_cli_out_cell(&table, "%.1f", point->p50_us);
            mn_cli_out_cell(&table, "%.1f", point->p99_us);
            mn_cli_out_cell(&table, "%.0f", point->scanned);
        } else
            for (int cell = 0; cell < 4; cell++)
                mn_cli_out_cell(&table, "-");
    }
    mn_cli_out_end(&table);
}

static void print_text(const struct mn_cli *cli, const struct tune *t)
{
    char a[32], b[32];
    if (t->codebook)
        mn_cli_out_field(cli, "codebook", "%" PRIu64 ", %" PRIu64 " clusters", t->codebook, t->clusters);
    else
        mn_cli_out_field(cli, "codebook", "none yet: rows are compared as they are");
    mn_cli_out_field(cli, "columns", "%s rows, %s coded", mn_cli_out_count(t->rows, a), mn_cli_out_count(t->coded, b));
    mn_cli_out_field(cli, "tail", "%s rows, %s coded", mn_cli_out_count(t->tail_rows, a),
                     mn_cli_out_count(t->tail_coded, b));
    if (t->tuning.rows > 0)
        mn_cli_out_field(cli, "calibrated", "at %s rows", mn_cli_out_count((uint64_t)t->tuning.rows, a));
    else
        mn_cli_out_field(cli, "calibrated", "not yet: recalls err on the safe side");
    mn_cli_out_field(cli, "measured", "%" PRIu64 " rows of the store as queries, k %" PRIu64 ", one thread", t->queries,
                     t->k);
    putchar('\n');
    print_points(cli, t);
}

/* ---- the command ---- */

static enum mn_status read_targets(struct tune *t, const char *text)
{
    for (size_t i = 0; !text && i < MN_TUNE_TARGETS; i++)
        t->targets[t->target_count++] = mn_tune_targets[i];
    for (char *end; text; text = *end == ',' ? end + 1 : NULL) {
        double target = strtod(text, &end);
        if (end == text || (*end && *end != ',') || !(target > 0 && target <= 1) || t->target_count == TARGETS_MAX)
            return MN_FAIL(MN_USAGE, "--targets takes up to %d numbers above 0 and up to 1, with commas between them",
                           TARGETS_MAX);
        t->targets[t->target_count++] = target;
    }
    return MN_OK;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    static struct tune tune;
    struct tune *t = &tune;
    enum mn_status status = MN_OK;
    *t = (struct tune){.wanted_queries = 200, .k = 10};
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_args_u64(args, "queries", 1, 100000, &t->wanted_queries));
    MN_TRY(mn_cli_args_u64(args, "k", 1, 10000, &t->k));
    MN_TRY(read_targets(t, mn_cli_args_text(args, "targets")));
    MN_TRY_OUT(open_store(t, cli));
    MN_TRY_OUT(look_around(t));
    MN_TRY_OUT(measure(t));
    if (cli->json)
        status = print_json(cli, t);
    else
        print_text(cli, t);
out:
    close_store(t);
    return status;
}

const struct mn_cli_command mn_cmd_tune = {
    .usage = "[--targets LIST] [--queries N] [-k N]",
    .options = options,
    .details = "Shows how the running store keeps its recall targets, and what each costs: rows of the store are asked "
               "for, each left\n"
               "out of its own answer, and compared with the exact answer. `stop` and `epsilon` are what the compactor "
               "has calibrated\n"
               "for the target (it does so by itself when there is much new). Must run on the store's machine, as a "
               "user who may\n"
               "read it.\n",
    .examples = "  mneme tune\n"
                "  mneme tune --targets 0.9,0.95,0.99 --queries 1000 --json\n",
    .run = run,
};
