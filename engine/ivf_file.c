/*
 * ivf_file.c - inverted files as a process uses them: mapped and checked once, shared by its threads.
 *
 * The registry is that of columns_read.c in small. A file in which damage was found is not handed out again: who opens
 * it next maps what lies under its name then, which may be a new one.
 */
#include "engine/ivf_file.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/columns_file.h"
#include "engine/guard.h"
#include "engine/hot.h"

/* What was found out about the blocks of 8-bit codes; relaxed: two threads may check the same block at once, and both
 * find the same. */
struct mn_ivf_check {
    const struct mn_column_file *file;
    uint64_t codes8_at; /* in the file's data */
    _Atomic uint64_t *checked, *damaged;
    _Atomic bool *any_damaged; /* reading is const, but for what it finds out */
};

struct mn_ivf_file {
    struct mn_ivf ivf;
    struct mn_ivf_check check;
    _Atomic bool any_damaged;
    struct mn_column_file file;
    struct mn_hot hot; /* when mapped, `file` is a view of it */
    const struct mn_codebook *codebook;
    struct mn_ivf_file *next; /* the registry's */
    uint32_t users;
    char path[MN_PATH_MAX];
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mn_ivf_file *registry;

char *mn_ivf_path(const struct mn_store *store, char *path, uint64_t segment, uint64_t codebook)
{
    char name[64];
    snprintf(name, sizeof name, "ivf.%llu", (unsigned long long)codebook);
    return mn_store_column_path(store, path, segment, name);
}

void mn_ivf_lay_out(struct mn_ivf_body *body)
{
    uint64_t starts = mn_round_up((body->clusters + UINT64_C(1)) * sizeof(uint32_t), 64);
    uint64_t rows = mn_round_up(body->rows * sizeof(uint32_t), 64);
    body->first_slot_at = sizeof *body;
    body->first_block_at = body->first_slot_at + starts;
    body->rest_at = body->first_block_at + starts;
    body->homes_at = body->rest_at + starts;
    body->slots_at = body->homes_at + (uint64_t)body->shared * MN_IVF_LANES * sizeof(uint32_t);
    body->order_at = body->slots_at + rows;
    body->blocks_at = body->order_at + rows;
    body->fine_at = body->blocks_at + mn_round_up((uint64_t)body->blocks * mn_ivf_block_bytes(body->width), 64);
    body->codes8_at = mn_round_up(body->fine_at + body->rows * sizeof(struct mn_ivf_fine), MN_COLUMN_BLOCK);
    body->bytes = body->codes8_at + (uint64_t)body->rows * body->width;
}

/* ---- checks ---- */

static inline bool bit_test(const _Atomic uint64_t *bits, uint64_t bit)
{
    return atomic_load_explicit(&bits[bit / 64], memory_order_relaxed) >> (bit % 64) & 1;
}

static bool block_intact(const struct mn_ivf_check *check, uint64_t block)
{
    if (bit_test(check->checked, block))
        return true;
    if (bit_test(check->damaged, block))
        return false;
    bool intact = mn_column_file_intact(check->file, block);
    atomic_fetch_or_explicit(&(intact ? check->checked : check->damaged)[block / 64], UINT64_C(1) << (block % 64),
                             memory_order_relaxed);
    if (!intact)
        atomic_store_explicit(check->any_damaged, true, memory_order_relaxed);
    return intact;
}

bool mn_ivf_check_slot(const struct mn_ivf *ivf, uint32_t slot)
{
    const struct mn_ivf_check *check = ivf->check;
    uint32_t width = ivf->codebook->width;
    uint64_t at = check->codes8_at + (uint64_t)slot * width;
    bool intact = true;
    for (uint64_t block = at / MN_COLUMN_BLOCK; block <= (at + width - 1) / MN_COLUMN_BLOCK; block++)
        intact &= block_intact(check, block);
    return intact;
}

void mn_ivf_ahead(const struct mn_ivf *ivf, uint32_t slot, uint32_t count)
{
    uint64_t width = ivf->codebook->width;
    if (ivf->check && count > 0)
        mn_column_file_ahead(ivf->check->file, ivf->check->codes8_at + slot * width, count * width);
}

bool mn_ivf_damaged(const struct mn_ivf_file *file)
{
    return atomic_load_explicit(&file->any_damaged, memory_order_relaxed);
}

bool mn_ivf_covers(const struct mn_ivf_file *file, const void *address)
{
    uintptr_t begin = (uintptr_t)file->file.base, at = (uintptr_t)address;
    return file->file.base && at >= begin && at - begin < mn_round_up(file->file.file_bytes, 4096);
}

void mn_ivf_fail(struct mn_ivf_file *file)
{
    atomic_store_explicit(&file->any_damaged, true, memory_order_relaxed);
}

/* ---- opening ---- */

static enum mn_status does_not_fit(const struct mn_ivf_file *f, const char *what)
{
    return MN_FAIL(MN_CORRUPT, "%s does not fit its %s", f->path, what);
}

/* All offsets follow from five sizes; a file that says otherwise was not written by us. */
static enum mn_status use_body(struct mn_ivf_file *f, uint64_t gen)
{
    const uint8_t *data = f->file.data;
    const struct mn_codebook *codebook = f->codebook;
    struct mn_ivf_body body, want;
    if (f->file.data_bytes < sizeof body)
        return does_not_fit(f, "length");
    memcpy(&body, data, sizeof body);
    want = body;
    mn_ivf_lay_out(&want);
    if (body.magic != MN_IVF_MAGIC || body.codebook != gen || body.width != codebook->width ||
        body.clusters != codebook->clusters || f->file.header->extra != gen)
        return does_not_fit(f, "codebook");
    if (memcmp(&body, &want, sizeof body) != 0 || body.bytes != f->file.data_bytes ||
        body.rows != f->file.header->rows || body.rows == 0 || body.shared > body.blocks || body.zero != 0 ||
        body.spare != 0)
        return does_not_fit(f, "length");
    f->ivf = (struct mn_ivf){.codebook = codebook,
                             .clusters = body.clusters,
                             .rows = body.rows,
                             .first_slot = (const void *)(data + body.first_slot_at),
                             .first_block = (const void *)(data + body.first_block_at),
                             .rest = (const void *)(data + body.rest_at),
                             .homes = (const void *)(data + body.homes_at),
                             .block_count = body.blocks,
                             .blocks = data + body.blocks_at,
                             .codes8 = data + body.codes8_at,
                             .fine = (const void *)(data + body.fine_at),
                             .slots = (const void *)(data + body.slots_at),
                             .order = (const void *)(data + body.order_at),
                             .check = &f->check};
    f->check.codes8_at = body.codes8_at;
    return MN_OK;
}

static enum mn_status check_head(struct mn_ivf_file *f, uint32_t shared)
{
    for (uint64_t block = 0; block < f->check.codes8_at / MN_COLUMN_BLOCK; block++)
        if (!mn_column_file_intact(&f->file, block))
            return MN_FAIL(MN_CORRUPT, "%s: block %llu does not match its checksum", f->path,
                           (unsigned long long)block);
    /* The homes of `shared` blocks are there: more must not be asked for. */
    bool fits = f->ivf.block_count - f->ivf.first_block[f->ivf.clusters] == shared && mn_ivf_holds(&f->ivf);
    return fits ? MN_OK : does_not_fit(f, "directory");
}

/* The hot copy shall be taken, or the file itself. */
static enum mn_status map_bytes(struct mn_ivf_file *f, const struct mn_store *store, struct mn_instance *hot,
                                uint64_t segment, uint64_t gen)
{
    if (!hot || mn_hot_map(&f->hot, hot, segment, gen) != MN_OK)
        return mn_column_file_map(&f->file, store, segment, MN_COLUMN_IVF, f->path);
    f->file = (struct mn_column_file){
        .header = f->hot.header, .data = f->hot.data, .data_bytes = f->hot.data_bytes, .io = store->io};
    return MN_OK;
}

static enum mn_status map_file(struct mn_ivf_file *f, const struct mn_store *store, struct mn_instance *hot,
                               uint64_t segment, uint64_t gen)
{
    MN_TRY(map_bytes(f, store, hot, segment, gen));
    enum mn_status status = mn_codebook_open(&f->codebook, store, gen);
    if (status == MN_NOT_FOUND)
        return MN_FAIL(MN_CORRUPT, "%s has no codebook: %s", f->path, mn_error_text());
    MN_TRY(status);
    MN_TRY(use_body(f, gen));
    if (f->hot.base) {
        f->ivf.check = NULL;
        return MN_OK;
    }
    if (mn_columns_scattered())
        mn_column_file_scatter(&f->file, f->check.codes8_at);
    size_t words = f->file.blocks / 64 + 1;
    f->check.file = &f->file;
    f->check.any_damaged = &f->any_damaged;
    f->check.checked = calloc(words, sizeof *f->check.checked);
    f->check.damaged = calloc(words, sizeof *f->check.damaged);
    if (!f->check.checked || !f->check.damaged)
        return MN_FAIL(MN_SYSTEM, "no memory to open %s", f->path);
    return check_head(f, ((const struct mn_ivf_body *)(const void *)f->file.data)->shared);
}

static void forget(struct mn_ivf_file *f)
{
    mn_column_file_unmap(&f->file);
    mn_hot_unmap(&f->hot);
    if (f->codebook)
        mn_codebook_close(f->codebook);
    free(f->check.checked);
    free(f->check.damaged);
    free(f);
}

struct opening {
    struct mn_ivf_file *file;
    const struct mn_store *store;
    struct mn_instance *hot;
    uint64_t segment, codebook;
};

static enum mn_status map_it(void *context)
{
    const struct opening *o = context;
    return map_file(o->file, o->store, o->hot, o->segment, o->codebook);
}

/* hot: NULL when the file itself is wanted, or there is no copy. */
static enum mn_status open_locked(struct mn_ivf_file **file, const struct mn_store *store, struct mn_instance *hot,
                                  uint64_t segment, uint64_t codebook)
{
    char path[MN_PATH_MAX];
    mn_ivf_path(store, path, segment, codebook);
    for (struct mn_ivf_file *f = registry; f; f = f->next) {
        if (!mn_ivf_damaged(f) && !f->hot.base == !hot && strcmp(f->path, path) == 0) {
            f->users++;
            *file = f;
            return MN_OK;
        }
    }
    struct mn_ivf_file *f = calloc(1, sizeof *f);
    if (!f)
        return MN_FAIL(MN_SYSTEM, "no memory to open %s", path);
    memcpy(f->path, path, sizeof f->path);
    struct opening o = {f, store, hot, segment, codebook};
    enum mn_status status = mn_guarded(map_it, &o, NULL);
    if (status != MN_OK) {
        forget(f);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    f->users = 1;
    f->next = registry;
    registry = f;
    *file = f;
    return MN_OK;
}

enum mn_status mn_ivf_open(struct mn_ivf_file **file, const struct mn_store *store, uint64_t segment, uint64_t codebook)
{
    return mn_ivf_open_hot(file, store, NULL, segment, codebook);
}

enum mn_status mn_ivf_open_hot(struct mn_ivf_file **file, const struct mn_store *store, struct mn_instance *instance,
                               uint64_t segment, uint64_t codebook)
{
    *file = NULL;
    if (instance && !mn_hot_there(instance, segment, codebook))
        instance = NULL;
    pthread_mutex_lock(&registry_lock);
    enum mn_status status = open_locked(file, store, instance, segment, codebook);
    pthread_mutex_unlock(&registry_lock);
    return status;
}

void mn_ivf_close(struct mn_ivf_file *file)
{
    if (!file)
        return;
    pthread_mutex_lock(&registry_lock);
    bool last = --file->users == 0;
    if (last) {
        struct mn_ivf_file **link = &registry;
        while (*link != file)
            link = &(*link)->next;
        *link = file->next;
    }
    pthread_mutex_unlock(&registry_lock);
    if (last)
        forget(file);
}

const struct mn_ivf *mn_ivf_of(const struct mn_ivf_file *file)
{
    return &file->ivf;
}

void mn_ivf_clusters(const struct mn_ivf *ivf, uint32_t *clusters)
{
    for (uint32_t c = 0; c < ivf->clusters; c++)
        for (uint32_t slot = ivf->first_slot[c]; slot < ivf->first_slot[c + 1]; slot++)
            clusters[mn_ivf_row(ivf, slot)] = c;
}
