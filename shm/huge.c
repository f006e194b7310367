/*
 * huge.c - mappings of shared memory that can have huge pages.
 */
#include "shm/huge.h"

#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* More than is wanted, so that an aligned place is in it; then what is around that is given back. */
static void *map_aligned(int fd, uint64_t bytes, int protection)
{
    const uint64_t huge = MN_HUGE_BYTES;
    uint8_t *room = mmap(NULL, bytes + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return MAP_FAILED;
    uint8_t *at = (uint8_t *)(uintptr_t)(((uintptr_t)room + huge - 1) / huge * huge);
    uint8_t *end = at + (bytes + 4095) / 4096 * 4096, *room_end = room + (bytes + huge + 4095) / 4096 * 4096;
    if (mmap(at, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        munmap(room, (size_t)(room_end - room));
        return MAP_FAILED;
    }
    if (at > room)
        munmap(room, (size_t)(at - room));
    if (room_end > end)
        munmap(end, (size_t)(room_end - end));
    return at;
}

enum mn_status mn_huge_map(int fd, uint64_t bytes, bool writable, const char *name, void **base)
{
    int protection = PROT_READ | (writable ? PROT_WRITE : 0);
    void *at =
        bytes < MN_HUGE_BYTES ? mmap(NULL, bytes, protection, MAP_SHARED, fd, 0) : map_aligned(fd, bytes, protection);
    if (at == MAP_FAILED)
        return MN_FAIL_ERRNO("cannot map shared segment %s (%llu bytes)", name, (unsigned long long)bytes);
    *base = at;
    return MN_OK;
}

void mn_huge_collapse(void *base, uint64_t from, uint64_t end)
{
    const uint64_t huge = MN_HUGE_BYTES;
    for (from = (from + huge - 1) / huge * huge; from + huge <= end; from += huge)
        madvise((uint8_t *)base + from, huge, MADV_COLLAPSE);
}
