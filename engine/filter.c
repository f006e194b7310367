/*
 * filter.c - a scope in a part's numbers, and whether a row matches it. Where the rows to be tested come from:
 * filter_walk.c.
 */
#include <stdlib.h>

#include "engine/filter_inside.h"
#include "engine/meta.h"

/* ---- a scope ---- */

static int compare_ids(const void *a, const void *b)
{
    return mn_id_compare(a, b);
}

static int compare_numbers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static enum mn_status grow(struct mn_matcher *m, size_t bytes)
{
    if (bytes <= m->storage_bytes)
        return MN_OK;
    void *storage = realloc(m->storage, bytes);
    if (!storage)
        return MN_FAIL(MN_INTERNAL, "out of memory for a filter of %zu bytes", bytes);
    m->storage = storage;
    m->storage_bytes = bytes;
    return MN_OK;
}

static void take_ids(struct mn_matcher *m, const struct mn_filter *filter)
{
    m->id_count = 0;
    if (filter->id_count == 0)
        return;
    memcpy(m->ids, filter->ids, filter->id_count * sizeof *m->ids);
    qsort(m->ids, filter->id_count, sizeof *m->ids, compare_ids);
    for (uint32_t i = 0; i < filter->id_count; i++) {
        if (m->id_count == 0 || !mn_id_equal(&m->ids[m->id_count - 1], &m->ids[i]))
            m->ids[m->id_count++] = m->ids[i];
    }
}

static void take_times(struct mn_matcher *m, const struct mn_scope *scope)
{
    m->from = scope->after;
    m->until = INT64_MAX;
    if (!scope->has_before)
        return;
    if (scope->before > INT64_MIN) {
        m->until = scope->before - 1;
    } else { /* nothing is earlier than that */
        m->from = INT64_MAX;
        m->until = INT64_MIN;
    }
}

enum mn_status mn_matcher_begin(struct mn_matcher *m, const struct mn_scope *scope)
{
    const struct mn_filter *filter = &scope->filter;
    size_t numbers =
        (size_t)scope->space_count + filter->tags_any_count + filter->tags_all_count + filter->tags_none_count;
    size_t id_bytes = (size_t)filter->id_count * sizeof *m->ids;
    MN_TRY(grow(m, id_bytes + (numbers + 1) * sizeof(uint32_t)));
    m->scope = scope;
    m->part = NULL;
    m->backwards = false;
    m->ids = m->storage;
    uint32_t *data = (uint32_t *)(void *)((char *)m->storage + id_bytes);
    m->spaces = (struct mn_numbers){data, 0};
    m->tags_any = (struct mn_numbers){data + scope->space_count, 0};
    m->tags_all = (struct mn_numbers){m->tags_any.data + filter->tags_any_count, 0};
    m->tags_none = (struct mn_numbers){m->tags_all.data + filter->tags_all_count, 0};
    m->any_wanted = filter->has_tags_any || filter->tags_any_count > 0;
    m->any_in_space = !m->any_wanted && !filter->has_ids && filter->id_count == 0 && filter->tags_all_count == 0 &&
                      filter->tags_none_count == 0 && filter->where_count == 0 && !(scope->min_confidence > 0);
    m->any_row = m->any_in_space && scope->all_spaces;
    take_ids(m, filter);
    take_times(m, scope);
    return MN_OK;
}

void mn_matcher_free(struct mn_matcher *m)
{
    free(m->storage);
    *m = (struct mn_matcher){0};
}

/* ---- a part ---- */

/* The numbers of `names` in the part. Returns how many of them it does not know. */
static uint32_t number_names(const struct mn_part *part, const struct mn_str *names, uint32_t count,
                             struct mn_numbers *numbers)
{
    uint32_t known = 0, kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = mn_part_lookup(part, names[i]);
        if (number != MN_NONE)
            numbers->data[known++] = number;
    }
    if (known > 1)
        qsort(numbers->data, known, sizeof *numbers->data, compare_numbers);
    for (uint32_t i = 0; i < known; i++) {
        if (kept == 0 || numbers->data[kept - 1] != numbers->data[i])
            numbers->data[kept++] = numbers->data[i];
    }
    numbers->count = kept;
    return count - known;
}

/* False when the part lacks a name without which nothing matches. */
static bool number_scope(struct mn_matcher *m)
{
    const struct mn_filter *filter = &m->scope->filter;
    number_names(m->part, m->scope->spaces, m->scope->space_count, &m->spaces);
    if (!m->scope->all_spaces && m->spaces.count == 0)
        return false;
    number_names(m->part, filter->tags_any, filter->tags_any_count, &m->tags_any);
    if (m->any_wanted && m->tags_any.count == 0)
        return false;
    if (number_names(m->part, filter->tags_all, filter->tags_all_count, &m->tags_all) > 0)
        return false;
    number_names(m->part, filter->tags_none, filter->tags_none_count, &m->tags_none);
    return !filter->has_ids || m->id_count > 0;
}

static bool holds(const struct mn_numbers *numbers, uint32_t number)
{
    uint32_t low = 0, high = numbers->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (numbers->data[middle] < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < numbers->count && numbers->data[low] == number;
}

/* Rows of a column segment lie in the order of time: leaves out those before and after. */
static void narrow_by_time(struct mn_matcher *m)
{
    uint32_t low = m->from > INT64_MIN ? mn_part_lower_bound(m->part, m->from) : 0;
    uint32_t high = m->until < INT64_MAX ? mn_part_lower_bound(m->part, m->until + 1) : m->part->rows;
    m->first = low > m->first ? low : m->first;
    m->last = high < m->last ? high : m->last;
}

bool mn_matcher_part(struct mn_matcher *m, const struct mn_part *part, uint32_t first, uint32_t end)
{
    m->part = part;
    m->first = first;
    m->last = end < part->rows ? end : part->rows;
    m->at = m->space_at = 0;
    if (m->from > m->until)
        return false;
    if (!part->tail)
        narrow_by_time(m);
    if (m->first >= m->last || !number_scope(m))
        return false;
    m->any_row = m->any_in_space && (m->scope->all_spaces || holds(&m->spaces, mn_part_only_space(part)));
    mn_matcher_choose(m);
    return true;
}

/* ---- a row ---- */

static bool has_tag(const uint32_t *tags, uint32_t count, uint32_t tag)
{
    for (uint32_t i = 0; i < count; i++) {
        if (tags[i] == tag)
            return true;
    }
    return false;
}

static bool tags_match(const struct mn_matcher *m, uint32_t row)
{
    const uint32_t *tags;
    uint32_t count = mn_part_tags(m->part, row, &tags);
    bool any = !m->any_wanted;
    for (uint32_t i = 0; i < count; i++) {
        if (holds(&m->tags_none, tags[i]))
            return false;
        any = any || holds(&m->tags_any, tags[i]);
    }
    for (uint32_t i = 0; any && i < m->tags_all.count; i++)
        any = has_tag(tags, count, m->tags_all.data[i]);
    return any;
}

static bool equals_one(const struct mn_where *where, struct mn_str value)
{
    for (uint32_t i = 0; i < where->value_count; i++) {
        if (mn_meta_equal(value, where->values[i]))
            return true;
    }
    return false;
}

/* The condition on a value that is there. */
static bool value_matches(const struct mn_where *where, struct mn_str value)
{
    switch (where->op) {
    case MN_WHERE_EQ:
    case MN_WHERE_IN:
        return equals_one(where, value);
    case MN_WHERE_NE:
        return !equals_one(where, value);
    case MN_WHERE_EXISTS:
        return where->exists;
    default:
        break;
    }
    int order = where->value_count > 0 ? mn_meta_compare(value, where->values[0]) : MN_META_UNORDERED;
    if (order == MN_META_UNORDERED)
        return false;
    switch (where->op) {
    case MN_WHERE_GT:
        return order > 0;
    case MN_WHERE_GTE:
        return order >= 0;
    case MN_WHERE_LT:
        return order < 0;
    default:
        return order <= 0;
    }
}

bool mn_where_matches(const struct mn_where *where, struct mn_str meta)
{
    struct mn_str value;
    if (meta.length > 0 && mn_meta_find(meta, where->key, &value))
        return value_matches(where, value);
    return where->op == MN_WHERE_NE || (where->op == MN_WHERE_EXISTS && !where->exists);
}

static bool meta_matches(const struct mn_matcher *m, uint32_t row)
{
    const struct mn_filter *filter = &m->scope->filter;
    struct mn_str meta;
    if (mn_part_meta(m->part, row, &meta) != MN_OK)
        return false;
    for (uint32_t i = 0; i < filter->where_count; i++) {
        if (!mn_where_matches(&filter->where[i], meta))
            return false;
    }
    return true;
}

bool mn_matcher_row(const struct mn_matcher *m, uint32_t row)
{
    const struct mn_part *p = m->part;
    int64_t at = mn_part_at(p, row);
    if (at < m->from || at > m->until)
        return false;
    if (m->any_row)
        return true;
    const struct mn_scope *scope = m->scope;
    if (!scope->all_spaces && !holds(&m->spaces, mn_part_space(p, row)))
        return false;
    if (scope->min_confidence > 0 && !(mn_part_confidence(p, row) >= scope->min_confidence))
        return false;
    if (m->id_count > 0 && !bsearch(mn_part_id(p, row), m->ids, m->id_count, sizeof *m->ids, compare_ids))
        return false;
    if ((m->any_wanted || m->tags_all.count > 0 || m->tags_none.count > 0) && !tags_match(m, row))
        return false;
    return scope->filter.where_count == 0 || meta_matches(m, row);
}
