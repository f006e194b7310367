/*
 * recovery.c - the log is read (recovery_read.c), its damage judged (recovery_judge.c), liveness replayed
 * (recovery_replay.c), and a new view handed over.
 */
#include "engine/recovery.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/fault.h"
#include "engine/quarantine.h"
#include "engine/recovery_inside.h"
#include "shm/process.h"

#define ACKED_AHEAD_MAX (UINT64_C(1) << 32) /* more seqs than are given out between two marks, on any disk */

/* ---- the ledger ---- */

/* Without its ledger a store forgets which retries it has answered, and what it has assigned: told of, and no reason to
 * be down. */
static enum mn_status load_ledger(struct mn_recovery *r)
{
    if (r->manifest.ledger_seq == 0)
        return MN_OK;
    enum mn_status status = mn_ledger_load(r->ledger, &r->store, r->manifest.ledger_seq);
    if (status != MN_CORRUPT && status != MN_NOT_FOUND)
        return status;
    r->ledger_lost = r->report->lost = true;
    r->report->quarantined++;
    MN_TRY(mn_quarantine_ledger(&r->store, r->manifest.ledger_seq, mn_error_text()));
    mn_ledger_free(r->ledger);
    r->ledger = NULL;
    return mn_ledger_new(&r->ledger);
}

/* Ids above this were given by a client: the engine counts from 1. */
#define COUNTED_ID_MAX (UINT64_C(1) << 48)

/* A new ledger in place of the lost one: each space's counter goes on behind the largest id that is there, dead ones
 * included. */
static enum mn_status replace_ledger(struct mn_recovery *r)
{
    for (uint32_t i = 0; i < r->parts.count; i++) {
        const struct mn_part *part = &r->parts.own[i]->part;
        for (uint32_t row = 0; !r->parts.own[i]->retired && row < part->rows; row++) {
            const struct mn_id *id = mn_part_id(part, row);
            if (id->kind == MN_ID_INTEGER && id->lo < COUNTED_ID_MAX)
                MN_TRY(mn_ledger_raise_id(r->ledger, mn_part_string(part, mn_part_space(part, row)), id->lo + 1));
        }
    }
    return mn_ledger_save(r->ledger, &r->store, r->manifest.ledger_seq, INT64_MIN);
}

/* ---- handing over ---- */

static enum mn_status hand_over(struct mn_recovery *r)
{
    struct mn_control *control = r->instance->control;
    char path[256];
    snprintf(path, sizeof path, "%s/ledger.%" PRIu64, r->instance->path, r->instance_gen);
    MN_TRY(mn_ledger_write(r->ledger, r->store.io, path, INT64_MIN));
    uint64_t seq = r->report->last_seq;
    atomic_store(&control->oldest_seq, r->manifest.oldest_seq);
    mn_manifest_publish_tuning(&r->manifest, control);
    atomic_store(&control->history_seq, r->manifest.oldest_seq);
    atomic_store(&control->durable_seq, seq);
    atomic_store_explicit(&control->visible_seq, seq, memory_order_release);
    atomic_store(&control->acked_seq, seq);
    atomic_store(&control->tail_rows, r->report->rows);
    bool told = mn_quarantine_holds(&r->store);
    r->report->lost |= told && r->lost_records > 0; /* until a person has emptied quarantine/, or columns have it all */
    uint32_t reasons = (r->report->lost ? MN_DEGRADED_LOST : 0) | (told ? MN_DEGRADED_QUARANTINE : 0);
    if (!r->heal.uncertain)
        atomic_fetch_and(&control->reasons, ~(uint32_t)MN_DEGRADED_COPY); /* the writer looks what is missing there */
    atomic_fetch_or(&control->reasons, reasons | (r->heal.uncertain ? MN_DEGRADED_COPY : 0));
    r->report->healed = r->heal.healed;
    MN_FAULT_POINT(recovery_built);
    atomic_store(&control->instance_gen, r->instance_gen);
    MN_FAULT_POINT(recovery_handed_over);
    return mn_parts_publish(&r->parts, &r->manifest, atomic_load(&control->view_gen) + 1);
}

/* What the writer of this boot said of itself is exact, where the mark on disk is a little old: unless it is so far
 * ahead of all that is on disk that something has written over the word. */
static void believe_acked(struct mn_recovery *r)
{
    uint64_t acked = atomic_load(&r->instance->control->acked_seq);
    uint64_t on_disk = r->mark_seq > r->manifest.log_seq ? r->mark_seq : r->manifest.log_seq;
    if (acked > r->mark_seq && acked < on_disk + ACKED_AHEAD_MAX)
        r->mark_seq = acked;
}

static enum mn_status recover_locked(struct mn_recovery *r)
{
    bool mark_damaged;
    uint64_t started = mn_clock_ns();
    mn_store_mend(&r->store);
    mn_manifest_mend(&r->store);
    MN_TRY(mn_manifest_read(&r->manifest, &r->store, NULL));
    r->mark_seq = mn_wal_mark_read(&r->store, &mark_damaged);
    believe_acked(r);
    MN_TRY(mn_parts_init(&r->parts, &r->store, r->instance));
    MN_TRY(mn_ledger_new(&r->ledger));
    MN_TRY(load_ledger(r));
    MN_TRY(mn_recovery_read(r));
    MN_FAULT_POINT(recovery_scanned);
    MN_TRY(mn_recovery_judge(r));
    r->report->scan_ns = mn_clock_ns() - started;
    started = mn_clock_ns();
    MN_TRY(mn_recovery_load_columns(r));
    MN_TRY(mn_recovery_replay(r));
    if (r->ledger_lost)
        MN_TRY(replace_ledger(r));
    MN_TRY(hand_over(r));
    r->report->build_ns = mn_clock_ns() - started;
    mn_recovery_progress(r, 100);
    return MN_OK;
}

enum mn_status mn_recover(const struct mn_store *store, struct mn_instance *instance, uint32_t threads,
                          _Atomic uint32_t *progress, struct mn_recovery_report *report)
{
    char path[MN_PATH_MAX];
    int lock;
    *report = (struct mn_recovery_report){0};
    MN_TRY(mn_store_lock(mn_store_path(store, path, "wal/LOCK"), &lock));
    /* A generation that no earlier try used: what a killed recovery left under its own is not in the way. */
    struct mn_control *control = instance->control;
    uint64_t gen = atomic_fetch_add(&control->recovery_gen, 1) + 1;
    struct mn_recovery r = {
        .store = *store, .instance = instance, .progress = progress, .report = report, .instance_gen = gen};
    r.heal.folder.lock_fd = -1;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    r.threads = threads > 0 ? threads : cpus > 0 ? (uint32_t)cpus : 1;
    enum mn_status status = recover_locked(&r);
    mn_recovery_free_jobs(&r);
    mn_copy_heal_end(&r.heal);
    if (r.parts.index)
        mn_parts_free(&r.parts);
    mn_ledger_free(r.ledger);
    mn_manifest_free(&r.manifest);
    store->io->close(lock);
    return status;
}
