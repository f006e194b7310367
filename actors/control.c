/*
 * control.c - the supervisor answers: control and stats requests, the published statistics. See control.h.
 *
 * What it knows itself it answers at once; what the compactor must do goes through forward.c. A request that is wrong
 * costs its sender an error reply and nobody anything else.
 */
#include "actors/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "actors/actor.h"
#include "actors/control_info.h"
#include "actors/forward.h"
#include "actors/snapshot_path.h"
#include "actors/stats_pub.h"
#include "actors/stats_reply.h"
#include "shm/process.h"

#define HIGH_WATER    1000
#define TURN_REQUESTS 64
#define TURN_BYTES    (1u << 20) /* of requests: the one that passes it is the last of its turn */

struct mn_control_sockets {
    struct mn_supervisor *s;
    struct mn_router control, stats;
    struct mn_stats_pub pub;
    struct mn_forward forward;
    struct mn_reply reply;
    uint64_t next_publish_ns;
};

/* ---- open and close ---- */

enum mn_status mn_control_open(struct mn_control_sockets **sockets, struct mn_supervisor *s)
{
    struct mn_control_sockets *c = calloc(1, sizeof *c);
    if (!c)
        return MN_FAIL(MN_INTERNAL, "no memory");
    *sockets = c; /* mn_control_close copes with whatever is open */
    c->s = s;
    c->control.lock_fd = c->stats.lock_fd = -1;
    mn_reply_init(&c->reply);
    MN_TRY(mn_gate_serve(s->gate, &c->control, "control", true, HIGH_WATER));
    MN_TRY(mn_gate_serve(s->gate, &c->stats, "stats", true, HIGH_WATER));
    MN_TRY(mn_stats_pub_open(&c->pub, s->zmq, s->gate, &s->settings));
    return mn_forward_open(&c->forward, s->zmq, &s->store, &c->control, &c->reply);
}

void mn_control_close(struct mn_control_sockets *c)
{
    if (!c)
        return;
    mn_forward_close(&c->forward);
    mn_router_close(&c->control);
    mn_router_close(&c->stats);
    mn_stats_pub_close(&c->pub);
    mn_reply_free(&c->reply);
    free(c);
}

void mn_control_items(const struct mn_control_sockets *c, zmq_pollitem_t items[MN_CONTROL_ITEMS])
{
    items[0] = (zmq_pollitem_t){.socket = c->control.socket, .events = ZMQ_POLLIN};
    items[1] = (zmq_pollitem_t){.socket = c->stats.socket, .events = ZMQ_POLLIN};
    items[2] = (zmq_pollitem_t){.socket = c->forward.link.socket, .fd = -1, .events = ZMQ_POLLIN};
}

/* ---- control requests: each leaves its reply in c->reply, or forwards and clears *answered ---- */

static enum mn_status reload(struct mn_control_sockets *c, const struct mn_request *request)
{
    char changed[1024], restart[1024];
    enum mn_status status = mn_supervisor_reload(c->s, changed, sizeof changed, restart, sizeof restart);
    if (status == MN_USAGE) {
        char why[512];
        snprintf(why, sizeof why, "%s", mn_error_text());
        return MN_FAIL(MN_BAD_REQUEST, "the settings stay as they were: %s", why);
    }
    MN_TRY(status);
    mn_reply_begin(&c->reply, request->rid, 2);
    mn_reply_text(&c->reply, "changed", changed);
    mn_reply_text(&c->reply, "needs_restart", restart);
    return MN_OK;
}

static enum mn_status ask_compactor(struct mn_control_sockets *c, const struct mn_peer *peer,
                                    const struct mn_request *request)
{
    char resolved[MN_PATH_MAX] = "";
    bool wait = false;
    struct mn_wire field;
    if (request->op == MN_OP_CONSOLIDATE) {
        MN_TRY(mn_wire_field(request, "wait", &field));
        MN_TRY(mn_wire_bool(&field, "wait", &wait));
    } else if (request->op == MN_OP_SNAPSHOT) {
        struct mn_str path = {0};
        MN_TRY(mn_wire_field(request, "path", &field));
        MN_TRY(mn_wire_need(&field, "path"));
        MN_TRY(mn_wire_str(&field, "path", 1, MN_PATH_MAX - 1, &path));
        MN_TRY(mn_snapshot_path_check(&c->s->store, c->s->settings.snapshot_roots, path, resolved));
    }
    if (c->s->stopping)
        return MN_FAIL(MN_UNAVAILABLE, "the cluster is stopping");
    if (mn_children_find(c->s, MN_ROLE_COMPACTOR)->pid == 0)
        return MN_FAIL(MN_UNAVAILABLE, "the compactor is being started: try again");
    return mn_forward_send(&c->forward, peer, request, resolved[0] ? resolved : NULL, wait);
}

static enum mn_status answer_control(struct mn_control_sockets *c, const struct mn_peer *peer,
                                     const struct mn_request *request, bool *answered)
{
    switch (request->op) {
    case MN_OP_INFO:
        mn_control_info(c->s, request->rid, !mn_peer_is_local(peer), &c->reply);
        return MN_OK;
    case MN_OP_PING:
        mn_reply_begin(&c->reply, request->rid, 0);
        return MN_OK;
    case MN_OP_RELOAD:
        return reload(c, request);
    case MN_OP_DRAIN:
        mn_reply_begin(&c->reply, request->rid, 0);
        mn_log(NULL, "asked to drain");
        mn_supervisor_stop(c->s);
        return MN_OK;
    default:
        *answered = false;
        return ask_compactor(c, peer, request);
    }
}

/* ---- stats requests ---- */

static enum mn_status answer_text(struct mn_control_sockets *c, const struct mn_request *request, char *text)
{
    if (!text)
        return MN_FAIL(MN_INTERNAL, "no memory for the statistics");
    mn_reply_begin(&c->reply, request->rid, 1);
    mn_reply_text(&c->reply, "text", text);
    free(text);
    return MN_OK;
}

static enum mn_status answer_stats(struct mn_control_sockets *c, const struct mn_request *request)
{
    struct mn_wire field;
    struct mn_str format = {"map", 3};
    const struct mn_stats *stats = &c->s->instance.stats;
    MN_TRY(mn_wire_field(request, "format", &field));
    MN_TRY(mn_wire_str(&field, "format", 1, 32, &format));
    if (mn_wire_is(format, "json"))
        return answer_text(c, request, mn_stats_json(stats));
    if (mn_wire_is(format, "prometheus"))
        return answer_text(c, request, mn_stats_prometheus(stats));
    if (!mn_wire_is(format, "map"))
        return MN_FAIL(MN_BAD_REQUEST, "format must be \"map\", \"json\" or \"prometheus\"");
    mn_reply_begin(&c->reply, request->rid, 1);
    mn_reply_key(&c->reply, "stats");
    mn_stats_pack(stats, &c->reply);
    return MN_OK;
}

/* ---- the turn ---- */

static enum mn_status answer(struct mn_control_sockets *c, unsigned service, const struct mn_peer *peer,
                             zmq_msg_t *body, bool malformed, struct mn_request *request, bool *answered)
{
    if (malformed)
        return mn_router_malformed();
    MN_TRY(mn_wire_open(request, zmq_msg_data(body), zmq_msg_size(body), service));
    MN_TRY(mn_gate_allow(c->s->gate, peer, request));
    MN_TRY(service == MN_SERVICE_STATS ? answer_stats(c, request) : answer_control(c, peer, request, answered));
    return *answered ? mn_reply_end(&c->reply, "leave rid out") : MN_OK;
}

static uint32_t serve(struct mn_control_sockets *c, struct mn_router *router, unsigned service)
{
    uint32_t served = 0;
    size_t bytes = 0;
    struct mn_peer peer;
    zmq_msg_t body;
    bool malformed;
    while (served < TURN_REQUESTS && bytes < TURN_BYTES &&
           mn_router_receive(router, &peer, &body, &malformed) == MN_OK) {
        struct mn_request request = {0};
        bool answered = true;
        bytes += zmq_msg_size(&body);
        enum mn_status status = answer(c, service, &peer, &body, malformed, &request, &answered);
        if (status != MN_OK)
            mn_reply_error(&c->reply, request.rid, status, mn_error_text());
        if (answered || status != MN_OK)
            mn_router_reply(router, &peer, c->reply.data, c->reply.bytes);
        zmq_msg_close(&body);
        served++;
    }
    mn_stat_add(c->s->stats, MN_STAT_control_requests, served);
    return served;
}

uint32_t mn_control_turn(struct mn_control_sockets *c)
{
    uint64_t now = mn_clock_ns();
    uint32_t worked = serve(c, &c->control, MN_SERVICE_CONTROL) + serve(c, &c->stats, MN_SERVICE_STATS);
    worked += mn_forward_turn(&c->forward, now);
    if (now >= c->next_publish_ns) {
        c->next_publish_ns = now + c->s->settings.stats_interval;
        mn_stats_pub_send(&c->pub, &c->s->instance.stats);
    }
    return worked;
}

uint64_t mn_control_next_ns(const struct mn_control_sockets *c)
{
    uint64_t next = mn_forward_next_ns(&c->forward);
    return next < c->next_publish_ns ? next : c->next_publish_ns;
}

void mn_control_compactor_gone(struct mn_control_sockets *c)
{
    mn_forward_refuse_all(&c->forward);
}
