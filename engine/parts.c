/*
 * parts.c - the owner's parts, what happens to an id, and the view of it all.
 */
#include "engine/parts.h"

#include <stdlib.h>

#include "engine/view.h"

#define PREFETCH_ROWS 16u /* enough for memory to answer, few enough to be there still */

enum mn_status mn_parts_init(struct mn_parts *parts, const struct mn_store *store, struct mn_instance *instance)
{
    *parts = (struct mn_parts){.store = *store, .instance = instance};
    return mn_index_new(&parts->index);
}

static void drop_mappings(struct mn_parts *parts, struct mn_own_part *own)
{
    mn_tail_unmap(&own->tail);
    if (own->wal)
        parts->store.io->unmap(own->wal, own->wal_bytes);
    mn_columns_close(own->columns);
    mn_segment_unmap(&own->live);
    own->wal = NULL;
    own->columns = NULL;
    own->retired = true;
}

void mn_parts_free(struct mn_parts *parts)
{
    for (uint32_t i = 0; i < parts->count; i++) {
        drop_mappings(parts, parts->own[i]);
        free(parts->own[i]);
    }
    free(parts->own);
    mn_index_free(parts->index);
    *parts = (struct mn_parts){0};
}

/* A new, empty part; in the list and known to the index. */
static enum mn_status add(struct mn_parts *parts, struct mn_own_part **own, uint32_t *number)
{
    if (parts->count == parts->max) {
        uint32_t max = parts->max ? parts->max * 2 : 64;
        // NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers
        struct mn_own_part **list = realloc(parts->own, max * sizeof *list);
        if (!list)
            return MN_FAIL(MN_INTERNAL, "no memory for parts");
        parts->own = list;
        parts->max = max;
    }
    struct mn_own_part *new_part = calloc(1, sizeof *new_part);
    if (!new_part)
        return MN_FAIL(MN_INTERNAL, "no memory for a part");
    enum mn_status status = mn_index_part(parts->index, &new_part->part, number);
    if (status != MN_OK) {
        free(new_part);
        return status;
    }
    MN_ASSERT(*number == parts->count);
    parts->own[parts->count++] = *own = new_part;
    return MN_OK;
}

enum mn_status mn_parts_add_chunk(struct mn_parts *parts, struct mn_tail *tail, uint32_t *number)
{
    const struct mn_io *io = parts->store.io;
    char path[MN_PATH_MAX];
    struct mn_own_part *own;
    int fd;
    MN_TRY(add(parts, &own, number));
    own->tail = *tail;
    *tail = (struct mn_tail){0};
    own->gen = own->tail.instance_gen;
    own->retired = true; /* until it is whole */
    MN_TRY(io->open(mn_store_wal_path(&parts->store, path, own->tail.header->wal_number), MN_IO_READ, &fd));
    enum mn_status status = io->size(fd, &own->wal_bytes);
    if (status == MN_OK)
        status = io->map(fd, own->wal_bytes, &own->wal);
    io->close(fd);
    MN_TRY(status);
    mn_tail_part(&own->tail, own->wal, own->wal_bytes, parts->store.dim, &own->part);
    own->retired = false;
    return MN_OK;
}

enum mn_status mn_parts_add_columns(struct mn_parts *parts, uint64_t segment, uint64_t rows, uint64_t live_gen,
                                    uint32_t *number)
{
    struct mn_own_part *own;
    MN_TRY(add(parts, &own, number));
    own->gen = live_gen;
    own->retired = true;
    MN_TRY(mn_live_map(&own->live, parts->instance, live_gen, segment, rows, true));
    struct mn_live *live = own->live.base;
    bool checked = atomic_load_explicit(&live->checked, memory_order_acquire) == 1;
    enum mn_status status =
        mn_columns_open(&own->columns, &parts->store, segment, checked ? MN_COLUMNS_TRUST : MN_COLUMNS_CHECK);
    if (status != MN_OK) {
        drop_mappings(parts, own);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    if (mn_columns_mended(own->columns)) /* each process has to mend what it maps, until the compactor has the files */
        atomic_fetch_or(&parts->instance->control->reasons, MN_DEGRADED_COLUMN);
    else
        atomic_store_explicit(&live->checked, 1, memory_order_release);
    mn_columns_part(own->columns, &own->part);
    own->part.died = ((const struct mn_live *)own->live.base)->died;
    own->retired = false;
    return MN_OK;
}

void mn_parts_retire(struct mn_parts *parts, uint32_t number)
{
    drop_mappings(parts, parts->own[number]);
}

uint32_t mn_parts_find(const struct mn_parts *parts, bool tail, uint64_t number)
{
    for (uint32_t i = parts->count; i-- > 0;) {
        const struct mn_own_part *own = parts->own[i];
        if (!own->retired && own->part.tail == tail && own->part.number == number)
            return i;
    }
    return MN_NONE;
}

/* The hash that a row is found by. */
static uint64_t row_hash(const struct mn_part *part, uint32_t row)
{
    if (part->tail)
        return part->tail_rows[row].hash;
    struct mn_str space = mn_part_string(part, mn_part_space(part, row));
    return mn_id_hash(mn_str_hash(space), mn_part_id(part, row));
}

void mn_parts_prefetch(const struct mn_parts *parts, uint32_t number, uint32_t row)
{
    const struct mn_part *part = &parts->own[number]->part;
    if (part->tail && row + PREFETCH_ROWS < part->rows)
        mn_index_prefetch(parts->index, part->tail_rows[row + PREFETCH_ROWS].hash);
}

enum mn_status mn_parts_index(struct mn_parts *parts, uint32_t number)
{
    const struct mn_part *part = &parts->own[number]->part;
    for (uint32_t row = 0; row < part->rows; row++) {
        mn_parts_prefetch(parts, number, row);
        uint64_t died = mn_part_died(part, row);
        if (died != MN_ALIVE && !mn_died_suppressed(died))
            continue;
        struct mn_place place = {number, row, died != MN_ALIVE};
        MN_TRY(mn_index_add(parts->index, row_hash(part, row), place));
    }
    return MN_OK;
}

void mn_parts_mark(struct mn_parts *parts, const struct mn_mark *mark)
{
    struct mn_own_part *own = parts->own[mark->part];
    struct mn_live *live = own->live.base;
    _Atomic uint64_t *died = own->part.tail ? &own->tail.rows[mark->row].died : &live->died[mark->row];
    uint64_t old = atomic_load_explicit(died, memory_order_relaxed);
    uint64_t word =
        mark->kind == MN_MARK_GIVEN_UP ? old & ~UINT64_C(1) : mn_died_make(mark->seq, mark->kind == MN_MARK_SUPPRESSED);
    /* Relaxed: visible_seq is stored with release after the marks of its batch; a reader of an older seq sees it alive
     * either way. */
    atomic_store_explicit(died, word, memory_order_relaxed);
    if (live) {
        atomic_fetch_add_explicit(&live->dead, old == MN_ALIVE, memory_order_relaxed);
        atomic_store_explicit(&live->dirty_seq, mark->seq, memory_order_relaxed);
    }
}

static struct mn_mark mark_of(struct mn_place place, uint64_t seq)
{
    return (struct mn_mark){place.part, place.row, seq, place.suppressed ? MN_MARK_GIVEN_UP : MN_MARK_DEAD};
}

enum mn_status mn_parts_put(struct mn_parts *parts, struct mn_str space, const struct mn_id *id, uint64_t hash,
                            struct mn_place place, uint64_t seq, struct mn_mark *mark, bool *marked)
{
    struct mn_place old;
    *marked = mn_index_find(parts->index, space, id, hash, &old);
    if (*marked)
        *mark = mark_of(old, seq);
    return mn_index_put(parts->index, space, id, hash, place);
}

bool mn_parts_remove(struct mn_parts *parts, struct mn_str space, const struct mn_id *id, uint64_t hash, uint64_t seq,
                     struct mn_mark *mark)
{
    struct mn_place old;
    if (!mn_index_find(parts->index, space, id, hash, &old))
        return false;
    *mark = mark_of(old, seq);
    mn_index_remove(parts->index, space, id, hash);
    return true;
}

enum mn_status mn_parts_suppress(struct mn_parts *parts, struct mn_str space, const struct mn_id *id, uint64_t hash,
                                 uint64_t seq, struct mn_mark *mark, bool *marked)
{
    struct mn_place place;
    *marked = mn_index_find(parts->index, space, id, hash, &place) && !place.suppressed;
    if (!*marked)
        return MN_OK;
    *mark = (struct mn_mark){place.part, place.row, seq, MN_MARK_SUPPRESSED};
    place.suppressed = true;
    return mn_index_put(parts->index, space, id, hash, place);
}

static int by_wal_number(const void *a, const void *b)
{
    uint64_t x = ((const struct mn_view_chunk *)a)->wal_number, y = ((const struct mn_view_chunk *)b)->wal_number;
    return x < y ? -1 : x > y;
}

enum mn_status mn_parts_publish(const struct mn_parts *parts, const struct mn_manifest *manifest, uint64_t gen)
{
    struct mn_view_list list = {.gen = gen, .log_seq = manifest->log_seq};
    struct mn_view_columns *columns = calloc(manifest->segment_count + 1, sizeof *columns);
    struct mn_view_chunk *chunks = calloc(parts->count + 1, sizeof *chunks);
    enum mn_status status = columns && chunks ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory for a view");
    for (uint32_t i = 0; status == MN_OK && i < manifest->segment_count; i++) {
        uint32_t number = mn_parts_find(parts, false, manifest->segments[i].id);
        list.missing += number == MN_NONE;
        if (number == MN_NONE)
            continue; /* damaged beyond use: reported by recovery, left on disk */
        columns[list.columns++] = (struct mn_view_columns){.segment = manifest->segments[i].id,
                                                           .rows = manifest->segments[i].rows,
                                                           .live_gen = parts->own[number]->gen,
                                                           .codebook = manifest->segments[i].codebook};
    }
    for (uint32_t i = 0; status == MN_OK && i < parts->count; i++)
        if (parts->own[i]->part.tail && !parts->own[i]->retired)
            chunks[list.chunks++] = (struct mn_view_chunk){parts->own[i]->part.number, parts->own[i]->gen};
    if (list.chunks > 1)
        qsort(chunks, list.chunks, sizeof *chunks, by_wal_number);
    list.column = columns;
    list.chunk = chunks;
    if (status == MN_OK)
        status = mn_view_publish(parts->instance, &list);
    free(columns);
    free(chunks);
    return status;
}
