/*
 * manifest_store.h - for tests of MANIFEST: a store with nothing else, states that follow from the number of the edit,
 * and the bytes of the files.
 */
#ifndef MN_TESTS_UNIT_MANIFEST_STORE_H
#define MN_TESTS_UNIT_MANIFEST_STORE_H

#include "engine/manifest.h"
#include "tests/unit/expect.h"

struct manifest_store {
    struct mn_store store;
    char dir[128], path[MN_PATH_MAX], copy[MN_PATH_MAX];
};

/* The kernel's files without waiting for the disk: what is tried here is bytes. */
extern struct mn_io manifest_quick_io;

int manifest_setup(void **state);
int manifest_teardown(void **state);

/* The state after `edit` edits: every number follows from it. */
void manifest_state_make(struct mn_manifest *m, uint64_t edit, uint32_t segments);
void manifest_state_expect(const struct mn_manifest *m, uint64_t edit, uint32_t segments);

/* Appends the state of edit + 1; begins afresh with so many edits. */
void manifest_append(struct manifest_store *f, uint64_t edit, uint32_t segments);
void manifest_fresh(struct manifest_store *f, uint64_t edits, uint32_t segments);

/* The newest edit is that state; report may be NULL. */
void manifest_expect_read(struct manifest_store *f, struct mn_manifest_report *report, uint64_t edit,
                          uint32_t segments);
/* The same of both copies, and that they are there and not behind. */
void manifest_expect_report(const struct mn_manifest_report *report, uint64_t torn_bytes, uint32_t damaged_edits);
bool manifest_copy_sound(const struct mn_manifest_copy *copy);

/* The bytes of the first copy (malloc'd); and bytes into both, or into a file. */
size_t manifest_slurp(struct manifest_store *f, uint8_t **data);
void manifest_put(struct manifest_store *f, const uint8_t *data, size_t bytes);
void manifest_put_file(const char *path, const uint8_t *data, size_t bytes);

#endif
