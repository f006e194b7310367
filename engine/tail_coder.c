/*
 * tail_coder.c - following the view, and what to code next of what it lists.
 *
 * Each chunk has at most two files in our hands: `current`, which readers use, and `next`, which will replace it and is
 * published once it is no worse. What has come is coded into `current`, flat, within milliseconds; `next` takes more of
 * the rows in by cluster, step by step.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/tail_coder_inside.h"
#include "engine/view.h"

/* ---- life ---- */

enum mn_status mn_tail_coder_open(struct mn_tail_coder **coder, const struct mn_store *store,
                                  struct mn_instance *instance, struct mn_stats_page *stats)
{
    struct mn_tail_coder *c = calloc(1, sizeof *c);
    size_t bytes = (size_t)MN_TAIL_CODER_STEP_ROWS * MN_CODEBOOK_WIDTH(store->dim) * sizeof(float);
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

static void unmap_chunk(struct mn_tail_coder *c, struct mn_tail_coded *k)
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
        mn_tail_made_remove(c, &c->chunks[i].next);
        mn_tail_made_close(&c->chunks[i].current);
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

static enum mn_status map_chunk(struct mn_tail_coder *c, struct mn_tail_coded *k)
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

static struct mn_tail_coded *find_chunk(struct mn_tail_coder *c, const struct mn_view_chunk *key)
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
        struct mn_tail_coded *k = &c->chunks[i];
        if (view_lists(view, &k->key)) {
            c->chunks[kept++] = *k;
            continue;
        }
        mn_tail_made_remove(c, &k->current);
        mn_tail_made_remove(c, &k->next);
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
    struct mn_tail_coded *chunks = realloc(c->chunks, view->chunks * sizeof *chunks);
    if (!chunks)
        return MN_FAIL(MN_INTERNAL, "no memory for %u tail chunks", view->chunks);
    c->chunks = chunks;
    for (uint32_t i = 0; i < view->chunks; i++) {
        if (find_chunk(c, &view->chunk[i]))
            continue;
        struct mn_tail_coded *k = &c->chunks[c->count];
        *k = (struct mn_tail_coded){.key = view->chunk[i]};
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
static bool fits(const struct mn_tail_coded *k, const struct mn_tail_made *m)
{
    uint32_t sealed = atomic_load_explicit(&k->tail.header->sealed, memory_order_acquire);
    uint32_t rows = atomic_load_explicit(&k->tail.header->rows, memory_order_acquire);
    bool complete = sealed && m->rows == rows; /* nothing more to come */
    bool grows = (m->rows - m->clustered) % MN_IVF_LANES == 0 && m->codes.header->rows_max == k->tail.header->rows_max;
    return m->rows >= m->clustered && m->rows <= rows && (complete || grows);
}

/* Goes on with it when it is whole. Blocks above its published rows may be half written: each is cleared before it is
 * filled. */
static bool adopt(struct mn_tail_coder *c, struct mn_tail_coded *k, const struct mn_codes_name *name)
{
    char text[96];
    struct mn_tail_made m = {.begun = true, .fd = -1};
    mn_codes_name_text(text, name);
    bool whole = mn_tail_codes_map(&m.codes, &c->store, c->instance, name, true) == MN_OK;
    if (whole) {
        m.with = m.codes.header->codebook;
        m.clustered = m.codes.header->clustered;
        m.rows = atomic_load_explicit(&m.codes.header->rows, memory_order_relaxed);
        m.fd = openat(c->instance->dir_fd, text, O_RDWR | O_CLOEXEC);
        whole = m.fd >= 0 && fits(k, &m);
    }
    if (whole)
        k->current = m;
    else
        mn_tail_made_close(&m);
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
        struct mn_tail_coded *k = find_chunk(c, &key);
        bool best = mn_codes_list_find(&list, name->instance_gen, name->wal_number) == name;
        if (!k || !best || !adopt(c, k, name))
            mn_tail_codes_unlink(c, name);
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

/* ---- the turn ---- */

/* Rows now; notes what has changed. */
static uint32_t look_at(struct mn_tail_coded *k, uint64_t now_ns)
{
    /* Acquire: `rows` is final once `sealed` is seen. */
    bool sealed = atomic_load_explicit(&k->tail.header->sealed, memory_order_acquire) == 1;
    uint32_t rows = atomic_load_explicit(&k->tail.header->rows, memory_order_acquire);
    rows = rows < k->tail.header->rows_max ? rows : k->tail.header->rows_max;
    if (sealed != k->sealed || rows != k->seen)
        k->moved_ns = now_ns;
    k->sealed = sealed;
    k->seen = rows;
    return rows;
}

/* How many rows the chunk's file should have by cluster, of `rows`. A chunk that has just been sealed stays as it is:
 * most often a compaction takes it over. Of one that rests all that is worth it is laid out. */
static uint32_t wanted_clusters(const struct mn_tail_coder *c, const struct mn_tail_coded *k, uint32_t rows,
                                uint64_t now_ns)
{
    const struct mn_tail_made *m = &k->current;
    uint32_t there = m->begun && m->with == c->codebook->gen ? m->clustered : 0;
    uint32_t least = there / MN_TAIL_CODER_FRESH_SHARE;
    bool rests = now_ns - k->moved_ns >= MN_TAIL_CODER_SETTLED_NS;
    if (c->codebook->clusters <= 1 || rows < MN_TAIL_CODER_CLUSTER_MIN)
        return 0;
    if (k->sealed)
        return rests ? rows : there;
    least = least > MN_TAIL_CODER_CLUSTER_MIN ? least : MN_TAIL_CODER_CLUSTER_MIN;
    least = rests ? MN_TAIL_CODER_REST_MIN : least;
    return rows - there >= least ? rows / MN_IVF_LANES * MN_IVF_LANES : there;
}

/* Whether another file is to take the place of `current`; *clustered: what of it is to be by cluster. */
static bool wants_next(const struct mn_tail_coder *c, const struct mn_tail_coded *k, uint32_t rows, uint64_t now_ns,
                       uint32_t *clustered)
{
    const struct mn_tail_made *m = &k->current;
    *clustered = 0; /* any codes first */
    if (rows < MN_IVF_LANES || !m->begun)
        return rows >= MN_IVF_LANES;
    *clustered = wanted_clusters(c, k, rows, now_ns);
    if (m->with == c->codebook->gen)
        return *clustered > m->clustered;
    /* Of a chunk that is worth clusters no flat file is made on the newer codebook. */
    return *clustered > 0 || rows < MN_TAIL_CODER_CLUSTER_MIN || c->codebook->clusters <= 1;
}

/* One step towards a file that is better than the one that readers use, for the first chunk that needs one. */
static enum mn_status improve(struct mn_tail_coder *c, uint64_t now_ns, uint32_t *worked)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct mn_tail_coded *k = &c->chunks[i];
        uint32_t rows = look_at(k, now_ns), clustered;
        bool goes_on = k->next.begun && k->next.with == c->codebook->gen;
        if (!goes_on && !wants_next(c, k, rows, now_ns, &clustered))
            continue;
        if (!goes_on)
            mn_tail_made_begin(c, &k->next, clustered);
        enum mn_status status = mn_tail_next_step(c, k, rows, worked);
        if (status != MN_OK)
            mn_tail_made_remove(c, &k->next);
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
        mn_tail_made_remove(c, &c->chunks[i].current);
        mn_tail_made_remove(c, &c->chunks[i].next);
    }
    if (any)
        atomic_store_explicit(&c->instance->control->codes_gen, ++c->serial, memory_order_release);
}

/* What has come first, of the newest chunk before all; then a step for one that has waited. */
static enum mn_status code(struct mn_tail_coder *c, uint64_t now_ns, uint32_t *worked)
{
    uint32_t budget = MN_TAIL_CODER_TURN_ROWS, improved = 0;
    enum mn_status status = MN_OK;
    for (uint32_t i = c->count; i-- > 0 && budget > 0 && status == MN_OK;) {
        struct mn_tail_coded *k = &c->chunks[i];
        uint32_t rows = look_at(k, now_ns);
        if (k->current.begun)
            status = mn_tail_made_code(c, k, &k->current, rows, &budget);
    }
    if (status == MN_OK)
        status = improve(c, now_ns, &improved);
    *worked = MN_TAIL_CODER_TURN_ROWS - budget + improved;
    return status;
}

/* What of the tail is published, coded, and coded by cluster. */
struct tally {
    uint64_t published, coded, clustered;
};

static struct tally count_rows(const struct mn_tail_coder *c)
{
    struct tally t = {0};
    for (uint32_t i = 0; i < c->count; i++) {
        const struct mn_tail_made *m = &c->chunks[i].current;
        t.published += atomic_load_explicit(&c->chunks[i].tail.header->rows, memory_order_relaxed);
        t.coded += m->rows;
        t.clustered += m->clustered;
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
