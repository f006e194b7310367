/*
 * meta_index_write.c - making metaindex.col (meta_index.h) from the meta of a segment that was just written.
 *
 * First a walk (meta_paths.h) that counts the values of each path and finds the wild rows; then the commonest paths are
 * taken, as many at a time as are sorted at once: a walk lists their values, each lane is sorted by its first pieces,
 * what these do not tell apart is sorted by the next, and so on.
 */
#include <stdlib.h>

#include "engine/columns_file.h"
#include "engine/meta_paths.h"
#include "engine/rowset.h"

#define SORT_SMALL 48 /* fewer entries are sorted by insertion */

/* A value of a lane in the making. */
struct entry {
    uint64_t key; /* piece at the depth being sorted */
    uint32_t row;
    uint32_t place; /* of the value, as in mn_meta_found */
};

/* What a lane is made of: the values of a path. */
struct values {
    uint32_t count;
    uint32_t listed;       /* entries so far */
    struct entry *entries; /* NULL: not of this load */
};

struct build {
    struct mn_column_sink *sink;
    uint32_t rows;
    const uint8_t *data;
    const uint64_t *start;
    struct mn_meta_paths paths;
    struct values *values; /* of each path; [MN_META_INDEX_FOUND_MAX] */
    uint64_t *wild;        /* a set */
    uint32_t wild_count;
    struct mn_meta_lane *lanes; /* [1 + MN_META_INDEX_LANES] */
    uint32_t lane_count;
    struct entry *entries, *scratch;
    uint64_t entries_max;
    uint64_t *begins; /* entry i begins a group; [entries_max / 64 + 1] */
    uint64_t *mark;   /* a set of rows */
};

static struct mn_str meta_of(const struct build *b, uint32_t row)
{
    return (struct mn_str){(const char *)b->data + b->start[row], (uint32_t)(b->start[row + 1] - b->start[row])};
}

/* Counts the values of each path; marks the wild rows. */
static enum mn_status count_values(struct build *b)
{
    for (uint32_t row = 0; row < b->rows; row++) {
        bool wild;
        MN_TRY(mn_meta_paths_walk(&b->paths, row, meta_of(b, row), &wild));
        if (wild) {
            b->wild[row / 64] |= UINT64_C(1) << (row % 64);
            b->wild_count++;
        }
        for (uint32_t i = 0; i < b->paths.found_count && !wild; i++)
            b->values[b->paths.found[i].path].count++;
    }
    return MN_OK;
}

/* ---- sorting ---- */

static const struct mn_meta_value *value_of(const struct build *b, const struct entry *e, struct mn_meta_value *value)
{
    uint64_t begin = b->start[e->row] + mn_meta_place_offset(e->place);
    struct mn_str bytes = {(const char *)b->data + begin, (uint32_t)(b->start[e->row + 1] - begin)};
    bool ok = mn_meta_next(&bytes, value);
    MN_ASSERT(ok); /* the walk has read it */
    return value;
}

static enum mn_meta_class class_of(const struct entry *e)
{
    return mn_meta_place_class(e->place);
}

static void sort_small(struct entry *e, uint64_t count)
{
    for (uint64_t i = 1; i < count; i++) {
        struct entry moving = e[i];
        uint64_t j = i;
        for (; j > 0 && e[j - 1].key > moving.key; j--)
            e[j] = e[j - 1];
        e[j] = moving;
    }
}

/* One pass of a radix sort by the byte at `shift` of the key (64: by class). False when all have the same. */
static bool sort_pass(const struct entry *from, struct entry *to, uint64_t count, unsigned shift)
{
    uint64_t first[257] = {0};
    for (uint64_t i = 0; i < count; i++)
        first[1 + (shift == 64 ? class_of(&from[i]) : (from[i].key >> shift & 0xff))]++;
    for (unsigned d = 0; d < 256; d++) {
        if (first[d + 1] == count)
            return false;
        first[d + 1] += first[d];
    }
    for (uint64_t i = 0; i < count; i++)
        to[first[shift == 64 ? class_of(&from[i]) : (from[i].key >> shift & 0xff)]++] = from[i];
    return true;
}

/* By (class, key) or by key; entries that are equal in them stay in their order, which is that of rows. */
static void sort_entries(const struct build *b, struct entry *e, uint64_t count, bool by_class)
{
    struct entry *from = e, *to = b->scratch;
    if (count <= SORT_SMALL && !by_class) {
        sort_small(e, count);
        return;
    }
    for (unsigned shift = 0; shift <= (by_class ? 64u : 56u); shift += 8) {
        if (sort_pass(from, to, count, shift)) {
            struct entry *swap = from;
            from = to;
            to = swap;
        }
    }
    if (from != e)
        memcpy(e, from, count * sizeof *e);
}

static void begin_group(struct build *b, uint64_t at)
{
    b->begins[at / 64] |= UINT64_C(1) << (at % 64);
}

static void split(struct build *b, struct entry *e, uint64_t from, uint64_t to, uint32_t depth);

/* Entries [from, to) have the same pieces up to `depth`: one group, or more pieces decide. */
static void refine(struct build *b, struct entry *e, uint64_t from, uint64_t to, uint32_t depth)
{
    struct mn_meta_value value;
    begin_group(b, from);
    if (to - from == 1 || mn_meta_piece_last(class_of(&e[from]), e[from].key, depth))
        return;
    for (uint64_t i = from; i < to; i++)
        e[i].key = mn_meta_piece(value_of(b, &e[i], &value), depth + 1);
    sort_entries(b, e + from, to - from, false);
    split(b, e, from, to, depth + 1);
}

/* Entries [from, to) are sorted by the piece at `depth`. */
// NOLINTNEXTLINE(misc-no-recursion): MN_META_PIECES deep at most
static void split(struct build *b, struct entry *e, uint64_t from, uint64_t to, uint32_t depth)
{
    for (uint64_t begin = from, end; begin < to; begin = end) {
        uint64_t key = e[begin].key;
        enum mn_meta_class class = class_of(&e[begin]);
        for (end = begin + 1; end < to && e[end].key == key && class_of(&e[end]) == class; end++)
            ;
        refine(b, e, begin, end, depth);
    }
}

/* ---- writing a lane ---- */

static bool begins_group(const struct build *b, uint64_t at)
{
    return b->begins[at / 64] >> (at % 64) & 1;
}

static enum mn_status put(struct build *b, const void *data, uint64_t bytes)
{
    return mn_column_sink_append(b->sink, data, bytes);
}

static enum mn_status begin_array(struct build *b, uint64_t *at)
{
    MN_TRY(mn_column_sink_align(b->sink, 64));
    *at = mn_column_sink_at(b->sink);
    return MN_OK;
}

/* keys: the first piece of each group; what is in the entries may be a later one. */
static enum mn_status put_groups(struct build *b, const struct entry *e, uint32_t count, struct mn_meta_lane *lane,
                                 bool of_meta)
{
    struct mn_meta_value value;
    MN_TRY(begin_array(b, &lane->keys_at));
    for (uint32_t i = 0; i < count; i++) {
        if (!begins_group(b, i))
            continue;
        uint64_t key = of_meta ? mn_meta_piece(value_of(b, &e[i], &value), 0) : e[i].key;
        MN_TRY(put(b, &key, sizeof key));
        lane->groups++;
        for (int c = class_of(&e[i]) + 1; c <= MN_META_CLASSES; c++)
            lane->class_begin[c]++;
    }
    MN_TRY(begin_array(b, &lane->starts_at));
    for (uint32_t i = 0; i < count; i++) {
        if (begins_group(b, i))
            MN_TRY(put(b, &i, sizeof i));
    }
    return put(b, &count, sizeof count);
}

static enum mn_status put_order(struct build *b, const struct entry *e, uint32_t count, struct mn_meta_lane *lane)
{
    if (lane->groups == 1 && count == b->rows)
        return MN_OK; /* row i at place i */
    MN_TRY(begin_array(b, &lane->order_at));
    for (uint32_t i = 0; i < count; i++)
        MN_TRY(put(b, &e[i].row, sizeof e[i].row));
    uint32_t stride = b->rows / MN_META_INDEX_MARKS;
    lane->stride = stride > MN_META_INDEX_STRIDE ? stride : MN_META_INDEX_STRIDE;
    uint64_t words = mn_rowset_words(b->rows);
    memset(b->mark, 0, words * sizeof *b->mark);
    MN_TRY(begin_array(b, &lane->marks_at));
    for (uint32_t i = 0; i < count; i++) {
        b->mark[e[i].row / 64] |= UINT64_C(1) << (e[i].row % 64);
        if ((i + 1) % lane->stride == 0) {
            MN_TRY(put(b, b->mark, words * sizeof *b->mark));
            lane->marks++;
        }
    }
    return MN_OK;
}

static enum mn_status put_lane(struct build *b, struct entry *e, uint32_t count, struct mn_meta_lane *lane,
                               bool of_meta)
{
    memset(b->begins, 0, (count / 64u + 1) * sizeof *b->begins);
    sort_entries(b, e, count, true);
    if (of_meta) {
        split(b, e, 0, count, 0);
    } else {
        for (uint32_t i = 0; i < count; i++) {
            if (i == 0 || e[i].key != e[i - 1].key)
                begin_group(b, i);
        }
    }
    lane->count = count;
    MN_TRY(put_groups(b, e, count, lane, of_meta));
    return put_order(b, e, count, lane);
}

/* ---- lanes ---- */

/* Room for `count` entries and for sorting them. */
static enum mn_status reserve(struct build *b, uint64_t count)
{
    if (count <= b->entries_max)
        return MN_OK;
    free(b->entries);
    free(b->scratch);
    free(b->begins);
    b->entries_max = 0;
    b->entries = malloc(count * sizeof *b->entries);
    b->scratch = malloc(count * sizeof *b->scratch);
    b->begins = malloc((count / 64 + 1) * sizeof *b->begins);
    if (!b->entries || !b->scratch || !b->begins)
        return MN_FAIL(MN_SYSTEM, "no memory to sort %llu values of meta", (unsigned long long)count);
    b->entries_max = count;
    return MN_OK;
}

/* NaN or a number out of 0..1 was never admitted: with one, there is no lane. */
static enum mn_status put_confidence(struct build *b, const float *confidence)
{
    MN_TRY(reserve(b, b->rows));
    for (uint32_t row = 0; row < b->rows; row++) {
        struct mn_meta_value value = {.type = MN_META_F32, .f64 = (double)confidence[row]};
        if (!(confidence[row] >= 0 && confidence[row] <= 1))
            return MN_OK;
        b->entries[row] = (struct entry){.key = mn_meta_piece(&value, 0), .row = row};
    }
    return put_lane(b, b->entries, b->rows, &b->lanes[b->lane_count++], false);
}

static enum mn_status list_values(struct build *b)
{
    for (uint32_t row = 0; row < b->rows; row++) {
        bool wild;
        if (mn_rowset_has(b->wild, row))
            continue;
        MN_TRY(mn_meta_paths_walk(&b->paths, row, meta_of(b, row), &wild));
        for (uint32_t i = 0; i < b->paths.found_count; i++) {
            struct values *values = &b->values[b->paths.found[i].path];
            struct mn_meta_value value;
            if (!values->entries)
                continue;
            struct entry *e = &values->entries[values->listed++];
            *e = (struct entry){.row = row, .place = b->paths.found[i].place};
            e->key = mn_meta_piece(value_of(b, e, &value), 0);
        }
    }
    return MN_OK;
}

/* Lists and writes the lanes of `count` paths. */
static enum mn_status put_load(struct build *b, const uint32_t *chosen, uint32_t count)
{
    uint64_t entries = 0;
    for (uint32_t i = 0; i < count; i++)
        entries += b->values[chosen[i]].count;
    MN_TRY(reserve(b, entries));
    entries = 0;
    for (uint32_t i = 0; i < count; entries += b->values[chosen[i++]].count)
        b->values[chosen[i]].entries = b->entries + entries;
    mn_meta_paths_again(&b->paths);
    MN_TRY(list_values(b));
    for (uint32_t i = 0; i < count; i++) {
        const struct mn_meta_path *path = &b->paths.paths[chosen[i]];
        struct values *values = &b->values[chosen[i]];
        struct mn_meta_lane *lane = &b->lanes[b->lane_count++];
        MN_ASSERT(values->listed == values->count);
        lane->name_at = path->name_at;
        lane->name_bytes = path->name_bytes;
        MN_TRY(put_lane(b, values->entries, values->count, lane, true));
        values->entries = NULL;
    }
    return MN_OK;
}

static int compare_counts(const void *a, const void *b, void *context)
{
    const struct values *values = context;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    if (values[x].count != values[y].count)
        return values[x].count > values[y].count ? -1 : 1;
    return (x > y) - (x < y);
}

/* The commonest paths within the limits. *left_out: there are others. */
static uint32_t choose(const struct build *b, uint32_t *chosen, bool *left_out)
{
    uint64_t values = 0;
    uint32_t count = 0, taken = 0;
    for (uint32_t i = 0; i < b->paths.count; i++) {
        if (b->values[i].count > 0) /* else only wild rows have it */
            chosen[count++] = i;
    }
    qsort_r(chosen, count, sizeof *chosen, compare_counts, b->values);
    for (; taken < count && taken < MN_META_INDEX_LANES; taken++) {
        values += b->values[chosen[taken]].count;
        if (values > (uint64_t)MN_META_INDEX_PER_ROW * b->rows)
            break;
    }
    *left_out = taken < count;
    return taken;
}

static enum mn_status put_lanes(struct build *b, bool *complete)
{
    uint32_t *chosen = calloc(MN_META_INDEX_FOUND_MAX, sizeof *chosen);
    enum mn_status status = MN_OK;
    bool left_out;
    if (!chosen)
        return MN_FAIL(MN_SYSTEM, "no memory to index meta");
    uint32_t count = choose(b, chosen, &left_out);
    *complete = !b->paths.left_out && !left_out;
    for (uint32_t from = 0, to; from < count; from = to) {
        uint64_t values = b->values[chosen[from]].count;
        for (to = from + 1; to < count && values + b->values[chosen[to]].count <= MN_META_INDEX_AT_ONCE; to++)
            values += b->values[chosen[to]].count;
        MN_TRY_OUT(put_load(b, chosen + from, to - from));
    }
out:
    free(chosen);
    return status;
}

/* ---- the whole ---- */

static enum mn_status put_wild(struct build *b, struct mn_meta_index_foot *foot)
{
    MN_TRY(begin_array(b, &foot->wild_at));
    for (uint32_t row = 0; row < b->rows && foot->wild < b->wild_count; row++) {
        if (mn_rowset_has(b->wild, row)) {
            MN_TRY(put(b, &row, sizeof row));
            foot->wild++;
        }
    }
    return MN_OK;
}

static int compare_lanes(const void *a, const void *b, void *context)
{
    const struct mn_meta_lane *x = a, *y = b;
    const char *names = context;
    return mn_str_compare((struct mn_str){names + x->name_at, x->name_bytes},
                          (struct mn_str){names + y->name_at, y->name_bytes});
}

static enum mn_status put_foot(struct build *b, struct mn_meta_index_foot *foot)
{
    uint64_t names_at;
    struct mn_meta_lane *named = b->lanes + foot->confidence;
    foot->lanes = b->lane_count;
    uint32_t named_count = b->lane_count - foot->confidence;
    if (named_count > 1)
        qsort_r(named, named_count, sizeof *named, compare_lanes, b->paths.names);
    MN_TRY(begin_array(b, &names_at));
    MN_TRY(put(b, b->paths.names, b->paths.names_bytes));
    for (uint32_t i = 0; i < named_count; i++)
        named[i].name_at += names_at;
    MN_TRY(begin_array(b, &foot->lanes_at));
    MN_TRY(put(b, b->lanes, b->lane_count * sizeof *b->lanes));
    MN_TRY(mn_column_sink_align(b->sink, 8));
    MN_TRY(put(b, foot, sizeof *foot));
    return mn_column_sink_end(b->sink, b->rows, 0);
}

static enum mn_status put_all(struct build *b, const float *confidence)
{
    struct mn_meta_index_foot foot = {0};
    bool complete = false;
    MN_TRY(put_confidence(b, confidence));
    foot.confidence = b->lane_count;
    MN_TRY(count_values(b));
    if (b->wild_count <= b->rows / MN_META_INDEX_WILD) {
        MN_TRY(put_lanes(b, &complete));
        MN_TRY(put_wild(b, &foot));
    }
    foot.complete = complete;
    return put_foot(b, &foot);
}

enum mn_status mn_meta_index_write(struct mn_column_sink *sink, uint32_t rows, const uint8_t *data,
                                   const uint64_t *start, const float *confidence)
{
    enum mn_status status;
    struct build *b = calloc(1, sizeof *b);
    if (!b)
        return MN_FAIL(MN_SYSTEM, "no memory to index meta");
    b->sink = sink;
    b->rows = rows;
    b->data = data;
    b->start = start;
    b->values = calloc(MN_META_INDEX_FOUND_MAX, sizeof *b->values);
    b->wild = calloc(mn_rowset_words(rows), sizeof *b->wild);
    b->mark = calloc(mn_rowset_words(rows), sizeof *b->mark);
    b->lanes = calloc(1 + MN_META_INDEX_LANES, sizeof *b->lanes);
    status = mn_meta_paths_init(&b->paths);
    if (status == MN_OK && b->values && b->wild && b->mark && b->lanes)
        status = put_all(b, confidence);
    else
        status = MN_FAIL(MN_SYSTEM, "no memory to index the meta of %u rows", rows);
    mn_meta_paths_free(&b->paths);
    free(b->values);
    free(b->wild);
    free(b->mark);
    free(b->lanes);
    free(b->entries);
    free(b->scratch);
    free(b->begins);
    free(b);
    return status;
}
