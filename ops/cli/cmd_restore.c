/*
 * cmd_restore.c - `mneme restore`: a new store from a snapshot, checked before, copied, and checked again.
 *
 * The engine does it here, without a server. A signal ends it as a failing disk would: the I/O table that the engine is
 * given makes nothing more once one has come, and the engine then removes what it has made.
 */
#include "engine/snapshot.h"
#include "ops/cli/cli.h"
#include "ops/cli/cli_damage.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_progress.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct mn_cli_option options[] = {
    {"force", 0, NULL, "a damaged snapshot too: says what of it will be missing"},
    {0},
};

struct restoring {
    struct mn_cli_progress progress;
    json_t *damaged;
};

/* ---- an end by a signal ---- */

static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
static volatile sig_atomic_t ended;

static void note_end(int number)
{
    ended = number;
}

/* The second signal of a kind ends the process at once; what it leaves is removed by the next attempt. */
static void catch_ends(void)
{
    struct sigaction action = {.sa_handler = note_end, .sa_flags = (int)SA_RESETHAND}, before;
    for (size_t e = 0; e < MN_ARRAY_LEN(ends); e++)
        if (sigaction(ends[e], NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* nohup's wish */
            sigaction(ends[e], &action, NULL);
}

static enum mn_status go_on(void)
{
    return ended ? MN_FAIL(MN_UNAVAILABLE, "interrupted by signal %d; nothing was made", (int)ended) : MN_OK;
}

static enum mn_status open_or_end(const char *path, int flags, int *fd)
{
    *fd = -1;
    MN_TRY(go_on());
    return mn_io_posix.open(path, flags, fd);
}

static enum mn_status copy_or_end(const char *from, const char *to, uint64_t *bytes)
{
    MN_TRY(go_on());
    MN_TRY(mn_io_posix.copy(from, to, bytes));
    return go_on();
}

static enum mn_status mkdir_or_end(const char *path)
{
    MN_TRY(go_on());
    return mn_io_posix.mkdir(path);
}

static enum mn_status rename_or_end(const char *from, const char *to)
{
    MN_TRY(go_on());
    return mn_io_posix.rename(from, to);
}

/* ---- where from, where to ---- */

/* The snapshot may have been started as a store: not now, and not while it is copied. A snapshot that never was has no
 * LOCK and gets none, as it may be on a disk that cannot be written. */
static enum mn_status keep_from_starting(const char *snapshot, int *lock)
{
    char path[MN_PATH_MAX];
    struct flock shared = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    *lock = -1;
    if ((size_t)snprintf(path, sizeof path, "%s/LOCK", snapshot) >= sizeof path)
        return MN_FAIL(MN_USAGE, "the path of the snapshot is too long");
    *lock = open(path, O_RDONLY | O_CLOEXEC);
    if (*lock >= 0 && fcntl(*lock, F_OFD_SETLK, &shared) != 0 && (errno == EAGAIN || errno == EACCES))
        return MN_FAIL(MN_BUSY, "a mnemed runs on %s: `mneme --dir %s snapshot PATH` makes a snapshot of it", snapshot,
                       snapshot);
    return MN_OK;
}

/* `dir` as a path whose last part is the new folder's name: no slash behind it, no link. */
static enum mn_status settle_place(const char *dir, char **place)
{
    struct stat there, above;
    char parent[MN_PATH_MAX + 4];
    char *real = realpath(dir, NULL);
    const char *path = real ? real : dir;
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    *place = mn_cli_keep(length + 1);
    memcpy(*place, path, length);
    free(real);
    if (length >= MN_PATH_MAX)
        return MN_FAIL(MN_USAGE, "the path of --dir is too long");
    if (lstat(*place, &there) != 0)
        return MN_OK; /* making it will tell what else is wrong */
    snprintf(parent, sizeof parent, "%s/..", *place);
    if (S_ISLNK(there.st_mode))
        return MN_FAIL(MN_EXISTS, "%s is a link to nothing", *place);
    if (S_ISDIR(there.st_mode) && stat(parent, &above) == 0 &&
        (above.st_dev != there.st_dev || above.st_ino == there.st_ino))
        return MN_FAIL(MN_EXISTS, "%s is where a file system is mounted: name a folder in it", *place);
    return MN_OK;
}

/* ---- what is said ---- */

static void note_damage(void *context, const char *path, const char *what)
{
    struct restoring *r = context;
    const struct mn_cli_damage *piece = mn_cli_damage_of(path);
    if (!ended) /* what cannot be opened any more is not damaged */
        json_array_append_new(r->damaged, json_pack("{s:s, s:s, s:s, s:s}", "file", path, "reason", what, "means",
                                                    piece->means, "missing", piece->missing));
}

static void note_progress(void *context, uint64_t done, uint64_t total)
{
    struct restoring *r = context;
    r->progress.total = total;
    mn_cli_progress_show(&r->progress, done, done >> 20);
}

static void print_damage(const json_t *damaged)
{
    for (size_t i = 0; i < json_array_size(damaged); i++) {
        const char *file, *reason, *means, *missing;
        json_t *piece = json_array_get(damaged, i);
        if (json_unpack(piece, "{s:s, s:s, s:s, s:s}", "file", &file, "reason", &reason, "means", &means, "missing",
                        &missing) == 0)
            fprintf(stderr, "%s\n  what is wrong     %s\n  what it is        %s\n  missing then      %s\n\n", file,
                    reason, means, missing);
    }
}

/* A refusal: of the snapshot when pieces of it are damaged and it was not forced, of anything else otherwise. */
static enum mn_status refuse(struct mn_cli *cli, const struct restoring *r, bool force, enum mn_status status)
{
    size_t damaged = json_array_size(r->damaged);
    if (ended)
        return go_on();
    if (status == MN_EXISTS)
        return mn_cli_fail(status, "%s: give a folder that is missing or empty with --dir", mn_error_text());
    if (damaged == 0 || force)
        return status;
    if (!cli->json)
        print_damage(r->damaged);
    status =
        mn_cli_fail(status,
                    "damaged pieces of the snapshot: %zu. Nothing was made. Restore an older snapshot, or this one "
                    "without what is damaged, with --force",
                    damaged);
    if (!cli->json)
        return status;
    MN_TRY(mn_cli_json_print(json_pack("{s:b, s:s, s:s, s:b, s:O}", "ok", 0, "code", mn_status_word(status), "error",
                                       mn_error_text(), "retry", mn_status_retry(status), "damaged", r->damaged),
                             cli->out_is_terminal));
    cli->reported = true;
    return status;
}

static enum mn_status tell(const struct mn_cli *cli, const char *place, const struct restoring *r,
                           const struct mn_copy_result *copy)
{
    char bytes[32];
    if (cli->json)
        return mn_cli_json_print(json_pack("{s:b, s:I, s:I, s:I, s:O}", "ok", 1, "seq", (json_int_t)copy->seq, "bytes",
                                           (json_int_t)copy->bytes, "files", (json_int_t)copy->files, "damaged",
                                           r->damaged),
                                 cli->out_is_terminal);
    print_damage(r->damaged);
    printf("%s: %" PRIu64 " files, %s, as of seq %" PRIu64 "; start it with `mnemed --dir %s`\n", place, copy->files,
           mn_cli_out_bytes((double)copy->bytes, bytes), copy->seq, place);
    fflush(stdout);
    if (copy->damaged > 0)
        fprintf(stderr, "damaged pieces: %" PRIu64 ", copied as they are; `mneme --dir %s verify` lists them\n",
                copy->damaged, place);
    return MN_OK;
}

static enum mn_status restore(struct mn_cli *cli, const char *snapshot, const char *place, bool force)
{
    struct restoring r = {.damaged = json_array()};
    struct mn_copy_result copy;
    struct mn_io io = mn_io_posix;
    if (!r.damaged)
        return MN_FAIL(MN_INTERNAL, "out of memory");
    io.open = open_or_end;
    io.copy = copy_or_end;
    io.mkdir = mkdir_or_end;
    io.rename = rename_or_end;
    struct mn_restore asked = {.io = &io,
                               .snapshot = snapshot,
                               .dir = place,
                               .damaged_too = force,
                               .damaged = note_damage,
                               .progress = note_progress,
                               .context = &r};
    catch_ends();
    mn_cli_progress_begin(&r.progress, cli, "restore", "MiB", 0);
    enum mn_status status = mn_snapshot_restore(&asked, &copy);
    mn_cli_progress_end(&r.progress);
    status = status == MN_OK ? tell(cli, place, &r, &copy) : refuse(cli, &r, force, status);
    json_decref(r.damaged);
    return status;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    char *place;
    int lock;
    MN_TRY(mn_cli_args_words(args, 1, 1, "the SNAPSHOT's folder"));
    MN_TRY(mn_cli_need_dir(cli));
    MN_TRY(settle_place(cli->dir, &place));
    enum mn_status status = keep_from_starting(args->words[0], &lock);
    if (status == MN_OK)
        status = restore(cli, args->words[0], place, mn_cli_args_has(args, "force"));
    if (lock >= 0)
        close(lock);
    return status;
}

const struct mn_cli_command mn_cmd_restore = {
    .usage = "SNAPSHOT [--force]",
    .options = options,
    .details =
        "Makes the new store --dir of a snapshot. No server is needed, and the snapshot stays as it is; two "
        "stores from one\n"
        "snapshot live apart from then on.\n\n"
        "First every checksum of the snapshot is compared. A damaged one is refused: each damaged piece is told, "
        "with what would\n"
        "be missing without it, and nothing is made. Restore an older snapshot then, or what is whole in this "
        "one, with --force.\n\n"
        "The copy is made as DIR.mneme-copy, checked again, synced, and gets its name last: a store in DIR is a "
        "whole one. DIR\n"
        "must be missing or an empty folder. When the disk is full, or on SIGINT, SIGTERM and SIGHUP, what was made "
        "is removed;\n"
        "what a killed one leaves in DIR.mneme-copy, the next restore to DIR removes.\n",
    .examples = "  mneme --dir ./restored restore /backup/mneme-monday\n"
                "  mneme --dir ./restored restore /backup/mneme-monday --json | jq .damaged\n"
                "  mneme --dir ./rescued restore /backup/mneme-monday --force    # what is whole of a damaged one\n"
                "  mnemed --dir ./restored\n",
    .run = run,
};
