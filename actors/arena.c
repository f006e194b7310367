/*
 * arena.c - memory for one request (see arena.h): a chain of blocks, each twice as large as the one before.
 */
#include "actors/arena.h"

#include <stdlib.h>

#define BLOCK_FIRST (64u << 10)
#define BLOCK_LAST  (16u << 20)
#define KEPT_BYTES  (4u << 20)

struct mn_arena_block {
    struct mn_arena_block *next;
    size_t room;
    _Alignas(64) unsigned char data[];
};

/* A block behind the current one with room for `bytes`: the next that is there, or a new one in front of it. */
static struct mn_arena_block *step(struct mn_arena *arena, size_t bytes)
{
    struct mn_arena_block *last = arena->current, *next = last ? last->next : arena->first;
    if (next && next->room >= bytes)
        return next;
    size_t room = last ? last->room * 2 : BLOCK_FIRST;
    if (room > BLOCK_LAST)
        room = BLOCK_LAST;
    if (room < bytes)
        room = bytes;
    size_t whole = (sizeof(struct mn_arena_block) + room + 63) / 64 * 64;
    struct mn_arena_block *block = aligned_alloc(64, whole);
    if (!block)
        return NULL;
    *block = (struct mn_arena_block){.next = next, .room = room};
    if (last)
        last->next = block;
    else
        arena->first = block;
    return block;
}

void *mn_arena_take(struct mn_arena *arena, size_t bytes, size_t align)
{
    size_t at = (arena->used + align - 1) & ~(align - 1);
    if (!arena->current || at > arena->current->room || bytes > arena->current->room - at) {
        struct mn_arena_block *block = step(arena, bytes);
        if (!block)
            return NULL;
        arena->current = block;
        at = 0;
    }
    arena->used = at + bytes;
    return arena->current->data + at;
}

void mn_arena_trim(struct mn_arena *arena, const void *end)
{
    arena->used = (size_t)((const unsigned char *)end - arena->current->data);
}

static void drop(struct mn_arena_block *block)
{
    while (block) {
        struct mn_arena_block *next = block->next;
        free(block);
        block = next;
    }
}

void mn_arena_reset(struct mn_arena *arena)
{
    size_t kept = 0;
    struct mn_arena_block **link = &arena->first;
    while (*link && kept + (*link)->room <= KEPT_BYTES) {
        kept += (*link)->room;
        link = &(*link)->next;
    }
    drop(*link);
    *link = NULL;
    arena->current = NULL;
    arena->used = 0;
}

void mn_arena_free(struct mn_arena *arena)
{
    drop(arena->first);
    *arena = (struct mn_arena){0};
}
