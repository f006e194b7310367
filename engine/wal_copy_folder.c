/*
 * wal_copy_folder.c - the second folder of the log: whose it is, made when missing, refused when it is somebody else's.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/crc.h"
#include "engine/wal.h"
#include "engine/wal_copy.h"
#include "shm/process.h"

#define MARK_BYTES_MAX 8192u

/* What a COPY file says. In the store `path` is the copy's folder, in the copy it is the store's. */
struct mark {
    uint8_t uuid[16], pair[16];
    char path[MN_PATH_MAX / 2];
};

/* ---- the two marks ---- */

static enum mn_status write_mark(const struct mn_store *in, const struct mark *mark)
{
    char path[MN_PATH_MAX], text[MARK_BYTES_MAX], uuid[37], pair[37];
    mn_uuid_text(mark->uuid, uuid);
    mn_uuid_text(mark->pair, pair);
    int n = snprintf(text, sizeof text, "mneme log copy\nuuid=%s\npair=%s\npath=%s\n", uuid, pair, mark->path);
    n += snprintf(text + n, sizeof text - (size_t)n, "crc32c=%08x\n", mn_crc32c(0, text, (size_t)n));
    return mn_io_replace(in->io, mn_store_path(in, path, "COPY"), text, (size_t)n);
}

static bool parse_mark(char *text, size_t bytes, struct mark *mark)
{
    char uuid[37], pair[37], expected[32];
    int end = 0;
    char *sum = strstr(text, "\ncrc32c=");
    if (!sum || strlen(text) != bytes)
        return false;
    snprintf(expected, sizeof expected, "crc32c=%08x\n", mn_crc32c(0, text, (size_t)(sum + 1 - text)));
    if (strcmp(sum + 1, expected) != 0 ||
        sscanf(text, "mneme log copy\nuuid=%36[^\n]\npair=%36[^\n]\npath=%n", uuid, pair, &end) != 2 || end == 0)
        return false;
    int length = snprintf(mark->path, sizeof mark->path, "%.*s", (int)(sum - (text + end)), text + end);
    return (size_t)length < sizeof mark->path && mn_uuid_parse(uuid, 36, mark->uuid) &&
           mn_uuid_parse(pair, 36, mark->pair);
}

static enum mn_status read_mark(const struct mn_store *in, struct mark *mark)
{
    char path[MN_PATH_MAX];
    void *text;
    size_t bytes;
    enum mn_status status = mn_io_slurp(in->io, mn_store_path(in, path, "COPY"), MARK_BYTES_MAX - 1, &text, &bytes);
    if (status == MN_TOO_LARGE)
        return MN_FAIL(MN_CORRUPT, "%s is too long", path);
    MN_TRY(status);
    bool whole = parse_mark(text, bytes, mark);
    free(text);
    return whole ? MN_OK : MN_FAIL(MN_CORRUPT, "%s does not match its checksum", path);
}

/* ---- whose folder it is ---- */

struct look {
    bool foreign, segments;
};

static enum mn_status look_at_name(void *context, const char *name)
{
    static const char *const ours[] = {"COPY", "COPY.tmp", "LOCK", "wal", "lost+found"};
    struct look *look = context;
    bool known = false;
    for (size_t i = 0; i < MN_ARRAY_LEN(ours); i++)
        known |= strcmp(name, ours[i]) == 0;
    look->foreign |= !known;
    return MN_OK;
}

static enum mn_status look_at_segment(void *context, const char *name)
{
    struct look *look = context;
    look->segments |= strstr(name, ".wal") != NULL;
    return MN_OK;
}

static enum mn_status look_into(const struct mn_store *copy, struct look *look)
{
    char path[MN_PATH_MAX];
    *look = (struct look){0};
    MN_TRY(copy->io->list(copy->dir, look_at_name, look));
    enum mn_status status = copy->io->list(mn_store_path(copy, path, "wal"), look_at_segment, look);
    return status == MN_NOT_FOUND ? MN_OK : status;
}

/* Whether the folder, which is there, may be this store's copy. *ours: its mark is, too; *pair: of the two, when they
 * have one. */
static enum mn_status judge_folder(const struct mn_copy_folder *f, bool *ours, bool *holds, uint8_t pair[16])
{
    struct mark note, mark;
    struct look look;
    enum mn_status noted = read_mark(&f->home, &note), marked = read_mark(&f->copy, &mark);
    if (noted != MN_OK && noted != MN_NOT_FOUND && noted != MN_CORRUPT)
        return noted;
    if (marked != MN_OK && marked != MN_NOT_FOUND && marked != MN_CORRUPT)
        return marked;
    MN_TRY(look_into(&f->copy, &look));
    *holds = look.segments;
    *ours = false;
    if (noted == MN_OK)
        memcpy(pair, note.pair, 16);
    else
        MN_TRY(mn_uuid_make(pair));
    if (marked != MN_OK) {
        bool known = noted == MN_OK && strcmp(note.path, f->copy.dir) == 0;
        return known || !(look.foreign || look.segments)
                   ? MN_OK
                   : MN_FAIL(MN_EXISTS, "store.copy_dir %s holds other files: give a new or empty folder", f->copy.dir);
    }
    if (memcmp(mark.uuid, f->home.uuid, 16) != 0)
        return MN_FAIL(MN_EXISTS, "store.copy_dir %s holds the log of another store (%s): give this one its own",
                       f->copy.dir, mark.path);
    *ours = noted == MN_OK && memcmp(note.pair, mark.pair, 16) == 0;
    if (noted == MN_CORRUPT && strcmp(mark.path, f->home.dir) == 0) {
        memcpy(pair, mark.pair, 16);
        *ours = true;
    }
    return *ours || !look.segments
               ? MN_OK
               : MN_FAIL(MN_EXISTS,
                         "store.copy_dir %s holds the log of %s, a store of the same name that this one does not "
                         "write to: move it away, or give an empty folder",
                         f->copy.dir, mark.path);
}

static enum mn_status name_folder(struct mn_copy_folder *f, const struct mn_store *store, const char *dir)
{
    f->home = f->copy = *store;
    size_t n = (size_t)snprintf(f->copy.dir, sizeof f->copy.dir, "%s", dir);
    if (n >= sizeof f->copy.dir)
        return MN_FAIL(MN_USAGE, "store.copy_dir has more than %zu bytes", sizeof f->copy.dir - 1);
    while (n > 1 && f->copy.dir[n - 1] == '/')
        f->copy.dir[--n] = 0;
    return MN_OK;
}

enum mn_status mn_copy_folder_noted(struct mn_copy_folder *folder, const struct mn_store *store)
{
    struct mark note;
    *folder = (struct mn_copy_folder){.home = *store, .lock_fd = -1};
    MN_TRY(read_mark(store, &note));
    memcpy(folder->pair, note.pair, 16);
    return name_folder(folder, store, note.path);
}

enum mn_status mn_copy_folder_check(const struct mn_store *store, const struct mn_settings *settings)
{
    struct mn_copy_folder f = {.lock_fd = -1};
    const char *dir = settings->store_copy_dir;
    size_t length = strlen(store->dir);
    bool ours, holds;
    if (settings->store_copies < 2)
        return MN_OK;
    if (dir[0] != '/')
        return MN_FAIL(MN_USAGE, "store.copies = 2 needs store.copy_dir, an absolute path of a folder on another disk");
    if (strncmp(dir, store->dir, length) == 0 && (dir[length] == '/' || dir[length] == 0))
        return MN_FAIL(MN_USAGE, "store.copy_dir %s lies in the data folder: give a folder on another disk", dir);
    MN_TRY(name_folder(&f, store, dir));
    enum mn_status status = judge_folder(&f, &ours, &holds, f.pair);
    return status == MN_EXISTS ? MN_EXISTS : MN_OK;
}

/* ---- entering and leaving ---- */

static enum mn_status make_folder(const struct mn_io *io, const char *path)
{
    enum mn_status status = io->mkdir(path);
    return status == MN_EXISTS ? MN_OK : status;
}

static enum mn_status note_folder(const struct mn_copy_folder *f)
{
    struct mark note, wanted = {0};
    memcpy(wanted.uuid, f->home.uuid, 16);
    memcpy(wanted.pair, f->pair, 16);
    snprintf(wanted.path, sizeof wanted.path, "%s", f->copy.dir);
    if (read_mark(&f->home, &note) == MN_OK && memcmp(note.uuid, wanted.uuid, 16) == 0 &&
        memcmp(note.pair, wanted.pair, 16) == 0 && strcmp(note.path, wanted.path) == 0)
        return MN_OK;
    return write_mark(&f->home, &wanted);
}

static enum mn_status enter(struct mn_copy_folder *f)
{
    char path[MN_PATH_MAX];
    bool ours, holds;
    struct mark mark = {0};
    MN_TRY(make_folder(f->copy.io, f->copy.dir));
    MN_TRY(judge_folder(f, &ours, &holds, f->pair));
    enum mn_status status = mn_store_lock(mn_store_path(&f->copy, path, "LOCK"), &f->lock_fd);
    if (status == MN_BUSY)
        return MN_FAIL(MN_BUSY, "another process writes to store.copy_dir %s", f->copy.dir);
    MN_TRY(status);
    MN_TRY(make_folder(f->copy.io, mn_store_path(&f->copy, path, "wal")));
    f->fresh = !holds;
    if (!ours) {
        memcpy(mark.uuid, f->home.uuid, 16);
        memcpy(mark.pair, f->pair, 16);
        snprintf(mark.path, sizeof mark.path, "%s", f->home.dir);
        MN_TRY(write_mark(&f->copy, &mark));
    }
    MN_TRY(f->copy.io->sync_dir(path));
    return note_folder(f);
}

enum mn_status mn_copy_folder_enter(struct mn_copy_folder *folder, const struct mn_store *store, const char *dir)
{
    *folder = (struct mn_copy_folder){.lock_fd = -1};
    MN_TRY(name_folder(folder, store, dir));
    enum mn_status status = enter(folder);
    if (status != MN_OK)
        mn_copy_folder_leave(folder);
    return status;
}

enum mn_status mn_copy_folder_rejoin(struct mn_copy_folder *folder, const struct mn_store *store)
{
    char path[MN_PATH_MAX];
    struct mark mark;
    struct look look;
    MN_TRY(mn_copy_folder_noted(folder, store));
    enum mn_status status = look_into(&folder->copy, &look);
    if (status == MN_NOT_FOUND || (status == MN_OK && !look.segments))
        return MN_FAIL(MN_UNAVAILABLE, "the second copy of the log in %s is missing", folder->copy.dir);
    MN_TRY(status);
    /* A mark that is lost says nothing; the note does, and each segment names its store. */
    if (read_mark(&folder->copy, &mark) == MN_OK && memcmp(mark.pair, folder->pair, 16) != 0)
        return MN_FAIL(MN_EXISTS, "%s holds another copy of the log than the one that was written here",
                       folder->copy.dir);
    status = mn_store_lock(mn_store_path(&folder->copy, path, "LOCK"), &folder->lock_fd);
    return status == MN_BUSY ? MN_FAIL(MN_BUSY, "another process writes to %s", folder->copy.dir) : status;
}

bool mn_copy_folder_stands(const struct mn_copy_folder *folder)
{
    struct stat held, there;
    char path[MN_PATH_MAX];
    return folder->lock_fd >= 0 && fstat(folder->lock_fd, &held) == 0 &&
           stat(mn_store_path(&folder->copy, path, "LOCK"), &there) == 0 && held.st_dev == there.st_dev &&
           held.st_ino == there.st_ino;
}

void mn_copy_folder_leave(struct mn_copy_folder *folder)
{
    if (folder->lock_fd >= 0)
        close(folder->lock_fd);
    folder->lock_fd = -1;
}

enum mn_status mn_copy_folder_drop(const struct mn_store *store, char *dir)
{
    struct mn_copy_folder f;
    struct mark mark;
    char path[MN_PATH_MAX];
    enum mn_status status = mn_copy_folder_noted(&f, store);
    dir[0] = 0;
    if (status == MN_NOT_FOUND)
        return MN_OK;
    /* As far as it can be reached. The folder itself may be a mount point, and stays. */
    if (status == MN_OK && read_mark(&f.copy, &mark) == MN_OK && memcmp(mark.pair, f.pair, 16) == 0 &&
        mn_io_remove_tree(store->io, mn_store_path(&f.copy, path, "wal")) == MN_OK)
        (void)store->io->unlink(mn_store_path(&f.copy, path, "COPY"));
    if (f.copy.dir[0])
        snprintf(dir, MN_PATH_MAX, "%s", f.copy.dir);
    MN_TRY(store->io->unlink(mn_store_path(store, path, "COPY")));
    return store->io->sync_dir(store->dir);
}

/* ---- verify ---- */

enum mn_status mn_copy_folder_verify(const struct mn_store *store, uint64_t number, uint64_t durable_seq,
                                     uint64_t *bytes, mn_damage_fn damaged, void *context)
{
    struct mn_copy_folder f;
    struct mn_wal_segment original;
    char path[MN_PATH_MAX];
    enum mn_status status = mn_copy_folder_noted(&f, store);
    if (status == MN_NOT_FOUND)
        return MN_OK;
    if (status == MN_CORRUPT) {
        damaged(context, mn_store_path(store, path, "COPY"), mn_error_text());
        return MN_OK;
    }
    MN_TRY(status);
    status = mn_wal_map(&original, store, number);
    bool unused = status == MN_OK && original.unused;
    mn_wal_unmap(&original);
    if (unused)
        return MN_OK; /* no twin is needed before it is begun */
    status = mn_wal_verify(&f.copy, number, durable_seq, bytes, damaged, context);
    if (status == MN_NOT_FOUND) {
        damaged(context, mn_store_wal_path(&f.copy, path, number), "the second copy of a log segment is missing");
        return MN_OK;
    }
    return status;
}
