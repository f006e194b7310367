/*
 * story.c - several lives of one store: work, a fault, an end, a recovery, and a comparison with the model, over and
 * over. Everything follows from the seed.
 */
#include "tests/faults/disk/story.h"

#include <errno.h>

#include "tests/faults/disk/disk.h"
#include "tests/faults/disk/work.h"

#define STEPS 90u

/* What the seed's disk does. */
enum theme { CUTS, DEATHS, ERRORS, FULL, GARBAGE, LIES, THEMES };

struct story {
    struct world *w;
    enum theme theme;
    bool over; /* the disk has lied or made garbage, and that was told: nothing more can be asked of it */
};

/* ---- faults ---- */

static void arm_trouble(struct story *s)
{
    static const uint32_t spans[] = {1, 1, 3, 20, 200, UINT32_MAX};
    struct world *w = s->w;
    uint32_t writes = DISK_MAKE | DISK_WRITE | DISK_RESERVE | DISK_SYNC | DISK_SYNC_FOLDER | DISK_RENAME | DISK_COPY;
    struct disk_trouble trouble = {.error = s->theme == FULL ? ENOSPC : EIO,
                                   .calls = s->theme == FULL ? writes : writes | DISK_OPEN | DISK_READ | DISK_REMOVE,
                                   .after = world_draw(w, world_draw(w, 4) ? 120 : 1200),
                                   .count = spans[world_draw(w, MN_ARRAY_LEN(spans))]};
    uint32_t kind = world_draw(w, 6);
    if (kind < 2) /* of one kind only */
        trouble.calls = 1u << world_draw(w, 10);
    if (kind == 2) /* one sync, and no other */
        trouble =
            (struct disk_trouble){.error = trouble.error, .calls = DISK_SYNC, .after = world_draw(w, 40), .count = 1};
    disk_trouble(trouble);
}

static void arm(struct story *s)
{
    struct world *w = s->w;
    disk_nag(world_draw(w, 3) == 0 ? 1 + world_draw(w, 30) : 0);
    disk_lie(s->theme == LIES && world_draw(w, 2) ? 5 + world_draw(w, 50) : 0);
    if (s->theme == ERRORS || s->theme == FULL)
        arm_trouble(s);
    /* A disk that lies gets time to write its mark: that tells what it lost. */
    bool cut = s->theme == ERRORS || s->theme == FULL ? world_draw(w, 4) == 0 : s->theme != LIES;
    if (cut)
        disk_fuse(1 + world_draw(w, world_draw(w, 4) ? 60 : 600));
}

/* The life ends: by a power cut, or with the process alone. A disk that lied is let finish, so that its mark is there.
 */
static void die(struct story *s)
{
    struct world *w = s->w;
    bool alone = s->theme == DEATHS ? world_draw(w, 4) != 0 : disk_struck() > 0 && world_draw(w, 2);
    if (!disk_dead() && s->theme != LIES && world_draw(w, 2))
        disk_fuse(0);
    world_close(w, alone);
    if (alone)
        disk_revive();
    else
        disk_cut(s->theme == GARBAGE ? 1 + world_draw(w, 30) : 0);
    atomic_fetch_add(alone ? &w->tally->deaths : &w->tally->cuts, 1);
}

/* Starts until it succeeds: the fault may come again on the way. A store that a disk has lied about may refuse, with a
 * sentence. */
static void come_back(struct story *s)
{
    struct world *w = s->w;
    for (int attempts = 1;; attempts++) {
        if (!disk_lied() && attempts < 6 && world_draw(w, 3) == 0)
            disk_fuse(world_draw(w, 40));
        if (attempts > 4)
            disk_trouble((struct disk_trouble){0});
        if (world_open(w) == MN_OK)
            break;
        if (disk_lied() && !work_blamed()) {
            s->over = true;
            atomic_fetch_add(&w->tally->reported, 1);
            return;
        }
        work_failed(w, "a start");
        atomic_fetch_add(&w->tally->recoveries_cut, 1);
        die(s);
    }
    disk_fuse(UINT64_MAX);
    disk_trouble((struct disk_trouble){0});
    disk_lie(0);
    atomic_fetch_add(&w->tally->recoveries, 1);
}

/* What was there is there, and what was asked can be asked again. */
static void look_back(struct story *s)
{
    bool landed;
    if (s->over)
        return;
    world_judge(s->w, &landed);
    s->over = s->w->forgiven;
    if (s->over)
        return;
    if (s->w->taken)
        world_check_copy(s->w, world_draw(s->w, 3) == 0);
    if (!work_retry(s->w, landed) || !work_commit(s->w))
        world_broken(s->w, WORLD_REFUSED, "a retry: %s", mn_error_trail());
}

/* ---- the story ---- */

static void live(struct story *s)
{
    for (uint32_t i = 0; i < STEPS; i++)
        if (!work_step(s->w))
            return;
    /* The end of the log is where only the mark can tell that something is missing. */
    disk_lie(s->theme == LIES && world_draw(s->w, 2) ? 100 : 0);
    for (uint32_t i = 0; i < 3 && s->theme == LIES; i++)
        if (!work_write(s->w) || !work_commit(s->w))
            return;
}

static void purge_all(struct world *w)
{
    work_let_go(w);
    for (int i = 0; i < 2; i++) {
        if (!work_compact(w, true))
            world_broken(w, WORLD_REFUSED, "a purge: %s", mn_error_trail());
        for (int turn = 0; turn < 4; turn++)
            work_tend(w);
    }
    uint64_t files;
    if (mn_writer_purge_waits(w->writer) || mn_writer_purged_seq(w->writer, &files) < w->acked_seq)
        return; /* a forced compaction may find nothing worth while: then the purge waits */
    world_find_purged(w);
}

static void last_look(struct story *s)
{
    struct world *w = s->w;
    purge_all(w);
    work_look(w);
    die(s);
    come_back(s);
    look_back(s);
    if (!s->over)
        world_verify(w);
}

static void add_counts(struct world_tally *t)
{
    atomic_fetch_add(&t->failed_calls, disk_counts.failed);
    atomic_fetch_add(&t->interrupted, disk_counts.interrupted);
    atomic_fetch_add(&t->shortened, disk_counts.shortened);
    atomic_fetch_add(&t->lies, disk_counts.lies);
    atomic_fetch_add(&t->sectors_lost, disk_counts.sectors_lost);
    atomic_fetch_add(&t->sectors_garbage, disk_counts.sectors_garbage);
    atomic_fetch_add(&t->names_lost, disk_counts.names_lost);
    disk_counts = (struct disk_counts){0};
}

void story_tell(uint64_t seed, struct world_tally *tally, struct world_slot *slot)
{
    struct story s = {.w = world_new(seed, tally, slot), .theme = (enum theme)(seed % THEMES)};
    come_back(&s);
    look_back(&s);
    for (uint32_t lives = 2 + world_draw(s.w, 4); lives > 0 && !s.over; lives--) {
        arm(&s);
        live(&s);
        die(&s);
        come_back(&s);
        look_back(&s);
    }
    if (!s.over)
        last_look(&s);
    add_counts(tally);
    world_free(s.w);
}
