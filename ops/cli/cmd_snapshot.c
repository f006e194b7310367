/*
 * cmd_snapshot.c - `mneme snapshot` and `mneme restore`.
 *
 * A snapshot is made by the running store, while writes go on. Restoring is a copy and needs no server: into a folder
 * beside the new one, every file and folder fsynced, renamed into place at the end, so that a half-made store never
 * bears the name.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_progress.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 16, PIECE = 4 << 20 };

static const struct mn_cli_option no_options[] = {{0}};

/* ---- snapshot ---- */

/* The store wants an absolute path; the last part need not exist. Kept. */
static enum mn_status make_absolute(const char *path, const char **out)
{
    *out = path;
    if (path[0] == '/')
        return MN_OK;
    char *here = getcwd(NULL, 0);
    if (!here)
        return MN_FAIL_ERRNO("could not find the current folder");
    size_t size = strlen(here) + strlen(path) + 2;
    char *whole = mn_cli_keep(size);
    snprintf(whole, size, "%s/%s", here, path);
    free(here);
    *out = whole;
    return MN_OK;
}

static enum mn_status run_snapshot(struct mn_cli *cli, const struct mn_cli_args *args)
{
    const char *path;
    char bytes[32];
    struct mneme_reply *reply;
    MN_TRY(mn_cli_args_words(args, 1, 1, "the snapshot's PATH"));
    MN_TRY(mn_cli_connect(cli));
    MN_TRY(make_absolute(args->words[0], &path));
    MN_CLI_TRY(cli->client, mneme_snapshot(cli->client, path, &reply));
    enum mn_status status = MN_OK;
    if (cli->json)
        status = mn_cli_json_print_reply(reply, cli->out_is_terminal);
    else
        printf("%s: %" PRIu64 " files, %s, as of seq %" PRIu64 "\n", path,
               mneme_value_u64(mneme_reply_get(reply, "files"), 0),
               mn_cli_out_bytes((double)mneme_value_u64(mneme_reply_get(reply, "bytes"), 0), bytes),
               mneme_value_u64(mneme_reply_get(reply, "seq"), 0));
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_snapshot = {
    .usage = "PATH",
    .options = no_options,
    .details = "Makes a consistent copy of the running store in the folder PATH, which must not exist. Writes go on "
               "meanwhile. The store\n"
               "writes it itself, so PATH is on its host and lies under the setting snapshot.roots (by default the "
               "folder that the\n"
               "store's folder is in). `mnemed --dir PATH` opens it.\n",
    .examples = "  mneme snapshot /var/lib/mneme-monday\n"
                "  mneme --dir ./restored restore /var/lib/mneme-monday\n",
    .run = run_snapshot,
};

/* ---- restore ---- */

struct copying {
    uint64_t total, bytes, files;
    struct mn_cli_progress progress;
};

/* One piece; 0 at the end. File systems that cannot copy between each other (EXDEV, EINVAL) get it through memory. */
static ssize_t copy_piece(int from, int to)
{
    static char piece[PIECE];
    ssize_t n = copy_file_range(from, NULL, to, NULL, PIECE, 0), written = 0;
    if (n >= 0 || (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP))
        return n;
    n = read(from, piece, sizeof piece);
    while (n > 0 && written < n) {
        ssize_t w = write(to, piece + written, (size_t)(n - written));
        if (w < 0 && errno != EINTR)
            return -1;
        written += w > 0 ? w : 0;
    }
    return n;
}

static enum mn_status copy_bytes(struct copying *c, int from, int to, const char *name)
{
    for (;;) {
        ssize_t n = copy_piece(from, to);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return MN_FAIL_ERRNO("could not copy %s", name);
        if (n == 0)
            return MN_OK;
        c->bytes += (uint64_t)n;
        mn_cli_progress_show(&c->progress, c->bytes, c->bytes >> 20);
    }
}

static enum mn_status copy_file(struct copying *c, int from_dir, int to_dir, const char *name)
{
    enum mn_status status = MN_OK;
    struct stat st;
    int to = -1, from = openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (from < 0)
        return MN_FAIL_ERRNO("could not open %s", name);
    if (fstat(from, &st) != 0)
        MN_TRY_OUT(MN_FAIL_ERRNO("could not look at %s", name));
    to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, st.st_mode & 0777);
    if (to < 0)
        MN_TRY_OUT(MN_FAIL_ERRNO("could not make %s", name));
    MN_TRY_OUT(copy_bytes(c, from, to, name));
    if (fsync(to) != 0)
        MN_TRY_OUT(MN_FAIL_ERRNO("could not sync %s", name));
    c->files++;
out:
    close(from);
    if (to >= 0 && close(to) != 0 && status == MN_OK)
        status = MN_FAIL_ERRNO("could not close %s", name);
    return status;
}

typedef enum mn_status visit(void *context, int from_dir, int to_dir, const char *name, const struct stat *st,
                             int depth);

/* Calls `each` for all entries of a folder but sockets and `run`, which belongs to a running instance. */
static enum mn_status walk(int from_dir, int to_dir, int depth, visit *each, void *context)
{
    enum mn_status status = MN_OK;
    struct dirent *entry;
    struct stat st;
    int fd = dup(from_dir);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return MN_FAIL_ERRNO("could not read a folder of the snapshot");
    rewinddir(dir);
    while (status == MN_OK && (errno = 0, entry = readdir(dir))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (depth == 0 && strcmp(name, "run") == 0))
            continue;
        if (fstatat(from_dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            status = MN_FAIL_ERRNO("could not look at %s", name);
        else if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))
            status = each(context, from_dir, to_dir, name, &st, depth);
    }
    if (status == MN_OK && errno)
        status = MN_FAIL_ERRNO("could not read a folder of the snapshot");
    closedir(dir);
    return status;
}

static enum mn_status descend(int from_dir, int to_dir, const char *name, const struct stat *st, int depth, visit *each,
                              void *context)
{
    if (depth >= DEPTH_MAX)
        return MN_FAIL(MN_BAD_REQUEST, "the snapshot is nested more than %d folders deep", DEPTH_MAX);
    if (to_dir >= 0 && mkdirat(to_dir, name, st->st_mode & 0777) != 0)
        return MN_FAIL_ERRNO("could not make the folder %s", name);
    int from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int to = to_dir < 0 ? -1 : openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    enum mn_status status = from < 0 || (to_dir >= 0 && to < 0) ? MN_FAIL_ERRNO("could not open the folder %s", name)
                                                                : walk(from, to, depth + 1, each, context);
    if (status == MN_OK && to >= 0 && fsync(to) != 0)
        status = MN_FAIL_ERRNO("could not sync the folder %s", name);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return status;
}

static enum mn_status copy_entry(void *context, int from_dir, int to_dir, const char *name, const struct stat *st,
                                 int depth)
{
    if (S_ISDIR(st->st_mode))
        return descend(from_dir, to_dir, name, st, depth, copy_entry, context);
    return copy_file(context, from_dir, to_dir, name);
}

static enum mn_status measure_entry(void *context, int from_dir, int to_dir, const char *name, const struct stat *st,
                                    int depth)
{
    struct copying *c = context;
    if (S_ISDIR(st->st_mode))
        return descend(from_dir, -1, name, st, depth, measure_entry, context);
    c->total += (uint64_t)st->st_size;
    return MN_OK;
}

static enum mn_status sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        enum mn_status status = MN_FAIL_ERRNO("could not sync the folder %s", path);
        if (fd >= 0)
            close(fd);
        return status;
    }
    close(fd);
    return MN_OK;
}

/* Copies into `partial`, then gives it the store's name. */
static enum mn_status copy_store(struct mn_cli *cli, struct copying *c, int from, const char *partial)
{
    enum mn_status status = MN_OK;
    char *copy = strdup(partial);
    int to = -1;
    if (!copy)
        return MN_FAIL(MN_INTERNAL, "out of memory");
    if (mkdir(partial, 0700) != 0)
        MN_TRY_OUT(MN_FAIL_ERRNO("could not make the folder %s (left by an earlier try? then remove it)", partial));
    to = open(partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (to < 0)
        MN_TRY_OUT(MN_FAIL_ERRNO("could not open %s", partial));
    MN_TRY_OUT(walk(from, -1, 0, measure_entry, c));
    mn_cli_progress_begin(&c->progress, cli, "restore", "MiB", c->total);
    MN_TRY_OUT(walk(from, to, 0, copy_entry, c));
    if (fsync(to) != 0)
        MN_TRY_OUT(MN_FAIL_ERRNO("could not sync %s", partial));
    /* Renaming over an empty folder is allowed, over anything else it fails: an existing store cannot be lost. */
    if (rename(partial, cli->dir) != 0)
        MN_TRY_OUT(MN_FAIL_ERRNO("could not rename %s to %s", partial, cli->dir));
    char *slash = strrchr(copy, '/');
    if (slash)
        slash[slash == copy] = 0;
    MN_TRY_OUT(sync_folder(slash ? copy : "."));
out:
    mn_cli_progress_end(&c->progress);
    if (to >= 0)
        close(to);
    free(copy);
    return status;
}

/* The new folder must be missing or empty. */
static enum mn_status check_target(const char *dir)
{
    struct dirent *entry;
    DIR *d = opendir(dir);
    bool used = false;
    if (!d)
        return errno == ENOENT ? MN_OK : MN_FAIL_ERRNO("could not look into %s", dir);
    while ((entry = readdir(d)))
        used = used || (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0);
    closedir(d);
    return used ? MN_FAIL(MN_EXISTS, "%s is not empty: restore makes a new store and never writes over one", dir)
                : MN_OK;
}

static enum mn_status run_restore(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct copying c = {0};
    char *partial, bytes[32];
    MN_TRY(mn_cli_args_words(args, 1, 1, "the SNAPSHOT's folder"));
    MN_TRY(mn_cli_need_dir(cli));
    const char *snapshot = args->words[0];
    size_t n = strlen(cli->dir);
    while (n > 1 && cli->dir[n - 1] == '/')
        n--;
    MN_TRY(check_target(cli->dir));
    int from = open(snapshot, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (from < 0)
        return MN_FAIL_ERRNO("could not open the snapshot %s", snapshot);
    enum mn_status status = MN_OK;
    if (faccessat(from, "STORE", R_OK, 0) != 0)
        status = MN_FAIL(MN_BAD_REQUEST, "%s is no snapshot: it has no file STORE", snapshot);
    else if (asprintf(&partial, "%.*s.partial", (int)n, cli->dir) < 0)
        status = MN_FAIL(MN_INTERNAL, "out of memory");
    else {
        status = copy_store(cli, &c, from, partial);
        free(partial);
    }
    close(from);
    if (status != MN_OK)
        return status;
    if (cli->json)
        return mn_cli_json_print(
            json_pack("{s:b, s:I, s:I}", "ok", 1, "bytes", (json_int_t)c.bytes, "files", (json_int_t)c.files),
            cli->out_is_terminal);
    printf("%s: %" PRIu64 " files, %s; start it with `mnemed --dir %s`\n", cli->dir, c.files,
           mn_cli_out_bytes((double)c.bytes, bytes), cli->dir);
    return MN_OK;
}

const struct mn_cli_command mn_cmd_restore = {
    .usage = "SNAPSHOT",
    .options = no_options,
    .details = "Copies a snapshot to the new folder --dir, which must be missing or empty, and makes sure that it is "
               "on disk. No server is\n"
               "needed. The snapshot stays as it is; two stores from one snapshot live apart from then on.\n",
    .examples = "  mneme --dir ./restored restore /backup/mneme-monday\n",
    .run = run_restore,
};
