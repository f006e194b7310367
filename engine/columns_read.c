/*
 * columns_read.c - reading a column segment: mappings that the threads of a process share, and checks at first touch.
 *
 * Opening takes a mutex (segments appear a few times a minute at most); reading takes nothing. What was checked is kept
 * in bitmaps of relaxed atomics: two threads may check the same block at once, and both find the same.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <roaring/roaring.h>

#include "engine/columns.h"
#include "engine/columns_file.h"
#include "engine/meta_index.h"
#include "shm/process.h"

#define ROWS_NEAR 8 /* rows between two that are wanted: cheaper to read than to leave out */
#define ROWS_FAR  4 /* of rows in one run, how many times as many are asked for */

struct mn_columns {
    /* Asked for at each embedding. A bit per block of the embeddings: set when that block and the ones which a vector
     * that begins in it may reach into are intact. */
    const uint8_t *vectors;
    uint64_t vector_bytes;
    _Atomic uint64_t *vectors_checked;

    uint64_t segment;
    uint32_t rows, strings;
    uint64_t born_max;
    int64_t expires_min;
    struct mn_column_file files[MN_COLUMN_COUNT];
    _Atomic uint64_t *checked[MN_COLUMN_COUNT]; /* a bit per block; of columns that are checked at first touch */
    _Atomic uint64_t *damaged[MN_COLUMN_COUNT];
    _Atomic bool *any_damaged;    /* reading is const, but for what it finds out */
    const uint32_t *bucket_first; /* idhash */
    const uint64_t *bucket_entries;
    uint64_t buckets;
    const struct mn_posting_entry *postings;    /* [2][strings] */
    _Atomic(const roaring_bitmap_t *) *bitmaps; /* [2][strings]: views made so far */
    struct mn_meta_index meta_index;

    /* The registry's. */
    struct mn_columns *next;
    uint32_t users;
    bool small_checked; /* the columns that are checked whole */
    bool bounds_known;
    char dir[MN_PATH_MAX];
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mn_columns *registry;
static _Atomic bool scattered; /* since the registry's embeddings were more than memory holds */

/* ---- bits ---- */

static inline bool bit_test(const _Atomic uint64_t *bits, uint64_t bit)
{
    return atomic_load_explicit(&bits[bit / 64], memory_order_relaxed) >> (bit % 64) & 1;
}

static inline void bit_set(_Atomic uint64_t *bits, uint64_t bit)
{
    atomic_fetch_or_explicit(&bits[bit / 64], UINT64_C(1) << (bit % 64), memory_order_relaxed);
}

static bool block_intact(const struct mn_columns *c, enum mn_column column, uint64_t block)
{
    if (bit_test(c->checked[column], block))
        return true;
    if (bit_test(c->damaged[column], block))
        return false;
    bool intact = mn_column_file_intact(&c->files[column], block);
    bit_set(intact ? c->checked[column] : c->damaged[column], block);
    if (!intact)
        atomic_store_explicit(c->any_damaged, true, memory_order_relaxed);
    return intact;
}

/* True when all blocks under bytes [at, at + bytes) are intact; *bad is the first that is not. */
static bool range_intact(const struct mn_columns *c, enum mn_column column, uint64_t at, uint64_t bytes, uint64_t *bad)
{
    if (bytes == 0)
        return true;
    for (uint64_t block = at / MN_COLUMN_BLOCK; block <= (at + bytes - 1) / MN_COLUMN_BLOCK; block++) {
        if (!block_intact(c, column, block)) {
            *bad = block;
            return false;
        }
    }
    return true;
}

/* ---- opening ---- */

static enum mn_status damaged_file(const struct mn_columns *c, enum mn_column column, const char *what)
{
    return MN_FAIL(MN_CORRUPT, "%s/%s.col %s", c->dir, mn_column_info[column].name, what);
}

static enum mn_status map_column(struct mn_columns *c, const struct mn_store *store, enum mn_column column)
{
    char path[MN_PATH_MAX];
    struct mn_column_file *file = &c->files[column];
    mn_store_column_path(store, path, c->segment, mn_column_info[column].name);
    enum mn_status status = mn_column_file_map(file, store, c->segment, column, path);
    if (status == MN_NOT_FOUND)
        return MN_FAIL(MN_CORRUPT, "%s is missing", path);
    MN_TRY(status);
    if (mn_column_info[column].whole)
        return MN_OK;
    size_t words = file->blocks / 64 + 1;
    c->checked[column] = calloc(words, sizeof *c->checked[column]);
    c->damaged[column] = calloc(words, sizeof *c->damaged[column]);
    if (!c->checked[column] || !c->damaged[column])
        return MN_FAIL(MN_SYSTEM, "no memory to open %s", path);
    return MN_OK;
}

/* The starts of a column of variable elements. */
static const uint64_t *starts(const struct mn_column_file *file)
{
    return (const uint64_t *)(const void *)(file->data + file->data_bytes) - file->header->rows - 1;
}

/* Where they begin in the data: the elements' bytes end before. */
static uint64_t starts_at(const struct mn_column_file *file)
{
    return file->data_bytes - (file->header->rows + 1) * sizeof(uint64_t);
}

static enum mn_status check_variable(const struct mn_columns *c, enum mn_column column)
{
    const struct mn_column_file *file = &c->files[column];
    if (file->header->rows > MN_COLUMNS_ROWS_MAX * UINT64_C(64) || file->data_bytes % 8 != 0 ||
        file->data_bytes < (file->header->rows + 1) * sizeof(uint64_t))
        return damaged_file(c, column, "is too short for its offsets");
    return MN_OK;
}

static enum mn_status check_shapes(struct mn_columns *c)
{
    static const enum mn_column variable[] = {MN_COLUMN_TAGS, MN_COLUMN_META, MN_COLUMN_CONTENT, MN_COLUMN_STRINGS};
    uint64_t rows = c->files[MN_COLUMN_IDS].header->rows;
    if (rows == 0 || rows > MN_COLUMNS_ROWS_MAX)
        return damaged_file(c, MN_COLUMN_IDS, "has an impossible number of rows");
    c->rows = (uint32_t)rows;
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++)
        if (column != MN_COLUMN_DIED && column != MN_COLUMN_STRINGS && column != MN_COLUMN_POSTINGS &&
            c->files[column].header->rows != rows)
            return damaged_file(c, column, "has another number of rows than ids.col");
    for (size_t v = 0; v < MN_ARRAY_LEN(variable); v++)
        MN_TRY(check_variable(c, variable[v]));
    uint64_t strings = c->files[MN_COLUMN_STRINGS].header->rows;
    if (strings >= MN_NONE)
        return damaged_file(c, MN_COLUMN_STRINGS, "has an impossible number of strings");
    c->strings = (uint32_t)strings;
    return MN_OK;
}

static enum mn_status find_indexes(struct mn_columns *c)
{
    const struct mn_column_file *hash = &c->files[MN_COLUMN_IDHASH], *lists = &c->files[MN_COLUMN_POSTINGS];
    uint64_t buckets = hash->header->extra, first_bytes = mn_round_up((buckets + 1) * sizeof(uint32_t), 8);
    if (buckets == 0 || (buckets & (buckets - 1)) != 0 || buckets > UINT64_C(1) << 32 ||
        hash->data_bytes != first_bytes + c->rows * sizeof(uint64_t))
        return damaged_file(c, MN_COLUMN_IDHASH, "has an impossible number of buckets");
    c->buckets = buckets;
    c->bucket_first = (const uint32_t *)(const void *)hash->data;
    c->bucket_entries = (const uint64_t *)(const void *)(hash->data + first_bytes);
    uint64_t directory = 2 * (uint64_t)c->strings * sizeof(struct mn_posting_entry);
    if (lists->header->rows != 2 * (uint64_t)c->strings || lists->data_bytes < directory)
        return damaged_file(c, MN_COLUMN_POSTINGS, "does not fit strings.col");
    c->postings = (const struct mn_posting_entry *)(const void *)(lists->data + lists->data_bytes - directory);
    if (!mn_meta_index_open(&c->meta_index, c, &c->files[MN_COLUMN_METAINDEX]))
        return damaged_file(c, MN_COLUMN_METAINDEX, "is not what it should be");
    c->bitmaps = calloc(2 * (size_t)c->strings + 1, sizeof *c->bitmaps);
    if (!c->bitmaps)
        return MN_FAIL(MN_SYSTEM, "no memory for the postings of %s", c->dir);
    return MN_OK;
}

static void unmap_all(struct mn_columns *c)
{
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++) {
        if (c->files[column].base)
            mn_column_file_unmap(&c->files[column]);
        free(c->checked[column]);
        free(c->damaged[column]);
    }
    free(c->any_damaged);
    for (size_t b = 0; c->bitmaps && b < 2 * (size_t)c->strings; b++) {
        const roaring_bitmap_t *bitmap = atomic_load_explicit(&c->bitmaps[b], memory_order_relaxed);
        if (bitmap)
            roaring_bitmap_free((roaring_bitmap_t *)(uintptr_t)bitmap);
    }
    free(c->bitmaps);
    free(c->vectors_checked);
    free(c);
}

static enum mn_status map_all(struct mn_columns *c, const struct mn_store *store)
{
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++)
        if (column != MN_COLUMN_DIED) /* liveness is read from shared memory; the file is recovery's */
            MN_TRY(map_column(c, store, column));
    MN_TRY(check_shapes(c));
    MN_TRY(find_indexes(c));
    const struct mn_column_file *vectors = &c->files[MN_COLUMN_EMBEDDINGS];
    c->vectors = vectors->data;
    c->vector_bytes = vectors->header->element_bytes;
    c->vectors_checked = calloc(vectors->blocks / 64 + 1, sizeof *c->vectors_checked);
    return c->vectors_checked ? MN_OK : MN_FAIL(MN_SYSTEM, "no memory to open %s", c->dir);
}

/* Checks the data of the columns that are checked whole (or of the others). */
static enum mn_status check_columns(const struct mn_columns *c, const struct mn_store *store, bool whole)
{
    char path[MN_PATH_MAX];
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++)
        if (c->files[column].base && mn_column_info[column].whole == whole)
            MN_TRY(mn_column_file_check(&c->files[column],
                                        mn_store_column_path(store, path, c->segment, mn_column_info[column].name)));
    return MN_OK;
}

static enum mn_status check_deep(const struct mn_columns *c, const struct mn_store *store)
{
    char path[MN_PATH_MAX];
    MN_TRY(check_columns(c, store, false));
    struct mn_column_file died;
    mn_store_column_path(store, path, c->segment, mn_column_info[MN_COLUMN_DIED].name);
    MN_TRY(mn_column_file_map(&died, store, c->segment, MN_COLUMN_DIED, path));
    enum mn_status status = mn_column_file_check(&died, path);
    if (status == MN_OK && died.header->rows != c->rows)
        status = damaged_file(c, MN_COLUMN_DIED, "has another number of rows than ids.col");
    mn_column_file_unmap(&died);
    return status;
}

/* More embeddings than memory: what is read along with a page would only push others out. */
static void weigh(void)
{
    uint64_t bytes = 0;
    for (const struct mn_columns *c = registry; c; c = c->next)
        bytes += c->files[MN_COLUMN_EMBEDDINGS].file_bytes;
    if (bytes <= mn_memory_bytes() / 2)
        return;
    atomic_store_explicit(&scattered, true, memory_order_relaxed);
    for (struct mn_columns *c = registry; c; c = c->next)
        mn_column_file_scatter(&c->files[MN_COLUMN_EMBEDDINGS], 0);
}

bool mn_columns_scattered(void)
{
    return atomic_load_explicit(&scattered, memory_order_relaxed);
}

static enum mn_status find_or_map(struct mn_columns **columns, const struct mn_store *store, uint64_t segment)
{
    char dir[MN_PATH_MAX];
    mn_store_columns_dir(store, dir, segment);
    for (struct mn_columns *c = registry; c; c = c->next) {
        if (c->segment == segment && strcmp(c->dir, dir) == 0) {
            c->users++;
            *columns = c;
            return MN_OK;
        }
    }
    struct mn_columns *c = calloc(1, sizeof *c);
    if (!c)
        return MN_FAIL(MN_SYSTEM, "no memory to open %s", dir);
    c->segment = segment;
    c->users = 1;
    memcpy(c->dir, dir, sizeof c->dir);
    c->any_damaged = calloc(1, sizeof *c->any_damaged);
    enum mn_status status = c->any_damaged ? map_all(c, store) : MN_FAIL(MN_SYSTEM, "no memory to open %s", dir);
    if (status != MN_OK) {
        unmap_all(c);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    c->next = registry;
    registry = c;
    weigh();
    *columns = c;
    return MN_OK;
}

static void close_locked(struct mn_columns *columns)
{
    if (--columns->users > 0)
        return;
    struct mn_columns **link = &registry;
    while (*link != columns)
        link = &(*link)->next;
    *link = columns->next;
    unmap_all(columns);
}

/* After the columns were checked, here or elsewhere in the instance. */
static void find_bounds(struct mn_columns *c)
{
    const uint64_t *born = (const void *)c->files[MN_COLUMN_BORN].data;
    const int64_t *expires = (const void *)c->files[MN_COLUMN_EXPIRES].data;
    c->born_max = 0;
    c->expires_min = MN_NEVER;
    for (uint32_t row = 0; row < c->rows; row++) {
        c->born_max = born[row] > c->born_max ? born[row] : c->born_max;
        c->expires_min = expires[row] < c->expires_min ? expires[row] : c->expires_min;
    }
    c->bounds_known = true;
}

static enum mn_status open_locked(struct mn_columns **columns, const struct mn_store *store, uint64_t segment,
                                  enum mn_columns_check check)
{
    struct mn_columns *c = NULL;
    MN_TRY(find_or_map(&c, store, segment));
    MN_ASSERT(c);
    enum mn_status status = MN_OK;
    if (check == MN_COLUMNS_DEEP || (check == MN_COLUMNS_CHECK && !c->small_checked))
        status = check_columns(c, store, true);
    if (status != MN_OK) {
        close_locked(c);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    c->small_checked |= check != MN_COLUMNS_TRUST;
    if (!c->bounds_known)
        find_bounds(c);
    *columns = c;
    return MN_OK;
}

enum mn_status mn_columns_open(struct mn_columns **columns, const struct mn_store *store, uint64_t segment,
                               enum mn_columns_check check)
{
    *columns = NULL;
    pthread_mutex_lock(&registry_lock);
    enum mn_status status = open_locked(columns, store, segment, check);
    pthread_mutex_unlock(&registry_lock);
    MN_TRY(status);
    MN_ASSERT(*columns);
    if (check == MN_COLUMNS_DEEP)
        status = check_deep(*columns, store);
    if (status != MN_OK) {
        mn_columns_close(*columns);
        *columns = NULL;
    }
    return status;
}

void mn_columns_close(struct mn_columns *columns)
{
    if (!columns)
        return;
    pthread_mutex_lock(&registry_lock);
    close_locked(columns);
    pthread_mutex_unlock(&registry_lock);
}

/* ---- rows ---- */

void mn_columns_part(const struct mn_columns *c, struct mn_part *part)
{
    const struct mn_column_file *f = c->files;
    *part = (struct mn_part){.number = c->segment,
                             .rows = c->rows,
                             .dim = f[MN_COLUMN_EMBEDDINGS].header->dim,
                             .columns = c,
                             .ids = (const void *)f[MN_COLUMN_IDS].data,
                             .spaces = (const void *)f[MN_COLUMN_SPACES].data,
                             .born = (const void *)f[MN_COLUMN_BORN].data,
                             .at = (const void *)f[MN_COLUMN_TIMES].data,
                             .expires = (const void *)f[MN_COLUMN_EXPIRES].data,
                             .born_max = c->born_max,
                             .expires_min = c->expires_min,
                             .confidence = (const void *)f[MN_COLUMN_CONFIDENCE].data,
                             .scale = (const void *)f[MN_COLUMN_SCALE].data,
                             .vectors = (const void *)f[MN_COLUMN_EMBEDDINGS].data};
}

/* Checks the block that a vector begins in and those it may reach into. */
static __attribute__((noinline)) bool check_vector(const struct mn_columns *c, uint64_t at)
{
    uint64_t begin = at / MN_COLUMN_BLOCK * MN_COLUMN_BLOCK, bad;
    uint64_t reach = MN_COLUMN_BLOCK - 1 + c->vector_bytes, stored = c->files[MN_COLUMN_EMBEDDINGS].data_bytes;
    if (reach > stored - begin)
        reach = stored - begin;
    if (range_intact(c, MN_COLUMN_EMBEDDINGS, begin, reach, &bad)) {
        bit_set(c->vectors_checked, at / MN_COLUMN_BLOCK);
        return true;
    }
    /* A neighbour is damaged: what matters is this vector. */
    return range_intact(c, MN_COLUMN_EMBEDDINGS, at, c->vector_bytes, &bad);
}

const float *mn_columns_vector(const struct mn_columns *c, uint32_t row)
{
    uint64_t at = row * c->vector_bytes;
    if (__builtin_expect(!bit_test(c->vectors_checked, at / MN_COLUMN_BLOCK), 0) && !check_vector(c, at))
        return NULL;
    return (const float *)(const void *)(c->vectors + at);
}

void mn_columns_ahead(const struct mn_columns *c, const uint32_t *rows, uint32_t count)
{
    const struct mn_column_file *file = &c->files[MN_COLUMN_EMBEDDINGS];
    if (!atomic_load_explicit(&file->scattered, memory_order_relaxed))
        return;
    for (uint32_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && rows[end] - rows[end - 1] <= ROWS_NEAR;)
            end++;
        uint64_t last = rows[end - 1] + (end - i == count && count > 1 ? ROWS_FAR * (uint64_t)count : 1);
        mn_column_file_ahead(file, rows[i] * c->vector_bytes, (last - rows[i]) * c->vector_bytes);
    }
}

/* The bytes of an element of meta or content, and its start word. */
static enum mn_status variable_element(const struct mn_columns *c, enum mn_column column, uint32_t row,
                                       struct mn_str *bytes, uint64_t *word)
{
    const struct mn_column_file *file = &c->files[column];
    uint64_t offsets = starts_at(file), bad = 0;
    if (row >= c->rows || !range_intact(c, column, offsets + row * sizeof(uint64_t), 2 * sizeof(uint64_t), &bad))
        goto damaged;
    *word = starts(file)[row];
    uint64_t begin = MN_COLUMN_START(*word), end = MN_COLUMN_START(starts(file)[row + 1]);
    if (begin > end || end > offsets || end - begin > UINT32_MAX)
        goto damaged;
    if (!range_intact(c, column, begin, end - begin, &bad))
        goto damaged;
    *bytes = (struct mn_str){(const char *)file->data + begin, (uint32_t)(end - begin)};
    return MN_OK;
damaged:
    return MN_FAIL(MN_CORRUPT, "%s/%s.col: block %llu does not match its checksum", c->dir, mn_column_info[column].name,
                   (unsigned long long)bad);
}

enum mn_status mn_columns_meta(const struct mn_columns *c, uint32_t row, struct mn_str *meta)
{
    uint64_t word = 0;
    MN_TRY(variable_element(c, MN_COLUMN_META, row, meta, &word));
    return MN_OK;
}

enum mn_status mn_columns_content(const struct mn_columns *c, uint32_t row, struct mn_str *content, bool *bin)
{
    uint64_t word = 0;
    MN_TRY(variable_element(c, MN_COLUMN_CONTENT, row, content, &word));
    *bin = (word & MN_COLUMN_FLAG_BIN) != 0;
    if (word & MN_COLUMN_FLAG_NONE)
        *content = (struct mn_str){NULL, 0};
    return MN_OK;
}

uint32_t mn_columns_tags(const struct mn_columns *c, uint32_t row, const uint32_t **tags)
{
    const struct mn_column_file *file = &c->files[MN_COLUMN_TAGS];
    const uint64_t *start = starts(file);
    *tags = (const uint32_t *)(const void *)(file->data + start[row]);
    if (start[row] > start[row + 1] || start[row + 1] > starts_at(file))
        return 0;
    return (uint32_t)((start[row + 1] - start[row]) / sizeof(uint32_t));
}

/* ---- strings and postings ---- */

struct mn_str mn_columns_string(const struct mn_columns *c, uint32_t number)
{
    const struct mn_column_file *file = &c->files[MN_COLUMN_STRINGS];
    const uint64_t *start = starts(file);
    if (number >= c->strings || start[number] > start[number + 1] || start[number + 1] > starts_at(file))
        return (struct mn_str){"", 0};
    return (struct mn_str){(const char *)file->data + start[number], (uint32_t)(start[number + 1] - start[number])};
}

static int compare(struct mn_str a, struct mn_str b)
{
    int order = memcmp(a.data, b.data, a.length < b.length ? a.length : b.length);
    if (order != 0)
        return order;
    return a.length == b.length ? 0 : a.length < b.length ? -1 : 1;
}

uint32_t mn_columns_lookup(const struct mn_columns *c, struct mn_str s)
{
    uint32_t low = 0, high = c->strings;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare(mn_columns_string(c, middle), s);
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return MN_NONE;
}

uint32_t mn_columns_posting_rows(const struct mn_columns *c, enum mn_posting kind, uint32_t string)
{
    return string < c->strings ? c->postings[(size_t)kind * c->strings + string].rows : 0;
}

const void *mn_columns_postings(const struct mn_columns *c, enum mn_posting kind, uint32_t string)
{
    if (string >= c->strings)
        return NULL;
    size_t index = (size_t)kind * c->strings + string;
    const struct mn_posting_entry *entry = &c->postings[index];
    const roaring_bitmap_t *bitmap = atomic_load_explicit(&c->bitmaps[index], memory_order_acquire);
    const struct mn_column_file *file = &c->files[MN_COLUMN_POSTINGS];
    if (bitmap || entry->rows == 0 || entry->at % 32 != 0 || entry->at > file->data_bytes ||
        entry->bytes > file->data_bytes - entry->at)
        return bitmap;
    bitmap = roaring_bitmap_frozen_view((const char *)file->data + entry->at, entry->bytes);
    const roaring_bitmap_t *other = NULL;
    /* Another thread may have made the same view meanwhile: the first one stays. */
    if (bitmap && !atomic_compare_exchange_strong_explicit(&c->bitmaps[index], &other, bitmap, memory_order_acq_rel,
                                                           memory_order_acquire)) {
        roaring_bitmap_free((roaring_bitmap_t *)(uintptr_t)bitmap);
        bitmap = other;
    }
    return bitmap;
}

const struct mn_meta_index *mn_columns_meta_index(const struct mn_columns *c)
{
    return &c->meta_index;
}

/* ---- ids ---- */

static uint32_t find_from(const struct mn_columns *c, struct mn_part_find *find, uint32_t at)
{
    uint64_t bucket = find->hash & (c->buckets - 1);
    uint32_t end = c->bucket_first[bucket + 1];
    const struct mn_id *ids = (const void *)c->files[MN_COLUMN_IDS].data;
    const uint32_t *spaces = (const void *)c->files[MN_COLUMN_SPACES].data;
    for (; at < end && at < c->rows; at++) {
        uint32_t row = (uint32_t)c->bucket_entries[at];
        if (c->bucket_entries[at] >> 32 == find->hash >> 32 && row < c->rows && spaces[row] == find->space &&
            mn_id_equal(&ids[row], &find->id)) {
            find->at = at;
            return row;
        }
    }
    find->at = end;
    return MN_NONE;
}

uint32_t mn_columns_find_first(const struct mn_columns *c, struct mn_part_find *find)
{
    return find_from(c, find, c->bucket_first[find->hash & (c->buckets - 1)]);
}

uint32_t mn_columns_find_next(const struct mn_columns *c, struct mn_part_find *find)
{
    return find_from(c, find, find->at + 1);
}

/* ---- the rest ---- */

bool mn_columns_damaged(const struct mn_columns *c)
{
    return atomic_load_explicit(c->any_damaged, memory_order_relaxed);
}

void mn_columns_residency(const struct mn_columns *c, uint64_t *bytes, uint64_t *resident)
{
    const struct mn_column_file *file = &c->files[MN_COLUMN_EMBEDDINGS];
    unsigned char pages[4096];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    *bytes = file->data_bytes;
    *resident = 0;
    for (uint64_t at = 0; at < file->file_bytes; at += sizeof pages * page) {
        uint64_t length = file->file_bytes - at < sizeof pages * page ? file->file_bytes - at : sizeof pages * page;
        if (mincore((void *)(uintptr_t)(file->base + at), length, pages) != 0)
            return;
        for (uint64_t p = 0; p < (length + page - 1) / page; p++)
            *resident += (pages[p] & 1) ? page : 0;
    }
    if (*resident > *bytes)
        *resident = *bytes;
}

enum mn_status mn_columns_read_died(const struct mn_store *store, uint64_t segment, uint64_t died_seq, uint64_t rows,
                                    uint64_t *died)
{
    char name[64], path[MN_PATH_MAX];
    struct mn_column_file file;
    snprintf(name, sizeof name, died_seq ? "died.%llu" : "died", (unsigned long long)died_seq);
    mn_store_column_path(store, path, segment, name);
    MN_TRY(mn_column_file_map(&file, store, segment, MN_COLUMN_DIED, path));
    enum mn_status status = mn_column_file_check(&file, path);
    if (status == MN_OK && (file.header->rows != rows || file.header->extra != died_seq))
        status = MN_FAIL(MN_CORRUPT, "%s holds the liveness of %llu rows as of seq %llu, not of %llu as of %llu", path,
                         (unsigned long long)file.header->rows, (unsigned long long)file.header->extra,
                         (unsigned long long)rows, (unsigned long long)died_seq);
    if (status == MN_OK)
        memcpy(died, file.data, rows * sizeof *died);
    mn_column_file_unmap(&file);
    return status;
}
