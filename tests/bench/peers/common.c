/*
 * common.c - clocks, sentences, sizes and quantiles, for all programs of this folder (see peers.h).
 */
#include "tests/bench/peers/peers.h"

#include <ftw.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

static uint64_t read_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t peer_now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t peer_cpu_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void peer_say(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("peers: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

void peer_die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("peers: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

double peer_anonymous(void)
{
    char line[128];
    double kib = 0;
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "RssAnon: %lf", &kib) == 1)
            break;
    if (status)
        fclose(status);
    return kib * 1024;
}

static double disk_sum;

static int add_file(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    disk_sum += kind == FTW_F ? (double)st->st_size : 0;
    return 0;
}

double peer_disk(const char *path)
{
    disk_sum = 0;
    nftw(path, add_file, 16, FTW_PHYS);
    return disk_sum;
}

void peer_times_write(const char *dir, const char *engine, double load_s, double build_s)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s.times", dir, engine);
    FILE *file = fopen(path, "we");
    if (!file || fprintf(file, "%.3f %.3f\n", load_s, build_s) < 0 || fclose(file) != 0)
        peer_die("cannot write %s", path);
}

bool peer_times_read(const char *dir, const char *engine, double *load_s, double *build_s)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s.times", dir, engine);
    FILE *file = fopen(path, "re");
    bool there = file && fscanf(file, "%lf %lf", load_s, build_s) == 2;
    if (file)
        fclose(file);
    return there;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double peer_quantile(double *values, size_t count, double share)
{
    qsort(values, count, sizeof *values, compare);
    size_t at = (size_t)ceil(share * (double)count);
    return values[at > 0 ? at - 1 : 0];
}
