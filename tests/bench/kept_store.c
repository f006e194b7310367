/*
 * kept_store.c - see kept_store.h.
 */
#include "tests/bench/kept_store.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

void kept_must(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, mn_error_trail());
        exit(1);
    }
}

double kept_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

void *kept_need(size_t bytes)
{
    void *p = aligned_alloc(MN_LINE, mn_round_up(bytes + 1, MN_LINE));
    kept_must(p != NULL, "memory");
    return p;
}

float *kept_load(const char *path, uint32_t dim, uint32_t *rows)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    kept_must(f && fstat(fileno(f), &st) == 0, path);
    uint32_t there = (uint32_t)((uint64_t)st.st_size / (dim * sizeof(float)));
    *rows = *rows > 0 && *rows < there ? *rows : there;
    float *data = kept_need((size_t)*rows * dim * sizeof *data);
    kept_must(fread(data, dim * sizeof *data, *rows, f) == *rows, path);
    fclose(f);
    return data;
}

double kept_norm(const float *x, uint32_t dim)
{
    double sum = 0;
    for (uint32_t i = 0; i < dim; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

bool kept_option(const char *argument, const char *name, const char **value)
{
    size_t length = strlen(name);
    if (strncmp(argument, name, length) != 0 || argument[length] != '=')
        return false;
    *value = argument + length + 1;
    return true;
}

uint32_t kept_store_first(const struct kept_store *kept, uint32_t part)
{
    return (uint32_t)((uint64_t)kept->rows * part / kept->part_count);
}

/* ---- making it ---- */

static bool never(void *context)
{
    (void)context;
    return false;
}

struct sampling {
    const float *base;
    uint32_t dim;
    uint64_t rows, samples;
};

static bool sample_row(void *context, uint64_t i, float *out)
{
    const struct sampling *s = context;
    const float *x = s->base + i * s->rows / s->samples * s->dim;
    float scale = (float)(1 / kept_norm(x, s->dim));
    for (uint32_t j = 0; j < s->dim; j++)
        out[j] = x[j] * scale;
    return true;
}

static void write_columns(struct kept_store *kept, const struct kept_rows *rows)
{
    for (uint32_t i = 0; i < kept->part_count; i++) {
        struct mn_columns_writer *writer;
        uint64_t bytes;
        uint32_t first = kept_store_first(kept, i), count = kept_store_first(kept, i + 1) - first;
        kept_must(mn_columns_create(&writer, &kept->store, i + 1, count, rows->names, rows->name_count) == MN_OK,
                  "columns");
        rows->write(rows->context, writer, first, count);
        kept_must(mn_columns_finish(writer, &bytes) == MN_OK, "columns");
    }
}

static void train(struct kept_store *kept, const float *base)
{
    uint32_t clusters = kept->clusters ? kept->clusters : mn_codebook_clusters(kept->rows);
    uint64_t samples = mn_codebook_sample_rows(clusters);
    struct sampling sampling = {base, kept->dim, kept->rows, samples < kept->rows ? samples : kept->rows};
    struct mn_codebook_sample sample = {.rows = sampling.samples, .row = sample_row, .context = &sampling};
    kept_must(mn_codebook_train(&kept->store, 1, clusters, kept->rows, &sample, 1, never, NULL) == MN_OK, "training");
}

/* Returns the mean energy of the codes. */
static double write_codes(struct kept_store *kept)
{
    const struct mn_codebook *codebook;
    double energy_sum = 0;
    kept_must(mn_codebook_open(&codebook, &kept->store, 1) == MN_OK, "the codebook");
    for (uint32_t i = 0; i < kept->part_count; i++) {
        struct mn_columns *columns;
        struct mn_part part;
        uint64_t bytes;
        float energy;
        kept_must(mn_columns_open(&columns, &kept->store, i + 1, MN_COLUMNS_CHECK) == MN_OK, "columns");
        mn_columns_part(columns, &part);
        kept_must(mn_ivf_write(&kept->store, i + 1, &part, codebook, NULL, never, NULL, &bytes, &energy) == MN_OK,
                  "codes");
        energy_sum += (double)energy * part.rows;
        mn_columns_close(columns);
    }
    mn_codebook_close(codebook);
    return energy_sum / kept->rows;
}

void kept_store_need(struct kept_store *kept, const struct kept_rows *rows)
{
    char path[MN_PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/STORE", kept->folder);
    if (stat(path, &st) == 0)
        return;
    double begun = kept_now_us();
    mkdir(kept->folder, 0700);
    kept_must(mn_store_create(&kept->store, &mn_io_posix, kept->folder, kept->dim, MN_METRIC_COSINE) == MN_OK,
              "a store");
    write_columns(kept, rows);
    double written = kept_now_us();
    train(kept, rows->base);
    double trained = kept_now_us(), energy = write_codes(kept);
    fprintf(stderr, "built: columns %.1f s, codebook %.1f s, codes %.1f s; energy %.4f\n", (written - begun) / 1e6,
            (trained - written) / 1e6, (kept_now_us() - trained) / 1e6, energy);
}

/* ---- opening it ---- */

static uint64_t open_part(struct kept_store *kept, uint32_t i)
{
    struct mn_columns *columns;
    struct mn_ivf_file *file;
    struct mn_part *part = &kept->parts[i];
    uint64_t intact = 0;
    kept_must(mn_columns_open(&columns, &kept->store, i + 1, MN_COLUMNS_CHECK) == MN_OK, "columns");
    mn_columns_part(columns, part);
    kept_must(part->rows == kept_store_first(kept, i + 1) - kept_store_first(kept, i), "the store has other rows");
    uint64_t *died = kept_need(part->rows * sizeof *died);
    memset(died, 0xff, part->rows * sizeof *died);
    part->died = (const _Atomic uint64_t *)died;
    part->dead = &kept->dead;
    kept_must(mn_ivf_open(&file, &kept->store, i + 1, 1) == MN_OK, "codes");
    part->ivf = mn_ivf_of(file);
    for (uint32_t row = 0; row < part->rows; row++)
        intact += mn_ivf_intact(part->ivf, row) && mn_part_vector(part, row);
    return intact;
}

void kept_store_open(struct kept_store *kept)
{
    uint64_t intact = 0;
    kept_must(mn_store_open(&kept->store, &mn_io_posix, kept->folder) == MN_OK, "the store");
    for (uint32_t i = 0; i < kept->part_count; i++)
        intact += open_part(kept, i);
    kept_must(intact == kept->rows, "something is damaged");
}

struct mn_snapshot kept_store_snapshot(const struct kept_store *kept)
{
    return (struct mn_snapshot){.gen = 1,
                                .seq = 1,
                                .part_count = kept->part_count,
                                .parts = (struct mn_part *)kept->parts,
                                .tuning = kept->tuning};
}

struct mn_tuning kept_store_calibrate(struct kept_store *kept, struct mn_tune_point *points)
{
    struct mn_snapshot snapshot = kept_store_snapshot(kept);
    struct mn_tuning tuning;
    snapshot.tuning = NULL;
    kept_must(mn_tune_calibrate(&snapshot, MN_METRIC_COSINE, kept->dim, 1000, 1, never, NULL, &tuning, points) == MN_OK,
              "calibration");
    for (uint32_t i = 0; i < MN_TUNING_WORDS; i++)
        kept->tuning[i] = ((const uint32_t *)(const void *)&tuning)[i];
    return tuning;
}
