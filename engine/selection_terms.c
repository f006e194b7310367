/*
 * selection_terms.c - the conditions of a scope as terms, and what each way to the rows costs.
 *
 * The costs below are nanoseconds on a Zen 4 at 3.7 GHz (tests/bench/bench_filters.c prints what a selection takes).
 * Only their proportions matter, and a wrong one costs time, never rows.
 */
#include "engine/selection_inside.h"

/* Rows that would enter an answer if all match. Of a filter that leaves a share s, 1/s as many are weighed by their
 * codes and then asked. */
#define ENTRANTS 100.0
#define WEIGH_NS 80.0

#define WORD_NS  0.3   /* clearing a word, joining two, counting it */
#define VALUE_NS 0.1   /* comparing one row's confidence, in order */
#define ADD_NS   1.0   /* adding a row to a set */
#define READ_NS  2.0   /* a row of a bitmap into a list */
#define HOLDS_NS 15.0  /* whether a bitmap holds a row */
#define FIELD_NS 10.0  /* a row's time, space or confidence, out of order */
#define TAGS_NS  40.0  /* a row's tags, out of order */
#define META_NS  300.0 /* a row's meta, out of order */
#define TURN_NS  1.0   /* a row of a lane into a set */
#define PROBE_NS 100.0 /* an id in the hash */

/* ---- terms ---- */

static void push(struct mn_select *s, struct mn_selection_term term)
{
    s->scratch->terms[s->scratch->term_count++] = term;
}

/* A term of postings, unless every row meets it. Bitmaps that cannot be read make it one that is asked row by row.
 * Returns its rows, at most. */
static double push_postings(struct mn_select *s, enum mn_term kind, struct mn_numbers strings)
{
    struct mn_selection_term term = {.kind = kind, .strings = strings, .listable = true, .settable = true};
    double bits_ns = (double)s->words * WORD_NS, most = 0;
    term.set_ns = 2 * bits_ns;
    for (uint32_t i = 0; i < strings.count; i++) {
        uint32_t rows = mn_columns_posting_rows(s->part->columns, mn_select_posting(&term), strings.data[i]);
        term.settable = term.settable && (rows == 0 || mn_select_bitmap(s, &term, i));
        term.rows += rows;
        term.set_ns += rows * ADD_NS < bits_ns ? rows * ADD_NS : bits_ns;
        most = rows > most ? rows : most;
    }
    term.row_ns = term.settable ? strings.count * HOLDS_NS : TAGS_NS;
    term.listable = term.settable && kind != MN_TERM_NO_TAGS;
    double all = s->part->rows;
    if (kind == MN_TERM_NO_TAGS)
        term.rows = all - most;
    else if (term.rows > all)
        term.rows = all; /* rows with several of the tags */
    bool every = kind == MN_TERM_SPACES || kind == MN_TERM_NO_TAGS ? term.rows == all : most == all;
    if (!every)
        push(s, term);
    return term.rows;
}

/* A term of a lane, unless every row meets it. Returns its rows, at most. */
static double push_run(struct mn_select *s, enum mn_term kind, const struct mn_meta_bound *run)
{
    struct mn_selection_term term = {.kind = kind, .run = *run, .indexed = true, .settable = true};
    double pass_ns = s->part->rows * VALUE_NS;
    term.rows = run->most < s->part->rows ? (double)run->most : s->part->rows;
    term.listable = !run->negated && run->most <= MN_SELECTION_LIST_MAX;
    term.set_ns = 4 * (double)s->words * WORD_NS + (double)run->steps * TURN_NS + (double)run->unsure * META_NS;
    term.row_ns = kind == MN_TERM_META ? META_NS : FIELD_NS;
    term.passed = kind == MN_TERM_CONFIDENCE && pass_ns < term.set_ns;
    term.set_ns = term.passed ? pass_ns : term.set_ns;
    bool every = run->negated ? run->most == s->part->rows : run->first.sure_end - run->first.sure == s->part->rows;
    if (!every || run->unsure > 0)
        push(s, term);
    return term.rows;
}

static double push_meta(struct mn_select *s, const struct mn_where *where)
{
    struct mn_meta_bound run;
    if (mn_meta_index_bound(mn_columns_meta_index(s->part->columns), where, &run))
        return push_run(s, MN_TERM_META, &run);
    push(s, (struct mn_selection_term){
                .kind = MN_TERM_META, .run.where = where, .rows = s->part->rows / 2.0, .row_ns = META_NS});
    return s->part->rows / 2.0;
}

static double push_confidence(struct mn_select *s)
{
    struct mn_meta_bound run;
    if (mn_meta_index_confidence(mn_columns_meta_index(s->part->columns), s->matcher->scope->min_confidence, &run))
        return push_run(s, MN_TERM_CONFIDENCE, &run);
    uint32_t reached = 0, step = (s->end - s->first) / MN_SELECT_SAMPLE + 1, seen = 0;
    float least = s->matcher->scope->min_confidence;
    for (uint32_t row = s->first; row < s->end; row += step, seen++)
        reached += s->part->confidence[row] >= least;
    push(s, (struct mn_selection_term){.kind = MN_TERM_CONFIDENCE,
                                       .settable = true,
                                       .passed = true,
                                       .rows = (double)(reached + 1) / (seen + 1) * s->part->rows,
                                       .set_ns = s->part->rows * VALUE_NS,
                                       .row_ns = FIELD_NS});
    return s->part->rows;
}

static void push_ids(struct mn_select *s)
{
    const struct mn_matcher *m = s->matcher;
    struct mn_selection_term term = {.kind = MN_TERM_IDS, .rows = m->id_count, .row_ns = 2 * FIELD_NS};
    term.set_ns = (double)m->id_count * m->spaces.count * PROBE_NS;
    term.listable = !m->scope->all_spaces;
    push(s, term);
}

bool mn_select_gather(struct mn_select *s)
{
    const struct mn_matcher *m = s->matcher;
    const struct mn_scope *scope = m->scope;
    bool some = true;
    s->scratch->term_count = 0;
    if (!scope->all_spaces)
        some = push_postings(s, MN_TERM_SPACES, m->spaces) > 0;
    if (m->any_wanted)
        some = push_postings(s, MN_TERM_TAGS_ANY, m->tags_any) > 0 && some;
    for (uint32_t i = 0; i < m->tags_all.count; i++)
        some = push_postings(s, MN_TERM_TAG, (struct mn_numbers){m->tags_all.data + i, 1}) > 0 && some;
    if (m->tags_none.count > 0)
        some = push_postings(s, MN_TERM_NO_TAGS, m->tags_none) > 0 && some;
    if (some && m->id_count > 0)
        push_ids(s);
    if (scope->min_confidence > 0)
        some = some && push_confidence(s) > 0;
    for (uint32_t i = 0; i < scope->filter.where_count; i++)
        some = some && push_meta(s, &scope->filter.where[i]) > 0;
    return some;
}

/* ---- the ways and what they cost ---- */

static double asking_ns(const struct mn_select *s, const struct mn_selection_term *but, double rows)
{
    double ns = 0;
    for (uint32_t i = 0; i < s->scratch->term_count; i++) {
        if (&s->scratch->terms[i] != but)
            ns += rows * s->scratch->terms[i].row_ns;
    }
    return ns;
}

double mn_select_range_ns(const struct mn_select *s)
{
    double rows = s->end - s->first;
    return rows <= MN_SELECTION_LIST_MAX ? asking_ns(s, NULL, rows) : 1e30;
}

const struct mn_selection_term *mn_select_drive(const struct mn_select *s, double *ns)
{
    const struct mn_selection_term *drive = NULL;
    *ns = 1e30;
    for (uint32_t i = 0; i < s->scratch->term_count; i++) {
        const struct mn_selection_term *term = &s->scratch->terms[i];
        if (!term->listable || term->rows > MN_SELECTION_LIST_MAX)
            continue;
        double cost = asking_ns(s, term, term->rows) + term->rows * READ_NS;
        if (term->kind == MN_TERM_IDS || term->strings.count > 1)
            cost += term->set_ns;
        if (term->indexed)
            cost += (double)term->run.unsure * META_NS +
                    (term->run.rising || term->rows <= MN_SELECT_FEW ? 0 : 2 * (double)s->words * WORD_NS);
        if (cost < *ns) {
            *ns = cost;
            drive = term;
        }
    }
    return drive;
}

double mn_select_bits_ns(const struct mn_select *s, double *left)
{
    double ns = 2 * (double)s->words * WORD_NS, row_ns = 0;
    bool any = false;
    *left = s->end - s->first;
    for (uint32_t i = 0; i < s->scratch->term_count; i++) {
        const struct mn_selection_term *term = &s->scratch->terms[i];
        if (term->settable) {
            ns += term->set_ns;
            *left = term->rows < *left ? term->rows : *left;
            any = true;
        } else {
            row_ns += term->row_ns;
        }
    }
    return any ? ns + *left * row_ns : 1e30;
}

double mn_select_test_ns(const struct mn_select *s, double *share)
{
    *share = 1;
    for (uint32_t i = 0; i < s->scratch->term_count; i++)
        *share *= s->scratch->terms[i].rows / s->part->rows;
    double asked = ENTRANTS / (*share > 1e-9 ? *share : 1e-9);
    return asking_ns(s, NULL, asked) + (asked - ENTRANTS) * WEIGH_NS;
}
