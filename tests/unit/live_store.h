/*
 * live_store.h - a real store in a temporary folder, with a real writer, a compactor, and a plain model of what it must
 * hold.
 *
 * Ids are small integers in a few spaces; everything about a version follows from (space, id, version), so the model
 * keeps three numbers a memory. All calls fail the running test when the engine fails.
 */
#ifndef MN_TESTS_LIVE_STORE_H
#define MN_TESTS_LIVE_STORE_H

#include "engine/compact.h"
#include "engine/hot.h"
#include "engine/request.h"
#include "engine/writer.h"
#include "tests/unit/expect.h"

#define LIVE_SPACES 3u
#define LIVE_IDS    2000u
#define LIVE_DIM    16u

/* Embeddings lie on a circle; of versions from here on (set next_version) they do not, or all are nearly the same, or
 * there are seven different ones in all, or one. */
#define LIVE_STRANGE 1000000u
#define LIVE_ALIKE   2000000u
#define LIVE_SEVEN   3000000u
#define LIVE_ONE     4000000u

enum live_state { LIVE_NEVER = 0, LIVE_VISIBLE, LIVE_SUPPRESSED, LIVE_DELETED, LIVE_PURGED };

struct live_memory {
    enum live_state state;
    uint32_t version; /* what its bytes follow from */
};

struct live_store {
    char dir[64];
    struct mn_store store;
    struct mn_instance instance;
    struct mn_settings settings;
    struct mn_writer *writer;
    struct mn_reader *reader;
    struct mn_compactor *compactor;
    struct mn_compact_policy policy;
    struct live_memory model[LIVE_SPACES][LIVE_IDS];
    uint32_t next_version;
    uint64_t random;
    bool damaged; /* recovery may find damage */
};

/* history.window is 0 and log segments are 1 MiB long. */
struct live_store *live_store_new(void);
void live_store_free(struct live_store *s);
/* Opens what is in a folder, as a process that starts. The model is the caller's. */
struct live_store *live_store_open(const char *dir);
/* Ends writer and instance; starts both anew, with recovery. */
void live_store_stop(struct live_store *s);
void live_store_start(struct live_store *s);
void live_store_restart(struct live_store *s);

/* Each is one durable, visible batch. Expired ones are given an `expires` in the past. */
void live_remember(struct live_store *s, uint32_t space, uint32_t id, uint32_t count);
void live_remember_expired(struct live_store *s, uint32_t space, uint32_t id);
void live_forget(struct live_store *s, uint32_t space, uint32_t id, enum mn_forget_mode mode);

/* Ends the active log segment. */
void live_seal(struct live_store *s);
/* All of the housekeeping that is due or will be; what it lets go of is gone from the disk, if nobody pins it. */
void live_tend(struct live_store *s);
/* The compactor's turn at hot copies, on this budget. */
struct mn_hot_report live_tend_hot(struct live_store *s, uint64_t budget);

/* Plans, builds, hands the proposal over through shared memory, commits, tends. False when the plan is not worth it. */
bool live_compact(struct live_store *s, bool force);
/* The first half, and the second. */
void live_build(struct live_store *s, bool force, struct mn_compact_proposal *proposal);
void live_commit(struct live_store *s, const struct mn_compact_proposal *proposal);

/* One step of looking after codes, committed when it was worth something. */
bool live_care(struct live_store *s, struct mn_compact_care *care);

/* Compares every memory of the model with what a reader finds: bit for bit, and nothing else. */
void live_check(struct live_store *s);
/* Compares the codes of every column segment with its embeddings; how many rows have some. live_check does it too. */
uint64_t live_check_codes(struct live_store *s);

/* True when `bytes` stand in any file under `dir`. */
bool live_grep(const char *dir, const void *bytes, size_t length);
/* The content of a version; returns its length. */
uint32_t live_content(uint32_t space, uint32_t id, uint32_t version, char content[256]);
uint32_t live_random(struct live_store *s, uint32_t below);
struct mn_manifest live_manifest(struct live_store *s);

#endif
