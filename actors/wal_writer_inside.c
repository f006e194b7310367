/*
 * wal_writer_inside.c - what the compactor asks of the writer: to end the active log segment, and to make a proposal
 * the manifest.
 *
 * Only between batches: nothing may be admitted and unpublished then.
 */
#include "actors/wal_writer.h"

static enum mn_status seal(struct mn_wal_writer *w, const struct mn_request *request)
{
    uint64_t seq = 0;
    MN_TRY(mn_writer_seal(w->writer, &seq));
    mn_reply_begin(&w->reply, request->rid, 1);
    mn_reply_uint(&w->reply, "seq", seq);
    return MN_OK;
}

static enum mn_status read_name(const struct mn_request *request, char name[64])
{
    struct mn_wire v;
    struct mn_str s = {0};
    MN_TRY(mn_wire_field(request, "name", &v));
    MN_TRY(mn_wire_need(&v, "name"));
    MN_TRY(mn_wire_str(&v, "name", 1, 63, &s));
    if (memchr(s.data, '/', s.length) || memchr(s.data, '\0', s.length))
        return MN_FAIL(MN_BAD_REQUEST, "name must be a plain file name");
    memcpy(name, s.data, s.length);
    name[s.length] = '\0';
    return MN_OK;
}

static enum mn_status publish(struct mn_wal_writer *w, const struct mn_request *request)
{
    char name[64];
    struct mn_compact_proposal proposal = {0};
    MN_TRY(read_name(request, name));
    MN_TRY(mn_compact_proposal_read(&proposal, &w->actor->instance, name));
    enum mn_status status = mn_writer_commit_proposal(w->writer, &proposal);
    mn_compact_proposal_free(&proposal);
    MN_TRY(status);
    mn_reply_begin(&w->reply, request->rid, 0);
    return MN_OK;
}

static enum mn_status answer(struct mn_wal_writer *w, zmq_msg_t *body, bool malformed, struct mn_request *request)
{
    *request = (struct mn_request){0};
    if (malformed)
        return mn_router_malformed();
    MN_TRY(mn_wire_open(request, zmq_msg_data(body), zmq_msg_size(body), MN_SERVICE_WRITER));
    return request->op == MN_OP_SEAL ? seal(w, request) : publish(w, request);
}

uint32_t mn_wal_writer_inside_turn(struct mn_wal_writer *w)
{
    struct mn_peer peer;
    struct mn_request request;
    zmq_msg_t body;
    bool malformed;
    uint32_t count = 0;
    while (mn_router_receive(&w->internal, &peer, &body, &malformed) == MN_OK) {
        enum mn_status status = answer(w, &body, malformed, &request);
        if (status != MN_OK)
            mn_reply_error(&w->reply, request.rid, status, mn_error_text());
        mn_router_reply(&w->internal, &peer, w->reply.data, w->reply.bytes);
        zmq_msg_close(&body);
        count++;
    }
    return count;
}
