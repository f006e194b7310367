/*
 * wire.h - the words of the protocol: operations, options, limits, declared once.
 */
#ifndef MN_ACTORS_WIRE_H
#define MN_ACTORS_WIRE_H

#define MN_PROTOCOL_VERSION 1

enum mn_service { MN_SERVICE_CONTROL, MN_SERVICE_WRITE, MN_SERVICE_RECALL, MN_SERVICE_STATS };

/* name on the wire, the service that answers it, what it does */
#define MN_OP_TABLE(X)                                                                                                 \
    X(MN_OP_INFO, "info", MN_SERVICE_CONTROL, "what this cluster is and where its endpoints are")                      \
    X(MN_OP_PING, "ping", MN_SERVICE_CONTROL, "an empty reply")                                                        \
    X(MN_OP_CONSOLIDATE, "consolidate", MN_SERVICE_CONTROL, "compact now")                                             \
    X(MN_OP_SNAPSHOT, "snapshot", MN_SERVICE_CONTROL, "a consistent copy while writes go on")                          \
    X(MN_OP_VERIFY, "verify", MN_SERVICE_CONTROL, "check every checksum")                                              \
    X(MN_OP_RELOAD, "reload", MN_SERVICE_CONTROL, "take the settings marked reloadable")                               \
    X(MN_OP_DRAIN, "drain", MN_SERVICE_CONTROL, "finish what was admitted, then stop")                                 \
    X(MN_OP_REMEMBER, "remember", MN_SERVICE_WRITE, "write memories, all or none")                                     \
    X(MN_OP_REVISE, "revise", MN_SERVICE_WRITE, "a new version with the same embedding")                               \
    X(MN_OP_FORGET, "forget", MN_SERVICE_WRITE, "hide, restore or remove memories")                                    \
    X(MN_OP_RECALL, "recall", MN_SERVICE_RECALL, "the nearest memories")                                               \
    X(MN_OP_GET, "get", MN_SERVICE_RECALL, "memories by id")                                                           \
    X(MN_OP_LIST, "list", MN_SERVICE_RECALL, "memories in time order, page by page")                                   \
    X(MN_OP_COUNT, "count", MN_SERVICE_RECALL, "how many memories match")                                              \
    X(MN_OP_SPACES, "spaces", MN_SERVICE_RECALL, "spaces with a visible memory")                                       \
    X(MN_OP_STATS, "stats", MN_SERVICE_STATS, "every statistic")

#define X(name, word, service, help) name,
enum mn_op { MN_OP_TABLE(X) MN_OP_COUNT };
#undef X

#endif
