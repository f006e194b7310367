/*
 * compactor.h - what the compactor's source files share:
 *   compactor_role.c   the role: requests, the queue of jobs, what to do next
 *   compactor_work.c   a compaction: plan, build, propose, and what the writer makes of it
 *   compactor_care.c   codebooks and inverted files, looked after when there is nothing to compact
 *   compactor_hot.c    hot copies of codes in shared memory
 *   compactor_watch.c  what the columns look like: residency, verify
 *   compactor_scrub.c  the scrubber: looks for rot, and mends it
 *   compactor_load.c   how busy recall is
 *   compactor_codes.c  the thread that codes the tail
 */
#ifndef MN_ACTORS_COMPACTOR_H
#define MN_ACTORS_COMPACTOR_H

#include "actors/actor.h"
#include "actors/compactor_codes.h"
#include "actors/compactor_load.h"
#include "actors/link.h"
#include "actors/router.h"
#include "actors/wire_read.h"
#include "actors/wire_reply.h"
#include "engine/columns_repair.h"
#include "engine/compact.h"
#include "engine/manifest.h"

#define MN_JOBS_MAX 64

/* Something asked for over the role's socket. */
struct mn_job {
    enum mn_op op; /* MN_OP_CONSOLIDATE, MN_OP_SNAPSHOT, MN_OP_VERIFY */
    bool replies;  /* somebody waits */
    struct mn_peer peer;
    char *rid; /* msgpack bytes, owned; NULL = none */
    uint32_t rid_bytes;
    char *path; /* snapshot; owned */
};

/* One life of the writer. What one life was asked, the next does not answer. */
struct mn_writer_life {
    uint32_t pid; /* 0 = no writer serves */
    uint64_t start_time;
};

/* A mapped segment whose residency is watched. */
struct mn_watched {
    uint64_t id;
    struct mn_columns *columns;
    bool seen; /* the newest manifest names it */
};

/* A walk of the scrubber through all segments. */
struct mn_scrub_round {
    bool under_way;
    struct mn_columns_scrub at; /* in the order of ids; UINT64_MAX: at the end */
    uint64_t began_ns, ended_ns;
    uint64_t segments; /* walked through */
    uint64_t lost;     /* files that are damaged and stay so */
};

struct mn_compactor_role {
    struct mn_actor *actor;
    struct mn_compactor *engine;
    struct mn_compactor_codes *codes;
    struct mn_router router;
    struct mn_link writer;
    struct mn_writer_life writer_life; /* that the line leads to */
    struct mn_reply reply;
    struct mn_job jobs[MN_JOBS_MAX]; /* a ring */
    uint32_t job_first, job_count;
    bool purge_waits;
    bool settled;       /* nothing of an earlier compactor is under way, and what it left is swept */
    bool urgent;        /* the compaction that runs was asked for, or the tail is too long: it gives way to nothing */
    uint32_t proposals; /* made in this life */
    uint32_t failures;  /* in a row */
    struct mn_load load;
    uint64_t next_plan_ns, next_census_ns, next_scrub_ns, next_care_ns;
    uint64_t care_waits_ns; /* since when recall has been busy at every look; 0 = it was not at the last */
    uint32_t care_failures; /* in a row */
    bool doubting;          /* inverted files are being checked because somebody found damage */
    struct mn_scrub_round round;
    struct mn_watched *watched;
    uint32_t watched_count;
};

/* What a compaction came to. */
struct mn_compacted {
    uint64_t rows_in, rows_out, segments;
};

/* compactor_role.c: takes what came into the queue; also called from inside long work. */
uint32_t mn_compactor_receive(struct mn_compactor_role *c);
/* The writer that serves now; pid 0 when none does. */
struct mn_writer_life mn_compactor_writer(const struct mn_compactor_role *c);

/* compactor_work.c */
/* Makes sure that nothing of an earlier attempt can still be committed, then sweeps. MN_UNAVAILABLE while no writer
 * serves. */
enum mn_status mn_compactor_settle(struct mn_compactor_role *c) MN_MUST_USE;
/* Everything there is, now. */
enum mn_status mn_compactor_consolidate(struct mn_compactor_role *c, struct mn_compacted *result) MN_MUST_USE;
/* The regular look: compacts when it is worth it and recall allows. */
enum mn_status mn_compactor_consider(struct mn_compactor_role *c, uint32_t *worked) MN_MUST_USE;

/* The parts of it that looking after codes needs too: a line to the writer that serves now; what every build is given;
 * called every few ms of it; the proposal's way to the writer and the answer (MN_VERSION_MISMATCH: the manifest has
 * moved on). */
enum mn_status mn_compactor_reach_writer(struct mn_compactor_role *c) MN_MUST_USE;
struct mn_compact_policy mn_compactor_policy(const struct mn_settings *settings);
bool mn_compactor_pause(void *context);
enum mn_status mn_compactor_publish(struct mn_compactor_role *c,
                                    const struct mn_compact_proposal *proposal) MN_MUST_USE;

/* compactor_care.c */
/* One step, when one is due. Failures of codes are told, counted and tried again later; what is returned concerns the
 * way to the writer alone. */
enum mn_status mn_compactor_care(struct mn_compactor_role *c, uint32_t *worked) MN_MUST_USE;
/* Tells of codes that a compaction could not make; counts what it has made. */
void mn_compactor_note_codes(struct mn_compactor_role *c, const struct mn_compact_proposal *proposal);
/* Gauges of codes. */
void mn_compactor_code_census(struct mn_compactor_role *c, const struct mn_manifest *manifest);

/* compactor_hot.c */
/* Before a manifest is proposed: copies for those of its segments that lack one, as far as there is room. */
void mn_compactor_hot_ahead(struct mn_compactor_role *c, const struct mn_manifest *next);
/* Makes and removes what the manifest and memory.budget ask for now; gauges of it. */
void mn_compactor_hot_census(struct mn_compactor_role *c, const struct mn_manifest *manifest);

/* compactor_watch.c */
/* Gauges of the columns. */
void mn_compactor_census(struct mn_compactor_role *c);
/* Closes the segments that are watched: at the end of the role. */
void mn_compactor_unwatch(struct mn_compactor_role *c);
/* Every checksum; fills c->reply. */
enum mn_status mn_compactor_verify(struct mn_compactor_role *c, struct mn_str rid) MN_MUST_USE;
/* Notes in the control segment that a file is damaged; `text` is its path, or a sentence that names it. */
void mn_compactor_degrade(struct mn_compactor_role *c, const char *text);

/* compactor_scrub.c */
/* At the start of the role. */
void mn_compactor_scrub_start(struct mn_compactor_role *c);
/* Whether a slice is due: now, or because somebody has met damage. */
bool mn_compactor_scrub_due(const struct mn_compactor_role *c, uint64_t now_ns);
/* A slice; sets next_scrub_ns. */
void mn_compactor_scrub(struct mn_compactor_role *c, uint64_t now_ns);

#endif
