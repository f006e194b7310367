/*
 * wal_copy.c - writing the log a second time: batches, segments that come and go, and what becomes of the copy when it
 * cannot be written.
 *
 * The syncer, a thread of its own, opens twins, writes and syncs each batch while the writer's thread does the same
 * with the original, so that two disks cost the time of the slower one, but no more than store.copy_wait: one that
 * hangs is left behind with the syncer in it. What that may still write there is of a segment that is suspect, and made
 * anew. Making twins ahead, removing old ones, and bringing the copy up to date again is the mender's
 * (wal_copy_mend.c); where the two threads begin and end is wal_copy_open.c. The writer's and the keeper's threads
 * never call the copy's disk.
 */
#include <stdarg.h>
#include <stdio.h>
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
void mn_wal_copy_fall_behind(struct mn_wal_copy *c, enum mn_copy_state state)
{
    atomic_fetch_or(c->reasons, (uint32_t)MN_DEGRADED_COPY);
    c->changes++;
    c->state = state;
    c->ended_mended = false;
}

static void fail(struct mn_wal_copy *c, const char *why)
{
    mn_wal_copy_fall_behind(c, MN_COPY_FAILED);
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

/* A twin that it has open. */
struct file {
    uint64_t number; /* 0 = a free place */
    int fd;
};
#define FILES_MAX (MN_COPY_OPEN_MAX + 1) /* one may have been ended since */

static struct file *find_file(struct file *files, uint64_t number)
{
    struct file *found = NULL;
    for (size_t i = 0; i < FILES_MAX && !found; i++)
        found = files[i].number == number ? &files[i] : NULL;
    MN_ASSERT(found != NULL);
    return found;
}

static enum mn_status open_twin(const struct mn_wal_copy *c, const struct mn_copy_job *job, int *fd)
{
    char path[MN_PATH_MAX];
    const struct mn_io *io = c->home.io;
    uint64_t size = 0, bytes = job->header.bytes;
    MN_TRY(io->open(mn_store_wal_path(&c->twin, path, job->number), MN_IO_WRITE, fd));
    enum mn_status status = io->size(*fd, &size);
    if (status == MN_OK && size != bytes)
        status = MN_FAIL(MN_CORRUPT, "%s has not the length that it was made with", path);
    if (status == MN_OK)
        status = io->write(*fd, &job->header, sizeof job->header, 0);
    if (status == MN_OK)
        status = io->write(*fd, &job->header, sizeof job->header, bytes - MN_WAL_BLOCK);
    if (status != MN_OK)
        io->close(*fd);
    return status;
}

static enum mn_status carry_out(const struct mn_wal_copy *c, const struct mn_copy_job *job, struct file *files)
{
    const struct mn_io *io = c->home.io;
    if (job->kind == MN_COPY_OPENS) {
        struct file opened = {.number = job->number};
        MN_TRY(open_twin(c, job, &opened.fd));
        *find_file(files, 0) = opened;
    } else if (job->kind == MN_COPY_WRITES) {
        int fd = find_file(files, job->number)->fd;
        MN_TRY(io->write(fd, job->data, job->bytes, job->offset));
        return io->datasync(fd);
    }
    return MN_OK;
}

/* With the lock held, which it lets go of meanwhile. */
static void close_ended(struct mn_wal_copy *c, struct file *files, bool all)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (files[i].number == 0 || (!all && find_open(c, files[i].number)))
            continue;
        pthread_mutex_unlock(&c->lock);
        c->home.io->close(files[i].fd);
        pthread_mutex_lock(&c->lock);
        files[i].number = 0;
    }
}

void mn_wal_copy_thread_ends(struct mn_wal_copy *c)
{
    c->threads--;
    pthread_cond_broadcast(&c->answered);
    pthread_mutex_unlock(&c->lock);
}

void *mn_wal_copy_sync_always(void *context)
{
    struct mn_wal_copy *c = context;
    struct file files[FILES_MAX] = {{0}};
    pthread_mutex_lock(&c->lock);
    while (!c->stop || c->job_asked) {
        if (!c->job_asked) {
            pthread_cond_wait(&c->asked, &c->lock);
            continue;
        }
        c->job_asked = false;
        pthread_mutex_unlock(&c->lock);
        enum mn_status status = carry_out(c, &c->job, files);
        pthread_mutex_lock(&c->lock);
        if (status != MN_OK && !c->job_left)
            fail(c, mn_error_text());
        close_ended(c, files, false);
        c->job_left = false;
        c->job_done = true;
        pthread_cond_broadcast(&c->answered);
    }
    close_ended(c, files, true);
    mn_wal_copy_thread_ends(c);
    return NULL;
}

/* With the lock held. */
static void fail_silent(struct mn_wal_copy *c)
{
    char why[128];
    snprintf(why, sizeof why, "it has not answered for %.1f s (store.copy_wait)", (double)c->wait_ns / 1e9);
    fail(c, why);
}

int mn_wal_copy_wait_for_answer(struct mn_wal_copy *c, uint64_t end_ns)
{
    struct timespec until = {.tv_sec = (time_t)(end_ns / 1000000000u), .tv_nsec = (long)(end_ns % 1000000000u)};
    return pthread_cond_timedwait(&c->answered, &c->lock, &until);
}

/* With the lock held. Until the syncer has done what it was asked, or has failed at it. */
static void await(struct mn_wal_copy *c)
{
    uint64_t end = mn_clock_ns() + c->wait_ns;
    int waited = 0;
    while (!c->job_done && !c->job_left && waited == 0)
        waited = mn_wal_copy_wait_for_answer(c, end);
    if (!c->job_done && !c->job_left) {
        c->job_left = true;
        fail_silent(c);
    }
}

/* With the lock held: has it do another thing, for a segment that is not bare. */
static void ask(struct mn_wal_copy *c, struct mn_copy_open *segment, const struct mn_copy_job *job)
{
    await(c);
    if (!segment->bare && !c->job_done)
        fail(c, "it does not answer"); /* the folder could be entered, but the disk has not given the syncer back */
    if (segment->bare)
        return;
    c->job = *job;
    c->job_asked = true;
    c->job_done = false;
    pthread_cond_signal(&c->asked);
}

void mn_wal_copy_write(struct mn_wal_copy *c, uint64_t number, const void *data, uint64_t bytes, uint64_t offset)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    struct mn_copy_open *segment = find_open(c, number);
    if (segment && !segment->bare)
        ask(c, segment,
            &(struct mn_copy_job){
                .kind = MN_COPY_WRITES, .number = number, .data = data, .bytes = bytes, .offset = offset});
    pthread_mutex_unlock(&c->lock);
}

void mn_wal_copy_wait(struct mn_wal_copy *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    await(c);
    pthread_mutex_unlock(&c->lock);
}

/* ---- segments come and go ---- */

static struct mn_copy_ahead *find_ahead(struct mn_wal_copy *c, uint64_t number)
{
    for (uint32_t i = 0; i < c->ahead_count; i++)
        if (c->ahead[i].number == number)
            return &c->ahead[i];
    return NULL;
}

void mn_wal_copy_want(struct mn_wal_copy *c, uint64_t number, uint64_t bytes)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    if (!find_ahead(c, number) && c->ahead_count < MN_COPY_AHEAD_MAX) {
        c->ahead[c->ahead_count++] =
            (struct mn_copy_ahead){.number = number, .bytes = bytes, .asked_ns = mn_clock_ns()};
        pthread_cond_signal(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
}

bool mn_wal_copy_settled(struct mn_wal_copy *c, uint64_t number)
{
    if (!c)
        return true;
    pthread_mutex_lock(&c->lock);
    const struct mn_copy_ahead *ahead = find_ahead(c, number);
    bool waits = c->state == MN_COPY_CURRENT && ahead && !ahead->made;
    uint64_t since = waits && ahead->asked_ns > c->seen_ns ? ahead->asked_ns : c->seen_ns;
    if (waits && mn_clock_ns() - since > c->wait_ns) {
        fail_silent(c);
        waits = false;
    }
    pthread_mutex_unlock(&c->lock);
    return !waits;
}

/* With the lock held. A segment that is begun needs no twin of zeros any more, nor do those before it; whether it has
 * one. */
static bool take_ahead(struct mn_wal_copy *c, uint64_t number)
{
    const struct mn_copy_ahead *ahead = find_ahead(c, number);
    bool made = ahead && ahead->made;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->ahead_count; i++)
        if (c->ahead[i].number > number)
            c->ahead[kept++] = c->ahead[i];
    c->ahead_count = kept;
    return made;
}

void mn_wal_copy_begin(struct mn_wal_copy *c, const struct mn_wal_header *header)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    struct mn_copy_open *segment = find_open(c, 0);
    MN_ASSERT(segment != NULL);
    bool made = take_ahead(c, header->number);
    *segment = (struct mn_copy_open){.number = header->number, .bare = c->state == MN_COPY_FAILED || !made};
    if (segment->bare && c->state != MN_COPY_FAILED)
        mn_wal_copy_fall_behind(c, MN_COPY_BEHIND);
    else if (!segment->bare)
        ask(c, segment, &(struct mn_copy_job){.kind = MN_COPY_OPENS, .number = header->number, .header = *header});
    pthread_mutex_unlock(&c->lock);
}

void mn_wal_copy_end(struct mn_wal_copy *c, uint64_t number)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    await(c);
    struct mn_copy_open *segment = find_open(c, number);
    if (segment) {
        c->changes += segment->bare;
        *segment = (struct mn_copy_open){0};
        pthread_cond_signal(&c->changed);
    }
    if (c->job_done) { /* else it closes the file when the disk has given it back */
        c->job = (struct mn_copy_job){.kind = MN_COPY_CLOSES};
        c->job_asked = true;
        c->job_done = false;
        pthread_cond_signal(&c->asked);
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- what others ask ---- */

void mn_wal_copy_fail(struct mn_wal_copy *c, const char *why)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    fail(c, why);
    pthread_mutex_unlock(&c->lock);
}

/* With the lock held. */
static bool all_made(const struct mn_wal_copy *c)
{
    bool made = c->ahead_count > 0;
    for (uint32_t i = 0; i < c->ahead_count; i++)
        made &= c->ahead[i].made;
    return made;
}

bool mn_wal_copy_wants_seal(struct mn_wal_copy *c)
{
    if (!c)
        return false;
    pthread_mutex_lock(&c->lock);
    bool wants = c->state == MN_COPY_BEHIND && c->ended_mended && all_made(c) && mn_wal_copy_any_bare(c);
    pthread_mutex_unlock(&c->lock);
    return wants;
}

void mn_wal_copy_first(struct mn_wal_copy *c, uint64_t wal_first)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    if (c->wal_first != wal_first)
        pthread_cond_signal(&c->changed);
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

bool mn_wal_copy_clean(struct mn_wal_copy *c)
{
    if (!c)
        return true;
    pthread_mutex_lock(&c->lock);
    bool clean = c->state == MN_COPY_CURRENT && c->removed_first >= c->wal_first;
    pthread_mutex_unlock(&c->lock);
    return clean;
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
