/*
 * codebook_file.h - the inside of codebooks/<gen>.col, shared by what writes it (codebook_write.c) and what maps it
 * (codebook.c).
 *
 * The data of the file (engine/columns_file.h, MN_COLUMN_CODEBOOK): struct mn_codebook_body, then the arrays that
 * struct mn_codebook points to, each at a multiple of 64 bytes. The offsets follow from the sizes and are checked
 * against them.
 */
#ifndef MN_ENGINE_CODEBOOK_FILE_H
#define MN_ENGINE_CODEBOOK_FILE_H

#include "engine/codebook.h"
#include "engine/columns_file.h"

#define MN_CODEBOOK_MAGIC UINT64_C(0x324b4f4f42444d4e)

/* Words of signs, and blocks of centroids. */
#define MN_CODEBOOK_SIGNS(width)     ((uint64_t)4 * (width) / 32)
#define MN_CODEBOOK_BLOCKS(clusters) (((uint64_t)(clusters) + MN_IVF_LANES - 1) / MN_IVF_LANES)

struct mn_codebook_body {
    uint64_t magic;
    uint32_t width, clusters, supers, metric;
    float energy;
    uint32_t zero;
    uint64_t trained_rows;
    uint64_t mean_at, signs_at, super_at, super_norms_at, child_at, centroids_at, norms_at, blocks_at, codes8_at,
        fine_at, energies_at;
    uint64_t bytes; /* of it all */
};
_Static_assert(sizeof(struct mn_codebook_body) == 136, "no padding: bodies are compared byte by byte");

/* Fills in magic, offsets and bytes from width, clusters and supers. */
void mn_codebook_lay_out(struct mn_codebook_body *body);
/* A codebook whose arrays lie behind a body at `base`, 64-byte aligned. gen and dim are the caller's to set. */
void mn_codebook_point(struct mn_codebook *codebook, const struct mn_codebook_body *body, const void *base);

/* The signs of a store's rotation: the same for all its codebooks. */
void mn_codebook_signs(const struct mn_store *store, uint32_t width, uint32_t *signs);

#endif
