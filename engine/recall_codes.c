/*
 * recall_codes.c - the search through codes: its flow, from the sources to the last word. The steps between are in
 * recall_select.c, recall_blocks.c and recall_weigh.c (recall_codes_inside.h says what is where).
 *
 * Every part with an inverted file is a source; what has none is scanned exactly, first, so that the limit is good
 * early. Each source is gone through in the way that should cost least, and leaves candidates: the k best by 8-bit
 * codes, and those behind them that codes cannot well tell from them. The comparison of their embeddings decides. Rows
 * that codes cannot tell of are compared as well, and where few rows match, each is. So min(k, matches) rows always
 * come back.
 */
#include <stdlib.h>

#include "engine/recall_codes_inside.h"
#include "shm/process.h"

#define EXACT_ROWS 256u /* so few matching rows are compared at once */
#define ROWS_AHEAD 16u
#define QUERY_MAX  1e15f /* length of a query that can be estimated in floats */

void mn_recall_codes_free(struct mn_recall_codes *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < c->source_max; i++) {
        mn_matcher_free(&c->sources[i].matcher);
        mn_selector_free(&c->sources[i].selector);
        free(c->sources[i].words);
        free(c->sources[i].seen);
    }
    for (uint32_t i = 0; i < MN_RECALL_PROBES; i++)
        mn_probe_free(&c->probes[i]);
    free(c->sources);
    free(c->best.heap);
    free(c->close.heap);
    free(c->opened_at);
    free(c);
}

/* ---- sources ---- */

static struct mn_probe *probe_for(struct mn_recall_codes *c, const struct mn_codebook *codebook)
{
    for (uint32_t i = 0; i < MN_RECALL_PROBES; i++) {
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
    struct mn_recall_source *sources = realloc(c->sources, parts * sizeof *sources);
    if (!sources)
        return MN_FAIL(MN_INTERNAL, "out of memory for a search of %u parts", parts);
    memset(sources + c->source_max, 0, (parts - c->source_max) * sizeof *sources);
    c->sources = sources;
    c->source_max = parts;
    return MN_OK;
}

static enum mn_status add_source(struct mn_recall_codes *c, uint32_t part, const struct mn_ivf *ivf,
                                 struct mn_probe *probe)
{
    MN_TRY(mn_probe_reserve(probe, ivf->codebook));
    struct mn_recall_source *s = &c->sources[c->source_count++];
    s->part = part;
    s->rows_of = &c->recall->snapshot->parts[part];
    s->ivf = ivf;
    s->probe = probe;
    return MN_OK;
}

/* Every part with codes becomes a source, and the fresh rows of one another; *rows: that have codes. */
static enum mn_status find_sources(struct mn_recall_codes *c, uint64_t *rows)
{
    const struct mn_snapshot *snapshot = c->recall->snapshot;
    *rows = 0;
    c->source_count = 0;
    for (uint32_t i = 0; i < MN_RECALL_PROBES; i++)
        c->probes[i].codebook = NULL;
    MN_TRY(reserve_sources(c, 2 * snapshot->part_count));
    for (uint32_t i = 0; i < snapshot->part_count; i++) {
        const struct mn_ivf *ivf = snapshot->parts[i].ivf;
        struct mn_probe *probe = ivf && ivf->rows > 0 ? probe_for(c, ivf->codebook) : NULL;
        if (!probe)
            continue;
        MN_TRY(add_source(c, i, ivf, probe));
        if (ivf->fresh)
            MN_TRY(add_source(c, i, ivf->fresh, probe));
        *rows += mn_ivf_coded(ivf);
    }
    return MN_OK;
}

/* ---- the flow ---- */

static struct mn_tune_rule rule_of(const struct mn_recall *r)
{
    if (r->search->rule)
        return *r->search->rule;
    struct mn_tuning tuning = mn_tune_read(r->snapshot->tuning);
    return mn_tune_rule_for(&tuning, r->query->target, r->query->k);
}

/* Rows without codes. */
static void scan_uncoded(struct mn_recall_codes *c)
{
    const struct mn_snapshot *snapshot = c->recall->snapshot;
    for (uint32_t i = 0, s = 0; i < snapshot->part_count; i++) {
        uint32_t coded = 0;
        for (; s < c->source_count && c->sources[s].part == i; s++)
            coded = c->sources[s].ivf->rows;
        mn_recall_scan(c->recall, i, coded, snapshot->parts[i].rows);
    }
}

/* Brings the query into the form of each codebook. False when its numbers are too large for floats to be squared and
 * added up: then only the exact search can tell. */
static bool begin_probes(struct mn_recall_codes *c)
{
    const struct mn_recall *r = c->recall;
    const struct mn_search *search = r->search;
    for (uint32_t i = 0; i < MN_RECALL_PROBES && c->probes[i].codebook; i++) {
        mn_probe_begin(&c->probes[i], search->kernels, search->embedding, (float)r->query_scale);
        if (!(c->probes[i].norm < QUERY_MAX))
            return false;
    }
    return true;
}

static void look_through(struct mn_recall_codes *c)
{
    const struct mn_tune_rule rule = c->rule;
    for (uint32_t i = 0; i < c->source_count; i++)
        if (c->sources[i].way == MN_RECALL_BY_LIST)
            mn_recall_select_follow(c, i);
    for (uint32_t i = 0; i < MN_RECALL_PROBES && c->probes[i].codebook; i++) {
        if (!c->probes[i].sorted)
            continue;
        c->rule = mn_recall_select_rule(c, &rule, &c->probes[i]);
        mn_recall_blocks_scan_clusters(c, &c->probes[i]);
    }
    c->rule = rule;
    for (uint32_t i = 0; i < c->source_count; i++)
        if (c->sources[i].way == MN_RECALL_BY_FLAT)
            mn_recall_blocks_scan_flat(c, i);
}

/* ---- the last word ---- */

/* The last word has the comparison of embeddings. */
static void compare_candidates(struct mn_recall_codes *c, const struct mn_recall_candidates *of)
{
    for (uint32_t i = 0; i < of->count; i++)
        mn_part_ahead(c->sources[of->heap[i].source].rows_of, &of->heap[i].row, 1);
    for (uint32_t i = 0; i < of->count && i < ROWS_AHEAD; i++)
        mn_recall_weigh_ask_for_row(c, &of->heap[i]);
    for (uint32_t i = 0; i < of->count; i++) {
        if (i + ROWS_AHEAD < of->count)
            mn_recall_weigh_ask_for_row(c, &of->heap[i + ROWS_AHEAD]);
        mn_recall_compare(c->recall, c->sources[of->heap[i].source].part, &of->heap[i].row, 1);
    }
}

/* ---- the search ---- */

/* So few rows that each is compared: the answer is exact. */
static void compare_few(struct mn_recall_codes *c, uint64_t begin)
{
    scan_uncoded(c);
    for (uint32_t i = 0; i < c->source_count; i++)
        mn_recall_select_compare(c, &c->sources[i]);
    c->recall->search->scan_ns = mn_clock_ns() - begin;
}

static enum mn_status search_codes(struct mn_recall_codes *c, uint64_t begin, bool *done)
{
    struct mn_search *search = c->recall->search;
    MN_TRY(mn_recall_select_ways(c));
    MN_TRY(mn_recall_weigh_reserve(c, c->recall->query->k));
    MN_TRY(mn_recall_late_reserve(c));
    scan_uncoded(c);
    mn_recall_weigh_begin(c);
    uint64_t sorted = mn_clock_ns();
    look_through(c);
    uint64_t scanned = mn_clock_ns();
    mn_recall_weigh_drop_far(c);
    *done = !c->alike;
    if (c->alike) {
        search->hit_count = 0;
        return MN_OK;
    }
    search->exact = false;
    compare_candidates(c, &c->best);
    compare_candidates(c, &c->close);
    search->coarse_ns = sorted - begin;
    search->scan_ns = scanned - sorted;
    search->rerank_ns = mn_clock_ns() - scanned;
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

bool mn_recall_has_codes(const struct mn_snapshot *snapshot)
{
    uint64_t coded = 0;
    for (uint32_t i = 0; i < snapshot->part_count; i++)
        coded += snapshot->parts[i].ivf ? mn_ivf_coded(snapshot->parts[i].ivf) : 0;
    return coded > EXACT_ROWS;
}

enum mn_status mn_recall_through_codes(struct mn_recall *r, bool *done)
{
    uint64_t begin = mn_clock_ns(), coded, rows;
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
    MN_TRY(mn_recall_select_rows(c, &rows));
    bool few = rows <= EXACT_ROWS || rows <= 2 * (uint64_t)r->query->k;
    *done = few || begin_probes(c);
    if (few)
        compare_few(c, begin);
    return few || !*done ? MN_OK : search_codes(c, begin, done);
}
