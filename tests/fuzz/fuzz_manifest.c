/*
 * fuzz_manifest.c - any bytes as a manifest edit, and any edit there and back.
 *
 * What decodes must encode to the same bytes. The edit's checksum stops nearly every input, so each is tried a second
 * time as the segments of an edit that this program has made itself.
 */
#include "engine/manifest.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void there_and_back(const struct mn_manifest *manifest)
{
    struct mn_manifest again;
    void *bytes, *twice;
    size_t length, second;
    MN_ASSERT(mn_manifest_encode(manifest, &bytes, &length) == MN_OK);
    MN_ASSERT(mn_manifest_decode(&again, bytes, length) == MN_OK);
    MN_ASSERT(mn_manifest_encode(&again, &twice, &second) == MN_OK);
    MN_ASSERT(length == second && memcmp(bytes, twice, length) == 0);
    /* One byte less, or one flipped, is damage. */
    struct mn_manifest broken;
    MN_ASSERT(mn_manifest_decode(&broken, bytes, length - 1) == MN_CORRUPT);
    ((uint8_t *)bytes)[length / 2] ^= 1;
    MN_ASSERT(mn_manifest_decode(&broken, bytes, length) == MN_CORRUPT);
    mn_manifest_free(&again);
    free(bytes);
    free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mn_manifest manifest;
    uint8_t *copy = malloc(size + 1); /* aligned as a buffer of the engine's is */
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    if (mn_manifest_decode(&manifest, copy, size) == MN_OK)
        there_and_back(&manifest);
    mn_manifest_free(&manifest);
    struct mn_manifest made = {.edit = size, .segment_count = (uint32_t)(size / sizeof *made.segments)};
    made.segments = (struct mn_manifest_segment *)(void *)copy;
    there_and_back(&made);
    free(copy);
    return 0;
}
