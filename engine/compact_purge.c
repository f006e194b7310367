/*
 * compact_purge.c - purges that lie in the log segments of a compaction: which rows they cover, and which quarantined
 * pieces.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/compact_inside.h"
#include "engine/request.h"

#define NOTE_BYTES_MAX (16u << 20)

/* ---- the list ---- */

static enum mn_status add_purge(void *context, uint64_t seq, struct mn_str space, const struct mn_id *id)
{
    struct mn_compact_purges *purges = context;
    if (purges->count == purges->max) {
        uint32_t max = purges->max ? purges->max * 2 : 64;
        struct mn_compact_purge *grown = realloc(purges->list, max * sizeof *grown);
        if (!grown)
            return MN_FAIL(MN_SYSTEM, "no memory for a list of purges");
        purges->list = grown;
        purges->max = max;
    }
    char *name = malloc(space.length + 1u);
    if (!name)
        return MN_FAIL(MN_SYSTEM, "no memory for a list of purges");
    memcpy(name, space.data, space.length);
    struct mn_str copy = {name, space.length};
    purges->list[purges->count++] =
        (struct mn_compact_purge){.space = copy, .id = *id, .seq = seq, .hash = mn_id_hash(mn_str_hash(copy), id)};
    return MN_OK;
}

enum mn_status mn_compact_purges_collect(struct mn_compact_purges *purges, const struct mn_store *store,
                                         uint64_t wal_number)
{
    return mn_ledger_purges(store, wal_number, add_purge, purges);
}

enum mn_status mn_compact_purges_recall(struct mn_compact_purges *purges, struct mn_ledger *ledger)
{
    struct mn_ledger_mark mark;
    for (uint64_t at = 0; mn_ledger_marks_next(mn_ledger_marks(ledger), &at, &mark);)
        if (mark.mode == MN_FORGET_PURGE)
            MN_TRY(add_purge(purges, mark.seq, mark.space, &mark.id));
    return MN_OK;
}

void mn_compact_purges_free(struct mn_compact_purges *purges)
{
    for (uint32_t i = 0; i < purges->count; i++)
        free((void *)(uintptr_t)purges->list[i].space.data);
    free(purges->list);
    *purges = (struct mn_compact_purges){0};
}

uint64_t mn_compact_purges_mark(const struct mn_compact_purges *purges, const struct mn_part *part, uint64_t *to)
{
    uint64_t marked = 0;
    for (uint32_t i = 0; i < purges->count; i++) {
        const struct mn_compact_purge *purge = &purges->list[i];
        struct mn_part_find find = {.hash = purge->hash, .id = purge->id, .space = mn_part_lookup(part, purge->space)};
        if (find.space == MN_NONE)
            continue;
        for (uint32_t row = mn_part_find_first(part, &find); row != MN_NONE; row = mn_part_find_next(part, &find)) {
            if (mn_part_born(part, row) >= purge->seq)
                continue;
            marked++;
            if (to)
                to[row] = MN_MAP_DROPPED;
        }
    }
    return marked;
}

/* ---- quarantine ---- */

struct quarantine {
    const struct mn_compact_purges *purges;
    const struct mn_store *store;
    uint64_t *files;
};

/* What stands behind `"key":`, or NULL. Notes (engine/quarantine.h) are one object of plain members. */
static const char *member(const char *json, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *at = strstr(json, quoted);
    if (!at)
        return NULL;
    at += strlen(quoted);
    at += strspn(at, " \t\r\n");
    if (*at != ':')
        return NULL;
    at++;
    return at + strspn(at, " \t\r\n");
}

/* Reads a JSON string at `at` into `text` (`size` bytes). Returns what follows it, or NULL when it is longer or has
 * escapes in it, which ids and file names never do. */
static const char *string_at(const char *at, char *text, size_t size)
{
    if (*at++ != '"')
        return NULL;
    size_t length = strcspn(at, "\"\\");
    if (at[length] != '"' || length >= size)
        return NULL;
    memcpy(text, at, length);
    text[length] = 0;
    return at + length + 1;
}

/* Ids are noted as the hash of their space's name, 16 digits of hex, a slash, and the id. */
static bool same_id(const struct mn_compact_purge *purge, const char *text)
{
    char id[MN_ID_TEXT_MAX], want[MN_ID_TEXT_MAX + 32];
    mn_id_text(&purge->id, id);
    snprintf(want, sizeof want, "%016llx/%s", (unsigned long long)mn_str_hash(purge->space), id);
    return strcmp(want, text) == 0;
}

/* True when the note names a purged id, or names none and its seqs may hold one. A note that cannot be read may hold
 * anything. */
static bool covered(const struct quarantine *q, const char *json)
{
    const char *first = member(json, "first_seq"), *ids = member(json, "ids");
    uint64_t first_seq = first ? strtoull(first, NULL, 10) : 0, newest = 0;
    for (uint32_t i = 0; i < q->purges->count; i++)
        newest = q->purges->list[i].seq > newest ? q->purges->list[i].seq : newest;
    if (first_seq >= newest)
        return false;
    if (!ids || *ids != '[')
        return true;
    ids++;
    ids += strspn(ids, " \t\r\n");
    if (*ids == ']')
        return true;
    while (*ids != ']') {
        char text[MN_ID_TEXT_MAX + 32];
        ids = string_at(ids, text, sizeof text);
        if (!ids)
            return true;
        for (uint32_t i = 0; i < q->purges->count; i++)
            if (first_seq < q->purges->list[i].seq && same_id(&q->purges->list[i], text))
                return true;
        ids += strspn(ids, " \t\r\n,");
    }
    return false;
}

static enum mn_status remove_if_there(const struct mn_store *store, const char *path, uint64_t *files)
{
    enum mn_status status = store->io->unlink(path);
    if (status == MN_NOT_FOUND)
        return MN_OK;
    *files += status == MN_OK;
    return status;
}

/* A note on a column segment, which stays where it is (and is among the inputs when a purge covers it). */
static bool about_columns(const char *json)
{
    char name[512];
    const char *file = member(json, "file");
    return file && string_at(file, name, sizeof name) && strncmp(name, "columns/", 8) == 0;
}

/* The piece goes first: a note without its piece says no wrong, a piece without its note would be forgotten. */
static enum mn_status remove_piece(const struct quarantine *q, const char *note_path)
{
    char piece[MN_PATH_MAX];
    snprintf(piece, sizeof piece, "%.*s.bin", (int)strlen(note_path) - 5, note_path);
    MN_TRY(remove_if_there(q->store, piece, q->files));
    snprintf(piece, sizeof piece, "%.*s.wal", (int)strlen(note_path) - 5, note_path);
    MN_TRY(remove_if_there(q->store, piece, q->files));
    MN_FAULT_POINT(purge_piece_removed);
    return remove_if_there(q->store, note_path, q->files);
}

static enum mn_status look_at_note(void *context, const char *name)
{
    const struct quarantine *q = context;
    size_t length = strlen(name), bytes;
    char path[MN_PATH_MAX], note[600];
    void *json;
    if (length < 5 || length > 500 || strcmp(name + length - 5, ".json") != 0)
        return MN_OK;
    snprintf(note, sizeof note, "quarantine/%s", name);
    mn_store_path(q->store, path, note);
    MN_TRY(mn_io_slurp(q->store->io, path, NOTE_BYTES_MAX, &json, &bytes));
    enum mn_status status = !about_columns(json) && covered(q, json) ? remove_piece(q, path) : MN_OK;
    free(json);
    return status;
}

enum mn_status mn_compact_purges_quarantine(const struct mn_compact_purges *purges, const struct mn_store *store,
                                            uint64_t *files)
{
    struct quarantine q = {purges, store, files};
    uint64_t before = *files;
    char dir[MN_PATH_MAX];
    if (purges->count == 0)
        return MN_OK;
    enum mn_status status = store->io->list(mn_store_path(store, dir, "quarantine"), look_at_note, &q);
    if (status == MN_NOT_FOUND)
        return MN_OK;
    MN_TRY(status);
    return *files > before ? store->io->sync_dir(dir) : MN_OK;
}
