/*
 * exchange.c - requests out, replies in: the one engine under every call of libmneme.
 *
 * A request is framed once (frame.h) and kept until its reply came, so that it can be sent again. `pump` is where all
 * of it happens: it sends what is due, takes what has arrived, declares lost what a broken connection or a long silence
 * took away, and gives up on what has run out of time. `look_for` is what a lone recall may do before: take what has
 * arrived, without sleeping in between.
 */
#include "clients/c/client.h"
#include "clients/c/frame.h"
#include "clients/c/scan.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    PAUSE_FIRST_MS = 2, /* the first wait after `busy`; doubles each time */
    PAUSE_MAX_MS = 200,
    REQUEST_MAX = (24 << 20) - 1024, /* the server drops the connection of a larger frame without a word */
};

uint64_t mn_exchange_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* Between half of `ms` and all of it, in nanoseconds. */
static uint64_t jitter(struct mneme *client, uint64_t ms)
{
    return ms * MN_CLIENT_MS / 2 + mn_client_draw(client) % (ms * MN_CLIENT_MS / 2 + 1);
}

static unsigned lane_of(struct mneme *client, enum mneme_service service)
{
    if (service != MNEME_RECALL)
        return service == MNEME_STATS ? 2 : (unsigned)service;
    return MN_CLIENT_FIRST_RECALL + (client->recall_count ? client->recall_next % client->recall_count : 0);
}

/* ---- outcomes ---- */

static void finish(struct mn_pending *p, enum mneme_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void finish(struct mn_pending *p, enum mneme_code code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(p->error, sizeof p->error, fmt, args);
    va_end(args);
    p->code = code;
    p->state = MN_PENDING_DONE;
    free(p->frame);
    p->frame = NULL;
}

/* Time is up. What was refused every time it was heard is known not to have happened; a lost copy of a write may have.
 */
static void give_up(struct mn_pending *p)
{
    bool heard = p->state == MN_PENDING_WAITING && !p->ever_lost;
    if (heard && p->code != MNEME_OK) {
        char sentence[MN_CLIENT_ERROR_SIZE];
        memcpy(sentence, p->error, sizeof sentence);
        finish(p, p->code, "%s", sentence);
    } else if (p->service == MNEME_WRITE) {
        finish(p, MNEME_UNKNOWN, "no reply within %d ms: the write may have happened; repeat it with the same idem",
               p->timeout_ms);
    } else {
        finish(p, MNEME_UNAVAILABLE, "no reply within %d ms", p->timeout_ms);
    }
}

static void lose(struct mneme *client, struct mn_pending *p, uint64_t now)
{
    p->ever_lost = true;
    if (!p->resendable) {
        finish(p, MNEME_UNAVAILABLE, "the store went away before it answered; this request is not repeated by itself");
        return;
    }
    if (p->service == MNEME_RECALL)
        p->lane = lane_of(client, MNEME_RECALL);
    p->state = MN_PENDING_WAITING;
    p->send_at_ns = now + jitter(client, MN_CLIENT_RECONNECT_MS);
}

/* Everything that is out on a lane is lost. A recall client moves to the next worker; what ZeroMQ still holds for this
 * one goes, or it would have it all to do when it is back. */
static void lose_lane(struct mneme *client, unsigned lane, uint64_t now)
{
    if (client->recall_count > 1 && lane >= MN_CLIENT_FIRST_RECALL) {
        if (lane == lane_of(client, MNEME_RECALL))
            client->recall_next++;
        mn_lane_close(&client->lanes[lane]);
    }
    for (unsigned i = 0; i < MNEME_IN_FLIGHT_MAX; i++)
        if (client->pending[i].state == MN_PENDING_OUT && client->pending[i].lane == lane)
            lose(client, &client->pending[i], now);
}

/* ---- replies ---- */

static struct mn_pending *find_ticket(struct mneme *client, uint64_t ticket)
{
    for (unsigned i = 0; i < MNEME_IN_FLIGHT_MAX; i++)
        if (client->pending[i].state != MN_PENDING_FREE && client->pending[i].ticket == ticket)
            return &client->pending[i];
    return NULL;
}

static void copy_sentence(struct mn_pending *p, struct mn_scan reply)
{
    struct mn_scan value;
    const char *text;
    size_t size;
    if (!mn_scan_find(reply, "error", &value) || !mn_scan_string(&value, &text, &size)) {
        text = "the store gave no reason";
        size = strlen(text);
    }
    if (size >= sizeof p->error)
        size = sizeof p->error - 1;
    memcpy(p->error, text, size);
    p->error[size] = 0;
}

/* A refusal: `busy` is tried again later, and so is a write of unknown fate (its idem makes that safe). */
static void refuse(struct mneme *client, struct mn_pending *p, struct mn_scan reply, uint64_t now)
{
    struct mn_scan value;
    const char *word;
    size_t size;
    bool has_word = mn_scan_find(reply, "code", &value) && mn_scan_string(&value, &word, &size);
    p->code = has_word ? mneme_code_from_word(word, size) : MNEME_INTERNAL;
    copy_sentence(p, reply);
    bool again = p->code == MNEME_BUSY || (p->code == MNEME_UNKNOWN && p->service == MNEME_WRITE);
    if (p->code == MNEME_UNKNOWN)
        p->ever_lost = true;
    uint64_t doubled = (uint64_t)PAUSE_FIRST_MS << (p->tries < 10 ? p->tries : 10);
    uint64_t pause = jitter(client, doubled < PAUSE_MAX_MS ? doubled : PAUSE_MAX_MS);
    p->tries++;
    if (again && p->resendable && now + pause < p->give_up_ns) {
        p->state = MN_PENDING_WAITING;
        p->send_at_ns = now + pause;
        return;
    }
    p->state = MN_PENDING_DONE;
    free(p->frame);
    p->frame = NULL;
}

/* Takes one message over. What does not decode, or belongs to no request, is dropped: a late second reply looks like
 * that. */
static void take_reply(struct mneme *client, zmq_msg_t *message, uint64_t now)
{
    const uint8_t *bytes = zmq_msg_data(message);
    struct mn_scan reply = {bytes, bytes + zmq_msg_size(message)}, value;
    uint64_t rid;
    bool ok;
    struct mn_pending *p = NULL;
    if (mn_scan_find(reply, "rid", &value) && mn_scan_u64(&value, &rid))
        p = find_ticket(client, rid);
    if (!p || p->state == MN_PENDING_DONE || !mn_scan_find(reply, "ok", &value) || !mn_scan_bool(&value, &ok)) {
        zmq_msg_close(message);
        return;
    }
    if (!ok) {
        refuse(client, p, reply, now);
        zmq_msg_close(message);
        return;
    }
    p->reply = mn_reply_from_message(message);
    if (p->reply)
        finish(p, MNEME_OK, "%s", "");
    else
        finish(p, MNEME_NO_MEMORY, "out of memory for a reply");
}

static bool is_out(const struct mneme *client, unsigned lane)
{
    unsigned seen = 0;
    for (unsigned i = 0; i < MNEME_IN_FLIGHT_MAX && seen < client->in_flight; i++) {
        const struct mn_pending *p = &client->pending[i];
        if (p->state == MN_PENDING_OUT && p->lane == lane)
            return true;
        seen += p->state != MN_PENDING_FREE;
    }
    return false;
}

/* Takes what has arrived while anything is awaited there: each look into an empty socket costs system calls. */
static void drain_lane(struct mneme *client, unsigned number, uint64_t now)
{
    struct mn_lane *lane = &client->lanes[number];
    while (lane->socket && is_out(client, number)) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        if (zmq_msg_recv(&message, lane->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&message);
            return;
        }
        if (zmq_msg_more(&message) || zmq_msg_size(&message) == 0)
            zmq_msg_close(&message); /* a delimiter */
        else
            take_reply(client, &message, now);
    }
}

/* ---- the pump ---- */

/* Lanes without a request out are not listened to. A connection that broke meanwhile has lost nothing, but a worker
 * that went away may stay away: a recall goes to the next one. */
static void meet_old_break(struct mneme *client, struct mn_pending *p, uint64_t now)
{
    struct mn_lane *lane = &client->lanes[p->lane];
    if (!lane->socket || is_out(client, p->lane) || !mn_lane_heard_break(lane))
        return;
    lose_lane(client, p->lane, now);
    if (p->service == MNEME_RECALL)
        p->lane = lane_of(client, MNEME_RECALL);
}

static void send_pending(struct mneme *client, struct mn_pending *p, uint64_t now)
{
    meet_old_break(client, p, now);
    struct mn_lane *lane = &client->lanes[p->lane];
    if (!mn_lane_open(client, lane)) {
        finish(p, MNEME_SYSTEM, "could not connect to %s: %s", lane->endpoint, zmq_strerror(errno));
        return;
    }
    if (zmq_send(lane->socket, p->frame, p->size, ZMQ_DONTWAIT) < 0) {
        if (errno == EAGAIN || errno == EINTR)
            p->send_at_ns = now + MN_CLIENT_RECONNECT_MS * MN_CLIENT_MS;
        else
            finish(p, MNEME_SYSTEM, "could not send to %s: %s", lane->endpoint, zmq_strerror(errno));
        return;
    }
    p->state = MN_PENDING_OUT;
    p->sent_ns = now;
    p->lost_ns = p->resend_ns ? now + p->resend_ns : UINT64_MAX;
}

/* Does what time demands of each request and answers when to look again. */
static uint64_t tend(struct mneme *client, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    unsigned seen = 0;
    for (unsigned i = 0; i < MNEME_IN_FLIGHT_MAX && seen < client->in_flight; i++) {
        struct mn_pending *p = &client->pending[i];
        seen += p->state != MN_PENDING_FREE;
        if (p->state != MN_PENDING_WAITING && p->state != MN_PENDING_OUT)
            continue;
        if (now >= p->give_up_ns) {
            give_up(p);
            continue;
        }
        if (p->state == MN_PENDING_OUT && now >= p->lost_ns) {
            mn_lane_close(&client->lanes[p->lane]);
            lose_lane(client, p->lane, now);
        }
        if (p->state == MN_PENDING_WAITING && now >= p->send_at_ns)
            send_pending(client, p, now);
        uint64_t due = p->state == MN_PENDING_WAITING ? p->send_at_ns : p->lost_ns;
        if (p->state == MN_PENDING_DONE)
            due = now;
        due = due < p->give_up_ns ? due : p->give_up_ns;
        next = due < next ? due : next;
    }
    return next;
}

/* Waits until something arrives or `next`, then takes it in. Not zmq_poll, which asks every socket twice: a recall is
 * short enough for system calls to show. */
static void listen_lanes(struct mneme *client, uint64_t now, uint64_t next)
{
    struct pollfd fds[2 * MN_CLIENT_LANES];
    unsigned lanes[MN_CLIENT_LANES];
    nfds_t open = 0;
    bool ready = false;
    for (unsigned i = 0; i < MN_CLIENT_LANES; i++) {
        struct mn_lane *lane = &client->lanes[i];
        if (!lane->socket || !is_out(client, i))
            continue;
        lanes[open] = i;
        fds[2 * open] = (struct pollfd){.fd = lane->socket_fd, .events = POLLIN};
        fds[2 * open + 1] = (struct pollfd){.fd = lane->monitor_fd, .events = POLLIN};
        ready = mn_lane_has_reply(lane) || ready;
        open++;
    }
    uint64_t wait_ms = next > now && !ready ? (next - now + MN_CLIENT_MS - 1) / MN_CLIENT_MS : 0;
    if (poll(fds, 2 * open, wait_ms < INT_MAX ? (int)wait_ms : INT_MAX) <= 0 && !ready)
        return;
    now = mn_exchange_now();
    for (nfds_t i = 0; i < open; i++) {
        /* The order matters: what arrived before the break is a reply, not a loss. */
        bool broken = fds[2 * i + 1].revents && mn_lane_heard_break(&client->lanes[lanes[i]]);
        if (ready || broken || fds[2 * i].revents)
            drain_lane(client, lanes[i], now);
        if (broken)
            lose_lane(client, lanes[i], now);
    }
}

static void pump(struct mneme *client)
{
    uint64_t now = mn_exchange_now();
    uint64_t next = tend(client, now);
    if (next != UINT64_MAX)
        listen_lanes(client, now, next);
}

/* Instead of sleeping at once, where that is the quicker way (spin.h). */
static void look_for(struct mneme *client, const struct mn_pending *p)
{
    uint64_t first = mn_exchange_now(), last, now = first;
    do {
        last = now;
        drain_lane(client, p->lane, now);
        if (p->state != MN_PENDING_OUT)
            return;
        now = mn_exchange_now();
    } while (mn_spin_again(&client->spin, first, last, now));
}

/* A recall that is waited for alone: its time tells which way is the quicker one. */
static void await_recall(struct mneme *client, struct mn_pending *p)
{
    uint64_t sent_ns = p->sent_ns;
    if (mn_spin_looks(&client->spin))
        look_for(client, p);
    while (p->state != MN_PENDING_DONE)
        pump(client);
    mn_spin_took(&client->spin, mn_exchange_now() - sent_ns);
}

static struct mn_pending *free_pending(struct mneme *client)
{
    for (unsigned i = 0; i < MNEME_IN_FLIGHT_MAX; i++)
        if (client->pending[i].state == MN_PENDING_FREE)
            return &client->pending[i];
    return NULL;
}

/* ---- public ---- */

enum mneme_code mneme_submit(struct mneme *client, enum mneme_service service, const void *request, size_t size,
                             uint64_t *ticket)
{
    struct mn_frame_facts facts;
    client->error[0] = 0;
    *ticket = 0;
    if ((unsigned)service >= MNEME_SERVICE_COUNT)
        return mn_client_fail(client, MNEME_BAD_REQUEST, "there is no service %d", (int)service);
    if (size > REQUEST_MAX)
        return mn_client_fail(client, MNEME_TOO_LARGE, "a request has at most %d bytes, this one %zu", REQUEST_MAX,
                              size);
    enum mneme_code code = mn_frame_read(client, request, size, &facts);
    if (code != MNEME_OK)
        return code;
    struct mn_pending *p = free_pending(client);
    if (!p)
        return mn_client_fail(client, MNEME_BUSY, "%d requests are in flight: collect one first", MNEME_IN_FLIGHT_MAX);
    unsigned lane = lane_of(client, service);
    if (!client->lanes[lane].endpoint)
        return mn_client_fail(client, MNEME_UNAVAILABLE, "the store named no endpoint for this request");
    memset(p, 0, sizeof *p);
    p->service = service;
    p->lane = lane;
    p->ticket = client->next_ticket++;
    mn_frame_set_patience(client, p, &facts);
    if (service == MNEME_WRITE)
        mn_frame_choose_idem(client, &facts);
    code = mn_frame_make(client, p, &facts, (const uint8_t *)request + size);
    if (code != MNEME_OK)
        return code;
    p->state = MN_PENDING_WAITING;
    client->in_flight++;
    send_pending(client, p, mn_exchange_now());
    *ticket = p->ticket;
    return MNEME_OK;
}

static struct mn_pending *find_done(struct mneme *client, uint64_t ticket)
{
    for (unsigned i = 0; i < MNEME_IN_FLIGHT_MAX; i++) {
        struct mn_pending *p = &client->pending[i];
        if (p->state == MN_PENDING_DONE && (ticket == 0 || p->ticket == ticket))
            return p;
    }
    return NULL;
}

enum mneme_code mneme_collect(struct mneme *client, uint64_t *ticket, struct mneme_reply **reply)
{
    struct mn_pending *p;
    client->error[0] = 0;
    if (reply)
        *reply = NULL;
    if (*ticket ? !find_ticket(client, *ticket) : client->in_flight == 0) {
        *ticket = 0;
        return mn_client_fail(client, MNEME_NOT_FOUND, "no such request is in flight");
    }
    p = *ticket ? find_ticket(client, *ticket) : NULL;
    if (p && p->state == MN_PENDING_OUT && p->service == MNEME_RECALL && client->in_flight == 1)
        await_recall(client, p);
    while (!(p = find_done(client, *ticket)))
        pump(client);
    *ticket = p->ticket;
    enum mneme_code code = p->code;
    if (code != MNEME_OK)
        memcpy(client->error, p->error, sizeof client->error);
    if (reply)
        *reply = p->reply;
    else
        mneme_reply_free(p->reply);
    p->reply = NULL;
    p->state = MN_PENDING_FREE;
    client->in_flight--;
    return code;
}

enum mneme_code mneme_call(struct mneme *client, enum mneme_service service, const void *request, size_t size,
                           struct mneme_reply **reply)
{
    uint64_t ticket;
    if (reply)
        *reply = NULL;
    enum mneme_code code = mneme_submit(client, service, request, size, &ticket);
    return code == MNEME_OK ? mneme_collect(client, &ticket, reply) : code;
}

size_t mneme_in_flight(const struct mneme *client)
{
    return client->in_flight;
}

void mn_exchange_close(struct mneme *client)
{
    for (unsigned i = 0; i < MNEME_IN_FLIGHT_MAX; i++) {
        free(client->pending[i].frame);
        mneme_reply_free(client->pending[i].reply);
    }
    for (unsigned i = 0; i < MN_CLIENT_LANES; i++)
        mn_lane_close(&client->lanes[i]);
}
