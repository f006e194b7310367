/*
 * selection.c - see selection.h.
 *
 * Each condition of the scope becomes a term that knows how many rows meet it at most and what it costs to ask it. Four
 * ways lead to the rows, and the cheapest is taken:
 *
 *   range   the bounds of time are so narrow that each row between them is asked all the rest
 *   list    the rows of the most selective term, each asked all the rest
 *   bits    every term that an index answers as a set of rows, joined; what no index answers is asked of the rows left
 *   test    nothing: the search asks the rows that would enter its answer
 *
 * The terms and what each way costs: selection_terms.c; range and list: selection_list.c; bits and test: here.
 */
#include <stdlib.h>

#include "engine/rowset.h"
#include "engine/selection_inside.h"

/* ---- bits ---- */

/* Makes `bits` the rows of a term. */
static void make_set(const struct mn_select *s, const struct mn_selection_term *term, uint64_t *bits)
{
    if (term->indexed) {
        mn_meta_index_set(mn_columns_meta_index(s->part->columns), &term->run, bits);
        return;
    }
    memset(bits, 0, s->words * sizeof *bits);
    for (uint32_t i = 0; i < term->strings.count; i++) {
        const roaring_bitmap_t *bitmap = mn_select_bitmap(s, term, i);
        if (bitmap)
            mn_rowset_add(bits, s->words, bitmap);
    }
}

/* Joins a term to the set made so far, which is `begun` or everything. */
static void join(const struct mn_select *s, const struct mn_selection_term *term, bool *begun)
{
    uint64_t *bits = s->scratch->bits, *other = s->scratch->other;
    bool positive = term->kind != MN_TERM_NO_TAGS && !term->passed;
    if (!*begun && positive) {
        make_set(s, term, bits);
        *begun = true;
        return;
    }
    if (!*begun)
        mn_rowset_fill(bits, s->words, s->first, s->end);
    *begun = true;
    if (term->passed) {
        mn_rowset_at_least(bits, s->words, s->part->confidence, s->part->rows, s->matcher->scope->min_confidence);
        return;
    }
    make_set(s, term, other);
    if (positive)
        mn_rowset_and(bits, other, s->words);
    else
        mn_rowset_and_not(bits, other, s->words);
}

/* The rows that every set holds. *open: some terms are no sets. */
static uint32_t join_all(const struct mn_select *s, bool *open)
{
    bool begun = false;
    *open = false;
    /* Those that take away come behind those that give; a pass last: it skips words that are empty by then. */
    for (int turn = 0; turn < 3; turn++) {
        for (uint32_t i = 0; i < s->scratch->term_count; i++) {
            const struct mn_selection_term *term = &s->scratch->terms[i];
            int due = term->passed ? 2 : term->kind == MN_TERM_NO_TAGS ? 1 : 0;
            if (!term->settable)
                *open = true;
            else if (due == turn)
                join(s, term, &begun);
        }
    }
    mn_rowset_trim(s->scratch->bits, s->words, s->first, s->end);
    return (uint32_t)mn_rowset_count(s->scratch->bits, s->words);
}

/* False when too many rows are left to be asked what no index answers. */
static bool select_bits(const struct mn_select *s, struct mn_selection *out)
{
    bool open;
    uint32_t count = join_all(s, &open);
    if (count > MN_SELECTION_LIST_MAX) {
        out->kind = count == s->end - s->first ? MN_SELECTION_ALL : MN_SELECTION_BITS;
        out->bits = s->scratch->bits;
        out->count = count;
        return !open;
    }
    mn_rowset_list(s->scratch->bits, s->words, s->scratch->rows);
    if (open)
        count = mn_select_keep(s, NULL, count);
    mn_select_take(s, count, out);
    return true;
}

/* ---- choosing ---- */

static void select_test(const struct mn_select *s, double share, struct mn_selection *out)
{
    double count = share * (s->end - s->first);
    out->kind = MN_SELECTION_TEST;
    out->count = count < 1 ? 1 : (uint32_t)count;
}

static void select_columns(struct mn_select *s, struct mn_selection *out)
{
    double list, left, share;
    if (!mn_select_gather(s)) {
        out->kind = MN_SELECTION_NONE;
        return;
    }
    if (s->scratch->term_count == 0) {
        out->kind = MN_SELECTION_ALL;
        out->count = s->end - s->first;
        return;
    }
    const struct mn_selection_term *drive = mn_select_drive(s, &list);
    double range = mn_select_range_ns(s), bits = mn_select_bits_ns(s, &left), test = mn_select_test_ns(s, &share);
    if (range <= list && range <= bits && range <= test) {
        mn_select_by_range(s, out);
        return;
    }
    if (drive && list <= bits && list <= test && mn_select_by_list(s, drive, out))
        return;
    if (bits > test || !select_bits(s, out))
        select_test(s, share, out);
}

/* Rows of a tail lie as they came, and have no postings: a few are asked to guess how many match. */
static void select_tail(struct mn_select *s, struct mn_selection *out)
{
    const struct mn_matcher *m = s->matcher;
    if (mn_matcher_open(m)) {
        out->kind = MN_SELECTION_ALL;
        out->count = s->end - s->first;
        return;
    }
    bool few_ids = m->id_count > 0 && !m->scope->all_spaces &&
                   m->id_count <= (s->end - s->first) / m->spaces.count / MN_SELECT_SAMPLE;
    if (few_ids && mn_select_by_ids(s, out))
        return;
    uint32_t matching = 0, step = (s->end - s->first) / (MN_SELECT_SAMPLE / 4) + 1, seen = 0;
    for (uint32_t row = s->first; row < s->end; row += step, seen++)
        matching += mn_matcher_row(m, row);
    select_test(s, (double)(matching + 1) / (seen + 1), out);
}

/* ---- the whole ---- */

static enum mn_status grow(struct mn_selector *scratch, uint64_t words, uint32_t terms)
{
    if (!scratch->rows)
        scratch->rows = malloc(MN_SELECTION_LIST_MAX * sizeof *scratch->rows);
    if (words > scratch->words_max) {
        free(scratch->bits);
        free(scratch->other);
        scratch->words_max = 0;
        scratch->bits = aligned_alloc(MN_LINE, mn_round_up(words * sizeof(uint64_t), MN_LINE));
        scratch->other = aligned_alloc(MN_LINE, mn_round_up(words * sizeof(uint64_t), MN_LINE));
    }
    if (terms > scratch->terms_max) {
        free(scratch->terms);
        scratch->terms_max = 0;
        scratch->terms = calloc(terms, sizeof *scratch->terms);
    }
    if (!scratch->rows || !scratch->bits || !scratch->other || !scratch->terms)
        return MN_FAIL(MN_INTERNAL, "out of memory to select among %llu rows", (unsigned long long)(64 * words));
    scratch->words_max = words > scratch->words_max ? words : scratch->words_max;
    scratch->terms_max = terms > scratch->terms_max ? terms : scratch->terms_max;
    return MN_OK;
}

enum mn_status mn_selector_select(struct mn_selector *selector, const struct mn_matcher *matcher,
                                  struct mn_selection *selection)
{
    const struct mn_filter *filter = &matcher->scope->filter;
    struct mn_select s = {.scratch = selector,
                          .matcher = matcher,
                          .part = matcher->part,
                          .first = matcher->first,
                          .end = matcher->last,
                          .words = mn_rowset_words(matcher->part->rows)};
    *selection = (struct mn_selection){.kind = MN_SELECTION_NONE, .first = s.first, .end = s.end};
    /* spaces, tags_any, tags_none, ids and confidence make one term each */
    MN_TRY(grow(selector, s.words, 5 + filter->tags_all_count + filter->where_count));
    if (s.part->tail)
        select_tail(&s, selection);
    else
        select_columns(&s, selection);
    return MN_OK;
}

void mn_selector_free(struct mn_selector *selector)
{
    free(selector->rows);
    free(selector->bits);
    free(selector->other);
    free(selector->terms);
    *selector = (struct mn_selector){0};
}
