/*
 * lossy_disk.h - a disk that forgets: files stand in a real folder, and what was not synced when the power went is lost
 * in part.
 *
 * The table passes every call on to mn_io_posix and remembers how to undo it until a sync makes it stay: bytes by
 * 512-byte sector, lengths, and the names in each folder (made, renamed, removed) in their order. A fuse ends the power
 * after a number of operations, wherever that is; from then on everything that would change the disk fails.
 * lossy_disk_cut then undoes a random part of what was not synced: any subset of sectors, and of each folder's changes
 * a random tail. One disk at a time; calls may come from several threads.
 */
#ifndef MN_TESTS_LOSSY_DISK_H
#define MN_TESTS_LOSSY_DISK_H

#include "engine/io.h"

/* The table. `trash`: a folder that the disk may keep removed files in; on the same file system. */
const struct mn_io *lossy_disk_open(const char *trash, uint64_t seed);
void lossy_disk_close(void);

/* The power goes with the n-th changing operation from now on; UINT64_MAX: it stays. */
void lossy_disk_fuse(uint64_t operations);
bool lossy_disk_dead(void);

/* After everybody has closed their files: what was not synced is undone in part, and the power is back. */
void lossy_disk_cut(void);

#endif
