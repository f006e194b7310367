/*
 * recall_select.c - the search through codes, first: which rows of a source match, and how to go through it.
 *
 * Most sources are scanned (recall_blocks.c). A filter that leaves few rows of one is followed row by row instead, by
 * 8-bit codes at once: then it does not matter how far from the query they lie.
 */
#include <stdlib.h>

#include "engine/recall_codes_inside.h"

#define LIST_AHEAD 16u
#define SPARSE     (1.0 / 16) /* a set of rows below this density is asked before a block is scanned */

/* The two costs that choose_way compares, in rows scanned by 1-bit codes. LIST_COST stands for a row that is followed:
 * its slot and its 8-bit codes, which lie anywhere in memory. By the clock it costs more than this (among 100,000 rows
 * following 1,000 takes about as long in the 99th percentile as probing, and twice as long in the median): it is low
 * because following finds the best whatever the query's place among the rows that match, where probing goes by the
 * query's neighbours, which may not match (bench_recall_filters, "other" and "far"). PROBE_ROWS * sqrt(rows) stands for
 * what a search scans of a store of so many rows before it stops. */
#define LIST_COST  4.0
#define PROBE_ROWS 8.0

/* ---- selecting ---- */

static enum mn_status select_rows(const struct mn_recall *r, struct mn_recall_source *s)
{
    const struct mn_part *p = s->rows_of;
    s->excluded = mn_recall_excluded_space(r, p);
    bool known = !p->tail && p->dead != NULL;
    s->ask_born = !known || p->born_max > r->snapshot->seq;
    s->ask_expires = !known || p->expires_min <= r->snapshot->now;
    /* Relaxed: who died by the snapshot's seq was counted before that seq was published. */
    s->ask_died = !known || atomic_load_explicit(p->dead, memory_order_relaxed) > 0;
    s->whole = mn_matcher_open(&r->search->matcher);
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
static uint32_t listed_rows(const struct mn_recall_source *s)
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

enum mn_status mn_recall_select_rows(struct mn_recall_codes *c, uint64_t *rows)
{
    *rows = 0;
    for (uint32_t i = 0; i < c->source_count; i++) {
        MN_TRY(select_rows(c->recall, &c->sources[i]));
        *rows += listed_rows(&c->sources[i]);
    }
    return MN_OK;
}

/* ---- the way ---- */

static enum mn_status list_to_bits(struct mn_recall_source *s)
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
static enum mn_status choose_way(struct mn_recall_source *s, uint64_t coded)
{
    double rows = listed_rows(s), share = (double)s->selection.count / (double)s->ivf->rows;
    double probing = PROBE_ROWS * sqrt((double)coded) * ((double)s->ivf->rows / (double)coded);
    s->way = mn_ivf_flat(s->ivf) ? MN_RECALL_BY_FLAT : MN_RECALL_BY_CLUSTERS;
    s->sparse = s->selection.kind == MN_SELECTION_BITS && share < SPARSE;
    if (s->whole)
        return MN_OK;
    if (s->selection.kind == MN_SELECTION_NONE || rows * LIST_COST * sqrt(sqrt(share)) < probing)
        s->way = MN_RECALL_BY_LIST;
    else if (s->selection.kind == MN_SELECTION_LIST)
        MN_TRY(list_to_bits(s));
    return MN_OK;
}

enum mn_status mn_recall_select_ways(struct mn_recall_codes *c, uint64_t coded)
{
    for (uint32_t i = 0; i < c->source_count; i++)
        MN_TRY(choose_way(&c->sources[i], coded));
    return MN_OK;
}

/* ---- following rows ---- */

/* The selected rows of a source, some at a time. */
struct walk {
    const struct mn_recall_source *source;
    uint32_t next;
};

static struct walk walk_of(const struct mn_recall_source *s)
{
    return (struct walk){s, s->selection.kind == MN_SELECTION_LIST ? 0 : s->selection.first};
}

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
    const struct mn_recall_source *s = &c->sources[source];
    const struct mn_ivf *ivf = s->ivf;
    uint32_t slot = ivf->slots ? ivf->slots[row] : row;
    float gap = mn_ivf_flat(ivf) ? s->probe->origin : mn_probe_gap(s->probe, cluster_of(ivf, slot));
    struct mn_recall_waiting w = {-INFINITY, gap, source, slot, row};
    mn_recall_weigh_ask_for_codes(c, &w);
    c->waiting[c->waiting_end++] = w;
    if (c->waiting_end == MN_RECALL_WAITING)
        mn_recall_weigh_until(c, c->waiting_end);
    else if (c->waiting_end - c->waiting_first > LIST_AHEAD)
        mn_recall_weigh_until(c, c->waiting_end - LIST_AHEAD);
}

void mn_recall_select_follow(struct mn_recall_codes *c, uint32_t source)
{
    const struct mn_recall_source *s = &c->sources[source];
    struct walk walk = walk_of(s);
    uint32_t rows[64], count;
    while ((count = next_selected(&walk, rows, MN_ARRAY_LEN(rows))) > 0) {
        for (uint32_t i = 0; s->ivf->slots && i < count; i++)
            __builtin_prefetch(&s->ivf->slots[rows[i]]);
        for (uint32_t i = 0; i < count; i++)
            follow(c, source, rows[i]);
        c->recall->search->scanned += count;
    }
    mn_recall_weigh_until(c, c->waiting_end);
}

void mn_recall_select_compare(struct mn_recall_codes *c, const struct mn_recall_source *s)
{
    struct walk walk = walk_of(s);
    uint32_t rows[64], count;
    while ((count = next_selected(&walk, rows, MN_ARRAY_LEN(rows))) > 0)
        mn_recall_weigh_now(c, s, rows, count);
}
