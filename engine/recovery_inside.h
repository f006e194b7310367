/*
 * recovery_inside.h - the inside of a recovery, shared by its files: reading the log, judging its damage, replaying it.
 */
#ifndef MN_ENGINE_RECOVERY_INSIDE_H
#define MN_ENGINE_RECOVERY_INSIDE_H

#include "engine/ledger.h"
#include "engine/parts.h"
#include "engine/recovery.h"
#include "engine/wal.h"
#include "engine/wal_copy.h"

/* A forget, an idem key, or an id that is suspect, with its place among the rows. */
struct mn_recovery_event {
    uint32_t rows_before;
    bool suspect;
    uint64_t at; /* offset of the record; number of the suspect */
};

/* An id that a damaged record touched. */
struct mn_recovery_suspect {
    struct mn_batch_touch touch;
    uint64_t seq;
};

/* One log segment. Filled by whichever thread takes it, then read by the replay. */
struct mn_recovery_job {
    struct mn_wal_segment segment;
    struct mn_wal_extent extent;
    struct mn_tail tail;
    struct mn_recovery_event *events;
    uint32_t event_count, event_max;
    uint64_t *assigned; /* a bit for each row: the engine gave its id */
    uint32_t assigned_max;
    struct mn_recovery_suspect *suspects;
    uint32_t suspect_count, suspect_max;
    struct mn_wal_damage *damages;
    uint32_t damage_count, damage_max;
    uint32_t lost_records;
    enum mn_status status;
    char error[256];
    bool header_lost;
    bool header_damaged; /* one of its two copies */
};

struct mn_recovery {
    struct mn_store store;
    struct mn_instance *instance;
    struct mn_manifest manifest;
    struct mn_parts parts;
    struct mn_ledger *ledger;
    struct mn_copy_heal heal;
    struct mn_recovery_job *jobs;
    uint32_t job_count, threads;
    enum mn_status (*step)(struct mn_recovery *r, struct mn_recovery_job *job); /* what the threads do to each job */
    _Atomic uint32_t next_job, jobs_done;
    _Atomic uint32_t *progress;
    uint64_t instance_gen;
    uint64_t mark_seq; /* acknowledged, as far as the mark knows */
    bool ledger_lost;
    uint32_t lost_records; /* that the log says are lost, now or since an earlier recovery */
    struct mn_recovery_report *report;
};

/* ---- recovery_read.c: the log, segments in parallel ---- */

/* Shows how far the whole of it is. Any thread. */
void mn_recovery_progress(const struct mn_recovery *r, uint32_t percent);
/* Lists, syncs, maps and scans all log segments that are needed; rows are in each job's tail then. */
enum mn_status mn_recovery_read(struct mn_recovery *r) MN_MUST_USE;
/* Reads a segment again that was mended. */
enum mn_status mn_recovery_read_again(struct mn_recovery *r, struct mn_recovery_job *job) MN_MUST_USE;
/* Unmaps and frees all that reading has made. */
void mn_recovery_free_jobs(struct mn_recovery *r);

/* ---- recovery_settle.c: the disk has what the page cache shows ---- */

/* After a failed sync the page cache shows what the disk may not have. Of what is above the acknowledged mark, whatever
 * the disk does not hold as it was read is written again and synced; on failure it must not be served. Any thread. */
enum mn_status mn_recovery_settle(struct mn_recovery *r, const struct mn_recovery_job *job) MN_MUST_USE;

/* ---- recovery_judge.c: what to make of damage ---- */

/* MN_CORRUPT when MANIFEST is lost; then segments that are missing, and the damages inside the others. */
enum mn_status mn_recovery_judge(struct mn_recovery *r) MN_MUST_USE;

/* ---- recovery_replay.c: liveness, in order ---- */

/* Adds the manifest's column segments to the parts, with their durable liveness, and enters them into the index. One
 * that cannot be opened is left out and told. */
enum mn_status mn_recovery_load_columns(struct mn_recovery *r) MN_MUST_USE;
/* Then the log's: its rows join the index and what it forgets is marked, in the order of seq; idem keys and counters
 * of ids go to the ledger. */
enum mn_status mn_recovery_replay(struct mn_recovery *r) MN_MUST_USE;

#endif
