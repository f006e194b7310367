/*
 * wal_prepare.c - zero-filled log segments: written, synced, renamed, and the folder synced.
 */
#include "engine/wal_prepare.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/fault.h"
#include "engine/guard.h"
#include "engine/wal.h"

#define PIECE_BYTES (256u << 10) /* with time to spare, */
#define HASTE_BYTES (1u << 20)   /* and with none */

/* A segment that is being made. */
struct making {
    const struct mn_store *in;
    uint64_t number, bytes;
    mn_wal_pace_fn pace;
    void *context;
};

static enum mn_status fill_piece(const struct making *m, int fd, const void *zeros, uint64_t *at)
{
    bool go_on = true, haste = m->pace(m->context, &go_on);
    uint64_t left = m->bytes - *at, most = haste ? HASTE_BYTES : PIECE_BYTES, bytes = left < most ? left : most;
    if (!go_on)
        return MN_FAIL(MN_UNAVAILABLE, "the writer stops");
    MN_TRY(m->in->io->write(fd, zeros, bytes, *at));
    MN_TRY(m->in->io->flush(fd, *at, bytes));
    *at += bytes;
    return MN_OK;
}

static enum mn_status fill_zeros(const struct making *m, int fd)
{
    void *zeros = aligned_alloc(MN_WAL_BLOCK, HASTE_BYTES);
    if (!zeros)
        return MN_FAIL(MN_INTERNAL, "no memory to prepare a log segment");
    memset(zeros, 0, HASTE_BYTES);
    enum mn_status status = m->in->io->reserve(fd, m->bytes);
    for (uint64_t at = 0; status == MN_OK && at < m->bytes;)
        status = fill_piece(m, fd, zeros, &at);
    free(zeros);
    return status == MN_OK ? m->in->io->datasync(fd) : status;
}

struct look {
    const struct mn_store *in;
    struct mn_wal_segment segment;
    uint64_t number, bytes;
    bool prepared;
};

static enum mn_status look_through(void *context)
{
    struct look *look = context;
    const struct mn_wal_segment *segment = &look->segment;
    MN_TRY(mn_wal_map(&look->segment, look->in, look->number));
    look->prepared = segment->unused && segment->bytes == look->bytes && mn_wal_zero(segment->base, segment->bytes);
    return MN_OK;
}

/* A segment that recovery found prepared and unused is taken as it is. All of it must be zero: in a power cut a first
 * batch may have landed without the headers, and a torn batch is told by the zeros that it did not overwrite. One that
 * the disk cannot read is made anew. */
static bool is_prepared(const struct making *m)
{
    struct look look = {.in = m->in, .number = m->number, .bytes = m->bytes};
    const void *fault;
    enum mn_status status = mn_guarded(look_through, &look, &fault);
    mn_wal_unmap(&look.segment);
    return status == MN_OK && look.prepared;
}

static char *temporary_of(const struct mn_store *in, char temporary[MN_PATH_MAX], uint64_t number)
{
    strcat(mn_store_wal_path(in, temporary, number), ".tmp"); /* a folder's path has half of it at most */
    return temporary;
}

/* Gives the space of a failed try back, and leaves its sentence. */
static enum mn_status take_back(const struct mn_store *in, uint64_t number, enum mn_status status)
{
    char temporary[MN_PATH_MAX], why[512];
    snprintf(why, sizeof why, "%s", mn_error_text());
    enum mn_status removed = in->io->unlink(temporary_of(in, temporary, number));
    return MN_FAIL(status, "%s%s", why, removed == MN_OK ? "" : " (and its file could not be removed)");
}

/* Zeros under a temporary name. */
static enum mn_status fill(const struct making *m)
{
    const struct mn_store *in = m->in;
    char temporary[MN_PATH_MAX];
    int fd = -1;
    enum mn_status status = in->io->unlink(temporary_of(in, temporary, m->number));
    if (status != MN_OK && status != MN_NOT_FOUND)
        return status;
    MN_TRY(in->io->open(temporary, MN_IO_WRITE | MN_IO_CREATE | MN_IO_DIRECT, &fd));
    MN_FAULT_POINT(wal_prepare_created);
    status = fill_zeros(m, fd);
    in->io->close(fd);
    return status == MN_OK ? MN_OK : take_back(in, m->number, status);
}

static enum mn_status give_name(const struct mn_store *in, uint64_t number)
{
    char path[MN_PATH_MAX], temporary[MN_PATH_MAX];
    enum mn_status status = in->io->rename(temporary_of(in, temporary, number), mn_store_wal_path(in, path, number));
    return status == MN_OK ? MN_OK : take_back(in, number, status);
}

enum mn_status mn_wal_prepare(const struct mn_store *in, uint64_t number, uint64_t bytes, mn_wal_pace_fn pace,
                              void *context)
{
    struct making m = {.in = in, .number = number, .bytes = bytes, .pace = pace, .context = context};
    char folder[MN_PATH_MAX];
    if (!is_prepared(&m)) {
        MN_TRY(fill(&m));
        MN_TRY(give_name(in, number));
    }
    MN_FAULT_POINT(wal_prepare_renamed);
    /* Also of one that is there already: the try that gave it its name may have failed here. */
    return in->io->sync_dir(mn_store_path(in, folder, "wal"));
}
