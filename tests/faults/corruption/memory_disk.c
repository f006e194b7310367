/*
 * memory_disk.c - see memory_disk.h. Blobs are mappings with a page behind them that cannot be read.
 */
#include "tests/faults/corruption/memory_disk.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE     4096u
#define FD_FIRST (1 << 20) /* above any of the kernel's */
#define FDS_MAX  256

static struct {
    const struct disk *disk;
    char dir[256];
    size_t dir_bytes;
    struct disk_file files[DISK_FILES_MAX];
    uint32_t count;
    struct disk_blob *made; /* since the last reset */
    struct disk_file *open[FDS_MAX];
} mounted;

static _Noreturn void give_up(const char *what, const char *name)
{
    fprintf(stderr, "memory disk: %s %s\n", what, name);
    abort();
}

/* ---- blobs ---- */

static struct disk_blob *make_blob(size_t bytes)
{
    struct disk_blob *blob = calloc(1, sizeof *blob);
    size_t room = mn_round_up(bytes ? bytes : 1, PAGE);
    uint8_t *data = mmap(NULL, room + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!blob || data == MAP_FAILED || mprotect(data + room, PAGE, PROT_NONE) != 0)
        give_up("no memory for", "a file");
    *blob = (struct disk_blob){.data = data, .bytes = bytes, .room = room};
    return blob;
}

static struct disk_blob *made_blob(size_t bytes)
{
    struct disk_blob *blob = make_blob(bytes);
    blob->next = mounted.made;
    mounted.made = blob;
    return blob;
}

static void free_made(void)
{
    for (struct disk_blob *blob = mounted.made, *next; blob; blob = next) {
        next = blob->next;
        munmap(blob->data, blob->room + PAGE);
        free(blob);
    }
    mounted.made = NULL;
}

/* ---- taking a folder ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct disk_file *)a)->name, ((const struct disk_file *)b)->name);
}

static void take_file(struct disk *disk, const char *path, const char *relative)
{
    void *data;
    size_t bytes;
    if (disk->count == DISK_FILES_MAX || mn_io_slurp(&mn_io_posix, path, 1u << 28, &data, &bytes) != MN_OK)
        give_up("cannot take", relative);
    struct disk_file *file = &disk->files[disk->count++];
    snprintf(file->name, sizeof file->name, "%s", relative);
    file->blob = make_blob(bytes);
    file->blob->kept = true;
    memcpy(file->blob->data, data, bytes);
    free(data);
}

static void take_folder(struct disk *disk, const char *dir, const char *relative)
{
    char path[512], inner[DISK_NAME_BYTES];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, relative);
    DIR *folder = opendir(path);
    if (!folder)
        give_up("cannot open", path);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "LOCK") == 0 || strcmp(entry->d_name, "run") == 0)
            continue;
        if ((size_t)snprintf(inner, sizeof inner, "%s%s%s", relative, relative[0] ? "/" : "", entry->d_name) >=
            sizeof inner)
            give_up("too long a name:", entry->d_name);
        snprintf(path, sizeof path, "%s/%s", dir, inner);
        if (lstat(path, &st) != 0)
            give_up("cannot look at", path);
        if (S_ISDIR(st.st_mode))
            take_folder(disk, dir, inner);
        else
            take_file(disk, path, inner);
    }
    closedir(folder);
}

void disk_take(struct disk *disk, const char *dir)
{
    *disk = (struct disk){0};
    take_folder(disk, dir, "");
    qsort(disk->files, disk->count, sizeof disk->files[0], by_name);
}

/* ---- the mounted files ---- */

void disk_reset(void)
{
    free_made();
    memcpy(mounted.files, mounted.disk->files, mounted.disk->count * sizeof mounted.files[0]);
    mounted.count = mounted.disk->count;
    memset(mounted.open, 0, sizeof mounted.open);
}

void disk_mount(const struct disk *disk, const char *dir)
{
    mounted.disk = disk;
    snprintf(mounted.dir, sizeof mounted.dir, "%s", dir);
    mounted.dir_bytes = strlen(mounted.dir);
    disk_reset();
}

/* The name below the mounted folder ("" is the folder itself), or NULL: the path is the kernel's. */
static const char *relative_to(const char *path)
{
    if (strncmp(path, mounted.dir, mounted.dir_bytes) != 0)
        return NULL;
    const char *rest = path + mounted.dir_bytes;
    return rest[0] == '/' ? rest + 1 : rest[0] == 0 ? rest : NULL;
}

static struct disk_file *find(const char *name)
{
    for (uint32_t i = 0; i < mounted.count; i++)
        if (mounted.files[i].name[0] && strcmp(mounted.files[i].name, name) == 0)
            return &mounted.files[i];
    return NULL;
}

const struct disk_blob *disk_find(const char *name)
{
    const struct disk_file *file = find(name);
    return file ? file->blob : NULL;
}

static struct disk_file *find_or_make(const char *name)
{
    struct disk_file *file = find(name);
    if (file)
        return file;
    if (mounted.count == DISK_FILES_MAX || strlen(name) >= DISK_NAME_BYTES)
        give_up("no room for", name);
    file = &mounted.files[mounted.count++];
    snprintf(file->name, sizeof file->name, "%s", name);
    file->blob = made_blob(0);
    return file;
}

void disk_put(const char *name, const void *data, size_t bytes)
{
    struct disk_file *file = find_or_make(name);
    file->blob = made_blob(bytes);
    memcpy(file->blob->data, data, bytes);
}

void disk_remove(const char *name)
{
    find(name)->name[0] = 0;
}

void disk_swap(const char *a, const char *b)
{
    struct disk_file *x = find(a), *y = find(b);
    struct disk_blob *blob = x->blob;
    x->blob = y->blob;
    y->blob = blob;
}

void disk_flip(const char *name, uint64_t bit)
{
    find(name)->blob->data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
}

/* ---- the table of functions ---- */

static enum mn_status missing(const char *path)
{
    return MN_FAIL(MN_NOT_FOUND, "there is no %s", path);
}

static struct disk_file *opened(int fd)
{
    return fd >= FD_FIRST ? mounted.open[fd - FD_FIRST] : NULL;
}

static enum mn_status memory_open(const char *path, int flags, int *fd)
{
    const char *name = relative_to(path);
    if (!name)
        return mn_io_posix.open(path, flags, fd);
    struct disk_file *file = find(name);
    if (flags & MN_IO_CREATE) {
        if (file)
            return MN_FAIL(MN_EXISTS, "%s exists", path);
        file = find_or_make(name);
    }
    if (!file)
        return missing(path);
    for (int i = 0; i < FDS_MAX; i++) {
        if (mounted.open[i])
            continue;
        mounted.open[i] = file;
        *fd = FD_FIRST + i;
        return MN_OK;
    }
    return MN_FAIL(MN_SYSTEM, "too many open files at %s", path);
}

static void memory_close(int fd)
{
    if (fd < FD_FIRST)
        mn_io_posix.close(fd);
    else
        mounted.open[fd - FD_FIRST] = NULL;
}

static enum mn_status memory_size(int fd, uint64_t *bytes)
{
    const struct disk_file *file = opened(fd);
    if (!file)
        return mn_io_posix.size(fd, bytes);
    *bytes = file->blob->bytes;
    return MN_OK;
}

static enum mn_status memory_read(int fd, void *data, size_t bytes, uint64_t offset)
{
    const struct disk_file *file = opened(fd);
    if (!file)
        return mn_io_posix.read(fd, data, bytes, offset);
    uint64_t there = offset < file->blob->bytes ? file->blob->bytes - offset : 0;
    memcpy(data, file->blob->data + offset, bytes < there ? bytes : there);
    return bytes <= there ? MN_OK : MN_FAIL(MN_CORRUPT, "%s is shorter", file->name);
}

/* A blob of this file's own with room for `bytes`. */
static struct disk_blob *writable(struct disk_file *file, size_t bytes)
{
    struct disk_blob *old = file->blob;
    if (old->kept || bytes > old->room) {
        file->blob = made_blob(bytes > old->bytes ? bytes : old->bytes);
        memcpy(file->blob->data, old->data, old->bytes);
    } else if (bytes > old->bytes) {
        old->bytes = bytes;
    }
    return file->blob;
}

static enum mn_status memory_write(int fd, const void *data, size_t bytes, uint64_t offset)
{
    struct disk_file *file = opened(fd);
    if (!file)
        return mn_io_posix.write(fd, data, bytes, offset);
    memcpy(writable(file, offset + bytes)->data + offset, data, bytes);
    return MN_OK;
}

static enum mn_status memory_flush(int fd, uint64_t offset, uint64_t bytes)
{
    return opened(fd) ? MN_OK : mn_io_posix.flush(fd, offset, bytes);
}

static enum mn_status memory_datasync(int fd)
{
    return opened(fd) ? MN_OK : mn_io_posix.datasync(fd);
}

static enum mn_status memory_reserve(int fd, uint64_t bytes)
{
    struct disk_file *file = opened(fd);
    if (!file)
        return mn_io_posix.reserve(fd, bytes);
    writable(file, bytes);
    return MN_OK;
}

static enum mn_status memory_map(int fd, uint64_t bytes, const void **base)
{
    const struct disk_file *file = opened(fd);
    if (!file)
        return mn_io_posix.map(fd, bytes, base);
    *base = file->blob->data;
    return MN_OK;
}

/* Blobs go with the reset, whoever still maps them. */
static void memory_unmap(const void *base, uint64_t bytes)
{
    const uint8_t *data = base;
    for (uint32_t i = 0; i < mounted.count; i++)
        if (mounted.files[i].blob->data == data)
            return;
    for (uint32_t i = 0; i < mounted.disk->count; i++)
        if (mounted.disk->files[i].blob->data == data)
            return;
    for (const struct disk_blob *blob = mounted.made; blob; blob = blob->next)
        if (blob->data == data)
            return;
    mn_io_posix.unmap(base, bytes);
}

static enum mn_status memory_rename(const char *from, const char *to)
{
    const char *source = relative_to(from), *target = relative_to(to);
    if (!source || !target)
        return mn_io_posix.rename(from, to);
    struct disk_file *file = find(source);
    if (!file)
        return missing(from);
    find_or_make(target)->blob = file->blob;
    file->name[0] = 0;
    return MN_OK;
}

static enum mn_status memory_unlink(const char *path)
{
    const char *name = relative_to(path);
    if (!name)
        return mn_io_posix.unlink(path);
    struct disk_file *file = find(name);
    if (!file)
        return missing(path);
    file->name[0] = 0;
    return MN_OK;
}

static enum mn_status memory_mkdir(const char *path)
{
    return relative_to(path) ? MN_OK : mn_io_posix.mkdir(path);
}

static enum mn_status memory_rmdir(const char *path)
{
    return relative_to(path) ? MN_OK : mn_io_posix.rmdir(path);
}

static enum mn_status memory_sync_dir(const char *path)
{
    return relative_to(path) ? MN_OK : mn_io_posix.sync_dir(path);
}

/* A folder is there when a file is in it, or when every store has it. */
static bool folder_stands(const char *name)
{
    static const char *const folders[] = {"", "wal", "columns", "codebooks", "quarantine", "run"};
    for (size_t i = 0; i < MN_ARRAY_LEN(folders); i++)
        if (strcmp(name, folders[i]) == 0)
            return true;
    return false;
}

/* The next step of `file`'s name below `folder`; false: it does not lie there. */
static bool step_below(const struct disk_file *file, const char *folder, char step[DISK_NAME_BYTES])
{
    size_t length = strlen(folder);
    const char *rest = file->name;
    if (length > 0) {
        if (strncmp(rest, folder, length) != 0 || rest[length] != '/')
            return false;
        rest += length + 1;
    }
    size_t bytes = strcspn(rest, "/");
    memcpy(step, rest, bytes);
    step[bytes] = 0;
    return bytes > 0;
}

static enum mn_status memory_list(const char *path, enum mn_status (*visit)(void *context, const char *name),
                                  void *context)
{
    char seen[DISK_FILES_MAX][DISK_NAME_BYTES];
    uint32_t count = 0;
    const char *name = relative_to(path);
    if (!name)
        return mn_io_posix.list(path, visit, context);
    for (uint32_t i = 0; i < mounted.count; i++) {
        uint32_t before = 0;
        if (!step_below(&mounted.files[i], name, seen[count]))
            continue;
        while (strcmp(seen[before], seen[count]) != 0)
            before++;
        count += before == count;
    }
    for (uint32_t i = 0; i < count; i++)
        MN_TRY(visit(context, seen[i]));
    return count > 0 || folder_stands(name) ? MN_OK : missing(path);
}

static enum mn_status memory_copy(const char *from, const char *to, uint64_t *bytes)
{
    const char *source = relative_to(from), *target = relative_to(to);
    if (!source || !target)
        return mn_io_posix.copy(from, to, bytes);
    const struct disk_file *file = find(source);
    if (!file)
        return missing(from);
    if (find(target))
        return MN_FAIL(MN_EXISTS, "%s exists", to);
    *bytes = file->blob->bytes;
    disk_put(target, file->blob->data, file->blob->bytes);
    return MN_OK;
}

static enum mn_status memory_free_bytes(const char *path, uint64_t *bytes)
{
    if (!relative_to(path))
        return mn_io_posix.free_bytes(path, bytes);
    *bytes = UINT64_C(1) << 40;
    return MN_OK;
}

const struct mn_io *disk_io(void)
{
    static const struct mn_io io = {
        .open = memory_open,
        .close = memory_close,
        .size = memory_size,
        .read = memory_read,
        .write = memory_write,
        .flush = memory_flush,
        .start = memory_flush,
        .datasync = memory_datasync,
        .reserve = memory_reserve,
        .map = memory_map,
        .unmap = memory_unmap,
        .rename = memory_rename,
        .unlink = memory_unlink,
        .mkdir = memory_mkdir,
        .rmdir = memory_rmdir,
        .sync_dir = memory_sync_dir,
        .list = memory_list,
        .copy = memory_copy,
        .free_bytes = memory_free_bytes,
    };
    return &io;
}
