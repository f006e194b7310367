/*
 * compact_plan.c - what to compact next.
 *
 * The log goes first: once enough sealed rows wait, all of them are taken. Column segments are merged by size: a class
 * holds segments up to `fanout` times larger than the class before, and when the rows at hand would be the fanout-th of
 * their class, the whole class joins them, then the next class is asked the same. Each row is so rewritten about
 * log_fanout(rows) times in its life. Segments with many rows that nobody may read any more are rewritten without them.
 * One plan takes at most about segment_rows_max rows, so that the log never waits long behind a merge.
 */
#include <stdlib.h>

#include "engine/compact_inside.h"
#include "shm/process.h"

#define RECOUNT_CHANGED_NS UINT64_C(10000000000) /* dead rows are counted again after this when something died, */
#define RECOUNT_NS         UINT64_C(60000000000) /* and after this in any case: rows expire by themselves */

struct candidate {
    const struct mn_part *part;
    uint64_t droppable;
    bool taken;
};

struct planning {
    struct mn_compactor *compactor;
    const struct mn_compact_policy *policy;
    bool force;
    struct mn_manifest manifest;
    struct mn_snapshot snapshot;
    uint64_t history_seq;
    struct candidate *candidates; /* whole column segments, fewest rows first */
    uint32_t count;
    uint64_t rows; /* taken so far */
    struct mn_compact_plan *plan;
};

void mn_compact_plan_free(struct mn_compact_plan *plan)
{
    free(plan->segments);
    *plan = (struct mn_compact_plan){0};
}

/* ---- the log ---- */

/* The sealed chunks at the front of the view. Parts are newest first. */
static uint32_t plan_log(struct planning *p)
{
    uint32_t segments = 0;
    p->plan->wal_end = p->manifest.wal_first;
    for (uint32_t i = p->snapshot.part_count; i-- > 0;) {
        const struct mn_part *part = &p->snapshot.parts[i];
        if (!part->tail)
            continue;
        if (!mn_compact_sealed(part) || (!p->force && p->plan->log_rows >= p->policy->segment_rows_max))
            break;
        p->plan->wal_end = part->number + 1;
        p->plan->log_rows += part->rows;
        segments++;
    }
    return segments;
}

/* ---- dead rows ---- */

static uint64_t count_droppable(const struct planning *p, const struct mn_part *part)
{
    uint64_t count = 0;
    for (uint32_t row = 0; row < part->rows; row++)
        count += mn_compact_droppable(mn_part_died(part, row), p->history_seq) ||
                 mn_part_expires(part, row) <= p->snapshot.now;
    return count;
}

/* The rows that a rewrite would leave out, counted anew only now and then. */
static uint64_t droppable_rows(const struct planning *p, const struct mn_part *part, struct mn_compact_health *health)
{
    uint64_t now = mn_clock_ns();
    uint64_t dead = atomic_load_explicit(&mn_compact_live(part)->dead, memory_order_relaxed);
    bool changed = dead != health->dead || (dead > 0 && p->history_seq != health->history_seq);
    bool stale = now - health->counted_ns >= (changed ? RECOUNT_CHANGED_NS : RECOUNT_NS);
    if (health->counted_ns == 0 || stale || (changed && p->force)) {
        health->droppable = count_droppable(p, part);
        health->dead = dead;
        health->history_seq = p->history_seq;
        health->counted_ns = now;
    }
    return health->droppable;
}

static int by_rows(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->part->rows != y->part->rows)
        return x->part->rows < y->part->rows ? -1 : 1;
    return x->part->number < y->part->number ? -1 : x->part->number > y->part->number;
}

static enum mn_status list_candidates(struct planning *p)
{
    p->candidates = calloc(p->snapshot.part_count + 1u, sizeof *p->candidates);
    if (!p->candidates)
        return MN_FAIL(MN_SYSTEM, "no memory to plan a compaction");
    for (uint32_t i = 0; i < p->snapshot.part_count; i++) {
        const struct mn_part *part = &p->snapshot.parts[i];
        if (part->tail)
            continue;
        struct mn_compact_health *health = mn_compact_health_of(p->compactor, part->number);
        if (!health)
            return MN_FAIL(MN_SYSTEM, "no memory to plan a compaction");
        /* What a build could not read stays where it is. */
        if (!mn_columns_damaged(part->columns))
            p->candidates[p->count++] = (struct candidate){.part = part, .droppable = droppable_rows(p, part, health)};
    }
    qsort(p->candidates, p->count, sizeof *p->candidates, by_rows);
    return MN_OK;
}

/* ---- merges ---- */

static uint32_t class_of(const struct planning *p, uint64_t rows)
{
    uint32_t class = 0;
    uint64_t fanout = p->policy->fanout > 1 ? p->policy->fanout : 2;
    for (uint64_t limit = p->policy->min_rows * fanout; limit > 0 && rows >= limit && class < 63; limit *= fanout)
        class ++;
    return class;
}

static bool full(const struct planning *p, const struct candidate *c)
{
    return c->part->rows > p->policy->segment_rows_max / 2;
}

static bool fits(const struct planning *p, const struct candidate *c)
{
    return p->rows == 0 || p->rows + c->part->rows - c->droppable <= p->policy->segment_rows_max;
}

static void take(struct planning *p, struct candidate *c)
{
    c->taken = true;
    p->rows += c->part->rows - c->droppable;
}

/* Rows of the log, or of smaller classes, count as one segment of their class to be; a class below that is taken along.
 */
static void plan_merges(struct planning *p)
{
    for (uint32_t begin = 0, end; begin < p->count; begin = end) {
        uint32_t class = class_of(p, p->candidates[begin].part->rows), members = 0;
        for (end = begin; end < p->count && class_of(p, p->candidates[end].part->rows) == class; end++)
            members += !full(p, &p->candidates[end]);
        uint32_t at_hand = p->rows > 0 ? class_of(p, p->rows) : 0;
        bool merge = p->rows > 0 && at_hand > class;
        if (members + (p->rows > 0 && at_hand == class) >= p->policy->fanout)
            merge = true;
        for (uint32_t i = begin; merge && i < end; i++)
            if (!full(p, &p->candidates[i]) && fits(p, &p->candidates[i]))
                take(p, &p->candidates[i]);
    }
}

static void plan_rewrites(struct planning *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        struct candidate *c = &p->candidates[i];
        bool stale = c->droppable * 100 >= (uint64_t)c->part->rows * p->policy->dead_percent;
        if (!c->taken && c->droppable > 0 && (stale || p->force) && fits(p, c))
            take(p, c);
    }
}

static enum mn_status list_taken(struct planning *p)
{
    p->plan->segments = calloc(p->count + 1u, sizeof *p->plan->segments);
    if (!p->plan->segments)
        return MN_FAIL(MN_SYSTEM, "no memory to plan a compaction");
    for (uint32_t i = 0; i < p->count; i++)
        if (p->candidates[i].taken)
            p->plan->segments[p->plan->segment_count++] = p->candidates[i].part->number;
    return MN_OK;
}

static enum mn_status make_plan(struct planning *p)
{
    p->history_seq = atomic_load_explicit(&p->compactor->instance->control->history_seq, memory_order_acquire);
    uint32_t sealed = plan_log(p);
    bool log = p->plan->log_rows >= p->policy->min_rows || (sealed > 0 && sealed >= p->policy->min_log_segments) ||
               (p->force && sealed > 0);
    p->rows = log ? p->plan->log_rows : 0;
    MN_TRY(list_candidates(p));
    plan_merges(p);
    plan_rewrites(p);
    MN_TRY(list_taken(p));
    p->plan->worth = log || p->plan->segment_count > 0;
    return MN_OK;
}

enum mn_status mn_compact_plan_make(struct mn_compactor *compactor, const struct mn_compact_policy *policy, bool force,
                                    struct mn_compact_plan *plan)
{
    struct planning p = {.compactor = compactor, .policy = policy, .force = force, .plan = plan};
    bool agree;
    *plan = (struct mn_compact_plan){0};
    MN_TRY(mn_compact_pin(compactor->reader, &compactor->store, compactor->instance, &p.manifest, &p.snapshot, &agree));
    if (!agree)
        return MN_OK;
    enum mn_status status = make_plan(&p);
    mn_reader_unpin(compactor->reader);
    mn_manifest_free(&p.manifest);
    free(p.candidates);
    if (status != MN_OK)
        mn_compact_plan_free(plan);
    return status;
}
