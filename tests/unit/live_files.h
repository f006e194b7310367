/*
 * live_files.h - what lies on the disk and in the shared folder of a live store, for tests that look.
 */
#ifndef MN_TESTS_LIVE_FILES_H
#define MN_TESTS_LIVE_FILES_H

#include "tests/unit/live_store.h"

/* Entries of a folder whose names begin so, and not with a dot; folders of column segments. */
uint32_t live_entries(const char *path, const char *prefix);
uint32_t live_folders(const struct live_store *s);

#endif
