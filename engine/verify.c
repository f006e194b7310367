/*
 * verify.c - every checksum of every file of a store, running or not.
 *
 * A running compaction retires files while we look. So what is found damaged or missing is told only when the manifest,
 * read again, still names the file.
 */
#include "engine/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/columns_file.h"
#include "engine/ivf_file.h"
#include "engine/ledger.h"
#include "engine/manifest.h"
#include "engine/quarantine.h"
#include "engine/wal.h"
#include "engine/wal_copy.h"

#define SETTLE_TRIES 5
#define SETTLE_NS    20000000

struct finding {
    char *path, *what;
};

struct verify {
    const struct mn_store *store;
    uint64_t durable_seq;
    mn_damage_fn damaged;
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
    struct mn_verify_result *result;
    struct mn_manifest manifest;
    uint64_t *logs; /* numbers of the log segments, ascending */
    uint32_t log_count;
    struct finding *findings; /* of the file or segment at hand */
    uint32_t finding_count, finding_max;
    bool out_of_memory;
    uint64_t done, total;
};

/* ---- findings ---- */

static void note(void *context, const char *path, const char *what)
{
    struct verify *v = context;
    if (v->finding_count == v->finding_max) {
        uint32_t max = v->finding_max ? v->finding_max * 2 : 16;
        struct finding *grown = realloc(v->findings, max * sizeof *grown);
        if (!grown) {
            v->out_of_memory = true;
            return;
        }
        v->findings = grown;
        v->finding_max = max;
    }
    struct finding made = {strdup(path), strdup(what)};
    if (made.path && made.what) {
        v->findings[v->finding_count++] = made;
        return;
    }
    v->out_of_memory = true;
    free(made.path);
    free(made.what);
}

/* Tells what was found (or, tell = false, forgets it). */
static void settle(struct verify *v, bool tell)
{
    for (uint32_t f = 0; f < v->finding_count; f++) {
        if (tell) {
            v->result->damaged++;
            v->damaged(v->context, v->findings[f].path, v->findings[f].what);
        }
        free(v->findings[f].path);
        free(v->findings[f].what);
    }
    v->finding_count = 0;
}

static void advance(struct verify *v, uint64_t bytes)
{
    v->done += bytes;
    if (v->done > v->total)
        v->total = v->done;
    if (v->progress)
        v->progress(v->context, v->done, v->total);
}

static const struct mn_manifest_segment *named(const struct mn_manifest *manifest, uint64_t segment)
{
    for (uint32_t s = 0; s < manifest->segment_count; s++)
        if (manifest->segments[s].id == segment)
            return &manifest->segments[s];
    return NULL;
}

/* Does the manifest, as it is now, need this column segment with this liveness (segment != 0), log segment, or ledger?
 */
static enum mn_status still_needed(const struct verify *v, uint64_t segment, uint64_t died_seq, uint64_t log,
                                   uint64_t ledger, bool *needed)
{
    struct mn_manifest now;
    MN_TRY(mn_manifest_read(&now, v->store, NULL));
    if (segment != 0) {
        const struct mn_manifest_segment *there = named(&now, segment);
        *needed = there && there->died_seq == died_seq;
    } else {
        *needed = ledger != 0 ? now.ledger_seq == ledger : log >= now.wal_first;
    }
    mn_manifest_free(&now);
    return MN_OK;
}

/* ---- the small files ---- */

static enum mn_status verify_store(struct verify *v)
{
    mn_store_check(v->store, note, v);
    v->result->files++;
    settle(v, true);
    return MN_OK;
}

/* A torn end is no damage: it is an edit whose writer died before anybody was told of it. */
static void note_manifest(struct verify *v, uint32_t copy, const struct mn_manifest_copy *found)
{
    char path[MN_PATH_MAX], what[128];
    mn_store_path(v->store, path, mn_manifest_names[copy]);
    if (found->missing)
        note(v, path, "the file is missing; its copy is there");
    if (found->damaged_edits > 0) {
        snprintf(what, sizeof what, "%u damaged pieces; a whole newer edit is there", found->damaged_edits);
        note(v, path, what);
    }
    if (found->behind && !found->missing && !found->late)
        note(v, path, "its copy has a newer edit");
}

/* An edit that is being appended looks torn for a moment, and then its copy is behind. */
static bool manifest_at_rest(const struct mn_manifest_report *report)
{
    bool rest = true;
    for (uint32_t i = 0; i < MN_MANIFEST_COPIES; i++)
        rest &= report->copies[i].torn_bytes == 0 && !report->copies[i].behind;
    return rest;
}

static enum mn_status verify_manifest(struct verify *v)
{
    char path[MN_PATH_MAX];
    struct mn_manifest_report report = {0};
    for (int tries = 0; tries < SETTLE_TRIES; tries++) {
        mn_manifest_free(&v->manifest);
        enum mn_status status = mn_manifest_read(&v->manifest, v->store, &report);
        if (status == MN_CORRUPT) {
            note(v, mn_store_path(v->store, path, mn_manifest_names[0]), mn_error_text());
            break;
        }
        MN_TRY(status);
        if (manifest_at_rest(&report))
            break;
        nanosleep(&(struct timespec){.tv_nsec = SETTLE_NS}, NULL);
    }
    for (uint32_t i = 0; i < MN_MANIFEST_COPIES; i++)
        note_manifest(v, i, &report.copies[i]);
    v->result->files += v->manifest.edit > 0 ? MN_MANIFEST_COPIES : 0;
    settle(v, true);
    return MN_OK;
}

static enum mn_status verify_ledger(struct verify *v)
{
    struct mn_ledger *ledger;
    char name[64], path[MN_PATH_MAX];
    bool needed = true;
    uint64_t seq = v->manifest.ledger_seq;
    if (seq == 0)
        return MN_OK;
    snprintf(name, sizeof name, "ledger.%llu", (unsigned long long)seq);
    mn_store_path(v->store, path, name);
    MN_TRY(mn_ledger_new(&ledger));
    enum mn_status status = mn_ledger_load(ledger, v->store, seq);
    mn_ledger_free(ledger);
    if (status == MN_NOT_FOUND || status == MN_CORRUPT) {
        note(v, path, status == MN_NOT_FOUND ? "the file is missing" : mn_error_text());
        status = still_needed(v, 0, 0, 0, seq, &needed);
    }
    v->result->files++;
    settle(v, needed);
    return status;
}

/* True when something is in the store: its writer has made a mark, then. */
static bool was_written_to(const struct verify *v)
{
    bool written = v->manifest.edit > 0;
    for (uint32_t l = 0; l < v->log_count && !written; l++) {
        struct mn_wal_segment segment;
        written = mn_wal_map(&segment, v->store, v->logs[l]) == MN_OK && !segment.unused;
        mn_wal_unmap(&segment);
    }
    return written;
}

/* The mark has two copies; one may be half-written just now. */
static enum mn_status verify_mark(struct verify *v)
{
    char path[MN_PATH_MAX];
    bool bad = false;
    if (mn_io_file_bytes(v->store->io, mn_store_path(v->store, path, "wal/MARK")) == 0 && was_written_to(v)) {
        note(v, path, "the high-water mark is missing");
        settle(v, true);
        return MN_OK;
    }
    for (int tries = 0; tries < SETTLE_TRIES; tries++) {
        mn_wal_mark_read(v->store, &bad);
        if (!bad)
            return MN_OK;
        nanosleep(&(struct timespec){.tv_nsec = SETTLE_NS}, NULL);
    }
    note(v, path, "the high-water mark does not match its checksum");
    settle(v, true);
    return MN_OK;
}

/* ---- codes ---- */

/* Does the manifest, as it is now, name this inverted file (segment != 0), or this codebook anywhere? */
static enum mn_status codes_needed(const struct verify *v, uint64_t segment, uint64_t codebook, bool *needed)
{
    struct mn_manifest now;
    MN_TRY(mn_manifest_read(&now, v->store, NULL));
    *needed = segment == 0 && now.codebook == codebook;
    for (uint32_t s = 0; s < now.segment_count; s++)
        *needed |= now.segments[s].codebook == codebook && (segment == 0 || now.segments[s].id == segment);
    mn_manifest_free(&now);
    return MN_OK;
}

static enum mn_status verify_ivf(struct verify *v, const struct mn_manifest_segment *segment)
{
    bool needed = true;
    if (segment->codebook == 0)
        return MN_OK;
    mn_ivf_verify(v->store, segment->id, segment->codebook, &v->result->files, &v->result->bytes, note, v);
    if (v->finding_count > 0)
        MN_TRY(codes_needed(v, segment->id, segment->codebook, &needed));
    settle(v, needed);
    return MN_OK;
}

static enum mn_status verify_codebook(struct verify *v, uint64_t codebook)
{
    bool needed = true;
    if (codebook == 0)
        return MN_OK;
    mn_codebook_verify(v->store, codebook, &v->result->files, &v->result->bytes, note, v);
    if (v->finding_count > 0)
        MN_TRY(codes_needed(v, 0, codebook, &needed));
    settle(v, needed);
    return MN_OK;
}

/* The one that new files are made with, and older ones that a segment still has: each once. */
static enum mn_status verify_codebooks(struct verify *v)
{
    const struct mn_manifest *m = &v->manifest;
    MN_TRY(verify_codebook(v, m->codebook));
    for (uint32_t s = 0; s < m->segment_count; s++) {
        bool again = m->segments[s].codebook == m->codebook;
        for (uint32_t before = 0; before < s; before++)
            again |= m->segments[before].codebook == m->segments[s].codebook;
        if (!again)
            MN_TRY(verify_codebook(v, m->segments[s].codebook));
    }
    return MN_OK;
}

/* ---- column segments ---- */

/* Both of the files that the manifest names are there; what is in them has been checked. */
static enum mn_status verify_later_died(struct verify *v, const struct mn_manifest_segment *segment)
{
    static const char *const names[] = {"died.", MN_DIED_COPY};
    for (size_t n = 0; segment->died_seq != 0 && n < MN_ARRAY_LEN(names); n++) {
        char name[64], path[MN_PATH_MAX];
        int fd;
        snprintf(name, sizeof name, "%s%llu", names[n], (unsigned long long)segment->died_seq);
        enum mn_status status =
            v->store->io->open(mn_store_column_path(v->store, path, segment->id, name), MN_IO_READ, &fd);
        if (status == MN_NOT_FOUND)
            note(v, path, "the file is missing");
        else
            MN_TRY(status);
        if (status == MN_OK)
            v->store->io->close(fd);
    }
    return MN_OK;
}

/* The liveness that the manifest names: there, and of as many rows. */
static enum mn_status verify_died(struct verify *v, const struct mn_manifest_segment *segment)
{
    char dir[MN_PATH_MAX];
    uint64_t *died = malloc((segment->rows + 1) * sizeof *died);
    if (!died)
        return MN_FAIL(MN_SYSTEM, "no memory for the liveness of %llu rows", (unsigned long long)segment->rows);
    enum mn_status status = mn_columns_read_died(v->store, segment->id, segment->died_seq, segment->rows, died);
    free(died);
    if (status == MN_NOT_FOUND || (status == MN_CORRUPT && v->finding_count == 0)) {
        note(v, mn_store_columns_dir(v->store, dir, segment->id), mn_error_text());
        return MN_OK;
    }
    return status == MN_CORRUPT ? MN_OK : status; /* told above already, block by block */
}

static enum mn_status verify_segment(struct verify *v, const struct mn_manifest_segment *segment)
{
    bool needed = true;
    MN_TRY(mn_columns_verify(v->store, segment->id, &v->result->files, &v->result->bytes, note, v));
    MN_TRY(verify_later_died(v, segment));
    MN_TRY(verify_died(v, segment));
    if (v->finding_count > 0)
        MN_TRY(still_needed(v, segment->id, segment->died_seq, 0, 0, &needed));
    settle(v, needed);
    MN_TRY(verify_ivf(v, segment));
    advance(v, segment->bytes);
    return MN_OK;
}

/* ---- the log ---- */

static bool listed(const struct verify *v, uint64_t number)
{
    for (uint32_t l = 0; l < v->log_count; l++)
        if (v->logs[l] == number)
            return true;
    return false;
}

/* Each segment names the one before it: a missing one shows. */
static enum mn_status verify_chain(struct verify *v, uint64_t number)
{
    struct mn_wal_segment segment;
    char path[MN_PATH_MAX];
    enum mn_status status = mn_wal_map(&segment, v->store, number);
    uint64_t before = segment.header.prev_number;
    bool begun = status == MN_OK && !segment.unused;
    mn_wal_unmap(&segment);
    if (status == MN_CORRUPT || status == MN_NOT_FOUND)
        return MN_OK; /* told by whoever checks that segment */
    MN_TRY(status);
    if (begun && before != 0 && before >= v->manifest.wal_first && !listed(v, before))
        note(v, mn_store_wal_path(v->store, path, before), "the log segment is missing");
    return MN_OK;
}

static enum mn_status verify_log(struct verify *v, uint64_t number)
{
    uint64_t bytes = 0;
    bool needed = true;
    char path[MN_PATH_MAX];
    enum mn_status status = mn_wal_verify(v->store, number, v->durable_seq, &bytes, note, v);
    if (status == MN_NOT_FOUND)
        note(v, mn_store_wal_path(v->store, path, number), "the log segment is missing");
    else
        MN_TRY(status);
    MN_TRY(mn_copy_folder_verify(v->store, number, v->durable_seq, &bytes, note, v));
    MN_TRY(verify_chain(v, number));
    v->result->files += status == MN_OK;
    v->result->bytes += bytes;
    if (v->finding_count > 0)
        MN_TRY(still_needed(v, 0, 0, number, 0, &needed));
    settle(v, needed);
    advance(v, bytes);
    return MN_OK;
}

/* What was acknowledged must be in the log or in columns: a last log segment that is missing is named by nothing else.
 */
static enum mn_status verify_end(struct verify *v)
{
    uint64_t newest = v->manifest.log_seq;
    char path[MN_PATH_MAX], what[128];
    bool damaged;
    uint64_t mark = mn_wal_mark_read(v->store, &damaged);
    for (uint32_t l = v->log_count; l-- > 0 && newest < mark;) {
        uint64_t last;
        enum mn_status status = mn_wal_last_seq(v->store, v->logs[l], &last);
        newest = last > newest ? last : newest;
        if (status != MN_CORRUPT && status != MN_NOT_FOUND)
            MN_TRY(status);
    }
    if (newest >= mark)
        return MN_OK;
    snprintf(what, sizeof what, "seq %llu was acknowledged, and the log ends at %llu", (unsigned long long)mark,
             (unsigned long long)newest);
    if (v->log_count > 0)
        mn_store_wal_path(v->store, path, v->logs[v->log_count - 1]);
    else
        mn_store_path(v->store, path, "wal/MARK");
    note(v, path, what);
    settle(v, true);
    return MN_OK;
}

static enum mn_status verify_quarantine(struct verify *v)
{
    MN_TRY(mn_quarantine_verify(v->store, &v->result->files, note, v));
    settle(v, true);
    return MN_OK;
}

/* ---- all of it ---- */

static enum mn_status measure(struct verify *v)
{
    MN_TRY(mn_wal_list(v->store, &v->logs, &v->log_count));
    for (uint32_t s = 0; s < v->manifest.segment_count; s++)
        v->total += v->manifest.segments[s].bytes;
    for (uint32_t l = 0; l < v->log_count; l++) {
        char path[MN_PATH_MAX];
        int fd;
        uint64_t bytes = 0;
        if (v->logs[l] < v->manifest.wal_first ||
            v->store->io->open(mn_store_wal_path(v->store, path, v->logs[l]), MN_IO_READ, &fd) != MN_OK)
            continue;
        enum mn_status status = v->store->io->size(fd, &bytes);
        v->store->io->close(fd);
        MN_TRY(status);
        v->total += bytes;
    }
    return MN_OK;
}

static enum mn_status verify_all(struct verify *v)
{
    MN_TRY(verify_store(v));
    MN_TRY(verify_manifest(v));
    MN_TRY(measure(v));
    MN_TRY(verify_ledger(v));
    MN_TRY(verify_mark(v));
    MN_TRY(verify_codebooks(v));
    for (uint32_t s = 0; s < v->manifest.segment_count; s++)
        MN_TRY(verify_segment(v, &v->manifest.segments[s]));
    for (uint32_t l = 0; l < v->log_count; l++)
        if (v->logs[l] >= v->manifest.wal_first)
            MN_TRY(verify_log(v, v->logs[l]));
    MN_TRY(verify_end(v));
    MN_TRY(verify_quarantine(v));
    return v->out_of_memory ? MN_FAIL(MN_SYSTEM, "no memory for what verify has found") : MN_OK;
}

enum mn_status mn_verify(const struct mn_store *store, uint64_t durable_seq, mn_damage_fn damaged,
                         void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                         struct mn_verify_result *result)
{
    struct verify v = {.store = store,
                       .durable_seq = durable_seq,
                       .damaged = damaged,
                       .progress = progress,
                       .context = context,
                       .result = result};
    *result = (struct mn_verify_result){0};
    enum mn_status status = verify_all(&v);
    settle(&v, false);
    mn_manifest_free(&v.manifest);
    free(v.logs);
    free(v.findings);
    return status;
}
