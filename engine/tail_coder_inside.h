/*
 * tail_coder_inside.h - what the files of the coder share, and nobody else sees:
 *
 *   tail_coder.c           follows the view, and decides what comes next
 *   tail_coder_make.c      the files: how they are made, filled with flat codes, and published
 *   tail_coder_clusters.c  rows by cluster
 */
#ifndef MN_ENGINE_TAIL_CODER_INSIDE_H
#define MN_ENGINE_TAIL_CODER_INSIDE_H

#include "engine/tail.h"
#include "engine/tail_coder.h"
#include "engine/tail_codes.h"

#define MN_TAIL_CODER_TURN_ROWS 1024u /* coded flat in a turn: about 3 ms */
#define MN_TAIL_CODER_STEP_ROWS 128u  /* assigned or coded by cluster in a turn: 2 ms, so that new rows do not wait */

/* A file that is being filled. */
struct mn_tail_made {
    bool begun;                 /* else all of it is zero */
    uint64_t with;              /* generation of its codebook */
    uint32_t clustered;         /* rows that are by cluster in it, or are going to be */
    struct mn_tail_codes codes; /* codes.header NULL: the file is not made yet */
    int fd;
    uint32_t rows;     /* coded and published */
    uint32_t reserved; /* flat rows below it have their pages */
    /* Until the rows by cluster are ready. */
    uint32_t *cluster;          /* of each of them; owned */
    uint32_t *filled;           /* rows in each cluster so far; owned */
    uint32_t assigned, encoded; /* rows */
    uint32_t kept;              /* of the rows, those whose codes are copied from the file that readers use */
};

/* A chunk and its codes. */
struct mn_tail_coded {
    struct mn_view_chunk key;
    struct mn_tail tail;
    const void *wal;
    uint64_t wal_bytes;
    struct mn_part part;
    bool sealed;
    uint32_t seen;     /* rows, at the last look */
    uint64_t moved_ns; /* when we saw it change last: a row more, or sealed */
    struct mn_tail_made current, next;
};

struct mn_tail_coder {
    struct mn_store store;
    struct mn_instance *instance;
    struct mn_stats_page *stats;
    const struct mn_kernels *kernels;
    bool off;
    uint64_t view_gen;            /* that `chunks` shows; 0: none yet */
    struct mn_tail_coded *chunks; /* oldest first */
    uint32_t count;
    bool taken_over;                    /* what an earlier coder has left is looked through */
    const struct mn_codebook *codebook; /* what new files are made with */
    uint64_t serial;                    /* the last one given */
    uint64_t published;                 /* rows, at the last turn */
    uint64_t retry_ns;                  /* nothing is coded before that */
    float *rows;                        /* scratch: MN_TAIL_CODER_STEP_ROWS rotated rows */
};

/* ---- tail_coder_make.c ---- */

/* Lets go of what is in memory; harmless on one that is zero. */
void mn_tail_made_close(struct mn_tail_made *m);
/* Its file, too. */
void mn_tail_made_remove(struct mn_tail_coder *c, struct mn_tail_made *m);
/* Removes a file of codes; nothing there is not an error. */
void mn_tail_codes_unlink(struct mn_tail_coder *c, const struct mn_codes_name *name);
/* Begins anew, on the newest codebook; nothing is allocated yet. */
void mn_tail_made_begin(struct mn_tail_coder *c, struct mn_tail_made *m, uint32_t clustered);
/* Makes the file of `m`, with room for what the chunk may still hold. */
enum mn_status mn_tail_made_create(struct mn_tail_coder *c, const struct mn_tail_coded *k, struct mn_tail_made *m,
                                   uint32_t blocks, uint32_t shared) MN_MUST_USE;
/* Pages that are not there cannot be written: a full /dev/shm shows here, with a sentence instead of a signal. */
enum mn_status mn_tail_made_reserve(const struct mn_tail_made *m, uint64_t at, uint64_t bytes) MN_MUST_USE;
/* Puts a row into the space of a codebook; false when its bytes are not to be had. */
bool mn_tail_coded_rotate(const struct mn_tail_coder *c, const struct mn_tail_coded *k,
                          const struct mn_codebook *codebook, uint32_t row, float *out);
/* Codes one row into a lane of a cleared block. One that cannot be read stays far. */
void mn_tail_made_encode(const struct mn_tail_coder *c, const struct mn_tail_coded *k, const struct mn_tail_made *m,
                         uint32_t row, const float *centroid, uint8_t *block, uint32_t lane, uint32_t slot);
/* Codes complete blocks of flat rows up to `end`, at most *budget rows, once those by cluster are there; of a sealed
 * chunk the last block need not be complete. */
enum mn_status mn_tail_made_code(struct mn_tail_coder *c, const struct mn_tail_coded *k, struct mn_tail_made *m,
                                 uint32_t end, uint32_t *budget) MN_MUST_USE;
/* A step towards `next`, which takes the place of `current` as soon as it is no worse. rows: of the chunk, now.
 * *worked: rows, about. */
enum mn_status mn_tail_next_step(struct mn_tail_coder *c, struct mn_tail_coded *k, uint32_t rows,
                                 uint32_t *worked) MN_MUST_USE;

/* ---- tail_coder_clusters.c ---- */

/* A step towards the rows of `next` that are by cluster. */
enum mn_status mn_tail_clusters_step(struct mn_tail_coder *c, struct mn_tail_coded *k) MN_MUST_USE;
/* Whether they are all there. */
static inline bool mn_tail_clusters_made(const struct mn_tail_made *m)
{
    return m->rows >= m->clustered;
}

#endif
