/*
 * probe.c - see probe.h. Everything here gives the same bits on every instruction set: plain C, and kernels that do.
 */
#include "engine/probe.h"

#include <math.h>
#include <stdlib.h>

#define FIRST 96 /* clusters refined at first; then as many again as there are */
#define SPARE 24 /* refined at least: so many and half as many again as are taken */
#define AHEAD 4  /* codes of centroids asked for before they are needed */

void mn_probe_free(struct mn_probe *probe)
{
    free(probe->heap);
    free(probe->estimates);
    free(probe->gaps);
    free(probe->logs);
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
    probe->gaps = lines((padded + 1) * sizeof *probe->gaps);
    probe->logs = lines((padded + 1) * sizeof *probe->logs);
    probe->rotated = lines(width * sizeof *probe->rotated);
    probe->table = lines(UINT64_C(4) * width);
    probe->codes = lines(width);
    if (!probe->heap || !probe->estimates || !probe->gaps || !probe->logs || !probe->rotated || !probe->table ||
        !probe->codes)
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
    probe->taken = probe->refined = probe->heap_count = 0;
    probe->sorted = false;
}

float mn_probe_reach(const struct mn_probe *probe, float gap)
{
    if (probe->codebook->metric == MN_METRIC_IP)
        return probe->norm;
    return gap > 0 ? sqrtf(gap) : 0;
}

/* ---- the order of clusters ---- */

static inline float energy_of(const struct mn_codebook *codebook, uint32_t cluster)
{
    return codebook->energies[cluster];
}

static void prefetch(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i += MN_LINE)
        __builtin_prefetch(bytes + i);
}

/* The share of its energy that is added to a cluster's gap to put clusters in order. Under inner product a gap is no
 * distance: it stands for itself. */
static inline float bonus(const struct mn_codebook *codebook)
{
    return codebook->metric == MN_METRIC_IP ? 0 : 0.5f;
}

static void estimate(struct mn_probe *probe, float *low, float *high)
{
    const struct mn_codebook *codebook = probe->codebook;
    uint32_t block_bytes = mn_ivf_block_bytes(codebook->width);
    float *estimates = probe->estimates, share = bonus(codebook);
    for (uint32_t first = 0; first < codebook->clusters; first += MN_IVF_LANES)
        probe->kernels->scan_block(&probe->scan, codebook->blocks + (size_t)(first / MN_IVF_LANES) * block_bytes,
                                   probe->origin, 0, 0, estimates + first);
    *low = INFINITY;
    *high = -INFINITY;
    for (uint32_t c = 0; c < codebook->clusters; c++) {
        estimates[c] += share * energy_of(codebook, c);
        *low = estimates[c] < *low ? estimates[c] : *low;
        *high = estimates[c] > *high ? estimates[c] : *high;
    }
}

static inline uint32_t bucket_of(const struct mn_probe *probe, float estimate)
{
    float at = (estimate - probe->floor) * probe->width;
    return at < MN_PROBE_BUCKETS - 1 ? (uint32_t)(int32_t)at : MN_PROBE_BUCKETS - 1; /* NaN: the last */
}

void mn_probe_sort(struct mn_probe *probe)
{
    uint32_t clusters = probe->codebook->clusters;
    float high;
    probe->sorted = true;
    estimate(probe, &probe->floor, &high);
    float range = high - probe->floor;
    probe->width = range > 0 && range < INFINITY ? (MN_PROBE_BUCKETS - 1) / range : 0;
    probe->bucket = 0;
    memset(probe->counts, 0, sizeof probe->counts);
    for (uint32_t c = 0; c < clusters; c++)
        probe->counts[bucket_of(probe, probe->estimates[c])]++;
    memset(probe->gaps, 0xff, clusters * sizeof *probe->gaps); /* NaN */
}

float mn_probe_gap(struct mn_probe *probe, uint32_t cluster)
{
    const struct mn_codebook *codebook = probe->codebook;
    float gap = probe->gaps[cluster];
    if (gap == gap)
        return gap;
    int32_t dot =
        probe->kernels->dot8(codebook->codes8 + (size_t)cluster * codebook->width, probe->codes, codebook->width);
    gap = mn_ivf_estimate8(&codebook->fine[cluster], &probe->fine, dot, probe->origin);
    probe->gaps[cluster] = gap;
    return gap;
}

static inline bool earlier(const struct mn_probe_place *a, const struct mn_probe_place *b)
{
    return a->order != b->order ? a->order < b->order : a->cluster < b->cluster;
}

static void sink(struct mn_probe_place *heap, uint32_t count, uint32_t i, struct mn_probe_place place)
{
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= count)
            break;
        child += child + 1 < count && earlier(&heap[child + 1], &heap[child]);
        if (!earlier(&heap[child], &place))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = place;
}

/* Refines the next clusters by their estimates, about `wanted` of them. */
static void refine(struct mn_probe *probe, uint32_t wanted)
{
    const struct mn_codebook *codebook = probe->codebook;
    uint32_t first = probe->bucket, end = first, sum = 0, width = codebook->width;
    while (end < MN_PROBE_BUCKETS && sum < wanted)
        sum += probe->counts[end++];
    struct mn_probe_place *heap = probe->heap, *fresh = heap + probe->heap_count;
    for (uint32_t c = 0, n = 0; n < sum; c++) {
        uint32_t bucket = bucket_of(probe, probe->estimates[c]);
        fresh[n].cluster = c;
        n += bucket >= first && bucket < end;
    }
    for (uint32_t i = 0; i < sum; i++) {
        if (i + AHEAD < sum)
            prefetch(codebook->codes8 + (size_t)fresh[i + AHEAD].cluster * width, width);
        fresh[i].gap = mn_probe_gap(probe, fresh[i].cluster);
        fresh[i].order = fresh[i].gap + bonus(codebook) * energy_of(codebook, fresh[i].cluster);
    }
    probe->heap_count += sum;
    for (uint32_t i = probe->heap_count / 2; i-- > 0;)
        sink(heap, probe->heap_count, i, heap[i]);
    probe->bucket = end;
    probe->refined += sum;
}

bool mn_probe_take(struct mn_probe *probe, struct mn_probe_place *place)
{
    uint32_t clusters = probe->codebook->clusters;
    if (probe->refined < clusters && probe->taken + probe->taken / 2 + SPARE > probe->refined)
        refine(probe, probe->refined > 0 ? probe->refined : FIRST);
    if (probe->heap_count == 0)
        return false;
    *place = probe->heap[0];
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
    double energy = 0.5 * ((double)energy_of(codebook, place->cluster) + (double)codebook->energy);
    double over, spread;
    if (codebook->metric == MN_METRIC_IP) {
        over = gap - near;
        spread = (double)probe->norm * sqrt(energy);
    } else {
        over = gap + energy - near;
        spread = 2 * sqrt(fmax(gap, 0) * energy);
    }
    return probe->logs[rank] + nearness * (spread > 0 ? over / spread : over > 0 ? HUGE_VAL : -HUGE_VAL);
}

bool mn_probe_enough(const struct mn_probe *probe, const struct mn_tune_rule *rule, const struct mn_probe_place *place,
                     float limit)
{
    return mn_probe_strain(probe, (double)rule->nearness, probe->taken - 1, place, limit) > (double)rule->stop;
}
