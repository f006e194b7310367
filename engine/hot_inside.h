/*
 * hot_inside.h - what hot.c, which uses and removes hot copies, and hot_make.c, which makes them, have in common.
 */
#ifndef MN_ENGINE_HOT_INSIDE_H
#define MN_ENGINE_HOT_INSIDE_H

#include "engine/hot.h"
#include "shm/huge.h"

#define MN_HOT_NAME_MAX 80

/* Name of the copy on that node. */
void mn_hot_name(char name[MN_HOT_NAME_MAX], uint64_t segment, uint64_t codebook, uint32_t node);

/* What every copy of this instance begins with. */
struct mn_segment_identity mn_hot_identity(const struct mn_instance *instance);

#endif
