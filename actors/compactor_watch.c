/*
 * compactor_watch.c - what the columns look like: how much there is, how much of it is in memory, whether it is sound.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "actors/compactor.h"
#include "engine/ivf_file.h"
#include "engine/verify.h"
#include "shm/process.h"

#define DAMAGED_TOLD_MAX 1000

/* Codes are derived: the compactor makes them anew. */
static bool of_codes(const char *path)
{
    return strstr(path, "/ivf.") || strstr(path, "/codebooks/");
}

void mn_compactor_degrade(struct mn_compactor_role *c, const char *text)
{
    uint32_t bit = strstr(text, "/wal/") ? MN_DEGRADED_LOST : MN_DEGRADED_COLUMN;
    if (of_codes(text))
        bit = MN_DEGRADED_INDEX;
    atomic_fetch_or(&c->actor->instance.control->reasons, bit);
}

/* ---- census ---- */

static struct mn_watched *find_watched(struct mn_compactor_role *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->watched_count; i++)
        if (c->watched[i].id == id)
            return &c->watched[i];
    return NULL;
}

/* Maps a segment to look at its residency. One that is retired at this moment cannot be opened: it is left out. */
static void watch(struct mn_compactor_role *c, uint64_t id)
{
    struct mn_watched *grown = realloc(c->watched, (c->watched_count + 1) * sizeof *grown);
    if (!grown)
        return;
    c->watched = grown;
    struct mn_watched *w = &c->watched[c->watched_count];
    *w = (struct mn_watched){.id = id, .seen = true};
    if (mn_columns_open(&w->columns, &c->actor->store, id, false) == MN_OK)
        c->watched_count++;
}

/* Lets go of segments that the manifest no longer names: their files are unlinked, and mapped they would hold the disk.
 */
static void unwatch_retired(struct mn_compactor_role *c)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->watched_count; i++) {
        if (c->watched[i].seen)
            c->watched[kept++] = c->watched[i];
        else
            mn_columns_close(c->watched[i].columns);
    }
    c->watched_count = kept;
}

void mn_compactor_unwatch(struct mn_compactor_role *c)
{
    for (uint32_t i = 0; i < c->watched_count; i++)
        c->watched[i].seen = false;
    unwatch_retired(c);
    free(c->watched);
    c->watched = NULL;
}

static void watch_manifest(struct mn_compactor_role *c, const struct mn_manifest *manifest)
{
    for (uint32_t i = 0; i < c->watched_count; i++)
        c->watched[i].seen = false;
    for (uint32_t i = 0; i < manifest->segment_count; i++) {
        struct mn_watched *w = find_watched(c, manifest->segments[i].id);
        if (w)
            w->seen = true;
        else
            watch(c, manifest->segments[i].id);
    }
    unwatch_retired(c);
}

static void note_residency(struct mn_compactor_role *c)
{
    uint64_t bytes = 0, resident = 0;
    for (uint32_t i = 0; i < c->watched_count; i++) {
        uint64_t b = 0, r = 0;
        mn_columns_residency(c->watched[i].columns, &b, &r);
        bytes += b;
        resident += r;
    }
    mn_stat_set(c->actor->stats, MN_STAT_column_resident_bytes, resident);
    mn_stat_set(c->actor->stats, MN_STAT_column_resident_percent, bytes ? resident * 100 / bytes : 100);
}

void mn_compactor_census(struct mn_compactor_role *c)
{
    struct mn_manifest manifest = {0};
    uint64_t rows = 0, bytes = 0;
    if (mn_manifest_read(&manifest, &c->actor->store, NULL) != MN_OK) {
        mn_log(c->actor, "no census: %s", mn_error_trail());
        return;
    }
    for (uint32_t i = 0; i < manifest.segment_count; i++) {
        rows += manifest.segments[i].rows;
        bytes += manifest.segments[i].bytes;
    }
    mn_stat_set(c->actor->stats, MN_STAT_column_segments, manifest.segment_count);
    mn_stat_set(c->actor->stats, MN_STAT_column_rows, rows);
    mn_stat_set(c->actor->stats, MN_STAT_column_bytes, bytes);
    mn_compactor_code_census(c, &manifest);
    mn_compactor_hot_census(c, &manifest);
    watch_manifest(c, &manifest);
    note_residency(c);
    mn_manifest_free(&manifest);
}

/* ---- verify ---- */

struct damage {
    struct mn_compactor_role *c;
    char **texts; /* path, NUL, reason */
    uint32_t count;
    bool columns;
};

static void collect_damage(void *context, const char *path, const char *what)
{
    struct damage *d = context;
    mn_log(d->c->actor, "DAMAGE: %s: %s", path, what);
    mn_compactor_degrade(d->c, path);
    d->columns = d->columns || (strstr(path, "/columns/") && !of_codes(path));
    if (d->count == DAMAGED_TOLD_MAX || !d->texts)
        return;
    size_t path_bytes = strlen(path) + 1, what_bytes = strlen(what) + 1;
    char *text = malloc(path_bytes + what_bytes);
    if (!text)
        return;
    memcpy(text, path, path_bytes);
    memcpy(text + path_bytes, what, what_bytes);
    d->texts[d->count++] = text;
}

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    const struct damage *d = context;
    atomic_store(&d->c->actor->slot->progress, total ? (uint32_t)(done * 100 / total) : 0);
}

static void pack_damage(struct mn_reply *reply, const struct damage *d)
{
    mn_reply_key(reply, "damaged");
    msgpack_pack_array(&reply->pack, d->count);
    for (uint32_t i = 0; i < d->count; i++) {
        msgpack_pack_map(&reply->pack, 2);
        mn_reply_text(reply, "file", d->texts[i]);
        mn_reply_text(reply, "reason", d->texts[i] + strlen(d->texts[i]) + 1);
    }
}

enum mn_status mn_compactor_verify(struct mn_compactor_role *c, struct mn_str rid)
{
    struct mn_control *control = c->actor->instance.control;
    struct mn_verify_result result = {0};
    struct damage d = {.c = c, .texts = calloc(DAMAGED_TOLD_MAX, sizeof(char *))};
    mn_actor_pulse_begin(c->actor, true);
    enum mn_status status =
        mn_verify(&c->actor->store, atomic_load(&control->durable_seq), collect_damage, show_progress, &d, &result);
    mn_actor_pulse_end(c->actor);
    if (status == MN_OK) {
        if (!d.columns) /* whatever was damaged has been compacted away or repaired */
            atomic_fetch_and(&control->reasons, ~(uint32_t)MN_DEGRADED_COLUMN);
        mn_reply_begin(&c->reply, rid, 3);
        mn_reply_uint(&c->reply, "files", result.files);
        mn_reply_uint(&c->reply, "bytes", result.bytes);
        pack_damage(&c->reply, &d);
    }
    for (uint32_t i = 0; i < d.count; i++)
        free(d.texts[i]);
    free(d.texts);
    return status;
}
