/*
 * codebook.h - what turns embeddings into codes: a mean, a rotation, and centroids; one file per generation.
 *
 * A codebook is trained on a sample of the store and never changes; a new one has a new generation. codebooks/<gen>.col
 * is mapped read-only and used in place. Generation 0 is the plain codebook: no mean, no centroids, a rotation that
 * follows from the store's uuid; it needs no file and serves until there is a trained one.
 *
 * The rotated space: x <- x * scale (1/|x| under cosine, else 1) - mean; padded with zeros to `width`; four rounds of
 * {signs; orthonormal fast Hadamard transform of the first (odd rounds: last) 2^floor(log2 width) coordinates; unless
 * width is a power of two, a butterfly of the two halves times 1/sqrt 2}. Distances are kept; coordinates become alike,
 * which is what 1-bit codes need (RaBitQ, arXiv 2405.12497, section 3.2).
 */
#ifndef MN_ENGINE_CODEBOOK_H
#define MN_ENGINE_CODEBOOK_H

#include "engine/ivf.h"
#include "engine/store.h"

#define MN_CODEBOOK_WIDTH(dim) ((uint32_t)mn_round_up((dim), 64))

/* A store with fewer rows is searched exactly in less time than clusters would take to choose. */
#define MN_CODEBOOK_ROWS_MIN 4096u
/* Limits of a trained codebook. */
#define MN_CODEBOOK_CLUSTERS_MAX 65536u
#define MN_CODEBOOK_SUPERS_MAX   256u
/* What a training holds in memory of its sample, unless less is said. */
#define MN_CODEBOOK_SAMPLE_BYTES (UINT64_C(512) << 20)

/* Everything points into the mapping (or, for the plain one, into memory of its own). */
struct mn_codebook {
    uint64_t gen;
    uint32_t dim, width;
    enum mn_metric metric;
    uint32_t clusters;        /* 0 for the plain one */
    uint32_t supers;          /* super-centroids */
    const float *mean;        /* [width], in the space of embeddings; zeros beyond dim */
    const uint32_t *signs;    /* [4][width / 32]: bit set = negate */
    const float *super;       /* [supers][width], rotated */
    const float *super_norms; /* [supers]: |s|^2 */
    const uint32_t *child;    /* [supers + 1]: centroids child[s]..child[s + 1] belong to super s */
    const float *centroids;   /* [clusters][width], rotated; neighbours of one super side by side */
    const float *norms;       /* [clusters]: |c|^2 */
    /* Centroids as the search sees them, in the layouts of ivf.h: blocks of 32 with factors against the origin (lanes
     * beyond the last have add = 1e30), and 8-bit codes. */
    const uint8_t *blocks;
    const uint8_t *codes8;          /* [clusters][width] */
    const struct mn_ivf_fine *fine; /* [clusters] */
    double error2, span2;           /* mean squares of error and span in `fine`; 0 in the plain one */
    float energy;                   /* mean |x - c|^2 of the rows it was trained on */
    const float *energies; /* [clusters]: the same of each cluster, drawn towards `energy` where rows are few */
    uint64_t trained_rows; /* rows the store had then */
};

/* Puts a row (of this scale) into the codebook's space. out: width floats, 64-byte aligned; x: dim floats, any
 * alignment. The same bits on every instruction set. */
void mn_codebook_rotate(const struct mn_codebook *codebook, const struct mn_kernels *kernels, const float *x,
                        float scale, float *out);
/* The same for a query: under inner product without taking the mean away, since <x,q> = <x',Rq> + <mean,q>. */
void mn_codebook_rotate_query(const struct mn_codebook *codebook, const struct mn_kernels *kernels, const float *x,
                              float scale, float *out);

/* Opens generation `gen` (0: the plain one). All users in a process share one; opening it a second time costs a
 * look-up. Checked whole at the first opening by a process. MN_CORRUPT names the file; MN_NOT_FOUND. */
enum mn_status mn_codebook_open(const struct mn_codebook **codebook, const struct mn_store *store,
                                uint64_t gen) MN_MUST_USE;
void mn_codebook_close(const struct mn_codebook *codebook);

/* Where training rows come from: fills out[dim] with the embedding of sample row i (0..rows-1) times its scale; false
 * leaves that row out. Called in rising order of i, from the training thread. When all of them would take more than
 * `bytes` (0: MN_CODEBOOK_SAMPLE_BYTES), an even share of them, one at least, is taken into memory, and then they are
 * gone through from the first to the last several times. */
struct mn_codebook_sample {
    uint64_t rows;
    bool (*row)(void *context, uint64_t i, float *out);
    void *context;
    uint64_t bytes;
};

/* How many clusters suit a store of that many rows: about 4 sqrt(rows), but not fewer than 32 rows in one; a multiple
 * of 32; 0 below MN_CODEBOOK_ROWS_MIN. And how large a sample suits the training. */
uint32_t mn_codebook_clusters(uint64_t store_rows);
uint64_t mn_codebook_sample_rows(uint32_t clusters);

/* One row in eight is never trained on: those are what calibration asks for (tune_calibrate.c). */
#define MN_CODEBOOK_LEFT_OUT 8u
static inline bool mn_codebook_leaves_out(const struct mn_id *id)
{
    return mn_id_hash(0, id) >> 32 <= UINT32_MAX / MN_CODEBOOK_LEFT_OUT;
}

/* Trains generation `gen` (> 0) and writes codebooks/<gen>.col: written under a temporary name, synced, renamed, folder
 * synced; the folder is made when it is missing. The same sample and seed give the same codebook on the same kind of
 * CPU. There are as many clusters as asked for (1..MN_CODEBOOK_CLUSTERS_MAX), or fewer when the sample has fewer
 * different rows, but at least 2 (one has a twin then). `pause` as in mn_compact_build (true: MN_DEADLINE), called at
 * least every 20 ms of work. What an earlier attempt left under that name is replaced. Memory: the sample, as much of
 * it as may lie there, and three times the file. MN_NOT_FOUND: no row of the sample could be read. */
enum mn_status mn_codebook_train(const struct mn_store *store, uint64_t gen, uint32_t clusters, uint64_t store_rows,
                                 const struct mn_codebook_sample *sample, uint64_t seed, bool (*pause)(void *context),
                                 void *context) MN_MUST_USE;

/* The nearest centroid of each of `count` rotated rows (row i at rows + i * width): among the children of the nearest
 * super-centroids (all of them when there are few). out[i] is the cluster, distance2[i] (may be NULL) |x - c|^2. */
void mn_codebook_assign(const struct mn_codebook *codebook, const struct mn_kernels *kernels, const float *rows,
                        uint32_t count, uint32_t *out, float *distance2);

/* The path codebooks/<gen>.col into `path`, which is returned. */
char *mn_codebook_path(const struct mn_store *store, char *path, uint64_t gen);

#endif
