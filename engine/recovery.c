/*
 * recovery.c - the log is read in parallel, one job a segment; then liveness is replayed in order, and a new view
 * published.
 */
#include "engine/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/fault.h"
#include "engine/ledger.h"
#include "engine/parts.h"
#include "engine/quarantine.h"
#include "engine/request.h"
#include "engine/wal.h"
#include "shm/process.h"

/* A forget, or the header of a memory whose payload is damaged, with its place among the rows. */
struct event {
    uint32_t rows_before;
    uint64_t offset;
    bool suspect;
};

/* One log segment. Filled by whichever thread takes it, then read by the replay. */
struct job {
    struct mn_wal_segment segment;
    struct mn_wal_extent extent;
    struct mn_tail tail;
    struct event *events;
    uint32_t event_count, event_max;
    struct mn_wal_damage *damages;
    uint32_t damage_count, damage_max;
    enum mn_status status;
    char error[256];
    bool header_lost;
};

struct recovery {
    struct mn_store store;
    struct mn_instance *instance;
    struct mn_manifest manifest;
    struct mn_parts parts;
    struct mn_ledger *ledger;
    struct job *jobs;
    uint32_t job_count;
    _Atomic uint32_t next_job, jobs_done;
    _Atomic uint32_t *progress;
    uint64_t instance_gen;
    uint64_t mark_seq; /* acknowledged, as far as the mark knows */
    bool ledger_lost;
    struct mn_recovery_report *report;
};

static void tell_progress(struct recovery *r, uint32_t percent)
{
    if (r->progress)
        atomic_store(r->progress, percent);
}

/* ---- reading one log segment ---- */

static enum mn_status add_event(struct job *job, uint64_t offset, bool suspect)
{
    if (job->event_count == job->event_max) {
        uint32_t max = job->event_max ? job->event_max * 2 : 64;
        struct event *events = realloc(job->events, max * sizeof *events);
        if (!events)
            return MN_FAIL(MN_INTERNAL, "no memory for the events of a log segment");
        job->events = events;
        job->event_max = max;
    }
    job->events[job->event_count++] = (struct event){job->tail.filled, offset, suspect};
    return MN_OK;
}

static enum mn_status take_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    struct job *job = context;
    uint32_t row;
    if (record->op != MN_RECORD_PUT)
        return add_event(job, offset, false);
    if (record->vector_bytes != segment->store->dim * 4)
        return MN_FAIL(MN_CORRUPT, "a record has an embedding of %u bytes", record->vector_bytes);
    if (record->flags & MN_RECORD_ASSIGNED)
        MN_TRY(add_event(job, offset, false)); /* for the id counter */
    return mn_tail_add_record(&job->tail, record, offset, &row);
}

static enum mn_status take_bad_record(void *context, const struct mn_wal_segment *segment,
                                      const struct mn_record *record, uint64_t offset)
{
    return record->op == MN_RECORD_PUT ? add_event(context, offset, true) : MN_OK;
}

static enum mn_status take_damage(void *context, const struct mn_wal_segment *segment,
                                  const struct mn_wal_damage *damage)
{
    struct job *job = context;
    if (job->damage_count == job->damage_max) {
        uint32_t max = job->damage_max ? job->damage_max * 2 : 8;
        struct mn_wal_damage *damages = realloc(job->damages, max * sizeof *damages);
        if (!damages)
            return MN_FAIL(MN_INTERNAL, "no memory for the damages of a log segment");
        job->damages = damages;
        job->damage_max = max;
    }
    job->damages[job->damage_count++] = *damage;
    return MN_OK;
}

/* The cache may show what the disk lost: what it holds is written down before it is believed. */
static enum mn_status sync_segment(const struct mn_store *store, uint64_t number)
{
    char path[MN_PATH_MAX];
    int fd;
    MN_TRY(store->io->open(mn_store_wal_path(store, path, number), MN_IO_WRITE, &fd));
    enum mn_status status = store->io->datasync(fd);
    store->io->close(fd);
    return status;
}

static enum mn_status read_segment(struct recovery *r, struct job *job)
{
    uint64_t number = job->segment.number;
    MN_TRY(sync_segment(&r->store, number));
    enum mn_status status = mn_wal_map(&job->segment, &r->store, number);
    job->header_lost = status == MN_CORRUPT;
    if (!job->header_lost)
        MN_TRY(status);
    if (job->header_lost || job->segment.unused)
        return MN_OK;
    MN_TRY(mn_tail_create(&job->tail, r->instance, r->store.dim, job->segment.bytes, r->instance_gen, number));
    struct mn_wal_visitor visitor = {job, take_record, take_bad_record, take_damage};
    MN_TRY(mn_wal_scan(&job->segment, &visitor, &job->extent));
    mn_tail_publish(&job->tail, job->extent.last_seq);
    atomic_store(&job->tail.header->sealed, 1);
    return MN_OK;
}

static void *read_segments(void *context)
{
    struct recovery *r = context;
    for (uint32_t i; (i = atomic_fetch_add(&r->next_job, 1)) < r->job_count;) {
        struct job *job = &r->jobs[i];
        job->status = read_segment(r, job);
        if (job->status != MN_OK)
            snprintf(job->error, sizeof job->error, "%s", mn_error_text());
        tell_progress(r, 80 * (atomic_fetch_add(&r->jobs_done, 1) + 1) / r->job_count);
    }
    return NULL;
}

static enum mn_status read_log(struct recovery *r, uint32_t threads)
{
    pthread_t thread[64];
    uint32_t started = 0;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (threads == 0)
        threads = cpus > 0 ? (uint32_t)cpus : 1;
    if (threads > MN_ARRAY_LEN(thread))
        threads = MN_ARRAY_LEN(thread);
    while (started + 1 < threads && started + 1 < r->job_count &&
           pthread_create(&thread[started], NULL, read_segments, r) == 0)
        started++;
    read_segments(r);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    for (uint32_t i = 0; i < r->job_count; i++)
        if (r->jobs[i].status != MN_OK)
            return MN_FAIL(r->jobs[i].status, "log segment %" PRIu64 ": %s", r->jobs[i].segment.number,
                           r->jobs[i].error);
    return MN_OK;
}

static enum mn_status list_log(struct recovery *r)
{
    uint64_t *numbers = NULL;
    uint32_t count = 0;
    char path[MN_PATH_MAX];
    MN_TRY(r->store.io->sync_dir(mn_store_path(&r->store, path, "wal")));
    MN_TRY(mn_wal_list(&r->store, &numbers, &count));
    r->jobs = calloc(count + 1, sizeof *r->jobs);
    enum mn_status status = r->jobs ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory to recover %u log segments", count);
    for (uint32_t i = 0; status == MN_OK && i < count; i++)
        if (numbers[i] >= r->manifest.wal_first) /* older ones are in columns: the writer removes them */
            r->jobs[r->job_count++].segment = (struct mn_wal_segment){.store = &r->store, .number = numbers[i]};
    free(numbers);
    return status;
}

/* ---- damage ---- */

static enum mn_status quarantine_stretch(struct recovery *r, const struct job *job, uint64_t offset, uint64_t bytes,
                                         uint64_t first_seq, uint64_t last_seq, const char *reason)
{
    struct mn_quarantine_note note = {.wal_number = job->segment.number,
                                      .offset = offset,
                                      .bytes = bytes,
                                      .first_seq = first_seq,
                                      .last_seq = last_seq,
                                      .reason = reason};
    r->report->quarantined++;
    return mn_quarantine_wal(&r->store, job->segment.base ? &job->segment : NULL,
                             &note); /* too short to map: a note alone */
}

/* The seq of the next log segment that holds anything: what comes before it and is missing was durable. */
static uint64_t next_first_seq(const struct recovery *r, uint32_t job)
{
    for (uint32_t i = job + 1; i < r->job_count; i++)
        if (!r->jobs[i].header_lost && !r->jobs[i].segment.unused)
            return r->jobs[i].segment.header.first_seq;
    return 0;
}

static enum mn_status judge_damage(struct recovery *r, uint32_t number, const struct mn_wal_damage *damage)
{
    struct job *job = &r->jobs[number];
    uint64_t next = next_first_seq(r, number);
    bool durable = damage->salvaged || next > damage->after_seq + 1;
    bool acknowledged = r->mark_seq > damage->after_seq && next == 0 && damage->later_durable == 0;
    if (!durable && !acknowledged) {
        r->report->torn_bytes += damage->bytes; /* the unfinished end: nobody was told that it is there */
        return MN_OK;
    }
    r->report->lost |= !(damage->salvaged && damage->intact);
    uint64_t last_seq = damage->later_durable ? damage->later_durable : next ? next - 1 : r->mark_seq;
    return quarantine_stretch(r, job, damage->offset, damage->bytes, damage->after_seq + 1, last_seq, damage->what);
}

/* A log segment tells where the one before it ended. */
static enum mn_status judge_gap(struct recovery *r, const struct mn_wal_segment *segment, uint64_t last_number,
                                uint64_t last_seq)
{
    if (segment->header.prev_last_seq <= last_seq)
        return MN_OK;
    bool whole = segment->number != last_number + 1;
    struct mn_quarantine_note note = {.wal_number = segment->number - 1,
                                      .first_seq = last_seq + 1,
                                      .last_seq = segment->header.prev_last_seq,
                                      .reason =
                                          whole ? "a log segment is missing" : "the end of a log segment is missing"};
    r->report->lost = true;
    r->report->quarantined++;
    return mn_quarantine_wal(&r->store, NULL, &note);
}

/* A column segment or a ledger: only compaction makes them, and then there is a manifest. */
static enum mn_status note_compacted(void *context, const char *name)
{
    *(bool *)context |= strncmp(name, "ledger.", 7) == 0 || (name[0] >= '0' && name[0] <= '9' && !strchr(name, '.'));
    return MN_OK;
}

/* Without a manifest a store was never compacted, and its log begins at seq 1. If it does not, and there are files that
 * a manifest must have named, MANIFEST is lost: going on would take them for rubbish. Else the beginning of the log is
 * lost. */
static enum mn_status check_manifest(const struct recovery *r)
{
    char path[MN_PATH_MAX];
    bool compacted = false;
    uint64_t first = next_first_seq(r, UINT32_MAX);
    if (r->manifest.edit > 0 || first == 1 || (first == 0 && r->mark_seq == 0))
        return MN_OK;
    MN_TRY(r->store.io->list(r->store.dir, note_compacted, &compacted));
    MN_TRY(r->store.io->list(mn_store_path(&r->store, path, "columns"), note_compacted, &compacted));
    if (!compacted)
        return MN_OK;
    return MN_FAIL(MN_CORRUPT,
                   "%s/MANIFEST is missing, but this store has been written to (seq %" PRIu64 "): restore the file "
                   "or the store from a snapshot; nothing was changed",
                   r->store.dir, first ? first : r->mark_seq);
}

/* Segments that are missing or whose header is lost, and the damages inside the others. */
static enum mn_status judge_log(struct recovery *r)
{
    uint64_t last_seq = r->manifest.log_seq, last_number = r->manifest.wal_first ? r->manifest.wal_first - 1 : 0;
    bool told = false; /* that the segment before is lost */
    for (uint32_t i = 0; i < r->job_count; i++) {
        struct job *job = &r->jobs[i];
        if (job->segment.unused)
            continue;
        if (job->header_lost) {
            r->report->lost = true;
            MN_TRY(quarantine_stretch(r, job, 0, job->segment.bytes, last_seq + 1, 0,
                                      "both headers of a log segment are damaged"));
            last_number = job->segment.number;
            told = true;
            continue;
        }
        if (!told || job->segment.number != last_number + 1)
            MN_TRY(judge_gap(r, &job->segment, last_number, last_seq));
        told = false;
        for (uint32_t d = 0; d < job->damage_count; d++)
            MN_TRY(judge_damage(r, i, &job->damages[d]));
        if (job->extent.last_seq > last_seq)
            last_seq = job->extent.last_seq;
        last_number = job->segment.number;
        r->report->log_bytes += job->extent.end;
        r->report->batches += job->extent.batches;
        r->report->rows += job->tail.filled;
        r->report->log_segments++;
    }
    if (r->mark_seq > last_seq) {
        r->report->lost = true; /* acknowledged, and no trace of it on disk */
        last_seq = r->mark_seq; /* its seqs are not given to anything else */
    }
    r->report->last_seq = last_seq;
    return MN_OK;
}

/* ---- replaying liveness ---- */

static enum mn_status load_columns(struct recovery *r)
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

static enum mn_status replay_forget(struct recovery *r, const struct mn_record *record)
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

/* A memory that replaced another and is damaged: the older version must not rise again. Its space is known by its hash
 * only. */
static void hide_suspect(struct recovery *r, const struct mn_record *record)
{
    uint64_t hash = mn_id_hash(record->space_hash, &record->id);
    struct mn_place place;
    struct mn_mark mark;
    if (!mn_index_find_hash(r->parts.index, &record->id, hash, &place))
        return;
    const struct mn_part *part = &r->parts.own[place.part]->part;
    struct mn_str space = mn_part_string(part, mn_part_space(part, place.row));
    if (mn_str_hash(space) == record->space_hash &&
        mn_parts_remove(&r->parts, space, &record->id, hash, record->seq, &mark))
        mn_parts_mark(&r->parts, &mark);
}

static enum mn_status replay_event(struct recovery *r, const struct job *job, const struct event *event)
{
    const struct mn_record *record = (const struct mn_record *)(const void *)(job->segment.base + event->offset);
    if (event->suspect) {
        hide_suspect(r, record);
        return MN_OK;
    }
    if (record->op == MN_RECORD_FORGET)
        return replay_forget(r, record);
    return mn_ledger_fold_record(r->ledger, record);
}

static enum mn_status replay_row(struct recovery *r, uint32_t part, uint32_t row)
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

static enum mn_status replay_segment(struct recovery *r, struct job *job)
{
    uint32_t part, event = 0;
    MN_TRY(mn_parts_add_chunk(&r->parts, &job->tail, &part));
    uint32_t rows = r->parts.own[part]->part.rows;
    for (uint32_t row = 0; row <= rows; row++) {
        for (; event < job->event_count && job->events[event].rows_before == row; event++)
            MN_TRY(replay_event(r, job, &job->events[event]));
        if (row < rows)
            MN_TRY(replay_row(r, part, row));
    }
    return MN_OK;
}

static enum mn_status replay_log(struct recovery *r)
{
    for (uint32_t i = 0; i < r->job_count; i++) {
        struct job *job = &r->jobs[i];
        if (job->segment.unused || job->header_lost)
            continue;
        MN_TRY(replay_segment(r, job));
        tell_progress(r, 80 + 20 * (i + 1) / r->job_count);
    }
    return MN_OK;
}

/* ---- the ledger ---- */

/* Without its ledger a store forgets which retries it has answered, and what it has assigned: told of, and no reason to
 * be down. */
static enum mn_status load_ledger(struct recovery *r)
{
    if (r->manifest.ledger_seq == 0)
        return MN_OK;
    enum mn_status status = mn_ledger_load(r->ledger, &r->store, r->manifest.ledger_seq);
    if (status != MN_CORRUPT && status != MN_NOT_FOUND)
        return status;
    r->ledger_lost = r->report->lost = true;
    r->report->quarantined++;
    MN_TRY(mn_quarantine_ledger(&r->store, r->manifest.ledger_seq, mn_error_text()));
    mn_ledger_free(r->ledger);
    r->ledger = NULL;
    return mn_ledger_new(&r->ledger);
}

/* Ids above this were given by a client: the engine counts from 1. */
#define COUNTED_ID_MAX (UINT64_C(1) << 48)

/* A new ledger in place of the lost one: each space's counter goes on behind the largest id that is there, dead ones
 * included. */
static enum mn_status replace_ledger(struct recovery *r)
{
    for (uint32_t i = 0; i < r->parts.count; i++) {
        const struct mn_part *part = &r->parts.own[i]->part;
        for (uint32_t row = 0; !r->parts.own[i]->retired && row < part->rows; row++) {
            const struct mn_id *id = mn_part_id(part, row);
            if (id->kind == MN_ID_INTEGER && id->lo < COUNTED_ID_MAX)
                MN_TRY(mn_ledger_raise_id(r->ledger, mn_part_string(part, mn_part_space(part, row)), id->lo + 1));
        }
    }
    return mn_ledger_save(r->ledger, &r->store, r->manifest.ledger_seq, INT64_MIN);
}

/* ---- handing over ---- */

static enum mn_status hand_over(struct recovery *r)
{
    struct mn_control *control = r->instance->control;
    char path[256];
    snprintf(path, sizeof path, "%s/ledger.%" PRIu64, r->instance->path, r->instance_gen);
    MN_TRY(mn_ledger_write(r->ledger, r->store.io, path, INT64_MIN));
    uint64_t seq = r->report->last_seq;
    atomic_store(&control->oldest_seq, r->manifest.oldest_seq);
    mn_manifest_publish_tuning(&r->manifest, control);
    atomic_store(&control->history_seq, r->manifest.oldest_seq);
    atomic_store(&control->durable_seq, seq);
    atomic_store_explicit(&control->visible_seq, seq, memory_order_release);
    atomic_store(&control->acked_seq, seq);
    atomic_store(&control->tail_rows, r->report->rows);
    uint32_t reasons =
        (r->report->lost ? MN_DEGRADED_LOST : 0) | (mn_quarantine_holds(&r->store) ? MN_DEGRADED_QUARANTINE : 0);
    atomic_fetch_or(&control->reasons, reasons);
    MN_FAULT_POINT(recovery_built);
    atomic_store(&control->instance_gen, r->instance_gen);
    return mn_parts_publish(&r->parts, &r->manifest, atomic_load(&control->view_gen) + 1);
}

static enum mn_status recover_locked(struct recovery *r, uint32_t threads)
{
    struct mn_manifest_report manifest_report;
    bool mark_damaged;
    uint64_t started = mn_clock_ns();
    MN_TRY(mn_manifest_read(&r->manifest, &r->store, &manifest_report));
    r->mark_seq = mn_wal_mark_read(&r->store, &mark_damaged);
    uint64_t acked = atomic_load(&r->instance->control->acked_seq); /* of this boot: exact */
    if (acked > r->mark_seq)
        r->mark_seq = acked;
    MN_TRY(mn_parts_init(&r->parts, &r->store, r->instance));
    MN_TRY(mn_ledger_new(&r->ledger));
    MN_TRY(load_ledger(r));
    MN_TRY(list_log(r));
    MN_TRY(read_log(r, threads));
    MN_FAULT_POINT(recovery_scanned);
    MN_TRY(check_manifest(r));
    MN_TRY(judge_log(r));
    r->report->scan_ns = mn_clock_ns() - started;
    started = mn_clock_ns();
    MN_TRY(load_columns(r));
    MN_TRY(replay_log(r));
    if (r->ledger_lost)
        MN_TRY(replace_ledger(r));
    MN_TRY(hand_over(r));
    r->report->build_ns = mn_clock_ns() - started;
    tell_progress(r, 100);
    return MN_OK;
}

enum mn_status mn_recover(const struct mn_store *store, struct mn_instance *instance, uint32_t threads,
                          _Atomic uint32_t *progress, struct mn_recovery_report *report)
{
    char path[MN_PATH_MAX];
    int lock;
    *report = (struct mn_recovery_report){0};
    MN_TRY(mn_store_lock(mn_store_path(store, path, "wal/LOCK"), &lock));
    /* A generation that no earlier try used: what a killed recovery left under its own is not in the way. */
    struct mn_control *control = instance->control;
    uint64_t gen = atomic_fetch_add(&control->recovery_gen, 1) + 1;
    struct recovery r = {
        .store = *store, .instance = instance, .progress = progress, .report = report, .instance_gen = gen};
    enum mn_status status = recover_locked(&r, threads);
    for (uint32_t i = 0; i < r.job_count; i++) {
        mn_wal_unmap(&r.jobs[i].segment);
        mn_tail_unmap(&r.jobs[i].tail);
        free(r.jobs[i].events);
        free(r.jobs[i].damages);
    }
    free(r.jobs);
    if (r.parts.index)
        mn_parts_free(&r.parts);
    mn_ledger_free(r.ledger);
    mn_manifest_free(&r.manifest);
    store->io->close(lock);
    return status;
}
