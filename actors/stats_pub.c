/*
 * stats_pub.c - publishes the statistics. See stats_pub.h.
 *
 * The socket is an XPUB, which hands the subscriptions on: ZeroMQ keeps every prefix that anybody asks for, in memory
 * without a bound, so they are counted here, and when they are too many all connections are dropped and their prefixes
 * with them. An honest subscriber is back in a moment.
 */
#include "actors/stats_pub.h"

#include <errno.h>
#include <stdlib.h>

#include <zmq.h>

#include "actors/actor.h"
#include "actors/stats_reply.h"

#define NAME           "stats.pub"
#define LINGER_MS      100
#define WAITING        4   /* messages for one subscriber */
#define PREFIX_MAX     512 /* bytes; a longer one drops its connection. The handshake with keys must fit */
#define PREFIXES_QUEUE 16  /* of one subscriber; more wait on its side */

static enum mn_status set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0
               ? MN_OK
               : MN_FAIL(MN_SYSTEM, "ZeroMQ socket option %d: %s", option, zmq_strerror(errno));
}

enum mn_status mn_stats_pub_open(struct mn_stats_pub *pub, void *zmq, struct mn_gate *gate,
                                 const struct mn_settings *settings)
{
    int64_t longest = PREFIX_MAX;
    *pub =
        (struct mn_stats_pub){.socket = zmq_socket(zmq, ZMQ_XPUB), .gate = gate, .most = settings->limit_subscriptions};
    if (!pub->socket || zmq_setsockopt(pub->socket, ZMQ_MAXMSGSIZE, &longest, sizeof longest) != 0)
        return MN_FAIL(MN_SYSTEM, "zmq_socket: %s", zmq_strerror(errno));
    MN_TRY(set_int(pub->socket, ZMQ_LINGER, LINGER_MS));
    MN_TRY(set_int(pub->socket, ZMQ_SNDHWM, WAITING));
    MN_TRY(set_int(pub->socket, ZMQ_RCVHWM, PREFIXES_QUEUE));
    return mn_gate_bind(gate, pub->socket, NAME, true);
}

void mn_stats_pub_close(struct mn_stats_pub *pub)
{
    if (pub->socket) {
        zmq_socket_monitor(pub->socket, NULL, 0); /* as in router.c */
        zmq_close(pub->socket);
    }
    pub->socket = NULL;
}

/* A first byte of 1 is a new prefix, of 0 one that nobody asks for any more. The first that is too many ends the
 * counting: they may come as fast as they are counted. */
static void count_subscriptions(struct mn_stats_pub *pub)
{
    uint8_t prefix[PREFIX_MAX];
    int bytes;
    while ((bytes = zmq_recv(pub->socket, prefix, sizeof prefix, ZMQ_DONTWAIT)) >= 0) {
        if (bytes > 0 && prefix[0] == 0 && pub->subscriptions > 0)
            pub->subscriptions--;
        if (bytes > 0 && prefix[0] == 1 && ++pub->subscriptions > pub->most) {
            mn_gate_drop_all(pub->gate, NAME);
            return;
        }
    }
}

void mn_stats_pub_send(struct mn_stats_pub *pub, const struct mn_stats *stats)
{
    char *text = mn_stats_json(stats);
    count_subscriptions(pub);
    if (text && zmq_send(pub->socket, "stats", 5, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 &&
        zmq_send(pub->socket, text, strlen(text), ZMQ_DONTWAIT) < 0)
        mn_log(NULL, "cannot publish the statistics: %s", zmq_strerror(errno));
    free(text);
}
