/*
 * seeds.c - stories on a simulated disk, each told by its number.
 *
 *     seeds [--first N = 1] [--count N = 1000] [--seconds S] [--jobs J = one a CPU] [--keep]
 *           [--until-broken]
 *
 * A seed is one store on a disk that forgets, tears, fails, lies or fills up (tests/faults/disk/disk.h), several lives
 * long, against a plain model. Each process tells seeds until one of them ends it: what is wrong, a crash or a hang is
 * named by its seed and repeats with --first N --count 1 (--keep leaves its folder to look at); the next process goes
 * on behind it. With --seconds seeds follow until the time is over. Ends with the line of all machines of tests/faults;
 * exit status 1 when anything was wrong.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/faults/disk/story.h"

#define JOBS_MAX 64u
#define HANG_S   120

struct options {
    uint64_t first, count;
    uint32_t seconds, jobs;
    bool keep, until_broken;
};

struct shared {
    struct world_tally tally;
    _Atomic uint64_t next; /* seeds given out */
    struct world_slot slots[JOBS_MAX];
};

static struct shared *shared;
static struct options options = {.first = 1, .count = 1000};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double deadline_s;

static uint64_t broken(void)
{
    uint64_t sum = shared->tally.crashes;
    for (int v = 0; v < WORLD_VERDICTS; v++)
        sum += shared->tally.bad[v];
    return sum;
}

static void tell_seeds(struct world_slot *slot)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        uint64_t n = atomic_fetch_add(&shared->next, 1);
        if (n >= options.count || (options.seconds > 0 && now_s() > deadline_s) ||
            (options.until_broken && broken() > 0))
            _exit(0);
        atomic_store(&slot->seed, options.first + n + 1);
        alarm(HANG_S);
        story_tell(options.first + n, &shared->tally, slot);
        atomic_fetch_add(&shared->tally.tried, 1);
        atomic_store(&slot->seed, 0);
    }
}

static pid_t begin(uint32_t job)
{
    struct world_slot *slot = &shared->slots[job];
    memset(slot, 0, sizeof *slot);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        tell_seeds(slot);
    return pid;
}

static void sweep(const char *path)
{
    if (path[0] && options.keep)
        fprintf(stderr, "%s is kept\n", path);
    else if (path[0] && mn_io_remove_tree(&mn_io_posix, path) != MN_OK)
        fprintf(stderr, "%s is left: %s\n", path, mn_error_text());
}

/* True when the process died in a seed, so that another has to go on. */
static bool ended(uint32_t job, int status)
{
    struct world_slot *slot = &shared->slots[job];
    uint64_t seed = atomic_load(&slot->seed);
    if (seed-- == 0)
        return false;
    if (atomic_load(&slot->verdict) == 0) {
        const char *how = WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "it ended";
        fprintf(stderr, "seed %llu: crash: %s\n", (unsigned long long)seed, how);
        atomic_fetch_add(&shared->tally.crashes, 1);
    }
    atomic_fetch_add(&shared->tally.tried, 1);
    sweep(slot->instance);
    sweep(slot->folder);
    return true;
}

static void run_all(void)
{
    pid_t pids[JOBS_MAX];
    uint32_t alive = options.jobs;
    for (uint32_t job = 0; job < options.jobs; job++)
        pids[job] = begin(job);
    while (alive > 0) {
        int status;
        pid_t pid = wait(&status);
        for (uint32_t job = 0; job < options.jobs; job++) {
            if (pids[job] != pid)
                continue;
            if (ended(job, status))
                pids[job] = begin(job);
            else
                alive--;
        }
    }
}

static int report(double seconds)
{
    struct world_tally *t = &shared->tally;
    unsigned long long lost = t->bad[WORLD_LOST], risen = t->bad[WORLD_RISEN], wrong = t->bad[WORLD_WRONG],
                       undetected = t->bad[WORLD_UNDETECTED], refused = t->bad[WORLD_REFUSED], crashes = t->crashes;
#define PART(name) (unsigned long long)t->name
    printf(
        "cuts %llu, deaths %llu, recoveries %llu (%llu more cut short), commits %llu, compactions %llu, cared %llu,\n"
        "snapshots %llu, purges %llu, retries %llu, pins held %llu; calls failed %llu, interrupted %llu, shortened "
        "%llu,\nsyncs that lied %llu, sectors lost %llu, turned to garbage %llu, names lost %llu, gaps reported %llu\n",
        PART(cuts), PART(deaths), PART(recoveries), PART(recoveries_cut), PART(commits), PART(compactions), PART(cared),
        PART(snapshots), PART(purges), PART(retries), PART(held), PART(failed_calls), PART(interrupted),
        PART(shortened), PART(lies), PART(sectors_lost), PART(sectors_garbage), PART(names_lost), PART(reported));
    printf("report disk tried=%llu lost=%llu risen=%llu wrong=%llu undetected=%llu crashes=%llu refused=%llu "
           "recoveries=%llu seconds=%.0f\n",
           PART(tried), lost, risen, wrong, undetected, crashes, refused, PART(recoveries), seconds);
#undef PART
    return broken() > 0;
}

static bool parse(int argc, char **argv)
{
    static const struct option names[] = {{"first", 1, 0, 'f'},
                                          {"count", 1, 0, 'c'},
                                          {"seconds", 1, 0, 's'},
                                          {"jobs", 1, 0, 'j'},
                                          {"keep", 0, 0, 'k'},
                                          {"until-broken", 0, 0, 'u'},
                                          {0}};
    bool counted = false;
    options.jobs = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        uint64_t value = optarg ? strtoull(optarg, NULL, 10) : 0;
        if (o == 'f')
            options.first = value;
        else if (o == 'c')
            options.count = value, counted = true;
        else if (o == 's')
            options.seconds = (uint32_t)value;
        else if (o == 'j')
            options.jobs = (uint32_t)value;
        else if (o == 'k')
            options.keep = true;
        else if (o == 'u')
            options.until_broken = true;
        else
            return false;
    }
    if (options.seconds > 0 && !counted)
        options.count = UINT64_MAX;
    return options.jobs >= 1 && options.jobs <= JOBS_MAX && optind == argc;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: seeds [--first N] [--count N] [--seconds S] [--jobs J] [--keep] [--until-broken]\n");
        return 2;
    }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("seeds: shared memory");
        return 2;
    }
    double began = now_s();
    deadline_s = began + options.seconds;
    run_all();
    return report(now_s() - began);
}
