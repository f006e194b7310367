/*
 * manifest.h - MANIFEST: which column segments are the store, and from where on the log is needed.
 *
 * An append-only file of chained edits. Each edit carries the whole state (a few KB at most), so the newest valid edit
 * is the store; the chain and the checksums tell a torn end (dropped: its sync never returned) from damage in the
 * middle (reported). Only the WAL writer appends, and recovery when it starts a fresh file. When the file has grown
 * past MN_MANIFEST_ROLL bytes the next edit goes to a new file that replaces it.
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

/* What was found beside the newest valid edit. */
struct mn_manifest_report {
    uint64_t torn_bytes;    /* an unfinished edit at the end: dropped, was never acknowledged to anyone */
    uint32_t damaged_edits; /* in the middle: superseded by a later valid one */
};
/* Reads the newest edit, and syncs the file first: what was read cannot be taken back by a power cut. No file: an empty
 * manifest (edit 0). MN_CORRUPT when there is a file and no valid edit in it. `report` may be NULL. */
enum mn_status mn_manifest_read(struct mn_manifest *manifest, const struct mn_store *store,
                                struct mn_manifest_report *report) MN_MUST_USE;

/* Makes manifest->edit + 1 durable: append + fdatasync, or a rolled file. On success manifest->edit is the new number.
 * MN_VERSION_MISMATCH when the file's newest edit is not manifest->edit; nothing has changed then. */
enum mn_status mn_manifest_append(struct mn_manifest *manifest, const struct mn_store *store) MN_MUST_USE;

#endif
