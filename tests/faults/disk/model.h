/*
 * model.h - what a store must hold, in numbers: all bytes of a memory follow from a few of them.
 *
 * Requests are made and applied here, and a snapshot is compared with a state, bit for bit.
 */
#ifndef MN_TESTS_FAULTS_DISK_MODEL_H
#define MN_TESTS_FAULTS_DISK_MODEL_H

#include "engine/read.h"
#include "engine/request.h"

#define MODEL_SPACES 2u
#define MODEL_IDS    48u /* 1 .. MODEL_IDS - 1 */
#define MODEL_DIM    8u
#define MODEL_TAGS   5u
#define MODEL_ROWS   6u /* of one request, at most */

/* Numbers that a memory's fields follow from. purged: since then nothing was written to its id. */
struct model_memory {
    bool there, suppressed, purged;
    uint32_t vector, content, tags, meta, confidence, at;
};

struct model_state {
    struct model_memory memories[MODEL_SPACES][MODEL_IDS];
    uint64_t assigned; /* the largest id that the engine has given in the space of ids of its own */
};

enum model_kind { MODEL_PUT, MODEL_ASSIGN, MODEL_REVISE, MODEL_FORGET, MODEL_FORGET_TAG, MODEL_KINDS };

/* One write. number: what new fields follow from; idem: 0 = no key. */
struct model_request {
    enum model_kind kind;
    uint32_t space, first, count, number, idem;
    enum mn_forget_mode mode;
    uint32_t fields;     /* revise: bits of content, tags, meta, confidence, at */
    uint32_t supersedes; /* put: an id, or 0 */
    uint32_t tag;
    /* what came of it */
    uint64_t seq, assigned;
};
enum { MODEL_SET_CONTENT = 1, MODEL_SET_TAGS = 2, MODEL_SET_META = 4, MODEL_SET_CONFIDENCE = 8, MODEL_SET_AT = 16 };

struct mn_str model_space(uint32_t space); /* MODEL_SPACES: the one of the engine's own ids */
struct mn_str model_tag(uint32_t tag);
bool model_has_tag(const struct model_memory *memory, uint32_t tag);
struct mn_id model_id(uint32_t id);
/* The content of (space, id) that follows from a number, into `text`; its length. It begins with a text that no other
 * memory's content has: model_mark. */
#define MODEL_CONTENT_MAX 4096u
uint32_t model_content(char text[MODEL_CONTENT_MAX], uint32_t space, uint32_t id, uint32_t number);
uint32_t model_mark(char text[64], uint32_t space, uint32_t id);

/* A request as the engine takes it; all that it points to lives in `room`. */
struct model_room {
    float vectors[MODEL_ROWS][MODEL_DIM];
    char contents[MODEL_ROWS][MODEL_CONTENT_MAX];
    uint8_t metas[MODEL_ROWS][32];
    struct mn_str tags[MODEL_ROWS][MODEL_TAGS];
    struct mn_id ids[MODEL_ROWS], superseded;
    struct mn_memory memories[MODEL_ROWS];
    char key[32];
};
struct mn_write model_write(const struct model_request *request, struct model_room *room);
struct mn_remember model_remember(const struct model_request *request, struct model_room *room);
struct mn_revise model_revise(const struct model_request *request, struct model_room *room);
struct mn_forget model_forget(const struct model_request *request, struct model_room *room);

/* What the request makes of a state. */
void model_apply(struct model_state *state, const struct model_request *request);

/* True when the row is this memory, bit for bit; a field that cannot be read is no match. */
bool model_is(const struct mn_part *part, uint32_t row, uint32_t space, uint32_t id, const struct model_memory *memory);
/* False when a checksum says that a part of the row is damaged: then it is not served. */
bool model_reads(const struct mn_part *part, uint32_t row);
/* The visible row of an id: part->part is MN_NONE when there is none. */
struct mn_row_ref model_find(const struct mn_snapshot *snapshot, uint32_t space, uint32_t id);

#endif
