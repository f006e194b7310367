/*
 * attach.h - what the files of attach share: the handle, and the steps of a call. Private.
 *
 * A call goes through the engine's own code, so that its answer is the worker's: attach.c finds the store and pins,
 * attach_query.c turns the client's question into the engine's, attach_found.c turns rows into memories,
 * attach_value.c carries metadata between its compact form and values, and attach_pack.c packs answers for bindings.
 */
#ifndef MNEME_CLIENTS_C_ATTACH_H
#define MNEME_CLIENTS_C_ATTACH_H

#include "clients/c/client.h"

#include <msgpack.h>
#include <sys/types.h>

#include "engine/read.h"
#include "engine/recall_batch.h"

struct mneme_attached {
    struct mn_store store;
    struct mn_instance instance; /* instance.control is NULL while not attached */
    struct mn_reader *reader;
    struct mn_search search;
    struct mn_batch *batch; /* NULL: none was asked for yet */
    struct mn_reading reading;
    float *query;           /* one embedding, 64-byte aligned */
    msgpack_zone pool;      /* of the last question and its answer; emptied by the next call */
    msgpack_sbuffer packed; /* the last answer as a reply */
    bool packed_failed;
    pid_t pid; /* whose slot it is: a forked child may not use it */
    char uuid[37];
    char error[MN_CLIENT_ERROR_SIZE];
};

/* `count` elements of the handle's pool, zeroed; a failure when memory ends. */
#define MN_POOL_ARRAY(a, pointer, count)                                                                               \
    do {                                                                                                               \
        (pointer) = mn_attach_take((a), (size_t)(count) * sizeof *(pointer));                                          \
        if (!(pointer))                                                                                                \
            return MN_FAIL(MN_INTERNAL, "out of memory for an answer");                                                \
    } while (0)
void *mn_attach_take(struct mneme_attached *a, size_t bytes);

/* ---- attach_query.c ---- */

/* What a memory in the answer carries beside id and version. */
struct mn_attach_want {
    uint32_t fields; /* MN_FIELD_BIT */
    bool space;      /* several spaces or all were asked */
};
enum mn_status mn_attach_fields(const char *const *names, size_t count, struct mn_attach_want *want) MN_MUST_USE;
enum mn_status mn_attach_id(const struct mneme_id *id, struct mn_id *out) MN_MUST_USE;
enum mn_status mn_attach_space(const char *name, struct mn_str *out) MN_MUST_USE;
/* All of a query but its embedding, which is set for each search. */
enum mn_status mn_attach_query(struct mneme_attached *a, const struct mneme_query *q, struct mn_query *out,
                               struct mn_attach_want *want) MN_MUST_USE;

/* ---- attach_found.c ---- */

/* Points into the mapped store, which keeps it past the pin: until the mappings change in a later call. */
enum mn_status mn_attach_found(struct mneme_attached *a, const struct mn_snapshot *snapshot, struct mn_row_ref ref,
                               const struct mn_attach_want *want, struct mneme_found *found) MN_MUST_USE;
/* The hits of a search, with the neighbours in time of each. */
enum mn_status mn_attach_hits(struct mneme_attached *a, const struct mn_snapshot *snapshot,
                              const struct mn_query *query, const struct mn_search *search,
                              const struct mn_attach_want *want, uint32_t context, struct mneme_hits *out) MN_MUST_USE;

/* ---- attach_value.c ---- */

/* MessagePack to compact (engine/meta.h), in the pool. MN_BAD_REQUEST when it is not one value that meta can hold. */
enum mn_status mn_attach_compact(struct mneme_attached *a, const msgpack_object *value,
                                 struct mn_str *compact) MN_MUST_USE;
/* Bytes of one MessagePack value, decoded into the pool. */
enum mn_status mn_attach_decode(struct mneme_attached *a, const void *bytes, size_t size,
                                msgpack_object *value) MN_MUST_USE;
/* Compact meta as a value whose strings stay in place. MN_CORRUPT when it is damaged. */
enum mn_status mn_attach_value(struct mneme_attached *a, struct mn_str compact, struct mneme_value *value) MN_MUST_USE;

#endif
