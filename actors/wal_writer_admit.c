/*
 * wal_writer_admit.c - one request from its frame to the batch.
 *
 * A refusal leaves at once; the reply of what is admitted is built here too (the ids of an outcome live only until the
 * next admission) and waits for the commit.
 */
#include "actors/wal_writer.h"

#include "shm/process.h"

/* What becomes of the request at the head of the queue. */
enum fate {
    FATE_DONE,       /* answered, or in the batch */
    FATE_BATCH_FULL, /* admit it again after a commit */
    FATE_HANDED_ON   /* a job has it, and wants the batch committed */
};

struct admission {
    struct mn_wal_writer *w;
    struct mn_held *held;
    struct mn_request request;
    int64_t wall_ns;
    uint64_t mark_ns; /* since when the current stage runs */
};

/* Ends a stage: adds its time to *stage_ns. */
static void mark(struct admission *a, uint64_t *stage_ns)
{
    uint64_t now = mn_clock_ns();
    *stage_ns += now - a->mark_ns;
    a->mark_ns = now;
}

/* ---- replies */

bool mn_wal_writer_note(struct mn_wal_writer *w, const struct mn_outcome *outcome)
{
    if (outcome->replayed)
        mn_stat_add(w->actor->stats, MN_STAT_write_replays, 1);
    if (outcome->replayed || outcome->seq <= w->last_seq)
        return false;
    w->last_seq = outcome->seq;
    return true;
}

static void pack_remembered(struct mn_reply *reply, struct mn_str rid, const struct mn_outcome *outcome)
{
    mn_reply_begin(reply, rid, 3);
    mn_reply_uint(reply, "seq", outcome->seq);
    mn_reply_key(reply, "ids");
    msgpack_pack_array(&reply->pack, outcome->id_count);
    for (uint32_t i = 0; i < outcome->id_count; i++)
        mn_reply_pack_id(reply, &outcome->ids[i]);
    mn_reply_key(reply, "versions");
    msgpack_pack_array(&reply->pack, outcome->id_count);
    for (uint32_t i = 0; i < outcome->id_count; i++)
        msgpack_pack_uint64(&reply->pack, outcome->seq);
}

/* ---- operations: decode, admit, build the reply */

static enum mn_status remember(struct admission *a)
{
    struct mn_wal_writer *w = a->w;
    struct mn_remember remember;
    struct mn_outcome outcome = {0};
    bool accepted;
    MN_TRY(mn_decode_remember(&w->decoder, &a->request, a->wall_ns, &remember, &accepted));
    mark(a, &w->decode_ns);
    MN_TRY(mn_writer_remember(w->writer, &remember, &outcome));
    mn_wal_writer_note(w, &outcome);
    pack_remembered(&w->reply, a->request.rid, &outcome);
    if (!accepted)
        return mn_wal_writer_defer(w, a->held, a->request.rid);
    mn_wal_writer_send(w, &a->held->peer, a->held->received_ns);
    return MN_OK;
}

static enum mn_status revise(struct admission *a)
{
    struct mn_wal_writer *w = a->w;
    struct mn_revise revise;
    struct mn_outcome outcome = {0};
    MN_TRY(mn_decode_revise(&w->decoder, &a->request, a->wall_ns, &revise));
    mark(a, &w->decode_ns);
    MN_TRY(mn_writer_revise(w->writer, &revise, &outcome));
    mn_wal_writer_note(w, &outcome);
    mn_reply_begin(&w->reply, a->request.rid, 1);
    mn_reply_uint(&w->reply, "seq", outcome.seq);
    return mn_wal_writer_defer(w, a->held, a->request.rid);
}

static enum mn_status forget(struct admission *a, enum fate *fate)
{
    struct mn_wal_writer *w = a->w;
    struct mn_forget_request forget;
    struct mn_outcome outcome = {0};
    MN_TRY(mn_decode_forget(&w->decoder, &a->request, a->wall_ns, &forget));
    mark(a, &w->decode_ns);
    if (forget.forget.mode == MN_FORGET_PURGE)
        MN_TRY(mn_wal_writer_purge_room(w));
    if (forget.selects) {
        MN_TRY(mn_wal_writer_job_begin(w, a->held));
        *fate = FATE_HANDED_ON;
        return MN_OK;
    }
    MN_TRY(mn_writer_forget(w->writer, &forget.forget, &outcome));
    return mn_wal_writer_forgotten(w, a->held, a->request.rid, &forget.forget, forget.forget.ids,
                                   forget.forget.id_count, &outcome);
}

/* ---- one request */

enum mn_status mn_wal_writer_in_time(const struct mn_wal_writer *w, const struct mn_held *held,
                                     const struct mn_request *request)
{
    uint64_t now = mn_clock_ns();
    if (now + w->commit_ns <= mn_wire_until(request, held->received_ns))
        return MN_OK;
    return MN_FAIL(
        MN_DEADLINE,
        "the write waited %.1f ms and a commit takes %.1f ms: too late for deadline_ms %llu; it did not happen",
        (double)(now - held->received_ns) / 1e6, (double)w->commit_ns / 1e6, (unsigned long long)request->deadline_ms);
}

static enum mn_status dispatch(struct admission *a, enum fate *fate)
{
    struct mn_held *held = a->held;
    if (held->malformed)
        return mn_router_malformed();
    MN_TRY(mn_wire_open(&a->request, zmq_msg_data(&held->body), zmq_msg_size(&held->body), MN_SERVICE_WRITE));
    MN_TRY(mn_wal_writer_in_time(a->w, held, &a->request));
    switch (a->request.op) {
    case MN_OP_REMEMBER:
        return remember(a);
    case MN_OP_REVISE:
        return revise(a);
    case MN_OP_FORGET:
        return forget(a, fate);
    default:
        return MN_FAIL(MN_INTERNAL, "the writer has no operation %s", mn_op_word(a->request.op));
    }
}

/* A full batch comes as MN_NOT_READY; with nothing in it the request can never be admitted. */
static enum fate admit_first(struct mn_wal_writer *w)
{
    struct admission a = {.w = w, .held = &w->queue[w->queue_first], .wall_ns = mn_wall_ns(), .mark_ns = mn_clock_ns()};
    enum fate fate = FATE_DONE;
    enum mn_status status = dispatch(&a, &fate);
    mark(&a, &w->admit_ns);
    if (status == MN_NOT_READY && mn_writer_pending(w->writer))
        return FATE_BATCH_FULL;
    if (status != MN_OK)
        mn_wal_writer_refuse(w, &a.held->peer, a.request.rid, status, mn_error_text());
    mn_wal_writer_drop_first(w);
    return fate;
}

uint32_t mn_wal_writer_admit(struct mn_wal_writer *w)
{
    uint32_t count = 0;
    while (w->queue_count && mn_writer_batch_bytes(w->writer) < w->actor->settings.write_batch_bytes) {
        enum fate fate = admit_first(w);
        if (fate == FATE_BATCH_FULL)
            break;
        count++;
        if (fate == FATE_HANDED_ON)
            break;
    }
    return count;
}
