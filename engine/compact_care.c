/*
 * compact_care.c - looking after codes while there is nothing to compact: one codebook trained or one segment coded at
 * a time, each published by a proposal that moves no rows.
 *
 * A segment is coded when it has no codes, when they are damaged or lost, and when they are on an older codebook. A new
 * codebook is trained when there is none and the rows are worth one, when the one there is cannot be read, and when the
 * store has outgrown it: four times the rows, residuals that have grown, or clusters of too different size. Only when
 * no segment is left on an older one: so a query needs two tables at most. When all segments are coded and what is
 * searched, the tail with it, is not what it was at the last calibration, recall is calibrated anew (engine/tune.h).
 */
#include <stdlib.h>

#include "engine/compact_inside.h"
#include "engine/hot.h"
#include "engine/tune.h"

#define GROWN_TIMES    4    /* rows since the training that ask for a new codebook */
#define ENERGY_TIMES   1.15 /* mean residual of what was coded since, */
#define CODED_SHARE    2    /* when that was at least 1 / CODED_SHARE of the rows that it was trained for */
#define SKEW_TIMES     4    /* the largest cluster against the mean, */
#define SKEW_GROWN_NUM 3    /* when there are 3 / 2 as many rows: the same rows would give the same clusters again */
#define SKEW_GROWN_DEN 2

#define TUNED_PERCENT 20 /* more or fewer rows, or other ones, ask for a calibration */
#define TUNE_QUERIES  1000

#define THE_CODEBOOK UINT64_MAX /* among the doubts, which are ids of segments */

struct care {
    struct mn_compactor *compactor;
    const struct mn_compact_policy *policy;
    bool (*pause)(void *context);
    void *context;
    struct mn_compact_proposal *proposal;
    struct mn_compact_care *result;
    struct mn_manifest manifest;
    struct mn_snapshot snapshot;
    const struct mn_codebook *codebook; /* the manifest's, or NULL */
};

/* ---- doubts ---- */

static enum mn_status add_doubt(struct mn_compactor *c, uint64_t segment)
{
    for (uint32_t d = 0; d < c->doubt_count; d++)
        if (c->doubts[d] == segment)
            return MN_OK;
    uint64_t *grown = realloc(c->doubts, (c->doubt_count + 1) * sizeof *grown);
    if (!grown)
        return MN_FAIL(MN_SYSTEM, "no memory to note a doubt");
    c->doubts = grown;
    c->doubts[c->doubt_count++] = segment;
    return MN_OK;
}

enum mn_status mn_compact_doubt(struct mn_compactor *compactor, uint64_t segment)
{
    struct mn_manifest manifest;
    if (segment != 0)
        return add_doubt(compactor, segment);
    MN_TRY(mn_manifest_read(&manifest, &compactor->store, NULL));
    enum mn_status status = add_doubt(compactor, THE_CODEBOOK);
    for (uint32_t s = 0; s < manifest.segment_count && status == MN_OK; s++)
        status = add_doubt(compactor, manifest.segments[s].id);
    mn_manifest_free(&manifest);
    return status;
}

static void note_damage(void *context, const char *path, const char *what)
{
    *(bool *)context = true;
    (void)path;
    (void)what;
}

static bool doubted(const struct mn_compactor *c, uint64_t what)
{
    for (uint32_t d = 0; d < c->doubt_count; d++)
        if (c->doubts[d] == what)
            return true;
    return false;
}

static void forget_doubt(struct mn_compactor *c, uint64_t what)
{
    for (uint32_t d = 0; d < c->doubt_count; d++)
        if (c->doubts[d] == what)
            c->doubts[d--] = c->doubts[--c->doubt_count];
}

/* The codebook in the name of the file that is doubted; 0: the manifest names none any more. */
static uint64_t codebook_of(const struct mn_manifest *manifest, uint64_t what)
{
    if (what == THE_CODEBOOK)
        return manifest->codebook;
    for (uint32_t s = 0; s < manifest->segment_count; s++)
        if (manifest->segments[s].id == what)
            return manifest->segments[s].codebook;
    return 0;
}

/* Reads every file that is doubted. Doubts that do not hold are over. */
static enum mn_status settle_doubts(struct care *care)
{
    struct mn_compactor *c = care->compactor;
    for (uint32_t d = 0; d < c->doubt_count;) {
        uint64_t files = 0, bytes = 0, what = c->doubts[d], codebook = codebook_of(&care->manifest, what);
        bool damaged = false;
        if (care->pause && care->pause(care->context))
            return MN_FAIL(MN_DEADLINE, "the check of the codes was told to stop");
        if (codebook != 0 && what == THE_CODEBOOK)
            mn_codebook_verify(&c->store, codebook, &files, &bytes, note_damage, &damaged);
        else if (codebook != 0)
            mn_ivf_verify(&c->store, what, codebook, &files, &bytes, note_damage, &damaged);
        if (damaged)
            d++;
        else
            forget_doubt(c, what);
    }
    return MN_OK;
}

/* ---- what is to be done ---- */

static uint64_t column_rows(const struct mn_snapshot *snapshot)
{
    uint64_t rows = 0;
    for (uint32_t p = 0; p < snapshot->part_count; p++)
        rows += snapshot->parts[p].tail ? 0 : snapshot->parts[p].rows;
    return rows;
}

/* How much a segment needs codes. */
enum urgency { FINE, OUTDATED, UNUSABLE };

static enum urgency urgency_of(struct care *care, const struct mn_manifest_segment *segment)
{
    const struct mn_part *part = mn_compact_part(&care->snapshot, false, segment->id);
    if (!part || part->rows < care->policy->ivf_rows_min)
        return FINE; /* not to be opened, or not worth it */
    if (!part->ivf || doubted(care->compactor, segment->id))
        return UNUSABLE;
    return segment->codebook == care->manifest.codebook ? FINE : OUTDATED;
}

/* The manifest entry of the segment that needs codes most, or segment_count. */
static uint32_t choose_segment(struct care *care)
{
    enum urgency most = FINE;
    uint32_t chosen = care->manifest.segment_count;
    care->result->sound = true;
    for (uint32_t s = 0; s < care->manifest.segment_count; s++) {
        const struct mn_manifest_segment *segment = &care->manifest.segments[s];
        enum urgency urgency = urgency_of(care, segment);
        care->result->sound &= urgency != UNUSABLE || segment->codebook == 0;
        if (urgency > most) {
            most = urgency;
            chosen = s;
        }
    }
    return chosen;
}

/* Rows in the largest cluster of all segments together, against the mean. */
static bool skewed(const struct care *care)
{
    uint32_t clusters = care->codebook->clusters;
    uint64_t rows = 0, most = 0, *sizes = calloc(clusters, sizeof *sizes);
    for (uint32_t p = 0; sizes && p < care->snapshot.part_count; p++) {
        const struct mn_ivf *ivf = care->snapshot.parts[p].tail ? NULL : care->snapshot.parts[p].ivf;
        for (uint32_t c = 0; ivf && ivf->codebook == care->codebook && c < clusters; c++)
            sizes[c] += ivf->first_slot[c + 1] - ivf->first_slot[c];
    }
    for (uint32_t c = 0; sizes && c < clusters; c++) {
        rows += sizes[c];
        most = sizes[c] > most ? sizes[c] : most;
    }
    free(sizes);
    return most * clusters > rows * SKEW_TIMES;
}

/* What rounding alone may make of a residual: against its centroid when energies were measured in the training, against
 * the mean when rows were brought into the codebook's space. */
static double rounding_of(const struct mn_codebook *codebook)
{
    double mean = 0, longest = 0, part = mn_kernel_rounding(codebook->width);
    for (uint32_t d = 0; d < codebook->dim; d++)
        mean += (double)codebook->mean[d] * (double)codebook->mean[d];
    for (uint32_t c = 0; c < codebook->clusters; c++)
        longest = (double)codebook->norms[c] > longest ? (double)codebook->norms[c] : longest;
    return part * longest + part * part * mean;
}

static bool residuals_grown(const struct mn_compact_coded *coded, const struct mn_codebook *codebook)
{
    double before = (double)codebook->energy * ENERGY_TIMES + rounding_of(codebook);
    return coded->energy > before * (double)coded->rows;
}

static bool outgrown(const struct care *care)
{
    const struct mn_codebook *codebook = care->codebook;
    const struct mn_compact_coded *coded = &care->compactor->coded;
    uint64_t rows = column_rows(&care->snapshot);
    uint64_t trained = codebook->trained_rows ? codebook->trained_rows : 1;
    if (rows >= trained * GROWN_TIMES)
        return true;
    if (coded->codebook == codebook->gen && coded->rows * CODED_SHARE >= trained && residuals_grown(coded, codebook))
        return true;
    return rows * SKEW_GROWN_DEN >= trained * SKEW_GROWN_NUM && skewed(care);
}

/* ---- doing it ---- */

static enum mn_status propose(struct care *care)
{
    MN_TRY(mn_manifest_copy(&care->proposal->next, &care->manifest));
    care->proposal->base_edit = care->manifest.edit;
    care->result->worth = true;
    return MN_OK;
}

/* Recall keeps its targets on the new codebook before it is calibrated anew. */
static enum mn_status carry_over_tuning(struct care *care)
{
    const struct mn_codebook *trained;
    struct mn_manifest *next = &care->proposal->next;
    struct mn_tuning tuning = mn_tune_of(next->tuning);
    MN_TRY(mn_codebook_open(&trained, &care->compactor->store, next->codebook));
    mn_tune_carry_over(&tuning, care->codebook ? care->codebook->clusters : 0, trained->clusters);
    memcpy(next->tuning, &tuning, sizeof tuning);
    mn_codebook_close(trained);
    return MN_OK;
}

static enum mn_status train(struct care *care)
{
    uint64_t gen;
    MN_TRY(mn_compact_train(care->compactor, &care->manifest, &care->snapshot, column_rows(&care->snapshot),
                            care->pause, care->context, &gen));
    MN_TRY(propose(care));
    care->proposal->next.codebook = gen;
    MN_TRY(carry_over_tuning(care));
    care->proposal->codebooks_trained = 1;
    forget_doubt(care->compactor, THE_CODEBOOK);
    return MN_OK;
}

/* ---- calibration ---- */

/* Rows that a search goes through by cluster, or will: those in columns, and of the tail those that are by cluster. */
static uint64_t searched_rows(const struct mn_snapshot *snapshot)
{
    uint64_t rows = column_rows(snapshot);
    for (uint32_t p = 0; p < snapshot->part_count; p++)
        rows += snapshot->parts[p].tail ? mn_ivf_clustered(snapshot->parts[p].ivf) : 0;
    return rows;
}

static uint64_t tuned_rows(const struct mn_manifest *manifest)
{
    struct mn_tuning tuning = mn_tune_of(manifest->tuning);
    return tuning.rows > 0 ? (uint64_t)tuning.rows : 0;
}

/* Rows in columns that were not there at the last calibration: where they replace others, or others are forgotten
 * meanwhile, their number alone does not tell. Those that came before the compactor was opened are not counted. */
static uint64_t came_since(const struct care *care)
{
    struct mn_compactor *c = care->compactor;
    if (c->came_edit == care->manifest.edit)
        return c->came_rows;
    c->came_edit = care->manifest.edit;
    c->came_rows = 0;
    for (uint32_t p = 0; p < care->snapshot.part_count; p++) {
        const struct mn_part *part = &care->snapshot.parts[p];
        for (uint32_t row = 0; !part->tail && part->born_max > c->tuned_seq && row < part->rows; row++)
            c->came_rows += mn_part_born(part, row) > c->tuned_seq;
    }
    return c->came_rows;
}

static bool moved_on(uint64_t rows, uint64_t came, uint64_t before)
{
    uint64_t apart = rows > before ? rows - before : before - rows;
    return (apart > came ? apart : came) * 100 > before * TUNED_PERCENT;
}

/* Also what came to nothing is not tried again before the store has changed. */
static bool wants_tuning(const struct care *care)
{
    const struct mn_compactor *c = care->compactor;
    uint64_t rows = searched_rows(&care->snapshot), came = came_since(care);
    bool coded = false;
    for (uint32_t p = 0; p < care->snapshot.part_count && !coded; p++)
        coded = !care->snapshot.parts[p].tail && care->snapshot.parts[p].ivf;
    return coded && moved_on(rows, came, tuned_rows(&care->manifest)) &&
           (c->tuned_codebook != care->manifest.codebook || moved_on(rows, came, c->tuned_rows));
}

static enum mn_status tune(struct care *care)
{
    struct mn_compactor *c = care->compactor;
    struct mn_tuning tuning;
    uint64_t rows = searched_rows(&care->snapshot);
    MN_TRY(mn_tune_calibrate(&care->snapshot, c->store.metric, c->store.dim, TUNE_QUERIES, care->manifest.edit,
                             care->pause, care->context, &tuning, NULL));
    c->tuned_codebook = care->manifest.codebook;
    c->tuned_rows = rows;
    c->tuned_seq = care->snapshot.seq;
    c->came_edit = 0;
    if (!mn_tuned(&tuning))
        return MN_OK; /* there was nothing to learn from: the safe defaults stay */
    MN_TRY(propose(care));
    tuning.rows = (float)rows;
    memcpy(care->proposal->next.tuning, &tuning, sizeof tuning);
    care->result->tuned = true;
    return MN_OK;
}

/* ---- coding ---- */

static enum mn_status code_segment(struct care *care, uint32_t s)
{
    struct mn_compactor *c = care->compactor;
    const struct mn_manifest_segment *segment = &care->manifest.segments[s];
    const struct mn_part *part = mn_compact_part(&care->snapshot, false, segment->id);
    char path[MN_PATH_MAX];
    uint64_t bytes, before = 0;
    float energy;
    if (segment->codebook != 0)
        before = mn_io_file_bytes(c->store.io, mn_ivf_path(&c->store, path, segment->id, segment->codebook));
    MN_TRY(
        mn_ivf_write(&c->store, segment->id, part, care->codebook, NULL, care->pause, care->context, &bytes, &energy));
    mn_hot_remove(c->instance, segment->id, care->codebook->gen); /* it may be the copy that cannot be used */
    MN_TRY(propose(care));
    struct mn_manifest_segment *next = &care->proposal->next.segments[s];
    next->codebook = care->codebook->gen;
    next->bytes = next->bytes - (before < next->bytes ? before : 0) + bytes;
    care->proposal->rows_coded = part->rows;
    care->proposal->bytes_out = bytes;
    care->result->segment = segment->id;
    mn_compact_note_coded(c, care->codebook->gen, part->rows, energy);
    forget_doubt(c, segment->id);
    return MN_OK;
}

/* A codebook that is gone or damaged takes the codes of all segments with it: a new one, then. */
static enum mn_status open_codebook(struct care *care, bool *unusable)
{
    *unusable = false;
    if (care->manifest.codebook == 0)
        return MN_OK;
    if (doubted(care->compactor, THE_CODEBOOK)) {
        *unusable = true;
        return MN_OK;
    }
    enum mn_status status = mn_codebook_open(&care->codebook, &care->compactor->store, care->manifest.codebook);
    *unusable = status == MN_NOT_FOUND || status == MN_CORRUPT;
    return *unusable ? MN_OK : status;
}

/* Codes are not wanted any more. The codebook stays: its generation would not be given again. */
static enum mn_status drop_codes(struct care *care)
{
    bool any = false;
    for (uint32_t s = 0; s < care->manifest.segment_count; s++)
        any |= care->manifest.segments[s].codebook != 0;
    care->result->sound = true;
    if (!any)
        return MN_OK;
    MN_TRY(propose(care));
    for (uint32_t s = 0; s < care->manifest.segment_count; s++) {
        struct mn_manifest_segment *segment = &care->proposal->next.segments[s];
        char path[MN_PATH_MAX];
        if (segment->codebook == 0)
            continue;
        uint64_t bytes = mn_io_file_bytes(care->compactor->store.io,
                                          mn_ivf_path(&care->compactor->store, path, segment->id, segment->codebook));
        segment->bytes -= bytes < segment->bytes ? bytes : 0;
        segment->codebook = 0;
    }
    return MN_OK;
}

static enum mn_status decide(struct care *care)
{
    if (care->policy->codebook_rows_min == 0)
        return drop_codes(care);
    bool unusable, enough = column_rows(&care->snapshot) >= care->policy->codebook_rows_min;
    MN_TRY(settle_doubts(care));
    MN_TRY(open_codebook(care, &unusable));
    uint32_t segment = choose_segment(care);
    if (!care->codebook)
        return enough || unusable ? train(care) : MN_OK;
    if (segment < care->manifest.segment_count)
        return code_segment(care, segment);
    if (outgrown(care))
        return train(care);
    return wants_tuning(care) ? tune(care) : MN_OK;
}

static enum mn_status tidy(struct care *care)
{
    struct mn_compactor *c = care->compactor;
    bool left;
    if (c->tidied_edit == care->manifest.edit)
        return MN_OK;
    MN_TRY(mn_compact_tidy_codes(c, &care->manifest, &left));
    if (!left)
        c->tidied_edit = care->manifest.edit;
    return MN_OK;
}

enum mn_status mn_compact_care_for(struct mn_compactor *compactor, const struct mn_compact_policy *policy,
                                   bool (*pause)(void *context), void *context, struct mn_compact_proposal *proposal,
                                   struct mn_compact_care *result)
{
    struct care care = {.compactor = compactor,
                        .policy = policy,
                        .pause = pause,
                        .context = context,
                        .proposal = proposal,
                        .result = result};
    bool agree;
    *proposal = (struct mn_compact_proposal){0};
    *result = (struct mn_compact_care){.sound = true};
    MN_TRY(mn_compact_pin(compactor->reader, &compactor->store, compactor->instance, &care.manifest, &care.snapshot,
                          &agree));
    if (!agree)
        return MN_OK;
    result->looked = true;
    if (compactor->tuned_seq == 0)
        compactor->tuned_seq = care.snapshot.seq;
    enum mn_status status = tidy(&care);
    if (status == MN_OK)
        status = decide(&care);
    if (care.codebook)
        mn_codebook_close(care.codebook);
    mn_manifest_free(&care.manifest);
    mn_reader_unpin(compactor->reader);
    if (status != MN_OK)
        mn_compact_proposal_free(proposal);
    return status;
}
