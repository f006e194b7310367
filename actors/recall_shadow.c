/*
 * recall_shadow.c - which recalls are shadowed, and how two answers compare (see recall_shadow.h).
 */
#include "actors/recall_shadow.h"

#include <stdlib.h>

#define REST_TIMES 100u /* the disk is a hundredth of the time with shadows, at most */

static bool counts(const struct mn_recall_request *asked)
{
    return !asked->batch && !asked->query.exact && !asked->moment.has_as_of && asked->query.k <= MN_SHADOW_K_MAX;
}

/* In the snapshot parts and rows tell memories apart; between two snapshots only names do. */
static struct mn_shadow_memory memory_of(const struct mn_snapshot *snapshot, const struct mn_hit *hit)
{
    const struct mn_part *part = &snapshot->parts[hit->part];
    struct mn_str space = mn_part_string(part, mn_part_space(part, hit->row));
    return (struct mn_shadow_memory){*mn_part_id(part, hit->row), mn_str_hash(space)};
}

void mn_recall_shadow_note(struct mn_recall_shadow *shadow, const struct mn_recall_request *asked, int64_t now,
                           const struct mn_snapshot *snapshot, const struct mn_search *search)
{
    if (shadow->every == 0 || !counts(asked) || ++shadow->passed < shadow->every)
        return;
    shadow->passed = 0;
    free(shadow->due);
    shadow->due = malloc(sizeof *shadow->due + search->hit_count * sizeof shadow->due->memories[0]);
    if (!shadow->due)
        return; /* no shadow this time */
    *shadow->due = (struct mn_shadow_answer){.seq = snapshot->seq, .now = now, .count = search->hit_count};
    for (uint32_t i = 0; i < search->hit_count; i++)
        shadow->due->memories[i] = memory_of(snapshot, &search->hits[i]);
}

struct mn_shadow_answer *mn_recall_shadow_take(struct mn_recall_shadow *shadow)
{
    struct mn_shadow_answer *due = shadow->due;
    shadow->due = NULL;
    return due;
}

uint64_t mn_recall_shadow_rest(uint64_t took_ns, bool scattered)
{
    return scattered ? took_ns * REST_TIMES : 0;
}

uint32_t mn_recall_shadow_found(const struct mn_shadow_answer *answer, const struct mn_snapshot *snapshot,
                                const struct mn_search *search)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < search->hit_count; i++) {
        struct mn_shadow_memory right = memory_of(snapshot, &search->hits[i]);
        for (uint32_t j = 0; j < answer->count; j++)
            if (answer->memories[j].space == right.space && mn_id_equal(&answer->memories[j].id, &right.id)) {
                found++;
                break;
            }
    }
    return found;
}
