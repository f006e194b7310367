/*
 * fake_parts.c - see fake_parts.h. Chunks are filled through engine/tail.h, as the writer does.
 */
#include "tests/unit/fake_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/columns_file.h"
#include "engine/ivf_file.h"
#include "engine/tail.h"

#define PARTS_MAX     16
#define CODEBOOKS_MAX 4
#define BUCKETS       64 /* few, so that chains are long */
#define ARENA_BYTES   (1u << 20)

struct fake_part {
    const struct fake_memory **rows;
    void *chunk; /* tail: header, rows, buckets, arena */
    uint8_t *wal;
    struct mn_columns *columns;
    _Atomic uint64_t *died;
    struct mn_ivf ivf; /* codes in memory: owns its arrays */
    struct mn_ivf_file *codes;
};

struct fake_parts {
    uint32_t dim;
    enum mn_metric metric;
    uint32_t count;
    struct mn_part parts[PARTS_MAX];
    struct fake_part made[PARTS_MAX];
    struct mn_store store; /* of the column segments and codebooks; dir is empty until the first */
    const struct mn_codebook *codebooks[CODEBOOKS_MAX];
    uint32_t codebook_count;
};

/* What a test cannot go on without. */
static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fake_parts: %s: %s\n", what, mn_error_trail());
        abort();
    }
}

static void *zeros(size_t bytes)
{
    void *p = aligned_alloc(MN_LINE, mn_round_up(bytes + 1, MN_LINE));
    must(p != NULL, "memory");
    return memset(p, 0, mn_round_up(bytes + 1, MN_LINE));
}

struct mn_str fake_str(const char *text)
{
    return (struct mn_str){text, (uint32_t)strlen(text)};
}

struct mn_id fake_id(uint64_t number)
{
    return (struct mn_id){.lo = number};
}

struct fake_parts *fake_parts_new(uint32_t dim, enum mn_metric metric)
{
    struct fake_parts *fakes = zeros(sizeof *fakes);
    fakes->dim = dim;
    fakes->metric = metric;
    return fakes;
}

static void free_codes(struct fake_part *made)
{
    mn_ivf_close(made->codes);
    free((void *)(uintptr_t)made->ivf.first_slot);
    free((void *)(uintptr_t)made->ivf.first_block);
    free((void *)(uintptr_t)made->ivf.rest);
    free((void *)(uintptr_t)made->ivf.homes);
    free((void *)(uintptr_t)made->ivf.order);
    free((void *)(uintptr_t)made->ivf.blocks);
    free((void *)(uintptr_t)made->ivf.codes8);
    free((void *)(uintptr_t)made->ivf.fine);
    free((void *)(uintptr_t)made->ivf.slots);
    made->ivf = (struct mn_ivf){0};
    made->codes = NULL;
}

static void free_part(struct fake_part *made)
{
    free_codes(made);
    mn_columns_close(made->columns);
    free(made->rows);
    free(made->chunk);
    free(made->wal);
    free(made->died);
}

void fake_parts_free(struct fake_parts *fakes)
{
    for (uint32_t i = 0; i < fakes->count; i++)
        free_part(&fakes->made[i]);
    for (uint32_t i = 0; i < fakes->codebook_count; i++)
        mn_codebook_close(fakes->codebooks[i]);
    if (fakes->store.dir[0])
        must(mn_io_remove_tree(&mn_io_posix, fakes->store.dir) == MN_OK, "removing the temporary store");
    free(fakes);
}

static float scale_of(const struct fake_parts *fakes, const float *vector)
{
    double norm2 = 0;
    if (fakes->metric != MN_METRIC_COSINE)
        return 1;
    for (uint32_t i = 0; i < fakes->dim; i++)
        norm2 += (double)vector[i] * (double)vector[i];
    return (float)(1 / sqrt(norm2));
}

static struct fake_part *begin_part(struct fake_parts *fakes, const struct fake_memory *const *rows, uint32_t count)
{
    must(fakes->count < PARTS_MAX, "too many parts");
    struct fake_part *made = &fakes->made[fakes->count];
    made->rows = zeros(count * sizeof *made->rows);
    if (count > 0)
        memcpy(made->rows, rows, count * sizeof *made->rows);
    return made;
}

/* ---- tails ---- */

static struct mn_tail plan_tail(struct fake_part *made, uint32_t rows_max)
{
    uint64_t rows_at = sizeof(struct mn_tail_header), ids_at = rows_at + rows_max * sizeof(struct mn_tail_row);
    uint64_t strings_at = ids_at + BUCKETS * sizeof(uint32_t);
    uint64_t arena_at = mn_round_up(strings_at + BUCKETS * sizeof(uint32_t), MN_LINE);
    uint8_t *base = made->chunk = zeros(arena_at + ARENA_BYTES);
    struct mn_tail tail = {.header = made->chunk};
    tail.header->rows_max = rows_max;
    tail.header->buckets = BUCKETS;
    tail.header->rows_at = rows_at;
    tail.header->id_buckets_at = ids_at;
    tail.header->string_buckets_at = strings_at;
    tail.header->arena_at = arena_at;
    tail.header->arena_max = ARENA_BYTES;
    tail.rows = (struct mn_tail_row *)(void *)(base + rows_at);
    tail.id_buckets = (_Atomic uint32_t *)(void *)(base + ids_at);
    tail.string_buckets = (_Atomic uint32_t *)(void *)(base + strings_at);
    tail.arena = base + arena_at;
    tail.arena_used = sizeof(struct mn_tail_string);
    tail.rows_reserved = rows_max; /* memory of our own */
    tail.arena_reserved = ARENA_BYTES;
    return tail;
}

static uint32_t put_wal(uint8_t *wal, uint64_t *at, const void *data, size_t bytes)
{
    uint64_t begin = *at = mn_round_up(*at, MN_LINE);
    if (bytes > 0)
        memcpy(wal + begin, data, bytes);
    *at += bytes;
    return (uint32_t)begin;
}

static uint64_t wal_bytes(const struct fake_parts *fakes, const struct fake_memory *const *rows, uint32_t count)
{
    uint64_t bytes = MN_LINE;
    for (uint32_t i = 0; i < count; i++)
        bytes += fakes->dim * sizeof(float) + rows[i]->meta.length + rows[i]->content.length + 4 * MN_LINE;
    return bytes;
}

static void fill_row(struct fake_parts *fakes, struct mn_tail *tail, uint8_t *wal, uint64_t *at,
                     const struct fake_memory *m)
{
    struct mn_tail_row row = {.id = m->id,
                              .born = m->born,
                              .at = m->at,
                              .expires = m->expires,
                              .confidence = m->confidence,
                              .scale = scale_of(fakes, m->vector),
                              .content_bytes = m->content.data ? m->content.length : MN_CONTENT_NONE,
                              .meta_bytes = m->meta.length,
                              .hash = mn_id_hash(mn_str_hash(fake_str(m->space)), &m->id)};
    uint32_t tags[FAKE_TAGS_MAX], number;
    atomic_init(&row.died, m->died);
    must(mn_tail_intern(tail, fake_str(m->space), &row.space) == MN_OK, "interning a space");
    for (uint32_t i = 0; i < m->tag_count; i++)
        must(mn_tail_intern(tail, fake_str(m->tags[i]), &tags[i]) == MN_OK, "interning a tag");
    row.content_bytes |= m->content_bin ? MN_CONTENT_BIN : 0;
    row.vector_at = put_wal(wal, at, m->vector, fakes->dim * sizeof(float));
    row.meta_at = put_wal(wal, at, m->meta.data, m->meta.length);
    row.content_at = put_wal(wal, at, m->content.data, m->content.length);
    must(mn_tail_fill(tail, &row, tags, m->tag_count, &number) == MN_OK, "filling a row");
}

void fake_parts_tail(struct fake_parts *fakes, const struct fake_memory *const *rows, uint32_t count)
{
    struct fake_part *made = begin_part(fakes, rows, count);
    struct mn_tail tail = plan_tail(made, count + 1);
    uint64_t at = MN_LINE, bytes = wal_bytes(fakes, rows, count);
    made->wal = zeros(bytes);
    for (uint32_t i = 0; i < count; i++)
        fill_row(fakes, &tail, made->wal, &at, rows[i]);
    mn_tail_publish(&tail, tail.filled, 0);
    mn_tail_part(&tail, made->wal, bytes, fakes->dim, &fakes->parts[fakes->count++]);
}

/* ---- columns ---- */

static int compare_memories(const void *a, const void *b)
{
    const struct fake_memory *x = *(const struct fake_memory *const *)a, *y = *(const struct fake_memory *const *)b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return mn_id_compare(&x->id, &y->id);
}

static int compare_strings(const void *a, const void *b)
{
    return mn_str_compare(*(const struct mn_str *)a, *(const struct mn_str *)b);
}

/* Every name that the rows use, sorted, each once. */
static uint32_t collect_strings(const struct fake_memory *const *rows, uint32_t count, struct mn_str **strings)
{
    uint32_t n = 0, kept = 0;
    struct mn_str *all = zeros((size_t)count * (1 + FAKE_TAGS_MAX) * sizeof *all);
    for (uint32_t i = 0; i < count; i++) {
        all[n++] = fake_str(rows[i]->space);
        for (uint32_t j = 0; j < rows[i]->tag_count; j++)
            all[n++] = fake_str(rows[i]->tags[j]);
    }
    qsort(all, n, sizeof *all, compare_strings);
    for (uint32_t i = 0; i < n; i++) {
        if (kept == 0 || !mn_str_equal(all[kept - 1], all[i]))
            all[kept++] = all[i];
    }
    *strings = all;
    return kept;
}

static uint32_t number_of(const struct mn_str *strings, uint32_t count, const char *name)
{
    struct mn_str s = fake_str(name);
    const struct mn_str *found = bsearch(&s, strings, count, sizeof s, compare_strings);
    return (uint32_t)(found - strings);
}

static void append_row(const struct fake_parts *fakes, struct mn_columns_writer *writer, const struct mn_str *strings,
                       uint32_t string_count, const struct fake_memory *m)
{
    uint32_t tags[FAKE_TAGS_MAX];
    for (uint32_t i = 0; i < m->tag_count; i++)
        tags[i] = number_of(strings, string_count, m->tags[i]);
    struct mn_columns_row row = {.id = m->id,
                                 .space = number_of(strings, string_count, m->space),
                                 .born = m->born,
                                 .died = m->died,
                                 .at = m->at,
                                 .expires = m->expires,
                                 .confidence = m->confidence,
                                 .scale = scale_of(fakes, m->vector),
                                 .vector = m->vector,
                                 .tags = tags,
                                 .tag_count = m->tag_count,
                                 .meta = m->meta,
                                 .content = m->content,
                                 .content_bin = m->content_bin};
    must(mn_columns_append(writer, &row) == MN_OK, "appending a row");
}

static void need_store(struct fake_parts *fakes)
{
    char dir[] = "/tmp/mneme-fake-parts-XXXXXX";
    if (fakes->store.dir[0])
        return;
    must(mkdtemp(dir) != NULL, "a temporary folder");
    must(mn_store_create(&fakes->store, &mn_io_posix, dir, fakes->dim, fakes->metric) == MN_OK, "a temporary store");
    memset(fakes->store.uuid, 7, sizeof fakes->store.uuid); /* rotations follow from it: each run sees the same codes */
}

void fake_parts_columns(struct fake_parts *fakes, const struct fake_memory *const *rows, uint32_t count)
{
    struct fake_part *made = begin_part(fakes, rows, count);
    struct mn_columns_writer *writer;
    struct mn_str *strings;
    uint64_t segment = fakes->count + 1, bytes;
    must(count > 0, "a column segment has rows");
    need_store(fakes);
    qsort(made->rows, count, sizeof *made->rows, compare_memories);
    uint32_t string_count = collect_strings(made->rows, count, &strings);
    must(mn_columns_create(&writer, &fakes->store, segment, count, strings, string_count) == MN_OK, "columns");
    made->died = zeros((count + 1) * sizeof *made->died); /* behind the last: how many are dead */
    uint64_t dead = 0;
    for (uint32_t i = 0; i < count; i++) {
        append_row(fakes, writer, strings, string_count, made->rows[i]);
        atomic_init(&made->died[i], made->rows[i]->died);
        dead += made->rows[i]->died != MN_ALIVE;
    }
    atomic_init(&made->died[count], dead);
    must(mn_columns_finish(writer, &bytes) == MN_OK, "finishing columns");
    free(strings);
    must(mn_columns_open(&made->columns, &fakes->store, segment, false) == MN_OK, "opening columns");
    struct mn_part *part = &fakes->parts[fakes->count++];
    mn_columns_part(made->columns, part);
    part->died = made->died;
    part->dead = &made->died[count];
}

/* ---- codes ---- */

static bool sample_row(void *context, uint64_t i, float *out)
{
    const struct fake_parts *fakes = context;
    uint32_t part = 0;
    for (; i >= fakes->parts[part].rows; part++)
        i -= fakes->parts[part].rows;
    const float *vector = fakes->made[part].rows[i]->vector;
    float scale = scale_of(fakes, vector);
    for (uint32_t j = 0; j < fakes->dim; j++)
        out[j] = vector[j] * scale;
    return true;
}

static bool never(void *context)
{
    return false;
}

const struct mn_codebook *fake_parts_codebook(struct fake_parts *fakes, uint64_t gen, uint32_t clusters)
{
    uint64_t rows = 0;
    must(fakes->codebook_count < CODEBOOKS_MAX, "too many codebooks");
    need_store(fakes);
    for (uint32_t i = 0; i < fakes->count; i++)
        rows += fakes->parts[i].rows;
    struct mn_codebook_sample sample = {.rows = rows, .row = sample_row, .context = fakes};
    if (gen > 0)
        must(mn_codebook_train(&fakes->store, gen, clusters, rows, &sample, gen, never, NULL) == MN_OK, "training");
    const struct mn_codebook **codebook = &fakes->codebooks[fakes->codebook_count++];
    must(mn_codebook_open(codebook, &fakes->store, gen) == MN_OK, "opening a codebook");
    return *codebook;
}

/* Groups rows by cluster: the slot of each row, and the row of each slot. */
static void lay_slots_out(struct mn_ivf *ivf, const uint32_t *clusters)
{
    uint32_t *sizes = zeros(ivf->clusters * sizeof *sizes), *first_slot = zeros((ivf->clusters + 1) * sizeof *sizes);
    uint32_t *slots = zeros(ivf->rows * sizeof *slots), *order = zeros(ivf->rows * sizeof *order);
    for (uint32_t row = 0; row < ivf->rows; row++)
        sizes[clusters[row]]++;
    for (uint32_t c = 0; c < ivf->clusters; c++) {
        first_slot[c + 1] = first_slot[c] + sizes[c];
        sizes[c] = 0;
    }
    for (uint32_t row = 0; row < ivf->rows; row++) {
        slots[row] = first_slot[clusters[row]] + sizes[clusters[row]]++;
        order[slots[row]] = row;
    }
    free(sizes);
    ivf->first_slot = first_slot;
    ivf->slots = slots;
    ivf->order = order;
}

/* The blocks of a flat one follow one another; else clusters share some. */
static void lay_blocks_out(struct mn_ivf *ivf)
{
    uint32_t clusters = ivf->clusters, *first_block = zeros((clusters + 1) * sizeof *first_block);
    uint32_t *rest = zeros(clusters * sizeof *rest), *homes = NULL, rows = ivf->rows;
    if (clusters == 1) {
        first_block[1] = rows / MN_IVF_LANES;
        rest[0] = rows % MN_IVF_LANES ? first_block[1] * MN_IVF_LANES : MN_NONE;
        ivf->block_count = (rows + MN_IVF_LANES - 1) / MN_IVF_LANES;
    } else {
        uint32_t *scratch = zeros(clusters * sizeof *scratch);
        float *distances = zeros(clusters * sizeof *distances);
        ivf->block_count =
            mn_ivf_arrange(ivf->codebook, mn_kernels_best(), ivf->first_slot, first_block, rest, scratch, distances);
        homes = zeros((ivf->block_count - first_block[clusters] + UINT64_C(1)) * MN_IVF_LANES * sizeof *homes);
        mn_ivf_fill_homes(clusters, ivf->first_slot, first_block, rest, ivf->block_count, homes);
        free(scratch);
        free(distances);
    }
    ivf->first_block = first_block;
    ivf->rest = rest;
    ivf->homes = homes;
}

static void encode_rows(const struct fake_parts *fakes, struct mn_ivf *ivf, const float *rotated,
                        const uint32_t *clusters)
{
    const struct mn_codebook *codebook = ivf->codebook;
    uint32_t width = codebook->width, block_bytes = mn_ivf_block_bytes(width), blocks = ivf->block_count;
    uint8_t *all = zeros((size_t)blocks * block_bytes), *codes8 = zeros((size_t)ivf->rows * width);
    struct mn_ivf_fine *fine = zeros(ivf->rows * sizeof *fine);
    for (uint32_t b = 0; b < blocks; b++)
        mn_ivf_clear_block(all + (size_t)b * block_bytes, width);
    for (uint32_t row = 0; row < ivf->rows; row++) {
        uint32_t slot = ivf->slots[row], lane = mn_ivf_lane(ivf, clusters[row], slot);
        uint8_t *block = all + (size_t)(lane / MN_IVF_LANES) * block_bytes;
        const float *centroid = ivf->clusters > 1 ? codebook->centroids + (size_t)clusters[row] * width : NULL;
        mn_ivf_encode(mn_kernels_best(), fakes->metric, width, rotated + (size_t)row * width, centroid, block,
                      lane % MN_IVF_LANES, codes8 + (size_t)slot * width, &fine[slot]);
    }
    ivf->blocks = all;
    ivf->codes8 = codes8;
    ivf->fine = fine;
}

void fake_parts_uncode(struct fake_parts *fakes, uint32_t part)
{
    free_codes(&fakes->made[part]);
    fakes->parts[part].ivf = NULL;
}

void fake_parts_code(struct fake_parts *fakes, uint32_t part, uint32_t rows, const struct mn_codebook *codebook,
                     bool flat)
{
    struct fake_part *made = &fakes->made[part];
    struct mn_ivf *ivf = &made->ivf;
    fake_parts_uncode(fakes, part);
    if (rows == 0)
        return;
    *ivf = (struct mn_ivf){.codebook = codebook, .clusters = flat ? 1 : codebook->clusters, .rows = rows};
    float *rotated = zeros((size_t)rows * codebook->width * sizeof *rotated);
    uint32_t *clusters = zeros(rows * sizeof *clusters);
    for (uint32_t row = 0; row < rows; row++) {
        const float *vector = made->rows[row]->vector;
        mn_codebook_rotate(codebook, mn_kernels_best(), vector, scale_of(fakes, vector),
                           rotated + (size_t)row * codebook->width);
    }
    if (!flat)
        mn_codebook_assign(codebook, mn_kernels_best(), rotated, rows, clusters, NULL);
    lay_slots_out(ivf, clusters);
    lay_blocks_out(ivf);
    encode_rows(fakes, ivf, rotated, clusters);
    if (flat) { /* as in a tail chunk */
        free((void *)(uintptr_t)ivf->slots);
        free((void *)(uintptr_t)ivf->order);
        ivf->slots = ivf->order = NULL;
    }
    free(rotated);
    free(clusters);
    fakes->parts[part].ivf = ivf;
}

/* Flips bytes of the 8-bit codes, far apart. */
static void damage_codes(const struct fake_parts *fakes, uint32_t part, const struct mn_codebook *codebook,
                         uint32_t damage)
{
    char path[MN_PATH_MAX];
    struct mn_column_file file;
    mn_ivf_path(&fakes->store, path, part + 1, codebook->gen);
    must(mn_column_file_map(&file, &fakes->store, part + 1, MN_COLUMN_IVF, path) == MN_OK, "mapping codes");
    const struct mn_ivf_body *body = (const void *)file.data;
    uint64_t first = (uint64_t)(file.data - (const uint8_t *)file.base) + body->codes8_at;
    uint64_t bytes = (uint64_t)body->rows * body->width;
    mn_column_file_unmap(&file);
    FILE *f = fopen(path, "r+b");
    must(f != NULL, "opening codes");
    for (uint32_t i = 0; i < damage; i++) {
        long at = (long)(first + bytes * i / damage);
        must(fseek(f, at, SEEK_SET) == 0, "seeking");
        int byte = fgetc(f);
        must(fseek(f, at, SEEK_SET) == 0 && fputc(byte ^ 0x40, f) != EOF, "flipping a byte");
    }
    must(fclose(f) == 0, "closing codes");
}

void fake_parts_code_file(struct fake_parts *fakes, uint32_t part, const struct mn_codebook *codebook, uint32_t damage)
{
    struct fake_part *made = &fakes->made[part];
    uint64_t bytes;
    float energy;
    fake_parts_uncode(fakes, part);
    must(mn_ivf_write(&fakes->store, part + 1, &fakes->parts[part], codebook, NULL, never, NULL, &bytes, &energy) ==
             MN_OK,
         "writing codes");
    if (damage > 0)
        damage_codes(fakes, part, codebook, damage);
    must(mn_ivf_open(&made->codes, &fakes->store, part + 1, codebook->gen) == MN_OK, "opening codes");
    fakes->parts[part].ivf = mn_ivf_of(made->codes);
}

/* ---- the whole ---- */

struct mn_snapshot fake_parts_snapshot(struct fake_parts *fakes, uint64_t seq, int64_t now)
{
    return (struct mn_snapshot){.gen = 1, .seq = seq, .now = now, .part_count = fakes->count, .parts = fakes->parts};
}

const struct fake_memory *fake_parts_memory(const struct fake_parts *fakes, uint32_t part, uint32_t row)
{
    return fakes->made[part].rows[row];
}
