/*
 * request.c - the typed calls: each packs one MessagePack map and hands it to mneme_call. The only place where libmneme
 * builds a request.
 */
#include "clients/c/client.h"

#include <msgpack.h>
#include <string.h>

/* A map under construction. Entries are counted as they are put, and the count is written into the header at the end,
 * so that optional entries need no counting beforehand. */
struct form {
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    bool failed;
};

struct map {
    size_t header; /* where its 5-byte header stands in the buffer */
    uint32_t entries;
};

/* A packer's write function that remembers a failure, so that only the end has to ask. */
static int form_write(void *data, const char *bytes, size_t size)
{
    struct form *f = data;
    if (msgpack_sbuffer_write(&f->buffer, bytes, size) != 0)
        f->failed = true;
    return 0;
}

static struct map open_map(struct form *f)
{
    static const char header[5] = {(char)0xdf};
    struct map map = {.header = f->buffer.size};
    form_write(f, header, sizeof header);
    return map;
}

static void close_map(struct form *f, const struct map *map)
{
    if (f->failed)
        return;
    for (unsigned i = 0; i < 4; i++)
        f->buffer.data[map->header + 1 + i] = (char)(map->entries >> (24 - 8 * i));
}

static void put_text(struct form *f, const char *text)
{
    size_t n = strlen(text);
    msgpack_pack_str(&f->packer, n);
    msgpack_pack_str_body(&f->packer, text, n);
}

static void put_key(struct form *f, struct map *map, const char *key)
{
    map->entries++;
    put_text(f, key);
}

static void begin(struct form *f, struct map *map, const char *op)
{
    memset(f, 0, sizeof *f);
    msgpack_packer_init(&f->packer, f, form_write);
    *map = open_map(f);
    put_key(f, map, "op");
    put_text(f, op);
}

static enum mneme_code send_form(struct mneme *client, enum mneme_service service, struct form *f,
                                 const struct map *map, struct mneme_reply **reply)
{
    enum mneme_code code;
    close_map(f, map);
    if (f->failed) {
        if (reply)
            *reply = NULL;
        code = mn_client_fail(client, MNEME_NO_MEMORY, "out of memory for a request");
    } else {
        code = mneme_call(client, service, f->buffer.data, f->buffer.size, reply);
    }
    msgpack_sbuffer_destroy(&f->buffer);
    return code;
}

/* ---- values: each puts nothing where the value is not given ---- */

static void put_string(struct form *f, struct map *map, const char *key, const char *text)
{
    if (!text)
        return;
    put_key(f, map, key);
    put_text(f, text);
}

static void put_f64(struct form *f, struct map *map, const char *key, const double *value)
{
    if (!value)
        return;
    put_key(f, map, key);
    msgpack_pack_double(&f->packer, *value);
}

static void put_i64(struct form *f, struct map *map, const char *key, const int64_t *value)
{
    if (!value)
        return;
    put_key(f, map, key);
    msgpack_pack_int64(&f->packer, *value);
}

static void put_u64(struct form *f, struct map *map, const char *key, const uint64_t *value)
{
    if (!value)
        return;
    put_key(f, map, key);
    msgpack_pack_uint64(&f->packer, *value);
}

static void put_true(struct form *f, struct map *map, const char *key, bool value)
{
    if (!value)
        return;
    put_key(f, map, key);
    msgpack_pack_true(&f->packer);
}

static void put_strings(struct form *f, struct map *map, const char *key, const char *const *texts, size_t count)
{
    if (!texts)
        return;
    put_key(f, map, key);
    msgpack_pack_array(&f->packer, count);
    for (size_t i = 0; i < count; i++)
        put_text(f, texts[i]);
}

static void put_one_id(struct form *f, const struct mneme_id *id)
{
    if (id->uuid[0])
        put_text(f, id->uuid);
    else
        msgpack_pack_uint64(&f->packer, id->number);
}

static void put_id(struct form *f, struct map *map, const char *key, const struct mneme_id *id)
{
    if (!id)
        return;
    put_key(f, map, key);
    put_one_id(f, id);
}

static void put_ids(struct form *f, struct map *map, const char *key, const struct mneme_id *ids, size_t count)
{
    if (!ids)
        return;
    put_key(f, map, key);
    msgpack_pack_array(&f->packer, count);
    for (size_t i = 0; i < count; i++)
        put_one_id(f, &ids[i]);
}

static void put_content(struct form *f, struct map *map, const void *content, size_t size, bool binary)
{
    if (!content)
        return;
    put_key(f, map, "content");
    if (binary) {
        msgpack_pack_bin(&f->packer, size);
        msgpack_pack_bin_body(&f->packer, content, size);
    } else {
        msgpack_pack_str(&f->packer, size);
        msgpack_pack_str_body(&f->packer, content, size);
    }
}

/* Bytes that are MessagePack already. */
static void put_packed(struct form *f, struct map *map, const char *key, const void *bytes, size_t size)
{
    if (!bytes)
        return;
    put_key(f, map, key);
    form_write(f, bytes, size);
}

static void put_floats(struct form *f, struct map *map, const char *key, const float *values, size_t count)
{
    put_key(f, map, key);
    msgpack_pack_bin(&f->packer, count * sizeof *values);
    msgpack_pack_bin_body(&f->packer, values, count * sizeof *values);
}

static void put_filter(struct form *f, struct map *map, const struct mneme_filter *filter)
{
    static const char *const words[] = {
        [MNEME_EQ] = "eq",   [MNEME_NE] = "ne", [MNEME_IN] = "in",   [MNEME_GT] = "gt",
        [MNEME_GTE] = "gte", [MNEME_LT] = "lt", [MNEME_LTE] = "lte", [MNEME_EXISTS_IS] = "exists"};
    if (!filter)
        return;
    put_key(f, map, "filter");
    struct map inner = open_map(f);
    put_strings(f, &inner, "tags_any", filter->tags_any, filter->tags_any_count);
    put_strings(f, &inner, "tags_all", filter->tags_all, filter->tags_all_count);
    put_strings(f, &inner, "tags_none", filter->tags_none, filter->tags_none_count);
    put_ids(f, &inner, "ids", filter->ids, filter->id_count);
    if (filter->meta_count) {
        put_key(f, &inner, "meta");
        msgpack_pack_array(&f->packer, filter->meta_count);
    }
    for (size_t i = 0; i < filter->meta_count; i++) {
        const struct mneme_condition *c = &filter->meta[i];
        struct map condition = open_map(f);
        put_string(f, &condition, "key", c->key);
        put_packed(f, &condition, words[c->comparison], c->value, c->value_size);
        close_map(f, &condition);
    }
    close_map(f, &inner);
}

static void put_where(struct form *f, struct map *map, const struct mneme_where *where)
{
    if (where->all) {
        put_key(f, map, "space");
        msgpack_pack_nil(&f->packer);
    } else if (where->space_count == 1) {
        put_string(f, map, "space", where->spaces[0]);
    } else if (where->space_count > 1) {
        put_strings(f, map, "space", where->spaces, where->space_count);
    }
    put_filter(f, map, where->filter);
    put_i64(f, map, "after", where->after);
    put_i64(f, map, "before", where->before);
    put_f64(f, map, "min_confidence", where->min_confidence);
}

/* ---- writes ---- */

static void put_memory(struct form *f, const struct mneme_memory *m, uint32_t dim)
{
    struct map map = open_map(f);
    put_id(f, &map, "id", m->id);
    put_floats(f, &map, "embedding", m->embedding, dim);
    put_content(f, &map, m->content, m->content_size, m->content_is_binary);
    put_packed(f, &map, "meta", m->meta, m->meta_size);
    put_strings(f, &map, "tags", m->tags, m->tag_count);
    put_f64(f, &map, "confidence", m->confidence);
    put_i64(f, &map, "at", m->at);
    put_i64(f, &map, "expires", m->expires);
    put_true(f, &map, "if_absent", m->if_absent);
    put_u64(f, &map, "if_version", m->if_version);
    put_ids(f, &map, "supersedes", m->supersedes, m->supersedes_count);
    close_map(f, &map);
}

enum mneme_code mneme_remember(struct mneme *client, const char *space, const struct mneme_memory *memories,
                               size_t count, const char *idem, struct mneme_reply **reply)
{
    struct form f;
    struct map map;
    begin(&f, &map, "remember");
    put_string(&f, &map, "space", space);
    put_string(&f, &map, "idem", idem);
    put_key(&f, &map, "memories");
    msgpack_pack_array(&f.packer, count);
    for (size_t i = 0; i < count; i++)
        put_memory(&f, &memories[i], client->dim);
    return send_form(client, MNEME_WRITE, &f, &map, reply);
}

enum mneme_code mneme_revise(struct mneme *client, const char *space, const struct mneme_id *id,
                             const struct mneme_changes *changes, const uint64_t *if_version, const char *idem,
                             struct mneme_reply **reply)
{
    struct form f;
    struct map map;
    begin(&f, &map, "revise");
    put_string(&f, &map, "space", space);
    put_string(&f, &map, "idem", idem);
    put_id(&f, &map, "id", id);
    put_u64(&f, &map, "if_version", if_version);
    put_key(&f, &map, "set");
    struct map set = open_map(&f);
    put_f64(&f, &set, "confidence", changes->confidence);
    put_content(&f, &set, changes->content, changes->content_size, changes->content_is_binary);
    put_packed(&f, &set, "meta", changes->meta, changes->meta_size);
    put_strings(&f, &set, "tags", changes->tags, changes->tag_count);
    put_i64(&f, &set, "at", changes->at);
    put_i64(&f, &set, "expires", changes->expires);
    close_map(&f, &set);
    return send_form(client, MNEME_WRITE, &f, &map, reply);
}

enum mneme_code mneme_forget(struct mneme *client, const char *space, const struct mneme_forgetting *what,
                             const char *idem, struct mneme_reply **reply)
{
    static const char *const modes[] = {
        [MNEME_DELETE] = NULL, [MNEME_SUPPRESS] = "suppress", [MNEME_RESTORE] = "restore", [MNEME_PURGE] = "purge"};
    struct form f;
    struct map map;
    begin(&f, &map, "forget");
    put_string(&f, &map, "space", space);
    put_string(&f, &map, "idem", idem);
    put_string(&f, &map, "mode", modes[what->mode]);
    put_u64(&f, &map, "if_version", what->if_version);
    put_ids(&f, &map, "ids", what->ids, what->id_count);
    if (!what->ids)
        put_filter(&f, &map, what->filter);
    if (!what->ids && !what->filter)
        put_true(&f, &map, "all", what->all);
    return send_form(client, MNEME_WRITE, &f, &map, reply);
}

/* ---- reads ---- */

static void put_rank(struct form *f, struct map *map, const struct mneme_rank *rank)
{
    if (!rank)
        return;
    put_key(f, map, "rank");
    struct map inner = open_map(f);
    put_f64(f, &inner, "half_life_s", rank->half_life_s);
    put_i64(f, &inner, "now", rank->now);
    put_f64(f, &inner, "confidence_weight", rank->confidence_weight);
    put_f64(f, &inner, "floor", rank->floor);
    close_map(f, &inner);
}

static void put_count(struct form *f, struct map *map, const char *key, uint32_t value)
{
    uint64_t wide = value;
    put_u64(f, map, key, value ? &wide : NULL);
}

enum mneme_code mneme_recall(struct mneme *client, const struct mneme_query *q, struct mneme_reply **reply)
{
    struct form f;
    struct map map;
    begin(&f, &map, "recall");
    put_where(&f, &map, &q->where);
    if (q->embeddings)
        put_floats(&f, &map, q->count > 1 ? "embeddings" : "embedding", q->embeddings,
                   (q->count > 1 ? q->count : 1) * client->dim);
    put_id(&f, &map, "like", q->like);
    put_count(&f, &map, "k", q->k);
    put_f64(&f, &map, "min_score", q->min_score);
    put_f64(&f, &map, "target", q->target);
    put_true(&f, &map, "exact", q->exact);
    put_rank(&f, &map, q->rank);
    put_count(&f, &map, "context", q->context);
    put_u64(&f, &map, "as_of", q->as_of);
    put_u64(&f, &map, "min_seq", q->min_seq);
    put_strings(&f, &map, "fields", q->fields, q->field_count);
    return send_form(client, MNEME_RECALL, &f, &map, reply);
}

enum mneme_code mneme_get(struct mneme *client, const char *space, const struct mneme_id *ids, size_t count,
                          const char *const *fields, size_t field_count, const uint64_t *as_of,
                          struct mneme_reply **reply)
{
    struct form f;
    struct map map;
    begin(&f, &map, "get");
    put_string(&f, &map, "space", space);
    put_ids(&f, &map, "ids", ids, count);
    put_strings(&f, &map, "fields", fields, field_count);
    put_u64(&f, &map, "as_of", as_of);
    return send_form(client, MNEME_RECALL, &f, &map, reply);
}

enum mneme_code mneme_list(struct mneme *client, const struct mneme_listing *listing, struct mneme_reply **reply)
{
    struct form f;
    struct map map;
    struct mneme_where where = listing->where;
    where.min_confidence = NULL;
    begin(&f, &map, "list");
    put_where(&f, &map, &where);
    put_string(&f, &map, "order", listing->oldest_first ? "oldest" : NULL);
    put_count(&f, &map, "limit", listing->limit);
    put_packed(&f, &map, "cursor", listing->cursor, listing->cursor_size);
    put_strings(&f, &map, "fields", listing->fields, listing->field_count);
    return send_form(client, MNEME_RECALL, &f, &map, reply);
}

enum mneme_code mneme_count(struct mneme *client, const struct mneme_where *where, struct mneme_reply **reply)
{
    static const struct mneme_where anywhere;
    struct form f;
    struct map map;
    begin(&f, &map, "count");
    put_where(&f, &map, where ? where : &anywhere);
    return send_form(client, MNEME_RECALL, &f, &map, reply);
}

/* ---- requests that are little more than their name ---- */

static enum mneme_code call_plain(struct mneme *client, enum mneme_service service, const char *op,
                                  struct mneme_reply **reply)
{
    struct form f;
    struct map map;
    begin(&f, &map, op);
    return send_form(client, service, &f, &map, reply);
}

enum mneme_code mneme_spaces(struct mneme *client, struct mneme_reply **reply)
{
    return call_plain(client, MNEME_RECALL, "spaces", reply);
}

enum mneme_code mneme_info(struct mneme *client, struct mneme_reply **reply)
{
    return call_plain(client, MNEME_CONTROL, "info", reply);
}

enum mneme_code mneme_ping(struct mneme *client, struct mneme_reply **reply)
{
    return call_plain(client, MNEME_CONTROL, "ping", reply);
}

enum mneme_code mneme_verify(struct mneme *client, struct mneme_reply **reply)
{
    return call_plain(client, MNEME_CONTROL, "verify", reply);
}

enum mneme_code mneme_reload(struct mneme *client, struct mneme_reply **reply)
{
    return call_plain(client, MNEME_CONTROL, "reload", reply);
}

enum mneme_code mneme_drain(struct mneme *client, struct mneme_reply **reply)
{
    return call_plain(client, MNEME_CONTROL, "drain", reply);
}

enum mneme_code mneme_stats(struct mneme *client, const char *format, struct mneme_reply **reply)
{
    struct form f;
    struct map map;
    begin(&f, &map, "stats");
    put_string(&f, &map, "format", format);
    return send_form(client, MNEME_STATS, &f, &map, reply);
}

enum mneme_code mneme_consolidate(struct mneme *client, bool wait, struct mneme_reply **reply)
{
    struct form f;
    struct map map;
    begin(&f, &map, "consolidate");
    put_true(&f, &map, "wait", wait);
    return send_form(client, MNEME_CONTROL, &f, &map, reply);
}

enum mneme_code mneme_snapshot(struct mneme *client, const char *path, struct mneme_reply **reply)
{
    struct form f;
    struct map map;
    begin(&f, &map, "snapshot");
    put_string(&f, &map, "path", path);
    return send_form(client, MNEME_CONTROL, &f, &map, reply);
}
