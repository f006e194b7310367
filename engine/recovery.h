/*
 * recovery.h - from whatever the disk holds to a new tail that the writer can go on from.
 *
 * Reads the newest manifest, then the log after it: every checksum is checked, log segments in parallel. Damage is
 * copied to quarantine/ with a JSON note and passed over; acknowledged data is never cut off. Builds fresh tail chunks
 * and liveness files in shared memory and publishes a view of them; until then readers keep the old one. Running it
 * twice gives the same.
 *
 * A block of the log that the disk cannot read is damage like any other: what else there is is served, what is missing
 * is told. The file that has it is kept in quarantine/ under another name, and a whole one takes its place. But where
 * so much cannot be read that a forget may be hidden in it (adjoining blocks of a batch without its footer, or both
 * headers of a segment), what was forgotten would rise: MN_SYSTEM, and nothing is changed.
 */
#ifndef MN_ENGINE_RECOVERY_H
#define MN_ENGINE_RECOVERY_H

#include "engine/store.h"
#include "shm/instance.h"

struct mn_recovery_report {
    uint64_t log_bytes, log_segments, batches, rows, last_seq;
    uint64_t quarantined; /* pieces */
    uint64_t unread;      /* blocks of the log that the disk could not read */
    uint64_t healed;      /* log segments that got bytes back from their second copy */
    uint64_t torn_bytes;  /* of unfinished, never acknowledged batches at the end */
    bool lost;            /* acknowledged data is damaged: degraded, and loud */
    uint64_t scan_ns, build_ns;
};

/* Holds wal/LOCK while it runs (MN_BUSY when a writer lives). threads: 0 = one per CPU. progress: percent, may be NULL.
 */
enum mn_status mn_recover(const struct mn_store *store, struct mn_instance *instance, uint32_t threads,
                          _Atomic uint32_t *progress, struct mn_recovery_report *report) MN_MUST_USE;

#endif
