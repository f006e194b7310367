/*
 * disk.c - what a disk remembers to be able to forget it: see disk.h. The calls themselves are in calls.c.
 */
#include "tests/faults/disk/disk.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/faults/disk/calls.h"

#define SECTOR DISK_SECTOR

/* Bytes that a write went over, as they were; bytes beyond the end then are zeros. */
struct undo_write {
    struct undo_write *older;
    uint64_t offset, bytes; /* whole sectors */
    bool doomed;            /* a sync of it failed: later ones do not write it */
    bool promised;          /* a sync said that it is there, and it is not */
    uint8_t *stays;         /* of a doomed one, by sector: it had landed, or was written again since and synced */
    uint8_t before[];
};

/* A file with unsynced writes. `fd` stays ours: names may change. */
struct undo_file {
    struct undo_file *next;
    int fd;
    dev_t dev;
    ino_t ino;
    uint64_t length; /* when it was last synced */
    bool promised;   /* that length is older than a sync that lied */
    struct undo_write *writes;
};

/* A change of a folder's names, with what undoes it. */
struct undo_name {
    struct undo_name *older;
    enum disk_change change;
    bool promised;
    char path[DISK_PATH_MAX], from[DISK_PATH_MAX]; /* path: the name that came or went; from: where a renamed one was */
    char kept[DISK_PATH_MAX];                      /* in the trash: what stood at `path` before; "" = nothing */
};

static struct {
    char root[DISK_PATH_MAX], trash[DISK_PATH_MAX];
    uint64_t random, trash_count;
    uint64_t fuse;
    bool dead, lied, soiled;
    struct undo_file *files;
    struct undo_name *names; /* newest first */
} disk;

struct disk_counts disk_counts;

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "simulated disk: %s: %s\n", what, strerror(errno));
        abort();
    }
}

uint32_t disk_draw(uint32_t below)
{
    disk.random = disk.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(disk.random >> 33) % below;
}

bool disk_burns(void)
{
    if (disk.fuse != UINT64_MAX && disk.fuse-- == 0) {
        disk.dead = true;
        disk.fuse = UINT64_MAX;
    }
    return disk.dead;
}

static bool is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && path[length] == '/';
}

bool disk_covers(const char *path)
{
    return disk.root[0] && (is_below(path, disk.root) || strcmp(path, disk.root) == 0);
}

/* ---- bytes ---- */

static struct undo_file *find_file(int fd)
{
    struct stat st;
    must(fstat(fd, &st) == 0, "fstat");
    for (struct undo_file *f = disk.files; f; f = f->next)
        if (f->dev == st.st_dev && f->ino == st.st_ino)
            return f;
    return NULL;
}

static struct undo_file *file_of(int fd)
{
    struct undo_file *f = find_file(fd);
    struct stat st;
    if (f)
        return f;
    f = calloc(1, sizeof *f);
    must(f != NULL && fstat(fd, &st) == 0, "a file");
    *f = (struct undo_file){
        .next = disk.files, .fd = dup(fd), .dev = st.st_dev, .ino = st.st_ino, .length = (uint64_t)st.st_size};
    must(f->fd >= 0, "dup");
    return disk.files = f;
}

static void free_write(struct undo_write *w)
{
    free(w->stays);
    free(w);
}

static void forget_file(struct undo_file *f)
{
    for (struct undo_write *w = f->writes, *older; w; w = older) {
        older = w->older;
        free_write(w);
    }
    struct undo_file **link = &disk.files;
    while (*link != f)
        link = &(*link)->next;
    *link = f->next;
    __real_close(f->fd);
    free(f);
}

void disk_note_write(int fd, uint64_t offset, uint64_t bytes)
{
    struct undo_file *f = file_of(fd);
    uint64_t begin = offset / SECTOR * SECTOR, end = (offset + bytes + SECTOR - 1) / SECTOR * SECTOR;
    struct undo_write *w = calloc(1, sizeof *w + (end - begin));
    must(w != NULL, "memory");
    w->older = f->writes;
    w->offset = begin;
    w->bytes = end - begin;
    /* By a descriptor of our own: theirs may not read. */
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", f->fd);
    int reading = __real_open(path, 0);
    must(reading >= 0 && __real_pread(reading, w->before, w->bytes, (off_t)begin) >= 0, "pread");
    __real_close(reading);
    f->writes = w;
}

void disk_note_length(int fd)
{
    file_of(fd);
}

/* This sector of a doomed write is there all the same. */
static void let_stay(struct undo_write *w, uint64_t at)
{
    if (!w->stays)
        w->stays = calloc(1, w->bytes / SECTOR);
    must(w->stays != NULL, "memory");
    w->stays[at / SECTOR] = 1;
}

/* What a write has put at [offset, offset + bytes) over doomed ones is there now. */
static void settle_doomed(struct undo_write *newer, uint64_t offset, uint64_t bytes)
{
    for (struct undo_write *d = newer->older; d; d = d->older)
        for (uint64_t at = 0; d->doomed && at < d->bytes; at += SECTOR)
            if (d->offset + at >= offset && d->offset + at < offset + bytes)
                let_stay(d, at);
}

void disk_note_sync(int fd, bool lie)
{
    struct undo_file *f = find_file(fd);
    struct stat st;
    if (!f)
        return;
    f->promised |= lie;
    for (struct undo_write *w = f->writes; w; w = w->older) {
        w->promised |= lie;
        if (!w->doomed && !lie)
            settle_doomed(w, w->offset, w->bytes);
    }
    if (lie)
        return;
    for (struct undo_write **link = &f->writes; *link;) {
        struct undo_write *w = *link;
        if (w->doomed) {
            link = &w->older;
            continue;
        }
        *link = w->older;
        free_write(w);
    }
    must(fstat(f->fd, &st) == 0, "fstat");
    f->length = (uint64_t)st.st_size;
    f->promised = false;
    if (!f->writes)
        forget_file(f);
}

/* Whether a sector had landed before the sync failed: the same for all writes that went over it. */
static bool landed(uint64_t place, uint32_t salt, uint32_t percent)
{
    return (uint32_t)(((place / SECTOR + salt) * UINT64_C(0x9e3779b97f4a7c15)) >> 33) % 100 < percent;
}

void disk_note_failed_sync(int fd)
{
    struct undo_file *f = find_file(fd);
    uint32_t percent = disk_draw(2) ? 0 : disk_draw(101), salt = disk_draw(UINT32_MAX);
    for (struct undo_write *w = f ? f->writes : NULL; w; w = w->older) {
        for (uint64_t at = 0; !w->doomed && at < w->bytes; at += SECTOR)
            if (landed(w->offset + at, salt, percent)) {
                let_stay(w, at);
                settle_doomed(w, w->offset + at, SECTOR);
            }
        w->doomed = true;
    }
}

void disk_read_past_cache(int fd, uint8_t *data, uint64_t offset, uint64_t bytes)
{
    const struct undo_file *f = find_file(fd);
    for (const struct undo_write *w = f ? f->writes : NULL; w; w = w->older)
        for (uint64_t at = 0; w->doomed && at < w->bytes; at += SECTOR) {
            uint64_t place = w->offset + at, left = offset + bytes - place;
            if (!(w->stays && w->stays[at / SECTOR]) && place >= offset && place < offset + bytes)
                memcpy(data + (place - offset), w->before + at, left < SECTOR ? left : SECTOR);
        }
}

/* Of the writes since the last sync, newest first, some sectors were not there yet. */
static void lose_sector(struct undo_file *f, const struct undo_write *w, uint64_t at, uint32_t garbage)
{
    const uint8_t *bytes = w->before + at;
    uint64_t noise[SECTOR / sizeof(uint64_t)];
    if (garbage > 0 && disk_draw(100) < garbage) {
        for (uint32_t i = 0; i < SECTOR / sizeof *noise; i++)
            noise[i] = (uint64_t)disk_draw(UINT32_MAX) << 32 | disk_draw(UINT32_MAX);
        bytes = (const uint8_t *)noise;
        disk.soiled = true;
        disk_counts.sectors_garbage++;
    }
    must(__real_pwrite(f->fd, bytes, SECTOR, (off_t)(w->offset + at)) == SECTOR, "pwrite");
    disk.lied |= w->promised;
    disk_counts.sectors_lost++;
}

static void lose_bytes(struct undo_file *f, uint32_t garbage)
{
    uint32_t percent = disk_draw(3) == 0 ? 100 : disk_draw(101); /* often all */
    struct stat st;
    must(fstat(f->fd, &st) == 0, "fstat");
    for (const struct undo_write *w = f->writes; w; w = w->older)
        for (uint64_t at = 0; at < w->bytes; at += SECTOR)
            if (!(w->stays && w->stays[at / SECTOR]) && (w->doomed || disk_draw(100) < percent))
                lose_sector(f, w, at, garbage);
    bool shorter = (uint64_t)st.st_size > f->length && disk_draw(2) == 0; /* its new length was not there yet */
    must(ftruncate(f->fd, shorter ? (off_t)f->length : st.st_size) == 0, "ftruncate");
    disk.lied |= shorter && f->promised;
}

/* ---- names ---- */

static void parent_of(const char *path, char parent[DISK_PATH_MAX])
{
    snprintf(parent, DISK_PATH_MAX, "%s", path);
    char *slash = strrchr(parent, '/');
    must(slash != NULL, "paths are absolute");
    *slash = 0;
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
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

void disk_note_name(enum disk_change change, const char *path, const char *from)
{
    struct undo_name *n = calloc(1, sizeof *n);
    must(n != NULL && strlen(path) < DISK_PATH_MAX && strlen(from) < DISK_PATH_MAX, "a name");
    n->older = disk.names;
    n->change = change;
    strcpy(n->path, path);
    strcpy(n->from, from);
    if (change == DISK_RENAMED || change == DISK_REMOVED_FILE)
        keep(n);
    disk.names = n;
}

static void drop_name(struct undo_name **link)
{
    struct undo_name *n = *link;
    *link = n->older;
    if (n->kept[0])
        __real_unlink(n->kept);
    free(n);
}

void disk_forget_name(void)
{
    drop_name(&disk.names);
}

/* The names in this folder stay; those below it are not its own. */
void disk_note_folder_sync(const char *path, bool lie)
{
    for (struct undo_name **link = &disk.names; *link;) {
        char parent[DISK_PATH_MAX];
        parent_of((*link)->path, parent);
        if (strcmp(parent, path) == 0 && !lie) {
            drop_name(link);
            continue;
        }
        (*link)->promised |= lie && strcmp(parent, path) == 0;
        link = &(*link)->older;
    }
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)at;
    return kind == FTW_DP ? __real_rmdir(path) : __real_unlink(path);
}

static void undo(struct undo_name *n)
{
    disk_counts.names_lost++;
    disk.lied |= n->promised;
    switch (n->change) {
    case DISK_MADE_FILE:
        __real_unlink(n->path);
        break;
    case DISK_MADE_FOLDER:
        must(nftw(n->path, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT, "remove a folder");
        break;
    case DISK_RENAMED:
        if (exists(n->path))
            must(__real_rename(n->path, n->from) == 0, "rename back");
        break;
    case DISK_REMOVED_FILE:
        break;
    case DISK_REMOVED_FOLDER:
        must(__real_mkdir(n->path, 0700) == 0, "mkdir");
        break;
    }
    if (n->kept[0] && !exists(n->path))
        must(link(n->kept, n->path) == 0, "link back");
}

static void move_below(char name[DISK_PATH_MAX], const char *from, const char *to)
{
    char moved[2 * DISK_PATH_MAX];
    if (!is_below(name, from))
        return;
    snprintf(moved, sizeof moved, "%s%s", to, name + strlen(from));
    must(strlen(moved) < DISK_PATH_MAX, "a name");
    strcpy(name, moved);
}

/* A folder that was renamed and stays so: what is still to be undone in it goes by its new name. */
static void follow_rename(const struct undo_name *renamed)
{
    for (struct undo_name *n = renamed->older; n; n = n->older) {
        move_below(n->path, renamed->from, renamed->path);
        move_below(n->from, renamed->from, renamed->path);
    }
}

/* Whether the removal of the folder that a name stands in is there to stay: then the name is gone for good, too. */
static bool folder_is_gone(const struct undo_name *n)
{
    char parent[DISK_PATH_MAX];
    parent_of(n->path, parent);
    return !exists(parent);
}

/* Newest first: of each folder's changes a tail is lost. A folder keeps the rest from the first change that is kept. */
static void lose_names(void)
{
    char keeping[256][DISK_PATH_MAX];
    uint32_t folders = 0;
    uint32_t percent = disk_draw(101);
    while (disk.names) {
        struct undo_name *n = disk.names;
        char parent[DISK_PATH_MAX];
        parent_of(n->path, parent);
        bool kept = false;
        for (uint32_t i = 0; i < folders; i++)
            kept |= strcmp(keeping[i], parent) == 0;
        if (!kept && disk_draw(100) >= percent) {
            kept = true;
            must(folders < 256, "too many folders");
            strcpy(keeping[folders++], parent);
        }
        if (!kept && !folder_is_gone(n))
            undo(n);
        else if (n->change == DISK_RENAMED)
            follow_rename(n);
        drop_name(&disk.names);
    }
}

/* ---- the disk ---- */

void disk_open(const char *root, const char *trash, uint64_t seed)
{
    snprintf(disk.root, sizeof disk.root, "%s", root);
    snprintf(disk.trash, sizeof disk.trash, "%s", trash);
    disk.random = seed * 0x9e3779b97f4a7c15u + 1;
    disk.trash_count = 0;
    disk_revive();
    disk.lied = disk.soiled = false;
    disk_trouble((struct disk_trouble){0});
    disk_nag(0);
    disk_lie(0);
}

void disk_close(void)
{
    while (disk.files)
        forget_file(disk.files);
    while (disk.names)
        drop_name(&disk.names);
    disk.root[0] = 0;
}

void disk_fuse(uint64_t changes)
{
    disk.fuse = changes;
}

bool disk_dead(void)
{
    return disk.dead;
}

bool disk_lied(void)
{
    return disk.lied;
}

bool disk_soiled(void)
{
    return disk.soiled;
}

void disk_revive(void)
{
    disk.fuse = UINT64_MAX;
    disk.dead = false;
}

void disk_cut(uint32_t garbage)
{
    lose_names();
    while (disk.files) {
        lose_bytes(disk.files, garbage);
        forget_file(disk.files);
    }
    disk_revive();
}
