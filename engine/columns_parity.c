/*
 * columns_parity.c - writing parity.col, and making blocks again from it.
 *
 * Files that are to be mended are read as they lie on disk: nothing in them is believed but blocks that match the
 * checksums that parity.col keeps. Every read of a mapping is under a guard.
 */
#include "engine/columns_parity.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/crc.h"
#include "engine/guard.h"

static uint64_t stored_bytes(const struct mn_column_header *header)
{
    return mn_round_up(header->data_bytes, 64);
}

static uint32_t block_bytes(const struct mn_column_header *header, uint64_t block)
{
    uint64_t left = stored_bytes(header) - block * MN_COLUMN_BLOCK;
    return left < MN_COLUMN_BLOCK ? (uint32_t)left : MN_COLUMN_BLOCK;
}

static void add_block(uint8_t *sum, const uint8_t *block, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        sum[i] ^= block[i];
}

/* The column that holds block `number` of the segment. */
static enum mn_column column_of(const uint64_t *first, uint64_t number)
{
    uint32_t column = 0;
    while (number >= first[column + 1])
        column++;
    return column;
}

static uint64_t stripes_for(uint64_t blocks)
{
    return (blocks + MN_PARITY_SHARE - 1) / MN_PARITY_SHARE;
}

static void dir_path(char path[MN_PATH_MAX], const char *dir, enum mn_column column)
{
    snprintf(path, MN_PATH_MAX, "%.*s/%s.col", MN_PATH_MAX - 32, dir, mn_column_info[column].name);
}

/* ---- writing ---- */

struct making {
    struct mn_column_file files[MN_COLUMN_COUNT];
    uint64_t first[MN_COLUMN_COUNT + 1], stripes, stripe_bytes;
    struct mn_column_sink sink;
};

static enum mn_status map_columns(struct making *m, const struct mn_store *store, uint64_t segment, const char *dir)
{
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++) {
        char path[MN_PATH_MAX];
        dir_path(path, dir, c);
        MN_TRY(mn_column_file_map(&m->files[c], store, segment, c, path));
        m->first[c + 1] = m->first[c] + m->files[c].blocks;
    }
    m->stripes = stripes_for(m->first[MN_COLUMN_COUNT]);
    m->stripe_bytes = m->stripes > 1 ? MN_COLUMN_BLOCK : 0;
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++) {
        uint64_t longest = m->files[c].blocks > 0 ? block_bytes(m->files[c].header, 0) : 0;
        m->stripe_bytes = longest > m->stripe_bytes ? longest : m->stripe_bytes;
    }
    return MN_OK;
}

static enum mn_status write_stripes(struct making *m)
{
    uint8_t sum[MN_COLUMN_BLOCK];
    for (uint64_t s = 0; s < m->stripes; s++) {
        memset(sum, 0, sizeof sum);
        for (uint64_t number = s; number < m->first[MN_COLUMN_COUNT]; number += m->stripes) {
            const struct mn_column_file *file = &m->files[column_of(m->first, number)];
            uint64_t block = number - m->first[file - m->files];
            add_block(sum, file->data + block * MN_COLUMN_BLOCK, block_bytes(file->header, block));
        }
        MN_TRY(mn_column_sink_append(&m->sink, sum, m->stripe_bytes));
    }
    return MN_OK;
}

static enum mn_status write_all(struct making *m)
{
    uint64_t rows = m->files[MN_COLUMN_IDS].header->rows;
    MN_TRY(write_stripes(m));
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        MN_TRY(mn_column_sink_append(&m->sink, m->files[c].header, sizeof *m->files[c].header));
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        MN_TRY(mn_column_sink_append(&m->sink, m->files[c].checksums, m->files[c].blocks * sizeof(uint32_t)));
    MN_TRY(mn_column_sink_end(&m->sink, rows, m->stripes << 32 | m->stripe_bytes));
    return mn_column_sink_sync(&m->sink);
}

enum mn_status mn_columns_parity_write(const struct mn_store *store, uint64_t segment, const char *dir,
                                       const char *name, uint64_t *bytes)
{
    struct making m = {.sink = {.fd = -1}};
    char path[MN_PATH_MAX];
    enum mn_status status = map_columns(&m, store, segment, dir);
    if (status == MN_OK) {
        snprintf(path, sizeof path, "%.*s/%s", MN_PATH_MAX - 32, dir, name);
        status = mn_column_sink_open(&m.sink, store, segment, MN_COLUMN_PARITY, path);
    }
    if (status == MN_OK)
        status = write_all(&m);
    *bytes = status == MN_OK ? mn_column_sink_file_bytes(&m.sink) : 0;
    mn_column_sink_close(&m.sink);
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        mn_column_file_unmap(&m.files[c]);
    return status;
}

/* ---- opening ---- */

static enum mn_status read_shape(void *context)
{
    struct mn_columns_parity *p = context;
    uint64_t heads = MN_COLUMN_COUNT * sizeof *p->headers, bytes = p->file.data_bytes;
    uint64_t stripes = p->stripes * p->stripe_bytes;
    if (p->stripe_bytes > MN_COLUMN_BLOCK || stripes > bytes || bytes - stripes < heads)
        return MN_FAIL(MN_CORRUPT, "parity.col is not what it should be");
    p->headers = (const void *)(p->file.data + stripes);
    p->checksums = (const void *)(p->headers + MN_COLUMN_COUNT);
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        p->first[c + 1] = p->first[c] + mn_column_blocks(p->headers[c].data_bytes);
    uint64_t blocks = p->first[MN_COLUMN_COUNT];
    if (stripes_for(blocks) != p->stripes || bytes != stripes + heads + blocks * sizeof *p->checksums)
        return MN_FAIL(MN_CORRUPT, "parity.col is not what it should be");
    return MN_OK;
}

/* Of the headers and checksums; a stripe is held against the checksum of what it makes. */
static enum mn_status check_directory(const struct mn_columns_parity *p)
{
    for (uint64_t block = p->stripes * p->stripe_bytes / MN_COLUMN_BLOCK; block < p->file.blocks; block++)
        if (!mn_column_file_intact(&p->file, block))
            return MN_FAIL(MN_CORRUPT, "the directory of parity.col is damaged");
    return MN_OK;
}

/* Whatever lies there under a column's name. */
static void map_raw(struct mn_columns_parity *p, uint64_t segment, enum mn_column column)
{
    struct mn_parity_raw *raw = &p->raw[column];
    char path[MN_PATH_MAX];
    const void *base = NULL;
    int fd;
    raw->seed = mn_column_seed(p->store, segment, column);
    mn_store_column_path(p->store, path, segment, mn_column_info[column].name);
    if (p->store->io->open(path, MN_IO_READ, &fd) != MN_OK)
        return;
    if (p->store->io->size(fd, &raw->bytes) == MN_OK && raw->bytes > 0 &&
        p->store->io->map(fd, raw->bytes, &base) == MN_OK)
        raw->base = base;
    p->store->io->close(fd);
}

enum mn_status mn_columns_parity_open(struct mn_columns_parity *parity, const struct mn_store *store, uint64_t segment)
{
    char path[MN_PATH_MAX];
    *parity = (struct mn_columns_parity){.store = store};
    mn_store_column_path(store, path, segment, mn_column_info[MN_COLUMN_PARITY].name);
    MN_TRY(mn_column_file_map(&parity->file, store, segment, MN_COLUMN_PARITY, path));
    enum mn_status status = MN_OK;
    parity->stripes = parity->file.header->extra >> 32;
    parity->stripe_bytes = (uint32_t)parity->file.header->extra;
    MN_TRY_OUT(check_directory(parity));
    MN_TRY_OUT(mn_guarded(read_shape, parity, NULL));
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        map_raw(parity, segment, c);
out:
    if (status != MN_OK)
        mn_columns_parity_close(parity);
    return status;
}

void mn_columns_parity_close(struct mn_columns_parity *parity)
{
    for (uint32_t c = 0; c < MN_COLUMN_COUNT; c++)
        if (parity->raw[c].base)
            parity->store->io->unmap(parity->raw[c].base, parity->raw[c].bytes);
    mn_column_file_unmap(&parity->file);
    *parity = (struct mn_columns_parity){0};
}

/* ---- making blocks again ---- */

struct reading {
    const struct mn_columns_parity *p;
    uint64_t number; /* of the block */
    uint8_t *out;
    uint32_t bytes;
};

static bool matches(const struct reading *r, enum mn_column column)
{
    uint64_t block = r->number - r->p->first[column];
    return mn_crc32c(mn_column_block_seed(r->p->raw[column].seed, block), r->out, r->bytes) ==
           r->p->checksums[r->number];
}

/* The block as it lies in its file. Fails when it is not what was written. */
static enum mn_status read_block(void *context)
{
    struct reading *r = context;
    enum mn_column column = column_of(r->p->first, r->number);
    const struct mn_parity_raw *raw = &r->p->raw[column];
    uint64_t block = r->number - r->p->first[column];
    uint64_t at = sizeof(struct mn_column_header) + block * MN_COLUMN_BLOCK;
    r->bytes = block_bytes(&r->p->headers[column], block);
    if (raw->base && at + r->bytes <= raw->bytes) {
        memcpy(r->out, raw->base + at, r->bytes);
        if (matches(r, column))
            return MN_OK;
    }
    return MN_FAIL(MN_CORRUPT, "%s.col: block %llu does not match its checksum", mn_column_info[column].name,
                   (unsigned long long)block);
}

static enum mn_status read_stripe(void *context)
{
    struct reading *r = context;
    uint64_t bytes = r->p->stripe_bytes;
    memcpy(r->out, r->p->file.data + r->number % r->p->stripes * bytes, bytes);
    memset(r->out + bytes, 0, MN_COLUMN_BLOCK - bytes);
    return MN_OK;
}

static enum mn_status make_again(struct reading *r)
{
    const struct mn_columns_parity *p = r->p;
    uint8_t other[MN_COLUMN_BLOCK];
    MN_TRY(mn_guarded(read_stripe, r, NULL));
    for (uint64_t n = r->number % p->stripes; n < p->first[MN_COLUMN_COUNT]; n += p->stripes) {
        struct reading o = {p, n, other, 0};
        if (n == r->number)
            continue;
        MN_TRY(mn_guarded(read_block, &o, NULL));
        add_block(r->out, other, o.bytes);
    }
    enum mn_column column = column_of(p->first, r->number);
    r->bytes = block_bytes(&p->headers[column], r->number - p->first[column]);
    return matches(r, column) ? MN_OK : MN_FAIL(MN_CORRUPT, "parity.col is damaged");
}

enum mn_status mn_columns_parity_block(const struct mn_columns_parity *parity, enum mn_column column, uint64_t block,
                                       uint8_t *out, uint32_t *bytes, bool *mended)
{
    struct reading r = {parity, parity->first[column] + block, out, 0};
    enum mn_status status = mn_guarded(read_block, &r, NULL);
    if (mended)
        *mended = status != MN_OK;
    if (status != MN_OK)
        status = make_again(&r);
    *bytes = r.bytes;
    return status;
}
