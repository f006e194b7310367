/*
 * compact_tidy.c - removing inverted files (and hot copies of them) and codebooks that nobody needs any more.
 *
 * One is needed while the manifest names it, or a view: a reader that has the view pinned may not have opened it yet.
 * Segments that were let go take their inverted files with them (the writer's limbo).
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/compact_inside.h"
#include "engine/hot.h"

/* An inverted file: columns/<segment>/ivf.<codebook>.col. */
struct named {
    uint64_t segment, codebook;
};

struct tidying {
    struct mn_compactor *compactor;
    struct named *named;
    uint32_t count, max;
    uint32_t in_manifest;    /* the first ones are the manifest's */
    uint64_t segment;        /* whose folder is listed; 0: codebooks/ */
    uint64_t newest, before; /* of codebooks: the manifest's, and the one before it */
    struct named *found;     /* in that folder */
    uint32_t found_count, found_max;
    bool left; /* something is named by a view only */
};

static enum mn_status add(struct named **list, uint32_t *count, uint32_t *max, struct named named)
{
    if (*count == *max) {
        uint32_t more = *max ? *max * 2 : 64;
        struct named *grown = realloc(*list, more * sizeof *grown);
        if (!grown)
            return MN_FAIL(MN_SYSTEM, "no memory for a list of inverted files");
        *list = grown;
        *max = more;
    }
    (*list)[(*count)++] = named;
    return MN_OK;
}

static enum mn_status note_named(struct tidying *t, uint64_t segment, uint64_t codebook)
{
    return codebook == 0 ? MN_OK : add(&t->named, &t->count, &t->max, (struct named){segment, codebook});
}

static enum mn_status note_view(void *context, const char *name)
{
    struct tidying *t = context;
    struct mn_view_list view;
    unsigned long long gen;
    if (sscanf(name, "view.%llu", &gen) != 1)
        return MN_OK;
    enum mn_status status = mn_view_map(&view, t->compactor->instance, gen);
    if (status == MN_NOT_FOUND || status == MN_NOT_READY)
        return MN_OK; /* retired just now, or not published yet: a publication only names what its manifest names */
    MN_TRY(status);
    for (uint32_t v = 0; v < view.columns && status == MN_OK; v++)
        status = note_named(t, view.column[v].segment, view.column[v].codebook);
    mn_view_unmap(&view);
    return status;
}

/* The manifest first, the views after it: what the manifest has let go of meanwhile is in a view that still exists. */
static enum mn_status note_all(struct tidying *t, const struct mn_manifest *manifest)
{
    for (uint32_t s = 0; s < manifest->segment_count; s++)
        MN_TRY(note_named(t, manifest->segments[s].id, manifest->segments[s].codebook));
    MN_TRY(note_named(t, 0, manifest->codebook));
    t->newest = manifest->codebook;
    t->in_manifest = t->count;
    return mn_instance_list(t->compactor->instance, note_view, t);
}

/* Who needs a file: nobody 0, a view 1, the manifest 2. segment 0: any of the codebook. */
static int need(const struct tidying *t, uint64_t segment, uint64_t codebook)
{
    int needed = 0;
    for (uint32_t n = 0; n < t->count && needed < 2; n++)
        if (t->named[n].codebook == codebook && (segment == 0 || t->named[n].segment == segment))
            needed = n < t->in_manifest ? 2 : 1;
    return needed;
}

static enum mn_status unlink_file(const struct mn_io *io, const char *path)
{
    enum mn_status status = io->unlink(path);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

/* A column file that was being written anew when a compactor died. */
static enum mn_status unlink_unfinished(const struct tidying *t, const char *name)
{
    char dir[MN_PATH_MAX], path[MN_PATH_MAX + 256];
    size_t length = strlen(name);
    if (length < 8 || length > 200 || strcmp(name + length - 8, ".col.tmp") != 0)
        return MN_OK;
    snprintf(path, sizeof path, "%s/%s", mn_store_columns_dir(&t->compactor->store, dir, t->segment), name);
    return unlink_file(t->compactor->store.io, path);
}

/* ivf.<n>.col[.tmp] in the folder of a segment, <n>.col[.tmp] in codebooks/. */
static enum mn_status visit(void *context, const char *name)
{
    struct tidying *t = context;
    const char *digits = name;
    char *end, path[MN_PATH_MAX], made[MN_PATH_MAX];
    if (t->segment != 0) {
        if (strncmp(name, "ivf.", 4) != 0)
            return unlink_unfinished(t, name);
        digits = name + 4;
    }
    uint64_t gen = strtoull(digits, &end, 10);
    if (end == digits || (strcmp(end, ".col") != 0 && strcmp(end, ".col.tmp") != 0))
        return MN_OK;
    if (end[4] == 0)
        return add(&t->found, &t->found_count, &t->found_max, (struct named){t->segment, gen});
    const struct mn_store *store = &t->compactor->store;
    snprintf(made, sizeof made, "%.*s.tmp", MN_PATH_MAX - 8,
             t->segment ? mn_ivf_path(store, path, t->segment, gen) : mn_codebook_path(store, path, gen));
    return unlink_file(store->io, made);
}

/* Removes what `visit` has found in a folder and nobody needs. */
static enum mn_status remove_unneeded(struct tidying *t)
{
    const struct mn_store *store = &t->compactor->store;
    t->before = 0;
    for (uint32_t d = 0; d < t->found_count; d++)
        if (t->found[d].codebook < t->newest && t->found[d].codebook > t->before)
            t->before = t->found[d].codebook;
    for (uint32_t d = 0; d < t->found_count; d++) {
        char path[MN_PATH_MAX];
        uint64_t gen = t->found[d].codebook;
        int needed = need(t, t->segment, gen);
        t->left |= needed == 1;
        if (needed > 0 || (t->segment == 0 && gen == t->before))
            continue;
        MN_TRY(unlink_file(store->io, t->segment ? mn_ivf_path(store, path, t->segment, gen)
                                                 : mn_codebook_path(store, path, gen)));
    }
    return MN_OK;
}

static enum mn_status tidy_folder(struct tidying *t, uint64_t segment)
{
    const struct mn_store *store = &t->compactor->store;
    char path[MN_PATH_MAX];
    t->segment = segment;
    t->found_count = 0;
    enum mn_status status = store->io->list(
        segment ? mn_store_columns_dir(store, path, segment) : mn_store_path(store, path, "codebooks"), visit, t);
    if (status == MN_NOT_FOUND)
        return MN_OK;
    MN_TRY(status);
    return remove_unneeded(t);
}

static bool copy_wanted(void *context, uint64_t segment, uint64_t codebook)
{
    return need(context, segment, codebook) > 0;
}

enum mn_status mn_compact_tidy_codes(struct mn_compactor *compactor, const struct mn_manifest *manifest, bool *left)
{
    struct tidying t = {.compactor = compactor};
    enum mn_status status = MN_OK;
    bool removed = false; /* nobody has one of those mapped: there is nothing to announce */
    MN_TRY_OUT(note_all(&t, manifest));
    MN_TRY_OUT(mn_hot_prune(compactor->instance, copy_wanted, &t, &removed));
    for (uint32_t s = 0; s < manifest->segment_count; s++)
        MN_TRY_OUT(tidy_folder(&t, manifest->segments[s].id));
    MN_TRY_OUT(tidy_folder(&t, 0));
out:
    free(t.named);
    free(t.found);
    if (left)
        *left = t.left;
    return status;
}
