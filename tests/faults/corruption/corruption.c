/*
 * corruption.c - small complete stores are damaged in every way that there is, one at a time: scenarios 41 to 63.
 *
 *     corruption [--cases N] [--specimen NAME] [--lanes N] [--all] [--shown N]
 *     corruption --case NAME
 *     corruption --list
 *
 * Every bit of every file is flipped; every file is cut, zeroed, overwritten, lengthened, exchanged, taken from another
 * store, removed; headers of the log are made to lie under a right checksum. For each: verify must report it, the store
 * must start all the same, what is served is what was written, what was forgotten stays so, what was not touched is
 * there, and what is missing is told. Where a damage takes all that ever said that a memory was forgotten or replaced
 * (a log that ends early, or is gone), what it was before may be served again, if recovery tells of the loss:
 * `unknown`. --cases: about so many, some of every kind (0: all). --all: each bit behind the end of the log, too, not
 * one a sector. A bad case is named, and --case shows what becomes of it. Prints a table and a line `report corruption
 * ...`; exit status 1 when anything was not as it must be.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/io.h"
#include "tests/faults/corruption/lanes.h"
#include "tests/faults/corruption/senses.h"

struct options {
    uint64_t cases;
    uint32_t lanes, shown;
    const char *specimen, *name;
    bool all, list;
};

static struct specimen specimens[SPECIMEN_SHAPES];
static bool steady_random; /* a specimen is being made */

/* ---- what would make two runs differ ---- */

ssize_t __real_getrandom(void *buffer, size_t bytes, unsigned flags);
ssize_t __wrap_getrandom(void *buffer, size_t bytes, unsigned flags);

/* Salts of log segments follow from each other while specimens are made: a name then means the same in every run. */
ssize_t __wrap_getrandom(void *buffer, size_t bytes, unsigned flags)
{
    static uint32_t salt = 0x2f6b1a03;
    if (!steady_random || bytes != sizeof salt)
        return __real_getrandom(buffer, bytes, flags);
    salt = salt * 1664525 + 1013904223;
    memcpy(buffer, &salt, sizeof salt);
    return (ssize_t)bytes;
}

int __wrap_nanosleep(const struct timespec *time, struct timespec *left);
int __real_nanosleep(const struct timespec *time, struct timespec *left);

/* verify waits for a writer that may be at work; there is none. */
int __wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
    return steady_random ? __real_nanosleep(time, left) : 0;
}

/* ---- running ---- */

static void make_specimens(const struct options *o)
{
    steady_random = true;
    for (enum specimen_shape shape = 0; shape < SPECIMEN_SHAPES; shape++)
        if (!o->specimen || strcmp(o->specimen, specimen_names[shape]) == 0)
            specimen_make(&specimens[shape], shape);
    steady_random = false;
}

static void plan_all(const struct options *o, struct damage_plan *plan)
{
    for (enum specimen_shape shape = 0; shape < SPECIMEN_SHAPES; shape++)
        if (specimens[shape].memory_count > 0)
            damage_plan_add(plan, &specimens[shape], o->all);
    damage_plan_number(plan, o->cases);
    fprintf(stderr, "%llu cases\n", (unsigned long long)plan->cases);
}

/* Undamaged, there is nothing to report, and the judge is not blind: else no report would mean anything. */
static bool calm(struct judge *judge)
{
    bool good = true;
    for (enum specimen_shape shape = 0; shape < SPECIMEN_SHAPES; shape++) {
        struct verdict v;
        if (specimens[shape].memory_count == 0)
            continue;
        disk_mount(&specimens[shape].disk, judge->dir);
        judge_case(judge, &specimens[shape], NULL, &v);
        if (!v.told && !v.refused && !v.degraded && !v.unsteady && v.missing + v.lost + v.risen + v.wrong == 0) {
            good &= senses_work(judge, &specimens[shape]);
            continue;
        }
        printf("%s, as it was made: %s\n", specimen_names[shape], v.what);
        judge->loud = true;
        judge_case(judge, &specimens[shape], NULL, &v);
        good = false;
    }
    return good;
}

static void list_files(void)
{
    for (enum specimen_shape shape = 0; shape < SPECIMEN_SHAPES; shape++)
        for (uint32_t f = 0; f < specimens[shape].disk.count; f++)
            printf("%s/%s %zu\n", specimen_names[shape], specimens[shape].disk.files[f].name,
                   specimens[shape].disk.files[f].blob->bytes);
    for (enum specimen_shape shape = 0; shape < SPECIMEN_SHAPES; shape++)
        for (uint32_t m = 0; m < specimens[shape].memory_count; m++) {
            const struct specimen_memory *memory = &specimens[shape].memories[m];
            char id[MN_ID_TEXT_MAX];
            mn_id_text(&memory->id, id);
            printf("%s: %s of %s, version %u: ", specimen_names[shape], id, specimen_space(memory->space).data,
                   memory->version);
            if (!memory->there)
                printf("gone\n");
            else if (memory->wal)
                printf("log %llu, %llu to %llu\n", (unsigned long long)memory->wal, (unsigned long long)memory->begin,
                       (unsigned long long)memory->end);
            else
                printf("columns %llu\n", (unsigned long long)memory->columns);
        }
}

/* One case, with all that happens. */
static int show_case(const struct damage_plan *plan, struct judge *judge, const char *name)
{
    struct damage damage;
    struct verdict verdict;
    struct tally tally = {0};
    char text[800] = "as it should be";
    if (!damage_named(plan, name, &damage)) {
        fprintf(stderr, "no case has the name %s\n", name);
        return 2;
    }
    disk_mount(&damage.group->specimen->disk, judge->dir);
    if (!damage_do(&damage)) {
        printf("nothing changes by it\n");
        return 0;
    }
    judge->loud = true;
    judge_case(judge, damage.group->specimen, &damage, &verdict);
    bool good = lanes_good(&damage, &verdict, &tally, text);
    printf("%s\nmissing %u, lost %u, risen %u, wrong %u, told %d, degraded %d, refused %d\n", text, verdict.missing,
           verdict.lost, verdict.risen, verdict.wrong, verdict.told, verdict.degraded, verdict.refused);
    return good ? 0 : 1;
}

/* ---- the report ---- */

static void print_row(const char *what, const char *how, const struct tally *t)
{
    if (t->tried > 0)
        printf("%-16s %-12s %9llu %8.3f%% %8llu %8llu %10llu %6llu %6llu %8llu %6llu %8llu %8llu\n", what, how,
               (unsigned long long)t->tried, 100.0 * (double)(t->tried - t->undetected) / (double)t->tried,
               (unsigned long long)t->missing, (unsigned long long)t->refused, (unsigned long long)t->undetected,
               (unsigned long long)t->lost, (unsigned long long)t->risen, (unsigned long long)t->unknown,
               (unsigned long long)t->wrong, (unsigned long long)t->unsteady, (unsigned long long)t->crashes);
}

static struct tally sum_of(const struct tally *tallies, uint32_t count, uint32_t stride)
{
    struct tally sum = {0};
    for (uint32_t i = 0; i < count; i++) {
        const struct tally *t = &tallies[(size_t)i * stride];
        sum.tried += t->tried;
        sum.told += t->told;
        sum.missing += t->missing;
        sum.refused += t->refused;
        sum.undetected += t->undetected;
        sum.lost += t->lost;
        sum.risen += t->risen;
        sum.unknown += t->unknown;
        sum.wrong += t->wrong;
        sum.unsteady += t->unsteady;
        sum.crashes += t->crashes;
    }
    return sum;
}

static int report(const struct lanes_result *result)
{
    printf("%-16s %-12s %9s %9s %8s %8s %10s %6s %6s %8s %6s %8s %8s\n", "file", "damage", "tried", "detected",
           "missing", "refused", "undetected", "lost", "risen", "unknown", "wrong", "unsteady", "crashes");
    for (uint32_t f = 0; f < DAMAGE_FILES; f++)
        for (uint32_t k = 0; k < DAMAGE_KINDS; k++)
            print_row(damage_file_names[f], damage_words[k], &result->tallies[f][k]);
    struct tally all = sum_of(&result->tallies[0][0], DAMAGE_FILES * DAMAGE_KINDS, 1);
    print_row("all", "", &all);
    printf("report corruption tried=%llu lost=%llu risen=%llu wrong=%llu undetected=%llu crashes=%llu refused=%llu "
           "unsteady=%llu unknown=%llu flips=%llu seconds=%.1f\n",
           (unsigned long long)all.tried, (unsigned long long)all.lost, (unsigned long long)all.risen,
           (unsigned long long)all.wrong, (unsigned long long)all.undetected, (unsigned long long)all.crashes,
           (unsigned long long)all.refused, (unsigned long long)all.unsteady, (unsigned long long)all.unknown,
           (unsigned long long)sum_of(&result->tallies[0][DAMAGE_FLIP], DAMAGE_FILES, DAMAGE_KINDS).tried,
           (double)result->ns / 1e9);
    return all.lost + all.risen + all.wrong + all.undetected + all.crashes + all.refused + all.unsteady == 0 ? 0 : 1;
}

static int usage(void)
{
    fprintf(stderr, "usage: corruption [--cases N] [--specimen NAME] [--lanes N] [--all] [--shown N]\n"
                    "       corruption --case NAME | --list\n");
    return 2;
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"cases", required_argument, NULL, 'n'}, {"specimen", required_argument, NULL, 's'},
        {"lanes", required_argument, NULL, 'l'}, {"all", no_argument, NULL, 'z'},
        {"shown", required_argument, NULL, 'v'}, {"case", required_argument, NULL, 'c'},
        {"list", no_argument, NULL, 'i'},        {0}};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    *o = (struct options){.lanes = cpus > 0 ? (uint32_t)cpus : 1, .shown = 50};
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        uint64_t number = optarg ? strtoull(optarg, NULL, 10) : 0;
        if (c == 'n')
            o->cases = number;
        else if (c == 's')
            o->specimen = optarg;
        else if (c == 'l' && number > 0)
            o->lanes = (uint32_t)number;
        else if (c == 'z')
            o->all = true;
        else if (c == 'v')
            o->shown = (uint32_t)number;
        else if (c == 'c')
            o->name = optarg;
        else if (c == 'i')
            o->list = true;
        else
            return false;
    }
    return optind == argc;
}

static int run(const struct options *o, const char *dir)
{
    struct damage_plan plan = {0};
    struct judge judge = {0};
    struct lanes_result result;
    make_specimens(o);
    plan_all(o, &plan);
    if (!judge_open(&judge, dir))
        return 1;
    bool good = calm(&judge);
    int status = good ? 0 : 1;
    if (o->list)
        list_files();
    else if (good && o->name)
        status = show_case(&plan, &judge, o->name);
    judge_close(&judge);
    if (good && !o->list && !o->name) {
        lanes_run(&plan, dir, o->lanes, 60, o->shown, &result);
        status = report(&result);
    }
    damage_plan_free(&plan);
    return status;
}

int main(int argc, char **argv)
{
    struct options o;
    char dir[] = "/dev/shm/mn-corruption-XXXXXX", wal[64];
    if (!parse(argc, argv, &o))
        return usage();
    if (!mkdtemp(dir)) {
        fprintf(stderr, "no folder in /dev/shm can be made here\n");
        return 77;
    }
    snprintf(wal, sizeof wal, "%s/wal", dir);
    mkdir(wal, 0700);
    int status = run(&o, dir);
    if (mn_io_remove_tree(&mn_io_posix, dir) != MN_OK)
        fprintf(stderr, "%s is left\n", dir);
    return status;
}
