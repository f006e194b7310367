/*
 * snapshot_copy.c - what copying a store is in both directions: a folder under a temporary name, files that are copied
 * and files that are written anew, a look at every checksum, and the name at the end.
 */
#include <stdio.h>

#include "engine/fault.h"
#include "engine/snapshot_inside.h"

#define TEMPORARY ".mneme-copy" /* behind the path of a copy until it is whole */

/* ---- the folder ---- */

static enum mn_status note_entry(void *context, const char *name)
{
    (void)name;
    *(bool *)context = true;
    return MN_OK;
}

enum mn_status mn_snapshot_any_entry(const struct mn_io *io, const char *folder, bool *any)
{
    *any = false;
    enum mn_status status = io->list(folder, note_entry, any);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

/* Whether `path` can become the copy's: *empty when it is an empty folder. */
static enum mn_status check_free(const struct mn_io *io, const char *path, bool *empty)
{
    bool holds;
    int fd;
    enum mn_status status = io->open(path, MN_IO_READ, &fd);
    *empty = false;
    if (status == MN_NOT_FOUND)
        return MN_OK;
    MN_TRY(status);
    io->close(fd);
    *empty = mn_snapshot_any_entry(io, path, &holds) == MN_OK && !holds;
    return *empty ? MN_OK : MN_FAIL(MN_EXISTS, "%s exists already", path);
}

enum mn_status mn_snapshot_name_copy(struct mn_copying *c, const char *path, bool *empty)
{
    c->copy = *c->store;
    if ((size_t)snprintf(c->copy.dir, sizeof c->copy.dir, "%s" TEMPORARY, path) >= sizeof c->copy.dir)
        return MN_FAIL(MN_BAD_REQUEST, "the path of the copy has more than %zu bytes",
                       sizeof c->copy.dir - sizeof TEMPORARY);
    return check_free(c->copy.io, path, empty);
}

enum mn_status mn_snapshot_make_folders(const struct mn_store *copy)
{
    static const char *const folders[] = {"wal", "columns", "codebooks", "quarantine", "run"};
    char path[MN_PATH_MAX];
    MN_TRY(mn_io_remove_tree(copy->io, copy->dir)); /* of an attempt that died */
    MN_TRY(copy->io->mkdir(copy->dir));
    for (size_t f = 0; f < MN_ARRAY_LEN(folders); f++)
        MN_TRY(copy->io->mkdir(mn_store_path(copy, path, folders[f])));
    return MN_OK;
}

static enum mn_status sync_folders(const struct mn_store *copy)
{
    static const char *const folders[] = {"wal", "columns", "codebooks", "quarantine"};
    char path[MN_PATH_MAX];
    for (size_t f = 0; f < MN_ARRAY_LEN(folders); f++)
        MN_TRY(copy->io->sync_dir(mn_store_path(copy, path, folders[f])));
    return copy->io->sync_dir(copy->dir);
}

enum mn_status mn_snapshot_give_name(const struct mn_store *copy, const char *path)
{
    MN_TRY(sync_folders(copy));
    MN_FAULT_POINT(snapshot_before_rename);
    MN_TRY(copy->io->rename(copy->dir, path));
    MN_FAULT_POINT(snapshot_renamed);
    return mn_io_sync_name(copy->io, path);
}

void mn_snapshot_give_up(const struct mn_store *copy, enum mn_status status)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", mn_error_text());
    if (mn_io_remove_tree(copy->io, copy->dir) != MN_OK || strcmp(text, mn_error_text()) != 0)
        mn_error_set(status, __FILE__, __LINE__, "%s", text);
}

/* ---- files ---- */

void mn_snapshot_advance(struct mn_copying *c, uint64_t bytes)
{
    c->result->files++;
    c->result->bytes += bytes;
    c->done += bytes;
    if (c->done > c->total)
        c->total = c->done;
    if (c->progress)
        c->progress(c->context, c->done, c->total);
}

enum mn_status mn_snapshot_copy_file(struct mn_copying *c, const char *name)
{
    char from[MN_PATH_MAX], to[MN_PATH_MAX];
    uint64_t bytes = 0;
    mn_store_path(c->store, from, name);
    mn_store_path(&c->copy, to, name);
    MN_TRY(c->store->io->copy(from, to, &bytes));
    mn_snapshot_advance(c, bytes);
    return MN_OK;
}

enum mn_status mn_snapshot_copy_ledger(struct mn_copying *c)
{
    char name[64];
    if (c->manifest.ledger_seq == 0)
        return MN_OK;
    snprintf(name, sizeof name, "ledger.%llu", (unsigned long long)c->manifest.ledger_seq);
    return mn_snapshot_copy_file(c, name);
}

/* What no copy is made of: it is written anew. Kept twice: where neither is whole, opening the snapshot or reading its
 * manifest has failed. */
#define ANEW (MN_STORE_COPIES + MN_MANIFEST_COPIES)

static const char *anew(uint32_t n)
{
    return n < MN_STORE_COPIES ? mn_store_names[n] : mn_manifest_names[n - MN_STORE_COPIES];
}

/* A manifest of one edit. */
static enum mn_status write_manifest(struct mn_copying *c)
{
    struct mn_manifest manifest;
    MN_TRY(mn_manifest_copy(&manifest, &c->manifest));
    enum mn_status status = MN_OK;
    bool any = manifest.edit != 0; /* a store that was never compacted has none */
    manifest.edit = 0;
    if (any)
        status = mn_manifest_append(&manifest, &c->copy);
    if (status == MN_OK && manifest.alone)
        status = mn_manifest_rejoin(&manifest, &c->copy);
    mn_manifest_free(&manifest);
    return status;
}

enum mn_status mn_snapshot_write_small_files(struct mn_copying *c)
{
    char path[MN_PATH_MAX];
    MN_TRY(mn_store_write(&c->copy));
    MN_TRY(write_manifest(c));
    for (uint32_t n = 0; n < ANEW; n++) {
        uint64_t bytes = mn_io_file_bytes(c->copy.io, mn_store_path(&c->copy, path, anew(n)));
        if (bytes > 0)
            mn_snapshot_advance(c, bytes);
    }
    return MN_OK;
}

/* ---- the check ---- */

static bool written_anew(const char *name)
{
    for (uint32_t n = 0; n < ANEW; n++)
        if (strcmp(name, anew(n)) == 0)
            return true;
    return false;
}

/* Codes are derived: the store that comes of the copy makes damaged ones anew. */
static void note_damage(void *context, const char *path, const char *what)
{
    const struct mn_survey *survey = context;
    struct mn_copy_result *result = survey->result;
    size_t skip = strlen(survey->store->dir) + 1;
    const char *name = strlen(path) > skip ? path + skip : path;
    if (strstr(name, "/ivf.") || strncmp(name, "codebooks/", 10) == 0 || (survey->copied_from && written_anew(name)))
        return;
    if (result->damaged++ == 0)
        snprintf(result->damage, sizeof result->damage, "%s: %s", name, what);
    if (survey->damaged)
        survey->damaged(survey->copying->context, path, what);
}

static void note_progress(void *context, uint64_t done, uint64_t total)
{
    const struct mn_survey *survey = context;
    const struct mn_copying *c = survey->copying;
    if (c->progress && survey->passes > 0)
        c->progress(c->context, c->done + done, c->done + survey->passes * total);
}

enum mn_status mn_snapshot_survey(struct mn_survey *survey, struct mn_verify_result *found)
{
    return mn_verify(survey->store, UINT64_MAX, note_damage, note_progress, survey, found);
}

enum mn_status mn_snapshot_check_copy(const struct mn_copying *c, uint64_t passes, struct mn_copy_result *result)
{
    struct mn_survey survey = {.copying = c, .store = &c->copy, .passes = passes, .result = result};
    struct mn_verify_result found;
    return mn_snapshot_survey(&survey, &found);
}
