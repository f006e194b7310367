/*
 * compact.h - compaction: a prefix of the log, and column segments that have grown stale, become new column segments.
 *
 * The compactor prepares, the WAL writer commits (engine/writer.h, mn_writer_commit_proposal):
 *   plan     what to take: sealed log segments from the front, and segments to merge, rewrite (dead rows) or purge
 *   build    rows sorted by (at, id) into columns/<id>.tmp, synced, renamed; died.<seq>.col for the segments that stay
 *            and whose liveness changed; ledger.<seq>; liveness files for the new segments in shared memory
 *   propose  the next manifest and, per input part, a map old row -> new row
 *
 * Forgets that arrive during the build are in the inputs' liveness; the writer carries them over through the maps. A
 * version is left out when it died at or before history_seq and is not suppressed, when it has expired, or when a purge
 * in the log covers it. Column segments that hold any version of a purged id are always among the inputs.
 */
#ifndef MN_ENGINE_COMPACT_H
#define MN_ENGINE_COMPACT_H

#include "engine/manifest.h"
#include "engine/reader.h"

struct mn_compact_policy {
    uint64_t min_rows;         /* sealed log rows that are worth a compaction */
    uint32_t min_log_segments; /* or that many sealed log segments */
    uint32_t fanout;           /* segments of one size class before they merge */
    uint32_t dead_percent;     /* dead rows that make a segment worth rewriting */
    uint64_t segment_rows_max;
    int64_t idem_window_ns;     /* idem keys admitted longer ago are left out of the ledger; 0 = none is */
    uint64_t codebook_rows_min; /* rows in columns that are worth a codebook; 0 = nothing is coded, and what was is not
                                   used any more */
    uint64_t ivf_rows_min;      /* rows of a segment that are worth an inverted file */
};

struct mn_compact_plan {
    uint64_t wal_end;       /* takes log segments below this number (all >= manifest.wal_first); == wal_first: none */
    uint64_t log_rows;      /* in them */
    uint32_t segment_count; /* column segments taken */
    uint64_t *segments;     /* their ids; owned */
    bool worth;             /* by policy; `force` takes whatever there is */
};

/* Row of an input part (a log segment's chunk, or a column segment) -> where it went. */
#define MN_MAP_DROPPED UINT64_MAX
struct mn_row_map {
    bool tail;
    uint64_t number; /* of the input part */
    uint64_t rows;
    uint64_t *to; /* output index << 32 | row, or MN_MAP_DROPPED */
};

/* What the compactor proposes. Everything it names is durable, but for the manifest edit itself. */
struct mn_compact_proposal {
    uint64_t base_edit; /* the manifest it was made from */
    struct mn_manifest next;
    uint32_t output_count;
    uint64_t *outputs; /* ids of the new segments; live.<live_gen>.<id> is laid out and published in shared memory */
    uint64_t live_gen;
    uint32_t map_count;
    struct mn_row_map *maps;
    uint64_t rows_in, rows_out, bytes_out, files_rewritten;
    uint64_t purge_seq;  /* purges up to here are carried out, */
    uint64_t unsearched; /* but for this segment, which cannot be opened and so not be searched; 0: none */
    uint64_t rows_lost;  /* left out because they cannot be read and a purge forced their segment to be rewritten */
    /* Of codes; they stay with the compactor. */
    uint64_t rows_coded;
    uint32_t codebooks_trained, code_failures;
    char code_failure[256]; /* why the last one failed */
};

struct mn_compactor; /* a reader slot, scratch */

/* One at a time in an instance, which must outlive it. MN_BUSY when no reader slot is free. */
enum mn_status mn_compactor_open(struct mn_compactor **compactor, const struct mn_store *store,
                                 struct mn_instance *instance) MN_MUST_USE;
void mn_compactor_close(struct mn_compactor *compactor);

/* Removes what a compactor that died, or a proposal that was refused, has left: column folders, liveness, ledger files,
 * codes and hot copies of them that neither the manifest nor a view names. Only while no proposal is on its way to the
 * writer. */
enum mn_status mn_compactor_sweep(struct mn_compactor *compactor) MN_MUST_USE;

/* Decides what to take from the current manifest and view. force: everything in sealed log segments and every segment
 * with rows that can be dropped, whatever the policy. Nothing is worth it while a publication is under way. */
enum mn_status mn_compact_plan_make(struct mn_compactor *compactor, const struct mn_compact_policy *policy, bool force,
                                    struct mn_compact_plan *plan) MN_MUST_USE;
void mn_compact_plan_free(struct mn_compact_plan *plan);

/* Builds what the plan says. `pause` (may be NULL) is called every few thousand rows (yield, throttle); true from it
 * gives the build up (MN_DEADLINE). MN_BUSY when the plan is stale: plan again. MN_READ_ONLY when the disk has no room
 * for it. MN_CORRUPT when a row cannot be read; later plans then leave that column segment where it is. */
enum mn_status mn_compact_build(struct mn_compactor *compactor, const struct mn_compact_plan *plan,
                                const struct mn_compact_policy *policy, bool (*pause)(void *context), void *context,
                                struct mn_compact_proposal *proposal) MN_MUST_USE;
void mn_compact_proposal_free(struct mn_compact_proposal *proposal);

/* ---- codes ---- */

/* What mn_compact_care_for came to. */
struct mn_compact_care {
    bool worth;       /* the proposal is to be published */
    bool looked;      /* false: a publication was under way, look again */
    bool sound;       /* every inverted file that the manifest names can be used */
    uint64_t segment; /* that was coded; 0: none was */
    bool tuned;       /* recall was calibrated */
};
/* Looks after codes, one step at a time, when there is nothing to compact: trains the codebook that the store needs,
 * codes a segment that has no codes, damaged ones, or codes on an older codebook; calibrates recall when the store has
 * changed. The proposal moves no rows. Failures are those of mn_compact_build; nothing is left to free then. */
enum mn_status mn_compact_care_for(struct mn_compactor *compactor, const struct mn_compact_policy *policy,
                                   bool (*pause)(void *context), void *context, struct mn_compact_proposal *proposal,
                                   struct mn_compact_care *care) MN_MUST_USE;
/* Somebody has found codes damaged: the codebook and all inverted files (segment 0), or one segment's, are checked
 * whole by the next mn_compact_care_for. */
enum mn_status mn_compact_doubt(struct mn_compactor *compactor, uint64_t segment) MN_MUST_USE;

/* The proposal's way to the writer: the file `name` in the instance's shared memory folder (an older one of that name
 * is replaced), checked whole when it is read. Whoever is done with it unlinks it. */
enum mn_status mn_compact_proposal_write(const struct mn_compact_proposal *proposal, struct mn_instance *instance,
                                         const char *name) MN_MUST_USE;
enum mn_status mn_compact_proposal_read(struct mn_compact_proposal *proposal, struct mn_instance *instance,
                                        const char *name) MN_MUST_USE;

#endif
