/*
 * wal_verify.c - what `mneme verify` says of a log segment: each checksum, and each byte that should be zero.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/guard.h"
#include "engine/wal.h"

#define SECTOR 512u /* what a disk writes as a whole */

struct verification {
    mn_damage_fn damaged;
    void *context;
    uint64_t durable_seq;
    const char *path;
    struct mn_wal_segment segment;
    struct mn_wal_extent extent;
    bool tells, any; /* any: something is damaged, told or not */
};

static void tell(struct verification *v, const char *what)
{
    v->any = true;
    if (v->tells)
        v->damaged(v->context, v->path, what);
}

/* Where the log goes on behind segment `number`: the header of the next one that was begun. *found false: nowhere. */
static enum mn_status find_successor(const struct mn_store *store, uint64_t number, struct mn_wal_header *header,
                                     bool *found)
{
    uint64_t *numbers;
    uint32_t count;
    *found = false;
    MN_TRY(mn_wal_list(store, &numbers, &count));
    for (uint32_t i = 0; i < count && !*found; i++) {
        struct mn_wal_segment next;
        if (numbers[i] <= number)
            continue;
        *found = mn_wal_map(&next, store, numbers[i]) == MN_OK && !next.unused;
        *header = next.header;
        mn_wal_unmap(&next);
    }
    free(numbers);
    return MN_OK;
}

static enum mn_status pass_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    return MN_OK;
}

/* Bytes that a write which did not end may have left: the beginning of a batch, or sectors of one whose first did not
 * land. A lone byte among zeros is neither. */
static bool may_be_torn(const struct mn_wal_segment *segment, const struct mn_wal_damage *damage)
{
    const uint8_t *p = segment->base + damage->offset;
    uint64_t at = 0, end = damage->bytes;
    if (damage->header)
        return true;
    if (!mn_wal_zero(p, SECTOR))
        return false;
    while (at < end && p[at] == 0)
        at++;
    return at + 1 < end && !mn_wal_zero(p + at + 1, end - at - 1);
}

static enum mn_status tell_damage(void *context, const struct mn_wal_segment *segment,
                                  const struct mn_wal_damage *damage)
{
    struct verification *v = context;
    char what[160];
    if (damage->after_seq >= v->durable_seq)
        return MN_OK; /* the end of the active segment: being written */
    if (damage->bytes == 0)
        return MN_OK; /* a cut file, told of below */
    if (!damage->salvaged && may_be_torn(segment, damage)) {
        struct mn_wal_header next;
        bool found;
        MN_TRY(find_successor(segment->store, segment->number, &next, &found));
        if (found && next.prev_last_seq <= damage->after_seq)
            return MN_OK; /* a torn end that recovery went on behind: it was never acknowledged */
    }
    snprintf(what, sizeof what, "%s (offset %" PRIu64 ", %" PRIu64 " bytes)", damage->what, damage->offset,
             damage->bytes);
    tell(v, what);
    return MN_OK;
}

bool mn_wal_headers_damaged(const struct mn_wal_segment *segment, const struct mn_wal_extent *extent,
                            void (*told)(void *context, const char *what), void *context)
{
    static const char *const what[] = {"the first header block is damaged", "the last header block is damaged"};
    const struct mn_wal_header *copies[] = {
        (const void *)segment->base, (const void *)(segment->base + segment->bytes - segment->long_by - MN_WAL_BLOCK)};
    bool any = false;
    for (int i = 0; i < 2 && !segment->unused && !segment->cut; i++) {
        if (extent->batches <= 1 && mn_wal_zero((const uint8_t *)copies[i], MN_WAL_BLOCK))
            continue; /* the power went before the first sync: this copy never landed, and the other one serves */
        if (mn_wal_header_valid(copies[i], segment->store->uuid, segment->number, segment->header.bytes) &&
            mn_wal_zero((const uint8_t *)(copies[i] + 1), MN_WAL_BLOCK - sizeof *copies[i]))
            continue;
        any = true;
        if (told)
            told(context, what[i]);
    }
    return any;
}

/* A batch of which nothing is left leaves no trace in its own segment; the next one tells where this one ended. */
static enum mn_status tell_early_end(struct verification *v)
{
    char what[160];
    const struct mn_wal_segment *segment = &v->segment;
    struct mn_wal_header next;
    uint64_t last = v->extent.batches > 0 ? v->extent.last_seq : segment->header.prev_last_seq;
    bool found;
    if (segment->unused || last >= v->durable_seq)
        return MN_OK;
    MN_TRY(find_successor(segment->store, segment->number, &next, &found));
    if (!found || next.prev_number != segment->number || next.prev_last_seq <= last)
        return MN_OK;
    snprintf(what, sizeof what, "it ends at seq %" PRIu64 ", and the log goes on behind seq %" PRIu64, last,
             next.prev_last_seq);
    tell(v, what);
    return MN_OK;
}

static void tell_header(void *context, const char *what)
{
    tell(context, what);
}

/* Everything in the segment. */
static enum mn_status look_through(void *context)
{
    struct verification *v = context;
    const struct mn_wal_segment *segment = &v->segment;
    char what[160];
    struct mn_wal_visitor visitor = {.context = v, .record = pass_record, .damage = tell_damage};
    if (segment->unread > 0) {
        snprintf(what, sizeof what, "the disk cannot read %" PRIu64 " of its %" PRIu64 " blocks", segment->unread,
                 segment->bytes / MN_WAL_BLOCK);
        tell(v, what);
    }
    MN_TRY(mn_wal_scan(segment, &visitor, &v->extent));
    if (segment->long_by > 0)
        tell(v, "the file is longer than it was made");
    if (segment->cut)
        tell(v, "the file is shorter than it was made");
    mn_wal_headers_damaged(segment, &v->extent, tell_header, v);
    struct mn_wal_damage all = {
        .bytes = segment->bytes}; /* a first batch may have landed without the headers: the keeper makes it anew */
    if (segment->unused && !mn_wal_zero(segment->base, segment->bytes) && !may_be_torn(segment, &all))
        tell(v, "a prepared log segment is not zero");
    return tell_early_end(v);
}

/* A block that the disk cannot read shows as a fault in the mapping, wherever it is touched: what can be read is looked
 * through then. */
static enum mn_status look_guarded(struct verification *v)
{
    const void *fault;
    enum mn_status status = mn_guarded(look_through, v, &fault);
    if (!fault)
        return status;
    MN_TRY(mn_wal_reread(&v->segment));
    return look_through(v);
}

enum mn_status mn_wal_verify(const struct mn_store *store, uint64_t number, uint64_t durable_seq, uint64_t *bytes,
                             mn_damage_fn damaged, void *context)
{
    char path[MN_PATH_MAX];
    struct verification v = {.damaged = damaged, .context = context, .durable_seq = durable_seq};
    v.path = mn_store_wal_path(store, path, number);
    enum mn_status status = mn_wal_map(&v.segment, store, number);
    *bytes += v.segment.bytes;
    if (status == MN_OK)
        status = look_guarded(&v);
    if (status == MN_OK && v.any) { /* once more, aloud: now it is known what can be read */
        v.tells = true;
        status = look_guarded(&v);
    }
    if (status == MN_CORRUPT) {
        damaged(context, path, mn_error_text());
        status = MN_OK;
    }
    mn_wal_unmap(&v.segment);
    return status;
}

/* ---- where it ends ---- */

static enum mn_status find_end(void *context)
{
    struct verification *v = context;
    struct mn_wal_visitor visitor = {.record = pass_record};
    return mn_wal_scan(&v->segment, &visitor, &v->extent);
}

enum mn_status mn_wal_last_seq(const struct mn_store *store, uint64_t number, uint64_t *seq)
{
    struct verification v = {0};
    const void *fault;
    *seq = 0;
    enum mn_status status = mn_wal_map(&v.segment, store, number);
    if (status == MN_OK && !v.segment.unused) {
        status = mn_guarded(find_end, &v, &fault);
        if (fault)
            status = mn_wal_reread(&v.segment);
        if (fault && status == MN_OK)
            status = find_end(&v);
        *seq = status == MN_OK ? v.extent.last_seq : 0;
    }
    mn_wal_unmap(&v.segment);
    return status;
}
