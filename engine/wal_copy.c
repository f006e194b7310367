/*
 * wal_copy.c - writing the log a second time: batches, segments that come and go, and what becomes of the copy when it
 * cannot be written.
 *
 * The syncer, a thread of its own, writes and syncs each batch while the writer's thread does the same with the
 * original, so that two disks cost the time of the slower one, but no more than store.copy_wait: one that hangs is left
 * behind with the syncer in it. What that may still write there is of a segment that is suspect, and made anew.
 * Bringing the copy up to date again is the mender's (wal_copy_mend.c).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/wal.h"
#include "engine/wal_copy_inside.h"
#include "shm/process.h"

/* ---- with the lock held ---- */

void mn_wal_copy_tell(struct mn_wal_copy *c, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(c->news, sizeof c->news, format, list);
    va_end(list);
}

bool mn_wal_copy_any_bare(const struct mn_wal_copy *c)
{
    bool bare = false;
    for (uint32_t i = 0; i < MN_COPY_OPEN_MAX; i++)
        bare |= c->open[i].number != 0 && c->open[i].bare;
    return bare;
}

static struct mn_copy_open *find_open(struct mn_wal_copy *c, uint64_t number)
{
    for (uint32_t i = 0; i < MN_COPY_OPEN_MAX; i++)
        if (c->open[i].number == number)
            return &c->open[i];
    return NULL;
}

static void suspect(struct mn_wal_copy *c, uint64_t number)
{
    for (uint32_t i = 0; i < c->suspect_count; i++)
        if (c->suspects[i] == number)
            return;
    if (c->suspect_count < MN_COPY_OPEN_MAX)
        c->suspects[c->suspect_count++] = number;
}

/* The bit first: whoever acknowledges something that is written once does it after. */
static void fall_behind(struct mn_wal_copy *c, enum mn_copy_state state)
{
    atomic_fetch_or(c->reasons, (uint32_t)MN_DEGRADED_COPY);
    c->changes++;
    c->state = state;
    c->ended_mended = false;
}

static void fail(struct mn_wal_copy *c, const char *why)
{
    fall_behind(c, MN_COPY_FAILED);
    if (!c->told)
        mn_wal_copy_tell(c,
                         "the second copy of the log in %s cannot be written: %s. Writes go on and are kept once; "
                         "copying resumes by itself",
                         c->twin.dir, why);
    c->told = true;
    for (uint32_t i = 0; i < MN_COPY_OPEN_MAX; i++)
        if (c->open[i].number != 0 && !c->open[i].bare) {
            c->open[i].bare = true;
            suspect(c, c->open[i].number);
        }
}

/* ---- the syncer ---- */

static void *sync_batches(void *context)
{
    struct mn_wal_copy *c = context;
    const struct mn_io *io = c->home.io;
    pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        if (!c->job.asked) {
            pthread_cond_wait(&c->asked, &c->lock);
            continue;
        }
        c->job.asked = false;
        pthread_mutex_unlock(&c->lock);
        enum mn_status status = io->write(c->job.fd, c->job.data, c->job.bytes, c->job.offset);
        if (status == MN_OK)
            status = io->datasync(c->job.fd);
        pthread_mutex_lock(&c->lock);
        if (status != MN_OK && !c->job.left)
            fail(c, mn_error_text());
        if (c->job.closes)
            io->close(c->job.fd);
        c->job.left = c->job.closes = false;
        c->job.done = true;
        pthread_cond_signal(&c->answered);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

void mn_wal_copy_write(struct mn_wal_copy *c, uint64_t number, int fd, const void *data, uint64_t bytes,
                       uint64_t offset)
{
    if (!c || fd < 0)
        return;
    pthread_mutex_lock(&c->lock);
    const struct mn_copy_open *segment = find_open(c, number);
    if (segment && !segment->bare && !c->job.done) {
        fail(c, "it does not answer"); /* the folder could be entered, but the disk has not given the syncer back */
    } else if (segment && !segment->bare) {
        c->job.fd = fd;
        c->job.data = data;
        c->job.bytes = bytes;
        c->job.offset = offset;
        c->job.asked = true;
        c->job.done = false;
        pthread_cond_signal(&c->asked);
    }
    pthread_mutex_unlock(&c->lock);
}

void mn_wal_copy_wait(struct mn_wal_copy *c)
{
    char why[128];
    if (!c)
        return;
    uint64_t end = mn_clock_ns() + c->wait_ns;
    struct timespec until = {.tv_sec = (time_t)(end / 1000000000u), .tv_nsec = (long)(end % 1000000000u)};
    pthread_mutex_lock(&c->lock);
    int waited = 0;
    while (!c->job.done && !c->job.left && waited == 0)
        waited = pthread_cond_timedwait(&c->answered, &c->lock, &until);
    if (!c->job.done && !c->job.left) {
        c->job.left = true;
        snprintf(why, sizeof why, "it has not answered for %.1f s (store.copy_wait)", (double)c->wait_ns / 1e9);
        fail(c, why);
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- segments come and go ---- */

static enum mn_status open_twin(const struct mn_wal_copy *c, uint64_t number, uint64_t bytes, int *fd)
{
    char path[MN_PATH_MAX];
    uint64_t size = 0;
    MN_TRY(c->home.io->open(mn_store_wal_path(&c->twin, path, number), MN_IO_WRITE, fd));
    enum mn_status status = c->home.io->size(*fd, &size);
    if (status == MN_OK && size == bytes)
        return MN_OK;
    c->home.io->close(*fd);
    *fd = -1;
    return status == MN_OK ? MN_FAIL(MN_NOT_FOUND, "%s is not prepared", path) : status;
}

void mn_wal_copy_begin(struct mn_wal_copy *c, uint64_t number, uint64_t bytes, int *fd)
{
    *fd = -1;
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    struct mn_copy_open *segment = find_open(c, 0);
    MN_ASSERT(segment != NULL);
    *segment = (struct mn_copy_open){.number = number, .bare = true};
    enum mn_status status = MN_NOT_READY;
    if (c->state != MN_COPY_FAILED)
        status = open_twin(c, number, bytes, fd);
    if (status == MN_OK) {
        segment->bare = false;
    } else if (status == MN_NOT_FOUND) {
        /* The keeper prepared it while the copy could not be written. */
        fall_behind(c, MN_COPY_BEHIND);
    } else if (c->state != MN_COPY_FAILED) {
        fail(c, mn_error_text());
    }
    pthread_mutex_unlock(&c->lock);
}

void mn_wal_copy_end(struct mn_wal_copy *c, uint64_t number, int fd)
{
    if (!c)
        return;
    mn_wal_copy_wait(c);
    pthread_mutex_lock(&c->lock);
    bool held = c->job.left && c->job.fd == fd;
    c->job.closes |= held;
    pthread_mutex_unlock(&c->lock);
    if (!held)
        c->home.io->close(fd);
    pthread_mutex_lock(&c->lock);
    struct mn_copy_open *segment = find_open(c, number);
    if (segment) {
        c->changes += segment->bare;
        *segment = (struct mn_copy_open){0};
        pthread_cond_signal(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- what others ask ---- */

const struct mn_store *mn_wal_copy_store(struct mn_wal_copy *c, uint64_t *entered)
{
    if (!c)
        return NULL;
    pthread_mutex_lock(&c->lock);
    bool usable = c->state != MN_COPY_FAILED;
    *entered = c->entered;
    pthread_mutex_unlock(&c->lock);
    return usable ? &c->twin : NULL;
}

void mn_wal_copy_fail(struct mn_wal_copy *c, const char *why)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    fail(c, why);
    pthread_mutex_unlock(&c->lock);
}

void mn_wal_copy_prepared(struct mn_wal_copy *c, uint64_t entered)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->prepared = entered;
    pthread_mutex_unlock(&c->lock);
}

bool mn_wal_copy_owns(const struct mn_wal_copy *c, const char *path)
{
    size_t length = c ? strlen(c->twin.dir) : 0;
    return c && strncmp(path, c->twin.dir, length) == 0 && path[length] == '/';
}

bool mn_wal_copy_wants_seal(struct mn_wal_copy *c)
{
    if (!c)
        return false;
    pthread_mutex_lock(&c->lock);
    bool wants = c->state == MN_COPY_BEHIND && c->ended_mended && c->prepared == c->entered && mn_wal_copy_any_bare(c);
    pthread_mutex_unlock(&c->lock);
    return wants;
}

void mn_wal_copy_first(struct mn_wal_copy *c, uint64_t wal_first)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->wal_first = wal_first;
    pthread_mutex_unlock(&c->lock);
}

bool mn_wal_copy_current(struct mn_wal_copy *c)
{
    if (!c)
        return true;
    pthread_mutex_lock(&c->lock);
    bool current = c->state == MN_COPY_CURRENT;
    pthread_mutex_unlock(&c->lock);
    return current;
}

bool mn_wal_copy_news(struct mn_wal_copy *c, char *text, size_t size)
{
    if (!c)
        return false;
    pthread_mutex_lock(&c->lock);
    bool any = c->news[0] != 0;
    snprintf(text, size, "%s", c->news);
    c->news[0] = 0;
    pthread_mutex_unlock(&c->lock);
    return any;
}

uint64_t mn_wal_copy_mended(struct mn_wal_copy *c)
{
    if (!c)
        return 0;
    pthread_mutex_lock(&c->lock);
    uint64_t mended = c->mended;
    pthread_mutex_unlock(&c->lock);
    return mended;
}

/* ---- opening ---- */

/* Whether each segment that was begun has a twin. What stands in it, recovery has compared. */
static enum mn_status twins_there(const struct mn_wal_copy *c, bool *there)
{
    uint64_t *numbers;
    uint32_t count;
    *there = true;
    MN_TRY(mn_wal_list(&c->home, &numbers, &count));
    for (uint32_t i = 0; *there && i < count; i++) {
        char path[MN_PATH_MAX];
        struct mn_wal_segment segment;
        bool unused = mn_wal_map(&segment, &c->home, numbers[i]) == MN_OK && segment.unused;
        uint64_t bytes = segment.bytes;
        mn_wal_unmap(&segment);
        mn_store_wal_path(&c->twin, path, numbers[i]);
        if (!unused && numbers[i] >= c->wal_first)
            *there = mn_io_file_bytes(c->home.io, path) == bytes;
    }
    free(numbers);
    return MN_OK;
}

static void take_up(struct mn_wal_copy *c)
{
    bool trusted = !(atomic_load(c->reasons) & MN_DEGRADED_COPY), there = false;
    enum mn_status status = mn_copy_folder_enter(&c->folder, &c->home, c->twin.dir);
    if (status == MN_OK)
        status = twins_there(c, &there);
    if (status == MN_OK)
        status = mn_wal_copy_remove_retired(&c->twin, c->wal_first);
    if (status != MN_OK) {
        fail(c, mn_error_text());
        return;
    }
    c->entered = 1;
    if (trusted && there) {
        c->state = MN_COPY_CURRENT;
        return;
    }
    fall_behind(c, MN_COPY_BEHIND);
    mn_wal_copy_tell(c, "the second copy of the log in %s %s: it is being made anew", c->twin.dir,
                     c->folder.fresh ? "was missing or empty" : "is not up to date");
}

static enum mn_status start_threads(struct mn_wal_copy *c)
{
    if ((errno = pthread_create(&c->syncer, NULL, sync_batches, c)) != 0)
        return MN_FAIL_ERRNO("cannot start the thread that writes the second copy of the log");
    c->syncing = true;
    if ((errno = pthread_create(&c->mender, NULL, mn_wal_copy_mend_always, c)) != 0)
        return MN_FAIL_ERRNO("cannot start the thread that mends the second copy of the log");
    c->mending = true;
    return MN_OK;
}

static enum mn_status drop(const struct mn_store *store, _Atomic uint32_t *reasons)
{
    char dir[MN_PATH_MAX];
    MN_TRY(mn_copy_folder_drop(store, dir));
    atomic_fetch_and(reasons, ~(uint32_t)MN_DEGRADED_COPY);
    return MN_OK;
}

/* Waited for on the clock that nobody sets. */
static void init_answered(struct mn_wal_copy *c)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->answered, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

enum mn_status mn_wal_copy_open(struct mn_wal_copy **copy, const struct mn_store *store,
                                const struct mn_settings *settings, _Atomic uint32_t *reasons, uint64_t wal_first)
{
    *copy = NULL;
    if (settings->store_copies < 2)
        return drop(store, reasons);
    struct mn_wal_copy *c = calloc(1, sizeof *c);
    if (!c)
        return MN_FAIL(MN_INTERNAL, "no memory for the second copy of the log");
    c->home = c->twin = *store;
    c->folder.lock_fd = -1;
    c->reasons = reasons;
    c->wal_first = wal_first;
    c->job.done = true;
    c->wait_ns = settings->store_copy_wait;
    snprintf(c->twin.dir, sizeof c->twin.dir, "%s", settings->store_copy_dir);
    for (size_t n = strlen(c->twin.dir); n > 1 && c->twin.dir[n - 1] == '/';)
        c->twin.dir[--n] = 0;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->asked, NULL);
    init_answered(c);
    pthread_cond_init(&c->changed, NULL);
    take_up(c);
    enum mn_status status = start_threads(c);
    if (status != MN_OK) {
        mn_wal_copy_close(c);
        return status;
    }
    *copy = c;
    return MN_OK;
}

void mn_wal_copy_close(struct mn_wal_copy *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_broadcast(&c->asked);
    pthread_cond_broadcast(&c->changed);
    bool hangs = c->job.left;
    pthread_mutex_unlock(&c->lock);
    if (hangs)
        return; /* with what its threads use: the process ends, and they with it */
    if (c->syncing)
        pthread_join(c->syncer, NULL);
    if (c->mending)
        pthread_join(c->mender, NULL);
    mn_copy_folder_leave(&c->folder);
    pthread_cond_destroy(&c->asked);
    pthread_cond_destroy(&c->answered);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
