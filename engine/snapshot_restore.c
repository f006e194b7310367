/*
 * snapshot_restore.c - putting a snapshot back: a new store of its files, each checksum looked at before and after.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/snapshot_inside.h"
#include "engine/wal.h"

struct tree_copying {
    struct mn_copying *copying;
    const char *folder; /* "" or "wal", "columns/7", ... */
    bool folders;       /* entries are folders of files, not files */
};

/* Files that belong to a life, not to the store: locks, and what was being made. */
static bool passing(const char *name)
{
    size_t length = strlen(name);
    return strcmp(name, "LOCK") == 0 || (length > 4 && strcmp(name + length - 4, ".tmp") == 0);
}

static enum mn_status copy_entry(void *context, const char *name)
{
    const struct tree_copying *tree = context;
    char path[1024], to[MN_PATH_MAX], from[MN_PATH_MAX];
    if (passing(name))
        return MN_OK;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", tree->folder, name) >= sizeof path)
        return MN_FAIL(MN_BAD_REQUEST, "path too long: %s/%s", tree->folder, name);
    if (!tree->folders)
        return mn_snapshot_copy_file(tree->copying, path);
    struct tree_copying inner = {tree->copying, path, false};
    MN_TRY(tree->copying->copy.io->mkdir(mn_store_path(&tree->copying->copy, to, path)));
    MN_TRY(tree->copying->store->io->list(mn_store_path(tree->copying->store, from, path), copy_entry, &inner));
    return tree->copying->copy.io->sync_dir(to);
}

static enum mn_status copy_folder(struct mn_copying *c, const char *folder, bool folders)
{
    struct tree_copying tree = {c, folder, folders};
    char from[MN_PATH_MAX];
    enum mn_status status = c->store->io->list(mn_store_path(c->store, from, folder), copy_entry, &tree);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

static enum mn_status copy_store(struct mn_copying *c)
{
    MN_TRY(mn_snapshot_make_folders(&c->copy));
    MN_TRY(mn_snapshot_write_small_files(c));
    MN_TRY(mn_snapshot_copy_ledger(c));
    MN_TRY(copy_folder(c, "wal", false));
    MN_TRY(copy_folder(c, "quarantine", false));
    MN_TRY(copy_folder(c, "codebooks", false));
    return copy_folder(c, "columns", true);
}

static enum mn_status pass_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    (void)segment;
    (void)offset;
    uint64_t *newest = context;
    *newest = record->seq > *newest ? record->seq : *newest;
    return MN_OK;
}

/* The newest seq of a copy that has been checked. */
static enum mn_status newest_seq(struct mn_copying *c, uint64_t *seq)
{
    uint64_t *numbers = NULL;
    uint32_t count = 0;
    *seq = c->manifest.log_seq;
    MN_TRY(mn_wal_list(&c->copy, &numbers, &count));
    enum mn_status status = MN_OK;
    for (uint32_t l = 0; l < count && status == MN_OK; l++) {
        struct mn_wal_segment segment;
        struct mn_wal_extent extent = {0};
        struct mn_wal_visitor visitor = {.context = seq, .record = pass_record};
        status = mn_wal_map(&segment, &c->copy, numbers[l]);
        if (status == MN_OK && !segment.unused)
            status = mn_wal_scan(&segment, &visitor, &extent);
        mn_wal_unmap(&segment);
    }
    free(numbers);
    return status;
}

/* Without a manifest a store was never compacted: its log is whole from the first segment, or there are no columns. */
static enum mn_status check_manifest(const struct mn_copying *c)
{
    uint64_t *numbers = NULL;
    uint32_t count = 0;
    char path[MN_PATH_MAX];
    bool compacted;
    if (c->manifest.edit > 0)
        return MN_OK;
    MN_TRY(mn_wal_list(c->store, &numbers, &count));
    bool from_the_first = count > 0 && numbers[0] == 1;
    free(numbers);
    if (from_the_first)
        return MN_OK;
    MN_TRY(mn_snapshot_any_entry(c->store->io, mn_store_path(c->store, path, "columns"), &compacted));
    if (!compacted)
        return MN_OK;
    return MN_FAIL(MN_CORRUPT, "%s/MANIFEST is missing, and so is its copy: nothing tells which files are the store",
                   c->store->dir);
}

/* Reading the snapshot, writing the copy and reading that are of one length: done and total speak of all three. */
static enum mn_status check_snapshot(struct mn_copying *c, const struct mn_restore *restore)
{
    struct mn_survey survey = {.copying = c,
                               .store = c->store,
                               .passes = 3,
                               .damaged = restore->damaged,
                               .copied_from = true,
                               .result = c->result};
    struct mn_verify_result found;
    MN_TRY(mn_snapshot_survey(&survey, &found));
    c->done = found.bytes;
    c->total = 3 * found.bytes;
    if (c->result->damaged > 0 && !restore->damaged_too)
        return MN_FAIL(MN_CORRUPT, "the snapshot %s is damaged in %llu places, the first: %s", c->store->dir,
                       (unsigned long long)c->result->damaged, c->result->damage);
    return MN_OK;
}

/* An empty folder at `dir` gives way to the copy, by the rename; one that is not empty any more does not. */
static enum mn_status restore_checked(struct mn_copying *c, const char *dir)
{
    struct mn_copy_result copy = {0};
    MN_TRY(copy_store(c));
    MN_TRY(mn_snapshot_check_copy(c, 1, &copy));
    if (copy.damaged > c->result->damaged)
        return MN_FAIL(MN_CORRUPT,
                       "the copy is damaged where the snapshot %s is not, so its disk is to be doubted; the first: %s",
                       c->store->dir, copy.damage);
    MN_TRY(newest_seq(c, &c->result->seq));
    return mn_snapshot_give_name(&c->copy, dir);
}

enum mn_status mn_snapshot_restore(const struct mn_restore *restore, struct mn_copy_result *result)
{
    struct mn_copying c = {.progress = restore->progress, .context = restore->context, .result = result};
    struct mn_store store;
    bool empty;
    *result = (struct mn_copy_result){0};
    MN_TRY(mn_store_open(&store, restore->io, restore->snapshot));
    c.store = &store;
    MN_TRY(mn_snapshot_name_copy(&c, restore->dir, &empty));
    MN_TRY(mn_manifest_read(&c.manifest, &store, NULL));
    enum mn_status status = check_manifest(&c);
    if (status == MN_OK)
        status = check_snapshot(&c, restore);
    if (status == MN_OK) {
        status = restore_checked(&c, restore->dir);
        if (status != MN_OK)
            mn_snapshot_give_up(&c.copy, status);
    }
    mn_manifest_free(&c.manifest);
    return status;
}
