/*
 * codebook_sample.c - the rows that a codebook is trained on.
 *
 * They are brought into the codebook's space and kept in memory, if they are not more than may lie there; else an even
 * share of them is, and whoever wants all of them has them read again, a chunk at a time.
 */
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/codebook_training.h"

#define READS_PER_BREATH 64u        /* rows: each may have to come from the disk */
#define CHUNK_ROWS       256u       /* that are read again at a time, */
#define CHUNK_BYTES      (1u << 20) /* and no more than these, but one row */
#define LENGTH2_MAX      0x1p60     /* beyond it squares of floats run out */

/* Giving back half a gigabyte of small pages takes longer than a pause may. */
float *mn_training_floats(uint64_t count)
{
    uint64_t bytes = count * sizeof(float), huge = UINT64_C(2) << 20;
    float *memory = aligned_alloc(bytes < huge ? 64 : huge, mn_round_up(bytes, bytes < huge ? 64 : huge));
    if (memory && bytes >= huge)
        madvise(memory, mn_round_up(bytes, huge), MADV_HUGEPAGE);
    return memory;
}

/* ---- in memory ---- */

/* Row i of the sample as it was given, into out[width]; *there is false when it cannot be read. */
static enum mn_status read_row(struct mn_training *t, uint64_t i, float *out, bool *there)
{
    double norm2;
    *there = t->sample->row(t->sample->context, i, out) && t->kernels->check(out, t->dim, &norm2);
    return mn_kmeans_breathe(&t->km, MN_KMEANS_BREATH / READS_PER_BREATH);
}

/* Takes every row, or of too many an even share. */
static enum mn_status read_rows(struct mn_training *t)
{
    const struct mn_codebook_sample *sample = t->sample;
    uint64_t bytes = sample->bytes ? sample->bytes : MN_CODEBOOK_SAMPLE_BYTES;
    uint64_t most = bytes / (t->width * sizeof(float)) + (bytes < t->width * sizeof(float));
    most = most < sample->rows ? most : sample->rows;
    t->whole = most == sample->rows;
    t->rows = mn_training_floats((most + 1) * t->width);
    t->chunk_rows = CHUNK_BYTES / (t->width * (uint32_t)sizeof(float));
    t->chunk_rows = t->chunk_rows < 1 ? 1 : t->chunk_rows < CHUNK_ROWS ? t->chunk_rows : CHUNK_ROWS;
    t->chunk = t->whole ? NULL : mn_training_floats((uint64_t)t->chunk_rows * t->width);
    if (!t->rows || (!t->whole && !t->chunk))
        return MN_FAIL(MN_SYSTEM, "no memory for a sample of %llu rows", (unsigned long long)most);
    for (uint64_t taken = 0; taken < most; taken++) {
        uint64_t i = (uint64_t)((unsigned __int128)taken * sample->rows / most);
        bool there;
        MN_TRY(read_row(t, i, mn_training_row(t, t->rows, t->n), &there));
        t->n += there;
    }
    return t->n > 0 ? MN_OK : MN_FAIL(MN_NOT_FOUND, "there is no row to train a codebook on");
}

static enum mn_status find_mean(struct mn_training *t)
{
    double *sum = calloc(t->width, sizeof *sum);
    if (!sum)
        return MN_FAIL(MN_SYSTEM, "no memory to train a codebook");
    enum mn_status status = MN_OK;
    for (uint32_t i = 0; i < t->n; i++) {
        const float *x = mn_training_row(t, t->rows, i);
        for (uint32_t d = 0; d < t->dim; d++)
            sum[d] += (double)x[d];
        MN_TRY_OUT(mn_kmeans_breathe(&t->km, (uint64_t)16 * t->width));
    }
    for (uint32_t d = 0; d < t->dim; d++)
        t->mean[d] = (float)(sum[d] / t->n);
out:
    free(sum);
    return status;
}

/* Takes the mean away and rotates. */
static enum mn_status rotate(struct mn_training *t, float *x)
{
    struct mn_codebook space = {.dim = t->dim, .width = t->width, .mean = t->mean, .signs = t->signs};
    mn_codebook_rotate(&space, t->kernels, x, 1, x);
    return mn_kmeans_breathe(&t->km, (uint64_t)64 * t->width);
}

static void divide_by_unit(const struct mn_training *t, float *x)
{
    for (uint32_t d = 0; t->unit != 1 && d < t->width; d++)
        x[d] /= t->unit;
}

/* Rotates all rows, and brings the longest to a length of about 1, if it is far from it. */
static enum mn_status rotate_rows(struct mn_training *t)
{
    double longest2 = 0, norm2;
    for (uint32_t i = 0; i < t->n; i++) {
        float *x = mn_training_row(t, t->rows, i);
        MN_TRY(rotate(t, x));
        t->kernels->check(x, t->width, &norm2);
        longest2 = norm2 > longest2 ? norm2 : longest2;
    }
    int exponent = longest2 > 0 ? ilogb(sqrt(longest2)) : 0;
    t->unit = exponent > 20 || exponent < -20 ? ldexpf(1, exponent) : 1;
    for (uint32_t i = 0; t->unit != 1 && i < t->n; i++) {
        divide_by_unit(t, mn_training_row(t, t->rows, i));
        MN_TRY(mn_kmeans_breathe(&t->km, (uint64_t)16 * t->width));
    }
    return MN_OK;
}

enum mn_status mn_training_read(struct mn_training *t)
{
    MN_TRY(read_rows(t));
    MN_TRY(find_mean(t));
    return rotate_rows(t);
}

/* ---- all of them ---- */

/* Reads row i again. It may be much longer than those in memory, which the unit was chosen by: no room for it then. */
static enum mn_status read_again(struct mn_training *t, uint64_t i, float *x, bool *there)
{
    double norm2;
    MN_TRY(read_row(t, i, x, there));
    if (!*there)
        return MN_OK;
    MN_TRY(rotate(t, x));
    divide_by_unit(t, x);
    *there = t->kernels->check(x, t->width, &norm2) && norm2 <= LENGTH2_MAX;
    return MN_OK;
}

enum mn_status mn_training_next(struct mn_training *t, uint32_t most, const float **rows, uint32_t *count)
{
    *count = 0;
    if (t->whole) {
        *rows = mn_training_row(t, t->rows, (uint32_t)t->at);
        *count = t->n - t->at < most ? (uint32_t)(t->n - t->at) : most;
        t->at += *count;
        return MN_OK;
    }
    *rows = t->chunk;
    most = most < t->chunk_rows ? most : t->chunk_rows;
    for (; *count < most && t->at < t->sample->rows; t->at++) {
        bool there;
        MN_TRY(read_again(t, t->at, mn_training_row(t, t->chunk, *count), &there));
        *count += there;
    }
    return MN_OK;
}
