/*
 * verify.h - every checksum of every file of a store, running or not.
 */
#ifndef MN_ENGINE_VERIFY_H
#define MN_ENGINE_VERIFY_H

#include "engine/columns.h"

struct mn_verify_result {
    uint64_t files, bytes, damaged;
};

/* STORE, MANIFEST, ledger, column segments that the manifest names, log segments (up to durable_seq; what lies after
 * the end of a sealed one must be zero). Calls `damaged` for each bad piece and goes on. progress may be NULL. A file
 * that a running compaction retires meanwhile is not damage: the manifest is read again and what it no longer names is
 * skipped. durable_seq: what the control segment of a running store says, UINT64_MAX when nothing runs. */
enum mn_status mn_verify(const struct mn_store *store, uint64_t durable_seq, mn_damage_fn damaged,
                         void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                         struct mn_verify_result *result) MN_MUST_USE;

#endif
