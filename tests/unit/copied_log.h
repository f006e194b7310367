/*
 * copied_log.h - for tests of the log's second copy: a store whose log is kept twice, the copy on a disk that fails or
 * hangs on demand.
 */
#ifndef MN_TESTS_UNIT_COPIED_LOG_H
#define MN_TESTS_UNIT_COPIED_LOG_H

#include "tests/unit/store_fixture.h"

#include "engine/wal_copy.h"

extern _Atomic enum copied_log_state {
    COPY_WELL,
    COPY_NO_OPEN,
    COPY_NO_WRITE,
    COPY_NO_SYNC,
    COPY_NO_ROOM,
    COPY_HANGS
} copied_log_disk;
/* Which calls hang, then. */
extern _Atomic enum copied_log_call {
    COPY_ALL_CALLS,
    COPY_OPENS,
    COPY_RESERVES,
    COPY_WRITES,
    COPY_RENAMES,
    COPY_UNLINKS
} copied_log_hanging;
extern char copied_log_dir[80];

/* A store that is not started, with a disk that is well; the end of it. */
struct fixture *copied_log_prepare(void);
void copied_log_end(struct fixture *f);

bool copied_log_degraded(const struct fixture *f);
void copied_log_await_current(struct fixture *f);

/* A log segment's bytes in one of the folders, malloc'd; NULL: it is not there. */
uint8_t *copied_log_slurp(const char *dir, uint64_t number, size_t *bytes);
/* Every segment that was begun is there twice, with the same bytes. Returns how many. */
uint32_t copied_log_check_twins(struct fixture *f);
/* What verify finds. */
uint32_t copied_log_damages(struct fixture *f);

/* Writes memories first to end - 1, and looks whether they are there. */
void copied_log_put(struct fixture *f, uint64_t first, uint64_t end);
void copied_log_check(struct fixture *f, uint64_t first, uint64_t end);

/* Ends the active segment, so that what follows is in another. */
void copied_log_seal(struct fixture *f);

#endif
