/*
 * selection_inside.h - what the files of a selection share, and nobody else sees:
 *
 *   selection_terms.c  the conditions of a scope as terms, and what each way to the rows costs
 *   selection_list.c   the ways that list rows and ask each the rest
 *   selection.c        the ways that join sets or leave rows to be tested, and the choice
 */
#ifndef MN_ENGINE_SELECTION_INSIDE_H
#define MN_ENGINE_SELECTION_INSIDE_H

#include <roaring/roaring.h>

#include "engine/meta_index.h"
#include "engine/selection.h"

#define MN_SELECT_SAMPLE 64  /* rows looked at to guess how many match */
#define MN_SELECT_FEW    128 /* rows sorted by insertion rather than by way of a set */

enum mn_term {
    MN_TERM_SPACES,
    MN_TERM_TAGS_ANY,
    MN_TERM_TAG,
    MN_TERM_NO_TAGS,
    MN_TERM_CONFIDENCE,
    MN_TERM_IDS,
    MN_TERM_META
};

struct mn_selection_term {
    enum mn_term kind;
    bool listable, settable;   /* its rows can be listed; made a set */
    struct mn_numbers strings; /* postings */
    struct mn_meta_bound run;  /* MN_TERM_META and MN_TERM_CONFIDENCE: what the index knows, when it does */
    bool indexed;
    bool passed;   /* MN_TERM_CONFIDENCE: the set is made by a pass over the column */
    double rows;   /* that meet it in the whole part: at most, or a guess */
    double set_ns; /* making it a set, or joining it to one */
    double row_ns; /* asking it of one row, out of order */
};

/* One selection under way. */
struct mn_select {
    struct mn_selector *scratch;
    const struct mn_matcher *matcher;
    const struct mn_part *part;
    uint32_t first, end;
    uint64_t words;
};

static inline enum mn_posting mn_select_posting(const struct mn_selection_term *term)
{
    return term->kind == MN_TERM_SPACES ? MN_POSTING_SPACE : MN_POSTING_TAG;
}

/* The rows of a term's string number i; NULL: none, or they cannot be read. */
static inline const roaring_bitmap_t *mn_select_bitmap(const struct mn_select *s, const struct mn_selection_term *term,
                                                       uint32_t i)
{
    return mn_columns_postings(s->part->columns, mn_select_posting(term), term->strings.data[i]);
}

/* ---- selection_terms.c ---- */

/* Makes the scope terms in the scratch. False when no row can match. */
bool mn_select_gather(struct mn_select *s);

/* What each way costs, in nanoseconds; 1e30 when it cannot be gone. */
double mn_select_range_ns(const struct mn_select *s);
/* The cheapest term to list; NULL when there is none. */
const struct mn_selection_term *mn_select_drive(const struct mn_select *s, double *ns);
/* *left: rows that all the sets leave, at most. */
double mn_select_bits_ns(const struct mn_select *s, double *left);
/* *share: of the rows in range, what matches if the terms know nothing of each other. */
double mn_select_test_ns(const struct mn_select *s, double *share);

/* ---- selection_list.c ---- */

/* Of the first `count` rows in the scratch keeps those that meet one term, or with `term` NULL the whole scope; returns
 * how many. */
uint32_t mn_select_keep(const struct mn_select *s, const struct mn_selection_term *term, uint32_t count);
/* The first `count` rows in the scratch are the selection. */
void mn_select_take(const struct mn_select *s, uint32_t count, struct mn_selection *out);

/* Every row in range is listed and asked the whole scope. */
void mn_select_by_range(const struct mn_select *s, struct mn_selection *out);
/* The rows of the term `drive`, or of the ids of the scope, are listed and asked the rest. False when there turned out
 * to be too many. */
bool mn_select_by_list(const struct mn_select *s, const struct mn_selection_term *drive, struct mn_selection *out);
bool mn_select_by_ids(const struct mn_select *s, struct mn_selection *out);

#endif
