/*
 * specimen.h - small complete stores to be damaged, and what a reader must find in them.
 *
 * A specimen is made by the real writer, compactor and recovery in a folder that is gone again when this returns: its
 * files are a memory disk. The model knows each id that was ever written, its newest version, and where that lies, so
 * that the judge can tell what a damage has touched.
 */
#ifndef MN_TESTS_SPECIMEN_H
#define MN_TESTS_SPECIMEN_H

#include "engine/reader.h"
#include "tests/faults/corruption/memory_disk.h"

#define SPECIMEN_MEMORIES_MAX 256u
#define SPECIMEN_ROW_BYTES    1024u

enum specimen_shape {
    SPECIMEN_YOUNG, /* all in the log, of which a segment is full: no manifest yet */
    SPECIMEN_GROWN, /* two column segments with liveness that came later, codes, a ledger, quarantine, and log behind */
    SPECIMEN_SHAPES
};
extern const char *const specimen_names[SPECIMEN_SHAPES];

struct specimen_memory {
    uint32_t space;
    struct mn_id id;
    bool there;       /* forgotten, suppressed or purged ones are not */
    uint32_t version; /* the newest; older ones must not be seen either */
    /* What was last said of it, that it is there or that it is not: a record of a log segment and the footer of its
     * batch, in which it is said again; or (wal 0) a column segment. */
    uint64_t wal, begin, end, footer_begin, footer_end, columns;
    /* All that a reader sees of it. */
    uint8_t row[SPECIMEN_ROW_BYTES];
    size_t row_bytes;
};

struct specimen {
    enum specimen_shape shape;
    struct disk disk, other; /* other: made in the same way, and another store */
    struct specimen_memory memories[SPECIMEN_MEMORIES_MAX];
    uint32_t memory_count;
};

/* Makes it; a failure ends the program with a sentence. */
void specimen_make(struct specimen *specimen, enum specimen_shape shape);

struct mn_str specimen_space(uint32_t space);
/* The memory with this name, or NULL. */
const struct specimen_memory *specimen_find(const struct specimen *specimen, struct mn_str space,
                                            const struct mn_id *id);
/* Writes down all that a reader sees of a row; 0 when a part of it cannot be read (it is damaged, and says so). */
size_t specimen_describe(const struct mn_part *part, uint32_t row, uint8_t bytes[SPECIMEN_ROW_BYTES]);
/* The version that a description's content names; 0: it names none of this memory's. */
uint32_t specimen_version(const struct specimen_memory *memory, const uint8_t *row, size_t bytes);

#endif
