/*
 * wire_decode.c - what the requests of several operations have in common: spaces, ids, embeddings, filters.
 */
#include "actors/wire_decode.h"

#include <endian.h>

#include "actors/wire_meta.h"
#include "engine/kernels.h"

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "embeddings are little-endian on the wire and are used in place");

const struct mn_str mn_decode_default_space = {"default", 7};

void mn_decoder_init(struct mn_decoder *decoder, uint32_t dim, enum mn_metric metric)
{
    *decoder = (struct mn_decoder){.dim = dim, .metric = metric, .kernels = mn_kernels_best()};
}

void mn_decoder_free(struct mn_decoder *decoder)
{
    mn_arena_free(&decoder->arena);
}

void mn_decode_begin(struct mn_decoder *decoder)
{
    mn_arena_reset(&decoder->arena);
    decoder->entries = decoder->bytes = 0;
}

enum mn_status mn_decode_entries(struct mn_decoder *decoder, uint32_t count)
{
    decoder->entries += count;
    if (decoder->entries > MN_WIRE_ENTRIES_MAX)
        return MN_FAIL(MN_TOO_LARGE, "the lists of the request have more than %d entries in all", MN_WIRE_ENTRIES_MAX);
    return MN_OK;
}

enum mn_status mn_decode_space(const struct mn_wire *v, struct mn_str *space)
{
    *space = mn_decode_default_space;
    return mn_wire_str(v, "space", 1, MN_SPACE_BYTES_MAX, space);
}

enum mn_status mn_decode_ids(struct mn_decoder *decoder, const struct mn_wire *v, const char *name,
                             const struct mn_id **ids, uint32_t *count)
{
    struct mn_id *list;
    struct mn_wire id;
    const uint8_t *at = v->inside;
    *count = 0;
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    MN_TRY(mn_wire_array(v, name, MN_WIRE_IDS_MAX));
    MN_TRY(mn_decode_entries(decoder, v->count));
    MN_ARENA_ARRAY(&decoder->arena, list, v->count);
    for (uint32_t i = 0; i < v->count; i++) {
        mn_wire_next(&at, &id);
        enum mn_status status = mn_wire_id(&id, name, &list[i]);
        if (status != MN_OK)
            return mn_wire_within(status, "entry %u", i);
    }
    *ids = list;
    *count = v->count;
    return MN_OK;
}

enum mn_status mn_decode_strings(struct mn_decoder *decoder, const struct mn_wire *v, const char *name, uint32_t max,
                                 uint32_t string_max, const struct mn_str **strings, uint32_t *count)
{
    struct mn_str *list;
    struct mn_wire s;
    const uint8_t *at = v->inside;
    *count = 0;
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    MN_TRY(mn_wire_array(v, name, max));
    MN_TRY(mn_decode_entries(decoder, v->count));
    MN_ARENA_ARRAY(&decoder->arena, list, v->count);
    for (uint32_t i = 0; i < v->count; i++) {
        mn_wire_next(&at, &s);
        if (s.type == MN_WIRE_STR && s.s.length > string_max)
            return MN_FAIL(MN_TOO_LARGE, "an entry of %s has %u bytes; %u is the most", name, s.s.length, string_max);
        enum mn_status status = mn_wire_str(&s, name, 0, UINT32_MAX, &list[i]);
        if (status != MN_OK)
            return mn_wire_within(status, "entry %u", i);
    }
    *strings = list;
    *count = v->count;
    return MN_OK;
}

/* ---- embeddings */

static enum mn_status number(const struct mn_wire *v, const char *name, float *out)
{
    switch (v->type) {
    case MN_WIRE_FLOAT:
        *out = (float)v->f64;
        return MN_OK;
    case MN_WIRE_UINT:
        *out = (float)v->u64;
        return MN_OK;
    case MN_WIRE_INT:
        *out = (float)v->i64;
        return MN_OK;
    default:
        return mn_wire_wrong(v, name, "an array of numbers, or a bin of 32-bit floats");
    }
}

enum mn_status mn_decode_embedding(struct mn_decoder *decoder, const struct mn_wire *v, const char *name,
                                   const void **embedding)
{
    uint32_t dim = decoder->dim;
    if (v->type == MN_WIRE_BIN) {
        if (v->s.length != dim * sizeof(float))
            return MN_FAIL(MN_BAD_DIM, "%s has %u bytes; this store has %u dimensions, %zu bytes", name, v->s.length,
                           dim, dim * sizeof(float));
        *embedding = v->s.data;
        return MN_OK;
    }
    if (v->type != MN_WIRE_ARRAY)
        return mn_wire_wrong(v, name, "a bin of little-endian 32-bit floats, or an array of numbers");
    /* A wrong type is told before a wrong length. */
    float *floats, beyond;
    MN_ARENA_ARRAY(&decoder->arena, floats, dim);
    const uint8_t *at = v->inside;
    for (uint32_t i = 0; i < v->count; i++) {
        struct mn_wire n;
        mn_wire_next(&at, &n);
        enum mn_status status = number(&n, name, i < dim ? &floats[i] : &beyond);
        if (status != MN_OK)
            return mn_wire_within(status, "entry %u", i);
    }
    if (v->count != dim)
        return MN_FAIL(MN_BAD_DIM, "%s has %u numbers; this store has %u dimensions", name, v->count, dim);
    *embedding = floats;
    return MN_OK;
}

/* ---- filters */

#define WHERE_TABLE(X)                                                                                                 \
    X(MN_WHERE_EQ, "eq")                                                                                               \
    X(MN_WHERE_NE, "ne")                                                                                               \
    X(MN_WHERE_IN, "in")                                                                                               \
    X(MN_WHERE_GT, "gt")                                                                                               \
    X(MN_WHERE_GTE, "gte")                                                                                             \
    X(MN_WHERE_LT, "lt")                                                                                               \
    X(MN_WHERE_LTE, "lte")                                                                                             \
    X(MN_WHERE_EXISTS, "exists")

/* The key last: the operators before it have the index of their enum. */
static const char *const where_names[] = {
#define X(op, word) [op] = word,
    WHERE_TABLE(X)
#undef X
        "key"};
#define WHERE_KEY   (MN_WHERE_EXISTS + 1)
#define WHERE_NAMES (WHERE_KEY + 1)

static enum mn_status compact(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_str *out)
{
    size_t bytes = (size_t)(mn_wire_skip(v->at) - v->at);
    if (bytes > MN_META_BYTES_MAX)
        return MN_FAIL(MN_TOO_LARGE, "a value in filter.meta has %zu bytes; %u is the most", bytes, MN_META_BYTES_MAX);
    return mn_wire_meta_read(&decoder->arena, v, "a value in filter.meta", out);
}

static enum mn_status where_values(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_where *where)
{
    struct mn_str *values;
    const uint8_t *at = v->at;
    where->value_count = 1;
    if (where->op == MN_WHERE_IN) {
        MN_TRY(mn_wire_array(v, "in", MN_WIRE_TERMS_MAX));
        where->value_count = v->count;
        at = v->inside;
    }
    MN_TRY(mn_decode_entries(decoder, where->value_count));
    MN_ARENA_ARRAY(&decoder->arena, values, where->value_count);
    for (uint32_t i = 0; i < where->value_count; i++) {
        struct mn_wire one;
        const uint8_t *from = at;
        mn_wire_next(&from, &one);
        MN_TRY(compact(decoder, &one, &values[i]));
        at = mn_wire_skip(at);
    }
    where->values = values;
    return MN_OK;
}

static enum mn_status one_where(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_where *where)
{
    struct mn_wire fields[WHERE_NAMES];
    unsigned found = 0;
    *where = (struct mn_where){0};
    MN_TRY(mn_wire_map(v, "a condition"));
    MN_TRY(mn_wire_fields(v, "a condition", where_names, WHERE_NAMES, true, fields));
    MN_TRY(mn_wire_need(&fields[WHERE_KEY], "key"));
    MN_TRY(mn_wire_str(&fields[WHERE_KEY], "key", 0, MN_WIRE_KEY_MAX, &where->key));
    for (unsigned op = 0; op < WHERE_KEY; op++) {
        if (fields[op].type == MN_WIRE_ABSENT)
            continue;
        where->op = (enum mn_where_op)op;
        found++;
    }
    if (found != 1)
        return MN_FAIL(MN_BAD_REQUEST,
                       "a condition has %u tests; it must have a key and one of eq, ne, in, gt, gte, lt, lte, exists",
                       found);
    if (where->op == MN_WHERE_EXISTS)
        return mn_wire_bool(&fields[MN_WHERE_EXISTS], "exists", &where->exists);
    return where_values(decoder, &fields[where->op], where);
}

static enum mn_status all_where(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_filter *filter)
{
    struct mn_where *where;
    const uint8_t *at = v->inside;
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    MN_TRY(mn_wire_array(v, "filter.meta", MN_WIRE_TERMS_MAX));
    MN_TRY(mn_decode_entries(decoder, v->count));
    MN_ARENA_ARRAY(&decoder->arena, where, v->count);
    for (uint32_t i = 0; i < v->count; i++) {
        struct mn_wire one;
        const uint8_t *from = at;
        mn_wire_next(&from, &one);
        enum mn_status status = one_where(decoder, &one, &where[i]);
        if (status != MN_OK)
            return mn_wire_within(status, "filter.meta[%u]", i);
        at = mn_wire_skip(at);
    }
    filter->where = where;
    filter->where_count = v->count;
    return MN_OK;
}

static enum mn_status tags(struct mn_decoder *decoder, const struct mn_wire *v, const char *name,
                           const struct mn_str **strings, uint32_t *count)
{
    return mn_decode_strings(decoder, v, name, MN_WIRE_TERMS_MAX, UINT32_MAX, strings, count);
}

enum mn_status mn_decode_filter(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_filter *filter)
{
    enum { ANY, ALL, NONE, IDS, META, COUNT };
    static const char *const names[] = {"tags_any", "tags_all", "tags_none", "ids", "meta"};
    struct mn_wire fields[COUNT];
    *filter = (struct mn_filter){0};
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    MN_TRY(mn_wire_map(v, "filter"));
    MN_TRY(mn_wire_fields(v, "filter", names, COUNT, true, fields));
    MN_TRY(tags(decoder, &fields[ANY], "filter.tags_any", &filter->tags_any, &filter->tags_any_count));
    MN_TRY(tags(decoder, &fields[ALL], "filter.tags_all", &filter->tags_all, &filter->tags_all_count));
    MN_TRY(tags(decoder, &fields[NONE], "filter.tags_none", &filter->tags_none, &filter->tags_none_count));
    MN_TRY(mn_decode_ids(decoder, &fields[IDS], "filter.ids", &filter->ids, &filter->id_count));
    filter->has_tags_any = fields[ANY].type != MN_WIRE_ABSENT;
    filter->has_ids = fields[IDS].type != MN_WIRE_ABSENT;
    return all_where(decoder, &fields[META], filter);
}

struct mn_scope mn_decode_scope(void)
{
    return (struct mn_scope){.after = INT64_MIN};
}
