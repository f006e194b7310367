/*
 * story.h - what happens to a store in the life of one seed.
 */
#ifndef MN_TESTS_FAULTS_DISK_STORY_H
#define MN_TESTS_FAULTS_DISK_STORY_H

#include "tests/faults/disk/world.h"

/* Tells one seed's story; returns when all was well, else the process ends (world_broken). */
void story_tell(uint64_t seed, struct world_tally *tally, struct world_slot *slot);

#endif
