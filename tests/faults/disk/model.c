/*
 * model.c - see model.h.
 */
#include "tests/faults/disk/model.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/meta.h"
#include "shm/process.h"

struct mn_str model_space(uint32_t space)
{
    static const char *const names[MODEL_SPACES + 1] = {"a", "agents/b", "own ids"};
    return (struct mn_str){names[space], (uint32_t)strlen(names[space])};
}

struct mn_str model_tag(uint32_t tag)
{
    static const char *const names[MODEL_TAGS] = {"red", "green", "blue", "a", "x"};
    return (struct mn_str){names[tag], (uint32_t)strlen(names[tag])};
}

struct mn_id model_id(uint32_t id)
{
    return (struct mn_id){.lo = id};
}

/* ---- what follows from a number ---- */

static void make_vector(float vector[MODEL_DIM], uint32_t number)
{
    for (uint32_t d = 0; d < MODEL_DIM; d++)
        vector[d] = (float)((number * 31u + d * 7u) % 1009u) + 1.0f + (float)(number % 4096u) / 4096.0f;
}

static uint32_t tag_count(uint32_t number)
{
    return number % 4;
}

static uint32_t tag_at(uint32_t number, uint32_t index)
{
    return (number / 4 + index) % MODEL_TAGS;
}

bool model_has_tag(const struct model_memory *memory, uint32_t tag)
{
    for (uint32_t t = 0; t < tag_count(memory->tags); t++)
        if (tag_at(memory->tags, t) == tag)
            return true;
    return false;
}

uint32_t model_mark(char text[64], uint32_t space, uint32_t id)
{
    return (uint32_t)snprintf(text, 64, "<the memory %u of space %u, ", id, space);
}

uint32_t model_content(char text[MODEL_CONTENT_MAX], uint32_t space, uint32_t id, uint32_t number)
{
    uint32_t n = model_mark(text, space, id);
    n += (uint32_t)snprintf(text + n, 32, "as of %u>", number);
    uint32_t length = number % 5 == 0 ? 2000 + number % 2000 : n + number % 90;
    for (; n < length; n++)
        text[n] = (char)('a' + (n * 7 + number) % 26);
    return n;
}

static bool has_content(uint32_t number)
{
    return number % 9 != 0;
}

static uint32_t make_meta(uint8_t bytes[32], uint32_t number)
{
    struct mn_meta_writer meta = {.data = bytes, .bytes_max = 32};
    if (number % 3 == 0)
        return 0;
    mn_meta_map_begin(&meta, 1);
    mn_meta_key(&meta, (struct mn_str){"n", 1});
    mn_meta_uint(&meta, number);
    mn_meta_end(&meta);
    return meta.bytes;
}

static float confidence_of(uint32_t number)
{
    return (float)(number % 11) / 10.0f;
}

static int64_t at_of(uint32_t number)
{
    return INT64_C(1600000000000000000) + (int64_t)(number * 7919u % 100000u) * 1000000;
}

static void make_memory(struct model_room *room, uint32_t row, uint32_t space, uint32_t id, uint32_t number)
{
    make_vector(room->vectors[row], number);
    uint32_t length = has_content(number) ? model_content(room->contents[row], space, id, number) : 0;
    uint32_t meta = make_meta(room->metas[row], number);
    for (uint32_t t = 0; t < tag_count(number); t++)
        room->tags[row][t] = model_tag(tag_at(number, t));
    room->memories[row] = (struct mn_memory){.has_id = true,
                                             .id = model_id(id),
                                             .embedding = room->vectors[row],
                                             .content = {length ? room->contents[row] : NULL, length},
                                             .content_bin = length && number % 2,
                                             .meta = {(const char *)room->metas[row], meta},
                                             .tags = room->tags[row],
                                             .tag_count = tag_count(number),
                                             .confidence = confidence_of(number),
                                             .at = at_of(number),
                                             .expires = MN_NEVER};
}

/* ---- requests ---- */

struct mn_write model_write(const struct model_request *request, struct model_room *room)
{
    uint32_t space = request->kind == MODEL_ASSIGN ? MODEL_SPACES : request->space;
    struct mn_write write = {.space = model_space(space), .now = mn_wall_ns()};
    if (request->idem == 0)
        return write;
    int n = snprintf(room->key, sizeof room->key, "key %u", request->idem);
    write.idem = (struct mn_str){room->key, (uint32_t)n};
    write.request_hash = request->idem * UINT64_C(0x9e3779b97f4a7c15);
    return write;
}

struct mn_remember model_remember(const struct model_request *request, struct model_room *room)
{
    bool assign = request->kind == MODEL_ASSIGN;
    for (uint32_t i = 0; i < request->count; i++) {
        make_memory(room, i, assign ? MODEL_SPACES : request->space, request->first + i, request->number + i);
        if (!assign)
            continue;
        room->memories[i].has_id = false;
        room->memories[i].expires = 1; /* never seen: what counts is that its id is not given again */
    }
    room->superseded = model_id(request->supersedes);
    if (request->supersedes) {
        room->memories[0].supersedes = &room->superseded;
        room->memories[0].supersede_count = 1;
    }
    return (struct mn_remember){
        .write = model_write(request, room), .memories = room->memories, .count = request->count};
}

struct mn_revise model_revise(const struct model_request *request, struct model_room *room)
{
    make_memory(room, 0, request->space, request->first, request->number);
    return (struct mn_revise){.write = model_write(request, room),
                              .id = model_id(request->first),
                              .set_content = request->fields & MODEL_SET_CONTENT,
                              .set_tags = request->fields & MODEL_SET_TAGS,
                              .set_meta = request->fields & MODEL_SET_META,
                              .set_confidence = request->fields & MODEL_SET_CONFIDENCE,
                              .set_at = request->fields & MODEL_SET_AT,
                              .set = room->memories[0]};
}

struct mn_forget model_forget(const struct model_request *request, struct model_room *room)
{
    for (uint32_t i = 0; i < request->count; i++)
        room->ids[i] = model_id(request->first + i);
    return (struct mn_forget){.write = model_write(request, room),
                              .ids = room->ids,
                              .id_count = request->kind == MODEL_FORGET ? request->count : 0,
                              .mode = request->mode};
}

/* ---- what they do ---- */

static void put(struct model_state *state, const struct model_request *r)
{
    if (r->supersedes)
        state->memories[r->space][r->supersedes].there = false;
    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t n = r->number + i;
        state->memories[r->space][r->first + i] = (struct model_memory){
            .there = true, .vector = n, .content = n, .tags = n, .meta = n, .confidence = n, .at = n};
    }
}

static void revise(struct model_memory *m, const struct model_request *r)
{
    if (!m->there || m->suppressed)
        return;
    m->content = r->fields & MODEL_SET_CONTENT ? r->number : m->content;
    m->tags = r->fields & MODEL_SET_TAGS ? r->number : m->tags;
    m->meta = r->fields & MODEL_SET_META ? r->number : m->meta;
    m->confidence = r->fields & MODEL_SET_CONFIDENCE ? r->number : m->confidence;
    m->at = r->fields & MODEL_SET_AT ? r->number : m->at;
}

static void forget(struct model_memory *m, enum mn_forget_mode mode)
{
    m->purged |= mode == MN_FORGET_PURGE;
    if (mode == MN_FORGET_DELETE || mode == MN_FORGET_PURGE)
        m->there = false;
    else if (m->there)
        m->suppressed = mode == MN_FORGET_SUPPRESS;
}

void model_apply(struct model_state *state, const struct model_request *r)
{
    switch (r->kind) {
    case MODEL_PUT:
        put(state, r);
        break;
    case MODEL_ASSIGN:
        state->assigned = r->assigned;
        break;
    case MODEL_REVISE:
        revise(&state->memories[r->space][r->first], r);
        break;
    case MODEL_FORGET:
        for (uint32_t i = 0; i < r->count; i++)
            forget(&state->memories[r->space][r->first + i], r->mode);
        break;
    case MODEL_FORGET_TAG:
        for (uint32_t id = 1; id < MODEL_IDS; id++)
            if (model_has_tag(&state->memories[r->space][id], r->tag))
                forget(&state->memories[r->space][id], r->mode);
        break;
    case MODEL_KINDS:
        break;
    }
}

/* ---- comparing ---- */

static bool tags_match(const struct mn_part *part, uint32_t row, uint32_t number)
{
    const uint32_t *tags;
    uint32_t count = mn_part_tags(part, row, &tags), found = 0;
    for (uint32_t w = 0; w < tag_count(number); w++)
        for (uint32_t t = 0; t < count; t++)
            found += mn_str_equal(mn_part_string(part, tags[t]), model_tag(tag_at(number, w)));
    return count == tag_count(number) && found == count;
}

static bool texts_match(const struct mn_part *part, uint32_t row, uint32_t space, uint32_t id,
                        const struct model_memory *m)
{
    struct mn_str content, meta;
    char text[MODEL_CONTENT_MAX];
    uint8_t bytes[32];
    bool bin;
    if (mn_part_content(part, row, &content, &bin) != MN_OK || mn_part_meta(part, row, &meta) != MN_OK)
        return false;
    if (!mn_str_equal(meta, (struct mn_str){(const char *)bytes, make_meta(bytes, m->meta)}))
        return false;
    if (!has_content(m->content))
        return content.data == NULL;
    return content.data && bin == (m->content % 2 == 1) &&
           mn_str_equal(content, (struct mn_str){text, model_content(text, space, id, m->content)});
}

bool model_is(const struct mn_part *part, uint32_t row, uint32_t space, uint32_t id, const struct model_memory *m)
{
    float vector[MODEL_DIM];
    const float *there = mn_part_vector(part, row);
    make_vector(vector, m->vector);
    return m->there && !m->suppressed && there && memcmp(there, vector, sizeof vector) == 0 &&
           mn_part_at(part, row) == at_of(m->at) && mn_part_confidence(part, row) == confidence_of(m->confidence) &&
           mn_part_expires(part, row) == MN_NEVER && tags_match(part, row, m->tags) &&
           texts_match(part, row, space, id, m);
}

bool model_reads(const struct mn_part *part, uint32_t row)
{
    struct mn_str content, meta;
    bool bin;
    return mn_part_vector(part, row) && mn_part_content(part, row, &content, &bin) == MN_OK &&
           mn_part_meta(part, row, &meta) == MN_OK;
}

struct mn_row_ref model_find(const struct mn_snapshot *snapshot, uint32_t space, uint32_t id)
{
    struct mn_id key = model_id(id);
    return mn_read_find(snapshot, model_space(space), &key);
}
