/*
 * sixty.h - a store of sixty memories in three log segments, for tests that damage it, on a disk that does not wait.
 */
#ifndef MN_TESTS_SIXTY_H
#define MN_TESTS_SIXTY_H

#include "tests/unit/store_fixture.h"

/* What a number stands for: a content of its own, none for some. */
const char *sixty_content(uint64_t number, char text[64]);
/* A started store whose disk does not wait for anything: damage does not ask what was synced. */
struct fixture *sixty_store(void);
/* Three segments of 20 one-memory batches each, ids 1..60; then down. */
struct fixture *sixty_memories(void);
/* How many of ids first..last are there, whole; none may be different. */
uint32_t sixty_there(struct fixture *f, uint64_t first, uint64_t last);

#endif
