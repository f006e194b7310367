/*
 * codebook_assign.c - the nearest centroid of many rows at once.
 *
 * A row is compared with all super-centroids and then with the children of the nearest few of them. The kernel does
 * blocks of rows against blocks of centroids, so the rows of a batch are grouped: for each super-centroid, the rows
 * that probe it are gathered side by side and compared with its children. Everything it needs lies on the stack: an
 * assignment cannot fail.
 */
#include <float.h>
#include <math.h>

#include "engine/codebook.h"
#include "engine/kmeans.h"

#define BATCH          256u /* rows that are grouped at a time */
#define PROBES_MIN     8u   /* super-centroids whose children are looked at: one in twelve, but so many at least, */
#define PROBES_MAX     16u  /* and at most */
#define TILE_ROWS      32u
#define TILE_CENTROIDS 64u
#define GATHER_FLOATS  (32u * 1024) /* room for gathered rows: TILE_ROWS of up to 1,024 floats */

struct batch {
    const struct mn_codebook *codebook;
    const struct mn_kernels *kernels;
    const float *rows;
    uint32_t count;
    uint32_t probes;                            /* of each row */
    uint32_t *nearest;                          /* the caller's `out` */
    float least[BATCH];                         /* |c|^2 - 2 <x,c> of the nearest so far */
    uint16_t probed[BATCH * PROBES_MAX];        /* [row][probes] */
    uint16_t members[BATCH * PROBES_MAX];       /* rows, by the super-centroid that they probe */
    uint32_t first[MN_CODEBOOK_SUPERS_MAX + 1]; /* of each super-centroid in `members` */
    float products[TILE_ROWS * MN_CODEBOOK_SUPERS_MAX];
    float gathered[GATHER_FLOATS] __attribute__((aligned(64)));
};

static inline const float *row_at(const struct batch *b, uint32_t row)
{
    return b->rows + (size_t)row * b->codebook->width;
}

/* ---- super-centroids ---- */

/* The `probes` least of |s|^2 - 2 <x,s>, in no particular order; of equals the first. */
static void choose_supers(const struct mn_codebook *codebook, const float *products, uint32_t probes, uint16_t *probed)
{
    float best[PROBES_MAX];
    uint32_t held = 0;
    for (uint32_t s = 0; s < codebook->supers; s++) {
        float sum = codebook->super_norms[s] - 2 * products[s];
        // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): probes is never 0
        if (held == probes && !(sum < best[held - 1]))
            continue;
        uint32_t at = held < probes ? held++ : held - 1;
        for (; at > 0 && !(best[at - 1] <= sum); at--) {
            best[at] = best[at - 1];
            probed[at] = probed[at - 1];
        }
        best[at] = sum;
        probed[at] = (uint16_t)s;
    }
}

static void probe_all(struct batch *b)
{
    for (uint32_t row = 0; row < b->count; row++)
        for (uint32_t s = 0; s < b->probes; s++)
            b->probed[row * b->probes + s] = (uint16_t)s;
}

static void probe_nearest(struct batch *b)
{
    const struct mn_codebook *codebook = b->codebook;
    for (uint32_t first = 0; first < b->count; first += TILE_ROWS) {
        uint32_t some = b->count - first < TILE_ROWS ? b->count - first : TILE_ROWS;
        for (uint32_t s = 0; s < codebook->supers; s += TILE_CENTROIDS) {
            uint32_t columns = codebook->supers - s < TILE_CENTROIDS ? codebook->supers - s : TILE_CENTROIDS;
            b->kernels->products(row_at(b, first), some, codebook->super + (size_t)s * codebook->width, columns,
                                 codebook->width, b->products + s, codebook->supers);
        }
        for (uint32_t i = 0; i < some; i++)
            choose_supers(codebook, b->products + (size_t)i * codebook->supers, b->probes,
                          b->probed + (size_t)(first + i) * b->probes);
    }
}

/* Sorts (row, super-centroid) by super-centroid: members of s are members[first[s]..first[s + 1]). */
static void group(struct batch *b)
{
    uint32_t pairs = b->count * b->probes, supers = b->codebook->supers;
    memset(b->first, 0, sizeof b->first);
    for (uint32_t p = 0; p < pairs; p++)
        b->first[b->probed[p] + 1]++;
    for (uint32_t s = 0; s < supers; s++)
        b->first[s + 1] += b->first[s];
    for (uint32_t p = 0; p < pairs; p++)
        b->members[b->first[b->probed[p]]++] = (uint16_t)(p / b->probes);
    memmove(b->first + 1, b->first, supers * sizeof *b->first);
    b->first[0] = 0;
}

/* ---- their children ---- */

/* Compares `count` rows, side by side at `rows`, with the children of super-centroid s. */
static void compare(struct batch *b, uint32_t s, const uint16_t *members, uint32_t count, const float *rows)
{
    const struct mn_codebook *codebook = b->codebook;
    uint32_t end = codebook->child[s + 1];
    for (uint32_t first = codebook->child[s]; first < end; first += TILE_CENTROIDS) {
        uint32_t some = end - first < TILE_CENTROIDS ? end - first : TILE_CENTROIDS;
        b->kernels->products(rows, count, codebook->centroids + (size_t)first * codebook->width, some, codebook->width,
                             b->products, TILE_CENTROIDS);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t row = members[i];
            mn_kmeans_least(b->products + i * TILE_CENTROIDS, codebook->norms + first, some, first, &b->nearest[row],
                            &b->least[row]);
        }
    }
}

/* Rows that lie side by side already are taken where they are; others are gathered. */
static void compare_group(struct batch *b, uint32_t s)
{
    uint32_t width = b->codebook->width, room = GATHER_FLOATS / width;
    uint32_t most = room < 1 ? 1 : room < TILE_ROWS ? room : TILE_ROWS;
    for (uint32_t at = b->first[s], end = b->first[s + 1], count; at < end; at += count) {
        const uint16_t *members = b->members + at;
        count = end - at < most ? end - at : most;
        const float *rows = row_at(b, members[0]);
        if (members[count - 1] - members[0] != (int)count - 1) {
            for (uint32_t i = 0; i < count; i++)
                memcpy(b->gathered + (size_t)i * width, row_at(b, members[i]), width * sizeof(float));
            rows = b->gathered;
        }
        compare(b, s, members, count, rows);
    }
}

static uint32_t probes_of(const struct mn_codebook *codebook)
{
    uint32_t probes = codebook->supers / 12;
    probes = probes < PROBES_MIN ? PROBES_MIN : probes > PROBES_MAX ? PROBES_MAX : probes;
    return probes < codebook->supers ? probes : codebook->supers;
}

static void assign_batch(struct batch *b)
{
    const struct mn_codebook *codebook = b->codebook;
    b->probes = probes_of(codebook);
    for (uint32_t row = 0; row < b->count; row++) {
        b->nearest[row] = 0;
        b->least[row] = INFINITY;
    }
    if (b->probes == codebook->supers)
        probe_all(b);
    else
        probe_nearest(b);
    group(b);
    for (uint32_t s = 0; s < codebook->supers; s++)
        compare_group(b, s);
}

void mn_codebook_assign(const struct mn_codebook *codebook, const struct mn_kernels *kernels, const float *rows,
                        uint32_t count, uint32_t *out, float *distance2)
{
    uint32_t width = codebook->width;
    struct batch b;
    b.codebook = codebook;
    b.kernels = kernels;
    for (uint32_t at = 0; at < count; at += BATCH) {
        b.rows = rows + (size_t)at * width;
        b.count = count - at < BATCH ? count - at : BATCH;
        b.nearest = out + at;
        assign_batch(&b);
        for (uint32_t i = 0; distance2 && i < b.count; i++) {
            float d2 = kernels->dot(row_at(&b, i), row_at(&b, i), width) + b.least[i];
            distance2[at + i] = d2 > 0 ? fminf(d2, FLT_MAX) : 0;
        }
    }
}
