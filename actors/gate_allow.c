/*
 * gate_allow.c - may this request be carried out: the operation's right, and the spaces it names or implies. See
 * gate.h.
 *
 * What an operation needs stands in its row in wire.h. A client that may use some spaces only must name them: nothing
 * is narrowed behind its back.
 */
#include "actors/gate_inside.h"
#include "actors/wire_decode.h"

struct need {
    enum mn_right right;
    enum mn_reach reach;
};

static const struct need needs[MN_OPS] = {
#define X(name, word, service, right, reach, help) [name] = {right, reach},
    MN_OP_TABLE(X)
#undef X
};

static enum mn_status check_right(const struct mn_client *client, const struct mn_request *request)
{
    char needed[32], granted[64];
    enum mn_right right = needs[request->op].right;
    if (right == MN_RIGHT_ANY || (client->rights & right))
        return MN_OK;
    return MN_FAIL(MN_UNAUTHORIZED, "\"%s\" may not %s: that needs the right %s, and the list of clients gives it %s",
                   client->name, mn_op_word(request->op), mn_rights_text(right, needed, sizeof needed),
                   mn_rights_text(client->rights, granted, sizeof granted));
}

static enum mn_status check_space(const struct mn_client *client, struct mn_str space)
{
    char shown[MN_WIRE_SHOWN_MAX];
    if (mn_client_may_use(client, space.data, space.length))
        return MN_OK;
    return MN_FAIL(MN_UNAUTHORIZED, "the list of clients does not let \"%s\" use the space \"%s\"", client->name,
                   mn_wire_shown(space, shown));
}

static enum mn_status check_each(const struct mn_client *client, const struct mn_wire *array)
{
    const uint8_t *at = array->inside;
    for (uint32_t i = 0; i < array->count; i++) {
        struct mn_wire v;
        const uint8_t *here = at;
        mn_wire_next(&here, &v);
        if (v.type == MN_WIRE_STR)
            MN_TRY(check_space(client, v.s));
        at = mn_wire_skip(at);
    }
    return MN_OK;
}

/* What is of a wrong type here names no space; decoding refuses it. */
static enum mn_status check_spaces(const struct mn_client *client, const struct mn_request *request)
{
    struct mn_wire space = {.type = MN_WIRE_NIL};
    enum mn_reach reach = needs[request->op].reach;
    if (client->all_spaces || reach == MN_REACH_NONE)
        return MN_OK;
    if (reach == MN_REACH_SPACE)
        MN_TRY(mn_wire_field(request, "space", &space));
    if (space.type == MN_WIRE_ABSENT)
        return check_space(client, mn_decode_default_space);
    if (space.type == MN_WIRE_STR)
        return check_space(client, space.s);
    if (space.type == MN_WIRE_ARRAY)
        return check_each(client, &space);
    if (space.type != MN_WIRE_NIL)
        return MN_OK;
    return MN_FAIL(MN_UNAUTHORIZED, "\"%s\" may use some spaces only, and this asks for all: %s", client->name,
                   reach == MN_REACH_SPACE ? "name them in `space`" : "ask `count` of each");
}

enum mn_status mn_gate_allow(struct mn_gate *gate, const struct mn_peer *peer, const struct mn_request *request)
{
    if (mn_peer_is_local(peer) || strcmp(peer->user, MN_USER_PLAIN) == 0)
        return MN_OK;
    pthread_mutex_lock(&gate->mutex);
    const struct mn_client *client = peer->user[0] ? mn_clients_find(&gate->clients, peer->user) : NULL;
    enum mn_status status;
    if (!client)
        status = MN_FAIL(MN_UNAUTHORIZED, "the key of this connection is not on the list of clients");
    else if ((status = check_right(client, request)) == MN_OK)
        status = check_spaces(client, request);
    pthread_mutex_unlock(&gate->mutex);
    if (status == MN_UNAUTHORIZED)
        mn_stat_add(gate->stats, MN_STAT_requests_unauthorized, 1);
    return status;
}
