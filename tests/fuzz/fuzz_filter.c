/*
 * fuzz_filter.c - a tail chunk and a filter out of arbitrary bytes: whatever the rows and links hold, matching and
 * ranking return and read nothing outside the chunk and its log segment; and hits come in their order, each row once.
 *
 * A chunk comes from shared memory: the writer is trusted to mean well, not to be free of faults. With MNEME_FUZZ_SEED
 * in the environment a chunk that the engine itself has filled is written to that file first, for the corpus.
 */
#include "engine/filter.h"
#include "engine/meta.h"
#include "engine/recall.h"
#include "engine/tail.h"

#include <stdio.h>
#include <stdlib.h>

#define ROWS    8
#define BUCKETS 4
#define ARENA   512

struct chunk {
    struct mn_tail_header header;
    struct mn_tail_row rows[ROWS];
    uint32_t ids[BUCKETS], strings[BUCKETS];
    _Alignas(64) uint8_t arena[ARENA];
};

static struct chunk chunk;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_filter(const struct mn_part *part, const uint8_t *data, size_t size)
{
    struct mn_str names[2] = {{(const char *)data, size > 4 ? 4 : (uint32_t)size}, {"default", 7}};
    struct mn_id ids[2] = {{.lo = size > 0 ? data[0] : 0}, {.lo = 1}};
    struct mn_str value = {(const char *)data, (uint32_t)size};
    struct mn_where where[2] = {{.key = names[0], .op = MN_WHERE_EQ, .values = &value, .value_count = 1},
                                {.key = names[1], .op = MN_WHERE_LTE, .values = &value, .value_count = 1}};
    struct mn_scope scope = {.spaces = names, .space_count = 2, .after = INT64_MIN};
    struct mn_matcher m = {0};
    uint32_t rows[ROWS];
    for (unsigned kind = 0; kind < 16; kind++) {
        scope.all_spaces = (kind & 1) != 0;
        scope.filter = (struct mn_filter){.tags_any = names,
                                          .tags_any_count = kind & 2 ? 2 : 0,
                                          .ids = ids,
                                          .id_count = kind & 4 ? 2 : 0,
                                          .has_ids = (kind & 4) != 0,
                                          .where = where,
                                          .where_count = kind & 8 ? 2 : 0};
        if (mn_matcher_begin(&m, &scope) == MN_OK && mn_matcher_part(&m, part, 0, part->rows)) {
            while (mn_matcher_next(&m, 1u << 20, 0, rows, ROWS) > 0)
                continue;
        }
    }
    mn_matcher_free(&m);
}

/* ---- ranking ---- */

static bool in_order(const struct mn_hit *a, const struct mn_hit *b)
{
    return a->score > b->score || (a->score == b->score && a->at >= b->at);
}

/* A row of a damaged chunk may be no number: there is no order then. */
static bool all_numbers(const struct mn_search *search)
{
    for (uint32_t i = 0; i < search->hit_count; i++)
        if (search->hits[i].score != search->hits[i].score)
            return false;
    return true;
}

static void check_hits(const struct mn_search *search, uint32_t k)
{
    bool ordered = all_numbers(search);
    MN_ASSERT(search->hit_count <= k);
    for (uint32_t i = 0; i < search->hit_count; i++) {
        MN_ASSERT(search->hits[i].part == 0 && search->hits[i].row < ROWS);
        MN_ASSERT(i == 0 || !ordered || in_order(&search->hits[i - 1], &search->hits[i]));
        for (uint32_t before = 0; before < i; before++)
            MN_ASSERT(search->hits[before].row != search->hits[i].row);
    }
}

static void rank(struct mn_part *part, const uint8_t *data, size_t size)
{
    static struct mn_search searches[MN_METRIC_COUNT];
    _Alignas(64) float embedding[16] = {1, -2, 0.5f, 4};
    struct mn_snapshot snapshot = {.seq = 100, .now = 1000, .part_count = 1, .parts = part};
    struct mn_query query = {.scope = {.all_spaces = true, .after = INT64_MIN}, .embedding = embedding, .target = 0.9};
    double half_life = size > 0 ? data[0] * 1e-6 : 3600; /* a request with anything else is refused */
    double weight = size > 1 ? data[1] / 255.0 : 0.5, least = size > 2 ? data[2] / 255.0 : 0.1;
    for (unsigned kind = 0; kind < 24; kind++) {
        struct mn_search *search = &searches[kind % MN_METRIC_COUNT];
        if (!search->embedding)
            MN_ASSERT(mn_search_init(search, kind % MN_METRIC_COUNT, 4) == MN_OK);
        query.k = kind % 4 == 0 ? ROWS : 3;
        query.exact = kind % 2 != 0;
        query.has_min_score = kind % 8 == 7;
        query.has_exclude = kind % 8 == 5;
        query.exclude = part->tail_rows[0].id;
        query.exclude_space = (struct mn_str){"default", 7};
        query.rank = (struct mn_rank){
            .on = kind >= 12, .half_life_s = half_life, .now = 2000, .confidence_weight = weight, .floor = least};
        if (mn_recall_search(search, &snapshot, &query) == MN_OK)
            check_hits(search, query.k);
    }
}

/* ---- the input ---- */

static void lay_out(void)
{
    chunk.header = (struct mn_tail_header){.rows_max = ROWS,
                                           .buckets = BUCKETS,
                                           .rows_at = offsetof(struct chunk, rows),
                                           .id_buckets_at = offsetof(struct chunk, ids),
                                           .string_buckets_at = offsetof(struct chunk, strings),
                                           .arena_at = offsetof(struct chunk, arena),
                                           .arena_max = ARENA};
}

/* A log segment's worth of memories and the chunk that follows from it, as the writer makes them; returns the log's
 * bytes. */
static uint64_t fill(uint8_t *wal, uint64_t bytes_max)
{
    static const struct mn_str tags[] = {{"red", 3}, {"default", 7}};
    uint32_t record_at[ROWS], row;
    struct mn_batch batch = {.data = wal, .bytes_max = bytes_max, .record_at = record_at, .records_max = ROWS};
    struct mn_tail tail = {.header = &chunk.header,
                           .rows = chunk.rows,
                           .id_buckets = (_Atomic uint32_t *)chunk.ids,
                           .string_buckets = (_Atomic uint32_t *)chunk.strings,
                           .arena = chunk.arena,
                           .arena_used = 8,
                           .rows_reserved = ROWS,
                           .arena_reserved = ARENA};
    mn_batch_begin(&batch, 0, 1);
    for (uint32_t i = 0; i < ROWS; i++) {
        uint8_t data[96];
        float vector[4] = {1, (float)i, -1, 0.5f};
        struct mn_meta_writer meta = {.data = data, .bytes_max = sizeof data};
        mn_meta_map_begin(&meta, 2);
        mn_meta_key(&meta, (struct mn_str){"n", 1});
        mn_meta_int(&meta, (int64_t)i - 3);
        mn_meta_key(&meta, tags[1]);
        mn_meta_str(&meta, tags[0]);
        mn_meta_end(&meta);
        struct mn_str space = {"default", i % 3 == 0 ? 3 : 7};
        struct mn_record record = {.op = MN_RECORD_PUT,
                                   .seq = i + 1,
                                   .id = {.lo = i / 2},
                                   .space_hash = mn_str_hash(space),
                                   .at = i * 100,
                                   .expires = INT64_MAX,
                                   .confidence = 0.5f,
                                   .scale = 1};
        struct mn_record_parts parts = {.vector = vector,
                                        .vector_bytes = sizeof vector,
                                        .space = space,
                                        .meta = {(const char *)data, i % 4 ? meta.bytes : 0},
                                        .content = {"a memory", 8},
                                        .tags = tags,
                                        .tag_count = i % 3};
        uint64_t at = mn_batch_add(&batch, &record, &parts);
        const struct mn_record *added = (const struct mn_record *)(const void *)(wal + at);
        MN_ASSERT(mn_tail_add_record(&tail, added, at, &row) == MN_OK);
    }
    return batch.at;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static _Alignas(64) uint8_t wal[8192];
    const char *path = getenv("MNEME_FUZZ_SEED");
    if (!path)
        return 0;
    lay_out();
    uint64_t bytes = fill(wal, sizeof wal);
    FILE *file = fopen(path, "w");
    MN_ASSERT(file && fwrite(chunk.rows, sizeof chunk - sizeof chunk.header, 1, file) == 1);
    MN_ASSERT(fwrite(wal, bytes, 1, file) == 1 && fclose(file) == 0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t body = sizeof chunk - sizeof chunk.header;
    if (size < body || size > body + 4096)
        return 0;
    memcpy(chunk.rows, data, body);
    lay_out();
    uint8_t *wal = malloc(size - body + 1);
    if (!wal)
        return 0;
    memcpy(wal, data + body, size - body);
    struct mn_part part = {.tail = true,
                           .rows = ROWS,
                           .dim = 4,
                           .chunk = &chunk.header,
                           .tail_rows = chunk.rows,
                           .arena = chunk.arena,
                           .wal = wal,
                           .wal_bytes = size - body};
    use_filter(&part, data + body, size - body);
    rank(&part, data + body, size - body);
    for (uint32_t row = 0; row < ROWS; row++) {
        struct mn_str content;
        bool bin;
        const float *vector = mn_part_vector(&part, row);
        if (vector)
            (void)*(const volatile uint8_t *)((const uint8_t *)vector + 4 * part.dim - 1);
        if (mn_part_content(&part, row, &content, &bin) == MN_OK && content.length > 0)
            (void)*(const volatile char *)(content.data + content.length - 1);
        for (uint32_t other = 0; other < ROWS; other++)
            (void)mn_part_compare_spaces(&part, row, &part, other);
    }
    free(wal);
    return 0;
}
