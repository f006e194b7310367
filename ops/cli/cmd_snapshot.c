/*
 * cmd_snapshot.c - `mneme snapshot`: the running store makes a copy of itself, while writes go on.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct mn_cli_option options[] = {{0}};

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

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
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
    .options = options,
    .details = "Makes a consistent copy of the running store in the folder PATH, which must not exist. Writes go on "
               "meanwhile. The store\n"
               "writes it itself, so PATH is on its host and lies under the setting snapshot.roots (by default the "
               "folder that the\n"
               "store's folder is in). `mnemed --dir PATH` opens it.\n",
    .examples = "  mneme snapshot /var/lib/mneme-monday\n"
                "  mneme --dir ./restored restore /var/lib/mneme-monday\n",
    .run = run,
};
