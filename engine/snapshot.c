/*
 * snapshot.c - a consistent copy of a running store.
 *
 * A pinned view keeps its files; the manifest that goes with it says which. Column files, the ledger and full log
 * segments are immutable, so they are copied as they are. The log segment that is being written is cut behind the last
 * batch that was durable at the pin and filled up with zeros: exactly what recovery would find had the writer stopped
 * there.
 *
 * The copy has the uuid of its origin: checksums are seeded with it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/compact_inside.h"
#include "engine/snapshot_inside.h"

#define COPY_BYTES  (1u << 20)
#define AGREE_TRIES 2000
#define AGREE_NS    5000000

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

static enum mn_status copy_cut(struct mn_copying *c, uint64_t number)
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
    mn_snapshot_advance(c, segment.bytes);
out:
    mn_wal_unmap(&segment);
    return status;
}

/* True when the segment is full, and all in it was visible at the pin. */
static bool whole(const struct mn_copying *c, uint64_t number)
{
    const struct mn_part *part = mn_compact_part(&c->snapshot, true, number);
    return !part || (mn_compact_sealed(part) &&
                     atomic_load_explicit(&part->chunk->last_seq, memory_order_acquire) <= c->snapshot.seq);
}

/* The log segments from wal_first to the newest that the view lists; a later one holds nothing that was visible at the
 * pin. */
static enum mn_status copy_log(struct mn_copying *c)
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
        MN_TRY_OUT(whole(c, numbers[l]) ? mn_snapshot_copy_file(c, name) : copy_cut(c, numbers[l]));
    }
out:
    free(numbers);
    return status;
}

/* ---- making ---- */

struct segment_copying {
    struct mn_copying *copying;
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
    return mn_snapshot_copy_file(s->copying, path);
}

static enum mn_status copy_segment(struct mn_copying *c, const struct mn_manifest_segment *segment)
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
    struct mn_copying *c = context;
    unsigned long long codebook;
    char path[128], expected[64];
    if (sscanf(name, "%llu.col", &codebook) != 1)
        return MN_OK;
    snprintf(expected, sizeof expected, "%llu.col", codebook);
    if (strcmp(name, expected) != 0 || !names_codebook(&c->manifest, codebook))
        return MN_OK;
    snprintf(path, sizeof path, "codebooks/%s", name);
    return mn_snapshot_copy_file(c, path);
}

static enum mn_status copy_codebooks(struct mn_copying *c)
{
    char from[MN_PATH_MAX];
    enum mn_status status = c->store->io->list(mn_store_path(c->store, from, "codebooks"), copy_codebook, c);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

static void measure(struct mn_copying *c)
{
    for (uint32_t s = 0; s < c->manifest.segment_count; s++)
        c->total += c->manifest.segments[s].bytes;
    for (uint32_t p = 0; p < c->snapshot.part_count; p++)
        c->total += c->snapshot.parts[p].tail ? c->snapshot.parts[p].wal_bytes : 0;
}

static enum mn_status copy_pinned(struct mn_copying *c)
{
    measure(c);
    MN_TRY(mn_snapshot_make_folders(&c->copy));
    MN_TRY(copy_log(c));
    MN_TRY(mn_wal_mark_write(&c->copy, c->snapshot.seq));
    MN_FAULT_POINT(snapshot_mid_copy);
    for (uint32_t s = 0; s < c->manifest.segment_count; s++)
        MN_TRY(copy_segment(c, &c->manifest.segments[s]));
    MN_TRY(copy_codebooks(c));
    MN_TRY(mn_snapshot_copy_ledger(c));
    return mn_snapshot_write_small_files(c);
}

/* Pins a view whose manifest is the newest one; between the two a publication may pass. */
static enum mn_status pin(struct mn_copying *c, struct mn_reader *reader, struct mn_instance *instance)
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
static enum mn_status make_copy(struct mn_copying *c, struct mn_reader *reader, const char *path)
{
    c->result->seq = c->snapshot.seq;
    MN_TRY(copy_pinned(c));
    mn_reader_unpin(reader);
    MN_TRY(mn_snapshot_check_copy(c, 0, c->result));
    return mn_snapshot_give_name(&c->copy, path);
}

enum mn_status mn_snapshot_make(const struct mn_store *store, struct mn_instance *instance, const char *path,
                                void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                                struct mn_copy_result *result)
{
    struct mn_copying c = {.store = store, .progress = progress, .context = context, .result = result};
    struct mn_reader *reader = NULL;
    bool empty;
    *result = (struct mn_copy_result){0};
    MN_TRY(mn_snapshot_name_copy(&c, path, &empty));
    if (empty)
        return MN_FAIL(MN_EXISTS, "%s exists already", path);
    MN_TRY(mn_reader_open(&reader, store, instance));
    enum mn_status status = pin(&c, reader, instance);
    if (status == MN_OK) {
        status = make_copy(&c, reader, path);
        if (status != MN_OK)
            mn_snapshot_give_up(&c.copy, status);
    }
    mn_reader_unpin(reader);
    mn_reader_close(reader);
    mn_manifest_free(&c.manifest);
    return status;
}
