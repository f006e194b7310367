/*
 * view.h - view files: an immutable list of what is the store now, one per epoch (layout: engine/shared.h).
 */
#ifndef MN_ENGINE_VIEW_H
#define MN_ENGINE_VIEW_H

#include "engine/shared.h"
#include "shm/instance.h"

struct mn_view_list {
    uint64_t gen, log_seq;
    uint32_t columns, chunks;
    uint32_t missing;                     /* column segments of the manifest that could not be opened */
    const struct mn_view_columns *column; /* oldest first */
    const struct mn_view_chunk *chunk;    /* oldest first */
    struct mn_segment segment;            /* the mapping that these point into */
};

/* Maps view.<gen> and checks it. MN_NOT_FOUND when it was retired: pin again. */
enum mn_status mn_view_map(struct mn_view_list *view, struct mn_instance *instance, uint64_t gen) MN_MUST_USE;
void mn_view_unmap(struct mn_view_list *view);

/* Makes view.<gen> from a list (all but the mapping) and publishes it as control.view_gen. */
enum mn_status mn_view_publish(struct mn_instance *instance, const struct mn_view_list *list) MN_MUST_USE;
/* Its name in the instance's folder. */
void mn_view_name(char name[64], uint64_t gen);

#endif
