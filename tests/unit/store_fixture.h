/*
 * store_fixture.h - a store in a temporary folder with an instance in shared memory, recovered and written by the real
 * code.
 *
 * Tests say when a process of the store dies: fixture_crash drops the writer as it stands (what was not synced was
 * never promised), fixture_recover runs recovery in the same instance, fixture_power_cut also takes the shared memory
 * away. Ids, contents and embeddings are small and follow from a number, so that a test can say what it expects.
 */
#ifndef MN_TESTS_STORE_FIXTURE_H
#define MN_TESTS_STORE_FIXTURE_H

#include <unistd.h>

#include "engine/compact.h"
#include "engine/recovery.h"
#include "engine/request.h"
#include "engine/writer.h"
#include "shm/process.h"
#include "tests/unit/expect.h"

#define FIXTURE_DIM 8u

struct fixture {
    char dir[64];
    struct mn_store store;
    struct mn_instance instance;
    struct mn_settings settings;
    struct mn_writer *writer;         /* NULL after a crash */
    struct mn_recovery_report report; /* of the last recovery */
    uint64_t random;
    int64_t now; /* what requests say the time is; 0: the wall clock */
};

/* A new store (dim FIXTURE_DIM, inner product, 1 MiB log segments, no history window), started. */
struct fixture *fixture_new(void);
/* The same, not started: settings may be changed first. */
struct fixture *fixture_prepare(void);
void fixture_free(struct fixture *f);

/* Instance, recovery and writer. The parts of it may be called one by one. */
void fixture_start(struct fixture *f);
void fixture_open_instance(struct fixture *f);
enum mn_status fixture_recover(struct fixture *f);
void fixture_open_writer(struct fixture *f);
/* The writer is gone; shared memory stays. */
void fixture_crash(struct fixture *f);
/* Everything but the disk is gone. */
void fixture_power_cut(struct fixture *f);
/* fixture_power_cut and fixture_start. */
void fixture_restart(struct fixture *f);

/* ---- requests ---- */

struct mn_str text_str(const char *text);
struct mn_id number_id(uint64_t number);
struct mn_id uuid_id(uint64_t hi, uint64_t lo);

/* A memory whose embedding follows from `number`; everything else is plain. Its embedding is good until 64 later calls.
 */
struct mn_memory fixture_memory(uint64_t id, uint64_t number, const char *content);
const float *fixture_vector(uint64_t number);
struct mn_write fixture_write(const struct fixture *f, const char *space);

/* Admits one memory (and commits when the batch is full); the seq. */
uint64_t fixture_put(struct fixture *f, const char *space, uint64_t id, uint64_t number, const char *content);
/* Admits a forget of one id; how many it took effect on. */
uint32_t fixture_forget(struct fixture *f, const char *space, uint64_t id, enum mn_forget_mode mode);
/* Append, sync, publish, acked. */
void fixture_commit(struct fixture *f);

/* ---- looking ---- */

/* True when a reader finds the id, with the embedding of `number` and this content (NULL: none). */
bool fixture_holds(struct fixture *f, const char *space, uint64_t id, uint64_t number, const char *content);
bool fixture_absent(struct fixture *f, const char *space, uint64_t id);
/* Visible memories in all spaces. */
uint64_t fixture_count(struct fixture *f);

/* ---- the disk ---- */

/* Reads and writes bytes of a file below the store. */
uint8_t *fixture_slurp(const struct fixture *f, const char *name, size_t *bytes);
void fixture_scribble(const struct fixture *f, const char *name, uint64_t offset, const void *bytes, size_t length);
void fixture_flip(const struct fixture *f, const char *name, uint64_t offset, uint8_t mask);
bool fixture_exists(const struct fixture *f, const char *name);
/* Files in a folder below the store whose names end in `suffix`. */
uint32_t fixture_files(const struct fixture *f, const char *folder, const char *suffix);

uint32_t fixture_random(struct fixture *f, uint32_t below);

/* Waits until something comes about that another thread or process does: a minute at most, for a slow machine. */
#define await(condition)                                                                                               \
    do {                                                                                                               \
        bool came_about = (condition);                                                                                 \
        for (int tries = 0; !came_about && tries < 6000; tries++) {                                                    \
            usleep(10000);                                                                                             \
            came_about = (condition);                                                                                  \
        }                                                                                                              \
        assert_true(came_about);                                                                                       \
    } while (0)
/* The same, of something that needs the writer's housekeeping as well. */
#define await_tended(f, condition) await((mn_writer_tend((f)->writer, mn_wall_ns()), (condition)))

#endif
