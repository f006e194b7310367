/*
 * disk.h - a disk that forgets and fails, under the system calls of a whole program.
 *
 * The program is linked with --wrap for the calls that reach a disk, so what is tried is all of the engine, mn_io_posix
 * and its loops included. Files stand in a real folder, the root; the disk remembers how to undo each call below it
 * until a sync makes it stay: bytes by 512-byte sector, lengths, and the names in each folder in their order.
 * Everything else (shared memory) passes through.
 *
 * A fuse ends the life of the process after a number of changes, wherever that is: from then on each change fails.
 * disk_cut then undoes a random part of what was not synced, as a power cut does: any subset of sectors, some of them
 * garbage when asked for, and of each folder's changes a random tail. disk_revive keeps all of it, as the kernel does
 * for a process that died alone.
 *
 * A sync that fails is the last that is heard of its pages: the kernel takes them for clean, shows them to whoever
 * reads, and reports success to the next sync. Some had landed, perhaps; the others do not reach the disk unless they
 * are written again. Whoever reads past the cache sees which.
 *
 * One disk at a time; one thread at a time (tests/faults/disk/turns.h).
 */
#ifndef MN_TESTS_FAULTS_DISK_H
#define MN_TESTS_FAULTS_DISK_H

#include <stdbool.h>
#include <stdint.h>

#define DISK_PATH_MAX 200u
#define DISK_SECTOR   512u /* what lands, or is lost, as a whole */

/* `root` exists; `trash`, a folder on the same file system and not below it, keeps removed files that may come back. */
void disk_open(const char *root, const char *trash, uint64_t seed);
void disk_close(void);

/* The life ends with the n-th change from now on; UINT64_MAX: it goes on. */
void disk_fuse(uint64_t changes);
bool disk_dead(void);
/* After everybody has closed their files. garbage: of a hundred sectors that are lost so many become garbage. */
void disk_cut(uint32_t garbage);
void disk_revive(void);

/* Which calls a trouble strikes. */
enum disk_call {
    DISK_OPEN = 1,
    DISK_MAKE = 2, /* an open that creates, mkdir */
    DISK_READ = 4,
    DISK_WRITE = 8,
    DISK_RESERVE = 16,
    DISK_SYNC = 32,
    DISK_SYNC_FOLDER = 64,
    DISK_RENAME = 128,
    DISK_REMOVE = 256,
    DISK_COPY = 512
};
struct disk_trouble {
    uint32_t calls; /* enum disk_call, any of them */
    int error;      /* errno */
    uint64_t after; /* the first so many pass, */
    uint64_t count; /* then so many fail */
};
/* Replaces the trouble there is; a zeroed one is none. */
void disk_trouble(struct disk_trouble trouble);
/* How many calls have failed since disk_trouble. */
uint64_t disk_struck(void);

/* Of a hundred calls so many are interrupted, or read or write less than was asked. */
void disk_nag(uint32_t percent);
/* Of a hundred syncs so many do nothing and say they did; those of wal/MARK are honest. */
void disk_lie(uint32_t percent);
/* True when something was lost in the last cut that a sync had said was there, and when garbage was left behind. */
bool disk_lied(void);
bool disk_soiled(void);

/* For the disk's other file: bookkeeping before a change is made. */
struct disk_counts {
    uint64_t calls, interrupted, shortened, failed, lies, sectors_lost, sectors_garbage, names_lost;
};
extern struct disk_counts disk_counts;

uint32_t disk_draw(uint32_t below);
/* Counts a change; true when the process is dead, or dies with it. */
bool disk_burns(void);
bool disk_covers(const char *path);
void disk_note_write(int fd, uint64_t offset, uint64_t bytes);
void disk_note_length(int fd);
void disk_note_sync(int fd, bool lie);
void disk_note_failed_sync(int fd);
/* Bytes as read through the cache become what the disk holds, as far as failed syncs have set the two apart. */
void disk_read_past_cache(int fd, uint8_t *data, uint64_t offset, uint64_t bytes);
enum disk_change { DISK_MADE_FILE, DISK_MADE_FOLDER, DISK_RENAMED, DISK_REMOVED_FILE, DISK_REMOVED_FOLDER };
/* Before the call; taken back when the call has failed. `from`: of a rename. */
void disk_note_name(enum disk_change change, const char *path, const char *from);
void disk_forget_name(void);
void disk_note_folder_sync(const char *path, bool lie);

#endif
