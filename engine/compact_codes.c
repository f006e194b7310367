/*
 * compact_codes.c - codes of what a compaction writes: the codebook, the clusters that rows bring along, the inverted
 * file of each output.
 *
 * Codes are derived, so nothing here fails a compaction but a request to stop: what could not be coded now is published
 * without codes, and mn_compact_care_for codes it later.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/compact_inside.h"
#include "engine/tune.h"
#include "shm/process.h"

#define CLUSTERS_MIN 32u
#define MEMORY_SHARE 8u  /* one part in so many of the memory is for the sample */
#define AHEAD        64u /* rows of the sample that the disk is asked for at a time */

/* ---- training ---- */

/* Rows spread evenly over all parts. */
struct sample {
    const struct mn_snapshot *snapshot;
    const struct mn_kernels *kernels;
    uint64_t all, wanted;
    uint32_t part;  /* where the last row lay, */
    uint64_t first; /* and the number of that part's first row */
    uint64_t next;  /* after the row that was read last, */
    uint64_t ahead; /* and after the last one that the disk was asked for */
};

/* The number of sample row i among all rows. */
static uint64_t place_of(const struct sample *s, uint64_t i)
{
    return (uint64_t)((double)i * ((double)s->all / (double)s->wanted));
}

/* Moves on to the part of a row, or back to the first. */
static const struct mn_part *part_of(struct sample *s, uint64_t at)
{
    if (at < s->first)
        s->first = s->part = 0;
    while (s->part + 1 < s->snapshot->part_count && at >= s->first + s->snapshot->parts[s->part].rows)
        s->first += s->snapshot->parts[s->part++].rows;
    return &s->snapshot->parts[s->part];
}

/* Who reads one row after the other will want those that follow. */
static void look_ahead(struct sample *s, const struct mn_part *part, uint64_t i)
{
    uint32_t rows[AHEAD], count = 0;
    bool follows = i == s->next;
    s->next = i + 1;
    if (!follows || (s->ahead > i && s->ahead <= i + AHEAD))
        return;
    for (; count < AHEAD && i + count < s->wanted && place_of(s, i + count) - s->first < part->rows; count++)
        rows[count] = (uint32_t)(place_of(s, i + count) - s->first);
    s->ahead = i + count;
    mn_part_ahead(part, rows, count);
}

/* Dead rows teach nothing that is asked for any more; some are left out for calibration; and no bits from a damaged
 * disk get into centroids. */
static bool sample_row(void *context, uint64_t i, float *out)
{
    struct sample *s = context;
    uint64_t at = place_of(s, i);
    const struct mn_part *part = part_of(s, at);
    double norm2;
    if (at < s->first || at - s->first >= part->rows)
        return false;
    look_ahead(s, part, i);
    uint32_t row = (uint32_t)(at - s->first);
    bool left_out = s->all >= MN_TUNE_ROWS_MIN && mn_codebook_leaves_out(mn_part_id(part, row));
    const float *vector = !left_out && mn_part_died(part, row) == MN_ALIVE ? mn_part_vector(part, row) : NULL;
    if (!vector || !s->kernels->check(vector, part->dim, &norm2))
        return false;
    float scale = mn_part_scale(part, row);
    for (uint32_t d = 0; d < part->dim; d++)
        out[d] = vector[d] * scale;
    return true;
}

/* Half of the memory is for hot copies, and recall reads embeddings through what is left. */
static uint64_t sample_bytes(void)
{
    uint64_t share = mn_memory_bytes() / MEMORY_SHARE;
    return share < MN_CODEBOOK_SAMPLE_BYTES ? share : MN_CODEBOOK_SAMPLE_BYTES;
}

static enum mn_status note_generation(void *context, const char *name)
{
    uint64_t *highest = context;
    char *end;
    uint64_t gen = strtoull(name, &end, 10);
    if (end != name && strcmp(end, ".col") == 0 && gen > *highest)
        *highest = gen;
    return MN_OK;
}

/* One that no file has: what an attempt that was given up has left is not taken for it. */
static enum mn_status free_generation(const struct mn_store *store, const struct mn_manifest *manifest, uint64_t *gen)
{
    char path[MN_PATH_MAX];
    mn_store_path(store, path, "codebooks");
    enum mn_status status = store->io->mkdir(path);
    if (status != MN_EXISTS)
        MN_TRY(status);
    *gen = manifest->codebook;
    MN_TRY(store->io->list(path, note_generation, gen));
    ++*gen;
    return MN_OK;
}

enum mn_status mn_compact_train(struct mn_compactor *compactor, const struct mn_manifest *manifest,
                                const struct mn_snapshot *snapshot, uint64_t store_rows, bool (*pause)(void *context),
                                void *context, uint64_t *gen)
{
    struct sample sample = {.snapshot = snapshot, .kernels = mn_kernels_best()};
    struct mn_codebook_sample source = {.row = sample_row, .context = &sample, .bytes = sample_bytes()};
    uint32_t clusters = mn_codebook_clusters(store_rows); /* 0 for a store that is smaller than usual */
    clusters = clusters < CLUSTERS_MIN ? CLUSTERS_MIN : clusters;
    for (uint32_t p = 0; p < snapshot->part_count; p++)
        sample.all += snapshot->parts[p].rows;
    source.rows = mn_codebook_sample_rows(clusters) * MN_CODEBOOK_LEFT_OUT / (MN_CODEBOOK_LEFT_OUT - 1);
    source.rows = source.rows < sample.all ? source.rows : sample.all;
    sample.wanted = source.rows;
    MN_TRY(free_generation(&compactor->store, manifest, gen));
    return mn_codebook_train(&compactor->store, *gen, clusters, store_rows, &source, *gen, pause, context);
}

/* ---- a build ---- */

/* A failure that is told and counted, but one: to stop means to stop. */
static enum mn_status tolerate(struct mn_compact_build *b, enum mn_status status)
{
    if (status == MN_OK || status == MN_DEADLINE)
        return status;
    b->proposal->code_failures++;
    snprintf(b->proposal->code_failure, sizeof b->proposal->code_failure, "%s", mn_error_text());
    return MN_OK;
}

/* Rows in columns when this build is published. */
static uint64_t rows_after(const struct mn_compact_build *b)
{
    uint64_t rows = b->key_count;
    for (uint32_t p = 0; p < b->snapshot.part_count; p++) {
        const struct mn_part *part = &b->snapshot.parts[p];
        bool input = part->tail;
        for (uint32_t i = 0; i < b->input_count && !input; i++)
            input = b->inputs[i].part == part;
        rows += input ? 0 : part->rows;
    }
    return rows;
}

static enum mn_status choose_codebook(struct mn_compact_build *b)
{
    uint64_t gen = b->manifest.codebook, rows = rows_after(b);
    if (gen == 0) {
        if (rows < b->policy->codebook_rows_min)
            return MN_OK;
        MN_TRY(mn_compact_train(b->compactor, &b->manifest, &b->snapshot, rows, b->pause, b->context, &gen));
        b->proposal->codebooks_trained++;
    }
    MN_TRY(mn_codebook_open(&b->codebook, &b->compactor->store, gen));
    b->proposal->next.codebook = gen;
    return MN_OK;
}

/* Rows that are coded on the same codebook stay in their clusters. Without memory for that they are assigned anew. */
static void keep_clusters(const struct mn_compact_build *b, struct mn_compact_input *input)
{
    const struct mn_ivf *ivf = input->part->ivf;
    if (!ivf || mn_ivf_flat(ivf) || ivf->codebook->gen != b->codebook->gen)
        return;
    input->clusters = malloc(input->part->rows * sizeof *input->clusters);
    if (!input->clusters)
        return;
    for (uint32_t row = 0; row < input->part->rows; row++)
        input->clusters[row] = MN_NONE;
    mn_ivf_clusters(ivf, input->clusters);
}

enum mn_status mn_compact_codes_begin(struct mn_compact_build *b)
{
    if (b->policy->codebook_rows_min == 0 || b->key_count == 0)
        return MN_OK;
    MN_TRY(tolerate(b, choose_codebook(b)));
    for (uint32_t i = 0; b->codebook && i < b->input_count; i++)
        keep_clusters(b, &b->inputs[i]);
    return MN_OK;
}

void mn_compact_codes_end(struct mn_compact_build *b)
{
    for (uint32_t i = 0; i < b->input_count; i++)
        free(b->inputs[i].clusters);
    if (b->codebook)
        mn_codebook_close(b->codebook);
    b->codebook = NULL;
}

void mn_compact_note_coded(struct mn_compactor *compactor, uint64_t codebook, uint64_t rows, float energy)
{
    struct mn_compact_coded *coded = &compactor->coded;
    if (coded->codebook != codebook)
        *coded = (struct mn_compact_coded){.codebook = codebook};
    coded->rows += rows;
    coded->energy += (double)energy * (double)rows;
}

static enum mn_status write_codes(struct mn_compact_build *b, uint64_t begin, const struct mn_part *part,
                                  struct mn_manifest_segment *segment)
{
    uint32_t *clusters = malloc(part->rows * sizeof *clusters);
    uint64_t bytes;
    float energy;
    if (!clusters)
        return MN_FAIL(MN_SYSTEM, "no memory for the clusters of %u rows", part->rows);
    for (uint32_t row = 0; row < part->rows; row++) {
        const struct mn_compact_key *key = &b->keys[begin + row];
        const struct mn_compact_input *input = &b->inputs[key->input];
        clusters[row] = input->clusters ? input->clusters[key->row] : MN_NONE;
    }
    enum mn_status status = mn_ivf_write(&b->compactor->store, segment->id, part, b->codebook, clusters, b->pause,
                                         b->context, &bytes, &energy);
    free(clusters);
    MN_TRY(status);
    segment->codebook = b->codebook->gen;
    segment->bytes += bytes;
    b->proposal->rows_coded += part->rows;
    mn_compact_note_coded(b->compactor, b->codebook->gen, part->rows, energy);
    return MN_OK;
}

enum mn_status mn_compact_codes_write(struct mn_compact_build *b, uint64_t begin, const struct mn_part *part,
                                      struct mn_manifest_segment *segment)
{
    if (!b->codebook || part->rows < b->policy->ivf_rows_min)
        return MN_OK;
    return tolerate(b, write_codes(b, begin, part, segment));
}
