/*
 * snapshot_inside.h - copying a store, shared by the two directions: snapshot.c (of a running store) and
 * snapshot_restore.c (of a snapshot). What both do is in snapshot_copy.c.
 */
#ifndef MN_ENGINE_SNAPSHOT_INSIDE_H
#define MN_ENGINE_SNAPSHOT_INSIDE_H

#include "engine/manifest.h"
#include "engine/snapshot.h"
#include "engine/verify.h"

struct mn_copying {
    const struct mn_store *store; /* copied from */
    struct mn_store copy;         /* copied to: under a temporary name */
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
    struct mn_copy_result *result;
    struct mn_manifest manifest; /* of the store, as it is copied */
    struct mn_snapshot snapshot; /* of a running store: what is pinned */
    uint64_t done, total;
};

/* Begins: the copy at `path` gets its temporary name. MN_EXISTS when there is a file, or a folder that holds something,
 * at `path`. *empty: an empty folder is there. */
enum mn_status mn_snapshot_name_copy(struct mn_copying *copying, const char *path, bool *empty) MN_MUST_USE;

/* The folders of the copy, in place of what an attempt that died has left. */
enum mn_status mn_snapshot_make_folders(const struct mn_store *copy) MN_MUST_USE;

/* A file of that many bytes has been copied. */
void mn_snapshot_advance(struct mn_copying *copying, uint64_t bytes);
/* Copies a file of the store, `name` relative to its folder. */
enum mn_status mn_snapshot_copy_file(struct mn_copying *copying, const char *name) MN_MUST_USE;
/* Copies the manifest's ledger, if it has one. */
enum mn_status mn_snapshot_copy_ledger(struct mn_copying *copying) MN_MUST_USE;

/* STORE and the manifest, which are written anew: of the manifest one edit. */
enum mn_status mn_snapshot_write_small_files(struct mn_copying *copying) MN_MUST_USE;

/* *any: an entry is in the folder, if there is one. */
enum mn_status mn_snapshot_any_entry(const struct mn_io *io, const char *folder, bool *any) MN_MUST_USE;

/* A look at every checksum of a folder. */
struct mn_survey {
    const struct mn_copying *copying;
    const struct mn_store *store; /* the folder: the copy, or what is copied */
    uint64_t passes;              /* over the bytes, this one and those to come: for progress, 0 = none is told */
    mn_damage_fn damaged;         /* told of each piece that counts; may be NULL */
    bool copied_from;             /* what no copy is made of, but written anew, does not count */
    struct mn_copy_result *result;
};
/* *found: what was looked at, and how much of it is damaged. */
enum mn_status mn_snapshot_survey(struct mn_survey *survey, struct mn_verify_result *found) MN_MUST_USE;
/* Of the copy, before it gets its name. */
enum mn_status mn_snapshot_check_copy(const struct mn_copying *copying, uint64_t passes,
                                      struct mn_copy_result *result) MN_MUST_USE;

/* Ends: the copy gets its name last, whatever has that name is whole; or a copy that failed is removed, and the
 * sentence about why stays. */
enum mn_status mn_snapshot_give_name(const struct mn_store *copy, const char *path) MN_MUST_USE;
void mn_snapshot_give_up(const struct mn_store *copy, enum mn_status status);

#endif
