/*
 * forward.c - the supervisor's line to the compactor. See forward.h.
 */
#include "actors/forward.h"

#include <stdlib.h>

#include "actors/actor.h"
#include "shm/process.h"

enum mn_status mn_forward_open(struct mn_forward *forward, void *zmq, const struct mn_store *store,
                               struct mn_router *router, struct mn_reply *reply)
{
    *forward = (struct mn_forward){.router = router, .reply = reply};
    return mn_link_open(&forward->link, zmq, store, "role.compactor");
}

static struct mn_str rid_of(const struct mn_pending *pending)
{
    return (struct mn_str){pending->rid, pending->rid_bytes};
}

static void forget(struct mn_pending *pending)
{
    free(pending->rid);
    *pending = (struct mn_pending){0};
}

static void refuse(struct mn_forward *forward, struct mn_pending *pending, enum mn_status status, const char *text)
{
    mn_reply_error(forward->reply, rid_of(pending), status, text);
    mn_router_reply(forward->router, &pending->peer, forward->reply->data, forward->reply->bytes);
    forget(pending);
}

static void refuse_pending(struct mn_forward *forward)
{
    for (uint32_t i = 0; i < MN_FORWARD_MAX; i++)
        if (forward->pending[i].number != 0)
            refuse(forward, &forward->pending[i], MN_UNAVAILABLE,
                   "the compactor has ended before it could answer: try again");
}

void mn_forward_refuse_all(struct mn_forward *forward)
{
    refuse_pending(forward);
    if (mn_link_cut(&forward->link) != MN_OK)
        mn_log(NULL, "%s", mn_error_trail());
}

void mn_forward_close(struct mn_forward *forward)
{
    if (forward->router)
        refuse_pending(forward);
    mn_link_close(&forward->link);
}

static struct mn_pending *find_free(struct mn_forward *forward)
{
    for (uint32_t i = 0; i < MN_FORWARD_MAX; i++)
        if (forward->pending[i].number == 0)
            return &forward->pending[i];
    return NULL;
}

enum mn_status mn_forward_send(struct mn_forward *forward, const struct mn_peer *peer, const struct mn_request *request,
                               const char *path, bool wait)
{
    struct mn_pending *pending = find_free(forward);
    if (!pending)
        return MN_FAIL(MN_BUSY, "%d requests already wait for the compactor", MN_FORWARD_MAX);
    if (!forward->link.socket)
        MN_TRY(mn_link_cut(&forward->link));
    if (request->has_deadline && request->deadline_ms == 0)
        return MN_FAIL(MN_DEADLINE, "deadline_ms is 0: there is no time for this");
    if (request->op == MN_OP_CONSOLIDATE)
        MN_TRY(mn_link_ask_bool(&forward->link, "consolidate", "wait", wait));
    else
        MN_TRY(mn_link_ask(&forward->link, mn_op_word(request->op), path ? "path" : NULL, path));
    *pending = (struct mn_pending){
        .number = forward->link.last_rid, .deadline_ns = mn_wire_until(request, mn_clock_ns()), .peer = *peer};
    if (request->rid.length > 0) {
        pending->rid = malloc(request->rid.length);
        pending->rid_bytes = pending->rid ? request->rid.length : 0;
        if (pending->rid)
            memcpy(pending->rid, request->rid.data, request->rid.length);
    }
    return MN_OK;
}

/* Copies a reply with the client's rid in place of ours. */
static void relay(struct mn_forward *forward, struct mn_pending *pending, const struct mn_wire *map)
{
    msgpack_sbuffer buffer;
    msgpack_packer pack;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&pack, &buffer, msgpack_sbuffer_write);
    msgpack_pack_map(&pack, map->count - (pending->rid_bytes ? 0u : 1u)); /* ours is in it: see take_reply */
    const uint8_t *at = map->inside;
    for (uint32_t i = 0; i < map->count; i++) {
        struct mn_wire key;
        const uint8_t *from = at;
        mn_wire_next(&at, &key);
        const uint8_t *value = at;
        at = mn_wire_skip(at);
        bool ours = mn_wire_is(key.s, "rid");
        if (!ours)
            msgpack_sbuffer_write(&buffer, (const char *)from, (size_t)(at - from));
        else if (pending->rid_bytes) {
            msgpack_sbuffer_write(&buffer, (const char *)from, (size_t)(value - from));
            msgpack_sbuffer_write(&buffer, pending->rid, pending->rid_bytes);
        }
    }
    mn_router_reply(forward->router, &pending->peer, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
}

static void take_reply(struct mn_forward *forward, const void *data, size_t bytes)
{
    static const char *const names[] = {"rid"};
    struct mn_wire map, rid;
    uint64_t number = 0;
    if (mn_wire_check(data, bytes, &map) != MN_OK || map.type != MN_WIRE_MAP ||
        mn_wire_fields(&map, "the reply", names, 1, false, &rid) != MN_OK ||
        mn_wire_uint(&rid, "rid", 1, UINT64_MAX, &number) != MN_OK) {
        mn_log(NULL, "the compactor sent something that is no reply");
        return;
    }
    for (uint32_t i = 0; i < MN_FORWARD_MAX && number != 0; i++) {
        struct mn_pending *pending = &forward->pending[i];
        if (pending->number != number)
            continue;
        relay(forward, pending, &map);
        forget(pending);
        return;
    }
    /* Past its deadline: answered already. */
}

uint32_t mn_forward_turn(struct mn_forward *forward, uint64_t now_ns)
{
    uint32_t worked = 0;
    zmq_msg_t body;
    while (worked < MN_FORWARD_MAX && mn_link_receive(&forward->link, &body)) {
        take_reply(forward, zmq_msg_data(&body), zmq_msg_size(&body));
        zmq_msg_close(&body);
        worked++;
    }
    for (uint32_t i = 0; i < MN_FORWARD_MAX; i++) {
        struct mn_pending *pending = &forward->pending[i];
        if (pending->number == 0 || now_ns < pending->deadline_ns)
            continue;
        refuse(forward, pending, MN_DEADLINE, "deadline_ms has passed; the compactor may still carry this out");
        worked++;
    }
    return worked;
}

uint64_t mn_forward_next_ns(const struct mn_forward *forward)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < MN_FORWARD_MAX; i++)
        if (forward->pending[i].number != 0 && forward->pending[i].deadline_ns < next)
            next = forward->pending[i].deadline_ns;
    return next;
}
