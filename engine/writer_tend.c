/*
 * writer_tend.c - the writer's housekeeping: limbo, the index after a compaction, idem keys, history, gauges.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/fault.h"
#include "engine/hot.h"
#include "engine/view.h"
#include "engine/wal_copy.h"
#include "engine/writer_state.h"
#include "shm/process.h"

#define GAUGES_EVERY_NS   UINT64_C(100000000)
#define MANIFEST_EVERY_NS UINT64_C(1000000000) /* between two tries to write the copy that an edit did not reach */
#define SWEEP_SHARDS      16u
#define EXPIRE_AT_ONCE    1024u

/* ---- limbo ---- */

enum mn_status mn_writer_retire(struct mn_writer *w, struct mn_limbo entry)
{
    if (w->limbo_count == w->limbo_max) {
        uint32_t max = w->limbo_max ? w->limbo_max * 2 : 64;
        struct mn_limbo *limbo = realloc(w->limbo, max * sizeof *limbo);
        if (!limbo)
            return MN_FAIL(MN_INTERNAL, "no memory for retired files");
        w->limbo = limbo;
        w->limbo_max = max;
    }
    w->limbo[w->limbo_count++] = entry;
    return MN_OK;
}

static enum mn_status remove_shared(struct mn_writer *w, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", w->instance->path, name);
    return mn_wal_keeper_remove(w->keeper, path);
}

static enum mn_status remove_hot(void *context, const char *name)
{
    return remove_shared(context, name);
}

/* Hands the files of an entry to the keeper, which unlinks them. */
static enum mn_status let_go(struct mn_writer *w, const struct mn_limbo *entry)
{
    char path[MN_PATH_MAX], name[64];
    MN_FAULT_POINT(limbo_before_unlink);
    switch (entry->kind) {
    case MN_LIMBO_VIEW:
        mn_view_name(name, entry->number);
        return remove_shared(w, name);
    case MN_LIMBO_CHUNK:
        mn_tail_name(name, entry->file_gen, entry->number);
        return remove_shared(w, name);
    case MN_LIMBO_WAL:
        if (MN_BUG(purge_leaves_log))
            return MN_OK;
        return mn_wal_keeper_remove(w->keeper, mn_store_wal_path(&w->store, path, entry->number));
    case MN_LIMBO_COLUMNS:
        snprintf(name, sizeof name, "live.%" PRIu64 ".%" PRIu64, entry->file_gen, entry->number);
        MN_TRY(remove_shared(w, name));
        MN_TRY(mn_hot_visit(w->instance, entry->number, remove_hot, w));
        return mn_wal_keeper_remove(w->keeper, mn_store_columns_dir(&w->store, path, entry->number));
    case MN_LIMBO_SHARED:
        return remove_shared(w, entry->name);
    }
    return MN_OK;
}

/* The oldest view that any reader may still open files of. */
static uint64_t oldest_pin(const struct mn_writer *w)
{
    if (MN_BUG(unlink_before_pin_check))
        return UINT64_MAX;
    return mn_epoch_oldest(&w->instance->epoch, mn_clock_ns(), w->settings.reader_max_age);
}

static uint32_t empty_limbo(struct mn_writer *w)
{
    if (w->limbo_count == 0)
        return 0;
    uint64_t oldest = oldest_pin(w);
    uint32_t kept = 0, gone = 0;
    for (uint32_t i = 0; i < w->limbo_count; i++) {
        if (w->limbo[i].gen <= oldest && let_go(w, &w->limbo[i]) == MN_OK)
            gone++;
        else
            w->limbo[kept++] = w->limbo[i];
    }
    w->limbo_count = kept;
    return gone;
}

/* A purge is done when nothing that its rewrite retired is left. */
static void finish_purges(struct mn_writer *w)
{
    if (w->purge_rewritten <= w->purge_done || mn_wal_keeper_removals(w->keeper) > 0)
        return;
    if (!mn_wal_copy_clean(w->wal.copy))
        return; /* it may hold the bytes still */
    for (uint32_t i = 0; i < w->limbo_count; i++)
        if (w->limbo[i].gen <= w->purge_gen)
            return;
    w->purge_done = w->purge_rewritten;
}

/* Purges that an earlier writer could not carry out in a segment that was not to be opened, and now is: said again, in
 * the log, so that they take their usual way. They stand in the ledger until a compaction has had them. */
static uint32_t repeat_purges(struct mn_writer *w)
{
    uint32_t done = 0;
    const struct mn_ledger_marks *marks = mn_ledger_marks(w->ledger);
    struct mn_ledger_mark mark;
    struct mn_outcome outcome;
    uint64_t at = w->purge_repeat_at;
    while (w->missing == 0 && mn_ledger_marks_next(marks, &at, &mark)) {
        struct mn_forget purge = {.write = {.space = mark.space, .now = mn_wall_ns()},
                                  .ids = &mark.id,
                                  .id_count = 1,
                                  .mode = MN_FORGET_PURGE};
        if (mark.mode == MN_FORGET_PURGE && mn_writer_forget(w, &purge, &outcome) != MN_OK)
            break; /* the batch, or the disk, is full: again after the commit */
        w->purge_repeat_at = at;
        done++;
    }
    return done;
}

uint64_t mn_writer_purge_unsearched(const struct mn_writer *w)
{
    return w->purge_unsearched;
}

uint64_t mn_writer_purged_seq(const struct mn_writer *w, uint64_t *files)
{
    *files = w->purge_files;
    if (w->purge_admitted > w->purge_done || w->purge_rewritten > w->purge_done)
        return w->purge_done;
    return atomic_load_explicit(&w->control->visible_seq, memory_order_relaxed); /* no purge is left to carry out */
}

bool mn_writer_purge_waits(const struct mn_writer *w)
{
    return w->purge_admitted > w->purge_rewritten;
}

/* ---- what earlier processes left ---- */

struct sweep {
    struct mn_writer *w;
    uint64_t view_gen;
};

static enum mn_status sweep_shared(void *context, const char *name)
{
    struct sweep *s = context;
    uint64_t gen, number;
    struct mn_limbo entry = {.gen = s->view_gen, .kind = MN_LIMBO_SHARED};
    bool stale = false;
    if (sscanf(name, "view.%" SCNu64, &gen) == 1)
        stale = gen < s->view_gen;
    else if (sscanf(name, "tail.%" SCNu64 ".%" SCNu64, &gen, &number) == 2)
        stale = gen != s->w->instance_gen || mn_parts_find(&s->w->parts, true, number) == MN_NONE;
    else if (sscanf(name, "live.%" SCNu64 ".%" SCNu64, &gen, &number) == 2)
        stale = gen != s->w->instance_gen || mn_parts_find(&s->w->parts, false, number) == MN_NONE;
    else if (sscanf(name, "ledger.%" SCNu64, &gen) == 1)
        stale = true;
    if (!stale)
        return MN_OK;
    snprintf(entry.name, sizeof entry.name, "%s", name);
    return mn_writer_retire(s->w, entry);
}

/* Segments that a manifest has let go; a purge is not done before they are gone. Ids are never given twice, so one
 * below the next that the manifest does not name is in no compaction's hands either. */
static enum mn_status sweep_columns(void *context, const char *name)
{
    struct sweep *s = context;
    const struct mn_manifest *manifest = &s->w->manifest;
    char *end;
    uint64_t id = strtoull(name, &end, 10);
    if (end == name || *end || id >= manifest->next_segment)
        return MN_OK;
    for (uint32_t i = 0; i < manifest->segment_count; i++)
        if (manifest->segments[i].id == id)
            return MN_OK;
    struct mn_limbo entry = {
        .gen = s->view_gen, .kind = MN_LIMBO_COLUMNS, .number = id, .file_gen = s->w->instance_gen};
    return mn_writer_retire(s->w, entry);
}

enum mn_status mn_writer_sweep(struct mn_writer *w)
{
    struct sweep sweep = {w, atomic_load(&w->control->view_gen)};
    uint64_t *numbers;
    uint32_t count;
    char path[MN_PATH_MAX];
    MN_TRY(w->store.io->list(w->instance->path, sweep_shared, &sweep));
    MN_TRY(w->store.io->list(mn_store_path(&w->store, path, "columns"), sweep_columns, &sweep));
    MN_TRY(mn_wal_list(&w->store, &numbers, &count));
    enum mn_status status = MN_OK;
    for (uint32_t i = 0; status == MN_OK && i < count && numbers[i] < w->manifest.wal_first; i++)
        status =
            mn_writer_retire(w, (struct mn_limbo){.gen = sweep.view_gen, .kind = MN_LIMBO_WAL, .number = numbers[i]});
    free(numbers);
    return status;
}

/* ---- history ---- */

/* One sample each window/512, so that the ring always reaches back past the window. */
static void keep_history(struct mn_writer *w, int64_t wall_ns)
{
    uint64_t window = w->settings.history_window;
    uint64_t visible = atomic_load_explicit(&w->control->visible_seq, memory_order_relaxed);
    if (window == 0) {
        atomic_store(&w->control->history_seq, visible);
        return;
    }
    uint32_t newest = (w->history_at + MN_HISTORY_SLOTS - 1) % MN_HISTORY_SLOTS;
    if (w->history_count == 0 || wall_ns - w->history[newest].wall_ns >= (int64_t)(window / (MN_HISTORY_SLOTS / 2))) {
        w->history[w->history_at].wall_ns = wall_ns;
        w->history[w->history_at].seq = visible;
        w->history_at = (w->history_at + 1) % MN_HISTORY_SLOTS;
        w->history_count += w->history_count < MN_HISTORY_SLOTS;
    }
    uint64_t seq = atomic_load(&w->control->history_seq);
    for (uint32_t i = 0; i < w->history_count; i++) {
        bool old_enough = w->history[i].wall_ns <= wall_ns - (int64_t)window;
        if (old_enough && w->history[i].seq > seq)
            seq = w->history[i].seq;
    }
    atomic_store(&w->control->history_seq, seq);
}

/* ---- the turn ---- */

static void set_reason(struct mn_writer *w, uint32_t bit, bool holds)
{
    if (holds)
        atomic_fetch_or(&w->control->reasons, bit);
    else
        atomic_fetch_and(&w->control->reasons, ~bit);
}

static void set_gauges(struct mn_writer *w)
{
    uint64_t gen = atomic_load(&w->control->view_gen), oldest = oldest_pin(w);
    uint32_t chunks = 0;
    for (uint32_t i = 0; i < w->parts.count; i++)
        chunks += !w->parts.own[i]->retired && w->parts.own[i]->part.tail;
    mn_stat_set(w->stats, MN_STAT_wal_segments, chunks);
    mn_stat_set(w->stats, MN_STAT_wal_prepared, mn_wal_keeper_ready(w->keeper));
    mn_stat_set(w->stats, MN_STAT_wal_copies, w->wal.copy && mn_wal_copy_current(w->wal.copy) ? 2 : 1);
    mn_stat_set(w->stats, MN_STAT_wal_copy_mended, mn_wal_copy_mended(w->wal.copy));
    mn_stat_set(w->stats, MN_STAT_index_entries, mn_index_entries(w->parts.index));
    mn_stat_set(w->stats, MN_STAT_idem_entries, mn_ledger_entries(w->ledger));
    mn_stat_set(w->stats, MN_STAT_limbo_files, w->limbo_count + mn_wal_keeper_removals(w->keeper));
    mn_stat_set(w->stats, MN_STAT_epoch_lag, oldest < gen ? gen - oldest : 0);
    bool full = mn_wal_keeper_full(w->keeper);
    atomic_store(&w->control->read_only, full);
    set_reason(w, MN_DEGRADED_READ_ONLY, full);
    set_reason(w, MN_DEGRADED_MANIFEST, w->manifest.alone);
}

/* The copy of the log waits for the end of a segment that is not written there. */
static void tend_copy(struct mn_writer *w)
{
    uint64_t sealed;
    if (mn_wal_copy_wants_seal(w->wal.copy) && !mn_writer_pending(w))
        w->broken |= mn_writer_seal(w, &sealed) != MN_OK;
}

/* An edit that did not reach both files of the manifest: the disk was full, or is. */
static void tend_manifest(struct mn_writer *w, uint64_t now)
{
    if (!w->manifest.alone || mn_wal_keeper_full(w->keeper) || now - w->manifest_tried_ns < MANIFEST_EVERY_NS)
        return;
    w->manifest_tried_ns = now;
    (void)(mn_manifest_rejoin(&w->manifest, &w->store) == MN_OK); /* else it is still alone */
}

bool mn_writer_news(struct mn_writer *w, char *text, size_t size)
{
    return mn_wal_copy_news(w->wal.copy, text, size);
}

uint32_t mn_writer_tend(struct mn_writer *w, int64_t wall_ns)
{
    uint64_t now = mn_clock_ns();
    uint32_t done = mn_index_sweep(w->parts.index, SWEEP_SHARDS);
    bool gauges = now - w->gauges_ns >= GAUGES_EVERY_NS;
    if (gauges || w->purge_rewritten > w->purge_done) {
        done += empty_limbo(w);
        finish_purges(w);
        done += repeat_purges(w);
        mn_ledger_expire(w->ledger, wall_ns - (int64_t)w->settings.write_idem_window, EXPIRE_AT_ONCE);
    }
    /* In every turn: who is answered that a purge is done, or could not be, finds it told here. */
    mn_stat_set(w->stats, MN_STAT_purges_pending, w->purge_admitted > w->purge_done || w->purge_unsearched != 0);
    if (gauges) {
        w->gauges_ns = now;
        tend_copy(w);
        tend_manifest(w, now);
        keep_history(w, wall_ns);
        set_gauges(w);
    }
    return done;
}

void mn_writer_reload(struct mn_writer *w, const struct mn_settings *settings)
{
    w->settings = *settings;
    mn_wal_keeper_reserve(w->keeper, settings->disk_reserve);
}
