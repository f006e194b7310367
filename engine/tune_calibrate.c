/*
 * tune_calibrate.c - finding the rule that keeps each recall target on the rows that are there.
 *
 * Rows of the store are the queries, those that training has left out: centroids lie nearer to rows they were trained
 * on than to others, and such rows would be found too easily. One search of each through every cluster tells which stop
 * each of its right answers needs, for a few values of nearness (tune_needs.h); nothing about the data is assumed.
 * The least stop is taken that keeps the target for the 10 best, and nearly so for the best one: with much nearness a
 * rule that suits 10 ends too early for one. The least nearness is taken of those that cost little more than the
 * cheapest, which spares the slowest searches. Epsilon may then fall as long as it costs a tenth of the misses that
 * the target allows; `stop` makes up for that tenth.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/codebook.h"
#include "engine/columns.h"
#include "engine/tune_needs.h"
#include "shm/process.h"

#define WORK_MAX     UINT64_C(2400000000) /* rows that the searches for the truth scan, */
#define WORK_TENTHS  24u                  /* of all rows so many tenths a query */
#define QUERIES_MIN  64u
#define EPSILON_SURE 3.0f /* misses nothing that matters */
#define EPSILON_WIDE 4.0f /* and this nothing at all */
#define EPSILON_TAX  0.1  /* share of the misses allowed that go to epsilon */
#define EPSILON_ASKS 400u /* queries that it is chosen with */
#define COST_ASKS    200u /* queries that nearness is chosen with */

#define EXACT_WORK     UINT64_C(20000000) /* rows that are compared to find out what codes cannot tell, */
#define EXACT_ASKS     200u               /* by so many queries at most */
#define EXACT_ASKS_MIN 20u
#define EXACT_FIRST    64u /* where so many tell that nothing lacks, no more; */
#define EXACT_FEW      8u  /* so many where each has to read embeddings that memory does not hold */

#define STEPS_TAX 0.08 /* share of the steps, on average, that may go to making searches alike */

/* How many of the best are asked for, and by which share of the queries: one in so many. The more that are asked for,
 * the more a query tells. */
enum { ONE, TEN, HUNDRED, DEPTHS };
static const struct {
    uint32_t k, one_in;
} depths[DEPTHS] = {{1, 1}, {MN_TUNE_TOP, 1}, {100, 3}};

#define ONE_MORE 1.25 /* of the best one, so many times the misses may be */

static const float epsilons[] = {1.0f, 1.3f, 1.6f, 1.9f, 2.2f, 2.6f, EPSILON_SURE}; /* rising */

/* A row that is asked for. */
struct asked {
    uint32_t part, row;
    double least; /* what the last of the exact top has for a score */
    uint32_t hits;
};

struct calibration {
    const struct mn_snapshot *snapshot;
    struct mn_search search;
    struct mn_tune_rule rule;
    struct asked *asked;
    uint32_t count;
    struct mn_tune_needs needs[DEPTHS];
    struct mn_recall_trace trace;
    double lack;
    double *us; /* [count]: scratch */
    uint64_t random;
    bool (*pause)(void *context);
    void *context;
};

struct measured {
    double recall, scanned;
};

static enum mn_status breathe(const struct calibration *c)
{
    if (c->pause && c->pause(c->context))
        return MN_FAIL(MN_DEADLINE, "calibration was stopped");
    return MN_OK;
}

/* ---- the queries ---- */

static uint64_t next_random(struct calibration *c)
{
    uint64_t z = c->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t coded_rows(const struct mn_snapshot *snapshot)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < snapshot->part_count; i++)
        rows += mn_ivf_clustered(snapshot->parts[i].ivf);
    return rows;
}

/* Takes up to `queries` rows, each as likely as another (reservoir sampling), and mixes them. */
static enum mn_status draw(struct calibration *c, uint32_t queries, bool left_out)
{
    const struct mn_snapshot *snapshot = c->snapshot;
    uint64_t seen = 0, looked = 0;
    c->count = 0;
    for (uint32_t p = 0; p < snapshot->part_count; p++) {
        const struct mn_part *part = &snapshot->parts[p];
        for (uint32_t row = 0; row < mn_ivf_clustered(part->ivf); row++) {
            if (looked++ % 65536 == 0)
                MN_TRY(breathe(c));
            if (mn_codebook_leaves_out(mn_part_id(part, row)) != left_out ||
                !mn_part_visible(part, row, snapshot->seq, snapshot->now))
                continue;
            uint64_t place = seen++ < queries ? seen - 1 : next_random(c) % seen;
            if (place < queries)
                c->asked[place] = (struct asked){.part = p, .row = row};
        }
    }
    c->count = seen < queries ? (uint32_t)seen : queries;
    for (uint32_t i = c->count; i > 1; i--) {
        uint32_t j = (uint32_t)(next_random(c) % i);
        struct asked swapped = c->asked[i - 1];
        c->asked[i - 1] = c->asked[j];
        c->asked[j] = swapped;
    }
    return MN_OK;
}

static enum mn_status ask(struct calibration *c, const struct asked *asked, uint32_t k, bool exact)
{
    const struct mn_part *p = &c->snapshot->parts[asked->part];
    struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN},
                             .embedding = mn_part_vector(p, asked->row),
                             .k = k,
                             .exact = exact,
                             .has_exclude = true,
                             .exclude = *mn_part_id(p, asked->row),
                             .exclude_space = mn_part_string(p, mn_part_space(p, asked->row))};
    return mn_recall_search(&c->search, c->snapshot, &query);
}

/* Through every cluster, with a trace. */
static enum mn_status ask_all(struct calibration *c, const struct asked *asked, uint32_t k)
{
    c->rule = (struct mn_tune_rule){.stop = 1e30f, .epsilon = EPSILON_WIDE, .nearness = 1};
    c->search.trace = &c->trace;
    mn_recall_trace_begin(&c->trace);
    enum mn_status status = ask(c, asked, k, false);
    MN_TRY(breathe(c));
    return status;
}

/* How much of the exact answer a search through all codes lacks for certain, after few queries: a miss or two are luck.
 * Where rows lie much closer together than codes can tell, no rule finds them. */
static enum mn_status find_lack(struct calibration *c, uint64_t rows)
{
    struct mn_tune_mean lack = {0};
    double error;
    uint64_t most = EXACT_WORK / rows;
    most = most > EXACT_ASKS ? EXACT_ASKS : most < EXACT_ASKS_MIN ? EXACT_ASKS_MIN : most;
    uint32_t first = mn_columns_scattered() ? EXACT_FEW : EXACT_FIRST;
    for (uint32_t i = 0; i < c->count && i < most && (lack.count < first || lack.sum > 0); i++) {
        MN_TRY(breathe(c));
        MN_TRY(ask(c, &c->asked[i], MN_TUNE_TOP, true));
        uint32_t wanted = c->search.hit_count, good = 0;
        if (wanted == 0)
            continue;
        double least = c->search.hits[wanted - 1].score;
        MN_TRY(ask_all(c, &c->asked[i], MN_TUNE_TOP));
        for (uint32_t h = 0; h < c->search.hit_count; h++)
            good += c->search.hits[h].score >= least;
        mn_tune_mean_add(&lack, 1 - fmin((double)good / wanted, 1));
    }
    double mean = mn_tune_mean_of(&lack, &error);
    c->lack = fmax(mean - 2 * error, 0);
    return MN_OK;
}

/* What the rows drawn find; those that cannot be asked for (damaged, or zero under cosine) are dropped. */
static enum mn_status find_truth(struct calibration *c)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        struct asked asked = c->asked[i];
        if (!mn_part_vector(&c->snapshot->parts[asked.part], asked.row))
            continue;
        enum mn_status status = ask_all(c, &asked, MN_TUNE_TOP);
        if (status == MN_DEADLINE)
            return status;
        if (status != MN_OK || c->search.hit_count == 0)
            continue;
        MN_TRY(mn_tune_needs_add(&c->needs[TEN], &c->search, c->snapshot));
        asked.hits = c->search.hit_count;
        asked.least = c->search.hits[asked.hits - 1].score;
        c->asked[kept++] = asked;
    }
    c->count = kept;
    for (uint32_t d = 0; d < DEPTHS; d++) {
        for (uint32_t i = 0; d != TEN && i < c->count; i += depths[d].one_in) {
            MN_TRY(ask_all(c, &c->asked[i], depths[d].k));
            MN_TRY(mn_tune_needs_add(&c->needs[d], &c->search, c->snapshot));
        }
        mn_tune_needs_sort(&c->needs[d]);
    }
    return MN_OK;
}

/* ---- measuring ---- */

/* Asks the first `count` queries by c->rule. us (may be NULL): [count], the time of each. */
static enum mn_status measure(struct calibration *c, uint32_t count, double *us, struct measured *measured)
{
    c->search.trace = NULL;
    uint64_t good = 0, wanted = 0, scanned = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct asked *asked = &c->asked[i];
        if (i % 8 == 0)
            MN_TRY(breathe(c));
        uint64_t begin = us ? mn_clock_ns() : 0;
        MN_TRY(ask(c, asked, MN_TUNE_TOP, false));
        if (us)
            us[i] = (double)(mn_clock_ns() - begin) * 1e-3;
        for (uint32_t h = 0; h < c->search.hit_count; h++)
            good += c->search.hits[h].score >= asked->least;
        wanted += asked->hits;
        scanned += c->search.scanned;
    }
    measured->recall = wanted > 0 ? fmin((double)good / (double)wanted, 1) : 1;
    measured->scanned = (double)scanned / (double)(count ? count : 1);
    return MN_OK;
}

/* ---- the rule ---- */

/* What the targets of a store go by, at one nearness. */
struct stops {
    float stop[MN_TUNE_TARGETS];
    double cost[MN_TUNE_TARGETS];
};

/* The misses at a target that epsilon may add. */
static double loss_at(double target)
{
    return EPSILON_TAX * (1 - target);
}

/* The least stop that keeps the target, whatever of it is luck: the queries are a sample. INFINITY: codes cannot. */
static float stop_for(const struct calibration *c, uint32_t nearness, double target)
{
    double error, there = 1 - c->lack, wanted = target / there, of_one = (1 - (1 - target) * ONE_MORE) / there;
    if (target + loss_at(target) > there)
        return INFINITY;
    float about = mn_tune_needs_stop(&c->needs[TEN], nearness, wanted);
    (void)mn_tune_needs_recall(&c->needs[TEN], nearness, about, c->count, &error);
    wanted += fmin(loss_at(target) + error, (1 - target) / 2);
    return fmaxf(mn_tune_needs_stop(&c->needs[TEN], nearness, wanted),
                 mn_tune_needs_stop(&c->needs[ONE], nearness, of_one));
}

/* Every stop for every nearness, and what it costs. */
static enum mn_status find_stops(struct calibration *c, struct stops stops[MN_TUNE_NEARNESSES])
{
    for (uint32_t n = 0; n < MN_TUNE_NEARNESSES; n++) {
        stops[n] = (struct stops){0};
        for (uint32_t t = 0; t < MN_TUNE_TARGETS; t++)
            stops[n].stop[t] = stop_for(c, n, mn_tune_targets[t]);
    }
    for (uint32_t i = 0; i < c->count && i < COST_ASKS; i++) {
        MN_TRY(ask_all(c, &c->asked[i], MN_TUNE_TOP));
        for (uint32_t n = 0; n < MN_TUNE_NEARNESSES; n++)
            for (uint32_t t = 0; t < MN_TUNE_TARGETS; t++)
                stops[n].cost[t] += (double)mn_tune_needs_cost(&c->trace, n, stops[n].stop[t]);
    }
    return MN_OK;
}

/* The least nearness that costs little enough at the lower target of a group. */
static uint32_t choose_nearness(const struct stops stops[MN_TUNE_NEARNESSES], uint32_t group)
{
    uint32_t t = group * MN_TUNE_TOGETHER, n = 0;
    double least = INFINITY;
    for (uint32_t i = 0; i < MN_TUNE_NEARNESSES; i++)
        least = fmin(least, stops[i].cost[t]);
    while (n + 1 < MN_TUNE_NEARNESSES && stops[n].cost[t] > least * (1 + STEPS_TAX))
        n++;
    return n;
}

/* The least epsilon, from *at on, that costs no more than `loss` at a stop. */
static enum mn_status choose_epsilon(struct calibration *c, uint32_t nearness, float stop, double loss, size_t *at)
{
    uint32_t count = c->count < EPSILON_ASKS ? c->count : EPSILON_ASKS;
    double error, sure = mn_tune_needs_recall(&c->needs[TEN], nearness, stop, count, &error);
    for (; *at + 1 < MN_ARRAY_LEN(epsilons); ++*at) {
        struct measured less;
        c->rule =
            (struct mn_tune_rule){.stop = stop, .epsilon = epsilons[*at], .nearness = mn_tune_nearnesses[nearness]};
        MN_TRY(measure(c, count, NULL, &less));
        if (sure - less.recall <= loss)
            break;
    }
    return MN_OK;
}

static int compare_times(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum mn_status measure_point(struct calibration *c, double target, struct mn_tune_point *point)
{
    struct measured m;
    MN_TRY(measure(c, c->count, c->us, &m));
    qsort(c->us, c->count, sizeof *c->us, compare_times);
    *point = (struct mn_tune_point){target, m.recall, c->us[c->count / 2],
                                    c->us[(uint32_t)((uint64_t)c->count * 99 / 100)], m.scanned};
    return MN_OK;
}

/* By how much the stop of the 100 best is above that of the 10: at the target of a group where it is the most. */
static float find_deeper(const struct calibration *c, uint32_t nearness, uint32_t group)
{
    float most = 0;
    for (uint32_t t = group * MN_TUNE_TOGETHER; t < (group + 1) * MN_TUNE_TOGETHER; t++) {
        float ten = mn_tune_needs_stop(&c->needs[TEN], nearness, mn_tune_targets[t]);
        float hundred = mn_tune_needs_stop(&c->needs[HUNDRED], nearness, mn_tune_targets[t]);
        most = fmaxf(most, hundred - ten);
    }
    return fminf(most, MN_TUNE_DEEPER_MAX);
}

static enum mn_status tune(struct calibration *c, struct mn_tuning *tuning, struct mn_tune_point *points)
{
    struct stops stops[MN_TUNE_NEARNESSES];
    uint32_t nearness[MN_TUNE_GROUPS];
    size_t epsilon = 0; /* rises with the target */
    MN_TRY(find_stops(c, stops));
    for (uint32_t g = 0; g < MN_TUNE_GROUPS; g++) {
        nearness[g] = choose_nearness(stops, g);
        tuning->nearness[g] = mn_tune_nearnesses[nearness[g]];
        tuning->deeper[g] = find_deeper(c, nearness[g], g);
    }
    for (uint32_t t = 0; t < MN_TUNE_TARGETS; t++) {
        double target = mn_tune_targets[t];
        uint32_t group = t / MN_TUNE_TOGETHER;
        tuning->stop[t] = stops[nearness[group]].stop[t];
        if (tuning->stop[t] == INFINITY)
            epsilon = MN_ARRAY_LEN(epsilons) - 1;
        else
            MN_TRY(choose_epsilon(c, nearness[group], tuning->stop[t], loss_at(target), &epsilon));
        tuning->epsilon[t] = epsilons[epsilon];
        c->rule = (struct mn_tune_rule){
            .stop = tuning->stop[t], .epsilon = tuning->epsilon[t], .nearness = tuning->nearness[group]};
        if (points)
            MN_TRY(measure_point(c, target, &points[t]));
    }
    tuning->form = MN_TUNE_FORM;
    return MN_OK;
}

enum mn_status mn_tune_calibrate(const struct mn_snapshot *snapshot, enum mn_metric metric, uint32_t dim,
                                 uint32_t queries, uint64_t seed, bool (*pause)(void *context), void *context,
                                 struct mn_tuning *tuning, struct mn_tune_point *points)
{
    struct calibration c = {.snapshot = snapshot, .random = seed, .pause = pause, .context = context};
    uint64_t rows = coded_rows(snapshot);
    *tuning = (struct mn_tuning){0};
    if (points)
        memset(points, 0, MN_TUNE_TARGETS * sizeof *points);
    if (rows < MN_TUNE_ROWS_MIN || queries == 0)
        return MN_OK;
    uint64_t most = WORK_MAX * 10 / WORK_TENTHS / rows;
    most = most > QUERIES_MIN ? most : QUERIES_MIN;
    queries = queries < most ? queries : (uint32_t)most;
    enum mn_status status = mn_search_init(&c.search, metric, dim);
    MN_TRY_OUT(status);
    c.search.rule = &c.rule;
    c.asked = calloc(queries, sizeof *c.asked);
    c.us = calloc(queries, sizeof *c.us);
    MN_TRY_OUT(c.asked && c.us ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory to calibrate"));
    for (uint32_t d = 0; d < DEPTHS; d++)
        MN_TRY_OUT(mn_tune_needs_init(&c.needs[d], queries, depths[d].k));
    MN_TRY_OUT(draw(&c, queries, true));
    if (c.count < QUERIES_MIN)
        MN_TRY_OUT(draw(&c, queries, false));
    MN_TRY_OUT(find_truth(&c));
    MN_TRY_OUT(find_lack(&c, rows));
    if (c.count >= QUERIES_MIN / 2) {
        MN_TRY_OUT(tune(&c, tuning, points));
        tuning->rows = (float)rows;
    }
out:
    if (status != MN_OK)
        *tuning = (struct mn_tuning){0};
    for (uint32_t d = 0; d < DEPTHS; d++)
        mn_tune_needs_free(&c.needs[d]);
    mn_recall_trace_free(&c.trace);
    mn_search_free(&c.search);
    free(c.asked);
    free(c.us);
    return status;
}
