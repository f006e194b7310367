/*
 * gate.h - who may come in, and what they may do: one gate for all the sockets of a process.
 *
 * A thread of the gate answers ZeroMQ's question about every new connection (ZAP): over ipc the kernel says whose
 * process it is, and it must be ours, root's, or that of a member of security.group; over TCP it must hold a key on the
 * list of clients. The same thread counts the connections of each socket and drops what is too much. A message of a
 * connection carries what the gate has said of it, and each request is held against the list as it is now, so that a
 * client that was taken off it is refused from its next message on.
 */
#ifndef MN_ACTORS_GATE_H
#define MN_ACTORS_GATE_H

#include "actors/router.h"
#include "actors/wire_read.h"
#include "config/settings.h"
#include "engine/store.h"
#include "shm/stats.h"

struct mn_gate;

/* Starts the thread: before any socket of `zmq` that it guards is bound. Settings, store and stats must outlive it.
 * Raises the limit of open files of the process as far as it may. */
enum mn_status mn_gate_open(struct mn_gate **gate, void *zmq, const struct mn_store *store,
                            const struct mn_settings *settings, struct mn_stats_page *stats) MN_MUST_USE;
/* After the sockets that it guards are closed, before the context ends. NULL is harmless. */
void mn_gate_close(struct mn_gate *gate);
/* Reads the list of clients again; on failure the old one stays. Subscribers come in anew: nothing they send could be
 * refused later. */
enum mn_status mn_gate_reload(struct mn_gate *gate) MN_MUST_USE;

/* Binds a socket that is set up: to ipc, to nobody but those above, and to TCP where `name` is served there (a public
 * socket, and tcp.bind is set), encrypted. name: "write", "recall.0", "role.compactor". */
enum mn_status mn_gate_bind(struct mn_gate *gate, void *socket, const char *name, bool public) MN_MUST_USE;
/* The same for a router that is made here. sends: replies that may wait for one peer. */
enum mn_status mn_gate_serve(struct mn_gate *gate, struct mn_router *router, const char *name, bool public,
                             int sends) MN_MUST_USE;
/* Drops every connection of a socket; those that may come back do so by themselves. */
void mn_gate_drop_all(struct mn_gate *gate, const char *name);

/* MN_UNAUTHORIZED, with a sentence for the client, unless the list lets this peer do what it asks for. Main thread. */
enum mn_status mn_gate_allow(struct mn_gate *gate, const struct mn_peer *peer,
                             const struct mn_request *request) MN_MUST_USE;

#endif
