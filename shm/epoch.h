/*
 * epoch.h - reader slots: how a reader keeps files from being unlinked under it.
 *
 * The epoch is control.view_gen. A reader pins by storing it in its own slot (seq_cst) and reading view_gen again until
 * both agree: without the re-read, the writer could scan the slots between the reader's load and its store, see nothing
 * pinned, and unlink what the reader is about to open. A lost or forged pin costs disk, never wrong bytes.
 */
#ifndef MN_SHM_EPOCH_H
#define MN_SHM_EPOCH_H

#include "shm/layout.h"
#include "shm/status.h"

/* The table: `slots` of control.reader_slots entries, mapped read-write. Thread and process safe. */
struct mn_epoch {
    struct mn_reader_slot *slots;
    uint32_t count;
    const struct mn_control *control;
};

/* Claims a free slot for the calling process. MN_BUSY when all are taken (the sentence names reader.slots). */
enum mn_status mn_epoch_claim(struct mn_epoch *epoch, uint32_t *slot) MN_MUST_USE;

/* Gives the slot back; it must be the caller's. */
void mn_epoch_release(struct mn_epoch *epoch, uint32_t slot);

/* Pins the newest view and returns its generation (>= 1), or 0 when no view has been published yet. One reader per
 * slot. */
uint64_t mn_epoch_pin(struct mn_epoch *epoch, uint32_t slot);
void mn_epoch_unpin(struct mn_epoch *epoch, uint32_t slot);

/* True while the slot is still the caller's (it may have been evicted): `owner` is what the slot held after the claim.
 */
bool mn_epoch_owned(const struct mn_epoch *epoch, uint32_t slot, uint64_t owner);

/* The oldest pinned epoch, or UINT64_MAX when nothing is pinned. Pins older than max_age_ns do not count (0: all do).
 */
uint64_t mn_epoch_oldest(const struct mn_epoch *epoch, uint64_t now_ns, uint64_t max_age_ns);

/* Supervisor: clears the slots of processes that are gone, and of `pid` whatever it does (0: none). Returns how many.
 */
uint32_t mn_epoch_reap(struct mn_epoch *epoch, uint32_t pid);

/* Slots in use, and the age of the oldest pin in ns. */
void mn_epoch_usage(const struct mn_epoch *epoch, uint64_t now_ns, uint32_t *used, uint64_t *oldest_pin_ns);

#endif
