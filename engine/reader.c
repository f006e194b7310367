/*
 * reader.c - pinning, and keeping the mappings of a view from pin to pin.
 */
#include "engine/reader.h"

#include <stdlib.h>
#include <unistd.h>

#include "engine/fault.h"
#include "engine/ivf_file.h"
#include "engine/tail.h"
#include "engine/tail_codes.h"
#include "engine/view.h"
#include "shm/process.h"

/* One mapped part: a tail chunk with its log segment, or a column segment with its liveness. */
struct mapped {
    bool tail;
    uint64_t number, gen; /* gen: instance_gen of a chunk, live_gen of columns */
    struct mn_tail chunk;
    const void *wal;
    uint64_t wal_bytes;
    struct mn_tail_codes *codes; /* of the chunk; NULL: none */
    struct mn_columns *columns;
    struct mn_segment live;
    uint64_t codebook;       /* of the inverted file that the view names; 0 = none */
    struct mn_ivf_file *ivf; /* NULL: it cannot be used */
    bool reopened;           /* once already, since the view was taken over */
    bool failed;             /* a page of its log segment could not be read */
};

struct mn_reader {
    struct mn_store store;
    struct mn_instance *instance;
    uint32_t slot;
    uint64_t owner; /* what the slot held after the claim */
    bool pinned;
    uint64_t gen; /* view that `parts` shows */
    struct mapped *mapped;
    struct mn_part *parts; /* parts[i] shows mapped[i]; newest first */
    uint32_t count;
    uint32_t missing;               /* column segments that could not be opened, by us or by the writer */
    uint32_t uncoded;               /* and inverted files */
    uint64_t mended;                /* control.mended when it was looked at */
    uint64_t hot_gen;               /* what it was when hot copies were looked for */
    uint64_t codes_gen, codes_view; /* what both were when codes of tail chunks were looked for */
    struct mn_codes_list codes_list;
};

enum mn_status mn_reader_open(struct mn_reader **reader, const struct mn_store *store, struct mn_instance *instance)
{
    struct mn_reader *r = calloc(1, sizeof *r);
    if (!r)
        return MN_FAIL(MN_INTERNAL, "no memory for a reader");
    r->store = *store;
    r->instance = instance;
    enum mn_status status = mn_epoch_claim(&instance->epoch, &r->slot);
    if (status != MN_OK) {
        free(r);
        return status;
    }
    MN_FAULT_POINT(reader_claimed);
    r->owner = atomic_load(&instance->epoch.slots[r->slot].owner);
    r->mended = atomic_load_explicit(&instance->control->mended, memory_order_acquire);
    *reader = r;
    return MN_OK;
}

static void drop_codes(struct mapped *m)
{
    if (m->codes)
        mn_tail_codes_unmap(m->codes);
    free(m->codes);
    m->codes = NULL;
}

static void unmap_part(const struct mn_store *store, struct mapped *m)
{
    drop_codes(m);
    mn_tail_unmap(&m->chunk);
    if (m->wal)
        store->io->unmap(m->wal, m->wal_bytes);
    mn_ivf_close(m->ivf);
    mn_columns_close(m->columns);
    mn_segment_unmap(&m->live);
    *m = (struct mapped){0};
}

void mn_reader_close(struct mn_reader *reader)
{
    if (!reader)
        return;
    mn_reader_unpin(reader);
    for (uint32_t i = 0; i < reader->count; i++)
        unmap_part(&reader->store, &reader->mapped[i]);
    if (mn_epoch_owned(&reader->instance->epoch, reader->slot, reader->owner))
        mn_epoch_release(&reader->instance->epoch, reader->slot);
    free(reader->mapped);
    free(reader->parts);
    free(reader->codes_list.names);
    free(reader);
}

static enum mn_status map_wal(const struct mn_store *store, struct mapped *m)
{
    char path[MN_PATH_MAX];
    int fd;
    MN_TRY(store->io->open(mn_store_wal_path(store, path, m->number), MN_IO_READ, &fd));
    enum mn_status status = store->io->size(fd, &m->wal_bytes);
    if (status == MN_OK)
        status = store->io->map(fd, m->wal_bytes, &m->wal);
    store->io->close(fd);
    return status;
}

/* Mapped, and not to be used any more: what lies there now may be whole. */
static bool given_up(const struct mapped *m)
{
    return m->failed || (m->columns && mn_columns_failed(m->columns));
}

/* The same file of the same generation is mapped once, however many views list it. An inverted file that could not be
 * used may have been written anew: it is tried again with each view. */
static const struct mapped *find_mapped(const struct mapped *list, uint32_t count, const struct mapped *wanted)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i].tail == wanted->tail && list[i].number == wanted->number && list[i].gen == wanted->gen &&
            list[i].codebook == wanted->codebook && (list[i].codebook == 0 || list[i].ivf) && !given_up(&list[i]))
            return &list[i];
    return NULL;
}

/* True when another list has taken a mapping over. */
static bool taken_over(const struct mapped *list, uint32_t count, const struct mapped *m)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i].tail == m->tail && (m->tail ? list[i].wal == m->wal : list[i].live.base == m->live.base))
            return true;
    return false;
}

/* Without it the segment is scanned exactly: its failure is no failure of the reader's. */
static void open_ivf(struct mn_reader *r, struct mapped *m, uint32_t rows)
{
    if (m->codebook == 0 || mn_ivf_open_hot(&m->ivf, &r->store, r->instance, m->number, m->codebook) != MN_OK)
        return;
    if (mn_ivf_of(m->ivf)->rows == rows)
        return;
    mn_ivf_close(m->ivf);
    m->ivf = NULL;
}

static enum mn_status map_part(struct mn_reader *r, struct mapped *m, uint64_t rows)
{
    if (m->tail) {
        MN_TRY(mn_tail_map(&m->chunk, r->instance, m->gen, m->number, false));
        return map_wal(&r->store, m);
    }
    MN_TRY(mn_live_map(&m->live, r->instance, m->gen, m->number, rows, false));
    bool checked = atomic_load_explicit(&((const struct mn_live *)m->live.base)->checked, memory_order_acquire) == 1;
    MN_TRY(mn_columns_open(&m->columns, &r->store, m->number, checked ? MN_COLUMNS_TRUST : MN_COLUMNS_CHECK));
    struct mn_part part;
    mn_columns_part(m->columns, &part);
    if (part.rows != rows)
        return MN_FAIL(MN_CORRUPT, "column segment %llu has %u rows, the view says %llu", (unsigned long long)m->number,
                       part.rows, (unsigned long long)rows);
    open_ivf(r, m, part.rows);
    return MN_OK;
}

static void show_part(const struct mn_reader *r, const struct mapped *m, struct mn_part *part)
{
    if (m->tail) {
        mn_tail_part(&m->chunk, m->wal, m->wal_bytes, r->store.dim, part);
        return;
    }
    mn_columns_part(m->columns, part);
    const struct mn_live *live = m->live.base;
    part->died = live->died;
    part->dead = &live->dead;
    part->ivf = m->ivf ? mn_ivf_of(m->ivf) : NULL;
}

/* What the view lists at place `i`, newest first. */
static struct mapped wanted_at(const struct mn_view_list *view, uint32_t i, uint64_t *rows)
{
    if (i < view->chunks) {
        const struct mn_view_chunk *chunk = &view->chunk[view->chunks - 1 - i];
        return (struct mapped){.tail = true, .number = chunk->wal_number, .gen = chunk->instance_gen};
    }
    const struct mn_view_columns *column = &view->column[view->columns + view->chunks - 1 - i];
    *rows = column->rows;
    return (struct mapped){.number = column->segment, .gen = column->live_gen, .codebook = column->codebook};
}

/* A view that is being taken over. */
struct takeover {
    struct mapped *mapped;
    struct mn_part *parts;
    uint32_t count, missing;
};

static enum mn_status take_next(struct mn_reader *r, const struct mn_view_list *view, uint32_t i, struct takeover *t)
{
    uint64_t rows = 0;
    struct mapped wanted = wanted_at(view, i, &rows), *m = &t->mapped[t->count];
    const struct mapped *old = find_mapped(r->mapped, r->count, &wanted);
    *m = old ? *old : wanted;
    enum mn_status status = old ? MN_OK : map_part(r, m, rows);
    if (status == MN_OK) {
        show_part(r, m, &t->parts[t->count++]);
        return MN_OK;
    }
    unmap_part(&r->store, m);
    if (status != MN_CORRUPT || wanted.tail)
        return status;
    t->missing++;
    return MN_OK;
}

/* Unmaps those of a list that the other list does not hold as well, and frees the list. */
static void drop_rest(struct mn_reader *r, struct mapped *list, uint32_t count, const struct mapped *other,
                      uint32_t others)
{
    for (uint32_t i = 0; i < count; i++)
        if (!taken_over(other, others, &list[i]))
            unmap_part(&r->store, &list[i]);
    free(list);
}

/* Maps what `view` lists, newest first, taking over what is mapped already. On failure the old mappings stay whole. */
static enum mn_status take_view(struct mn_reader *r, const struct mn_view_list *view)
{
    uint32_t count = view->columns + view->chunks;
    struct takeover t = {.mapped = calloc(count + 1, sizeof *t.mapped),
                         .parts = calloc(count + 1, sizeof *t.parts),
                         .missing = view->missing};
    enum mn_status status =
        t.mapped && t.parts ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory for a view of %u parts", count);
    for (uint32_t i = 0; status == MN_OK && i < count; i++)
        status = take_next(r, view, i, &t);
    if (status != MN_OK) {
        drop_rest(r, t.mapped, t.count, r->mapped, r->count);
        free(t.parts);
        return status;
    }
    drop_rest(r, r->mapped, r->count, t.mapped, t.count);
    free(r->parts);
    r->mapped = t.mapped;
    r->parts = t.parts;
    r->count = t.count;
    r->missing = t.missing;
    r->gen = view->gen;
    for (uint32_t i = 0; i < r->count; i++)
        r->mapped[i].reopened = false;
    return MN_OK;
}

/* Column segments that were mended in place are mapped anew, and those that were missing are tried again. Acquire: the
 * files that the number counts are there. A number passed over: any of them may be it. */
static void follow_mends(struct mn_reader *r)
{
    uint64_t mended = atomic_load_explicit(&r->instance->control->mended, memory_order_acquire);
    bool one = (mended >> 32) - (r->mended >> 32) == 1;
    if (mended == r->mended)
        return;
    r->mended = mended;
    for (uint32_t i = 0; i < r->count; i++)
        if (r->mapped[i].columns && (!one || (uint32_t)r->mapped[i].number == (uint32_t)mended))
            mn_columns_fail(r->mapped[i].columns);
    if (r->missing > 0)
        r->gen = 0;
}

/* A view with something in it that was given up is taken over anew. */
static void look_for_trouble(struct mn_reader *r)
{
    follow_mends(r);
    for (uint32_t i = 0; i < r->count; i++)
        if (given_up(&r->mapped[i]))
            r->gen = 0;
}

/* Lets go of inverted files in which damage was found since the last pin: what lies there now may be whole. */
static void reopen_damaged_ivfs(struct mn_reader *r)
{
    r->uncoded = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        struct mapped *m = &r->mapped[i];
        if (m->ivf && mn_ivf_damaged(m->ivf)) {
            mn_ivf_close(m->ivf);
            m->ivf = NULL;
            if (!m->reopened)
                open_ivf(r, m, r->parts[i].rows);
            m->reopened = true;
            r->parts[i].ivf = m->ivf ? mn_ivf_of(m->ivf) : NULL;
        }
        r->uncoded += m->codebook != 0 && !m->ivf;
    }
}

/* Takes hot copies that have come, and lets go of those that went. Acquire: what the number counts is there. */
static void follow_hot(struct mn_reader *r)
{
    uint64_t gen = atomic_load_explicit(&r->instance->control->hot_gen, memory_order_acquire);
    if (gen == r->hot_gen)
        return;
    r->hot_gen = gen;
    for (uint32_t i = 0; i < r->count; i++) {
        struct mapped *m = &r->mapped[i];
        struct mn_ivf_file *old = m->ivf;
        if (!old)
            continue;
        m->ivf = NULL;
        open_ivf(r, m, r->parts[i].rows);
        mn_ivf_close(old);
        r->parts[i].ivf = m->ivf ? mn_ivf_of(m->ivf) : NULL;
    }
}

static enum mn_status follow_view(struct mn_reader *r, uint64_t gen)
{
    struct mn_view_list view;
    if (gen == r->gen || (MN_BUG(stale_view) && r->gen != 0))
        return MN_OK;
    MN_TRY(mn_view_map(&view, r->instance, gen));
    enum mn_status status = take_view(r, &view);
    mn_view_unmap(&view);
    return status;
}

/* ---- codes of tail chunks ---- */

/* Takes the better file of a chunk when there is one, and lets go of one that was removed. Whatever is wrong with a
 * file: the chunk does without. */
static void take_codes(struct mn_reader *r, struct mapped *m)
{
    const struct mn_codes_name *name = mn_codes_list_find(&r->codes_list, m->gen, m->number);
    if (!name)
        drop_codes(m);
    if (!name || (m->codes && m->codes->name.serial >= name->serial))
        return;
    struct mn_tail_codes *codes = malloc(sizeof *codes);
    if (codes && mn_tail_codes_map(codes, &r->store, r->instance, name, false) == MN_OK) {
        drop_codes(m);
        m->codes = codes;
    } else {
        free(codes);
    }
}

/* Looks for files when there are new ones, or chunks that have none yet. Acquire: what the number counts is there. */
static void follow_codes(struct mn_reader *r)
{
    uint64_t gen = atomic_load_explicit(&r->instance->control->codes_gen, memory_order_acquire);
    if (gen == r->codes_gen && r->gen == r->codes_view)
        return;
    r->codes_gen = gen;
    r->codes_view = r->gen;
    if (gen == 0 || mn_codes_list_make(&r->codes_list, &r->store, r->instance) != MN_OK)
        return;
    for (uint32_t i = 0; i < r->count; i++)
        if (r->mapped[i].tail)
            take_codes(r, &r->mapped[i]);
}

/* The rows of a chunk as published now, and before that their codes: those are then of rows that are there. */
static void look_at_chunk(struct mapped *m, struct mn_part *part)
{
    part->ivf = m->codes ? mn_tail_codes_look(m->codes) : NULL;
    part->rows = atomic_load_explicit(&part->chunk->rows, memory_order_acquire);
    if (part->ivf && mn_ivf_coded(part->ivf) > part->rows)
        part->ivf = NULL; /* codes of something else */
}

/* ---- pinning ---- */

/* The pin of a slot that was lost went with it: what is there now is another's. */
static void unpin(struct mn_reader *r)
{
    if (mn_epoch_owned(&r->instance->epoch, r->slot, r->owner))
        mn_epoch_unpin(&r->instance->epoch, r->slot);
    r->pinned = false;
}

/* Still ours? An attached program that was stopped too long has lost its slot: it claims a new one. */
static enum mn_status keep_slot(struct mn_reader *r)
{
    if (mn_epoch_owned(&r->instance->epoch, r->slot, r->owner))
        return MN_OK;
    MN_TRY(mn_epoch_claim(&r->instance->epoch, &r->slot));
    r->owner = atomic_load(&r->instance->epoch.slots[r->slot].owner);
    return MN_OK;
}

static enum mn_status choose_seq(const struct mn_control *control, uint64_t as_of, struct mn_snapshot *snapshot)
{
    uint64_t visible = snapshot->seq, oldest = atomic_load_explicit(&control->oldest_seq, memory_order_acquire);
    if (as_of == 0)
        return MN_OK;
    if (as_of > visible)
        return MN_FAIL(MN_UNAVAILABLE, "seq %llu is not there yet: the newest visible is %llu",
                       (unsigned long long)as_of, (unsigned long long)visible);
    if (as_of < oldest)
        return MN_FAIL(MN_UNAVAILABLE, "compaction has let go of seq %llu: the oldest that can be read is %llu",
                       (unsigned long long)as_of, (unsigned long long)oldest);
    snapshot->seq = as_of;
    return MN_OK;
}

static enum mn_status pin_once(struct mn_reader *r, uint64_t as_of, struct mn_snapshot *snapshot, bool *again)
{
    const struct mn_control *control = r->instance->control;
    uint64_t gen = mn_epoch_pin(&r->instance->epoch, r->slot);
    if (gen == 0)
        return MN_FAIL(MN_NOT_READY, "the store is not recovered yet");
    look_for_trouble(r);
    MN_FAULT_POINT(reader_pinned);
    enum mn_status status = follow_view(r, gen);
    /* Acquire: rows and marks up to this seq were published before it. */
    snapshot->seq = atomic_load_explicit(&control->visible_seq, memory_order_acquire);
    if (status == MN_OK)
        status = choose_seq(control, as_of, snapshot);
    /* A view that changed meanwhile: this one may lack what the seq promises. */
    *again = atomic_load_explicit(&control->view_gen, memory_order_seq_cst) != gen;
    if (*again)
        return MN_OK;
    MN_TRY(status);
    follow_hot(r);
    reopen_damaged_ivfs(r);
    follow_codes(r);
    for (uint32_t i = 0; i < r->count; i++)
        if (r->parts[i].tail)
            look_at_chunk(&r->mapped[i], &r->parts[i]);
    snapshot->gen = gen;
    snapshot->missing = r->missing;
    snapshot->uncoded = r->uncoded;
    snapshot->tuning = control->tuning;
    snapshot->part_count = r->count;
    snapshot->parts = r->parts;
    return MN_OK;
}

enum mn_status mn_reader_pin(struct mn_reader *reader, uint64_t as_of, struct mn_snapshot *snapshot)
{
    bool again = true;
    enum mn_status status = keep_slot(reader);
    while (status == MN_OK && again)
        status = pin_once(reader, as_of, snapshot, &again);
    if (status != MN_OK) {
        unpin(reader);
        return status;
    }
    snapshot->now = mn_wall_ns();
    reader->pinned = true;
    return MN_OK;
}

void mn_reader_unpin(struct mn_reader *reader)
{
    if (reader->pinned)
        unpin(reader);
}

/* Whatever the call had reached of its pin. */
void mn_reader_blame(struct mn_reader *reader, const void *fault)
{
    uintptr_t at = (uintptr_t)fault;
    unpin(reader);
    for (uint32_t i = 0; i < reader->count; i++) {
        struct mapped *m = &reader->mapped[i];
        if (m->ivf && mn_ivf_covers(m->ivf, fault))
            mn_ivf_fail(m->ivf);
        if (m->columns && mn_columns_covers(m->columns, fault))
            mn_columns_fail(m->columns);
        if (m->wal && at >= (uintptr_t)m->wal && at - (uintptr_t)m->wal < m->wal_bytes)
            m->failed = true;
    }
}
