/*
 * recall_blocks.c - the search through codes, second: blocks of 32 rows are scanned by their 1-bit codes.
 *
 * Clusters are taken nearest first (probe.h), and of each the blocks of all sources on that codebook; what has no
 * clusters is scanned from end to end. A row whose lower bound is below the limit goes on to wait for its 8-bit codes
 * (recall_weigh.c). Memory is asked ahead: for blocks some turns before they are scanned, and for the codes of waiting
 * rows, which are weighed some blocks later.
 */
#include "engine/recall_codes_inside.h"
#include "engine/recall_trace.h"
#include "engine/rowset.h"

#define BLOCKS_AHEAD 8u
#define SOON         0.6   /* strain left when the embeddings of the best are asked for */
#define SHARE        0.75f /* of a cluster's weight that goes by its selected rows: see add_rank */
#define FOLLOW_MAX   1     /* so few selected rows of a block are weighed without a look at their 1-bit codes */

/* A block to be scanned, as the query stands to its cluster. */
struct planned {
    const uint8_t *block;
    uint32_t source;
    uint32_t slot;     /* of lane 0 of a block that a cluster has to itself; MN_NONE: clusters share it */
    uint32_t shared;   /* then: its number among those, */
    uint32_t cluster;  /* and whose rest is due */
    uint32_t selected; /* lanes whose rows may match */
    float rank;        /* of its cluster among those with blocks to scan, from 0 */
    float gap, reach;
    const struct mn_probe_place *opens; /* the cluster, when it is the first block of one */
};

/* The blocks to come, in order; those next in line are known ahead so that they can be asked for. */
struct plan {
    struct mn_recall_codes *codes;
    struct mn_probe *probe;
    struct mn_probe_place taken[BLOCKS_AHEAD + 2]; /* the last clusters: a ring */
    uint32_t at, source, block, end, rest;         /* what is being unrolled: a cluster in it, a source, its blocks */
    bool opening;                                  /* no block of the cluster came yet */
    float rank;                                    /* clusters opened so far; see add_rank */
    float together;                                /* of all sources */
    struct planned line[BLOCKS_AHEAD];             /* a ring */
    uint32_t first, count;
};

/* ---- which lanes ---- */

static const uint32_t *homes_of(const struct mn_ivf *ivf, uint32_t shared)
{
    return ivf->homes + (size_t)shared * MN_IVF_LANES;
}

/* ---- one block ---- */

static void spread(float value, float lanes[MN_IVF_LANES])
{
    for (uint32_t i = 0; i < MN_IVF_LANES; i++)
        lanes[i] = value;
}

/* A block that a cluster has to itself. */
static void place_lanes(struct mn_recall_codes *c, const struct planned *at)
{
    spread(at->gap, c->gaps);
    spread(at->reach, c->reaches);
}

/* A shared block. Selects the rest of the cluster that is due, and what else is in it of clusters whose gaps are known
 * already, because they are near, too, and have not been looked at: to find out a gap costs more than to scan the block
 * once more when its turn comes. What the lanes of the others hold is not used. */
static void place_shared_lanes(struct mn_recall_codes *c, struct planned *at)
{
    struct mn_recall_source *s = &c->sources[at->source];
    const struct mn_ivf *ivf = s->ivf;
    const uint32_t *homes = homes_of(ivf, at->shared);
    at->selected = 0;
    for (uint32_t lane = 0, end; lane < MN_IVF_LANES && homes[lane] != MN_NONE; lane = end) {
        uint32_t home = homes[lane], count = mn_ivf_rest_rows(ivf, home), slot = mn_ivf_rest_slot(ivf, home);
        end = lane + count;
        if (mn_rowset_has(s->seen, home) || (home != at->cluster && !mn_probe_knows(s->probe, home)))
            continue;
        s->seen[home / 64] |= UINT64_C(1) << home % 64;
        if (c->recall->search->trace)
            mn_recall_trace_rest(c->recall->search->trace, ivf, home);
        float gap = mn_probe_gap(s->probe, home);
        spread(gap, c->gaps + lane); /* over those that follow, too: where they end no processor would guess */
        spread(c->rule.epsilon * mn_probe_reach_blurred(s->probe, gap), c->reaches + lane);
        at->selected |= mn_recall_select_slots(s, slot, count) << lane;
    }
}

static uint32_t slot_of(const struct mn_recall_codes *c, const struct planned *at, uint32_t lane)
{
    if (at->slot != MN_NONE)
        return at->slot + lane;
    const struct mn_ivf *ivf = c->sources[at->source].ivf;
    uint32_t home = homes_of(ivf, at->shared)[lane];
    return mn_ivf_rest_slot(ivf, home) + (lane - ivf->rest[home] % MN_IVF_LANES);
}

static void wait_for_lanes(struct mn_recall_codes *c, const struct planned *at, uint32_t below)
{
    for (; below; below &= below - 1) {
        uint32_t lane = (uint32_t)__builtin_ctz(below);
        uint32_t slot = slot_of(c, at, lane);
        mn_recall_weigh_wait(c, (struct mn_recall_waiting){c->low[lane], c->gaps[lane], at->source, slot});
    }
}

static void ask_for_lanes(const struct mn_recall_codes *c, const struct planned *at)
{
    for (uint32_t left = at->slot != MN_NONE ? at->selected : 0; left; left &= left - 1) {
        struct mn_recall_waiting w = {0, 0, at->source, at->slot + (uint32_t)__builtin_ctz(left)};
        mn_recall_weigh_ask_for_codes(c, &w);
    }
}

/* Whether scanning costs more than what it may spare. */
static bool few(const struct mn_recall_source *s, const struct planned *at)
{
    return !s->whole && s->selection.kind != MN_SELECTION_TEST && __builtin_popcount(at->selected) <= FOLLOW_MAX;
}

static void ask_for_block(const struct mn_recall_source *s, const uint8_t *block)
{
    for (uint32_t i = 0; block && i < mn_ivf_block_bytes(s->ivf->codebook->width); i += MN_LINE)
        __builtin_prefetch(block + i, 0, 2);
}

/* Scans a block, and weighs the rows of earlier ones, whose codes have come meanwhile. ahead: a block that will be
 * scanned soon, or NULL. */
static void scan_block(struct mn_recall_codes *c, struct planned *at, const uint8_t *ahead)
{
    const struct mn_recall_source *s = &c->sources[at->source];
    uint32_t before = c->waiting_end;
    if (at->slot == MN_NONE)
        place_shared_lanes(c, at);
    else
        place_lanes(c, at);
    if (at->selected == 0) {
        ask_for_block(s, ahead);
        return;
    }
    c->recall->search->scanned += (uint32_t)__builtin_popcount(at->selected);
    if (few(s, at)) {
        spread(-INFINITY, c->low);
        ask_for_block(s, ahead);
        wait_for_lanes(c, at, at->selected);
    } else {
        const struct mn_kernels *kernels = s->probe->kernels;
        c->recall->search->steps++;
        uint32_t below = kernels->scan_ahead(&s->probe->scan, at->block, ahead, c->gaps, c->reaches, c->limit, c->low);
        wait_for_lanes(c, at, below & at->selected);
    }
    uint32_t turn = c->scans++ % MN_RECALL_TURNS, due = c->marks[turn];
    c->marks[turn] = before;
    if (c->limit < INFINITY && due > c->waiting_first)
        mn_recall_weigh_until(c, due < c->waiting_end ? due : c->waiting_end);
}

/* ---- the blocks of the nearest clusters ---- */

/* A source's next cluster: its own blocks, and the shared one with its rest, unless that was planned already. */
static bool enter(struct plan *plan, const struct mn_recall_source *s, uint32_t cluster)
{
    const struct mn_ivf *ivf = s->ivf;
    uint32_t rows = ivf->first_slot[cluster + 1] - ivf->first_slot[cluster];
    bool rest = rows % MN_IVF_LANES > 0 && !mn_rowset_has(s->seen, cluster);
    plan->block = rows < MN_IVF_LANES ? 0 : ivf->first_block[cluster]; /* not read in vain: it is rarely in a cache */
    plan->end = plan->block + rows / MN_IVF_LANES;
    plan->rest = rest ? ivf->rest[cluster] / MN_IVF_LANES : MN_NONE;
    return plan->block < plan->end || rest;
}

/* Asks memory for what every source's directory says of a cluster: of many segments these are many lines. */
static void ask_for_places(const struct plan *plan, uint32_t cluster)
{
    const struct mn_recall_codes *c = plan->codes;
    for (uint32_t i = 0; cluster != MN_NONE && i < c->source_count; i++) {
        const struct mn_ivf *ivf = c->sources[i].ivf;
        if (!mn_recall_goes_by(&c->sources[i], plan->probe))
            continue;
        __builtin_prefetch(&ivf->first_slot[cluster]);
        __builtin_prefetch(&ivf->first_block[cluster]);
        __builtin_prefetch(&ivf->rest[cluster]);
    }
}

/* Goes on to the next source that has blocks of the cluster, or to the next cluster. */
static bool unroll(struct plan *plan)
{
    const struct mn_recall_codes *c = plan->codes;
    for (;;) {
        while (++plan->source < c->source_count) {
            const struct mn_recall_source *s = &c->sources[plan->source];
            if (mn_recall_goes_by(s, plan->probe) && enter(plan, s, plan->taken[plan->at].cluster))
                return true;
        }
        uint32_t at = (plan->at + !plan->opening) % MN_ARRAY_LEN(plan->taken);
        if (!mn_probe_take(plan->probe, &plan->taken[at]))
            return false;
        plan->at = at;
        plan->source = MN_NONE; /* ++ makes it 0 */
        plan->opening = true;
        ask_for_places(plan, mn_probe_next(plan->probe));
    }
}

/* The next block of the source being unrolled; false when none of its rows is selected. */
static bool plan_block(struct plan *plan, struct planned *next)
{
    const struct mn_recall_source *s = &plan->codes->sources[plan->source];
    const struct mn_ivf *ivf = s->ivf;
    const struct mn_probe_place *taken = &plan->taken[plan->at];
    uint32_t block;
    next->source = plan->source;
    if (plan->block < plan->end) {
        block = plan->block++;
        next->slot = ivf->first_slot[taken->cluster] + (block - ivf->first_block[taken->cluster]) * MN_IVF_LANES;
        next->selected = mn_recall_select_slots(s, next->slot, MN_IVF_LANES);
    } else {
        block = plan->rest;
        next->slot = MN_NONE;
        next->shared = block - ivf->first_block[ivf->clusters];
        next->cluster = taken->cluster;
        /* What else is in it is found out when it is scanned: what tells has not come from memory yet. */
        next->selected =
            mn_recall_select_slots(s, mn_ivf_rest_slot(ivf, taken->cluster), mn_ivf_rest_rows(ivf, taken->cluster));
        __builtin_prefetch(homes_of(ivf, next->shared));
        __builtin_prefetch(homes_of(ivf, next->shared) + 16);
        plan->rest = MN_NONE;
    }
    next->block = ivf->blocks + (size_t)block * mn_ivf_block_bytes(ivf->codebook->width);
    next->gap = taken->gap;
    next->reach = plan->codes->rule.epsilon * mn_probe_reach_blurred(plan->probe, taken->gap);
    return next->selected != 0;
}

/* How many clusters were opened is what the rule goes by. Under a filter a cluster counts by its selected rows, against
 * those of clusters in which most selected rows are: so those at the border of what matches, with a row or two, do not
 * use up what is meant for the others. By rows alone rows far from the query are found better than asked for. */
static void add_rank(struct plan *plan, const struct planned *next)
{
    float rows = (float)__builtin_popcount(next->selected);
    if (plan->codes->sources[next->source].together > 0)
        plan->rank += SHARE * rows / plan->together + (1 - SHARE) * plan->opening;
    else
        plan->rank += plan->opening;
}

/* Keeps the line full; returns the block that came into it last, or NULL. */
static const struct planned *refill(struct plan *plan)
{
    const struct planned *last = NULL;
    while (plan->count < BLOCKS_AHEAD && (plan->block < plan->end || plan->rest != MN_NONE || unroll(plan))) {
        struct planned *next = &plan->line[(plan->first + plan->count) % BLOCKS_AHEAD];
        if (!plan_block(plan, next))
            continue;
        next->opens = plan->opening ? &plan->taken[plan->at] : NULL;
        next->rank = plan->rank;
        if (next->opens)
            mn_recall_late_opened(plan->codes, next->opens->cluster, plan->rank);
        add_rank(plan, next);
        plan->opening = false;
        plan->count++;
        last = next;
    }
    return last;
}

/* Tells what any rule would see here. */
static void trace_step(const struct mn_recall_codes *c, const struct mn_probe *probe, const struct planned *at)
{
    const struct mn_search *search = c->recall->search;
    double rank = -INFINITY, over = -INFINITY;
    if (c->limit < INFINITY) {
        rank = mn_probe_strain(probe, 0, (uint32_t)at->rank, at->opens, c->limit);
        over = mn_probe_strain(probe, 1, (uint32_t)at->rank, at->opens, c->limit) - rank;
    }
    mn_recall_trace_step(search->trace, at->opens->cluster, rank, over, search->steps + (uint32_t)at->rank);
}

/* Before the first block of a cluster: false when the search may end. Shortly before that the embeddings of the best
 * are asked for: most of them will be needed. */
static bool goes_on(struct mn_recall_codes *c, const struct mn_probe *probe, const struct planned *at)
{
    if (c->recall->search->trace)
        trace_step(c, probe, at);
    if (c->limit == INFINITY) {
        mn_recall_weigh_seed(c);
        return true;
    }
    double strain = mn_probe_strain(probe, (double)c->rule.nearness, (uint32_t)at->rank, at->opens, c->limit);
    c->ending |= strain > (double)c->rule.stop - SOON;
    return !(strain > (double)c->rule.stop) || mn_recall_late(c, probe, at->rank);
}

void mn_recall_blocks_scan_clusters(struct mn_recall_codes *c, struct mn_probe *probe)
{
    struct plan plan = {.codes = c, .probe = probe, .source = c->source_count, .rest = MN_NONE};
    for (uint32_t i = 0; i < c->source_count; i++)
        if (mn_recall_goes_by(&c->sources[i], probe))
            plan.together += c->sources[i].together;
    mn_recall_late_begin(c, probe);
    if (c->recall->search->trace)
        mn_recall_trace_run(c->recall->search->trace, probe->codebook, c->recall->search->steps);
    refill(&plan);
    for (uint32_t i = 0; i < plan.count; i++)
        ask_for_block(&c->sources[plan.line[i].source], plan.line[i].block);
    while (plan.count > 0) {
        struct planned at = plan.line[plan.first];
        if (at.opens && !goes_on(c, probe, &at))
            break;
        plan.first = (plan.first + 1) % BLOCKS_AHEAD;
        plan.count--;
        const struct planned *next = refill(&plan);
        if (c->ending && c->asked < c->best.count)
            mn_recall_weigh_ask_for_row(c, &c->best.heap[c->asked++]);
        bool followed = next && few(&c->sources[next->source], next);
        if (followed)
            ask_for_lanes(c, next);
        scan_block(c, &at, next && !followed ? next->block : NULL);
        if (c->seeds > 0) /* their codes came meanwhile */
            mn_recall_weigh_seeds(c);
    }
    c->recall->search->steps += probe->taken;
    mn_recall_weigh_rest(c);
}

/* ---- all blocks ---- */

void mn_recall_blocks_scan_flat(struct mn_recall_codes *c, uint32_t source)
{
    const struct mn_recall_source *s = &c->sources[source];
    const struct mn_ivf *ivf = s->ivf;
    uint32_t bytes = mn_ivf_block_bytes(ivf->codebook->width);
    struct planned at = {.block = ivf->blocks,
                         .source = source,
                         .slot = ivf->first,
                         .gap = s->probe->origin,
                         .reach = c->rule.epsilon * mn_probe_reach_blurred(s->probe, s->probe->origin)};
    for (; at.slot < ivf->rows; at.slot += MN_IVF_LANES, at.block += bytes) {
        uint32_t rows = ivf->rows - at.slot < MN_IVF_LANES ? ivf->rows - at.slot : MN_IVF_LANES;
        at.selected = mn_recall_select_slots(s, at.slot, rows);
        if (at.selected != 0)
            scan_block(c, &at, NULL); /* one behind the other: the hardware sees them coming */
    }
    mn_recall_weigh_rest(c);
}
