/*
 * fuzz_filter.c - a tail chunk and a filter out of arbitrary bytes: whatever the rows and links hold, matching returns
 * and reads nothing outside the chunk and its log segment.
 *
 * A chunk comes from shared memory: the writer is trusted to mean well, not to be free of faults.
 */
#include "engine/filter.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct chunk chunk;
    size_t body = sizeof chunk - sizeof chunk.header;
    if (size < body || size > body + 4096)
        return 0;
    memcpy(chunk.rows, data, body);
    chunk.header = (struct mn_tail_header){.rows_max = ROWS,
                                           .buckets = BUCKETS,
                                           .rows_at = offsetof(struct chunk, rows),
                                           .id_buckets_at = offsetof(struct chunk, ids),
                                           .string_buckets_at = offsetof(struct chunk, strings),
                                           .arena_at = offsetof(struct chunk, arena),
                                           .arena_max = ARENA};
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
