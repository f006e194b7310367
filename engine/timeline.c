/*
 * timeline.c - see timeline.h.
 */
#include "engine/timeline.h"

#include <stdlib.h>

/* Questions about one snapshot that are answered by looking through the tail; sorting it costs about as much. */
#define ASKED_MIN 4

void mn_timeline_free(struct mn_timeline *timeline)
{
    free(timeline->rows);
    *timeline = (struct mn_timeline){0};
}

/* ---- order ---- */

static const struct mn_part *part_of(const struct mn_snapshot *snapshot, struct mn_row_ref ref)
{
    return &snapshot->parts[ref.part];
}

static int compare(const void *a, const void *b, void *context)
{
    const struct mn_timeline_row *x = a, *y = b;
    const struct mn_snapshot *snapshot = context;
    if (x->space != y->space)
        return x->space < y->space ? -1 : 1;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return mn_id_compare(mn_part_id(part_of(snapshot, x->ref), x->ref.row),
                         mn_part_id(part_of(snapshot, y->ref), y->ref.row));
}

static struct mn_timeline_row row_of(const struct mn_snapshot *snapshot, struct mn_row_ref ref)
{
    const struct mn_part *p = part_of(snapshot, ref);
    uint64_t space = mn_str_hash(mn_part_string(p, mn_part_space(p, ref.row)));
    return (struct mn_timeline_row){.space = space, .at = mn_part_at(p, ref.row), .ref = ref};
}

/* ---- making it ---- */

static enum mn_status reserve(struct mn_timeline *timeline, const struct mn_snapshot *snapshot)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < snapshot->part_count; i++)
        rows += snapshot->parts[i].tail ? snapshot->parts[i].rows : 0;
    if (rows <= timeline->row_max)
        return MN_OK;
    struct mn_timeline_row *grown = NULL;
    if (rows < MN_NONE)
        grown = realloc(timeline->rows, (size_t)rows * sizeof *grown);
    if (!grown)
        return MN_FAIL(MN_INTERNAL, "out of memory for the order of %llu rows", (unsigned long long)rows);
    timeline->rows = grown;
    timeline->row_max = (uint32_t)rows;
    return MN_OK;
}

static void add_part(struct mn_timeline *timeline, const struct mn_snapshot *snapshot, uint32_t part)
{
    const struct mn_part *p = &snapshot->parts[part];
    uint32_t last = MN_NONE; /* the row before: its space is often this one's too */
    uint64_t last_hash = 0;
    for (uint32_t row = 0; row < p->rows; row++) {
        if (!mn_part_visible(p, row, snapshot->seq, snapshot->now))
            continue;
        if (last == MN_NONE || mn_part_space(p, row) != mn_part_space(p, last))
            last_hash = mn_str_hash(mn_part_string(p, mn_part_space(p, row)));
        last = row;
        timeline->rows[timeline->row_count++] =
            (struct mn_timeline_row){.space = last_hash, .at = mn_part_at(p, row), .ref = {part, row}};
    }
}

static enum mn_status make(struct mn_timeline *timeline, const struct mn_snapshot *snapshot)
{
    MN_TRY(reserve(timeline, snapshot));
    timeline->row_count = 0;
    for (uint32_t i = 0; i < snapshot->part_count; i++) {
        if (snapshot->parts[i].tail)
            add_part(timeline, snapshot, i);
    }
    struct mn_snapshot of = *snapshot;
    if (timeline->row_count > 1)
        qsort_r(timeline->rows, timeline->row_count, sizeof *timeline->rows, compare, &of);
    timeline->made = true;
    return MN_OK;
}

enum mn_status mn_timeline_ask(struct mn_timeline *timeline, const struct mn_snapshot *snapshot, bool *made)
{
    if (timeline->gen != snapshot->gen || timeline->seq != snapshot->seq || timeline->now != snapshot->now) {
        timeline->gen = snapshot->gen;
        timeline->seq = snapshot->seq;
        timeline->now = snapshot->now;
        timeline->asked = 0;
        timeline->made = false;
    }
    if (!timeline->made && ++timeline->asked > ASKED_MIN)
        MN_TRY(make(timeline, snapshot));
    *made = timeline->made;
    return MN_OK;
}

/* ---- asking ---- */

/* The first place that is not before `row`. */
static uint32_t place_of(const struct mn_timeline *timeline, const struct mn_snapshot *snapshot,
                         const struct mn_timeline_row *row)
{
    struct mn_snapshot of = *snapshot;
    uint32_t low = 0, high = timeline->row_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (compare(&timeline->rows[middle], row, &of) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool same_space(const struct mn_snapshot *snapshot, struct mn_row_ref a, struct mn_row_ref b)
{
    return mn_part_compare_spaces(part_of(snapshot, a), a.row, part_of(snapshot, b), b.row) == 0;
}

static bool same_row(struct mn_row_ref a, struct mn_row_ref b)
{
    return a.part == b.part && a.row == b.row;
}

uint32_t mn_timeline_before(const struct mn_timeline *timeline, const struct mn_snapshot *snapshot,
                            struct mn_row_ref row, uint32_t n, struct mn_row_ref *found)
{
    struct mn_timeline_row key = row_of(snapshot, row);
    uint32_t count = 0;
    for (uint32_t i = place_of(timeline, snapshot, &key); count < n && i > 0; i--) {
        const struct mn_timeline_row *other = &timeline->rows[i - 1];
        if (other->space != key.space)
            break;
        if (same_space(snapshot, other->ref, row))
            found[count++] = other->ref;
    }
    return count;
}

uint32_t mn_timeline_after(const struct mn_timeline *timeline, const struct mn_snapshot *snapshot,
                           struct mn_row_ref row, uint32_t n, struct mn_row_ref *found)
{
    struct mn_timeline_row key = row_of(snapshot, row);
    uint32_t count = 0;
    for (uint32_t i = place_of(timeline, snapshot, &key); count < n && i < timeline->row_count; i++) {
        const struct mn_timeline_row *other = &timeline->rows[i];
        if (other->space != key.space)
            break;
        if (!same_row(other->ref, row) && same_space(snapshot, other->ref, row))
            found[count++] = other->ref;
    }
    return count;
}
