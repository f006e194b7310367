/*
 * compact_write.c - one output segment: its dictionary, then its rows.
 *
 * Parts number strings each in their own way. A first pass over the rows collects the strings they use; sorted, their
 * ranks are the numbers in the new segment. A second pass writes the rows. Rows of the log are held against their
 * record's checksum on the way, and the finished segment is read back and checked before anybody is told of it.
 */
#include <stdlib.h>

#include "engine/compact_inside.h"

#define AHEAD_ROWS 64u /* embeddings that the disk is asked for together */

/* The strings of the output in the making. */
struct dictionary {
    struct mn_str *strings; /* they lie in the input parts */
    uint64_t *hashes;
    uint32_t count, max;
    uint32_t *buckets; /* string + 1; 0 = empty */
    uint32_t bucket_count;
    uint32_t *rank;
};

struct output {
    struct mn_compact_build *build;
    struct mn_columns_writer *writer;
    struct dictionary dictionary;
    struct mn_str *sorted;
    uint64_t begin, end; /* of build->keys */
    uint64_t *died;      /* [end - begin], as written */
};

/* ---- the dictionary ---- */

static enum mn_status grow_dictionary(struct dictionary *d)
{
    uint32_t max = d->max ? d->max * 2 : 1024;
    struct mn_str *strings = realloc(d->strings, max * sizeof *strings);
    if (strings)
        d->strings = strings;
    uint64_t *hashes = realloc(d->hashes, max * sizeof *hashes);
    if (hashes)
        d->hashes = hashes;
    uint32_t *buckets = calloc(2 * (size_t)max, sizeof *buckets);
    if (!strings || !hashes || !buckets) {
        free(buckets);
        return MN_FAIL(MN_SYSTEM, "no memory for a dictionary of %u strings", max);
    }
    d->max = max;
    free(d->buckets);
    d->buckets = buckets;
    d->bucket_count = 2 * max;
    for (uint32_t s = 0; s < d->count; s++) {
        uint32_t b = (uint32_t)d->hashes[s] & (d->bucket_count - 1);
        while (d->buckets[b] != 0)
            b = (b + 1) & (d->bucket_count - 1);
        d->buckets[b] = s + 1;
    }
    return MN_OK;
}

static enum mn_status enter_string(struct dictionary *d, struct mn_str s, uint32_t *index)
{
    if (d->count == d->max)
        MN_TRY(grow_dictionary(d));
    uint64_t hash = mn_str_hash(s);
    uint32_t b = (uint32_t)hash & (d->bucket_count - 1);
    for (; d->buckets[b] != 0; b = (b + 1) & (d->bucket_count - 1)) {
        uint32_t known = d->buckets[b] - 1;
        if (d->hashes[known] == hash && mn_str_equal(d->strings[known], s)) {
            *index = known;
            return MN_OK;
        }
    }
    d->strings[d->count] = s;
    d->hashes[d->count] = hash;
    d->buckets[b] = ++d->count;
    *index = d->count - 1;
    return MN_OK;
}

static uint32_t *number_slot(struct mn_compact_numbers *n, uint32_t number)
{
    uint32_t at = (number * 2654435761u) & (n->size - 1);
    while (n->keys[at] != 0 && n->keys[at] != number + 1)
        at = (at + 1) & (n->size - 1);
    return &n->keys[at];
}

static enum mn_status grow_numbers(struct mn_compact_numbers *n)
{
    struct mn_compact_numbers grown = {.size = n->size ? n->size * 2 : 256, .used = n->used};
    grown.keys = calloc(grown.size, sizeof *grown.keys);
    grown.values = calloc(grown.size, sizeof *grown.values);
    if (!grown.keys || !grown.values) {
        free(grown.keys);
        free(grown.values);
        return MN_FAIL(MN_SYSTEM, "no memory for the numbers of %u strings", grown.size);
    }
    for (uint32_t i = 0; i < n->size; i++) {
        if (n->keys[i] == 0)
            continue;
        uint32_t *slot = number_slot(&grown, n->keys[i] - 1);
        *slot = n->keys[i];
        grown.values[slot - grown.keys] = n->values[i];
    }
    free(n->keys);
    free(n->values);
    *n = grown;
    return MN_OK;
}

/* Notes that a row of this input uses string `number`. */
static enum mn_status use_string(struct output *o, struct mn_compact_input *input, uint32_t number)
{
    struct mn_compact_numbers *n = &input->numbers;
    if (n->used * 2 >= n->size)
        MN_TRY(grow_numbers(n));
    uint32_t *slot = number_slot(n, number);
    if (*slot != 0)
        return MN_OK;
    uint32_t index = 0;
    MN_TRY(enter_string(&o->dictionary, mn_part_string(input->part, number), &index));
    *slot = number + 1;
    n->values[slot - n->keys] = index;
    n->used++;
    return MN_OK;
}

static uint32_t new_number(const struct output *o, struct mn_compact_input *input, uint32_t number)
{
    uint32_t *slot = number_slot(&input->numbers, number);
    return o->dictionary.rank[input->numbers.values[slot - input->numbers.keys]];
}

static enum mn_status use_strings(struct output *o)
{
    struct mn_compact_build *b = o->build;
    for (uint64_t k = o->begin; k < o->end; k++) {
        struct mn_compact_input *input = &b->inputs[b->keys[k].input];
        uint32_t row = b->keys[k].row, count;
        const uint32_t *tags;
        MN_TRY(mn_compact_breathe(b));
        MN_TRY(use_string(o, input, mn_part_space(input->part, row)));
        count = mn_part_tags(input->part, row, &tags);
        for (uint32_t t = 0; t < count; t++)
            MN_TRY(use_string(o, input, tags[t]));
    }
    return MN_OK;
}

struct ranked {
    struct mn_str s;
    uint32_t index;
};

static int by_bytes(const void *a, const void *b)
{
    const struct mn_str *x = &((const struct ranked *)a)->s, *y = &((const struct ranked *)b)->s;
    int order = memcmp(x->data, y->data, x->length < y->length ? x->length : y->length);
    if (order != 0)
        return order;
    return x->length == y->length ? 0 : x->length < y->length ? -1 : 1;
}

static enum mn_status rank_strings(struct output *o)
{
    struct dictionary *d = &o->dictionary;
    struct ranked *order = malloc(((size_t)d->count + 1) * sizeof *order);
    d->rank = malloc(((size_t)d->count + 1) * sizeof *d->rank);
    o->sorted = malloc(((size_t)d->count + 1) * sizeof *o->sorted);
    if (!order || !d->rank || !o->sorted) {
        free(order);
        return MN_FAIL(MN_SYSTEM, "no memory for a dictionary of %u strings", d->count);
    }
    for (uint32_t s = 0; s < d->count; s++)
        order[s] = (struct ranked){d->strings[s], s};
    qsort(order, d->count, sizeof *order, by_bytes);
    for (uint32_t r = 0; r < d->count; r++) {
        o->sorted[r] = order[r].s;
        d->rank[order[r].index] = r;
    }
    free(order);
    return MN_OK;
}

/* ---- rows ---- */

/* A row of the log is copied only when its record is what was acknowledged. */
static enum mn_status check_record(const struct mn_compact_input *input, uint32_t row)
{
    const struct mn_part *part = input->part;
    if (!part->tail)
        return MN_OK;
    uint32_t offset = part->tail_rows[row].record_at, salt = input->wal.header.salt;
    const struct mn_record *record = (const void *)(part->wal + offset);
    if (!mn_record_header_valid(record, salt, offset, part->wal_bytes) ||
        !mn_record_payload_valid(record, salt, offset))
        return MN_FAIL(MN_CORRUPT, "log segment %llu: the record at %u does not match its checksum",
                       (unsigned long long)part->number, offset);
    return MN_OK;
}

static enum mn_status read_row(struct output *o, struct mn_compact_input *input, uint32_t row,
                               struct mn_columns_row *out, uint32_t tags[MN_TAGS_MAX])
{
    const struct mn_part *part = input->part;
    const uint32_t *numbers;
    MN_TRY(check_record(input, row));
    *out = (struct mn_columns_row){.id = *mn_part_id(part, row),
                                   .space = new_number(o, input, mn_part_space(part, row)),
                                   .born = mn_part_born(part, row),
                                   .died = mn_part_died(part, row),
                                   .at = mn_part_at(part, row),
                                   .expires = mn_part_expires(part, row),
                                   .confidence = mn_part_confidence(part, row),
                                   .scale = mn_part_scale(part, row),
                                   .vector = mn_part_vector(part, row),
                                   .tags = tags,
                                   .tag_count = mn_part_tags(part, row, &numbers)};
    if (!out->vector)
        return MN_FAIL(MN_CORRUPT, "column segment %llu: the embedding of row %u does not match its checksum",
                       (unsigned long long)part->number, row);
    if (out->tag_count > MN_TAGS_MAX)
        return MN_FAIL(MN_CORRUPT, "part %llu: row %u has %u tags", (unsigned long long)part->number, row,
                       out->tag_count);
    for (uint32_t t = 0; t < out->tag_count; t++)
        tags[t] = new_number(o, input, numbers[t]);
    MN_TRY(mn_part_meta(part, row, &out->meta));
    return mn_part_content(part, row, &out->content, &out->content_bin);
}

/* Of the next rows, those of the same input as the first: the disk is asked for them where memory does not hold all. */
static void ask_ahead(const struct output *o, uint64_t k)
{
    const struct mn_compact_key *keys = o->build->keys;
    uint32_t rows[AHEAD_ROWS], count = 0;
    if ((k - o->begin) % AHEAD_ROWS != 0)
        return;
    for (uint64_t at = k; at < k + AHEAD_ROWS && at < o->end; at++)
        if (keys[at].input == keys[k].input)
            rows[count++] = keys[at].row;
    mn_part_ahead(o->build->inputs[keys[k].input].part, rows, count);
}

static enum mn_status write_rows(struct output *o, uint32_t number)
{
    struct mn_compact_build *b = o->build;
    for (uint64_t k = o->begin; k < o->end; k++) {
        const struct mn_compact_key *key = &b->keys[k];
        struct mn_columns_row row;
        uint32_t tags[MN_TAGS_MAX];
        ask_ahead(o, k);
        MN_TRY(mn_compact_breathe(b));
        MN_TRY(read_row(o, &b->inputs[key->input], key->row, &row, tags));
        MN_TRY(mn_columns_append(o->writer, &row));
        o->died[k - o->begin] = row.died;
        b->inputs[key->input].to[key->row] = (uint64_t)number << 32 | (k - o->begin);
    }
    return MN_OK;
}

/* Reads the segment back: what does not pass its own checks is not proposed. Then it is coded. */
static enum mn_status check_and_code(const struct output *o, struct mn_manifest_segment *segment)
{
    struct mn_columns *columns;
    struct mn_part part;
    MN_TRY(mn_columns_open(&columns, &o->build->compactor->store, segment->id, MN_COLUMNS_DEEP));
    mn_columns_part(columns, &part);
    enum mn_status status = mn_compact_codes_write(o->build, o->begin, &part, segment);
    mn_columns_close(columns);
    return status;
}

static enum mn_status make_liveness(const struct output *o, uint64_t id)
{
    struct mn_segment live = {0};
    MN_TRY(mn_live_create(&live, o->build->compactor->instance, o->build->proposal->live_gen, id, o->end - o->begin,
                          o->died));
    /* Checked just now, in memory that readers will map: they need not do it again. */
    atomic_store_explicit(&((struct mn_live *)live.base)->checked, 1, memory_order_release);
    mn_segment_unmap(&live);
    return MN_OK;
}

static void forget_numbers(struct mn_compact_build *b)
{
    for (uint32_t i = 0; i < b->input_count; i++) {
        free(b->inputs[i].numbers.keys);
        free(b->inputs[i].numbers.values);
        b->inputs[i].numbers = (struct mn_compact_numbers){0};
    }
}

enum mn_status mn_compact_write(struct mn_compact_build *b, uint64_t begin, uint64_t end, uint32_t output, uint64_t id,
                                struct mn_manifest_segment *segment)
{
    struct output o = {.build = b, .begin = begin, .end = end};
    uint32_t rows = (uint32_t)(end - begin);
    enum mn_status status = MN_OK;
    *segment = (struct mn_manifest_segment){
        .id = id, .rows = rows, .at_min = b->keys[begin].at, .at_max = b->keys[end - 1].at};
    o.died = malloc(rows * sizeof *o.died);
    if (!o.died) {
        status = MN_FAIL(MN_SYSTEM, "no memory for the liveness of %u rows", rows);
        goto out;
    }
    MN_TRY_OUT(use_strings(&o));
    MN_TRY_OUT(rank_strings(&o));
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): o.sorted is freed below, on every path
    MN_TRY_OUT(mn_columns_create(&o.writer, &b->compactor->store, id, rows, o.sorted, o.dictionary.count));
    MN_TRY_OUT(write_rows(&o, output));
    struct mn_columns_writer *writer = o.writer;
    o.writer = NULL;
    MN_TRY_OUT(mn_columns_finish(writer, &segment->bytes));
    MN_TRY_OUT(check_and_code(&o, segment));
    MN_TRY_OUT(make_liveness(&o, id));
out:
    mn_columns_abandon(o.writer);
    forget_numbers(b);
    free(o.dictionary.strings);
    free(o.dictionary.hashes);
    free(o.dictionary.buckets);
    free(o.dictionary.rank);
    free(o.sorted);
    free(o.died);
    return status;
}
