/*
 * hot.c - making, finding and mapping hot copies; keeping them within their budget.
 *
 * A file is a page with the headers, a hole, and from 2 MiB on the data: so a mapping at an address that is a multiple
 * of 2 MiB can be of huge pages. tmpfs gives those only where it is told to (huge=, shmem_enabled), which nobody does;
 * MADV_COLLAPSE moves pages that are there into huge ones whatever it was told. Where that fails, plain pages stay.
 */
#include "engine/hot.h"

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
#include "engine/ivf_file.h"
#include "shm/numa.h"
#include "shm/process.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_BYTES (UINT64_C(2) << 20)
#define NAME_MAX_  80

static _Atomic uint32_t own_node;
static _Atomic bool lock_copies;

void mn_hot_place(uint32_t node, bool lock)
{
    atomic_store(&own_node, node);
    atomic_store(&lock_copies, lock);
}

/* ---- names ---- */

static void make_name(char name[NAME_MAX_], uint64_t segment, uint64_t codebook, uint32_t node)
{
    snprintf(name, NAME_MAX_, "hot.%" PRIu64 ".%" PRIu64 ".%" PRIu32, segment, codebook, node);
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

static struct mn_segment_identity identity_of(const struct mn_instance *instance)
{
    struct mn_segment_identity identity = instance->identity;
    identity.magic = MN_MAGIC_HOT;
    identity.fingerprint = mn_engine_fingerprint();
    return identity;
}

/* At a multiple of 2 MiB, which the system would give to none but huge mappings. */
static enum mn_status map_aligned(int fd, uint64_t bytes, int protection, const char *name, void **base)
{
    uint8_t *room = mmap(NULL, bytes + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return MN_FAIL_ERRNO("cannot map %s", name);
    uint8_t *at = (uint8_t *)(uintptr_t)mn_round_up((uintptr_t)room, HUGE_BYTES);
    uint8_t *end = at + mn_round_up(bytes, 4096), *room_end = room + mn_round_up(bytes + HUGE_BYTES, 4096);
    if (mmap(at, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        enum mn_status status = MN_FAIL_ERRNO("cannot map %s", name);
        munmap(room, bytes + HUGE_BYTES);
        return status;
    }
    if (at > room)
        munmap(room, (size_t)(at - room));
    if (room_end > end)
        munmap(end, (size_t)(room_end - end));
    *base = at;
    return MN_OK;
}

/* The place of each thing in a mapping; false when it does not hold them. */
static bool look_into(struct mn_hot *hot, const void *base, uint64_t bytes, uint64_t segment, uint64_t codebook)
{
    const struct mn_hot_header *own = base;
    const struct mn_column_header *header = (const void *)(own + 1);
    if (bytes < HUGE_BYTES || own->segment != segment || own->codebook != codebook ||
        own->data_bytes > bytes - HUGE_BYTES || header->data_bytes != own->data_bytes || header->segment != segment)
        return false;
    *hot = (struct mn_hot){.base = base,
                           .bytes = bytes,
                           .header = header,
                           .data = (const uint8_t *)base + HUGE_BYTES,
                           .data_bytes = own->data_bytes};
    return true;
}

/* Of this node, else of the first. */
static const char *choose_name(const struct mn_instance *instance, char name[NAME_MAX_], uint64_t segment,
                               uint64_t codebook)
{
    make_name(name, segment, codebook, atomic_load_explicit(&own_node, memory_order_relaxed));
    if (faccessat(instance->dir_fd, name, F_OK, 0) != 0)
        make_name(name, segment, codebook, 0);
    return name;
}

bool mn_hot_there(const struct mn_instance *instance, uint64_t segment, uint64_t codebook)
{
    char name[NAME_MAX_];
    struct mn_segment_identity identity = identity_of(instance);
    struct mn_segment seen;
    choose_name(instance, name, segment, codebook);
    if (faccessat(instance->dir_fd, name, F_OK, 0) != 0 ||
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
    enum mn_status status = map_aligned(fd, bytes, PROT_READ, name, &base);
    close(fd);
    MN_TRY(status);
    if (look_into(hot, base, bytes, segment, codebook))
        return MN_OK;
    munmap(base, bytes);
    return MN_FAIL(MN_CORRUPT, "%s is not the copy that its name says", name);
}

enum mn_status mn_hot_map(struct mn_hot *hot, struct mn_instance *instance, uint64_t segment, uint64_t codebook)
{
    char name[NAME_MAX_];
    struct mn_segment_identity identity = identity_of(instance);
    struct mn_segment seen;
    *hot = (struct mn_hot){0};
    choose_name(instance, name, segment, codebook);
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

/* ---- making one ---- */

struct making {
    const struct mn_instance *instance;
    const struct mn_column_file *file;
    const char *path; /* of the inverted file */
    uint64_t segment, codebook;
    uint32_t node;
    bool (*pause)(void *context);
    void *context;
    char name[NAME_MAX_];
    struct mn_segment front; /* mapped from the beginning, as others see it */
    uint8_t *base;           /* mapped aligned */
    uint64_t bytes;
};

/* Most of a last huge page is taken whole. */
static uint64_t data_room(uint64_t data_bytes)
{
    uint64_t beyond = data_bytes % HUGE_BYTES;
    return beyond > HUGE_BYTES / 2 ? mn_round_up(data_bytes, HUGE_BYTES) : mn_round_up(data_bytes, 4096);
}

static uint64_t copy_bytes(uint64_t data_bytes)
{
    return 4096 + data_room(data_bytes);
}

/* All of it is there before anything is written: a full /dev/shm is an error here, and a signal later. */
static enum mn_status reserve(struct making *m)
{
    int fd = openat(m->instance->dir_fd, m->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return MN_FAIL_ERRNO("cannot open %s", m->name);
    void *base;
    enum mn_status status = map_aligned(fd, m->bytes, PROT_READ | PROT_WRITE, m->name, &base);
    if (status == MN_OK) {
        m->base = base;
        status = mn_numa_place(m->base, m->bytes, m->node);
    }
    if (status == MN_OK) {
        errno = posix_fallocate(fd, (off_t)HUGE_BYTES, (off_t)(m->bytes - HUGE_BYTES));
        if (errno != 0)
            status = MN_FAIL_ERRNO("no room for %s in shared memory", m->name);
    }
    close(fd);
    return status;
}

/* Block by block, each as it is checked; every 2 MiB into a huge page when they are full. */
static enum mn_status fill(struct making *m)
{
    uint8_t *data = m->base + HUGE_BYTES;
    uint64_t total = m->file->data_bytes, room = m->bytes - HUGE_BYTES;
    for (uint64_t at = 0; at < total; at += HUGE_BYTES) {
        uint64_t end = total - at < HUGE_BYTES ? total : at + HUGE_BYTES;
        for (uint64_t block = at; block < end; block += MN_COLUMN_BLOCK) {
            if (!mn_column_file_intact(m->file, block / MN_COLUMN_BLOCK))
                return MN_FAIL(MN_CORRUPT, "%s: block %" PRIu64 " does not match its checksum", m->path,
                               block / MN_COLUMN_BLOCK);
            memcpy(data + block, m->file->data + block, end - block < MN_COLUMN_BLOCK ? end - block : MN_COLUMN_BLOCK);
        }
        if (room - at >= HUGE_BYTES)
            madvise(data + at, HUGE_BYTES, MADV_COLLAPSE); /* or not: they are counted below */
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

static enum mn_status make_one(struct making *m)
{
    struct mn_segment_identity identity = identity_of(m->instance);
    make_name(m->name, m->segment, m->codebook, m->node);
    m->bytes = HUGE_BYTES + data_room(m->file->data_bytes);
    m->base = NULL;
    unlinkat(m->instance->dir_fd, m->name, 0); /* what a compactor that died has left */
    MN_TRY(mn_segment_create_sparse(&m->front, m->instance->dir_fd, m->name, m->bytes, 4096, &identity, 0600));
    enum mn_status status = reserve(m);
    if (status == MN_OK)
        status = fill(m);
    if (status == MN_OK) {
        MN_FAULT_POINT(hot_filled);
        struct mn_hot_header *own = m->front.base;
        own->segment = m->segment;
        own->codebook = m->codebook;
        own->data_bytes = m->file->data_bytes;
        own->huge_bytes = huge_bytes_of(m->base);
        memcpy(own + 1, m->file->header, sizeof *m->file->header);
        mn_segment_publish(&m->front);
    }
    if (m->base)
        munmap(m->base, m->bytes);
    mn_segment_unmap(&m->front);
    if (status != MN_OK)
        unlinkat(m->instance->dir_fd, m->name, 0);
    return status;
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

void mn_hot_remove(const struct mn_instance *instance, uint64_t segment, uint64_t codebook)
{
    char name[NAME_MAX_];
    for (uint32_t node = 0; node < mn_numa_nodes(); node++) {
        make_name(name, segment, codebook, node);
        unlinkat(instance->dir_fd, name, 0);
    }
}

static enum mn_status make_all(struct making *m, uint64_t budget)
{
    uint32_t nodes = mn_numa_nodes();
    uint64_t taken = taken_by(m->instance, "hot.") + taken_by(m->instance, "codes.");
    uint64_t need = nodes * copy_bytes(m->file->data_bytes);
    if (taken > budget || need > budget - taken)
        return MN_FAIL(MN_READ_ONLY,
                       "a hot copy of segment %" PRIu64 " takes %" PRIu64 " bytes, and of %" PRIu64 " in all %" PRIu64
                       " are taken",
                       m->segment, need, budget, taken);
    for (m->node = 0; m->node < nodes; m->node++) {
        enum mn_status status = make_one(m);
        if (status == MN_OK)
            continue;
        mn_hot_remove(m->instance, m->segment, m->codebook);
        return mn_error_pass(status, __FILE__, __LINE__);
    }
    return MN_OK;
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
        status = make_all(&m, budget);
        mn_column_file_unmap(&file);
    }
    mn_ivf_close(sound);
    MN_TRY(status);
    drop_cached(path);
    return MN_OK;
}

void mn_hot_announce(struct mn_instance *instance)
{
    /* Release: the files are there, or gone, before the number says so. */
    atomic_fetch_add_explicit(&instance->control->hot_gen, 1, memory_order_release);
}

/* ---- letting go ---- */

struct pruning {
    const struct mn_instance *instance;
    bool (*wanted)(void *context, uint64_t segment, uint64_t codebook);
    void *context;
    bool *removed;
};

static enum mn_status remove_unwanted(void *context, const char *name)
{
    const struct pruning *p = context;
    uint64_t segment, codebook;
    uint32_t node;
    if (!read_name(name, &segment, &codebook, &node) ||
        (node < mn_numa_nodes() && p->wanted(p->context, segment, codebook)))
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
        uint64_t need = mn_numa_nodes() * copy_bytes(bytes);
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
    for (uint32_t node = 0; node < mn_numa_nodes(); node++) {
        char name[NAME_MAX_];
        struct mn_segment_identity identity = identity_of(t->instance);
        struct mn_segment seen;
        make_name(name, segment->id, segment->codebook, node);
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
