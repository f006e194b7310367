/*
 * wal.c - the active log segment: begin, append, sync; with its twin, when the log is kept twice.
 */
#include "engine/wal.h"

#include <sys/random.h>

#include "engine/fault.h"
#include "engine/wal_copy.h"
#include "shm/process.h"

static enum mn_status write_headers(const struct mn_wal *wal, const struct mn_wal *prev)
{
    struct mn_wal_header header = {
        .magic = MN_WAL_MAGIC,
        .format = MN_WAL_FORMAT,
        .dim = wal->store->dim,
        .number = wal->number,
        .bytes = wal->bytes,
        .first_seq = wal->last_seq + 1,
        .prev_number = prev->number,
        .prev_last_seq = prev->last_seq,
        .prev_chain = prev->chain,
        .salt = wal->salt,
    };
    memcpy(header.store_uuid, wal->store->uuid, sizeof header.store_uuid);
    mn_wal_header_seal(&header);
    mn_wal_copy_begin(wal->copy, &header); /* before anything shows that it is begun */
    enum mn_status status = wal->store->io->write(wal->fd, &header, sizeof header, 0);
    if (status == MN_OK)
        status = wal->store->io->write(wal->fd, &header, sizeof header, wal->bytes - MN_WAL_BLOCK);
    if (status != MN_OK)
        mn_wal_copy_end(wal->copy, wal->number);
    return status;
}

enum mn_status mn_wal_begin(struct mn_wal *wal, const struct mn_store *store, uint64_t number,
                            const struct mn_wal *prev)
{
    char path[MN_PATH_MAX];
    struct mn_wal next = {.store = store,
                          .fd = -1,
                          .number = number,
                          .offset = MN_WAL_BLOCK,
                          .chain = prev->chain,
                          .last_seq = prev->last_seq,
                          .durable_seq = prev->durable_seq,
                          .copy = prev->copy};
    enum mn_status status = MN_OK;
    MN_FAULT_POINT(wal_rotate_begin);
    if (getrandom(&next.salt, sizeof next.salt, 0) != sizeof next.salt)
        return MN_FAIL_ERRNO("getrandom");
    MN_TRY(store->io->open(mn_store_wal_path(store, path, number), MN_IO_WRITE, &next.fd));
    MN_TRY_OUT(store->io->size(next.fd, &next.bytes));
    MN_TRY_OUT(write_headers(&next, prev));
    *wal = next;
    MN_FAULT_POINT(wal_rotate_end);
out:
    if (status != MN_OK)
        store->io->close(next.fd);
    return status;
}

void mn_wal_end(struct mn_wal *wal)
{
    if (wal->store) {
        mn_wal_copy_end(wal->copy, wal->number);
        wal->store->io->close(wal->fd);
    }
    wal->store = NULL;
    wal->fd = -1;
}

uint64_t mn_wal_room(const struct mn_wal *wal)
{
    return wal->bytes - MN_WAL_BLOCK - wal->offset;
}

enum mn_status mn_wal_append(struct mn_wal *wal, struct mn_batch *batch, int64_t wall_ns)
{
    uint64_t bytes = mn_batch_finish(batch, wal->durable_seq, wall_ns, &wal->chain);
    MN_ASSERT(bytes <= mn_wal_room(wal));
    MN_FAULT_POINT(wal_before_write);
    mn_wal_copy_write(wal->copy, wal->number, batch->data, bytes, wal->offset);
    MN_TRY(wal->store->io->write(wal->fd, batch->data, bytes, wal->offset));
    MN_TRY(wal->store->io->start(wal->fd, wal->offset, bytes));
    MN_FAULT_POINT(wal_after_write);
    wal->offset += bytes;
    wal->last_seq = batch->last_seq;
    return MN_OK;
}

enum mn_status mn_wal_sync(struct mn_wal *wal)
{
    if (!MN_BUG(ack_before_sync))
        MN_TRY(wal->store->io->datasync(wal->fd));
    mn_wal_copy_wait(wal->copy); /* a copy that has failed shows as degraded by now */
    MN_FAULT_POINT(wal_after_sync);
    wal->durable_seq = wal->last_seq;
    return MN_OK;
}
