/*
 * bench_write.c - a client of the bench that writes (see bench_write.h).
 *
 * Its requests are packed once; for each send, the request's number and a few floats and characters of every memory are
 * written over in place, and the frame goes to ZeroMQ without a copy. So the client's share of the processor stays
 * small, and what is measured is the store.
 */
#include "ops/cli/bench_write.h"

#include "clients/c/scan.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_time.h"

#include <errno.h>
#include <inttypes.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { FRESH_FLOATS = 16, REPLY_MS = 60000, BUSY_PAUSE_US = 1000 };

/* ---- one request ---- */

/* A packed request and the places in it that change. */
struct request {
    msgpack_sbuffer frame;
    size_t rid;         /* of the 8 bytes */
    size_t *embeddings; /* one per memory */
    size_t *contents;
    bool out;
    uint64_t number, sent_ns;
    enum mn_bench_phase phase; /* when it was sent */
};

struct writer {
    const struct mn_bench_writer *work;
    struct mn_bench_shared *shared;
    struct mn_bench_client *me;
    void *context, *socket;
    struct request requests[MN_BENCH_FLIGHT];
    size_t out;
    uint64_t next_number, next_row, random, began_ns, sent_memories;
};

static void pack_memory(struct writer *w, msgpack_packer *p, struct request *r, size_t i, const float *vector,
                        const char *content)
{
    size_t dim = w->work->cluster->dim;
    msgpack_pack_map(p, w->work->content ? 2 : 1);
    mn_cli_json_pack_text(p, "embedding");
    msgpack_pack_bin(p, dim * sizeof *vector);
    r->embeddings[i] = r->frame.size;
    msgpack_pack_bin_body(p, vector, dim * sizeof *vector);
    if (!w->work->content)
        return;
    mn_cli_json_pack_text(p, "content");
    msgpack_pack_str(p, w->work->content);
    r->contents[i] = r->frame.size;
    msgpack_pack_str_body(p, content, w->work->content);
}

static enum mn_status pack_request(struct writer *w, struct request *r)
{
    static const char filler[] = "what the agent saw, said and was told, and what came of it; ";
    const struct mn_bench_writer *work = w->work;
    msgpack_packer p;
    float *vector = mn_cli_keep(work->cluster->dim * sizeof *vector);
    char *content = mn_cli_keep(work->content + 1);
    r->embeddings = mn_cli_keep(work->batch * sizeof *r->embeddings);
    r->contents = mn_cli_keep(work->batch * sizeof *r->contents);
    for (size_t i = 0; i < work->content; i++)
        content[i] = filler[i % (sizeof filler - 1)];
    msgpack_sbuffer_init(&r->frame);
    msgpack_packer_init(&p, &r->frame, msgpack_sbuffer_write);
    msgpack_pack_map(&p, 4);
    mn_cli_json_pack_text(&p, "op");
    mn_cli_json_pack_text(&p, "remember");
    mn_cli_json_pack_text(&p, "space");
    mn_cli_json_pack_text(&p, work->cluster->space);
    mn_cli_json_pack_text(&p, "rid");
    msgpack_sbuffer_write(&r->frame, "\xcf", 1);
    r->rid = r->frame.size;
    msgpack_sbuffer_write(&r->frame, "\0\0\0\0\0\0\0", 8);
    mn_cli_json_pack_text(&p, "memories");
    msgpack_pack_array(&p, work->batch);
    for (size_t i = 0; i < work->batch; i++) {
        for (size_t d = 0; d < work->cluster->dim; d++)
            vector[d] = mn_bench_load_normal(&w->random);
        pack_memory(w, &p, r, i, vector, content);
    }
    return r->frame.data ? MN_OK : MN_FAIL(MN_INTERNAL, "out of memory for a request");
}

/* A number in -1..1. */
static float random_share(struct writer *w)
{
    return (float)((int64_t)(mn_bench_load_random(&w->random) >> 40) - (1 << 23)) * 0x1p-23f;
}

/* Another embedding: the next row that was given, or the last one sent; either with a few floats changed. */
static void freshen_embedding(struct writer *w, char *embedding)
{
    const struct mn_bench_writer *work = w->work;
    size_t dim = work->cluster->dim, floats = dim < FRESH_FLOATS ? dim : FRESH_FLOATS;
    if (work->rows)
        memcpy(embedding, work->rows + w->next_row++ % work->row_count * dim, dim * sizeof(float));
    for (size_t f = 0; f < floats; f++) {
        float value = 2 * random_share(w), row;
        memcpy(&row, embedding + f * sizeof row, sizeof row);
        if (work->rows)
            value = row * (1 + 0.05f * value);
        memcpy(embedding + f * sizeof value, &value, sizeof value);
    }
}

/* Makes the request a new one: its number, its embeddings, and the first characters of each content. */
static void freshen(struct writer *w, struct request *r)
{
    r->number = w->next_number++;
    for (unsigned i = 0; i < 8; i++)
        r->frame.data[r->rid + i] = (char)(r->number >> (56 - 8 * i));
    for (size_t i = 0; i < w->work->batch; i++) {
        freshen_embedding(w, r->frame.data + r->embeddings[i]);
        uint64_t tag = mn_bench_load_random(&w->random);
        for (size_t c = 0; c < 16 && c < w->work->content; c++)
            r->frame.data[r->contents[i] + c] = "0123456789abcdef"[tag >> 4 * c & 15];
    }
}

static void keep_frame(void *data, void *hint)
{
}

static enum mn_status send_request(struct writer *w, struct request *r)
{
    zmq_msg_t message;
    zmq_msg_init_data(&message, r->frame.data, r->frame.size, keep_frame, NULL);
    r->phase = (enum mn_bench_phase)atomic_load_explicit(&w->shared->phase, memory_order_relaxed);
    if (zmq_msg_send(&message, w->socket, 0) < 0) {
        zmq_msg_close(&message);
        return MN_FAIL_ERRNO("could not send a request");
    }
    return MN_OK;
}

/* ---- replies ---- */

/* Reads `ids`: the first and the last, and with `hash` each with its memory. */
static enum mn_status take_ids(struct writer *w, const struct request *r, struct mn_scan reply,
                               struct mn_bench_acked *acked)
{
    struct mn_scan ids;
    uint32_t count = 0;
    size_t embedding = w->work->cluster->dim * sizeof(float);
    if (!mn_scan_find(reply, "ids", &ids) || !mn_scan_array(&ids, &count) || count != w->work->batch)
        return MN_FAIL(MN_INTERNAL, "an acknowledgement without its %" PRIu64 " ids", w->work->batch);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t id;
        if (!mn_scan_u64(&ids, &id))
            return MN_FAIL(MN_INTERNAL, "an acknowledgement with an id that is no integer");
        if (i == 0)
            acked->first = id;
        acked->last = id;
        if (w->work->hash)
            w->me->hash += mn_bench_load_hash(id, r->frame.data + r->embeddings[i], embedding,
                                              r->frame.data + r->contents[i], w->work->content);
    }
    return MN_OK;
}

/* One producer (this client), one consumer (the prober): the entry is filled, then the head is released. */
static void tell_prober(struct mn_bench_client *me, struct mn_bench_acked acked)
{
    uint64_t head = atomic_load_explicit(&me->ring_head, memory_order_relaxed);
    if (head - atomic_load_explicit(&me->ring_tail, memory_order_acquire) >= MN_BENCH_RING) {
        atomic_fetch_add_explicit(&me->ring_skipped, 1, memory_order_relaxed);
        return;
    }
    me->ring[head % MN_BENCH_RING] = acked;
    atomic_store_explicit(&me->ring_head, head + 1, memory_order_release);
}

static enum mn_status take_refusal(struct writer *w, struct request *r, struct mn_scan reply)
{
    struct mn_scan value;
    const char *text = "no reason given";
    size_t size = strlen(text);
    if (mn_scan_find(reply, "code", &value) && mn_scan_is(value, "busy")) {
        if (r->phase == MN_BENCH_MEASURE)
            atomic_fetch_add_explicit(&w->me->busy, 1, memory_order_relaxed);
        mn_bench_load_pause(BUSY_PAUSE_US);
        return send_request(w, r);
    }
    if (mn_scan_find(reply, "error", &value))
        (void)mn_scan_string(&value, &text, &size);
    return MN_FAIL(MN_INTERNAL, "a write was refused: %.*s", (int)(size < 200 ? size : 200), text);
}

static enum mn_status take_ack(struct writer *w, struct request *r, struct mn_scan reply)
{
    uint64_t took = mn_cli_time_monotonic() - r->sent_ns;
    struct mn_bench_acked acked = {0};
    MN_TRY(take_ids(w, r, reply, &acked));
    atomic_fetch_add_explicit(&w->me->acked, w->work->batch, memory_order_relaxed);
    if (atomic_load_explicit(&w->shared->phase, memory_order_relaxed) == MN_BENCH_MEASURE) {
        atomic_fetch_add_explicit(&w->me->measured, w->work->batch, memory_order_relaxed);
        atomic_fetch_add_explicit(&w->me->requests, 1, memory_order_relaxed);
        if (r->phase == MN_BENCH_MEASURE)
            mn_cli_hist_add(&w->me->latency_ns, took);
    }
    if (w->work->ring)
        tell_prober(w->me, acked);
    r->out = false;
    w->out--;
    return MN_OK;
}

static struct request *find_request(struct writer *w, struct mn_scan reply)
{
    struct mn_scan value;
    uint64_t number;
    if (!mn_scan_find(reply, "rid", &value) || !mn_scan_u64(&value, &number))
        return NULL;
    for (size_t i = 0; i < w->work->in_flight; i++)
        if (w->requests[i].out && w->requests[i].number == number)
            return &w->requests[i];
    return NULL;
}

static enum mn_status receive(struct writer *w)
{
    zmq_msg_t message;
    struct mn_scan value;
    bool ok = false;
    zmq_msg_init(&message);
    if (zmq_msg_recv(&message, w->socket, 0) < 0) {
        zmq_msg_close(&message);
        return errno == EINTR ? MN_OK : MN_FAIL(MN_UNKNOWN, "no reply within %d s", REPLY_MS / 1000);
    }
    const uint8_t *bytes = zmq_msg_data(&message);
    struct mn_scan reply = {bytes, bytes + zmq_msg_size(&message)};
    struct request *r = find_request(w, reply);
    enum mn_status status;
    if (!r || !mn_scan_find(reply, "ok", &value) || !mn_scan_bool(&value, &ok))
        status = MN_FAIL(MN_INTERNAL, "a reply that belongs to no request");
    else
        status = ok ? take_ack(w, r, reply) : take_refusal(w, r, reply);
    zmq_msg_close(&message);
    return status;
}

/* ---- the writer ---- */

/* When the next request is due. With a rate, latencies count from here and not from a send that an earlier delay held
 * up. */
static uint64_t due_ns(const struct writer *w)
{
    if (w->work->rate <= 0)
        return mn_cli_time_monotonic();
    return w->began_ns + (uint64_t)((double)w->sent_memories / w->work->rate * 1e9);
}

static enum mn_status send_free(struct writer *w)
{
    for (size_t i = 0; i < w->work->in_flight; i++) {
        struct request *r = &w->requests[i];
        uint64_t due = due_ns(w);
        if (r->out)
            continue;
        if (due > mn_cli_time_monotonic())
            break;
        freshen(w, r);
        r->sent_ns = due;
        MN_TRY(send_request(w, r));
        r->out = true;
        w->out++;
        w->sent_memories += w->work->batch;
    }
    return MN_OK;
}

static enum mn_status connect_writer(struct writer *w)
{
    struct mneme *client;
    int timeout = REPLY_MS, none = 0;
    struct mneme_reply *info;
    char endpoint[256];
    size_t size;
    MN_TRY(mn_bench_cluster_open(w->work->cluster, &client));
    if (mneme_info(client, &info) != MNEME_OK) {
        enum mn_status status = MN_FAIL(MN_UNAVAILABLE, "%s", mneme_error(client));
        mneme_close(client);
        return status;
    }
    const char *text = mneme_value_bytes(mneme_value_get(mneme_reply_get(info, "endpoints"), "write"), &size);
    snprintf(endpoint, sizeof endpoint, "%.*s", (int)size, text ? text : "");
    mneme_reply_free(info);
    mneme_close(client);
    w->context = zmq_ctx_new();
    w->socket = w->context ? zmq_socket(w->context, ZMQ_DEALER) : NULL;
    if (!w->socket || zmq_setsockopt(w->socket, ZMQ_LINGER, &none, sizeof none) != 0 ||
        zmq_setsockopt(w->socket, ZMQ_RCVTIMEO, &timeout, sizeof timeout) != 0 || zmq_connect(w->socket, endpoint) != 0)
        return MN_FAIL(MN_SYSTEM, "could not connect to %s: %s", endpoint, zmq_strerror(errno));
    return MN_OK;
}

static void wait_for_start(struct mn_bench_shared *shared, struct mn_bench_client *me)
{
    atomic_store(&me->ready, 1);
    while (atomic_load(&shared->phase) == MN_BENCH_PREPARE)
        mn_bench_load_pause(200);
}

enum mn_status mn_bench_write(struct mn_bench_shared *shared, struct mn_bench_client *me, size_t index,
                              const void *work)
{
    struct writer *w = mn_cli_keep(sizeof *w);
    w->work = work;
    w->shared = shared;
    w->me = me;
    w->next_number = 1;
    w->random = 0x6d6e656d65ull + (index << 32);
    w->next_row = mn_bench_load_random(&w->random) >> 1;
    MN_TRY(connect_writer(w));
    for (size_t i = 0; i < w->work->in_flight; i++)
        MN_TRY(pack_request(w, &w->requests[i]));
    wait_for_start(shared, me);
    w->began_ns = mn_cli_time_monotonic();
    while (atomic_load_explicit(&shared->phase, memory_order_relaxed) != MN_BENCH_STOP) {
        MN_TRY(send_free(w));
        if (w->out > 0)
            MN_TRY(receive(w));
        else
            mn_bench_load_pause(100);
    }
    while (w->out > 0)
        MN_TRY(receive(w));
    zmq_close(w->socket);
    zmq_ctx_term(w->context);
    return MN_OK;
}
