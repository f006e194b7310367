/*
 * cmd_remember.c - `mneme remember` and `mneme revise`: one memory from a command line.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_filter.h"
#include "ops/cli/cli_id.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_vector.h"

#include <stdlib.h>
#include <string.h>

enum { CONTENT_MAX = 1 << 20 };

#define BODY_OPTIONS                                                                                                   \
    {"content", 'c', "TEXT", "the content; `-` reads it from stdin"},                                                  \
        {"content-file", 0, "FILE", "the content from a file"},                                                        \
        {"binary", 0, NULL, "the content is bytes, not UTF-8 text"},                                                   \
        {"meta", 'm', "JSON", "a JSON object, e.g. '{\"kind\": \"taste\"}'"},                                          \
        {"tag", 't', "TAG", "a tag; may be repeated"}, {"confidence", 0, "0..1", "how sure (a new memory: 1)"},        \
        {"at", 0, "TIME", "when it happened: RFC 3339, -1h, or nanoseconds (a new memory: now)"},                      \
    {                                                                                                                  \
        "expires", 0, "TIME", "when to forget it by itself, e.g. +7d"                                                  \
    }

/* What both commands take from the line. */
struct body {
    const char *content;
    size_t content_size;
    void *meta;
    size_t meta_size;
    const char *const *tags;
    size_t tag_count;
    double confidence;
    int64_t at, expires;
};

static enum mn_status read_content(const struct mn_cli_args *args, struct body *b)
{
    const char *text = mn_cli_args_text(args, "content"), *file = mn_cli_args_text(args, "content-file");
    char *bytes;
    if (text && file)
        return MN_FAIL(MN_USAGE, "--content and --content-file exclude each other");
    if (!file && !(text && strcmp(text, "-") == 0)) {
        b->content = text;
        b->content_size = text ? strlen(text) : 0;
        return MN_OK;
    }
    MN_TRY(mn_cli_vector_read_file(file, CONTENT_MAX, &bytes, &b->content_size));
    b->content = memcpy(mn_cli_keep(b->content_size), bytes, b->content_size);
    free(bytes);
    return MN_OK;
}

static enum mn_status read_body(const struct mn_cli_args *args, struct body *b)
{
    const char *meta = mn_cli_args_text(args, "meta");
    memset(b, 0, sizeof *b);
    MN_TRY(read_content(args, b));
    if (meta)
        MN_TRY(mn_cli_json_parse_packed(meta, "--meta", &b->meta, &b->meta_size));
    b->tags = mn_cli_filter_texts(args, "tag", &b->tag_count);
    MN_TRY(mn_cli_args_f64(args, "confidence", 0, 1, &b->confidence));
    MN_TRY(mn_cli_args_time(args, "at", &b->at));
    return mn_cli_args_time(args, "expires", &b->expires);
}

/* ---- remember ---- */

static const struct mn_cli_option remember_options[] = {
    {"embedding", 'e', "VECTOR", "'[0.1, ...]', @file.json, @file.f32, @file.f16, or - for JSON on stdin"},
    {"id", 'i', "ID", "an integer or a UUID (default: the store assigns one)"},
    {"space", 's', "NAME", "the space it goes into (default: \"default\")"},
    BODY_OPTIONS,
    {"if-absent", 0, NULL, "fail when the id is there already"},
    {"if-version", 0, "SEQ", "fail unless the id's version is this"},
    {"supersedes", 0, "ID", "delete this memory in the same change; may be repeated"},
    {"idem", 0, "KEY", "the same key within 10 minutes answers the first outcome again"},
    {0},
};

static enum mn_status print_remembered(struct mn_cli *cli, const struct mneme_reply *reply)
{
    char text[MN_CLI_ID_SIZE];
    struct mneme_id id;
    if (cli->json)
        return mn_cli_json_print_reply(reply, cli->out_is_terminal);
    if (!mneme_value_id(mneme_value_at(mneme_reply_get(reply, "ids"), 0), &id))
        return MN_FAIL(MN_INTERNAL, "the store answered without an id");
    printf("%s\n", mn_cli_id_print(&id, text));
    return MN_OK;
}

static enum mn_status run_remember(struct mn_cli *cli, const struct mn_cli_args *args)
{
    struct body b;
    struct mneme_id id, *supersedes;
    uint64_t if_version = 0;
    float *embedding;
    size_t rows, count;
    struct mneme_reply *reply;
    const char *vector = mn_cli_args_text(args, "embedding"), *id_text = mn_cli_args_text(args, "id");
    MN_TRY(mn_cli_args_words(args, 0, 0, ""));
    if (!vector)
        return MN_FAIL(MN_USAGE, "--embedding is missing");
    MN_TRY(read_body(args, &b));
    if (id_text)
        MN_TRY(mn_cli_id_parse(id_text, &id));
    MN_TRY(mn_cli_args_u64(args, "if-version", 0, UINT64_MAX, &if_version));
    const char *const *texts = mn_cli_filter_texts(args, "supersedes", &count);
    MN_TRY(mn_cli_filter_ids(texts, count, &supersedes));
    MN_TRY(mn_cli_connect(cli));
    MN_TRY(mn_cli_vector_read(vector, mneme_dim(cli->client), &embedding, &rows));
    if (rows != 1)
        return MN_FAIL(MN_USAGE, "remember takes one embedding, not %zu: `mneme import` takes many", rows);
    struct mneme_memory memory = {
        .id = id_text ? &id : NULL,
        .embedding = embedding,
        .content = b.content,
        .content_size = b.content_size,
        .content_is_binary = mn_cli_args_has(args, "binary"),
        .meta = b.meta,
        .meta_size = b.meta_size,
        .tags = b.tags,
        .tag_count = b.tag_count,
        .confidence = mn_cli_args_has(args, "confidence") ? &b.confidence : NULL,
        .at = mn_cli_args_has(args, "at") ? &b.at : NULL,
        .expires = mn_cli_args_has(args, "expires") ? &b.expires : NULL,
        .if_absent = mn_cli_args_has(args, "if-absent"),
        .if_version = mn_cli_args_has(args, "if-version") ? &if_version : NULL,
        .supersedes = supersedes,
        .supersedes_count = count,
    };
    MN_CLI_TRY(cli->client, mneme_remember(cli->client, mn_cli_args_text(args, "space"), &memory, 1,
                                           mn_cli_args_text(args, "idem"), &reply));
    enum mn_status status = print_remembered(cli, reply);
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_remember = {
    .usage = "--embedding VECTOR [--content TEXT] [--meta JSON] [--tag TAG]...",
    .options = remember_options,
    .details = "Writes one memory and prints its id. When the command returns the memory is on disk and every recall "
               "finds it.\n"
               "An id that exists is replaced by a new version. For many memories use `mneme import`.\n",
    .examples =
        "  mneme remember -e @tea.f32 -c 'prefers tea' -t taste -m '{\"person\": \"ada\"}'\n"
        "  embed 'met at noon' | mneme remember -e - -c 'met at noon' --at -2h --confidence 0.8\n"
        "  mneme remember -e @new.json --id 7 --if-version 42      # only if nobody changed it since\n"
        "  mneme remember -e @lives-in-rome.json --supersedes 12   # the old truth disappears in the same moment\n",
    .run = run_remember,
};

/* ---- revise ---- */

static const struct mn_cli_option revise_options[] = {
    {"space", 's', "NAME", "the memory's space (default: \"default\")"},
    BODY_OPTIONS,
    {"no-tags", 0, NULL, "take all tags away"},
    {"if-version", 0, "SEQ", "fail unless the memory's version is this"},
    {"idem", 0, "KEY", "the same key within 10 minutes answers the first outcome again"},
    {0},
};

static enum mn_status run_revise(struct mn_cli *cli, const struct mn_cli_args *args)
{
    static const char *const no_tags[] = {NULL};
    struct body b;
    struct mneme_id id;
    uint64_t if_version = 0;
    struct mneme_reply *reply;
    MN_TRY(mn_cli_args_words(args, 1, 1, "the memory's ID"));
    MN_TRY(mn_cli_id_parse(args->words[0], &id));
    MN_TRY(read_body(args, &b));
    MN_TRY(mn_cli_args_u64(args, "if-version", 0, UINT64_MAX, &if_version));
    struct mneme_changes changes = {
        .confidence = mn_cli_args_has(args, "confidence") ? &b.confidence : NULL,
        .content = b.content,
        .content_size = b.content_size,
        .content_is_binary = mn_cli_args_has(args, "binary"),
        .meta = b.meta,
        .meta_size = b.meta_size,
        .tags = b.tags                             ? b.tags
                : mn_cli_args_has(args, "no-tags") ? no_tags
                                                   : NULL,
        .tag_count = b.tag_count,
        .at = mn_cli_args_has(args, "at") ? &b.at : NULL,
        .expires = mn_cli_args_has(args, "expires") ? &b.expires : NULL,
    };
    if (!changes.confidence && !changes.content && !changes.meta && !changes.tags && !changes.at && !changes.expires)
        return MN_FAIL(MN_USAGE, "nothing to change: give --content, --meta, --tag, --confidence, --at or --expires");
    MN_TRY(mn_cli_connect(cli));
    MN_CLI_TRY(cli->client, mneme_revise(cli->client, mn_cli_args_text(args, "space"), &id, &changes,
                                         mn_cli_args_has(args, "if-version") ? &if_version : NULL,
                                         mn_cli_args_text(args, "idem"), &reply));
    enum mn_status status = MN_OK;
    if (cli->json)
        status = mn_cli_json_print_reply(reply, cli->out_is_terminal);
    else
        printf("version %llu\n", (unsigned long long)mneme_value_u64(mneme_reply_get(reply, "seq"), 0));
    mneme_reply_free(reply);
    return status;
}

const struct mn_cli_command mn_cmd_revise = {
    .usage = "ID [--content TEXT] [--meta JSON] [--tag TAG]... [--confidence 0..1]",
    .options = revise_options,
    .details = "Writes a new version of a memory with the same embedding and prints the version. What is not given "
               "stays; tags and meta\n"
               "that are given replace all that was there.\n",
    .examples = "  mneme revise 7 --confidence 0.4\n"
                "  mneme revise 7 -t taste -t drinks -m '{\"person\": \"ada\", \"checked\": true}'\n",
    .run = run_revise,
};
