/*
 * wal_copy_inside.h - the inside of the log's second copy, shared by its files: wal_copy_open.c (where it begins and
 * ends), wal_copy.c (batches, segments, what others ask) and wal_copy_mend.c (the thread that brings it up to date).
 */
#ifndef MN_ENGINE_WAL_COPY_INSIDE_H
#define MN_ENGINE_WAL_COPY_INSIDE_H

#include <pthread.h>

#include "engine/record.h"
#include "engine/wal_copy.h"

#define MN_COPY_OPEN_MAX  4u  /* segments begun and not ended: two while one follows the other */
#define MN_COPY_AHEAD_MAX 24u /* segments that are prepared and not begun: more than the keeper has */

/* CURRENT: each segment has its twin. BEHIND: the folder can be written, twins are being made. FAILED: it cannot. */
enum mn_copy_state { MN_COPY_CURRENT, MN_COPY_BEHIND, MN_COPY_FAILED };

/* A segment that the writer has begun. Without a twin it is `bare`. */
struct mn_copy_open {
    uint64_t number; /* 0 = a free place */
    bool bare;
};

/* A prepared segment that nobody has begun, and whether its twin was made since the folder was entered. */
struct mn_copy_ahead {
    uint64_t number, bytes, asked_ns;
    bool made;
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
    uint64_t changes;  /* grows whenever something happens that a mender at work may have missed */
    bool ended_mended; /* since the folder was entered, every segment that is ended was compared or copied */
    bool told;         /* that it cannot be written, in this outage */
    struct mn_copy_open open[MN_COPY_OPEN_MAX];
    uint64_t suspects[MN_COPY_OPEN_MAX]; /* their twins met a failed write: what the page cache shows proves nothing */
    uint32_t suspect_count;
    struct mn_copy_ahead ahead[MN_COPY_AHEAD_MAX];
    uint32_t ahead_count;
    uint64_t wal_first;
    uint64_t removed_first; /* twins below that are gone; wal_first, in the end */
    uint64_t mended;
    uint64_t seen_ns; /* when the mender last came back from the disk */
    char news[512];
    uint64_t wait_ns; /* for an answer of the disk */
    struct mn_copy_job {
        enum { MN_COPY_OPENS, MN_COPY_WRITES, MN_COPY_CLOSES } kind; /* closes: whatever is ended, as after each */
        uint64_t number;                                             /* of the segment */
        struct mn_wal_header header;                                 /* opens: it gets it */
        const void *data;                                            /* writes, and syncs */
        uint64_t bytes, offset;
    } job; /* the syncer's while it is not done */
    bool job_asked, job_done;
    bool job_left;    /* the disk hangs: nobody waits for the answer any more */
    uint32_t threads; /* that have not ended */
};

/* With the lock held. tell: the news, one sentence. any_bare: a segment that is being written has no twin. fall_behind:
 * twins are missing from now on. */
void mn_wal_copy_tell(struct mn_wal_copy *copy, const char *format, ...) MN_PRINTF(2, 3);
bool mn_wal_copy_any_bare(const struct mn_wal_copy *copy);
void mn_wal_copy_fall_behind(struct mn_wal_copy *copy, enum mn_copy_state state);

/* Something could not be written there: nothing more is, until the folder has been brought up to date. Takes the lock.
 */
void mn_wal_copy_fail(struct mn_wal_copy *copy, const char *why);

/* With the lock held. 0: a thread has done something; ETIMEDOUT: none has until then (mn_clock_ns). */
int mn_wal_copy_wait_for_answer(struct mn_wal_copy *copy, uint64_t end_ns);

/* The last thing that a thread does, with the lock held: lets go of it. */
void mn_wal_copy_thread_ends(struct mn_wal_copy *copy);

/* wal_copy.c: the syncer, until copy->stop. */
void *mn_wal_copy_sync_always(void *context);

/* wal_copy_mend.c: the thread, until copy->stop; and what a mender that was killed has left, in <dir>/wal. */
void *mn_wal_copy_mend_always(void *context);
enum mn_status mn_wal_copy_remove_retired(const struct mn_store *twin, uint64_t wal_first) MN_MUST_USE;

#endif
