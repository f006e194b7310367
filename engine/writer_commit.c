/*
 * writer_commit.c - room in the log, and the three steps of a commit: append, sync, publish.
 */
#include <stdlib.h>

#include "engine/fault.h"
#include "engine/writer_state.h"
#include "shm/process.h"

/* How long an admission waits for a log segment to get ready before it says busy. */
#define SEGMENT_WAIT_MS 2000u

/* ---- room ---- */

static bool fits_segment(const struct mn_writer *w, const struct mn_room *room)
{
    if (!w->wal.store)
        return false;
    const struct mn_tail *tail = &w->parts.own[w->active]->tail;
    const struct mn_batch *log = &w->batch.log;
    uint64_t used = log->records ? log->at - sizeof(struct mn_batch_header) : 0;
    uint64_t touched = (log->records ? log->touched : 0) + room->touched;
    return mn_batch_bytes(used + room->bytes, log->records + room->records, touched) <= mn_wal_room(&w->wal) &&
           room->rows <= tail->header->rows_max - tail->filled && room->arena <= mn_tail_arena_left(tail);
}

static void begin_batch(struct mn_writer *w)
{
    mn_batch_begin(&w->batch.log, w->wal.offset, w->wal.salt);
    w->batch.mark_count = 0;
    w->batch.memories = w->batch.forgets = 0;
}

enum mn_status mn_writer_new_view(struct mn_writer *w)
{
    uint64_t gen = atomic_load(&w->control->view_gen) + 1;
    MN_FAULT_POINT(publish_before_view);
    MN_TRY(mn_parts_publish(&w->parts, &w->manifest, gen));
    MN_FAULT_POINT(publish_after_view);
    if (gen > 1)
        MN_TRY(mn_writer_retire(w, (struct mn_limbo){.gen = gen, .kind = MN_LIMBO_VIEW, .number = gen - 1}));
    return MN_OK;
}

static void seal_active(struct mn_writer *w)
{
    struct mn_own_part *own = w->active == MN_NONE ? NULL : w->parts.own[w->active];
    if (own && !own->retired && own->tail.header) {
        mn_tail_publish(&own->tail, own->tail.filled, w->wal.last_seq);
        own->part.rows = own->tail.filled;
        atomic_store_explicit(&own->tail.header->sealed, 1, memory_order_release);
    }
    mn_wal_end(&w->wal);
    w->active = MN_NONE;
}

/* The chunk of a log segment that is about to be begun, in a view of its own: nothing is admitted to rows that no
 * reader will see. */
static enum mn_status begin_chunk(struct mn_writer *w, uint64_t number, uint32_t *part)
{
    struct mn_tail tail;
    uint32_t count = w->parts.count;
    MN_TRY(mn_tail_create(&tail, w->instance, w->store.dim, w->settings.wal_segment_bytes, w->instance_gen, number));
    MN_FAULT_POINT(writer_chunk_made);
    enum mn_status status = mn_parts_add_chunk(&w->parts, &tail, part);
    if (status == MN_OK)
        status = mn_writer_new_view(w);
    if (status != MN_OK && w->parts.count > count)
        mn_parts_retire(&w->parts, count);
    else if (status != MN_OK)
        mn_tail_unmap(&tail);
    if (status != MN_OK)
        mn_tail_remove(w->instance, w->instance_gen, number);
    return status;
}

/* Begins the next log segment with its chunk, then seals the active one, if there is one. A failure leaves that one
 * active. The chunk comes first: a full /dev/shm costs no log segment. */
static enum mn_status rotate(struct mn_writer *w)
{
    uint64_t number;
    struct mn_wal next;
    uint32_t part = MN_NONE;
    MN_TRY(mn_wal_keeper_take(w->keeper, SEGMENT_WAIT_MS, &number));
    enum mn_status status = begin_chunk(w, number, &part);
    if (status != MN_OK) {
        mn_wal_keeper_give_back(w->keeper, number);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    status = mn_wal_begin(&next, &w->store, number, &w->wal);
    if (status != MN_OK) {
        mn_parts_retire(&w->parts, part);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    seal_active(w);
    w->wal = next;
    w->active = part;
    begin_batch(w);
    mn_stat_add(w->stats, MN_STAT_wal_rotations, 1);
    return MN_OK;
}

static enum mn_status grow_batch(struct mn_writer *w, const struct mn_room *room)
{
    struct mn_batch *log = &w->batch.log;
    uint64_t records = (uint64_t)log->records + room->records;
    if (records <= log->records_max)
        return MN_OK;
    uint64_t max = log->records_max ? log->records_max : 1024;
    while (max < records)
        max *= 2;
    uint32_t *record_at = realloc(log->record_at, max * sizeof *record_at);
    if (!record_at)
        return MN_FAIL(MN_INTERNAL, "no memory for a batch of %llu records", (unsigned long long)records);
    log->record_at = record_at;
    log->records_max = (uint32_t)max;
    return MN_OK;
}

enum mn_status mn_writer_make_room(struct mn_writer *w, const struct mn_room *room)
{
    uint64_t batch_bytes = mn_writer_batch_bytes(w);
    if (w->seq >= MN_SEQ_MAX)
        return MN_FAIL(MN_READ_ONLY, "seq %llu is the last there is: export the store into a new one",
                       (unsigned long long)w->seq);
    if (room->rows > 0 && w->tail_rows + room->rows > w->settings.tail_rows_max)
        return MN_FAIL(MN_BUSY, "%llu memories wait to be compacted, as many as tail.rows_max allows; try again",
                       (unsigned long long)w->tail_rows);
    if (batch_bytes > 0 && batch_bytes + room->bytes > w->settings.write_batch_bytes)
        return MN_FAIL(MN_NOT_READY, "the batch is full");
    if (!fits_segment(w, room)) {
        if (mn_writer_pending(w))
            return MN_FAIL(MN_NOT_READY, "the log segment is full");
        uint64_t whole = w->settings.wal_segment_bytes - 2 * MN_WAL_BLOCK;
        if (mn_batch_bytes(room->bytes, room->records, room->touched) > whole)
            return MN_FAIL(MN_TOO_LARGE,
                           "the request takes %llu bytes of log, a log segment (wal.segment_bytes) holds %llu: send "
                           "less at once",
                           (unsigned long long)room->bytes, (unsigned long long)whole);
        bool fresh = w->wal.store && w->wal.offset == MN_WAL_BLOCK;
        if (!fresh)
            MN_TRY(rotate(w));
        if (!fits_segment(w, room))
            return MN_FAIL(MN_TOO_LARGE,
                           "the request has more rows, or more tags, than a log segment (wal.segment_bytes) has room "
                           "for: send less at once");
    }
    MN_TRY(grow_batch(w, room));
    MN_TRY(mn_tail_reserve(&w->parts.own[w->active]->tail, room->rows, room->arena));
    if (batch_bytes == 0)
        begin_batch(w);
    return MN_OK;
}

enum mn_status mn_writer_add_mark(struct mn_writer *w, const struct mn_mark *mark)
{
    struct mn_writer_batch *batch = &w->batch;
    if (batch->mark_count == batch->mark_max) {
        uint32_t max = batch->mark_max ? batch->mark_max * 2 : 1024;
        struct mn_mark *marks = realloc(batch->marks, max * sizeof *marks);
        if (!marks)
            return MN_FAIL(MN_INTERNAL, "no memory for the marks of a batch");
        batch->marks = marks;
        batch->mark_max = max;
    }
    batch->marks[batch->mark_count++] = *mark;
    return MN_OK;
}

/* ---- the commit ---- */

bool mn_writer_pending(const struct mn_writer *w)
{
    return w->batch.log.records > 0 || w->written.log.records > 0;
}

uint32_t mn_writer_batch_memories(const struct mn_writer *w)
{
    return w->batch.log.records > 0 ? w->batch.memories : 0;
}

uint64_t mn_writer_batch_bytes(const struct mn_writer *w)
{
    return w->batch.log.records > 0 ? w->batch.log.at : 0;
}

enum mn_status mn_writer_append(struct mn_writer *w)
{
    if (w->broken)
        return MN_FAIL(MN_INTERNAL, "a change was admitted by half");
    if (w->batch.log.records == 0)
        return MN_OK;
    MN_ASSERT(w->written.log.records == 0);
    uint64_t before = w->wal.offset;
    enum mn_status status = mn_wal_append(&w->wal, &w->batch.log, mn_wall_ns());
    w->broken = status != MN_OK;
    mn_stat_add(w->stats, MN_STAT_wal_bytes, w->wal.offset - before);
    if (status != MN_OK)
        return status;
    struct mn_writer_batch empty = w->written;
    w->written = w->batch;
    w->written.rows_end = w->parts.own[w->active]->tail.filled;
    w->batch = empty;
    begin_batch(w);
    return MN_OK;
}

enum mn_status mn_writer_sync(struct mn_writer *w)
{
    if (w->written.log.records == 0)
        return MN_OK;
    enum mn_status status = mn_wal_sync(&w->wal);
    w->broken |= status != MN_OK;
    mn_stat_add(w->stats, MN_STAT_wal_syncs, 1);
    return status;
}

void mn_writer_publish(struct mn_writer *w)
{
    struct mn_writer_batch *batch = &w->written;
    if (batch->log.records == 0)
        return;
    uint64_t seq = w->wal.durable_seq;
    MN_ASSERT(seq == batch->log.last_seq);
    atomic_store_explicit(&w->control->durable_seq, seq, memory_order_release);
    struct mn_own_part *own = w->parts.own[w->active];
    mn_tail_publish(&own->tail, batch->rows_end, seq);
    own->part.rows = batch->rows_end;
    for (uint32_t i = 0; i < batch->mark_count; i++) {
        if (i == batch->mark_count / 2)
            MN_FAULT_POINT(writer_mid_publish);
        mn_parts_mark(&w->parts, &batch->marks[i]);
    }
    mn_writer_show_tail(w, w->tail_rows - w->batch.memories);
    /* Release: a reader that acquires this seq sees its rows and marks. Memories become visible here, all of a batch at
     * once. */
    atomic_store_explicit(&w->control->visible_seq, MN_BUG(ack_before_publish) ? seq - 1 : seq, memory_order_release);
    mn_stat_add(w->stats, MN_STAT_write_memories, batch->memories);
    mn_stat_add(w->stats, MN_STAT_write_forgets, batch->forgets);
    mn_stat_record(w->stats, MN_STAT_write_batch_memories, batch->memories);
    batch->log.records = 0;
}

void mn_writer_acked(struct mn_writer *w)
{
    MN_FAULT_POINT(writer_before_ack);
    atomic_store_explicit(&w->control->acked_seq, w->wal.durable_seq, memory_order_release);
}

enum mn_status mn_writer_seal(struct mn_writer *w, uint64_t *sealed_seq)
{
    MN_ASSERT(!mn_writer_pending(w));
    if (w->wal.store && w->wal.offset > MN_WAL_BLOCK) {
        /* What follows in the log is told where this segment ended, so that a missing one shows. */
        struct mn_wal sealed = w->wal;
        seal_active(w);
        w->wal.number = sealed.number;
        w->wal.last_seq = sealed.last_seq;
        w->wal.durable_seq = sealed.durable_seq;
        w->wal.chain = sealed.chain;
    }
    *sealed_seq = w->wal.durable_seq;
    return MN_OK;
}
