/*
 * recovery_judge.c - what the damage in the log means: what was never acknowledged is passed over, everything else is
 * told and copied aside; and where whole segments are missing.
 */
#include <inttypes.h>
#include <stdio.h>

#include "engine/quarantine.h"
#include "engine/recovery_inside.h"
#include "engine/wal_mend.h"

static enum mn_status quarantine_stretch(struct mn_recovery *r, const struct mn_recovery_job *job, uint64_t offset,
                                         uint64_t bytes, uint64_t first_seq, uint64_t last_seq,
                                         const struct mn_batch_footer *footer, const char *reason)
{
    struct mn_quarantine_note note = {.wal_number = job->segment.number,
                                      .offset = offset,
                                      .bytes = bytes,
                                      .first_seq = first_seq,
                                      .last_seq = last_seq,
                                      .footer = footer,
                                      .reason = reason};
    r->report->quarantined++;
    return mn_quarantine_wal(&r->store, job->segment.base ? &job->segment : NULL,
                             &note); /* too short to map: a note alone */
}

/* The file with blocks that the disk cannot read keeps them, whatever takes its place: a disk that is well again, or a
 * person with better tools, may read them yet. */
static enum mn_status keep_unread(struct mn_recovery *r, const struct mn_recovery_job *job, uint64_t after_seq)
{
    const struct mn_wal_segment *segment = &job->segment;
    char reason[160];
    if (segment->unread == 0)
        return MN_OK;
    snprintf(reason, sizeof reason,
             "the disk cannot read %" PRIu64 " of the %" PRIu64
             " blocks of this log segment: this is the file, as it is",
             segment->unread, segment->bytes / MN_WAL_BLOCK);
    struct mn_quarantine_note note = {.wal_number = segment->number,
                                      .bytes = segment->bytes,
                                      .first_seq = after_seq + 1,
                                      .last_seq = job->extent.last_seq,
                                      .reason = reason};
    r->report->quarantined++;
    r->report->unread += segment->unread;
    return mn_quarantine_unread(&r->store, &note);
}

/* The seq of the next log segment that holds anything: what comes before it and is missing was durable. */
static uint64_t next_first_seq(const struct mn_recovery *r, uint32_t job)
{
    for (uint32_t i = job + 1; i < r->job_count; i++)
        if (!r->jobs[i].header_lost && !r->jobs[i].segment.unused)
            return r->jobs[i].segment.header.first_seq;
    return 0;
}

static enum mn_status judge_damage(struct mn_recovery *r, const struct mn_recovery_job *job,
                                   const struct mn_wal_damage *damage)
{
    char reason[200], unread[64] = "";
    uint64_t blocks = mn_wal_unread(&job->segment, damage->offset, damage->bytes);
    if (!damage->salvaged) {
        r->report->torn_bytes += damage->bytes; /* the unfinished end: nobody was told that it is there */
        return MN_OK;
    }
    r->report->lost |= !damage->intact;
    if (blocks > 0)
        snprintf(unread, sizeof unread, " (%" PRIu64 " blocks of it cannot be read)", blocks);
    snprintf(reason, sizeof reason, "%s%s%s", damage->what, unread,
             damage->mended   ? ": one bit, mended"
             : damage->intact ? ": nothing is lost"
                              : "");
    return quarantine_stretch(r, job, damage->offset, damage->bytes, damage->first_seq, damage->last_seq,
                              damage->footer, reason);
}

/* Copies aside what is damaged in a segment, then puts a whole one in its place and reads that. */
static enum mn_status mend(struct mn_recovery *r, struct mn_recovery_job *job, uint64_t after_seq)
{
    bool worth = job->header_damaged || job->segment.cut || job->segment.long_by > 0 || job->segment.unread > 0;
    MN_TRY(keep_unread(r, job, after_seq));
    for (uint32_t d = 0; d < job->damage_count; d++) {
        MN_TRY(judge_damage(r, job, &job->damages[d]));
        worth |= job->damages[d].salvaged;
    }
    if (job->segment.long_by > 0)
        MN_TRY(quarantine_stretch(r, job, job->segment.header.bytes, job->segment.long_by, 0, 0, NULL,
                                  "a log segment is longer than it was made: nothing is lost"));
    if (job->header_damaged)
        MN_TRY(quarantine_stretch(r, job, 0, sizeof job->segment.header, 0, 0, NULL,
                                  "a copy of a log segment's header is damaged: nothing is lost"));
    if (!worth)
        return MN_OK;
    mn_wal_make_room(&r->store, job->segment.bytes);
    enum mn_status status = mn_wal_mend(&job->segment, job->damages, job->damage_count);
    if (status == MN_READ_ONLY && job->segment.unread == 0)
        return MN_OK; /* no room for a whole one: it is served as it was judged, and mended at a later recovery */
    MN_TRY(status);
    r->heal.uncertain = true; /* its twin is not the same any more */
    return mn_recovery_read_again(r, job);
}

/* Acknowledged, and no trace of it in the log: a note alone. */
static enum mn_status note_gap(struct mn_recovery *r, uint64_t wal_number, uint64_t first_seq, uint64_t last_seq,
                               const char *reason)
{
    struct mn_quarantine_note note = {
        .wal_number = wal_number, .first_seq = first_seq, .last_seq = last_seq, .reason = reason};
    r->report->lost = true;
    r->report->quarantined++;
    return mn_quarantine_wal(&r->store, NULL, &note);
}

/* A log segment tells where the one before it ended. */
static enum mn_status judge_gap(struct mn_recovery *r, const struct mn_wal_segment *segment, uint64_t last_number,
                                uint64_t last_seq)
{
    if (segment->header.prev_last_seq <= last_seq)
        return MN_OK;
    return note_gap(r, segment->number - 1, last_seq + 1, segment->header.prev_last_seq,
                    segment->number != last_number + 1 ? "a log segment is missing"
                                                       : "the end of a log segment is missing");
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
static enum mn_status check_manifest(const struct mn_recovery *r)
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
enum mn_status mn_recovery_judge(struct mn_recovery *r)
{
    uint64_t last_seq = r->manifest.log_seq, last_number = r->manifest.wal_first ? r->manifest.wal_first - 1 : 0;
    bool told = false; /* that the segment before is lost */
    MN_TRY(check_manifest(r));
    for (uint32_t i = 0; i < r->job_count; i++) {
        struct mn_recovery_job *job = &r->jobs[i];
        if (job->segment.unused)
            continue;
        if (job->header_lost) {
            r->report->lost = true;
            MN_TRY(quarantine_stretch(r, job, 0, job->segment.bytes, last_seq + 1, 0, NULL,
                                      "both headers of a log segment are damaged"));
            last_number = job->segment.number;
            told = true;
            continue;
        }
        if (!told || job->segment.number != last_number + 1)
            MN_TRY(judge_gap(r, &job->segment, last_number, last_seq));
        told = false;
        MN_TRY(mend(r, job, last_seq));
        if (job->extent.last_seq > last_seq)
            last_seq = job->extent.last_seq;
        last_number = job->segment.number;
        r->report->log_bytes += job->extent.end;
        r->report->batches += job->extent.batches;
        r->report->rows += job->tail.filled;
        r->lost_records += job->lost_records;
        r->report->log_segments++;
    }
    r->report->last_seq = last_seq > r->mark_seq ? last_seq : r->mark_seq; /* no seq is given twice */
    return r->mark_seq <= last_seq ? MN_OK
                                   : note_gap(r, last_number, last_seq + 1, r->mark_seq,
                                              "the end of the log is missing: more was acknowledged than it holds");
}
