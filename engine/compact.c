/*
 * compact.c - the compactor's own state, and removing what is left over: by compactors that died, and by newer
 * manifests.
 *
 * A segment is in use when the manifest names it, or any view file: one stays until no reader can have it pinned, and a
 * reader that has it pinned may not have opened the segment yet.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/columns_file.h"
#include "engine/compact_inside.h"

enum mn_status mn_compactor_open(struct mn_compactor **compactor, const struct mn_store *store,
                                 struct mn_instance *instance)
{
    *compactor = NULL;
    struct mn_compactor *c = calloc(1, sizeof *c);
    if (!c)
        return MN_FAIL(MN_SYSTEM, "no memory for a compactor");
    c->store = *store;
    c->instance = instance;
    enum mn_status status = mn_reader_open(&c->reader, &c->store, instance);
    if (status != MN_OK) {
        free(c);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    *compactor = c;
    return MN_OK;
}

void mn_compactor_close(struct mn_compactor *compactor)
{
    if (!compactor)
        return;
    mn_reader_close(compactor->reader);
    free(compactor->health);
    free(compactor->doubts);
    free(compactor);
}

struct mn_compact_health *mn_compact_health_of(struct mn_compactor *c, uint64_t segment)
{
    for (uint32_t h = 0; h < c->health_count; h++)
        if (c->health[h].segment == segment)
            return &c->health[h];
    if (c->health_count == c->health_max) {
        uint32_t max = c->health_max ? c->health_max * 2 : 64;
        struct mn_compact_health *grown = realloc(c->health, max * sizeof *grown);
        if (!grown)
            return NULL;
        c->health = grown;
        c->health_max = max;
    }
    struct mn_compact_health *made = &c->health[c->health_count++];
    *made = (struct mn_compact_health){.segment = segment};
    return made;
}

/* ---- a snapshot and its manifest ---- */

/* A view may lack segments of its manifest: those that were too damaged to open. A publication moves log_seq, takes
 * segments away or changes their codes, so a view from before one names what the manifest does not, or has another
 * log_seq. */
static bool same_store(const struct mn_manifest *manifest, const struct mn_view_list *view)
{
    if (manifest->log_seq != view->log_seq)
        return false;
    for (uint32_t v = 0; v < view->columns; v++) {
        bool named = false;
        for (uint32_t s = 0; s < manifest->segment_count && !named; s++)
            named = manifest->segments[s].id == view->column[v].segment &&
                    manifest->segments[s].codebook == view->column[v].codebook;
        if (!named)
            return false;
    }
    return true;
}

enum mn_status mn_compact_pin(struct mn_reader *reader, const struct mn_store *store, struct mn_instance *instance,
                              struct mn_manifest *manifest, struct mn_snapshot *snapshot, bool *agree)
{
    struct mn_view_list view;
    *agree = false;
    *manifest = (struct mn_manifest){0};
    MN_TRY(mn_reader_pin(reader, 0, snapshot));
    enum mn_status status = MN_OK;
    MN_TRY_OUT(mn_manifest_read(manifest, store, NULL));
    MN_TRY_OUT(mn_view_map(&view, instance, snapshot->gen));
    *agree = same_store(manifest, &view);
    mn_view_unmap(&view);
out:
    if (!*agree) {
        mn_reader_unpin(reader);
        mn_manifest_free(manifest);
    }
    return status;
}

const struct mn_part *mn_compact_part(const struct mn_snapshot *snapshot, bool tail, uint64_t number)
{
    for (uint32_t p = 0; p < snapshot->part_count; p++)
        if (snapshot->parts[p].tail == tail && snapshot->parts[p].number == number)
            return &snapshot->parts[p];
    return NULL;
}

bool mn_compact_sealed(const struct mn_part *part)
{
    /* Acquire: `rows` is final once `sealed` is seen; the part may have been shown before that. */
    return part->tail && atomic_load_explicit(&part->chunk->sealed, memory_order_acquire) == 1 &&
           atomic_load_explicit(&part->chunk->rows, memory_order_acquire) == part->rows;
}

/* ---- what is in use ---- */

struct id_list {
    uint64_t *ids;
    uint32_t count, max;
};

static enum mn_status add_id(struct id_list *list, uint64_t id)
{
    if (list->count == list->max) {
        uint32_t max = list->max ? list->max * 2 : 64;
        uint64_t *grown = realloc(list->ids, max * sizeof *grown);
        if (!grown)
            return MN_FAIL(MN_SYSTEM, "no memory for a list of segments");
        list->ids = grown;
        list->max = max;
    }
    list->ids[list->count++] = id;
    return MN_OK;
}

static bool has_id(const struct id_list *list, uint64_t id)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->ids[i] == id)
            return true;
    return false;
}

struct sweep {
    struct mn_compactor *compactor;
    struct mn_manifest manifest;
    struct id_list used, doomed;
};

static enum mn_status note_view(void *context, const char *name)
{
    struct sweep *sweep = context;
    struct mn_view_list view;
    unsigned long long gen;
    if (sscanf(name, "view.%llu", &gen) != 1)
        return MN_OK;
    enum mn_status status = mn_view_map(&view, sweep->compactor->instance, gen);
    if (status == MN_NOT_FOUND || status == MN_NOT_READY)
        return MN_OK; /* retired just now, or not published yet: a publication only names what its manifest names */
    MN_TRY(status);
    for (uint32_t v = 0; v < view.columns && status == MN_OK; v++)
        status = add_id(&sweep->used, view.column[v].segment);
    mn_view_unmap(&view);
    return status;
}

/* The manifest first, the views after it: what the manifest has let go of meanwhile is in a view that still exists. */
static enum mn_status note_used(struct sweep *sweep)
{
    MN_TRY(mn_manifest_read(&sweep->manifest, &sweep->compactor->store, NULL));
    for (uint32_t s = 0; s < sweep->manifest.segment_count; s++)
        MN_TRY(add_id(&sweep->used, sweep->manifest.segments[s].id));
    return mn_instance_list(sweep->compactor->instance, note_view, sweep);
}

/* ---- sweeping ---- */

static enum mn_status sweep_folder(void *context, const char *name)
{
    struct sweep *sweep = context;
    char *end, path[MN_PATH_MAX], folder[MN_PATH_MAX];
    unsigned long long id = strtoull(name, &end, 10);
    if (end == name)
        return MN_OK;
    if (*end == 0 && !has_id(&sweep->used, id))
        return add_id(&sweep->doomed, id);
    if (strcmp(end, ".tmp") != 0)
        return MN_OK;
    snprintf(folder, sizeof folder, "columns/%llu.tmp", id);
    return mn_io_remove_tree(sweep->compactor->store.io, mn_store_path(&sweep->compactor->store, path, folder));
}

static enum mn_status sweep_live(void *context, const char *name)
{
    struct sweep *sweep = context;
    unsigned long long gen, id;
    if (sscanf(name, "live.%llu.%llu", &gen, &id) != 2 || has_id(&sweep->used, id))
        return MN_OK;
    if (unlinkat(sweep->compactor->instance->dir_fd, name, 0) != 0 && errno != ENOENT)
        return MN_FAIL_ERRNO("cannot remove %s", name);
    return MN_OK;
}

enum mn_status mn_compactor_sweep(struct mn_compactor *compactor)
{
    struct sweep sweep = {.compactor = compactor};
    char path[MN_PATH_MAX];
    const struct mn_store *store = &compactor->store;
    enum mn_status status = MN_OK;
    MN_TRY_OUT(note_used(&sweep));
    MN_TRY_OUT(store->io->list(mn_store_path(store, path, "columns"), sweep_folder, &sweep));
    for (uint32_t d = 0; d < sweep.doomed.count; d++)
        MN_TRY_OUT(mn_io_remove_tree(store->io, mn_store_columns_dir(store, path, sweep.doomed.ids[d])));
    MN_TRY_OUT(mn_instance_list(compactor->instance, sweep_live, &sweep));
    MN_TRY_OUT(mn_compact_tidy(compactor, &sweep.manifest));
out:
    mn_manifest_free(&sweep.manifest);
    free(sweep.used.ids);
    free(sweep.doomed.ids);
    return status;
}

/* ---- what newer manifests have made obsolete ---- */

/* The number in a name such as died.<number>.col, when the name is exactly that. */
static bool number_in(const char *name, const char *prefix, const char *suffix, uint64_t *number)
{
    size_t length = strlen(prefix);
    char *end;
    if (strncmp(name, prefix, length) != 0 || name[length] < '0' || name[length] > '9')
        return false;
    *number = strtoull(name + length, &end, 10);
    return strcmp(end, suffix) == 0;
}

struct tidy {
    const char *prefix, *suffix;
    uint64_t below;
    struct id_list doomed;
};

static enum mn_status note_obsolete(void *context, const char *name)
{
    struct tidy *tidy = context;
    uint64_t number;
    if (number_in(name, tidy->prefix, tidy->suffix, &number) && number < tidy->below)
        return add_id(&tidy->doomed, number);
    return MN_OK;
}

/* Removes <dir>/<prefix><n><suffix> for each n below `below`. */
static enum mn_status remove_below(const struct mn_store *store, const char *dir, struct tidy *tidy)
{
    enum mn_status status = store->io->list(dir, note_obsolete, tidy);
    if (status == MN_NOT_FOUND)
        status = MN_OK;
    for (uint32_t d = 0; d < tidy->doomed.count && status == MN_OK; d++) {
        char path[MN_PATH_MAX + 64];
        snprintf(path, sizeof path, "%s/%s%llu%s", dir, tidy->prefix, (unsigned long long)tidy->doomed.ids[d],
                 tidy->suffix);
        status = store->io->unlink(path);
        if (status == MN_NOT_FOUND)
            status = MN_OK;
        MN_FAULT_POINT(compact_mid_tidy);
    }
    free(tidy->doomed.ids);
    return status;
}

enum mn_status mn_compact_tidy(struct mn_compactor *c, const struct mn_manifest *manifest)
{
    char dir[MN_PATH_MAX];
    struct tidy ledgers = {.prefix = "ledger.", .suffix = "", .below = manifest->ledger_seq};
    MN_TRY(remove_below(&c->store, c->store.dir, &ledgers));
    for (uint32_t s = 0; s < manifest->segment_count; s++) {
        if (manifest->segments[s].died_seq == 0)
            continue;
        struct tidy died = {.prefix = "died.", .suffix = ".col", .below = manifest->segments[s].died_seq};
        struct tidy copies = {.prefix = MN_DIED_COPY, .suffix = ".col", .below = died.below};
        MN_TRY(remove_below(&c->store, mn_store_columns_dir(&c->store, dir, manifest->segments[s].id), &died));
        MN_TRY(remove_below(&c->store, dir, &copies));
    }
    return mn_compact_tidy_codes(c, manifest, NULL);
}

/* ---- ids and giving up ---- */

static enum mn_status note_highest(void *context, const char *name)
{
    uint64_t *highest = context, id;
    if ((number_in(name, "", "", &id) || number_in(name, "", ".tmp", &id)) && id > *highest)
        *highest = id;
    return MN_OK;
}

enum mn_status mn_compact_free_id(struct mn_compactor *c, const struct mn_manifest *manifest, uint64_t *id)
{
    char path[MN_PATH_MAX];
    uint64_t highest = 0;
    MN_TRY(c->store.io->list(mn_store_path(&c->store, path, "columns"), note_highest, &highest));
    *id = manifest->next_segment > highest + 1 ? manifest->next_segment : highest + 1;
    return MN_OK;
}

enum mn_status mn_compact_discard(struct mn_compactor *c, const struct mn_compact_proposal *proposal)
{
    for (uint32_t o = 0; o < proposal->output_count; o++) {
        char path[MN_PATH_MAX], name[64];
        snprintf(name, sizeof name, "live.%llu.%llu", (unsigned long long)proposal->live_gen,
                 (unsigned long long)proposal->outputs[o]);
        if (unlinkat(c->instance->dir_fd, name, 0) != 0 && errno != ENOENT)
            return MN_FAIL_ERRNO("cannot remove %s", name);
        MN_TRY(mn_io_remove_tree(c->store.io, mn_store_columns_dir(&c->store, path, proposal->outputs[o])));
    }
    return MN_OK;
}
