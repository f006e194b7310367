/*
 * gate_zap.c - may this connection be made: ZeroMQ asks by the protocol of its RFC 27 (ZAP). See gate.h.
 *
 * What is answered as the user's id comes back with each message of the connection, and no client can set it: "local"
 * for a process of this host, "plain" for TCP without keys, else the key in Z85.
 */
#include "actors/gate_inside.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <zmq.h>

#define GROUPS_MAX 1024

/* The frames of a question; what comes behind the key is passed over. */
enum { VERSION, NUMBER, DOMAIN, ADDRESS, IDENTITY, MECHANISM, KEY, FRAMES };
#define FRAME_MAX 255

struct question {
    char frame[FRAMES][FRAME_MAX + 1]; /* NUL-terminated */
    size_t bytes[FRAMES];
};

/* ---- who may come in over ipc ---- */

static bool in_group(const struct mn_gate *gate, uid_t uid)
{
    char room[4096];
    struct passwd entry, *found = NULL;
    gid_t groups[GROUPS_MAX];
    int count = GROUPS_MAX;
    if (gate->group == (gid_t)-1 || getpwuid_r(uid, &entry, room, sizeof room, &found) != 0 || !found ||
        getgrouplist(found->pw_name, found->pw_gid, groups, &count) < 0)
        return false;
    for (int i = 0; i < count; i++)
        if (groups[i] == gate->group)
            return true;
    return false;
}

/* libzmq puts what the kernel says of the peer behind its address: "localhost:UID:GID:PID". */
static bool read_peer(const char *address, unsigned long *uid, unsigned long *gid)
{
    const char *at = address + strlen(address);
    for (int colons = 0; at > address; at--)
        if (at[-1] == ':' && ++colons == 3)
            return sscanf(at, "%lu:%lu:", uid, gid) == 2;
    return false;
}

static bool may_enter_ipc(const struct mn_gate *gate, const struct question *q)
{
    unsigned long uid, gid;
    if (strcmp(q->frame[MECHANISM], "NULL") != 0 || !read_peer(q->frame[ADDRESS], &uid, &gid))
        return false;
    return uid == 0 || uid == geteuid() || (gid_t)gid == gate->group || in_group(gate, (uid_t)uid);
}

/* ---- who may come in over TCP ---- */

static bool may_enter_tcp(struct mn_gate *gate, const struct question *q, char user[MN_USER_MAX])
{
    bool reads = strcmp(q->frame[DOMAIN], MN_GATE_TCP "stats.pub") == 0; /* nothing is asked there: being there is */
    if (strcmp(q->frame[MECHANISM], "NULL") == 0 && gate->plain) {
        snprintf(user, MN_USER_MAX, "%s", MN_USER_PLAIN);
        return true;
    }
    if (strcmp(q->frame[MECHANISM], "CURVE") != 0 || q->bytes[KEY] != 32 ||
        !zmq_z85_encode(user, (const uint8_t *)q->frame[KEY], 32))
        return false;
    pthread_mutex_lock(&gate->mutex);
    const struct mn_client *client = mn_clients_find(&gate->clients, user);
    bool may = client && (!reads || (client->rights & MN_RIGHT_READ));
    pthread_mutex_unlock(&gate->mutex);
    return may;
}

/* ---- question and answer ---- */

/* A question is ours to answer when it is one that libzmq would ask. */
static bool receive(void *zap, struct question *q)
{
    bool whole = true;
    int more = 1, frame = 0;
    size_t size = sizeof more;
    for (; more; frame++) {
        char spill[FRAME_MAX + 1];
        char *room = frame < FRAMES ? q->frame[frame] : spill;
        int bytes = zmq_recv(zap, room, FRAME_MAX, 0);
        if (bytes < 0)
            return false;
        whole = whole && bytes <= FRAME_MAX;
        size_t kept = bytes <= FRAME_MAX ? (size_t)bytes : FRAME_MAX;
        room[kept] = '\0';
        if (frame < FRAMES)
            q->bytes[frame] = kept;
        if (zmq_getsockopt(zap, ZMQ_RCVMORE, &more, &size) != 0)
            return false;
    }
    return whole && frame > MECHANISM && strcmp(q->frame[VERSION], "1.0") == 0;
}

static void send(void *zap, const struct question *q, bool may, const char *user)
{
    const char *text = may ? "" : "not allowed";
    zmq_send(zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(zap, q->frame[NUMBER], q->bytes[NUMBER], ZMQ_SNDMORE);
    zmq_send(zap, may ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(zap, text, strlen(text), ZMQ_SNDMORE);
    zmq_send(zap, user, may ? strlen(user) : 0, ZMQ_SNDMORE);
    zmq_send(zap, "", 0, 0);
}

void mn_gate_zap_answer(struct mn_gate *gate)
{
    struct question q = {0};
    char user[MN_USER_MAX] = MN_USER_LOCAL;
    bool may = false;
    if (!receive(gate->zap, &q))
        may = false;
    else if (strncmp(q.frame[DOMAIN], MN_GATE_IPC, strlen(MN_GATE_IPC)) == 0)
        may = may_enter_ipc(gate, &q);
    else if (strncmp(q.frame[DOMAIN], MN_GATE_TCP, strlen(MN_GATE_TCP)) == 0)
        may = may_enter_tcp(gate, &q, user);
    send(gate->zap, &q, may, user);
    if (!may)
        mn_stat_add(gate->stats, MN_STAT_peers_refused, 1);
}
