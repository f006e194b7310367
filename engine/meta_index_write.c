/*
 * meta_index_write.c - making metaindex.col (meta_index.h) from the meta of a segment that was just written.
 *
 * First a walk that counts the values of each path and finds the wild rows; then the commonest paths are taken, as many
 * at a time as are sorted at once: a walk lists their values, each lane is sorted by its first pieces, what these do
 * not tell apart is sorted by the next, and so on.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/columns_file.h"
#include "engine/meta_index.h"
#include "engine/rowset.h"

#define NO_LOAD    UINT32_MAX
#define CLASS_BIT  29 /* of an entry's place: class above, offset in the row's meta below */
#define SORT_SMALL 48 /* fewer entries are sorted by insertion */

/* A value of a lane in the making. */
struct entry {
    uint64_t key; /* piece at the depth being sorted */
    uint32_t row;
    uint32_t place; /* class and offset of the value */
};

struct path {
    uint64_t hash;
    uint64_t name_at; /* in names */
    uint32_t name_bytes;
    uint32_t count;
    uint32_t last_row;     /* + 1; 0: none yet */
    uint32_t listed;       /* entries so far */
    struct entry *entries; /* NULL: not of this load */
};

struct found {
    uint32_t path, place;
};

struct build {
    struct mn_column_sink *sink;
    uint32_t rows;
    const uint8_t *data;
    const uint64_t *start;
    struct path *paths; /* [MN_META_INDEX_FOUND_MAX] */
    uint32_t path_count;
    uint32_t *slots; /* hash table: path + 1 */
    char *names;
    uint64_t names_bytes, names_max;
    bool all_found; /* no path was left out of `paths` */
    uint64_t *wild; /* a set */
    uint32_t wild_count;
    struct mn_meta_lane *lanes; /* [1 + MN_META_INDEX_LANES] */
    uint32_t lane_count;
    struct entry *entries, *scratch;
    uint64_t entries_max;
    uint64_t *begins; /* entry i begins a group; [entries_max / 64 + 1] */
    uint64_t *mark;   /* a set of rows */

    /* the row being walked */
    uint32_t row;
    char name[MN_META_INDEX_NAME_MAX + 1];
    struct found found[MN_META_INDEX_VALUES];
    uint32_t found_count, value_count;
    const char *meta;
};

#define SLOTS (4 * MN_META_INDEX_FOUND_MAX)

/* ---- the paths of a row ---- */

static struct mn_str name_of(const struct build *b, const struct path *path)
{
    return (struct mn_str){b->names + path->name_at, path->name_bytes};
}

static enum mn_status add_path(struct build *b, struct mn_str name, uint64_t hash, uint32_t slot)
{
    if (b->names_bytes + name.length > b->names_max) {
        uint64_t max = 2 * b->names_max + 4096;
        char *names = realloc(b->names, max);
        if (!names)
            return MN_FAIL(MN_SYSTEM, "no memory for the names of %u paths of meta", b->path_count);
        b->names = names;
        b->names_max = max;
    }
    struct path *path = &b->paths[b->path_count];
    *path = (struct path){.hash = hash, .name_at = b->names_bytes, .name_bytes = name.length};
    if (name.length > 0)
        memcpy(b->names + b->names_bytes, name.data, name.length);
    b->names_bytes += name.length;
    b->slots[slot] = ++b->path_count;
    return MN_OK;
}

/* The path's number, or MN_NONE when it is one too many. A path seen for the first time is added. */
static enum mn_status find_path(struct build *b, struct mn_str name, uint32_t *number)
{
    uint64_t hash = mn_str_hash(name);
    uint32_t slot = (uint32_t)hash % SLOTS;
    for (; b->slots[slot]; slot = (slot + 1) % SLOTS) {
        struct path *path = &b->paths[b->slots[slot] - 1];
        if (path->hash == hash && mn_str_equal(name_of(b, path), name)) {
            *number = b->slots[slot] - 1;
            return MN_OK;
        }
    }
    *number = MN_NONE;
    if (b->path_count == MN_META_INDEX_FOUND_MAX) {
        b->all_found = false;
        return MN_OK;
    }
    MN_TRY(add_path(b, name, hash, slot));
    *number = b->path_count - 1;
    return MN_OK;
}

/* Notes the value of b->name[0 .. length). *wild: the row cannot be indexed. */
static enum mn_status note(struct build *b, uint32_t length, const struct mn_meta_value *value, const char *at,
                           bool *wild)
{
    uint32_t number;
    uint64_t offset = (uint64_t)(at - b->meta);
    if (++b->value_count > MN_META_INDEX_VALUES || offset >> CLASS_BIT != 0) {
        *wild = true;
        return MN_OK;
    }
    MN_TRY(find_path(b, (struct mn_str){b->name, length}, &number));
    if (number == MN_NONE)
        return MN_OK;
    struct path *path = &b->paths[number];
    if (path->last_row == b->row + 1) {
        *wild = true; /* named twice: which one counts is for mn_meta_find to say */
        return MN_OK;
    }
    path->last_row = b->row + 1;
    b->found[b->found_count++] =
        (struct found){number, (uint32_t)mn_meta_class_of(value) << CLASS_BIT | (uint32_t)offset};
    return MN_OK;
}

/* The members of a map whose own name takes `prefix` bytes, its dot included. */
static enum mn_status walk_map(struct build *b, const struct mn_meta_value *map, uint32_t prefix, uint32_t depth,
                               bool *wild)
{
    struct mn_str in = map->s, key;
    *wild = *wild || depth > MN_META_DEPTH_MAX;
    for (uint32_t i = 0; i < map->count && !*wild; i++) {
        struct mn_meta_value value;
        if (!mn_meta_next_key(&in, &key) || key.length > UINT32_MAX - MN_META_INDEX_NAME_MAX) {
            *wild = true;
            break;
        }
        const char *at = in.data;
        uint32_t length = prefix + key.length;
        if (!mn_meta_next(&in, &value)) {
            *wild = true;
            break;
        }
        if (value.type == MN_META_ARRAY || value.type == MN_META_MAP) {
            in.data += value.s.length;
            in.length -= value.s.length;
        }
        if (length > MN_META_INDEX_NAME_MAX)
            continue; /* and what lies in it has longer ones */
        if (key.length > 0)
            memcpy(b->name + prefix, key.data, key.length);
        MN_TRY(note(b, length, &value, at, wild));
        bool dotted = key.length > 0 && memchr(key.data, '.', key.length);
        if (value.type == MN_META_MAP && !dotted && length < MN_META_INDEX_NAME_MAX && !*wild) {
            b->name[length] = '.';
            MN_TRY(walk_map(b, &value, length + 1, depth + 1, wild));
        }
    }
    return MN_OK;
}

/* Finds the values of a row: b->found. */
static enum mn_status walk_row(struct build *b, uint32_t row, bool *wild)
{
    struct mn_meta_value value;
    struct mn_str meta = {(const char *)b->data + b->start[row], (uint32_t)(b->start[row + 1] - b->start[row])};
    b->row = row;
    b->meta = meta.data;
    b->found_count = b->value_count = 0;
    *wild = false;
    if (meta.length == 0)
        return MN_OK;
    *wild = !mn_meta_next(&meta, &value);
    if (*wild || value.type != MN_META_MAP)
        return MN_OK;
    return walk_map(b, &value, 0, 1, wild);
}

/* Counts the values of each path; marks the wild rows. */
static enum mn_status count_values(struct build *b)
{
    for (uint32_t row = 0; row < b->rows; row++) {
        bool wild;
        MN_TRY(walk_row(b, row, &wild));
        if (wild) {
            b->wild[row / 64] |= UINT64_C(1) << (row % 64);
            b->wild_count++;
        }
        for (uint32_t i = 0; i < b->found_count && !wild; i++)
            b->paths[b->found[i].path].count++;
    }
    return MN_OK;
}

/* ---- sorting ---- */

static const struct mn_meta_value *value_of(const struct build *b, const struct entry *e, struct mn_meta_value *value)
{
    uint64_t begin = b->start[e->row] + (e->place & ((1u << CLASS_BIT) - 1));
    struct mn_str bytes = {(const char *)b->data + begin, (uint32_t)(b->start[e->row + 1] - begin)};
    bool ok = mn_meta_next(&bytes, value);
    MN_ASSERT(ok); /* the walk has read it */
    return value;
}

static enum mn_meta_class class_of(const struct entry *e)
{
    return (enum mn_meta_class)(e->place >> CLASS_BIT);
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
        MN_TRY(walk_row(b, row, &wild));
        for (uint32_t i = 0; i < b->found_count; i++) {
            struct path *path = &b->paths[b->found[i].path];
            struct mn_meta_value value;
            if (!path->entries)
                continue;
            struct entry *e = &path->entries[path->listed++];
            *e = (struct entry){.row = row, .place = b->found[i].place};
            e->key = mn_meta_piece(value_of(b, e, &value), 0);
        }
    }
    return MN_OK;
}

/* Lists and writes paths [from, to). */
static enum mn_status put_load(struct build *b, struct path *const *chosen, uint32_t from, uint32_t to)
{
    uint64_t count = 0;
    for (uint32_t i = from; i < to; i++)
        count += chosen[i]->count;
    MN_TRY(reserve(b, count));
    count = 0;
    for (uint32_t i = from; i < to; count += chosen[i++]->count)
        chosen[i]->entries = b->entries + count;
    for (uint32_t i = 0; i < b->path_count; i++)
        b->paths[i].last_row = 0;
    MN_TRY(list_values(b));
    for (uint32_t i = from; i < to; i++) {
        struct mn_meta_lane *lane = &b->lanes[b->lane_count++];
        MN_ASSERT(chosen[i]->listed == chosen[i]->count);
        lane->name_at = chosen[i]->name_at;
        lane->name_bytes = chosen[i]->name_bytes;
        MN_TRY(put_lane(b, chosen[i]->entries, chosen[i]->count, lane, true));
        chosen[i]->entries = NULL;
    }
    return MN_OK;
}

static int compare_counts(const void *a, const void *b)
{
    const struct path *x = *(struct path *const *)a, *y = *(struct path *const *)b;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return (x->name_at > y->name_at) - (x->name_at < y->name_at);
}

/* The commonest paths within the limits. *left_out: there are others. */
static uint32_t choose(struct build *b, struct path **chosen, bool *left_out)
{
    uint64_t values = 0;
    uint32_t count = 0, taken = 0;
    for (uint32_t i = 0; i < b->path_count; i++) {
        if (b->paths[i].count > 0) /* else only wild rows have it */
            chosen[count++] = &b->paths[i];
    }
    qsort(chosen, count, sizeof *chosen, compare_counts);
    for (; taken < count && taken < MN_META_INDEX_LANES; taken++) {
        values += chosen[taken]->count;
        if (values > (uint64_t)MN_META_INDEX_PER_ROW * b->rows)
            break;
    }
    *left_out = taken < count;
    return taken;
}

static enum mn_status put_lanes(struct build *b, bool *complete)
{
    struct path **chosen = calloc(MN_META_INDEX_FOUND_MAX, sizeof *chosen);
    enum mn_status status = MN_OK;
    bool left_out;
    if (!chosen)
        return MN_FAIL(MN_SYSTEM, "no memory to index meta");
    uint32_t count = choose(b, chosen, &left_out);
    *complete = b->all_found && !left_out;
    for (uint32_t from = 0, to; from < count; from = to) {
        uint64_t values = chosen[from]->count;
        for (to = from + 1; to < count && values + chosen[to]->count <= MN_META_INDEX_AT_ONCE; to++)
            values += chosen[to]->count;
        MN_TRY_OUT(put_load(b, chosen, from, to));
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
        qsort_r(named, named_count, sizeof *named, compare_lanes, b->names);
    MN_TRY(begin_array(b, &names_at));
    MN_TRY(put(b, b->names, b->names_bytes));
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
    b->all_found = true;
    b->paths = calloc(MN_META_INDEX_FOUND_MAX, sizeof *b->paths);
    b->slots = calloc(SLOTS, sizeof *b->slots);
    b->wild = calloc(mn_rowset_words(rows), sizeof *b->wild);
    b->mark = calloc(mn_rowset_words(rows), sizeof *b->mark);
    b->lanes = calloc(1 + MN_META_INDEX_LANES, sizeof *b->lanes);
    if (b->paths && b->slots && b->wild && b->mark && b->lanes)
        status = put_all(b, confidence);
    else
        status = MN_FAIL(MN_SYSTEM, "no memory to index the meta of %u rows", rows);
    free(b->paths);
    free(b->slots);
    free(b->names);
    free(b->wild);
    free(b->mark);
    free(b->lanes);
    free(b->entries);
    free(b->scratch);
    free(b->begins);
    free(b);
    return status;
}
