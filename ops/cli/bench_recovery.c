/*
 * bench_recovery.c - `mneme bench recovery`: write log, kill every process at once, start again, and see what is there.
 *
 * The writers hash every memory that was acknowledged to them (id, embedding, content); after the recovery all memories
 * are listed and hashed alike. The sums are equal exactly when nothing is missing, changed or added.
 */
#include "ops/cli/bench.h"
#include "ops/cli/bench_write.h"
#include "ops/cli/cli_time.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_PIECE = 4 << 20, PAGE = 1000, CRASH_AFTER_MS = 60 };

struct written {
    uint64_t count, hash;
};

/* ---- filling ---- */

static enum mn_status fill(const struct mn_bench_cluster *cluster, const struct mn_bench_options *o,
                           struct written *written, json_t *report)
{
    struct mn_bench_load load;
    struct mn_bench_counters before, now;
    struct mn_bench_writer writer = {
        .cluster = cluster, .batch = o->batch, .in_flight = o->in_flight, .content = o->content, .hash = true};
    enum mn_status status = MN_OK;
    uint64_t wanted = (uint64_t)(o->gib * 1073741824.0);
    MN_TRY(mn_bench_load_init(&load));
    for (uint64_t i = 0; i < o->clients; i++)
        MN_TRY_OUT(mn_bench_load_fork(&load, mn_bench_write, &writer));
    MN_TRY_OUT(mn_bench_load_wait_ready(&load));
    MN_TRY_OUT(mn_bench_counters_read(cluster, &before));
    do {
        MN_TRY_OUT(mn_bench_load_run(&load, MN_BENCH_MEASURE, 0.05));
        MN_TRY_OUT(mn_bench_counters_read(cluster, &now));
    } while (now.wal_bytes - before.wal_bytes < wanted);
    MN_TRY_OUT(mn_bench_load_stop(&load));
    for (size_t i = 0; i < load.count; i++) {
        written->count += atomic_load(&load.shared->clients[i].acked);
        written->hash += load.shared->clients[i].hash;
    }
    MN_TRY_OUT(mn_bench_counters_read(cluster, &now));
    mn_bench_put_f64(report, "log_GiB", (double)(now.wal_bytes - before.wal_bytes) / 1073741824.0);
    mn_bench_put_f64(report, "write_s", (double)(now.ns - before.ns) / 1e9);
    mn_bench_put_u64(report, "acknowledged", written->count);
out:
    mn_bench_load_end(&load);
    return status;
}

/* ---- what is there ---- */

static enum mn_status add_page(struct mneme_value memories, struct written *found)
{
    struct mneme_found f;
    for (size_t i = 0; i < mneme_value_length(memories); i++) {
        if (!mneme_value_found(mneme_value_at(memories, i), &f))
            return MN_FAIL(MN_INTERNAL, "the store listed something that is no memory");
        found->count++;
        found->hash +=
            mn_bench_load_hash(f.id.number, f.embedding, f.embedding_size, f.content ? f.content : "", f.content_size);
    }
    return MN_OK;
}

static enum mn_status list_all(const struct mn_bench_cluster *cluster, struct mneme *client, struct written *found)
{
    static const char *const fields[] = {"embedding", "content"};
    const char *space = cluster->space;
    struct mneme_listing listing = {.where = {.spaces = &space, .space_count = 1},
                                    .oldest_first = true,
                                    .limit = PAGE,
                                    .fields = fields,
                                    .field_count = MN_ARRAY_LEN(fields)};
    struct mneme_reply *reply;
    void *cursor = NULL;
    enum mn_status status = MN_OK;
    do {
        listing.cursor = cursor;
        enum mneme_code code = mneme_list(client, &listing, &reply);
        free(cursor);
        cursor = NULL;
        if (code == MNEME_TOO_LARGE && listing.limit > 1)
            return MN_FAIL(MN_TOO_LARGE, "pages of %d memories are too large: use a smaller --content", PAGE);
        if (code != MNEME_OK)
            return mn_cli_status(code, mneme_error(client));
        struct mneme_value next = mneme_reply_get(reply, "cursor");
        status = add_page(mneme_reply_get(reply, "memories"), found);
        if (status == MN_OK && mneme_value_type(next) > MNEME_TYPE_NIL &&
            mneme_value_raw(next, &cursor, &listing.cursor_size) != MNEME_OK)
            status = MN_FAIL(MN_INTERNAL, "out of memory");
        mneme_reply_free(reply);
    } while (status == MN_OK && cursor && !mn_bench_interrupted);
    free(cursor);
    return status;
}

static enum mn_status compare(const struct mn_bench_cluster *cluster, const struct written *written, json_t *report)
{
    struct mneme *client;
    struct written found = {0};
    struct mneme_reply *reply;
    MN_TRY(mn_bench_cluster_open(cluster, &client));
    mneme_set_timeout(client, 60000);
    uint64_t began = mn_cli_time_monotonic();
    enum mn_status status = list_all(cluster, client, &found);
    mn_bench_put_f64(report, "list_s", (double)(mn_cli_time_monotonic() - began) / 1e9);
    if (status == MN_OK && mneme_stats(client, "map", &reply) == MNEME_OK) {
        struct mneme_value ns = mneme_value_get(mneme_reply_get(reply, "stats"), "recovery_ns");
        mn_bench_put_f64(report, "recovery_role_s", mneme_value_f64(mneme_value_get(ns, "max"), 0) / 1e9);
        mneme_reply_free(reply);
    }
    mneme_close(client);
    if (status != MN_OK)
        return status;
    bool same = found.count == written->count && found.hash == written->hash;
    mn_bench_put_u64(report, "found", found.count);
    json_object_set_new(report, "bit_for_bit", json_boolean(same));
    if (same)
        return MN_OK;
    return MN_FAIL(MN_CORRUPT, "%" PRIu64 " memories were acknowledged, and after the kill %" PRIu64 " were there%s",
                   written->count, found.count, found.count == written->count ? ", but not bit for bit" : "");
}

/* ---- reading the same files once ---- */

static uint64_t read_file(int folder, const char *name, char *piece)
{
    uint64_t bytes = 0;
    ssize_t n;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    while ((n = read(fd, piece, READ_PIECE)) > 0)
        bytes += (uint64_t)n;
    close(fd);
    return bytes;
}

/* The floor under any recovery: every log file through a buffer, one after the other. */
static enum mn_status read_once(const struct mn_bench_cluster *cluster, json_t *report)
{
    char path[160];
    struct dirent *entry;
    uint64_t bytes = 0;
    char *piece = mn_cli_keep(READ_PIECE);
    snprintf(path, sizeof path, "%s/wal", cluster->dir);
    uint64_t began = mn_cli_time_monotonic();
    DIR *dir = opendir(path);
    if (!dir)
        return MN_FAIL_ERRNO("could not read %s", path);
    while ((entry = readdir(dir))) {
        size_t n = strlen(entry->d_name);
        if (n > 4 && strcmp(entry->d_name + n - 4, ".wal") == 0)
            bytes += read_file(dirfd(dir), entry->d_name, piece);
    }
    closedir(dir);
    double seconds = (double)(mn_cli_time_monotonic() - began) / 1e9;
    mn_bench_put_f64(report, "read_once_s", seconds);
    mn_bench_put_f64(report, "read_once_GB_per_s", (double)bytes / seconds / 1e9);
    return MN_OK;
}

static enum mn_status drop_caches(void)
{
    sync();
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "3", 1) != 1) {
        enum mn_status status = MN_FAIL_ERRNO("could not drop the page cache (--cold needs root)");
        if (fd >= 0)
            close(fd);
        return status;
    }
    close(fd);
    return MN_OK;
}

/* ---- the measurement ---- */

/* A start that is killed in the middle of its recovery. */
static enum mn_status crash_once_more(struct mn_bench_cluster *cluster)
{
    MN_TRY(mn_bench_cluster_start(cluster));
    usleep(CRASH_AFTER_MS * 1000);
    return mn_bench_cluster_kill(cluster);
}

static enum mn_status measure(struct mn_bench_cluster *cluster, const struct mn_bench_options *o, json_t *report)
{
    struct written written = {0};
    MN_TRY(fill(cluster, o, &written, report));
    MN_TRY(mn_bench_cluster_kill(cluster));
    if (o->crash)
        MN_TRY(crash_once_more(cluster));
    if (o->cold)
        MN_TRY(drop_caches());
    uint64_t began = mn_cli_time_monotonic();
    MN_TRY(mn_bench_cluster_start(cluster));
    MN_TRY(mn_bench_cluster_wait_ready(cluster));
    double seconds = (double)(mn_cli_time_monotonic() - began) / 1e9;
    double bytes = json_real_value(json_object_get(report, "log_GiB")) * 1073741824.0;
    mn_bench_put_f64(report, "exec_to_ready_s", seconds);
    mn_bench_put_f64(report, "GB_per_s", bytes / seconds / 1e9);
    enum mn_status status = compare(cluster, &written, report);
    if (status == MN_OK)
        status = read_once(cluster, report);
    return status;
}

enum mn_status mn_bench_recovery(struct mn_cli *cli, const struct mn_cli_args *args, const struct mn_bench_options *o,
                                 json_t *report)
{
    struct mn_bench_cluster cluster = {0};
    enum mn_status status = MN_OK;
    if (cli->dir_given)
        return MN_FAIL(MN_USAGE, "recovery kills what it measures: it takes no --dir");
    MN_TRY_OUT(mn_bench_cluster_begin(&cluster, cli, args, "compact.enabled=no"));
    mn_bench_put_setting(report, &cluster);
    MN_TRY_OUT(measure(&cluster, o, report));
out:
    mn_bench_cluster_end(&cluster);
    return status;
}
