/*
 * recall_slow.c - the slow lane of a recall worker (see recall_slow.h): a queue, its threads, and the way back.
 *
 * A mutex guards two short lists and nothing else; no request is worked on under it. The fast lane takes it only to
 * hand a request over or to fetch an answer.
 */
#include "actors/recall_slow.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct mn_recall_thread {
    pthread_t thread;
    bool running;
    struct mn_recall_slow *slow;
    struct mn_recall_lane lane;
};

static void append(struct mn_recall_jobs *jobs, struct mn_recall_job *job)
{
    job->next = NULL;
    *jobs->last = job;
    jobs->last = &job->next;
}

static struct mn_recall_job *remove_first(struct mn_recall_jobs *jobs)
{
    struct mn_recall_job *job = jobs->first;
    if (job) {
        jobs->first = job->next;
        if (!jobs->first)
            jobs->last = &jobs->first;
    }
    return job;
}

void mn_recall_job_free(struct mn_recall_job *job)
{
    zmq_msg_close(&job->held.body);
    free(job->reply);
    free(job);
}

/* ---- the threads */

/* Waits for a request; NULL when the lane closes. */
static struct mn_recall_job *next_job(struct mn_recall_slow *slow)
{
    struct mn_recall_job *job = NULL;
    pthread_mutex_lock(&slow->mutex);
    while (!slow->stopping && !(job = remove_first(&slow->todo)))
        pthread_cond_wait(&slow->wanted, &slow->mutex);
    if (job) {
        slow->waiting--;
        slow->bytes -= job->held.bytes;
    }
    pthread_mutex_unlock(&slow->mutex);
    return job;
}

static void hand_back(struct mn_recall_slow *slow, struct mn_recall_job *job)
{
    pthread_mutex_lock(&slow->mutex);
    append(&slow->done, job);
    pthread_mutex_unlock(&slow->mutex);
    eventfd_write(slow->event_fd, 1);
}

static void work(struct mn_recall_lane *lane, struct mn_recall_job *job)
{
    struct mn_recall_peek peek;
    enum mn_status status = mn_recall_peek(&peek, zmq_msg_data(&job->held.body), zmq_msg_size(&job->held.body));
    if (status == MN_OK)
        mn_recall_lane_answer(lane, &peek.request, job->held.received_ns);
    else
        mn_recall_lane_refuse(lane, peek.request.rid, status, mn_error_text());
    job->reply = mn_reply_take(&lane->reply, &job->reply_bytes);
}

static void *run(void *context)
{
    struct mn_recall_thread *self = context;
    struct mn_recall_job *job;
    while ((job = next_job(self->slow)) != NULL) {
        work(&self->lane, job);
        hand_back(self->slow, job);
    }
    return NULL;
}

static enum mn_status start_thread(struct mn_recall_slow *slow, struct mn_actor *actor, struct mn_recall_thread *thread)
{
    thread->slow = slow;
    MN_TRY(mn_recall_lane_open(&thread->lane, actor));
    if (pthread_create(&thread->thread, NULL, run, thread) != 0)
        return MN_FAIL(MN_SYSTEM, "cannot start a thread for slow recalls");
    thread->running = true;
    return MN_OK;
}

/* ---- the main thread's side */

enum mn_status mn_recall_slow_open(struct mn_recall_slow *slow, struct mn_actor *actor, uint32_t thread_count)
{
    *slow = (struct mn_recall_slow){.event_fd = -1};
    slow->todo.last = &slow->todo.first;
    slow->done.last = &slow->done.first;
    pthread_mutex_init(&slow->mutex, NULL);
    pthread_cond_init(&slow->wanted, NULL);
    slow->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (slow->event_fd < 0)
        return MN_FAIL_ERRNO("eventfd");
    slow->threads = calloc(thread_count + 1u, sizeof *slow->threads);
    if (!slow->threads)
        return MN_FAIL(MN_INTERNAL, "no memory for the slow lane");
    for (; slow->thread_count < thread_count; slow->thread_count++) {
        enum mn_status status = start_thread(slow, actor, &slow->threads[slow->thread_count]);
        if (status == MN_OK)
            continue;
        mn_recall_lane_close(&slow->threads[slow->thread_count].lane);
        return status;
    }
    return MN_OK;
}

static void stop_threads(struct mn_recall_slow *slow)
{
    pthread_mutex_lock(&slow->mutex);
    slow->stopping = true;
    pthread_cond_broadcast(&slow->wanted);
    pthread_mutex_unlock(&slow->mutex);
    for (uint32_t i = 0; i < slow->thread_count; i++) {
        pthread_join(slow->threads[i].thread, NULL);
        mn_recall_lane_close(&slow->threads[i].lane);
    }
}

void mn_recall_slow_close(struct mn_recall_slow *slow)
{
    struct mn_recall_job *job;
    if (!slow->todo.last)
        return; /* never opened */
    stop_threads(slow);
    while ((job = remove_first(&slow->todo)) || (job = remove_first(&slow->done)))
        mn_recall_job_free(job);
    free(slow->threads);
    if (slow->event_fd >= 0)
        close(slow->event_fd);
    pthread_cond_destroy(&slow->wanted);
    pthread_mutex_destroy(&slow->mutex);
}

enum mn_status mn_recall_slow_put(struct mn_recall_slow *slow, struct mn_held *held)
{
    struct mn_recall_job *job = NULL;
    pthread_mutex_lock(&slow->mutex);
    bool room = slow->waiting < MN_RECALL_SLOW_MAX && slow->bytes < MN_RECALL_SLOW_BYTES;
    if (room)
        job = calloc(1, sizeof *job);
    if (job) {
        mn_held_move(&job->held, held);
        append(&slow->todo, job);
        slow->waiting++;
        slow->under_way++;
        slow->bytes += job->held.bytes;
        pthread_cond_signal(&slow->wanted);
    }
    pthread_mutex_unlock(&slow->mutex);
    if (!job)
        return MN_FAIL(MN_BUSY, "too many exact, list, count or batch requests wait for their thread; try again");
    return MN_OK;
}

struct mn_recall_job *mn_recall_slow_take(struct mn_recall_slow *slow)
{
    pthread_mutex_lock(&slow->mutex);
    struct mn_recall_job *job = remove_first(&slow->done);
    if (job)
        slow->under_way--;
    else
        eventfd_read(slow->event_fd, &(eventfd_t){0}); /* under the mutex: a later answer sets it again */
    pthread_mutex_unlock(&slow->mutex);
    return job;
}

uint32_t mn_recall_slow_waiting(struct mn_recall_slow *slow)
{
    pthread_mutex_lock(&slow->mutex);
    uint32_t waiting = slow->waiting;
    pthread_mutex_unlock(&slow->mutex);
    return waiting;
}

uint32_t mn_recall_slow_under_way(struct mn_recall_slow *slow)
{
    pthread_mutex_lock(&slow->mutex);
    uint32_t under_way = slow->under_way;
    pthread_mutex_unlock(&slow->mutex);
    return under_way;
}
