/*
 * recall_role.c - a recall worker: answers recall, get, list, count and spaces on recall.<index>.
 *
 * The main loop is the fast lane: it answers recalls and gets itself, one after the other, and hands what may take long
 * to the threads of the slow lane (recall.threads - 1; with one thread it does everything). A request with a min_seq
 * that is not visible yet is parked and looked at again each millisecond. Nothing waits for a writer, a disk sync or a
 * client.
 */
#include <stdlib.h>

#include "actors/actor.h"
#include "actors/gate.h"
#include "actors/recall_lane.h"
#include "actors/recall_peek.h"
#include "actors/recall_slow.h"
#include "actors/router.h"
#include "engine/hot.h"
#include "shm/process.h"

#define RECEIVE_MAX    64         /* requests a turn */
#define SEND_BYTES     (1u << 20) /* of slow answers in one turn; the one that passes it is the last */
#define PARKED_MAX     1024
#define IDLE_MS        1000
#define PARKED_IDLE_MS 1

/* A request that waits for its min_seq. */
struct parked {
    struct mn_held held;
    uint64_t min_seq, until_ns;
};

struct recall_role {
    struct mn_actor *actor;
    struct mn_router router;
    struct mn_recall_lane lane;
    struct mn_recall_slow slow;
    struct mn_recall_shadow shadow;
    uint32_t slow_threads;
    struct parked *parked;
    uint32_t parked_count;
    uint64_t lost_told; /* of router.lost, what the statistics know */
    bool closing;       /* drained once: what comes now is refused */
};

static enum mn_status start(struct mn_actor *actor, void **state)
{
    char name[32];
    struct recall_role *r = calloc(1, sizeof *r);
    if (!r)
        return MN_FAIL(MN_INTERNAL, "no memory for the recall worker");
    *state = r;
    r->actor = actor;
    r->router.lock_fd = -1;
    actor->idle_ms = IDLE_MS;
    r->parked = calloc(PARKED_MAX, sizeof *r->parked);
    if (!r->parked)
        return MN_FAIL(MN_INTERNAL, "no memory for the recall worker");
    mn_hot_place(actor->node, actor->settings.recall_lock_hot);
    MN_TRY(mn_recall_lane_open(&r->lane, actor));
    r->lane.shadow = &r->shadow;
    r->slow_threads = (uint32_t)actor->settings.recall_threads - 1;
    MN_TRY(mn_recall_slow_open(&r->slow, actor, r->slow_threads));
    mn_actor_poll_fd(actor, r->slow.event_fd);
    snprintf(name, sizeof name, "recall.%u", actor->index);
    MN_TRY(mn_gate_serve(actor->gate, &r->router, name, true, (int)actor->settings.recall_high_water));
    mn_actor_poll(actor, r->router.socket);
    return MN_OK;
}

static void stop(struct mn_actor *actor, void *state)
{
    struct recall_role *r = state;
    if (!r)
        return;
    mn_recall_slow_close(&r->slow);
    free(r->shadow.due);
    for (uint32_t i = 0; i < r->parked_count; i++)
        zmq_msg_close(&r->parked[i].held.body);
    free(r->parked);
    mn_recall_lane_close(&r->lane);
    mn_router_close(&r->router);
    free(r);
}

/* ---- answers */

static void send_reply(struct recall_role *r, const struct mn_peer *peer)
{
    mn_router_reply(&r->router, peer, r->lane.reply.data, r->lane.reply.bytes);
}

static void refuse(struct recall_role *r, const struct mn_peer *peer, struct mn_str rid, enum mn_status status,
                   const char *text)
{
    mn_recall_lane_refuse(&r->lane, rid, status, text);
    send_reply(r, peer);
}

/* ---- requests */

static enum mn_status park(struct recall_role *r, struct mn_held *held, const struct mn_recall_peek *peek)
{
    if (r->parked_count == PARKED_MAX)
        return MN_FAIL(MN_BUSY, "%d requests wait for their min_seq; try again", PARKED_MAX);
    struct parked *p = &r->parked[r->parked_count++];
    mn_held_move(&p->held, held);
    p->min_seq = peek->min_seq;
    p->until_ns = peek->request.has_deadline ? mn_wire_until(&peek->request, held->received_ns)
                                             : held->received_ns + MN_MIN_SEQ_WAIT_MS * UINT64_C(1000000);
    return MN_OK;
}

/* The reply has left: what is due is checked by a thread of the slow lane, if that has nothing else to do. */
static void shadow(struct recall_role *r, struct mn_held *held)
{
    struct mn_shadow_answer *answer = mn_recall_shadow_take(&r->shadow);
    if (answer && !mn_recall_slow_shadow(&r->slow, held, answer))
        free(answer);
}

/* To the lane it belongs to. What is handed on leaves `held` empty. */
static enum mn_status place(struct recall_role *r, struct mn_held *held, const struct mn_recall_peek *peek)
{
    uint64_t visible = atomic_load_explicit(&r->actor->instance.control->visible_seq, memory_order_acquire);
    if (peek->min_seq > visible)
        return park(r, held, peek);
    if (peek->slow && r->slow_threads > 0)
        return mn_recall_slow_put(&r->slow, held);
    mn_recall_lane_answer(&r->lane, &peek->request, held->received_ns);
    send_reply(r, &held->peer);
    shadow(r, held);
    return MN_OK;
}

static void handle(struct recall_role *r, struct mn_held *held)
{
    struct mn_recall_peek peek = {0};
    enum mn_status status;
    if (held->malformed)
        status = mn_router_malformed();
    else
        status = mn_recall_peek(&peek, zmq_msg_data(&held->body), zmq_msg_size(&held->body));
    if (status == MN_OK)
        status = mn_gate_allow(r->actor->gate, &held->peer, &peek.request);
    if (status == MN_OK && r->closing)
        status = MN_FAIL(MN_UNAVAILABLE, "the store is stopping; try again when it is back");
    if (status == MN_OK)
        status = place(r, held, &peek);
    if (status != MN_OK)
        refuse(r, &held->peer, peek.request.rid, status, mn_error_text());
}

static uint32_t receive(struct recall_role *r)
{
    uint32_t count = 0;
    struct mn_held held;
    while (count < RECEIVE_MAX && mn_router_receive(&r->router, &held.peer, &held.body, &held.malformed) == MN_OK) {
        held.received_ns = mn_clock_ns();
        held.bytes = zmq_msg_size(&held.body);
        handle(r, &held);
        zmq_msg_close(&held.body);
        count++;
    }
    return count;
}

/* ---- those that wait */

static void refuse_parked(struct recall_role *r, struct parked *p, enum mn_status status, const char *text)
{
    struct mn_recall_peek peek = {0};
    enum mn_status ignored = mn_recall_peek(&peek, zmq_msg_data(&p->held.body), zmq_msg_size(&p->held.body));
    (void)ignored; /* it was good when it came */
    refuse(r, &p->held.peer, peek.request.rid, status, text);
}

/* Takes it out of the table first: handling may park it again. */
static void release(struct recall_role *r, uint32_t i, bool late)
{
    struct parked p = {.min_seq = r->parked[i].min_seq};
    mn_held_move(&p.held, &r->parked[i].held);
    if (i != --r->parked_count) {
        struct parked *last = &r->parked[r->parked_count];
        mn_held_move(&r->parked[i].held, &last->held);
        r->parked[i].min_seq = last->min_seq;
        r->parked[i].until_ns = last->until_ns;
    }
    if (late)
        refuse_parked(r, &p, MN_DEADLINE, "min_seq was not visible before the deadline; try again");
    else
        handle(r, &p.held);
    zmq_msg_close(&p.held.body);
}

static uint32_t look_at_parked(struct recall_role *r)
{
    uint32_t count = 0;
    if (r->parked_count == 0)
        return 0;
    uint64_t now = mn_clock_ns();
    uint64_t visible = atomic_load_explicit(&r->actor->instance.control->visible_seq, memory_order_acquire);
    for (uint32_t i = r->parked_count; i-- > 0;) {
        bool met = r->parked[i].min_seq <= visible;
        if (!met && now < r->parked[i].until_ns)
            continue;
        release(r, i, !met);
        count++;
    }
    return count;
}

/* The threads may make answers as fast as they are sent: what came meanwhile has its turn in between. */
static uint32_t send_slow(struct recall_role *r)
{
    struct mn_recall_job *job;
    uint32_t count = 0;
    size_t bytes = 0;
    if (r->slow_threads == 0)
        return 0;
    while (bytes < SEND_BYTES && (job = mn_recall_slow_take(&r->slow)) != NULL) {
        bytes += job->reply_bytes;
        if (job->reply)
            mn_router_reply(&r->router, &job->held.peer, job->reply, job->reply_bytes);
        mn_recall_job_free(job);
        count++;
    }
    return count;
}

/* ---- the turn */

static void show_gauges(struct recall_role *r)
{
    struct mn_stats_page *stats = r->actor->stats;
    mn_stat_set(stats, MN_STAT_recall_waiting, r->parked_count);
    mn_stat_set(stats, MN_STAT_recall_slow_queue, mn_recall_slow_waiting(&r->slow));
    if (r->router.lost > r->lost_told)
        mn_stat_add(stats, MN_STAT_recall_lost_replies, r->router.lost - r->lost_told);
    r->lost_told = r->router.lost;
}

/* SIGTERM came: what was received is finished, later requests are refused, nobody waits for a write any more. */
static void drain(struct recall_role *r, uint32_t received)
{
    if (!r->closing) {
        r->closing = received < RECEIVE_MAX;
        return;
    }
    while (r->parked_count > 0) {
        struct parked *p = &r->parked[--r->parked_count];
        refuse_parked(r, p, MN_UNAVAILABLE, "the store is stopping; try again when it is back");
        zmq_msg_close(&p->held.body);
    }
    if (mn_recall_slow_under_way(&r->slow) == 0)
        mn_actor_done(r->actor);
}

static enum mn_status turn(struct mn_actor *actor, void *state, uint32_t *worked)
{
    struct recall_role *r = state;
    r->shadow.every = actor->settings.recall_shadow_every;
    uint32_t received = receive(r);
    *worked += received;
    *worked += send_slow(r);
    *worked += look_at_parked(r);
    show_gauges(r);
    actor->idle_ms = r->parked_count ? PARKED_IDLE_MS : IDLE_MS;
    if (actor->draining) {
        actor->idle_ms = PARKED_IDLE_MS;
        drain(r, received);
    }
    return MN_OK;
}

const struct mn_role_ops mn_recall_role = {
    .role = MN_ROLE_RECALL, .long_turns = true, .start = start, .turn = turn, .stop = stop};
