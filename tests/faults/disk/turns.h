/*
 * turns.h - one thread at a time, and a clock that stands still: what makes a seed come out the same each time.
 *
 * The writer's keeper is the one thread beside the story's own. It runs only while the story waits for it: in
 * pthread_cond_timedwait, in pthread_join, and in turns_give. It runs until it has nothing to do (its own
 * pthread_cond_timedwait) or ends. Waits do not sleep: they move the clock.
 */
#ifndef MN_TESTS_FAULTS_DISK_TURNS_H
#define MN_TESTS_FAULTS_DISK_TURNS_H

#include <stdint.h>

/* Lets the keeper do what it has to do. */
void turns_give(void);
/* Moves the clock. */
void turns_pass(uint64_t ns);

#endif
