/*
 * cmd_export.c - `mneme export`: memories as JSON Lines, or as raw vectors with lines beside them; import reads both
 * back.
 *
 * Pages through one space after the other with `list` and its cursor. A file appears under its name only when it is
 * whole and on disk.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_filter.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_line.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_progress.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAGE_BYTES = 6 << 20, PAGE_MAX = 1000, OTHER_BYTES = 2048 };

static const struct mn_cli_option options[] = {
    {"space", 's', "NAME", "only this space; may be repeated (default: all)"},
    {"all-spaces", 0, NULL, "every space, as without --space"},
    MN_CLI_FILTER_CONDITIONS,
    MN_CLI_FILTER_TIMES,
    {"vectors", 0, "FILE.f32", "embeddings to a raw file of little-endian f32 rows; needs --lines"},
    {"lines", 0, "FILE.jsonl", "with --vectors: the rest of each memory, one line a row"},
    {"base64", 0, NULL, "embeddings as base64 instead of arrays of numbers: a third of the size, and faster"},
    {"force", 0, NULL, "replace files that exist"},
    {0},
};

/* A file that is written under another name until it is complete. */
struct output {
    const char *path; /* NULL: stdout */
    char *partial;
    FILE *file;
};

struct export
{
    struct mn_cli *cli;
    struct output lines, vectors;
    enum mn_cli_line_embedding embedding;
    struct mneme_listing listing;
    uint64_t exported, spaces;
    struct mn_cli_progress progress;
};

/* ---- files ---- */

static enum mn_status open_output(struct output *o, const char *path, bool force)
{
    o->path = path && strcmp(path, "-") != 0 ? path : NULL;
    o->file = stdout;
    if (!o->path)
        return MN_OK;
    if (!force && access(path, F_OK) == 0)
        return MN_FAIL(MN_EXISTS, "%s exists: --force replaces it", path);
    if (asprintf(&o->partial, "%s.partial", path) < 0) {
        o->partial = NULL;
        return MN_FAIL(MN_INTERNAL, "out of memory");
    }
    o->file = fopen(o->partial, "wbe");
    return o->file ? MN_OK : MN_FAIL_ERRNO("could not make %s", o->partial);
}

static enum mn_status finish_output(struct output *o)
{
    if (!o->file)
        return MN_OK;
    if (fflush(o->file) != 0 || ferror(o->file))
        return MN_FAIL_ERRNO("could not write %s", o->path ? o->partial : "to stdout");
    if (!o->path)
        return MN_OK;
    if (fsync(fileno(o->file)) != 0)
        return MN_FAIL_ERRNO("could not sync %s", o->partial);
    int result = fclose(o->file);
    o->file = NULL;
    if (result != 0 || rename(o->partial, o->path) != 0)
        return MN_FAIL_ERRNO("could not finish %s", o->path);
    free(o->partial);
    o->partial = NULL;
    return MN_OK;
}

/* After a failure: nothing half-made stays. */
static void drop_output(struct output *o)
{
    if (o->path && o->file)
        fclose(o->file);
    if (o->partial)
        unlink(o->partial);
    free(o->partial);
    o->partial = NULL;
}

/* ---- pages ---- */

static enum mn_status write_memory(struct export *ex, struct mneme_value value, const char *space)
{
    struct mneme_found found;
    if (!mneme_value_found(value, &found))
        return MN_FAIL(MN_INTERNAL, "the store listed something that is no memory");
    if (mneme_value_length(found.damaged) > 0)
        return MN_FAIL(MN_CORRUPT,
                       "a memory lies in a damaged block and would not be whole: `mneme verify` tells more");
    if (found.embedding_size != mneme_dim(ex->cli->client) * sizeof(float))
        return MN_FAIL(MN_INTERNAL, "the store listed a memory without its embedding");
    MN_TRY(mn_cli_line_write(ex->lines.file, &found, space, ex->embedding));
    if (ex->vectors.file && fwrite(found.embedding, 1, found.embedding_size, ex->vectors.file) != found.embedding_size)
        return MN_FAIL_ERRNO("could not write %s", ex->vectors.partial);
    ex->exported++;
    return MN_OK;
}

/* One page; a page too large for one reply is asked for again at half the size. */
static enum mn_status fetch_page(struct export *ex, struct mneme_reply **reply)
{
    for (;;) {
        enum mneme_code code = mneme_list(ex->cli->client, &ex->listing, reply);
        if (code == MNEME_OK)
            return MN_OK;
        if (code != MNEME_TOO_LARGE || ex->listing.limit == 1)
            return mn_cli_status(code, mneme_error(ex->cli->client));
        ex->listing.limit /= 2;
    }
}

static enum mn_status export_space(struct export *ex, const char *space)
{
    struct mneme_reply *reply;
    void *cursor = NULL;
    enum mn_status status = MN_OK;
    ex->listing.where.spaces = &space;
    ex->listing.where.space_count = 1;
    ex->spaces++;
    do {
        ex->listing.cursor = cursor;
        status = fetch_page(ex, &reply);
        free(cursor);
        cursor = NULL;
        if (status != MN_OK)
            break;
        struct mneme_value memories = mneme_reply_get(reply, "memories"), next = mneme_reply_get(reply, "cursor");
        for (size_t i = 0; status == MN_OK && i < mneme_value_length(memories); i++)
            status = write_memory(ex, mneme_value_at(memories, i), space);
        if (status == MN_OK && mneme_value_type(next) > MNEME_TYPE_NIL &&
            mneme_value_raw(next, &cursor, &ex->listing.cursor_size) != MNEME_OK)
            status = MN_FAIL(MN_INTERNAL, "out of memory");
        mneme_reply_free(reply);
        mn_cli_progress_show(&ex->progress, ex->exported, ex->exported);
    } while (status == MN_OK && cursor);
    free(cursor);
    ex->listing.where.spaces = NULL;
    return status;
}

/* The spaces to export, as the store names them now, or those given; and how many memories they hold. */
static enum mn_status choose_spaces(struct export *ex, const struct mn_cli_filter *filter, const char ***names,
                                    size_t *count)
{
    struct mneme_reply *reply;
    *names = (const char **)filter->where.spaces;
    *count = filter->where.space_count;
    MN_CLI_TRY(ex->cli->client, mneme_spaces(ex->cli->client, &reply));
    struct mneme_value spaces = mneme_reply_get(reply, "spaces");
    uint64_t total = 0;
    size_t n = mneme_value_length(spaces);
    bool all = *count == 0;
    if (all)
        *names = mn_cli_keep((n + 1) * sizeof **names);
    for (size_t i = 0; i < n; i++) {
        struct mneme_value space = mneme_value_at(spaces, i);
        size_t size;
        const char *bytes = mneme_value_bytes(mneme_value_get(space, "space"), &size);
        char *name = mn_cli_keep(size + 1);
        if (bytes)
            memcpy(name, bytes, size);
        if (all)
            (*names)[(*count)++] = name;
        for (size_t k = 0; k < *count; k++)
            if (strcmp((*names)[k], name) == 0)
                total += mneme_value_u64(mneme_value_get(space, "count"), 0);
    }
    mneme_reply_free(reply);
    mn_cli_progress_begin(&ex->progress, ex->cli, "export", "memories", total);
    return MN_OK;
}

static enum mn_status export_all(struct export *ex, const struct mn_cli_filter *filter)
{
    const char **names;
    size_t count;
    MN_TRY(choose_spaces(ex, filter, &names, &count));
    for (size_t i = 0; i < count; i++)
        MN_TRY(export_space(ex, names[i]));
    MN_TRY(finish_output(&ex->vectors));
    return finish_output(&ex->lines);
}

/* ---- the command ---- */

static enum mn_status open_outputs(struct export *ex, const struct mn_cli_args *args)
{
    const char *vectors = mn_cli_args_text(args, "vectors"), *lines = mn_cli_args_text(args, "lines");
    bool force = mn_cli_args_has(args, "force");
    MN_TRY(mn_cli_args_words(args, 0, vectors ? 0 : 1, "one FILE.jsonl"));
    if (!vectors != !lines)
        return MN_FAIL(MN_USAGE, "--vectors and --lines go together");
    ex->embedding = vectors                           ? MN_CLI_LINE_NONE
                    : mn_cli_args_has(args, "base64") ? MN_CLI_LINE_BASE64
                                                      : MN_CLI_LINE_ARRAY;
    MN_TRY(open_output(&ex->lines, lines ? lines : args->word_count ? args->words[0] : NULL, force));
    if (!vectors)
        return MN_OK;
    if (strcmp(vectors, "-") == 0)
        return MN_FAIL(MN_USAGE, "--vectors takes a file, not stdout");
    return open_output(&ex->vectors, vectors, force);
}

static enum mn_status print_outcome(const struct export *ex)
{
    char text[32];
    if (!ex->lines.path) /* stdout is taken by the memories */
        return MN_OK;
    if (ex->cli->json)
        return mn_cli_json_print(json_pack("{s:b, s:I, s:I}", "ok", 1, "exported", (json_int_t)ex->exported, "spaces",
                                           (json_int_t)ex->spaces),
                                 ex->cli->out_is_terminal);
    printf("%s memories from %" PRIu64 " spaces\n", mn_cli_out_count(ex->exported, text), ex->spaces);
    return MN_OK;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    static const char *const fields[] = {"content", "meta", "tags", "at", "confidence", "expires", "embedding"};
    struct mn_cli_filter filter = {0};
    struct export ex = {.cli = cli};
    MN_TRY(mn_cli_filter_spaces(args, &filter));
    MN_TRY(mn_cli_filter_conditions(args, &filter));
    MN_TRY(mn_cli_filter_times(args, &filter));
    MN_TRY(mn_cli_connect(cli));
    ex.listing = (struct mneme_listing){
        .where = filter.where, .oldest_first = true, .fields = fields, .field_count = MN_ARRAY_LEN(fields)};
    ex.listing.where.all = false; /* asked for one by one */
    size_t page = PAGE_BYTES / (mneme_dim(cli->client) * sizeof(float) + OTHER_BYTES);
    ex.listing.limit = (uint32_t)(page < 1 ? 1 : page > PAGE_MAX ? PAGE_MAX : page);
    enum mn_status status = open_outputs(&ex, args);
    if (status == MN_OK)
        status = export_all(&ex, &filter);
    mn_cli_progress_end(&ex.progress);
    if (status == MN_OK)
        status = print_outcome(&ex);
    drop_output(&ex.lines);
    drop_output(&ex.vectors);
    return status;
}

const struct mn_cli_command mn_cmd_export = {
    .usage = "[FILE.jsonl] [conditions] | --vectors FILE.f32 --lines FILE.jsonl",
    .options = options,
    .details = "Writes memories as JSON Lines, oldest first, space by space: all spaces, or those given. Everything "
               "comes back through\n"
               "`mneme import`: ids, times, expiry, confidence, tags, meta, text and binary content, and the "
               "embeddings bit for bit.\n"
               "Writes may go on meanwhile; what was there throughout is exported exactly once (for one moment in time "
               "take a snapshot).\n\n" MN_CLI_FILTER_HELP,
    .examples = "  mneme export memories.jsonl\n"
                "  mneme export --space agent-7 --after -7d | gzip >week.jsonl.gz\n"
                "  mneme export --vectors all.f32 --lines all.jsonl\n",
    .run = run,
};
