/*
 * ledger.h - what must outlive the log besides rows: idem keys with their outcomes, the id counters of spaces, and
 * marks on what could not be opened (ledger_marks.h).
 *
 * The writer keeps one in memory; recovery folds the log into one; the compactor folds the log segments it takes into
 * the one on disk (ledger.<seq>), so that those log segments can go. The three agree because they fold with this code.
 */
#ifndef MN_ENGINE_LEDGER_H
#define MN_ENGINE_LEDGER_H

#include "engine/ledger_marks.h"
#include "engine/record.h"
#include "engine/store.h"

/* The outcome of a request with an idem key. Ids given by the client are in its retry; assigned ones are runs. */
struct mn_idem_entry {
    uint64_t request_hash;
    uint64_t seq;
    int64_t wall_ns; /* when it was admitted */
    uint32_t count;  /* forget: how many */
    uint32_t run_count;
    struct mn_id_run {
        uint64_t first;
        uint32_t at, count; /* ids first, first+1, ... belong to the memories at, at+1, ... of the request */
    } * runs;               /* owned by the ledger */
    char key[64];
    uint32_t key_bytes;
};

struct mn_ledger;

enum mn_status mn_ledger_new(struct mn_ledger **ledger) MN_MUST_USE;
void mn_ledger_free(struct mn_ledger *ledger);

/* The entry of a key, or NULL. Valid until the next put or expire. */
const struct mn_idem_entry *mn_ledger_find(const struct mn_ledger *ledger, struct mn_str key);
/* Adds or replaces. Copies `entry` and its runs. */
enum mn_status mn_ledger_put(struct mn_ledger *ledger, const struct mn_idem_entry *entry) MN_MUST_USE;
/* Forgets keys admitted before `wall_ns`; looks at up to `most` entries, oldest first. */
void mn_ledger_expire(struct mn_ledger *ledger, int64_t wall_ns, uint32_t most);
uint64_t mn_ledger_entries(const struct mn_ledger *ledger);

/* The next id that the engine would assign in a space (1 in a new one), and raising it to at least `next`. */
uint64_t mn_ledger_next_id(const struct mn_ledger *ledger, struct mn_str space);
enum mn_status mn_ledger_raise_id(struct mn_ledger *ledger, struct mn_str space, uint64_t next) MN_MUST_USE;

/* What stands in the ledger about ids in segments that could not be opened. */
struct mn_ledger_marks *mn_ledger_marks(struct mn_ledger *ledger);
/* Adds what one log segment did to ids; bounds as mn_ledger_fold. */
enum mn_status mn_ledger_fold_marks(struct mn_ledger *ledger, const struct mn_store *store, uint64_t wal_number,
                                    uint64_t first_seq, uint64_t last_seq) MN_MUST_USE;

/* Folds one log segment in (records with first_seq <= seq <= last_seq), and reads / writes ledger.<seq> (checksummed,
 * synced). */
enum mn_status mn_ledger_fold(struct mn_ledger *ledger, const struct mn_store *store, uint64_t wal_number,
                              uint64_t first_seq, uint64_t last_seq) MN_MUST_USE;
enum mn_status mn_ledger_load(struct mn_ledger *ledger, const struct mn_store *store, uint64_t seq) MN_MUST_USE;
enum mn_status mn_ledger_save(const struct mn_ledger *ledger, const struct mn_store *store, uint64_t seq,
                              int64_t expire_before_ns) MN_MUST_USE;
/* The same under a path of the caller's: recovery hands its ledger to the writer through shared memory. */
enum mn_status mn_ledger_read(struct mn_ledger *ledger, const struct mn_io *io, const char *path) MN_MUST_USE;
enum mn_status mn_ledger_write(const struct mn_ledger *ledger, const struct mn_io *io, const char *path,
                               int64_t expire_before_ns) MN_MUST_USE;
/* Folds one record: what mn_ledger_fold does for each. */
enum mn_status mn_ledger_fold_record(struct mn_ledger *ledger, const struct mn_record *record) MN_MUST_USE;
/* An idem entry as the content of a MN_RECORD_IDEM; `data` has MN_IDEM_RECORD_MAX(run_count) bytes. Returns its length.
 */
#define MN_IDEM_RECORD_MAX(runs) (64u + 16u * (runs) + MN_IDEM_BYTES_MAX)
uint32_t mn_idem_encode(const struct mn_idem_entry *entry, uint8_t *data);

/* Calls `visit` for each purge in a log segment: its seq and one id at a time. For the compactor. */
enum mn_status mn_ledger_purges(const struct mn_store *store, uint64_t wal_number,
                                enum mn_status (*visit)(void *context, uint64_t seq, struct mn_str space,
                                                        const struct mn_id *id),
                                void *context) MN_MUST_USE;

#endif
