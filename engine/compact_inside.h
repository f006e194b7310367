/*
 * compact_inside.h - what the compact_*.c files share, and nobody else sees.
 */
#ifndef MN_ENGINE_COMPACT_INSIDE_H
#define MN_ENGINE_COMPACT_INSIDE_H

#include "engine/compact.h"
#include "engine/fault.h"
#include "engine/ivf_file.h"
#include "engine/ledger.h"
#include "engine/tail.h"
#include "engine/view.h"
#include "engine/wal.h"

/* What was last counted of a column segment, so that a plan need not look at every row each time. */
struct mn_compact_health {
    uint64_t segment;
    uint64_t dead, history_seq; /* as of the count */
    uint64_t counted_ns;
    uint64_t droppable; /* rows that a rewrite would leave out */
};

/* What was coded on a codebook since it was trained, or since the compactor was opened. */
struct mn_compact_coded {
    uint64_t codebook;
    uint64_t rows;
    double energy; /* sum of |x - c|^2 */
};

struct mn_compactor {
    struct mn_store store;
    struct mn_instance *instance;
    struct mn_reader *reader;
    struct mn_compact_health *health;
    uint32_t health_count, health_max;
    struct mn_compact_coded coded;
    uint64_t *doubts; /* segments whose inverted files are to be checked */
    uint32_t doubt_count;
    uint64_t tuned_codebook, tuned_rows; /* of the last calibration, whatever came of it, */
    uint64_t tuned_seq;                  /* and what it saw; before the first: what the compactor found */
    uint64_t came_edit, came_rows;       /* rows that have come to the columns of this manifest since tuned_seq */
    uint64_t tidied_edit;                /* nothing was left to tidy beside this manifest */
};

/* The entry of a segment, made when new. NULL: no memory. */
struct mn_compact_health *mn_compact_health_of(struct mn_compactor *compactor, uint64_t segment);

/* True when a version can be left out for good: nobody may read it any more. */
static inline bool mn_compact_droppable(uint64_t died, uint64_t history_seq)
{
    return died != MN_ALIVE && (!mn_died_suppressed(died) || MN_BUG(suppressed_dropped)) &&
           mn_died_seq(died) <= history_seq;
}

/* The liveness file of a column part. */
static inline const struct mn_live *mn_compact_live(const struct mn_part *part)
{
    return (const struct mn_live *)(const void *)((const char *)part->died - offsetof(struct mn_live, died));
}

/* Pins the newest snapshot and reads the manifest it belongs to. *agree is false while a publication is under way (or
 * recovery has not told of the newest manifest yet): nothing is pinned then, and the manifest is empty. */
enum mn_status mn_compact_pin(struct mn_reader *reader, const struct mn_store *store, struct mn_instance *instance,
                              struct mn_manifest *manifest, struct mn_snapshot *snapshot, bool *agree) MN_MUST_USE;

/* The part of a segment in a snapshot, or NULL. */
const struct mn_part *mn_compact_part(const struct mn_snapshot *snapshot, bool tail, uint64_t number);

/* True when no more rows will come to a tail part than it shows. */
bool mn_compact_sealed(const struct mn_part *part);

/* Removes files beside the column segments that a durable manifest has made obsolete: older died.<seq>.col and ledgers;
 * and what mn_compact_tidy_codes does. */
enum mn_status mn_compact_tidy(struct mn_compactor *compactor, const struct mn_manifest *manifest) MN_MUST_USE;

/* Removes inverted files, hot copies and codebooks that neither the manifest nor a view names, and what was being
 * written when a compactor died. Only while no proposal is on its way to the writer. The codebook before the newest
 * stays: codes of the tail may be on it. *left (may be NULL): some are still in a view. */
enum mn_status mn_compact_tidy_codes(struct mn_compactor *compactor, const struct mn_manifest *manifest,
                                     bool *left) MN_MUST_USE;

/* The lowest id that no folder under columns/ has, and >= manifest->next_segment. */
enum mn_status mn_compact_free_id(struct mn_compactor *compactor, const struct mn_manifest *manifest,
                                  uint64_t *id) MN_MUST_USE;

/* Removes what a build that failed made, on disk and in shared memory. */
enum mn_status mn_compact_discard(struct mn_compactor *compactor,
                                  const struct mn_compact_proposal *proposal) MN_MUST_USE;

/* ---- purges ---- */

struct mn_compact_purge {
    struct mn_str space; /* owned */
    struct mn_id id;
    uint64_t seq; /* versions born before it go */
    uint64_t hash;
};
struct mn_compact_purges {
    struct mn_compact_purge *list;
    uint32_t count, max;
};
/* Adds the purges of a log segment. */
enum mn_status mn_compact_purges_collect(struct mn_compact_purges *purges, const struct mn_store *store,
                                         uint64_t wal_number) MN_MUST_USE;
/* Adds those that the ledger still knows of: carried out but for a segment that could not be opened. */
enum mn_status mn_compact_purges_recall(struct mn_compact_purges *purges, struct mn_ledger *ledger) MN_MUST_USE;
void mn_compact_purges_free(struct mn_compact_purges *purges);
/* Marks rows of a part that a purge covers as MN_MAP_DROPPED in to[] (which may be NULL); returns how many there are.
 */
uint64_t mn_compact_purges_mark(const struct mn_compact_purges *purges, const struct mn_part *part, uint64_t *to);
/* Removes quarantined pieces that hold, or may hold, what was purged; adds to *files. */
enum mn_status mn_compact_purges_quarantine(const struct mn_compact_purges *purges, const struct mn_store *store,
                                            uint64_t *files) MN_MUST_USE;

/* ---- rows on their way ---- */

/* Numbers of one part -> numbers of the dictionary in the making. */
struct mn_compact_numbers {
    uint32_t *keys; /* number + 1; 0 = empty */
    uint32_t *values;
    uint32_t size, used; /* size: a power of two, or 0 */
};

struct mn_compact_input {
    const struct mn_part *part;
    uint64_t *to;              /* [part->rows]: the row map in the making */
    uint64_t bytes;            /* of its files, about */
    struct mn_wal_segment wal; /* tail: its log segment, for the checksums of records */
    uint32_t *clusters;        /* [part->rows]: where they are known, else MN_NONE; NULL: of no row */
    struct mn_compact_numbers numbers;
    bool forced; /* by a purge: must go, whatever cannot be read */
};

/* A row to keep, in the order of the output. */
struct mn_compact_key {
    int64_t at;
    uint32_t input, row;
};

struct mn_compact_build {
    struct mn_compactor *compactor;
    const struct mn_compact_policy *policy;
    bool (*pause)(void *context);
    void *context;
    struct mn_compact_proposal *proposal;
    struct mn_manifest manifest;
    struct mn_snapshot snapshot;
    bool pinned;
    uint64_t history_seq;
    uint64_t wal_end;         /* log segments below it are taken */
    struct mn_ledger *ledger; /* the manifest's, when log is taken */
    struct mn_compact_purges purges;
    struct mn_compact_input *inputs;
    uint32_t input_count;
    struct mn_compact_key *keys;
    uint64_t key_count;
    uint64_t rows_seen;                 /* since the last pause */
    bool history_dropped;               /* a version that as-of reads could still have asked for is left out */
    const struct mn_codebook *codebook; /* what the outputs are coded with; NULL: they are not */
};

/* Gives others a turn after every few thousand rows; MN_DEADLINE when told to stop. */
enum mn_status mn_compact_breathe(struct mn_compact_build *build) MN_MUST_USE;

/* Sorts build->keys by (at, id, born). */
enum mn_status mn_compact_sort(struct mn_compact_build *build) MN_MUST_USE;

/* Writes keys [begin, end) as column segment `id`, checks it, makes its liveness file, fills the row maps and *segment.
 */
enum mn_status mn_compact_write(struct mn_compact_build *build, uint64_t begin, uint64_t end, uint32_t output,
                                uint64_t id, struct mn_manifest_segment *segment) MN_MUST_USE;

/* ---- codes ---- */

/* Chooses the codebook of the outputs, trains the first one when it is time, and looks up the clusters that rows of the
 * inputs have already. Fails with MN_DEADLINE only: a segment without codes is better than a log that grows. */
enum mn_status mn_compact_codes_begin(struct mn_compact_build *build) MN_MUST_USE;
void mn_compact_codes_end(struct mn_compact_build *build);
/* Writes the inverted file of the output that `part` shows, keys [begin, ...), and enters it in *segment. Fails as
 * above. */
enum mn_status mn_compact_codes_write(struct mn_compact_build *build, uint64_t begin, const struct mn_part *part,
                                      struct mn_manifest_segment *segment) MN_MUST_USE;

/* Trains a new generation on evenly spread rows of a snapshot. store_rows: what it is meant for. */
enum mn_status mn_compact_train(struct mn_compactor *compactor, const struct mn_manifest *manifest,
                                const struct mn_snapshot *snapshot, uint64_t store_rows, bool (*pause)(void *context),
                                void *context, uint64_t *gen) MN_MUST_USE;
/* Notes what mn_ivf_write has told. */
void mn_compact_note_coded(struct mn_compactor *compactor, uint64_t codebook, uint64_t rows, float energy);

#endif
