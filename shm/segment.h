/*
 * segment.h - shared memory files: made whole or not at all, checked before they are trusted.
 *
 * Segments are files in the instance's folder under /dev/shm. Their creator lays them out and stores header.ready last,
 * with release; everybody else maps them and compares length, magic, version, fingerprint, boot and instance first.
 * Nothing is reused in place: a changed layout is a fresh file.
 */
#ifndef MN_SHM_SEGMENT_H
#define MN_SHM_SEGMENT_H

#include "shm/layout.h"
#include "shm/status.h"

struct mn_segment {
    union {
        void *base; /* NULL = not mapped */
        struct mn_segment_header *header;
    };
    uint64_t bytes;
};

/* What a segment must say of itself. fingerprint: mn_layout_fingerprint() or the engine's. */
struct mn_segment_identity {
    uint64_t magic;
    uint64_t fingerprint;
    uint8_t boot_id[16];
    uint8_t instance[16];
};

/* Creates `name` in the folder `dir_fd` with `bytes` zero bytes, maps it read-write and fills all of the header but
 * `ready`. The file must not exist. mode: 0600, 0640 or 0660; in a folder that is shared with a group (set-group-ID)
 * the group may read it in any case. MN_SYSTEM, or MN_READ_ONLY when /dev/shm is full: all of its pages are there when
 * it is made, so that writing to it never raises a signal. */
enum mn_status mn_segment_create(struct mn_segment *segment, int dir_fd, const char *name, uint64_t bytes,
                                 const struct mn_segment_identity *identity, unsigned mode) MN_MUST_USE;

/* The same with pages for its first `front_bytes` alone: those behind must not be touched before they are reserved. */
enum mn_status mn_segment_create_sparse(struct mn_segment *segment, int dir_fd, const char *name, uint64_t bytes,
                                        uint64_t front_bytes, const struct mn_segment_identity *identity,
                                        unsigned mode) MN_MUST_USE;
/* Gives a stretch of a segment its pages. MN_READ_ONLY when /dev/shm is full. */
enum mn_status mn_segment_reserve(int dir_fd, const char *name, uint64_t offset, uint64_t bytes) MN_MUST_USE;

/* Stores `ready` with release: from here on others may map it. */
void mn_segment_publish(struct mn_segment *segment);

/* Maps an existing segment. MN_NOT_READY while its creator is still at work, MN_NOT_FOUND when there is no such file,
 * MN_CORRUPT when it is not what `identity` says. identity->instance of zeros matches any instance. */
enum mn_status mn_segment_map(struct mn_segment *segment, int dir_fd, const char *name, bool writable,
                              const struct mn_segment_identity *identity) MN_MUST_USE;

/* Unmaps; harmless on an empty one. */
void mn_segment_unmap(struct mn_segment *segment);

#endif
