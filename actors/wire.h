/*
 * wire.h - the words of the protocol: operations, options, limits, declared once.
 */
#ifndef MN_ACTORS_WIRE_H
#define MN_ACTORS_WIRE_H

#include "config/clients.h"

#define MN_PROTOCOL_VERSION 1

/* Which socket answers an operation. */
enum mn_service { MN_SERVICE_CONTROL, MN_SERVICE_WRITE, MN_SERVICE_RECALL, MN_SERVICE_STATS };
/* Between the roles, over run/role.<name>; never on a public socket. */
enum mn_internal_service { MN_SERVICE_WRITER = 8, MN_SERVICE_COMPACTOR = 9 };

/* Which spaces an operation reaches: none, those in its `space` (one, several, or all), or all of them at once. */
enum mn_reach { MN_REACH_NONE, MN_REACH_SPACE, MN_REACH_ALL };

/* name on the wire, the service that answers it, the right that a client over TCP needs, the spaces it reaches, what it
 * does */
/* clang-format off */
#define MN_OP_TABLE(X) \
    X(MN_OP_INFO, "info", MN_SERVICE_CONTROL, MN_RIGHT_ANY, MN_REACH_NONE, "what this cluster is and where its endpoints are") \
    X(MN_OP_PING, "ping", MN_SERVICE_CONTROL, MN_RIGHT_ANY, MN_REACH_NONE, "an empty reply") \
    X(MN_OP_CONSOLIDATE, "consolidate", MN_SERVICE_CONTROL, MN_RIGHT_ADMIN, MN_REACH_NONE, "compact now") \
    X(MN_OP_SNAPSHOT, "snapshot", MN_SERVICE_CONTROL, MN_RIGHT_ADMIN, MN_REACH_NONE, "a consistent copy while writes go on") \
    X(MN_OP_VERIFY, "verify", MN_SERVICE_CONTROL, MN_RIGHT_ADMIN, MN_REACH_NONE, "check every checksum") \
    X(MN_OP_RELOAD, "reload", MN_SERVICE_CONTROL, MN_RIGHT_ADMIN, MN_REACH_NONE, "take the settings marked reloadable") \
    X(MN_OP_DRAIN, "drain", MN_SERVICE_CONTROL, MN_RIGHT_ADMIN, MN_REACH_NONE, "finish what was admitted, then stop") \
    X(MN_OP_REMEMBER, "remember", MN_SERVICE_WRITE, MN_RIGHT_WRITE, MN_REACH_SPACE, "write memories, all or none") \
    X(MN_OP_REVISE, "revise", MN_SERVICE_WRITE, MN_RIGHT_WRITE, MN_REACH_SPACE, "a new version with the same embedding") \
    X(MN_OP_FORGET, "forget", MN_SERVICE_WRITE, MN_RIGHT_WRITE, MN_REACH_SPACE, "hide, restore or remove memories") \
    X(MN_OP_RECALL, "recall", MN_SERVICE_RECALL, MN_RIGHT_READ, MN_REACH_SPACE, "the nearest memories") \
    X(MN_OP_GET, "get", MN_SERVICE_RECALL, MN_RIGHT_READ, MN_REACH_SPACE, "memories by id") \
    X(MN_OP_LIST, "list", MN_SERVICE_RECALL, MN_RIGHT_READ, MN_REACH_SPACE, "memories in time order, page by page") \
    X(MN_OP_COUNT, "count", MN_SERVICE_RECALL, MN_RIGHT_READ, MN_REACH_SPACE, "how many memories match") \
    X(MN_OP_SPACES, "spaces", MN_SERVICE_RECALL, MN_RIGHT_READ, MN_REACH_ALL, "spaces with a visible memory") \
    X(MN_OP_STATS, "stats", MN_SERVICE_STATS, MN_RIGHT_READ, MN_REACH_NONE, "every statistic")
/* clang-format on */

/* Between the roles: {op, ...} -> {ok, ...} in the form of the public protocol. */
#define MN_INTERNAL_OP_TABLE(X)                                                                                        \
    X(MN_OP_SEAL, "seal", MN_SERVICE_WRITER, "{} -> {seq}: end the active log segment")                                \
    X(MN_OP_PUBLISH, "publish", MN_SERVICE_WRITER, "{name} -> {}: make the proposal in that file the manifest")        \
    X(MN_OP_WAKE, "wake", MN_SERVICE_COMPACTOR, "{}: a purge waits")

#define X(name, ...) name,
enum mn_op { MN_OP_TABLE(X) MN_INTERNAL_OP_TABLE(X) MN_OPS };
#undef X

/* Fields of a memory that a reader may ask for; the first five are what comes when nothing is asked. */
#define MN_FIELD_TABLE(X)                                                                                              \
    X(MN_FIELD_CONTENT, "content")                                                                                     \
    X(MN_FIELD_META, "meta")                                                                                           \
    X(MN_FIELD_TAGS, "tags")                                                                                           \
    X(MN_FIELD_AT, "at")                                                                                               \
    X(MN_FIELD_CONFIDENCE, "confidence")                                                                               \
    X(MN_FIELD_EMBEDDING, "embedding")                                                                                 \
    X(MN_FIELD_EXPIRES, "expires")                                                                                     \
    X(MN_FIELD_SPACE, "space")

#define X(name, word) name,
enum mn_field { MN_FIELD_TABLE(X) MN_FIELDS };
#undef X
#define MN_FIELD_BIT(field) (1u << (field))

/* What requests and replies call it. field < MN_FIELDS. */
static inline const char *mn_field_word(unsigned field)
{
    static const char *const words[] = {
#define X(name, word) [name] = word,
        MN_FIELD_TABLE(X)
#undef X
    };
    return words[field];
}

#define MN_FIELDS_DEFAULT (MN_FIELD_BIT(MN_FIELD_EMBEDDING) - 1)

/* Limits of requests and replies beside those of the engine (engine/types.h). */
#define MN_FRAME_BYTES_MAX  (24u << 20) /* a larger one drops its connection */
#define MN_REPLY_BYTES_MAX  (16u << 20)
#define MN_WIRE_RID_MAX     (64u << 10)
#define MN_WIRE_DEPTH_MAX   16      /* of arrays and maps in each other */
#define MN_WIRE_VALUES_MAX  8000000 /* of any kind in one frame: twice what the largest write has as numbers */
#define MN_WIRE_IDS_MAX     1000000 /* ids in one list */
#define MN_WIRE_ENTRIES_MAX 2000000 /* ids, tags, conditions and values in one request, in all */
#define MN_WIRE_TERMS_MAX   10000   /* tags, conditions, values or spaces in one list of a query */
#define MN_WIRE_QUERIES_MAX 4096    /* embeddings of one batch recall */
#define MN_WIRE_KEY_MAX     1024    /* bytes of a key in a condition on meta */
#define MN_CONTEXT_MAX      1000    /* neighbours on each side of a hit */
#define MN_MIN_SEQ_WAIT_MS  1000    /* how long min_seq waits when no deadline is given */

#endif
