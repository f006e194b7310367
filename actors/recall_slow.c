/*
 * recall_slow.c - the slow lane of a recall worker (see recall_slow.h): a queue, its threads, and the way back.
 *
 * A mutex guards two short lists and nothing else; no request is worked on under it. The fast lane takes it only to
 * hand a request over or to fetch an answer that it knows is there. The eventfd changes under the mutex as well: it is
 * readable when and only when there are answers.
 */
#include "actors/recall_slow.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "actors/recall_peek.h"
#include "engine/columns.h"
#include "shm/process.h"

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
    free(job->shadow);
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
        atomic_fetch_sub(&slow->waiting, 1);
        slow->bytes -= job->held.bytes;
    }
    pthread_mutex_unlock(&slow->mutex);
    return job;
}

static void hand_back(struct mn_recall_slow *slow, struct mn_recall_job *job)
{
    pthread_mutex_lock(&slow->mutex);
    append(&slow->done, job);
    atomic_fetch_add(&slow->answered, 1);
    eventfd_write(slow->event_fd, 1);
    pthread_mutex_unlock(&slow->mutex);
}

static void finish_shadow(struct mn_recall_slow *slow, struct mn_recall_job *job)
{
    mn_recall_job_free(job);
    atomic_fetch_sub(&slow->under_way, 1);
}

static void check(struct mn_recall_thread *self, const struct mn_request *request,
                  const struct mn_shadow_answer *answer)
{
    uint64_t begin = mn_clock_ns();
    mn_recall_lane_check(&self->lane, request, answer);
    uint64_t end = mn_clock_ns();
    atomic_store(&self->slow->shadows_rest_ns, end + mn_recall_shadow_rest(end - begin, mn_columns_scattered()));
}

static void work(struct mn_recall_thread *self, struct mn_recall_job *job)
{
    struct mn_recall_lane *lane = &self->lane;
    struct mn_recall_peek peek;
    enum mn_status status = mn_recall_peek(&peek, zmq_msg_data(&job->held.body), zmq_msg_size(&job->held.body));
    if (status == MN_OK && job->shadow)
        check(self, &peek.request, job->shadow);
    if (job->shadow)
        return;
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
        work(self, job);
        if (job->shadow)
            finish_shadow(self->slow, job);
        else
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

/* Under the mutex. False: no memory. */
static bool put(struct mn_recall_slow *slow, struct mn_held *held, struct mn_shadow_answer *answer)
{
    struct mn_recall_job *job = calloc(1, sizeof *job);
    if (!job)
        return false;
    mn_held_move(&job->held, held);
    job->shadow = answer;
    append(&slow->todo, job);
    atomic_fetch_add(&slow->waiting, 1);
    atomic_fetch_add(&slow->under_way, 1);
    slow->bytes += job->held.bytes;
    pthread_cond_signal(&slow->wanted);
    return true;
}

enum mn_status mn_recall_slow_put(struct mn_recall_slow *slow, struct mn_held *held)
{
    pthread_mutex_lock(&slow->mutex);
    bool taken =
        atomic_load(&slow->waiting) < MN_RECALL_SLOW_MAX && slow->bytes < MN_RECALL_SLOW_BYTES && put(slow, held, NULL);
    pthread_mutex_unlock(&slow->mutex);
    if (!taken)
        return MN_FAIL(MN_BUSY, "too many exact, list, count or batch requests wait for their thread; try again");
    return MN_OK;
}

bool mn_recall_slow_shadow(struct mn_recall_slow *slow, struct mn_held *held, struct mn_shadow_answer *answer)
{
    if (slow->thread_count == 0 || atomic_load(&slow->under_way) > 0 ||
        mn_clock_ns() < atomic_load(&slow->shadows_rest_ns))
        return false;
    pthread_mutex_lock(&slow->mutex);
    bool taken = put(slow, held, answer);
    pthread_mutex_unlock(&slow->mutex);
    return taken;
}

struct mn_recall_job *mn_recall_slow_take(struct mn_recall_slow *slow)
{
    if (atomic_load(&slow->answered) == 0)
        return NULL;
    pthread_mutex_lock(&slow->mutex);
    struct mn_recall_job *job = remove_first(&slow->done);
    atomic_fetch_sub(&slow->under_way, 1);
    if (atomic_fetch_sub(&slow->answered, 1) == 1)
        eventfd_read(slow->event_fd, &(eventfd_t){0});
    pthread_mutex_unlock(&slow->mutex);
    return job;
}

uint32_t mn_recall_slow_waiting(const struct mn_recall_slow *slow)
{
    return atomic_load(&slow->waiting);
}

uint32_t mn_recall_slow_under_way(const struct mn_recall_slow *slow)
{
    return atomic_load(&slow->under_way);
}

uint32_t mn_recall_slow_answered(const struct mn_recall_slow *slow)
{
    return atomic_load(&slow->answered);
}
