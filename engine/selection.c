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
 * The costs below are nanoseconds on a Zen 4 at 3.7 GHz (tests/bench/bench_filters.c prints what a selection takes).
 * Only their proportions matter, and a wrong one costs time, never rows.
 */
#include "engine/selection.h"

#include <roaring/roaring.h>
#include <stdlib.h>

#include "engine/meta_index.h"
#include "engine/rowset.h"

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

#define SAMPLE 64  /* rows looked at to guess how many match */
#define FEW    128 /* rows sorted by insertion rather than by way of a set */

enum term_kind { TERM_SPACES, TERM_TAGS_ANY, TERM_TAG, TERM_NO_TAGS, TERM_CONFIDENCE, TERM_IDS, TERM_META };

struct mn_selection_term {
    enum term_kind kind;
    bool listable, settable;   /* its rows can be listed; made a set */
    struct mn_numbers strings; /* postings */
    struct mn_meta_bound run;  /* TERM_META and TERM_CONFIDENCE: what the index knows, when it does */
    bool indexed;
    bool passed;   /* TERM_CONFIDENCE: the set is made by a pass over the column */
    double rows;   /* that meet it in the whole part: at most, or a guess */
    double set_ns; /* making it a set, or joining it to one */
    double row_ns; /* asking it of one row, out of order */
};

struct select {
    struct mn_selector *scratch;
    const struct mn_matcher *matcher;
    const struct mn_part *part;
    uint32_t first, end;
    uint64_t words;
};

/* ---- terms ---- */

static enum mn_posting posting_of(const struct mn_selection_term *term)
{
    return term->kind == TERM_SPACES ? MN_POSTING_SPACE : MN_POSTING_TAG;
}

static const roaring_bitmap_t *bitmap_of(const struct select *s, const struct mn_selection_term *term, uint32_t i)
{
    return mn_columns_postings(s->part->columns, posting_of(term), term->strings.data[i]);
}

static void push(struct select *s, struct mn_selection_term term)
{
    s->scratch->terms[s->scratch->term_count++] = term;
}

/* A term of postings, unless every row meets it. Bitmaps that cannot be read make it one that is asked row by row.
 * Returns its rows, at most. */
static double push_postings(struct select *s, enum term_kind kind, struct mn_numbers strings)
{
    struct mn_selection_term term = {.kind = kind, .strings = strings, .listable = true, .settable = true};
    double bits_ns = (double)s->words * WORD_NS, most = 0;
    term.set_ns = 2 * bits_ns;
    for (uint32_t i = 0; i < strings.count; i++) {
        uint32_t rows = mn_columns_posting_rows(s->part->columns, posting_of(&term), strings.data[i]);
        term.settable = term.settable && (rows == 0 || bitmap_of(s, &term, i));
        term.rows += rows;
        term.set_ns += rows * ADD_NS < bits_ns ? rows * ADD_NS : bits_ns;
        most = rows > most ? rows : most;
    }
    term.row_ns = term.settable ? strings.count * HOLDS_NS : TAGS_NS;
    term.listable = term.settable && kind != TERM_NO_TAGS;
    double all = s->part->rows;
    if (kind == TERM_NO_TAGS)
        term.rows = all - most;
    else if (term.rows > all)
        term.rows = all; /* rows with several of the tags */
    bool every = kind == TERM_SPACES || kind == TERM_NO_TAGS ? term.rows == all : most == all;
    if (!every)
        push(s, term);
    return term.rows;
}

/* A term of a lane, unless every row meets it. Returns its rows, at most. */
static double push_run(struct select *s, enum term_kind kind, const struct mn_meta_bound *run)
{
    struct mn_selection_term term = {.kind = kind, .run = *run, .indexed = true, .settable = true};
    double pass_ns = s->part->rows * VALUE_NS;
    term.rows = run->most < s->part->rows ? (double)run->most : s->part->rows;
    term.listable = !run->negated && run->most <= MN_SELECTION_LIST_MAX;
    term.set_ns = 4 * (double)s->words * WORD_NS + (double)run->steps * TURN_NS + (double)run->unsure * META_NS;
    term.row_ns = kind == TERM_META ? META_NS : FIELD_NS;
    term.passed = kind == TERM_CONFIDENCE && pass_ns < term.set_ns;
    term.set_ns = term.passed ? pass_ns : term.set_ns;
    bool every = run->negated ? run->most == s->part->rows : run->first.sure_end - run->first.sure == s->part->rows;
    if (!every || run->unsure > 0)
        push(s, term);
    return term.rows;
}

static double push_meta(struct select *s, const struct mn_where *where)
{
    struct mn_meta_bound run;
    if (mn_meta_index_bound(mn_columns_meta_index(s->part->columns), where, &run))
        return push_run(s, TERM_META, &run);
    push(s, (struct mn_selection_term){
                .kind = TERM_META, .run.where = where, .rows = s->part->rows / 2.0, .row_ns = META_NS});
    return s->part->rows / 2.0;
}

static double push_confidence(struct select *s)
{
    struct mn_meta_bound run;
    if (mn_meta_index_confidence(mn_columns_meta_index(s->part->columns), s->matcher->scope->min_confidence, &run))
        return push_run(s, TERM_CONFIDENCE, &run);
    uint32_t reached = 0, step = (s->end - s->first) / SAMPLE + 1, seen = 0;
    float least = s->matcher->scope->min_confidence;
    for (uint32_t row = s->first; row < s->end; row += step, seen++)
        reached += s->part->confidence[row] >= least;
    push(s, (struct mn_selection_term){.kind = TERM_CONFIDENCE,
                                       .settable = true,
                                       .passed = true,
                                       .rows = (double)(reached + 1) / (seen + 1) * s->part->rows,
                                       .set_ns = s->part->rows * VALUE_NS,
                                       .row_ns = FIELD_NS});
    return s->part->rows;
}

static void push_ids(struct select *s)
{
    const struct mn_matcher *m = s->matcher;
    struct mn_selection_term term = {.kind = TERM_IDS, .rows = m->id_count, .row_ns = 2 * FIELD_NS};
    term.set_ns = (double)m->id_count * m->spaces.count * PROBE_NS;
    term.listable = !m->scope->all_spaces;
    push(s, term);
}

/* False when no row can match. */
static bool gather(struct select *s)
{
    const struct mn_matcher *m = s->matcher;
    const struct mn_scope *scope = m->scope;
    bool some = true;
    s->scratch->term_count = 0;
    if (!scope->all_spaces)
        some = push_postings(s, TERM_SPACES, m->spaces) > 0;
    if (m->any_wanted)
        some = push_postings(s, TERM_TAGS_ANY, m->tags_any) > 0 && some;
    for (uint32_t i = 0; i < m->tags_all.count; i++)
        some = push_postings(s, TERM_TAG, (struct mn_numbers){m->tags_all.data + i, 1}) > 0 && some;
    if (m->tags_none.count > 0)
        some = push_postings(s, TERM_NO_TAGS, m->tags_none) > 0 && some;
    if (some && m->id_count > 0)
        push_ids(s);
    if (scope->min_confidence > 0)
        some = some && push_confidence(s) > 0;
    for (uint32_t i = 0; i < scope->filter.where_count; i++)
        some = some && push_meta(s, &scope->filter.where[i]) > 0;
    return some;
}

/* ---- the ways and what they cost ---- */

static double asking_ns(const struct select *s, const struct mn_selection_term *but, double rows)
{
    double ns = 0;
    for (uint32_t i = 0; i < s->scratch->term_count; i++) {
        if (&s->scratch->terms[i] != but)
            ns += rows * s->scratch->terms[i].row_ns;
    }
    return ns;
}

static double range_ns(const struct select *s)
{
    double rows = s->end - s->first;
    return rows <= MN_SELECTION_LIST_MAX ? asking_ns(s, NULL, rows) : 1e30;
}

/* The cheapest term to list; NULL when there is none. */
static const struct mn_selection_term *find_drive(const struct select *s, double *ns)
{
    const struct mn_selection_term *drive = NULL;
    *ns = 1e30;
    for (uint32_t i = 0; i < s->scratch->term_count; i++) {
        const struct mn_selection_term *term = &s->scratch->terms[i];
        if (!term->listable || term->rows > MN_SELECTION_LIST_MAX)
            continue;
        double cost = asking_ns(s, term, term->rows) + term->rows * READ_NS;
        if (term->kind == TERM_IDS || term->strings.count > 1)
            cost += term->set_ns;
        if (term->indexed)
            cost += (double)term->run.unsure * META_NS +
                    (term->run.rising || term->rows <= FEW ? 0 : 2 * (double)s->words * WORD_NS);
        if (cost < *ns) {
            *ns = cost;
            drive = term;
        }
    }
    return drive;
}

/* *left: rows that all the sets leave, at most. 1e30 when there is no set. */
static double bits_ns(const struct select *s, double *left)
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

/* *share: of the rows in range, what matches if the terms know nothing of each other. */
static double test_ns(const struct select *s, double *share)
{
    *share = 1;
    for (uint32_t i = 0; i < s->scratch->term_count; i++)
        *share *= s->scratch->terms[i].rows / s->part->rows;
    double asked = ENTRANTS / (*share > 1e-9 ? *share : 1e-9);
    return asking_ns(s, NULL, asked) + (asked - ENTRANTS) * WEIGH_NS;
}

/* ---- lists ---- */

static bool asked_by_matcher(const struct mn_selection_term *term)
{
    return term->kind == TERM_IDS || (term->strings.count > 0 && !term->settable);
}

static bool any_holds(const struct select *s, const struct mn_selection_term *term, uint32_t row)
{
    for (uint32_t i = 0; i < term->strings.count; i++) {
        const roaring_bitmap_t *bitmap = bitmap_of(s, term, i);
        if (bitmap && roaring_bitmap_contains(bitmap, row))
            return true;
    }
    return false;
}

static bool meets(const struct select *s, const struct mn_selection_term *term, uint32_t row)
{
    struct mn_str meta;
    if (term->kind == TERM_CONFIDENCE)
        return s->part->confidence[row] >= s->matcher->scope->min_confidence;
    if (term->kind == TERM_META)
        return mn_part_meta(s->part, row, &meta) == MN_OK && mn_where_matches(term->run.where, meta);
    return any_holds(s, term, row) == (term->kind != TERM_NO_TAGS);
}

/* Keeps the rows that meet one term, or with `term` NULL all of them. */
static uint32_t keep(const struct select *s, const struct mn_selection_term *term, uint32_t count)
{
    uint32_t *rows = s->scratch->rows, n = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (term ? meets(s, term, rows[i]) : mn_matcher_row(s->matcher, rows[i]))
            rows[n++] = rows[i];
    }
    return n;
}

/* Asks the rows listed everything but `drive`, which they meet; what costs most last. */
static uint32_t keep_all(const struct select *s, const struct mn_selection_term *drive, uint32_t count)
{
    bool matcher = false;
    for (uint32_t i = 0; i < s->scratch->term_count; i++) {
        const struct mn_selection_term *term = &s->scratch->terms[i];
        if (term == drive)
            continue;
        if (asked_by_matcher(term))
            matcher = true;
        else
            count = keep(s, term, count);
    }
    return matcher ? keep(s, NULL, count) : count;
}

static void take_list(const struct select *s, uint32_t count, struct mn_selection *out)
{
    out->kind = count > 0 ? MN_SELECTION_LIST : MN_SELECTION_NONE;
    out->rows = s->scratch->rows;
    out->count = count;
}

static void select_range(const struct select *s, struct mn_selection *out)
{
    for (uint32_t row = s->first; row < s->end; row++)
        s->scratch->rows[row - s->first] = row;
    take_list(s, keep_all(s, NULL, s->end - s->first), out);
}

static uint32_t read_bitmap(const struct select *s, const roaring_bitmap_t *bitmap)
{
    roaring_uint32_iterator_t it;
    uint32_t *rows = s->scratch->rows;
    if (!bitmap)
        return 0;
    roaring_init_iterator(bitmap, &it);
    if (!roaring_move_uint32_iterator_equalorlarger(&it, s->first))
        return 0;
    uint32_t n = roaring_read_uint32_iterator(&it, rows, MN_SELECTION_LIST_MAX);
    while (n > 0 && rows[n - 1] >= s->end)
        n--;
    return n;
}

/* Rows of bitmaps that may overlap, by way of a set. */
static uint32_t read_bitmaps(const struct select *s, const struct mn_selection_term *term)
{
    uint64_t *bits = s->scratch->bits;
    memset(bits, 0, s->words * sizeof *bits);
    for (uint32_t i = 0; i < term->strings.count; i++) {
        const roaring_bitmap_t *bitmap = bitmap_of(s, term, i);
        if (bitmap)
            mn_rowset_add(bits, s->words, bitmap);
    }
    mn_rowset_trim(bits, s->words, s->first, s->end);
    return mn_rowset_list(bits, s->words, s->scratch->rows);
}

static int compare_rows(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Every version of the ids in the range, by the hash. MN_NONE when there are more than a list takes. */
static uint32_t read_ids(const struct select *s)
{
    const struct mn_matcher *m = s->matcher;
    uint32_t *rows = s->scratch->rows, n = 0;
    for (uint32_t space = 0; space < m->spaces.count; space++) {
        uint64_t space_hash = mn_str_hash(mn_part_string(s->part, m->spaces.data[space]));
        for (uint32_t i = 0; i < m->id_count; i++) {
            struct mn_part_find find = {.id = m->ids[i], .space = m->spaces.data[space]};
            find.hash = mn_id_hash(space_hash, &find.id);
            for (uint32_t row = mn_part_find_first(s->part, &find); row != MN_NONE;
                 row = mn_part_find_next(s->part, &find)) {
                if (row < s->first || row >= s->end)
                    continue;
                if (n == MN_SELECTION_LIST_MAX)
                    return MN_NONE;
                rows[n++] = row;
            }
        }
    }
    qsort(rows, n, sizeof *rows, compare_rows);
    return n;
}

/* Sorts a few rows; one that is there twice stays once. */
static uint32_t sort_few(uint32_t *rows, uint32_t count)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = rows[i], at = n;
        while (at > 0 && rows[at - 1] > row)
            at--;
        if (at > 0 && rows[at - 1] == row)
            continue;
        memmove(rows + at + 1, rows + at, (n - at) * sizeof *rows);
        rows[at] = row;
        n++;
    }
    return n;
}

static uint32_t read_lane(const struct select *s, const struct mn_selection_term *term)
{
    uint32_t *rows = s->scratch->rows;
    uint64_t *bits = s->scratch->bits;
    uint32_t n = mn_meta_index_list(mn_columns_meta_index(s->part->columns), &term->run, s->first, s->end, rows);
    if (term->run.rising)
        return n;
    if (n <= FEW)
        return sort_few(rows, n);
    memset(bits, 0, s->words * sizeof *bits);
    for (uint32_t i = 0; i < n; i++)
        bits[rows[i] / 64] |= UINT64_C(1) << (rows[i] % 64);
    return mn_rowset_list(bits, s->words, rows);
}

/* False when there turned out to be too many rows. */
static bool select_list(const struct select *s, const struct mn_selection_term *drive, struct mn_selection *out)
{
    uint32_t count;
    if (drive->kind == TERM_IDS)
        count = read_ids(s);
    else if (drive->indexed)
        count = read_lane(s, drive);
    else
        count = drive->strings.count == 1 ? read_bitmap(s, bitmap_of(s, drive, 0)) : read_bitmaps(s, drive);
    if (count == MN_NONE)
        return false;
    take_list(s, keep_all(s, drive, count), out);
    return true;
}

/* ---- bits ---- */

/* Makes `bits` the rows of a term. */
static void make_set(const struct select *s, const struct mn_selection_term *term, uint64_t *bits)
{
    if (term->indexed) {
        mn_meta_index_set(mn_columns_meta_index(s->part->columns), &term->run, bits);
        return;
    }
    memset(bits, 0, s->words * sizeof *bits);
    for (uint32_t i = 0; i < term->strings.count; i++) {
        const roaring_bitmap_t *bitmap = bitmap_of(s, term, i);
        if (bitmap)
            mn_rowset_add(bits, s->words, bitmap);
    }
}

/* Joins a term to the set made so far, which is `begun` or everything. */
static void join(const struct select *s, const struct mn_selection_term *term, bool *begun)
{
    uint64_t *bits = s->scratch->bits, *other = s->scratch->other;
    bool positive = term->kind != TERM_NO_TAGS && !term->passed;
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
static uint32_t join_all(const struct select *s, bool *open)
{
    bool begun = false;
    *open = false;
    /* Those that take away come behind those that give; a pass last: it skips words that are empty by then. */
    for (int turn = 0; turn < 3; turn++) {
        for (uint32_t i = 0; i < s->scratch->term_count; i++) {
            const struct mn_selection_term *term = &s->scratch->terms[i];
            int due = term->passed ? 2 : term->kind == TERM_NO_TAGS ? 1 : 0;
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
static bool select_bits(const struct select *s, struct mn_selection *out)
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
        count = keep(s, NULL, count);
    take_list(s, count, out);
    return true;
}

/* ---- choosing ---- */

static void select_test(const struct select *s, double share, struct mn_selection *out)
{
    double count = share * (s->end - s->first);
    out->kind = MN_SELECTION_TEST;
    out->count = count < 1 ? 1 : (uint32_t)count;
}

static void select_columns(struct select *s, struct mn_selection *out)
{
    double list, left, share;
    if (!gather(s)) {
        out->kind = MN_SELECTION_NONE;
        return;
    }
    if (s->scratch->term_count == 0) {
        out->kind = MN_SELECTION_ALL;
        out->count = s->end - s->first;
        return;
    }
    const struct mn_selection_term *drive = find_drive(s, &list);
    double range = range_ns(s), bits = bits_ns(s, &left), test = test_ns(s, &share);
    if (range <= list && range <= bits && range <= test) {
        select_range(s, out);
        return;
    }
    if (drive && list <= bits && list <= test && select_list(s, drive, out))
        return;
    if (bits > test || !select_bits(s, out))
        select_test(s, share, out);
}

/* Rows of a tail lie as they came, and have no postings: a few are asked to guess how many match. */
static void select_tail(struct select *s, struct mn_selection *out)
{
    const struct mn_matcher *m = s->matcher;
    if (mn_matcher_open(m)) {
        out->kind = MN_SELECTION_ALL;
        out->count = s->end - s->first;
        return;
    }
    if (m->id_count > 0 && !m->scope->all_spaces && m->id_count <= (s->end - s->first) / m->spaces.count / SAMPLE) {
        uint32_t count = read_ids(s);
        if (count != MN_NONE) {
            take_list(s, keep(s, NULL, count), out);
            return;
        }
    }
    uint32_t matching = 0, step = (s->end - s->first) / (SAMPLE / 4) + 1, seen = 0;
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
    struct select s = {.scratch = selector,
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
