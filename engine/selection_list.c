/*
 * selection_list.c - selections that are lists: the rows between two times or those of one term, each asked all the
 * rest.
 */
#include <stdlib.h>

#include "engine/rowset.h"
#include "engine/selection_inside.h"

static bool asked_by_matcher(const struct mn_selection_term *term)
{
    return term->kind == MN_TERM_IDS || (term->strings.count > 0 && !term->settable);
}

static bool any_holds(const struct mn_select *s, const struct mn_selection_term *term, uint32_t row)
{
    for (uint32_t i = 0; i < term->strings.count; i++) {
        const roaring_bitmap_t *bitmap = mn_select_bitmap(s, term, i);
        if (bitmap && roaring_bitmap_contains(bitmap, row))
            return true;
    }
    return false;
}

static bool meets(const struct mn_select *s, const struct mn_selection_term *term, uint32_t row)
{
    struct mn_str meta;
    if (term->kind == MN_TERM_CONFIDENCE)
        return s->part->confidence[row] >= s->matcher->scope->min_confidence;
    if (term->kind == MN_TERM_META)
        return mn_part_meta(s->part, row, &meta) == MN_OK && mn_where_matches(term->run.where, meta);
    return any_holds(s, term, row) == (term->kind != MN_TERM_NO_TAGS);
}

uint32_t mn_select_keep(const struct mn_select *s, const struct mn_selection_term *term, uint32_t count)
{
    uint32_t *rows = s->scratch->rows, n = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (term ? meets(s, term, rows[i]) : mn_matcher_row(s->matcher, rows[i]))
            rows[n++] = rows[i];
    }
    return n;
}

/* Asks the rows listed everything but `drive`, which they meet; what costs most last. */
static uint32_t keep_all(const struct mn_select *s, const struct mn_selection_term *drive, uint32_t count)
{
    bool matcher = false;
    for (uint32_t i = 0; i < s->scratch->term_count; i++) {
        const struct mn_selection_term *term = &s->scratch->terms[i];
        if (term == drive)
            continue;
        if (asked_by_matcher(term))
            matcher = true;
        else
            count = mn_select_keep(s, term, count);
    }
    return matcher ? mn_select_keep(s, NULL, count) : count;
}

void mn_select_take(const struct mn_select *s, uint32_t count, struct mn_selection *out)
{
    out->kind = count > 0 ? MN_SELECTION_LIST : MN_SELECTION_NONE;
    out->rows = s->scratch->rows;
    out->count = count;
}

void mn_select_by_range(const struct mn_select *s, struct mn_selection *out)
{
    for (uint32_t row = s->first; row < s->end; row++)
        s->scratch->rows[row - s->first] = row;
    mn_select_take(s, keep_all(s, NULL, s->end - s->first), out);
}

static uint32_t read_bitmap(const struct mn_select *s, const roaring_bitmap_t *bitmap)
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
static uint32_t read_bitmaps(const struct mn_select *s, const struct mn_selection_term *term)
{
    uint64_t *bits = s->scratch->bits;
    memset(bits, 0, s->words * sizeof *bits);
    for (uint32_t i = 0; i < term->strings.count; i++) {
        const roaring_bitmap_t *bitmap = mn_select_bitmap(s, term, i);
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
static uint32_t read_ids(const struct mn_select *s)
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

static uint32_t read_lane(const struct mn_select *s, const struct mn_selection_term *term)
{
    uint32_t *rows = s->scratch->rows;
    uint64_t *bits = s->scratch->bits;
    uint32_t n = mn_meta_index_list(mn_columns_meta_index(s->part->columns), &term->run, s->first, s->end, rows);
    if (term->run.rising)
        return n;
    if (n <= MN_SELECT_FEW)
        return sort_few(rows, n);
    memset(bits, 0, s->words * sizeof *bits);
    for (uint32_t i = 0; i < n; i++)
        bits[rows[i] / 64] |= UINT64_C(1) << (rows[i] % 64);
    return mn_rowset_list(bits, s->words, rows);
}

bool mn_select_by_list(const struct mn_select *s, const struct mn_selection_term *drive, struct mn_selection *out)
{
    uint32_t count;
    if (drive->kind == MN_TERM_IDS)
        count = read_ids(s);
    else if (drive->indexed)
        count = read_lane(s, drive);
    else
        count = drive->strings.count == 1 ? read_bitmap(s, mn_select_bitmap(s, drive, 0)) : read_bitmaps(s, drive);
    if (count == MN_NONE)
        return false;
    mn_select_take(s, keep_all(s, drive, count), out);
    return true;
}

bool mn_select_by_ids(const struct mn_select *s, struct mn_selection *out)
{
    uint32_t count = read_ids(s);
    if (count == MN_NONE)
        return false;
    mn_select_take(s, mn_select_keep(s, NULL, count), out);
    return true;
}
