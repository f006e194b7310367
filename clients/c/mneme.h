/*
 * mneme.h - the C client of a Mneme store: remember, recall, forget, over ZeroMQ; and recall in process, by attaching.
 *
 *     struct mneme *m;
 *     if (mneme_open(&m, "/var/lib/mneme", NULL) != MNEME_OK)
 *         die(mneme_open_error());
 *     struct mneme_memory memory = {.embedding = vector, .content = "tea, not coffee", .content_size = 15};
 *     struct mneme_reply *reply;
 *     if (mneme_remember(m, NULL, &memory, 1, NULL, &reply) != MNEME_OK)
 *         die(mneme_error(m));
 *     mneme_reply_free(reply);
 *     mneme_close(m);
 *
 * Threads   A client belongs to one thread at a time and must not be carried over a fork. Make one per thread.
 * Results   Every call returns a code. On MNEME_OK `*reply` is set, and the caller frees it with mneme_reply_free;
 *           otherwise `*reply` is NULL and mneme_error(client) holds one sentence, valid until the client's next call.
 *           `reply` itself may be NULL where the answer does not matter.
 * Values    What a reply holds is looked at through `mneme_value`, a view that lives as long as its reply. A missing
 *           key gives an absent view, and every accessor takes one and says "not there", so paths need no checks in
 *           between.
 * Optional  Pointers to optional numbers are NULL when not given: `.confidence = &(double){0.5}`. Strings without a
 *           length end with NUL and are UTF-8. Whatever is passed in is only read, and only during the call.
 * Times     Nanoseconds since the Unix epoch. Time-outs are milliseconds.
 * Retries   `busy` is tried again with a growing, jittered pause. A request whose reply was lost (server gone, or
 *           silent for too long) is sent again over a fresh connection. That is safe for writes: each carries an
 *           `idem` key, given or made here, under which the store answers the first outcome again. When the time is up
 *           the code is MNEME_UNKNOWN for a write (it may have happened: repeat it with mneme_last_idem) and
 *           MNEME_UNAVAILABLE for anything else.
 */
#ifndef MNEME_H
#define MNEME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MNEME_API __attribute__((visibility("default")))
#else
#define MNEME_API
#endif

/* One row per code: name, the word on the wire. The last two arise in this library only. */
#define MNEME_CODES(X)                                                                                                 \
    X(OK, "ok")                                                                                                        \
    X(BAD_REQUEST, "bad_request")                                                                                      \
    X(BAD_OP, "bad_op")                                                                                                \
    X(BAD_DIM, "bad_dim")                                                                                              \
    X(BAD_VALUE, "bad_value")                                                                                          \
    X(NOT_FOUND, "not_found")                                                                                          \
    X(EXISTS, "exists")                                                                                                \
    X(VERSION_MISMATCH, "version_mismatch")                                                                            \
    X(TOO_LARGE, "too_large")                                                                                          \
    X(BUSY, "busy")                                                                                                    \
    X(READ_ONLY, "read_only")                                                                                          \
    X(UNKNOWN, "unknown")                                                                                              \
    X(UNAVAILABLE, "unavailable")                                                                                      \
    X(DEADLINE, "deadline")                                                                                            \
    X(UNAUTHORIZED, "unauthorized")                                                                                    \
    X(CORRUPT, "corrupt")                                                                                              \
    X(INTERNAL, "internal")                                                                                            \
    X(NO_MEMORY, "no_memory")                                                                                          \
    X(SYSTEM, "system")

#define X(name, word) MNEME_##name,
enum mneme_code { MNEME_CODES(X) MNEME_CODE_COUNT };
#undef X

/* The word of a code ("bad_request"). Never NULL. */
MNEME_API const char *mneme_code_word(enum mneme_code code);
/* The code of a word; MNEME_INTERNAL for a word this version does not know. `word` is `size` bytes. */
MNEME_API enum mneme_code mneme_code_from_word(const char *word, size_t size);

/* ---- the client ---- */

struct mneme;       /* a connection to one store */
struct mneme_reply; /* one reply, owned by the caller */

/* Which socket of the store serves a request. */
enum mneme_service { MNEME_CONTROL, MNEME_WRITE, MNEME_RECALL, MNEME_STATS, MNEME_SERVICE_COUNT };

/* All fields may be zero: the defaults are in brackets. */
struct mneme_options {
    const char *control;    /* a control endpoint instead of <dir>/run/control, e.g. tcp://host:7700 */
    const char *server_key; /* CURVE: the server's public key, and this client's pair, 40 characters of Z85 each */
    const char *public_key; /*        (none: no encryption) */
    const char *secret_key; /*  */
    int timeout_ms;         /* the longest an ordinary call may take, retries included [10 000] */
    int slow_timeout_ms;    /* the same for snapshot, verify, consolidate with wait, drain and purge [3 600 000] */
    int resend_ms;          /* silence after which a request counts as lost and is sent again [a third of timeout_ms] */
    int wait_ms;            /* how long mneme_open waits for a store that is not up yet [0: fail at once] */
    void *zmq_context;      /* a ZeroMQ context to share between clients [own] */
    int spin_us;            /* how long a recall may look for its reply before it sleeps, where that proves quicker:
                               spends processor time on latency [1000]; negative: never */
};

/* Connects to the store in folder `dir` (or at options->control, `dir` is then ignored and may be NULL), asks it for
 * `info` and learns the other endpoints from the answer. MNEME_UNAVAILABLE if nothing serves that store. `*out` is NULL
 * on failure and mneme_open_error() says why. `options` may be NULL. */
MNEME_API enum mneme_code mneme_open(struct mneme **out, const char *dir, const struct mneme_options *options);
/* The sentence of this thread's last failed mneme_open or mneme_attach. */
MNEME_API const char *mneme_open_error(void);
/* Closes the sockets and frees everything but replies still held by the caller. NULL is allowed. Requests submitted and
 * not yet collected are abandoned: their fate is unknown. */
MNEME_API void mneme_close(struct mneme *client);

/* The sentence of the last failed call; "" after a success. */
MNEME_API const char *mneme_error(const struct mneme *client);
/* The `idem` key of the last write submitted, given or made up; "" before the first. */
MNEME_API const char *mneme_last_idem(const struct mneme *client);
/* The store's vector length, uuid (36 characters) and metric ("cosine", "ip", "l2"), as of mneme_open. */
MNEME_API uint32_t mneme_dim(const struct mneme *client);
MNEME_API const char *mneme_uuid(const struct mneme *client);
MNEME_API const char *mneme_metric(const struct mneme *client);
/* Changes timeout_ms for the calls that follow; 0 sets the default again. */
MNEME_API void mneme_set_timeout(struct mneme *client, int timeout_ms);

/* ---- any request ---- */

/* Most requests that may be submitted and not yet collected. */
#define MNEME_IN_FLIGHT_MAX 64

/* Sends one request and waits for its reply. `request` is a MessagePack map of `size` bytes with `op` and its
 * arguments; `rid` is added here and must not be in it; `deadline_ms`, and for writes `idem`, are added when missing.
 * Every typed call below stands on this one. A reply with `ok: false` is a failure with the server's code and sentence.
 */
MNEME_API enum mneme_code mneme_call(struct mneme *client, enum mneme_service service, const void *request, size_t size,
                                     struct mneme_reply **reply);

/* The same in two halves, to keep several requests in flight on one thread. mneme_submit copies the request and hands
 * out a ticket; it does not wait. MNEME_BUSY when MNEME_IN_FLIGHT_MAX are out. Each ticket must be collected. */
MNEME_API enum mneme_code mneme_submit(struct mneme *client, enum mneme_service service, const void *request,
                                       size_t size, uint64_t *ticket);
/* Waits for one reply: that of `*ticket`, or when `*ticket` is 0 of whichever request is done first; `*ticket` then
 * says which it was. Returns that request's outcome as mneme_call does. MNEME_NOT_FOUND with `*ticket` 0 when nothing
 * is in flight. */
MNEME_API enum mneme_code mneme_collect(struct mneme *client, uint64_t *ticket, struct mneme_reply **reply);
/* How many requests are submitted and not yet collected. */
MNEME_API size_t mneme_in_flight(const struct mneme *client);

/* ---- what goes in ---- */

/* An id: an integer below 2^63, or (when uuid[0] is not 0) a UUID in lower case, 36 characters and NUL. */
struct mneme_id {
    uint64_t number;
    char uuid[37];
};

/* One memory to remember. Only `embedding` is required. */
struct mneme_memory {
    const struct mneme_id *id; /* NULL: the store assigns one */
    const float *embedding;    /* mneme_dim() values */
    const void *content;       /* NULL: none; at most 1 MiB */
    size_t content_size;       /* bytes */
    bool content_is_binary;    /* false: UTF-8 text */
    const void *meta;          /* a MessagePack map; NULL: none; at most 64 KiB */
    size_t meta_size;          /* bytes */
    const char *const *tags;   /* at most 64 of at most 128 bytes */
    size_t tag_count;
    const double *confidence;          /* 0..1 [1] */
    const int64_t *at;                 /* [now] */
    const int64_t *expires;            /* [never] */
    bool if_absent;                    /* fail with `exists` when the id is there */
    const uint64_t *if_version;        /* fail with `version_mismatch` unless the id's version is this */
    const struct mneme_id *supersedes; /* memories hidden by the same atomic change */
    size_t supersedes_count;
};

/* Changes to one memory. What is NULL stays. A present but empty content, meta or list of tags is given by a non-NULL
 * pointer. */
struct mneme_changes {
    const double *confidence;
    const void *content;
    size_t content_size;
    bool content_is_binary;
    const void *meta;
    size_t meta_size;
    const char *const *tags;
    size_t tag_count;
    const int64_t *at;
    const int64_t *expires;
};

/* One condition on meta. `value` is one MessagePack value: an array for MNEME_IN, a boolean for MNEME_EXISTS_IS. */
enum mneme_comparison { MNEME_EQ, MNEME_NE, MNEME_IN, MNEME_GT, MNEME_GTE, MNEME_LT, MNEME_LTE, MNEME_EXISTS_IS };
struct mneme_condition {
    const char *key; /* may be a dotted path */
    enum mneme_comparison comparison;
    const void *value;
    size_t value_size;
};

/* Conditions that must all hold; an empty filter matches everything. */
struct mneme_filter {
    const char *const *tags_any;
    size_t tags_any_count;
    const char *const *tags_all;
    size_t tags_all_count;
    const char *const *tags_none;
    size_t tags_none_count;
    const struct mneme_id *ids;
    size_t id_count;
    const struct mneme_condition *meta;
    size_t meta_count;
};

/* Where to look: no names means the space "default", unless `all`. */
struct mneme_where {
    const char *const *spaces;
    size_t space_count;
    bool all;
    const struct mneme_filter *filter;
    const int64_t *after;         /* inclusive */
    const int64_t *before;        /* exclusive */
    const double *min_confidence; /* inclusive */
};

struct mneme_rank {
    const double *half_life_s;
    const int64_t *now;              /* [the time of the request] */
    const double *confidence_weight; /* 0..1 [0] */
    const double *floor;             /* 0..1 [0] */
};

/* One recall. Exactly one of `embeddings` and `like` is given. */
struct mneme_query {
    struct mneme_where where;
    const float *embeddings;     /* `count` rows of mneme_dim() values */
    size_t count;                /* 0 and 1: one query, the reply has `hits`; more: the reply has `results` */
    const struct mneme_id *like; /* as the embedding of this memory, which is left out of the hits */
    uint32_t k;                  /* [10], at most 10 000 */
    const double *min_score;
    const double *target; /* wanted recall@k [0.95] */
    bool exact;           /* the true top k */
    const struct mneme_rank *rank;
    uint32_t context;          /* neighbours in time of each hit, before and after */
    const uint64_t *as_of;     /* the state at this seq */
    const uint64_t *min_seq;   /* wait until this seq is visible */
    const char *const *fields; /* NULL: content, meta, tags, at, confidence */
    size_t field_count;
};

struct mneme_listing {
    struct mneme_where where; /* min_confidence is not used by list */
    bool oldest_first;
    uint32_t limit;     /* [100], at most 10 000 */
    const void *cursor; /* the `cursor` of the page before, as mneme_value_raw gives it */
    size_t cursor_size;
    const char *const *fields;
    size_t field_count;
};

enum mneme_forget_mode { MNEME_DELETE, MNEME_SUPPRESS, MNEME_RESTORE, MNEME_PURGE };

/* What to forget: the ids, else what the filter matches, else (with `all`) the whole space. */
struct mneme_forgetting {
    const struct mneme_id *ids;
    size_t id_count;
    const struct mneme_filter *filter;
    bool all;
    enum mneme_forget_mode mode;
    const uint64_t *if_version;
};

/* ---- typed calls: `space` NULL is "default"; `idem` NULL is made up here; see the protocol for the replies ---- */

/* Writes `count` memories (at most 4 096, 16 MiB) as one atomic change, durable when this returns. Reply: ids, seq,
 * versions. */
MNEME_API enum mneme_code mneme_remember(struct mneme *client, const char *space, const struct mneme_memory *memories,
                                         size_t count, const char *idem, struct mneme_reply **reply);
/* Writes a new version of one memory with the same embedding. `if_version` may be NULL. Reply: seq. */
MNEME_API enum mneme_code mneme_revise(struct mneme *client, const char *space, const struct mneme_id *id,
                                       const struct mneme_changes *changes, const uint64_t *if_version,
                                       const char *idem, struct mneme_reply **reply);
/* Reply: seq, count, and for MNEME_PURGE a receipt. */
MNEME_API enum mneme_code mneme_forget(struct mneme *client, const char *space, const struct mneme_forgetting *what,
                                       const char *idem, struct mneme_reply **reply);

/* Reply: hits (or results), seq, exact, scanned, us. */
MNEME_API enum mneme_code mneme_recall(struct mneme *client, const struct mneme_query *query,
                                       struct mneme_reply **reply);
/* Reply: memories, one per id in that order, nil where there is none. `as_of` and `fields` may be NULL. */
MNEME_API enum mneme_code mneme_get(struct mneme *client, const char *space, const struct mneme_id *ids, size_t count,
                                    const char *const *fields, size_t field_count, const uint64_t *as_of,
                                    struct mneme_reply **reply);
/* Reply: memories, seq, and a cursor while there is more. */
MNEME_API enum mneme_code mneme_list(struct mneme *client, const struct mneme_listing *listing,
                                     struct mneme_reply **reply);
/* Reply: count, seq. `where` NULL counts the space "default". */
MNEME_API enum mneme_code mneme_count(struct mneme *client, const struct mneme_where *where,
                                      struct mneme_reply **reply);
/* Reply: spaces, each with space and count. */
MNEME_API enum mneme_code mneme_spaces(struct mneme *client, struct mneme_reply **reply);

/* Reply: what the store is, its state, its processes and its endpoints. */
MNEME_API enum mneme_code mneme_info(struct mneme *client, struct mneme_reply **reply);
/* Returns when the supervisor has answered; the reply is empty. */
MNEME_API enum mneme_code mneme_ping(struct mneme *client, struct mneme_reply **reply);
/* `format`: NULL or "map" (reply: stats), "json" or "prometheus" (reply: text). */
MNEME_API enum mneme_code mneme_stats(struct mneme *client, const char *format, struct mneme_reply **reply);
/* Asks for a compaction now; with `wait` returns when it is done. */
MNEME_API enum mneme_code mneme_consolidate(struct mneme *client, bool wait, struct mneme_reply **reply);
/* Copies the store to `path` (absolute, on the server, not there yet). Reply: seq, bytes, files. */
MNEME_API enum mneme_code mneme_snapshot(struct mneme *client, const char *path, struct mneme_reply **reply);
/* Checks every checksum. Reply: files, bytes, damaged. */
MNEME_API enum mneme_code mneme_verify(struct mneme *client, struct mneme_reply **reply);
/* Reads the configuration again. */
MNEME_API enum mneme_code mneme_reload(struct mneme *client, struct mneme_reply **reply);
/* Finishes what was admitted, then stops the store. */
MNEME_API enum mneme_code mneme_drain(struct mneme *client, struct mneme_reply **reply);

/* ---- what comes out ---- */

MNEME_API void mneme_reply_free(struct mneme_reply *reply); /* NULL is allowed */
/* The reply as it came: one MessagePack map. Lives as long as the reply. */
MNEME_API const void *mneme_reply_bytes(const struct mneme_reply *reply, size_t *size);

enum mneme_type {
    MNEME_TYPE_ABSENT, /* no such key or index, or the reply does not decode */
    MNEME_TYPE_NIL,
    MNEME_TYPE_BOOL,
    MNEME_TYPE_INTEGER,
    MNEME_TYPE_FLOAT,
    MNEME_TYPE_STRING,
    MNEME_TYPE_BINARY,
    MNEME_TYPE_ARRAY,
    MNEME_TYPE_MAP,
    MNEME_TYPE_OTHER
};

/* A view of one value inside a reply. `at` is private; {NULL} is the absent value. */
struct mneme_value {
    const void *at;
};

/* The map of a reply; it is decoded at the first look. */
MNEME_API struct mneme_value mneme_reply_root(const struct mneme_reply *reply);
/* A short form: the value under `key` in the reply's map. */
MNEME_API struct mneme_value mneme_reply_get(const struct mneme_reply *reply, const char *key);

MNEME_API enum mneme_type mneme_value_type(struct mneme_value value);
/* The value under `key` in a map, and element `index` of an array. */
MNEME_API struct mneme_value mneme_value_get(struct mneme_value map, const char *key);
MNEME_API struct mneme_value mneme_value_at(struct mneme_value array, size_t index);
/* Key and value of entry `index` of a map, in its order. */
MNEME_API struct mneme_value mneme_value_key(struct mneme_value map, size_t index);
MNEME_API struct mneme_value mneme_value_entry(struct mneme_value map, size_t index);
/* Elements of an array, entries of a map, bytes of a string or binary; else 0. */
MNEME_API size_t mneme_value_length(struct mneme_value value);
/* Each answers the value, or `otherwise` when it is absent, of another type or out of range. */
MNEME_API uint64_t mneme_value_u64(struct mneme_value value, uint64_t otherwise);
MNEME_API int64_t mneme_value_i64(struct mneme_value value, int64_t otherwise);
MNEME_API double mneme_value_f64(struct mneme_value value, double otherwise); /* integers count as numbers */
MNEME_API bool mneme_value_bool(struct mneme_value value, bool otherwise);
/* The bytes of a string or binary, *size of them, without a NUL behind; NULL for anything else. `size` may be NULL. */
MNEME_API const char *mneme_value_bytes(struct mneme_value value, size_t *size);
/* True when the value is the string `text`. */
MNEME_API bool mneme_value_is(struct mneme_value value, const char *text);
/* False when the value is no id. */
MNEME_API bool mneme_value_id(struct mneme_value value, struct mneme_id *id);
/* Packs the value again as MessagePack: `*bytes` is allocated and the caller's to free(3). For handing back a cursor or
 * a meta. */
MNEME_API enum mneme_code mneme_value_raw(struct mneme_value value, void **bytes, size_t *size);

/* A memory or hit of a reply with its fields in place. Absent fields are NULL, 0 or false; pointers live as long as the
 * reply. */
struct mneme_found {
    struct mneme_id id;
    uint64_t version;
    double score;
    double similarity;
    bool has_score;
    const char *space;
    size_t space_size;
    const char *content;
    size_t content_size;
    bool content_is_binary;
    double confidence; /* NaN when absent */
    int64_t at;        /* INT64_MIN when absent */
    int64_t expires;   /* INT64_MIN when absent */
    struct mneme_value meta;
    struct mneme_value tags;
    const void *embedding;      /* little-endian f32, perhaps unaligned: copy before use */
    size_t embedding_size;      /* bytes */
    struct mneme_value damaged; /* names of fields that cannot be read until the store is mended: absent above, though
                                   the memory may have them; none is */
};

/* Reads one element of `hits`, `memories`, `before` or `after`. False when the value is no memory (nil in a `get`). */
MNEME_API bool mneme_value_found(struct mneme_value value, struct mneme_found *found);

/* ---- attach: recall in the program itself ----
 *
 * A program on the store's host maps the running store read-only and searches it itself: no socket, no copy, and the
 * hits, scores and order of a recall worker, bit for bit. Writing stays with the client above.
 *
 *     struct mneme_attached *a;
 *     struct mneme_answer answer;
 *     if (mneme_attach(&a, "/var/lib/mneme", 0) != MNEME_OK)
 *         die(mneme_open_error());
 *     if (mneme_attached_recall(a, &(struct mneme_query){.embeddings = vector, .k = 5}, &answer) != MNEME_OK)
 *         die(mneme_attached_error(a));
 *     for (size_t i = 0; i < answer.results[0].count; i++)
 *         print(&answer.results[0].hit[i].memory);
 *     mneme_detach(a);
 *
 * Threads   A handle belongs to one thread at a time. Several in a process are fine, and share their mappings of
 *           columns; each holds a reader slot (`reader.slots`). A forked child attaches anew: the calls refuse it.
 * Answers   What an answer points at (contents, tags, embeddings: in the mapped store; structs: in the handle) stays
 *           until the handle's next call, release or detach. Copy what shall live longer.
 * Freshness What was acknowledged before a call begins is in its answer; `min_seq` waits up to a second.
 * Restarts  A handle outlives the store's processes: a role that dies is not noticed; after a stop calls return
 *           MNEME_UNAVAILABLE (as while the store still starts), and the first call after the next start attaches to
 *           the new instance by itself. MNEME_CORRUPT at that point means that the store now runs another build of
 *           Mneme: attached programs must use the libmneme of the mnemed they attach to. While a supervisor that was
 *           killed has no successor, calls answer from the state it left.
 * Harm      This program can die or be stopped at any point: its slot is cleared when its process is gone, and a pin
 *           older than `reader.max_age` holds nothing back. Stopped in a call and continued later, the call ends with
 *           the right answer of its time. Between calls nothing is pinned; files that compaction has replaced keep
 *           their disk space while they are still mapped: until the next call, or mneme_attached_release.
 * Rights    The store's owner, or a member of `security.group`. Only the table of reader slots is mapped writable.
 * Signals   A page of the store that its disk cannot read raises SIGBUS. In a call that costs no more than the call:
 *           MNEME_CORRUPT, and the rest of the store is there at the next. For that the library installs a handler
 *           when it maps files; whatever is not its own goes on to the handler that it found. So does a fault when the
 *           program itself reads what an answer points at.
 */
struct mneme_attached;

/* Finds the instance that serves the store in `dir`, checks that it is of this boot and this build, maps it and takes a
 * reader slot. wait_ms: how long to wait for a store that is not up yet (0: fail at once). MNEME_UNAVAILABLE: nothing
 * serves it; MNEME_UNAUTHORIZED: this user may not; MNEME_BUSY: no reader slot is free; MNEME_CORRUPT: another build.
 * `*out` is NULL on failure and mneme_open_error() says why. */
MNEME_API enum mneme_code mneme_attach(struct mneme_attached **out, const char *dir, int wait_ms);
/* Unmaps everything and gives the slot back. NULL is allowed. */
MNEME_API void mneme_detach(struct mneme_attached *attached);
/* Lets go of the last answer, the mappings and the slot, for a program that will be idle for long; the next call takes
 * them again. */
MNEME_API void mneme_attached_release(struct mneme_attached *attached);

/* The sentence of the last failed call; "" after a success. */
MNEME_API const char *mneme_attached_error(const struct mneme_attached *attached);
/* The store's vector length, uuid (36 characters) and metric ("cosine", "ip", "l2"). */
MNEME_API uint32_t mneme_attached_dim(const struct mneme_attached *attached);
MNEME_API const char *mneme_attached_uuid(const struct mneme_attached *attached);
MNEME_API const char *mneme_attached_metric(const struct mneme_attached *attached);

/* A hit, as mneme_value_found reads it from a reply. */
struct mneme_hit {
    struct mneme_found memory;
    bool has_parts; /* with `rank`: score = similarity_part * confidence_part * decay_part */
    double similarity_part, confidence_part, decay_part;
    const struct mneme_found *before, *after; /* with `context`: neighbours in time, oldest first */
    size_t before_count, after_count;
};

struct mneme_hits {
    const struct mneme_hit *hit; /* best first */
    size_t count;
};

struct mneme_answer {
    const struct mneme_hits *results; /* one per embedding of the query */
    size_t count;                     /* >= 1 */
    uint64_t seq;                     /* the state that was searched */
    bool exact;                       /* these are the true top k */
    uint64_t scanned;                 /* rows whose codes or embeddings were compared */
    uint64_t us;                      /* of the whole call */
};

/* The recall of mneme_recall, with the same query and the same refusals. Without a `like`, query->count 0 counts as 1.
 * On failure *answer is zeros. */
MNEME_API enum mneme_code mneme_attached_recall(struct mneme_attached *attached, const struct mneme_query *query,
                                                struct mneme_answer *answer);

struct mneme_memories {
    const struct mneme_found *const *memory; /* one per id in that order; NULL where there is none */
    size_t count;
    uint64_t seq;
};

/* The get of mneme_get. `space` NULL is "default"; `fields` and `as_of` may be NULL. On failure *memories is zeros. */
MNEME_API enum mneme_code mneme_attached_get(struct mneme_attached *attached, const char *space,
                                             const struct mneme_id *ids, size_t count, const char *const *fields,
                                             size_t field_count, const uint64_t *as_of,
                                             struct mneme_memories *memories);

/* The last answer of the handle as the MessagePack map that a recall worker would have replied with (a query of several
 * embeddings has `results`, any other `hits`): for bindings that would rather decode than read structs. `*bytes`
 * belongs to the handle and stays until its next call. MNEME_NO_MEMORY is the only failure. */
MNEME_API enum mneme_code mneme_attached_pack_answer(struct mneme_attached *attached, const struct mneme_answer *answer,
                                                     const void **bytes, size_t *size);
MNEME_API enum mneme_code mneme_attached_pack_memories(struct mneme_attached *attached,
                                                       const struct mneme_memories *memories, const void **bytes,
                                                       size_t *size);

#ifdef __cplusplus
}
#endif
#endif
