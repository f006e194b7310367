/*
 * lossy_disk.c - see lossy_disk.h.
 */
#include "tests/unit/lossy_disk.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR    512u
#define NAME_MAX_ 200u

/* Bytes that a write went over, as they were; bytes beyond the end then are zeros. */
struct undo_write {
    struct undo_write *older;
    uint64_t offset, bytes; /* whole sectors */
    uint8_t before[];
};

/* A file with unsynced writes. `fd` stays ours: names may change. */
struct undo_file {
    struct undo_file *next;
    int fd;
    dev_t dev;
    ino_t ino;
    uint64_t length; /* when it was last synced */
    struct undo_write *writes;
};

enum name_op { MADE_FILE, MADE_FOLDER, RENAMED, REMOVED_FILE, REMOVED_FOLDER };

/* A change of a folder's names, with what undoes it. */
struct undo_name {
    struct undo_name *older;
    enum name_op op;
    char path[NAME_MAX_], from[NAME_MAX_]; /* path: the name that came or went; from: where a renamed one was */
    char kept[NAME_MAX_];                  /* in the trash: what stood at `path` before; "" = nothing */
};

static struct {
    char trash[NAME_MAX_];
    uint64_t random, trash_count;
    uint64_t fuse;
    bool dead;
    struct undo_file *files;
    struct undo_name *names; /* newest first */
    pthread_mutex_t lock;
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const struct mn_io *io = &mn_io_posix;

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "lossy disk: %s\n", what);
        abort();
    }
}

static uint32_t draw(uint32_t below)
{
    disk.random = disk.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(disk.random >> 33) % below;
}

static enum mn_status no_power(void)
{
    return MN_FAIL(MN_SYSTEM, "the power is gone");
}

/* Counts an operation; true for the one during which the power goes. */
static bool burns(void)
{
    if (disk.fuse != UINT64_MAX && disk.fuse-- == 0) {
        disk.dead = true;
        disk.fuse = UINT64_MAX;
    }
    return disk.dead;
}

/* ---- bytes ---- */

static struct undo_file *file_of(int fd)
{
    struct stat st;
    must(fstat(fd, &st) == 0, "fstat");
    for (struct undo_file *f = disk.files; f; f = f->next)
        if (f->dev == st.st_dev && f->ino == st.st_ino)
            return f;
    struct undo_file *f = calloc(1, sizeof *f);
    must(f != NULL, "memory");
    *f = (struct undo_file){
        .next = disk.files, .fd = dup(fd), .dev = st.st_dev, .ino = st.st_ino, .length = (uint64_t)st.st_size};
    must(f->fd >= 0, "dup");
    return disk.files = f;
}

static void forget_file(struct undo_file *f)
{
    for (struct undo_write *w = f->writes, *older; w; w = older) {
        older = w->older;
        free(w);
    }
    struct undo_file **link = &disk.files;
    while (*link != f)
        link = &(*link)->next;
    *link = f->next;
    close(f->fd);
    free(f);
}

static void remember_bytes(int fd, uint64_t offset, uint64_t bytes)
{
    struct undo_file *f = file_of(fd);
    uint64_t begin = offset / SECTOR * SECTOR, end = mn_round_up(offset + bytes, SECTOR);
    struct undo_write *w = calloc(1, sizeof *w + (end - begin));
    must(w != NULL, "memory");
    w->older = f->writes;
    w->offset = begin;
    w->bytes = end - begin;
    must(pread(f->fd, w->before, w->bytes, (off_t)begin) >= 0, "pread");
    f->writes = w;
}

static enum mn_status lossy_write(int fd, const void *data, size_t bytes, uint64_t offset)
{
    pthread_mutex_lock(&disk.lock);
    bool was_dead = disk.dead, dies = burns();
    enum mn_status status = MN_OK;
    if (!was_dead) { /* the last write may still land */
        remember_bytes(fd, offset, bytes);
        status = io->write(fd, data, bytes, offset);
    }
    pthread_mutex_unlock(&disk.lock);
    return dies ? no_power() : status;
}

static enum mn_status lossy_reserve(int fd, uint64_t bytes)
{
    pthread_mutex_lock(&disk.lock);
    bool dies = burns();
    if (!dies)
        file_of(fd);
    enum mn_status status = dies ? no_power() : io->reserve(fd, bytes);
    pthread_mutex_unlock(&disk.lock);
    return status;
}

static enum mn_status lossy_datasync(int fd)
{
    pthread_mutex_lock(&disk.lock);
    bool dies = burns();
    if (!dies)
        forget_file(file_of(fd));
    pthread_mutex_unlock(&disk.lock);
    return dies ? no_power() : MN_OK;
}

static enum mn_status lossy_flush(int fd, uint64_t offset, uint64_t bytes)
{
    return lossy_disk_dead() ? no_power() : MN_OK; /* on its way, and no more */
}

/* Of the writes since the last sync, newest first, some sectors were not there yet. */
static void lose_bytes(struct undo_file *f)
{
    uint32_t percent = draw(3) == 0 ? 100 : draw(101); /* often all */
    struct stat st;
    must(fstat(f->fd, &st) == 0, "fstat");
    for (const struct undo_write *w = f->writes; w; w = w->older)
        for (uint64_t at = 0; at < w->bytes; at += SECTOR)
            if (draw(100) < percent)
                must(pwrite(f->fd, w->before + at, SECTOR, (off_t)(w->offset + at)) == SECTOR, "pwrite");
    bool longer = (uint64_t)st.st_size > f->length && draw(2) == 0; /* its new length was not there yet */
    must(ftruncate(f->fd, longer ? (off_t)f->length : st.st_size) == 0, "ftruncate");
}

/* ---- names ---- */

static void parent_of(const char *path, char parent[NAME_MAX_])
{
    snprintf(parent, NAME_MAX_, "%s", path);
    char *slash = strrchr(parent, '/');
    must(slash != NULL, "paths are absolute");
    *slash = 0;
}

static bool is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && path[length] == '/';
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static struct undo_name *remember_name(enum name_op op, const char *path, const char *from)
{
    struct undo_name *n = calloc(1, sizeof *n);
    must(n != NULL && strlen(path) < NAME_MAX_ && strlen(from) < NAME_MAX_, "a name");
    n->older = disk.names;
    n->op = op;
    strcpy(n->path, path);
    strcpy(n->from, from);
    return disk.names = n;
}

/* Shared memory is no disk, though small files there go through the same table. */
static bool is_disk(const char *path)
{
    return strncmp(path, "/dev/shm/", 9) != 0;
}

/* A second name in the trash for what stands at n->path. */
static void keep(struct undo_name *n)
{
    struct stat st;
    if (lstat(n->path, &st) != 0 || !S_ISREG(st.st_mode))
        return;
    snprintf(n->kept, sizeof n->kept, "%.150s/%llu", disk.trash, (unsigned long long)disk.trash_count++);
    must(link(n->path, n->kept) == 0, "link");
}

static void forget_name(struct undo_name **link)
{
    struct undo_name *n = *link;
    *link = n->older;
    if (n->kept[0])
        unlink(n->kept);
    free(n);
}

static enum mn_status lossy_open(const char *path, int flags, int *fd)
{
    *fd = -1;
    if (!(flags & MN_IO_CREATE) || !is_disk(path))
        return io->open(path, flags, fd);
    pthread_mutex_lock(&disk.lock);
    enum mn_status status = burns() ? no_power() : io->open(path, flags, fd);
    if (status == MN_OK)
        remember_name(MADE_FILE, path, "");
    pthread_mutex_unlock(&disk.lock);
    return status;
}

static enum mn_status lossy_copy(const char *from, const char *to, uint64_t *bytes)
{
    pthread_mutex_lock(&disk.lock);
    enum mn_status status = burns() ? no_power() : io->copy(from, to, bytes);
    if (status == MN_OK)
        remember_name(MADE_FILE, to, "");
    pthread_mutex_unlock(&disk.lock);
    return status;
}

static enum mn_status lossy_mkdir(const char *path)
{
    pthread_mutex_lock(&disk.lock);
    enum mn_status status = burns() ? no_power() : io->mkdir(path);
    if (status == MN_OK)
        remember_name(MADE_FOLDER, path, "");
    pthread_mutex_unlock(&disk.lock);
    return status;
}

static enum mn_status lossy_rmdir(const char *path)
{
    pthread_mutex_lock(&disk.lock);
    enum mn_status status = burns() ? no_power() : io->rmdir(path);
    if (status == MN_OK)
        remember_name(REMOVED_FOLDER, path, "");
    pthread_mutex_unlock(&disk.lock);
    return status;
}

static enum mn_status lossy_unlink(const char *path)
{
    if (!is_disk(path))
        return io->unlink(path);
    pthread_mutex_lock(&disk.lock);
    struct undo_name *n = NULL;
    enum mn_status status = MN_OK;
    if (!exists(path) || burns()) {
        status = disk.dead ? no_power() : io->unlink(path);
    } else {
        struct stat st;
        bool plain = lstat(path, &st) == 0 && S_ISREG(st.st_mode);
        if (plain)
            keep(n = remember_name(REMOVED_FILE, path, ""));
        status = io->unlink(path);
    }
    pthread_mutex_unlock(&disk.lock);
    return status;
}

static enum mn_status lossy_rename(const char *from, const char *to)
{
    if (!is_disk(to))
        return io->rename(from, to);
    pthread_mutex_lock(&disk.lock);
    enum mn_status status = burns() ? no_power() : MN_OK;
    if (status == MN_OK) {
        struct undo_name *n = remember_name(RENAMED, to, from);
        keep(n);
        status = io->rename(from, to);
        must(status == MN_OK, "rename");
    }
    pthread_mutex_unlock(&disk.lock);
    return status;
}

/* The names in this folder stay; those below it are not its own. */
static enum mn_status lossy_sync_dir(const char *path)
{
    pthread_mutex_lock(&disk.lock);
    bool dies = burns();
    for (struct undo_name **link = &disk.names; !dies && *link;) {
        char parent[NAME_MAX_];
        parent_of((*link)->path, parent);
        if (strcmp(parent, path) == 0)
            forget_name(link);
        else
            link = &(*link)->older;
    }
    pthread_mutex_unlock(&disk.lock);
    return dies ? no_power() : MN_OK;
}

static void undo(struct undo_name *n)
{
    char parent[NAME_MAX_];
    parent_of(n->path, parent);
    if (!exists(parent))
        return; /* lost with its folder */
    switch (n->op) {
    case MADE_FILE:
        unlink(n->path);
        break;
    case MADE_FOLDER:
        must(mn_io_remove_tree(io, n->path) == MN_OK, "remove_tree");
        break;
    case RENAMED:
        if (exists(n->path))
            must(rename(n->path, n->from) == 0, "rename back");
        break;
    case REMOVED_FILE:
        break;
    case REMOVED_FOLDER:
        must(mkdir(n->path, 0700) == 0, "mkdir");
        break;
    }
    if (n->kept[0] && !exists(n->path))
        must(link(n->kept, n->path) == 0, "link back");
}

/* A folder that was renamed and stays so: what is still to be undone in it goes by its new name. */
static void follow_rename(struct undo_name *renamed)
{
    for (struct undo_name *n = renamed->older; n; n = n->older) {
        char path[2 * NAME_MAX_];
        if (!is_below(n->path, renamed->from))
            continue;
        snprintf(path, sizeof path, "%s%s", renamed->path, n->path + strlen(renamed->from));
        must(strlen(path) < NAME_MAX_, "a name");
        strcpy(n->path, path);
    }
}

/* Whether the removal of the folder that a name stands in is there to stay: then the name is gone for good, too. */
static bool folder_is_gone(const struct undo_name *n)
{
    char parent[NAME_MAX_];
    parent_of(n->path, parent);
    return !exists(parent);
}

/* Newest first: of each folder's changes a tail is lost. A folder keeps the rest from the first change that is kept. */
static void lose_names(void)
{
    char keeping[64][NAME_MAX_];
    uint32_t folders = 0;
    uint32_t percent = draw(101);
    while (disk.names) {
        struct undo_name *n = disk.names;
        char parent[NAME_MAX_];
        parent_of(n->path, parent);
        bool kept = false;
        for (uint32_t i = 0; i < folders; i++)
            kept |= strcmp(keeping[i], parent) == 0;
        if (!kept && draw(100) >= percent) {
            kept = true;
            must(folders < 64, "too many folders");
            strcpy(keeping[folders++], parent);
        }
        if (!kept && !folder_is_gone(n))
            undo(n);
        else if (n->op == RENAMED)
            follow_rename(n);
        forget_name(&disk.names);
    }
}

/* ---- the disk ---- */

static struct mn_io table;

const struct mn_io *lossy_disk_open(const char *trash, uint64_t seed)
{
    table = mn_io_posix;
    table.open = lossy_open;
    table.write = lossy_write;
    table.reserve = lossy_reserve;
    table.datasync = lossy_datasync;
    table.flush = lossy_flush;
    table.copy = lossy_copy;
    table.mkdir = lossy_mkdir;
    table.rmdir = lossy_rmdir;
    table.unlink = lossy_unlink;
    table.rename = lossy_rename;
    table.sync_dir = lossy_sync_dir;
    snprintf(disk.trash, sizeof disk.trash, "%s", trash);
    disk.random = seed * 0x9e3779b97f4a7c15u + 1;
    disk.fuse = UINT64_MAX;
    disk.dead = false;
    return &table;
}

void lossy_disk_close(void)
{
    while (disk.files)
        forget_file(disk.files);
    while (disk.names)
        forget_name(&disk.names);
}

void lossy_disk_fuse(uint64_t operations)
{
    pthread_mutex_lock(&disk.lock);
    disk.fuse = operations;
    pthread_mutex_unlock(&disk.lock);
}

bool lossy_disk_dead(void)
{
    pthread_mutex_lock(&disk.lock);
    bool dead = disk.dead;
    pthread_mutex_unlock(&disk.lock);
    return dead;
}

void lossy_disk_cut(void)
{
    pthread_mutex_lock(&disk.lock);
    lose_names();
    while (disk.files) {
        lose_bytes(disk.files);
        forget_file(disk.files);
    }
    disk.fuse = UINT64_MAX;
    disk.dead = false;
    pthread_mutex_unlock(&disk.lock);
}
