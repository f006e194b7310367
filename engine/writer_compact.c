/*
 * writer_compact.c - the writer commits what the compactor has prepared.
 *
 * Between two batches: liveness that changed during the build is carried over through the row maps, one manifest edit
 * makes the change durable, a new view makes it visible, the index is told where rows went, and what was taken goes to
 * limbo. No file is copied and no embedding is touched; the cost is one pass over the died words of the inputs.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/fault.h"
#include "engine/wal_copy.h"
#include "engine/writer_state.h"

/* Part numbers of the proposal's outputs; the caller frees. */
static enum mn_status open_outputs(struct mn_writer *w, const struct mn_compact_proposal *p, uint32_t **outputs)
{
    *outputs = calloc(p->output_count + 1, sizeof **outputs);
    if (!*outputs)
        return MN_FAIL(MN_INTERNAL, "no memory for the outputs of a compaction");
    for (uint32_t i = 0; i < p->output_count; i++)
        (*outputs)[i] = MN_NONE;
    for (uint32_t i = 0; i < p->output_count; i++) {
        uint64_t rows = 0;
        for (uint32_t s = 0; s < p->next.segment_count; s++)
            if (p->next.segments[s].id == p->outputs[i])
                rows = p->next.segments[s].rows;
        MN_TRY(mn_parts_add_columns(&w->parts, p->outputs[i], rows, p->live_gen, &(*outputs)[i]));
    }
    return MN_OK;
}

static void give_outputs_up(struct mn_writer *w, const struct mn_compact_proposal *p, const uint32_t *outputs)
{
    for (uint32_t i = 0; outputs && i < p->output_count; i++)
        if (outputs[i] != MN_NONE)
            mn_parts_retire(&w->parts, outputs[i]);
}

static bool manifest_names(const struct mn_manifest *manifest, const struct mn_part *part)
{
    if (part->tail)
        return part->number >= manifest->wal_first;
    for (uint32_t i = 0; i < manifest->segment_count; i++)
        if (manifest->segments[i].id == part->number)
            return true;
    return false;
}

static bool has_map(const struct mn_compact_proposal *p, const struct mn_part *part)
{
    for (uint32_t i = 0; i < p->map_count; i++)
        if (p->maps[i].tail == part->tail && p->maps[i].number == part->number)
            return true;
    return false;
}

static enum mn_status check_proposal(const struct mn_writer *w, const struct mn_compact_proposal *p)
{
    if (p->base_edit != w->manifest.edit)
        return MN_FAIL(MN_VERSION_MISMATCH, "the compaction was planned on manifest edit %llu, the store is at %llu",
                       (unsigned long long)p->base_edit, (unsigned long long)w->manifest.edit);
    for (uint32_t i = 0; i < p->map_count; i++) {
        const struct mn_row_map *map = &p->maps[i];
        uint32_t part = mn_parts_find(&w->parts, map->tail, map->number);
        if (part == MN_NONE || map->rows < w->parts.own[part]->part.rows)
            return MN_FAIL(MN_CORRUPT, "the compaction maps rows of a part that is not as it says");
    }
    for (uint32_t i = 0; i < w->parts.count; i++) {
        const struct mn_own_part *own = w->parts.own[i];
        if (!own->retired && own->part.rows > 0 && !manifest_names(&p->next, &own->part) && !has_map(p, &own->part))
            return MN_FAIL(MN_CORRUPT, "the compaction drops a part without saying where its rows went");
    }
    if (w->wal.store && p->next.wal_first > w->wal.number)
        return MN_FAIL(MN_CORRUPT, "the compaction takes the active log segment");
    return MN_OK;
}

/* Died words that changed after the build read them. */
static void carry_liveness(struct mn_writer *w, const struct mn_row_map *map, const uint32_t *outputs)
{
    const struct mn_part *from = &w->parts.own[mn_parts_find(&w->parts, map->tail, map->number)]->part;
    for (uint32_t row = 0; row < from->rows; row++) {
        uint64_t to = map->to[row];
        if (to == MN_MAP_DROPPED)
            continue;
        struct mn_live *live = w->parts.own[outputs[to >> 32]]->live.base;
        _Atomic uint64_t *died = &live->died[(uint32_t)to];
        uint64_t now = mn_part_died(from, row), then = atomic_load_explicit(died, memory_order_relaxed);
        if (now == then)
            continue;
        atomic_store_explicit(died, now, memory_order_relaxed);
        atomic_fetch_add_explicit(&live->dead, then == MN_ALIVE, memory_order_relaxed);
        atomic_store_explicit(&live->dirty_seq, w->wal.durable_seq, memory_order_relaxed);
    }
}

/* What the new manifest no longer names: forwarded in the index, retired, in limbo until no reader pins an older view.
 */
static enum mn_status retire_part(struct mn_writer *w, uint32_t part, const struct mn_compact_proposal *p,
                                  const uint32_t *outputs, uint64_t gen)
{
    struct mn_own_part *own = w->parts.own[part];
    struct mn_limbo entry = {.gen = gen,
                             .kind = own->part.tail ? MN_LIMBO_CHUNK : MN_LIMBO_COLUMNS,
                             .number = own->part.number,
                             .file_gen = own->gen};
    uint64_t *to = NULL;
    uint32_t *numbers = NULL;
    for (uint32_t i = 0; i < p->map_count && !to; i++) {
        const struct mn_row_map *map = &p->maps[i];
        if (map->tail != own->part.tail || map->number != own->part.number)
            continue;
        to = malloc(map->rows * sizeof *to + 1);
        numbers = malloc((p->output_count + 1) * sizeof *numbers);
        if (!to || !numbers) {
            free(to);
            free(numbers);
            return MN_FAIL(MN_INTERNAL, "no memory to follow the rows of a compaction");
        }
        memcpy(to, map->to, map->rows * sizeof *to);
        memcpy(numbers, outputs, p->output_count * sizeof *numbers);
    }
    mn_index_forward(w->parts.index, part, to, numbers);
    if (own->part.tail)
        w->tail_rows -= own->part.rows;
    mn_parts_retire(&w->parts, part);
    return mn_writer_retire(w, entry);
}

/* Log segments that the new manifest does without; also those that were too damaged to be read. */
static enum mn_status retire_log(struct mn_writer *w, uint64_t from, uint64_t gen)
{
    for (uint64_t number = from > 0 ? from : 1; number < w->manifest.wal_first; number++)
        MN_TRY(mn_writer_retire(w, (struct mn_limbo){.gen = gen, .kind = MN_LIMBO_WAL, .number = number}));
    return MN_OK;
}

static void note_purges(struct mn_writer *w, const struct mn_compact_proposal *p, uint64_t gen)
{
    w->purge_files += p->files_rewritten;
    if (p->purge_seq <= w->purge_rewritten)
        return;
    w->purge_rewritten = p->purge_seq;
    w->purge_unsearched = p->unsearched;
    w->purge_gen = gen;
}

/* wal_first: of the manifest before. */
static enum mn_status adopt(struct mn_writer *w, const struct mn_compact_proposal *p, const uint32_t *outputs,
                            uint64_t wal_first)
{
    uint64_t gen = atomic_load(&w->control->view_gen) + 1;
    atomic_store_explicit(&w->control->oldest_seq, w->manifest.oldest_seq, memory_order_release);
    mn_manifest_publish_tuning(&w->manifest, w->control);
    uint32_t count = w->parts.count;
    for (uint32_t i = 0; i < count; i++)
        if (!w->parts.own[i]->retired && !manifest_names(&w->manifest, &w->parts.own[i]->part))
            MN_TRY(retire_part(w, i, p, outputs, gen));
    MN_TRY(retire_log(w, wal_first, gen));
    mn_wal_copy_first(w->wal.copy, w->manifest.wal_first); /* readers map no twins: they may go at once */
    mn_writer_look_for_missing(w);
    MN_TRY(mn_writer_new_view(w));
    mn_writer_show_tail(w, w->tail_rows);
    note_purges(w, p, gen);
    mn_stat_add(w->stats, MN_STAT_manifest_edits, 1);
    return MN_OK;
}

/* An append has failed. Unless the manifest on disk is still the one before, nobody knows whether the edit is there to
 * stay: the writer ends, and recovery goes by what it finds. The sentence stays the one about the append. */
static enum mn_status look_again(struct mn_writer *w, enum mn_status failed)
{
    struct mn_manifest found;
    char why[512];
    snprintf(why, sizeof why, "%s", mn_error_text());
    w->broken |= mn_manifest_read(&found, &w->store, NULL) != MN_OK || found.edit != w->manifest.edit;
    mn_manifest_free(&found);
    return MN_FAIL(failed, "%s", why);
}

enum mn_status mn_writer_commit_proposal(struct mn_writer *w, const struct mn_compact_proposal *proposal)
{
    uint32_t *outputs = NULL;
    struct mn_manifest next = {0};
    MN_ASSERT(!mn_writer_pending(w));
    MN_TRY(check_proposal(w, proposal));
    enum mn_status status = open_outputs(w, proposal, &outputs);
    if (status == MN_OK)
        status = mn_manifest_copy(&next, &proposal->next);
    if (status == MN_OK) {
        for (uint32_t i = 0; i < proposal->map_count && !MN_BUG(liveness_not_carried); i++)
            carry_liveness(w, &proposal->maps[i], outputs);
        next.edit = w->manifest.edit;
        status = mn_manifest_append(&next, &w->store);
        if (status != MN_OK)
            status = look_again(w, status);
    }
    if (status != MN_OK) {
        give_outputs_up(w, proposal, outputs);
        mn_manifest_free(&next);
        free(outputs);
        return status;
    }
    uint64_t wal_first = w->manifest.wal_first;
    mn_manifest_free(&w->manifest);
    w->manifest = next;
    if (next.alone)
        atomic_fetch_or(&w->control->reasons, (uint32_t)MN_DEGRADED_MANIFEST); /* at once; housekeeping takes it back */
    /* Durable now: a failure from here on leaves disk and memory apart, so the writer ends and recovery reads the new
     * manifest. */
    status = adopt(w, proposal, outputs, wal_first);
    w->broken |= status != MN_OK;
    free(outputs);
    return status;
}
