/*
 * cmd_import.c - `mneme import`: JSON Lines, or raw vectors with JSON Lines beside them, into a running store.
 *
 * Lines are gathered into batches, one `remember` each, and several batches are in flight. A batch is one atomic
 * change. An import may be run again after any failure without doubling anything: lines that name an id replace
 * themselves, and a line without one gets an id made from the store's uuid, the line's number and its bytes (a version
 * 5 UUID), so that the same line gets the same id.
 *
 * Order: two batches in flight may be admitted in either order when one is refused as `busy` and tried again. That
 * matters only to lines with the same id, so a batch with an id that is still in flight waits for the pipeline to run
 * dry.
 */
#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_line.h"
#include "ops/cli/cli_out.h"
#include "ops/cli/cli_progress.h"
#include "ops/cli/cli_sha1.h"
#include "ops/cli/cli_time.h"
#include "ops/cli/cli_vector.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    BATCH_MAX = 4096,
    FLIGHT_MAX = 16,
    OPEN_MAX =
        8, /* batches that are being filled: lines of so many spaces may alternate without making batches small */
    BATCH_BYTES = 8 << 20, /* half of what the protocol allows: one more memory always fits */
    ID_SLOTS = 1 << 20,
    BAD_SHOWN = 20, /* bad lines are reported one by one up to here */
};

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

/* One memory in a batch. */
struct item {
    size_t offset, size;
    uint64_t line;
};

/* Free (no number), then open (a number, no ticket), then in flight (both), then free again. */
struct batch {
    uint64_t number; /* from 1, in the order of opening */
    uint64_t ticket;
    char space[MN_CLI_LINE_SPACE_MAX + 1];
    msgpack_sbuffer body;
    size_t count;
    struct item *items;
};

struct import {
    struct mn_cli *cli;
    struct mneme *client;
    const char *space; /* of lines that name none */
    uint64_t batch_max, flight_max;
    bool assign_ids, skip_bad;
    uint32_t dim;
    uint8_t namespace[16];
    struct mn_cli_line_reader lines;
    FILE *vectors;
    enum mn_cli_vector_element element;
    char *raw;     /* one row as it is in the file */
    float *vector; /* and as floats */
    uint64_t row;
    struct batch batches[FLIGHT_MAX + OPEN_MAX];
    size_t batch_count; /* of these, in use with the options given */
    uint64_t next_number;
    uint32_t *id_batch; /* by hash of the id: the last batch that had it */
    uint64_t imported, bad, requests;
    struct mn_cli_progress progress;
};

/* ---- sending ---- */

static void put_text(msgpack_packer *p, const char *text)
{
    msgpack_pack_str(p, strlen(text));
    msgpack_pack_str_body(p, text, strlen(text));
}

/* The key of a request is a hash of what it holds, so that the same batch in a second run is answered from the first.
 */
static void name_request(const char *space, const char *body, size_t size, char *idem)
{
    struct mn_cli_sha1 sha;
    uint8_t digest[20];
    mn_cli_sha1_begin(&sha);
    mn_cli_sha1_add(&sha, space, strlen(space) + 1);
    mn_cli_sha1_add(&sha, body, size);
    mn_cli_sha1_end(&sha, digest);
    snprintf(idem, 48, "import-");
    for (unsigned i = 0; i < sizeof digest; i++)
        sprintf(idem + 7 + 2 * i, "%02x", digest[i]);
}

/* The request for `count` memories that stand at `body`. */
static enum mn_status build(struct import *im, const char *space, const char *body, size_t size, size_t count,
                            msgpack_sbuffer *out)
{
    msgpack_packer p;
    char idem[48];
    msgpack_sbuffer_init(out);
    msgpack_packer_init(&p, out, msgpack_sbuffer_write);
    name_request(space, body, size, idem);
    msgpack_pack_map(&p, 3 + !im->assign_ids);
    put_text(&p, "op");
    put_text(&p, "remember");
    put_text(&p, "space");
    put_text(&p, space);
    if (!im->assign_ids) { /* two equal batches without ids are two batches */
        put_text(&p, "idem");
        put_text(&p, idem);
    }
    put_text(&p, "memories");
    msgpack_pack_array(&p, count);
    if (msgpack_sbuffer_write(out, body, size) == 0)
        return MN_OK;
    msgpack_sbuffer_destroy(out);
    return MN_FAIL(MN_INTERNAL, "out of memory for a batch");
}

static void report_bad(struct import *im, uint64_t line, const char *sentence)
{
    bool drawing = im->progress.on;
    im->bad++;
    if (im->bad > BAD_SHOWN)
        return;
    if (drawing)
        fputs("\r\033[K", stderr);
    fprintf(stderr, "line %" PRIu64 ": %s\n", line, sentence);
    if (im->bad == BAD_SHOWN)
        fprintf(stderr, "further bad lines are only counted\n");
}

/* With --skip-bad: a batch that was refused goes memory by memory, to leave out only what is bad. */
static enum mn_status send_singly(struct import *im, struct batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        const struct item *item = &b->items[i];
        msgpack_sbuffer request;
        MN_TRY(build(im, b->space, b->body.data + item->offset, item->size, 1, &request));
        enum mneme_code code = mneme_call(im->client, MNEME_WRITE, request.data, request.size, NULL);
        enum mn_status status = code == MNEME_OK ? MN_OK : mn_cli_status(code, mneme_error(im->client));
        msgpack_sbuffer_destroy(&request);
        if (status != MN_OK && mn_status_retry(status))
            return mn_cli_fail(status, "line %" PRIu64 ": %s", item->line, mneme_error(im->client));
        if (status == MN_OK)
            im->imported++;
        else
            report_bad(im, item->line, mneme_error(im->client));
    }
    return MN_OK;
}

static void empty(struct batch *b)
{
    msgpack_sbuffer_clear(&b->body);
    b->number = b->ticket = 0;
    b->count = 0;
    b->space[0] = 0;
}

static enum mn_status settle(struct import *im, struct batch *b, enum mneme_code code)
{
    enum mn_status status = MN_OK;
    if (code == MNEME_OK) {
        im->imported += b->count;
    } else {
        status = mn_cli_status(code, mneme_error(im->client));
        if (im->skip_bad && !mn_status_retry(status))
            status = send_singly(im, b);
        else
            status = mn_cli_fail(status, "lines %" PRIu64 " to %" PRIu64 ": %s", b->items[0].line,
                                 b->items[b->count - 1].line, mneme_error(im->client));
    }
    empty(b);
    return status;
}

static enum mn_status collect(struct import *im)
{
    uint64_t ticket = 0;
    enum mneme_code code = mneme_collect(im->client, &ticket, NULL);
    for (size_t i = 0; i < im->batch_count; i++)
        if (im->batches[i].ticket == ticket && ticket)
            return settle(im, &im->batches[i], code);
    return mn_cli_status(code, mneme_error(im->client));
}

/* Waits until at most `most` requests are out. */
static enum mn_status wait_for(struct import *im, size_t most)
{
    while (mneme_in_flight(im->client) > most)
        MN_TRY(collect(im));
    return MN_OK;
}

static enum mn_status flush(struct import *im, struct batch *b)
{
    msgpack_sbuffer request;
    MN_TRY(wait_for(im, im->flight_max - 1));
    MN_TRY(build(im, b->space, b->body.data, b->body.size, b->count, &request));
    enum mneme_code code = mneme_submit(im->client, MNEME_WRITE, request.data, request.size, &b->ticket);
    msgpack_sbuffer_destroy(&request);
    if (code != MNEME_OK)
        return mn_cli_status(code, mneme_error(im->client));
    im->requests++;
    return MN_OK;
}

/* ---- gathering ---- */

static uint64_t hash_id(const char *space, const struct mneme_id *id)
{
    uint64_t h = 0xcbf29ce484222325ull ^ id->number * 0x9e3779b97f4a7c15ull; /* FNV-1a over the texts */
    for (const char *p = space; *p; p++)
        h = (h ^ (unsigned char)*p) * 0x100000001b3ull;
    for (const char *p = id->uuid; *p; p++)
        h = (h ^ (unsigned char)*p) * 0x100000001b3ull;
    return h ^ h >> 29;
}

static uint64_t oldest_in_flight(const struct import *im)
{
    uint64_t oldest = im->next_number;
    for (size_t i = 0; i < im->batch_count; i++)
        if (im->batches[i].number && im->batches[i].number < oldest)
            oldest = im->batches[i].number;
    return oldest;
}

static bool is_open(const struct batch *b)
{
    return b->number && !b->ticket;
}

static enum mn_status flush_all(struct import *im)
{
    for (size_t i = 0; i < im->batch_count; i++)
        if (is_open(&im->batches[i]))
            MN_TRY(flush(im, &im->batches[i]));
    return wait_for(im, 0);
}

/* Sees to it that no batch on its way, nor an open one, holds this id. A collision of hashes costs a wait, nothing
 * else. */
static enum mn_status keep_order(struct import *im, const char *space, const struct mneme_id *id, uint32_t **slot)
{
    *slot = &im->id_batch[hash_id(space, id) % ID_SLOTS];
    if (**slot < oldest_in_flight(im))
        return MN_OK;
    return flush_all(im);
}

static struct batch *find_open(struct import *im, const char *space)
{
    for (size_t i = 0; i < im->batch_count; i++)
        if (is_open(&im->batches[i]) && strcmp(im->batches[i].space, space) == 0)
            return &im->batches[i];
    return NULL;
}

/* A new batch for a space. When too many are open, the oldest of them goes out. */
static enum mn_status open_batch(struct import *im, const char *space, struct batch **out)
{
    struct batch *oldest = NULL;
    size_t open = 0;
    for (size_t i = 0; i < im->batch_count; i++) {
        struct batch *b = &im->batches[i];
        open += is_open(b);
        if (is_open(b) && (!oldest || b->number < oldest->number))
            oldest = b;
    }
    if (open == OPEN_MAX)
        MN_TRY(flush(im, oldest));
    *out = NULL;
    for (size_t i = 0; i < im->batch_count && !*out; i++)
        if (!im->batches[i].number)
            *out = &im->batches[i];
    MN_ASSERT(*out != NULL); /* there are as many as may be open and in flight together */
    (*out)->number = im->next_number++;
    memcpy((*out)->space, space, strlen(space) + 1);
    return MN_OK;
}

/* The batch of a space that has room for so many bytes more. */
static enum mn_status batch_for(struct import *im, const char *space, size_t bytes, struct batch **out)
{
    *out = find_open(im, space);
    if (*out && ((*out)->count == im->batch_max || (*out)->body.size + bytes > BATCH_BYTES)) {
        MN_TRY(flush(im, *out));
        *out = NULL;
    }
    return *out ? MN_OK : open_batch(im, space, out);
}

static enum mn_status admit(struct import *im, msgpack_sbuffer *packed, const struct mn_cli_line *facts, uint64_t line)
{
    const char *space = facts->space[0] ? facts->space : im->space;
    struct batch *b;
    uint32_t *slot = NULL;
    if (facts->has_id)
        MN_TRY(keep_order(im, space, &facts->id, &slot));
    MN_TRY(batch_for(im, space, packed->size, &b));
    if (slot)
        *slot = (uint32_t)b->number;
    b->items[b->count++] = (struct item){.offset = b->body.size, .size = packed->size, .line = line};
    if (msgpack_sbuffer_write(&b->body, packed->data, packed->size) != 0)
        return MN_FAIL(MN_INTERNAL, "out of memory for a batch");
    return MN_OK;
}

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
    if (status == MN_OK && !facts.has_id && !im->assign_ids) {
        derive_id(im, line, size, number, &id);
        mn_cli_line_add_id(packed, 0, &id);
    }
    if (status == MN_OK)
        return admit(im, packed, &facts, number);
    if (!im->skip_bad) {
        char sentence[256];
        snprintf(sentence, sizeof sentence, "%s", mn_error_text());
        return mn_cli_fail(status, "line %" PRIu64 ": %s", number, sentence);
    }
    report_bad(im, number, mn_error_text());
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
        MN_TRY(mn_cli_line_next(&im->lines, &line, &size));
        if (!line)
            return MN_OK;
        MN_TRY(take(im, line, size, im->lines.line, packed));
        mn_cli_progress_show(&im->progress, im->lines.bytes, im->imported);
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
            MN_TRY(mn_cli_line_next(&im->lines, &line, &size));
        if (im->lines.in && more != (line != NULL))
            return MN_FAIL(MN_BAD_REQUEST,
                           "row %" PRIu64 " of the vectors and line %" PRIu64
                           " of the lines do not meet: one file ends before the other",
                           im->row, im->lines.line);
        if (!more)
            return MN_OK;
        MN_TRY(take(im, line, size, im->row, packed));
        mn_cli_progress_show(&im->progress, im->row * im->dim * mn_cli_vector_width(im->element), im->imported);
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
    mn_cli_line_open(&im->lines, in);
    return MN_OK;
}

static enum mn_status prepare(struct import *im, const struct mn_cli_args *args)
{
    MN_TRY(mn_cli_connect(im->cli));
    im->client = im->cli->client;
    im->dim = mneme_dim(im->client);
    im->next_number = 1;
    if (!mn_cli_sha1_parse_uuid(mneme_uuid(im->client), im->namespace))
        return MN_FAIL(MN_INTERNAL, "the store's uuid is no UUID: %s", mneme_uuid(im->client));
    im->batch_count = im->flight_max + OPEN_MAX;
    for (size_t i = 0; i < im->batch_count; i++) {
        im->batches[i].items = mn_cli_keep(im->batch_max * sizeof *im->batches[i].items);
        msgpack_sbuffer_init(&im->batches[i].body);
    }
    im->id_batch = mn_cli_keep(ID_SLOTS * sizeof *im->id_batch);
    im->raw = mn_cli_keep(im->dim * sizeof(float));
    im->vector = mn_cli_keep(im->dim * sizeof(float));
    return MN_OK;
}

static enum mn_status read_options(struct import *im, const struct mn_cli_args *args)
{
    const char *space = mn_cli_args_text(args, "space");
    im->batch_max = 64;
    im->flight_max = 4;
    im->space = space ? space : "default";
    im->assign_ids = mn_cli_args_has(args, "assign-ids");
    im->skip_bad = mn_cli_args_has(args, "skip-bad");
    if (strlen(im->space) > MN_CLI_LINE_SPACE_MAX || !*im->space)
        return MN_FAIL(MN_USAGE, "--space takes a name of 1 to %d bytes", MN_CLI_LINE_SPACE_MAX);
    MN_TRY(mn_cli_args_u64(args, "batch", 1, BATCH_MAX, &im->batch_max));
    return mn_cli_args_u64(args, "in-flight", 1, FLIGHT_MAX, &im->flight_max);
}

static enum mn_status print_outcome(const struct import *im, enum mn_status status, double seconds)
{
    char text[32];
    double rate = seconds > 0 ? (double)im->imported / seconds : 0;
    if (im->cli->json && status == MN_OK)
        return mn_cli_json_print(json_pack("{s:b, s:I, s:I, s:I, s:f, s:f}", "ok", 1, "imported",
                                           (json_int_t)im->imported, "bad", (json_int_t)im->bad, "requests",
                                           (json_int_t)im->requests, "seconds", seconds, "memories_per_s", rate),
                                 im->cli->out_is_terminal);
    if (status == MN_OK) {
        printf("%s memories imported", mn_cli_out_count(im->imported, text));
        if (im->bad)
            printf(", %s bad lines left out", mn_cli_out_count(im->bad, text));
        printf(", %.1f s, %s/s\n", seconds, mn_cli_out_count((uint64_t)rate, text));
    } else if (im->imported) {
        fprintf(stderr, "imported before that: %s; to go on, run the same command again: %s\n",
                mn_cli_out_count(im->imported, text),
                im->assign_ids ? "with --assign-ids they are then imported twice" : "nothing is doubled");
    }
    return MN_OK;
}

static enum mn_status run(struct mn_cli *cli, const struct mn_cli_args *args)
{
    static struct import
        im; /* the batches' bodies and tables are too much for a stack, and there is one import a process */
    msgpack_sbuffer packed;
    uint64_t total = 0;
    enum mn_status status;
    im = (struct import){.cli = cli};
    MN_TRY(read_options(&im, args));
    MN_TRY(open_inputs(&im, args, &total));
    MN_TRY(prepare(&im, args));
    msgpack_sbuffer_init(&packed);
    uint64_t began = mn_cli_time_monotonic();
    mn_cli_progress_begin(&im.progress, cli, "import", "memories", total);
    status = im.vectors ? run_vectors(&im, &packed) : run_lines(&im, &packed);
    if (status == MN_OK)
        status = flush_all(&im);
    char sentence[512];
    snprintf(sentence, sizeof sentence, "%s", mn_error_text());
    while (status != MN_OK && mneme_in_flight(im.client) > 0 && collect(&im) == MN_OK)
        continue; /* what is on its way counts */
    mn_cli_progress_end(&im.progress);
    enum mn_status printed = print_outcome(&im, status, (double)(mn_cli_time_monotonic() - began) / 1e9);
    msgpack_sbuffer_destroy(&packed);
    mn_cli_line_close(&im.lines);
    for (size_t i = 0; i < MN_ARRAY_LEN(im.batches); i++)
        msgpack_sbuffer_destroy(&im.batches[i].body);
    return status == MN_OK ? printed : mn_cli_fail(status, "%s", sentence);
}

const struct mn_cli_command mn_cmd_import = {
    .usage = "FILE.jsonl | --vectors FILE.f32 [--lines FILE.jsonl]",
    .options = options,
    .details = "Reads one memory a line: {\"embedding\": [...], \"content\": ..., \"meta\": {...}, \"tags\": [...], "
               "\"at\": ..., \"id\": ..., \"space\": ...},\n"
               "of which only the embedding is required. Times are nanoseconds or RFC 3339; binary content is "
               "{\"$base64\": \"...\"}; an\n"
               "embedding may be {\"$f32\": base64 of little-endian floats}. With --vectors the embeddings are rows of "
               "a raw file and the\n"
               "lines hold the rest. `-` reads lines from stdin.\n\n"
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
