/*
 * quarantine.h - damaged pieces are copied aside with a note that a person and a program can read, never cut off.
 *
 * quarantine/wal-<number>-<offset>.bin and .json: {"file", "reason", "wal", "offset", "bytes", "first_seq", "last_seq",
 * "ids", "next"}; a second recovery finds the same names and adds nothing. `ids` ("space hash/id") are all that a whole
 * footer tells, or those whose record headers are whole.
 */
#ifndef MN_ENGINE_QUARANTINE_H
#define MN_ENGINE_QUARANTINE_H

#include "engine/wal.h"

struct mn_quarantine_note {
    uint64_t wal_number, offset, bytes;
    uint64_t first_seq, last_seq; /* what it may have held; last 0 = not known */
    const char *reason;
    const struct mn_batch_footer *footer; /* of the batch that it is, when whole: tells the ids. May be NULL */
};

/* Copies a stretch of a log segment (segment NULL: there is nothing to copy, a note alone). */
enum mn_status mn_quarantine_wal(const struct mn_store *store, const struct mn_wal_segment *segment,
                                 const struct mn_quarantine_note *note) MN_MUST_USE;
/* Gives a log segment that the disk cannot read in places a second name, quarantine/wal-<number>-unread.wal (-2, -3 ...
 * when it happens to that number again), with a note: its blocks stay as they are when another file takes its place. */
enum mn_status mn_quarantine_unread(const struct mn_store *store, const struct mn_quarantine_note *note) MN_MUST_USE;
/* Copies ledger.<seq> aside, if it is there, with a note (quarantine/ledger.<seq>.bin and .json). */
enum mn_status mn_quarantine_ledger(const struct mn_store *store, uint64_t seq, const char *reason) MN_MUST_USE;
/* A piece of a log segment that was damaged and is whole again: `bytes` (0: none) of it as they were, with a note
 * (quarantine/healed-<kind>-<number>-<offset>.bin and .json). It takes nothing from the store: mn_quarantine_holds does
 * not count it. Any later purge removes it. */
enum mn_status mn_quarantine_healed(const struct mn_store *store, const char *kind, uint64_t number, uint64_t offset,
                                    const void *before, uint64_t bytes, const char *reason) MN_MUST_USE;
/* A note on a column segment, which stays where it is. */
enum mn_status mn_quarantine_note_columns(const struct mn_store *store, uint64_t segment,
                                          const char *reason) MN_MUST_USE;
/* True when anything is in quarantine that is not healed: a note, or a piece whose note is gone. */
bool mn_quarantine_holds(const struct mn_store *store);
/* For verify: each note's checksum, and that of the piece that it speaks of; a piece without a note. */
enum mn_status mn_quarantine_verify(const struct mn_store *store, uint64_t *files, mn_damage_fn damaged,
                                    void *context) MN_MUST_USE;

#endif
