/*
 * cmd_forget.c - `mneme forget`: hide, delete, restore or purge, by id, by condition, or a whole space.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_filter.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct mn_cli_option options[] = {
    {"space", 's', "NAME", "the space (default: \"default\")"},
    {"mode", 0, "MODE", "delete (default), suppress, restore or purge, see above"},
    MN_CLI_FILTER_CONDITIONS,
    {"all", 0, NULL, "everything in the space"},
    {"if-version", 0, "SEQ", "only if the memory's version is this"},
    {"idem", 0, "KEY", "the same key within 10 minutes answers the first outcome again"},
    {0},
};

static enum mn_status read_mode(const struct mn_cli_args *args, enum mneme_forget_mode *mode)
{
    static const char *const words[] = {
        [MNEME_DELETE] = "delete", [MNEME_SUPPRESS] = "suppress", [MNEME_RESTORE] = "restore", [MNEME_PURGE] = "purge"};
    const char *text = mn_cli_args_text(args, "mode");
    *mode = MNEME_DELETE;
    for (size_t i = 0; text && i < MN_ARRAY_LEN(words); i++)
        if (strcmp(words[i], text) == 0) {
            *mode = (enum mneme_forget_mode)i;
            return MN_OK;
        }
    return text ? MN_FAIL(MN_USAGE, "--mode is delete, suppress, restore or purge, not `%s`", text) : MN_OK;
}

static enum mn_status print_reply(const struct mn_cli *cli, const struct mneme_reply *reply,
                                  enum mneme_forget_mode mode)
{
    static const char *const done[] = {[MNEME_DELETE] = "deleted",
                                       [MNEME_SUPPRESS] = "suppressed",
                                       [MNEME_RESTORE] = "restored",
                                       [MNEME_PURGE] = "purged"};
    if (cli->json)
        return mn_cli_json_print_reply(reply, cli->out_is_terminal);
    printf("%" PRIu64 " %s at seq %" PRIu64 "\n", mneme_value_u64(mneme_reply_get(reply, "count"), 0), done[mode],
           mneme_value_u64(mneme_reply_get(reply, "seq"), 0));
    struct mneme_value receipt = mneme_reply_get(reply, "receipt");
    if (mneme_value_type(receipt) != MNEME_TYPE_MAP)
        return MN_OK;
    json_t *json = mn_cli_json_from_value(receipt);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    printf("receipt %s\n", text ? text : "");
    json_decref(json);
    free(text);
    return MN_OK;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mn_cli_filter filter = {0};
    struct mneme_forgetting what = {.all = mn_cli_args_has(args, "all")};
    struct mneme_id *ids;
    struct mneme_reply *reply;
    uint64_t if_version = 0;
    MN_TRY(read_mode(args, &what.mode));
    MN_TRY(mn_cli_filter_conditions(args, &filter));
    MN_TRY(mn_cli_filter_ids(args->words, args->word_count, &ids));
    MN_TRY(mn_cli_args_u64(args, "if-version", 0, UINT64_MAX, &if_version));
    if ((args->word_count > 0) + filter.any + what.all != 1)
        return MN_FAIL(MN_USAGE, "say what to forget: IDs, or conditions (--tag, --where, ...), or --all");
    what.ids = ids;
    what.id_count = args->word_count;
    what.filter = filter.where.filter;
    what.if_version = mn_cli_args_has(args, "if-version") ? &if_version : NULL;
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_forget(cli->client, mn_cli_args_text(args, "space"), &what,
                                         mn_cli_args_text(args, "idem"), &reply));
    enum mn_status status = print_reply(cli, reply, what.mode);
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_forget = {
    .usage = "(ID... | conditions | --all) [--mode MODE]",
    .options = options,
    .details = "Prints how many memories were forgotten. The modes:\n"
               "  delete    gone from every answer when the command returns\n"
               "  suppress  hidden, and `--mode restore` brings it back\n"
               "  restore   brings back what was suppressed\n"
               "  purge     deleted, then removed from every file of the store; the command returns when no file holds "
               "the bytes any\n"
               "            more, with a receipt. Snapshots are yours to handle.\n\n" MN_CLI_FILTER_HELP,
    .examples = "  mneme forget 7 12\n"
                "  mneme forget --tag draft --where 'age_days>90'\n"
                "  mneme forget 7 --mode suppress && mneme forget 7 --mode restore\n"
                "  mneme forget --space agent-7 --all --mode purge\n",
    .run = run,
};
