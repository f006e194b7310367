/*
 * manifest.c - MANIFEST: reading the newest edit out of whatever the file holds, and appending the next.
 *
 * The file is a row of frames. Each edit is written as two equal frames by one write: a flipped bit in the newest edit
 * then costs nothing, though everything that it replaced may be gone already. A frame names the frame of the edit
 * before it by checksum (the chain), so that a lost or swapped edit in the middle shows.
 *
 *   frame = head { magic, uuid, bytes of the edit, chain, checksum } | edit (manifest_edit.c), with zeros to 8 bytes
 *
 * A file whose end is torn, or that is damaged or behind the other copy, is never written on: the next edit goes to a
 * fresh file that replaces it.
 */
#include "engine/manifest.h"

#include <stdlib.h>

#include "engine/crc.h"
#include "engine/fault.h"
#include "engine/quarantine.h"

#define FRAME_MAGIC UINT64_C(0x314d415246584e01)
#define FILE_MAX    (64u << 20) /* two frames of the longest edit, and MN_MANIFEST_ROLL */
#define SECTOR      512u

struct frame_head {
    uint64_t magic;
    uint8_t uuid[16];
    uint64_t bytes;    /* of the edit */
    uint32_t chain;    /* the checksum of the edit before; 0 = there is none */
    uint32_t checksum; /* of this head up to here, then of the edit and its padding */
};
_Static_assert(sizeof(struct frame_head) == 40, "on disk");

/* ---- a file ---- */

/* What a scan of a file found. */
struct scan {
    uint8_t *data; /* owned; NULL: there is no file */
    size_t bytes;
    struct mn_manifest newest; /* edit 0: none */
    uint32_t chain;            /* checksum of its frame */
    uint32_t frames;           /* of it that are whole: both, or one */
    size_t newest_at;          /* where the first of those begins */
    size_t end;                /* behind the last valid frame */
    struct mn_manifest_copy report;
};

static uint32_t frame_checksum(const struct frame_head *head, const void *edit)
{
    uint32_t crc = mn_crc32c(0, head, offsetof(struct frame_head, checksum));
    return mn_crc32c(crc, edit, mn_round_up(head->bytes, 8));
}

/* True when a whole, valid frame of this store begins at `at`; fills head. */
static bool frame_at(const struct scan *scan, const struct mn_store *store, size_t at, struct frame_head *head)
{
    if (scan->bytes - at < sizeof *head)
        return false;
    memcpy(head, scan->data + at, sizeof *head);
    if (head->magic != FRAME_MAGIC || head->bytes > scan->bytes ||
        mn_round_up(head->bytes, 8) > scan->bytes - at - sizeof *head)
        return false;
    return memcmp(head->uuid, store->uuid, sizeof head->uuid) == 0 &&
           head->checksum == frame_checksum(head, scan->data + at + sizeof *head);
}

/* Takes a valid frame in. `gap`: bytes before it were not part of a valid one. */
static enum mn_status take_frame(struct scan *scan, size_t at, const struct frame_head *head, bool gap)
{
    struct mn_manifest edit;
    MN_TRY(mn_manifest_decode(&edit, scan->data + at + sizeof *head, head->bytes));
    bool copy = edit.edit == scan->newest.edit && head->checksum == scan->chain;
    if (gap || (!copy && scan->newest.edit != 0 && head->chain != scan->chain))
        scan->report.damaged_edits++;
    scan->end = at + sizeof *head + mn_round_up(head->bytes, 8);
    scan->frames += copy;
    if (edit.edit < scan->newest.edit || copy) {
        mn_manifest_free(&edit);
        return MN_OK;
    }
    mn_manifest_free(&scan->newest);
    scan->newest = edit;
    scan->frames = 1;
    scan->newest_at = at;
    scan->chain = head->checksum;
    return MN_OK;
}

/* True when the bytes behind `at` look like a write that did not finish: shorter than what they begin, or with a sector
 * that is still zero. Anything else was written in full and has changed since. */
static bool torn_end(const struct scan *scan, size_t at, const struct mn_store *store)
{
    struct frame_head head;
    if (scan->bytes - at < sizeof head)
        return true;
    memcpy(&head, scan->data + at, sizeof head);
    bool plausible = head.magic == FRAME_MAGIC && memcmp(head.uuid, store->uuid, sizeof head.uuid) == 0;
    if (plausible && head.bytes < FILE_MAX && at + sizeof head + mn_round_up(head.bytes, 8) > scan->bytes)
        return true;
    for (size_t begin = at, end; begin < scan->bytes; begin = end) {
        end = (begin / SECTOR + 1) * SECTOR;
        if (end > scan->bytes)
            end = scan->bytes;
        size_t zeros = 0;
        while (begin + zeros < end && scan->data[begin + zeros] == 0)
            zeros++;
        if (begin + zeros == end)
            return true;
    }
    return false;
}

/* Behind the first frame of an edit its second one was being written: the same bytes, or zeros. */
static bool torn_twin(const struct scan *scan)
{
    size_t frame_bytes = scan->end - scan->newest_at, tail = scan->bytes - scan->end;
    for (size_t i = 0; i < tail && i < frame_bytes; i++) {
        uint8_t byte = scan->data[scan->end + i];
        if (byte != 0 && byte != scan->data[scan->newest_at + i])
            return false;
    }
    return tail <= frame_bytes;
}

static enum mn_status scan_frames(struct scan *scan, const struct mn_store *store)
{
    struct frame_head head;
    bool gap = false;
    for (size_t at = 0; at < scan->bytes;) {
        if (!frame_at(scan, store, at, &head)) {
            /* Not the end: frames begin at multiples of 8, so a valid one may follow. */
            gap = true;
            at += 8;
            continue;
        }
        MN_TRY(take_frame(scan, at, &head, gap));
        gap = false;
        at = scan->end;
    }
    if (scan->end == scan->bytes)
        return MN_OK;
    if (torn_end(scan, scan->end, store) && (scan->frames != 1 || torn_twin(scan)))
        scan->report.torn_bytes = scan->bytes - scan->end;
    else
        scan->report.damaged_edits++;
    return MN_OK;
}

/* An edit that is read is acted upon: files that it does not name are removed. So it must be one that a power cut
 * cannot take back: not one whose writer died before the sync, nor one whose sync failed, which the page cache shows
 * and the disk does not have. */
static enum mn_status settle(const struct mn_store *store, const char *path)
{
    int fd;
    MN_TRY(store->io->open(path, MN_IO_READ, &fd));
    enum mn_status status = store->io->datasync(fd);
    store->io->close(fd);
    return status;
}

/* Reads and scans one file. One that is longer than any that is written holds nothing that counts. */
static enum mn_status scan_file(struct scan *scan, const struct mn_store *store, const char *name)
{
    char path[MN_PATH_MAX];
    void *data = NULL;
    *scan = (struct scan){0};
    enum mn_status status = settle(store, mn_store_path(store, path, name));
    if (status == MN_NOT_FOUND)
        return MN_OK;
    MN_TRY(status);
    status = mn_io_slurp_disk(store->io, path, FILE_MAX, &data, &scan->bytes);
    if (status == MN_TOO_LARGE)
        data = calloc(1, 1);
    else
        MN_TRY(status);
    if (!data)
        return MN_FAIL(MN_SYSTEM, "no memory for %s", path);
    scan->data = data;
    status = scan_frames(scan, store);
    if (status == MN_OK && scan->newest.edit == 0)
        scan->report.damaged_edits++;
    scan->report.edit = scan->newest.edit;
    return status;
}

/* ---- the two of them ---- */

const char *const mn_manifest_names[MN_MANIFEST_COPIES] = {"MANIFEST", "MANIFEST.copy"};

struct copies {
    struct scan scans[MN_MANIFEST_COPIES];
    struct scan *newest; /* the one with the newest edit; of a file that is not there when none is */
};

static void free_copies(struct copies *c)
{
    for (uint32_t i = 0; i < MN_MANIFEST_COPIES; i++) {
        free(c->scans[i].data);
        mn_manifest_free(&c->scans[i].newest);
    }
}

/* An edit goes to the first copy, and when it is whole there to the second. So a torn end of the first is no damage
 * while the second is not past it, and one of the second while the first has the edit that was being written; a second
 * copy that is one edit behind is none either. Whatever else looks unfinished was whole once. */
static void judge_ends(struct copies *c)
{
    const struct scan *scans = c->scans;
    struct mn_manifest_copy *first = &c->scans[0].report, *second = &c->scans[1].report;
    bool half = first->torn_bytes > 0 && scans[0].frames == 1;
    if (!scans[0].data || !scans[1].data)
        return;
    first->damaged_edits += first->torn_bytes > 0 && (first->behind || (half && !second->behind));
    second->damaged_edits += second->torn_bytes > 0 && scans[1].frames == (second->behind ? 1 : 2);
    second->late = second->behind && second->edit + 1 == first->edit;
}

static enum mn_status scan_copies(struct copies *c, const struct mn_store *store)
{
    bool any = false;
    enum mn_status status = MN_OK;
    *c = (struct copies){.newest = &c->scans[0]};
    for (uint32_t i = 0; i < MN_MANIFEST_COPIES; i++) {
        MN_TRY_OUT(scan_file(&c->scans[i], store, mn_manifest_names[i]));
        any |= c->scans[i].data != NULL;
        if (c->scans[i].newest.edit > c->newest->newest.edit)
            c->newest = &c->scans[i];
    }
    for (uint32_t i = 0; i < MN_MANIFEST_COPIES; i++) {
        c->scans[i].report.missing = any && !c->scans[i].data;
        c->scans[i].report.behind = c->scans[i].newest.edit < c->newest->newest.edit;
    }
    judge_ends(c);
    if (any && c->newest->newest.edit == 0)
        status = MN_FAIL(MN_CORRUPT,
                         "%s/MANIFEST holds no valid edit, nor does its copy: restore it from a snapshot of "
                         "this store",
                         store->dir);
out:
    if (status != MN_OK)
        free_copies(c);
    return status;
}

/* True when the file can be written on. */
static bool clean(const struct scan *scan)
{
    return scan->data && !scan->report.behind && scan->end == scan->bytes && scan->report.damaged_edits == 0;
}

enum mn_status mn_manifest_read(struct mn_manifest *manifest, const struct mn_store *store,
                                struct mn_manifest_report *report)
{
    struct copies c;
    *manifest = (struct mn_manifest){0};
    MN_TRY(store->io->sync_dir(store->dir)); /* a replaced file has its name for good */
    MN_TRY(scan_copies(&c, store));
    for (uint32_t i = 0; report && i < MN_MANIFEST_COPIES; i++)
        report->copies[i] = c.scans[i].report;
    *manifest = c.newest->newest;
    manifest->alone = manifest->edit > 0 && !(clean(&c.scans[0]) && clean(&c.scans[1]));
    c.newest->newest = (struct mn_manifest){0};
    free_copies(&c);
    return MN_OK;
}

/* ---- writing ---- */

/* Two frames of manifest->edit in one malloc'd piece. */
static enum mn_status make_frames(const struct mn_manifest *manifest, const struct mn_store *store, uint32_t chain,
                                  uint8_t **frames, size_t *bytes)
{
    void *edit;
    size_t edit_bytes;
    MN_TRY(mn_manifest_encode(manifest, &edit, &edit_bytes));
    size_t frame_bytes = sizeof(struct frame_head) + mn_round_up(edit_bytes, 8);
    uint8_t *out = calloc(2, frame_bytes);
    if (out) {
        struct frame_head head = {.magic = FRAME_MAGIC, .bytes = edit_bytes, .chain = chain};
        memcpy(head.uuid, store->uuid, sizeof head.uuid);
        memcpy(out + sizeof head, edit, edit_bytes);
        head.checksum = frame_checksum(&head, out + sizeof head);
        memcpy(out, &head, sizeof head);
        memcpy(out + frame_bytes, out, frame_bytes);
    }
    free(edit);
    if (!out)
        return MN_FAIL(MN_SYSTEM, "no memory for a manifest edit");
    *frames = out;
    *bytes = 2 * frame_bytes;
    return MN_OK;
}

/* Appends the frames of the next edit to one copy, or makes it anew of them. */
static enum mn_status write_frames(const struct mn_store *store, const struct scan *scan, const char *name,
                                   const uint8_t *frames, size_t bytes)
{
    char path[MN_PATH_MAX];
    mn_store_path(store, path, name);
    if (!clean(scan) || scan->bytes + bytes > MN_MANIFEST_ROLL)
        return mn_io_replace(store->io, path, frames, bytes);
    int fd;
    MN_TRY(store->io->open(path, MN_IO_WRITE, &fd));
    enum mn_status status = MN_OK;
    MN_TRY_OUT(store->io->write(fd, frames, bytes, scan->bytes));
    MN_FAULT_POINT(manifest_after_append);
    if (!MN_BUG(manifest_without_sync))
        MN_TRY_OUT(store->io->datasync(fd));
out:
    store->io->close(fd);
    return status;
}

enum mn_status mn_manifest_append(struct mn_manifest *manifest, const struct mn_store *store)
{
    struct copies c;
    uint8_t *frames = NULL;
    size_t bytes = 0;
    MN_FAULT_POINT(manifest_before_append);
    MN_TRY(scan_copies(&c, store));
    enum mn_status status = MN_OK;
    if (c.newest->newest.edit != manifest->edit) {
        status = MN_FAIL(MN_VERSION_MISMATCH, "the manifest is at edit %llu, the change was made from edit %llu",
                         (unsigned long long)c.newest->newest.edit, (unsigned long long)manifest->edit);
        goto out;
    }
    struct mn_manifest next = *manifest;
    next.edit++;
    MN_TRY_OUT(make_frames(&next, store, c.newest->chain, &frames, &bytes));
    MN_TRY_OUT(write_frames(store, &c.scans[0], mn_manifest_names[0], frames, bytes));
    manifest->edit = next.edit;
    MN_FAULT_POINT(manifest_between_copies);
    /* The edit is durable, whatever becomes of its second copy. */
    manifest->alone = write_frames(store, &c.scans[1], mn_manifest_names[1], frames, bytes) != MN_OK;
    MN_FAULT_POINT(manifest_after_sync);
out:
    free(frames);
    free_copies(&c);
    return status;
}

/* ---- mending ---- */

/* An append that was cut short leaves the second copy one edit behind, or not yet made: that is no damage. */
static bool damaged(const struct copies *c, const struct scan *scan)
{
    uint64_t newest = c->newest->newest.edit;
    return (scan->report.missing && newest > 1) || scan->report.damaged_edits > 0 || newest > scan->newest.edit + 1;
}

/* Makes a copy anew, of the other one or of the edit alone. */
static enum mn_status replace_copy(const struct copies *c, const struct mn_store *store, uint32_t copy)
{
    const struct scan *other = &c->scans[1 - copy];
    char path[MN_PATH_MAX];
    uint8_t *frames = NULL;
    size_t bytes = 0;
    mn_store_path(store, path, mn_manifest_names[copy]);
    if (clean(other))
        return mn_io_replace(store->io, path, other->data, other->bytes);
    MN_TRY(make_frames(&c->newest->newest, store, 0, &frames, &bytes));
    enum mn_status status = mn_io_replace(store->io, path, frames, bytes);
    free(frames);
    return status;
}

enum mn_status mn_manifest_rejoin(struct mn_manifest *manifest, const struct mn_store *store)
{
    struct copies c;
    MN_TRY(scan_copies(&c, store));
    enum mn_status status = MN_OK;
    for (uint32_t i = 0; i < MN_MANIFEST_COPIES; i++)
        if (!clean(&c.scans[i]))
            MN_TRY_OUT(replace_copy(&c, store, i));
    manifest->alone = false;
out:
    free_copies(&c);
    return status;
}

static enum mn_status mend_copy(const struct copies *c, const struct mn_store *store, uint32_t copy)
{
    const struct scan *scan = &c->scans[copy];
    if (damaged(c, scan))
        MN_TRY(mn_quarantine_healed(store, mn_manifest_names[copy], c->newest->newest.edit, 0, scan->data, scan->bytes,
                                    scan->data ? "a copy of the manifest was damaged; it was made anew of the other"
                                               : "a copy of the manifest was missing; it was made anew of the other"));
    return replace_copy(c, store, copy);
}

void mn_manifest_mend(const struct mn_store *store)
{
    struct copies c;
    enum mn_status status = scan_copies(&c, store);
    if (status != MN_OK)
        return; /* whoever reads it says why */
    for (uint32_t i = 0; i < MN_MANIFEST_COPIES && c.newest->newest.edit > 0; i++)
        if (!clean(&c.scans[i]) && mend_copy(&c, store, i) != MN_OK)
            break;
    free_copies(&c);
}
