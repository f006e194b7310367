/*
 * writer_state.h - the inside of the writer, shared by its files: admission, commit, housekeeping, compaction's commit,
 * selections.
 */
#ifndef MN_ENGINE_WRITER_STATE_H
#define MN_ENGINE_WRITER_STATE_H

#include "engine/kernels.h"
#include "engine/ledger.h"
#include "engine/parts.h"
#include "engine/wal.h"
#include "engine/writer.h"

#define MN_DUP_SLOTS     16384u /* at least twice the ids of a request */
#define MN_HISTORY_SLOTS 1024u

/* A file that no view lists any more, until no reader pins an older view. */
enum mn_limbo_kind { MN_LIMBO_VIEW, MN_LIMBO_CHUNK, MN_LIMBO_WAL, MN_LIMBO_COLUMNS, MN_LIMBO_SHARED };
struct mn_limbo {
    uint64_t gen; /* the first view without it */
    enum mn_limbo_kind kind;
    uint64_t number, file_gen;
    char name[64]; /* MN_LIMBO_SHARED: any file of the instance's folder */
};

/* Changes that are committed together. */
struct mn_writer_batch {
    struct mn_batch log; /* their records; none: the batch is empty */
    struct mn_mark *marks;
    uint32_t mark_count, mark_max;
    uint32_t memories, forgets;
    uint32_t rows_end; /* behind its last row in the active chunk; set when it is written */
};

struct mn_writer {
    struct mn_store store;
    struct mn_instance *instance;
    struct mn_control *control;
    struct mn_settings settings;
    struct mn_stats_page *stats;
    int lock_fd;
    struct mn_parts parts;
    struct mn_manifest manifest;
    struct mn_ledger *ledger;
    const struct mn_kernels *kernels;
    struct mn_wal wal; /* the active log segment; wal.store NULL = none is begun */
    struct mn_wal_keeper *keeper;
    uint32_t active; /* part number of its chunk */
    uint64_t tail_rows;
    uint64_t seq; /* the newest given out */
    uint64_t instance_gen;
    struct mn_writer_batch batch;   /* takes what is admitted */
    struct mn_writer_batch written; /* the one before, on its way to the disk and not published yet; or empty */
    bool broken;                    /* a change was admitted by half: nothing more is written */
    /* scratch of one admission */
    struct mn_id ids[MN_REQUEST_ROWS_MAX];
    float scales[MN_REQUEST_ROWS_MAX];
    struct mn_id_run runs[MN_REQUEST_ROWS_MAX];
    uint32_t run_count;
    uint8_t idem_bytes[MN_IDEM_RECORD_MAX(MN_REQUEST_ROWS_MAX)];
    struct {
        uint32_t stamp;
        struct mn_id id;
    } seen[MN_DUP_SLOTS];
    uint32_t seen_stamp;
    /* housekeeping */
    struct mn_limbo *limbo;
    uint32_t limbo_count, limbo_max;
    struct {
        int64_t wall_ns;
        uint64_t seq;
    } history[MN_HISTORY_SLOTS]; /* a ring: what was visible when */
    uint32_t history_at, history_count;
    uint64_t gauges_ns, manifest_tried_ns;
    uint64_t purge_admitted, purge_done; /* seqs; 0: none by this writer, and none in the log that it found */
    uint64_t purge_rewritten, purge_gen; /* up to that seq rewritten; gone when limbo below that view is empty */
    uint64_t purge_files;
    uint64_t purge_unsearched; /* a column segment that may hold what was purged and cannot be opened; 0: none */
    uint64_t purge_repeat_at;  /* how far the purges in the ledger's marks have been said again */
    uint64_t missing;          /* a column segment that could not be opened; 0: none */
    uint32_t selections;
};

/* ---- writer_commit.c ---- */

/* What an admission is going to add. */
struct mn_room {
    uint64_t bytes; /* of records */
    uint32_t records, rows;
    uint64_t touched; /* ids */
    uint64_t arena;   /* strings and tag lists, at most */
};
/* Makes sure that it fits: MN_NOT_READY when the batch must be committed first, MN_BUSY above tail.rows_max; begins or
 * rotates the log segment when that helps. */
enum mn_status mn_writer_make_room(struct mn_writer *writer, const struct mn_room *room) MN_MUST_USE;
/* Has a died word changed when the batch is published. */
enum mn_status mn_writer_add_mark(struct mn_writer *writer, const struct mn_mark *mark) MN_MUST_USE;
/* Publishes the next view of the current parts. What the old one alone listed is the caller's to retire. */
enum mn_status mn_writer_new_view(struct mn_writer *writer) MN_MUST_USE;

/* ---- writer.c ---- */

/* Sets `missing`, when the manifest or the parts have changed. */
void mn_writer_look_for_missing(struct mn_writer *writer);

/* ---- writer_tend.c ---- */

/* Has a file removed when no reader pins a view before entry.gen any more. */
enum mn_status mn_writer_retire(struct mn_writer *writer, struct mn_limbo entry) MN_MUST_USE;
/* At open: files that nothing refers to, left by an earlier writer or recovery. */
enum mn_status mn_writer_sweep(struct mn_writer *writer) MN_MUST_USE;

/* ---- what is told ---- */

/* Tells processes and people how many visible rows are not in columns: before those rows are acknowledged. */
static inline void mn_writer_show_tail(struct mn_writer *writer, uint64_t rows)
{
    atomic_store_explicit(&writer->control->tail_rows, rows, memory_order_relaxed);
    mn_stat_set(writer->stats, MN_STAT_tail_rows, rows);
}

/* ---- places ---- */

/* The current row of a place. */
static inline const struct mn_part *mn_writer_part(const struct mn_writer *writer, struct mn_place place)
{
    return &writer->parts.own[place.part]->part;
}
/* Rows of the batch in the making are not in the mapped log yet: what copies their bytes waits for the commit
 * (MN_NOT_READY). */
static inline bool mn_writer_in_log(const struct mn_writer *writer, struct mn_place place)
{
    return place.row < mn_writer_part(writer, place)->rows;
}

/* ---- writer_admit.c ---- */

/* True when an id has a version that a client can see: there, not suppressed, not expired. */
bool mn_writer_visible(struct mn_writer *writer, struct mn_str space, const struct mn_id *id, uint64_t hash,
                       int64_t now, struct mn_place *place);
/* What every write must meet: lengths of space and idem key, room for another key (MN_BUSY), a disk that is not full
 * (MN_READ_ONLY), a writer that has not failed (MN_INTERNAL). */
enum mn_status mn_writer_check(struct mn_writer *writer, const struct mn_write *write) MN_MUST_USE;
/* Adds the record of an idem key to the batch and to the ledger; nothing without a key. */
enum mn_status mn_writer_add_idem(struct mn_writer *writer, const struct mn_write *write, uint64_t seq,
                                  uint32_t count) MN_MUST_USE;
/* What such a record may take of the log, in bytes. */
uint64_t mn_writer_idem_room(const struct mn_write *write);
/* Encodes a memory, fills its row, supersedes what was there. flags: MN_RECORD_ASSIGNED. */
enum mn_status mn_writer_add_put(struct mn_writer *writer, const struct mn_write *write, const struct mn_id *id,
                                 uint32_t flags, const struct mn_memory *memory, float scale, uint64_t seq) MN_MUST_USE;
/* Adds to *room what a memory may take. */
void mn_writer_put_room(const struct mn_writer *writer, struct mn_str space, const struct mn_memory *memory,
                        struct mn_room *room);

#endif
