/*
 * recall_select.c - the search through codes, first: which rows of a source match, and how to go through it.
 *
 * Most sources are scanned (recall_blocks.c). A filter that leaves few rows of one is followed row by row instead, by
 * 8-bit codes at once: then it does not matter how far from the query they lie.
 */
#include <stdlib.h>

#include "engine/recall_codes_inside.h"
#include "engine/rowset.h"

#define LIST_AHEAD 16u

/* Of few rows that match, or not many more than are asked for, each is followed, wherever it lies. Of some more their
 * slots are marked, and the clusters with marks in them are looked into, the nearest first, as long as the rule says: a
 * mark costs a fiftieth of following. Where they are many a block is asked for them when its cluster is due, unless
 * they lie so far from the query that it would be in vain too often. (bench_recall_filters shows what it is worth.) */
#define FOLLOW_MAX 768u
#define FOLLOW_OF  10u                   /* times k */
#define MARK_MAX   MN_SELECTION_LIST_MAX /* lists are marked: nothing else tells of a slot */

/* On a Zen 4, over 100,000 rows of 768 in 1,280 clusters. */
#define NEAR        8u     /* clusters looked at */
#define LOOKED_INTO 400.0f /* clusters with matches, by a search for those that lie far from the query */
#define MARK_NS     1.5f   /* a row */
#define PASSED_NS   130.0f /* a cluster that is put in order, taken, and has no match */

#define SAMPLE 32u /* selected rows looked at to find out how close together they are */

/* What a filter makes of the calibrated rule. The k-th best of fewer rows is farther, whatever the query's surroundings
 * are (tune.h: deeper). UNEVEN: the next clusters may hold fewer matches than others.
 *
 * Found by which stop .95 needs under filters that draw rows at random or by topic, half of them to a hundredth, at
 * nearnesses of 2 to 4, on text (768 dimensions) and glove (100). */
#define UNEVEN 0.1f

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
    s->whole = s->every = mn_matcher_open(&r->search->matcher);
    s->selection = (struct mn_selection){
        .kind = MN_SELECTION_ALL, .first = s->ivf->first, .end = s->ivf->rows, .count = s->ivf->rows - s->ivf->first};
    if (s->whole)
        return MN_OK;
    MN_TRY(mn_matcher_begin(&s->matcher, &r->query->scope));
    s->selection.kind = MN_SELECTION_NONE;
    if (mn_matcher_part(&s->matcher, p, s->ivf->first, s->ivf->rows))
        MN_TRY(mn_selector_select(&s->selector, &s->matcher, &s->selection));
    if (s->selection.kind == MN_SELECTION_NONE)
        s->selection.first = s->selection.end = s->selection.count = 0;
    /* What leaves nothing out is no filter: the search goes as it was calibrated. */
    bool entire = s->selection.first == s->ivf->first && s->selection.end == s->ivf->rows;
    s->whole = s->selection.kind == MN_SELECTION_ALL && entire;
    s->every = s->whole || (s->selection.kind == MN_SELECTION_TEST && entire);
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

uint32_t mn_recall_select_slots(const struct mn_recall_source *s, uint32_t first, uint32_t count)
{
    const struct mn_selection *selection = &s->selection;
    const uint32_t *order = s->ivf->order;
    uint32_t selected = 0;
    if (s->every)
        return UINT32_MAX >> (MN_IVF_LANES - count);
    if (s->marks)
        return mn_rowset_slice(s->marks, first, count);
    if (selection->kind == MN_SELECTION_BITS)
        return order ? mn_rowset_has_which(selection->bits, order + first, count)
                     : mn_rowset_slice(selection->bits, first, count);
    for (uint32_t i = 0; i < count; i++)
        selected |= (uint32_t)mn_selection_holds(selection, mn_ivf_row(s->ivf, first + i)) << i;
    return selected;
}

/* No rest of a cluster was looked at yet. */
static enum mn_status forget_seen(struct mn_recall_source *s)
{
    uint64_t words = mn_rowset_words(s->ivf->clusters);
    if (words > s->seen_max) {
        free(s->seen);
        s->seen = malloc(words * sizeof *s->seen);
        s->seen_max = s->seen ? words : 0;
        if (!s->seen)
            return MN_FAIL(MN_INTERNAL, "out of memory for a set of %u clusters", s->ivf->clusters);
    }
    memset(s->seen, 0, words * sizeof *s->seen);
    return MN_OK;
}

static inline void mark_slot(uint64_t *words, uint32_t slot)
{
    words[slot / 64] |= UINT64_C(1) << slot % 64;
}

/* Word by word: there may be tens of thousands of rows. */
static void mark_bits(const struct mn_recall_source *s)
{
    const uint64_t *bits = s->selection.bits;
    const uint32_t *slots = s->ivf->slots;
    uint64_t *words = s->words;
    uint32_t end = (uint32_t)mn_rowset_words(s->selection.end);
    for (uint32_t w = s->selection.first / 64; w < end; w++) {
        for (uint64_t left = bits[w]; left; left &= left - 1) {
            uint32_t row = 64 * w + (uint32_t)__builtin_ctzll(left);
            mark_slot(words, slots ? slots[row] : row);
        }
    }
}

static void mark_walked(const struct mn_recall_source *s)
{
    struct walk walk = walk_of(s);
    uint32_t rows[64], count;
    while ((count = next_selected(&walk, rows, MN_ARRAY_LEN(rows))) > 0)
        for (uint32_t i = 0; i < count; i++)
            mark_slot(s->words, mn_ivf_slot(s->ivf, rows[i]));
}

static enum mn_status mark(struct mn_recall_source *s)
{
    uint64_t words = mn_rowset_words(s->ivf->rows) + 1;
    if (words > s->words_max) {
        free(s->words);
        s->words = malloc(words * sizeof *s->words);
        s->words_max = s->words ? words : 0;
        if (!s->words)
            return MN_FAIL(MN_INTERNAL, "out of memory for a selection of %u rows", s->ivf->rows);
    }
    memset(s->words, 0, words * sizeof *s->words);
    if (s->selection.kind == MN_SELECTION_BITS)
        mark_bits(s);
    else
        mark_walked(s);
    s->marks = s->words;
    return MN_OK;
}

/* By a few selected rows and the slots around theirs. 0: nothing is known of them, or all are selected. */
static float rows_together(const struct mn_recall_source *s)
{
    const struct mn_selection *selection = &s->selection;
    struct walk walk = walk_of(s);
    uint32_t rows = s->ivf->rows, range = selection->kind == MN_SELECTION_LIST ? selection->count : selection->end, row;
    uint32_t others = 0, asked = 0, begin = walk.next;
    for (uint32_t i = 0; i < SAMPLE; i++) {
        walk.next = begin + (uint32_t)((uint64_t)(range - begin) * i / SAMPLE);
        if (next_selected(&walk, &row, 1) == 0)
            continue;
        uint32_t slot = mn_ivf_slot(s->ivf, row), first = slot - slot % MN_IVF_LANES;
        uint32_t count = rows - first < MN_IVF_LANES ? rows - first : MN_IVF_LANES;
        others += (uint32_t)__builtin_popcount(mn_recall_select_slots(s, first, count)) - 1;
        asked += count - 1;
    }
    return 1 + (float)others / (float)(asked ? asked : 1) * (float)rows / (float)s->ivf->clusters;
}

static enum mn_status choose_way(struct mn_recall_source *s, uint32_t k)
{
    uint64_t follow = (uint64_t)FOLLOW_OF * k > FOLLOW_MAX ? (uint64_t)FOLLOW_OF * k : FOLLOW_MAX;
    s->marks = NULL;
    s->together = 0;
    s->way = mn_ivf_flat(s->ivf) ? MN_RECALL_BY_FLAT : MN_RECALL_BY_CLUSTERS;
    MN_TRY(forget_seen(s));
    if (s->whole)
        return MN_OK;
    if (s->selection.kind == MN_SELECTION_NONE || listed_rows(s) <= follow)
        s->way = MN_RECALL_BY_LIST;
    if (s->way == MN_RECALL_BY_LIST)
        return MN_OK;
    if (s->selection.kind != MN_SELECTION_TEST && s->selection.count <= MARK_MAX)
        MN_TRY(mark(s));
    if (s->way == MN_RECALL_BY_CLUSTERS)
        s->together = rows_together(s);
    return MN_OK;
}

/* ---- clusters ---- */

/* Of every fourth cluster of a sorted probe those that look nearest; returns how many. */
static uint32_t look_near(const struct mn_probe *probe, uint32_t nearest[NEAR])
{
    const float *estimates = probe->estimates;
    float last = INFINITY; /* of NEAR */
    uint32_t n = 0;
    for (uint32_t cluster = 0; cluster < probe->codebook->clusters; cluster += 4) {
        float estimate = estimates[cluster];
        if (!(estimate < last))
            continue;
        uint32_t at = n < NEAR ? n++ : n - 1;
        for (; at > 0 && estimates[nearest[at - 1]] > estimate; at--)
            nearest[at] = nearest[at - 1];
        nearest[at] = cluster;
        last = n < NEAR ? INFINITY : estimates[nearest[n - 1]];
    }
    return n;
}

static bool has_selected(const struct mn_recall_source *s, uint32_t cluster)
{
    uint32_t end = s->ivf->first_slot[cluster + 1];
    for (uint32_t slot = s->ivf->first_slot[cluster]; slot < end; slot += MN_IVF_LANES)
        if (mn_recall_select_slots(s, slot, end - slot < MN_IVF_LANES ? end - slot : MN_IVF_LANES) != 0)
            return true;
    return false;
}

/* Whether marking the rows of a source costs less than the clusters without any that a search would else pass on its
 * way to those with some. How many that are, the nearest tell: none where matches lie about the query or everywhere,
 * most where they lie elsewhere; there are no more than `together` leaves. */
static bool worth_marks(const struct mn_recall_source *s, const uint32_t *nearest, uint32_t count)
{
    uint32_t empty = 0;
    for (uint32_t i = 0; i < count; i++)
        empty += !has_selected(s, nearest[i]);
    float clusters = (float)s->ivf->clusters, even = 1 + (float)s->selection.count / clusters;
    float most = clusters * (1 - even / s->together), passed = LOOKED_INTO * (float)empty / (float)(count - empty + 1);
    return (float)s->selection.count * MARK_NS < fminf(passed, most) * PASSED_NS;
}

/* Whether marks would tell of every source on the codebook: each has them, or a set of rows to make them from. */
static bool can_mark(const struct mn_recall_codes *c, const struct mn_probe *probe)
{
    for (uint32_t i = 0; i < c->source_count; i++) {
        const struct mn_recall_source *s = &c->sources[i];
        if (mn_recall_goes_by(s, probe) && !s->marks && s->selection.kind != MN_SELECTION_BITS)
            return false;
    }
    return true;
}

/* Marks the sources on a codebook that have no marks yet, if that is worth it for each. */
static enum mn_status mark_far(struct mn_recall_codes *c, const struct mn_probe *probe)
{
    uint32_t nearest[NEAR], count = look_near(probe, nearest);
    for (uint32_t i = 0; i < c->source_count; i++) {
        const struct mn_recall_source *s = &c->sources[i];
        if (mn_recall_goes_by(s, probe) && !s->marks && !worth_marks(s, nearest, count))
            return MN_OK;
    }
    for (uint32_t i = 0; i < c->source_count; i++)
        if (mn_recall_goes_by(&c->sources[i], probe) && !c->sources[i].marks)
            MN_TRY(mark(&c->sources[i]));
    return MN_OK;
}

/* Leaves out clusters without a mark; false when some source on the codebook has no marks. */
static bool want_marked(const struct mn_recall_codes *c, struct mn_probe *probe)
{
    for (uint32_t i = 0; i < c->source_count; i++)
        if (mn_recall_goes_by(&c->sources[i], probe) && !c->sources[i].marks)
            return false;
    mn_probe_want_some(probe);
    for (uint32_t i = 0; i < c->source_count; i++) {
        const struct mn_recall_source *s = &c->sources[i];
        if (!mn_recall_goes_by(s, probe))
            continue;
        for (uint32_t cluster = 0; cluster < s->ivf->clusters; cluster++)
            if (mn_rowset_any(s->marks, s->ivf->first_slot[cluster], s->ivf->first_slot[cluster + 1]))
                probe->wanted[cluster / 64] |= UINT64_C(1) << cluster % 64;
    }
    return true;
}

/* Where the nearest clusters have the say which are wanted, they are sorted twice. */
static enum mn_status sort_clusters(struct mn_recall_codes *c, struct mn_probe *probe)
{
    bool some = want_marked(c, probe);
    mn_probe_sort(probe);
    if (some || !can_mark(c, probe))
        return MN_OK;
    MN_TRY(mark_far(c, probe));
    if (want_marked(c, probe))
        mn_probe_sort(probe);
    return MN_OK;
}

enum mn_status mn_recall_select_ways(struct mn_recall_codes *c)
{
    for (uint32_t i = 0; i < c->source_count; i++)
        MN_TRY(choose_way(&c->sources[i], c->recall->query->k));
    for (uint32_t i = 0; i < c->source_count; i++) {
        const struct mn_recall_source *s = &c->sources[i];
        if (s->selection.kind != MN_SELECTION_NONE && !mn_ivf_flat(s->ivf) && !s->probe->sorted)
            MN_TRY(sort_clusters(c, s->probe));
    }
    return MN_OK;
}

/* ---- the rule ---- */

/* Of the rows that a source takes for selected, the share that match: a test is made row by row, later. */
static float matching_share(const struct mn_recall_source *s)
{
    const struct mn_selection *selection = &s->selection;
    bool guess = selection->kind == MN_SELECTION_TEST && selection->end > selection->first;
    return guess ? (float)selection->count / (float)(selection->end - selection->first) : 1;
}

struct mn_tune_rule mn_recall_select_rule(const struct mn_recall_codes *c, const struct mn_tune_rule *calibrated,
                                          const struct mn_probe *probe)
{
    struct mn_tune_rule rule = *calibrated;
    float rows = 0, matching = 0, together = 0, clusters = 0;
    for (uint32_t i = 0; i < c->source_count; i++) {
        const struct mn_recall_source *s = &c->sources[i];
        if (!mn_recall_goes_by(s, probe))
            continue;
        rows += (float)s->ivf->rows;
        clusters = (float)s->ivf->clusters;
        matching += s->whole ? (float)s->ivf->rows : (float)s->selection.count;
        together += s->together * matching_share(s);
    }
    if (!(matching < rows) || !(together > 0))
        return rule;
    float missing = fminf(2 * (1 - matching / rows), 1);
    float decades = fmaxf(fminf(log10f(rows / (clusters * together)), 1), 0);
    rule.stop += missing * UNEVEN + mn_tune_deeper(&rule, decades);
    return rule;
}

/* ---- following rows ---- */

static void follow(struct mn_recall_codes *c, uint32_t source, uint32_t row)
{
    const struct mn_recall_source *s = &c->sources[source];
    const struct mn_ivf *ivf = s->ivf;
    uint32_t slot = mn_ivf_slot(ivf, row);
    float gap = mn_ivf_flat(ivf) ? s->probe->origin : mn_probe_gap(s->probe, mn_ivf_cluster(ivf, slot));
    struct mn_recall_waiting w = {-INFINITY, gap, source, slot};
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
