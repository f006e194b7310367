/*
 * compact_proposal.c - a proposal as a file in shared memory, from the compactor to the writer.
 *
 *   head { segment header, numbers, checksum } | edit (manifest.h) | outputs | per map: { tail, number, rows } and to[]
 *
 * The reader trusts nothing: lengths are checked against the file, the whole against a checksum, and every row map
 * against the outputs' row counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/compact.h"
#include "engine/crc.h"
#include "engine/shared.h"

#define MAGIC UINT64_C(0x31504f52504e4d07)

struct head {
    struct mn_segment_header header;
    uint64_t base_edit, live_gen;
    uint64_t rows_in, rows_out, bytes_out, files_rewritten, purge_seq, rows_lost;
    uint64_t edit_bytes; /* a multiple of 8 follows */
    uint64_t body_bytes; /* behind this head */
    uint32_t output_count, map_count;
    uint64_t unsearched;
    uint8_t spare[24];
    uint32_t zero, checksum; /* of the numbers from base_edit up to here, then of the body */
};
_Static_assert(sizeof(struct head) == 224 + 32 && offsetof(struct head, base_edit) == 128, "shared");

struct map_head {
    uint64_t tail, number, rows;
};

static struct mn_segment_identity identity(const struct mn_instance *instance)
{
    struct mn_segment_identity made = instance->identity;
    made.magic = MAGIC;
    made.fingerprint = mn_engine_fingerprint();
    return made;
}

static uint32_t checksum(const struct head *head)
{
    size_t from = offsetof(struct head, base_edit);
    uint32_t crc = mn_crc32c(0, (const uint8_t *)head + from, offsetof(struct head, checksum) - from);
    return mn_crc32c(crc, head + 1, head->body_bytes);
}

/* ---- writing ---- */

static uint64_t body_bytes(const struct mn_compact_proposal *p, size_t edit_bytes)
{
    uint64_t bytes = mn_round_up(edit_bytes, 8) + p->output_count * sizeof *p->outputs;
    for (uint32_t m = 0; m < p->map_count; m++)
        bytes += sizeof(struct map_head) + p->maps[m].rows * sizeof *p->maps[m].to;
    return bytes;
}

static void fill(struct head *head, const struct mn_compact_proposal *p, const void *edit, size_t edit_bytes)
{
    head->base_edit = p->base_edit;
    head->live_gen = p->live_gen;
    head->rows_in = p->rows_in;
    head->rows_out = p->rows_out;
    head->bytes_out = p->bytes_out;
    head->files_rewritten = p->files_rewritten;
    head->purge_seq = p->purge_seq;
    head->rows_lost = p->rows_lost;
    head->unsearched = p->unsearched;
    head->edit_bytes = edit_bytes;
    head->body_bytes = body_bytes(p, edit_bytes);
    head->output_count = p->output_count;
    head->map_count = p->map_count;
    uint8_t *to = (uint8_t *)(head + 1);
    memcpy(to, edit, edit_bytes);
    to += mn_round_up(edit_bytes, 8);
    if (p->output_count > 0)
        memcpy(to, p->outputs, p->output_count * sizeof *p->outputs);
    to += p->output_count * sizeof *p->outputs;
    for (uint32_t m = 0; m < p->map_count; m++) {
        struct map_head map = {p->maps[m].tail, p->maps[m].number, p->maps[m].rows};
        memcpy(to, &map, sizeof map);
        to += sizeof map;
        if (map.rows > 0)
            memcpy(to, p->maps[m].to, map.rows * sizeof *p->maps[m].to);
        to += map.rows * sizeof *p->maps[m].to;
    }
    head->checksum = checksum(head);
}

enum mn_status mn_compact_proposal_write(const struct mn_compact_proposal *proposal, struct mn_instance *instance,
                                         const char *name)
{
    void *edit;
    size_t edit_bytes = 0;
    struct mn_segment segment = {0};
    struct mn_segment_identity who = identity(instance);
    if (unlinkat(instance->dir_fd, name, 0) != 0 && errno != ENOENT)
        return MN_FAIL_ERRNO("cannot remove an older %s", name);
    MN_TRY(mn_manifest_encode(&proposal->next, &edit, &edit_bytes));
    uint64_t bytes = sizeof(struct head) + body_bytes(proposal, edit_bytes);
    enum mn_status status = mn_segment_create(&segment, instance->dir_fd, name, bytes, &who, 0600);
    if (status == MN_OK) {
        fill(segment.base, proposal, edit, edit_bytes);
        mn_segment_publish(&segment);
        mn_segment_unmap(&segment);
    }
    free(edit);
    return status;
}

/* ---- reading ---- */

/* What is left of the body; take() fails when it is too short. */
struct rest {
    const uint8_t *data;
    uint64_t bytes;
};

static const void *take(struct rest *rest, uint64_t bytes)
{
    const void *at = rest->data;
    if (bytes > rest->bytes)
        return NULL;
    rest->data += bytes;
    rest->bytes -= bytes;
    return at;
}

static enum mn_status broken(void)
{
    return MN_FAIL(MN_CORRUPT, "the compactor's proposal is not whole");
}

/* malloc'd copy of `count` words. */
static enum mn_status take_words(struct rest *rest, uint64_t count, uint64_t **words)
{
    if (count > rest->bytes / sizeof **words)
        return broken();
    const void *from = take(rest, count * sizeof **words);
    *words = malloc((count + 1) * sizeof **words);
    if (!*words)
        return MN_FAIL(MN_SYSTEM, "no memory for a row map of %llu rows", (unsigned long long)count);
    memcpy(*words, from, count * sizeof **words);
    return MN_OK;
}

static uint64_t output_rows(const struct mn_compact_proposal *p, uint64_t output)
{
    for (uint32_t s = 0; s < p->next.segment_count; s++)
        if (output < p->output_count && p->next.segments[s].id == p->outputs[output])
            return p->next.segments[s].rows;
    return 0;
}

static enum mn_status check_map(const struct mn_compact_proposal *p, const struct mn_row_map *map)
{
    uint64_t output = UINT64_MAX, rows = 0;
    for (uint64_t row = 0; row < map->rows; row++) {
        if (map->to[row] == MN_MAP_DROPPED)
            continue;
        if (map->to[row] >> 32 != output) {
            output = map->to[row] >> 32;
            rows = output_rows(p, output);
        }
        if ((uint32_t)map->to[row] >= rows)
            return broken();
    }
    return MN_OK;
}

static enum mn_status read_maps(struct mn_compact_proposal *p, struct rest *rest, uint32_t count)
{
    if (count > rest->bytes / sizeof(struct map_head))
        return broken();
    p->maps = calloc(count + 1u, sizeof *p->maps);
    if (!p->maps)
        return MN_FAIL(MN_SYSTEM, "no memory for the row maps");
    for (uint32_t m = 0; m < count; m++) {
        struct map_head map;
        const void *from = take(rest, sizeof map);
        if (!from)
            return broken();
        memcpy(&map, from, sizeof map);
        struct mn_row_map *made = &p->maps[p->map_count++];
        *made = (struct mn_row_map){.tail = map.tail != 0, .number = map.number, .rows = map.rows};
        MN_TRY(take_words(rest, map.rows, &made->to));
        MN_TRY(check_map(p, made));
    }
    return rest->bytes == 0 ? MN_OK : broken();
}

static enum mn_status read_head(struct mn_compact_proposal *p, const struct mn_segment *segment, struct rest *rest)
{
    const struct head *head = segment->base;
    if (segment->bytes < sizeof *head || head->body_bytes != segment->bytes - sizeof *head ||
        head->checksum != checksum(head))
        return broken();
    p->base_edit = head->base_edit;
    p->live_gen = head->live_gen;
    p->rows_in = head->rows_in;
    p->rows_out = head->rows_out;
    p->bytes_out = head->bytes_out;
    p->files_rewritten = head->files_rewritten;
    p->purge_seq = head->purge_seq;
    p->rows_lost = head->rows_lost;
    p->unsearched = head->unsearched;
    *rest = (struct rest){(const uint8_t *)(head + 1), head->body_bytes};
    if (head->edit_bytes > rest->bytes)
        return broken();
    const void *edit = take(rest, mn_round_up(head->edit_bytes, 8));
    return edit ? mn_manifest_decode(&p->next, edit, head->edit_bytes) : broken();
}

enum mn_status mn_compact_proposal_read(struct mn_compact_proposal *proposal, struct mn_instance *instance,
                                        const char *name)
{
    struct mn_segment segment;
    struct mn_segment_identity who = identity(instance);
    struct rest rest;
    *proposal = (struct mn_compact_proposal){0};
    MN_TRY(mn_segment_map(&segment, instance->dir_fd, name, false, &who));
    const struct head *head = segment.base;
    enum mn_status status = MN_OK;
    MN_TRY_OUT(read_head(proposal, &segment, &rest));
    MN_TRY_OUT(take_words(&rest, head->output_count, &proposal->outputs));
    proposal->output_count = head->output_count;
    MN_TRY_OUT(read_maps(proposal, &rest, head->map_count));
out:
    mn_segment_unmap(&segment);
    if (status != MN_OK)
        mn_compact_proposal_free(proposal);
    return status;
}
