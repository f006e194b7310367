/*
 * disk.c - a disk that keeps a diary: a FUSE file system of one file, `disk`, to be loop-mounted or given to a machine.
 *
 *     power_disk IMAGE DIARY CONTROL MOUNTPOINT         runs until it is unmounted
 *
 * IMAGE    the disk's bytes; its size is the disk's.
 * DIARY    each write with its bytes, and each flush, in the order in which they came; appended to. Its reader decides
 *          afterwards what a power cut would have left of the writes that no flush followed (diary.py).
 * CONTROL  a page shared with the harness (struct control): how far the diary is, and ranges that cannot be read.
 *
 * One thread serves, so the diary has one order, and a write is told to be done before the next request is looked at: a
 * flush covers all that stands before it. Nothing is cached on the way here (direct_io). Discards and zeroing are not
 * offered; the kernel writes zeros instead. Trouble of its own (no room for the diary) ends it: nothing that is not in
 * the diary may be told to be done.
 */
#define FUSE_USE_VERSION 31
#include <fuse.h>

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define DISK      "/disk"
#define BAD_MAX   64u
#define PAGE_SIZE 4096u

/* The diary: a header each, and behind that of a write its bytes. */
enum { WRITE = 1, FLUSH = 2 };
struct entry {
    uint64_t offset;
    uint32_t length, kind;
};
_Static_assert(sizeof(struct entry) == 16, "diary.py reads it");

/* CONTROL. The disk alone writes the first two words, the harness alone the others; `bad_count` is set last. */
struct control {
    _Atomic uint64_t entries;   /* how many the diary has */
    _Atomic uint64_t refused;   /* reads that met a bad range */
    _Atomic uint64_t bad_count; /* ranges below that fail with EIO when they are read */
    uint64_t bad[BAD_MAX][2];   /* first byte, byte behind the last */
};
_Static_assert(sizeof(struct control) <= PAGE_SIZE, "a page");

static int image_fd, diary_fd;
static off_t disk_size;
static struct control *control;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void note(uint32_t kind, const char *bytes, size_t length, off_t offset)
{
    struct entry entry = {.offset = (uint64_t)offset, .length = (uint32_t)length, .kind = kind};
    struct iovec pieces[2] = {{&entry, sizeof entry}, {(void *)(uintptr_t)bytes, length}};
    ssize_t all = (ssize_t)(sizeof entry + length);
    if (writev(diary_fd, pieces, 2) != all)
        die("the diary");
    atomic_fetch_add_explicit(&control->entries, 1, memory_order_release);
}

static int show(const char *path, struct stat *st, struct fuse_file_info *file)
{
    (void)file;
    memset(st, 0, sizeof *st);
    if (strcmp(path, "/") == 0) {
        st->st_mode = S_IFDIR | 0700;
        st->st_nlink = 2;
        return 0;
    }
    if (strcmp(path, DISK) != 0)
        return -ENOENT;
    st->st_mode = S_IFREG | 0600;
    st->st_nlink = 1;
    st->st_size = disk_size;
    st->st_blocks = disk_size / 512;
    return 0;
}

static int begin(const char *path, struct fuse_file_info *file)
{
    file->direct_io = 1;
    return strcmp(path, DISK) == 0 ? 0 : -ENOENT;
}

/* Opening with O_TRUNC, and utimes of whoever wrote: a disk has neither. */
static int keep_size(const char *path, off_t size, struct fuse_file_info *file)
{
    (void)path;
    (void)file;
    return size == disk_size ? 0 : -EPERM;
}

static int is_bad(off_t offset, size_t length)
{
    uint64_t count = atomic_load_explicit(&control->bad_count, memory_order_acquire);
    for (uint64_t i = 0; i < count && i < BAD_MAX; i++)
        if ((uint64_t)offset < control->bad[i][1] && (uint64_t)offset + length > control->bad[i][0])
            return 1;
    return 0;
}

static int get(const char *path, char *bytes, size_t length, off_t offset, struct fuse_file_info *file)
{
    (void)path;
    (void)file;
    if (is_bad(offset, length)) {
        atomic_fetch_add(&control->refused, 1);
        return -EIO;
    }
    ssize_t got = pread(image_fd, bytes, length, offset);
    return got < 0 ? -errno : (int)got;
}

static int put(const char *path, const char *bytes, size_t length, off_t offset, struct fuse_file_info *file)
{
    (void)path;
    (void)file;
    if (offset < 0 || offset > disk_size || (off_t)length > disk_size - offset)
        return -ENOSPC;
    if (pwrite(image_fd, bytes, length, offset) != (ssize_t)length)
        die("the image");
    note(WRITE, bytes, length, offset);
    return (int)length;
}

static int sync_all(const char *path, int datasync, struct fuse_file_info *file)
{
    (void)path;
    (void)datasync;
    (void)file;
    note(FLUSH, NULL, 0, 0);
    return 0;
}

static const struct fuse_operations operations = {
    .getattr = show, .open = begin, .truncate = keep_size, .read = get, .write = put, .fsync = sync_all};

static void open_files(char **names)
{
    struct stat st;
    int fd;
    if ((image_fd = open(names[0], O_RDWR | O_CLOEXEC)) < 0 || fstat(image_fd, &st) != 0)
        die(names[0]);
    disk_size = st.st_size;
    if ((diary_fd = open(names[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)) < 0)
        die(names[1]);
    if ((fd = open(names[2], O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0 || ftruncate(fd, PAGE_SIZE) != 0)
        die(names[2]);
    control = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED)
        die(names[2]);
    close(fd);
}

int main(int count, char **words)
{
    if (count != 5) {
        fprintf(stderr, "usage: power_disk IMAGE DIARY CONTROL MOUNTPOINT\n");
        return 2;
    }
    open_files(words + 1);
    char *arguments[] = {words[0], (char[]){"-f"}, (char[]){"-s"}, words[4], NULL};
    return fuse_main(4, arguments, &operations, NULL);
}
