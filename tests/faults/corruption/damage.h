/*
 * damage.h - all that is done to a specimen, one case at a time: numbered, named, done and undone.
 *
 * A case is a file, a kind of damage, and where; its name is <specimen>/<file>:<kind>[:<where>].
 */
#ifndef MN_TESTS_DAMAGE_H
#define MN_TESTS_DAMAGE_H

#include "tests/faults/corruption/specimen.h"

/* kind, its word, what it does and what `where` counts */
#define DAMAGE_TABLE(X)                                                                                                \
    X(FLIP, "flip", "a bit flipped: its number in the file")                                                           \
    X(CUT, "cut", "the file ends early: the bytes that are left")                                                      \
    X(ZERO_BLOCK, "zero-block", "4 KiB are zero: from which byte")                                                     \
    X(ZERO_SECTOR, "zero-sector", "512 bytes are zero: from which byte")                                               \
    X(REPEAT, "repeat", "a 4 KiB block stands again over the next: which byte it begins at")                           \
    X(GROWN, "grown", "something follows: a byte, a sector of noise, a block of zeros, the file itself")               \
    X(HOSTILE, "hostile", "a header of the log says something impossible under a right checksum: <byte>.<what>")       \
    X(SWAP, "swap", "it has changed places with another file: <file>")                                                 \
    X(FOREIGN, "foreign", "another store's file of that name stands there")                                            \
    X(GONE, "gone", "the file is gone")

#define X(name, word, help) DAMAGE_##name,
enum damage_kind { DAMAGE_TABLE(X) DAMAGE_KINDS };
#undef X
extern const char *const damage_words[DAMAGE_KINDS];

/* Kinds of files, for the table that is printed. */
enum damage_file {
    DAMAGE_LOG,
    DAMAGE_COLUMN,
    DAMAGE_LIVENESS,
    DAMAGE_CODES,
    DAMAGE_MANIFEST,
    DAMAGE_STORE,
    DAMAGE_LEDGER,
    DAMAGE_MARK,
    DAMAGE_NOTE,
    DAMAGE_FILES
};
extern const char *const damage_file_names[DAMAGE_FILES];
enum damage_file damage_file_of(const char *name);

/* All damages of one kind to one file of one specimen: `count` of them, of which every `step`-th is done. */
struct damage_group {
    const struct specimen *specimen;
    uint32_t file;
    enum damage_kind kind;
    uint64_t count, step, first; /* first: number of the first case of the group in the plan */
    uint64_t *where;             /* [count], or NULL: case n is at n */
};
struct damage_plan {
    struct damage_group *groups;
    uint32_t group_count, group_max;
    uint64_t cases;
};

/* Plans every damage to a specimen. zeros: every bit also of what lies behind the end of a log segment, else one a
 * sector. */
void damage_plan_add(struct damage_plan *plan, const struct specimen *specimen, bool zeros);
/* Takes about `cases` of the plan (0: all), some of every group; and numbers them. */
void damage_plan_number(struct damage_plan *plan, uint64_t cases);
void damage_plan_free(struct damage_plan *plan);

struct damage {
    const struct damage_group *group;
    uint64_t where;
    /* What stands where the file (and the one it has changed places with) stood; NULL: nothing. Not for flips. */
    uint32_t files[2], file_count;
    const struct disk_blob *after[2];
};
void damage_at(const struct damage_plan *plan, uint64_t number, struct damage *damage);
/* The damage that has this name; false: none has. */
bool damage_named(const struct damage_plan *plan, const char *name, struct damage *damage);
void damage_name(const struct damage *damage, char name[256]);

/* Does it to the mounted disk of its specimen; false: nothing has changed by it (what was zeroed is zero). Undo: also
 * takes away what others have made of the files meanwhile. */
bool damage_do(struct damage *damage);
void damage_undo(const struct damage *damage);

/* True when bytes are lost that hold what was last said of the memory: if that it is there, it may be missing. */
bool damage_touches(const struct damage *damage, const struct specimen_memory *memory);
/* True when those are lost, too, that say it a second time: nothing is left that knows that an older version has gone.
 */
bool damage_silences(const struct damage *damage, const struct specimen_memory *memory);

#endif
