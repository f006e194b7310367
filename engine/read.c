/*
 * read.c - find, list, count, context, spaces.
 *
 * A list keeps the first `limit` rows of its order in a heap with the last one on top. Column segments are walked in
 * the order of the list from the cursor on and left as soon as they cannot better the heap; tail chunks lie in the
 * order of arrival and are looked through, most rows falling to one comparison of `at`.
 */
#include "engine/read.h"

#include <stdlib.h>

#define RUN 64 /* rows matched at a time */

void mn_reading_free(struct mn_reading *reading)
{
    free(reading->rows);
    mn_matcher_free(&reading->matcher);
    mn_timeline_free(&reading->timeline);
    *reading = (struct mn_reading){0};
}

static enum mn_status reserve(struct mn_reading *reading, uint32_t rows)
{
    if (rows <= reading->row_max)
        return MN_OK;
    struct mn_row_ref *grown = realloc(reading->rows, rows * sizeof *grown);
    if (!grown)
        return MN_FAIL(MN_INTERNAL, "out of memory for a list of %u rows", rows);
    reading->rows = grown;
    reading->row_max = rows;
    return MN_OK;
}

/* ---- find ---- */

struct mn_row_ref mn_read_find(const struct mn_snapshot *snapshot, struct mn_str space, const struct mn_id *id)
{
    struct mn_part_find find = {.hash = mn_id_hash(mn_str_hash(space), id), .id = *id};
    for (uint32_t i = 0; i < snapshot->part_count; i++) {
        const struct mn_part *p = &snapshot->parts[i];
        find.space = mn_part_lookup(p, space);
        if (find.space == MN_NONE)
            continue;
        for (uint32_t row = mn_part_find_first(p, &find); row != MN_NONE; row = mn_part_find_next(p, &find)) {
            if (mn_part_visible(p, row, snapshot->seq, snapshot->now))
                return (struct mn_row_ref){i, row};
        }
    }
    return (struct mn_row_ref){MN_NONE, MN_NONE};
}

/* ---- order ---- */

void mn_cursor_at(struct mn_cursor *cursor, const struct mn_snapshot *snapshot, struct mn_row_ref ref)
{
    const struct mn_part *p = &snapshot->parts[ref.part];
    struct mn_str space = mn_part_string(p, mn_part_space(p, ref.row));
    *cursor = (struct mn_cursor){.set = true, .at = mn_part_at(p, ref.row), .id = *mn_part_id(p, ref.row)};
    cursor->space_length = space.length < sizeof cursor->space ? space.length : (uint32_t)sizeof cursor->space;
    if (cursor->space_length > 0)
        memcpy(cursor->space, space.data, cursor->space_length);
}

/* Order of a row's (at, id) and another: <0, 0, >0. */
static int compare_key(const struct mn_part *p, uint32_t row, int64_t at, const struct mn_id *id)
{
    int64_t row_at = mn_part_at(p, row);
    if (row_at != at)
        return row_at < at ? -1 : 1;
    return mn_id_compare(mn_part_id(p, row), id);
}

static int compare_rows(const struct mn_part *a, uint32_t row_a, const struct mn_part *b, uint32_t row_b)
{
    int order = compare_key(a, row_a, mn_part_at(b, row_b), mn_part_id(b, row_b));
    return order != 0 ? order : mn_part_compare_spaces(a, row_a, b, row_b);
}

static int compare_cursor(const struct mn_part *p, uint32_t row, const struct mn_cursor *cursor)
{
    int order = compare_key(p, row, cursor->at, &cursor->id);
    if (order != 0)
        return order;
    return mn_str_compare(mn_part_string(p, mn_part_space(p, row)),
                          (struct mn_str){cursor->space, cursor->space_length});
}

/* The first row of a column segment whose (at, id) is not before (above: is after) the cursor's. */
static uint32_t bound(const struct mn_part *p, const struct mn_cursor *cursor, bool above)
{
    uint32_t low = 0, high = p->rows;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare_key(p, middle, cursor->at, &cursor->id);
        if (order < 0 || (above && order == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---- the first rows of an order ---- */

struct gather {
    struct mn_reading *reading;
    const struct mn_snapshot *snapshot;
    const struct mn_cursor *cursor;
    struct mn_row_ref *heap; /* in reading->rows; the last in order on top */
    uint32_t count, limit;
    bool newest_first;
    bool columns_only; /* what the tail chunks hold is offered by other means */
};

/* <0: a comes before b in the order asked. */
static int order_of(const struct gather *g, struct mn_row_ref a, struct mn_row_ref b)
{
    const struct mn_part *parts = g->snapshot->parts;
    int order = compare_rows(&parts[a.part], a.row, &parts[b.part], b.row);
    return g->newest_first ? -order : order;
}

static void sift_down(struct gather *g, uint32_t count, uint32_t i, struct mn_row_ref ref)
{
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= count)
            break;
        if (child + 1 < count && order_of(g, g->heap[child + 1], g->heap[child]) > 0)
            child++;
        if (order_of(g, g->heap[child], ref) <= 0)
            break;
        g->heap[i] = g->heap[child];
        i = child;
    }
    g->heap[i] = ref;
}

static void sift_up(struct gather *g, uint32_t i, struct mn_row_ref ref)
{
    while (i > 0 && order_of(g, ref, g->heap[(i - 1) / 2]) > 0) {
        g->heap[i] = g->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    g->heap[i] = ref;
}

/* The heap becomes a list in the order asked. */
static void sort_rows(struct gather *g)
{
    for (uint32_t count = g->count; count > 1; count--) {
        struct mn_row_ref last = g->heap[0];
        sift_down(g, count - 1, 0, g->heap[count - 1]);
        g->heap[count - 1] = last;
    }
}

/* Times that cannot enter the full heap any more are no longer asked for. */
static void narrow_to_heap(struct gather *g)
{
    struct mn_matcher *m = &g->reading->matcher;
    if (g->count < g->limit)
        return;
    int64_t last = mn_part_at(&g->snapshot->parts[g->heap[0].part], g->heap[0].row);
    if (g->newest_first)
        m->from = last > m->from ? last : m->from;
    else
        m->until = last < m->until ? last : m->until;
}

/* False when neither this row nor one behind it in (at, id) can enter. */
static bool offer(struct gather *g, struct mn_row_ref ref)
{
    const struct mn_part *parts = g->snapshot->parts;
    if (g->count < g->limit) {
        sift_up(g, g->count++, ref);
    } else if (order_of(g, ref, g->heap[0]) < 0) {
        sift_down(g, g->count, 0, ref);
    } else {
        const struct mn_part *p = &parts[g->heap[0].part];
        int order =
            compare_key(&parts[ref.part], ref.row, mn_part_at(p, g->heap[0].row), mn_part_id(p, g->heap[0].row));
        return order == 0; /* a row of the same key in another space may still enter */
    }
    narrow_to_heap(g);
    return true;
}

static bool behind_cursor(const struct gather *g, const struct mn_part *p, uint32_t row)
{
    if (!g->cursor || !g->cursor->set)
        return true;
    int order = compare_cursor(p, row, g->cursor);
    return g->newest_first ? order < 0 : order > 0;
}

static void gather_part(struct gather *g, uint32_t index)
{
    const struct mn_part *p = &g->snapshot->parts[index];
    struct mn_matcher *m = &g->reading->matcher;
    uint32_t first = 0, end = p->rows, rows[RUN], count;
    if (!p->tail && g->cursor && g->cursor->set) {
        if (g->newest_first)
            end = bound(p, g->cursor, true);
        else
            first = bound(p, g->cursor, false);
    }
    if (!mn_matcher_part(m, p, first, end))
        return;
    while ((count = mn_matcher_next(m, g->snapshot->seq, g->snapshot->now, rows, RUN)) > 0) {
        for (uint32_t i = 0; i < count; i++) {
            if (behind_cursor(g, p, rows[i]) && !offer(g, (struct mn_row_ref){index, rows[i]}) && m->sorted)
                return;
        }
    }
}

/* An empty heap at reading->rows[from...], and a matcher that leaves out what lies before the cursor. */
static enum mn_status begin_gather(struct gather *g, const struct mn_scope *scope, uint32_t from)
{
    struct mn_matcher *m = &g->reading->matcher;
    MN_TRY(reserve(g->reading, from + g->limit));
    MN_TRY(mn_matcher_begin(m, scope));
    m->backwards = g->newest_first;
    if (g->cursor && g->cursor->set) {
        if (g->newest_first)
            m->until = g->cursor->at < m->until ? g->cursor->at : m->until;
        else
            m->from = g->cursor->at > m->from ? g->cursor->at : m->from;
    }
    g->heap = g->reading->rows + from;
    g->count = 0;
    return MN_OK;
}

/* The first `limit` rows behind the cursor, in order. The newest parts are at the front of a snapshot: going through
 * them in the list's order fills the heap with rows that stay. */
static void gather_parts(struct gather *g)
{
    uint32_t parts = g->snapshot->part_count;
    for (uint32_t i = 0; g->limit > 0 && i < parts; i++) {
        uint32_t part = g->newest_first ? i : parts - 1 - i;
        if (!g->columns_only || !g->snapshot->parts[part].tail)
            gather_part(g, part);
    }
    sort_rows(g);
}

enum mn_status mn_read_list(struct mn_reading *reading, const struct mn_snapshot *snapshot,
                            const struct mn_scope *scope, bool newest_first, const struct mn_cursor *cursor,
                            uint32_t limit, bool *more)
{
    struct gather g = {.reading = reading,
                       .snapshot = snapshot,
                       .cursor = cursor,
                       .limit = limit + 1, /* one too many tells that others follow */
                       .newest_first = newest_first};
    reading->row_count = 0;
    MN_TRY(begin_gather(&g, scope, 0));
    gather_parts(&g);
    *more = g.count > limit;
    reading->row_count = *more ? limit : g.count;
    return MN_OK;
}

/* ---- context ---- */

static void reverse(struct mn_row_ref *rows, uint32_t count)
{
    for (uint32_t i = 0; i < count / 2; i++) {
        struct mn_row_ref other = rows[i];
        rows[i] = rows[count - 1 - i];
        rows[count - 1 - i] = other;
    }
}

/* The rows on one side of `row` in its space, nearest first, at reading->rows[from...]. */
static enum mn_status gather_side(struct gather *g, const struct mn_scope *scope, struct mn_row_ref row, uint32_t from)
{
    const struct mn_timeline *timeline = &g->reading->timeline;
    MN_TRY(begin_gather(g, scope, from));
    if (g->columns_only) {
        struct mn_row_ref *near = g->heap + g->limit;
        uint32_t n = g->newest_first ? mn_timeline_before(timeline, g->snapshot, row, g->limit, near)
                                     : mn_timeline_after(timeline, g->snapshot, row, g->limit, near);
        for (uint32_t i = 0; i < n; i++)
            offer(g, near[i]);
    }
    gather_parts(g);
    return MN_OK;
}

enum mn_status mn_read_context(struct mn_reading *reading, const struct mn_snapshot *snapshot, struct mn_row_ref row,
                               uint32_t n, uint32_t *before_count, uint32_t *after_count)
{
    struct mn_cursor cursor;
    mn_cursor_at(&cursor, snapshot, row);
    struct mn_str space = {cursor.space, cursor.space_length};
    struct mn_scope scope = {.spaces = &space, .space_count = 1, .after = INT64_MIN};
    struct gather g = {.reading = reading, .snapshot = snapshot, .cursor = &cursor, .limit = n, .newest_first = true};
    reading->row_count = 0;
    MN_TRY(mn_timeline_ask(&reading->timeline, snapshot, &g.columns_only));
    MN_TRY(reserve(reading, 3 * n)); /* both sides, and behind them what the timeline finds */
    MN_TRY(gather_side(&g, &scope, row, 0));
    reverse(g.heap, g.count);
    *before_count = g.count;
    g.newest_first = false;
    MN_TRY(gather_side(&g, &scope, row, *before_count));
    *after_count = g.count;
    reading->row_count = *before_count + *after_count;
    return MN_OK;
}

/* ---- count ---- */

enum mn_status mn_read_count(struct mn_reading *reading, const struct mn_snapshot *snapshot,
                             const struct mn_scope *scope, uint64_t *count)
{
    uint32_t rows[RUN], n;
    *count = 0;
    MN_TRY(mn_matcher_begin(&reading->matcher, scope));
    for (uint32_t i = 0; i < snapshot->part_count; i++) {
        const struct mn_part *p = &snapshot->parts[i];
        if (!mn_matcher_part(&reading->matcher, p, 0, p->rows))
            continue;
        while ((n = mn_matcher_next(&reading->matcher, snapshot->seq, snapshot->now, rows, RUN)) > 0)
            *count += n;
    }
    return MN_OK;
}

/* ---- spaces ---- */

struct space_count {
    struct mn_str name;
    uint64_t hash, count;
};

/* Names seen so far: open addressing, room for twice as many at least. */
struct tally {
    struct space_count *slots;
    uint32_t slot_count, used;
};

static struct space_count *slot_of(const struct tally *tally, struct mn_str name, uint64_t hash)
{
    uint32_t i = (uint32_t)hash & (tally->slot_count - 1);
    while (tally->slots[i].count > 0 && !(tally->slots[i].hash == hash && mn_str_equal(tally->slots[i].name, name)))
        i = (i + 1) & (tally->slot_count - 1);
    return &tally->slots[i];
}

static enum mn_status grow_tally(struct tally *tally)
{
    struct tally grown = {.slot_count = tally->slot_count > 0 ? tally->slot_count * 2 : 64, .used = tally->used};
    grown.slots = calloc(grown.slot_count, sizeof *grown.slots);
    if (!grown.slots)
        return MN_FAIL(MN_INTERNAL, "out of memory for the names of %u spaces", grown.slot_count);
    for (uint32_t i = 0; i < tally->slot_count; i++) {
        if (tally->slots[i].count > 0)
            *slot_of(&grown, tally->slots[i].name, tally->slots[i].hash) = tally->slots[i];
    }
    free(tally->slots);
    *tally = grown;
    return MN_OK;
}

static enum mn_status add_to_tally(struct tally *tally, struct mn_str name, uint64_t count)
{
    if (count == 0)
        return MN_OK;
    if (tally->used >= tally->slot_count / 2)
        MN_TRY(grow_tally(tally));
    uint64_t hash = mn_str_hash(name);
    struct space_count *slot = slot_of(tally, name, hash);
    if (slot->count == 0) {
        *slot = (struct space_count){.name = name, .hash = hash};
        tally->used++;
    }
    slot->count += count;
    return MN_OK;
}

/* Rows of one space often come together (few spaces, or one agent writing): a few numbers are remembered with their
 * counts, so that a name is hashed rarely. */
static enum mn_status tally_part(struct tally *tally, const struct mn_snapshot *snapshot, const struct mn_part *p)
{
    struct {
        uint32_t number;
        uint64_t count;
    } recent[256] = {{0, 0}};
    for (uint32_t row = 0; row < p->rows; row++) {
        if (!mn_part_visible(p, row, snapshot->seq, snapshot->now))
            continue;
        uint32_t number = mn_part_space(p, row), i = number % MN_ARRAY_LEN(recent);
        if (recent[i].number != number) {
            MN_TRY(add_to_tally(tally, mn_part_string(p, recent[i].number), recent[i].count));
            recent[i].number = number;
            recent[i].count = 0;
        }
        recent[i].count++;
    }
    for (uint32_t i = 0; i < MN_ARRAY_LEN(recent); i++)
        MN_TRY(add_to_tally(tally, mn_part_string(p, recent[i].number), recent[i].count));
    return MN_OK;
}

static int compare_names(const void *a, const void *b)
{
    const struct space_count *x = a, *y = b;
    return mn_str_compare(x->name, y->name);
}

/* The used slots to the front, sorted by name. */
static void sort_tally(struct tally *tally)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < tally->slot_count; i++) {
        if (tally->slots[i].count > 0)
            tally->slots[n++] = tally->slots[i];
    }
    if (n > 1)
        qsort(tally->slots, n, sizeof *tally->slots, compare_names);
}

enum mn_status mn_read_spaces(const struct mn_snapshot *snapshot,
                              enum mn_status (*visit)(void *context, struct mn_str space, uint64_t count),
                              void *context)
{
    enum mn_status status = MN_OK;
    struct tally tally = {0};
    for (uint32_t i = 0; i < snapshot->part_count; i++)
        MN_TRY_OUT(tally_part(&tally, snapshot, &snapshot->parts[i]));
    sort_tally(&tally);
    for (uint32_t i = 0; i < tally.used; i++)
        MN_TRY_OUT(visit(context, tally.slots[i].name, tally.slots[i].count));
out:
    free(tally.slots);
    return status;
}
