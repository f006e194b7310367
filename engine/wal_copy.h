/*
 * wal_copy.h - the log kept twice: each log segment has a twin of the same bytes in a second folder, meant for another
 * disk (settings store.copies and store.copy_dir).
 *
 *   <copy_dir>/COPY      whose copy this is: the store's uuid, the pairing, the store's folder
 *   <copy_dir>/LOCK      held by whoever writes there
 *   <copy_dir>/wal/      the twins, under the names of their originals
 *   <store>/COPY         where the copy is, and the same pairing: a number that was drawn when the two first met
 *
 * The pairing tells a copy from what another folder of the same store (a snapshot that was started, an old backup) has
 * left there. A batch is written and synced in both folders, at the same time, before it is acknowledged. When the copy
 * cannot be written, the writer goes on with the original alone, MN_DEGRADED_COPY is set before the next
 * acknowledgement, and a thread brings the copy up to date as soon as it can be written again, without a restart.
 * Recovery compares the two and heals whichever is damaged (wal_copy_heal.c).
 */
#ifndef MN_ENGINE_WAL_COPY_H
#define MN_ENGINE_WAL_COPY_H

#include "config/settings.h"
#include "engine/columns.h"
#include "engine/store.h"

/* ---- the folder (wal_copy_folder.c) ---- */

/* Where a store's log is kept a second time. */
struct mn_copy_folder {
    struct mn_store home;
    struct mn_store copy; /* the same store with the copy's folder: mn_store_wal_path, mn_wal_map... work on twins */
    uint8_t pair[16];
    int lock_fd; /* -1 = not held */
    bool fresh;  /* mn_copy_folder_enter had to make it, or found it empty */
};

/* From <store>/COPY. MN_NOT_FOUND: the log is kept once. MN_CORRUPT: the note is damaged. Takes no lock. */
enum mn_status mn_copy_folder_noted(struct mn_copy_folder *folder, const struct mn_store *store) MN_MUST_USE;

/* For recovery: the noted folder, when it holds the copy and nobody else writes there; locked. MN_NOT_FOUND: the log is
 * kept once. Makes nothing. */
enum mn_status mn_copy_folder_rejoin(struct mn_copy_folder *folder, const struct mn_store *store) MN_MUST_USE;

/* For the supervisor's start, changes nothing: MN_USAGE when the settings make no sense, MN_EXISTS when the folder is
 * another store's or holds other files. A folder that cannot be reached is no failure: the writer tells of it. */
enum mn_status mn_copy_folder_check(const struct mn_store *store, const struct mn_settings *settings) MN_MUST_USE;

/* Makes `dir` (0700) and what is in it when missing, checks whose it is, locks it, and notes it in the store. Harmless
 * on a folder that was entered before: it is looked at anew. */
enum mn_status mn_copy_folder_enter(struct mn_copy_folder *folder, const struct mn_store *store,
                                    const char *dir) MN_MUST_USE;
/* True while the folder still stands where it was entered. */
bool mn_copy_folder_stands(const struct mn_copy_folder *folder);
void mn_copy_folder_leave(struct mn_copy_folder *folder);

/* The log is kept once from now on: removes the copy as far as it can be reached, and the note. Nothing noted is no
 * failure; else `dir` (MN_PATH_MAX bytes) is where it was, "" when it was nowhere. */
enum mn_status mn_copy_folder_drop(const struct mn_store *store, char *dir) MN_MUST_USE;

/* For `mneme verify`: the twin of a log segment, with every checksum; *bytes grows by its length. Nothing when the log
 * is kept once. */
enum mn_status mn_copy_folder_verify(const struct mn_store *store, uint64_t number, uint64_t durable_seq,
                                     uint64_t *bytes, mn_damage_fn damaged, void *context) MN_MUST_USE;

/* ---- writing (wal_copy_open.c, wal_copy.c); every call takes NULL for a log that is kept once ---- */

struct mn_wal_copy;
struct mn_wal_header;

/* For a writer that holds wal/LOCK, after recovery: *copy is NULL when the settings say so (a copy from before is
 * dropped then). reasons: MN_DEGRADED_COPY comes and goes there; set by recovery it means that twins which are there
 * may not be trusted. wal_first: older segments need no twin. A folder that cannot be used is no failure. */
enum mn_status mn_wal_copy_open(struct mn_wal_copy **copy, const struct mn_store *store,
                                const struct mn_settings *settings, _Atomic uint32_t *reasons,
                                uint64_t wal_first) MN_MUST_USE;
void mn_wal_copy_close(struct mn_wal_copy *copy);

/* A log segment is prepared, or again: its twin is wanted. settled: it has one, or will do without; a disk that has not
 * answered for store.copy_wait is given up here. Neither waits. */
void mn_wal_copy_want(struct mn_wal_copy *copy, uint64_t number, uint64_t bytes);
bool mn_wal_copy_settled(struct mn_wal_copy *copy, uint64_t number);

/* A log segment of that length and header is begun and ended, by the writer's thread: its prepared twin, if it has one,
 * is opened and written to by the syncer. */
void mn_wal_copy_begin(struct mn_wal_copy *copy, const struct mn_wal_header *header);
void mn_wal_copy_end(struct mn_wal_copy *copy, uint64_t number);
/* Has bytes written and synced by the syncer; `data` must stay as it is until mn_wal_copy_wait, which returns when
 * they are durable or the copy has failed: a disk that does not answer within store.copy_wait has. No call of this file
 * waits longer for the copy's disk. */
void mn_wal_copy_write(struct mn_wal_copy *copy, uint64_t number, const void *data, uint64_t bytes, uint64_t offset);
void mn_wal_copy_wait(struct mn_wal_copy *copy);

/* For the writer's housekeeping. wants_seal: the active log segment is written once, and the copy could be whole again
 * were it ended. first: older segments need no twin any more. current: each segment has its twin. clean: and none is
 * there that should be gone. */
bool mn_wal_copy_wants_seal(struct mn_wal_copy *copy);
void mn_wal_copy_first(struct mn_wal_copy *copy, uint64_t wal_first);
bool mn_wal_copy_current(struct mn_wal_copy *copy);
bool mn_wal_copy_clean(struct mn_wal_copy *copy);
/* What has happened since the last call, as a sentence for the log; false: nothing. */
bool mn_wal_copy_news(struct mn_wal_copy *copy, char *text, size_t size);
/* Bytes of log that the other thread has copied to bring the folder up to date. */
uint64_t mn_wal_copy_mended(struct mn_wal_copy *copy);

/* ---- healing (wal_copy_heal.c) ---- */

/* A recovery's view of the copy. */
struct mn_copy_heal {
    struct mn_copy_folder folder;
    bool there;                      /* the copy can be used */
    _Atomic bool uncertain;          /* a twin may not be what it should be, or the folder could not be used */
    _Atomic uint32_t healed, mended; /* segments that got bytes back from their twins; twins that got theirs back */
};

/* Finds the copy, if the log is kept twice, and brings back log segments from wal_first on that are missing in the
 * store. heal_segment compares a segment with its twin and repairs both, in any thread; begin comes before the
 * segments are listed, heal_segment before one is read. Failures are those of the store's own folder. */
enum mn_status mn_copy_heal_begin(struct mn_copy_heal *heal, const struct mn_store *store,
                                  uint64_t wal_first) MN_MUST_USE;
enum mn_status mn_copy_heal_segment(struct mn_copy_heal *heal, uint64_t number) MN_MUST_USE;
void mn_copy_heal_end(struct mn_copy_heal *heal);

#endif
