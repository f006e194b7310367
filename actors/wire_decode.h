/*
 * wire_decode.h - requests of the write and recall sockets into what the engine takes.
 *
 * A decoder belongs to one thread. What it fills points into the request's frame and into the decoder's arena, and
 * lives until both are let go: the next mn_decode_* call resets the arena. Failures are MN_BAD_REQUEST, MN_BAD_DIM,
 * MN_BAD_VALUE, MN_TOO_LARGE (PROTOCOL.md says which when) with a sentence for the client; MN_INTERNAL when memory
 * ends.
 */
#ifndef MN_ACTORS_WIRE_DECODE_H
#define MN_ACTORS_WIRE_DECODE_H

#include "actors/arena.h"
#include "actors/wire_read.h"
#include "engine/query.h"
#include "engine/read.h"
#include "engine/request.h"

struct mn_kernels;

struct mn_decoder {
    struct mn_arena arena;
    uint32_t dim;
    enum mn_metric metric;
    const struct mn_kernels *kernels;
    uint64_t entries; /* of lists, in the current request */
    uint64_t bytes;   /* of its memories: embedding, content, meta, tags */
};

/* Allocates nothing yet. */
void mn_decoder_init(struct mn_decoder *decoder, uint32_t dim, enum mn_metric metric);
void mn_decoder_free(struct mn_decoder *decoder);

/* ---- writes. now: ns since the epoch, the default of `at`. */

/* *accepted: `ack: "accepted"` was asked for. Embeddings are not looked into: the writer checks them. */
enum mn_status mn_decode_remember(struct mn_decoder *decoder, const struct mn_request *request, int64_t now,
                                  struct mn_remember *out, bool *accepted) MN_MUST_USE;
/* `set`: what is to change. Embeddings cannot. */
enum mn_status mn_decode_revise(struct mn_decoder *decoder, const struct mn_request *request, int64_t now,
                                struct mn_revise *out) MN_MUST_USE;

struct mn_forget_request {
    struct mn_forget forget;
    bool selects; /* by filter or all: `scope` says what */
    struct mn_scope scope;
};
enum mn_status mn_decode_forget(struct mn_decoder *decoder, const struct mn_request *request, int64_t now,
                                struct mn_forget_request *out) MN_MUST_USE;

/* ---- reads */

/* What a memory in a reply carries beside id and version. */
struct mn_want {
    uint32_t fields; /* MN_FIELD_BIT */
    bool space;      /* several spaces or all were asked */
};

/* The point in history to read at. */
struct mn_moment {
    bool has_as_of;
    uint64_t as_of, min_seq; /* min_seq 0: do not wait */
};

struct mn_recall_request {
    struct mn_query query;   /* query.embedding: to be set for each of `embeddings`, or from the memory `like` */
    bool batch;              /* `embeddings`: the reply has results */
    const float *embeddings; /* count x stride floats, each 64-byte aligned */
    uint32_t count, stride;
    bool has_like;
    struct mn_str like_space;
    struct mn_id like;
    uint32_t context;
    struct mn_want want;
    struct mn_moment moment;
};
enum mn_status mn_decode_recall(struct mn_decoder *decoder, const struct mn_request *request, int64_t now,
                                struct mn_recall_request *out) MN_MUST_USE;

struct mn_get_request {
    struct mn_str space;
    const struct mn_id *ids;
    uint32_t count;
    struct mn_want want;
    struct mn_moment moment;
};
enum mn_status mn_decode_get(struct mn_decoder *decoder, const struct mn_request *request,
                             struct mn_get_request *out) MN_MUST_USE;

struct mn_list_request {
    struct mn_scope scope;
    bool newest_first;
    uint32_t limit;
    struct mn_cursor cursor;
    struct mn_want want;
};
enum mn_status mn_decode_list(struct mn_decoder *decoder, const struct mn_request *request,
                              struct mn_list_request *out) MN_MUST_USE;

enum mn_status mn_decode_count(struct mn_decoder *decoder, const struct mn_request *request,
                               struct mn_scope *out) MN_MUST_USE;

/* ---- shared by the above (wire_decode.c) */

extern const struct mn_str mn_decode_default_space;

/* Lets the last request's memory go. */
void mn_decode_begin(struct mn_decoder *decoder);
/* Counts `count` entries of a list against MN_WIRE_ENTRIES_MAX. */
enum mn_status mn_decode_entries(struct mn_decoder *decoder, uint32_t count) MN_MUST_USE;

/* An absent value is the space "default", and an empty list. */
enum mn_status mn_decode_space(const struct mn_wire *v, struct mn_str *space) MN_MUST_USE;
enum mn_status mn_decode_ids(struct mn_decoder *decoder, const struct mn_wire *v, const char *name,
                             const struct mn_id **ids, uint32_t *count) MN_MUST_USE;
/* An array of strings of at most string_max bytes each. */
enum mn_status mn_decode_strings(struct mn_decoder *decoder, const struct mn_wire *v, const char *name, uint32_t max,
                                 uint32_t string_max, const struct mn_str **strings, uint32_t *count) MN_MUST_USE;
/* dim floats of a bin in place, of an array of numbers into the arena; values are not looked into. */
enum mn_status mn_decode_embedding(struct mn_decoder *decoder, const struct mn_wire *v, const char *name,
                                   const void **embedding) MN_MUST_USE;
enum mn_status mn_decode_filter(struct mn_decoder *decoder, const struct mn_wire *v,
                                struct mn_filter *filter) MN_MUST_USE;
/* An empty scope: no bound on time or confidence, no filter, no space. */
struct mn_scope mn_decode_scope(void);

#endif
