/*
 * wire_read_request.c - what every request has: its operation, whether this socket answers it, rid and deadline (see
 * wire_read.h).
 */
#include <stdio.h>

#include "actors/wire_read.h"
#include "shm/process.h"

static const struct {
    const char *word;
    unsigned service;
} ops[MN_OPS] = {
#define X(name, word, service, ...) [name] = {word, service},
    MN_OP_TABLE(X) MN_INTERNAL_OP_TABLE(X)
#undef X
};

static const char *const service_words[] = {
    [MN_SERVICE_CONTROL] = "control", [MN_SERVICE_WRITE] = "write", [MN_SERVICE_RECALL] = "recall",
    [MN_SERVICE_STATS] = "stats",     [MN_SERVICE_WRITER] = NULL,   [MN_SERVICE_COMPACTOR] = NULL,
};

const char *mn_op_word(enum mn_op op)
{
    return (unsigned)op < MN_OPS ? ops[op].word : "?";
}

unsigned mn_op_service(enum mn_op op)
{
    return ops[op].service;
}

/* "remember, revise, forget" */
static void list_ops(unsigned service, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < MN_OPS; i++) {
        if (ops[i].service == service && used < size)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", ops[i].word);
    }
}

static enum mn_status find_op(struct mn_request *request, struct mn_str word, unsigned service)
{
    char shown[MN_WIRE_SHOWN_MAX], known[128];
    for (unsigned i = 0; i < MN_OPS; i++) {
        if (!mn_wire_is(word, ops[i].word))
            continue;
        request->op = (enum mn_op)i;
        if (ops[i].service == service)
            return MN_OK;
        if (service_words[ops[i].service])
            return MN_FAIL(MN_BAD_OP, "%s is answered on the %s socket, not on this one; info names the endpoints",
                           ops[i].word, service_words[ops[i].service]);
    }
    list_ops(service, known, sizeof known);
    return MN_FAIL(MN_BAD_OP, "there is no operation \"%s\" here; this socket answers %s", mn_wire_shown(word, shown),
                   known);
}

enum mn_status mn_wire_open(struct mn_request *request, const void *data, size_t bytes, unsigned service)
{
    static const char *const names[] = {"rid", "op", "deadline_ms"};
    struct mn_wire fields[3];
    *request = (struct mn_request){.op = MN_OPS};
    MN_TRY(mn_wire_check(data, bytes, &request->body));
    if (request->body.type != MN_WIRE_MAP)
        return mn_wire_wrong(&request->body, "the request", "a map with string keys");
    enum mn_status status = mn_wire_fields(&request->body, "the request", names, 3, false, fields);
    if (fields[0].type != MN_WIRE_ABSENT)
        request->rid =
            (struct mn_str){(const char *)fields[0].at, (uint32_t)(mn_wire_skip(fields[0].at) - fields[0].at)};
    MN_TRY(status);
    if (request->rid.length > MN_WIRE_RID_MAX) {
        uint32_t length = request->rid.length;
        request->rid.length = 0;
        return MN_FAIL(MN_TOO_LARGE, "rid has %u bytes; %u is the most", length, MN_WIRE_RID_MAX);
    }
    struct mn_str word = {0};
    MN_TRY(mn_wire_need(&fields[1], "op"));
    MN_TRY(mn_wire_str(&fields[1], "op", 1, UINT32_MAX, &word));
    MN_TRY(find_op(request, word, service));
    request->has_deadline = fields[2].type != MN_WIRE_ABSENT;
    return mn_wire_uint(&fields[2], "deadline_ms", 0, UINT64_MAX, &request->deadline_ms);
}

uint64_t mn_wire_until(const struct mn_request *request, uint64_t received_ns)
{
    if (!request->has_deadline || request->deadline_ms > (UINT64_MAX - received_ns) / 1000000)
        return UINT64_MAX;
    return received_ns + request->deadline_ms * 1000000;
}
