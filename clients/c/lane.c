/*
 * lane.c - the socket of one endpoint, and the monitor that hears when its connection breaks.
 */
#include "clients/c/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    RECONNECT_MAX_MS = 200,
    REPLY_MAX = 32 << 20, /* a larger reply is no reply of ours: the connection is dropped */
};

void mn_lane_close(struct mn_lane *lane)
{
    if (lane->socket) {
        zmq_socket_monitor(lane->socket, NULL, 0);
        zmq_close(lane->socket);
    }
    if (lane->monitor)
        zmq_close(lane->monitor);
    lane->socket = lane->monitor = NULL;
}

static bool set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

static bool get_int(void *socket, int option, int *value)
{
    size_t size = sizeof *value;
    return zmq_getsockopt(socket, option, value, &size) == 0;
}

static bool set_keys(const struct mneme *client, void *socket)
{
    if (!client->server_key)
        return true;
    return zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, client->server_key, strlen(client->server_key)) == 0 &&
           zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, client->public_key, strlen(client->public_key)) == 0 &&
           zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, client->secret_key, strlen(client->secret_key)) == 0;
}

/* Only what means a break is subscribed, so the content is moot. */
bool mn_lane_heard_break(struct mn_lane *lane)
{
    bool any = false;
    zmq_msg_t message;
    zmq_msg_init(&message);
    while (zmq_msg_recv(&message, lane->monitor, ZMQ_DONTWAIT) >= 0)
        any = true;
    zmq_msg_close(&message);
    return any;
}

/* The monitor says at once when the peer is gone, where waiting for silence would take seconds; of a recall worker also
 * that it is not there, for another is. It is read once here: ZeroMQ wakes a reader only when it has found its pipe
 * empty before. */
static bool open_monitor(struct mneme *client, struct mn_lane *lane)
{
    char name[64];
    snprintf(name, sizeof name, "inproc://mneme.%p.%llx", (void *)lane, (unsigned long long)mn_client_draw(client));
    bool others = client->recall_count > 1 && lane >= &client->lanes[MN_CLIENT_FIRST_RECALL];
    if (zmq_socket_monitor(lane->socket, name, ZMQ_EVENT_DISCONNECTED | (others ? ZMQ_EVENT_CONNECT_RETRIED : 0)) != 0)
        return false;
    lane->monitor = zmq_socket(client->context, ZMQ_PAIR);
    if (!lane->monitor || !set_int(lane->monitor, ZMQ_LINGER, 0) || zmq_connect(lane->monitor, name) != 0)
        return false;
    mn_lane_heard_break(lane);
    return true;
}

bool mn_lane_open(struct mneme *client, struct mn_lane *lane)
{
    if (lane->socket)
        return true;
    lane->socket = zmq_socket(client->context, ZMQ_DEALER);
    if (!lane->socket)
        return false;
    int64_t reply_max = REPLY_MAX;
    if (set_int(lane->socket, ZMQ_LINGER, 0) && set_int(lane->socket, ZMQ_RECONNECT_IVL, MN_CLIENT_RECONNECT_MS) &&
        set_int(lane->socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS) &&
        zmq_setsockopt(lane->socket, ZMQ_MAXMSGSIZE, &reply_max, sizeof reply_max) == 0 &&
        set_keys(client, lane->socket) && open_monitor(client, lane) &&
        get_int(lane->socket, ZMQ_FD, &lane->socket_fd) && get_int(lane->monitor, ZMQ_FD, &lane->monitor_fd) &&
        zmq_connect(lane->socket, lane->endpoint) == 0)
        return true;
    int error = errno;
    mn_lane_close(lane);
    errno = error;
    return false;
}

/* The monitor needs none of this: it is only read, and read empty. */
bool mn_lane_has_reply(struct mn_lane *lane)
{
    int events;
    return get_int(lane->socket, ZMQ_EVENTS, &events) && (events & ZMQ_POLLIN);
}
