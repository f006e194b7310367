/*
 * link.c - a DEALER to another role's ROUTER. See link.h.
 */
#include "actors/link.h"

#include <errno.h>
#include <stdio.h>

#include <msgpack.h>

#include "actors/actor.h"

#define RECONNECT_MS 10 /* a restarted role is back within milliseconds */
#define HIGH_WATER   256

static enum mn_status connect_socket(struct mn_link *link)
{
    int linger = 0, reconnect = RECONNECT_MS, high_water = HIGH_WATER;
    link->socket = zmq_socket(link->zmq, ZMQ_DEALER);
    if (!link->socket)
        return MN_FAIL(MN_SYSTEM, "zmq_socket: %s", zmq_strerror(errno));
    if (zmq_setsockopt(link->socket, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_setsockopt(link->socket, ZMQ_RECONNECT_IVL, &reconnect, sizeof reconnect) != 0 ||
        zmq_setsockopt(link->socket, ZMQ_SNDHWM, &high_water, sizeof high_water) != 0 ||
        zmq_connect(link->socket, link->endpoint) != 0) {
        enum mn_status status = MN_FAIL(MN_SYSTEM, "cannot connect to %s: %s", link->endpoint, zmq_strerror(errno));
        mn_link_close(link);
        return status;
    }
    return MN_OK;
}

enum mn_status mn_link_open(struct mn_link *link, void *zmq, const struct mn_store *store, const char *role)
{
    *link = (struct mn_link){.zmq = zmq};
    mn_actor_endpoint(store, link->endpoint, role);
    return connect_socket(link);
}

void mn_link_close(struct mn_link *link)
{
    if (link->socket)
        zmq_close(link->socket);
    link->socket = NULL;
}

enum mn_status mn_link_cut(struct mn_link *link)
{
    mn_link_close(link);
    return connect_socket(link);
}

static void pack_text(msgpack_packer *pack, const char *text)
{
    size_t length = strlen(text);
    msgpack_pack_str(pack, length);
    msgpack_pack_str_body(pack, text, length);
}

static void begin(msgpack_packer *pack, struct mn_link *link, const char *op, bool more)
{
    msgpack_pack_map(pack, more ? 3 : 2);
    pack_text(pack, "op");
    pack_text(pack, op);
    pack_text(pack, "rid");
    msgpack_pack_uint64(pack, ++link->last_rid);
}

/* Frees the buffer. */
static enum mn_status send_buffer(struct mn_link *link, msgpack_sbuffer *buffer)
{
    int sent;
    do
        sent = zmq_send(link->socket, buffer->data, buffer->size, ZMQ_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    msgpack_sbuffer_destroy(buffer);
    if (sent >= 0)
        return MN_OK;
    return errno == EAGAIN ? MN_FAIL(MN_BUSY, "too many requests wait at %s", link->endpoint)
                           : MN_FAIL(MN_SYSTEM, "cannot send to %s: %s", link->endpoint, zmq_strerror(errno));
}

enum mn_status mn_link_ask(struct mn_link *link, const char *op, const char *key, const char *value)
{
    msgpack_sbuffer buffer;
    msgpack_packer pack;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&pack, &buffer, msgpack_sbuffer_write);
    begin(&pack, link, op, key && value);
    if (key && value) {
        pack_text(&pack, key);
        pack_text(&pack, value);
    }
    return send_buffer(link, &buffer);
}

enum mn_status mn_link_ask_bool(struct mn_link *link, const char *op, const char *key, bool value)
{
    msgpack_sbuffer buffer;
    msgpack_packer pack;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&pack, &buffer, msgpack_sbuffer_write);
    begin(&pack, link, op, true);
    pack_text(&pack, key);
    if (value)
        msgpack_pack_true(&pack);
    else
        msgpack_pack_false(&pack);
    return send_buffer(link, &buffer);
}

bool mn_link_receive(struct mn_link *link, zmq_msg_t *body)
{
    if (!link->socket)
        return false;
    zmq_msg_init(body);
    if (zmq_msg_recv(body, link->socket, ZMQ_DONTWAIT) >= 0)
        return true;
    zmq_msg_close(body);
    return false;
}
