/*
 * wal_copy_heal.c - recovery's side of the log's second copy: what is damaged, short or missing in one folder is taken
 * from the other, before anything is read.
 *
 * A segment and its twin hold the same bytes. Where they differ, batches decide: one that is whole in either goes into
 * both; of a batch that is damaged in both, each record that is whole in either. What is left then is the same in both
 * folders, and recovery judges it like any damage. Files are read, not mapped, and what cannot be read counts as
 * zeros: a bad disk block is damage and no signal.
 *
 * The copy's folder may fail at any of this: that is noted, and the writer brings it up to date later. The store's own
 * may not.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/fault.h"
#include "engine/quarantine.h"
#include "engine/wal.h"
#include "engine/wal_copy.h"

#define PIECE_BYTES (1u << 20)
#define TEMPORARY   ".mend" /* as the mender's: what a try that died has left is removed with its own */

/* One of the two: the file's bytes, as they are and as they will be. */
struct side {
    const struct mn_store *in;
    uint64_t number;
    uint64_t file_bytes; /* 0 = there is none */
    uint8_t *data;       /* `bytes` of them; zeros where the file has none */
    uint64_t bytes;
    bool unreadable; /* in part */
    struct mn_wal_segment segment;
    struct mn_wal_extent extent;
    struct mn_wal_damage *damages;
    uint32_t damage_count, damage_max;
    bool header_lost, harmed; /* harmed: something was damaged, not merely never written */
    uint64_t changed_from, changed_to;
};

/* ---- reading ---- */

static enum mn_status open_side(struct side *s, int *fd)
{
    char path[MN_PATH_MAX];
    enum mn_status status = s->in->io->open(mn_store_wal_path(s->in, path, s->number), MN_IO_WRITE, fd);
    s->file_bytes = 0;
    if (status == MN_NOT_FOUND)
        return MN_OK;
    MN_TRY(status);
    status = s->in->io->datasync(*fd); /* the cache may show what the disk lost: it is written down before it is used */
    if (status == MN_OK)
        status = s->in->io->size(*fd, &s->file_bytes);
    if (status != MN_OK) {
        s->in->io->close(*fd);
        *fd = -1;
    }
    return status;
}

/* True when both files are there and hold the same. */
static bool same_bytes(const struct side *a, int a_fd, const struct side *b, int b_fd)
{
    uint8_t *buffer = malloc(UINT64_C(2) * PIECE_BYTES);
    bool same = buffer && a->file_bytes == b->file_bytes;
    for (uint64_t at = 0; same && at < a->file_bytes; at += PIECE_BYTES) {
        uint64_t bytes = a->file_bytes - at < PIECE_BYTES ? a->file_bytes - at : PIECE_BYTES;
        same = a->in->io->read(a_fd, buffer, bytes, at) == MN_OK &&
               b->in->io->read(b_fd, buffer + PIECE_BYTES, bytes, at) == MN_OK &&
               memcmp(buffer, buffer + PIECE_BYTES, bytes) == 0;
    }
    free(buffer);
    return same;
}

static enum mn_status load(struct side *s, int fd, uint64_t bytes)
{
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED)
        return MN_FAIL_ERRNO("no memory for log segment %" PRIu64, s->number);
    s->data = data;
    s->bytes = bytes;
    for (uint64_t at = 0; at < s->file_bytes && at < bytes; at += MN_WAL_BLOCK) {
        uint64_t left = s->file_bytes - at < bytes - at ? s->file_bytes - at : bytes - at;
        if (s->in->io->read(fd, s->data + at, left < MN_WAL_BLOCK ? left : MN_WAL_BLOCK, at) != MN_OK)
            s->unreadable = true;
    }
    return MN_OK;
}

/* ---- headers ---- */

static const struct mn_wal_header *header_of(const struct side *s, int which)
{
    const struct mn_wal_header *h = (const void *)(s->data + (which ? s->bytes - MN_WAL_BLOCK : 0));
    return mn_wal_header_valid(h, s->in->uuid, s->number, s->bytes) ? h : NULL;
}

/* The length that a whole header in the first block of a file gives; 0 = there is none. */
static uint64_t told_length(const struct side *s, int fd)
{
    struct mn_wal_header h;
    if (s->file_bytes < sizeof h || s->in->io->read(fd, &h, sizeof h, 0) != MN_OK)
        return 0;
    return mn_wal_header_valid(&h, s->in->uuid, s->number, h.bytes) ? h.bytes : 0;
}

static void change(struct side *s, uint64_t at, const void *bytes, uint64_t length)
{
    if (length == 0 || memcmp(s->data + at, bytes, length) == 0)
        return;
    memcpy(s->data + at, bytes, length);
    if (s->changed_to == 0 || at < s->changed_from)
        s->changed_from = at;
    if (at + length > s->changed_to)
        s->changed_to = at + length;
}

/* A header in each of the four places. A block of zeros lacks it innocently: it never landed. */
static bool heal_headers(struct side *a, struct side *b)
{
    uint8_t block[MN_WAL_BLOCK] = {0};
    const struct mn_wal_header *h = NULL;
    struct side *sides[] = {a, b};
    for (int i = 0; i < 4 && !h; i++)
        h = header_of(sides[i / 2], i % 2);
    if (!h)
        return false;
    memcpy(block, h, sizeof *h);
    for (int i = 0; i < 4; i++) {
        struct side *s = sides[i / 2];
        uint64_t at = i % 2 ? s->bytes - MN_WAL_BLOCK : 0;
        bool whole = memcmp(s->data + at, block, sizeof block) == 0;
        bool another = header_of(s, i % 2) && header_of(s, i % 2)->salt != h->salt; /* of another life: see merge */
        s->harmed |= !whole && !mn_wal_zero(s->data + at, MN_WAL_BLOCK);
        if (!whole && !another)
            change(s, at, block, sizeof block);
    }
    return true;
}

/* ---- batches ---- */

static enum mn_status pass_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    return MN_OK;
}

static enum mn_status add_damage(void *context, const struct mn_wal_segment *segment,
                                 const struct mn_wal_damage *damage)
{
    struct side *s = context;
    if (s->damage_count == s->damage_max) {
        uint32_t max = s->damage_max ? s->damage_max * 2 : 8;
        struct mn_wal_damage *damages = realloc(s->damages, max * sizeof *damages);
        if (!damages)
            return MN_FAIL(MN_INTERNAL, "no memory for the damages of a log segment");
        s->damages = damages;
        s->damage_max = max;
    }
    s->damages[s->damage_count++] = *damage;
    s->harmed |= damage->salvaged;
    return MN_OK;
}

static enum mn_status scan_side(struct side *s)
{
    struct mn_wal_visitor visitor = {.context = s, .record = pass_record, .damage = add_damage};
    s->segment = (struct mn_wal_segment){.store = s->in, .number = s->number, .bytes = s->bytes, .base = s->data};
    memcpy(&s->segment.header, s->data, sizeof s->segment.header);
    s->damage_count = 0;
    return mn_wal_scan(&s->segment, &visitor, &s->extent);
}

static bool damaged_in(const struct side *s, uint64_t from, uint64_t to)
{
    for (uint32_t i = 0; i < s->damage_count; i++)
        if (s->damages[i].offset < to && s->damages[i].offset + s->damages[i].bytes > from)
            return true;
    return false;
}

/* Stretches that are damaged here and whole there; and what was never written here. Whole batches of `from` reach up to
 * its end: behind that it has nothing to give. */
static void take_batches(struct side *to, const struct side *from)
{
    for (uint32_t i = 0; i < to->damage_count; i++) {
        const struct mn_wal_damage *d = &to->damages[i];
        uint64_t end = d->offset + d->bytes < from->extent.end ? d->offset + d->bytes : from->extent.end;
        if (d->offset < end && !damaged_in(from, d->offset, end))
            change(to, d->offset, from->data + d->offset, end - d->offset);
    }
    if (to->extent.end < from->extent.end)
        change(to, to->extent.end, from->data + to->extent.end, from->extent.end - to->extent.end);
}

/* ---- records of batches that are damaged in both ---- */

struct lending {
    struct side *to;
};

static enum mn_status lend_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    struct side *to = ((struct lending *)context)->to;
    uint64_t bytes = sizeof *record + record->payload_bytes;
    const struct mn_record *there = (const void *)(to->data + offset);
    uint32_t salt = segment->header.salt;
    if (damaged_in(to, offset, offset + bytes) &&
        !(mn_record_header_valid(there, salt, offset, to->bytes) && mn_record_payload_valid(there, salt, offset)))
        change(to, offset, record, bytes);
    return MN_OK;
}

static enum mn_status take_records(struct side *to, const struct side *from)
{
    struct lending lending = {to};
    struct mn_wal_extent extent;
    struct mn_wal_visitor visitor = {.context = &lending, .record = lend_record};
    return to->damage_count == 0 ? MN_OK : mn_wal_scan(&from->segment, &visitor, &extent);
}

/* Both sides hold the best of both then. */
static enum mn_status merge(struct side *home, struct side *twin)
{
    if (home->segment.header.salt != twin->segment.header.salt) {
        twin->harmed = true; /* a twin of another life */
        change(twin, 0, home->data, home->bytes);
        return MN_OK;
    }
    take_batches(home, twin);
    take_batches(twin, home);
    MN_TRY(scan_side(home));
    MN_TRY(scan_side(twin));
    MN_TRY(take_records(home, twin));
    change(twin, 0, home->data, home->bytes);
    return MN_OK;
}

/* ---- writing back ---- */

static enum mn_status write_file(const struct side *s, const char *path)
{
    const struct mn_io *io = s->in->io;
    int fd;
    enum mn_status status = io->unlink(path);
    if (status != MN_OK && status != MN_NOT_FOUND)
        return status;
    MN_TRY(io->open(path, MN_IO_WRITE | MN_IO_CREATE, &fd));
    status = io->reserve(fd, s->bytes);
    for (uint64_t at = 0; status == MN_OK && at < s->bytes; at += PIECE_BYTES)
        status = io->write(fd, s->data + at, s->bytes - at < PIECE_BYTES ? s->bytes - at : PIECE_BYTES, at);
    if (status == MN_OK)
        status = io->datasync(fd);
    io->close(fd);
    return status;
}

static enum mn_status replace_file(const struct side *s)
{
    char path[MN_PATH_MAX], temporary[MN_PATH_MAX], folder[MN_PATH_MAX];
    mn_store_wal_path(s->in, path, s->number);
    strcat(mn_store_wal_path(s->in, temporary, s->number), TEMPORARY);
    enum mn_status status = write_file(s, temporary);
    if (status == MN_OK) {
        MN_FAULT_POINT(recovery_healed);
        status = s->in->io->rename(temporary, path);
    }
    if (status != MN_OK) {
        char why[256];
        snprintf(why, sizeof why, "%s", mn_error_text());
        status = s->in->io->unlink(temporary) == MN_OK ? status : MN_SYSTEM; /* gives its space back */
        return MN_FAIL(status, "%s", why);
    }
    MN_FAULT_POINT(recovery_healed_renamed);
    return s->in->io->sync_dir(mn_store_path(s->in, folder, "wal"));
}

/* What stood in the file before goes to quarantine, as far as it was changed. */
static enum mn_status keep_damage(const struct side *s, const struct mn_store *home, bool is_home)
{
    uint64_t end = s->changed_to < s->file_bytes ? s->changed_to : s->file_bytes;
    uint64_t bytes = end > s->changed_from ? end - s->changed_from : 0;
    char path[MN_PATH_MAX], reason[MN_PATH_MAX + 128];
    uint8_t *before = malloc(bytes + 1);
    int fd;
    if (!before)
        return MN_FAIL(MN_INTERNAL, "no memory for a damaged piece of the log");
    mn_store_wal_path(s->in, path, s->number);
    enum mn_status status = MN_OK;
    if (s->file_bytes > 0) {
        MN_TRY_OUT(s->in->io->open(path, MN_IO_READ, &fd));
        memset(before, 0, bytes);
        for (uint64_t at = 0; at < bytes; at += MN_WAL_BLOCK) /* what cannot be read stays zero */
            if (s->in->io->read(fd, before + at, bytes - at < MN_WAL_BLOCK ? bytes - at : MN_WAL_BLOCK,
                                s->changed_from + at) != MN_OK)
                continue;
        s->in->io->close(fd);
    }
    snprintf(reason, sizeof reason, "%s was %s, and is healed from the other copy of the log", path,
             s->file_bytes == 0 ? "missing" : "damaged");
    status = mn_quarantine_healed(home, is_home ? "wal" : "copy", s->number, s->changed_from, before, bytes, reason);
out:
    free(before);
    return status;
}

static bool needs_writing(const struct side *s)
{
    return s->changed_to > 0 || s->file_bytes != s->bytes || s->unreadable;
}

/* ---- one segment ---- */

static void release(struct side *s)
{
    if (s->data)
        munmap(s->data, s->bytes);
    free(s->damages);
}

static enum mn_status write_back(struct mn_copy_heal *heal, struct side *home, struct side *twin)
{
    if (needs_writing(home)) {
        if (home->harmed || home->unreadable)
            MN_TRY(keep_damage(home, &heal->folder.home, true));
        mn_wal_make_room(&heal->folder.home, home->bytes);
        MN_TRY(replace_file(home));
        atomic_fetch_add(&heal->healed, 1);
    }
    if (needs_writing(twin) && twin->file_bytes > 0) { /* one that is missing is the writer's to make */
        enum mn_status status = MN_OK;
        if (twin->harmed || twin->unreadable)
            status = keep_damage(twin, &heal->folder.home, false);
        if (status == MN_OK)
            status = replace_file(twin);
        atomic_fetch_add(&heal->mended, status == MN_OK);
        if (status != MN_OK)
            atomic_store(&heal->uncertain, true);
    }
    return MN_OK;
}

static enum mn_status heal_pair(struct mn_copy_heal *heal, struct side *home, int home_fd, struct side *twin,
                                int twin_fd)
{
    uint64_t bytes = told_length(home, home_fd), other = told_length(twin, twin_fd);
    bytes = bytes ? bytes : other;
    if (bytes == 0) /* the first blocks are lost: the last ones tell, if the lengths agree with them */
        bytes = home->file_bytes > twin->file_bytes ? home->file_bytes : twin->file_bytes;
    if (bytes < 2 * MN_WAL_BLOCK || bytes % MN_WAL_BLOCK != 0)
        return MN_OK;
    MN_TRY(load(home, home_fd, bytes));
    MN_TRY(load(twin, twin_fd, bytes));
    home->harmed = home->file_bytes != bytes; /* one that was begun and is missing, too */
    twin->harmed = twin->file_bytes != 0 && twin->file_bytes != bytes;
    if (!heal_headers(home, twin))
        return MN_OK; /* prepared, never begun; or both are beyond help */
    MN_TRY(scan_side(home));
    MN_TRY(scan_side(twin));
    MN_TRY(merge(home, twin));
    return write_back(heal, home, twin);
}

/* Whatever the copy's folder does is noted and no failure. */
static enum mn_status heal_number(struct mn_copy_heal *heal, uint64_t number)
{
    struct side home = {.in = &heal->folder.home, .number = number},
                twin = {.in = &heal->folder.copy, .number = number};
    int home_fd = -1, twin_fd = -1;
    if (open_side(&twin, &twin_fd) != MN_OK) {
        atomic_store(&heal->uncertain, true);
        return MN_OK;
    }
    enum mn_status status = open_side(&home, &home_fd);
    if (status == MN_OK && twin.file_bytes > 0 && !same_bytes(&home, home_fd, &twin, twin_fd))
        status = heal_pair(heal, &home, home_fd, &twin, twin_fd);
    home.in->io->close(home_fd);
    twin.in->io->close(twin_fd);
    release(&home);
    release(&twin);
    return status;
}

enum mn_status mn_copy_heal_segment(struct mn_copy_heal *heal, uint64_t number)
{
    return heal->there ? heal_number(heal, number) : MN_OK;
}

/* ---- all of them ---- */

/* Segments that were begun in the copy and are not in the store at all. */
static enum mn_status bring_back(struct mn_copy_heal *heal, uint64_t wal_first)
{
    uint64_t *numbers;
    uint32_t count;
    if (mn_wal_list(&heal->folder.copy, &numbers, &count) != MN_OK) {
        atomic_store(&heal->uncertain, true);
        return MN_OK;
    }
    enum mn_status status = MN_OK;
    for (uint32_t i = 0; status == MN_OK && i < count; i++) {
        struct mn_wal_segment twin;
        char path[MN_PATH_MAX];
        if (numbers[i] < wal_first ||
            mn_io_file_bytes(heal->folder.home.io, mn_store_wal_path(&heal->folder.home, path, numbers[i])) > 0)
            continue;
        bool begun = mn_wal_map(&twin, &heal->folder.copy, numbers[i]) == MN_OK && !twin.unused;
        mn_wal_unmap(&twin);
        if (begun)
            status = heal_number(heal, numbers[i]);
    }
    free(numbers);
    return status;
}

enum mn_status mn_copy_heal_begin(struct mn_copy_heal *heal, const struct mn_store *store, uint64_t wal_first)
{
    *heal = (struct mn_copy_heal){.folder.lock_fd = -1};
    enum mn_status status = mn_copy_folder_rejoin(&heal->folder, store);
    if (status == MN_NOT_FOUND)
        return MN_OK;
    heal->there = status == MN_OK;
    if (!heal->there) {
        heal->uncertain = true;
        return MN_OK;
    }
    return bring_back(heal, wal_first);
}

void mn_copy_heal_end(struct mn_copy_heal *heal)
{
    mn_copy_folder_leave(&heal->folder);
}
