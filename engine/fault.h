/*
 * fault.h - named points at which a test may kill a process, and named bugs that a test may arm.
 *
 * MN_FAULT_POINT(wal_after_write) does nothing in release builds. Built with MNEME_FAULTS, the environment variable
 * MNEME_FAULT="name[:n]" makes the n-th pass of a process through that point (default its first) a SIGKILL of the
 * process. A name that is not in the table kills nothing.
 *
 * A role that is started again has the same environment, and would die again. With MNEME_FAULT_ONCE=FILE passes count
 * only while FILE exists, and the pass that kills unlinks it first: of all processes one dies, once. So a test arms a
 * cluster that runs by making FILE, and knows that the point was reached when FILE is gone.
 *
 * MN_BUG(ack_before_sync) is false in release builds. Built with MNEME_FAULTS it is true in processes with
 * MNEME_BUG=ack_before_sync in their environment: the code then breaks a promise on purpose, and a machine that looks
 * for broken promises must find it (tests/faults/disk/detectors). A machine that finds no bug is worth nothing.
 */
#ifndef MN_ENGINE_FAULT_H
#define MN_ENGINE_FAULT_H

#include <stdbool.h>

/* name, the step that comes next when the process dies here */
#define MN_FAULT_TABLE(X)                                                                                              \
    X(wal_before_write, "pwritev of a batch")                                                                          \
    X(wal_after_write, "fdatasync of a batch")                                                                         \
    X(wal_after_sync, "publication of a batch")                                                                        \
    X(writer_mid_publish, "the second half of a batch's rows and marks")                                               \
    X(writer_before_ack, "the acknowledgements")                                                                       \
    X(writer_mid_acks, "the second acknowledgement of a batch")                                                        \
    X(wal_rotate_begin, "header of the next log segment")                                                              \
    X(wal_rotate_end, "first batch of the next log segment")                                                           \
    X(writer_chunk_made, "the view that lists a new tail chunk")                                                       \
    X(wal_prepare_created, "zero-filling a prepared segment")                                                          \
    X(wal_prepare_renamed, "folder sync after a prepared segment")                                                     \
    X(recovery_scanned, "building the new tail")                                                                       \
    X(recovery_built, "publishing the new tail")                                                                       \
    X(recovery_handed_over, "the view of the new tail")                                                                \
    X(recovery_mended, "rename of a mended log segment")                                                               \
    X(recovery_mended_renamed, "folder sync after that rename")                                                        \
    X(recovery_healed, "rename of a log segment that was made whole from its twin")                                    \
    X(recovery_healed_renamed, "folder sync after that rename")                                                        \
    X(copy_mended, "rename of a twin that is written anew")                                                            \
    X(copy_mended_renamed, "the rest of the twins, and the sync of their folder")                                      \
    X(recovery_quarantine_copied, "the note of a quarantined piece")                                                   \
    X(columns_written, "sync of the column files")                                                                     \
    X(columns_synced, "rename of the column folder")                                                                   \
    X(columns_renamed, "sync of the columns folder")                                                                   \
    X(repair_written, "rename of a column file that is written anew")                                                  \
    X(repair_renamed, "folder sync after a column file that is written anew")                                          \
    X(died_renamed, "folder sync after the liveness of a segment")                                                     \
    X(codebook_written, "rename of a codebook")                                                                        \
    X(codebook_renamed, "folder sync after a codebook")                                                                \
    X(ivf_written, "rename of an inverted file")                                                                       \
    X(ivf_renamed, "folder sync after an inverted file")                                                               \
    X(codes_coded, "the count of a coded block of the tail")                                                           \
    X(codes_made, "publication of the codes of a tail chunk")                                                          \
    X(codes_published, "unlink of the codes that they replace")                                                        \
    X(compact_proposed, "the writer's commit")                                                                         \
    X(compact_mid_tidy, "unlink of the next file that a manifest has made obsolete")                                   \
    X(purge_piece_removed, "unlink of the note on a quarantined piece that was purged")                                \
    X(hot_filled, "publication of a hot copy")                                                                         \
    X(manifest_before_append, "append of a manifest edit")                                                             \
    X(manifest_after_append, "sync of a manifest edit")                                                                \
    X(manifest_between_copies, "second copy of a manifest edit")                                                       \
    X(manifest_after_sync, "the new view")                                                                             \
    X(publish_before_view, "the new view file")                                                                        \
    X(publish_after_view, "limbo")                                                                                     \
    X(limbo_before_unlink, "unlink of retired files")                                                                  \
    X(limbo_mid_unlink, "the rest of the retired files")                                                               \
    X(snapshot_mid_copy, "the rest of the snapshot")                                                                   \
    X(snapshot_before_rename, "rename of the snapshot")                                                                \
    X(snapshot_renamed, "folder sync after the rename of the snapshot")                                                \
    X(replace_written, "sync of a small file that is written anew")                                                    \
    X(replace_synced, "rename of a small file that is written anew")                                                   \
    X(replace_renamed, "folder sync after that rename")                                                                \
    X(reader_claimed, "the first pin of a reader")                                                                     \
    X(reader_pinned, "a reader's look whether the view that it pinned is still the newest")                            \
    X(store_folders_made, "STORE, of a new store")                                                                     \
    X(instance_created, "the note of the instance in run/")                                                            \
    X(instance_noted, "the first child of the supervisor")

#define X(name, next) MN_FAULT_##name,
enum mn_fault { MN_FAULT_TABLE(X) MN_FAULT_COUNT };
#undef X

/* name, the promise that the bug breaks */
#define MN_BUG_TABLE(X)                                                                                                \
    X(ack_before_sync, "acknowledged means durable")                                                                   \
    X(ack_before_publish, "acknowledged means visible")                                                                \
    X(forget_not_logged, "what was forgotten stays so")                                                                \
    X(liveness_not_carried, "what is forgotten during a compaction stays so")                                          \
    X(suppressed_dropped, "what was suppressed can be restored")                                                       \
    X(publish_before_folder_sync, "what the manifest names is there after a power cut")                                \
    X(manifest_without_sync, "the log goes only when columns hold it for good")                                        \
    X(rename_before_sync, "a file that has its name has its bytes")                                                    \
    X(unlink_before_pin_check, "a pinned snapshot keeps its files")                                                    \
    X(purge_leaves_log, "no file holds what was purged")                                                               \
    X(no_crc_in_recovery, "no byte is served that nobody wrote")                                                       \
    X(recovery_believes_cache, "what was recovered stays, though a sync of it had failed")                             \
    X(mark_not_written, "what a disk that lies has lost is reported")                                                  \
    X(seq_given_twice, "a seq belongs to one write")                                                                   \
    X(id_given_twice, "an id that the engine gives is new")                                                            \
    X(idem_forgotten, "the retry of a write is answered, not done again")                                              \
    X(stale_view, "a reader follows the newest view")

#define X(name, promise) MN_BUG_##name,
enum mn_bug { MN_BUG_TABLE(X) MN_BUG_COUNT };
#undef X

#ifdef MN_FAULTS
/* Any thread; returns unless this is the pass that kills. */
void mn_fault_pass(enum mn_fault fault);
#define MN_FAULT_POINT(name) mn_fault_pass(MN_FAULT_##name)
/* Any thread. */
bool mn_bug_armed(enum mn_bug bug);
#define MN_BUG(name) mn_bug_armed(MN_BUG_##name)
#else
#define MN_FAULT_POINT(name) ((void)0)
#define MN_BUG(name)         false
#endif

/* "?" for what is not in the table. */
const char *mn_fault_name(enum mn_fault fault);
const char *mn_bug_name(enum mn_bug bug);
const char *mn_bug_promise(enum mn_bug bug);

#endif
