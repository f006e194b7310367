/*
 * wire_decode_write.c - remember, revise, forget: from the frame to what the writer admits.
 *
 * Contents and embeddings stay where they lie in the frame. Everything that can be known without the store is checked
 * here; what depends on it (ids that exist, versions, idem keys) and the floats of embeddings are the writer's.
 */
#include "actors/wire_decode.h"

#include "actors/wire_meta.h"

/* ---- what makes a request what it is */

static uint64_t hash_bytes(const uint8_t *from, const uint8_t *to)
{
    return mn_str_hash((struct mn_str){(const char *)from, (uint32_t)(to - from)});
}

/* Over every field but rid, deadline_ms and idem, whatever their order. Only asked where there is an idem key: it reads
 * the whole frame. */
static uint64_t hash_request(const struct mn_wire *body)
{
    uint64_t hash = 0;
    const uint8_t *at = body->inside;
    for (uint32_t i = 0; i < body->count; i++) {
        struct mn_wire key;
        const uint8_t *from = at;
        mn_wire_next(&at, &key);
        at = mn_wire_skip(at);
        if (!mn_wire_is(key.s, "rid") && !mn_wire_is(key.s, "deadline_ms") && !mn_wire_is(key.s, "idem"))
            hash += hash_bytes(from, at);
    }
    return hash;
}

static enum mn_status read_write(const struct mn_request *request, const struct mn_wire *space,
                                 const struct mn_wire *idem, int64_t now, struct mn_write *out)
{
    *out = (struct mn_write){.now = now};
    MN_TRY(mn_decode_space(space, &out->space));
    if (idem->type == MN_WIRE_ABSENT)
        return MN_OK;
    MN_TRY(mn_wire_str(idem, "idem", 1, MN_IDEM_BYTES_MAX, &out->idem));
    out->request_hash = hash_request(&request->body);
    return MN_OK;
}

/* ---- the fields of a memory */

static enum mn_status count_bytes(struct mn_decoder *decoder, uint64_t bytes)
{
    decoder->bytes += bytes;
    if (decoder->bytes > MN_REQUEST_BYTES_MAX)
        return MN_FAIL(MN_TOO_LARGE, "the memories of the request have more than %u MiB; send them in several requests",
                       MN_REQUEST_BYTES_MAX >> 20);
    return MN_OK;
}

static enum mn_status read_content(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_memory *m)
{
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    if (v->type != MN_WIRE_STR && v->type != MN_WIRE_BIN)
        return mn_wire_wrong(v, "content", "a string or a bin");
    if (v->s.length > MN_CONTENT_BYTES_MAX)
        return MN_FAIL(MN_TOO_LARGE, "content has %u bytes; %u is the most", v->s.length, MN_CONTENT_BYTES_MAX);
    if (v->type == MN_WIRE_STR)
        MN_TRY(mn_wire_str(v, "content", 0, UINT32_MAX, &m->content));
    m->content = v->s;
    m->content_bin = v->type == MN_WIRE_BIN;
    return count_bytes(decoder, v->s.length);
}

static enum mn_status read_meta(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_memory *m)
{
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    MN_TRY(mn_wire_map(v, "meta"));
    size_t bytes = (size_t)(mn_wire_skip(v->at) - v->at);
    if (bytes > MN_META_BYTES_MAX)
        return MN_FAIL(MN_TOO_LARGE, "meta has %zu bytes; %u is the most", bytes, MN_META_BYTES_MAX);
    MN_TRY(mn_wire_meta_read(&decoder->arena, v, "meta", &m->meta));
    return count_bytes(decoder, m->meta.length);
}

static enum mn_status read_tags(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_memory *m)
{
    MN_TRY(mn_decode_strings(decoder, v, "tags", MN_TAGS_MAX, MN_TAG_BYTES_MAX, &m->tags, &m->tag_count));
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->tag_count; i++)
        bytes += m->tags[i].length;
    return count_bytes(decoder, bytes);
}

static enum mn_status read_confidence(const struct mn_wire *v, float *confidence)
{
    double value = *confidence;
    MN_TRY(mn_wire_number(v, "confidence", &value));
    if (value < 0 || value > 1)
        return MN_FAIL(MN_BAD_VALUE, "confidence is %g; it must be from 0 to 1", value);
    *confidence = (float)value;
    return MN_OK;
}

/* ---- remember */

enum {
    M_ID,
    M_EMBEDDING,
    M_CONTENT,
    M_META,
    M_TAGS,
    M_CONFIDENCE,
    M_AT,
    M_EXPIRES,
    M_IF_ABSENT,
    M_IF_VERSION,
    M_SUPERSEDES,
    M_COUNT
};
static const char *const memory_names[] = {"id", "embedding", "content",   "meta",       "tags",      "confidence",
                                           "at", "expires",   "if_absent", "if_version", "supersedes"};

static enum mn_status read_conditions(const struct mn_wire *fields, struct mn_memory *m)
{
    MN_TRY(mn_wire_bool(&fields[M_IF_ABSENT], "if_absent", &m->if_absent));
    MN_TRY(mn_wire_uint(&fields[M_IF_VERSION], "if_version", 0, UINT64_MAX, &m->if_version));
    m->has_if_version = fields[M_IF_VERSION].type != MN_WIRE_ABSENT;
    if (m->has_if_version && !m->has_id)
        return MN_FAIL(MN_BAD_REQUEST, "if_version needs an id: a memory without one is always new");
    if (m->has_if_version && m->if_absent)
        return MN_FAIL(MN_BAD_REQUEST, "if_version and if_absent exclude each other; give one of them");
    return MN_OK;
}

static enum mn_status read_memory(struct mn_decoder *decoder, const struct mn_wire *v, int64_t now, struct mn_memory *m)
{
    struct mn_wire fields[M_COUNT];
    *m = (struct mn_memory){.confidence = 1.0f, .at = now, .expires = MN_NEVER};
    MN_TRY(mn_wire_map(v, "a memory"));
    MN_TRY(mn_wire_fields(v, "a memory", memory_names, M_COUNT, true, fields));
    m->has_id = fields[M_ID].type != MN_WIRE_ABSENT;
    MN_TRY(mn_wire_id(&fields[M_ID], "id", &m->id));
    MN_TRY(mn_wire_need(&fields[M_EMBEDDING], "embedding"));
    MN_TRY(count_bytes(decoder, decoder->dim * sizeof(float)));
    MN_TRY(mn_decode_embedding(decoder, &fields[M_EMBEDDING], "embedding", &m->embedding));
    MN_TRY(read_content(decoder, &fields[M_CONTENT], m));
    MN_TRY(read_meta(decoder, &fields[M_META], m));
    MN_TRY(read_tags(decoder, &fields[M_TAGS], m));
    MN_TRY(read_confidence(&fields[M_CONFIDENCE], &m->confidence));
    MN_TRY(mn_wire_time(&fields[M_AT], "at", &m->at));
    MN_TRY(mn_wire_time(&fields[M_EXPIRES], "expires", &m->expires));
    MN_TRY(read_conditions(fields, m));
    return mn_decode_ids(decoder, &fields[M_SUPERSEDES], "supersedes", &m->supersedes, &m->supersede_count);
}

static enum mn_status read_memories(struct mn_decoder *decoder, const struct mn_wire *v, int64_t now,
                                    struct mn_remember *out)
{
    struct mn_memory *memories;
    const uint8_t *at = v->inside;
    MN_TRY(mn_wire_need(v, "memories"));
    MN_TRY(mn_wire_array(v, "memories", MN_REQUEST_ROWS_MAX));
    if (v->count == 0)
        return MN_FAIL(MN_BAD_REQUEST, "memories is empty; it must have 1 to %u memories", MN_REQUEST_ROWS_MAX);
    MN_ARENA_ARRAY(&decoder->arena, memories, v->count);
    for (uint32_t i = 0; i < v->count; i++) {
        struct mn_wire one;
        const uint8_t *from = at;
        mn_wire_next(&from, &one);
        enum mn_status status = read_memory(decoder, &one, now, &memories[i]);
        if (status != MN_OK)
            return mn_wire_within(status, "memories[%u]", i);
        at = mn_wire_skip(at);
    }
    out->memories = memories;
    out->count = v->count;
    return MN_OK;
}

static enum mn_status read_ack(const struct mn_wire *v, bool *accepted)
{
    *accepted = false;
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    if (v->type == MN_WIRE_STR && mn_wire_is(v->s, "accepted"))
        *accepted = true;
    else if (v->type != MN_WIRE_STR || !mn_wire_is(v->s, "durable"))
        return mn_wire_wrong(v, "ack", "\"durable\" or \"accepted\"");
    return MN_OK;
}

enum mn_status mn_decode_remember(struct mn_decoder *decoder, const struct mn_request *request, int64_t now,
                                  struct mn_remember *out, bool *accepted)
{
    enum { SPACE, MEMORIES, IDEM, ACK, COUNT };
    static const char *const names[] = {"space", "memories", "idem", "ack"};
    struct mn_wire fields[COUNT];
    mn_decode_begin(decoder);
    *out = (struct mn_remember){0};
    MN_TRY(mn_wire_fields(&request->body, "the request", names, COUNT, false, fields));
    MN_TRY(read_write(request, &fields[SPACE], &fields[IDEM], now, &out->write));
    MN_TRY(read_ack(&fields[ACK], accepted));
    return read_memories(decoder, &fields[MEMORIES], now, out);
}

/* ---- revise */

/* A field of `set` that is nil removes what the memory had there. */
static void note_set(struct mn_wire *v, bool *set)
{
    *set = v->type != MN_WIRE_ABSENT;
    if (v->type == MN_WIRE_NIL)
        v->type = MN_WIRE_ABSENT;
}

static enum mn_status read_set(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_revise *out)
{
    enum { CONFIDENCE, CONTENT, META, TAGS, AT, EXPIRES, COUNT };
    static const char *const names[] = {"confidence", "content", "meta", "tags", "at", "expires"};
    struct mn_wire fields[COUNT];
    struct mn_memory *set = &out->set;
    *set = (struct mn_memory){.expires = MN_NEVER};
    MN_TRY(mn_wire_need(v, "set"));
    MN_TRY(mn_wire_map(v, "set"));
    MN_TRY(mn_wire_fields(v, "set", names, COUNT, true, fields));
    if (v->count == 0)
        return MN_FAIL(MN_BAD_REQUEST, "set is empty; it must have what shall change");
    out->set_confidence = fields[CONFIDENCE].type != MN_WIRE_ABSENT;
    out->set_at = fields[AT].type != MN_WIRE_ABSENT;
    note_set(&fields[CONTENT], &out->set_content);
    note_set(&fields[META], &out->set_meta);
    note_set(&fields[TAGS], &out->set_tags);
    note_set(&fields[EXPIRES], &out->set_expires);
    MN_TRY(read_confidence(&fields[CONFIDENCE], &set->confidence));
    MN_TRY(read_content(decoder, &fields[CONTENT], set));
    MN_TRY(read_meta(decoder, &fields[META], set));
    MN_TRY(read_tags(decoder, &fields[TAGS], set));
    MN_TRY(mn_wire_time(&fields[AT], "at", &set->at));
    return mn_wire_time(&fields[EXPIRES], "expires", &set->expires);
}

enum mn_status mn_decode_revise(struct mn_decoder *decoder, const struct mn_request *request, int64_t now,
                                struct mn_revise *out)
{
    enum { SPACE, ID, SET, IF_VERSION, IDEM, COUNT };
    static const char *const names[] = {"space", "id", "set", "if_version", "idem"};
    struct mn_wire fields[COUNT];
    mn_decode_begin(decoder);
    *out = (struct mn_revise){0};
    MN_TRY(mn_wire_fields(&request->body, "the request", names, COUNT, false, fields));
    MN_TRY(read_write(request, &fields[SPACE], &fields[IDEM], now, &out->write));
    MN_TRY(mn_wire_need(&fields[ID], "id"));
    MN_TRY(mn_wire_id(&fields[ID], "id", &out->id));
    MN_TRY(mn_wire_uint(&fields[IF_VERSION], "if_version", 0, UINT64_MAX, &out->if_version));
    out->has_if_version = fields[IF_VERSION].type != MN_WIRE_ABSENT;
    return read_set(decoder, &fields[SET], out);
}

/* ---- forget */

static enum mn_status read_mode(const struct mn_wire *v, enum mn_forget_mode *mode)
{
    static const struct {
        const char *word;
        enum mn_forget_mode mode;
    } modes[] = {{"delete", MN_FORGET_DELETE},
                 {"suppress", MN_FORGET_SUPPRESS},
                 {"restore", MN_FORGET_RESTORE},
                 {"purge", MN_FORGET_PURGE}};
    *mode = MN_FORGET_DELETE;
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    for (size_t i = 0; v->type == MN_WIRE_STR && i < MN_ARRAY_LEN(modes); i++) {
        if (mn_wire_is(v->s, modes[i].word)) {
            *mode = modes[i].mode;
            return MN_OK;
        }
    }
    return mn_wire_wrong(v, "mode", "\"delete\", \"suppress\", \"restore\" or \"purge\"");
}

/* By filter, or all of the space. A filter without a condition would be `all` by accident. */
static enum mn_status read_selection(struct mn_decoder *decoder, const struct mn_wire *filter,
                                     struct mn_forget_request *out)
{
    struct mn_str *space;
    out->selects = true;
    out->scope = mn_decode_scope();
    MN_ARENA_ARRAY(&decoder->arena, space, 1);
    *space = out->forget.write.space;
    out->scope.spaces = space;
    out->scope.space_count = 1;
    if (out->forget.has_if_version)
        return MN_FAIL(MN_BAD_REQUEST, "if_version goes with ids; a filter or all may match many versions");
    MN_TRY(mn_decode_filter(decoder, filter, &out->scope.filter));
    if (filter->type != MN_WIRE_ABSENT && mn_filter_is_open(&out->scope.filter))
        return MN_FAIL(MN_BAD_REQUEST, "filter has no condition; to forget everything in the space say all: true");
    return MN_OK;
}

enum mn_status mn_decode_forget(struct mn_decoder *decoder, const struct mn_request *request, int64_t now,
                                struct mn_forget_request *out)
{
    enum { SPACE, IDS, FILTER, ALL, MODE, IF_VERSION, IDEM, COUNT };
    static const char *const names[] = {"space", "ids", "filter", "all", "mode", "if_version", "idem"};
    struct mn_wire fields[COUNT];
    struct mn_forget *forget = &out->forget;
    bool all = false;
    mn_decode_begin(decoder);
    *out = (struct mn_forget_request){0};
    MN_TRY(mn_wire_fields(&request->body, "the request", names, COUNT, false, fields));
    MN_TRY(read_write(request, &fields[SPACE], &fields[IDEM], now, &forget->write));
    MN_TRY(read_mode(&fields[MODE], &forget->mode));
    MN_TRY(mn_wire_uint(&fields[IF_VERSION], "if_version", 0, UINT64_MAX, &forget->if_version));
    forget->has_if_version = fields[IF_VERSION].type != MN_WIRE_ABSENT;
    MN_TRY(mn_wire_bool(&fields[ALL], "all", &all));
    bool ids = fields[IDS].type != MN_WIRE_ABSENT, filter = fields[FILTER].type != MN_WIRE_ABSENT;
    if (ids + filter + all != 1)
        return MN_FAIL(MN_BAD_REQUEST, "the request has %d of ids, filter and all: true; it must have one of them",
                       ids + filter + all);
    if (!ids)
        return read_selection(decoder, &fields[FILTER], out);
    MN_TRY(mn_decode_ids(decoder, &fields[IDS], "ids", &forget->ids, &forget->id_count));
    if (forget->id_count == 0)
        return MN_FAIL(MN_BAD_REQUEST, "ids is empty; it must name at least one memory");
    return MN_OK;
}
