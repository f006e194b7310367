/*
 * cmd_control.c - `mneme info`, `ping`, `consolidate`, `reload` and `drain`: one word to the supervisor each.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_time.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct mn_cli_option no_options[] = {{0}};

/* ---- info ---- */

static void print_text_field(const struct mn_cli *cli, const char *name, struct mneme_value value)
{
    size_t size;
    const char *text = mneme_value_bytes(value, &size);
    mn_cli_out_field(cli, name, "%.*s", (int)size, text ? text : "");
}

static void print_roles(const struct mn_cli *cli, struct mneme_value roles)
{
    struct mn_cli_out_table t;
    mn_cli_out_begin(&t, cli, "role|-node|-pid|-restarts|state");
    for (size_t i = 0; i < mneme_value_length(roles); i++) {
        struct mneme_value role = mneme_value_at(roles, i);
        size_t size;
        const char *text = mneme_value_bytes(mneme_value_get(role, "role"), &size);
        mn_cli_out_text(&t, text, size, 40);
        mn_cli_out_cell(&t, "%" PRId64, mneme_value_i64(mneme_value_get(role, "node"), 0));
        mn_cli_out_cell(&t, "%" PRId64, mneme_value_i64(mneme_value_get(role, "pid"), 0));
        mn_cli_out_cell(&t, "%" PRId64, mneme_value_i64(mneme_value_get(role, "restarts"), 0));
        text = mneme_value_bytes(mneme_value_get(role, "state"), &size);
        mn_cli_out_text(&t, text, size, 40);
    }
    mn_cli_out_end(&t);
}

/* What the fixed part does not name: the store may say more than this program knows. */
static void print_rest(const struct mn_cli *cli, struct mneme_value root)
{
    static const char *const known[] = {"ok",     "rid",       "version", "protocol", "uuid", "dim",
                                        "metric", "endpoints", "state",   "seq",      "roles"};
    for (size_t i = 0; i < mneme_value_length(root); i++) {
        struct mneme_value key = mneme_value_key(root, i), value = mneme_value_entry(root, i);
        bool is_known = false;
        for (size_t k = 0; k < MN_ARRAY_LEN(known); k++)
            is_known = is_known || mneme_value_is(key, known[k]);
        size_t size;
        const char *name = mneme_value_bytes(key, &size);
        if (is_known || !name || size > 60)
            continue;
        char copy[64];
        memcpy(copy, name, size);
        copy[size] = 0;
        json_t *json = mn_cli_json_from_value(value);
        char *text = json ? json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        mn_cli_out_field(cli, copy, "%s", text ? text : "");
        json_decref(json);
        free(text);
    }
}

static enum mn_status run_info(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mneme_reply *reply;
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_info(cli->client, &reply));
    enum mn_status status = MN_OK;
    if (cli->json) {
        status = mn_cli_json_print_reply(reply, cli->out_is_terminal);
    } else {
        struct mneme_value state = mneme_reply_get(reply, "state");
        size_t size;
        const char *word = mneme_value_bytes(state, &size);
        mn_cli_out_field(cli, "state", "%s%.*s%s",
                         mneme_value_is(state, "ready") ? mn_cli_out_green(cli) : mn_cli_out_red(cli), (int)size,
                         word ? word : "", mn_cli_out_plain(cli));
        print_text_field(cli, "uuid", mneme_reply_get(reply, "uuid"));
        mn_cli_out_field(cli, "embeddings", "%" PRIu64 " x f32, %s", mneme_value_u64(mneme_reply_get(reply, "dim"), 0),
                         mneme_metric(cli->client));
        mn_cli_out_field(cli, "seq", "%" PRIu64, mneme_value_u64(mneme_reply_get(reply, "seq"), 0));
        print_text_field(cli, "version", mneme_reply_get(reply, "version"));
        print_rest(cli, mneme_reply_root(reply));
        putchar('\n');
        print_roles(cli, mneme_reply_get(reply, "roles"));
    }
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_info = {
    .usage = "",
    .options = no_options,
    .details = "Prints the store's identity, its state and the processes that serve it. States:\n"
               "  starting, recovering   not serving writes yet\n"
               "  ready                  all is well\n"
               "  degraded               serving, but a person should look: quarantined data, a role that keeps dying, "
               "read-only\n"
               "  stopping               finishing\n",
    .examples = "  mneme info\n"
                "  mneme info --json | jq -r .state\n",
    .run = run_info,
};

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
        puts("reloaded");
        print_rest(cli, mneme_reply_root(reply));
    }
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_reload = {
    .usage = "",
    .options = no_options,
    .details = "Reads the configuration file again and takes over the settings that may change while the store runs\n"
               "(`mneme config` marks them).\n",
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
