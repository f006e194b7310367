/*
 * ivf.h - the inverted file of one part: its rows as codes, grouped by cluster.
 *
 * It is derived from the part's embeddings and a codebook: when it is missing or damaged the part is scanned exactly,
 * and the answer is the same or better. Of a column segment it is the file columns/<id>/ivf.<codebook>.col; of a tail
 * chunk it lies in shared memory only. Rows keep their numbers (the order of time in columns); the codes are in an
 * order of their own, cluster by cluster, and in a cluster by row number:
 *
 *   slot    the dense number of a coded row: slot = first_slot[c] + position in its cluster c. 8-bit codes and
 *           `fine` are by slot, and order[slot] is the row.
 *   block   32 lanes: 4 * width bytes of 1-bit codes, then struct mn_ivf_lanes. As many rows of a cluster as fill whole
 *           blocks have those to themselves, side by side. The rest of it, fewer than 32, shares a block with what is
 *           left of clusters nearby: a search that looks into one of them most likely wants the others, too, and no
 *           lane is scanned in vain (mn_ivf_arrange). Lanes that nobody uses have add = MN_IVF_FAR.
 *
 * 1-bit codes (RaBitQ, arXiv 2405.12497): of the residual r = x' - c in the rotated space, 4 coordinates make a nibble
 * (bit i of nibble t: r[4t + i] > 0). Table t lies in bytes 16t..16t+15 of a block; byte j holds, in its low nibble,
 * the lane {0,8,1,9,2,10,3,11,4,12,5,13,6,14,7,15}[j] and in its high nibble that lane + 16: one layout for registers
 * of 64 and 32 bytes, and for plain C. With l2 = |r|^2, y = bits - 1/2, p = <r,y> = |r|_1 / 2, o = p / (|r|
 * sqrt(width)/2):
 *
 *   under cosine and L2, distance = |x - q|^2:            under inner product, distance = -<x',q>:
 *     add   = l2 + 2 l2 <y,c> / p                           add   = 0
 *     slope = -2 l2 / p                                     slope = -l2 / p
 *     error = 2 |r| sqrt((1 - o^2) / (o^2 (width - 1)))      error = |r| sqrt((1 - o^2) / (o^2 (width - 1)))
 *     gap   = |q - c|^2, reach = |q - c|                    gap   = -<c,q>, reach = |q|
 *   estimate = add + gap + slope * (<bits,q> - sum(q)/2); less epsilon * error * reach: a (statistical) lower bound.
 *
 * 8-bit codes (arXiv 2409.09913): u_i = floor(r_i * 127.99 / max|r| + 128), y8 = u - 127.5, scale = l2 / <r,y8>, so
 * that scale * y8 is about r. fine.add and fine.slope as above with y8 for y; fine.error = |r - scale y8| and fine.span
 * >= |scale y8| are norms, rounded up: mn_ivf_doubt8 is a bound that holds, not a likely one.
 *
 * A zero residual (its squares may have underflown) has slope = 0, add = l2, u = 128. A residual too long for floats
 * has slope = error = 0, add = MN_IVF_NEAR and (8 bits) an infinite doubt: the f32 vectors decide. Distances above
 * MN_IVF_FAR are possible: a search's limit begins at infinity, and lanes without a row are told by their row.
 */
#ifndef MN_ENGINE_IVF_H
#define MN_ENGINE_IVF_H

#include "engine/kernels.h"

#define MN_IVF_LANES 32
#define MN_IVF_FAR   1e30f
#define MN_IVF_NEAR  (-0x1.fffffep127f)

struct mn_codebook;

/* Behind the 1-bit codes of a block. */
struct mn_ivf_lanes {
    float add[MN_IVF_LANES], slope[MN_IVF_LANES], error[MN_IVF_LANES];
};

struct mn_ivf_fine {
    float add, slope, error, span;
};
_Static_assert(sizeof(struct mn_ivf_fine) == 16, "element of an array on disk");

/* The distance as the 8-bit codes see it; dot: kernels->dot8 of the row's codes and the query's. The same bits
 * everywhere. (2 <y8, codes> fits 32 bits; what overflows on the way comes back.) */
static inline float mn_ivf_estimate8(const struct mn_ivf_fine *fine, const struct mn_fine_query *query, int32_t dot,
                                     float gap)
{
    int32_t twice = (int32_t)(2u * (uint32_t)dot - 255u * (uint32_t)query->sum);
    return (fine->add + gap) + fine->slope * (query->step * 0.5f * (float)twice);
}

/* How far that can be from the distance, at most: by the code, by the rounding of the query, and by that of all sums.
 * size >= |q| + |c|, of the rotated query and the centroid. */
static inline float mn_ivf_doubt8(const struct mn_ivf_fine *fine, const struct mn_fine_query *query,
                                  enum mn_metric metric, float reach, float size)
{
    float twice = metric == MN_METRIC_IP ? 1.0f : 2.0f;
    float rounding = mn_kernel_rounding(query->width), all = fine->span + size;
    return twice * (fine->error * reach + fine->span * query->lost) * 1.000001f + rounding * all * all +
           (float)query->width * 0x1p-140f;
}

static inline uint32_t mn_ivf_block_bytes(uint32_t width)
{
    return 4 * width + (uint32_t)sizeof(struct mn_ivf_lanes);
}
static inline const struct mn_ivf_lanes *mn_ivf_lanes(const uint8_t *block, uint32_t width)
{
    return (const struct mn_ivf_lanes *)(const void *)(block + 4 * (size_t)width);
}

/* A mapped inverted file. `clusters` is the codebook's, or 1 in a flat one: then the centroid is the origin of the
 * rotated space, and the codes are in the order of rows, from row `first` on: slot and row are one there, and the lanes
 * of its blocks begin with that row. Valid while the part is. */
struct mn_ivf {
    const struct mn_codebook *codebook;
    uint32_t clusters;
    uint32_t rows;               /* rows below it are coded; in a growing flat one as published at the pin: a multiple
                                    of 32 while it grows */
    uint32_t first;              /* of a flat one: its first row; else 0 */
    const struct mn_ivf *fresh;  /* flat codes of the rows from `rows` on, not all of them; NULL: there are none */
    const uint32_t *first_slot;  /* [clusters + 1] */
    const uint32_t *first_block; /* [clusters + 1]: of the blocks that a cluster has to itself; shared ones follow */
    const uint32_t *rest;  /* [clusters]: block * 32 + lane where the rest of a cluster begins; MN_NONE: no rest */
    const uint32_t *homes; /* [shared blocks][32]: cluster of each lane, or MN_NONE; NULL in a flat one */
    uint32_t block_count;  /* the shared ones included */
    const uint8_t *blocks;
    const uint8_t *codes8;            /* [rows][width], by slot */
    const struct mn_ivf_fine *fine;   /* [rows], by slot */
    const uint32_t *slots;            /* [rows]: row -> slot; NULL: the row number itself */
    const uint32_t *order;            /* [rows]: slot -> row; NULL: the slot itself */
    const struct mn_ivf_check *check; /* NULL: everything was checked; else see mn_ivf_intact */
};

static inline bool mn_ivf_flat(const struct mn_ivf *ivf)
{
    return ivf->clusters == 1;
}

/* Rows that a search goes through cluster by cluster. ivf may be NULL. */
static inline uint32_t mn_ivf_clustered(const struct mn_ivf *ivf)
{
    return ivf && !mn_ivf_flat(ivf) ? ivf->rows : 0;
}

/* Rows below it are coded, here or in what follows. */
static inline uint32_t mn_ivf_coded(const struct mn_ivf *ivf)
{
    return ivf->fresh ? ivf->fresh->rows : ivf->rows;
}

/* The row of a slot, and the slot of a row. */
static inline uint32_t mn_ivf_row(const struct mn_ivf *ivf, uint32_t slot)
{
    return ivf->order ? ivf->order[slot] : slot;
}
static inline uint32_t mn_ivf_slot(const struct mn_ivf *ivf, uint32_t row)
{
    return ivf->slots ? ivf->slots[row] : row;
}

/* The cluster of a slot. */
static inline uint32_t mn_ivf_cluster(const struct mn_ivf *ivf, uint32_t slot)
{
    uint32_t low = 0, high = ivf->clusters;
    while (high - low > 1) { /* first_slot[low] <= slot < first_slot[high] */
        uint32_t middle = low + (high - low) / 2;
        if (ivf->first_slot[middle] <= slot)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Block * 32 + lane of a slot of cluster c. */
static inline uint32_t mn_ivf_lane(const struct mn_ivf *ivf, uint32_t c, uint32_t slot)
{
    uint32_t at = slot - ivf->first_slot[c], own = (ivf->first_block[c + 1] - ivf->first_block[c]) * MN_IVF_LANES;
    return at < own ? ivf->first_block[c] * MN_IVF_LANES + at : ivf->rest[c] + (at - own);
}

/* The rest of a cluster, its last slots: how many there are, and the first of them. */
static inline uint32_t mn_ivf_rest_rows(const struct mn_ivf *ivf, uint32_t c)
{
    return (ivf->first_slot[c + 1] - ivf->first_slot[c]) % MN_IVF_LANES;
}
static inline uint32_t mn_ivf_rest_slot(const struct mn_ivf *ivf, uint32_t c)
{
    return ivf->first_slot[c + 1] - mn_ivf_rest_rows(ivf, c);
}

/* ---- which clusters share blocks ---- */

/* From first_slot[clusters + 1] of a codebook's clusters: fills first_block[clusters + 1] and rest[clusters], and
 * returns how many blocks there are, the shared ones included. scratch: [clusters] of each. Everything that a shared
 * block holds belongs to one super-centroid. The same on every instruction set. */
uint32_t mn_ivf_arrange(const struct mn_codebook *codebook, const struct mn_kernels *kernels,
                        const uint32_t *first_slot, uint32_t *first_block, uint32_t *rest, uint32_t *scratch,
                        float *distances);
/* Then: homes[(blocks - first_block[clusters]) * 32]. */
void mn_ivf_fill_homes(uint32_t clusters, const uint32_t *first_slot, const uint32_t *first_block, const uint32_t *rest,
                       uint32_t blocks, uint32_t *homes);
/* Whether a directory with these numbers in it holds: every slot in one cluster, every cluster in whole blocks and a
 * rest that lies in one shared block, every lane of those in one home, `order` and `slots` each the other's inverse.
 * Nothing of it is trusted before; arrays have the lengths that clusters, rows and block_count say. */
bool mn_ivf_holds(const struct mn_ivf *ivf);

/* ---- coding ---- */

/* Codes one rotated row against a rotated centroid (NULL: the origin) into lane `lane` of `block` (whose nibbles of
 * that lane are zero), and codes8[width], *fine. */
void mn_ivf_encode(const struct mn_kernels *kernels, enum mn_metric metric, uint32_t width, const float *x,
                   const float *centroid, uint8_t *block, uint32_t lane, uint8_t *codes8, struct mn_ivf_fine *fine);
/* The 1-bit codes of one row from a lane into another one, whose nibbles are zero, of the same width. */
void mn_ivf_copy_lane(uint32_t width, const uint8_t *from_block, uint32_t from, uint8_t *block, uint32_t lane);
/* Makes an empty block: zero codes, every lane far. */
void mn_ivf_clear_block(uint8_t *block, uint32_t width);

/* ---- integrity ---- */

/* Checksums of 8-bit codes that are checked at first touch (of the file; a copy in shared memory was checked when it
 * was made). False: the block of the file that holds this slot is damaged. */
bool mn_ivf_check_slot(const struct mn_ivf *ivf, uint32_t slot);
/* Says that the 8-bit codes of so many slots from `slot` on will be wanted: asks the disk for them where they are not
 * all to stay in memory. */
void mn_ivf_ahead(const struct mn_ivf *ivf, uint32_t slot, uint32_t count);
static inline bool mn_ivf_intact(const struct mn_ivf *ivf, uint32_t slot)
{
    return !ivf->check || mn_ivf_check_slot(ivf, slot);
}

#endif
