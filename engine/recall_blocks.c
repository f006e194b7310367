/*
 * recall_blocks.c - the search through codes, second: blocks of 32 rows are scanned by their 1-bit codes.
 *
 * Clusters are taken nearest first (probe.h), and of each the blocks of all sources on that codebook; what has no
 * clusters is scanned from end to end. A row whose lower bound is below the limit goes on to wait for its 8-bit codes
 * (recall_weigh.c). Memory is asked ahead: for blocks some turns before they are scanned, and for the codes of waiting
 * rows, which are weighed one block later.
 */
#include "engine/recall_codes_inside.h"

#define BLOCKS_AHEAD 8u
#define SOON         0.6 /* strain left when the embeddings of the best are asked for */

/* A block to be scanned, as the query stands to its cluster. */
struct planned {
    const uint8_t *block;
    uint32_t source, first_slot; /* slot of lane 0 */
    uint32_t rows;
    uint32_t rank; /* of its cluster, from 0 */
    float gap, reach;
    const struct mn_probe_place *opens; /* the cluster, when it is the first block of one */
};

/* The blocks to come, in order; those next in line are known ahead so that they can be asked for. */
struct plan {
    struct mn_recall_codes *codes;
    struct mn_probe *probe;
    struct mn_probe_place taken[BLOCKS_AHEAD + 2]; /* the last clusters: a ring */
    uint32_t at, source, block, end;               /* what is being unrolled: a cluster in it, a source, its blocks */
    bool opening;                                  /* no block of the cluster came yet */
    struct planned line[BLOCKS_AHEAD];             /* a ring */
    uint32_t first, count;
};

/* ---- one block ---- */

/* The lanes whose rows are selected. */
static uint32_t selected_lanes(const struct mn_recall_source *s, const struct mn_ivf_lanes *lanes, uint32_t of)
{
    uint32_t left = of, kept = 0;
    if (s->whole)
        return of;
    for (; left; left &= left - 1) {
        uint32_t lane = (uint32_t)__builtin_ctz(left);
        kept |= (uint32_t)mn_selection_holds(&s->selection, lanes->row[lane]) << lane;
    }
    return kept;
}

/* Whether a block can hold a selected row: rows rise within a cluster. */
static bool in_range(const struct mn_recall_source *s, const struct mn_ivf_lanes *lanes)
{
    uint32_t last = lanes->row[MN_IVF_LANES - 1]; /* MN_NONE in the last block: no bound */
    return lanes->row[0] < s->selection.end && last >= s->selection.first;
}

static void wait_for_lanes(struct mn_recall_codes *c, const struct planned *at, const struct mn_ivf_lanes *lanes,
                           uint32_t below)
{
    for (; below; below &= below - 1) {
        uint32_t lane = (uint32_t)__builtin_ctz(below);
        struct mn_recall_waiting w = {c->low[lane], at->gap, at->source, at->first_slot + lane, lanes->row[lane]};
        if (w.row != MN_NONE)
            mn_recall_weigh_wait(c, w);
    }
}

/* Scans a block, and weighs the rows of earlier ones, whose codes have come meanwhile. ahead: a block that will be
 * scanned soon, or NULL. */
static void scan_block(struct mn_recall_codes *c, const struct planned *at, const uint8_t *ahead)
{
    const struct mn_recall_source *s = &c->sources[at->source];
    const struct mn_kernels *kernels = s->probe->kernels;
    uint32_t width = s->ivf->codebook->width, before = c->waiting_end;
    const struct mn_ivf_lanes *lanes = mn_ivf_lanes(at->block, width);
    uint32_t wanted = UINT32_MAX;
    if (!s->whole) {
        if (!in_range(s, lanes))
            return;
        if (s->sparse && (wanted = selected_lanes(s, lanes, UINT32_MAX)) == 0)
            return;
    }
    c->recall->search->scanned += at->rows;
    uint32_t below = kernels->scan_ahead(&s->probe->scan, at->block, ahead, at->gap, at->reach, c->limit, c->low);
    if (below != 0) {
        below = s->sparse ? below & wanted : selected_lanes(s, lanes, below);
        wait_for_lanes(c, at, lanes, below);
    }
    if (c->limit < INFINITY && before > c->waiting_first)
        mn_recall_weigh_until(c, before < c->waiting_end ? before : c->waiting_end);
}

/* ---- the blocks of the nearest clusters ---- */

/* Goes on to the next source that has blocks of the cluster, or to the next cluster. */
static bool unroll(struct plan *plan)
{
    const struct mn_recall_codes *c = plan->codes;
    for (;;) {
        while (++plan->source < c->source_count) {
            const struct mn_recall_source *s = &c->sources[plan->source];
            if (s->probe != plan->probe || s->way != MN_RECALL_BY_CLUSTERS)
                continue;
            plan->block = s->ivf->first_block[plan->taken[plan->at].cluster];
            plan->end = s->ivf->first_block[plan->taken[plan->at].cluster + 1];
            if (plan->block < plan->end)
                return true;
        }
        uint32_t at = (plan->at + !plan->opening) % MN_ARRAY_LEN(plan->taken);
        if (!mn_probe_take(plan->probe, &plan->taken[at]))
            return false;
        plan->at = at;
        plan->source = MN_NONE; /* ++ makes it 0 */
        plan->opening = true;
    }
}

/* Keeps the line full; returns the block that came into it last, or NULL. */
static const struct planned *refill(struct plan *plan)
{
    const struct planned *last = NULL;
    const struct mn_recall_codes *c = plan->codes;
    while (plan->count < BLOCKS_AHEAD && (plan->block < plan->end || unroll(plan))) {
        const struct mn_recall_source *s = &c->sources[plan->source];
        const struct mn_ivf *ivf = s->ivf;
        const struct mn_probe_place *taken = &plan->taken[plan->at];
        uint32_t slot =
            ivf->first_slot[taken->cluster] + (plan->block - ivf->first_block[taken->cluster]) * MN_IVF_LANES;
        uint32_t left = ivf->first_slot[taken->cluster + 1] - slot;
        struct planned *next = &plan->line[(plan->first + plan->count++) % BLOCKS_AHEAD];
        *next =
            (struct planned){.block = ivf->blocks + (size_t)plan->block++ * mn_ivf_block_bytes(ivf->codebook->width),
                             .source = plan->source,
                             .first_slot = slot,
                             .rows = left < MN_IVF_LANES ? left : MN_IVF_LANES,
                             .rank = plan->probe->taken - 1,
                             .gap = taken->gap,
                             .reach = c->rule.epsilon * mn_probe_reach(plan->probe, taken->gap),
                             .opens = plan->opening ? taken : NULL};
        plan->opening = false;
        last = next;
    }
    return last;
}

static void ask_for_block(const struct mn_recall_codes *c, const struct planned *at)
{
    const struct mn_recall_source *s = &c->sources[at->source];
    uint32_t width = s->ivf->codebook->width;
    for (uint32_t i = s->sparse ? 4 * width : 0; i < mn_ivf_block_bytes(width); i += MN_LINE)
        __builtin_prefetch(at->block + i, 0, 2);
}

/* Before the first block of a cluster: false when the search may end. Shortly before that the embeddings of the best
 * are asked for: most of them will be needed. */
static bool goes_on(struct mn_recall_codes *c, const struct mn_probe *probe, const struct planned *at)
{
    if (c->limit == INFINITY)
        mn_recall_weigh_rest(c);
    if (c->limit == INFINITY)
        return true;
    double strain = mn_probe_strain(probe, (double)c->rule.nearness, at->rank, at->opens, c->limit);
    c->ending |= strain > (double)c->rule.stop - SOON;
    return !(strain > (double)c->rule.stop);
}

void mn_recall_blocks_scan_clusters(struct mn_recall_codes *c, struct mn_probe *probe)
{
    struct plan plan = {.codes = c, .probe = probe, .source = c->source_count};
    refill(&plan);
    for (uint32_t i = 0; i < plan.count; i++)
        ask_for_block(c, &plan.line[i]);
    while (plan.count > 0) {
        struct planned at = plan.line[plan.first];
        if (at.opens && !goes_on(c, probe, &at))
            break;
        plan.first = (plan.first + 1) % BLOCKS_AHEAD;
        plan.count--;
        const struct planned *next = refill(&plan);
        bool sparse = next && c->sources[next->source].sparse;
        if (sparse)
            ask_for_block(c, next);
        if (c->ending && c->asked < c->best.count)
            mn_recall_weigh_ask_for_row(c, &c->best.heap[c->asked++]);
        scan_block(c, &at, next && !sparse ? next->block : NULL);
    }
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
                         .gap = s->probe->origin,
                         .reach = c->rule.epsilon * mn_probe_reach(s->probe, s->probe->origin)};
    for (uint32_t b = 0; b < ivf->first_block[1]; b++) {
        at.rows = ivf->rows - at.first_slot < MN_IVF_LANES ? ivf->rows - at.first_slot : MN_IVF_LANES;
        scan_block(c, &at, NULL); /* one behind the other: the hardware sees them coming */
        at.block += bytes;
        at.first_slot += MN_IVF_LANES;
    }
    mn_recall_weigh_rest(c);
}
