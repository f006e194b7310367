/*
 * wal_copy_open.c - where the writing of the log's second copy begins and ends: what is found in its folder, whether
 * that can be trusted, and its two threads, which may hang with the disk and are left there then.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/wal.h"
#include "engine/wal_copy_inside.h"
#include "shm/process.h"

#define CLOSE_NS      UINT64_C(3000000000) /* for a mender at work to look up, at least */
#define CLOSE_LOOK_NS UINT64_C(20000000)

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
        mn_wal_copy_fail(c, mn_error_text());
        return;
    }
    c->removed_first = c->wal_first;
    if (trusted && there) {
        c->state = MN_COPY_CURRENT;
        return;
    }
    mn_wal_copy_fall_behind(c, MN_COPY_BEHIND);
    mn_wal_copy_tell(c, "the second copy of the log in %s %s: it is being made anew", c->twin.dir,
                     c->folder.fresh ? "was missing or empty" : "is not up to date");
}

static enum mn_status start_thread(struct mn_wal_copy *c, pthread_t *thread, void *(*body)(void *context))
{
    pthread_mutex_lock(&c->lock);
    errno = pthread_create(thread, NULL, body, c);
    bool started = errno == 0;
    c->threads += started;
    pthread_mutex_unlock(&c->lock);
    return started ? MN_OK : MN_FAIL_ERRNO("cannot start a thread that writes the second copy of the log");
}

static enum mn_status start_threads(struct mn_wal_copy *c)
{
    MN_TRY(start_thread(c, &c->syncer, mn_wal_copy_sync_always));
    c->syncing = true;
    MN_TRY(start_thread(c, &c->mender, mn_wal_copy_mend_always));
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
    c->job_done = true;
    c->seen_ns = mn_clock_ns();
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

/* With the lock held. False: a thread does not come back from the disk. */
static bool threads_end(struct mn_wal_copy *c)
{
    while (c->threads > 0) {
        uint64_t now = mn_clock_ns();
        uint64_t most = c->wait_ns > CLOSE_NS ? c->wait_ns : CLOSE_NS;
        if (c->job_left || (now > c->seen_ns && now - c->seen_ns > most))
            return false;
        mn_wal_copy_wait_for_answer(c, now + CLOSE_LOOK_NS);
    }
    return true;
}

void mn_wal_copy_close(struct mn_wal_copy *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_broadcast(&c->asked);
    pthread_cond_broadcast(&c->changed);
    bool ended = threads_end(c);
    pthread_mutex_unlock(&c->lock);
    if (!ended)
        return; /* with what they use: the process ends, and they with it */
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
