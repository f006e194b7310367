/*
 * compactor_care.c - the compactor looks after codes: one codebook trained or one segment coded at a time, when there
 * is nothing to compact and recall is not busy. When recall is busy at every look it waits a minute, and not at all for
 * an index that is damaged: recall would only get busier. The work itself gives way to recall in its pauses.
 *
 * Nothing is lost while codes are missing: such segments are compared as they are. So a failure here is told and tried
 * again later, and never keeps the log waiting.
 */
#include <inttypes.h>

#include "actors/compactor.h"
#include "engine/ivf_file.h"
#include "shm/process.h"

#define FAILURE_PAUSE_NS 5000000000u /* doubles with every failure in a row */
#define FAILURES_DOUBLED 6
#define PATIENCE_NS      UINT64_C(60000000000)

static void count_failure(struct mn_compactor_role *c, const char *why)
{
    mn_stat_add(c->actor->stats, MN_STAT_ivf_failures, 1);
    mn_log(c->actor, "codes could not be made, recall compares rows as they are: %s", why);
}

void mn_compactor_note_codes(struct mn_compactor_role *c, const struct mn_compact_proposal *proposal)
{
    mn_stat_add(c->actor->stats, MN_STAT_ivf_coded, proposal->rows_coded);
    mn_stat_add(c->actor->stats, MN_STAT_codebook_trainings, proposal->codebooks_trained);
    if (proposal->codebooks_trained > 0)
        mn_log(c->actor, "trained codebook %" PRIu64, proposal->next.codebook);
    if (proposal->code_failures > 0)
        count_failure(c, proposal->code_failure);
}

/* What is there is told as damage while it is not rebuilt; somebody else's finding makes us check everything once. */
static enum mn_status begin_doubts(struct mn_compactor_role *c)
{
    if (c->doubting || !(atomic_load(&c->actor->instance.control->reasons) & MN_DEGRADED_INDEX))
        return MN_OK;
    MN_TRY(mn_compact_doubt(c->engine, 0));
    c->doubting = true;
    return MN_OK;
}

static void end_doubts(struct mn_compactor_role *c, const struct mn_compact_care *care)
{
    _Atomic uint32_t *reasons = &c->actor->instance.control->reasons;
    if (!care->sound)
        atomic_fetch_or(reasons, MN_DEGRADED_INDEX);
    else if (care->looked && !care->worth) {
        atomic_fetch_and(reasons, ~(uint32_t)MN_DEGRADED_INDEX);
        c->doubting = false;
    }
}

static enum mn_status take_care(struct mn_compactor_role *c, struct mn_compact_proposal *proposal,
                                struct mn_compact_care *care)
{
    struct mn_compact_policy policy = mn_compactor_policy(&c->actor->settings);
    MN_TRY(begin_doubts(c));
    mn_actor_pulse_begin(c->actor, false);
    enum mn_status status = mn_compact_care_for(c->engine, &policy, mn_compactor_pause, c, proposal, care);
    mn_actor_pulse_end(c->actor);
    return status;
}

static void fail(struct mn_compactor_role *c)
{
    uint32_t doubled = c->care_failures < FAILURES_DOUBLED ? c->care_failures : FAILURES_DOUBLED;
    c->care_failures++;
    c->next_care_ns = mn_clock_ns() + ((uint64_t)FAILURE_PAUSE_NS << doubled);
    count_failure(c, mn_error_trail());
}

static enum mn_status publish(struct mn_compactor_role *c, const struct mn_compact_proposal *proposal,
                              const struct mn_compact_care *care, uint64_t began_ns)
{
    MN_TRY(mn_compactor_publish(c, proposal));
    mn_compactor_note_codes(c, proposal);
    if (care->segment != 0)
        mn_log(c->actor, "coded %" PRIu64 " rows of column segment %" PRIu64 " (%.1f MiB) in %.1f ms",
               proposal->rows_coded, care->segment, (double)proposal->bytes_out / (1 << 20),
               (double)(mn_clock_ns() - began_ns) / 1e6);
    if (care->tuned)
        mn_log(c->actor, "calibrated recall in %.1f ms", (double)(mn_clock_ns() - began_ns) / 1e6);
    c->next_census_ns = 0;
    return MN_OK;
}

static bool may_begin(struct mn_compactor_role *c, uint64_t now)
{
    if (now < c->next_care_ns)
        return false;
    if (mn_load_idle(&c->load, &c->actor->settings)) {
        c->care_waits_ns = 0;
        return true;
    }
    if (c->care_waits_ns == 0)
        c->care_waits_ns = now;
    return now - c->care_waits_ns >= PATIENCE_NS ||
           (atomic_load(&c->actor->instance.control->reasons) & MN_DEGRADED_INDEX) != 0;
}

enum mn_status mn_compactor_care(struct mn_compactor_role *c, uint32_t *worked)
{
    struct mn_compact_proposal proposal;
    struct mn_compact_care care;
    uint64_t began = mn_clock_ns();
    if (!may_begin(c, began))
        return MN_OK;
    MN_TRY(mn_compactor_reach_writer(c));
    enum mn_status status = take_care(c, &proposal, &care);
    if (status == MN_DEADLINE)
        return MN_FAIL(MN_UNAVAILABLE, "given up half-way: the writer has ended, or the cluster is stopping");
    if (status != MN_OK) {
        fail(c);
        return MN_OK;
    }
    c->care_failures = 0;
    end_doubts(c, &care);
    *worked = care.worth;
    if (care.worth)
        status = publish(c, &proposal, &care, began);
    mn_compact_proposal_free(&proposal);
    return status;
}

/* ---- census ---- */

void mn_compactor_code_census(struct mn_compactor_role *c, const struct mn_manifest *manifest)
{
    const struct mn_store *store = &c->actor->store;
    uint64_t rows = 0, bytes = 0;
    for (uint32_t s = 0; s < manifest->segment_count; s++) {
        const struct mn_manifest_segment *segment = &manifest->segments[s];
        char path[MN_PATH_MAX];
        if (segment->codebook == 0)
            continue;
        rows += segment->rows;
        bytes += mn_io_file_bytes(store->io, mn_ivf_path(store, path, segment->id, segment->codebook));
    }
    mn_stat_set(c->actor->stats, MN_STAT_codebook_gen, manifest->codebook);
    mn_stat_set(c->actor->stats, MN_STAT_ivf_rows, rows);
    mn_stat_set(c->actor->stats, MN_STAT_ivf_bytes, bytes);
}
