/*
 * recall_slow.h - the slow lane of a recall worker: threads that take exact recalls, batches, lists and counts off the
 * main loop.
 *
 * Requests go in, replies come out; an eventfd becomes readable when there are some. All functions but the threads' own
 * are the main thread's. Shadows (recall_shadow.h) go in and nothing comes out.
 */
#ifndef MN_ACTORS_RECALL_SLOW_H
#define MN_ACTORS_RECALL_SLOW_H

#include <pthread.h>

#include "actors/recall_lane.h"
#include "actors/router.h"

#define MN_RECALL_SLOW_MAX   1024         /* requests that wait; more are busy */
#define MN_RECALL_SLOW_BYTES (256u << 20) /* of their frames */

/* A request on its way through; then `reply` is its answer. */
struct mn_recall_job {
    struct mn_recall_job *next;
    struct mn_held held;
    char *reply; /* owned; NULL: no memory for an answer */
    size_t reply_bytes;
    struct mn_shadow_answer *shadow; /* owned; the job is to check this answer, with no reply; else NULL */
};

struct mn_recall_jobs {
    struct mn_recall_job *first, **last;
};

struct mn_recall_slow {
    pthread_mutex_t mutex;
    pthread_cond_t wanted;
    struct mn_recall_jobs todo, done; /* under the mutex */
    bool stopping;                    /* under the mutex */
    uint64_t bytes;                   /* under the mutex */
    /* Changed under the mutex, read by the main thread without it: in todo; in todo, with a thread or in done; in done.
     * A stale look costs a turn. */
    _Atomic uint32_t waiting, under_way, answered;
    _Atomic uint64_t shadows_rest_ns; /* until then no answer is checked */
    int event_fd;
    uint32_t thread_count;
    struct mn_recall_thread *threads;
};

/* thread_count 0: there is no slow lane, and nothing may be put in. */
enum mn_status mn_recall_slow_open(struct mn_recall_slow *slow, struct mn_actor *actor,
                                   uint32_t thread_count) MN_MUST_USE;
void mn_recall_slow_close(struct mn_recall_slow *slow);

/* Takes the frame over (`held` is empty then). MN_BUSY when too many wait. */
enum mn_status mn_recall_slow_put(struct mn_recall_slow *slow, struct mn_held *held) MN_MUST_USE;
/* Takes the frame and the answer over and returns true, unless there is anything to do for the lane, or the last such
 * check has cost too much for another (mn_recall_shadow_rest). */
bool mn_recall_slow_shadow(struct mn_recall_slow *slow, struct mn_held *held, struct mn_shadow_answer *answer);
/* The next answered request, or NULL; the caller frees it with mn_recall_job_free. */
struct mn_recall_job *mn_recall_slow_take(struct mn_recall_slow *slow);
void mn_recall_job_free(struct mn_recall_job *job);
/* Requests that wait for a thread; that have not been taken back; that can be taken back. */
uint32_t mn_recall_slow_waiting(const struct mn_recall_slow *slow);
uint32_t mn_recall_slow_under_way(const struct mn_recall_slow *slow);
uint32_t mn_recall_slow_answered(const struct mn_recall_slow *slow);

#endif
