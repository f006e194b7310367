/*
 * wire_decode_read.c - recall, get, list, count: from the frame to what the engine searches and reads.
 */
#include "actors/wire_decode.h"

#include "actors/wire_cursor.h"
#include "engine/kernels.h"

#define K_DEFAULT      10
#define LIMIT_DEFAULT  100
#define TARGET_DEFAULT 0.95

/* ---- which memories, and what of them */

static enum mn_status read_fields(const struct mn_wire *v, struct mn_want *want)
{
    const uint8_t *at = v->inside;
    want->fields = MN_FIELDS_DEFAULT;
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    MN_TRY(mn_wire_array(v, "fields", MN_WIRE_TERMS_MAX));
    want->fields = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        struct mn_wire one;
        unsigned field = 0;
        mn_wire_next(&at, &one);
        while (one.type == MN_WIRE_STR && field < MN_FIELDS && !mn_wire_is(one.s, mn_field_word(field)))
            field++;
        if (one.type != MN_WIRE_STR || field == MN_FIELDS)
            return mn_wire_wrong(&one, "an entry of fields",
                                 "one of content, meta, tags, at, confidence, embedding, expires, space");
        want->fields |= MN_FIELD_BIT(field);
    }
    return MN_OK;
}

/* One space, several, or all (nil). Only one leaves `space` out of the reply. */
static enum mn_status read_spaces(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_scope *scope,
                                  struct mn_want *want)
{
    struct mn_str *one;
    const uint8_t *at = v->inside;
    want->space = v->type == MN_WIRE_NIL || v->type == MN_WIRE_ARRAY;
    scope->all_spaces = v->type == MN_WIRE_NIL;
    if (scope->all_spaces)
        return MN_OK;
    scope->space_count = v->type == MN_WIRE_ARRAY ? v->count : 1;
    if (v->type == MN_WIRE_ARRAY)
        MN_TRY(mn_wire_array(v, "space", MN_WIRE_TERMS_MAX));
    if (scope->space_count == 0)
        return MN_FAIL(MN_BAD_REQUEST, "space is an empty array; name a space, or say nil for all");
    MN_ARENA_ARRAY(&decoder->arena, one, scope->space_count);
    scope->spaces = one;
    if (v->type != MN_WIRE_ARRAY)
        return mn_decode_space(v, one);
    for (uint32_t i = 0; i < v->count; i++) {
        struct mn_wire name;
        mn_wire_next(&at, &name);
        MN_TRY(mn_decode_space(&name, &one[i]));
    }
    return MN_OK;
}

static enum mn_status read_min_confidence(const struct mn_wire *v, float *out)
{
    double value = 0;
    MN_TRY(mn_wire_number(v, "min_confidence", &value));
    if (value < 0 || value > 1)
        return MN_FAIL(MN_BAD_VALUE, "min_confidence is %g; it must be from 0 to 1", value);
    *out = (float)value;
    return MN_OK;
}

enum scope_field { S_SPACE, S_FILTER, S_AFTER, S_BEFORE, S_MIN_CONFIDENCE, S_COUNT };
#define SCOPE_NAMES "space", "filter", "after", "before", "min_confidence"

static enum mn_status read_scope(struct mn_decoder *decoder, const struct mn_wire *fields, struct mn_scope *scope,
                                 struct mn_want *want)
{
    *scope = mn_decode_scope();
    MN_TRY(read_spaces(decoder, &fields[S_SPACE], scope, want));
    MN_TRY(mn_decode_filter(decoder, &fields[S_FILTER], &scope->filter));
    MN_TRY(mn_wire_time(&fields[S_AFTER], "after", &scope->after));
    MN_TRY(mn_wire_time(&fields[S_BEFORE], "before", &scope->before));
    scope->has_before = fields[S_BEFORE].type != MN_WIRE_ABSENT;
    return read_min_confidence(&fields[S_MIN_CONFIDENCE], &scope->min_confidence);
}

static enum mn_status read_as_of(const struct mn_wire *v, struct mn_moment *moment)
{
    moment->has_as_of = v->type != MN_WIRE_ABSENT;
    return mn_wire_uint(v, "as_of", 0, UINT64_MAX, &moment->as_of);
}

/* ---- recall */

enum {
    R_EMBEDDING = S_COUNT,
    R_EMBEDDINGS,
    R_LIKE,
    R_K,
    R_MIN_SCORE,
    R_TARGET,
    R_EXACT,
    R_RANK,
    R_CONTEXT,
    R_AS_OF,
    R_MIN_SEQ,
    R_FIELDS,
    R_COUNT
};
static const char *const recall_names[] = {SCOPE_NAMES, "embedding", "embeddings", "like", "k",
                                           "min_score", "target",    "exact",      "rank", "context",
                                           "as_of",     "min_seq",   "fields"};

static enum mn_status share(const struct mn_wire *v, const char *name, double *out)
{
    MN_TRY(mn_wire_number(v, name, out));
    if (*out < 0 || *out > 1)
        return MN_FAIL(MN_BAD_REQUEST, "%s is %g; it must be from 0 to 1", name, *out);
    return MN_OK;
}

static enum mn_status read_rank(const struct mn_decoder *decoder, const struct mn_wire *v, int64_t now,
                                struct mn_rank *rank)
{
    enum { HALF_LIFE, NOW, WEIGHT, FLOOR, COUNT };
    static const char *const names[] = {"half_life_s", "now", "confidence_weight", "floor"};
    struct mn_wire fields[COUNT];
    *rank = (struct mn_rank){.now = now};
    if (v->type == MN_WIRE_ABSENT)
        return MN_OK;
    MN_TRY(mn_wire_map(v, "rank"));
    MN_TRY(mn_wire_fields(v, "rank", names, COUNT, true, fields));
    if (decoder->metric != MN_METRIC_COSINE)
        return MN_FAIL(MN_BAD_REQUEST, "rank needs a store with the metric cosine; this one has %s",
                       mn_metric_word(decoder->metric));
    MN_TRY(mn_wire_number(&fields[HALF_LIFE], "rank.half_life_s", &rank->half_life_s));
    if (fields[HALF_LIFE].type != MN_WIRE_ABSENT && !(rank->half_life_s > 0))
        return MN_FAIL(MN_BAD_REQUEST, "rank.half_life_s is %g; it must be above 0", rank->half_life_s);
    MN_TRY(mn_wire_time(&fields[NOW], "rank.now", &rank->now));
    MN_TRY(share(&fields[WEIGHT], "rank.confidence_weight", &rank->confidence_weight));
    MN_TRY(share(&fields[FLOOR], "rank.floor", &rank->floor));
    rank->on = true;
    return MN_OK;
}

static enum mn_status read_target(const struct mn_wire *v, double *target)
{
    *target = TARGET_DEFAULT;
    MN_TRY(mn_wire_number(v, "target", target));
    if (!(*target > 0 && *target <= 1))
        return MN_FAIL(MN_BAD_REQUEST, "target is %g; it must be above 0 and at most 1", *target);
    return MN_OK;
}

/* A place for one query, aligned as the kernels like it. */
static enum mn_status make_queries(struct mn_decoder *decoder, uint32_t count, struct mn_recall_request *out,
                                   float **floats)
{
    out->count = count;
    out->stride = (decoder->dim + 15) / 16 * 16;
    *floats = mn_arena_take(&decoder->arena, (size_t)count * out->stride * sizeof **floats, 64);
    if (!*floats)
        return MN_FAIL(MN_INTERNAL, "no memory for the request");
    out->embeddings = *floats;
    return MN_OK;
}

static enum mn_status set_query(const struct mn_decoder *decoder, const void *embedding, const char *name, float *out)
{
    double norm2;
    memcpy(out, embedding, decoder->dim * sizeof *out);
    if (!decoder->kernels->check(out, decoder->dim, &norm2))
        return MN_FAIL(MN_BAD_VALUE, "%s holds NaN or infinity; all its numbers must be finite", name);
    if (decoder->metric == MN_METRIC_COSINE && !(norm2 > 0))
        return MN_FAIL(MN_BAD_VALUE, "%s is the zero vector, which has no direction to compare under cosine", name);
    if (decoder->metric != MN_METRIC_COSINE && norm2 > MN_KERNEL_NORM2_MAX)
        return MN_FAIL(MN_BAD_VALUE, "%s has a squared norm of %g; %g is the most, so that no score is beyond a float",
                       name, norm2, MN_KERNEL_NORM2_MAX);
    return MN_OK;
}

static enum mn_status read_one(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_recall_request *out)
{
    const void *embedding = NULL;
    float *floats;
    MN_TRY(mn_decode_embedding(decoder, v, "embedding", &embedding));
    MN_TRY(make_queries(decoder, 1, out, &floats));
    return set_query(decoder, embedding, "embedding", floats);
}

static enum mn_status check_batch(uint32_t count)
{
    if (count == 0)
        return MN_FAIL(MN_BAD_REQUEST, "embeddings is empty; it must hold 1 to %d embeddings", MN_WIRE_QUERIES_MAX);
    if (count > MN_WIRE_QUERIES_MAX)
        return MN_FAIL(MN_TOO_LARGE, "embeddings holds %u; %d is the most", count, MN_WIRE_QUERIES_MAX);
    return MN_OK;
}

static enum mn_status read_batch_bin(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_recall_request *out)
{
    size_t each = decoder->dim * sizeof(float);
    float *floats;
    if (v->s.length % each != 0)
        return MN_FAIL(MN_BAD_DIM, "embeddings has %u bytes; with %u dimensions it must be a multiple of %zu",
                       v->s.length, decoder->dim, each);
    MN_TRY(check_batch((uint32_t)(v->s.length / each)));
    MN_TRY(make_queries(decoder, (uint32_t)(v->s.length / each), out, &floats));
    for (uint32_t i = 0; i < out->count; i++) {
        enum mn_status status =
            set_query(decoder, v->s.data + i * each, "an embedding", floats + (size_t)i * out->stride);
        if (status != MN_OK)
            return mn_wire_within(status, "embeddings[%u]", i);
    }
    return MN_OK;
}

static enum mn_status read_batch(struct mn_decoder *decoder, const struct mn_wire *v, struct mn_recall_request *out)
{
    const uint8_t *at = v->inside;
    float *floats;
    if (v->type == MN_WIRE_BIN)
        return read_batch_bin(decoder, v, out);
    if (v->type != MN_WIRE_ARRAY)
        return mn_wire_wrong(v, "embeddings", "a bin of 32-bit floats, or an array of embeddings");
    MN_TRY(check_batch(v->count));
    MN_TRY(make_queries(decoder, v->count, out, &floats));
    for (uint32_t i = 0; i < v->count; i++) {
        struct mn_wire one;
        const uint8_t *from = at;
        const void *embedding = NULL;
        mn_wire_next(&from, &one);
        enum mn_status status = mn_decode_embedding(decoder, &one, "an embedding", &embedding);
        if (status == MN_OK)
            status = set_query(decoder, embedding, "an embedding", floats + (size_t)i * out->stride);
        if (status != MN_OK)
            return mn_wire_within(status, "embeddings[%u]", i);
        at = mn_wire_skip(at);
    }
    return MN_OK;
}

/* The id lies in the first space of those that are asked. */
static enum mn_status read_like(const struct mn_wire *v, struct mn_recall_request *out)
{
    struct mn_query *query = &out->query;
    MN_TRY(mn_wire_id(v, "like", &out->like));
    if (query->scope.all_spaces)
        return MN_FAIL(MN_BAD_REQUEST, "like needs a space to find the id in; name it first in an array of spaces");
    out->has_like = true;
    out->like_space = query->scope.spaces[0];
    query->has_exclude = true;
    query->exclude = out->like;
    query->exclude_space = out->like_space;
    return MN_OK;
}

static enum mn_status read_queries(struct mn_decoder *decoder, const struct mn_wire *fields,
                                   struct mn_recall_request *out)
{
    bool one = fields[R_EMBEDDING].type != MN_WIRE_ABSENT, like = fields[R_LIKE].type != MN_WIRE_ABSENT;
    out->batch = fields[R_EMBEDDINGS].type != MN_WIRE_ABSENT;
    if (one + out->batch + like != 1)
        return MN_FAIL(MN_BAD_REQUEST, "the request has %d of embedding, embeddings and like; it must have one of them",
                       one + out->batch + like);
    if (like)
        return read_like(&fields[R_LIKE], out);
    return one ? read_one(decoder, &fields[R_EMBEDDING], out) : read_batch(decoder, &fields[R_EMBEDDINGS], out);
}

enum mn_status mn_decode_recall(struct mn_decoder *decoder, const struct mn_request *request, int64_t now,
                                struct mn_recall_request *out)
{
    struct mn_wire fields[R_COUNT];
    struct mn_query *query = &out->query;
    uint64_t k = K_DEFAULT, context = 0;
    mn_decode_begin(decoder);
    *out = (struct mn_recall_request){0};
    MN_TRY(mn_wire_fields(&request->body, "the request", recall_names, R_COUNT, false, fields));
    MN_TRY(read_scope(decoder, fields, &query->scope, &out->want));
    MN_TRY(read_queries(decoder, fields, out));
    MN_TRY(mn_wire_uint(&fields[R_K], "k", 1, MN_K_MAX, &k));
    MN_TRY(mn_wire_number(&fields[R_MIN_SCORE], "min_score", &query->min_score));
    MN_TRY(read_target(&fields[R_TARGET], &query->target));
    MN_TRY(mn_wire_bool(&fields[R_EXACT], "exact", &query->exact));
    MN_TRY(read_rank(decoder, &fields[R_RANK], now, &query->rank));
    MN_TRY(mn_wire_uint(&fields[R_CONTEXT], "context", 0, MN_CONTEXT_MAX, &context));
    MN_TRY(read_as_of(&fields[R_AS_OF], &out->moment));
    MN_TRY(mn_wire_uint(&fields[R_MIN_SEQ], "min_seq", 0, UINT64_MAX, &out->moment.min_seq));
    query->has_min_score = fields[R_MIN_SCORE].type != MN_WIRE_ABSENT;
    query->k = (uint32_t)k;
    out->context = (uint32_t)context;
    return read_fields(&fields[R_FIELDS], &out->want);
}

/* ---- get, list, count */

enum mn_status mn_decode_get(struct mn_decoder *decoder, const struct mn_request *request, struct mn_get_request *out)
{
    enum { SPACE, IDS, FIELDS, AS_OF, COUNT };
    static const char *const names[] = {"space", "ids", "fields", "as_of"};
    struct mn_wire fields[COUNT];
    mn_decode_begin(decoder);
    *out = (struct mn_get_request){0};
    MN_TRY(mn_wire_fields(&request->body, "the request", names, COUNT, false, fields));
    MN_TRY(mn_decode_space(&fields[SPACE], &out->space));
    MN_TRY(mn_wire_need(&fields[IDS], "ids"));
    MN_TRY(mn_decode_ids(decoder, &fields[IDS], "ids", &out->ids, &out->count));
    if (out->count == 0)
        return MN_FAIL(MN_BAD_REQUEST, "ids is empty; it must name at least one memory");
    MN_TRY(read_as_of(&fields[AS_OF], &out->moment));
    return read_fields(&fields[FIELDS], &out->want);
}

static enum mn_status read_order(const struct mn_wire *v, bool *newest_first)
{
    *newest_first = true;
    if (v->type == MN_WIRE_ABSENT || (v->type == MN_WIRE_STR && mn_wire_is(v->s, "newest")))
        return MN_OK;
    *newest_first = false;
    if (v->type == MN_WIRE_STR && mn_wire_is(v->s, "oldest"))
        return MN_OK;
    return mn_wire_wrong(v, "order", "\"newest\" or \"oldest\"");
}

enum mn_status mn_decode_list(struct mn_decoder *decoder, const struct mn_request *request, struct mn_list_request *out)
{
    enum { ORDER = S_COUNT, LIMIT, CURSOR, FIELDS, COUNT };
    static const char *const names[] = {SCOPE_NAMES, "order", "limit", "cursor", "fields"};
    struct mn_wire fields[COUNT];
    struct mn_str cursor;
    uint64_t limit = LIMIT_DEFAULT;
    mn_decode_begin(decoder);
    *out = (struct mn_list_request){0};
    MN_TRY(mn_wire_fields(&request->body, "the request", names, COUNT, false, fields));
    MN_TRY(read_scope(decoder, fields, &out->scope, &out->want));
    MN_TRY(read_order(&fields[ORDER], &out->newest_first));
    MN_TRY(mn_wire_uint(&fields[LIMIT], "limit", 1, MN_K_MAX, &limit));
    out->limit = (uint32_t)limit;
    MN_TRY(read_fields(&fields[FIELDS], &out->want));
    if (fields[CURSOR].type == MN_WIRE_ABSENT)
        return MN_OK;
    MN_TRY(mn_wire_str(&fields[CURSOR], "cursor", 1, UINT32_MAX, &cursor));
    return mn_wire_cursor_read(cursor, out->newest_first, &out->cursor);
}

enum mn_status mn_decode_count(struct mn_decoder *decoder, const struct mn_request *request, struct mn_scope *out)
{
    static const char *const names[] = {SCOPE_NAMES};
    struct mn_wire fields[S_COUNT];
    struct mn_want want;
    mn_decode_begin(decoder);
    MN_TRY(mn_wire_fields(&request->body, "the request", names, S_COUNT, false, fields));
    return read_scope(decoder, fields, out, &want);
}
