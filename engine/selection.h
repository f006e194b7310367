/*
 * selection.h - which rows of a part a search may return, in the form that costs the search least.
 *
 * The matcher (filter.h) answers row by row; a search through codes wants to know beforehand. A selection is made once
 * per part and query from the postings, the columns and the indexes of a segment. It speaks of the filter alone:
 * whether a version is visible at the snapshot's seq is asked of the few rows that would enter the answer.
 */
#ifndef MN_ENGINE_SELECTION_H
#define MN_ENGINE_SELECTION_H

#include "engine/filter.h"

/* A list is never longer; what more rows match comes as bits. */
#define MN_SELECTION_LIST_MAX 4096u

enum mn_selection_kind {
    MN_SELECTION_NONE, /* no row of the part can match */
    MN_SELECTION_ALL,  /* every row in [first, end) matches */
    MN_SELECTION_LIST, /* rows[count], rising: exactly these match */
    MN_SELECTION_BITS, /* bit r % 64 of bits[r / 64] says whether row r in [first, end) matches; outside it is 0 */
    MN_SELECTION_TEST  /* ask mn_matcher_row for each row in [first, end) that would enter the answer */
};

struct mn_selection {
    enum mn_selection_kind kind;
    uint32_t first, end;  /* rows of the part; in columns they lie in the order of time */
    const uint32_t *rows; /* LIST */
    const uint64_t *bits; /* BITS: [(part->rows + 63) / 64] */
    uint32_t count;       /* rows that match: exact for ALL, LIST and BITS, a guess for TEST */
};

/* By its number alone: in range, and a member of BITS. Of TEST, mn_matcher_row has the last word; not for LIST. */
static inline bool mn_selection_holds(const struct mn_selection *selection, uint32_t row)
{
    if (row < selection->first || row >= selection->end)
        return false;
    return selection->kind != MN_SELECTION_BITS || (selection->bits[row / 64] >> row % 64 & 1) != 0;
}

/* Scratch of one thread; begins as zeros. Grows to what the largest part needs and is reused. */
struct mn_selector {
    uint32_t *rows;                  /* [MN_SELECTION_LIST_MAX] */
    uint64_t *bits, *other;          /* [words_max] */
    struct mn_selection_term *terms; /* [terms_max]: the conditions of a scope */
    uint64_t words_max;
    uint32_t terms_max, term_count;
};

/* Selects in the part that `matcher` stands on (mn_matcher_part returned true). What `selection` points to is good
 * until the next call with this selector. MN_INTERNAL when memory ends. */
enum mn_status mn_selector_select(struct mn_selector *selector, const struct mn_matcher *matcher,
                                  struct mn_selection *selection) MN_MUST_USE;
void mn_selector_free(struct mn_selector *selector);

#endif
