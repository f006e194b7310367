/*
 * cmd_control.c - `mneme ping`, `consolidate`, `reload` and `drain`: one word to the supervisor each.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_time.h"

static const struct mn_cli_option no_options[] = {{0}};

/* ---- ping ---- */

static enum mn_status run_ping(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mneme_reply *reply;
    char text[MN_CLI_TIME_SIZE];
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_connect(cli));
    uint64_t began = mn_cli_time_monotonic();
    MN_CLI_TRY(cli->client, mneme_ping(cli->client, &reply));
    uint64_t took = mn_cli_time_monotonic() - began;
    enum mn_status status = MN_OK;
    if (cli->json)
        status = mn_cli_json_print(json_pack("{s:b, s:I}", "ok", 1, "ns", (json_int_t)took), cli->out_is_terminal);
    else
        printf("answered in %s\n", mn_cli_time_print_length(took, text));
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_ping = {
    .usage = "",
    .options = no_options,
    .details = "Asks the supervisor for an answer and prints how long it took.\n",
    .examples = "  mneme ping --timeout 200ms\n",
    .run = run_ping,
};

/* ---- consolidate ---- */

static const struct mn_cli_option consolidate_options[] = {
    {"wait", 'w', NULL, "return when it is done"},
    {0},
};

static enum mn_status run_consolidate(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mneme_reply *reply;
    bool wait = mn_cli_args_has(args, "wait");
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_consolidate(cli->client, wait, &reply));
    enum mn_status status = MN_OK;
    if (cli->json)
        status = mn_cli_json_print_reply(reply, cli->out_is_terminal);
    else
        puts(wait ? "consolidated" : "consolidation has begun: `mneme top` shows it");
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_consolidate = {
    .usage = "[--wait]",
    .options = consolidate_options,
    .details = "Turns the log into columns now, whatever the load. The store does this by itself when it is quiet.\n",
    .examples = "  mneme consolidate --wait\n",
    .run = run_consolidate,
};

/* ---- reload and drain ---- */

/* A list of settings, or that there is none. */
static void print_settings(const struct mn_cli *cli, const char *name, struct mneme_value list)
{
    size_t size;
    const char *text = mneme_value_bytes(list, &size);
    mn_cli_out_field(cli, name, "%.*s", text && size ? (int)size : 4, text && size ? text : "none");
}

static enum mn_status run_reload(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mneme_reply *reply;
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_reload(cli->client, &reply));
    enum mn_status status = MN_OK;
    if (cli->json) {
        status = mn_cli_json_print_reply(reply, cli->out_is_terminal);
    } else {
        print_settings(cli, "changed", mneme_reply_get(reply, "changed"));
        print_settings(cli, "need a restart", mneme_reply_get(reply, "needs_restart"));
    }
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_reload = {
    .usage = "",
    .options = no_options,
    .details =
        "Reads the settings file and the list of clients again, and takes over what may change while the store runs\n"
        "(`mneme config` marks it). Prints which settings that changed, and which wait for a restart.\n",
    .examples = "  mneme reload\n",
    .run = run_reload,
};

static enum mn_status run_drain(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mneme_reply *reply;
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_drain(cli->client, &reply));
    enum mn_status status = MN_OK;
    if (cli->json)
        status = mn_cli_json_print_reply(reply, cli->out_is_terminal);
    else
        puts("drained: the store stops");
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_drain = {
    .usage = "",
    .options = no_options,
    .details = "Finishes every write that was admitted, then stops the store, as SIGTERM does.\n",
    .examples = "  mneme drain\n",
    .run = run_drain,
};
