/*
 * test_recall.c - engine/recall: scores of each metric, order and ties, rank, bounds, and thousands of random searches
 * against a model that compares everything and sorts.
 */
#include "engine/recall.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/fake_world.h"

#define DIM 4

/* ---- a few memories by hand ---- */

struct small {
    struct fake_parts *parts;
    struct mn_search search;
    struct fake_memory memories[8];
    float vectors[8][DIM];
    uint32_t count;
};

static void open_small(struct small *s, enum mn_metric metric)
{
    *s = (struct small){.parts = fake_parts_new(DIM, metric)};
    assert_int_equal(mn_search_init(&s->search, metric, DIM), MN_OK);
}

static struct fake_memory *add(struct small *s, uint64_t id, float x, float y)
{
    struct fake_memory *m = &s->memories[s->count];
    memcpy(s->vectors[s->count], (float[DIM]){x, y}, sizeof s->vectors[0]);
    *m = (struct fake_memory){.space = "default",
                              .id = fake_id(id),
                              .born = 1,
                              .died = MN_ALIVE,
                              .at = 10,
                              .expires = MN_NEVER,
                              .confidence = 1,
                              .vector = s->vectors[s->count]};
    s->count++;
    return m;
}

static void close_small(struct small *s)
{
    mn_search_free(&s->search);
    fake_parts_free(s->parts);
}

static struct mn_query query_for(const float *embedding, uint32_t k)
{
    return (struct mn_query){.scope = {.all_spaces = true, .after = INT64_MIN}, .embedding = embedding, .k = k};
}

/* Puts each memory added so far and not yet in a part into a part of its own. */
static void search(struct small *s, const struct mn_query *query)
{
    struct mn_snapshot snapshot = fake_parts_snapshot(s->parts, 1, 0);
    for (uint32_t i = snapshot.part_count; i < s->count; i++) {
        const struct fake_memory *row = &s->memories[i];
        fake_parts_tail(s->parts, &row, 1);
    }
    snapshot = fake_parts_snapshot(s->parts, 1, 0);
    assert_int_equal(mn_recall_search(&s->search, &snapshot, query), MN_OK);
    assert_true(s->search.exact);
}

static uint64_t hit_id(const struct small *s, uint32_t i)
{
    assert_true(i < s->search.hit_count);
    return fake_parts_memory(s->parts, s->search.hits[i].part, s->search.hits[i].row)->id.lo;
}

static void cosine_knows_no_length(void **state)
{
    static const float scales[] = {1, 3, 1e-18f, 1e-30f, 1e18f, 1e30f};
    for (size_t i = 0; i < MN_ARRAY_LEN(scales); i++) {
        struct small s;
        open_small(&s, MN_METRIC_COSINE);
        add(&s, 1, 0.5f, 0);
        add(&s, 2, 2e10f, 2e10f);
        add(&s, 3, 0, 7);
        add(&s, 4, -1, 0);
        float embedding[DIM] = {scales[i], 0};
        struct mn_query query = query_for(embedding, 10);
        search(&s, &query);
        static const double want[] = {1, 0.7071067811865476, 0, -1};
        assert_int_equal(s.search.hit_count, 4);
        assert_int_equal(s.search.scanned, 4);
        for (uint32_t j = 0; j < 4; j++) {
            assert_int_equal(hit_id(&s, j), j + 1);
            assert_true(fabs(s.search.hits[j].similarity - want[j]) < 1e-6);
            assert_true(s.search.hits[j].score == s.search.hits[j].similarity && s.search.hits[j].decay == 1);
            assert_true(fabs(s.search.hits[j].similarity) <= 1);
        }
        close_small(&s);
    }
}

static void inner_product_and_distance_score_as_they_are(void **state)
{
    float embedding[DIM] = {2, 1};
    struct mn_query query = query_for(embedding, 2);
    struct small ip, l2;
    open_small(&ip, MN_METRIC_IP);
    add(&ip, 1, 1, 1);
    add(&ip, 2, 10, 0);
    add(&ip, 3, -5, 1);
    search(&ip, &query);
    assert_int_equal(ip.search.hit_count, 2);
    assert_true(hit_id(&ip, 0) == 2 && ip.search.hits[0].score == 20);
    assert_true(hit_id(&ip, 1) == 1 && ip.search.hits[1].score == 3);
    close_small(&ip);
    open_small(&l2, MN_METRIC_L2);
    add(&l2, 1, 2, 4);
    add(&l2, 2, 2, 1);
    add(&l2, 3, 0, 1);
    search(&l2, &query);
    assert_true(hit_id(&l2, 0) == 2 && l2.search.hits[0].score == 0);
    assert_true(hit_id(&l2, 1) == 3 && l2.search.hits[1].score == -4);
    close_small(&l2);
}

static void products_that_overflow_still_come_back(void **state)
{
    float embedding[DIM] = {4e18f, 4e18f}; /* about as long as a query may be; rows may be older than that limit */
    struct mn_query query = query_for(embedding, 5);
    struct small s;
    open_small(&s, MN_METRIC_IP);
    add(&s, 1, 3e38f, -3e38f);
    add(&s, 2, 3e38f, 3e38f);
    add(&s, 3, 1, 1);
    search(&s, &query);
    assert_int_equal(s.search.hit_count, 3);
    assert_int_equal(hit_id(&s, 0), 2);
    assert_int_equal(hit_id(&s, 1), 3);
    close_small(&s);
}

static void ties_go_to_the_later_then_the_id_then_the_space(void **state)
{
    for (uint32_t k = 1; k <= 6; k++) {
        struct small s;
        open_small(&s, MN_METRIC_COSINE);
        add(&s, 5, 1, 0)->at = 9;
        add(&s, 4, 1, 0)->space = "b";
        add(&s, 4, 1, 0)->space = "a";
        add(&s, 3, 1, 0)->id.kind = MN_ID_UUID;
        add(&s, 2, 1, 0);
        add(&s, 9, 1, 0)->at = 11;
        float embedding[DIM] = {1, 0};
        struct mn_query query = query_for(embedding, k);
        search(&s, &query);
        static const uint64_t want[] = {9, 2, 4, 4, 3, 5};
        assert_int_equal(s.search.hit_count, k);
        for (uint32_t i = 0; i < k; i++)
            assert_int_equal(hit_id(&s, i), want[i]);
        if (k > 3)
            assert_string_equal(fake_parts_memory(s.parts, s.search.hits[2].part, s.search.hits[2].row)->space, "a");
        close_small(&s);
    }
}

static void rank_weighs_confidence_and_age(void **state)
{
    struct small s;
    open_small(&s, MN_METRIC_COSINE);
    struct fake_memory *a = add(&s, 1, 1, 0), *b = add(&s, 2, 1, 1), *c = add(&s, 3, -1, 0), *d = add(&s, 4, 1, 0);
    a->at = 0;
    a->confidence = 0.5f;
    b->at = INT64_C(10000000000);
    c->at = INT64_C(20000000000);
    d->at = INT64_MIN;
    float embedding[DIM] = {5, 0};
    struct mn_query query = query_for(embedding, 4);
    query.rank = (struct mn_rank){
        .on = true, .half_life_s = 10, .now = INT64_C(10000000000), .confidence_weight = 0.4, .floor = 0.2};
    search(&s, &query);
    assert_int_equal(s.search.hit_count, 4);
    const struct mn_hit *hits = s.search.hits;
    assert_int_equal(hit_id(&s, 0), 2);
    assert_true(fabs(hits[0].score - sqrt(0.5)) < 1e-6 && hits[0].decay == 1);
    assert_int_equal(hit_id(&s, 1), 1);
    assert_true(fabs(hits[1].score - 0.8 * (0.2 + 0.8 * 0.5)) < 1e-6 && fabs(hits[1].decay - 0.6) < 1e-12);
    assert_true(hits[1].confidence == 0.5f && fabs(hits[1].similarity - 1) < 1e-6);
    assert_int_equal(hit_id(&s, 2), 4);
    assert_true(fabs(hits[2].score - 0.2) < 1e-6 && fabs(hits[2].decay - 0.2) < 1e-12);
    assert_int_equal(hit_id(&s, 3), 3);
    assert_true(hits[3].score == 0 && hits[3].similarity < -0.99 && hits[3].decay == 1);
    query.rank.half_life_s = 0;
    query.rank.confidence_weight = 0;
    search(&s, &query);
    assert_int_equal(hit_id(&s, 0), 1);
    assert_true(s.search.hits[0].decay == 1 && s.search.hits[0].score == s.search.hits[0].similarity);
    close_small(&s);
}

static void min_score_is_inclusive(void **state)
{
    struct small s;
    open_small(&s, MN_METRIC_IP);
    add(&s, 1, 1, 0);
    add(&s, 2, 2, 0);
    add(&s, 3, 3, 0);
    float embedding[DIM] = {1, 0};
    struct mn_query query = query_for(embedding, 10);
    query.has_min_score = true;
    query.min_score = 2;
    search(&s, &query);
    assert_int_equal(s.search.hit_count, 2);
    assert_true(hit_id(&s, 0) == 3 && hit_id(&s, 1) == 2);
    query.min_score = 3.5;
    search(&s, &query);
    assert_int_equal(s.search.hit_count, 0);
    close_small(&s);
}

static void one_memory_may_be_left_out(void **state)
{
    struct small s;
    open_small(&s, MN_METRIC_COSINE);
    add(&s, 1, 1, 0);
    add(&s, 1, 1, 0)->space = "other";
    add(&s, 2, 1, 0);
    float embedding[DIM] = {1, 0};
    struct mn_query query = query_for(embedding, 10);
    query.has_exclude = true;
    query.exclude = fake_id(1);
    query.exclude_space = fake_str("default");
    search(&s, &query);
    assert_int_equal(s.search.hit_count, 2);
    assert_string_equal(fake_parts_memory(s.parts, s.search.hits[0].part, s.search.hits[0].row)->space, "other");
    assert_int_equal(hit_id(&s, 1), 2);
    query.exclude_space = fake_str("unheard of");
    search(&s, &query);
    assert_int_equal(s.search.hit_count, 3);
    close_small(&s);
}

static void what_cannot_be_asked_is_refused(void **state)
{
    struct small s;
    open_small(&s, MN_METRIC_COSINE);
    add(&s, 1, 1, 0);
    float embedding[DIM] = {0};
    struct mn_query query = query_for(embedding, 3);
    struct mn_snapshot snapshot = fake_parts_snapshot(s.parts, 1, 0);
    assert_int_equal(mn_recall_search(&s.search, &snapshot, &query), MN_BAD_VALUE);
    embedding[1] = NAN;
    assert_int_equal(mn_recall_search(&s.search, &snapshot, &query), MN_BAD_VALUE);
    embedding[1] = 1;
    query.k = 0;
    search(&s, &query);
    assert_int_equal(s.search.hit_count, 0);
    close_small(&s);
    open_small(&s, MN_METRIC_L2);
    query.k = 3;
    query.rank.on = true;
    snapshot = fake_parts_snapshot(s.parts, 1, 0);
    assert_int_equal(mn_recall_search(&s.search, &snapshot, &query), MN_BAD_REQUEST);
    query.rank.on = false;
    memset(embedding, 0, sizeof embedding);
    add(&s, 1, 1, 0);
    search(&s, &query); /* only cosine needs a direction */
    assert_int_equal(s.search.hit_count, 1);
    close_small(&s);
}

/* ---- random searches ---- */

struct answer {
    double score;
    uint32_t index;
};

static const struct fake_world *sorted_world;

static int compare_answers(const void *a, const void *b)
{
    const struct answer *x = a, *y = b;
    const struct fake_memory *m = &sorted_world->memories[x->index], *n = &sorted_world->memories[y->index];
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (m->at != n->at)
        return m->at > n->at ? -1 : 1;
    int order = mn_id_compare(&m->id, &n->id);
    return order != 0 ? order : strcmp(m->space, n->space);
}

/* As the engine computes it, so that ties are ties in both; that this is right the tests above show. */
static double model_score(const struct mn_query *query, enum mn_metric metric, const struct fake_memory *m)
{
    const struct mn_kernels *k = mn_kernels_named("portable");
    if (metric == MN_METRIC_L2)
        return -(double)k->l2(query->embedding, m->vector, FAKE_DIM);
    double dot = (double)k->dot(query->embedding, m->vector, FAKE_DIM), norm2, mine;
    if (metric == MN_METRIC_IP)
        return dot;
    k->check(m->vector, FAKE_DIM, &norm2);
    k->check(query->embedding, FAKE_DIM, &mine);
    double similarity = dot * (1 / sqrt(mine) * (double)(float)(1 / sqrt(norm2)));
    similarity = fmin(fmax(similarity, -1), 1);
    if (!query->rank.on)
        return similarity;
    double w = query->rank.confidence_weight, age = (double)(query->rank.now - m->at) / 1e9, decay = 1;
    if (query->rank.half_life_s > 0)
        decay = query->rank.floor + (1 - query->rank.floor) * exp2(-fmax(age, 0) / query->rank.half_life_s);
    return fmax(similarity, 0) * (1 - w + w * (double)m->confidence) * decay;
}

static uint32_t model(struct fake_world *w, const struct mn_query *query, enum mn_metric metric, uint64_t seq,
                      struct answer *answers, uint64_t *compared)
{
    uint32_t n = 0;
    *compared = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        const struct fake_memory *m = &w->memories[i];
        if (!fake_visible(w, i, seq, w->now) || !fake_matches(w, i, &query->scope))
            continue;
        if (query->has_exclude && mn_id_equal(&m->id, &query->exclude) &&
            mn_str_equal(fake_str(m->space), query->exclude_space))
            continue;
        (*compared)++;
        double score = model_score(query, metric, m);
        if (!query->has_min_score || score >= query->min_score)
            answers[n++] = (struct answer){score, i};
    }
    sorted_world = w;
    qsort(answers, n, sizeof *answers, compare_answers);
    return n < query->k ? n : query->k;
}

static void make_query(struct fake_world *w, enum mn_metric metric, const struct fake_scope *scope, float *embedding,
                       struct mn_query *query)
{
    *query = (struct mn_query){.scope = scope->scope, .embedding = embedding, .k = 1 + fake_below(w, 40)};
    for (uint32_t i = 0; i < FAKE_DIM; i++)
        embedding[i] = (float)fake_below(w, 3) - 1.0f;
    embedding[1] += 0.5f;
    if (fake_below(w, 20) == 0)
        query->k = 3000;
    query->has_min_score = fake_below(w, 5) == 0;
    query->min_score = (double)fake_float(w) * (metric == MN_METRIC_COSINE ? 1 : 10);
    query->has_exclude = fake_below(w, 5) == 0;
    query->exclude = fake_id(1 + fake_below(w, 20));
    query->exclude_space = fake_str("agents/a");
    query->rank = (struct mn_rank){.on = metric == MN_METRIC_COSINE && fake_below(w, 2) == 0,
                                   .half_life_s = (double)fake_below(w, 4) * 2e-8,
                                   .now = (int64_t)fake_below(w, 200) - 50,
                                   .confidence_weight = (double)fake_below(w, 5) / 4,
                                   .floor = (double)fake_below(w, 3) / 2};
}

/* A power of two more or less in the embedding's length changes nothing, so the cosine of model and engine agree but
 * for the last bits of 1 / |q|. */
static bool same_score(double a, double b)
{
    return fabs(a - b) <= 1e-14 * fmax(1, fabs(b));
}

static void assert_answers(const struct fake_world *w, const struct mn_search *s, const struct answer *answers,
                           uint32_t count)
{
    assert_int_equal(s->hit_count, count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = fake_index(w, s->hits[i].part, s->hits[i].row);
        if (!same_score(s->hits[i].score, answers[i].score))
            fail_msg("hit %u scores %.17g, not %.17g", i, s->hits[i].score, answers[i].score);
        if (index != answers[i].index && s->hits[i].score == answers[i].score)
            fail_msg("hit %u is memory %u, not %u", i, index, answers[i].index);
    }
}

static void random_searches_are_what_the_model_says(enum mn_metric metric)
{
    static const char *const kernels[] = {"portable", "avx2", "avx512"};
    static struct answer answers[FAKE_ROWS_MAX];
    struct mn_search s;
    assert_int_equal(mn_search_init(&s, metric, FAKE_DIM), MN_OK);
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct fake_world *w = fake_world_new(seed * 31 + metric, metric, 250 * (uint32_t)seed, seed % 4 != 0);
        for (int turn = 0; turn < 300; turn++) {
            float embedding[FAKE_DIM];
            struct fake_scope scope;
            struct mn_query query;
            uint64_t seq = w->seq - fake_below(w, 30), compared;
            struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, seq, w->now);
            const struct mn_kernels *k = mn_kernels_named(kernels[turn % 3]);
            fake_scope_make(w, &scope);
            make_query(w, metric, &scope, embedding, &query);
            s.kernels = k ? k : s.kernels;
            uint32_t count = model(w, &query, metric, seq, answers, &compared);
            assert_int_equal(mn_recall_search(&s, &snapshot, &query), MN_OK);
            assert_answers(w, &s, answers, count);
            assert_int_equal(s.scanned, compared);
            assert_int_equal(s.damaged, 0);
        }
        fake_world_free(w);
    }
    mn_search_free(&s);
}

static void random_cosine_searches(void **state)
{
    random_searches_are_what_the_model_says(MN_METRIC_COSINE);
}

static void random_ip_searches(void **state)
{
    random_searches_are_what_the_model_says(MN_METRIC_IP);
}

static void random_l2_searches(void **state)
{
    random_searches_are_what_the_model_says(MN_METRIC_L2);
}

static void every_instruction_set_answers_with_the_same_bits(void **state)
{
    static const char *const kernels[] = {"avx2", "avx512"};
    struct fake_world *w = fake_world_new(5, MN_METRIC_COSINE, 1500, false);
    struct mn_snapshot snapshot = fake_parts_snapshot(w->parts, w->seq, w->now);
    struct mn_search a, b;
    assert_int_equal(mn_search_init(&a, MN_METRIC_COSINE, FAKE_DIM), MN_OK);
    assert_int_equal(mn_search_init(&b, MN_METRIC_COSINE, FAKE_DIM), MN_OK);
    a.kernels = mn_kernels_named("portable");
    for (int turn = 0; turn < 50; turn++) {
        float embedding[FAKE_DIM];
        for (uint32_t i = 0; i < FAKE_DIM; i++)
            embedding[i] = fake_float(w);
        struct mn_query query = query_for(embedding, 100);
        assert_int_equal(mn_recall_search(&a, &snapshot, &query), MN_OK);
        for (size_t i = 0; i < MN_ARRAY_LEN(kernels); i++) {
            const struct mn_kernels *k = mn_kernels_named(kernels[i]);
            if (!k)
                continue;
            b.kernels = k;
            assert_int_equal(mn_recall_search(&b, &snapshot, &query), MN_OK);
            assert_int_equal(a.hit_count, b.hit_count);
            for (uint32_t j = 0; j < a.hit_count; j++)
                assert_true(a.hits[j].score == b.hits[j].score && a.hits[j].part == b.hits[j].part &&
                            a.hits[j].row == b.hits[j].row);
        }
    }
    mn_search_free(&a);
    mn_search_free(&b);
    fake_world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cosine_knows_no_length),
        cmocka_unit_test(inner_product_and_distance_score_as_they_are),
        cmocka_unit_test(products_that_overflow_still_come_back),
        cmocka_unit_test(ties_go_to_the_later_then_the_id_then_the_space),
        cmocka_unit_test(rank_weighs_confidence_and_age),
        cmocka_unit_test(min_score_is_inclusive),
        cmocka_unit_test(one_memory_may_be_left_out),
        cmocka_unit_test(what_cannot_be_asked_is_refused),
        cmocka_unit_test(random_cosine_searches),
        cmocka_unit_test(random_ip_searches),
        cmocka_unit_test(random_l2_searches),
        cmocka_unit_test(every_instruction_set_answers_with_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
