/*
 * recall_peek.c - a look into a request before it is decoded (see recall_peek.h).
 */
#include "actors/recall_peek.h"

#define GET_FAST_MAX     256 /* ids; more is work for the slow lane */
#define CONTEXT_FAST_MAX 20

/* A wrong type is passed over here; decoding tells. */
static enum mn_status peek_recall(struct mn_recall_peek *peek)
{
    enum { EXACT, EMBEDDINGS, MIN_SEQ, CONTEXT, COUNT };
    static const char *const names[] = {"exact", "embeddings", "min_seq", "context"};
    struct mn_wire fields[COUNT];
    MN_TRY(mn_wire_fields(&peek->request.body, "the request", names, COUNT, false, fields));
    bool exact = fields[EXACT].type == MN_WIRE_BOOL && fields[EXACT].boolean;
    bool context = fields[CONTEXT].type == MN_WIRE_UINT && fields[CONTEXT].u64 > CONTEXT_FAST_MAX;
    peek->slow = exact || context || fields[EMBEDDINGS].type != MN_WIRE_ABSENT;
    peek->min_seq = fields[MIN_SEQ].type == MN_WIRE_UINT ? fields[MIN_SEQ].u64 : 0;
    return MN_OK;
}

static enum mn_status peek_get(struct mn_recall_peek *peek)
{
    struct mn_wire ids;
    MN_TRY(mn_wire_field(&peek->request, "ids", &ids));
    peek->slow = ids.type == MN_WIRE_ARRAY && ids.count > GET_FAST_MAX;
    return MN_OK;
}

enum mn_status mn_recall_peek(struct mn_recall_peek *peek, const void *data, size_t bytes)
{
    *peek = (struct mn_recall_peek){0};
    MN_TRY(mn_wire_open(&peek->request, data, bytes, MN_SERVICE_RECALL));
    switch (peek->request.op) {
    case MN_OP_RECALL:
        return peek_recall(peek);
    case MN_OP_GET:
        return peek_get(peek);
    default:
        peek->slow = true;
        return MN_OK;
    }
}
