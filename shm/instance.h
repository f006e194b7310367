/*
 * instance.h - the shared memory of one running cluster: a folder under /dev/shm named by a random instance id.
 *
 * The supervisor makes it (control, readers, stats) and notes its path in <data>/run/instance; the other processes open
 * it. Engine segments (tail chunks, liveness, views) are further files in the same folder.
 */
#ifndef MN_SHM_INSTANCE_H
#define MN_SHM_INSTANCE_H

#include "shm/epoch.h"
#include "shm/layout.h"
#include "shm/segment.h"
#include "shm/stats.h"

struct mn_instance {
    char path[128]; /* /dev/shm/mneme-<instance id> */
    int dir_fd;
    struct mn_segment_identity identity; /* magic is set per segment */
    struct mn_segment control_segment, readers_segment;
    struct mn_control *control; /* writable for roles, read-only for attached clients */
    struct mn_epoch epoch;
    struct mn_stats stats;
};

struct mn_instance_shape {
    uint8_t store_uuid[16];
    uint32_t dim;
    enum mn_metric metric;
    uint32_t reader_slots;
};

/* Supervisor: makes the folder (0700) and the three segments, and publishes them. */
enum mn_status mn_instance_create(struct mn_instance *instance, const struct mn_instance_shape *shape) MN_MUST_USE;

/* Opens the folder at `path`. writable: control and stats may be written (roles); the reader table always is. */
enum mn_status mn_instance_open(struct mn_instance *instance, const char *path, bool writable) MN_MUST_USE;

/* Unmaps; the supervisor then removes the folder with mn_instance_remove (every file in it, then itself). */
void mn_instance_close(struct mn_instance *instance);
enum mn_status mn_instance_remove(const char *path) MN_MUST_USE;

/* Calls `visit` for each name in the instance's folder (. and .. too); stops at the first failure. */
enum mn_status mn_instance_list(const struct mn_instance *instance,
                                enum mn_status (*visit)(void *context, const char *name), void *context) MN_MUST_USE;

/* Supervisor at its start: removes folders of instances whose supervisor is gone (same boot or not). */
void mn_instance_sweep(const uint8_t store_uuid[16]);

#endif
