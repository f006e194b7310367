/*
 * wal_keeper.c - the writer's helper thread: prepares log segments, syncs the high-water mark, watches the free space.
 *
 * A segment is offered when it is prepared and, as long as the log is kept twice, so is its twin: a disk of the copy
 * that does not answer is given up by whoever asks for the segment (mn_wal_copy_settled).
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "engine/crc.h"
#include "engine/fault.h"
#include "engine/quarantine.h"
#include "engine/wal.h"
#include "engine/wal_copy.h"
#include "engine/wal_prepare.h"
#include "shm/process.h"

#define READY_MAX      17u /* wal.prepared, and one that was given back */
#define PIECE_PAUSE_US 500
#define HURRY_NS       UINT64_C(3000000000)
#define MARK_EVERY_NS  UINT64_C(100000000)
#define SPACE_EVERY_NS UINT64_C(500000000)
#define IDLE_NS        50000000
#define TWIN_NS        2000000              /* its thread wakes nobody */
#define RETRY_NS       UINT64_C(1000000000) /* what could not be removed is tried again */

/* wal/MARK: two slots of a sector each, written by turns, so that one is always whole. */
#define MARK_MAGIC UINT64_C(0x314b52414d4e4d4e)
/* More is not read of a file that should have two of them. */
#define MARK_BYTES_MAX (64u << 10)

struct mark {
    uint64_t magic, seq;
    uint32_t crc;
    uint8_t spare[492];
};
_Static_assert(sizeof(struct mark) == 512, "a sector");

struct removal {
    char *path;
    uint64_t not_before_ns;
};

struct mn_wal_keeper {
    struct mn_store store;
    struct mn_wal_copy *copy; /* NULL = the log is kept once */
    uint64_t segment_bytes;
    _Atomic uint64_t reserve_bytes;
    uint32_t ahead, ahead_max; /* segments to keep ready: one, and more while they are taken fast */
    uint64_t taken_ns;
    const _Atomic uint64_t *acked_seq;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop;
    uint64_t next_number;
    uint64_t ready[READY_MAX];
    uint32_t ready_count;
    struct removal *removals; /* under the lock; new ones come at the end, only the thread takes any out */
    uint32_t removal_count, removal_max;
    _Atomic bool full;
    int mark_fd;
    uint64_t marked_seq, mark_turn, mark_ns, space_ns;
};

/* The oldest removal whose time has come; removal_count: none. */
static uint32_t due_removal(const struct mn_wal_keeper *k)
{
    uint32_t i = 0;
    uint64_t now = k->removal_count > 0 ? mn_clock_ns() : 0;
    while (i < k->removal_count && k->removals[i].not_before_ns > now)
        i++;
    return i;
}

/* Called with the lock held, which it lets go of meanwhile. What cannot be removed stays on the list: a purge is not
 * done while it is there. */
static bool remove_next(struct mn_wal_keeper *k)
{
    uint32_t at = due_removal(k);
    if (at == k->removal_count)
        return false;
    char *path = k->removals[at].path;
    pthread_mutex_unlock(&k->lock);
    bool removed = k->store.io->unlink(path) == MN_OK || mn_io_remove_tree(k->store.io, path) == MN_OK;
    MN_FAULT_POINT(limbo_mid_unlink);
    pthread_mutex_lock(&k->lock);
    if (!removed) {
        k->removals[at].not_before_ns = mn_clock_ns() + RETRY_NS;
        return true;
    }
    free(path);
    memmove(k->removals + at, k->removals + at + 1, (--k->removal_count - at) * sizeof *k->removals);
    return true;
}

/* Between the pieces of a segment. While another one is ready there is time: pieces are small and leave gaps. */
static bool between_pieces(void *context, bool *go_on)
{
    struct mn_wal_keeper *k = context;
    bool haste = mn_wal_keeper_ready(k) == 0;
    pthread_mutex_lock(&k->lock);
    bool removed = remove_next(k); /* a purge may be waiting for it, and it gives disk back */
    pthread_mutex_unlock(&k->lock);
    if (!haste && !removed)
        usleep(PIECE_PAUSE_US);
    *go_on = true;
    return haste;
}

/* A segment; its twin is made by the copy's own thread. */
static enum mn_status prepare(struct mn_wal_keeper *k, uint64_t number)
{
    MN_TRY(mn_wal_prepare(&k->store, number, k->segment_bytes, between_pieces, k));
    mn_wal_copy_want(k->copy, number, k->segment_bytes);
    return MN_OK;
}

/* Seeded with the store's uuid: another store's mark is none. */
static uint32_t mark_crc(const struct mn_store *store, const struct mark *mark)
{
    return mn_crc32c(mn_crc32c(0, store->uuid, sizeof store->uuid), mark, offsetof(struct mark, crc));
}

static struct mark make_mark(const struct mn_store *store, uint64_t seq)
{
    struct mark mark = {.magic = MARK_MAGIC, .seq = seq};
    mark.crc = mark_crc(store, &mark);
    return mark;
}

enum mn_status mn_wal_mark_write(const struct mn_store *store, uint64_t seq)
{
    char path[MN_PATH_MAX];
    struct mark both[2] = {make_mark(store, seq), make_mark(store, seq)};
    return mn_io_replace(store->io, mn_store_path(store, path, "wal/MARK"), both, sizeof both);
}

/* Whole from the first moment: a sector that is not a mark, or is not there, is damage. */
static enum mn_status open_mark(struct mn_wal_keeper *k)
{
    char path[MN_PATH_MAX];
    bool damaged;
    uint64_t seq = mn_wal_mark_read(&k->store, &damaged);
    bool missing = mn_io_file_bytes(k->store.io, mn_store_path(&k->store, path, "wal/MARK")) == 0;
    if (damaged && !missing)
        MN_TRY(mn_quarantine_healed(&k->store, "MARK", 0, 0, NULL, 0,
                                    "the high-water mark was damaged; it was made anew of what was left of it"));
    if (damaged || missing)
        MN_TRY(mn_wal_mark_write(&k->store, seq));
    return k->store.io->open(path, MN_IO_WRITE, &k->mark_fd);
}

static void write_mark(struct mn_wal_keeper *k, uint64_t now_ns)
{
    uint64_t seq = atomic_load_explicit(k->acked_seq, memory_order_acquire);
    if (MN_BUG(mark_not_written) || seq == k->marked_seq || now_ns - k->mark_ns < MARK_EVERY_NS)
        return;
    struct mark mark = make_mark(&k->store, seq);
    k->mark_ns = now_ns;
    /* A mark that cannot be written costs certainty after a power cut, not data: tried again at the next turn. */
    if (k->store.io->write(k->mark_fd, &mark, sizeof mark, (k->mark_turn & 1) * sizeof mark) == MN_OK &&
        k->store.io->datasync(k->mark_fd) == MN_OK) {
        k->marked_seq = seq;
        k->mark_turn++;
    }
}

uint64_t mn_wal_mark_read(const struct mn_store *store, bool *damaged)
{
    char path[MN_PATH_MAX];
    void *data;
    size_t bytes;
    uint64_t seq = 0;
    enum mn_status status =
        mn_io_slurp(store->io, mn_store_path(store, path, "wal/MARK"), MARK_BYTES_MAX, &data, &bytes);
    *damaged = status != MN_OK && status != MN_NOT_FOUND;
    if (status != MN_OK)
        return 0;
    *damaged = bytes != 2 * sizeof(struct mark);
    for (size_t at = 0; at < 2 * sizeof(struct mark) && at + sizeof(struct mark) <= bytes; at += sizeof(struct mark)) {
        struct mark mark;
        static const struct mark blank;
        memcpy(&mark, (char *)data + at, sizeof mark);
        bool spare_zero = memcmp(mark.spare, blank.spare, sizeof mark.spare) == 0;
        if (mark.magic == MARK_MAGIC && mark.crc == mark_crc(store, &mark) && spare_zero)
            seq = mark.seq > seq ? mark.seq : seq;
        else
            *damaged = true;
    }
    free(data);
    return seq;
}

/* Looked at now and then, and before each segment: one that is prepared leaves the reserve free. */
static void watch_space(struct mn_wal_keeper *k, uint64_t now_ns, bool wanted)
{
    uint64_t bytes, reserve = atomic_load(&k->reserve_bytes), need = wanted && reserve > 0 ? k->segment_bytes : 0;
    if (!wanted && now_ns - k->space_ns < SPACE_EVERY_NS)
        return;
    if (wanted && atomic_load(&k->full) && now_ns - k->space_ns < SPACE_EVERY_NS)
        return;
    k->space_ns = now_ns;
    if (k->store.io->free_bytes(k->store.dir, &bytes) == MN_OK)
        atomic_store(&k->full, bytes < reserve || bytes - reserve < need);
}

static void sleep_until_asked(struct mn_wal_keeper *k, long most_ns)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += most_ns;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&k->changed, &k->lock, &until);
}

static void *keep(void *context)
{
    struct mn_wal_keeper *k = context;
    /* The writer may run under a real-time class; filling segments with zeros must not. */
    struct sched_param ordinary = {0};
    pthread_setschedparam(pthread_self(), SCHED_OTHER, &ordinary);
    pthread_mutex_lock(&k->lock);
    while (!k->stop) {
        if (remove_next(k))
            continue;
        uint64_t now = mn_clock_ns(), number = k->next_number;
        bool wanted = k->ready_count < k->ahead;
        pthread_mutex_unlock(&k->lock);
        write_mark(k, now);
        watch_space(k, now, wanted);
        bool full = atomic_load(&k->full);
        enum mn_status status = wanted && !full ? prepare(k, number) : MN_BUSY;
        if (wanted && !full && status != MN_OK)
            atomic_store(&k->full, true); /* until the free space is looked at again */
        pthread_mutex_lock(&k->lock);
        if (status == MN_OK) {
            k->ready[k->ready_count++] = number;
            k->next_number++;
            pthread_cond_broadcast(&k->changed);
        } else if (!k->stop && due_removal(k) == k->removal_count) {
            sleep_until_asked(k, IDLE_NS);
        }
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

/* ---- the way out of a full disk ---- */

/* The newest prepared segment that nobody has begun; 0: there is none. */
static uint64_t newest_spare(const struct mn_store *store)
{
    uint64_t *numbers, spare = 0;
    uint32_t count;
    if (mn_wal_list(store, &numbers, &count) != MN_OK)
        return 0;
    for (uint32_t i = count; i-- > 0 && spare == 0;) {
        struct mn_wal_segment segment;
        if (mn_wal_map(&segment, store, numbers[i]) == MN_OK && segment.unused)
            spare = numbers[i];
        mn_wal_unmap(&segment);
    }
    free(numbers);
    return spare;
}

void mn_wal_make_room(const struct mn_store *store, uint64_t bytes)
{
    char path[MN_PATH_MAX];
    uint64_t there, spare;
    while (store->io->free_bytes(store->dir, &there) == MN_OK && there < bytes && (spare = newest_spare(store)) != 0)
        if (store->io->unlink(mn_store_wal_path(store, path, spare)) != MN_OK)
            return;
}

enum mn_status mn_wal_keeper_start(struct mn_wal_keeper **keeper, const struct mn_store *store,
                                   struct mn_wal_copy *copy, uint64_t segment_bytes, uint32_t ahead,
                                   uint64_t reserve_bytes, uint64_t next_number, const _Atomic uint64_t *acked_seq)
{
    struct mn_wal_keeper *k = calloc(1, sizeof *k);
    if (!k)
        return MN_FAIL(MN_INTERNAL, "no memory for the log keeper");
    k->store = *store;
    k->copy = copy;
    k->segment_bytes = segment_bytes;
    k->reserve_bytes = reserve_bytes;
    k->ahead = 1;
    k->ahead_max = ahead < READY_MAX - 1 ? ahead : READY_MAX - 1;
    k->next_number = next_number;
    k->acked_seq = acked_seq;
    k->mark_fd = -1;
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->changed, NULL);
    enum mn_status status = open_mark(k);
    if (status == MN_OK && (errno = pthread_create(&k->thread, NULL, keep, k)) != 0)
        status = MN_FAIL_ERRNO("cannot start the log keeper's thread");
    if (status != MN_OK) {
        store->io->close(k->mark_fd);
        free(k);
        return status;
    }
    *keeper = k;
    return MN_OK;
}

void mn_wal_keeper_stop(struct mn_wal_keeper *keeper)
{
    if (!keeper)
        return;
    pthread_mutex_lock(&keeper->lock);
    keeper->stop = true;
    pthread_cond_broadcast(&keeper->changed);
    pthread_mutex_unlock(&keeper->lock);
    pthread_join(keeper->thread, NULL);
    for (uint32_t i = 0; i < keeper->removal_count; i++)
        free(keeper->removals[i].path); /* the next writer finds the files again */
    free(keeper->removals);
    keeper->mark_ns = 0;
    write_mark(keeper, mn_clock_ns());
    keeper->store.io->close(keeper->mark_fd);
    pthread_mutex_destroy(&keeper->lock);
    pthread_cond_destroy(&keeper->changed);
    free(keeper);
}

/* A small store keeps one segment ready; one that takes them fast is given more of a start. */
static void choose_ahead(struct mn_wal_keeper *k)
{
    uint64_t now = mn_clock_ns();
    bool hurry = k->taken_ns != 0 && now - k->taken_ns < HURRY_NS;
    k->taken_ns = now;
    if (hurry && k->ahead < k->ahead_max)
        k->ahead = k->ahead * 2 < k->ahead_max ? k->ahead * 2 : k->ahead_max;
    else if (!hurry && k->ahead > 1)
        k->ahead--;
}

enum mn_status mn_wal_keeper_take(struct mn_wal_keeper *keeper, uint32_t wait_ms, uint64_t *number)
{
    uint64_t deadline = mn_clock_ns() + (uint64_t)wait_ms * 1000000;
    enum mn_status status = MN_OK;
    pthread_mutex_lock(&keeper->lock);
    choose_ahead(keeper);
    pthread_cond_broadcast(&keeper->changed);
    while (keeper->ready_count == 0 && !atomic_load(&keeper->full) && mn_clock_ns() < deadline)
        sleep_until_asked(keeper, IDLE_NS);
    bool settled;
    while (!(settled = keeper->ready_count == 0 || mn_wal_copy_settled(keeper->copy, keeper->ready[0])) &&
           mn_clock_ns() < deadline)
        sleep_until_asked(keeper, TWIN_NS);
    if (keeper->ready_count > 0 && settled) {
        *number = keeper->ready[0];
        memmove(keeper->ready, keeper->ready + 1, --keeper->ready_count * sizeof keeper->ready[0]);
        pthread_cond_broadcast(&keeper->changed);
    } else if (keeper->ready_count == 0 && atomic_load(&keeper->full)) {
        status =
            MN_FAIL(MN_READ_ONLY, "the disk is full: no log segment could be prepared; recall goes on, writes resume "
                                  "by themselves when there is space (disk.reserve)");
    } else {
        status = MN_FAIL(
            MN_BUSY, "no log segment got ready within %u ms: the disk is slower than the writes; try again", wait_ms);
    }
    pthread_mutex_unlock(&keeper->lock);
    return status;
}

void mn_wal_keeper_give_back(struct mn_wal_keeper *keeper, uint64_t number)
{
    pthread_mutex_lock(&keeper->lock);
    MN_ASSERT(keeper->ready_count < READY_MAX);
    memmove(keeper->ready + 1, keeper->ready, keeper->ready_count++ * sizeof keeper->ready[0]);
    keeper->ready[0] = number;
    pthread_mutex_unlock(&keeper->lock);
    mn_wal_copy_want(keeper->copy, number, keeper->segment_bytes);
}

enum mn_status mn_wal_keeper_remove(struct mn_wal_keeper *keeper, const char *path)
{
    char *copy = strdup(path);
    enum mn_status status = copy ? MN_OK : MN_FAIL(MN_INTERNAL, "no memory to remove %s", path);
    pthread_mutex_lock(&keeper->lock);
    if (status == MN_OK && keeper->removal_count == keeper->removal_max) {
        uint32_t max = keeper->removal_max ? keeper->removal_max * 2 : 64;
        struct removal *removals = realloc(keeper->removals, max * sizeof *removals);
        if (removals) {
            keeper->removals = removals;
            keeper->removal_max = max;
        } else {
            status = MN_FAIL(MN_INTERNAL, "no memory to remove %s", path);
        }
    }
    if (status == MN_OK) {
        keeper->removals[keeper->removal_count++] = (struct removal){.path = copy};
        pthread_cond_broadcast(&keeper->changed);
    } else {
        free(copy);
    }
    pthread_mutex_unlock(&keeper->lock);
    return status;
}

uint32_t mn_wal_keeper_removals(struct mn_wal_keeper *keeper)
{
    pthread_mutex_lock(&keeper->lock);
    uint32_t count = keeper->removal_count;
    pthread_mutex_unlock(&keeper->lock);
    return count;
}

void mn_wal_keeper_reserve(struct mn_wal_keeper *keeper, uint64_t reserve_bytes)
{
    atomic_store(&keeper->reserve_bytes, reserve_bytes);
}

uint32_t mn_wal_keeper_ready(struct mn_wal_keeper *keeper)
{
    pthread_mutex_lock(&keeper->lock);
    uint32_t ready = keeper->ready_count;
    pthread_mutex_unlock(&keeper->lock);
    return ready;
}

bool mn_wal_keeper_full(struct mn_wal_keeper *keeper)
{
    return atomic_load(&keeper->full);
}
