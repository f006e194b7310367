/*
 * wal_map.c - a log segment as bytes in memory: mapped, or, where the disk cannot read some of it, taken block by
 * block.
 */
#include "engine/wal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/process.h"

#define WRITE_US         2000 /* longer than a header takes to be written into the cache */
#define READ_TRIES       6u   /* of a block, with pauses between them that double: 62 ms */
#define READ_PAUSE_US    2000u
#define READ_PATIENCE_NS UINT64_C(1000000000) /* in all of a segment, then two tries a block */

/* A header that is whole, of this store and this place, and of a format that this program does not know. */
static enum mn_status check_format(const struct mn_wal_segment *segment, const struct mn_wal_header *h)
{
    struct mn_wal_header as_ours = *h;
    as_ours.format = MN_WAL_FORMAT;
    mn_wal_header_seal(&as_ours);
    if (h->format == MN_WAL_FORMAT || !mn_wal_header_whole(h) ||
        !mn_wal_header_valid(&as_ours, segment->store->uuid, segment->number, segment->bytes))
        return MN_OK;
    return MN_FAIL(MN_VERSION_MISMATCH,
                   "log segment %" PRIu64 " has format %u, this program reads and writes format %u: start the version "
                   "that wrote it; nothing was changed",
                   segment->number, h->format, MN_WAL_FORMAT);
}

static uint64_t last_block(uint64_t bytes)
{
    return (bytes / MN_WAL_BLOCK - 1) * MN_WAL_BLOCK;
}

/* The blocks that may have a header, as they were at one moment. */
struct headers {
    _Alignas(struct mn_wal_header) uint8_t first[MN_WAL_BLOCK];
    _Alignas(struct mn_wal_header) uint8_t last[MN_WAL_BLOCK];
};

static void take_headers(const struct mn_wal_segment *segment, struct headers *headers)
{
    memcpy(headers->first, segment->base, MN_WAL_BLOCK);
    memcpy(headers->last, segment->base + last_block(segment->bytes), MN_WAL_BLOCK);
}

static enum mn_status judge_headers(struct mn_wal_segment *segment, const struct headers *headers)
{
    const uint8_t *uuid = segment->store->uuid;
    const struct mn_wal_header *first = (const void *)headers->first, *last = (const void *)headers->last;
    MN_TRY(check_format(segment, first));
    MN_TRY(check_format(segment, last));
    if (mn_wal_header_valid(first, uuid, segment->number, segment->bytes)) {
        segment->header = *first;
    } else if (mn_wal_header_valid(last, uuid, segment->number, segment->bytes)) {
        segment->header = *last;
    } else if (mn_wal_zero(headers->first, MN_WAL_BLOCK) && mn_wal_zero(headers->last, MN_WAL_BLOCK)) {
        segment->unused = true;
    } else if (mn_wal_header_valid(first, uuid, segment->number, first->bytes) && first->bytes > segment->bytes) {
        segment->header = *first;
        segment->cut = true;
    } else if (first->bytes < segment->bytes && first->bytes >= 2 * MN_WAL_BLOCK &&
               mn_wal_header_valid(first, uuid, segment->number, first->bytes)) {
        segment->header = *first;
        segment->long_by = segment->bytes - first->bytes;
    } else {
        return MN_FAIL(MN_CORRUPT,
                       "log segment %" PRIu64 ": both copies of its header are damaged, or it is of another store",
                       segment->number);
    }
    return MN_OK;
}

/* The writer may begin the segment at this very moment: what is no header is looked at once more, in case it has
 * become one. `now`: the first look. */
static enum mn_status find_header(struct mn_wal_segment *segment, struct headers now)
{
    struct headers seen;
    enum mn_status status;
    do {
        seen = now;
        status = judge_headers(segment, &seen);
        if (status != MN_CORRUPT)
            break;
        usleep(WRITE_US);
        take_headers(segment, &now);
    } while (memcmp(&seen, &now, sizeof seen) != 0);
    return status;
}

void mn_wal_unmap(struct mn_wal_segment *segment)
{
    if (segment->base && segment->own)
        munmap((void *)(uintptr_t)segment->base, segment->bytes);
    else if (segment->base)
        segment->store->io->unmap(segment->base, segment->bytes);
    segment->base = NULL;
    segment->own = false;
}

/* ---- what the disk cannot read ---- */

#define FILLER UINT64_C(0x646165726e55204e) /* "N Unread": neither zero, nor the beginning of anything */

static void fill(uint8_t *at, uint64_t bytes)
{
    const uint64_t word = FILLER;
    for (uint64_t b = 0; b < bytes; b++)
        at[b] = ((const uint8_t *)&word)[b % sizeof word];
}

static bool is_filler(const uint8_t *block, uint64_t bytes)
{
    uint8_t filler[MN_WAL_BLOCK];
    fill(filler, sizeof filler);
    return memcmp(block, filler, bytes) == 0;
}

uint64_t mn_wal_unread(const struct mn_wal_segment *segment, uint64_t offset, uint64_t bytes)
{
    uint64_t count = 0, end = offset + bytes < segment->bytes ? offset + bytes : segment->bytes;
    for (uint64_t at = offset / MN_WAL_BLOCK * MN_WAL_BLOCK; segment->unread > 0 && at < end; at += MN_WAL_BLOCK) {
        uint64_t left = segment->bytes - at;
        count += is_filler(segment->base + at, left < MN_WAL_BLOCK ? left : MN_WAL_BLOCK);
    }
    return count;
}

/* A segment on its way into memory. */
struct taking {
    struct mn_wal_segment *segment;
    int fd;
    uint8_t *data;
    uint64_t waited_ns; /* for blocks that were not read at once */
};

/* One block. A disk may fail for a moment: it is asked again a few times, a little later each time; but no more than
 * once of each block when a segment has cost too much of that. What cannot be read is filler. */
static void take_block(struct taking *t, uint64_t at)
{
    struct mn_wal_segment *segment = t->segment;
    uint64_t left = segment->bytes - at, bytes = left < MN_WAL_BLOCK ? left : MN_WAL_BLOCK, began = mn_clock_ns();
    for (uint32_t tries = 0; tries < READ_TRIES; tries++) {
        if (segment->store->io->read(t->fd, t->data + at, bytes, at) == MN_OK)
            return;
        if (tries > 0 && t->waited_ns + (mn_clock_ns() - began) > READ_PATIENCE_NS)
            break;
        usleep(READ_PAUSE_US << tries);
    }
    t->waited_ns += mn_clock_ns() - began;
    fill(t->data + at, bytes);
    segment->unread++;
}

/* The two blocks that may have a header come first: with neither, nothing else can be told apart, and a disk that takes
 * seconds to fail each read is not asked for it. */
static void take_blocks(struct taking *t)
{
    struct mn_wal_segment *segment = t->segment;
    uint64_t last = last_block(segment->bytes);
    take_block(t, 0);
    take_block(t, last);
    bool hopeless = segment->unread == 2;
    for (uint64_t at = MN_WAL_BLOCK; at < segment->bytes; at += MN_WAL_BLOCK) {
        if (at == last)
            continue;
        if (!hopeless) {
            take_block(t, at);
            continue;
        }
        fill(t->data + at, segment->bytes - at < MN_WAL_BLOCK ? segment->bytes - at : MN_WAL_BLOCK);
        segment->unread++;
    }
}

enum mn_status mn_wal_reread(struct mn_wal_segment *segment)
{
    const struct mn_io *io = segment->store->io;
    struct mn_wal_segment fresh = {.store = segment->store,
                                   .number = segment->number,
                                   .bytes = segment->bytes,
                                   .durable_seq = segment->durable_seq,
                                   .own = true};
    char path[MN_PATH_MAX];
    uint64_t bytes;
    int fd;
    mn_wal_unmap(segment);
    MN_TRY(io->open(mn_store_wal_path(segment->store, path, segment->number), MN_IO_READ, &fd));
    enum mn_status status = io->size(fd, &bytes);
    if (status == MN_OK && bytes != fresh.bytes)
        status = MN_FAIL(MN_SYSTEM, "%s was cut while it was read", path);
    void *data = status == MN_OK ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : NULL;
    if (data == MAP_FAILED)
        status = MN_FAIL_ERRNO("no memory for log segment %" PRIu64, segment->number);
    if (status == MN_OK) {
        fresh.base = data;
        take_blocks(&(struct taking){.segment = &fresh, .fd = fd, .data = data});
    }
    io->close(fd);
    MN_TRY(status);
    *segment = fresh;
    struct headers headers;
    take_headers(segment, &headers);
    status = find_header(segment, headers);
    return status == MN_CORRUPT && fresh.unread > 0
               ? MN_FAIL(MN_CORRUPT, "the disk cannot read %" PRIu64 " blocks of %s, its headers among them",
                         fresh.unread, path)
               : status;
}

/* Not from the mapping: a header that the disk cannot read would be a signal to whoever looks at it there. */
static bool read_headers(const struct mn_io *io, int fd, uint64_t bytes, struct headers *headers)
{
    return io->read(fd, headers->first, sizeof headers->first, 0) == MN_OK &&
           io->read(fd, headers->last, sizeof headers->last, last_block(bytes)) == MN_OK;
}

enum mn_status mn_wal_map(struct mn_wal_segment *segment, const struct mn_store *store, uint64_t number)
{
    char path[MN_PATH_MAX];
    int fd;
    const void *base = NULL;
    struct headers headers;
    *segment = (struct mn_wal_segment){.store = store, .number = number};
    MN_TRY(store->io->open(mn_store_wal_path(store, path, number), MN_IO_READ, &fd));
    enum mn_status status = store->io->size(fd, &segment->bytes);
    if (status == MN_OK && segment->bytes < 2 * MN_WAL_BLOCK)
        status =
            MN_FAIL(MN_CORRUPT, "%s has %" PRIu64 " bytes, not a length that a log segment has", path, segment->bytes);
    if (status == MN_OK)
        status = store->io->map(fd, segment->bytes, &base);
    segment->base = base;
    bool readable = status == MN_OK && read_headers(store->io, fd, segment->bytes, &headers);
    store->io->close(fd);
    MN_TRY(status);
    return readable ? find_header(segment, headers) : mn_wal_reread(segment);
}
