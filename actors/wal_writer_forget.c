/*
 * wal_writer_forget.c - forgets that take their time.
 *
 * A forget by filter becomes a job: it starts between two batches, looks at some thousand rows a turn while writes go
 * on, and is then admitted like any other request, as one record. A purge is admitted at once, and its reply waits
 * until the compactor has rewritten every file that held the bytes; the client may be gone by then, the purge is
 * carried out all the same.
 */
#include "actors/wal_writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "shm/process.h"

#define SLICE_ROWS      4096
#define WAKE_NS         UINT64_C(1000000000)
#define RECEIPT_IDS_MAX 200000u /* in a reply; what a larger purge removed is told by its count */

/* ---- jobs */

static struct mn_forget_job *free_job(struct mn_wal_writer *w)
{
    for (uint32_t i = 0; i < MN_SELECTIONS_MAX; i++) {
        if (!w->jobs[i].used)
            return &w->jobs[i];
    }
    return NULL;
}

static void end_job(struct mn_forget_job *job)
{
    mn_selection_free(job->selection);
    mn_decoder_free(&job->decoder);
    zmq_msg_close(&job->held.body);
    *job = (struct mn_forget_job){0};
}

/* The frame moves, and what was decoded points into it: decode again. */
static enum mn_status decode_again(struct mn_forget_job *job)
{
    zmq_msg_t *body = &job->held.body;
    MN_TRY(mn_wire_open(&job->request, zmq_msg_data(body), zmq_msg_size(body), MN_SERVICE_WRITE));
    return mn_decode_forget(&job->decoder, &job->request, mn_wall_ns(), &job->forget);
}

enum mn_status mn_wal_writer_job_begin(struct mn_wal_writer *w, struct mn_held *held)
{
    struct mn_forget_job *job = free_job(w);
    if (!job)
        return MN_FAIL(MN_BUSY, "%u forgets by filter are under way; try again", MN_SELECTIONS_MAX);
    *job = (struct mn_forget_job){.used = true};
    mn_decoder_init(&job->decoder, w->decoder.dim, w->decoder.metric);
    mn_held_move(&job->held, held);
    enum mn_status status = decode_again(job);
    if (status != MN_OK) {
        zmq_msg_move(&held->body, &job->held.body);
        end_job(job);
    }
    return status;
}

static void refuse_job(struct mn_wal_writer *w, struct mn_forget_job *job, enum mn_status status, const char *text)
{
    mn_wal_writer_refuse(w, &job->held.peer, job->request.rid, status, text);
    end_job(job);
}

static enum mn_status answer_job(struct mn_wal_writer *w, struct mn_forget_job *job, const struct mn_outcome *outcome)
{
    return mn_wal_writer_forgotten(w, &job->held, job->request.rid, &job->forget.forget, outcome->ids,
                                   outcome->id_count, outcome);
}

/* The forget of a complete selection; in the batch, or MN_NOT_READY. */
static enum mn_status admit_job(struct mn_wal_writer *w, struct mn_forget_job *job)
{
    struct mn_outcome outcome = {0};
    MN_TRY(mn_wal_writer_in_time(w, &job->held, &job->request));
    if (job->forget.forget.mode == MN_FORGET_PURGE)
        MN_TRY(mn_wal_writer_purge_room(w));
    enum mn_status status = mn_writer_forget_selected(w->writer, job->selection, &job->forget.forget, &outcome);
    if (status != MN_OK)
        return status;
    return answer_job(w, job, &outcome);
}

uint32_t mn_wal_writer_jobs_admit(struct mn_wal_writer *w)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < MN_SELECTIONS_MAX; i++) {
        struct mn_forget_job *job = &w->jobs[i];
        if (!job->used || !job->seen_all)
            continue;
        enum mn_status status = admit_job(w, job);
        if (status == MN_NOT_READY && mn_writer_pending(w->writer))
            break; /* the batch is full: once more after the commit */
        count++;
        if (status == MN_OK)
            end_job(job);
        else
            refuse_job(w, job, status, mn_error_text());
    }
    return count;
}

/* Starts, unless its idem key has an outcome already (then *answered). */
static enum mn_status start_job(struct mn_wal_writer *w, struct mn_forget_job *job, bool *answered)
{
    struct mn_outcome outcome = {0};
    MN_TRY(mn_writer_replay(w->writer, &job->forget.forget.write, &outcome, answered));
    if (*answered)
        return answer_job(w, job, &outcome);
    return mn_selection_start(w->writer, &job->forget.scope, job->forget.forget.mode, &job->selection);
}

static enum mn_status turn_job(struct mn_wal_writer *w, struct mn_forget_job *job, bool *answered)
{
    if (!job->selection)
        return start_job(w, job, answered);
    return mn_selection_turn(job->selection, SLICE_ROWS, &job->seen_all);
}

uint32_t mn_wal_writer_jobs_turn(struct mn_wal_writer *w)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < MN_SELECTIONS_MAX; i++) {
        struct mn_forget_job *job = &w->jobs[i];
        bool answered = false;
        if (!job->used || job->seen_all)
            continue;
        count++;
        enum mn_status status = turn_job(w, job, &answered);
        if (status != MN_OK)
            refuse_job(w, job, status, mn_error_text());
        else if (answered)
            end_job(job);
    }
    return count;
}

uint32_t mn_wal_writer_jobs_under_way(const struct mn_wal_writer *w)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < MN_SELECTIONS_MAX; i++)
        count += w->jobs[i].used;
    return count;
}

void mn_wal_writer_jobs_refuse(struct mn_wal_writer *w, enum mn_status status, const char *text)
{
    for (uint32_t i = 0; i < MN_SELECTIONS_MAX; i++) {
        if (w->jobs[i].used)
            refuse_job(w, &w->jobs[i], status, text);
    }
}

/* ---- what has been forgotten */

enum mn_status mn_wal_writer_purge_room(const struct mn_wal_writer *w)
{
    if (w->purge_count >= MN_WAL_WRITER_PURGES_MAX)
        return MN_FAIL(MN_BUSY, "%d purges wait for their rewrite; try again", MN_WAL_WRITER_PURGES_MAX);
    return MN_OK;
}

static void free_purge(struct mn_purge_wait *p)
{
    free((char *)(uintptr_t)p->rid.data);
    free(p->ids);
}

static enum mn_status keep_purge(struct mn_wal_writer *w, const struct mn_held *held, struct mn_str rid,
                                 const struct mn_id *ids, uint32_t id_count, const struct mn_outcome *outcome)
{
    struct mn_purge_wait *p = &w->purges[w->purge_count];
    char *rid_copy = malloc(rid.length + 1u);
    *p = (struct mn_purge_wait){.peer = held->peer,
                                .received_ns = held->received_ns,
                                .seq = outcome->seq,
                                .count = outcome->count,
                                .id_count = id_count < RECEIPT_IDS_MAX ? id_count : RECEIPT_IDS_MAX};
    p->rid = (struct mn_str){rid_copy, rid.length};
    p->ids = malloc((p->id_count + 1u) * sizeof *p->ids);
    if (!rid_copy || !p->ids) {
        free_purge(p);
        return MN_FAIL(MN_UNKNOWN,
                       "no memory to wait for the purge, which is carried out; repeat it with the same idem");
    }
    if (rid.length)
        memcpy(rid_copy, rid.data, rid.length);
    if (p->id_count)
        memcpy(p->ids, ids, p->id_count * sizeof *ids);
    mn_writer_purged_seq(w->writer, &p->files_before);
    w->purge_count++;
    w->woken_ns = 0; /* the compactor may have looked before this one came */
    return MN_OK;
}

static void pack_receipt(struct mn_reply *reply, const struct mn_purge_wait *p, uint64_t files)
{
    mn_reply_begin(reply, p->rid, 3);
    mn_reply_uint(reply, "seq", p->seq);
    mn_reply_uint(reply, "count", p->count);
    mn_reply_key(reply, "receipt");
    msgpack_pack_map(&reply->pack, 3);
    mn_reply_uint(reply, "seq", p->seq);
    mn_reply_uint(reply, "files", files);
    mn_reply_key(reply, "ids");
    msgpack_pack_array(&reply->pack, p->id_count);
    for (uint32_t i = 0; i < p->id_count; i++)
        mn_reply_pack_id(reply, &p->ids[i]);
}

/* What waited for its rewrite is answered. */
static void answer_purge(struct mn_wal_writer *w, const struct mn_purge_wait *p, uint64_t files)
{
    char text[256];
    uint64_t segment = mn_writer_purge_unsearched(w->writer);
    if (segment == 0) {
        pack_receipt(&w->reply, p, files - p->files_before);
        mn_wal_writer_send(w, &p->peer, p->received_ns);
        return;
    }
    snprintf(text, sizeof text,
             "the memories are gone from every answer and from all other files, but column segment %" PRIu64
             " is too damaged to be searched for their bytes: the purge is carried out there at the first start that "
             "can open it",
             segment);
    mn_wal_writer_refuse(w, &p->peer, p->rid, MN_CORRUPT, text);
}

enum mn_status mn_wal_writer_forgotten(struct mn_wal_writer *w, const struct mn_held *held, struct mn_str rid,
                                       const struct mn_forget *forget, const struct mn_id *ids, uint32_t id_count,
                                       const struct mn_outcome *outcome)
{
    bool wrote = mn_wal_writer_note(w, outcome);
    if (forget->mode != MN_FORGET_PURGE) {
        mn_reply_begin(&w->reply, rid, 2);
        mn_reply_uint(&w->reply, "seq", outcome->seq);
        mn_reply_uint(&w->reply, "count", outcome->count);
        return mn_wal_writer_defer(w, held, rid);
    }
    if (wrote || outcome->replayed)
        return keep_purge(w, held, rid, ids, id_count, outcome);
    /* Nothing matched: there is no rewrite to wait for. */
    pack_receipt(&w->reply, &(struct mn_purge_wait){.rid = rid, .seq = outcome->seq}, 0);
    return mn_wal_writer_defer(w, held, rid);
}

/* ---- purges that wait */

static void remove_purge(struct mn_wal_writer *w, uint32_t i)
{
    free_purge(&w->purges[i]);
    w->purges[i] = w->purges[--w->purge_count];
}

/* A lost or repeated message does no harm: the compactor looks for itself what there is to do. */
static void wake_compactor(struct mn_wal_writer *w)
{
    uint64_t now = mn_clock_ns();
    zmq_msg_t answer;
    while (mn_link_receive(&w->compactor, &answer))
        zmq_msg_close(&answer);
    if (now - w->woken_ns < WAKE_NS || !mn_writer_purge_waits(w->writer))
        return;
    w->woken_ns = now;
    if (mn_link_ask(&w->compactor, mn_op_word(MN_OP_WAKE), NULL, NULL) != MN_OK && mn_link_cut(&w->compactor) != MN_OK)
        mn_log(w->actor, "cannot wake the compactor: %s", mn_error_text());
}

uint32_t mn_wal_writer_purges_turn(struct mn_wal_writer *w)
{
    uint32_t answered = 0;
    uint64_t files, done = mn_writer_purged_seq(w->writer, &files);
    for (uint32_t i = w->purge_count; i-- > 0;) {
        if (w->purges[i].seq > done)
            continue;
        answer_purge(w, &w->purges[i], files);
        remove_purge(w, i);
        answered++;
    }
    wake_compactor(w);
    return answered;
}

/* in_doubt: those whose batch may be lost hear `unknown`; the others are forgotten for good, but their bytes still lie
 * in files. */
void mn_wal_writer_purges_refuse(struct mn_wal_writer *w, bool in_doubt)
{
    uint64_t durable = atomic_load(&w->actor->instance.control->durable_seq);
    while (w->purge_count) {
        const struct mn_purge_wait *p = &w->purges[w->purge_count - 1];
        if (in_doubt && p->seq > durable)
            mn_wal_writer_refuse(w, &p->peer, p->rid, MN_UNKNOWN,
                                 "the log failed during this purge; repeat it with the same idem");
        else
            mn_wal_writer_refuse(
                w, &p->peer, p->rid, MN_UNAVAILABLE,
                "the memories are gone from every answer; the store stops before their bytes are removed, "
                "which it does at its next start");
        remove_purge(w, w->purge_count - 1);
    }
}

void mn_wal_writer_jobs_close(struct mn_wal_writer *w)
{
    for (uint32_t i = 0; i < MN_SELECTIONS_MAX; i++) {
        if (w->jobs[i].used)
            end_job(&w->jobs[i]);
    }
    while (w->purge_count)
        remove_purge(w, w->purge_count - 1);
    free(w->purges);
}
