/*
 * work.c - see work.h.
 */
#include "tests/faults/disk/work.h"

#include <stdio.h>
#include <unistd.h>

#include "engine/snapshot.h"
#include "shm/process.h"
#include "tests/faults/disk/disk.h"
#include "tests/faults/disk/turns.h"

bool work_blamed(void)
{
    return disk_dead() || disk_struck() > 0;
}

bool work_failed(struct world *w, const char *what)
{
    if (!work_blamed())
        world_broken(w, WORLD_REFUSED, "%s: %s", what, mn_error_trail());
    return false;
}

/* ---- reading ---- */

/* False when the disk would not let it. */
static bool pin(struct world *w, struct mn_reader *reader, struct mn_snapshot *snapshot)
{
    if (mn_reader_pin(reader, 0, snapshot) == MN_OK)
        return true;
    if (!work_blamed())
        world_broken(w, WORLD_REFUSED, "pin: %s", mn_error_trail());
    return false;
}

void work_look(struct world *w)
{
    struct mn_snapshot snapshot;
    if (!pin(w, w->reader, &snapshot))
        return;
    if (snapshot.missing == 0 && !world_holds(w, &snapshot, &w->acked))
        world_differs(w, &snapshot, &w->acked, "after the acknowledgement");
    mn_reader_unpin(w->reader);
}

void work_let_go(struct world *w)
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
    work_let_go(w);
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
    w->now_seq = outcome->seq;
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
        if (!work_commit(w))
            return false;
        status = ask(w, r, outcome);
    }
    *taken = status == MN_OK;
    if (status == MN_OK || (status == MN_READ_ONLY && disk_struck() > 0))
        return true;
    const struct model_memory *m = &w->now.memories[r->space][r->first];
    if (status == MN_NOT_FOUND && r->kind == MODEL_REVISE && (!m->there || m->suppressed))
        return true;
    return work_failed(w, "a write");
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

/* The batch that was in flight is acknowledged. */
static void keep_written(struct world *w)
{
    for (uint32_t i = 0; i < w->written_count; i++)
        if (w->flight[i].idem != 0)
            w->kept[w->kept_count++ % WORLD_KEYS] = w->flight[i];
    w->flight_count -= w->written_count;
    memmove(w->flight, w->flight + w->written_count, w->flight_count * sizeof *w->flight);
    w->written_count = 0;
}

/* While a batch is on its way to the disk, what comes is in the next one. */
static void write_meanwhile(struct world *w)
{
    for (uint32_t i = world_draw(w, 4); i > 0; i--) {
        struct model_request r = draw_request(w);
        struct mn_outcome outcome;
        if (ask(w, &r, &outcome) == MN_OK)
            note(w, &r, &outcome);
    }
}

static bool commit_batch(struct world *w)
{
    w->in_flight = true;
    w->written = w->now;
    w->written_seq = w->now_seq;
    w->written_count = w->flight_count;
    if (mn_writer_append(w->writer) != MN_OK)
        return work_failed(w, "append");
    if (world_draw(w, 3) == 0)
        write_meanwhile(w);
    if (mn_writer_sync(w->writer) != MN_OK)
        return work_failed(w, "sync");
    mn_writer_publish(w->writer);
    mn_writer_acked(w->writer);
    w->in_flight = false;
    w->acked = w->written;
    w->acked_seq = atomic_load(&w->instance.control->acked_seq);
    keep_written(w);
    atomic_fetch_add(&w->tally->commits, 1);
    if (world_draw(w, 8) == 0)
        work_look(w);
    return true;
}

bool work_commit(struct world *w)
{
    while (mn_writer_pending(w->writer))
        if (!commit_batch(w))
            return false;
    return true;
}

bool work_write(struct world *w)
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

bool work_retry(struct world *w, bool landed)
{
    struct model_request flight[WORLD_FLIGHT_MAX];
    uint32_t count = w->flight_count, written = landed ? w->written_count : 0;
    memcpy(flight, w->flight, count * sizeof *flight);
    w->flight_count = w->written_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct mn_outcome outcome;
        bool taken, there = i < written;
        if (flight[i].idem == 0)
            continue;
        if (!enter(w, &flight[i], &outcome, &taken))
            return false;
        if (taken && there)
            check_replay(w, &flight[i], &outcome);
        if (taken && !there && outcome.replayed)
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
        return work_failed(w, what);
    return mn_compactor_sweep(w->compactor) == MN_OK || work_blamed();
}

static enum mn_status build_and_commit(struct world *w, const struct mn_compact_plan *plan, bool *lives)
{
    struct mn_compact_proposal proposal;
    MN_TRY(mn_compact_build(w->compactor, plan, &policy, NULL, NULL, &proposal));
    enum mn_status status = MN_OK;
    if (world_draw(w, 2))
        *lives = work_write(w) && work_commit(w);
    if (*lives)
        *lives = work_commit(w);
    if (*lives)
        status = mn_writer_commit_proposal(w->writer, &proposal);
    atomic_fetch_add(&w->tally->compactions, *lives && status == MN_OK);
    mn_compact_proposal_free(&proposal);
    return status;
}

bool work_compact(struct world *w, bool force)
{
    struct mn_compact_plan plan;
    uint64_t sealed;
    bool lives = true;
    if (!work_commit(w))
        return false;
    if (mn_writer_seal(w->writer, &sealed) != MN_OK)
        return work_failed(w, "seal");
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
    if (!work_commit(w))
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
    return status == MN_OK || (!disk_dead() && disk_struck() > 0) || work_failed(w, "a snapshot");
}

void work_tend(struct world *w)
{
    turns_pass(UINT64_C(120000000));
    turns_give();
    mn_writer_tend(w->writer, mn_wall_ns());
}

bool work_step(struct world *w)
{
    uint32_t what = world_draw(w, 1000);
    if (what < 600)
        return work_write(w);
    if (what < 850)
        return work_commit(w);
    if (what < 890)
        return work_compact(w, world_draw(w, 2));
    if (what < 910)
        return care(w);
    if (what < 930)
        return retry_kept(w);
    if (what < 940)
        hold(w);
    else if (what < 950)
        work_let_go(w);
    else if (what < 955)
        return take_copy(w);
    else
        work_tend(w);
    return true;
}
