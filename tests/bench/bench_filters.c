/*
 * bench_filters.c - what a filter costs a recall: making the selection, by kind of condition and by selectivity.
 *
 *     bench_filters [rows = 100000 1000000 ...]
 *
 * One thread, one column segment of so many rows in memory. Each figure is the median of many selections; "cold" is the
 * first one, whose indexes and columns are in no cache of the CPU. Rows: those selected.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/meta.h"
#include "engine/selection.h"
#include "tests/unit/fake_parts.h"

#define DIM    4
#define RUNS   101
#define SHARES 5

static const uint32_t one_in[SHARES] = {2, 10, 100, 1000, 10000};

struct store {
    uint32_t rows;
    uint64_t random;
    struct fake_memory *memories;
    const struct fake_memory **list;
    uint8_t (*meta)[64];
    struct fake_parts *parts;
    struct mn_part part;
    struct mn_selector selector;
    uint8_t *sweep; /* read between cold runs */
};

static void *need(size_t bytes)
{
    void *p = calloc(1, bytes);
    if (!p) {
        fprintf(stderr, "bench_filters: out of memory\n");
        exit(1);
    }
    return p;
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static uint32_t below(struct store *s, uint32_t n)
{
    s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((s->random >> 33) % n);
}

/* ---- the store ---- */

/* Tags and spaces sN and tN are on one row in N; meta: a number 0..999999, a word of 10,000, a day of the row's time.
 */
static void make_row(struct store *s, uint32_t i)
{
    static const float vector[DIM] = {1, 2, 3, 4};
    static const char *const tags[SHARES] = {"t2", "t10", "t100", "t1000", "t10000"};
    static const char *const spaces[SHARES] = {"s2", "s10", "s100", "s1000", "s10000"};
    struct fake_memory *m = &s->memories[i];
    char word[16];
    *m = (struct fake_memory){.space = "default",
                              .id = fake_id(i + 1),
                              .born = 1,
                              .died = MN_ALIVE,
                              .at = i,
                              .expires = MN_NEVER,
                              .confidence = (float)below(s, 1000000) / 1000000,
                              .vector = vector};
    for (int t = 0; t < SHARES; t++) {
        if (below(s, one_in[t]) == 0)
            m->tags[m->tag_count++] = tags[t];
        if (below(s, one_in[t]) == 0)
            m->space = spaces[t];
    }
    struct mn_meta_writer out = {.data = s->meta[i], .bytes_max = sizeof s->meta[i]};
    mn_meta_map_begin(&out, 3);
    mn_meta_key(&out, fake_str("number"));
    mn_meta_uint(&out, below(s, 1000000));
    mn_meta_key(&out, fake_str("word"));
    snprintf(word, sizeof word, "word-%04u", below(s, 10000));
    mn_meta_str(&out, fake_str(word));
    mn_meta_key(&out, fake_str("kind"));
    for (int t = 0; t < SHARES; t++) {
        if (t == SHARES - 1 || below(s, one_in[t]) == 0) {
            mn_meta_uint(&out, (uint64_t)t);
            break;
        }
    }
    mn_meta_end(&out);
    m->meta = (struct mn_str){(const char *)out.data, out.bytes};
    s->list[i] = m;
}

static void make_store(struct store *s, uint32_t rows)
{
    *s = (struct store){.rows = rows, .random = 1};
    s->memories = need(rows * sizeof *s->memories);
    s->list = need(rows * sizeof *s->list);
    s->meta = need(rows * sizeof *s->meta);
    s->sweep = need(64u << 20);
    for (uint32_t i = 0; i < rows; i++)
        make_row(s, i);
    s->parts = fake_parts_new(DIM, MN_METRIC_COSINE);
    double begin = now_us();
    fake_parts_columns(s->parts, s->list, rows);
    printf("%u rows written in %.2f s\n", rows, (now_us() - begin) / 1e6);
    s->part = fake_parts_snapshot(s->parts, 1, 0).parts[0];
}

static void free_store(struct store *s)
{
    fake_parts_free(s->parts);
    mn_selector_free(&s->selector);
    free(s->memories);
    free((void *)s->list);
    free(s->meta);
    free(s->sweep);
}

/* ---- selecting ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void sweep_caches(struct store *s)
{
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < 64u << 20; i += 64)
        sum += s->sweep[i]++;
    (void)sum; /* written so that the loop is not optimised away */
}

static double select_once(struct store *s, const struct mn_scope *scope, struct mn_selection *selection)
{
    static struct mn_matcher matcher;
    double begin = now_us();
    if (mn_matcher_begin(&matcher, scope) != MN_OK)
        exit(1);
    *selection = (struct mn_selection){.kind = MN_SELECTION_NONE};
    if (mn_matcher_part(&matcher, &s->part, 0, UINT32_MAX) &&
        mn_selector_select(&s->selector, &matcher, selection) != MN_OK)
        exit(1);
    return now_us() - begin;
}

static void line(struct store *s, const char *what, uint32_t share, const struct mn_scope *scope)
{
    static const char *const kinds[] = {"none", "all", "list", "bits", "test"};
    double times[RUNS], cold[5];
    struct mn_selection selection;
    select_once(s, scope, &selection); /* views of the bitmaps are made once per process */
    for (int run = 0; run < 5; run++) {
        sweep_caches(s);
        cold[run] = select_once(s, scope, &selection);
    }
    for (int run = 0; run < RUNS; run++)
        times[run] = select_once(s, scope, &selection);
    qsort(times, RUNS, sizeof *times, compare_doubles);
    qsort(cold, 5, sizeof *cold, compare_doubles);
    printf("%-22s %8.2f %%  %8u rows  %-5s %9.1f us  %9.1f us cold\n", what, 100.0 / share, selection.count,
           kinds[selection.kind], times[RUNS / 2], cold[2]);
}

static struct mn_scope open_scope(void)
{
    return (struct mn_scope){.all_spaces = true, .after = INT64_MIN};
}

static struct mn_str meta_uint(uint64_t value)
{
    static uint8_t bytes[2][16];
    static int turn;
    struct mn_meta_writer out = {.data = bytes[turn ^= 1], .bytes_max = sizeof bytes[0]};
    mn_meta_uint(&out, value);
    return (struct mn_str){(const char *)out.data, out.bytes};
}

static void lines_of_share(struct store *s, uint32_t i)
{
    char name[16], space[16];
    uint32_t share = one_in[i], middle = s->rows / 3;
    snprintf(name, sizeof name, "t%u", share);
    snprintf(space, sizeof space, "s%u", share);
    struct mn_str tag = fake_str(name), in_space = fake_str(space);
    struct mn_scope scope = open_scope(), both = open_scope();
    scope.after = middle;
    scope.has_before = true;
    scope.before = middle + s->rows / share;
    line(s, "time", share, &scope);
    scope = open_scope();
    scope.filter.tags_all = &tag;
    scope.filter.tags_all_count = 1;
    line(s, "tag", share, &scope);
    scope = open_scope();
    scope.all_spaces = false;
    scope.spaces = &in_space;
    scope.space_count = 1;
    line(s, "space", share, &scope);
    scope = open_scope();
    scope.min_confidence = 1 - 1.0f / (float)share;
    line(s, "confidence", share, &scope);
    struct mn_str value = meta_uint(1000000 / share);
    struct mn_where where = {.key = fake_str("number"), .op = MN_WHERE_LT, .values = &value, .value_count = 1};
    scope = open_scope();
    scope.filter.where = &where;
    scope.filter.where_count = 1;
    line(s, "meta number <", share, &scope);
    /* Half by time, and the rest by tag and confidence. */
    struct mn_str t2 = fake_str("t2");
    both.after = s->rows / 2;
    both.min_confidence = 1 - 2.0f / (float)share;
    line(s, "time, confidence", share, &both);
    both = open_scope();
    both.after = s->rows / 4;
    both.filter.tags_none = &t2;
    both.filter.tags_none_count = 1;
    both.filter.where = &where;
    both.filter.where_count = 1;
    value = meta_uint(1000000 * 8 / 3 / share);
    line(s, "time, not tag, meta", share, &both);
}

static void meta_lines(struct store *s)
{
    static uint8_t bytes[32];
    struct mn_scope scope = open_scope();
    struct mn_str value;
    struct mn_where where = {.key = fake_str("kind"), .op = MN_WHERE_EQ, .values = &value, .value_count = 1};
    scope.filter.where = &where;
    scope.filter.where_count = 1;
    for (uint64_t t = 0; t < 3; t++) {
        value = meta_uint(t);
        where.op = MN_WHERE_EQ;
        line(s, "meta kind =", t == 0 ? 2 : t == 1 ? 20 : 222, &scope);
        where.op = MN_WHERE_NE;
        line(s, "meta kind !=", 1, &scope);
    }
    struct mn_meta_writer out = {.data = bytes, .bytes_max = sizeof bytes};
    mn_meta_str(&out, fake_str("word-1234"));
    value = (struct mn_str){(const char *)bytes, out.bytes};
    where.key = fake_str("word");
    where.op = MN_WHERE_EQ;
    line(s, "meta word =", 10000, &scope);
    where.key = fake_str("nowhere");
    line(s, "meta missing =", UINT32_MAX, &scope);
}

int main(int argc, char **argv)
{
    static const char *const usual[] = {"", "100000", "1000000"};
    int count = argc > 1 ? argc : 3;
    for (int i = 1; i < count; i++) {
        struct store s;
        uint32_t rows = (uint32_t)strtoul(argc > 1 ? argv[i] : usual[i], NULL, 10);
        if (rows < 10000 || rows > 16000000) {
            fprintf(stderr, "usage: bench_filters [rows, 10000..16000000 ...]\n");
            return 2;
        }
        make_store(&s, rows);
        for (uint32_t share = 0; share < SHARES; share++)
            lines_of_share(&s, share);
        meta_lines(&s);
        free_store(&s);
    }
    return 0;
}
