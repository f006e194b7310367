/*
 * compactor_hot.c - the compactor keeps hot copies of the newest segments' codes (engine/hot.h), within memory.budget.
 *
 * Those of a new segment are made before it is proposed, so that the readers' first recall on it finds them; the census
 * makes what is missing then: after a start, when the budget has grown, or when others have gone.
 */
#include "actors/compactor.h"
#include "engine/hot.h"

/* Whoever asks for something is served first: the next census goes on from there. */
static bool pause_copy(void *context)
{
    struct mn_compactor_role *c = context;
    if (mn_actor_breathe(c->actor))
        return true;
    mn_compactor_receive(c);
    return c->job_count > 0;
}

static bool pause_ahead(void *context)
{
    struct mn_compactor_role *c = context;
    return mn_actor_breathe(c->actor);
}

static uint64_t budget_of(const struct mn_compactor_role *c)
{
    return mn_hot_budget(&c->actor->instance, c->actor->settings.memory_budget);
}

void mn_compactor_hot_ahead(struct mn_compactor_role *c, const struct mn_manifest *next)
{
    struct mn_actor *actor = c->actor;
    mn_actor_pulse_begin(actor, false);
    for (uint32_t s = 0; s < next->segment_count; s++) {
        const struct mn_manifest_segment *segment = &next->segments[s];
        if (segment->codebook == 0 || mn_hot_there(&actor->instance, segment->id, segment->codebook))
            continue;
        if (mn_hot_make(&actor->store, &actor->instance, segment->id, segment->codebook, budget_of(c), pause_ahead,
                        c) != MN_OK)
            break; /* no room, or no time: the census sees to it */
    }
    mn_actor_pulse_end(actor);
}

void mn_compactor_hot_census(struct mn_compactor_role *c, const struct mn_manifest *manifest)
{
    struct mn_actor *actor = c->actor;
    struct mn_hot_report report;
    uint64_t budget = budget_of(c);
    enum mn_status status = mn_hot_tend(&actor->store, &actor->instance, manifest, budget, pause_copy, c, &report);
    if (status != MN_OK && status != MN_DEADLINE)
        mn_log(actor, "hot copies of codes could not be looked after: %s", mn_error_trail());
    mn_stat_set(actor->stats, MN_STAT_memory_budget_bytes, budget);
    mn_stat_set(actor->stats, MN_STAT_hot_bytes, report.bytes);
    mn_stat_set(actor->stats, MN_STAT_hot_huge_bytes, report.huge_bytes);
    mn_stat_set(actor->stats, MN_STAT_hot_refused, report.refused);
}
