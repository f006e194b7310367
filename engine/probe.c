/*
 * probe.c - see probe.h. Everything here gives the same bits on every instruction set: plain C, and kernels that do.
 */
#include "engine/probe.h"

#include <math.h>
#include <stdlib.h>

#include "engine/rowset.h"

#define FIRST    96 /* clusters refined at first, about; then as many again as there are */
#define SPARE    20 /* refined at least: so many and half as many again as are taken */
#define AHEAD    8  /* codes of centroids asked for before they are needed */
#define STRIDE   8  /* every so many estimates one is looked at to find out how far to refine, */
#define HALVINGS 12 /* in so many steps */

/* Standard deviations of its estimate that a gap must have to be taken for it; under inner product, where a gap is no
 * distance, those that the products of a cluster's rows must differ by. Else the centroid itself is compared. In
 * embeddings of text a gap has a thousand. */
#define SURE_GAP  100.0
#define SURE_ROWS 20.0

/* Under inner product a cluster's best rows are about so many deviations of its rows nearer than its centroid. Of rows
 * whose lengths differ much, long ones lie in wide clusters with a centroid that points elsewhere: by the centroid
 * alone such a cluster comes last. (The order alone, simulated with Pareto lengths, 50,000 rows of 50: .99 lies within
 * 50,000 of them without, within 74, 68 and 80 at 1 to 3; when to stop is another matter. Where clusters are alike
 * nothing changes.) */
#define BEST_ROWS 2.5f

/* The query's table is rounded, too. What that costs an estimate is as if the query were farther by the root of so many
 * squares of a step for each coordinate: (0.29 / 2 * slope / error of a lane)^2, with the 1-bit codes of rows at
 * random. It counts where a query lies very close to a cluster. */
#define BLUR 0.23f

void mn_probe_free(struct mn_probe *probe)
{
    free(probe->heap);
    free(probe->estimates);
    free(probe->sample);
    free(probe->chosen);
    free(probe->gaps);
    free(probe->logs);
    free(probe->wanted);
    free(probe->rotated);
    free(probe->table);
    free(probe->codes);
    *probe = (struct mn_probe){0};
}

static void *lines(uint64_t bytes)
{
    return aligned_alloc(MN_LINE, mn_round_up(bytes, MN_LINE));
}

static enum mn_status reserve(struct mn_probe *probe, uint32_t width, uint32_t clusters)
{
    uint64_t padded = mn_round_up(clusters, MN_IVF_LANES);
    mn_probe_free(probe);
    probe->heap = lines((padded + 1) * sizeof *probe->heap);
    probe->estimates = lines((padded + 1) * sizeof *probe->estimates);
    probe->sample = lines((padded / STRIDE + 1) * sizeof *probe->sample);
    probe->chosen = lines((padded + 1) * sizeof *probe->chosen);
    probe->gaps = lines((padded + 1) * sizeof *probe->gaps);
    probe->logs = lines((padded + 1) * sizeof *probe->logs);
    probe->wanted = lines(mn_rowset_words(padded) * sizeof *probe->wanted);
    probe->rotated = lines(width * sizeof *probe->rotated);
    probe->table = lines(UINT64_C(4) * width);
    probe->codes = lines(width);
    if (!probe->heap || !probe->estimates || !probe->sample || !probe->chosen || !probe->gaps || !probe->logs ||
        !probe->wanted || !probe->rotated || !probe->table || !probe->codes)
        return MN_FAIL(MN_INTERNAL, "out of memory for a query before %u clusters of width %u", clusters, width);
    for (uint32_t i = 0; i <= clusters; i++)
        probe->logs[i] = log((double)i + 2);
    probe->width_max = width;
    probe->clusters_max = clusters;
    return MN_OK;
}

enum mn_status mn_probe_reserve(struct mn_probe *probe, const struct mn_codebook *codebook)
{
    uint32_t width = codebook->width > probe->width_max ? codebook->width : probe->width_max;
    uint32_t clusters = codebook->clusters > probe->clusters_max ? codebook->clusters : probe->clusters_max;
    if (!probe->rotated || width > probe->width_max || clusters > probe->clusters_max)
        MN_TRY(reserve(probe, width, clusters));
    probe->codebook = codebook;
    return MN_OK;
}

/* ---- the query ---- */

/* How well codes tell gaps. */
static double doubt_of(const struct mn_probe *probe)
{
    const struct mn_codebook *codebook = probe->codebook;
    double norm2 = (double)probe->norm * (double)probe->norm, lost = (double)probe->fine.lost;
    double square = codebook->error2 * norm2 + codebook->span2 * lost * lost;
    return (codebook->metric == MN_METRIC_IP ? 1 : 4) * square / codebook->width;
}

void mn_probe_begin(struct mn_probe *probe, const struct mn_kernels *kernels, const float *embedding, float scale)
{
    const struct mn_codebook *codebook = probe->codebook;
    uint32_t width = codebook->width;
    probe->kernels = kernels;
    mn_codebook_rotate_query(codebook, kernels, embedding, scale, probe->rotated);
    kernels->make_table(probe->rotated, width, probe->table, &probe->scan);
    kernels->make_fine(probe->rotated, width, probe->codes, &probe->fine);
    float norm2 = kernels->dot(probe->rotated, probe->rotated, width);
    bool product = codebook->metric == MN_METRIC_IP;
    probe->norm = sqrtf(norm2);
    probe->base = product ? -kernels->dot(codebook->mean, embedding, codebook->dim) * scale : 0;
    probe->origin = product ? probe->base : norm2;
    probe->stretch = BEST_ROWS * probe->norm / sqrtf((float)codebook->dim);
    probe->doubt = doubt_of(probe);
    probe->blur = BLUR * probe->scan.step * probe->scan.step * (float)width;
    probe->taken = probe->refined = probe->heap_count = probe->goal = 0;
    probe->sorted = false;
    probe->all = true;
    probe->wanted_count = codebook->clusters;
}

void mn_probe_want_some(struct mn_probe *probe)
{
    probe->all = false;
    memset(probe->wanted, 0, mn_rowset_words(probe->codebook->clusters) * sizeof *probe->wanted);
}

static float reach(const struct mn_probe *probe, float gap, float blur)
{
    if (probe->codebook->metric == MN_METRIC_IP)
        return probe->norm;
    return sqrtf((gap > 0 ? gap : 0) + blur);
}

float mn_probe_reach(const struct mn_probe *probe, float gap)
{
    return reach(probe, gap, 0);
}

float mn_probe_reach_blurred(const struct mn_probe *probe, float gap)
{
    return reach(probe, gap, probe->blur);
}

/* ---- the order of clusters ---- */

static void prefetch(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i += MN_LINE)
        __builtin_prefetch(bytes + i, 0, 2);
}

/* What is added to a cluster's gap to put clusters in order: see probe.h. */
static inline float lean(const struct mn_probe *probe, uint32_t cluster)
{
    float energy = probe->codebook->energies[cluster];
    return probe->codebook->metric == MN_METRIC_IP ? -probe->stretch * sqrtf(energy) : 0.5f * energy;
}

/* What nobody wants lies behind all else. */
static void keep_wanted(struct mn_probe *probe)
{
    uint32_t clusters = probe->codebook->clusters;
    probe->wanted_count = (uint32_t)mn_rowset_count(probe->wanted, mn_rowset_words(clusters));
    for (uint32_t c = 0; c < clusters; c++)
        if (!mn_rowset_has(probe->wanted, c))
            probe->estimates[c] = INFINITY;
}

static void estimate_all(struct mn_probe *probe)
{
    const struct mn_codebook *codebook = probe->codebook;
    uint32_t block_bytes = mn_ivf_block_bytes(codebook->width), clusters = codebook->clusters;
    float *estimates = probe->estimates;
    for (uint32_t first = 0; first < clusters; first += MN_IVF_LANES)
        probe->kernels->scan_block(&probe->scan, codebook->blocks + (size_t)(first / MN_IVF_LANES) * block_bytes,
                                   probe->origin, 0, 0, estimates + first);
    for (uint32_t c = 0; c < clusters; c++)
        estimates[c] += lean(probe, c);
}

void mn_probe_sort(struct mn_probe *probe)
{
    uint32_t clusters = probe->codebook->clusters, n = 0;
    estimate_all(probe);
    if (!probe->all)
        keep_wanted(probe);
    for (uint32_t c = STRIDE / 2; c < clusters; c += STRIDE)
        probe->sample[n++] = probe->estimates[c];
    memset(probe->gaps, 0xff, clusters * sizeof *probe->gaps); /* NaN */
    probe->sampled = n;
    probe->refined_to = -INFINITY;
    probe->sorted = true;
}

static float estimate_gap(const struct mn_probe *probe, uint32_t cluster)
{
    const struct mn_codebook *codebook = probe->codebook;
    int32_t dot =
        probe->kernels->dot8(codebook->codes8 + (size_t)cluster * codebook->width, probe->codes, codebook->width);
    return mn_ivf_estimate8(&codebook->fine[cluster], &probe->fine, dot, probe->origin);
}

static float measure_gap(const struct mn_probe *probe, uint32_t cluster)
{
    const struct mn_codebook *codebook = probe->codebook;
    const float *centroid = codebook->centroids + (size_t)cluster * codebook->width;
    return codebook->metric == MN_METRIC_IP
               ? probe->base - probe->kernels->dot(centroid, probe->rotated, codebook->width)
               : probe->kernels->l2(centroid, probe->rotated, codebook->width);
}

double mn_probe_doubt(const struct mn_probe *probe, float gap)
{
    double norm = (double)probe->norm, sure = gap > 0 ? (double)gap / SURE_GAP : 0;
    if (probe->codebook->metric == MN_METRIC_IP)
        return probe->doubt * SURE_ROWS * SURE_ROWS > norm * norm * (double)probe->codebook->energy ? 0 : probe->doubt;
    return probe->doubt > sure * sure ? 0 : probe->doubt;
}

float mn_probe_gap(struct mn_probe *probe, uint32_t cluster)
{
    float gap = probe->gaps[cluster];
    if (gap == gap)
        return gap;
    gap = estimate_gap(probe, cluster);
    if (mn_probe_doubt(probe, gap) == 0)
        gap = measure_gap(probe, cluster);
    probe->gaps[cluster] = gap;
    return gap;
}

/* A cluster's place in the order as one number: its order above, itself below. */
static inline uint64_t key_of(float order, uint32_t cluster)
{
    uint32_t bits;
    memcpy(&bits, &order, sizeof bits);
    bits ^= bits >> 31 ? UINT32_MAX : UINT32_C(1) << 31;
    return (uint64_t)bits << 32 | cluster;
}

/* Puts `key` into the hole at i of a heap, least on top. The hole goes down to the end first, which takes no decision
 * that a processor could guess wrong, then the key a step or so back up: most belong near the end. */
static void sink(uint64_t *heap, uint32_t count, uint32_t i, uint64_t key)
{
    uint32_t top = i, child;
    while ((child = 2 * i + 1) + 1 < count) {
        child += heap[child + 1] < heap[child];
        heap[i] = heap[child];
        i = child;
    }
    if (child < count) {
        heap[i] = heap[child];
        i = child;
    }
    for (; i > top && key < heap[(i - 1) / 2]; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = key;
}

/* An estimate below which about `rank` of the sample lie. By halves: which way to go is known without a jump that a
 * processor could guess wrong. */
static float sample_at(const struct mn_probe *probe, uint32_t rank)
{
    const float *all = probe->sample;
    float low = INFINITY, high = -INFINITY;
    for (uint32_t i = 0; i < probe->sampled; i++) {
        low = all[i] < low ? all[i] : low;
        high = all[i] > high && all[i] < INFINITY ? all[i] : high;
    }
    for (uint32_t step = 0; step < HALVINGS; step++) {
        float middle = 0.5f * low + 0.5f * high;
        uint32_t below = 0;
        for (uint32_t i = 0; i < probe->sampled; i++)
            below += all[i] < middle;
        low = below < rank ? middle : low;
        high = below < rank ? high : middle;
    }
    return high;
}

/* Wanted clusters with an estimate in [from, to), in rising order. Most have none; which is no pattern to guess. */
static uint32_t choose(const struct mn_probe *probe, float from, float to, uint32_t *chosen)
{
    const float *estimates = probe->estimates;
    uint32_t clusters = probe->codebook->clusters, n = 0;
    for (uint32_t c = 0; c < clusters; c++) {
        chosen[n] = c;
        n += (uint32_t)(estimates[c] < to) & (uint32_t) !(estimates[c] < from);
    }
    return n;
}

/* The same of all that are left, those that have no estimate among them. */
static uint32_t choose_rest(const struct mn_probe *probe, float from, uint32_t *chosen)
{
    uint32_t clusters = probe->codebook->clusters, n = 0;
    for (uint32_t c = 0; c < clusters; c++) {
        chosen[n] = c;
        n += !(probe->estimates[c] < from) && (probe->all || mn_rowset_has(probe->wanted, c));
    }
    return n;
}

/* Refines the next clusters by their estimates: until about `goal` are. The goal grows whatever came of the last one:
 * the sample may hold more, or less, than its share of those that are wanted. */
static void refine(struct mn_probe *probe)
{
    const struct mn_codebook *codebook = probe->codebook;
    probe->goal = probe->goal > 0 ? 2 * probe->goal : FIRST;
    uint32_t width = codebook->width, rank = probe->goal / STRIDE;
    float to = rank < probe->sampled ? sample_at(probe, rank) : INFINITY;
    uint64_t *fresh = probe->heap + probe->heap_count;
    uint32_t n = to < INFINITY ? choose(probe, probe->refined_to, to, probe->chosen)
                               : choose_rest(probe, probe->refined_to, probe->chosen);
    for (uint32_t i = 0; i < AHEAD && i < n; i++)
        prefetch(codebook->codes8 + (size_t)probe->chosen[i] * width, width);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t c = probe->chosen[i];
        if (i + AHEAD < n)
            prefetch(codebook->codes8 + (size_t)probe->chosen[i + AHEAD] * width, width);
        fresh[i] = key_of(mn_probe_gap(probe, c) + lean(probe, c), c);
    }
    probe->heap_count += n;
    probe->refined += n;
    probe->refined_to = to;
    for (uint32_t i = probe->heap_count / 2; i-- > 0;)
        sink(probe->heap, probe->heap_count, i, probe->heap[i]);
}

bool mn_probe_take(struct mn_probe *probe, struct mn_probe_place *place)
{
    while (probe->refined < probe->wanted_count && probe->taken + probe->taken / 2 + SPARE > probe->refined)
        refine(probe);
    if (probe->heap_count == 0)
        return false;
    place->cluster = (uint32_t)probe->heap[0];
    place->gap = probe->gaps[place->cluster];
    probe->heap_count--;
    sink(probe->heap, probe->heap_count, 0, probe->heap[probe->heap_count]);
    probe->taken++;
    return true;
}

/* ---- when to stop ---- */

double mn_probe_strain(const struct mn_probe *probe, double nearness, uint32_t rank, const struct mn_probe_place *place,
                       float limit)
{
    const struct mn_codebook *codebook = probe->codebook;
    double gap = (double)place->gap, near = (double)limit;
    double energy = 0.5 * ((double)codebook->energies[place->cluster] + (double)codebook->energy);
    double over, spread;
    if (codebook->metric == MN_METRIC_IP) {
        over = gap + (double)lean(probe, place->cluster) - near;
        spread = (double)probe->norm * sqrt(energy);
    } else {
        over = gap + energy - near;
        spread = 2 * sqrt(fmax(gap, 0) * energy);
    }
    return probe->logs[rank < codebook->clusters ? rank : codebook->clusters] + nearness * (spread > 0 ? over / spread
                                                                                            : over > 0 ? HUGE_VAL
                                                                                                       : -HUGE_VAL);
}
