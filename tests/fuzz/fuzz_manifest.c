/*
 * fuzz_manifest.c - any bytes as a manifest edit, any edit there and back, and MANIFEST with its copy in any state.
 *
 * What decodes must encode to the same bytes. The edit's checksum stops nearly every input, so each is tried a second
 * time as the segments of an edit that this program has made itself. Those edits are written to files, too, which are
 * then damaged as the input says: what is read there is one of the edits, and is the same after recovery has mended.
 */
#include "engine/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define EDITS 3u

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

/* ---- files ---- */

static struct mn_store store = {.io = &mn_io_posix, .uuid = {1, 2, 3}, .dim = 4};

static void remove_dir(void)
{
    MN_ASSERT(mn_io_remove_tree(&mn_io_posix, store.dir) == MN_OK);
}

static void make_dir(void)
{
    char path[MN_PATH_MAX];
    snprintf(store.dir, sizeof store.dir, "/dev/shm/fuzz-manifest-%d", (int)getpid());
    MN_ASSERT(mn_io_posix.mkdir(store.dir) == MN_OK && atexit(remove_dir) == 0);
    MN_ASSERT(mn_io_posix.mkdir(mn_store_path(&store, path, "quarantine")) == MN_OK);
}

/* Each of the edits has one segment more. */
static void write_edits(struct mn_manifest_segment *segments, uint32_t count)
{
    char path[MN_PATH_MAX];
    for (uint32_t copy = 0; copy < MN_MANIFEST_COPIES; copy++)
        unlink(mn_store_path(&store, path, mn_manifest_names[copy]));
    struct mn_manifest manifest = {.segments = segments};
    for (uint32_t edit = 0; edit < EDITS; edit++) {
        manifest.segment_count = edit < count ? edit : count;
        MN_ASSERT(mn_manifest_append(&manifest, &store) == MN_OK);
    }
}

/* Three bytes a change: where (of 2^16 parts of the file; the top bit: of which copy), and what is done there. */
static void damage(const uint8_t *changes, size_t size)
{
    char path[MN_PATH_MAX];
    for (size_t at = 0; at + 3 <= size && at < 24; at += 3) {
        uint32_t where = changes[at] | (uint32_t)(changes[at + 1] & 0x7f) << 8;
        FILE *file = fopen(mn_store_path(&store, path, mn_manifest_names[changes[at + 1] >> 7]), "r+");
        MN_ASSERT(file && fseek(file, 0, SEEK_END) == 0);
        long bytes = ftell(file), place = bytes * (long)where / 0x8000;
        if (changes[at + 2] == 0xff) {
            MN_ASSERT(ftruncate(fileno(file), place) == 0);
        } else {
            MN_ASSERT(fseek(file, place, SEEK_SET) == 0 && fputc(changes[at + 2], file) != EOF);
        }
        MN_ASSERT(fclose(file) == 0);
    }
}

static void read_files(const uint8_t *data, size_t size, struct mn_manifest_segment *segments, uint32_t count)
{
    struct mn_manifest manifest, again;
    struct mn_manifest_report report;
    if (!store.dir[0])
        make_dir();
    write_edits(segments, count);
    damage(data, size);
    enum mn_status status = mn_manifest_read(&manifest, &store, &report);
    MN_ASSERT(status == MN_OK || mn_error_text()[0]);
    if (status == MN_OK) {
        MN_ASSERT(manifest.edit <= EDITS && manifest.segment_count <= EDITS);
        mn_manifest_mend(&store);
        MN_ASSERT(mn_manifest_read(&again, &store, &report) == MN_OK && again.edit == manifest.edit);
        MN_ASSERT(report.copies[0].edit == again.edit && report.copies[1].edit == again.edit);
        mn_manifest_free(&again);
    }
    mn_manifest_free(&manifest);
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
    read_files(data, size, made.segments, made.segment_count);
    free(copy);
    return 0;
}
