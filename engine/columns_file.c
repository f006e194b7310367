/*
 * columns_file.c - the files of a column segment, one at a time: a streaming writer, and a mapping with checks.
 *
 * A sink has three states: open (fd and buffer), ended (fd, no buffer), closed. The header goes in last, so that a file
 * whose writer died is never taken for a whole one.
 */
#include "engine/columns_file.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "engine/crc.h"
#include "engine/guard.h"

#define PAGE UINT64_C(4096)

#define X(name, number, file, element, whole) {number, file, element, whole},
const struct mn_column_info mn_column_info[MN_COLUMN_KINDS] = {MN_COLUMN_TABLE(X) MN_COLUMN_DERIVED_TABLE(X)};
#undef X

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "column files are mapped as they are: little-endian");

uint32_t mn_column_seed(const struct mn_store *store, uint64_t segment, enum mn_column column)
{
    struct {
        uint8_t uuid[16];
        uint64_t segment, number;
    } place = {.segment = segment, .number = mn_column_info[column].number};
    memcpy(place.uuid, store->uuid, sizeof place.uuid);
    return mn_crc32c(0, &place, sizeof place);
}

static uint32_t header_checksum(const struct mn_column_header *header)
{
    return mn_crc32c(0, header, offsetof(struct mn_column_header, checksum));
}

static uint32_t element_bytes(const struct mn_store *store, enum mn_column column)
{
    uint32_t bytes = mn_column_info[column].element;
    return bytes == MN_COLUMN_DIM ? store->dim * (uint32_t)sizeof(float) : bytes;
}

/* ---- writing ---- */

enum mn_status mn_column_sink_open(struct mn_column_sink *sink, const struct mn_store *store, uint64_t segment,
                                   enum mn_column column, const char *path)
{
    *sink = (struct mn_column_sink){.io = store->io, .fd = -1};
    sink->header = (struct mn_column_header){.magic = MN_COLUMN_MAGIC,
                                             .version = MN_FORMAT_VERSION,
                                             .header_bytes = sizeof sink->header,
                                             .segment = segment,
                                             .column = mn_column_info[column].number,
                                             .element_bytes = element_bytes(store, column),
                                             .dim = store->dim,
                                             .block_bytes = MN_COLUMN_BLOCK};
    memcpy(sink->header.uuid, store->uuid, sizeof sink->header.uuid);
    sink->seed = mn_column_seed(store, segment, column);
    sink->buffer = malloc(MN_SINK_BYTES);
    if (!sink->buffer)
        return MN_FAIL(MN_SYSTEM, "no memory for a buffer to write %s", path);
    enum mn_status status = store->io->open(path, MN_IO_WRITE | MN_IO_CREATE, &sink->fd);
    if (status != MN_OK) {
        sink->fd = -1;
        mn_column_sink_close(sink);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    return MN_OK;
}

static enum mn_status note_checksums(struct mn_column_sink *sink)
{
    uint64_t more = (sink->buffered + MN_COLUMN_BLOCK - 1) / MN_COLUMN_BLOCK;
    if (sink->blocks + more > sink->blocks_max) {
        uint64_t max = sink->blocks_max ? sink->blocks_max * 2 : 64;
        uint32_t *grown = realloc(sink->checksums, max * sizeof *grown);
        if (!grown)
            return MN_FAIL(MN_SYSTEM, "no memory for the checksums of a column file");
        sink->checksums = grown;
        sink->blocks_max = max;
    }
    for (uint32_t at = 0; at < sink->buffered; at += MN_COLUMN_BLOCK) {
        uint32_t bytes = sink->buffered - at < MN_COLUMN_BLOCK ? sink->buffered - at : MN_COLUMN_BLOCK;
        sink->checksums[sink->blocks] =
            mn_crc32c(mn_column_block_seed(sink->seed, sink->blocks), sink->buffer + at, bytes);
        sink->blocks++;
    }
    return MN_OK;
}

/* The buffer is a whole number of blocks, so only the last flush ends inside one. */
static enum mn_status flush(struct mn_column_sink *sink)
{
    if (sink->buffered == 0)
        return MN_OK;
    MN_TRY(note_checksums(sink));
    uint64_t at = sizeof sink->header + sink->written, bytes = sink->buffered;
    MN_TRY(sink->io->write(sink->fd, sink->buffer, bytes, at));
    sink->written += bytes;
    sink->buffered = 0;
    return sink->io->flush(sink->fd, at, bytes);
}

enum mn_status mn_column_sink_append(struct mn_column_sink *sink, const void *data, uint64_t bytes)
{
    const uint8_t *from = data;
    while (bytes > 0) {
        uint64_t room = MN_SINK_BYTES - sink->buffered;
        uint64_t part = bytes < room ? bytes : room;
        memcpy(sink->buffer + sink->buffered, from, part);
        sink->buffered += (uint32_t)part;
        from += part;
        bytes -= part;
        if (sink->buffered == MN_SINK_BYTES)
            MN_TRY(flush(sink));
    }
    return MN_OK;
}

enum mn_status mn_column_sink_align(struct mn_column_sink *sink, uint32_t to)
{
    static const uint8_t zeros[4096];
    uint64_t at = mn_column_sink_at(sink), end = mn_round_up(at, to);
    for (uint64_t bytes; at < end; at += bytes) {
        bytes = end - at < sizeof zeros ? end - at : sizeof zeros;
        MN_TRY(mn_column_sink_append(sink, zeros, bytes));
    }
    return MN_OK;
}

enum mn_status mn_column_sink_branch(struct mn_column_sink *branch, const struct mn_column_sink *trunk, uint64_t at)
{
    MN_ASSERT(at % MN_COLUMN_BLOCK == 0);
    *branch =
        (struct mn_column_sink){.io = trunk->io, .fd = trunk->fd, .branch = true, .written = at, .seed = trunk->seed};
    branch->blocks = at / MN_COLUMN_BLOCK;
    branch->blocks_max = branch->blocks + 64;
    branch->buffer = malloc(MN_SINK_BYTES);
    branch->checksums = calloc(branch->blocks_max, sizeof *branch->checksums);
    if (branch->buffer && branch->checksums)
        return MN_OK;
    mn_column_sink_close(branch);
    return MN_FAIL(MN_SYSTEM, "no memory to write a column file");
}

enum mn_status mn_column_sink_join(struct mn_column_sink *trunk, struct mn_column_sink *branch)
{
    MN_TRY(mn_column_sink_align(trunk, MN_COLUMN_BLOCK));
    MN_TRY(flush(trunk));
    MN_TRY(flush(branch));
    MN_ASSERT(trunk->written <= branch->written && branch->written % 64 == 0);
    uint64_t first = trunk->blocks;
    uint32_t *checksums = realloc(trunk->checksums, (branch->blocks + 1) * sizeof *checksums);
    if (!checksums)
        return MN_FAIL(MN_SYSTEM, "no memory for the checksums of a column file");
    trunk->checksums = checksums;
    memcpy(checksums + first, branch->checksums + first, (branch->blocks - first) * sizeof *checksums);
    trunk->blocks = trunk->blocks_max = branch->blocks;
    trunk->written = branch->written;
    return MN_OK;
}

enum mn_status mn_column_sink_end(struct mn_column_sink *sink, uint64_t rows, uint64_t extra)
{
    sink->header.rows = rows;
    sink->header.extra = extra;
    sink->header.data_bytes = mn_column_sink_at(sink);
    MN_TRY(mn_column_sink_align(sink, 64));
    MN_TRY(flush(sink));
    uint64_t table_bytes = sink->blocks * sizeof *sink->checksums;
    uint32_t table_checksum = mn_crc32c(sink->seed, sink->checksums, table_bytes);
    uint64_t at = sizeof sink->header + sink->written;
    if (table_bytes > 0)
        MN_TRY(sink->io->write(sink->fd, sink->checksums, table_bytes, at));
    MN_TRY(sink->io->write(sink->fd, &table_checksum, sizeof table_checksum, at + table_bytes));
    sink->header.checksum = header_checksum(&sink->header);
    MN_TRY(sink->io->write(sink->fd, &sink->header, sizeof sink->header, 0));
    free(sink->buffer);
    sink->buffer = NULL;
    return MN_OK;
}

enum mn_status mn_column_sink_sync(struct mn_column_sink *sink)
{
    MN_TRY(sink->io->datasync(sink->fd));
    return MN_OK;
}

void mn_column_sink_close(struct mn_column_sink *sink)
{
    if (sink->io && sink->fd >= 0 && !sink->branch)
        sink->io->close(sink->fd);
    sink->fd = -1;
    free(sink->buffer);
    free(sink->checksums);
    sink->buffer = NULL;
    sink->checksums = NULL;
}

uint64_t mn_column_sink_file_bytes(const struct mn_column_sink *sink)
{
    return sizeof sink->header + sink->written + sink->blocks * sizeof *sink->checksums + sizeof(uint32_t);
}

/* ---- reading ---- */

static enum mn_status check_header(const struct mn_column_file *file, const struct mn_store *store, uint64_t segment,
                                   enum mn_column column, const char *path)
{
    const struct mn_column_header *h = file->header;
    if (h->checksum != header_checksum(h) || h->magic != MN_COLUMN_MAGIC)
        return MN_FAIL(MN_CORRUPT, "%s: the header does not match its checksum", path);
    if (h->version != MN_FORMAT_VERSION || h->header_bytes != sizeof *h || h->block_bytes != MN_COLUMN_BLOCK)
        return MN_FAIL(MN_CORRUPT, "%s has format version %u, this program knows %u", path, h->version,
                       MN_FORMAT_VERSION);
    if (memcmp(h->uuid, store->uuid, sizeof h->uuid) != 0)
        return MN_FAIL(MN_CORRUPT, "%s belongs to another store", path);
    if (h->segment != segment || h->column != mn_column_info[column].number)
        return MN_FAIL(MN_CORRUPT, "%s holds column %u of segment %llu: a misplaced file", path, h->column,
                       (unsigned long long)h->segment);
    if (h->dim != store->dim || h->element_bytes != element_bytes(store, column))
        return MN_FAIL(MN_CORRUPT, "%s has embeddings of %u floats, the store %u", path, h->dim, store->dim);
    if (h->element_bytes > 0 && h->data_bytes != h->rows * h->element_bytes)
        return MN_FAIL(MN_CORRUPT, "%s has %llu bytes of data for %llu rows", path, (unsigned long long)h->data_bytes,
                       (unsigned long long)h->rows);
    return MN_OK;
}

static enum mn_status check_table(struct mn_column_file *file, const char *path)
{
    uint64_t stored = mn_round_up(file->header->data_bytes, 64);
    uint64_t blocks = mn_column_blocks(stored);
    uint64_t want = sizeof *file->header + stored + blocks * sizeof(uint32_t) + sizeof(uint32_t);
    if (file->header->data_bytes > file->file_bytes || want != file->file_bytes)
        return MN_FAIL(MN_CORRUPT, "%s has %llu bytes, its header asks for %llu: it was cut or grew", path,
                       (unsigned long long)file->file_bytes, (unsigned long long)want);
    file->data = file->base + sizeof *file->header;
    file->data_bytes = file->header->data_bytes;
    file->blocks = blocks;
    file->checksums = (const uint32_t *)(const void *)(file->data + stored);
    if (mn_crc32c(file->seed, file->checksums, blocks * sizeof(uint32_t)) != file->checksums[blocks])
        return MN_FAIL(MN_CORRUPT, "%s: the table of block checksums is damaged", path);
    return MN_OK;
}

/* What is checked of a file when it is mapped. */
struct opening {
    struct mn_column_file *file;
    const struct mn_store *store;
    uint64_t segment;
    enum mn_column column;
    const char *path;
};

static enum mn_status check_frame(void *context)
{
    const struct opening *o = context;
    MN_TRY(check_header(o->file, o->store, o->segment, o->column, o->path));
    return check_table(o->file, o->path);
}

enum mn_status mn_column_file_map(struct mn_column_file *file, const struct mn_store *store, uint64_t segment,
                                  enum mn_column column, const char *path)
{
    struct opening opening = {file, store, segment, column, path};
    *file = (struct mn_column_file){.io = store->io};
    int fd;
    MN_TRY(store->io->open(path, MN_IO_READ, &fd));
    enum mn_status status = MN_OK;
    const void *base = NULL;
    MN_TRY_OUT(store->io->size(fd, &file->file_bytes));
    if (file->file_bytes < sizeof *file->header + sizeof(uint32_t)) {
        status = MN_FAIL(MN_CORRUPT, "%s is shorter than its header", path);
        goto out;
    }
    MN_TRY_OUT(store->io->map(fd, file->file_bytes, &base));
    file->base = base;
    file->header = base;
    file->seed = mn_column_seed(store, segment, column);
    MN_TRY_OUT(mn_guarded(check_frame, &opening, NULL));
out:
    store->io->close(fd);
    if (status != MN_OK)
        mn_column_file_unmap(file);
    return status;
}

void mn_column_file_unmap(struct mn_column_file *file)
{
    if (file->base)
        file->io->unmap(file->base, file->file_bytes);
    file->base = NULL;
    free(file->image);
    file->image = NULL;
    atomic_store_explicit(&file->scattered, false, memory_order_relaxed);
}

/* madvise wants whole pages; what it cannot do is no failure, only slower. */
static void advise(const struct mn_column_file *file, uint64_t at, uint64_t bytes, int advice)
{
    uintptr_t begin = (uintptr_t)(file->data + at) / PAGE * PAGE, end = (uintptr_t)(file->data + at + bytes);
    madvise((void *)begin, end - begin, advice); // NOLINT(performance-no-int-to-ptr): a page's address
}

void mn_column_file_scatter(struct mn_column_file *file, uint64_t from)
{
    if (!file->base || atomic_load_explicit(&file->scattered, memory_order_relaxed))
        return;
    advise(file, from, file->data_bytes - from, MADV_RANDOM);
    atomic_store_explicit(&file->scattered, true, memory_order_relaxed);
}

void mn_column_file_ahead(const struct mn_column_file *file, uint64_t at, uint64_t bytes)
{
    if (atomic_load_explicit(&file->scattered, memory_order_relaxed) && at < file->data_bytes)
        advise(file, at, bytes < file->data_bytes - at ? bytes : file->data_bytes - at, MADV_WILLNEED);
}

void mn_column_file_let_go(const struct mn_column_file *file, uint64_t at, uint64_t end)
{
    if (!file->base || file->image || !file->io->let_go)
        return;
    uint64_t before = (uint64_t)(file->data - file->base);
    uint64_t first = mn_round_up(before + at, PAGE), last = (before + end) / PAGE * PAGE;
    if (first < last)
        file->io->let_go(file->base + first, last - first);
}

struct block_check {
    const struct mn_column_file *file;
    uint64_t block;
    bool intact;
};

static enum mn_status check_block(void *context)
{
    struct block_check *check = context;
    const struct mn_column_file *file = check->file;
    uint64_t stored = mn_round_up(file->data_bytes, 64);
    uint64_t at = check->block * MN_COLUMN_BLOCK;
    uint64_t bytes = stored - at < MN_COLUMN_BLOCK ? stored - at : MN_COLUMN_BLOCK;
    mn_column_file_ahead(file, at, bytes);
    check->intact = mn_crc32c(mn_column_block_seed(file->seed, check->block), file->data + at, bytes) ==
                    file->checksums[check->block];
    return MN_OK;
}

bool mn_column_file_intact(const struct mn_column_file *file, uint64_t block)
{
    struct block_check check = {file, block, false};
    return mn_guarded(check_block, &check, NULL) == MN_OK && check.intact;
}

enum mn_status mn_column_file_check(const struct mn_column_file *file, const char *path)
{
    for (uint64_t block = 0; block < file->blocks; block++)
        if (!mn_column_file_intact(file, block))
            return MN_FAIL(MN_CORRUPT, "%s: block %llu does not match its checksum", path, (unsigned long long)block);
    return MN_OK;
}
