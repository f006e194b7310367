/*
 * bench_recall_filters.c - recall through codes under filters, in process, over real rows: how good and how fast beside
 * the unfiltered search, by kind of condition, selectivity, and how the rows that match lie to the query.
 *
 *     bench_recall_filters STORE BASE.f32 QUERIES.f32 DIM [rows=N] [queries=N] [parts=N] [rounds=5] [truth=200]
 *                          [target=0.95] [only=WORD] [share=ONE_IN] [tune=1]
 *
 * BASE and QUERIES are raw floats, row by row; STORE is a folder that keeps the built store from run to run (made when
 * it is missing). Conditions are of six kinds, or of several at once; or they are tied to what the rows say: of N rows
 * drawn as topics each row belongs to the nearest one, and the filter asks for the query's own topic ("near"), for any
 * ("other"), or for the one farthest from it ("far"). Time: of each query the best of `rounds` rounds, in which all
 * filters take turns; recall@10 over the first `truth` queries against the exact search; short: answers with fewer than
 * min(k, matches) hits.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/meta.h"
#include "tests/bench/kept_store.h"

#define K         10
#define SHARES    5
#define LINES_MAX 64

static const uint32_t one_in[SHARES] = {2, 10, 100, 1000, 10000};
static const char *const tag_names[SHARES] = {"t2", "t10", "t100", "t1000", "t10000"};
static const char *const space_names[SHARES + 1] = {"s2", "s10", "s100", "s1000", "s10000", "default"};
static const char *const topic_keys[SHARES] = {"topic.2", "topic.10", "topic.100", "topic.1000", "topic.10000"};

struct options {
    const char *base, *queries, *only;
    uint32_t query_count, rounds, truth, share;
    double target;
    bool tune;
};

struct bench {
    struct options o;
    struct kept_store kept;
    float *base, *queries;
    uint32_t *topics[SHARES];            /* of each row */
    float *centres[SHARES];              /* topics: [one_in][dim], of length 1 */
    struct mn_str names[2 * SHARES + 1]; /* tags and spaces, in order */
    uint32_t name_count;
    uint64_t random;
    struct mn_search search;
};

/* A filter, and what its pointers need; made anew for each query. */
struct asked {
    struct mn_scope scope;
    struct mn_str tag, space, value, none;
    struct mn_where where;
    uint8_t bytes[16];
};

enum kind { NOTHING, TIME, TAG, SPACE, CONFIDENCE, META, COMBINED, NEAR, OTHER, FAR, KINDS };
static const char *const kind_names[KINDS] = {"none", "time",     "tag",  "space", "confidence",
                                              "meta", "combined", "near", "other", "far"};

/* A search: all of it, and its steps: rows are selected and clusters sorted, looked through, the best compared. */
struct timing {
    double us, select, scan, compare;
};

struct line {
    enum kind kind;
    uint32_t share;
    struct timing *least; /* of each query, of all rounds */
    uint32_t good, wanted, missing;
    double matches, scanned, steps; /* a query */
};

static uint32_t below(struct bench *b, uint32_t n)
{
    b->random = b->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((b->random >> 33) % n);
}

/* ---- topics ---- */

/* The nearest topic (or the farthest) of a row. */
static uint32_t topic_of(const struct bench *b, uint32_t share, const float *x, bool nearest)
{
    const struct mn_kernels *kernels = mn_kernels_best();
    uint32_t found = 0;
    float best = nearest ? -INFINITY : INFINITY;
    for (uint32_t t = 0; t < one_in[share]; t++) {
        float dot = kernels->dot(x, b->centres[share] + (size_t)t * b->kept.dim, b->kept.dim);
        if (nearest ? dot > best : dot < best) {
            best = dot;
            found = t;
        }
    }
    return found;
}

static void draw_topics(struct bench *b)
{
    for (uint32_t s = 0; s < SHARES; s++) {
        b->centres[s] = kept_need((size_t)one_in[s] * b->kept.dim * sizeof(float));
        for (uint32_t t = 0; t < one_in[s]; t++) {
            const float *x = b->base + (size_t)below(b, b->kept.rows) * b->kept.dim;
            float scale = (float)(1 / kept_norm(x, b->kept.dim));
            for (uint32_t i = 0; i < b->kept.dim; i++)
                b->centres[s][(size_t)t * b->kept.dim + i] = x[i] * scale;
        }
    }
}

/* ---- the store ---- */

static struct mn_str str(const char *text)
{
    return (struct mn_str){text, (uint32_t)strlen(text)};
}

static int compare_names(const void *a, const void *b)
{
    return mn_str_compare(*(const struct mn_str *)a, *(const struct mn_str *)b);
}

static uint32_t number_of(const struct bench *b, const char *name)
{
    struct mn_str wanted = str(name);
    const struct mn_str *found = bsearch(&wanted, b->names, b->name_count, sizeof wanted, compare_names);
    return (uint32_t)(found - b->names);
}

/* {"number": 0..999999, "topic": {"2": ..., "10": ...}}; topics of more than a thousand rows' centres only when rows
 * are few: they take a comparison with each. */
static struct mn_str make_meta(struct bench *b, const float *x, uint8_t *bytes, uint32_t max)
{
    struct mn_meta_writer w = {.data = bytes, .bytes_max = max};
    mn_meta_map_begin(&w, 2);
    mn_meta_key(&w, str("number"));
    mn_meta_uint(&w, below(b, 1000000));
    mn_meta_key(&w, str("topic"));
    mn_meta_map_begin(&w, SHARES - 1);
    for (uint32_t s = 0; s + 1 < SHARES; s++) {
        mn_meta_key(&w, str(topic_keys[s] + strlen("topic.")));
        mn_meta_uint(&w, topic_of(b, s, x, true));
    }
    mn_meta_end(&w);
    mn_meta_end(&w);
    return (struct mn_str){(const char *)bytes, w.bytes};
}

static void write_rows(void *context, struct mn_columns_writer *writer, uint32_t first, uint32_t rows)
{
    struct bench *b = context;
    for (uint32_t i = first; i < first + rows; i++) {
        const float *vector = b->base + (size_t)i * b->kept.dim;
        uint32_t tags[SHARES], tag_count = 0, space = SHARES;
        uint8_t meta[256];
        for (uint32_t s = 0; s < SHARES; s++) {
            if (below(b, one_in[s]) == 0)
                tags[tag_count++] = number_of(b, tag_names[s]);
            if (below(b, one_in[s]) == 0)
                space = s;
        }
        struct mn_columns_row row = {.id = {.lo = i + 1},
                                     .space = number_of(b, space_names[space]),
                                     .born = 1,
                                     .died = MN_ALIVE,
                                     .at = i,
                                     .expires = MN_NEVER,
                                     .confidence = (float)below(b, 1000000) / 1000000,
                                     .scale = (float)(1 / kept_norm(vector, b->kept.dim)),
                                     .vector = vector,
                                     .tags = tags,
                                     .tag_count = tag_count,
                                     .meta = make_meta(b, vector, meta, sizeof meta)};
        kept_must(mn_columns_append(writer, &row) == MN_OK, "a row");
    }
}

static void open_store(struct bench *b)
{
    b->name_count = 0;
    for (uint32_t s = 0; s < SHARES; s++)
        b->names[b->name_count++] = str(tag_names[s]);
    for (uint32_t s = 0; s <= SHARES; s++)
        b->names[b->name_count++] = str(space_names[s]);
    qsort(b->names, b->name_count, sizeof *b->names, compare_names);
    struct kept_rows rows = {
        .base = b->base, .names = b->names, .name_count = b->name_count, .write = write_rows, .context = b};
    kept_store_need(&b->kept, &rows);
    kept_store_open(&b->kept);
}

/* ---- filters ---- */

static void set_number(struct asked *a, uint64_t number)
{
    struct mn_meta_writer w = {.data = a->bytes, .bytes_max = sizeof a->bytes};
    mn_meta_uint(&w, number);
    a->value = (struct mn_str){(const char *)a->bytes, w.bytes};
}

static void ask_meta(struct asked *a, const char *key, enum mn_where_op op, uint64_t number)
{
    set_number(a, number);
    a->where = (struct mn_where){.key = str(key), .op = op, .values = &a->value, .value_count = 1};
    a->scope.filter.where = &a->where;
    a->scope.filter.where_count = 1;
}

static void ask_time(struct bench *b, struct asked *a, double share)
{
    uint32_t rows = (uint32_t)(b->kept.rows * share);
    a->scope.after = below(b, b->kept.rows - rows + 1);
    a->scope.before = a->scope.after + rows;
    a->scope.has_before = true;
}

/* Half of the rows by time, four fifths by confidence, and the rest by a number of meta. */
static void ask_combined(struct bench *b, struct asked *a, double share)
{
    double rest = share / 0.8 / 0.8;
    ask_time(b, a, 0.8);
    a->scope.min_confidence = 0.2f;
    ask_meta(a, "number", MN_WHERE_LT, (uint64_t)(1e6 * rest));
}

static void make_filter(struct bench *b, const struct line *line, const float *query, struct asked *a)
{
    uint32_t s = line->share;
    double share = 1.0 / one_in[s];
    *a = (struct asked){.scope = {.all_spaces = true, .after = INT64_MIN}};
    switch (line->kind) {
    case TIME:
        ask_time(b, a, share);
        break;
    case TAG:
        a->tag = str(tag_names[s]);
        a->scope.filter.tags_all = &a->tag;
        a->scope.filter.tags_all_count = 1;
        break;
    case SPACE:
        a->space = str(space_names[s]);
        a->scope.all_spaces = false;
        a->scope.spaces = &a->space;
        a->scope.space_count = 1;
        break;
    case CONFIDENCE:
        a->scope.min_confidence = (float)(1 - share);
        break;
    case META:
        ask_meta(a, "number", MN_WHERE_LT, (uint64_t)(1e6 * share));
        break;
    case COMBINED:
        ask_combined(b, a, share);
        break;
    case OTHER:
        ask_meta(a, topic_keys[s], MN_WHERE_EQ, below(b, one_in[s]));
        break;
    case NEAR:
    case FAR:
        ask_meta(a, topic_keys[s], MN_WHERE_EQ, topic_of(b, s, query, line->kind == NEAR));
        break;
    default:
        break;
    }
}

/* ---- asking ---- */

static double ask(struct bench *b, uint32_t i, const struct asked *a, bool exact)
{
    struct mn_snapshot snapshot = kept_store_snapshot(&b->kept);
    struct mn_query query = {.scope = a->scope,
                             .embedding = b->queries + (size_t)i * b->kept.dim,
                             .k = K,
                             .exact = exact,
                             .target = b->o.target};
    double begin = kept_now_us();
    kept_must(mn_recall_search(&b->search, &snapshot, &query) == MN_OK, "a search");
    return kept_now_us() - begin;
}

static void judge(struct bench *b, struct line *line, uint32_t i, const struct asked *a)
{
    struct mn_hit hits[K];
    uint32_t count = b->search.hit_count, good = 0;
    memcpy(hits, b->search.hits, count * sizeof *hits);
    line->scanned += (double)b->search.scanned / b->o.truth;
    line->steps += (double)b->search.steps / b->o.truth;
    ask(b, i, a, true);
    for (uint32_t x = 0; x < b->search.hit_count; x++) {
        for (uint32_t y = 0; y < count; y++)
            good += hits[y].part == b->search.hits[x].part && hits[y].row == b->search.hits[x].row;
    }
    line->good += good;
    line->wanted += b->search.hit_count;
    line->missing += count < b->search.hit_count;
    line->matches += (double)b->search.scanned / b->o.truth;
}

static void ask_line(struct bench *b, struct line *line, uint32_t i, uint32_t round)
{
    struct asked a;
    b->random = 77 + i; /* the same filter in each round */
    make_filter(b, line, b->queries + (size_t)i * b->kept.dim, &a);
    struct timing t = {.us = ask(b, i, &a, false)};
    t.select = (double)b->search.coarse_ns * 1e-3;
    t.scan = (double)b->search.scan_ns * 1e-3;
    t.compare = (double)b->search.rerank_ns * 1e-3;
    if (round == 0 || t.us < line->least[i].us)
        line->least[i] = t;
    if (round == 0 && i < b->o.truth)
        judge(b, line, i, &a);
}

static int compare_timings(const void *a, const void *b)
{
    double x = ((const struct timing *)a)->us, y = ((const struct timing *)b)->us;
    return (x > y) - (x < y);
}

static void show_line(const struct line *line, uint32_t n, double unfiltered)
{
    struct timing mean = {0};
    for (uint32_t i = 0; i < n; i++) {
        mean.select += line->least[i].select / n;
        mean.scan += line->least[i].scan / n;
        mean.compare += line->least[i].compare / n;
    }
    printf("| %s | %g %% | %.0f | %.4f | %u | %.0f | %.0f | %.1f | %.1f | %.2f | %.1f + %.1f + %.1f |\n",
           kind_names[line->kind], line->kind == NOTHING ? 100 : 100.0 / one_in[line->share], line->matches,
           line->wanted ? (double)line->good / line->wanted : 1, line->missing, line->scanned, line->steps,
           line->least[n / 2].us, line->least[n * 99 / 100].us, line->least[n * 99 / 100].us / unfiltered, mean.select,
           mean.scan, mean.compare);
}

static void show(const struct bench *b, struct line *lines, uint32_t count)
{
    uint32_t n = b->o.query_count;
    printf("| filter | share | matches | recall@10 | short | rows scanned | steps | p50 us | p99 us | p99 / unfiltered "
           "| mean: select + scan + compare |\n");
    printf("|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (uint32_t l = 0; l < count; l++) {
        qsort(lines[l].least, n, sizeof *lines[l].least, compare_timings);
        show_line(&lines[l], n, lines[0].least[n * 99 / 100].us);
    }
}

static void measure(struct bench *b)
{
    static struct line lines[LINES_MAX];
    uint32_t count = 0;
    lines[count++].kind = NOTHING;
    for (int kind = TIME; kind < KINDS; kind++) {
        for (uint32_t s = 0; s < SHARES; s++) {
            bool topic = kind == NEAR || kind == OTHER || kind == FAR;
            bool wanted = !b->o.only || strcmp(b->o.only, kind_names[kind]) == 0;
            wanted = wanted && (b->o.share == 0 || b->o.share == one_in[s]);
            if (wanted && !(topic && s + 1 == SHARES))
                lines[count++] = (struct line){.kind = (enum kind)kind, .share = s};
        }
    }
    for (uint32_t l = 0; l < count; l++)
        lines[l].least = kept_need(b->o.query_count * sizeof *lines[l].least);
    for (uint32_t round = 0; round < b->o.rounds; round++) {
        for (uint32_t l = 0; l < count; l++) {
            for (uint32_t i = 0; i < b->o.query_count; i++)
                ask_line(b, &lines[l], i, round);
        }
        fprintf(stderr, "round %u of %u\n", round + 1, b->o.rounds);
    }
    show(b, lines, count);
}

/* ---- the command line ---- */

static void parse(struct options *o, struct kept_store *kept, int argc, char **argv)
{
    const char *v;
    if (argc < 5) {
        fprintf(stderr, "usage: bench_recall_filters STORE BASE.f32 QUERIES.f32 DIM [name=value...]\n");
        exit(2);
    }
    *o = (struct options){.base = argv[2], .queries = argv[3], .rounds = 5, .truth = 200};
    *kept = (struct kept_store){.folder = argv[1], .part_count = 1};
    kept->dim = (uint32_t)strtoul(argv[4], NULL, 10);
    o->target = 0.95;
    o->tune = true;
    for (int i = 5; i < argc; i++) {
        if (kept_option(argv[i], "rows", &v))
            kept->rows = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "queries", &v))
            o->query_count = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "parts", &v))
            kept->part_count = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "rounds", &v))
            o->rounds = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "truth", &v))
            o->truth = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "target", &v))
            o->target = strtod(v, NULL);
        else if (kept_option(argv[i], "only", &v))
            o->only = v;
        else if (kept_option(argv[i], "share", &v))
            o->share = (uint32_t)strtoul(v, NULL, 10);
        else if (kept_option(argv[i], "tune", &v))
            o->tune = *v == '1';
        else
            kept_must(false, argv[i]);
    }
    kept_must(kept->part_count >= 1 && kept->part_count <= KEPT_PARTS_MAX && o->rounds > 0, "options");
}

int main(int argc, char **argv)
{
    static struct bench b;
    parse(&b.o, &b.kept, argc, argv);
    b.random = 1;
    b.base = kept_load(b.o.base, b.kept.dim, &b.kept.rows);
    b.queries = kept_load(b.o.queries, b.kept.dim, &b.o.query_count);
    b.o.truth = b.o.truth < b.o.query_count ? b.o.truth : b.o.query_count;
    draw_topics(&b);
    open_store(&b);
    free(b.base);
    if (b.o.tune)
        kept_store_calibrate(&b.kept, NULL);
    kept_must(mn_search_init(&b.search, MN_METRIC_COSINE, b.kept.dim) == MN_OK, "a search");
    printf("%u rows x %u, %u parts, %u queries, target %.3f\n\n", b.kept.rows, b.kept.dim, b.kept.part_count,
           b.o.query_count, b.o.target);
    measure(&b);
    mn_search_free(&b.search);
    return 0;
}
