/*
 * memory_disk.h - the files of a store in memory, behind the engine's I/O table: damaged, read and put back a thousand
 * times a second.
 *
 * A disk is taken from a real folder once. While it is mounted at a folder, every path below that folder is a file of
 * the disk, and all other paths are the kernel's. What was taken stays: disk_reset makes the mounted files what they
 * were. A mapping ends at its last page as in life, and what reads on behind it dies. One disk is mounted at a time;
 * one thread.
 */
#ifndef MN_TESTS_MEMORY_DISK_H
#define MN_TESTS_MEMORY_DISK_H

#include "engine/io.h"

#define DISK_FILES_MAX  512u
#define DISK_NAME_BYTES 96u

struct disk_blob {
    uint8_t *data;
    size_t bytes, room;
    bool kept; /* as taken: outlives a reset, and is not written on */
    struct disk_blob *next;
};

struct disk_file {
    char name[DISK_NAME_BYTES]; /* relative to the folder; empty: a free place */
    struct disk_blob *blob;
};

struct disk {
    struct disk_file files[DISK_FILES_MAX];
    uint32_t count;
};

/* Reads all regular files below `dir`, but for locks and run/, in the order of their names. */
void disk_take(struct disk *disk, const char *dir);

/* From now on `dir` shows the disk's files as they were taken. */
void disk_mount(const struct disk *disk, const char *dir);
const struct mn_io *disk_io(void);
void disk_reset(void);

/* The mounted file as it is now, or NULL. */
const struct disk_blob *disk_find(const char *name);
/* Puts other bytes in its place (the file may be new), removes it, exchanges two. */
void disk_put(const char *name, const void *data, size_t bytes);
void disk_remove(const char *name);
void disk_swap(const char *a, const char *b);
/* Changes a bit of a file as it was taken; a second time puts it back. */
void disk_flip(const char *name, uint64_t bit);

#endif
