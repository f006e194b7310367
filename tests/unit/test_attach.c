/*
 * test_attach.c - attach in odd states: no store, no instance, another build, no slot, a fork, a restart; questions
 * that must be refused; and what answers hold, against the engine itself.
 */
#include "tests/unit/store_fixture.h"

#include <math.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clients/c/mneme.h"
#include "engine/meta.h"
#include "engine/recall.h"
#include "shm/process.h"

#define SPACE "default"

/* What the supervisor does once the instance is laid out. */
static void note_instance(const struct fixture *f)
{
    char path[128];
    snprintf(path, sizeof path, "%s/run", f->dir);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/run/instance", f->dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "%s\n", f->instance.path);
    fclose(file);
}

static struct fixture *served(uint64_t rows)
{
    struct fixture *f = fixture_new();
    note_instance(f);
    for (uint64_t id = 1; id <= rows; id++) {
        char content[32];
        snprintf(content, sizeof content, "content %llu", (unsigned long long)id);
        fixture_put(f, SPACE, id, id, content);
    }
    if (rows > 0)
        fixture_commit(f);
    return f;
}

static struct mneme_attached *attached_to(const struct fixture *f)
{
    struct mneme_attached *a;
    if (mneme_attach(&a, f->dir, 0) != MNEME_OK)
        fail_msg("%s", mneme_open_error());
    return a;
}

static void refuses(enum mneme_code code, struct mneme_attached *a, const struct mneme_query *query)
{
    struct mneme_answer answer;
    memset(&answer, 1, sizeof answer);
    assert_string_equal(mneme_code_word(mneme_attached_recall(a, query, &answer)), mneme_code_word(code));
    assert_true(mneme_attached_error(a)[0] != 0);
    assert_null(answer.results);
    assert_int_equal(answer.count, 0);
}

static struct mneme_answer asked(struct mneme_attached *a, const struct mneme_query *query)
{
    struct mneme_answer answer;
    if (mneme_attached_recall(a, query, &answer) != MNEME_OK)
        fail_msg("%s", mneme_attached_error(a));
    assert_string_equal(mneme_attached_error(a), "");
    return answer;
}

/* ---- attaching ---- */

static void there_must_be_a_store_that_is_served(void **state)
{
    struct mneme_attached *a = (void *)1;
    struct fixture *f = fixture_new();
    assert_int_equal(mneme_attach(&a, "/nonexistent", 0), MNEME_UNAVAILABLE);
    assert_null(a);
    assert_int_equal(mneme_attach(&a, "/tmp", 10), MNEME_UNAVAILABLE);
    assert_int_equal(mneme_attach(&a, f->dir, 0), MNEME_UNAVAILABLE); /* a store, and no note of an instance */
    assert_non_null(strstr(mneme_open_error(), "no store is served"));
    note_instance(f);
    assert_int_equal(mneme_attach(&a, f->dir, 0), MNEME_OK);
    assert_int_equal(mneme_attached_dim(a), FIXTURE_DIM);
    assert_string_equal(mneme_attached_metric(a), "ip");
    assert_int_equal(strlen(mneme_attached_uuid(a)), 36);
    mneme_detach(a);
    mneme_detach(NULL);
    fixture_free(f);
}

static void before_the_first_view_it_is_not_ready(void **state)
{
    struct mneme_attached *a;
    struct fixture *f = fixture_prepare();
    fixture_open_instance(f);
    note_instance(f);
    assert_int_equal(mneme_attach(&a, f->dir, 5), MNEME_UNAVAILABLE);
    assert_non_null(strstr(mneme_open_error(), "starting"));
    ok(fixture_recover(f));
    mneme_detach(attached_to(f));
    fixture_free(f);
}

static void another_build_or_another_store_is_refused(void **state)
{
    struct mneme_attached *a;
    struct fixture *f = served(1);
    f->instance.control_segment.header->fingerprint ^= 1;
    assert_int_equal(mneme_attach(&a, f->dir, 0), MNEME_CORRUPT);
    assert_non_null(strstr(mneme_open_error(), "another build"));
    f->instance.control_segment.header->fingerprint ^= 1;
    f->instance.control->store_uuid[0] ^= 1;
    assert_int_equal(mneme_attach(&a, f->dir, 0), MNEME_UNAVAILABLE);
    f->instance.control->store_uuid[0] ^= 1;
    f->instance.control->dim ^= 1;
    assert_int_equal(mneme_attach(&a, f->dir, 0), MNEME_UNAVAILABLE);
    f->instance.control->dim ^= 1;
    f->instance.control_segment.header->boot_id[0] ^= 1;
    assert_int_equal(mneme_attach(&a, f->dir, 0), MNEME_CORRUPT);
    f->instance.control_segment.header->boot_id[0] ^= 1;
    mneme_detach(attached_to(f));
    fixture_free(f);
}

static void slots_run_out_and_come_back(void **state)
{
    struct fixture *f = served(1);
    struct mneme_attached *many[64], *one_more;
    uint32_t count = 0, used;
    uint64_t age;
    enum mneme_code code;
    while ((code = mneme_attach(&many[count], f->dir, 0)) == MNEME_OK)
        assert_true(++count < 64);
    assert_int_equal(code, MNEME_BUSY);
    mneme_attached_release(many[0]); /* its slot is free until its next call */
    assert_int_equal(mneme_attach(&one_more, f->dir, 0), MNEME_OK);
    refuses(MNEME_BUSY, many[0], &(struct mneme_query){.embeddings = fixture_vector(1)});
    mneme_detach(one_more);
    assert_int_equal(asked(many[0], &(struct mneme_query){.embeddings = fixture_vector(1)}).results[0].count, 1);
    while (count > 0)
        mneme_detach(many[--count]);
    mn_epoch_usage(&f->instance.epoch, mn_clock_ns(), &used, &age);
    assert_int_equal(used, 0);
    fixture_free(f);
}

static void nothing_is_pinned_between_calls(void **state)
{
    struct fixture *f = served(3);
    struct mneme_attached *a = attached_to(f);
    struct mneme_answer answer = asked(a, &(struct mneme_query){.embeddings = fixture_vector(2), .k = 1});
    const struct mneme_found *hit = &answer.results[0].hit[0].memory;
    assert_true(mn_epoch_oldest(&f->instance.epoch, mn_clock_ns(), 0) == UINT64_MAX);
    /* What the answer points at stays while the store moves on. */
    for (uint64_t id = 1; id <= 50; id++) {
        fixture_put(f, SPACE, id, id, "something else");
        fixture_commit(f);
    }
    uint64_t sealed;
    ok(mn_writer_seal(f->writer, &sealed));
    assert_memory_equal(hit->content, "content ", 8);
    refuses(MNEME_BAD_REQUEST, a, &(struct mneme_query){.embeddings = fixture_vector(2), .k = 10001});
    assert_true(mn_epoch_oldest(&f->instance.epoch, mn_clock_ns(), 0) == UINT64_MAX);
    mneme_detach(a);
    fixture_free(f);
}

static void a_forked_child_is_refused_and_harms_nothing(void **state)
{
    struct fixture *f = served(3);
    struct mneme_attached *a = attached_to(f);
    pid_t child = fork();
    if (child == 0) {
        struct mneme_answer answer;
        struct mneme_query query = {.embeddings = fixture_vector(1)};
        bool refused = mneme_attached_recall(a, &query, &answer) == MNEME_BAD_REQUEST;
        mneme_attached_release(a);
        mneme_detach(a);
        _exit(refused ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    uint32_t used;
    uint64_t age;
    mn_epoch_usage(&f->instance.epoch, mn_clock_ns(), &used, &age);
    assert_int_equal(used, 1);
    assert_int_equal(asked(a, &(struct mneme_query){.embeddings = fixture_vector(1)}).results[0].count, 3);
    mneme_detach(a);
    fixture_free(f);
}

static void it_moves_to_the_next_instance(void **state)
{
    struct fixture *f = served(3);
    struct mneme_attached *a = attached_to(f);
    struct mneme_query query = {.embeddings = fixture_vector(1)};
    fixture_power_cut(f);
    refuses(MNEME_UNAVAILABLE, a, &query);
    fixture_start(f);
    refuses(MNEME_UNAVAILABLE, a, &query); /* the note still names the one that is gone */
    note_instance(f);
    assert_int_equal(asked(a, &query).results[0].count, 3);
    fixture_put(f, SPACE, 4, 4, "x");
    fixture_commit(f);
    assert_int_equal(asked(a, &query).results[0].count, 4);
    mneme_detach(a);
    fixture_free(f);
}

static void a_slot_that_was_taken_away_is_claimed_anew(void **state)
{
    struct fixture *f = served(3);
    struct mneme_attached *a = attached_to(f);
    assert_int_equal(mn_epoch_reap(&f->instance.epoch, (uint32_t)getpid()), 1);
    assert_int_equal(asked(a, &(struct mneme_query){.embeddings = fixture_vector(1)}).results[0].count, 3);
    mneme_detach(a);
    fixture_free(f);
}

/* ---- asking ---- */

static void bad_questions_are_refused(void **state)
{
    struct fixture *f = served(3);
    struct mneme_attached *a = attached_to(f);
    float bad[FIXTURE_DIM] = {[3] = NAN};
    const float *good = fixture_vector(1);
    char long_name[200];
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;
    const char *names[] = {long_name}, *empty[] = {""};
    struct mneme_condition odd = {.key = "k", .comparison = MNEME_EQ, .value = "\xc1", .value_size = 1};
    struct mneme_condition two = {.key = "k", .comparison = MNEME_EQ, .value = "\x01\x01", .value_size = 2};
    struct mneme_condition exists = {.key = "k", .comparison = MNEME_EXISTS_IS, .value = "\x01", .value_size = 1};
    struct mneme_condition in = {.key = "k", .comparison = MNEME_IN, .value = "\x01", .value_size = 1};
    struct mneme_condition extension = {.key = "k", .comparison = MNEME_EQ, .value = "\xd4\x01\x01", .value_size = 3};
    const struct mneme_condition *conditions[] = {&odd, &two, &exists, &in, &extension};
    for (size_t i = 0; i < MN_ARRAY_LEN(conditions); i++) {
        struct mneme_filter filter = {.meta = conditions[i], .meta_count = 1};
        refuses(MNEME_BAD_REQUEST, a, &(struct mneme_query){.embeddings = good, .where.filter = &filter});
    }
    struct mneme_id large = {.number = UINT64_MAX}, one = {.number = 1}, no_uuid = {.uuid = "x"};
    struct mneme_filter by_id = {.ids = &large, .id_count = 1};
    refuses(MNEME_BAD_REQUEST, a, &(struct mneme_query){.embeddings = good, .where.filter = &by_id});
    refuses(MNEME_BAD_REQUEST, a, &(struct mneme_query){0});
    refuses(MNEME_BAD_REQUEST, a, &(struct mneme_query){.embeddings = good, .like = &one});
    refuses(MNEME_BAD_REQUEST, a, &(struct mneme_query){.like = &one, .where.all = true});
    refuses(MNEME_BAD_REQUEST, a, &(struct mneme_query){.like = &no_uuid});
    refuses(MNEME_NOT_FOUND, a, &(struct mneme_query){.like = &(struct mneme_id){.number = 77}});
    refuses(MNEME_BAD_VALUE, a, &(struct mneme_query){.embeddings = bad});
    refuses(MNEME_BAD_REQUEST, a,
            &(struct mneme_query){.embeddings = good, .where = {.spaces = names, .space_count = 1}});
    refuses(MNEME_BAD_REQUEST, a,
            &(struct mneme_query){.embeddings = good, .where = {.spaces = empty, .space_count = 1}});
    refuses(MNEME_BAD_REQUEST, a, &(struct mneme_query){.embeddings = good, .target = &(double){0}});
    refuses(MNEME_BAD_REQUEST, a, &(struct mneme_query){.embeddings = good, .context = 1001});
    refuses(MNEME_BAD_REQUEST, a, &(struct mneme_query){.embeddings = good, .rank = &(struct mneme_rank){0}}); /* ip */
    refuses(MNEME_BAD_VALUE, a, &(struct mneme_query){.embeddings = good, .where.min_confidence = &(double){NAN}});
    refuses(MNEME_BAD_REQUEST, a,
            &(struct mneme_query){.embeddings = good, .fields = (const char *[]){"contents"}, .field_count = 1});
    refuses(MNEME_UNAVAILABLE, a, &(struct mneme_query){.embeddings = good, .as_of = &(uint64_t){1000}});
    refuses(MNEME_DEADLINE, a, &(struct mneme_query){.embeddings = good, .min_seq = &(uint64_t){1000}});
    struct mneme_memories memories;
    assert_int_equal(mneme_attached_get(a, NULL, &one, 0, NULL, 0, NULL, &memories), MNEME_BAD_REQUEST);
    assert_int_equal(mneme_attached_get(a, "", &one, 1, NULL, 0, NULL, &memories), MNEME_BAD_REQUEST);
    assert_int_equal(mneme_attached_get(a, NULL, &large, 1, NULL, 0, NULL, &memories), MNEME_BAD_REQUEST);
    assert_int_equal(memories.count, 0);
    assert_int_equal(asked(a, &(struct mneme_query){.embeddings = good}).results[0].count, 3); /* as if nothing was */
    mneme_detach(a);
    fixture_free(f);
}

static void answers_are_the_engines(void **state)
{
    struct fixture *f = served(300);
    struct mneme_attached *a = attached_to(f);
    struct mn_reader *reader;
    struct mn_search search;
    struct mn_snapshot snapshot;
    ok(mn_reader_open(&reader, &f->store, &f->instance));
    ok(mn_search_init(&search, f->store.metric, f->store.dim));
    struct mn_str space = text_str(SPACE);
    for (uint64_t n = 1; n <= 20; n++) {
        _Alignas(64) float vector[FIXTURE_DIM];
        memcpy(vector, fixture_vector(n * 1000), sizeof vector);
        struct mn_query query = {.scope = {.spaces = &space, .space_count = 1, .after = INT64_MIN},
                                 .embedding = vector,
                                 .k = 10,
                                 .target = .95};
        ok(mn_reader_pin(reader, 0, &snapshot));
        ok(mn_recall_search(&search, &snapshot, &query));
        struct mneme_answer answer = asked(a, &(struct mneme_query){.embeddings = vector});
        assert_int_equal(answer.count, 1);
        assert_int_equal(answer.seq, snapshot.seq);
        assert_int_equal(answer.results[0].count, search.hit_count);
        for (uint32_t i = 0; i < search.hit_count; i++) {
            const struct mneme_found *found = &answer.results[0].hit[i].memory;
            assert_memory_equal(&found->score, &search.hits[i].score, sizeof found->score);
            assert_int_equal(found->id.number,
                             mn_part_id(&snapshot.parts[search.hits[i].part], search.hits[i].row)->lo);
        }
        mn_reader_unpin(reader);
    }
    mn_search_free(&search);
    mn_reader_close(reader);
    mneme_detach(a);
    fixture_free(f);
}

static void several_at_once_are_those_one_by_one(void **state)
{
    struct fixture *f = served(40);
    struct mneme_attached *a = attached_to(f), *b = attached_to(f);
    float vectors[3][FIXTURE_DIM];
    for (uint64_t i = 0; i < 3; i++)
        memcpy(vectors[i], fixture_vector(50 + i), sizeof vectors[i]);
    struct mneme_answer all =
        asked(a, &(struct mneme_query){.embeddings = vectors[0], .count = 3, .k = 4, .context = 2});
    assert_int_equal(all.count, 3);
    for (int i = 0; i < 3; i++) {
        struct mneme_answer one = asked(b, &(struct mneme_query){.embeddings = vectors[i], .k = 4});
        assert_int_equal(all.results[i].count, 4);
        for (int h = 0; h < 4; h++) {
            const struct mneme_hit *hit = &all.results[i].hit[h];
            assert_int_equal(hit->memory.id.number, one.results[0].hit[h].memory.id.number);
            assert_true(hit->memory.score == one.results[0].hit[h].memory.score);
            assert_true(hit->before_count <= 2 && hit->after_count <= 2 && hit->before_count + hit->after_count >= 2);
        }
    }
    mneme_detach(b);
    mneme_detach(a);
    fixture_free(f);
}

/* {"a": [nil, true, -5, 2^63, 1.5f, 2.5, "s", bin], "b": {"c": {}}} */
static struct mn_str some_meta(uint8_t *room, uint32_t size)
{
    struct mn_meta_writer w = {.data = room, .bytes_max = size};
    mn_meta_map_begin(&w, 2);
    mn_meta_key(&w, text_str("a"));
    mn_meta_array_begin(&w, 8);
    mn_meta_nil(&w);
    mn_meta_bool(&w, true);
    mn_meta_int(&w, -5);
    mn_meta_uint(&w, UINT64_C(1) << 63);
    mn_meta_f32(&w, 1.5f);
    mn_meta_f64(&w, 2.5);
    mn_meta_str(&w, text_str("s"));
    mn_meta_bin(&w, text_str("bin"));
    mn_meta_end(&w);
    mn_meta_key(&w, text_str("b"));
    mn_meta_map_begin(&w, 1);
    mn_meta_key(&w, text_str("c"));
    mn_meta_map_begin(&w, 0);
    mn_meta_end(&w);
    mn_meta_end(&w);
    mn_meta_end(&w);
    assert_true(!w.failed && w.depth == 0);
    return (struct mn_str){(const char *)room, w.bytes};
}

static void put_rich(struct fixture *f, const struct mn_id *id)
{
    uint8_t room[256];
    struct mn_str tags[] = {text_str("red"), text_str("blue")};
    struct mn_outcome outcome;
    struct mn_memory m = fixture_memory(0, 7, "rich");
    m.id = *id;
    m.has_id = true;
    m.meta = some_meta(room, sizeof room);
    m.tags = tags;
    m.tag_count = 2;
    m.confidence = .5f;
    m.at = 123;
    m.expires = INT64_MAX - 1;
    m.content_bin = true;
    struct mn_remember request = {.write = fixture_write(f, "other"), .memories = &m, .count = 1};
    ok(mn_writer_remember(f->writer, &request, &outcome));
    fixture_commit(f);
}

static void check_meta(struct mneme_value meta)
{
    struct mneme_value list = mneme_value_get(meta, "a");
    size_t size;
    assert_int_equal(mneme_value_length(list), 8);
    assert_int_equal(mneme_value_type(mneme_value_at(list, 0)), MNEME_TYPE_NIL);
    assert_true(mneme_value_bool(mneme_value_at(list, 1), false));
    assert_int_equal(mneme_value_i64(mneme_value_at(list, 2), 0), -5);
    assert_true(mneme_value_u64(mneme_value_at(list, 3), 0) == UINT64_C(1) << 63);
    assert_true(mneme_value_f64(mneme_value_at(list, 4), 0) == 1.5);
    assert_true(mneme_value_f64(mneme_value_at(list, 5), 0) == 2.5);
    assert_true(mneme_value_is(mneme_value_at(list, 6), "s"));
    assert_memory_equal(mneme_value_bytes(mneme_value_at(list, 7), &size), "bin", 3);
    assert_int_equal(mneme_value_type(mneme_value_at(list, 7)), MNEME_TYPE_BINARY);
    assert_int_equal(mneme_value_type(mneme_value_get(mneme_value_get(meta, "b"), "c")), MNEME_TYPE_MAP);
}

static void every_field_comes_as_it_was_given(void **state)
{
    struct fixture *f = served(1);
    struct mn_id uuid = uuid_id(0x0123456789abcdef, 0x8899aabbccddeeff);
    put_rich(f, &uuid);
    struct mneme_attached *a = attached_to(f);
    const char *fields[] = {"content", "meta", "tags", "at", "confidence", "embedding", "expires", "space"};
    struct mneme_id ids[] = {{.number = 5}, {.uuid = "01234567-89ab-cdef-8899-aabbccddeeff"}};
    struct mneme_memories found;
    assert_int_equal(mneme_attached_get(a, "other", ids, 2, fields, 8, NULL, &found), MNEME_OK);
    assert_int_equal(found.count, 2);
    assert_null(found.memory[0]);
    const struct mneme_found *m = found.memory[1];
    assert_string_equal(m->id.uuid, ids[1].uuid);
    assert_memory_equal(m->space, "other", m->space_size);
    assert_memory_equal(m->content, "rich", 4);
    assert_true(m->content_is_binary && m->content_size == 4 && m->at == 123 && m->expires == INT64_MAX - 1);
    assert_true(m->confidence == .5 && m->version == found.seq);
    assert_int_equal(m->embedding_size, FIXTURE_DIM * sizeof(float));
    assert_memory_equal(m->embedding, fixture_vector(7), m->embedding_size);
    assert_int_equal(mneme_value_length(m->tags), 2);
    check_meta(m->meta);
    /* No field but id and version. */
    assert_int_equal(mneme_attached_get(a, "other", ids + 1, 1, fields, 0, NULL, &found), MNEME_OK);
    m = found.memory[0];
    assert_true(!m->content && !m->space && !m->embedding && isnan(m->confidence) && m->at == INT64_MIN);
    assert_int_equal(mneme_value_type(m->meta), MNEME_TYPE_ABSENT);
    mneme_detach(a);
    fixture_free(f);
}

static void filters_see_meta(void **state)
{
    struct fixture *f = served(5);
    struct mn_id id = number_id(9);
    put_rich(f, &id);
    struct mneme_attached *a = attached_to(f);
    msgpack_sbuffer value;
    msgpack_packer p;
    msgpack_sbuffer_init(&value);
    msgpack_packer_init(&p, &value, msgpack_sbuffer_write);
    msgpack_pack_map(&p, 1);
    msgpack_pack_str(&p, 1);
    msgpack_pack_str_body(&p, "c", 1);
    msgpack_pack_map(&p, 0);
    struct mneme_condition is = {.key = "b", .comparison = MNEME_EQ, .value = value.data, .value_size = value.size};
    struct mneme_condition there = {.key = "b.c", .comparison = MNEME_EXISTS_IS, .value = "\xc3", .value_size = 1};
    struct mneme_condition absent = {.key = "b.c", .comparison = MNEME_EXISTS_IS, .value = "\xc2", .value_size = 1};
    const struct mneme_condition *conditions[] = {&is, &there, &absent};
    const size_t hits[] = {1, 1, 5};
    for (int i = 0; i < 3; i++) {
        struct mneme_filter filter = {.meta = conditions[i], .meta_count = 1};
        struct mneme_query query = {.embeddings = fixture_vector(1), .where = {.all = true, .filter = &filter}};
        struct mneme_answer answer = asked(a, &query);
        assert_int_equal(answer.results[0].count, hits[i]);
        assert_non_null(answer.results[0].hit[0].memory.space);
    }
    const char *tags[] = {"blue"};
    struct mneme_filter none = {.tags_any = tags, .tags_any_count = 0}, blue = {.tags_any = tags, .tags_any_count = 1};
    assert_int_equal(
        asked(a, &(struct mneme_query){.embeddings = fixture_vector(1), .where = {.all = true, .filter = &none}})
            .results[0]
            .count,
        0);
    assert_int_equal(
        asked(a, &(struct mneme_query){.embeddings = fixture_vector(1), .where = {.all = true, .filter = &blue}})
            .results[0]
            .count,
        1);
    msgpack_sbuffer_destroy(&value);
    mneme_detach(a);
    fixture_free(f);
}

static void history_can_be_read(void **state)
{
    struct fixture *f = served(10);
    struct mneme_attached *a = attached_to(f);
    for (uint64_t seq = 0; seq <= 10; seq++) {
        struct mneme_query query = {.embeddings = fixture_vector(1), .k = 20, .as_of = &seq, .min_seq = &seq};
        struct mneme_answer answer = asked(a, &query);
        assert_int_equal(answer.results[0].count, seq);
        assert_int_equal(answer.seq, seq);
    }
    atomic_store(&f->instance.control->oldest_seq, 3);
    refuses(MNEME_UNAVAILABLE, a, &(struct mneme_query){.embeddings = fixture_vector(1), .as_of = &(uint64_t){0}});
    refuses(MNEME_UNAVAILABLE, a, &(struct mneme_query){.embeddings = fixture_vector(1), .as_of = &(uint64_t){2}});
    mneme_detach(a);
    fixture_free(f);
}

static void answers_pack_as_replies(void **state)
{
    struct fixture *f = served(3);
    struct mneme_attached *a = attached_to(f);
    struct mneme_answer answer = asked(a, &(struct mneme_query){.embeddings = fixture_vector(1), .k = 2, .context = 1});
    const void *bytes;
    size_t size, at = 0;
    assert_int_equal(mneme_attached_pack_answer(a, &answer, &bytes, &size), MNEME_OK);
    msgpack_unpacked reply;
    msgpack_unpacked_init(&reply);
    assert_int_equal(msgpack_unpack_next(&reply, bytes, size, &at), MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(at, size);
    struct mneme_value hits = mneme_value_get((struct mneme_value){&reply.data}, "hits");
    assert_int_equal(mneme_value_length(hits), 2);
    for (size_t i = 0; i < 2; i++) {
        struct mneme_found found;
        assert_true(mneme_value_found(mneme_value_at(hits, i), &found));
        const struct mneme_found *m = &answer.results[0].hit[i].memory;
        assert_true(found.id.number == m->id.number && found.score == m->score && found.at == m->at);
        assert_memory_equal(found.content, m->content, m->content_size);
        assert_int_equal(mneme_value_length(mneme_value_get(mneme_value_at(hits, i), "after")),
                         answer.results[0].hit[i].after_count);
    }
    msgpack_unpacked_destroy(&reply);
    mneme_detach(a);
    fixture_free(f);
}

/* Of all that is mapped from the instance's folder and from the store, only the reader table may be written through
 * the handle's mappings: a child, which has no others, looks at its own. */
static void only_the_reader_table_is_writable(void **state)
{
    struct fixture *f = served(3);
    pid_t child = fork();
    if (child == 0) {
        char line[1024], permissions[8], path[512];
        uint32_t before = 0, writable = 0;
        FILE *maps = fopen("/proc/self/maps", "r");
        while (fgets(line, sizeof line, maps))
            before += sscanf(line, "%*s %7s %*s %*s %*s %511s", permissions, path) == 2 && permissions[1] == 'w' &&
                      strncmp(path, f->instance.path, strlen(f->instance.path)) == 0;
        fclose(maps);
        struct mneme_attached *a = attached_to(f);
        asked(a, &(struct mneme_query){.embeddings = fixture_vector(1)});
        maps = fopen("/proc/self/maps", "r");
        while (fgets(line, sizeof line, maps))
            writable += sscanf(line, "%*s %7s %*s %*s %*s %511s", permissions, path) == 2 && permissions[1] == 'w' &&
                        strncmp(path, f->instance.path, strlen(f->instance.path)) == 0;
        fclose(maps);
        _exit(writable == before + 1 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_must_be_a_store_that_is_served),
        cmocka_unit_test(before_the_first_view_it_is_not_ready),
        cmocka_unit_test(another_build_or_another_store_is_refused),
        cmocka_unit_test(slots_run_out_and_come_back),
        cmocka_unit_test(nothing_is_pinned_between_calls),
        cmocka_unit_test(a_forked_child_is_refused_and_harms_nothing),
        cmocka_unit_test(it_moves_to_the_next_instance),
        cmocka_unit_test(a_slot_that_was_taken_away_is_claimed_anew),
        cmocka_unit_test(bad_questions_are_refused),
        cmocka_unit_test(answers_are_the_engines),
        cmocka_unit_test(several_at_once_are_those_one_by_one),
        cmocka_unit_test(every_field_comes_as_it_was_given),
        cmocka_unit_test(filters_see_meta),
        cmocka_unit_test(history_can_be_read),
        cmocka_unit_test(answers_pack_as_replies),
        cmocka_unit_test(only_the_reader_table_is_writable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
