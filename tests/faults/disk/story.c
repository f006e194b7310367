/*
 * story.c - several lives of one store: work, a fault, an end, a recovery, and a comparison with the model, over and
 * over. Everything follows from the seed.
 */
#include "tests/faults/disk/story.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/snapshot.h"
#include "shm/process.h"
#include "tests/faults/disk/disk.h"
#include "tests/faults/disk/turns.h"

#define STEPS 90u

/* What the seed's disk does. */
enum theme { CUTS, DEATHS, ERRORS, FULL, GARBAGE, LIES, THEMES };

struct story {
    struct world *w;
    enum theme theme;
    bool over; /* the disk has lied or made garbage, and that was told: nothing more can be asked of it */
};

/* A failure that somebody is to blame for. */
static bool blamed(void)
{
    return disk_dead() || disk_struck() > 0;
}

static bool end_of_life(struct world *w, const char *what)
{
    if (!blamed())
        world_broken(w, WORLD_REFUSED, "%s: %s", what, mn_error_trail());
    return false;
}

/* ---- reading ---- */

/* False when the disk would not let it. */
static bool pin(struct world *w, struct mn_reader *reader, struct mn_snapshot *snapshot)
{
    if (mn_reader_pin(reader, 0, snapshot) == MN_OK)
        return true;
    if (!blamed())
        world_broken(w, WORLD_REFUSED, "pin: %s", mn_error_trail());
    return false;
}

/* What is acknowledged is visible. */
static void look(struct world *w)
{
    struct mn_snapshot snapshot;
    if (!pin(w, w->reader, &snapshot))
        return;
    if (snapshot.missing == 0 && !world_holds(w, &snapshot, &w->acked))
        world_differs(w, &snapshot, &w->acked, "after the acknowledgement");
    mn_reader_unpin(w->reader);
}

static void let_go(struct world *w)
{
    char path[MN_PATH_MAX];
    if (!w->holding)
        return;
    for (uint32_t p = 0; p < w->held.part_count; p++) {
        const struct mn_part *part = &w->held.parts[p];
        if (part->tail)
            mn_store_wal_path(&w->store, path, part->number);
        else
            mn_store_columns_dir(&w->store, path, part->number);
        if (access(path, F_OK) != 0)
            world_broken(w, WORLD_LOST, "%s is gone, and a reader has it pinned", path);
    }
    if (!world_holds(w, &w->held, &w->held_state))
        world_differs(w, &w->held, &w->held_state, "in a snapshot that is pinned");
    mn_reader_close(w->holding);
    w->holding = NULL;
    atomic_fetch_add(&w->tally->held, 1);
}

static void hold(struct world *w)
{
    let_go(w);
    if (mn_reader_open(&w->holding, &w->store, &w->instance) != MN_OK)
        world_broken(w, WORLD_REFUSED, "reader: %s", mn_error_trail());
    if (!pin(w, w->holding, &w->held)) {
        mn_reader_close(w->holding);
        w->holding = NULL;
        return;
    }
    w->held_state = w->acked;
}

/* ---- writing ---- */

static void keep_flight(struct world *w)
{
    for (uint32_t i = 0; i < w->flight_count; i++)
        if (w->flight[i].idem != 0)
            w->kept[w->kept_count++ % WORLD_KEYS] = w->flight[i];
    w->flight_count = 0;
}

static bool commit(struct world *w)
{
    if (!mn_writer_pending(w->writer))
        return true;
    w->in_flight = true;
    if (mn_writer_append(w->writer) != MN_OK || mn_writer_sync(w->writer) != MN_OK)
        return end_of_life(w, "commit");
    mn_writer_publish(w->writer);
    mn_writer_acked(w->writer);
    w->in_flight = false;
    w->acked = w->now;
    w->acked_seq = atomic_load(&w->instance.control->acked_seq);
    keep_flight(w);
    atomic_fetch_add(&w->tally->commits, 1);
    if (world_draw(w, 8) == 0)
        look(w);
    return true;
}

static enum mn_status forget_tag(struct world *w, const struct model_request *r, struct model_room *room,
                                 struct mn_outcome *outcome)
{
    struct mn_selection *selection;
    struct mn_forget request = model_forget(r, room);
    struct mn_str space = model_space(r->space), tag = model_tag(r->tag);
    struct mn_scope scope = {.spaces = &space,
                             .space_count = 1,
                             .filter = {.tags_any = &tag, .tags_any_count = 1, .has_tags_any = true},
                             .after = INT64_MIN};
    bool found, done = false;
    MN_TRY(mn_writer_replay(w->writer, &request.write, outcome, &found));
    if (found)
        return MN_OK;
    if (mn_writer_pending(w->writer))
        return MN_FAIL(MN_NOT_READY, "the batch is committed first");
    MN_TRY(mn_selection_start(w->writer, &scope, r->mode, &selection));
    enum mn_status status = MN_OK;
    while (status == MN_OK && !done)
        status = mn_selection_turn(selection, 16, &done);
    if (status == MN_OK)
        status = mn_writer_forget_selected(w->writer, selection, &request, outcome);
    mn_selection_free(selection);
    return status;
}

static enum mn_status ask(struct world *w, const struct model_request *r, struct mn_outcome *outcome)
{
    static struct model_room room;
    switch (r->kind) {
    case MODEL_PUT:
    case MODEL_ASSIGN: {
        struct mn_remember request = model_remember(r, &room);
        return mn_writer_remember(w->writer, &request, outcome);
    }
    case MODEL_REVISE: {
        struct mn_revise request = model_revise(r, &room);
        return mn_writer_revise(w->writer, &request, outcome);
    }
    case MODEL_FORGET: {
        struct mn_forget request = model_forget(r, &room);
        return mn_writer_forget(w->writer, &request, outcome);
    }
    default:
        return forget_tag(w, r, &room, outcome);
    }
}

/* The request is in the batch: so the model has it, and remembers it until it is acknowledged. */
static void note(struct world *w, struct model_request *r, const struct mn_outcome *outcome)
{
    r->seq = outcome->seq;
    w->flight_seq = outcome->seq;
    if (r->kind == MODEL_ASSIGN) {
        r->assigned = outcome->ids[outcome->id_count - 1].lo;
        if (outcome->ids[0].lo <= w->now.assigned)
            world_broken(w, WORLD_WRONG, "id %llu is given twice", (unsigned long long)outcome->ids[0].lo);
    }
    if (r->kind <= MODEL_REVISE && outcome->seq <= w->acked_seq)
        world_broken(w, WORLD_WRONG, "seq %llu is given twice", (unsigned long long)outcome->seq);
    model_apply(&w->now, r);
    world_remember_past(w);
    if (w->flight_count < WORLD_FLIGHT_MAX)
        w->flight[w->flight_count++] = *r;
}

/* False: the life has ended. *outcome is that of the request when it was taken (*taken). */
static bool enter(struct world *w, struct model_request *r, struct mn_outcome *outcome, bool *taken)
{
    enum mn_status status = ask(w, r, outcome);
    while (status == MN_NOT_READY) {
        if (!commit(w))
            return false;
        status = ask(w, r, outcome);
    }
    *taken = status == MN_OK;
    if (status == MN_OK || (status == MN_READ_ONLY && disk_struck() > 0))
        return true;
    const struct model_memory *m = &w->now.memories[r->space][r->first];
    if (status == MN_NOT_FOUND && r->kind == MODEL_REVISE && (!m->there || m->suppressed))
        return true;
    return end_of_life(w, "a write");
}

static struct model_request draw_request(struct world *w)
{
    uint32_t what = world_draw(w, 100);
    struct model_request r = {.space = world_draw(w, MODEL_SPACES),
                              .count = 1 + world_draw(w, MODEL_ROWS),
                              .mode = (enum mn_forget_mode)(MN_FORGET_DELETE + world_draw(w, 4)),
                              .fields = 1 + world_draw(w, 31),
                              .tag = world_draw(w, MODEL_TAGS)};
    r.kind = what < 58   ? MODEL_PUT
             : what < 64 ? MODEL_ASSIGN
             : what < 76 ? MODEL_REVISE
             : what < 97 ? MODEL_FORGET
                         : MODEL_FORGET_TAG;
    if (r.kind == MODEL_FORGET_TAG && r.mode == MN_FORGET_PURGE)
        r.mode = MN_FORGET_DELETE;
    r.first = 1 + world_draw(w, MODEL_IDS - MODEL_ROWS);
    if (r.kind == MODEL_PUT && world_draw(w, 8) == 0) {
        r.supersedes = 1 + world_draw(w, MODEL_IDS - 1);
        if (r.supersedes >= r.first && r.supersedes < r.first + r.count)
            r.supersedes = 0;
    }
    r.number = w->number + 1;
    w->number += r.count;
    r.idem = world_draw(w, 3) == 0 ? ++w->idem : 0;
    return r;
}

static bool write_one(struct world *w)
{
    struct model_request r = draw_request(w);
    struct mn_outcome outcome;
    bool taken;
    if (!enter(w, &r, &outcome, &taken))
        return false;
    if (taken && outcome.replayed)
        world_broken(w, WORLD_WRONG, "a new key is taken for an old one");
    if (taken)
        note(w, &r, &outcome);
    return true;
}

/* The same key again: answered as it was, and nothing is done twice. */
static void check_replay(struct world *w, const struct model_request *r, const struct mn_outcome *outcome)
{
    if (!outcome->replayed)
        world_broken(w, WORLD_LOST, "key %u was acknowledged, and its retry is taken for new", r->idem);
    bool ids = r->kind != MODEL_ASSIGN || outcome->ids[outcome->id_count - 1].lo == r->assigned;
    if (outcome->seq != r->seq || !ids)
        world_broken(w, WORLD_WRONG, "the retry of key %u is answered differently", r->idem);
    atomic_fetch_add(&w->tally->retries, 1);
}

static bool retry_kept(struct world *w)
{
    struct mn_outcome outcome;
    bool taken;
    uint32_t there = w->kept_count < WORLD_KEYS ? w->kept_count : WORLD_KEYS;
    if (there == 0)
        return true;
    struct model_request r = w->kept[world_draw(w, there)];
    if (!enter(w, &r, &outcome, &taken))
        return false;
    if (taken)
        check_replay(w, &r, &outcome);
    return true;
}

/* What was in flight when the life ended is asked again, as clients do. landed: it was there. */
static bool retry_flight(struct world *w, bool landed)
{
    struct model_request flight[WORLD_FLIGHT_MAX];
    uint32_t count = w->flight_count;
    memcpy(flight, w->flight, count * sizeof *flight);
    w->flight_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct mn_outcome outcome;
        bool taken;
        if (flight[i].idem == 0)
            continue;
        if (!enter(w, &flight[i], &outcome, &taken))
            return false;
        if (taken && landed)
            check_replay(w, &flight[i], &outcome);
        if (taken && !landed && outcome.replayed)
            world_broken(w, WORLD_WRONG, "key %u was answered, and what it wrote is not there", flight[i].idem);
        if (taken && !outcome.replayed)
            note(w, &flight[i], &outcome);
    }
    return true;
}

/* ---- compaction, snapshots, housekeeping ---- */

static const struct mn_compact_policy policy = {.min_rows = 50,
                                                .min_log_segments = 2,
                                                .fanout = 3,
                                                .dead_percent = 25,
                                                .segment_rows_max = 500,
                                                .codebook_rows_min = 20,
                                                .ivf_rows_min = 10};

/* After a failure that is no end: what it has left goes. */
static bool give_up(struct world *w, const char *what)
{
    if (disk_dead() || disk_struck() == 0)
        return end_of_life(w, what);
    return mn_compactor_sweep(w->compactor) == MN_OK || blamed();
}

static enum mn_status build_and_commit(struct world *w, const struct mn_compact_plan *plan, bool *lives)
{
    struct mn_compact_proposal proposal;
    MN_TRY(mn_compact_build(w->compactor, plan, &policy, NULL, NULL, &proposal));
    enum mn_status status = MN_OK;
    if (world_draw(w, 2))
        *lives = write_one(w) && commit(w);
    if (*lives)
        *lives = commit(w);
    if (*lives)
        status = mn_writer_commit_proposal(w->writer, &proposal);
    atomic_fetch_add(&w->tally->compactions, *lives && status == MN_OK);
    mn_compact_proposal_free(&proposal);
    return status;
}

static bool compact(struct world *w, bool force)
{
    struct mn_compact_plan plan;
    uint64_t sealed;
    bool lives = true;
    if (!commit(w))
        return false;
    if (mn_writer_seal(w->writer, &sealed) != MN_OK)
        return end_of_life(w, "seal");
    if (!w->holding)
        atomic_store(&w->instance.control->history_seq, sealed);
    enum mn_status status = mn_compact_plan_make(w->compactor, &policy, force, &plan);
    if (status == MN_OK && plan.worth)
        status = build_and_commit(w, &plan, &lives);
    mn_compact_plan_free(&plan);
    return lives && (status == MN_OK || give_up(w, "a compaction"));
}

/* What a compaction has left to do for codes. */
static bool care(struct world *w)
{
    struct mn_compact_proposal proposal;
    struct mn_compact_care result;
    if (!commit(w))
        return false;
    enum mn_status status = mn_compact_care_for(w->compactor, &policy, NULL, NULL, &proposal, &result);
    if (status != MN_OK)
        return give_up(w, "care");
    if (result.worth)
        status = mn_writer_commit_proposal(w->writer, &proposal);
    atomic_fetch_add(&w->tally->cared, status == MN_OK && result.worth);
    mn_compact_proposal_free(&proposal);
    return status == MN_OK || give_up(w, "care");
}

static bool take_copy(struct world *w)
{
    char path[128];
    struct mn_copy_result result;
    if (w->taken)
        return true;
    snprintf(path, sizeof path, "%s/disk/copy", w->base);
    w->taken = w->taken_maybe = true;
    w->taken_state = w->acked;
    enum mn_status status = mn_snapshot_make(&w->store, &w->instance, path, NULL, NULL, &result);
    w->taken_maybe = status != MN_OK; /* it may have got its name before it failed: then it is whole */
    return status == MN_OK || (!disk_dead() && disk_struck() > 0) || end_of_life(w, "a snapshot");
}

static void tend(struct world *w)
{
    turns_pass(UINT64_C(120000000));
    turns_give();
    mn_writer_tend(w->writer, mn_wall_ns());
}

static bool step(struct world *w)
{
    uint32_t what = world_draw(w, 1000);
    if (what < 600)
        return write_one(w);
    if (what < 850)
        return commit(w);
    if (what < 890)
        return compact(w, world_draw(w, 2));
    if (what < 910)
        return care(w);
    if (what < 930)
        return retry_kept(w);
    if (what < 940)
        hold(w);
    else if (what < 950)
        let_go(w);
    else if (what < 955)
        return take_copy(w);
    else
        tend(w);
    return true;
}

/* ---- faults ---- */

static void arm_trouble(struct story *s)
{
    static const uint32_t spans[] = {1, 1, 3, 20, 200, UINT32_MAX};
    struct world *w = s->w;
    uint32_t writes = DISK_MAKE | DISK_WRITE | DISK_RESERVE | DISK_SYNC | DISK_SYNC_FOLDER | DISK_RENAME | DISK_COPY;
    struct disk_trouble trouble = {.error = s->theme == FULL ? ENOSPC : EIO,
                                   .calls = s->theme == FULL ? writes : writes | DISK_OPEN | DISK_READ | DISK_REMOVE,
                                   .after = world_draw(w, world_draw(w, 4) ? 120 : 1200),
                                   .count = spans[world_draw(w, MN_ARRAY_LEN(spans))]};
    uint32_t kind = world_draw(w, 6);
    if (kind < 2) /* of one kind only */
        trouble.calls = 1u << world_draw(w, 10);
    if (kind == 2) /* one sync, and no other */
        trouble =
            (struct disk_trouble){.error = trouble.error, .calls = DISK_SYNC, .after = world_draw(w, 40), .count = 1};
    disk_trouble(trouble);
}

static void arm(struct story *s)
{
    struct world *w = s->w;
    disk_nag(world_draw(w, 3) == 0 ? 1 + world_draw(w, 30) : 0);
    disk_lie(s->theme == LIES && world_draw(w, 2) ? 5 + world_draw(w, 50) : 0);
    if (s->theme == ERRORS || s->theme == FULL)
        arm_trouble(s);
    /* A disk that lies gets time to write its mark: that tells what it lost. */
    bool cut = s->theme == ERRORS || s->theme == FULL ? world_draw(w, 4) == 0 : s->theme != LIES;
    if (cut)
        disk_fuse(1 + world_draw(w, world_draw(w, 4) ? 60 : 600));
}

/* The life ends: by a power cut, or with the process alone. A disk that lied is let finish, so that its mark is there.
 */
static void die(struct story *s)
{
    struct world *w = s->w;
    bool alone = s->theme == DEATHS ? world_draw(w, 4) != 0 : disk_struck() > 0 && world_draw(w, 2);
    if (!disk_dead() && s->theme != LIES && world_draw(w, 2))
        disk_fuse(0);
    world_close(w, alone);
    if (alone)
        disk_revive();
    else
        disk_cut(s->theme == GARBAGE ? 1 + world_draw(w, 30) : 0);
    atomic_fetch_add(alone ? &w->tally->deaths : &w->tally->cuts, 1);
}

/* Starts until it succeeds: the fault may come again on the way. A store that a disk has lied about may refuse, with a
 * sentence. */
static void come_back(struct story *s)
{
    struct world *w = s->w;
    for (int attempts = 1;; attempts++) {
        if (!disk_lied() && attempts < 6 && world_draw(w, 3) == 0)
            disk_fuse(world_draw(w, 40));
        if (attempts > 4)
            disk_trouble((struct disk_trouble){0});
        if (world_open(w) == MN_OK)
            break;
        if (disk_lied() && !blamed()) {
            s->over = true;
            atomic_fetch_add(&w->tally->reported, 1);
            return;
        }
        end_of_life(w, "a start");
        atomic_fetch_add(&w->tally->recoveries_cut, 1);
        die(s);
    }
    disk_fuse(UINT64_MAX);
    disk_trouble((struct disk_trouble){0});
    disk_lie(0);
    atomic_fetch_add(&w->tally->recoveries, 1);
}

/* What was there is there, and what was asked can be asked again. */
static void look_back(struct story *s)
{
    bool landed;
    if (s->over)
        return;
    world_judge(s->w, &landed);
    s->over = s->w->forgiven;
    if (s->over)
        return;
    if (s->w->taken)
        world_check_copy(s->w, world_draw(s->w, 3) == 0);
    if (!retry_flight(s->w, landed) || !commit(s->w))
        world_broken(s->w, WORLD_REFUSED, "a retry: %s", mn_error_trail());
}

/* ---- the story ---- */

static void live(struct story *s)
{
    for (uint32_t i = 0; i < STEPS; i++)
        if (!step(s->w))
            return;
    /* The end of the log is where only the mark can tell that something is missing. */
    disk_lie(s->theme == LIES && world_draw(s->w, 2) ? 100 : 0);
    for (uint32_t i = 0; i < 3 && s->theme == LIES; i++)
        if (!write_one(s->w) || !commit(s->w))
            return;
}

static void purge_all(struct world *w)
{
    let_go(w);
    for (int i = 0; i < 2; i++) {
        if (!compact(w, true))
            world_broken(w, WORLD_REFUSED, "a purge: %s", mn_error_trail());
        for (int turn = 0; turn < 4; turn++)
            tend(w);
    }
    uint64_t files;
    if (mn_writer_purge_waits(w->writer) || mn_writer_purged_seq(w->writer, &files) < w->acked_seq)
        return; /* a forced compaction may find nothing worth while: then the purge waits */
    world_find_purged(w);
}

static void last_look(struct story *s)
{
    struct world *w = s->w;
    purge_all(w);
    look(w);
    die(s);
    come_back(s);
    look_back(s);
    if (!s->over)
        world_verify(w);
}

static void add_counts(struct world_tally *t)
{
    atomic_fetch_add(&t->failed_calls, disk_counts.failed);
    atomic_fetch_add(&t->interrupted, disk_counts.interrupted);
    atomic_fetch_add(&t->shortened, disk_counts.shortened);
    atomic_fetch_add(&t->lies, disk_counts.lies);
    atomic_fetch_add(&t->sectors_lost, disk_counts.sectors_lost);
    atomic_fetch_add(&t->sectors_garbage, disk_counts.sectors_garbage);
    atomic_fetch_add(&t->names_lost, disk_counts.names_lost);
    disk_counts = (struct disk_counts){0};
}

void story_tell(uint64_t seed, struct world_tally *tally, struct world_slot *slot)
{
    struct story s = {.w = world_new(seed, tally, slot), .theme = (enum theme)(seed % THEMES)};
    come_back(&s);
    look_back(&s);
    for (uint32_t lives = 2 + world_draw(s.w, 4); lives > 0 && !s.over; lives--) {
        arm(&s);
        live(&s);
        die(&s);
        come_back(&s);
        look_back(&s);
    }
    if (!s.over)
        last_look(&s);
    add_counts(tally);
    world_free(s.w);
}
