/*
 * live_codes.h - a live store and its codes: segment by segment, taken care of step by step.
 */
#ifndef MN_TESTS_UNIT_LIVE_CODES_H
#define MN_TESTS_UNIT_LIVE_CODES_H

#include "tests/unit/live_store.h"

/* cmocka's, for a test whose state is a live store that merges nothing unasked. */
int live_codes_setup(void **state);
int live_codes_teardown(void **state);

/* A new column segment of `count` memories. */
void live_add_segment(struct live_store *s, uint32_t space, uint32_t id, uint32_t count);
uint64_t live_only_segment(struct live_store *s);

/* Care until there is nothing left to do; how many steps it took, calibrations not counted. */
uint32_t live_care_all(struct live_store *s);

/* The newest codebook; that every segment is on this one; rows that a reader finds without codes. */
uint64_t live_codebook(struct live_store *s);
void live_all_on(struct live_store *s, uint64_t gen);
uint32_t live_uncoded(struct live_store *s);

/* Whether the file is there. */
bool live_ivf_there(const struct live_store *s, uint64_t segment, uint64_t gen);

#endif
