/*
 * tune.h - how a recall keeps its target: the stopping rule of the search and how it is calibrated.
 *
 * Adaptive probing: clusters are taken nearest first (engine/probe.h). How likely a cluster is to hold a row nearer
 * than the k-th best so far follows from how many spreads of the cluster its rows would have to be off: over / spread,
 * where
 *
 *     over = |q - c|^2 + energy - d_k and spread = 2 |q - c| sqrt(energy)    under cosine and L2,
 *     over = o - d_k and spread = |q| sqrt(energy)                           under inner product;
 *
 * o: what the clusters are in the order of (engine/probe.h); energy: half that of the cluster (mean |x - c|^2) and half
 * that of the codebook. The search ends before the i-th cluster (from 0) when
 *
 *     log(i + 2) + nearness * over / spread > stop
 *
 * so that the last clusters cost about what they yield. Under a filter only clusters with matching rows count, each
 * mostly by how many there are (recall_blocks.c), wherever the matches lie to the query, and the search does not end
 * while what it has found came late (recall_late.c). `stop` and epsilon (how far a 1-bit lower bound reaches) per
 * recall target, and nearness for every four of them, are found by calibration: rows of the store that no centroid was
 * trained on, left out of their own answers, are the queries; the top 10 is the truth; of the best one about as large a
 * share must be found. By how much the best 100 need a higher stop is learnt, too (`deeper`): it is added for a larger
 * k, and where a filter leaves a tenth of the rows, since the 10 best of them lie where the 100 best of all do. The
 * less nearness counts, the more alike are searches in what they cost: at 0 all look into as many clusters. Where codes
 * cannot tell rows apart well enough for a target, its stop is INFINITY.
 */
#ifndef MN_ENGINE_TUNE_H
#define MN_ENGINE_TUNE_H

#include "engine/query.h"
#include "shm/layout.h"

/* Targets that are calibrated; between two, the rule is interpolated. */
#define MN_TUNE_TARGETS 12
#define MN_TUNE_DEFAULT 6 /* of them, that of a recall that names none */
extern const double mn_tune_targets[MN_TUNE_TARGETS];
/* More than this is asked of the exact search. */
#define MN_TUNE_APPROXIMATE_MAX 0.999

#define MN_TUNE_TOP      10u /* `stop` is calibrated for so many of the best, and holds for fewer */
#define MN_TUNE_TOGETHER 4   /* targets that share what is calibrated for a group */
#define MN_TUNE_GROUPS   (MN_TUNE_TARGETS / MN_TUNE_TOGETHER)

#define MN_TUNE_ROWS_MIN 1000u /* with codes; a store with fewer is left untuned */

/* Floats, kept as bits in mn_control.tuning and in the manifest. Of another form than this one, as when all are zero:
 * untuned; the search then errs on the safe side. */
struct mn_tuning {
    float stop[MN_TUNE_TARGETS], epsilon[MN_TUNE_TARGETS];
    float form; /* MN_TUNE_FORM: what the others mean */
    float rows; /* of the store when it was calibrated */
    float nearness[MN_TUNE_GROUPS], deeper[MN_TUNE_GROUPS];
};
#define MN_TUNE_FORM       3.0f /* the first had a number up to 1 in its place; the second went by another order */
#define MN_TUNE_DEEPER_MAX 6.0f
_Static_assert(sizeof(struct mn_tuning) == 4 * MN_TUNING_WORDS, "fits the control segment");

static inline bool mn_tuned(const struct mn_tuning *tuning)
{
    return tuning->form == MN_TUNE_FORM;
}

struct mn_tune_rule {
    float stop; /* INFINITY: search exactly */
    float epsilon, nearness;
    float deeper;  /* see mn_tune_deeper */
    float decades; /* of k beyond MN_TUNE_TOP: stop is for so many */
    float misses;  /* that the target allows for each one found; 0: `stop` alone ends a search (recall_late.c) */
};

/* What is to be added to the stop of a rule where the k best lie as far as 10^decades times as many of all rows would:
 * under a filter. */
float mn_tune_deeper(const struct mn_tune_rule *rule, float decades);

/* What mn_control.tuning, or mn_snapshot.tuning, holds; all zero where it is NULL or of another form. */
struct mn_tuning mn_tune_read(const _Atomic uint32_t words[MN_TUNING_WORDS]);
/* The same of the manifest's. */
struct mn_tuning mn_tune_of(const uint32_t words[MN_TUNING_WORDS]);

/* The rule for a wanted recall@k (target: 0..1, 0 = the default one). Never fails: what is not calibrated has safe
 * defaults. */
struct mn_tune_rule mn_tune_rule_for(const struct mn_tuning *tuning, double target, uint32_t k);

/* Has a tuning serve another codebook until there is a calibration on that one: twice the clusters are half as large,
 * so that twice as many must be looked into, and a little more, since the rest is a guess. `rows` becomes 0. before:
 * clusters of the codebook that it was calibrated on; 0: unknown, and it becomes untuned. */
void mn_tune_carry_over(struct mn_tuning *tuning, uint32_t before, uint32_t clusters);

/* One point of the calibrated curve, as `mneme tune` shows it. */
struct mn_tune_point {
    double target, recall;
    double p50_us, p99_us;
    double scanned; /* rows a query, mean */
};

struct mn_snapshot;
/* Calibrates on a snapshot: `queries` rows of it are asked for (fewer when there are fewer; the same seed takes the
 * same). points (may be NULL): what was measured with the new tuning, [MN_TUNE_TARGETS]. `pause` as in
 * mn_compact_build. A snapshot without inverted files: MN_OK, *tuning all zero. */
enum mn_status mn_tune_calibrate(const struct mn_snapshot *snapshot, enum mn_metric metric, uint32_t dim,
                                 uint32_t queries, uint64_t seed, bool (*pause)(void *context), void *context,
                                 struct mn_tuning *tuning, struct mn_tune_point *points) MN_MUST_USE;

#endif
