/*
 * manifest_edit.c - one edit of the manifest: in memory, and as bytes.
 *
 *   edit = head { magic, version, segment count, the numbers, checksum } | segments
 */
#include <stdlib.h>

#include "engine/crc.h"
#include "engine/manifest.h"

#define EDIT_MAGIC UINT64_C(0x315449444d4e4d01)

struct edit_head {
    uint64_t magic;
    uint32_t version, segment_count;
    uint64_t edit, next_segment, wal_first, log_seq, oldest_seq, ledger_seq;
    uint64_t codebook;
    uint32_t tuning[MN_TUNING_WORDS];
    uint32_t zero;
    uint32_t checksum; /* of this head up to here, then of the segments */
};
_Static_assert(sizeof(struct edit_head) == 80 + 4 * MN_TUNING_WORDS, "on disk");
_Static_assert(sizeof(struct mn_manifest_segment) == 56, "on disk as in memory");

void mn_manifest_free(struct mn_manifest *manifest)
{
    free(manifest->segments);
    *manifest = (struct mn_manifest){0};
}

enum mn_status mn_manifest_copy(struct mn_manifest *to, const struct mn_manifest *from)
{
    *to = *from;
    to->segments = calloc(from->segment_count + 1u, sizeof *to->segments);
    if (!to->segments) {
        *to = (struct mn_manifest){0};
        return MN_FAIL(MN_SYSTEM, "no memory for a manifest of %u segments", from->segment_count);
    }
    if (from->segment_count > 0)
        memcpy(to->segments, from->segments, from->segment_count * sizeof *to->segments);
    return MN_OK;
}

void mn_manifest_publish_tuning(const struct mn_manifest *manifest, struct mn_control *control)
{
    for (uint32_t i = 0; i < MN_TUNING_WORDS; i++)
        atomic_store_explicit(&control->tuning[i], manifest->tuning[i], memory_order_relaxed);
}

static uint32_t edit_checksum(const struct edit_head *head, const void *segments)
{
    uint32_t crc = mn_crc32c(0, head, offsetof(struct edit_head, checksum));
    return mn_crc32c(crc, segments, head->segment_count * sizeof(struct mn_manifest_segment));
}

enum mn_status mn_manifest_encode(const struct mn_manifest *manifest, void **data, size_t *bytes)
{
    if (manifest->segment_count > MN_MANIFEST_SEGMENTS_MAX)
        return MN_FAIL(MN_TOO_LARGE, "%u column segments are more than a manifest holds (%u)", manifest->segment_count,
                       MN_MANIFEST_SEGMENTS_MAX);
    size_t segment_bytes = manifest->segment_count * sizeof *manifest->segments;
    uint8_t *out = malloc(sizeof(struct edit_head) + segment_bytes);
    if (!out)
        return MN_FAIL(MN_SYSTEM, "no memory for a manifest edit");
    if (segment_bytes > 0)
        memcpy(out + sizeof(struct edit_head), manifest->segments, segment_bytes);
    struct edit_head head = {.magic = EDIT_MAGIC,
                             .version = MN_FORMAT_VERSION,
                             .segment_count = manifest->segment_count,
                             .edit = manifest->edit,
                             .next_segment = manifest->next_segment,
                             .wal_first = manifest->wal_first,
                             .log_seq = manifest->log_seq,
                             .oldest_seq = manifest->oldest_seq,
                             .ledger_seq = manifest->ledger_seq,
                             .codebook = manifest->codebook};
    memcpy(head.tuning, manifest->tuning, sizeof head.tuning);
    head.checksum = edit_checksum(&head, out + sizeof head);
    memcpy(out, &head, sizeof head);
    *data = out;
    *bytes = sizeof head + segment_bytes;
    return MN_OK;
}

static enum mn_status check_edit(const struct edit_head *head, const uint8_t *segments, size_t bytes)
{
    if (bytes < sizeof *head || head->magic != EDIT_MAGIC)
        return MN_FAIL(MN_CORRUPT, "not a manifest edit");
    if (head->version != MN_FORMAT_VERSION)
        return MN_FAIL(MN_CORRUPT, "the manifest has format version %u, this program knows %u", head->version,
                       MN_FORMAT_VERSION);
    if (head->segment_count > MN_MANIFEST_SEGMENTS_MAX ||
        bytes != sizeof *head + head->segment_count * sizeof(struct mn_manifest_segment))
        return MN_FAIL(MN_CORRUPT, "a manifest edit of %zu bytes cannot hold %u segments", bytes, head->segment_count);
    if (head->checksum != edit_checksum(head, segments))
        return MN_FAIL(MN_CORRUPT, "a manifest edit does not match its checksum");
    return MN_OK;
}

enum mn_status mn_manifest_decode(struct mn_manifest *manifest, const void *data, size_t bytes)
{
    struct edit_head head = {0};
    const uint8_t *segments = (const uint8_t *)data + sizeof head;
    *manifest = (struct mn_manifest){0};
    memcpy(&head, data, bytes < sizeof head ? bytes : sizeof head);
    MN_TRY(check_edit(&head, segments, bytes));
    struct mn_manifest made = {.edit = head.edit,
                               .next_segment = head.next_segment,
                               .wal_first = head.wal_first,
                               .log_seq = head.log_seq,
                               .oldest_seq = head.oldest_seq,
                               .ledger_seq = head.ledger_seq,
                               .codebook = head.codebook,
                               .segment_count = head.segment_count};
    memcpy(made.tuning, head.tuning, sizeof made.tuning);
    made.segments = calloc(head.segment_count + 1u, sizeof *made.segments);
    if (!made.segments)
        return MN_FAIL(MN_SYSTEM, "no memory for a manifest of %u segments", head.segment_count);
    memcpy(made.segments, segments, head.segment_count * sizeof *made.segments);
    *manifest = made;
    return MN_OK;
}
