/*
 * cmd_snapshot.c - `mneme snapshot` and `mneme restore`.
 *
 * A snapshot is made by the running store, while writes go on. Restoring is a checked copy and needs no server: the
 * engine does it here.
 */
#include "engine/snapshot.h"
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_progress.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct mn_cli_option no_options[] = {{0}};
static const struct mn_cli_option restore_options[] = {
    {"damaged", 0, NULL, "a damaged snapshot too: what is whole in it is there then"},
    {0},
};

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
    uint64_t damaged = mneme_value_u64(mneme_reply_get(reply, "damaged"), 0);
    if (damaged > 0)
        fprintf(stderr, "%" PRIu64 " pieces of the store are damaged, and so of the snapshot: see `mneme verify`\n",
                damaged);
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

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    struct mn_cli_progress *progress = context;
    progress->total = total;
    mn_cli_progress_show(progress, done, done >> 20);
}

static enum mn_status run_restore(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mn_copy_result copy;
    struct mn_cli_progress progress;
    char bytes[32];
    MN_TRY(mn_cli_args_words(args, 1, 1, "the SNAPSHOT's folder"));
    MN_TRY(mn_cli_need_dir(cli));
    mn_cli_progress_begin(&progress, cli, "restore", "MiB", 0);
    enum mn_status status = (mn_cli_args_has(args, "damaged") ? mn_snapshot_salvage : mn_snapshot_restore)(
        &mn_io_posix, args->words[0], cli->dir, show_progress, &progress, &copy);
    mn_cli_progress_end(&progress);
    if (status != MN_OK)
        return status;
    if (cli->json)
        return mn_cli_json_print(json_pack("{s:b, s:I, s:I, s:I, s:I}", "ok", 1, "seq", (json_int_t)copy.seq, "bytes",
                                           (json_int_t)copy.bytes, "files", (json_int_t)copy.files, "damaged",
                                           (json_int_t)copy.damaged),
                                 cli->out_is_terminal);
    printf("%s: %" PRIu64 " files, %s; start it with `mnemed --dir %s`\n", cli->dir, copy.files,
           mn_cli_out_bytes((double)copy.bytes, bytes), cli->dir);
    if (copy.damaged > 0)
        fprintf(stderr, "%" PRIu64 " pieces are damaged, the first: %s\n", copy.damaged, copy.damage);
    return MN_OK;
}

const struct mn_cli_command mn_cmd_restore = {
    .usage = "SNAPSHOT",
    .options = restore_options,
    .details = "Copies a snapshot to the new folder --dir, which must be missing or empty, checks every checksum of "
               "the copy and makes\n"
               "sure that it is on disk; a damaged one is refused. No server is needed. The snapshot stays as it is; "
               "two stores from one "
               "snapshot live apart\n"
               "from then on.\n",
    .examples = "  mneme --dir ./restored restore /backup/mneme-monday\n",
    .run = run_restore,
};
