/*
 * tail_coder_clusters.c - the rows of a file that are by cluster: assigned, laid out, coded; a step at a time.
 *
 * What the file that readers use has by cluster already keeps its clusters, and its codes are copied: so a chunk that
 * grows can be laid out anew every few thousand rows, and each row is assigned and coded once.
 */
#include <stdlib.h>

#include "engine/ivf_file.h"
#include "engine/tail_coder_inside.h"
#include "shm/huge.h"

#define COPIES 16u /* rows copied in the time that one is coded */

/* ---- which cluster ---- */

static enum mn_status make_lists(const struct mn_tail_coder *c, const struct mn_tail_coded *k, struct mn_tail_made *m)
{
    const struct mn_tail_made *old = &k->current;
    if (m->cluster)
        return MN_OK;
    m->cluster = malloc(m->clustered * sizeof *m->cluster);
    m->filled = calloc(c->codebook->clusters, sizeof *m->filled);
    if (!m->cluster || !m->filled)
        return MN_FAIL(MN_INTERNAL, "no memory to code %u rows by cluster", m->clustered);
    if (old->clustered == 0 || old->with != m->with || old->clustered > m->clustered)
        return MN_OK;
    mn_ivf_clusters(&old->codes.ivf, m->cluster);
    m->kept = m->assigned = old->clustered;
    for (uint32_t row = 0; row < m->kept; row++)
        m->filled[m->cluster[row]]++;
    return MN_OK;
}

/* The clusters of the next few rows. Those that cannot be read lie somewhere, far away. */
static void assign_rows(struct mn_tail_coder *c, const struct mn_tail_coded *k, struct mn_tail_made *m)
{
    uint32_t left = m->clustered - m->assigned, width = c->codebook->width;
    uint32_t count = left < MN_TAIL_CODER_STEP_ROWS ? left : MN_TAIL_CODER_STEP_ROWS;
    for (uint32_t i = 0; i < count; i++)
        if (!mn_tail_coded_rotate(c, k, c->codebook, m->assigned + i, c->rows + (size_t)i * width))
            memset(c->rows + (size_t)i * width, 0, width * sizeof(float));
    mn_codebook_assign(c->codebook, c->kernels, c->rows, count, m->cluster + m->assigned, NULL);
    for (uint32_t i = 0; i < count; i++)
        m->filled[m->cluster[m->assigned + i]]++;
    m->assigned += count;
}

/* ---- the layout ---- */

/* The directory of a file by cluster, while it is made. */
struct directory {
    uint32_t *first_slot, *first_block; /* [clusters + 1] */
    uint32_t *rest, *scratch;           /* [clusters] */
    float *distances;                   /* [clusters] */
    uint32_t blocks;
};

static void free_directory(struct directory *d)
{
    free(d->first_slot);
    free(d->first_block);
    free(d->rest);
    free(d->scratch);
    free(d->distances);
}

/* From m->filled. */
static enum mn_status make_directory(const struct mn_tail_coder *c, const struct mn_tail_made *m, struct directory *d)
{
    uint32_t clusters = c->codebook->clusters;
    d->first_slot = calloc(clusters + 1, sizeof *d->first_slot);
    d->first_block = calloc(clusters + 1, sizeof *d->first_block);
    d->rest = calloc(clusters, sizeof *d->rest);
    d->scratch = calloc(clusters, sizeof *d->scratch);
    d->distances = calloc(clusters, sizeof *d->distances);
    if (!d->first_slot || !d->first_block || !d->rest || !d->scratch || !d->distances)
        return MN_FAIL(MN_INTERNAL, "no memory to lay out %u clusters", clusters);
    for (uint32_t i = 0; i < clusters; i++)
        d->first_slot[i + 1] = d->first_slot[i] + m->filled[i];
    d->blocks =
        mn_ivf_arrange(c->codebook, c->kernels, d->first_slot, d->first_block, d->rest, d->scratch, d->distances);
    return MN_OK;
}

/* Makes the file, its directory and its empty blocks. */
static enum mn_status make_clusters(struct mn_tail_coder *c, const struct mn_tail_coded *k, struct mn_tail_made *m,
                                    const struct directory *d)
{
    uint32_t clusters = c->codebook->clusters;
    MN_TRY(mn_tail_made_create(c, k, m, d->blocks, d->blocks - d->first_block[clusters]));
    const struct mn_codes *h = m->codes.header;
    uint8_t *base = m->codes.segment.base;
    // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): mn_tail_made_create has mapped it
    uint64_t block_bytes = mn_ivf_block_bytes(h->width);
    MN_TRY(mn_tail_made_reserve(m, 0, h->blocks_at + d->blocks * block_bytes));
    MN_TRY(mn_tail_made_reserve(m, h->codes8_at, (uint64_t)m->clustered * h->width));
    MN_TRY(mn_tail_made_reserve(m, h->fine_at, m->clustered * sizeof(struct mn_ivf_fine)));
    memcpy(base + h->first_slot_at, d->first_slot, (clusters + UINT64_C(1)) * sizeof *d->first_slot);
    memcpy(base + h->first_block_at, d->first_block, (clusters + UINT64_C(1)) * sizeof *d->first_block);
    memcpy(base + h->rest_at, d->rest, clusters * sizeof *d->rest);
    mn_ivf_fill_homes(clusters, d->first_slot, d->first_block, d->rest, d->blocks,
                      (uint32_t *)(void *)(base + h->homes_at));
    for (uint32_t b = 0; b < d->blocks; b++)
        mn_ivf_clear_block(base + h->blocks_at + b * block_bytes, h->width);
    return MN_OK;
}

/* All rows have their cluster. */
static enum mn_status lay_out(struct mn_tail_coder *c, const struct mn_tail_coded *k, struct mn_tail_made *m)
{
    struct directory d = {0};
    enum mn_status status = make_directory(c, m, &d);
    if (status == MN_OK)
        status = make_clusters(c, k, m, &d);
    free_directory(&d);
    memset(m->filled, 0, c->codebook->clusters * sizeof *m->filled);
    return status;
}

/* ---- the codes ---- */

/* From the file that readers use. */
static void copy_row(const struct mn_tail_made *from, const struct mn_tail_made *m, uint32_t row, uint8_t *block,
                     uint32_t lane, uint32_t slot)
{
    const struct mn_ivf *ivf = &from->codes.ivf;
    const struct mn_codes *h = m->codes.header;
    uint8_t *base = m->codes.segment.base;
    uint32_t old = ivf->slots[row], old_lane = mn_ivf_lane(ivf, m->cluster[row], old), width = h->width;
    mn_ivf_copy_lane(width, ivf->blocks + (uint64_t)(old_lane / MN_IVF_LANES) * mn_ivf_block_bytes(width),
                     old_lane % MN_IVF_LANES, block, lane);
    memcpy(base + h->codes8_at + (uint64_t)slot * width, ivf->codes8 + (uint64_t)old * width, width);
    memcpy(base + h->fine_at + slot * sizeof *ivf->fine, &ivf->fine[old], sizeof *ivf->fine);
}

static void encode_rows(struct mn_tail_coder *c, const struct mn_tail_coded *k, struct mn_tail_made *m)
{
    const struct mn_codes *h = m->codes.header;
    const struct mn_ivf *ivf = &m->codes.ivf;
    uint8_t *base = m->codes.segment.base;
    uint32_t *slots = (uint32_t *)(void *)(base + h->slots_at), *order = (uint32_t *)(void *)(base + h->order_at);
    uint32_t cost = 0;
    for (; cost < MN_TAIL_CODER_STEP_ROWS * COPIES && m->encoded < m->clustered; m->encoded++) {
        uint32_t row = m->encoded, cluster = m->cluster[row];
        uint32_t slot = ivf->first_slot[cluster] + m->filled[cluster]++, lane = mn_ivf_lane(ivf, cluster, slot);
        uint8_t *block = base + h->blocks_at + (uint64_t)(lane / MN_IVF_LANES) * mn_ivf_block_bytes(h->width);
        slots[row] = slot;
        order[slot] = row;
        if (row < m->kept)
            copy_row(&k->current, m, row, block, lane % MN_IVF_LANES, slot);
        else
            mn_tail_made_encode(c, k, m, row, m->codes.codebook->centroids + (size_t)cluster * h->width, block,
                                lane % MN_IVF_LANES, slot);
        cost += row < m->kept ? 1 : COPIES;
    }
}

/* A chunk to which nothing is added is read for a while as it is now: of huge pages, as far as all of them are there.
 */
static void collapse(const struct mn_tail_made *m)
{
    const struct mn_codes *h = m->codes.header;
    mn_huge_collapse(m->codes.segment.base, 0, h->blocks_at + (uint64_t)h->blocks * mn_ivf_block_bytes(h->width));
    mn_huge_collapse(m->codes.segment.base, h->codes8_at, h->codes8_at + (uint64_t)m->clustered * h->width);
}

static void finish(const struct mn_tail_coded *k, struct mn_tail_made *m)
{
    if (k->sealed)
        collapse(m);
    free(m->cluster);
    free(m->filled);
    m->cluster = m->filled = NULL;
    m->rows = m->clustered;
    atomic_store_explicit(&m->codes.header->rows, m->rows, memory_order_release);
}

enum mn_status mn_tail_clusters_step(struct mn_tail_coder *c, struct mn_tail_coded *k)
{
    struct mn_tail_made *m = &k->next;
    MN_TRY(make_lists(c, k, m));
    if (m->assigned < m->clustered) {
        assign_rows(c, k, m);
    } else if (!m->codes.header) {
        return lay_out(c, k, m);
    } else {
        encode_rows(c, k, m);
        if (m->encoded == m->clustered)
            finish(k, m);
    }
    return MN_OK;
}
