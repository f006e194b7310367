/*
 * link.h - a line from one role to another, over run/role.<name>: a DEALER socket that never waits.
 *
 * Requests carry a number as their rid, by which the caller knows the reply. A line is cut when the other side has
 * died: what was still queued for it must not reach its successor.
 */
#ifndef MN_ACTORS_LINK_H
#define MN_ACTORS_LINK_H

#include <zmq.h>

#include "engine/store.h"

struct mn_link {
    void *zmq, *socket;
    char endpoint[256];
    uint64_t last_rid;
};

/* role: "role.compactor", "role.wal-writer". */
enum mn_status mn_link_open(struct mn_link *link, void *zmq, const struct mn_store *store,
                            const char *role) MN_MUST_USE;
/* Drops everything queued. Harmless on a closed one. */
void mn_link_close(struct mn_link *link);
/* Close and open: afterwards no earlier request can arrive, and no earlier reply. */
enum mn_status mn_link_cut(struct mn_link *link) MN_MUST_USE;

/* Sends {op, rid: ++last_rid, key: value}; key NULL: no third member. MN_BUSY when the queue is full. */
enum mn_status mn_link_ask(struct mn_link *link, const char *op, const char *key, const char *value) MN_MUST_USE;
enum mn_status mn_link_ask_bool(struct mn_link *link, const char *op, const char *key, bool value) MN_MUST_USE;

/* Takes one message without waiting; the caller closes it. False when there is none. */
bool mn_link_receive(struct mn_link *link, zmq_msg_t *body);

#endif
