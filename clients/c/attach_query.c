/*
 * attach_query.c - what a program asks, checked and put as the engine takes it: the same limits and codes as over the
 * socket, where the wire's decoder does this.
 *
 * Strings are used in place: they live as long as the call.
 */
#include "clients/c/attach.h"

#include "actors/wire.h"
#include "shm/process.h"

#define K_DEFAULT      10
#define TARGET_DEFAULT 0.95

static struct mn_str str_of(const char *text)
{
    size_t length = strlen(text);
    return (struct mn_str){text, length < UINT32_MAX ? (uint32_t)length : UINT32_MAX};
}

enum mn_status mn_attach_space(const char *name, struct mn_str *out)
{
    *out = str_of(name ? name : "default");
    if (out->length == 0 || out->length > MN_SPACE_BYTES_MAX)
        return MN_FAIL(MN_BAD_REQUEST, "the name of a space has %u bytes; it must have 1 to %u", out->length,
                       MN_SPACE_BYTES_MAX);
    return MN_OK;
}

enum mn_status mn_attach_id(const struct mneme_id *id, struct mn_id *out)
{
    uint8_t uuid[16];
    *out = (struct mn_id){.kind = MN_ID_INTEGER, .lo = id->number};
    if (id->uuid[0] == 0)
        return id->number >> 63 == 0 ? MN_OK
                                     : MN_FAIL(MN_BAD_REQUEST, "the id %llu is too large; it must be below 2^63",
                                               (unsigned long long)id->number);
    if (!mn_uuid_parse(id->uuid, strnlen(id->uuid, sizeof id->uuid), uuid))
        return MN_FAIL(MN_BAD_REQUEST, "the id \"%.36s\" is no UUID", id->uuid);
    *out = (struct mn_id){.kind = MN_ID_UUID};
    for (unsigned i = 0; i < 8; i++) {
        out->hi = out->hi << 8 | uuid[i];
        out->lo = out->lo << 8 | uuid[8 + i];
    }
    return MN_OK;
}

enum mn_status mn_attach_fields(const char *const *names, size_t count, struct mn_attach_want *want)
{
    want->fields = names ? 0 : MN_FIELDS_DEFAULT;
    for (size_t i = 0; names && i < count; i++) {
        unsigned field = 0;
        while (field < MN_FIELDS && strcmp(names[i], mn_field_word(field)) != 0)
            field++;
        if (field == MN_FIELDS)
            return MN_FAIL(MN_BAD_REQUEST,
                           "there is no field \"%.64s\"; there are content, meta, tags, at, confidence, embedding, "
                           "expires, space",
                           names[i]);
        want->fields |= MN_FIELD_BIT(field);
    }
    return MN_OK;
}

/* ---- which memories ---- */

static enum mn_status check_terms(size_t count, const char *name)
{
    if (count > MN_WIRE_TERMS_MAX)
        return MN_FAIL(MN_TOO_LARGE, "%s has %zu entries; %d are the most", name, count, MN_WIRE_TERMS_MAX);
    return MN_OK;
}

static enum mn_status set_spaces(struct mneme_attached *a, const struct mneme_where *where, struct mn_scope *scope,
                                 struct mn_attach_want *want)
{
    struct mn_str *spaces;
    scope->all_spaces = where->all;
    want->space = where->all || where->space_count > 1;
    if (where->all)
        return MN_OK;
    MN_TRY(check_terms(where->space_count, "spaces"));
    scope->space_count = where->space_count > 0 ? (uint32_t)where->space_count : 1;
    MN_POOL_ARRAY(a, spaces, scope->space_count);
    for (uint32_t i = 0; i < scope->space_count; i++)
        MN_TRY(mn_attach_space(where->space_count > 0 ? where->spaces[i] : NULL, &spaces[i]));
    scope->spaces = spaces;
    return MN_OK;
}

static enum mn_status set_tags(struct mneme_attached *a, const char *const *tags, size_t count, const char *name,
                               const struct mn_str **out, uint32_t *out_count)
{
    struct mn_str *list;
    if (!tags)
        return MN_OK;
    MN_TRY(check_terms(count, name));
    MN_POOL_ARRAY(a, list, count);
    for (size_t i = 0; i < count; i++)
        list[i] = str_of(tags[i]);
    *out = list;
    *out_count = (uint32_t)count;
    return MN_OK;
}

static enum mn_status set_ids(struct mneme_attached *a, const struct mneme_filter *filter, struct mn_filter *out)
{
    struct mn_id *ids;
    if (!filter->ids)
        return MN_OK;
    if (filter->id_count > MN_WIRE_IDS_MAX)
        return MN_FAIL(MN_TOO_LARGE, "filter.ids has %zu entries; %d are the most", filter->id_count, MN_WIRE_IDS_MAX);
    MN_POOL_ARRAY(a, ids, filter->id_count);
    for (size_t i = 0; i < filter->id_count; i++)
        MN_TRY(mn_attach_id(&filter->ids[i], &ids[i]));
    out->ids = ids;
    out->id_count = (uint32_t)filter->id_count;
    out->has_ids = true;
    return MN_OK;
}

static enum mn_status set_values(struct mneme_attached *a, const msgpack_object *value, struct mn_where *where)
{
    bool in = where->op == MN_WHERE_IN;
    struct mn_str *values;
    if (in && value->type != MSGPACK_OBJECT_ARRAY)
        return MN_FAIL(MN_BAD_REQUEST, "the value of an `in` must be an array");
    where->value_count = in ? value->via.array.size : 1;
    MN_TRY(check_terms(where->value_count, "in"));
    MN_POOL_ARRAY(a, values, where->value_count);
    for (uint32_t i = 0; i < where->value_count; i++)
        MN_TRY(mn_attach_compact(a, in ? &value->via.array.ptr[i] : value, &values[i]));
    where->values = values;
    return MN_OK;
}

static enum mn_status set_condition(struct mneme_attached *a, const struct mneme_condition *c, struct mn_where *where)
{
    static const enum mn_where_op ops[] = {
        [MNEME_EQ] = MN_WHERE_EQ,   [MNEME_NE] = MN_WHERE_NE,           [MNEME_IN] = MN_WHERE_IN,
        [MNEME_GT] = MN_WHERE_GT,   [MNEME_GTE] = MN_WHERE_GTE,         [MNEME_LT] = MN_WHERE_LT,
        [MNEME_LTE] = MN_WHERE_LTE, [MNEME_EXISTS_IS] = MN_WHERE_EXISTS};
    msgpack_object value;
    if (!c->key || (unsigned)c->comparison >= MN_ARRAY_LEN(ops))
        return MN_FAIL(MN_BAD_REQUEST, "a condition needs a key and a comparison");
    *where = (struct mn_where){.key = str_of(c->key), .op = ops[c->comparison]};
    if (where->key.length > MN_WIRE_KEY_MAX)
        return MN_FAIL(MN_BAD_REQUEST, "the key of a condition has %u bytes; %d are the most", where->key.length,
                       MN_WIRE_KEY_MAX);
    MN_TRY(mn_attach_decode(a, c->value, c->value_size, &value));
    if (where->op != MN_WHERE_EXISTS)
        return set_values(a, &value, where);
    if (value.type != MSGPACK_OBJECT_BOOLEAN)
        return MN_FAIL(MN_BAD_REQUEST, "the value of an `exists` must be a boolean");
    where->exists = value.via.boolean;
    return MN_OK;
}

static enum mn_status set_filter(struct mneme_attached *a, const struct mneme_filter *filter, struct mn_filter *out)
{
    struct mn_where *where;
    if (!filter)
        return MN_OK;
    MN_TRY(set_tags(a, filter->tags_any, filter->tags_any_count, "tags_any", &out->tags_any, &out->tags_any_count));
    MN_TRY(set_tags(a, filter->tags_all, filter->tags_all_count, "tags_all", &out->tags_all, &out->tags_all_count));
    MN_TRY(
        set_tags(a, filter->tags_none, filter->tags_none_count, "tags_none", &out->tags_none, &out->tags_none_count));
    out->has_tags_any = filter->tags_any != NULL;
    MN_TRY(set_ids(a, filter, out));
    MN_TRY(check_terms(filter->meta_count, "filter.meta"));
    MN_POOL_ARRAY(a, where, filter->meta_count);
    for (size_t i = 0; i < filter->meta_count; i++)
        MN_TRY(set_condition(a, &filter->meta[i], &where[i]));
    out->where = where;
    out->where_count = (uint32_t)filter->meta_count;
    return MN_OK;
}

static enum mn_status set_scope(struct mneme_attached *a, const struct mneme_where *where, struct mn_scope *scope,
                                struct mn_attach_want *want)
{
    *scope = (struct mn_scope){.after = where->after ? *where->after : INT64_MIN};
    MN_TRY(set_spaces(a, where, scope, want));
    MN_TRY(set_filter(a, where->filter, &scope->filter));
    scope->has_before = where->before != NULL;
    scope->before = where->before ? *where->before : 0;
    if (!where->min_confidence)
        return MN_OK;
    if (!(*where->min_confidence >= 0 && *where->min_confidence <= 1))
        return MN_FAIL(MN_BAD_VALUE, "min_confidence is %g; it must be from 0 to 1", *where->min_confidence);
    scope->min_confidence = (float)*where->min_confidence;
    return MN_OK;
}

/* ---- how they are ranked ---- */

static enum mn_status share(const double *value, const char *name, double *out)
{
    if (!value)
        return MN_OK;
    if (!(*value >= 0 && *value <= 1))
        return MN_FAIL(MN_BAD_REQUEST, "%s is %g; it must be from 0 to 1", name, *value);
    *out = *value;
    return MN_OK;
}

static enum mn_status set_rank(const struct mneme_attached *a, const struct mneme_rank *rank, struct mn_rank *out)
{
    if (!rank)
        return MN_OK;
    if (a->store.metric != MN_METRIC_COSINE)
        return MN_FAIL(MN_BAD_REQUEST, "rank needs a store with the metric cosine; this one has %s",
                       mn_metric_word(a->store.metric));
    if (rank->half_life_s && !(*rank->half_life_s > 0))
        return MN_FAIL(MN_BAD_REQUEST, "rank.half_life_s is %g; it must be above 0", *rank->half_life_s);
    *out = (struct mn_rank){.on = true,
                            .half_life_s = rank->half_life_s ? *rank->half_life_s : 0,
                            .now = rank->now ? *rank->now : mn_wall_ns()};
    MN_TRY(share(rank->confidence_weight, "rank.confidence_weight", &out->confidence_weight));
    return share(rank->floor, "rank.floor", &out->floor);
}

/* The id lies in the first space of those that are asked. */
static enum mn_status set_like(const struct mneme_query *q, struct mn_query *out)
{
    if (!!q->embeddings + !!q->like != 1)
        return MN_FAIL(MN_BAD_REQUEST, "the query has %d of embeddings and like; it must have one of them",
                       !!q->embeddings + !!q->like);
    if (!q->like)
        return MN_OK;
    if (out->scope.all_spaces)
        return MN_FAIL(MN_BAD_REQUEST, "like needs a space to find the id in; name it first among the spaces");
    out->has_exclude = true;
    out->exclude_space = out->scope.spaces[0];
    return mn_attach_id(q->like, &out->exclude);
}

enum mn_status mn_attach_query(struct mneme_attached *a, const struct mneme_query *q, struct mn_query *out,
                               struct mn_attach_want *want)
{
    *out = (struct mn_query){.k = q->k ? q->k : K_DEFAULT,
                             .exact = q->exact,
                             .target = q->target ? *q->target : TARGET_DEFAULT,
                             .has_min_score = q->min_score != NULL,
                             .min_score = q->min_score ? *q->min_score : 0};
    *want = (struct mn_attach_want){0};
    MN_TRY(set_scope(a, &q->where, &out->scope, want));
    MN_TRY(set_like(q, out));
    MN_TRY(set_rank(a, q->rank, &out->rank));
    if (out->k > MN_K_MAX)
        return MN_FAIL(MN_BAD_REQUEST, "k is %u; it must be from 1 to %u", out->k, MN_K_MAX);
    if (!(out->target > 0 && out->target <= 1))
        return MN_FAIL(MN_BAD_REQUEST, "target is %g; it must be above 0 and at most 1", out->target);
    if (q->context > MN_CONTEXT_MAX)
        return MN_FAIL(MN_BAD_REQUEST, "context is %u; it must be from 0 to %d", q->context, MN_CONTEXT_MAX);
    if (q->count > MN_WIRE_QUERIES_MAX)
        return MN_FAIL(MN_TOO_LARGE, "the query holds %zu embeddings; %d is the most", q->count, MN_WIRE_QUERIES_MAX);
    return mn_attach_fields(q->fields, q->field_count, want);
}
