/*
 * ivf_file.h - inverted files on disk: columns/<id>/ivf.<codebook>.col, beside the columns that they follow from.
 *
 * An inverted file is written after its segment, from the segment's embeddings. It may be missing or damaged at any
 * time: the segment is scanned exactly then, until the compactor has written the file anew. A column file
 * (columns_file.h, header.extra = generation of the codebook) whose data is
 *
 *   struct mn_ivf_body | first_slot[clusters + 1] | first_block[clusters + 1] | rest[clusters] | homes | slots[rows] |
 *   order[rows] | blocks | fine[rows] | codes8
 *
 * each array 64-byte aligned, codes8 at a multiple of MN_COLUMN_BLOCK: what lies before it is checked whole when a
 * process first opens the file, the 8-bit codes block by block at first touch.
 */
#ifndef MN_ENGINE_IVF_FILE_H
#define MN_ENGINE_IVF_FILE_H

#include "engine/codebook.h"
#include "engine/columns.h"
#include "shm/instance.h"

#define MN_IVF_MAGIC UINT64_C(0x3246564900004e4d)

/* A segment with fewer rows is compared row by row in the time that a search through codes takes to begin: it gets no
 * inverted file. */
#define MN_IVF_ROWS_MIN 128u

/* Offsets in bytes from the body's beginning. Checked against the length before anything is used. */
struct mn_ivf_body {
    uint64_t magic;
    uint64_t codebook; /* generation */
    uint32_t width, clusters, rows;
    uint32_t blocks, shared; /* all blocks; those at their end that clusters share */
    uint32_t zero;
    uint64_t first_slot_at, first_block_at, rest_at, homes_at, slots_at, order_at, blocks_at, fine_at, codes8_at;
    uint64_t bytes; /* of it all */
    uint64_t spare; /* 0 */
};
_Static_assert(sizeof(struct mn_ivf_body) == 128, "on disk");

/* Fills the offsets and `bytes` from width, clusters, rows, blocks and shared. */
void mn_ivf_lay_out(struct mn_ivf_body *body);

/* ---- making ---- */

/* Codes every row of a part and writes columns/<segment>/ivf.<codebook->gen>.col: under a temporary name, synced,
 * renamed, folder synced; an older file of that name is replaced. Rows whose embedding cannot be read are coded as far
 * away and never found by it. assigned (may be NULL): cluster of each row where it is known from an older inverted file
 * on the same codebook, else MN_NONE. MN_READ_ONLY when the disk has no room for it: nothing is written then. Memory:
 * 20 bytes a row, the shared blocks (half a block a cluster or so) and a few MiB. *bytes: of the file; *energy: mean |x
 * - c|^2. pause as in mn_compact_build, called every few ms. */
enum mn_status mn_ivf_write(const struct mn_store *store, uint64_t segment, const struct mn_part *part,
                            const struct mn_codebook *codebook, const uint32_t *assigned, bool (*pause)(void *context),
                            void *context, uint64_t *bytes, float *energy) MN_MUST_USE;

/* ---- using ---- */

struct mn_ivf_file; /* a mapping, and the codebook that goes with it */

/* Maps the inverted file of a column segment. Shared by the threads of a process. All but the 8-bit codes is checked
 * when it is first opened in this process. MN_NOT_FOUND, MN_CORRUPT (the file's, or its codebook's): the segment is
 * scanned exactly instead. */
enum mn_status mn_ivf_open(struct mn_ivf_file **file, const struct mn_store *store, uint64_t segment,
                           uint64_t codebook) MN_MUST_USE;
/* The same through the segment's hot copy in shared memory (engine/hot.h) when there is one, in which everything has
 * been checked; else as mn_ivf_open. */
enum mn_status mn_ivf_open_hot(struct mn_ivf_file **file, const struct mn_store *store, struct mn_instance *instance,
                               uint64_t segment, uint64_t codebook) MN_MUST_USE;
/* NULL is harmless. */
void mn_ivf_close(struct mn_ivf_file *file);
const struct mn_ivf *mn_ivf_of(const struct mn_ivf_file *file);
/* True when a block of 8-bit codes has failed its checksum at first touch, in this process. Opening the segment's file
 * anew then maps what lies there now. */
bool mn_ivf_damaged(const struct mn_ivf_file *file);

/* A page of the file could not be read (engine/guard.h): whether the address lies in it, and that it counts as damaged
 * from now on. */
bool mn_ivf_covers(const struct mn_ivf_file *file, const void *address);
void mn_ivf_fail(struct mn_ivf_file *file);

/* The cluster of each row, into clusters[rows]: what mn_ivf_write takes as `assigned` for a merge. */
void mn_ivf_clusters(const struct mn_ivf *ivf, uint32_t *clusters);

/* columns/<segment>/ivf.<codebook>.col into `path`, which is returned. */
char *mn_ivf_path(const struct mn_store *store, char *path, uint64_t segment, uint64_t codebook);

/* ---- integrity: as mn_columns_verify, of one file; a missing one is damage too ---- */

void mn_ivf_verify(const struct mn_store *store, uint64_t segment, uint64_t codebook, uint64_t *files, uint64_t *bytes,
                   mn_damage_fn damaged, void *context);
void mn_codebook_verify(const struct mn_store *store, uint64_t gen, uint64_t *files, uint64_t *bytes,
                        mn_damage_fn damaged, void *context);

#endif
