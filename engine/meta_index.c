/*
 * meta_index.c - see meta_index.h: finding the runs of a condition, and making lists and sets of them.
 *
 * The file was checked whole when it was opened; a number that could lead outside the mapping or a set is bounded all
 * the same.
 */
#include "engine/meta_index.h"

#include <math.h>

#include "engine/columns.h"
#include "engine/columns_file.h"
#include "engine/filter.h"
#include "engine/rowset.h"

/* ---- opening ---- */

static bool array_fits(const struct mn_column_file *file, uint64_t at, uint64_t count, uint64_t element)
{
    return at % 64 == 0 && at <= file->data_bytes && count <= (file->data_bytes - at) / element;
}

static bool lane_fits(const struct mn_column_file *file, const struct mn_meta_lane *lane, uint32_t rows)
{
    uint64_t mark_bytes = mn_rowset_words(rows) * sizeof(uint64_t);
    if (lane->count > rows || lane->groups > lane->count || lane->name_at > file->data_bytes ||
        lane->name_bytes > file->data_bytes - lane->name_at || lane->class_begin[0] != 0 ||
        lane->class_begin[MN_META_CLASSES] != lane->groups)
        return false;
    for (int c = 0; c < MN_META_CLASSES; c++) {
        if (lane->class_begin[c] > lane->class_begin[c + 1])
            return false;
    }
    if (lane->order_at == 0 ? lane->count != rows || lane->marks != 0
                            : !array_fits(file, lane->order_at, lane->count, sizeof(uint32_t)))
        return false;
    if (lane->marks > 0 && (lane->stride == 0 || lane->marks > lane->count / lane->stride ||
                            !array_fits(file, lane->marks_at, lane->marks, mark_bytes)))
        return false;
    return array_fits(file, lane->keys_at, lane->groups, sizeof(uint64_t)) &&
           array_fits(file, lane->starts_at, (uint64_t)lane->groups + 1, sizeof(uint32_t));
}

bool mn_meta_index_open(struct mn_meta_index *index, const struct mn_columns *columns,
                        const struct mn_column_file *file)
{
    const struct mn_meta_index_foot *foot;
    if (file->data_bytes < sizeof *foot || file->data_bytes % 8 != 0)
        return false;
    foot = (const void *)(file->data + file->data_bytes - sizeof *foot);
    if (!array_fits(file, foot->lanes_at, foot->lanes, sizeof(struct mn_meta_lane)) ||
        !array_fits(file, foot->wild_at, foot->wild, sizeof(uint32_t)) || foot->confidence > foot->lanes)
        return false;
    const struct mn_meta_lane *lanes = (const void *)(file->data + foot->lanes_at);
    for (uint32_t i = 0; i < foot->lanes; i++) {
        if (!lane_fits(file, &lanes[i], (uint32_t)file->header->rows))
            return false;
    }
    *index = (struct mn_meta_index){.columns = columns,
                                    .data = file->data,
                                    .rows = (uint32_t)file->header->rows,
                                    .lane_count = foot->lanes - foot->confidence,
                                    .wild_count = foot->wild,
                                    .lanes = lanes + foot->confidence,
                                    .confidence = foot->confidence ? lanes : NULL,
                                    .wild = (const void *)(file->data + foot->wild_at),
                                    .complete = foot->complete == 1};
    return true;
}

/* ---- lanes and groups ---- */

static const uint64_t *keys_of(const struct mn_meta_index *index, const struct mn_meta_lane *lane)
{
    return (const void *)(index->data + lane->keys_at);
}

/* Where a group begins; group == groups: the end. */
static uint32_t start_of(const struct mn_meta_index *index, const struct mn_meta_lane *lane, uint32_t group)
{
    uint32_t start = ((const uint32_t *)(const void *)(index->data + lane->starts_at))[group];
    return start < lane->count ? start : lane->count;
}

static const struct mn_meta_lane *find_lane(const struct mn_meta_index *index, struct mn_str name)
{
    uint32_t low = 0, high = index->lane_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct mn_meta_lane *lane = &index->lanes[middle];
        struct mn_str other = {(const char *)index->data + lane->name_at, lane->name_bytes};
        int order = mn_str_compare(other, name);
        if (order == 0)
            return lane;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* The order of a value and a group's, whose first pieces are the same; false when the group's cannot be read. */
static bool compare_group(const struct mn_meta_index *index, const struct mn_meta_bound *bound, uint32_t group,
                          const struct mn_meta_value *value, int *order)
{
    struct mn_meta_value other;
    struct mn_str meta, found;
    uint32_t row = mn_meta_index_row(index, bound->lane, start_of(index, bound->lane, group));
    if (row == MN_NONE || mn_columns_meta(index->columns, row, &meta) != MN_OK ||
        !mn_meta_find(meta, bound->where->key, &found) || !mn_meta_next(&found, &other) ||
        mn_meta_class_of(&other) != mn_meta_class_of(value))
        return false;
    *order = mn_meta_order(value, &other);
    return true;
}

/* The first key of [low, high) that is at least `key`. */
static uint32_t lower_key(const uint64_t *keys, uint32_t low, uint32_t high, uint64_t key)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The first group of the value's class that is not below it; *same: it is equal. */
static bool find_group(const struct mn_meta_index *index, const struct mn_meta_bound *bound,
                       const struct mn_meta_value *value, uint32_t *group, bool *same)
{
    enum mn_meta_class class = mn_meta_class_of(value);
    const struct mn_meta_lane *lane = bound->lane;
    const uint64_t *keys = keys_of(index, lane);
    uint64_t piece = mn_meta_piece(value, 0);
    uint32_t end = lane->class_begin[class + 1], low = lower_key(keys, lane->class_begin[class], end, piece);
    *group = low;
    *same = low < end && keys[low] == piece;
    if (!*same || mn_meta_piece_last(class, piece, 0))
        return true;
    uint32_t high = piece == UINT64_MAX ? end : lower_key(keys, low, end, piece + 1);
    *same = false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order;
        if (!compare_group(index, bound, middle, value, &order))
            return false;
        *same = *same || order == 0;
        if (order > 0)
            low = middle + 1;
        else
            high = middle;
    }
    *group = low;
    return true;
}

/* ---- runs ---- */

static bool is_ordered(const struct mn_meta_value *value)
{
    return mn_meta_class_of(value) <= MN_META_CLASS_BIN;
}

/* The run of an operator, when the value's group, or where it would be, is [begin, end) of its class. */
static void bound_run(const struct mn_meta_index *index, const struct mn_meta_bound *bound,
                      const struct mn_meta_value *value, uint32_t begin, uint32_t end, struct mn_meta_run *run)
{
    enum mn_meta_class class = mn_meta_class_of(value);
    uint32_t class_begin = start_of(index, bound->lane, bound->lane->class_begin[class]);
    uint32_t class_end = start_of(index, bound->lane, bound->lane->class_begin[class + 1]);
    bool sure = !mn_meta_unsure(value);
    switch (bound->where->op) {
    case MN_WHERE_GT:
        *run = (struct mn_meta_run){sure ? end : begin, class_end, end, class_end};
        return;
    case MN_WHERE_GTE:
        *run = (struct mn_meta_run){begin, class_end, sure ? begin : end, class_end};
        return;
    case MN_WHERE_LT:
        *run = (struct mn_meta_run){class_begin, sure ? begin : end, class_begin, begin};
        return;
    case MN_WHERE_LTE:
        *run = (struct mn_meta_run){class_begin, end, class_begin, sure ? end : begin};
        return;
    default:
        *run = (struct mn_meta_run){begin, end, begin, sure ? end : begin};
    }
}

static bool run_of_value(const struct mn_meta_index *index, const struct mn_meta_bound *bound, struct mn_str bytes,
                         struct mn_meta_run *run)
{
    struct mn_meta_value value;
    const struct mn_where *where = bound->where;
    bool equality = where->op == MN_WHERE_EQ || where->op == MN_WHERE_NE || where->op == MN_WHERE_IN;
    uint32_t group;
    bool same;
    *run = (struct mn_meta_run){0};
    if (!mn_meta_next(&bytes, &value) || (!equality && !is_ordered(&value)))
        return true;
    if ((value.type == MN_META_F32 || value.type == MN_META_F64) && isnan(value.f64))
        return true;
    if (!find_group(index, bound, &value, &group, &same))
        return false;
    bound_run(index, bound, &value, start_of(index, bound->lane, group),
              start_of(index, bound->lane, same ? group + 1 : group), run);
    return true;
}

bool mn_meta_index_run(const struct mn_meta_index *index, const struct mn_meta_bound *bound, uint32_t i,
                       struct mn_meta_run *run)
{
    const struct mn_where *where = bound->where;
    *run = (struct mn_meta_run){0};
    if (!bound->lane)
        return true;
    if (where->op == MN_WHERE_EXISTS) {
        *run = (struct mn_meta_run){0, bound->lane->count, 0, bound->lane->count};
        return true;
    }
    return i >= where->value_count || run_of_value(index, bound, where->values[i], run);
}

/* ---- bounds ---- */

/* How many runs a condition has. An order is asked of its first value only. */
static uint32_t run_count(const struct mn_where *where)
{
    bool list = where->op == MN_WHERE_EQ || where->op == MN_WHERE_NE || where->op == MN_WHERE_IN;
    return list && where->value_count > 0 ? where->value_count : 1;
}

/* Single rows that making a set of a run touches: at each end of a long one, a quarter of a stride on average. */
static uint64_t steps_of(const struct mn_meta_lane *lane, const struct mn_meta_run *run)
{
    uint64_t rows = run->sure_end - run->sure;
    if (lane->order_at == 0)
        return 0;
    return lane->marks > 0 && rows > lane->stride ? lane->stride / 2 : rows;
}

bool mn_meta_index_bound(const struct mn_meta_index *index, const struct mn_where *where, struct mn_meta_bound *bound)
{
    struct mn_meta_run run;
    uint64_t most = 0, sure_most = 0, runs = run_count(where);
    *bound = (struct mn_meta_bound){.where = where, .unsure = index->wild_count};
    bound->negated = where->op == MN_WHERE_NE || (where->op == MN_WHERE_EXISTS && !where->exists);
    bound->lane = find_lane(index, where->key);
    if (where->key.length > MN_META_INDEX_NAME_MAX || (!bound->lane && !index->complete))
        return false;
    for (uint32_t i = 0; bound->lane && i < runs; i++) {
        if (!mn_meta_index_run(index, bound, i, &run))
            return false;
        uint64_t rows = run.end - run.begin, sure = run.sure_end - run.sure;
        bound->first = i == 0 ? run : bound->first;
        most += rows;
        sure_most = sure > sure_most ? sure : sure_most;
        bound->unsure += rows - sure;
        bound->steps += steps_of(bound->lane, &run);
    }
    bound->rising = runs == 1 && index->wild_count == 0 &&
                    (where->op == MN_WHERE_EQ || where->op == MN_WHERE_IN || !bound->lane || bound->lane->groups == 1);
    bound->most = bound->negated ? index->rows - sure_most : most + index->wild_count;
    return true;
}

bool mn_meta_index_confidence(const struct mn_meta_index *index, float least, struct mn_meta_bound *bound)
{
    const struct mn_meta_lane *lane = index->confidence;
    struct mn_meta_value value = {.type = MN_META_F32, .f64 = (double)least};
    if (!lane || isnan(least))
        return false;
    uint32_t group = lower_key(keys_of(index, lane), 0, lane->groups, mn_meta_piece(&value, 0));
    uint32_t begin = start_of(index, lane, group);
    *bound = (struct mn_meta_bound){
        .lane = lane, .first = {begin, lane->count, begin, lane->count}, .most = lane->count - begin};
    bound->rising = lane->groups - group <= 1;
    bound->steps = steps_of(lane, &bound->first);
    return true;
}

/* ---- sets ---- */

static void turn_rows(const struct mn_meta_index *index, const struct mn_meta_lane *lane, uint32_t begin, uint32_t end,
                      uint64_t *bits)
{
    for (uint32_t place = begin; place < end; place++) {
        uint32_t row = mn_meta_index_row(index, lane, place);
        if (row != MN_NONE)
            bits[row / 64] ^= UINT64_C(1) << (row % 64);
    }
}

/* The mark nearest to a place: 0 is the empty set at place 0. */
static uint32_t nearest_mark(const struct mn_meta_lane *lane, uint32_t place)
{
    uint32_t mark = (uint32_t)(((uint64_t)place + lane->stride / 2) / lane->stride);
    return mark < lane->marks ? mark : lane->marks;
}

static void turn_mark(const struct mn_meta_index *index, const struct mn_meta_lane *lane, uint32_t mark, uint64_t *bits)
{
    uint64_t words = mn_rowset_words(index->rows);
    if (mark == 0)
        return;
    const uint64_t *set = (const uint64_t *)(const void *)(index->data + lane->marks_at) + (mark - 1) * words;
    for (uint64_t w = 0; w < words; w++)
        bits[w] ^= set[w];
}

/* Turns the rows at places [0, end) over: by the mark nearest, and what lies between. */
static void turn_up_to(const struct mn_meta_index *index, const struct mn_meta_lane *lane, uint32_t end, uint64_t *bits)
{
    uint32_t mark = nearest_mark(lane, end), at = mark * lane->stride;
    turn_mark(index, lane, mark, bits);
    turn_rows(index, lane, at < end ? at : end, at < end ? end : at, bits);
}

/* Adds rows that no other run has added. No row is at two places, so that turning a bit over adds or removes it. */
static void add_run(const struct mn_meta_index *index, const struct mn_meta_lane *lane, uint32_t begin, uint32_t end,
                    uint64_t *bits)
{
    if (begin >= end)
        return;
    uint32_t row = mn_meta_index_row(index, lane, begin);
    if (row == MN_NONE || mn_rowset_has(bits, row)) /* one of several equal values */
        return;
    if (lane->order_at == 0) {
        mn_rowset_fill(bits, mn_rowset_words(index->rows), 0, index->rows);
    } else if (lane->marks > 0 && end - begin > lane->stride) {
        turn_up_to(index, lane, end, bits);
        turn_up_to(index, lane, begin, bits);
    } else {
        turn_rows(index, lane, begin, end, bits);
    }
}

static bool row_matches(const struct mn_meta_index *index, const struct mn_where *where, uint32_t row)
{
    struct mn_str meta;
    return row < index->rows && mn_columns_meta(index->columns, row, &meta) == MN_OK && mn_where_matches(where, meta);
}

/* Puts a row in when what its meta says is `wanted`. */
static void ask(const struct mn_meta_index *index, const struct mn_where *where, uint32_t row, bool wanted,
                uint64_t *bits)
{
    if (row < index->rows && row_matches(index, where, row) == wanted)
        bits[row / 64] |= UINT64_C(1) << (row % 64);
}

static void set_run(const struct mn_meta_index *index, const struct mn_meta_bound *bound, const struct mn_meta_run *run,
                    uint64_t *bits)
{
    add_run(index, bound->lane, run->sure, run->sure_end, bits);
    for (uint32_t place = run->begin; place < run->end; place++) {
        if (place == run->sure && run->sure < run->sure_end)
            place = run->sure_end - 1;
        else
            ask(index, bound->where, mn_meta_index_row(index, bound->lane, place), !bound->negated, bits);
    }
}

static void turn_all(const struct mn_meta_index *index, uint64_t *bits)
{
    uint64_t words = mn_rowset_words(index->rows);
    for (uint64_t w = 0; w < words; w++)
        bits[w] = ~bits[w];
    mn_rowset_trim(bits, words, 0, index->rows);
}

void mn_meta_index_set(const struct mn_meta_index *index, const struct mn_meta_bound *bound, uint64_t *bits)
{
    memset(bits, 0, mn_rowset_words(index->rows) * sizeof *bits);
    if (bound->lane)
        set_run(index, bound, &bound->first, bits);
    if (!bound->where)
        return;
    uint32_t runs = run_count(bound->where);
    for (uint32_t i = 1; bound->lane && i < runs; i++) {
        struct mn_meta_run run;
        if (mn_meta_index_run(index, bound, i, &run)) /* as it was when the bound was made */
            set_run(index, bound, &run, bits);
    }
    for (uint32_t i = 0; i < index->wild_count; i++)
        ask(index, bound->where, index->wild[i], !bound->negated, bits);
    if (bound->negated)
        turn_all(index, bits);
}

/* ---- lists ---- */

static uint32_t list_run(const struct mn_meta_index *index, const struct mn_meta_bound *bound,
                         const struct mn_meta_run *run, uint32_t first, uint32_t end, uint32_t *rows)
{
    uint32_t n = 0;
    for (uint32_t place = run->begin; place < run->end; place++) {
        uint32_t row = mn_meta_index_row(index, bound->lane, place);
        bool sure = place >= run->sure && place < run->sure_end;
        if (row >= first && row < end && (sure || row_matches(index, bound->where, row)))
            rows[n++] = row;
    }
    return n;
}

uint32_t mn_meta_index_list(const struct mn_meta_index *index, const struct mn_meta_bound *bound, uint32_t first,
                            uint32_t end, uint32_t *rows)
{
    uint32_t n = bound->lane ? list_run(index, bound, &bound->first, first, end, rows) : 0;
    uint32_t runs = bound->where ? run_count(bound->where) : 0;
    for (uint32_t i = 1; bound->lane && i < runs; i++) {
        struct mn_meta_run run;
        if (mn_meta_index_run(index, bound, i, &run))
            n += list_run(index, bound, &run, first, end, rows + n);
    }
    for (uint32_t i = 0; bound->where && i < index->wild_count; i++) {
        uint32_t row = index->wild[i];
        if (row >= first && row < end && row_matches(index, bound->where, row))
            rows[n++] = row;
    }
    return n;
}
