/*
 * ivf_write.c - writing an inverted file: rows are assigned to clusters in batches, put into the order of clusters by a
 * counting sort, and coded in that order.
 *
 * Where each array begins is known once the rows are counted, so the 1-bit blocks and the 8-bit codes go out side by
 * side, each as its own stream; only what is small (order, slots, fine factors) is kept in memory, and the blocks that
 * clusters share, which come last.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/columns_file.h"
#include "engine/fault.h"
#include "engine/ivf_file.h"

#define ASSIGN_ROWS 128u /* assigned between two pauses: 1 to 3 ms */
#define ENCODE_ROWS 256u /* and coded */
#define AHEAD_ROWS  64u  /* embeddings that the disk is asked for together, where memory does not hold them all */

struct writing {
    const struct mn_store *store;
    const struct mn_part *part;
    const struct mn_codebook *codebook;
    const struct mn_kernels *kernels;
    bool (*pause)(void *context);
    void *context;
    struct mn_ivf_body body;
    uint32_t *clusters;    /* [rows], until they are sorted; then the slot of each row */
    uint32_t *order;       /* [rows]: the row of each slot */
    uint32_t *first_slot;  /* [clusters + 1] */
    uint32_t *first_block; /* [clusters + 1] */
    uint32_t *rest;        /* [clusters + 1], the last one 0 */
    uint32_t *homes;       /* [shared][32] */
    uint8_t *shared;       /* blocks */
    struct mn_ivf_fine *fine;
    float *rotated;          /* [ASSIGN_ROWS][width] */
    uint8_t *block, *codes8; /* one of each */
    double energy;
    uint64_t coded;
    struct mn_column_sink trunk, branch; /* all but the 8-bit codes, and those */
};

static enum mn_status breathe(const struct writing *w)
{
    if (w->pause && w->pause(w->context))
        return MN_FAIL(MN_DEADLINE, "the coding was told to stop");
    return MN_OK;
}

static enum mn_status allocate(struct writing *w)
{
    size_t rows = w->part->rows, width = w->codebook->width, clusters = w->codebook->clusters;
    w->clusters = malloc(rows * sizeof *w->clusters);
    w->order = malloc(rows * sizeof *w->order);
    w->first_block = calloc(clusters + 2, sizeof *w->first_block);
    w->first_slot = calloc(clusters + 2, sizeof *w->first_slot);
    w->rest = calloc(clusters + 1, sizeof *w->rest);
    w->fine = calloc(rows, sizeof *w->fine);
    w->rotated = aligned_alloc(64, ASSIGN_ROWS * width * sizeof *w->rotated);
    w->block = aligned_alloc(64, mn_round_up(mn_ivf_block_bytes(w->codebook->width), 64));
    w->codes8 = aligned_alloc(64, width);
    bool all = w->clusters && w->order && w->first_block && w->first_slot && w->rest && w->fine && w->rotated &&
               w->block && w->codes8;
    return all ? MN_OK : MN_FAIL(MN_SYSTEM, "no memory to code %zu rows", rows);
}

static void release(struct writing *w)
{
    mn_column_sink_close(&w->branch);
    mn_column_sink_close(&w->trunk);
    free(w->clusters);
    free(w->order);
    free(w->first_block);
    free(w->first_slot);
    free(w->rest);
    free(w->homes);
    free(w->shared);
    free(w->fine);
    free(w->rotated);
    free(w->block);
    free(w->codes8);
}

/* ---- clusters ---- */

static inline bool is_assigned(const struct writing *w, const uint32_t *assigned, uint32_t row)
{
    return assigned && assigned[row] < w->codebook->clusters;
}

/* Of the rows from `row` on, those that are to be assigned. */
static void ask_ahead(const struct writing *w, const uint32_t *assigned, uint32_t row)
{
    uint32_t rows[AHEAD_ROWS], count = 0;
    if (row % AHEAD_ROWS != 0)
        return;
    for (uint32_t r = row; r < row + AHEAD_ROWS && r < w->part->rows; r++)
        if (!is_assigned(w, assigned, r))
            rows[count++] = r;
    mn_part_ahead(w->part, rows, count);
}

/* Assigns the rows of a batch, whose numbers stand in rows[count]. */
static void assign_batch(struct writing *w, const uint32_t *rows, uint32_t count)
{
    uint32_t found[ASSIGN_ROWS];
    mn_codebook_assign(w->codebook, w->kernels, w->rotated, count, found, NULL);
    for (uint32_t i = 0; i < count; i++)
        w->clusters[rows[i]] = found[i];
}

/* The cluster of each row. One that cannot be read goes where it takes no room: to the first. */
static enum mn_status assign_rows(struct writing *w, const uint32_t *assigned)
{
    uint32_t rows[ASSIGN_ROWS], count = 0;
    for (uint32_t row = 0; row < w->part->rows; row++) {
        ask_ahead(w, assigned, row);
        if (is_assigned(w, assigned, row)) {
            w->clusters[row] = assigned[row];
            continue;
        }
        const float *vector = mn_part_vector(w->part, row);
        w->clusters[row] = 0;
        if (!vector)
            continue;
        mn_codebook_rotate(w->codebook, w->kernels, vector, mn_part_scale(w->part, row),
                           w->rotated + (size_t)count * w->codebook->width);
        rows[count++] = row;
        if (count < ASSIGN_ROWS)
            continue;
        assign_batch(w, rows, count);
        count = 0;
        MN_TRY(breathe(w));
    }
    if (count > 0)
        assign_batch(w, rows, count);
    return MN_OK;
}

/* Turns clusters[] into order[] and the slot of each row; counts slots. */
static void sort_rows(struct writing *w)
{
    uint32_t clusters = w->codebook->clusters, rows = w->part->rows;
    /* next[c] = first_slot[c]: counted two places further on, so that it is one place off after the sum. */
    uint32_t *next = w->first_slot + 1;
    for (uint32_t row = 0; row < rows; row++)
        if (w->clusters[row] + 1 < clusters)
            next[w->clusters[row] + 1]++;
    for (uint32_t c = 1; c < clusters; c++)
        next[c] += next[c - 1];
    for (uint32_t row = 0; row < rows; row++) {
        uint32_t slot = next[w->clusters[row]]++;
        w->order[slot] = row;
        w->clusters[row] = slot;
    }
}

/* Which clusters share blocks. */
static enum mn_status arrange(struct writing *w)
{
    uint32_t clusters = w->codebook->clusters, block_bytes = mn_ivf_block_bytes(w->codebook->width);
    uint32_t *scratch = malloc(clusters * sizeof *scratch);
    float *distances = malloc(clusters * sizeof *distances);
    uint32_t blocks = 0;
    if (scratch && distances)
        blocks = mn_ivf_arrange(w->codebook, w->kernels, w->first_slot, w->first_block, w->rest, scratch, distances);
    free(scratch);
    free(distances);
    uint32_t shared = blocks - w->first_block[clusters];
    w->homes = malloc((shared + UINT64_C(1)) * MN_IVF_LANES * sizeof *w->homes);
    w->shared = aligned_alloc(64, (shared + UINT64_C(1)) * block_bytes);
    if (blocks == 0 || !w->homes || !w->shared)
        return MN_FAIL(MN_SYSTEM, "no memory to arrange the rows of %u clusters", clusters);
    mn_ivf_fill_homes(clusters, w->first_slot, w->first_block, w->rest, blocks, w->homes);
    for (uint32_t i = 0; i < shared; i++)
        mn_ivf_clear_block(w->shared + (size_t)i * block_bytes, w->codebook->width);
    w->body = (struct mn_ivf_body){.magic = MN_IVF_MAGIC,
                                   .codebook = w->codebook->gen,
                                   .width = w->codebook->width,
                                   .clusters = clusters,
                                   .rows = w->part->rows,
                                   .blocks = blocks,
                                   .shared = shared};
    mn_ivf_lay_out(&w->body);
    return MN_OK;
}

/* ---- codes ---- */

/* Rows that are together in a cluster are far apart in the file: while those of one run of slots are coded, the next
 * come from the disk. */
static void ask_for_slots(const struct writing *w, uint32_t slot)
{
    uint32_t begin = slot == 0 ? 0 : slot + AHEAD_ROWS, end = slot + 2 * AHEAD_ROWS, rows = w->part->rows;
    if (slot % AHEAD_ROWS != 0 || begin >= rows)
        return;
    mn_part_ahead(w->part, w->order + begin, (end < rows ? end : rows) - begin);
}

static void encode_row(struct writing *w, uint32_t slot, uint32_t cluster, uint8_t *block, uint32_t lane)
{
    uint32_t row = w->order[slot], width = w->codebook->width;
    const float *centroid = w->codebook->centroids + (size_t)cluster * width;
    const float *vector = mn_part_vector(w->part, row);
    if (!vector) {
        memset(w->codes8, 128, width);
        w->fine[slot] = (struct mn_ivf_fine){.add = MN_IVF_FAR};
        return; /* the lane is far as it is */
    }
    mn_codebook_rotate(w->codebook, w->kernels, vector, mn_part_scale(w->part, row), w->rotated);
    mn_ivf_encode(w->kernels, w->codebook->metric, width, w->rotated, centroid, block, lane, w->codes8, &w->fine[slot]);
    w->energy += (double)w->kernels->l2(w->rotated, centroid, width);
    w->coded++;
}

/* The blocks that the cluster has to itself go out; its rest into a shared one. */
static enum mn_status encode_cluster(struct writing *w, uint32_t cluster)
{
    uint32_t width = w->codebook->width, begin = w->first_slot[cluster], end = w->first_slot[cluster + 1];
    uint32_t whole = end - (end - begin) % MN_IVF_LANES, block_bytes = mn_ivf_block_bytes(width);
    uint32_t rest = w->rest[cluster] - w->first_block[w->codebook->clusters] * MN_IVF_LANES;
    for (uint32_t slot = begin; slot < end; slot++) {
        uint32_t lane = slot < whole ? (slot - begin) % MN_IVF_LANES : (rest + (slot - whole)) % MN_IVF_LANES;
        if (slot < whole && lane == 0)
            mn_ivf_clear_block(w->block, width);
        ask_for_slots(w, slot);
        encode_row(w, slot, cluster, slot < whole ? w->block : w->shared + (size_t)(rest / MN_IVF_LANES) * block_bytes,
                   lane);
        MN_TRY(mn_column_sink_append(&w->branch, w->codes8, width));
        if (slot < whole && lane == MN_IVF_LANES - 1)
            MN_TRY(mn_column_sink_append(&w->trunk, w->block, block_bytes));
        if (slot % ENCODE_ROWS == 0)
            MN_TRY(breathe(w));
    }
    return MN_OK;
}

static enum mn_status append_array(struct mn_column_sink *sink, const void *data, uint64_t bytes)
{
    MN_TRY(mn_column_sink_append(sink, data, bytes));
    return mn_column_sink_align(sink, 64);
}

static enum mn_status write_arrays(struct writing *w)
{
    const struct mn_ivf_body *body = &w->body;
    uint64_t starts = (body->clusters + UINT64_C(1)) * sizeof(uint32_t), rows = body->rows * sizeof(uint32_t);
    MN_TRY(mn_column_sink_append(&w->trunk, body, sizeof *body));
    MN_TRY(append_array(&w->trunk, w->first_slot, starts));
    MN_TRY(append_array(&w->trunk, w->first_block, starts));
    MN_TRY(append_array(&w->trunk, w->rest, starts));
    MN_TRY(append_array(&w->trunk, w->homes, (uint64_t)body->shared * MN_IVF_LANES * sizeof *w->homes));
    MN_TRY(append_array(&w->trunk, w->clusters, rows));
    MN_TRY(append_array(&w->trunk, w->order, rows));
    MN_ASSERT(mn_column_sink_at(&w->trunk) == body->blocks_at);
    for (uint32_t c = 0; c < body->clusters; c++)
        MN_TRY(encode_cluster(w, c));
    MN_TRY(mn_column_sink_append(&w->trunk, w->shared, (uint64_t)body->shared * mn_ivf_block_bytes(body->width)));
    MN_TRY(mn_column_sink_align(&w->trunk, 64));
    MN_ASSERT(mn_column_sink_at(&w->trunk) == body->fine_at);
    MN_TRY(append_array(&w->trunk, w->fine, body->rows * sizeof *w->fine));
    MN_TRY(mn_column_sink_join(&w->trunk, &w->branch));
    MN_ASSERT(mn_column_sink_at(&w->trunk) == body->bytes);
    return mn_column_sink_end(&w->trunk, body->rows, body->codebook);
}

/* ---- the file ---- */

static enum mn_status check_room(const struct writing *w)
{
    uint64_t free_bytes;
    MN_TRY(w->store->io->free_bytes(w->store->dir, &free_bytes));
    if (w->body.bytes > free_bytes)
        return MN_FAIL(MN_READ_ONLY, "an inverted file of %llu MB does not fit on the disk: %llu MB are free",
                       (unsigned long long)(w->body.bytes >> 20), (unsigned long long)(free_bytes >> 20));
    return MN_OK;
}

static enum mn_status write_file(struct writing *w, uint64_t segment, const char *path)
{
    MN_TRY(mn_column_sink_open(&w->trunk, w->store, segment, MN_COLUMN_IVF, path));
    MN_TRY(mn_column_sink_branch(&w->branch, &w->trunk, w->body.codes8_at));
    MN_TRY(write_arrays(w));
    return mn_column_sink_sync(&w->trunk);
}

/* Under a name that nobody opens, until it is whole. */
static enum mn_status make_file(struct writing *w, uint64_t segment)
{
    const struct mn_io *io = w->store->io;
    char path[MN_PATH_MAX], made[MN_PATH_MAX], dir[MN_PATH_MAX];
    mn_ivf_path(w->store, path, segment, w->codebook->gen);
    snprintf(made, sizeof made, "%.*s.tmp", MN_PATH_MAX - 8, path);
    enum mn_status status = io->unlink(made); /* left by a crash, perhaps */
    if (status != MN_NOT_FOUND)
        MN_TRY(status);
    status = write_file(w, segment, made);
    if (status == MN_OK) {
        MN_FAULT_POINT(ivf_written);
        status = io->rename(made, path);
    }
    if (status != MN_OK) {
        char text[1024];
        snprintf(text, sizeof text, "%s", mn_error_text());
        if (io->unlink(made) != MN_OK || strcmp(text, mn_error_text()) != 0)
            mn_error_set(status, __FILE__, __LINE__, "%s", text);
        return status;
    }
    MN_FAULT_POINT(ivf_renamed);
    return io->sync_dir(mn_store_columns_dir(w->store, dir, segment));
}

static enum mn_status run(struct writing *w, uint64_t segment, const uint32_t *assigned)
{
    const struct mn_codebook *codebook = w->codebook;
    MN_ASSERT(codebook->clusters > 0 && w->part->rows > 0);
    MN_TRY(allocate(w));
    MN_TRY(assign_rows(w, assigned));
    sort_rows(w);
    MN_TRY(arrange(w));
    MN_TRY(check_room(w));
    return make_file(w, segment);
}

enum mn_status mn_ivf_write(const struct mn_store *store, uint64_t segment, const struct mn_part *part,
                            const struct mn_codebook *codebook, const uint32_t *assigned, bool (*pause)(void *context),
                            void *context, uint64_t *bytes, float *energy)
{
    struct writing w = {.store = store,
                        .part = part,
                        .codebook = codebook,
                        .kernels = mn_kernels_best(),
                        .pause = pause,
                        .context = context,
                        .trunk = {.fd = -1},
                        .branch = {.fd = -1}};
    enum mn_status status = run(&w, segment, assigned);
    if (status == MN_OK) {
        *bytes = mn_column_sink_file_bytes(&w.trunk);
        *energy = w.coded ? (float)(w.energy / (double)w.coded) : 0;
    }
    release(&w);
    return status;
}
