/*
 * compact_build.c - a build from plan to proposal: which parts go in, which rows come out, what must be durable besides
 * them.
 *
 * Everything is read from one pinned snapshot. Marks that the writer makes meanwhile are in the inputs' liveness; the
 * row maps carry them over when the writer commits, so it does not matter which of them the build has seen.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/compact_inside.h"
#include "shm/process.h"

#define BREATH_ROWS 4096u

enum mn_status mn_compact_breathe(struct mn_compact_build *b)
{
    if (++b->rows_seen < BREATH_ROWS)
        return MN_OK;
    b->rows_seen = 0;
    if (b->pause && b->pause(b->context))
        return MN_FAIL(MN_DEADLINE, "the compaction was told to stop");
    return MN_OK;
}

void mn_compact_proposal_free(struct mn_compact_proposal *proposal)
{
    mn_manifest_free(&proposal->next);
    free(proposal->outputs);
    for (uint32_t m = 0; m < proposal->map_count; m++)
        free(proposal->maps[m].to);
    free(proposal->maps);
    *proposal = (struct mn_compact_proposal){0};
}

/* ---- inputs ---- */

static const struct mn_manifest_segment *manifest_segment(const struct mn_compact_build *b, uint64_t id)
{
    for (uint32_t s = 0; s < b->manifest.segment_count; s++)
        if (b->manifest.segments[s].id == id)
            return &b->manifest.segments[s];
    return NULL;
}

static bool is_input(const struct mn_compact_build *b, const struct mn_part *part)
{
    for (uint32_t i = 0; i < b->input_count; i++)
        if (b->inputs[i].part == part)
            return true;
    return false;
}

static enum mn_status add_input(struct mn_compact_build *b, const struct mn_part *part, bool forced)
{
    struct mn_compact_input *input = &b->inputs[b->input_count];
    *input = (struct mn_compact_input){.part = part, .forced = forced};
    input->to = calloc(part->rows + 1u, sizeof *input->to);
    if (!input->to)
        return MN_FAIL(MN_SYSTEM, "no memory for a map of %u rows", part->rows);
    b->input_count++;
    if (!part->tail) {
        input->bytes = manifest_segment(b, part->number)->bytes;
        return MN_OK;
    }
    input->bytes = part->wal_bytes;
    return mn_wal_map(&input->wal, &b->compactor->store, part->number);
}

/* The log segments below plan->wal_end, oldest first. All must be sealed; they are a prefix, so nothing older stays
 * behind. */
static enum mn_status add_log(struct mn_compact_build *b, const struct mn_compact_plan *plan)
{
    for (uint32_t i = b->snapshot.part_count; i-- > 0;) {
        const struct mn_part *part = &b->snapshot.parts[i];
        if (!part->tail || part->number >= plan->wal_end)
            continue;
        if (!mn_compact_sealed(part))
            return MN_FAIL(MN_BUSY, "log segment %llu is not sealed: plan again", (unsigned long long)part->number);
        MN_TRY(add_input(b, part, false));
        MN_TRY(mn_compact_purges_collect(&b->purges, &b->compactor->store, part->number));
    }
    b->wal_end = plan->wal_end;
    return MN_OK;
}

static enum mn_status add_segments(struct mn_compact_build *b, const struct mn_compact_plan *plan)
{
    for (uint32_t s = 0; s < plan->segment_count; s++) {
        const struct mn_part *part = mn_compact_part(&b->snapshot, false, plan->segments[s]);
        if (!part || !manifest_segment(b, plan->segments[s]))
            return MN_FAIL(MN_BUSY, "column segment %llu is gone: plan again", (unsigned long long)plan->segments[s]);
        if (!is_input(b, part))
            MN_TRY(add_input(b, part, false));
    }
    return MN_OK;
}

/* The segment that cannot be searched for what was purged, nor marked for what was forgotten; 0: all can. */
static uint64_t unopened(const struct mn_compact_build *b)
{
    for (uint32_t s = 0; s < b->manifest.segment_count; s++)
        if (!mn_compact_part(&b->snapshot, false, b->manifest.segments[s].id))
            return b->manifest.segments[s].id;
    return 0;
}

static enum mn_status open_ledger(struct mn_compact_build *b)
{
    if (b->wal_end == b->manifest.wal_first)
        return MN_OK;
    MN_TRY(mn_ledger_new(&b->ledger));
    if (b->manifest.ledger_seq != 0)
        MN_TRY(mn_ledger_load(b->ledger, &b->compactor->store, b->manifest.ledger_seq));
    return unopened(b) == 0 ? mn_compact_purges_recall(&b->purges, b->ledger) : MN_OK;
}

/* Whatever holds a purged version is rewritten, planned or not. */
static enum mn_status add_purged(struct mn_compact_build *b)
{
    if (b->purges.count == 0)
        return MN_OK;
    for (uint32_t i = 0; i < b->snapshot.part_count; i++) {
        const struct mn_part *part = &b->snapshot.parts[i];
        if (!part->tail && !is_input(b, part) && mn_compact_purges_mark(&b->purges, part, NULL) > 0)
            MN_TRY(add_input(b, part, true));
    }
    for (uint32_t i = 0; i < b->input_count; i++)
        if (mn_compact_purges_mark(&b->purges, b->inputs[i].part, b->inputs[i].to) > 0)
            b->inputs[i].forced = true;
    return MN_OK;
}

static enum mn_status choose_inputs(struct mn_compact_build *b, const struct mn_compact_plan *plan)
{
    b->inputs = calloc(b->snapshot.part_count + 1u, sizeof *b->inputs);
    if (!b->inputs)
        return MN_FAIL(MN_SYSTEM, "no memory for a compaction");
    if (plan->wal_end < b->manifest.wal_first)
        return MN_FAIL(MN_BUSY, "the log has moved on: plan again");
    MN_TRY(add_log(b, plan));
    MN_TRY(add_segments(b, plan));
    MN_TRY(open_ledger(b));
    return add_purged(b);
}

/* ---- rows ---- */

/* A segment that a purge forces out may be damaged: what cannot be read cannot be kept. */
static bool readable(const struct mn_part *part, uint32_t row)
{
    struct mn_str bytes;
    bool bin;
    return mn_part_vector(part, row) && mn_part_meta(part, row, &bytes) == MN_OK &&
           mn_part_content(part, row, &bytes, &bin) == MN_OK;
}

static bool keep_row(struct mn_compact_build *b, struct mn_compact_input *input, uint32_t row)
{
    const struct mn_part *part = input->part;
    if (input->to[row] == MN_MAP_DROPPED || mn_part_expires(part, row) <= b->snapshot.now)
        return false;
    if (mn_compact_droppable(mn_part_died(part, row), b->history_seq)) {
        b->history_dropped = true;
        return false;
    }
    if (input->forced && !part->tail && !readable(part, row)) {
        b->proposal->rows_lost++;
        return false;
    }
    return true;
}

static enum mn_status select_rows(struct mn_compact_build *b)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < b->input_count; i++)
        // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): add_input counts what it has set
        rows += b->inputs[i].part->rows;
    b->keys = malloc((rows + 1) * sizeof *b->keys);
    if (!b->keys)
        return MN_FAIL(MN_SYSTEM, "no memory to sort %llu rows", (unsigned long long)rows);
    for (uint32_t i = 0; i < b->input_count; i++) {
        struct mn_compact_input *input = &b->inputs[i];
        for (uint32_t row = 0; row < input->part->rows; row++) {
            MN_TRY(mn_compact_breathe(b));
            if (keep_row(b, input, row))
                b->keys[b->key_count++] = (struct mn_compact_key){mn_part_at(input->part, row), i, row};
            else
                input->to[row] = MN_MAP_DROPPED;
        }
    }
    b->proposal->rows_in = rows;
    b->proposal->rows_out = b->key_count;
    return MN_OK;
}

/* The log writes to the same disk: a compaction that would fill it is not begun. */
static enum mn_status check_room(const struct mn_compact_build *b)
{
    uint64_t free_bytes, in = 0;
    for (uint32_t i = 0; i < b->input_count; i++)
        in += b->inputs[i].bytes;
    uint64_t rows = b->proposal->rows_in ? b->proposal->rows_in : 1;
    uint64_t need = (uint64_t)((double)in * (double)b->key_count / (double)rows);
    MN_TRY(b->compactor->store.io->free_bytes(b->compactor->store.dir, &free_bytes));
    if (need > free_bytes)
        return MN_FAIL(MN_READ_ONLY, "the compaction needs about %llu MB of disk, %llu MB are free",
                       (unsigned long long)(need >> 20), (unsigned long long)(free_bytes >> 20));
    return MN_OK;
}

/* ---- the new segments ---- */

static enum mn_status write_outputs(struct mn_compact_build *b, struct mn_manifest_segment *made)
{
    struct mn_compact_proposal *p = b->proposal;
    uint64_t count = (b->key_count + b->policy->segment_rows_max - 1) / b->policy->segment_rows_max;
    for (uint64_t o = 0; o < count; o++) {
        uint64_t begin = b->key_count * o / count, end = b->key_count * (o + 1) / count;
        /* Listed first: a segment that fails half-way is removed with the others. */
        p->outputs[p->output_count++] = p->next.next_segment;
        MN_TRY(mn_compact_write(b, begin, end, (uint32_t)o, p->next.next_segment, &made[o]));
        p->next.next_segment++;
        p->bytes_out += made[o].bytes;
    }
    return MN_OK;
}

static int by_time(const void *a, const void *b)
{
    const struct mn_manifest_segment *x = a, *y = b;
    if (x->at_max != y->at_max)
        return x->at_max < y->at_max ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* next.segments: those that stay, and the new ones; oldest first. */
static enum mn_status list_segments(struct mn_compact_build *b)
{
    struct mn_compact_proposal *p = b->proposal;
    uint64_t most = (b->key_count + b->policy->segment_rows_max - 1) / b->policy->segment_rows_max;
    struct mn_manifest_segment *list = calloc(b->manifest.segment_count + most + 1, sizeof *list);
    p->outputs = calloc(most + 1, sizeof *p->outputs);
    p->next.segments = list;
    if (!list || !p->outputs)
        return MN_FAIL(MN_SYSTEM, "no memory for a list of segments");
    uint32_t count = 0;
    for (uint32_t s = 0; s < b->manifest.segment_count; s++)
        if (!is_input(b, mn_compact_part(&b->snapshot, false, b->manifest.segments[s].id)))
            list[count++] = b->manifest.segments[s];
    MN_TRY(write_outputs(b, list + count));
    p->next.segment_count = count + p->output_count;
    qsort(list, p->next.segment_count, sizeof *list, by_time);
    return MN_OK;
}

/* ---- what only the log held ---- */

/* Makes the liveness of a segment that stays durable, if it has changed since. Every mark up to visible_seq is in
 * shared memory; later ones may be, and stay in the log. */
static enum mn_status keep_marks(struct mn_compact_build *b, struct mn_manifest_segment *segment,
                                 const struct mn_live *live)
{
    const struct mn_control *control = b->compactor->instance->control;
    uint64_t dirty = atomic_load_explicit(&live->dirty_seq, memory_order_acquire);
    uint64_t seq = atomic_load_explicit(&control->visible_seq, memory_order_acquire);
    if (dirty <= segment->died_seq || seq <= segment->died_seq)
        return MN_OK;
    MN_TRY(mn_columns_write_died(&b->compactor->store, segment->id, seq, segment->rows, live->died));
    segment->died_seq = seq;
    return MN_OK;
}

/* The same for a segment that this process could not open: the writer may have, and marks it. */
static enum mn_status keep_marks_unopened(struct mn_compact_build *b, struct mn_manifest_segment *segment)
{
    struct mn_view_list view;
    struct mn_instance *instance = b->compactor->instance;
    enum mn_status status = MN_OK;
    MN_TRY(mn_view_map(&view, instance, b->snapshot.gen));
    for (uint32_t v = 0; v < view.columns && status == MN_OK; v++) {
        struct mn_segment live = {0};
        if (view.column[v].segment != segment->id)
            continue;
        status = mn_live_map(&live, instance, view.column[v].live_gen, segment->id, segment->rows, false);
        if (status == MN_OK)
            status = keep_marks(b, segment, live.base);
        mn_segment_unmap(&live);
    }
    mn_view_unmap(&view);
    return status;
}

/* Forgets in the log that is taken have marked rows of segments that stay. */
static enum mn_status keep_liveness(struct mn_compact_build *b)
{
    for (uint32_t s = 0; s < b->proposal->next.segment_count; s++) {
        struct mn_manifest_segment *segment = &b->proposal->next.segments[s];
        const struct mn_part *part = mn_compact_part(&b->snapshot, false, segment->id);
        if (part)
            MN_TRY(keep_marks(b, segment, mn_compact_live(part)));
        else if (manifest_segment(b, segment->id))
            MN_TRY(keep_marks_unopened(b, segment));
    }
    return MN_OK;
}

/* When every segment is open, each has its marks, and they are durable with it. */
static enum mn_status fold_log(struct mn_compact_build *b)
{
    struct mn_manifest *next = &b->proposal->next;
    struct mn_ledger *ledger = b->ledger;
    const struct mn_store *store = &b->compactor->store;
    uint64_t first = b->manifest.log_seq + 1;
    int64_t window = b->policy->idem_window_ns;
    bool blind = unopened(b) != 0;
    for (uint32_t i = 0; i < b->input_count; i++) {
        const struct mn_part *part = b->inputs[i].part;
        if (part->tail)
            MN_TRY(mn_ledger_fold(ledger, store, part->number, first, next->log_seq));
        if (part->tail && blind)
            MN_TRY(mn_ledger_fold_marks(ledger, store, part->number, first, next->log_seq));
    }
    if (blind)
        MN_TRY(mn_ledger_marks_thin(mn_ledger_marks(ledger)));
    else
        mn_ledger_marks_free(mn_ledger_marks(ledger));
    MN_TRY(mn_ledger_save(ledger, store, next->log_seq, window > 0 ? b->snapshot.now - window : INT64_MIN));
    next->ledger_seq = next->log_seq;
    return MN_OK;
}

static enum mn_status keep_log(struct mn_compact_build *b)
{
    struct mn_manifest *next = &b->proposal->next;
    for (uint32_t i = 0; i < b->input_count; i++) {
        const struct mn_part *part = b->inputs[i].part;
        uint64_t last = part->tail ? atomic_load_explicit(&part->chunk->last_seq, memory_order_acquire) : 0;
        next->log_seq = last > next->log_seq ? last : next->log_seq;
    }
    next->wal_first = b->wal_end;
    MN_TRY(keep_liveness(b));
    if (next->log_seq == b->manifest.log_seq)
        return MN_OK; /* the log segments were empty */
    MN_TRY(fold_log(b));
    MN_TRY(mn_compact_purges_quarantine(&b->purges, &b->compactor->store, &b->proposal->files_rewritten));
    b->proposal->purge_seq = next->log_seq;
    b->proposal->unsearched = unopened(b);
    return MN_OK;
}

/* ---- the proposal ---- */

static enum mn_status make_maps(struct mn_compact_build *b)
{
    struct mn_compact_proposal *p = b->proposal;
    p->maps = calloc(b->input_count + 1u, sizeof *p->maps);
    if (!p->maps)
        return MN_FAIL(MN_SYSTEM, "no memory for the row maps");
    for (uint32_t i = 0; i < b->input_count; i++) {
        struct mn_compact_input *input = &b->inputs[i];
        p->maps[p->map_count++] = (struct mn_row_map){
            .tail = input->part->tail, .number = input->part->number, .rows = input->part->rows, .to = input->to};
        input->to = NULL; /* the map's now */
    }
    return MN_OK;
}

static enum mn_status begin(struct mn_compact_build *b)
{
    bool agree;
    struct mn_compactor *c = b->compactor;
    MN_TRY(mn_compact_pin(c->reader, &c->store, c->instance, &b->manifest, &b->snapshot, &agree));
    if (!agree)
        return MN_FAIL(MN_BUSY, "a publication is under way: plan again");
    b->pinned = true;
    b->history_seq = atomic_load_explicit(&b->compactor->instance->control->history_seq, memory_order_acquire);
    struct mn_compact_proposal *p = b->proposal;
    p->base_edit = b->manifest.edit;
    p->live_gen = mn_clock_ns(); /* rises as long as the machine is up: no other build of this instance has it */
    p->next = b->manifest;
    p->next.segments = NULL;
    p->next.segment_count = 0;
    MN_TRY(mn_compact_tidy(b->compactor, &b->manifest));
    return mn_compact_free_id(b->compactor, &b->manifest, &p->next.next_segment);
}

static enum mn_status run(struct mn_compact_build *b, const struct mn_compact_plan *plan)
{
    MN_TRY(begin(b));
    MN_TRY(choose_inputs(b, plan));
    MN_TRY(select_rows(b));
    MN_TRY(check_room(b));
    MN_TRY(mn_compact_sort(b));
    MN_TRY(mn_compact_codes_begin(b));
    MN_TRY(list_segments(b));
    if (b->wal_end > b->manifest.wal_first)
        MN_TRY(keep_log(b));
    struct mn_compact_proposal *p = b->proposal;
    p->files_rewritten += b->input_count;
    if (b->history_dropped && b->history_seq > p->next.oldest_seq)
        p->next.oldest_seq = b->history_seq;
    return make_maps(b);
}

static void end(struct mn_compact_build *b)
{
    for (uint32_t i = 0; i < b->input_count; i++) {
        if (b->inputs[i].part->tail) // NOLINT(clang-analyzer-core.NullDereference): add_input counts what it has set
            mn_wal_unmap(&b->inputs[i].wal);
        free(b->inputs[i].to);
    }
    mn_compact_codes_end(b);
    free(b->inputs);
    free(b->keys);
    mn_compact_purges_free(&b->purges);
    mn_ledger_free(b->ledger);
    mn_manifest_free(&b->manifest);
    if (b->pinned)
        mn_reader_unpin(b->compactor->reader);
}

enum mn_status mn_compact_build(struct mn_compactor *compactor, const struct mn_compact_plan *plan,
                                const struct mn_compact_policy *policy, bool (*pause)(void *context), void *context,
                                struct mn_compact_proposal *proposal)
{
    struct mn_compact_build b = {
        .compactor = compactor, .policy = policy, .pause = pause, .context = context, .proposal = proposal};
    *proposal = (struct mn_compact_proposal){0};
    enum mn_status status = run(&b, plan);
    end(&b);
    if (status != MN_OK) {
        /* What cannot be removed now is swept at the next start; the sentence that counts is the one about why. */
        char text[1024];
        snprintf(text, sizeof text, "%s", mn_error_text());
        if (mn_compact_discard(compactor, proposal) != MN_OK || strcmp(text, mn_error_text()) != 0)
            mn_error_set(status, __FILE__, __LINE__, "%s", text);
        mn_compact_proposal_free(proposal);
    }
    return status;
}
