/*
 * wal_copy_mend.c - the thread that brings the log's second copy up to date, and looks whether its folder still stands.
 *
 * While the copy is current it makes twins of segments that are prepared, removes those of segments that are compacted,
 * and looks at the folder each second. When it is not, it enters the folder again, compares
 * every segment that is ended with its twin, copies it where they differ, and then declares the copy current. A segment
 * that is being written without a twin is in the way of that: the writer is asked to end it. Comparing reads files
 * instead of mapping them: what cannot be read is a reason, not a signal.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/fault.h"
#include "engine/wal.h"
#include "engine/wal_copy_inside.h"
#include "engine/wal_prepare.h"
#include "shm/process.h"

#define LOOK_MS     1000u /* between two looks at the folder, and two tries to enter it */
#define SEAL_MS     50u   /* the writer ends its segment within one turn, or when its batch is done */
#define PIECE_BYTES (1u << 20)
#define PAUSE_US    500

static void wait_ms(struct mn_wal_copy *c, uint32_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&c->changed, &c->lock, &until);
}

/* Segments from here on are being written. */
static uint64_t first_open(const struct mn_wal_copy *c)
{
    uint64_t first = UINT64_MAX;
    for (uint32_t i = 0; i < MN_COPY_OPEN_MAX; i++)
        if (c->open[i].number != 0 && c->open[i].number < first)
            first = c->open[i].number;
    return first;
}

/* ---- a segment and its twin ---- */

/* A log segment and its twin, piece by piece. */
struct pair {
    struct mn_wal_copy *c;
    uint64_t number, bytes;
    int from, to;
    uint8_t *ours, *theirs; /* PIECE_BYTES each */
};

/* Between two calls of the disk, which has just answered. */
static bool stopping(struct mn_wal_copy *c)
{
    pthread_mutex_lock(&c->lock);
    c->seen_ns = mn_clock_ns();
    bool stop = c->stop;
    pthread_mutex_unlock(&c->lock);
    return stop;
}

/* A prepared segment has a twin of zeros: make_twins. */
static enum mn_status begun(const struct pair *p, bool *begun)
{
    const struct mn_io *io = p->c->home.io;
    *begun = false;
    if (p->bytes < 2 * MN_WAL_BLOCK)
        return MN_OK;
    MN_TRY(io->read(p->from, p->ours, MN_WAL_BLOCK, 0));
    MN_TRY(io->read(p->from, p->ours + MN_WAL_BLOCK, MN_WAL_BLOCK, p->bytes - MN_WAL_BLOCK));
    *begun = !mn_wal_zero(p->ours, UINT64_C(2) * MN_WAL_BLOCK);
    return MN_OK;
}

/* What cannot be read of the twin differs. */
static enum mn_status compare(struct pair *p, bool *same)
{
    const struct mn_io *io = p->c->home.io;
    uint64_t size = 0;
    *same = io->size(p->to, &size) == MN_OK && size == p->bytes;
    for (uint64_t at = 0; *same && at < p->bytes; at += PIECE_BYTES) {
        uint64_t bytes = p->bytes - at < PIECE_BYTES ? p->bytes - at : PIECE_BYTES;
        if (stopping(p->c))
            return MN_FAIL(MN_UNAVAILABLE, "the writer stops");
        MN_TRY(io->read(p->from, p->ours, bytes, at));
        *same = io->read(p->to, p->theirs, bytes, at) == MN_OK && memcmp(p->ours, p->theirs, bytes) == 0;
    }
    return MN_OK;
}

static enum mn_status copy_pieces(struct pair *p)
{
    const struct mn_io *io = p->c->home.io;
    MN_TRY(io->reserve(p->to, p->bytes));
    for (uint64_t at = 0; at < p->bytes; at += PIECE_BYTES) {
        uint64_t bytes = p->bytes - at < PIECE_BYTES ? p->bytes - at : PIECE_BYTES;
        if (stopping(p->c))
            return MN_FAIL(MN_UNAVAILABLE, "the writer stops");
        MN_TRY(io->read(p->from, p->ours, bytes, at));
        MN_TRY(io->write(p->to, p->ours, bytes, at));
        MN_TRY(io->flush(p->to, at, bytes)); /* or the log's syncs wait behind all of it */
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_US * 1000}, NULL);
    }
    return io->datasync(p->to);
}

static enum mn_status replace_twin(struct pair *p, const char *path)
{
    char temporary[MN_PATH_MAX + 8];
    const struct mn_io *io = p->c->home.io;
    snprintf(temporary, sizeof temporary, "%s.mend", path);
    enum mn_status status = io->unlink(temporary);
    if (status != MN_OK && status != MN_NOT_FOUND)
        return status;
    MN_TRY(io->open(temporary, MN_IO_WRITE | MN_IO_CREATE, &p->to));
    status = copy_pieces(p);
    io->close(p->to);
    p->to = -1;
    if (status == MN_OK) {
        MN_FAULT_POINT(copy_mended);
        status = io->rename(temporary, path);
    }
    if (status != MN_OK) {
        char why[256];
        snprintf(why, sizeof why, "%s", mn_error_text());
        status = io->unlink(temporary) == MN_OK ? status : MN_SYSTEM; /* gives the space of a failed try back */
        return MN_FAIL(status, "%s", why);
    }
    MN_FAULT_POINT(copy_mended_renamed);
    pthread_mutex_lock(&p->c->lock);
    p->c->mended += p->bytes;
    pthread_mutex_unlock(&p->c->lock);
    return MN_OK;
}

static bool is_suspect(struct mn_wal_copy *c, uint64_t number)
{
    bool found = false;
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < c->suspect_count; i++)
        found |= c->suspects[i] == number;
    pthread_mutex_unlock(&c->lock);
    return found;
}

/* Asked after its header was seen: the writer says that it begins a segment before it writes there. */
static bool being_written(struct mn_wal_copy *c, uint64_t number)
{
    pthread_mutex_lock(&c->lock);
    bool open = number >= first_open(c);
    pthread_mutex_unlock(&c->lock);
    return open;
}

static enum mn_status mend_pair(struct pair *p)
{
    struct mn_wal_copy *c = p->c;
    const struct mn_io *io = c->home.io;
    char path[MN_PATH_MAX];
    bool wanted, same = false;
    MN_TRY(io->size(p->from, &p->bytes));
    MN_TRY(begun(p, &wanted));
    if (!wanted || being_written(c, p->number))
        return MN_OK;
    mn_store_wal_path(&c->twin, path, p->number);
    enum mn_status status = io->open(path, MN_IO_READ, &p->to);
    if (status != MN_OK && status != MN_NOT_FOUND)
        return status;
    if (status == MN_OK) {
        if (!is_suspect(c, p->number))
            status = compare(p, &same);
        io->close(p->to);
        p->to = -1;
        MN_TRY(status);
    }
    return same ? MN_OK : replace_twin(p, path);
}

static enum mn_status mend_segment(struct mn_wal_copy *c, uint64_t number, uint8_t *buffers)
{
    char path[MN_PATH_MAX];
    struct pair p = {.c = c, .number = number, .from = -1, .to = -1, .ours = buffers, .theirs = buffers + PIECE_BYTES};
    enum mn_status status = c->home.io->open(mn_store_wal_path(&c->home, path, number), MN_IO_READ, &p.from);
    if (status == MN_NOT_FOUND)
        return MN_OK; /* compacted meanwhile */
    MN_TRY(status);
    status = mend_pair(&p);
    c->home.io->close(p.from);
    return status;
}

static enum mn_status remove_leftover(void *context, const char *name)
{
    const struct mn_store *twin = context;
    char path[MN_PATH_MAX], file[300];
    size_t length = strlen(name);
    if (length < 5 || strcmp(name + length - 5, ".mend") != 0 || length > 200)
        return MN_OK;
    snprintf(file, sizeof file, "wal/%s", name);
    return twin->io->unlink(mn_store_path(twin, path, file));
}

/* Twins of segments that were compacted while the copy could not be written; and what a try that died has left. */
enum mn_status mn_wal_copy_remove_retired(const struct mn_store *twin, uint64_t wal_first)
{
    char path[MN_PATH_MAX];
    uint64_t *numbers;
    uint32_t count;
    struct mn_store in = *twin;
    MN_TRY(twin->io->list(mn_store_path(twin, path, "wal"), remove_leftover, &in));
    MN_TRY(mn_wal_list(twin, &numbers, &count));
    enum mn_status status = MN_OK;
    for (uint32_t i = 0; status == MN_OK && i < count && numbers[i] < wal_first; i++) {
        status = twin->io->unlink(mn_store_wal_path(twin, path, numbers[i]));
        status = status == MN_NOT_FOUND ? MN_OK : status;
    }
    free(numbers);
    return status;
}

static enum mn_status remove_retired(struct mn_wal_copy *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t wal_first = c->wal_first;
    pthread_mutex_unlock(&c->lock);
    MN_TRY(mn_wal_copy_remove_retired(&c->twin, wal_first));
    pthread_mutex_lock(&c->lock);
    c->removed_first = wal_first;
    pthread_mutex_unlock(&c->lock);
    return MN_OK;
}

/* ---- twins of segments that are prepared ---- */

/* The next to be made; false: all are. */
static bool next_ahead(struct mn_wal_copy *c, struct mn_copy_ahead *next)
{
    bool found = false;
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < c->ahead_count && !found; i++)
        if (!c->ahead[i].made) {
            *next = c->ahead[i];
            found = true;
        }
    pthread_mutex_unlock(&c->lock);
    return found;
}

/* There is haste while no segment has its twin. */
static bool between_pieces(void *context, bool *go_on)
{
    struct mn_wal_copy *c = context;
    bool haste = true;
    *go_on = !stopping(c);
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < c->ahead_count; i++)
        haste &= !c->ahead[i].made;
    pthread_mutex_unlock(&c->lock);
    if (!haste)
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_US * 1000}, NULL);
    return haste;
}

/* One whose segment is begun meanwhile stays as it is, and counts for nothing: that segment is bare. */
static enum mn_status make_twins(struct mn_wal_copy *c)
{
    struct mn_copy_ahead next;
    while (next_ahead(c, &next)) {
        MN_TRY(mn_wal_prepare(&c->twin, next.number, next.bytes, between_pieces, c));
        pthread_mutex_lock(&c->lock);
        for (uint32_t i = 0; i < c->ahead_count; i++)
            c->ahead[i].made |= c->ahead[i].number == next.number;
        pthread_mutex_unlock(&c->lock);
    }
    return MN_OK;
}

/* ---- all of them ---- */

static enum mn_status mend_all(struct mn_wal_copy *c)
{
    char path[MN_PATH_MAX];
    uint64_t *numbers;
    uint32_t count;
    pthread_mutex_lock(&c->lock);
    uint64_t wal_first = c->wal_first;
    pthread_mutex_unlock(&c->lock);
    MN_TRY(remove_retired(c));
    MN_TRY(mn_wal_list(&c->home, &numbers, &count));
    uint8_t *buffers = malloc(UINT64_C(2) * PIECE_BYTES);
    enum mn_status status = buffers ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory to copy the log");
    for (uint32_t i = 0; status == MN_OK && i < count; i++) {
        status = make_twins(c); /* first: the writer goes on beginning segments */
        if (status == MN_OK && numbers[i] >= wal_first)
            status = mend_segment(c, numbers[i], buffers);
    }
    free(buffers);
    free(numbers);
    MN_TRY(status);
    return c->home.io->sync_dir(mn_store_path(&c->twin, path, "wal"));
}

/* Whatever was wrong with the folder may be right now, or it may be another one of the same name. */
static enum mn_status enter_again(struct mn_wal_copy *c)
{
    mn_copy_folder_leave(&c->folder);
    MN_TRY(mn_copy_folder_enter(&c->folder, &c->home, c->twin.dir));
    pthread_mutex_lock(&c->lock);
    c->state = MN_COPY_BEHIND;
    for (uint32_t i = 0; i < c->ahead_count; i++)
        c->ahead[i].made = false; /* it may be another folder */
    pthread_mutex_unlock(&c->lock);
    return MN_OK;
}

/* One try to make the copy current. */
static enum mn_status mend(struct mn_wal_copy *c)
{
    pthread_mutex_lock(&c->lock);
    bool failed = c->state == MN_COPY_FAILED;
    uint64_t changes = c->changes, before = c->mended;
    pthread_mutex_unlock(&c->lock);
    if (failed)
        MN_TRY(enter_again(c));
    MN_TRY(mend_all(c));
    pthread_mutex_lock(&c->lock);
    c->ended_mended |= changes == c->changes;
    if (c->state == MN_COPY_BEHIND && changes == c->changes && !mn_wal_copy_any_bare(c)) {
        c->state = MN_COPY_CURRENT;
        c->suspect_count = 0;
        c->told = false;
        atomic_fetch_and(c->reasons, ~(uint32_t)MN_DEGRADED_COPY);
        mn_wal_copy_tell(c, "the log is kept twice again: %.1f MiB of it were copied to %s",
                         (double)(c->mended - before) / (1 << 20), c->twin.dir);
    }
    pthread_mutex_unlock(&c->lock);
    return MN_OK;
}

/* Deleted files take writes as well as any, and nobody ever sees them again. */
static void look(struct mn_wal_copy *c)
{
    char path[MN_PATH_MAX];
    uint64_t written = 0;
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < MN_COPY_OPEN_MAX; i++)
        written = c->open[i].number != 0 && !c->open[i].bare ? c->open[i].number : written;
    pthread_mutex_unlock(&c->lock);
    bool stands = mn_copy_folder_stands(&c->folder);
    if (stands && written != 0)
        stands = mn_io_file_bytes(c->home.io, mn_store_wal_path(&c->twin, path, written)) > 0;
    pthread_mutex_lock(&c->lock);
    bool ended = written != 0 && written < first_open(c); /* and compacted, perhaps */
    pthread_mutex_unlock(&c->lock);
    if (!stands && !ended)
        mn_wal_copy_fail(c, "the folder, or what is written there, is gone");
}

/* While it is current. */
static enum mn_status keep_up(struct mn_wal_copy *c)
{
    pthread_mutex_lock(&c->lock);
    bool retired = c->removed_first != c->wal_first;
    pthread_mutex_unlock(&c->lock);
    MN_TRY(make_twins(c));
    if (retired)
        MN_TRY(remove_retired(c));
    look(c);
    return MN_OK;
}

/* With the lock held: until there may be something to do. */
static void rest(struct mn_wal_copy *c)
{
    bool made = true;
    for (uint32_t i = 0; i < c->ahead_count; i++)
        made &= c->ahead[i].made;
    bool asked = c->state == MN_COPY_CURRENT && (!made || c->removed_first != c->wal_first);
    if (!c->stop && !asked && (c->state != MN_COPY_BEHIND || mn_wal_copy_any_bare(c)))
        wait_ms(c, c->state == MN_COPY_BEHIND ? SEAL_MS : LOOK_MS);
}

void *mn_wal_copy_mend_always(void *context)
{
    struct mn_wal_copy *c = context;
    struct sched_param ordinary = {0};
    pthread_setschedparam(pthread_self(), SCHED_OTHER, &ordinary);
    pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        bool current = c->state == MN_COPY_CURRENT;
        c->seen_ns = mn_clock_ns();
        pthread_mutex_unlock(&c->lock);
        if ((current ? keep_up(c) : mend(c)) != MN_OK)
            mn_wal_copy_fail(c, mn_error_text());
        pthread_mutex_lock(&c->lock);
        rest(c);
    }
    mn_wal_copy_thread_ends(c);
    return NULL;
}
