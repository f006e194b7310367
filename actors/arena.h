/*
 * arena.h - memory for one request: taken in small pieces, given back all at once.
 *
 * Blocks are kept from request to request as long as they are small in sum, so a steady load allocates nothing. Who
 * takes from an arena bounds what a request may ask for (the decoder's limits); an arena itself only fails when memory
 * ends.
 */
#ifndef MN_ACTORS_ARENA_H
#define MN_ACTORS_ARENA_H

#include "shm/status.h"

struct mn_arena_block;

struct mn_arena {
    struct mn_arena_block *first, *current;
    size_t used; /* in current */
};

/* `bytes` of uninitialised memory aligned to `align` (a power of two up to 64), valid until the next reset. NULL when
 * memory ends. A zeroed struct is an empty arena. */
void *mn_arena_take(struct mn_arena *arena, size_t bytes, size_t align);
/* Gives back what the newest piece has too much: it now ends at `end`. */
void mn_arena_trim(struct mn_arena *arena, const void *end);
/* Forgets everything that was taken; keeps up to 4 MiB of blocks. */
void mn_arena_reset(struct mn_arena *arena);
/* All of it; the arena is empty then. */
void mn_arena_free(struct mn_arena *arena);

/* An array of `count` of a type into `pointer`; fails the calling function with MN_INTERNAL when memory ends. */
#define MN_ARENA_ARRAY(arena, pointer, count)                                                                          \
    do {                                                                                                               \
        (pointer) = mn_arena_take((arena), (size_t)(count) * sizeof *(pointer), 16);                                   \
        if (!(pointer))                                                                                                \
            return MN_FAIL(MN_INTERNAL, "no memory for the request");                                                  \
    } while (0)

#endif
