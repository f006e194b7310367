/*
 * hot.h - hot copies of inverted files: in shared memory, in huge pages, on the NUMA node that reads them.
 *
 * A recall walks the codes of a few clusters of each segment: megabytes here and there in a file of gigabytes. In huge
 * pages that costs few misses of the TLB, and in shared memory nobody drops it for something else. The compactor makes
 * the copies, from files that it has checked whole; every other process maps them read-only and checks nothing again.
 * They are named hot.<segment>.<codebook>.<node> in the instance's folder, one for each node that has CPUs and memory.
 * A copy is derived twice over: without it the file serves. So one may be unlinked at any time (mappings live on), and
 * what does not fit the budget has none.
 */
#ifndef MN_ENGINE_HOT_H
#define MN_ENGINE_HOT_H

#include "engine/columns_file.h"
#include "engine/manifest.h"
#include "engine/shared.h"
#include "shm/instance.h"

/* ---- using ---- */

/* A mapped copy: what the file's header and data are. */
struct mn_hot {
    const void *base; /* NULL: not mapped */
    uint64_t bytes;
    const struct mn_column_header *header;
    const uint8_t *data;
    uint64_t data_bytes;
};

/* Of which node this process takes copies, and whether it locks what it maps (recall.lock_hot; where the system does
 * not allow that, they are merely mapped). For all threads, before the first map. A process that does not call this
 * takes those of the node that the calling thread runs on when it maps. Where a node has none, another's serve. */
void mn_hot_place(uint32_t node, bool lock);

/* True when mn_hot_map would find one. */
bool mn_hot_there(const struct mn_instance *instance, uint64_t segment, uint64_t codebook);
/* Maps a copy and enters its pages. MN_NOT_FOUND: there is none, or it is still being made. MN_CORRUPT: it is not what
 * its name says. */
enum mn_status mn_hot_map(struct mn_hot *hot, struct mn_instance *instance, uint64_t segment,
                          uint64_t codebook) MN_MUST_USE;
/* Harmless on one that is not mapped. */
void mn_hot_unmap(struct mn_hot *hot);

/* ---- making: the compactor alone ---- */

/* What memory.budget comes to: all bytes that hot copies and codes of the tail may take. setting 0: half of the memory
 * that this process may use. In any case a quarter of /dev/shm stays free for the tail. */
uint64_t mn_hot_budget(const struct mn_instance *instance, uint64_t setting);

/* Copies one inverted file, once per node, block by block as it is checked; then drops the file from the page cache.
 * MN_READ_ONLY when the budget or /dev/shm has no room: nothing is left then. MN_CORRUPT: the file is damaged. pause as
 * in mn_compact_build. Readers look for new copies when control.hot_gen has moved: see mn_hot_announce. */
enum mn_status mn_hot_make(const struct mn_store *store, struct mn_instance *instance, uint64_t segment,
                           uint64_t codebook, uint64_t budget, bool (*pause)(void *context), void *context) MN_MUST_USE;
/* Removes the copies of one inverted file: of one that is written anew, or was never published. */
void mn_hot_remove(const struct mn_instance *instance, uint64_t segment, uint64_t codebook);
/* Removes every copy that is not wanted; *removed is set when there was one. A copy is known by its name alone, and the
 * numbers of what was never published are given again: its copies must be gone by then. */
enum mn_status mn_hot_prune(const struct mn_instance *instance,
                            bool (*wanted)(void *context, uint64_t segment, uint64_t codebook), void *context,
                            bool *removed) MN_MUST_USE;
/* Tells readers that copies have come or gone: they look at their next pin. */
void mn_hot_announce(struct mn_instance *instance);

struct mn_hot_report {
    uint32_t copied;     /* segments that have their copies */
    uint32_t refused;    /* segments whose copies do not fit */
    uint64_t bytes;      /* of copies, all nodes */
    uint64_t huge_bytes; /* of those, in huge pages when they were made */
    bool changed;        /* copies were made or removed now */
};

/* Makes what the manifest's segments lack, newest first while the budget lasts, and removes everything else that is
 * named like a copy. One damaged file does not keep the others from theirs. Announces what it has done. */
enum mn_status mn_hot_tend(const struct mn_store *store, struct mn_instance *instance,
                           const struct mn_manifest *manifest, uint64_t budget, bool (*pause)(void *context),
                           void *context, struct mn_hot_report *report) MN_MUST_USE;

/* Calls `visit` with the name of each file of a segment's copies: for whoever retires the segment. */
enum mn_status mn_hot_visit(const struct mn_instance *instance, uint64_t segment,
                            enum mn_status (*visit)(void *context, const char *name), void *context) MN_MUST_USE;

#endif
