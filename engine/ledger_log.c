/*
 * ledger_log.c - what a log segment says to the ledger: idem keys, assigned ids, marks, and which ids were purged.
 */
#include "engine/ledger.h"
#include "engine/request.h"
#include "engine/wal.h"

struct fold {
    struct mn_ledger *ledger;
    uint64_t first_seq, last_seq;
};

static enum mn_status fold_record(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    const struct fold *fold = context;
    return record->seq < fold->first_seq || record->seq > fold->last_seq ? MN_OK
                                                                         : mn_ledger_fold_record(fold->ledger, record);
}

/* Scans log segment `wal_number` with `visitor`. */
static enum mn_status scan_log(const struct mn_store *store, uint64_t wal_number, const struct mn_wal_visitor *visitor)
{
    struct mn_wal_segment segment;
    struct mn_wal_extent extent;
    enum mn_status status = mn_wal_map(&segment, store, wal_number);
    if (status == MN_OK)
        status = mn_wal_scan(&segment, visitor, &extent);
    mn_wal_unmap(&segment);
    return status;
}

enum mn_status mn_ledger_fold(struct mn_ledger *ledger, const struct mn_store *store, uint64_t wal_number,
                              uint64_t first_seq, uint64_t last_seq)
{
    struct fold fold = {ledger, first_seq, last_seq};
    return scan_log(store, wal_number, &(struct mn_wal_visitor){.context = &fold, .record = fold_record});
}

static enum mn_status fold_mark(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                uint64_t offset)
{
    const struct fold *fold = context;
    return record->seq < fold->first_seq || record->seq > fold->last_seq
               ? MN_OK
               : mn_ledger_marks_record(mn_ledger_marks(fold->ledger), record);
}

enum mn_status mn_ledger_fold_marks(struct mn_ledger *ledger, const struct mn_store *store, uint64_t wal_number,
                                    uint64_t first_seq, uint64_t last_seq)
{
    struct fold fold = {ledger, first_seq, last_seq};
    return scan_log(store, wal_number, &(struct mn_wal_visitor){.context = &fold, .record = fold_mark});
}

struct purges {
    enum mn_status (*visit)(void *context, uint64_t seq, struct mn_str space, const struct mn_id *id);
    void *context;
};

static enum mn_status visit_purge(void *context, const struct mn_wal_segment *segment, const struct mn_record *record,
                                  uint64_t offset)
{
    const struct purges *purges = context;
    if (record->op != MN_RECORD_FORGET || record->flags != MN_FORGET_PURGE)
        return MN_OK;
    struct mn_record_fields f = mn_record_fields(record);
    const char *base = (const char *)record;
    struct mn_str space = {base + f.space, record->space_bytes};
    uint32_t count = MN_CONTENT_LENGTH(record->content_bytes) / (uint32_t)sizeof(struct mn_id);
    for (uint32_t i = 0; i < count; i++) {
        struct mn_id id;
        memcpy(&id, base + f.content + i * sizeof id, sizeof id);
        MN_TRY(purges->visit(purges->context, record->seq, space, &id));
    }
    return MN_OK;
}

/* Purges are few, and the log is long. */
static bool tells_of_purge(void *context, const struct mn_batch_footer *footer)
{
    const struct mn_batch_touch *touches = mn_footer_touches(footer);
    for (uint32_t i = 0; i < footer->touched; i++)
        if (touches[i].op == MN_RECORD_FORGET && touches[i].flags == MN_FORGET_PURGE)
            return true;
    return false;
}

enum mn_status mn_ledger_purges(const struct mn_store *store, uint64_t wal_number,
                                enum mn_status (*visit)(void *context, uint64_t seq, struct mn_str space,
                                                        const struct mn_id *id),
                                void *context)
{
    struct purges purges = {visit, context};
    struct mn_wal_visitor visitor = {.context = &purges, .record = visit_purge, .wants = tells_of_purge};
    return scan_log(store, wal_number, &visitor);
}
