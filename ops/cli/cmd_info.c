/*
 * cmd_info.c - `mneme info`: what a store says of itself, for people.
 *
 * A few facts first, then everything else of the reply under the protocol's own names, whatever it is: a store may say
 * more than this program knows.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_time.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 60, TEXT_MAX = 400 };

static const struct mn_cli_option no_options[] = {{0}};

/* ---- one value as text ---- */

static void say_integer(FILE *out, const char *name, struct mneme_value value)
{
    char text[MN_CLI_TIME_SIZE];
    size_t length = strlen(name);
    if (strcmp(name, "at") == 0 || (length > 3 && strcmp(name + length - 3, "_at") == 0))
        fputs(mn_cli_time_print_short(mneme_value_i64(value, 0), text), out);
    else
        fprintf(out, "%" PRId64, mneme_value_i64(value, 0));
}

static void say_text(FILE *out, struct mneme_value value)
{
    size_t size;
    const char *text = mneme_value_bytes(value, &size);
    fputs(mn_cli_out_escaped(text, size, TEXT_MAX), out);
}

/* The key of a map as a C string, cut where it is unheard of. */
static const char *name_of(struct mneme_value key, char *name)
{
    size_t size;
    const char *bytes = mneme_value_bytes(key, &size);
    snprintf(name, NAME_MAX_BYTES + 1, "%.*s", bytes ? (int)(size < NAME_MAX_BYTES ? size : NAME_MAX_BYTES) : 0,
             bytes ? bytes : "");
    return name;
}

/* A map reads `key value, key value`; what has no text of its own is a dash. */
static void say(FILE *out, const char *name, struct mneme_value value)
{
    char key[NAME_MAX_BYTES + 1];
    switch (mneme_value_type(value)) {
    case MNEME_TYPE_BOOL:
        fputs(mneme_value_bool(value, false) ? "yes" : "no", out);
        break;
    case MNEME_TYPE_INTEGER:
        say_integer(out, name, value);
        break;
    case MNEME_TYPE_FLOAT:
        fprintf(out, "%.4g", mneme_value_f64(value, 0));
        break;
    case MNEME_TYPE_STRING:
        say_text(out, value);
        break;
    case MNEME_TYPE_MAP:
        for (size_t i = 0; i < mneme_value_length(value); i++) {
            fprintf(out, "%s%s ", i ? ", " : "", name_of(mneme_value_key(value, i), key));
            say(out, key, mneme_value_entry(value, i));
        }
        break;
    default:
        fputs("-", out);
        break;
    }
}

static enum mn_status print_line(const struct mn_cli *cli, const char *title, const char *name,
                                 struct mneme_value value)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return MN_FAIL_ERRNO("out of memory");
    say(out, name, value);
    fclose(out);
    mn_cli_out_field(cli, title, "%s", text ? text : "");
    free(text);
    return MN_OK;
}

/* An array takes a line an element, the name before the first. */
static enum mn_status print_value(const struct mn_cli *cli, const char *name, struct mneme_value value)
{
    if (mneme_value_type(value) != MNEME_TYPE_ARRAY)
        return print_line(cli, name, name, value);
    if (mneme_value_length(value) == 0)
        mn_cli_out_field(cli, name, "none");
    for (size_t i = 0; i < mneme_value_length(value); i++)
        MN_TRY(print_line(cli, i ? "" : name, name, mneme_value_at(value, i)));
    return MN_OK;
}

/* ---- the whole ---- */

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

static enum mn_status print_rest(const struct mn_cli *cli, struct mneme_value root)
{
    static const char *const shown[] = {"ok",     "rid",       "version", "protocol", "uuid", "dim",
                                        "metric", "endpoints", "state",   "seq",      "roles"};
    for (size_t i = 0; i < mneme_value_length(root); i++) {
        char name[NAME_MAX_BYTES + 1];
        bool is_shown = false;
        for (size_t k = 0; k < MN_ARRAY_LEN(shown); k++)
            is_shown = is_shown || mneme_value_is(mneme_value_key(root, i), shown[k]);
        if (!is_shown)
            MN_TRY(print_value(cli, name_of(mneme_value_key(root, i), name), mneme_value_entry(root, i)));
    }
    return MN_OK;
}

static enum mn_status print_info(const struct mn_cli *cli, const struct mneme_reply *reply)
{
    struct mneme_value state = mneme_reply_get(reply, "state");
    size_t size;
    const char *word = mneme_value_bytes(state, &size);
    mn_cli_out_field(cli, "state", "%s%.*s%s",
                     mneme_value_is(state, "ready") ? mn_cli_out_green(cli) : mn_cli_out_red(cli), word ? (int)size : 0,
                     word ? word : "", mn_cli_out_plain(cli));
    MN_TRY(print_value(cli, "uuid", mneme_reply_get(reply, "uuid")));
    mn_cli_out_field(cli, "embeddings", "%" PRIu64 " x f32, %s", mneme_value_u64(mneme_reply_get(reply, "dim"), 0),
                     mneme_metric(cli->client));
    MN_TRY(print_value(cli, "seq", mneme_reply_get(reply, "seq")));
    MN_TRY(print_value(cli, "version", mneme_reply_get(reply, "version")));
    MN_TRY(print_rest(cli, mneme_reply_root(reply)));
    putchar('\n');
    print_roles(cli, mneme_reply_get(reply, "roles"));
    return MN_OK;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mneme_reply *reply;
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_info(cli->client, &reply));
    enum mn_status status = cli->json ? mn_cli_json_print_reply(reply, cli->out_is_terminal) : print_info(cli, reply);
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
    .run = run,
};
