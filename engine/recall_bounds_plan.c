/*
 * recall_bounds_plan.c - the exact search that spares embeddings, first: which parts are gone through by codes, and
 * which of their rows are selected. What has no codes, and parts of which a filter leaves few rows, are scanned row by
 * row.
 */
#include <stdlib.h>

#include "engine/recall_bounds_inside.h"

#define ROWS_MIN  512u /* fewer rows are compared in the time that clusters take to be put in order */
#define SELECTIVE 16u  /* of a part with one row in so many selected, or fewer, codes are not worth reading */
#define PER_HIT   8u   /* so many rows for each hit wanted, or more: else most are compared anyway */
#define QUERY_MAX 1e15f
#define SCALE_MAX 0x1p100f /* rows of a larger scale are so short that products with the query underflow */

void mn_bounds_plan_free(struct mn_bounds_plan *plan)
{
    for (uint32_t i = 0; i < plan->source_max; i++) {
        mn_matcher_free(&plan->sources[i].matcher);
        mn_selector_free(&plan->sources[i].selector);
    }
    for (uint32_t i = 0; i < MN_BOUNDS_VIEWS; i++)
        mn_probe_free(&plan->views[i].probe);
    free(plan->sources);
}

static struct mn_bounds_view *view_for(struct mn_bounds_plan *plan, const struct mn_codebook *codebook)
{
    for (uint32_t i = 0; i < MN_BOUNDS_VIEWS; i++) {
        if (!plan->views[i].probe.codebook || plan->views[i].probe.codebook == codebook) {
            plan->views[i].probe.codebook = codebook;
            return &plan->views[i];
        }
    }
    return NULL;
}

/* Rows below the first `rows` that a search may return; fewer than it is worth to read codes for: 0. */
static enum mn_status select_rows(const struct mn_recall *r, struct mn_bounds_source *s, uint32_t rows,
                                  uint32_t *selected)
{
    *selected = rows;
    s->whole = mn_matcher_open(&r->search->matcher);
    s->selection = (struct mn_selection){.kind = MN_SELECTION_ALL, .end = rows, .count = rows};
    if (s->whole)
        return MN_OK;
    *selected = 0;
    MN_TRY(mn_matcher_begin(&s->matcher, &r->query->scope));
    if (!mn_matcher_part(&s->matcher, s->rows_of, 0, rows))
        return MN_OK;
    MN_TRY(mn_selector_select(&s->selector, &s->matcher, &s->selection));
    if (s->selection.kind != MN_SELECTION_NONE && s->selection.kind != MN_SELECTION_LIST &&
        s->selection.count > rows / SELECTIVE)
        *selected = s->selection.count;
    return MN_OK;
}

/* Under cosine: a row so short that the sum of its products with the query is off by more than a share of its length.
 * (The writer refuses rows that are too long.) */
static bool has_short_row(const struct mn_part *p, uint32_t rows)
{
    bool found = !p->tail && p->scale_max > SCALE_MAX;
    for (uint32_t i = 0; p->tail && i < rows; i++)
        found |= mn_part_scale(p, i) > SCALE_MAX;
    return found;
}

/* Codes are bytes, one for each coordinate of the rotated space: of short embeddings they are no less to read. */
static bool worth_it(const struct mn_part *p)
{
    return p->ivf && p->ivf->rows > 0 && 4 * p->dim > 2 * p->ivf->codebook->width &&
           !(p->ivf->codebook->metric == MN_METRIC_COSINE && has_short_row(p, p->ivf->rows));
}

/* Every part becomes a source. *rows: selected in those with a view. */
static enum mn_status find_sources(struct mn_bounds_plan *plan, const struct mn_recall *r, uint64_t *rows)
{
    const struct mn_snapshot *snapshot = r->snapshot;
    *rows = 0;
    for (uint32_t i = 0; i < MN_BOUNDS_VIEWS; i++)
        plan->views[i].probe.codebook = NULL;
    for (uint32_t i = 0; i < snapshot->part_count; i++) {
        struct mn_bounds_source *s = &plan->sources[i];
        uint32_t selected = 0;
        s->part = i;
        s->rows_of = &snapshot->parts[i];
        s->ivf = s->rows_of->ivf;
        s->view = NULL;
        if (worth_it(s->rows_of))
            MN_TRY(select_rows(r, s, s->ivf->rows, &selected));
        if (selected > 0)
            s->view = view_for(plan, s->ivf->codebook);
        *rows += s->view ? selected : 0;
    }
    return MN_OK;
}

static enum mn_status reserve_sources(struct mn_bounds_plan *plan, uint32_t parts)
{
    if (parts <= plan->source_max)
        return MN_OK;
    struct mn_bounds_source *sources = realloc(plan->sources, parts * sizeof *sources);
    if (!sources)
        return MN_FAIL(MN_INTERNAL, "out of memory for a search of %u parts", parts);
    memset(sources + plan->source_max, 0, (parts - plan->source_max) * sizeof *sources);
    plan->sources = sources;
    plan->source_max = parts;
    return MN_OK;
}

enum mn_status mn_bounds_plan(struct mn_bounds_plan *plan, const struct mn_recall *r, bool *worth)
{
    uint64_t rows;
    MN_TRY(reserve_sources(plan, r->snapshot->part_count));
    MN_TRY(find_sources(plan, r, &rows));
    *worth = rows >= ROWS_MIN && rows / PER_HIT >= r->query->k;
    return MN_OK;
}

static uint32_t log2_of(uint32_t width)
{
    return 31 - (uint32_t)__builtin_clz(width);
}

enum mn_status mn_bounds_begin_view(struct mn_bounds_view *view, const struct mn_recall *r, bool *fits)
{
    const struct mn_search *search = r->search;
    const struct mn_codebook *codebook = view->probe.codebook;
    MN_TRY(mn_probe_reserve(&view->probe, codebook));
    mn_probe_begin(&view->probe, search->kernels, search->embedding, (float)r->query_scale);
    view->turned = (float)(4 * (log2_of(codebook->width) + 3) + 2) * 0x1p-24f;
    view->beyond = 0;
    if (codebook->metric == MN_METRIC_IP)
        view->beyond = sqrtf(search->kernels->dot(codebook->mean, codebook->mean, codebook->dim));
    *fits = *fits && view->probe.norm < QUERY_MAX;
    return MN_OK;
}

uint32_t mn_bounds_selected(const struct mn_bounds_source *s, uint32_t first, uint32_t count)
{
    uint32_t selected = 0;
    if (s->whole)
        return UINT32_MAX >> (MN_IVF_LANES - count);
    for (uint32_t i = 0; i < count; i++)
        selected |= (uint32_t)mn_selection_holds(&s->selection, mn_ivf_row(s->ivf, first + i)) << i;
    return selected;
}
