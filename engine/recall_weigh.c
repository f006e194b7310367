/*
 * recall_weigh.c - the search through codes, third: which of the rows that passed become candidates.
 *
 * A row waits while its 8-bit codes come from memory, is weighed by them, and enters the candidates if it is visible
 * and matches: the k best, and those that lie so close behind them that codes cannot well tell, because the last word
 * has the comparison of embeddings. In most stores these are a few; where rows are much alike, or one another's twins,
 * they may be hundreds; where codes tell nothing apart the exact search decides. The k-th best sets the limit that
 * keeps further rows out, here and in the scans. Rows whose codes cannot be used (damaged, or too large for floats) are
 * compared at once.
 *
 * Distances are those of engine/ivf.h, made comparable between codebooks.
 */
#include <stdlib.h>

#include "engine/recall_codes_inside.h"

#define CLOSE_MIN 64u
#define CLOSE_MAX 4096u /* close rows that are kept; where there are more the exact search has the word */

/* Standard deviations of an estimate that count as its error. No bound, as mn_ivf_doubt8 is: a row dropped wrongly is
 * one that the answer lacks, and one kept in vain is compared, which costs as much as weighing ten. */
#define DEVIATIONS 3.0
#define ROUNDING   0x1p-22 /* of rotated floats and their sums: share of the query's length */

/* ---- what can still enter ---- */

/* The distance of a row of that score. */
static float distance_of(const struct mn_search *search, double score)
{
    return (float)(search->metric == MN_METRIC_COSINE ? 2 - 2 * score : -score);
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

void mn_recall_weigh_begin(struct mn_recall_codes *c)
{
    float size = 1;
    if (c->recall->search->metric != MN_METRIC_COSINE)
        for (uint32_t i = 0; i < MN_RECALL_PROBES && c->probes[i].codebook; i++)
            size = fmaxf(size, c->probes[i].norm * c->probes[i].norm);
    c->bound = bound_of(c->recall, size);
    c->limit = c->bound;
    c->waiting_first = c->waiting_end = c->seeds = c->asked = 0;
    memset(c->marks, 0, sizeof c->marks);
    c->ending = false;
}

/* ---- candidates ---- */

static enum mn_status reserve(struct mn_recall_candidates *of, uint32_t wanted)
{
    of->count = 0;
    of->max = wanted;
    if (wanted <= of->room)
        return MN_OK;
    struct mn_recall_candidate *heap = realloc(of->heap, wanted * sizeof *heap);
    if (!heap)
        return MN_FAIL(MN_INTERNAL, "out of memory for %u candidates", wanted);
    of->heap = heap;
    of->room = wanted;
    return MN_OK;
}

enum mn_status mn_recall_weigh_reserve(struct mn_recall_codes *c, uint32_t k)
{
    c->close.count = 0;
    c->alike = false;
    return reserve(&c->best, k);
}

static bool behind(const struct mn_recall_codes *c, const struct mn_recall_candidate *a,
                   const struct mn_recall_candidate *b)
{
    if (a->key != b->key)
        return a->key > b->key;
    const struct mn_recall_source *of_a = &c->sources[a->source], *of_b = &c->sources[b->source];
    return mn_recall_before(c->recall->snapshot, of_b->part, b->row, of_a->part, a->row);
}

/* The least number above x: what equals a limit still passes it. */
static float just_above(float x)
{
    return x < INFINITY ? nextafterf(x, INFINITY) : x;
}

static void sink(const struct mn_recall_codes *c, const struct mn_recall_candidates *of,
                 struct mn_recall_candidate candidate)
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

static void rise(const struct mn_recall_codes *c, struct mn_recall_candidates *of, struct mn_recall_candidate candidate)
{
    uint32_t i = of->count++;
    while (i > 0 && behind(c, &candidate, &of->heap[(i - 1) / 2])) {
        of->heap[i] = of->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    of->heap[i] = candidate;
}

void mn_recall_weigh_drop_far(struct mn_recall_codes *c)
{
    struct mn_recall_candidates *close = &c->close;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < close->count; i++)
        if (close->heap[i].least < c->limit)
            close->heap[kept++] = close->heap[i];
    close->count = kept;
}

static bool has_close_room(struct mn_recall_codes *c)
{
    struct mn_recall_candidates *close = &c->close;
    if (close->count == close->room)
        mn_recall_weigh_drop_far(c);
    if (close->count <= close->room / 2 && close->room > 0)
        return true;
    uint32_t room = close->room > 0 ? 2 * close->room : CLOSE_MIN;
    struct mn_recall_candidate *heap = room <= CLOSE_MAX ? realloc(close->heap, room * sizeof *heap) : NULL;
    if (!heap)
        return false;
    close->heap = heap;
    close->room = room;
    return true;
}

static void keep_close(struct mn_recall_codes *c, struct mn_recall_candidate candidate)
{
    if (!(candidate.least < c->limit))
        return;
    c->alike = c->alike || (c->close.count == c->close.room && !has_close_room(c));
    if (!c->alike)
        c->close.heap[c->close.count++] = candidate;
}

static void keep(struct mn_recall_codes *c, struct mn_recall_candidate candidate)
{
    if (c->best.count < c->best.max) {
        rise(c, &c->best, candidate);
    } else if (behind(c, &c->best.heap[0], &candidate)) {
        keep_close(c, c->best.heap[0]);
        sink(c, &c->best, candidate);
    } else {
        keep_close(c, candidate);
    }
    if (c->best.count == c->best.max && c->best.heap[0].key < c->bound)
        c->limit = just_above(c->best.heap[0].key);
}

void mn_recall_weigh_ask_for_row(const struct mn_recall_codes *c, const struct mn_recall_candidate *candidate)
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

/* ---- may a row come back? ---- */

static bool visible(const struct mn_snapshot *snapshot, const struct mn_recall_source *s, uint32_t row)
{
    const struct mn_part *p = s->rows_of;
    return (!s->ask_born || mn_part_born(p, row) <= snapshot->seq) &&
           (!s->ask_died || snapshot->seq < mn_died_seq(mn_part_died(p, row))) &&
           (!s->ask_expires || mn_part_expires(p, row) > snapshot->now);
}

/* A selected row: whether it is visible, and what the selection left open. */
static bool admitted(const struct mn_recall_codes *c, const struct mn_recall_source *s, uint32_t row)
{
    const struct mn_recall *r = c->recall;
    return visible(r->snapshot, s, row) &&
           (s->selection.kind != MN_SELECTION_TEST || mn_matcher_row(&s->matcher, row)) &&
           !mn_recall_excluded(r, s->rows_of, row, s->excluded);
}

/* ---- weighing ---- */

void mn_recall_weigh_now(struct mn_recall_codes *c, const struct mn_recall_source *s, uint32_t *rows, uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        if (admitted(c, s, rows[i]))
            rows[kept++] = rows[i];
    mn_recall_compare(c->recall, s->part, rows, kept);
}

static void compare_now(struct mn_recall_codes *c, const struct mn_recall_source *s, uint32_t row)
{
    mn_recall_weigh_now(c, s, &row, 1);
}

static double similarity_at(float distance)
{
    return 1 - 0.5 * (double)distance;
}

/* The key of a row at that distance: what its score is worth. */
static float key_of(const struct mn_recall_codes *c, const struct mn_recall_source *s, uint32_t row, float distance)
{
    const struct mn_rank *rank = &c->recall->query->rank;
    if (!rank->on)
        return distance;
    double decay, score = mn_recall_rank(rank, similarity_at(distance), mn_part_at(s->rows_of, row),
                                         mn_part_confidence(s->rows_of, row), &decay);
    return (float)(2 - 2 * score);
}

/* By how much an estimate may well be off: by the codes of the row, of the query, and of the centroid that the gap was
 * estimated from, each as often up as down, and by the rounding of all sums. Under rank no factor makes it more. */
static float error_of(const struct mn_recall_source *s, const struct mn_ivf_fine *fine, float gap)
{
    const struct mn_codebook *codebook = s->ivf->codebook;
    bool product = codebook->metric == MN_METRIC_IP;
    double norm = (double)s->probe->norm, lost = (double)s->probe->fine.lost, error = (double)fine->error;
    double near2 = product ? norm * norm : fabs((double)gap), lost2 = lost * lost,
           span2 = (double)fine->span * fine->span;
    double twice = product ? 1 : 2, square = twice * twice * (error * error * near2 + span2 * lost2) / codebook->width;
    double sums = product ? (double)gap * gap + norm * norm * span2 : norm * norm * (near2 + span2);
    square += (mn_ivf_flat(s->ivf) ? 0 : mn_probe_doubt(s->probe, gap)) + ROUNDING * ROUNDING * sums;
    return (float)(DEVIATIONS * sqrt(square));
}

static void weigh(struct mn_recall_codes *c, const struct mn_recall_waiting *w)
{
    const struct mn_recall_source *s = &c->sources[w->source];
    const struct mn_ivf *ivf = s->ivf;
    uint32_t width = ivf->codebook->width, row = mn_ivf_row(ivf, w->slot);
    if (!(w->low < c->limit))
        return;
    /* What costs more than codes to find out is asked first only while nothing else keeps rows out. */
    bool early = s->selection.kind == MN_SELECTION_TEST && c->limit == INFINITY;
    if (early && !admitted(c, s, row))
        return;
    if (!mn_ivf_intact(ivf, w->slot)) {
        compare_now(c, s, row);
        return;
    }
    const struct mn_ivf_fine *fine = &ivf->fine[w->slot];
    int32_t dot = s->probe->kernels->dot8(ivf->codes8 + (size_t)w->slot * width, s->probe->codes, width);
    float distance = mn_ivf_estimate8(fine, &s->probe->fine, dot, w->gap);
    if (!(distance > -0.5f * MN_IVF_FAR)) { /* NaN too */
        compare_now(c, s, row);
        return;
    }
    float key = key_of(c, s, row, distance), least = key - error_of(s, fine, w->gap);
    if (key < c->bound && least < c->limit && (early || admitted(c, s, row)))
        keep(c, (struct mn_recall_candidate){key, least, w->source, row});
}

void mn_recall_weigh_until(struct mn_recall_codes *c, uint32_t end)
{
    while (c->waiting_first < end)
        weigh(c, &c->waiting[c->waiting_first++]);
    if (c->waiting_first == c->waiting_end)
        c->waiting_first = c->waiting_end = 0;
}

/* Brings the `wanted` lowest of `count` to the front (Hoare's selection). */
static void select_lowest(struct mn_recall_waiting *all, uint32_t count, uint32_t wanted)
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
                struct mn_recall_waiting swapped = all[i];
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

/* While fewer than k rows are found every row waits. Those with the lowest bounds go first: they set a limit that most
 * of the others do not pass. */
static void bring_seeds(struct mn_recall_codes *c, uint32_t wanted)
{
    struct mn_recall_waiting *all = c->waiting + c->waiting_first;
    uint32_t count = c->waiting_end - c->waiting_first;
    if (wanted < count)
        select_lowest(all, count, wanted);
    c->seeds = wanted < count ? wanted : count;
    for (uint32_t i = 0; i < c->seeds; i++)
        mn_recall_weigh_ask_for_codes(c, &all[i]);
}

/* Enough to make the candidates full, also when the memory that is left out is among them (it is, when one like it is
 * looked for). */
static uint32_t seeds_wanted(const struct mn_recall_codes *c)
{
    return c->best.max - c->best.count + c->recall->query->has_exclude;
}

void mn_recall_weigh_seed(struct mn_recall_codes *c)
{
    uint32_t wanted = seeds_wanted(c);
    if (c->seeds == 0 && c->waiting_end - c->waiting_first >= wanted)
        bring_seeds(c, wanted);
}

void mn_recall_weigh_seeds(struct mn_recall_codes *c)
{
    uint32_t end = c->waiting_end, kept = c->waiting_first + c->seeds;
    for (uint32_t i = c->waiting_first, n = c->seeds; n > 0; n--)
        weigh(c, &c->waiting[i++]);
    c->waiting_first = kept;
    c->seeds = 0;
    for (uint32_t i = kept; i < end; i++) {
        if (c->waiting[i].low < c->limit) {
            if (c->limit < INFINITY)
                mn_recall_weigh_ask_for_codes(c, &c->waiting[i]);
            c->waiting[kept++] = c->waiting[i];
        }
    }
    c->waiting_end = kept;
}

void mn_recall_weigh_rest(struct mn_recall_codes *c)
{
    if (c->seeds == 0 && !(c->limit < INFINITY))
        bring_seeds(c, seeds_wanted(c));
    if (c->seeds > 0)
        mn_recall_weigh_seeds(c);
    mn_recall_weigh_until(c, c->waiting_end);
}
