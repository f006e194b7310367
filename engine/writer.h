/*
 * writer.h - the one place where order is made: admission, the log, publication.
 *
 * A turn of the WAL writer's role is
 *
 *     for each request:  mn_writer_remember / _revise / _forget     checked against the index, encoded into the batch
 *     mn_writer_append                                              pwritev; the disk begins to write
 *     for requests that have come meanwhile: the same               the next batch
 *     mn_writer_sync                                                fdatasync: durable from here
 *     mn_writer_publish                                             rows, marks, visible_seq: visible from here
 *     send the acknowledgements; mn_writer_acked
 *
 * Not thread-safe; one per store (it holds wal/LOCK). After a failure of append or sync the writer is of no further
 * use: the process ends, recovery finds out what is on disk.
 */
#ifndef MN_ENGINE_WRITER_H
#define MN_ENGINE_WRITER_H

#include "config/settings.h"
#include "engine/compact.h"
#include "engine/query.h"
#include "engine/request.h"

struct mn_writer;

/* Takes wal/LOCK, maps what recovery left (the newest view), builds the index, begins a log segment of its own. `stats`
 * may be NULL. */
enum mn_status mn_writer_open(struct mn_writer **writer, const struct mn_store *store, struct mn_instance *instance,
                              const struct mn_settings *settings, struct mn_stats_page *stats) MN_MUST_USE;
/* Frees everything; what was not published is not acknowledged either. */
void mn_writer_close(struct mn_writer *writer);

/*
 * Admission. On MN_OK the change is in the current batch, or outcome->replayed. Errors change nothing; besides the
 * protocol's codes there is MN_NOT_READY: the batch is full; append, sync, publish, acknowledge, then admit the same
 * request again. MN_READ_ONLY while the disk is full; MN_BUSY above tail.rows_max or write.idem_max.
 */
enum mn_status mn_writer_remember(struct mn_writer *writer, const struct mn_remember *request,
                                  struct mn_outcome *outcome) MN_MUST_USE;
enum mn_status mn_writer_revise(struct mn_writer *writer, const struct mn_revise *request,
                                struct mn_outcome *outcome) MN_MUST_USE;
enum mn_status mn_writer_forget(struct mn_writer *writer, const struct mn_forget *request,
                                struct mn_outcome *outcome) MN_MUST_USE;

/* The commit, in three steps (see above). With nothing admitted, or written, they do nothing. What is admitted between
 * append and publish is in the next batch, which is appended after that publish; batch_memories and batch_bytes are of
 * the batch that takes what is admitted. */
bool mn_writer_pending(const struct mn_writer *writer); /* something is admitted and not yet published */
uint32_t mn_writer_batch_memories(const struct mn_writer *writer);
uint64_t mn_writer_batch_bytes(const struct mn_writer *writer);
enum mn_status mn_writer_append(struct mn_writer *writer) MN_MUST_USE;
enum mn_status mn_writer_sync(struct mn_writer *writer) MN_MUST_USE;
void mn_writer_publish(struct mn_writer *writer);
/* Just before the replies of everything up to the published seq leave. */
void mn_writer_acked(struct mn_writer *writer);

/*
 * Forget by filter: what matches at the start is found in slices, then forgotten in one record. `scope` must live until
 * the selection is freed. Starting needs no pending batch. MN_BUSY above MN_SELECTIONS_MAX at once.
 */
#define MN_SELECTIONS_MAX   8
#define MN_SELECTED_IDS_MAX 1000000u /* ids that one forget record can hold; more is MN_TOO_LARGE */
struct mn_selection;
enum mn_status mn_selection_start(struct mn_writer *writer, const struct mn_scope *scope, enum mn_forget_mode mode,
                                  struct mn_selection **selection) MN_MUST_USE;
/* Looks at up to rows_max rows; *done when all were seen. */
enum mn_status mn_selection_turn(struct mn_selection *selection, uint32_t rows_max, bool *done) MN_MUST_USE;
/* Admits the forget of those that are still in the version that matched. request->ids is ignored. */
enum mn_status mn_writer_forget_selected(struct mn_writer *writer, struct mn_selection *selection,
                                         const struct mn_forget *request, struct mn_outcome *outcome) MN_MUST_USE;
void mn_selection_free(struct mn_selection *selection);

/* The outcome that an idem key already has: *found, or MN_BAD_REQUEST when the key belongs to another request. For
 * forgets by filter, before the selection starts. */
enum mn_status mn_writer_replay(struct mn_writer *writer, const struct mn_write *write, struct mn_outcome *outcome,
                                bool *found) MN_MUST_USE;

/* Purges: everything purged at or before the returned seq is in no file of the store any more, but for those of the
 * column segment that mn_writer_purge_unsearched names, if any: it cannot be opened, so nobody knows. Such purges are
 * carried out there when it can be, at the first start. files: rewritten so far, in all. */
uint64_t mn_writer_purged_seq(const struct mn_writer *writer, uint64_t *files);
uint64_t mn_writer_purge_unsearched(const struct mn_writer *writer);
/* True while an admitted purge waits for its rewrite: the role wakes the compactor. */
bool mn_writer_purge_waits(const struct mn_writer *writer);

/* For the compactor. seal: ends the active log segment if it holds anything (needs no pending batch); *sealed_seq:
 * everything up to it lies in sealed segments. commit: makes a proposal the manifest (needs no pending batch);
 * MN_VERSION_MISMATCH when it was made from another manifest, and then nothing has changed. */
enum mn_status mn_writer_seal(struct mn_writer *writer, uint64_t *sealed_seq) MN_MUST_USE;
enum mn_status mn_writer_commit_proposal(struct mn_writer *writer,
                                         const struct mn_compact_proposal *proposal) MN_MUST_USE;

/* Bounded housekeeping, each turn: retired files, the index after a compaction, idem keys, history, a new try after a
 * full disk. Returns how much it did (0: nothing waits). Also refreshes gauges. */
uint32_t mn_writer_tend(struct mn_writer *writer, int64_t wall_ns);
/* What a person should read in the log: one sentence since the last call, or false. */
bool mn_writer_news(struct mn_writer *writer, char *text, size_t size);
/* Takes the reloadable settings. */
void mn_writer_reload(struct mn_writer *writer, const struct mn_settings *settings);

#endif
