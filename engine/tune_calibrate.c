/*
 * tune_calibrate.c - finding the rule that keeps each recall target on the rows that are there.
 *
 * Rows drawn from the store are the queries; what a search through every cluster answers is the truth. The searches
 * themselves are measured, with all they do, so nothing about the data is assumed: for a few values of nearness, how
 * many steps searches take at a target tells which ones put clusters off well. The cheapest is taken; at the highest
 * targets the least of those that cost little more on average, which spares the slowest searches. For that one, recall
 * is measured for rising values of `stop`, closer where the curve passes a target. Epsilon may then fall as long as it
 * costs a tenth of the misses that the target allows; `stop` makes up for that tenth.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/ivf.h"
#include "engine/recall.h"
#include "shm/process.h"

#define TOP          10u
#define ROWS_MIN     1000u                /* a store with fewer is left untuned */
#define WORK_MAX     UINT64_C(2000000000) /* rows that the search for the truth scans */
#define QUERIES_MIN  64u
#define CURVE_MAX    64u
#define CURVE_STEP   0.35
#define CURVE_FIRST  2.0
#define EPSILON_SURE 3.0f /* misses nothing that matters */
#define EPSILON_TAX  0.1  /* share of the misses allowed that go to epsilon */

#define GROUPS     (MN_TUNE_TARGETS / MN_TUNE_TOGETHER)
#define STEPS_TAX  0.04 /* share of the steps, on average, that may go to making searches alike, */
#define TAXED_FROM 0.97 /* from this target on: below, it would be missed under filters, which go by nearness more */

static const float nearnesses[] = {2, 2.75f, 4, 5.5f, 7.5f, 10};
static const float epsilons[] = {2.6f, 2.2f, 1.9f, 1.6f, 1.3f, 1.0f};

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
    double *us; /* [count]: scratch */
    uint64_t random;
    bool (*pause)(void *context);
    void *context;
};

struct measured {
    double recall, scanned, steps;
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
        rows += snapshot->parts[i].ivf && !mn_ivf_flat(snapshot->parts[i].ivf) ? snapshot->parts[i].ivf->rows : 0;
    return rows;
}

/* The i-th coded row of the snapshot, if it may be asked for. */
static bool draw(const struct calibration *c, uint64_t i, struct asked *asked)
{
    const struct mn_snapshot *snapshot = c->snapshot;
    for (uint32_t part = 0; part < snapshot->part_count; part++) {
        const struct mn_part *p = &snapshot->parts[part];
        uint32_t rows = p->ivf && !mn_ivf_flat(p->ivf) ? p->ivf->rows : 0;
        if (i < rows) {
            *asked = (struct asked){.part = part, .row = (uint32_t)i};
            return mn_part_visible(p, asked->row, snapshot->seq, snapshot->now) && mn_part_vector(p, asked->row);
        }
        i -= rows;
    }
    return false;
}

static enum mn_status ask(struct calibration *c, const struct asked *asked)
{
    const struct mn_part *p = &c->snapshot->parts[asked->part];
    struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN},
                             .embedding = mn_part_vector(p, asked->row),
                             .k = TOP,
                             .has_exclude = true,
                             .exclude = *mn_part_id(p, asked->row),
                             .exclude_space = mn_part_string(p, mn_part_space(p, asked->row))};
    return mn_recall_search(&c->search, c->snapshot, &query);
}

static enum mn_status find_truth(struct calibration *c, uint32_t queries, uint64_t rows)
{
    c->rule = (struct mn_tune_rule){.stop = 1e30f, .epsilon = 2 * EPSILON_SURE, .nearness = 1};
    for (uint32_t tries = 0; c->count < queries && tries < 2 * queries; tries++) {
        struct asked *asked = &c->asked[c->count];
        if (!draw(c, next_random(c) % rows, asked))
            continue;
        MN_TRY(breathe(c));
        /* A row that cannot be asked for (zero under cosine) is no query. */
        if (ask(c, asked) != MN_OK || c->search.hit_count == 0)
            continue;
        asked->hits = c->search.hit_count;
        asked->least = c->search.hits[asked->hits - 1].score;
        c->count++;
    }
    return MN_OK;
}

/* ---- measuring ---- */

/* Asks the first `count` queries by c->rule. us (may be NULL): [count], the time of each. */
static enum mn_status measure(struct calibration *c, uint32_t count, double *us, struct measured *measured)
{
    uint64_t good = 0, wanted = 0, scanned = 0, steps = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct asked *asked = &c->asked[i];
        if (i % 8 == 0)
            MN_TRY(breathe(c));
        uint64_t begin = us ? mn_clock_ns() : 0;
        MN_TRY(ask(c, asked));
        if (us)
            us[i] = (double)(mn_clock_ns() - begin) * 1e-3;
        for (uint32_t h = 0; h < c->search.hit_count; h++)
            good += c->search.hits[h].score >= asked->least;
        wanted += asked->hits;
        scanned += c->search.scanned;
        steps += c->search.steps;
    }
    measured->recall = wanted > 0 ? fmin((double)good / (double)wanted, 1) : 1;
    measured->scanned = (double)scanned / (double)(count ? count : 1);
    measured->steps = (double)steps / (double)(count ? count : 1);
    return MN_OK;
}

/* ---- curves ---- */

struct curve {
    uint32_t count;
    double stop[CURVE_MAX], recall[CURVE_MAX], steps[CURVE_MAX]; /* recall rises */
};

/* Measures recall over `stop`, from `first` on, until it reaches `top` or everything is scanned. */
static enum mn_status trace(struct calibration *c, uint32_t count, double first, double top, struct curve *curve)
{
    struct measured m = {0, 0, 0};
    curve->count = 0;
    for (uint32_t i = 0; i < CURVE_MAX && m.recall < top; i++) {
        double stop = first + CURVE_STEP * i;
        c->rule.stop = (float)stop;
        MN_TRY(measure(c, count, NULL, &m));
        if (curve->count > 0 && m.recall <= curve->recall[curve->count - 1])
            continue;
        curve->stop[curve->count] = stop;
        curve->steps[curve->count] = m.steps;
        curve->recall[curve->count++] = m.recall;
    }
    return MN_OK;
}

/* Recall by the logarithm of its misses: nearly straight over `stop`. */
static double misses(double recall)
{
    return -log(1 - recall + 1e-4);
}

/* values where the curve has that recall; its ends where it does not reach so far. */
static double read_off(const struct curve *curve, const double *values, double recall)
{
    uint32_t i = 0;
    if (curve->count < 2 || recall <= curve->recall[0])
        return curve->count > 0 ? values[0] : 0;
    while (i + 2 < curve->count && curve->recall[i + 1] < recall)
        i++;
    double low = misses(curve->recall[i]), high = misses(curve->recall[i + 1]);
    double share = fmin((misses(recall) - low) / (high - low), 1);
    return values[i] + (values[i + 1] - values[i]) * share;
}

/* ---- the rule ---- */

/* Where a curve may end that is to tell of `target`. */
static double above(double target)
{
    return target + 0.4 * (1 - target);
}

/* What a group of targets goes by. */
struct group {
    float nearness;
    double stop; /* about, at its lower target */
};

static double lower_target(uint32_t group)
{
    return mn_tune_targets[group * MN_TUNE_TOGETHER];
}

/* The least nearness that takes few enough steps at the lower target of each group. */
static enum mn_status choose_nearnesses(struct calibration *c, struct group groups[GROUPS])
{
    uint32_t count = c->count < 400 ? c->count : 400;
    double stops[MN_ARRAY_LEN(nearnesses)][GROUPS], steps[MN_ARRAY_LEN(nearnesses)][GROUPS];
    for (size_t i = 0; i < MN_ARRAY_LEN(nearnesses); i++) {
        struct curve curve;
        c->rule = (struct mn_tune_rule){.epsilon = EPSILON_SURE, .nearness = nearnesses[i]};
        MN_TRY(trace(c, count, CURVE_FIRST, above(lower_target(GROUPS - 1)), &curve));
        for (uint32_t g = 0; g < GROUPS; g++) {
            stops[i][g] = read_off(&curve, curve.stop, lower_target(g));
            steps[i][g] = read_off(&curve, curve.steps, lower_target(g));
        }
    }
    for (uint32_t g = 0; g < GROUPS; g++) {
        double least = INFINITY, tax = lower_target(g) < TAXED_FROM ? 0 : STEPS_TAX;
        for (size_t i = 0; i < MN_ARRAY_LEN(nearnesses); i++)
            least = fmin(least, steps[i][g]);
        size_t i = 0;
        while (i + 1 < MN_ARRAY_LEN(nearnesses) && steps[i][g] > least * (1 + tax))
            i++;
        groups[g] = (struct group){nearnesses[i], stops[i][g]};
    }
    return MN_OK;
}

/* The least stop that has the recall, to within an eighth of the curve's step: where a search looks into a few clusters
 * only, one more makes a leap that cannot be read off the curve. */
static enum mn_status find_stop(struct calibration *c, const struct curve *curve, double recall, double *stop)
{
    double high = read_off(curve, curve->stop, recall), low = high - CURVE_STEP;
    struct measured m;
    c->rule.epsilon = EPSILON_SURE;
    for (uint32_t i = 0; i < curve->count; i++) {
        if (curve->stop[i] > low && curve->recall[i] < recall)
            low = curve->stop[i];
        if (curve->recall[i] >= recall) {
            high = curve->stop[i];
            break;
        }
    }
    while (high - low > CURVE_STEP / 8) {
        c->rule.stop = (float)((low + high) / 2);
        MN_TRY(measure(c, c->count, NULL, &m));
        *(m.recall < recall ? &low : &high) = (low + high) / 2;
    }
    *stop = high;
    return MN_OK;
}

/* The least epsilon that costs no more than `loss`, at a stop. */
static enum mn_status choose_epsilon(struct calibration *c, float stop, double loss, float *epsilon)
{
    uint32_t count = c->count < 400 ? c->count : 400;
    struct measured sure, less;
    c->rule.stop = stop;
    c->rule.epsilon = *epsilon = EPSILON_SURE;
    MN_TRY(measure(c, count, NULL, &sure));
    for (size_t i = 0; i < MN_ARRAY_LEN(epsilons); i++) {
        c->rule.epsilon = epsilons[i];
        MN_TRY(measure(c, count, NULL, &less));
        if (sure.recall - less.recall > loss)
            break;
        *epsilon = epsilons[i];
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

static enum mn_status tune(struct calibration *c, struct mn_tuning *tuning, struct mn_tune_point *points)
{
    struct group groups[GROUPS];
    struct curve curve;
    MN_TRY(choose_nearnesses(c, groups));
    for (uint32_t t = 0; t < MN_TUNE_TARGETS; t++) {
        const struct group *group = &groups[t / MN_TUNE_TOGETHER];
        double target = mn_tune_targets[t], loss = EPSILON_TAX * (1 - target);
        if (t % MN_TUNE_TOGETHER == 0) {
            double top = above(mn_tune_targets[t + MN_TUNE_TOGETHER - 1]);
            c->rule = (struct mn_tune_rule){.epsilon = EPSILON_SURE, .nearness = group->nearness};
            MN_TRY(trace(c, c->count, group->stop - 2 * CURVE_STEP, top, &curve));
            tuning->nearness[t / MN_TUNE_TOGETHER] = group->nearness;
        }
        double stop = 0;
        MN_TRY(find_stop(c, &curve, target + loss, &stop));
        tuning->stop[t] = (float)stop;
        MN_TRY(choose_epsilon(c, tuning->stop[t], loss, &tuning->epsilon[t]));
        if (points)
            MN_TRY(measure_point(c, target, &points[t]));
    }
    float usual = tuning->nearness[MN_TUNE_DEFAULT / MN_TUNE_TOGETHER];
    tuning->dimension = usual * usual;
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
    if (rows < ROWS_MIN || queries == 0)
        return MN_OK;
    uint64_t most = WORK_MAX / rows > QUERIES_MIN ? WORK_MAX / rows : QUERIES_MIN;
    queries = queries < most ? queries : (uint32_t)most;
    enum mn_status status = mn_search_init(&c.search, metric, dim);
    MN_TRY_OUT(status);
    c.search.rule = &c.rule;
    c.asked = calloc(queries, sizeof *c.asked);
    c.us = calloc(queries, sizeof *c.us);
    MN_TRY_OUT(c.asked && c.us ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory to calibrate"));
    MN_TRY_OUT(find_truth(&c, queries, rows));
    if (c.count >= QUERIES_MIN / 2) {
        MN_TRY_OUT(tune(&c, tuning, points));
        tuning->rows = (float)rows;
    }
out:
    if (status != MN_OK)
        *tuning = (struct mn_tuning){0};
    mn_search_free(&c.search);
    free(c.asked);
    free(c.us);
    return status;
}
