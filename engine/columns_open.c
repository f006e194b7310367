/*
 * columns_open.c - opening a column segment: mappings that the threads of a process share, and what is done about files
 * that are damaged.
 *
 * A small column that is damaged is made again in memory from parity (columns_parity.h), so that every row stays
 * available until the compactor has mended the file; of a large one, header and checksums are. Indexes that cannot be
 * made again are done without. Only a small column that is beyond that makes the segment one that cannot be opened.
 *
 * Opening takes a mutex (segments appear a few times a minute at most) and runs under a guard.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/columns_inside.h"
#include "engine/guard.h"
#include "shm/process.h"

/* Columns that follow from the others. */
#define DERIVED (1u << MN_COLUMN_IDHASH | 1u << MN_COLUMN_POSTINGS | 1u << MN_COLUMN_METAINDEX)

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mn_columns *registry;
static _Atomic bool scattered; /* since the registry's embeddings were more than memory holds */

static enum mn_status damaged_file(const struct mn_columns *c, enum mn_column column, const char *what)
{
    return MN_FAIL(MN_CORRUPT, "%s/%s.col %s", c->dir, mn_column_info[column].name, what);
}

/* ---- shapes ---- */

static enum mn_status check_variable(const struct mn_columns *c, enum mn_column column)
{
    const struct mn_column_file *file = &c->files[column];
    if (file->header->rows > MN_COLUMNS_ROWS_MAX * UINT64_C(64) || file->data_bytes % 8 != 0 ||
        file->data_bytes < (file->header->rows + 1) * sizeof(uint64_t))
        return damaged_file(c, column, "is too short for its offsets");
    return MN_OK;
}

static bool there(const struct mn_columns *c, enum mn_column column)
{
    return c->files[column].header != NULL;
}

static enum mn_status check_shapes(struct mn_columns *c)
{
    static const enum mn_column variable[] = {MN_COLUMN_TAGS, MN_COLUMN_META, MN_COLUMN_CONTENT, MN_COLUMN_STRINGS};
    uint64_t rows = c->files[MN_COLUMN_IDS].header->rows;
    if (rows == 0 || rows > MN_COLUMNS_ROWS_MAX)
        return damaged_file(c, MN_COLUMN_IDS, "has an impossible number of rows");
    c->rows = (uint32_t)rows;
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++)
        if (there(c, column) && column != MN_COLUMN_STRINGS && column != MN_COLUMN_POSTINGS &&
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

static enum mn_status use_idhash(struct mn_columns *c)
{
    const struct mn_column_file *hash = &c->files[MN_COLUMN_IDHASH];
    uint64_t buckets = hash->header->extra, first_bytes = mn_round_up((buckets + 1) * sizeof(uint32_t), 8);
    if (buckets == 0 || (buckets & (buckets - 1)) != 0 || buckets > UINT64_C(1) << 32 ||
        hash->data_bytes != first_bytes + c->rows * sizeof(uint64_t))
        return damaged_file(c, MN_COLUMN_IDHASH, "has an impossible number of buckets");
    c->buckets = buckets;
    c->bucket_first = (const uint32_t *)(const void *)hash->data;
    c->bucket_entries = (const uint64_t *)(const void *)(hash->data + first_bytes);
    return MN_OK;
}

static enum mn_status use_postings(struct mn_columns *c)
{
    const struct mn_column_file *lists = &c->files[MN_COLUMN_POSTINGS];
    uint64_t directory = 2 * (uint64_t)c->strings * sizeof(struct mn_posting_entry);
    if (lists->header->rows != 2 * (uint64_t)c->strings || lists->data_bytes < directory)
        return damaged_file(c, MN_COLUMN_POSTINGS, "does not fit strings.col");
    c->postings = (const struct mn_posting_entry *)(const void *)(lists->data + lists->data_bytes - directory);
    c->bitmaps = calloc(2 * (size_t)c->strings + 1, sizeof *c->bitmaps);
    return c->bitmaps ? MN_OK : MN_FAIL(MN_SYSTEM, "no memory for the postings of %s", c->dir);
}

static enum mn_status find_indexes(struct mn_columns *c)
{
    if (there(c, MN_COLUMN_IDHASH))
        MN_TRY(use_idhash(c));
    if (there(c, MN_COLUMN_POSTINGS))
        MN_TRY(use_postings(c));
    c->meta_index = (struct mn_meta_index){.columns = c, .rows = c->rows}; /* that knows nothing */
    if (there(c, MN_COLUMN_METAINDEX) && !mn_meta_index_open(&c->meta_index, c, &c->files[MN_COLUMN_METAINDEX]))
        return damaged_file(c, MN_COLUMN_METAINDEX, "is not what it should be");
    const struct mn_column_file *vectors = &c->files[MN_COLUMN_EMBEDDINGS];
    c->vectors = vectors->data;
    c->vector_bytes = vectors->header->element_bytes;
    c->vectors_checked = calloc(vectors->blocks / 64 + 1, sizeof *c->vectors_checked);
    return c->vectors_checked ? MN_OK : MN_FAIL(MN_SYSTEM, "no memory to open %s", c->dir);
}

/* ---- mending in memory ---- */

static void note_trouble(struct mn_columns *c, enum mn_column column)
{
    if (c->mended == 0)
        snprintf(c->trouble, sizeof c->trouble, "%s", mn_error_text());
    c->mended |= 1u << column;
}

/* A column that is damaged, for the reason of the last error. */
static enum mn_status mend(struct mn_columns *c, const struct mn_store *store, enum mn_column column)
{
    struct mn_columns_parity parity;
    char why[256];
    note_trouble(c, column);
    snprintf(why, sizeof why, "%s", mn_error_text());
    enum mn_status status = mn_columns_parity_open(&parity, store, c->segment);
    if (status == MN_OK) {
        status = mn_column_info[column].whole ? mn_columns_make_small(&c->files[column], &parity, column)
                                              : mn_columns_make_frame(&c->files[column], &parity, c->segment, column);
        mn_columns_parity_close(&parity);
    }
    if (status == MN_OK || status == MN_SYSTEM)
        return status;
    mn_column_file_unmap(&c->files[column]);
    c->files[column] = (struct mn_column_file){0};
    return DERIVED >> column & 1 ? MN_OK : MN_FAIL(MN_CORRUPT, "%s", why);
}

/* ---- mapping ---- */

static enum mn_status map_file(struct mn_columns *c, const struct mn_store *store, enum mn_column column)
{
    char path[MN_PATH_MAX];
    mn_store_column_path(store, path, c->segment, mn_column_info[column].name);
    enum mn_status status = mn_column_file_map(&c->files[column], store, c->segment, column, path);
    if (status == MN_NOT_FOUND)
        status = MN_FAIL(MN_CORRUPT, "%s is missing", path);
    return status == MN_CORRUPT ? mend(c, store, column) : status;
}

static enum mn_status map_column(struct mn_columns *c, const struct mn_store *store, enum mn_column column)
{
    const struct mn_column_file *file = &c->files[column];
    MN_TRY(map_file(c, store, column));
    if (mn_column_info[column].whole)
        return MN_OK;
    size_t words = file->blocks / 64 + 1;
    c->checked[column] = calloc(words, sizeof *c->checked[column]);
    c->damaged[column] = calloc(words, sizeof *c->damaged[column]);
    if (!c->checked[column] || !c->damaged[column])
        return MN_FAIL(MN_SYSTEM, "no memory to open %s", c->dir);
    for (size_t w = 0; !file->data && w < words; w++) /* the file is gone */
        atomic_store_explicit(&c->damaged[column][w], UINT64_MAX, memory_order_relaxed);
    if (!file->data)
        atomic_store_explicit(c->any_damaged, true, memory_order_relaxed);
    return MN_OK;
}

static enum mn_status map_all(struct mn_columns *c, const struct mn_store *store)
{
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++)
        if (column != MN_COLUMN_DIED) /* liveness is read from shared memory; the file is recovery's */
            MN_TRY(map_column(c, store, column));
    return check_shapes(c);
}

static void unmap_all(struct mn_columns *c)
{
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++) {
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

/* ---- checking ---- */

static enum mn_status check_column(const struct mn_columns *c, const struct mn_store *store, enum mn_column column)
{
    char path[MN_PATH_MAX];
    return mn_column_file_check(&c->files[column],
                                mn_store_column_path(store, path, c->segment, mn_column_info[column].name));
}

/* Before anybody else sees the segment: what does not match its checksums is mended. */
static enum mn_status check_small(struct mn_columns *c, const struct mn_store *store)
{
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++) {
        if (!there(c, column) || !mn_column_info[column].whole || c->mended >> column & 1)
            continue;
        enum mn_status status = check_column(c, store, column);
        MN_TRY(status == MN_CORRUPT ? mend(c, store, column) : status);
    }
    return MN_OK;
}

static bool small_columns_hold(const struct mn_columns *c, const struct mn_store *store)
{
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++)
        if (there(c, column) && mn_column_info[column].whole && check_column(c, store, column) != MN_OK)
            return false;
    return true;
}

/* A file of the segment that is not mapped with it. */
static enum mn_status check_other(const struct mn_columns *c, const struct mn_store *store, enum mn_column column)
{
    char path[MN_PATH_MAX];
    struct mn_column_file file;
    mn_store_column_path(store, path, c->segment, mn_column_info[column].name);
    MN_TRY(mn_column_file_map(&file, store, c->segment, column, path));
    enum mn_status status = mn_column_file_check(&file, path);
    if (status == MN_OK && file.header->rows != c->rows)
        status = damaged_file(c, column, "has another number of rows than ids.col");
    mn_column_file_unmap(&file);
    return status;
}

static enum mn_status check_deep(const struct mn_columns *c, const struct mn_store *store)
{
    if (c->mended != 0)
        return MN_FAIL(MN_CORRUPT, "%s", c->trouble);
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++)
        if (there(c, column) && !mn_column_info[column].whole)
            MN_TRY(check_column(c, store, column));
    MN_TRY(check_other(c, store, MN_COLUMN_DIED));
    return check_other(c, store, MN_COLUMN_PARITY);
}

/* After the columns were checked, here or elsewhere in the instance. */
static void find_bounds(struct mn_columns *c)
{
    const uint64_t *born = (const void *)c->files[MN_COLUMN_BORN].data;
    const int64_t *expires = (const void *)c->files[MN_COLUMN_EXPIRES].data;
    const float *scale = (const void *)c->files[MN_COLUMN_SCALE].data;
    c->born_max = 0;
    c->expires_min = MN_NEVER;
    c->scale_max = 0;
    for (uint32_t row = 0; row < c->rows; row++) {
        c->born_max = born[row] > c->born_max ? born[row] : c->born_max;
        c->expires_min = expires[row] < c->expires_min ? expires[row] : c->expires_min;
        c->scale_max = scale[row] > c->scale_max ? scale[row] : c->scale_max;
    }
}

/* ---- the registry ---- */

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

struct opening {
    struct mn_columns *c;
    const struct mn_store *store;
    bool trust;
};

static enum mn_status open_new(void *context)
{
    const struct opening *o = context;
    struct mn_columns *c = o->c;
    MN_TRY(map_all(c, o->store));
    if (!o->trust)
        MN_TRY(check_small(c, o->store));
    MN_TRY(find_indexes(c));
    c->small_checked = !o->trust;
    find_bounds(c);
    return MN_OK;
}

/* Who has met a page that cannot be read trusts nobody's word about that segment any more. */
static bool met_trouble(const char *dir)
{
    for (const struct mn_columns *c = registry; c; c = c->next)
        if (atomic_load_explicit(&c->failed, memory_order_relaxed) && strcmp(c->dir, dir) == 0)
            return true;
    return false;
}

static enum mn_status map_anew(struct mn_columns **columns, const struct mn_store *store, uint64_t segment,
                               const char *dir, bool trust)
{
    struct mn_columns *c = calloc(1, sizeof *c);
    if (!c)
        return MN_FAIL(MN_SYSTEM, "no memory to open %s", dir);
    c->segment = segment;
    c->users = 1;
    snprintf(c->dir, sizeof c->dir, "%s", dir);
    c->any_damaged = calloc(1, sizeof *c->any_damaged);
    struct opening o = {c, store, trust && !met_trouble(dir)};
    enum mn_status status =
        c->any_damaged ? mn_guarded(open_new, &o, NULL) : MN_FAIL(MN_SYSTEM, "no memory to open %s", dir);
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

static struct mn_columns *find_open(const char *dir)
{
    for (struct mn_columns *c = registry; c; c = c->next)
        if (!atomic_load_explicit(&c->failed, memory_order_relaxed) && strcmp(c->dir, dir) == 0)
            return c;
    return NULL;
}

static enum mn_status open_locked(struct mn_columns **columns, const struct mn_store *store, uint64_t segment,
                                  enum mn_columns_check check)
{
    char dir[MN_PATH_MAX];
    mn_store_columns_dir(store, dir, segment);
    struct mn_columns *c = find_open(dir);
    if (c && check != MN_COLUMNS_TRUST && !c->small_checked) {
        c->small_checked = small_columns_hold(c, store);
        if (!c->small_checked) { /* those who use it go on; it is mended for who comes now */
            atomic_store_explicit(&c->failed, true, memory_order_relaxed);
            c = NULL;
        }
    }
    if (!c)
        return map_anew(columns, store, segment, dir, check == MN_COLUMNS_TRUST);
    c->users++;
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
    if (--columns->users == 0) {
        struct mn_columns **link = &registry;
        while (*link != columns)
            link = &(*link)->next;
        *link = columns->next;
        unmap_all(columns);
    }
    pthread_mutex_unlock(&registry_lock);
}

/* ---- trouble ---- */

bool mn_columns_mended(const struct mn_columns *c)
{
    return c->mended != 0;
}

bool mn_columns_covers(const struct mn_columns *c, const void *address)
{
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++) {
        const struct mn_column_file *file = &c->files[column];
        uintptr_t begin = (uintptr_t)file->base, at = (uintptr_t)address;
        if (file->base && at >= begin && at - begin < mn_round_up(file->file_bytes, 4096))
            return true;
    }
    return false;
}

void mn_columns_fail(struct mn_columns *c)
{
    atomic_store_explicit(&c->failed, true, memory_order_relaxed);
}

bool mn_columns_failed(const struct mn_columns *c)
{
    return atomic_load_explicit(&c->failed, memory_order_relaxed);
}
