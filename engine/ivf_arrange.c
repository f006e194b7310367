/*
 * ivf_arrange.c - which clusters share blocks, and whether a directory that says so can be believed.
 *
 * The rest of a cluster (its rows beyond whole blocks) lies in one block with the rests of clusters nearby. The largest
 * rest that has no place yet opens a block, and takes in the nearest ones that still fit. Rests are never split: a
 * cluster costs a search its own blocks and one more, and that one it often has for nothing.
 */
#include <math.h>

#include "engine/codebook.h"
#include "engine/ivf.h"

static uint32_t rest_of(const uint32_t *first_slot, uint32_t c)
{
    return (first_slot[c + 1] - first_slot[c]) % MN_IVF_LANES;
}

/* ---- arranging ---- */

/* The clusters of one super-centroid whose rests have no place yet. */
struct pool {
    const struct mn_codebook *codebook;
    const struct mn_kernels *kernels;
    const uint32_t *first_slot;
    uint32_t *rest;
    uint32_t *left;   /* their numbers, rising */
    float *distances; /* of each of them to the one that opened the block */
    uint32_t count;
};

static void take(struct pool *p, uint32_t i)
{
    p->count--;
    memmove(p->left + i, p->left + i + 1, (p->count - i) * sizeof *p->left);
    memmove(p->distances + i, p->distances + i + 1, (p->count - i) * sizeof *p->distances);
}

static uint32_t largest(const struct pool *p)
{
    uint32_t found = 0;
    for (uint32_t i = 1; i < p->count; i++)
        if (rest_of(p->first_slot, p->left[i]) > rest_of(p->first_slot, p->left[found]))
            found = i;
    return found;
}

/* The nearest that fits into `room` lanes; count: none. */
static uint32_t nearest(const struct pool *p, uint32_t room)
{
    uint32_t found = p->count;
    for (uint32_t i = 0; i < p->count; i++)
        if (rest_of(p->first_slot, p->left[i]) <= room && (found == p->count || p->distances[i] < p->distances[found]))
            found = i;
    return found;
}

static void measure(struct pool *p, uint32_t from)
{
    uint32_t width = p->codebook->width;
    const float *centroids = p->codebook->centroids;
    for (uint32_t i = 0; i < p->count; i++)
        p->distances[i] =
            p->kernels->l2(centroids + (size_t)from * width, centroids + (size_t)p->left[i] * width, width);
}

static void fill_block(struct pool *p, uint32_t block)
{
    uint32_t lane = 0, i = largest(p);
    measure(p, p->left[i]);
    while (i < p->count) {
        uint32_t cluster = p->left[i];
        p->rest[cluster] = block * MN_IVF_LANES + lane;
        lane += rest_of(p->first_slot, cluster);
        take(p, i);
        i = nearest(p, MN_IVF_LANES - lane);
    }
}

uint32_t mn_ivf_arrange(const struct mn_codebook *codebook, const struct mn_kernels *kernels,
                        const uint32_t *first_slot, uint32_t *first_block, uint32_t *rest, uint32_t *scratch,
                        float *distances)
{
    struct pool pool = {codebook, kernels, first_slot, rest, scratch, distances, 0};
    first_block[0] = 0;
    for (uint32_t c = 0; c < codebook->clusters; c++)
        first_block[c + 1] = first_block[c] + (first_slot[c + 1] - first_slot[c]) / MN_IVF_LANES;
    uint32_t blocks = first_block[codebook->clusters];
    for (uint32_t s = 0; s < codebook->supers; s++) {
        for (uint32_t c = codebook->child[s]; c < codebook->child[s + 1]; c++) {
            rest[c] = MN_NONE;
            if (rest_of(first_slot, c) > 0)
                pool.left[pool.count++] = c;
        }
        while (pool.count > 0)
            fill_block(&pool, blocks++);
    }
    return blocks;
}

void mn_ivf_fill_homes(uint32_t clusters, const uint32_t *first_slot, const uint32_t *first_block, const uint32_t *rest,
                       uint32_t blocks, uint32_t *homes)
{
    uint32_t first = first_block[clusters] * MN_IVF_LANES;
    memset(homes, 0xff, (size_t)(blocks - first_block[clusters]) * MN_IVF_LANES * sizeof *homes);
    for (uint32_t c = 0; c < clusters; c++)
        for (uint32_t i = 0; i < rest_of(first_slot, c); i++)
            homes[rest[c] - first + i] = c;
}

/* ---- believing ---- */

/* The rest of a cluster lies in one shared block, in lanes that say so. */
static bool rest_holds(const struct mn_ivf *ivf, uint32_t c)
{
    uint32_t count = rest_of(ivf->first_slot, c), at = ivf->rest[c], shared = ivf->first_block[ivf->clusters];
    if (count == 0)
        return at == MN_NONE;
    if (at / MN_IVF_LANES < shared || at / MN_IVF_LANES >= ivf->block_count || at % MN_IVF_LANES + count > MN_IVF_LANES)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (ivf->homes[at - shared * MN_IVF_LANES + i] != c)
            return false;
    return true;
}

static bool clusters_hold(const struct mn_ivf *ivf)
{
    if (ivf->first_block[0] != 0 || ivf->first_slot[0] != 0)
        return false;
    for (uint32_t c = 0; c < ivf->clusters; c++) {
        uint32_t slots = ivf->first_slot[c + 1] - ivf->first_slot[c];
        if (ivf->first_slot[c + 1] < ivf->first_slot[c] || ivf->first_slot[c + 1] > ivf->rows ||
            ivf->first_block[c + 1] - ivf->first_block[c] != slots / MN_IVF_LANES)
            return false;
    }
    return ivf->first_slot[ivf->clusters] == ivf->rows && ivf->first_block[ivf->clusters] <= ivf->block_count;
}

bool mn_ivf_holds(const struct mn_ivf *ivf)
{
    uint64_t homes = 0, rests = 0;
    if (!clusters_hold(ivf))
        return false;
    for (uint32_t c = 0; c < ivf->clusters; c++) {
        if (!rest_holds(ivf, c))
            return false;
        rests += rest_of(ivf->first_slot, c);
    }
    uint64_t lanes = (uint64_t)(ivf->block_count - ivf->first_block[ivf->clusters]) * MN_IVF_LANES;
    for (uint64_t lane = 0; lane < lanes; lane++)
        homes += ivf->homes[lane] != MN_NONE; /* those of the clusters say so; there are no others */
    for (uint32_t slot = 0; slot < ivf->rows; slot++)
        if (ivf->order[slot] >= ivf->rows || ivf->slots[ivf->order[slot]] != slot)
            return false;
    return homes == rests;
}
