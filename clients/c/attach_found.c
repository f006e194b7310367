/*
 * attach_found.c - rows of a pinned snapshot as memories and hits that point into the mapped store.
 *
 * Nothing is copied but ids, numbers and the skeleton of metadata; contents, strings and embeddings stay where they
 * lie. What they point at outlives the pin: files in use are only ever unlinked, and a mapping goes only when a later
 * call takes a newer view.
 */
#include "clients/c/attach.h"

#include <math.h>

#include "actors/wire.h"

static bool wants(const struct mn_attach_want *want, enum mn_field field)
{
    return (want->fields & MN_FIELD_BIT(field)) != 0;
}

static void fill_id(const struct mn_id *id, struct mneme_id *out)
{
    if (id->kind == MN_ID_UUID)
        mn_id_text(id, out->uuid);
    else
        out->number = id->lo;
}

static enum mn_status fill_tags(struct mneme_attached *a, const struct mn_part *p, uint32_t row,
                                struct mneme_value *value)
{
    const uint32_t *tags;
    uint32_t count = mn_part_tags(p, row, &tags);
    msgpack_object *o, *each;
    MN_POOL_ARRAY(a, o, 1);
    MN_POOL_ARRAY(a, each, count);
    for (uint32_t i = 0; i < count; i++) {
        struct mn_str tag = mn_part_string(p, tags[i]);
        each[i] = (msgpack_object){.type = MSGPACK_OBJECT_STR, .via.str = {tag.length, tag.data}};
    }
    *o = (msgpack_object){.type = MSGPACK_OBJECT_ARRAY, .via.array = {count, each}};
    value->at = o;
    return MN_OK;
}

static enum mn_status fill_content(const struct mn_part *p, uint32_t row, struct mneme_found *found)
{
    struct mn_str content;
    MN_TRY(mn_part_content(p, row, &content, &found->content_is_binary));
    found->content = content.data;
    found->content_size = content.data ? content.length : 0;
    found->content_is_binary = content.data && found->content_is_binary;
    return MN_OK;
}

static enum mn_status fill_meta(struct mneme_attached *a, const struct mn_part *p, uint32_t row,
                                struct mneme_value *value)
{
    struct mn_str meta;
    MN_TRY(mn_part_meta(p, row, &meta));
    return meta.length > 0 ? mn_attach_value(a, meta, value) : MN_OK;
}

static enum mn_status fill_embedding(const struct mn_part *p, uint32_t row, struct mneme_found *found)
{
    found->embedding = mn_part_vector(p, row);
    if (!found->embedding)
        return MN_FAIL(MN_CORRUPT, "the embedding lies in a damaged block; verify tells more");
    found->embedding_size = p->dim * sizeof(float);
    return MN_OK;
}

static enum mn_status fill_damaged(struct mneme_attached *a, uint32_t damaged, struct mneme_value *value)
{
    msgpack_object *o, *each;
    uint32_t count = 0;
    if (damaged == 0)
        return MN_OK;
    MN_POOL_ARRAY(a, o, 1);
    MN_POOL_ARRAY(a, each, MN_FIELDS);
    for (uint32_t field = 0; field < MN_FIELDS; field++)
        if (damaged & MN_FIELD_BIT(field)) {
            const char *word = mn_field_word(field);
            each[count++] = (msgpack_object){.type = MSGPACK_OBJECT_STR, .via.str = {(uint32_t)strlen(word), word}};
        }
    *o = (msgpack_object){.type = MSGPACK_OBJECT_ARRAY, .via.array = {count, each}};
    value->at = o;
    return MN_OK;
}

/* What cannot be read is left out, and named. */
static enum mn_status settle(uint32_t *damaged, enum mn_field field, enum mn_status status)
{
    if (status == MN_CORRUPT)
        *damaged |= MN_FIELD_BIT(field);
    return status == MN_CORRUPT ? MN_OK : status;
}

enum mn_status mn_attach_found(struct mneme_attached *a, const struct mn_snapshot *snapshot, struct mn_row_ref ref,
                               const struct mn_attach_want *want, struct mneme_found *found)
{
    const struct mn_part *p = &snapshot->parts[ref.part];
    uint32_t row = ref.row, damaged = 0;
    *found = (struct mneme_found){.confidence = NAN, .at = INT64_MIN, .expires = INT64_MIN};
    fill_id(mn_part_id(p, row), &found->id);
    found->version = mn_part_born(p, row);
    if (want->space || wants(want, MN_FIELD_SPACE)) {
        struct mn_str space = mn_part_string(p, mn_part_space(p, row));
        found->space = space.data;
        found->space_size = space.length;
    }
    if (wants(want, MN_FIELD_AT))
        found->at = mn_part_at(p, row);
    if (wants(want, MN_FIELD_CONFIDENCE))
        found->confidence = (double)mn_part_confidence(p, row);
    if (wants(want, MN_FIELD_EXPIRES) && mn_part_expires(p, row) != MN_NEVER)
        found->expires = mn_part_expires(p, row);
    if (wants(want, MN_FIELD_CONTENT))
        MN_TRY(settle(&damaged, MN_FIELD_CONTENT, fill_content(p, row, found)));
    if (wants(want, MN_FIELD_TAGS))
        MN_TRY(fill_tags(a, p, row, &found->tags));
    if (wants(want, MN_FIELD_EMBEDDING))
        MN_TRY(settle(&damaged, MN_FIELD_EMBEDDING, fill_embedding(p, row, found)));
    if (wants(want, MN_FIELD_META))
        MN_TRY(settle(&damaged, MN_FIELD_META, fill_meta(a, p, row, &found->meta)));
    return fill_damaged(a, damaged, &found->damaged);
}

/* ---- hits ---- */

static enum mn_status fill_neighbours(struct mneme_attached *a, const struct mn_snapshot *snapshot,
                                      const struct mn_attach_want *want, const struct mn_row_ref *rows, uint32_t count,
                                      const struct mneme_found **out)
{
    struct mneme_found *list;
    MN_POOL_ARRAY(a, list, count);
    for (uint32_t i = 0; i < count; i++)
        MN_TRY(mn_attach_found(a, snapshot, rows[i], want, &list[i]));
    *out = list;
    return MN_OK;
}

static enum mn_status fill_context(struct mneme_attached *a, const struct mn_snapshot *snapshot,
                                   const struct mn_attach_want *want, struct mn_row_ref ref, uint32_t context,
                                   struct mneme_hit *hit)
{
    uint32_t before, after;
    MN_TRY(mn_read_context(&a->reading, snapshot, ref, context, &before, &after));
    MN_TRY(fill_neighbours(a, snapshot, want, a->reading.rows, before, &hit->before));
    MN_TRY(fill_neighbours(a, snapshot, want, a->reading.rows + before, after, &hit->after));
    hit->before_count = before;
    hit->after_count = after;
    return MN_OK;
}

/* What the score was made of: similarity x confidence x decay (PROTOCOL.md, rank). */
static void fill_parts(const struct mn_rank *rank, const struct mn_hit *from, struct mneme_hit *hit)
{
    double weight = rank->confidence_weight;
    hit->has_parts = true;
    hit->similarity_part = from->similarity > 0 ? from->similarity : 0;
    hit->confidence_part = 1 - weight + weight * (double)from->confidence;
    hit->decay_part = from->decay;
}

static enum mn_status fill_hit(struct mneme_attached *a, const struct mn_snapshot *snapshot,
                               const struct mn_query *query, const struct mn_attach_want *want, uint32_t context,
                               const struct mn_hit *from, struct mneme_hit *hit)
{
    struct mn_row_ref ref = {from->part, from->row};
    MN_TRY(mn_attach_found(a, snapshot, ref, want, &hit->memory));
    hit->memory.has_score = true;
    hit->memory.score = from->score;
    hit->memory.similarity = from->similarity;
    if (query->rank.on)
        fill_parts(&query->rank, from, hit);
    return context > 0 ? fill_context(a, snapshot, want, ref, context, hit) : MN_OK;
}

enum mn_status mn_attach_hits(struct mneme_attached *a, const struct mn_snapshot *snapshot,
                              const struct mn_query *query, const struct mn_search *search,
                              const struct mn_attach_want *want, uint32_t context, struct mneme_hits *out)
{
    struct mneme_hit *hits;
    MN_POOL_ARRAY(a, hits, search->hit_count);
    for (uint32_t i = 0; i < search->hit_count; i++)
        MN_TRY(fill_hit(a, snapshot, query, want, context, &search->hits[i], &hits[i]));
    *out = (struct mneme_hits){.hit = hits, .count = search->hit_count};
    return MN_OK;
}
