/*
 * tail_coder.c - following the view, and coding what it lists.
 *
 * Each chunk has at most two files in our hands: `current`, which readers use, and `next`, which will replace it and is
 * published once it is no worse. The order of a replacement: next is ready, codes_gen tells of it, current is unlinked.
 */
#include "engine/tail_coder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/fault.h"
#include "engine/tail.h"
#include "engine/tail_codes.h"
#include "engine/view.h"

#define TURN_ROWS    1024u /* coded flat in a turn: about 3 ms */
#define CLUSTER_ROWS 128u  /* assigned or coded by cluster in a turn: about 2 ms, so that new rows do not wait long */
#define RESERVE_ROWS 1024u /* pages are reserved for so many rows at a time */

/* A file that is being filled. */
struct made {
    bool begun;    /* else all of it is zero */
    uint64_t with; /* generation of its codebook */
    bool by_cluster;
    struct mn_tail_codes codes; /* codes.header NULL: the file is not made yet */
    int fd;
    uint32_t rows;     /* coded and published */
    uint32_t reserved; /* rows whose pages are there */
    /* by cluster, until it is ready */
    uint32_t *cluster;          /* of each row; owned */
    uint32_t *filled;           /* rows in each cluster so far; owned */
    uint32_t assigned, encoded; /* rows */
};

struct chunk {
    struct mn_view_chunk key;
    struct mn_tail tail;
    const void *wal;
    uint64_t wal_bytes;
    struct mn_part part;
    bool sealed;
    uint64_t sealed_ns; /* when we saw it sealed */
    struct made current, next;
};

struct mn_tail_coder {
    struct mn_store store;
    struct mn_instance *instance;
    struct mn_stats_page *stats;
    const struct mn_kernels *kernels;
    bool off;
    uint64_t view_gen;    /* that `chunks` shows; 0: none yet */
    struct chunk *chunks; /* oldest first */
    uint32_t count;
    bool taken_over;                    /* what an earlier coder has left is looked through */
    const struct mn_codebook *codebook; /* what new files are made with */
    uint64_t serial;                    /* the last one given */
    uint64_t published;                 /* rows, at the last turn */
    uint64_t retry_ns;                  /* nothing is coded before that */
    float *rows;                        /* scratch: CLUSTER_ROWS rotated rows */
};

/* ---- life ---- */

enum mn_status mn_tail_coder_open(struct mn_tail_coder **coder, const struct mn_store *store,
                                  struct mn_instance *instance, struct mn_stats_page *stats)
{
    struct mn_tail_coder *c = calloc(1, sizeof *c);
    size_t bytes = (size_t)CLUSTER_ROWS * MN_CODEBOOK_WIDTH(store->dim) * sizeof(float);
    if (c)
        c->rows = aligned_alloc(MN_LINE, bytes);
    if (!c || !c->rows) {
        free(c);
        return MN_FAIL(MN_INTERNAL, "no memory for the coder of tail chunks");
    }
    c->store = *store;
    c->instance = instance;
    c->stats = stats;
    c->kernels = mn_kernels_best();
    *coder = c;
    return MN_OK;
}

static void close_made(struct made *m)
{
    free(m->cluster);
    free(m->filled);
    if (m->begun && m->fd >= 0)
        close(m->fd);
    mn_tail_codes_unmap(&m->codes);
    *m = (struct made){0};
}

static void unlink_name(struct mn_tail_coder *c, const struct mn_codes_name *name)
{
    char text[96];
    mn_codes_name_text(text, name);
    unlinkat(c->instance->dir_fd, text, 0); /* one that cannot be removed now goes with the instance */
}

static void remove_made(struct mn_tail_coder *c, struct made *m)
{
    if (m->codes.header)
        unlink_name(c, &m->codes.name);
    close_made(m);
}

static void unmap_chunk(struct mn_tail_coder *c, struct chunk *k)
{
    mn_tail_unmap(&k->tail);
    if (k->wal)
        c->store.io->unmap(k->wal, k->wal_bytes);
    k->wal = NULL;
}

void mn_tail_coder_close(struct mn_tail_coder *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < c->count; i++) {
        remove_made(c, &c->chunks[i].next);
        close_made(&c->chunks[i].current);
        unmap_chunk(c, &c->chunks[i]);
    }
    if (c->codebook)
        mn_codebook_close(c->codebook);
    free(c->chunks);
    free(c->rows);
    free(c);
}

void mn_tail_coder_switch(struct mn_tail_coder *c, bool on)
{
    c->off = !on;
}

/* ---- following the view ---- */

static enum mn_status map_chunk(struct mn_tail_coder *c, struct chunk *k)
{
    char path[MN_PATH_MAX];
    int fd;
    MN_TRY(mn_tail_map(&k->tail, c->instance, k->key.instance_gen, k->key.wal_number, false));
    MN_TRY(c->store.io->open(mn_store_wal_path(&c->store, path, k->key.wal_number), MN_IO_READ, &fd));
    enum mn_status status = c->store.io->size(fd, &k->wal_bytes);
    if (status == MN_OK)
        status = c->store.io->map(fd, k->wal_bytes, &k->wal);
    c->store.io->close(fd);
    if (status == MN_OK)
        mn_tail_part(&k->tail, k->wal, k->wal_bytes, c->store.dim, &k->part);
    return status;
}

static struct chunk *find_chunk(struct mn_tail_coder *c, const struct mn_view_chunk *key)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (c->chunks[i].key.wal_number == key->wal_number && c->chunks[i].key.instance_gen == key->instance_gen)
            return &c->chunks[i];
    return NULL;
}

static bool view_lists(const struct mn_view_list *view, const struct mn_view_chunk *key)
{
    for (uint32_t i = 0; i < view->chunks; i++)
        if (view->chunk[i].wal_number == key->wal_number && view->chunk[i].instance_gen == key->instance_gen)
            return true;
    return false;
}

/* Chunks that the view has let go of, and their files. */
static void drop_gone(struct mn_tail_coder *c, const struct mn_view_list *view)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        struct chunk *k = &c->chunks[i];
        if (view_lists(view, &k->key)) {
            c->chunks[kept++] = *k;
            continue;
        }
        remove_made(c, &k->current);
        remove_made(c, &k->next);
        unmap_chunk(c, k);
    }
    c->count = kept;
}

/* One that cannot be mapped is left out: it has no codes, and its rows are found all the same. */
static enum mn_status add_new(struct mn_tail_coder *c, const struct mn_view_list *view)
{
    enum mn_status status = MN_OK;
    if (view->chunks == 0)
        return MN_OK;
    struct chunk *chunks = realloc(c->chunks, view->chunks * sizeof *chunks);
    if (!chunks)
        return MN_FAIL(MN_INTERNAL, "no memory for %u tail chunks", view->chunks);
    c->chunks = chunks;
    for (uint32_t i = 0; i < view->chunks; i++) {
        if (find_chunk(c, &view->chunk[i]))
            continue;
        struct chunk *k = &c->chunks[c->count];
        *k = (struct chunk){.key = view->chunk[i]};
        enum mn_status mapped = map_chunk(c, k);
        if (mapped == MN_OK) {
            c->count++;
            continue;
        }
        unmap_chunk(c, k);
        if (mapped != MN_NOT_FOUND) /* retired meanwhile: another view is there */
            status = mapped;
    }
    return status;
}

/* New files are made with the newest codebook that the columns of the view have codes of: readers hold it already, and
 * it is not about to go. */
static enum mn_status choose_codebook(struct mn_tail_coder *c, const struct mn_view_list *view)
{
    uint64_t gen = 0;
    const struct mn_codebook *codebook = NULL;
    for (uint32_t i = 0; i < view->columns; i++)
        gen = view->column[i].codebook > gen ? view->column[i].codebook : gen;
    if (c->codebook && c->codebook->gen == gen)
        return MN_OK;
    /* A damaged one is the compactor's to report; until there is another, the plain one serves. */
    if (mn_codebook_open(&codebook, &c->store, gen) != MN_OK)
        MN_TRY(mn_codebook_open(&codebook, &c->store, 0));
    if (c->codebook)
        mn_codebook_close(c->codebook);
    c->codebook = codebook;
    return MN_OK;
}

/* Whether a file that an earlier coder has left fits its chunk. */
static bool fits(const struct chunk *k, const struct made *m)
{
    uint32_t sealed = atomic_load_explicit(&k->tail.header->sealed, memory_order_acquire);
    uint32_t rows = atomic_load_explicit(&k->tail.header->rows, memory_order_acquire);
    if (m->by_cluster)
        return sealed && m->rows == rows;
    bool complete = m->rows % MN_IVF_LANES == 0 || (sealed && m->rows == rows);
    return m->rows <= rows && complete && m->codes.header->rows_max == k->tail.header->rows_max;
}

/* Goes on with it when it is whole. Blocks above its published rows may be half written: each is cleared before it is
 * filled. */
static bool adopt(struct mn_tail_coder *c, struct chunk *k, const struct mn_codes_name *name)
{
    char text[96];
    struct made m = {.begun = true, .fd = -1};
    mn_codes_name_text(text, name);
    bool whole = mn_tail_codes_map(&m.codes, &c->store, c->instance, name, true) == MN_OK;
    if (whole) {
        m.with = m.codes.header->codebook;
        m.by_cluster = !mn_ivf_flat(&m.codes.ivf);
        m.rows = atomic_load_explicit(&m.codes.header->rows, memory_order_relaxed);
        m.fd = openat(c->instance->dir_fd, text, O_RDWR | O_CLOEXEC);
        whole = m.fd >= 0 && fits(k, &m);
    }
    if (whole)
        k->current = m;
    else
        close_made(&m);
    return whole;
}

/* The first view of a coder: what an earlier one has left is adopted or removed. Serials go on above all that were ever
 * given. */
static enum mn_status take_over(struct mn_tail_coder *c)
{
    struct mn_codes_list list = {0};
    enum mn_status status = mn_codes_list_make(&list, &c->store, c->instance);
    c->serial = atomic_load(&c->instance->control->codes_gen);
    for (uint32_t i = 0; status == MN_OK && i < list.count; i++)
        c->serial = list.names[i].serial > c->serial ? list.names[i].serial : c->serial;
    for (uint32_t i = 0; status == MN_OK && i < list.count; i++) {
        const struct mn_codes_name *name = &list.names[i];
        struct mn_view_chunk key = {.wal_number = name->wal_number, .instance_gen = name->instance_gen};
        struct chunk *k = find_chunk(c, &key);
        bool best = mn_codes_list_find(&list, name->instance_gen, name->wal_number) == name;
        if (!k || !best || !adopt(c, k, name))
            unlink_name(c, name);
    }
    free(list.names);
    return status;
}

static enum mn_status take_view(struct mn_tail_coder *c, const struct mn_view_list *view)
{
    drop_gone(c, view);
    MN_TRY(choose_codebook(c, view));
    enum mn_status status = add_new(c, view);
    if (!c->taken_over)
        MN_TRY(take_over(c));
    c->taken_over = true;
    c->view_gen = view->gen;
    return status;
}

/* Nothing is pinned: a view, chunk or log segment that goes away before it is mapped makes a new view, and is looked
 * for no more. */
static enum mn_status follow_view(struct mn_tail_coder *c)
{
    struct mn_view_list view;
    uint64_t gen = atomic_load_explicit(&c->instance->control->view_gen, memory_order_acquire);
    if (gen == 0 || gen == c->view_gen)
        return MN_OK;
    enum mn_status status = mn_view_map(&view, c->instance, gen);
    if (status == MN_OK) {
        status = take_view(c, &view);
        mn_view_unmap(&view);
    }
    bool moved_on = atomic_load_explicit(&c->instance->control->view_gen, memory_order_acquire) != gen;
    return status == MN_NOT_FOUND && moved_on ? MN_OK : status;
}

/* ---- files ---- */

static enum mn_status make_file(struct mn_tail_coder *c, struct chunk *k, struct made *m, uint32_t clusters,
                                uint32_t rows_max, uint32_t blocks, uint32_t shared)
{
    char text[96];
    const struct mn_codebook *codebook;
    struct mn_codes_name name = {k->key.instance_gen, k->key.wal_number, c->serial + 1};
    c->serial++; /* given, whatever becomes of the file */
    MN_TRY(mn_codebook_open(&codebook, &c->store, c->codebook->gen));
    MN_TRY(mn_tail_codes_create(&m->codes, c->instance, &name, codebook, clusters, rows_max, blocks, shared));
    mn_codes_name_text(text, &name);
    m->fd = openat(c->instance->dir_fd, text, O_RDWR | O_CLOEXEC);
    return m->fd >= 0 ? MN_OK : MN_FAIL_ERRNO("cannot open %s", text);
}

/* Begins `m` anew unless it is what is wanted. */
static void begin(struct mn_tail_coder *c, struct made *m, bool by_cluster)
{
    if (m->begun && m->with == c->codebook->gen && m->by_cluster == by_cluster)
        return;
    remove_made(c, m);
    *m = (struct made){.begun = true, .with = c->codebook->gen, .by_cluster = by_cluster, .fd = -1};
}

/* Pages that are not there cannot be written: a full /dev/shm shows here, with a sentence instead of a signal. */
static enum mn_status reserve(const struct made *m, uint64_t at, uint64_t bytes)
{
    if (bytes == 0)
        return MN_OK;
    errno = posix_fallocate(m->fd, (off_t)at, (off_t)bytes);
    return errno == 0 ? MN_OK : MN_FAIL_ERRNO("cannot reserve shared memory for codes (is /dev/shm full?)");
}

static enum mn_status reserve_rows(struct made *m, uint32_t end)
{
    const struct mn_codes *h = m->codes.header;
    if (end <= m->reserved)
        return MN_OK;
    uint32_t first = m->rows / MN_IVF_LANES * MN_IVF_LANES, last = first + RESERVE_ROWS;
    last = last < h->rows_max ? last : h->rows_max;
    uint64_t block = first / MN_IVF_LANES, blocks = (last + MN_IVF_LANES - 1) / MN_IVF_LANES - block;
    uint32_t block_bytes = mn_ivf_block_bytes(h->width);
    MN_TRY(reserve(m, h->blocks_at + block * block_bytes, blocks * block_bytes));
    MN_TRY(reserve(m, h->codes8_at + (uint64_t)first * h->width, (uint64_t)(last - first) * h->width));
    MN_TRY(reserve(m, h->fine_at + first * sizeof(struct mn_ivf_fine), (last - first) * sizeof(struct mn_ivf_fine)));
    m->reserved = last;
    return MN_OK;
}

/* From here on readers find `next`, and nobody finds `current`. */
static void replace(struct mn_tail_coder *c, struct chunk *k)
{
    MN_FAULT_POINT(codes_made);
    mn_segment_publish(&k->next.codes.segment);
    /* Release, and before the unlink: a reader that has seen the new number finds the new file; one that has not may
     * miss both for one pin, and looks again at its next. */
    atomic_store_explicit(&c->instance->control->codes_gen, k->next.codes.name.serial, memory_order_release);
    MN_FAULT_POINT(codes_published);
    remove_made(c, &k->current);
    k->current = k->next;
    k->next = (struct made){0};
}

/* ---- coding ---- */

/* Puts a row into the space of a file's codebook; false when its bytes are not to be had. */
static bool rotate_row(const struct mn_tail_coder *c, const struct chunk *k, const struct mn_codebook *codebook,
                       uint32_t row, float *out)
{
    const float *x = mn_part_vector(&k->part, row);
    if (x)
        mn_codebook_rotate(codebook, c->kernels, x, mn_part_scale(&k->part, row), out);
    return x != NULL;
}

/* Codes one row into a lane of a cleared block. One that cannot be read stays far. */
static void encode_row(const struct mn_tail_coder *c, const struct chunk *k, const struct made *m, uint32_t row,
                       const float *centroid, uint8_t *block, uint32_t lane, uint32_t slot)
{
    const struct mn_codes *h = m->codes.header;
    uint8_t *base = m->codes.segment.base;
    struct mn_ivf_fine *fine = (struct mn_ivf_fine *)(void *)(base + h->fine_at) + slot;
    uint8_t *codes8 = base + h->codes8_at + (uint64_t)slot * h->width;
    if (rotate_row(c, k, m->codes.codebook, row, c->rows)) {
        mn_ivf_encode(c->kernels, c->store.metric, h->width, c->rows, centroid, block, lane, codes8, fine);
    } else {
        memset(codes8, 128, h->width);
        *fine = (struct mn_ivf_fine){.add = MN_IVF_FAR};
    }
}

/* Codes complete blocks of a flat file up to `end`, at most *budget rows; of a sealed chunk the last block need not be
 * complete. */
static enum mn_status code_flat(struct mn_tail_coder *c, const struct chunk *k, struct made *m, uint32_t end,
                                uint32_t *budget)
{
    const struct mn_codes *h = m->codes.header;
    uint32_t block_bytes = mn_ivf_block_bytes(h->width);
    end = end < h->rows_max ? end : h->rows_max;
    while (*budget > 0 && m->rows < end) {
        uint32_t first = m->rows, rows = end - first < MN_IVF_LANES ? end - first : MN_IVF_LANES;
        if (rows < MN_IVF_LANES && !k->sealed)
            break;
        MN_TRY(reserve_rows(m, first + rows));
        uint8_t *block = (uint8_t *)m->codes.segment.base + h->blocks_at + (uint64_t)(first / 32) * block_bytes;
        mn_ivf_clear_block(block, h->width);
        for (uint32_t i = 0; i < rows; i++)
            encode_row(c, k, m, first + i, NULL, block, i, first + i);
        m->rows = first + rows;
        MN_FAULT_POINT(codes_coded);
        /* Release: whoever sees the count sees the codes below it. */
        atomic_store_explicit(&m->codes.header->rows, m->rows, memory_order_release);
        *budget -= rows < *budget ? rows : *budget;
    }
    return MN_OK;
}

/* ---- by cluster ---- */

static enum mn_status make_lists(const struct mn_tail_coder *c, struct made *m, uint32_t rows)
{
    if (m->cluster)
        return MN_OK;
    m->cluster = malloc(rows * sizeof *m->cluster);
    m->filled = calloc(c->codebook->clusters, sizeof *m->filled);
    return m->cluster && m->filled ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory to code %u rows by cluster", rows);
}

/* The clusters of the next few rows. Those that cannot be read lie somewhere, far away. */
static void assign_rows(struct mn_tail_coder *c, const struct chunk *k, struct made *m, uint32_t end)
{
    uint32_t count = end - m->assigned < CLUSTER_ROWS ? end - m->assigned : CLUSTER_ROWS, width = c->codebook->width;
    for (uint32_t i = 0; i < count; i++)
        if (!rotate_row(c, k, c->codebook, m->assigned + i, c->rows + (size_t)i * width))
            memset(c->rows + (size_t)i * width, 0, width * sizeof(float));
    mn_codebook_assign(c->codebook, c->kernels, c->rows, count, m->cluster + m->assigned, NULL);
    for (uint32_t i = 0; i < count; i++)
        m->filled[m->cluster[m->assigned + i]]++;
    m->assigned += count;
}

/* The directory of a file by cluster, while it is made. */
struct directory {
    uint32_t *first_slot, *first_block; /* [clusters + 1] */
    uint32_t *rest, *scratch;           /* [clusters] */
    float *distances;                   /* [clusters] */
    uint32_t blocks;
};

static void free_directory(struct directory *d)
{
    free(d->first_slot);
    free(d->first_block);
    free(d->rest);
    free(d->scratch);
    free(d->distances);
}

/* From m->filled. */
static enum mn_status make_directory(const struct mn_tail_coder *c, const struct made *m, struct directory *d)
{
    uint32_t clusters = c->codebook->clusters;
    d->first_slot = calloc(clusters + 1, sizeof *d->first_slot);
    d->first_block = calloc(clusters + 1, sizeof *d->first_block);
    d->rest = calloc(clusters, sizeof *d->rest);
    d->scratch = calloc(clusters, sizeof *d->scratch);
    d->distances = calloc(clusters, sizeof *d->distances);
    if (!d->first_slot || !d->first_block || !d->rest || !d->scratch || !d->distances)
        return MN_FAIL(MN_INTERNAL, "no memory to lay out %u clusters", clusters);
    for (uint32_t i = 0; i < clusters; i++)
        d->first_slot[i + 1] = d->first_slot[i] + m->filled[i];
    d->blocks =
        mn_ivf_arrange(c->codebook, c->kernels, d->first_slot, d->first_block, d->rest, d->scratch, d->distances);
    return MN_OK;
}

/* Makes the file, its directory and its empty blocks. */
static enum mn_status make_clusters(struct mn_tail_coder *c, struct chunk *k, struct made *m, uint32_t rows,
                                    const struct directory *d)
{
    uint32_t clusters = c->codebook->clusters;
    MN_TRY(make_file(c, k, m, clusters, rows, d->blocks, d->blocks - d->first_block[clusters]));
    MN_TRY(reserve(m, 0, m->codes.segment.bytes));
    const struct mn_codes *h = m->codes.header;
    uint8_t *base = m->codes.segment.base;
    memcpy(base + h->first_slot_at, d->first_slot, (clusters + UINT64_C(1)) * sizeof *d->first_slot);
    memcpy(base + h->first_block_at, d->first_block, (clusters + UINT64_C(1)) * sizeof *d->first_block);
    memcpy(base + h->rest_at, d->rest, clusters * sizeof *d->rest);
    mn_ivf_fill_homes(clusters, d->first_slot, d->first_block, d->rest, d->blocks,
                      (uint32_t *)(void *)(base + h->homes_at));
    for (uint32_t b = 0; b < d->blocks; b++)
        mn_ivf_clear_block(base + h->blocks_at + (uint64_t)b * mn_ivf_block_bytes(h->width), h->width);
    return MN_OK;
}

/* All rows have their cluster. */
static enum mn_status lay_clusters_out(struct mn_tail_coder *c, struct chunk *k, struct made *m, uint32_t rows)
{
    struct directory d = {0};
    enum mn_status status = make_directory(c, m, &d);
    if (status == MN_OK)
        status = make_clusters(c, k, m, rows, &d);
    free_directory(&d);
    memset(m->filled, 0, c->codebook->clusters * sizeof *m->filled);
    return status;
}

static void encode_rows(struct mn_tail_coder *c, const struct chunk *k, struct made *m, uint32_t rows)
{
    const struct mn_codes *h = m->codes.header;
    const struct mn_codebook *codebook = m->codes.codebook;
    const struct mn_ivf *ivf = &m->codes.ivf;
    uint8_t *base = m->codes.segment.base;
    uint32_t *slots = (uint32_t *)(void *)(base + h->slots_at), *order = (uint32_t *)(void *)(base + h->order_at);
    for (uint32_t i = 0; i < CLUSTER_ROWS && m->encoded < rows; i++, m->encoded++) {
        uint32_t row = m->encoded, cluster = m->cluster[row];
        uint32_t slot = ivf->first_slot[cluster] + m->filled[cluster]++, lane = mn_ivf_lane(ivf, cluster, slot);
        slots[row] = slot;
        order[slot] = row;
        encode_row(c, k, m, row, codebook->centroids + (size_t)cluster * h->width,
                   base + h->blocks_at + (uint64_t)(lane / MN_IVF_LANES) * mn_ivf_block_bytes(h->width),
                   lane % MN_IVF_LANES, slot);
    }
}

static void finish_clusters(struct mn_tail_coder *c, struct chunk *k, uint32_t rows)
{
    struct made *m = &k->next;
    free(m->cluster);
    free(m->filled);
    m->cluster = m->filled = NULL;
    m->rows = rows;
    atomic_store_explicit(&m->codes.header->rows, rows, memory_order_release);
    replace(c, k);
}

/* One step towards the codes of a sealed chunk by cluster. */
static enum mn_status code_clusters(struct mn_tail_coder *c, struct chunk *k, uint32_t rows)
{
    struct made *m = &k->next;
    begin(c, m, true);
    MN_TRY(make_lists(c, m, rows));
    if (m->assigned < rows) {
        assign_rows(c, k, m, rows);
    } else if (!m->codes.header) {
        return lay_clusters_out(c, k, m, rows);
    } else {
        encode_rows(c, k, m, rows);
        if (m->encoded == rows)
            finish_clusters(c, k, rows);
    }
    return MN_OK;
}

/* ---- the turn ---- */

/* A sealed chunk that is worth coding by cluster. */
static bool worth_clusters(const struct mn_tail_coder *c, const struct chunk *k, uint32_t rows)
{
    return k->sealed && rows >= MN_TAIL_CODER_CLUSTER_MIN && c->codebook->clusters > 1;
}

static uint32_t look_at(struct chunk *k, uint64_t now_ns)
{
    /* Acquire: `rows` is final once `sealed` is seen. */
    if (!k->sealed && atomic_load_explicit(&k->tail.header->sealed, memory_order_acquire) == 1) {
        k->sealed = true;
        k->sealed_ns = now_ns;
    }
    uint32_t rows = atomic_load_explicit(&k->tail.header->rows, memory_order_acquire);
    return rows < k->tail.header->rows_max ? rows : k->tail.header->rows_max;
}

/* Codes what has come, into the file that readers use and into the one that takes its place. */
static enum mn_status code_chunk(struct mn_tail_coder *c, struct chunk *k, uint64_t now_ns, uint32_t *budget)
{
    uint32_t rows = look_at(k, now_ns), rows_max = k->tail.header->rows_max;
    struct made *m = &k->current;
    if (m->begun && !m->by_cluster)
        MN_TRY(code_flat(c, k, m, rows, budget));
    bool stale = m->begun && m->with != c->codebook->gen && !worth_clusters(c, k, rows);
    if (rows < MN_IVF_LANES || (m->begun && !stale))
        return MN_OK;
    enum mn_status status = MN_OK;
    begin(c, &k->next, false);
    if (!k->next.codes.header)
        status = make_file(c, k, &k->next, 1, rows_max, (rows_max + MN_IVF_LANES - 1) / MN_IVF_LANES, 0);
    if (status == MN_OK)
        status = code_flat(c, k, &k->next, rows, budget);
    if (status != MN_OK)
        remove_made(c, &k->next);
    else if (k->next.rows > 0 && k->next.rows >= m->rows)
        replace(c, k);
    return status;
}

/* One step for one chunk that has been sealed for a while. */
static enum mn_status code_sealed(struct mn_tail_coder *c, uint64_t now_ns, uint32_t *worked)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct chunk *k = &c->chunks[i];
        const struct made *m = &k->current;
        uint32_t rows = look_at(k, now_ns);
        if (!worth_clusters(c, k, rows) || now_ns - k->sealed_ns < MN_TAIL_CODER_SETTLED_NS ||
            (m->by_cluster && m->with == c->codebook->gen))
            continue;
        *worked += CLUSTER_ROWS;
        enum mn_status status = code_clusters(c, k, rows);
        if (status != MN_OK)
            remove_made(c, &k->next);
        return status;
    }
    return MN_OK;
}

/* Readers let go of what they have mapped when the number tells them to look and they find no file. */
static void remove_all(struct mn_tail_coder *c)
{
    bool any = false;
    for (uint32_t i = 0; i < c->count; i++) {
        any = any || c->chunks[i].current.begun;
        remove_made(c, &c->chunks[i].current);
        remove_made(c, &c->chunks[i].next);
    }
    if (any)
        atomic_store_explicit(&c->instance->control->codes_gen, ++c->serial, memory_order_release);
}

static enum mn_status code(struct mn_tail_coder *c, uint64_t now_ns, uint32_t *worked)
{
    uint32_t budget = TURN_ROWS;
    enum mn_status status = MN_OK;
    for (uint32_t i = c->count; i-- > 0 && budget > 0 && status == MN_OK;) /* the newest first */
        status = code_chunk(c, &c->chunks[i], now_ns, &budget);
    *worked = TURN_ROWS - budget;
    return status == MN_OK ? code_sealed(c, now_ns, worked) : status;
}

/* What of the tail is published, coded, and coded by cluster. */
struct tally {
    uint64_t published, coded, clustered;
};

static struct tally count_rows(const struct mn_tail_coder *c)
{
    struct tally t = {0};
    for (uint32_t i = 0; i < c->count; i++) {
        const struct made *m = &c->chunks[i].current;
        t.published += atomic_load_explicit(&c->chunks[i].tail.header->rows, memory_order_relaxed);
        t.coded += m->rows;
        t.clustered += m->by_cluster ? m->rows : 0;
    }
    return t;
}

static void tell(const struct mn_tail_coder *c, enum mn_status status)
{
    struct tally now = count_rows(c);
    mn_stat_set(c->stats, MN_STAT_tail_coded_rows, now.coded);
    mn_stat_set(c->stats, MN_STAT_tail_clustered_rows, now.clustered);
    if (status != MN_OK)
        mn_stat_add(c->stats, MN_STAT_tail_code_failures, 1);
}

enum mn_status mn_tail_coder_turn(struct mn_tail_coder *c, uint64_t now_ns, uint32_t *worked)
{
    *worked = 0;
    enum mn_status status = follow_view(c);
    struct tally begun = count_rows(c);
    if (c->stats && begun.published != c->published && begun.published >= begun.coded)
        mn_stat_record(c->stats, MN_STAT_tail_code_lag, begun.published - begun.coded);
    c->published = begun.published;
    if (c->off) {
        remove_all(c);
    } else if (status == MN_OK && now_ns >= c->retry_ns && c->view_gen != 0) {
        status = code(c, now_ns, worked);
        if (status != MN_OK)
            c->retry_ns = now_ns + MN_TAIL_CODER_RETRY_NS;
    }
    if (c->stats)
        tell(c, status);
    return status;
}
