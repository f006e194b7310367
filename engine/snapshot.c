/*
 * snapshot.c - a consistent copy of a running store, and putting one back.
 *
 * A pinned view keeps its files; the manifest that goes with it says which. Column files, the ledger and full log
 * segments are immutable, so they are copied as they are. The log segment that is being written is cut behind the last
 * batch that was durable at the pin and filled up with zeros: exactly what recovery would find had the writer stopped
 * there.
 *
 * The copy has the uuid of its origin: checksums are seeded with it.
 */
#include "engine/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/compact_inside.h"
#include "engine/fault.h"
#include "engine/verify.h"

#define COPY_BYTES  (1u << 20)
#define TEMPORARY   ".mneme-copy" /* behind the path of a copy until it is whole */
#define AGREE_TRIES 2000
#define AGREE_NS    5000000

struct copying {
    const struct mn_store *store; /* copied from */
    struct mn_store copy;         /* copied to: under a temporary name */
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
    struct mn_copy_result *result;
    struct mn_manifest manifest;
    struct mn_snapshot snapshot;
    uint64_t done, total;
};

/* ---- what both directions do ---- */

static enum mn_status make_folders(const struct mn_store *copy)
{
    static const char *const folders[] = {"wal", "columns", "codebooks", "quarantine", "run"};
    char path[MN_PATH_MAX];
    MN_TRY(mn_io_remove_tree(copy->io, copy->dir)); /* of an attempt that died */
    MN_TRY(copy->io->mkdir(copy->dir));
    for (size_t f = 0; f < MN_ARRAY_LEN(folders); f++)
        MN_TRY(copy->io->mkdir(mn_store_path(copy, path, folders[f])));
    return MN_OK;
}

static void advance(struct copying *c, uint64_t bytes)
{
    c->result->files++;
    c->result->bytes += bytes;
    c->done += bytes;
    if (c->done > c->total)
        c->total = c->done;
    if (c->progress)
        c->progress(c->context, c->done, c->total);
}

/* Copies a file of the store, `name` relative to its folder. */
static enum mn_status copy_file(struct copying *c, const char *name)
{
    char from[MN_PATH_MAX], to[MN_PATH_MAX];
    uint64_t bytes = 0;
    mn_store_path(c->store, from, name);
    mn_store_path(&c->copy, to, name);
    MN_TRY(c->store->io->copy(from, to, &bytes));
    advance(c, bytes);
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

/* The copy gets its name last: whatever has that name is whole. */
static enum mn_status give_name(const struct mn_store *copy, const char *path)
{
    MN_TRY(sync_folders(copy));
    MN_FAULT_POINT(snapshot_before_rename);
    MN_TRY(copy->io->rename(copy->dir, path));
    MN_FAULT_POINT(snapshot_renamed);
    return mn_io_sync_name(copy->io, path);
}

/* Removes a copy that failed; the sentence about why stays. */
static void give_up(const struct mn_store *copy, enum mn_status status)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", mn_error_text());
    if (mn_io_remove_tree(copy->io, copy->dir) != MN_OK || strcmp(text, mn_error_text()) != 0)
        mn_error_set(status, __FILE__, __LINE__, "%s", text);
}

static enum mn_status note_entry(void *context, const char *name)
{
    (void)name;
    *(bool *)context = true;
    return MN_OK;
}

/* MN_EXISTS when there is a file, or a folder that holds something, at `path`. *empty: an empty folder is there. */
static enum mn_status check_free(const struct mn_io *io, const char *path, bool *empty)
{
    bool holds = false;
    int fd;
    enum mn_status status = io->open(path, MN_IO_READ, &fd);
    *empty = false;
    if (status == MN_NOT_FOUND)
        return MN_OK;
    MN_TRY(status);
    io->close(fd);
    status = io->list(path, note_entry, &holds);
    *empty = status == MN_OK && !holds;
    return *empty ? MN_OK : MN_FAIL(MN_EXISTS, "%s exists already", path);
}

static enum mn_status name_copy(struct copying *c, const char *path)
{
    c->copy = *c->store;
    if ((size_t)snprintf(c->copy.dir, sizeof c->copy.dir, "%s" TEMPORARY, path) >= sizeof c->copy.dir)
        return MN_FAIL(MN_BAD_REQUEST, "the path of the copy has more than %zu bytes",
                       sizeof c->copy.dir - sizeof TEMPORARY);
    return MN_OK;
}

/* ---- the log that is being written ---- */

struct cut {
    uint64_t seq;
    uint64_t offset; /* of the first batch above it; UINT64_MAX = none seen */
};

/* Batches begin at blocks, and their first record lies in the first block. */
static enum mn_status find_cut(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                               uint64_t offset)
{
    struct cut *cut = context;
    (void)segment;
    if (record->seq > cut->seq && cut->offset == UINT64_MAX)
        cut->offset = offset / MN_WAL_BLOCK * MN_WAL_BLOCK;
    return MN_OK;
}

static enum mn_status write_cut(const struct mn_wal_segment *from, const char *path, uint64_t end)
{
    const struct mn_io *io = from->store->io;
    uint64_t last = from->bytes - MN_WAL_BLOCK;
    int fd;
    MN_TRY(io->open(path, MN_IO_WRITE | MN_IO_CREATE, &fd));
    enum mn_status status = MN_OK;
    MN_TRY_OUT(io->reserve(fd, from->bytes));
    for (uint64_t at = 0; at < end; at += COPY_BYTES)
        MN_TRY_OUT(io->write(fd, from->base + at, end - at < COPY_BYTES ? end - at : COPY_BYTES, at));
    MN_TRY_OUT(io->write(fd, from->base + last, MN_WAL_BLOCK, last)); /* the second copy of its header */
    MN_TRY_OUT(io->datasync(fd));
out:
    io->close(fd);
    return status;
}

static enum mn_status copy_cut(struct copying *c, uint64_t number)
{
    struct mn_wal_segment segment;
    struct mn_wal_extent extent = {0};
    struct cut cut = {c->snapshot.seq, UINT64_MAX};
    struct mn_wal_visitor visitor = {.context = &cut, .record = find_cut};
    char path[MN_PATH_MAX];
    enum mn_status status = mn_wal_map(&segment, c->store, number);
    MN_TRY_OUT(status);
    MN_TRY_OUT(mn_wal_scan(&segment, &visitor, &extent));
    uint64_t end = cut.offset < extent.end ? cut.offset : extent.end;
    if (segment.unused)
        end = 0;
    MN_TRY_OUT(write_cut(&segment, mn_store_wal_path(&c->copy, path, number), end));
    advance(c, segment.bytes);
out:
    mn_wal_unmap(&segment);
    return status;
}

/* True when the segment is full, and all in it was visible at the pin. */
static bool whole(const struct copying *c, uint64_t number)
{
    const struct mn_part *part = mn_compact_part(&c->snapshot, true, number);
    return !part || (mn_compact_sealed(part) &&
                     atomic_load_explicit(&part->chunk->last_seq, memory_order_acquire) <= c->snapshot.seq);
}

/* The log segments from wal_first to the newest that the view lists; a later one holds nothing that was visible at the
 * pin. */
static enum mn_status copy_log(struct copying *c)
{
    uint64_t *numbers = NULL, newest = 0;
    uint32_t count = 0;
    char name[64];
    for (uint32_t p = 0; p < c->snapshot.part_count; p++)
        if (c->snapshot.parts[p].tail && c->snapshot.parts[p].number > newest)
            newest = c->snapshot.parts[p].number;
    enum mn_status status = MN_OK;
    MN_TRY_OUT(mn_wal_list(c->store, &numbers, &count));
    for (uint32_t l = 0; l < count; l++) {
        if (numbers[l] < c->manifest.wal_first || numbers[l] > newest)
            continue;
        snprintf(name, sizeof name, "wal/%08llu.wal", (unsigned long long)numbers[l]);
        MN_TRY_OUT(whole(c, numbers[l]) ? copy_file(c, name) : copy_cut(c, numbers[l]));
    }
out:
    free(numbers);
    return status;
}

/* ---- the check ---- */

struct survey {
    const struct copying *copying;
    size_t skip;          /* of the path of the folder that is looked at */
    uint64_t passes;      /* over the bytes, this one and those to come: for progress, 0 = none is told */
    mn_damage_fn damaged; /* told of each piece that counts; may be NULL */
    bool written_anew;    /* what of a snapshot is written anew, not copied, does not count */
    struct mn_copy_result *result;
};

/* What no copy is made of: it is written anew. Kept twice: where neither is whole, opening the snapshot or reading its
 * manifest has failed. */
#define ANEW (MN_STORE_COPIES + MN_MANIFEST_COPIES)

static const char *anew(uint32_t n)
{
    return n < MN_STORE_COPIES ? mn_store_names[n] : mn_manifest_names[n - MN_STORE_COPIES];
}

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
    const struct survey *survey = context;
    struct mn_copy_result *result = survey->result;
    const char *name = strlen(path) > survey->skip ? path + survey->skip : path;
    if (strstr(name, "/ivf.") || strncmp(name, "codebooks/", 10) == 0 || (survey->written_anew && written_anew(name)))
        return;
    if (result->damaged++ == 0)
        snprintf(result->damage, sizeof result->damage, "%s: %s", name, what);
    if (survey->damaged)
        survey->damaged(survey->copying->context, path, what);
}

static void note_progress(void *context, uint64_t done, uint64_t total)
{
    const struct survey *survey = context;
    const struct copying *c = survey->copying;
    if (c->progress && survey->passes > 0)
        c->progress(c->context, c->done + done, c->done + survey->passes * total);
}

/* Every checksum of the copy, before it gets its name. */
static enum mn_status check_copy(const struct copying *c, uint64_t passes, struct mn_copy_result *result)
{
    struct survey survey = {.copying = c, .skip = strlen(c->copy.dir) + 1, .passes = passes, .result = result};
    struct mn_verify_result found;
    return mn_verify(&c->copy, UINT64_MAX, note_damage, note_progress, &survey, &found);
}

/* ---- making ---- */

struct segment_copying {
    struct copying *copying;
    const struct mn_manifest_segment *segment;
};

static enum mn_status copy_column(void *context, const char *name)
{
    struct segment_copying *s = context;
    unsigned long long seq, codebook;
    char path[128];
    size_t length = strlen(name);
    if (length < 4 || length > 64 || strcmp(name + length - 4, ".col") != 0)
        return MN_OK; /* a died.<seq>.col in the making */
    if (sscanf(name, "died.%llu.col", &seq) == 1 && seq != s->segment->died_seq)
        return MN_OK;
    if (sscanf(name, "ivf.%llu.col", &codebook) == 1 && codebook != s->segment->codebook)
        return MN_OK; /* on an older codebook, or not published yet */
    snprintf(path, sizeof path, "columns/%llu/%s", (unsigned long long)s->segment->id, name);
    return copy_file(s->copying, path);
}

static enum mn_status copy_segment(struct copying *c, const struct mn_manifest_segment *segment)
{
    struct segment_copying s = {c, segment};
    char from[MN_PATH_MAX], to[MN_PATH_MAX];
    mn_store_columns_dir(&c->copy, to, segment->id);
    MN_TRY(c->copy.io->mkdir(to));
    enum mn_status status = c->store->io->list(mn_store_columns_dir(c->store, from, segment->id), copy_column, &s);
    if (status != MN_NOT_FOUND) /* the check finds what is missing */
        MN_TRY(status);
    return c->copy.io->sync_dir(to);
}

static bool names_codebook(const struct mn_manifest *manifest, uint64_t codebook)
{
    bool named = manifest->codebook == codebook;
    for (uint32_t s = 0; s < manifest->segment_count && !named; s++)
        named = manifest->segments[s].codebook == codebook;
    return named;
}

static enum mn_status copy_codebook(void *context, const char *name)
{
    struct copying *c = context;
    unsigned long long codebook;
    char path[128], expected[64];
    if (sscanf(name, "%llu.col", &codebook) != 1)
        return MN_OK;
    snprintf(expected, sizeof expected, "%llu.col", codebook);
    if (strcmp(name, expected) != 0 || !names_codebook(&c->manifest, codebook))
        return MN_OK;
    snprintf(path, sizeof path, "codebooks/%s", name);
    return copy_file(c, path);
}

static enum mn_status copy_codebooks(struct copying *c)
{
    char from[MN_PATH_MAX];
    enum mn_status status = c->store->io->list(mn_store_path(c->store, from, "codebooks"), copy_codebook, c);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

/* A manifest of one edit. */
static enum mn_status write_manifest(struct copying *c)
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

static enum mn_status write_small_files(struct copying *c)
{
    char path[MN_PATH_MAX];
    MN_TRY(mn_store_write(&c->copy));
    MN_TRY(write_manifest(c));
    for (uint32_t n = 0; n < ANEW; n++) {
        uint64_t bytes = mn_io_file_bytes(c->copy.io, mn_store_path(&c->copy, path, anew(n)));
        if (bytes > 0)
            advance(c, bytes);
    }
    return MN_OK;
}

static void measure(struct copying *c)
{
    for (uint32_t s = 0; s < c->manifest.segment_count; s++)
        c->total += c->manifest.segments[s].bytes;
    for (uint32_t p = 0; p < c->snapshot.part_count; p++)
        c->total += c->snapshot.parts[p].tail ? c->snapshot.parts[p].wal_bytes : 0;
}

static enum mn_status copy_pinned(struct copying *c)
{
    char name[64];
    measure(c);
    MN_TRY(make_folders(&c->copy));
    MN_TRY(copy_log(c));
    MN_TRY(mn_wal_mark_write(&c->copy, c->snapshot.seq));
    MN_FAULT_POINT(snapshot_mid_copy);
    for (uint32_t s = 0; s < c->manifest.segment_count; s++)
        MN_TRY(copy_segment(c, &c->manifest.segments[s]));
    MN_TRY(copy_codebooks(c));
    if (c->manifest.ledger_seq != 0) {
        snprintf(name, sizeof name, "ledger.%llu", (unsigned long long)c->manifest.ledger_seq);
        MN_TRY(copy_file(c, name));
    }
    return write_small_files(c);
}

/* Pins a view whose manifest is the newest one; between the two a publication may pass. */
static enum mn_status pin(struct copying *c, struct mn_reader *reader, struct mn_instance *instance)
{
    bool agree = false;
    for (int tries = 0; tries < AGREE_TRIES; tries++) {
        MN_TRY(mn_compact_pin(reader, c->store, instance, &c->manifest, &c->snapshot, &agree));
        if (agree)
            return MN_OK;
        nanosleep(&(struct timespec){.tv_nsec = AGREE_NS}, NULL);
    }
    return MN_FAIL(MN_BUSY, "the store publishes too much for a snapshot: try again");
}

/* Copies and checks; the store is let go of before the copy is checked. */
static enum mn_status make_copy(struct copying *c, struct mn_reader *reader, const char *path)
{
    c->result->seq = c->snapshot.seq;
    MN_TRY(copy_pinned(c));
    mn_reader_unpin(reader);
    MN_TRY(check_copy(c, 0, c->result));
    return give_name(&c->copy, path);
}

enum mn_status mn_snapshot_make(const struct mn_store *store, struct mn_instance *instance, const char *path,
                                void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                                struct mn_copy_result *result)
{
    struct copying c = {.store = store, .progress = progress, .context = context, .result = result};
    struct mn_reader *reader = NULL;
    bool empty;
    *result = (struct mn_copy_result){0};
    MN_TRY(name_copy(&c, path));
    MN_TRY(check_free(store->io, path, &empty));
    if (empty)
        return MN_FAIL(MN_EXISTS, "%s exists already", path);
    MN_TRY(mn_reader_open(&reader, store, instance));
    enum mn_status status = pin(&c, reader, instance);
    if (status == MN_OK) {
        status = make_copy(&c, reader, path);
        if (status != MN_OK)
            give_up(&c.copy, status);
    }
    mn_reader_unpin(reader);
    mn_reader_close(reader);
    mn_manifest_free(&c.manifest);
    return status;
}

/* ---- restoring ---- */

struct tree_copying {
    struct copying *copying;
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
        return copy_file(tree->copying, path);
    struct tree_copying inner = {tree->copying, path, false};
    MN_TRY(tree->copying->copy.io->mkdir(mn_store_path(&tree->copying->copy, to, path)));
    MN_TRY(tree->copying->store->io->list(mn_store_path(tree->copying->store, from, path), copy_entry, &inner));
    return tree->copying->copy.io->sync_dir(to);
}

static enum mn_status copy_folder(struct copying *c, const char *folder, bool folders)
{
    struct tree_copying tree = {c, folder, folders};
    char from[MN_PATH_MAX];
    enum mn_status status = c->store->io->list(mn_store_path(c->store, from, folder), copy_entry, &tree);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

static enum mn_status copy_store(struct copying *c)
{
    char name[64];
    MN_TRY(make_folders(&c->copy));
    MN_TRY(write_small_files(c));
    if (c->manifest.ledger_seq != 0) {
        snprintf(name, sizeof name, "ledger.%llu", (unsigned long long)c->manifest.ledger_seq);
        MN_TRY(copy_file(c, name));
    }
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
static enum mn_status newest_seq(struct copying *c, uint64_t *seq)
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
static enum mn_status check_manifest(const struct copying *c)
{
    uint64_t *numbers = NULL;
    uint32_t count = 0;
    char path[MN_PATH_MAX];
    bool compacted = false;
    if (c->manifest.edit > 0)
        return MN_OK;
    MN_TRY(mn_wal_list(c->store, &numbers, &count));
    bool from_the_first = count > 0 && numbers[0] == 1;
    free(numbers);
    if (from_the_first)
        return MN_OK;
    enum mn_status status = c->store->io->list(mn_store_path(c->store, path, "columns"), note_entry, &compacted);
    if (status != MN_NOT_FOUND)
        MN_TRY(status);
    if (!compacted)
        return MN_OK;
    return MN_FAIL(MN_CORRUPT, "%s/MANIFEST is missing, and so is its copy: nothing tells which files are the store",
                   c->store->dir);
}

/* Reading the snapshot, writing the copy and reading that are of one length: done and total speak of all three. */
static enum mn_status check_snapshot(struct copying *c, const struct mn_restore *restore)
{
    struct survey survey = {.copying = c,
                            .skip = strlen(c->store->dir) + 1,
                            .damaged = restore->damaged,
                            .written_anew = true,
                            .passes = 3,
                            .result = c->result};
    struct mn_verify_result found;
    MN_TRY(mn_verify(c->store, UINT64_MAX, note_damage, note_progress, &survey, &found));
    c->done = found.bytes;
    c->total = 3 * found.bytes;
    if (c->result->damaged > 0 && !restore->damaged_too)
        return MN_FAIL(MN_CORRUPT, "the snapshot %s is damaged in %llu places, the first: %s", c->store->dir,
                       (unsigned long long)c->result->damaged, c->result->damage);
    return MN_OK;
}

/* An empty folder at `dir` gives way to the copy, by the rename; one that is not empty any more does not. */
static enum mn_status restore_checked(struct copying *c, const char *dir)
{
    struct mn_copy_result copy = {0};
    MN_TRY(copy_store(c));
    MN_TRY(check_copy(c, 1, &copy));
    if (copy.damaged > c->result->damaged)
        return MN_FAIL(MN_CORRUPT,
                       "the copy is damaged where the snapshot %s is not, so its disk is to be doubted; the first: %s",
                       c->store->dir, copy.damage);
    MN_TRY(newest_seq(c, &c->result->seq));
    return give_name(&c->copy, dir);
}

enum mn_status mn_snapshot_restore(const struct mn_restore *restore, struct mn_copy_result *result)
{
    struct copying c = {.progress = restore->progress, .context = restore->context, .result = result};
    struct mn_store store;
    bool empty;
    *result = (struct mn_copy_result){0};
    MN_TRY(mn_store_open(&store, restore->io, restore->snapshot));
    c.store = &store;
    MN_TRY(name_copy(&c, restore->dir));
    MN_TRY(check_free(restore->io, restore->dir, &empty));
    MN_TRY(mn_manifest_read(&c.manifest, &store, NULL));
    enum mn_status status = check_manifest(&c);
    if (status == MN_OK)
        status = check_snapshot(&c, restore);
    if (status == MN_OK) {
        status = restore_checked(&c, restore->dir);
        if (status != MN_OK)
            give_up(&c.copy, status);
    }
    mn_manifest_free(&c.manifest);
    return status;
}
