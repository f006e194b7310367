/*
 * hot_make.c - making hot copies, one on each node, and keeping them within their budget.
 *
 * A file is a page with the headers, a hole, and from 2 MiB on the data: so a mapping at an address that is a multiple
 * of 2 MiB can be of huge pages. tmpfs gives those only where it is told to (huge=, shmem_enabled), which nobody does;
 * MADV_COLLAPSE moves pages that are there into huge ones whatever it was told. Where that fails, plain pages stay.
 *
 * The copies of all nodes are named before the first is published: so a reader never takes another node's, which it
 * would keep, because its own is not there yet.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "engine/fault.h"
#include "engine/hot_inside.h"
#include "engine/ivf_file.h"
#include "shm/numa.h"
#include "shm/process.h"

/* The nodes that have copies; how many. */
static uint32_t copy_nodes(uint32_t numbers[MN_NUMA_MAX])
{
    const struct mn_numa_nodes *nodes = mn_numa_nodes();
    uint32_t count = 0;
    for (uint32_t i = 0; i < nodes->count; i++)
        if (nodes->node[i].memory)
            numbers[count++] = nodes->node[i].number;
    return count;
}

/* Most of a last huge page is taken whole. */
static uint64_t data_room(uint64_t data_bytes)
{
    uint64_t beyond = data_bytes % MN_HUGE_BYTES;
    return beyond > MN_HUGE_BYTES / 2 ? mn_round_up(data_bytes, MN_HUGE_BYTES) : mn_round_up(data_bytes, 4096);
}

static uint64_t copy_bytes(uint64_t data_bytes)
{
    return 4096 + data_room(data_bytes);
}

/* What the copies of a file take on all nodes. */
static uint64_t all_bytes(uint64_t data_bytes)
{
    uint32_t numbers[MN_NUMA_MAX];
    return copy_nodes(numbers) * copy_bytes(data_bytes);
}

/* ---- the budget ---- */

/* Bytes of shared memory that files of some kind take. */
struct taken {
    const struct mn_instance *instance;
    const char *prefix;
    uint64_t bytes;
};

static enum mn_status add_taken(void *context, const char *name)
{
    struct taken *taken = context;
    struct stat st;
    if (strncmp(name, taken->prefix, strlen(taken->prefix)) == 0 &&
        fstatat(taken->instance->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        taken->bytes += (uint64_t)st.st_blocks * 512;
    return MN_OK;
}

static uint64_t taken_by(const struct mn_instance *instance, const char *prefix)
{
    struct taken taken = {instance, prefix, 0};
    return mn_instance_list(instance, add_taken, &taken) == MN_OK ? taken.bytes : 0;
}

uint64_t mn_hot_budget(const struct mn_instance *instance, uint64_t setting)
{
    uint64_t budget = setting > 0 ? setting : mn_memory_bytes() / 2;
    struct statvfs fs;
    if (fstatvfs(instance->dir_fd, &fs) != 0 || fs.f_blocks == 0)
        return budget;
    uint64_t total = (uint64_t)fs.f_blocks * fs.f_frsize, free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    uint64_t ours = taken_by(instance, "hot.") + taken_by(instance, "codes.");
    uint64_t room = ours + free_bytes > total / 4 ? ours + free_bytes - total / 4 : 0;
    return budget < room ? budget : room;
}

/* ---- making ---- */

/* The copy on one node. */
struct copy {
    uint32_t node;
    char name[MN_HOT_NAME_MAX];
    struct mn_segment front; /* mapped from the beginning, as others see it */
    uint8_t *base;           /* mapped aligned; NULL: not yet */
};

struct making {
    const struct mn_instance *instance;
    const struct mn_column_file *file;
    const char *path; /* of the inverted file */
    uint64_t segment, codebook;
    bool (*pause)(void *context);
    void *context;
    uint64_t bytes; /* of each copy's mapping */
    uint32_t count;
    struct copy copies[MN_NUMA_MAX];
};

static enum mn_status name_all(struct making *m)
{
    uint32_t numbers[MN_NUMA_MAX], nodes = copy_nodes(numbers);
    struct mn_segment_identity identity = mn_hot_identity(m->instance);
    for (uint32_t i = 0; i < nodes; i++) {
        struct copy *copy = &m->copies[i];
        *copy = (struct copy){.node = numbers[i]};
        mn_hot_name(copy->name, m->segment, m->codebook, copy->node);
        unlinkat(m->instance->dir_fd, copy->name, 0); /* what a compactor that died has left */
        MN_TRY(
            mn_segment_create_sparse(&copy->front, m->instance->dir_fd, copy->name, m->bytes, 4096, &identity, 0600));
        m->count = i + 1;
    }
    return MN_OK;
}

/* All of it is there before anything is written: a full /dev/shm is an error here, and a signal later. */
static enum mn_status reserve(const struct making *m, struct copy *copy)
{
    int fd = openat(m->instance->dir_fd, copy->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot open %s", copy->name);
    void *base;
    enum mn_status status = mn_huge_map(fd, m->bytes, true, copy->name, &base);
    if (status == MN_OK) {
        copy->base = base;
        status = mn_numa_place(copy->base, m->bytes, copy->node);
    }
    if (status == MN_OK) {
        errno = posix_fallocate(fd, (off_t)MN_HUGE_BYTES, (off_t)(m->bytes - MN_HUGE_BYTES));
        if (errno != 0)
            status = MN_FAIL_ERRNO("no room for %s in shared memory", copy->name);
    }
    close(fd);
    return status;
}

static enum mn_status check_blocks(const struct making *m, uint64_t at, uint64_t end)
{
    for (uint64_t block = at / MN_COLUMN_BLOCK; block * MN_COLUMN_BLOCK < end; block++)
        if (!mn_column_file_intact(m->file, block))
            return MN_FAIL(MN_CORRUPT, "%s: block %" PRIu64 " does not match its checksum", m->path, block);
    return MN_OK;
}

/* 2 MiB after 2 MiB, each once it is checked; into huge pages where it fills them. */
static enum mn_status fill_all(struct making *m)
{
    uint64_t total = m->file->data_bytes, room = m->bytes - MN_HUGE_BYTES;
    for (uint64_t at = 0; at < total; at += MN_HUGE_BYTES) {
        uint64_t bytes = total - at < MN_HUGE_BYTES ? total - at : MN_HUGE_BYTES;
        MN_TRY(check_blocks(m, at, at + bytes));
        for (uint32_t i = 0; i < m->count; i++) {
            uint8_t *to = m->copies[i].base + MN_HUGE_BYTES + at;
            memcpy(to, m->file->data + at, bytes);
            if (room - at >= MN_HUGE_BYTES)
                mn_huge_collapse(to, 0, MN_HUGE_BYTES); /* or not: they are counted below */
        }
        if (m->pause && m->pause(m->context))
            return MN_FAIL(MN_DEADLINE, "given up half-way");
    }
    return MN_OK;
}

/* What of a mapping is in huge pages, as the kernel tells. */
static uint64_t huge_bytes_of(const void *base)
{
    char line[512];
    unsigned long long start, end, kib, huge = 0;
    bool here = false;
    FILE *file = fopen("/proc/self/smaps", "re");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
            here = (uintptr_t)base >= start && (uintptr_t)base < end;
        else if (here && sscanf(line, "ShmemPmdMapped: %llu", &kib) == 1)
            huge = kib * 1024;
    }
    if (file)
        fclose(file);
    return huge;
}

static void publish(const struct making *m, struct copy *copy)
{
    struct mn_hot_header *own = copy->front.base;
    own->segment = m->segment;
    own->codebook = m->codebook;
    own->data_bytes = m->file->data_bytes;
    own->huge_bytes = huge_bytes_of(copy->base);
    memcpy(own + 1, m->file->header, sizeof *m->file->header);
    mn_segment_publish(&copy->front);
}

static enum mn_status make_all(struct making *m)
{
    MN_TRY(name_all(m));
    for (uint32_t i = 0; i < m->count; i++)
        MN_TRY(reserve(m, &m->copies[i]));
    MN_TRY(fill_all(m));
    for (uint32_t i = 0; i < m->count; i++) {
        MN_FAULT_POINT(hot_filled);
        publish(m, &m->copies[i]);
    }
    return MN_OK;
}

static void unmap_all(struct making *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        if (m->copies[i].base)
            munmap(m->copies[i].base, m->bytes);
        mn_segment_unmap(&m->copies[i].front);
    }
}

static enum mn_status make_within(struct making *m, uint64_t budget)
{
    uint64_t taken = taken_by(m->instance, "hot.") + taken_by(m->instance, "codes.");
    uint64_t need = all_bytes(m->file->data_bytes);
    if (taken > budget || need > budget - taken)
        return MN_FAIL(MN_READ_ONLY,
                       "a hot copy of segment %" PRIu64 " takes %" PRIu64 " bytes, and of %" PRIu64 " in all %" PRIu64
                       " are taken",
                       m->segment, need, budget, taken);
    m->bytes = MN_HUGE_BYTES + data_room(m->file->data_bytes);
    enum mn_status status = make_all(m);
    unmap_all(m);
    if (status == MN_OK)
        return MN_OK;
    mn_hot_remove(m->instance, m->segment, m->codebook);
    return mn_error_pass(status, __FILE__, __LINE__);
}

/* Clean pages that nobody has mapped go; the copy serves from now on. */
static void drop_cached(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

enum mn_status mn_hot_make(const struct mn_store *store, struct mn_instance *instance, uint64_t segment,
                           uint64_t codebook, uint64_t budget, bool (*pause)(void *context), void *context)
{
    char path[MN_PATH_MAX];
    struct mn_column_file file;
    struct mn_ivf_file *sound;
    /* What the mappers of a copy no longer ask is asked here: that it fits its codebook, and that its directory is one.
     */
    MN_TRY(mn_ivf_open(&sound, store, segment, codebook));
    mn_ivf_path(store, path, segment, codebook);
    enum mn_status status = mn_column_file_map(&file, store, segment, MN_COLUMN_IVF, path);
    if (status == MN_OK) {
        struct making m = {.instance = instance,
                           .file = &file,
                           .path = path,
                           .segment = segment,
                           .codebook = codebook,
                           .pause = pause,
                           .context = context};
        status = make_within(&m, budget);
        mn_column_file_unmap(&file);
    }
    mn_ivf_close(sound);
    MN_TRY(status);
    drop_cached(path);
    return MN_OK;
}

/* ---- tending all ---- */

struct tending {
    const struct mn_store *store;
    struct mn_instance *instance;
    const struct mn_manifest *manifest;
    const struct mn_manifest_segment **wanted; /* newest first */
    uint32_t count;
    uint64_t budget;
    struct mn_hot_report *report;
};

static int newer_first(const void *a, const void *b)
{
    const struct mn_manifest_segment *const *x = a, *const *y = b;
    return ((*x)->id < (*y)->id) - ((*x)->id > (*y)->id);
}

static uint64_t file_bytes(const struct mn_store *store, const struct mn_manifest_segment *segment)
{
    char path[MN_PATH_MAX];
    struct stat st;
    return stat(mn_ivf_path(store, path, segment->id, segment->codebook), &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* Which segments shall have copies: the newest, as long as they fit beside the codes of the tail. */
static enum mn_status choose(struct tending *t)
{
    uint64_t taken = taken_by(t->instance, "codes.");
    t->wanted = calloc(t->manifest->segment_count + 1, sizeof(void *));
    if (!t->wanted)
        return MN_FAIL(MN_INTERNAL, "no memory for a list of segments");
    for (uint32_t s = 0; s < t->manifest->segment_count; s++)
        if (t->manifest->segments[s].codebook != 0)
            t->wanted[t->count++] = &t->manifest->segments[s];
    qsort(t->wanted, t->count, sizeof(void *), newer_first);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        uint64_t bytes = file_bytes(t->store, t->wanted[i]);
        uint64_t need = all_bytes(bytes);
        if (bytes == 0)
            continue; /* it is to be written anew */
        if (taken > t->budget || need > t->budget - taken) {
            t->report->refused++;
            continue;
        }
        taken += need;
        t->wanted[kept++] = t->wanted[i];
    }
    t->count = kept;
    return MN_OK;
}

static bool is_wanted(void *context, uint64_t segment, uint64_t codebook)
{
    const struct tending *t = context;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->wanted[i]->id == segment && t->wanted[i]->codebook == codebook)
            return true;
    return false;
}

/* True when a copy is there; then it is counted. */
static bool count_copies(struct tending *t, const struct mn_manifest_segment *segment)
{
    uint64_t bytes = 0, huge = 0;
    uint32_t numbers[MN_NUMA_MAX], nodes = copy_nodes(numbers);
    for (uint32_t i = 0; i < nodes; i++) {
        char name[MN_HOT_NAME_MAX];
        struct mn_segment_identity identity = mn_hot_identity(t->instance);
        struct mn_segment seen;
        mn_hot_name(name, segment->id, segment->codebook, numbers[i]);
        if (mn_segment_map(&seen, t->instance->dir_fd, name, false, &identity) != MN_OK)
            return false;
        const struct mn_hot_header *own = seen.base;
        bytes += copy_bytes(own->data_bytes);
        huge += own->huge_bytes;
        mn_segment_unmap(&seen);
    }
    t->report->copied++;
    t->report->bytes += bytes;
    t->report->huge_bytes += huge;
    return true;
}

static enum mn_status provide(struct tending *t, const struct mn_manifest_segment *segment,
                              bool (*pause)(void *context), void *context)
{
    if (count_copies(t, segment))
        return MN_OK;
    enum mn_status status =
        mn_hot_make(t->store, t->instance, segment->id, segment->codebook, t->budget, pause, context);
    if (status == MN_OK) {
        t->report->changed = true;
        count_copies(t, segment);
        return MN_OK;
    }
    t->report->refused += status == MN_READ_ONLY;
    /* Damage is the business of those who look after inverted files; a system that gives no memory is asked again. */
    return status == MN_DEADLINE ? status : MN_OK;
}

enum mn_status mn_hot_tend(const struct mn_store *store, struct mn_instance *instance,
                           const struct mn_manifest *manifest, uint64_t budget, bool (*pause)(void *context),
                           void *context, struct mn_hot_report *report)
{
    struct tending t = {.store = store, .instance = instance, .manifest = manifest, .budget = budget, .report = report};
    *report = (struct mn_hot_report){0};
    MN_TRY(choose(&t));
    enum mn_status status = mn_hot_prune(instance, is_wanted, &t, &report->changed);
    for (uint32_t i = 0; status == MN_OK && i < t.count; i++)
        status = provide(&t, t.wanted[i], pause, context);
    if (report->changed)
        mn_hot_announce(instance);
    free(t.wanted);
    return status;
}
