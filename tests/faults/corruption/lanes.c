/*
 * lanes.c - see lanes.h. A lane is a child that takes every n-th case; it says in shared memory which one it is at.
 * When it dies, the parent counts that case and starts another child behind it.
 */
#include "tests/faults/corruption/lanes.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/process.h"

#define LANES_MAX 64u
#define NONE      UINT64_MAX

/* Shared with the parent. */
struct lane {
    _Atomic uint64_t at; /* the case at hand */
    _Atomic uint64_t since_ns;
    _Atomic bool done;
    char instance[128];
    uint64_t shown;
    struct lanes_result result;
};

struct run {
    const struct damage_plan *plan;
    const char *dir;
    uint32_t count, limit_s, shown;
    struct lane *lanes;
    pid_t pids[LANES_MAX];
};

/* ---- verdicts ---- */

static bool all_zero(const struct disk_blob *blob)
{
    for (size_t at = 0; at < blob->bytes; at++)
        if (blob->data[at] != 0)
            return false;
    return true;
}

/* What is no damage, because it is just what a process that died may leave: bytes behind the end of MANIFEST that look
 * like an edit in the making, and an end of MANIFEST.copy that is a part of the newest edit, which MANIFEST has. */
static bool unfinished(const struct damage *d, const struct disk_file *file)
{
    if (strcmp(file->name, "MANIFEST") == 0)
        return d->group->kind == DAMAGE_GROWN;
    bool end = d->group->kind == DAMAGE_CUT || d->group->kind == DAMAGE_ZERO_SECTOR;
    /* Each of the specimen's edits is as long as the others, or longer: the newest has the last half, or more of it. */
    return strcmp(file->name, "MANIFEST.copy") == 0 && end && d->where >= file->blob->bytes / 2;
}

/* And what somebody may do: take away a note that was read; and a prepared, still empty log segment may be gone,
 * shorter or longer: another one is made. */
static bool harmless(const struct damage *d)
{
    const struct disk_file *file = &d->group->specimen->disk.files[d->group->file];
    enum damage_kind kind = d->group->kind;
    enum damage_file what = damage_file_of(file->name);
    if (what == DAMAGE_NOTE)
        return kind == DAMAGE_GONE;
    if (what == DAMAGE_MANIFEST)
        return unfinished(d, file);
    bool length = kind == DAMAGE_GONE || kind == DAMAGE_CUT || kind == DAMAGE_GROWN;
    return what == DAMAGE_LOG && length && all_zero(file->blob);
}

bool lanes_good(const struct damage *damage, const struct verdict *v, struct tally *tally, char text[800])
{
    char name[256];
    bool undetected = !v->told && !harmless(damage);
    tally->tried++;
    tally->told += v->told;
    tally->missing += v->missing > 0;
    tally->refused += v->refused;
    tally->undetected += undetected;
    tally->lost += v->lost > 0;
    tally->risen += v->risen > 0;
    tally->unknown += v->unknown > 0;
    tally->wrong += v->wrong > 0;
    tally->unsteady += v->unsteady;
    damage_name(damage, name);
    if (!undetected && !v->refused && v->lost + v->risen + v->wrong == 0 && !v->unsteady)
        return true;
    snprintf(text, 800, "%s: %s", name, v->what[0] ? v->what : "undetected");
    return false;
}

/* ---- a child ---- */

static struct tally *tally_of(struct lane *lane, const struct damage *damage)
{
    const char *name = damage->group->specimen->disk.files[damage->group->file].name;
    return &lane->result.tallies[damage_file_of(name)][damage->group->kind];
}

static void try_case(const struct run *run, struct lane *lane, struct judge *judge, struct damage *damage)
{
    struct verdict verdict;
    char text[800];
    if (damage_do(damage)) {
        judge_case(judge, damage->group->specimen, damage, &verdict);
        if (!lanes_good(damage, &verdict, tally_of(lane, damage), text) && lane->shown++ < run->shown)
            printf("%s\n", text);
    }
    damage_undo(damage);
    lane->result.finished++;
}

static _Noreturn void child(const struct run *run, uint32_t number, uint64_t first)
{
    struct lane *lane = &run->lanes[number];
    struct judge judge = {0};
    struct damage damage;
    const struct specimen *mounted = NULL;
    char dir[192];
    snprintf(dir, sizeof dir, "%s/%u", run->dir, number);
    if (!judge_open(&judge, dir))
        _exit(1);
    memcpy(lane->instance, judge.instance.path, sizeof lane->instance);
    for (uint64_t n = first; n < run->plan->cases; n += run->count) {
        damage_at(run->plan, n, &damage);
        if (mounted != damage.group->specimen)
            disk_mount(&damage.group->specimen->disk, dir);
        mounted = damage.group->specimen;
        atomic_store(&lane->at, n);
        atomic_store(&lane->since_ns, mn_clock_ns());
        try_case(run, lane, &judge, &damage);
    }
    atomic_store(&lane->done, true);
    judge_close(&judge);
    fflush(stdout);
    _exit(0);
}

/* ---- the parent ---- */

static volatile sig_atomic_t told_to_stop;

static void stop(int signal)
{
    told_to_stop = signal;
}

static void start(struct run *run, uint32_t number, uint64_t first)
{
    fflush(stdout);
    atomic_store(&run->lanes[number].at, NONE);
    atomic_store(&run->lanes[number].since_ns, mn_clock_ns());
    run->pids[number] = fork();
    if (run->pids[number] == 0)
        child(run, number, first);
    if (run->pids[number] < 0) {
        perror("fork");
        exit(1);
    }
}

/* The case that a child died of; the lane goes on behind it. */
static void bury(struct run *run, uint32_t number, int status)
{
    struct lane *lane = &run->lanes[number];
    struct damage damage;
    char name[256];
    uint64_t at = atomic_load(&lane->at);
    run->pids[number] = 0;
    if (atomic_load(&lane->done) && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    if (lane->instance[0] && mn_instance_remove(lane->instance) != MN_OK)
        fprintf(stderr, "%s is left\n", lane->instance);
    if (told_to_stop)
        return;
    if (at == NONE) {
        fprintf(stderr, "a lane does not start\n");
        exit(1);
    }
    damage_at(run->plan, at, &damage);
    damage_name(&damage, name);
    if (WIFSIGNALED(status))
        printf("%s: crash: %s\n", name, WTERMSIG(status) == SIGKILL ? "it hung" : strsignal(WTERMSIG(status)));
    else
        printf("%s: crash: exit status %d\n", name, WEXITSTATUS(status));
    tally_of(lane, &damage)->tried++;
    tally_of(lane, &damage)->crashes++;
    lane->result.finished++;
    start(run, number, at + run->count);
}

/* True while any lives. */
static bool watch(struct run *run)
{
    bool any = false;
    for (uint32_t i = 0; i < run->count; i++) {
        int status;
        if (run->pids[i] == 0)
            continue;
        any = true;
        uint64_t since = atomic_load(&run->lanes[i].since_ns), now = mn_clock_ns();
        if (told_to_stop || (now > since && now - since > run->limit_s * UINT64_C(1000000000)))
            kill(run->pids[i], SIGKILL);
        if (waitpid(run->pids[i], &status, WNOHANG) == run->pids[i])
            bury(run, i, status);
    }
    return any;
}

static void add(struct tally *to, const struct tally *from)
{
    const uint64_t *more = (const uint64_t *)(const void *)from;
    uint64_t *sum = (uint64_t *)(void *)to;
    for (size_t i = 0; i < sizeof *to / sizeof *sum; i++)
        sum[i] += more[i];
}

static void gather(const struct run *run, struct lanes_result *result)
{
    for (uint32_t i = 0; i < run->count; i++) {
        const struct lanes_result *one = &run->lanes[i].result;
        for (uint32_t f = 0; f < DAMAGE_FILES; f++)
            for (uint32_t k = 0; k < DAMAGE_KINDS; k++)
                add(&result->tallies[f][k], &one->tallies[f][k]);
        result->finished += one->finished;
    }
}

void lanes_run(const struct damage_plan *plan, const char *dir, uint32_t lanes, uint32_t limit_s, uint32_t shown,
               struct lanes_result *result)
{
    struct run run = {.plan = plan, .dir = dir, .count = lanes < LANES_MAX ? lanes : LANES_MAX};
    char path[256];
    uint64_t started = mn_clock_ns();
    run.limit_s = limit_s;
    run.shown = shown;
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    run.lanes = mmap(NULL, run.count * sizeof *run.lanes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (run.lanes == MAP_FAILED)
        abort();
    for (uint32_t i = 0; i < run.count; i++) {
        snprintf(path, sizeof path, "%s/%u", dir, i);
        mkdir(path, 0700);
        snprintf(path, sizeof path, "%s/%u/wal", dir, i);
        mkdir(path, 0700);
        start(&run, i, i);
    }
    while (watch(&run))
        usleep(20000);
    *result = (struct lanes_result){.ns = 0};
    gather(&run, result);
    result->ns = mn_clock_ns() - started;
    munmap(run.lanes, run.count * sizeof *run.lanes);
}
