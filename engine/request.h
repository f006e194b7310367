/*
 * request.h - what a client may ask the writer to change. Filled by whoever decodes a request; owns nothing: everything
 * points into the request's bytes or the decoder's arena and must live until the admission returns.
 */
#ifndef MN_ENGINE_REQUEST_H
#define MN_ENGINE_REQUEST_H

#include "engine/types.h"

struct mn_memory {
    bool has_id;
    struct mn_id id;
    const void *embedding; /* dim little-endian floats, any alignment */
    struct mn_str content; /* data NULL = none */
    bool content_bin;
    struct mn_str meta; /* compact (engine/meta.h); length 0 = none */
    const struct mn_str *tags;
    uint32_t tag_count;
    float confidence;
    int64_t at, expires; /* ns since the epoch; expires: MN_NEVER */
    bool if_absent;
    bool has_if_version;
    uint64_t if_version;
    const struct mn_id *supersedes;
    uint32_t supersede_count;
};

/* Common to every write. */
struct mn_write {
    struct mn_str space;
    struct mn_str idem;    /* length 0 = none */
    uint64_t request_hash; /* of all that makes the request what it is, but rid and deadline_ms */
    int64_t now;           /* ns since the epoch */
};

struct mn_remember {
    struct mn_write write;
    const struct mn_memory *memories;
    uint32_t count;
};

struct mn_revise {
    struct mn_write write;
    struct mn_id id;
    bool has_if_version;
    uint64_t if_version;
    bool set_confidence, set_content, set_meta, set_tags, set_at,
        set_expires;      /* set_content with data NULL removes it */
    struct mn_memory set; /* the fields that are set */
};

enum mn_forget_mode { MN_FORGET_DELETE = 1, MN_FORGET_SUPPRESS = 2, MN_FORGET_RESTORE = 3, MN_FORGET_PURGE = 4 };

struct mn_forget {
    struct mn_write write;
    const struct mn_id *ids; /* no duplicates needed; unknown ones count nothing */
    uint32_t id_count;
    enum mn_forget_mode mode;
    bool has_if_version;
    uint64_t if_version;
};

struct mn_outcome {
    bool replayed; /* answered from the idem key: nothing is written, it is durable already once seq <= durable_seq */
    uint64_t seq;
    uint32_t count;          /* forget: how many were hidden or restored */
    const struct mn_id *ids; /* remember: one per memory; valid until the next admission. Forget of a selection: those
                                it took; valid until the selection is freed */
    uint32_t id_count;
};

#endif
