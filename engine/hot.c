/*
 * hot.c - hot copies as their readers see them: names, the choice among the nodes' copies, mapping, removing.
 *
 * hot_make.c says what such a file is.
 */
#include "engine/hot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/hot_inside.h"
#include "shm/numa.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define HERE UINT32_MAX /* not placed: the node that the caller runs on */

static _Atomic uint32_t own_node = HERE;
static _Atomic bool lock_copies;

void mn_hot_place(uint32_t node, bool lock)
{
    atomic_store(&own_node, node);
    atomic_store(&lock_copies, lock);
}

/* ---- names ---- */

void mn_hot_name(char name[MN_HOT_NAME_MAX], uint64_t segment, uint64_t codebook, uint32_t node)
{
    snprintf(name, MN_HOT_NAME_MAX, "hot.%" PRIu64 ".%" PRIu64 ".%" PRIu32, segment, codebook, node);
}

static bool read_name(const char *name, uint64_t *segment, uint64_t *codebook, uint32_t *node)
{
    return sscanf(name, "hot.%" SCNu64 ".%" SCNu64 ".%" SCNu32, segment, codebook, node) == 3;
}

struct visit {
    uint64_t segment;
    enum mn_status (*visit)(void *context, const char *name);
    void *context;
};

static enum mn_status visit_copy(void *context, const char *name)
{
    const struct visit *v = context;
    uint64_t segment, codebook;
    uint32_t node;
    bool ours = read_name(name, &segment, &codebook, &node) && segment == v->segment;
    return ours ? v->visit(v->context, name) : MN_OK;
}

enum mn_status mn_hot_visit(const struct mn_instance *instance, uint64_t segment,
                            enum mn_status (*visit)(void *context, const char *name), void *context)
{
    struct visit v = {segment, visit, context};
    return mn_instance_list(instance, visit_copy, &v);
}

/* ---- mapping ---- */

struct mn_segment_identity mn_hot_identity(const struct mn_instance *instance)
{
    struct mn_segment_identity identity = instance->identity;
    identity.magic = MN_MAGIC_HOT;
    identity.fingerprint = mn_engine_fingerprint();
    return identity;
}

/* The place of each thing in a mapping; false when it does not hold them. */
static bool look_into(struct mn_hot *hot, const void *base, uint64_t bytes, uint64_t segment, uint64_t codebook)
{
    const struct mn_hot_header *own = base;
    const struct mn_column_header *header = (const void *)(own + 1);
    if (bytes < MN_HUGE_BYTES || own->segment != segment || own->codebook != codebook ||
        own->data_bytes > bytes - MN_HUGE_BYTES || header->data_bytes != own->data_bytes || header->segment != segment)
        return false;
    *hot = (struct mn_hot){.base = base,
                           .bytes = bytes,
                           .header = header,
                           .data = (const uint8_t *)base + MN_HUGE_BYTES,
                           .data_bytes = own->data_bytes};
    return true;
}

static bool is_named(const struct mn_instance *instance, const char *name)
{
    return faccessat(instance->dir_fd, name, F_OK, 0) == 0;
}

/* Of this node. A process on a node that has none, nor one in the making, takes that of the lowest node that has. */
static bool choose_name(const struct mn_instance *instance, char name[MN_HOT_NAME_MAX], uint64_t segment,
                        uint64_t codebook)
{
    uint32_t own = atomic_load_explicit(&own_node, memory_order_relaxed);
    mn_hot_name(name, segment, codebook, own == HERE ? mn_numa_here() : own);
    bool there = is_named(instance, name);
    for (uint32_t node = 0; !there && node <= mn_numa_last(); node++) {
        mn_hot_name(name, segment, codebook, node);
        there = is_named(instance, name);
    }
    return there;
}

bool mn_hot_there(const struct mn_instance *instance, uint64_t segment, uint64_t codebook)
{
    char name[MN_HOT_NAME_MAX];
    struct mn_segment_identity identity = mn_hot_identity(instance);
    struct mn_segment seen;
    if (!choose_name(instance, name, segment, codebook) ||
        mn_segment_map(&seen, instance->dir_fd, name, false, &identity) != MN_OK)
        return false;
    mn_segment_unmap(&seen);
    return true;
}

static enum mn_status map_checked(struct mn_hot *hot, const struct mn_instance *instance, const char *name,
                                  uint64_t bytes, uint64_t segment, uint64_t codebook)
{
    int fd = openat(instance->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return MN_FAIL(MN_NOT_FOUND, "there is no %s", name);
    void *base;
    enum mn_status status = mn_huge_map(fd, bytes, false, name, &base);
    close(fd);
    MN_TRY(status);
    if (look_into(hot, base, bytes, segment, codebook))
        return MN_OK;
    munmap(base, bytes);
    return MN_FAIL(MN_CORRUPT, "%s is not the copy that its name says", name);
}

enum mn_status mn_hot_map(struct mn_hot *hot, struct mn_instance *instance, uint64_t segment, uint64_t codebook)
{
    char name[MN_HOT_NAME_MAX];
    struct mn_segment_identity identity = mn_hot_identity(instance);
    struct mn_segment seen;
    *hot = (struct mn_hot){0};
    if (!choose_name(instance, name, segment, codebook))
        return MN_FAIL(MN_NOT_FOUND, "segment %" PRIu64 " has no hot copy", segment);
    enum mn_status status = mn_segment_map(&seen, instance->dir_fd, name, false, &identity);
    if (status == MN_NOT_READY)
        return MN_FAIL(MN_NOT_FOUND, "%s is still being made", name);
    MN_TRY(status);
    uint64_t bytes = seen.bytes;
    mn_segment_unmap(&seen);
    MN_TRY(map_checked(hot, instance, name, bytes, segment, codebook));
    void *data = (void *)(uintptr_t)hot->data; /* what follows changes no byte of it */
    madvise(data, hot->data_bytes, MADV_POPULATE_READ);
    if (atomic_load_explicit(&lock_copies, memory_order_relaxed) && mlock(data, hot->data_bytes) != 0)
        errno = 0; /* not allowed here: it stays a mapping like others */
    return MN_OK;
}

void mn_hot_unmap(struct mn_hot *hot)
{
    if (hot->base)
        munmap((void *)(uintptr_t)hot->base, hot->bytes);
    *hot = (struct mn_hot){0};
}

/* ---- coming and going ---- */

void mn_hot_announce(struct mn_instance *instance)
{
    /* Release: the files are there, or gone, before the number says so. */
    atomic_fetch_add_explicit(&instance->control->hot_gen, 1, memory_order_release);
}

struct pruning {
    const struct mn_instance *instance;
    bool (*wanted)(void *context, uint64_t segment, uint64_t codebook);
    void *context;
    bool *removed;
};

/* A process whose CPUs have changed makes copies for other nodes. */
static bool is_our_node(uint32_t number)
{
    const struct mn_numa_nodes *nodes = mn_numa_nodes();
    for (uint32_t i = 0; i < nodes->count; i++)
        if (nodes->node[i].number == number)
            return nodes->node[i].memory;
    return false;
}

static enum mn_status remove_unwanted(void *context, const char *name)
{
    const struct pruning *p = context;
    uint64_t segment, codebook;
    uint32_t node;
    if (!read_name(name, &segment, &codebook, &node) || (is_our_node(node) && p->wanted(p->context, segment, codebook)))
        return MN_OK;
    *p->removed |= unlinkat(p->instance->dir_fd, name, 0) == 0;
    return MN_OK;
}

enum mn_status mn_hot_prune(const struct mn_instance *instance,
                            bool (*wanted)(void *context, uint64_t segment, uint64_t codebook), void *context,
                            bool *removed)
{
    struct pruning p = {instance, wanted, context, removed};
    return mn_instance_list(instance, remove_unwanted, &p);
}

void mn_hot_remove(const struct mn_instance *instance, uint64_t segment, uint64_t codebook)
{
    char name[MN_HOT_NAME_MAX];
    for (uint32_t node = 0; node <= mn_numa_last(); node++) {
        mn_hot_name(name, segment, codebook, node);
        unlinkat(instance->dir_fd, name, 0);
    }
}
