/*
 * recovery_role.c - a process that recovers the log and is done.
 *
 * All of its work is in `start`, under the loop's pulse: a recovery takes as long as it takes. It is safe to kill at
 * any moment and to run again. It never gives up data to get done: a failure is told, exit status 1, and the supervisor
 * tries again later.
 */
#include "actors/actor.h"
#include "engine/recovery.h"
#include "shm/process.h"

static void note_stats(struct mn_actor *actor, const struct mn_recovery_report *report, uint64_t took_ns)
{
    mn_stat_add(actor->stats, MN_STAT_recovery_runs, 1);
    mn_stat_record(actor->stats, MN_STAT_recovery_ns, took_ns);
    mn_stat_add(actor->stats, MN_STAT_recovery_bytes, report->log_bytes);
    mn_stat_add(actor->stats, MN_STAT_recovery_rows, report->rows);
    mn_stat_add(actor->stats, MN_STAT_recovery_quarantined, report->quarantined);
    mn_stat_add(actor->stats, MN_STAT_recovery_healed, report->healed);
}

static void tell(const struct mn_actor *actor, const struct mn_recovery_report *report, uint64_t took_ns)
{
    mn_log(actor, "recovered up to seq %llu in %.1f ms: %llu rows from %llu batches in %llu log segments (%.1f MiB)",
           (unsigned long long)report->last_seq, (double)took_ns / 1e6, (unsigned long long)report->rows,
           (unsigned long long)report->batches, (unsigned long long)report->log_segments,
           (double)report->log_bytes / (1 << 20));
    if (report->torn_bytes > 0)
        mn_log(actor, "passed over %llu bytes of batches that were never finished and never acknowledged",
               (unsigned long long)report->torn_bytes);
    if (report->healed > 0)
        mn_log(actor, "healed %llu log segments from the second copy of the log; notes are in %s/quarantine",
               (unsigned long long)report->healed, actor->store.dir);
    if (report->unread > 0)
        mn_log(actor, "DAMAGE: the disk cannot read %llu blocks of the log; the files are kept in %s/quarantine",
               (unsigned long long)report->unread, actor->store.dir);
    if (report->quarantined > 0)
        mn_log(actor, "DAMAGE: %llu pieces of the log were damaged; copies with notes are in %s/quarantine",
               (unsigned long long)report->quarantined, actor->store.dir);
    if (report->lost)
        mn_log(actor, "DAMAGE: memories that were acknowledged are among what is damaged; everything else is served");
}

static enum mn_status start(struct mn_actor *actor, void **state)
{
    struct mn_recovery_report report = {0};
    uint64_t began = mn_clock_ns();
    MN_TRY(mn_recover(&actor->store, &actor->instance, 0, &actor->slot->progress, &report));
    uint64_t took = mn_clock_ns() - began;
    note_stats(actor, &report, took);
    tell(actor, &report, took);
    return MN_OK;
}

static enum mn_status turn(struct mn_actor *actor, void *state, uint32_t *worked)
{
    mn_actor_done(actor);
    return MN_OK;
}

static void stop(struct mn_actor *actor, void *state)
{
}

const struct mn_role_ops mn_recovery_role = {.role = MN_ROLE_RECOVERY, .start = start, .turn = turn, .stop = stop};
