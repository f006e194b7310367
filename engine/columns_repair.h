/*
 * columns_repair.h - looking for rot in the files of a column segment, and mending it. The compactor's.
 */
#ifndef MN_ENGINE_COLUMNS_REPAIR_H
#define MN_ENGINE_COLUMNS_REPAIR_H

#include "engine/columns.h"
#include "engine/manifest.h"

/* ---- looking ---- */

/* Where a walk through a segment's files stands. Zeroed but for `segment`: at its beginning. */
struct mn_columns_scrub {
    uint64_t segment;
    uint32_t file;   /* of those that it has */
    uint64_t block;  /* of that file */
    uint32_t damage; /* found so far in this segment's columns */
};

/* Reads about `bytes` more of the segment's files, past the page cache where nobody uses the pages, and holds them
 * against their checksums; adds to *read. Damage is told as by mn_columns_verify; that of inverted files is not counted
 * in scrub->damage (it is the code keeper's). *done: the segment is at its end. */
enum mn_status mn_columns_scrub(struct mn_columns_scrub *scrub, const struct mn_store *store,
                                const struct mn_manifest_segment *segment, uint64_t bytes, uint64_t *read,
                                mn_damage_fn damaged, void *context, bool *done) MN_MUST_USE;

/* ---- mending ---- */

struct mn_columns_mended {
    uint32_t files; /* written anew */
    uint32_t lost;  /* damaged, and nothing to make them whole from */
    char what[256]; /* of the last that is lost */
};

/* Writes every damaged file of a segment anew, from its parity, or, where it follows from others, from those; the
 * parity itself, once all columns are whole; died.<seq>.col from `died`, the segment's liveness in shared memory (NULL:
 * not known). Each goes under a temporary name, is synced, renamed and its folder synced; the bytes are those that were
 * there once, so the manifest stands. Readers that have the old files mapped keep them: tell them to look again. pause
 * as in mn_compact_build. */
enum mn_status mn_columns_mend(const struct mn_store *store, const struct mn_manifest_segment *segment,
                               const _Atomic uint64_t *died, bool (*pause)(void *context), void *context,
                               struct mn_columns_mended *mended) MN_MUST_USE;

#endif
