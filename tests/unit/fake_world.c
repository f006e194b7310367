/*
 * fake_world.c - see fake_world.h.
 */
#include "tests/unit/fake_world.h"

#include <math.h>
#include <stdlib.h>

#include "engine/meta.h"

static const char *const spaces[] = {"default", "agents/a", "agents/b", "z", "\xc3\xa9", "x"};
static const char *const tags[] = {"red", "green", "blue", "x", "rare", "default"};
static const char *const words[] = {"alpha", "beta", "gamma"};

uint64_t fake_random(struct fake_world *world)
{
    uint64_t z = world->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t fake_below(struct fake_world *world, uint32_t n)
{
    return (uint32_t)(fake_random(world) >> 33) % n;
}

float fake_float(struct fake_world *world)
{
    return (float)fake_below(world, 2001) / 1000.0f - 1.0f;
}

/* ---- memories ---- */

static void make_meta(struct fake_world *w, uint32_t i)
{
    struct fake_meta *meta = &w->metas[i];
    struct mn_meta_writer out = {.data = w->meta_bytes[i], .bytes_max = sizeof w->meta_bytes[i]};
    meta->has_number = fake_below(w, 4) > 0;
    meta->has_word = fake_below(w, 2) > 0;
    meta->has_deep = fake_below(w, 3) > 0;
    meta->number = (double)fake_below(w, 9) / 2 - 2;
    meta->as_float = fake_below(w, 2) > 0;
    meta->word = words[fake_below(w, MN_ARRAY_LEN(words))];
    meta->deep = (int64_t)fake_below(w, 5) - 2;
    uint32_t members = (meta->has_number ? 1u : 0u) + (meta->has_word ? 1u : 0u) + (meta->has_deep ? 1u : 0u);
    if (members == 0)
        return;
    mn_meta_map_begin(&out, members);
    if (meta->has_word) {
        mn_meta_key(&out, fake_str("word"));
        mn_meta_str(&out, fake_str(meta->word));
    }
    if (meta->has_number) {
        mn_meta_key(&out, fake_str("number"));
        if (meta->as_float || meta->number != floor(meta->number))
            mn_meta_f64(&out, meta->number);
        else
            mn_meta_int(&out, (int64_t)meta->number);
    }
    if (meta->has_deep) {
        mn_meta_key(&out, fake_str("a"));
        mn_meta_map_begin(&out, 1);
        mn_meta_key(&out, fake_str("b"));
        mn_meta_int(&out, meta->deep);
        mn_meta_end(&out);
    }
    mn_meta_end(&out);
    w->memories[i].meta = (struct mn_str){(const char *)out.data, out.bytes};
}

static struct mn_id make_id(struct fake_world *w)
{
    uint32_t n = 1 + fake_below(w, 60);
    return n % 7 == 0 ? (struct mn_id){.kind = MN_ID_UUID, .hi = n, .lo = n * 3} : fake_id(n);
}

static bool same_memory(const struct fake_memory *a, const struct fake_memory *b)
{
    return strcmp(a->space, b->space) == 0 && mn_id_equal(&a->id, &b->id);
}

/* A new version ends the one before, if it still lives. */
static void end_older(struct fake_world *w, uint32_t i)
{
    uint64_t born = w->memories[i].born;
    for (uint32_t j = 0; j < i; j++) {
        if (mn_died_seq(w->memories[j].died) > born && same_memory(&w->memories[j], &w->memories[i]))
            w->memories[j].died = mn_died_make(born, false);
    }
}

static void make_memory(struct fake_world *w, uint32_t i)
{
    struct fake_memory *m = &w->memories[i];
    *m = (struct fake_memory){.space = spaces[fake_below(w, MN_ARRAY_LEN(spaces))],
                              .id = make_id(w),
                              .born = ++w->seq,
                              .died = MN_ALIVE,
                              .at = (int64_t)fake_below(w, 200) - 50,
                              .expires = fake_below(w, 8) == 0 ? (int64_t)fake_below(w, 2000) : MN_NEVER,
                              .confidence = (float)fake_below(w, 5) / 4,
                              .vector = w->vectors[i]};
    for (uint32_t j = 0; j < FAKE_DIM; j++)
        w->vectors[i][j] = (float)fake_below(w, 3) - 1.0f + (fake_below(w, 8) == 0 ? fake_float(w) : 0.0f);
    w->vectors[i][0] += 0.25f; /* never zero */
    for (uint32_t j = 0; j < MN_ARRAY_LEN(tags); j++) {
        if (fake_below(w, j == 4 ? 40 : 3) == 0)
            m->tags[m->tag_count++] = tags[j];
    }
    make_meta(w, i);
    end_older(w, i);
    if (fake_below(w, 10) == 0)
        m->died = mn_died_make(m->born + 1 + fake_below(w, 50), fake_below(w, 2) == 0);
}

/* Oldest rows to columns, newest to tails, as compaction leaves them. */
static void make_parts(struct fake_world *w, enum mn_metric metric, bool columns)
{
    const struct fake_memory *rows[FAKE_ROWS_MAX];
    uint32_t at = w->count, part = 0;
    w->parts = fake_parts_new(FAKE_DIM, metric);
    while (at > 0) {
        uint32_t n = 1 + fake_below(w, w->count / 3 + 1);
        n = part == 5 || n > at ? at : n;
        for (uint32_t i = 0; i < n; i++)
            rows[i] = &w->memories[at - n + i];
        if (columns && part >= 2)
            fake_parts_columns(w->parts, rows, n);
        else
            fake_parts_tail(w->parts, rows, n);
        at -= n;
        part++;
    }
}

struct fake_world *fake_world_new(uint64_t seed, enum mn_metric metric, uint32_t count, bool columns)
{
    struct fake_world *w = calloc(1, sizeof *w);
    if (!w || count > FAKE_ROWS_MAX)
        abort();
    w->random = seed;
    w->now = 1000;
    w->count = count;
    for (uint32_t i = 0; i < count; i++)
        make_memory(w, i);
    make_parts(w, metric, columns);
    return w;
}

void fake_world_free(struct fake_world *world)
{
    fake_parts_free(world->parts);
    free(world);
}

uint32_t fake_index(const struct fake_world *world, uint32_t part, uint32_t row)
{
    return (uint32_t)(fake_parts_memory(world->parts, part, row) - world->memories);
}

/* ---- scopes ---- */

static struct mn_str make_value(struct fake_world *w, const struct mn_where *where, uint8_t *bytes)
{
    struct mn_meta_writer out = {.data = bytes, .bytes_max = 32};
    if (where->key.data[0] == 'w' || fake_below(w, 12) == 0)
        mn_meta_str(&out, fake_str(words[fake_below(w, MN_ARRAY_LEN(words))]));
    else if (fake_below(w, 2) == 0)
        mn_meta_int(&out, (int64_t)fake_below(w, 5) - 2);
    else
        mn_meta_f32(&out, (float)fake_below(w, 9) / 2 - 2);
    return (struct mn_str){(const char *)bytes, out.bytes};
}

static void make_where(struct fake_world *w, struct fake_scope *out)
{
    static const char *const keys[] = {"number", "word", "a.b", "a.c", "missing"};
    struct mn_filter *filter = &out->scope.filter;
    filter->where = out->where;
    filter->where_count = 1 + fake_below(w, 2);
    for (uint32_t i = 0; i < filter->where_count; i++) {
        struct mn_where *where = &out->where[i];
        *where = (struct mn_where){.key = fake_str(keys[fake_below(w, MN_ARRAY_LEN(keys))]),
                                   .op = (enum mn_where_op)fake_below(w, MN_WHERE_EXISTS + 1),
                                   .values = out->values[i],
                                   .exists = fake_below(w, 2) == 0};
        where->value_count = where->op == MN_WHERE_IN ? fake_below(w, 4) : 1;
        for (uint32_t j = 0; j < where->value_count; j++)
            out->values[i][j] = make_value(w, where, out->value_bytes[i][j]);
    }
}

static uint32_t make_tags(struct fake_world *w, struct mn_str *list)
{
    uint32_t count = 1 + fake_below(w, 3);
    for (uint32_t i = 0; i < count; i++)
        list[i] = fake_str(fake_below(w, 12) == 0 ? "unheard of" : tags[fake_below(w, MN_ARRAY_LEN(tags))]);
    return count;
}

static void make_ids(struct fake_world *w, struct fake_scope *out)
{
    out->scope.filter.has_ids = true;
    out->scope.filter.ids = out->ids;
    out->scope.filter.id_count = fake_below(w, MN_ARRAY_LEN(out->ids) + 1);
    for (uint32_t i = 0; i < out->scope.filter.id_count; i++)
        out->ids[i] = make_id(w);
}

void fake_scope_make(struct fake_world *w, struct fake_scope *out)
{
    struct mn_filter *filter = &out->scope.filter;
    *out = (struct fake_scope){.scope = {.all_spaces = fake_below(w, 2) == 0, .after = INT64_MIN}};
    out->scope.spaces = out->spaces;
    out->scope.space_count = out->scope.all_spaces ? 0 : fake_below(w, MN_ARRAY_LEN(out->spaces) + 1);
    for (uint32_t i = 0; i < out->scope.space_count; i++)
        out->spaces[i] = fake_str(fake_below(w, 12) == 0 ? "nowhere" : spaces[fake_below(w, MN_ARRAY_LEN(spaces))]);
    if (fake_below(w, 3) == 0)
        out->scope.after = (int64_t)fake_below(w, 200) - 50;
    if (fake_below(w, 3) == 0) {
        out->scope.has_before = true;
        out->scope.before = (int64_t)fake_below(w, 200) - 50;
    }
    if (fake_below(w, 4) == 0)
        out->scope.min_confidence = (float)fake_below(w, 5) / 4;
    filter->tags_any = out->tags[0];
    filter->tags_all = out->tags[1];
    filter->tags_none = out->tags[2];
    if (fake_below(w, 4) == 0) {
        filter->has_tags_any = true;
        filter->tags_any_count = fake_below(w, 8) == 0 ? 0 : make_tags(w, out->tags[0]);
    }
    if (fake_below(w, 4) == 0)
        filter->tags_all_count = make_tags(w, out->tags[1]);
    if (fake_below(w, 4) == 0)
        filter->tags_none_count = make_tags(w, out->tags[2]);
    if (fake_below(w, 4) == 0)
        make_ids(w, out);
    if (fake_below(w, 3) == 0)
        make_where(w, out);
}

/* ---- the model ---- */

bool fake_visible(const struct fake_world *world, uint32_t i, uint64_t seq, int64_t now)
{
    const struct fake_memory *m = &world->memories[i];
    uint64_t died = m->died == MN_ALIVE ? UINT64_MAX : m->died / 2;
    return m->born <= seq && died > seq && m->expires > now;
}

static bool named(const struct mn_str *list, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strlen(name) == list[i].length && memcmp(name, list[i].data, list[i].length) == 0)
            return true;
    }
    return false;
}

static bool tags_match(const struct fake_memory *m, const struct mn_filter *filter)
{
    bool any = false, none = true;
    uint32_t all = 0;
    for (uint32_t i = 0; i < m->tag_count; i++) {
        any = any || named(filter->tags_any, filter->tags_any_count, m->tags[i]);
        none = none && !named(filter->tags_none, filter->tags_none_count, m->tags[i]);
    }
    for (uint32_t i = 0; i < filter->tags_all_count; i++) {
        for (uint32_t j = 0; j < m->tag_count; j++) {
            if (named(&filter->tags_all[i], 1, m->tags[j])) {
                all++;
                break;
            }
        }
    }
    return (any || !filter->has_tags_any) && none && all == filter->tags_all_count;
}

/* Values of the test are small: double compares them exactly. Order, or 2 when they are of different kinds. */
static int compare_to(const struct fake_meta *meta, const struct mn_where *where, uint32_t i)
{
    struct mn_str in = where->values[i];
    struct mn_meta_value value;
    if (!mn_meta_next(&in, &value))
        abort();
    if (where->key.data[0] == 'w') {
        if (value.type != MN_META_STR)
            return 2;
        char text[16] = {0};
        memcpy(text, value.s.data, value.s.length);
        int order = strcmp(meta->word, text);
        return (order > 0) - (order < 0);
    }
    if (value.type == MN_META_STR)
        return 2;
    double mine = where->key.data[0] == 'n' ? meta->number : (double)meta->deep;
    double theirs = value.type == MN_META_INT    ? (double)value.i64
                    : value.type == MN_META_UINT ? (double)value.u64
                                                 : value.f64;
    return (mine > theirs) - (mine < theirs);
}

static bool has_key(const struct fake_meta *meta, struct mn_str key)
{
    return (key.data[0] == 'n' && meta->has_number) || (key.data[0] == 'w' && meta->has_word) ||
           (key.data[0] == 'a' && key.data[2] == 'b' && meta->has_deep);
}

static bool where_matches(const struct fake_meta *meta, const struct mn_where *where)
{
    if (where->op == MN_WHERE_EXISTS)
        return has_key(meta, where->key) == where->exists;
    if (!has_key(meta, where->key))
        return where->op == MN_WHERE_NE;
    if (where->op == MN_WHERE_IN) {
        bool in = false;
        for (uint32_t i = 0; i < where->value_count; i++)
            in = in || compare_to(meta, where, i) == 0;
        return in;
    }
    int order = compare_to(meta, where, 0);
    return (where->op == MN_WHERE_EQ && order == 0) || (where->op == MN_WHERE_NE && order != 0) ||
           (where->op == MN_WHERE_GT && order == 1) || (where->op == MN_WHERE_GTE && (order == 1 || order == 0)) ||
           (where->op == MN_WHERE_LT && order == -1) || (where->op == MN_WHERE_LTE && (order == -1 || order == 0));
}

bool fake_matches(const struct fake_world *world, uint32_t i, const struct mn_scope *scope)
{
    const struct fake_memory *m = &world->memories[i];
    const struct mn_filter *filter = &scope->filter;
    bool id = !filter->has_ids, where = true;
    for (uint32_t j = 0; j < filter->id_count; j++)
        id = id || mn_id_equal(&filter->ids[j], &m->id);
    for (uint32_t j = 0; j < filter->where_count; j++)
        where = where && where_matches(&world->metas[i], &filter->where[j]);
    return (scope->all_spaces || named(scope->spaces, scope->space_count, m->space)) && m->at >= scope->after &&
           (!scope->has_before || m->at < scope->before) && m->confidence >= scope->min_confidence && id && where &&
           tags_match(m, filter);
}
