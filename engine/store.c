/*
 * store.c - STORE (a few lines of text under a checksum), the folder's lock, and the paths of its files.
 */
#include "engine/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/crc.h"
#include "engine/fault.h"
#include "engine/manifest.h"
#include "engine/quarantine.h"
#include "engine/wal.h"
#include "shm/process.h"

#define STORE_BYTES_MAX 4096

const char *const mn_store_names[MN_STORE_COPIES] = {"STORE", "STORE.copy"};

char *mn_store_path(const struct mn_store *store, char *path, const char *name)
{
    snprintf(path, MN_PATH_MAX, "%s/%s", store->dir, name);
    return path;
}

char *mn_store_wal_path(const struct mn_store *store, char *path, uint64_t number)
{
    snprintf(path, MN_PATH_MAX, "%s/wal/%08llu.wal", store->dir, (unsigned long long)number);
    return path;
}

char *mn_store_columns_dir(const struct mn_store *store, char *path, uint64_t segment)
{
    snprintf(path, MN_PATH_MAX, "%s/columns/%llu", store->dir, (unsigned long long)segment);
    return path;
}

char *mn_store_column_path(const struct mn_store *store, char *path, uint64_t segment, const char *column)
{
    snprintf(path, MN_PATH_MAX, "%s/columns/%llu/%s.col", store->dir, (unsigned long long)segment, column);
    return path;
}

static enum mn_status set_dir(struct mn_store *store, const struct mn_io *io, const char *dir)
{
    *store = (struct mn_store){.io = io};
    if ((size_t)snprintf(store->dir, sizeof store->dir, "%s", dir) >= sizeof store->dir)
        return MN_FAIL(MN_USAGE, "the path of the data folder has more than %zu bytes", sizeof store->dir - 1);
    return MN_OK;
}

/* The value of a `key=value` line of STORE as text, or NULL. Changes the text: the line's end becomes NUL. */
static char *line_value(char *text, const char *key)
{
    size_t length = strlen(key);
    for (char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, key, length) == 0 && line[length] == '=')
            return line + length + 1;
    return NULL;
}

static enum mn_status parse_store(struct mn_store *store, char *text, size_t bytes)
{
    char *crc_line = strstr(text, "crc32c="), expected[32] = "";
    if (crc_line)
        snprintf(expected, sizeof expected, "crc32c=%08x\n", mn_crc32c(0, text, (size_t)(crc_line - text)));
    if (!crc_line || strlen(text) != bytes || strcmp(crc_line, expected) != 0)
        return MN_FAIL(MN_CORRUPT,
                       "%s/STORE does not match its checksum, nor does its copy: restore it from a snapshot of "
                       "this store",
                       store->dir);
    const char *format = line_value(text, "format"), *uuid = line_value(text, "uuid"), *dim = line_value(text, "dim"),
               *metric = line_value(text, "metric");
    if (!format || !uuid || !dim || !metric || !mn_uuid_parse(uuid, 36, store->uuid))
        return MN_FAIL(MN_CORRUPT, "%s/STORE lacks one of format, uuid, dim, metric", store->dir);
    if (strtoul(format, NULL, 10) != MN_FORMAT_VERSION)
        return MN_FAIL(MN_CORRUPT, "%s has format version %lu, this program knows %d", store->dir,
                       strtoul(format, NULL, 10), MN_FORMAT_VERSION);
    store->dim = (uint32_t)strtoul(dim, NULL, 10);
    for (unsigned m = 0; m < MN_METRIC_COUNT; m++) {
        const char *word = mn_metric_word(m);
        if (strncmp(metric, word, strlen(word)) == 0 && metric[strlen(word)] == '\n') {
            store->metric = (enum mn_metric)m;
            return store->dim >= 1 && store->dim <= MN_DIM_MAX
                       ? MN_OK
                       : MN_FAIL(MN_CORRUPT, "%s/STORE has dim %u, out of 1..%u", store->dir, store->dim, MN_DIM_MAX);
        }
    }
    return MN_FAIL(MN_CORRUPT, "%s/STORE names a metric that this program does not know", store->dir);
}

/* What one of the copies says. */
static enum mn_status read_copy(struct mn_store *store, const struct mn_io *io, const char *dir, uint32_t copy)
{
    char path[MN_PATH_MAX];
    void *text;
    size_t bytes;
    MN_TRY(set_dir(store, io, dir));
    enum mn_status status =
        mn_io_slurp(io, mn_store_path(store, path, mn_store_names[copy]), STORE_BYTES_MAX, &text, &bytes);
    if (status == MN_TOO_LARGE)
        return MN_FAIL(MN_CORRUPT, "%s is longer than it can be", path);
    MN_TRY(status);
    status = parse_store(store, text, bytes);
    free(text);
    return status;
}

static bool same(const struct mn_store *a, const struct mn_store *b)
{
    return memcmp(a->uuid, b->uuid, sizeof a->uuid) == 0 && a->dim == b->dim && a->metric == b->metric;
}

/* True when the log or the manifest is of the store that `store` speaks of. */
static bool owns_files(const struct mn_store *store)
{
    struct mn_manifest manifest;
    uint64_t *numbers = NULL;
    uint32_t count = 0;
    bool owns = mn_manifest_read(&manifest, store, NULL) == MN_OK && manifest.edit > 0;
    mn_manifest_free(&manifest);
    if (mn_wal_list(store, &numbers, &count) != MN_OK)
        return owns;
    for (uint32_t i = 0; i < count && !owns; i++) {
        struct mn_wal_segment segment;
        owns = mn_wal_map(&segment, store, numbers[i]) == MN_OK && !segment.unused;
        mn_wal_unmap(&segment);
    }
    free(numbers);
    return owns;
}

/* One of the two is another store's file. */
static enum mn_status choose(struct mn_store *store, const struct mn_store *copy)
{
    bool first = owns_files(store), second = owns_files(copy);
    if (first == second)
        return MN_FAIL(MN_CORRUPT, "%s/STORE and its copy speak of different stores: restore it from a snapshot",
                       store->dir);
    if (second)
        *store = *copy;
    return MN_OK;
}

enum mn_status mn_store_open(struct mn_store *store, const struct mn_io *io, const char *dir)
{
    struct mn_store copy;
    enum mn_status first = read_copy(store, io, dir, 0), second = read_copy(&copy, io, dir, 1);
    if (first == MN_OK && second == MN_OK)
        return same(store, &copy) ? MN_OK : choose(store, &copy);
    if (first == MN_OK)
        return MN_OK;
    if (second == MN_OK && (first == MN_NOT_FOUND || first == MN_CORRUPT)) {
        *store = copy;
        return MN_OK;
    }
    if (first == MN_NOT_FOUND && second == MN_NOT_FOUND)
        return MN_FAIL(MN_NOT_FOUND, "%s holds no store: there is no file STORE in it", dir);
    if (first == MN_NOT_FOUND)
        return second; /* its sentence is the last */
    return read_copy(store, io, dir, 0);
}

static const char *trouble_of(const struct mn_store *store, uint32_t copy)
{
    struct mn_store told;
    enum mn_status status = read_copy(&told, store->io, store->dir, copy);
    if (status == MN_OK)
        return same(store, &told) ? NULL : "it speaks of another store";
    return status == MN_NOT_FOUND ? "the file is missing" : "it does not match its checksum";
}

void mn_store_check(const struct mn_store *store, void (*damaged)(void *context, const char *path, const char *what),
                    void *context)
{
    char path[MN_PATH_MAX];
    for (uint32_t copy = 0; copy < MN_STORE_COPIES; copy++) {
        const char *trouble = trouble_of(store, copy);
        if (trouble)
            damaged(context, mn_store_path(store, path, mn_store_names[copy]), trouble);
    }
}

/* The text of STORE; returns its length. */
static size_t compose(const struct mn_store *store, char text[512])
{
    char uuid[37];
    mn_uuid_text(store->uuid, uuid);
    int n = snprintf(text, 512, "mneme store\nformat=%d\nuuid=%s\ndim=%u\nmetric=%s\n", MN_FORMAT_VERSION, uuid,
                     store->dim, mn_metric_word(store->metric));
    n += snprintf(text + n, 512 - (size_t)n, "crc32c=%08x\n", mn_crc32c(0, text, (size_t)n));
    return (size_t)n;
}

static enum mn_status write_copy(const struct mn_store *store, uint32_t copy)
{
    char path[MN_PATH_MAX], text[512];
    size_t bytes = compose(store, text);
    return mn_io_replace(store->io, mn_store_path(store, path, mn_store_names[copy]), text, bytes);
}

enum mn_status mn_store_write(const struct mn_store *store)
{
    for (uint32_t copy = 0; copy < MN_STORE_COPIES; copy++)
        MN_TRY(write_copy(store, copy));
    return MN_OK;
}

/* A store whose making was cut short may lack its second copy: nothing is in its log then. */
static bool was_written_to(const struct mn_store *store)
{
    uint64_t *numbers = NULL;
    uint32_t count = 0;
    bool written = mn_wal_list(store, &numbers, &count) == MN_OK && count > 0;
    free(numbers);
    return written;
}

static enum mn_status note_copy(const struct mn_store *store, uint32_t copy, const char *trouble)
{
    char path[MN_PATH_MAX], reason[128];
    void *before = NULL;
    size_t bytes = 0;
    snprintf(reason, sizeof reason, "%s; it was made anew of its copy", trouble);
    enum mn_status status =
        mn_io_slurp(store->io, mn_store_path(store, path, mn_store_names[copy]), STORE_BYTES_MAX, &before, &bytes);
    status = mn_quarantine_healed(store, mn_store_names[copy], 0, 0, before, status == MN_OK ? bytes : 0, reason);
    free(before);
    return status;
}

void mn_store_mend(const struct mn_store *store)
{
    for (uint32_t copy = 0; copy < MN_STORE_COPIES; copy++) {
        const char *trouble = trouble_of(store, copy);
        if (!trouble || (was_written_to(store) && note_copy(store, copy, trouble) != MN_OK))
            continue;
        if (write_copy(store, copy) != MN_OK)
            return;
    }
}

static enum mn_status refuse_foreign(void *context, const char *name)
{
    static const char *const ours[] = {"LOCK",       "run",       "wal",        "columns",    "codebooks",
                                       "quarantine", "STORE.tmp", "lost+found", "server.key", "clients"};
    for (size_t i = 0; i < MN_ARRAY_LEN(ours); i++)
        if (strcmp(name, ours[i]) == 0)
            return MN_OK;
    return MN_FAIL(MN_EXISTS, "%s holds other files (%s) and no STORE: give a new or empty folder",
                   (const char *)context, name);
}

static enum mn_status make_folder(const struct mn_io *io, const char *path)
{
    enum mn_status status = io->mkdir(path);
    return status == MN_EXISTS ? MN_OK : status;
}

enum mn_status mn_store_create(struct mn_store *store, const struct mn_io *io, const char *dir, uint32_t dim,
                               enum mn_metric metric)
{
    static const char *const folders[] = {"wal", "columns", "codebooks", "quarantine", "run"};
    char path[MN_PATH_MAX];
    MN_TRY(set_dir(store, io, dir));
    if (dim < 1 || dim > MN_DIM_MAX)
        return MN_FAIL(MN_USAGE, "dim %u is out of range: 1 to %u", dim, MN_DIM_MAX);
    MN_TRY(make_folder(io, dir));
    MN_TRY(mn_io_sync_name(io, dir)); /* or the store goes with its name in a power cut */
    MN_TRY(io->list(dir, refuse_foreign, store->dir));
    for (size_t i = 0; i < MN_ARRAY_LEN(folders); i++)
        MN_TRY(make_folder(io, mn_store_path(store, path, folders[i])));
    MN_FAULT_POINT(store_folders_made);
    MN_TRY(mn_uuid_make(store->uuid));
    store->dim = dim;
    store->metric = metric;
    return mn_store_write(store);
}

enum mn_status mn_store_lock(const char *path, int *fd)
{
    do
        *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    while (*fd < 0 && errno == EINTR);
    if (*fd < 0)
        return MN_FAIL_ERRNO("cannot open the lock file %s", path);
    /* An open file description lock: it ends with this descriptor, whatever else the process closes. */
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(*fd, F_OFD_SETLK, &lock) == 0)
        return MN_OK;
    enum mn_status status = errno == EAGAIN || errno == EACCES
                                ? MN_FAIL(MN_BUSY, "another process holds the lock %s", path)
                                : MN_FAIL_ERRNO("cannot lock %s", path);
    close(*fd);
    *fd = -1;
    return status;
}
