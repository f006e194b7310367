/*
 * writer.c - opening and closing the writer: it takes over what recovery published.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/fault.h"
#include "engine/view.h"
#include "engine/wal_copy.h"
#include "engine/writer_state.h"
#include "shm/process.h"

void mn_writer_look_for_missing(struct mn_writer *w)
{
    w->missing = 0;
    for (uint32_t s = 0; s < w->manifest.segment_count && w->missing == 0; s++)
        if (mn_parts_find(&w->parts, false, w->manifest.segments[s].id) == MN_NONE)
            w->missing = w->manifest.segments[s].id;
}

/* The parts of the newest view, mapped writable, and the index over them. */
static enum mn_status take_view(struct mn_writer *w)
{
    struct mn_view_list view;
    uint32_t number;
    uint64_t gen = atomic_load(&w->control->view_gen);
    if (gen == 0)
        return MN_FAIL(MN_NOT_READY, "recovery has not published a view yet");
    MN_TRY(mn_view_map(&view, w->instance, gen));
    uint64_t rows = atomic_load(&w->control->tail_rows);
    for (uint32_t i = 0; i < view.columns; i++)
        rows += view.column[i].rows;
    enum mn_status status = mn_index_reserve(w->parts.index, rows);
    for (uint32_t i = 0; status == MN_OK && i < view.columns; i++) {
        status = mn_parts_add_columns(&w->parts, view.column[i].segment, view.column[i].rows, view.column[i].live_gen,
                                      &number);
        if (status == MN_OK)
            status = mn_parts_index(&w->parts, number);
    }
    for (uint32_t i = 0; status == MN_OK && i < view.chunks; i++) {
        struct mn_tail tail;
        status = mn_tail_map(&tail, w->instance, view.chunk[i].instance_gen, view.chunk[i].wal_number, true);
        if (status == MN_OK)
            status = mn_parts_add_chunk(&w->parts, &tail, &number);
        if (status == MN_OK)
            status = mn_parts_index(&w->parts, number);
        if (status == MN_OK)
            w->tail_rows += w->parts.own[number]->part.rows;
    }
    mn_view_unmap(&view);
    mn_writer_look_for_missing(w);
    return status;
}

/* Whether purges are left to carry out in a segment that could not be opened. */
static bool purges_left(struct mn_writer *w)
{
    struct mn_ledger_mark mark;
    for (uint64_t at = 0; mn_ledger_marks_next(mn_ledger_marks(w->ledger), &at, &mark);)
        if (mark.mode == MN_FORGET_PURGE)
            return true;
    return false;
}

static enum mn_status take_ledger(struct mn_writer *w)
{
    char path[256];
    MN_TRY(mn_ledger_new(&w->ledger));
    snprintf(path, sizeof path, "%s/ledger.%" PRIu64, w->instance->path, w->instance_gen);
    return mn_ledger_read(w->ledger, w->store.io, path);
}

/* A purge that was acknowledged to nobody yet is carried out all the same: its record is in the log that is left. */
static enum mn_status note_purge(void *context, uint64_t seq, struct mn_str space, const struct mn_id *id)
{
    struct mn_writer *w = context;
    if (seq > w->purge_admitted)
        w->purge_admitted = seq;
    return MN_OK;
}

/* The number behind the last log segment that was ever begun. */
static enum mn_status next_wal_number(struct mn_writer *w, uint64_t *next)
{
    uint64_t *numbers;
    uint32_t count;
    MN_TRY(mn_wal_list(&w->store, &numbers, &count));
    *next = w->manifest.wal_first > 0 ? w->manifest.wal_first : 1;
    enum mn_status status = MN_OK;
    for (uint32_t i = 0; i < count && status == MN_OK; i++) {
        struct mn_wal_segment segment;
        status = mn_wal_map(&segment, &w->store, numbers[i]);
        bool begun = status == MN_CORRUPT || !segment.unused;
        mn_wal_unmap(&segment);
        if (status == MN_CORRUPT)
            status = MN_OK;
        if (begun && numbers[i] >= *next)
            *next = numbers[i] + 1;
        if (begun && numbers[i] >= w->manifest.wal_first && status == MN_OK &&
            mn_parts_find(&w->parts, true, numbers[i]) != MN_NONE)
            status = mn_ledger_purges(&w->store, numbers[i], note_purge, w);
    }
    free(numbers);
    return status;
}

static enum mn_status make_buffer(struct mn_batch *batch, uint64_t bytes)
{
    /* Address space for the largest batch; pages cost memory only when a batch reaches them. */
    void *buffer = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (buffer == MAP_FAILED)
        return MN_FAIL_ERRNO("no address space for a batch");
    batch->data = buffer;
    batch->bytes_max = bytes;
    return MN_OK;
}

static void free_batch(struct mn_writer_batch *batch)
{
    if (batch->log.data)
        munmap(batch->log.data, batch->log.bytes_max);
    free(batch->log.record_at);
    free(batch->marks);
}

static enum mn_status open_writer(struct mn_writer *w)
{
    uint64_t next = 1;
    char path[MN_PATH_MAX];
    MN_TRY(mn_store_lock(mn_store_path(&w->store, path, "wal/LOCK"), &w->lock_fd));
    MN_TRY(mn_manifest_read(&w->manifest, &w->store, NULL));
    MN_TRY(mn_parts_init(&w->parts, &w->store, w->instance));
    MN_TRY(take_view(w));
    MN_TRY(take_ledger(w));
    MN_TRY(next_wal_number(w, &next));
    MN_TRY(make_buffer(&w->batch.log, w->settings.wal_segment_bytes));
    MN_TRY(make_buffer(&w->written.log, w->settings.wal_segment_bytes));
    w->seq = atomic_load(&w->control->durable_seq);
    w->wal = (struct mn_wal){.number = next - 1, .last_seq = w->seq, .durable_seq = w->seq, .fd = -1};
    MN_TRY(mn_wal_copy_open(&w->wal.copy, &w->store, &w->settings, &w->control->reasons, w->manifest.wal_first));
    if (MN_BUG(seq_given_twice) && w->seq > 0)
        w->seq--;
    MN_TRY(mn_wal_keeper_start(&w->keeper, &w->store, w->wal.copy, w->settings.wal_segment_bytes,
                               (uint32_t)w->settings.wal_prepared, w->settings.disk_reserve, next,
                               &w->control->acked_seq));
    w->purge_rewritten = w->manifest.log_seq; /* by the writer before this one; what it left is being swept */
    w->purge_gen = atomic_load(&w->control->view_gen);
    w->purge_unsearched = purges_left(w) ? w->missing : 0;
    mn_writer_show_tail(w, w->tail_rows);
    return mn_writer_sweep(w);
}

enum mn_status mn_writer_open(struct mn_writer **writer, const struct mn_store *store, struct mn_instance *instance,
                              const struct mn_settings *settings, struct mn_stats_page *stats)
{
    struct mn_writer *w = calloc(1, sizeof *w);
    if (!w)
        return MN_FAIL(MN_INTERNAL, "no memory for the writer");
    w->store = *store;
    w->instance = instance;
    w->control = instance->control;
    w->settings = *settings;
    w->stats = stats;
    w->lock_fd = -1;
    w->active = MN_NONE;
    w->kernels = mn_kernels_best();
    w->instance_gen = atomic_load(&instance->control->instance_gen);
    enum mn_status status = open_writer(w);
    if (status != MN_OK) {
        mn_writer_close(w);
        return status;
    }
    *writer = w;
    return MN_OK;
}

void mn_writer_close(struct mn_writer *w)
{
    if (!w)
        return;
    mn_wal_keeper_stop(w->keeper);
    mn_wal_end(&w->wal);
    mn_wal_copy_close(w->wal.copy);
    if (w->parts.index)
        mn_parts_free(&w->parts);
    mn_ledger_free(w->ledger);
    mn_manifest_free(&w->manifest);
    free_batch(&w->batch);
    free_batch(&w->written);
    free(w->limbo);
    w->store.io->close(w->lock_fd);
    free(w);
}
