/*
 * recovery_read.c - the log is read in parallel, one job a segment, in two steps: all segments are found and mapped, so
 * that each can be told what the later ones know; then each is scanned into a tail of its own.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/guard.h"
#include "engine/recovery_inside.h"

void mn_recovery_progress(const struct mn_recovery *r, uint32_t percent)
{
    if (r->progress)
        atomic_store(r->progress, percent);
}

/* ---- what a scan shows ---- */

/* Room for one more in an array that doubles. */
static enum mn_status grow(void **array, uint32_t count, uint32_t *max, size_t bytes)
{
    if (count < *max)
        return MN_OK;
    uint32_t more = *max ? *max * 2 : 64;
    void *larger = realloc(*array, more * bytes);
    if (!larger)
        return MN_FAIL(MN_INTERNAL, "no memory for what a log segment tells");
    *array = larger;
    *max = more;
    return MN_OK;
}

static enum mn_status add_event(struct mn_recovery_job *job, uint64_t at, bool suspect)
{
    MN_TRY(grow((void **)&job->events, job->event_count, &job->event_max, sizeof *job->events));
    job->events[job->event_count++] = (struct mn_recovery_event){job->tail.filled, suspect, at};
    return MN_OK;
}

/* For the id counters: the record itself is not looked at again. */
static enum mn_status note_assigned(struct mn_recovery_job *job, uint32_t row)
{
    uint32_t word = row / 64, before = job->assigned_max;
    MN_TRY(grow((void **)&job->assigned, word, &job->assigned_max, sizeof *job->assigned));
    if (job->assigned_max > before)
        memset(job->assigned + before, 0, (job->assigned_max - before) * sizeof *job->assigned);
    job->assigned[word] |= UINT64_C(1) << row % 64;
    return MN_OK;
}

static enum mn_status take_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    struct mn_recovery_job *job = context;
    uint32_t row;
    if (record->op != MN_RECORD_PUT)
        return add_event(job, offset, false);
    if (record->vector_bytes != segment->store->dim * 4)
        return MN_FAIL(MN_CORRUPT, "a record has an embedding of %u bytes", record->vector_bytes);
    MN_TRY(mn_tail_add_record(&job->tail, record, offset, &row));
    return record->flags & MN_RECORD_ASSIGNED ? note_assigned(job, row) : MN_OK;
}

static enum mn_status take_lost(void *context, const struct mn_wal_segment *segment, const struct mn_wal_lost *lost)
{
    struct mn_recovery_job *job = context;
    job->lost_records += lost->touched == 0 || lost->touches[0].op != MN_RECORD_FORGET;
    for (uint32_t i = 0; i < lost->touched; i++) {
        MN_TRY(grow((void **)&job->suspects, job->suspect_count, &job->suspect_max, sizeof *job->suspects));
        job->suspects[job->suspect_count] = (struct mn_recovery_suspect){lost->touches[i], lost->seq};
        MN_TRY(add_event(job, job->suspect_count++, true));
    }
    return MN_OK;
}

static enum mn_status take_damage(void *context, const struct mn_wal_segment *segment,
                                  const struct mn_wal_damage *damage)
{
    struct mn_recovery_job *job = context;
    MN_TRY(grow((void **)&job->damages, job->damage_count, &job->damage_max, sizeof *job->damages));
    job->damages[job->damage_count++] = *damage;
    return MN_OK;
}

static void free_job(struct mn_recovery_job *job)
{
    mn_wal_unmap(&job->segment);
    mn_tail_unmap(&job->tail);
    free(job->events);
    free(job->assigned);
    free(job->suspects);
    free(job->damages);
}

/* ---- one log segment ---- */

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

/* What a disk cannot read of a mapping ends what touches it, not the recovery. */
struct step {
    struct mn_recovery *r;
    struct mn_recovery_job *job;
    enum mn_status (*take)(struct mn_recovery *r, struct mn_recovery_job *job);
};

static enum mn_status take_step(void *context)
{
    const struct step *step = context;
    return step->take(step->r, step->job);
}

static enum mn_status map_segment(struct mn_recovery *r, struct mn_recovery_job *job)
{
    return mn_wal_map(&job->segment, &r->store, job->segment.number);
}

static enum mn_status judge_header(struct mn_recovery_job *job, enum mn_status status)
{
    job->header_lost = status == MN_CORRUPT;
    return job->header_lost ? MN_OK : status;
}

static enum mn_status open_segment(struct mn_recovery *r, struct mn_recovery_job *job)
{
    uint64_t number = job->segment.number;
    struct step step = {r, job, map_segment};
    const void *fault;
    MN_TRY(mn_copy_heal_segment(&r->heal, number));
    MN_TRY(sync_segment(&r->store, number));
    enum mn_status status = mn_guarded(take_step, &step, &fault);
    return judge_header(job, fault ? mn_wal_reread(&job->segment) : status);
}

static enum mn_status scan_bytes(struct mn_recovery *r, struct mn_recovery_job *job)
{
    MN_TRY(mn_tail_create(&job->tail, r->instance, r->store.dim, job->segment.bytes, r->instance_gen,
                          job->segment.number));
    struct mn_wal_visitor visitor = {.context = job, .record = take_record, .lost = take_lost, .damage = take_damage};
    MN_TRY(mn_wal_scan(&job->segment, &visitor, &job->extent));
    MN_TRY(mn_recovery_settle(r, job));
    job->header_damaged = mn_wal_headers_damaged(&job->segment, &job->extent, NULL, NULL);
    mn_tail_publish(&job->tail, job->tail.filled, job->extent.last_seq);
    atomic_store(&job->tail.header->sealed, 1);
    return MN_OK;
}

/* All but the segment: a scan can begin anew. */
static enum mn_status forget_scan(const struct mn_recovery *r, struct mn_recovery_job *job)
{
    char name[64];
    struct mn_wal_segment segment = job->segment;
    job->segment.base = NULL;
    free_job(job);
    *job = (struct mn_recovery_job){.segment = segment};
    mn_tail_name(name, r->instance_gen, segment.number);
    return unlinkat(r->instance->dir_fd, name, 0) == 0 || errno == ENOENT ? MN_OK
                                                                          : MN_FAIL_ERRNO("cannot remove %s", name);
}

static enum mn_status scan_segment(struct mn_recovery *r, struct mn_recovery_job *job)
{
    struct step step = {r, job, scan_bytes};
    const void *fault;
    if (job->header_lost || job->segment.unused)
        return MN_OK;
    enum mn_status status = mn_guarded(take_step, &step, &fault);
    if (!fault)
        return status;
    MN_TRY(forget_scan(r, job));
    MN_TRY(judge_header(job, mn_wal_reread(&job->segment)));
    return job->header_lost || job->segment.unused ? MN_OK : scan_bytes(r, job);
}

enum mn_status mn_recovery_read_again(struct mn_recovery *r, struct mn_recovery_job *job)
{
    uint64_t durable_seq = job->segment.durable_seq;
    MN_TRY(forget_scan(r, job));
    mn_wal_unmap(&job->segment);
    MN_TRY(open_segment(r, job));
    job->segment.durable_seq = durable_seq;
    return scan_segment(r, job);
}

/* ---- all of them ---- */

static void *take_jobs(void *context)
{
    struct mn_recovery *r = context;
    for (uint32_t i; (i = atomic_fetch_add(&r->next_job, 1)) < r->job_count;) {
        struct mn_recovery_job *job = &r->jobs[i];
        job->status = r->step(r, job);
        if (job->status != MN_OK)
            snprintf(job->error, sizeof job->error, "%s", mn_error_text());
        if (r->step == scan_segment)
            mn_recovery_progress(r, 80 * (atomic_fetch_add(&r->jobs_done, 1) + 1) / r->job_count);
    }
    return NULL;
}

static enum mn_status run_step(struct mn_recovery *r,
                               enum mn_status (*step)(struct mn_recovery *r, struct mn_recovery_job *job))
{
    pthread_t thread[64];
    uint32_t started = 0;
    r->step = step;
    r->next_job = 0;
    while (started + 1 < r->threads && started + 1 < r->job_count && started < MN_ARRAY_LEN(thread) &&
           pthread_create(&thread[started], NULL, take_jobs, r) == 0)
        started++;
    take_jobs(r);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    for (uint32_t i = 0; i < r->job_count; i++)
        if (r->jobs[i].status != MN_OK)
            return MN_FAIL(r->jobs[i].status, "log segment %" PRIu64 ": %s", r->jobs[i].segment.number,
                           r->jobs[i].error);
    return MN_OK;
}

static enum mn_status drop_job(struct mn_recovery *r, struct mn_recovery_job *job)
{
    free_job(job);
    return MN_OK;
}

/* In parallel too: to take the log out of the page tables costs a part of what it cost to bring it in. */
void mn_recovery_free_jobs(struct mn_recovery *r)
{
    for (uint32_t i = 0; i < r->job_count; i++)
        r->jobs[i].status = MN_OK;
    enum mn_status status = run_step(r, drop_job);
    MN_ASSERT(status == MN_OK);
    free(r->jobs);
    r->job_count = 0;
}

static enum mn_status list_log(struct mn_recovery *r)
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

/* Each segment is told what is known to have been durable: up to where the next one says that the log went on, and what
 * the mark says was acknowledged. */
static void tell_durable(struct mn_recovery *r)
{
    uint64_t known = r->mark_seq;
    for (uint32_t i = r->job_count; i-- > 0;) {
        struct mn_recovery_job *job = &r->jobs[i];
        job->segment.durable_seq = known;
        if (!job->header_lost && !job->segment.unused)
            known = job->segment.header.prev_last_seq;
    }
}

/* A lost block never takes a forget with it that nothing else tells of: its ids stand in another block too. So much
 * that cannot be read that both may be lost, or all of a segment, is not judged: what was forgotten would rise, and the
 * disk may read it yet. Nothing is changed then. */
static bool may_hide_forgets(const struct mn_recovery_job *job)
{
    if (job->header_lost)
        return job->segment.unread > 0;
    for (uint32_t d = 0; d < job->damage_count; d++)
        if (!job->damages[d].footer && job->damages[d].salvaged &&
            mn_wal_unread(&job->segment, job->damages[d].offset, job->damages[d].bytes) > 1)
            return true;
    return false;
}

static enum mn_status check_disk(const struct mn_recovery *r)
{
    for (uint32_t i = 0; i < r->job_count; i++)
        if (may_hide_forgets(&r->jobs[i]))
            return MN_FAIL(MN_SYSTEM,
                           "log segment %" PRIu64 ": the disk cannot read %" PRIu64
                           " blocks of it, and forgets may be among them; nothing was changed",
                           r->jobs[i].segment.number, r->jobs[i].segment.unread);
    return MN_OK;
}

enum mn_status mn_recovery_read(struct mn_recovery *r)
{
    MN_TRY(mn_copy_heal_begin(&r->heal, &r->store, r->manifest.wal_first));
    MN_TRY(list_log(r));
    MN_TRY(run_step(r, open_segment));
    tell_durable(r);
    MN_TRY(run_step(r, scan_segment));
    return check_disk(r);
}
