/*
 * fault.h - named points at which a test may kill or fail a process.
 *
 * MN_FAULT_POINT(wal_after_write) does nothing in release builds. Built with MNEME_FAULTS, the environment variable
 * MNEME_FAULT="name[:n]" makes the n-th pass of a process through that point (default its first) a SIGKILL of the
 * process. A name that is not in the table kills nothing.
 *
 * A role that is started again has the same environment, and would die again. With MNEME_FAULT_ONCE=FILE passes count
 * only while FILE exists, and the pass that kills unlinks it first: of all processes one dies, once. So a test arms a
 * cluster that runs by making FILE, and knows that the point was reached when FILE is gone.
 */
#ifndef MN_ENGINE_FAULT_H
#define MN_ENGINE_FAULT_H

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
    X(wal_prepare_created, "zero-filling a prepared segment")                                                          \
    X(wal_prepare_renamed, "folder sync after a prepared segment")                                                     \
    X(recovery_scanned, "building the new tail")                                                                       \
    X(recovery_built, "publishing the new tail")                                                                       \
    X(recovery_quarantine_copied, "the note of a quarantined piece")                                                   \
    X(columns_written, "sync of the column files")                                                                     \
    X(columns_synced, "rename of the column folder")                                                                   \
    X(columns_renamed, "sync of the columns folder")                                                                   \
    X(died_renamed, "folder sync after the liveness of a segment")                                                     \
    X(codebook_written, "rename of a codebook")                                                                        \
    X(codebook_renamed, "folder sync after a codebook")                                                                \
    X(ivf_written, "rename of an inverted file")                                                                       \
    X(ivf_renamed, "folder sync after an inverted file")                                                               \
    X(codes_coded, "the count of a coded block of the tail")                                                           \
    X(codes_made, "publication of the codes of a tail chunk")                                                          \
    X(codes_published, "unlink of the codes that they replace")                                                        \
    X(compact_proposed, "the writer's commit")                                                                         \
    X(manifest_before_append, "append of a manifest edit")                                                             \
    X(manifest_after_append, "sync of a manifest edit")                                                                \
    X(manifest_after_sync, "the new view")                                                                             \
    X(publish_before_view, "the new view file")                                                                        \
    X(publish_after_view, "limbo")                                                                                     \
    X(limbo_before_unlink, "unlink of retired files")                                                                  \
    X(limbo_mid_unlink, "the rest of the retired files")                                                               \
    X(snapshot_mid_copy, "the rest of the snapshot")                                                                   \
    X(snapshot_before_rename, "rename of the snapshot")                                                                \
    X(replace_synced, "rename of a small file that is written anew")                                                   \
    X(replace_renamed, "folder sync after that rename")                                                                \
    X(instance_created, "the note of the instance in run/")

#define X(name, next) MN_FAULT_##name,
enum mn_fault { MN_FAULT_TABLE(X) MN_FAULT_COUNT };
#undef X

#ifdef MN_FAULTS
/* Any thread; returns unless this is the pass that kills. */
void mn_fault_pass(enum mn_fault fault);
#define MN_FAULT_POINT(name) mn_fault_pass(MN_FAULT_##name)
#else
#define MN_FAULT_POINT(name) ((void)0)
#endif

/* "?" for what is not in the table. */
const char *mn_fault_name(enum mn_fault fault);

#endif
