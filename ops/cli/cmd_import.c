/*
 * cmd_import.c - `mneme import`: JSON Lines, or raw vectors with JSON Lines beside them, into a running store.
 *
 * Lines are gathered into batches (import_batches.h). A batch is one atomic change. An import may be run again after
 * any failure without doubling anything: lines that name an id replace themselves, and a line without one gets an id
 * made from the store's uuid, the line's number and its bytes (a version 5 UUID), so that the same line gets the same
 * id.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_lines.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_sha1.h"
#include "ops/cli/cli_time.h"
#include "ops/cli/cli_vector.h"
#include "ops/cli/import_batches.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct mn_cli_option options[] = {
    {"vectors", 0, "FILE", "embeddings from a raw file: FILE.f32 or FILE.f16, little-endian rows"},
    {"lines", 0, "FILE.jsonl", "with --vectors: the rest of each memory, one line a row"},
    {"space", 's', "NAME", "the space of lines that name none (default: \"default\")"},
    {"batch", 'b', "N", "memories in a request, which is one atomic change (default: 64)"},
    {"in-flight", 0, "N", "requests on their way at a time (default: 4)"},
    {"assign-ids", 0, NULL,
     "lines without an id get the store's next ones; a second run then imports them a second time"},
    {"skip-bad", 0, NULL, "leave bad lines out instead of stopping at the first"},
    {0},
};

struct import {
    struct mn_cli *cli;
    uint32_t dim;
    uint8_t namespace[16];
    struct mn_cli_lines lines;
    FILE *vectors;
    enum mn_cli_vector_element element;
    char *raw;     /* one row as it is in the file */
    float *vector; /* and as floats */
    uint64_t row;
    struct mn_import out;
};

/* The id of a line that has none: the same for the same line at the same place, in this store. */
static void derive_id(const struct import *im, const char *line, size_t size, uint64_t number, struct mneme_id *id)
{
    struct mn_cli_sha1 sha;
    char text[24];
    memset(id, 0, sizeof *id);
    snprintf(text, sizeof text, "%" PRIu64 ":", number);
    mn_cli_sha1_begin(&sha);
    mn_cli_sha1_add(&sha, im->namespace, sizeof im->namespace);
    mn_cli_sha1_add(&sha, text, strlen(text));
    if (im->vectors)
        mn_cli_sha1_add(&sha, im->raw, im->dim * mn_cli_vector_width(im->element));
    if (line)
        mn_cli_sha1_add(&sha, line, size);
    mn_cli_sha1_uuid(&sha, id->uuid);
}

static enum mn_status take(struct import *im, const char *line, size_t size, uint64_t number, msgpack_sbuffer *packed)
{
    struct mn_cli_line facts;
    struct mneme_id id;
    msgpack_sbuffer_clear(packed);
    enum mn_status status = mn_cli_line_pack(line, size, im->dim, im->vectors ? im->vector : NULL, &facts, packed);
    if (status == MN_OK && !facts.has_id && !im->out.assign_ids) {
        derive_id(im, line, size, number, &id);
        mn_cli_line_add_id(packed, 0, &id);
    }
    if (status == MN_OK)
        return mn_import_add(&im->out, packed, &facts, number);
    if (!im->out.skip_bad) {
        char sentence[256];
        snprintf(sentence, sizeof sentence, "%s", mn_error_text());
        return mn_cli_fail(status, "line %" PRIu64 ": %s", number, sentence);
    }
    mn_import_leave_out(&im->out, number, mn_error_text());
    return MN_OK;
}

/* The next row of the raw file; *more is false at its end. */
static enum mn_status next_vector(struct import *im, bool *more)
{
    size_t row = im->dim * mn_cli_vector_width(im->element);
    size_t n = fread(im->raw, 1, row, im->vectors);
    *more = n == row;
    if (n == row) {
        im->row++;
        mn_cli_vector_decode(im->raw, im->element, im->dim, im->vector);
    } else if (n || ferror(im->vectors)) {
        return MN_FAIL(MN_BAD_DIM, "the file of vectors ends inside row %" PRIu64 " (rows have %zu bytes)", im->row + 1,
                       row);
    }
    return MN_OK;
}

static enum mn_status run_lines(struct import *im, msgpack_sbuffer *packed)
{
    const char *line;
    size_t size;
    for (;;) {
        MN_TRY(mn_cli_lines_next(&im->lines, &line, &size));
        if (!line)
            return MN_OK;
        MN_TRY(take(im, line, size, im->lines.line, packed));
        mn_cli_progress_show(&im->out.progress, im->lines.bytes, im->out.imported);
    }
}

static enum mn_status run_vectors(struct import *im, msgpack_sbuffer *packed)
{
    const char *line = NULL;
    size_t size = 0;
    bool more;
    for (;;) {
        MN_TRY(next_vector(im, &more));
        if (im->lines.in)
            MN_TRY(mn_cli_lines_next(&im->lines, &line, &size));
        if (im->lines.in && more != (line != NULL))
            return MN_FAIL(MN_BAD_REQUEST,
                           "row %" PRIu64 " of the vectors and line %" PRIu64
                           " of the lines do not meet: one file ends before the other",
                           im->row, im->lines.line);
        if (!more)
            return MN_OK;
        MN_TRY(take(im, line, size, im->row, packed));
        mn_cli_progress_show(&im->out.progress, im->row * im->dim * mn_cli_vector_width(im->element), im->out.imported);
    }
}

/* ---- the command ---- */

static enum mn_status open_input(const char *path, FILE **in, uint64_t *size)
{
    struct stat st;
    *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    if (!*in)
        return MN_FAIL_ERRNO("could not open %s", path);
    if (fstat(fileno(*in), &st) == 0 && S_ISREG(st.st_mode))
        *size = (uint64_t)st.st_size;
    return MN_OK;
}

static enum mn_status open_inputs(struct import *im, const struct mn_cli_args *args, uint64_t *total)
{
    const char *vectors = mn_cli_args_text(args, "vectors"), *lines = mn_cli_args_text(args, "lines");
    FILE *in = NULL;
    uint64_t lines_size = 0;
    *total = 0;
    if (vectors ? args->word_count > 0 : lines || args->word_count != 1)
        return MN_FAIL(MN_USAGE, "give FILE.jsonl (or - for stdin), or --vectors FILE.f32 [--lines FILE.jsonl]");
    if (vectors) {
        MN_TRY(mn_cli_vector_element_of(vectors, &im->element));
        MN_TRY(open_input(vectors, &im->vectors, total));
    }
    if (!vectors || lines)
        MN_TRY(open_input(vectors ? lines : args->words[0], &in, vectors ? &lines_size : total));
    mn_cli_lines_open(&im->lines, in);
    return MN_OK;
}

static enum mn_status prepare(struct import *im, const struct mn_cli_args *args)
{
    MN_TRY(mn_cli_connect(im->cli));
    im->out.client = im->cli->client;
    im->dim = mneme_dim(im->out.client);
    if (!mn_cli_sha1_parse_uuid(mneme_uuid(im->out.client), im->namespace))
        return MN_FAIL(MN_INTERNAL, "the store's uuid is no UUID: %s", mneme_uuid(im->out.client));
    mn_import_open(&im->out);
    im->raw = mn_cli_keep(im->dim * sizeof(float));
    im->vector = mn_cli_keep(im->dim * sizeof(float));
    return MN_OK;
}

static enum mn_status read_options(struct import *im, const struct mn_cli_args *args)
{
    const char *space = mn_cli_args_text(args, "space");
    im->out.batch_max = 64;
    im->out.flight_max = 4;
    im->out.space = space ? space : "default";
    im->out.assign_ids = mn_cli_args_has(args, "assign-ids");
    im->out.skip_bad = mn_cli_args_has(args, "skip-bad");
    if (strlen(im->out.space) > MN_CLI_LINE_SPACE_MAX || !*im->out.space)
        return MN_FAIL(MN_USAGE, "--space takes a name of 1 to %d bytes", MN_CLI_LINE_SPACE_MAX);
    MN_TRY(mn_cli_args_u64(args, "batch", 1, MN_IMPORT_BATCH_MAX, &im->out.batch_max));
    return mn_cli_args_u64(args, "in-flight", 1, MN_IMPORT_FLIGHT_MAX, &im->out.flight_max);
}

static enum mn_status print_outcome(const struct import *im, enum mn_status status, double seconds)
{
    char text[32];
    double rate = seconds > 0 ? (double)im->out.imported / seconds : 0;
    if (im->cli->json && status == MN_OK)
        return mn_cli_json_print(json_pack("{s:b, s:I, s:I, s:I, s:f, s:f}", "ok", 1, "imported",
                                           (json_int_t)im->out.imported, "bad", (json_int_t)im->out.bad, "requests",
                                           (json_int_t)im->out.requests, "seconds", seconds, "memories_per_s", rate),
                                 im->cli->out_is_terminal);
    if (status == MN_OK) {
        printf("%s memories imported", mn_cli_out_count(im->out.imported, text));
        if (im->out.bad)
            printf(", %s bad lines left out", mn_cli_out_count(im->out.bad, text));
        printf(", %.1f s, %s/s\n", seconds, mn_cli_out_count((uint64_t)rate, text));
    } else if (im->out.imported) {
        fprintf(stderr, "imported before that: %s; to go on, run the same command again: %s\n",
                mn_cli_out_count(im->out.imported, text),
                im->out.assign_ids ? "with --assign-ids they are then imported twice" : "nothing is doubled");
    }
    return MN_OK;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    static struct import im; /* too much for a stack, and there is one import a process */
    msgpack_sbuffer packed;
    uint64_t total = 0;
    enum mn_status status;
    im = (struct import){.cli = cli};
    MN_TRY(read_options(&im, args));
    MN_TRY(open_inputs(&im, args, &total));
    MN_TRY(prepare(&im, args));
    msgpack_sbuffer_init(&packed);
    uint64_t began = mn_cli_time_monotonic();
    mn_cli_progress_begin(&im.out.progress, cli, "import", "memories", total);
    status = im.vectors ? run_vectors(&im, &packed) : run_lines(&im, &packed);
    if (status == MN_OK)
        status = mn_import_flush(&im.out);
    char sentence[512];
    snprintf(sentence, sizeof sentence, "%s", mn_error_text());
    if (status != MN_OK)
        mn_import_await(&im.out);
    mn_cli_progress_end(&im.out.progress);
    enum mn_status printed = print_outcome(&im, status, (double)(mn_cli_time_monotonic() - began) / 1e9);
    msgpack_sbuffer_destroy(&packed);
    mn_cli_lines_close(&im.lines);
    mn_import_close(&im.out);
    return status == MN_OK ? printed : mn_cli_fail(status, "%s", sentence);
}

const struct mn_cli_command mn_cmd_import = {
    .usage = "FILE.jsonl | --vectors FILE.f32 [--lines FILE.jsonl]",
    .options = options,
    .details = "Reads one memory a line: {\"embedding\": [...], \"content\": ..., \"meta\": {...}, \"tags\": [...], "
               "\"at\": ..., \"id\": ...,\n"
               "\"space\": ...}, of which only the embedding is required. Times are nanoseconds or RFC 3339; binary "
               "content is\n"
               "{\"$base64\": \"...\"}; an embedding may be {\"$f32\": base64 of little-endian floats}. With --vectors "
               "the embeddings are\n"
               "rows of a raw file and the lines hold the rest. `-` reads lines from stdin.\n\n"
               "Importing again doubles nothing: a line with an id replaces that memory, and a line without one gets "
               "an id made from the\n"
               "store's uuid, the number of the line and its bytes, the same in every run (unless --assign-ids is "
               "given). So after a\n"
               "failure, mend the cause and run the same command again.\n\n"
               "A bad line stops the import, and nothing of its batch is written; with --skip-bad it is reported and "
               "left out.\n",
    .examples = "  mneme import memories.jsonl\n"
                "  mneme import --vectors text768.f16 --lines text.jsonl --batch 256\n"
                "  mneme export --dir ./old | mneme import --dir ./new -\n",
    .run = run,
};
