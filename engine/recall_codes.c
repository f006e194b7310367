/*
 * recall_codes.c - the search through codes.
 *
 * Every part with an inverted file is a source. Clusters are taken nearest first (probe.h), and of each the blocks of
 * all sources on that codebook are scanned by their 1-bit codes. A row whose lower bound is below the k-th best so far
 * waits while its 8-bit codes come from memory, is weighed by them, and enters the candidates if it is visible and
 * matches: the k best, and a few behind them, because the last word has the comparison of embeddings.
 *
 * A filter that leaves few rows of a source is followed row by row instead, by 8-bit codes at once. Rows whose codes
 * cannot be used (damaged, or too large for floats) are compared at once. So min(k, matches) rows always come back.
 *
 * Distances are those of engine/ivf.h, made comparable between codebooks; under rank a candidate's key is the distance
 * at which a row of its score would lie if its factors were 1.
 */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "engine/probe.h"
#include "engine/recall_inside.h"
#include "engine/selection.h"

#define PROBES       4    /* codebooks that one search goes through; parts on others are scanned exactly */
#define EXACT_ROWS   256u /* so few matching rows are compared at once */
#define WAITING      512u /* rows that wait for their 8-bit codes */
#define LIST_AHEAD   16u
#define BLOCKS_AHEAD 8u
#define ROWS_AHEAD   16u
#define SPARE_MIN    4u
#define SOON         0.6 /* strain left when the embeddings of the best are asked for */
#define DOUBT        0.12f
#define QUERY_MAX    1e15f      /* length of a query that can be estimated in floats */
#define SPARSE       (1.0 / 16) /* a set of rows below this density is asked before a block is scanned */

/* What it costs to follow a list, in rows scanned by 1-bit codes; and how the rows that a probing search scans grow
 * with the store's: both measured, tests/bench/bench_recall_codes.c. */
#define LIST_COST  15.0
#define PROBE_ROWS 8.0

enum way { BY_CLUSTERS, BY_FLAT, BY_LIST };

struct source {
    uint32_t part;
    const struct mn_part *rows_of;
    const struct mn_ivf *ivf;
    struct mn_probe *probe;
    struct mn_selection selection;
    bool whole;  /* every row matches */
    bool sparse; /* ask the selection before a block is scanned */
    enum way way;
    bool ask_born, ask_died, ask_expires;
    uint32_t excluded; /* number of the space of the memory that is left out, or MN_NONE */
    /* Kept from search to search. */
    struct mn_matcher matcher;
    struct mn_selector selector;
    uint64_t *words; /* a list as a set */
    uint32_t words_max;
};

struct candidate {
    float key;
    uint32_t source, row;
};

/* A heap, worst on top. */
struct candidates {
    struct candidate *heap;
    uint32_t count, max;
};

struct waiting {
    float low, gap;
    uint32_t source, slot, row;
};

struct mn_recall_codes {
    struct source *sources;
    uint32_t source_count, source_max;
    struct mn_probe probes[PROBES];
    struct candidates best, spare;
    uint32_t best_room, spare_room;
    struct waiting waiting[WAITING];
    uint32_t waiting_first, waiting_end;
    /* The current search's. */
    struct mn_recall *recall;
    struct mn_tune_rule rule;
    float bound; /* what is farther cannot enter, whatever is found: of min_score, and of rows compared exactly */
    float limit; /* what is not below it cannot enter */
    bool ending;
    uint32_t asked; /* of the best: embeddings that were asked for */
    _Alignas(MN_LINE) float low[MN_IVF_LANES];
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void mn_recall_codes_free(struct mn_recall_codes *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < c->source_max; i++) {
        mn_matcher_free(&c->sources[i].matcher);
        mn_selector_free(&c->sources[i].selector);
        free(c->sources[i].words);
    }
    for (uint32_t i = 0; i < PROBES; i++)
        mn_probe_free(&c->probes[i]);
    free(c->sources);
    free(c->best.heap);
    free(c->spare.heap);
    free(c);
}

/* ---- distances and scores ---- */

/* The distance of a row of that score. */
static float distance_of(const struct mn_search *search, double score)
{
    return (float)(search->metric == MN_METRIC_COSINE ? 2 - 2 * score : -score);
}

static double similarity_at(float distance)
{
    return 1 - 0.5 * (double)distance;
}

/* The least number above x: what equals a limit still passes it. */
static float just_above(float x)
{
    return x < INFINITY ? nextafterf(x, INFINITY) : x;
}

/* What min_score and the rows that were compared exactly leave to find; a little more, since codes are estimates. */
static float bound_of(const struct mn_recall *r, float size)
{
    const struct mn_search *search = r->search;
    float bound = INFINITY, doubt = 0.01f * size;
    if (r->query->has_min_score)
        bound = distance_of(search, r->query->min_score) + doubt;
    if (search->hit_count == r->query->k) {
        float worst = distance_of(search, search->hits[0].score) + doubt;
        bound = worst < bound ? worst : bound;
    }
    return bound;
}

/* ---- candidates ---- */

static bool behind(const struct mn_recall_codes *c, const struct candidate *a, const struct candidate *b)
{
    if (a->key != b->key)
        return a->key > b->key;
    const struct source *of_a = &c->sources[a->source], *of_b = &c->sources[b->source];
    return mn_recall_before(c->recall->snapshot, of_b->part, b->row, of_a->part, a->row);
}

static void sink(const struct mn_recall_codes *c, const struct candidates *of, struct candidate candidate)
{
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= of->count)
            break;
        if (child + 1 < of->count && behind(c, &of->heap[child + 1], &of->heap[child]))
            child++;
        if (!behind(c, &of->heap[child], &candidate))
            break;
        of->heap[i] = of->heap[child];
        i = child;
    }
    of->heap[i] = candidate;
}

static void rise(const struct mn_recall_codes *c, struct candidates *of, struct candidate candidate)
{
    uint32_t i = of->count++;
    while (i > 0 && behind(c, &candidate, &of->heap[(i - 1) / 2])) {
        of->heap[i] = of->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    of->heap[i] = candidate;
}

static bool has_room(const struct mn_recall_codes *c, const struct candidates *of, const struct candidate *candidate)
{
    return of->count < of->max || (of->max > 0 && behind(c, &of->heap[0], candidate));
}

static void keep_spare(struct mn_recall_codes *c, struct candidate candidate)
{
    if (c->spare.count < c->spare.max)
        rise(c, &c->spare, candidate);
    else if (has_room(c, &c->spare, &candidate))
        sink(c, &c->spare, candidate);
}

static void keep(struct mn_recall_codes *c, struct candidate candidate)
{
    if (c->best.count == c->best.max) {
        if (!behind(c, &c->best.heap[0], &candidate)) {
            keep_spare(c, candidate);
            return;
        }
        keep_spare(c, c->best.heap[0]);
        sink(c, &c->best, candidate);
    } else {
        rise(c, &c->best, candidate);
    }
    if (c->best.count == c->best.max && c->best.heap[0].key < c->bound)
        c->limit = just_above(c->best.heap[0].key);
}

/* ---- may a row come back? ---- */

/* By its number alone. */
static inline bool selected(const struct source *s, uint32_t row)
{
    const struct mn_selection *selection = &s->selection;
    if (row < selection->first || row >= selection->end)
        return false;
    return selection->kind != MN_SELECTION_BITS || (selection->bits[row / 64] >> row % 64 & 1) != 0;
}

static bool visible(const struct mn_snapshot *snapshot, const struct source *s, uint32_t row)
{
    const struct mn_part *p = s->rows_of;
    return (!s->ask_born || mn_part_born(p, row) <= snapshot->seq) &&
           (!s->ask_died || snapshot->seq < mn_died_seq(mn_part_died(p, row))) &&
           (!s->ask_expires || mn_part_expires(p, row) > snapshot->now);
}

/* A selected row: whether it is visible, and what the selection left open. */
static bool admitted(const struct mn_recall_codes *c, const struct source *s, uint32_t row)
{
    const struct mn_recall *r = c->recall;
    return visible(r->snapshot, s, row) &&
           (s->selection.kind != MN_SELECTION_TEST || mn_matcher_row(&s->matcher, row)) &&
           !mn_recall_excluded(r, s->rows_of, row, s->excluded);
}

/* ---- weighing ---- */

static void compare_now(struct mn_recall_codes *c, const struct source *s, uint32_t row)
{
    if (admitted(c, s, row))
        mn_recall_compare(c->recall, s->part, &row, 1);
}

/* The key of a row at that distance: what its score is worth. */
static float key_of(const struct mn_recall_codes *c, const struct source *s, uint32_t row, float distance)
{
    const struct mn_rank *rank = &c->recall->query->rank;
    if (!rank->on)
        return distance;
    double decay, score = mn_recall_rank(rank, similarity_at(distance), mn_part_at(s->rows_of, row),
                                         mn_part_confidence(s->rows_of, row), &decay);
    return (float)(2 - 2 * score);
}

static void weigh(struct mn_recall_codes *c, const struct waiting *w)
{
    const struct source *s = &c->sources[w->source];
    const struct mn_ivf *ivf = s->ivf;
    uint32_t width = ivf->codebook->width;
    if (!(w->low < c->limit))
        return;
    /* What costs more than codes to find out is asked first only while nothing else keeps rows out. */
    bool early = s->selection.kind == MN_SELECTION_TEST && c->limit == INFINITY;
    if (early && !admitted(c, s, w->row))
        return;
    if (!mn_ivf_intact(ivf, w->slot)) {
        compare_now(c, s, w->row);
        return;
    }
    const struct mn_ivf_fine *fine = &ivf->fine[w->slot];
    int32_t dot = s->probe->kernels->dot8(ivf->codes8 + (size_t)w->slot * width, s->probe->codes, width);
    float distance = mn_ivf_estimate8(fine, &s->probe->fine, dot, w->gap);
    if (!(distance > -0.5f * MN_IVF_FAR)) { /* NaN too */
        compare_now(c, s, w->row);
        return;
    }
    struct candidate candidate = {key_of(c, s, w->row, distance), w->source, w->row};
    bool useful = candidate.key < c->bound && (has_room(c, &c->best, &candidate) || has_room(c, &c->spare, &candidate));
    if (useful && (early || admitted(c, s, w->row)))
        keep(c, candidate);
}

/* Weighs those that wait, up to place `end`. */
static void weigh_until(struct mn_recall_codes *c, uint32_t end)
{
    while (c->waiting_first < end)
        weigh(c, &c->waiting[c->waiting_first++]);
    if (c->waiting_first == c->waiting_end)
        c->waiting_first = c->waiting_end = 0;
}

static void weigh_all(struct mn_recall_codes *c)
{
    weigh_until(c, c->waiting_end);
}

/* Brings the `wanted` lowest of `count` to the front (Hoare's selection). */
static void select_lowest(struct waiting *all, uint32_t count, uint32_t wanted)
{
    int64_t low = 0, high = (int64_t)count - 1, last = (int64_t)wanted - 1;
    while (low < high) {
        float pivot = all[low + (high - low) / 2].low;
        int64_t i = low, j = high;
        while (i <= j) {
            while (all[i].low < pivot)
                i++;
            while (all[j].low > pivot)
                j--;
            if (i <= j) {
                struct waiting swapped = all[i];
                all[i++] = all[j];
                all[j--] = swapped;
            }
        }
        if (last <= j)
            high = j;
        else if (last >= i)
            low = i;
        else
            break;
    }
}

static void ask_for_codes(const struct mn_recall_codes *c, const struct waiting *w)
{
    const struct mn_ivf *ivf = c->sources[w->source].ivf;
    uint32_t width = ivf->codebook->width;
    const uint8_t *codes = ivf->codes8 + (size_t)w->slot * width;
    for (uint32_t i = 0; i < width; i += MN_LINE)
        __builtin_prefetch(codes + i);
    __builtin_prefetch(&ivf->fine[w->slot]);
}

/* While fewer than k rows are found every row waits. Those with the lowest bounds go first: they set a limit that most
 * of the others do not pass. */
static void weigh_first(struct mn_recall_codes *c)
{
    struct waiting *all = c->waiting + c->waiting_first;
    uint32_t count = c->waiting_end - c->waiting_first, wanted = c->best.max - c->best.count;
    if (wanted < count)
        select_lowest(all, count, wanted);
    else
        wanted = count;
    for (uint32_t i = 0; i < wanted; i++)
        ask_for_codes(c, &all[i]);
    weigh_until(c, c->waiting_first + wanted);
    uint32_t kept = c->waiting_first;
    for (uint32_t i = c->waiting_first; i < c->waiting_end; i++) {
        if (c->waiting[i].low < c->limit) {
            ask_for_codes(c, &c->waiting[i]);
            c->waiting[kept++] = c->waiting[i];
        }
    }
    c->waiting_end = kept;
    weigh_all(c);
}

static void wait_for(struct mn_recall_codes *c, struct waiting w)
{
    if (c->waiting_end == WAITING) {
        if (c->limit < INFINITY)
            weigh_all(c);
        else
            weigh_first(c);
    }
    c->waiting[c->waiting_end++] = w;
    if (c->limit < INFINITY)
        ask_for_codes(c, &w);
}

/* ---- scanning blocks ---- */

/* The lanes whose rows are selected. */
static uint32_t selected_lanes(const struct source *s, const struct mn_ivf_lanes *lanes, uint32_t of)
{
    uint32_t left = of, kept = 0;
    if (s->whole)
        return of;
    for (; left; left &= left - 1) {
        uint32_t lane = (uint32_t)__builtin_ctz(left);
        kept |= (uint32_t)selected(s, lanes->row[lane]) << lane;
    }
    return kept;
}

/* Whether a block can hold a selected row: rows rise within a cluster. */
static bool in_range(const struct source *s, const struct mn_ivf_lanes *lanes)
{
    uint32_t last = lanes->row[MN_IVF_LANES - 1]; /* MN_NONE in the last block: no bound */
    return lanes->row[0] < s->selection.end && last >= s->selection.first;
}

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

static void wait_for_lanes(struct mn_recall_codes *c, const struct planned *at, const struct mn_ivf_lanes *lanes,
                           uint32_t below)
{
    for (; below; below &= below - 1) {
        uint32_t lane = (uint32_t)__builtin_ctz(below);
        if (lanes->row[lane] != MN_NONE)
            wait_for(c, (struct waiting){c->low[lane], at->gap, at->source, at->first_slot + lane, lanes->row[lane]});
    }
}

/* Scans a block, and weighs the rows of earlier ones, whose codes have come meanwhile. ahead: a block that will be
 * scanned soon, or NULL. */
static void scan_block(struct mn_recall_codes *c, const struct planned *at, const uint8_t *ahead)
{
    const struct source *s = &c->sources[at->source];
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
        weigh_until(c, before < c->waiting_end ? before : c->waiting_end);
}

/* Goes on to the next source that has blocks of the cluster, or to the next cluster. */
static bool unroll(struct plan *plan)
{
    const struct mn_recall_codes *c = plan->codes;
    for (;;) {
        while (++plan->source < c->source_count) {
            const struct source *s = &c->sources[plan->source];
            if (s->probe != plan->probe || s->way != BY_CLUSTERS)
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
        const struct source *s = &c->sources[plan->source];
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
    const struct source *s = &c->sources[at->source];
    uint32_t width = s->ivf->codebook->width;
    for (uint32_t i = s->sparse ? 4 * width : 0; i < mn_ivf_block_bytes(width); i += MN_LINE)
        __builtin_prefetch(at->block + i, 0, 2);
}

static void ask_for_row(const struct mn_recall_codes *c, const struct candidate *candidate)
{
    const struct mn_part *p = c->sources[candidate->source].rows_of;
    const float *vector = mn_part_vector(p, candidate->row);
    for (uint32_t i = 0; vector && i < p->dim; i += MN_LINE / sizeof *vector)
        __builtin_prefetch(vector + i, 0, 2);
    if (p->tail) {
        __builtin_prefetch(&p->tail_rows[candidate->row].at);
        return;
    }
    __builtin_prefetch(&p->scale[candidate->row]);
    __builtin_prefetch(&p->at[candidate->row]);
    __builtin_prefetch(&p->confidence[candidate->row]);
}

/* Before the first block of a cluster: false when the search may end. Shortly before that the embeddings of the best
 * are asked for: most of them will be needed. */
static bool goes_on(struct mn_recall_codes *c, const struct mn_probe *probe, const struct planned *at)
{
    if (c->limit == INFINITY)
        weigh_first(c);
    if (c->limit == INFINITY)
        return true;
    double strain = mn_probe_strain(probe, (double)c->rule.nearness, at->rank, at->opens, c->limit);
    c->ending |= strain > (double)c->rule.stop - SOON;
    return !(strain > (double)c->rule.stop);
}

static void scan_clusters(struct mn_recall_codes *c, struct mn_probe *probe)
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
            ask_for_row(c, &c->best.heap[c->asked++]);
        scan_block(c, &at, next && !sparse ? next->block : NULL);
    }
    if (c->limit == INFINITY)
        weigh_first(c);
    weigh_all(c);
}

/* All blocks of a flat inverted file. */
static void scan_flat(struct mn_recall_codes *c, uint32_t source)
{
    const struct source *s = &c->sources[source];
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
    if (c->limit == INFINITY)
        weigh_first(c);
    weigh_all(c);
}

/* ---- following rows ---- */

static uint32_t cluster_of(const struct mn_ivf *ivf, uint32_t slot)
{
    uint32_t low = 0, high = ivf->clusters;
    while (high - low > 1) { /* first_slot[low] <= slot < first_slot[high] */
        uint32_t middle = low + (high - low) / 2;
        if (ivf->first_slot[middle] <= slot)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void follow(struct mn_recall_codes *c, uint32_t source, uint32_t row)
{
    const struct source *s = &c->sources[source];
    const struct mn_ivf *ivf = s->ivf;
    uint32_t slot = ivf->slots ? ivf->slots[row] : row;
    float gap = mn_ivf_flat(ivf) ? s->probe->origin : mn_probe_gap(s->probe, cluster_of(ivf, slot));
    struct waiting w = {-INFINITY, gap, source, slot, row};
    ask_for_codes(c, &w);
    c->waiting[c->waiting_end++] = w;
    if (c->waiting_end == WAITING)
        weigh_all(c);
    else if (c->waiting_end - c->waiting_first > LIST_AHEAD)
        weigh_until(c, c->waiting_end - LIST_AHEAD);
}

/* The selected rows of a source, some at a time. */
struct walk {
    const struct source *source;
    uint32_t next;
};

static uint32_t next_selected(struct walk *walk, uint32_t *rows, uint32_t max)
{
    const struct mn_selection *selection = &walk->source->selection;
    bool list = selection->kind == MN_SELECTION_LIST;
    uint32_t n = 0, end = list ? selection->count : selection->end;
    for (; n < max && walk->next < end; walk->next++) {
        if (selection->kind == MN_SELECTION_BITS) {
            uint64_t rest = selection->bits[walk->next / 64] >> walk->next % 64;
            walk->next = rest ? walk->next + (uint32_t)__builtin_ctzll(rest) : (walk->next | 63);
            if (!rest || walk->next >= end)
                continue;
        }
        rows[n++] = list ? selection->rows[walk->next] : walk->next;
    }
    return n;
}

static struct walk walk_of(const struct source *s)
{
    return (struct walk){s, s->selection.kind == MN_SELECTION_LIST ? 0 : s->selection.first};
}

static void follow_list(struct mn_recall_codes *c, uint32_t source)
{
    const struct source *s = &c->sources[source];
    struct walk walk = walk_of(s);
    uint32_t rows[64], count;
    while ((count = next_selected(&walk, rows, MN_ARRAY_LEN(rows))) > 0) {
        for (uint32_t i = 0; s->ivf->slots && i < count; i++)
            __builtin_prefetch(&s->ivf->slots[rows[i]]);
        for (uint32_t i = 0; i < count; i++)
            follow(c, source, rows[i]);
        c->recall->search->scanned += count;
    }
    weigh_all(c);
}

static void compare_list(struct mn_recall_codes *c, const struct source *s)
{
    struct walk walk = walk_of(s);
    uint32_t rows[64], count;
    while ((count = next_selected(&walk, rows, MN_ARRAY_LEN(rows))) > 0) {
        uint32_t kept = 0;
        for (uint32_t i = 0; i < count; i++)
            if (admitted(c, s, rows[i]))
                rows[kept++] = rows[i];
        mn_recall_compare(c->recall, s->part, rows, kept);
    }
}

/* ---- the plan ---- */

static struct mn_probe *probe_for(struct mn_recall_codes *c, const struct mn_codebook *codebook)
{
    for (uint32_t i = 0; i < PROBES; i++) {
        if (!c->probes[i].codebook || c->probes[i].codebook == codebook) {
            c->probes[i].codebook = codebook;
            return &c->probes[i];
        }
    }
    return NULL;
}

static enum mn_status reserve_sources(struct mn_recall_codes *c, uint32_t parts)
{
    if (parts <= c->source_max)
        return MN_OK;
    struct source *sources = realloc(c->sources, parts * sizeof *sources);
    if (!sources)
        return MN_FAIL(MN_INTERNAL, "out of memory for a search of %u parts", parts);
    memset(sources + c->source_max, 0, (parts - c->source_max) * sizeof *sources);
    c->sources = sources;
    c->source_max = parts;
    return MN_OK;
}

static enum mn_status reserve_candidates(struct candidates *of, uint32_t *room, uint32_t wanted)
{
    of->count = 0;
    of->max = wanted;
    if (wanted <= *room)
        return MN_OK;
    struct candidate *heap = realloc(of->heap, wanted * sizeof *heap);
    if (!heap)
        return MN_FAIL(MN_INTERNAL, "out of memory for %u candidates", wanted);
    of->heap = heap;
    *room = wanted;
    return MN_OK;
}

/* Every part with codes becomes a source; *rows: that have codes. */
static enum mn_status find_sources(struct mn_recall_codes *c, uint64_t *rows)
{
    const struct mn_snapshot *snapshot = c->recall->snapshot;
    *rows = 0;
    c->source_count = 0;
    for (uint32_t i = 0; i < PROBES; i++)
        c->probes[i].codebook = NULL;
    MN_TRY(reserve_sources(c, snapshot->part_count));
    for (uint32_t i = 0; i < snapshot->part_count; i++) {
        const struct mn_part *p = &snapshot->parts[i];
        struct mn_probe *probe = p->ivf && p->ivf->rows > 0 ? probe_for(c, p->ivf->codebook) : NULL;
        if (!probe)
            continue;
        MN_TRY(mn_probe_reserve(probe, p->ivf->codebook));
        struct source *s = &c->sources[c->source_count++];
        s->part = i;
        s->rows_of = p;
        s->ivf = p->ivf;
        s->probe = probe;
        *rows += p->ivf->rows;
    }
    return MN_OK;
}

static bool wide_open(const struct mn_matcher *m)
{
    return m->any_row && m->from == INT64_MIN && m->until == INT64_MAX;
}

static enum mn_status select_rows(const struct mn_recall *r, struct source *s)
{
    const struct mn_part *p = s->rows_of;
    s->excluded = mn_recall_excluded_space(r, p);
    bool known = !p->tail && p->dead != NULL;
    s->ask_born = !known || p->born_max > r->snapshot->seq;
    s->ask_expires = !known || p->expires_min <= r->snapshot->now;
    /* Relaxed: who died by the snapshot's seq was counted before that seq was published. */
    s->ask_died = !known || atomic_load_explicit(p->dead, memory_order_relaxed) > 0;
    s->whole = wide_open(&r->search->matcher);
    s->selection = (struct mn_selection){.kind = MN_SELECTION_ALL, .end = s->ivf->rows, .count = s->ivf->rows};
    if (s->whole)
        return MN_OK;
    MN_TRY(mn_matcher_begin(&s->matcher, &r->query->scope));
    s->selection.kind = MN_SELECTION_NONE;
    if (mn_matcher_part(&s->matcher, p, 0, s->ivf->rows))
        MN_TRY(mn_selector_select(&s->selector, &s->matcher, &s->selection));
    if (s->selection.kind == MN_SELECTION_NONE)
        s->selection.end = s->selection.count = 0;
    return MN_OK;
}

/* Rows to look at when a selection is followed row by row. */
static uint32_t listed_rows(const struct source *s)
{
    const struct mn_selection *selection = &s->selection;
    switch (selection->kind) {
    case MN_SELECTION_NONE:
        return 0;
    case MN_SELECTION_LIST:
    case MN_SELECTION_BITS:
        return selection->count;
    default:
        return selection->end - selection->first;
    }
}

static enum mn_status list_to_bits(struct source *s)
{
    uint32_t words = (s->rows_of->rows + 63) / 64;
    if (words > s->words_max) {
        uint64_t *words_now = realloc(s->words, words * sizeof *words_now);
        if (!words_now)
            return MN_FAIL(MN_INTERNAL, "out of memory for a selection of %u rows", s->rows_of->rows);
        s->words = words_now;
        s->words_max = words;
    }
    memset(s->words, 0, words * sizeof *s->words);
    for (uint32_t i = 0; i < s->selection.count; i++)
        s->words[s->selection.rows[i] / 64] |= UINT64_C(1) << s->selection.rows[i] % 64;
    s->selection.kind = MN_SELECTION_BITS;
    s->selection.bits = s->words;
    return MN_OK;
}

/* Following a list costs as much for each row wherever it is; probing scans the more rows the rarer the selected ones
 * are, about as the fourth root. */
static enum mn_status choose_way(struct source *s, uint64_t coded)
{
    double rows = listed_rows(s), share = (double)s->selection.count / (double)s->ivf->rows;
    double probing = PROBE_ROWS * sqrt((double)coded) * ((double)s->ivf->rows / (double)coded);
    s->way = mn_ivf_flat(s->ivf) ? BY_FLAT : BY_CLUSTERS;
    s->sparse = s->selection.kind == MN_SELECTION_BITS && share < SPARSE;
    if (s->whole)
        return MN_OK;
    if (s->selection.kind == MN_SELECTION_NONE || rows * LIST_COST * sqrt(sqrt(share)) < probing)
        s->way = BY_LIST;
    else if (s->selection.kind == MN_SELECTION_LIST)
        MN_TRY(list_to_bits(s));
    return MN_OK;
}

static enum mn_status select_all(struct mn_recall_codes *c, uint64_t *rows)
{
    *rows = 0;
    for (uint32_t i = 0; i < c->source_count; i++) {
        MN_TRY(select_rows(c->recall, &c->sources[i]));
        *rows += listed_rows(&c->sources[i]);
    }
    return MN_OK;
}

static struct mn_tune_rule rule_of(const struct mn_recall *r)
{
    struct mn_tuning tuning = {0};
    uint32_t *words = (uint32_t *)(void *)&tuning;
    if (r->search->rule)
        return *r->search->rule;
    for (uint32_t i = 0; r->snapshot->tuning && i < MN_TUNING_WORDS; i++)
        words[i] = atomic_load_explicit(&r->snapshot->tuning[i], memory_order_relaxed);
    return mn_tune_rule_for(&tuning, r->query->target);
}

/* ---- the search ---- */

/* Rows without codes. */
static void scan_uncoded(struct mn_recall_codes *c)
{
    const struct mn_snapshot *snapshot = c->recall->snapshot;
    for (uint32_t i = 0, s = 0; i < snapshot->part_count; i++) {
        bool coded = s < c->source_count && c->sources[s].part == i;
        mn_recall_scan(c->recall, i, coded ? c->sources[s].ivf->rows : 0, snapshot->parts[i].rows);
        s += coded;
    }
}

/* Brings the query into the form of each codebook. False when its numbers are too large for floats to be squared and
 * added up: then only the exact search can tell. */
static bool begin_probes(struct mn_recall_codes *c)
{
    const struct mn_recall *r = c->recall;
    const struct mn_search *search = r->search;
    for (uint32_t i = 0; i < PROBES && c->probes[i].codebook; i++) {
        mn_probe_begin(&c->probes[i], search->kernels, search->embedding, (float)r->query_scale);
        if (!(c->probes[i].norm < QUERY_MAX))
            return false;
    }
    for (uint32_t i = 0; i < c->source_count; i++) {
        const struct source *s = &c->sources[i];
        if (s->selection.kind != MN_SELECTION_NONE && !mn_ivf_flat(s->ivf) && !s->probe->sorted)
            mn_probe_sort(s->probe);
    }
    return true;
}

static void begin_limit(struct mn_recall_codes *c)
{
    float size = 1;
    if (c->recall->search->metric != MN_METRIC_COSINE)
        for (uint32_t i = 0; i < PROBES && c->probes[i].codebook; i++)
            size = fmaxf(size, c->probes[i].norm * c->probes[i].norm);
    c->bound = bound_of(c->recall, size);
    c->limit = c->bound;
    c->waiting_first = c->waiting_end = c->asked = 0;
    c->ending = false;
}

static void look_through(struct mn_recall_codes *c)
{
    for (uint32_t i = 0; i < c->source_count; i++)
        if (c->sources[i].way == BY_LIST)
            follow_list(c, i);
    for (uint32_t i = 0; i < PROBES && c->probes[i].codebook; i++)
        if (c->probes[i].sorted)
            scan_clusters(c, &c->probes[i]);
    for (uint32_t i = 0; i < c->source_count; i++)
        if (c->sources[i].way == BY_FLAT)
            scan_flat(c, i);
}

/* The last word has the comparison of embeddings. */
static void compare_candidates(struct mn_recall_codes *c, const struct candidates *of)
{
    for (uint32_t i = 0; i < of->count; i++)
        mn_part_ahead(c->sources[of->heap[i].source].rows_of, &of->heap[i].row, 1);
    for (uint32_t i = 0; i < of->count && i < ROWS_AHEAD; i++)
        ask_for_row(c, &of->heap[i]);
    for (uint32_t i = 0; i < of->count; i++) {
        if (i + ROWS_AHEAD < of->count)
            ask_for_row(c, &of->heap[i + ROWS_AHEAD]);
        mn_recall_compare(c->recall, c->sources[of->heap[i].source].part, &of->heap[i].row, 1);
    }
}

/* Of the candidates behind the best, those remain that 8-bit codes cannot tell from the last of the best: their error
 * is below this, in all that was seen. */
static void drop_far(struct mn_recall_codes *c)
{
    uint32_t kept = 0;
    if (c->recall->query->rank.on || c->recall->search->metric != MN_METRIC_COSINE)
        return;
    float worst = c->best.count > 0 ? c->best.heap[0].key : 0;
    float doubt = DOUBT / sqrtf((float)c->probes[0].codebook->width);
    for (uint32_t i = 0; i < c->spare.count; i++)
        if (c->spare.heap[i].key <= worst + doubt)
            c->spare.heap[kept++] = c->spare.heap[i];
    c->spare.count = kept;
}

/* So few rows that each is compared: the answer is exact. */
static void compare_few(struct mn_recall_codes *c, uint64_t begin)
{
    scan_uncoded(c);
    for (uint32_t i = 0; i < c->source_count; i++)
        compare_list(c, &c->sources[i]);
    c->recall->search->scan_ns = now_ns() - begin;
}

static enum mn_status search_codes(struct mn_recall_codes *c, uint64_t begin, uint64_t coded)
{
    struct mn_search *search = c->recall->search;
    uint32_t k = c->recall->query->k;
    for (uint32_t i = 0; i < c->source_count; i++)
        MN_TRY(choose_way(&c->sources[i], coded));
    MN_TRY(reserve_candidates(&c->best, &c->best_room, k));
    MN_TRY(reserve_candidates(&c->spare, &c->spare_room, k / 8 > SPARE_MIN ? k / 8 : SPARE_MIN));
    scan_uncoded(c);
    search->exact = false;
    begin_limit(c);
    uint64_t sorted = now_ns();
    look_through(c);
    uint64_t scanned = now_ns();
    drop_far(c);
    compare_candidates(c, &c->best);
    compare_candidates(c, &c->spare);
    search->coarse_ns = sorted - begin;
    search->scan_ns = scanned - sorted;
    search->rerank_ns = now_ns() - scanned;
    return MN_OK;
}

static enum mn_status open_scratch(struct mn_search *search)
{
    if (search->codes)
        return MN_OK;
    search->codes = aligned_alloc(MN_LINE, mn_round_up(sizeof *search->codes, MN_LINE));
    if (!search->codes)
        return MN_FAIL(MN_INTERNAL, "out of memory for a search");
    memset(search->codes, 0, sizeof *search->codes);
    return MN_OK;
}

enum mn_status mn_recall_through_codes(struct mn_recall *r, bool *done)
{
    uint64_t begin = now_ns(), coded, rows;
    *done = false;
    MN_TRY(open_scratch(r->search));
    struct mn_recall_codes *c = r->search->codes;
    c->recall = r;
    c->rule = rule_of(r);
    if (c->rule.stop == INFINITY)
        return MN_OK;
    MN_TRY(find_sources(c, &coded));
    if (coded <= EXACT_ROWS)
        return MN_OK;
    MN_TRY(select_all(c, &rows));
    bool few = rows <= EXACT_ROWS || rows <= 2 * (uint64_t)r->query->k;
    *done = few || begin_probes(c);
    if (few)
        compare_few(c, begin);
    return few || !*done ? MN_OK : search_codes(c, begin, coded);
}
