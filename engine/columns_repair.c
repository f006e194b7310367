/*
 * columns_repair.c - the walk of the scrubber, and files written anew.
 */
#include "engine/columns_repair.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/columns_derive.h"
#include "engine/columns_inside.h"
#include "engine/columns_parity.h"
#include "engine/crc.h"
#include "engine/fault.h"
#include "engine/ivf_file.h"

#define PAUSE_BLOCKS 256u /* between two looks at whether to stop */

/* ---- the files of a segment ---- */

/* Files are walked in this order: columns, parity, later liveness, inverted file. */
enum { FILE_PARITY = MN_COLUMN_COUNT, FILE_DIED, FILE_DIED_COPY, FILE_IVF, FILES };

struct file {
    enum mn_column column;
    char path[MN_PATH_MAX];
};

/* False when the segment has no such file. */
static bool file_of(const struct mn_store *store, const struct mn_manifest_segment *segment, uint32_t number,
                    struct file *file)
{
    char name[64];
    switch (number) {
    case FILE_PARITY:
        file->column = MN_COLUMN_PARITY;
        break;
    case FILE_DIED:
    case FILE_DIED_COPY:
        file->column = MN_COLUMN_DIED;
        snprintf(name, sizeof name, "%s%llu", number == FILE_DIED ? "died." : MN_DIED_COPY,
                 (unsigned long long)segment->died_seq);
        mn_store_column_path(store, file->path, segment->id, name);
        return segment->died_seq != 0;
    case FILE_IVF:
        file->column = MN_COLUMN_IVF;
        mn_ivf_path(store, file->path, segment->id, segment->codebook);
        return segment->codebook != 0;
    default:
        file->column = (enum mn_column)number;
    }
    mn_store_column_path(store, file->path, segment->id, mn_column_info[file->column].name);
    return true;
}

/* ---- looking ---- */

struct look {
    struct mn_columns_scrub *scrub;
    const struct mn_store *store;
    const struct file *file;
    uint64_t left;
    uint64_t *read;
    mn_damage_fn damaged;
    void *context;
};

static void tell(const struct look *l, const char *what)
{
    l->damaged(l->context, l->file->path, what);
    l->scrub->damage += l->file->column != MN_COLUMN_IVF;
}

/* A block as it comes from the disk now. */
static bool block_holds(const struct look *l, const struct mn_column_file *file, int fd, uint64_t block,
                        uint8_t *buffer)
{
    uint64_t stored = mn_round_up(file->data_bytes, 64), at = block * MN_COLUMN_BLOCK;
    uint64_t bytes = stored - at < MN_COLUMN_BLOCK ? stored - at : MN_COLUMN_BLOCK;
    if (l->store->io->uncache)
        l->store->io->uncache(fd, sizeof *file->header + at, bytes);
    return l->store->io->read(fd, buffer, bytes, sizeof *file->header + at) == MN_OK &&
           mn_crc32c(mn_column_block_seed(file->seed, block), buffer, bytes) == file->checksums[block];
}

static void look_at_blocks(struct look *l, const struct mn_column_file *file, int fd)
{
    uint8_t buffer[MN_COLUMN_BLOCK];
    char what[96];
    for (; l->scrub->block < file->blocks && l->left > 0; l->scrub->block++) {
        if (!block_holds(l, file, fd, l->scrub->block, buffer)) {
            snprintf(what, sizeof what, "block %llu of %llu does not match its checksum",
                     (unsigned long long)l->scrub->block, (unsigned long long)file->blocks);
            tell(l, what);
        }
        l->left -= l->left < sizeof buffer ? l->left : sizeof buffer;
        *l->read += sizeof buffer;
    }
    if (l->store->io->uncache) /* nor does the walk push out what others need */
        l->store->io->uncache(fd, 0, file->file_bytes);
}

/* The rest of a file, or as much of it as there is time for; true at its end. */
static enum mn_status look_at_file(struct look *l, bool *end)
{
    struct mn_column_file file;
    int fd;
    *end = true;
    enum mn_status status = mn_column_file_map(&file, l->store, l->scrub->segment, l->file->column, l->file->path);
    if (status == MN_CORRUPT || status == MN_NOT_FOUND) {
        tell(l, status == MN_NOT_FOUND ? "the file is missing" : mn_error_text());
        return MN_OK;
    }
    MN_TRY(status);
    status = l->store->io->open(l->file->path, MN_IO_READ, &fd);
    if (status == MN_OK) {
        look_at_blocks(l, &file, fd);
        *end = l->scrub->block >= file.blocks;
        l->store->io->close(fd);
    }
    mn_column_file_unmap(&file);
    return status;
}

enum mn_status mn_columns_scrub(struct mn_columns_scrub *scrub, const struct mn_store *store,
                                const struct mn_manifest_segment *segment, uint64_t bytes, uint64_t *read,
                                mn_damage_fn damaged, void *context, bool *done)
{
    struct file file;
    struct look l = {scrub, store, &file, bytes, read, damaged, context};
    while (scrub->file < FILES && l.left > 0) {
        bool end = true;
        if (file_of(store, segment, scrub->file, &file))
            MN_TRY(look_at_file(&l, &end));
        if (end) {
            scrub->file++;
            scrub->block = 0;
            l.left -= l.left < 4096 ? l.left : 4096; /* a file is work, however short */
        }
    }
    *done = scrub->file == FILES;
    return MN_OK;
}

/* ---- mending ---- */

struct repair {
    const struct mn_store *store;
    const struct mn_manifest_segment *segment;
    bool (*pause)(void *context);
    void *context;
    struct mn_columns_mended *mended;
    struct mn_columns_parity parity; /* parity.headers NULL: there is none */
    bool bad[MN_COLUMN_COUNT];
    char made[MN_PATH_MAX]; /* the temporary name at hand */
};

static enum mn_status breathe(const struct repair *r)
{
    return r->pause && r->pause(r->context) ? MN_FAIL(MN_DEADLINE, "the repair was told to stop") : MN_OK;
}

static enum mn_status begin_file(struct repair *r, const char *path)
{
    snprintf(r->made, sizeof r->made, "%.*s.tmp", MN_PATH_MAX - 8, path);
    enum mn_status status = r->store->io->unlink(r->made);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

/* What was written and synced under the temporary name takes the place of the damaged file. */
static enum mn_status put_in_place(struct repair *r, const char *path)
{
    char dir[MN_PATH_MAX];
    MN_FAULT_POINT(repair_written);
    MN_TRY(r->store->io->rename(r->made, path));
    MN_FAULT_POINT(repair_renamed);
    MN_TRY(r->store->io->sync_dir(mn_store_columns_dir(r->store, dir, r->segment->id)));
    r->mended->files++;
    return MN_OK;
}

static enum mn_status write_blocks(const struct repair *r, enum mn_column column, int fd)
{
    const struct mn_column_header *header = &r->parity.headers[column];
    const uint32_t *checksums = mn_columns_parity_checksums(&r->parity, column);
    uint64_t at = sizeof *header, blocks = mn_columns_parity_blocks(&r->parity, column);
    uint8_t buffer[MN_COLUMN_BLOCK];
    for (uint64_t block = 0; block < blocks; block++) {
        uint32_t bytes = 0;
        if (block % PAUSE_BLOCKS == PAUSE_BLOCKS - 1)
            MN_TRY(breathe(r));
        MN_TRY(mn_columns_parity_block(&r->parity, column, block, buffer, &bytes, NULL));
        MN_TRY(r->store->io->write(fd, buffer, bytes, at));
        at += bytes;
    }
    uint32_t table = mn_crc32c(r->parity.raw[column].seed, checksums, blocks * sizeof *checksums);
    if (blocks > 0)
        MN_TRY(r->store->io->write(fd, checksums, blocks * sizeof *checksums, at));
    MN_TRY(r->store->io->write(fd, &table, sizeof table, at + blocks * sizeof *checksums));
    MN_TRY(r->store->io->write(fd, header, sizeof *header, 0));
    return r->store->io->datasync(fd);
}

/* MN_CORRUPT when the parity does not have what it takes. */
static enum mn_status mend_from_parity(struct repair *r, enum mn_column column)
{
    char path[MN_PATH_MAX];
    int fd;
    mn_store_column_path(r->store, path, r->segment->id, mn_column_info[column].name);
    MN_TRY(begin_file(r, path));
    MN_TRY(r->store->io->open(r->made, MN_IO_WRITE | MN_IO_CREATE, &fd));
    enum mn_status status = write_blocks(r, column, fd);
    r->store->io->close(fd);
    MN_TRY(status);
    return put_in_place(r, path);
}

/* ---- what follows from other columns ---- */

struct facts {
    uint64_t *hashes, *tags_start, *meta_start, *counts[2];
    struct mn_column_sink sinks[MN_COLUMN_COUNT];
};

static void free_facts(struct facts *f)
{
    free(f->hashes);
    free(f->tags_start);
    free(f->meta_start);
    free(f->counts[0]);
    free(f->counts[1]);
}

static bool reserve_facts(struct facts *f, const struct mn_columns *c)
{
    f->hashes = calloc(c->rows, sizeof *f->hashes);
    f->tags_start = calloc(c->rows + UINT64_C(1), sizeof *f->tags_start);
    f->meta_start = calloc(c->rows + UINT64_C(1), sizeof *f->meta_start);
    f->counts[0] = calloc(c->strings + UINT64_C(1), sizeof *f->counts[0]);
    f->counts[1] = calloc(c->strings + UINT64_C(1), sizeof *f->counts[1]);
    return f->hashes && f->tags_start && f->meta_start && f->counts[0] && f->counts[1];
}

static enum mn_status gather_facts(struct facts *f, const struct mn_columns *c)
{
    struct mn_part part;
    if (!reserve_facts(f, c))
        return MN_FAIL(MN_SYSTEM, "no memory to make the indexes of %u rows", c->rows);
    mn_columns_part(c, &part);
    memcpy(f->tags_start, mn_columns_starts(&c->files[MN_COLUMN_TAGS]), (c->rows + UINT64_C(1)) * sizeof(uint64_t));
    memcpy(f->meta_start, mn_columns_starts(&c->files[MN_COLUMN_META]), (c->rows + UINT64_C(1)) * sizeof(uint64_t));
    for (uint32_t row = 0; row < c->rows; row++) {
        const uint32_t *tags;
        uint32_t count = mn_columns_tags(c, row, &tags);
        f->hashes[row] = mn_id_hash(mn_str_hash(mn_columns_string(c, part.spaces[row])), &part.ids[row]);
        f->counts[MN_POSTING_SPACE][part.spaces[row]]++;
        for (uint32_t t = 0; t < count; t++)
            f->counts[MN_POSTING_TAG][tags[t]]++;
    }
    return MN_OK;
}

static enum mn_status write_derived(struct repair *r, const struct mn_columns *c, struct facts *f,
                                    enum mn_column column)
{
    struct mn_columns_facts facts = {.store = r->store,
                                     .segment = r->segment->id,
                                     .dir = c->dir,
                                     .rows = c->rows,
                                     .string_count = c->strings,
                                     .hashes = f->hashes,
                                     .tags_start = f->tags_start,
                                     .meta_start = f->meta_start,
                                     .counts = {f->counts[0], f->counts[1]},
                                     .sinks = f->sinks};
    char path[MN_PATH_MAX];
    mn_store_column_path(r->store, path, r->segment->id, mn_column_info[column].name);
    MN_TRY(begin_file(r, path));
    MN_TRY(mn_column_sink_open(&f->sinks[column], r->store, r->segment->id, column, r->made));
    enum mn_status status = column == MN_COLUMN_IDHASH     ? mn_columns_write_idhash(&facts)
                            : column == MN_COLUMN_POSTINGS ? mn_columns_write_postings(&facts)
                                                           : mn_columns_write_meta_index(&facts);
    if (status == MN_OK)
        status = mn_column_sink_sync(&f->sinks[column]);
    mn_column_sink_close(&f->sinks[column]);
    MN_TRY(status);
    return put_in_place(r, path);
}

/* All other columns are whole by now. */
static enum mn_status derive(struct repair *r, enum mn_column column)
{
    struct mn_columns *c;
    struct facts f = {0};
    MN_TRY(mn_columns_open(&c, r->store, r->segment->id, MN_COLUMNS_CHECK));
    enum mn_status status = gather_facts(&f, c);
    if (status == MN_OK)
        status = write_derived(r, c, &f, column);
    free_facts(&f);
    mn_columns_close(c);
    return status;
}

/* ---- all of it ---- */

static bool file_holds(const struct repair *r, enum mn_column column, const char *path)
{
    struct mn_column_file file;
    if (mn_column_file_map(&file, r->store, r->segment->id, column, path) != MN_OK)
        return false;
    bool holds = mn_column_file_check(&file, path) == MN_OK;
    mn_column_file_unmap(&file);
    return holds;
}

static bool column_holds(const struct repair *r, enum mn_column column)
{
    char path[MN_PATH_MAX];
    return file_holds(r, column, mn_store_column_path(r->store, path, r->segment->id, mn_column_info[column].name));
}

static void note_lost(struct repair *r, enum mn_column column)
{
    char dir[MN_PATH_MAX];
    r->mended->lost++;
    snprintf(r->mended->what, sizeof r->mended->what, "%.180s/%s.col cannot be made whole",
             mn_store_columns_dir(r->store, dir, r->segment->id), mn_column_info[column].name);
}

static bool derived(enum mn_column column)
{
    return column == MN_COLUMN_IDHASH || column == MN_COLUMN_POSTINGS || column == MN_COLUMN_METAINDEX;
}

static enum mn_status mend_column(struct repair *r, enum mn_column column)
{
    enum mn_status status = MN_CORRUPT;
    if (r->parity.headers)
        status = mend_from_parity(r, column);
    if (status == MN_CORRUPT && derived(column))
        return MN_OK; /* its turn comes when the others are whole */
    r->bad[column] = status != MN_OK;
    if (status == MN_CORRUPT)
        note_lost(r, column);
    return status == MN_CORRUPT ? MN_OK : status;
}

static enum mn_status mend_columns(struct repair *r)
{
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++) {
        MN_TRY(breathe(r));
        r->bad[column] = !column_holds(r, column);
    }
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++)
        if (r->bad[column])
            MN_TRY(mend_column(r, column));
    for (uint32_t column = 0; column < MN_COLUMN_COUNT; column++) {
        if (!r->bad[column] || !derived(column))
            continue;
        enum mn_status status = r->mended->lost == 0 ? derive(r, column) : MN_CORRUPT;
        r->bad[column] = status != MN_OK;
        if (status == MN_CORRUPT)
            note_lost(r, column);
        else
            MN_TRY(status);
    }
    return MN_OK;
}

/* An index that was made anew need not be what it was, byte for byte: the parity is then of something else. */
static bool parity_fits(const struct repair *r)
{
    struct mn_columns_parity parity;
    bool fits = column_holds(r, MN_COLUMN_PARITY) && mn_columns_parity_open(&parity, r->store, r->segment->id) == MN_OK;
    if (!fits)
        return false;
    for (uint32_t column = 0; column < MN_COLUMN_COUNT && fits; column++) {
        uint64_t bytes = mn_columns_parity_blocks(&parity, column) * sizeof(uint32_t);
        const struct mn_column_header *header = (const void *)parity.raw[column].base;
        fits = header && memcmp(header, &parity.headers[column], sizeof *header) == 0 &&
               memcmp(parity.raw[column].base + sizeof *header + mn_round_up(header->data_bytes, 64),
                      mn_columns_parity_checksums(&parity, column), bytes) == 0;
    }
    mn_columns_parity_close(&parity);
    return fits;
}

static enum mn_status mend_parity(struct repair *r)
{
    char dir[MN_PATH_MAX], path[MN_PATH_MAX];
    uint64_t bytes;
    if (r->mended->lost > 0 || parity_fits(r))
        return MN_OK;
    mn_store_column_path(r->store, path, r->segment->id, mn_column_info[MN_COLUMN_PARITY].name);
    MN_TRY(begin_file(r, path));
    MN_TRY(mn_columns_parity_write(r->store, r->segment->id, mn_store_columns_dir(r->store, dir, r->segment->id),
                                   MN_PARITY_NAME ".tmp", &bytes));
    return put_in_place(r, path);
}

static enum mn_status mend_died(struct repair *r, const _Atomic uint64_t *died)
{
    struct file file, copy;
    bool there = file_of(r->store, r->segment, FILE_DIED, &file);
    file_of(r->store, r->segment, FILE_DIED_COPY, &copy);
    if (!there || (file_holds(r, MN_COLUMN_DIED, file.path) && file_holds(r, MN_COLUMN_DIED, copy.path)))
        return MN_OK;
    if (!died) {
        note_lost(r, MN_COLUMN_DIED);
        return MN_OK;
    }
    MN_TRY(mn_columns_write_died(r->store, r->segment->id, r->segment->died_seq, r->segment->rows, died));
    r->mended->files++;
    return MN_OK;
}

enum mn_status mn_columns_mend(const struct mn_store *store, const struct mn_manifest_segment *segment,
                               const _Atomic uint64_t *died, bool (*pause)(void *context), void *context,
                               struct mn_columns_mended *mended)
{
    struct repair r = {.store = store, .segment = segment, .pause = pause, .context = context, .mended = mended};
    *mended = (struct mn_columns_mended){0};
    if (mn_columns_parity_open(&r.parity, store, segment->id) != MN_OK)
        r.parity.headers = NULL;
    enum mn_status status = mend_columns(&r);
    if (r.parity.headers)
        mn_columns_parity_close(&r.parity);
    if (status == MN_OK)
        status = mend_parity(&r);
    if (status == MN_OK)
        status = mend_died(&r, died);
    if (status != MN_OK && r.made[0]) {
        char text[512];
        snprintf(text, sizeof text, "%s", mn_error_text());
        if (store->io->unlink(r.made) != MN_NOT_FOUND)
            mn_error_set(status, __FILE__, __LINE__, "%s", text);
    }
    return status;
}
