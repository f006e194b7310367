/*
 * wal_copy_inside.h - the inside of the log's second copy, shared by its two files: wal_copy.c (batches, segments, what
 * others ask) and wal_copy_mend.c (the thread that brings it up to date).
 */
#ifndef MN_ENGINE_WAL_COPY_INSIDE_H
#define MN_ENGINE_WAL_COPY_INSIDE_H

#include <pthread.h>

#include "engine/wal_copy.h"

#define MN_COPY_OPEN_MAX 4u /* segments begun and not ended: two while one follows the other */

/* CURRENT: each segment has its twin. BEHIND: the folder can be written, twins are being made. FAILED: it cannot. */
enum mn_copy_state { MN_COPY_CURRENT, MN_COPY_BEHIND, MN_COPY_FAILED };

/* A segment that the writer has begun. Without a twin it is `bare`. */
struct mn_copy_open {
    uint64_t number; /* 0 = a free place */
    bool bare;
};

struct mn_wal_copy {
    struct mn_store home, twin;   /* the store, and with the copy's folder */
    struct mn_copy_folder folder; /* as it was entered; the mender's, once that runs */
    _Atomic uint32_t *reasons;
    pthread_t syncer, mender;
    bool syncing, mending; /* the threads were started */
    pthread_mutex_t lock;
    pthread_cond_t asked, answered, changed;
    /* all under the lock */
    bool stop;
    enum mn_copy_state state;
    uint64_t entered;  /* how often the folder was */
    uint64_t prepared; /* the entry since which each segment that the keeper holds ready has a twin */
    uint64_t changes;  /* grows whenever something happens that a mender at work may have missed */
    bool ended_mended; /* since the folder was entered, every segment that is ended was compared or copied */
    bool told;         /* that it cannot be written, in this outage */
    struct mn_copy_open open[MN_COPY_OPEN_MAX];
    uint64_t suspects[MN_COPY_OPEN_MAX]; /* their twins met a failed write: what the page cache shows proves nothing */
    uint32_t suspect_count;
    uint64_t wal_first, mended;
    char news[512];
    uint64_t wait_ns; /* for the syncer's answer */
    struct {
        int fd;
        const void *data;
        uint64_t bytes, offset;
        bool asked, done;
        bool left;   /* the disk hangs: nobody waits for the answer any more, */
        bool closes; /* and the syncer closes the file when it has it */
    } job;
};

/* With the lock held. tell: the news, one sentence. any_bare: a segment that is being written has no twin. */
void mn_wal_copy_tell(struct mn_wal_copy *copy, const char *format, ...) MN_PRINTF(2, 3);
bool mn_wal_copy_any_bare(const struct mn_wal_copy *copy);

/* wal_copy_mend.c: the thread, until copy->stop; and what a mender that was killed has left, in <dir>/wal. */
void *mn_wal_copy_mend_always(void *context);
enum mn_status mn_wal_copy_remove_retired(const struct mn_store *twin, uint64_t wal_first) MN_MUST_USE;

#endif
