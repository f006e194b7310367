/*
 * manifest.h - MANIFEST: which column segments are the store, and from where on the log is needed.
 *
 * An append-only file of chained edits. Each edit carries the whole state (a few KB at most), so the newest valid edit
 * is the store; the chain and the checksums tell a torn end (dropped: its sync never returned) from damage in the
 * middle (reported). Only the WAL writer appends. When the file has grown past MN_MANIFEST_ROLL bytes the next edit
 * goes to a new file that replaces it.
 *
 * The file is kept twice, as MANIFEST and MANIFEST.copy: an edit goes to one, then to the other. The newest valid edit
 * of either counts, so that no damage to one of them loses anything; recovery makes the other one anew, and so does the
 * writer with one that could not be written.
 */
#ifndef MN_ENGINE_MANIFEST_H
#define MN_ENGINE_MANIFEST_H

#include "engine/store.h"

#define MN_MANIFEST_ROLL         (1u << 20)
#define MN_MANIFEST_SEGMENTS_MAX 65536u

struct mn_manifest_segment {
    uint64_t id; /* folder columns/<id> */
    uint64_t rows;
    uint64_t died_seq; /* died.<died_seq>.col holds its liveness as of that seq; 0 = the one it was born with */
    uint64_t bytes;    /* of its files */
    int64_t at_min, at_max;
    uint64_t codebook; /* its inverted file is ivf.<codebook>.col; 0 = it has none */
};

struct mn_manifest {
    uint64_t edit;         /* number of the newest edit; 0 = none yet */
    uint64_t next_segment; /* ids are never given twice */
    uint64_t wal_first;    /* log segments below this are not needed any more */
    uint64_t log_seq;      /* everything up to here is in columns */
    uint64_t oldest_seq;   /* compaction has let go of versions that died up to here */
    uint64_t ledger_seq;   /* ledger.<seq> holds idem keys and id counters as of that seq; 0 = none */
    uint64_t codebook;     /* what new inverted files are made with; 0 = none yet, see engine/codebook.h */
    bool alone;            /* no part of the edit: one of the two files has it, the other one is not whole */
    uint32_t segment_count;
    uint32_t tuning[MN_TUNING_WORDS];     /* as mn_control.tuning */
    struct mn_manifest_segment *segments; /* oldest first; owned */
};

void mn_manifest_free(struct mn_manifest *manifest);
enum mn_status mn_manifest_copy(struct mn_manifest *to, const struct mn_manifest *from) MN_MUST_USE;

/* Copies the tuning to where readers take it from. Word by word: a reader in between has some new and some old
 * thresholds, each of them sound. */
void mn_manifest_publish_tuning(const struct mn_manifest *manifest, struct mn_control *control);

/* The edit as bytes (for the file, and for the compactor's proposal to the writer), malloc'd; and back (all checked).
 */
enum mn_status mn_manifest_encode(const struct mn_manifest *manifest, void **data, size_t *bytes) MN_MUST_USE;
enum mn_status mn_manifest_decode(struct mn_manifest *manifest, const void *data, size_t bytes) MN_MUST_USE;

#define MN_MANIFEST_COPIES 2u
extern const char *const mn_manifest_names[MN_MANIFEST_COPIES];

/* What was found beside the newest valid edit, in each of the copies. */
struct mn_manifest_report {
    struct mn_manifest_copy {
        uint64_t edit;          /* its newest valid one; 0 = it has none */
        uint64_t torn_bytes;    /* an unfinished edit at the end: dropped, was never acknowledged to anyone */
        uint32_t damaged_edits; /* superseded by a later valid one, here or in the other copy */
        bool missing;           /* the other one is there */
        bool behind;            /* the other one has a newer edit */
        bool late;              /* and its writer was on the way here: that is no damage */
    } copies[MN_MANIFEST_COPIES];
};
/* Reads the newest edit: the files and their names are synced first, and read past the page cache, so what was read
 * cannot be taken back by a power cut. No file: an empty manifest (edit 0). MN_CORRUPT when there is a file and no
 * valid edit in any. `report` may be NULL. */
enum mn_status mn_manifest_read(struct mn_manifest *manifest, const struct mn_store *store,
                                struct mn_manifest_report *report) MN_MUST_USE;

/* For recovery: makes a copy that is damaged, missing, torn or behind equal to the other; what was damaged is noted in
 * quarantine. What cannot be written stays as it is. */
void mn_manifest_mend(const struct mn_store *store);

/* Makes manifest->edit + 1 durable: append + fdatasync, or a rolled file. On success manifest->edit is the new number.
 * MN_VERSION_MISMATCH when the newest edit is not manifest->edit; nothing has changed then. A second copy that cannot
 * be written is no failure: manifest->alone says so. */
enum mn_status mn_manifest_append(struct mn_manifest *manifest, const struct mn_store *store) MN_MUST_USE;
/* For a writer whose manifest is alone: makes the copy that is not whole anew, as the next edit would. On success it is
 * not alone any more. */
enum mn_status mn_manifest_rejoin(struct mn_manifest *manifest, const struct mn_store *store) MN_MUST_USE;

#endif
