/*
 * memory_shm.c - see memory_shm.h. A segment is a mapping with a page behind it that cannot be touched; it is kept for
 * the next segment that fits when all are gone.
 */
#include "tests/faults/corruption/memory_shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/types.h"
#include "shm/process.h"

#define PAGE       4096u
#define PIECES_MAX 64u
#define NAME_BYTES 64u
#define FD_FIRST   (1 << 21) /* above those of the memory disk */

struct piece {
    char name[NAME_BYTES]; /* empty: unlinked, or never made */
    uint8_t *base;         /* NULL: none yet */
    size_t bytes, room;
};

static struct {
    int dir_fd;
    struct piece pieces[PIECES_MAX];
    uint32_t count; /* since the last reset */
} shm = {.dir_fd = -1};

int __real_openat(int folder, const char *path, int flags, ...);
int __wrap_openat(int folder, const char *path, int flags, ...);
int __real_close(int fd);
int __wrap_close(int fd);
int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
int __real_ftruncate(int fd, off_t bytes);
int __wrap_ftruncate(int fd, off_t bytes);
int __real_fchmod(int fd, mode_t mode);
int __wrap_fchmod(int fd, mode_t mode);
int __real_posix_fallocate(int fd, off_t offset, off_t bytes);
int __wrap_posix_fallocate(int fd, off_t offset, off_t bytes);
enum mn_status __real_mn_huge_map(int fd, uint64_t bytes, bool writable, const char *name, void **base);
enum mn_status __wrap_mn_huge_map(int fd, uint64_t bytes, bool writable, const char *name, void **base);
void *__real_mmap(void *at, size_t bytes, int access, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int access, int flags, int fd, off_t offset);
int __real_munmap(void *base, size_t bytes);
int __wrap_munmap(void *base, size_t bytes);
int __real_unlinkat(int folder, const char *path, int flags);
int __wrap_unlinkat(int folder, const char *path, int flags);
int __real_faccessat(int folder, const char *path, int mode, int flags);
int __wrap_faccessat(int folder, const char *path, int mode, int flags);
uint64_t __real_mn_memory_bytes(void);
uint64_t __wrap_mn_memory_bytes(void);
uint64_t __real_mn_process_start_time(uint32_t pid);
uint64_t __wrap_mn_process_start_time(uint32_t pid);
uint64_t __real_mn_engine_fingerprint(void);
uint64_t __wrap_mn_engine_fingerprint(void);

void shm_mount(int dir_fd)
{
    shm.dir_fd = dir_fd;
    shm_reset();
}

void shm_reset(void)
{
    for (uint32_t i = 0; i < shm.count; i++)
        shm.pieces[i].name[0] = 0;
    shm.count = 0;
}

static struct piece *named(int folder, const char *name)
{
    for (uint32_t i = 0; folder == shm.dir_fd && name[0] && i < shm.count; i++)
        if (strcmp(shm.pieces[i].name, name) == 0)
            return &shm.pieces[i];
    return NULL;
}

static struct piece *opened(int fd)
{
    return fd >= FD_FIRST && fd < FD_FIRST + (int)PIECES_MAX ? &shm.pieces[fd - FD_FIRST] : NULL;
}

/* ---- calls on names ---- */

static int make(const char *name)
{
    if (shm.count == PIECES_MAX || strlen(name) >= NAME_BYTES) {
        fprintf(stderr, "memory shm: no room for %s\n", name);
        abort();
    }
    struct piece *piece = &shm.pieces[shm.count++];
    snprintf(piece->name, sizeof piece->name, "%s", name);
    piece->bytes = 0;
    return FD_FIRST + (int)(piece - shm.pieces);
}

int __wrap_openat(int folder, const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    struct piece *piece = named(folder, path);
    if (piece && (flags & O_EXCL)) {
        errno = EEXIST;
        return -1;
    }
    if (piece)
        return FD_FIRST + (int)(piece - shm.pieces);
    if (folder == shm.dir_fd && shm.dir_fd >= 0 && (flags & O_CREAT))
        return make(path);
    return __real_openat(folder, path, flags, mode);
}

int __wrap_unlinkat(int folder, const char *path, int flags)
{
    struct piece *piece = named(folder, path);
    if (!piece)
        return __real_unlinkat(folder, path, flags);
    piece->name[0] = 0;
    return 0;
}

int __wrap_faccessat(int folder, const char *path, int mode, int flags)
{
    return named(folder, path) ? 0 : __real_faccessat(folder, path, mode, flags);
}

/* ---- calls on descriptors ---- */

int __wrap_close(int fd)
{
    return opened(fd) ? 0 : __real_close(fd);
}

int __wrap_fstat(int fd, struct stat *st)
{
    const struct piece *piece = opened(fd);
    if (!piece)
        return __real_fstat(fd, st);
    *st = (struct stat){.st_size = (off_t)piece->bytes, .st_mode = S_IFREG | 0600};
    return 0;
}

/* Memory for `room` bytes: another piece's, that is not in use, or new. */
static void take_memory(struct piece *piece, size_t room)
{
    for (struct piece *other = shm.pieces + shm.count; other < shm.pieces + PIECES_MAX && piece->room != room;
         other++) {
        if (!other->base || other->room != room)
            continue;
        struct piece mine = *piece;
        piece->base = other->base;
        piece->room = other->room;
        other->base = mine.base;
        other->room = mine.room;
    }
    if (piece->room == room)
        return;
    if (piece->base)
        __real_munmap(piece->base, piece->room + PAGE);
    piece->base = __real_mmap(NULL, room + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece->base == MAP_FAILED || mprotect(piece->base + room, PAGE, PROT_NONE) != 0)
        abort();
    piece->room = room;
}

int __wrap_ftruncate(int fd, off_t bytes)
{
    struct piece *piece = opened(fd);
    if (!piece)
        return __real_ftruncate(fd, bytes);
    take_memory(piece, mn_round_up((size_t)bytes, PAGE));
    piece->bytes = (size_t)bytes;
    return 0;
}

/* What is given to a segment is zero; what is not must not be touched, and holds what was there. A stretch is given
 * once. */
int __wrap_posix_fallocate(int fd, off_t offset, off_t bytes)
{
    struct piece *piece = opened(fd);
    if (!piece)
        return __real_posix_fallocate(fd, offset, bytes);
    memset(piece->base + offset, 0, (size_t)bytes);
    return 0;
}

int __wrap_fchmod(int fd, mode_t mode)
{
    return opened(fd) ? 0 : __real_fchmod(fd, mode);
}

void *__wrap_mmap(void *at, size_t bytes, int access, int flags, int fd, off_t offset)
{
    const struct piece *piece = opened(fd);
    return piece ? piece->base + offset : __real_mmap(at, bytes, access, flags, fd, offset);
}

enum mn_status __wrap_mn_huge_map(int fd, uint64_t bytes, bool writable, const char *name, void **base)
{
    const struct piece *piece = opened(fd);
    if (!piece)
        return __real_mn_huge_map(fd, bytes, writable, name, base);
    *base = piece->base;
    return MN_OK;
}

int __wrap_munmap(void *base, size_t bytes)
{
    for (uint32_t i = 0; i < PIECES_MAX; i++)
        if (shm.pieces[i].base == base && base)
            return 0;
    return __real_munmap(base, bytes);
}

/* ---- what does not change while a case is judged ---- */

uint64_t __wrap_mn_memory_bytes(void)
{
    static uint64_t bytes;
    if (bytes == 0)
        bytes = __real_mn_memory_bytes();
    return bytes;
}

uint64_t __wrap_mn_process_start_time(uint32_t pid)
{
    static uint32_t asked;
    static uint64_t told;
    if (pid != asked)
        told = __real_mn_process_start_time(asked = pid);
    return told;
}

uint64_t __wrap_mn_engine_fingerprint(void)
{
    static uint64_t fingerprint;
    if (fingerprint == 0)
        fingerprint = __real_mn_engine_fingerprint();
    return fingerprint;
}
