/*
 * tune.c - see tune.h: the rule that a search goes by.
 */
#include "engine/tune.h"

#include <math.h>

const double mn_tune_targets[MN_TUNE_TARGETS] = {0.70, 0.80, 0.85, 0.90, 0.92, 0.94,
                                                 0.95, 0.96, 0.97, 0.98, 0.99, 0.995};

/* Without calibration, between the first index and its calibration some seconds later: a nearness that suits rows of a
 * few dimensions, where neighbours are spread over the most clusters (embeddings of text have about 6), and thresholds
 * that look into two to three times as many clusters as text needs. */
#define SAFE_NEARNESS 2.0f
static const float safe_stop[MN_TUNE_TARGETS] = {5.0f, 5.3f, 5.6f, 5.9f, 6.1f, 6.3f,
                                                 6.4f, 6.6f, 6.8f, 7.1f, 7.5f, 8.0f};
#define SAFE_EPSILON 2.5f
#define SAFE_DEEPER  0.5f /* glove's, and more than text's */

/* How the stop rises with the decades of k beyond MN_TUNE_TOP: a little faster than they do, on embeddings of text and
 * glove from 10 to 100. */
#define DEEPER_BEND 1.4f

#define CARRIED 0.125 /* what a rule goes on for longer on another codebook: e^0.125, 1.13 times as many clusters */

static float between(const float *values, uint32_t i, double share)
{
    if (share <= 0 || share >= 1 || values[i + 1] == INFINITY)
        return values[i + (share > 0)];
    return (float)((double)values[i] + ((double)values[i + 1] - (double)values[i]) * share);
}

static float between_groups(const float *values, uint32_t i, double share)
{
    double low = (double)values[i / MN_TUNE_TOGETHER], high = (double)values[(i + 1) / MN_TUNE_TOGETHER];
    return (float)(low + (high - low) * share);
}

struct mn_tuning mn_tune_read(const _Atomic uint32_t words[MN_TUNING_WORDS])
{
    uint32_t copy[MN_TUNING_WORDS] = {0};
    for (uint32_t i = 0; words && i < MN_TUNING_WORDS; i++)
        copy[i] = atomic_load_explicit(&words[i], memory_order_relaxed);
    return mn_tune_of(copy);
}

struct mn_tuning mn_tune_of(const uint32_t words[MN_TUNING_WORDS])
{
    struct mn_tuning tuning;
    memcpy(&tuning, words, sizeof tuning);
    return mn_tuned(&tuning) ? tuning : (struct mn_tuning){0};
}

float mn_tune_deeper(const struct mn_tune_rule *rule, float decades)
{
    return rule->deeper * (powf(rule->decades + decades, DEEPER_BEND) - powf(rule->decades, DEEPER_BEND));
}

struct mn_tune_rule mn_tune_rule_for(const struct mn_tuning *tuning, double target, uint32_t k)
{
    bool tuned = mn_tuned(tuning);
    const float *stop = tuned ? tuning->stop : safe_stop;
    struct mn_tune_rule rule = {.nearness = SAFE_NEARNESS, .epsilon = SAFE_EPSILON, .deeper = SAFE_DEEPER};
    if (!(target > 0))
        target = mn_tune_targets[MN_TUNE_DEFAULT];
    if (target > MN_TUNE_APPROXIMATE_MAX) {
        rule.stop = INFINITY;
        return rule;
    }
    uint32_t i = 0;
    double share = 0;
    if (target > mn_tune_targets[MN_TUNE_TARGETS - 1])
        target = mn_tune_targets[MN_TUNE_TARGETS - 1];
    if (target > mn_tune_targets[0]) {
        while (i + 2 < MN_TUNE_TARGETS && mn_tune_targets[i + 1] < target)
            i++;
        share = (target - mn_tune_targets[i]) / (mn_tune_targets[i + 1] - mn_tune_targets[i]);
    }
    rule.stop = between(stop, i, share);
    rule.misses = (float)((1 - target) / target);
    if (tuned) {
        rule.epsilon = between(tuning->epsilon, i, share);
        rule.nearness = between_groups(tuning->nearness, i, share);
        rule.deeper = between_groups(tuning->deeper, i, share);
    }
    if (k > MN_TUNE_TOP) {
        float decades = log10f((float)k / (float)MN_TUNE_TOP);
        rule.stop += mn_tune_deeper(&rule, decades);
        rule.decades = decades;
    }
    return rule;
}

void mn_tune_carry_over(struct mn_tuning *tuning, uint32_t before, uint32_t clusters)
{
    if (before == 0 || !mn_tuned(tuning)) {
        *tuning = (struct mn_tuning){0};
        return;
    }
    double wider = clusters > before ? log((double)clusters / before) : 0;
    wider += tuning->rows > 0 ? CARRIED : 0; /* once, when it is carried on */
    for (uint32_t i = 0; i < MN_TUNE_TARGETS; i++)
        tuning->stop[i] += (float)wider;
    tuning->rows = 0;
}
