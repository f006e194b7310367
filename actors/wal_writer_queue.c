/*
 * wal_writer_queue.c - the two ends of a write: requests that were received and not admitted, replies that wait for the
 * commit.
 *
 * ZeroMQ's I/O thread receives while the log syncs; here what it has is taken over into a ring of write.queue_max, so
 * that the time a request waits is known, and too long a queue is answered `busy` instead of growing.
 */
#include "actors/wal_writer.h"

#include <stdlib.h>

#include "actors/gate.h"
#include "engine/fault.h"
#include "shm/process.h"

#define RECEIVE_MAX 4096 /* messages a turn: the commit must not wait for a flood */

static struct mn_held *slot(struct mn_wal_writer *w, uint32_t i)
{
    return &w->queue[(w->queue_first + i) % w->queue_max];
}

enum mn_status mn_wal_writer_queue_open(struct mn_wal_writer *w)
{
    w->queue_max = (uint32_t)w->actor->settings.write_queue_max;
    w->queue = calloc(w->queue_max, sizeof *w->queue);
    return w->queue ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory for the queue of %u writes", w->queue_max);
}

static void free_acks(struct mn_acks *acks)
{
    free(acks->list);
    mn_arena_free(&acks->arena);
}

void mn_wal_writer_queue_close(struct mn_wal_writer *w)
{
    while (w->queue_count)
        mn_wal_writer_drop_first(w);
    free(w->queue);
    free_acks(&w->acks);
    free_acks(&w->due);
}

void mn_wal_writer_drop_first(struct mn_wal_writer *w)
{
    struct mn_held *held = slot(w, 0);
    w->queue_bytes -= held->bytes;
    zmq_msg_close(&held->body);
    w->queue_first = (w->queue_first + 1) % w->queue_max;
    w->queue_count--;
}

/* The rid of a request that is refused unread. */
static struct mn_str rid_of(struct mn_held *held)
{
    struct mn_request request = {0};
    if (held->malformed)
        return request.rid;
    enum mn_status ignored =
        mn_wire_open(&request, zmq_msg_data(&held->body), zmq_msg_size(&held->body), MN_SERVICE_WRITE);
    (void)ignored; /* a bad request has the rid that could be found */
    return request.rid;
}

static void refuse_held(struct mn_wal_writer *w, struct mn_held *held, enum mn_status status, const char *text)
{
    mn_wal_writer_refuse(w, &held->peer, rid_of(held), status, text);
}

/* A request that may not be made takes no room. What does not open is refused when its turn comes. */
static enum mn_status may_enter(struct mn_wal_writer *w, struct mn_held *held)
{
    struct mn_request request = {0};
    if (mn_peer_is_local(&held->peer) || held->malformed ||
        mn_wire_open(&request, zmq_msg_data(&held->body), held->bytes, MN_SERVICE_WRITE) != MN_OK)
        return MN_OK;
    return mn_gate_allow(w->actor->gate, &held->peer, &request);
}

static bool has_room(const struct mn_wal_writer *w)
{
    return w->queue_count < w->queue_max && w->queue_bytes < MN_WAL_WRITER_QUEUE_BYTES;
}

/* The end of the ring takes one more; it is still outside the queue until queue_count says so. */
static void keep(struct mn_wal_writer *w, struct mn_held *came)
{
    struct mn_held *last = slot(w, w->queue_count);
    mn_held_move(last, came);
    w->queue_bytes += last->bytes;
    w->queue_count++;
}

uint32_t mn_wal_writer_receive(struct mn_wal_writer *w)
{
    struct mn_held came;
    uint32_t count = 0;
    enum mn_status status;
    uint64_t now = mn_clock_ns();
    while (count < RECEIVE_MAX && mn_router_receive(&w->public, &came.peer, &came.body, &came.malformed) == MN_OK) {
        count++;
        came.received_ns = now;
        came.bytes = zmq_msg_size(&came.body);
        if (w->closing)
            refuse_held(w, &came, MN_UNAVAILABLE, "the store is stopping; try again when it is back");
        else if ((status = may_enter(w, &came)) != MN_OK)
            refuse_held(w, &came, status, mn_error_text());
        else if (!has_room(w))
            refuse_held(w, &came, MN_BUSY, "too many writes wait for the log (write.queue_max); try again");
        else
            keep(w, &came);
        zmq_msg_close(&came.body);
    }
    if (count) {
        mn_stat_add(w->actor->stats, MN_STAT_write_requests, count);
        w->decode_ns += mn_clock_ns() - now;
    }
    return count;
}

void mn_wal_writer_refuse_all(struct mn_wal_writer *w, enum mn_status status, const char *text)
{
    while (w->queue_count) {
        refuse_held(w, slot(w, 0), status, text);
        mn_wal_writer_drop_first(w);
    }
}

/* ---- replies */

void mn_wal_writer_refuse(struct mn_wal_writer *w, const struct mn_peer *peer, struct mn_str rid, enum mn_status status,
                          const char *text)
{
    mn_reply_error(&w->reply, rid, status, text);
    mn_router_reply(&w->public, peer, w->reply.data, w->reply.bytes);
    mn_stat_add(w->actor->stats, status == MN_BUSY ? MN_STAT_write_busy : MN_STAT_write_errors, 1);
}

void mn_wal_writer_send(struct mn_wal_writer *w, const struct mn_peer *peer, uint64_t received_ns)
{
    mn_router_reply(&w->public, peer, w->reply.data, w->reply.bytes);
    mn_stat_record(w->actor->stats, MN_STAT_write_ack_ns, mn_clock_ns() - received_ns);
}

static bool copy(struct mn_arena *arena, struct mn_str from, struct mn_str *to)
{
    char *data = mn_arena_take(arena, from.length + 1u, 1);
    if (data && from.length)
        memcpy(data, from.data, from.length);
    *to = (struct mn_str){data, from.length};
    return data != NULL;
}

static bool make_room(struct mn_acks *acks)
{
    if (acks->count < acks->room)
        return true;
    uint32_t room = acks->room ? acks->room * 2 : 64;
    struct mn_ack *list = realloc(acks->list, room * sizeof *list);
    if (!list)
        return false;
    acks->list = list;
    acks->room = room;
    return true;
}

enum mn_status mn_wal_writer_defer(struct mn_wal_writer *w, const struct mn_held *held, struct mn_str rid)
{
    struct mn_acks *acks = &w->acks;
    struct mn_str reply = {w->reply.data, (uint32_t)w->reply.bytes};
    struct mn_ack ack = {.peer = held->peer, .received_ns = held->received_ns};
    if (!copy(&acks->arena, rid, &ack.rid) || !copy(&acks->arena, reply, &ack.reply) || !make_room(acks))
        return MN_FAIL(MN_UNKNOWN, "no memory to acknowledge this write; repeat it with the same idem");
    acks->list[acks->count++] = ack;
    return MN_OK;
}

void mn_wal_writer_turn_acks(struct mn_wal_writer *w)
{
    struct mn_acks sent = w->due;
    MN_ASSERT(sent.count == 0);
    w->due = w->acks;
    w->acks = sent;
}

static void clear(struct mn_acks *acks)
{
    acks->count = 0;
    mn_arena_reset(&acks->arena);
}

void mn_wal_writer_send_acks(struct mn_wal_writer *w)
{
    uint64_t now = mn_clock_ns();
    for (uint32_t i = 0; i < w->due.count; i++) {
        const struct mn_ack *ack = &w->due.list[i];
        if (i == 1)
            MN_FAULT_POINT(writer_mid_acks);
        mn_router_reply(&w->public, &ack->peer, ack->reply.data, ack->reply.length);
        mn_stat_record(w->actor->stats, MN_STAT_write_ack_ns, now - ack->received_ns);
    }
    clear(&w->due);
}

static void fail(struct mn_wal_writer *w, struct mn_acks *acks)
{
    for (uint32_t i = 0; i < acks->count; i++)
        mn_wal_writer_refuse(
            w, &acks->list[i].peer, acks->list[i].rid, MN_UNKNOWN,
            "the log failed during this write, which may or may not have happened; repeat it with the same idem");
    clear(acks);
}

void mn_wal_writer_fail_acks(struct mn_wal_writer *w)
{
    fail(w, &w->due);
    fail(w, &w->acks);
}
