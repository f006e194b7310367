/*
 * recovery_settle.c - what recovery has read is on the disk, and not in the page cache alone.
 *
 * After a sync that failed the kernel takes the pages for clean: whoever reads sees them, the next sync reports
 * success, and the disk does not have them. A batch whose sync failed was never acknowledged, but recovery finds it,
 * shows it, and answers for it from then on. So what lies above all that is known to be durable is read once more, past
 * the cache, and blocks that differ are written again and synced. Where a file system cannot read past its cache none
 * differ.
 */
#include <stdlib.h>

#include "engine/fault.h"
#include "engine/recovery_inside.h"

#define PIECE_BYTES (256u << 10)

struct settling {
    const struct mn_io *io;
    const uint8_t *shown; /* the mapped segment */
    uint8_t *piece;
    int fd, past_cache;
    bool wrote;
};

/* Of [at, at + bytes), whole blocks. A piece that cannot be read past the cache is taken for lost. */
static enum mn_status settle_piece(struct settling *s, uint64_t at, uint64_t bytes)
{
    bool lost = s->io->read(s->past_cache, s->piece, bytes, at) != MN_OK;
    for (uint64_t b = 0; b < bytes; b += MN_WAL_BLOCK) {
        uint8_t *block = s->piece + b;
        if (!lost && memcmp(block, s->shown + at + b, MN_WAL_BLOCK) == 0)
            continue;
        memcpy(block, s->shown + at + b, MN_WAL_BLOCK);
        MN_TRY(s->io->write(s->fd, block, MN_WAL_BLOCK, at + b));
        s->wrote = true;
    }
    return MN_OK;
}

static enum mn_status settle_range(struct settling *s, uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to; at += PIECE_BYTES)
        MN_TRY(settle_piece(s, at, to - at < PIECE_BYTES ? to - at : PIECE_BYTES));
    return MN_OK;
}

/* The block in which the first record above `seq` lies; the batches behind it are above it too. */
static uint64_t first_above(const struct mn_recovery_job *job, uint64_t seq)
{
    uint64_t first = job->extent.end;
    for (uint32_t row = job->tail.filled; row > 0 && job->tail.rows[row - 1].born > seq; row--)
        first = job->tail.rows[row - 1].record_at < first ? job->tail.rows[row - 1].record_at : first;
    for (uint32_t e = job->event_count; e > 0; e--) {
        const struct mn_recovery_event *event = &job->events[e - 1];
        const struct mn_record *record = (const struct mn_record *)(const void *)(job->segment.base + event->at);
        if (event->suspect)
            continue;
        if (record->seq <= seq)
            break;
        first = event->at < first ? event->at : first;
    }
    return first / MN_WAL_BLOCK * MN_WAL_BLOCK;
}

enum mn_status mn_recovery_settle(struct mn_recovery *r, const struct mn_recovery_job *job)
{
    const struct mn_wal_segment *segment = &job->segment;
    struct settling s = {.io = r->store.io, .shown = segment->base, .fd = -1, .past_cache = -1};
    char path[MN_PATH_MAX];
    uint64_t last = segment->bytes - MN_WAL_BLOCK;
    enum mn_status status = MN_OK;
    if (MN_BUG(recovery_believes_cache) || job->extent.last_seq <= r->mark_seq || segment->cut ||
        segment->long_by > 0 || segment->unread > 0) /* it is written anew as a whole */
        return MN_OK;
    s.piece = aligned_alloc(MN_WAL_BLOCK, PIECE_BYTES);
    if (!s.piece)
        return MN_FAIL(MN_INTERNAL, "no memory to look past the page cache");
    mn_store_wal_path(&r->store, path, segment->number);
    MN_TRY_OUT(s.io->open(path, MN_IO_WRITE, &s.fd));
    MN_TRY_OUT(s.io->open(path, MN_IO_READ | MN_IO_DIRECT, &s.past_cache));
    MN_TRY_OUT(settle_range(&s, 0, MN_WAL_BLOCK)); /* the headers go with the first batch */
    MN_TRY_OUT(settle_range(&s, first_above(job, r->mark_seq), job->extent.end));
    MN_TRY_OUT(settle_range(&s, last, segment->bytes));
    if (s.wrote)
        MN_TRY_OUT(s.io->datasync(s.fd));
out:
    s.io->close(s.past_cache);
    s.io->close(s.fd);
    free(s.piece);
    return status;
}
