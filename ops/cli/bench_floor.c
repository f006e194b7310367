/*
 * bench_floor.c - the floor under any durable ingest: the same bytes with a bare loop of pwritev and fdatasync.
 *
 * One process, one file that was written before (a log segment is, too), no format, no checksums, nobody to answer.
 * Each write has as many bytes as a commit of the measured run had on average.
 */
#include "ops/cli/bench.h"
#include "ops/cli/cli_time.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FILE_BYTES = 256 << 20, PIECE = 1 << 20, BLOCK = 4096 };

static enum mn_status fill(int fd, const char *path, const char *piece)
{
    for (off_t at = 0; at < FILE_BYTES; at += PIECE)
        if (pwrite(fd, piece, PIECE, at) != PIECE)
            return MN_FAIL_ERRNO("could not write %s", path);
    return fsync(fd) == 0 ? MN_OK : MN_FAIL_ERRNO("could not sync %s", path);
}

/* Writes and syncs for so long; *commits and *seconds: how often, in what time. */
static enum mn_status loop(int fd, const char *path, char *buffer, size_t bytes, double wanted_s, uint64_t *commits,
                           double *seconds)
{
    uint64_t began = mn_cli_time_monotonic();
    off_t at = 0;
    do {
        if (at + (off_t)bytes > FILE_BYTES)
            at = 0;
        struct iovec piece = {buffer, bytes};
        if (pwritev(fd, &piece, 1, at) != (ssize_t)bytes || fdatasync(fd) != 0)
            return MN_FAIL_ERRNO("could not write %s", path);
        at += (off_t)bytes;
        buffer[(*commits)++ % bytes]++; /* not the same bytes again */
        *seconds = (double)(mn_cli_time_monotonic() - began) / 1e9;
    } while (*seconds < wanted_s && !mn_bench_interrupted);
    return MN_OK;
}

enum mn_status mn_bench_floor(const struct mn_bench_cluster *cluster, double bytes_per_commit, double wanted_s,
                              double *bytes_per_s)
{
    char path[128];
    size_t bytes = mn_round_up((uint64_t)bytes_per_commit, BLOCK);
    uint64_t commits = 0;
    double seconds = 0;
    if (bytes == 0 || bytes > FILE_BYTES)
        return MN_FAIL(MN_INTERNAL, "a commit of %zu bytes cannot be repeated", bytes);
    char *buffer = mn_cli_keep(bytes > PIECE ? bytes : PIECE);
    memset(buffer, 'm', bytes > PIECE ? bytes : PIECE);
    snprintf(path, sizeof path, "%s/floor", cluster->root);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return MN_FAIL_ERRNO("could not make %s", path);
    sync(); /* what others left to be written is not this loop's */
    enum mn_status status = fill(fd, path, buffer);
    if (status == MN_OK)
        status = loop(fd, path, buffer, bytes, wanted_s, &commits, &seconds);
    close(fd);
    unlink(path);
    *bytes_per_s = status == MN_OK ? (double)commits * (double)bytes / seconds : 0;
    return status;
}
