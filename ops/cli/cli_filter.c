/*
 * cli_filter.c - from options to a filter (see cli_filter.h).
 */
#include "ops/cli/cli_filter.h"

#include "ops/cli/cli_id.h"
#include "ops/cli/cli_json.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS_MAX = 32 };

static const char *skip_blanks(const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    return text;
}

static char *keep_trimmed(const char *text, size_t size)
{
    while (size && isspace((unsigned char)text[size - 1]))
        size--;
    char *copy = mn_cli_keep(size + 1);
    memcpy(copy, text, size);
    return copy;
}

/* Longer operators stand before those they begin with. */
static const struct {
    const char *word;
    enum mneme_comparison comparison;
} operators[] = {{">=", MNEME_GTE}, {"<=", MNEME_LTE}, {"!=", MNEME_NE}, {"==", MNEME_EQ},
                 {"=", MNEME_EQ},   {">", MNEME_GT},   {"<", MNEME_LT}};

static bool find_operator(const char *text, size_t *at, size_t *size, enum mneme_comparison *comparison)
{
    *at = strcspn(text, "<>=!");
    for (size_t i = 0; i < MN_ARRAY_LEN(operators); i++) {
        *size = strlen(operators[i].word);
        if (strncmp(text + *at, operators[i].word, *size) == 0) {
            *comparison = operators[i].comparison;
            return true;
        }
    }
    return false;
}

/* A word behind the key, with blanks before it: `KEY exists`, `KEY in [..]`. NULL when it is not there. */
static const char *find_word(const char *text, const char *word)
{
    size_t key = strcspn(text, " \t");
    const char *at = skip_blanks(text + key);
    size_t n = strlen(word);
    if (key == 0 || strncmp(at, word, n) != 0 || (at[n] && !isspace((unsigned char)at[n]) && at[n] != '['))
        return NULL;
    return at + n;
}

static enum mn_status set_value(struct mneme_condition *c, const char *text)
{
    void *bytes;
    json_t *json = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    json_t *value = json ? json : json_string(text);
    char *dumped = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    json_decref(value);
    if (!dumped)
        return MN_FAIL(MN_USAGE, "the value in a condition is neither JSON nor UTF-8 text");
    enum mn_status status = mn_cli_json_parse_packed(dumped, "the value in a condition", &bytes, &c->value_size);
    free(dumped);
    c->value = bytes;
    return status;
}

static bool take_existence(const char *text, struct mneme_condition *c)
{
    const char *present = find_word(text, "exists"), *missing = find_word(text, "missing");
    const char *rest = present ? present : missing;
    if (!rest || *skip_blanks(rest))
        return false;
    char *packed = mn_cli_keep(1);
    packed[0] = (char)(present ? 0xc3 : 0xc2);
    c->key = keep_trimmed(text, strcspn(text, " \t"));
    c->comparison = MNEME_EXISTS_IS;
    c->value = packed;
    c->value_size = 1;
    return true;
}

enum mn_status mn_cli_filter_condition(const char *text, struct mneme_condition *c)
{
    size_t at, size;
    const char *list;
    memset(c, 0, sizeof *c);
    text = skip_blanks(text);
    if (take_existence(text, c))
        return MN_OK;
    if ((list = find_word(text, "in"))) {
        list = skip_blanks(list);
        c->key = keep_trimmed(text, strcspn(text, " \t"));
        c->comparison = MNEME_IN;
        if (list[0] != '[')
            return MN_FAIL(MN_USAGE, "`in` takes a JSON array: %s in [1, 2]", c->key);
        json_t *json;
        MN_TRY(mn_cli_json_parse(list, strlen(list), "the list behind `in`", &json));
        json_decref(json);
        return set_value(c, list);
    }
    if (!find_operator(text, &at, &size, &c->comparison))
        return MN_FAIL(MN_USAGE,
                       "`%s` is no condition: write KEY=VALUE, KEY>=VALUE, KEY in [..], KEY exists or KEY missing",
                       text);
    if (at == 0)
        return MN_FAIL(MN_USAGE, "the condition `%s` has no key", text);
    c->key = keep_trimmed(text, at);
    const char *value = skip_blanks(text + at + size);
    if (!*value)
        return MN_FAIL(MN_USAGE, "the condition `%s` has no value; an empty string is \"\"", text);
    return set_value(c, keep_trimmed(value, strlen(value)));
}

const char *const *mn_cli_filter_texts(const struct mn_cli_args *args, const char *name, size_t *count)
{
    size_t cursor = 0;
    *count = mn_cli_args_count(args, name);
    const char **texts = *count ? mn_cli_keep(*count * sizeof *texts) : NULL;
    for (size_t i = 0; i < *count; i++)
        texts[i] = mn_cli_args_next(args, name, &cursor);
    return texts;
}

enum mn_status mn_cli_filter_ids(const char *const *texts, size_t count, struct mneme_id **ids)
{
    *ids = count ? mn_cli_keep(count * sizeof **ids) : NULL;
    for (size_t i = 0; i < count; i++)
        MN_TRY(mn_cli_id_parse(texts[i], &(*ids)[i]));
    return MN_OK;
}

enum mn_status mn_cli_filter_spaces(const struct mn_cli_args *args, struct mn_cli_filter *out)
{
    out->where.all = mn_cli_args_has(args, "all-spaces");
    out->where.spaces = mn_cli_filter_texts(args, "space", &out->where.space_count);
    if (out->where.all && out->where.space_count)
        return MN_FAIL(MN_USAGE, "--space and --all-spaces exclude each other");
    return MN_OK;
}

enum mn_status mn_cli_filter_conditions(const struct mn_cli_args *args, struct mn_cli_filter *out)
{
    struct mneme_filter *f = &out->filter;
    size_t count;
    f->tags_all = mn_cli_filter_texts(args, "tag", &f->tags_all_count);
    f->tags_any = mn_cli_filter_texts(args, "any-tag", &f->tags_any_count);
    f->tags_none = mn_cli_filter_texts(args, "not-tag", &f->tags_none_count);
    const char *const *texts = mn_cli_filter_texts(args, "id", &count);
    struct mneme_id *ids;
    MN_TRY(mn_cli_filter_ids(texts, count, &ids));
    f->ids = ids;
    f->id_count = count;
    texts = mn_cli_filter_texts(args, "where", &f->meta_count);
    struct mneme_condition *conditions = f->meta_count ? mn_cli_keep(f->meta_count * sizeof *conditions) : NULL;
    for (size_t i = 0; i < f->meta_count; i++)
        MN_TRY(mn_cli_filter_condition(texts[i], &conditions[i]));
    f->meta = conditions;
    out->any = f->tags_all || f->tags_any || f->tags_none || f->ids || f->meta;
    out->where.filter = out->any ? f : NULL;
    return MN_OK;
}

enum mn_status mn_cli_filter_times(const struct mn_cli_args *args, struct mn_cli_filter *out)
{
    MN_TRY(mn_cli_args_time(args, "after", &out->after));
    MN_TRY(mn_cli_args_time(args, "before", &out->before));
    out->where.after = mn_cli_args_has(args, "after") ? &out->after : NULL;
    out->where.before = mn_cli_args_has(args, "before") ? &out->before : NULL;
    return MN_OK;
}

const char *const *mn_cli_filter_fields(const struct mn_cli_args *args, size_t *count)
{
    const char *text = mn_cli_args_text(args, "fields");
    char *save;
    *count = 0;
    if (!text)
        return NULL;
    char *copy = keep_trimmed(text, strlen(text));
    const char **fields = mn_cli_keep(FIELDS_MAX * sizeof *fields);
    for (char *f = strtok_r(copy, ", ", &save); f && *count < FIELDS_MAX; f = strtok_r(NULL, ", ", &save))
        fields[(*count)++] = f;
    return fields;
}
