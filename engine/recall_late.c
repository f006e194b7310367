/*
 * recall_late.c - the search through codes: whether what it has found came late.
 *
 * The rule that ends a search (tune.h) was calibrated with rows of the store as queries and with all rows as matches:
 * the nearest clusters hold the best. A filter may leave matches that lie otherwise to a query, to one side of it or as
 * thinly as noise, and so may memories forgotten all around it; then the clusters just looked into were worth as much
 * as the first, and so are the next. The search itself shows it: of the k best, those from the later half of its way.
 * Where misses fall off as one over the way, which they do or better wherever there is a neighbourhood, so many came
 * from the later half as are missing. A search under such a filter that the rule would end goes on while they are more
 * than the target leaves to be missed, and more than chance makes of it.
 */
#include <stdlib.h>

#include "engine/recall_codes_inside.h"

#define LATER     0.5f   /* the later half, */
#define AGAIN     1.125f /* looked at again when the way is so much longer */
#define DEAD_MANY 8u     /* one row in so many dead */
/* So many more may be late by chance: most filters leave matches that lie like all rows, and should not pay for others.
 * Where many are dead nobody else would. */
#define CHANCE 3.0f

enum mn_status mn_recall_late_reserve(struct mn_recall_codes *c)
{
    uint32_t clusters = 0;
    for (uint32_t i = 0; i < c->source_count; i++)
        clusters = c->sources[i].ivf->clusters > clusters ? c->sources[i].ivf->clusters : clusters;
    if (clusters <= c->opened_max)
        return MN_OK;
    free(c->opened_at);
    c->opened_at = malloc(clusters * sizeof *c->opened_at);
    c->opened_max = c->opened_at ? clusters : 0;
    return c->opened_at ? MN_OK : MN_FAIL(MN_INTERNAL, "out of memory for the way through %u clusters", clusters);
}

static bool has_many_dead(const struct mn_recall_source *s)
{
    return s->rows_of->dead &&
           atomic_load_explicit(s->rows_of->dead, memory_order_relaxed) * DEAD_MANY > s->rows_of->rows;
}

void mn_recall_late_begin(struct mn_recall_codes *c, const struct mn_probe *probe)
{
    bool filtered = false, dead = false;
    for (uint32_t i = 0; i < c->source_count; i++) {
        filtered |= mn_recall_goes_by(&c->sources[i], probe) && !c->sources[i].whole;
        dead |= mn_recall_goes_by(&c->sources[i], probe) && has_many_dead(&c->sources[i]);
    }
    c->watched = (filtered || dead) && c->rule.misses > 0;
    c->chance = dead ? 0 : CHANCE;
    c->look_at = 0;
    if (c->watched)
        memset(c->opened_at, 0xff, probe->codebook->clusters * sizeof *c->opened_at); /* NaN */
}

bool mn_recall_late(struct mn_recall_codes *c, const struct mn_probe *probe, float rank)
{
    if (!c->watched || rank < c->look_at)
        return c->watched;
    float later = LATER * rank, most = c->rule.misses * (float)c->recall->query->k;
    uint32_t late = 0;
    mn_recall_weigh_until(c, c->waiting_end); /* the latest are among those that wait */
    for (uint32_t i = 0; i < c->best.count; i++) {
        const struct mn_recall_candidate *found = &c->best.heap[i];
        const struct mn_recall_source *s = &c->sources[found->source];
        if (!mn_recall_goes_by(s, probe))
            continue;
        float at = c->opened_at[mn_ivf_cluster(s->ivf, mn_ivf_slot(s->ivf, found->row))];
        late += !(at < later); /* NaN: in a block shared with a cluster not opened yet */
    }
    c->look_at = AGAIN * rank;
    return (float)late > most + sqrtf(most) + c->chance;
}
