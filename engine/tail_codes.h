/*
 * tail_codes.h - the codes of a tail chunk in shared memory, as readers find and use them (layout: engine/shared.h).
 *
 * The files codes.<instance_gen>.<wal_number>.<serial> have one writer, the coder (engine/tail_coder.h). A chunk may
 * have none, or one, or for a moment two: the one with the highest serial is the better one, and serials are never
 * given twice in an instance. The rows below `clustered` are by cluster (engine/ivf.h), and complete from the
 * beginning; those that follow are flat, and grow along with the chunk: complete blocks of 32 rows are published with
 * one release-store of `rows`.
 *
 * Codes are derived: where none are found, or what is found is not what it should be, rows are compared as they are.
 * control.codes_gen is stored after each file that was published and before the file that it replaces is unlinked, so
 * a reader looks for files only when that counter or the view has changed.
 */
#ifndef MN_ENGINE_TAIL_CODES_H
#define MN_ENGINE_TAIL_CODES_H

#include "engine/codebook.h"
#include "engine/shared.h"
#include "shm/instance.h"

/* What the name of a file says. */
struct mn_codes_name {
    uint64_t instance_gen, wal_number, serial;
};

struct mn_tail_codes {
    struct mn_segment segment;
    struct mn_codes *header; /* the coder's mapping is writable */
    const struct mn_codebook *codebook;
    struct mn_codes_name name;
    struct mn_ivf ivf, flat;                           /* by cluster, and what follows; as of the last look */
    uint32_t flat_blocks[2], flat_slots[2], flat_rest; /* directory of `flat`: its one cluster as published */
};

/* The name of a file in the instance's folder, and what such a name says. */
void mn_codes_name_text(char text[96], const struct mn_codes_name *name);
/* False when it is the name of something else. */
bool mn_codes_name_parse(const char *text, struct mn_codes_name *name);

/* All names that are in the folder now. `names` is the caller's to free, also after a failure. */
struct mn_codes_list {
    struct mn_codes_name *names;
    uint32_t count, max;
};
enum mn_status mn_codes_list_make(struct mn_codes_list *list, const struct mn_store *store,
                                  const struct mn_instance *instance) MN_MUST_USE;
/* The better one of a chunk's files; NULL: it has none. */
const struct mn_codes_name *mn_codes_list_find(const struct mn_codes_list *list, uint64_t instance_gen,
                                               uint64_t wal_number);

/* Maps a file and opens its codebook. Everything that an offset or a count could do wrong is checked here.
 * MN_NOT_FOUND, MN_NOT_READY, MN_CORRUPT: use no codes. */
enum mn_status mn_tail_codes_map(struct mn_tail_codes *codes, const struct mn_store *store,
                                 struct mn_instance *instance, const struct mn_codes_name *name,
                                 bool writable) MN_MUST_USE;
void mn_tail_codes_unmap(struct mn_tail_codes *codes);

/* At a pin: the codes as they are published now, valid until the next look; NULL while there are none. Call it before
 * `rows` of the chunk is loaded: then mn_ivf_coded is not above that. */
const struct mn_ivf *mn_tail_codes_look(struct mn_tail_codes *codes);

/* ---- the coder's ---- */

/* What a file is made for. */
struct mn_codes_room {
    uint32_t rows_max;
    uint32_t clustered;      /* rows by cluster, */
    uint32_t blocks, shared; /* their blocks, and how many of them, at the end, clusters share */
};

/* Makes a file that is not ready yet. It is sparse but for its header; `codebook` goes over to `codes`, also on
 * failure.
 */
enum mn_status mn_tail_codes_create(struct mn_tail_codes *codes, struct mn_instance *instance,
                                    const struct mn_codes_name *name, const struct mn_codebook *codebook,
                                    const struct mn_codes_room *room) MN_MUST_USE;

#endif
