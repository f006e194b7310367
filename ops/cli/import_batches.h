/*
 * import_batches.h - the batches of `mneme import`: memories gathered by space, one `remember` each, several in flight.
 *
 * Order: two batches in flight may be admitted in either order when one is refused as `busy` and tried again. That
 * matters only to memories with the same id, so a batch with an id that is still in flight waits for the pipeline to
 * run dry.
 */
#ifndef MNEME_OPS_CLI_IMPORT_BATCHES_H
#define MNEME_OPS_CLI_IMPORT_BATCHES_H

#include "ops/cli/cli_line.h"
#include "ops/cli/cli_progress.h"

enum {
    MN_IMPORT_BATCH_MAX = 4096,
    MN_IMPORT_FLIGHT_MAX = 16,
    MN_IMPORT_OPEN_MAX = 8, /* being filled: lines of so many spaces may alternate without making batches small */
};

/* One memory in a batch. */
struct mn_import_item {
    size_t offset, size;
    uint64_t line;
};

/* Free (no number), then open (a number, no ticket), then in flight (both), then free again. */
struct mn_import_batch {
    uint64_t number; /* from 1, in the order of opening */
    uint64_t ticket;
    char space[MN_CLI_LINE_SPACE_MAX + 1];
    msgpack_sbuffer body;
    size_t count;
    struct mn_import_item *items;
};

struct mn_import {
    /* the caller's */
    struct mneme *client;
    const char *space; /* of memories that name none */
    uint64_t batch_max, flight_max;
    bool assign_ids; /* by the store: requests then have no key */
    bool skip_bad;
    struct mn_cli_progress progress;
    uint64_t imported, bad, requests; /* to be read */

    /* its own */
    struct mn_import_batch batches[MN_IMPORT_FLIGHT_MAX + MN_IMPORT_OPEN_MAX];
    size_t batch_count; /* of these, in use with the options given */
    uint64_t next_number;
    uint32_t *id_batch; /* by hash of the id: the last batch that had it */
};

/* The caller's part must be set. */
void mn_import_open(struct mn_import *import);
void mn_import_close(struct mn_import *import);

/* Adds the memory of a line, packed as mn_cli_line_pack does. Fails when a batch did, this one or another: what was
 * sent may still be on its way then. */
MN_MUST_USE enum mn_status mn_import_add(struct mn_import *import, const msgpack_sbuffer *packed,
                                         const struct mn_cli_line *facts, uint64_t line);
/* A line that is left out. */
void mn_import_leave_out(struct mn_import *import, uint64_t line, const char *sentence);
/* Sends what is gathered, and waits for all answers. */
MN_MUST_USE enum mn_status mn_import_flush(struct mn_import *import);
/* After a failure: what is on its way counts, as far as it is answered. */
void mn_import_await(struct mn_import *import);

#endif
