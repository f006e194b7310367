/*
 * work.h - what the processes of a store do in a life: write, acknowledge, read, compact, copy, retry.
 *
 * Each move is drawn from the seed. False: the life has ended, for the disk failed or the process died; a failure that
 * nobody is to blame for ends the seed instead (world_broken).
 */
#ifndef MN_TESTS_FAULTS_DISK_WORK_H
#define MN_TESTS_FAULTS_DISK_WORK_H

#include "tests/faults/disk/world.h"

/* True when the process is dead or a call has failed: then a failure is no wonder. */
bool work_blamed(void);
/* A call of the engine has failed: false, when somebody is to blame. */
bool work_failed(struct world *world, const char *what);

/* One move, whatever it is. */
bool work_step(struct world *world);
bool work_write(struct world *world);
bool work_commit(struct world *world);
/* force: all there is, whatever the policy. */
bool work_compact(struct world *world, bool force);
/* What was in flight when the life before this one ended is asked again, as clients do. landed: it was there. */
bool work_retry(struct world *world, bool landed);
/* Housekeeping, and some time. */
void work_tend(struct world *world);
/* What is acknowledged is visible. */
void work_look(struct world *world);
/* Lets go of the snapshot that is held, if one is: all of it is as it was then, and its files are there. */
void work_let_go(struct world *world);

#endif
