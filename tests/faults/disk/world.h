/*
 * world.h - a store on the simulated disk with its writer, compactor and readers, and the model of what it must hold.
 *
 * A world lives in a folder of its own under /dev/shm, for files are mapped; what is wrong with it ends the process
 * (world_broken): a seed is repeated from its number, not mended.
 */
#ifndef MN_TESTS_FAULTS_DISK_WORLD_H
#define MN_TESTS_FAULTS_DISK_WORLD_H

#include "config/settings.h"
#include "engine/compact.h"
#include "engine/recovery.h"
#include "engine/writer.h"
#include "tests/faults/disk/model.h"

#define WORLD_FLIGHT_MAX 256u
#define WORLD_KEYS       32u /* acknowledged requests with a key that are remembered */

enum world_verdict { WORLD_LOST, WORLD_RISEN, WORLD_WRONG, WORLD_UNDETECTED, WORLD_REFUSED, WORLD_VERDICTS };

/* Shared by all processes of a run: sums, and what each process is at. */
struct world_slot {
    _Atomic uint64_t seed; /* + 1 */
    _Atomic int verdict;   /* enum world_verdict + 1 once something is broken */
    char folder[64], instance[128];
};
struct world_tally {
    _Atomic uint64_t tried, bad[WORLD_VERDICTS], crashes;
    _Atomic uint64_t cuts, deaths, recoveries, recoveries_cut, commits, compactions, cared, snapshots, purges, retries,
        held, reported, failed_calls, interrupted, shortened, lies, sectors_lost, sectors_garbage, names_lost;
};

struct world {
    uint64_t seed, random;
    struct world_tally *tally;
    struct world_slot *slot;
    char base[64];
    struct mn_store store;
    struct mn_instance instance; /* control NULL: none runs */
    struct mn_settings settings;
    struct mn_writer *writer;
    struct mn_compactor *compactor;
    struct mn_reader *reader, *holding; /* holding: one that keeps its pin, with what was there then */
    struct mn_snapshot held;
    struct model_state held_state;
    struct mn_recovery_report report;
    struct model_state acked, now; /* now: with what is admitted and not yet known to be durable */
    struct model_state written;    /* with the batch that is in flight; behind it more may be admitted */
    bool in_flight;                /* append was called: it may be there or not */
    uint64_t acked_seq;            /* the largest that was acknowledged */
    uint64_t written_seq, now_seq; /* the newest of the batch in flight, and of all */
    struct model_request flight[WORLD_FLIGHT_MAX], kept[WORLD_KEYS];
    uint32_t flight_count, written_count, kept_count;   /* the first written_count are of the batch in flight */
    struct model_memory *past[MODEL_SPACES][MODEL_IDS]; /* all that an id ever was */
    uint32_t past_count[MODEL_SPACES][MODEL_IDS];
    uint32_t number, idem;
    bool forgiven; /* the disk has lied or made garbage: damage may be reported from here on */
    bool taken;    /* a snapshot is at base/disk/copy, or (maybe) was being made when the life ended */
    bool taken_maybe;
    struct model_state taken_state;
};

struct world *world_new(uint64_t seed, struct world_tally *tally, struct world_slot *slot);
void world_free(struct world *world);

void world_broken(struct world *world, enum world_verdict verdict, const char *what, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
uint32_t world_draw(struct world *world, uint32_t below);

/* Instance (when none runs), recovery, writer, compactor, reader. A failure leaves what there is to world_close. */
enum mn_status world_open(struct world *world) MN_MUST_USE;
/* Everything that holds files open; keep: shared memory stays, as when processes die and the machine does not. */
void world_close(struct world *world, bool keep);

/* True when the store holds this state and nothing else. */
bool world_holds(struct world *world, const struct mn_snapshot *snapshot, const struct model_state *state);
/* Ends the process, telling the first memory that differs. */
void world_differs(struct world *world, const struct mn_snapshot *snapshot, const struct model_state *state,
                   const char *when) __attribute__((noreturn));
/* Notes what `now` holds, for the day on which only something older is found. */
void world_remember_past(struct world *world);
/* After a recovery: the acknowledged state, or with it all that was in flight (*landed). */
void world_judge(struct world *world, bool *landed);
/* Every checksum of every file. */
void world_verify(struct world *world);
/* No file holds what was purged. */
void world_find_purged(struct world *world);
/* The copy at base/disk/copy is the store as it was, also after a restore. Removes it. */
void world_check_copy(struct world *world, bool restored);

#endif
