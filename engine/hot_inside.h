/*
 * hot_inside.h - what hot.c, which uses and removes hot copies, and hot_make.c, which makes them, have in common.
 */
#ifndef MN_ENGINE_HOT_INSIDE_H
#define MN_ENGINE_HOT_INSIDE_H

#include "engine/hot.h"

#define MN_HOT_HUGE_BYTES (UINT64_C(2) << 20)
#define MN_HOT_NAME_MAX   80

/* Name of the copy on that node. */
void mn_hot_name(char name[MN_HOT_NAME_MAX], uint64_t segment, uint64_t codebook, uint32_t node);

/* What every copy of this instance begins with. */
struct mn_segment_identity mn_hot_identity(const struct mn_instance *instance);

/* Maps a file at a multiple of 2 MiB, which the system would give to none but huge mappings. */
enum mn_status mn_hot_map_aligned(int fd, uint64_t bytes, int protection, const char *name, void **base) MN_MUST_USE;

#endif
