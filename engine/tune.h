/*
 * tune.h - how a recall keeps its target: the stopping rule of the search and how it is calibrated.
 *
 * Adaptive probing: clusters are taken nearest first (engine/probe.h). How likely a cluster is to hold a row nearer
 * than the k-th best so far follows from how many spreads of the cluster its rows would have to be off: over / spread,
 * where under cosine and L2 over = |q - c|^2 + energy - d_k and spread = 2 |q - c| sqrt(energy), and under inner
 * product over =
 * -<c,q> - d_k and spread = |q| sqrt(energy); energy: half that of the cluster (mean |x - c|^2) and half that of the
 * codebook. The search ends before the i-th cluster (from 0) when
 *
 *     log(i + 2) + nearness * over / spread > stop
 *
 * so that the last clusters cost about what they yield. Under a filter only clusters with matching rows count, each
 * mostly by how many there are (recall_blocks.c), wherever the matches lie to the query. `stop` and epsilon
 * (how far a 1-bit lower bound reaches) per recall target, and nearness for every two of them, are found by
 * calibration: rows of the store that no centroid was trained on, left out of their own answers, are the queries; the
 * top 10 is the truth; of the best one, and of the best 100, about as large a share must be found. (What the best 100
 * need is also what the best 10 need where a filter leaves a tenth of the rows: `thin`.) The less nearness counts, the
 * more alike are searches in what they cost: at 0 all look into as many clusters. Where codes cannot tell rows apart
 * well enough for a target, its stop is INFINITY.
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

#define MN_TUNE_TOGETHER 2 /* targets that share a nearness */

#define MN_TUNE_ROWS_MIN 1000u /* with codes; a store with fewer is left untuned */

/* Floats, kept as bits in mn_control.tuning and in the manifest: stop[12], epsilon[12], thin, rows (of the store when
 * it was calibrated), nearness[6]. All zero: untuned; the search then errs on the safe side. */
struct mn_tuning {
    float stop[MN_TUNE_TARGETS], epsilon[MN_TUNE_TARGETS];
    float thin; /* see struct mn_tune_rule; MN_TUNE_THIN_MAX at most */
    float rows;
    float nearness[MN_TUNE_TARGETS / MN_TUNE_TOGETHER];
};
_Static_assert(sizeof(struct mn_tuning) == 4 * MN_TUNING_WORDS, "fits the control segment");

static inline bool mn_tuned(const struct mn_tuning *tuning)
{
    return tuning->nearness[0] > 0;
}

/* Where a filter leaves a tenth of the rows, the k-th best is farther: over / spread is less by about FARTHER, and
 * e^thin times as many clusters are needed. FARTHER was .08 to .085 on embeddings of text (768 dimensions) and on glove
 * (100), thin .35 and .65. */
#define MN_TUNE_FARTHER  0.085f
#define MN_TUNE_THIN_MAX 1.0f

struct mn_tune_rule {
    float stop; /* INFINITY: search exactly */
    float epsilon, nearness, thin;
};
/* What mn_control.tuning, or mn_snapshot.tuning, holds; NULL: untuned. */
struct mn_tuning mn_tune_read(const _Atomic uint32_t words[MN_TUNING_WORDS]);

/* The rule for a wanted recall@k (0..1). Never fails: what is not calibrated has safe defaults. */
struct mn_tune_rule mn_tune_rule_for(const struct mn_tuning *tuning, double target);

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
