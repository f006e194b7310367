/*
 * ledger_marks.h - what the log did to ids while a column segment could not be opened.
 *
 * Whoever forgets or replaces a memory marks its row, and a row that cannot be got at cannot be marked. So as long as
 * the manifest names a segment that cannot be opened, the compactor keeps of every record that it takes from the log
 * which id it touched, when and how: in the ledger. Recovery applies these marks to whatever it can open; the first
 * compaction that can open everything carries out the purges among them and lets go of all. Nothing is kept of ids that
 * the engine gave out itself (they were never given before), and of the others no more than four marks each.
 */
#ifndef MN_ENGINE_LEDGER_MARKS_H
#define MN_ENGINE_LEDGER_MARKS_H

#include "engine/record.h"

struct mn_ledger_mark {
    uint64_t seq; /* versions born before it are meant */
    struct mn_id id;
    uint32_t mode; /* enum mn_forget_mode; a replaced version is deleted */
    struct mn_str space;
};

/* Begins as zeros; bytes as in the ledger's file. */
struct mn_ledger_marks {
    uint8_t *data;
    uint64_t bytes, max;
};

void mn_ledger_marks_free(struct mn_ledger_marks *marks);
enum mn_status mn_ledger_marks_add(struct mn_ledger_marks *marks, const struct mn_ledger_mark *mark) MN_MUST_USE;
/* The marks of a record of the log, if it leaves any. */
enum mn_status mn_ledger_marks_record(struct mn_ledger_marks *marks, const struct mn_record *record) MN_MUST_USE;
/* Leaves of each id the first mark, and the last one of each kind (suppressed, purged, else). */
enum mn_status mn_ledger_marks_thin(struct mn_ledger_marks *marks) MN_MUST_USE;
/* Takes over what stood in a file. MN_CORRUPT when it is not whole. */
enum mn_status mn_ledger_marks_load(struct mn_ledger_marks *marks, const uint8_t *data, uint64_t bytes) MN_MUST_USE;
/* The mark at *at (0: the first), and *at moved behind it; of one id in order of seq. False at the end. */
bool mn_ledger_marks_next(const struct mn_ledger_marks *marks, uint64_t *at, struct mn_ledger_mark *mark);

#endif
