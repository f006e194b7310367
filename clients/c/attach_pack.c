/*
 * attach_pack.c - answers of attach as the MessagePack map that a recall worker would have replied with.
 *
 * For bindings of languages in which one call and one decoder are cheaper than reading structs field by field, and
 * which then need one shape of result only.
 */
#include "clients/c/attach.h"

#include <math.h>

static void pack_str(msgpack_packer *p, const char *text, size_t size)
{
    msgpack_pack_str(p, size);
    msgpack_pack_str_body(p, text, size);
}

static void pack_key(msgpack_packer *p, const char *key)
{
    pack_str(p, key, strlen(key));
}

static void pack_double(msgpack_packer *p, const char *key, double value)
{
    pack_key(p, key);
    msgpack_pack_double(p, value);
}

static void pack_uint(msgpack_packer *p, const char *key, uint64_t value)
{
    pack_key(p, key);
    msgpack_pack_uint64(p, value);
}

static void pack_int(msgpack_packer *p, const char *key, int64_t value)
{
    pack_key(p, key);
    msgpack_pack_int64(p, value);
}

static void pack_bin(msgpack_packer *p, const void *bytes, size_t size)
{
    msgpack_pack_bin(p, size);
    msgpack_pack_bin_body(p, bytes, size);
}

static void pack_id(msgpack_packer *p, const struct mneme_id *id)
{
    pack_key(p, "id");
    if (id->uuid[0])
        pack_str(p, id->uuid, strlen(id->uuid));
    else
        msgpack_pack_uint64(p, id->number);
}

static uint32_t fields_of(const struct mneme_found *m)
{
    return 2u + (m->space != NULL) + (m->content != NULL) + (m->tags.at != NULL) + (m->at != INT64_MIN) +
           !isnan(m->confidence) + (m->expires != INT64_MIN) + (m->embedding != NULL) + (m->meta.at != NULL) +
           (m->damaged.at != NULL);
}

static void pack_value(msgpack_packer *p, const char *key, struct mneme_value value)
{
    if (!value.at)
        return;
    pack_key(p, key);
    msgpack_pack_object(p, *(const msgpack_object *)value.at);
}

static void pack_content(msgpack_packer *p, const struct mneme_found *m)
{
    if (!m->content)
        return;
    pack_key(p, "content");
    if (m->content_is_binary)
        pack_bin(p, m->content, m->content_size);
    else
        pack_str(p, m->content, m->content_size);
}

static void pack_fields(msgpack_packer *p, const struct mneme_found *m)
{
    pack_id(p, &m->id);
    pack_uint(p, "version", m->version);
    if (m->space) {
        pack_key(p, "space");
        pack_str(p, m->space, m->space_size);
    }
    pack_content(p, m);
    pack_value(p, "tags", m->tags);
    if (m->at != INT64_MIN)
        pack_int(p, "at", m->at);
    if (!isnan(m->confidence)) {
        pack_key(p, "confidence");
        msgpack_pack_float(p, (float)m->confidence);
    }
    if (m->expires != INT64_MIN)
        pack_int(p, "expires", m->expires);
    if (m->embedding) {
        pack_key(p, "embedding");
        pack_bin(p, m->embedding, m->embedding_size);
    }
    pack_value(p, "meta", m->meta);
    pack_value(p, "damaged", m->damaged);
}

static void pack_memory(msgpack_packer *p, const struct mneme_found *m)
{
    if (!m) {
        msgpack_pack_nil(p);
        return;
    }
    msgpack_pack_map(p, fields_of(m));
    pack_fields(p, m);
}

static void pack_neighbours(msgpack_packer *p, const char *key, const struct mneme_found *list, size_t count)
{
    if (!list)
        return;
    pack_key(p, key);
    msgpack_pack_array(p, count);
    for (size_t i = 0; i < count; i++)
        pack_memory(p, &list[i]);
}

static void pack_hit(msgpack_packer *p, const struct mneme_hit *hit)
{
    msgpack_pack_map(p, fields_of(&hit->memory) + 2 + hit->has_parts + (hit->before ? 2 : 0));
    pack_double(p, "score", hit->memory.score);
    pack_double(p, "similarity", hit->memory.similarity);
    if (hit->has_parts) {
        pack_key(p, "parts");
        msgpack_pack_map(p, 3);
        pack_double(p, "similarity", hit->similarity_part);
        pack_double(p, "confidence", hit->confidence_part);
        pack_double(p, "decay", hit->decay_part);
    }
    pack_fields(p, &hit->memory);
    pack_neighbours(p, "before", hit->before, hit->before_count);
    pack_neighbours(p, "after", hit->after, hit->after_count);
}

static void pack_hits(msgpack_packer *p, const struct mneme_hits *hits)
{
    msgpack_pack_array(p, hits->count);
    for (size_t i = 0; i < hits->count; i++)
        pack_hit(p, &hits->hit[i]);
}

/* ---- replies ---- */

/* A packer's write function that remembers a failure, so that only the end has to ask. */
static int write_bytes(void *data, const char *bytes, size_t size)
{
    struct mneme_attached *a = data;
    if (msgpack_sbuffer_write(&a->packed, bytes, size) != 0)
        a->packed_failed = true;
    return 0;
}

static void begin(struct mneme_attached *a, msgpack_packer *p, unsigned members)
{
    msgpack_sbuffer_clear(&a->packed);
    a->packed_failed = false;
    msgpack_packer_init(p, a, write_bytes);
    msgpack_pack_map(p, members + 1);
    pack_key(p, "ok");
    msgpack_pack_true(p);
}

static enum mneme_code end(struct mneme_attached *a, const void **bytes, size_t *size)
{
    *bytes = a->packed_failed ? NULL : a->packed.data;
    *size = a->packed_failed ? 0 : a->packed.size;
    return a->packed_failed ? MNEME_NO_MEMORY : MNEME_OK;
}

enum mneme_code mneme_attached_pack_answer(struct mneme_attached *a, const struct mneme_answer *answer,
                                           const void **bytes, size_t *size)
{
    msgpack_packer p;
    begin(a, &p, 5);
    pack_key(&p, answer->count > 1 ? "results" : "hits");
    if (answer->count > 1)
        msgpack_pack_array(&p, answer->count);
    for (size_t i = 0; i < answer->count; i++)
        pack_hits(&p, &answer->results[i]);
    pack_uint(&p, "seq", answer->seq);
    pack_key(&p, "exact");
    answer->exact ? msgpack_pack_true(&p) : msgpack_pack_false(&p);
    pack_uint(&p, "scanned", answer->scanned);
    pack_uint(&p, "us", answer->us);
    return end(a, bytes, size);
}

enum mneme_code mneme_attached_pack_memories(struct mneme_attached *a, const struct mneme_memories *memories,
                                             const void **bytes, size_t *size)
{
    msgpack_packer p;
    begin(a, &p, 2);
    pack_uint(&p, "seq", memories->seq);
    pack_key(&p, "memories");
    msgpack_pack_array(&p, memories->count);
    for (size_t i = 0; i < memories->count; i++)
        pack_memory(&p, memories->memory[i]);
    return end(a, bytes, size);
}
