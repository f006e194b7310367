/*
 * test_wire_decode.c - actors/wire_decode*: each field of each operation, right and wrong, and what becomes of it.
 */
#include "actors/wire_decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "actors/wire_cursor.h"
#include "engine/meta.h"
#include "tests/unit/wire_text.h"

#define NOW 1234567890
#define DIM 4

static msgpack_sbuffer frame;
static struct mn_decoder decoder;
static struct mn_request request;
static union {
    struct mn_remember remember;
    struct mn_revise revise;
    struct mn_forget_request forget;
    struct mn_recall_request recall;
    struct mn_get_request get;
    struct mn_list_request list;
    struct mn_scope scope;
} out;
static bool accepted;

static enum mn_status decode_opened(void)
{
    switch (request.op) {
    case MN_OP_REMEMBER:
        return mn_decode_remember(&decoder, &request, NOW, &out.remember, &accepted);
    case MN_OP_REVISE:
        return mn_decode_revise(&decoder, &request, NOW, &out.revise);
    case MN_OP_FORGET:
        return mn_decode_forget(&decoder, &request, NOW, &out.forget);
    case MN_OP_RECALL:
        return mn_decode_recall(&decoder, &request, NOW, &out.recall);
    case MN_OP_GET:
        return mn_decode_get(&decoder, &request, &out.get);
    case MN_OP_LIST:
        return mn_decode_list(&decoder, &request, &out.list);
    default:
        return mn_decode_count(&decoder, &request, &out.scope);
    }
}

static enum mn_status decode(const char *text)
{
    wire_text_pack(&frame, text);
    enum mn_status status = mn_wire_open(&request, frame.data, frame.size, MN_SERVICE_RECALL);
    if (status == MN_BAD_OP)
        status = mn_wire_open(&request, frame.data, frame.size, MN_SERVICE_WRITE);
    return status == MN_OK ? decode_opened() : status;
}

static void good(const char *text)
{
    enum mn_status status = decode(text);
    if (status != MN_OK)
        fail_msg("%s: %s, %s", text, mn_status_word(status), mn_error_text());
}

struct refusal {
    enum mn_status status;
    const char *text, *says;
};

static void refused(const struct refusal *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        enum mn_status status = decode(rows[i].text);
        if (status != rows[i].status || !strstr(mn_error_text(), rows[i].says))
            fail_msg("%s: %s, \"%s\", not %s, \"%s\"", rows[i].text, mn_status_word(status), mn_error_text(),
                     mn_status_word(rows[i].status), rows[i].says);
    }
}

static void assert_str(struct mn_str s, const char *text)
{
    assert_true(mn_wire_is(s, text));
}

/* ---- remember */

#define E         "\"embedding\": \"f32:1,2,3,4\""
#define MEMORY(m) "{\"op\": \"remember\", \"memories\": [{" m "}]}"

static void remember_takes_everything(void **state)
{
    good("{\"op\": \"remember\", \"space\": \"s\", \"idem\": \"key\", \"ack\": \"accepted\", \"memories\": [{\"id\": "
         "7, " E ", \"content\": \"c\", \"meta\": {\"a\": 1}, \"tags\": [\"t\", \"u\"], \"confidence\": 1, \"at\": -5, "
         "\"expires\": 9, "
         "\"if_version\": 3, \"supersedes\": [1, 2]}, {\"embedding\": [1, -2, 0.5, 0]}]}");
    const struct mn_memory *m = out.remember.memories;
    assert_int_equal(out.remember.count, 2);
    assert_true(accepted);
    assert_str(out.remember.write.space, "s");
    assert_str(out.remember.write.idem, "key");
    assert_true(out.remember.write.request_hash != 0);
    assert_int_equal(out.remember.write.now, NOW);
    assert_true(m->has_id && m->id.lo == 7 && m->id.kind == MN_ID_INTEGER);
    assert_true((const char *)m->embedding > frame.data && (const char *)m->embedding < frame.data + frame.size);
    assert_str(m->content, "c");
    assert_false(m->content_bin);
    assert_int_equal(m->tag_count, 2);
    assert_str(m->tags[1], "u");
    assert_true(m->confidence == 1.0f && m->at == -5 && m->expires == 9);
    assert_true(m->has_if_version && m->if_version == 3 && !m->if_absent);
    assert_true(m->supersede_count == 2 && m->supersedes[1].lo == 2);
    struct mn_str found;
    assert_true(mn_meta_find(m->meta, (struct mn_str){"a", 1}, &found));
    const float *floats = m[1].embedding;
    assert_true(floats[0] == 1 && floats[1] == -2 && floats[2] == 0.5f && floats[3] == 0);
}

static void remember_defaults(void **state)
{
    good(MEMORY(E));
    const struct mn_memory *m = out.remember.memories;
    assert_str(out.remember.write.space, "default");
    assert_int_equal(out.remember.write.idem.length, 0);
    assert_false(accepted);
    assert_true(!m->has_id && !m->content.data && m->meta.length == 0 && m->tag_count == 0);
    assert_true(m->confidence == 1.0f && m->at == NOW && m->expires == MN_NEVER);
    good(MEMORY(E ", \"content\": \"\""));
    assert_true(out.remember.memories->content.data && out.remember.memories->content.length == 0);
    good(MEMORY(E ", \"content\": \"bin:xy\""));
    assert_true(out.remember.memories->content_bin);
}

static void remember_refusals(void **state)
{
    static const struct refusal rows[] = {
        {MN_BAD_REQUEST, "{\"op\": \"remember\"}", "memories is missing"},
        {MN_BAD_REQUEST, "{\"op\": \"remember\", \"memories\": []}", "memories is empty"},
        {MN_BAD_REQUEST, "{\"op\": \"remember\", \"memories\": {}}", "memories is a map of 0; it must be an array"},
        {MN_BAD_REQUEST, "{\"op\": \"remember\", \"memories\": [1]}", "memories[0]: a memory is the integer 1"},
        {MN_BAD_REQUEST, MEMORY(""), "memories[0]: embedding is missing"},
        {MN_BAD_REQUEST, MEMORY(E ", \"contents\": 1"), "no key \"contents\""},
        {MN_BAD_REQUEST, MEMORY(E ", \"id\": -1"), "id is the integer -1"},
        {MN_BAD_REQUEST, MEMORY(E ", \"id\": \"x\""), "id is a string of 1 bytes"},
        {MN_BAD_REQUEST, MEMORY(E ", \"id\": null"), "id is nil"},
        {MN_BAD_REQUEST, MEMORY("\"embedding\": \"x\""), "embedding is a string"},
        {MN_BAD_REQUEST, MEMORY("\"embedding\": [1, 2, \"x\", 4]"), "entry 2: embedding is a string"},
        {MN_BAD_REQUEST, MEMORY("\"embedding\": [{}]"), "entry 0: embedding is a map"},
        {MN_BAD_DIM, MEMORY("\"embedding\": [1, 2, 3]"), "4 dimensions"},
        {MN_BAD_DIM, MEMORY("\"embedding\": \"f32:1,2,3\""), "12 bytes"},
        {MN_BAD_DIM, MEMORY("\"embedding\": \"bin:123456789012345\""), "15 bytes"},
        {MN_BAD_REQUEST, MEMORY(E ", \"content\": 1"), "content is the integer 1"},
        {MN_BAD_REQUEST, MEMORY(E ", \"content\": \"raw:a2ff61\""), "content is not UTF-8"},
        {MN_TOO_LARGE, MEMORY(E ", \"content\": \"long:1048577\""), "content has 1048577 bytes"},
        {MN_TOO_LARGE, MEMORY(E ", \"content\": \"blob:1048577\""), "content has 1048577 bytes"},
        {MN_BAD_REQUEST, MEMORY(E ", \"meta\": []"), "meta is an array"},
        {MN_BAD_REQUEST, MEMORY(E ", \"meta\": {\"a\": \"ext:1\"}"), "extension type"},
        {MN_BAD_REQUEST, MEMORY(E ", \"meta\": {\"a\": \"raw:a1ff\"}"), "not UTF-8"},
        {MN_BAD_REQUEST, MEMORY(E ", \"meta\": \"raw:810101\""), "a key that is no string"},
        {MN_TOO_LARGE, MEMORY(E ", \"meta\": {\"a\": \"long:65536\"}"), "meta has"},
        {MN_BAD_REQUEST, MEMORY(E ", \"tags\": \"t\""), "tags is a string"},
        {MN_BAD_REQUEST, MEMORY(E ", \"tags\": [1]"), "entry 0: tags is the integer 1"},
        {MN_TOO_LARGE, MEMORY(E ", \"tags\": [\"long:129\"]"), "129 bytes"},
        {MN_BAD_REQUEST, MEMORY(E ", \"confidence\": \"high\""), "confidence is a string"},
        {MN_BAD_VALUE, MEMORY(E ", \"confidence\": 1.001"), "from 0 to 1"},
        {MN_BAD_VALUE, MEMORY(E ", \"confidence\": -1"), "from 0 to 1"},
        {MN_BAD_VALUE, MEMORY(E ", \"confidence\": \"nan\""), "NaN or infinite"},
        {MN_BAD_REQUEST, MEMORY(E ", \"at\": 0.5"), "at is the number 0.5"},
        {MN_BAD_REQUEST, MEMORY(E ", \"expires\": \"x\""), "expires is a string"},
        {MN_BAD_REQUEST, MEMORY(E ", \"if_absent\": 1"), "if_absent is the integer 1"},
        {MN_BAD_REQUEST, MEMORY(E ", \"if_version\": 1"), "if_version needs an id"},
        {MN_BAD_REQUEST, MEMORY(E ", \"id\": 1, \"if_version\": 1, \"if_absent\": true"), "exclude each other"},
        {MN_BAD_REQUEST, MEMORY(E ", \"supersedes\": 1"), "supersedes is the integer 1"},
        {MN_BAD_REQUEST, MEMORY(E ", \"supersedes\": [null]"), "entry 0: supersedes is nil"},
        {MN_BAD_REQUEST, "{\"op\": \"remember\", \"space\": \"\", \"memories\": [{" E "}]}", "1 to 128 bytes"},
        {MN_BAD_REQUEST, "{\"op\": \"remember\", \"space\": null, \"memories\": [{" E "}]}", "space is nil"},
        {MN_BAD_REQUEST, "{\"op\": \"remember\", \"space\": \"long:129\", \"memories\": [{" E "}]}", "1 to 128 bytes"},
        {MN_BAD_REQUEST, "{\"op\": \"remember\", \"idem\": \"long:65\", \"memories\": [{" E "}]}", "1 to 64 bytes"},
        {MN_BAD_REQUEST, "{\"op\": \"remember\", \"idem\": \"\", \"memories\": [{" E "}]}", "1 to 64 bytes"},
        {MN_BAD_REQUEST, "{\"op\": \"remember\", \"ack\": \"maybe\", \"memories\": [{" E "}]}",
         "\"durable\" or \"accepted\""},
    };
    refused(rows, MN_ARRAY_LEN(rows));
}

/* {"op": "remember", "memories": [m, m, ...]} */
static enum mn_status decode_many(const char *memory, unsigned count)
{
    size_t length = strlen(memory);
    char *text = malloc(count * (length + 1) + 64), *at = text;
    at += sprintf(at, "{\"op\": \"remember\", \"memories\": [");
    for (unsigned i = 0; i < count; i++)
        at += sprintf(at, "%s%s", i ? "," : "", memory);
    strcpy(at, "]}");
    enum mn_status status = decode(text);
    free(text);
    return status;
}

static void remember_limits(void **state)
{
    assert_int_equal(decode_many("{" E "}", 4096), MN_OK);
    assert_int_equal(decode_many("{" E "}", 4097), MN_TOO_LARGE);
    assert_int_equal(decode_many("{" E ", \"content\": \"long:1048576\"}", 15), MN_OK);
    assert_int_equal(decode_many("{" E ", \"content\": \"long:1048576\"}", 17), MN_TOO_LARGE);
}

static uint64_t hash_of(const char *text)
{
    good(text);
    return out.remember.write.request_hash;
}

static void what_makes_a_request_the_same(void **state)
{
    uint64_t hash = hash_of("{\"op\": \"remember\", \"idem\": \"k\", \"space\": \"s\", \"memories\": [{" E "}]}");
    assert_true(hash ==
                hash_of("{\"op\": \"remember\", \"rid\": 5, \"deadline_ms\": 9, \"idem\": \"other\", \"memories\": [{" E
                        "}], \"space\": \"s\"}"));
    assert_true(hash != hash_of("{\"op\": \"remember\", \"idem\": \"k\", \"space\": \"t\", \"memories\": [{" E "}]}"));
    assert_true(hash != hash_of("{\"op\": \"remember\", \"idem\": \"k\", \"space\": \"s\", \"memories\": [{" E
                                ", \"at\": 1}]}"));
}

/* ---- revise, forget */

static void revise_takes_and_removes(void **state)
{
    good("{\"op\": \"revise\", \"id\": 1, \"if_version\": 2, \"set\": {\"confidence\": 0, \"tags\": [\"t\"], \"at\": "
         "5}}");
    assert_true(out.revise.set_confidence && out.revise.set_tags && out.revise.set_at);
    assert_false(out.revise.set_content || out.revise.set_meta || out.revise.set_expires);
    assert_true(out.revise.has_if_version && out.revise.if_version == 2 && out.revise.set.at == 5);
    good("{\"op\": \"revise\", \"id\": 1, \"set\": {\"content\": null, \"meta\": null, \"tags\": null, \"expires\": "
         "null}}");
    assert_true(out.revise.set_content && !out.revise.set.content.data);
    assert_true(out.revise.set_meta && out.revise.set.meta.length == 0);
    assert_true(out.revise.set_tags && out.revise.set.tag_count == 0);
    assert_true(out.revise.set_expires && out.revise.set.expires == MN_NEVER);
}

static void forget_says_what(void **state)
{
    good("{\"op\": \"forget\", \"ids\": [1, \"123e4567-e89b-12d3-a456-426614174000\"], \"mode\": \"purge\", "
         "\"if_version\": 4}");
    assert_true(!out.forget.selects && out.forget.forget.id_count == 2 && out.forget.forget.mode == MN_FORGET_PURGE);
    assert_true(out.forget.forget.has_if_version && out.forget.forget.if_version == 4);
    good("{\"op\": \"forget\", \"all\": true, \"space\": \"s\"}");
    assert_true(out.forget.selects && out.forget.forget.mode == MN_FORGET_DELETE);
    assert_str(out.forget.scope.spaces[0], "s");
    good("{\"op\": \"forget\", \"filter\": {\"tags_any\": [\"a\"]}, \"mode\": \"suppress\", \"all\": false}");
    assert_true(out.forget.selects && out.forget.scope.filter.tags_any_count == 1);
}

static void revise_and_forget_refusals(void **state)
{
    static const struct refusal rows[] = {
        {MN_BAD_REQUEST, "{\"op\": \"revise\", \"set\": {\"at\": 1}}", "id is missing"},
        {MN_BAD_REQUEST, "{\"op\": \"revise\", \"id\": 1}", "set is missing"},
        {MN_BAD_REQUEST, "{\"op\": \"revise\", \"id\": 1, \"set\": {}}", "set is empty"},
        {MN_BAD_REQUEST, "{\"op\": \"revise\", \"id\": 1, \"set\": \"content\"}", "set is a string"},
        {MN_BAD_REQUEST, "{\"op\": \"revise\", \"id\": 1, \"set\": {\"embedding\": [1]}}", "no key \"embedding\""},
        {MN_BAD_VALUE, "{\"op\": \"revise\", \"id\": 1, \"set\": {\"confidence\": 1.5}}", "from 0 to 1"},
        {MN_BAD_REQUEST, "{\"op\": \"revise\", \"id\": 1, \"set\": {\"confidence\": null}}", "confidence is nil"},
        {MN_BAD_REQUEST, "{\"op\": \"revise\", \"id\": 1, \"set\": {\"meta\": [1]}}", "meta is an array"},
        {MN_BAD_REQUEST, "{\"op\": \"revise\", \"id\": 1, \"set\": {\"at\": 1}, \"if_version\": \"x\"}",
         "if_version is a string"},
        {MN_BAD_REQUEST, "{\"op\": \"forget\"}", "0 of ids, filter and all"},
        {MN_BAD_REQUEST, "{\"op\": \"forget\", \"all\": false}", "0 of ids, filter and all"},
        {MN_BAD_REQUEST, "{\"op\": \"forget\", \"ids\": [1], \"all\": true}", "2 of ids, filter and all"},
        {MN_BAD_REQUEST, "{\"op\": \"forget\", \"ids\": []}", "ids is empty"},
        {MN_BAD_REQUEST, "{\"op\": \"forget\", \"ids\": 1}", "ids is the integer 1"},
        {MN_BAD_REQUEST, "{\"op\": \"forget\", \"filter\": {}}", "filter has no condition"},
        {MN_BAD_REQUEST, "{\"op\": \"forget\", \"filter\": {\"tags_none\": []}}", "filter has no condition"},
        {MN_BAD_REQUEST, "{\"op\": \"forget\", \"filter\": {\"tag_any\": [\"a\"]}}", "no key \"tag_any\""},
        {MN_BAD_REQUEST, "{\"op\": \"forget\", \"all\": true, \"if_version\": 1}", "if_version goes with ids"},
        {MN_BAD_REQUEST, "{\"op\": \"forget\", \"ids\": [1], \"mode\": \"erase\"}", "\"purge\""},
        {MN_BAD_REQUEST, "{\"op\": \"forget\", \"ids\": [1], \"mode\": 1}", "mode is the integer 1"},
    };
    refused(rows, MN_ARRAY_LEN(rows));
}

/* ---- recall */

#define RECALL(more) "{\"op\": \"recall\", " E more "}"

static void recall_takes_everything(void **state)
{
    good(RECALL(", \"space\": [\"a\", \"b\"], \"k\": 3, \"after\": -1, \"before\": 9, \"min_confidence\": 1, "
                "\"min_score\": -2, "
                "\"target\": 1, \"exact\": true, \"rank\": {\"half_life_s\": 5, \"now\": 6, \"confidence_weight\": 1, "
                "\"floor\": 0.5}, \"context\": 2, \"as_of\": 0, \"min_seq\": 8, \"fields\": [\"embedding\", \"at\"]"));
    const struct mn_query *q = &out.recall.query;
    assert_true(q->scope.space_count == 2 && !q->scope.all_spaces && out.recall.want.space);
    assert_true(q->k == 3 && q->exact && q->target == 1.0 && q->has_min_score && q->min_score == -2);
    assert_true(q->scope.after == -1 && q->scope.has_before && q->scope.before == 9 && q->scope.min_confidence == 1);
    assert_true(q->rank.on && q->rank.half_life_s == 5 && q->rank.now == 6 && q->rank.confidence_weight == 1 &&
                q->rank.floor == 0.5);
    assert_true(out.recall.context == 2 && out.recall.moment.has_as_of && out.recall.moment.min_seq == 8);
    assert_int_equal(out.recall.want.fields, MN_FIELD_BIT(MN_FIELD_EMBEDDING) | MN_FIELD_BIT(MN_FIELD_AT));
    assert_true(out.recall.count == 1 && !out.recall.batch && out.recall.embeddings[3] == 4);
    assert_int_equal((uintptr_t)out.recall.embeddings % 64, 0);
}

static void recall_defaults(void **state)
{
    good(RECALL(""));
    const struct mn_query *q = &out.recall.query;
    assert_true(q->k == 10 && !q->exact && q->target == 0.95 && !q->has_min_score && !q->rank.on && !q->has_exclude);
    assert_true(q->scope.after == INT64_MIN && !q->scope.has_before && q->scope.min_confidence == 0);
    assert_true(!out.recall.moment.has_as_of && out.recall.moment.min_seq == 0 && out.recall.context == 0);
    assert_int_equal(out.recall.want.fields, MN_FIELDS_DEFAULT);
    assert_false(out.recall.want.space);
    assert_str(q->scope.spaces[0], "default");
    good(RECALL(", \"space\": null, \"rank\": {}"));
    assert_true(q->scope.all_spaces && out.recall.want.space && q->rank.on && q->rank.now == NOW);
    assert_true(q->rank.half_life_s <= 0);
}

static void recall_of_many_and_like(void **state)
{
    static const char *const forms[] = {
        "{\"op\": \"recall\", \"embeddings\": \"f32:1,2,3,4,5,6,7,8\"}",
        "{\"op\": \"recall\", \"embeddings\": [\"f32:1,2,3,4\", \"f32:5,6,7,8\"]}",
        "{\"op\": \"recall\", \"embeddings\": [[1, 2, 3, 4], [5, 6, 7, 8.0]]}",
    };
    for (size_t i = 0; i < MN_ARRAY_LEN(forms); i++) {
        good(forms[i]);
        assert_true(out.recall.batch && out.recall.count == 2);
        assert_true(out.recall.embeddings[0] == 1 && out.recall.embeddings[out.recall.stride + 3] == 8);
    }
    good("{\"op\": \"recall\", \"like\": 5, \"space\": [\"a\", \"b\"]}");
    assert_true(out.recall.has_like && out.recall.like.lo == 5 && out.recall.query.has_exclude);
    assert_str(out.recall.like_space, "a");
    assert_str(out.recall.query.exclude_space, "a");
}

static void filters(void **state)
{
    good(RECALL(", \"filter\": {\"tags_any\": [\"a\"], \"tags_all\": [\"b\", \"c\"], \"tags_none\": [], \"ids\": [1], "
                "\"meta\": [{\"key\": \"x.y\", \"in\": [1, \"s\"]}, {\"key\": \"z\", \"exists\": false}, "
                "{\"key\": \"n\", \"gte\": 1.5}]}"));
    const struct mn_filter *f = &out.recall.query.scope.filter;
    assert_true(f->has_tags_any && f->tags_any_count == 1 && f->tags_all_count == 2 && f->tags_none_count == 0);
    assert_true(f->has_ids && f->id_count == 1 && f->where_count == 3);
    assert_true(f->where[0].op == MN_WHERE_IN && f->where[0].value_count == 2);
    assert_str(f->where[0].key, "x.y");
    assert_true(f->where[1].op == MN_WHERE_EXISTS && !f->where[1].exists);
    assert_true(f->where[2].op == MN_WHERE_GTE && f->where[2].value_count == 1);
    good(RECALL(", \"filter\": {\"tags_any\": [], \"ids\": [], \"meta\": [{\"key\": \"n\", \"in\": []}]}"));
    assert_true(f->has_tags_any && f->tags_any_count == 0 && f->has_ids && f->id_count == 0);
    assert_true(f->where[0].value_count == 0);
}

static void recall_refusals(void **state)
{
    static const struct refusal rows[] = {
        {MN_BAD_REQUEST, "{\"op\": \"recall\"}", "0 of embedding, embeddings and like"},
        {MN_BAD_REQUEST, RECALL(", \"like\": 1"), "2 of embedding, embeddings and like"},
        {MN_BAD_REQUEST, "{\"op\": \"recall\", \"like\": \"x\"}", "like is a string"},
        {MN_BAD_REQUEST, "{\"op\": \"recall\", \"like\": 1, \"space\": null}", "like needs a space"},
        {MN_BAD_VALUE, "{\"op\": \"recall\", \"embedding\": \"f32:nan,1,1,1\"}", "NaN or infinity"},
        {MN_BAD_VALUE, "{\"op\": \"recall\", \"embedding\": [1, 1e300, 1, 1]}", "NaN or infinity"},
        {MN_BAD_VALUE, "{\"op\": \"recall\", \"embedding\": [0, 0, 0, 0]}", "zero vector"},
        {MN_BAD_DIM, "{\"op\": \"recall\", \"embedding\": \"f32:1,2,3\"}", "12 bytes"},
        {MN_BAD_REQUEST, "{\"op\": \"recall\", \"embeddings\": []}", "embeddings is empty"},
        {MN_BAD_REQUEST, "{\"op\": \"recall\", \"embeddings\": \"bin:\"}", "embeddings is empty"},
        {MN_BAD_DIM, "{\"op\": \"recall\", \"embeddings\": \"f32:1,2,3,4,5\"}", "multiple of 16"},
        {MN_BAD_REQUEST, "{\"op\": \"recall\", \"embeddings\": 1}", "embeddings is the integer 1"},
        {MN_BAD_VALUE, "{\"op\": \"recall\", \"embeddings\": [[1, 2, 3, 4], [0, 0, 0, 0]]}", "embeddings[1]"},
        {MN_BAD_DIM, "{\"op\": \"recall\", \"embeddings\": [[1, 2, 3]]}", "embeddings[0]"},
        {MN_BAD_REQUEST, RECALL(", \"k\": 0"), "k is the integer 0; it must be an integer from 1 to 10000"},
        {MN_BAD_REQUEST, RECALL(", \"k\": 10001"), "from 1 to 10000"},
        {MN_BAD_REQUEST, RECALL(", \"k\": 1.5"), "k is the number 1.5"},
        {MN_BAD_REQUEST, RECALL(", \"space\": []"), "space is an empty array"},
        {MN_BAD_REQUEST, RECALL(", \"space\": [\"\"]"), "1 to 128 bytes"},
        {MN_BAD_REQUEST, RECALL(", \"space\": 7"), "space is the integer 7"},
        {MN_BAD_REQUEST, RECALL(", \"after\": \"x\""), "after is a string"},
        {MN_BAD_REQUEST, RECALL(", \"before\": 1.0"), "before is the number 1"},
        {MN_BAD_VALUE, RECALL(", \"min_confidence\": 2"), "from 0 to 1"},
        {MN_BAD_REQUEST, RECALL(", \"min_score\": \"x\""), "min_score is a string"},
        {MN_BAD_REQUEST, RECALL(", \"target\": 0"), "above 0"},
        {MN_BAD_REQUEST, RECALL(", \"target\": 1.1"), "at most 1"},
        {MN_BAD_REQUEST, RECALL(", \"exact\": 1"), "exact is the integer 1"},
        {MN_BAD_REQUEST, RECALL(", \"rank\": []"), "rank is an array"},
        {MN_BAD_REQUEST, RECALL(", \"rank\": {\"half_life\": 1}"), "no key \"half_life\""},
        {MN_BAD_REQUEST, RECALL(", \"rank\": {\"half_life_s\": 0}"), "above 0"},
        {MN_BAD_REQUEST, RECALL(", \"rank\": {\"floor\": 2}"), "rank.floor is 2"},
        {MN_BAD_REQUEST, RECALL(", \"rank\": {\"confidence_weight\": -0.1}"), "rank.confidence_weight is -0.1"},
        {MN_BAD_REQUEST, RECALL(", \"rank\": {\"now\": 1.5}"), "rank.now is the number 1.5"},
        {MN_BAD_REQUEST, RECALL(", \"context\": -1"), "context is the integer -1"},
        {MN_BAD_REQUEST, RECALL(", \"as_of\": \"x\""), "as_of is a string"},
        {MN_BAD_REQUEST, RECALL(", \"min_seq\": -1"), "min_seq is the integer -1"},
        {MN_BAD_REQUEST, RECALL(", \"fields\": \"content\""), "fields is a string"},
        {MN_BAD_REQUEST, RECALL(", \"fields\": [\"contents\"]"), "one of content, meta"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": []"), "filter is an array"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"tag\": [\"a\"]}"), "no key \"tag\""},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"tags_any\": \"a\"}"), "filter.tags_any is a string"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"tags_any\": [1]}"), "filter.tags_any is the integer 1"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"ids\": 1}"), "filter.ids is the integer 1"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"meta\": {}}"), "filter.meta is a map"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"meta\": [1]}"), "filter.meta[0]: a condition is the integer 1"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"meta\": [{\"eq\": 1}]}"), "key is missing"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"meta\": [{\"key\": \"a\"}]}"), "has 0 tests"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"meta\": [{\"key\": \"a\", \"eq\": 1, \"gt\": 0}]}"), "has 2 tests"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"meta\": [{\"key\": \"a\", \"equals\": 1}]}"), "no key \"equals\""},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"meta\": [{\"key\": \"a\", \"in\": 1}]}"), "in is the integer 1"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"meta\": [{\"key\": \"a\", \"exists\": 1}]}"),
         "exists is the integer 1"},
        {MN_BAD_REQUEST, RECALL(", \"filter\": {\"meta\": [{\"key\": \"a\", \"eq\": \"ext:1\"}]}"), "extension type"},
    };
    refused(rows, MN_ARRAY_LEN(rows));
}

static void the_metric_matters(void **state)
{
    decoder.metric = MN_METRIC_IP;
    good("{\"op\": \"recall\", \"embedding\": [0, 0, 0, 0]}");
    assert_int_equal(decode(RECALL(", \"rank\": {}")), MN_BAD_REQUEST);
    assert_non_null(strstr(mn_error_text(), "cosine"));
    decoder.metric = MN_METRIC_COSINE;
}

/* ---- get, list, count */

static void reads(void **state)
{
    good("{\"op\": \"get\", \"ids\": [3, 1], \"fields\": []}");
    assert_true(out.get.count == 2 && out.get.ids[0].lo == 3 && out.get.want.fields == 0);
    good("{\"op\": \"list\"}");
    assert_true(out.list.newest_first && out.list.limit == 100 && !out.list.cursor.set);
    good("{\"op\": \"list\", \"order\": \"oldest\", \"limit\": 10000}");
    assert_true(!out.list.newest_first && out.list.limit == 10000);
    good("{\"op\": \"count\", \"space\": null, \"min_confidence\": 0.5}");
    assert_true(out.scope.all_spaces && out.scope.min_confidence == 0.5f);
    static const struct refusal rows[] = {
        {MN_BAD_REQUEST, "{\"op\": \"get\"}", "ids is missing"},
        {MN_BAD_REQUEST, "{\"op\": \"get\", \"ids\": []}", "ids is empty"},
        {MN_BAD_REQUEST, "{\"op\": \"get\", \"ids\": [null]}", "entry 0: ids is nil"},
        {MN_BAD_REQUEST, "{\"op\": \"get\", \"ids\": [1], \"space\": [\"a\"]}", "space is an array"},
        {MN_BAD_REQUEST, "{\"op\": \"list\", \"limit\": 0}", "limit is the integer 0"},
        {MN_BAD_REQUEST, "{\"op\": \"list\", \"limit\": 10001}", "from 1 to 10000"},
        {MN_BAD_REQUEST, "{\"op\": \"list\", \"order\": \"sideways\"}", "\"newest\" or \"oldest\""},
        {MN_BAD_REQUEST, "{\"op\": \"list\", \"cursor\": \"\"}", "cursor is a string of 0"},
        {MN_BAD_REQUEST, "{\"op\": \"list\", \"cursor\": \"nonsense\"}", "not one that a list has given"},
        {MN_BAD_REQUEST, "{\"op\": \"list\", \"cursor\": \"bin:abc\"}", "cursor is a bin"},
        {MN_BAD_REQUEST, "{\"op\": \"list\", \"cursor\": \"long:10000\"}", "not one that a list has given"},
        {MN_BAD_REQUEST, "{\"op\": \"count\", \"filter\": 1}", "filter is the integer 1"},
    };
    refused(rows, MN_ARRAY_LEN(rows));
}

static void cursors(void **state)
{
    struct mn_cursor cursor = {.set = true, .at = INT64_MIN, .id = {.hi = 1, .lo = UINT64_MAX, .kind = MN_ID_UUID}},
                     read;
    char text[MN_WIRE_CURSOR_MAX];
    for (uint32_t length = 1; length <= MN_SPACE_BYTES_MAX; length++) {
        memset(cursor.space, (int)length, length);
        cursor.space_length = length;
        struct mn_str s = {text, mn_wire_cursor_write(&cursor, true, text)};
        assert_int_equal(mn_wire_cursor_read(s, true, &read), MN_OK);
        assert_true(read.set && read.at == cursor.at && mn_id_equal(&read.id, &cursor.id));
        assert_int_equal(read.space_length, length);
        assert_memory_equal(read.space, cursor.space, length);
        assert_int_equal(mn_wire_cursor_read(s, false, &read), MN_BAD_REQUEST);
        for (uint32_t i = 0; i + 1 < s.length; i++) {
            char was = text[i];
            text[i] = was == 'A' ? 'B' : 'A';
            assert_int_equal(mn_wire_cursor_read(s, true, &read), MN_BAD_REQUEST);
            text[i] = was;
        }
    }
}

/* ---- damage */

/* Sound requests with a few bytes changed: any status will do, no sanitizer may complain. */
static void damaged_requests(void **state)
{
    static const char *const sound[] = {
        "{\"op\": \"remember\", \"space\": \"s\", \"idem\": \"key\", \"memories\": [{\"id\": 7, " E
        ", \"content\": \"c\", \"meta\": {\"a\": [1, {\"b\": null}]}, \"tags\": [\"t\", \"u\"], \"supersedes\": [1, "
        "2]}]}",
        "{\"op\": \"revise\", \"id\": 1, \"set\": {\"confidence\": 0, \"tags\": [\"t\"], \"meta\": {\"a\": 1.5}}}",
        "{\"op\": \"forget\", \"filter\": {\"tags_any\": [\"a\"], \"meta\": [{\"key\": \"x\", \"in\": [1, \"s\"]}]}}",
        RECALL(", \"space\": [\"a\", \"b\"], \"filter\": {\"ids\": [1]}, \"rank\": {\"floor\": 0.5}, \"fields\": "
               "[\"at\"]"),
        "{\"op\": \"recall\", \"embeddings\": [[1, 2, 3, 4], [5, 6, 7, 8.0]]}",
        "{\"op\": \"list\", \"order\": \"oldest\", \"limit\": 5, \"cursor\": \"AAAA\"}"};
    srand(2);
    for (int round = 0; round < 60000; round++) {
        wire_text_pack(&frame, sound[round % (int)MN_ARRAY_LEN(sound)]);
        uint8_t *copy = malloc(frame.size);
        memcpy(copy, frame.data, frame.size);
        for (int change = rand() % 3; change >= 0; change--)
            copy[(size_t)rand() % frame.size] = (uint8_t)(rand() >> 7);
        unsigned service = round % 6 < 3 ? MN_SERVICE_WRITE : MN_SERVICE_RECALL;
        if (mn_wire_open(&request, copy, frame.size, service) == MN_OK && decode_opened() == MN_OK)
            assert_true(request.body.type == MN_WIRE_MAP);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(remember_takes_everything),
                                       cmocka_unit_test(remember_defaults),
                                       cmocka_unit_test(remember_refusals),
                                       cmocka_unit_test(remember_limits),
                                       cmocka_unit_test(what_makes_a_request_the_same),
                                       cmocka_unit_test(revise_takes_and_removes),
                                       cmocka_unit_test(forget_says_what),
                                       cmocka_unit_test(revise_and_forget_refusals),
                                       cmocka_unit_test(recall_takes_everything),
                                       cmocka_unit_test(recall_defaults),
                                       cmocka_unit_test(recall_of_many_and_like),
                                       cmocka_unit_test(filters),
                                       cmocka_unit_test(recall_refusals),
                                       cmocka_unit_test(the_metric_matters),
                                       cmocka_unit_test(reads),
                                       cmocka_unit_test(cursors),
                                       cmocka_unit_test(damaged_requests)};
    msgpack_sbuffer_init(&frame);
    mn_decoder_init(&decoder, DIM, MN_METRIC_COSINE);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mn_decoder_free(&decoder);
    msgpack_sbuffer_destroy(&frame);
    return failed;
}
