/*
 * turns.c - see turns.h. The program is linked with --wrap for the calls below.
 */
#include "tests/faults/disk/turns.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define STEP_NS UINT64_C(1000)
#define WAIT_NS UINT64_C(50000000)

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *context);
int __real_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *context);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *until);
int __wrap_usleep(unsigned us);
int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left);
uint64_t __wrap_mn_clock_ns(void);
int64_t __wrap_mn_wall_ns(void);

static struct {
    uint64_t clock_ns;
    pthread_t thread;
    bool lives, ended;
    sem_t story, keeper; /* whose turn it is */
    void *(*body)(void *);
    void *context;
} turns;

static _Thread_local bool is_keeper;

static void wait_for(sem_t *turn)
{
    while (sem_wait(turn) != 0)
        continue;
}

void turns_pass(uint64_t ns)
{
    turns.clock_ns += ns;
}

void turns_give(void)
{
    if (!turns.lives || turns.ended)
        return;
    sem_post(&turns.keeper);
    wait_for(&turns.story);
}

static void *live(void *unused)
{
    (void)unused;
    is_keeper = true;
    wait_for(&turns.keeper);
    void *result = turns.body(turns.context);
    turns.ended = true;
    sem_post(&turns.story);
    return result;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *context)
{
    if (turns.lives) {
        fprintf(stderr, "turns: a third thread\n");
        abort();
    }
    sem_init(&turns.story, 0, 0);
    sem_init(&turns.keeper, 0, 0);
    turns.body = body;
    turns.context = context;
    turns.ended = false;
    int error = __real_pthread_create(thread, attributes, live, NULL);
    turns.lives = error == 0;
    turns.thread = *thread;
    return error;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    while (!turns.ended)
        turns_give();
    turns.lives = false;
    return __real_pthread_join(thread, result);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *until)
{
    (void)condition;
    (void)until;
    pthread_mutex_unlock(lock);
    if (is_keeper) {
        sem_post(&turns.story);
        wait_for(&turns.keeper);
    } else {
        turns_pass(WAIT_NS);
        turns_give();
    }
    pthread_mutex_lock(lock);
    return 0;
}

int __wrap_usleep(unsigned us)
{
    turns_pass((uint64_t)us * 1000);
    return 0;
}

int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left)
{
    (void)left;
    turns_pass((uint64_t)wanted->tv_nsec);
    return 0;
}

uint64_t __wrap_mn_clock_ns(void)
{
    turns.clock_ns += STEP_NS;
    return UINT64_C(1000000000000) + turns.clock_ns;
}

int64_t __wrap_mn_wall_ns(void)
{
    turns.clock_ns += STEP_NS;
    return INT64_C(1700000000000000000) + (int64_t)turns.clock_ns;
}
