/*
 * import_batches.c - gathering memories into batches and sending these (see import_batches.h).
 */
#include "ops/cli/import_batches.h"

#include "ops/cli/cli.h"
#include "ops/cli/cli_json.h"
#include "ops/cli/cli_sha1.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    BATCH_BYTES = 8 << 20, /* half of what the protocol allows: one more memory always fits */
    ID_SLOTS = 1 << 20,
    BAD_SHOWN = 20, /* bad lines are reported one by one up to here */
};

/* ---- sending ---- */

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
static enum mn_status build(struct mn_import *im, const char *space, const char *body, size_t size, size_t count,
                            msgpack_sbuffer *out)
{
    msgpack_packer p;
    char idem[48];
    msgpack_sbuffer_init(out);
    msgpack_packer_init(&p, out, msgpack_sbuffer_write);
    name_request(space, body, size, idem);
    msgpack_pack_map(&p, 3 + !im->assign_ids);
    mn_cli_json_pack_text(&p, "op");
    mn_cli_json_pack_text(&p, "remember");
    mn_cli_json_pack_text(&p, "space");
    mn_cli_json_pack_text(&p, space);
    if (!im->assign_ids) { /* two equal batches without ids are two batches */
        mn_cli_json_pack_text(&p, "idem");
        mn_cli_json_pack_text(&p, idem);
    }
    mn_cli_json_pack_text(&p, "memories");
    msgpack_pack_array(&p, count);
    if (msgpack_sbuffer_write(out, body, size) == 0)
        return MN_OK;
    msgpack_sbuffer_destroy(out);
    return MN_FAIL(MN_INTERNAL, "out of memory for a batch");
}

void mn_import_leave_out(struct mn_import *im, uint64_t line, const char *sentence)
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
static enum mn_status send_singly(struct mn_import *im, struct mn_import_batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        const struct mn_import_item *item = &b->items[i];
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
            mn_import_leave_out(im, item->line, mneme_error(im->client));
    }
    return MN_OK;
}

static void empty(struct mn_import_batch *b)
{
    msgpack_sbuffer_clear(&b->body);
    b->number = b->ticket = 0;
    b->count = 0;
    b->space[0] = 0;
}

static enum mn_status settle(struct mn_import *im, struct mn_import_batch *b, enum mneme_code code)
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

static enum mn_status collect(struct mn_import *im)
{
    uint64_t ticket = 0;
    enum mneme_code code = mneme_collect(im->client, &ticket, NULL);
    for (size_t i = 0; i < im->batch_count; i++)
        if (im->batches[i].ticket == ticket && ticket)
            return settle(im, &im->batches[i], code);
    return mn_cli_status(code, mneme_error(im->client));
}

/* Waits until at most `most` requests are out. */
static enum mn_status wait_for(struct mn_import *im, size_t most)
{
    while (mneme_in_flight(im->client) > most)
        MN_TRY(collect(im));
    return MN_OK;
}

static enum mn_status flush(struct mn_import *im, struct mn_import_batch *b)
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

static uint64_t oldest_in_flight(const struct mn_import *im)
{
    uint64_t oldest = im->next_number;
    for (size_t i = 0; i < im->batch_count; i++)
        if (im->batches[i].number && im->batches[i].number < oldest)
            oldest = im->batches[i].number;
    return oldest;
}

static bool is_open(const struct mn_import_batch *b)
{
    return b->number && !b->ticket;
}

enum mn_status mn_import_flush(struct mn_import *im)
{
    for (size_t i = 0; i < im->batch_count; i++)
        if (is_open(&im->batches[i]))
            MN_TRY(flush(im, &im->batches[i]));
    return wait_for(im, 0);
}

/* Sees to it that no batch on its way, nor an open one, holds this id. A collision of hashes costs a wait, nothing
 * else. */
static enum mn_status keep_order(struct mn_import *im, const char *space, const struct mneme_id *id, uint32_t **slot)
{
    *slot = &im->id_batch[hash_id(space, id) % ID_SLOTS];
    if (**slot < oldest_in_flight(im))
        return MN_OK;
    return mn_import_flush(im);
}

static struct mn_import_batch *find_open(struct mn_import *im, const char *space)
{
    for (size_t i = 0; i < im->batch_count; i++)
        if (is_open(&im->batches[i]) && strcmp(im->batches[i].space, space) == 0)
            return &im->batches[i];
    return NULL;
}

/* A new batch for a space. When too many are open, the oldest of them goes out. */
static enum mn_status open_batch(struct mn_import *im, const char *space, struct mn_import_batch **out)
{
    struct mn_import_batch *oldest = NULL;
    size_t open = 0;
    for (size_t i = 0; i < im->batch_count; i++) {
        struct mn_import_batch *b = &im->batches[i];
        open += is_open(b);
        if (is_open(b) && (!oldest || b->number < oldest->number))
            oldest = b;
    }
    if (open == MN_IMPORT_OPEN_MAX)
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
static enum mn_status batch_for(struct mn_import *im, const char *space, size_t bytes, struct mn_import_batch **out)
{
    *out = find_open(im, space);
    if (*out && ((*out)->count == im->batch_max || (*out)->body.size + bytes > BATCH_BYTES)) {
        MN_TRY(flush(im, *out));
        *out = NULL;
    }
    return *out ? MN_OK : open_batch(im, space, out);
}

enum mn_status mn_import_add(struct mn_import *im, const msgpack_sbuffer *packed, const struct mn_cli_line *facts,
                             uint64_t line)
{
    const char *space = facts->space[0] ? facts->space : im->space;
    struct mn_import_batch *b;
    uint32_t *slot = NULL;
    if (facts->has_id)
        MN_TRY(keep_order(im, space, &facts->id, &slot));
    MN_TRY(batch_for(im, space, packed->size, &b));
    if (slot)
        *slot = (uint32_t)b->number;
    b->items[b->count++] = (struct mn_import_item){.offset = b->body.size, .size = packed->size, .line = line};
    if (msgpack_sbuffer_write(&b->body, packed->data, packed->size) != 0)
        return MN_FAIL(MN_INTERNAL, "out of memory for a batch");
    return MN_OK;
}

/* ---- the whole ---- */

void mn_import_open(struct mn_import *im)
{
    im->next_number = 1;
    im->batch_count = im->flight_max + MN_IMPORT_OPEN_MAX;
    for (size_t i = 0; i < im->batch_count; i++) {
        im->batches[i].items = mn_cli_keep(im->batch_max * sizeof *im->batches[i].items);
        msgpack_sbuffer_init(&im->batches[i].body);
    }
    im->id_batch = mn_cli_keep(ID_SLOTS * sizeof *im->id_batch);
}

void mn_import_await(struct mn_import *im)
{
    while (mneme_in_flight(im->client) > 0 && collect(im) == MN_OK)
        continue;
}

void mn_import_close(struct mn_import *im)
{
    for (size_t i = 0; i < MN_ARRAY_LEN(im->batches); i++)
        msgpack_sbuffer_destroy(&im->batches[i].body);
}
