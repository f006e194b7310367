/*
 * ivf_file.h - inverted files where they lie: beside the columns of a segment on disk, and in shared memory.
 *
 * The same bytes in three places, so that one function gives the struct mn_ivf of any of them:
 *   columns/<id>/ivf.<codebook>.col   durable; written after the segment, from its embeddings
 *   <instance>/ivf.<id>.<codebook>    a hot copy of it in shared memory, in huge pages, which all processes map
 *   <instance>/codes.<gen>.<wal>      of a tail chunk: flat while the chunk grows, by cluster when it is sealed
 * The body: struct mn_ivf_body, then the arrays it tells of, each 64-byte aligned (blocks 4 KiB-aligned).
 */
#ifndef MN_ENGINE_IVF_FILE_H
#define MN_ENGINE_IVF_FILE_H

#include "engine/codebook.h"
#include "engine/part.h"
#include "shm/instance.h"

#define MN_IVF_MAGIC UINT64_C(0x3146564900004e4d)

/* Offsets in bytes from the body's beginning. Checked against the length before anything is used. */
struct mn_ivf_body {
    uint64_t magic;
    uint64_t codebook; /* generation */
    uint32_t width, clusters, rows, blocks;
    uint64_t first_block_at, first_slot_at, blocks_at, codes8_at, fine_at, slots_at; /* slots_at 0: none */
    uint64_t bytes; /* of it all */
};

/* ---- making ---- */

/* Codes every row of a part and writes columns/<segment>/ivf.<codebook->gen>.col: under a temporary name, synced,
 * renamed, folder synced. Rows whose embedding cannot be read are coded as far away and never found by it. assigned
 * (may be NULL): cluster of each row where it is known from an older inverted file on the same codebook, else MN_NONE.
 * Memory: 8 bytes a row and a few MiB. *bytes: of the file; *energy: mean |x - c|^2. pause as in mn_compact_build. */
enum mn_status mn_ivf_write(const struct mn_store *store, uint64_t segment, const struct mn_part *part,
                            const struct mn_codebook *codebook, const uint32_t *assigned, bool (*pause)(void *context),
                            void *context, uint64_t *bytes, float *energy) MN_MUST_USE;

/* ---- using ---- */

struct mn_ivf_file; /* a mapping, and the codebook that goes with it */

/* Maps the inverted file of a column segment: the hot copy when `instance` has one, else the file. Shared by the
 * threads of a process. The directory, 1-bit blocks and fine factors of a file are checked when it is first opened in
 * this process (hot copies were when they were made), 8-bit codes at first touch. MN_NOT_FOUND, MN_CORRUPT: the
 * segment is scanned exactly instead. */
enum mn_status mn_ivf_open(struct mn_ivf_file **file, const struct mn_store *store, struct mn_instance *instance,
                           uint64_t segment, uint64_t codebook) MN_MUST_USE;
void mn_ivf_close(struct mn_ivf_file *file);
const struct mn_ivf *mn_ivf_of(const struct mn_ivf_file *file);
/* The cluster of each row, into clusters[rows]: what mn_ivf_write takes as `assigned` for a merge. */
void mn_ivf_clusters(const struct mn_ivf *ivf, uint32_t *clusters);

/* columns/<segment>/ivf.<codebook>.col into `path`, which is returned. */
char *mn_ivf_path(const struct mn_store *store, char *path, uint64_t segment, uint64_t codebook);

#endif
