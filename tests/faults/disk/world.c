/*
 * world.c - see world.h.
 */
#include "tests/faults/disk/world.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/snapshot.h"
#include "engine/verify.h"
#include "shm/process.h"
#include "tests/faults/disk/disk.h"
#include "tests/faults/disk/turns.h"

static const char *const verdicts[WORLD_VERDICTS] = {"lost", "risen", "wrong", "undetected", "refused"};

void world_broken(struct world *w, enum world_verdict verdict, const char *what, ...)
{
    char text[2048];
    va_list more;
    va_start(more, what);
    vsnprintf(text, sizeof text, what, more);
    va_end(more);
    fprintf(stderr, "seed %llu: %s: %s\n", (unsigned long long)w->seed, verdicts[verdict], text);
    atomic_fetch_add(&w->tally->bad[verdict], 1);
    atomic_store(&w->slot->verdict, verdict + 1);
    _exit(1);
}

uint32_t world_draw(struct world *w, uint32_t below)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->random >> 33) % below;
}

static void must_work(struct world *w, enum mn_status status, const char *what)
{
    if (status != MN_OK)
        world_broken(w, WORLD_REFUSED, "%s: %s", what, mn_error_trail());
}

/* ---- coming and going ---- */

static void set_settings(struct world *w)
{
    mn_settings_default(&w->settings);
    w->settings.wal_segment_bytes = (256u << 10) << world_draw(w, 2);
    w->settings.wal_prepared = 1 + world_draw(w, 2);
    w->settings.history_window = 0;
    w->settings.disk_reserve = 0;
    w->settings.reader_max_age = 0;
}

struct world *world_new(uint64_t seed, struct world_tally *tally, struct world_slot *slot)
{
    static const char *const folders[] = {"", "/disk", "/trash"};
    struct world *w = calloc(1, sizeof *w);
    char path[128], root[128];
    if (!w)
        abort();
    *w = (struct world){.seed = seed, .random = seed * 7919 + 1, .tally = tally, .slot = slot};
    snprintf(w->base, sizeof w->base, "/dev/shm/mn-disk-%d-%llu", (int)getpid(), (unsigned long long)seed);
    memcpy(slot->folder, w->base, sizeof slot->folder);
    for (size_t i = 0; i < MN_ARRAY_LEN(folders); i++) {
        snprintf(path, sizeof path, "%s%s", w->base, folders[i]);
        if (mkdir(path, 0700) != 0)
            world_broken(w, WORLD_REFUSED, "cannot make %s", path);
    }
    snprintf(root, sizeof root, "%s/disk", w->base);
    disk_open(root, path, seed);
    set_settings(w);
    snprintf(path, sizeof path, "%s/disk/store", w->base);
    must_work(w, mn_store_create(&w->store, &mn_io_posix, path, MODEL_DIM, MN_METRIC_IP), "create");
    return w;
}

void world_free(struct world *w)
{
    world_close(w, false);
    disk_close();
    must_work(w, mn_io_remove_tree(&mn_io_posix, w->base), "remove");
    w->slot->folder[0] = 0;
    for (uint32_t s = 0; s < MODEL_SPACES; s++)
        for (uint32_t id = 0; id < MODEL_IDS; id++)
            free(w->past[s][id]);
    free(w);
}

static enum mn_status make_instance(struct mn_instance *instance, const struct mn_store *store)
{
    struct mn_instance_shape shape = {.dim = store->dim, .metric = store->metric, .reader_slots = 16};
    memcpy(shape.store_uuid, store->uuid, sizeof shape.store_uuid);
    return mn_instance_create(instance, &shape);
}

enum mn_status world_open(struct world *w)
{
    if (!w->instance.control) {
        must_work(w, make_instance(&w->instance, &w->store), "instance");
        memcpy(w->slot->instance, w->instance.path, sizeof w->slot->instance);
    }
    MN_TRY(mn_recover(&w->store, &w->instance, 1, NULL, &w->report));
    MN_TRY(mn_writer_open(&w->writer, &w->store, &w->instance, &w->settings, mn_stats_page(&w->instance.stats, 0)));
    MN_TRY(mn_compactor_open(&w->compactor, &w->store, &w->instance));
    MN_TRY(mn_compactor_sweep(w->compactor));
    return mn_reader_open(&w->reader, &w->store, &w->instance);
}

static void remove_instance(struct world *w, struct mn_instance *instance)
{
    char path[sizeof instance->path];
    memcpy(path, instance->path, sizeof path);
    mn_instance_close(instance);
    must_work(w, mn_instance_remove(path), "remove the instance");
}

void world_close(struct world *w, bool keep)
{
    mn_reader_close(w->holding);
    mn_reader_close(w->reader);
    mn_compactor_close(w->compactor);
    mn_writer_close(w->writer);
    w->holding = w->reader = NULL;
    w->compactor = NULL;
    w->writer = NULL;
    if (keep || !w->instance.control)
        return;
    remove_instance(w, &w->instance);
    w->slot->instance[0] = 0;
}

/* ---- the model against a snapshot ---- */

enum difference { SAME, MISSING, EXTRA, CHANGED };

static enum difference look_at(const struct mn_snapshot *snapshot, const struct model_state *state, uint32_t space,
                               uint32_t id)
{
    const struct model_memory *m = &state->memories[space][id];
    struct mn_row_ref ref = model_find(snapshot, space, id);
    bool wanted = m->there && !m->suppressed;
    if (ref.part == MN_NONE)
        return wanted ? MISSING : SAME;
    if (!wanted)
        return EXTRA;
    return model_is(&snapshot->parts[ref.part], ref.row, space, id, m) ? SAME : CHANGED;
}

static uint64_t count_visible(const struct mn_snapshot *snapshot)
{
    uint64_t visible = 0;
    for (uint32_t p = 0; p < snapshot->part_count; p++)
        for (uint32_t row = 0; row < snapshot->parts[p].rows; row++)
            visible += mn_part_visible(&snapshot->parts[p], row, snapshot->seq, snapshot->now);
    return visible;
}

bool world_holds(struct world *w, const struct mn_snapshot *snapshot, const struct model_state *state)
{
    uint64_t wanted = 0;
    (void)w;
    for (uint32_t s = 0; s < MODEL_SPACES; s++)
        for (uint32_t id = 1; id < MODEL_IDS; id++) {
            if (look_at(snapshot, state, s, id) != SAME)
                return false;
            wanted += state->memories[s][id].there && !state->memories[s][id].suppressed;
        }
    return count_visible(snapshot) == wanted;
}

/* Was this row ever written? */
static bool was_written(const struct world *w, const struct mn_part *part, uint32_t row, uint32_t space, uint32_t id)
{
    for (uint32_t p = 0; p < w->past_count[space][id]; p++)
        if (model_is(part, row, space, id, &w->past[space][id][p]))
            return true;
    return false;
}

void world_differs(struct world *w, const struct mn_snapshot *snapshot, const struct model_state *state,
                   const char *when)
{
    for (uint32_t s = 0; s < MODEL_SPACES; s++)
        for (uint32_t id = 1; id < MODEL_IDS; id++) {
            enum difference d = look_at(snapshot, state, s, id);
            if (d == SAME)
                continue;
            struct mn_row_ref ref = model_find(snapshot, s, id);
            bool genuine = d == MISSING || was_written(w, &snapshot->parts[ref.part], ref.row, s, id);
            world_broken(w,
                         !genuine     ? WORLD_WRONG
                         : d == EXTRA ? WORLD_RISEN
                                      : WORLD_LOST,
                         "%s: memory %u of space %u is %s", when, id, s,
                         d == MISSING ? "missing"
                         : d == EXTRA ? "there"
                                      : "another");
        }
    world_broken(w, WORLD_RISEN, "%s: %llu memories are visible, more than there are ids of", when,
                 (unsigned long long)count_visible(snapshot));
}

void world_remember_past(struct world *w)
{
    for (uint32_t s = 0; s < MODEL_SPACES; s++)
        for (uint32_t id = 1; id < MODEL_IDS; id++) {
            struct model_memory m = w->now.memories[s][id];
            uint32_t *count = &w->past_count[s][id];
            m.suppressed = m.purged = false;
            if (!m.there || (*count > 0 && memcmp(&w->past[s][id][*count - 1], &m, sizeof m) == 0))
                continue;
            if ((*count & (*count - 1)) == 0) /* a power of two: full */
                w->past[s][id] = realloc(w->past[s][id], (*count ? *count * 2 : 1) * sizeof m);
            if (!w->past[s][id])
                abort();
            w->past[s][id][(*count)++] = m;
        }
}

/* ---- after a recovery ---- */

static bool reported(const struct world *w)
{
    return w->report.lost || w->report.quarantined > 0 || atomic_load(&w->instance.control->reasons) != 0;
}

/* True when what is there of an id can be, beside garbage: what was acknowledged or what was in flight; or nothing,
 * when the garbage is in a write of this id that was in flight: it may have been durable, and then what it replaced
 * must not rise. */
static bool excused(const struct world *w, const struct mn_snapshot *snapshot, uint32_t space, uint32_t id)
{
    if (look_at(snapshot, &w->acked, space, id) == SAME)
        return true;
    if (!w->in_flight ||
        memcmp(&w->acked.memories[space][id], &w->written.memories[space][id], sizeof(struct model_memory)) == 0)
        return false;
    return model_find(snapshot, space, id).part == MN_NONE || look_at(snapshot, &w->written, space, id) == SAME;
}

/* The disk has lied or left garbage: each memory on its own must be one that was written, and a gap is told. What a
 * sync lied about may be gone. */
static void judge_forgiven(struct world *w, const struct mn_snapshot *snapshot)
{
    if (!reported(w))
        world_broken(w, WORLD_UNDETECTED,
                     "not all is there, and that was not reported (acknowledged %llu, recovered %llu)",
                     (unsigned long long)w->acked_seq, (unsigned long long)snapshot->seq);
    for (uint32_t s = 0; s < MODEL_SPACES; s++)
        for (uint32_t id = 1; id < MODEL_IDS; id++) {
            struct mn_row_ref ref = model_find(snapshot, s, id);
            const struct mn_part *part = &snapshot->parts[ref.part == MN_NONE ? 0 : ref.part];
            if (ref.part != MN_NONE && model_reads(part, ref.row) && !was_written(w, part, ref.row, s, id))
                world_broken(w, WORLD_WRONG, "memory %u of space %u was never written so", id, s);
            if (!disk_lied() && !excused(w, snapshot, s, id))
                world_broken(w, WORLD_LOST, "memory %u of space %u is gone beside garbage", id, s);
        }
    atomic_fetch_add(&w->tally->reported, 1);
}

void world_judge(struct world *w, bool *landed)
{
    struct mn_snapshot snapshot;
    w->forgiven |= disk_lied() || disk_soiled();
    must_work(w, mn_reader_pin(w->reader, 0, &snapshot), "pin");
    if (!w->forgiven && snapshot.uncoded > 0)
        world_broken(w, WORLD_WRONG, "the manifest names an inverted file that is not there");
    *landed = w->in_flight && snapshot.seq >= w->written_seq;
    const struct model_state *state = *landed ? &w->written : &w->acked;
    if (!world_holds(w, &snapshot, state)) {
        if (!w->forgiven)
            world_differs(w, &snapshot, state, *landed ? "recovered with the batch in flight" : "recovered");
        judge_forgiven(w, &snapshot);
    }
    if (!w->forgiven && (w->report.lost || w->report.quarantined > 0))
        world_broken(w, WORLD_REFUSED, "recovery tells of damage that is none: lost %d, quarantined %llu",
                     w->report.lost, (unsigned long long)w->report.quarantined);
    if (*landed)
        w->acked = w->written;
    mn_reader_unpin(w->reader);
    w->now = w->acked;
    w->in_flight = false;
}

/* An edit that the cut has torn is told until the next one replaces the file. */
static void count_damage(void *context, const char *path, const char *what)
{
    struct world *w = context;
    if (!strstr(what, "unfinished edit") && !w->forgiven)
        world_broken(w, WORLD_WRONG, "verify: %s: %s", path, what);
}

void world_verify(struct world *w)
{
    struct mn_verify_result result;
    must_work(w, mn_verify(&w->store, atomic_load(&w->instance.control->durable_seq), count_damage, NULL, w, &result),
              "verify");
}

/* ---- purges ---- */

static bool holds(const char *path, const char *mark, uint32_t length)
{
    void *data;
    size_t bytes;
    if (mn_io_slurp(&mn_io_posix, path, 1u << 30, &data, &bytes) != MN_OK)
        return false;
    bool found = memmem(data, bytes, mark, length) != NULL;
    free(data);
    return found;
}

/* The file below a folder that holds a text; false when there is none. */
static bool grep(const char *folder, const char *mark, uint32_t length, char found[256])
{
    DIR *dir = opendir(folder);
    bool there = false;
    for (struct dirent *entry; dir && !there && (entry = readdir(dir)) != NULL;) {
        char path[512];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] == '.' || lstat(path, &st) != 0)
            continue;
        there = S_ISDIR(st.st_mode) ? grep(path, mark, length, found) : holds(path, mark, length);
        if (there && S_ISREG(st.st_mode))
            snprintf(found, 256, "%.255s", path);
    }
    if (dir)
        closedir(dir);
    return there;
}

void world_find_purged(struct world *w)
{
    for (uint32_t s = 0; s < MODEL_SPACES; s++)
        for (uint32_t id = 1; id < MODEL_IDS; id++) {
            char mark[64], found[256] = "";
            if (!w->acked.memories[s][id].purged)
                continue;
            if (grep(w->store.dir, mark, model_mark(mark, s, id), found))
                world_broken(w, WORLD_RISEN, "memory %u of space %u was purged, and is in %s", id, s, found);
            atomic_fetch_add(&w->tally->purges, 1);
        }
}

/* ---- copies ---- */

static void check_store_at(struct world *w, const char *path, const char *when)
{
    struct mn_store store;
    struct mn_instance instance;
    struct mn_recovery_report report;
    struct mn_reader *reader;
    struct mn_snapshot snapshot;
    must_work(w, mn_store_open(&store, &mn_io_posix, path), when);
    must_work(w, make_instance(&instance, &store), when);
    must_work(w, mn_recover(&store, &instance, 1, NULL, &report), when);
    must_work(w, mn_reader_open(&reader, &store, &instance), when);
    must_work(w, mn_reader_pin(reader, 0, &snapshot), when);
    if (report.lost || report.quarantined > 0)
        world_broken(w, WORLD_WRONG, "%s: recovery finds damage", when);
    if (!world_holds(w, &snapshot, &w->taken_state))
        world_differs(w, &snapshot, &w->taken_state, when);
    mn_reader_close(reader);
    remove_instance(w, &instance);
}

void world_check_copy(struct world *w, bool restored)
{
    char copy[128], again[128];
    struct mn_copy_result result;
    snprintf(copy, sizeof copy, "%s/disk/copy", w->base);
    snprintf(again, sizeof again, "%s/disk/again", w->base);
    bool there = access(copy, F_OK) == 0;
    if (!there && !w->taken_maybe)
        world_broken(w, WORLD_LOST, "the snapshot that was taken is not there");
    if (there && restored)
        must_work(
            w, mn_snapshot_restore(&(struct mn_restore){.io = &mn_io_posix, .snapshot = copy, .dir = again}, &result),
            "restore");
    if (there)
        check_store_at(w, restored ? again : copy, restored ? "a restored snapshot" : "a snapshot");
    must_work(w, mn_io_remove_tree(&mn_io_posix, copy), "remove the copy");
    must_work(w, mn_io_remove_tree(&mn_io_posix, again), "remove the copy");
    atomic_fetch_add(&w->tally->snapshots, there);
    w->taken = w->taken_maybe = false;
}
