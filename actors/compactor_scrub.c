/*
 * compactor_scrub.c - the scrubber: reads every column file again and again, and mends what has rotted.
 *
 * A round takes all segments, one after the other, in slices of a tenth of a second's worth of scrub.rate; it begins
 * scrub.interval after the one before began, and gives way to recalls. When somebody has met damage a round begins at
 * once and gives way to nothing: until it is mended rows may be missing. A segment in which damage was found is mended
 * when the walk is through it (engine/columns_repair.h), and readers are told through control.mended.
 *
 * A round in which nothing is left damaged ends what was said about columns in info.degraded.
 */
#include <inttypes.h>
#include <stdio.h>

#include "actors/compactor.h"
#include "engine/ivf_file.h"
#include "engine/quarantine.h"
#include "engine/tail.h"
#include "engine/view.h"
#include "shm/process.h"

#define SLICES_A_SECOND 10u
#define HURRY_TIMES     8u          /* scrub.rate, when damage was met */
#define BUSY_PAUSE_NS   1000000000u /* recalls come first */
#define HURRY_PAUSE_NS  5000000000u /* between two rounds, while damage is there that cannot be mended, */
#define HURRY_SHARE     10u         /* or so many times as long as the last one took */

static struct mn_control *control_of(const struct mn_compactor_role *c)
{
    return c->actor->instance.control;
}

static void note_damage(void *context, const char *path, const char *what)
{
    struct mn_compactor_role *c = context;
    mn_stat_add(c->actor->stats, MN_STAT_scrub_damage, 1);
    mn_log(c->actor, "DAMAGE: %s: %s", path, what);
    mn_compactor_degrade(c, path);
}

/* ---- mending ---- */

/* The liveness of a segment in shared memory; false: the view does not have it. */
static bool map_live(struct mn_compactor_role *c, const struct mn_manifest_segment *segment, struct mn_segment *live)
{
    struct mn_instance *instance = &c->actor->instance;
    struct mn_view_list view;
    bool found = false;
    if (mn_view_map(&view, instance, atomic_load(&instance->control->view_gen)) != MN_OK)
        return false;
    for (uint32_t v = 0; v < view.columns && !found; v++)
        found = view.column[v].segment == segment->id &&
                mn_live_map(live, instance, view.column[v].live_gen, segment->id, segment->rows, false) == MN_OK;
    mn_view_unmap(&view);
    return found;
}

/* Release: who sees the new count sees the files. */
static void tell_readers(struct mn_compactor_role *c, uint64_t segment)
{
    _Atomic uint64_t *mended = &control_of(c)->mended;
    uint64_t count = (atomic_load_explicit(mended, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(mended, count << 32 | (uint32_t)segment, memory_order_release);
    mn_compactor_unwatch(c);
}

/* One that died may have put a file in its place and told nobody: then all look again. */
void mn_compactor_scrub_start(struct mn_compactor_role *c)
{
    if (atomic_load(&control_of(c)->reasons) & MN_DEGRADED_COLUMN)
        atomic_fetch_add_explicit(&control_of(c)->mended, UINT64_C(2) << 32, memory_order_release);
}

static bool pause_mending(void *context)
{
    struct mn_compactor_role *c = context;
    mn_compactor_receive(c);
    return mn_actor_breathe(c->actor);
}

static void note_lost(struct mn_compactor_role *c, uint64_t segment, const struct mn_columns_mended *mended)
{
    c->round.lost += mended->lost;
    mn_log(c->actor, "DAMAGE: %s: restore it from a snapshot; what is whole stays available", mended->what);
    if (mn_quarantine_note_columns(&c->actor->store, segment, mended->what) != MN_OK)
        mn_log(c->actor, "no note of it: %s", mn_error_trail());
    atomic_fetch_or(&control_of(c)->reasons, MN_DEGRADED_QUARANTINE);
}

static void mend(struct mn_compactor_role *c, const struct mn_manifest_segment *segment)
{
    struct mn_columns_mended mended;
    struct mn_segment live = {0};
    bool alive = map_live(c, segment, &live);
    mn_actor_pulse_begin(c->actor, false);
    enum mn_status status = mn_columns_mend(
        &c->actor->store, segment, alive ? ((const struct mn_live *)live.base)->died : NULL, pause_mending, c, &mended);
    mn_actor_pulse_end(c->actor);
    mn_segment_unmap(&live);
    if (mended.files > 0) {
        mn_stat_add(c->actor->stats, MN_STAT_scrub_mended, mended.files);
        mn_log(c->actor, "mended %u files of column segment %" PRIu64, mended.files, segment->id);
        tell_readers(c, segment->id);
    }
    if (mended.lost > 0)
        note_lost(c, segment->id, &mended);
    if (status != MN_OK && status != MN_DEADLINE) {
        c->round.lost++;
        mn_log(c->actor, "column segment %" PRIu64 " could not be mended: %s", segment->id, mn_error_trail());
    }
}

/* What was said about a segment that is whole now. */
static void forget_note(struct mn_compactor_role *c, uint64_t segment)
{
    const struct mn_store *store = &c->actor->store;
    char name[96], path[MN_PATH_MAX];
    snprintf(name, sizeof name, "quarantine/columns-%" PRIu64 ".json", segment);
    if (store->io->unlink(mn_store_path(store, path, name)) == MN_OK && !mn_quarantine_holds(store))
        atomic_fetch_and(&control_of(c)->reasons, ~(uint32_t)MN_DEGRADED_QUARANTINE);
}

/* ---- a round ---- */

/* The segment after the one that was checked last, in the order of ids. NULL: the round is at its end. */
static const struct mn_manifest_segment *next_segment(const struct mn_manifest *manifest, uint64_t after)
{
    const struct mn_manifest_segment *next = NULL;
    for (uint32_t i = 0; i < manifest->segment_count; i++) {
        const struct mn_manifest_segment *segment = &manifest->segments[i];
        if (segment->id > after && (!next || segment->id < next->id))
            next = segment;
    }
    return next;
}

static const struct mn_manifest_segment *segment_of(const struct mn_manifest *manifest, uint64_t id)
{
    for (uint32_t i = 0; i < manifest->segment_count; i++)
        if (manifest->segments[i].id == id)
            return &manifest->segments[i];
    return NULL;
}

static void begin_round(struct mn_compactor_role *c, uint64_t now)
{
    c->round = (struct mn_scrub_round){.under_way = true, .began_ns = now};
}

/* True when readers see every segment that there is. */
static bool all_served(const struct mn_compactor_role *c, const struct mn_manifest *manifest)
{
    struct mn_view_list view;
    struct mn_instance *instance = &c->actor->instance;
    if (mn_view_map(&view, instance, atomic_load(&instance->control->view_gen)) != MN_OK)
        return false;
    bool all = view.columns >= manifest->segment_count;
    mn_view_unmap(&view);
    return all;
}

static void end_round(struct mn_compactor_role *c, const struct mn_manifest *manifest, uint64_t now)
{
    c->round.under_way = false;
    c->round.ended_ns = now;
    mn_stat_set(c->actor->stats, MN_STAT_scrub_round_s, (uint64_t)(mn_wall_ns() / 1000000000));
    mn_stat_set(c->actor->stats, MN_STAT_scrub_lost, c->round.lost);
    mn_stat_set(c->actor->stats, MN_STAT_scrub_progress, 100);
    if (c->round.lost == 0 && all_served(c, manifest))
        atomic_fetch_and(&control_of(c)->reasons, ~(uint32_t)MN_DEGRADED_COLUMN);
}

/* The segment that the round is at; the manifest may have moved on meanwhile. */
static const struct mn_manifest_segment *place(struct mn_compactor_role *c, const struct mn_manifest *manifest)
{
    const struct mn_manifest_segment *segment = segment_of(manifest, c->round.at.segment);
    if (segment)
        return segment;
    segment = next_segment(manifest, c->round.at.segment);
    c->round.at = (struct mn_columns_scrub){.segment = segment ? segment->id : UINT64_MAX};
    return segment;
}

static void leave_segment(struct mn_compactor_role *c, const struct mn_manifest *manifest,
                          const struct mn_manifest_segment *segment)
{
    uint64_t files = 0, bytes = 0, lost = c->round.lost;
    if (c->round.at.damage > 0)
        mend(c, segment);
    if (c->round.lost == lost)
        forget_note(c, segment->id);
    if (segment->codebook != 0)
        mn_codebook_verify(&c->actor->store, segment->codebook, &files, &bytes, note_damage, c);
    c->round.segments++;
    mn_stat_set(c->actor->stats, MN_STAT_scrub_progress, c->round.segments * 100 / (manifest->segment_count + 1));
    const struct mn_manifest_segment *next = next_segment(manifest, segment->id);
    c->round.at = (struct mn_columns_scrub){.segment = next ? next->id : UINT64_MAX};
}

static void slice(struct mn_compactor_role *c, const struct mn_manifest *manifest, uint64_t bytes, uint64_t *read)
{
    const struct mn_manifest_segment *segment = place(c, manifest);
    bool done = false;
    if (!segment)
        return;
    mn_actor_pulse_begin(c->actor, true);
    enum mn_status status =
        mn_columns_scrub(&c->round.at, &c->actor->store, segment, bytes, read, note_damage, c, &done);
    mn_actor_pulse_end(c->actor);
    mn_stat_add(c->actor->stats, MN_STAT_scrub_bytes, *read);
    if (status != MN_OK)
        mn_log(c->actor, "column segment %" PRIu64 " was not checked: %s", segment->id, mn_error_trail());
    if (done || status != MN_OK)
        leave_segment(c, manifest, segment);
}

/* Damage was met since the last round, or is still there and might be mended by now. */
static bool in_a_hurry(const struct mn_compactor_role *c, uint64_t now)
{
    const struct mn_scrub_round *round = &c->round;
    uint64_t pause = (round->ended_ns - round->began_ns) * HURRY_SHARE;
    if (!(atomic_load(&control_of(c)->reasons) & MN_DEGRADED_COLUMN))
        return false;
    return round->under_way || round->ended_ns == 0 ||
           now - round->ended_ns >= (pause > HURRY_PAUSE_NS ? pause : HURRY_PAUSE_NS);
}

bool mn_compactor_scrub_due(const struct mn_compactor_role *c, uint64_t now_ns)
{
    return now_ns >= c->next_scrub_ns || (!c->round.under_way && in_a_hurry(c, now_ns));
}

void mn_compactor_scrub(struct mn_compactor_role *c, uint64_t now_ns)
{
    const struct mn_settings *settings = &c->actor->settings;
    struct mn_manifest manifest = {0};
    bool hurry = in_a_hurry(c, now_ns);
    uint64_t rate = settings->scrub_rate * (hurry ? HURRY_TIMES : 1), read = 0;
    c->next_scrub_ns = now_ns + BUSY_PAUSE_NS;
    mn_load_look(&c->load, &c->actor->instance.stats, now_ns);
    if ((!hurry && !mn_load_idle(&c->load, settings)) || mn_manifest_read(&manifest, &c->actor->store, NULL) != MN_OK)
        return;
    if (!c->round.under_way)
        begin_round(c, now_ns);
    slice(c, &manifest, rate / SLICES_A_SECOND, &read);
    c->next_scrub_ns = now_ns + read * 1000 / rate * 1000000;
    if (!place(c, &manifest)) {
        end_round(c, &manifest, mn_clock_ns());
        uint64_t next = c->round.began_ns + settings->scrub_interval;
        c->next_scrub_ns = next > now_ns + BUSY_PAUSE_NS ? next : now_ns + BUSY_PAUSE_NS;
    }
    mn_manifest_free(&manifest);
}
