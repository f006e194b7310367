/*
 * filter_walk.c - the walk over the rows of a part that match: where they come from, and one after the other.
 *
 * A source only proposes rows, perhaps too many: each is then tested against the whole scope (filter.c).
 */
#include <roaring/roaring.h>

#include "engine/filter_inside.h"

/* A probe of the id hash or a step through postings jumps through memory: it must save this many scanned rows. */
#define PROBE_COST    8
#define POSTINGS_COST 2
/* Rows of a lane that come in no order: who wants the first few of an order has to take them all. */
#define UNSORTED_COST 8

/* ---- sources ---- */

/* NULL when the string has no rows. */
static const roaring_bitmap_t *postings(const struct mn_matcher *m, uint32_t string)
{
    return mn_columns_postings(m->part->columns, m->kind, string);
}

/* Rows in the bitmaps of all the strings; UINT64_MAX when one of them cannot be read. */
static uint64_t postings_rows(const struct mn_matcher *m, enum mn_posting kind, const struct mn_numbers *strings)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < strings->count; i++) {
        uint32_t n = mn_columns_posting_rows(m->part->columns, kind, strings->data[i]);
        if (n > 0 && !mn_columns_postings(m->part->columns, kind, strings->data[i]))
            return UINT64_MAX;
        rows += n;
    }
    return rows;
}

static void offer_drive(struct mn_matcher *m, enum mn_posting kind, struct mn_numbers strings, uint64_t *rows)
{
    uint64_t n = postings_rows(m, kind, &strings);
    if (n >= *rows)
        return;
    *rows = n;
    m->kind = kind;
    m->drive = strings;
    m->source = MN_SOURCE_POSTINGS;
}

/* A condition of one run of places. */
static void offer_run(struct mn_matcher *m, const struct mn_where *where, uint64_t *rows)
{
    struct mn_meta_bound run;
    if (where->op == MN_WHERE_NE || (where->op == MN_WHERE_IN && where->value_count > 1) ||
        !mn_meta_index_bound(mn_columns_meta_index(m->part->columns), where, &run) || run.negated)
        return;
    uint64_t n = run.rising ? run.most : run.most * UNSORTED_COST;
    if (n >= *rows)
        return;
    *rows = n;
    m->run = run;
    m->source = MN_SOURCE_META;
}

/* Of everything that narrows the rows, what leaves the fewest to look at. */
static void choose_source(struct mn_matcher *m)
{
    uint64_t rows = m->last - m->first;
    m->source = MN_SOURCE_RANGE;
    if (m->id_count > 0 && !m->scope->all_spaces && (uint64_t)m->id_count * m->spaces.count <= rows / PROBE_COST) {
        m->source = MN_SOURCE_IDS;
        return;
    }
    if (m->part->tail)
        return;
    rows /= POSTINGS_COST;
    if (!m->scope->all_spaces)
        offer_drive(m, MN_POSTING_SPACE, m->spaces, &rows);
    if (m->any_wanted)
        offer_drive(m, MN_POSTING_TAG, m->tags_any, &rows);
    for (uint32_t i = 0; i < m->tags_all.count; i++)
        offer_drive(m, MN_POSTING_TAG, (struct mn_numbers){m->tags_all.data + i, 1}, &rows);
    for (uint32_t i = 0; i < m->scope->filter.where_count; i++)
        offer_run(m, &m->scope->filter.where[i], &rows);
}

static uint32_t row_at(const struct mn_matcher *m, uint32_t place)
{
    return mn_meta_index_row(mn_columns_meta_index(m->part->columns), m->run.lane, place);
}

/* The first place of [low, high), whose rows rise, with a row at or above `row`. */
static uint32_t find_place(const struct mn_matcher *m, uint32_t low, uint32_t high, uint32_t row)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (row_at(m, middle) < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void begin_run(struct mn_matcher *m)
{
    m->next = m->run.first.begin;
    m->end = m->run.first.end;
    if (!m->run.rising || !m->run.lane)
        return;
    m->next = find_place(m, m->next, m->end, m->first);
    m->end = find_place(m, m->next, m->end, m->last);
}

static bool source_is_sorted(const struct mn_matcher *m)
{
    switch (m->source) {
    case MN_SOURCE_RANGE:
        return true;
    case MN_SOURCE_POSTINGS:
        return m->drive.count == 1;
    case MN_SOURCE_META:
        return m->run.rising;
    default:
        return false;
    }
}

void mn_matcher_choose(struct mn_matcher *m)
{
    m->next = m->first;
    m->end = m->last;
    choose_source(m);
    if (m->source == MN_SOURCE_META)
        begin_run(m);
    m->sorted = !m->part->tail && source_is_sorted(m);
}

/* ---- the walk ---- */

static bool wanted(const struct mn_matcher *m, uint32_t row, uint64_t seq, int64_t now)
{
    return mn_part_visible(m->part, row, seq, now) && mn_matcher_row(m, row);
}

/* Whether this row of a column segment, and so each one behind it, lies outside bounds that were narrowed meanwhile. */
static bool out_of_time(const struct mn_matcher *m, uint32_t row)
{
    if (m->part->tail)
        return false;
    return m->backwards ? m->part->at[row] < m->from : m->part->at[row] > m->until;
}

static uint32_t next_in_range(struct mn_matcher *m, uint64_t seq, int64_t now, uint32_t *rows, uint32_t max)
{
    uint32_t n = 0;
    while (n < max && m->next < m->end) {
        uint32_t row = m->backwards ? --m->end : m->next++;
        if (out_of_time(m, row)) {
            m->next = m->end;
            break;
        }
        if (wanted(m, row, seq, now))
            rows[n++] = row;
    }
    return n;
}

/* The visible version of an id in a space of the part, if it lies in the range and matches. */
static uint32_t find_wanted(struct mn_matcher *m, const struct mn_id *id, uint32_t space, uint64_t seq, int64_t now)
{
    struct mn_part_find find = {.id = *id, .space = space};
    find.hash = mn_id_hash(mn_str_hash(mn_part_string(m->part, space)), id);
    uint32_t row = mn_part_find_first(m->part, &find);
    while (row != MN_NONE && !mn_part_visible(m->part, row, seq, now))
        row = mn_part_find_next(m->part, &find);
    return row != MN_NONE && row >= m->first && row < m->last && mn_matcher_row(m, row) ? row : MN_NONE;
}

static uint32_t next_of_ids(struct mn_matcher *m, uint64_t seq, int64_t now, uint32_t *rows, uint32_t max)
{
    uint32_t n = 0;
    while (n < max && m->at < m->id_count) {
        uint32_t row = find_wanted(m, &m->ids[m->at], m->spaces.data[m->space_at], seq, now);
        if (row != MN_NONE)
            rows[n++] = row;
        if (++m->space_at == m->spaces.count) {
            m->space_at = 0;
            m->at++;
        }
    }
    return n;
}

/* Up to `max` rows of a bitmap within [next, end), from the front; moves `next`. */
static uint32_t read_forwards(struct mn_matcher *m, const roaring_bitmap_t *bitmap, uint32_t *rows, uint32_t max)
{
    roaring_uint32_iterator_t it;
    roaring_init_iterator(bitmap, &it);
    if (m->next >= m->end || !roaring_move_uint32_iterator_equalorlarger(&it, m->next))
        return 0;
    uint32_t n = roaring_read_uint32_iterator(&it, rows, max);
    while (n > 0 && rows[n - 1] >= m->end)
        n--;
    m->next = n > 0 ? rows[n - 1] + 1 : m->end;
    return n;
}

/* The same from the back; moves `end`. */
static uint32_t read_backwards(struct mn_matcher *m, const roaring_bitmap_t *bitmap, uint32_t *rows, uint32_t max)
{
    roaring_uint32_iterator_t it;
    roaring_init_iterator(bitmap, &it);
    if (!roaring_move_uint32_iterator_equalorlarger(&it, m->end))
        roaring_init_iterator_last(bitmap, &it);
    while (it.has_value && it.current_value >= m->end)
        roaring_previous_uint32_iterator(&it);
    uint32_t n = 0;
    for (; n < max && it.has_value && it.current_value >= m->next; roaring_previous_uint32_iterator(&it))
        rows[n++] = it.current_value;
    m->end = n > 0 ? rows[n - 1] : m->next;
    return n;
}

/* A row with two of the tags is in two bitmaps; it counts in the first. */
static bool came_before(const struct mn_matcher *m, uint32_t row)
{
    for (uint32_t i = 0; m->kind == MN_POSTING_TAG && i < m->at; i++) {
        const roaring_bitmap_t *bitmap = postings(m, m->drive.data[i]);
        if (bitmap && roaring_bitmap_contains(bitmap, row))
            return true;
    }
    return false;
}

static uint32_t read_bitmap(struct mn_matcher *m, uint32_t *rows, uint32_t max)
{
    const roaring_bitmap_t *bitmap = postings(m, m->drive.data[m->at]);
    if (!bitmap)
        return 0;
    return m->backwards ? read_backwards(m, bitmap, rows, max) : read_forwards(m, bitmap, rows, max);
}

static uint32_t next_in_postings(struct mn_matcher *m, uint64_t seq, int64_t now, uint32_t *rows, uint32_t max)
{
    uint32_t n = 0;
    while (n < max && m->at < m->drive.count) {
        uint32_t *read = rows + n;
        uint32_t count = read_bitmap(m, read, max - n);
        if (count == 0) {
            m->at++;
            m->next = m->first;
            m->end = m->last;
        }
        for (uint32_t i = 0; i < count; i++) {
            if (!came_before(m, read[i]) && wanted(m, read[i], seq, now))
                rows[n++] = read[i];
        }
    }
    return n;
}

/* The places of a run, then the wild rows. */
static uint32_t next_in_run(struct mn_matcher *m, uint64_t seq, int64_t now, uint32_t *rows, uint32_t max)
{
    const struct mn_meta_index *index = mn_columns_meta_index(m->part->columns);
    uint32_t n = 0;
    while (n < max && (m->next < m->end || m->at < index->wild_count)) {
        uint32_t row;
        if (m->next < m->end)
            row = row_at(m, m->backwards ? --m->end : m->next++);
        else
            row = index->wild[m->at++];
        if (row < m->first || row >= m->last)
            continue;
        if (m->sorted && out_of_time(m, row)) {
            m->next = m->end;
            break;
        }
        if (wanted(m, row, seq, now))
            rows[n++] = row;
    }
    return n;
}

uint32_t mn_matcher_next(struct mn_matcher *m, uint64_t seq, int64_t now, uint32_t *rows, uint32_t max)
{
    switch (m->source) {
    case MN_SOURCE_IDS:
        return next_of_ids(m, seq, now, rows, max);
    case MN_SOURCE_POSTINGS:
        return next_in_postings(m, seq, now, rows, max);
    case MN_SOURCE_META:
        return next_in_run(m, seq, now, rows, max);
    default:
        return next_in_range(m, seq, now, rows, max);
    }
}
