/*
 * recovery_replay.c - the liveness of the columns is loaded, then the log is replayed over it in order.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "engine/fault.h"
#include "engine/quarantine.h"
#include "engine/recovery_inside.h"
#include "engine/request.h"

/* What the log did to rows of a segment while it could not be opened (engine/ledger_marks.h). */
static void apply_marks(struct mn_recovery *r, uint32_t number)
{
    const struct mn_part *part = &r->parts.own[number]->part;
    struct mn_ledger_mark mark;
    for (uint64_t at = 0; mn_ledger_marks_next(mn_ledger_marks(r->ledger), &at, &mark);) {
        struct mn_part_find find = {.hash = mn_id_hash(mn_str_hash(mark.space), &mark.id),
                                    .id = mark.id,
                                    .space = mn_part_lookup(part, mark.space)};
        if (find.space == MN_NONE)
            continue;
        for (uint32_t row = mn_part_find_first(part, &find); row != MN_NONE; row = mn_part_find_next(part, &find)) {
            uint64_t died = mn_part_died(part, row);
            bool hidden = died != MN_ALIVE, suppress = mark.mode == MN_FORGET_SUPPRESS;
            if (mn_part_born(part, row) >= mark.seq || (hidden && (suppress || !mn_died_suppressed(died))))
                continue;
            mn_parts_mark(&r->parts, &(struct mn_mark){number, row, mark.seq,
                                                       hidden     ? MN_MARK_GIVEN_UP
                                                       : suppress ? MN_MARK_SUPPRESSED
                                                                  : MN_MARK_DEAD});
        }
    }
}

enum mn_status mn_recovery_load_columns(struct mn_recovery *r)
{
    for (uint32_t i = 0; i < r->manifest.segment_count; i++) {
        const struct mn_manifest_segment *s = &r->manifest.segments[i];
        uint32_t number;
        struct mn_segment live = {0};
        uint64_t *died = malloc(s->rows ? s->rows * sizeof *died : 1);
        if (!died)
            return MN_FAIL(MN_INTERNAL, "no memory for the liveness of %" PRIu64 " rows", s->rows);
        enum mn_status status = mn_columns_read_died(&r->store, s->id, s->died_seq, s->rows, died);
        if (status == MN_OK)
            status = mn_live_create(&live, r->instance, r->instance_gen, s->id, s->rows, died);
        mn_segment_unmap(&live);
        free(died);
        if (status == MN_OK)
            status = mn_parts_add_columns(&r->parts, s->id, s->rows, r->instance_gen, &number);
        if (status == MN_OK)
            apply_marks(r, number);
        if (status == MN_OK)
            status = mn_parts_index(&r->parts, number);
        if (status == MN_CORRUPT || status == MN_NOT_FOUND) {
            /* One segment is lost to readers; the rest of the store is not. Its files stay for a person to look at. */
            atomic_fetch_or(&r->instance->control->reasons, MN_DEGRADED_COLUMN);
            r->report->quarantined++;
            MN_TRY(mn_quarantine_note_columns(&r->store, s->id, mn_error_text()));
            continue;
        }
        MN_TRY(status);
    }
    return MN_OK;
}

static enum mn_status replay_forget(struct mn_recovery *r, const struct mn_record *record)
{
    struct mn_record_fields f = mn_record_fields(record);
    const char *base = (const char *)record;
    struct mn_str space = {base + f.space, record->space_bytes};
    uint64_t space_hash = mn_str_hash(space);
    uint32_t count = MN_CONTENT_LENGTH(record->content_bytes) / (uint32_t)sizeof(struct mn_id);
    for (uint32_t i = 0; i < count; i++) {
        struct mn_id id;
        struct mn_mark mark;
        bool marked;
        memcpy(&id, base + f.content + i * sizeof id, sizeof id);
        uint64_t hash = mn_id_hash(space_hash, &id);
        if (record->flags == MN_FORGET_SUPPRESS)
            MN_TRY(mn_parts_suppress(&r->parts, space, &id, hash, record->seq, &mark, &marked));
        else
            marked = mn_parts_remove(&r->parts, space, &id, hash, record->seq, &mark);
        if (marked)
            mn_parts_mark(&r->parts, &mark);
    }
    return MN_OK;
}

/* A damaged record that forgot or replaced a memory: the version that was there must not rise again. Its space is
 * known by its hash only. */
static enum mn_status hide_suspect(struct mn_recovery *r, const struct mn_recovery_suspect *suspect)
{
    const struct mn_batch_touch *touch = &suspect->touch;
    struct mn_id id = mn_touch_id(touch);
    uint64_t hash = mn_id_hash(touch->space_hash, &id);
    struct mn_place place;
    struct mn_mark mark;
    bool marked;
    if (!mn_index_find_hash(r->parts.index, &id, hash, &place))
        return MN_OK;
    const struct mn_part *part = &r->parts.own[place.part]->part;
    struct mn_str space = mn_part_string(part, mn_part_space(part, place.row));
    if (mn_str_hash(space) != touch->space_hash)
        return MN_OK;
    if (touch->op == MN_RECORD_FORGET && touch->flags == MN_FORGET_SUPPRESS)
        MN_TRY(mn_parts_suppress(&r->parts, space, &id, hash, suspect->seq, &mark, &marked));
    else
        marked = mn_parts_remove(&r->parts, space, &id, hash, suspect->seq, &mark);
    if (marked)
        mn_parts_mark(&r->parts, &mark);
    return MN_OK;
}

static enum mn_status replay_event(struct mn_recovery *r, const struct mn_recovery_job *job,
                                   const struct mn_recovery_event *event)
{
    if (event->suspect)
        return hide_suspect(r, &job->suspects[event->at]);
    const struct mn_record *record = (const struct mn_record *)(const void *)(job->segment.base + event->at);
    return record->op == MN_RECORD_FORGET ? replay_forget(r, record) : mn_ledger_fold_record(r->ledger, record);
}

static enum mn_status replay_row(struct mn_recovery *r, uint32_t part, uint32_t row)
{
    const struct mn_part *p = &r->parts.own[part]->part;
    const struct mn_tail_row *values = &p->tail_rows[row];
    struct mn_mark mark;
    bool marked;
    MN_TRY(mn_parts_put(&r->parts, mn_part_string(p, values->space), &values->id, values->hash,
                        (struct mn_place){.part = part, .row = row}, values->born, &mark, &marked));
    if (marked)
        mn_parts_mark(&r->parts, &mark);
    return MN_OK;
}

/* Ids that the engine gave, of one space after the other: the counter goes on behind the largest. */
struct counting {
    uint32_t space;
    uint64_t next; /* 0: none */
};

static enum mn_status count_up(struct mn_recovery *r, uint32_t part, const struct counting *c)
{
    return c->next == 0 || MN_BUG(id_given_twice)
               ? MN_OK
               : mn_ledger_raise_id(r->ledger, mn_part_string(&r->parts.own[part]->part, c->space), c->next);
}

static enum mn_status count_row(struct mn_recovery *r, uint32_t part, uint32_t row, struct counting *c)
{
    const struct mn_tail_row *values = &r->parts.own[part]->part.tail_rows[row];
    if (values->space != c->space) {
        MN_TRY(count_up(r, part, c));
        *c = (struct counting){.space = values->space};
    }
    c->next = values->id.lo + 1 > c->next ? values->id.lo + 1 : c->next;
    return MN_OK;
}

static bool is_assigned(const struct mn_recovery_job *job, uint32_t row)
{
    return row / 64 < job->assigned_max && (job->assigned[row / 64] >> row % 64 & 1) != 0;
}

static enum mn_status replay_segment(struct mn_recovery *r, struct mn_recovery_job *job)
{
    uint32_t part, event = 0;
    struct counting counting = {0};
    MN_TRY(mn_parts_add_chunk(&r->parts, &job->tail, &part));
    uint32_t rows = r->parts.own[part]->part.rows;
    for (uint32_t row = 0; row <= rows; row++) {
        for (; event < job->event_count && job->events[event].rows_before == row; event++)
            MN_TRY(replay_event(r, job, &job->events[event]));
        if (row == rows)
            break;
        mn_parts_prefetch(&r->parts, part, row);
        MN_TRY(replay_row(r, part, row));
        if (is_assigned(job, row))
            MN_TRY(count_row(r, part, row, &counting));
    }
    return count_up(r, part, &counting);
}

enum mn_status mn_recovery_replay(struct mn_recovery *r)
{
    MN_TRY(mn_index_reserve(r->parts.index, mn_index_entries(r->parts.index) + r->report->rows));
    for (uint32_t i = 0; i < r->job_count; i++) {
        struct mn_recovery_job *job = &r->jobs[i];
        if (job->segment.unused || job->header_lost)
            continue;
        MN_TRY(replay_segment(r, job));
        mn_recovery_progress(r, 80 + 20 * (i + 1) / r->job_count);
    }
    return MN_OK;
}
