/*
 * fuzz_wire.c - any bytes as a request: the check, the operations of both sockets, and meta on its way there and back.
 */
#include "actors/wire_decode.h"
#include "actors/wire_meta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mn_decoder decoder;
static struct mn_reply reply;

static void decode_write(const struct mn_request *request)
{
    struct mn_remember remember;
    struct mn_revise revise;
    struct mn_forget_request forget;
    enum mn_status ignored = MN_OK;
    bool accepted;
    if (request->op == MN_OP_REMEMBER)
        ignored = mn_decode_remember(&decoder, request, 1, &remember, &accepted);
    else if (request->op == MN_OP_REVISE)
        ignored = mn_decode_revise(&decoder, request, 1, &revise);
    else
        ignored = mn_decode_forget(&decoder, request, 1, &forget);
    (void)ignored;
}

static void decode_read(const struct mn_request *request)
{
    struct mn_recall_request recall;
    struct mn_get_request get;
    struct mn_list_request list;
    struct mn_scope scope;
    enum mn_status ignored = MN_OK;
    if (request->op == MN_OP_RECALL)
        ignored = mn_decode_recall(&decoder, request, 1, &recall);
    else if (request->op == MN_OP_GET)
        ignored = mn_decode_get(&decoder, request, &get);
    else if (request->op == MN_OP_LIST)
        ignored = mn_decode_list(&decoder, request, &list);
    else
        ignored = mn_decode_count(&decoder, request, &scope);
    (void)ignored;
}

/* What was read must be packed again without complaint. */
static void there_and_back(const uint8_t *data, size_t size)
{
    struct mn_wire value;
    struct mn_str compact;
    if (mn_wire_check(data, size, &value) != MN_OK)
        return;
    mn_decode_begin(&decoder);
    if (mn_wire_meta_read(&decoder.arena, &value, "it", &compact) != MN_OK)
        return;
    mn_reply_begin(&reply, (struct mn_str){0}, 1);
    MN_ASSERT(mn_wire_meta_pack(&reply, compact) == MN_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mn_request request;
    if (!decoder.dim) {
        mn_decoder_init(&decoder, 4, MN_METRIC_COSINE);
        mn_reply_init(&reply);
    }
    if (mn_wire_open(&request, data, size, MN_SERVICE_WRITE) == MN_OK)
        decode_write(&request);
    if (mn_wire_open(&request, data, size, MN_SERVICE_RECALL) == MN_OK)
        decode_read(&request);
    mn_reply_error(&reply, request.rid, MN_BAD_REQUEST, mn_error_text());
    MN_ASSERT(mn_wire_check(reply.data, reply.bytes, &request.body) == MN_OK);
    there_and_back(data, size);
    return 0;
}
