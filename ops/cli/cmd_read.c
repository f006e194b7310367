/*
 * cmd_read.c - `mneme get`, `list`, `count` and `spaces`: looking without searching.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_filter.h"
#include "ops/cli/cli_id.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_time.h"
#include "ops/cli/cli_vector.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 400, GET_TEXT_MAX = 1 << 20 };

/* ---- get ---- */

static const struct mn_cli_option get_options[] = {
    {"space", 's', "NAME", "the space (default: \"default\")"},
    {"fields", 'f', "A,B", "what to return of content, meta, tags, at, confidence, expires, embedding"},
    {"as-of", 0, "SEQ", "the state at this seq"},
    {"raw", 0, NULL, "write the content of the one memory asked for as it is, and nothing else"},
    {0},
};

static char *dump(struct mneme_value value)
{
    json_t *json = mn_cli_json_from_value(value);
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(json);
    return text;
}

static void print_text(const struct mn_cli *cli, const char *name, const char *bytes, size_t size)
{
    mn_cli_out_field(cli, name, "%s", mn_cli_out_escaped(bytes, size, GET_TEXT_MAX));
}

static void print_memory(const struct mn_cli *cli, struct mneme_value value, const struct mneme_found *f)
{
    char text[MN_CLI_TIME_SIZE];
    mn_cli_out_field(cli, "id", "%s", mn_cli_id_print(&f->id, text));
    mn_cli_out_field(cli, "version", "%" PRIu64, f->version);
    if (f->at != INT64_MIN)
        mn_cli_out_field(cli, "at", "%s", mn_cli_time_print(f->at, text));
    if (f->expires != INT64_MIN)
        mn_cli_out_field(cli, "expires", "%s", mn_cli_time_print(f->expires, text));
    if (!isnan(f->confidence))
        mn_cli_out_field(cli, "confidence", "%g", f->confidence);
    char *tags = mneme_value_length(f->tags) ? dump(f->tags) : NULL;
    char *meta = mneme_value_length(f->meta) ? dump(f->meta) : NULL;
    if (tags)
        print_text(cli, "tags", tags, strlen(tags));
    if (meta)
        print_text(cli, "meta", meta, strlen(meta));
    if (f->content_is_binary)
        mn_cli_out_field(cli, "content", "%zu bytes (--raw writes them)", f->content_size);
    else if (f->content)
        print_text(cli, "content", f->content, f->content_size);
    if (f->embedding)
        mn_cli_out_field(cli, "embedding", "%zu numbers (--json shows them)",
                         mneme_value_length(mneme_value_get(value, "embedding")) / 4);
    free(tags);
    free(meta);
}

static enum mn_status print_got(struct mn_cli *cli, const struct mneme_reply *reply, const char *const *ids)
{
    struct mneme_value memories = mneme_reply_get(reply, "memories");
    struct mneme_found found;
    size_t missing = 0;
    for (size_t i = 0; i < mneme_value_length(memories); i++) {
        struct mneme_value value = mneme_value_at(memories, i);
        if (i)
            putchar('\n');
        if (mneme_value_found(value, &found)) {
            print_memory(cli, value, &found);
        } else {
            mn_cli_out_field(cli, "id", "%s  (not there)", ids[i]);
            missing++;
        }
    }
    return missing ? MN_FAIL(MN_NOT_FOUND, "ids that are not there: %zu of %zu", missing, mneme_value_length(memories))
                   : MN_OK;
}

static enum mn_status print_raw(const struct mneme_reply *reply)
{
    struct mneme_found found;
    if (!mneme_value_found(mneme_value_at(mneme_reply_get(reply, "memories"), 0), &found))
        return MN_FAIL(MN_NOT_FOUND, "this id is not there");
    if (fwrite(found.content, 1, found.content_size, stdout) != found.content_size)
        return MN_FAIL_ERRNO("could not write to stdout");
    return MN_OK;
}

static enum mn_status run_get(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mneme_id *ids;
    struct mneme_reply *reply;
    size_t field_count;
    uint64_t as_of = 0;
    bool raw = mn_cli_args_has(args, "raw");
    MN_TRY(mn_cli_args_words(args, 1, raw ? 1 : 10000, "an ID"));
    MN_TRY(mn_cli_filter_ids(args->words, args->word_count, &ids));
    MN_TRY(mn_cli_args_u64(args, "as-of", 0, UINT64_MAX, &as_of));
    const char *const *fields = mn_cli_filter_fields(args, &field_count);
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_get(cli->client, mn_cli_args_text(args, "space"), ids, args->word_count, fields,
                                      field_count, mn_cli_args_has(args, "as-of") ? &as_of : NULL, &reply));
    enum mn_status status;
    if (cli->json)
        status = mn_cli_json_print_reply(reply, cli->out_is_terminal);
    else
        status = raw ? print_raw(reply) : print_got(cli, reply, args->words);
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_get = {
    .usage = "ID... [--fields A,B]",
    .options = get_options,
    .details = "Prints memories by id, in the order asked for. An id that is not there makes the exit status 1;\n"
               "with --json it is null in its place, and the exit status 0.\n",
    .examples = "  mneme get 7 12\n"
                "  mneme get 7 --fields embedding,content --json\n"
                "  mneme get 7 --raw >picture.png\n",
    .run = run_get,
};

/* ---- list ---- */

static const struct mn_cli_option list_options[] = {
    MN_CLI_FILTER_SPACES,
    MN_CLI_FILTER_CONDITIONS,
    MN_CLI_FILTER_TIMES,
    {"oldest", 0, NULL, "oldest first (default: newest first)"},
    {"limit", 'n', "N", "how many (default: 100, at most 10000; `mneme export` writes all)"},
    {"cursor", 0, "CURSOR", "go on where a --json reply ended: its `cursor`"},
    {"fields", 'f', "A,B", "what to return of content, meta, tags, at, confidence, expires, embedding"},
    {0},
};

static void print_listed(const struct mn_cli *cli, const struct mneme_reply *reply, bool spaces)
{
    struct mn_cli_out_table t;
    struct mneme_value memories = mneme_reply_get(reply, "memories");
    struct mneme_found f;
    if (spaces)
        mn_cli_out_begin(&t, cli, "id|space|at|-conf|content");
    else
        mn_cli_out_begin(&t, cli, "id|at|-conf|content");
    for (size_t i = 0; i < mneme_value_length(memories); i++) {
        char id[MN_CLI_ID_SIZE], at[MN_CLI_TIME_SIZE] = "", confidence[16] = "";
        if (!mneme_value_found(mneme_value_at(memories, i), &f))
            continue;
        if (!isnan(f.confidence))
            snprintf(confidence, sizeof confidence, "%.2f", f.confidence);
        char *summary = mn_cli_out_summary(&f);
        mn_cli_out_cell(&t, "%s", mn_cli_id_print(&f.id, id));
        if (spaces)
            mn_cli_out_text(&t, f.space, f.space_size, TEXT_MAX);
        mn_cli_out_cell(&t, "%s", f.at == INT64_MIN ? "" : mn_cli_time_print_short(f.at, at));
        mn_cli_out_cell(&t, "%s", confidence);
        mn_cli_out_text(&t, summary, summary ? strlen(summary) : 0, TEXT_MAX);
        free(summary);
    }
    mn_cli_out_end(&t);
    if (mneme_value_type(mneme_reply_get(reply, "cursor")) > MNEME_TYPE_NIL)
        printf("%sthere is more: --limit shows more, `mneme export` all%s\n", mn_cli_out_dim(cli),
               mn_cli_out_plain(cli));
}

/* A cursor is text on the command line and a MessagePack string on the wire. Kept. */
static const void *pack_cursor(const char *text, size_t *size)
{
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    mn_cli_json_pack_text(&packer, text);
    *size = buffer.size;
    void *kept = memcpy(mn_cli_keep(buffer.size), buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    return kept;
}

static enum mn_status run_list(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mn_cli_filter filter = {0};
    struct mneme_listing listing = {.oldest_first = mn_cli_args_has(args, "oldest")};
    struct mneme_reply *reply;
    uint64_t limit = 100;
    const char *cursor = mn_cli_args_text(args, "cursor");
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_filter_spaces(args, &filter));
    MN_TRY(mn_cli_filter_conditions(args, &filter));
    MN_TRY(mn_cli_filter_times(args, &filter));
    MN_TRY(mn_cli_args_u64(args, "limit", 1, 10000, &limit));
    if (cursor)
        listing.cursor = pack_cursor(cursor, &listing.cursor_size);
    listing.where = filter.where;
    listing.limit = (uint32_t)limit;
    listing.fields = mn_cli_filter_fields(args, &listing.field_count);
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_list(cli->client, &listing, &reply));
    enum mn_status status = MN_OK;
    if (cli->json)
        status = mn_cli_json_print_reply(reply, cli->out_is_terminal);
    else
        print_listed(cli, reply, filter.where.all || filter.where.space_count > 1);
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_list = {
    .usage = "[conditions] [--oldest] [--limit N]",
    .options = list_options,
    .details = "Prints memories in order of their time, newest first.\n\n" MN_CLI_FILTER_HELP,
    .examples = "  mneme list -n 20\n"
                "  mneme list --space agent-7 --tag decision --after 2026-01-01 --oldest\n"
                "  mneme list --where 'score>=3' --json\n",
    .run = run_list,
};

/* ---- count ---- */

static const struct mn_cli_option count_options[] = {
    MN_CLI_FILTER_SPACES,
    MN_CLI_FILTER_CONDITIONS,
    MN_CLI_FILTER_TIMES,
    {"min-confidence", 0, "0..1", "only memories at least this sure"},
    {0},
};

static enum mn_status run_count(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mn_cli_filter filter = {0};
    struct mneme_reply *reply;
    double min_confidence = 0;
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_filter_spaces(args, &filter));
    MN_TRY(mn_cli_filter_conditions(args, &filter));
    MN_TRY(mn_cli_filter_times(args, &filter));
    MN_TRY(mn_cli_args_f64(args, "min-confidence", 0, 1, &min_confidence));
    filter.where.min_confidence = mn_cli_args_has(args, "min-confidence") ? &min_confidence : NULL;
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_count(cli->client, &filter.where, &reply));
    enum mn_status status = MN_OK;
    if (cli->json)
        status = mn_cli_json_print_reply(reply, cli->out_is_terminal);
    else
        printf("%" PRIu64 "\n", mneme_value_u64(mneme_reply_get(reply, "count"), 0));
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_count = {
    .usage = "[conditions]",
    .options = count_options,
    .details = "Prints how many memories match.\n\n" MN_CLI_FILTER_HELP,
    .examples = "  mneme count\n"
                "  mneme count --all-spaces --tag taste --after -24h\n",
    .run = run_count,
};

/* ---- spaces ---- */

static const struct mn_cli_option no_options[] = {{0}};

static enum mn_status run_spaces(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct mneme_reply *reply;
    struct mn_cli_out_table t;
    char number[32];
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_spaces(cli->client, &reply));
    enum mn_status status = MN_OK;
    if (cli->json) {
        status = mn_cli_json_print_reply(reply, cli->out_is_terminal);
    } else {
        struct mneme_value spaces = mneme_reply_get(reply, "spaces");
        mn_cli_out_begin(&t, cli, "-memories|space");
        for (size_t i = 0; i < mneme_value_length(spaces); i++) {
            struct mneme_value space = mneme_value_at(spaces, i);
            size_t size;
            const char *name = mneme_value_bytes(mneme_value_get(space, "space"), &size);
            mn_cli_out_cell(&t, "%s", mn_cli_out_count(mneme_value_u64(mneme_value_get(space, "count"), 0), number));
            mn_cli_out_text(&t, name, size, TEXT_MAX);
        }
        mn_cli_out_end(&t);
    }
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_spaces = {
    .usage = "",
    .options = no_options,
    .details = "Prints every space that holds a memory, and how many. Spaces appear when they are first written to.\n",
    .examples = "  mneme spaces\n",
    .run = run_spaces,
};
